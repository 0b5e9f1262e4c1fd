/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of fault_ops.h: ranges in order, queues of operations, streams. */
#ifndef EMDB_TEST_FAULT_ASYNC_H
#define EMDB_TEST_FAULT_ASYNC_H

#include "tests/unit/fault_ops.h"

/* ---- Ranges ---- */

/* All keys of the root as they are in order. */
static const char *const root_keys[] = { "big", "dir", "due",   "empty", "medium",
					 "old", "one", "small", "sym",   "two" };

static bool is_key(const struct emdb_entry *e, const char *key)
{
	return e->key_len == strlen(key) && memcmp(e->key, key, e->key_len) == 0;
}

/* What is handed out is right, also after an error: none is left out, none comes twice. */
static emdb_err op_range(struct store *s)
{
	const struct emdb_range r = { .size = sizeof(r),
				      .flags = EMDB_ITER_VALUES | EMDB_RANGE_REVERSE,
				      .after = "v",
				      .after_len = 1 };
	emdb_iter *it = UNTOUCHED;
	size_t left = ARRAY_SIZE(root_keys);
	emdb_err err = emdb_range_new(s->db, EMDB_ROOT, &r, &it), first = EMDB_OK;
	struct emdb_entry e;

	if (err) {
		CHECK(it == UNTOUCHED);
		return err;
	}
	for (int tries = 0; tries < 20; tries += err != EMDB_OK) {
		e = (struct emdb_entry){ .key_len = 77 };
		err = emdb_iter_next(it, &e);
		if (err == EMDB_ERR_NOT_FOUND)
			break;
		first = first ? first : err;
		if (err) {
			CHECK_UEQ(e.key_len, 77);
			/* Other errors are those of one entry. */
			left -= err != EMDB_ERR_NOMEM;
			continue;
		}
		CHECK(left > 0 && is_key(&e, root_keys[--left]));
		if (is_key(&e, "big"))
			CHECK(e.value_len == BIG_SIZE && memcmp(e.value, value, 200000) == 0);
	}
	emdb_iter_free(it);
	if (err == EMDB_ERR_NOT_FOUND)
		CHECK_UEQ(left, 0);
	return first;
}

/* Half of the keys of a group whose removal others see in order. */
static emdb_err op_group_ordered(struct store *s)
{
	return emdb_group_delete(s->db, EMDB_ROOT, "g", 1, NULL);
}

static void prepare_group_ordered(struct store *s)
{
	CHECK_OK(put_str(s->db, EMDB_ROOT, "g.a", 100));
	CHECK_OK(put_str(s->db, EMDB_ROOT, "g.b", 100));
}

/* ---- Queues ---- */

static emdb_err queue_new(struct store *s, emdb_async **ret)
{
	static const struct emdb_async_options o = { .size = sizeof(o), .threads = 1, .depth = 8 };
	emdb_async *async = UNTOUCHED;
	const emdb_err err = emdb_async_new(s->db, &o, &async);

	if (err)
		CHECK(async == UNTOUCHED);
	else
		*ret = async;
	return err;
}

/* Submits and waits; the first error of the two. */
static emdb_err queue_do(emdb_async *async, const struct emdb_op *op, struct emdb_completion *ret)
{
	uint64_t id = 77;
	size_t n = 77;
	const emdb_err err = emdb_async_submit(async, op, &id);

	if (err) {
		CHECK_UEQ(id, 77);
		return err;
	}
	CHECK_OK(emdb_async_poll(async, ret, 1, -1, &n));
	CHECK(n == 1 && ret->id == id);
	return ret->err;
}

static emdb_err op_async_new(struct store *s)
{
	emdb_async *async;
	const emdb_err err = queue_new(s, &async);

	if (!err) {
		CHECK(emdb_async_fd(async) >= 0);
		emdb_async_free(async);
	}
	return err;
}

/* A value is got, one is put for good. */
static emdb_err op_async_submit(struct store *s)
{
	const struct emdb_op get = { .size = sizeof(get),
				     .kind = EMDB_OP_GET,
				     .ns = EMDB_ROOT,
				     .key = "big",
				     .key_len = 3 };
	struct emdb_op put = { .size = sizeof(put),
			       .kind = EMDB_OP_PUT,
			       .flags = EMDB_OP_DURABLE,
			       .ns = EMDB_ROOT,
			       .key = "medium",
			       .key_len = 6,
			       .value = value,
			       .value_len = 100000,
			       .expires_ms = EMDB_TTL_NEVER };
	struct emdb_completion c;
	emdb_async *async;
	emdb_err err = queue_new(s, &async);

	if (err)
		return err;
	err = queue_do(async, &get, &c);
	if (!err) {
		CHECK(c.value_len == BIG_SIZE && memcmp(c.value, value, 200000) == 0);
		emdb_free(c.value);
		err = queue_do(async, &put, &c);
	}
	emdb_async_free(async);
	return err;
}

static void count_done(void *user, const struct emdb_completion *c)
{
	CHECK(c->err == EMDB_ERR_CANCELLED || !c->value == (c->err != EMDB_OK));
	emdb_free(c->value);
	atomic_fetch_add((_Atomic(unsigned int) *)user, 1);
}

