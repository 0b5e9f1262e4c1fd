/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extended attributes that are not stored but mean something:
 *
 *	name                   of     get                        set
 *	user.emdb.ttl          files  seconds left               see emdb_ttl_parse()
 *	user.emdb.expires      files  Unix time secs[.nsecs]     the same
 *	user.emdb.ttl.default  dirs   seconds, or NNNms          see emdb_duration_parse(), none
 *	user.emdb.ttl.basis    dirs   create, modify             the same
 *	user.emdb.key          all    the raw key
 *	user.emdb.lsn          all    where the record is
 *	user.emdb.snap.btime   all    in a snapshot: when it was made, Unix time secs.nsecs
 *	user.emdb.rfiles       dirs   files in it and below
 *	user.emdb.rbytes       dirs   their bytes
 *
 * Removing one of the first four sets it to its neutral value.  Those that
 * tools must carry along when they copy are listed (expires, ttl.default,
 * ttl.basis) when they differ from it; the others answer by name only.
 */
#ifndef FUSE_VIRTUAL_H
#define FUSE_VIRTUAL_H

#include "fuse/fs.h"

#define VIRTUAL_PREFIX "user.emdb."
/* Bytes that virtual_list() may add to a list of names. */
#define VIRTUAL_LIST_MAX 128

struct virtual;

/* True if the name is in our name space; *ret: which, NULL: none of the known ones. */
bool virtual_find(const char *name, const struct virtual **ret);
/* True if getting it may take long; then do so in a thread of its own. */
bool virtual_is_slow(const struct virtual *v);

/* The value, to free().  0 or an errno: ENODATA, and the store's. */
int virtual_get(struct fs *fs, const struct virtual *v, uint64_t id, void **ret, size_t *ret_len);
/* value NULL: remove it.  EINVAL: a bad value; EPERM: it cannot be set; EISDIR. */
int virtual_set(struct fs *fs, const struct virtual *v, uint64_t id, const char *value, size_t len);
/* Writes the listed names of the object, each with its NUL, and returns their size. */
size_t virtual_list(struct fs *fs, uint64_t id, char buf[VIRTUAL_LIST_MAX]);

#endif
