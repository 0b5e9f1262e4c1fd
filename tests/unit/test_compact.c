/* SPDX-License-Identifier: Apache-2.0 */
/* What compaction copies, what it drops, and what it must never bring back. */
#include "tests/unit/compact_help.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SEG EMDB_SEGMENT_MIN

static char store_path[PATH_MAX + 8];

/* ---- A disk of a few segments ---- */

static _Atomic(unsigned int) quota; /* segments whose bytes fit; 0: any number */
static _Atomic(uint64_t) others;    /* bytes of them that others have */

/* Files of the journal, and the bytes that they take. */
static unsigned int segment_files(uint64_t *ret_bytes)
{
	char path[sizeof(store_path) + 300];
	const struct dirent *e;
	unsigned int n = 0;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "%s/journal", store_path);
	d = opendir(path);
	while (d && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		if (ret_bytes && fstatat(dirfd(d), e->d_name, &st, 0) == 0)
			*ret_bytes += (uint64_t)st.st_blocks * 512;
	}
	if (d)
		(void)closedir(d);
	return n;
}

static uint64_t bytes_free(void)
{
	const uint64_t all = quota * (uint64_t)SEG;
	uint64_t used = others;

	(void)segment_files(&used);
	return used < all ? all - used : 0;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	if (quota && bytes_free() < (uint64_t)len) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int fstatvfs(int fd, struct statvfs *st)
{
	(void)fd;
	memset(st, 0, sizeof(*st));
	st->f_bsize = st->f_frsize = 4096;
	st->f_blocks = quota ? quota * SEG / 4096 : UINT64_C(1) << 30;
	st->f_bfree = st->f_bavail = quota ? bytes_free() / 4096 : UINT64_C(1) << 29;
	return 0;
}

/* ---- Opening ---- */

/* What is due does not wait; compaction's own tests let it. */
static uint64_t wait_bytes = 1;

static emdb_db *open_with(int percent)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.segment_bytes = SEG,
					.sweep_interval_ms = -1,
					.compact_percent = percent,
					.compact_wait_bytes = wait_bytes };
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(store_path, &o, &db));
	return db;
}

static emdb_db *new_store(int percent)
{
	snprintf(store_path, sizeof(store_path), "%s/store", test_dir());
	return open_with(percent);
}

/* The same store from its journal alone. */
static emdb_db *replayed(emdb_db *db)
{
	CHECK_OK(emdb_close(db));
	forget_checkpoints(store_path);
	return open_with(-1);
}

static void put(emdb_db *db, uint64_t ns, const char *key, const void *value, size_t n)
{
	CHECK_OK(emdb_put(db, ns, key, strlen(key), value, n, 0));
}

static void puts_(emdb_db *db, uint64_t ns, const char *key, const char *value)
{
	put(db, ns, key, value, strlen(value));
}

static void del(emdb_db *db, uint64_t ns, const char *key)
{
	CHECK_OK(emdb_remove(db, ns, key, strlen(key), NULL, NULL));
}

static void want(emdb_db *db, uint64_t ns, const char *key, const void *value, size_t n)
{
	size_t got_n = 0;
	void *got = NULL;

	CHECK_OK(emdb_get(db, ns, key, strlen(key), &got, &got_n));
	CHECK_MEM(got, got_n, value, n);
	emdb_free(got);
}

static void want_none(emdb_db *db, uint64_t ns, const char *key)
{
	bool found = true;
	const emdb_err err = emdb_contains(db, ns, key, strlen(key), &found);

	CHECK(err == EMDB_ERR_NOT_FOUND || (!err && !found));
}

static uint64_t mkdir_(emdb_db *db, uint64_t parent, const char *name)
{
	uint64_t id = 0;

	CHECK_OK(emdb_ns_create(db, parent, name, strlen(name), &id));
	return id;
}

static struct emdb_attr lookup(emdb_db *db, uint64_t ns, const char *key)
{
	struct emdb_attr a;

	CHECK_OK(emdb_node_lookup(db, ns, key, strlen(key), &a));
	return a;
}

/* The segment that everything since the last call went to. */
static uint64_t cut(emdb_db *db)
{
	return seal_all(db) - 1;
}

struct tally {
	uint8_t kind;
	unsigned int n;
};

static emdb_err tally_one(void *ctx, struct segment *seg, const struct frame *f)
{
	struct tally *const t = ctx;

	(void)seg;
	t->n += f->kind == t->kind;
	return EMDB_OK;
}

/* Frames of one kind in the whole journal. */
static unsigned int frames_of(emdb_db *db, uint8_t kind)
{
	struct tally t = { kind, 0 };
	uint64_t ids[64];
	size_t n;

	(void)cut(db);
	n = sealed_segments(db, ids, 64);
	for (size_t i = 0; i < n; i++)
		CHECK_OK(journal_walk_segment(db->j, ids[i], tally_one, &t));
	return t.n;
}

static const uint8_t *noise(size_t n, uint64_t seed)
{
	static uint8_t buf[1 << 20];

	CHECK(n <= sizeof(buf));
	for (size_t i = 0; i < n; i++)
		buf[i] = (uint8_t)(test_rand(&seed) >> 56);
	return buf;
}

/* ---- What must not come back ---- */

