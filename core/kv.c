/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, values and namespaces by name. */
#include "core/kv_i.h"

/* ---- get ---------------------------------------------------------------------------- */

emdb_err kv_find_pinned(emdb_db *db, uint64_t ns_id, const void *key, size_t key_len,
			struct entry *e)
{
	const struct ns *ns;

	if (key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	ns = ns_find_pinned(db, ns_id);
	if (!ns)
		return EMDB_ERR_NOT_FOUND;
	return entry_find_pinned(db, ns, entry_hash(db, ns_id, key, key_len), key, key_len, false,
				 e);
}

/* The whole value of a big object, copied. */
static emdb_err big_value(emdb_db *db, uint64_t id, void **ret_value, size_t *ret_len)
{
	for (;;) {
		struct emdb_attr attr;
		size_t got = 0;
		uint8_t *p;
		emdb_err err;

		err = emdb_node_getattr(db, id, &attr);
		if (err)
			return err;
		if (attr.size > SIZE_MAX / 2)
			return EMDB_ERR_VALUE_TOO_LARGE;
		p = base_malloc((size_t)attr.size + 1);
		if (!p)
			return EMDB_ERR_NOMEM;
		/* One byte more than its size tells whether it grew meanwhile. */
		err = emdb_node_read(db, id, 0, p, (size_t)attr.size + 1, &got);
		if (err) {
			base_free(p);
			return err;
		}
		if (got > attr.size) {
			base_free(p);
			continue;
		}
		p[got] = 0;
		*ret_value = p;
		*ret_len = got;
		return EMDB_OK;
	}
}

emdb_err entry_value_pinned(emdb_db *db, const struct entry *e, void **ret_value, size_t *ret_len)
{
	if (e->rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	if (e->rec.kind == REC_LINK)
		return big_value(db, e->id, ret_value, ret_len);
	return rec_value_copy(&e->rec, ret_value, ret_len);
}

emdb_err emdb_get(emdb_db *db, uint64_t ns, const void *key, size_t key_len, void **ret_value,
		  size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;
	emdb_err err;

	err = kv_find_pinned(db, ns, key, key_len, &e);
	if (!err)
		err = entry_value_pinned(db, &e, ret_value, ret_len);
	epoch_unpin(&db->epoch, pin);
	return err;
}

enum { REF_KIND_SEGMENT = 1, REF_KIND_COPY = 2 };

emdb_err emdb_get_ref(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
		      struct emdb_ref *ret_ref)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;
	void *copy;
	size_t len;
	emdb_err err;

	err = kv_find_pinned(db, ns, key, key_len, &e);
	if (!err && e.rec.kind == REC_PUT && !db->vault) {
		segment_ref(e.seg);
		*ret_ref =
			(struct emdb_ref){ e.rec.value, e.rec.value_len, e.seg, REF_KIND_SEGMENT };
	} else if (!err) {
		err = entry_value_pinned(db, &e, &copy, &len);
		if (!err)
			*ret_ref = (struct emdb_ref){ copy, len, copy, REF_KIND_COPY };
	}
	epoch_unpin(&db->epoch, pin);
	return err;
}

void emdb_ref_release(struct emdb_ref *ref)
{
	if (!ref || !ref->owner_)
		return;
	if (ref->kind_ == REF_KIND_SEGMENT)
		segment_unref(ref->owner_);
	else
		base_free(ref->owner_);
	memset(ref, 0, sizeof(*ref));
}

emdb_err emdb_contains(emdb_db *db, uint64_t ns, const void *key, size_t key_len, bool *ret_found)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;
	const emdb_err err = kv_find_pinned(db, ns, key, key_len, &e);
	const bool gone = err == EMDB_ERR_NOT_FOUND && !ns_find_pinned(db, ns);

	epoch_unpin(&db->epoch, pin);
	if (gone || (err && err != EMDB_ERR_NOT_FOUND))
		return err;
	*ret_found = !err && e.rec.kind != REC_NS;
	return EMDB_OK;
}

/* Has it not expired?  A damaged one is there, as far as anybody knows. */
static bool slot_live_pinned(emdb_db *db, const struct hidx_slot *s)
{
	struct entry e;

	return !(s->value & (REF_EXPIRES | REF_SPECIAL)) ||
	       entry_read_pinned(db, s->hash, s->value, false, &e) != EMDB_ERR_NOT_FOUND;
}

/* The entries that have not expired, where what has cannot be removed. */
static uint64_t count_live_pinned(emdb_db *db, const struct ns *ns)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0, count = 0;
	uint32_t tie = 0;
	size_t n;

	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			count += slot_live_pinned(db, &slots[i]);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
	return count;
}

emdb_err emdb_count(emdb_db *db, uint64_t ns_id, uint64_t *ret_count)
{
	bool swept = false;
	unsigned int pin;
	struct ns *ns;

	/* What is due goes first, so that the number of slots is the answer. */
	if (!db_writable(db)) {
		uint64_t removed;

		swept = expire_step(db, UINT64_MAX, &removed) == EMDB_OK;
	}
	pin = epoch_pin(&db->epoch);
	ns = ns_find_pinned(db, ns_id);
	if (ns)
		*ret_count = swept ? hidx_count(&ns->idx) : count_live_pinned(db, ns);
	epoch_unpin(&db->epoch, pin);
	return ns ? EMDB_OK : EMDB_ERR_NOT_FOUND;
}

