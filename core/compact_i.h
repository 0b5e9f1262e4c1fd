/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compact_i: the inside of compaction: compact_pick.c chooses, compact_run.c waits, empties and
 * retires, compact_move.c copies what counts in a segment, compact_data.c that of big objects;
 * compact.c has the thread and the call.
 */
#ifndef EMDB_COMPACT_I_H
#define EMDB_COMPACT_I_H

#include "core/compact.h"
#include "core/compact_pace.h"

/* Emptying one segment. */
struct mover {
	emdb_db *db;
	uint64_t seg;
	uint64_t lo, hi; /* LSNs of the segment: lo..hi-1 */
	uint64_t oldest; /* lowest id of the other segments that will be there */
	unsigned int
		flags;   /* for journal_append(): JOURNAL_RESERVE when all of it will fit there */
	bool full;       /* the disk is */
	uint64_t budget; /* bytes of frames that may be written; 0: any number */
	uint64_t walked; /* bytes of the segment that were looked at */
	uint64_t copied; /* bytes of the frames written for it */
	uint64_t unpaid; /* of those, not yet told to pause() */
	uint64_t frames; /* written; pause() takes them off */
	uint64_t breath; /* walked when pause() was called last */
	/* Called between records without locks; false: stop. */
	bool (*pause)(void *ctx, struct mover *m, uint64_t bytes);
	void *ctx;
	struct buf renew;  /* uint64_t: objects whose INODE record is written anew */
	struct buf ranges; /* struct range */
	struct buf claims; /* struct claim */
	uint8_t *scratch;  /* db_extent_max() bytes, when needed */
};

static inline bool in_segment(const struct mover *m, uint64_t ref)
{
	return ref >= m->lo && ref < m->hi;
}

/* Can there be something that a record first written at lsn killed? */
static inline bool still_needed(const struct mover *m, uint64_t lsn)
{
	return m->oldest <= lsn >> m->db->sb.segment_shift;
}

/* Where a record was first. */
static inline uint64_t first_place(const struct rec *r, uint64_t ref)
{
	return r->mask & REC_F_ORIGIN ? r->origin : ref_lsn(ref);
}

/*
 * Copies forward all that counts in the segment.  CANCELLED: pause() said so;
 * NO_SPACE: there is room for less; CORRUPT, IO: the segment is damaged and must stay.
 */
EMDB_CHECKED emdb_err compact_move(struct mover *m);
/* Nothing refers to it any more?  BUSY: something does. */
EMDB_CHECKED emdb_err compact_verify(struct mover *m);
void mover_release(struct mover *m);

/* Appends and applies one record of the compaction; the locks it needs are held. */
EMDB_CHECKED emdb_err mover_commit(struct mover *m, struct rec *r, const struct iovec *iov, int n,
				   bool old_known, const struct entry *old);
/* After the locks were given back: tells pause(). */
EMDB_CHECKED emdb_err mover_breathe(struct mover *m);

/* ---- Big objects (compact_data.c) ---- */

/* A record about the data or metadata of an object: notes what must be said anew. */
EMDB_CHECKED emdb_err data_note(struct mover *m, const struct rec *r, uint64_t ref);
/* After the walk: bytes, INODE records, holes. */
EMDB_CHECKED emdb_err data_move(struct mover *m);
EMDB_CHECKED emdb_err data_verify(struct mover *m);

/* Objects that apply.c noted since the last call; ret is to be released. */
EMDB_CHECKED emdb_err compact_take_noted(emdb_db *db, struct buf *ret);

/* ---- Choosing (compact_pick.c) ---- */

/* Segments that wait for their readers together. */
#define LEAVING_MAX 64u

struct grace;

struct compactor {
	struct mutex lock;         /* rank LOCK_ADMIN; one compaction at a time */
	_Atomic(uint32_t) callers; /* waiting for lock: the thread makes room; atomic */

	/* Guarded by lock. */
	uint64_t emptied[LEAVING_MAX], leaving[LEAVING_MAX];
	size_t nemptied, nleaving;
	uint64_t emptied_bytes; /* written to empty them */
	uint64_t emptied_len;   /* their own */
	struct grace *grace;    /* of leaving */
	struct buf bad;         /* uint64_t: segments that are damaged or still referred to */
	uint64_t quiet_tail, quiet_since_ns;
	uint64_t backoff_until_ns;
	unsigned int useless;                 /* attempts in a row that gained nothing */
	uint64_t rewrite_upto, rewrite_tombs; /* see rewrite() */
	unsigned int merge_tier;              /* see compact_choose_small() */
	uint64_t merge_upto;
	struct compact_pace pace;

	unsigned int percent; /* immutable after start, as rate */
	uint64_t rate;

	struct mutex note_lock; /* rank LOCK_LEAF */
	struct buf noted;       /* uint64_t ids; guarded by note_lock */
	bool note_failed;       /* guarded by note_lock */

	_Atomic(uint64_t) retired, copied; /* since open; atomic */
	_Atomic(uint64_t) done, total;     /* of the segment being emptied; atomic */
	_Atomic(uint64_t) limit;           /* of pace; atomic */
	_Atomic(int) state;                /* of pace; atomic */

	_Atomic(bool) stopping;
	struct mutex wake_lock; /* rank LOCK_LEAF */
	struct cond wake;
	pthread_t thread;
	bool runs; /* set at start, cleared at stop */
};

