/* SPDX-License-Identifier: Apache-2.0 */
#include "core/epoch.h"

#include <pthread.h>
#include <time.h>

#include "tests/unit/test.h"

#define MAGIC_LIVE  0x6c697665u
#define MAGIC_DEAD  0xdeadu
#define THREADS     4
#define CELLS       8
#define TORTURE_SEC 1.5

struct object {
	struct epoch_node node;
	uint32_t magic; /* plain on purpose: a use after the free is a race that TSan sees */
	unsigned *counter;
};

static struct epoch ep;

static struct object *object_new(unsigned *counter)
{
	struct object *const o = malloc(sizeof(*o));

	CHECK(o);
	*o = (struct object){ .magic = MAGIC_LIVE, .counter = counter };
	return o;
}

static void object_free(struct epoch_node *node)
{
	struct object *const o = container_of(node, struct object, node);

	CHECK_UEQ(o->magic, MAGIC_LIVE);
	o->magic = MAGIC_DEAD;
	if (o->counter)
		++*o->counter;
	free(o);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void reclaim_some(void)
{
	for (int i = 0; i < 10; i++)
		(void)epoch_reclaim(&ep);
}

static void *no_malloc(size_t n)
{
	(void)n;
	return NULL;
}

TEST(test_epoch__no_memory)
{
	const struct base_allocator none = { no_malloc, calloc, realloc, free };

	base_set_allocator(&none);
	CHECK_EQ(epoch_init(&ep), -ENOMEM);
	epoch_release(&ep);
	base_set_allocator(NULL);
	CHECK_OK(epoch_init(&ep));
	epoch_release(&ep);
	epoch_release(&ep);
	epoch_release(NULL);
}

TEST(test_epoch__waits_for_pins_before_the_retire)
{
	unsigned freed = 0;
	unsigned pin;

	CHECK_OK(epoch_init(&ep));
	pin = epoch_pin(&ep);
	epoch_retire(&ep, &object_new(&freed)->node, object_free);
	reclaim_some();
	CHECK_UEQ(freed, 0);
	epoch_unpin(&ep, pin);
	reclaim_some();
	CHECK_UEQ(freed, 1);
	epoch_release(&ep);
}

TEST(test_epoch__later_pins_do_not_keep)
{
	unsigned freed = 0;
	unsigned first;
	unsigned second;

	CHECK_OK(epoch_init(&ep));
	epoch_retire(&ep, &object_new(&freed)->node, object_free);
	first = epoch_pin(&ep);
	reclaim_some(); /* steps once below this pin, which did not see the step */
	second = epoch_pin(&ep);
	epoch_unpin(&ep, first);
	reclaim_some(); /* the second pin began after the step */
	CHECK_UEQ(freed, 1);
	epoch_unpin(&ep, second);
	epoch_release(&ep);
}

TEST(test_epoch__one_pin_of_many_is_enough)
{
	unsigned pins[EPOCH_SLOTS];
	bool seen[EPOCH_SLOTS] = { false };
	unsigned freed = 0;

	CHECK_OK(epoch_init(&ep));
	for (unsigned i = 0; i < EPOCH_SLOTS; i++) {
		pins[i] = epoch_pin(&ep);
		CHECK(pins[i] < EPOCH_SLOTS);
		CHECK(!seen[pins[i]]);
		seen[pins[i]] = true;
	}
	epoch_retire(&ep, &object_new(&freed)->node, object_free);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++) {
		reclaim_some();
		CHECK_UEQ(freed, 0);
		epoch_unpin(&ep, pins[i]);
	}
	reclaim_some();
	CHECK_UEQ(freed, 1);
	epoch_release(&ep);
}

static void *pin_and_return(void *arg)
{
	*(unsigned *)arg = epoch_pin(&ep);
	return NULL;
}

TEST(test_epoch__all_slots_taken_waits)
{
	unsigned pins[EPOCH_SLOTS];
	unsigned late = EPOCH_SLOTS;
	pthread_t t;

	CHECK_OK(epoch_init(&ep));
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		pins[i] = epoch_pin(&ep);
	CHECK_OK(pthread_create(&t, NULL, pin_and_return, &late));
	usleep(20000);
	epoch_unpin(&ep, pins[77]);
	CHECK_OK(pthread_join(t, NULL));
	CHECK_UEQ(late, pins[77]);
	pins[77] = late; /* released by another thread than the one that took it */
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		epoch_unpin(&ep, pins[i]);
	epoch_release(&ep);
}

