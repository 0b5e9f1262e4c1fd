/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sync.h"

#include <signal.h>

#include <time.h>

#define NS_PER_S UINT64_C(1000000000)

static_assert(LOCK_RANK_COUNT <= 64, "ranks fit the debug build's tables");

/* A failing pthread call is a bug of ours: wrong owner, double lock, destroyed while held. */
static inline void must(int err)
{
	emdb_assert(err == 0);
}

/* ---- Lock order, debug builds only ---- */

#ifdef EMDB_DEBUG

#define HELD_MAX 512 /* all stripes at once, and some */

struct held {
	enum lock_rank rank;
	const void *lock;
};

/* The locks of this thread, in the order of acquisition. */
static _Thread_local struct held held[HELD_MAX];
static _Thread_local unsigned int held_count;

static void order_check(enum lock_rank rank, const void *lock, bool nested)
{
	if (rank == LOCK_UNRANKED)
		return;
	for (unsigned int i = 0; i < held_count; i++) {
		if (held[i].rank < rank)
			continue;
		emdb_assert(nested && held[i].rank == rank &&
			    (uintptr_t)held[i].lock < (uintptr_t)lock);
	}
}

static void order_push(enum lock_rank rank, const void *lock)
{
	emdb_assert(held_count < HELD_MAX);
	held[held_count++] = (struct held){ rank, lock };
}

static void order_pop(const void *lock)
{
	unsigned int i = held_count;

	while (i && held[i - 1].lock != lock)
		i--;
	emdb_assert(i); /* not held by this thread */
	for (; i < held_count; i++)
		held[i - 1] = held[i];
	held_count--;
}

void lock_assert_held(enum lock_rank rank)
{
	for (unsigned int i = 0; i < held_count; i++)
		if (held[i].rank == rank)
			return;
	emdb_assert(false);
}

void lock_assert_none(void)
{
	for (unsigned int i = 0; i < held_count; i++)
		emdb_assert(held[i].rank == LOCK_UNRANKED);
}

#define ORDER_INIT(l, r)       ((l)->rank = (r))
#define ORDER_CHECK(l, nested) order_check((l)->rank, l, nested)
#define ORDER_PUSH(l)          order_push((l)->rank, l)
#define ORDER_POP(l)           order_pop(l)

#else

void lock_assert_held(enum lock_rank rank)
{
	(void)rank;
}

void lock_assert_none(void)
{
}

#define ORDER_INIT(l, r)       ((void)(r))
#define ORDER_CHECK(l, nested) ((void)0)
#define ORDER_PUSH(l)          ((void)0)
#define ORDER_POP(l)           ((void)0)

#endif

/* ---- Mutex ---- */

void mutex_init(struct mutex *m, enum lock_rank rank)
{
	ORDER_INIT(m, rank);
#ifdef EMDB_DEBUG
	pthread_mutexattr_t attr;

	must(pthread_mutexattr_init(&attr));
	must(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK));
	must(pthread_mutex_init(&m->m, &attr));
	must(pthread_mutexattr_destroy(&attr));
#else
	must(pthread_mutex_init(&m->m, NULL));
#endif
}

void mutex_destroy(struct mutex *m)
{
	must(pthread_mutex_destroy(&m->m));
}

EMDB_NO_TSA void mutex_lock(struct mutex *m)
{
	ORDER_CHECK(m, false);
	must(pthread_mutex_lock(&m->m));
	ORDER_PUSH(m);
}

EMDB_NO_TSA void mutex_lock_nested(struct mutex *m)
{
	ORDER_CHECK(m, true);
	must(pthread_mutex_lock(&m->m));
	ORDER_PUSH(m);
}

EMDB_NO_TSA bool mutex_trylock(struct mutex *m)
{
	const int err = pthread_mutex_trylock(&m->m);

	if (err == EBUSY)
		return false;
	must(err);
	ORDER_PUSH(m);
	return true;
}

