/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: names, contents, time, crashes; under writers against what they know. */
#include "core/emdb.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/base.h"
#include "core/checkpoint.h"
#include "core/compact.h"
#include "core/store.h"
#include "tests/unit/test.h"

/* Small segments, so that there are several. */
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

static emdb_db *open_snapshot(emdb_db *db, const char *name)
{
	emdb_db *snap = NULL;

	CHECK_OK(emdb_snapshot_open(db, name, NULL, &snap));
	return snap;
}

struct names {
	char text[1024];
	uint64_t number;
};

static bool add_name(void *ctx, const struct emdb_snapshot *s)
{
	struct names *const n = ctx;

	CHECK_OK(s->err);
	CHECK(s->number > n->number);
	n->number = s->number;
	strcat(n->text, s->name);
	strcat(n->text, " ");
	return true;
}

static void expect_names(emdb_db *db, const char *want)
{
	struct names n = { .number = 0 };

	CHECK_OK(emdb_snapshot_list(db, add_name, &n));
	CHECK_STR(n.text, want);
}

static bool exists(const char *dir, const char *name)
{
	char *path;
	struct stat st;
	bool found;

	CHECK(asprintf(&path, "%s/%s", dir, name) > 0);
	found = stat(path, &st) == 0;
	free(path);
	return found;
}

TEST(test_snapshot__holds_what_was_there)
{
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE), *snap;
	struct emdb_snapshot s;

	put(db, "a", "1");
	put(db, "gone", "x");
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "gone", 4, NULL, NULL));
	CHECK_OK(emdb_snapshot_create(db, "monday", &s));
	CHECK_STR(s.name, "monday");
	CHECK_UEQ(s.number, 1);
	CHECK(s.created_ns > 0 && s.bytes > 0 && s.lsn > 0);
	put(db, "a", "2");
	put(db, "b", "new");
	snap = open_snapshot(db, "monday");
	expect(snap, "a", "1");
	expect(snap, "b", NULL);
	expect(snap, "gone", NULL);
	CHECK_EQ(emdb_put(snap, EMDB_ROOT, "c", 1, "", 0, 0), EMDB_ERR_READ_ONLY);
	CHECK_EQ(emdb_now_ms(snap), s.created_ns / 1000000);
	expect(db, "a", "2");
	/* It outlives its deletion, and the store's end. */
	CHECK_OK(emdb_snapshot_delete(db, "monday"));
	expect_names(db, "");
	CHECK_OK(emdb_close(db));
	expect(snap, "a", "1");
	CHECK_OK(emdb_close(snap));
	db = open_store(path, 0);
	expect(db, "a", "2");
	expect(db, "b", "new");
	CHECK_OK(emdb_close(db));
}

TEST(test_snapshot__names)
{
	static const char *const bad[] = { "", ".", "..", ".x", "a/b", "a\nb", "\x7f", "latest" };
	char longest[EMDB_SNAPSHOT_NAME_MAX + 2];
	const char *const path = test_dir();
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	struct emdb_snapshot s;

	CHECK_EQ(emdb_snapshot_get(db, "latest", &s), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_snapshot_get(db, "a", &s), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_snapshot_delete(db, "a"), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_snapshot_rename(db, "a", "b"), EMDB_ERR_NOT_FOUND);
	expect_names(db, "");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_EQ(emdb_snapshot_create(db, bad[i], NULL), EMDB_ERR_INVAL);
		CHECK_EQ(emdb_snapshot_delete(db, bad[i]), EMDB_ERR_INVAL);
		CHECK_EQ(emdb_snapshot_rename(db, "a", bad[i]), EMDB_ERR_INVAL);
	}
	memset(longest, 'n', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	CHECK_EQ(emdb_snapshot_create(db, longest, NULL), EMDB_ERR_INVAL);
	CHECK_OK(emdb_snapshot_create(db, longest + 1, NULL));
	CHECK_OK(emdb_snapshot_rename(db, longest + 1, "z"));
	CHECK_EQ(emdb_snapshot_create(db, "z", NULL), EMDB_ERR_EXISTS);
	CHECK_OK(emdb_snapshot_create(db, "a", NULL));
	CHECK_OK(emdb_snapshot_create(db, "\xc3\xa4 \xff", NULL));
	CHECK_EQ(emdb_snapshot_rename(db, "z", "a"), EMDB_ERR_EXISTS);
	CHECK_OK(emdb_snapshot_rename(db, "z", "z"));
	expect_names(db, "z a \xc3\xa4 \xff ");
	CHECK_OK(emdb_snapshot_get(db, "latest", &s));
	CHECK_STR(s.name, "\xc3\xa4 \xff");
	CHECK_OK(emdb_close(db));
}

