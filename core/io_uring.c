/* SPDX-License-Identifier: Apache-2.0 */
#include "core/io_uring.h"

#include <liburing.h>
#include <sched.h>

#define RING_ENTRIES  64
#define SUBMIT_TRIES  100
#define REQ_BYTES_MAX ((size_t)1 << 30) /* the kernel's own limit lies a page below 2 GiB */

static_assert(RING_ENTRIES >= IO_BATCH_LINK_MAX, "a chain goes in with one submission");

struct uring {
	struct io_uring ring;
};

static bool ops_supported(struct io_uring *ring)
{
	struct io_uring_probe *const probe = io_uring_get_probe_ring(ring);
	bool ok;

	if (!probe)
		return false;
	ok = io_uring_opcode_supported(probe, IORING_OP_READ) &&
	     io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
	     io_uring_opcode_supported(probe, IORING_OP_FSYNC);
	io_uring_free_probe(probe);
	return ok;
}

struct uring *uring_new(void)
{
	struct uring *const u = base_calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	if (io_uring_queue_init(RING_ENTRIES, &u->ring, 0) < 0) {
		base_free(u);
		return NULL;
	}
	if (!ops_supported(&u->ring)) {
		uring_free(u);
		return NULL;
	}
	return u;
}

void uring_free(struct uring *u)
{
	if (!u)
		return;
	io_uring_queue_exit(&u->ring);
	base_free(u);
}

static void prepare(struct io_uring_sqe *sqe, struct io_req *r)
{
	switch (r->op) {
	case IO_REQ_READ:
		io_uring_prep_read(sqe, r->fd, r->buf, (unsigned int)r->n, r->off);
		break;
	case IO_REQ_WRITE:
		io_uring_prep_write(sqe, r->fd, r->buf, (unsigned int)r->n, r->off);
		break;
	case IO_REQ_FDATASYNC:
		io_uring_prep_fsync(sqe, r->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	if (r->link)
		sqe->flags |= IOSQE_IO_LINK;
	io_uring_sqe_set_data(sqe, r);
}

/*
 * A short transfer breaks a chain as an error does, so what follows comes back as cancelled. Both
 * are run again: reads and positioned writes may be repeated, and what was cancelled never ran. The
 * listed errors mean that the kernel did not try; anything else is the operation's own result and
 * stands, a failed fdatasync above all.
 */
static int result_of(const struct io_req *r, int res)
{
	switch (res) {
	case -ECANCELED:
	case -EINTR:
	case -EAGAIN:
	case -EINVAL:
	case -EOPNOTSUPP:
	case -ENOSYS:
	case -EPERM:
	case -EACCES:
		return URING_NOT_RUN;
	default:
		break;
	}
	if (res < 0)
		return res;
	return r->op == IO_REQ_FDATASYNC || (size_t)res == r->n ? 0 : URING_NOT_RUN;
}

/* Number of leading requests that make whole chains and fit the ring. */
static size_t wave_length(const struct io_req *reqs, size_t count)
{
	size_t whole = 0;

	for (size_t i = 0; i < count && i < RING_ENTRIES; i++)
		if (!reqs[i].link || i + 1 == count)
			whole = i + 1;
	return whole;
}

/*
 * The queue was empty, so a negative result means that nothing was taken; a result below count, that
 * the kernel stopped in the middle, where a chain may be cut in two. The rest then stays in the
 * queue, which is why the ring is given up.
 */
static size_t submit(struct uring *u, size_t count)
{
	for (unsigned int try = 0; try < SUBMIT_TRIES; try++) {
		const int res = io_uring_submit_and_wait(&u->ring, (unsigned int)count);

		if (res >= 0)
			return (size_t)res;
		if (res != -EINTR && res != -EAGAIN && res != -EBUSY)
			return 0;
		(void)sched_yield();
	}
	return 0;
}

/* Waits for all that was taken, whatever happens: the kernel still owns their buffers. */
static void reap(struct uring *u, size_t count)
{
	struct io_uring_cqe *cqe;

	while (count) {
		if (io_uring_wait_cqe(&u->ring, &cqe) < 0) {
			(void)sched_yield();
			continue;
		}
		struct io_req *const r = io_uring_cqe_get_data(cqe);

		r->err = result_of(r, cqe->res);
		io_uring_cqe_seen(&u->ring, cqe);
		count--;
	}
}

bool uring_run(struct uring *u, struct io_req *reqs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		reqs[i].err = URING_NOT_RUN;
	for (size_t i = 0; i < count; i++)
		if (reqs[i].op != IO_REQ_FDATASYNC && reqs[i].n > REQ_BYTES_MAX)
			return true;
	while (count) {
		const size_t n = wave_length(reqs, count);
		size_t taken;

		emdb_assert(n);
		for (size_t i = 0; i < n; i++) {
			struct io_uring_sqe *const sqe = io_uring_get_sqe(&u->ring);

			emdb_assert(sqe); /* the wave fits, and the last one is gone */
			prepare(sqe, &reqs[i]);
		}
		taken = submit(u, n);
		reap(u, taken);
		if (taken < n)
			return false;
		reqs += n;
		count -= n;
	}
	return true;
}
