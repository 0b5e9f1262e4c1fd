/* SPDX-License-Identifier: Apache-2.0 */
#include "core/io.h"

#include <dirent.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "core/io_uring.h"
#include "core/sync.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

#define NS_PER_S   UINT64_C(1000000000)
#define IOV_WINDOW 64                /* pieces handed to one pwritev */
#define COPY_BYTES ((size_t)1 << 20) /* piece of io_copy */
#define TMP_SUFFIX ".tmp"

static_assert(sizeof(off_t) == 8, "files may be larger than 2 GiB");

struct posix {
	struct emdb_io io;
	bool no_uring;          /* immutable */
	atomic_bool used_uring; /* atomic: relaxed, a statistic */
	struct mutex ring_lock; /* only ever tried: whoever finds it taken goes without */
	struct uring *ring;     /* guarded by ring_lock */
	bool ring_tried;        /* guarded by ring_lock */
	pid_t ring_pid;         /* guarded by ring_lock; owner of the ring */
};

static inline struct posix *posix_of(struct emdb_io *io)
{
	return io->ctx;
}

static inline int result(int res)
{
	return res < 0 ? -errno : 0;
}

/* Offsets above what off_t holds do not exist. */
static inline bool range_bad(uint64_t off, uint64_t n)
{
	return off > INT64_MAX || n > INT64_MAX - off;
}

/* ---- Files ---- */

