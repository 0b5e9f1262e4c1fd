/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extent: which bytes of a large value lie in which record of the journal.
 *
 * Hides a two-level ordered array: a directory of pages of at most 128 extents. Lookup is a binary
 * search in each level; an insert moves at most one page's tail, and the directory's tail once in
 * about 64 inserts. Pages grow in small steps and shrink again, so that a map of one extent takes
 * some 100 bytes and a million random extents about 27 MB.
 *
 * Invariants (extmap_check):
 *  1. extents are in ascending order and do not overlap; none is empty;
 *  2. off + len <= EXTENT_END_MAX, len <= EXTENT_LEN_MAX, skip + len <= UINT32_MAX;
 *  3. no page is empty, save the only page of an empty map; a directory entry holds the offset of its page's first extent;
 *  4. count, bytes and memory are the sums over the pages.
 * Neighbours are not merged, even when they continue each other in one record.
 *
 * Memory. Only extmap_write and extmap_punch can need memory, because they can split the extent
 * that covers `off`. They get it before they change anything: -ENOMEM means that no extent changed
 * and no callback was called. extmap_reserve(m, off) makes the next extmap_write or extmap_punch at
 * that same off certain to succeed, provided that no other call changes the map in between:
 *
 *	err = extmap_reserve(m, off);
 *	...                                  append the record to the journal
 *	(void)extmap_write(m, off, ...);     cannot fail now
 *
 * Live bytes. Whoever loses bytes is told by the drop callback: for each piece cut away, the record
 * and the number of bytes. It runs in the middle of the change and must not touch the map.
 *
 * Not thread-safe: the lock of the object that owns the map covers every call.
 */
#ifndef EMDB_EXTENT_H
#define EMDB_EXTENT_H

#include "core/base.h"

#define EXTENT_LEN_MAX ((uint32_t)1 << 31)
#define EXTENT_END_MAX ((uint64_t)INT64_MAX)

struct extent {
	uint64_t off;  /* in the file */
	uint64_t ref;  /* the record that holds the data */
	uint32_t len;  /* 1..EXTENT_LEN_MAX */
	uint32_t skip; /* where the data begins in that record's value */
};

struct extent_page;

/* One directory entry. */
struct extent_slot {
	uint64_t first; /* page->e[0].off */
	struct extent_page *page;
};

/* All zero is an empty map. The fields belong to extent.c. */
struct extmap {
	struct extent_slot *dir;
	uint32_t pages;
	uint32_t dir_cap;
	size_t count;
	uint64_t bytes;
	size_t memory;
};

/* Where iteration stands; any change of the map invalidates it. */
struct extent_cursor {
	uint32_t page;
	uint32_t slot;
};

/* A record lost `len` bytes of this map. */
typedef void (*extent_drop_fn)(void *ctx, uint64_t ref, uint32_t len);

void extmap_init(struct extmap *m);

/* Frees the memory without any callback; the map is empty afterwards. */
void extmap_release(struct extmap *m);

/* See "Memory" above. 0 or -ENOMEM. */
int extmap_reserve(struct extmap *m, uint64_t off) EMDB_MUST_CHECK;

/*
 * Maps [off, off + len) to the bytes from skip on of record ref, over whatever lay there. drop may
 * be NULL. 0, -ENOMEM, or -EINVAL for an extent that breaks invariant 2 or is empty; on error
 * nothing changed.
 */
int extmap_write(struct extmap *m, uint64_t off, uint32_t len, uint64_t ref, uint32_t skip,
		 extent_drop_fn drop, void *ctx) EMDB_MUST_CHECK;

/*
 * Makes [off, off + len) a hole. A range that goes on beyond the largest offset ends there. 0 or
 * -ENOMEM; on error nothing changed. It needs memory only when a hole is cut into the middle of one
 * extent.
 */
int extmap_punch(struct extmap *m, uint64_t off, uint64_t len, extent_drop_fn drop,
		 void *ctx) EMDB_MUST_CHECK;

/* Removes everything at and after size. Cannot fail. */
void extmap_truncate(struct extmap *m, uint64_t size, extent_drop_fn drop, void *ctx);

/* The first extent that covers off or lies after it. False when there is none. */
bool extmap_find(const struct extmap *m, uint64_t off, struct extent *ret);

/* Places the cursor before the extent that extmap_find would give. */
void extmap_seek(const struct extmap *m, uint64_t off, struct extent_cursor *ret);

/* The extent at the cursor, which moves behind it. False at the end. */
bool extmap_next(const struct extmap *m, struct extent_cursor *cur, struct extent *ret);

/*
 * SEEK_DATA and SEEK_HOLE of a file of `size` bytes: an offset >= off, or -ENXIO when off is not
 * below size or (data) only a hole follows. The end of the file is a hole.
 */
int64_t extmap_seek_data(const struct extmap *m, uint64_t off, uint64_t size);
int64_t extmap_seek_hole(const struct extmap *m, uint64_t off, uint64_t size);

/* Number of extents. */
static inline size_t extmap_count(const struct extmap *m)
{
	return m->count;
}

/* Bytes that are mapped, holes not counted (st_blocks). */
static inline uint64_t extmap_bytes(const struct extmap *m)
{
	return m->bytes;
}

/* Heap memory that the map holds, without the allocator's own overhead. */
static inline size_t extmap_memory(const struct extmap *m)
{
	return m->memory;
}

/* True if the invariants hold. O(count). */
bool extmap_check(const struct extmap *m);

#endif