TEST(test_compact__a_removal_outlives_its_segment_as_long_as_needed)
{
	emdb_db *db = new_store(-1);
	uint64_t first, second, seg[4];

	puts_(db, EMDB_ROOT, "k", "one");
	puts_(db, EMDB_ROOT, "stay", "here");
	first = cut(db);
	del(db, EMDB_ROOT, "k");
	second = cut(db);
	(void)drop_segment(db, second);
	CHECK_UEQ(frames_of(db, REC_DEL), 1);
	db = replayed(db);
	want_none(db, EMDB_ROOT, "k");
	CHECK_UEQ(sealed_segments(db, seg, 4), 2);
	CHECK_UEQ(seg[0], first);
	drop_segment(db, first);
	want(db, EMDB_ROOT, "stay", "here", 4);
	/* Now nothing is older: the copy of the DEL goes. */
	(void)drop_segment(db, seg[1]);
	CHECK_UEQ(frames_of(db, REC_DEL), 0);
	db = replayed(db);
	want_none(db, EMDB_ROOT, "k");
	want(db, EMDB_ROOT, "stay", "here", 4);
	CHECK_OK(emdb_close(db));
}

TEST(test_compact__a_copied_clear_spares_what_came_after)
{
	emdb_db *db = new_store(-1);
	const uint64_t ns = mkdir_(db, EMDB_ROOT, "dir");
	uint64_t sub, clears;

	puts_(db, ns, "old", "1");
	sub = mkdir_(db, ns, "sub");
	puts_(db, sub, "deep", "1");
	(void)cut(db);
	CHECK_OK(emdb_clear(db, ns));
	puts_(db, ns, "new", "2");
	clears = cut(db);
	puts_(db, ns, "newer", "3");
	CHECK(drop_segment(db, clears) > 0);
	db = replayed(db);
	want_none(db, ns, "old");
	want_none(db, sub, "deep");
	want(db, ns, "new", "2", 1);
	want(db, ns, "newer", "3", 1);
	CHECK_OK(emdb_close(db));
}

/* A directory moves out of one that is then dropped; the move's record is copied behind the drop. */
TEST(test_compact__a_directory_that_moved_away_is_not_dropped)
{
	emdb_db *db = new_store(-1);
	const uint64_t out = mkdir_(db, EMDB_ROOT, "out"), in = mkdir_(db, out, "in");
	uint64_t moves;

	puts_(db, in, "file", "kept");
	(void)cut(db);
	CHECK_OK(emdb_node_rename(db, out, "in", 2, EMDB_ROOT, "in", 2, 0));
	moves = cut(db);
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "out", 3, true));
	(void)cut(db);
	drop_segment(db, moves);
	db = replayed(db);
	want(db, in, "file", "kept", 4);
	want_none(db, EMDB_ROOT, "out");
	CHECK_UEQ(lookup(db, EMDB_ROOT, "in").id, in);
	CHECK_OK(emdb_close(db));
}

TEST(test_compact__a_name_that_was_used_again)
{
	emdb_db *db = new_store(-1);
	uint64_t seg[4];

	puts_(db, EMDB_ROOT, "k", "1");
	seg[0] = cut(db);
	del(db, EMDB_ROOT, "k");
	seg[1] = cut(db);
	puts_(db, EMDB_ROOT, "k", "2");
	seg[2] = cut(db);
	/* The DEL has nothing to say: a later record has the key. */
	(void)drop_segment(db, seg[1]);
	CHECK_UEQ(frames_of(db, REC_DEL), 0);
	del(db, EMDB_ROOT, "k");
	seg[3] = cut(db);
	(void)drop_segment(db, seg[2]);
	(void)drop_segment(db, seg[3]);
	CHECK_UEQ(frames_of(db, REC_DEL), 1);
	db = replayed(db);
	want_none(db, EMDB_ROOT, "k");
	CHECK_OK(emdb_close(db));
}

/* ---- Big objects ---- */

TEST(test_compact__holes_and_ends_hold)
{
	emdb_db *db = new_store(-1);
	const uint8_t *const data = noise(300000, 1);
	uint8_t *const model = calloc(1, 300000);
	struct emdb_attr a, set = { .size = 200000 };
	uint64_t holes;

	memcpy(model, data, 300000);
	put(db, EMDB_ROOT, "big", "", 0);
	a = lookup(db, EMDB_ROOT, "big");
	for (size_t off = 0; off < 300000; off += 50000)
		CHECK_OK(emdb_node_write(db, a.id, off, data + off, 50000, 0));
	(void)cut(db);
	CHECK_OK(emdb_node_setattr(db, a.id, &set, EMDB_SET_SIZE, &a));
	CHECK_OK(emdb_node_fallocate(db, a.id, 60000, 30000, EMDB_FALLOC_PUNCH_HOLE));
	set.size = 300000;
	CHECK_OK(emdb_node_setattr(db, a.id, &set, EMDB_SET_SIZE, &a));
	holes = cut(db);
	memset(model + 60000, 0, 30000);
	memset(model + 200000, 0, 100000);
	CHECK(drop_segment(db, holes) > 0);
	want(db, EMDB_ROOT, "big", model, 300000);
	db = replayed(db);
	want(db, EMDB_ROOT, "big", model, 300000);
	CHECK_UEQ(lookup(db, EMDB_ROOT, "big").id, a.id);
	CHECK_OK(emdb_close(db));
	free(model);
}

