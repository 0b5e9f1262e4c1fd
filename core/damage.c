/* SPDX-License-Identifier: Apache-2.0 */
#include "core/damage_i.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/keyslot.h"
#include "core/segment_i.h"
#include "core/storedir.h"

/* Beyond a page that the disk does not deliver. */
#define PAGE 4096u
/* Doubts from damaged frames; a hostile journal could hold millions of them. */
#define DOUBTS_MAX 100000u

/* ---- Life ------------------------------------------------------------------- */

void damage_init(struct damage *d)
{
	memset(d, 0, sizeof(*d));
	d->replaying = true;
}

void damage_release(struct damage *d)
{
	buf_release(&d->places);
	buf_release(&d->losses);
	buf_release(&d->names);
	buf_release(&d->removed);
	buf_release(&d->scratch);
}

void damage_reset(struct damage *d)
{
	buf_reset(&d->losses);
	buf_reset(&d->names);
	buf_reset(&d->removed);
	d->unknown = 0;
	d->place_count = d->places.len / sizeof(struct damage_place);
	/* Segments that could not be opened have been told of before the recovery. */
	while (d->place_count) {
		const struct damage_place *const p =
			(const struct damage_place *)(const void *)d->places.data + d->place_count -
			1;

		if (p->early)
			break;
		d->place_count--;
		d->places.len -= sizeof(*p);
	}
	d->bytes = 0;
}

static void note(struct damage *d, int ret)
{
	if (ret)
		d->err = EMDB_ERR_NOMEM;
}

struct loss *damage_add(struct damage *d, enum loss_kind kind)
{
	const struct loss l = { .kind = kind };

	if (buf_append(&d->losses, &l, sizeof(l))) {
		d->err = EMDB_ERR_NOMEM;
		return NULL;
	}
	return damage_loss(d, damage_losses(d) - 1);
}

struct loss *damage_add_slot_pinned(struct damage *d, const struct ns *ns,
				    const struct hidx_slot *slot)
{
	struct loss *const l = damage_add(d, LOSS_ENTRY);

	if (!l)
		return NULL;
	l->ns = ns->id;
	l->hash = slot->hash;
	l->slot = slot->value;
	l->lsn = ref_lsn(slot->value);
	slot_names_pinned(d->db, ns, slot->hash, slot->value, &l->rec_kind, &l->id);
	return l;
}

void damage_name(struct damage *d, struct loss *l, const uint8_t *key, size_t len)
{
	l->name_at = d->names.len;
	l->name_len = len;
	l->named = buf_append(&d->names, key, len) == 0;
	if (!l->named)
		d->err = EMDB_ERR_NOMEM;
}

/* ---- Reading what does not check out ------------------------------------------- */

/* n bytes from off on into d->scratch; zeros for what the disk does not deliver. */
static bool copy_out(struct damage *d, const struct segment *s, uint64_t off, size_t n)
{
	buf_reset(&d->scratch);
	if (buf_append_zero(&d->scratch, n)) {
		d->err = EMDB_ERR_NOMEM;
		return false;
	}
	for (size_t at = 0, piece; at < n; at += piece) {
		piece = min_size(n - at, PAGE - (size_t)((off + at) % PAGE));
		(void)!copy_mapped(d->scratch.data + at, s->map + off + at, piece);
	}
	return true;
}

/* The frame at off, unverified, in d->scratch. */
static bool frame_unproved(struct damage *d, const struct segment *s, uint64_t off, uint64_t end,
			   struct frame *ret)
{
	enum frame_status st;

	if (segment_parse(s, off, end, false, &st, ret) || st != FRAME_OK || ret->len > end - off ||
	    !copy_out(d, s, off, ret->len))
		return false;
	ret->p = d->scratch.data;
	return true;
}

/* Is every name in a record what a name can be? */
static bool is_sane(const struct damage *d, const struct rec *r)
{
	if (r->mask & REC_F_KEY && r->key_len > EMDB_KEY_MAX)
		return false;
	switch ((enum rec_kind)r->kind) {
	case REC_PUT:
	case REC_DEL:
	case REC_LINK:
	case REC_DROP:
	case REC_NS:
		return (r->mask & (REC_F_NS | REC_F_KEY)) == (REC_F_NS | REC_F_KEY) &&
		       ns_any_pinned(d->db, r->ns);
	case REC_INODE:
	case REC_WRITE:
	case REC_TRUNC:
	case REC_PUNCH:
	case REC_CLONE:
	case REC_CLEAR:
		return r->mask & REC_F_ID;
	case FRAME_BATCH:
	case FRAME_SEAL:
		break;
	}
	return false;
}

