/* SPDX-License-Identifier: Apache-2.0 */
/* Scrub: a live store read from its disk, each kind of damage found and named, nobody held up. */
#include "tests/unit/damage_help.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "core/checkpoint.h"
#include "core/format.h"
#include "core/journal.h"

#define VALUE 20000u

static char bytes[VALUE + 1];

static const char *large(void)
{
	memset(bytes, 'v', VALUE);
	return bytes;
}

struct run {
	struct told told;
	struct emdb_scrub_report r;
	emdb_err err;
};

static struct run *scrub_with(emdb_db *db, struct emdb_scrub_options o)
{
	static struct run run;

	memset(&run, 0, sizeof(run));
	o.size = sizeof(o);
	o.found = on_found;
	o.found_ctx = &run.told;
	run.err = emdb_scrub(db, &o, &run.r);
	if (getenv("VERBOSE"))
		printf("scrub %s: %" PRIu64 " bytes, %" PRIu64 " frames\n%s",
		       emdb_err_name(run.err), run.r.bytes, run.r.frames, run.told.all);
	return &run;
}

static struct run *scrub(emdb_db *db)
{
	return scrub_with(db, (struct emdb_scrub_options){ .size = 0 });
}

static void expect_clean(emdb_db *db)
{
	const struct run *const run = scrub(db);

	if (run->err)
		FAIL("scrub: %s\n%s", emdb_err_name(run->err), run->told.all);
	CHECK(run->r.complete && run->r.damaged == 0 && run->r.lost_entries == 0);
	CHECK_STR(run->told.all, "");
	CHECK(run->r.bytes > 0 && run->r.frames > 0);
}

/* The damaged file was told of, and so many entries. */
static void expect_damage(emdb_db *db, const char *file, uint64_t entries)
{
	const struct run *const run = scrub(db);

	if (run->err != EMDB_ERR_CORRUPT || !strstr(run->told.all, file))
		FAIL("%s: scrub gave %s, and told:\n%s", file, emdb_err_name(run->err),
		     run->told.all);
	if (run->r.damaged == 0 || run->r.lost_entries != entries)
		FAIL("%s: %" PRIu64 " damaged, %" PRIu64 " entries:\n%s", file, run->r.damaged,
		     run->r.lost_entries, run->told.all);
	CHECK(run->r.complete);
}

/* Everything so far lies in sealed segments. */
static void seal_all(emdb_db *db)
{
	uint64_t lsn;

	CHECK_OK(journal_roll(db->j, &lsn));
	CHECK_OK(journal_seal(db->j));
}

static uint64_t big_file(emdb_db *db, uint64_t ns, const char *name, size_t size)
{
	char *const p = malloc(size);
	struct emdb_attr a;

	memset(p, 'b', size);
	CHECK_OK(emdb_put(db, ns, name, strlen(name), p, size, 0));
	free(p);
	CHECK_OK(emdb_node_lookup(db, ns, name, strlen(name), &a));
	return a.id;
}

/* A store with something of every kind, all of it in sealed segments, and a snapshot. */
static emdb_db *sample(void)
{
	emdb_db *const db = store_new();
	const uint64_t dir = mkns(db, EMDB_ROOT, "dir");
	uint64_t big;

	put(db, EMDB_ROOT, "first", large());
	put(db, dir, "victim", large());
	put(db, dir, "other", large());
	big = big_file(db, dir, "big", 600000);
	CHECK_OK(emdb_xattr_set(db, big, "user.a", large(), VALUE, 0));
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "snap", NULL));
	put(db, EMDB_ROOT, "later", large());
	seal_all(db);
	return db;
}

static uint64_t dir_of(emdb_db *db)
{
	uint64_t id;

	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "dir", 3, &id));
	return id;
}

/* ---- What is found ------------------------------------------------------------------ */

