/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that change the same few names and objects in every way, while checkpoints are written,
 * segments compacted and entries expire. What memory says afterwards is what a store says that was
 * opened from its checkpoint, and one that had to replay everything: memory and journal agree on
 * who won. RACE_MS says how long a round takes, SEED how.
 */
#include "tests/unit/test.h"

#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "core/emdb.h"

#define THREADS 4
#define KEYS    5
#define SPACES  3
#define BIG     20000u

static emdb_db *db;
static uint64_t spaces[SPACES];
static _Atomic(bool) stop;
static _Atomic(uint64_t) performed;

/* ---- Work ---- */

/* What another thread may have brought about in between; anything else is a fault. */
static void harmless(emdb_err err, const char *what)
{
	switch ((int)err) {
	case EMDB_OK:
	case EMDB_ERR_NOT_FOUND:
	case EMDB_ERR_EXISTS:
	case EMDB_ERR_IS_NS:
	case EMDB_ERR_NOT_NS:
	case EMDB_ERR_NOT_EMPTY:
	case EMDB_ERR_LOOP:
	case EMDB_ERR_NO_XATTR:
		return;
	default:
		FAIL("%s: %s", what, emdb_err_name(err));
	}
}

struct pick {
	uint64_t ns;
	char key[8];
	size_t len;
};

static struct pick pick(uint64_t *rnd)
{
	struct pick p = { .ns = spaces[test_rand(rnd) % SPACES] };

	p.len = (size_t)snprintf(p.key, sizeof(p.key), "k%d", (int)(test_rand(rnd) % KEYS));
	return p;
}

static int64_t deadline(uint64_t *rnd)
{
	return test_rand(rnd) % 8 ? EMDB_TTL_NEVER
				  : emdb_now_ms(db) + 1 + (int64_t)(test_rand(rnd) % 30);
}

static void by_name(uint64_t *rnd, const uint8_t *bytes)
{
	const struct pick a = pick(rnd), b = pick(rnd);
	const size_t n = test_rand(rnd) % (test_rand(rnd) % 8 ? 300 : BIG);
	const struct emdb_item items[2] = {
		{ .key = a.key, .key_len = a.len, .value = bytes, .value_len = n % 5000 },
		{ .key = b.key, .key_len = b.len, .remove = true },
	};

	switch (test_rand(rnd) % 9) {
	case 0:
	case 1:
	case 2:
		harmless(emdb_put(db, a.ns, a.key, a.len, bytes, n, deadline(rnd)), "put");
		break;
	case 3:
		harmless(emdb_remove(db, a.ns, a.key, a.len, NULL, NULL), "remove");
		break;
	case 4:
		harmless(emdb_put_many(db, a.ns, items, 2), "put_many");
		break;
	case 5:
		harmless(emdb_node_rename(db, a.ns, a.key, a.len, b.ns, b.key, b.len,
					  test_rand(rnd) % 3 ? 0 : EMDB_RENAME_EXCHANGE),
			 "rename");
		break;
	case 6:
		harmless(emdb_node_unlink(db, a.ns, a.key, a.len, NULL), "unlink");
		break;
	case 7:
		harmless(emdb_ttl_set(db, a.ns, a.key, a.len, deadline(rnd)), "ttl_set");
		break;
	default:
		if (test_rand(rnd) % 8 == 0)
			harmless(emdb_clear(db, a.ns), "clear");
	}
}

static void namespaces(uint64_t *rnd)
{
	const struct pick a = pick(rnd);
	uint64_t id;

	switch (test_rand(rnd) % 4) {
	case 0:
	case 1:
		harmless(emdb_ns_create(db, a.ns, a.key, a.len, &id), "ns_create");
		break;
	case 2:
		harmless(emdb_ns_drop(db, a.ns, a.key, a.len, test_rand(rnd) % 2), "ns_drop");
		break;
	default:
		if (emdb_ns_open(db, a.ns, a.key, a.len, &id) == EMDB_OK)
			harmless(emdb_put(db, id, "inside", 6, "x", 1, deadline(rnd)), "put");
	}
}

