/* SPDX-License-Identifier: Apache-2.0 */
/* Committing records, and what plain and big objects have in common. */
#include "core/store.h"

#define HEAD_STACK   768u
#define VALUE_PIECES 4
#define TOUCH_STEP   4096u
/* Room that a batch takes beside its first record: for another without a value. */
#define BATCH_MORE 256u

emdb_err copy_mapped(void *dst, const void *src, size_t n)
{
	struct guard g;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	if (n)
		memcpy(dst, src, n);
	guard_end(&g);
	return EMDB_OK;
}

emdb_err same_mapped(const void *mapped, const void *p, size_t n, bool *ret_same)
{
	struct guard g;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	*ret_same = n == 0 || memcmp(mapped, p, n) == 0;
	guard_end(&g);
	return EMDB_OK;
}

static EMDB_NOINLINE void touch_pieces(const struct iovec *iov, int n)
{
	for (int i = 0; i < n; i++) {
		const volatile uint8_t *const p = iov[i].iov_base;

		for (size_t at = 0; at < iov[i].iov_len; at += TOUCH_STEP)
			(void)p[at];
		if (iov[i].iov_len)
			(void)p[iov[i].iov_len - 1];
	}
}

emdb_err mapped_there(const struct iovec *iov, int n)
{
	struct guard g;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	touch_pieces(iov, n);
	guard_end(&g);
	return EMDB_OK;
}

emdb_err db_writable(emdb_db *db)
{
	if (db->read_only)
		return EMDB_ERR_READ_ONLY;
	if (unlikely(atomic_load_explicit(&db->failed, memory_order_relaxed)))
		return EMDB_ERR_FAILED;
	return EMDB_OK;
}

emdb_err db_fail(emdb_db *db, emdb_err err)
{
	if (!atomic_exchange(&db->failed, true) && db->log)
		db->log(db->log_ctx, EMDB_LOG_ERROR,
			"memory no longer matches the journal: read-only until reopened");
	return err;
}

emdb_err db_written(emdb_db *db)
{
	return db->flush == EMDB_FLUSH_WRITE_THROUGH ? journal_sync(db->j) : EMDB_OK;
}

/* ---- Committing ------------------------------------------------------------ */

/* As a decoder would have it, so that memory is what a replay would make of it. */
static void rec_as_decoded(struct rec *r)
{
	if (!(r->mask & REC_F_TIMES))
		r->mtime_ns = r->atime_ns = r->btime_ns = r->time_ns;
}

/* Its key and attributes may lie in the journal. */
static emdb_err encode(const struct rec *r, uint8_t *p, size_t max, size_t *ret_n)
{
	struct guard g;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	*ret_n = fmt_rec_encode(r, p, max);
	guard_end(&g);
	return EMDB_OK;
}

emdb_err commit_rec(emdb_db *db, struct rec *r, const struct iovec *value_iov, int value_pieces,
		    unsigned int flags, bool old_known, const struct entry *old, uint64_t *ret_ref)
{
	const size_t max = fmt_rec_head_max(r);
	struct apply a = APPLY_INIT(db, false);
	struct iovec iov[1 + VALUE_PIECES];
	uint8_t stack[HEAD_STACK];
	uint8_t *head = stack;
	uint64_t lsn = 0;
	emdb_err err, end;
	size_t n;

	emdb_assert(value_pieces <= VALUE_PIECES);
	rec_as_decoded(r);
	if (max > sizeof(stack)) {
		head = base_malloc(max);
		if (!head)
			return EMDB_ERR_NOMEM;
	}
	err = encode(r, head, max, &n);
	iov[0] = (struct iovec){ head, err ? 0 : n };
	for (int i = 0; i < value_pieces; i++)
		iov[1 + i] = value_iov[i];
	if (!err)
		err = journal_append(db->j, r->kind, iov, 1 + value_pieces, flags, &lsn);
	if (head != stack)
		base_free(head);
	if (err)
		return err;
	err = apply_rec(&a, r, lsn, (uint32_t)journal_frame_size(db->j, n + r->value_len),
			old_known, old);
	end = apply_end(&a);
	if (err || end)
		return db_fail(db, err ? err : end);
	if (ret_ref)
		*ret_ref = lsn;
	return EMDB_OK;
}

/*
 * The id of an object made in several frames must be fixed before its first
 * one: a record about an object that cannot exist takes an LSN and says nothing.
 */