TEST(test_scrub__clean)
{
	emdb_db *db = sample();
	struct emdb_stats st;

	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.scrub_ended_ms == 0 && st.scrub_total_bytes == 0);
	expect_clean(db);
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.scrub_ended_ms && st.scrub_complete && st.scrub_bytes && !st.scrub_damaged);
	/* What a scrub read is not less than there is. */
	CHECK(scrub(db)->r.bytes >= st.journal_bytes);
	/* Acknowledged a moment ago, and not synced. */
	put(db, EMDB_ROOT, "fresh", "value");
	expect_clean(db);
	CHECK_OK(emdb_close(db));
	db = store_open(EMDB_OPEN_READ_ONLY);
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.scrub_ended_ms && st.scrub_complete);
	expect_clean(db);
	CHECK_OK(emdb_close(db));
}

TEST(test_scrub__names_entries)
{
	emdb_db *const db = sample();
	const uint64_t dir = dir_of(db), ref = ref_of(db, dir, "victim");
	struct emdb_stats st;

	spoil(ref, 3000);
	expect_damage(db, "journal/0000000000000001.seg", 1);
	CHECK(told_of(&scrub(db)->told, EMDB_DAMAGE_LOST, "dir/victim"));
	CHECK(told_of(&scrub(db)->told, EMDB_DAMAGE_SNAPSHOT, "snap"));
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.scrub_damaged == 1 && st.scrub_lost_entries == 1);
	expect(db, dir, "other", large());
	/* Its key too. */
	spoil(ref, 24);
	CHECK_EQ(scrub(db)->err, EMDB_ERR_CORRUPT);
	spoil(ref, 24);
	spoil(ref, 3000);
	expect_clean(db);
	/* Two frames in one go, the next one is found behind them. */
	spoil(ref, 4);
	spoil(ref_of(db, dir, "other"), 5000);
	expect_damage(db, ".seg", 2);
	CHECK(told_of(&scrub(db)->told, EMDB_DAMAGE_LOST, "dir/other"));
	CHECK_OK(emdb_close(db));
}

TEST(test_scrub__names_pieces_and_namespaces)
{
	emdb_db *const db = sample();
	const uint64_t dir = dir_of(db);
	struct obj_view v;
	struct emdb_attr a;
	struct extent x;
	unsigned int pin;

	CHECK_OK(emdb_node_lookup(db, dir, "big", 3, &a));
	pin = epoch_pin(&db->epoch);
	CHECK(objtab_get_pinned(db, a.id, &v) && v.big);
	CHECK(extmap_find(&v.big->map, 300000, &x));
	spoil(x.ref, 2000);
	expect_damage(db, ".seg", 1);
	CHECK(told_of(&scrub(db)->told, EMDB_DAMAGE_RANGE, "dir/big"));
	spoil(x.ref, 2000);
	spoil(v.big->inode_ref, 3000);
	expect_damage(db, ".seg", 1);
	CHECK(told_of(&scrub(db)->told, EMDB_DAMAGE_META, "dir/big"));
	spoil(v.big->inode_ref, 3000);
	epoch_unpin(&db->epoch, pin);
	spoil(ref_of(db, EMDB_ROOT, "dir"), 16);
	expect_damage(db, ".seg", 1);
	CHECK(told_of(&scrub(db)->told, EMDB_DAMAGE_META, "dir"));
	spoil(ref_of(db, EMDB_ROOT, "dir"), 16);
	expect_clean(db);
	emdb_node_forget(db, a.id, 1);
	CHECK_OK(emdb_close(db));
}

/* What nothing counts in is damage as well: a replay would meet it. */
TEST(test_scrub__dead_bytes)
{
	emdb_db *const db = sample();
	const uint64_t ref = ref_of(db, EMDB_ROOT, "first");

	put(db, EMDB_ROOT, "first", "new");
	spoil(ref, 3000);
	expect_damage(db, ".seg", 0);
	CHECK_OK(emdb_close(db));
}

