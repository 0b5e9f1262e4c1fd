/* SPDX-License-Identifier: Apache-2.0 */
/* Access times on reading, with -o atime or -o relatime.  Any thread. */
#ifndef FUSE_ATIME_H
#define FUSE_ATIME_H

#include "fuse/fs.h"

void atime_update(struct fs *fs, uint64_t id);

/* The object was read.  What the kernel reads from its own caches we do not see. */
static inline void atime_touch(struct fs *fs, uint64_t id)
{
	if (fs->opt.atime != ATIME_OFF && !fs->opt.read_only)
		atime_update(fs, id);
}

#endif
