/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "core/base.h"
#include "core/sync.h"

/* ---- Arithmetic ---- */

TEST(test_base__overflow_is_reported)
{
	uint64_t v = 0;
	size_t n = 0;

	CHECK(!emdb_add_ovf(UINT64_MAX - 1, 1, &v) && v == UINT64_MAX);
	CHECK(emdb_add_ovf(UINT64_MAX, 1, &v));
	CHECK(!emdb_mul_ovf(UINT64_C(1) << 32, UINT32_MAX, &v));
	CHECK_UEQ(v, (UINT64_C(1) << 32) * UINT32_MAX);
	CHECK(emdb_mul_ovf(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
	CHECK(emdb_add_ovf_size(SIZE_MAX, 1, &n));
	CHECK(emdb_mul_ovf_size(SIZE_MAX, 2, &n));
}

TEST(test_base__alignment)
{
	CHECK_UEQ(align_up(0, 8), 0);
	CHECK_UEQ(align_up(1, 8), 8);
	CHECK_UEQ(align_up(8, 8), 8);
	CHECK_UEQ(align_up(UINT64_MAX - 7, 8), UINT64_MAX - 7);
	CHECK_UEQ(align_down(15, 8), 8);
	CHECK(is_pow2(1) && is_pow2(UINT64_C(1) << 63) && !is_pow2(0) && !is_pow2(12));
}

/* ---- Buffer and allocator ---- */

TEST(test_base__buf_grows_and_detaches)
{
	struct buf b = BUF_INIT;
	uint8_t *p;
	size_t n = 0;

	CHECK_OK(buf_append(&b, NULL, 0));
	CHECK(!b.data);
	for (unsigned int i = 0; i < 5000; i++)
		CHECK_OK(buf_append(&b, &(uint8_t){ (uint8_t)i }, 1));
	CHECK_OK(buf_append_zero(&b, 3));
	CHECK_UEQ(b.len, 5003);
	for (unsigned int i = 0; i < 5000; i++)
		CHECK_UEQ(b.data[i], (uint8_t)i);
	p = buf_detach(&b, &n);
	CHECK_UEQ(n, 5003);
	CHECK(!b.data && !b.len && !b.cap);
	CHECK_UEQ(p[5002], 0);
	base_free(p);
	buf_release(&b);
}

TEST(test_base__buf_refuses_the_impossible)
{
	struct buf b = BUF_INIT;

	CHECK_OK(buf_append(&b, "abc", 3));
	CHECK_EQ(buf_reserve(&b, SIZE_MAX - 1), -ENOMEM);
	CHECK_MEM(b.data, b.len, "abc", 3);
	buf_reset(&b);
	CHECK_UEQ(b.len, 0);
	CHECK(b.data);
	buf_release(&b);
}

static atomic_uint allocs, fail_at;

static bool fails(void)
{
	return atomic_fetch_add(&allocs, 1) + 1 == atomic_load(&fail_at);
}

static void *test_malloc(size_t n)
{
	return fails() ? NULL : malloc(n);
}

static void *test_calloc(size_t count, size_t n)
{
	return fails() ? NULL : calloc(count, n);
}

static void *test_realloc(void *p, size_t n)
{
	return fails() ? NULL : realloc(p, n);
}

static const struct base_allocator failing = { test_malloc, test_calloc, test_realloc, free };

TEST(test_base__allocator_can_fail_the_nth_call)
{
	struct buf b = BUF_INIT;

	base_set_allocator(&failing);
	atomic_store(&allocs, 0);
	atomic_store(&fail_at, 2);
	CHECK_OK(buf_append(&b, "x", 1));
	CHECK_EQ(buf_append_zero(&b, 1000), -ENOMEM);
	CHECK_MEM(b.data, b.len, "x", 1);
	CHECK_OK(buf_append_zero(&b, 1000));
	CHECK_UEQ(atomic_load(&allocs), 3);
	base_set_allocator(NULL);
	buf_release(&b);
}

TEST(test_base__zero_size_is_not_out_of_memory)
{
	void *const a = base_malloc(0), *const b = base_calloc(0, 8),
		    *const c = base_realloc(NULL, 0);

	CHECK(a && b && c);
	base_free(a);
	base_free(b);
	base_free(c);
	base_free(NULL);
}

/* ---- Locks ---- */

#define THREADS 4
#define ROUNDS  2000

struct shared {
	struct mutex m;
	struct rwlock rw;
	struct cond c;
	unsigned int count;   /* guarded by m */
	unsigned int a, b;    /* guarded by rw; equal when it is free */
	unsigned int waiting; /* guarded by m */
	bool go;              /* guarded by m */
};

static void *lock_worker(void *arg)
{
	struct shared *const s = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		mutex_lock(&s->m);
		s->count++;
		mutex_unlock(&s->m);
		if (i % 8 == 0) {
			rwlock_wrlock(&s->rw);
			s->a++;
			s->b++;
			rwlock_wrunlock(&s->rw);
		} else {
			rwlock_rdlock(&s->rw);
			CHECK_UEQ(s->a, s->b);
			rwlock_rdunlock(&s->rw);
		}
	}
	mutex_lock(&s->m);
	s->waiting++;
	cond_broadcast(&s->c);
	while (!s->go)
		cond_wait(&s->c, &s->m);
	mutex_unlock(&s->m);
	return NULL;
}

static void shared_init(struct shared *s)
{
	memset(s, 0, sizeof(*s));
	mutex_init(&s->m, LOCK_OBJ);
	rwlock_init(&s->rw, LOCK_STRUCTURE);
	cond_init(&s->c);
}

static void shared_destroy(struct shared *s)
{
	cond_destroy(&s->c);
	rwlock_destroy(&s->rw);
	mutex_destroy(&s->m);
}

TEST(test_sync__locks_exclude_and_conditions_wake)
{
	pthread_t threads[THREADS];
	struct shared s;

	shared_init(&s);
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK_OK(pthread_create(&threads[i], NULL, lock_worker, &s));
	mutex_lock(&s.m);
	while (s.waiting < THREADS)
		cond_wait(&s.c, &s.m);
	CHECK_UEQ(s.count, THREADS * ROUNDS);
	s.go = true;
	cond_broadcast(&s.c);
	mutex_unlock(&s.m);
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	CHECK_UEQ(s.a, THREADS * ROUNDS / 8);
	shared_destroy(&s);
}

static uint64_t mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

TEST(test_sync__timed_wait_ends_on_the_monotonic_clock)
{
	const uint64_t start = mono_ns(), deadline = start + 20000000;
	struct shared s;

	shared_init(&s);
	mutex_lock(&s.m);
	while (cond_wait_until(&s.c, &s.m, deadline))
		;
	mutex_unlock(&s.m);
	CHECK(mono_ns() >= deadline);
	CHECK(mono_ns() - start < UINT64_C(10000000000));
	shared_destroy(&s);
}

static void *try_worker(void *arg)
{
	struct shared *const s = arg;

	CHECK(!mutex_trylock(&s->m));
	CHECK(!rwlock_trywrlock(&s->rw));
	if (!rwlock_tryrdlock(&s->rw))
		FAIL("a shared lock excludes another one");
	rwlock_rdunlock(&s->rw);
	return NULL;
}

TEST(test_sync__try_locks)
{
	struct shared s;
	pthread_t t;

	shared_init(&s);
	rwlock_rdlock(&s.rw);
	if (!mutex_trylock(&s.m))
		FAIL("a free mutex refuses");
	CHECK_OK(pthread_create(&t, NULL, try_worker, &s));
	CHECK_OK(pthread_join(t, NULL));
	mutex_unlock(&s.m);
	rwlock_rdunlock(&s.rw);
	if (!rwlock_trywrlock(&s.rw))
		FAIL("a free rwlock refuses");
	rwlock_wrunlock(&s.rw);
	lock_assert_none();
	shared_destroy(&s);
}

/* clang takes all elements of an array for one lock. */
static EMDB_NO_TSA void nest_three(struct mutex *m)
{
	mutex_lock(&m[0]);
	mutex_lock_nested(&m[1]);
	mutex_lock_nested(&m[2]);
	lock_assert_held(LOCK_STRIPE);
	mutex_unlock(&m[1]);
	mutex_unlock(&m[2]);
	mutex_unlock(&m[0]);
}

TEST(test_sync__same_rank_in_address_order)
{
	struct mutex m[3];

	for (size_t i = 0; i < 3; i++)
		mutex_init(&m[i], LOCK_STRIPE);
	nest_three(m);
	lock_assert_none();
	for (size_t i = 0; i < 3; i++)
		mutex_destroy(&m[i]);
}

#ifdef EMDB_DEBUG

/* Runs fn in a child and tells whether it aborted. */
static bool aborts(void (*fn)(struct mutex *m))
{
	struct mutex m[3];
	int status = 0;
	pid_t pid;

	mutex_init(&m[0], LOCK_STRIPE);
	mutex_init(&m[1], LOCK_STRIPE);
	mutex_init(&m[2], LOCK_OBJ);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		fn(m);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static EMDB_NO_TSA void downwards(struct mutex *m)
{
	mutex_lock(&m[0]);
	mutex_lock(&m[2]);
}

static EMDB_NO_TSA void upwards(struct mutex *m)
{
	mutex_lock(&m[2]);
	mutex_lock(&m[0]);
}

static EMDB_NO_TSA void same_rank(struct mutex *m)
{
	mutex_lock(&m[0]);
	mutex_lock(&m[1]);
}

static EMDB_NO_TSA void against_address(struct mutex *m)
{
	mutex_lock(&m[1]);
	mutex_lock_nested(&m[0]);
}

static EMDB_NO_TSA void not_held(struct mutex *m)
{
	mutex_unlock(&m[0]);
}

static EMDB_NO_TSA void leaks(struct mutex *m)
{
	mutex_lock(&m[0]);
	lock_assert_none();
}

TEST(test_sync__debug_builds_check_the_order)
{
	CHECK(!aborts(downwards));
	CHECK(aborts(upwards));
	CHECK(aborts(same_rank));
	CHECK(aborts(against_address));
	CHECK(aborts(not_held));
	CHECK(aborts(leaks));
}

#endif

TEST_MAIN()
