/* SPDX-License-Identifier: Apache-2.0 */
/* The journal when calls fail, the disk is full, or the process dies. */
#include "tests/unit/journal_help.h"

#include <unistd.h>

#define FRAMES 24

/* What a run has been told, and thus what the next open must find. */
struct told {
	uint64_t acked[FRAMES + 8]; /* LSN by number; 0: not acknowledged */
	uint64_t synced;            /* frames below this number are durable */
	bool retired;               /* the first segment is gone, or may be */
};

/* Which errors a failing call may give, given what happened before. */
static bool expected(emdb_err err, bool failed_before)
{
	if (failed_before)
		return err == EMDB_ERR_FAILED || err == EMDB_ERR_IO;
	return err == EMDB_OK || err == EMDB_ERR_IO || err == EMDB_ERR_FAILED ||
	       err == EMDB_ERR_NO_SPACE;
}

/* Runs one step and looks at its result. */
#define STEP(w, call)                                          \
	do {                                                   \
		const bool failed_ = journal_failed((w)->j);   \
		const emdb_err step_ = (call);                 \
		if (!expected(step_, failed_))                 \
			FAIL("%s gave %d", #call, (int)step_); \
	} while (0)

static void put_told(struct world *w, struct told *t, uint64_t n, size_t len)
{
	const bool failed = journal_failed(w->j);
	uint64_t lsn = 0;
	const emdb_err err = put_flags(w->j, n, len, 0, &lsn);

	if (!expected(err, failed))
		FAIL("append gave %d", (int)err);
	if (!err)
		t->acked[n] = lsn;
}

/*
 * Everything that a journal does, each step with whatever result; false when open or start
 * failed.
 */
static bool workload(struct world *w, struct told *t)
{
	struct seen s = { .count = 0 };
	struct journal_end end;
	uint64_t next, first;
	emdb_err err = world_replay(w, &s, &end);

	seen_release(&s);
	CHECK(expected(err, false));
	if (err)
		return false;
	err = journal_start(w->j);
	CHECK(expected(err, false));
	if (err) {
		(void)!journal_close(w->j);
		return false;
	}
	first = journal_tail(w->j) >> SHIFT;
	for (uint64_t i = 0; i < FRAMES; i++) {
		put_told(w, t, i, i % 3 ? 120000 : 50);
		if (i == 12 && journal_sync(w->j) == EMDB_OK)
			t->synced = i + 1;
		if (i == 16)
			STEP(w, journal_roll(w->j, &next));
	}
	STEP(w, journal_seal(w->j));
	STEP(w, journal_checkpoint_set(w->j, 1, journal_tail(w->j)));
	err = journal_retire(w->j, &first, 1);
	CHECK(expected(err, false) || err == EMDB_ERR_INVAL);
	t->retired = err != EMDB_ERR_INVAL;
	put_told(w, t, FRAMES, 10);
	(void)!journal_close(w->j);
	return true;
}

/* Reopens without faults in the same boot: all that was acknowledged is there, nothing else. */
static void check_told(struct world *w, const struct told *t, bool created)
{
	struct seen s = { .count = 0 };
	struct journal_end end;
	size_t at = 0;
	emdb_err err;

	w->cfg.create = false;
	err = world_replay(w, &s, &end);
	if (err && !created) {
		/* Creation may have got no further than some file: it can be done again. */
		w->cfg.create = true;
		err = world_replay(w, &s, &end);
	}
	if (err)
		printf("%s\n", w->detail.text);
	CHECK_EQ(err, EMDB_OK);
	for (uint64_t n = 0; n < ARRAY_SIZE(t->acked); n++) {
		if (!t->acked[n])
			continue;
		while (at < s.count && s.n[at] < n)
			at++;
		if (at == s.count || s.n[at] != n)
			CHECK(t->retired && t->acked[n] >> SHIFT == t->acked[0] >> SHIFT);
		else
			CHECK_UEQ(s.lsn[at], t->acked[n]);
	}
	CHECK_OK(journal_start(w->j));
	put(w->j, 100, 10);
	world_close(w);
	seen_release(&s);
}

static void fault_loop(uint64_t mask, bool sticky, int err)
{
	uint64_t nth, hits = 1;

	for (nth = 1; hits; nth += STRIDE) {
		struct world w;
		struct told t = { .synced = 0 };
		bool created;

		world_init(&w, NULL);
		world_fault(&w, mask, nth, sticky, err);
		created = workload(&w, &t);
		hits = w.hits;
		world_fault(&w, 0, 0, false, 0);
		check_told(&w, &t, created);
		world_release(&w);
	}
	CHECK(nth > 50);
}

TEST(test_journal__each_call_fails_once)
{
	fault_loop(IO_MASK_ALL & ~IO_MASK(IO_OP_CLOSE), false, -EIO);
}

TEST(test_journal__no_room_from_some_call_on)
{
	fault_loop(IO_MASK_CHANGE & ~IO_MASK(IO_OP_UNLINKAT), true, -ENOSPC);
}

TEST(test_journal__no_room_once)
{
	fault_loop(IO_MASK_CHANGE, false, -ENOSPC);
}

/* As SIGKILL: from some change on nothing reaches the disk any more. */
TEST(test_journal__killed_at_each_change)
{
	fault_loop(IO_MASK_CHANGE, true, -EIO);
}

TEST(test_journal__failure_is_sticky)
{
	struct world w;
	uint64_t lsn, durable;

	world_init(&w, NULL);
	world_open(&w);
	lsn = put(w.j, 1, 10);
	CHECK_OK(journal_sync(w.j));
	durable = journal_durable(w.j);
	put(w.j, 2, 10);
	world_fault(&w, IO_MASK(IO_OP_FDATASYNC), 1, false, -EIO);
	CHECK_EQ(journal_sync(w.j), EMDB_ERR_IO);
	CHECK(journal_failed(w.j));
	CHECK_EQ(journal_sync(w.j), EMDB_ERR_FAILED);
	CHECK_EQ(put_flags(w.j, 3, 10, 0, &lsn), EMDB_ERR_FAILED);
	CHECK_EQ(journal_roll(w.j, &lsn), EMDB_ERR_FAILED);
	CHECK_EQ(journal_checkpoint_set(w.j, 1, durable), EMDB_ERR_FAILED);
	CHECK_UEQ(journal_durable(w.j), durable);
	CHECK_UEQ(get(w.j, &w.ep, lsn), 1);
	/* The sync is not tried again. */
	CHECK_UEQ(w.calls, 1);
	CHECK_EQ(journal_close(w.j), EMDB_ERR_FAILED);
	CHECK_UEQ(world_open(&w), 2);
	world_close(&w);
	world_release(&w);
}

/* Remembers the writes of a start. */
static _Atomic(uint64_t) rewritten;

static void note_write(void *arg, const struct io_event *ev, int err)
{
	(void)arg;
	if (ev->op == IO_OP_PWRITE && !err && ev->off != 0)
		rewritten += ev->len;
}

TEST(test_journal__what_a_failed_sync_left_is_written_again)
{
	struct io_fault plan = { .after = note_write };
	struct world w;
	uint64_t before, after;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 1, 5000);
	CHECK_OK(journal_sync(w.j));
	before = journal_tail(w.j);
	put(w.j, 2, 300000);
	put(w.j, 3, 300);
	after = journal_tail(w.j);
	world_kill(&w);
	emdb_io_fault_set(w.fault, &plan);
	world_boot = BOOT2;
	rewritten = 0;
	CHECK_UEQ(world_open(&w), 3);
	CHECK_UEQ(rewritten, 0);
	world_close(&w);
	world_release(&w);

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 1, 5000);
	CHECK_OK(journal_sync(w.j));
	put(w.j, 2, 300000);
	put(w.j, 3, 300);
	world_kill(&w);
	emdb_io_fault_set(w.fault, &plan);
	rewritten = 0;
	CHECK_UEQ(world_open(&w), 3);
	CHECK_UEQ(rewritten, after - before);
	world_close(&w);
	world_release(&w);
}

