/* SPDX-License-Identifier: Apache-2.0 */
#include "core/index_hash.h"

#include <malloc.h>
#include <pthread.h>

#include "tests/unit/test.h"

/* Sanitizers are some ten times slower. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || \
	__has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SLOW 1
#else
#define SLOW 0
#endif

static struct epoch ep;
static struct hidx idx;

static void setup(void)
{
	CHECK_OK(epoch_init(&ep));
	hidx_init(&idx, &ep);
}

static void teardown(void)
{
	CHECK(hidx_check(&idx));
	hidx_release(&idx);
	hidx_release(&idx);
	epoch_release(&ep);
}

/* A one-to-one mixer: the i-th of a sequence of different random-looking hashes. */
static uint64_t mix(uint64_t i)
{
	uint64_t state = i * 0x9e3779b97f4a7c15;

	return test_rand(&state);
}

static size_t find(uint64_t hash, uint64_t *out, size_t max)
{
	const unsigned pin = epoch_pin(&ep);
	const size_t n = hidx_find_pinned(&idx, hash, out, max);

	epoch_unpin(&ep, pin);
	return n;
}

static size_t walk(uint64_t from, uint32_t tie, struct hidx_slot *out, size_t max)
{
	const unsigned pin = epoch_pin(&ep);
	const size_t n = hidx_walk_pinned(&idx, from, tie, out, max);

	epoch_unpin(&ep, pin);
	return n;
}

/* ---- Allocator that counts and fails ---- */

static size_t live_bytes; /* what the heap really gave out, headers included */
static size_t live_peak;
static size_t taken_bytes; /* asked for since it was last zeroed */
static size_t taken_largest;
static unsigned fail_after = UINT32_MAX; /* allocations that still succeed */

static bool alloc_refused(void)
{
	if (fail_after == UINT32_MAX)
		return false;
	if (fail_after == 0)
		return true;
	fail_after--;
	return false;
}

static void *count_taken(void *p, size_t n)
{
	live_bytes += malloc_usable_size(p) + sizeof(size_t);
	live_peak = live_bytes > live_peak ? live_bytes : live_peak;
	taken_bytes += n;
	taken_largest = n > taken_largest ? n : taken_largest;
	return p;
}

static void *test_malloc(size_t n)
{
	return alloc_refused() ? NULL : count_taken(malloc(n), n);
}

static void *test_calloc(size_t count, size_t n)
{
	return alloc_refused() ? NULL : count_taken(calloc(count, n), count * n);
}

static void test_free(void *p)
{
	if (p)
		live_bytes -= malloc_usable_size(p) + sizeof(size_t);
	free(p);
}

static const struct base_allocator counting = { test_malloc, test_calloc, realloc, test_free };

static void counting_on(void)
{
	live_bytes = 0;
	live_peak = 0;
	fail_after = UINT32_MAX;
	base_set_allocator(&counting);
}

static void counting_off(void)
{
	CHECK_UEQ(live_bytes, 0);
	base_set_allocator(NULL);
}

/* ---- Small and large ---- */

TEST(test_index_hash__empty)
{
	struct hidx zero;
	struct hidx_slot slot;
	uint64_t value;

	setup();
	CHECK(sizeof(struct hidx) <= 64);
	CHECK_UEQ(find(7, &value, 1), 0);
	CHECK_UEQ(walk(0, 0, &slot, 1), 0);
	CHECK_EQ(hidx_remove(&idx, 7, 7), -ENOENT);
	CHECK_EQ(hidx_replace(&idx, 7, 7, 8), -ENOENT);
	CHECK_UEQ(hidx_count(&idx), 0);
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	teardown();
	memset(&zero, 0, sizeof(zero));
	hidx_release(&zero);
	hidx_release(NULL);
}

