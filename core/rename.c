/* SPDX-License-Identifier: Apache-2.0 */
/* Names that move: rename, exchange, link.  All hold the structure lock exclusively. */
#include "core/store.h"

struct rename {
	emdb_db *db;
	struct ns *from_ns, *to_ns;
	const void *key, *new_key;
	size_t key_len, new_key_len;
	unsigned int flags;
	struct entry src, dst;
	bool have_dst;    /* that has not expired */
	bool expired_dst; /* dst is what the index still has of it */
	int64_t now_ns;
};

/* Is `ns` the namespace `above`, or somewhere below it? */
static bool is_below(emdb_db *db, const struct ns *ns, uint64_t above)
{
	while (ns && ns->id != above) {
		if (ns->id == EMDB_ROOT)
			return false;
		ns = ns_any_pinned(db, atomic_load(&ns->parent));
	}
	return ns != NULL;
}

static emdb_err add_del(struct rename *rn, struct batch *b, const struct entry *e)
{
	struct rec r;

	rec_of_del(e, rn->now_ns, &r);
	return batch_add(b, &r);
}

/* A big object's metadata with another deadline. */
static emdb_err add_expiry(struct rename *rn, struct batch *b, const struct entry *e,
			   int64_t expires_ms)
{
	struct obj_view v;
	struct rec r;
	emdb_err err;

	if (!objtab_get_pinned(rn->db, e->id, &v) || !v.big)
		return EMDB_ERR_CORRUPT;
	err = rec_of_big(rn->db, e->id, v.big, rn->now_ns, &r);
	if (err)
		return err;
	r.expires_ms = expires_ms;
	r.mask &= ~REC_F_EXPIRES;
	if (expires_ms)
		r.mask |= REC_F_EXPIRES;
	return batch_add(b, &r);
}

/* The record that gives what e names a new name; what must come before it goes into b. */
static emdb_err named_record(struct rename *rn, struct batch *b, const struct entry *e,
			     int64_t expires_ms, struct rec *r)
{
	emdb_err err = EMDB_OK;

	if (e->rec.kind == REC_NS) {
		const struct ns *const child = ns_any_pinned(rn->db, e->id);

		return child ? rec_of_ns(rn->db, child, rn->now_ns, r) : EMDB_ERR_CORRUPT;
	}
	if (e->rec.kind == REC_PUT && !must_promote(e)) {
		rec_of_plain(e, rn->now_ns, r);
		r->expires_ms = expires_ms;
		r->mask &= ~REC_F_EXPIRES;
		if (expires_ms)
			r->mask |= REC_F_EXPIRES;
		return EMDB_OK;
	}
	if (e->rec.kind == REC_PUT)
		err = promote_batch(rn->db, e, expires_ms, b, false);
	else if (expires_ms != entry_expires_pinned(rn->db, e))
		err = add_expiry(rn, b, e, expires_ms);
	*r = (struct rec){ .kind = REC_LINK,
			   .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID,
			   .time_ns = rn->now_ns,
			   .id = e->id };
	return err;
}

/* Adds the records that give what e names the name ns/key; *r is the last. */
static emdb_err add_named_record(struct rename *rn, struct batch *b, const struct entry *e,
				 const struct ns *ns, const void *key, size_t key_len,
				 int64_t expires_ms, struct rec *r)
{
	const emdb_err err = named_record(rn, b, e, expires_ms, r);

	if (err)
		return err;
	if (r->kind != REC_LINK) {
		r->mask |= REC_F_FLAGS;
		r->flags = REC_FLAG_NEW_NAME;
	}
	r->ns = ns->id;
	r->key = key;
	r->key_len = key_len;
	return batch_add(b, r);
}

static emdb_err add_named(struct rename *rn, struct batch *b, const struct entry *e,
			  const struct ns *ns, const void *key, size_t key_len, int64_t expires_ms)
{
	struct rec r;

	return add_named_record(rn, b, e, ns, key, key_len, expires_ms, &r);
}

static emdb_err find_ends(struct rename *rn, uint64_t parent, uint64_t new_parent)
{
	emdb_db *const db = rn->db;
	emdb_err err;

	rn->from_ns = ns_find_pinned(db, parent);
	rn->to_ns = ns_find_pinned(db, new_parent);
	if (!rn->from_ns || !rn->to_ns)
		return EMDB_ERR_NOT_FOUND;
	err = entry_find_pinned(db, rn->from_ns, entry_hash(db, parent, rn->key, rn->key_len),
				rn->key, rn->key_len, false, &rn->src);
	if (err)
		return err;
	err = entry_find_pinned(db, rn->to_ns,
				entry_hash(db, new_parent, rn->new_key, rn->new_key_len),
				rn->new_key, rn->new_key_len, true, &rn->dst);
	rn->expired_dst = !err && ttl_expired(entry_expires_pinned(db, &rn->dst), db_now_ms(db));
	rn->have_dst = !err && !rn->expired_dst;
	return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
}