TEST(test_scrub__every_other_file)
{
	static const char *const files[] = { "superblock", "superblock.bak", "manifest",
					     "snapshots/snap/superblock",
					     "snapshots/snap/manifest" };
	emdb_db *const db = sample();
	struct journal_checkpoint c;
	char name[64], number[CHECKPOINT_NAME_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		spoil_file(files[i], 40);
		expect_damage(db, files[i], 0);
		CHECK_UEQ(scrub(db)->told.count[EMDB_DAMAGE_FILE], 1);
		spoil_file(files[i], 40);
	}
	journal_checkpoint_get(db->j, &c);
	checkpoint_name(c.number, number);
	/* In each of its blocks: it is one file with that of the snapshot. */
	for (off_t at = 0; at < 400; at += 60) {
		spoil_file(number, at);
		expect_damage(db, number, 0);
		spoil_file(number, at);
	}
	snprintf(name, sizeof(name), "snapshots/snap/%s", number);
	spoil_file(name, 100);
	expect_damage(db, name, 0);
	spoil_file(name, 100);
	expect_clean(db);
	CHECK_OK(emdb_close(db));
}

static void move_away(const char *file, bool back)
{
	char from[PATH_MAX + 80], to[PATH_MAX + 90];

	snprintf(from, sizeof(from), "%s/%s", path, file);
	snprintf(to, sizeof(to), "%s/../away", path);
	CHECK_EQ(back ? rename(to, from) : rename(from, to), 0);
}

TEST(test_scrub__missing_and_short_files)
{
	static const char *const files[] = { "superblock", "manifest", "snapshots/snap/manifest" };
	emdb_db *const db = sample();
	struct journal_checkpoint c;
	char name[64], number[CHECKPOINT_NAME_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		move_away(files[i], false);
		expect_damage(db, files[i], 0);
		move_away(files[i], true);
	}
	journal_checkpoint_get(db->j, &c);
	checkpoint_name(c.number, number);
	move_away(number, false);
	expect_damage(db, number, 0);
	move_away(number, true);
	/* A segment that the snapshot has as well: who only looked there would miss it. */
	snprintf(name, sizeof(name), "journal/0000000000000001.seg");
	move_away(name, false);
	CHECK_EQ(scrub(db)->err, EMDB_ERR_CORRUPT);
	CHECK(strstr(scrub(db)->told.all,
		     "journal/0000000000000001.seg offset 0: the file is missing"));
	move_away(name, true);
	expect_clean(db);
	CHECK_OK(emdb_close(db));
}

TEST(test_scrub__segment_header_and_end)
{
	emdb_db *const db = sample();
	char file[PATH_MAX + 64];
	struct stat st;
	int fd;

	spoil_file("journal/0000000000000001.seg", 20);
	/* The frames are still verified: none of them is told of. */
	expect_damage(db, "0000000000000001.seg offset 0", 0);
	CHECK_UEQ(scrub(db)->r.damaged, 1);
	spoil_file("journal/0000000000000001.seg", 20);
	snprintf(file, sizeof(file), "%s/journal/0000000000000001.seg", path);
	CHECK_EQ(stat(file, &st), 0);
	fd = open(file, O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, st.st_size - 40), 0);
	close(fd);
	CHECK_EQ(scrub(db)->err, EMDB_ERR_CORRUPT);
	(void)emdb_close(db);
}

/* Only the snapshot has the segment: its own journal is read. */
TEST(test_scrub__segment_of_a_snapshot_alone)
{
	emdb_db *const db = sample();
	struct told *t;

	put(db, EMDB_ROOT, "first", "new");
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "dir", 3, true));
	seal_all(db);
	CHECK_OK(emdb_compact(db, NULL, NULL));
	expect_clean(db);
	spoil_file("snapshots/snap/journal/0000000000000001.seg", 5000);
	expect_damage(db, "snapshots/snap/journal/0000000000000001.seg", 0);
	t = &scrub(db)->told;
	CHECK(told_of(t, EMDB_DAMAGE_SNAPSHOT, "snap"));
	CHECK_OK(emdb_snapshot_delete(db, "snap"));
	expect_clean(db);
	CHECK_OK(emdb_close(db));
}