emdb_err emdb_is_empty(emdb_db *db, uint64_t ns_id, bool *ret_empty)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const struct ns *const ns = ns_find_pinned(db, ns_id);
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	bool empty = true;
	size_t n;

	while (ns && empty && (n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; empty && i < n; i++)
			empty = !slot_live_pinned(db, &slots[i]);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
	epoch_unpin(&db->epoch, pin);
	if (!ns)
		return EMDB_ERR_NOT_FOUND;
	*ret_empty = empty;
	return EMDB_OK;
}

/* ---- remove --------------------------------------------------------------------------- */

static emdb_err remove_begin(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
			     struct op *op)
{
	emdb_err err;

	err = op_begin(db, ns, key, key_len, false, op);
	if (err)
		return err;
	if (op->live && op->entry.rec.kind == REC_LINK) {
		hold_end(&op->hold);
		err = op_begin(db, ns, key, key_len, true, op);
		if (err)
			return err;
	}
	if (!op->live && !op->lost)
		err = EMDB_ERR_NOT_FOUND;
	else if (op->entry.rec.kind == REC_NS)
		err = EMDB_ERR_IS_NS;
	if (err)
		hold_end(&op->hold);
	return err;
}

emdb_err emdb_remove(emdb_db *db, uint64_t ns, const void *key, size_t key_len, void **ret_value,
		     size_t *ret_len)
{
	void *value = NULL;
	size_t len = 0;
	struct op op;
	struct rec r;
	emdb_err err;

	err = remove_begin(db, ns, key, key_len, &op);
	if (err)
		return err;
	if (ret_value)
		err = op.lost ? EMDB_ERR_CORRUPT : entry_value_pinned(db, &op.entry, &value, &len);
	if (!err) {
		rec_of_del(&op.entry, db_now_ns(db), &r);
		err = commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, &op.entry, NULL);
	}
	err = op_done(&op, err);
	if (err) {
		base_free(value);
		return err;
	}
	if (ret_value) {
		*ret_value = value;
		if (ret_len)
			*ret_len = len;
	}
	return EMDB_OK;
}

emdb_err emdb_clear(emdb_db *db, uint64_t ns_id)
{
	struct hold h;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	hold_begin(&h, db, true);
	if (ns_find_pinned(db, ns_id)) {
		struct rec r = { .kind = REC_CLEAR,
				 .mask = REC_F_TIME | REC_F_ID,
				 .time_ns = db_now_ns(db),
				 .id = ns_id };

		err = commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, NULL, NULL);
	} else {
		err = EMDB_ERR_NOT_FOUND;
	}
	hold_end(&h);
	return err ? err : db_written(db);
}

/* ---- Namespaces ------------------------------------------------------------------------ */

emdb_err emdb_ns_create(emdb_db *db, uint64_t parent, const void *name, size_t name_len,
			uint64_t *ret_ns)
{
	const struct emdb_create what = { .mode = STORE_DIR_MODE,
					  .uid = db->sb.uid,
					  .gid = db->sb.gid };
	struct emdb_attr attr;
	emdb_err err;

	err = emdb_node_create(db, parent, name, name_len, &what, &attr);
	if (err)
		return err;
	emdb_node_forget(db, attr.id, 1);
	*ret_ns = attr.id;
	return EMDB_OK;
}

emdb_err emdb_ns_open(emdb_db *db, uint64_t parent, const void *name, size_t name_len,
		      uint64_t *ret_ns)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;
	emdb_err err;

	err = kv_find_pinned(db, parent, name, name_len, &e);
	if (!err && e.rec.kind != REC_NS)
		err = EMDB_ERR_NOT_NS;
	if (!err)
		*ret_ns = e.id;
	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err emdb_ns_ensure(emdb_db *db, uint64_t parent, const void *name, size_t name_len,
			uint64_t *ret_ns)
{
	emdb_err err;

	/* Somebody may create or drop it between the two. */
	do {
		err = emdb_ns_open(db, parent, name, name_len, ret_ns);
		if (err == EMDB_ERR_NOT_FOUND)
			err = emdb_ns_create(db, parent, name, name_len, ret_ns);
	} while (err == EMDB_ERR_EXISTS);
	return err;
}

emdb_err emdb_ns_drop(emdb_db *db, uint64_t parent, const void *name, size_t name_len,
		      bool recursive)
{
	struct op op;
	struct rec r;
	emdb_err err;

	if (!recursive)
		return emdb_node_rmdir(db, parent, name, name_len, NULL);
	err = op_begin(db, parent, name, name_len, true, &op);
	if (err)
		return err;
	if (!op.live)
		return op_done(&op, EMDB_ERR_NOT_FOUND);
	if (op.entry.rec.kind != REC_NS)
		return op_done(&op, EMDB_ERR_NOT_NS);
	r = (struct rec){ .kind = REC_DROP,
			  .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID,
			  .ns = parent,
			  .key = name,
			  .key_len = name_len,
			  .time_ns = db_now_ns(db),
			  .id = op.entry.id };
	err = commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, &op.entry, NULL);
	return op_done(&op, err);
}

void emdb_free(void *p)
{
	base_free(p);
}
