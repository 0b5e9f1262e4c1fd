/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views under load, for ThreadSanitizer above all: writers that overwrite, remove, promote, write
 * into, clear and drop what is theirs, and keep a model of it; compaction, checkpoints and the
 * sweeper meanwhile. Who takes a view stops the writers for that moment, copies their models, lets
 * them go on and then compares.
 */
#include "tests/unit/test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "core/emdb.h"

#define WRITERS 3
#define KEYS    24
#define LOOKERS 2
#define BIG_MAX 60000u

struct thing {
	bool there;
	uint32_t version;
	size_t len;
	int64_t expires_ms;
};

struct model {
	uint64_t ns; /* 0: dropped */
	struct thing things[KEYS];
};

struct writer {
	pthread_mutex_t lock;
	struct model model; /* guarded by lock */
	unsigned int who;
	uint64_t rnd;
	uint8_t room[BIG_MAX];
};

static emdb_db *db;
static struct writer writers[WRITERS];
static _Atomic(bool) stop;
static _Atomic(unsigned int) looks;
static _Atomic(unsigned int) waiting; /* who wants to look: writers make room */

static const uint8_t *content(uint8_t *p, unsigned int who, unsigned int key, const struct thing *t)
{
	uint64_t rnd = ((uint64_t)who << 48 ^ (uint64_t)key << 32 ^ t->version) * 2 + 1;

	for (size_t i = 0; i < t->len; i += 8) {
		const uint64_t v = test_rand(&rnd);

		memcpy(p + i, &v, t->len - i < 8 ? t->len - i : 8);
	}
	return p;
}

/* ---- Writers ---- */

static void write_one(struct writer *w)
{
	const unsigned int key = (unsigned int)(test_rand(&w->rnd) % KEYS);
	const unsigned int dice = (unsigned int)(test_rand(&w->rnd) % 100);
	struct thing *const t = &w->model.things[key];
	char name[16];
	const size_t n = (size_t)snprintf(name, sizeof(name), "k%u", key);
	struct emdb_attr a;

	if (dice < 20) {
		const emdb_err err = emdb_remove(db, w->model.ns, name, n, NULL, NULL);

		CHECK(err == EMDB_OK || err == EMDB_ERR_NOT_FOUND);
		t->there = false;
		return;
	}
	t->version++;
	if (dice < 40 && t->there && !t->expires_ms &&
	    emdb_node_lookup(db, w->model.ns, name, n, &a) == EMDB_OK) {
		/* Through the object, promoted when it is large, in several steps. */
		t->len = 20000 + (size_t)(test_rand(&w->rnd) % (BIG_MAX - 20000));
		content(w->room, w->who, key, t);
		CHECK_OK(emdb_node_write(db, a.id, 0, w->room, t->len, 0));
		CHECK_OK(emdb_node_setattr(db, a.id, &(struct emdb_attr){ .size = t->len },
					   EMDB_SET_SIZE, &a));
		emdb_node_forget(db, a.id, 1);
		return;
	}
	t->len = (size_t)(test_rand(&w->rnd) % (dice < 90 ? 300 : BIG_MAX));
	t->there = true;
	t->expires_ms = dice < 60 ? emdb_now_ms(db) + 1 + (int64_t)(test_rand(&w->rnd) % 200) : 0;
	CHECK_OK(emdb_put(db, w->model.ns, name, n, content(w->room, w->who, key, t), t->len,
			  t->expires_ms));
}

static void step(struct writer *w)
{
	const unsigned int dice = (unsigned int)(test_rand(&w->rnd) % 1000);
	char name[16];
	const size_t n = (size_t)snprintf(name, sizeof(name), "ns%u", w->who);

	if (!w->model.ns) {
		CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, n, &w->model.ns));
	} else if (dice < 4) {
		CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, name, n, true));
		memset(&w->model, 0, sizeof(w->model));
	} else if (dice < 8) {
		CHECK_OK(emdb_clear(db, w->model.ns));
		memset(w->model.things, 0, sizeof(w->model.things));
	} else {
		write_one(w);
	}
}

static void *write_all(void *arg)
{
	struct writer *const w = arg;

	while (!atomic_load(&stop)) {
		while (atomic_load(&waiting))
			(void)sched_yield();
		CHECK_EQ(pthread_mutex_lock(&w->lock), 0);
		step(w);
		CHECK_EQ(pthread_mutex_unlock(&w->lock), 0);
	}
	return NULL;
}

/* ---- Those who look ---- */

/* An iterator a namespace, all of one moment, and what must be in them. */
struct look {
	struct model models[WRITERS];
	emdb_iter *iters[WRITERS];
	uint8_t *room;
};

