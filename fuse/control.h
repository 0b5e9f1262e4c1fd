/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's socket, STORE/control.sock: `emdb` talks to a mounted store
 * through it.
 *
 * It serves the store's owner and root, one thread for each connection, none
 * of which ever holds up a request of the kernel.  What they can take is
 * bounded: connections by CONTROL_CONNECTIONS_MAX (the one that has been
 * silent longest makes room for a new one), messages by CTL_BODY_MAX, the time
 * that one may take to arrive or to be taken by CONTROL_SLOW_MS.
 *
 * The kernel has been told of a change before its answer is sent.
 */
#ifndef FUSE_CONTROL_H
#define FUSE_CONTROL_H

#include "fuse/fs.h"

#define CONTROL_CONNECTIONS_MAX 16
/* Longest that one message may take on its way, ms. */
#define CONTROL_SLOW_MS 30000
/* A connection that is silent for so long may have to make room, ms. */
#define CONTROL_IDLE_MS 1000

struct control;

/*
 * Listens; fs->db is open for writing, which is how we know that a socket that
 * is there has been left behind.  NULL: the reason was logged, and the mount
 * can do without.
 */
struct control *control_start(struct fs *fs, const char *store, const char *mountpoint);
/*
 * Removes the socket, ends all connections, and returns when their threads are
 * gone; before the store is closed and before the notifier is freed.  NULL is
 * allowed.
 */
void control_stop(struct control *c);

#endif