static void change(uint64_t *rnd, uint64_t id, const uint8_t *bytes)
{
	const uint64_t off = test_rand(rnd) % BIG;
	const size_t n = 1 + test_rand(rnd) % 9000;
	const struct pick b = pick(rnd);
	const struct emdb_attr set = { .mode = (uint32_t)(test_rand(rnd) % 512),
				       .size = test_rand(rnd) % 2 ? 0 : off };
	struct emdb_attr a;
	uint64_t done;

	switch (test_rand(rnd) % 9) {
	case 0:
	case 1:
	case 2:
		harmless(emdb_node_write(db, id, off, bytes, n, 0), "write");
		break;
	case 3:
		harmless(emdb_node_setattr(db, id, &set, EMDB_SET_SIZE, &a), "truncate");
		break;
	case 4:
		harmless(emdb_node_setattr(db, id, &set, EMDB_SET_MODE, &a), "chmod");
		break;
	case 5:
		harmless(emdb_xattr_set(db, id, "user.x", bytes, n % 50, 0), "xattr_set");
		break;
	case 6:
		if (emdb_node_link(db, id, b.ns, b.key, b.len, &a) == EMDB_OK)
			emdb_node_forget(db, id, 1);
		break;
	case 7:
		harmless(emdb_node_fallocate(db, id, off, n, EMDB_FALLOC_PUNCH_HOLE), "punch");
		break;
	default:
		harmless(emdb_node_copy_range(db, id, 0, id, BIG + off, n, &done), "copy_range");
	}
}

static void by_id(uint64_t *rnd, const uint8_t *bytes)
{
	const struct pick a = pick(rnd);
	const struct emdb_create what = { .mode = S_IFREG | 0600 };
	struct emdb_attr attr;
	emdb_err err;

	if (test_rand(rnd) % 4)
		err = emdb_node_lookup(db, a.ns, a.key, a.len, &attr);
	else
		err = emdb_node_create(db, a.ns, a.key, a.len, &what, &attr);
	harmless(err, "lookup or create");
	if (err)
		return;
	for (int i = 0; !S_ISDIR(attr.mode) && i < 3; i++)
		change(rnd, attr.id, bytes);
	emdb_node_forget(db, attr.id, 1);
}

static void *worker(void *arg)
{
	uint64_t rnd = *(uint64_t *)arg;
	uint8_t *const bytes = calloc(1, BIG);

	CHECK(bytes);
	while (!atomic_load(&stop)) {
		for (size_t i = 0; i < BIG; i += 512)
			bytes[i] = (uint8_t)test_rand(&rnd);
		if (test_rand(&rnd) % 2)
			by_id(&rnd, bytes);
		else if (test_rand(&rnd) % 6)
			by_name(&rnd, bytes);
		else
			namespaces(&rnd);
		atomic_fetch_add(&performed, 1);
	}
	free(bytes);
	return NULL;
}

/* What goes on beside: nobody may notice. */
static void *background(void *arg)
{
	uint64_t rnd = *(uint64_t *)arg;

	while (!atomic_load(&stop)) {
		uint64_t count;

		switch (test_rand(&rnd) % 4) {
		case 0:
			CHECK_OK(emdb_checkpoint(db));
			break;
		case 1:
			CHECK_OK(emdb_compact(db, NULL, NULL));
			break;
		case 2:
			CHECK_OK(emdb_flush(db));
			break;
		default:
			CHECK_OK(emdb_count(db, spaces[0], &count));
		}
		nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
	}
	return NULL;
}

/* ---- What there is ---- */

struct dump {
	char **lines;
	size_t count;
	uint64_t dirs[64]; /* to be looked into */
	size_t ndirs;
};

static uint64_t hash_bytes(const uint8_t *p, size_t n)
{
	uint64_t h = 14695981039346656037U;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 1099511628211U;
	return h;
}

static bool dump_entry(void *ctx, const void *key, size_t n, const struct emdb_attr *a,
		       uint64_t next)
{
	struct dump *const d = ctx;
	char *line;

	(void)next;
	CHECK(a);
	/* An entry with a deadline may be gone at the next look. */
	if (a->expires_ms)
		return true;
	CHECK(asprintf(&line, "%.*s id %ju parent %ju size %ju mode %o nlink %u m %jd c %jd b %jd",
		       (int)n, (const char *)key, (uintmax_t)a->id, (uintmax_t)a->parent,
		       S_ISDIR(a->mode) ? (uintmax_t)0 : (uintmax_t)a->size, a->mode, a->nlink,
		       S_ISDIR(a->mode) ? (intmax_t)0 : (intmax_t)a->mtime_ns,
		       S_ISDIR(a->mode) ? (intmax_t)0 : (intmax_t)a->ctime_ns,
		       (intmax_t)a->btime_ns) > 0);
	d->lines = realloc(d->lines, (d->count + 1) * sizeof(*d->lines));
	CHECK(d->lines);
	d->lines[d->count++] = line;
	if (S_ISDIR(a->mode)) {
		CHECK(d->ndirs < sizeof(d->dirs) / sizeof(d->dirs[0]));
		d->dirs[d->ndirs++] = a->id;
	}
	return true;
}

