/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_i: the inside of a journal, for journal.c (open, append, read, segments), journal_sync.c
 * (group commit and the two threads), journal_recover.c (replay and start) and tests.
 *
 * In-flight frames. A writer publishes in one of the slots an LSN at or below the one that it will
 * reserve, reserves, writes, and clears the slot. Who wants everything below T on disk reads the
 * tail (T), then waits until every slot is 0 or at least T, then syncs. Why that is enough:
 *
 *  1. Let a writer have reserved a < T by its compare-and-swap on tail. The store to its slot is
 *     sequenced before that, and both, like the syncer's loads of tail and of the slot, are
 *     seq_cst.
 *  2. The syncer read T > a from a tail that only grows, so the writer's swap comes before that
 *     load in their single total order, and so does the slot's store before the syncer's load of
 *     it.
 *  3. Hence the syncer sees the writer's value, which is at most a < T and makes it wait, or what
 *     came later: 0, or another writer's value that was swapped in for 0. The 0 is a release store
 *     after the write returned, the swap carries its release sequence on: the write happens before
 *     the fdatasync.
 *
 * The same slots keep segments alive under writers: a segment is sealed, and only then can be
 * retired, after a sync beyond its end, which waited for everybody who had reserved in it.
 *
 * Threads. The flusher commits every commit_interval_s and serves journal_sync_async. The keeper
 * makes the spare segment and seals rolled ones, so that neither appends nor flushes wait for that.
 */
#ifndef EMDB_JOURNAL_I_H
#define EMDB_JOURNAL_I_H

#include <pthread.h>

#include "core/base.h"
#include "core/journal.h"
#include "core/manifest.h"
#include "core/segment_i.h"
#include "core/sync.h"

#define JOURNAL_DIR   "journal"
#define JOURNAL_SLOTS 128u
#define CACHE_LINE    64
/* A SEAL frame: a header and padding. */
#define SEAL_LEN 24u
/* How often the creation of a segment is tried again when the disk was full. */
#define SPARE_RETRY_NS UINT64_C(100000000)
/* The keeper looks again after this long when something is left undone. */
#define KEEPER_TICK_NS UINT64_C(1000000000)
/* Room in the active segment that is kept back when the disk is full. */
#define LOW_ROOM_MIN UINT64_C(65536)
#define LOW_ROOM_MAX UINT64_C(4194304)

static_assert(SEAL_LEN <= FMT_SEAL_ROOM, "a SEAL frame must fit the room kept for it");

/* The stride keeps slots on lines of their own. */
struct inflight {
	_Atomic(uint64_t) lsn; /* 0: free; atomic, see above */
	char pad[CACHE_LINE - sizeof(uint64_t)];
};

/* Open addressing by id, which is nearly always consecutive; removal builds a new table. */
struct seg_table {
	struct epoch_node node;
	uint64_t mask;
	_Atomic(struct segment *) slot[]; /* atomic: release by who adds, acquire by readers */
};

/* Opened records that are large, kept for who reads them in small pieces. */
#define PLAIN_SLOTS 32u
#define PLAIN_MIN   16384u

struct sync_req {
	struct sync_req *next;
	void (*done)(void *ctx, emdb_err err);
	void *ctx;
	uint64_t target;
};

struct journal {
	/* Immutable after open. */
	struct journal_config cfg;
	struct segment_env env;
	uint64_t mask;     /* segment bytes - 1 */
	uint64_t low_room; /* kept back when space is low */
	uint32_t tag;      /* what sealing adds to a record */
	uint32_t seal_len; /* of a SEAL frame */
	/* The segment that began on a full disk ends before short_until (0: none did), so much earlier. */
	uint64_t short_until, short_by;

