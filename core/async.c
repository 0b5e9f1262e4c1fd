/* SPDX-License-Identifier: Apache-2.0 */
#include "core/async_i.h"

#include "core/store.h"

#define THREADS_DEFAULT 2u
#define DEPTH_DEFAULT   1024u

/* ---- Jobs --------------------------------------------------------------- */

void async_job_put_locked(emdb_async *async, struct async_job *job)
{
	job->next = NULL;
	job->prev = async->jobs_end;
	*async->jobs_end = job;
	async->jobs_end = &job->next;
	cond_signal(&async->work);
}

void async_job_take_locked(emdb_async *async, struct async_job *job)
{
	*job->prev = job->next;
	if (job->next)
		job->next->prev = job->prev;
	else
		async->jobs_end = job->prev;
	job->next = NULL;
	job->prev = NULL;
}

static void *worker_main(void *arg)
{
	emdb_async *const async = arg;

	mutex_lock(&async->lock);
	for (;;) {
		struct async_job *const job = async->jobs;

		if (job) {
			async_job_take_locked(async, job);
			mutex_unlock(&async->lock);
			job->run(job);
			mutex_lock(&async->lock);
		} else if (async->stop) {
			break;
		} else {
			cond_wait(&async->work, &async->lock);
		}
	}
	mutex_unlock(&async->lock);
	return NULL;
}

uint64_t async_deadline(emdb_db *db, int timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX
			      : io_clock_mono_ns(db->io) + (uint64_t)timeout_ms * UINT64_C(1000000);
}

/* ---- Slots -------------------------------------------------------------- */

static uint64_t run_id(const struct emdb_op_run *run)
{
	return (uint64_t)run->generation << 32 | run->index;
}

static struct emdb_op_run *slot_take_locked(emdb_async *async) EMDB_REQUIRES(&async->lock);
static struct emdb_op_run *slot_take_locked(emdb_async *async)
{
	struct emdb_op_run *run = async->free;

	if (run) {
		async->free = run->next;
	} else if (async->slots_begun < async->depth) {
		run = &async->slots[async->slots_begun];
		run->async = async;
		run->index = async->slots_begun++;
		run->generation = 1;
	} else {
		return NULL;
	}
	run->next = NULL;
	run->used = true;
	run->done = false;
	atomic_store_explicit(&run->cancelled, false, memory_order_relaxed);
	async->in_flight++;
	return run;
}

static void slot_free_locked(emdb_async *async, struct emdb_op_run *run)
	EMDB_REQUIRES(&async->lock);
static void slot_free_locked(emdb_async *async, struct emdb_op_run *run)
{
	run->used = false;
	/* 0 stays out, so that no id is 0. */
	run->generation += run->generation == UINT32_MAX ? 2 : 1;
	run->next = async->free;
	async->free = run;
}

/* ---- How an operation goes ---------------------------------------------- */

static void run_finish(struct emdb_op_run *run)
{
	emdb_async *const async = run->async;

	base_free(run->copy);
	run->copy = NULL;
	run->c.id = run_id(run);
	mutex_lock(&async->lock);
	run->done = true;
	if (run->op.done) {
		mutex_unlock(&async->lock);
		run->op.done(run->op.user, &run->c);
		mutex_lock(&async->lock);
		slot_free_locked(async, run);
	} else {
		if (!async->done)
			io_event_set(async->fd);
		*async->done_end = run;
		async->done_end = &run->next;
	}
	async->in_flight--;
	cond_broadcast(&async->changed);
	mutex_unlock(&async->lock);
}

static void run_synced(void *ctx, emdb_err err)
{
	struct emdb_op_run *const run = ctx;

	run->c.err = err;
	run_finish(run);
}

static void run_main(struct async_job *job)
{
	struct emdb_op_run *const run = container_of(job, struct emdb_op_run, job);

	async_op_do(run->async->db, run);
	if (run->c.err == EMDB_OK &&
	    (run->op.kind == EMDB_OP_FLUSH || (run->op.flags & EMDB_OP_DURABLE)))
		emdb_flush_async(run->async->db, run_synced, run);
	else
		run_finish(run);
}

static void run_cancel(struct emdb_op_run *run)
{
	run->c.err = EMDB_ERR_CANCELLED;
	run_finish(run);
}

emdb_err emdb_async_submit(emdb_async *async, const struct emdb_op *op, uint64_t *ret_id)
{
	struct emdb_op_run *run;
	struct emdb_op taken;
	uint8_t *copy;
	uint64_t id;
	emdb_err err;

	err = async_op_take(op, &taken, &copy);
	if (err)
		return err;
	mutex_lock(&async->lock);
	run = slot_take_locked(async);
	if (!run) {
		mutex_unlock(&async->lock);
		base_free(copy);
		return EMDB_ERR_AGAIN;
	}
	run->op = taken;
	run->copy = copy;
	run->c = (struct emdb_completion){ .user = op->user, .kind = op->kind };
	run->job.run = run_main;
	id = run_id(run);
	if (ret_id)
		*ret_id = id;
	async_job_put_locked(async, &run->job);
	mutex_unlock(&async->lock);
	return EMDB_OK;
}

bool emdb_op_cancelled(const emdb_op_run *run)
{
	return atomic_load_explicit(&run->cancelled, memory_order_relaxed);
}

