/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges: bounds, paging, errors; against a model under everything that changes names; beside writers. */
#include "tests/unit/test.h"

#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/emdb.h"

static emdb_db *db;

static void open_store(const char *path, unsigned int flags)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE | flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1 };

	if (path)
		CHECK_OK(emdb_open(path, &o, &db));
	else
		CHECK_OK(emdb_open_memory(&o, &db));
}

static void put(uint64_t ns, const char *key, const char *value)
{
	CHECK_OK(emdb_put(db, ns, key, strlen(key), value, strlen(value), EMDB_TTL_NEVER));
}

/* The keys of a range with a space after each; those of namespaces with a slash. */
static const char *keys_of(uint64_t ns, struct emdb_range r)
{
	static char text[4096];
	struct emdb_entry e;
	emdb_iter *it;
	emdb_err err;

	r.size = sizeof(r);
	text[0] = 0;
	CHECK_OK(emdb_range_new(db, ns, &r, &it));
	while (!(err = emdb_iter_next(it, &e)))
		sprintf(text + strlen(text), "%.*s%s ", (int)e.key_len, (const char *)e.key,
			e.is_ns ? "/" : "");
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	return text;
}

#define RANGE(...) keys_of(EMDB_ROOT, (struct emdb_range){ __VA_ARGS__ })
#define FROM(s)    .from = (s), .from_len = strlen(s)
#define AFTER(s)   .after = (s), .after_len = strlen(s)
#define TO(s)      .to = (s), .to_len = strlen(s)
#define PREFIX(s)  .prefix = (s), .prefix_len = strlen(s)
#define REV        .flags = EMDB_RANGE_REVERSE

TEST(test_range__bounds_and_directions)
{
	uint64_t ns;

	open_store(NULL, EMDB_OPEN_ORDERED);
	CHECK_STR(RANGE(0), "");
	for (const char *k = "hgfedcba"; *k; k++)
		put(EMDB_ROOT, (char[]){ *k, 0 }, "v");
	put(EMDB_ROOT, "c1", "");
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "d2", 2, &ns));
	CHECK_STR(RANGE(0), "a b c c1 d d2/ e f g h ");
	CHECK_STR(RANGE(REV), "h g f e d2/ d c1 c b a ");
	CHECK_STR(RANGE(.flags = EMDB_ITER_KEYS), "a b c c1 d e f g h ");
	CHECK_STR(RANGE(.flags = EMDB_ITER_NS), "d2/ ");
	CHECK_STR(RANGE(FROM("c"), TO("e")), "c c1 d d2/ ");
	CHECK_STR(RANGE(FROM("c"), TO("e"), .flags = EMDB_RANGE_TO_INCLUSIVE), "c c1 d d2/ e ");
	CHECK_STR(RANGE(FROM("c0"), TO("d0")), "c1 d ");
	CHECK_STR(RANGE(AFTER("c"), .limit = 2), "c1 d ");
	CHECK_STR(RANGE(FROM("d"), TO("b"), REV), "d c1 c ");
	CHECK_STR(RANGE(FROM("d"), TO("b"), .flags = EMDB_RANGE_REVERSE | EMDB_RANGE_TO_INCLUSIVE),
		  "d c1 c b ");
	CHECK_STR(RANGE(AFTER("d"), REV, .limit = 3), "c1 c b ");
	CHECK_STR(RANGE(PREFIX("c")), "c c1 ");
	CHECK_STR(RANGE(PREFIX("c"), REV), "c1 c ");
	CHECK_STR(RANGE(PREFIX("c"), AFTER("c")), "c1 ");
	CHECK_STR(RANGE(PREFIX("c"), AFTER("c1"), REV), "c ");
	CHECK_STR(RANGE(PREFIX("x")), "");
	CHECK_STR(RANGE(FROM("e"), TO("c")), "");
	CHECK_STR(RANGE(FROM("c"), TO("c")), "");
	CHECK_STR(RANGE(FROM("c"), TO("c"), .flags = EMDB_RANGE_TO_INCLUSIVE), "c ");
	/* Both apply. */
	CHECK_STR(RANGE(FROM("b"), AFTER("f")), "g h ");
	CHECK_STR(RANGE(FROM("g"), AFTER("b")), "g h ");
	CHECK_OK(emdb_close(db));
}

