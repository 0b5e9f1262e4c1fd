/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io: the whole operating system behind one small seam. Files, directories, sync, mapping, lock,
 * clock, randomness and host identity; the only part of core/ with system calls, hence the place
 * where tests inject faults and record crashes.
 *
 * Backends
 *   posix   the host. Batches go through io_uring where the kernel allows it, one call after the
 *           other where not (old kernel, container policy, EMDB_NO_URING=1); the caller sees no
 *           difference but in io_uses_uring().
 *   mem     a private tree in memory (memfd), for in-memory stores and tests. Sync is a no-op.
 *   fault   wraps another backend; fails or cuts chosen calls, and shows every call to hooks.
 *
 * Errors. 0 or a negative errno. Results go to the ret_ pointers, untouched on failure. EINTR and
 * short transfers never reach the caller. Nothing is retried after fsync or fdatasync reported an
 * error: the kernel may have dropped the pages.
 *
 * Thread-safety. Every function may be called from any thread at any time, except emdb_io_free and
 * emdb_io_fault_set, for which the caller makes sure that nobody else is inside.
 *
 * Ownership. A descriptor belongs to the backend that made it: the mem backend's directory
 * descriptors are not kernel descriptors. All are close-on-exec. AT_FDCWD names the working
 * directory, the root of the tree for mem. A backend must outlive its descriptors and mappings.
 */
#ifndef EMDB_IO_H
#define EMDB_IO_H

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/base.h"

#define IO_NAME_MAX       255
#define IO_BATCH_MAX      4096 /* requests in one io_batch */
#define IO_BATCH_LINK_MAX 16   /* requests in one linked chain */

struct emdb_io;

struct io_stat {
	uint64_t dev;
	uint64_t ino;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes */
	uint64_t mtime_ns;
	uint32_t nlink;
	uint32_t mode; /* type and permissions, as st_mode */
};

struct io_vfs {
	uint64_t bsize;  /* bytes in a block; the others count blocks */
	uint64_t blocks; /* all */
	uint64_t bfree;  /* free */
	uint64_t bavail; /* free for unprivileged users */
	uint64_t files;
	uint64_t ffree;
	bool in_place; /* writing over what is in a file surely takes no new block */
};

/* Who runs this process; written to the lock file of a store. */
struct io_host {
	uint64_t pid;
	uint64_t start_ticks; /* start of this process since boot; tells a reused pid apart */
	char boot_id[40];     /* changes with every boot; empty where unknown */
	char hostname[65];
};

enum io_req_op { IO_REQ_READ, IO_REQ_WRITE, IO_REQ_FDATASYNC };

/*
 * One request of a batch. Requests of a batch run in any order and side by side, except that one
 * starts only after the one before it succeeded when that has link set; the rest of a broken chain
 * gives -ECANCELED. A read past the end of the file is -EIO: batches are for known lengths.
 */
struct io_req {
	enum io_req_op op;
	bool link;
	int fd;
	void *buf; /* not written through by IO_REQ_WRITE */
	size_t n;
	uint64_t off;
	int err; /* result: 0 or a negative errno */
};

/* Called for each name but "." and ".."; another result than 0 ends the listing with it. */
typedef int (*io_list_fn)(void *arg, const char *name);