TEST(test_journal__disk_full)
{
	struct world w;
	struct journal_stats st;
	const uint64_t low = (1u << SHIFT) / 4;
	uint64_t lsn = 0, tail, first, next, n = 0;
	emdb_err err;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 1000, 100);
	CHECK_OK(journal_roll(w.j, &next));
	first = 1;
	w.no_room = true;
	do {
		tail = journal_tail(w.j);
		err = put_flags(w.j, n++, 9000, 0, &lsn);
	} while (!err && n < 1000);
	CHECK_EQ(err, EMDB_ERR_NO_SPACE);
	/* Nothing was reserved, nothing has failed, reading and syncing go on. */
	CHECK_UEQ(journal_tail(w.j), tail);
	CHECK(!journal_failed(w.j));
	CHECK_UEQ(get(w.j, &w.ep, lsn), --n - 1);
	CHECK_OK(journal_sync(w.j));
	journal_stats_get(w.j, &st);
	CHECK(st.low_space);
	/* Room is kept for removals. */
	CHECK((1u << SHIFT) - (tail & ((1u << SHIFT) - 1)) >= low);
	CHECK_OK(put_flags(w.j, n++, 9000, JOURNAL_RESERVE, &lsn));
	while (!put_flags(w.j, n, 9000, JOURNAL_RESERVE, &lsn))
		n++;
	CHECK((1u << SHIFT) - (journal_tail(w.j) & ((1u << SHIFT) - 1)) < 9100);
	CHECK_EQ(put_flags(w.j, n, 10, 0, &lsn), EMDB_ERR_NO_SPACE);
	CHECK_OK(put_flags(w.j, n++, 10, JOURNAL_RESERVE, &lsn));
	CHECK_EQ(journal_roll(w.j, &next), EMDB_ERR_NO_SPACE);
	/* Freeing a segment makes room, at once. */
	CHECK_OK(journal_seal(w.j));
	w.no_room = false;
	CHECK_OK(journal_retire(w.j, &first, 1));
	CHECK_OK(put_flags(w.j, n++, 9000, 0, &lsn));
	CHECK_OK(journal_sync(w.j));
	journal_stats_get(w.j, &st);
	CHECK(!st.low_space);
	world_kill(&w);
	CHECK_UEQ(world_open(&w), n);
	world_close(&w);
	world_release(&w);
}

