/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of snapshots, ROOT/.snap: not listed in the root (unless
 * snapdir=visible), with a directory for each snapshot and the symbolic link
 * "latest" to the newest.  mkdir makes a snapshot, rmdir removes one, rename
 * renames one; the store's owner and root may.  What is in a snapshot is the
 * business of snapops.h.
 *
 * A snapshot that is removed while files in it are open, or while somebody is
 * in one of its directories, can be read by those until they let go.
 *
 * Each function with a request answers it; fs->snaps is not NULL.
 */
#ifndef FUSE_SNAPDIR_H
#define FUSE_SNAPDIR_H

#include "fuse/fs.h"

/* The directory itself, found in the root. */
void snapdir_reply(fuse_req_t req);
void snapdir_lookup(fuse_req_t req, const char *name);
/* Of the directory or of "latest".  False: neither. */
bool snapdir_attr(struct fs *fs, uint64_t node, struct emdb_attr *ret);
void snapdir_list(fuse_req_t req, size_t size, off_t off, bool plus);
void snapdir_readlink(fuse_req_t req);
/* These take as long as syncing does. */
void snapdir_create(fuse_req_t req, const char *name);
void snapdir_remove(fuse_req_t req, const char *name);
void snapdir_rename(fuse_req_t req, const char *name, const char *new_name);

/*
 * After a change that the kernel did not ask for: tells it, and waits until it
 * knows.  new_name NULL: not renamed.  Never from a request handler.
 */
void snapdir_created(struct fs *fs);
void snapdir_removed(struct fs *fs, const char *name);
void snapdir_renamed(struct fs *fs, const char *name, const char *new_name);

#endif
