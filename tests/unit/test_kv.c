/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, values, lifetimes and namespaces: what is easily missed. */
#include "tests/unit/test.h"

#include "core/store.h"

static emdb_db *db;

static void open_memory(void)
{
	const struct emdb_options o = { .size = sizeof(o),
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1,
					.compact_percent = -1 };

	CHECK_OK(emdb_open_memory(&o, &db));
}

static void put(const char *key, const void *value, size_t n, int64_t expires)
{
	CHECK_OK(emdb_put(db, EMDB_ROOT, key, strlen(key), value, n, expires));
}

static int64_t deadline(const char *key)
{
	int64_t at;

	CHECK_OK(emdb_ttl_get(db, EMDB_ROOT, key, strlen(key), &at));
	return at;
}

/* ---- References ---- */

static void compact_all(void)
{
	struct emdb_compact_progress p;
	char filler[4000] = { 1 };

	for (int i = 0; i < 600; i++)
		put("filler", filler, sizeof(filler), 0);
	CHECK_OK(emdb_compact(db, NULL, &p));
	CHECK(p.segments > 0);
}

/* A reference is the value as it was: overwritten, removed, moved twice, the store closed. */
TEST(test_kv__a_reference_outlives_everything)
{
	static char small[1000], big[600000];
	struct emdb_ref kept[2], gone;

	open_memory();
	memset(small, 's', sizeof(small));
	memset(big, 'b', sizeof(big));
	put("small", small, sizeof(small), 0);
	put("big", big, sizeof(big), 0);
	put("gone", small, sizeof(small), 0);
	CHECK_OK(emdb_get_ref(db, EMDB_ROOT, "small", 5, &kept[0]));
	CHECK_OK(emdb_get_ref(db, EMDB_ROOT, "big", 3, &kept[1]));
	CHECK_OK(emdb_get_ref(db, EMDB_ROOT, "gone", 4, &gone));
	put("small", "other", 5, 0);
	put("big", "other", 5, 0);
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "gone", 4, NULL, NULL));
	for (int round = 0; round < 2; round++) {
		compact_all();
		CHECK_MEM(kept[0].data, kept[0].len, small, sizeof(small));
		CHECK_MEM(kept[1].data, kept[1].len, big, sizeof(big));
		CHECK_MEM(gone.data, gone.len, small, sizeof(small));
	}
	CHECK_OK(emdb_clear(db, EMDB_ROOT));
	compact_all();
	CHECK_OK(emdb_close(db));
	CHECK_MEM(kept[0].data, kept[0].len, small, sizeof(small));
	CHECK_MEM(kept[1].data, kept[1].len, big, sizeof(big));
	CHECK_MEM(gone.data, gone.len, small, sizeof(small));
	emdb_ref_release(&kept[0]);
	emdb_ref_release(&kept[1]);
	emdb_ref_release(&gone);
	emdb_ref_release(&gone);
}

/* ---- What has expired ---- */

/* By every call, with the sweeper asleep: absent, and not brought back by any. */
TEST(test_kv__expired_is_absent_to_every_call)
{
	static const struct emdb_value v = { "v", 1 };
	struct emdb_attr a;
	struct emdb_entry e;
	struct emdb_ref ref;
	uint64_t count;
	emdb_iter *it;
	emdb_txn *t;
	int64_t at;
	bool flag;
	size_t n;
	void *p;

	open_memory();
	put("k", "v", 1, 1);
	CHECK_EQ(emdb_get(db, EMDB_ROOT, "k", 1, &p, &n), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_get_ref(db, EMDB_ROOT, "k", 1, &ref), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_contains(db, EMDB_ROOT, "k", 1, &flag));
	CHECK(!flag);
	CHECK_OK(emdb_is_empty(db, EMDB_ROOT, &flag));
	CHECK(flag);
	for (unsigned int live = 0; live <= EMDB_ITER_LIVE; live += EMDB_ITER_LIVE) {
		CHECK_OK(emdb_iter_new(db, EMDB_ROOT, live, &it));
		CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
		emdb_iter_free(it);
	}
	CHECK_OK(emdb_txn_begin(db, NULL, &t));
	CHECK_EQ(emdb_txn_get(t, EMDB_ROOT, "k", 1, &p, &n), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_txn_remove(t, EMDB_ROOT, "k", 1), EMDB_ERR_NOT_FOUND);
	emdb_txn_abort(t);
	CHECK_EQ(emdb_ttl_get(db, EMDB_ROOT, "k", 1, &at), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_ttl_remaining(db, EMDB_ROOT, "k", 1, &at), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_ttl_set(db, EMDB_ROOT, "k", 1, EMDB_TTL_NEVER), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_ttl_persist(db, EMDB_ROOT, "k", 1, NULL), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_ttl_extend(db, EMDB_ROOT, "k", 1, 1000000, NULL), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &a), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_cas(db, EMDB_ROOT, "k", 1, &v, NULL, 0), EMDB_ERR_CONFLICT);
	p = NULL;
	CHECK_EQ(emdb_remove(db, EMDB_ROOT, "k", 1, &p, &n), EMDB_ERR_NOT_FOUND);
	CHECK(p == NULL);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, 0);
	CHECK_OK(emdb_close(db));
}

