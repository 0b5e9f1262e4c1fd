/* SPDX-License-Identifier: Apache-2.0 */
/* Contents of objects: read, write, truncate, holes, sharing. */
#include "core/store.h"

/* ---- Reading ------------------------------------------------------------------ */

/* Collects pieces; iov grows from inline_ to the heap. */
struct gather {
	emdb_db *db;
	struct emdb_slices *s;
	int cap;
};

static emdb_err gather_add(struct gather *g, const uint8_t *p, size_t len)
{
	struct emdb_slices *const s = g->s;

	if (len == 0)
		return EMDB_OK;
	if (s->count == g->cap) {
		const int cap = g->cap * 4;
		struct iovec *const iov = base_malloc((size_t)cap * sizeof(*iov));

		if (!iov)
			return EMDB_ERR_NOMEM;
		memcpy(iov, s->iov, (size_t)s->count * sizeof(*iov));
		base_free(s->owner_);
		s->owner_ = iov;
		s->iov = iov;
		g->cap = cap;
	}
	s->iov[s->count++] = (struct iovec){ (void *)(uintptr_t)p, len };
	s->len += len;
	return EMDB_OK;
}

static emdb_err gather_zeros(struct gather *g, uint64_t len)
{
	emdb_err err = EMDB_OK;

	while (!err && len) {
		const size_t n = (size_t)min_u64(len, FMT_EXTENT_MAX);

		err = gather_add(g, g->db->zeros, n);
		len -= n;
	}
	return err;
}

/* big->lock held. */
static emdb_err gather_big(struct gather *g, struct big *big, uint64_t offset, size_t len)
{
	struct extent_cursor cur;
	struct extent e;
	uint64_t end, at = offset;
	emdb_err err = EMDB_OK;

	if (offset >= big->size)
		return EMDB_OK;
	end = offset + min_u64(len, big->size - offset);
	extmap_seek(&big->map, offset, &cur);
	while (!err && at < end && extmap_next(&big->map, &cur, &e)) {
		uint64_t skip, n;
		struct rec r;

		if (e.off >= end)
			break;
		if (e.off > at) {
			err = gather_zeros(g, e.off - at);
			at = e.off;
		}
		if (!err)
			err = journal_rec_pinned(g->db->j, e.ref, &r, NULL);
		if (!err && (uint64_t)e.skip + e.len > r.value_len)
			err = EMDB_ERR_CORRUPT;
		if (err)
			break;
		skip = at - e.off;
		n = min_u64(e.len - skip, end - at);
		err = gather_add(g, r.value + e.skip + skip, (size_t)n);
		at += n;
	}
	return err || at >= end ? err : gather_zeros(g, end - at);
}

/* The caller holds the pin; it is handed to the slices on success. */
static emdb_err slices_pinned(emdb_db *db, uint64_t id, uint64_t offset, size_t len,
			      struct emdb_slices *s)
{
	struct gather g = { db, s, EMDB_SLICES_INLINE };
	struct obj_view v;
	struct rec r;
	emdb_err err;

	s->iov = s->inline_;
	s->count = 0;
	s->len = 0;
	s->owner_ = NULL;
	if (ns_any_pinned(db, id))
		return EMDB_ERR_IS_NS;
	if (!objtab_get_pinned(db, id, &v))
		return EMDB_ERR_NOT_FOUND;
	if (v.big) {
		mutex_lock(&v.big->lock);
		err = gather_big(&g, v.big, offset, len);
		mutex_unlock(&v.big->lock);
		return err;
	}
	err = journal_rec_pinned(db->j, v.ref, &r, NULL);
	if (err || offset >= r.value_len)
		return err;
	return gather_add(&g, r.value + offset, min_size(len, r.value_len - (size_t)offset));
}

emdb_err emdb_node_slices(emdb_db *db, uint64_t id, uint64_t offset, size_t len,
			  struct emdb_slices *ret_slices)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const emdb_err err = slices_pinned(db, id, offset, len, ret_slices);

	if (err) {
		base_free(ret_slices->owner_);
		ret_slices->owner_ = NULL;
		epoch_unpin(&db->epoch, pin);
		return err;
	}
	ret_slices->pin_ = pin;
	return EMDB_OK;
}

