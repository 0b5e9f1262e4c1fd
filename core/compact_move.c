/* SPDX-License-Identifier: Apache-2.0 */
/* Emptying a segment: the walk over its records, and what is done for those of entries. */
#include "core/compact_i.h"

#define CANDIDATES 8
/* At the latest after so many bytes others get their turn. */
#define BREATH_BYTES 65536u

/* ---- Writing ------------------------------------------------------------------ */

emdb_err mover_commit(struct mover *m, struct rec *r, const struct iovec *iov, int n,
		      bool old_known, const struct entry *old)
{
	uint64_t ref = 0;
	emdb_err err = mapped_there(iov, n);

	if (!err && m->budget && m->copied >= m->budget)
		err = EMDB_ERR_NO_SPACE;
	if (!err)
		err = commit_rec(m->db, r, iov, n, m->flags | JOURNAL_COLD, old_known, old, &ref);
	if (!err) {
		const uint32_t size = journal_size_pinned(m->db->j, ref);

		m->copied += size;
		m->unpaid += size;
		m->frames++;
	}
	return err;
}

emdb_err mover_breathe(struct mover *m)
{
	const uint64_t bytes = m->unpaid;

	m->unpaid = 0;
	m->breath = m->walked;
	return m->pause(m->ctx, m, bytes) ? EMDB_OK : EMDB_ERR_CANCELLED;
}

void mover_release(struct mover *m)
{
	buf_release(&m->renew);
	buf_release(&m->ranges);
	buf_release(&m->claims);
	base_free(m->scratch);
	m->scratch = NULL;
}

/* r as a copy of what is at ref. */
static struct rec copy_of(const struct rec *r, uint64_t ref)
{
	struct rec c = *r;

	c.origin = first_place(r, ref);
	c.mask |= REC_F_ORIGIN;
	return c;
}

/* ---- Entries ------------------------------------------------------------------- */

/* Without locks: a record that the index does not name now, it will never name again. */
static bool in_index(struct mover *m, const struct rec *r, uint64_t hash, uint64_t ref)
{
	const unsigned int pin = epoch_pin(&m->db->epoch);
	const struct ns *const ns = ns_any_pinned(m->db, r->ns);
	uint64_t slots[CANDIDATES];
	const size_t n = ns ? hidx_find_pinned(&ns->idx, hash, slots, CANDIDATES) : 0;
	bool found = n > CANDIDATES;

	for (size_t i = 0; !found && i < n; i++)
		found = slot_ref(slots[i]) == ref;
	epoch_unpin(&m->db->epoch, pin);
	return found;
}

/* An object without a name that somebody still has open, plain, and this its record? */
static bool is_open_orphan(emdb_db *db, uint64_t id, uint64_t ref)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct obj_view v;
	const bool is = objtab_get_pinned(db, id, &v) && !v.big && v.orphan && v.ref == ref;

	epoch_unpin(&db->epoch, pin);
	return is;
}

/* The entry of r if it is the one at ref; NOT_FOUND: another or none. */
static emdb_err find_same(struct mover *m, const struct rec *r, uint64_t hash, uint64_t ref,
			  struct entry *ret)
{
	const struct ns *const ns = ns_any_pinned(m->db, r->ns);
	emdb_err err;

	if (!ns)
		return EMDB_ERR_NOT_FOUND;
	err = entry_find_pinned(m->db, ns, hash, r->key, r->key_len, true, ret);
	if (!err && ret->ref != ref)
		err = EMDB_ERR_NOT_FOUND;
	return err;
}

static emdb_err move_put(struct mover *m, const struct rec *r, uint64_t ref)
{
	const uint64_t hash = entry_hash(m->db, r->ns, r->key, r->key_len);
	const struct iovec iov = { (void *)(uintptr_t)r->value, r->value_len };
	const uint64_t id = rec_id(r, ref);
	struct rec c = copy_of(r, ref);
	struct entry e;
	struct hold h;
	emdb_err err;

	if (!in_index(m, r, hash, ref) && !is_open_orphan(m->db, id, ref))
		return EMDB_OK;
	c.id = id;
	c.mask |= REC_F_ID | REC_F_TIMES;
	c.mask &= ~REC_F_FLAGS;
	hold_begin(&h, m->db, false);
	hold_stripe(&h, hash);
	err = find_same(m, r, hash, ref, &e);
	if (!err) {
		err = mover_commit(m, &c, &iov, r->value_len ? 1 : 0, true, &e);
	} else if (err == EMDB_ERR_NOT_FOUND) {
		err = EMDB_OK;
		c.mask |= REC_F_FLAGS;
		c.flags = REC_FLAG_ORPHAN;
		if (is_open_orphan(m->db, id, ref))
			err = mover_commit(m, &c, &iov, r->value_len ? 1 : 0, true, NULL);
	}
	hold_end(&h);
	return err ? err : mover_breathe(m);
}