emdb_err emdb_async_cancel(emdb_async *async, uint64_t id)
{
	const uint32_t index = (uint32_t)id;
	struct emdb_op_run *run = NULL;
	emdb_err err;

	mutex_lock(&async->lock);
	if (index < async->slots_begun)
		run = &async->slots[index];
	if (!run || !run->used || run->done || run_id(run) != id) {
		mutex_unlock(&async->lock);
		return EMDB_ERR_NOT_FOUND;
	}
	if (run->job.prev) {
		async_job_take_locked(async, &run->job);
		mutex_unlock(&async->lock);
		run_cancel(run);
		return EMDB_OK;
	}
	atomic_store_explicit(&run->cancelled, true, memory_order_relaxed);
	err = run->op.kind == EMDB_OP_COMPACT || run->op.kind == EMDB_OP_BACKUP ||
			      run->op.kind == EMDB_OP_CALL
		      ? EMDB_OK
		      : EMDB_ERR_BUSY;
	mutex_unlock(&async->lock);
	return err;
}

/* ---- Completions -------------------------------------------------------- */

static size_t take_done_locked(emdb_async *async, struct emdb_completion *ret, size_t max)
	EMDB_REQUIRES(&async->lock);
static size_t take_done_locked(emdb_async *async, struct emdb_completion *ret, size_t max)
{
	size_t n = 0;

	while (n < max && async->done) {
		struct emdb_op_run *const run = async->done;

		async->done = run->next;
		ret[n++] = run->c;
		slot_free_locked(async, run);
	}
	if (!async->done) {
		async->done_end = &async->done;
		if (n)
			io_event_clear(async->fd);
	}
	return n;
}

emdb_err emdb_async_poll(emdb_async *async, struct emdb_completion *ret, size_t max, int timeout_ms,
			 size_t *ret_count)
{
	const uint64_t deadline = async_deadline(async->db, timeout_ms);

	if (!ret || max == 0)
		return EMDB_ERR_INVAL;
	mutex_lock(&async->lock);
	while (!async->done && async->in_flight && timeout_ms != 0 &&
	       cond_wait_until(&async->changed, &async->lock, deadline))
		;
	*ret_count = take_done_locked(async, ret, max);
	mutex_unlock(&async->lock);
	return EMDB_OK;
}

int emdb_async_fd(const emdb_async *async)
{
	return async->fd;
}

/* ---- New and gone ------------------------------------------------------- */

static void threads_join(emdb_async *async)
{
	mutex_lock(&async->lock);
	async->stop = true;
	cond_broadcast(&async->work);
	mutex_unlock(&async->lock);
	for (uint32_t i = 0; i < async->nthreads; i++)
		(void)pthread_join(async->threads[i], NULL);
}

static void async_release(emdb_async *async)
{
	io_event_close(async->fd);
	cond_destroy(&async->changed);
	cond_destroy(&async->work);
	mutex_destroy(&async->lock);
	base_free(async->slots);
	base_free(async);
}

emdb_err emdb_async_new(emdb_db *db, const struct emdb_async_options *opts, emdb_async **ret_async)
{
	const struct emdb_async_options none = { .size = sizeof(none) };
	uint32_t threads;
	emdb_async *async;
	int rc;

	opts = opts ? opts : &none;
	if (opts->size != sizeof(none) || opts->threads > EMDB_ASYNC_THREADS_MAX ||
	    opts->depth > EMDB_ASYNC_DEPTH_MAX)
		return EMDB_ERR_INVAL;
	async = base_calloc(1, sizeof(*async));
	if (!async)
		return EMDB_ERR_NOMEM;
	async->db = db;
	async->fd = -1;
	async->jobs_end = &async->jobs;
	async->done_end = &async->done;
	async->depth = opts->depth ? opts->depth : DEPTH_DEFAULT;
	mutex_init(&async->lock, LOCK_ASYNC);
	cond_init(&async->work);
	cond_init(&async->changed);
	/* Zeroed pages that were never touched cost nothing. */
	async->slots = base_calloc(async->depth, sizeof(*async->slots));
	rc = async->slots ? io_event_new(&async->fd) : -ENOMEM;
	threads = opts->threads ? opts->threads : THREADS_DEFAULT;
	while (rc == 0 && async->nthreads < threads) {
		rc = thread_start(&async->threads[async->nthreads], "emdb-async", worker_main,
				  async);
		async->nthreads += rc == 0;
	}
	if (rc == 0) {
		*ret_async = async;
		return EMDB_OK;
	}
	threads_join(async);
	async_release(async);
	return rc == -EMFILE || rc == -ENFILE ? EMDB_ERR_TOO_MANY_FILES : EMDB_ERR_NOMEM;
}

/* The operations that no thread has begun. */
static void cancel_queued(emdb_async *async)
{
	mutex_lock(&async->lock);
	while (async->jobs) {
		struct async_job *const job = async->jobs;

		async_job_take_locked(async, job);
		mutex_unlock(&async->lock);
		run_cancel(container_of(job, struct emdb_op_run, job));
		mutex_lock(&async->lock);
	}
	/* A job of several steps stops at its next one. */
	for (uint32_t i = 0; i < async->slots_begun; i++)
		atomic_store_explicit(&async->slots[i].cancelled, true, memory_order_relaxed);
	mutex_unlock(&async->lock);
}

void emdb_async_free(emdb_async *async)
{
	struct emdb_completion c;

	if (!async)
		return;
	cancel_queued(async);
	threads_join(async);
	mutex_lock(&async->lock);
	while (async->in_flight)
		cond_wait(&async->changed, &async->lock);
	while (take_done_locked(async, &c, 1))
		base_free(c.value);
	mutex_unlock(&async->lock);
	async_release(async);
}
