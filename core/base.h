/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base: what every other module stands on. Attributes, assertions, checked arithmetic, the growable
 * buffer and the allocator hooks. Knows nothing about storage.
 *
 * Assertions. emdb_assert stays on in release builds and states what our own code has proven;
 * emdb_dassert is compiled in only with -DEMDB_DEBUG (sanitizer and fuzz builds) and is for hot
 * paths. Both abort() without a message: core/ never prints, the core dump names the line. Bytes
 * from disk, from the kernel, from the caller or a failed allocation are never asserted: they are
 * error returns.
 *
 * Errors. Functions of base, codec, sync and io return 0 or a negative errno.
 *
 * Memory. All of core/ allocates through base_malloc() and friends and never calls malloc()
 * directly, so that a test can make the N-th allocation fail.
 */
#ifndef EMDB_BASE_H
#define EMDB_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- Attributes ---- */

#define likely(x)         __builtin_expect(!!(x), 1)
#define unlikely(x)       __builtin_expect(!!(x), 0)
#define EMDB_MUST_CHECK   __attribute__((warn_unused_result))
#define EMDB_UNUSED       __attribute__((unused))
#define EMDB_COLD         __attribute__((cold))
#define EMDB_NOINLINE     __attribute__((noinline))
#define EMDB_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* ---- Assertions ---- */

#define emdb_assert(x) ((void)(likely(x) || (abort(), 0)))
#ifdef EMDB_DEBUG
#define emdb_dassert(x) emdb_assert(x)
#else
#define emdb_dassert(x) ((void)sizeof(!(x)))
#endif

/* ---- Small arithmetic ---- */

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* True when the result does not fit; *ret then holds nothing of use. */
static inline EMDB_MUST_CHECK bool emdb_add_ovf(uint64_t a, uint64_t b, uint64_t *ret)
{
	return __builtin_add_overflow(a, b, ret);
}

static inline EMDB_MUST_CHECK bool emdb_mul_ovf(uint64_t a, uint64_t b, uint64_t *ret)
{
	return __builtin_mul_overflow(a, b, ret);
}

static inline EMDB_MUST_CHECK bool emdb_add_ovf_size(size_t a, size_t b, size_t *ret)
{
	return __builtin_add_overflow(a, b, ret);
}

static inline EMDB_MUST_CHECK bool emdb_mul_ovf_size(size_t a, size_t b, size_t *ret)
{
	return __builtin_mul_overflow(a, b, ret);
}

/* align must be a power of two and n at most UINT64_MAX - align + 1. */
static inline uint64_t align_up(uint64_t n, uint64_t align)
{
	emdb_dassert(align && (align & (align - 1)) == 0 && n <= UINT64_MAX - align + 1);
	return (n + align - 1) & ~(align - 1);
}

static inline uint64_t align_down(uint64_t n, uint64_t align)
{
	emdb_dassert(align && (align & (align - 1)) == 0);
	return n & ~(align - 1);
}

static inline bool is_pow2(uint64_t n)
{
	return n && (n & (n - 1)) == 0;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ---- Allocation ---- */

/*
 * Process-wide allocator table, the one piece of mutable file-scope state in core/. It exists for
 * tests; a program never sets it. Install before any other thread runs in core/ and keep the same
 * pairing of malloc and free from one open to the matching close: memory taken from one table is
 * given back to whichever table is installed at that time, so a table's functions must in the end
 * reach the same heap. NULL restores libc.
 */
struct base_allocator {
	void *(*malloc)(size_t n);
	void *(*calloc)(size_t count, size_t n);
	void *(*realloc)(void *p, size_t n);
	void (*free)(void *p);
};

void base_set_allocator(const struct base_allocator *a);

/*
 * NULL means out of memory, always: a size of zero is served as one byte. base_calloc checks the
 * product. base_realloc leaves p alone when it fails. base_free takes NULL.
 */
void *base_malloc(size_t n) __attribute__((malloc, alloc_size(1))) EMDB_MUST_CHECK;
void *base_calloc(size_t count, size_t n) __attribute__((malloc, alloc_size(1, 2))) EMDB_MUST_CHECK;
void *base_realloc(void *p, size_t n) __attribute__((alloc_size(2))) EMDB_MUST_CHECK;
void base_free(void *p);

/* ---- Growable buffer ---- */

/*
 * Invariants: len <= cap; data is NULL if and only if cap is 0; data is owned by the buffer.
 * Calling sequence: BUF_INIT, any calls, then buf_release or buf_detach. Not thread-safe.
 */
struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
};

#define BUF_INIT           \
	{                  \
		NULL, 0, 0 \
	}

/* Makes room for extra bytes beyond len, growing by doubling. 0 or -ENOMEM (buffer unchanged). */
int buf_reserve(struct buf *b, size_t extra) EMDB_MUST_CHECK;

/* Appends; p may not point into the buffer itself. 0 or -ENOMEM (buffer unchanged). */
int buf_append(struct buf *b, const void *p, size_t n) EMDB_MUST_CHECK;
int buf_append_zero(struct buf *b, size_t n) EMDB_MUST_CHECK;

/* Forgets the content, keeps the memory. */
static inline void buf_reset(struct buf *b)
{
	b->len = 0;
}

/* Frees the memory; the buffer is as after BUF_INIT. */
void buf_release(struct buf *b);

/*
 * Moves the memory to the caller, who frees it with base_free; *ret_n may be NULL. The buffer is as
 * after BUF_INIT. An empty buffer that never grew gives NULL.
 */
uint8_t *buf_detach(struct buf *b, size_t *ret_n) EMDB_MUST_CHECK;

#endif
