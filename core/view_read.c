/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a view: entries, walks, contents of big objects. */
#include "core/view_i.h"

#define CANDIDATES 8

emdb_err view_check(const struct view *v)
{
	return unlikely(atomic_load(&v->db->views.lost) >= v->lsn) ? EMDB_ERR_NOMEM : EMDB_OK;
}

/* ---- Lists of kept things ------------------------------------------------------- */

/* All values under one hash; *ret is `few` or, when there are many, to be freed. */
static emdb_err find_all(const struct hidx *h, uint64_t hash, uint64_t few[static CANDIDATES],
			 uint64_t **ret, size_t *ret_n)
{
	size_t n = hidx_find_pinned(h, hash, few, CANDIDATES), room = CANDIDATES;

	*ret = few;
	while (n > room) {
		if (*ret != few)
			base_free(*ret);
		room = n + 4;
		*ret = base_malloc(room * sizeof(**ret));
		if (!*ret)
			return EMDB_ERR_NOMEM;
		n = hidx_find_pinned(h, hash, *ret, room);
	}
	*ret_n = n;
	return EMDB_OK;
}

/* What v sees of those under hash, NULL: nothing. */
static emdb_err find_kept(struct view *v, const struct hidx *h, uint64_t hash, struct kept **ret)
{
	uint64_t few[CANDIDATES], *all;
	emdb_err err;
	size_t n;

	*ret = NULL;
	err = find_all(h, hash, few, &all, &n);
	if (err)
		return err;
	for (size_t i = 0; i < n; i++)
		if (kept_seen(kept_of(all[i]), v->lsn))
			*ret = kept_of(all[i]);
	if (all != few)
		base_free(all);
	return EMDB_OK;
}

bool view_has_ns_pinned(struct view *v, uint64_t id)
{
	const struct ns *ns;
	struct kept *k;

	if (id == EMDB_ROOT)
		return true;
	/* An id is the LSN of its first record, in units of 8 bytes. */
	if (id >= v->lsn / 8)
		return false;
	ns = ns_any_pinned(v->db, id);
	if (ns && !atomic_load(&ns->dead))
		return true;
	return !find_kept(v, &v->db->views.gone, mix64(id), &k) && k;
}

/* ---- Entries ----------------------------------------------------------------------- */

/* Does v see what the index says now? */
static bool sees_slot_pinned(struct view *v, uint64_t slot)
{
	struct rec r;

	if (ref_lsn(slot) < v->lsn)
		return true;
	if (slot & REF_SPECIAL)
		return false;
	/* What cannot be read may be a copy of what was there: reading it will say so. */
	if (journal_rec_pinned(v->db->j, slot_ref(slot), &r, NULL))
		return true;
	return view_since_pinned(v->db, slot, &r) < v->lsn;
}

static emdb_err load(struct view *v, uint64_t hash, uint64_t slot, struct segment *seg,
		     struct entry *ret)
{
	struct entry e = { .hash = hash, .slot = slot, .ref = slot_ref(slot), .seg = seg };
	emdb_err err;

	if (!seg)
		return EMDB_ERR_CORRUPT;
	err = journal_rec_in_pinned(v->db->j, seg, e.ref, &e.rec);
	if (err)
		return err;
	if (!(e.rec.mask & REC_F_KEY))
		return EMDB_ERR_CORRUPT;
	e.id = rec_id(&e.rec, e.ref);
	*ret = e;
	return EMDB_OK;
}

static bool is_expired(struct view *v, const struct entry *e)
{
	const int64_t expires =
		e->slot & (REF_EXPIRES | REF_SPECIAL) ? view_expires_pinned(v, e) : 0;

	return expires && ttl_expired(expires, db_now_ms(v->db));
}

emdb_err view_read_pinned(struct view *v, uint64_t hash, uint64_t slot, struct segment *seg,
			  struct entry *ret)
{
	struct entry e;
	const emdb_err err = load(v, hash, slot, seg, &e);

	if (err)
		return err;
	if (is_expired(v, &e))
		return EMDB_ERR_NOT_FOUND;
	*ret = e;
	return EMDB_OK;
}

struct wanted {
	uint64_t ns, hash;
	const void *key;
	size_t key_len;
};

/* *bad: what kept a record from being looked at. */
static bool is_wanted(struct view *v, const struct wanted *w, uint64_t slot, struct segment *seg,
		      struct entry *ret, emdb_err *bad)
{
	struct entry e;
	bool same = false;
	emdb_err err = load(v, w->hash, slot, seg, &e);