TEST(test_compact__shared_bytes_are_written_once)
{
	const size_t n = 400000;
	emdb_db *db = new_store(-1);
	const uint8_t *const data = noise(n, 2);
	uint64_t seg[8], copied = 0, got;
	struct emdb_attr a, b, c;
	size_t segs;

	put(db, EMDB_ROOT, "a", "", 0);
	puts_(db, EMDB_ROOT, "b", "");
	puts_(db, EMDB_ROOT, "c", "");
	a = lookup(db, EMDB_ROOT, "a");
	b = lookup(db, EMDB_ROOT, "b");
	c = lookup(db, EMDB_ROOT, "c");
	CHECK_OK(emdb_node_write(db, a.id, 0, data, n, 0));
	CHECK_OK(emdb_node_copy_range(db, a.id, 0, b.id, 0, n, &got));
	CHECK_OK(emdb_node_copy_range(db, a.id, 1000, c.id, 77, 200000, &got));
	CHECK_OK(emdb_node_write(db, b.id, 5000, "xyz", 3, 0));
	(void)cut(db);
	segs = sealed_segments(db, seg, 8);
	for (size_t i = 0; i < segs; i++)
		copied += drop_segment(db, seg[i]);
	CHECK(copied < n + n / 4);
	for (int round = 0; round < 2; round++) {
		uint8_t *const buf = malloc(n);
		size_t len = 0;

		CHECK_UEQ(lookup(db, EMDB_ROOT, "b").id, b.id);
		CHECK_UEQ(lookup(db, EMDB_ROOT, "c").id, c.id);
		want(db, EMDB_ROOT, "a", data, n);
		CHECK_OK(emdb_node_read(db, b.id, 0, buf, n, &len));
		CHECK_UEQ(len, n);
		CHECK_MEM(buf + 5000, 3, "xyz", 3);
		memcpy(buf + 5000, data + 5000, 3);
		CHECK_MEM(buf, n, data, n);
		CHECK_OK(emdb_node_read(db, c.id, 77, buf, n, &len));
		CHECK_MEM(buf, len, data + 1000, 200000);
		free(buf);
		db = replayed(db);
	}
	CHECK_OK(emdb_close(db));
}

/* Many small writes become few large ones. */
TEST(test_compact__neighbours_are_joined)
{
	emdb_db *db = new_store(-1);
	uint8_t *const model = malloc(100000);
	uint64_t seg;
	struct emdb_attr a;
	struct obj_view v;
	unsigned int pin;

	memcpy(model, noise(100000, 3), 100000);
	put(db, EMDB_ROOT, "log", model, 9000);
	a = lookup(db, EMDB_ROOT, "log");
	for (size_t off = 9000; off < 100000; off += 100)
		CHECK_OK(emdb_node_write(db, a.id, off, model + off, 100, 0));
	seg = cut(db);
	drop_segment(db, seg);
	pin = epoch_pin(&db->epoch);
	CHECK(objtab_get_pinned(db, a.id, &v) && v.big);
	CHECK(extmap_count(&v.big->map) <= 4);
	epoch_unpin(&db->epoch, pin);
	want(db, EMDB_ROOT, "log", model, 100000);
	db = replayed(db);
	want(db, EMDB_ROOT, "log", model, 100000);
	CHECK_OK(emdb_close(db));
	free(model);
}

/* ---- Identity ---- */

static void same_attr(const struct emdb_attr *a, const struct emdb_attr *b)
{
	CHECK_UEQ(a->id, b->id);
	CHECK_UEQ(a->size, b->size);
	CHECK_UEQ(a->mode, b->mode);
	CHECK_UEQ(a->nlink, b->nlink);
	CHECK_EQ(a->mtime_ns, b->mtime_ns);
	CHECK_EQ(a->ctime_ns, b->ctime_ns);
	CHECK_EQ(a->atime_ns, b->atime_ns);
	CHECK_EQ(a->btime_ns, b->btime_ns);
	CHECK_EQ(a->expires_ms, b->expires_ms);
}

TEST(test_compact__identity_times_and_deadlines_stay)
{
	static const char *const names[] = { "plain", "big", "dir", "linked" };
	emdb_db *db = new_store(-1);
	const int64_t later = emdb_now_ms(db) + 3600000;
	struct emdb_attr before[5], after, big;
	uint64_t seg[16];
	size_t n;

	CHECK_OK(emdb_put(db, EMDB_ROOT, "plain", 5, "v", 1, later));
	put(db, EMDB_ROOT, "big", noise(9000, 4), 9000);
	big = lookup(db, EMDB_ROOT, "big");
	CHECK_OK(emdb_node_write(db, big.id, 100, "abc", 3, 0));
	(void)mkdir_(db, EMDB_ROOT, "dir");
	CHECK_OK(emdb_node_link(db, big.id, EMDB_ROOT, "linked", 6, &after));
	CHECK_OK(emdb_xattr_set(db, big.id, "user.x", "y", 1, 0));
	CHECK_OK(emdb_node_link(db, big.id, EMDB_ROOT, "gone", 4, &after));
	del(db, EMDB_ROOT, "gone");
	for (int i = 0; i < 4; i++)
		before[i] = lookup(db, EMDB_ROOT, names[i]);
	CHECK_OK(emdb_node_getattr(db, EMDB_ROOT, &before[4]));
	(void)cut(db);
	n = sealed_segments(db, seg, 16);
	for (size_t i = 0; i < n; i++)
		drop_segment(db, seg[i]);
	for (int round = 0; round < 2; round++) {
		char x;
		size_t len = 0;

		for (int i = 0; i < 4; i++) {
			after = lookup(db, EMDB_ROOT, names[i]);
			same_attr(&after, &before[i]);
		}
		CHECK_OK(emdb_node_getattr(db, EMDB_ROOT, &after));
		same_attr(&after, &before[4]);
		CHECK_OK(emdb_xattr_get(db, big.id, "user.x", &x, 1, &len));
		CHECK_MEM(&x, len, "y", 1);
		db = replayed(db);
	}
	CHECK_OK(emdb_close(db));
}

