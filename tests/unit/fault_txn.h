/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of fault_ops.h: views, transactions, lifetimes, groups, stores by name. */
#ifndef EMDB_TEST_FAULT_TXN_H
#define EMDB_TEST_FAULT_TXN_H

#include "tests/unit/fault_world.h"

/* Reads, writes, removes in two namespaces, a large value among them; all at once or not at all. */
static emdb_err op_txn(struct store *s)
{
	void *p = UNTOUCHED;
	size_t n = 77;
	emdb_txn *t = UNTOUCHED;
	emdb_err err = emdb_txn_begin(s->db, NULL, &t);

	if (err) {
		CHECK(t == UNTOUCHED);
		return err;
	}
	err = emdb_txn_get(t, EMDB_ROOT, "big", 3, &p, &n);
	if (err) {
		CHECK(p == UNTOUCHED && n == 77);
	} else {
		CHECK(n == BIG_SIZE);
		emdb_free(p);
	}
	if (!err)
		err = emdb_txn_put(t, EMDB_ROOT, "small", 5, value, 300, EMDB_TTL_NEVER);
	if (!err)
		err = emdb_txn_put(t, s->dir, "in", 2, value, BIG_SIZE, EMDB_TTL_DEFAULT);
	if (!err)
		err = emdb_txn_put(t, EMDB_ROOT, "two", 3, value, 20, FAR_TTL);
	if (!err)
		err = emdb_txn_remove(t, EMDB_ROOT, "medium", 6);
	if (!err)
		return emdb_txn_commit(t, EMDB_COMMIT_DURABLE);
	emdb_txn_abort(t);
	return err;
}

static emdb_err op_txn_iter(struct store *s)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_iter *it = UNTOUCHED;
	emdb_txn *t;
	emdb_err err = emdb_txn_begin(s->db, NULL, &t);
	bool found;

	if (err)
		return err;
	err = emdb_txn_put(t, EMDB_ROOT, "own", 3, "x", 1, EMDB_TTL_NEVER);
	if (!err)
		err = emdb_txn_contains(t, EMDB_ROOT, "absent", 6, &found);
	if (!err)
		err = emdb_txn_iter(t, EMDB_ROOT, EMDB_ITER_VALUES, &it);
	if (err) {
		emdb_txn_abort(t);
		return err;
	}
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK)
		n++;
	emdb_iter_free(it);
	emdb_txn_abort(t);
	if (err != EMDB_ERR_NOT_FOUND)
		return err;
	CHECK_UEQ(n, 11);
	return EMDB_OK;
}

static emdb_err op_cas(struct store *s)
{
	const struct emdb_value expected = { value, 100 }, desired = { value, BIG_SIZE };

	return emdb_cas(s->db, EMDB_ROOT, "small", 5, &expected, &desired, EMDB_TTL_NEVER);
}

/* What is changed while an iterator is open must be kept for it, or it must say that it is not. */
static emdb_err op_iterate_over_changes(struct store *s)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_iter *it;
	emdb_err err = emdb_iter_new(s->db, EMDB_ROOT, EMDB_ITER_VALUES, &it), end;

	if (err)
		return err;
	err = emdb_put(s->db, EMDB_ROOT, "small", 5, value, 300, EMDB_TTL_NEVER);
	while ((end = emdb_iter_next(it, &e)) == EMDB_OK) {
		n++;
		if (e.key_len == 5 && memcmp(e.key, "small", 5) == 0)
			CHECK_UEQ(e.value_len, 100);
	}
	emdb_iter_free(it);
	if (end != EMDB_ERR_NOT_FOUND)
		return end;
	CHECK_UEQ(n, 10);
	return err;
}

/* The same of an object's content. */
static emdb_err op_iterate_over_writes(struct store *s)
{
	struct emdb_entry e;
	emdb_iter *it;
	emdb_err err = emdb_iter_new(s->db, EMDB_ROOT, EMDB_ITER_VALUES, &it), end;

	if (err)
		return err;
	err = emdb_node_write(s->db, s->big, 7, "changed", 7, 0);
	while ((end = emdb_iter_next(it, &e)) == EMDB_OK)
		if (e.key_len == 3 && memcmp(e.key, "big", 3) == 0)
			CHECK(e.value_len == BIG_SIZE && memcmp(e.value, value, 200000) == 0);
	emdb_iter_free(it);
	return end != EMDB_ERR_NOT_FOUND ? end : err;
}

