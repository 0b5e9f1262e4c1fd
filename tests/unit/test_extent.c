/* SPDX-License-Identifier: Apache-2.0 */
#include "core/extent.h"
#include "tests/unit/test.h"

#include <malloc.h>
#include <time.h>

#define SPACE 3000u /* bytes of the model file */
#define REFS  4096u /* different records in a model run */

/* Sanitizers slow the big map down and change what the heap counts. */
#ifdef EMDB_DEBUG
#define MANY 100000u
#else
#define MANY 1000000u
#endif

/* ---- An allocator that fails at will ---- */

static long fail_after = -1; /* allocations that still succeed; -1: all */
static long allocations;

static bool fails(void)
{
	allocations++;
	return fail_after >= 0 && fail_after-- <= 0;
}

static void *fail_malloc(size_t n)
{
	return fails() ? NULL : malloc(n);
}

static void *fail_calloc(size_t count, size_t n)
{
	return fails() ? NULL : calloc(count, n);
}

static void *fail_realloc(void *p, size_t n)
{
	return fails() ? NULL : realloc(p, n);
}

static const struct base_allocator failing = { fail_malloc, fail_calloc, fail_realloc, free };

/* ---- The model: what every byte of the file is mapped to ---- */

struct cell {
	uint32_t ref; /* 0: hole */
	uint32_t skip;
};

struct model {
	struct cell cells[SPACE];
	uint64_t live[REFS]; /* bytes of each record that are mapped */
};

struct pair {
	struct extmap map;
	struct model model;
	uint64_t live[REFS]; /* the same, kept by the drop callbacks */
};

static void on_drop(void *ctx, uint64_t ref, uint32_t len)
{
	struct pair *const p = ctx;

	CHECK(ref > 0 && ref < REFS && len > 0 && p->live[ref] >= len);
	p->live[ref] -= len;
}

static void model_clear(struct model *m, uint64_t off, uint64_t len)
{
	for (uint64_t i = off; i < off + len && i < SPACE; i++) {
		if (m->cells[i].ref)
			m->live[m->cells[i].ref]--;
		m->cells[i] = (struct cell){ 0, 0 };
	}
}

static void model_write(struct model *m, uint64_t off, uint32_t len, uint32_t ref, uint32_t skip)
{
	model_clear(m, off, len);
	for (uint32_t i = 0; i < len; i++)
		m->cells[off + i] = (struct cell){ ref, skip + i };
	m->live[ref] += len;
}

static void compare(const struct pair *p)
{
	struct extent_cursor cur;
	struct extent e;
	uint64_t at = 0;
	size_t count = 0;

	CHECK(extmap_check(&p->map));
	extmap_seek(&p->map, 0, &cur);
	while (extmap_next(&p->map, &cur, &e)) {
		for (; at < e.off; at++)
			CHECK_UEQ(p->model.cells[at].ref, 0);
		for (uint32_t i = 0; i < e.len; i++, at++) {
			CHECK_UEQ(p->model.cells[at].ref, e.ref);
			CHECK_UEQ(p->model.cells[at].skip, e.skip + i);
		}
		count++;
	}
	for (; at < SPACE; at++)
		CHECK_UEQ(p->model.cells[at].ref, 0);
	CHECK_UEQ(count, extmap_count(&p->map));
	CHECK_MEM(p->live, sizeof(p->live), p->model.live, sizeof(p->model.live));
}

static void compare_queries(const struct pair *p, uint64_t off, uint64_t size)
{
	const struct cell *const c = p->model.cells;
	uint64_t data = off;
	uint64_t hole = off;
	struct extent e;
	uint64_t first = off;

	while (data < size && !c[data].ref)
		data++;
	while (hole < size && c[hole].ref)
		hole++;
	CHECK_EQ(extmap_seek_data(&p->map, off, size), data < size ? (int64_t)data : -ENXIO);
	CHECK_EQ(extmap_seek_hole(&p->map, off, size), off < size ? (int64_t)hole : -ENXIO);
	while (first < SPACE && !c[first].ref)
		first++;
	CHECK_EQ(extmap_find(&p->map, off, &e), first < SPACE);
	if (first < SPACE) {
		CHECK(e.off <= first && first < e.off + e.len);
		CHECK(e.off == first || first == off);
	}
}

