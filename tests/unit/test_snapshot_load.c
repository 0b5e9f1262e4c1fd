/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots and backups taken while others write, compared key by key with a model of the writers.
 *
 * Each writer has a namespace and does operations 1, 2, 3 ... that follow from its number and
 * theirs, so the state after n of them is known.  A snapshot may have caught it after any n between
 * what was acknowledged before and what had been begun afterwards, and must be exactly that state; and
 * one moment for all: whoever had seen another one's operation n is not without it.
 */
#include "core/emdb.h"

#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "core/base.h"
#include "core/storedir.h"
#include "tests/unit/test.h"

#define WRITERS 3
#define KEYS    64
#define SMALL   400u
#define LARGE   60000u
#define HISTORY (1u << 18)
#define SHOTS   5u

struct writer {
	int number;            /* immutable */
	uint64_t ns;           /* immutable while it runs */
	emdb_db *db;           /* the same */
	uint64_t values[KEYS]; /* its own; the operation that put it, 0: absent */
	uint64_t hash;         /* its own; of values */
	_Atomic(uint64_t) begun, done;
	_Atomic(uint64_t) history[HISTORY]; /* hash after operation n, written before n begins */
};

static uint64_t seed;
static struct writer writers[WRITERS];
static atomic_bool stop;
static const char *base_dir;

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t s = a * UINT64_C(0x9e3779b97f4a7c15) + b;

	(void)test_rand(&s);
	s += c;
	return test_rand(&s);
}

/* ---- Values: what operation n of a writer puts ---- */

struct header {
	uint64_t n, seen; /* seen: of the next writer, when it began */
};

static size_t value_len(int w, uint64_t n)
{
	const uint64_t r = mix(seed, (uint64_t)w + 100, n);

	return sizeof(struct header) + (r % 20 == 0 ? r / 20 % LARGE : r / 20 % SMALL);
}

static void value_fill(int w, uint64_t n, uint8_t *p, size_t len)
{
	uint64_t r = mix(seed, (uint64_t)w + 200, n);

	for (size_t i = sizeof(struct header); i < len; i++) {
		r = r * UINT64_C(6364136223846793005) + 1442695040888963407u;
		p[i] = (uint8_t)(r >> 56);
	}
}

static uint64_t hash_of(unsigned int key, uint64_t n)
{
	return n ? mix(key + 1, n, 7) : 0;
}

static size_t key_of(unsigned int i, char key[static 16])
{
	return (size_t)snprintf(key, 16, "key-%u", i);
}

/* ---- The writers ---- */

static void set(struct writer *w, unsigned int key, uint64_t n)
{
	w->hash ^= hash_of(key, w->values[key]) ^ hash_of(key, n);
	w->values[key] = n;
}

static void put(struct writer *w, unsigned int i, uint64_t n)
{
	static _Thread_local uint8_t value[sizeof(struct header) + LARGE];
	const struct header h = { n, atomic_load(&writers[(w->number + 1) % WRITERS].done) };
	const size_t len = value_len(w->number, n);
	char key[16];

	value_fill(w->number, n, value, len);
	memcpy(value, &h, sizeof(h));
	CHECK_OK(emdb_put(w->db, w->ns, key, key_of(i, key), value, len, EMDB_TTL_NEVER));
}

/* Operation n: in the model first, so that its outcome is known when it begins. */
static void operate(struct writer *w, uint64_t n)
{
	const uint64_t r = mix(seed, (uint64_t)w->number, n);
	const unsigned int i = (unsigned int)(r % KEYS), k = (unsigned int)(r / KEYS % KEYS);
	const unsigned int what = (unsigned int)(r / KEYS / KEYS % 10);
	const bool there = w->values[i] != 0;
	char key[16], other[16];
	emdb_err err;

	if (what < 7) {
		set(w, i, n);
	} else if (what < 9) {
		set(w, i, 0);
	} else if (there && i != k) {
		set(w, k, w->values[i]);
		set(w, i, 0);
	}
	atomic_store(&w->history[n % HISTORY], w->hash);
	atomic_store(&w->begun, n);
	if (what < 7) {
		put(w, i, n);
	} else if (what < 9) {
		err = emdb_remove(w->db, w->ns, key, key_of(i, key), NULL, NULL);
		CHECK_EQ(err, there ? EMDB_OK : EMDB_ERR_NOT_FOUND);
	} else if (there && i != k) {
		CHECK_OK(emdb_node_rename(w->db, w->ns, key, key_of(i, key), w->ns, other,
					  key_of(k, other), 0));
	}
	atomic_store(&w->done, n);
}

static void *writer_main(void *arg)
{
	struct writer *const w = arg;

	while (!atomic_load(&stop))
		operate(w, atomic_load(&w->done) + 1);
	return NULL;
}

