/* SPDX-License-Identifier: Apache-2.0 */
/*
 * async_i: the inside of a queue of asynchronous operations, for async.c, async_op.c and
 * async_stream.c.
 *
 * A job is what a thread of the queue does: one operation, or the reading ahead of one stream. A job
 * is in the list of the queue, or with a thread, or with its owner; only the list is shared.
 *
 * Life of an operation's slot: free -> queued (in the list) -> with a thread -> waiting for a sync
 * (with EMDB_OP_DURABLE) -> done (in the list of completions, or in its callback) -> free.
 *
 * Locks. One per queue, rank LOCK_ASYNC. The library and callbacks are called without it.
 */
#ifndef EMDB_ASYNC_I_H
#define EMDB_ASYNC_I_H

#include <stdatomic.h>

#include "core/emdb.h"
#include "core/sync.h"

struct async_job {
	struct async_job *next;
	struct async_job **prev; /* NULL: not in the list; both guarded by the queue's lock */
	void (*run)(struct async_job *job); /* immutable */
};

struct emdb_op_run {
	struct async_job job;
	emdb_async *async;        /* immutable */
	uint32_t index;           /* immutable */
	uint32_t generation;      /* counts up when the slot is freed; guarded by lock */
	bool used, done;          /* guarded by lock */
	_Atomic(bool) cancelled;  /* atomic: relaxed, a wish */
	struct emdb_op_run *next; /* of the free or the done; guarded by lock */
	/* The owner's: the submitter's, then the thread's. */
	struct emdb_op op; /* key and value lie in copy */
	uint8_t *copy;
	struct emdb_completion c;
};

struct emdb_async {
	emdb_db *db; /* immutable */
	int fd;      /* immutable */
	struct mutex lock;
	struct cond work;                     /* with lock: a job is there, or stop */
	struct cond changed;                  /* with lock: a completion, or nothing in flight */
	struct async_job *jobs, **jobs_end;   /* guarded by lock */
	bool stop;                            /* guarded by lock */
	struct emdb_op_run *slots;            /* depth of them */
	uint32_t depth;                       /* immutable */
	uint32_t slots_begun;                 /* those above were never used; guarded by lock */
	struct emdb_op_run *free;             /* guarded by lock */
	struct emdb_op_run *done, **done_end; /* to be polled; guarded by lock */
	uint32_t in_flight;                   /* submitted and not done; guarded by lock */
	uint32_t nthreads;                    /* immutable */
	pthread_t threads[EMDB_ASYNC_THREADS_MAX]; /* immutable */
};

void async_job_put_locked(emdb_async *async, struct async_job *job) EMDB_REQUIRES(&async->lock);
/* Takes a job out of the list. */
void async_job_take_locked(emdb_async *async, struct async_job *job) EMDB_REQUIRES(&async->lock);

/* async_op.c: does what op says and fills in the completion, but for EMDB_OP_DURABLE. */
void async_op_do(emdb_db *db, struct emdb_op_run *run);
/* Copies key and value; NULL key_len and such are fine.  INVAL, KEY_TOO_LONG, NOMEM. */
emdb_err async_op_take(const struct emdb_op *op, struct emdb_op *ret, uint8_t **ret_copy);

/* ms from now on the clock of cond_wait_until(). */
uint64_t async_deadline(emdb_db *db, int timeout_ms);

#endif