static void take(struct look *l)
{
	atomic_fetch_add(&waiting, 1);
	for (int i = 0; i < WRITERS; i++)
		CHECK_EQ(pthread_mutex_lock(&writers[i].lock), 0);
	for (int i = 0; i < WRITERS; i++) {
		l->models[i] = writers[i].model;
		l->iters[i] = NULL;
		if (l->models[i].ns)
			CHECK_OK(
				emdb_iter_new(db, l->models[i].ns, EMDB_ITER_VALUES, &l->iters[i]));
	}
	for (int i = 0; i < WRITERS; i++)
		CHECK_EQ(pthread_mutex_unlock(&writers[i].lock), 0);
	atomic_fetch_sub(&waiting, 1);
}

static void compare(struct look *l, unsigned int who)
{
	const struct model *const mo = &l->models[who];
	bool seen[KEYS] = { false };
	struct emdb_entry e;
	emdb_err err;

	while ((err = emdb_iter_next(l->iters[who], &e)) == EMDB_OK) {
		char name[16] = "";
		unsigned int key;

		CHECK(e.key_len < sizeof(name));
		memcpy(name, e.key, e.key_len);
		CHECK_EQ(sscanf(name, "k%u", &key), 1);
		CHECK(key < KEYS && !seen[key] && mo->things[key].there);
		seen[key] = true;
		CHECK_EQ(e.expires_ms, mo->things[key].expires_ms);
		CHECK_MEM(e.value, e.value_len, content(l->room, who, key, &mo->things[key]),
			  mo->things[key].len);
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	for (unsigned int key = 0; key < KEYS; key++) {
		const struct thing *const t = &mo->things[key];

		if (t->there && !seen[key] && (!t->expires_ms || t->expires_ms > emdb_now_ms(db)))
			FAIL("key %u of writer %u, version %u, is not there", key, who, t->version);
	}
}

static void *look_all(void *arg)
{
	struct look l = { .room = malloc(BIG_MAX) };
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	CHECK(l.room);
	while (!atomic_load(&stop)) {
		const struct timespec nap = { 0, (long)(test_rand(&rnd) % 3000000) };

		take(&l);
		(void)nanosleep(&nap, NULL);
		for (unsigned int i = 0; i < WRITERS; i++) {
			if (l.iters[i])
				compare(&l, i);
			emdb_iter_free(l.iters[i]);
		}
		atomic_fetch_add(&looks, 1);
	}
	free(l.room);
	return NULL;
}

static void *upkeep(void *arg)
{
	uint64_t rnd = 5, removed;

	(void)arg;
	while (!atomic_load(&stop)) {
		const struct timespec nap = { 0, 1000000 };

		switch (test_rand(&rnd) % 4) {
		case 0:
			CHECK_OK(emdb_checkpoint(db));
			break;
		case 1:
			CHECK_OK(emdb_sweep(db, &removed));
			break;
		default:
			CHECK_OK(emdb_compact(db, NULL, NULL));
		}
		(void)nanosleep(&nap, NULL);
	}
	return NULL;
}

/* ---- All at once ---- */

static unsigned int seconds(void)
{
	const char *const env = getenv("SECONDS_OF_VIEWS");

	return env                                           ? (unsigned int)strtoul(env, NULL, 0)
	       : getenv("EMDB_LONG") && *getenv("EMDB_LONG") ? 60
							     : 2;
}

TEST(test_view__torture)
{
	const struct emdb_options opts = { .size = sizeof(opts),
					   .segment_bytes = EMDB_SEGMENT_MIN,
					   .sweep_interval_ms = 5,
					   .compact_percent = 20,
					   .compact_wait_bytes = 1 };
	pthread_t threads[WRITERS + LOOKERS + 1];
	const uint64_t seed = test_seed();
	struct emdb_stats st;
	size_t n = 0;

	CHECK_OK(emdb_open_memory(&opts, &db));
	for (unsigned int i = 0; i < WRITERS; i++) {
		writers[i].who = i;
		writers[i].rnd = seed + i + 1;
		CHECK_EQ(pthread_mutex_init(&writers[i].lock, NULL), 0);
		CHECK_EQ(pthread_create(&threads[n++], NULL, write_all, &writers[i]), 0);
	}
	for (uintptr_t i = 0; i < LOOKERS; i++)
		CHECK_EQ(pthread_create(&threads[n++], NULL, look_all, (void *)(i + 7)), 0);
	CHECK_EQ(pthread_create(&threads[n++], NULL, upkeep, NULL), 0);
	for (unsigned int i = 0; i < seconds() || atomic_load(&looks) < 3; i++)
		(void)sleep(1);
	atomic_store(&stop, true);
	for (size_t i = 0; i < n; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK_UEQ(st.views, 0);
	CHECK_UEQ(st.view_bytes, 0);
	printf("%u views looked at\n", atomic_load(&looks));
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
