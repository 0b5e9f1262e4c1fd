/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compact_i: the inside of compaction: compact.c chooses, waits and retires,
 * compact_move.c empties a segment, compact_data.c does its part for big objects.
 */
#ifndef EMDB_COMPACT_I_H
#define EMDB_COMPACT_I_H

#include "core/compact.h"

/* Emptying one segment. */
struct mover {
	emdb_db *db;
	uint64_t seg;
	uint64_t lo, hi; /* LSNs of the segment: lo..hi-1 */
	uint64_t oldest; /* lowest id of the other segments that will be there */
	unsigned int
		flags;   /* for journal_append(): JOURNAL_RESERVE when all of it will fit there */
	uint64_t walked; /* bytes of the segment that were looked at */
	uint64_t copied; /* bytes of the frames written for it */
	uint64_t unpaid; /* of those, not yet told to pause() */
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

#endif
