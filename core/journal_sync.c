/* SPDX-License-Identifier: Apache-2.0 */
#include "core/journal_i.h"

#include <sched.h>

/* Spins before a waiting thread gives its processor away. */
#define SPINS 100
/* Two callers of this far apart are a crowd, for as long. */
#define CROWD_NS UINT64_C(10000000)
/* Segments synced side by side. */
#define SYNC_FDS 8

/* ---- Frames in flight ------------------------------------------------- */

static inline void relax(unsigned int *turn)
{
	if (++*turn < SPINS)
#if defined(__x86_64__) || defined(__i386__)
		__builtin_ia32_pause();
#else
		atomic_signal_fence(memory_order_seq_cst);
#endif
	else
		(void)sched_yield();
}

struct inflight *inflight_enter(struct journal *j, uint64_t *ret_tail)
{
	const int cpu = sched_getcpu();
	unsigned int i = cpu < 0 ? 0 : (unsigned int)cpu, turn = 0;
	const uint64_t tail = journal_load_tail(j);

	for (;; i++) {
		struct inflight *const slot = &j->slots[i % JOURNAL_SLOTS];
		uint64_t free = 0;

		if (atomic_compare_exchange_strong(&slot->lsn, &free, tail)) {
			*ret_tail = tail;
			return slot;
		}
		if (i % JOURNAL_SLOTS == JOURNAL_SLOTS - 1)
			relax(&turn);
	}
}

void inflight_leave(struct inflight *slot)
{
	atomic_store_explicit(&slot->lsn, 0, memory_order_release);
}

/* Returns when every frame below target has been written, or has failed to be. */
static void inflight_wait(const struct journal *j, uint64_t target)
{
	for (unsigned int i = 0; i < JOURNAL_SLOTS; i++) {
		unsigned int turn = 0;

		for (;;) {
			const uint64_t at = atomic_load(&j->slots[i].lsn);

			if (at == 0 || at >= target)
				break;
			relax(&turn);
		}
	}
}

/* ---- One sync --------------------------------------------------------- */

/*
 * Descriptors of segments after *after that may hold something between durable and target, oldest
 * first. They stay open: sealing, which closes them, excludes the leader.
 */
static size_t dirty_fds(struct journal *j, uint64_t target, uint64_t *after, int fds[SYNC_FDS])
{
	const uint64_t durable = journal_durable(j);
	size_t n = 0, i;

	mutex_lock(&j->segment_lock);
	for (i = j->count; i > 0 && segment_state(j->list[i - 1]) != SEGMENT_SEALED; i--)
		;
	for (; i < j->count && n < SYNC_FDS; i++) {
		const struct segment *const s = j->list[i];

		if (s->id > *after && segment_state(s) != SEGMENT_SPARE && s->base < target &&
		    s->base + segment_len(s) > durable) {
			fds[n++] = s->fd;
			*after = s->id;
		}
	}
	mutex_unlock(&j->segment_lock);
	return n;
}

static int sync_segments(struct journal *j, uint64_t target)
{
	int fds[SYNC_FDS], rc = 0;
	uint64_t after = 0;
	size_t n;

	while (rc == 0 && (n = dirty_fds(j, target, &after, fds)) > 0)
		rc = n == 1 ? io_fdatasync(j->cfg.io, fds[0]) : io_sync_batch(j->cfg.io, fds, n);
	return rc;
}

/* Syncs everything that is reserved. The caller is the leader and holds no lock. */
static void sync_once(struct journal *j)
{
	const uint64_t target = journal_load_tail(j);
	int rc;

	inflight_wait(j, target);
	if (journal_has_failed(j))
		return;
	rc = sync_segments(j, target);
	if (rc < 0) {
		journal_fail(j, "syncing", rc);
		return;
	}
	mutex_lock(&j->sync_lock);
	/*
	 * A hole above target may have appeared meanwhile: true all the same, but J4 says no
	 * more.
	 */
	if (!journal_has_failed(j))
		atomic_store_explicit(&j->durable, target, memory_order_release);
	mutex_unlock(&j->sync_lock);
}

/* ---- Group commit ----------------------------------------------------- */

static unsigned int bucket_of(uint64_t n)
{
	/* 1, 2, 3-4, 5-8, ... */
	const unsigned int b = n <= 1 ? 0 : 64u - (unsigned int)__builtin_clzll(n - 1);

	return b < EMDB_GROUP_BUCKETS ? b : EMDB_GROUP_BUCKETS - 1;
}