void emdb_slices_release(emdb_db *db, struct emdb_slices *slices)
{
	base_free(slices->owner_);
	slices->owner_ = NULL;
	epoch_unpin(&db->epoch, (unsigned int)slices->pin_);
}

/* ---- Reading what is sealed ---- */

/* A piece of a value that is to be opened into the caller's buffer. */
struct sealed_piece {
	uint64_t ref, skip, len;
	size_t at;
};

/* Notes the pieces of a big object, zeros in buf where there are none; big->lock held. */
static emdb_err note_pieces(struct big *big, uint64_t offset, uint8_t *buf, size_t len,
			    struct buf *pieces, size_t *ret_len)
{
	const uint64_t end = offset + min_u64(len, big->size - min_u64(offset, big->size));
	struct extent_cursor cur;
	struct extent e;

	memset(buf, 0, (size_t)(end - offset));
	extmap_seek(&big->map, offset, &cur);
	while (offset < end && extmap_next(&big->map, &cur, &e) && e.off < end) {
		const uint64_t from = max_u64(e.off, offset), to = min_u64(e.off + e.len, end);
		const struct sealed_piece p = { e.ref, e.skip + (from - e.off), to - from,
						(size_t)(from - offset) };

		if (buf_append(pieces, &p, sizeof(p)))
			return EMDB_ERR_NOMEM;
	}
	*ret_len = (size_t)(end - offset);
	return EMDB_OK;
}

/*
 * As emdb_node_read(): what is there is settled under the lock, and opened after it piece by piece,
 * so that no more than one record is in memory however much is read.
 */
static emdb_err read_sealed_pinned(emdb_db *db, uint64_t id, uint64_t offset, uint8_t *buf,
				   size_t len, size_t *ret_len)
{
	struct buf pieces = BUF_INIT;
	struct obj_view v;
	struct rec r;
	emdb_err err = EMDB_OK;

	if (ns_any_pinned(db, id))
		return EMDB_ERR_IS_NS;
	if (!objtab_get_pinned(db, id, &v))
		return EMDB_ERR_NOT_FOUND;
	if (!v.big) {
		err = journal_rec_pinned(db->j, v.ref, &r, NULL);
		if (err)
			return err;
		len = offset < r.value_len ? min_size(len, r.value_len - (size_t)offset) : 0;
		if (len)
			memcpy(buf, r.value + offset, len);
		*ret_len = len;
		return EMDB_OK;
	}
	mutex_lock(&v.big->lock);
	err = note_pieces(v.big, offset, buf, len, &pieces, &len);
	mutex_unlock(&v.big->lock);
	for (size_t i = 0; !err && i < pieces.len; i += sizeof(struct sealed_piece)) {
		struct sealed_piece p;

		memcpy(&p, pieces.data + i, sizeof(p));
		err = journal_copy_pinned(db->j, p.ref, p.skip, p.len, buf + p.at);
	}
	buf_release(&pieces);
	if (!err)
		*ret_len = len;
	return err;
}