TEST(test_snapshot__numbers_are_not_reused)
{
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE);
	struct emdb_snapshot s;

	CHECK_OK(emdb_snapshot_create(db, "a", NULL));
	CHECK_OK(emdb_snapshot_create(db, "b", NULL));
	CHECK_OK(emdb_snapshot_delete(db, "b"));
	CHECK_OK(emdb_snapshot_delete(db, "a"));
	CHECK_OK(emdb_close(db));
	db = open_store(path, 0);
	CHECK_OK(emdb_snapshot_create(db, "c", &s));
	CHECK_UEQ(s.number, 3);
	CHECK_OK(emdb_close(db));
}

TEST(test_snapshot__opens_alone_and_read_only)
{
	const struct emdb_options rw = { .size = sizeof(rw) };
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE), *snap;
	struct names n = { .number = 0 };
	char *dir;

	put(db, "k", "v");
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	/* While the store is in use, and as often as one likes. */
	CHECK_OK(emdb_snapshot_list_at(path, add_name, &n));
	CHECK_STR(n.text, "s ");
	CHECK(asprintf(&dir, "%s/snapshots/s", path) > 0);
	CHECK_EQ(emdb_open(dir, &rw, &snap), EMDB_ERR_READ_ONLY);
	CHECK(!exists(dir, "lock"));
	for (int i = 0; i < 2; i++) {
		snap = open_store(dir, EMDB_OPEN_READ_ONLY);
		expect(snap, "k", "v");
		CHECK_EQ(emdb_snapshot_create(snap, "t", NULL), EMDB_ERR_READ_ONLY);
		CHECK_OK(emdb_close(snap));
		CHECK(!exists(dir, "lock"));
	}
	CHECK_OK(emdb_close(db));
	db = open_store(path, EMDB_OPEN_READ_ONLY);
	CHECK_EQ(emdb_snapshot_create(db, "t", NULL), EMDB_ERR_READ_ONLY);
	CHECK_EQ(emdb_snapshot_delete(db, "s"), EMDB_ERR_READ_ONLY);
	expect_names(db, "s ");
	CHECK_OK(emdb_close(db));
	CHECK_EQ(emdb_snapshot_list_at(dir + 1, add_name, &n), EMDB_ERR_NO_STORE);
	free(dir);
	CHECK_OK(emdb_open_memory(NULL, &db));
	CHECK_EQ(emdb_snapshot_create(db, "t", NULL), EMDB_ERR_UNSUPPORTED);
	expect_names(db, "");
	CHECK_OK(emdb_close(db));
}

TEST(test_snapshot__takes_the_checkpoint_along)
{
	const char *const path = test_dir();
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	struct emdb_stats stats;
	emdb_db *snap;
	char key[16];

	for (int i = 0; i < 1000; i++) {
		(void)snprintf(key, sizeof(key), "k%d", i);
		put(db, key, key);
	}
	CHECK_OK(emdb_checkpoint(db));
	put(db, "after", "c");
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	/* Newer ones replace the store's, not the snapshot's. */
	for (int i = 0; i < 3; i++) {
		put(db, "k1", "changed");
		CHECK_OK(emdb_checkpoint(db));
	}
	snap = open_snapshot(db, "s");
	CHECK_OK(emdb_stats_get(snap, &stats));
	CHECK(stats.replayed < 10);
	CHECK_UEQ(stats.records, 1001);
	expect(snap, "k1", "k1");
	expect(snap, "k999", "k999");
	expect(snap, "after", "c");
	CHECK_OK(emdb_close(snap));
	CHECK_OK(emdb_close(db));
}