/* ---- Who is reading ---- */

TEST(test_compact__open_files_references_and_iterators_go_on)
{
	emdb_db *const db = new_store(-1);
	struct emdb_compact_progress p;
	struct emdb_slices slices;
	struct emdb_attr open, gone;
	struct emdb_entry e;
	struct emdb_ref ref;
	unsigned int seen = 0;
	emdb_iter *it;
	char key[16], buf[8];
	size_t len = 0;

	for (int i = 0; i < 2000; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		put(db, EMDB_ROOT, key, noise(1000, (uint64_t)i), 1000);
	}
	puts_(db, EMDB_ROOT, "open", "open1");
	puts_(db, EMDB_ROOT, "gone", "gone1");
	open = lookup(db, EMDB_ROOT, "open");
	gone = lookup(db, EMDB_ROOT, "gone");
	del(db, EMDB_ROOT, "gone");
	CHECK_OK(emdb_get_ref(db, EMDB_ROOT, "k7", 2, &ref));
	CHECK_OK(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_VALUES, &it));
	CHECK_OK(emdb_iter_next(it, &e));
	seen++;
	CHECK_OK(emdb_node_slices(db, open.id, 0, 100, &slices));
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 2000; i += 2) {
			snprintf(key, sizeof(key), "k%d", i);
			put(db, EMDB_ROOT, key, noise(1000, (uint64_t)i), 1000);
		}
		CHECK_OK(emdb_compact(db, NULL, &p));
		CHECK(p.segments > 0);
		CHECK_MEM(slices.iov[0].iov_base, slices.len, "open1", 5);
		if (round == 0)
			emdb_slices_release(db, &slices);
		if (round == 0)
			CHECK_OK(emdb_node_slices(db, open.id, 0, 100, &slices));
		CHECK_MEM(ref.data, ref.len, noise(1000, 7), 1000);
		CHECK_OK(emdb_node_read(db, gone.id, 0, buf, sizeof(buf), &len));
		CHECK_MEM(buf, len, "gone1", 5);
		CHECK_OK(emdb_iter_next(it, &e));
		seen++;
	}
	emdb_slices_release(db, &slices);
	CHECK_OK(emdb_compact(db, NULL, &p));
	while (emdb_iter_next(it, &e) == EMDB_OK) {
		CHECK(e.value_len == 1000 || e.value_len == 5);
		seen++;
	}
	CHECK_UEQ(seen, 2001);
	CHECK_MEM(ref.data, ref.len, noise(1000, 7), 1000);
	emdb_ref_release(&ref);
	emdb_iter_free(it);
	CHECK_OK(emdb_close(db));
}

struct crowd {
	emdb_db *db;
	unsigned int who;
	_Atomic(bool) *stop;
};

static void *worker(void *arg)
{
	const struct crowd *const c = arg;
	uint64_t rnd = c->who + 1;
	char key[32], value[2000];

	memset(value, 'a' + (int)c->who, sizeof(value));
	for (unsigned int i = 0; !atomic_load(c->stop); i++) {
		const size_t n = (size_t)(test_rand(&rnd) % sizeof(value));
		const int k = (int)(test_rand(&rnd) % 50);
		size_t len = 0;
		void *got = NULL;
		emdb_err err;

		/* Keys of one's own are exact, common ones are whatever somebody wrote whole. */
		snprintf(key, sizeof(key), "%s%u-%d", i % 3 ? "own" : "all", i % 3 ? c->who : 0, k);
		if (i % 7 == 0) {
			err = emdb_remove(c->db, EMDB_ROOT, key, strlen(key), NULL, NULL);
			CHECK(err == EMDB_OK || err == EMDB_ERR_NOT_FOUND);
			continue;
		}
		CHECK_OK(emdb_put(c->db, EMDB_ROOT, key, strlen(key), value, n, 0));
		if (i % 11 == 0) {
			struct emdb_attr a;

			err = emdb_node_lookup(c->db, EMDB_ROOT, key, strlen(key), &a);
			if (err == EMDB_OK) {
				err = emdb_node_write(c->db, a.id, 10000, value, 500, 0);
				CHECK(err == EMDB_OK || err == EMDB_ERR_NOT_FOUND);
				emdb_node_forget(c->db, a.id, 1);
				continue;
			}
		}
		err = emdb_get(c->db, EMDB_ROOT, key, strlen(key), &got, &len);
		if (i % 3) {
			CHECK_OK(err);
			CHECK_UEQ(len, n);
		} else {
			CHECK(err == EMDB_OK || err == EMDB_ERR_NOT_FOUND);
		}
		if (!err)
			emdb_free(got);
	}
	return NULL;
}