/* Opens with room for a part of a segment; only what makes room may write, until `end` of it. */
static uint64_t open_short(struct world *w, size_t frames, uint64_t end)
{
	uint64_t lsn = 0, n = frames;
	struct journal_seg_info s[64];
	struct journal_stats st;
	size_t count;

	CHECK_UEQ(world_open(w), frames);
	journal_stats_get(w->j, &st);
	CHECK(st.low_space);
	CHECK_EQ(put_flags(w->j, n, 10, 0, &lsn), EMDB_ERR_NO_SPACE);
	count = journal_segments(w->j, s, 64);
	CHECK_UEQ(s[count - 1].room, end - FMT_SEG_HEADER);
	while (!put_flags(w->j, n, 900, JOURNAL_RESERVE, &lsn))
		CHECK_UEQ(get(w->j, &w->ep, lsn), n++);
	CHECK_UEQ(lsn >> SHIFT, s[count - 1].id);
	CHECK(journal_tail(w->j) - (s[count - 1].id << SHIFT) <= end);
	CHECK(journal_tail(w->j) - (s[count - 1].id << SHIFT) > end - 1200);
	CHECK(!journal_failed(w->j));
	return n;
}

/* What is left is less than a segment: that must do for making room. */
TEST(test_journal__opens_on_a_full_disk)
{
	const uint64_t parts[] = { 1u << 19, 300000, 70000, 65536, 5000 };
	uint64_t n = 50, lsn = 0;
	struct journal_stats st;
	struct world w;

	world_init(&w, NULL);
	world_open(&w);
	for (uint64_t i = 0; i < n; i++)
		put(w.j, i, 100);
	world_kill(&w);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		uint64_t end = 1u << SHIFT;

		while (end > parts[i])
			end /= 2;
		w.most = parts[i];
		n = open_short(&w, n, end);
		world_kill(&w);
		n = open_short(&w, n, end);
		/* There is room again: behind what is short come whole ones. */
		w.most = 0;
		usleep(SPARE_RETRY_NS / 1000 * 2);
		for (unsigned int k = 0; k < 2500; k++)
			CHECK_OK(put_flags(w.j, n++, 900, 0, &lsn));
		CHECK_OK(journal_sync(w.j));
		journal_stats_get(w.j, &st);
		CHECK(!st.low_space);
		if (i % 2)
			world_close(&w);
		else
			world_kill(&w);
		world_boot = i % 2 ? BOOT1 : BOOT2;
	}
	world_boot = BOOT1;
	w.most = 4000;
	CHECK_OK(world_try(&w));
	CHECK_EQ(journal_start(w.j), EMDB_ERR_NO_SPACE);
	CHECK_OK(journal_close(w.j));
	w.most = 0;
	CHECK_UEQ(world_open(&w), n);
	world_close(&w);
	world_release(&w);
}

