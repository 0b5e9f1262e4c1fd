/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replacing a page (growing, splitting, merging). A reader that holds the old page reads what it
 * held when it was replaced: nobody writes it again. That moment lies after the reader took its
 * pin, so the answer was true during the call. The same goes for an old directory, whose pointers
 * stay: a page found there was in place when the directory was replaced, or later.
 */
#include "core/index_hash_i.h"

#include <sched.h>
#include <time.h>

#define MERGE_MAX      80 /* two pages become one when it would hold no more than this */
#define FILL_DOUBLE    8  /* entries per pointer that the directory must keep after doubling */
#define FILL_HALVE     32 /* fewer per pointer, and no page that needs it: halve */
#define FILL_COLLAPSE  4  /* fewer per pointer: merge what stands in the way of halving */
#define READ_TRIES     64 /* attempts of a reader before it takes the lock */
#define LOCK_SPINS     100
#define LOCK_YIELDS    20
#define LOCK_SLEEP_NS  50000
#define PREFETCH_LINES 2 /* on both sides of the place where a hash should be */

static_assert(offsetof(struct hidx_page, node) == 0 && offsetof(struct hidx_dir, node) == 0,
	      "free_retired takes both");
static_assert(MERGE_MAX < HIDX_PAGE_FULL * 3 / 4, "a merged page is not about to split again");
static_assert(2 * FILL_COLLAPSE <= FILL_DOUBLE, "a halved directory is not about to double again");

void hidx_init(struct hidx *h, struct epoch *ep)
{
	*h = (struct hidx){ .epoch = ep };
}

uint64_t hidx_count(const struct hidx *h)
{
	return atomic_load_explicit(&h->count, memory_order_relaxed);
}

size_t hidx_memory(const struct hidx *h)
{
	return sizeof(*h) + atomic_load_explicit(&h->bytes, memory_order_relaxed);
}

/* ---- Lock ---- */

/* Held for some 100 ns; longer only when its holder lost the processor, and then it needs ours. */
void hidx_lock_wait(struct hidx_lock *l)
{
	const struct timespec ts = { .tv_sec = 0, .tv_nsec = LOCK_SLEEP_NS };
	unsigned tries = 0;

	do {
		while (atomic_load_explicit(&l->word, memory_order_relaxed)) {
			if (++tries < LOCK_SPINS)
				spin_pause();
			else if (tries < LOCK_SPINS + LOCK_YIELDS)
				(void)sched_yield();
			else
				(void)nanosleep(&ts, NULL);
		}
	} while (atomic_exchange_explicit(&l->word, 1, memory_order_acquire));
}

/* ---- Reading ---- */

/*
 * hidx_page_of for a page that is probably in no cache: fetches its head together with the place
 * where the hash lies if all pages are equally full, instead of one after the other.
 */
static inline struct hidx_page *page_of_cold(const struct hidx *h, uint64_t hash)
{
	struct hidx_page *const p = hidx_page_of(h, hash);
	const unsigned depth = hidx_dir_depth(h);
	const uint64_t fill = min_u64(hidx_count(h) >> depth, HIDX_PAGE_FULL);
	const uint64_t i = (hash << depth >> 32) * fill >> 32;
	const uintptr_t place = (uintptr_t)p + page_size(i);

	__builtin_prefetch(p);
	for (int line = -PREFETCH_LINES; line <= PREFETCH_LINES; line++)
		__builtin_prefetch((const void *)(place + (uintptr_t)line * EPOCH_CACHE_LINE));
	return p;
}

/* For a reader whom writers of the page leave no chance. */
static EMDB_NOINLINE size_t find_under_lock(const struct hidx *h, uint64_t hash, uint64_t *out,
					    size_t max)
{
	const struct hidx_page *p;
	size_t n;

	hidx_lock(hidx_lock_of(h));
	p = hidx_page_of(h, hash);
	n = p ? page_find(p, hash, out, max) : 0;
	hidx_unlock(hidx_lock_of(h));
	return n;
}

size_t hidx_find_pinned(const struct hidx *h, uint64_t hash, uint64_t *out, size_t max)
{
	for (int try = 0; try < READ_TRIES; try++) {
		const struct hidx_page *const p = page_of_cold(h, hash);
		uint32_t seq;
		size_t n;

		if (!p)
			return 0;
		if (unlikely(!page_read_begin(p, &seq))) {
			spin_pause();
			continue;
		}
		n = page_find(p, hash, out, max);
		if (likely(page_read_valid(p, seq)))
			return n;
	}
	return find_under_lock(h, hash, out, max);
}

