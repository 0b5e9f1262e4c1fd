/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals, taken by one thread: SIGTERM, SIGINT, SIGHUP end the mount,
 * SIGUSR1 logs a line about it.
 *
 * Phases, each entered by the main thread:
 *	OPENING   the store is being recovered; the process may just exit
 *	MOUNTING  a signal waits: exiting now could leave a dead mount
 *	SERVING   a signal ends the session
 *	LEAVING   nothing is left to end
 */
#ifndef FUSE_SIGNALS_H
#define FUSE_SIGNALS_H

#include <pthread.h>

#include "fuse/session.h"

enum signals_phase { SIGNALS_OPENING, SIGNALS_MOUNTING, SIGNALS_SERVING, SIGNALS_LEAVING };

struct signals {
	struct session *session; /* immutable while the thread runs */
	pthread_t thread;        /* the same */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum signals_phase phase; /* guarded by lock */
};

/*
 * Blocks the signals and starts the thread.  Call it before any other thread
 * exists, so that no other one ever takes them.  0 or an errno.
 */
int signals_start(struct signals *s, struct session *session);
void signals_enter(struct signals *s, enum signals_phase phase);
/* Enters LEAVING and joins the thread. */
void signals_stop(struct signals *s);

#endif
