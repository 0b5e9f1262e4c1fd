/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access control lists of files and directories, kept in step with their modes.
 *
 * The kernel checks who may do what (wherever it checks modes), and that only the
 * owner changes a list; what is left for us is what acl(5) says of storing them: a
 * list that says no more than a mode becomes that mode, a new mode changes
 * the list, and what is created takes the default list of its directory.
 */
#ifndef FUSE_ACCESS_H
#define FUSE_ACCESS_H

#include "fuse/fs.h"

/* Whether an extended attribute of this name is such a list. */
bool access_is_list(const char *name);
/* Answer the requests to set (whatever was there) and to remove one. */
void access_set(fuse_req_t req, fuse_ino_t ino, const char *name, const char *list, size_t len);
void access_remove(fuse_req_t req, fuse_ino_t ino, const char *name);
/* chmod(2) of a node with a list.  NO_XATTR: it has none, and nothing was done. */
emdb_err access_chmod(struct fs *fs, uint64_t id, uint32_t mode);

/* What a new node gets from its directory. */
struct access_new {
	struct emdb_xattr xattrs[2];
	void *lists[2];
};
/*
 * Completes *what, whose mode is what the caller asked for: with the default list of
 * the directory, or else by the caller's umask.  Release *ret after *what was used,
 * whatever the error.
 */
emdb_err access_inherit(fuse_req_t req, uint64_t parent, struct emdb_create *what,
			struct access_new *ret);
void access_new_release(struct access_new *n);

#endif