static unsigned int walked(emdb_err err, emdb_iter *const *ret)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_iter *it;

	CHECK_OK(err);
	it = *ret;
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
		CHECK(e.key_len < 8 || memcmp((const char *)e.key + e.key_len - 4, "gone", 4) != 0);
		n++;
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	return n;
}

static unsigned int streamed(emdb_err err, emdb_stream *const *ret)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_stream *stream;

	CHECK_OK(err);
	stream = *ret;
	while ((err = emdb_stream_next(stream, -1, &e)) == EMDB_OK)
		n++;
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	emdb_stream_free(stream);
	return n;
}

static bool count_live(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		       uint64_t next)
{
	(void)key, (void)key_len, (void)attr, (void)next;
	++*(unsigned int *)ctx;
	return true;
}

static struct emdb_completion done(emdb_async *async, enum emdb_op_kind kind, const char *key)
{
	const struct emdb_op op = { .size = sizeof(op),
				    .kind = kind,
				    .flags = kind == EMDB_OP_REMOVE ? EMDB_OP_WANT_VALUE : 0,
				    .ns = EMDB_ROOT,
				    .key = key,
				    .key_len = strlen(key),
				    .expires_ms = EMDB_TTL_NEVER };
	struct emdb_completion c;
	size_t n;

	CHECK_OK(emdb_async_submit(async, &op, NULL));
	CHECK_OK(emdb_async_poll(async, &c, 1, -1, &n));
	CHECK(n == 1 && !c.value);
	return c;
}

/* 10 that live among 10 that do not, small and large, of which "g.0.live" and so on are a group. */
static void half_expired(void)
{
	static char big[100000];
	char key[32];

	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "g.%d.%s", i / 2, i % 2 ? "gone" : "live");
		put(key, big, i % 3 ? 10 : sizeof(big), i % 2 ? 1 : 0);
	}
}

