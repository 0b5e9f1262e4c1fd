/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations, compaction, checkpoints, snapshots, backups, restores, rollbacks and reopenings
 * against what is known of each state: what was deleted never returns from any of them.
 */
#include "core/emdb.h"

#include <glob.h>
#include <stdlib.h>
#include <time.h>

#include "core/base.h"
#include "core/storedir.h"
#include "tests/unit/test.h"
#include "tests/unit/secret.h"

#define KEYS  60
#define SHOTS 6
#define STEPS 700

/* What a state holds: value i is key's i-th, 0: absent. */
struct state {
	uint32_t value[KEYS];
	bool used;
};

static const char *base_dir;
static struct state now, shots[SHOTS], backup_state;
static uint32_t counter;

static const char *at(const char *name)
{
	static char paths[4][PATH_MAX + 64];
	static unsigned int turn;
	char *const p = paths[turn++ % 4];

	(void)snprintf(p, sizeof(paths[0]), "%s/%s", base_dir, name);
	return p;
}

static emdb_db *open_at(const char *name, unsigned int flags)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.secret = test_secret(),
					.detail = &detail };
	emdb_db *db = NULL;
	const emdb_err err = emdb_open(at(name), &o, &db);

	if (err)
		FAIL("%s: %s: %s", name, emdb_err_name(err), detail.text);
	return db;
}

static size_t key_of(unsigned int i, char key[static 16])
{
	return (size_t)snprintf(key, 16, "key-%u", i);
}

static size_t value_len(uint32_t v)
{
	return 8 + v % 7 * 9001;
}

static void expect_state(emdb_db *db, const struct state *s, const char *what)
{
	uint64_t present = 0, count;
	char key[16];

	for (unsigned int i = 0; i < KEYS; i++) {
		void *v;
		size_t n;
		const emdb_err err = emdb_get(db, EMDB_ROOT, key, key_of(i, key), &v, &n);
		uint32_t got = 0;

		if (!err) {
			CHECK(n >= 8);
			memcpy(&got, v, sizeof(got));
			CHECK_UEQ(n, value_len(got));
			emdb_free(v);
			present++;
		} else {
			CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
		}
		if (got != s->value[i])
			FAIL("%s: %s has %u, wanted %u", what, key, got, s->value[i]);
	}
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, present);
}

static void put(emdb_db *db, unsigned int i, int64_t expires_ms)
{
	static uint8_t value[8 + 7 * 9001];
	const uint32_t v = ++counter;
	char key[16];

	memcpy(value, &v, sizeof(v));
	CHECK_OK(emdb_put(db, EMDB_ROOT, key, key_of(i, key), value, value_len(v), expires_ms));
	now.value[i] = v;
}

static void drop(emdb_db *db, unsigned int i)
{
	char key[16];
	const emdb_err err = emdb_remove(db, EMDB_ROOT, key, key_of(i, key), NULL, NULL);

	CHECK_EQ(err, now.value[i] ? EMDB_OK : EMDB_ERR_NOT_FOUND);
	now.value[i] = 0;
}

/* Gone by its time at once: a put with a deadline that has passed by the next look. */
static void expire(emdb_db *db, unsigned int i)
{
	const int64_t when = emdb_now_ms(db) + 1;

	put(db, i, when);
	while (emdb_now_ms(db) <= when)
		usleep(300);
	now.value[i] = 0;
}

static void shoot(emdb_db *db, unsigned int i)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "s%u", i);
	if (shots[i].used)
		CHECK_OK(emdb_snapshot_delete(db, name));
	CHECK_OK(emdb_snapshot_create(db, name, NULL));
	shots[i] = now;
	shots[i].used = true;
}

static void look_at_shot(emdb_db *db, unsigned int i)
{
	char name[16];
	emdb_db *snap;

	if (!shots[i].used)
		return;
	(void)snprintf(name, sizeof(name), "s%u", i);
	CHECK_OK(emdb_snapshot_open(db, name, NULL, &snap));
	expect_state(snap, &shots[i], name);
	CHECK_OK(emdb_close(snap));
}

