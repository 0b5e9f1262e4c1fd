/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring: runs io_batch requests side by side. Private to io.c; hides liburing.
 *
 * Thread-safety: none, the caller serialises. Belongs to the process that made it: after a fork the
 * child must not use it.
 */
#ifndef EMDB_IO_URING_H
#define EMDB_IO_URING_H

#include "core/io.h"

/* In io_req.err: not run, or not to the end; to be run again by plain calls. */
#define URING_NOT_RUN 1

struct uring;

/* NULL when the kernel, a container's policy or a limit does not allow it. */
struct uring *uring_new(void) EMDB_MUST_CHECK;

/* Takes NULL. */
void uring_free(struct uring *u);

/*
 * Runs the requests to their end and sets each err to the result or to URING_NOT_RUN, never leaving
 * one in flight. False when the ring refuses to go on and is to be freed.
 */
bool uring_run(struct uring *u, struct io_req *reqs, size_t count) EMDB_MUST_CHECK;

#endif