void hidx_prefetch_pinned(const struct hidx *h, uint64_t hash)
{
	(void)page_of_cold(h, hash);
}

/* Step of a walk under the lock; p is NULL when the index is empty. */
static size_t walk_page(const struct hidx_page *p, uint64_t from, uint32_t tie_from,
			struct hidx_slot *out, size_t max, uint64_t *ret_last)
{
	*ret_last = p ? from | range_mask(p->depth) : UINT64_MAX;
	return p ? page_walk(p, from, tie_from, out, max) : 0;
}

/* One page's part of a walk; *ret_last is the last hash that the page could hold. */
static size_t walk_step(const struct hidx *h, uint64_t from, uint32_t tie_from,
			struct hidx_slot *out, size_t max, uint64_t *ret_last)
{
	size_t n;

	for (int try = 0; try < READ_TRIES; try++) {
		const struct hidx_page *const p = hidx_page_of(h, from);
		uint32_t seq;

		if (p && !page_read_begin(p, &seq)) {
			spin_pause();
			continue;
		}
		n = walk_page(p, from, tie_from, out, max, ret_last);
		if (!p || page_read_valid(p, seq))
			return n;
	}
	hidx_lock(hidx_lock_of(h));
	n = walk_page(hidx_page_of(h, from), from, tie_from, out, max, ret_last);
	hidx_unlock(hidx_lock_of(h));
	return n;
}

size_t hidx_walk_pinned(const struct hidx *h, uint64_t hash_from, uint32_t tie_from,
			struct hidx_slot *out, size_t max)
{
	uint64_t last = 0;
	size_t n = 0;

	while (n < max) {
		n += walk_step(h, hash_from, tie_from, out + n, max - n, &last);
		if (last == UINT64_MAX)
			break;
		hash_from = last + 1;
		tie_from = 0;
	}
	return n;
}

/* ---- Memory; from here on all is for writers ---- */

struct hidx_page *hidx_page_new(struct hidx *h, uint32_t depth, uint64_t cap)
{
	struct hidx_page *const p = cap <= UINT32_MAX ? base_malloc(page_size(cap)) : NULL;

	if (!p)
		return NULL;
	atomic_init(&p->seq, 0);
	atomic_init(&p->count, 0);
	p->cap = (uint32_t)cap;
	p->depth = depth;
	hidx_add_relaxed(&h->bytes, hidx_malloc_size(page_size(cap)));
	return p;
}

struct hidx_page *hidx_page_copy(struct hidx *h, const struct hidx_page *from, uint32_t i,
				 uint32_t n, uint32_t depth)
{
	struct hidx_page *const p = hidx_page_new(h, depth, page_cap_more(n));

	if (!p)
		return NULL;
	cells_copy(p, 0, from, i, n);
	page_count_set(p, n);
	return p;
}

struct hidx_dir *hidx_dir_new(struct hidx *h, uint32_t depth)
{
	struct hidx_dir *const d =
		depth <= HIDX_DEPTH_MAX ? base_calloc(1, hidx_dir_size(depth)) : NULL;

	if (!d)
		return NULL;
	d->depth = depth;
	hidx_add_relaxed(&h->bytes, hidx_malloc_size(hidx_dir_size(depth)));
	return d;
}

void hidx_page_free(struct hidx *h, struct hidx_page *p)
{
	if (!p)
		return;
	hidx_add_relaxed(&h->bytes, -hidx_malloc_size(page_size(p->cap)));
	base_free(p);
}

static void kill_node(struct hidx_dead *dead, struct epoch_node *node)
{
	node->next = dead->head;
	dead->head = node;
}

static void page_kill(struct hidx *h, struct hidx_page *p, struct hidx_dead *dead)
{
	hidx_add_relaxed(&h->bytes, -hidx_malloc_size(page_size(p->cap)));
	kill_node(dead, &p->node);
}

static void dir_kill(struct hidx *h, struct hidx_dir *d, struct hidx_dead *dead)
{
	hidx_add_relaxed(&h->bytes, -hidx_malloc_size(hidx_dir_size(d->depth)));
	kill_node(dead, &d->node);
}

static void free_retired(struct epoch_node *node)
{
	base_free(node);
}

static void retire_dead(struct epoch *ep, struct hidx_dead *dead)
{
	while (dead->head) {
		struct epoch_node *const node = dead->head;

		dead->head = node->next;
		epoch_retire(ep, node, free_retired);
	}
}