TEST(test_compact__beside_writers_and_readers)
{
	emdb_db *db = new_store(20);
	_Atomic(bool) stop = false;
	struct crowd c[3];
	pthread_t t[3];
	uint64_t before = 0, after = 0;

	for (unsigned int i = 0; i < 3; i++) {
		c[i] = (struct crowd){ db, i, &stop };
		CHECK_EQ(pthread_create(&t[i], NULL, worker, &c[i]), 0);
	}
	for (int i = 0; i < 12 / SLOWER; i++) {
		const struct emdb_compact_options o = { .size = sizeof(o), .min_dead_percent = 10 };

		usleep(60000);
		CHECK_OK(emdb_compact(db, &o, NULL));
	}
	stop = true;
	for (unsigned int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &before));
	db = replayed(db);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &after));
	CHECK_UEQ(before, after);
	CHECK_OK(emdb_close(db));
}

/* ---- Space ---- */

TEST(test_compact__deleting_everything_gives_the_room_back)
{
	emdb_db *const db = new_store(0);
	struct emdb_stats st;
	char key[16];

	for (int i = 0; i < 12000 / SLOWER; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		put(db, EMDB_ROOT, key, noise(1000, 9), 1000);
	}
	CHECK(segment_files(NULL) > 10 / SLOWER);
	for (int i = 0; i < 12000 / SLOWER; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		del(db, EMDB_ROOT, key);
	}
	for (int i = 0; i < 100; i++) {
		CHECK_OK(emdb_stats_get(db, &st));
		if (st.journal_bytes < SEG / 4)
			break;
		usleep(100000);
	}
	CHECK(st.journal_bytes < SEG / 4);
	/* A few files are kept for new segments until nothing was written for ten seconds. */
	CHECK(segment_files(NULL) <= 2 + 4);
	for (int i = 0; i < 300 && segment_files(NULL) > 2; i++)
		usleep(100000);
	CHECK(segment_files(NULL) <= 2);
	CHECK(st.compactions > 10 / SLOWER);
	CHECK_OK(emdb_close(db));
}

/* Overwrites for so long; returns the longest pause that a busy machine made of it. */
static uint64_t overwrite_for(emdb_db *db, unsigned int ms)
{
	uint64_t now = io_clock_mono_ns(db->io), before = now, pause = 0;
	const uint64_t end = now + ms * UINT64_C(1000000);
	char key[16];

	for (int i = 0; now < end; i++, before = now) {
		snprintf(key, sizeof(key), "k%d", i % 1000);
		put(db, EMDB_ROOT, key, noise(1000, 3), 1000);
		if (i % 100 == 0)
			usleep(2000);
		now = io_clock_mono_ns(db->io);
		pause = now - before > pause ? now - before : pause;
	}
	return pause;
}

/* Whoever works has the machine for himself, until he is through or there is too much garbage. */
TEST(test_compact__waits_for_a_quiet_moment)
{
	struct emdb_stats st, was;
	bool calm = false;
	emdb_db *db;

	wait_bytes = UINT64_C(1) << 30;
	db = new_store(0);
	for (int i = 0; i < 10 && !calm; i++) {
		(void)overwrite_for(db, 300);
		CHECK_OK(emdb_stats_get(db, &was));
		calm = overwrite_for(db, 700) < 40000000;
		CHECK_OK(emdb_stats_get(db, &st));
	}
	if (calm) {
		CHECK(st.reclaimable_bytes > 2 * SEG);
		CHECK_UEQ(st.compacted_bytes, was.compacted_bytes);
		CHECK_UEQ(st.compactions, was.compactions);
		CHECK_UEQ(st.compact_state, EMDB_COMPACT_WAITS);
		CHECK(st.compact_limit_bytes > 8 * SEG);
	}
	for (int i = 0; i < 200 && st.reclaimable_bytes > 2 * SEG; i++) {
		usleep(50000);
		CHECK_OK(emdb_stats_get(db, &st));
	}
	CHECK(st.reclaimable_bytes <= 2 * SEG);
	/* A machine that was never calm may not have written enough to compact. */
	CHECK(!calm || st.compactions > was.compactions);
	CHECK_OK(emdb_close(db));
	wait_bytes = 3 * SEG;
	db = open_with(0);
	for (int i = 0; i < 40; i++) {
		(void)overwrite_for(db, 300);
		CHECK_OK(emdb_stats_get(db, &st));
		if (i > 4 && st.compactions && st.reclaimable_bytes < 6 * SEG)
			break;
	}
	CHECK(st.compactions > 0);
	CHECK(st.reclaimable_bytes < 6 * SEG);
	CHECK_OK(emdb_close(db));
	wait_bytes = 1;
}

TEST(test_compact__a_full_disk)
{
	emdb_db *db = new_store(-1);
	emdb_err err = EMDB_OK;
	char key[16];
	int n = 0;

	quota = 8;
	for (; !err; n++) {
		snprintf(key, sizeof(key), "k%d", n);
		err = emdb_put(db, EMDB_ROOT, key, strlen(key), noise(2000, 1), 2000, 0);
	}
	CHECK_EQ(err, EMDB_ERR_NO_SPACE);
	n--;
	/* Of twenty one stays, so that there is some in every segment. */
	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		if (i % 20)
			del(db, EMDB_ROOT, key);
	}
	for (int i = 0; i < 3; i++)
		(void)!emdb_compact(db, NULL, NULL);
	CHECK(segment_files(NULL) < 6);
	for (int i = 0; i < n / 2; i++) {
		snprintf(key, sizeof(key), "n%d", i);
		put(db, EMDB_ROOT, key, noise(2000, 1), 2000);
	}
	quota = 0;
	db = replayed(db);
	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		if (i % 20)
			want_none(db, EMDB_ROOT, key);
		else
			want(db, EMDB_ROOT, key, noise(2000, 1), 2000);
	}
	CHECK_OK(emdb_close(db));
}