static int os_openat(struct emdb_io *io, int dirfd, const char *name, int flags, mode_t mode,
		     int *ret_fd)
{
	int fd;

	(void)io;
	do {
		fd = openat(dirfd, name, flags | O_CLOEXEC, mode);
	} while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* On Linux the descriptor is gone after EINTR as well. */
static int os_close(struct emdb_io *io, int fd)
{
	(void)io;
	return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static int os_pread_full(struct emdb_io *io, int fd, void *buf, size_t n, uint64_t off,
			 size_t *ret_n)
{
	uint8_t *const p = buf;
	size_t done = 0;

	(void)io;
	if (range_bad(off, n))
		return -EINVAL;
	while (done < n) {
		const ssize_t res = pread(fd, p + done, n - done, (off_t)(off + done));

		if (res < 0 && errno == EINTR)
			continue;
		if (res < 0)
			return -errno;
		if (res == 0)
			break;
		done += (size_t)res;
	}
	*ret_n = done;
	return 0;
}

static int write_all(int fd, const uint8_t *p, size_t n, uint64_t off)
{
	while (n) {
		const ssize_t res = pwrite(fd, p, n, (off_t)off);

		if (res < 0 && errno == EINTR)
			continue;
		if (res <= 0)
			return res < 0 ? -errno : -EIO;
		p += res;
		n -= (size_t)res;
		off += (uint64_t)res;
	}
	return 0;
}

/* Drops the first done bytes from the window; returns the number of pieces gone. */
static int iov_advance(struct iovec *iov, int count, size_t done)
{
	int gone = 0;

	while (gone < count && done >= iov[gone].iov_len)
		done -= iov[gone++].iov_len;
	if (gone < count) {
		iov[gone].iov_base = (uint8_t *)iov[gone].iov_base + done;
		iov[gone].iov_len -= done;
	}
	return gone;
}

/* One window of at most IOV_WINDOW pieces; *off moves on. iov is used up. */
static int writev_window(int fd, struct iovec *iov, int count, uint64_t *off)
{
	while (count) {
		ssize_t res;
		int gone = iov_advance(iov, count, 0); /* empty pieces */

		iov += gone;
		count -= gone;
		if (!count)
			break;
		res = pwritev(fd, iov, count, (off_t)*off);
		if (res < 0 && errno == EINTR)
			continue;
		if (res <= 0)
			return res < 0 ? -errno : -EIO;
		*off += (uint64_t)res;
		gone = iov_advance(iov, count, (size_t)res);
		iov += gone;
		count -= gone;
	}
	return 0;
}

static int os_pwritev_full(struct emdb_io *io, int fd, const struct iovec *iov, int count,
			   uint64_t off)
{
	struct iovec window[IOV_WINDOW];
	uint64_t total = 0;

	(void)io;
	for (int i = 0; i < count; i++)
		if (emdb_add_ovf(total, iov[i].iov_len, &total))
			return -EINVAL;
	if (count < 0 || range_bad(off, total))
		return -EINVAL;
	if (count == 1)
		return write_all(fd, iov[0].iov_base, iov[0].iov_len, off);
	while (count) {
		const int n = count < IOV_WINDOW ? count : IOV_WINDOW;
		int err;

		memcpy(window, iov, (size_t)n * sizeof(*iov));
		err = writev_window(fd, window, n, &off);
		if (err)
			return err;
		iov += n;
		count -= n;
	}
	return 0;
}

static int os_fdatasync(struct emdb_io *io, int fd)
{
	(void)io;
	return result(fdatasync(fd));
}

static int os_fsync(struct emdb_io *io, int fd)
{
	(void)io;
	return result(fsync(fd));
}

static int os_fallocate(struct emdb_io *io, int fd, uint64_t off, uint64_t len, bool keep_size)
{
	int res;

	(void)io;
	if (range_bad(off, len))
		return -EINVAL;
	do {
		res = fallocate(fd, keep_size ? FALLOC_FL_KEEP_SIZE : 0, (off_t)off, (off_t)len);
	} while (res < 0 && errno == EINTR);
	if (res < 0 && errno == ENOSYS)
		return -EOPNOTSUPP;
	return result(res);
}

static int os_ftruncate(struct emdb_io *io, int fd, uint64_t size)
{
	int res;

	(void)io;
	if (size > INT64_MAX)
		return -EINVAL;
	do {
		res = ftruncate(fd, (off_t)size);
	} while (res < 0 && errno == EINTR);
	return result(res);
}

static struct io_stat stat_from(const struct stat *st)
{
	return (struct io_stat){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.mtime_ns = (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec,
		.nlink = (uint32_t)st->st_nlink,
		.mode = st->st_mode,
	};
}

static int os_fstat(struct emdb_io *io, int fd, struct io_stat *ret_st)
{
	struct stat st;

	(void)io;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_st = stat_from(&st);
	return 0;
}

static int os_fstatat(struct emdb_io *io, int dirfd, const char *name, struct io_stat *ret_st)
{
	struct stat st;

	(void)io;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	*ret_st = stat_from(&st);
	return 0;
}

/* Others share blocks between files, or write every change to a new place. */
static bool in_place(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) == 0 && (st.f_type == EXT4_SUPER_MAGIC || st.f_type == TMPFS_MAGIC);
}

static int os_fstatvfs(struct emdb_io *io, int fd, struct io_vfs *ret_vfs)
{
	struct statvfs vfs;
	int res;

	(void)io;
	do {
		res = fstatvfs(fd, &vfs);
	} while (res < 0 && errno == EINTR);
	if (res < 0)
		return -errno;
	*ret_vfs = (struct io_vfs){
		.bsize = vfs.f_frsize ? vfs.f_frsize : vfs.f_bsize,
		.blocks = vfs.f_blocks,
		.bfree = vfs.f_bfree,
		.bavail = vfs.f_bavail,
		.files = vfs.f_files,
		.ffree = vfs.f_ffree,
		.in_place = in_place(fd),
	};
	return 0;
}

static int os_mmap_ro(struct emdb_io *io, int fd, size_t len, const uint8_t **ret_p)
{
	void *const p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);

	(void)io;
	if (p == MAP_FAILED)
		return -errno;
	*ret_p = p;
	return 0;
}

static int os_munmap(struct emdb_io *io, const uint8_t *p, size_t len)
{
	(void)io;
	return result(munmap((void *)(uintptr_t)p, len));
}

/*
 * First into memory, page by page: left to the mapping they would become large folios, in which
 * every small write has to walk over all the blocks before its own.
 */
static void os_ready(struct emdb_io *io, int fd, const uint8_t *p, uint64_t off, size_t len)
{
	(void)io;
	if (posix_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED) == 0)
		(void)madvise((void *)(uintptr_t)(p + off), len, MADV_POPULATE_READ);
}

static int os_flock(struct emdb_io *io, int fd, bool exclusive, bool nonblock)
{
	int res;

	(void)io;
	do {
		res = flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | (nonblock ? LOCK_NB : 0));
	} while (res < 0 && errno == EINTR);
	return result(res);
}

