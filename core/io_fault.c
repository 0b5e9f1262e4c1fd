/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault backend: every call passes enter(), where the plan may fail it, the wrapped backend and
 * leave(). Only tests use it.
 */
#include <stdatomic.h>

#include "core/io.h"

#define CUT_IOV_MAX 64 /* pieces of a write that is cut short */

struct fault {
	struct emdb_io io;
	struct emdb_io *inner;       /* immutable */
	struct io_fault plan;        /* immutable between two emdb_io_fault_set */
	atomic_uint_least64_t calls; /* atomic: relaxed, counters */
	atomic_uint_least64_t hits;
};

static inline struct fault *fault_of(struct emdb_io *io)
{
	return io->ctx;
}

static inline struct io_event event(enum io_op op, int fd)
{
	return (struct io_event){ .op = op, .fd = fd, .fd2 = -1, .dirfd = -1, .dirfd2 = -1 };
}

/* 0 when the call may go on. */
static int enter(struct fault *f, const struct io_event *ev)
{
	const struct io_fault *const p = &f->plan;
	uint64_t n;
	int err = p->before ? p->before(p->hook_arg, ev) : 0;

	if (!err && p->mask & IO_MASK(ev->op)) {
		n = atomic_fetch_add_explicit(&f->calls, 1, memory_order_relaxed) + 1;
		if (p->nth && (n == p->nth || (p->sticky && n > p->nth)))
			err = p->err;
	}
	if (err)
		(void)atomic_fetch_add_explicit(&f->hits, 1, memory_order_relaxed);
	return err;
}

static int leave(struct fault *f, const struct io_event *ev, int err)
{
	if (f->plan.after)
		f->plan.after(f->plan.hook_arg, ev, err);
	return err;
}

/* ---- Files ---- */

static int fault_openat(struct emdb_io *io, int dirfd, const char *name, int flags, mode_t mode,
			int *ret_fd)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_OPENAT, -1);
	int err;

	ev.dirfd = dirfd;
	ev.name = name;
	ev.flags = flags;
	err = enter(f, &ev);
	if (!err)
		err = io_openat(f->inner, dirfd, name, flags, mode, &ev.fd);
	if (!err)
		*ret_fd = ev.fd;
	return leave(f, &ev, err);
}

static int fault_close(struct emdb_io *io, int fd)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = event(IO_OP_CLOSE, fd);
	const int err = enter(f, &ev);
	const int err2 = io_close(f->inner, fd);

	return leave(f, &ev, err ? err : err2);
}

static int fault_pread_full(struct emdb_io *io, int fd, void *buf, size_t n, uint64_t off,
			    size_t *ret_n)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_PREAD, fd);
	int err;

	ev.off = off;
	ev.len = n;
	err = enter(f, &ev);
	if (!err)
		err = io_pread_full(f->inner, fd, buf, n, off, ret_n);
	return leave(f, &ev, err);
}

/* The first half of the bytes, as far as CUT_IOV_MAX pieces go. */
static void write_cut(struct fault *f, const struct io_event *ev)
{
	struct iovec iov[CUT_IOV_MAX];
	size_t left = (size_t)(ev->len / 2);
	int count = 0;

	while (left && count < ev->iov_count && count < CUT_IOV_MAX) {
		iov[count] = ev->iov[count];
		iov[count].iov_len = min_size(iov[count].iov_len, left);
		left -= iov[count].iov_len;
		count++;
	}
	if (io_pwritev_full(f->inner, ev->fd, iov, count, ev->off) != 0)
		return; /* the call fails anyhow */
}

static int fault_pwritev_full(struct emdb_io *io, int fd, const struct iovec *iov, int count,
			      uint64_t off)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_PWRITE, fd);
	int err;

	ev.iov = iov;
	ev.iov_count = count;
	ev.off = off;
	for (int i = 0; i < count; i++)
		ev.len += iov[i].iov_len;
	err = enter(f, &ev);
	if (!err)
		err = io_pwritev_full(f->inner, fd, iov, count, off);
	else if (f->plan.cut)
		write_cut(f, &ev);
	return leave(f, &ev, err);
}

static int fault_fdatasync(struct emdb_io *io, int fd)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = event(IO_OP_FDATASYNC, fd);
	int err = enter(f, &ev);

	if (!err)
		err = io_fdatasync(f->inner, fd);
	return leave(f, &ev, err);
}

