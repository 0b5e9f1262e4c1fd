/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of compaction share: emptying chosen segments, opening without a checkpoint. */
#ifndef EMDB_TEST_COMPACT_HELP_H
#define EMDB_TEST_COMPACT_HELP_H

#include "tests/unit/test.h"

#include <dirent.h>

#include "core/compact_i.h"

/* Sanitizers are slow: less of the same then. */
#ifdef EMDB_DEBUG
#define SLOWER 4
#else
#define SLOWER 1
#endif

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
			    .flags = JOURNAL_RESERVE,
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

/* ---- What counts, counted anew ---- */

struct recount {
	emdb_db *store;
	uint64_t live[256]; /* by segment id */
};

static inline void recount_rec(struct recount *c, const struct rec *r, uint64_t ref, uint64_t size)
{
	emdb_db *const store = c->store;
	bool counts = false;
	struct obj_view v;
	struct entry e;
	const struct ns *ns;

	if (r->kind == REC_INODE) {
		counts = objtab_get_pinned(store, r->id, &v) && v.big && v.big->inode_ref == ref;
	} else if (r->kind == REC_NS && r->id == EMDB_ROOT && r->mask & REC_F_ID) {
		counts = atomic_load(&store->root->ref) == ref;
	} else if (r->kind == REC_PUT || r->kind == REC_LINK || r->kind == REC_NS) {
		ns = ns_find_pinned(store, r->ns);
		counts = ns &&
			 entry_find_pinned(store, ns, entry_hash(store, r->ns, r->key, r->key_len),
					   r->key, r->key_len, true, &e) == EMDB_OK &&
			 e.ref == ref;
	}
	if (counts)
		c->live[(ref >> store->sb.segment_shift) % 256] += size;
}

static inline emdb_err recount_frame(void *ctx, struct segment *seg, const struct frame *f)
{
	struct recount *const c = ctx;
	const unsigned int pin = epoch_pin(&c->store->epoch);
	struct batch_iter it;
	struct rec r;
	uint64_t ref;

	(void)seg;
	if (f->kind < FRAME_BATCH && fmt_frame_rec(f, &r))
		recount_rec(c, &r, f->lsn, f->len);
	if (f->kind == FRAME_BATCH && fmt_batch_begin(f, &it))
		while (fmt_batch_next(&it, &r, &ref) > 0)
			recount_rec(c, &r, ref, f->lsn + it.at - ref_lsn(ref));
	epoch_unpin(&c->store->epoch, pin);
	return EMDB_OK;
}

static inline void recount_maps(struct recount *c)
{
	const unsigned int pin = epoch_pin(&c->store->epoch);
	struct buf ids = BUF_INIT;

	for (size_t shard = 0; shard < STORE_SHARDS; shard++)
		CHECK_OK(objtab_big_ids(c->store, shard, &ids));
	for (size_t i = 0; i < ids.len; i += sizeof(uint64_t)) {
		struct extent_cursor cur = { 0, 0 };
		struct obj_view v;
		struct extent e;
		uint64_t id;

		memcpy(&id, ids.data + i, sizeof(id));
		CHECK(objtab_get_pinned(c->store, id, &v));
		while (extmap_next(&v.big->map, &cur, &e))
			c->live[(e.ref >> c->store->sb.segment_shift) % 256] += e.len;
	}
	buf_release(&ids);
	epoch_unpin(&c->store->epoch, pin);
}

/* The bytes that count in each segment are what was counted along the way.  Nobody else writes. */
static inline void check_live(emdb_db *store)
{
	struct recount c = { .store = store };
	struct journal_seg_info list[256];
	size_t n;

	(void)seal_all(store);
	n = journal_segments(store->j, list, 256);
	CHECK(n <= 256);
	for (size_t i = 0; i < n; i++)
		if (list[i].sealed)
			CHECK_OK(journal_walk_segment(store->j, list[i].id, recount_frame, &c));
	recount_maps(&c);
	for (size_t i = 0; i < n; i++)
		if (list[i].live != c.live[list[i].id % 256])
			FAIL("segment %llu of %llu bytes: %llu count, not %llu",
			     (unsigned long long)list[i].id, (unsigned long long)list[i].len,
			     (unsigned long long)c.live[list[i].id % 256],
			     (unsigned long long)list[i].live);
}

#endif