TEST(test_range__any_bytes)
{
	static const struct {
		const char *p;
		size_t n;
	} keys[] = { { "", 0 },         { "\0", 1 },        { "\0\0", 2 }, { "\0\xff", 2 },
		     { "a", 1 },        { "\xfe\xff", 2 },  { "\xff", 1 }, { "\xff\xfe", 2 },
		     { "\xff\xff", 2 }, { "\xff\xff\0", 3 } };
	const size_t n = sizeof(keys) / sizeof(keys[0]);
	static const struct {
		const char *p;
		size_t n, first, end;
	} prefixes[] = { { "", 0, 0, 10 },        { "\0", 1, 1, 4 },       { "\0\xff", 2, 3, 4 },
			 { "\xfe", 1, 5, 6 },     { "\xfe\xff", 2, 5, 6 }, { "\xff", 1, 6, 10 },
			 { "\xff\xff", 2, 8, 10 } };
	struct emdb_range r = { .size = sizeof(r) };
	struct emdb_entry e;
	emdb_iter *it;

	open_store(NULL, EMDB_OPEN_ORDERED);
	for (size_t i = n; i-- > 0;)
		CHECK_OK(emdb_put(db, EMDB_ROOT, keys[i].p, keys[i].n, keys[i].p, keys[i].n, 0));
	for (size_t p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++) {
		for (int reverse = 0; reverse < 2; reverse++) {
			r.flags = EMDB_ITER_VALUES | (reverse ? EMDB_RANGE_REVERSE : 0);
			r.prefix = prefixes[p].p;
			r.prefix_len = prefixes[p].n;
			CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
			for (size_t k = prefixes[p].first; k < prefixes[p].end; k++) {
				const size_t i =
					reverse ? prefixes[p].end - 1 - (k - prefixes[p].first) : k;

				CHECK_OK(emdb_iter_next(it, &e));
				CHECK_MEM(e.key, e.key_len, keys[i].p, keys[i].n);
				CHECK_MEM(e.value, e.value_len, keys[i].p, keys[i].n);
				CHECK(e.key && e.value);
			}
			CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
			emdb_iter_free(it);
		}
	}
	/* The empty key is a bound like others. */
	r = (struct emdb_range){ .size = sizeof(r), .after = "", .to = "\0\0", .to_len = 2 };
	CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK_MEM(e.key, e.key_len, "\0", 1);
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	r = (struct emdb_range){ .size = sizeof(r), .to = "" };
	CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	CHECK_OK(emdb_close(db));
}

TEST(test_range__pages_join_up)
{
	char last[32] = "", key[32];
	size_t last_len = 0, seen = 0, pages = 0;

	open_store(NULL, EMDB_OPEN_ORDERED);
	for (int i = 0; i < 1000; i++)
		put(EMDB_ROOT, (sprintf(key, "%04d", i * 7919 % 1000), key), "v");
	for (;;) {
		const struct emdb_range r = { .size = sizeof(r),
					      .after = seen ? last : NULL,
					      .after_len = last_len,
					      .limit = 37 };
		struct emdb_entry e;
		emdb_iter *it;
		size_t n = 0;

		CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
		while (emdb_iter_next(it, &e) == EMDB_OK) {
			sprintf(key, "%04zu", seen++);
			CHECK_MEM(e.key, e.key_len, key, 4);
			memcpy(last, e.key, e.key_len);
			last_len = e.key_len;
			n++;
		}
		emdb_iter_free(it);
		pages++;
		if (n < 37)
			break;
	}
	CHECK_UEQ(seen, 1000);
	CHECK_UEQ(pages, 1000 / 37 + 1);
	CHECK_OK(emdb_close(db));
}

/* Pages of 7 over numbers, with changes in between: what a page shows is what is there when it is read. */
static void pages_beside_changes(bool reverse, uint64_t *rnd)
{
	enum { KEYS = 600 };
	static bool there[KEYS];
	char last[12] = "", key[12];
	int at = reverse ? KEYS : -1;
	size_t n = 7;

	for (int i = 0; i < KEYS; i++) {
		there[i] = i % 2;
		if (there[i])
			put(EMDB_ROOT, (sprintf(key, "%04d", i), key), "v");
	}
	while (n == 7) {
		const struct emdb_range r = { .size = sizeof(r),
					      .flags = reverse ? EMDB_RANGE_REVERSE : 0,
					      .after = *last ? last : NULL,
					      .after_len = 4,
					      .limit = 7 };
		struct emdb_entry e;
		emdb_iter *it;

		CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
		for (n = 0; emdb_iter_next(it, &e) == EMDB_OK; n++) {
			do
				at += reverse ? -1 : 1;
			while (at >= 0 && at < KEYS && !there[at]);
			sprintf(key, "%04d", at);
			CHECK_MEM(e.key, e.key_len, key, 4);
			memcpy(last, e.key, 4);
		}
		emdb_iter_free(it);
		/* The key that the next page goes on from among them, every other time. */
		for (int i = 0; i < 40; i++) {
			const int k = i == 0 && test_rand(rnd) % 2 && n
					      ? at
					      : (int)(test_rand(rnd) % KEYS);

			sprintf(key, "%04d", k);
			if (there[k])
				CHECK_OK(emdb_remove(db, EMDB_ROOT, key, 4, NULL, NULL));
			else
				put(EMDB_ROOT, key, "v");
			there[k] = !there[k];
		}
	}
}