/* rename(2)'s conditions on what is at both ends. */
static emdb_err check_ends(struct rename *rn)
{
	const bool src_dir = rn->src.rec.kind == REC_NS;
	const bool dst_dir = rn->have_dst && rn->dst.rec.kind == REC_NS;

	if (src_dir && is_below(rn->db, rn->to_ns, rn->src.id))
		return EMDB_ERR_LOOP;
	if (rn->flags & EMDB_RENAME_EXCHANGE) {
		if (!rn->have_dst)
			return EMDB_ERR_NOT_FOUND;
		return dst_dir && is_below(rn->db, rn->from_ns, rn->dst.id) ? EMDB_ERR_LOOP
									    : EMDB_OK;
	}
	if (!rn->have_dst)
		return EMDB_OK;
	if (rn->flags & EMDB_RENAME_NOREPLACE)
		return EMDB_ERR_EXISTS;
	if (dst_dir && is_below(rn->db, rn->from_ns, rn->dst.id))
		return EMDB_ERR_NOT_EMPTY;
	if (src_dir && !dst_dir)
		return EMDB_ERR_NOT_NS;
	if (!src_dir && dst_dir)
		return EMDB_ERR_IS_NS;
	if (dst_dir) {
		const struct ns *const ns = ns_any_pinned(rn->db, rn->dst.id);

		if (ns && hidx_count(&ns->idx) != 0)
			return EMDB_ERR_NOT_EMPTY;
	}
	return EMDB_OK;
}

/*
 * The deadline after a file took another's name.  auto keeps the target's
 * when the source has none and looks like what an editor writes: made in the
 * same directory, after the target.
 */
static emdb_err deadline_after(struct rename *rn, int64_t *ret)
{
	const int64_t source = entry_expires_pinned(rn->db, &rn->src);
	struct emdb_attr from, to;
	emdb_err err;

	*ret = source;
	if (!rn->have_dst || source || rn->src.rec.kind == REC_NS ||
	    rn->flags & (EMDB_RENAME_TTL_SOURCE | EMDB_RENAME_EXCHANGE))
		return EMDB_OK;
	if (!(rn->flags & EMDB_RENAME_TTL_KEEP)) {
		err = entry_attr_pinned(rn->db, &rn->src, &from);
		if (!err)
			err = entry_attr_pinned(rn->db, &rn->dst, &to);
		if (err)
			return err;
		if (rn->from_ns != rn->to_ns || from.btime_ns < to.btime_ns)
			return EMDB_OK;
	}
	*ret = entry_expires_pinned(rn->db, &rn->dst);
	return EMDB_OK;
}

/* An object of its own under the name that was left, for those who look through it. */
static emdb_err add_whiteout(struct rename *rn, struct batch *b)
{
	const struct rec r = { .kind = REC_PUT,
			       .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_META | REC_F_RDEV |
				       REC_F_VALUE,
			       .ns = rn->from_ns->id,
			       .key = rn->key,
			       .key_len = rn->key_len,
			       .time_ns = rn->now_ns,
			       .mode = S_IFCHR,
			       .uid = rn->db->sb.uid,
			       .gid = rn->db->sb.gid };

	return batch_add(b, &r);
}

/* A plain file to a name that nothing has, or another plain file: what most renames are. */
static bool is_simple(const struct rename *rn)
{
	if (rn->src.rec.kind != REC_PUT || must_promote(&rn->src) ||
	    rn->flags & (EMDB_RENAME_EXCHANGE | EMDB_RENAME_WHITEOUT))
		return false;
	return !(rn->have_dst || rn->expired_dst) || rn->dst.rec.kind == REC_PUT;
}

/* What both records replace has been looked up. */
static emdb_err rename_simple(struct rename *rn, int64_t expires_ms)
{
	struct batch_known known[] = {
		{ .old = rn->have_dst || rn->expired_dst ? &rn->dst : NULL },
		{ .old = &rn->src },
	};
	struct batch b = BATCH_INIT;
	emdb_err err;

	err = add_named_record(rn, &b, &rn->src, rn->to_ns, rn->new_key, rn->new_key_len,
			       expires_ms, &known[0].rec);
	rec_of_del(&rn->src, rn->now_ns, &known[1].rec);
	if (!err)
		err = batch_add(&b, &known[1].rec);
	if (!err)
		err = batch_commit_known(rn->db, &b, known);
	batch_release(&b);
	return err;
}

