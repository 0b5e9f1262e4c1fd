/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert: a store is written again, encrypted, decrypted or under another data key, and the new one
 * takes the place of the old.
 *
 * LSNs, and with them references, ids and checkpoints, stay what they are: frames stay where they are
 * in their segments and keep their lengths. So no record is understood, only opened and sealed. What
 * becomes encrypted has no room for tags in its frames: they go behind them (sealed.h). What becomes
 * decrypted keeps zeros where tags were (FMT_INCOMPAT_PADDED). Compaction writes both anew in time.
 *
 *	1 The new store grows in STORE/convert/: its superblock first, with the new data key in its
 *	  slots; then pool/, every segment that the store or a snapshot of it has, once, durable
 *	  before it gets its name; then journal/, manifest, checkpoint and snapshots/, linked out of
 *	  the pool. An interrupted call goes on where it stopped: what is in the pool is complete.
 *	2 STORE/superblock is replaced by the new one with FMT_INCOMPAT_SWITCH: the commit point. Before
 *	  it convert/ means nothing, after it the rest of the store's files do not.
 *	3 The new files are moved into their places, the old ones removed; each step can be done
 *	  again. At last the superblock is written without the bit. Who opens the store for writing
 *	  in between does this first.
 *
 * Of a decryption no plain text may lie about in a store that is still encrypted: it is not resumed,
 * and what an interrupted one left is removed when the store is opened for writing.
 */
#ifndef EMDB_CONVERT_H
#define EMDB_CONVERT_H

#include "core/crypto.h"
#include "core/format.h"
#include "core/io.h"
#include "core/manifest.h"

#define CONVERT_DIR "convert"

enum convert_kind { CONVERT_NONE, CONVERT_ENCRYPT, CONVERT_DECRYPT, CONVERT_ROTATE };
/* What convert/ of the store in dirfd is there for. */
enum convert_kind convert_pending(struct emdb_io *io, int dirfd);

/*
 * Step 3, of a superblock with FMT_INCOMPAT_SWITCH; v as vault of it, NULL: it is plain. The caller
 * holds the store's lock exclusively. *sb becomes the final one. IO, NO_SPACE, PERM, NOMEM.
 */
EMDB_CHECKED emdb_err convert_finish(struct emdb_io *io, int dirfd, struct superblock *sb,
				     const struct vault *v);
/* Removes the plain text of an interrupted decryption of an encrypted store; locked as above. */
void convert_tidy(struct emdb_io *io, int dirfd, const struct superblock *sb);

/* ---- Files (convert_file.c) ---- */

/* From where to where files are written; vaults NULL: plain. */
struct convert_way {
	struct emdb_io *io;
	uint32_t shift;
	uint8_t uuid[16];
	bool from_seeded;
	struct vault *from, *to;
	struct emdb_detail *detail;
};

/*
 * Writes the segment of row, in directory `src`, as `name` to directory `dst`, durable but for its
 * name. gaps: the manifest that knows the segment's. CORRUPT: it is not whole; detail says where.
 */
EMDB_CHECKED emdb_err convert_segment(const struct convert_way *w, int src,
				      const struct manifest_seg *row, const struct manifest *gaps,
				      int dst, const char *name);
/* The same of a checkpoint. CORRUPT: it cannot be used, and is not there. */
EMDB_CHECKED emdb_err convert_checkpoint(const struct convert_way *w, int src, uint64_t number,
					 int dst);

#endif