/* ---- Encrypted --------------------------------------------------------------------------- */

static emdb_db *open_sealed(unsigned int flags)
{
	const struct emdb_secret s = {
		EMDB_SECRET_KEY, "0123456789abcdef0123456789abcdef", 32, NULL, 0, 0, 0
	};
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1,
					.compact_percent = -1,
					.secret = &s };
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

TEST(test_scrub__encrypted)
{
	emdb_db *db;

	snprintf(path, sizeof(path), "%s/store", test_dir());
	db = open_sealed(EMDB_OPEN_CREATE);
	put(db, EMDB_ROOT, "one", large());
	put(db, EMDB_ROOT, "two", large());
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "snap", NULL));
	expect_clean(db);
	forge(ref_of(db, EMDB_ROOT, "two"), 100, 1);
	expect_damage(db, "journal/0000000000000001.seg", 1);
	CHECK_OK(emdb_close(db));
}

/* Tags of a store that was encrypted later lie behind its frames. */
TEST(test_scrub__encrypted_later)
{
	const struct emdb_secret s = {
		EMDB_SECRET_KEY, "0123456789abcdef0123456789abcdef", 32, NULL, 0, 0, 0
	};
	emdb_db *db = sample();
	uint64_t ref;

	ref = ref_of(db, dir_of(db), "victim");
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_encrypt(path, &s, NULL));
	db = open_sealed(0);
	expect_clean(db);
	forge(ref, 100, 1);
	expect_damage(db, "journal/0000000000000001.seg", 1);
	CHECK_OK(emdb_close(db));
}

/* ---- Rate and stopping -------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct asked {
	uint64_t calls, stop_at, done, total;
};

static bool on_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct asked *const a = ctx;

	CHECK(done >= a->done && done <= total);
	a->done = done;
	a->total = total;
	a->calls++;
	return a->calls < a->stop_at;
}

TEST(test_scrub__rate)
{
	emdb_db *const db = store_new();
	struct asked a = { .stop_at = UINT64_MAX };
	const uint64_t rate = 10u << 20;
	const struct run *run;
	int64_t took, least;

	for (int i = 0; i < 6; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		(void)big_file(db, EMDB_ROOT, name, 900000);
	}
	took = now_ms();
	run = scrub_with(db, (struct emdb_scrub_options){ .bytes_per_second = rate,
							  .progress = on_progress,
							  .progress_ctx = &a });
	took = now_ms() - took;
	CHECK_OK(run->err);
	least = (int64_t)(run->r.bytes * 1000 / rate);
	/* A full bucket comes for nothing. */
	if (took < least - 110 || took > 3 * least + 2000)
		FAIL("%" PRIu64 " bytes took %" PRId64 " ms", run->r.bytes, took);
	CHECK(a.calls >= (uint64_t)(least - 110) / 100 && a.done == a.total);
	CHECK_OK(emdb_close(db));
}

TEST(test_scrub__stopped)
{
	emdb_db *const db = sample();
	struct emdb_stats st;
	struct asked a;
	const struct run *run;

	expect_clean(db);
	for (a = (struct asked){ .stop_at = 1 };; a = (struct asked){ .stop_at = a.stop_at + 1 }) {
		run = scrub_with(db, (struct emdb_scrub_options){ .progress = on_progress,
								  .progress_ctx = &a });
		if (!run->err)
			break;
		CHECK_EQ(run->err, EMDB_ERR_CANCELLED);
		CHECK(!run->r.complete);
	}
	CHECK(a.stop_at > 5);
	/* In the middle of a wait, at once. */
	a = (struct asked){ .stop_at = 4 };
	run = scrub_with(db, (struct emdb_scrub_options){ .bytes_per_second = 1000,
							  .progress = on_progress,
							  .progress_ctx = &a });
	CHECK_EQ(run->err, EMDB_ERR_CANCELLED);
	/* What was found before is told and kept. */
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.scrub_complete);
	spoil_file("superblock", 40);
	a = (struct asked){ .stop_at = 9 };
	run = scrub_with(
		db, (struct emdb_scrub_options){ .progress = on_progress, .progress_ctx = &a });
	CHECK_EQ(run->err, EMDB_ERR_CANCELLED);
	CHECK(strstr(run->told.all, "superblock"));
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(!st.scrub_complete && st.scrub_damaged == 1);
	spoil_file("superblock", 40);
	CHECK_OK(emdb_close(db));
}