/* The same to walks of all kinds, groups, queues, and what shows a store as files. */
TEST(test_kv__expired_is_absent_to_every_walk)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_ORDERED,
					.sweep_interval_ms = -1,
					.compact_percent = -1 };
	const struct emdb_range back = { .size = sizeof(back),
					 .flags = EMDB_RANGE_REVERSE | EMDB_ITER_VALUES };
	const struct emdb_item removal = { .key = "g.0.gone", .key_len = 8, .remove = true };
	struct emdb_completion c;
	struct emdb_attr a;
	unsigned int n = 0;
	emdb_stream *stream;
	emdb_async *async;
	uint64_t count;
	emdb_focus *f;
	emdb_iter *it;
	emdb_txn *t;
	size_t len;
	bool flag;
	void *p;

	CHECK_OK(emdb_open_memory(&o, &db));
	half_expired();
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, 10);
	CHECK_UEQ(walked(emdb_range_new(db, EMDB_ROOT, NULL, &it), &it), 10);
	CHECK_UEQ(walked(emdb_range_new(db, EMDB_ROOT, &back, &it), &it), 10);
	CHECK_UEQ(walked(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_VALUES, &it), &it), 10);
	CHECK_UEQ(walked(emdb_group_iter(db, EMDB_ROOT, "g", 1, 0, &it), &it), 10);
	CHECK_OK(emdb_txn_begin(db, NULL, &t));
	CHECK_UEQ(walked(emdb_txn_iter(t, EMDB_ROOT, EMDB_ITER_VALUES, &it), &it), 10);
	CHECK_OK(emdb_txn_contains(t, EMDB_ROOT, "g.0.gone", 8, &flag));
	CHECK(!flag);
	emdb_txn_abort(t);
	CHECK_OK(emdb_focus_new(db, EMDB_ROOT, "g.0", 3, &f));
	CHECK_EQ(emdb_focus_get(f, "gone", 4, &p, &len), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_focus_remove(f, "gone", 4, NULL, NULL), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_focus_contains(f, "gone", 4, &flag));
	CHECK(!flag);
	CHECK_UEQ(walked(emdb_focus_iter(f, EMDB_ITER_VALUES, &it), &it), 1);
	emdb_focus_free(f);
	CHECK_OK(emdb_node_readdir(db, EMDB_ROOT, 0, 0, count_live, &n));
	CHECK_UEQ(n, 10);
	CHECK_EQ(emdb_node_rename(db, EMDB_ROOT, "g.0.gone", 8, EMDB_ROOT, "x", 1, 0),
		 EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_node_unlink(db, EMDB_ROOT, "g.0.gone", 8, NULL), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_node_rmdir(db, EMDB_ROOT, "g.0.gone", 8, NULL), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_put_many(db, EMDB_ROOT, &removal, 1));
	CHECK_OK(emdb_async_new(db, NULL, &async));
	CHECK_EQ(done(async, EMDB_OP_GET, "g.1.gone").err, EMDB_ERR_NOT_FOUND);
	CHECK_EQ(done(async, EMDB_OP_REMOVE, "g.1.gone").err, EMDB_ERR_NOT_FOUND);
	CHECK_EQ(done(async, EMDB_OP_TTL_GET, "g.1.gone").err, EMDB_ERR_NOT_FOUND);
	CHECK_EQ(done(async, EMDB_OP_TTL_SET, "g.1.gone").err, EMDB_ERR_NOT_FOUND);
	c = done(async, EMDB_OP_CONTAINS, "g.1.gone");
	CHECK(!c.err && c.number == 0);
	c = done(async, EMDB_OP_COUNT, "");
	CHECK(!c.err && c.number == 10);
	CHECK_UEQ(streamed(emdb_stream_iter(async, EMDB_ROOT, 0, NULL, &stream), &stream), 10);
	CHECK_UEQ(streamed(emdb_stream_range(async, EMDB_ROOT, &back, NULL, &stream), &stream), 10);
	emdb_async_free(async);
	/* Only what lives is counted as removed. */
	CHECK_OK(emdb_group_delete(db, EMDB_ROOT, "g", 1, &count));
	CHECK_UEQ(count, 10);
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, "g.2.gone", 8, &a), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_close(db));
}

/* A lifetime that ends between a look and the change must not be prolonged: the change looks itself. */
TEST(test_kv__persist_does_not_revive)
{
	static char big[100000];
	struct emdb_attr a;
	bool found;

	open_memory();
	for (int promoted = 0; promoted < 2; promoted++) {
		const int64_t at = emdb_now_ms(db) + 20;
		emdb_err err = EMDB_OK;

		put("k", big, promoted ? sizeof(big) : 10, at);
		if (promoted) {
			CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "k", 1, &a));
			CHECK_OK(emdb_node_write(db, a.id, 50000, "x", 1, 0));
			emdb_node_forget(db, a.id, 1);
		}
		/* A persist that says yes is one from before. */
		while (emdb_now_ms(db) < at)
			;
		err = emdb_ttl_persist(db, EMDB_ROOT, "k", 1, &found);
		CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
		CHECK_OK(emdb_contains(db, EMDB_ROOT, "k", 1, &found));
		CHECK(!found);
	}
	CHECK_OK(emdb_close(db));
}