/* The object's bytes there are damaged: a read shall say so. */
static void apply_write(struct damage *d, const struct rec *r, uint64_t ref)
{
	struct apply a = APPLY_INIT(d->db, true);
	struct rec w = *r;
	struct obj_view v;
	emdb_err err;

	if (!objtab_get_pinned(d->db, r->id, &v) || !v.big || r->value_len > EXTENT_LEN_MAX ||
	    r->off > EMDB_VALUE_MAX - r->value_len) {
		d->unlikely = true; /* it may be the id that is damaged */
		return;
	}
	mutex_lock(&v.big->lock);
	w.size = max_u64(v.big->size, r->off + r->value_len);
	mutex_unlock(&v.big->lock);
	d->unlikely |= w.size != r->size; /* or the offset */
	err = apply_rec(&a, &w, ref, 0, false, NULL);
	buf_release(&a.pending);
	if (err == EMDB_ERR_NOMEM)
		d->err = err;
}

/* What is there of ns/hash: its slot; 0: nothing. */
static uint64_t slot_at_pinned(emdb_db *db, uint64_t ns_id, uint64_t hash)
{
	const struct ns *const ns = ns_any_pinned(db, ns_id);
	uint64_t slot;

	return ns && hidx_find_pinned(&ns->idx, hash, &slot, 1) ? slot : 0;
}

/*
 * Does what the record says of its entry fit what is there? When it does not, it may be the name that is damaged,
 * and the entry that it was about shows an older state.
 */
static bool is_likely(const struct damage *d, const struct rec *r, uint64_t hash)
{
	const uint64_t slot = slot_at_pinned(d->db, r->ns, hash);
	struct entry e;

	if (r->mask & (REC_F_ORIGIN | REC_F_FLAGS))
		return true; /* copies and new names find nothing */
	if (r->kind == REC_DEL || r->kind == REC_DROP)
		return slot != 0;
	if (r->kind != REC_PUT || !(r->mask & REC_F_ID))
		return true;
	return slot && entry_read_pinned(d->db, hash, slot, true, &e) == EMDB_OK && e.id == r->id;
}

/* A record that nothing proves, behind the checkpoint. */
static void doubt(struct damage *d, const struct rec *r, uint64_t ref)
{
	const bool by_name = r->mask & REC_F_KEY && r->kind != REC_INODE;
	struct obj_view v;
	struct loss *l;

	if (r->kind == REC_WRITE) {
		apply_write(d, r, ref);
		return;
	}
	if (!by_name && !ns_any_pinned(d->db, r->id) &&
	    !(objtab_get_pinned(d->db, r->id, &v) && v.big)) {
		d->unlikely = true;
		return;
	}
	l = damage_losses(d) < DOUBTS_MAX ? damage_add(d, by_name ? LOSS_DOUBT : LOSS_STATE) : NULL;
	if (!l)
		return;
	l->rec_kind = r->kind;
	l->lsn = ref_lsn(ref);
	l->id = r->mask & REC_F_ID ? r->id : 0;
	if (!by_name)
		return;
	l->ns = r->ns;
	l->hash = entry_hash(d->db, r->ns, r->key, r->key_len);
	damage_name(d, l, r->key, r->key_len);
	d->unlikely |= !is_likely(d, r, l->hash);
}

/* True: the frame says something. */
static bool doubt_frame(struct damage *d, const struct frame *f)
{
	struct batch_iter it;
	bool any = false;
	struct rec r;
	uint64_t ref;
	int more;

	if (f->kind == FRAME_SEAL)
		return f->len == 24;
	if (f->kind != FRAME_BATCH) {
		any = fmt_frame_rec(f, &r) && is_sane(d, &r);
		if (any)
			doubt(d, &r, f->lsn);
		return any;
	}
	if (!fmt_batch_begin(f, &it))
		return false;
	/* All of it is lost for one record that is senseless; the others are told of by name. */
	while ((more = fmt_batch_next(&it, &r, &ref)) != 0) {
		if (more < 0) {
			d->unlikely = true;
			if (!fmt_batch_skip(&it))
				break;
		} else if (is_sane(d, &r)) {
			any = true;
			doubt(d, &r, ref);
		}
	}
	return any;
}

