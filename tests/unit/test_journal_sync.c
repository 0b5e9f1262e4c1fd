/* SPDX-License-Identifier: Apache-2.0 */
/* Group commit, asynchronous flushes, and everything at once from many threads. */
#include "tests/unit/journal_help.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define THREADS 8

static void nap(unsigned int ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void run_threads(unsigned int n, void *(*fn)(void *), void *args, size_t size)
{
	pthread_t t[32];

	for (unsigned int i = 0; i < n; i++)
		CHECK_OK(pthread_create(&t[i], NULL, fn, (char *)args + i * size));
	for (unsigned int i = 0; i < n; i++)
		CHECK_OK(pthread_join(t[i], NULL));
}

/* ---- Group commit ----------------------------------------------------- */

struct flusher {
	struct world *w;
	uint64_t id;
};

#define FLUSHES 40

static void *flush_often(void *arg)
{
	const struct flusher *const f = arg;

	for (uint64_t i = 0; i < FLUSHES; i++) {
		const uint64_t lsn = put(f->w->j, f->id * 1000 + i, 200);

		CHECK_OK(journal_sync(f->w->j));
		CHECK(journal_durable(f->w->j) > lsn);
	}
	return NULL;
}

/* A disk that takes its time, so that others arrive while one syncs. */
static int slow_sync(void *arg, const struct io_event *ev)
{
	(void)arg;
	if (ev->op == IO_OP_FDATASYNC)
		nap(1);
	return 0;
}

TEST(test_journal__group_commit)
{
	for (int policy = EMDB_FLUSH_EACH; policy <= EMDB_FLUSH_GROUP; policy++) {
		struct io_fault plan = { .before = slow_sync };
		struct flusher f[THREADS];
		struct journal_stats st;
		struct world w;
		uint64_t groups = 0;

		world_init(&w, test_dir());
		w.cfg.flush = (enum emdb_flush_policy)policy;
		w.cfg.group_window_us = 500;
		world_open(&w);
		emdb_io_fault_set(w.fault, &plan);
		for (unsigned int i = 0; i < THREADS; i++)
			f[i] = (struct flusher){ &w, i };
		run_threads(THREADS, flush_often, f, sizeof(f[0]));
		journal_stats_get(w.j, &st);
		CHECK_UEQ(st.flushes, THREADS * FLUSHES);
		CHECK(st.syncs < st.flushes / 2);
		for (unsigned int i = 0; i < EMDB_GROUP_BUCKETS; i++)
			groups += st.group_size[i];
		CHECK(groups <= st.syncs && st.group_size[2] + st.group_size[3] > 0);
		world_close(&w);
		CHECK_UEQ(world_open(&w), THREADS * FLUSHES);
		world_close(&w);
		world_release(&w);
	}
}

TEST(test_journal__one_caller_never_waits_for_a_group)
{
	struct world w;
	uint64_t start;

	world_init(&w, NULL);
	w.cfg.flush = EMDB_FLUSH_GROUP;
	w.cfg.group_window_us = 1000000;
	world_open(&w);
	start = now_ms();
	for (uint64_t i = 0; i < 20; i++) {
		put(w.j, i, 10);
		CHECK_OK(journal_sync(w.j));
	}
	CHECK(now_ms() - start < 900);
	world_close(&w);
	world_release(&w);
}

TEST(test_journal__sync_of_nothing_is_no_sync)
{
	struct world w;
	struct journal_stats st;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 1, 1);
	for (int i = 0; i < 10; i++)
		CHECK_OK(journal_sync(w.j));
	journal_stats_get(w.j, &st);
	CHECK_UEQ(st.syncs, 1);
	CHECK_UEQ(st.flushes, 10);
	world_close(&w);
	world_release(&w);
}

TEST(test_journal__background_commit)
{
	struct world w;
	const uint64_t start = now_ms();
	uint64_t tail;

	world_init(&w, NULL);
	w.cfg.commit_interval_s = 1;
	world_open(&w);
	put(w.j, 1, 1);
	tail = journal_tail(w.j);
	CHECK(journal_durable(w.j) < tail);
	while (journal_durable(w.j) < tail && now_ms() - start < 5000)
		nap(20);
	CHECK_UEQ(journal_durable(w.j), tail);
	world_close(&w);
	world_release(&w);
}

