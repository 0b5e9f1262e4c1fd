/* SPDX-License-Identifier: Apache-2.0 */
/* Finding entries, and what their records say. */
#include "core/store.h"

#define CANDIDATES 8

/* ---- Namespaces --------------------------------------------------------- */

struct ns *ns_any_pinned(emdb_db *db, uint64_t id)
{
	uint64_t found[CANDIDATES];
	size_t n;

	if (id == EMDB_ROOT)
		return db->root;
	/* mix64 is a bijection: one id, one hash, at most one value. */
	n = hidx_find_pinned(&db->nstab, mix64(id), found, CANDIDATES);
	return n ? (struct ns *)(uintptr_t)found[0] : NULL;
}

struct ns *ns_find_pinned(emdb_db *db, uint64_t id)
{
	struct ns *const ns = ns_any_pinned(db, id);

	if (!ns || atomic_load_explicit(&ns->dead, memory_order_acquire) ||
	    !atomic_load_explicit(&ns->attached, memory_order_acquire))
		return NULL;
	return ns;
}

void ns_attr(const struct ns *ns, struct emdb_attr *ret)
{
	const uint64_t subdirs = atomic_load_explicit(&ns->subdirs, memory_order_relaxed);

	memset(ret, 0, sizeof(*ret));
	ret->id = ns->id;
	ret->parent = atomic_load_explicit(&ns->parent, memory_order_relaxed);
	ret->size = hidx_count(&ns->idx);
	ret->mode = atomic_load_explicit(&ns->mode, memory_order_relaxed);
	ret->uid = atomic_load_explicit(&ns->uid, memory_order_relaxed);
	ret->gid = atomic_load_explicit(&ns->gid, memory_order_relaxed);
	ret->nlink = atomic_load_explicit(&ns->dead, memory_order_relaxed)
			     ? 0
			     : (uint32_t)min_u64(subdirs + 2, UINT32_MAX);
	ret->mtime_ns = atomic_load_explicit(&ns->mtime, memory_order_relaxed);
	ret->ctime_ns = atomic_load_explicit(&ns->ctime, memory_order_relaxed);
	ret->atime_ns = atomic_load_explicit(&ns->atime, memory_order_relaxed);
	ret->btime_ns = atomic_load_explicit(&ns->btime, memory_order_relaxed);
	ret->lsn = ref_lsn(atomic_load_explicit(&ns->ref, memory_order_relaxed));
}

/* ---- Entries ------------------------------------------------------------ */

/* Is r what the slot says it is? Slots come from an image, too, and what they say is not taken on trust. */
static bool is_slot_of(uint64_t slot, const struct rec *r)
{
	if (unlikely(slot & REF_SPECIAL))
		return r->kind == REC_NS || r->kind == REC_LINK;
	return r->kind == REC_PUT;
}

static emdb_err entry_load(emdb_db *db, uint64_t hash, uint64_t slot, struct entry *e)
{
	emdb_err err;

	e->hash = hash;
	e->slot = slot;
	e->ref = slot_ref(slot);
	e->lost = false;
	err = journal_rec_pinned(db->j, e->ref, &e->rec, &e->seg);
	if (err)
		return err;
	if (unlikely(!(e->rec.mask & REC_F_KEY) || !is_slot_of(slot, &e->rec)))
		return EMDB_ERR_CORRUPT;
	e->id = rec_id(&e->rec, e->ref);
	return EMDB_OK;
}

int64_t entry_expires_pinned(emdb_db *db, const struct entry *e)
{
	struct obj_view v;
	int64_t expires;

	if (e->rec.kind == REC_PUT)
		return e->rec.mask & REC_F_EXPIRES ? e->rec.expires_ms : 0;
	if (e->rec.kind != REC_LINK || !objtab_get_pinned(db, e->id, &v) || !v.big)
		return 0;
	mutex_lock(&v.big->lock);
	expires = v.big->expires_ms;
	mutex_unlock(&v.big->lock);
	return expires;
}

static bool entry_expired(emdb_db *db, const struct entry *e)
{
	int64_t expires;

	if (!(e->slot & (REF_EXPIRES | REF_SPECIAL)))
		return false;
	expires = entry_expires_pinned(db, e);
	return expires && ttl_expired(expires, db_now_ms(db));
}

emdb_err entry_read_pinned(emdb_db *db, uint64_t hash, uint64_t slot, bool raw, struct entry *ret)
{
	struct entry e;
	const emdb_err err = entry_load(db, hash, slot, &e);

	if (err)
		return err;
	if (!raw && entry_expired(db, &e))
		return EMDB_ERR_NOT_FOUND;
	*ret = e;
	return EMDB_OK;
}

/* Looks through every slot of one hash; many is how many there are. */
static emdb_err find_among(emdb_db *db, const struct ns *ns, uint64_t hash, const void *key,
			   size_t key_len, const uint64_t *slots, size_t n, struct entry *ret)
{
	emdb_err bad = EMDB_OK;

	for (size_t i = 0; i < n; i++) {
		struct entry e;
		bool same = false;
		emdb_err err = entry_load(db, hash, slots[i], &e);

		if (!err && e.rec.key_len == key_len && e.rec.ns == ns->id)
			err = same_mapped(e.rec.key, key, key_len, &same);
		if (err) {
			bad = err;
		} else if (same) {
			*ret = e;
			return EMDB_OK;
		}
	}
	/* An unreadable record may have been the one: absence would be a lie. */
	return bad ? bad : EMDB_ERR_NOT_FOUND;
}

