/* SPDX-License-Identifier: Apache-2.0 */
/* What the system says is mounted where, and taking it away.  Any thread. */
#ifndef FUSE_MOUNTS_H
#define FUSE_MOUNTS_H

#include <stdbool.h>
#include <stdint.h>

/* What df -T and /proc/self/mountinfo call us. */
#define MOUNTS_SUBTYPE "emdbfs"
#define MOUNTS_TYPE    "fuse." MOUNTS_SUBTYPE

struct mount_entry {
	int id;    /* of the mount in this mount namespace, never of two at once */
	bool ours; /* its type is MOUNTS_TYPE */
};

/* The topmost mount at exactly this absolute path; false: none. */
bool mounts_at(const char *path, struct mount_entry *ret);
/*
 * True if the process is a daemon of ours, or gone, and nothing is mounted (as
 * far as it can see) whose source is the store: it is about to close it.
 */
bool mounts_closing(int64_t pid, const char *store);
/*
 * Unmounts what is at the path, through fusermount3 when not root.  lazy:
 * detach it now, also while it is in use.  False: errno says why (EBUSY when
 * fusermount3 refused).
 */
bool mounts_remove(const char *path, bool lazy);

#endif