emdb_err reserve_id(emdb_db *db, uint64_t *ret_id)
{
	const struct rec r = { .kind = REC_TRUNC,
			       .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE,
			       .time_ns = db_now_ns(db),
			       .id = UINT64_MAX };
	uint8_t head[FMT_FIELDS_MAX];
	const struct iovec iov = { head, fmt_rec_encode(&r, head, sizeof(head)) };
	uint64_t lsn;
	const emdb_err err = journal_append(db->j, REC_TRUNC, &iov, 1, 0, &lsn);

	if (!err)
		*ret_id = lsn / 8;
	return err;
}

/* The buffer holds a whole frame, its header still empty. */
emdb_err batch_add(struct batch *b, const struct rec *r)
{
	const size_t max = fmt_rec_head_max(r);
	size_t start, len;
	uint8_t *p;

	if (b->buf.len == 0 && (buf_reserve(&b->buf, FMT_BATCH_HEADER + FMT_BATCH_PREFIX + max +
							     r->value_len + BATCH_MORE) ||
				buf_append_zero(&b->buf, FMT_BATCH_HEADER)))
		return EMDB_ERR_NOMEM;
	if (b->buf.len + max + r->value_len > FMT_FRAME_MAX / 2)
		return EMDB_ERR_TXN_TOO_BIG;
	if (buf_reserve(&b->buf, FMT_BATCH_PREFIX + max + r->value_len + 8))
		return EMDB_ERR_NOMEM;
	start = b->buf.len;
	p = b->buf.data + start;
	if (encode(r, p + FMT_BATCH_PREFIX, max, &len))
		return EMDB_ERR_IO;
	len += FMT_BATCH_PREFIX;
	/* It may lie in the journal. */
	if (r->value_len && copy_mapped(p + len, r->value, r->value_len))
		return EMDB_ERR_IO;
	len += r->value_len;
	memset(p + len, 0, 8);
	len = align_up(len, 8);
	put_u32(p, (uint32_t)(len / 8) | (uint32_t)r->kind << 24);
	put_u32(p + 4, (uint32_t)(start / 8));
	b->buf.len += len;
	b->count++;
	return EMDB_OK;
}

/* Makes room for tags: records and their prefixes are what they will be on disk. */
static emdb_err batch_spread(struct batch *b, size_t tag)
{
	struct buf wide = BUF_INIT;
	size_t at = FMT_BATCH_HEADER, len;

	if (tag == 0)
		return EMDB_OK;
	if (buf_reserve(&wide, b->buf.len + b->count * tag))
		return EMDB_ERR_NOMEM;
	memcpy(wide.data, b->buf.data, FMT_BATCH_HEADER);
	wide.len = FMT_BATCH_HEADER;
	for (; at < b->buf.len; at += len) {
		const uint8_t *const from = b->buf.data + at;
		uint8_t *const to = wide.data + wide.len;
		const uint32_t word = get_u32(from);

		len = (word & 0xffffffu) * 8u;
		memcpy(to, from, len);
		memset(to + len, 0, tag);
		put_u32(to, word + (uint32_t)(tag / 8));
		put_u32(to + 4, (uint32_t)(wide.len / 8));
		wide.len += len + tag;
	}
	buf_release(&b->buf);
	b->buf = wide;
	return EMDB_OK;
}

static emdb_err batch_append(emdb_db *db, struct batch *b, unsigned int flags, uint64_t *ret_lsn)
{
	struct iovec iov;
	emdb_err err;

	err = batch_spread(b, journal_tag_size(db->j));
	if (err)
		return err;
	put_u32(b->buf.data + FMT_FRAME_HEADER, b->count);
	iov = (struct iovec){ b->buf.data + FMT_FRAME_HEADER, b->buf.len - FMT_FRAME_HEADER };
	if (iov.iov_len > journal_payload_max(db->j))
		return EMDB_ERR_TXN_TOO_BIG;
	return journal_append(db->j, FRAME_BATCH, &iov, 1, flags, ret_lsn);
}

emdb_err batch_commit(emdb_db *db, struct batch *b, unsigned int flags)
{
	struct apply a = APPLY_INIT(db, false);
	struct frame f;
	uint64_t lsn;
	emdb_err err;

	if (b->count == 0)
		return EMDB_OK;
	err = batch_append(db, b, flags, &lsn);
	if (err)
		return err;
	f = (struct frame){ FRAME_BATCH, lsn, (uint32_t)b->buf.len, 0, b->buf.data };
	err = apply_frame(&a, &f);
	return err ? db_fail(db, err) : EMDB_OK;
}