static void *compactor_main(void *arg)
{
	const struct emdb_compact_options all = { .size = sizeof(all), .min_dead_percent = 1 };
	emdb_db *const db = arg;

	while (!atomic_load(&stop)) {
		CHECK_OK(emdb_compact(db, &all, NULL));
		CHECK_OK(emdb_checkpoint(db));
	}
	return NULL;
}

/* ---- Comparing ---- */

/* Where the writers were: before the moment that was taken, and after it. */
struct moment {
	uint64_t from[WRITERS], to[WRITERS];
};

static void moment_begin(struct moment *m)
{
	for (int w = 0; w < WRITERS; w++)
		m->from[w] = atomic_load(&writers[w].done);
}

static void moment_end(struct moment *m)
{
	for (int w = 0; w < WRITERS; w++)
		m->to[w] = atomic_load(&writers[w].begun);
}

/* The hash of what is there of one writer, every byte of it checked; *ret_seen: what it had seen. */
static uint64_t look(emdb_db *db, int w, const char *what, uint64_t *ret_seen)
{
	static uint8_t want[sizeof(struct header) + LARGE];
	uint64_t ns, hash = 0, present = 0, count;
	char key[16];

	(void)snprintf(key, sizeof(key), "w%d", w);
	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, key, strlen(key), &ns));
	*ret_seen = 0;
	for (unsigned int i = 0; i < KEYS; i++) {
		struct header h;
		void *v;
		size_t n;
		const emdb_err err = emdb_get(db, ns, key, key_of(i, key), &v, &n);

		if (err) {
			CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
			continue;
		}
		CHECK(n >= sizeof(h));
		memcpy(&h, v, sizeof(h));
		CHECK_UEQ(n, value_len(w, h.n));
		value_fill(w, h.n, want, n);
		memcpy(want, &h, sizeof(h));
		if (memcmp(v, want, n) != 0)
			FAIL("%s: w%d/%s has other bytes than operation %" PRIu64 " put", what, w,
			     key, h.n);
		emdb_free(v);
		hash ^= hash_of(i, h.n);
		*ret_seen = max_u64(*ret_seen, h.seen);
		present++;
	}
	CHECK_OK(emdb_count(db, ns, &count));
	CHECK_UEQ(count, present);
	return hash;
}

static uint64_t history_of(int w, uint64_t n)
{
	return n ? atomic_load(&writers[w].history[n % HISTORY]) : 0;
}

static void compare(emdb_db *db, const struct moment *m, const char *what)
{
	uint64_t at[WRITERS], seen[WRITERS];

	for (int w = 0; w < WRITERS; w++) {
		const uint64_t hash = look(db, w, what, &seen[w]);

		if (atomic_load(&writers[w].begun) - m->from[w] >= HISTORY / 2)
			FAIL("%s: too long ago to be compared", what);
		for (at[w] = m->to[w]; at[w] > m->from[w]; at[w]--)
			if (history_of(w, at[w]) == hash)
				break;
		if (history_of(w, at[w]) != hash)
			FAIL("%s: writer %d is in no state from %" PRIu64 " to %" PRIu64, what, w,
			     m->from[w], m->to[w]);
	}
	for (int w = 0; w < WRITERS; w++) {
		const int next = (w + 1) % WRITERS;

		if (seen[w] > at[next])
			FAIL("%s: writer %d saw operation %" PRIu64 " of %d, which is at %" PRIu64,
			     what, w, seen[w], next, at[next]);
	}
}

/* ---- What is done meanwhile ---- */

struct shots {
	struct moment at[SHOTS];
	bool used[SHOTS], backed_up;
	struct moment backup;
	unsigned int taken, looked;
};

static const char *path_of(const char *name)
{
	static char paths[4][PATH_MAX + 64];
	static unsigned int turn;
	char *const p = paths[turn++ % 4];

	(void)snprintf(p, sizeof(paths[0]), "%s/%s", base_dir, name);
	return p;
}

static emdb_db *open_store(const char *name, unsigned int flags)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.detail = &detail };
	emdb_db *db = NULL;
	const emdb_err err = emdb_open(path_of(name), &o, &db);

	if (err)
		FAIL("%s: %s: %s", name, emdb_err_name(err), detail.text);
	return db;
}

static void shoot(emdb_db *db, struct shots *s, unsigned int i)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "s%u", i);
	if (s->used[i])
		CHECK_OK(emdb_snapshot_delete(db, name));
	moment_begin(&s->at[i]);
	CHECK_OK(emdb_snapshot_create(db, name, NULL));
	moment_end(&s->at[i]);
	s->used[i] = true;
	s->taken++;
}