static void random_write(struct pair *p, uint64_t *seed, uint32_t ref)
{
	const uint64_t off = test_rand(seed) % SPACE;
	const uint64_t most = min_u64(SPACE - off, test_rand(seed) % 50 ? 20 : SPACE);
	const uint32_t len = (uint32_t)(test_rand(seed) % most + 1);
	const uint32_t skip = (uint32_t)(test_rand(seed) % 1000);

	/* Accounting in the caller's order: the new record first, then what it displaces. */
	p->live[ref] += len;
	CHECK_OK(extmap_write(&p->map, off, len, ref, skip, on_drop, p));
	model_write(&p->model, off, len, ref, skip);
}

static void random_step(struct pair *p, uint64_t *seed, uint32_t ref)
{
	const uint64_t what = test_rand(seed) % 1000;
	const uint64_t off = test_rand(seed) % SPACE;

	if (what < 3) {
		extmap_truncate(&p->map, off, on_drop, p);
		model_clear(&p->model, off, SPACE);
	} else if (what < 100) {
		const uint64_t len = test_rand(seed) % (what < 10 ? SPACE : 10);

		CHECK_OK(extmap_punch(&p->map, off, len, on_drop, p));
		model_clear(&p->model, off, len);
	} else {
		random_write(p, seed, ref);
	}
	compare_queries(p, test_rand(seed) % SPACE, test_rand(seed) % (SPACE + 1));
}

TEST(test_extent__random_against_byte_model)
{
	uint64_t seed = test_seed();
	struct pair *const p = calloc(1, sizeof(*p));

	CHECK(p);
	for (int run = 0; run < 10; run++) {
		memset(p, 0, sizeof(*p));
		extmap_init(&p->map);
		for (uint32_t step = 1; step < REFS; step++) {
			random_step(p, &seed, step);
			if (step % 16 == 0)
				compare(p);
		}
		extmap_truncate(&p->map, 0, on_drop, p);
		model_clear(&p->model, 0, SPACE);
		compare(p);
		CHECK_UEQ(extmap_memory(&p->map), 0);
		extmap_release(&p->map);
	}
	free(p);
}

/* Every extent a byte long: many pages, so page splits, merges and wide cuts happen often. */
TEST(test_extent__single_bytes_in_many_pages)
{
	uint64_t seed = test_seed();
	struct pair *const p = calloc(1, sizeof(*p));

	CHECK(p);
	extmap_init(&p->map);
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < 2000; i++) {
			const uint64_t off = test_rand(&seed) % SPACE;

			p->live[1 + i]++;
			CHECK_OK(extmap_write(&p->map, off, 1, 1 + i, 5, on_drop, p));
			model_write(&p->model, off, 1, 1 + i, 5);
		}
		compare(p);
		for (int i = 0; i < 6; i++) {
			const uint64_t off = test_rand(&seed) % SPACE;
			const uint64_t len = test_rand(&seed) % 600;

			CHECK_OK(extmap_punch(&p->map, off, len, on_drop, p));
			model_clear(&p->model, off, len);
			compare(p);
		}
	}
	extmap_release(&p->map);
	free(p);
}

TEST(test_extent__write_inside_one_extent_splits_it)
{
	struct pair *const p = calloc(1, sizeof(*p));
	struct extent e;

	CHECK(p);
	extmap_init(&p->map);
	p->live[1] = 100;
	CHECK_OK(extmap_write(&p->map, 1000, 100, 1, 40, on_drop, p));
	p->live[2] = 10;
	CHECK_OK(extmap_write(&p->map, 1020, 10, 2, 0, on_drop, p));
	CHECK_UEQ(extmap_count(&p->map), 3);
	CHECK_UEQ(p->live[1], 90);
	CHECK_UEQ(extmap_bytes(&p->map), 100);
	CHECK(extmap_find(&p->map, 1030, &e));
	CHECK_UEQ(e.off, 1030);
	CHECK_UEQ(e.len, 70);
	CHECK_UEQ(e.skip, 70);
	CHECK_UEQ(e.ref, 1);
	CHECK(extmap_check(&p->map));
	extmap_release(&p->map);
	free(p);
}

