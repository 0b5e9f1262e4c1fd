/* SPDX-License-Identifier: Apache-2.0 */
/* Backup, restore, rollback: what arrives, what is refused, what a crash leaves. */
#include "core/emdb.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/base.h"
#include "core/checkpoint.h"
#include "core/compact.h"
#include "core/storedir.h"
#include "core/store.h"
#include "tests/unit/test.h"

static emdb_db *open_store(const char *path, unsigned int flags)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.detail = &detail };
	emdb_db *db = NULL;
	const emdb_err err = emdb_open(path, &o, &db);

	if (err)
		FAIL("%s: %s: %s", path, emdb_err_name(err), detail.text);
	return db;
}

static void put(emdb_db *db, const char *key, const char *value)
{
	CHECK_OK(emdb_put(db, EMDB_ROOT, key, strlen(key), value, strlen(value), 0));
}

/* NULL: must not be there. */
static void expect(emdb_db *db, const char *key, const char *value)
{
	void *got;
	size_t len;
	const emdb_err err = emdb_get(db, EMDB_ROOT, key, strlen(key), &got, &len);

	if (!value) {
		CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
		return;
	}
	CHECK_OK(err);
	CHECK_MEM(got, len, value, strlen(value));
	emdb_free(got);
}

static void expect_at(const char *path, const char *key, const char *value)
{
	emdb_db *const db = open_store(path, EMDB_OPEN_READ_ONLY);

	expect(db, key, value);
	CHECK_OK(emdb_close(db));
}

/* DIR/name, for the life of the process. */
static const char *in(const char *dir, const char *name)
{
	static char *paths[256];
	static size_t n;

	CHECK(n < ARRAY_SIZE(paths));
	CHECK(asprintf(&paths[n], "%s/%s", dir, name) > 0);
	return paths[n++];
}

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* Several segments' worth under keys that begin with c. */
static void put_bulk(emdb_db *db, char c, unsigned int megabytes)
{
	static char value[64 * 1024];
	char key[32];

	memset(value, c, sizeof(value));
	for (unsigned int i = 0; i < megabytes * 16; i++) {
		const int n = snprintf(key, sizeof(key), "%c%u", c, i);

		CHECK_OK(emdb_put(db, EMDB_ROOT, key, (size_t)n, value, sizeof(value), 0));
	}
}

static emdb_err backup(emdb_db *db, const char *target, unsigned int flags,
		       struct emdb_backup_report *report)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_backup_options o = { .size = sizeof(o),
					       .flags = flags,
					       .detail = &detail };
	const emdb_err err = emdb_backup(db, target, &o, report);

	if (err)
		printf("%s: %s: %s\n", target, emdb_err_name(err), detail.text);
	return err;
}

TEST(test_backup__is_the_store_as_it_was)
{
	const char *const dir = test_dir();
	const char *const t = in(dir, "backup");
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	struct emdb_options rw = { .size = sizeof(rw) };
	struct emdb_backup_report r;
	emdb_db *b;

	put(db, "k", "v");
	put_bulk(db, 'x', 3);
	CHECK_OK(backup(db, t, EMDB_BACKUP_COPY, &r));
	CHECK(!r.incremental);
	CHECK(r.segments >= 3);
	CHECK_UEQ(r.copied, r.segments);
	CHECK_UEQ(r.copied_bytes, r.bytes);
	put(db, "k", "w");
	expect_at(t, "k", "v");
	CHECK_EQ(emdb_open(t, &rw, &b), EMDB_ERR_READ_ONLY);
	/* Nothing of the work stays, here or there. */
	CHECK(!exists(in(dir, ".backup.partial")));
	CHECK(!exists(in(dir, "store/snapshots/.backup-1")));
	/* Again: only what is new. */
	CHECK_OK(backup(db, t, EMDB_BACKUP_COPY, &r));
	CHECK(r.incremental);
	CHECK_UEQ(r.copied, 1);
	expect_at(t, "k", "w");
	CHECK_OK(backup(db, t, EMDB_BACKUP_COPY, &r));
	CHECK_UEQ(r.copied, 0);
	CHECK_OK(emdb_close(db));
	expect_at(t, "k", "w");
	/* A copy shares nothing: it outlives the store's bytes. */
	CHECK_OK(truncate(in(dir, "store/journal/0000000000000001.seg"), 0));
	expect_at(t, "k", "w");
}