/* What the functions below dispatch to; their contracts are there. */
struct emdb_io_ops {
	int (*openat)(struct emdb_io *io, int dirfd, const char *name, int flags, mode_t mode,
		      int *ret_fd);
	int (*close)(struct emdb_io *io, int fd);
	int (*pread_full)(struct emdb_io *io, int fd, void *buf, size_t n, uint64_t off,
			  size_t *ret_n);
	int (*pwritev_full)(struct emdb_io *io, int fd, const struct iovec *iov, int count,
			    uint64_t off);
	int (*fdatasync)(struct emdb_io *io, int fd);
	int (*fsync)(struct emdb_io *io, int fd);
	int (*batch)(struct emdb_io *io, struct io_req *reqs, size_t count);
	int (*fallocate)(struct emdb_io *io, int fd, uint64_t off, uint64_t len, bool keep_size);
	int (*ftruncate)(struct emdb_io *io, int fd, uint64_t size);
	int (*fstat)(struct emdb_io *io, int fd, struct io_stat *ret_st);
	int (*fstatat)(struct emdb_io *io, int dirfd, const char *name, struct io_stat *ret_st);
	int (*fstatvfs)(struct emdb_io *io, int fd, struct io_vfs *ret_vfs);
	int (*mmap_ro)(struct emdb_io *io, int fd, size_t len, const uint8_t **ret_p);
	int (*munmap)(struct emdb_io *io, const uint8_t *p, size_t len);
	void (*ready)(struct emdb_io *io, int fd, const uint8_t *p, uint64_t off, size_t len);
	int (*renameat)(struct emdb_io *io, int olddir, const char *old, int newdir,
			const char *name);
	int (*linkat)(struct emdb_io *io, int olddir, const char *old, int newdir,
		      const char *name);
	int (*unlinkat)(struct emdb_io *io, int dirfd, const char *name, int flags);
	int (*mkdirat)(struct emdb_io *io, int dirfd, const char *name, mode_t mode);
	int (*list)(struct emdb_io *io, int dirfd, io_list_fn fn, void *arg);
	int (*flock)(struct emdb_io *io, int fd, bool exclusive, bool nonblock);
	int (*clone)(struct emdb_io *io, int src_fd, int dst_fd);
	uint64_t (*clock_real_ns)(struct emdb_io *io);
	uint64_t (*clock_mono_ns)(struct emdb_io *io);
	int (*random)(struct emdb_io *io, void *buf, size_t n);
	int (*host)(struct emdb_io *io, struct io_host *ret_host);
	int (*process_start)(struct emdb_io *io, uint64_t pid, uint64_t *ret_ticks);
	bool (*uses_uring)(struct emdb_io *io);
	void (*free)(struct emdb_io *io);
};

struct emdb_io {
	const struct emdb_io_ops *ops; /* immutable */
	void *ctx;                     /* the backend's own */
	_Atomic(uint32_t) extra;       /* references besides the creator's; atomic */
};

/* ---- Backends ---- */

/* NULL when out of memory. */
struct emdb_io *emdb_io_posix_new(void) EMDB_MUST_CHECK;
struct emdb_io *emdb_io_mem_new(void) EMDB_MUST_CHECK;

/*
 * Gives back one reference; the creator has the first, emdb_io_ref adds one, for what outlives the
 * creator (a mapping that somebody still reads). Takes NULL. A fault backend does not free what it
 * wraps.
 */
void emdb_io_free(struct emdb_io *io);
void emdb_io_ref(struct emdb_io *io);

/* ---- Files ---- */

/* flags as open(2), O_CLOEXEC is added. A final symbolic link is followed unless O_NOFOLLOW. */
static inline EMDB_MUST_CHECK int io_openat(struct emdb_io *io, int dirfd, const char *name,
					    int flags, mode_t mode, int *ret_fd)
{
	return io->ops->openat(io, dirfd, name, flags, mode, ret_fd);
}

/* The descriptor is gone whatever the result; -1 (nothing open) is taken and ignored. */
static inline int io_close(struct emdb_io *io, int fd)
{
	return fd == -1 ? 0 : io->ops->close(io, fd);
}

/* Reads until n bytes or the end of the file; *ret_n says how many. */
static inline EMDB_MUST_CHECK int io_pread_full(struct emdb_io *io, int fd, void *buf, size_t n,
						uint64_t off, size_t *ret_n)
{
	return io->ops->pread_full(io, fd, buf, n, off, ret_n);
}

/* All or an error; after an error any part of the range may have been written. */
static inline EMDB_MUST_CHECK int io_pwritev_full(struct emdb_io *io, int fd,
						  const struct iovec *iov, int count, uint64_t off)
{
	return io->ops->pwritev_full(io, fd, iov, count, off);
}

