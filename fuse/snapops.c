/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/snapops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fs.h"
#include "fuse/ops.h"
#include "fuse/snapdir.h"
#include "fuse/snapset.h"

/* Renaming never replaces anything. */
#define SNAPDIR_RENAME_FLAGS 1u /* RENAME_NOREPLACE */

/* Stack of a thread that opens, makes or removes a snapshot. */
#define THREAD_STACK (512 * 1024)

/* A request about a node in a snapshot, or one that takes long. */
struct call {
	void (*run)(struct call *c); /* answers it; in the view, if there is a node */
	fuse_req_t req;
	fuse_ino_t node; /* 0: not in a snapshot */
	fuse_ino_t id;   /* of the object */
	char *name, *new_name;
	size_t size;
	off_t off;
	int mask;
	struct fuse_file_info fi;
};

static struct fs *mount_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- Threads ---- */

static void call_free(struct call *c)
{
	if (c == NULL)
		return;
	free(c->name);
	free(c->new_name);
	free(c);
}

/* False: no memory. */
static bool copy_text(const char *text, char **ret)
{
	*ret = text != NULL ? strdup(text) : NULL;
	return text == NULL || *ret != NULL;
}

/* With its own strings; NULL: no memory. */
static struct call *call_copy(const struct call *c)
{
	struct call *copy = malloc(sizeof(*copy));

	if (copy == NULL)
		return NULL;
	*copy = *c;
	copy->new_name = NULL;
	if (copy_text(c->name, &copy->name) && copy_text(c->new_name, &copy->new_name))
		return copy;
	call_free(copy);
	return NULL;
}

/* Answers in the view; the snapshot is opened if it is not. */
static void answer(struct call *c, bool open, bool *ret_later)
{
	struct snapset *set = mount_of(c->req)->snaps;
	struct fs *view = NULL;
	const int code = snapset_enter(set, c->node, open, &view);

	*ret_later = code == EAGAIN && !open;
	if (*ret_later)
		return;
	if (code != 0) {
		(void)fuse_reply_err(c->req, code);
		return;
	}
	fs_view = view;
	c->run(c);
	fs_view = NULL;
	snapset_leave(set, c->node);
}

static void *call_main(void *arg)
{
	struct call *c = arg;
	struct fs *fs = mount_of(c->req);
	bool later;

	if (c->node != 0)
		answer(c, true, &later);
	else
		c->run(c);
	call_free(c);
	fs_job_end(fs);
	return NULL;
}

/* There is one thread per waiting caller, and no more. */
static void in_thread(const struct call *call)
{
	struct fs *fs = mount_of(call->req);
	struct call *c = call_copy(call);
	pthread_attr_t attr;
	pthread_t thread;
	int err = ENOMEM;

	if (c != NULL && pthread_attr_init(&attr) == 0) {
		(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		(void)pthread_attr_setstacksize(&attr, THREAD_STACK);
		fs_job_begin(fs);
		err = pthread_create(&thread, &attr, call_main, c);
		if (err != 0)
			fs_job_end(fs);
		(void)pthread_attr_destroy(&attr);
	}
	if (err == 0)
		return;
	call_free(c);
	(void)fuse_reply_err(call->req, err);
}

/* A request about a node in a snapshot. */
static void in_snapshot(struct call *c, fuse_ino_t node)
{
	bool later;

	c->node = node;
	c->id = snap_id(node);
	answer(c, false, &later);
	if (later)
		in_thread(c);
}

struct fs *snap_hold(void)
{
	struct fs *view = fs_view, *held = NULL;

	if (view != NULL && snapset_enter(view->root->snaps, view->node_base, false, &held) != 0)
		abort(); /* it is in use by us */
	return held;
}

void snap_release(struct fs *view)
{
	if (view != NULL)
		snapset_leave(view->root->snaps, view->node_base);
}

/* ---- Names and attributes ---- */

static void run_lookup(struct call *c)
{
	op_lookup(c->req, c->id, c->name);
}

void snap_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct call c = { .run = run_lookup, .req = req, .name = (char *)(uintptr_t)name };

	if (parent == SNAPDIR_NODE)
		snapdir_lookup(req, name);
	else
		in_snapshot(&c, parent);
}

