/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/uring.h"

#include <stdio.h>
#include <string.h>

#include <liburing.h>

#if COMPAT_URING

/*
 * Our patch of libfuse defines the first; versions after 3.18, which need no patch, the second.
 * Without either of them an answer from the flusher's thread could hang a queue.
 */
extern const int fuse_uring_replies_from_threads __attribute__((weak));
extern void fuse_set_conn_flag(void) __attribute__((weak));

static bool library_can(void)
{
	return &fuse_uring_replies_from_threads != NULL || fuse_set_conn_flag != NULL;
}

bool uring_is_request(fuse_req_t req)
{
	return fuse_req_is_uring(req);
}

char *uring_payload(fuse_req_t req, size_t *ret_size)
{
	char *payload;

	return fuse_req_get_payload(req, &payload, ret_size, NULL) == 0 ? payload : NULL;
}

#else

static bool library_can(void)
{
	return false;
}

bool uring_is_request(fuse_req_t req)
{
	(void)req;
	return false;
}

char *uring_payload(fuse_req_t req, size_t *ret_size)
{
	(void)req;
	(void)ret_size;
	return NULL;
}

#endif

enum kernel_switch { SWITCH_ON, SWITCH_OFF, SWITCH_NONE };

static enum kernel_switch read_switch(void)
{
	FILE *f = fopen(URING_SWITCH, "re");
	int c;

	if (f == NULL)
		return SWITCH_NONE;
	c = fgetc(f);
	(void)fclose(f);
	return c == 'Y' || c == '1' ? SWITCH_ON : SWITCH_OFF;
}

/* What libfuse is going to ask for; containers often forbid it. */
static int try_ring(unsigned int depth)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQSIZE,
		.cq_entries = 2 * (depth + 1),
	};
	struct io_uring ring;
	const int err = io_uring_queue_init_params(depth + 1, &ring, &params);

	if (err == 0)
		io_uring_queue_exit(&ring);
	return -err;
}

bool uring_usable(const struct options *o, char *why, size_t n)
{
	int err;

	why[0] = '\0';
	if (o->transport == TRANSPORT_DEVICE)
		return false;
	if (!library_can()) {
		(void)snprintf(why, n, "libfuse %s has no io_uring that is safe to use",
			       fuse_pkgversion());
		return false;
	}
	switch (read_switch()) {
	case SWITCH_NONE:
		(void)snprintf(why, n, "this kernel has no FUSE over io_uring (Linux 6.14)");
		return false;
	case SWITCH_OFF:
		(void)snprintf(why, n,
			       "io_uring is off in this kernel; faster, as root: "
			       "echo Y >" URING_SWITCH);
		return false;
	case SWITCH_ON:
		break;
	}
	err = try_ring(o->uring_depth);
	if (err != 0)
		(void)snprintf(why, n, "io_uring cannot be used here: %s", strerror(err));
	return err == 0;
}