	if (!err && e.rec.key_len == w->key_len && e.rec.ns == w->ns)
		err = same_mapped(e.rec.key, w->key, w->key_len, &same);
	if (err)
		*bad = err;
	else if (same)
		*ret = e;
	return same && !err;
}

/* Among what the index has now.  NOT_FOUND: look at what was kept. */
static emdb_err find_in_index(struct view *v, const struct ns *ns, const struct wanted *w,
			      struct entry *ret)
{
	uint64_t few[CANDIDATES], *all;
	emdb_err err, bad = EMDB_ERR_NOT_FOUND;
	bool found = false;
	size_t n;

	err = find_all(&ns->idx, w->hash, few, &all, &n);
	if (err)
		return err;
	for (size_t i = 0; !found && i < n; i++)
		found = sees_slot_pinned(v, all[i]) &&
			is_wanted(v, w, all[i], journal_segment_pinned(v->db->j, ref_lsn(all[i])),
				  ret, &bad);
	if (all != few)
		base_free(all);
	return found ? EMDB_OK : bad;
}

static emdb_err find_in_kept(struct view *v, const struct kept_ns *space, const struct wanted *w,
			     struct entry *ret)
{
	uint64_t few[CANDIDATES], *all;
	emdb_err err, bad = EMDB_ERR_NOT_FOUND;
	bool found = false;
	size_t n;

	err = find_all(&space->idx, w->hash, few, &all, &n);
	if (err)
		return err;
	for (size_t i = 0; !found && i < n; i++) {
		const struct kept *const k = kept_of(all[i]);

		found = kept_seen(k, v->lsn) && is_wanted(v, w, k->slot, k->seg, ret, &bad);
	}
	if (all != few)
		base_free(all);
	return found ? EMDB_OK : bad;
}

emdb_err view_find_pinned(struct view *v, uint64_t ns_id, uint64_t hash, const void *key,
			  size_t key_len, struct entry *ret)
{
	const struct wanted w = { ns_id, hash, key, key_len };
	const struct kept_ns *space;
	const struct ns *ns;
	struct entry e;
	emdb_err err = view_check(v), bad;

	if (err)
		return err;
	if (!view_has_ns_pinned(v, ns_id))
		return EMDB_ERR_NOT_FOUND;
	/* The index first: what goes from it meanwhile has been kept before. */
	ns = ns_any_pinned(v->db, ns_id);
	err = ns ? find_in_index(v, ns, &w, &e) : EMDB_ERR_NOT_FOUND;
	space = err ? kept_ns_pinned(&v->db->views, ns_id) : NULL;
	if (space) {
		bad = err;
		err = find_in_kept(v, space, &w, &e);
		/* An unreadable record may have been the one. */
		if (err == EMDB_ERR_NOT_FOUND)
			err = bad;
	}
	if (!err && is_expired(v, &e))
		err = EMDB_ERR_NOT_FOUND;
	if (!err)
		*ret = e;
	/* Lost while we looked? */
	bad = view_check(v);
	return bad ? bad : err;
}

/* ---- Walks -------------------------------------------------------------------------- */

/*
 * Slots of h from hash `from` on, a hash with all of its slots or not at all: *ret_last is the last
 * hash that was looked at.
 */
static emdb_err some_slots(const struct hidx *h, uint64_t from, struct buf *b, size_t *ret_n,
			   uint64_t *ret_last)
{
	for (size_t room = STORE_WALK;; room *= 2) {
		struct hidx_slot *slots;
		size_t n, k;

		buf_reset(b);
		if (buf_reserve(b, room * sizeof(*slots)))
			return EMDB_ERR_NOMEM;
		slots = (struct hidx_slot *)(void *)b->data;
		n = hidx_walk_pinned(h, from, 0, slots, room);
		*ret_n = n;
		*ret_last = UINT64_MAX;
		if (n < room)
			return EMDB_OK;
		for (k = n; k && slots[k - 1].hash == slots[n - 1].hash; k--)
			;
		*ret_n = k;
		*ret_last = slots[n - 1].hash - 1;
		if (k)
			return EMDB_OK;
	}
}

static emdb_err add_slot(struct buf *ret, uint64_t hash, uint64_t slot, struct segment *seg)
{
	const struct view_slot s = { hash, slot, seg };

	if (buf_append(ret, &s, sizeof(s)))
		return EMDB_ERR_NOMEM;
	if (seg)
		segment_ref(seg);
	return EMDB_OK;
}

