/* SPDX-License-Identifier: Apache-2.0 */
/* Walking a namespace in no particular order, and what is common to all iterators. */
#include "core/iter.h"

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

/* NOT_FOUND: this slot is to be skipped. */
static emdb_err live_slot_pinned(struct live_iter *it, const struct hidx_slot *s,
				 struct emdb_entry *ret)
{
	emdb_iter *const base = &it->it;
	struct entry e;
	emdb_err err;

	err = live_read_pinned(it, s, &e);
	if (err)
		return err;
	memset(ret, 0, sizeof(*ret));
	ret->is_ns = e.rec.kind == REC_NS;
	if (!iter_wants(base, ret->is_ns))
		return EMDB_ERR_NOT_FOUND;
	buf_reset(&base->key);
	base_free(base->value);
	base->value = NULL;
	if (buf_append(&base->key, e.rec.key, e.rec.key_len))
		return EMDB_ERR_NOMEM;
	if (!ret->is_ns && base->flags & EMDB_ITER_VALUES) {
		err = entry_value_pinned(base->db, &e, &base->value, &ret->value_len);
		if (err)
			return err;
	}
	ret->key = base->key.data;
	ret->key_len = base->key.len;
	ret->value = base->value;
	ret->id = e.id;
	ret->expires_ms = entry_expires_pinned(base->db, &e);
	return EMDB_OK;
}

static emdb_err live_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct live_iter *const it = container_of(base, struct live_iter, it);
	const unsigned int pin = epoch_pin(&base->db->epoch);
	emdb_err err = EMDB_ERR_NOT_FOUND;

	while (it->at < it->count || live_fill_pinned(it)) {
		err = live_slot_pinned(it, &it->slots[it->at++], ret);
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

emdb_err emdb_iter_new(emdb_db *db, uint64_t ns, unsigned int flags, emdb_iter **ret_iter)
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
	*ret_iter = &it->it;
	return EMDB_OK;
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