/* Waits for others to join, when there have been others lately. */
static void gather_locked(struct journal *j) EMDB_REQUIRES(&j->sync_lock);
static void gather_locked(struct journal *j)
{
	const uint64_t now = io_clock_mono_ns(j->cfg.io);
	const uint64_t deadline = now + (uint64_t)j->cfg.group_window_us * 1000;

	if (j->cfg.flush != EMDB_FLUSH_GROUP || now >= j->crowd_until_ns || j->stop)
		return;
	j->gathering = true;
	/* As many as last time are there: waiting longer would hold them up for nothing. */
	while (!journal_has_failed(j) && !j->stop &&
	       (j->pending < 2 || j->pending < j->last_group) &&
	       cond_wait_until(&j->sync_more, &j->sync_lock, deadline))
		;
	j->gathering = false;
}

/* Syncs for all who wait. */
static void lead_locked(struct journal *j) EMDB_REQUIRES(&j->sync_lock);
static void lead_locked(struct journal *j)
{
	j->leader = true;
	gather_locked(j);
	if (j->pending) {
		j->group_size[bucket_of(j->pending)]++;
		j->last_group = j->pending;
		j->pending = 0;
	}
	j->round++;
	j->syncs++;
	mutex_unlock(&j->sync_lock);
	sync_once(j);
	mutex_lock(&j->sync_lock);
	j->leader = false;
	cond_broadcast(&j->sync_done);
	cond_signal(&j->flusher_wake);
}

/* Somebody wants a sync. */
static void join_locked(struct journal *j) EMDB_REQUIRES(&j->sync_lock);
static void join_locked(struct journal *j)
{
	j->flushes++;
	j->pending++;
	if (j->cfg.flush == EMDB_FLUSH_GROUP) {
		const uint64_t now = io_clock_mono_ns(j->cfg.io);

		if (!pthread_equal(j->last_caller, pthread_self()) &&
		    now - j->last_call_ns < CROWD_NS)
			j->crowd_until_ns = now + CROWD_NS;
		j->last_caller = pthread_self();
		j->last_call_ns = now;
	}
	if (j->gathering)
		cond_signal(&j->sync_more);
}

static emdb_err wait_locked(struct journal *j, uint64_t target) EMDB_REQUIRES(&j->sync_lock);
static emdb_err wait_locked(struct journal *j, uint64_t target)
{
	while (!journal_has_failed(j) && journal_durable(j) < target) {
		if (j->leader)
			cond_wait(&j->sync_done, &j->sync_lock);
		else
			lead_locked(j);
	}
	return journal_durable(j) >= target ? EMDB_OK : EMDB_ERR_IO;
}

emdb_err journal_sync_to(struct journal *j, uint64_t target)
{
	emdb_err err;

	if (journal_has_failed(j))
		return EMDB_ERR_FAILED;
	mutex_lock(&j->sync_lock);
	err = wait_locked(j, target);
	mutex_unlock(&j->sync_lock);
	return err;
}

emdb_err journal_sync(struct journal *j)
{
	const uint64_t target = journal_load_tail(j);
	uint64_t round;
	emdb_err err;

	if (!atomic_load_explicit(&j->running, memory_order_acquire))
		return EMDB_ERR_READ_ONLY;
	if (journal_has_failed(j))
		return EMDB_ERR_FAILED;
	mutex_lock(&j->sync_lock);
	if (journal_durable(j) >= target) {
		j->flushes++;
		mutex_unlock(&j->sync_lock);
		return EMDB_OK;
	}
	join_locked(j);
	round = j->round;
	err = wait_locked(j, target);
	/* Served by a sync that had begun before: the next one is not for us. */
	if (j->round == round && j->pending)
		j->pending--;
	mutex_unlock(&j->sync_lock);
	return err;
}

void journal_sync_async(struct journal *j, void (*done)(void *ctx, emdb_err err), void *ctx)
{
	const uint64_t target = journal_load_tail(j);
	struct sync_req *const req = base_malloc(sizeof(*req));

	/* Without memory slow is better than not at all. */
	if (!req || !atomic_load_explicit(&j->running, memory_order_acquire) ||
	    journal_has_failed(j)) {
		base_free(req);
		done(ctx, journal_sync(j));
		return;
	}
	*req = (struct sync_req){ .done = done, .ctx = ctx, .target = target };
	mutex_lock(&j->sync_lock);
	if (journal_durable(j) >= target) {
		j->flushes++;
		mutex_unlock(&j->sync_lock);
		base_free(req);
		done(ctx, EMDB_OK);
		return;
	}
	join_locked(j);
	*j->reqs_end = req;
	j->reqs_end = &req->next;
	cond_signal(&j->flusher_wake);
	mutex_unlock(&j->sync_lock);
}

void sync_exclude(struct journal *j)
{
	mutex_lock(&j->sync_lock);
	while (j->leader)
		cond_wait(&j->sync_done, &j->sync_lock);
	j->leader = true;
	mutex_unlock(&j->sync_lock);
}