/* A life that removes every step-th value of from..to-1, and ends while compaction works. */
static void remove_and_die(int from, int to, int step, unsigned int wait_us)
{
	const pid_t pid = fork();
	emdb_db *db;
	char key[16];

	CHECK(pid >= 0);
	if (pid == 0) {
		db = open_with(0);
		for (int i = from; i < to; i += step) {
			snprintf(key, sizeof(key), "k%d", i);
			del(db, EMDB_ROOT, key);
		}
		usleep(wait_us);
		(void)kill(getpid(), SIGKILL);
	}
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

/*
 * All but `room` bytes are taken, the reserve spent: the store opens, again and again, and room comes back.
 * What goes is every other value, or the first half of them.
 */
static void open_full(uint64_t room, bool first)
{
	char key[16], path[sizeof(store_path) + 20];
	emdb_db *db = new_store(-1);
	emdb_err err = EMDB_OK;
	int n = 0;

	quota = 12;
	for (; !err; n++) {
		snprintf(key, sizeof(key), "k%d", n);
		err = emdb_put(db, EMDB_ROOT, key, strlen(key), noise(4000, 1), 4000, 0);
	}
	n--;
	CHECK_OK(emdb_close(db));
	snprintf(path, sizeof(path), "%s/journal/reserve", store_path);
	(void)unlink(path);
	others = bytes_free() - room;
	for (int i = 0; i < 10; i++) {
		if (first)
			remove_and_die(n / 20 * i, n / 20 * (i + 1), 1, (unsigned int)i * 10000);
		else
			remove_and_die(i * 2, n, 20, (unsigned int)i * 10000);
	}
	db = open_with(0);
	for (int i = 0, tries = 0; i < n / 5; i += !err) {
		snprintf(key, sizeof(key), "n%d", i);
		err = emdb_put(db, EMDB_ROOT, key, strlen(key), noise(4000, 1), 4000, 0);
		if (err == EMDB_ERR_NO_SPACE && tries++ < 400)
			usleep(50000);
		else
			CHECK_OK(err);
	}
	quota = 0;
	others = 0;
	db = replayed(db);
	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		if (first ? i < n / 20 * 10 : i % 2 == 0)
			want_none(db, EMDB_ROOT, key);
		else
			want(db, EMDB_ROOT, key, noise(4000, 1), 4000);
	}
	CHECK_OK(emdb_close(db));
}

TEST(test_compact__a_full_disk_opens)
{
	open_full(SEG - 4096, false);
}

TEST(test_compact__a_disk_with_hardly_any_room_opens)
{
	open_full(131072, true);
}

/* Files that no manifest lists fill the disk: they go before the open needs room. */
TEST(test_compact__what_crashes_left_makes_room)
{
	const char *const names[] = { "0000000000000ffe.seg", "0000000000000001.dead" };
	char path[sizeof(store_path) + 40];
	emdb_db *db = new_store(-1);

	puts_(db, EMDB_ROOT, "a", "b");
	CHECK_OK(emdb_close(db));
	quota = 6;
	for (int i = 0; i < 2; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/journal/%s", store_path, names[i]);
		fd = open(path, O_RDWR | O_CREAT, 0600);
		CHECK(fd >= 0 && syscall(SYS_fallocate, fd, 0, 0L, SEG * 3L - 8192 * i) == 0);
		(void)close(fd);
	}
	CHECK(bytes_free() < 8192);
	db = open_with(-1);
	puts_(db, EMDB_ROOT, "c", "d");
	CHECK(access(path, F_OK) != 0);
	CHECK_OK(emdb_close(db));
	quota = 0;
}

/*
 * A disk of some segments is full, then `gone` of every `of` values go.  The room comes back by itself, also
 * when what is left in no segment fits into the rest of the active one, until all of it is there again or the
 * disk is full no more.
 */
static void fill_and_free(int gone, int of)
{
	emdb_db *db = new_store(0);
	emdb_err err = EMDB_OK;
	struct emdb_stats st;
	char key[16];
	int n = 0;

	quota = 12;
	for (; !err; n++) {
		snprintf(key, sizeof(key), "k%d", n);
		err = emdb_put(db, EMDB_ROOT, key, strlen(key), noise(4000, 1), 4000, 0);
	}
	CHECK_EQ(err, EMDB_ERR_NO_SPACE);
	n--;
	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		if (i % of < gone)
			del(db, EMDB_ROOT, key);
	}
	for (int i = 0; i < 400; i++) {
		CHECK_OK(emdb_stats_get(db, &st));
		if (!st.low_space || st.reclaimable_bytes < SEG / 2)
			break;
		usleep(50000);
	}
	CHECK(!st.low_space || st.reclaimable_bytes < SEG / 2);
	quota = 0;
	db = replayed(db);
	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		if (i % of < gone)
			want_none(db, EMDB_ROOT, key);
		else
			want(db, EMDB_ROOT, key, noise(4000, 1), 4000);
	}
	CHECK_OK(emdb_close(db));
}

