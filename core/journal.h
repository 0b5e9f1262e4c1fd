/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal: the ordered segments of a store.  Reserving, appending, reading and
 * syncing frames; the manifest that says which segments exist; recovery of the
 * end of the log.  Hides files, mappings, preallocation, rolling and group
 * commit.  Knows frames and records' bytes, not what records mean.
 *
 * Invariants
 *  J1 A frame is written once, at the LSN in its header, by the open that
 *     created its segment.
 *  J2 journal_append() returns after the frame is in the page cache.
 *  J3 After journal_sync() returned EMDB_OK every frame whose append returned
 *     before the call is on stable storage, and so is every frame with a
 *     lower LSN (frames being written when the sync began included).
 *  J4 Once a write or sync failed, nothing is appended or synced any more
 *     (EMDB_ERR_FAILED) and durable never advances; reading goes on.
 *  J5 A segment that the manifest lists and that is missing, foreign or
 *     shorter than listed is damage.  One that it does not list is debris.
 *  J6 No space for the next segment: EMDB_ERR_NO_SPACE, nothing reserved.
 *
 * Calling sequence: journal_open, journal_replay, then unless read-only
 * journal_start, then appends, reads, syncs from any thread, journal_close.
 */
#ifndef EMDB_JOURNAL_H
#define EMDB_JOURNAL_H

#include <stdatomic.h>
#include <sys/uio.h>

#include "core/emdb.h"
#include "core/epoch.h"
#include "core/format.h"
#include "core/io.h"
#include "core/segment.h"

struct journal;
struct manifest;

struct journal_config {
	struct emdb_io *io;
	struct epoch *epoch;
	int dirfd; /* the store's directory; borrowed */
	uint32_t segment_shift;
	uint8_t uuid[16];
	bool read_only;
	bool salvage;        /* replay skips damage instead of failing */
	bool memory;         /* no disk: nothing to keep in reserve */
	bool create;         /* a new store: no manifest yet */
	bool crc_seeded;     /* FMT_INCOMPAT_SEEDED */
	struct vault *vault; /* keys of an encrypted store, borrowed; NULL: it is none */
	enum emdb_verify verify;
	enum emdb_flush_policy flush;
	uint32_t group_window_us;
	int32_t commit_interval_s;  /* 0: never */
	struct emdb_detail *detail; /* filled when open or replay fails; may be NULL */
	void (*log)(void *ctx, enum emdb_log_level level, const char *message); /* may be NULL */
	void *log_ctx;
	/*
	 * With salvage: called for every damaged place, len bytes of it, in the order of the journal; may be
	 * NULL.  s NULL: a segment that cannot be opened, or its end.
	 */
	void (*found)(void *ctx, const struct emdb_detail *detail, const struct segment *s,
		      uint64_t len);
	void *found_ctx;
	/*
	 * With salvage: open for writing nevertheless.  What the manifest says of segments that are damaged or
	 * missing stays as it is, so that an open without salvage refuses, until journal_repaired().
	 */
	bool repair;
	const struct manifest *manifest; /* with repair: instead of the one on disk; may be NULL */
};

/* Reads the manifest, opens and maps the segments, checks their headers.  Starts no thread. */
EMDB_CHECKED emdb_err journal_open(const struct journal_config *cfg, struct journal **ret);

/* Called per frame in LSN order; an error ends the replay with it. */
typedef emdb_err (*journal_replay_fn)(void *ctx, struct segment *seg, const struct frame *f);

struct journal_end {
	uint64_t lsn;             /* first byte after the last good frame */
	enum frame_status reason; /* why it ended there */
	uint64_t torn_bytes;      /* written after it and cut */
	uint64_t durable_mark;    /* highest durable LSN seen anywhere */
	uint64_t frames;
	uint64_t skipped_bytes; /* with salvage: damaged */
	uint32_t damages;       /* with salvage: how many places */
};

/*
 * Hands over every good frame at or after from_lsn, CRC checked.  The end is
 * classified as the design says: a stop at or above the highest durable mark
 * seen anywhere (headers before and after the stop, the manifest) is a torn
 * tail and is cut; below it is EMDB_ERR_DAMAGED with segment, offset, reason
 * and bytes in detail.  Frames behind a stop in a segment of this boot are no
 * torn tail but behind a gap that a killed writer left: they are handed over
 * and the gap is remembered.  Changes nothing on disk.
 */
