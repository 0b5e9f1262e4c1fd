/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: the state after opening from the current one, from the one before and from the whole
 * journal is the same, down to extents, deadlines and live bytes of segments.
 */
#include "tests/unit/checkpoint_help.h"

/* ---- Random work ---- */

#define KEYS   60
#define SPACES 8

/* What several threads do to the same few names; every result is good. */
struct worker {
	emdb_db *db;
	uint64_t rnd;
	_Atomic(bool) *stop;
	_Atomic(uint64_t) *acked; /* of this thread's own key; NULL: none */
	unsigned int number, ops;
};

static void fine(emdb_err err)
{
	static const emdb_err good[] = { EMDB_OK,         EMDB_ERR_NOT_FOUND,  EMDB_ERR_EXISTS,
					 EMDB_ERR_NOT_NS, EMDB_ERR_IS_NS,      EMDB_ERR_NOT_EMPTY,
					 EMDB_ERR_LOOP,   EMDB_ERR_UNSUPPORTED };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (err == good[i])
			return;
	FAIL("an operation gave %s", emdb_err_name(err));
}

static size_t any_key(struct worker *w, char key[32])
{
	return (size_t)snprintf(key, 32, "key%u", (unsigned int)(test_rand(&w->rnd) % KEYS));
}

/* A namespace somewhere below the root. */
static uint64_t any_ns(struct worker *w)
{
	uint64_t ns = EMDB_ROOT, next;
	char key[32];

	for (unsigned int i = 0; i < 3 && test_rand(&w->rnd) % 4; i++) {
		const size_t n = (size_t)snprintf(key, sizeof(key), "dir%u",
						  (unsigned int)(test_rand(&w->rnd) % SPACES));

		if (emdb_ns_open(w->db, ns, key, n, &next))
			break;
		ns = next;
	}
	return ns;
}

static uint8_t bulk[3u << 20];

static size_t any_size(struct worker *w)
{
	const uint64_t dice = test_rand(&w->rnd) % 100;

	return dice < 80   ? dice * 5
	       : dice < 99 ? test_rand(&w->rnd) % 20000
			   : test_rand(&w->rnd) % sizeof(bulk) / 2;
}

static void do_dirs(struct worker *w)
{
	char a[32], b[32];
	const size_t an = (size_t)snprintf(a, sizeof(a), "dir%u",
					   (unsigned int)(test_rand(&w->rnd) % SPACES));
	const size_t bn = (size_t)snprintf(b, sizeof(b), "dir%u",
					   (unsigned int)(test_rand(&w->rnd) % SPACES));
	const uint64_t from = any_ns(w), to = any_ns(w);
	struct emdb_attr attr = { .mode = 0700 + (uint32_t)(test_rand(&w->rnd) % 64) };
	uint64_t id;

	switch (test_rand(&w->rnd) % 16) {
	case 0:
		fine(emdb_ns_drop(w->db, from, a, an, true));
		break;
	case 1:
		fine(emdb_node_rmdir(w->db, from, a, an, NULL));
		break;
	case 2:
		if (test_rand(&w->rnd) % 8 == 0 && (from != EMDB_ROOT || to != EMDB_ROOT))
			fine(emdb_clear(w->db, from == EMDB_ROOT ? to : from));
		break;
	case 3:
	case 4:
		fine(emdb_node_rename(w->db, from, a, an, to, b, bn,
				      test_rand(&w->rnd) % 2 ? EMDB_RENAME_EXCHANGE : 0));
		break;
	case 5:
	case 6:
	case 7:
		fine(emdb_node_setattr(w->db, from, &attr, EMDB_SET_MODE, &attr));
		break;
	case 8:
		fine(emdb_ns_ttl_set(w->db, from, (int64_t)(test_rand(&w->rnd) % 3) * 200));
		break;
	default:
		fine(emdb_ns_create(w->db, from, a, an, &id));
	}
}

