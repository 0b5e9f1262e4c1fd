/* SPDX-License-Identifier: Apache-2.0 */
#include "core/extent.h"

#define PAGE_MAX  128u /* extents of a full page */
#define PAGE_STEP 16u  /* pages beyond this size grow and shrink by it */
#define ROOM_MAX  2u   /* extents that one change can add: a split, and what is written between */

static_assert(sizeof(struct extent) == 24, "a million extents have to stay small");

struct extent_page {
	uint32_t count;
	uint32_t cap;
	struct extent e[];
};

/* Where in the map: e[slot] of dir[page], or behind the last extent of that page. */
struct place {
	uint32_t page;
	uint32_t slot;
};

struct drop {
	extent_drop_fn fn;
	void *ctx;
};

static uint64_t extent_end(const struct extent *e)
{
	return e->off + e->len;
}

static uint64_t range_end(uint64_t off, uint64_t len)
{
	return len > UINT64_MAX - off ? UINT64_MAX : off + len;
}

/* ---- Pages ---- */

static size_t page_size(uint32_t cap)
{
	return sizeof(struct extent_page) + cap * sizeof(struct extent);
}

static uint32_t cap_for(uint32_t count)
{
	uint32_t cap = 2;

	if (count > PAGE_STEP)
		return (count + PAGE_STEP - 1) / PAGE_STEP * PAGE_STEP;
	while (cap < count)
		cap *= 2;
	return cap;
}

static struct extent_page *page_new(struct extmap *m, uint32_t cap)
{
	struct extent_page *const p = base_malloc(page_size(cap));

	if (!p)
		return NULL;
	p->count = 0;
	p->cap = cap;
	m->memory += page_size(cap);
	return p;
}

/* On failure the page is as before. */
static int page_resize(struct extmap *m, uint32_t page, uint32_t cap)
{
	struct extent_page *p = m->dir[page].page;

	emdb_dassert(cap >= p->count && cap <= PAGE_MAX);
	if (cap == p->cap)
		return 0;
	p = base_realloc(p, page_size(cap));
	if (!p)
		return -ENOMEM;
	m->memory = m->memory - page_size(p->cap) + page_size(cap);
	p->cap = cap;
	m->dir[page].page = p;
	return 0;
}

static int dir_reserve(struct extmap *m)
{
	const uint32_t cap = m->dir_cap ? m->dir_cap * 2 : 1;
	struct extent_slot *dir;

	if (m->pages < m->dir_cap)
		return 0;
	if (cap > UINT32_MAX / 2)
		return -ENOMEM;
	dir = base_realloc(m->dir, cap * sizeof(*dir));
	if (!dir)
		return -ENOMEM;
	m->memory += (cap - m->dir_cap) * sizeof(*dir);
	m->dir = dir;
	m->dir_cap = cap;
	return 0;
}

/* Puts a page into the directory, which has room for it. */
static void dir_insert(struct extmap *m, uint32_t at, uint64_t first, struct extent_page *p)
{
	memmove(&m->dir[at + 1], &m->dir[at], (m->pages - at) * sizeof(*m->dir));
	m->dir[at].first = first;
	m->dir[at].page = p;
	m->pages++;
}

static void dir_remove(struct extmap *m, uint32_t at, uint32_t n)
{
	for (uint32_t i = at; i < at + n; i++) {
		m->memory -= page_size(m->dir[i].page->cap);
		base_free(m->dir[i].page);
	}
	m->pages -= n;
	memmove(&m->dir[at], &m->dir[at + n], (m->pages - at) * sizeof(*m->dir));
}

