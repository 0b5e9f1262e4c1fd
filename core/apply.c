/* SPDX-License-Identifier: Apache-2.0 */
/* How each kind of record changes memory: the one place, for live operations and for replay. */
#include "core/store.h"

static emdb_err pending_add(struct apply *a, uint64_t id)
{
	return buf_append(&a->pending, &id, sizeof(id)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

static void live_add_pinned(emdb_db *db, uint64_t ref, int64_t delta)
{
	struct segment *const seg = journal_segment_pinned(db->j, ref_lsn(ref));

	if (seg)
		segment_live_add(seg, delta);
}

/* A checkpoint was loaded that has what this record did to whatever has as_of. */
static bool is_included(const struct apply *a, uint64_t as_of, uint64_t ref)
{
	return unlikely(a->replay && ref_lsn(ref) < as_of);
}

/* The record says that something is gone: it does not count, but may be needed (compact.h). */
static void tomb_add_pinned(emdb_db *db, uint64_t ref, uint32_t size)
{
	struct segment *const seg = journal_segment_pinned(db->j, ref_lsn(ref));

	if (seg)
		segment_tomb_add(seg, size);
}

/* ---- Namespaces ----------------------------------------------------------- */

static void ns_free_node(struct epoch_node *node)
{
	struct ns *const ns = container_of(node, struct ns, node);

	hidx_release(&ns->idx);
	if (ns->ord)
		oidx_release(ns->ord);
	base_free(ns->ord);
	base_free(ns);
}

emdb_err ns_new(emdb_db *db, uint64_t id, struct ns **ret)
{
	struct ns *const ns = base_calloc(1, sizeof(*ns));

	if (!ns)
		return EMDB_ERR_NOMEM;
	if (db->ordered) {
		ns->ord = base_malloc(sizeof(*ns->ord));
		if (!ns->ord) {
			base_free(ns);
			return EMDB_ERR_NOMEM;
		}
		oidx_init(ns->ord, &db->epoch);
	}
	ns->id = id;
	hidx_init(&ns->idx, &db->epoch);
	atomic_store_explicit(&ns->mode, STORE_DIR_MODE, memory_order_relaxed);
	if (id != EMDB_ROOT && hidx_insert(&db->nstab, mix64(id), (uint64_t)(uintptr_t)ns)) {
		ns_free_node(&ns->node);
		return EMDB_ERR_NOMEM;
	}
	*ret = ns;
	return EMDB_OK;
}

void ns_maybe_free_pinned(emdb_db *db, struct ns *ns)
{
	/*
	 * Sequentially consistent on both sides: who takes a reference adds it
	 * and then looks at dead, who drops sets dead and then looks at refs.
	 * At least one of the two sees the other; freed makes it once.
	 */
	if (!atomic_load(&ns->dead) || atomic_load(&ns->refs) != 0 ||
	    atomic_exchange(&ns->freed, true))
		return;
	if (hidx_remove(&db->nstab, mix64(ns->id), (uint64_t)(uintptr_t)ns) == 0)
		epoch_retire(&db->epoch, &ns->node, ns_free_node);
}

void ns_free_all(emdb_db *db)
{
	struct hidx_slot slots[STORE_WALK];
	size_t n;

	/* Nobody else is there any more: closing. */
	do {
		const unsigned int pin = epoch_pin(&db->epoch);

		n = hidx_walk_pinned(&db->nstab, 0, 0, slots, STORE_WALK);
		epoch_unpin(&db->epoch, pin);
		for (size_t i = 0; i < n; i++) {
			struct ns *const ns = (struct ns *)(uintptr_t)slots[i].value;

			if (hidx_remove(&db->nstab, slots[i].hash, slots[i].value) == 0)
				ns_free_node(&ns->node);
		}
	} while (n);
	if (db->root)
		ns_free_node(&db->root->node);
	db->root = NULL;
}

/* The namespace of an entry; in replay one whose own record comes later is created. */
static emdb_err ns_of(struct apply *a, uint64_t id, struct ns **ret)
{
	struct ns *const ns = ns_any_pinned(a->db, id);

	if (ns) {
		*ret = ns;
		return EMDB_OK;
	}
	return a->replay ? ns_new(a->db, id, ret) : EMDB_ERR_NOT_FOUND;
}

static void time_max(_Atomic(int64_t) *t, int64_t v)
{
	int64_t old = atomic_load_explicit(t, memory_order_relaxed);

	while (old < v && !atomic_compare_exchange_weak_explicit(t, &old, v, memory_order_relaxed,
								 memory_order_relaxed))
		;
}

/*
 * Does the record say that its name is new in its namespace?  That must not
 * depend on what is there already: compaction drops what a later record
 * replaced, so a replay may not find it.
 */
static bool is_new_name(const struct rec *r)
{
	if (r->kind == REC_LINK || !(r->mask & REC_F_ID))
		return true;
	return r->mask & REC_F_FLAGS && r->flags & REC_FLAG_NEW_NAME;
}

/* An entry came or went: the directory's mtime and ctime (POSIX). */
static void ns_touch(const struct apply *a, struct ns *ns, const struct rec *r, uint64_t ref)
{
	uint64_t lsn = atomic_load_explicit(&ns->touch_lsn, memory_order_relaxed);

	/* Compaction moved a record: nothing happened. */
	if (r->mask & REC_F_ORIGIN || is_included(a, ns->as_of, ref))
		return;
	time_max(&ns->mtime, r->time_ns);
	time_max(&ns->ctime, r->time_ns);
	/* Not in order: writers of several entries come here side by side. */
	while (lsn < ref_lsn(ref) &&
	       !atomic_compare_exchange_weak_explicit(&ns->touch_lsn, &lsn, ref_lsn(ref),
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* ---- Entries ---------------------------------------------------------------- */

/* What the entry `old` named loses that name; new_id takes its place (0: nothing does). */
static emdb_err unname(struct apply *a, struct ns *ns, const struct entry *old, uint64_t new_id)
{
	emdb_db *const db = a->db;
	struct obj_view v;
	struct ns *child;

	/* How long a damaged record is says the record: then it counts on, until its segment goes. */
	if (!old->lost)
		segment_live_add(old->seg, -(int64_t)ref_size_pinned(db, old->ref));
	switch (old->rec.kind) {
	case REC_PUT:
		atomic_fetch_sub_explicit(&db->records, 1, memory_order_relaxed);
		/* Renamed within this frame: its row already names the new entry's record. */
		if (old->id != new_id && !a->replay && objtab_get_pinned(db, old->id, &v) &&
		    v.ref == old->ref)
			objtab_orphan(db, old->id);
		return EMDB_OK;
	case REC_LINK:
		atomic_fetch_sub_explicit(&db->records, 1, memory_order_relaxed);
		if (!objtab_get_pinned(db, old->id, &v) || !v.big)
			return EMDB_OK;
		big_link_remove(v.big, ns->id, old->hash);
		return pending_add(a, old->id);
	case REC_NS:
		atomic_fetch_sub_explicit(&db->namespaces, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&ns->subdirs, 1, memory_order_relaxed);
		child = ns_any_pinned(db, old->id);
		/* Moved already within this frame: then its own record is another one. */
		if (!child || atomic_load(&child->ref) != old->ref || old->id == new_id)
			return EMDB_OK;
		atomic_store(&child->attached, false);
		return pending_add(a, old->id);
	default:
		return EMDB_ERR_CORRUPT;
	}
}

/* Is there an ordered index to be kept?  After a replay it is built at once. */
static bool is_ordered(const struct apply *a, const struct ns *ns)
{
	return ns->ord && !a->replay;
}

/* What open views must know before the record takes the place of old (NULL: of nothing). */
static void keep_old(const struct apply *a, struct ns *ns, const struct rec *r, uint64_t hash,
		     uint64_t id, const struct entry *old)
{
	const bool copy =
		r->mask & REC_F_ORIGIN && old && old->rec.kind == r->kind && old->id == id;

	if (!copy)
		view_changed(ns, a->lsn);
	/* A PUT that moved is the same version: see view.h. */
	if (old && !(copy && r->kind == REC_PUT))
		view_keep_slot_pinned(a->db, ns->id, hash, old->slot, &old->rec, a->lsn);
}

/* Puts an entry into its namespace, over what is there.  Counts are the caller's. */
static emdb_err set_entry(struct apply *a, struct ns *ns, const struct rec *r, uint64_t ref,
			  uint64_t flags, uint32_t size, uint64_t hash, uint64_t id,
			  const struct entry *old)
{
	emdb_db *const db = a->db;
	int ret;

	if (views_any(&db->views))
		keep_old(a, ns, r, hash, id, old);
	if (old)
		ret = hidx_replace(&ns->idx, hash, old->slot, ref | flags);
	else
		ret = hidx_insert(&ns->idx, hash, ref | flags);
	if (ret)
		return ret == -ENOMEM ? EMDB_ERR_NOMEM : EMDB_ERR_CORRUPT;
	if (!old && is_ordered(a, ns) && order_add(ns, r->key, r->key_len))
		return EMDB_ERR_NOMEM;
	live_add_pinned(db, ref, size);
	if (is_new_name(r))
		ns_touch(a, ns, r, ref);
	return old ? unname(a, ns, old, id) : EMDB_OK;
}

/* Finds what an entry record replaces, unless the caller already knows. */
static emdb_err find_old(struct apply *a, struct ns *ns, const struct rec *r, uint64_t *ret_hash,
			 struct entry *space, const struct entry **old, bool old_known)
{
	emdb_err err;

	if (old_known && *old) {
		*ret_hash = (*old)->hash;
		return EMDB_OK;
	}
	*ret_hash = entry_hash(a->db, ns->id, r->key, r->key_len);
	if (old_known)
		return EMDB_OK;
	err = entry_find_pinned(a->db, ns, *ret_hash, r->key, r->key_len, true, space);
	/* What replaces or removes it need not know what it was. */
	if (is_loss(err))
		err = entry_find_lost_pinned(a->db, ns, *ret_hash, r->key, r->key_len, space);
	if (err && err != EMDB_ERR_NOT_FOUND)
		return err;
	*old = err ? NULL : space;
	return EMDB_OK;
}

static emdb_err apply_put(struct apply *a, const struct rec *r, uint64_t ref, uint32_t size,
			  bool old_known, const struct entry *old)
{
	emdb_db *const db = a->db;
	const uint64_t id = rec_id(r, ref);
	const bool expires = r->mask & REC_F_EXPIRES && r->expires_ms;
	struct entry space;
	bool was_big;
	struct ns *ns;
	uint64_t hash;
	emdb_err err;

	if (r->mask & REC_F_FLAGS && r->flags & REC_FLAG_ORPHAN) {
		if (!a->replay)
			objtab_orphan_moved(db, id, ref);
		return EMDB_OK;
	}
	err = ns_of(a, r->ns, &ns);
	if (!err)
		err = find_old(a, ns, r, &hash, &space, &old, old_known);
	if (err)
		return err;
	was_big = old && old->rec.kind == REC_LINK && old->id == id;
	atomic_fetch_add_explicit(&db->records, 1, memory_order_relaxed);
	err = set_entry(a, ns, r, ref, expires ? REF_EXPIRES : 0, size, hash, id, old);
	if (err)
		return err;
	if (was_big)
		objtab_unbig(db, id, ns->id, hash, ref);
	else if (!a->replay && r->mask & REC_F_ID) /* else it is new, and known to nobody */
		objtab_moved(db, id, ns->id, hash, ref);
	/* The queue has an item for this name that is due in time already: see expire.c. */
	if (expires && !(old && !db->ckpt.inexact && old->rec.kind == REC_PUT &&
			 old->rec.mask & REC_F_EXPIRES && old->rec.expires_ms <= r->expires_ms))
		err = expire_push(db, r->expires_ms, ns->id, hash);
	return err;
}

static emdb_err apply_link(struct apply *a, const struct rec *r, uint64_t ref, uint32_t size,
			   bool old_known, const struct entry *old)
{
	emdb_db *const db = a->db;
	struct entry space;
	int64_t expires;
	struct big *big;
	struct ns *ns;
	uint64_t hash;
	emdb_err err;

	err = ns_of(a, r->ns, &ns);
	if (!err)
		err = find_old(a, ns, r, &hash, &space, &old, old_known);
	if (err)
		return err;
	big = objtab_big(db, r->id);
	if (!big)
		return EMDB_ERR_NOMEM;
	atomic_fetch_add_explicit(&db->records, 1, memory_order_relaxed);
	err = set_entry(a, ns, r, ref, REF_SPECIAL, size, hash, r->id, old);
	if (!err)
		err = big_link_add(big, ns->id, hash);
	if (!err)
		err = pending_add(a, r->id);
	if (err)
		return err;
	mutex_lock(&big->lock);
	expires = big->expires_ms;
	if (!(r->mask & REC_F_ORIGIN) && !is_included(a, big->as_of, ref) &&
	    big->ctime < r->time_ns) {
		big->ctime = r->time_ns;
		big->touch_lsn = ref_lsn(ref);
	}
	mutex_unlock(&big->lock);
	return expires ? expire_push(db, expires, ns->id, hash) : EMDB_OK;
}

static void ns_set_meta(struct ns *ns, const struct rec *r)
{
	atomic_store_explicit(&ns->mode, r->mode, memory_order_relaxed);
	atomic_store_explicit(&ns->uid, r->uid, memory_order_relaxed);
	atomic_store_explicit(&ns->gid, r->gid, memory_order_relaxed);
	atomic_store_explicit(&ns->ctime, r->time_ns, memory_order_relaxed);
	atomic_store_explicit(&ns->mtime, r->mtime_ns, memory_order_relaxed);
	atomic_store_explicit(&ns->atime, r->atime_ns, memory_order_relaxed);
	atomic_store_explicit(&ns->btime, r->btime_ns, memory_order_relaxed);
	atomic_store_explicit(&ns->ttl_default_ms, r->ttl_default_ms, memory_order_relaxed);
	atomic_store_explicit(&ns->ttl_basis, r->ttl_basis, memory_order_relaxed);
}

static emdb_err apply_ns(struct apply *a, const struct rec *r, uint64_t ref, uint32_t size,
			 bool old_known, const struct entry *old)
{
	emdb_db *const db = a->db;
	const uint64_t id = rec_id(r, ref);
	struct ns *ns, *child;
	struct entry space;
	uint64_t hash = 0;
	emdb_err err;

	err = ns_any_pinned(db, id) || a->replay ? ns_of(a, id, &child) : ns_new(db, id, &child);
	if (err)
		return err;
	if (id == EMDB_ROOT) {
		const uint64_t was = atomic_load(&child->ref);

		if (was)
			live_add_pinned(db, was, -(int64_t)ref_size_pinned(db, was));
		live_add_pinned(db, ref, size);
	} else {
		err = ns_of(a, r->ns, &ns);
		if (!err)
			err = find_old(a, ns, r, &hash, &space, &old, old_known);
		if (err)
			return err;
		atomic_fetch_add_explicit(&db->namespaces, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&ns->subdirs, 1, memory_order_relaxed);
		err = set_entry(a, ns, r, ref, REF_SPECIAL, size, hash, id, old);
		if (err)
			return err;
	}
	if (is_included(a, child->as_of, ref))
		return EMDB_OK;
	ns_set_meta(child, r);
	atomic_store_explicit(&child->parent, id == EMDB_ROOT ? EMDB_ROOT : r->ns,
			      memory_order_relaxed);
	atomic_store_explicit(&child->hash, hash, memory_order_relaxed);
	atomic_store_explicit(&child->ref, ref, memory_order_relaxed);
	atomic_store_explicit(&child->touch_lsn, ref_lsn(ref), memory_order_relaxed);
	atomic_store(&child->attached, true);
	return EMDB_OK;
}

/* One entry of a namespace that is emptied; *ret_child: the namespace that it was, else NULL. */
static emdb_err drop_slot(struct apply *a, struct ns *ns, const struct hidx_slot *slot,
			  struct ns **ret_child)
{
	emdb_db *const db = a->db;
	struct ns *child = NULL;
	struct entry e;
	emdb_err err;

	*ret_child = NULL;
	if (views_any(&db->views)) {
		view_changed(ns, a->lsn);
		view_keep_slot_pinned(db, ns->id, slot->hash, slot->value, NULL, a->lsn);
	}
	if (hidx_remove(&ns->idx, slot->hash, slot->value))
		return EMDB_ERR_CORRUPT;
	if (!(slot->value & REF_SPECIAL)) {
		const uint64_t ref = slot_ref(slot->value);

		live_add_pinned(db, ref, -(int64_t)ref_size_pinned(db, ref));
		atomic_fetch_sub_explicit(&db->records, 1, memory_order_relaxed);
		return EMDB_OK;
	}
	err = entry_read_pinned(db, slot->hash, slot->value, true, &e);
	if (is_loss(err)) {
		entry_lost_pinned(db, ns, slot->hash, slot->value, &e);
		err = EMDB_OK;
	}
	if (!err && e.rec.kind == REC_NS)
		child = ns_any_pinned(db, e.id);
	/* It may have moved away: then another record says where it is. */
	if (child && atomic_load(&child->ref) == e.ref)
		*ret_child = child;
	return err ? err : unname(a, ns, &e, 0);
}

/* Empties a namespace of what was recorded before LSN `before`; those it held go to todo. */
static emdb_err drop_one(struct apply *a, struct ns *ns, struct buf *todo, uint64_t before)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		size_t dropped = 0;

		for (size_t i = 0; i < n; i++) {
			struct ns *child;
			emdb_err err;

			if (ref_lsn(slots[i].value) >= before)
				continue;
			err = drop_slot(a, ns, &slots[i], &child);
			if (!err && child && buf_append(todo, &child->id, sizeof(child->id)))
				err = EMDB_ERR_NOMEM;
			if (err)
				return err;
			dropped++;
		}
		/* Entries that stay are walked over; while any goes, the same place is looked at again. */
		if (dropped == 0) {
			hash = slots[n - 1].hash;
			tie = slots[n - 1].tie + 1;
		}
	}
	/* Outside of replays nothing stays. */
	if (is_ordered(a, ns)) {
		oidx_clear(ns->ord);
		atomic_store(&ns->ord_missing, 0);
	}
	return EMDB_OK;
}

/*
 * Empties a namespace, and those below it: a list instead of recursion, trees
 * can be deep.  A replay leaves those below to apply_finish(): the record that
 * moved one of them elsewhere may come later, copied by compaction.
 */
static emdb_err drop_contents(struct apply *a, struct ns *ns, uint64_t before, bool deep)
{
	struct buf todo = BUF_INIT;
	emdb_err err;

	err = drop_one(a, ns, &todo, before);
	if (!a->replay)
		objtab_orphan_ns(a->db, ns->id);
	while (!err && deep && todo.len) {
		struct ns *child;
		uint64_t id;

		todo.len -= sizeof(id);
		memcpy(&id, todo.data + todo.len, sizeof(id));
		child = ns_any_pinned(a->db, id);
		if (!child)
			continue;
		err = drop_one(a, child, &todo, UINT64_MAX);
		if (!a->replay)
			objtab_orphan_ns(a->db, id);
	}
	buf_release(&todo);
	return err;
}

/* The name that an object lost is its change of ctime. */
static void big_unnamed(const struct apply *a, const struct rec *r, uint64_t ref)
{
	struct obj_view v;

	if (!(r->mask & REC_F_ID) || r->mask & REC_F_ORIGIN ||
	    !objtab_get_pinned(a->db, r->id, &v) || !v.big || is_included(a, v.big->as_of, ref))
		return;
	mutex_lock(&v.big->lock);
	v.big->ctime = r->time_ns;
	v.big->touch_lsn = ref_lsn(ref);
	mutex_unlock(&v.big->lock);
}

static emdb_err apply_del(struct apply *a, const struct rec *r, uint64_t ref, bool old_known,
			  const struct entry *old)
{
	struct entry space;
	struct ns *ns, *child;
	uint64_t hash;
	emdb_err err;

	err = ns_of(a, r->ns, &ns);
	if (!err)
		err = find_old(a, ns, r, &hash, &space, &old, old_known);
	if (err)
		return err;
	ns_touch(a, ns, r, ref);
	if (r->kind == REC_DEL)
		big_unnamed(a, r, ref);
	if (!old)
		return EMDB_OK;
	if (views_any(&a->db->views)) {
		/* Time passing is no change. */
		if (!(r->mask & REC_F_FLAGS && r->flags & REC_FLAG_EXPIRED))
			view_changed(ns, a->lsn);
		view_keep_slot_pinned(a->db, ns->id, hash, old->slot, &old->rec, a->lsn);
	}
	if (hidx_remove(&ns->idx, hash, old->slot))
		return EMDB_ERR_CORRUPT;
	if (is_ordered(a, ns) && order_remove(ns, r->key, r->key_len))
		return EMDB_ERR_NOMEM;
	child = r->kind == REC_DROP && old->rec.kind == REC_NS ? ns_any_pinned(a->db, old->id)
							       : NULL;
	if (child && atomic_load(&child->ref) == old->ref)
		err = drop_contents(a, child, UINT64_MAX, !a->replay);
	return err ? err : unname(a, ns, old, 0);
}

/* ORIGIN: a copy, which must leave alone what came between its first place and here. */
static emdb_err apply_clear(struct apply *a, const struct rec *r, uint64_t ref)
{
	const bool copy = r->mask & REC_F_ORIGIN;
	struct ns *ns;
	const emdb_err err = ns_of(a, r->id, &ns);

	if (err || (copy && !a->replay))
		return err;
	ns_touch(a, ns, r, ref);
	return drop_contents(a, ns, copy ? r->origin : UINT64_MAX, !a->replay);
}

/* ---- Big objects ---------------------------------------------------------------- */

static bool is_sane_extent(const struct rec_extent *e)
{
	return e->len <= EXTENT_LEN_MAX && e->skip <= UINT32_MAX;
}

static bool is_sane_write(const struct rec *r)
{
	return r->off <= EMDB_VALUE_MAX - r->value_len;
}

/* Maps what a record's EXTENTS say; big->lock held. */
static emdb_err map_extents_locked(struct apply *a, uint64_t id, struct big *big,
				   const struct rec *r, uint64_t start)
{
	emdb_db *const db = a->db;
	struct cur c = cur_init(r->extents, r->extents_len);
	struct rec_extent e;

	while (fmt_extent_next(&c, &start, &e)) {
		if (!is_sane_extent(&e))
			return EMDB_ERR_CORRUPT;
		if (extmap_write(&big->map, e.off, (uint32_t)e.len, e.ref, (uint32_t)e.skip,
				 big_dropped, db))
			return EMDB_ERR_NOMEM;
		live_add_pinned(db, e.ref, (int64_t)e.len);
		if (unlikely(ref_lsn(e.ref) >> db->sb.segment_shift == atomic_load(&db->victim)))
			compact_note_extent(db, id);
	}
	return c.err ? EMDB_ERR_CORRUPT : EMDB_OK;
}

static emdb_err apply_inode(struct apply *a, const struct rec *r, uint64_t ref, uint32_t size)
{
	emdb_db *const db = a->db;
	struct big *const big = objtab_big(db, r->id);
	emdb_err err = EMDB_OK;
	int64_t was;

	if (!big)
		return EMDB_ERR_NOMEM;
	if (is_included(a, big->as_of, ref))
		return EMDB_OK;
	mutex_lock(&big->lock);
	if (views_any(&db->views) && !(r->mask & REC_F_ORIGIN))
		view_keep_big_locked(db, r->id, big, a->lsn);
	if (big->inode_ref)
		live_add_pinned(db, big->inode_ref, -(int64_t)ref_size_pinned(db, big->inode_ref));
	live_add_pinned(db, ref, size);
	was = big->expires_ms;
	big->inode_ref = ref;
	big->touch_lsn = ref_lsn(ref);
	big->mode = r->mode;
	big->uid = r->uid;
	big->gid = r->gid;
	big->rdev = r->rdev;
	big->size = r->size;
	big->ctime = r->time_ns;
	big->mtime = r->mtime_ns;
	big->atime = r->atime_ns;
	big->btime = r->btime_ns;
	big->expires_ms = r->mask & REC_F_EXPIRES ? r->expires_ms : 0;
	if (r->mask & REC_F_EXTENTS) {
		extmap_truncate(&big->map, 0, big_dropped, db);
		err = map_extents_locked(a, r->id, big, r, 0);
	}
	if (big->expires_ms && !(was && !db->ckpt.inexact && was <= big->expires_ms))
		for (uint32_t i = 0; !err && i < big->nlinks; i++)
			err = expire_push(db, big->expires_ms, big->links[i].ns,
					  big->links[i].hash);
	mutex_unlock(&big->lock);
	return err ? err : pending_add(a, r->id);
}

static emdb_err data_change_locked(struct apply *a, struct big *big, const struct rec *r,
				   uint64_t ref)
{
	emdb_db *const db = a->db;
	int ret = 0;

	switch (r->kind) {
	case REC_WRITE:
		if (!is_sane_write(r))
			return EMDB_ERR_CORRUPT;
		live_add_pinned(db, ref, (int64_t)r->value_len);
		ret = extmap_write(&big->map, r->off, (uint32_t)r->value_len, ref, 0, big_dropped,
				   db);
		break;
	case REC_TRUNC:
		extmap_truncate(&big->map, r->size, big_dropped, db);
		break;
	case REC_PUNCH:
	case REC_CLONE:
		ret = extmap_punch(&big->map, r->off, r->len, big_dropped, db);
		if (!ret && r->kind == REC_CLONE) {
			const emdb_err err = map_extents_locked(a, r->id, big, r, r->off);

			if (err)
				return err;
		}
		break;
	default:
		return EMDB_ERR_CORRUPT;
	}
	if (ret)
		return ret == -ENOMEM ? EMDB_ERR_NOMEM : EMDB_ERR_CORRUPT;
	big->size = r->size;
	return EMDB_OK;
}

static emdb_err apply_data(struct apply *a, const struct rec *r, uint64_t ref)
{
	struct big *const big = objtab_big(a->db, r->id);
	emdb_err err;

	if (!big)
		return EMDB_ERR_NOMEM;
	if (is_included(a, big->as_of, ref))
		return EMDB_OK;
	mutex_lock(&big->lock);
	if (views_any(&a->db->views) && !(r->mask & REC_F_ORIGIN))
		view_keep_big_locked(a->db, r->id, big, a->lsn);
	err = data_change_locked(a, big, r, ref);
	if (!err && !(r->mask & REC_F_ORIGIN)) {
		big->mtime = big->ctime = r->time_ns;
		big->touch_lsn = ref_lsn(ref);
	}
	mutex_unlock(&big->lock);
	return err;
}

/* ---- Frames ------------------------------------------------------------------------ */

emdb_err apply_rec(struct apply *a, const struct rec *r, uint64_t ref, uint32_t size,
		   bool old_known, const struct entry *old)
{
	a->lsn = ref_lsn(ref);
	switch ((enum rec_kind)r->kind) {
	case REC_PUT:
		return apply_put(a, r, ref, size, old_known, old);
	case REC_DEL:
	case REC_DROP:
		tomb_add_pinned(a->db, ref, size);
		return apply_del(a, r, ref, old_known, old);
	case REC_NS:
		return apply_ns(a, r, ref, size, old_known, old);
	case REC_LINK:
		return apply_link(a, r, ref, size, old_known, old);
	case REC_INODE:
		return apply_inode(a, r, ref, size);
	case REC_TRUNC:
	case REC_PUNCH:
	case REC_CLONE:
		tomb_add_pinned(a->db, ref, size);
		return apply_data(a, r, ref);
	case REC_WRITE:
		return apply_data(a, r, ref);
	case REC_CLEAR:
		tomb_add_pinned(a->db, ref, size);
		return apply_clear(a, r, ref);
	case FRAME_BATCH:
	case FRAME_SEAL:
		break;
	}
	return EMDB_ERR_CORRUPT;
}

/* A namespace that a frame left without a name is gone. */
static emdb_err ns_gone(struct apply *a, struct ns *ns)
{
	if (atomic_load(&ns->attached) || ns->id == EMDB_ROOT)
		return EMDB_OK;
	/* In replay its record may only come later, moved by compaction. */
	if (a->replay)
		return EMDB_OK;
	checkpoint_note(a->db, ns->id, true);
	if (views_any(&a->db->views))
		view_keep_ns(a->db, ns->id, a->lsn);
	atomic_store(&ns->dead, true);
	ns_maybe_free_pinned(a->db, ns);
	return EMDB_OK;
}

emdb_err apply_end(struct apply *a)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < a->pending.len; i += sizeof(uint64_t)) {
		struct ns *ns;
		uint64_t id;

		memcpy(&id, a->pending.data + i, sizeof(id));
		ns = ns_any_pinned(a->db, id);
		if (ns)
			err = ns_gone(a, ns);
		else if (!a->replay)
			objtab_nameless(a->db, id);
	}
	buf_release(&a->pending);
	return err;
}

/* What apply_rec() would find wrong with a record that decodes. */
static bool is_sane(const struct rec *r)
{
	struct cur c = cur_init(r->extents, r->extents_len);
	uint64_t end = r->kind == REC_CLONE ? r->off : 0;
	struct rec_extent e;

	if (r->kind == REC_WRITE)
		return is_sane_write(r);
	if (!(r->mask & REC_F_EXTENTS))
		return true;
	while (fmt_extent_next(&c, &end, &e))
		if (!is_sane_extent(&e))
			return false;
	return !c.err;
}

bool apply_can(const struct frame *f)
{
	struct batch_iter it;
	struct rec r;
	uint64_t ref;
	int more;

	if (f->kind != FRAME_BATCH)
		return true;
	if (!fmt_batch_begin(f, &it))
		return false;
	while ((more = fmt_batch_next(&it, &r, &ref)) > 0)
		if (!is_sane(&r))
			return false;
	return more == 0;
}

emdb_err apply_frame(struct apply *a, const struct frame *f)
{
	struct batch_iter it;
	emdb_err err = EMDB_OK, end;
	struct rec r;
	uint64_t ref;
	int more;

	if (f->kind == FRAME_SEAL)
		return EMDB_OK;
	if (f->kind != FRAME_BATCH) {
		if (!fmt_frame_rec(f, &r))
			return EMDB_ERR_CORRUPT;
		err = apply_rec(a, &r, f->lsn, f->len, false, NULL);
	} else {
		if (!fmt_batch_begin(f, &it))
			return EMDB_ERR_CORRUPT;
		while (!err && (more = fmt_batch_next(&it, &r, &ref)) > 0)
			err = apply_rec(a, &r, ref, (uint32_t)(f->lsn + it.at - ref_lsn(ref)),
					false, NULL);
		if (!err && more < 0)
			err = EMDB_ERR_CORRUPT;
	}
	end = apply_end(a);
	return err ? err : end;
}

/* Without a name or without metadata: nothing leads to it. */
static bool big_is_garbage(void *ctx, uint64_t id, struct big *big)
{
	bool garbage;

	(void)ctx, (void)id;
	mutex_lock(&big->lock);
	garbage = big->nlinks == 0;
	mutex_unlock(&big->lock);
	return garbage;
}

/* Empties and frees the namespaces that nothing names; *ret_again: others lost their name by that. */
static emdb_err sweep_ns(struct apply *a, bool *ret_again)
{
	emdb_db *const db = a->db;
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	emdb_err err = EMDB_OK;
	size_t n;

	while (!err && (n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; !err && i < n; i++) {
			struct ns *const ns = (struct ns *)(uintptr_t)slots[i].value;

			if (atomic_load(&ns->attached) || atomic_load(&ns->freed))
				continue;
			err = drop_contents(a, ns, UINT64_MAX, true);
			atomic_store(&ns->dead, true);
			ns_maybe_free_pinned(db, ns);
			*ret_again = true;
		}
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	return err;
}

emdb_err apply_gone_ns(emdb_db *db, struct ns *ns)
{
	struct apply a = APPLY_INIT(db, true);
	const emdb_err err = drop_contents(&a, ns, UINT64_MAX, false);

	buf_release(&a.pending);
	atomic_store(&ns->attached, false);
	atomic_store(&ns->dead, true);
	ns_maybe_free_pinned(db, ns);
	return err;
}

emdb_err apply_forget(emdb_db *db, struct ns *ns, const struct entry *e)
{
	struct apply a = APPLY_INIT(db, true);
	emdb_err err = hidx_remove(&ns->idx, e->hash, e->slot) ? EMDB_ERR_CORRUPT : EMDB_OK;

	if (!err)
		err = unname(&a, ns, e, 0);
	buf_release(&a.pending);
	return err;
}

emdb_err apply_finish(emdb_db *db)
{
	struct apply a = APPLY_INIT(db, true);
	const unsigned int pin = epoch_pin(&db->epoch);
	bool again = true;
	emdb_err err = EMDB_OK;

	while (!err && again) {
		again = false;
		err = sweep_ns(&a, &again);
	}
	buf_release(&a.pending);
	if (!err)
		objtab_sweep_big(db, big_is_garbage, NULL);
	epoch_unpin(&db->epoch, pin);
	return err;
}