TEST(test_range__pages_beside_insertion_and_removal)
{
	uint64_t rnd = test_seed();

	for (int i = 0; i < 10; i++) {
		open_store(NULL, EMDB_OPEN_ORDERED);
		pages_beside_changes(i % 2, &rnd);
		CHECK_OK(emdb_close(db));
	}
}

TEST(test_range__errors)
{
	struct emdb_range r = { .size = sizeof(r) };
	static char key[EMDB_KEY_MAX + 1];
	emdb_iter *it = NULL;

	open_store(NULL, 0);
	CHECK_EQ(emdb_range_new(db, EMDB_ROOT, &r, &it), EMDB_ERR_NOT_ORDERED);
	CHECK_EQ(emdb_range_new(db, EMDB_ROOT, NULL, &it), EMDB_ERR_NOT_ORDERED);
	CHECK_OK(emdb_close(db));
	open_store(NULL, EMDB_OPEN_ORDERED);
	CHECK_EQ(emdb_range_new(db, 12345, &r, &it), EMDB_ERR_NOT_FOUND);
	r.flags = 0x8000;
	CHECK_EQ(emdb_range_new(db, EMDB_ROOT, &r, &it), EMDB_ERR_INVAL);
	r.flags = 0;
	r.size--;
	CHECK_EQ(emdb_range_new(db, EMDB_ROOT, &r, &it), EMDB_ERR_INVAL);
	r.size++;
	r.from = key;
	r.from_len = sizeof(key);
	CHECK_EQ(emdb_range_new(db, EMDB_ROOT, &r, &it), EMDB_ERR_KEY_TOO_LONG);
	CHECK(it == NULL);
	r.from_len--;
	CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
	emdb_iter_free(it);
	CHECK_OK(emdb_close(db));
}

TEST(test_range__expired_and_long_values)
{
	static char big[3 << 20];
	const struct emdb_range r = { .size = sizeof(r), .flags = EMDB_ITER_VALUES };
	struct emdb_entry e;
	emdb_iter *it;
	uint64_t id;

	open_store(NULL, EMDB_OPEN_ORDERED);
	memset(big, 'x', sizeof(big));
	put(EMDB_ROOT, "a", "1");
	CHECK_OK(emdb_put(db, EMDB_ROOT, "b", 1, "2", 1, emdb_now_ms(db) + 30));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "c", 1, big, sizeof(big), EMDB_TTL_NEVER));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "d", 1, big, sizeof(big), emdb_now_ms(db) + 30));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "e", 1, "", 0, emdb_now_ms(db) + 1000000));
	usleep(60000);
	CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK_MEM(e.value, e.value_len, "1", 1);
	CHECK_EQ(e.expires_ms, 0);
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK_MEM(e.key, e.key_len, "c", 1);
	CHECK_MEM(e.value, e.value_len, big, sizeof(big));
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK_MEM(e.key, e.key_len, "e", 1);
	CHECK(e.expires_ms > emdb_now_ms(db));
	/* A namespace that goes under the walk ends it. */
	emdb_iter_free(it);
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "ns", 2, &id));
	put(id, "k", "v");
	CHECK_OK(emdb_range_new(db, id, &r, &it));
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "ns", 2, true));
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	CHECK_OK(emdb_close(db));
}

/* ---- Against a model ---- */

#define SPACES 3
#define KEYS   400

struct state {
	enum { ABSENT, VALUE, SPACE } is;
	uint32_t value;
	int64_t expires; /* 0: never */
};

static uint64_t spaces[SPACES]; /* [0] is the root */
static struct state model[SPACES][KEYS];
static char names[KEYS][40];
static int order[KEYS]; /* of names */