static EMDB_NOINLINE emdb_err find_many(emdb_db *db, const struct ns *ns, uint64_t hash,
					const void *key, size_t key_len, size_t n,
					struct entry *ret)
{
	for (;;) {
		uint64_t *const slots = base_malloc((n + 4) * sizeof(*slots));
		size_t have;
		emdb_err err;

		if (!slots)
			return EMDB_ERR_NOMEM;
		have = hidx_find_pinned(&ns->idx, hash, slots, n + 4);
		if (have > n + 4) {
			n = have;
			base_free(slots);
			continue;
		}
		err = find_among(db, ns, hash, key, key_len, slots, have, ret);
		base_free(slots);
		return err;
	}
}

emdb_err entry_find_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, const void *key,
			   size_t key_len, bool raw, struct entry *ret)
{
	uint64_t slots[CANDIDATES];
	const size_t n = hidx_find_pinned(&ns->idx, hash, slots, CANDIDATES);
	struct entry e;
	emdb_err err;

	if (n == 0)
		return EMDB_ERR_NOT_FOUND;
	if (unlikely(n > CANDIDATES))
		err = find_many(db, ns, hash, key, key_len, n, &e);
	else
		err = find_among(db, ns, hash, key, key_len, slots, n, &e);
	if (err)
		return err;
	if (!raw && entry_expired(db, &e))
		return EMDB_ERR_NOT_FOUND;
	*ret = e;
	return EMDB_OK;
}

int slot_stands_pinned(const struct ns *ns, uint64_t hash, uint64_t slot)
{
	uint64_t slots[CANDIDATES];
	const size_t n = hidx_find_pinned(&ns->idx, hash, slots, CANDIDATES);

	for (size_t i = 0; i < min_size(n, CANDIDATES); i++)
		if (slots[i] == slot)
			return 1;
	return n > CANDIDATES ? -1 : 0;
}

bool entry_stands_pinned(emdb_db *db, const struct ns *ns, const struct entry *e)
{
	const int stands = slot_stands_pinned(ns, e->hash, e->slot);
	struct entry now;

	if (likely(stands >= 0))
		return stands;
	return !entry_find_pinned(db, ns, e->hash, e->rec.key, e->rec.key_len, true, &now) &&
	       now.slot == e->slot;
}

/* ---- Entries whose record is lost ---------------------------------------- */

/* Slots of one namespace in the order of their hashes, for which owners are looked for. */
struct wanted {
	const struct ns *ns;
	struct ckpt_slot *slots;
	size_t n, left;
};

/* The namespace (ref: its record) or big object (ref 0) with this id has an entry there. */
static void offer(struct wanted *w, uint64_t hash, uint64_t ref, uint8_t kind, uint64_t id)
{
	size_t lo = 0, hi = w->n;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (w->slots[mid].hash < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < w->n && w->slots[lo].hash == hash; lo++) {
		struct ckpt_slot *const s = &w->slots[lo];

		if (!(s->ref & REF_SPECIAL) || s->id || (ref && slot_ref(s->ref) != ref))
			continue;
		s->kind = kind;
		s->id = id;
		w->left--;
		return;
	}
}

/* objtab_sweep_big() callback: are they among its names? */
static bool offer_links(void *ctx, uint64_t id, struct big *big)
{
	struct wanted *const w = ctx;

	mutex_lock(&big->lock);
	for (uint32_t i = 0; i < big->nlinks && w->left; i++)
		if (big->links[i].ns == w->ns->id)
			offer(w, big->links[i].hash, 0, REC_LINK, id);
	mutex_unlock(&big->lock);
	return false;
}

static void offer_spaces_pinned(emdb_db *db, struct wanted *w)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	size_t n;

	while (w->left && (n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++) {
			const struct ns *const ns = (const struct ns *)(uintptr_t)slots[i].value;

			if (atomic_load(&ns->attached) && atomic_load(&ns->parent) == w->ns->id)
				offer(w, atomic_load(&ns->hash), atomic_load(&ns->ref), REC_NS,
				      ns->id);
		}
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
}

size_t slots_name_pinned(emdb_db *db, const struct ns *ns, struct ckpt_slot *slots, size_t n)
{
	struct wanted w = { .ns = ns, .slots = slots, .n = n };

	for (size_t i = 0; i < n; i++)
		w.left += slots[i].ref & REF_SPECIAL && !slots[i].id;
	if (w.left)
		offer_spaces_pinned(db, &w);
	if (w.left)
		objtab_sweep_big(db, offer_links, &w);
	return w.left;
}