TEST(test_scrub__arguments)
{
	emdb_db *db = sample();
	struct emdb_scrub_options o = { .size = 3 };
	char file[PATH_MAX + 80];
	struct emdb_stats st;

	CHECK_EQ(emdb_scrub(db, &o, NULL), EMDB_ERR_INVAL);
	CHECK_OK(emdb_scrub(db, NULL, NULL));
	/* A status that was changed is none. */
	spoil_file("scrub", 60);
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK_UEQ(st.scrub_ended_ms, 0);
	CHECK_OK(emdb_close(db));
	/* Snapshots and backups: nothing is written. */
	snprintf(file, sizeof(file), "%s/snapshots/snap", path);
	CHECK_OK(emdb_open(file,
			   &(struct emdb_options){ .size = sizeof(struct emdb_options),
						   .flags = EMDB_OPEN_READ_ONLY },
			   &db));
	expect_clean(db);
	snprintf(file, sizeof(file), "%s/snapshots/snap/scrub", path);
	CHECK(access(file, F_OK) == -1);
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_open_memory(NULL, &db));
	CHECK_EQ(emdb_scrub(db, NULL, NULL), EMDB_ERR_UNSUPPORTED);
	CHECK_OK(emdb_close(db));
}

/* ---- After a kill ---------------------------------------------------------------------------------- */

/* A store that nobody closed, opened for reading: its end is not sealed. */
TEST(test_scrub__after_a_kill)
{
	emdb_db *db = sample();
	pid_t child;
	int status;

	CHECK_OK(emdb_close(db));
	child = fork();
	if (child == 0) {
		db = store_open(0);
		for (;;)
			put(db, EMDB_ROOT, "again", large());
	}
	usleep(100000);
	CHECK_EQ(kill(child, SIGKILL), 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	db = store_open(EMDB_OPEN_READ_ONLY);
	expect_clean(db);
	CHECK_OK(emdb_close(db));
	db = store_open(0);
	expect_clean(db);
	CHECK_OK(emdb_close(db));
}

/* ---- Beside everything else ------------------------------------------------------------------------- */

struct load {
	emdb_db *db;
	_Atomic(bool) stop;
	_Atomic(uint64_t) done[4];
};

static void *writer(void *arg)
{
	struct load *const l = arg;
	char key[32];

	for (uint64_t i = 0; !l->stop; i++) {
		snprintf(key, sizeof(key), "w%" PRIu64, i % 40);
		CHECK_OK(emdb_put(l->db, EMDB_ROOT, key, strlen(key), bytes, VALUE, 0));
		l->done[0]++;
	}
	return NULL;
}

static void *compactor(void *arg)
{
	struct load *const l = arg;

	while (!l->stop) {
		CHECK_OK(emdb_compact(l->db, NULL, NULL));
		l->done[1]++;
	}
	return NULL;
}

static void *snapper(void *arg)
{
	struct load *const l = arg;

	while (!l->stop) {
		CHECK_OK(emdb_snapshot_create(l->db, "passing", NULL));
		usleep(2000);
		if (l->done[2] % 2)
			CHECK_OK(emdb_snapshot_rename(l->db, "passing", "other"));
		CHECK_OK(emdb_snapshot_delete(l->db, l->done[2] % 2 ? "other" : "passing"));
		l->done[2]++;
	}
	return NULL;
}

static void *checkpointer(void *arg)
{
	struct load *const l = arg;

	while (!l->stop) {
		CHECK_OK(emdb_checkpoint(l->db));
		l->done[3]++;
		usleep(1000);
	}
	return NULL;
}

TEST(test_scrub__beside_everything)
{
	void *(*const work[])(void *) = { writer, compactor, snapper, checkpointer };
	struct load l = { .db = sample() };
	pthread_t t[ARRAY_SIZE(work)];
	const int64_t end = now_ms() + 1000;
	uint64_t rounds = 0, skipped = 0;

	for (size_t i = 0; i < ARRAY_SIZE(work); i++)
		CHECK_OK(pthread_create(&t[i], NULL, work[i], &l));
	while (now_ms() < end) {
		/* Slowly enough for things to go in between, now and then. */
		const struct run *const run =
			scrub_with(l.db, (struct emdb_scrub_options){
						 .bytes_per_second = rounds % 3 ? 0 : 20u << 20 });

		if (run->err)
			FAIL("scrub %" PRIu64 ": %s\n%s", rounds, emdb_err_name(run->err),
			     run->told.all);
		skipped += run->r.skipped_bytes;
		rounds++;
	}
	l.stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(work); i++)
		CHECK_OK(pthread_join(t[i], NULL));
	printf("%" PRIu64 " scrubs beside %" PRIu64 " writes, %" PRIu64 " compactions, %" PRIu64
	       " snapshots, %" PRIu64 " checkpoints; %" PRIu64 " bytes went meanwhile\n",
	       rounds, l.done[0], l.done[1], l.done[2], l.done[3], skipped);
	for (size_t i = 0; i < ARRAY_SIZE(work); i++)
		CHECK(l.done[i] > 0);
	expect_clean(l.db);
	CHECK_OK(emdb_close(l.db));
}