emdb_err batch_commit_known(emdb_db *db, struct batch *b, struct batch_known *known)
{
	struct apply a = APPLY_INIT(db, false);
	size_t at = FMT_BATCH_HEADER;
	uint64_t lsn;
	emdb_err err, end;

	err = batch_append(db, b, 0, &lsn);
	if (err)
		return err;
	for (uint32_t i = 0; !err && i < b->count; i++) {
		const uint32_t size = (get_u32(b->buf.data + at) & 0xffffffu) * 8u;

		rec_as_decoded(&known[i].rec);
		err = apply_rec(&a, &known[i].rec, (lsn + at) | REF_BATCH, size, true,
				known[i].old);
		at += size;
	}
	end = apply_end(&a);
	return err || end ? db_fail(db, err ? err : end) : EMDB_OK;
}

void batch_release(struct batch *b)
{
	buf_release(&b->buf);
	b->count = 0;
}

/* ---- Records of what is ----------------------------------------------------- */

void rec_of_plain(const struct entry *e, int64_t now_ns, struct rec *r)
{
	*r = e->rec;
	r->kind = REC_PUT;
	r->mask |= REC_F_ID | REC_F_TIMES;
	r->mask &= ~(REC_F_ORIGIN | REC_F_FLAGS);
	r->id = e->id;
	r->time_ns = now_ns;
}

void rec_of_del(const struct entry *e, int64_t now_ns, struct rec *r)
{
	*r = (struct rec){ .kind = REC_DEL,
			   .mask = REC_F_NS | REC_F_KEY | REC_F_TIME,
			   .ns = e->rec.ns,
			   .key = e->rec.key,
			   .key_len = e->rec.key_len,
			   .time_ns = now_ns,
			   .id = e->id };
	if (e->rec.kind == REC_LINK)
		r->mask |= REC_F_ID;
}

emdb_err rec_of_big(emdb_db *db, uint64_t id, struct big *big, int64_t now_ns, struct rec *r)
{
	struct rec old = { .kind = 0 };

	memset(r, 0, sizeof(*r));
	mutex_lock(&big->lock);
	if (big->inode_ref) {
		const emdb_err err = journal_rec_pinned(db->j, big->inode_ref, &old, NULL);

		/* A repair goes on without what only the lost record had: the attributes. */
		if (err && !(db->damage && is_loss(err))) {
			mutex_unlock(&big->lock);
			return err;
		}
		if (err)
			old.mask = 0;
	}
	r->kind = REC_INODE;
	r->mask = REC_F_TIME | REC_F_META | REC_F_TIMES | REC_F_ID | REC_F_SIZE;
	r->id = id;
	r->size = big->size;
	r->mode = big->mode;
	r->uid = big->uid;
	r->gid = big->gid;
	r->time_ns = now_ns;
	r->mtime_ns = big->mtime;
	r->atime_ns = big->atime;
	r->btime_ns = big->btime;
	r->expires_ms = big->expires_ms;
	if (r->expires_ms)
		r->mask |= REC_F_EXPIRES;
	r->rdev = big->rdev;
	if (r->rdev)
		r->mask |= REC_F_RDEV;
	if (old.mask & REC_F_XATTRS) {
		r->mask |= REC_F_XATTRS;
		r->xattrs = old.xattrs;
		r->xattrs_len = old.xattrs_len;
	}
	mutex_unlock(&big->lock);
	return EMDB_OK;
}

emdb_err rec_of_ns(emdb_db *db, const struct ns *ns, int64_t now_ns, struct rec *r)
{
	const uint64_t ref = atomic_load(&ns->ref);

	memset(r, 0, sizeof(*r));
	if (ref) {
		const emdb_err err = journal_rec_pinned(db->j, ref, r, NULL);

		if (err && !(db->damage && is_loss(err)))
			return err;
		if (err)
			memset(r, 0, sizeof(*r));
	}
	r->kind = REC_NS;
	r->mask &= REC_F_XATTRS;
	r->mask |= REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_META | REC_F_TIMES | REC_F_ID;
	r->ns = ns->id == EMDB_ROOT ? 0 : atomic_load(&ns->parent);
	r->id = ns->id;
	r->time_ns = now_ns;
	r->mode = atomic_load_explicit(&ns->mode, memory_order_relaxed);
	r->uid = atomic_load_explicit(&ns->uid, memory_order_relaxed);
	r->gid = atomic_load_explicit(&ns->gid, memory_order_relaxed);
	r->mtime_ns = atomic_load_explicit(&ns->mtime, memory_order_relaxed);
	r->atime_ns = atomic_load_explicit(&ns->atime, memory_order_relaxed);
	r->btime_ns = atomic_load_explicit(&ns->btime, memory_order_relaxed);
	r->ttl_default_ms = atomic_load_explicit(&ns->ttl_default_ms, memory_order_relaxed);
	r->ttl_basis = atomic_load_explicit(&ns->ttl_basis, memory_order_relaxed);
	if (r->ttl_default_ms || r->ttl_basis)
		r->mask |= REC_F_TTLDEF;
	return EMDB_OK;
}