EMDB_CHECKED emdb_err journal_replay(struct journal *j, uint64_t from_lsn, journal_replay_fn fn,
				     void *ctx, struct journal_end *ret_end);

/*
 * Called after replay, unless read-only: syncs and seals what was recovered,
 * creates a fresh segment, replaces the manifest, starts the flusher.
 */
EMDB_CHECKED emdb_err journal_start(struct journal *j);

/*
 * Syncs, seals the active segment (removes it when it is empty), writes the
 * manifest as closed cleanly, stops threads, unmaps, frees.  After a failure
 * or before journal_start: only frees.  j may be NULL.
 */
emdb_err journal_close(struct journal *j);

/*
 * With cfg.repair, after journal_start(): the damage is dealt with.  Damaged places become gaps, missing
 * segments are listed no more, checkpoints before the current one neither.  Durable.
 */
EMDB_CHECKED emdb_err journal_repaired(struct journal *j);

/* ---- Writing ---- */

/* May use the room that is kept back for removals and compaction when the disk is full. */
#define JOURNAL_RESERVE 0x1u
/* Copied, not made: nobody is going to read it soon. */
#define JOURNAL_COLD 0x2u

/* Bytes behind the active segment that JOURNAL_RESERVE can have on a full disk. */
uint64_t journal_kept_room(struct journal *j);

/*
 * Appends one frame of `kind` whose bytes after the 20-byte header are the
 * pieces of iov (for FRAME_BATCH they begin with the u32 count); adds header,
 * zero padding and CRC.  Thread-safe, takes no lock unless a segment is full.
 * Errors: NO_SPACE, TXN_TOO_BIG (does not fit a segment), FAILED, IO (and
 * from then on FAILED), READ_ONLY.
 */
EMDB_CHECKED emdb_err journal_append(struct journal *j, uint8_t kind, const struct iovec *iov,
				     int iov_count, unsigned int flags, uint64_t *ret_lsn);

/* Largest sum of iov that journal_append() takes. */
size_t journal_payload_max(const struct journal *j);
/*
 * What sealing adds to each record: 0 or 16 bytes.  A frame of one record gets them here; in the iov of a
 * FRAME_BATCH they are zeros between each record's padding and the next prefix, and counted in its length.
 */
size_t journal_tag_size(const struct journal *j);
/* Bytes of the frame that journal_append() makes of n bytes of one record. */
uint64_t journal_frame_size(const struct journal *j, size_t n);

/* J3.  Followers wait for the leader's sync; policy GROUP makes it wait for followers. */
EMDB_CHECKED emdb_err journal_sync(struct journal *j);
/* done is called once, from the flusher's thread or before return. */
void journal_sync_async(struct journal *j, void (*done)(void *ctx, emdb_err err), void *ctx);

/* Ends the active segment, so that the next frame goes to a new one.  *ret_lsn: where it begins. */
EMDB_CHECKED emdb_err journal_roll(struct journal *j, uint64_t *ret_lsn);
/* Sees to it that the next journal_roll() finds its segment made.  Errors as journal_roll(). */
EMDB_CHECKED emdb_err journal_roll_prepare(struct journal *j);
/*
 * Syncs and seals, durably, every segment that was rolled before the call.  Otherwise the keeper
 * thread does so soon.  Errors as journal_sync(), NO_SPACE, NOMEM.
 */
EMDB_CHECKED emdb_err journal_seal(struct journal *j);

uint64_t journal_tail(const struct journal *j);    /* next LSN to be reserved */
uint64_t journal_durable(const struct journal *j); /* everything below is on stable storage */
bool journal_failed(const struct journal *j);

/* ---- Reading ---- */

/*
 * The record that ref names, decoded, its frame verified as the policy says.
 * Valid while the caller's epoch pin lasts; *ret_seg may be NULL, else
 * segment_ref() on it makes the bytes outlive the pin.  Of an encrypted store the bytes are a
 * copy, opened for this call or an earlier one, that goes with the pin: there *ret_seg does
 * not keep them, and who reads much under one pin keeps much (journal_copy() does not).
 * Errors: CORRUPT (also: ref outside of any segment), IO (the disk did not
 * deliver the page).
 */
EMDB_CHECKED emdb_err journal_rec_pinned(struct journal *j, uint64_t ref, struct rec *ret_rec,
					 struct segment **ret_seg);
