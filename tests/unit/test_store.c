/* SPDX-License-Identifier: Apache-2.0 */
/* The store through its public interface: what single tests of modules cannot see. */
#include "core/emdb.h"

#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/test.h"

#define BIG (3u << 20)

static emdb_db *open_store(const char *path)
{
	const struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

/* Replaces one large value by another for ever; says when it begins; killed by the parent. */
static void replace_for_ever(const char *path, int ready)
{
	emdb_db *const db = open_store(path);
	char *const value = malloc(BIG);

	CHECK_EQ(write(ready, "r", 1), 1);
	for (unsigned int i = 0;; i++) {
		memset(value, 'a' + (int)(i % 26), BIG);
		CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, value, BIG, 0));
	}
}

/* A value of several frames is replaced as a whole or not at all (I3). */
TEST(test_store__killed_put_of_large_value_is_all_or_nothing)
{
	const char *const path = test_dir();
	uint64_t state = test_seed();

	for (int round = 0; round < 12; round++) {
		size_t len = 0;
		int ready[2];
		void *value;
		emdb_db *db;
		pid_t pid;
		char c;

		CHECK_EQ(pipe(ready), 0);
		pid = fork();
		if (pid == 0)
			replace_for_ever(path, ready[1]);
		CHECK_EQ(read(ready[0], &c, 1), 1);
		usleep((useconds_t)(4000 + test_rand(&state) % 10000));
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		(void)close(ready[0]);
		(void)close(ready[1]);
		db = open_store(path);
		if (emdb_get(db, EMDB_ROOT, "k", 1, &value, &len) == EMDB_OK) {
			const char *const p = value;

			CHECK_UEQ(len, BIG);
			for (size_t i = 1; i < len; i++)
				if (p[i] != p[0])
					FAIL("byte %zu is of another value", i);
			emdb_free(value);
		}
		CHECK_OK(emdb_close(db));
	}
}

/* Zero-copy references outlive the store they came from. */
TEST(test_store__reference_outlives_close)
{
	emdb_db *const db = open_store(test_dir());
	struct emdb_ref ref;

	CHECK_OK(emdb_put(db, EMDB_ROOT, "key", 3, "value", 5, 0));
	CHECK_OK(emdb_get_ref(db, EMDB_ROOT, "key", 3, &ref));
	CHECK_OK(emdb_close(db));
	CHECK_MEM(ref.data, ref.len, "value", 5);
	emdb_ref_release(&ref);
}

/* A rename that has to promote its source still decides the deadline. */
TEST(test_store__rename_of_large_file_keeps_the_targets_deadline)
{
	const struct emdb_create file = { .mode = 0100644 };
	emdb_db *const db = open_store(test_dir());
	static char value[20000];
	struct emdb_attr old, new;
	int64_t expires;

	CHECK_OK(emdb_node_create(db, EMDB_ROOT, "doc", 3, &file, &old));
	CHECK_OK(emdb_ttl_set(db, EMDB_ROOT, "doc", 3, emdb_now_ms(db) + 1000000));
	CHECK_OK(emdb_ttl_get(db, EMDB_ROOT, "doc", 3, &expires));
	CHECK_OK(emdb_node_create(db, EMDB_ROOT, "tmp", 3, &file, &new));
	CHECK_OK(emdb_node_write(db, new.id, 0, value, sizeof(value), 0));
	CHECK_OK(emdb_node_rename(db, EMDB_ROOT, "tmp", 3, EMDB_ROOT, "doc", 3, 0));
	CHECK_OK(emdb_node_getattr(db, new.id, &new));
	CHECK_EQ(new.expires_ms, expires);
	CHECK_OK(emdb_close(db));
}