void hidx_dead_free(struct hidx_dead *dead)
{
	while (dead->head) {
		struct epoch_node *const node = dead->head;

		dead->head = node->next;
		base_free(node);
	}
}

/* ---- Directory ---- */

/* Counts pages by depth, if there is a directory to count them in. */
static void count_pages(struct hidx *h, uint32_t depth, int n)
{
	struct hidx_dir *const d = hidx_dir_of(h);

	if (d)
		d->pages[depth] += (uint32_t)n;
}

/* Makes every pointer of the page's range name it. A range of everything needs no directory. */
static void publish(struct hidx *h, uint64_t hash, struct hidx_page *p, struct hidx_dead *dead)
{
	struct hidx_dir *const d = hidx_dir_of(h);
	uint64_t first;

	if (!d || p->depth == 0) {
		emdb_dassert(p->depth == 0);
		hidx_root_set(h, (uintptr_t)p);
		if (d)
			dir_kill(h, d, dead);
		return;
	}
	first = top_bits(range_start(hash, p->depth), d->depth);
	for (uint64_t i = 0; i < hidx_dir_span(d, p->depth); i++)
		hidx_dir_set(d, first + i, p);
}

/* One more bit, and the first directory when there is none. */
static bool dir_double(struct hidx *h, struct hidx_dead *dead)
{
	const uintptr_t root = atomic_load_explicit(&h->root, memory_order_relaxed);
	struct hidx_dir *const old = hidx_root_dir(root);
	struct hidx_dir *const d = hidx_dir_new(h, old ? old->depth + 1 : 1);

	if (!d)
		return false;
	if (old) {
		memcpy(d->pages, old->pages, sizeof(d->pages));
		for (uint64_t i = 0; i < hidx_dir_span(d, 0); i++)
			hidx_dir_set(d, i, hidx_dir_page(old, i / 2));
		dir_kill(h, old, dead);
	} else {
		d->pages[0] = 1;
		hidx_dir_set(d, 0, (struct hidx_page *)root);
		hidx_dir_set(d, 1, (struct hidx_page *)root);
	}
	hidx_root_set_dir(h, d);
	return true;
}

/* One bit less; no page may need it. */
static bool dir_halve(struct hidx *h, struct hidx_dir *old, struct hidx_dead *dead)
{
	struct hidx_dir *const d = hidx_dir_new(h, old->depth - 1);

	if (!d)
		return false;
	memcpy(d->pages, old->pages, sizeof(d->pages));
	for (uint64_t i = 0; i < hidx_dir_span(d, 0); i++)
		hidx_dir_set(d, i, hidx_dir_page(old, i * 2));
	hidx_root_set_dir(h, d);
	dir_kill(h, old, dead);
	return true;
}

/* ---- Growing ---- */

bool hidx_split_pays(const struct hidx *h, uint64_t lo, uint64_t hi)
{
	const unsigned need = lo == hi ? 65 : (unsigned)__builtin_clzll(lo ^ hi) + 1;

	if (need <= hidx_dir_depth(h))
		return true;
	return need <= HIDX_DEPTH_MAX && hidx_count(h) >> need >= FILL_DOUBLE;
}

int hidx_page_split(struct hidx *h, struct hidx_page *p, uint64_t hash, struct hidx_dead *dead)
{
	const uint32_t depth = p->depth + 1;
	const uint32_t n = page_count(p);
	const uint64_t middle = range_start(hash, p->depth) | (uint64_t)1 << (64 - depth);
	const uint32_t cut = page_lower_bound(p, n, middle);
	struct hidx_page *const left = hidx_page_copy(h, p, 0, cut, depth);
	struct hidx_page *const right = hidx_page_copy(h, p, cut, n - cut, depth);

	if (!left || !right || (depth > hidx_dir_depth(h) && !dir_double(h, dead))) {
		hidx_page_free(h, left);
		hidx_page_free(h, right);
		return -ENOMEM;
	}
	count_pages(h, depth - 1, -1);
	count_pages(h, depth, 2);
	publish(h, middle - 1, left, dead);
	publish(h, middle, right, dead);
	page_kill(h, p, dead);
	return 0;
}