/* ---- Asynchronous ----------------------------------------------------- */

struct answers {
	_Atomic(uint64_t) ok, io, failed, other;
};

static void answer(void *ctx, emdb_err err)
{
	struct answers *const a = ctx;

	if (err == EMDB_OK)
		a->ok++;
	else if (err == EMDB_ERR_IO)
		a->io++;
	else if (err == EMDB_ERR_FAILED)
		a->failed++;
	else
		a->other++;
}

TEST(test_journal__async_flushes)
{
	struct io_fault plan = { .before = slow_sync };
	struct answers a = { 0 };
	struct journal_stats st;
	struct world w;

	world_init(&w, NULL);
	world_open(&w);
	journal_sync_async(w.j, answer, &a);
	CHECK_UEQ(a.ok, 1); /* nothing to do: answered at once */
	emdb_io_fault_set(w.fault, &plan);
	for (uint64_t i = 0; i < 200; i++) {
		put(w.j, i, 100);
		journal_sync_async(w.j, answer, &a);
	}
	while (a.ok < 201)
		nap(1);
	journal_stats_get(w.j, &st);
	CHECK(st.syncs < 100);
	/* What is still queued at the end is served. */
	put(w.j, 200, 1);
	journal_sync_async(w.j, answer, &a);
	world_close(&w);
	CHECK_UEQ(a.ok, 202);
	CHECK_UEQ(a.io + a.failed + a.other, 0);
	world_release(&w);
}

TEST(test_journal__async_failure)
{
	struct answers a = { 0 };
	struct world w;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 1, 1);
	world_fault(&w, IO_MASK_SYNC, 1, false, -EIO);
	journal_sync_async(w.j, answer, &a);
	while (a.io + a.ok + a.failed + a.other == 0)
		nap(1);
	CHECK_UEQ(a.io, 1);
	journal_sync_async(w.j, answer, &a);
	CHECK_UEQ(a.failed, 1);
	CHECK_EQ(journal_close(w.j), EMDB_ERR_FAILED);
	w.cfg.read_only = true;
	CHECK_OK(journal_open(&w.cfg, &w.j));
	journal_sync_async(w.j, answer, &a);
	CHECK_UEQ(a.other, 1);
	CHECK_OK(journal_close(w.j));
	world_release(&w);
}

/* A sync that fails wakes everybody who waits. */
static void *flush_and_fail(void *arg)
{
	const struct flusher *const f = arg;
	uint64_t lsn;

	for (uint64_t i = 0; i < 100000; i++) {
		emdb_err err = put_flags(f->w->j, i, 50, 0, &lsn);

		if (!err)
			err = journal_sync(f->w->j);
		if (err) {
			CHECK(err == EMDB_ERR_IO || err == EMDB_ERR_FAILED);
			return NULL;
		}
	}
	FAIL("the fault did not show");
}

TEST(test_journal__failure_wakes_all)
{
	for (uint64_t nth = 1; nth < 40; nth += 3) {
		struct flusher f[THREADS];
		struct world w;

		world_init(&w, NULL);
		world_open(&w);
		world_fault(&w, nth % 2 ? IO_MASK_SYNC : IO_MASK(IO_OP_PWRITE), nth, false, -EIO);
		for (unsigned int i = 0; i < THREADS; i++)
			f[i] = (struct flusher){ &w, i };
		run_threads(THREADS, flush_and_fail, f, sizeof(f[0]));
		CHECK(journal_failed(w.j));
		CHECK_EQ(journal_close(w.j), EMDB_ERR_FAILED);
		world_release(&w);
	}
}

/* ---- Everything at once ----------------------------------------------- */

#define REFS 4096

struct torture {
	struct world w;
	_Atomic(uint64_t) refs[REFS]; /* published as an index would */
	_Atomic(uint64_t) appended, read, synced, retired, rolled;
	_Atomic(bool) stop;
};

struct worker {
	struct torture *t;
	uint64_t seed;
	int role;
};

