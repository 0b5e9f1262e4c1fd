/* SPDX-License-Identifier: Apache-2.0 */
/* Views: taking and closing them, and keeping what they see. */
#include "core/view_i.h"

/* So many things are given back before others get the lock. */
#define GIVE_STEP 256u

void views_init(emdb_db *db)
{
	struct views *const vs = &db->views;

	mutex_init(&vs->lock, LOCK_VIEW);
	hidx_init(&vs->spaces, &db->epoch);
	hidx_init(&vs->bigs, &db->epoch);
	hidx_init(&vs->gone, &db->epoch);
}

void views_stats(emdb_db *db, uint64_t *ret_open, uint64_t *ret_bytes)
{
	mutex_lock(&db->views.lock);
	*ret_open = db->views.open;
	*ret_bytes = db->views.bytes;
	mutex_unlock(&db->views.lock);
}

/* ---- What is kept ------------------------------------------------------------ */

struct kept_ns *kept_ns_pinned(struct views *vs, uint64_t ns)
{
	uint64_t found[1];

	/* mix64 is a bijection: one id, one hash. */
	return hidx_find_pinned(&vs->spaces, mix64(ns), found, 1)
		       ? (struct kept_ns *)(uintptr_t)found[0]
		       : NULL;
}

static uint64_t kept_bytes(const struct kept *k)
{
	uint64_t n = sizeof(*k);

	if (k->big)
		n += sizeof(*k->big) + k->big->count * sizeof(k->big->ext[0]);
	return n;
}

static void kept_free(struct kept *k)
{
	if (!k)
		return;
	if (k->seg)
		segment_unref(k->seg);
	for (size_t i = 0; k->big && i < k->big->count; i++)
		if (k->big->ext[i].seg)
			segment_unref(k->big->ext[i].seg);
	base_free(k->big);
	base_free(k);
}

static void kept_free_node(struct epoch_node *node)
{
	kept_free(container_of(node, struct kept, node));
}

static void kept_ns_free_node(struct epoch_node *node)
{
	struct kept_ns *const space = container_of(node, struct kept_ns, node);

	hidx_release(&space->idx);
	base_free(space);
}

/* Those who need what could not be kept will know. */
static void lose(struct views *vs)
{
	const uint64_t newest = atomic_load(&vs->newest);
	uint64_t lost = atomic_load(&vs->lost);

	while (lost < newest && !atomic_compare_exchange_weak(&vs->lost, &lost, newest))
		;
}

static struct kept_ns *space_locked(emdb_db *db, uint64_t ns)
{
	struct views *const vs = &db->views;
	struct kept_ns *space = kept_ns_pinned(vs, ns);

	if (space)
		return space;
	space = base_calloc(1, sizeof(*space));
	if (!space)
		return NULL;
	space->id = ns;
	hidx_init(&space->idx, &db->epoch);
	if (hidx_insert(&vs->spaces, mix64(ns), (uint64_t)(uintptr_t)space)) {
		base_free(space);
		return NULL;
	}
	return space;
}

static void space_drop_if_empty(emdb_db *db, struct kept_ns *space)
{
	struct views *const vs = &db->views;

	if (hidx_count(&space->idx) != 0 ||
	    hidx_remove(&vs->spaces, mix64(space->id), (uint64_t)(uintptr_t)space))
		return;
	epoch_retire(&db->epoch, &space->node, kept_ns_free_node);
}

/*
 * Enters k, which is consumed, unless no view sees it.  ns is not 0: a slot of that namespace, whose
 * index is looked up.  Pinned.
 */
static void keep_pinned(emdb_db *db, struct kept *k, uint64_t ns)
{
	struct views *const vs = &db->views;
	bool enter;

	mutex_lock(&vs->lock);
	enter = vs->head && k->since < vs->head->lsn;
	if (enter && ns) {
		k->space = space_locked(db, ns);
		k->in = k->space ? &k->space->idx : NULL;
	}
	if (enter && (!k->in || hidx_insert(k->in, k->hash, (uint64_t)(uintptr_t)k))) {
		lose(vs);
		enter = false;
		if (k->space)
			space_drop_if_empty(db, k->space);
	}
	if (enter) {
		k->next = vs->head->kept;
		vs->head->kept = k;
		vs->bytes += kept_bytes(k);
	}
	mutex_unlock(&vs->lock);
	if (!enter)
		kept_free(k);
}

