/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_ord: an ordered set of byte strings, read without locks, walked both ways. One per
 * namespace of a store that is opened with the ordered index.
 *
 * It holds keys and nothing else. Where a key's record lies is the business of index_hash, so that
 * overwriting a key and moving its record leave this index alone, and a walk reads what is current
 * when it hands an entry out. The bytes of the keys are here because reading them from records
 * would cost a cache miss for each, and, once records are sealed, a decryption.
 *
 * It hides a B+-tree whose nodes are never written again once readers can see them, but for the
 * pointers to children. A leaf is one allocation of just the size it needs: the prefix that its
 * keys share, 16-bit offsets, and what is left of each key. An inner node has the same shape, with
 * the shortest separators that do. Every change makes a new leaf and stores one pointer; a split or
 * a merge makes the nodes from there up to the first whose number of children stays, and stores one
 * pointer above that. The old nodes go through the epoch.
 *
 *	inner   [ child | "k" | child | "s" | child ]        separator i: all keys of child i + 1
 *	            |            |            |              and beyond are at or behind it
 *	leaf      a..j         k..r         s..z
 *
 * Why one pointer is enough. Whoever follows pointers from the root meets, at each, the state before
 * or after some change as a whole. A node that was replaced stays as it was then: a reader who is
 * still in it sees all keys that were there when its look at the tree began and still are.
 *
 * Concurrency. Writers take the index's own lock. Readers hold an epoch pin and load the root and
 * the children with acquire, which pairs with the release of the store that published them.
 *
 * Memory. A key of n bytes takes n + 2 less what its leaf's keys share, and about 2 bytes of nodes
 * above and around; leaves are half full at least on average, and their size is their content's.
 *
 * Order: memcmp, a key before those it is a prefix of.
 */
#ifndef EMDB_INDEX_ORD_H
#define EMDB_INDEX_ORD_H

#include <stdatomic.h>

#include "core/base.h"
#include "core/epoch.h"
#include "core/sync.h"

#define OIDX_KEY_MAX 65535u

struct oidx_node;

struct oidx {
	_Atomic(struct oidx_node *) root; /* atomic: release by writers, acquire by readers */
	struct epoch *epoch;              /* immutable after init */
	_Atomic(uint64_t) count;          /* atomic relaxed; written under lock */
	_Atomic(uint64_t) bytes;          /* atomic relaxed; written under lock */
	struct mutex lock;                /* rank LOCK_OIDX */
};

struct oidx_key {
	const uint8_t *p;
	size_t n;
};

void oidx_init(struct oidx *o, struct epoch *ep);
/* Frees all at once: nobody may be in any function of o. One that is all zero bytes is fine. */
void oidx_release(struct oidx *o);

/* ---- Writing; thread-safe, no pin needed. An error changes nothing ---- */

/* 0, also when it is there already, or -ENOMEM. key has at most OIDX_KEY_MAX bytes. */
int oidx_insert(struct oidx *o, const void *key, size_t len) EMDB_MUST_CHECK;
/* 0, also when it is not there, or -ENOMEM: a smaller leaf has to be made. */
int oidx_remove(struct oidx *o, const void *key, size_t len) EMDB_MUST_CHECK;
/* Removes all. Takes time with the number of leaves, needs no memory. */
void oidx_clear(struct oidx *o);

/* Sorts n keys; space has room for as many. */
void oidx_sort(struct oidx_key *keys, struct oidx_key *space, size_t n);
/* Fills an empty index from keys in ascending order without duplicates. 0 or -ENOMEM. */
int oidx_build(struct oidx *o, const struct oidx_key *keys, size_t n) EMDB_MUST_CHECK;

/* ---- Reading; the caller holds a pin of the epoch given at init ---- */

/* One end of an interval; p NULL: none. */
struct oidx_bound {
	const uint8_t *p;
	size_t n;
	bool exclusive;
};

/* A key in two pieces, as it lies in its leaf; valid while the pin lasts. False: stop. */
typedef bool (*oidx_visit_fn)(void *ctx, const uint8_t *prefix, size_t prefix_len,
			      const uint8_t *rest, size_t rest_len);

/*
 * Calls fn for the keys between two bounds, in ascending order or, in reverse, in descending. A key
 * that is there from the first call of a walk to the last is met exactly once, however many calls
 * the walk takes (each going on behind the last key of the one before) and whatever else changes.
 */
void oidx_scan_pinned(const struct oidx *o, const struct oidx_bound *low,
		      const struct oidx_bound *high, bool reverse, oidx_visit_fn fn, void *ctx);

/* ---- Whole index ---- */

uint64_t oidx_count(const struct oidx *o);
/* Bytes held: nodes and what the allocator adds. Not o itself, nor what waits in the epoch. */
uint64_t oidx_memory(const struct oidx *o);
/* True when the tree is in order and the counts agree. Takes the lock; time with its size. */
bool oidx_check(struct oidx *o);

#endif