static inline bool compact_stopped(const struct compactor *c)
{
	return atomic_load_explicit(&c->stopping, memory_order_relaxed);
}

static inline bool compact_id_in(const uint64_t *ids, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* Damaged, or still referred to when it was to go: not tried again. */
bool compact_is_bad(const struct compactor *c, uint64_t id);
/* Emptied already. */
bool compact_goes(const struct compactor *c, uint64_t id);
/* All segments; *ret_n of them, to be freed. */
EMDB_CHECKED emdb_err compact_list(emdb_db *db, struct journal_seg_info **ret, size_t *ret_n);
/* Bytes that emptying the segment would free; older: there are older segments that stay. */
uint64_t compact_dead(const struct journal_seg_info *s, bool older);
/*
 * On a full disk: what is kept back for removals (journal_kept_room()) may be used for what takes no more
 * than three quarters of it and of the active segment's rest: then a whole segment comes back for it.
 */
bool compact_fits(const emdb_db *db, const struct journal_seg_info *s, bool older,
		  const struct journal_seg_info *active, uint64_t kept);
/*
 * The same for more than three quarters, by counting what is in the segment.  How much may be written, so
 * that there is some left for removals should it take more nevertheless; 0: it does not fit.
 */
uint64_t compact_budget(emdb_db *db, const struct journal_seg_info *s, bool older,
			const struct journal_seg_info *active, uint64_t kept);
bool compact_share(uint64_t dead, uint64_t len, unsigned int percent);

/* Small segments of a tier are up to four times as long as those of the one below. */
#define COMPACT_TIERS 12u

struct survey {
	uint64_t total, dead, tombs;
	uint64_t going; /* bytes of those that are emptied and still there */
	/* Sealed ones below a quarter of their size, by about what they hold. */
	struct {
		size_t count;
		const struct journal_seg_info *first, *last;
	} small[COMPACT_TIERS];
	size_t smalls;                        /* together */
	const struct journal_seg_info *first; /* oldest that can be taken */
	const struct journal_seg_info *last;  /* newest that can be taken */
	const struct journal_seg_info *due; /* with the share that was asked for, and the largest */
	uint64_t due_dead;
	const struct journal_seg_info *best; /* with the largest share */
	uint64_t best_dead;
	uint64_t kept;                          /* for compaction on a full disk */
	const struct journal_seg_info *fits;    /* with the largest share that fits there */
	const struct journal_seg_info *may_fit; /* and that fits if it is counted exactly */
	uint64_t fits_dead, may_fit_dead;
	const struct journal_seg_info *active;
	bool active_older;
};

/* kept: 0, or on a full disk journal_kept_room(). */
void compact_survey(emdb_db *db, const struct journal_seg_info *list, size_t n,
		    unsigned int percent, uint64_t kept, struct survey *s);
/* NULL: none is worth it. */
const struct journal_seg_info *compact_choose(emdb_db *db, const struct survey *s, bool low_space);
/* Of the small ones alone. */
const struct journal_seg_info *compact_choose_small(struct compactor *c, const struct survey *s);
/* Is segment i of the list worth it for somebody who asked? */
bool compact_asked_for(emdb_db *db, const struct journal_seg_info *list, size_t n, size_t i,
		       uint32_t percent);

/* ---- Working (compact_run.c) ---- */

/* Pause after an attempt that gained nothing. */
#define COMPACT_BACKOFF_NS UINT64_C(10000000000)

/* When somebody looked whether others write: frames in the journal, and those of the job. */
struct compact_look {
	uint64_t appends, own;
};

/* One run of the thread or of emdb_compact(). */
struct compact_job {
	emdb_db *db;
	struct compactor *c;
	bool background;
	uint64_t rate;                     /* bytes per second, 0: no limit */
	uint64_t debt;                     /* bytes not yet waited for */
	uint64_t own;                      /* frames that it appended */
	struct compact_look wrote, worked; /* for the rate, for the pace */
	bool waited;                       /* for its turn, since the segment was begun */
	bool at_work;                      /* within a piece of work */
	uint64_t told;                     /* bytes walked when progress was told last */
	bool (*progress)(void *ctx, const struct emdb_compact_progress *p);
	void *progress_ctx;
	struct emdb_compact_progress p;
	uint64_t before; /* done_bytes of the segments before this one */
};

/* False: the store is being closed. */
bool compact_wait(emdb_db *db, uint64_t ns);
/* Copies what counts in the segment; then it goes with the next compact_retire().  As compact_move(). */
EMDB_CHECKED emdb_err compact_empty(struct compact_job *j, const struct journal_seg_info *seg);
/*
 * The thread's: there is something to do.  False: not now.  Between compact_begin() and compact_end() work
 * rests as the pace says.
 */
bool compact_begin(struct compact_job *j, const struct survey *s, bool low_space);
void compact_end(struct compact_job *j);
/* Works on, or after a piece of work waits for its next turn.  False: stop. */
bool compact_turn(struct compact_job *j);
/* There is nothing to do. */
void compact_rest(struct compact_job *j, const struct survey *s);
/* Retires what is ready; waits up to wait_ns_max for readers. */
EMDB_CHECKED emdb_err compact_retire(emdb_db *db, struct compact_job *j, uint64_t wait_ns_max);
void compact_grace_end(struct grace *g);

#endif
