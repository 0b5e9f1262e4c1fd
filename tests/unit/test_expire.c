/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving on time when there are many: the sweeper in its thread, by the real clock. */
#include "core/emdb.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/base.h"
#include "tests/unit/test.h"

#define VALUE_SIZE 100u
#define BATCH      10000u
/* Longest that anything may take here: far more than it does. */
#define PATIENCE_MS 120000

static bool is_long(void)
{
	return getenv("EMDB_LONG") != NULL;
}

static emdb_db *open_store(void)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.segment_bytes = 16 * EMDB_SEGMENT_MIN };
	emdb_db *db;
	char path[PATH_MAX + 8];

	(void)snprintf(path, sizeof(path), "%s/store", test_dir());
	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

static size_t key_of(uint64_t i, char key[static 16])
{
	return (size_t)snprintf(key, 16, "k%09" PRIu64, i);
}

/* Keys first .. first + count - 1, due at `expires_ms` and `spread_ms` later evenly. */
static void load(emdb_db *db, uint64_t first, uint64_t count, int64_t expires_ms,
		 uint64_t spread_ms)
{
	static struct emdb_item items[BATCH];
	static char keys[BATCH][16];
	static uint8_t value[VALUE_SIZE];

	for (uint64_t done = 0; done < count;) {
		const uint64_t n = min_u64(BATCH, count - done);

		for (uint64_t i = 0; i < n; i++) {
			const uint64_t later = spread_ms * (done + i) / count;

			items[i] = (struct emdb_item){
				.key = keys[i],
				.key_len = key_of(first + done + i, keys[i]),
				.value = value,
				.value_len = sizeof(value),
				.expires_ms = expires_ms < 0 ? EMDB_TTL_NEVER
							     : expires_ms + (int64_t)later,
			};
		}
		CHECK_OK(emdb_put_many(db, EMDB_ROOT, items, n));
		done += n;
	}
}

static struct emdb_stats stats_of(emdb_db *db)
{
	struct emdb_stats st;

	CHECK_OK(emdb_stats_get(db, &st));
	return st;
}

/* Until so many records are left; how late the last one went, ms. */
static int64_t wait_for_records(emdb_db *db, uint64_t want, int64_t due_ms)
{
	while (stats_of(db).records != want) {
		CHECK(stats_of(db).records > want);
		CHECK(emdb_now_ms(db) < due_ms + PATIENCE_MS);
		(void)usleep(1000);
	}
	return emdb_now_ms(db) - due_ms;
}

/*
 * A deadline that moved is found out when it would have been due.  Those come first here, and
 * nothing goes for them; the sweeper must not take that for having nothing to do.
 */
TEST(test_expire__deadlines_that_moved_hold_nobody_up)
{
	const uint64_t moved = 20000, due = 100;
	emdb_db *const db = open_store();
	int64_t at, wait_ms = 750;
	char key[16];
	int64_t late;

	/* All must have moved before they are due, however slow this machine is. */
	do {
		wait_ms *= 2;
		CHECK(wait_ms < PATIENCE_MS);
		CHECK_OK(emdb_clear(db, EMDB_ROOT));
		at = emdb_now_ms(db) + wait_ms;
		load(db, 0, moved, at, 0);
		load(db, moved, due, at + 1, 0);
		for (uint64_t i = 0; i < moved && emdb_now_ms(db) < at - 100; i++) {
			const size_t n = key_of(i, key);

			CHECK_OK(emdb_ttl_set(db, EMDB_ROOT, key, n,
					      i % 2 ? EMDB_TTL_NEVER : at + 3600000));
		}
	} while (emdb_now_ms(db) >= at - 100);
	late = wait_for_records(db, moved, at + 1);
	printf("  %" PRIu64 " records left %" PRId64 " ms late behind %" PRIu64 " that stay\n", due,
	       late, moved);
	/* A quarter of a second for each 256 of them would be 19 s. */
	CHECK(late < 12000);
	CHECK_OK(emdb_close(db));
}

static int64_t cpu_ms(void)
{
	struct rusage r;

	CHECK_EQ(getrusage(RUSAGE_SELF, &r), 0);
	return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 +
	       (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1000;
}

/* What is due later costs nothing now. */
TEST(test_expire__nothing_is_scanned)
{
	const uint64_t count = is_long() ? 1000000 : 100000;
	emdb_db *const db = open_store();
	int64_t before;

	load(db, 0, count, emdb_now_ms(db) + 3600000, 1000000);
	CHECK_OK(emdb_flush(db));
	before = cpu_ms();
	(void)usleep(1500000);
	printf("  %" PRId64 " ms of CPU while %" PRIu64 " records wait\n", cpu_ms() - before,
	       count);
#ifndef EMDB_DEBUG /* the sanitizers have work of their own */
	CHECK(cpu_ms() - before < 500);
#endif
	CHECK_OK(emdb_close(db));
}

/* Each is gone for readers the moment it is due, and for good a little later. */
TEST(test_expire__all_leave_on_time)
{
	const uint64_t count = is_long() ? 1000000 : 50000, keep = count / 10;
	const uint64_t spread_ms = is_long() ? 20000 : 1000;
	emdb_db *const db = open_store();
	const int64_t at = emdb_now_ms(db) + (is_long() ? 30000 : 4000);
	uint64_t looks = 0, rnd = test_seed();
	int64_t longest_us = 0, late;
	struct emdb_stats st;
	char key[16];

	load(db, 0, count, at, spread_ms);
	load(db, count, keep, -1, 0);
	/* On a machine too slow for that some have gone already, as they should. */
	while (emdb_now_ms(db) < at + (int64_t)spread_ms) {
		const uint64_t i = test_rand(&rnd) % count;
		const int64_t due = at + (int64_t)(spread_ms * i / count);
		const size_t n = key_of(i, key);
		struct timespec t0, t1;
		int64_t before, after, us;
		bool there;

		(void)clock_gettime(CLOCK_MONOTONIC, &t0);
		before = emdb_now_ms(db);
		CHECK_OK(emdb_contains(db, EMDB_ROOT, key, n, &there));
		after = emdb_now_ms(db);
		(void)clock_gettime(CLOCK_MONOTONIC, &t1);
		if (due <= before)
			CHECK(!there);
		if (due > after)
			CHECK(there);
		us = (t1.tv_sec - t0.tv_sec) * 1000000 + (t1.tv_nsec - t0.tv_nsec) / 1000;
		longest_us = us > longest_us ? us : longest_us;
		looks++;
	}
	late = wait_for_records(db, keep, at + (int64_t)spread_ms);
	printf("  %" PRIu64 " left over %" PRIu64 " ms, the last %" PRId64 " ms late; %" PRIu64
	       " looks meanwhile, the longest %" PRId64 " us\n",
	       count, spread_ms, late, looks, longest_us);
	CHECK_UEQ(stats_of(db).expiring, 0);
	/* Their space comes back without being asked for. */
	do {
		(void)usleep(20000);
		st = stats_of(db);
		CHECK(emdb_now_ms(db) < at + (int64_t)spread_ms + PATIENCE_MS);
	} while (st.journal_bytes > st.live_bytes * 2 + 2 * st.segment_bytes);
	printf("  journal %" PRIu64 " KiB, of which %" PRIu64 " KiB live\n",
	       st.journal_bytes / 1024, st.live_bytes / 1024);
	for (uint64_t i = count; i < count + keep; i += 997) {
		bool there;

		CHECK_OK(emdb_contains(db, EMDB_ROOT, key, key_of(i, key), &there));
		CHECK(there);
	}
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