int io_pwrite_full(struct emdb_io *io, int fd, const void *buf, size_t n,
		   uint64_t off) EMDB_MUST_CHECK;

/* Directories take io_fsync only. */
static inline EMDB_MUST_CHECK int io_fdatasync(struct emdb_io *io, int fd)
{
	return io->ops->fdatasync(io, fd);
}

static inline EMDB_MUST_CHECK int io_fsync(struct emdb_io *io, int fd)
{
	return io->ops->fsync(io, fd);
}

/*
 * Runs up to IO_BATCH_MAX requests to their end and fills in each err. 0 when all succeeded, else
 * the error of the first request (in array order) that failed by itself. -EINVAL, with nothing run,
 * for a batch or chain that is too long.
 */
static inline EMDB_MUST_CHECK int io_batch(struct emdb_io *io, struct io_req *reqs, size_t count)
{
	return io->ops->batch(io, reqs, count);
}

/* io_batch by plain calls, one after the other; what backends without a better way use. */
int io_batch_plain(struct emdb_io *io, struct io_req *reqs, size_t count) EMDB_MUST_CHECK;

/* fdatasync of every descriptor, side by side; all are tried, the first error is returned. */
int io_sync_batch(struct emdb_io *io, const int *fds, size_t count) EMDB_MUST_CHECK;

/* Reserves space. With keep_size the end of the file stays. -EOPNOTSUPP where the fs cannot. */
static inline EMDB_MUST_CHECK int io_fallocate(struct emdb_io *io, int fd, uint64_t off,
					       uint64_t len, bool keep_size)
{
	return io->ops->fallocate(io, fd, off, len, keep_size);
}

static inline EMDB_MUST_CHECK int io_ftruncate(struct emdb_io *io, int fd, uint64_t size)
{
	return io->ops->ftruncate(io, fd, size);
}

static inline EMDB_MUST_CHECK int io_fstat(struct emdb_io *io, int fd, struct io_stat *ret_st)
{
	return io->ops->fstat(io, fd, ret_st);
}

/* Does not follow a final symbolic link. */
static inline EMDB_MUST_CHECK int io_fstatat(struct emdb_io *io, int dirfd, const char *name,
					     struct io_stat *ret_st)
{
	return io->ops->fstatat(io, dirfd, name, ret_st);
}

static inline EMDB_MUST_CHECK int io_fstatvfs(struct emdb_io *io, int fd, struct io_vfs *ret_vfs)
{
	return io->ops->fstatvfs(io, fd, ret_vfs);
}

/*
 * Maps the first len bytes read-only and shared: what is written later shows up. len may reach
 * beyond the end of the file; touching such a page raises SIGBUS until the file has grown.
 */
static inline EMDB_MUST_CHECK int io_mmap_ro(struct emdb_io *io, int fd, size_t len,
					     const uint8_t **ret_p)
{
	return io->ops->mmap_ro(io, fd, len, ret_p);
}

/* Takes NULL. */
static inline void io_munmap(struct emdb_io *io, const uint8_t *p, size_t len)
{
	if (p)
		(void)io->ops->munmap(io, p, len);
}

/*
 * A hint: that part of the file mapped at p is written and then read soon, piece by piece.  Its pages
 * come into memory and into the mapping all at once, which costs a third of what it does one by one.
 */
static inline void io_ready(struct emdb_io *io, int fd, const uint8_t *p, uint64_t off, size_t len)
{
	io->ops->ready(io, fd, p, off, len);
}

/* Advisory lock on the open file, gone when it is closed. -EWOULDBLOCK when taken and nonblock. */
static inline EMDB_MUST_CHECK int io_flock(struct emdb_io *io, int fd, bool exclusive,
					   bool nonblock)
{
	return io->ops->flock(io, fd, exclusive, nonblock);
}

/*
 * Gives back the lock of a file, which closing it does not while a forked child has the descriptor
 * too.  fd may be -1.  Both backends lock files of the kernel.
 */