/* What had expired is not in it, what had not stays for ever. */
TEST(test_snapshot__time_stands_still)
{
	const char *const path = test_dir();
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	const int64_t now = emdb_now_ms(db);
	emdb_db *snap;
	int64_t expires;

	CHECK_OK(emdb_put(db, EMDB_ROOT, "past", 4, "p", 1, now + 1));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "soon", 4, "s", 1, now + 300));
	while (emdb_now_ms(db) <= now + 2)
		usleep(1000);
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	while (emdb_now_ms(db) <= now + 300)
		usleep(10000);
	expect(db, "soon", NULL);
	snap = open_snapshot(db, "s");
	expect(snap, "past", NULL);
	expect(snap, "soon", "s");
	CHECK_OK(emdb_ttl_get(snap, EMDB_ROOT, "soon", 4, &expires));
	CHECK_EQ(expires, now + 300);
	CHECK_OK(emdb_close(snap));
	CHECK_OK(emdb_close(db));
}

/* Ids, times, attributes and bytes are the same (I10). */
TEST(test_snapshot__identity_is_stable)
{
	const char *const path = test_dir();
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	const struct emdb_create file = { .mode = S_IFREG | 0640, .uid = 7, .gid = 8 };
	struct emdb_attr live[3], a;
	char buf[64];
	uint64_t ns;
	emdb_db *snap;
	size_t len;

	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "dir", 3, &ns));
	CHECK_OK(emdb_node_create(db, ns, "f", 1, &file, &a));
	CHECK_OK(emdb_node_write(db, a.id, 100000, "far", 3, 0));
	CHECK_OK(emdb_xattr_set(db, a.id, "user.x", "y", 1, 0));
	CHECK_OK(emdb_node_link(db, a.id, EMDB_ROOT, "g", 1, &a));
	CHECK_OK(emdb_node_getattr(db, a.id, &live[0]));
	CHECK_OK(emdb_node_getattr(db, ns, &live[1]));
	CHECK_OK(emdb_node_getattr(db, EMDB_ROOT, &live[2]));
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	CHECK_OK(emdb_node_write(db, a.id, 0, "later", 5, 0));
	CHECK_OK(emdb_node_unlink(db, ns, "f", 1, NULL));
	snap = open_snapshot(db, "s");
	for (int i = 0; i < 3; i++) {
		CHECK_OK(emdb_node_getattr(snap, live[i].id, &a));
		CHECK_UEQ(a.id, live[i].id);
		CHECK_UEQ(a.size, live[i].size);
		CHECK_UEQ(a.nlink, live[i].nlink);
		CHECK_UEQ(a.mode, live[i].mode);
		CHECK_UEQ(a.uid, live[i].uid);
		CHECK_EQ(a.mtime_ns, live[i].mtime_ns);
		CHECK_EQ(a.ctime_ns, live[i].ctime_ns);
		CHECK_EQ(a.btime_ns, live[i].btime_ns);
	}
	CHECK_OK(emdb_xattr_get(snap, live[0].id, "user.x", buf, sizeof(buf), &len));
	CHECK_MEM(buf, len, "y", 1);
	CHECK_OK(emdb_node_read(snap, live[0].id, 100000, buf, sizeof(buf), &len));
	CHECK_MEM(buf, len, "far", 3);
	CHECK_OK(emdb_node_read(snap, live[0].id, 0, buf, 1, &len));
	CHECK_MEM(buf, len, "", 1);
	CHECK_OK(emdb_close(snap));
	CHECK_OK(emdb_close(db));
}