/* Frames in off..to-1 that still decode. */
static void decode(struct damage *d, const struct segment *s, uint64_t off, uint64_t to)
{
	const unsigned int pin = epoch_pin(&d->db->epoch);
	const uint64_t end = min_u64(to, atomic_load(&s->size));

	d->unknown += to - off;
	while (off < end) {
		enum frame_status st;
		struct frame f;

		/* A page at a time where the disk gives nothing. */
		if (segment_parse(s, off, end, false, &st, &f)) {
			off = align_down(off + PAGE, PAGE);
			continue;
		}
		d->unlikely = false;
		if (st == FRAME_OK && frame_unproved(d, s, off, end, &f) && doubt_frame(d, &f)) {
			if (!d->unlikely)
				d->unknown -= f.len;
			off += f.len;
			continue;
		}
		off += 8;
	}
	epoch_unpin(&d->db->epoch, pin);
}

/* ---- While opening --------------------------------------------------------------- */

void damage_found(void *ctx, const struct emdb_detail *detail, const struct segment *s,
		  uint64_t len)
{
	struct damage *const d = ctx;
	struct damage_place p = { .segment = detail->segment, .offset = detail->offset };
	const uint64_t lsn = (detail->segment << d->db->sb.segment_shift) + detail->offset;

	if (d->quiet || (!d->replaying && lsn >= d->db->replay_from))
		return; /* known */
	p.len = len;
	p.early = !s;
	(void)snprintf(p.text, sizeof(p.text), "%.223s", detail->text);
	d->place_count++;
	d->bytes += len;
	d->end_lsn = max_u64(d->end_lsn, lsn + len);
	/* A replay begins at the image: what it finds is behind that. */
	if (d->replaying && s)
		d->db->ckpt.lenient = true;
	if (d->places.len / sizeof(p) < DAMAGE_PLACES_MAX)
		note(d, buf_append(&d->places, &p, sizeof(p)));
	if (s && d->replaying && !d->db->sb.cipher)
		decode(d, s, detail->offset, detail->offset + len);
	else if (d->replaying && s)
		d->unknown += len;
}