/* The segment fits, but nothing is left for the manifest: it gets less. */
TEST(test_journal__leaves_room_for_the_manifest)
{
	const unsigned int ops[] = { IO_OP_OPENAT, IO_OP_PWRITE, IO_OP_RENAMEAT };
	unsigned int hits = 0;
	struct world w;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 0, 100);
	world_kill(&w);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		for (uint64_t nth = 1; nth < 10; nth++) {
			CHECK_OK(world_try(&w));
			world_fault(&w, IO_MASK(ops[i]), nth, false, -ENOSPC);
			CHECK_OK(journal_start(w.j));
			hits += w.hits == 1;
			world_fault(&w, 0, 0, false, 0);
			world_kill(&w);
		}
	}
	CHECK(hits >= 5);
	CHECK_UEQ(world_open(&w), 1);
	world_close(&w);
	world_release(&w);
}

/* An open that gets no further leaves nothing behind that the next one takes for damage. */
TEST(test_journal__a_failed_open_cuts_nothing)
{
	struct manifest m = MANIFEST_INIT;
	struct world w;
	uint64_t next;
	int fd;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 0, 100);
	CHECK_OK(journal_roll(w.j, &next));
	put(w.j, 1, 100);
	CHECK_OK(journal_sync(w.j));
	world_kill(&w);
	/* The first segment was not sealed yet when the manifest was written, the second one synced. */
	CHECK_OK(manifest_load(w.inner, w.dirfd, &m));
	m.segs[0].len = m.segs[0].flags = 0;
	m.head.durable_lsn = next;
	CHECK_OK(manifest_store(&m, w.inner, w.dirfd, NULL));
	manifest_release(&m);
	fd = seg_fd(&w, 1);
	CHECK_OK(io_ftruncate(w.inner, fd, 1u << SHIFT));
	(void)io_close(w.inner, fd);
	w.no_room = true;
	for (int i = 0; i < 2; i++) {
		CHECK_OK(world_try(&w));
		CHECK_EQ(journal_start(w.j), EMDB_ERR_NO_SPACE);
		CHECK_OK(journal_close(w.j));
	}
	w.no_room = false;
	CHECK_UEQ(world_open(&w), 2);
	world_close(&w);
	world_release(&w);
}

/* ---- Memory ----------------------------------------------------------- */

static _Atomic(uint64_t) alloc_calls, alloc_nth, alloc_hits;

static bool alloc_fails(void)
{
	const bool fails = atomic_fetch_add(&alloc_calls, 1) + 1 == alloc_nth;

	alloc_hits += fails;
	return fails;
}

static void *failing_malloc(size_t n)
{
	return alloc_fails() ? NULL : malloc(n);
}

static void *failing_calloc(size_t count, size_t n)
{
	return alloc_fails() ? NULL : calloc(count, n);
}

static void *failing_realloc(void *p, size_t n)
{
	return alloc_fails() ? NULL : realloc(p, n);
}

TEST(test_journal__memory_runs_out)
{
	static const struct base_allocator failing = { failing_malloc, failing_calloc,
						       failing_realloc, free };

	alloc_hits = 1;
	for (alloc_nth = 1; alloc_hits; alloc_nth += STRIDE) {
		struct world w;
		struct seen s = { .count = 0 };
		struct journal_end end;
		uint64_t lsn[12] = { 0 }, next;
		emdb_err err;

		world_init(&w, NULL);
		alloc_calls = alloc_hits = 0;
		base_set_allocator(&failing);
		err = world_replay(&w, &s, &end);
		if (!err && (err = journal_start(w.j)) != EMDB_OK)
			(void)!journal_close(w.j);
		for (uint64_t i = 0; !err && i < 12; i++) {
			emdb_err put_err = put_flags(w.j, i, 200000, 0, &lsn[i]);

			CHECK(put_err == EMDB_OK || put_err == EMDB_ERR_NOMEM ||
			      put_err == EMDB_ERR_IO || put_err == EMDB_ERR_FAILED);
			put_err = journal_sync(w.j);
			CHECK(put_err != EMDB_ERR_INVAL);
			if (i == 8)
				(void)!journal_roll(w.j, &next);
		}
		if (!err) {
			(void)!journal_seal(w.j);
			(void)!journal_close(w.j);
		}
		base_set_allocator(NULL);
		w.cfg.create = err != EMDB_OK;
		CHECK_OK(world_replay(&w, &s, &end));
		for (uint64_t i = 0, at = 0; i < 12; i++)
			if (lsn[i])
				CHECK_UEQ(s.lsn[at++], lsn[i]);
		CHECK_OK(journal_close(w.j));
		seen_release(&s);
		world_release(&w);
	}
	CHECK(alloc_nth > 10);
}

TEST_MAIN()
