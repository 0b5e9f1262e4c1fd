/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building the ordered index at open: the keys of a namespace are read in the order in which their
 * records lie, which is fast and also verifies them, then sorted, then put into full nodes.
 */
#include "core/store.h"

/* Keys copied in one piece. */
#define ARENA_BYTES ((size_t)1 << 20)

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	uint8_t data[];
};

struct gather {
	emdb_db *db;
	struct ns *ns;
	struct arena_block *arena;
	uint64_t *refs;                /* of the records; sorted */
	struct oidx_key *keys, *space; /* as many */
	size_t n;
};

static void gather_release(struct gather *g)
{
	while (g->arena) {
		struct arena_block *const next = g->arena->next;

		base_free(g->arena);
		g->arena = next;
	}
	base_free(g->refs);
	base_free(g->keys);
	base_free(g->space);
}

static uint8_t *arena_take(struct gather *g, size_t n)
{
	struct arena_block *b = g->arena;

	if (!b || b->size - b->used < n) {
		const size_t size = max_size(n, ARENA_BYTES);

		b = base_malloc(sizeof(*b) + size);
		if (!b)
			return NULL;
		*b = (struct arena_block){ .next = g->arena, .size = size };
		g->arena = b;
	}
	b->used += n;
	return b->data + b->used - n;
}

static emdb_err take_refs_pinned(struct gather *g)
{
	const uint64_t count = hidx_count(&g->ns->idx);
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	g->refs = base_calloc(count, sizeof(*g->refs));
	g->keys = base_calloc(count, sizeof(*g->keys));
	g->space = base_calloc(count, sizeof(*g->space));
	if (!g->refs || !g->keys || !g->space)
		return EMDB_ERR_NOMEM;
	while ((n = hidx_walk_pinned(&g->ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		emdb_assert(n <= count - g->n);
		for (size_t i = 0; i < n; i++)
			g->refs[g->n++] = slot_ref(slots[i].value);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
	return EMDB_OK;
}

/* By radix, eight bits at a time; space has room for n. */
static void sort_refs(uint64_t *refs, uint64_t *space, size_t n)
{
	uint64_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= refs[i] ^ refs[0];
	for (unsigned shift = 0; shift < 64 && any >> shift; shift += 8) {
		size_t at[257] = { 0 };

		for (size_t i = 0; i < n; i++)
			at[(refs[i] >> shift & 0xff) + 1]++;
		for (size_t b = 0; b < 256; b++)
			at[b + 1] += at[b];
		for (size_t i = 0; i < n; i++)
			space[at[refs[i] >> shift & 0xff]++] = refs[i];
		memcpy(refs, space, n * sizeof(*refs));
	}
}

/* Their keys; those that cannot be read are counted. */
static emdb_err read_keys_pinned(struct gather *g)
{
	size_t have = 0;

	for (size_t i = 0; i < g->n; i++) {
		struct rec r;
		uint8_t *p;
		emdb_err err = journal_rec_pinned(g->db->j, g->refs[i], &r, NULL);

		if (!err && !(r.mask & REC_F_KEY))
			err = EMDB_ERR_CORRUPT;
		if (!err) {
			p = arena_take(g, r.key_len);
			if (!p)
				return EMDB_ERR_NOMEM;
			err = copy_mapped(p, r.key, r.key_len);
		}
		if (err)
			atomic_fetch_add(&g->ns->ord_missing, 1);
		else
			g->keys[have++] = (struct oidx_key){ p, r.key_len };
	}
	g->n = have;
	return EMDB_OK;
}

/* Two entries of one key: only when the index found an unreadable record and could not tell. */
static size_t drop_doubles(struct oidx_key *keys, size_t n)
{
	size_t have = 0;

	for (size_t i = 0; i < n; i++)
		if (!have || keys[have - 1].n != keys[i].n ||
		    memcmp(keys[have - 1].p, keys[i].p, keys[i].n) != 0)
			keys[have++] = keys[i];
	return have;
}

static emdb_err build_one(emdb_db *db, struct ns *ns)
{
	struct gather g = { .db = db, .ns = ns };
	const unsigned int pin = epoch_pin(&db->epoch);
	emdb_err err = EMDB_OK;

	static_assert(sizeof(*g.space) >= sizeof(*g.refs), "the space serves for both");
	if (hidx_count(&ns->idx)) {
		err = take_refs_pinned(&g);
		if (!err) {
			sort_refs(g.refs, (uint64_t *)(void *)g.space, g.n);
			err = read_keys_pinned(&g);
		}
	}
	epoch_unpin(&db->epoch, pin);
	if (!err && g.n) {
		oidx_sort(g.keys, g.space, g.n);
		g.n = drop_doubles(g.keys, g.n);
		if (oidx_build(ns->ord, g.keys, g.n))
			err = EMDB_ERR_NOMEM;
	}
	gather_release(&g);
	return err;
}

emdb_err order_build(emdb_db *db)
{
	emdb_err err = build_one(db, db->root);
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;

	/* Nobody else changes the store yet: namespaces stay without a pin. */
	while (!err) {
		const unsigned int pin = epoch_pin(&db->epoch);
		const size_t n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK);

		epoch_unpin(&db->epoch, pin);
		for (size_t i = 0; !err && i < n; i++)
			err = build_one(db, (struct ns *)(uintptr_t)slots[i].value);
		if (!n || slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	return err;
}
