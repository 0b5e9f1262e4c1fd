/* SPDX-License-Identifier: Apache-2.0 */
/* Storing values: one, many, one if another is there. */
#include "core/kv_i.h"

emdb_err op_look_pinned(struct op *op, const void *key, size_t key_len)
{
	emdb_db *const db = op->db;
	int64_t expires;
	emdb_err err;

	op->found = op->live = op->lost = false;
	err = entry_find_pinned(db, op->ns, op->hash, key, key_len, true, &op->entry);
	/* An entry whose record is damaged is there. */
	if (is_loss(err))
		err = entry_find_lost_pinned(db, op->ns, op->hash, key, key_len, &op->entry);
	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	op->found = true;
	op->lost = op->entry.lost && op->entry.rec.kind == REC_PUT;
	expires = op->entry.slot & (REF_EXPIRES | REF_SPECIAL)
			  ? entry_expires_pinned(db, &op->entry)
			  : 0;
	op->live = !op->lost && !ttl_expired(expires, db_now_ms(db));
	return EMDB_OK;
}

emdb_err op_begin(emdb_db *db, uint64_t ns, const void *key, size_t key_len, bool exclusive,
		  struct op *op)
{
	emdb_err err;

	if (key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	err = db_writable(db);
	if (err)
		return err;
	memset(op, 0, sizeof(*op));
	op->db = db;
	op->hash = entry_hash(db, ns, key, key_len);
	hold_begin(&op->hold, db, exclusive);
	hold_stripe(&op->hold, op->hash);
	op->ns = ns_find_pinned(db, ns);
	err = op->ns ? op_look_pinned(op, key, key_len) : EMDB_ERR_NOT_FOUND;
	if (err)
		hold_end(&op->hold);
	return err;
}

emdb_err op_done(struct op *op, emdb_err err)
{
	emdb_db *const db = op->db;

	hold_end(&op->hold);
	return err ? err : db_written(db);
}

/* ---- put ----------------------------------------------------------------------- */

/* The PUT record of a value that fits one record; keeps the identity of what it replaces. */
static emdb_err put_record(struct op *op, const void *key, size_t key_len, const void *value,
			   size_t value_len, int64_t expires_ms, struct rec *r)
{
	int64_t expires;
	emdb_err err;

	memset(r, 0, sizeof(*r));
	err = expiry_for(op->db, op->ns, expires_ms, &expires);
	if (err)
		return err;
	if (op->live) {
		rec_of_plain(&op->entry, db_now_ns(op->db), r);
		r->mtime_ns = r->time_ns;
	} else {
		r->kind = REC_PUT;
		r->mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_VALUE;
		r->ns = op->ns->id;
		r->time_ns = db_now_ns(op->db);
		r->mtime_ns = r->atime_ns = r->btime_ns = r->time_ns;
	}
	r->key = key;
	r->key_len = key_len;
	r->value = value;
	r->value_len = value_len;
	r->expires_ms = expires;
	r->mask &= ~REC_F_EXPIRES;
	if (expires)
		r->mask |= REC_F_EXPIRES;
	return EMDB_OK;
}

static emdb_err put_plain(struct op *op, const void *key, size_t key_len, const void *value,
			  size_t value_len, int64_t expires_ms)
{
	const struct iovec iov = { (void *)(uintptr_t)value, value_len };
	struct rec r;
	const emdb_err err = put_record(op, key, key_len, value, value_len, expires_ms, &r);

	if (err)
		return err;
	return commit_rec(op->db, &r, &iov, value_len ? 1 : 0, 0, true,
			  op->found ? &op->entry : NULL, NULL);
}

/*
 * A value of many frames: its extents are written first, for an id that
 * nothing names yet, then one batch gives that id its metadata and its name.
 * A crash in between leaves bytes that nothing leads to.
 */
static emdb_err put_extents(struct op *op, uint64_t id, const uint8_t *value, size_t value_len,
			    struct buf *extents, uint64_t *ret_count)
{
	uint64_t off = 0, count = 0;

