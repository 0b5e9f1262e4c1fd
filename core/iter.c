/* SPDX-License-Identifier: Apache-2.0 */
/* Walking a namespace: as it was at one moment, or as it is. */
#include "core/iter.h"

emdb_err iter_take_pinned(emdb_iter *it, struct view *view, const struct entry *e,
			  struct emdb_entry *ret)
{
	struct emdb_entry r = { .is_ns = e->rec.kind == REC_NS, .id = e->id };
	emdb_err err = EMDB_OK;

	if (!iter_wants(it, r.is_ns))
		return EMDB_ERR_NOT_FOUND;
	buf_reset(&it->key);
	base_free(it->value);
	it->value = NULL;
	/* Never NULL: the empty key is a key. */
	if (buf_reserve(&it->key, e->rec.key_len + 1))
		return EMDB_ERR_NOMEM;
	err = copy_mapped(it->key.data, e->rec.key, e->rec.key_len);
	if (!err && !r.is_ns && it->flags & EMDB_ITER_VALUES)
		err = view ? view_value_pinned(view, e, &it->value, &r.value_len)
			   : entry_value_pinned(it->db, e, &it->value, &r.value_len);
	if (err)
		return err;
	it->key.len = e->rec.key_len;
	r.key = it->key.data;
	r.key_len = it->key.len;
	r.value = it->value;
	r.expires_ms = view ? view_expires_pinned(view, e) : entry_expires_pinned(it->db, e);
	*ret = r;
	return EMDB_OK;
}

/* ---- In a view ---------------------------------------------------------------- */

void view_iter_init(struct view_iter *it, const struct iter_ops *ops, struct view *view,
		    uint64_t ns, unsigned int flags)
{
	it->it.ops = ops;
	it->it.ns = ns;
	it->it.flags = flags;
	it->view = view;
}

static emdb_err view_iter_slot(struct view_iter *it, const struct view_slot *s,
			       struct emdb_entry *ret)
{
	const unsigned int pin = epoch_pin(&it->it.db->epoch);
	struct entry e;
	emdb_err err;

	err = view_read_pinned(it->view, s->hash, s->slot, s->seg, &e);
	if (!err && it->shows && !it->shows(it, &e))
		err = EMDB_ERR_NOT_FOUND;
	if (!err)
		err = iter_take_pinned(&it->it, it->view, &e, ret);
	/* Lost while we looked? */
	if (!err || err == EMDB_ERR_NOT_FOUND)
		err = view_check(it->view) ? EMDB_ERR_NOMEM : err;
	epoch_unpin(&it->it.db->epoch, pin);
	return err;
}

static emdb_err view_iter_fill(struct view_iter *it)
{
	unsigned int pin;
	emdb_err err;

	view_slots_release(&it->slots, it->at);
	it->at = 0;
	if (it->end)
		return EMDB_ERR_NOT_FOUND;
	pin = epoch_pin(&it->it.db->epoch);
	err = view_walk_pinned(it->view, it->it.ns, &it->from, &it->end, &it->slots);
	epoch_unpin(&it->it.db->epoch, pin);
	return err;
}

emdb_err view_iter_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct view_iter *const it = container_of(base, struct view_iter, it);

	for (;;) {
		emdb_err err;

		while (it->at < it->slots.len / sizeof(struct view_slot)) {
			const struct view_slot s =
				((struct view_slot *)(void *)it->slots.data)[it->at++];

			err = view_iter_slot(it, &s, ret);
			if (s.seg)
				segment_unref(s.seg);
			if (err != EMDB_ERR_NOT_FOUND)
				return err;
		}
		err = view_iter_fill(it);
		if (err)
			return err;
	}
}

void view_iter_release(emdb_iter *base)
{
	struct view_iter *const it = container_of(base, struct view_iter, it);

	view_slots_release(&it->slots, it->at);
	buf_release(&it->slots);
	view_unref(it->view);
	it->view = NULL;
}

static const struct iter_ops view_iter_ops = { view_iter_next, view_iter_release };

static emdb_err view_iter_new(emdb_db *db, uint64_t ns, unsigned int flags, emdb_iter **ret)
{
	struct view_iter *const it = base_calloc(1, sizeof(*it));
	struct view *view;
	unsigned int pin;
	emdb_err err;
	bool there;

	if (!it)
		return EMDB_ERR_NOMEM;
	err = view_new(db, &view);
	if (err) {
		base_free(it);
		return err;
	}
	pin = epoch_pin(&db->epoch);
	there = view_has_ns_pinned(view, ns);
	epoch_unpin(&db->epoch, pin);
	if (!there) {
		view_unref(view);
		base_free(it);
		return EMDB_ERR_NOT_FOUND;
	}
	it->it.db = db;
	view_iter_init(it, &view_iter_ops, view, ns, flags);
	*ret = &it->it;
	return EMDB_OK;
}