/* Is k among those of its hash, which begin at `at`?  It may have moved in between. */
static bool is_there(struct view *v, const struct buf *ret, size_t at, const struct kept *k)
{
	const struct view_slot *const s = (const struct view_slot *)(void *)ret->data;

	for (; at < ret->len / sizeof(*s); at++) {
		struct rec r;

		if (s[at].slot == k->slot)
			return true;
		if ((s[at].slot & REF_SPECIAL) == 0 && (k->slot & REF_SPECIAL) == 0 && s[at].seg &&
		    !journal_rec_in_pinned(v->db->j, s[at].seg, slot_ref(s[at].slot), &r) &&
		    view_since_pinned(v->db, s[at].slot, &r) == k->since)
			return true;
	}
	return false;
}

struct both {
	const struct hidx_slot *now, *was;
	size_t nnow, nwas;
};

/* In order of hash what v sees of both, each once. */
static emdb_err merge(struct view *v, struct both *b, uint64_t last, struct buf *ret)
{
	size_t i = 0, k = 0;
	emdb_err err = EMDB_OK;

	for (;;) {
		const uint64_t a = i < b->nnow ? b->now[i].hash : UINT64_MAX;
		const uint64_t c = k < b->nwas ? b->was[k].hash : UINT64_MAX;
		const uint64_t hash = min_u64(a, c);
		const size_t at = ret->len / sizeof(struct view_slot);

		if ((i >= b->nnow && k >= b->nwas) || hash > last)
			return EMDB_OK;
		for (; !err && i < b->nnow && b->now[i].hash == hash; i++) {
			const uint64_t slot = b->now[i].value;

			if (sees_slot_pinned(v, slot))
				err = add_slot(ret, hash, slot,
					       journal_segment_pinned(v->db->j, ref_lsn(slot)));
		}
		for (; !err && k < b->nwas && b->was[k].hash == hash; k++) {
			const struct kept *const it = kept_of(b->was[k].value);

			if (kept_seen(it, v->lsn) && !is_there(v, ret, at, it))
				err = add_slot(ret, hash, it->slot, it->seg);
		}
		if (err)
			return err;
	}
}

emdb_err view_walk_pinned(struct view *v, uint64_t ns_id, uint64_t *from, bool *ret_end,
			  struct buf *ret)
{
	struct buf now = BUF_INIT, was = BUF_INIT;
	uint64_t last = UINT64_MAX, last_was = UINT64_MAX;
	struct both b = { NULL, NULL, 0, 0 };
	const struct kept_ns *space;
	const struct ns *ns;
	emdb_err err = view_check(v);

	/* The index first, see view_find_pinned(). */
	ns = err ? NULL : ns_any_pinned(v->db, ns_id);
	if (ns)
		err = some_slots(&ns->idx, *from, &now, &b.nnow, &last);
	space = err ? NULL : kept_ns_pinned(&v->db->views, ns_id);
	if (space)
		err = some_slots(&space->idx, *from, &was, &b.nwas, &last_was);
	b.now = (const struct hidx_slot *)(void *)now.data;
	b.was = (const struct hidx_slot *)(void *)was.data;
	last = min_u64(last, last_was);
	if (!err)
		err = merge(v, &b, last, ret);
	if (!err)
		err = view_check(v);
	buf_release(&now);
	buf_release(&was);
	if (err)
		return err;
	*ret_end = last == UINT64_MAX;
	*from = last + 1;
	return EMDB_OK;
}

void view_slots_release(struct buf *slots, size_t from)
{
	const struct view_slot *const s = (const struct view_slot *)(void *)slots->data;

	for (; from < slots->len / sizeof(*s); from++)
		if (s[from].seg)
			segment_unref(s[from].seg);
	buf_reset(slots);
}

/* ---- Big objects ------------------------------------------------------------------------ */

/*
 * The object as v sees it: *ret_big as it is now, locked, or *ret_kept as it was.  CORRUPT: there
 * is neither.
 */
static emdb_err big_seen_pinned(struct view *v, uint64_t id, struct big **ret_big,
				const struct kept_big **ret_kept) EMDB_NO_TSA
{
	struct obj_view o;
	struct kept *k;
	emdb_err err;

	*ret_big = NULL;
	*ret_kept = NULL;
	if (objtab_get_pinned(v->db, id, &o) && o.big) {
		mutex_lock(&o.big->lock);
		if (o.big->kept_lsn < v->lsn) {
			*ret_big = o.big;
			return EMDB_OK;
		}
		mutex_unlock(&o.big->lock);
	}
	err = find_kept(v, &v->db->views.bigs, mix64(id), &k);
	if (!err)
		err = view_check(v);
	if (!err && !k)
		err = EMDB_ERR_CORRUPT;
	if (!err)
		*ret_kept = k->big;
	return err;
}