	while (off < value_len) {
		const size_t n = min_size(value_len - off, db_extent_max(op->db));
		const struct iovec iov = { (void *)(uintptr_t)(value + off), n };
		struct rec r = { .kind = REC_WRITE,
				 .mask = REC_F_TIME | REC_F_VALUE | REC_F_ID | REC_F_SIZE |
					 REC_F_OFF,
				 .time_ns = db_now_ns(op->db),
				 .id = id,
				 .size = off + n,
				 .off = off,
				 .value_len = n };
		uint8_t head[FMT_FIELDS_MAX], enc[FMT_EXTENT_BYTES_MAX];
		struct rec_extent e = { off, n, 0, 0 };
		struct iovec both[2] = { { head, 0 }, iov };
		emdb_err err;

		both[0].iov_len = fmt_rec_encode(&r, head, sizeof(head));
		err = journal_append(op->db->j, REC_WRITE, both, 2, 0, &e.ref);
		if (err)
			return err;
		if (buf_append(extents, enc, fmt_extent_encode(&e, off, enc)))
			return EMDB_ERR_NOMEM;
		off += n;
		count++;
	}
	*ret_count = count;
	return EMDB_OK;
}

/* What a promoted object keeps of its metadata stands in its INODE record, not in the entry's. */
static emdb_err keep_of_big(struct op *op, struct rec *inode)
{
	struct obj_view v;
	struct rec old;
	emdb_err err;

	if (!objtab_get_pinned(op->db, op->entry.id, &v) || !v.big)
		return EMDB_ERR_CORRUPT;
	err = rec_of_big(op->db, op->entry.id, v.big, inode->time_ns, &old);
	if (err)
		return err;
	inode->mask |= old.mask & (REC_F_XATTRS | REC_F_RDEV);
	inode->xattrs = old.xattrs;
	inode->xattrs_len = old.xattrs_len;
	inode->rdev = old.rdev;
	return EMDB_OK;
}

/* The name under which the object is found. */
static struct rec link_record(const struct op *op, const struct emdb_item *it, uint64_t id,
			      int64_t time_ns)
{
	struct rec link = { .kind = REC_LINK,
			    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID,
			    .ns = op->ns->id,
			    .key = it->key,
			    .key_len = it->key_len,
			    .time_ns = time_ns,
			    .id = id };

	/* The name is not new, and what happened to the object is in its INODE record. */
	if (op->live) {
		link.mask |= REC_F_ORIGIN;
		link.origin = ref_lsn(op->entry.ref);
	}
	return link;
}

/* structure held exclusively. */
static emdb_err put_big(struct op *op, const struct emdb_item *it, struct batch *b, struct buf *own)
{
	emdb_db *const db = op->db;
	struct own_id mine = { 0, false };
	struct buf extents = BUF_INIT;
	struct emdb_attr attr;
	struct rec inode, link;
	uint64_t id;
	emdb_err err;

	err = put_record(op, it->key, it->key_len, NULL, 0, it->expires_ms, &inode);
	if (!err && op->live)
		err = entry_attr_pinned(db, &op->entry, &attr);
	if (!err && op->live && op->entry.rec.kind == REC_LINK)
		err = keep_of_big(op, &inode);
	/* Under an id of their own: a crash half way must not touch what the old object maps. */
	if (!err)
		err = reserve_id(db, &mine.id);
	if (err)
		return err;
	id = op->live ? op->entry.id : mine.id;
	mine.used = !op->live;
	if (buf_append(own, &mine, sizeof(mine)))
		return EMDB_ERR_NOMEM;
	err = put_extents(op, mine.id, it->value, it->value_len, &extents, &inode.extent_count);
	if (err)
		goto out;
	if (!op->live)
		rec_attr(db, &inode, 0, &attr);
	link = link_record(op, it, id, inode.time_ns);
	inode.kind = REC_INODE;
	inode.mask &= REC_F_EXPIRES | REC_F_XATTRS | REC_F_RDEV;
	inode.mask |= REC_F_TIME | REC_F_META | REC_F_TIMES | REC_F_ID | REC_F_SIZE | REC_F_EXTENTS;
	inode.id = id;
	inode.mode = attr.mode;
	inode.uid = attr.uid;
	inode.gid = attr.gid;
	inode.size = it->value_len;
	inode.mtime_ns = inode.time_ns;
	inode.atime_ns = attr.atime_ns;
	inode.btime_ns = attr.btime_ns;
	inode.extents = extents.data;
	inode.extents_len = extents.len;
	inode.key_len = inode.value_len = 0;
	err = batch_add(b, &inode);
	if (!err &&
	    (!op->found || op->entry.lost || op->entry.id != id || op->entry.rec.kind != REC_LINK))
		err = batch_add(b, &link);
out:
	buf_release(&extents);
	return err;
}

void put_batch_end(emdb_db *db, struct buf *own, bool failed)
{
	const struct own_id *const ids = (const struct own_id *)(void *)own->data;

	/* A replay makes an object of what was written under an id that came to nothing. */
	for (size_t i = 0; i < own->len / sizeof(*ids); i++)
		if (failed || !ids[i].used)
			checkpoint_note(db, ids[i].id, true);
	buf_release(own);
}

/* structure held exclusively. */
static emdb_err put_big_alone(struct op *op, const struct emdb_item *it)
{
	struct batch b = BATCH_INIT;
	struct buf own = BUF_INIT;
	emdb_err err;

	err = put_big(op, it, &b, &own);
	if (!err)
		err = batch_commit(op->db, &b, 0);
	put_batch_end(op->db, &own, err);
	batch_release(&b);
	return err;
}

/* Does storing that much over what is there take the structure lock? */
static bool is_big(const struct op *op, size_t value_len)
{
	return value_len > db_extent_max(op->db) || (op->live && op->entry.rec.kind == REC_LINK);
}

/* What op_begin() found gets the value.  BUSY: only exclusively. */
static emdb_err put_locked(struct op *op, const struct emdb_item *it)
{
	if (op->live && op->entry.rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	if (!is_big(op, it->value_len))
		return put_plain(op, it->key, it->key_len, it->value, it->value_len,
				 it->expires_ms);
	/* A promoted object keeps its kind: other names may share it. */
	return op->hold.exclusive ? put_big_alone(op, it) : EMDB_ERR_BUSY;
}

emdb_err emdb_put(emdb_db *db, uint64_t ns, const void *key, size_t key_len, const void *value,
		  size_t value_len, int64_t expires_ms)
{
	const struct emdb_item it = { key, key_len, value, value_len, expires_ms, false };
	bool exclusive = value_len > db_extent_max(db);
	struct op op;
	emdb_err err;

	if (value_len > EMDB_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
	do {
		err = op_begin(db, ns, key, key_len, exclusive, &op);
		if (err)
			return err;
		err = op_done(&op, put_locked(&op, &it));
	} while (err == EMDB_ERR_BUSY && (exclusive = !exclusive));
	return err;
}

/* ---- put_many --------------------------------------------------------------------- */

/*
 * A promoted object with this one name becomes plain again with its new value,
 * and keeps what else it has.  NOT_FOUND: it has other names.
 */
static emdb_err put_over_big(struct op *op, const struct emdb_item *it, struct rec *r)
{
	emdb_db *const db = op->db;
	struct obj_view v;
	bool alone;
	emdb_err err;

	if (!objtab_get_pinned(db, op->entry.id, &v) || !v.big)
		return EMDB_ERR_CORRUPT;
	mutex_lock(&v.big->lock);
	alone = v.big->nlinks == 1;
	mutex_unlock(&v.big->lock);
	if (!alone)
		return EMDB_ERR_NOT_FOUND;
	err = rec_of_big(db, op->entry.id, v.big, db_now_ns(db), r);
	if (!err)
		err = expiry_for(db, op->ns, it->expires_ms, &r->expires_ms);
	r->kind = REC_PUT;
	r->mask &= ~(REC_F_SIZE | REC_F_EXPIRES);
	r->mask |= REC_F_NS | REC_F_KEY | REC_F_VALUE | (r->expires_ms ? REC_F_EXPIRES : 0);
	r->ns = op->ns->id;
	r->key = it->key;
	r->key_len = it->key_len;
	r->mtime_ns = r->time_ns;
	r->value = it->value;
	r->value_len = it->value_len;
	return err;
}

emdb_err put_batch(struct op *op, const struct emdb_item *it, struct batch *b, struct buf *own)
{
	struct rec r;
	emdb_err err = EMDB_ERR_NOT_FOUND;

	if (op->live && op->entry.rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	if (!is_big(op, it->value_len)) {
		err = put_record(op, it->key, it->key_len, it->value, it->value_len, it->expires_ms,
				 &r);
		return err ? err : batch_add(b, &r);
	}
	if (it->value_len <= db_extent_max(op->db))
		err = put_over_big(op, it, &r);
	if (err == EMDB_ERR_NOT_FOUND)
		return put_big(op, it, b, own);
	return err ? err : batch_add(b, &r);
}

#define MANY_AHEAD 8

/* Does an item before this one remove its key? */
static bool removed_before(const struct emdb_item *items, const struct emdb_item *it)
{
	for (const struct emdb_item *i = items; i < it; i++)
		if (i->remove && i->key_len == it->key_len &&
		    (!it->key_len || memcmp(i->key, it->key, it->key_len) == 0))
			return true;
	return false;
}

static emdb_err many_add(emdb_db *db, struct ns *ns, const struct emdb_item *items,
			 const struct emdb_item *it, struct batch *b)
{
	struct op op = { .db = db, .ns = ns };
	struct rec r;
	emdb_err err;

	if (it->key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	if (it->value_len > db_extent_max(db))
		return EMDB_ERR_VALUE_TOO_LARGE;
	op.hash = entry_hash(db, ns->id, it->key, it->key_len);
	err = op_look_pinned(&op, it->key, it->key_len);
	if (err)
		return err;
	if (op.found && op.entry.rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	if (it->remove && op.found) {
		rec_of_del(&op.entry, db_now_ns(db), &r);
		return batch_add(b, &r);
	}
	if (it->remove) {
		/* Nothing to remove, unless an item before this one puts it there. */
		if (b->count == 0)
			return EMDB_OK;
		r = (struct rec){ .kind = REC_DEL,
				  .mask = REC_F_NS | REC_F_KEY | REC_F_TIME,
				  .ns = ns->id,
				  .key = it->key,
				  .key_len = it->key_len,
				  .time_ns = db_now_ns(db) };
		return batch_add(b, &r);
	}
	if (op.live && op.entry.rec.kind == REC_LINK && !removed_before(items, it)) {
		err = put_over_big(&op, it, &r);
		if (err != EMDB_ERR_NOT_FOUND)
			return err ? err : batch_add(b, &r);
	}
	/* Other names share the object: this one gets a new one. */
	if (op.found && op.entry.rec.kind == REC_LINK) {
		op.live = false;
		rec_of_del(&op.entry, db_now_ns(db), &r);
		err = batch_add(b, &r);
		if (err)
			return err;
	}
	err = put_record(&op, it->key, it->key_len, it->value, it->value_len, it->expires_ms, &r);
	return err ? err : batch_add(b, &r);
}

/* Looking for absent keys is waiting for memory: the index is asked for what follows meanwhile. */
static void many_prefetch(emdb_db *db, const struct ns *ns, const struct emdb_item *items, size_t i,
			  size_t n)
{
	const struct emdb_item *it;

	if (n - i <= MANY_AHEAD)
		return;
	it = &items[i + MANY_AHEAD];
	if (it->key_len <= EMDB_KEY_MAX)
		hidx_prefetch_pinned(&ns->idx, entry_hash(db, ns->id, it->key, it->key_len));
}

emdb_err emdb_put_many(emdb_db *db, uint64_t ns_id, const struct emdb_item *items, size_t n)
{
	struct batch b = BATCH_INIT;
	struct hold h;
	struct ns *ns;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	hold_begin(&h, db, true);
	ns = ns_find_pinned(db, ns_id);
	if (!ns)
		err = EMDB_ERR_NOT_FOUND;
	for (size_t i = 0; !err && i < n; i++) {
		many_prefetch(db, ns, items, i, n);
		err = many_add(db, ns, items, &items[i], &b);
	}
	if (!err)
		err = batch_commit(db, &b, 0);
	hold_end(&h);
	batch_release(&b);
	return err ? err : db_written(db);
}

/* ---- Compare and set ----------------------------------------------------------------- */

/* Is the value of the entry this one?  Needs what keeps a promoted object from changing. */
static emdb_err value_is(emdb_db *db, const struct entry *e, const struct emdb_value *v,
			 bool *ret_same)
{
	void *copy;
	size_t len;
	emdb_err err;

	if (e->rec.kind == REC_PUT && e->rec.value_len != v->len) {
		*ret_same = false;
		return EMDB_OK;
	}
	err = entry_value_pinned(db, e, &copy, &len);
	if (err)
		return err;
	*ret_same = len == v->len && (len == 0 || memcmp(copy, v->data, len) == 0);
	base_free(copy);
	return EMDB_OK;
}

/* BUSY: only exclusively. */
static emdb_err cas_locked(struct op *op, const struct emdb_value *expected,
			   const struct emdb_item *it)
{
	emdb_db *const db = op->db;
	bool same = !expected;
	struct rec r;
	emdb_err err;

	if (op->live && op->entry.rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	if (op->live && op->entry.rec.kind == REC_LINK && !op->hold.exclusive)
		return EMDB_ERR_BUSY;
	if (op->lost)
		return EMDB_ERR_CORRUPT; /* neither there nor absent, as far as anybody knows */
	if (op->live != (expected != NULL))
		return EMDB_ERR_CONFLICT;
	if (expected) {
		err = value_is(db, &op->entry, expected, &same);
		if (err)
			return err;
	}
	if (!same)
		return EMDB_ERR_CONFLICT;
	if (!it->remove)
		return put_locked(op, it);
	if (!op->live)
		return EMDB_OK;
	rec_of_del(&op->entry, db_now_ns(db), &r);
	return commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, &op->entry, NULL);
}

emdb_err emdb_cas(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
		  const struct emdb_value *expected, const struct emdb_value *desired,
		  int64_t expires_ms)
{
	const struct emdb_item it = { .key = key,
				      .key_len = key_len,
				      .value = desired ? desired->data : NULL,
				      .value_len = desired ? desired->len : 0,
				      .expires_ms = expires_ms,
				      .remove = !desired };
	bool exclusive = it.value_len > db_extent_max(db);
	struct op op;
	emdb_err err;

	if (it.value_len > EMDB_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
	do {
		err = op_begin(db, ns, key, key_len, exclusive, &op);
		if (err)
			return err;
		err = op_done(&op, cas_locked(&op, expected, &it));
	} while (err == EMDB_ERR_BUSY && (exclusive = !exclusive));
	return err;
}
