/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the kernel: mounting, serving, and ending in good order.
 *
 * One thread opens, runs session_loop() and closes; another one may call
 * session_end() while the loop runs.
 */
#ifndef FUSE_SESSION_H
#define FUSE_SESSION_H

#include <pthread.h>
#include <stdbool.h>

#include "fuse/compat.h"
#include "fuse/fs.h"
#include "fuse/mounts.h"

struct session {
	struct fs *fs;            /* immutable */
	struct fuse_session *se;  /* immutable after open */
	const char *mountpoint;   /* immutable after open; the caller's */
	struct mount_entry mount; /* immutable after open */
	struct notify *notify;    /* immutable after open */
	pthread_t loop_thread;    /* immutable while the loop runs */
	pthread_mutex_t lock;
	pthread_cond_t loop_changed;
	bool looping; /* guarded by lock */
	bool ended;   /* guarded by lock; the loop is over or was never to begin */
};

/*
 * Mounts; fs->db is open.  source is what df shows, an absolute path.  False:
 * the reason was logged, and session_close() is still to be called.
 */
bool session_open(struct session *s, struct fs *fs, const struct fuse_lowlevel_ops *ops,
		  const char *source, const char *mountpoint);
/*
 * Whether the kernel is to check permission bits.  Nobody but root, whom no bits stop, enters a
 * mount that root made for itself: there the kernel need not ask for the modes of
 * directories again and again.
 */
bool session_wants_permissions(const struct options *opt);
/* The handler of INIT: asks the kernel for what makes us fast. */
void session_init_conn(void *userdata, struct fuse_conn_info *conn);
/* Serves until unmounted or session_end(); false: it failed, and was logged. */
bool session_loop(struct session *s);
/*
 * Unmounts and makes the loop end.  Users who have something open get a moment
 * to let go, then errors.
 */
void session_end(struct session *s);
/* Unmounts if need be, waits for all answers, frees.  The notifier stays: see notify.h. */
void session_close(struct session *s);

/*
 * Makes the kernel ask us once: shows that the mount answers, and lets it
 * learn from our answer to OPEN.  From a thread of its own, while the loop
 * runs.  False: it does not answer.
 */
bool session_probe(struct session *s);

#endif