	char pad0[CACHE_LINE];
	_Atomic(uint64_t) tail; /* next LSN; atomic, see above */
	char pad1[CACHE_LINE];
	_Atomic(struct segment *) active;  /* stored before the tail moves into it; atomic */
	_Atomic(struct seg_table *) table; /* atomic; changed under segment_lock */
	_Atomic(uint64_t) durable;         /* changed under sync_lock; atomic: release, acquire */
	_Atomic(bool) failed;              /* set once, under sync_lock; atomic */
	_Atomic(bool) running;             /* between journal_start and journal_close; atomic */
	_Atomic(bool) low_space;           /* changed under roll_lock; atomic */
	_Atomic(bool) spent;       /* the reserve is in use; changed under roll_lock; atomic */
	_Atomic(bool) spare_ready; /* there is one; changed under roll_lock; atomic */
	_Atomic(bool) spare_asked; /* the keeper knows; atomic */
	char pad2[CACHE_LINE];
	_Atomic(uint64_t) appends; /* atomic */
	struct inflight slots[JOURNAL_SLOTS];
	/* Freed through the epoch; atomic: release by who opened it, acquire by readers. */
	_Atomic(struct plain *) plains[PLAIN_SLOTS];

	struct mutex roll_lock;
	struct segment *spare;   /* guarded by roll_lock; the list holds the reference */
	uint64_t spare_retry_ns; /* no new try before; guarded by roll_lock */
	bool reserve_there;      /* the file exists; guarded by roll_lock */

	struct mutex manifest_lock;
	struct manifest manifest; /* as on disk, but for next_segment; guarded by manifest_lock */
	unsigned int retire_pins; /* guarded by manifest_lock */
	struct cond retire_free;  /* the last pin went */

	struct mutex segment_lock;
	struct segment **list;      /* ascending, one reference each; guarded by segment_lock */
	size_t count, cap;          /* guarded by segment_lock */
	struct segment *dead;       /* retired ones, one reference each; guarded by segment_lock */
	_Atomic(uint64_t) recycled; /* atomic */
	uint64_t quiet_tail,
		quiet_since_ns; /* where the tail stays since when; recycle_sweep()'s */

	struct mutex sync_lock;
	struct cond sync_done; /* a leader is through, or the journal failed */
	struct cond sync_more; /* another caller for a leader that waits */
	struct cond flusher_wake;
	struct cond keeper_wake;
	bool leader;    /* somebody syncs; guarded by sync_lock, as all below */
	bool gathering; /* the leader waits for callers */
	bool keeper_work, stop;
	uint64_t round;        /* counts leaders */
	uint64_t pending;      /* callers that the next sync serves */
	uint64_t last_group;   /* callers that the last one served */
	pthread_t last_caller; /* with the next two: is more than one thread syncing? */
	uint64_t last_call_ns, crowd_until_ns;
	struct sync_req *reqs, **reqs_end;
	uint64_t flushes, syncs;
	uint64_t group_size[EMDB_GROUP_BUCKETS];

	pthread_t flusher, keeper;
	bool flusher_runs, keeper_runs; /* journal_start and journal_close only */

	/* Between replay and start. */
	bool replayed;
	struct journal_end end;
	struct manifest found;  /* gaps that replay found; no segments */
	uint64_t missing_bytes; /* with salvage: in segments that could not be opened */
	uint32_t missing;
};

/* ---- Shared helpers --------------------------------------------------- */

EMDB_PRINTF(4, 5)
void journal_detail(const struct journal *j, uint64_t segment, uint64_t offset, const char *fmt,
		    ...);
/* A damaged place, with salvage: to the log and to whoever asked. */
void journal_found(const struct journal *j, const struct segment *s, uint64_t segment,
		   uint64_t offset, uint64_t len, const char *fmt, ...) EMDB_PRINTF(6, 7);
EMDB_PRINTF(3, 4)
void journal_log(const struct journal *j, enum emdb_log_level level, const char *fmt, ...);

/* Sticky; wakes all who wait. Takes sync_lock. */
void journal_fail(struct journal *j, const char *what, int err);

static inline uint64_t journal_load_tail(const struct journal *j)
{
	return atomic_load_explicit(&j->tail, memory_order_seq_cst);
}

/* What is before was durable when the manifest was written: no open segment may end earlier. */
static inline uint64_t journal_known_lsn(const struct journal *j)
{
	return max_u64(j->manifest.head.durable_lsn, j->manifest.head.ckpt_lsn);
}

static inline bool journal_has_failed(const struct journal *j)
{
	return atomic_load_explicit(&j->failed, memory_order_acquire);
}