static int by_name(const void *a, const void *b)
{
	return strcmp(names[*(const int *)a], names[*(const int *)b]);
}

static void make_names(void)
{
	for (int i = 0; i < KEYS; i++) {
		sprintf(names[i],
			i % 3 == 0   ? "n%d"
			: i % 3 == 1 ? "user/%04d/profile"
				     : "%x-and-so-on",
			i * 7919 % 4001);
		order[i] = i;
	}
	qsort(order, KEYS, sizeof(order[0]), by_name);
}

static void forget_expired(void)
{
	int64_t last = 0;

	for (int s = 0; s < SPACES; s++)
		for (int k = 0; k < KEYS; k++)
			if (model[s][k].is == VALUE && model[s][k].expires) {
				if (model[s][k].expires > last)
					last = model[s][k].expires;
				model[s][k].is = ABSENT;
			}
	while (emdb_now_ms(db) <= last)
		usleep(2000);
}

static void compare_space(int s, uint64_t *rnd)
{
	const bool reverse = test_rand(rnd) & 1;
	const int lo = (int)(test_rand(rnd) % KEYS), hi = lo + (int)(test_rand(rnd) % (KEYS - lo));
	const char *const first = names[order[reverse ? hi : lo]],
			  *const last = names[order[reverse ? lo : hi]];
	const struct emdb_range r = { .size = sizeof(r),
				      .flags = EMDB_ITER_VALUES | EMDB_RANGE_TO_INCLUSIVE |
					       (reverse ? EMDB_RANGE_REVERSE : 0),
				      .from = first,
				      .from_len = strlen(first),
				      .to = last,
				      .to_len = strlen(last) };
	struct emdb_entry e;
	emdb_iter *it;

	CHECK_OK(emdb_range_new(db, spaces[s], &r, &it));
	for (int i = lo; i <= hi; i++) {
		const int k = order[reverse ? hi - (i - lo) : i];
		const struct state *const m = &model[s][k];

		if (m->is == ABSENT)
			continue;
		CHECK_OK(emdb_iter_next(it, &e));
		CHECK_MEM(e.key, e.key_len, names[k], strlen(names[k]));
		CHECK_EQ(e.is_ns, m->is == SPACE);
		if (m->is == VALUE)
			CHECK_MEM(e.value, e.value_len, &m->value, sizeof(m->value));
	}
	/* The root has the spaces themselves, whose names lie behind all others. */
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
}

static void make_space(int s)
{
	char name[8];

	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, (size_t)sprintf(name, "z%d", s), &spaces[s]));
}

static void put_one(int s, int k, uint64_t *rnd)
{
	const uint32_t value = (uint32_t)test_rand(rnd);
	const int64_t expires = test_rand(rnd) % 6 ? 0 : emdb_now_ms(db) + 20;
	const emdb_err err = emdb_put(db, spaces[s], names[k], strlen(names[k]), &value,
				      sizeof(value), expires ? expires : EMDB_TTL_NEVER);

	if (model[s][k].is == SPACE) {
		CHECK_EQ(err, EMDB_ERR_IS_NS);
		return;
	}
	CHECK_OK(err);
	model[s][k] = (struct state){ VALUE, value, expires };
}

static void put_some(int s, uint64_t *rnd)
{
	struct emdb_item items[50];
	uint32_t values[50];

	for (int i = 0; i < 50; i++) {
		const int k = (int)(test_rand(rnd) % KEYS);

		/* A namespace's name would make all of it fail. */
		if (model[s][k].is == SPACE) {
			i--;
			continue;
		}
		values[i] = (uint32_t)test_rand(rnd);
		items[i] = (struct emdb_item){ .key = names[k],
					       .key_len = strlen(names[k]),
					       .value = &values[i],
					       .value_len = sizeof(values[i]),
					       .remove = test_rand(rnd) % 3 == 0 };
		model[s][k] = (struct state){ items[i].remove ? ABSENT : VALUE, values[i], 0 };
	}
	CHECK_OK(emdb_put_many(db, spaces[s], items, 50));
}

static void rename_one(int s, int t, int k, int l, uint64_t *rnd)
{
	const bool exchange = test_rand(rnd) % 4 == 0;
	const struct state a = model[s][k], b = model[t][l];
	const emdb_err err = emdb_node_rename(
		db, spaces[s], names[k], strlen(names[k]), spaces[t], names[l], strlen(names[l]),
		EMDB_RENAME_TTL_SOURCE | (exchange ? EMDB_RENAME_EXCHANGE : 0));

	if (a.is == ABSENT || (exchange && b.is == ABSENT)) {
		CHECK(err);
		return;
	}
	if (err) {
		/* One onto the other kind. */
		CHECK(a.is != b.is && b.is != ABSENT && !exchange);
		return;
	}
	if (s == t && k == l)
		return;
	model[s][k] = exchange ? b : (struct state){ .is = ABSENT };
	model[t][l] = a;
}