/* The last page that begins at or before off; the first page when there is none such. */
static uint32_t find_page(const struct extmap *m, uint64_t off)
{
	uint32_t lo = 0;
	uint32_t hi = m->pages;

	while (hi - lo > 1) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (m->dir[mid].first <= off)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* The first extent of the page that ends after off, or the page's count. */
static uint32_t find_slot(const struct extent_page *p, uint64_t off)
{
	uint32_t lo = 0;
	uint32_t hi = p->count;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (extent_end(&p->e[mid]) > off)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/*
 * Where an extent that begins at off is or would be. It is always the page of
 * find_page(off): whatever covers off begins at or before off.
 */
static struct place locate(const struct extmap *m, uint64_t off)
{
	const uint32_t page = find_page(m, off);
	const struct place at = { page, find_slot(m->dir[page].page, off) };

	return at;
}

/* ---- Room for a change ---- */

/*
 * Splits a full page. In the middle, except when off is behind the last
 * extent of all: then the full page stays full, so that appending fills pages.
 */
static int split_page(struct extmap *m, uint32_t page, uint64_t off)
{
	struct extent_page *const p = m->dir[page].page;
	const bool append = page + 1 == m->pages && off >= extent_end(&p->e[p->count - 1]);
	const uint32_t left = append ? p->count - 1 : p->count / 2;
	const uint32_t right = p->count - left;
	struct extent_page *q;
	int err;

	err = dir_reserve(m);
	if (err < 0)
		return err;
	q = page_new(m, cap_for(right + ROOM_MAX));
	if (!q)
		return -ENOMEM;
	memcpy(q->e, &p->e[left], right * sizeof(q->e[0]));
	q->count = right;
	p->count = left;
	dir_insert(m, page + 1, q->e[0].off, q);
	/* Gives memory back if it can; the page is as good when it cannot. */
	(void)page_resize(m, page, cap_for(append ? left : left + ROOM_MAX));
	return 0;
}

/* Sees to it that the page of locate(off) can take `room` more extents. */
static int make_room(struct extmap *m, uint64_t off, uint32_t room)
{
	uint32_t page;
	int err;

	if (m->pages == 0) {
		struct extent_page *p;

		err = dir_reserve(m);
		if (err < 0)
			return err;
		p = page_new(m, cap_for(room));
		if (!p)
			return -ENOMEM;
		dir_insert(m, 0, 0, p);
		return 0;
	}
	page = find_page(m, off);
	if (m->dir[page].page->count + room > PAGE_MAX) {
		err = split_page(m, page, off);
		if (err < 0)
			return err;
		page = find_page(m, off);
	}
	if (m->dir[page].page->count + room <= m->dir[page].page->cap)
		return 0;
	return page_resize(m, page, cap_for(m->dir[page].page->count + room));
}

int extmap_reserve(struct extmap *m, uint64_t off)
{
	return make_room(m, off, ROOM_MAX);
}

/* ---- Changing ---- */

static void lose(struct extmap *m, const struct extent *e, uint64_t len, const struct drop *drop)
{
	m->bytes -= len;
	if (drop->fn)
		drop->fn(drop->ctx, e->ref, (uint32_t)len);
}

static void trim_head(struct extmap *m, struct extent *e, uint64_t off, const struct drop *drop)
{
	const uint32_t len = (uint32_t)(off - e->off);

	lose(m, e, len, drop);
	e->off = off;
	e->len -= len;
	e->skip += len;
}

static void trim_tail(struct extmap *m, struct extent *e, uint64_t off, const struct drop *drop)
{
	const uint32_t len = (uint32_t)(extent_end(e) - off);

	lose(m, e, len, drop);
	e->len -= len;
}

/* The page has room. */
static void insert_extent(struct extmap *m, struct place at, const struct extent *e)
{
	struct extent_page *const p = m->dir[at.page].page;

	emdb_assert(p->count < p->cap);
	memmove(&p->e[at.slot + 1], &p->e[at.slot], (p->count - at.slot) * sizeof(*e));
	p->e[at.slot] = *e;
	p->count++;
	m->count++;
}

/*
 * Removes the page's extents from slot on that end by `end` and trims the next
 * one. True if that emptied the rest of the page, so the next page is due.
 */
static bool remove_in_page(struct extmap *m, struct extent_page *p, uint32_t slot, uint64_t end,
			   const struct drop *drop)
{
	uint32_t next = slot;

	for (; next < p->count && extent_end(&p->e[next]) <= end; next++)
		lose(m, &p->e[next], p->e[next].len, drop);
	memmove(&p->e[slot], &p->e[next], (p->count - next) * sizeof(p->e[0]));
	p->count -= next - slot;
	m->count -= next - slot;
	if (slot == p->count)
		return true;
	if (p->e[slot].off < end)
		trim_head(m, &p->e[slot], end, drop);
	return false;
}

/*
 * Unmaps [off, end) and returns where an extent at off would go. The page there
 * may be left empty or with a stale directory entry; settle() puts that right.
 * Needs room for one extent if an extent begins before off and ends after end.
 */
static struct place cut(struct extmap *m, uint64_t off, uint64_t end, const struct drop *drop)
{
	struct place at = locate(m, off);
	struct extent_page *const p = m->dir[at.page].page;
	struct extent *const e = &p->e[at.slot];
	uint32_t page = at.page;

	if (at.slot < p->count && e->off < off) {
		if (extent_end(e) > end) {
			const struct extent tail = { .off = end,
						     .ref = e->ref,
						     .len = (uint32_t)(extent_end(e) - end),
						     .skip = e->skip + (uint32_t)(end - e->off) };

			lose(m, e, end - off, drop);
			e->len = (uint32_t)(off - e->off);
			at.slot++;
			insert_extent(m, at, &tail);
			return at;
		}
		trim_tail(m, e, off, drop);
		at.slot++;
	}
	if (!remove_in_page(m, p, at.slot, end, drop))
		return at;
	while (++page < m->pages && m->dir[page].first < end) {
		struct extent_page *const q = m->dir[page].page;

		if (!remove_in_page(m, q, 0, end, drop)) {
			m->dir[page].first = q->e[0].off;
			break;
		}
	}
	dir_remove(m, at.page + 1, page - at.page - 1);
	return at;
}

/* Appends the next page to this one if both are small. Leaves both alone if memory is short. */
static bool merge_pages(struct extmap *m, uint32_t page)
{
	struct extent_page *p = m->dir[page].page;
	const struct extent_page *const q = m->dir[page + 1].page;
	const uint32_t count = p->count + q->count;

	if (count > PAGE_MAX / 2)
		return false;
	if (count > p->cap && page_resize(m, page, cap_for(count + ROOM_MAX)) < 0)
		return false;
	p = m->dir[page].page;
	memcpy(&p->e[p->count], q->e, q->count * sizeof(q->e[0]));
	p->count = count;
	dir_remove(m, page + 1, 1);
	return true;
}

/* Gives back the memory of a directory that has become much too large. */
static void shrink_dir(struct extmap *m)
{
	struct extent_slot *dir = NULL;
	uint32_t cap = 0;

	if (m->pages > m->dir_cap / 4 || (m->pages > 0 && m->dir_cap <= PAGE_STEP))
		return;
	if (m->pages > 0) {
		cap = m->dir_cap / 2;
		dir = base_realloc(m->dir, cap * sizeof(*dir));
		if (!dir)
			return;
	} else {
		base_free(m->dir);
	}
	m->memory -= (m->dir_cap - cap) * sizeof(*dir);
	m->dir = dir;
	m->dir_cap = cap;
}

/* Restores the invariants of a page that changed and keeps pages from staying small. */
static void settle(struct extmap *m, uint32_t page)
{
	const struct extent_page *p = m->dir[page].page;

	if (p->count == 0) {
		dir_remove(m, page, 1);
		shrink_dir(m);
		return;
	}
	m->dir[page].first = p->e[0].off;
	if (p->count <= PAGE_MAX / 2) {
		if (page + 1 < m->pages)
			(void)merge_pages(m, page);
		if (page > 0 && merge_pages(m, page - 1))
			page--;
	}
	shrink_dir(m);
	p = m->dir[page].page;
	if (p->cap > PAGE_STEP && p->count + ROOM_MAX <= p->cap / 2)
		(void)page_resize(m, page, cap_for(p->count + ROOM_MAX));
}

static bool extent_valid(const struct extent *e)
{
	return e->len > 0 && e->len <= EXTENT_LEN_MAX && e->skip <= UINT32_MAX - e->len &&
	       e->off <= EXTENT_END_MAX - e->len;
}

int extmap_write(struct extmap *m, uint64_t off, uint32_t len, uint64_t ref, uint32_t skip,
		 extent_drop_fn drop, void *ctx)
{
	const struct extent e = { .off = off, .ref = ref, .len = len, .skip = skip };
	const struct drop d = { drop, ctx };
	struct place at;
	int err;

	if (!extent_valid(&e))
		return -EINVAL;
	err = make_room(m, off, ROOM_MAX);
	if (err < 0)
		return err;
	at = cut(m, off, off + len, &d);
	insert_extent(m, at, &e);
	m->bytes += len;
	settle(m, at.page);
	return 0;
}

int extmap_punch(struct extmap *m, uint64_t off, uint64_t len, extent_drop_fn drop, void *ctx)
{
	const uint64_t end = range_end(off, len);
	const struct drop d = { drop, ctx };
	struct extent e;
	int err;

	if (len == 0 || !extmap_find(m, off, &e) || e.off >= end)
		return 0;
	if (e.off < off && extent_end(&e) > end) {
		err = make_room(m, off, 1);
		if (err < 0)
			return err;
	}
	settle(m, cut(m, off, end, &d).page);
	return 0;
}

void extmap_truncate(struct extmap *m, uint64_t size, extent_drop_fn drop, void *ctx)
{
	const struct drop d = { drop, ctx };

	if (m->pages > 0)
		settle(m, cut(m, size, UINT64_MAX, &d).page);
}

void extmap_init(struct extmap *m)
{
	memset(m, 0, sizeof(*m));
}

void extmap_release(struct extmap *m)
{
	for (uint32_t i = 0; i < m->pages; i++)
		base_free(m->dir[i].page);
	base_free(m->dir);
	extmap_init(m);
}

/* ---- Looking ---- */

void extmap_seek(const struct extmap *m, uint64_t off, struct extent_cursor *ret)
{
	const struct place at = m->pages ? locate(m, off) : (struct place){ 0, 0 };

	ret->page = at.page;
	ret->slot = at.slot;
}

bool extmap_next(const struct extmap *m, struct extent_cursor *cur, struct extent *ret)
{
	while (cur->page < m->pages && cur->slot == m->dir[cur->page].page->count) {
		cur->page++;
		cur->slot = 0;
	}
	if (cur->page == m->pages)
		return false;
	*ret = m->dir[cur->page].page->e[cur->slot++];
	return true;
}

bool extmap_find(const struct extmap *m, uint64_t off, struct extent *ret)
{
	struct extent_cursor cur;

	extmap_seek(m, off, &cur);
	return extmap_next(m, &cur, ret);
}

int64_t extmap_seek_data(const struct extmap *m, uint64_t off, uint64_t size)
{
	struct extent e;

	if (off >= size || !extmap_find(m, off, &e) || e.off >= size)
		return -ENXIO;
	return (int64_t)max_u64(off, e.off);
}

int64_t extmap_seek_hole(const struct extmap *m, uint64_t off, uint64_t size)
{
	struct extent_cursor cur;
	struct extent e;

	if (off >= size)
		return -ENXIO;
	extmap_seek(m, off, &cur);
	while (off < size && extmap_next(m, &cur, &e) && e.off <= off)
		off = extent_end(&e);
	return (int64_t)min_u64(off, size);
}

/* ---- Checking ---- */

bool extmap_check(const struct extmap *m)
{
	size_t memory = m->dir_cap * sizeof(*m->dir);
	uint64_t bytes = 0;
	uint64_t end = 0;
	size_t count = 0;

	if (m->pages > m->dir_cap)
		return false;
	for (uint32_t i = 0; i < m->pages; i++) {
		const struct extent_page *const p = m->dir[i].page;

		memory += page_size(p->cap);
		count += p->count;
		if (p->count > p->cap || p->cap > PAGE_MAX)
			return false;
		if (p->count == 0 ? m->pages > 1 : m->dir[i].first != p->e[0].off)
			return false;
		for (uint32_t j = 0; j < p->count; j++) {
			if (!extent_valid(&p->e[j]) || p->e[j].off < end)
				return false;
			end = extent_end(&p->e[j]);
			bytes += p->e[j].len;
		}
	}
	return memory == m->memory && count == m->count && bytes == m->bytes;
}
