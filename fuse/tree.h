/* SPDX-License-Identifier: Apache-2.0 */
/* Totals of a directory and everything below it.  Takes long: never in a request thread. */
#ifndef FUSE_TREE_H
#define FUSE_TREE_H

#include "fuse/fs.h"

struct tree_total {
	uint64_t files; /* names that are no directories */
	uint64_t bytes; /* sum of the sizes of regular files; linked ones count per name */
};

/* 0, or an errno: EINTR when the mount is ending. */
int tree_total(struct fs *fs, uint64_t dir, struct tree_total *ret);

#endif