emdb_err damage_file(struct damage *d, const char *text)
{
	struct damage_place p = { .segment = UINT64_MAX, .early = true };

	(void)snprintf(p.text, sizeof(p.text), "%.223s", text);
	d->place_count++;
	return buf_append(&d->places, &p, sizeof(p)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

static emdb_err removal(struct damage *d, const struct rec *r)
{
	if (r->kind != REC_DROP && !(r->kind == REC_DEL && r->mask & REC_F_ID))
		return EMDB_OK;
	return buf_append(&d->removed, &r->id, sizeof(r->id)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

emdb_err damage_replaying(struct damage *d, const struct frame *f)
{
	struct batch_iter it;
	emdb_err err = d->err;
	struct rec r;
	uint64_t ref;

	if (err || f->kind == FRAME_SEAL)
		return err;
	if (f->kind != FRAME_BATCH)
		return fmt_frame_rec(f, &r) ? removal(d, &r) : EMDB_OK;
	if (!fmt_batch_begin(f, &it))
		return EMDB_OK;
	while (!err && fmt_batch_next(&it, &r, &ref) > 0)
		err = removal(d, &r);
	return err;
}

static bool was_removed(const struct damage *d, uint64_t id)
{
	for (size_t at = 0; at < d->removed.len; at += sizeof(id))
		if (memcmp(d->removed.data + at, &id, sizeof(id)) == 0)
			return true;
	return false;
}

/* Can the record that names it have been in what is damaged? */
static bool may_be_adrift(const struct damage *d, uint64_t id)
{
	return d->place_count && id < d->end_lsn / 8 + 1 && !was_removed(d, id);
}

static void keep_ns(struct damage *d, struct ns *ns)
{
	struct loss *l;

	if (atomic_load(&ns->attached) || atomic_load(&ns->freed) || ns == d->db->root ||
	    hidx_count(&ns->idx) == 0 || !may_be_adrift(d, ns->id))
		return;
	l = damage_add(d, LOSS_ADRIFT_NS);
	if (!l)
		return;
	l->id = ns->id;
	l->rec_kind = REC_NS;
	l->len = hidx_count(&ns->idx);
	atomic_store(&ns->attached, true);
	atomic_store(&ns->parent, EMDB_ROOT);
	atomic_store(&ns->hash, 0);
	atomic_store(&ns->ref, 0);
}

/* objtab_sweep_big() callback. */
static bool keep_big(void *ctx, uint64_t id, struct big *big)
{
	struct damage *const d = ctx;
	struct loss *l;
	bool keep;

	mutex_lock(&big->lock);
	keep = big->nlinks == 0 && !big->named && !big->mark && big->inode_ref;
	mutex_unlock(&big->lock);
	l = keep && may_be_adrift(d, id) ? damage_add(d, LOSS_ADRIFT_BIG) : NULL;
	if (!l)
		return false;
	l->id = id;
	l->rec_kind = REC_LINK;
	l->len = big->size;
	/* A name that no entry has, so that nobody takes it for garbage. */
	note(d, big_link_add(big, 0, id) != EMDB_OK);
	return false;
}

emdb_err damage_keep_adrift(struct damage *d)
{
	emdb_db *const db = d->db;
	const unsigned int pin = epoch_pin(&db->epoch);
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	size_t n;

	while ((n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			keep_ns(d, (struct ns *)(uintptr_t)slots[i].value);
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	objtab_sweep_big(db, keep_big, d);
	epoch_unpin(&db->epoch, pin);
	d->replaying = false;
	return d->err;
}

/* ---- What is lost ------------------------------------------------------------------ */

void damage_name_by_record(struct damage *d, struct loss *l)
{
	const uint64_t ref = slot_ref(l->slot), mask = (UINT64_C(1) << d->db->sb.segment_shift) - 1;
	const struct segment *const s = journal_segment_pinned(d->db->j, ref_lsn(ref));
	const uint64_t off = ref_lsn(ref) & mask;
	struct frame f;
	struct rec r;
	uint32_t back;
	bool ok = false;
	uint64_t end;

	if (!s || d->db->sb.cipher)
		return;
	end = min_u64(segment_len(s), atomic_load(&s->size));
	if (off < FMT_SEG_HEADER || off >= end)
		return;
	if (!(ref & REF_BATCH)) {
		ok = frame_unproved(d, s, off, end, &f) && f.kind < FRAME_BATCH &&
		     fmt_frame_rec(&f, &r);
	} else {
		const uint32_t n = segment_size_of(s, ref);

		if (n > FMT_BATCH_PREFIX && n <= end - off && copy_out(d, s, off, n))
			ok = fmt_batch_rec_at(d->scratch.data, n, &r, &back);
	}
	if (ok && r.mask & REC_F_KEY && r.ns == l->ns &&
	    entry_hash(d->db, r.ns, r.key, r.key_len) == l->hash)
		damage_name(d, l, r.key, r.key_len);
}

static void verify_entry(struct damage *d, const struct ns *ns, const struct hidx_slot *slot)
{
	struct entry e;
	struct loss *l;

	if (!is_loss(entry_read_pinned(d->db, slot->hash, slot->value, true, &e)))
		return;
	l = damage_add_slot_pinned(d, ns, slot);
	if (l)
		damage_name_by_record(d, l);
}

static void verify_ns(struct damage *d, const struct ns *ns)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	if (!atomic_load(&ns->attached))
		return;
	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		/* Of an encrypted store what is read stays in memory as long as the pin. */
		const unsigned int pin = epoch_pin(&d->db->epoch);

		for (size_t i = 0; i < n; i++)
			verify_entry(d, ns, &slots[i]);
		epoch_unpin(&d->db->epoch, pin);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
}

static void verify_spaces(struct damage *d)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	size_t n;

	verify_ns(d, d->db->root);
	while ((n = hidx_walk_pinned(&d->db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			verify_ns(d, (const struct ns *)(uintptr_t)slots[i].value);
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
}

void damage_add_range(struct damage *d, uint64_t id, const struct extent *x)
{
	const size_t n = damage_losses(d);
	struct loss *l = n ? damage_loss(d, n - 1) : NULL;

	if (l && l->kind == LOSS_RANGE && l->id == id && l->off + l->len == x->off) {
		l->len += x->len;
		return;
	}
	l = damage_add(d, LOSS_RANGE);
	if (!l)
		return;
	l->id = id;
	l->off = x->off;
	l->len = x->len;
	l->lsn = ref_lsn(x->ref);
}

/* objtab_sweep_big() callback: everything of a big object must be there. */
static bool verify_big(void *ctx, uint64_t id, struct big *big)
{
	struct damage *const d = ctx;
	struct extent_cursor cur = { 0, 0 };
	struct extent x;
	struct rec r;

	mutex_lock(&big->lock);
	if (big->nlinks &&
	    (!big->inode_ref || journal_rec_pinned(d->db->j, big->inode_ref, &r, NULL))) {
		struct loss *const l = damage_add(d, LOSS_META);

		if (l) {
			l->id = id;
			l->off = big->inode_ref != 0;
			l->lsn = ref_lsn(big->inode_ref);
		}
	}
	while (big->nlinks && extmap_next(&big->map, &cur, &x))
		if (journal_copy_pinned(d->db->j, x.ref, x.skip, x.len, NULL))
			damage_add_range(d, id, &x);
	mutex_unlock(&big->lock);
	return false;
}

/* ---- Names, and frames before the checkpoint ------------------------------------------ */

static int by_place(const void *a, const void *b)
{
	const struct loss *const x = a, *const y = b;
	const bool xe = x->kind != LOSS_ENTRY, ye = y->kind != LOSS_ENTRY;

	if (xe != ye)
		return xe < ye ? -1 : 1;
	if (x->ns != y->ns)
		return x->ns < y->ns ? -1 : 1;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return 0;
}

void damage_sort(struct damage *d)
{
	if (damage_losses(d))
		qsort(d->losses.data, damage_losses(d), sizeof(struct loss), by_place);
}

struct loss *damage_entry(const struct damage *d, uint64_t ns, uint64_t hash)
{
	const struct loss want = { .kind = LOSS_ENTRY, .ns = ns, .hash = hash };

	return damage_losses(d)
		       ? bsearch(&want, d->losses.data, damage_losses(d), sizeof(want), by_place)
		       : NULL;
}

static void name_by_other(struct damage *d, const struct rec *r)
{
	struct loss *l;

	if (!(r->mask & REC_F_KEY) || !(r->mask & REC_F_NS) || !damage_losses(d))
		return;
	l = damage_entry(d, r->ns, entry_hash(d->db, r->ns, r->key, r->key_len));
	if (l && !l->named)
		damage_name(d, l, r->key, r->key_len);
}

static emdb_err walked(void *ctx, struct segment *seg, const struct frame *f)
{
	struct damage *const d = ctx;
	struct batch_iter it;
	struct rec r;
	uint64_t ref;
	int more;

	(void)seg;
	/* What a replay refuses is damage, though it was not replayed. */
	if (f->kind != FRAME_BATCH) {
		if (!fmt_frame_rec(f, &r))
			return EMDB_ERR_CORRUPT;
		name_by_other(d, &r);
	} else {
		if (!fmt_batch_begin(f, &it))
			return EMDB_ERR_CORRUPT;
		while ((more = fmt_batch_next(&it, &r, &ref)) > 0)
			name_by_other(d, &r);
		if (more < 0)
			return EMDB_ERR_CORRUPT;
	}
	if (f->lsn < d->db->replay_from) {
		d->frames++;
		d->records += f->kind == FRAME_BATCH ? get_u32(f->p + FMT_FRAME_HEADER) : 1;
		d->good_bytes += f->len;
	}
	return d->err;
}

static bool has_unnamed(const struct damage *d)
{
	for (size_t i = 0; i < damage_losses(d); i++)
		if (damage_loss(d, i)->kind == LOSS_ENTRY && !damage_loss(d, i)->named)
			return true;
	return false;
}

/* Opening by a checkpoint left unread what the checkpoint stands for. */
static emdb_err walk_journal(struct damage *d)
{
	emdb_db *const db = d->db;
	const bool all = has_unnamed(d);
	struct journal_seg_info *segs;
	emdb_err err = EMDB_OK;
	size_t n;

	n = journal_segments(db->j, NULL, 0);
	segs = base_calloc(n + 1, sizeof(*segs));
	if (!segs)
		return EMDB_ERR_NOMEM;
	n = min_size(journal_segments(db->j, segs, n), n);
	for (size_t i = 0; !err && i < n; i++)
		if (all || segs[i].id << db->sb.segment_shift < db->replay_from)
			err = journal_check_segment(db->j, segs[i].id, walked, d);
	base_free(segs);
	return err;
}

/* ---- Doubts -------------------------------------------------------------------------- */

static uint64_t touched_pinned(emdb_db *db, uint64_t id)
{
	const struct ns *const ns = ns_any_pinned(db, id);
	struct obj_view v;
	uint64_t lsn = 0;

	if (ns)
		return atomic_load(&ns->ref);
	if (!objtab_get_pinned(db, id, &v) || !v.big)
		return UINT64_MAX; /* gone meanwhile */
	mutex_lock(&v.big->lock);
	if (v.big->nlinks == 0)
		lsn = UINT64_MAX;
	mutex_unlock(&v.big->lock);
	return lsn;
}

/* False: a later record says what is there now. */
static bool settle(struct damage *d, struct loss *l)
{
	uint64_t slot;

	if (l->kind == LOSS_STATE)
		return touched_pinned(d->db, l->id) < l->lsn;
	if (l->kind != LOSS_DOUBT)
		return true;
	slot = slot_at_pinned(d->db, l->ns, l->hash);
	if (slot && ref_lsn(slot) > l->lsn)
		return false;
	l->slot = slot;
	l->older = slot != 0;
	/* Gone is what the record wanted. */
	return slot || (l->rec_kind != REC_DEL && l->rec_kind != REC_DROP);
}

static bool is_same(const struct loss *a, const struct loss *b)
{
	return a->kind == b->kind && a->ns == b->ns && a->hash == b->hash &&
	       (a->kind == LOSS_DOUBT || a->id == b->id);
}

/* Keeps what is still in doubt, the last of several about one thing. */
static void settle_doubts(struct damage *d)
{
	const size_t n = damage_losses(d);
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct loss *const l = damage_loss(d, i);
		bool keep = settle(d, l);

		for (size_t k = i + 1; keep && k < n && k < i + 64; k++)
			if (l->kind == LOSS_DOUBT || l->kind == LOSS_STATE)
				keep = !is_same(l, damage_loss(d, k));
		if (keep)
			*damage_loss(d, kept++) = *l;
	}
	d->losses.len = kept * sizeof(struct loss);
}

/* What was in segments that are not there, behind the checkpoint. */
static void count_missing(struct damage *d)
{
	const uint32_t shift = d->db->sb.segment_shift;

	for (size_t i = 0; i < d->places.len / sizeof(struct damage_place); i++) {
		const struct damage_place *const p =
			(const struct damage_place *)(const void *)d->places.data + i;

		if (p->early && p->segment != UINT64_MAX && p->offset + p->len > FMT_SEG_HEADER &&
		    (p->segment << shift) + p->offset + p->len > d->db->replay_from)
			d->unknown += p->len;
	}
}

/* The copy of the superblock that a repair would need. There is none in a snapshot. */
static emdb_err verify_super_copy(struct damage *d)
{
	const emdb_db *const db = d->db;
	const char *why = NULL;
	struct superblock sb;
	char text[160];
	const emdb_err err = storedir_super_read_as(db->io, db->dirfd, STOREDIR_SUPER_BAK, &sb);

	if (err == EMDB_ERR_NOT_FOUND)
		return EMDB_OK;
	/* Not what the file is, but what the machine lacks. */
	if (err && !is_loss(err) && err != EMDB_ERR_NOT_STORE && err != EMDB_ERR_VERSION)
		return err;
	if (err)
		why = emdb_strerror(err);
	else if (memcmp(sb.uuid, db->sb.uuid, sizeof(sb.uuid)) != 0)
		why = "it belongs to another store";
	else if (db->vault && !keyslot_same(&sb, db->vault))
		why = "it does not authenticate";
	if (!why)
		return EMDB_OK;
	(void)snprintf(text, sizeof(text), STOREDIR_SUPER_BAK ": the copy of the superblock: %s",
		       why);
	return damage_file(d, text);
}

emdb_err damage_analyse(struct damage *d)
{
	const unsigned int pin = epoch_pin(&d->db->epoch);
	emdb_err err;

	count_missing(d);
	settle_doubts(d);
	epoch_unpin(&d->db->epoch, pin);
	/* Nobody else has this store, and nothing in it changes: namespaces need no pin. */
	verify_spaces(d);
	objtab_sweep_big(d->db, verify_big, d);
	damage_sort(d);
	err = d->err ? d->err : walk_journal(d);
	if (!err)
		err = verify_super_copy(d);
	return err ? err : d->err;
}
