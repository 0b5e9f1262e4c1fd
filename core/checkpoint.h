/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint: an image of the state in memory, so that opening replays only
 * the end of the journal.  Writing one (checkpoint.c), reading one
 * (checkpoint_load.c).  Layout in format.h.
 *
 * Writing stops nobody for longer than a few hundred instructions, so the
 * image is not of one moment.  This is how it is taken, with the structure
 * lock held exclusively for each cut, that is, with no record between its
 * append and the end of its application:
 *
 *   1 cut L: from here on what goes is noted (GONE); replay will start at L
 *   2 INDEX: each namespace is walked; entries of records < L are written,
 *     those of later records are not: their records will be replayed
 *   3 OBJECTS, SPACES: each big object under its own stripe, namespaces some
 *     at a time under a cut, each with the tail at that moment, its as-of LSN:
 *     what is written is exactly what records below it made
 *   4 cut T, the settled LSN: live bytes of the segments, counts, a snapshot of the
 *     expiry queue, GONE; they are written after the cut
 *   5 everything below T is synced, then the manifest names the image and L
 *
 * Opening loads the image, applies the records from L on, but not those below
 * an as-of LSN to the object or the attributes of the namespace that has it;
 * before the first record at or above T it settles: what GONE says is removed,
 * the counts and live bytes become those of T.  The result is the state that a
 * full replay gives.  Proof, for x running over the LSNs from L on, "truth" being the
 * state that applying all records below x gives:
 *
 *   Index.  Say that an entry was looked at in step 2 when the tail was c.  The
 *   image's index holds entries of records < L only, each of which is in the
 *   truth at L and at its c.  (a) What the index holds before x is in the truth
 *   at x: it came from a replayed record, then what came after in truth came in replay as
 *   well; or from the image: no replayed record below x has changed it.  (b)
 *   The other way round, an entry of the truth at x is missing before x only
 *   if it was gone when looked at, so a record in x..c replaced or
 *   removed it.  So from T on, which is above every c, the index is the truth.
 *   What a record does to entries does not depend on what is missing: it sets
 *   or removes its own key, or removes everything in a namespace.
 *   Names of big objects and the numbers of entries follow from the index:
 *   loading derives them from it, and applying keeps them so.
 *
 *   Objects and namespaces.  Below its as-of LSN the image has what records
 *   did to one, and they are not applied again; above it, they are applied
 *   to exactly what the truth has.  What they do depends on the record
 *   alone.  Something that went before step 3 looked at it is not in the
 *   image, but records from L on may be about it, or have been about its
 *   entries: it is made by the replay, or by its entries in the image.  It
 *   went after L, so GONE has it.  Something that came after step 3 looked comes
 *   by its own records.
 *
 *   Counts.  Live bytes of segments are of T, hence right from T on if nothing is counted
 *   away later that they do not have: what GONE names is added again for
 *   its removal by apply_finish().
 *   The queue at T has an item for each entry of the truth at T that
 *   expires, those being looked at included, and none is queued before T.
 *
 *   Compaction.  Entries in the image whose segment is gone are left out when
 *   loading.  A segment is only retired when nothing of it counts any more, so
 *   the truth at the end does not have them; a later record that replaced them
 *   does not need to find them.  When a segment between L and T is gone, the
 *   records that were in it are missing, or come later as copies: then the index
 *   is the truth at the end, as in a full replay, but need not be at T.  So the
 *   counts are not compared, live bytes are counted again at the end, and
 *   everything that expires is queued.
 *
 * Everything below T is durable when the image is named, so a journal that
 * can be replayed to its end always reaches T.
 *
 * A file that does not check out, whatever its bytes, is refused and the
 * previous one or the whole journal is used.
 *
 * Locks: ckpt.lock for a whole checkpoint; it may be taken within a job that
 * holds a lock of rank LOCK_ADMIN.
 */
#ifndef EMDB_CHECKPOINT_H
#define EMDB_CHECKPOINT_H

#include "core/format_ckpt.h"
#include "core/store.h"

/* STORE/checkpoint-%016x */
#define CHECKPOINT_NAME_SIZE 32
void checkpoint_name(uint64_t number, char buf[static CHECKPOINT_NAME_SIZE]);

void checkpoint_init(emdb_db *db);
void checkpoint_release(emdb_db *db);

/* ---- Writing ---- */

struct checkpoint_info {
	uint64_t lsn;     /* replay starts here */
	uint64_t settled; /* the journal must be there and durable up to here */
	uint64_t bytes;   /* of the file */
};
/*
 * Writes the image as dirfd/name, durably, over what has that name; on failure
 * nothing of it stays.  The manifest is the caller's business, and syncing the
 * journal up to info.settled before anything names the file.  ckpt.lock is held.
 */
EMDB_CHECKED emdb_err checkpoint_write(emdb_db *db, int dirfd, const char *name, uint64_t number,
				       struct checkpoint_info *ret);

/*
 * Counts entries and namespaces again as loading an image will count them. For a repair, which has taken
 * out entries without knowing what they were; nobody else has the store.
 */
void checkpoint_recount(emdb_db *db);

/* Removes images, and parts of some, that the manifest does not name. */
void checkpoint_tidy(emdb_db *db);
/* After journal_start(): the background thread.  replayed: bytes that opening went through. */
EMDB_CHECKED emdb_err checkpoint_start(emdb_db *db, uint64_t replayed);
void checkpoint_stop(emdb_db *db);
/* Before journal_close(), everybody else gone: an image, when there is something new to say. */
void checkpoint_close(emdb_db *db);

/* ---- Loading ---- */

/*
 * Fills the empty state from the image dirfd/checkpoint-NUMBER, which must
 * be this store's and begin at lsn.  CORRUPT: it does not check out; NOT_FOUND,
 * IO, NOMEM.  After a failure the state is to be emptied.
 */
EMDB_CHECKED emdb_err checkpoint_load(emdb_db *db, int dirfd, uint64_t number, uint64_t lsn);
/*
 * Opens the block b, which lies at p, in place: header and all of the head are in clear. *key, first
 * NULL, is that of the head's salt, which is believed once the head's own tag is right. v NULL: it
 * is not sealed. CORRUPT, NOMEM.
 */
EMDB_CHECKED emdb_err checkpoint_open_block(struct vault *v, uint64_t number, uint8_t *p,
					    struct ckpt_block *b, struct seal_key **key);
/* Before each replayed frame; does nothing but settle when its time has come. */
EMDB_CHECKED emdb_err checkpoint_replaying(emdb_db *db, uint64_t lsn);
/* After the last, before apply_finish().  CORRUPT: the image was wrong. */
EMDB_CHECKED emdb_err checkpoint_replayed(emdb_db *db);
/* After apply_finish().  Only NOMEM. */
EMDB_CHECKED emdb_err checkpoint_finished(emdb_db *db);

#endif