void io_funlock(int fd);

/* Makes dst share all of src's blocks (reflink). -EOPNOTSUPP or -EXDEV where it cannot. */
static inline EMDB_MUST_CHECK int io_clone(struct emdb_io *io, int src_fd, int dst_fd)
{
	return io->ops->clone(io, src_fd, dst_fd);
}

/* ---- Names ---- */

/* Replaces the target atomically. */
static inline EMDB_MUST_CHECK int io_renameat(struct emdb_io *io, int olddir, const char *old,
					      int newdir, const char *name)
{
	return io->ops->renameat(io, olddir, old, newdir, name);
}

static inline EMDB_MUST_CHECK int io_linkat(struct emdb_io *io, int olddir, const char *old,
					    int newdir, const char *name)
{
	return io->ops->linkat(io, olddir, old, newdir, name);
}

/* flags: 0 or AT_REMOVEDIR. Unchecked where it cleans up behind another failure. */
static inline int io_unlinkat(struct emdb_io *io, int dirfd, const char *name, int flags)
{
	return io->ops->unlinkat(io, dirfd, name, flags);
}

static inline EMDB_MUST_CHECK int io_mkdirat(struct emdb_io *io, int dirfd, const char *name,
					     mode_t mode)
{
	return io->ops->mkdirat(io, dirfd, name, mode);
}

/* Any order. The callback may open, rename and unlink; no lock is held while it runs. */
static inline EMDB_MUST_CHECK int io_list(struct emdb_io *io, int dirfd, io_list_fn fn, void *arg)
{
	return io->ops->list(io, dirfd, fn, arg);
}

/* ---- Clock, randomness, host ---- */

static inline uint64_t io_clock_real_ns(struct emdb_io *io)
{
	return io->ops->clock_real_ns(io);
}

static inline uint64_t io_clock_mono_ns(struct emdb_io *io)
{
	return io->ops->clock_mono_ns(io);
}

/* Fit for keys. */
static inline EMDB_MUST_CHECK int io_random(struct emdb_io *io, void *buf, size_t n)
{
	return io->ops->random(io, buf, n);
}

static inline EMDB_MUST_CHECK int io_host(struct emdb_io *io, struct io_host *ret_host)
{
	return io->ops->host(io, ret_host);
}

/* Start of a process since boot, to compare with io_host.start_ticks; -ESRCH when it is gone. */
static inline EMDB_MUST_CHECK int io_process_start(struct emdb_io *io, uint64_t pid,
						   uint64_t *ret_ticks)
{
	return io->ops->process_start(io, pid, ret_ticks);
}

/* True once a batch has gone through io_uring. */
static inline bool io_uses_uring(struct emdb_io *io)
{
	return io->ops->uses_uring(io);
}

/* ---- Built on the above ---- */

/*
 * Replaces the content of NAME with n bytes so that, whatever happens, NAME holds either all of the
 * old or all of the new, and after success the new survives power loss: writes NAME.tmp, fdatasync,
 * rename, fsync of the directory. A failure before the rename leaves NAME as it was and removes
 * NAME.tmp; a failure of the last step leaves it open which of the two survives. Two callers for one
 * NAME exclude each other. NAME has no slash.
 */
int io_replace_durably(struct emdb_io *io, int dirfd, const char *name, const void *buf,
		       size_t n) EMDB_MUST_CHECK;

/* Appends the whole file to *out. -EFBIG when it is longer than max; *out is then unchanged. */
int io_read_file(struct emdb_io *io, int dirfd, const char *name, size_t max,
		 struct buf *out) EMDB_MUST_CHECK;

/* Copies len bytes from the start of src to the start of dst, in large pieces. -EIO when short. */
int io_copy(struct emdb_io *io, int src_fd, int dst_fd, uint64_t len) EMDB_MUST_CHECK;

/* ---- Events ---- */

/*
 * A descriptor of the kernel, whatever the backend, that is readable from io_event_set to
 * io_event_clear; for event loops. 0 or -EMFILE, -ENFILE, -ENOMEM. Setting and clearing do not
 * fail. io_event_close takes -1.
 */
