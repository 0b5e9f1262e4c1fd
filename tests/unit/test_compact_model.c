/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations, a model of the store, and compaction of randomly chosen
 * segments in between. Every restart replays what is left of the journal, now with a
 * checkpoint, now without: the store must be what the model says, times and all.
 */
#include "tests/unit/compact_help.h"

#include "tests/unit/model_ops.h"
#include "tests/unit/secret.h"

static void store_open(int percent)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options opts = { .size = sizeof(opts),
				     .flags = EMDB_OPEN_CREATE,
				     .segment_bytes = EMDB_SEGMENT_MIN,
				     .secret = test_secret(),
				     .sweep_interval_ms = -1,
				     .commit_interval_s = -1,
				     .compact_percent = percent,
				     .detail = &detail };
	const emdb_err err = dir ? emdb_open(dir, &opts, &db) : emdb_open_memory(&opts, &db);

	if (err)
		M_FAIL("open: %s: %s", emdb_err_name(err), detail.text);
}

static void store_close(void)
{
	for (int i = 0; i < M_OBJS; i++)
		if (m->objs[i].used && m->objs[i].refs && chance(50)) {
			emdb_node_forget(db, m->objs[i].id, m->objs[i].refs);
			m_forgot(&m->objs[i], m->objs[i].refs);
		}
	OK(emdb_close(db));
	db = NULL;
	m_restart();
}

static unsigned int run_length(unsigned int dflt)
{
	const char *const env = getenv("OPS");

	return env ? (unsigned int)strtoul(env, NULL, 0) : dflt;
}

static void begin(void)
{
	static char path[PATH_MAX + 8];

	m_init(test_seed());
	snprintf(path, sizeof(path), "%s/store", test_dir());
	dir = path;
}

/* Any sealed segments, in any order. */
static void drop_some(void)
{
	uint64_t ids[256];
	size_t n;

	if (chance(70))
		(void)seal_all(db);
	n = sealed_segments(db, ids, 256);
	for (unsigned int k = 1 + (unsigned int)below(3); k && n; k--) {
		const size_t i = (size_t)below(n);

		DOING("compact segment %" PRIu64, ids[i]);
		(void)drop_segment(db, ids[i]);
		ids[i] = ids[--n];
	}
}

static void reopen(int percent)
{
	DOING("restart");
	store_close();
	if (chance(70))
		forget_checkpoints(dir);
	store_open(percent);
	check_all(db);
}

TEST(test_compact__any_segment_in_any_order)
{
	const unsigned int n = run_length(1800 / SLOWER);

	begin();
	store_open(-1);
	for (unsigned int i = 0; i < n; i++) {
		one_op();
		if (chance(2)) {
			drop_some();
			if (chance(30))
				check_all(db);
			DOING("count what counts");
			check_live(db);
		}
		if (chance(1))
			reopen(-1);
	}
	reopen(-1);
	store_close();
}

/* As programs have it: the thread at work, and now and then somebody who asks. */
TEST(test_compact__in_the_background)
{
	const unsigned int n = run_length(1800 / SLOWER);

	begin();
	store_open(1);
	for (unsigned int i = 0; i < n; i++) {
		const struct emdb_compact_options o = { .size = sizeof(o),
							.min_dead_percent = (uint32_t)below(100) };

		one_op();
		if (chance(1)) {
			DOING("compact what is dead by %u%%", o.min_dead_percent);
			OK(emdb_compact(db, chance(50) ? NULL : &o, NULL));
		}
		if (chance(1))
			reopen(1 + (int)below(60));
	}
	reopen(-1);
	store_close();
}

TEST_MAIN()
