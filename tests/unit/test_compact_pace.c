/* SPDX-License-Identifier: Apache-2.0 */
/* When unasked compaction works: hours of it on a clock of our own. */
#include "tests/unit/test.h"

#include "core/base.h"
#include "core/compact_pace.h"

#define MS  UINT64_C(1000000)
#define MIB UINT64_C(1048576)
#define GIB (1024 * MIB)

/* A store, who works on it, and what compaction did so far. */
struct world {
	struct compact_pace pace;
	struct compact_sight s;
	uint64_t ops_per_s;         /* of the others */
	uint64_t written_per_s;     /* and what they overwrite: garbage */
	uint64_t freed_per_s;       /* what compaction gives back while it works */
	uint64_t worked_ns, most;   /* how long it has worked; most garbage that there was */
	uint64_t longest_ns, began; /* the longest time between two pieces of work */
};

static struct world world_new(void)
{
	return (struct world){ .s = { .now_ns = 1000 * MS,
				      .live = 4 * GIB,
				      .segment = 64 * MIB,
				      .avail = 1024 * GIB },
			       .pace.window_ns = 1000 * MS };
}

static void pass(struct world *w, uint64_t ns)
{
	w->s.now_ns += ns;
	w->s.ops += w->ops_per_s * (ns / 1000) / 1000000;
	w->s.garbage += w->written_per_s / 1000 * (ns / 1000) / 1000;
	w->most = max_u64(w->most, w->s.garbage);
}

/* One turn as the thread takes it; false: it waited. */
static bool turn(struct world *w)
{
	const uint64_t before = w->s.now_ns;
	uint64_t ns, rest;

	if (!w->s.garbage) {
		compact_pace_nothing(&w->pace, &w->s);
		pass(w, 250 * MS);
		return false;
	}
	if (!compact_pace_begin(&w->pace, &w->s)) {
		pass(w, PACE_QUIET_NS);
		return false;
	}
	ns = compact_pace_piece(&w->pace);
	pass(w, ns);
	w->s.ops += 5000; /* our own */
	w->worked_ns += ns;
	w->s.garbage -= min_u64(w->s.garbage, w->freed_per_s / 1000 * (ns / 1000) / 1000);
	rest = compact_pace_end(&w->pace, w->s.now_ns, w->s.ops, w->ops_per_s * ns / 1000000000);
	pass(w, rest);
	w->longest_ns = max_u64(w->longest_ns, w->s.now_ns - before);
	return true;
}

static void run(struct world *w, uint64_t ns)
{
	const uint64_t end = w->s.now_ns + ns;

	while (w->s.now_ns < end)
		(void)turn(w);
}

TEST(test_compact_pace__waits_while_others_work)
{
	struct world w = world_new();

	w.ops_per_s = 20000;
	w.s.garbage = GIB;
	w.freed_per_s = 500 * MIB;
	run(&w, 59000 * MS);
	CHECK_UEQ(w.worked_ns, 0);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_WAITS);
	CHECK_UEQ(w.pace.limit, 4 * GIB);
}

/* Not for ever: what has waited for a minute goes, slowly. */
TEST(test_compact_pace__does_not_starve)
{
	struct world w = world_new();

	w.ops_per_s = 20000;
	w.s.garbage = GIB;
	w.freed_per_s = 500 * MIB;
	run(&w, 61000 * MS);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_AGED);
	w.worked_ns = 0;
	run(&w, 16000 * MS);
	CHECK(w.worked_ns >= 900 * MS && w.worked_ns <= 1100 * MS);
	run(&w, 60000 * MS);
	CHECK_UEQ(w.s.garbage, 0);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_RESTS);
	/* What comes after that waits again. */
	w.s.garbage = GIB;
	w.worked_ns = 0;
	run(&w, 50000 * MS);
	CHECK_UEQ(w.worked_ns, 0);
}