/* Writes to an object of any size, which may make it a big one, or none again. */
static void do_object(struct worker *w, uint64_t ns, const char *key, size_t n)
{
	const struct emdb_create what = { .mode = S_IFREG | 0640, .uid = 5, .gid = 6 };
	struct emdb_attr attr, set = { .size = any_size(w) };
	char other[32];
	size_t on;
	uint64_t len;
	emdb_err err;

	err = emdb_node_lookup(w->db, ns, key, n, &attr);
	if (err)
		err = emdb_node_create(w->db, ns, key, n, &what, &attr);
	fine(err);
	if (err || !S_ISREG(attr.mode)) {
		if (!err)
			emdb_node_forget(w->db, attr.id, 1);
		return;
	}
	set.expires_ms =
		(int64_t)(io_clock_real_ns(w->db->io) / 1000000 + test_rand(&w->rnd) % 400);
	switch (test_rand(&w->rnd) % 10) {
	case 0:
		fine(emdb_node_setattr(w->db, attr.id, &set, EMDB_SET_SIZE, &attr));
		break;
	case 1:
		fine(emdb_node_setattr(w->db, attr.id, &set, EMDB_SET_EXPIRES, &attr));
		break;
	case 2:
		on = any_key(w, other);
		err = emdb_node_link(w->db, attr.id, any_ns(w), other, on, &set);
		fine(err);
		if (!err)
			emdb_node_forget(w->db, set.id, 1);
		break;
	case 3:
		fine(emdb_xattr_set(w->db, attr.id, "user.x", key, n, 0));
		break;
	case 4:
		fine(emdb_node_fallocate(w->db, attr.id, test_rand(&w->rnd) % 9000, 5000,
					 EMDB_FALLOC_PUNCH_HOLE | EMDB_FALLOC_KEEP_SIZE));
		break;
	case 5:
		on = any_key(w, other);
		if (emdb_node_lookup(w->db, any_ns(w), other, on, &set) == EMDB_OK) {
			if (S_ISREG(set.mode) && set.id != attr.id)
				fine(emdb_node_copy_range(w->db, set.id, 100, attr.id, 7, 30000,
							  &len));
			emdb_node_forget(w->db, set.id, 1);
		}
		break;
	case 6:
		/* Open without a name for a while. */
		fine(emdb_node_unlink(w->db, ns, key, n, NULL));
		fine(emdb_node_write(w->db, attr.id, 3, bulk, 9000, 0));
		if (test_rand(&w->rnd) % 2) {
			on = any_key(w, other);
			err = emdb_node_link(w->db, attr.id, any_ns(w), other, on, &set);
			fine(err);
			if (!err)
				emdb_node_forget(w->db, set.id, 1);
		}
		break;
	default:
		fine(emdb_node_write(w->db, attr.id, test_rand(&w->rnd) % 30000, bulk, any_size(w),
				     0));
	}
	emdb_node_forget(w->db, attr.id, 1);
}

static void do_one(struct worker *w)
{
	const uint64_t ns = any_ns(w), dice = test_rand(&w->rnd) % 100;
	char key[32], to[32];
	const size_t n = any_key(w, key);
	int64_t expires = EMDB_TTL_NEVER;

	if (test_rand(&w->rnd) % 3 == 0)
		expires = (int64_t)(io_clock_real_ns(w->db->io) / 1000000 +
				    test_rand(&w->rnd) % 1000);
	if (dice < 35)
		fine(emdb_put(w->db, ns, key, n, bulk, any_size(w), expires));
	else if (dice < 37)
		fine(emdb_put(w->db, ns, key, n, bulk, (2u << 20) + any_size(w) % 1000, expires));
	else if (dice < 50)
		fine(emdb_remove(w->db, ns, key, n, NULL, NULL));
	else if (dice < 58)
		fine(emdb_node_rename(w->db, ns, key, n, any_ns(w), to, any_key(w, to),
				      test_rand(&w->rnd) % 3 ? 0 : EMDB_RENAME_EXCHANGE));
	else if (dice < 66)
		do_dirs(w);
	else
		do_object(w, ns, key, n);
}

/* Each thread also counts in a key of its own, and says how far it was told it got. */
static void do_own(struct worker *w)
{
	const uint64_t next = *w->acked + 1;
	char key[32];
	const size_t n = (size_t)snprintf(key, sizeof(key), "own%u", w->number);

	CHECK_OK(emdb_put(w->db, EMDB_ROOT, key, n, &next, sizeof(next), EMDB_TTL_NEVER));
	atomic_store(w->acked, next);
}

