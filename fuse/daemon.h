/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going to the background, in such a way that whoever started us learns what
 * became of it: the process that was started waits, and exits 0 only when the
 * mount answers requests, else with the failure's exit code.
 *
 * Calling sequence: daemon_fork(), then in the child daemon_ready() or
 * daemon_failed(), once; what comes later is ignored.
 */
#ifndef FUSE_DAEMON_H
#define FUSE_DAEMON_H

#include <stdbool.h>

struct daemon {
	int pipe; /* to the waiting parent; -1: none */
};
#define DAEMON_INIT \
	{           \
		-1  \
	}

/*
 * Forks unless foreground, and returns in the child; the parent waits for its
 * report and exits.  Call it before any thread exists.  False: errno says why.
 */
bool daemon_fork(struct daemon *d, bool foreground);
/*
 * All is well: lets the parent exit 0 and cuts loose from the terminal and
 * the working directory.  Also tells a service manager (sd_notify(3)).
 */
void daemon_ready(struct daemon *d);
/* Makes the parent exit with this code. */
void daemon_failed(struct daemon *d, int code);
/* Tells the service manager that we are on our way out. */
void daemon_stopping(void);

#endif