/* A name can be taken again at once when its file has expired, unswept. */
TEST(test_store__expired_name_is_free)
{
	const struct emdb_options o = { .size = sizeof(o), .sweep_interval_ms = -1 };
	const struct emdb_create file = { .mode = 0100644 };
	struct emdb_attr a, b;
	uint64_t count;
	emdb_db *db;

	CHECK_OK(emdb_open_memory(&o, &db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, emdb_now_ms(db) + 20));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &a));
	usleep(40000);
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &b), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_node_create(db, EMDB_ROOT, "k", 1, &file, &b));
	CHECK(a.id != b.id);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, 1);
	CHECK_OK(emdb_close(db));
}

/* The same for a rename, which also knows what a name has that nobody sees any more. */
TEST(test_store__rename_takes_an_expired_name)
{
	const struct emdb_options o = { .size = sizeof(o), .sweep_interval_ms = -1 };
	emdb_db *db;

	for (unsigned int flags = 0; flags <= EMDB_RENAME_NOREPLACE; flags++) {
		struct emdb_attr old, new, now;
		uint64_t count;

		CHECK_OK(emdb_open_memory(&o, &db));
		CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, emdb_now_ms(db) + 20));
		CHECK_OK(emdb_put(db, EMDB_ROOT, "new", 3, "w", 1, EMDB_TTL_NEVER));
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &old));
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "new", 3, &new));
		usleep(40000);
		CHECK_OK(emdb_node_rename(db, EMDB_ROOT, "new", 3, EMDB_ROOT, "k", 1, flags));
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &now));
		CHECK_UEQ(now.id, new.id);
		CHECK_EQ(now.expires_ms, 0);
		CHECK_OK(emdb_node_getattr(db, old.id, &old));
		CHECK_UEQ(old.nlink, 0);
		CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
		CHECK_UEQ(count, 1);
		CHECK_OK(emdb_close(db));
	}
}

/* What statvfs(3) is told: the host's blocks, and every entry once. */
/* What was left at zero is told as what it stands for, what was switched off as 0. */
TEST(test_store__stats_tell_the_options_in_force)
{
	struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	const char *const path = test_dir();
	struct emdb_stats s;
	emdb_db *db;

	CHECK_OK(emdb_open(path, &o, &db));
	CHECK_OK(emdb_stats_get(db, &s));
	CHECK_OK(emdb_close(db));
	CHECK(!s.ordered && s.flush_policy == EMDB_FLUSH_EACH && s.verify == EMDB_VERIFY_FIRST);
	CHECK_UEQ(s.commit_interval_s, 5);
	CHECK_UEQ(s.sweep_interval_ms, 250);
	CHECK_UEQ(s.default_ttl_ms, 0);
	CHECK_UEQ(s.compact_percent, 50);
	CHECK_UEQ(s.compact_rate, 64 << 20);
	CHECK_UEQ(s.compact_state, EMDB_COMPACT_RESTS);

	o.flags |= EMDB_OPEN_ORDERED;
	o.flush = EMDB_FLUSH_GROUP;
	o.verify = EMDB_VERIFY_ALWAYS;
	o.group_window_us = 77;
	o.commit_interval_s = o.sweep_interval_ms = o.compact_percent = -1;
	o.default_ttl_ms = 1234;
	CHECK_OK(emdb_open(path, &o, &db));
	CHECK_OK(emdb_stats_get(db, &s));
	CHECK_OK(emdb_close(db));
	CHECK(s.ordered && s.flush_policy == EMDB_FLUSH_GROUP && s.verify == EMDB_VERIFY_ALWAYS);
	CHECK_UEQ(s.group_window_us, 77);
	CHECK_UEQ(s.commit_interval_s + s.sweep_interval_ms + s.compact_percent, 0);
	CHECK_UEQ(s.default_ttl_ms, 1234);
}

TEST(test_store__space_counts_entries_and_host_blocks)
{
	emdb_db *const db = open_store(test_dir());
	struct emdb_space space;
	uint64_t ns;

	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, 0));
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "ns", 2, &ns));
	CHECK_OK(emdb_space_get(db, &space));
	CHECK_UEQ(space.entries, 3);
	CHECK(space.total_bytes >= space.free_bytes && space.free_bytes >= space.avail_bytes);
	CHECK(space.total_bytes > 0);
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