TEST(test_index_hash__three_entries_in_200_bytes)
{
	uint64_t v[4] = { 0 };

	setup();
	for (uint64_t i = 0; i < 3; i++)
		CHECK_OK(hidx_insert(&idx, mix(i), i));
	CHECK(hidx_memory(&idx) <= 200);
	CHECK_UEQ(find(mix(1), v, 4), 1);
	CHECK_UEQ(v[0], 1);
	CHECK_OK(hidx_replace(&idx, mix(1), 1, 11));
	CHECK_EQ(hidx_replace(&idx, mix(1), 1, 12), -ENOENT);
	CHECK_UEQ(find(mix(1), v, 4), 1);
	CHECK_UEQ(v[0], 11);
	CHECK_OK(hidx_remove(&idx, mix(1), 11));
	CHECK_EQ(hidx_remove(&idx, mix(1), 11), -ENOENT);
	CHECK_UEQ(find(mix(1), v, 4), 0);
	teardown();
}

TEST(test_index_hash__edges_of_the_hash_space)
{
	struct hidx_slot s[8];
	uint64_t v;

	setup();
	CHECK_OK(hidx_insert(&idx, UINT64_MAX, 1));
	CHECK_OK(hidx_insert(&idx, 0, 2));
	for (uint64_t i = 1; i < 2000; i++)
		CHECK_OK(hidx_insert(&idx, mix(i), i));
	CHECK_UEQ(find(UINT64_MAX, &v, 1), 1);
	CHECK_UEQ(v, 1);
	CHECK_UEQ(find(0, &v, 1), 1);
	CHECK_UEQ(v, 2);
	CHECK_UEQ(walk(UINT64_MAX, 0, s, 8), 1);
	CHECK_UEQ(walk(UINT64_MAX, 1, s, 8), 0);
	CHECK_UEQ(walk(0, 0, s, 1), 1);
	CHECK_UEQ(s[0].hash, 0);
	CHECK_UEQ(walk(0, 0, s, 0), 0);
	teardown();
}

/* ---- Against a model: a sorted array in which equal hashes keep their order ---- */

#define MODEL_MAX 6000

struct model {
	struct hidx_slot slot[MODEL_MAX];
	size_t n;
};

static struct model model;