TEST(test_compact_pace__works_when_nobody_does)
{
	struct world w = world_new();

	w.ops_per_s = 20000;
	w.s.garbage = GIB;
	w.freed_per_s = 500 * MIB;
	run(&w, 1000 * MS);
	CHECK_UEQ(w.worked_ns, 0);
	w.ops_per_s = 40; /* the sweeper, the committer, a person */
	run(&w, 300 * MS);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_QUIET);
	CHECK(w.worked_ns > 0);
	w.worked_ns = 0;
	run(&w, 500 * MS);
	CHECK(w.worked_ns > 400 * MS);
	/* And stops at once when somebody comes back, whether he writes or only looks. */
	w.ops_per_s = 20000;
	w.worked_ns = 0;
	run(&w, 1000 * MS);
	CHECK(w.worked_ns <= 10 * MS);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_WAITS);
}

TEST(test_compact_pace__who_only_reads_counts_too)
{
	struct world w = world_new();

	w.s.garbage = GIB;
	run(&w, 300 * MS);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_QUIET);
	/* No frames appended, but pins in the rests. */
	for (int i = 0; i < 3; i++) {
		(void)compact_pace_begin(&w.pace, &w.s);
		pass(&w, 10 * MS);
		(void)compact_pace_end(&w.pace, w.s.now_ns, w.s.ops, 0);
		w.s.ops += 10;
	}
	CHECK(!compact_pace_begin(&w.pace, &w.s));
	CHECK_EQ(w.pace.state, EMDB_COMPACT_WAITS);
}

/* An hour of overwriting without a pause: garbage stays within the limit and a quarter. */
TEST(test_compact_pace__keeps_up_with_what_dies)
{
	static const uint64_t rates[] = { 1 * MIB, 20 * MIB, 100 * MIB, 400 * MIB };

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct world w = world_new();

		w.ops_per_s = 50000;
		w.written_per_s = rates[i];
		w.freed_per_s = 500 * MIB;
		run(&w, 3600000 * MS);
		CHECK(w.most <= 5 * GIB + 16 * MIB);
		/* And no more of the time than it takes, but for what has waited for long. */
		CHECK(w.worked_ns <= 3600000 * MS / 500 * (rates[i] / MIB) + 3600000 * MS / 8);
		CHECK(w.longest_ns <= 100 * MS);
	}
}

/* A piece that took seconds, in a sync for instance, is no reason to look away for a minute. */
TEST(test_compact_pace__rests_are_short)
{
	struct world w = world_new();

	w.ops_per_s = 20000;
	w.s.garbage = 4 * GIB + MIB;
	(void)turn(&w);
	CHECK(compact_pace_begin(&w.pace, &w.s));
	CHECK_EQ(w.pace.state, EMDB_COMPACT_LIMIT);
	pass(&w, 3000 * MS);
	CHECK(compact_pace_end(&w.pace, w.s.now_ns, w.s.ops, 1000) <= 100 * MS);
}

TEST(test_compact_pace__a_tight_disk_waits_for_nobody)
{
	struct world w = world_new();

	w.ops_per_s = 20000;
	w.s.garbage = 100 * MIB;
	run(&w, 1000 * MS);
	CHECK_UEQ(w.worked_ns, 0);
	w.s.low_space = true;
	run(&w, 1000 * MS);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_TIGHT);
	CHECK(w.worked_ns >= 1000 * MS);
	w = world_new();
	w.ops_per_s = 20000;
	w.s.garbage = 100 * MIB;
	w.s.avail = 3 * 64 * MIB;
	run(&w, 1000 * MS);
	CHECK_EQ(w.pace.state, EMDB_COMPACT_TIGHT);
	CHECK(w.worked_ns >= 1000 * MS);
}

TEST(test_compact_pace__the_limit)
{
	struct world w = world_new();

	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, 4 * GIB);
	w.s.live = 0;
	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, 512 * MIB);
	w.s.avail = GIB;
	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, 256 * MIB);
	w.pace.option = MIB;
	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, MIB);
	w.pace.option = UINT64_MAX;
	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, 256 * MIB);
	w.pace.option = 0;
	w.s.memory = true;
	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, 64 * MIB);
	w.s.live = GIB;
	compact_pace_nothing(&w.pace, &w.s);
	CHECK_UEQ(w.pace.limit, 256 * MIB);
	/* 1: nothing waits. */
	w.s.memory = false;
	w.pace.option = 1;
	w.s.garbage = 2;
	w.ops_per_s = 20000;
	run(&w, 1000 * MS);
	CHECK(w.worked_ns >= 1000 * MS);
}

TEST_MAIN()