/* The attributes of what need not be opened for them. */
static bool known_attr(fuse_req_t req, fuse_ino_t ino, struct emdb_attr *ret)
{
	struct fs *fs = mount_of(req);

	if (snap_slot(ino) == 0)
		return snapdir_attr(fs, ino, ret);
	return snap_id(ino) == EMDB_ROOT && snapset_root_attr(fs->snaps, ino, ret);
}

static void run_getattr(struct call *c)
{
	op_getattr(c->req, c->id, &c->fi);
}

void snap_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call c = { .run = run_getattr, .req = req };
	struct emdb_attr attr;

	(void)fi;
	if (known_attr(req, ino, &attr))
		fs_reply_attr(req, &attr);
	else if (snap_slot(ino) == 0)
		(void)fuse_reply_err(req, ENOENT);
	else
		in_snapshot(&c, ino);
}

#if COMPAT_STATX
static void run_statx(struct call *c)
{
	op_statx(c->req, c->id, 0, c->mask, &c->fi);
}

void snap_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct call c = { .run = run_statx, .req = req, .mask = mask };
	struct emdb_attr attr;

	(void)flags;
	(void)fi;
	if (known_attr(req, ino, &attr))
		fs_reply_statx(req, &attr);
	else if (snap_slot(ino) == 0)
		(void)fuse_reply_err(req, ENOENT);
	else
		in_snapshot(&c, ino);
}
#endif

static void run_access(struct call *c)
{
	op_access(c->req, c->id, c->mask);
}

void snap_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct call c = { .run = run_access, .req = req, .mask = mask };

	/* Only what can be executed matters, and a directory can be entered. */
	if (snap_slot(ino) == 0 || snap_id(ino) == EMDB_ROOT)
		(void)fuse_reply_err(req, 0);
	else
		in_snapshot(&c, ino);
}

static void run_readlink(struct call *c)
{
	op_readlink(c->req, c->id);
}

void snap_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct call c = { .run = run_readlink, .req = req };

	if (ino == SNAPLATEST_NODE)
		snapdir_readlink(req);
	else
		in_snapshot(&c, ino);
}

static void run_getxattr(struct call *c)
{
	op_getxattr(c->req, c->id, c->name, c->size);
}

void snap_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct call c = {
		.run = run_getxattr, .req = req, .name = (char *)(uintptr_t)name, .size = size
	};

	if (snap_slot(ino) == 0)
		(void)fuse_reply_err(req, ENODATA);
	else
		in_snapshot(&c, ino);
}

static void run_listxattr(struct call *c)
{
	op_listxattr(c->req, c->id, c->size);
}

void snap_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct call c = { .run = run_listxattr, .req = req, .size = size };

	if (snap_slot(ino) != 0)
		in_snapshot(&c, ino);
	else if (size == 0)
		(void)fuse_reply_xattr(req, 0);
	else
		(void)fuse_reply_buf(req, NULL, 0);
}

/* ---- Contents ---- */

static void run_readdir(struct call *c)
{
	op_readdir(c->req, c->id, c->size, c->off, &c->fi);
}

void snap_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct call c = { .run = run_readdir, .req = req, .size = size, .off = off };

	(void)fi;
	if (ino == SNAPDIR_NODE)
		snapdir_list(req, size, off, false);
	else
		in_snapshot(&c, ino);
}

static void run_readdirplus(struct call *c)
{
	op_readdirplus(c->req, c->id, c->size, c->off, &c->fi);
}

void snap_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	struct call c = { .run = run_readdirplus, .req = req, .size = size, .off = off };

	(void)fi;
	if (ino == SNAPDIR_NODE)
		snapdir_list(req, size, off, true);
	else
		in_snapshot(&c, ino);
}

static void run_read(struct call *c)
{
	op_read(c->req, c->id, c->size, c->off, &c->fi);
}