static int fault_fsync(struct emdb_io *io, int fd)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = event(IO_OP_FSYNC, fd);
	int err = enter(f, &ev);

	if (!err)
		err = io_fsync(f->inner, fd);
	return leave(f, &ev, err);
}

static int fault_fallocate(struct emdb_io *io, int fd, uint64_t off, uint64_t len, bool keep_size)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_FALLOCATE, fd);
	int err;

	ev.off = off;
	ev.len = len;
	ev.flags = keep_size;
	err = enter(f, &ev);
	if (!err)
		err = io_fallocate(f->inner, fd, off, len, keep_size);
	return leave(f, &ev, err);
}

static int fault_ftruncate(struct emdb_io *io, int fd, uint64_t size)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_FTRUNCATE, fd);
	int err;

	ev.len = size;
	err = enter(f, &ev);
	if (!err)
		err = io_ftruncate(f->inner, fd, size);
	return leave(f, &ev, err);
}

static int fault_fstat(struct emdb_io *io, int fd, struct io_stat *ret_st)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = event(IO_OP_FSTAT, fd);
	int err = enter(f, &ev);

	if (!err)
		err = io_fstat(f->inner, fd, ret_st);
	return leave(f, &ev, err);
}

static int fault_fstatat(struct emdb_io *io, int dirfd, const char *name, struct io_stat *ret_st)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_FSTAT, -1);
	int err;

	ev.dirfd = dirfd;
	ev.name = name;
	err = enter(f, &ev);
	if (!err)
		err = io_fstatat(f->inner, dirfd, name, ret_st);
	return leave(f, &ev, err);
}

static int fault_fstatvfs(struct emdb_io *io, int fd, struct io_vfs *ret_vfs)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = event(IO_OP_FSTAT, fd);
	int err = enter(f, &ev);

	if (!err)
		err = io_fstatvfs(f->inner, fd, ret_vfs);
	return leave(f, &ev, err);
}

static int fault_mmap_ro(struct emdb_io *io, int fd, size_t len, const uint8_t **ret_p)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_MMAP, fd);
	int err;

	ev.len = len;
	err = enter(f, &ev);
	if (!err)
		err = io_mmap_ro(f->inner, fd, len, ret_p);
	return leave(f, &ev, err);
}

static int fault_munmap(struct emdb_io *io, const uint8_t *p, size_t len)
{
	io_munmap(fault_of(io)->inner, p, len);
	return 0;
}

/* Nobody learns whether it worked, so it cannot fail. */
static void fault_ready(struct emdb_io *io, int fd, const uint8_t *p, uint64_t off, size_t len)
{
	io_ready(fault_of(io)->inner, fd, p, off, len);
}

static int fault_flock(struct emdb_io *io, int fd, bool exclusive, bool nonblock)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = event(IO_OP_FLOCK, fd);
	int err = enter(f, &ev);

	if (!err)
		err = io_flock(f->inner, fd, exclusive, nonblock);
	return leave(f, &ev, err);
}

static int fault_clone(struct emdb_io *io, int src_fd, int dst_fd)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_CLONE, src_fd);
	int err;

	ev.fd2 = dst_fd;
	err = enter(f, &ev);
	if (!err)
		err = io_clone(f->inner, src_fd, dst_fd);
	return leave(f, &ev, err);
}

/* ---- Names ---- */

static struct io_event name_event(enum io_op op, int dirfd, const char *name)
{
	struct io_event ev = event(op, -1);

	ev.dirfd = dirfd;
	ev.name = name;
	return ev;
}

static int fault_renameat(struct emdb_io *io, int olddir, const char *old, int newdir,
			  const char *name)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = name_event(IO_OP_RENAMEAT, olddir, old);
	int err;

	ev.dirfd2 = newdir;
	ev.name2 = name;
	err = enter(f, &ev);
	if (!err)
		err = io_renameat(f->inner, olddir, old, newdir, name);
	return leave(f, &ev, err);
}

static int fault_linkat(struct emdb_io *io, int olddir, const char *old, int newdir,
			const char *name)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = name_event(IO_OP_LINKAT, olddir, old);
	int err;

	ev.dirfd2 = newdir;
	ev.name2 = name;
	err = enter(f, &ev);
	if (!err)
		err = io_linkat(f->inner, olddir, old, newdir, name);
	return leave(f, &ev, err);
}

