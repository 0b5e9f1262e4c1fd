/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compact_pace: when unasked compaction works, and how much of the time.  Only decides: it looks at no
 * clock and waits for nothing, so that tests can run hours of it.
 *
 * Garbage takes room and nothing else, and much of what is copied today would be garbage tomorrow; copying
 * it takes time from those who work now.  So
 *	- the disk is tight: at once, all the time
 *	- garbage beyond the limit: a share of the time that grows with what is above it, all of it
 *	  from a quarter above it on; it settles where as much comes free as dies
 *	- nobody works: all the time, with short rests to see whether somebody does again
 *	- it has had something to do for PACE_AGED_NS: a sixteenth of the time
 *	- else: it waits
 *
 * The limit is that of the options, else as much as is live, at least PACE_LEAST_SEGMENTS segments; of a
 * store in memory a quarter of it.  Never more than a quarter of what is free on the disk.
 *
 * Nobody works: PACE_QUIET_NS with no more than a few operations.  Operations are pins of the epoch and,
 * while compaction itself pins, frames appended by others.
 *
 * Calling sequence: compact_pace_begin(); when it says so a piece of work of compact_pace_piece() and compact_pace_end(), then a
 * rest; else PACE_QUIET_NS; again.  compact_pace_nothing() when there is nothing to do.
 */
#ifndef EMDB_COMPACT_PACE_H
#define EMDB_COMPACT_PACE_H

#include "core/emdb.h"

#define PACE_QUIET_NS       UINT64_C(100000000)
#define PACE_AGED_NS        UINT64_C(60000000000)
#define PACE_LEAST_SEGMENTS 8u
/* Less room than this for so many segments is a tight disk. */
#define PACE_TIGHT_SEGMENTS 4u

struct compact_sight {
	uint64_t now_ns;
	uint64_t ops;     /* operations since open, ever */
	uint64_t garbage; /* bytes that compaction could give back */
	uint64_t live;    /* the other bytes of the journal */
	uint64_t segment; /* size of one */
	uint64_t avail;   /* bytes free on the disk */
	bool low_space;   /* no room for another segment */
	bool memory;      /* there is no disk */
};

struct compact_pace {
	uint64_t option;                /* the limit that was asked for; 0: none was */
	uint64_t window_ns, window_ops; /* begin of the time that is being looked at */
	uint64_t work_ns, work_ops;     /* begin of the piece of work */
	uint64_t since_ns;              /* there is something to do; 0: there is not */
	uint64_t limit;                 /* of garbage, when it was last looked at */
	bool quiet;
	unsigned int duty; /* of PACE_FULL */
	enum emdb_compact_state state;
};

#define PACE_FULL 1024u

/* There is something to do.  May it be done now? */
bool compact_pace_begin(struct compact_pace *p, const struct compact_sight *s);
/* How long to work before compact_pace_end(). */
uint64_t compact_pace_piece(const struct compact_pace *p);
/* Worked until now; others appended so many frames meanwhile.  How long to rest. */
uint64_t compact_pace_end(struct compact_pace *p, uint64_t now_ns, uint64_t ops, uint64_t others);
void compact_pace_nothing(struct compact_pace *p, const struct compact_sight *s);

#endif