static void *worker_main(void *arg)
{
	struct worker *const w = arg;

	for (unsigned int i = 0; i < w->ops && !*w->stop; i++) {
		do_one(w);
		if (w->acked && i % 8 == 0)
			do_own(w);
	}
	return NULL;
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW 4u
#else
#define SLOW 1u
#endif

/* ---- Tests ---- */

/* One thread; checkpoints in between, restarts orderly and not. */
TEST(test_checkpoint__three_ways)
{
	uint64_t rnd = test_seed();
	_Atomic(bool) stop = false;
	struct worker w = { .rnd = rnd, .stop = &stop, .ops = 300 / SLOW };
	const char *const dir = test_dir();

	w.db = store_new(dir);
	for (unsigned int round = 0; round < 8 / (SLOW > 1 ? 2 : 1); round++) {
		worker_main(&w);
		CHECK_OK(emdb_checkpoint(w.db));
		worker_main(&w);
		if (round % 3) {
			/* Like a death: no image, no seal. */
			CHECK_OK(emdb_flush(w.db));
			w.db->ckpt.bytes = UINT64_MAX;
		}
		CHECK_OK(emdb_close(w.db));
		check_ways(&rnd);
		w.db = store_open(EMDB_OPEN_CREATE);
	}
	CHECK_OK(emdb_close(w.db));
}

struct shared {
	_Atomic(uint64_t) acked[4];
	_Atomic(uint64_t) checkpoints;
};

static void *checkpoint_main(void *arg)
{
	struct worker *const w = arg;

	while (!*w->stop) {
		CHECK_OK(emdb_checkpoint(w->db));
		(*w->acked)++;
		if (test_rand(&w->rnd) % 4 == 0)
			CHECK_OK(emdb_compact(w->db, NULL, NULL));
	}
	return NULL;
}

/* Works with three threads while a fourth writes checkpoints, and dies somewhere. */
static void work_and_die(struct shared *s, uint64_t seed)
{
	_Atomic(bool) stop = false;
	struct worker w[4];
	pthread_t t[4];
	emdb_db *const db = store_open(EMDB_OPEN_CREATE);

	for (unsigned int i = 0; i < 4; i++) {
		w[i] = (struct worker){ .db = db,
					.rnd = seed + i,
					.stop = &stop,
					.acked = i < 3 ? &s->acked[i] : &s->checkpoints,
					.number = i,
					.ops = 1u << 30 };
		CHECK_OK(pthread_create(&t[i], NULL, i < 3 ? worker_main : checkpoint_main, &w[i]));
	}
	usleep((100000 + (unsigned int)(test_rand(&seed) % 200000)) * (SLOW > 1 ? 2 : 1));
	if (test_rand(&seed) % 4)
		_exit(9);
	stop = true;
	for (unsigned int i = 0; i < 4; i++)
		CHECK_OK(pthread_join(t[i], NULL));
	compact_stop(db);
	expire_stop(db);
	free(dump_of(db));
	for (unsigned int i = 0; i < SEGS; i++) {
		const unsigned int pin = epoch_pin(&db->epoch);
		struct segment *const seg =
			journal_segment_pinned(db->j, (uint64_t)i << db->sb.segment_shift);

		if (seg)
			CHECK_UEQ(segment_live(seg), counted[i]);
		epoch_unpin(&db->epoch, pin);
	}
	CHECK_OK(emdb_close(db));
	_exit(9);
}

TEST(test_checkpoint__deaths_under_load)
{
	struct shared *const s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t rnd = test_seed();
	const char *const dir = test_dir();

	CHECK(s != MAP_FAILED);
	CHECK_OK(emdb_close(store_new(dir)));
	for (unsigned int round = 0; round < 6 / (SLOW > 1 ? 3 : 1); round++) {
		const uint64_t seed = test_rand(&rnd);
		const pid_t pid = fork();
		emdb_db *db;
		int status;

		CHECK(pid >= 0);
		if (pid == 0)
			work_and_die(s, seed);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
		check_ways(&rnd);
		db = store_open(EMDB_OPEN_READ_ONLY);
		for (unsigned int i = 0; i < 3; i++) {
			uint64_t *value, acked = s->acked[i];
			char key[32];
			size_t len;

			if (!acked)
				continue;
			CHECK_OK(emdb_get(db, EMDB_ROOT, key,
					  (size_t)snprintf(key, sizeof(key), "own%u", i),
					  (void **)&value, &len));
			CHECK_UEQ(len, 8);
			CHECK(*value == acked || *value == acked + 1);
			emdb_free(value);
		}
		CHECK_OK(emdb_close(db));
	}
	CHECK(s->checkpoints > 0);
	munmap(s, sizeof(*s));
}

/* A little of everything, and a checkpoint of it with something behind it. */
static void small_store(emdb_db *db)
{
	struct emdb_create what = { .mode = S_IFREG | 0600 };
	struct emdb_attr attr, other;
	uint64_t ns, sub, len;

	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "dir", 3, &ns));
	CHECK_OK(emdb_ns_create(db, ns, "sub", 3, &sub));
	CHECK_OK(emdb_put(db, ns, "a", 1, "one", 3, EMDB_TTL_NEVER));
	CHECK_OK(emdb_put(db, sub, "b", 1, "two", 3, INT64_C(4102444800000)));
	CHECK_OK(emdb_node_create(db, sub, "big", 3, &what, &attr));
	CHECK_OK(emdb_node_write(db, attr.id, 100000, bulk, 20000, 0));
	CHECK_OK(emdb_node_link(db, attr.id, EMDB_ROOT, "link", 4, &attr));
	CHECK_OK(emdb_node_create(db, ns, "clone", 5, &what, &other));
	CHECK_OK(emdb_node_copy_range(db, attr.id, 100000, other.id, 5, 9000, &len));
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_remove(db, ns, "a", 1, NULL, NULL));
	CHECK_OK(emdb_node_write(db, attr.id, 7, bulk, 10000, 0));
	emdb_node_forget(db, attr.id, 2);
	emdb_node_forget(db, other.id, 1);
}