/* ---- Under writers ---------------------------------------------------------- */

#define WRITERS 3
#define KEYS    40
#define SHOTS   6

/*
 * A writer sets its keys in turn to 1, 2, 3, ..., and deletes each one on the
 * way.  So the state after any prefix of its operations is known from how far it got.
 */
struct writer {
	emdb_db *db;
	int id;
	_Atomic(uint64_t) done; /* operations acknowledged */
	_Atomic(bool) *stop;
	pthread_t thread;
};

static size_t writer_key(const struct writer *w, uint64_t op, char key[32])
{
	return (size_t)snprintf(key, 32, "w%d-%u", w->id, (unsigned int)(op % KEYS));
}

/* Every third round of an operation's key is a deletion. */
static bool op_deletes(uint64_t op)
{
	return op / KEYS % 3 == 2;
}

static void *write_on(void *arg)
{
	struct writer *const w = arg;
	char key[32], value[600];

	memset(value, 'v', sizeof(value));
	for (uint64_t op = 0; !atomic_load(w->stop); op++) {
		const size_t n = writer_key(w, op, key);

		memcpy(value, &op, sizeof(op));
		if (op_deletes(op))
			CHECK_OK(emdb_remove(w->db, EMDB_ROOT, key, n, NULL, NULL));
		else
			CHECK_OK(emdb_put(w->db, EMDB_ROOT, key, n, value, sizeof(value), 0));
		atomic_store(&w->done, op + 1);
	}
	return NULL;
}

/* The snapshot must show the state after one number of operations between lo and hi. */
static void check_prefix(emdb_db *snap, const struct writer *w, uint64_t lo, uint64_t hi)
{
	uint64_t top = 0;
	char key[32];
	size_t len;
	void *v;

	/* How far it got: the highest operation visible; deletions come up to KEYS behind it. */
	for (uint64_t k = 0; k < KEYS; k++) {
		uint64_t op;

		if (emdb_get(snap, EMDB_ROOT, key, writer_key(w, k, key), &v, &len))
			continue;
		memcpy(&op, v, sizeof(op));
		emdb_free(v);
		top = max_u64(top, op + 1);
	}
	/* Nothing at all: everything is just deleted, wherever that was. */
	for (uint64_t n = max_u64(lo, top); n <= (top ? min_u64(hi, top + 2 * KEYS) : hi); n++) {
		uint64_t k;

		for (k = 0; k < KEYS; k++) {
			/* The last of the first n operations on key k. */
			const bool any = n > k;
			const uint64_t last = any ? (n - 1 - k) / KEYS * KEYS + k : 0;
			const emdb_err err =
				emdb_get(snap, EMDB_ROOT, key, writer_key(w, k, key), &v, &len);
			uint64_t op = UINT64_MAX;

			if (!err) {
				memcpy(&op, v, sizeof(op));
				emdb_free(v);
			}
			if ((any && !op_deletes(last) ? last : UINT64_MAX) != op)
				break;
		}
		if (k == KEYS)
			return;
	}
	FAIL("writer %d: no prefix between %" PRIu64 " and %" PRIu64 ", top %" PRIu64, w->id, lo,
	     hi, top);
}

static void *compact_on(void *arg)
{
	const struct emdb_compact_options o = { .size = sizeof(o), .min_dead_percent = 1 };
	struct writer *const w = arg;

	while (!atomic_load(w->stop)) {
		CHECK_OK(emdb_compact(w->db, &o, NULL));
		atomic_fetch_add(&w->done, 1);
		usleep(1000);
	}
	return NULL;
}

