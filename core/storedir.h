/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storedir: the directory of a store as files, for those who make, copy and
 * remove whole stores (snapshot.c, backup.c) without opening them.
 *
 * Thread-safety: none of its own; the caller makes sure that nobody else
 * changes the directory.
 */
#ifndef EMDB_STOREDIR_H
#define EMDB_STOREDIR_H

#include "core/format.h"
#include "core/io.h"
#include "core/manifest.h"

#define STOREDIR_SUPER     "superblock"
#define STOREDIR_SUPER_BAK "superblock.bak"
#define STOREDIR_LOCK      "lock"
#define STOREDIR_JOURNAL   "journal"
#define STOREDIR_SNAPSHOTS "snapshots"
#define STOREDIR_SCRUB     "scrub"

/* Opens the directory dirfd/name, which must be one itself: no symbolic link.  As err_of_io(). */
EMDB_CHECKED emdb_err storedir_open(struct emdb_io *io, int dirfd, const char *name, int *ret_fd);

/* NOT_FOUND: there is none; else as fmt_super_decode(), IO, NOMEM, PERM. */
EMDB_CHECKED emdb_err storedir_super_read(struct emdb_io *io, int dirfd, struct superblock *ret);
/* As storedir_super_read(), of a file of another name. */
EMDB_CHECKED emdb_err storedir_super_read_as(struct emdb_io *io, int dirfd, const char *name,
					     struct superblock *ret);
/* Durably, the copy for emdb_repair() too when there is one. */
EMDB_CHECKED emdb_err storedir_super_write(struct emdb_io *io, int dirfd,
					   const struct superblock *sb);

/* What the last scrub of the store with this uuid found.  False: none did, or it is not to be believed. */
bool storedir_scrub_read(struct emdb_io *io, int dirfd, const uint8_t uuid[static 16],
			 struct scrub_status *ret);
/* Durably. */
EMDB_CHECKED emdb_err storedir_scrub_write(struct emdb_io *io, int dirfd,
					   const struct scrub_status *s);

/*
 * Removes the directory dirfd/name and what is in it, as deep as a store is.
 * OK when it is not there.
 */
EMDB_CHECKED emdb_err storedir_remove(struct emdb_io *io, int dirfd, const char *name);

/*
 * Takes the lock of the store in dirfd; *ret_fd is -1 when there is no lock file, which is
 * made with `make` only.  LOCKED: somebody has it.
 */
EMDB_CHECKED emdb_err storedir_lock(struct emdb_io *io, int dirfd, bool exclusive, bool make,
				    int *ret_fd);

/* INVAL: the directory fd, or one that it lies in, is a store. */
EMDB_CHECKED emdb_err storedir_outside(struct emdb_io *io, int fd);

/* Bytes in the segments that m lists. */
uint64_t storedir_bytes(const struct manifest *m);

/* Says in *d (NULL: nobody wants to know) what went wrong with a store, for a person. */
void EMDB_PRINTF(2, 3) explain(struct emdb_detail *d, const char *fmt, ...);

#endif