/* The content and the attribute of what a line is about, added to it. */
static void dump_content(uint64_t ns, char **line)
{
	static uint8_t buf[4 * BIG];
	const size_t key_len = strcspn(*line, " ");
	struct emdb_attr a;
	size_t n = 0, xn = 0;
	char x[64] = "";
	char *more;

	CHECK_OK(emdb_node_lookup(db, ns, *line, key_len, &a));
	if (!S_ISDIR(a.mode)) {
		CHECK_OK(emdb_node_read(db, a.id, 0, buf, sizeof(buf), &n));
		CHECK_UEQ(n, a.size);
		if (emdb_xattr_get(db, a.id, "user.x", x, sizeof(x), &xn))
			xn = 0;
	}
	emdb_node_forget(db, a.id, 1);
	CHECK(asprintf(&more, "%ju/%s data %jx xattr %jx", (uintmax_t)ns, *line,
		       (uintmax_t)hash_bytes(buf, n), (uintmax_t)hash_bytes((uint8_t *)x, xn)) > 0);
	free(*line);
	*line = more;
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct dump dump_all(void)
{
	struct dump d = { .dirs = { EMDB_ROOT }, .ndirs = 1 };

	for (size_t i = 0; i < d.ndirs; i++) {
		const size_t from = d.count;

		CHECK_OK(emdb_node_readdir(db, d.dirs[i], 0, 0, dump_entry, &d));
		for (size_t k = from; k < d.count; k++)
			dump_content(d.dirs[i], &d.lines[k]);
	}
	qsort(d.lines, d.count, sizeof(*d.lines), compare_lines);
	return d;
}

static void dump_release(struct dump *d)
{
	for (size_t i = 0; i < d->count; i++)
		free(d->lines[i]);
	free(d->lines);
}

static void check_same(const struct dump *a, const char *when)
{
	struct dump b = dump_all();

	for (size_t i = 0; i < a->count || i < b.count; i++) {
		const char *const was = i < a->count ? a->lines[i] : "nothing";
		const char *const is = i < b.count ? b.lines[i] : "nothing";

		if (strcmp(was, is) != 0)
			FAIL("%s:\n  was %s\n  is  %s", when, was, is);
	}
	dump_release(&b);
}

/* ---- Rounds ---- */

static void store_open(const char *path)
{
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_CREATE,
					   .segment_bytes = EMDB_SEGMENT_MIN,
					   .commit_interval_s = -1,
					   .compact_percent = 20,
					   .compact_wait_bytes = 1,
					   .sweep_interval_ms = 1 };

	CHECK_OK(emdb_open(path, &opts, &db));
}

static void drop_checkpoints(const char *path)
{
	char pattern[PATH_MAX + 32];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/checkpoint-*", path);
	CHECK_OK(glob(pattern, 0, NULL, &g));
	for (size_t i = 0; i < g.gl_pathc; i++)
		CHECK_OK(unlink(g.gl_pathv[i]));
	globfree(&g);
}

static void make_spaces(void)
{
	for (int i = 0; i < SPACES; i++) {
		const char name[] = { 'n', (char)('0' + i), 0 };

		if (emdb_ns_open(db, EMDB_ROOT, name, 2, &spaces[i]))
			CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, 2, &spaces[i]));
	}
}

static void run(uint64_t *rnd, unsigned int ms)
{
	const struct timespec some = { ms / 1000, (long)(ms % 1000) * 1000000 };
	pthread_t t[THREADS + 1];
	uint64_t seeds[THREADS + 1];

	atomic_store(&stop, false);
	for (int i = 0; i <= THREADS; i++) {
		seeds[i] = test_rand(rnd);
		CHECK_OK(pthread_create(&t[i], NULL, i ? worker : background, &seeds[i]));
	}
	nanosleep(&some, NULL);
	atomic_store(&stop, true);
	for (int i = 0; i <= THREADS; i++)
		CHECK_OK(pthread_join(t[i], NULL));
}

TEST(test_race__memory_and_journal_agree)
{
	const char *const env = getenv("RACE_MS");
	const unsigned int ms = env ? (unsigned int)strtoul(env, NULL, 0) : 150;
	uint64_t rnd = test_seed();
	char path[PATH_MAX + 8];

	snprintf(path, sizeof(path), "%s/store", test_dir());
	for (int round = 0; round < 8; round++) {
		struct emdb_check_report report;
		struct dump d;

		store_open(path);
		make_spaces();
		run(&rnd, ms);
		d = dump_all();
		check_same(&d, "looked at twice");
		CHECK_OK(emdb_close(db));
		store_open(path);
		check_same(&d, "opened from the checkpoint");
		CHECK_OK(emdb_close(db));
		drop_checkpoints(path);
		store_open(path);
		check_same(&d, "everything replayed");
		CHECK_OK(emdb_close(db));
		CHECK_OK(emdb_check(path, NULL, NULL, &report));
		dump_release(&d);
	}
	printf("%" PRIu64 " operations\n", (uint64_t)performed);
}

TEST_MAIN()