/* Every byte of a checkpoint counts, and so does every length. */
TEST(test_checkpoint__any_damage_falls_back)
{
	uint64_t rnd = test_seed(), size;
	char name[PATH_MAX + 72];
	struct journal_checkpoint c;
	emdb_db *db;
	char *want, *copy, *text;
	FILE *f;

	db = store_new(test_dir());
	small_store(db);
	db->ckpt.bytes = UINT64_MAX;
	CHECK_OK(emdb_close(db));
	check_ways(&rnd);
	c = current();
	CHECK(c.number == 1 && !c.prev_number);
	file_name(c.number, name);
	size = file_size(name);
	printf("%" PRIu64 " bytes\n", size);
	want = dump(false);
	copy = malloc(size);
	f = fopen(name, "rb");
	CHECK(copy && f && fread(copy, 1, size, f) == size);
	fclose(f);
	for (uint64_t at = 0; at < size; at += SLOW * SLOW) {
		flip(name, at, (uint8_t)(1u << test_rand(&rnd) % 8));
		warnings = 0;
		text = dump(false);
		CHECK_UEQ(warnings, 1);
		same(want, text, "one byte changed");
		free(text);
		f = fopen(name, "r+b");
		CHECK(f && fwrite(copy, 1, size, f) == size);
		fclose(f);
	}
	for (uint64_t n = size; n-- > 0;) {
		CHECK_OK(truncate(name, (off_t)n));
		if (n % (SLOW * SLOW))
			continue;
		warnings = 0;
		text = dump(false);
		CHECK_UEQ(warnings, 1);
		same(want, text, "cut short");
		free(text);
	}
	/* What follows the end is not ignored either. */
	f = fopen(name, "wb");
	CHECK(f && fwrite(copy, 1, size, f) == size && fwrite("x", 1, 1, f) == 1);
	fclose(f);
	warnings = 0;
	text = dump(false);
	CHECK_UEQ(warnings, 1);
	same(want, text, "longer");
	free(text);
	free(copy);
	free(want);
}

