/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to the daemon that serves a store.
 *
 * One thread at a time.  Messages and fields are those of ctl_proto.h.
 */
#ifndef TOOLS_CTL_H
#define TOOLS_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/ctl_proto.h"

struct ctl {
	int fd;
	int64_t pid;               /* of the daemon */
	uint8_t uuid[16];          /* of the store */
	bool lost;                 /* the connection broke */
	emdb_progress_fn progress; /* of what answers to PROGRESS say; NULL: nobody asked */
	void *progress_ctx;
	char remark[512]; /* what the last answer that was an error said, often "" */
	struct ctl_buf out;
	uint8_t *in;
	size_t in_cap;
};

/*
 * Connects to the daemon of the store in this directory.  Errors: NOT_FOUND
 * (there is none that listens), BUSY, PERM, VERSION, IO, NOMEM.
 */
emdb_err ctl_connect(const char *store, struct ctl **ret_ctl);
void ctl_close(struct ctl *ctl);

/*
 * Sends the request and waits for the answer; strings in it are valid until
 * the next call.  Errors: the answer's, which then has no fields; IO when the
 * connection broke; NOMEM.
 */
emdb_err ctl_call(struct ctl *ctl, const struct ctl_msg *request, struct ctl_msg *ret_answer);

/*
 * Lets the daemon say how far COMPACT and BACKUP are: fn is called in ctl_call(), what it returns does not count.
 * NOT_FOUND: the daemon is too old for that, and the connection is lost.
 */
emdb_err ctl_watch(struct ctl *ctl, emdb_progress_fn fn, void *ctx);

/* Waits for one more answer to that request. */
emdb_err ctl_more(struct ctl *ctl, uint8_t op, struct ctl_msg *ret_answer);

/*
 * The directory of the store that is mounted at exactly this path; free with
 * free().  NULL: nothing of ours is mounted there.
 */
char *ctl_store_of_mount(const char *path);
/* True if the store in this directory is mounted, as far as this process can see. */
bool ctl_is_mounted(const char *store);

#endif
