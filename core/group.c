/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that share a dotted prefix: handles that put it in front, walking and removing them all. */
#include "core/iter.h"
#include "core/kv_i.h"

/* Keys removed as one. */
#define DELETE_STEP 512u
#define NAME_STACK  512u

struct emdb_focus {
	emdb_db *db;
	uint64_t ns;
	struct buf prefix; /* without a dot at its end; empty: none */
};

/* ---- Names ------------------------------------------------------------------ */

/* A key with the prefix in front; in `stack` when it fits. */
struct name {
	uint8_t *p;
	size_t len;
	uint8_t stack[NAME_STACK];
};

static emdb_err name_init(struct name *n, const struct buf *prefix, const void *key, size_t key_len)
{
	const size_t dot = prefix->len ? 1 : 0;

	if (key_len > EMDB_KEY_MAX || prefix->len + dot + key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	n->len = prefix->len + dot + key_len;
	n->p = n->len > sizeof(n->stack) ? base_malloc(n->len) : n->stack;
	if (!n->p)
		return EMDB_ERR_NOMEM;
	if (prefix->len) {
		memcpy(n->p, prefix->data, prefix->len);
		n->p[prefix->len] = '.';
	}
	if (key_len)
		memcpy(n->p + prefix->len + dot, key, key_len);
	return EMDB_OK;
}

static void name_release(struct name *n)
{
	if (n->p != n->stack)
		base_free(n->p);
}

static bool in_group(const struct buf *prefix, const void *key, size_t key_len)
{
	return key_len > prefix->len && memcmp(key, prefix->data, prefix->len) == 0 &&
	       ((const uint8_t *)key)[prefix->len] == '.';
}

/* ---- Walking a group ---------------------------------------------------------- */

struct group_iter {
	emdb_iter it;
	emdb_iter *inner;
	struct buf prefix;
};

static emdb_err group_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct group_iter *const it = container_of(base, struct group_iter, it);
	struct emdb_entry e;
	emdb_err err;

	do
		err = emdb_iter_next(it->inner, &e);
	while (!err && !in_group(&it->prefix, e.key, e.key_len));
	if (!err)
		*ret = e;
	return err;
}

static void group_release(emdb_iter *base)
{
	struct group_iter *const it = container_of(base, struct group_iter, it);

	emdb_iter_free(it->inner);
	buf_release(&it->prefix);
}

static const struct iter_ops group_ops = { group_next, group_release };

/* In order where there is one, else everything is looked at. */
static emdb_err inner_new(emdb_db *db, uint64_t ns, const struct buf *prefix, unsigned int flags,
			  emdb_iter **ret)
{
	struct emdb_range r = { .size = sizeof(r),
				.flags = (flags & EMDB_ITER_VALUES) | EMDB_ITER_KEYS };
	struct name n;
	emdb_err err;

	if (!db->ordered)
		return emdb_iter_new(db, ns, flags | EMDB_ITER_KEYS, ret);
	err = name_init(&n, prefix, NULL, 0);
	if (err)
		return err;
	r.prefix = n.p;
	r.prefix_len = n.len;
	err = emdb_range_new(db, ns, &r, ret);
	name_release(&n);
	return err;
}