void sync_admit(struct journal *j)
{
	mutex_lock(&j->sync_lock);
	j->leader = false;
	cond_broadcast(&j->sync_done);
	cond_signal(&j->flusher_wake);
	mutex_unlock(&j->sync_lock);
}

/* ---- The flusher ------------------------------------------------------ */

/* Answers every request that needs no more syncing; true when there was one. */
static bool answer_locked(struct journal *j) EMDB_REQUIRES(&j->sync_lock);
static bool answer_locked(struct journal *j)
{
	const uint64_t durable = journal_durable(j);
	const bool failed = journal_has_failed(j);
	struct sync_req *ready = NULL, **ready_end = &ready, **at = &j->reqs;

	while (*at) {
		struct sync_req *const req = *at;

		if (req->target > durable && !failed) {
			at = &req->next;
			continue;
		}
		*at = req->next;
		req->next = NULL;
		*ready_end = req;
		ready_end = &req->next;
	}
	j->reqs_end = at;
	if (!ready)
		return false;
	mutex_unlock(&j->sync_lock);
	while (ready) {
		struct sync_req *const req = ready;

		ready = req->next;
		req->done(req->ctx, req->target <= durable ? EMDB_OK : EMDB_ERR_IO);
		base_free(req);
	}
	mutex_lock(&j->sync_lock);
	return true;
}

static void *flusher_main(void *arg)
{
	struct journal *const j = arg;
	const uint64_t interval_ns =
		j->cfg.commit_interval_s > 0 ? (uint64_t)j->cfg.commit_interval_s * 1000000000 : 0;
	uint64_t next = io_clock_mono_ns(j->cfg.io) + interval_ns;

	mutex_lock(&j->sync_lock);
	while (!j->stop || j->reqs) {
		if (answer_locked(j))
			continue;
		if (j->reqs && !j->leader) {
			lead_locked(j);
		} else if (j->reqs || !interval_ns) {
			cond_wait(&j->flusher_wake, &j->sync_lock);
		} else if (!cond_wait_until(&j->flusher_wake, &j->sync_lock, next)) {
			if (!j->leader && !journal_has_failed(j) &&
			    journal_durable(j) < journal_load_tail(j))
				lead_locked(j);
			next = io_clock_mono_ns(j->cfg.io) + interval_ns;
		}
	}
	mutex_unlock(&j->sync_lock);
	return NULL;
}

/* ---- The keeper ------------------------------------------------------- */

void keeper_kick(struct journal *j)
{
	mutex_lock(&j->sync_lock);
	j->keeper_work = true;
	cond_signal(&j->keeper_wake);
	mutex_unlock(&j->sync_lock);
}

/* True when something is left to be tried again. */
static bool keep(struct journal *j)
{
	bool again = false;

	if (journal_has_failed(j))
		return false;
	if (recycle_sweep(j))
		again = true;
	if (atomic_load(&j->spare_asked) || atomic_load(&j->low_space)) {
		mutex_lock(&j->roll_lock);
		again = spare_make_locked(j, false) != EMDB_OK || again;
		mutex_unlock(&j->roll_lock);
	}
	return journal_seal(j) != EMDB_OK || again;
}

static void *keeper_main(void *arg)
{
	struct journal *const j = arg;
	bool again = false;

	mutex_lock(&j->sync_lock);
	while (!j->stop) {
		if (!j->keeper_work && !again) {
			cond_wait(&j->keeper_wake, &j->sync_lock);
			continue;
		}
		if (!j->keeper_work &&
		    cond_wait_until(&j->keeper_wake, &j->sync_lock,
				    io_clock_mono_ns(j->cfg.io) + KEEPER_TICK_NS))
			continue;
		j->keeper_work = false;
		mutex_unlock(&j->sync_lock);
		again = keep(j);
		mutex_lock(&j->sync_lock);
	}
	mutex_unlock(&j->sync_lock);
	return NULL;
}

/* ---- Both ------------------------------------------------------------- */

emdb_err threads_start(struct journal *j)
{
	j->flusher_runs = thread_start(&j->flusher, "emdb-flush", flusher_main, j) == 0;
	j->keeper_runs = thread_start(&j->keeper, "emdb-keep", keeper_main, j) == 0;
	if (j->flusher_runs && j->keeper_runs)
		return EMDB_OK;
	threads_stop(j);
	return EMDB_ERR_NOMEM;
}

void threads_stop(struct journal *j)
{
	mutex_lock(&j->sync_lock);
	j->stop = true;
	cond_broadcast(&j->sync_more);
	cond_broadcast(&j->flusher_wake);
	cond_broadcast(&j->keeper_wake);
	mutex_unlock(&j->sync_lock);
	if (j->flusher_runs)
		(void)pthread_join(j->flusher, NULL);
	if (j->keeper_runs)
		(void)pthread_join(j->keeper, NULL);
	j->flusher_runs = j->keeper_runs = false;
}