static emdb_err move_link(struct mover *m, const struct rec *r, uint64_t ref)
{
	const uint64_t hash = entry_hash(m->db, r->ns, r->key, r->key_len);
	struct rec c = copy_of(r, ref);
	struct entry e;
	struct hold h;
	emdb_err err;

	if (!in_index(m, r, hash, ref))
		return EMDB_OK;
	hold_begin(&h, m->db, true);
	err = find_same(m, r, hash, ref, &e);
	if (!err)
		err = mover_commit(m, &c, NULL, 0, true, &e);
	hold_end(&h);
	if (err == EMDB_ERR_NOT_FOUND)
		return EMDB_OK;
	return err ? err : mover_breathe(m);
}

/* A namespace's record anew, unless one behind the segment says all. */
static emdb_err renew_ns(struct mover *m, uint64_t id)
{
	emdb_err err = EMDB_OK;
	struct hold h;
	struct rec r;
	struct ns *ns;
	uint64_t ref;

	hold_begin(&h, m->db, true);
	ns = ns_any_pinned(m->db, id);
	ref = ns ? atomic_load(&ns->ref) : 0;
	if (!ns || ref_lsn(ref) >= m->hi) {
		hold_end(&h);
		return EMDB_OK;
	}
	if (atomic_load(&ns->dead) || !atomic_load(&ns->attached)) {
		/* Only its references keep it, and no replay may find it again. */
		if (in_segment(m, ref))
			atomic_store(&ns->ref, 0);
	} else {
		err = rec_of_ns(m->db, ns, atomic_load(&ns->ctime), &r);
		if (!err) {
			r.mask |= REC_F_ORIGIN;
			r.origin = ref_lsn(ref);
			err = mover_commit(m, &r, NULL, 0, false, NULL);
		}
	}
	hold_end(&h);
	return err ? err : mover_breathe(m);
}

static emdb_err move_ns(struct mover *m, const struct rec *r, uint64_t ref)
{
	const unsigned int pin = epoch_pin(&m->db->epoch);
	const uint64_t id = rec_id(r, ref);
	const struct ns *const ns = ns_any_pinned(m->db, id);
	const bool counts = ns && atomic_load(&ns->ref) == ref;

	epoch_unpin(&m->db->epoch, pin);
	return counts ? renew_ns(m, id) : EMDB_OK;
}

/* ---- What says that something is gone -------------------------------------------- */

static emdb_err move_del(struct mover *m, const struct rec *r, uint64_t ref)
{
	const uint64_t hash = entry_hash(m->db, r->ns, r->key, r->key_len);
	struct rec c = copy_of(r, ref);
	const struct ns *ns;
	struct entry e;
	struct hold h;
	emdb_err err;

	if (!still_needed(m, c.origin))
		return EMDB_OK;
	hold_begin(&h, m->db, false);
	hold_stripe(&h, hash);
	/* Of a namespace that is gone nothing can be found, whatever its entries' records say. */
	ns = ns_find_pinned(m->db, r->ns);
	err = ns ? entry_find_pinned(m->db, ns, hash, r->key, r->key_len, true, &e) : EMDB_OK;
	if (err == EMDB_ERR_NOT_FOUND)
		err = mover_commit(m, &c, NULL, 0, true, NULL);
	hold_end(&h);
	return err ? err : mover_breathe(m);
}

static emdb_err move_clear(struct mover *m, const struct rec *r, uint64_t ref)
{
	struct rec c = copy_of(r, ref);
	emdb_err err = EMDB_OK;
	struct hold h;

	if (!still_needed(m, c.origin))
		return EMDB_OK;
	hold_begin(&h, m->db, false);
	if (ns_find_pinned(m->db, r->id))
		err = mover_commit(m, &c, NULL, 0, true, NULL);
	hold_end(&h);
	return err ? err : mover_breathe(m);
}

/*
 * The record may be the one that gave a namespace its times: then the
 * namespace's own record takes them over.
 */
static emdb_err keep_times(struct mover *m, const struct rec *r)
{
	const uint64_t id = r->kind == REC_CLEAR ? r->id : r->ns;
	const unsigned int pin = epoch_pin(&m->db->epoch);
	const struct ns *const ns = ns_find_pinned(m->db, id);
	const bool keep =
		ns && ref_lsn(atomic_load(&ns->ref)) < m->hi &&
		(atomic_load(&ns->mtime) == r->time_ns || atomic_load(&ns->ctime) == r->time_ns);

	epoch_unpin(&m->db->epoch, pin);
	return keep ? renew_ns(m, id) : EMDB_OK;
}

/* ---- The walk ---------------------------------------------------------------------- */

static emdb_err move_rec(struct mover *m, const struct rec *r, uint64_t ref)
{
	emdb_err err = EMDB_OK;

	switch (r->kind) {
	case REC_PUT:
		err = move_put(m, r, ref);
		break;
	case REC_LINK:
		err = move_link(m, r, ref);
		break;
	case REC_NS:
		err = move_ns(m, r, ref);
		break;
	case REC_DEL:
	case REC_DROP:
		err = move_del(m, r, ref);
		break;
	case REC_CLEAR:
		err = move_clear(m, r, ref);
		break;
	default:
		return data_note(m, r, ref);
	}
	return err || r->mask & REC_F_ORIGIN ? err : keep_times(m, r);
}

