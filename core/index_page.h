/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_page: one page of a hash index, a sorted array of cells that is read while it changes.
 * Private to index_hash*.c.
 *
 * A page carries a sequence number, odd while a writer moves cells.
 *
 *	writer (holds the lock)                 reader (holds a pin)
 *	 W1 seq = odd, relaxed                   R1 s = seq, acquire; start again when odd
 *	 W2 fence, release                       R2 read count and cells, relaxed
 *	 W3 write count and cells, relaxed       R3 fence, acquire
 *	 W4 seq = even, release                  R4 seq again, relaxed; start again unless s
 *
 * R2 reading anything of W3 makes R3 synchronize with W2, so R4 sees W1 or later and refuses.
 * R1 reading W4 makes everything before W4 visible to R2. Between R1 and R4 the reader may see
 * nonsense, and only has to stay inside the page: count is never above cap, cap never changes.
 *
 * Values are stored with release and handed out with acquire, beyond what the fences do already,
 * because callers keep references in them: what a writer did before insert or replace is visible
 * to whoever finds the value, also in the eyes of tools that do not understand fences. It is also
 * why replacing one value needs no new sequence number: a reader gets the old one or the new.
 *
 * Invariants: cells are sorted by hash; equal hashes keep their order of insertion; every hash
 * shares the depth leading bits of the page; cap is a value of page_cap().
 */
#ifndef EMDB_INDEX_PAGE_H
#define EMDB_INDEX_PAGE_H

#include <stdatomic.h>

#include "core/base.h"
#include "core/epoch.h"
#include "core/index_hash.h"

#define PAGE_CAP_MIN  4
#define PAGE_SCAN_MAX 24 /* cells looked at one by one before the binary search */

struct cell {
	_Atomic(uint64_t) hash;  /* atomic relaxed under seq; written under the index lock */
	_Atomic(uint64_t) value; /* atomic: release by writer, acquire by readers */
};

struct hidx_page {
	struct epoch_node node;  /* used once retired */
	_Atomic(uint32_t) seq;   /* atomic, see above; written under the index lock */
	_Atomic(uint32_t) count; /* atomic relaxed under seq; written under the index lock */
	uint32_t cap;            /* immutable */
	uint32_t depth;          /* immutable */
	struct cell cells[];
};

static_assert(sizeof(struct hidx_page) == 32, "cells do not straddle cache lines");
static_assert(sizeof(struct cell) == 16, "budget of 24 bytes per entry");

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan" /* every field that the fences order is atomic */
#endif

/* ---- Bits of the hash ---- */

static inline uint64_t top_bits(uint64_t hash, unsigned n)
{
	return hash >> 1 >> (63 - n);
}

/* All hashes of a page of this depth differ in these bits only. */
static inline uint64_t range_mask(unsigned depth)
{
	return UINT64_MAX >> depth;
}

static inline uint64_t range_start(uint64_t hash, unsigned depth)
{
	return hash & ~range_mask(depth);
}

/* ---- Sizes ---- */

/* The next capacity that holds n: four steps to each doubling, so at most a quarter is unused. */
static inline uint64_t page_cap(uint64_t n)
{
	if (n <= PAGE_CAP_MIN)
		return PAGE_CAP_MIN;
	return align_up(n, (uint64_t)1 << (61 - __builtin_clzll(n - 1)));
}

/* The same for a page that will get more: full already only when it is to split instead. */
static inline uint64_t page_cap_more(uint64_t n)
{
	return page_cap(n < HIDX_PAGE_FULL ? n + 1 : n);
}

static inline size_t page_size(uint64_t cap)
{
	return sizeof(struct hidx_page) + cap * sizeof(struct cell);
}

/* ---- Cells ---- */

static inline uint32_t page_count(const struct hidx_page *p)
{
	return atomic_load_explicit(&p->count, memory_order_relaxed);
}

static inline void page_count_set(struct hidx_page *p, uint32_t n)
{
	atomic_store_explicit(&p->count, n, memory_order_relaxed);
}

static inline uint64_t cell_hash(const struct hidx_page *p, uint32_t i)
{
	return atomic_load_explicit(&p->cells[i].hash, memory_order_relaxed);
}

static inline uint64_t cell_value(const struct hidx_page *p, uint32_t i)
{
	return atomic_load_explicit(&p->cells[i].value, memory_order_acquire);
}

static inline void cell_set(struct hidx_page *p, uint32_t i, uint64_t hash, uint64_t value)
{
	atomic_store_explicit(&p->cells[i].hash, hash, memory_order_relaxed);
	atomic_store_explicit(&p->cells[i].value, value, memory_order_release);
}

static inline void cells_copy(struct hidx_page *to, uint32_t at, const struct hidx_page *from,
			      uint32_t i, uint32_t n)
{
	for (; n > 0; n--, i++, at++)
		cell_set(to, at, cell_hash(from, i), cell_value(from, i));
}

/* ---- Searching; the caller holds the lock, or throws the answer away unless read_valid ---- */