TEST(test_compact__a_full_disk_half_of_which_goes)
{
	fill_and_free(1, 2);
}

TEST(test_compact__a_full_disk_of_which_little_goes)
{
	fill_and_free(1, 5);
	fill_and_free(1, 10);
}

static bool stop_soon(void *ctx, const struct emdb_compact_progress *p)
{
	CHECK(p->segments_done <= p->segments && p->done_bytes <= p->total_bytes);
	return ++*(int *)ctx < 1;
}

TEST(test_compact__stops_when_told_and_goes_on_later)
{
	emdb_db *db = new_store(-1);
	int calls = 0;
	const struct emdb_compact_options o = { .size = sizeof(o),
						.progress = stop_soon,
						.ctx = &calls };
	struct emdb_compact_progress p;
	char key[16];

	for (int i = 0; i < 6000; i++) {
		snprintf(key, sizeof(key), "k%d", i % 4000);
		put(db, EMDB_ROOT, key, noise(1000, (uint64_t)i), 1000);
	}
	CHECK_EQ(emdb_compact(db, &o, &p), EMDB_ERR_CANCELLED);
	CHECK_EQ(calls, 1);
	CHECK_OK(emdb_compact(db, NULL, &p));
	CHECK(p.freed_bytes > 0);
	CHECK_UEQ(p.segments, p.segments_done);
	CHECK_UEQ(p.total_bytes, p.done_bytes);
	db = replayed(db);
	for (int i = 0; i < 4000; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		want(db, EMDB_ROOT, key, noise(1000, (uint64_t)(i < 2000 ? i + 4000 : i)), 1000);
	}
	CHECK_OK(emdb_close(db));
}

/* ---- Snapshots, memory, death ---- */

/* A segment is half way out: emptied, some of the copies before the cut, not yet retired. */
TEST(test_compact__a_snapshot_in_the_middle)
{
	emdb_db *const db = new_store(-1);
	struct emdb_snapshot snap;
	emdb_db *view = NULL;
	char key[16];
	uint64_t ids[64];
	size_t n;

	for (int i = 0; i < 4000; i++) {
		snprintf(key, sizeof(key), "k%d", i % 3000);
		put(db, EMDB_ROOT, key, noise(500, (uint64_t)i), 500);
		if (i % 7 == 0)
			del(db, EMDB_ROOT, key);
	}
	(void)cut(db);
	n = sealed_segments(db, ids, 64);
	CHECK_OK(try_empty(db, ids[n - 1], NULL));
	CHECK_OK(try_empty(db, ids[0], NULL));
	CHECK_OK(emdb_snapshot_create(db, "s", &snap));
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		put(db, EMDB_ROOT, key, "later", 5);
	}
	CHECK_OK(emdb_compact(db, NULL, NULL));
	CHECK_OK(emdb_snapshot_open(db, "s", NULL, &view));
	for (int i = 0; i < 3000; i++) {
		const int last = i < 1000 ? i + 3000 : i;

		snprintf(key, sizeof(key), "k%d", i);
		if (last % 7 == 0)
			want_none(view, EMDB_ROOT, key);
		else
			want(view, EMDB_ROOT, key, noise(500, (uint64_t)last), 500);
		want(db, EMDB_ROOT, key, "later", 5);
	}
	CHECK_OK(emdb_close(view));
	CHECK_OK(emdb_close(db));
}

TEST(test_compact__a_store_in_memory)
{
	const struct emdb_options o = { .size = sizeof(o), .segment_bytes = SEG };
	struct emdb_compact_progress p;
	emdb_db *db = NULL;
	char key[16];

	CHECK_OK(emdb_open_memory(&o, &db));
	for (int i = 0; i < 6000; i++) {
		snprintf(key, sizeof(key), "k%d", i % 500);
		put(db, EMDB_ROOT, key, noise(1000, (uint64_t)i), 1000);
	}
	CHECK_OK(emdb_compact(db, NULL, &p));
	for (int i = 5500; i < 6000; i++) {
		snprintf(key, sizeof(key), "k%d", i % 500);
		want(db, EMDB_ROOT, key, noise(1000, (uint64_t)i), 1000);
	}
	CHECK_OK(emdb_close(db));
}

/* Counts up 40 keys in turn, every third round removes them; tells how far it got. */
static void count_for_ever(_Atomic(uint64_t) *done)
{
	emdb_db *const db = open_with(1);
	char key[16];

	for (uint64_t i = atomic_load(done);; i++) {
		const struct emdb_compact_options o = { .size = sizeof(o), .min_dead_percent = 5 };

		snprintf(key, sizeof(key), "k%d", (int)(i % 40));
		if (i / 40 % 3 == 2)
			(void)!emdb_remove(db, EMDB_ROOT, key, strlen(key), NULL, NULL);
		else
			put(db, EMDB_ROOT, key, noise(3000, i), 3000);
		atomic_store(done, i + 1);
		if (i % 2000 == 1999)
			CHECK_OK(emdb_compact(db, &o, NULL));
	}
}

