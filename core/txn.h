/* SPDX-License-Identifier: Apache-2.0 */
/*
 * txn: several changes as one, made on a view and committed as one frame.
 *
 * A transaction reads from the view taken when it began and keeps its own writes in memory.  At
 * commit, with the structure lock held exclusively, each key that it read or wrote is compared:
 * the version in the view must be the one that is there now, and of each namespace that it iterated
 * nothing may have changed.  Then the writes go into one batch.  So the place of a committed
 * transaction in the order of all changes is its commit, and what it read was true there:
 * serialisable.  A transaction that writes nothing has its place where it began.
 *
 * Not thread-safe; one thread at a time per transaction and its iterators.  db->txns, guarded by
 * db->txn_lock, is for emdb_close() to find what was abandoned.
 */
#ifndef EMDB_TXN_H
#define EMDB_TXN_H

#include "core/store.h"

/* Ends what is still open; their handles are gone. */
void txn_abandon_all(emdb_db *db);

#endif