static emdb_err read_sealed(emdb_db *db, uint64_t id, uint64_t offset, void *buf, size_t len,
			    size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const emdb_err err = read_sealed_pinned(db, id, offset, buf, len, ret_len);

	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err emdb_node_read(emdb_db *db, uint64_t id, uint64_t offset, void *buf, size_t len,
			size_t *ret_len)
{
	struct emdb_slices s;
	uint8_t *p = buf;
	emdb_err err;

	if (db->vault)
		return read_sealed(db, id, offset, buf, len, ret_len);

	err = emdb_node_slices(db, id, offset, len, &s);
	if (err)
		return err;
	for (int i = 0; !err && i < s.count; i++) {
		err = copy_mapped(p, s.iov[i].iov_base, s.iov[i].iov_len);
		p += s.iov[i].iov_len;
	}
	if (!err)
		*ret_len = s.len;
	emdb_slices_release(db, &s);
	return err;
}

/* ---- What a write does to deadline and mode --------------------------------------- */

/* With basis `modify` a write starts the clock of an expiring object again. */
int64_t node_rearmed(emdb_db *db, uint64_t ns_id, int64_t expires_ms)
{
	const struct ns *const ns = ns_any_pinned(db, ns_id);
	int64_t ttl;

	if (!expires_ms || !ns ||
	    atomic_load_explicit(&ns->ttl_basis, memory_order_relaxed) != EMDB_BASIS_MODIFY)
		return expires_ms;
	ttl = atomic_load_explicit(&ns->ttl_default_ms, memory_order_relaxed);
	if (!ttl)
		ttl = db->default_ttl_ms;
	return ttl ? ttl_deadline(db_now_ms(db), ttl) : expires_ms;
}

/* A big object's INODE record anew when the write changes more than data. */
static emdb_err big_side_effects(struct node *n, unsigned int flags)
{
	struct big *const big = n->view.big;
	struct link link = { 0, 0 };
	int64_t expires, now;
	struct rec r;
	bool suid;
	emdb_err err;

	mutex_lock(&big->lock);
	now = big->expires_ms;
	if (big->nlinks)
		link = big->links[0];
	suid = flags & EMDB_WRITE_KILL_SUID && big->mode != mode_without_suid(big->mode);
	mutex_unlock(&big->lock);
	expires = node_rearmed(n->db, link.ns, now);
	if (!suid && expires == now)
		return EMDB_OK;
	err = rec_of_big(n->db, n->id, big, db_now_ns(n->db), &r);
	if (err)
		return err;
	if (suid)
		r.mode = mode_without_suid(r.mode);
	r.expires_ms = expires;
	return commit_rec(n->db, &r, NULL, 0, 0, true, NULL, NULL);
}

/* ---- Writing ------------------------------------------------------------------------ */

static emdb_err write_big(struct node *n, uint64_t offset, const void *data, size_t len,
			  unsigned int flags)
{
	const struct iovec iov = { (void *)(uintptr_t)data, len };
	struct big *const big = n->view.big;
	struct rec r = { .kind = REC_WRITE,
			 .mask = REC_F_TIME | REC_F_VALUE | REC_F_ID | REC_F_SIZE | REC_F_OFF,
			 .id = n->id,
			 .value_len = len };
	emdb_err err;
	int ret;

	err = big_side_effects(n, flags);
	if (err)
		return err;
	mutex_lock(&big->lock);
	if (flags & EMDB_WRITE_APPEND)
		offset = big->size;
	if (offset > EMDB_VALUE_MAX - len) {
		mutex_unlock(&big->lock);
		return EMDB_ERR_VALUE_TOO_LARGE;
	}
	r.off = offset;
	r.size = max_u64(big->size, offset + len);
	ret = extmap_reserve(&big->map, offset);
	mutex_unlock(&big->lock);
	if (ret)
		return EMDB_ERR_NOMEM;
	r.time_ns = db_now_ns(n->db);
	return commit_rec(n->db, &r, &iov, 1, 0, true, NULL, NULL);
}

/* Rewrites a plain object: the old bytes before and after, the new ones between. */
static emdb_err rewrite_plain(struct node *n, uint64_t offset, const void *data, size_t len,
			      uint64_t size, bool kill)
{
	const struct entry *const e = &n->entry;
	const uint64_t old = e->rec.value_len;
	struct iovec iov[4];
	struct rec r;
	emdb_err err;
	int k = 0;

	rec_of_plain(e, db_now_ns(n->db), &r);
	r.mtime_ns = r.time_ns;
	if (kill && r.mask & REC_F_META)
		r.mode = mode_without_suid(r.mode);
	if (r.mask & REC_F_EXPIRES)
		r.expires_ms = node_rearmed(n->db, r.ns, r.expires_ms);
	if (offset && old)
		iov[k++] = (struct iovec){ (void *)(uintptr_t)e->rec.value,
					   (size_t)min_u64(offset, min_u64(old, size)) };
	if (offset > old)
		iov[k++] =
			(struct iovec){ (void *)(uintptr_t)n->db->zeros, (size_t)(offset - old) };
	if (len)
		iov[k++] = (struct iovec){ (void *)(uintptr_t)data, len };
	if (offset + len < size && offset + len < old)
		iov[k++] = (struct iovec){ (void *)(uintptr_t)(e->rec.value + offset + len),
					   (size_t)(min_u64(old, size) - offset - len) };
	r.value = NULL;
	r.value_len = (size_t)size;
	err = mapped_there(iov, k);
	return err ? err : commit_rec(n->db, &r, iov, k, 0, true, e, NULL);
}

/*
 * A plain object stays plain while it is small, and when the write replaces
 * or begins all of it.  BUSY: promote it first.
 */
emdb_err node_write_locked(struct node *n, uint64_t offset, const void *data, size_t len,
			   unsigned int flags)
{
	uint64_t old, size;

	if (n->ns)
		return EMDB_ERR_IS_NS;
	if (n->view.big)
		return write_big(n, offset, data, len, flags);
	old = n->entry.rec.value_len;
	if (flags & EMDB_WRITE_APPEND)
		offset = old;
	size = max_u64(old, offset + len);
	if (n->view.orphan || (size > STORE_INLINE_MAX && !(offset == 0 && len >= old)))
		return EMDB_ERR_BUSY;
	return rewrite_plain(n, offset, data, len, size, flags & EMDB_WRITE_KILL_SUID);
}

static emdb_err write_piece(emdb_db *db, uint64_t id, uint64_t offset, const void *data, size_t len,
			    unsigned int flags)
{
	for (;;) {
		struct node n;
		emdb_err err;

		err = node_lock(db, id, false, &n);
		if (err)
			return err;
		err = node_write_locked(&n, offset, data, len, flags);
		node_unlock(&n);
		if (err != EMDB_ERR_BUSY)
			return err;
		err = promote(db, id);
		if (err)
			return err;
	}
}

emdb_err emdb_node_write(emdb_db *db, uint64_t id, uint64_t offset, const void *data, size_t len,
			 unsigned int flags)
{
	const uint8_t *p = data;
	emdb_err err = db_writable(db);

	if (err || len == 0)
		return err;
	if (len > EMDB_VALUE_MAX || (!(flags & EMDB_WRITE_APPEND) && offset > EMDB_VALUE_MAX - len))
		return EMDB_ERR_VALUE_TOO_LARGE;
	while (!err && len) {
		const size_t n = min_size(len, db_extent_max(db));

		err = write_piece(db, id, offset, p, n, flags);
		p += n;
		offset += n;
		len -= n;
	}
	return err ? err : db_written(db);
}

/* ---- Size ------------------------------------------------------------------------------ */

static emdb_err commit_size(struct node *n, uint8_t kind, uint64_t size, uint64_t off, uint64_t len)
{
	const struct rec r = { .kind = kind,
			       .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE |
				       (kind == REC_PUNCH ? REC_F_OFF | REC_F_LEN : 0),
			       .time_ns = db_now_ns(n->db),
			       .id = n->id,
			       .size = size,
			       .off = off,
			       .len = len };
	struct rec copy = r;

	return commit_rec(n->db, &copy, NULL, 0, JOURNAL_RESERVE, true, NULL, NULL);
}

emdb_err node_truncate_locked(struct node *n, uint64_t size)
{
	uint64_t old;
	emdb_err err;

	if (n->view.big) {
		err = big_side_effects(n, 0);
		return err ? err : commit_size(n, REC_TRUNC, size, 0, 0);
	}
	old = n->entry.rec.value_len;
	if (n->view.orphan || (size != 0 && max_u64(size, old) > STORE_INLINE_MAX && size != old))
		return EMDB_ERR_BUSY;
	return rewrite_plain(n, size, NULL, 0, size, false);
}

/* ---- Holes -------------------------------------------------------------------------------- */

/* Runs fn on the object, promoted and locked. */
static emdb_err with_big(emdb_db *db, uint64_t id, emdb_err (*fn)(struct node *n, void *ctx),
			 void *ctx)
{
	for (;;) {
		struct node n;
		emdb_err err;

		err = node_lock(db, id, false, &n);
		if (err)
			return err;
		if (n.ns)
			err = EMDB_ERR_IS_NS;
		else
			err = n.view.big ? fn(&n, ctx) : EMDB_ERR_BUSY;
		node_unlock(&n);
		if (err != EMDB_ERR_BUSY)
			return err;
		err = promote(db, id);
		if (err)
			return err;
	}
}

struct falloc {
	uint64_t offset, len;
	unsigned int mode;
};

static emdb_err falloc_locked(struct node *n, void *ctx)
{
	const struct falloc *const f = ctx;
	struct big *const big = n->view.big;
	uint64_t size;
	int ret;

	mutex_lock(&big->lock);
	size = big->size;
	ret = extmap_reserve(&big->map, f->offset);
	mutex_unlock(&big->lock);
	if (ret)
		return EMDB_ERR_NOMEM;
	if (!(f->mode & (EMDB_FALLOC_KEEP_SIZE | EMDB_FALLOC_PUNCH_HOLE)))
		size = max_u64(size, f->offset + f->len);
	if (f->mode & (EMDB_FALLOC_PUNCH_HOLE | EMDB_FALLOC_ZERO_RANGE))
		return commit_size(n, REC_PUNCH, size, f->offset, f->len);
	return commit_size(n, REC_TRUNC, size, 0, 0);
}

emdb_err emdb_node_fallocate(emdb_db *db, uint64_t id, uint64_t offset, uint64_t len,
			     unsigned int mode)
{
	struct falloc f = { offset, len, mode };
	struct emdb_attr attr;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (len == 0 || mode & ~(unsigned int)(EMDB_FALLOC_KEEP_SIZE | EMDB_FALLOC_PUNCH_HOLE |
					       EMDB_FALLOC_ZERO_RANGE))
		return EMDB_ERR_INVAL;
	if (offset > EMDB_VALUE_MAX || len > EMDB_VALUE_MAX - offset)
		return EMDB_ERR_VALUE_TOO_LARGE;
	err = emdb_node_getattr(db, id, &attr);
	if (err)
		return err;
	if (!S_ISREG(attr.mode))
		return S_ISDIR(attr.mode) ? EMDB_ERR_IS_NS : EMDB_ERR_UNSUPPORTED;
	/*
	 * Space cannot be reserved in a log: what is written later goes
	 * elsewhere anyway.  What preallocation can promise is the size.
	 */
	if (!(mode & (EMDB_FALLOC_PUNCH_HOLE | EMDB_FALLOC_ZERO_RANGE)) &&
	    (mode & EMDB_FALLOC_KEEP_SIZE || offset + len <= attr.size))
		return EMDB_OK;
	err = with_big(db, id, falloc_locked, &f);
	return err ? err : db_written(db);
}

emdb_err emdb_node_seek(emdb_db *db, uint64_t id, uint64_t offset, bool hole, uint64_t *ret_offset)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct obj_view v;
	struct rec r;
	int64_t at = -ENXIO;
	emdb_err err = EMDB_OK;

	if (ns_any_pinned(db, id)) {
		err = EMDB_ERR_IS_NS;
	} else if (!objtab_get_pinned(db, id, &v)) {
		err = EMDB_ERR_NOT_FOUND;
	} else if (v.big) {
		mutex_lock(&v.big->lock);
		at = hole ? extmap_seek_hole(&v.big->map, offset, v.big->size)
			  : extmap_seek_data(&v.big->map, offset, v.big->size);
		mutex_unlock(&v.big->lock);
	} else {
		err = journal_rec_pinned(db->j, v.ref, &r, NULL);
		if (!err && offset < r.value_len)
			at = (int64_t)(hole ? r.value_len : offset);
	}
	epoch_unpin(&db->epoch, pin);
	if (!err && at < 0)
		err = EMDB_ERR_RANGE;
	if (!err)
		*ret_offset = (uint64_t)at;
	return err;
}