/*
 * The same of a segment that may be retired, on which the caller holds a reference or a pin since
 * before it was.
 */
EMDB_CHECKED emdb_err journal_rec_in_pinned(struct journal *j, struct segment *seg, uint64_t ref,
					    struct rec *ret_rec);
/* The same and the frame's LSN and length, for accounting and compaction. */
EMDB_CHECKED emdb_err journal_frame_of_pinned(struct journal *j, uint64_t ref,
					      struct frame *ret_frame, struct segment **ret_seg);

/* The record is going to be read: lets its first cache lines come meanwhile. */
void journal_prefetch_pinned(struct journal *j, uint64_t ref);
/*
 * Copies len bytes of the value of ref from skip on to dst; keeps nothing.  With dst NULL: only
 * looks whether they are there.  Errors: as above, and NOMEM.
 */
EMDB_CHECKED emdb_err journal_copy_pinned(struct journal *j, uint64_t ref, uint64_t skip,
					  uint64_t len, void *dst);

/* Bytes that the record takes, its header or prefix included; unverified; 0: it cannot be read. */
uint32_t journal_size_pinned(struct journal *j, uint64_t ref);

/* The segment that holds an LSN; NULL: none. */
struct segment *journal_segment_pinned(struct journal *j, uint64_t lsn);

/* Was the segment that held an LSN retired?  Not so when it should be there and is not. */
bool journal_retired_pinned(struct journal *j, uint64_t lsn);

/* ---- Segments and manifest ---- */

struct journal_seg_info {
	uint64_t id;
	uint64_t len;   /* bytes written, header included */
	uint64_t live;  /* as the store counted with segment_live_add() */
	uint64_t tombs; /* and with segment_tomb_add() */
	uint64_t room;  /* bytes that can still be written to it */
	bool sealed;
};
/* Ascending; fills up to max, returns how many there are. */
size_t journal_segments(struct journal *j, struct journal_seg_info *ret, size_t max);
/* LSN where the oldest segment begins. */
uint64_t journal_oldest(struct journal *j);
/* Walks the frames of a sealed segment (compaction, check); as journal_replay's callback. */
EMDB_CHECKED emdb_err journal_walk_segment(struct journal *j, uint64_t id, journal_replay_fn fn,
					   void *ctx);
/*
 * The same of any segment of a journal that was replayed and not started, going on behind damage:
 * cfg.found is called for each damaged place.
 */
EMDB_CHECKED emdb_err journal_check_segment(struct journal *j, uint64_t id, journal_replay_fn fn,
					    void *ctx);
/*
 * Drops sealed segments for ever: out of the manifest (durably) first, then
 * unlinked; their memory goes when the last reference does.  Waits while retiring is
 * pinned, so the caller must not hold what those who pin it wait for: the structure lock.
 */
EMDB_CHECKED emdb_err journal_retire(struct journal *j, const uint64_t *ids, size_t n);
/*
 * Files of retired segments are kept for new ones, as long as something is written and the disk has
 * room: a few, and no more than there are segments. This unlinks them now.
 */
void journal_give_back(struct journal *j);
/*
 * From the one to the other nothing is retired: what the manifest lists stays, and may get other
 * names.
 */
void journal_pin_retire(struct journal *j);
void journal_unpin_retire(struct journal *j);
/*
 * A copy of the manifest as it is now, with the gaps that an open which only reads has found.  *ret is
 * released first.  Only NOMEM.
 */
EMDB_CHECKED emdb_err journal_manifest_get(struct journal *j, struct manifest *ret);

struct journal_checkpoint {
	uint64_t number, lsn; /* 0: none */
	uint64_t prev_number, prev_lsn;
};
void journal_checkpoint_get(struct journal *j, struct journal_checkpoint *ret);
/* Durable; the current one becomes the previous. */
EMDB_CHECKED emdb_err journal_checkpoint_set(struct journal *j, uint64_t number, uint64_t lsn);

struct journal_stats {
	uint64_t segments, written_bytes, preallocated_bytes, live_bytes;
	uint64_t appends, flushes, syncs, recycled;
	uint64_t group_size[EMDB_GROUP_BUCKETS];
	bool low_space;
};
void journal_stats_get(struct journal *j, struct journal_stats *ret);

#endif
