/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that asks the mount something on behalf of the daemon.
 *
 * A thread that waits for an answer of its own process cannot be killed: its descriptor of the
 * device keeps the connection up, and the connection keeps it waiting.  A child that does the
 * asking must not hold the connection either, in whatever way: not by a descriptor, and not by the
 * memory that it shares with a ring of io_uring, in which requests for the device wait.
 */
#ifndef FUSE_CHILD_H
#define FUSE_CHILD_H

/*
 * Calls fn in a process of its own and waits for it.  fn returns an errno; so does this, ECONNABORTED
 * when the process was killed.  fn may call what is safe in a signal handler only.
 */
int in_child(int (*fn)(const char *path), const char *path);

#endif
