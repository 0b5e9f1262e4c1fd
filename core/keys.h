/* SPDX-License-Identifier: Apache-2.0 */
/* keys: key slots of whole stores; what opening needs of it. The rest is public: emdb.h. */
#ifndef EMDB_KEYS_H
#define EMDB_KEYS_H

#include "core/crypto.h"
#include "core/format.h"
#include "core/io.h"

/*
 * Gives every snapshot of the store in dirfd the store's slots, if it has others. The caller holds
 * the store's lock, exclusively. The first error is returned, after trying all.
 */
EMDB_CHECKED emdb_err keys_to_snapshots(struct emdb_io *io, int dirfd, const struct superblock *sb,
					const struct vault_secrets *secrets);

#endif
