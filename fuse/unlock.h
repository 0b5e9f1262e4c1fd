/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The secret of an encrypted store, for the daemon: what the options name, or, when the store turns
 * out to need one, what tools/secret.h finds.
 */
#ifndef FUSE_UNLOCK_H
#define FUSE_UNLOCK_H

#include "fuse/options.h"

enum unlock_result {
	UNLOCK_OK,
	UNLOCK_EMPTY, /* an empty passphrase */
	UNLOCK_FAILED,
};

struct unlock {
	struct secret held;
	struct emdb_secret secret;
};

/* Do the options say that there is one?  Then a store without is refused. */
bool unlock_wanted(const struct options *o);
/*
 * Reads it for the store at path, twice from a terminal when it is for a new store, and puts it into
 * *options.  From then on the process leaves no core dump.  Failures are logged.
 */
enum unlock_result unlock_read(struct unlock *u, const struct options *o, const char *path,
			       bool fresh, struct emdb_options *options);
/* Wipes what was read. */
void unlock_release(struct unlock *u);

#endif