/* ---- Lifetimes ---- */

TEST(test_kv__lifetimes)
{
	static char big[100000];
	static const size_t sizes[] = { 10, 20000, sizeof(big) };
	int64_t now, at, left;
	uint64_t removed;
	bool had;

	open_memory();
	for (size_t i = 0; i < 3; i++) {
		now = emdb_now_ms(db);
		CHECK_OK(emdb_put_ttl(db, EMDB_ROOT, "k", 1, big, sizes[i], 1000000));
		at = deadline("k");
		CHECK(at >= now + 1000000 && at <= emdb_now_ms(db) + 1000000);
		CHECK_OK(emdb_ttl_remaining(db, EMDB_ROOT, "k", 1, &left));
		CHECK(left > 900000 && left <= 1000000);
		CHECK_OK(emdb_ttl_extend(db, EMDB_ROOT, "k", 1, 5000, &left));
		CHECK_EQ(left, at + 5000);
		CHECK_EQ(deadline("k"), at + 5000);
		CHECK_OK(emdb_ttl_persist(db, EMDB_ROOT, "k", 1, &had));
		CHECK(had);
		CHECK_EQ(deadline("k"), 0);
		CHECK_OK(emdb_ttl_remaining(db, EMDB_ROOT, "k", 1, &left));
		CHECK_EQ(left, EMDB_TTL_NEVER);
		CHECK_OK(emdb_ttl_persist(db, EMDB_ROOT, "k", 1, &had));
		CHECK(!had);
		/* Without a deadline: from now. */
		CHECK_OK(emdb_ttl_extend(db, EMDB_ROOT, "k", 1, 7000000, NULL));
		CHECK(deadline("k") >= now + 7000000);
		CHECK_EQ(emdb_ttl_extend(db, EMDB_ROOT, "k", 1, INT64_MAX, NULL),
			 EMDB_ERR_OVERFLOW);
		CHECK_EQ(emdb_ttl_extend(db, EMDB_ROOT, "k", 1, 0, NULL), EMDB_ERR_INVAL);
		CHECK_EQ(emdb_ttl_set(db, EMDB_ROOT, "k", 1, INT64_MAX), EMDB_ERR_OVERFLOW);
		CHECK_EQ(emdb_ttl_set(db, EMDB_ROOT, "k", 1, 0), EMDB_ERR_INVAL);
		CHECK_OK(emdb_ttl_set(db, EMDB_ROOT, "k", 1, 1));
		CHECK_EQ(emdb_ttl_get(db, EMDB_ROOT, "k", 1, &at), EMDB_ERR_NOT_FOUND);
	}
	CHECK_EQ(emdb_put_ttl(db, EMDB_ROOT, "k", 1, "", 0, INT64_MAX), EMDB_ERR_OVERFLOW);
	CHECK_EQ(emdb_put_ttl(db, EMDB_ROOT, "k", 1, "", 0, -1), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_expires_after(db, -1, &at), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_ns_ttl_set(db, EMDB_ROOT, INT64_MAX), EMDB_ERR_OVERFLOW);
	CHECK_EQ(emdb_ns_ttl_set(db, EMDB_ROOT, -1), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_put(db, EMDB_ROOT, "k", 1, "", 0, INT64_MAX), EMDB_ERR_OVERFLOW);
	CHECK_OK(emdb_put_ttl(db, EMDB_ROOT, "k", 1, "", 0, 0));
	CHECK_OK(emdb_sweep(db, &removed));
	CHECK_UEQ(removed, 1);
	CHECK_OK(emdb_close(db));
	CHECK_EQ(emdb_open_memory(&(struct emdb_options){ .size = sizeof(struct emdb_options),
							  .default_ttl_ms = INT64_MAX },
				  &db),
		 EMDB_ERR_OVERFLOW);
}

/* ---- Namespaces ---- */

