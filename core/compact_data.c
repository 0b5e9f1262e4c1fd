/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Emptying a segment: the bytes of big objects in it, their INODE records, and
 * what the segment's records say of holes.
 *
 * Every map is looked at for bytes in the segment, instead of following each
 * record to the maps that might have it: that takes some nanoseconds per extent,
 * needs no index of who shares what, and finds everything.  What a map
 * gets by sharing while this goes on is noted by apply.c.
 */
#include "core/compact_i.h"

/* Extents looked at, or put into one record, under one lock. */
#define SCAN_STEP  4096u
#define LIST_MAX   256u
#define PIECES_MAX 1024u
#define PIECES_IOV 4u
/* So many extents that need not be said are said rather than beginning another record. */
#define PASS_MAX 4u

/* A piece of an object's content that lies in the segment. */
struct claim {
	uint64_t id, off, ref;
	uint32_t skip, len;
	bool shared;
};

/* Of an object: what is in off..end-1 now must be said anew. */
struct range {
	uint64_t id, off, end;
	uint64_t origin; /* first place of the record that said it */
	uint64_t before; /* extents: those of records before this LSN, besides the holes */
	bool extents;
};

/* ---- Notes from the walk ------------------------------------------------------ */

static emdb_err note_range(struct mover *m, const struct rec *r, uint64_t ref, uint64_t off,
			   uint64_t end, bool extents)
{
	const struct range g = { r->id, off, end, first_place(r, ref), ref_lsn(ref), extents };

	if (off >= end || (!extents && !still_needed(m, g.origin)))
		return EMDB_OK;
	return buf_append(&m->ranges, &g, sizeof(g)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

static emdb_err note_renew(struct mover *m, uint64_t id)
{
	return buf_append(&m->renew, &id, sizeof(id)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

/* Is r what gave a big object its mtime?  *ret_alive: is there such an object at all? */
static bool stamped(struct mover *m, const struct rec *r, bool *ret_alive)
{
	const unsigned int pin = epoch_pin(&m->db->epoch);
	struct obj_view v;
	bool it = false;

	*ret_alive = objtab_get_pinned(m->db, r->id, &v) && v.big;
	if (*ret_alive && r->kind != REC_INODE && !(r->mask & REC_F_ORIGIN)) {
		mutex_lock(&v.big->lock);
		it = v.big->mtime == r->time_ns && ref_lsn(v.big->inode_ref) < m->hi;
		mutex_unlock(&v.big->lock);
	}
	epoch_unpin(&m->db->epoch, pin);
	return it;
}

static uint64_t end_of(uint64_t off, uint64_t len)
{
	return len > EMDB_VALUE_MAX - off ? EMDB_VALUE_MAX : off + len;
}

emdb_err data_note(struct mover *m, const struct rec *r, uint64_t ref)
{
	bool alive;

	if (stamped(m, r, &alive)) {
		const emdb_err err = note_renew(m, r->id);

		if (err)
			return err;
	}
	if (!alive)
		return EMDB_OK;
	switch (r->kind) {
	case REC_INODE:
		return r->mask & REC_F_EXTENTS ? note_range(m, r, ref, 0, EMDB_VALUE_MAX, true)
					       : EMDB_OK;
	case REC_TRUNC:
		return note_range(m, r, ref, r->size, EMDB_VALUE_MAX, false);
	case REC_PUNCH:
		return note_range(m, r, ref, r->off, end_of(r->off, r->len), false);
	case REC_CLONE:
		return note_range(m, r, ref, r->off, end_of(r->off, r->len), true);
	default:
		return EMDB_OK;
	}
}

/* ---- Looking for what is in the segment -------------------------------------------- */

/* Claims of one object's extents from *at on, some at a time; false at the end. */
static bool scan_step_locked(struct mover *m, uint64_t id, struct big *big, uint64_t *at,
			     emdb_err *ret_err)
{
	struct extent_cursor cur;
	struct extent e;

	extmap_seek(&big->map, *at, &cur);
	for (unsigned int i = 0; i < SCAN_STEP; i++) {
		struct claim c;

		if (!extmap_next(&big->map, &cur, &e))
			return false;
		*at = e.off + e.len;
		if (!in_segment(m, e.ref))
			continue;
		c = (struct claim){ id, e.off, e.ref, e.skip, e.len, false };
		if (buf_append(&m->claims, &c, sizeof(c))) {
			*ret_err = EMDB_ERR_NOMEM;
			return false;
		}
	}
	return true;
}

static emdb_err scan_big(struct mover *m, uint64_t id)
{
	const unsigned int pin = epoch_pin(&m->db->epoch);
	emdb_err err = EMDB_OK;
	struct obj_view v;
	uint64_t at = 0;
	bool more = true;

	if (objtab_get_pinned(m->db, id, &v) && v.big) {
		mutex_lock(&v.big->lock);
		if (in_segment(m, v.big->inode_ref) || in_segment(m, v.big->touch_lsn))
			err = note_renew(m, id);
		while (!err && more) {
			more = scan_step_locked(m, id, v.big, &at, &err);
			mutex_unlock(&v.big->lock);
			mutex_lock(&v.big->lock);
		}
		mutex_unlock(&v.big->lock);
	}
	epoch_unpin(&m->db->epoch, pin);
	return err;
}

static emdb_err scan_all(struct mover *m)
{
	struct buf ids = BUF_INIT;
	emdb_err err = EMDB_OK;

	for (size_t shard = 0; !err && shard < STORE_SHARDS; shard++) {
		buf_reset(&ids);
		err = objtab_big_ids(m->db, shard, &ids);
		for (size_t i = 0; !err && i < ids.len; i += sizeof(uint64_t)) {
			uint64_t id;

			memcpy(&id, ids.data + i, sizeof(id));
			err = scan_big(m, id);
		}
		if (!err)
			err = mover_breathe(m);
	}
	buf_release(&ids);
	return err;
}

/* ---- Bytes ---------------------------------------------------------------------------- */

struct piece {
	uint64_t ref;
	uint32_t skip, len;
};

/* The pieces one behind the other, as iovecs into the journal or, when there are many, copied. */
static emdb_err gather_pieces(struct mover *m, const struct piece *p, size_t n, struct iovec *iov,
			      int *ret_count)
{
	/* Sealed records would all stay in memory while the pin lasts. */
	const bool copy = n > PIECES_IOV || m->db->vault;
	size_t at = 0;

	if (copy && !m->scratch) {
		m->scratch = base_malloc(db_extent_max(m->db));
		if (!m->scratch)
			return EMDB_ERR_NOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		struct rec r;
		emdb_err err;

		if (copy)
			err = journal_copy_pinned(m->db->j, p[i].ref, p[i].skip, p[i].len,
						  m->scratch + at);
		else
			err = journal_rec_pinned(m->db->j, p[i].ref, &r, NULL);
		if (!err && !copy && (uint64_t)p[i].skip + p[i].len > r.value_len)
			err = EMDB_ERR_CORRUPT;
		if (err)
			return err;
		if (!copy)
			iov[i] = (struct iovec){ (void *)(uintptr_t)(r.value + p[i].skip),
						 p[i].len };
		at += p[i].len;
	}
	if (copy)
		iov[0] = (struct iovec){ m->scratch, at };
	*ret_count = copy ? 1 : (int)n;
	return EMDB_OK;
}

/* Writes pieces as the object's content at off; the object is locked. */
static emdb_err write_pieces(struct mover *m, struct node *n, uint64_t off, const struct piece *p,
			     size_t count)
{
	struct big *const big = n->view.big;
	struct rec r = { .kind = REC_WRITE,
			 .mask = REC_F_TIME | REC_F_VALUE | REC_F_ID | REC_F_SIZE | REC_F_OFF |
				 REC_F_ORIGIN,
			 .id = n->id,
			 .off = off,
			 .origin = ref_lsn(p[0].ref) };
	struct iovec iov[PIECES_IOV];
	int iovs = 0, ret;
	emdb_err err;

	for (size_t i = 0; i < count; i++)
		r.value_len += p[i].len;
	err = gather_pieces(m, p, count, iov, &iovs);
	if (err)
		return err;
	mutex_lock(&big->lock);
	r.size = big->size;
	r.time_ns = big->mtime;
	ret = extmap_reserve(&big->map, off);
	mutex_unlock(&big->lock);
	if (ret)
		return EMDB_ERR_NOMEM;
	return mover_commit(m, &r, iov, iovs, true, NULL);
}

/*
 * The first run of bytes in the segment at or after *at and before end, up to
 * one record's worth.  Returns how many pieces; *at is where it starts.
 */
static size_t find_run_locked(struct mover *m, struct big *big, uint64_t *at, uint64_t end,
			      struct piece *p)
{
	uint64_t room = db_extent_max(m->db), next = 0;
	struct extent_cursor cur;
	struct extent e;
	size_t n = 0;

	extmap_seek(&big->map, *at, &cur);
	while (room && n < PIECES_MAX && extmap_next(&big->map, &cur, &e)) {
		const uint64_t cut = n == 0 && e.off < *at ? *at - e.off : 0;
		const uint64_t off = e.off + cut;
		uint32_t len;

		if (n == 0 && off >= end)
			break;
		if (!in_segment(m, e.ref) || (n && off != next)) {
			if (n)
				break;
			continue;
		}
		if (n == 0)
			*at = off;
		len = (uint32_t)min_u64(e.len - cut, room);
		p[n++] = (struct piece){ e.ref, e.skip + (uint32_t)cut, len };
		room -= len;
		next = off + len;
	}
	return n;
}

/* Moves one run of an object's bytes; *at goes on behind it, to end when there is none. */
static emdb_err move_run(struct mover *m, uint64_t id, uint64_t *at, uint64_t end)
{
	struct piece p[PIECES_MAX];
	struct node n;
	size_t count = 0;
	emdb_err err;

	err = node_lock(m->db, id, false, &n);
	if (err) {
		*at = end;
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	}
	if (n.view.big) {
		mutex_lock(&n.view.big->lock);
		count = find_run_locked(m, n.view.big, at, end, p);
		mutex_unlock(&n.view.big->lock);
	}
	if (count)
		err = write_pieces(m, &n, *at, p, count);
	node_unlock(&n);
	if (err)
		return err;
	if (count == 0)
		*at = end;
	for (size_t i = 0; i < count; i++)
		*at += p[i].len;
	return mover_breathe(m);
}

static int claim_by_place(const void *a, const void *b)
{
	const struct claim *const x = a, *const y = b;

	if (x->shared != y->shared)
		return x->shared ? -1 : 1;
	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static int claim_by_ref(const void *a, const void *b)
{
	const struct claim *const x = a, *const y = b;

	if (x->ref != y->ref)
		return x->ref < y->ref ? -1 : 1;
	return x->skip < y->skip ? -1 : x->skip > y->skip;
}

/* ---- Bytes that several have ----------------------------------------------------------- */

/* Bytes skip..end-1 of the old record begin the value of ref. */
struct moved {
	uint32_t skip, end;
	uint64_t ref;
};

/* What covers skip, or NULL and in *ret_next where the next one begins. */
static const struct moved *find_moved(const struct buf *moved, uint32_t skip, uint32_t *ret_next)
{
	const struct moved *const list = (const struct moved *)(void *)moved->data;

	*ret_next = UINT32_MAX;
	for (size_t i = moved->len / sizeof(*list); i > 0; i--) {
		const struct moved *const it = &list[i - 1];

		if (it->skip <= skip && skip < it->end)
			return it;
		if (it->skip > skip)
			*ret_next = min_u64(*ret_next, it->skip) & UINT32_MAX;
	}
	return NULL;
}

static emdb_err clone_piece(struct mover *m, struct node *n, uint64_t off, const struct piece *p,
			    const struct moved *to)
{
	const struct rec_extent e = { off, p->len, to->ref, p->skip - to->skip };
	uint8_t enc[FMT_EXTENT_BYTES_MAX];
	struct rec r = { .kind = REC_CLONE,
			 .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN |
				 REC_F_ORIGIN | REC_F_EXTENTS,
			 .id = n->id,
			 .off = off,
			 .len = p->len,
			 .origin = ref_lsn(p->ref),
			 .extent_count = 1,
			 .extents = enc,
			 .extents_len = fmt_extent_encode(&e, off, enc) };

	mutex_lock(&n->view.big->lock);
	r.size = n->view.big->size;
	r.time_ns = n->view.big->mtime;
	mutex_unlock(&n->view.big->lock);
	return mover_commit(m, &r, NULL, 0, true, NULL);
}

/* The first piece of ref at or after *at in the claim; false: none.  *at is where it starts. */
static bool find_piece_locked(struct big *big, const struct claim *c, uint64_t *at,
			      struct piece *ret)
{
	const uint64_t end = c->off + c->len;
	struct extent_cursor cur;
	struct extent e;

	extmap_seek(&big->map, *at, &cur);
	while (extmap_next(&big->map, &cur, &e) && e.off < end) {
		const uint64_t cut = e.off < *at ? *at - e.off : 0;

		if (e.ref != c->ref)
			continue;
		*at = e.off + cut;
		*ret = (struct piece){ e.ref, e.skip + (uint32_t)cut,
				       (uint32_t)min_u64(e.len - cut, end - *at) };
		return true;
	}
	return false;
}

/* One piece of a shared claim: written when nobody has moved it yet, else given by CLONE. */
static emdb_err share_piece(struct mover *m, struct node *n, const struct claim *c, uint64_t *at,
			    struct buf *moved)
{
	const uint64_t end = c->off + c->len;
	const struct moved *to;
	struct piece p = { 0, 0, 0 };
	struct moved now;
	uint32_t next;
	emdb_err err;
	bool found;

	mutex_lock(&n->view.big->lock);
	found = find_piece_locked(n->view.big, c, at, &p);
	mutex_unlock(&n->view.big->lock);
	if (!found) {
		*at = end;
		return EMDB_OK;
	}
	to = find_moved(moved, p.skip, &next);
	if (to) {
		p.len = (uint32_t)min_u64(p.len, to->end - p.skip);
		err = clone_piece(m, n, *at, &p, to);
	} else {
		struct extent e;

		p.len = (uint32_t)min_u64(min_u64(p.len, next - p.skip), db_extent_max(m->db));
		err = write_pieces(m, n, *at, &p, 1);
		now = (struct moved){ p.skip, p.skip + p.len, 0 };
		if (!err) {
			mutex_lock(&n->view.big->lock);
			if (extmap_find(&n->view.big->map, *at, &e))
				now.ref = e.ref;
			mutex_unlock(&n->view.big->lock);
			if (buf_append(moved, &now, sizeof(now)))
				err = EMDB_ERR_NOMEM;
		}
	}
	*at += p.len;
	return err;
}

static emdb_err share_claim(struct mover *m, const struct claim *c, struct buf *moved)
{
	uint64_t at = c->off;
	emdb_err err = EMDB_OK;

	while (!err && at < c->off + c->len) {
		struct node n;

		err = node_lock(m->db, c->id, false, &n);
		if (err == EMDB_ERR_NOT_FOUND)
			return EMDB_OK;
		if (err)
			return err;
		if (n.view.big)
			err = share_piece(m, &n, c, &at, moved);
		else
			at = c->off + c->len;
		node_unlock(&n);
		if (!err)
			err = mover_breathe(m);
	}
	return err;
}

/* Marks the claims on bytes that more than one has. */
static void mark_shared(struct claim *c, size_t n)
{
	for (size_t i = 0, k; i < n; i = k) {
		uint64_t end = 0;
		bool shared = false;

		for (k = i; k < n && c[k].ref == c[i].ref; k++) {
			shared = shared || c[k].skip < end;
			end = max_u64(end, (uint64_t)c[k].skip + c[k].len);
		}
		for (size_t x = i; x < k; x++)
			c[x].shared = shared;
	}
}

static emdb_err move_claims(struct mover *m)
{
	struct claim *const c = (struct claim *)(void *)m->claims.data;
	const size_t n = m->claims.len / sizeof(*c);
	struct buf moved = BUF_INIT;
	uint64_t ref = 0, at = 0, id = 0;
	emdb_err err = EMDB_OK;

	if (n == 0)
		return EMDB_OK;
	qsort(c, n, sizeof(*c), claim_by_ref);
	mark_shared(c, n);
	for (size_t i = 0; !err && i < n; i++) {
		if (!c[i].shared)
			continue;
		if (c[i].ref != ref)
			buf_reset(&moved);
		ref = c[i].ref;
		err = share_claim(m, &c[i], &moved);
	}
	buf_release(&moved);
	qsort(c, n, sizeof(*c), claim_by_place);
	for (size_t i = 0; !err && i < n; i++) {
		const uint64_t end = c[i].off + c[i].len;

		if (c[i].shared)
			continue;
		if (c[i].id != id || at < c[i].off)
			at = c[i].off;
		id = c[i].id;
		while (!err && at < end)
			err = move_run(m, id, &at, end);
	}
	return err;
}

/* ---- Metadata ----------------------------------------------------------------------------- */

static emdb_err renew_inode(struct mover *m, uint64_t id)
{
	struct node n;
	struct rec r;
	uint64_t was;
	int64_t ctime;
	emdb_err err;

	err = node_lock(m->db, id, false, &n);
	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	if (n.view.big) {
		mutex_lock(&n.view.big->lock);
		was = n.view.big->inode_ref;
		ctime = n.view.big->ctime;
		mutex_unlock(&n.view.big->lock);
		if (ref_lsn(was) < m->hi)
			err = rec_of_big(m->db, id, n.view.big, ctime, &r);
		if (!err && ref_lsn(was) < m->hi) {
			r.mask |= REC_F_ORIGIN;
			r.origin = ref_lsn(was);
			err = mover_commit(m, &r, NULL, 0, true, NULL);
		}
	}
	node_unlock(&n);
	return err ? err : mover_breathe(m);
}

static int u64_order(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static emdb_err renew_all(struct mover *m)
{
	uint64_t *const ids = (uint64_t *)(void *)m->renew.data;
	const size_t n = m->renew.len / sizeof(*ids);
	emdb_err err = EMDB_OK;

	if (n)
		qsort(ids, n, sizeof(*ids), u64_order);
	for (size_t i = 0; !err && i < n; i++)
		if (i == 0 || ids[i] != ids[i - 1])
			err = renew_inode(m, ids[i]);
	return err;
}

/* ---- Ranges -------------------------------------------------------------------------------- */

/* A CLONE or PUNCH record being put together. */
struct saying {
	uint64_t start, end; /* what it covers so far */
	struct buf list;     /* extents, those of `pass` behind the end included */
	uint64_t count, prev;
	uint64_t kept_count; /* up to the end */
	size_t kept_len;
	unsigned int pass;
};

static void say_upto(struct saying *s, uint64_t from, uint64_t end)
{
	if (s->start == UINT64_MAX)
		s->start = s->prev = from;
	s->end = end;
	s->kept_count = s->count;
	s->kept_len = s->list.len;
	s->pass = 0;
}

static emdb_err say_extent(struct saying *s, uint64_t a, uint64_t b, const struct extent *e)
{
	const struct rec_extent x = { a, b - a, e->ref, e->skip + (a - e->off) };
	uint8_t enc[FMT_EXTENT_BYTES_MAX];

	if (s->start == UINT64_MAX)
		s->start = s->prev = a;
	if (buf_append(&s->list, enc, fmt_extent_encode(&x, s->prev, enc)))
		return EMDB_ERR_NOMEM;
	s->prev = b;
	s->count++;
	return EMDB_OK;
}

/*
 * Puts together the next record for the range from *at on: the holes, if they
 * matter, and the extents that only what is in the segment may have
 * established.  *at goes on behind.
 */
static emdb_err collect_locked(struct mover *m, const struct range *g, bool holes, struct big *big,
			       uint64_t *at, struct saying *s)
{
	struct extent_cursor cur;
	struct extent e;
	uint64_t pos = *at;

	extmap_seek(&big->map, pos, &cur);
	for (unsigned int i = 0; i < SCAN_STEP && s->count < LIST_MAX; i++) {
		const bool got = extmap_next(&big->map, &cur, &e) && e.off < g->end;
		const uint64_t a = got ? max_u64(e.off, pos) : g->end;
		const uint64_t b = got ? min_u64(e.off + e.len, g->end) : g->end;
		emdb_err err;

		if (holes && a > pos)
			say_upto(s, pos, a);
		pos = b;
		if (!got)
			break;
		if (in_segment(m, e.ref))
			return EMDB_ERR_BUSY;
		if (g->extents && ref_lsn(e.ref) < g->before) {
			err = say_extent(s, a, b, &e);
			if (err)
				return err;
			say_upto(s, a, b);
		} else if (s->start != UINT64_MAX) {
			if (++s->pass > PASS_MAX)
				break;
			err = say_extent(s, a, b, &e);
			if (err)
				return err;
		}
	}
	*at = pos;
	return EMDB_OK;
}

static emdb_err say_commit(struct mover *m, struct node *n, const struct range *g, struct saying *s)
{
	struct rec r = { .kind = s->kept_count ? REC_CLONE : REC_PUNCH,
			 .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN |
				 REC_F_ORIGIN,
			 .id = n->id,
			 .off = s->start,
			 .len = s->end - s->start,
			 .origin = g->origin,
			 .extents = s->list.data,
			 .extents_len = s->kept_len,
			 .extent_count = s->kept_count };

	if (s->kept_count)
		r.mask |= REC_F_EXTENTS;
	mutex_lock(&n->view.big->lock);
	r.size = n->view.big->size;
	r.time_ns = n->view.big->mtime;
	mutex_unlock(&n->view.big->lock);
	return mover_commit(m, &r, NULL, 0, true, NULL);
}

static emdb_err say_range(struct mover *m, const struct range *g)
{
	const bool holes = still_needed(m, g->origin);
	struct saying s = { .list = BUF_INIT };
	uint64_t at = g->off;
	emdb_err err = EMDB_OK;

	while (!err && at < g->end) {
		struct node n;

		err = node_lock(m->db, g->id, false, &n);
		if (err == EMDB_ERR_NOT_FOUND) {
			err = EMDB_OK;
			break;
		}
		if (err)
			break;
		buf_reset(&s.list);
		s.start = UINT64_MAX;
		s.end = s.count = s.prev = s.kept_count = 0;
		s.kept_len = 0;
		s.pass = 0;
		if (n.view.big) {
			mutex_lock(&n.view.big->lock);
			err = collect_locked(m, g, holes, n.view.big, &at, &s);
			mutex_unlock(&n.view.big->lock);
			if (!err && s.end)
				err = say_commit(m, &n, g, &s);
		} else {
			at = g->end;
		}
		node_unlock(&n);
		if (!err)
			err = mover_breathe(m);
	}
	buf_release(&s.list);
	return err;
}

static int range_order(const void *a, const void *b)
{
	const struct range *const x = a, *const y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->extents != y->extents)
		return x->extents ? 1 : -1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static emdb_err say_ranges(struct mover *m)
{
	struct range *const g = (struct range *)(void *)m->ranges.data;
	const size_t n = m->ranges.len / sizeof(*g);
	emdb_err err = EMDB_OK;

	if (n)
		qsort(g, n, sizeof(*g), range_order);
	for (size_t i = 0, k; !err && i < n; i = k) {
		struct range all = g[i];

		for (k = i + 1; k < n && g[k].id == all.id && g[k].extents == all.extents &&
				g[k].off <= all.end;
		     k++) {
			all.end = max_u64(all.end, g[k].end);
			all.origin = max_u64(all.origin, g[k].origin);
			all.before = max_u64(all.before, g[k].before);
		}
		err = say_range(m, &all);
	}
	return err;
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* Objects that got bytes of the segment while the others were looked at. */
static emdb_err move_noted(struct mover *m)
{
	emdb_err err = EMDB_OK;

	while (!err) {
		struct buf ids = BUF_INIT;

		err = compact_take_noted(m->db, &ids);
		if (err || ids.len == 0)
			break;
		buf_reset(&m->claims);
		for (size_t i = 0; !err && i < ids.len; i += sizeof(uint64_t)) {
			uint64_t id;

			memcpy(&id, ids.data + i, sizeof(id));
			err = scan_big(m, id);
		}
		buf_release(&ids);
		if (!err)
			err = move_claims(m);
	}
	return err;
}

emdb_err data_move(struct mover *m)
{
	emdb_err err;

	atomic_store(&m->db->victim, m->seg);
	err = scan_all(m);
	if (!err)
		err = move_claims(m);
	if (!err)
		err = move_noted(m);
	if (!err)
		err = renew_all(m);
	if (!err)
		err = say_ranges(m);
	atomic_store(&m->db->victim, 0);
	return err;
}

emdb_err data_verify(struct mover *m)
{
	emdb_err err;

	buf_reset(&m->claims);
	buf_reset(&m->renew);
	err = scan_all(m);
	if (!err && (m->claims.len || m->renew.len))
		err = EMDB_ERR_BUSY;
	return err;
}