void slot_names_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, uint64_t slot,
		       uint8_t *ret_kind, uint64_t *ret_id)
{
	struct ckpt_slot s = { .hash = hash, .ref = slot };

	s.kind = slot & REF_SPECIAL ? REC_LINK : REC_PUT;
	(void)slots_name_pinned(db, ns, &s, 1);
	*ret_kind = s.kind;
	*ret_id = s.id;
}

void entry_lost_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, uint64_t slot,
		       struct entry *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->hash = hash;
	ret->slot = slot;
	ret->ref = slot_ref(slot);
	slot_names_pinned(db, ns, hash, slot, &ret->rec.kind, &ret->id);
	ret->rec.mask = REC_F_NS;
	ret->rec.ns = ns->id;
	ret->seg = journal_segment_pinned(db->j, ref_lsn(ret->ref));
	ret->lost = true;
}

emdb_err entry_find_lost_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, const void *key,
				size_t key_len, struct entry *ret)
{
	uint64_t slots[CANDIDATES];
	const size_t n = min_size(hidx_find_pinned(&ns->idx, hash, slots, CANDIDATES), CANDIDATES);

	for (size_t i = 0; i < n; i++) {
		struct entry e;
		bool same = false;
		emdb_err err = entry_load(db, hash, slots[i], &e);

		if (!err && e.rec.key_len == key_len && e.rec.ns == ns->id)
			err = same_mapped(e.rec.key, key, key_len, &same);
		/* The disk gave it this time. */
		if (!err && same) {
			*ret = e;
			return EMDB_OK;
		}
		if (!is_loss(err))
			continue;
		entry_lost_pinned(db, ns, hash, slots[i], ret);
		ret->rec.mask |= REC_F_KEY;
		ret->rec.key = key;
		ret->rec.key_len = key_len;
		return EMDB_OK;
	}
	return EMDB_ERR_NOT_FOUND;
}

/* ---- Attributes ---------------------------------------------------------- */

void rec_attr(emdb_db *db, const struct rec *r, uint64_t ref, struct emdb_attr *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->id = rec_id(r, ref);
	ret->size = r->value_len;
	ret->blocks = align_up(r->value_len, 512) / 512;
	ret->nlink = r->mask & REC_F_FLAGS && r->flags & REC_FLAG_ORPHAN ? 0 : 1;
	if (r->mask & REC_F_META) {
		ret->mode = r->mode;
		ret->uid = r->uid;
		ret->gid = r->gid;
	} else {
		ret->mode = STORE_FILE_MODE;
		ret->uid = db->sb.uid;
		ret->gid = db->sb.gid;
	}
	ret->rdev = r->rdev;
	ret->ctime_ns = r->time_ns;
	ret->mtime_ns = r->mtime_ns;
	ret->atime_ns = r->atime_ns;
	ret->btime_ns = r->btime_ns;
	ret->expires_ms = r->mask & REC_F_EXPIRES ? r->expires_ms : 0;
	ret->lsn = ref_lsn(ref);
}

void big_attr(uint64_t id, struct big *big, struct emdb_attr *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->id = id;
	mutex_lock(&big->lock);
	ret->size = big->size;
	ret->blocks = align_up(extmap_bytes(&big->map), 512) / 512;
	ret->mode = big->mode;
	ret->nlink = big->nlinks;
	ret->uid = big->uid;
	ret->gid = big->gid;
	ret->rdev = big->rdev;
	ret->atime_ns = big->atime;
	ret->mtime_ns = big->mtime;
	ret->ctime_ns = big->ctime;
	ret->btime_ns = big->btime;
	ret->expires_ms = big->expires_ms;
	ret->lsn = ref_lsn(big->touch_lsn);
	mutex_unlock(&big->lock);
}

emdb_err entry_attr_pinned(emdb_db *db, const struct entry *e, struct emdb_attr *ret)
{
	struct obj_view v;
	struct ns *ns;

	switch (e->rec.kind) {
	case REC_PUT:
		rec_attr(db, &e->rec, e->ref, ret);
		return EMDB_OK;
	case REC_NS:
		ns = ns_any_pinned(db, e->id);
		if (!ns)
			return EMDB_ERR_NOT_FOUND;
		ns_attr(ns, ret);
		return EMDB_OK;
	case REC_LINK:
		/* Absent: its last name went since the index was read. */
		if (!objtab_get_pinned(db, e->id, &v) || !v.big)
			return EMDB_ERR_NOT_FOUND;
		big_attr(e->id, v.big, ret);
		return EMDB_OK;
	default:
		return EMDB_ERR_CORRUPT;
	}
}

uint32_t ref_size_pinned(emdb_db *db, uint64_t ref)
{
	return journal_size_pinned(db->j, ref);
}

emdb_err rec_value_copy(const struct rec *r, void **ret_value, size_t *ret_len)
{
	uint8_t *const p = base_malloc(r->value_len + 1);
	emdb_err err;

	if (!p)
		return EMDB_ERR_NOMEM;
	err = copy_mapped(p, r->value, r->value_len);
	if (err) {
		base_free(p);
		return err;
	}
	p[r->value_len] = 0;
	*ret_value = p;
	*ret_len = r->value_len;
	return EMDB_OK;
}