int io_event_new(int *ret_fd) EMDB_MUST_CHECK;
void io_event_set(int fd);
void io_event_clear(int fd);
void io_event_close(int fd);

/* ---- Fault injection ---- */

enum io_op {
	IO_OP_OPENAT,
	IO_OP_CLOSE,
	IO_OP_PREAD,
	IO_OP_PWRITE,
	IO_OP_FDATASYNC,
	IO_OP_FSYNC,
	IO_OP_FALLOCATE,
	IO_OP_FTRUNCATE,
	IO_OP_FSTAT, /* fstatat and fstatvfs too */
	IO_OP_MMAP,
	IO_OP_RENAMEAT,
	IO_OP_LINKAT,
	IO_OP_UNLINKAT,
	IO_OP_MKDIRAT,
	IO_OP_LIST,
	IO_OP_FLOCK,
	IO_OP_CLONE,
	IO_OP_RANDOM,
	IO_OP_COUNT
};

#define IO_MASK(op)  (UINT64_C(1) << (op))
#define IO_MASK_ALL  (IO_MASK(IO_OP_COUNT) - 1)
#define IO_MASK_SYNC (IO_MASK(IO_OP_FDATASYNC) | IO_MASK(IO_OP_FSYNC))
#define IO_MASK_NAMES                                                                \
	(IO_MASK(IO_OP_RENAMEAT) | IO_MASK(IO_OP_LINKAT) | IO_MASK(IO_OP_UNLINKAT) | \
	 IO_MASK(IO_OP_MKDIRAT))
#define IO_MASK_CHANGE                                                                 \
	(IO_MASK(IO_OP_PWRITE) | IO_MASK(IO_OP_FALLOCATE) | IO_MASK(IO_OP_FTRUNCATE) | \
	 IO_MASK(IO_OP_CLONE) | IO_MASK_SYNC | IO_MASK_NAMES)

/* One call, as shown to hooks. Fields that do not apply are 0, -1 or NULL. */
struct io_event {
	enum io_op op;
	int fd;    /* file; source of a clone */
	int fd2;   /* target of a clone */
	int dirfd; /* directory of name */
	int dirfd2;
	const char *name;
	const char *name2;       /* target of rename and link, under dirfd2 */
	const struct iovec *iov; /* data of a write */
	int iov_count;
	int flags; /* of openat and unlinkat */
	uint64_t off;
	uint64_t len; /* bytes of a read, write, mapping, fallocate; size of ftruncate */
};

/*
 * Which calls fail. Counting starts at emdb_io_fault_set and covers the calls whose op is in mask;
 * number nth (from 1) fails with err; 0 = none. sticky: all later ones in mask too, as with a dead
 * disk. cut: a failing write first writes about half of its bytes, as with a full disk. A batch
 * counts as its single requests, run one after the other; a failing close still closes.
 *
 * Hooks see every call, in mask or not, of any thread. before: a result other than 0 fails the call
 * with it. after: with the call's result; fd is filled in for openat.
 */
struct io_fault {
	uint64_t mask;
	uint64_t nth;
	int err; /* negative errno */
	bool sticky;
	bool cut;
	int (*before)(void *arg, const struct io_event *ev);
	void (*after)(void *arg, const struct io_event *ev, int err);
	void *hook_arg;
};

/* Wraps inner, failing nothing yet; NULL when out of memory. inner must outlive the result. */
struct emdb_io *emdb_io_fault_new(struct emdb_io *inner) EMDB_MUST_CHECK;

/* Installs a copy of the plan and starts counting anew; NULL fails nothing. */
void emdb_io_fault_set(struct emdb_io *io, const struct io_fault *plan);

/* Calls in mask since emdb_io_fault_set; and how many of them were made to fail. */
uint64_t emdb_io_fault_calls(struct emdb_io *io);
uint64_t emdb_io_fault_hits(struct emdb_io *io);

#endif
