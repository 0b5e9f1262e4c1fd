/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compact: gives back the room of what is dead.  Copies what still counts in
 * a sealed segment to the end of the journal, then retires the segment.
 *
 * The one rule.  The state is what the records that exist say in the order
 * of their places.  So a copy is right at its new place if and only if it says
 * what is true at that moment: it is made under the locks that keep all others
 * from changing it, and only if the original still counts.  Copies carry
 * ORIGIN: nothing happened that anybody could see.
 *
 *   PUT, LINK, NS   copied when the index still names them; a PUT that only an
 *	open object without a name has, as an ORPHAN
 *   bytes of big objects   what their maps have in the segment is written anew
 *	as WRITE records, neighbours together; what several maps share is
 *	written once and given to the others by CLONE
 *   INODE, and whatever stamped the times of an object or a namespace last:
 *	a new INODE or NS record says how things are
 *   DEL, DROP, CLEAR, TRUNC, PUNCH, CLONE, INODE with EXTENTS   say what is not there.  They
 *	are needed as long as a segment exists that can hold what they killed: one not
 *	younger than their first place.  Then a DEL is copied if its key is still
 *	absent (else what has the name now does its work); a CLEAR is copied, and spares
 *	what came after its first place; of ranges of objects the holes that are holes
 *	now are said anew
 *
 * Readers.  Who holds a pin goes on finding the old records: a segment is retired
 * only after a grace period.  Iterators, which keep places without a pin, look again
 * when the segment of one is gone.
 *
 * Resumable by construction: a segment that was left half way has fewer
 * records that count, and what counts is found out anew each time.
 *
 * Locks.  compactor.lock, rank LOCK_ADMIN: one compaction at a time.  Within it each
 * record takes the store's locks by itself, so nobody waits for more than a frame.
 */
#ifndef EMDB_COMPACT_H
#define EMDB_COMPACT_H

#include "core/store.h"

/* Takes the options; starts the thread when the store can be written.  0 or a negative errno. */
int compact_start(emdb_db *db, const struct emdb_options *o);
/* Stops the thread; a compaction under way ends after the frame it is at.  Before journal_close(). */
void compact_stop(emdb_db *db);
/*
 * Merges small segments when there are many.  Each open that writes begins a segment, and a program
 * that opens, writes and closes, or crashes, gives the thread no time.  After compact_start() and before
 * compact_stop().
 */
void compact_tidy(emdb_db *db, bool at_open);
/* Frees; the epoch has been drained or will be.  Takes a db that never started. */
void compact_free(emdb_db *db);
/*
 * For a repair: copies forward what still counts in the batch at lsn, one record of which makes no sense, so that it
 * does not go with the frame. Nobody else uses the store. Errors: as any write.
 */
EMDB_CHECKED emdb_err compact_rescue(emdb_db *db, uint64_t lsn);
void compact_stats(emdb_db *db, struct emdb_stats *s);

#endif