/* ---- Sharing --------------------------------------------------------------------------------- */

/* The extents of [from, from + len) of big, moved to start at `to`, as a record has them. */
static emdb_err collect_extents(struct big *big, uint64_t from, uint64_t len, uint64_t to,
				struct buf *out, uint64_t *ret_count)
{
	struct extent_cursor cur;
	uint64_t prev = to, count = 0;
	struct extent e;

	extmap_seek(&big->map, from, &cur);
	while (extmap_next(&big->map, &cur, &e) && e.off < from + len) {
		const uint64_t a = max_u64(e.off, from);
		const uint64_t b = min_u64(e.off + e.len, from + len);
		const struct rec_extent x = { a - from + to, b - a, e.ref, e.skip + (a - e.off) };
		uint8_t enc[FMT_EXTENT_BYTES_MAX];

		if (buf_append(out, enc, fmt_extent_encode(&x, prev, enc)))
			return EMDB_ERR_NOMEM;
		prev = x.off + x.len;
		count++;
	}
	*ret_count = count;
	return EMDB_OK;
}

/* Both big; structure held exclusively. */
static emdb_err clone_range(emdb_db *db, struct big *src, uint64_t from, uint64_t len, uint64_t to,
			    struct node *dst)
{
	struct rec r = { .kind = REC_CLONE,
			 .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN |
				 REC_F_EXTENTS,
			 .time_ns = db_now_ns(db),
			 .id = dst->id,
			 .off = to,
			 .len = len };
	struct buf extents = BUF_INIT;
	emdb_err err;