/*
 * Some with a callback, some with a completion that nobody takes, one that is cancelled perhaps; the
 * queue goes with all of them, and every callback is called.
 */
static emdb_err op_async_free(struct store *s)
{
	_Atomic(unsigned int) called = 0;
	unsigned int taken = 0;
	uint64_t id = 0;
	emdb_async *async;
	emdb_err err = queue_new(s, &async);

	if (err)
		return err;
	for (int i = 0; i < 6 && !err; i++) {
		const struct emdb_op get = { .size = sizeof(get),
					     .kind = EMDB_OP_GET,
					     .ns = EMDB_ROOT,
					     .key = "big",
					     .key_len = 3,
					     .done = i & 1 ? count_done : NULL,
					     .user = &called };

		err = emdb_async_submit(async, &get, &id);
		taken += !err && i & 1;
	}
	if (!err)
		(void)!emdb_async_cancel(async, id);
	emdb_async_free(async);
	CHECK_UEQ(called, taken);
	return err;
}

/* ---- Streams ---- */

/* Everything that a stream hands out, all of it right.  It goes either way. */
static emdb_err drain(emdb_stream *stream, bool in_order)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_err err;

	CHECK(emdb_stream_fd(stream) >= 0);
	while ((err = emdb_stream_next(stream, -1, &e)) == EMDB_OK) {
		if (in_order)
			CHECK(is_key(&e, root_keys[n]));
		if (is_key(&e, "big"))
			CHECK(e.value_len == BIG_SIZE && memcmp(e.value, value, 200000) == 0);
		n++;
	}
	if (err == EMDB_ERR_NOT_FOUND)
		CHECK_UEQ(n, ARRAY_SIZE(root_keys));
	else /* the end, and it stays so */
		CHECK(err == EMDB_ERR_CORRUPT || emdb_stream_next(stream, -1, &e) == err);
	return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
}

static const struct emdb_stream_options few = { .size = sizeof(few), .items = 2, .bytes = 1000 };

static emdb_err op_stream_iter(struct store *s)
{
	emdb_stream *stream = UNTOUCHED;
	emdb_async *async;
	emdb_err err = queue_new(s, &async);

	if (err)
		return err;
	err = emdb_stream_iter(async, EMDB_ROOT, EMDB_ITER_VALUES, &few, &stream);
	if (err)
		CHECK(stream == UNTOUCHED);
	else
		err = drain(stream, false);
	emdb_stream_free(stream == UNTOUCHED ? NULL : stream);
	emdb_async_free(async);
	return err;
}

static emdb_err op_stream_range(struct store *s)
{
	const struct emdb_range r = { .size = sizeof(r), .flags = EMDB_ITER_VALUES };
	emdb_stream *stream = UNTOUCHED;
	emdb_async *async;
	emdb_err err = queue_new(s, &async);

	if (err)
		return err;
	err = emdb_stream_range(async, EMDB_ROOT, &r, &few, &stream);
	if (err)
		CHECK(stream == UNTOUCHED);
	else
		err = drain(stream, true);
	emdb_stream_free(stream == UNTOUCHED ? NULL : stream);
	emdb_async_free(async);
	return err;
}

/* Dropped after one, while more of it is read. */
static emdb_err op_stream_free(struct store *s)
{
	emdb_stream *stream;
	struct emdb_entry e;
	emdb_async *async;
	emdb_err err = queue_new(s, &async);

	if (err)
		return err;
	err = emdb_stream_iter(async, EMDB_ROOT, EMDB_ITER_VALUES, NULL, &stream);
	if (!err) {
		err = emdb_stream_next(stream, -1, &e);
		emdb_stream_free(stream);
	}
	emdb_async_free(async);
	return err;
}

static const struct fault_op fault_async_ops[] = {
	{ "emdb_range_new", "", op_range, NULL, ORDERED },
	{ "emdb_put", "ordered", op_put, NULL, WRITES | ORDERED },
	{ "emdb_put_many", "ordered", op_put_many, NULL, WRITES | ORDERED },
	{ "emdb_remove", "ordered", op_remove, NULL, WRITES | ORDERED },
	{ "emdb_txn_commit", "ordered", op_txn, NULL, WRITES | ORDERED },
	{ "emdb_ns_create", "ordered", op_ns_create, NULL, WRITES | ORDERED },
	{ "emdb_node_rename", "ordered", op_rename, NULL, WRITES | ORDERED },
	{ "emdb_node_rename", "ordered, directory", op_rename_dir, NULL, WRITES | ORDERED },
	{ "emdb_clear", "ordered", op_clear, NULL, WRITES | ORDERED },
	{ "emdb_group_delete", "ordered", op_group_ordered, prepare_group_ordered,
	  WRITES | ORDERED },
	{ "emdb_async_new", "", op_async_new, NULL, 0 },
	{ "emdb_async_submit", "", op_async_submit, NULL, WRITES },
	{ "emdb_async_free", "", op_async_free, NULL, 0 },
	{ "emdb_stream_iter", "", op_stream_iter, NULL, 0 },
	{ "emdb_stream_range", "", op_stream_range, NULL, ORDERED },
	{ "emdb_stream_free", "", op_stream_free, NULL, 0 },
};

#endif