void snap_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct call c = { .run = run_read, .req = req, .size = size, .off = off };

	(void)fi;
	in_snapshot(&c, ino);
}

static void run_lseek(struct call *c)
{
	op_lseek(c->req, c->id, c->off, c->mask, &c->fi);
}

void snap_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct call c = { .run = run_lseek, .req = req, .off = off, .mask = whence };

	(void)fi;
	in_snapshot(&c, ino);
}

/* ---- Making, removing and renaming snapshots ---- */

static void run_create(struct call *c)
{
	snapdir_create(c->req, c->name);
}

static void run_remove(struct call *c)
{
	snapdir_remove(c->req, c->name);
}

static void run_rename(struct call *c)
{
	snapdir_rename(c->req, c->name, c->new_name);
}

/* Nothing can change in a snapshot; beside them there is nothing else than they. */
static void refuse(fuse_req_t req, fuse_ino_t ino)
{
	(void)fuse_reply_err(req, snap_slot(ino) == 0 ? EPERM : EROFS);
}

void snap_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	const struct call c = { .run = run_create, .req = req, .name = (char *)(uintptr_t)name };

	(void)mode;
	if (parent == SNAPDIR_NODE)
		in_thread(&c);
	else
		refuse(req, parent);
}

void snap_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct call c = { .run = run_remove, .req = req, .name = (char *)(uintptr_t)name };

	if (parent == SNAPDIR_NODE)
		in_thread(&c);
	else
		refuse(req, parent);
}

/* Not EXDEV, after which mv(1) would begin to copy. */
void snap_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		 const char *newname, unsigned int flags)
{
	const struct call c = {
		.run = run_rename,
		.req = req,
		.name = (char *)(uintptr_t)name,
		.new_name = (char *)(uintptr_t)newname,
	};

	if (parent == SNAPDIR_NODE && newparent == SNAPDIR_NODE &&
	    (flags & ~(unsigned int)SNAPDIR_RENAME_FLAGS) == 0)
		in_thread(&c);
	else if (parent == SNAPDIR_NODE && newparent == SNAPDIR_NODE)
		(void)fuse_reply_err(req, EINVAL);
	else
		refuse(req, snap_slot(parent) != 0 ? parent : newparent);
}

/* ---- What is not done ---- */

void snap_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		  struct fuse_file_info *fi)
{
	(void)attr;
	(void)to_set;
	(void)fi;
	refuse(req, ino);
}

void snap_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		 struct fuse_file_info *fi)
{
	(void)name;
	(void)mode;
	(void)fi;
	refuse(req, parent);
}

#if COMPAT_TMPFILE
void snap_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	(void)mode;
	(void)fi;
	refuse(req, parent);
}
#endif

void snap_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)name;
	(void)mode;
	(void)rdev;
	refuse(req, parent);
}

void snap_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	(void)name;
	refuse(req, parent);
}

/* A link to a file of a snapshot would be on another file system, if there were two. */
void snap_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)newname;
	if (fs_in_snapdir(newparent))
		refuse(req, newparent);
	else
		(void)fuse_reply_err(req, snap_slot(ino) == 0 ? EPERM : EXDEV);
}

void snap_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)name;
	refuse(req, parent);
}

void snap_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		struct fuse_file_info *fi)
{
	(void)buf;
	(void)size;
	(void)off;
	(void)fi;
	refuse(req, ino);
}

void snap_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		    struct fuse_file_info *fi)
{
	(void)mode;
	(void)offset;
	(void)length;
	(void)fi;
	refuse(req, ino);
}

/* EXDEV makes the kernel copy through its page cache. */
void snap_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			  struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			  struct fuse_file_info *fi_out, size_t len, int flags)
{
	(void)ino_in;
	(void)off_in;
	(void)fi_in;
	(void)off_out;
	(void)fi_out;
	(void)len;
	(void)flags;
	if (fs_in_snapdir(ino_out))
		refuse(req, ino_out);
	else
		(void)fuse_reply_err(req, EXDEV);
}

void snap_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		   int flags)
{
	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	refuse(req, ino);
}

void snap_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)name;
	refuse(req, ino);
}