/* A checkpoint of another time, or of another store, is none. */
TEST(test_checkpoint__others_are_refused)
{
	const char *const dir = test_dir();
	char name[PATH_MAX + 72], other[PATH_MAX + 72];
	char *want, *text;
	emdb_db *db;

	db = store_new(dir);
	small_store(db);
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, EMDB_TTL_NEVER));
	CHECK_OK(emdb_close(db));
	CHECK_UEQ(current().number, 3);
	want = dump(true);
	file_name(2, other);
	file_name(3, name);
	CHECK_OK(rename(other, name));
	warnings = 0;
	text = dump(true);
	CHECK_UEQ(warnings, 2);
	same(want, text, "number 2 as number 3");
	free(text);
	snprintf(path, sizeof(path), "%s/other", dir);
	db = store_open(EMDB_OPEN_CREATE);
	for (unsigned int i = 0; i < 3; i++) {
		small_store(db);
		CHECK_OK(emdb_clear(db, EMDB_ROOT));
	}
	CHECK_OK(emdb_close(db));
	file_name(3, other);
	snprintf(path, sizeof(path), "%s/store", dir);
	CHECK_OK(rename(other, name));
	warnings = 0;
	text = dump(true);
	CHECK_UEQ(warnings, 2);
	same(want, text, "of another store");
	free(text);
	free(want);
}

/* An orderly end leaves nothing to replay; what is not needed any more goes. */
TEST(test_checkpoint__close_leaves_nothing_to_replay)
{
	emdb_db *db = store_new(test_dir());
	char name[PATH_MAX + 72];
	struct emdb_stats st;

	CHECK_OK(emdb_close(db));
	CHECK_UEQ(current().number, 0);
	for (unsigned int i = 1; i <= 4; i++) {
		char key[32];

		db = store_open(EMDB_OPEN_CREATE);
		CHECK_OK(emdb_put(db, EMDB_ROOT, key,
				  (size_t)snprintf(key, sizeof(key), "key%u", i), "v", 1,
				  EMDB_TTL_NEVER));
		CHECK_OK(emdb_close(db));
		CHECK_UEQ(current().number, i);
		db = store_open(EMDB_OPEN_CREATE);
		CHECK_OK(emdb_stats_get(db, &st));
		CHECK_UEQ(st.replayed, 0);
		CHECK_UEQ(st.records, i);
		CHECK(st.checkpoint_lsn);
		CHECK_OK(emdb_close(db));
		/* Nothing new: no new one. */
		CHECK_UEQ(current().number, i);
	}
	for (uint64_t i = 1; i <= 4; i++) {
		file_name(i, name);
		CHECK_EQ(access(name, F_OK) == 0, i >= 3);
	}
}

/* Several blocks and runs of everything. */
TEST(test_checkpoint__many_of_each)
{
	const struct emdb_create what = { .mode = S_IFREG | 0600 };
	uint64_t rnd = test_seed(), ns = EMDB_ROOT, id;
	struct emdb_attr attr;
	char key[32];
	emdb_db *db;

	db = store_new(test_dir());
	for (unsigned int i = 0; i < 60000 / SLOW; i++) {
		const size_t n = (size_t)snprintf(key, sizeof(key), "key%u", i);

		CHECK_OK(emdb_put(db, EMDB_ROOT, key, n, key, n,
				  i % 2 ? EMDB_TTL_NEVER : INT64_C(4102444800000) + i));
	}
	for (unsigned int i = 0; i < 3000 / SLOW; i++) {
		const size_t n = (size_t)snprintf(key, sizeof(key), "dir%u", i);

		CHECK_OK(emdb_ns_create(db, i % 5 ? ns : EMDB_ROOT, key, n, &id));
		ns = i % 7 ? ns : id;
		CHECK_OK(emdb_put(db, id, "k", 1, "v", 1, EMDB_TTL_NEVER));
	}
	CHECK_OK(emdb_node_create(db, ns, "object", 6, &what, &attr));
	for (unsigned int i = 0; i < 12000 / SLOW; i++)
		CHECK_OK(emdb_node_write(db, attr.id, test_rand(&rnd) % (1u << 26), bulk, 100, 0));
	emdb_node_forget(db, attr.id, 1);
	CHECK_OK(emdb_checkpoint(db));
	mutex_lock(&db->ckpt.lock); /* the thread may look */
	db->ckpt.bytes = UINT64_MAX;
	mutex_unlock(&db->ckpt.lock);
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "key1", 4, NULL, NULL));
	CHECK_OK(emdb_close(db));
	check_ways(&rnd);
}