static void make_or_drop(int s, int k)
{
	uint64_t id;

	if (model[s][k].is == ABSENT) {
		CHECK_OK(emdb_ns_create(db, spaces[s], names[k], strlen(names[k]), &id));
		model[s][k] = (struct state){ .is = SPACE };
	} else if (model[s][k].is == SPACE) {
		CHECK_OK(emdb_ns_drop(db, spaces[s], names[k], strlen(names[k]), true));
		model[s][k].is = ABSENT;
	}
}

static void empty_space(int s, bool drop)
{
	char name[8];

	if (!s)
		return;
	memset(model[s], 0, sizeof(model[s]));
	if (!drop) {
		CHECK_OK(emdb_clear(db, spaces[s]));
		return;
	}
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, name, (size_t)sprintf(name, "z%d", s), true));
	make_space(s);
}

static void step(uint64_t *rnd)
{
	const int s = (int)(test_rand(rnd) % SPACES), t = (int)(test_rand(rnd) % SPACES);
	const int k = (int)(test_rand(rnd) % KEYS), l = (int)(test_rand(rnd) % KEYS);
	const uint64_t what = test_rand(rnd) % 200;
	uint64_t swept;

	if (what < 90) {
		put_one(s, k, rnd);
	} else if (what < 130) {
		(void)!emdb_remove(db, spaces[s], names[k], strlen(names[k]), NULL, NULL);
		if (model[s][k].is == VALUE)
			model[s][k].is = ABSENT;
	} else if (what < 170) {
		/* What has a deadline may be gone: only the rest has a certain outcome. */
		if (!model[s][k].expires && !model[t][l].expires)
			rename_one(s, t, k, l, rnd);
	} else if (what < 180) {
		put_some(s, rnd);
	} else if (what < 192) {
		make_or_drop(s, k);
	} else if (what < 195) {
		empty_space(s, what == 194);
	} else if (what == 195) {
		CHECK_OK(emdb_compact(db, NULL, NULL));
	} else if (what == 196) {
		CHECK_OK(emdb_sweep(db, &swept));
	} else {
		CHECK_OK(emdb_checkpoint(db));
	}
}

static void reopen(const char *path)
{
	CHECK_OK(emdb_close(db));
	open_store(path, EMDB_OPEN_ORDERED);
}

TEST(test_range__agrees_with_a_model)
{
	const char *const path = test_dir();
	uint64_t rnd = test_seed();
	const int rounds = getenv("EMDB_LONG") ? 400 : 12;

	make_names();
	memset(model, 0, sizeof(model));
	open_store(path, EMDB_OPEN_ORDERED);
	spaces[0] = EMDB_ROOT;
	for (int s = 1; s < SPACES; s++)
		make_space(s);
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < 150; i++)
			step(&rnd);
		forget_expired();
		if (round % 4 == 3)
			reopen(path);
		for (int i = 0; i < 6; i++)
			compare_space(i % SPACES, &rnd);
	}
	CHECK_OK(emdb_close(db));
}

/* ---- Damage ---- */

TEST(test_range__says_that_entries_are_damaged)
{
	const char *const path = test_dir();
	struct emdb_options o = { .size = sizeof(o),
				  .flags = EMDB_OPEN_ORDERED | EMDB_OPEN_READ_ONLY };
	char file[PATH_MAX + 64], key[16], block[8192];
	struct emdb_entry e;
	size_t n, seen = 0;
	emdb_iter *it;
	glob_t found;
	FILE *f;
	char *at;

	open_store(path, EMDB_OPEN_ORDERED);
	for (int i = 0; i < 50; i++)
		put(EMDB_ROOT, (sprintf(key, "key%02d", i), key), "some value");
	CHECK_OK(emdb_close(db)); /* with a checkpoint: opening does not read the records */
	sprintf(file, "%s/journal/*.seg", path);
	CHECK(glob(file, 0, NULL, &found) == 0 && found.gl_pathc == 1);
	f = fopen(found.gl_pathv[0], "r+b");
	globfree(&found);
	CHECK(f && (n = fread(block, 1, sizeof(block), f)) > 0);
	at = memmem(block, n, "key20", 5);
	CHECK(at);
	CHECK(fseek(f, at - block, SEEK_SET) == 0 && fputc('X', f) == 'X' && fclose(f) == 0);
	CHECK_OK(emdb_open(path, &o, &db));
	CHECK_OK(emdb_range_new(db, EMDB_ROOT, NULL, &it));
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_CORRUPT);
	while (emdb_iter_next(it, &e) == EMDB_OK) {
		sprintf(key, "key%02zu", seen + (seen >= 20));
		CHECK_MEM(e.key, e.key_len, key, 5);
		seen++;
	}
	CHECK_UEQ(seen, 49);
	emdb_iter_free(it);
	CHECK_OK(emdb_close(db));
}

