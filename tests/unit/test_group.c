/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of keys with a dotted prefix, and handles on them; with and without the ordered index. */
#include "tests/unit/test.h"

#include "core/emdb.h"

static emdb_db *db;

static void open_memory(bool ordered)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = ordered ? EMDB_OPEN_ORDERED : 0,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1 };

	CHECK_OK(emdb_open_memory(&o, &db));
}

static void put(const char *key)
{
	CHECK_OK(emdb_put(db, EMDB_ROOT, key, strlen(key), key, strlen(key), 0));
}

static emdb_focus *focus(const char *prefix)
{
	emdb_focus *f;

	CHECK_OK(emdb_focus_new(db, EMDB_ROOT, prefix, strlen(prefix), &f));
	return f;
}

static unsigned int drain(emdb_iter *it, const char *prefix)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_err err;

	while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
		CHECK(e.key_len > strlen(prefix) + 0 && !e.is_ns);
		CHECK_MEM(e.key, strlen(prefix), prefix, strlen(prefix));
		CHECK_EQ(((const char *)e.key)[strlen(prefix)], '.');
		CHECK_MEM(e.value, e.value_len, e.key, e.key_len);
		n++;
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	return n;
}

static unsigned int count(const char *prefix)
{
	emdb_iter *it;

	CHECK_OK(emdb_group_iter(db, EMDB_ROOT, prefix, strlen(prefix), EMDB_ITER_VALUES, &it));
	return drain(it, prefix);
}

static const char *const some[] = { "user",        "user.",         "user.7",     "user.7.name",
				    "user.7.mail", "user.71.name",  "user.7",     "users.7.name",
				    "user/7.name", "product.a.b.c", "product.a.b" };

TEST(test_group__what_is_in_it)
{
	for (int ordered = 0; ordered < 2; ordered++) {
		uint64_t removed, ns;

		open_memory(ordered);
		for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++)
			put(some[i]);
		CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "user.ns", 7, &ns));
		CHECK_OK(emdb_put(db, EMDB_ROOT, "user.gone", 9, "x", 1, 1));
		CHECK_UEQ(count("user"), 5);
		CHECK_UEQ(count("user.7"), 2);
		CHECK_UEQ(count("product"), 2);
		CHECK_UEQ(count("product.a.b"), 1);
		CHECK_UEQ(count("nothing"), 0);
		CHECK_OK(emdb_group_delete(db, EMDB_ROOT, "user.7", 6, &removed));
		CHECK_UEQ(removed, 2);
		CHECK_UEQ(count("user"), 3);
		CHECK_OK(emdb_group_delete(db, EMDB_ROOT, "user", 4, NULL));
		CHECK_UEQ(count("user"), 0);
		CHECK_OK(emdb_group_delete(db, EMDB_ROOT, "user", 4, &removed));
		CHECK_UEQ(removed, 0);
		/* Namespaces stay, and what only looks alike. */
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "user.ns", 7, &ns));
		CHECK_UEQ(count("users"), 1);
		CHECK_OK(emdb_close(db));
	}
}

/* More than is removed as one; large objects and those with other names too. */
TEST(test_group__delete_many)
{
	static char big[300000];

	for (int ordered = 0; ordered < 2; ordered++) {
		struct emdb_attr a;
		uint64_t removed, left;
		char key[64];

		open_memory(ordered);
		for (int i = 0; i < 3000; i++) {
			snprintf(key, sizeof(key), "g.%d.%d", i % 7, i);
			put(key);
			snprintf(key, sizeof(key), "h.%d", i);
			put(key);
		}
		CHECK_OK(emdb_put(db, EMDB_ROOT, "g.big", 5, big, sizeof(big), 0));
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "g.big", 5, &a));
		CHECK_OK(emdb_node_link(db, a.id, EMDB_ROOT, "link", 4, &a));
		emdb_node_forget(db, a.id, 2);
		CHECK_OK(emdb_group_delete(db, EMDB_ROOT, "g", 1, &removed));
		CHECK_UEQ(removed, 3001);
		CHECK_OK(emdb_count(db, EMDB_ROOT, &left));
		CHECK_UEQ(left, 3001);
		CHECK_UEQ(count("h"), 3000);
		CHECK_OK(emdb_close(db));
	}
}