TEST(test_kv__namespaces)
{
	struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	const char *const path = test_dir();
	uint64_t a, b, again, count;
	struct emdb_entry e;
	emdb_iter *it;
	bool empty;

	CHECK_OK(emdb_open(path, &o, &db));
	CHECK_OK(emdb_is_empty(db, EMDB_ROOT, &empty));
	CHECK(empty);
	CHECK_OK(emdb_ns_ensure(db, EMDB_ROOT, "a", 1, &a));
	CHECK_OK(emdb_ns_ensure(db, EMDB_ROOT, "a", 1, &again));
	CHECK_UEQ(again, a);
	CHECK_OK(emdb_ns_ensure(db, a, "b", 1, &b));
	put("key", "v", 1, 0);
	CHECK_EQ(emdb_ns_ensure(db, EMDB_ROOT, "key", 3, &again), EMDB_ERR_NOT_NS);
	CHECK_EQ(emdb_ns_ensure(db, 4711, "x", 1, &again), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_is_empty(db, a, &empty));
	CHECK(!empty);
	CHECK_OK(emdb_is_empty(db, b, &empty));
	CHECK(empty);
	CHECK_EQ(emdb_is_empty(db, 4711, &empty), EMDB_ERR_NOT_FOUND);
	/* The list of them. */
	CHECK_OK(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_NS, &it));
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK(e.is_ns);
	CHECK_UEQ(e.id, a);
	CHECK_MEM(e.key, e.key_len, "a", 1);
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	/* Their ids stay, also when they move. */
	CHECK_OK(emdb_node_rename(db, a, "b", 1, EMDB_ROOT, "moved", 5, 0));
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_open(path, &o, &db));
	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "moved", 5, &again));
	CHECK_UEQ(again, b);
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "a", 1, false));
	CHECK_OK(emdb_ns_ensure(db, EMDB_ROOT, "a", 1, &again));
	CHECK(again != a);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, 3);
	CHECK_EQ(emdb_iter_new(db, a, 0, &it), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_iter_new(db, EMDB_ROOT, 0x1000, &it), EMDB_ERR_INVAL);
	CHECK_OK(emdb_close(db));
}

/* ---- Keys that somebody chose ---- */

static uint64_t fnv(const char *p, size_t n)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)p[i]) * UINT64_C(1099511628211);
	return h;
}

#define CHOSEN 64000

/* Patterns, and keys that collide under a well-known hash: the index spreads them like any others. */
static size_t chosen_key(int kind, unsigned int i, uint64_t *state, char *p)
{
	uint32_t word;
	size_t n;

	switch (kind) {
	case 0:
		return (size_t)snprintf(p, 64, "session:%08u:state", i);
	case 1:
		/* Only the high bits of the last word differ. */
		memset(p, 0, 32);
		word = i << 16;
		memcpy(p + 28, &word, sizeof(word));
		return 32;
	case 2:
		memset(p, 'a', 40);
		for (unsigned int b = 0; b < 16; b++)
			p[2 * b] = (i >> b & 1) ? 'b' : 'a';
		return 40;
	default:
		/* Equal in the low 6 bits of FNV-1a. */
		do
			n = (size_t)snprintf(p, 64, "k%" PRIu64, (*state)++);
		while (fnv(p, n) & 0x3f);
		return n;
	}
}

TEST(test_kv__chosen_keys_are_spread)
{
	for (int kind = 0; kind < 4; kind++) {
		uint64_t state = 0, count;
		char key[64];
		bool found;
		size_t n;

		open_memory();
		for (unsigned int i = 0; i < CHOSEN; i++) {
			n = chosen_key(kind, i, &state, key);
			CHECK_OK(emdb_put(db, EMDB_ROOT, key, n, &i, sizeof(i), 0));
		}
		state = 0;
		for (unsigned int i = 0; i < CHOSEN; i++) {
			n = chosen_key(kind, i, &state, key);
			CHECK_OK(emdb_contains(db, EMDB_ROOT, key, n, &found));
			CHECK(found);
		}
		CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
		CHECK_UEQ(count, CHOSEN);
		CHECK(hidx_check(&db->root->idx));
		/* Pages that cannot be told apart would grow, and cost what they are long. */
		CHECK(hidx_memory(&db->root->idx) <= CHOSEN * 24 + 65536);
		CHECK_OK(emdb_close(db));
	}
}

TEST_MAIN()