TEST(test_backup__follows_what_the_store_drops)
{
	const char *const dir = test_dir();
	const char *const t = in(dir, "backup");
	emdb_db *db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	const uint64_t id = 1;
	struct emdb_backup_report r;

	put(db, "k", "v");
	CHECK_OK(backup(db, t, 0, &r));
	CHECK_UEQ(r.copied + r.shared, r.segments);
	CHECK(exists(in(t, "journal/0000000000000001.seg")));
	put(db, "k", "w");
	CHECK_OK(journal_retire(db->j, &id, 1));
	expect_at(t, "k", "v");
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(backup(db, t, 0, &r));
	CHECK(!exists(in(t, "journal/0000000000000001.seg")));
	expect_at(t, "k", "w");
	CHECK_OK(emdb_close(db));
}

TEST(test_backup__refuses_what_is_no_target)
{
	const char *const dir = test_dir();
	const char *const store = in(dir, "store"), *const t = in(dir, "t");
	emdb_db *const db = open_store(store, EMDB_OPEN_CREATE);
	emdb_db *const other = open_store(in(dir, "other"), EMDB_OPEN_CREATE);
	struct emdb_backup_report r;
	int fd;

	put(db, "k", "v");
	CHECK_EQ(backup(db, store, 0, &r), EMDB_ERR_EXISTS);
	CHECK_EQ(backup(db, in(store, "b"), 0, &r), EMDB_ERR_INVAL);
	CHECK_EQ(backup(db, in(store, "journal/b"), 0, &r), EMDB_ERR_INVAL);
	CHECK_EQ(backup(db, in(dir, "other/b"), 0, &r), EMDB_ERR_INVAL);
	CHECK_EQ(backup(db, in(dir, "other"), 0, &r), EMDB_ERR_EXISTS);
	CHECK_EQ(backup(db, in(dir, "."), 0, &r), EMDB_ERR_INVAL);
	CHECK_EQ(backup(db, in(dir, "no/b"), 0, &r), EMDB_ERR_NOT_FOUND);
	CHECK_OK(mkdir(t, 0777));
	CHECK_OK(close(fd = open(in(t, "file"), O_CREAT | O_WRONLY, 0600)));
	CHECK_EQ(backup(db, t, 0, &r), EMDB_ERR_NOT_STORE);
	CHECK_OK(unlink(in(t, "file")));
	/* Somebody's directory is not taken for what an earlier try left. */
	CHECK_OK(mkdir(in(dir, ".t.partial"), 0777));
	CHECK_OK(mkdir(in(dir, ".t.partial/precious"), 0777));
	CHECK_EQ(backup(db, t, 0, &r), EMDB_ERR_EXISTS);
	CHECK_OK(rmdir(in(dir, ".t.partial/precious")));
	CHECK_OK(backup(db, in(t, ""), 0, &r)); /* an empty one, with a slash behind */
	expect_at(t, "k", "v");
	CHECK_EQ(backup(other, t, 0, &r), EMDB_ERR_EXISTS);
	fd = open(in(t, "lock"), O_RDONLY);
	CHECK_OK(io_flock(db->io, fd, false, true));
	CHECK_EQ(backup(db, t, 0, &r), EMDB_ERR_LOCKED);
	CHECK_OK(close(fd));
	CHECK_OK(backup(db, t, 0, &r));
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_close(other));
	CHECK(!exists(in(store, "b")));
}

TEST(test_backup__of_a_snapshot)
{
	const char *const dir = test_dir();
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	struct emdb_backup_report r;
	struct emdb_snapshot s;
	emdb_db *snap;

	put(db, "k", "v");
	CHECK_OK(emdb_snapshot_create(db, "s", &s));
	put(db, "k", "w");
	CHECK_OK(emdb_snapshot_open(db, "s", NULL, &snap));
	CHECK_OK(backup(snap, in(dir, "b"), 0, &r));
	CHECK_EQ(r.created_ns, s.created_ns);
	CHECK_UEQ(r.lsn, s.lsn);
	CHECK_OK(emdb_close(snap));
	expect_at(in(dir, "b"), "k", "v");
	CHECK_OK(backup(db, in(dir, "b"), 0, &r));
	CHECK(r.incremental);
	expect_at(in(dir, "b"), "k", "w");
	CHECK_OK(emdb_close(db));
}