static size_t model_first(uint64_t hash)
{
	size_t lo = 0;
	size_t hi = model.n;

	while (lo < hi) {
		const size_t mid = (lo + hi) / 2;

		if (model.slot[mid].hash < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static size_t model_end(uint64_t hash)
{
	size_t i = model_first(hash);

	while (i < model.n && model.slot[i].hash == hash)
		i++;
	return i;
}

static size_t model_pair(uint64_t hash, uint64_t value)
{
	for (size_t i = model_first(hash); i < model_end(hash); i++)
		if (model.slot[i].value == value)
			return i;
	return model.n;
}

static void model_insert(uint64_t hash, uint64_t value)
{
	const size_t i = model_end(hash);

	memmove(&model.slot[i + 1], &model.slot[i], (model.n - i) * sizeof(model.slot[0]));
	model.slot[i] = (struct hidx_slot){ hash, value, 0 };
	model.n++;
}

static void model_remove(size_t i)
{
	model.n--;
	memmove(&model.slot[i], &model.slot[i + 1], (model.n - i) * sizeof(model.slot[0]));
}

static void check_find(uint64_t hash)
{
	const size_t first = model_first(hash);
	const size_t n = model_end(hash) - first;
	uint64_t v[16];

	CHECK_UEQ(find(hash, v, 16), n);
	for (size_t i = 0; i < n && i < 16; i++)
		CHECK_UEQ(v[i], model.slot[first + i].value);
}

/* The whole content, walked in steps of all sizes. */
static void check_walk(uint64_t *rng)
{
	struct hidx_slot out[64];
	size_t at = 0;
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t max;
	size_t got;

	do {
		max = 1 + test_rand(rng) % 64;
		got = walk(hash, tie, out, max);
		for (size_t i = 0; i < got; i++, at++) {
			CHECK(at < model.n);
			CHECK_UEQ(out[i].hash, model.slot[at].hash);
			CHECK_UEQ(out[i].value, model.slot[at].value);
			CHECK_UEQ(out[i].tie, at - model_first(out[i].hash));
			hash = out[i].hash;
			tie = out[i].tie + 1;
		}
	} while (got == max);
	CHECK_UEQ(at, model.n);
}

enum shape { SHAPE_RANDOM, SHAPE_FEW, SHAPE_LOW, SHAPE_CLUSTER, SHAPE_COUNT };

static uint64_t shaped_hash(enum shape shape, uint64_t *rng)
{
	const uint64_t r = test_rand(rng);

	switch (shape) {
	case SHAPE_RANDOM:
		return mix(r % 8000);
	case SHAPE_FEW:
		return mix(r % 40);
	case SHAPE_LOW:
		return r % 8000;
	case SHAPE_CLUSTER:
		return r % 3 ? (uint64_t)0xabcdef << 40 | r % 4000 : r;
	case SHAPE_COUNT:
	default:
		abort();
	}
}

static void model_step(enum shape shape, unsigned grow, uint64_t *rng)
{
	const uint64_t hash = shaped_hash(shape, rng);
	const uint64_t value = test_rand(rng) % 64;
	size_t i;

	if (test_rand(rng) % 16 == 0) {
		i = model_pair(hash, value);
		CHECK_EQ(hidx_replace(&idx, hash, value, value + 64), i < model.n ? 0 : -ENOENT);
		if (i < model.n)
			model.slot[i].value = value + 64;
	} else if (test_rand(rng) % 100 < grow && model.n < MODEL_MAX) {
		CHECK_OK(hidx_insert(&idx, hash, value));
		model_insert(hash, value);
	} else if (model.n > 0) {
		i = test_rand(rng) % model.n;
		CHECK_OK(hidx_remove(&idx, model.slot[i].hash, model.slot[i].value));
		/* Of equal pairs the first goes. */
		model_remove(model_pair(model.slot[i].hash, model.slot[i].value));
	}
	CHECK_EQ(hidx_remove(&idx, hash, 1000), -ENOENT);
	check_find(hash);
}

TEST(test_index_hash__model)
{
	uint64_t rng = test_seed();
	const unsigned steps = SLOW ? 1500 : 25000;
	static const unsigned grow[] = { 95, 50, 10, 70, 0 };

	for (unsigned shape = 0; shape < SHAPE_COUNT; shape++) {
		setup();
		model.n = 0;
		for (unsigned phase = 0; phase < 5; phase++) {
			for (unsigned i = 0; i < steps; i++)
				model_step((enum shape)shape, grow[phase], &rng);
			CHECK(hidx_check(&idx));
			CHECK_UEQ(hidx_count(&idx), model.n);
			check_walk(&rng);
		}
		CHECK_UEQ(hidx_count(&idx), 0);
		CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
		teardown();
	}
}

/* ---- Budgets ---- */

/* Bytes that the heap really holds for each entry, after what waits in the epoch is freed. */
static double live_per_key(size_t base)
{
	epoch_drain(&ep);
	CHECK(live_bytes - base <= hidx_memory(&idx) + hidx_memory(&idx) / 50 + 4096);
	return (double)(live_bytes - base) / (double)hidx_count(&idx);
}

TEST(test_index_hash__memory_budget)
{
	const uint64_t n = SLOW ? 50000 : 2100000;
	double worst = 0;
	double worst_moment = 0;
	uint64_t sample = 1000;
	size_t base;

	counting_on();
	setup();
	base = live_bytes;
	for (uint64_t i = 0; i < n; i++) {
		CHECK_OK(hidx_insert(&idx, mix(i), i));
		if (i >= 100000) {
			const double moment = (double)(live_peak - base) / (double)(i + 1);

			worst_moment = moment > worst_moment ? moment : worst_moment;
		}
		if (i + 1 == sample) {
			const double per_key = live_per_key(base);

			worst = per_key > worst ? per_key : worst;
			sample += sample / 64;
		}
		live_peak = live_bytes;
	}
	printf("  bytes per key: worst at rest %.2f, worst moment %.2f\n", worst, worst_moment);
	CHECK(SLOW || worst <= 24);
	CHECK(SLOW || worst_moment <= 64);
	worst = 0;
	for (uint64_t i = 0; i < n - 1000; i++) {
		CHECK_OK(hidx_remove(&idx, mix(i), i));
		if (i % (n / 256) == 0) {
			const double per_key = live_per_key(base);

			worst = per_key > worst ? per_key : worst;
		}
	}
	printf("  bytes per key: worst while removing %.2f\n", worst);
	CHECK(SLOW || worst <= 30);
	CHECK(SLOW || live_per_key(base) <= 40);
	for (uint64_t i = n - 1000; i < n; i++)
		CHECK_OK(hidx_remove(&idx, mix(i), i));
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	epoch_drain(&ep);
	CHECK_UEQ(live_bytes, base);
	teardown();
	counting_off();
}

/*
 * An operation moves the cells of one page, and copies into what it allocates. So its work is
 * bounded by the largest page there is plus the memory it takes.
 */
TEST(test_index_hash__no_operation_stalls)
{
	const uint64_t n = SLOW ? 30000 : 1000000;
	const size_t page_bytes = 64 + 2 * HIDX_PAGE_FULL * 16;
	unsigned doublings = 0;

	counting_on();
	setup();
	for (uint64_t i = 0; i < n; i++) {
		taken_bytes = 0;
		taken_largest = 0;
		CHECK_OK(hidx_insert(&idx, mix(i), i));
		if (taken_largest > page_bytes) { /* the directory, in proportion */
			doublings++;
			CHECK(taken_largest <= 256 + i / 2);
			taken_bytes -= taken_largest;
		}
		CHECK(taken_bytes <= 2 * page_bytes);
	}
	CHECK(doublings <= 20);
	for (uint64_t i = 0; i < n; i++) {
		taken_bytes = 0;
		taken_largest = 0;
		CHECK_OK(hidx_remove(&idx, mix(i), i));
		CHECK(taken_bytes <= 4 * page_bytes + (n - i) / 2);
	}
	teardown();
	counting_off();
}

/* What is left behind in one corner of a table that was large must not keep its directory. */
TEST(test_index_hash__directory_shrinks_around_a_cluster)
{
	const uint64_t n = SLOW ? 20000 : 100000;
	const uint64_t corner = (uint64_t)0x1234 << 48;

	setup();
	for (uint64_t i = 0; i < n; i++)
		CHECK_OK(hidx_insert(&idx, mix(i), i));
	for (uint64_t i = 0; i < 300; i++)
		CHECK_OK(hidx_insert(&idx, corner | mix(i) >> 16, i));
	CHECK(hidx_check(&idx));
	for (uint64_t i = 0; i < n; i++)
		CHECK_OK(hidx_remove(&idx, mix(i), i));
	CHECK(hidx_check(&idx));
	CHECK_UEQ(hidx_count(&idx), 300);
	CHECK(hidx_memory(&idx) <= 300 * 40);
	for (uint64_t i = 0; i < 300; i++)
		CHECK_OK(hidx_remove(&idx, corner | mix(i) >> 16, i));
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	teardown();
}

/* ---- Hashes that are not as they should be ---- */

TEST(test_index_hash__equal_hashes)
{
	const uint64_t n = 3000;
	const uint64_t hash = mix(1);
	uint64_t *const v = malloc(n * sizeof(*v));

	CHECK(v);
	setup();
	for (uint64_t i = 0; i < n; i++) {
		CHECK_OK(hidx_insert(&idx, hash, i));
		CHECK_OK(hidx_insert(&idx, mix(i + 2), i));
	}
	CHECK(hidx_check(&idx));
	CHECK_UEQ(find(hash, NULL, 0), n);
	CHECK_UEQ(find(hash, v, 10), n);
	CHECK_UEQ(find(hash, v, n), n);
	for (uint64_t i = 0; i < n; i++)
		CHECK_UEQ(v[i], i);
	for (uint64_t i = 0; i < n; i++) {
		CHECK_OK(hidx_replace(&idx, hash, i, i + n));
		CHECK_OK(hidx_remove(&idx, hash, i + n));
		CHECK_UEQ(find(hash, v, n), n - 1 - i);
	}
	CHECK(hidx_check(&idx));
	for (uint64_t i = 0; i < n; i++)
		CHECK_OK(hidx_remove(&idx, mix(i + 2), i));
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	teardown();
	free(v);
}

TEST(test_index_hash__low_entropy)
{
	const uint64_t n = SLOW ? 10000 : 50000;
	uint64_t v;

	setup();
	for (uint64_t i = 0; i < n; i++) {
		CHECK_OK(hidx_insert(&idx, i, ~i));
		CHECK(hidx_memory(&idx) <= sizeof(idx) + 128 + 32 * (i + 1));
	}
	CHECK(hidx_check(&idx));
	for (uint64_t i = 0; i < n; i++) {
		CHECK_UEQ(find(i, &v, 1), 1);
		CHECK_UEQ(v, ~i);
	}
	/* Two corners, no middle. */
	for (uint64_t i = 0; i < n / 4; i++)
		CHECK_OK(hidx_insert(&idx, UINT64_MAX - i, i));
	CHECK(hidx_check(&idx));
	CHECK(hidx_memory(&idx) <= 40 * hidx_count(&idx));
	for (uint64_t i = n; i-- > 0;)
		CHECK_OK(hidx_remove(&idx, i, ~i));
	for (uint64_t i = 0; i < n / 4; i++)
		CHECK_OK(hidx_remove(&idx, UINT64_MAX - i, i));
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	teardown();
}

/* ---- Building ---- */

static int build(const struct hidx_slot *sorted, size_t n, uint64_t hint)
{
	struct hidx_builder b;
	int err = hidx_build_begin(&b, &idx, hint);

	for (size_t i = 0; !err && i < n; i++)
		err = hidx_build_add(&b, sorted[i].hash, sorted[i].value);
	if (!err)
		err = hidx_build_end(&b);
	hidx_build_release(&b);
	return err;
}

/* n entries in order, in an array to free: out of a table, so that nobody has to sort. */
static struct hidx_slot *sorted_entries(size_t n, enum shape shape, uint64_t *rng)
{
	struct hidx_slot *const s = calloc(n + 1, sizeof(*s));

	CHECK(s);
	setup();
	for (size_t i = 0; i < n; i++)
		CHECK_OK(hidx_insert(&idx, shape == SHAPE_RANDOM ? mix(i) : shaped_hash(shape, rng),
				     i));
	CHECK_UEQ(walk(0, 0, s, n + 1), n);
	teardown();
	return s;
}

static void check_same(const struct hidx_slot *sorted, size_t n)
{
	struct hidx_slot *const got = calloc(n + 1, sizeof(*got));

	CHECK(got);
	CHECK(hidx_check(&idx));
	CHECK_UEQ(hidx_count(&idx), n);
	CHECK_UEQ(walk(0, 0, got, n + 1), n);
	for (size_t i = 0; i < n; i++) {
		CHECK_UEQ(got[i].hash, sorted[i].hash);
		CHECK_UEQ(got[i].value, sorted[i].value);
	}
	free(got);
}

TEST(test_index_hash__build)
{
	static const size_t sizes[] = { 0, 1, 4, 5, 88, 89, 129, 1000, SLOW ? 4000 : 30000 };
	uint64_t rng = test_seed();

	for (unsigned shape = 0; shape < SHAPE_COUNT; shape++) {
		for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
			/* Hashes that are not mixed cost the square. */
			const size_t n = shape == SHAPE_RANDOM || sizes[k] < 2000 ? sizes[k] : 2000;
			const uint64_t hints[] = { n, 0, n / 10, n * 50 };
			struct hidx_slot *const s = sorted_entries(n, (enum shape)shape, &rng);

			for (size_t h = 0; h < 4; h++) {
				setup();
				CHECK_OK(build(s, n, hints[h]));
				check_same(s, n);
				if (n >= 1000 && shape == SHAPE_RANDOM && h < 3)
					CHECK(hidx_memory(&idx) <= 24 * n);
				for (size_t i = 0; i < n; i += 2)
					CHECK_OK(hidx_remove(&idx, s[i].hash, s[i].value));
				for (size_t i = 0; i < n; i += 2)
					CHECK_OK(hidx_insert(&idx, s[i].hash, s[i].value));
				CHECK_UEQ(hidx_count(&idx), n);
				teardown();
			}
			free(s);
		}
	}
}

TEST(test_index_hash__build_refuses)
{
	const struct hidx_slot wrong[] = { { 1, 1, 0 }, { 3, 3, 0 }, { 2, 2, 0 } };
	struct hidx_builder b;

	setup();
	CHECK_EQ(build(wrong, 3, 3), -EINVAL); /* not in order */
	CHECK_UEQ(hidx_count(&idx), 0);
	CHECK_OK(build(wrong, 2, 2));
	CHECK_EQ(build(wrong, 2, 2), -EINVAL); /* not empty */
	CHECK_UEQ(hidx_count(&idx), 2);
	memset(&b, 0, sizeof(b));
	hidx_build_release(&b);
	hidx_build_release(NULL);
	teardown();
}

/* ---- No memory ---- */

TEST(test_index_hash__insert_without_memory)
{
	const uint64_t n = 3000;
	uint64_t refused = 0;
	uint64_t v;

	counting_on();
	setup();
	for (uint64_t i = 0; i < n; i++) {
		for (unsigned after = 0;; after++) {
			const size_t memory = hidx_memory(&idx);
			int err;

			fail_after = after;
			err = hidx_insert(&idx, mix(i), i);
			fail_after = UINT32_MAX;
			if (!err)
				break;
			CHECK_EQ(err, -ENOMEM);
			CHECK_UEQ(find(mix(i), &v, 1), 0);
			CHECK_UEQ(hidx_count(&idx), i);
			CHECK_UEQ(hidx_memory(&idx), memory);
			if (refused++ % 8 == 0)
				CHECK(hidx_check(&idx));
		}
		CHECK_UEQ(find(mix(i), &v, 1), 1);
	}
	CHECK(refused > n / 20);
	teardown();
	counting_off();
}

TEST(test_index_hash__remove_needs_no_memory)
{
	const uint64_t n = 20000;

	counting_on();
	setup();
	for (uint64_t i = 0; i < n; i++)
		CHECK_OK(hidx_insert(&idx, mix(i), i));
	fail_after = 0;
	for (uint64_t i = 0; i < n; i++) {
		CHECK_OK(hidx_remove(&idx, mix(i), i));
		if (i % 1000 == 0)
			CHECK(hidx_check(&idx));
	}
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	fail_after = UINT32_MAX;
	teardown();
	counting_off();
}

/* Now and then there is some: nothing may get lost in between. */
TEST(test_index_hash__remove_with_little_memory)
{
	const uint64_t n = 20000;
	uint64_t rng = test_seed();

	counting_on();
	setup();
	for (uint64_t i = 0; i < n; i++)
		CHECK_OK(hidx_insert(&idx, mix(i), i));
	for (uint64_t i = 0; i < n; i++) {
		fail_after = (unsigned)(test_rand(&rng) % 3);
		CHECK_OK(hidx_remove(&idx, mix(i), i));
		fail_after = UINT32_MAX;
		if (i % 500 == 0)
			CHECK(hidx_check(&idx));
	}
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	teardown();
	counting_off();
}

TEST(test_index_hash__build_without_memory)
{
	const size_t n = 600;
	uint64_t rng = 1;

	for (unsigned shape = 0; shape < SHAPE_COUNT; shape++) {
		struct hidx_slot *const s = sorted_entries(n, (enum shape)shape, &rng);
		int err;

		counting_on();
		setup();
		for (unsigned after = 0;; after++) {
			fail_after = after;
			err = build(s, n, after % 2 ? n * 8 : 0);
			fail_after = UINT32_MAX;
			if (!err)
				break;
			CHECK_EQ(err, -ENOMEM);
			CHECK_UEQ(hidx_count(&idx), 0);
			CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
		}
		check_same(s, n);
		teardown();
		counting_off();
		free(s);
	}
}

TEST_MAIN()