static emdb_err op_is_empty(struct store *s)
{
	bool empty = true;
	const emdb_err err = emdb_is_empty(s->db, s->dir, &empty);

	CHECK(empty == (err != EMDB_OK));
	return err;
}

static emdb_err op_ns_ensure(struct store *s)
{
	uint64_t ns = 77;
	const emdb_err err = emdb_ns_ensure(s->db, s->dir, "new", 3, &ns);

	CHECK((ns == 77) == (err != EMDB_OK));
	return err;
}

static emdb_err op_persist(struct store *s)
{
	bool had = false;
	const emdb_err err = emdb_ttl_persist(s->db, EMDB_ROOT, "due", 3, &had);

	CHECK(had == (err == EMDB_OK));
	return err;
}

static emdb_err op_extend(struct store *s)
{
	int64_t t = 77;
	const emdb_err err = emdb_ttl_extend(s->db, EMDB_ROOT, "medium", 6, 1000000, &t);

	CHECK_EQ(t, err ? 77 : HOST_NOW / 1000000 + 1000000);
	return err;
}

static emdb_err op_remaining(struct store *s)
{
	int64_t t = 77;
	const emdb_err err = emdb_ttl_remaining(s->db, EMDB_ROOT, "due", 3, &t);

	CHECK_EQ(t, err ? 77 : OLD_TTL - HOST_NOW / 1000000);
	return err;
}

static emdb_err op_put_ttl(struct store *s)
{
	return emdb_put_ttl(s->db, EMDB_ROOT, "small", 5, "x", 1, 1000000);
}

static void prepare_group(struct store *s)
{
	CHECK_OK(put_str(s->db, s->dir, "g.a", 100));
	CHECK_OK(put_str(s->db, s->dir, "g.b.c", 200000));
	CHECK_OK(put_str(s->db, s->dir, "ga", 100));
}

static emdb_err op_group_iter(struct store *s)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_iter *it = UNTOUCHED;
	emdb_err err = emdb_group_iter(s->db, s->dir, "g", 1, EMDB_ITER_VALUES, &it);

	if (err) {
		CHECK(it == UNTOUCHED);
		return err;
	}
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK)
		n++;
	emdb_iter_free(it);
	if (err != EMDB_ERR_NOT_FOUND)
		return err;
	CHECK_UEQ(n, 2);
	return EMDB_OK;
}

static emdb_err op_group_delete(struct store *s)
{
	uint64_t n = 0;
	const emdb_err err = emdb_group_delete(s->db, s->dir, "g", 1, &n);

	CHECK(err || n == 2);
	return err;
}

static emdb_err op_focus(struct store *s)
{
	static char key[1000];
	emdb_focus *a = UNTOUCHED, *b = UNTOUCHED;
	emdb_err err = emdb_focus_new(s->db, EMDB_ROOT, "a", 1, &a);

	if (err) {
		CHECK(a == UNTOUCHED);
		return err;
	}
	err = emdb_focus_sub(a, "b", 1, &b);
	emdb_focus_free(a);
	if (err) {
		CHECK(b == UNTOUCHED);
		return err;
	}
	err = emdb_focus_set(b, key, sizeof(key), "x", 1, EMDB_TTL_NEVER);
	emdb_focus_free(b);
	return err;
}

static emdb_err op_open_app(struct store *s)
{
	const struct emdb_app app = { sizeof(app), "app", "database", "/data/root" };
	emdb_db *db = UNTOUCHED;
	const emdb_err err = emdb_open_app(&app, &plain_options, &db);

	(void)s;
	if (err)
		CHECK(db == UNTOUCHED);
	else
		(void)emdb_close(db);
	return err;
}

#endif
