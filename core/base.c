/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base.h"

#include <stdatomic.h>

#define BUF_CAP_MIN 64

static const struct base_allocator libc_allocator = { malloc, calloc, realloc, free };

/* atomic: release by base_set_allocator, acquire by every use */
static _Atomic(const struct base_allocator *) allocator = &libc_allocator;

static inline const struct base_allocator *alloc_table(void)
{
	return atomic_load_explicit(&allocator, memory_order_acquire);
}

void base_set_allocator(const struct base_allocator *a)
{
	atomic_store_explicit(&allocator, a ? a : &libc_allocator, memory_order_release);
}

void *base_malloc(size_t n)
{
	return alloc_table()->malloc(n ? n : 1);
}

void *base_calloc(size_t count, size_t n)
{
	return count && n ? alloc_table()->calloc(count, n) : alloc_table()->calloc(1, 1);
}

void *base_realloc(void *p, size_t n)
{
	return alloc_table()->realloc(p, n ? n : 1);
}

void base_free(void *p)
{
	if (p)
		alloc_table()->free(p);
}

int buf_reserve(struct buf *b, size_t extra)
{
	size_t need, cap;
	uint8_t *data;

	emdb_dassert(b->len <= b->cap && (b->data != NULL) == (b->cap != 0));
	if (likely(extra <= b->cap - b->len))
		return 0;
	if (emdb_add_ovf_size(b->len, extra, &need))
		return -ENOMEM;
	cap = b->cap > SIZE_MAX / 2 ? need : max_size(need, b->cap * 2);
	cap = max_size(cap, BUF_CAP_MIN);
	data = base_realloc(b->data, cap);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->cap = cap;
	return 0;
}

int buf_append(struct buf *b, const void *p, size_t n)
{
	const int err = buf_reserve(b, n);

	if (err)
		return err;
	if (n)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	return 0;
}

int buf_append_zero(struct buf *b, size_t n)
{
	const int err = buf_reserve(b, n);

	if (err)
		return err;
	if (n)
		memset(b->data + b->len, 0, n);
	b->len += n;
	return 0;
}

void buf_release(struct buf *b)
{
	base_free(b->data);
	*b = (struct buf)BUF_INIT;
}

uint8_t *buf_detach(struct buf *b, size_t *ret_n)
{
	uint8_t *const data = b->data;

	if (ret_n)
		*ret_n = b->len;
	*b = (struct buf)BUF_INIT;
	return data;
}
