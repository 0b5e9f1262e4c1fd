/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE over io_uring: whether this library, this kernel and this machine can.
 *
 * Requests and answers go through rings, one for each CPU, instead of reads
 * and writes of /dev/fuse.  That needs Linux 6.14, a kernel switch that root
 * sets, and a libfuse whose requests other threads may answer; see
 * packaging/libfuse.  Everything works without.
 */
#ifndef FUSE_URING_H
#define FUSE_URING_H

#include <stdbool.h>
#include <stddef.h>

#include "fuse/compat.h"
#include "fuse/options.h"

#define URING_SWITCH "/sys/module/fuse/parameters/enable_uring"

/*
 * True: libfuse shall be asked for it.  Otherwise why, a buffer, holds a
 * sentence; an empty one when nobody wants it.
 */
bool uring_usable(const struct options *o, char *why, size_t n);
/* True for a request that came through a ring. */
bool uring_is_request(fuse_req_t req);
/*
 * The buffer in the ring where the answer to the request has to be in the end,
 * so that it can be written there at once; NULL if there is none.
 */
char *uring_payload(fuse_req_t req, size_t *ret_size);

#endif