/* File systems say in several ways that they cannot. */
static int os_clone(struct emdb_io *io, int src_fd, int dst_fd)
{
	(void)io;
	if (ioctl(dst_fd, FICLONE, src_fd) == 0)
		return 0;
	return errno == ENOTTY || errno == EINVAL || errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

/* ---- Names ---- */

static int os_renameat(struct emdb_io *io, int olddir, const char *old, int newdir,
		       const char *name)
{
	(void)io;
	return result(renameat(olddir, old, newdir, name));
}

static int os_linkat(struct emdb_io *io, int olddir, const char *old, int newdir, const char *name)
{
	(void)io;
	return result(linkat(olddir, old, newdir, name, 0));
}

static int os_unlinkat(struct emdb_io *io, int dirfd, const char *name, int flags)
{
	(void)io;
	return result(unlinkat(dirfd, name, flags));
}

static int os_mkdirat(struct emdb_io *io, int dirfd, const char *name, mode_t mode)
{
	(void)io;
	return result(mkdirat(dirfd, name, mode));
}

/* All names, each with its NUL, so that the callback may change the directory. */
static int names_read(DIR *d, struct buf *names)
{
	for (;;) {
		const struct dirent *e;
		int err;

		errno = 0;
		e = readdir(d);
		if (!e)
			return -errno;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		err = buf_append(names, e->d_name, strlen(e->d_name) + 1);
		if (err)
			return err;
	}
}

static int os_list(struct emdb_io *io, int dirfd, io_list_fn fn, void *arg)
{
	struct buf names = BUF_INIT;
	DIR *d = NULL;
	int fd = -1, err;

	/* An own open: a duplicate would share the position. */
	err = os_openat(io, dirfd, ".", O_RDONLY | O_DIRECTORY, 0, &fd);
	if (err)
		goto out;
	d = fdopendir(fd);
	if (!d) {
		err = -errno;
		goto out;
	}
	fd = -1;
	err = names_read(d, &names);
	for (size_t i = 0; !err && i < names.len; i += strlen((char *)names.data + i) + 1)
		err = fn(arg, (const char *)names.data + i);
out:
	if (d)
		(void)closedir(d);
	(void)io_close(io, fd);
	buf_release(&names);
	return err;
}

/* ---- Clock, randomness, host ---- */

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts = { 0, 0 };

	(void)clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t os_clock_real_ns(struct emdb_io *io)
{
	(void)io;
	return clock_ns(CLOCK_REALTIME);
}

static uint64_t os_clock_mono_ns(struct emdb_io *io)
{
	(void)io;
	return clock_ns(CLOCK_MONOTONIC);
}

static int os_random(struct emdb_io *io, void *buf, size_t n)
{
	uint8_t *p = buf;

	(void)io;
	while (n) {
		const ssize_t res = getrandom(p, n, 0);

		if (res < 0 && errno == EINTR)
			continue;
		if (res < 0)
			return -errno;
		p += res;
		n -= (size_t)res;
	}
	return 0;
}

/* A short text file of /proc, NUL-terminated, cut at size. */
static int proc_read(struct emdb_io *io, const char *path, char *buf, size_t size)
{
	size_t n = 0;
	int fd = -1, err;

	err = os_openat(io, AT_FDCWD, path, O_RDONLY, 0, &fd);
	if (err)
		return err;
	err = os_pread_full(io, fd, buf, size - 1, 0, &n);
	(void)os_close(io, fd);
	if (!err)
		buf[n] = '\0';
	return err;
}

/*
 * Field 22 of /proc/PID/stat. The name, field 2, is in parentheses and may hold anything, a closing
 * parenthesis included: count from the last one.
 */
static int os_process_start(struct emdb_io *io, uint64_t pid, uint64_t *ret_ticks)
{
	char path[40], text[1024];
	const char *p;
	int err;

	(void)snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
	err = proc_read(io, path, text, sizeof(text));
	if (err)
		return err == -ENOENT ? -ESRCH : err;
	p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p)
		return -EIO;
	*ret_ticks = strtoull(p + 1, NULL, 10);
	return 0;
}

/* A host without /proc still gets its pid and name. */
static int os_host(struct emdb_io *io, struct io_host *ret_host)
{
	struct io_host h = { .pid = (uint64_t)getpid() };

	if (proc_read(io, "/proc/sys/kernel/random/boot_id", h.boot_id, sizeof(h.boot_id)) < 0)
		h.boot_id[0] = '\0';
	h.boot_id[strcspn(h.boot_id, "\n")] = '\0';
	if (os_process_start(io, h.pid, &h.start_ticks) < 0)
		h.start_ticks = 0;
	if (gethostname(h.hostname, sizeof(h.hostname)) < 0)
		h.hostname[0] = '\0';
	h.hostname[sizeof(h.hostname) - 1] = '\0';
	*ret_host = h;
	return 0;
}

/* ---- Batches ---- */

static bool batch_ok(const struct io_req *reqs, size_t count)
{
	size_t chain = 0;

	for (size_t i = 0; i < count; i++) {
		chain++;
		if (chain > IO_BATCH_LINK_MAX)
			return false;
		if (!reqs[i].link)
			chain = 0;
	}
	return count <= IO_BATCH_MAX;
}

