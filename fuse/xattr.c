/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about extended attributes: virtual ones, and those that are stored. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "fuse/access.h"
#include "fuse/fs.h"
#include "fuse/ops.h"
#include "fuse/snapops.h"
#include "fuse/virtual.h"

/* Stack of a thread that counts a tree. */
#define SLOW_STACK (256 * 1024)

static bool begins(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Those of system.* mean something that we do not do, but for access lists. */
static bool is_storable(const char *name)
{
	static const char *const prefixes[] = { "user.", "trusted.", "security." };

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (begins(name, prefixes[i]))
			return name[strlen(prefixes[i])] != '\0';
	return false;
}

/* Size 0 asks how much there is. */
static void reply_value(fuse_req_t req, size_t size, const void *value, size_t len)
{
	if (size == 0)
		(void)fuse_reply_xattr(req, len);
	else if (len > size)
		(void)fuse_reply_err(req, ERANGE);
	else
		(void)fuse_reply_buf(req, value, len);
}

/* ---- Get ---- */

static void get_virtual(fuse_req_t req, fuse_ino_t ino, const struct virtual *v, size_t size)
{
	void *value;
	size_t len;
	const int err = virtual_get(fs_of(req), v, ino, &value, &len);

	if (err != 0) {
		(void)fuse_reply_err(req, err);
		return;
	}
	reply_value(req, size, value, len);
	free(value);
}

struct slow_job {
	struct fs *fs;
	fuse_req_t req;
	fuse_ino_t ino;
	const struct virtual *v;
	size_t size;
	struct fs *view; /* held */
};

static void *slow_main(void *arg)
{
	struct slow_job *job = arg;

	fs_view = job->view;
	get_virtual(job->req, job->ino, job->v, job->size);
	fs_view = NULL;
	snap_release(job->view);
	fs_job_end(job->fs);
	free(job);
	return NULL;
}

/* There is one thread per waiting caller, and no more. */
static void get_slow(fuse_req_t req, fuse_ino_t ino, const struct virtual *v, size_t size)
{
	struct fs *fs = fuse_req_userdata(req);
	struct slow_job *job = malloc(sizeof(*job));
	pthread_attr_t attr;
	pthread_t thread;
	int err = ENOMEM;

	if (job != NULL && pthread_attr_init(&attr) == 0) {
		*job = (struct slow_job){ fs, req, ino, v, size, snap_hold() };
		(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		(void)pthread_attr_setstacksize(&attr, SLOW_STACK);
		fs_job_begin(fs);
		err = pthread_create(&thread, &attr, slow_main, job);
		if (err != 0) {
			snap_release(job->view);
			fs_job_end(fs);
		}
		(void)pthread_attr_destroy(&attr);
	}
	if (err == 0)
		return;
	free(job);
	(void)fuse_reply_err(req, err);
}

/*
 * "ls -l" asks for every file's label, unless it hears once that there are none here: where nobody
 * sets labels it hears that, and saves a request per file.
 */
static void get_stored(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	char *buf = NULL;
	size_t len;
	emdb_err err;

	if (size > EMDB_XATTR_VALUE_MAX)
		size = EMDB_XATTR_VALUE_MAX;
	if (size > 0) {
		buf = malloc(size);
		if (buf == NULL) {
			(void)fuse_reply_err(req, ENOMEM);
			return;
		}
	}
	err = emdb_xattr_get(fs->db, ino, name, buf, size, &len);
	if (err == EMDB_OK)
		reply_value(req, size, buf, len);
	else if (emdb_err_errno(err) == ENODATA && !fs->selinux && strcmp(name, FS_LABEL) == 0)
		(void)fuse_reply_err(req, EOPNOTSUPP);
	else
		fs_reply_err(req, err);
	free(buf);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	const struct virtual *v;

	if (!virtual_find(name, &v)) {
		if (is_storable(name) || (access_is_list(name) && !fs_of(req)->opt.noacl))
			get_stored(req, ino, name, size);
		else
			(void)fuse_reply_err(req, EOPNOTSUPP);
	} else if (v == NULL) {
		(void)fuse_reply_err(req, ENODATA);
	} else if (virtual_is_slow(v)) {
		get_slow(req, ino, v, size);
	} else {
		get_virtual(req, ino, v, size);
	}
}

/* ---- Set and remove ---- */

static emdb_err set_stored(struct fs *fs, fuse_ino_t ino, const char *name, const char *value,
			   size_t size, int flags)
{
	unsigned int how = 0;

	if ((flags & XATTR_CREATE) != 0)
		how |= EMDB_XATTR_CREATE;
	if ((flags & XATTR_REPLACE) != 0)
		how |= EMDB_XATTR_REPLACE;
	return emdb_xattr_set(fs->db, ino, name, value, size, how);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags)
{
	struct fs *fs = fs_of(req);
	const struct virtual *v;
	int err;

	if (access_is_list(name)) {
		access_set(req, ino, name, value, size);
		return;
	}
	if (!virtual_find(name, &v))
		err = is_storable(name)
			      ? emdb_err_errno(set_stored(fs, ino, name, value, size, flags))
			      : EOPNOTSUPP;
	else
		err = v == NULL ? EOPNOTSUPP : virtual_set(fs, v, ino, value, size);
	(void)fuse_reply_err(req, err);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs *fs = fs_of(req);
	const struct virtual *v;
	int err;

	if (access_is_list(name)) {
		access_remove(req, ino, name);
		return;
	}
	if (!virtual_find(name, &v))
		err = is_storable(name) ? emdb_err_errno(emdb_xattr_remove(fs->db, ino, name))
					: EOPNOTSUPP;
	else
		err = v == NULL ? ENODATA : virtual_set(fs, v, ino, NULL, 0);
	(void)fuse_reply_err(req, err);
}

/* ---- List ---- */

/*
 * trusted.* is for root's eyes only; access lists that are not obeyed for
 * nobody's.  Returns the new length.
 */
static size_t hide(char *names, size_t len, bool trusted, bool lists)
{
	size_t from = 0, to = 0;

	while (from < len) {
		const size_t n = strnlen(names + from, len - from) + 1;

		if (!(trusted && begins(names + from, "trusted.")) &&
		    !(lists && access_is_list(names + from))) {
			memmove(names + to, names + from, n);
			to += n;
		}
		from += n;
	}
	return to;
}

/* All stored names with `extra` bytes of room behind them, to free(). */
static emdb_err list_stored(struct fs *fs, fuse_ino_t ino, size_t extra, char **ret,
			    size_t *ret_len)
{
	/* The list may grow between asking for its size and for itself. */
	for (int i = 0; i < 8; i++) {
		char *buf;
		size_t room, len;
		emdb_err err = emdb_xattr_list(fs->db, ino, NULL, 0, &room);

		if (err != EMDB_OK)
			return err;
		buf = malloc(room + extra);
		if (buf == NULL)
			return EMDB_ERR_NOMEM;
		len = 0;
		if (room > 0)
			err = emdb_xattr_list(fs->db, ino, buf, room, &len);
		if (err == EMDB_OK) {
			*ret = buf;
			*ret_len = len;
			return EMDB_OK;
		}
		free(buf);
		if (err != EMDB_ERR_RANGE)
			return err;
	}
	return EMDB_ERR_BUSY;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fs *fs = fs_of(req);
	char *names = NULL;
	size_t len = 0;
	const emdb_err err = list_stored(fs, ino, VIRTUAL_LIST_MAX, &names, &len);

	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	len = hide(names, len, fuse_req_ctx(req)->uid != 0, fs->opt.noacl);
	len += virtual_list(fs, ino, names + len);
	reply_value(req, size, names, len);
	free(names);
}