static void back_up(emdb_db *db)
{
	const emdb_err err = emdb_backup(db, at("backup"), NULL, NULL);
	emdb_db *b;

	CHECK_OK(err);
	backup_state = now;
	backup_state.used = true;
	b = open_at("backup", EMDB_OPEN_READ_ONLY);
	expect_state(b, &backup_state, "backup");
	CHECK_OK(emdb_close(b));
}

static void restore(struct emdb_io *io)
{
	emdb_db *db;

	if (!backup_state.used)
		return;
	CHECK_OK(emdb_restore(at("backup"), at("restored"), NULL, NULL));
	db = open_at("restored", 0);
	expect_state(db, &backup_state, "restored");
	CHECK_OK(emdb_close(db));
	CHECK_OK(storedir_remove(io, AT_FDCWD, at("restored")));
}

/* Then everything is replayed. */
static void lose_checkpoints(void)
{
	glob_t g;

	if (glob(at("store/checkpoint-*"), 0, NULL, &g) != 0)
		return;
	for (size_t i = 0; i < g.gl_pathc; i++)
		CHECK_EQ(unlink(g.gl_pathv[i]), 0);
	globfree(&g);
}

static void roll_back(unsigned int i)
{
	char name[16];

	if (!shots[i].used)
		return;
	(void)snprintf(name, sizeof(name), "s%u", i);
	CHECK_OK(emdb_rollback(at("store"), name, EMDB_ROLLBACK_PAST_NEWER, NULL));
	now = shots[i];
}

static void run(struct emdb_io *io, uint64_t rnd)
{
	const struct emdb_compact_options all = { .size = sizeof(all), .min_dead_percent = 1 };
	emdb_db *db = open_at("store", EMDB_OPEN_CREATE);

	for (int step = 0; step < STEPS; step++) {
		const unsigned int r = (unsigned int)(test_rand(&rnd) % 100);
		const unsigned int i = (unsigned int)(test_rand(&rnd) % KEYS);

		if (r < 50) {
			put(db, i, 0);
		} else if (r < 72) {
			drop(db, i);
		} else if (r < 75) {
			expire(db, i);
		} else if (r < 76) {
			CHECK_OK(emdb_clear(db, EMDB_ROOT));
			memset(now.value, 0, sizeof(now.value));
		} else if (r < 82) {
			CHECK_OK(emdb_compact(db, &all, NULL));
		} else if (r < 84) {
			CHECK_OK(emdb_checkpoint(db));
		} else if (r < 88) {
			shoot(db, i % SHOTS);
		} else if (r < 92) {
			look_at_shot(db, i % SHOTS);
		} else if (r < 94) {
			back_up(db);
		} else if (r < 95) {
			restore(io);
		} else if (r < 98) {
			CHECK_OK(emdb_close(db));
			if (r == 97)
				roll_back(i % SHOTS);
			if (i % 2)
				lose_checkpoints();
			db = open_at("store", 0);
			expect_state(db, &now, "store");
		} else {
			expect_state(db, &now, "live");
		}
	}
	for (unsigned int i = 0; i < SHOTS; i++)
		look_at_shot(db, i);
	CHECK_OK(emdb_close(db));
}

static void start_over(struct emdb_io *io)
{
	CHECK_OK(storedir_remove(io, AT_FDCWD, at("store")));
	CHECK_OK(storedir_remove(io, AT_FDCWD, at("backup")));
	memset(&now, 0, sizeof(now));
	memset(shots, 0, sizeof(shots));
	memset(&backup_state, 0, sizeof(backup_state));
}

/* Once, or for minutes; a seed that failed is the one to be given then. */
TEST(test_snapshot_random__what_is_gone_stays_gone)
{
	const time_t end = time(NULL) + (getenv("EMDB_LONG") != NULL ? 180 : 0);
	struct emdb_io *const io = emdb_io_posix_new();
	uint64_t seed = test_seed();

	CHECK(io);
	base_dir = test_dir();
	run(io, seed);
	while (time(NULL) < end) {
		printf("seed %" PRIu64 "\n", ++seed);
		start_over(io);
		run(io, seed);
	}
	emdb_io_free(io);
}

TEST_MAIN()