/* What a crash in the first backup leaves is begun anew. */
TEST(test_backup__goes_over_what_a_crash_left)
{
	const char *const dir = test_dir();
	const char *const partial = in(dir, ".b.partial");
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	static const char *const left[] = { "journal/0000000000000001.seg",
					    "journal/00000000000000ff.seg", "manifest.tmp",
					    "checkpoint-0000000000000007", "lock" };
	struct emdb_backup_report r;

	put(db, "k", "v");
	CHECK_OK(mkdir(partial, 0700));
	CHECK_OK(mkdir(in(partial, "journal"), 0700));
	for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
		FILE *const f = fopen(in(partial, left[i]), "w");

		CHECK(f && fputs("half", f) >= 0);
		CHECK_EQ(fclose(f), 0);
	}
	CHECK_OK(backup(db, in(dir, "b"), 0, &r));
	CHECK(!exists(partial));
	CHECK(!exists(in(dir, "b/journal/00000000000000ff.seg")));
	CHECK(!exists(in(dir, "b/checkpoint-0000000000000007")));
	expect_at(in(dir, "b"), "k", "v");
	CHECK_OK(emdb_close(db));
}

static bool stop_late(void *ctx, uint64_t done, uint64_t total)
{
	uint64_t *const seen = ctx;

	CHECK(done >= *seen && done <= total);
	*seen = done;
	return done < total / 2;
}

TEST(test_backup__can_be_stopped)
{
	const char *const dir = test_dir();
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	uint64_t seen = 0;
	const struct emdb_backup_options o = { .size = sizeof(o),
					       .progress = stop_late,
					       .progress_ctx = &seen };

	put_bulk(db, 'x', 4);
	CHECK_EQ(emdb_backup(db, in(dir, "b"), &o, NULL), EMDB_ERR_CANCELLED);
	CHECK(seen > 0);
	CHECK(!exists(in(dir, "b")) && !exists(in(dir, ".b.partial")));
	CHECK(!exists(in(dir, "store/snapshots/.backup-1")));
	CHECK_OK(emdb_close(db));
}

TEST(test_backup__damage_in_the_source_is_found)
{
	const char *const dir = test_dir();
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	struct emdb_backup_report r;
	int fd;

	put(db, "k", "some value");
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	fd = open(in(dir, "store/journal/0000000000000001.seg"), O_WRONLY);
	CHECK_EQ(pwrite(fd, "\xff", 1, 300), 1);
	CHECK_OK(close(fd));
	CHECK_EQ(backup(db, in(dir, "b"), EMDB_BACKUP_COPY, &r), EMDB_ERR_CORRUPT);
	CHECK(!exists(in(dir, "b")));
	CHECK_OK(emdb_close(db));
}

/* The backend is changed under the store: nobody else may look. */
static struct emdb_io *fault_of(emdb_db *db)
{
	struct emdb_io *const fault = emdb_io_fault_new(db->io);

	CHECK(fault);
	if (!db->read_only) {
		expire_stop(db);
		checkpoint_stop(db);
		compact_stop(db);
	}
	return fault;
}

/* emdb_backup() with call number nth failing; *ret_through: there were not that many. */
static emdb_err backup_failing(emdb_db *db, struct emdb_io *fault, const char *target, uint64_t nth,
			       bool *ret_through)
{
	const struct io_fault plan = { .mask = IO_MASK_ALL, .nth = nth, .err = -ENOSPC };
	struct emdb_io *const real = db->io;
	emdb_err err;

	emdb_io_fault_set(fault, &plan);
	db->io = fault;
	err = emdb_backup(db, target, NULL, NULL);
	db->io = real;
	*ret_through = emdb_io_fault_hits(fault) == 0;
	CHECK(!*ret_through || !err);
	return err;
}

TEST(test_backup__failing_io_leaves_a_new_target_absent_or_complete)
{
	const char *const dir = test_dir();
	const char *const t = in(dir, "b");
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	struct emdb_io *const fault = fault_of(db);
	bool through = false;

	put(db, "k", "v");
	CHECK_OK(emdb_checkpoint(db));
	for (uint64_t nth = 1; !through; nth++) {
		const emdb_err err = backup_failing(db, fault, t, nth, &through);

		CHECK(err || exists(t));
		if (!exists(t))
			continue;
		expect_at(t, "k", "v");
		CHECK_OK(storedir_remove(db->io, AT_FDCWD, t));
	}
	CHECK(!exists(in(dir, ".b.partial")));
	emdb_io_free(fault);
	CHECK_OK(emdb_close(db));
}