/* While others write: found and named. */
TEST(test_scrub__damage_beside_writers)
{
	struct load l = { .db = sample() };
	const uint64_t dir = dir_of(l.db);
	pthread_t t[2];

	spoil(ref_of(l.db, dir, "victim"), 3000);
	CHECK_OK(pthread_create(&t[0], NULL, writer, &l));
	CHECK_OK(pthread_create(&t[1], NULL, checkpointer, &l));
	for (int i = 0; i < 5; i++) {
		expect_damage(l.db, "journal/0000000000000001.seg", 1);
		CHECK(told_of(&scrub(l.db)->told, EMDB_DAMAGE_LOST, "dir/victim"));
	}
	l.stop = true;
	CHECK_OK(pthread_join(t[0], NULL));
	CHECK_OK(pthread_join(t[1], NULL));
	CHECK(l.done[0] > 0);
	expect(l.db, dir, "other", large());
	CHECK_OK(emdb_close(l.db));
}

static void *second(void *arg)
{
	struct load *const l = arg;
	const struct emdb_scrub_options o = { .size = sizeof(o), .bytes_per_second = 3u << 19 };
	struct asked a = { .stop_at = UINT64_MAX };
	struct emdb_scrub_options slow = o;

	slow.progress = on_progress;
	slow.progress_ctx = &a;
	CHECK_OK(emdb_scrub(l->db, &slow, NULL));
	l->done[0]++;
	return NULL;
}

TEST(test_scrub__one_at_a_time)
{
	struct load l = { .db = sample() };
	struct emdb_stats st;
	pthread_t t;

	CHECK_OK(pthread_create(&t, NULL, second, &l));
	do {
		CHECK_OK(emdb_stats_get(l.db, &st));
	} while (st.scrub_done_bytes == 0 && !l.done[0]);
	CHECK_EQ(emdb_scrub(l.db, NULL, NULL), EMDB_ERR_BUSY);
	CHECK_OK(pthread_join(t, NULL));
	CHECK_OK(emdb_stats_get(l.db, &st));
	CHECK_UEQ(st.scrub_total_bytes, 0);
	expect_clean(l.db);
	CHECK_OK(emdb_close(l.db));
}

TEST_MAIN()