TEST(test_extent__bounds)
{
	struct extmap m;
	struct extent e;

	extmap_init(&m);
	CHECK_EQ(extmap_write(&m, 0, 0, 1, 0, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_write(&m, 0, EXTENT_LEN_MAX + 1, 1, 0, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_write(&m, 0, 2, 1, UINT32_MAX - 1, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_write(&m, EXTENT_END_MAX, 1, 1, 0, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_write(&m, UINT64_MAX, 1, 1, 0, NULL, NULL), -EINVAL);
	CHECK(!extmap_find(&m, 0, &e));
	CHECK_EQ(extmap_seek_data(&m, 0, 10), -ENXIO);
	CHECK_EQ(extmap_seek_hole(&m, 3, 10), 3);
	CHECK_EQ(extmap_seek_hole(&m, 10, 10), -ENXIO);
	CHECK_OK(extmap_punch(&m, 0, UINT64_MAX, NULL, NULL));
	extmap_truncate(&m, 0, NULL, NULL);
	CHECK_UEQ(extmap_memory(&m), 0);

	CHECK_OK(extmap_write(&m, EXTENT_END_MAX - EXTENT_LEN_MAX, EXTENT_LEN_MAX, 1,
			      UINT32_MAX - EXTENT_LEN_MAX, NULL, NULL));
	CHECK_EQ(extmap_seek_hole(&m, EXTENT_END_MAX - 1, EXTENT_END_MAX), EXTENT_END_MAX);
	CHECK_OK(extmap_punch(&m, EXTENT_END_MAX - 1, UINT64_MAX, NULL, NULL));
	CHECK_UEQ(extmap_bytes(&m), EXTENT_LEN_MAX - 1);
	CHECK(extmap_check(&m));
	extmap_release(&m);
	extmap_release(&m);
}

static void same_extents(const struct extmap *a, const struct extent *want, size_t n)
{
	struct extent_cursor cur;
	struct extent e;

	CHECK_UEQ(extmap_count(a), n);
	extmap_seek(a, 0, &cur);
	for (size_t i = 0; i < n; i++) {
		CHECK(extmap_next(a, &cur, &e));
		CHECK_MEM(&e, sizeof(e), &want[i], sizeof(want[i]));
	}
	CHECK(extmap_check(a));
}

static void drop_is_forbidden(void *ctx, uint64_t ref, uint32_t len)
{
	(void)ctx;
	FAIL("dropped %" PRIu32 " bytes of %" PRIu64 " in a failed call", len, ref);
}

static void *copy_extents(const struct extmap *m)
{
	struct extent *const all = malloc((m->count + 1) * sizeof(*all));
	struct extent_cursor cur;
	size_t n = 0;

	CHECK(all);
	extmap_seek(m, 0, &cur);
	while (extmap_next(m, &cur, &all[n]))
		n++;
	return all;
}

/* Fails allocation 1, 2, 3... of one change until it passes: the map is as before each time. */
static void fault_loop(struct extmap *m, uint64_t off, uint32_t len, bool punch, long *ret_faults)
{
	struct extent *const before = copy_extents(m);
	const size_t n = extmap_count(m);

	for (long i = 0;; i++) {
		int err;

		fail_after = i;
		allocations = 0;
		err = punch ? extmap_punch(m, off, len, drop_is_forbidden, NULL)
			    : extmap_write(m, off, len, 77, 0, drop_is_forbidden, NULL);
		fail_after = -1;
		if (err == 0)
			break;
		CHECK_EQ(err, -ENOMEM);
		same_extents(m, before, n);
		++*ret_faults;
	}
	CHECK(extmap_check(m));
	free(before);
}

TEST(test_extent__failed_allocation_changes_nothing)
{
	struct extmap m;
	long faults = 0;

	base_set_allocator(&failing);
	extmap_init(&m);
	/* Gaps of 3 between extents of 5, so that nothing is dropped by the writes. */
	for (uint32_t i = 0; i < 700; i++)
		fault_loop(&m, 8 * (i * 263 % 700), 5, false, &faults);
	CHECK_UEQ(extmap_count(&m), 700);
	CHECK(faults > 20);
	base_set_allocator(NULL);
	extmap_release(&m);
}

static void ignore_drop(void *ctx, uint64_t ref, uint32_t len)
{
	*(uint64_t *)ctx += len;
	(void)ref;
}

TEST(test_extent__failed_punch_changes_nothing)
{
	uint64_t dropped = 0;
	struct extmap m;
	long refused = 0;

	base_set_allocator(&failing);
	extmap_init(&m);
	CHECK_OK(extmap_write(&m, 0, 1000000, 1, 0, NULL, NULL));
	for (uint32_t i = 0; i < 900; i++) {
		const uint64_t off = 1000 * (i * 331 % 900) + 10;
		struct extent *const before = copy_extents(&m);
		const size_t n = extmap_count(&m);
		int err = -ENOMEM;

		for (fail_after = 0; err; fail_after = (long)++refused % 4) {
			dropped = 0;
			err = extmap_punch(&m, off, 100, ignore_drop, &dropped);
			if (err)
				same_extents(&m, before, n);
		}
		fail_after = -1;
		CHECK_UEQ(dropped, 100);
		CHECK(extmap_check(&m));
		free(before);
	}
	CHECK_UEQ(extmap_count(&m), 901);
	base_set_allocator(NULL);
	extmap_release(&m);
}

/* After a reserve the change succeeds though no memory is left; so do the calls that need none. */
TEST(test_extent__reserved_change_cannot_fail)
{
	uint64_t seed = test_seed();
	struct extmap m;

	base_set_allocator(&failing);
	extmap_init(&m);
	for (int i = 0; i < 20000; i++) {
		const uint64_t off = test_rand(&seed) % 100000;
		const uint32_t len = (uint32_t)(test_rand(&seed) % (i % 100 ? 30 : 3000) + 1);

		CHECK_OK(extmap_reserve(&m, off));
		fail_after = 0;
		if (i % 3)
			CHECK_OK(extmap_write(&m, off, len, i, 0, NULL, NULL));
		else
			CHECK_OK(extmap_punch(&m, off, len, NULL, NULL));
		if (i % 1000 == 999)
			extmap_truncate(&m, test_rand(&seed) % 100000, NULL, NULL);
		fail_after = -1;
		if (i % 100 == 0)
			CHECK(extmap_check(&m));
	}
	base_set_allocator(NULL);
	extmap_release(&m);
}

static void check_cost(const struct extmap *m, const char *what, uint64_t ns, size_t heap)
{
	CHECK(extmap_check(m));
	printf("%s: %zu extents, %.1f MB counted, %.1f MB of heap, %.0f ns each\n", what,
	       extmap_count(m), (double)extmap_memory(m) / 1e6, (double)heap / 1e6,
	       (double)ns / (double)extmap_count(m));
	CHECK(extmap_memory(m) < 32 * (size_t)MANY);
	CHECK(heap < 64 * (size_t)MANY);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

TEST(test_extent__a_million_extents_in_32_mb)
{
	static const char *const names[] = { "ascending", "descending", "random" };
	uint64_t seed = test_seed();

	for (int order = 0; order < 3; order++) {
		const size_t heap = mallinfo2().uordblks;
		const uint64_t start = now_ns();
		struct extmap m;

		extmap_init(&m);
		for (uint64_t i = 0; extmap_count(&m) < MANY; i++) {
			const uint64_t block = order == 0   ? i
					       : order == 1 ? MANY - i
							    : test_rand(&seed) % 100000000;

			CHECK_OK(extmap_write(&m, block * 4096, 4096, i, 0, NULL, NULL));
		}
		check_cost(&m, names[order], now_ns() - start, mallinfo2().uordblks - heap);
		extmap_release(&m);
	}
}

/* Appending splits off the last extent only: the page left behind stays within its limit. */
TEST(test_extent__append_split_keeps_the_page_limit)
{
	struct extmap m;

	/* One write into the middle of an extent makes three of one: a page gets wholly full. */
	for (uint64_t middle = 120; middle < 130; middle++) {
		extmap_init(&m);
		for (uint64_t i = 0; i < 300; i++) {
			CHECK_EQ(extmap_write(&m, i * 10, 10, i + 1, 0, NULL, NULL), 0);
			if (i == middle)
				CHECK_EQ(extmap_write(&m, 55, 2, 1000, 0, NULL, NULL), 0);
		}
		CHECK(extmap_check(&m));
		CHECK_UEQ(extmap_count(&m), 302);
		extmap_release(&m);
	}
}

TEST_MAIN()