	mutex_lock(&src->lock);
	err = collect_extents(src, from, len, to, &extents, &r.extent_count);
	mutex_unlock(&src->lock);
	mutex_lock(&dst->view.big->lock);
	r.size = max_u64(dst->view.big->size, to + len);
	mutex_unlock(&dst->view.big->lock);
	r.extents = extents.data;
	r.extents_len = extents.len;
	if (!err && extents.len > journal_payload_max(db->j) / 2)
		err = EMDB_ERR_TXN_TOO_BIG;
	if (!err)
		err = commit_rec(db, &r, NULL, 0, 0, true, NULL, NULL);
	buf_release(&extents);
	return err;
}

/* BUSY: one of the two must be promoted, *ret_promote says which. */
static emdb_err copy_range_once(emdb_db *db, uint64_t from, uint64_t from_offset, uint64_t to,
				uint64_t to_offset, uint64_t *len, uint64_t *ret_promote)
{
	struct obj_view v;
	struct node n;
	emdb_err err;

	err = node_lock(db, to, true, &n);
	if (err)
		return err;
	*ret_promote = 0;
	if (n.ns || ns_any_pinned(db, from)) {
		err = EMDB_ERR_IS_NS;
	} else if (!objtab_get_pinned(db, from, &v)) {
		err = EMDB_ERR_NOT_FOUND;
	} else if (!v.big || !n.view.big) {
		*ret_promote = v.big ? to : from;
		err = EMDB_ERR_BUSY;
	} else {
		mutex_lock(&v.big->lock);
		*len = from_offset >= v.big->size ? 0 : min_u64(*len, v.big->size - from_offset);
		mutex_unlock(&v.big->lock);
		if (*len)
			err = clone_range(db, v.big, from_offset, *len, to_offset, &n);
	}
	node_unlock(&n);
	return err;
}

emdb_err emdb_node_copy_range(emdb_db *db, uint64_t from, uint64_t from_offset, uint64_t to,
			      uint64_t to_offset, uint64_t len, uint64_t *ret_len)
{
	uint64_t which;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (len > EMDB_VALUE_MAX)
		len = EMDB_VALUE_MAX;
	if (to_offset > EMDB_VALUE_MAX || from_offset > EMDB_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
	len = min_u64(len, EMDB_VALUE_MAX - max_u64(to_offset, from_offset));
	/* Overlapping ranges of one object: EINVAL, as copy_file_range(2) has it. */
	if (from == to && from_offset < to_offset + len && to_offset < from_offset + len)
		return EMDB_ERR_INVAL;
	while ((err = copy_range_once(db, from, from_offset, to, to_offset, &len, &which)) ==
	       EMDB_ERR_BUSY) {
		err = promote(db, which);
		if (err)
			return err;
	}
	if (err)
		return err;
	*ret_len = len;
	return db_written(db);
}