/* Nobody asks for it, but a lot was written. */
TEST(test_checkpoint__comes_by_itself)
{
	emdb_db *const db = store_new(test_dir());
	struct journal_checkpoint c = { .number = 0 };

	for (unsigned int i = 0; i < 260; i++)
		CHECK_OK(emdb_put(db, EMDB_ROOT, &i, sizeof(i), bulk, 256u << 10, EMDB_TTL_NEVER));
	for (unsigned int i = 0; i < 200 && !c.number; i++) {
		usleep(50000);
		journal_checkpoint_get(db->j, &c);
	}
	CHECK_UEQ(c.number, 1);
	CHECK_OK(emdb_close(db));
}

TEST(test_checkpoint__read_only_and_memory)
{
	emdb_db *db = store_new(test_dir());

	CHECK_OK(emdb_close(db));
	db = store_open(EMDB_OPEN_READ_ONLY);
	CHECK_EQ(emdb_checkpoint(db), EMDB_ERR_READ_ONLY);
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_open_memory(NULL, &db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, EMDB_TTL_NEVER));
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_close(db));
}

/* ---- Failures ---- */

static _Atomic(uint64_t) allocs;
static uint64_t alloc_fails;
static _Atomic(bool) alloc_hit;

static bool alloc_fail(void)
{
	if (atomic_fetch_add(&allocs, 1) + 1 != alloc_fails)
		return false;
	alloc_hit = true;
	return true;
}

static void *try_malloc(size_t n)
{
	return alloc_fail() ? NULL : malloc(n);
}

static void *try_calloc(size_t count, size_t n)
{
	return alloc_fail() ? NULL : calloc(count, n);
}

static void *try_realloc(void *p, size_t n)
{
	return alloc_fail() ? NULL : realloc(p, n);
}

static const struct base_allocator trying = { try_malloc, try_calloc, try_realloc, free };

TEST(test_checkpoint__without_memory)
{
	emdb_db *db = store_new(test_dir());
	char *want, *text;
	unsigned int failed = 0;

	small_store(db);
	CHECK_OK(emdb_flush(db));
	base_set_allocator(&trying);
	for (uint64_t i = 1;; i++) {
		emdb_err err;

		allocs = 0;
		alloc_hit = false;
		alloc_fails = i;
		err = emdb_checkpoint(db);
		alloc_fails = 0;
		if (!alloc_hit)
			break;
		CHECK(err == EMDB_OK || err == EMDB_ERR_NOMEM);
		failed += err != EMDB_OK;
	}
	CHECK(failed > 3);
	db->ckpt.bytes = UINT64_MAX;
	CHECK_OK(emdb_close(db));
	want = dump(true);
	failed = 0;
	for (uint64_t i = 1;; i++) {
		emdb_err err;

		allocs = 0;
		alloc_hit = false;
		alloc_fails = i;
		err = store_try(EMDB_OPEN_READ_ONLY, &db);
		alloc_fails = 0;
		if (!err)
			CHECK_OK(emdb_close(db));
		if (!alloc_hit)
			break;
		CHECK(err == EMDB_OK || err == EMDB_ERR_NOMEM);
		failed += err != EMDB_OK;
	}
	CHECK(failed > 20);
	base_set_allocator(NULL);
	text = dump(true);
	same(want, text, "after failures");
	free(text);
	free(want);
}

/* Any call for the file fails: no checkpoint, and the store goes on. */
TEST(test_checkpoint__io_errors)
{
	static const int errors[] = { -EIO, -ENOSPC };
	emdb_db *db = store_new(test_dir());
	struct emdb_io *const inner = db->io, *const io = emdb_io_fault_new(inner);
	char *want, *text;

	CHECK(io);
	small_store(db);
	/* The backend is changed under the store: nobody else may look. */
	compact_stop(db);
	expire_stop(db);
	checkpoint_stop(db);
	for (unsigned int e = 0; e < 2; e++) {
		for (uint64_t i = 1;; i++) {
			const struct io_fault plan = { .mask = IO_MASK_ALL & ~IO_MASK(IO_OP_CLOSE),
						       .nth = i,
						       .err = errors[e],
						       .cut = true };
			struct journal_checkpoint before, after;
			uint64_t hits;
			emdb_err err;

			journal_checkpoint_get(db->j, &before);
			emdb_io_fault_set(io, &plan);
			db->io = io;
			err = emdb_checkpoint(db);
			db->io = inner;
			hits = emdb_io_fault_hits(io);
			journal_checkpoint_get(db->j, &after);
			CHECK_UEQ(after.number, before.number + !err);
			if (!hits)
				break;
			CHECK(err == EMDB_OK || err == EMDB_ERR_IO || err == EMDB_ERR_NO_SPACE);
			CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, &i, sizeof(i), EMDB_TTL_NEVER));
		}
	}
	CHECK_OK(emdb_close(db));
	emdb_io_free(io);
	want = dump(true);
	warnings = 0;
	text = dump(true);
	CHECK_UEQ(warnings, 0);
	same(want, text, "again");
	free(text);
	free(want);
}

