/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_hash_i: what index_hash.c (operations) and index_hash_build.c (checking, building) share.
 * The functions are for writers, who hold the lock or own the index alone, unless stated.
 */
#ifndef EMDB_INDEX_HASH_I_H
#define EMDB_INDEX_HASH_I_H

#include "core/index_page.h"

#define HIDX_DEPTH_MAX     28 /* of the directory: 2 GiB */
#define HIDX_MALLOC_HEADER 8
#define HIDX_MALLOC_ALIGN  16

struct hidx_dir {
	struct epoch_node node;             /* used once retired */
	uint32_t depth;                     /* immutable */
	uint32_t pages[HIDX_DEPTH_MAX + 1]; /* how many of each local depth; guarded by lock */
	_Atomic(struct hidx_page *) page[]; /* atomic: release by writers, acquire by readers */
};

/*
 * What a writer replaced, chained through the node, which no reader looks at. It goes to the epoch
 * after the lock is released: retiring may run functions of others.
 */
struct hidx_dead {
	struct epoch_node *head;
};

/* ---- Lock ---- */

static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* The slow path of hidx_lock: spins, then yields, then sleeps. */
void hidx_lock_wait(struct hidx_lock *l);

static inline void hidx_lock(struct hidx_lock *l) EMDB_ACQUIRE(l) EMDB_NO_TSA
{
	if (unlikely(atomic_exchange_explicit(&l->word, 1, memory_order_acquire)))
		hidx_lock_wait(l);
}

static inline void hidx_unlock(struct hidx_lock *l) EMDB_RELEASE(l) EMDB_NO_TSA
{
	atomic_store_explicit(&l->word, 0, memory_order_release);
}

/* Readers promise not to change the index; its lock is the one thing they may. */
static inline struct hidx_lock *hidx_lock_of(const struct hidx *h)
{
	return (struct hidx_lock *)(uintptr_t)&h->lock;
}

/* ---- Following pointers: under the lock, or pinned ---- */

/* The root is NULL, a page, or a directory + 1. */
static inline struct hidx_dir *hidx_root_dir(uintptr_t root)
{
	return root & 1 ? (struct hidx_dir *)(root - 1) : NULL;
}

static inline struct hidx_dir *hidx_dir_of(const struct hidx *h)
{
	return hidx_root_dir(atomic_load_explicit(&h->root, memory_order_acquire));
}

static inline unsigned hidx_dir_depth(const struct hidx *h)
{
	const struct hidx_dir *const d = hidx_dir_of(h);

	return d ? d->depth : 0;
}

static inline struct hidx_page *hidx_dir_page(const struct hidx_dir *d, uint64_t i)
{
	return atomic_load_explicit(&d->page[i], memory_order_acquire);
}

/* Pointers of the directory that name a page of this depth. */
static inline uint64_t hidx_dir_span(const struct hidx_dir *d, unsigned depth)
{
	return (uint64_t)1 << (d->depth - depth);
}

/* The page for this hash, NULL when the index is empty. */
static inline struct hidx_page *hidx_page_of(const struct hidx *h, uint64_t hash)
{
	const uintptr_t root = atomic_load_explicit(&h->root, memory_order_acquire);
	const struct hidx_dir *const d = hidx_root_dir(root);

	return d ? hidx_dir_page(d, top_bits(hash, d->depth)) : (struct hidx_page *)root;
}

/* Release: pairs with the acquire in the functions above; the content is complete. */
static inline void hidx_root_set(struct hidx *h, uintptr_t root)
{
	atomic_store_explicit(&h->root, root, memory_order_release);
}

static inline void hidx_root_set_dir(struct hidx *h, struct hidx_dir *d)
{
	hidx_root_set(h, (uintptr_t)d + 1);
}

static inline void hidx_dir_set(struct hidx_dir *d, uint64_t i, struct hidx_page *p)
{
	atomic_store_explicit(&d->page[i], p, memory_order_release);
}

/* ---- Memory ---- */

static inline void hidx_add_relaxed(_Atomic(uint64_t) *v, uint64_t n)
{
	atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* What malloc takes for n bytes. */
static inline uint64_t hidx_malloc_size(uint64_t n)
{
	return align_up(n + HIDX_MALLOC_HEADER, HIDX_MALLOC_ALIGN);
}

static inline size_t hidx_dir_size(unsigned depth)
{
	return sizeof(struct hidx_dir) + ((size_t)1 << depth) * sizeof(struct hidx_page *);
}

/* An empty page; NULL when there is no memory. */
struct hidx_page *hidx_page_new(struct hidx *h, uint32_t depth, uint64_t cap);

/* A page of this depth with cells [i, i + n) of another and room for more. */
struct hidx_page *hidx_page_copy(struct hidx *h, const struct hidx_page *from, uint32_t i,
				 uint32_t n, uint32_t depth);

/* A directory of NULLs. */
struct hidx_dir *hidx_dir_new(struct hidx *h, uint32_t depth);

/* At once, so for what no reader has seen. Take NULL. */
void hidx_page_free(struct hidx *h, struct hidx_page *p);
void hidx_dead_free(struct hidx_dead *dead);

/* ---- Splitting ---- */

/*
 * Whether splitting the page of hashes lo and hi, as often as it takes, tells them apart with a
 * directory that is still in proportion to the number of entries.
 */
bool hidx_split_pays(const struct hidx *h, uint64_t lo, uint64_t hi);

/* Replaces p, the page of this hash, by its two halves. 0 or -ENOMEM (nothing changed). */
int hidx_page_split(struct hidx *h, struct hidx_page *p, uint64_t hash, struct hidx_dead *dead);

#endif