/* Replaces p by a larger page that holds the new pair as well. */
static int page_grow(struct hidx *h, struct hidx_page *p, uint32_t at, uint64_t hash,
		     uint64_t value, struct hidx_dead *dead)
{
	const uint32_t n = page_count(p);
	struct hidx_page *const q = hidx_page_new(h, p->depth, page_cap((uint64_t)n + 1));

	if (!q)
		return -ENOMEM;
	cells_copy(q, 0, p, 0, at);
	cell_set(q, at, hash, value);
	cells_copy(q, at + 1, p, at, n - at);
	page_count_set(q, n + 1);
	publish(h, hash, q, dead);
	page_kill(h, p, dead);
	return 0;
}

static int insert_first(struct hidx *h, uint64_t hash, uint64_t value)
{
	struct hidx_page *const p = hidx_page_new(h, 0, PAGE_CAP_MIN);

	if (!p)
		return -ENOMEM;
	cell_set(p, 0, hash, value);
	page_count_set(p, 1);
	hidx_root_set(h, (uintptr_t)p);
	return 0;
}

/* Full, and its hashes, the new one included, can be told apart. */
static bool should_split(const struct hidx *h, const struct hidx_page *p, uint64_t hash)
{
	const uint32_t n = page_count(p);

	if (n < p->cap || n < HIDX_PAGE_FULL)
		return false;
	return hidx_split_pays(h, min_u64(hash, cell_hash(p, 0)),
			       max_u64(hash, cell_hash(p, n - 1)));
}

static int insert_locked(struct hidx *h, uint64_t hash, uint64_t value, struct hidx_dead *dead)
	EMDB_REQUIRES(h->lock)
{
	struct hidx_page *p = page_of_cold(h, hash);
	uint32_t n;
	uint32_t at;

	if (!p)
		return insert_first(h, hash, value);
	while (should_split(h, p, hash)) { /* again when one half got everything */
		const int err = hidx_page_split(h, p, hash, dead);

		if (err)
			return err;
		p = hidx_page_of(h, hash);
	}
	n = page_count(p);
	at = page_equal_end(p, page_lower_bound(p, n, hash), n, hash);
	if (n == p->cap)
		return page_grow(h, p, at, hash, value, dead);
	page_put(p, at, hash, value);
	return 0;
}

int hidx_insert(struct hidx *h, uint64_t hash, uint64_t value)
{
	struct hidx_dead dead = { NULL };
	int err;

	hidx_lock(&h->lock);
	err = insert_locked(h, hash, value, &dead);
	if (!err)
		hidx_add_relaxed(&h->count, 1);
	hidx_unlock(&h->lock);
	retire_dead(h->epoch, &dead);
	return err;
}

static int replace_locked(struct hidx *h, uint64_t hash, uint64_t old_value, uint64_t value)
	EMDB_REQUIRES(h->lock)
{
	struct hidx_page *const p = page_of_cold(h, hash);
	const uint32_t n = p ? page_count(p) : 0;
	const uint32_t i = p ? page_find_pair(p, n, hash, old_value) : 0;

	if (i == n)
		return -ENOENT;
	/* Release: pairs with the acquire in cell_value. */
	atomic_store_explicit(&p->cells[i].value, value, memory_order_release);
	return 0;
}

int hidx_replace(struct hidx *h, uint64_t hash, uint64_t old_value, uint64_t value)
{
	int err;

	hidx_lock(&h->lock);
	err = replace_locked(h, hash, old_value, value);
	hidx_unlock(&h->lock);
	return err;
}

/* ---- Shrinking: what lacks memory here is left for the next time ---- */

static void drop_all(struct hidx *h, struct hidx_dead *dead)
{
	struct hidx_dir *const d = hidx_dir_of(h);
	struct hidx_page *p = hidx_page_of(h, 0);

	hidx_root_set(h, 0);
	if (!d) {
		page_kill(h, p, dead);
		return;
	}
	for (uint64_t i = 0; i < hidx_dir_span(d, 0);) {
		p = hidx_dir_page(d, i);
		i += hidx_dir_span(d, p->depth);
		page_kill(h, p, dead);
	}
	dir_kill(h, d, dead);
}

/* Three tenths are unused, and a smaller capacity would do. */
static bool is_loose(const struct hidx_page *p)
{
	const uint64_t n = page_count(p);

	if (n == 0)
		return true;
	return n * 10 < (uint64_t)p->cap * 7 && page_cap_more(n) < p->cap;
}

/*
 * Merges p, the page of this hash, with its sibling, if that has not been split further and both
 * together hold at most max. The new page, or NULL when nothing was done.
 */