static int req_run(struct emdb_io *io, const struct io_req *r)
{
	size_t n = 0;
	int err = -EINVAL;

	switch (r->op) {
	case IO_REQ_READ:
		err = io_pread_full(io, r->fd, r->buf, r->n, r->off, &n);
		if (!err && n < r->n)
			err = -EIO;
		break;
	case IO_REQ_WRITE:
		err = io_pwrite_full(io, r->fd, r->buf, r->n, r->off);
		break;
	case IO_REQ_FDATASYNC:
		err = io_fdatasync(io, r->fd);
		break;
	}
	return err;
}

/* Runs what is marked, in order; returns the batch's result. */
static int batch_finish(struct emdb_io *io, struct io_req *reqs, size_t count)
{
	int first = 0;

	for (size_t i = 0; i < count; i++) {
		struct io_req *const r = &reqs[i];

		if (i && reqs[i - 1].link && reqs[i - 1].err)
			r->err = -ECANCELED;
		else if (r->err == URING_NOT_RUN)
			r->err = req_run(io, r);
		if (r->err && r->err != -ECANCELED && !first)
			first = r->err;
	}
	return first;
}

int io_batch_plain(struct emdb_io *io, struct io_req *reqs, size_t count)
{
	if (!batch_ok(reqs, count))
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		reqs[i].err = URING_NOT_RUN;
	return batch_finish(io, reqs, count);
}

/* One chain has nothing to run beside it, and plain calls start sooner. */
static bool single_chain(const struct io_req *reqs, size_t count)
{
	for (size_t i = 0; i + 1 < count; i++)
		if (!reqs[i].link)
			return false;
	return true;
}

static void ring_run_locked(struct posix *p, struct io_req *reqs, size_t count)
	EMDB_REQUIRES(p->ring_lock);

static void ring_run_locked(struct posix *p, struct io_req *reqs, size_t count)
{
	if (!p->ring_tried) {
		p->ring_tried = true;
		p->ring = uring_new();
		p->ring_pid = getpid();
	}
	if (!p->ring || p->ring_pid != getpid())
		return;
	if (!uring_run(p->ring, reqs, count)) {
		uring_free(p->ring);
		p->ring = NULL;
		return;
	}
	atomic_store_explicit(&p->used_uring, true, memory_order_relaxed);
}

static int os_batch(struct emdb_io *io, struct io_req *reqs, size_t count)
{
	struct posix *const p = posix_of(io);

	if (!batch_ok(reqs, count))
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		reqs[i].err = URING_NOT_RUN;
	if (!p->no_uring && !single_chain(reqs, count) && mutex_trylock(&p->ring_lock)) {
		ring_run_locked(p, reqs, count);
		mutex_unlock(&p->ring_lock);
	}
	return batch_finish(io, reqs, count);
}

static bool os_uses_uring(struct emdb_io *io)
{
	return atomic_load_explicit(&posix_of(io)->used_uring, memory_order_relaxed);
}

/* ---- The backend ---- */

static void os_free(struct emdb_io *io)
{
	struct posix *const p = posix_of(io);

	uring_free(p->ring);
	mutex_destroy(&p->ring_lock);
	base_free(p);
}

static const struct emdb_io_ops os_ops = {
	.openat = os_openat,
	.close = os_close,
	.pread_full = os_pread_full,
	.pwritev_full = os_pwritev_full,
	.fdatasync = os_fdatasync,
	.fsync = os_fsync,
	.batch = os_batch,
	.fallocate = os_fallocate,
	.ftruncate = os_ftruncate,
	.fstat = os_fstat,
	.fstatat = os_fstatat,
	.fstatvfs = os_fstatvfs,
	.mmap_ro = os_mmap_ro,
	.munmap = os_munmap,
	.ready = os_ready,
	.renameat = os_renameat,
	.linkat = os_linkat,
	.unlinkat = os_unlinkat,
	.mkdirat = os_mkdirat,
	.list = os_list,
	.flock = os_flock,
	.clone = os_clone,
	.clock_real_ns = os_clock_real_ns,
	.clock_mono_ns = os_clock_mono_ns,
	.random = os_random,
	.host = os_host,
	.process_start = os_process_start,
	.uses_uring = os_uses_uring,
	.free = os_free,
};

struct emdb_io *emdb_io_posix_new(void)
{
	const char *const env = secure_getenv("EMDB_NO_URING");
	struct posix *const p = base_calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->io.ops = &os_ops;
	p->io.ctx = p;
	p->no_uring = env && *env && strcmp(env, "0") != 0;
	mutex_init(&p->ring_lock, LOCK_IO);
	return &p->io;
}

void emdb_io_ref(struct emdb_io *io)
{
	atomic_fetch_add_explicit(&io->extra, 1, memory_order_relaxed);
}

