/* SPDX-License-Identifier: Apache-2.0 */
#include "core/index_hash_i.h"

#define BUILD_DEPTH_MAX 24 /* of a directory made on the word of a hint */
#define BUILD_FILL      88 /* entries that a page gets on average at most */

/* ---- Invariants ---- */

static bool page_check(const struct hidx_page *p, uint64_t start)
{
	const uint32_t n = page_count(p);

	if (n > p->cap || p->cap != page_cap(p->cap))
		return false;
	if (atomic_load_explicit(&p->seq, memory_order_relaxed) & 1)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (range_start(cell_hash(p, i), p->depth) != start)
			return false;
		if (i > 0 && cell_hash(p, i - 1) > cell_hash(p, i))
			return false;
	}
	return true;
}

/* The page at pointer i owns exactly its aligned range of pointers. */
static bool range_check(const struct hidx_dir *d, uint64_t i)
{
	const struct hidx_page *const p = hidx_dir_page(d, i);

	if (!p || p->depth == 0 || p->depth > d->depth || i % hidx_dir_span(d, p->depth) != 0)
		return false;
	for (uint64_t k = 1; k < hidx_dir_span(d, p->depth); k++)
		if (hidx_dir_page(d, i + k) != p)
			return false;
	return page_check(p, i << (64 - d->depth));
}

static bool dir_check(const struct hidx_dir *d, uint64_t *ret_count, uint64_t *ret_bytes)
{
	uint32_t pages[HIDX_DEPTH_MAX + 1] = { 0 };

	if (d->depth == 0 || d->depth > HIDX_DEPTH_MAX)
		return false;
	*ret_bytes = hidx_malloc_size(hidx_dir_size(d->depth));
	for (uint64_t i = 0; i < hidx_dir_span(d, 0);) {
		const struct hidx_page *const p = hidx_dir_page(d, i);

		if (!range_check(d, i))
			return false;
		pages[p->depth]++;
		*ret_count += page_count(p);
		*ret_bytes += hidx_malloc_size(page_size(p->cap));
		i += hidx_dir_span(d, p->depth);
	}
	return memcmp(pages, d->pages, sizeof(pages)) == 0;
}

static bool check_locked(const struct hidx *h)
{
	const struct hidx_dir *const d = hidx_dir_of(h);
	const struct hidx_page *const p = d ? NULL : hidx_page_of(h, 0);
	uint64_t count = 0;
	uint64_t bytes = 0;

	if (d && !dir_check(d, &count, &bytes))
		return false;
	if (p) {
		count = page_count(p);
		bytes = hidx_malloc_size(page_size(p->cap));
		if (p->depth != 0 || count == 0 || !page_check(p, 0))
			return false;
	}
	return count == hidx_count(h) && bytes + sizeof(*h) == hidx_memory(h);
}

bool hidx_check(const struct hidx *h)
{
	bool good;

	hidx_lock(hidx_lock_of(h));
	good = check_locked(h);
	hidx_unlock(hidx_lock_of(h));
	return good;
}

/* ---- Building ---- */

int hidx_build_begin(struct hidx_builder *b, struct hidx *target, uint64_t count_hint)
{
	unsigned depth = 0;
	struct hidx_dir *d;

	*b = (struct hidx_builder){ .target = target };
	hidx_init(&b->work, target->epoch);
	while (depth < BUILD_DEPTH_MAX && count_hint >> depth > BUILD_FILL)
		depth++;
	if (depth == 0)
		return 0;
	d = hidx_dir_new(&b->work, depth);
	if (!d)
		return -ENOMEM;
	hidx_root_set_dir(&b->work, d);
	return 0;
}

/* Covers the pointers from b->next up to end, where no entry fell, with empty pages. */
static int build_gap(struct hidx_builder *b, struct hidx_dir *d, uint64_t end)
{
	while (b->next < end) {
		/* The largest range that is aligned, fits, and is not everything. */
		uint64_t span = b->next ? b->next & -b->next : hidx_dir_span(d, 1);
		struct hidx_page *p;
		unsigned depth;

		while (span > end - b->next)
			span /= 2;
		depth = d->depth - (unsigned)__builtin_ctzll(span);
		p = hidx_page_new(&b->work, depth, PAGE_CAP_MIN);
		if (!p)
			return -ENOMEM;
		d->pages[depth]++;
		for (uint64_t i = 0; i < span; i++)
			hidx_dir_set(d, b->next + i, p);
		b->next += span;
	}
	return 0;
}