static inline uint32_t page_bisect(const struct hidx_page *p, uint32_t lo, uint32_t hi,
				   uint64_t hash)
{
	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (cell_hash(p, mid) < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/*
 * The first of the n cells whose hash is not below. Mixed hashes lie evenly, so the place can be
 * computed and is off by the square root of n; a few steps go there, and if they do not, bisect.
 */
static inline uint32_t page_lower_bound(const struct hidx_page *p, uint32_t n, uint64_t hash)
{
	const uint64_t fraction = hash << p->depth >> 32;
	uint32_t i = (uint32_t)(fraction * n >> 32);
	uint32_t end;

	if (i < n && cell_hash(p, i) < hash) {
		end = n - i > PAGE_SCAN_MAX ? i + PAGE_SCAN_MAX : n;
		while (++i < end)
			if (cell_hash(p, i) >= hash)
				return i;
		return page_bisect(p, i, n, hash);
	}
	end = i > PAGE_SCAN_MAX ? i - PAGE_SCAN_MAX : 0;
	for (; i > end; i--)
		if (cell_hash(p, i - 1) < hash)
			return i;
	return page_bisect(p, 0, i, hash);
}

/* The first cell from i on that has another hash. */
static inline uint32_t page_equal_end(const struct hidx_page *p, uint32_t i, uint32_t n,
				      uint64_t hash)
{
	while (i < n && cell_hash(p, i) == hash)
		i++;
	return i;
}

/* The first cell that holds the pair, or n. */
static inline uint32_t page_find_pair(const struct hidx_page *p, uint32_t n, uint64_t hash,
				      uint64_t value)
{
	for (uint32_t i = page_lower_bound(p, n, hash); i < n && cell_hash(p, i) == hash; i++)
		if (cell_value(p, i) == value)
			return i;
	return n;
}

/* hidx_find_pinned for one page. */
static inline size_t page_find(const struct hidx_page *p, uint64_t hash, uint64_t *out, size_t max)
{
	const uint32_t n = page_count(p);
	const uint32_t first = page_lower_bound(p, n, hash);
	uint32_t i = first;

	for (; i < n && cell_hash(p, i) == hash; i++)
		if (i - first < max)
			out[i - first] = cell_value(p, i);
	return i - first;
}

/* hidx_walk_pinned for one page. */
static inline size_t page_walk(const struct hidx_page *p, uint64_t from, uint32_t tie_from,
			       struct hidx_slot *out, size_t max)
{
	const uint32_t n = page_count(p);
	uint32_t first = page_lower_bound(p, n, from); /* where the current run of equals starts */
	uint32_t i = page_equal_end(p, first, n, from);
	size_t got = 0;

	if (i - first > tie_from)
		i = first + tie_from;
	for (; i < n && got < max; i++) {
		const uint64_t hash = cell_hash(p, i);

		if (i > first && cell_hash(p, i - 1) != hash)
			first = i;
		out[got++] = (struct hidx_slot){ hash, cell_value(p, i), i - first };
	}
	return got;
}

/* ---- Sequence ---- */

static inline void page_write_begin(struct hidx_page *p)
{
	const uint32_t s = atomic_load_explicit(&p->seq, memory_order_relaxed);

	atomic_store_explicit(&p->seq, s + 1, memory_order_relaxed); /* W1 */
	atomic_thread_fence(memory_order_release);                   /* W2 */
}

static inline void page_write_end(struct hidx_page *p)
{
	const uint32_t s = atomic_load_explicit(&p->seq, memory_order_relaxed);

	atomic_store_explicit(&p->seq, s + 1, memory_order_release); /* W4 */
}

/* False while a writer is at it. */
static inline bool page_read_begin(const struct hidx_page *p, uint32_t *ret_seq)
{
	*ret_seq = atomic_load_explicit(&p->seq, memory_order_acquire); /* R1 */
	return !(*ret_seq & 1);
}

static inline bool page_read_valid(const struct hidx_page *p, uint32_t seq)
{
	atomic_thread_fence(memory_order_acquire);                         /* R3 */
	return atomic_load_explicit(&p->seq, memory_order_relaxed) == seq; /* R4 */
}

/* ---- Changing in place, under the lock ---- */

/* There must be room. */
static inline void page_put(struct hidx_page *p, uint32_t at, uint64_t hash, uint64_t value)
{
	const uint32_t n = page_count(p);

	page_write_begin(p);
	for (uint32_t i = n; i > at; i--)
		cell_set(p, i, cell_hash(p, i - 1), cell_value(p, i - 1));
	cell_set(p, at, hash, value);
	page_count_set(p, n + 1);
	page_write_end(p);
}

static inline void page_cut(struct hidx_page *p, uint32_t at)
{
	const uint32_t n = page_count(p);

	page_write_begin(p);
	cells_copy(p, at, p, at + 1, n - at - 1);
	page_count_set(p, n - 1);
	page_write_end(p);
}

#endif