static int fault_unlinkat(struct emdb_io *io, int dirfd, const char *name, int flags)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = name_event(IO_OP_UNLINKAT, dirfd, name);
	int err;

	ev.flags = flags;
	err = enter(f, &ev);
	if (!err)
		err = io_unlinkat(f->inner, dirfd, name, flags);
	return leave(f, &ev, err);
}

static int fault_mkdirat(struct emdb_io *io, int dirfd, const char *name, mode_t mode)
{
	struct fault *const f = fault_of(io);
	const struct io_event ev = name_event(IO_OP_MKDIRAT, dirfd, name);
	int err = enter(f, &ev);

	if (!err)
		err = io_mkdirat(f->inner, dirfd, name, mode);
	return leave(f, &ev, err);
}

static int fault_list(struct emdb_io *io, int dirfd, io_list_fn fn, void *arg)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_LIST, -1);
	int err;

	ev.dirfd = dirfd;
	err = enter(f, &ev);
	if (!err)
		err = io_list(f->inner, dirfd, fn, arg);
	return leave(f, &ev, err);
}

/* ---- Clock, randomness, host ---- */

static uint64_t fault_clock_real_ns(struct emdb_io *io)
{
	return io_clock_real_ns(fault_of(io)->inner);
}

static uint64_t fault_clock_mono_ns(struct emdb_io *io)
{
	return io_clock_mono_ns(fault_of(io)->inner);
}

static int fault_random(struct emdb_io *io, void *buf, size_t n)
{
	struct fault *const f = fault_of(io);
	struct io_event ev = event(IO_OP_RANDOM, -1);
	int err;

	ev.len = n;
	err = enter(f, &ev);
	if (!err)
		err = io_random(f->inner, buf, n);
	return leave(f, &ev, err);
}

static int fault_host(struct emdb_io *io, struct io_host *ret_host)
{
	return io_host(fault_of(io)->inner, ret_host);
}

static int fault_process_start(struct emdb_io *io, uint64_t pid, uint64_t *ret_ticks)
{
	return io_process_start(fault_of(io)->inner, pid, ret_ticks);
}

static bool fault_uses_uring(struct emdb_io *io)
{
	(void)io;
	return false;
}

/* ---- The backend ---- */

static void fault_free(struct emdb_io *io)
{
	base_free(fault_of(io));
}

static const struct emdb_io_ops fault_ops = {
	.openat = fault_openat,
	.close = fault_close,
	.pread_full = fault_pread_full,
	.pwritev_full = fault_pwritev_full,
	.fdatasync = fault_fdatasync,
	.fsync = fault_fsync,
	.batch = io_batch_plain,
	.fallocate = fault_fallocate,
	.ftruncate = fault_ftruncate,
	.fstat = fault_fstat,
	.fstatat = fault_fstatat,
	.fstatvfs = fault_fstatvfs,
	.mmap_ro = fault_mmap_ro,
	.munmap = fault_munmap,
	.ready = fault_ready,
	.renameat = fault_renameat,
	.linkat = fault_linkat,
	.unlinkat = fault_unlinkat,
	.mkdirat = fault_mkdirat,
	.list = fault_list,
	.flock = fault_flock,
	.clone = fault_clone,
	.clock_real_ns = fault_clock_real_ns,
	.clock_mono_ns = fault_clock_mono_ns,
	.random = fault_random,
	.host = fault_host,
	.process_start = fault_process_start,
	.uses_uring = fault_uses_uring,
	.free = fault_free,
};

struct emdb_io *emdb_io_fault_new(struct emdb_io *inner)
{
	struct fault *const f = base_calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->io.ops = &fault_ops;
	f->io.ctx = f;
	f->inner = inner;
	return &f->io;
}

void emdb_io_fault_set(struct emdb_io *io, const struct io_fault *plan)
{
	struct fault *const f = fault_of(io);

	f->plan = plan ? *plan : (struct io_fault){ 0 };
	atomic_store_explicit(&f->calls, 0, memory_order_relaxed);
	atomic_store_explicit(&f->hits, 0, memory_order_relaxed);
}

uint64_t emdb_io_fault_calls(struct emdb_io *io)
{
	return atomic_load_explicit(&fault_of(io)->calls, memory_order_relaxed);
}

uint64_t emdb_io_fault_hits(struct emdb_io *io)
{
	return atomic_load_explicit(&fault_of(io)->hits, memory_order_relaxed);
}