static emdb_err rename_locked(struct rename *rn)
{
	struct batch b = BATCH_INIT;
	int64_t expires = 0;
	emdb_err err;

	/* Two names of one object: rename(2) does nothing and succeeds. */
	if (rn->have_dst && rn->src.id == rn->dst.id)
		return rn->flags & EMDB_RENAME_NOREPLACE ? EMDB_ERR_EXISTS : EMDB_OK;
	err = check_ends(rn);
	if (!err)
		err = deadline_after(rn, &expires);
	if (err)
		return err;
	if (is_simple(rn))
		return rename_simple(rn, expires);
	/* Only a DEL says that an object with other names has one less. */
	if (rn->have_dst && rn->dst.rec.kind == REC_LINK && !(rn->flags & EMDB_RENAME_EXCHANGE))
		err = add_del(rn, &b, &rn->dst);
	if (!err)
		err = add_named(rn, &b, &rn->src, rn->to_ns, rn->new_key, rn->new_key_len, expires);
	if (!err && rn->flags & EMDB_RENAME_EXCHANGE)
		err = add_named(rn, &b, &rn->dst, rn->from_ns, rn->key, rn->key_len,
				entry_expires_pinned(rn->db, &rn->dst));
	else if (!err)
		err = add_del(rn, &b, &rn->src);
	if (!err && rn->flags & EMDB_RENAME_WHITEOUT)
		err = add_whiteout(rn, &b);
	if (!err)
		err = batch_commit(rn->db, &b, 0);
	batch_release(&b);
	return err;
}

emdb_err emdb_node_rename(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			  uint64_t new_parent, const void *new_key, size_t new_key_len,
			  unsigned int flags)
{
	struct rename rn = { .db = db,
			     .key = key,
			     .key_len = key_len,
			     .new_key = new_key,
			     .new_key_len = new_key_len,
			     .flags = flags };
	uint64_t removed;
	struct hold h;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (key_len > EMDB_KEY_MAX || new_key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	if ((flags & EMDB_RENAME_EXCHANGE &&
	     flags & (EMDB_RENAME_NOREPLACE | EMDB_RENAME_WHITEOUT)) ||
	    (flags & EMDB_RENAME_TTL_KEEP && flags & EMDB_RENAME_TTL_SOURCE))
		return EMDB_ERR_INVAL;
	for (bool swept = false;; swept = true) {
		hold_begin(&h, db, true);
		rn.now_ns = db_now_ns(db);
		err = find_ends(&rn, parent, new_parent);
		if (!err)
			err = rename_locked(&rn);
		hold_end(&h);
		/* What has expired does not keep a directory from being empty. */
		if (err != EMDB_ERR_NOT_EMPTY || swept)
			break;
		err = expire_step(db, UINT64_MAX, &removed);
		if (err)
			break;
	}
	return err ? err : db_written(db);
}

/* ---- Hard links ---------------------------------------------------------------- */

static emdb_err link_locked(struct node *n, const struct ns *ns, const void *key, size_t key_len)
{
	emdb_db *const db = n->db;
	const struct rec r = { .kind = REC_LINK,
			       .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID,
			       .ns = ns->id,
			       .key = key,
			       .key_len = key_len,
			       .time_ns = db_now_ns(db),
			       .id = n->id };
	struct batch b = BATCH_INIT;
	struct emdb_attr attr;
	struct entry there;
	emdb_err err;

	err = entry_find_pinned(db, ns, entry_hash(db, ns->id, key, key_len), key, key_len, false,
				&there);
	if (err != EMDB_ERR_NOT_FOUND)
		return err ? err : EMDB_ERR_EXISTS;
	if (n->view.big) {
		big_attr(n->id, n->view.big, &attr);
		if (attr.nlink >= EMDB_LINK_MAX)
			return EMDB_ERR_TOO_MANY_LINKS;
		err = EMDB_OK;
	} else {
		err = promote_batch(db, &n->entry, entry_expires_pinned(db, &n->entry), &b,
				    !n->view.orphan);
	}
	if (!err)
		err = batch_add(&b, &r);
	if (!err)
		err = batch_commit(db, &b, 0);
	batch_release(&b);
	return err;
}

emdb_err emdb_node_link(emdb_db *db, uint64_t id, uint64_t parent, const void *key, size_t key_len,
			struct emdb_attr *ret_attr)
{
	const struct ns *ns;
	struct node n;
	emdb_err err = db_writable(db);

	if (!err && key_len > EMDB_KEY_MAX)
		err = EMDB_ERR_KEY_TOO_LONG;
	if (!err)
		err = node_lock(db, id, true, &n);
	if (err)
		return err;
	ns = ns_find_pinned(db, parent);
	if (n.ns)
		err = EMDB_ERR_IS_NS;
	else
		err = ns ? link_locked(&n, ns, key, key_len) : EMDB_ERR_NOT_FOUND;
	if (!err && !objtab_ref(db, id, &n.view))
		err = EMDB_ERR_NOT_FOUND;
	if (!err)
		err = emdb_node_getattr(db, id, ret_attr);
	node_unlock(&n);
	return err ? err : db_written(db);
}
