/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of compaction share: emptying chosen segments, opening without a checkpoint. */
#ifndef EMDB_TEST_COMPACT_HELP_H
#define EMDB_TEST_COMPACT_HELP_H

#include "tests/unit/test.h"

#include <dirent.h>

#include "core/compact_i.h"

static inline bool go_on(void *ctx, struct mover *mover, uint64_t bytes)
{
	(void)ctx, (void)mover, (void)bytes;
	return true;
}

/* Everything written so far is in sealed segments; returns the id of the new active one. */
static inline uint64_t seal_all(emdb_db *store)
{
	uint64_t lsn;

	CHECK_OK(journal_roll(store->j, &lsn));
	CHECK_OK(journal_seal(store->j));
	return lsn >> store->sb.segment_shift;
}

static inline size_t sealed_segments(emdb_db *store, uint64_t *ids, size_t max)
{
	struct journal_seg_info list[256];
	const size_t got = journal_segments(store->j, list, 256);
	size_t n = 0;

	CHECK(got <= 256);
	for (size_t i = 0; i < got && n < max; i++)
		if (list[i].sealed)
			ids[n++] = list[i].id;
	return n;
}

/* Copies what counts in one segment; the lowest of the others decides what is needed. */
static inline emdb_err try_empty(emdb_db *store, uint64_t id, uint64_t *ret_copied)
{
	struct journal_seg_info list[256];
	const size_t n = journal_segments(store->j, list, 256);
	const uint64_t lo = id << store->sb.segment_shift;
	struct mover mv = { .db = store,
			    .seg = id,
			    .lo = lo,
			    .hi = lo + (UINT64_C(1) << store->sb.segment_shift),
			    .oldest = UINT64_MAX,
			    .pause = go_on };
	emdb_err err;

	for (size_t i = 0; i < n && i < 256 && mv.oldest == UINT64_MAX; i++)
		if (list[i].id != id)
			mv.oldest = list[i].id;
	err = compact_move(&mv);
	if (!err)
		CHECK_OK(compact_verify(&mv));
	if (ret_copied)
		*ret_copied = mv.copied;
	mover_release(&mv);
	return err;
}

/* Empties one sealed segment and takes it out of the journal. */
static inline uint64_t drop_segment(emdb_db *store, uint64_t id)
{
	uint64_t copied = 0;

	CHECK_OK(try_empty(store, id, &copied));
	CHECK_OK(journal_sync(store->j));
	for (int i = 0; i < 8; i++)
		(void)epoch_reclaim(&store->epoch);
	CHECK_OK(journal_retire(store->j, &id, 1));
	return copied;
}

/* The next open replays all that there is. */
static inline void forget_checkpoints(const char *path)
{
	char name[PATH_MAX + 300];
	DIR *const d = opendir(path);
	const struct dirent *e;

	CHECK(d);
	while ((e = readdir(d)) != NULL) {
		if (strncmp(e->d_name, "checkpoint", 10) != 0)
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		CHECK_OK(unlink(name));
	}
	(void)closedir(d);
}

#endif