/* ---- Beside writers ---- */

#define STABLE 300
#define CHURN  2000

static _Atomic(bool) stop;

static void *churn(void *arg)
{
	uint64_t rnd = (uintptr_t)arg;
	char key[32], other[32];

	while (!atomic_load(&stop)) {
		const size_t n =
			(size_t)sprintf(key, "%06u-c", (unsigned)(test_rand(&rnd) % CHURN * 37));
		const size_t m =
			(size_t)sprintf(other, "%06u-c", (unsigned)(test_rand(&rnd) % CHURN * 37));
		emdb_err err = EMDB_OK;

		switch (test_rand(&rnd) % 5) {
		case 0:
		case 1:
			CHECK_OK(emdb_put(db, EMDB_ROOT, key, n, key, n,
					  test_rand(&rnd) % 4 ? EMDB_TTL_NEVER
							      : emdb_now_ms(db) + 5));
			break;
		case 2:
			err = emdb_remove(db, EMDB_ROOT, key, n, NULL, NULL);
			break;
		case 3:
			err = emdb_node_rename(db, EMDB_ROOT, key, n, EMDB_ROOT, other, m, 0);
			break;
		default:
			/* A stable key again: its record moves, its place in order stays. */
			sprintf(key, "%06u-s", (unsigned)(test_rand(&rnd) % STABLE * 251));
			CHECK_OK(emdb_put(db, EMDB_ROOT, key, 8, key, 8, EMDB_TTL_NEVER));
		}
		CHECK(!err || err == EMDB_ERR_NOT_FOUND);
	}
	return NULL;
}

static void *compact(void *arg)
{
	while (!atomic_load(&stop)) {
		CHECK_OK(emdb_compact(db, NULL, NULL));
		usleep(20000);
	}
	return arg;
}

TEST(test_range__beside_writers)
{
	pthread_t threads[3];
	int64_t until;
	uint64_t rnd = test_seed();
	char key[32];

	open_store(test_dir(), EMDB_OPEN_ORDERED);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < STABLE; i++)
		CHECK_OK(emdb_put(db, EMDB_ROOT, key, (size_t)sprintf(key, "%06u-s", i * 251), key,
				  8, EMDB_TTL_NEVER));
	for (uintptr_t i = 0; i < 3; i++)
		CHECK_OK(pthread_create(&threads[i], NULL, i == 2 ? compact : churn,
					(void *)(i + rnd)));
	until = emdb_now_ms(db) + (getenv("EMDB_LONG") ? 20000 : 700);
	for (int round = 0; round < 4 || emdb_now_ms(db) < until; round++) {
		const bool reverse = round & 1;
		const struct emdb_range r = { .size = sizeof(r),
					      .flags = EMDB_ITER_VALUES |
						       (reverse ? EMDB_RANGE_REVERSE : 0) };
		char last[32] = "";
		size_t stable = 0;
		struct emdb_entry e;
		emdb_iter *it;
		emdb_err err;

		CHECK_OK(emdb_range_new(db, EMDB_ROOT, &r, &it));
		while (!(err = emdb_iter_next(it, &e))) {
			CHECK_UEQ(e.key_len, 8);
			CHECK_UEQ(e.value_len, 8);
			memcpy(key, e.key, 8);
			key[8] = 0;
			CHECK(!last[0] ||
			      (reverse ? strcmp(key, last) < 0 : strcmp(key, last) > 0));
			strcpy(last, key);
			if (key[7] == 's') {
				CHECK_MEM(e.value, e.value_len, key, 8);
				stable++;
			}
		}
		CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
		CHECK_UEQ(stable, STABLE);
		emdb_iter_free(it);
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < 3; i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
