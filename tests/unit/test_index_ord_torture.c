/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of the ordered index against writers.  Meant for ThreadSanitizer, and useful without. */
#include "core/index_ord.h"

#include <pthread.h>

#include "tests/unit/test.h"

static struct epoch ep;
static struct oidx idx;

static void setup(void)
{
	CHECK_OK(epoch_init(&ep));
	oidx_init(&idx, &ep);
}

static void teardown(void)
{
	oidx_release(&idx);
	epoch_release(&ep);
}

#define STABLE  600
#define CHURN   3000
#define READERS 2
#define WRITERS 2
#define RUN_US  1500000

static _Atomic(bool) stop;
static uint64_t torture_seed;

/* Stable keys end in 's', the others in 'c'; equal ones must be whole. */
static size_t torture_key(char *buf, uint64_t i, char end)
{
	return (size_t)sprintf(buf, "%08" PRIx64 "-%c", i * UINT64_C(2654435761) % 0xffffffff, end);
}

struct walk {
	char last[32];
	size_t last_len, stable, step;
	bool reverse, any;
};

static bool walk_key(void *ctx, const uint8_t *prefix, size_t prefix_len, const uint8_t *rest,
		     size_t rest_len)
{
	struct walk *const w = ctx;
	char key[32];

	CHECK(prefix_len + rest_len == 10);
	memcpy(key, prefix, prefix_len);
	memcpy(key + prefix_len, rest, rest_len);
	CHECK(key[8] == '-' && (key[9] == 's' || key[9] == 'c'));
	if (w->any)
		CHECK(w->reverse ? memcmp(key, w->last, 10) < 0 : memcmp(key, w->last, 10) > 0);
	memcpy(w->last, key, 10);
	w->last_len = 10;
	w->any = true;
	w->stable += key[9] == 's';
	return --w->step != 0;
}

static void *reader(void *arg)
{
	uint64_t r = torture_seed + (uintptr_t)arg;

	while (!atomic_load(&stop)) {
		struct walk w = { .reverse = test_rand(&r) & 1 };
		size_t before;

		do {
			const unsigned int pin = epoch_pin(&ep);
			struct oidx_bound low = { NULL, 0, true }, high = { NULL, 0, true };
			struct oidx_bound *const at = w.reverse ? &high : &low;
			char last[32];

			if (w.any) {
				memcpy(last, w.last, w.last_len);
				at->p = (const uint8_t *)last;
				at->n = w.last_len;
			}
			before = w.step = 1 + test_rand(&r) % 300;
			oidx_scan_pinned(&idx, &low, &high, w.reverse, walk_key, &w);
			epoch_unpin(&ep, pin);
		} while (w.step == 0 && before);
		CHECK_UEQ(w.stable, STABLE);
	}
	return NULL;
}

static void *writer(void *arg)
{
	const uint64_t number = (uintptr_t)arg;
	uint64_t r = torture_seed * 31 + number;
	char key[32];

	while (!atomic_load(&stop)) {
		/* Whole runs, so that nodes split and merge. */
		const uint64_t from = test_rand(&r) % CHURN, n = test_rand(&r) % CHURN;
		const bool grow = test_rand(&r) & 1;

		for (uint64_t i = from; i < from + n && !atomic_load(&stop); i++) {
			const size_t len =
				torture_key(key, STABLE + number * CHURN + i % CHURN, 'c');

			CHECK_OK(grow ? oidx_insert(&idx, key, len) : oidx_remove(&idx, key, len));
		}
	}
	return NULL;
}

TEST(test_index_ord__readers_beside_writers)
{
	pthread_t threads[READERS + WRITERS];
	char key[32];

	torture_seed = test_seed();
	setup();
	for (uint64_t i = 0; i < STABLE; i++)
		CHECK_OK(oidx_insert(&idx, key, torture_key(key, i, 's')));
	for (uintptr_t i = 0; i < READERS + WRITERS; i++)
		CHECK_OK(pthread_create(&threads[i], NULL, i < READERS ? reader : writer,
					(void *)i));
	usleep(RUN_US);
	atomic_store(&stop, true);
	for (size_t i = 0; i < READERS + WRITERS; i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	CHECK(oidx_check(&idx));
	teardown();
}

TEST_MAIN()