TEST(test_backup__failing_io_leaves_an_old_target_old_or_new)
{
	const char *const dir = test_dir();
	const char *const t = in(dir, "b");
	emdb_db *const db = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	struct emdb_io *fault;
	bool through = false;
	emdb_db *a, *b;

	put(db, "k", "old");
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "a", NULL));
	put(db, "k", "new");
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "b", NULL));
	CHECK_OK(emdb_snapshot_open(db, "a", NULL, &a));
	CHECK_OK(emdb_snapshot_open(db, "b", NULL, &b));
	fault = fault_of(b);
	for (uint64_t nth = 1; !through; nth++) {
		emdb_db *got;
		void *v;
		size_t n;
		emdb_err err;

		CHECK_OK(emdb_backup(a, t, NULL, NULL));
		expect_at(t, "k", "old");
		err = backup_failing(b, fault, t, nth, &through);
		got = open_store(t, EMDB_OPEN_READ_ONLY);
		CHECK_OK(emdb_get(got, EMDB_ROOT, "k", 1, &v, &n));
		CHECK(strcmp(v, "new") == 0 || (err && strcmp(v, "old") == 0));
		emdb_free(v);
		CHECK_OK(emdb_close(got));
	}
	CHECK_OK(emdb_close(a));
	CHECK_OK(emdb_close(b));
	emdb_io_free(fault);
	CHECK_OK(emdb_close(db));
}

TEST(test_backup__killed_anywhere_leaves_old_or_new)
{
	const char *const dir = test_dir();
	const char *const store = in(dir, "store"), *const t = in(dir, "b");
	uint64_t state = test_seed();
	unsigned int floor = 0;

	for (int round = 0; round < 5; round++) {
		int ready[2];
		emdb_db *b;
		pid_t pid;
		size_t n;
		void *v;
		char c;

		CHECK_EQ(pipe(ready), 0);
		pid = fork();
		if (pid == 0) {
			emdb_db *const db = open_store(store, EMDB_OPEN_CREATE);

			for (unsigned int i = floor + 1;; i++) {
				char text[16];

				(void)snprintf(text, sizeof(text), "%u", i);
				put(db, "i", text);
				CHECK_OK(emdb_backup(db, t, NULL, NULL));
				CHECK(i > floor + 1 || write(ready[1], "r", 1) == 1);
			}
		}
		CHECK_EQ(read(ready[0], &c, 1), 1);
		usleep((useconds_t)(test_rand(&state) % 50000));
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		(void)close(ready[0]);
		(void)close(ready[1]);
		b = open_store(t, EMDB_OPEN_READ_ONLY);
		CHECK_OK(emdb_get(b, EMDB_ROOT, "i", 1, &v, &n));
		CHECK((unsigned int)atoi(v) > floor);
		floor = (unsigned int)atoi(v);
		emdb_free(v);
		CHECK_OK(emdb_close(b));
		CHECK_OK(emdb_close(open_store(store, 0)));
		CHECK(!exists(in(store, "snapshots/.backup-1")));
	}
}

/* ---- Restore ------------------------------------------------------------------ */

TEST(test_backup__restore_goes_on_from_there)
{
	const char *const dir = test_dir();
	const char *const live = in(dir, "live"), *const t = in(dir, "b");
	emdb_db *const first = open_store(in(dir, "store"), EMDB_OPEN_CREATE);
	struct emdb_backup_report r;
	struct emdb_attr a, again;
	emdb_db *db, *got;

	put(first, "k", "v");
	CHECK_OK(emdb_put(first, EMDB_ROOT, "brief", 5, "b", 1, emdb_now_ms(first) + 400));
	CHECK_OK(emdb_node_lookup(first, EMDB_ROOT, "k", 1, &a));
	CHECK_OK(backup(first, t, 0, &r));
	expect_at(t, "brief", "b");
	CHECK_OK(emdb_restore(t, live, NULL, &r));
	CHECK_EQ(emdb_restore(t, live, NULL, &r), EMDB_ERR_EXISTS);
	CHECK_EQ(emdb_restore(live, in(dir, "x"), NULL, &r), EMDB_ERR_NOT_STORE);
	CHECK_EQ(emdb_restore(in(dir, "no"), in(dir, "x"), NULL, &r), EMDB_ERR_NO_STORE);
	CHECK_EQ(emdb_restore(dir, in(dir, "x"), NULL, &r), EMDB_ERR_NOT_STORE);
	usleep(500000);
	db = open_store(live, 0);
	expect(db, "k", "v");
	expect(db, "brief", NULL);
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &again));
	CHECK_UEQ(again.id, a.id);
	CHECK_EQ(again.mtime_ns, a.mtime_ns);
	CHECK_EQ(again.ctime_ns, a.ctime_ns);
	put(db, "k", "w");
	put(db, "new", "n");
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	/* It goes on with the backup that it came from. */
	CHECK_OK(backup(db, t, 0, &r));
	CHECK(r.incremental);
	CHECK_OK(emdb_close(db));
	got = open_store(t, EMDB_OPEN_READ_ONLY);
	expect(got, "k", "w");
	expect(got, "new", "n");
	expect(got, "brief", NULL);
	CHECK_OK(emdb_close(got));
	/* The first store has gone another way meanwhile. */
	put(first, "k", "other");
	CHECK_EQ(backup(first, t, 0, &r), EMDB_ERR_CONFLICT);
	expect_at(t, "k", "w");
	CHECK_OK(emdb_close(first));
}