/* Room in list and table for one more, so that segments_add() cannot fail. Only NOMEM. */
EMDB_CHECKED emdb_err segments_reserve(struct journal *j);
/* Takes the caller's reference. */
void segments_add(struct journal *j, struct segment *s);
/*
 * Out of list and table; the reference goes through the epoch. `dead`: another one goes to the list
 * of the dead. Only NOMEM, nothing is done then.
 */
EMDB_CHECKED emdb_err segments_remove(struct journal *j, const uint64_t *ids, size_t n, bool dead);

/*
 * Replaces the manifest by *next, which is consumed on success. A failure that leaves it open what
 * is on disk, or that is no shortage, makes the journal fail. Caller holds manifest_lock.
 * *ret_applied as manifest_store().
 */
EMDB_CHECKED emdb_err manifest_commit_locked(struct journal *j, struct manifest *next,
					     bool *ret_applied) EMDB_REQUIRES(&j->manifest_lock);

/*
 * Creates the spare when there is none, after the reserve that a tight disk needs; low_space is
 * what comes out. spend: out of the reserve, when there is no other room.
 */
EMDB_CHECKED emdb_err spare_make_locked(struct journal *j, bool spend) EMDB_REQUIRES(&j->roll_lock);

/* ---- journal_room.c --------------------------------------------------- */

/* The reserve exists when the disk is tight. NO_SPACE: it cannot be made. */
EMDB_CHECKED emdb_err reserve_keep_locked(struct journal *j) EMDB_REQUIRES(&j->roll_lock);
/* Frees its space for a segment that is to be created next; false: there is none. */
bool reserve_spend_locked(struct journal *j);
/* Unlinks what the manifest on disk does not list. Nobody else is there yet, or manifest_lock is held. */
void journal_drop_debris(struct journal *j);
/* Would so many bytes leave the room that the next open needs? */
bool room_stays(struct journal *j, uint64_t bytes);
/*
 * journal_start's first segment, which has room for `most` bytes or less; uses whatever there is.
 * Nobody else is there yet.
 */
EMDB_CHECKED emdb_err reserve_start(struct journal *j, uint64_t id, uint64_t most,
				    struct segment **ret);
/* The smallest first segment: a header, and frames of some removals. */
#define ROOM_LEAST UINT64_C(4096)
/* There is room for files that are no use now, and the file system is one that writes in place. */
bool room_to_recycle(struct journal *j);

/* ---- journal_recycle.c ------------------------------------------------ */

/* Dead, in no manifest any more: what is not kept for new segments is unlinked. */
void recycle_bury(struct journal *j, const uint64_t *ids, size_t n);
/* A new segment, out of a dead one when there is one. Errors as segment_create(). */
EMDB_CHECKED emdb_err recycle_or_create(struct journal *j, uint64_t id, struct segment **ret);
/* The keeper: frees what nobody uses any more. True: something is left. */
bool recycle_sweep(struct journal *j);
/* Unlinks the files that are kept. True: there were some. */
bool recycle_drop(struct journal *j);
/* At the end, when nobody else is there. */
void recycle_release(struct journal *j);

/* ---- journal_sync.c --------------------------------------------------- */

/* *tail is what the slot announces. */
struct inflight *inflight_enter(struct journal *j, uint64_t *ret_tail);
void inflight_leave(struct inflight *slot);

/* As journal_sync, not counted as a flush. */
EMDB_CHECKED emdb_err journal_sync_to(struct journal *j, uint64_t target);
/* Nobody syncs until the matching call; not for long. */
void sync_exclude(struct journal *j);
void sync_admit(struct journal *j);
void keeper_kick(struct journal *j);

EMDB_CHECKED emdb_err threads_start(struct journal *j);
/* Serves what is queued, then ends both. */
void threads_stop(struct journal *j);

/* The segment with this id; NULL: none. Under a pin, or while it cannot go. */
static inline struct segment *table_find(const struct journal *j, uint64_t id)
{
	const struct seg_table *const t = atomic_load_explicit(&j->table, memory_order_acquire);
	struct segment *s;

	for (uint64_t i = id & t->mask;; i = (i + 1) & t->mask) {
		s = atomic_load_explicit(&t->slot[i], memory_order_acquire);
		if (!s || s->id == id)
			return s;
	}
}

#endif
