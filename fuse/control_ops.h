/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests of one connection on the control socket do.  One thread each. */
#ifndef FUSE_CONTROL_OPS_H
#define FUSE_CONTROL_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "fuse/fs.h"
#include "tools/ctl_proto.h"

/* Bytes of entries in one answer to LIST, about. */
#define CONTROL_LIST_BYTES (256u * 1024u)

struct control_client {
	struct fs *fs;          /* immutable */
	const char *mountpoint; /* immutable; the caller's */
	/* False: a request that takes long should give up.  Any thread that works for it. */
	bool (*wanted)(void *ctx);
	void *wanted_ctx;
	/* Sends an answer that others follow; false: nobody takes it. */
	bool (*tell)(void *ctx, const struct ctl_msg *answer);
	void *tell_ctx;
	uint64_t open;    /* the open object, of which a reference is held; 0: none */
	bool made;        /* by CREATE */
	bool telling;     /* PROGRESS was asked for, and somebody takes it */
	uint64_t told_ns; /* when it last was */
	uint8_t uuid[16];
	char remark[512];      /* goes with an error */
	struct ctl_buf fields; /* of the answer being made */
	uint8_t *piece;        /* CTL_PIECE_MAX bytes, NULL: not needed yet */
};

/*
 * Carries the request out.  The answer's strings are valid until the next
 * call.
 */
void control_answer(struct control_client *cl, const struct ctl_msg *request, struct ctl_msg *ret);
/* Lets go of everything; the struct can be used again. */
void control_client_release(struct control_client *cl);

#endif