/* compacting: what snapshots need is moved and dropped all the time. */
static void shots_under_writers(bool compacting)
{
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE);
	struct writer w[WRITERS] = { { .db = db } };
	uint64_t lo[SHOTS][WRITERS], hi[SHOTS][WRITERS];
	_Atomic(bool) stop = false;
	struct writer c = { .db = db, .stop = &stop };
	char name[32];

	if (compacting)
		CHECK_EQ(pthread_create(&c.thread, NULL, compact_on, &c), 0);
	for (int i = 0; i < WRITERS; i++) {
		w[i].db = db;
		w[i].id = i;
		w[i].stop = &stop;
		CHECK_EQ(pthread_create(&w[i].thread, NULL, write_on, &w[i]), 0);
	}
	for (int s = 0; s < SHOTS; s++) {
		usleep(30000);
		for (int i = 0; i < WRITERS; i++)
			lo[s][i] = atomic_load(&w[i].done);
		(void)snprintf(name, sizeof(name), "s%d", s);
		CHECK_OK(emdb_snapshot_create(db, name, NULL));
		for (int i = 0; i < WRITERS; i++)
			hi[s][i] = atomic_load(&w[i].done) + 1;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < WRITERS; i++)
		CHECK_EQ(pthread_join(w[i].thread, NULL), 0);
	if (compacting) {
		CHECK_EQ(pthread_join(c.thread, NULL), 0);
		CHECK(atomic_load(&c.done) > 0);
	}
	for (int round = 0; round < 2; round++) {
		for (int s = 0; s < SHOTS; s++) {
			emdb_db *snap;

			(void)snprintf(name, sizeof(name), "s%d", s);
			snap = open_snapshot(db, name);
			for (int i = 0; i < WRITERS; i++)
				check_prefix(snap, &w[i], lo[s][i], hi[s][i]);
			CHECK_OK(emdb_close(snap));
		}
		/* And after the store was reopened. */
		CHECK_OK(emdb_close(db));
		db = open_store(path, 0);
	}
	CHECK_OK(emdb_close(db));
}

TEST(test_snapshot__under_writers_is_a_prefix_of_each)
{
	shots_under_writers(false);
}

TEST(test_snapshot__under_writers_and_compaction)
{
	shots_under_writers(true);
}

/* ---- Crashes and faults ------------------------------------------------------ */

/* Call number 1, 2, 3, ... of a creation fails: complete or absent, and the store goes on. */
TEST(test_snapshot__failing_io_leaves_all_or_nothing)
{
	const char *const path = test_dir();
	emdb_db *db = open_store(path, EMDB_OPEN_CREATE);
	struct emdb_io *const real = db->io, *const fault = emdb_io_fault_new(real);
	struct emdb_snapshot s;
	bool through = false;
	uint64_t last = 0;

	CHECK(fault);
	put(db, "k", "v");
	/* The backend is changed under the store: nobody else may look. */
	expire_stop(db);
	checkpoint_stop(db);
	compact_stop(db);
	for (uint64_t nth = 1; !through; nth++) {
		const struct io_fault plan = { .mask = IO_MASK_ALL, .nth = nth, .err = -EIO };
		emdb_err err;

		emdb_io_fault_set(fault, &plan);
		db->io = fault;
		err = emdb_snapshot_create(db, "s", NULL);
		db->io = real;
		through = emdb_io_fault_hits(fault) == 0;
		if (err) {
			CHECK(!through);
			CHECK_EQ(emdb_snapshot_get(db, "s", &s), EMDB_ERR_NOT_FOUND);
			continue;
		}
		CHECK_OK(emdb_snapshot_get(db, "s", &s));
		CHECK_OK(s.err);
		CHECK(s.number > last);
		last = s.number;
		/* Now the same for its removal. */
		emdb_io_fault_set(fault, &plan);
		db->io = fault;
		err = emdb_snapshot_delete(db, "s");
		db->io = real;
		if (err && emdb_snapshot_get(db, "s", &s) == EMDB_OK) {
			CHECK_OK(s.err);
			CHECK_OK(emdb_snapshot_delete(db, "s"));
		}
	}
	expect_names(db, "");
	emdb_io_free(fault);
	CHECK_OK(emdb_close(db));
	CHECK(!exists(path, "snapshots/.tmp"));
	db = open_store(path, 0);
	expect(db, "k", "v");
	CHECK(!exists(path, "snapshots/.del"));
	CHECK_OK(emdb_close(db));
}