bool view_big_changed_pinned(struct view *v, uint64_t id)
{
	struct obj_view o;
	bool changed = true;

	if (objtab_get_pinned(v->db, id, &o) && o.big) {
		mutex_lock(&o.big->lock);
		changed = o.big->kept_lsn >= v->lsn;
		mutex_unlock(&o.big->lock);
	}
	return changed;
}

int64_t view_expires_pinned(struct view *v, const struct entry *e) EMDB_NO_TSA
{
	const struct kept_big *kept;
	struct big *big;
	int64_t expires;

	if (e->rec.kind == REC_PUT)
		return e->rec.mask & REC_F_EXPIRES ? e->rec.expires_ms : 0;
	if (e->rec.kind != REC_LINK || big_seen_pinned(v, e->id, &big, &kept))
		return 0;
	expires = big ? big->expires_ms : kept->expires_ms;
	if (big)
		mutex_unlock(&big->lock);
	return expires;
}

struct content {
	struct view *v;
	uint64_t size;
	struct buf pieces; /* struct kept_extent, without references */
};

static emdb_err content_of_pinned(struct view *v, uint64_t id, struct content *ret) EMDB_NO_TSA
{
	const struct kept_big *kept;
	struct extent_cursor cur;
	struct kept_extent x;
	struct big *big;
	emdb_err err;

	*ret = (struct content){ v, 0, BUF_INIT };
	err = big_seen_pinned(v, id, &big, &kept);
	if (err)
		return err;
	ret->size = big ? big->size : kept->size;
	if (big) {
		extmap_seek(&big->map, 0, &cur);
		while (!err && extmap_next(&big->map, &cur, &x.e)) {
			x.seg = journal_segment_pinned(v->db->j, ref_lsn(x.e.ref));
			if (buf_append(&ret->pieces, &x, sizeof(x)))
				err = EMDB_ERR_NOMEM;
		}
		mutex_unlock(&big->lock);
	} else if (kept->count &&
		   buf_append(&ret->pieces, kept->ext, kept->count * sizeof(kept->ext[0]))) {
		err = EMDB_ERR_NOMEM;
	}
	return err;
}

static emdb_err copy_piece(const struct content *c, const struct kept_extent *x, uint8_t *p)
{
	struct rec r;
	emdb_err err;

	if (!x->seg)
		return EMDB_ERR_CORRUPT;
	err = journal_rec_in_pinned(c->v->db->j, x->seg, x->e.ref, &r);
	if (!err && (uint64_t)x->e.skip + x->e.len > r.value_len)
		err = EMDB_ERR_CORRUPT;
	/* The map may reach beyond the size, never the size beyond the buffer. */
	if (!err && x->e.off < c->size)
		err = copy_mapped(p + x->e.off, r.value + x->e.skip,
				  (size_t)min_u64(x->e.len, c->size - x->e.off));
	return err;
}

static emdb_err content_copy(const struct content *c, void **ret_value, size_t *ret_len)
{
	const struct kept_extent *const x = (const struct kept_extent *)(void *)c->pieces.data;
	const size_t n = c->pieces.len / sizeof(*x);
	emdb_err err = EMDB_OK;
	uint8_t *p;

	if (c->size > SIZE_MAX / 2)
		return EMDB_ERR_VALUE_TOO_LARGE;
	p = base_calloc(1, (size_t)c->size + 1);
	if (!p)
		return EMDB_ERR_NOMEM;
	for (size_t i = 0; !err && i < n; i++)
		err = copy_piece(c, &x[i], p);
	if (err) {
		base_free(p);
		return err;
	}
	*ret_value = p;
	*ret_len = (size_t)c->size;
	return EMDB_OK;
}

emdb_err view_value_pinned(struct view *v, const struct entry *e, void **ret_value, size_t *ret_len)
{
	struct content c;
	emdb_err err;

	if (e->rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	if (e->rec.kind == REC_LINK) {
		err = content_of_pinned(v, e->id, &c);
		if (!err)
			err = content_copy(&c, ret_value, ret_len);
		buf_release(&c.pieces);
		return err;
	}
	return rec_value_copy(&e->rec, ret_value, ret_len);
}