emdb_err expiry_for(emdb_db *db, const struct ns *ns, int64_t expires_ms, int64_t *ret)
{
	int64_t ttl;

	if (expires_ms == EMDB_TTL_NEVER) {
		*ret = 0;
		return EMDB_OK;
	}
	if (expires_ms < 0)
		return EMDB_ERR_INVAL;
	if (expires_ms > TTL_MAX_MS)
		return EMDB_ERR_OVERFLOW;
	if (expires_ms != EMDB_TTL_DEFAULT) {
		*ret = expires_ms;
		return EMDB_OK;
	}
	ttl = atomic_load_explicit(&ns->ttl_default_ms, memory_order_relaxed);
	if (!ttl)
		ttl = db->default_ttl_ms;
	*ret = ttl ? ttl_deadline(db_now_ms(db), ttl) : 0;
	return EMDB_OK;
}

/* ---- Locking an object --------------------------------------------------------- */

/* The index entry of a plain object at ns/hash. */
static emdb_err plain_entry(emdb_db *db, uint64_t id, uint64_t ns_id, uint64_t hash,
			    struct entry *ret)
{
	const struct ns *const ns = ns_any_pinned(db, ns_id);
	uint64_t slots[16];
	emdb_err bad = EMDB_ERR_NOT_FOUND;
	size_t n;

	if (!ns)
		return EMDB_ERR_NOT_FOUND;
	n = min_size(hidx_find_pinned(&ns->idx, hash, slots, ARRAY_SIZE(slots)), ARRAY_SIZE(slots));
	for (size_t i = 0; i < n; i++) {
		const emdb_err err = entry_read_pinned(db, hash, slots[i], true, ret);

		if (!err && ret->id == id)
			return EMDB_OK;
		if (err)
			bad = err;
	}
	return bad;
}

emdb_err big_entry_pinned(emdb_db *db, uint64_t id, struct big *big, uint32_t i, struct entry *ret)
{
	struct link link;

	mutex_lock(&big->lock);
	if (i >= big->nlinks) {
		mutex_unlock(&big->lock);
		return EMDB_ERR_NOT_FOUND;
	}
	link = big->links[i];
	mutex_unlock(&big->lock);
	return plain_entry(db, id, link.ns, link.hash, ret);
}

static emdb_err orphan_entry(emdb_db *db, const struct obj_view *v, struct entry *ret)
{
	return entry_read_pinned(db, v->hash, v->ref, true, ret);
}

/* Which lock is held depends on a value: more than clang's analysis can follow. */
void hold_begin(struct hold *h, emdb_db *db, bool exclusive) EMDB_NO_TSA
{
	*h = (struct hold){ .db = db, .exclusive = exclusive };
	if (exclusive)
		rwlock_wrlock(&db->structure);
	else
		rwlock_rdlock(&db->structure);
	h->pin = epoch_pin(&db->epoch);
}

void hold_stripe(struct hold *h, uint64_t hash) EMDB_NO_TSA
{
	if (h->exclusive)
		return;
	emdb_dassert(!h->stripe);
	h->stripe = stripe_of(h->db, hash);
	mutex_lock(h->stripe);
}

void hold_end(struct hold *h) EMDB_NO_TSA
{
	if (h->stripe)
		mutex_unlock(h->stripe);
	epoch_unpin(&h->db->epoch, h->pin);
	if (h->exclusive)
		rwlock_wrunlock(&h->db->structure);
	else
		rwlock_rdunlock(&h->db->structure);
}

