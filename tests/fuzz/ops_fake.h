/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libfuse is to the request handlers, without a kernel: a request is a
 * struct here, and its answer is kept for whoever made it.  Exactly one answer is
 * allowed.  With `refuse` set the answer is not taken, as when the caller in the kernel was
 * interrupted.  Include it in one file of a program that links the handlers.
 */
#ifndef OPS_FAKE_H
#define OPS_FAKE_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include <linux/fuse.h>

#include "core/base.h"
#include "fuse/fs.h"
#include "fuse/log.h"
#include "fuse/session.h"
#include "fuse/uring.h"

enum answer {
	NO_ANSWER,
	ANSWER_ERR,
	ANSWER_ENTRY,
	ANSWER_ATTR,
	ANSWER_SIZE,
	ANSWER_BYTES,
	ANSWER_NONE
};

struct fuse_req {
	struct fs *fs;
	struct fuse_ctx ctx;
	bool refuse;
	bool ring;
	pthread_mutex_t lock;
	pthread_cond_t answered;
	enum answer kind; /* guarded by lock, as is what follows */
	int err;          /* ANSWER_ERR, 0: success */
	struct fuse_entry_param entry;
	bool created; /* ANSWER_ENTRY to create or tmpfile */
	struct stat st;
	uint64_t size; /* ANSWER_SIZE: written, an offset, or the length of an attribute */
	uint8_t *bytes;
	size_t len;
};

static void req_init(struct fuse_req *r, struct fs *fs, uid_t uid, mode_t umask)
{
	memset(r, 0, sizeof(*r));
	r->fs = fs;
	r->ctx.uid = uid;
	r->ctx.gid = uid;
	r->ctx.umask = umask;
	(void)pthread_mutex_init(&r->lock, NULL);
	(void)pthread_cond_init(&r->answered, NULL);
}

static void req_release(struct fuse_req *r)
{
	free(r->bytes);
	(void)pthread_mutex_destroy(&r->lock);
	(void)pthread_cond_destroy(&r->answered);
}

/* Some are answered by other threads. */
static void req_wait(struct fuse_req *r)
{
	(void)pthread_mutex_lock(&r->lock);
	while (r->kind == NO_ANSWER)
		(void)pthread_cond_wait(&r->answered, &r->lock);
	(void)pthread_mutex_unlock(&r->lock);
	fs_job_wait(r->fs);
}

static int answer(fuse_req_t r, enum answer kind, const void *bytes, size_t len)
{
	const bool refuse = r->refuse;

	(void)pthread_mutex_lock(&r->lock);
	emdb_assert(r->kind == NO_ANSWER);
	r->kind = kind;
	if (kind == ANSWER_BYTES) {
		r->bytes = malloc(len ? len : 1);
		emdb_assert(r->bytes != NULL);
		if (len)
			memcpy(r->bytes, bytes, len);
		r->len = len;
	}
	(void)pthread_cond_signal(&r->answered);
	(void)pthread_mutex_unlock(&r->lock);
	return refuse ? -ENOENT : 0;
}

void *fuse_req_userdata(fuse_req_t req)
{
	return req->fs;
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t req)
{
	return &req->ctx;
}

int fuse_req_getgroups(fuse_req_t req, int size, gid_t list[])
{
	if (size > 0)
		list[0] = req->ctx.gid;
	return 1;
}

int fuse_reply_err(fuse_req_t req, int err)
{
	req->err = err;
	emdb_assert(err >= 0 && err < 4096);
	return answer(req, ANSWER_ERR, NULL, 0);
}

void fuse_reply_none(fuse_req_t req)
{
	(void)answer(req, ANSWER_NONE, NULL, 0);
}

int fuse_reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	req->entry = *e;
	return answer(req, ANSWER_ENTRY, NULL, 0);
}

int fuse_reply_create(fuse_req_t req, const struct fuse_entry_param *e,
		      const struct fuse_file_info *fi)
{
	emdb_assert(fi->fh == 0);
	req->entry = *e;
	req->created = true;
	return answer(req, ANSWER_ENTRY, NULL, 0);
}

int fuse_reply_attr(fuse_req_t req, const struct stat *st, double timeout)
{
	emdb_assert(timeout >= 0);
	req->st = *st;
	return answer(req, ANSWER_ATTR, NULL, 0);
}

int fuse_reply_readlink(fuse_req_t req, const char *target)
{
	return answer(req, ANSWER_BYTES, target, strlen(target));
}