static void write_some(struct torture *t, uint64_t *seed)
{
	uint64_t lsn;
	const uint64_t n = test_rand(seed) % 100000;
	const size_t len = test_rand(seed) % 20 ? test_rand(seed) % 500 : test_rand(seed) % 40000;

	CHECK_EQ(put_flags(t->w.j, n, len, 0, &lsn), EMDB_OK);
	atomic_store_explicit(&t->refs[test_rand(seed) % REFS], lsn, memory_order_release);
	t->appended++;
}

static void read_some(struct torture *t, uint64_t *seed)
{
	struct epoch *const ep = &t->w.ep;
	const unsigned int pin = epoch_pin(ep);
	struct segment *kept = NULL, *seg = NULL;
	struct rec r;

	for (int i = 0; i < 20; i++) {
		const uint64_t ref = atomic_load_explicit(&t->refs[test_rand(seed) % REFS],
							  memory_order_acquire);
		emdb_err err;

		if (!ref)
			continue;
		err = journal_rec_pinned(t->w.j, ref, &r, &seg);
		/* Retired meanwhile: as if the index had not been told yet. */
		CHECK(!err || (err == EMDB_ERR_CORRUPT && ref < journal_oldest(t->w.j)));
		if (err)
			continue;
		(void)rec_number(&r);
		t->read++;
		if (!kept) {
			kept = seg;
			segment_ref(kept);
		}
	}
	epoch_unpin(ep, pin);
	if (kept)
		segment_unref(kept);
}

static void *work(void *arg)
{
	const struct worker *const me = arg;
	struct torture *const t = me->t;
	uint64_t seed = me->seed, lsn, id;
	struct journal_seg_info info[64];
	struct answers a = { 0 };

	while (!t->stop) {
		switch (me->role) {
		case 0:
			write_some(t, &seed);
			break;
		case 1:
			read_some(t, &seed);
			break;
		case 2:
			lsn = journal_tail(t->w.j);
			CHECK_OK(journal_sync(t->w.j));
			CHECK(journal_durable(t->w.j) >= lsn);
			t->synced++;
			nap(1);
			break;
		default:
			if (test_rand(&seed) % 4 == 0) {
				CHECK_OK(journal_roll(t->w.j, &lsn));
				t->rolled++;
			}
			CHECK_OK(journal_checkpoint_set(t->w.j, 1, journal_durable(t->w.j)));
			if (journal_segments(t->w.j, info, 64) > 6 && info[0].sealed) {
				id = info[0].id;
				CHECK_OK(journal_retire(t->w.j, &id, 1));
				t->retired++;
			}
			journal_sync_async(t->w.j, answer, &a);
			while (!a.ok)
				nap(1);
			a.ok = 0;
			nap(5);
		}
	}
	return NULL;
}

TEST(test_journal__torture)
{
	static const int roles[] = { 0, 0, 0, 0, 1, 1, 2, 3 };
	static struct torture t;
	struct worker me[ARRAY_SIZE(roles)];
	pthread_t threads[ARRAY_SIZE(roles)];
	uint64_t seed = test_seed();
	struct journal_stats st;
	struct seen s = { .count = 0 };
	struct journal_end end;

	world_init(&t.w, NULL);
	world_open(&t.w);
	for (unsigned int i = 0; i < ARRAY_SIZE(roles); i++) {
		me[i] = (struct worker){ &t, test_rand(&seed), roles[i] };
		CHECK_OK(pthread_create(&threads[i], NULL, work, &me[i]));
	}
	nap(900);
	t.stop = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(roles); i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	journal_stats_get(t.w.j, &st);
	printf("%" PRIu64 " appends, %" PRIu64 " reads, %" PRIu64 " syncs, %" PRIu64
	       " rolls, %" PRIu64 " retired\n",
	       t.appended, t.read, st.syncs, t.rolled, t.retired);
	CHECK_UEQ(st.appends, t.appended);
	CHECK(t.appended > 100 && t.read > 100 && t.synced > 1);
	world_kill(&t.w);
	/* Whatever is left is whole and in order: seen_frame() looks at every byte. */
	CHECK_OK(world_replay(&t.w, &s, &end));
	CHECK(t.retired || s.count == t.appended);
	CHECK_OK(journal_start(t.w.j));
	world_close(&t.w);
	seen_release(&s);
	world_release(&t.w);
}

TEST_MAIN()