/* Creates and deletes for ever. */
static void churn(const char *path, int ready)
{
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	char name[32], value[32];

	CHECK_EQ(write(ready, "r", 1), 1);
	for (unsigned int i = 0;; i++) {
		(void)snprintf(value, sizeof(value), "%u", i);
		put(db, "i", value);
		(void)snprintf(name, sizeof(name), "s%u", i);
		CHECK_OK(emdb_snapshot_create(db, name, NULL));
		(void)snprintf(name, sizeof(name), "s%u", i - 2);
		if (i >= 2)
			CHECK_OK(emdb_snapshot_delete(db, name));
	}
}

static bool check_one(void *ctx, const struct emdb_snapshot *s)
{
	emdb_db *const snap = open_snapshot(ctx, s->name);

	CHECK_OK(s->err);
	expect(snap, "i", s->name + 1);
	CHECK_OK(emdb_close(snap));
	CHECK_OK(emdb_snapshot_delete(ctx, s->name));
	return true;
}

TEST(test_snapshot__killed_anywhere_leaves_whole_ones)
{
	const char *const path = test_dir();
	uint64_t state = test_seed();

	for (int round = 0; round < 10; round++) {
		int ready[2];
		emdb_db *db;
		pid_t pid;
		char c;

		CHECK_EQ(pipe(ready), 0);
		pid = fork();
		if (pid == 0)
			churn(path, ready[1]);
		CHECK_EQ(read(ready[0], &c, 1), 1);
		usleep((useconds_t)(test_rand(&state) % 60000));
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		(void)close(ready[0]);
		(void)close(ready[1]);
		db = open_store(path, EMDB_OPEN_CREATE);
		CHECK(!exists(path, "snapshots/.tmp") && !exists(path, "snapshots/.del"));
		CHECK_OK(emdb_snapshot_list(db, check_one, db));
		expect_names(db, "");
		CHECK_OK(emdb_close(db));
	}
}

/* A segment that goes from the store stays in the snapshot. */
TEST(test_snapshot__retired_segments_stay)
{
	const char *const path = test_dir();
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	struct journal_seg_info info[8];
	emdb_db *snap;
	uint64_t id;

	put(db, "k", "v");
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	put(db, "k", "w");
	CHECK(journal_segments(db->j, info, 8) >= 2);
	CHECK(info[0].sealed);
	id = info[0].id;
	CHECK_OK(journal_retire(db->j, &id, 1));
	snap = open_snapshot(db, "s");
	expect(snap, "k", "v");
	CHECK_OK(emdb_close(snap));
	expect(db, "k", "w");
	CHECK_OK(emdb_close(db));
}

static void *retire_it(void *arg)
{
	struct writer *const w = arg;
	const uint64_t id = 1;

	CHECK_OK(journal_retire(w->db->j, &id, 1));
	atomic_store(&w->done, 1);
	return NULL;
}

TEST(test_snapshot__a_pin_holds_retiring_up)
{
	const char *const path = test_dir();
	emdb_db *const db = open_store(path, EMDB_OPEN_CREATE);
	struct writer w = { .db = db };

	put(db, "k", "v");
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	put(db, "k", "w");
	journal_pin_retire(db->j);
	CHECK_EQ(pthread_create(&w.thread, NULL, retire_it, &w), 0);
	usleep(50000);
	CHECK_UEQ(atomic_load(&w.done), 0);
	CHECK(exists(path, "journal/0000000000000001.seg"));
	journal_unpin_retire(db->j);
	CHECK_EQ(pthread_join(w.thread, NULL), 0);
	CHECK(!exists(path, "journal/0000000000000001.seg"));
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