TEST(test_group__focus)
{
	for (int ordered = 0; ordered < 2; ordered++) {
		emdb_focus *root, *user, *seven;
		uint64_t removed;
		emdb_iter *it;
		bool found;
		size_t n;
		void *p;
		int64_t at;
		const void *q;

		open_memory(ordered);
		root = focus("");
		user = focus("user");
		CHECK_OK(emdb_focus_sub(user, "7", 1, &seven));
		q = emdb_focus_prefix(seven, &n);
		CHECK_MEM(q, n, "user.7", 6);
		q = emdb_focus_prefix(root, &n);
		CHECK_MEM(q, n, "", 0);
		CHECK_OK(emdb_focus_set(seven, "name", 4, "user.7.name", 11, 0));
		CHECK_OK(emdb_get(db, EMDB_ROOT, "user.7.name", 11, &p, &n));
		emdb_free(p);
		CHECK_OK(emdb_focus_set(root, "plain", 5, "plain", 5, 0));
		CHECK_OK(emdb_get(db, EMDB_ROOT, "plain", 5, &p, &n));
		emdb_free(p);
		CHECK_OK(emdb_focus_set_ttl(user, "session", 7, "user.session", 12, 3600000));
		CHECK_OK(emdb_ttl_get(db, EMDB_ROOT, "user.session", 12, &at));
		CHECK(at > emdb_now_ms(db));
		CHECK_OK(emdb_focus_set_ttl(user, "over", 4, "x", 1, 0));
		CHECK_EQ(emdb_focus_get(user, "over", 4, &p, &n), EMDB_ERR_NOT_FOUND);
		CHECK_EQ(emdb_focus_set_ttl(user, "x", 1, "x", 1, INT64_MAX), EMDB_ERR_OVERFLOW);
		CHECK_EQ(emdb_focus_set_ttl(user, "x", 1, "x", 1, -1), EMDB_ERR_INVAL);
		CHECK_OK(emdb_focus_contains(seven, "name", 4, &found));
		CHECK(found);
		CHECK_OK(emdb_focus_contains(user, "name", 4, &found));
		CHECK(!found);
		CHECK_OK(emdb_focus_get(user, "7.name", 6, &p, &n));
		CHECK_MEM(p, n, "user.7.name", 11);
		emdb_free(p);
		CHECK_OK(emdb_focus_iter(user, EMDB_ITER_VALUES, &it));
		CHECK_UEQ(drain(it, "user"), 2);
		CHECK_OK(emdb_focus_remove(user, "session", 7, &p, &n));
		CHECK_MEM(p, n, "user.session", 12);
		emdb_free(p);
		CHECK_EQ(emdb_focus_remove(user, "session", 7, NULL, NULL), EMDB_ERR_NOT_FOUND);
		emdb_focus_free(user);
		CHECK_OK(emdb_focus_delete_all(seven, &removed));
		CHECK_UEQ(removed, 1);
		CHECK_EQ(emdb_focus_delete_all(root, &removed), EMDB_ERR_INVAL);
		CHECK_EQ(emdb_focus_iter(root, 0, &it), EMDB_ERR_INVAL);
		emdb_focus_free(seven);
		emdb_focus_free(root);
		emdb_focus_free(NULL);
		CHECK_OK(emdb_close(db));
	}
}

TEST(test_group__errors)
{
	static char key[EMDB_KEY_MAX + 1];
	emdb_focus *f, *sub;
	emdb_iter *it;
	bool found;
	void *p;
	size_t n;

	open_memory(false);
	memset(key, 'k', sizeof(key));
	CHECK_EQ(emdb_group_iter(db, EMDB_ROOT, "", 0, 0, &it), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_group_iter(db, EMDB_ROOT, "a", 1, EMDB_ITER_NS, &it), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_group_iter(db, EMDB_ROOT, key, EMDB_KEY_MAX, 0, &it), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_group_iter(db, 4711, "a", 1, 0, &it), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_group_delete(db, EMDB_ROOT, "", 0, NULL), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_group_delete(db, 4711, "a", 1, NULL), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_focus_new(db, EMDB_ROOT, key, sizeof(key), &f), EMDB_ERR_KEY_TOO_LONG);
	/* As long as may be. */
	CHECK_OK(emdb_focus_new(db, EMDB_ROOT, key, 60000, &f));
	CHECK_EQ(emdb_focus_sub(f, key, 6000, &sub), EMDB_ERR_KEY_TOO_LONG);
	CHECK_OK(emdb_focus_set(f, key, EMDB_KEY_MAX - 60001, "v", 1, 0));
	CHECK_EQ(emdb_focus_set(f, key, EMDB_KEY_MAX - 60000, "v", 1, 0), EMDB_ERR_KEY_TOO_LONG);
	CHECK_OK(emdb_focus_get(f, key, EMDB_KEY_MAX - 60001, &p, &n));
	emdb_free(p);
	CHECK_EQ(emdb_focus_get(f, key, 10000, &p, &n), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_focus_remove(f, key, 10000, &p, &n), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_focus_contains(f, key, 10000, &found), EMDB_ERR_KEY_TOO_LONG);
	emdb_focus_free(f);
	CHECK_OK(emdb_focus_new(db, 4711, "a", 1, &f));
	CHECK_EQ(emdb_focus_set(f, "k", 1, "v", 1, 0), EMDB_ERR_NOT_FOUND);
	emdb_focus_free(f);
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