int fuse_reply_write(fuse_req_t req, size_t count)
{
	req->size = count;
	return answer(req, ANSWER_SIZE, NULL, 0);
}

int fuse_reply_xattr(fuse_req_t req, size_t count)
{
	return fuse_reply_write(req, count);
}

int fuse_reply_lseek(fuse_req_t req, off_t off)
{
	req->size = (uint64_t)off;
	return answer(req, ANSWER_SIZE, NULL, 0);
}

int fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
	return answer(req, ANSWER_BYTES, buf, size);
}

int fuse_reply_iov(fuse_req_t req, const struct iovec *iov, int count)
{
	size_t n = 0;
	uint8_t *all;
	int err;

	for (int i = 0; i < count; i++)
		n += iov[i].iov_len;
	all = malloc(n ? n : 1);
	emdb_assert(all != NULL);
	n = 0;
	for (int i = 0; i < count; i++) {
		memcpy(all + n, iov[i].iov_base, iov[i].iov_len);
		n += iov[i].iov_len;
	}
	err = answer(req, ANSWER_BYTES, all, n);
	free(all);
	return err;
}

int fuse_reply_statfs(fuse_req_t req, const struct statvfs *v)
{
	emdb_assert(v->f_bsize != 0 && v->f_bfree <= v->f_blocks && v->f_ffree <= v->f_files);
	return answer(req, ANSWER_NONE, NULL, 0);
}

#if COMPAT_STATX
int fuse_reply_statx(fuse_req_t req, int flags, struct statx *stx, double timeout)
{
	(void)flags;
	emdb_assert(timeout >= 0 && stx->stx_mask != 0);
	return answer(req, ANSWER_NONE, NULL, 0);
}
#endif

/* As libfuse lays them out. */
size_t fuse_add_direntry(fuse_req_t req, char *buf, size_t size, const char *name,
			 const struct stat *st, off_t off)
{
	const size_t len = strlen(name);
	const size_t n = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + len);
	const struct fuse_dirent d = {
		.ino = st->st_ino,
		.off = (uint64_t)off,
		.namelen = (uint32_t)len,
		.type = (st->st_mode & S_IFMT) >> 12,
	};

	(void)req;
	if (buf == NULL || n > size)
		return n;
	memset(buf, 0, n);
	memcpy(buf, &d, FUSE_NAME_OFFSET);
	memcpy(buf + FUSE_NAME_OFFSET, name, len);
	return n;
}

size_t fuse_add_direntry_plus(fuse_req_t req, char *buf, size_t size, const char *name,
			      const struct fuse_entry_param *e, off_t off)
{
	const size_t head = FUSE_NAME_OFFSET_DIRENTPLUS - FUSE_NAME_OFFSET;
	const size_t n = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + strlen(name));
	const struct fuse_entry_out out = { .nodeid = e->ino };

	if (buf == NULL || n > size)
		return n;
	memset(buf, 0, n);
	memcpy(buf, &out, sizeof(out));
	(void)fuse_add_direntry(req, buf + head, size - head, name, &e->attr, off);
	return n;
}

/* There is room for the answer in a ring for every other read. */
char *uring_payload(fuse_req_t req, size_t *ret_size)
{
	static char ring[256 * 1024];

	*ret_size = sizeof(ring);
	return req->ring ? ring : NULL;
}

bool uring_is_request(fuse_req_t req)
{
	return req->ring;
}

void session_init_conn(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata, (void)conn;
}

/* ---- Telling the kernel and people: nobody listens ---- */

void log_message(enum emdb_log_level level, const char *format, ...)
{
	(void)level, (void)format;
}

void log_from_store(void *ctx, enum emdb_log_level level, const char *message)
{
	(void)ctx, (void)level, (void)message;
}

void notify_deleted(struct notify *n, uint64_t parent, uint64_t child, const char *name)
{
	(void)n, (void)parent, (void)child, (void)name;
}

void notify_changed(struct notify *n, uint64_t parent, uint64_t child, const char *name)
{
	(void)n, (void)parent, (void)child, (void)name;
}

void notify_attr(struct notify *n, uint64_t id)
{
	(void)n, (void)id;
}

void notify_content(struct notify *n, uint64_t id)
{
	(void)n, (void)id;
}

void notify_dropped(struct notify *n, uint64_t parent, const char *name)
{
	(void)n, (void)parent, (void)name;
}

void notify_settle(struct notify *n)
{
	(void)n;
}

void notify_wait(struct notify *n)
{
	(void)n;
}

#endif
