/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about the content of a file. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuse/atime.h"
#include "fuse/fs.h"
#include "fuse/ops.h"
#include "fuse/uring.h"

/* Most that one copy_file_range() answers for: the answer has 32 bits. */
#define COPY_MAX ((size_t)1 << 30)

/*
 * Answered by ENOSYS the kernel opens files by itself from then on: no
 * request for open and close, and the pages stay cached.
 */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	(void)fuse_reply_err(req, ENOSYS);
}

/* ---- Reading ---- */

/*
 * The store copies into the ring by itself, because libfuse would not survive
 * a page of the journal that the disk does not deliver.
 */
static void read_into_ring(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, char *to)
{
	size_t n = 0;
	const emdb_err err = emdb_node_read(fs_of(req)->db, ino, (uint64_t)off, to, size, &n);

	if (err == EMDB_OK)
		(void)fuse_reply_buf(req, to, n);
	else
		fs_reply_err(req, err);
}

/*
 * The answer is written from the mapped journal.  A page that the disk does
 * not deliver fails the write, upon which the kernel ends the request with EIO.
 */
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct emdb_slices slices;
	char *payload;
	size_t room;
	emdb_err err;

	(void)fi;
	if (off < 0) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	atime_touch(fs, ino);
	payload = uring_payload(req, &room);
	if (payload != NULL) {
		read_into_ring(req, ino, size < room ? size : room, off, payload);
		return;
	}
	err = emdb_node_slices(fs->db, ino, (uint64_t)off, size, &slices);
	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	(void)fuse_reply_iov(req, slices.iov, slices.count);
	emdb_slices_release(fs->db, &slices);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	uint64_t found;
	emdb_err err;

	(void)fi;
	if (off < 0 || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
		(void)fuse_reply_err(req, off < 0 ? ENXIO : EINVAL);
		return;
	}
	err = emdb_node_seek(fs_of(req)->db, ino, (uint64_t)off, whence == SEEK_HOLE, &found);
	if (err == EMDB_OK)
		(void)fuse_reply_lseek(req, (off_t)found);
	else
		(void)fuse_reply_err(req, err == EMDB_ERR_RANGE ? ENXIO : emdb_err_errno(err));
}

/* ---- Writing ---- */

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	/* Pages written back later do not say whose they were; the write itself has killed. */
	const bool kill = !fi->writepage && fs_kills_suid(req);
	bool capable;
	emdb_err err;

	if (off < 0) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	capable = fs_has_capability(fs, ino);
	err = emdb_node_write(fs->db, ino, (uint64_t)off, buf, size,
			      kill ? EMDB_WRITE_KILL_SUID : 0);
	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	if (capable)
		fs_kill_capability(fs, ino);
	(void)fuse_reply_write(req, size);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		  struct fuse_file_info *fi)
{
	const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
	unsigned int how = 0;
	emdb_err err;

	(void)fi;
	if ((mode & ~known) != 0 || offset < 0 || length <= 0) {
		(void)fuse_reply_err(req, (mode & ~known) != 0 ? EOPNOTSUPP : EINVAL);
		return;
	}
	if ((mode & FALLOC_FL_KEEP_SIZE) != 0)
		how |= EMDB_FALLOC_KEEP_SIZE;
	if ((mode & FALLOC_FL_PUNCH_HOLE) != 0)
		how |= EMDB_FALLOC_PUNCH_HOLE;
	if ((mode & FALLOC_FL_ZERO_RANGE) != 0)
		how |= EMDB_FALLOC_ZERO_RANGE;
	err = emdb_node_fallocate(fs_of(req)->db, ino, (uint64_t)offset, (uint64_t)length, how);
	if (err == EMDB_OK)
		fs_kill_privileges(req, ino);
	fs_reply_err(req, err);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			struct fuse_file_info *fi_out, size_t len, int flags)
{
	uint64_t copied;
	emdb_err err;

	(void)fi_in;
	(void)fi_out;
	if (flags != 0 || off_in < 0 || off_out < 0) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	err = emdb_node_copy_range(fs_of(req)->db, ino_in, (uint64_t)off_in, ino_out,
				   (uint64_t)off_out, len < COPY_MAX ? len : COPY_MAX, &copied);
	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	fs_kill_privileges(req, ino_out);
	(void)fuse_reply_write(req, (size_t)copied);
}

/* ---- Syncing ---- */

struct sync_job {
	struct fs *fs;
	fuse_req_t req;
	enum counter_op op;
	uint64_t start;
};

/* Runs in the flusher's thread, which so answers all who wait for one sync. */
static void sync_done(void *ctx, emdb_err err)
{
	struct sync_job *job = ctx;

	counters_add(&job->fs->counters, job->op, job->start);
	fs_reply_err(job->req, err);
	fs_job_end(job->fs);
	free(job);
}

/* Waiting here would keep a request thread from others. */
static void sync_all(fuse_req_t req, enum counter_op op)
{
	struct fs *fs = fs_of(req);
	struct sync_job *job = malloc(sizeof(*job));

	if (job == NULL) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	*job = (struct sync_job){ fs, req, op, counters_now() };
	fs_job_begin(fs);
	emdb_flush_async(fs->db, sync_done, job);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	sync_all(req, COUNT_fsync);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	sync_all(req, COUNT_fsyncdir);
}