/* ---- The queue's snapshot ---- */

TEST(test_checkpoint__queue_snapshot)
{
	uint64_t rnd = test_seed(), sum = 0, got = 0;
	struct ttl_heap h;
	struct ttl_snap s;
	struct ttl_item item, out[100];
	size_t n, at = 0;

	ttl_heap_init(&h);
	for (unsigned int i = 0; i < 20000; i++) {
		item = (struct ttl_item){ 1 + (int64_t)(test_rand(&rnd) % 1000000), i, 0 };
		sum += (uint64_t)item.expires_ms * (i + 1);
		CHECK_OK(ttl_heap_push(&h, &item));
	}
	CHECK_OK(ttl_heap_snap(&h, &s));
	do {
		CHECK_OK(ttl_snap_read(&s, at, out, ARRAY_SIZE(out), &n));
		for (size_t i = 0; i < n; i++)
			got += (uint64_t)out[i].expires_ms * (out[i].ns + 1);
		at += n;
		for (unsigned int i = 0; i < 120 && at < 15000; i++)
			CHECK(ttl_heap_pop(&h, &item));
		for (unsigned int i = 0; i < 10; i++) {
			item = (struct ttl_item){ 1 + (int64_t)(test_rand(&rnd) % 1000000), i, 0 };
			CHECK_OK(ttl_heap_push(&h, &item));
		}
	} while (n);
	CHECK_UEQ(at, 20000);
	CHECK_UEQ(got, sum);
	ttl_heap_unsnap(&h, &s);
	CHECK(ttl_heap_check(&h));
	/* Without memory for a copy the snapshot is broken, the queue goes on. */
	CHECK_OK(ttl_heap_snap(&h, &s));
	base_set_allocator(&trying);
	allocs = 0;
	alloc_fails = 1;
	CHECK(ttl_heap_pop(&h, &item));
	alloc_fails = 0;
	base_set_allocator(NULL);
	CHECK_EQ(ttl_snap_read(&s, 0, out, 1, &n), -ENOMEM);
	ttl_heap_unsnap(&h, &s);
	CHECK(ttl_heap_check(&h));
	ttl_heap_release(&h);
}

/* ---- An image of what is not whole ---- */

static emdb_db *failing;

/* As an operation does that runs out of memory behind its frame, while an image is written. */
static void *failing_calloc(size_t count, size_t size)
{
	if (failing && size == sizeof(struct journal_seg_info))
		(void)db_fail(failing, EMDB_ERR_NOMEM);
	return calloc(count, size);
}

TEST(test_checkpoint__none_of_a_state_that_is_half_applied)
{
	static const struct base_allocator table = { malloc, failing_calloc, realloc, free };
	struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	struct journal_checkpoint before, after;
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(test_dir(), &o, &db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "a", 1, "1", 1, 0));
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "b", 1, "2", 1, 0));
	journal_checkpoint_get(db->j, &before);
	base_set_allocator(&table);
	failing = db;
	CHECK_EQ(emdb_checkpoint(db), EMDB_ERR_FAILED);
	failing = NULL;
	base_set_allocator(NULL);
	journal_checkpoint_get(db->j, &after);
	CHECK_UEQ(after.number, before.number);
	CHECK_EQ(emdb_put(db, EMDB_ROOT, "c", 1, "3", 1, 0), EMDB_ERR_FAILED);
	(void)emdb_close(db);
}

TEST_MAIN()