/* ---- Taking and closing --------------------------------------------------------- */

void view_ref(struct view *v)
{
	mutex_lock(&v->db->views.lock);
	v->refs++;
	v->db->views.open++;
	mutex_unlock(&v->db->views.lock);
}

uint64_t view_lsn(const struct view *v)
{
	return v->lsn;
}

/* A store that nobody changes shows all there is. */
static uint64_t now_lsn(const emdb_db *db)
{
	return db->read_only ? UINT64_MAX : journal_tail(db->j);
}

/* The newest view if nothing was written since. */
static struct view *share_locked(emdb_db *db)
{
	struct views *const vs = &db->views;

	if (!vs->head || vs->head->lsn != now_lsn(db))
		return NULL;
	vs->head->refs++;
	vs->open++;
	return vs->head;
}

static void enter_locked(emdb_db *db, struct view *v)
{
	struct views *const vs = &db->views;

	v->db = db;
	v->lsn = now_lsn(db);
	v->refs = 1;
	v->older = vs->head;
	v->prev = &vs->head;
	if (v->older)
		v->older->prev = &v->older;
	vs->head = v;
	vs->open++;
	atomic_store(&vs->newest, v->lsn);
}

emdb_err view_new(emdb_db *db, struct view **ret)
{
	struct views *const vs = &db->views;
	struct view *v, *fresh;
	struct hold h;

	mutex_lock(&vs->lock);
	v = share_locked(db);
	mutex_unlock(&vs->lock);
	if (v) {
		*ret = v;
		return EMDB_OK;
	}
	fresh = base_calloc(1, sizeof(*fresh));
	if (!fresh)
		return EMDB_ERR_NOMEM;
	/* Whoever has appended has applied that. */
	hold_begin(&h, db, true);
	mutex_lock(&vs->lock);
	v = share_locked(db);
	if (!v) {
		v = fresh;
		fresh = NULL;
		enter_locked(db, v);
	}
	mutex_unlock(&vs->lock);
	hold_end(&h);
	base_free(fresh);
	*ret = v;
	return EMDB_OK;
}

/* Hangs k on the newest view that sees it, or frees it. */
static void give_back_locked(emdb_db *db, struct kept *k)
{
	struct views *const vs = &db->views;
	struct view *v = vs->head;

	while (v && v->lsn > k->until)
		v = v->older;
	if (v && kept_seen(k, v->lsn)) {
		k->next = v->kept;
		v->kept = k;
		return;
	}
	vs->bytes -= kept_bytes(k);
	/* It was entered: the one reason why it cannot be found does not exist. */
	if (hidx_remove(k->in, k->hash, (uint64_t)(uintptr_t)k))
		return;
	if (k->space)
		space_drop_if_empty(db, k->space);
	epoch_retire(&db->epoch, &k->node, kept_free_node);
}

static void give_back(emdb_db *db, struct kept *k)
{
	struct views *const vs = &db->views;

	while (k) {
		const unsigned int pin = epoch_pin(&db->epoch);

		mutex_lock(&vs->lock);
		for (unsigned int i = 0; k && i < GIVE_STEP; i++) {
			struct kept *const next = k->next;

			give_back_locked(db, k);
			k = next;
		}
		mutex_unlock(&vs->lock);
		epoch_unpin(&db->epoch, pin);
	}
}

static struct kept *leave_locked(struct view *v)
{
	struct views *const vs = &v->db->views;
	struct kept *const k = v->kept;

	*v->prev = v->older;
	if (v->older)
		v->older->prev = v->prev;
	atomic_store(&vs->newest, vs->head ? vs->head->lsn : 0);
	return k;
}

void view_unref(struct view *v)
{
	struct kept *k = NULL;
	emdb_db *db;
	bool last;

	if (!v)
		return;
	db = v->db;
	mutex_lock(&db->views.lock);
	db->views.open--;
	last = --v->refs == 0;
	if (last)
		k = leave_locked(v);
	mutex_unlock(&db->views.lock);
	if (!last)
		return;
	give_back(db, k);
	base_free(v);
}

void views_release(emdb_db *db)
{
	struct views *const vs = &db->views;

	while (vs->head) {
		struct view *const v = vs->head;

		give_back(db, leave_locked(v));
		base_free(v);
	}
	hidx_release(&vs->spaces);
	hidx_release(&vs->bigs);
	hidx_release(&vs->gone);
	mutex_destroy(&vs->lock);
}