/* ---- Rollback ------------------------------------------------------------------- */

TEST(test_backup__rollback)
{
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE), *snap;
	struct emdb_detail d;
	struct emdb_attr a, b;

	put(db, "k", "1");
	CHECK_OK(emdb_snapshot_create(db, "one", NULL));
	put(db, "k", "2");
	put(db, "two", "2");
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "two", NULL));
	put(db, "k", "3");
	put(db, "lost", "3");
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "lost", 4, &a));
	CHECK_EQ(emdb_rollback(path, "two", 0, &d), EMDB_ERR_LOCKED);
	CHECK_OK(emdb_close(db));
	CHECK_EQ(emdb_rollback(path, "no", 0, &d), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_rollback(path, "../x", 0, &d), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_rollback(in(path, "no"), "two", 0, &d), EMDB_ERR_NO_STORE);
	CHECK_EQ(emdb_rollback(in(path, "snapshots/two"), "two", 0, &d), EMDB_ERR_NOT_STORE);
	CHECK_OK(emdb_rollback(path, "two", 0, &d));
	db = open_store(path, 0);
	expect(db, "k", "2");
	expect(db, "two", "2");
	expect(db, "lost", NULL);
	/* Ids are not given twice. */
	put(db, "lost", "again");
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "lost", 4, &b));
	CHECK(b.id > a.id);
	CHECK_OK(emdb_close(db));
	CHECK_EQ(emdb_rollback(path, "one", 0, &d), EMDB_ERR_CONFLICT);
	CHECK(strstr(d.text, "two"));
	CHECK_OK(emdb_rollback(path, "one", EMDB_ROLLBACK_PAST_NEWER, &d));
	db = open_store(path, 0);
	expect(db, "k", "1");
	expect(db, "two", NULL);
	CHECK_OK(emdb_snapshot_open(db, "two", NULL, &snap));
	expect(snap, "k", "2");
	CHECK_OK(emdb_close(snap));
	put(db, "k", "4");
	CHECK_OK(emdb_close(db));
	/* And forward again. */
	CHECK_OK(emdb_rollback(path, "two", 0, &d));
	expect_at(path, "k", "2");
	db = open_store(path, 0);
	put(db, "k", "5");
	CHECK_OK(emdb_snapshot_create(db, "three", NULL));
	CHECK_OK(emdb_close(db));
	expect_at(path, "k", "5");
	expect_at(in(path, "snapshots/one"), "k", "1");
	expect_at(in(path, "snapshots/two"), "k", "2");
	expect_at(in(path, "snapshots/three"), "k", "5");
}

/* To and fro, killed anywhere: one of the two states. */
TEST(test_backup__killed_rollback_is_all_or_nothing)
{
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE);
	uint64_t state = test_seed();

	put(db, "k", "one");
	CHECK_OK(emdb_snapshot_create(db, "one", NULL));
	put(db, "k", "two");
	CHECK_OK(emdb_snapshot_create(db, "two", NULL));
	CHECK_OK(emdb_close(db));
	for (int round = 0; round < 15; round++) {
		const pid_t pid = fork();
		void *v;
		size_t n;

		if (pid == 0)
			for (int i = 0;; i++)
				CHECK_OK(emdb_rollback(path, i % 2 ? "one" : "two",
						       EMDB_ROLLBACK_PAST_NEWER, NULL));
		usleep((useconds_t)(test_rand(&state) % 20000));
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		db = open_store(path, 0);
		CHECK_OK(emdb_get(db, EMDB_ROOT, "k", 1, &v, &n));
		CHECK(strcmp(v, "one") == 0 || strcmp(v, "two") == 0);
		emdb_free(v);
		put(db, "other", "o");
		CHECK_OK(emdb_close(db));
	}
}

TEST_MAIN()
