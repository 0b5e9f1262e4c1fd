/* SPDX-License-Identifier: Apache-2.0 */
/* Where the store and the mountpoint are, and whether they go together. */
#ifndef FUSE_PATHS_H
#define FUSE_PATHS_H

#include <stdbool.h>

#include "fuse/options.h"

struct paths {
	char *store;      /* absolute, without links; need not exist */
	char *mountpoint; /* the same; an existing directory */
};
#define PATHS_INIT \
	{          \
		0  \
	}

/*
 * Resolves both.  Removes a dead mount that a killed daemon left behind.
 * Refuses a mountpoint that is missing, not a directory, not empty (unless
 * nonempty), or inside, around or equal to the store.  Creates nothing.
 * False: the reason was logged.
 */
bool paths_init(struct paths *p, const struct options *o);
void paths_release(struct paths *p);

#endif