TEST(test_epoch__backlog_is_bounded)
{
	unsigned freed = 0;
	unsigned pin;

	CHECK_OK(epoch_init(&ep));
	for (unsigned i = 0; i < 10000; i++) {
		epoch_retire(&ep, &object_new(&freed)->node, object_free);
		CHECK(i + 1 - freed <= 2 * EPOCH_BACKLOG_MAX);
	}
	pin = epoch_pin(&ep);
	for (unsigned i = 0; i < 10000; i++)
		epoch_retire(&ep, &object_new(&freed)->node, object_free);
	CHECK(freed < 11000);
	epoch_unpin(&ep, pin);
	epoch_drain(&ep);
	CHECK_UEQ(freed, 20000);
	CHECK_UEQ(epoch_reclaim(&ep), 0);
	epoch_release(&ep);
}

static void retire_next(struct epoch_node *node)
{
	struct object *const o = container_of(node, struct object, node);
	unsigned *const left = o->counter;

	free(o);
	if ((*left)-- > 0)
		epoch_retire(&ep, &object_new(left)->node, retire_next);
}

TEST(test_epoch__functions_may_retire)
{
	unsigned left = 1000;

	CHECK_OK(epoch_init(&ep));
	epoch_retire(&ep, &object_new(&left)->node, retire_next);
	epoch_drain(&ep);
	CHECK_EQ((int)left, -1);
	epoch_release(&ep);
}

TEST(test_epoch__cost)
{
	const unsigned rounds = 1000000;
	double start;

	CHECK_OK(epoch_init(&ep));
	start = seconds();
	for (unsigned i = 0; i < rounds; i++)
		epoch_unpin(&ep, epoch_pin(&ep));
	printf("  pin and unpin: %.1f ns\n", (seconds() - start) * 1e9 / rounds);
	epoch_release(&ep);
}

/* ---- Torture: readers follow pointers that writers replace and retire ---- */

static _Atomic(struct object *) cells[CELLS];
static _Atomic(bool) stop;

static void *torture_reader(void *arg)
{
	uint64_t rng = (uint64_t)(uintptr_t)arg;
	uintptr_t looked = 0;

	while (!atomic_load(&stop)) {
		const unsigned outer = epoch_pin(&ep);
		const unsigned inner = test_rand(&rng) % 4 == 0 ? epoch_pin(&ep) : EPOCH_SLOTS;
		const struct object *const a =
			atomic_load_explicit(&cells[test_rand(&rng) % CELLS], memory_order_acquire);
		const struct object *const b =
			atomic_load_explicit(&cells[test_rand(&rng) % CELLS], memory_order_acquire);

		CHECK_UEQ(b->magic, MAGIC_LIVE);
		if (inner < EPOCH_SLOTS)
			epoch_unpin(&ep, inner);
		CHECK_UEQ(a->magic, MAGIC_LIVE);
		epoch_unpin(&ep, outer);
		looked++;
	}
	return (void *)looked;
}

static void *torture_writer(void *arg)
{
	uint64_t rng = (uint64_t)(uintptr_t)arg;
	uintptr_t replaced = 0;

	while (!atomic_load(&stop)) {
		struct object *const o = atomic_exchange_explicit(
			&cells[test_rand(&rng) % CELLS], object_new(NULL), memory_order_acq_rel);

		epoch_retire(&ep, &o->node, object_free);
		if (test_rand(&rng) % 32 == 0)
			(void)epoch_reclaim(&ep);
		replaced++;
	}
	return (void *)replaced;
}

TEST(test_epoch__torture)
{
	const uint64_t seed = test_seed();
	pthread_t threads[THREADS];
	uintptr_t done[2] = { 0, 0 };

	CHECK_OK(epoch_init(&ep));
	atomic_store(&stop, false);
	for (unsigned i = 0; i < CELLS; i++)
		atomic_store(&cells[i], object_new(NULL));
	for (unsigned i = 0; i < THREADS; i++)
		CHECK_OK(pthread_create(&threads[i], NULL, i % 2 ? torture_writer : torture_reader,
					(void *)(uintptr_t)(seed + i)));
	usleep((useconds_t)(TORTURE_SEC * 1e6));
	atomic_store(&stop, true);
	for (unsigned i = 0; i < THREADS; i++) {
		void *n;

		CHECK_OK(pthread_join(threads[i], &n));
		done[i % 2] += (uintptr_t)n;
	}
	CHECK(done[0] > 0 && done[1] > 0);
	for (unsigned i = 0; i < CELLS; i++)
		epoch_retire(&ep, &atomic_load(&cells[i])->node, object_free);
	epoch_drain(&ep);
	epoch_release(&ep);
}

TEST_MAIN()