static emdb_err find_locked(struct node *n)
{
	emdb_db *const db = n->db;

	n->ns = ns_any_pinned(db, n->id);
	if (n->ns) {
		hold_stripe(&n->hold, mix64(n->id));
		return EMDB_OK;
	}
	if (!objtab_get_pinned(db, n->id, &n->view))
		return EMDB_ERR_NOT_FOUND;
	if (n->view.big) {
		hold_stripe(&n->hold, mix64(n->id));
		return EMDB_OK;
	}
	/* On its way while the index is asked. */
	journal_prefetch_pinned(db->j, n->view.ref);
	/*
	 * The kind of an object and the place of its entry change only under
	 * the exclusive lock, so they hold; it may lose its name before the
	 * stripe is ours, hence the second look.
	 */
	hold_stripe(&n->hold, n->view.hash);
	if (!objtab_get_pinned(db, n->id, &n->view))
		return EMDB_ERR_NOT_FOUND;
	if (n->view.orphan)
		return orphan_entry(db, &n->view, &n->entry);
	return plain_entry(db, n->id, n->view.ns, n->view.hash, &n->entry);
}

emdb_err node_lock(emdb_db *db, uint64_t id, bool exclusive, struct node *ret)
{
	emdb_err err;

	memset(ret, 0, sizeof(*ret));
	ret->db = db;
	ret->id = id;
	hold_begin(&ret->hold, db, exclusive);
	err = find_locked(ret);
	/*
	 * A namespace's times change with its entries, whose writers hold other
	 * stripes: only alone does its record say what memory says then.
	 */
	if (!err && ret->ns && !exclusive) {
		hold_end(&ret->hold);
		hold_begin(&ret->hold, db, true);
		err = find_locked(ret);
	}
	if (err)
		node_unlock(ret);
	return err;
}

void node_unlock(struct node *n)
{
	hold_end(&n->hold);
}

/* ---- Promotion -------------------------------------------------------------------- */

bool must_promote(const struct entry *e)
{
	return e->rec.value_len > STORE_INLINE_MAX;
}

emdb_err commit_plain(struct node *n, struct rec *r, uint64_t *ret_ref)
{
	const struct iovec iov = { (void *)(uintptr_t)r->value, r->value_len };
	const emdb_err err = mapped_there(&iov, 1);

	return err ? err
		   : commit_rec(n->db, r, &iov, r->value_len ? 1 : 0, 0, true, &n->entry, ret_ref);
}

/* An INODE record that says what the plain object of e says, its bytes left where they are. */
static emdb_err add_inode_of_plain(emdb_db *db, const struct entry *e, int64_t expires_ms,
				   struct batch *b)
{
	const struct rec_extent ext = { 0, e->rec.value_len, e->ref, 0 };
	uint8_t extent[FMT_EXTENT_BYTES_MAX];
	struct emdb_attr attr;
	struct rec r = e->rec;

	rec_attr(db, &e->rec, e->ref, &attr);
	r.kind = REC_INODE;
	r.mask = REC_F_TIME | REC_F_META | REC_F_TIMES | REC_F_ID | REC_F_SIZE | REC_F_EXTENTS |
		 (e->rec.mask & (REC_F_XATTRS | REC_F_RDEV));
	r.expires_ms = expires_ms;
	if (expires_ms)
		r.mask |= REC_F_EXPIRES;
	r.id = e->id;
	r.mode = attr.mode;
	r.uid = attr.uid;
	r.gid = attr.gid;
	r.size = e->rec.value_len;
	r.extents = extent;
	r.extent_count = ext.len ? 1 : 0;
	r.extents_len = ext.len ? fmt_extent_encode(&ext, 0, extent) : 0;
	r.value_len = 0;
	r.key_len = 0;
	return batch_add(b, &r);
}

emdb_err promote_batch(emdb_db *db, const struct entry *e, int64_t expires_ms, struct batch *b,
		       bool link)
{
	struct rec r = { .kind = REC_LINK,
			 .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID | REC_F_ORIGIN,
			 .ns = e->rec.ns,
			 .key = e->rec.key,
			 .key_len = e->rec.key_len,
			 .time_ns = e->rec.time_ns,
			 .id = e->id,
			 .origin = e->ref };
	const emdb_err err = add_inode_of_plain(db, e, expires_ms, b);

	/* ORIGIN: nothing happened that anybody could see. */
	return err || !link ? err : batch_add(b, &r);
}

emdb_err promote(emdb_db *db, uint64_t id)
{
	struct batch b = BATCH_INIT;
	struct node n;
	emdb_err err;

	err = node_lock(db, id, true, &n);
	if (err)
		return err;
	if (!n.ns && !n.view.big) {
		err = promote_batch(db, &n.entry, entry_expires_pinned(db, &n.entry), &b,
				    !n.view.orphan);
		if (!err)
			err = batch_commit(db, &b, 0);
	}
	batch_release(&b);
	node_unlock(&n);
	return err;
}
