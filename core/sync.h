/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync: locks with contracts. Thin wrappers over pthread that carry clang's thread-safety
 * attributes and, in debug builds, check the lock order on every acquire.
 *
 * Lock order. Every lock has a rank from the table below, given at init. A thread may acquire a lock
 * only when its rank is greater than the rank of every lock it holds; two locks of one rank only by
 * mutex_lock_nested, in ascending address order. With -DEMDB_DEBUG a breach aborts at the acquire.
 * try-locks are not checked (they cannot deadlock) but count as held.
 *
 * Errors. Locking does not fail: a misuse that pthread reports (deadlock, not owner) aborts.
 * Initialisation takes no memory on Linux and does not fail either.
 *
 * Not recursive, shared side of the rwlock included: readers let a waiting writer in first, so a
 * thread that holds it shared and asks again can wait for ever behind one.
 */
#ifndef EMDB_SYNC_H
#define EMDB_SYNC_H

#include <pthread.h>

#include "core/base.h"

/* ---- Contracts checked by clang -Wthread-safety ---- */

#if defined(__clang__)
#define EMDB_TSA(x) __attribute__((x))
#else
#define EMDB_TSA(x)
#endif

#define EMDB_CAPABILITY(name)        EMDB_TSA(capability(name))
#define EMDB_REQUIRES(...)           EMDB_TSA(requires_capability(__VA_ARGS__))
#define EMDB_REQUIRES_SHARED(...)    EMDB_TSA(requires_shared_capability(__VA_ARGS__))
#define EMDB_ACQUIRE(...)            EMDB_TSA(acquire_capability(__VA_ARGS__))
#define EMDB_ACQUIRE_SHARED(...)     EMDB_TSA(acquire_shared_capability(__VA_ARGS__))
#define EMDB_RELEASE(...)            EMDB_TSA(release_capability(__VA_ARGS__))
#define EMDB_RELEASE_SHARED(...)     EMDB_TSA(release_shared_capability(__VA_ARGS__))
#define EMDB_TRY_ACQUIRE(...)        EMDB_TSA(try_acquire_capability(__VA_ARGS__))
#define EMDB_TRY_ACQUIRE_SHARED(...) EMDB_TSA(try_acquire_shared_capability(__VA_ARGS__))
#define EMDB_EXCLUDES(...)           EMDB_TSA(locks_excluded(__VA_ARGS__))
#define EMDB_NO_TSA                  EMDB_TSA(no_thread_safety_analysis)

/* ---- The lock-order table: acquire downwards ---- */

enum lock_rank {
	LOCK_UNRANKED = 0, /* not checked; for tests */
	LOCK_ADMIN,     /* one long job at a time: compaction, checkpoint, snapshot, key change */
	LOCK_CKPT,      /* one checkpoint at a time, by itself or within such a job */
	LOCK_STRUCTURE, /* db: shared by one-key operations, exclusive by structural ones */
	LOCK_STRIPE,    /* db: writers of one key; several only in ascending address order */
	LOCK_GONE,      /* db: what goes while a checkpoint is written */
	LOCK_OBJTAB,    /* object table */
	LOCK_OBJ,       /* one object */
	LOCK_VIEW,      /* what open views see */
	LOCK_HIDX,      /* writers of a hash index */
	LOCK_OIDX,      /* writers of the ordered index */
	LOCK_TTL,       /* expiry queue */
	LOCK_ROLL,      /* journal: next segment; held across its creation */
	LOCK_MANIFEST,  /* manifest; held across its durable replacement */
	LOCK_SEGMENT,   /* segment table */
	LOCK_SYNC,      /* journal: group commit; never held across fdatasync */
	LOCK_EPOCH,     /* deferred frees */
	LOCK_ASYNC,     /* job queue */
	LOCK_IO,        /* inside an io backend; nobody waits for the ring's, held over a batch */
	LOCK_LEAF,      /* held for a few instructions, nothing acquired under it */
	LOCK_RANK_COUNT
};

/* ---- Mutex ---- */

struct EMDB_CAPABILITY("mutex") mutex {
	pthread_mutex_t m;
#ifdef EMDB_DEBUG
	enum lock_rank rank; /* immutable after init */
#endif
};

void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m) EMDB_ACQUIRE(m);
bool mutex_trylock(struct mutex *m) EMDB_TRY_ACQUIRE(true, m) EMDB_MUST_CHECK;
void mutex_unlock(struct mutex *m) EMDB_RELEASE(m);

/*
 * As mutex_lock, and allows locks of the same rank to be held, if their addresses are lower. The
 * caller sorts. clang takes the elements of an array for one lock: a function that holds several is
 * EMDB_NO_TSA.
 */
void mutex_lock_nested(struct mutex *m) EMDB_ACQUIRE(m);

/* ---- Reader-writer lock ---- */

/*
 * Phases take turns.  Readers that come while a writer waits let it in first; and as writers queue
 * up before the lock, one at a time being known to it, all readers that wait come in when it leaves.
 * So neither side can keep the other out, however many come.
 */
struct EMDB_CAPABILITY("rwlock") rwlock {
	pthread_rwlock_t rw;
	pthread_mutex_t writers; /* held by the writer that has or awaits rw */
#ifdef EMDB_DEBUG
	enum lock_rank rank; /* immutable after init */
#endif
};

void rwlock_init(struct rwlock *l, enum lock_rank rank);
void rwlock_destroy(struct rwlock *l);
void rwlock_rdlock(struct rwlock *l) EMDB_ACQUIRE_SHARED(l);
bool rwlock_tryrdlock(struct rwlock *l) EMDB_TRY_ACQUIRE_SHARED(true, l) EMDB_MUST_CHECK;
void rwlock_rdunlock(struct rwlock *l) EMDB_RELEASE_SHARED(l);
void rwlock_wrlock(struct rwlock *l) EMDB_ACQUIRE(l);
bool rwlock_trywrlock(struct rwlock *l) EMDB_TRY_ACQUIRE(true, l) EMDB_MUST_CHECK;
void rwlock_wrunlock(struct rwlock *l) EMDB_RELEASE(l);

/* ---- Condition variable on CLOCK_MONOTONIC ---- */

struct cond {
	pthread_cond_t c;
};

void cond_init(struct cond *c);
void cond_destroy(struct cond *c);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);

/* Wakes spuriously: call in a loop over the condition. */
void cond_wait(struct cond *c, struct mutex *m) EMDB_REQUIRES(m);

/*
 * Waits until the monotonic clock (io_clock_mono_ns of the POSIX backend) reaches deadline_ns.
 * False when it did, true when woken before.
 */
bool cond_wait_until(struct cond *c, struct mutex *m, uint64_t deadline_ns) EMDB_REQUIRES(m);

/* ---- Threads ---- */

/*
 * pthread_create with all signals blocked but those of a fault: they are the program's, not ours.
 * The name, of at most 15 bytes, is for people: "top -H", debuggers and profiles show it.
 * 0 or a negative errno.
 */
int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg),
		 void *arg) EMDB_MUST_CHECK;

/* ---- Debug ---- */

/*
 * Abort unless the calling thread holds a lock of this rank (or, the other, no ranked lock at all).
 * Do nothing without EMDB_DEBUG.
 */
void lock_assert_held(enum lock_rank rank);
void lock_assert_none(void);

#endif