static bool is_named(const struct rec *r)
{
	return r->kind == REC_PUT || r->kind == REC_LINK || r->kind == REC_NS;
}

/* Something in the segment still has its record there. */
static emdb_err verify_rec(struct mover *m, const struct rec *r, uint64_t ref)
{
	const unsigned int pin = epoch_pin(&m->db->epoch);
	const struct ns *ns;
	bool busy = false;

	if (is_named(r))
		busy = in_index(m, r, entry_hash(m->db, r->ns, r->key, r->key_len), ref);
	if (r->kind == REC_PUT)
		busy = busy || is_open_orphan(m->db, rec_id(r, ref), ref);
	if (r->kind == REC_NS) {
		ns = ns_any_pinned(m->db, rec_id(r, ref));
		busy = busy || (ns && atomic_load(&ns->ref) == ref);
	}
	epoch_unpin(&m->db->epoch, pin);
	return busy ? EMDB_ERR_BUSY : EMDB_OK;
}

typedef emdb_err (*rec_fn)(struct mover *m, const struct rec *r, uint64_t ref);

struct walk {
	struct mover *m;
	rec_fn fn;
};

static emdb_err walk_frame(void *ctx, struct segment *seg, const struct frame *f)
{
	const struct walk *const w = ctx;
	struct batch_iter it;
	emdb_err err = EMDB_OK;
	struct rec r;
	uint64_t ref;
	int more;

	(void)seg;
	w->m->walked = f->lsn + f->len - w->m->lo;
	/* Where nothing counts nothing else would. */
	if (w->m->walked - w->m->breath >= BREATH_BYTES)
		err = mover_breathe(w->m);
	if (err)
		return err;
	if (f->kind == FRAME_SEAL)
		return EMDB_OK;
	if (f->kind != FRAME_BATCH)
		return fmt_frame_rec(f, &r) ? w->fn(w->m, &r, f->lsn) : EMDB_ERR_CORRUPT;
	if (!fmt_batch_begin(f, &it))
		return EMDB_ERR_CORRUPT;
	while (!err && (more = fmt_batch_next(&it, &r, &ref)) > 0)
		err = w->fn(w->m, &r, ref);
	return !err && more < 0 ? EMDB_ERR_CORRUPT : err;
}

emdb_err compact_move(struct mover *m)
{
	struct walk w = { m, move_rec };
	struct hold h;
	emdb_err err;

	/* Whoever appended to the segment before it was sealed has applied that after this. */
	hold_begin(&h, m->db, true);
	hold_end(&h);
	err = journal_walk_segment(m->db->j, m->seg, walk_frame, &w);
	return err ? err : data_move(m);
}

static bool never_pause(void *ctx, struct mover *m, uint64_t bytes)
{
	(void)ctx, (void)m, (void)bytes;
	return true;
}

static emdb_err rescue_recs(struct mover *m, const struct frame *f)
{
	struct batch_iter it;
	emdb_err err = EMDB_OK;
	struct rec r;
	uint64_t ref;
	uint32_t back;
	int more;

	if (!fmt_batch_begin(f, &it))
		return EMDB_OK;
	while (!err && (more = fmt_batch_next(&it, &r, &ref)) != 0)
		if (more > 0)
			err = move_rec(m, &r, ref);
		else if (!fmt_batch_skip(&it))
			break;
	/*
	 * Where the others begin the index alone knows. So only what it points to counts here: the
	 * bytes of a value may look like anything.
	 */
	for (uint32_t at = it.at; !err && at + FMT_BATCH_PREFIX <= f->len; at += 8)
		if (fmt_batch_rec_at(f->p + at, f->len - at, &r, &back) && back == at &&
		    is_named(&r))
			err = move_rec(m, &r, (f->lsn + at) | REF_BATCH);
	return err;
}

emdb_err compact_rescue(emdb_db *db, uint64_t lsn)
{
	struct mover m = { .db = db,
			   .seg = lsn >> db->sb.segment_shift,
			   .lo = lsn,
			   .flags = JOURNAL_RESERVE,
			   .pause = never_pause };
	const unsigned int pin = epoch_pin(&db->epoch);
	struct frame f;
	emdb_err err = journal_frame_of_pinned(db->j, lsn, &f, NULL);

	if (err) {
		/* Nothing of it can be read. */
		err = is_loss(err) ? EMDB_OK : err;
	} else if (f.kind == FRAME_BATCH) {
		m.hi = lsn + f.len;
		err = rescue_recs(&m, &f);
		if (!err)
			err = data_move(&m);
	}
	mover_release(&m);
	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err compact_verify(struct mover *m)
{
	struct walk w = { m, verify_rec };
	const emdb_err err = journal_walk_segment(m->db->j, m->seg, walk_frame, &w);

	return err ? err : data_verify(m);
}