/* Whatever compaction was at when it was killed: all that was acknowledged is there. */
TEST(test_compact__killed_at_any_moment)
{
	_Atomic(uint64_t) *const done =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t rnd = test_seed();
	emdb_db *db = new_store(-1);

	CHECK(done != MAP_FAILED);
	CHECK_OK(emdb_close(db));
	for (int round = 0; round < 8 / SLOWER; round++) {
		const pid_t pid = fork();
		uint64_t end;

		CHECK(pid >= 0);
		if (pid == 0)
			count_for_ever(done);
		usleep((useconds_t)(30000 + test_rand(&rnd) % 100000));
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		if (round % 2)
			forget_checkpoints(store_path);
		db = open_with(-1);
		end = atomic_load(done);
		/* The last 39 for certain; the next one may have been done and not told. */
		for (uint64_t i = end < 40 ? 0 : end - 39; i < end; i++) {
			char key[16];

			snprintf(key, sizeof(key), "k%d", (int)(i % 40));
			if (i / 40 % 3 == 2)
				want_none(db, EMDB_ROOT, key);
			else
				want(db, EMDB_ROOT, key, noise(3000, i), 3000);
		}
		CHECK_OK(emdb_close(db));
	}
}

/* ---- Damage ---- */

TEST(test_compact__a_damaged_segment_stays)
{
	emdb_db *const db = new_store(-1);
	struct emdb_compact_progress p;
	char path[sizeof(store_path) + 64], key[16];
	uint64_t bad;
	uint8_t byte;
	int fd;

	puts_(db, EMDB_ROOT, "first", "1");
	bad = cut(db);
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "k%d", i % 1000);
		put(db, EMDB_ROOT, key, noise(1000, (uint64_t)i), 1000);
	}
	snprintf(path, sizeof(path), "%s/journal/%016llx.seg", store_path, (unsigned long long)bad);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, &byte, 1, FMT_SEG_HEADER + 40), 1);
	byte ^= 0x55;
	CHECK_EQ(pwrite(fd, &byte, 1, FMT_SEG_HEADER + 40), 1);
	(void)close(fd);
	CHECK_EQ(emdb_compact(db, NULL, &p), EMDB_ERR_CORRUPT);
	CHECK(p.freed_bytes > SEG);
	CHECK_EQ(access(path, F_OK), 0);
	/* Not tried again, and no obstacle to others. */
	CHECK_OK(emdb_compact(db, NULL, &p));
	CHECK_EQ(access(path, F_OK), 0);
	want(db, EMDB_ROOT, "k1", noise(1000, 2001), 1000);
	CHECK_OK(emdb_close(db));
}

/* Opens too short for the background to do anything do not pile up segments. */
TEST(test_compact__short_opens_do_not_pile_up_segments)
{
	unsigned int most = 0;
	char key[16];
	emdb_db *db;

	CHECK_OK(emdb_close(new_store(0)));
	for (unsigned int i = 0; i < 200; i++) {
		db = open_with(0);
		snprintf(key, sizeof(key), "k%u", i);
		puts_(db, EMDB_ROOT, key, key);
		CHECK_OK(emdb_close(db));
		most = segment_files(NULL) > most ? segment_files(NULL) : most;
	}
	CHECK(most <= 70);
	db = open_with(-1);
	for (unsigned int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		want(db, EMDB_ROOT, key, key, strlen(key));
	}
	CHECK_OK(emdb_close(db));
}

/* A process that crashes again and again leaves a segment each time, and never any time. */
TEST(test_compact__crashes_do_not_pile_up_segments)
{
	const unsigned int lives = getenv("EMDB_LONG") ? 1000 : 200 / SLOWER + 50;
	unsigned int most = 0;
	struct emdb_stats st;
	char key[16];
	emdb_db *db;

	CHECK_OK(emdb_close(new_store(0)));
	for (unsigned int i = 0; i < lives; i++) {
		const pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			db = open_with(0);
			for (unsigned int k = 0; k < 3; k++) {
				snprintf(key, sizeof(key), "k%u", i * 3 + k);
				puts_(db, EMDB_ROOT, key, key);
			}
			(void)kill(getpid(), SIGKILL);
		}
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		most = segment_files(NULL) > most ? segment_files(NULL) : most;
	}
	CHECK(most <= 100);
	db = open_with(-1);
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.segments <= 100);
	for (unsigned int i = 0; i < lives * 3; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		want(db, EMDB_ROOT, key, key, strlen(key));
	}
	CHECK_OK(emdb_close(db));
}

/* Nothing in them is garbage: they go because they are many. */
TEST(test_compact__many_small_segments_merge)
{
	struct journal_seg_info list[256];
	emdb_db *const db = new_store(0);
	char key[16];
	size_t n = 200;

	for (int i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		/* Of all sizes, so that what has been merged is not merged with what is much smaller. */
		put(db, EMDB_ROOT, key, noise(100 + (size_t)(i % 5) * 2000, 1),
		    100 + (size_t)(i % 5) * 2000);
		(void)cut(db);
	}
	for (int i = 0; i < 200 && n > 20; i++) {
		usleep(50000);
		n = journal_segments(db->j, list, 256);
	}
	CHECK(n <= 20);
	for (int i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		want(db, EMDB_ROOT, key, noise(100 + (size_t)(i % 5) * 2000, 1),
		     100 + (size_t)(i % 5) * 2000);
	}
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
