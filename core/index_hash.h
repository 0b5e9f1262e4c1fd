/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_hash: an ordered multimap from a 64-bit hash to a 64-bit value, read without locks. One per
 * namespace (most are tiny, some hold 100 million entries), and the table of ids.
 *
 * It hides extendible hashing. The root is nothing, one page, or a directory of 2^D pointers to
 * pages, picked by the top D bits of the hash. A page of local depth d holds every entry whose hash
 * shares one prefix of d bits, sorted by hash; 2^(D-d) neighbouring pointers name it.
 *
 *	root ──> dir  00 01 10 11          D = 2
 *	          |    |  |   \ /
 *	          |    A  B    C           A, B: d = 2; C: d = 1, all hashes that start with 1
 *
 * A page grows by a quarter or less at a time up to HIDX_PAGE_FULL cells, then splits in two by the
 * next bit. So no operation touches more than one page and what replaces it, plus, seldom, a copy
 * of the directory (8 bytes for every 100 to 200 entries). Pages shrink and merge as they empty.
 *
 * Invariants (hidx_check proves them):
 *  1. Cells of a page are sorted by hash; equal hashes lie together, in order of insertion.
 *  2. Every hash of a page starts with the d bits that lead to it; d <= D.
 *  3. The pointers to one page are neighbours, 2^(D-d) of them, at a multiple of that number.
 *  4. count, memory and the directory's counts of pages by depth agree with what is there.
 *  5. 8 * 2^D bytes of directory are at most some bytes per entry, however the hashes lie. Pages
 *     whose hashes share too long a prefix for that, equal hashes above all, do not split: they
 *     grow beyond HIDX_PAGE_FULL and cost O(their size) per insertion. Callers mix their hashes.
 *
 * Concurrency. Writers take the index's own lock. Readers hold an epoch pin: they follow the root
 * and one directory pointer (release by writers, acquire by readers) and read the page under its
 * sequence number; see index_page.h and the top of index_hash.c. What a structural change replaces is never written
 * again and freed through the epoch. So a read is one atomic look at one page.
 *
 * Memory, header and allocator overhead included: at most 24 bytes per entry at rest for any large
 * number of entries with mixed hashes, 64 bytes for an empty index, 200 for three entries.
 *
 * Calling sequence: hidx_init or hidx_build_*; anything; hidx_release.
 */
#ifndef EMDB_INDEX_HASH_H
#define EMDB_INDEX_HASH_H

#include <stdatomic.h>

#include "core/base.h"
#include "core/epoch.h"
#include "core/sync.h"

#define HIDX_PAGE_FULL 128 /* cells at which a page splits, if its hashes can be told apart */

/* Four bytes instead of pthread's forty; spins, yields, sleeps. Held for one page copy, rarely more. */
struct EMDB_CAPABILITY("mutex") hidx_lock {
	_Atomic(uint32_t) word; /* atomic: release by unlock, acquire by lock */
};

struct hidx {
	_Atomic(uintptr_t) root; /* atomic: release by writers, acquire by readers */
	struct epoch *epoch;     /* immutable after init */
	_Atomic(uint64_t) count; /* atomic relaxed; written under lock */
	_Atomic(uint64_t) bytes; /* atomic relaxed; written under lock */
	struct hidx_lock lock;
};

static_assert(sizeof(struct hidx) <= 64, "a hundred thousand empty directories");

void hidx_init(struct hidx *h, struct epoch *ep);

/*
 * Frees all at once: nobody may be in any function of h, pinned readers included (retire the object
 * that holds h and release from there). Takes time with the number of pages. An index that is all
 * zero bytes is fine.
 */
void hidx_release(struct hidx *h);

/* ---- Reading; the caller holds a pin of the epoch given at init ---- */

/*
 * All values under this hash in order of insertion. Copies up to max of them and returns how many
 * there are; when that is more than max, ask again with room for it.
 */
size_t hidx_find_pinned(const struct hidx *h, uint64_t hash, uint64_t *out, size_t max);

/* hidx_find_pinned of this hash follows: lets the cache lines that it needs come meanwhile. */
void hidx_prefetch_pinned(const struct hidx *h, uint64_t hash);

struct hidx_slot {
	uint64_t hash;
	uint64_t value;
	uint32_t tie; /* how many entries of the same hash come before */
};

/*
 * Copies up to max entries at or after the position (hash_from, tie_from), in order. Fewer than max
 * means the end. Go on behind the last one with (hash, tie + 1).
 *
 * An entry that is there from the first call of a walk to the last is returned exactly once, however
 * many calls the walk takes and whatever else comes and goes. The one exception: a walk that stops
 * between two entries of the same 64-bit hash, of which the earlier is then removed, misses one.
 */
size_t hidx_walk_pinned(const struct hidx *h, uint64_t hash_from, uint32_t tie_from,
			struct hidx_slot *out, size_t max);

/* ---- Writing; thread-safe, no pin needed ---- */

/* Adds a pair, behind others of the same hash, equal ones too. 0 or -ENOMEM (nothing changed). */
int hidx_insert(struct hidx *h, uint64_t hash, uint64_t value) EMDB_MUST_CHECK;

/* Puts value in the place of the pair (hash, old_value); -ENOENT when that is not there. */
int hidx_replace(struct hidx *h, uint64_t hash, uint64_t old_value, uint64_t value) EMDB_MUST_CHECK;

/* Removes one pair (hash, value); -ENOENT when absent. Needs no memory. */
int hidx_remove(struct hidx *h, uint64_t hash, uint64_t value) EMDB_MUST_CHECK;

/* ---- Whole index ---- */

uint64_t hidx_count(const struct hidx *h);

/* Bytes held: h, its pages and directory, what the allocator adds. Not what waits in the epoch. */
size_t hidx_memory(const struct hidx *h);

/* True when all invariants hold. Takes the lock; time with the number of entries. */
bool hidx_check(const struct hidx *h);

/* ---- Building from sorted entries ---- */

/*
 * hidx_build_begin on an index fresh from hidx_init, hidx_build_add in order of hash, hidx_build_end.
 * Until end the index stays empty for everybody; nobody may write to it. hidx_build_release is for
 * both outcomes, and takes a builder that is all zero. The number expected is a hint: a wrong one
 * costs time and memory (of the order of the hint), nothing else.
 */
struct hidx_builder {
	struct hidx *target;
	struct hidx work;       /* what is built */
	struct hidx_page *open; /* being filled, not yet in the directory */
	uint64_t next;          /* directory pointers before this one are set */
	uint64_t hash_last;     /* of the entry added last, 0 at first */
};

int hidx_build_begin(struct hidx_builder *b, struct hidx *target,
		     uint64_t count_hint) EMDB_MUST_CHECK;
/* -EINVAL when hash is less than the one before, -ENOMEM. After an error only release is allowed. */
int hidx_build_add(struct hidx_builder *b, uint64_t hash, uint64_t value) EMDB_MUST_CHECK;
int hidx_build_end(struct hidx_builder *b) EMDB_MUST_CHECK;
void hidx_build_release(struct hidx_builder *b);

#endif