static void look_at(emdb_db *db, struct shots *s, unsigned int i)
{
	emdb_db *snap;
	char name[16];

	if (!s->used[i])
		return;
	(void)snprintf(name, sizeof(name), "s%u", i);
	CHECK_OK(emdb_snapshot_open(db, name, NULL, &snap));
	compare(snap, &s->at[i], name);
	CHECK_OK(emdb_close(snap));
	s->looked++;
}

static void back_up(emdb_db *db, struct shots *s)
{
	emdb_db *b;

	moment_begin(&s->backup);
	CHECK_OK(emdb_backup(db, path_of("backup"), NULL, NULL));
	moment_end(&s->backup);
	s->backed_up = true;
	b = open_store("backup", EMDB_OPEN_READ_ONLY);
	compare(b, &s->backup, "backup");
	CHECK_OK(emdb_close(b));
}

static void restore(struct shots *s, struct emdb_io *io)
{
	emdb_db *db;

	if (!s->backed_up)
		return;
	CHECK_OK(emdb_restore(path_of("backup"), path_of("restored"), NULL, NULL));
	db = open_store("restored", 0);
	compare(db, &s->backup, "restored");
	CHECK_OK(emdb_close(db));
	CHECK_OK(storedir_remove(io, AT_FDCWD, path_of("restored")));
}

/* ---- Rounds ---- */

static void lose_checkpoints(void)
{
	glob_t g;

	if (glob(path_of("store/checkpoint-*"), 0, NULL, &g) != 0)
		return;
	for (size_t i = 0; i < g.gl_pathc; i++)
		CHECK_EQ(unlink(g.gl_pathv[i]), 0);
	globfree(&g);
}

static emdb_db *begin_round(unsigned int flags, pthread_t threads[static WRITERS + 1])
{
	emdb_db *const db = open_store("store", flags);
	struct moment now;

	for (int w = 0; w < WRITERS; w++) {
		char name[16];
		const size_t n = (size_t)snprintf(name, sizeof(name), "w%d", w);

		writers[w].number = w;
		writers[w].db = db;
		if (flags & EMDB_OPEN_CREATE)
			CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, n, &writers[w].ns));
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, name, n, &writers[w].ns));
	}
	moment_begin(&now);
	moment_end(&now);
	compare(db, &now, "store");
	atomic_store(&stop, false);
	for (int w = 0; w < WRITERS; w++)
		CHECK_EQ(pthread_create(&threads[w], NULL, writer_main, &writers[w]), 0);
	CHECK_EQ(pthread_create(&threads[WRITERS], NULL, compactor_main, db), 0);
	return db;
}

static void end_round(emdb_db *db, pthread_t threads[static WRITERS + 1])
{
	atomic_store(&stop, true);
	for (int i = 0; i <= WRITERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_OK(emdb_close(db));
}

static uint64_t now_s(void)
{
	struct timespec t;

	CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &t), 0);
	return (uint64_t)t.tv_sec;
}

/* Histories are short: what was taken long ago is looked at before it is forgotten. */
static void run_round(emdb_db *db, struct shots *s, struct emdb_io *io, uint64_t *rnd, int steps)
{
	for (unsigned int i = 0; i < SHOTS; i++)
		look_at(db, s, i);
	for (int step = 0; step < steps; step++) {
		const unsigned int r = (unsigned int)(test_rand(rnd) % 10);
		const unsigned int i = (unsigned int)(test_rand(rnd) % SHOTS);

		if (r < 5)
			shoot(db, s, i);
		else if (r < 8)
			look_at(db, s, i);
		else if (r < 9)
			back_up(db, s);
		else
			restore(s, io);
	}
	for (unsigned int i = 0; i < SHOTS; i++) {
		look_at(db, s, i);
		shoot(db, s, i);
	}
	back_up(db, s);
}

TEST(test_snapshot_load__each_is_one_moment)
{
	const uint64_t seconds = getenv("EMDB_LONG") != NULL ? 180 : 1, start = now_s();
	struct emdb_io *const io = emdb_io_posix_new();
	struct shots *const s = calloc(1, sizeof(*s));
	pthread_t threads[WRITERS + 1];
	unsigned int round = 0;
	uint64_t rnd, ops = 0;

	CHECK(io && s);
	rnd = seed = test_seed();
	base_dir = test_dir();
	do {
		emdb_db *const db = begin_round(round ? 0 : EMDB_OPEN_CREATE, threads);

		run_round(db, s, io, &rnd, 12);
		end_round(db, threads);
		if (test_rand(&rnd) % 2)
			lose_checkpoints();
		round++;
	} while (round < 2 || now_s() - start < seconds);
	end_round(begin_round(0, threads), threads);
	for (int w = 0; w < WRITERS; w++)
		ops += atomic_load(&writers[w].done);
	printf("  %" PRIu64 " operations, %u rounds, %u snapshots, %u looked at\n", ops, round,
	       s->taken, s->looked);
	free(s);
	emdb_io_free(io);
}

TEST_MAIN()
