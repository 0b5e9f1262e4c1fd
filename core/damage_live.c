/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What suffers from damaged bytes of a store that is in use. The index in memory is whole: what it has in
 * those bytes is what suffers. Where the kernel still has them as they were, the names are read there.
 */
#include "core/damage_i.h"

/* Extents looked at while the object's lock is held. */
#define PIECE 256u

struct live {
	struct damage *d;
	const struct damage_range *ranges;
	size_t n;
};

static bool suffers(const struct live *l, uint64_t ref)
{
	const uint64_t lsn = ref_lsn(ref);
	size_t lo = 0, hi = l->n;

	/* The last range that begins at or before it. */
	while (lo < hi) {
		const size_t mid = (lo + hi) / 2;

		if (l->ranges[mid].lsn <= lsn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && lsn - l->ranges[lo - 1].lsn < l->ranges[lo - 1].len;
}

/* ---- Entries ------------------------------------------------------------------- */

/* The hash is keyed: a key that has it is the one. */
static void name_entry(struct damage *d, struct loss *l)
{
	struct entry e;

	if (entry_read_pinned(d->db, l->hash, l->slot, true, &e) == EMDB_OK &&
	    entry_hash(d->db, l->ns, e.rec.key, e.rec.key_len) == l->hash)
		damage_name(d, l, e.rec.key, e.rec.key_len);
	else
		damage_name_by_record(d, l);
}

static void look_at_slot(const struct live *live, const struct ns *ns, const struct hidx_slot *slot)
{
	struct damage *const d = live->d;
	struct loss *l;

	if (!suffers(live, slot->value))
		return;
	l = damage_add_slot_pinned(d, ns, slot);
	if (l)
		name_entry(d, l);
}

static void look_at_ns(const struct live *live, uint64_t id)
{
	emdb_db *const db = live->d->db;
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	do {
		const unsigned int pin = epoch_pin(&db->epoch);
		const struct ns *const ns = ns_find_pinned(db, id);

		n = ns ? hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK) : 0;
		for (size_t i = 0; i < n; i++)
			look_at_slot(live, ns, &slots[i]);
		epoch_unpin(&db->epoch, pin);
		if (n) {
			hash = slots[n - 1].hash;
			tie = slots[n - 1].tie + 1;
		}
	} while (n);
}

static void look_at_spaces(const struct live *live)
{
	emdb_db *const db = live->d->db;
	struct hidx_slot slots[STORE_WALK];
	uint64_t ids[STORE_WALK], from = 0;
	size_t n;

	look_at_ns(live, EMDB_ROOT);
	do {
		const unsigned int pin = epoch_pin(&db->epoch);

		n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK);
		for (size_t i = 0; i < n; i++)
			ids[i] = ((const struct ns *)(uintptr_t)slots[i].value)->id;
		epoch_unpin(&db->epoch, pin);
		for (size_t i = 0; i < n; i++)
			if (ids[i] != EMDB_ROOT)
				look_at_ns(live, ids[i]);
		if (n)
			from = slots[n - 1].hash + 1;
	} while (n && from);
}

/* ---- Big objects ------------------------------------------------------------------ */

/* *from: where to go on; false: that was the last. */
static bool look_at_extents(const struct live *live, uint64_t id, struct big *big, uint64_t *from)
{
	struct extent_cursor cur;
	struct extent x;
	bool more = false;

	extmap_seek(&big->map, *from, &cur);
	for (unsigned int i = 0; i < PIECE && (more = extmap_next(&big->map, &cur, &x)); i++) {
		if (suffers(live, x.ref))
			damage_add_range(live->d, id, &x);
		*from = x.off + x.len;
	}
	return more;
}

static void look_at_big(const struct live *live, uint64_t id)
{
	emdb_db *const db = live->d->db;
	uint64_t from = 0;
	bool more, first = true;

	do {
		const unsigned int pin = epoch_pin(&db->epoch);
		struct obj_view v;

		more = objtab_get_pinned(db, id, &v) && v.big;
		if (more) {
			mutex_lock(&v.big->lock);
			more = v.big->nlinks != 0;
			if (more && first && suffers(live, v.big->inode_ref)) {
				struct loss *const l = damage_add(live->d, LOSS_META);

				if (l) {
					l->id = id;
					l->off = 1; /* the rest is in memory */
					l->lsn = ref_lsn(v.big->inode_ref);
				}
			}
			more = more && look_at_extents(live, id, v.big, &from);
			mutex_unlock(&v.big->lock);
		}
		epoch_unpin(&db->epoch, pin);
		first = false;
	} while (more);
}

emdb_err damage_live(struct damage *d, const struct damage_range *ranges, size_t n)
{
	const struct live live = { d, ranges, n };
	struct buf ids = BUF_INIT;
	emdb_err err = EMDB_OK;

	look_at_spaces(&live);
	for (size_t shard = 0; !err && shard < STORE_SHARDS; shard++)
		err = objtab_big_ids(d->db, shard, &ids);
	for (size_t at = 0; !err && at < ids.len; at += sizeof(uint64_t)) {
		uint64_t id;

		memcpy(&id, ids.data + at, sizeof(id));
		look_at_big(&live, id);
	}
	buf_release(&ids);
	damage_sort(d);
	return err ? err : d->err;
}
