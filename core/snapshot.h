/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot: what backup.c needs of a store that is in use, a snapshot without
 * a name that goes with the backup.  The rest is public, see emdb.h.
 */
#ifndef EMDB_SNAPSHOT_H
#define EMDB_SNAPSHOT_H

#include "core/emdb.h"

#define SNAPSHOT_PIN_SIZE 32

/*
 * The store as it is now, kept: name in snapshots/, its directory opened.
 * Errors as emdb_snapshot_create().
 */
EMDB_CHECKED emdb_err snapshot_pin(emdb_db *db, char name[static SNAPSHOT_PIN_SIZE], int *ret_fd);
/* Closes and removes it. */
emdb_err snapshot_unpin(emdb_db *db, const char *name, int pin_fd);

#endif