void emdb_io_free(struct emdb_io *io)
{
	/* Release and acquire: what any owner did comes before the free. */
	if (io && atomic_fetch_sub_explicit(&io->extra, 1, memory_order_acq_rel) == 0)
		io->ops->free(io);
}

/* ---- Built on the backends ---- */

int io_pwrite_full(struct emdb_io *io, int fd, const void *buf, size_t n, uint64_t off)
{
	const struct iovec iov = { (void *)(uintptr_t)buf, n };

	return io_pwritev_full(io, fd, &iov, 1, off);
}

int io_sync_batch(struct emdb_io *io, const int *fds, size_t count)
{
	struct io_req reqs[32];
	int first = 0;

	while (count) {
		const size_t n = min_size(count, ARRAY_SIZE(reqs));
		int err;

		for (size_t i = 0; i < n; i++)
			reqs[i] = (struct io_req){ .op = IO_REQ_FDATASYNC, .fd = fds[i] };
		err = io_batch(io, reqs, n);
		if (err && !first)
			first = err;
		fds += n;
		count -= n;
	}
	return first;
}

static int write_new(struct emdb_io *io, int dirfd, const char *name, const void *buf, size_t n)
{
	int fd = -1, err, err2;

	err = io_openat(io, dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, &fd);
	if (err)
		return err;
	err = io_pwrite_full(io, fd, buf, n, 0);
	if (!err)
		err = io_fdatasync(io, fd);
	err2 = io_close(io, fd);
	return err ? err : err2;
}

int io_replace_durably(struct emdb_io *io, int dirfd, const char *name, const void *buf, size_t n)
{
	char tmp[IO_NAME_MAX + 1];
	const size_t len = strlen(name);
	int fd = -1, err;

	if (strchr(name, '/'))
		return -EINVAL;
	if (len + sizeof(TMP_SUFFIX) > sizeof(tmp))
		return -ENAMETOOLONG;
	memcpy(tmp, name, len);
	memcpy(tmp + len, TMP_SUFFIX, sizeof(TMP_SUFFIX));
	/*
	 * The caller's descriptor may be AT_FDCWD or an O_PATH one. Opened before anything is
	 * done: with none left after the rename nobody could say which of the two survives.
	 */
	err = io_openat(io, dirfd, ".", O_RDONLY | O_DIRECTORY, 0, &fd);
	if (err)
		return err;
	err = write_new(io, dirfd, tmp, buf, n);
	if (!err)
		err = io_renameat(io, dirfd, tmp, dirfd, name);
	if (err)
		(void)io_unlinkat(io, dirfd, tmp, 0);
	else
		err = io_fsync(io, fd);
	(void)io_close(io, fd);
	return err;
}

int io_read_file(struct emdb_io *io, int dirfd, const char *name, size_t max, struct buf *out)
{
	struct io_stat st;
	size_t want, n = 0;
	int fd = -1, err;

	err = io_openat(io, dirfd, name, O_RDONLY, 0, &fd);
	if (err)
		return err;
	err = io_fstat(io, fd, &st);
	if (!err && st.size > max)
		err = -EFBIG;
	if (err)
		goto out;
	want = (size_t)st.size;
	err = want ? buf_reserve(out, want) : 0;
	if (!err && want)
		err = io_pread_full(io, fd, out->data + out->len, want, 0, &n);
	if (!err)
		out->len += n;
out:
	(void)io_close(io, fd);
	return err;
}

/* One piece after the other: overlapping them in a ring measured no better. */
int io_copy(struct emdb_io *io, int src_fd, int dst_fd, uint64_t len)
{
	const size_t size = (size_t)min_u64(len, COPY_BYTES);
	uint8_t *const piece = base_malloc(size);
	int err = piece ? 0 : -ENOMEM;

	for (uint64_t off = 0; !err && off < len;) {
		const size_t want = (size_t)min_u64(len - off, size);
		size_t n = 0;

		err = io_pread_full(io, src_fd, piece, want, off, &n);
		if (!err && n < want)
			err = -EIO;
		if (!err)
			err = io_pwrite_full(io, dst_fd, piece, n, off);
		off += n;
	}
	base_free(piece);
	return err;
}

/* ---- Events ---- */

int io_event_new(int *ret_fd)
{
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

void io_event_set(int fd)
{
	/* Fails only when the counter is full, and then it is set. */
	(void)eventfd_write(fd, 1);
}

void io_event_clear(int fd)
{
	eventfd_t count;

	(void)eventfd_read(fd, &count);
}

void io_event_close(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}

void io_funlock(int fd)
{
	if (fd >= 0)
		(void)flock(fd, LOCK_UN);
}