emdb_err emdb_group_iter(emdb_db *db, uint64_t ns, const void *prefix, size_t prefix_len,
			 unsigned int flags, emdb_iter **ret_iter)
{
	struct group_iter *it;
	emdb_err err;

	if (flags & ~(EMDB_ITER_VALUES | EMDB_ITER_LIVE) || !prefix_len)
		return EMDB_ERR_INVAL;
	if (prefix_len >= EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	it = base_calloc(1, sizeof(*it));
	if (!it)
		return EMDB_ERR_NOMEM;
	it->it.ops = &group_ops;
	it->it.db = db;
	err = buf_append(&it->prefix, prefix, prefix_len) ? EMDB_ERR_NOMEM : EMDB_OK;
	if (!err)
		err = inner_new(db, ns, &it->prefix, flags, &it->inner);
	if (err) {
		emdb_iter_free(&it->it);
		return err;
	}
	*ret_iter = &it->it;
	return EMDB_OK;
}

/* ---- Removing a group ------------------------------------------------------------ */

/* Keys one behind the other, each with its length before it. */
struct keys {
	struct buf bytes;
	size_t count;
};

static emdb_err keys_add(struct keys *k, const struct emdb_entry *e)
{
	if (buf_append(&k->bytes, &e->key_len, sizeof(e->key_len)) ||
	    buf_append(&k->bytes, e->key, e->key_len))
		return EMDB_ERR_NOMEM;
	k->count++;
	return EMDB_OK;
}

/* Adds the removal of one key, if it is still there. */
static emdb_err remove_one(struct op *op, const uint8_t *key, size_t key_len, struct batch *b,
			   uint64_t *removed)
{
	struct rec r;
	emdb_err err;

	op->hash = entry_hash(op->db, op->ns->id, key, key_len);
	err = op_look_pinned(op, key, key_len);
	if (err || !op->live || op->entry.rec.kind == REC_NS)
		return err;
	rec_of_del(&op->entry, db_now_ns(op->db), &r);
	err = batch_add(b, &r);
	if (!err)
		++*removed;
	return err;
}

/* All of them as one frame. */
static emdb_err remove_keys(emdb_db *db, uint64_t ns, const struct keys *k, uint64_t *removed)
{
	const uint8_t *p = k->bytes.data;
	struct batch b = BATCH_INIT;
	struct op op = { .db = db };
	uint64_t n = 0;
	struct hold h;
	emdb_err err;

	hold_begin(&h, db, true);
	op.ns = ns_find_pinned(db, ns);
	err = op.ns ? EMDB_OK : EMDB_ERR_NOT_FOUND;
	for (size_t i = 0; !err && i < k->count; i++) {
		size_t len;

		memcpy(&len, p, sizeof(len));
		err = remove_one(&op, p + sizeof(len), len, &b, &n);
		p += sizeof(len) + len;
	}
	if (!err)
		err = batch_commit(db, &b, JOURNAL_RESERVE);
	hold_end(&h);
	batch_release(&b);
	if (!err)
		*removed += n;
	return err;
}

emdb_err emdb_group_delete(emdb_db *db, uint64_t ns, const void *prefix, size_t prefix_len,
			   uint64_t *ret_removed)
{
	const size_t bytes_max = journal_payload_max(db->j) / 4;
	struct keys k = { BUF_INIT, 0 };
	uint64_t removed = 0;
	emdb_iter *it;
	emdb_err err = db_writable(db), end = EMDB_OK;

	if (!err)
		err = emdb_group_iter(db, ns, prefix, prefix_len, 0, &it);
	if (err)
		return err;
	while (!err && !end) {
		struct emdb_entry e;

		end = emdb_iter_next(it, &e);
		if (!end)
			err = keys_add(&k, &e);
		if (!err && k.count && (end || k.count == DELETE_STEP || k.bytes.len > bytes_max)) {
			err = remove_keys(db, ns, &k, &removed);
			buf_reset(&k.bytes);
			k.count = 0;
		}
	}
	emdb_iter_free(it);
	buf_release(&k.bytes);
	if (!err && end != EMDB_ERR_NOT_FOUND)
		err = end;
	/* What went is gone, also when not all did. */
	if (ret_removed)
		*ret_removed = removed;
	return err ? err : db_written(db);
}

/* ---- Focus -------------------------------------------------------------------------- */

static emdb_err focus_new(emdb_db *db, uint64_t ns, const struct buf *parent, const void *prefix,
			  size_t len, emdb_focus **ret)
{
	struct emdb_focus *const f = base_calloc(1, sizeof(*f));
	struct name n;
	emdb_err err;

	if (!f)
		return EMDB_ERR_NOMEM;
	f->db = db;
	f->ns = ns;
	err = name_init(&n, parent, prefix, len);
	if (!err) {
		if (buf_append(&f->prefix, n.p, n.len))
			err = EMDB_ERR_NOMEM;
		name_release(&n);
	}
	if (err) {
		emdb_focus_free(f);
		return err;
	}
	*ret = f;
	return EMDB_OK;
}

emdb_err emdb_focus_new(emdb_db *db, uint64_t ns, const void *prefix, size_t prefix_len,
			emdb_focus **ret_focus)
{
	const struct buf none = BUF_INIT;

	return focus_new(db, ns, &none, prefix, prefix_len, ret_focus);
}

emdb_err emdb_focus_sub(const emdb_focus *focus, const void *sub, size_t sub_len,
			emdb_focus **ret_focus)
{
	return focus_new(focus->db, focus->ns, &focus->prefix, sub, sub_len, ret_focus);
}

void emdb_focus_free(emdb_focus *focus)
{
	if (!focus)
		return;
	buf_release(&focus->prefix);
	base_free(focus);
}

const void *emdb_focus_prefix(const emdb_focus *focus, size_t *ret_len)
{
	*ret_len = focus->prefix.len;
	return focus->prefix.len ? focus->prefix.data : (const void *)"";
}

emdb_err emdb_focus_set(const emdb_focus *focus, const void *key, size_t key_len, const void *value,
			size_t value_len, int64_t expires_ms)
{
	struct name n;
	emdb_err err;

	err = name_init(&n, &focus->prefix, key, key_len);
	if (err)
		return err;
	err = emdb_put(focus->db, focus->ns, n.p, n.len, value, value_len, expires_ms);
	name_release(&n);
	return err;
}

emdb_err emdb_focus_set_ttl(const emdb_focus *focus, const void *key, size_t key_len,
			    const void *value, size_t value_len, int64_t ttl_ms)
{
	int64_t expires;
	const emdb_err err = emdb_expires_after(focus->db, ttl_ms, &expires);

	return err ? err : emdb_focus_set(focus, key, key_len, value, value_len, expires);
}

emdb_err emdb_focus_get(const emdb_focus *focus, const void *key, size_t key_len, void **ret_value,
			size_t *ret_len)
{
	struct name n;
	emdb_err err;

	err = name_init(&n, &focus->prefix, key, key_len);
	if (err)
		return err;
	err = emdb_get(focus->db, focus->ns, n.p, n.len, ret_value, ret_len);
	name_release(&n);
	return err;
}

emdb_err emdb_focus_remove(const emdb_focus *focus, const void *key, size_t key_len,
			   void **ret_value, size_t *ret_len)
{
	struct name n;
	emdb_err err;

	err = name_init(&n, &focus->prefix, key, key_len);
	if (err)
		return err;
	err = emdb_remove(focus->db, focus->ns, n.p, n.len, ret_value, ret_len);
	name_release(&n);
	return err;
}

emdb_err emdb_focus_contains(const emdb_focus *focus, const void *key, size_t key_len,
			     bool *ret_found)
{
	struct name n;
	emdb_err err;

	err = name_init(&n, &focus->prefix, key, key_len);
	if (err)
		return err;
	err = emdb_contains(focus->db, focus->ns, n.p, n.len, ret_found);
	name_release(&n);
	return err;
}

emdb_err emdb_focus_iter(const emdb_focus *focus, unsigned int flags, emdb_iter **ret_iter)
{
	return emdb_group_iter(focus->db, focus->ns, focus->prefix.data, focus->prefix.len, flags,
			       ret_iter);
}

emdb_err emdb_focus_delete_all(const emdb_focus *focus, uint64_t *ret_removed)
{
	return emdb_group_delete(focus->db, focus->ns, focus->prefix.data, focus->prefix.len,
				 ret_removed);
}