/* Puts a copy of the open page, cut to size, in its place; the open page is used again. */
static int build_flush(struct hidx_builder *b)
{
	struct hidx_dir *const d = hidx_dir_of(&b->work);
	const uint32_t n = b->open ? page_count(b->open) : 0;
	const unsigned depth = d ? d->depth : 0;
	const uint64_t slot = top_bits(b->hash_last, depth);
	struct hidx_page *p;
	int err;

	if (n == 0)
		return 0;
	err = d ? build_gap(b, d, slot) : 0;
	if (err)
		return err;
	p = hidx_page_copy(&b->work, b->open, 0, n, depth);
	if (!p)
		return -ENOMEM;
	if (d) {
		d->pages[depth]++;
		hidx_dir_set(d, slot, p);
	} else {
		hidx_root_set(&b->work, (uintptr_t)p);
	}
	b->next = slot + 1;
	page_count_set(b->open, 0);
	return 0;
}

/* Makes room in the open page. */
static int build_room(struct hidx_builder *b)
{
	struct hidx_page *const old = b->open;
	const uint32_t n = old ? page_count(old) : 0;
	struct hidx_page *p;

	if (old && n < old->cap)
		return 0;
	p = hidx_page_new(&b->work, hidx_dir_depth(&b->work),
			  old ? page_cap((uint64_t)n + 1) : HIDX_PAGE_FULL);
	if (!p)
		return -ENOMEM;
	if (old) {
		cells_copy(p, 0, old, 0, n);
		page_count_set(p, n);
		hidx_page_free(&b->work, old);
	}
	b->open = p;
	return 0;
}

int hidx_build_add(struct hidx_builder *b, uint64_t hash, uint64_t value)
{
	const unsigned depth = hidx_dir_depth(&b->work);
	int err = 0;
	uint32_t n;

	if (hash < b->hash_last)
		return -EINVAL;
	if (top_bits(hash, depth) != top_bits(b->hash_last, depth))
		err = build_flush(b);
	if (!err)
		err = build_room(b);
	if (err)
		return err;
	n = page_count(b->open);
	cell_set(b->open, n, hash, value);
	page_count_set(b->open, n + 1);
	hidx_add_relaxed(&b->work.count, 1);
	b->hash_last = hash;
	return 0;
}

/* Splits pages that came out too large because the hint was too low. */
static int build_settle(struct hidx_builder *b)
{
	struct hidx_dead dead = { NULL };
	uint64_t at = 0;

	for (;;) {
		struct hidx_page *const p = hidx_page_of(&b->work, at);
		const uint32_t n = page_count(p);
		const uint64_t last = at | range_mask(p->depth);

		if (n > HIDX_PAGE_FULL &&
		    hidx_split_pays(&b->work, cell_hash(p, 0), cell_hash(p, n - 1))) {
			const int err = hidx_page_split(&b->work, p, at, &dead);

			hidx_dead_free(&dead);
			if (err)
				return err;
		} else if (last == UINT64_MAX) {
			return 0;
		} else {
			at = last + 1;
		}
	}
}

/* Moves the finished work to the target. */
static int build_publish(struct hidx_builder *b)
{
	struct hidx *const h = b->target;
	int err = -EINVAL;

	hidx_lock(&h->lock);
	if (!atomic_load_explicit(&h->root, memory_order_relaxed)) {
		hidx_add_relaxed(&h->count, hidx_count(&b->work));
		hidx_add_relaxed(&h->bytes, hidx_memory(&b->work) - sizeof(b->work));
		hidx_root_set(h, atomic_load_explicit(&b->work.root, memory_order_relaxed));
		hidx_init(&b->work, h->epoch);
		err = 0;
	}
	hidx_unlock(&h->lock);
	return err;
}

int hidx_build_end(struct hidx_builder *b)
{
	struct hidx_dir *const d = hidx_dir_of(&b->work);
	int err;

	if (hidx_count(&b->work) == 0)
		return 0;
	err = build_flush(b);
	if (!err && d)
		err = build_gap(b, d, hidx_dir_span(d, 0));
	hidx_page_free(&b->work, b->open);
	b->open = NULL;
	if (!err)
		err = build_settle(b);
	return err ? err : build_publish(b);
}

/* Unlike hidx_release this meets directories with holes. */
void hidx_build_release(struct hidx_builder *b)
{
	struct hidx_dir *d;

	if (!b || !b->target)
		return;
	d = hidx_dir_of(&b->work);
	hidx_page_free(&b->work, b->open);
	for (uint64_t i = 0; d && i < hidx_dir_span(d, 0);) {
		struct hidx_page *const p = hidx_dir_page(d, i);

		i += p ? hidx_dir_span(d, p->depth) : 1;
		hidx_page_free(&b->work, p);
	}
	if (d)
		base_free(d);
	else
		hidx_page_free(&b->work, hidx_page_of(&b->work, 0));
	*b = (struct hidx_builder){ .target = NULL };
}