EMDB_NO_TSA void mutex_unlock(struct mutex *m)
{
	ORDER_POP(m);
	must(pthread_mutex_unlock(&m->m));
}

/* ---- Reader-writer lock ---- */

void rwlock_init(struct rwlock *l, enum lock_rank rank)
{
	pthread_rwlockattr_t attr;

	ORDER_INIT(l, rank);
	must(pthread_rwlockattr_init(&attr));
	must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	must(pthread_rwlock_init(&l->rw, &attr));
	must(pthread_rwlockattr_destroy(&attr));
	must(pthread_mutex_init(&l->writers, NULL));
}

void rwlock_destroy(struct rwlock *l)
{
	must(pthread_rwlock_destroy(&l->rw));
	must(pthread_mutex_destroy(&l->writers));
}

EMDB_NO_TSA void rwlock_rdlock(struct rwlock *l)
{
	ORDER_CHECK(l, false);
	must(pthread_rwlock_rdlock(&l->rw));
	ORDER_PUSH(l);
}

EMDB_NO_TSA bool rwlock_tryrdlock(struct rwlock *l)
{
	const int err = pthread_rwlock_tryrdlock(&l->rw);

	if (err == EBUSY)
		return false;
	must(err);
	ORDER_PUSH(l);
	return true;
}

EMDB_NO_TSA void rwlock_rdunlock(struct rwlock *l)
{
	ORDER_POP(l);
	must(pthread_rwlock_unlock(&l->rw));
}

EMDB_NO_TSA void rwlock_wrlock(struct rwlock *l)
{
	ORDER_CHECK(l, false);
	must(pthread_mutex_lock(&l->writers));
	must(pthread_rwlock_wrlock(&l->rw));
	ORDER_PUSH(l);
}

EMDB_NO_TSA bool rwlock_trywrlock(struct rwlock *l)
{
	int err = pthread_mutex_trylock(&l->writers);

	if (err == EBUSY)
		return false;
	must(err);
	err = pthread_rwlock_trywrlock(&l->rw);
	if (err == EBUSY) {
		must(pthread_mutex_unlock(&l->writers));
		return false;
	}
	must(err);
	ORDER_PUSH(l);
	return true;
}

EMDB_NO_TSA void rwlock_wrunlock(struct rwlock *l)
{
	ORDER_POP(l);
	must(pthread_rwlock_unlock(&l->rw));
	must(pthread_mutex_unlock(&l->writers));
}

/* ---- Condition variable ---- */

void cond_init(struct cond *c)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(&c->c, &attr));
	must(pthread_condattr_destroy(&attr));
}

void cond_destroy(struct cond *c)
{
	must(pthread_cond_destroy(&c->c));
}

void cond_signal(struct cond *c)
{
	must(pthread_cond_signal(&c->c));
}

void cond_broadcast(struct cond *c)
{
	must(pthread_cond_broadcast(&c->c));
}

EMDB_NO_TSA void cond_wait(struct cond *c, struct mutex *m)
{
	ORDER_POP(m);
	must(pthread_cond_wait(&c->c, &m->m));
	ORDER_PUSH(m);
}

EMDB_NO_TSA bool cond_wait_until(struct cond *c, struct mutex *m, uint64_t deadline_ns)
{
	const struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};
	int err;

	ORDER_POP(m);
	err = pthread_cond_timedwait(&c->c, &m->m, &ts);
	ORDER_PUSH(m);
	if (err == ETIMEDOUT)
		return false;
	must(err);
	return true;
}

/* ---- Threads ---- */

int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg)
{
	sigset_t all, before;
	int rc;

	(void)sigfillset(&all);
	(void)sigdelset(&all, SIGBUS);
	(void)sigdelset(&all, SIGSEGV);
	(void)sigdelset(&all, SIGFPE);
	(void)sigdelset(&all, SIGILL);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(ret, NULL, fn, arg);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc == 0)
		(void)pthread_setname_np(*ret, name);
	return -rc;
}