/* ---- As it is -------------------------------------------------------------------- */

struct live_iter {
	emdb_iter it;
	uint64_t hash;
	uint32_t tie;
	bool done;
	struct hidx_slot slots[STORE_WALK];
	size_t at, count;
};

/* The next handful of slots; false at the end. */
static bool live_fill_pinned(struct live_iter *it)
{
	const struct ns *const ns = ns_find_pinned(it->it.db, it->it.ns);

	it->at = it->count = 0;
	if (!ns || it->done)
		return false;
	it->count = hidx_walk_pinned(&ns->idx, it->hash, it->tie, it->slots, STORE_WALK);
	if (it->count < STORE_WALK) {
		it->done = true;
	} else {
		it->hash = it->slots[it->count - 1].hash;
		it->tie = it->slots[it->count - 1].tie + 1;
	}
	return it->count != 0;
}

/*
 * Slots are kept from one call to the next without a pin, so that the record may
 * have moved and its segment be gone: then the index knows where it is now.
 */
static emdb_err live_read_pinned(struct live_iter *it, const struct hidx_slot *s, struct entry *ret)
{
	emdb_db *const db = it->it.db;
	const struct ns *ns;
	uint64_t now[16];
	size_t n;

	if (journal_segment_pinned(db->j, ref_lsn(s->value)))
		return entry_read_pinned(db, s->hash, s->value, false, ret);
	ns = ns_find_pinned(db, it->it.ns);
	n = ns ? min_size(hidx_find_pinned(&ns->idx, s->hash, now, ARRAY_SIZE(now)),
			  ARRAY_SIZE(now))
	       : 0;
	/* With several of one hash and some gone: the next best is one of those that were there. */
	if (n == 0)
		return EMDB_ERR_NOT_FOUND;
	return entry_read_pinned(db, s->hash, now[min_size(s->tie, n - 1)], false, ret);
}

static emdb_err live_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct live_iter *const it = container_of(base, struct live_iter, it);
	const unsigned int pin = epoch_pin(&base->db->epoch);
	emdb_err err = EMDB_ERR_NOT_FOUND;

	while (it->at < it->count || live_fill_pinned(it)) {
		struct entry e;

		err = live_read_pinned(it, &it->slots[it->at++], &e);
		if (!err)
			err = iter_take_pinned(base, NULL, &e, ret);
		if (err != EMDB_ERR_NOT_FOUND)
			break;
	}
	epoch_unpin(&base->db->epoch, pin);
	return err;
}

static void live_release(emdb_iter *it)
{
	(void)it;
}

static const struct iter_ops live_ops = { live_next, live_release };

static emdb_err live_new(emdb_db *db, uint64_t ns, unsigned int flags, emdb_iter **ret)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const bool there = ns_find_pinned(db, ns) != NULL;
	struct live_iter *it;

	epoch_unpin(&db->epoch, pin);
	if (!there)
		return EMDB_ERR_NOT_FOUND;
	it = base_calloc(1, sizeof(*it));
	if (!it)
		return EMDB_ERR_NOMEM;
	it->it.ops = &live_ops;
	it->it.db = db;
	it->it.ns = ns;
	it->it.flags = flags;
	*ret = &it->it;
	return EMDB_OK;
}

/* ---- Any ---------------------------------------------------------------------------- */

emdb_err emdb_iter_new(emdb_db *db, uint64_t ns, unsigned int flags, emdb_iter **ret_iter)
{
	if (flags & ~(EMDB_ITER_VALUES | EMDB_ITER_KEYS | EMDB_ITER_NS | EMDB_ITER_LIVE))
		return EMDB_ERR_INVAL;
	return flags & EMDB_ITER_LIVE ? live_new(db, ns, flags, ret_iter)
				      : view_iter_new(db, ns, flags, ret_iter);
}

emdb_err emdb_iter_next(emdb_iter *it, struct emdb_entry *ret_entry)
{
	return it->ops->next(it, ret_entry);
}

void emdb_iter_free(emdb_iter *it)
{
	if (!it)
		return;
	it->ops->release(it);
	buf_release(&it->key);
	base_free(it->value);
	base_free(it);
}