static struct hidx_page *page_merge(struct hidx *h, struct hidx_page *p, uint64_t hash,
				    uint64_t max, struct hidx_dead *dead)
{
	const uint64_t bit = p->depth ? (uint64_t)1 << (64 - p->depth) : 0;
	struct hidx_page *const sibling = hidx_page_of(h, hash ^ bit);
	struct hidx_page *const left = hash & bit ? sibling : p;
	struct hidx_page *const right = hash & bit ? p : sibling;
	const uint32_t n = page_count(left);
	const uint32_t m = page_count(right);
	struct hidx_page *q;

	if (p->depth == 0 || sibling->depth != p->depth || (uint64_t)n + m > max)
		return NULL;
	q = hidx_page_new(h, p->depth - 1, page_cap_more((uint64_t)n + m));
	if (!q)
		return NULL;
	cells_copy(q, 0, left, 0, n);
	cells_copy(q, n, right, 0, m);
	page_count_set(q, n + m);
	count_pages(h, p->depth, -2);
	count_pages(h, q->depth, 1);
	publish(h, hash, q, dead);
	page_kill(h, left, dead);
	page_kill(h, right, dead);
	return q;
}

static void page_shrink(struct hidx *h, struct hidx_page *p, uint64_t hash, struct hidx_dead *dead)
{
	const uint32_t n = page_count(p);
	struct hidx_page *const q =
		page_cap_more(n) < p->cap ? hidx_page_copy(h, p, 0, n, p->depth) : NULL;

	if (!q)
		return;
	publish(h, hash, q, dead);
	page_kill(h, p, dead);
}

/* Merges every pair of pages that needs all bits of the directory, whatever they hold. */
static bool dir_collapse(struct hidx *h, struct hidx_dir *d, struct hidx_dead *dead)
{
	for (uint64_t i = 0; i < hidx_dir_span(d, 0);) {
		struct hidx_page *const p = hidx_dir_page(d, i);
		const bool deep = p->depth == d->depth;

		if (deep && !page_merge(h, p, i << (64 - d->depth), UINT32_MAX, dead))
			return false;
		i += deep ? 2 : hidx_dir_span(d, p->depth);
	}
	return true;
}

static void dir_trim(struct hidx *h, struct hidx_dead *dead)
{
	struct hidx_dir *d;

	while ((d = hidx_dir_of(h)) != NULL) {
		const uint64_t fill = hidx_count(h) >> d->depth;

		if (fill >= FILL_HALVE)
			return;
		if (d->pages[d->depth] == 0) {
			if (!dir_halve(h, d, dead))
				return;
		} else if (fill >= FILL_COLLAPSE || !dir_collapse(h, d, dead)) {
			return;
		}
	}
}

/* After a removal from p. Proportion is kept by looking only when a page has become loose. */
static void tidy(struct hidx *h, struct hidx_page *p, uint64_t hash, struct hidx_dead *dead)
{
	struct hidx_page *merged;

	if (hidx_count(h) == 0) {
		drop_all(h, dead);
		return;
	}
	if (!is_loose(p))
		return;
	merged = page_merge(h, p, hash, MERGE_MAX, dead);
	if (!merged)
		page_shrink(h, p, hash, dead);
	while (merged)
		merged = page_merge(h, merged, hash, MERGE_MAX, dead);
	dir_trim(h, dead);
}

static int remove_locked(struct hidx *h, uint64_t hash, uint64_t value, struct hidx_dead *dead)
	EMDB_REQUIRES(h->lock)
{
	struct hidx_page *const p = page_of_cold(h, hash);
	const uint32_t n = p ? page_count(p) : 0;
	const uint32_t i = p ? page_find_pair(p, n, hash, value) : 0;

	if (i == n)
		return -ENOENT;
	page_cut(p, i);
	hidx_add_relaxed(&h->count, UINT64_MAX); /* one less */
	tidy(h, p, hash, dead);
	return 0;
}

int hidx_remove(struct hidx *h, uint64_t hash, uint64_t value)
{
	struct hidx_dead dead = { NULL };
	int err;

	hidx_lock(&h->lock);
	err = remove_locked(h, hash, value, &dead);
	hidx_unlock(&h->lock);
	retire_dead(h->epoch, &dead);
	return err;
}

void hidx_release(struct hidx *h)
{
	struct hidx_dead dead = { NULL };

	if (!h)
		return;
	if (atomic_load_explicit(&h->root, memory_order_acquire))
		drop_all(h, &dead);
	hidx_dead_free(&dead);
	atomic_store_explicit(&h->count, 0, memory_order_relaxed);
}