/* ---- Keeping ------------------------------------------------------------------------ */

uint64_t view_since_pinned(emdb_db *db, uint64_t slot, const struct rec *rec)
{
	const uint64_t ref = slot_ref(slot);
	struct rec r;

	/* Only a PUT is the same wherever it lies; what a LINK says in ORIGIN is another thing. */
	if (slot & REF_SPECIAL)
		return ref_lsn(ref);
	if (!rec) {
		if (journal_rec_pinned(db->j, ref, &r, NULL))
			return ref_lsn(ref);
		rec = &r;
	}
	return rec->mask & REC_F_ORIGIN ? rec->origin : ref_lsn(ref);
}

void view_keep_slot_pinned(emdb_db *db, uint64_t ns, uint64_t hash, uint64_t slot,
			   const struct rec *rec, uint64_t lsn)
{
	struct views *const vs = &db->views;
	const uint64_t since = view_since_pinned(db, slot, rec);
	struct kept *k;

	if (since >= atomic_load(&vs->newest))
		return;
	k = base_calloc(1, sizeof(*k));
	if (!k) {
		lose(vs);
		return;
	}
	k->hash = hash;
	k->since = since;
	k->until = lsn;
	k->slot = slot;
	k->seg = journal_segment_pinned(db->j, ref_lsn(slot));
	if (k->seg)
		segment_ref(k->seg);
	keep_pinned(db, k, ns);
}

void view_keep_ns(emdb_db *db, uint64_t ns, uint64_t lsn)
{
	struct kept *const k = base_calloc(1, sizeof(*k));

	if (!k) {
		lose(&db->views);
		return;
	}
	k->in = &db->views.gone;
	k->hash = mix64(ns);
	k->since = ns * 8;
	k->until = lsn;
	keep_pinned(db, k, 0);
}

static struct kept_big *copy_big_locked(emdb_db *db, const struct big *big)
{
	const size_t count = extmap_count(&big->map);
	struct kept_big *const c = base_malloc(sizeof(*c) + count * sizeof(c->ext[0]));
	struct extent_cursor cur;

	if (!c)
		return NULL;
	c->size = big->size;
	c->expires_ms = big->expires_ms;
	c->count = 0;
	extmap_seek(&big->map, 0, &cur);
	while (c->count < count && extmap_next(&big->map, &cur, &c->ext[c->count].e)) {
		struct kept_extent *const x = &c->ext[c->count];

		/* NULL is damage, of which reading will tell. */
		x->seg = journal_segment_pinned(db->j, ref_lsn(x->e.ref));
		if (x->seg)
			segment_ref(x->seg);
		c->count++;
	}
	return c;
}

void view_keep_big_locked(emdb_db *db, uint64_t id, struct big *big, uint64_t lsn)
{
	struct views *const vs = &db->views;
	struct kept *k;

	if (atomic_load(&vs->newest) <= big->kept_lsn)
		return;
	for (uint32_t i = 0; i < big->nlinks; i++) {
		struct ns *const ns = ns_any_pinned(db, big->links[i].ns);

		if (ns)
			view_changed(ns, lsn);
	}
	k = base_calloc(1, sizeof(*k));
	if (k)
		k->big = copy_big_locked(db, big);
	if (!k || !k->big) {
		base_free(k);
		lose(vs);
		big->kept_lsn = lsn;
		return;
	}
	k->in = &vs->bigs;
	k->hash = mix64(id);
	k->since = big->kept_lsn;
	k->until = lsn;
	keep_pinned(db, k, 0);
	/* After it is there: who finds it changed looks for it. */
	big->kept_lsn = lsn;
}

void view_keep_nameless_pinned(emdb_db *db, uint64_t id)
{
	struct obj_view v;

	if (!objtab_get_pinned(db, id, &v) || !v.big)
		return;
	mutex_lock(&v.big->lock);
	if (v.big->nlinks == 0)
		view_keep_big_locked(db, id, v.big, journal_tail(db->j));
	mutex_unlock(&v.big->lock);
}

void view_changed(struct ns *ns, uint64_t lsn)
{
	uint64_t was = atomic_load_explicit(&ns->changed, memory_order_relaxed);

	/* Release: who reads it under the exclusive structure lock came after all of us anyway. */
	while (was < lsn &&
	       !atomic_compare_exchange_weak_explicit(&ns->changed, &was, lsn, memory_order_relaxed,
						      memory_order_relaxed))
		;
}
