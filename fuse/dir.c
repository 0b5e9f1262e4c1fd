/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that make, remove and move names. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fuse/access.h"
#include "fuse/fs.h"
#include "fuse/ops.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE  2
#endif
#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT 4
#endif

/* ---- Making ---- */

/*
 * Whose the new node is: its maker's, or the group's of a set-gid directory,
 * which new directories pass on; and who may do what with it.  Release *lists
 * after *ret was used, whatever the error.
 */
static emdb_err describe(fuse_req_t req, fuse_ino_t parent, mode_t mode, dev_t rdev,
			 struct emdb_create *ret, struct access_new *lists)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct emdb_attr dir;
	const emdb_err err = emdb_node_getattr(fs_of(req)->db, parent, &dir);

	*lists = (struct access_new){ 0 };
	if (err != EMDB_OK)
		return err;
	*ret = (struct emdb_create){
		.mode = mode,
		.uid = ctx->uid,
		.gid = ctx->gid,
		.rdev = rdev,
	};
	if ((dir.mode & S_ISGID) != 0) {
		ret->gid = dir.gid;
		if (S_ISDIR(mode))
			ret->mode |= S_ISGID;
	}
	return access_inherit(req, parent, ret, lists);
}

static emdb_err make(struct fs *fs, fuse_ino_t parent, const struct fs_key *key,
		     const struct emdb_create *what, struct emdb_attr *ret)
{
	return emdb_node_create(fs->db, parent, key->bytes, key->len, what, ret);
}

/* Everything that is made without being opened. */
static void make_node(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev,
		      const char *target)
{
	struct fs *fs = fs_of(req);
	struct access_new lists;
	struct emdb_create what;
	struct emdb_attr attr;
	struct fs_key key;
	emdb_err err;
	const int code = fs_key_init_new(fs, parent, name, &key);

	if (code != 0) {
		(void)fuse_reply_err(req, code);
		return;
	}
	err = describe(req, parent, mode, rdev, &what, &lists);
	if (err == EMDB_OK && target != NULL) {
		what.target = target;
		what.target_len = strlen(target);
	}
	if (err == EMDB_OK)
		err = make(fs, parent, &key, &what, &attr);
	access_new_release(&lists);
	fs_key_release(&key);
	if (err == EMDB_OK)
		fs_reply_entry(req, &attr);
	else
		fs_reply_err(req, err);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	if ((mode & S_IFMT) == 0)
		mode |= S_IFREG;
	if (S_ISREG(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode))
		make_node(req, parent, name, mode, rdev, NULL);
	else
		(void)fuse_reply_err(req, EINVAL);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_node(req, parent, name, S_IFDIR | (mode & 07777), 0, NULL);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make_node(req, parent, name, S_IFLNK | 0777, 0, target);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct fs *fs = fs_of(req);
	struct emdb_attr attr;
	struct fs_key key;
	emdb_err err;
	const int code = fs_key_init_new(fs, newparent, newname, &key);

	if (code != 0) {
		(void)fuse_reply_err(req, code);
		return;
	}
	err = emdb_node_link(fs->db, ino, newparent, key.bytes, key.len, &attr);
	fs_key_release(&key);
	if (err == EMDB_OK)
		fs_reply_entry(req, &attr);
	else
		fs_reply_err(req, err);
}

/* ---- Making and opening ---- */

/* The kernel believed the name free, and it is not: what open(2) does then. */
static emdb_err open_existing(fuse_req_t req, fuse_ino_t parent, const struct fs_key *key,
			      int flags, struct emdb_attr *ret)
{
	struct fs *fs = fs_of(req);
	struct emdb_attr attr;
	emdb_err err;

	if ((flags & O_EXCL) != 0)
		return EMDB_ERR_EXISTS;
	err = emdb_node_lookup(fs->db, parent, key->bytes, key->len, &attr);
	if (err == EMDB_OK && !S_ISREG(attr.mode)) {
		emdb_node_forget(fs->db, attr.id, 1);
		err = S_ISDIR(attr.mode) ? EMDB_ERR_IS_NS : EMDB_ERR_EXISTS;
	}
	if (err != EMDB_OK)
		return err;
	if ((flags & O_TRUNC) != 0) {
		const uint64_t id = attr.id;

		attr.size = 0;
		err = emdb_node_setattr(fs->db, id, &attr, EMDB_SET_SIZE, &attr);
		if (err != EMDB_OK)
			emdb_node_forget(fs->db, id, 1);
	}
	if (err == EMDB_OK)
		*ret = attr;
	return err;
}

/*
 * There is no state behind a descriptor: no request will tell of its end.
 * Writing past the page cache saves the kernel from asking for file
 * capabilities first; only where it keeps that coherent with readers.
 */
static void reply_create(fuse_req_t req, const struct emdb_attr *attr, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e;

	fi->fh = 0;
	fi->keep_cache = 1;
	fi->noflush = 1;
	fi->direct_io = fs->direct_create && (fi->flags & O_ACCMODE) == O_WRONLY;
	fs_entry(fs, attr, &e);
	if (fuse_reply_create(req, &e, fi) != 0)
		emdb_node_forget(fs->db, attr->id, 1);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct access_new lists;
	struct emdb_create what;
	struct emdb_attr attr;
	struct fs_key key;
	emdb_err err;
	const int code = fs_key_init_new(fs, parent, name, &key);

	if (code != 0) {
		(void)fuse_reply_err(req, code);
		return;
	}
	err = describe(req, parent, S_IFREG | (mode & 07777), 0, &what, &lists);
	if (err == EMDB_OK)
		err = make(fs, parent, &key, &what, &attr);
	access_new_release(&lists);
	if (err == EMDB_ERR_EXISTS || err == EMDB_ERR_IS_NS)
		err = open_existing(req, parent, &key, fi->flags, &attr);
	fs_key_release(&key);
	if (err == EMDB_OK)
		reply_create(req, &attr, fi);
	else
		fs_reply_err(req, err);
}

void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	struct access_new lists;
	struct emdb_create what;
	struct emdb_attr attr;
	emdb_err err = describe(req, parent, S_IFREG | (mode & 07777), 0, &what, &lists);

	if (err == EMDB_OK)
		err = emdb_node_create_anon(fs_of(req)->db, parent, &what, &attr);
	access_new_release(&lists);
	if (err == EMDB_OK)
		reply_create(req, &attr, fi);
	else
		fs_reply_err(req, err);
}

/* ---- Removing ---- */

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name,
			emdb_err (*fn)(emdb_db *db, uint64_t parent, const void *key,
				       size_t key_len, uint64_t *ret_id))
{
	struct fs *fs = fs_of(req);
	struct fs_key key;
	int code = fs_key_init(fs, parent, name, &key);

	if (code == 0) {
		code = emdb_err_errno(fn(fs->db, parent, key.bytes, key.len, NULL));
		fs_key_release(&key);
	}
	(void)fuse_reply_err(req, code);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, emdb_node_unlink);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, emdb_node_rmdir);
}

/* ---- Moving ---- */

/*
 * The kernel goes on believing what it was told of the source, which may now
 * have the deadline of what it replaced: then it must ask again.
 */
static void recheck_deadline(struct fs *fs, fuse_ino_t parent, const struct fs_key *key,
			     const char *name)
{
	struct notify *n = atomic_load_explicit(&fs->notify, memory_order_acquire);
	struct emdb_attr attr;
	int64_t expires;

	if (n == NULL || emdb_ttl_get(fs->db, parent, key->bytes, key->len, &expires) != EMDB_OK ||
	    expires == 0 ||
	    emdb_node_lookup(fs->db, parent, key->bytes, key->len, &attr) != EMDB_OK)
		return;
	notify_changed(n, parent, attr.id, name);
	emdb_node_forget(fs->db, attr.id, 1);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned int flags)
{
	struct fs *fs = fs_of(req);
	struct fs_key from = { 0 }, to = { 0 };
	unsigned int how = fs->opt.ttl_on_replace;
	int code = 0;

	if ((flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0)
		code = EINVAL;
	if (code == 0)
		code = fs_key_init(fs, parent, name, &from);
	if (code == 0)
		code = fs_key_init_new(fs, newparent, newname, &to);
	if ((flags & RENAME_NOREPLACE) != 0)
		how |= EMDB_RENAME_NOREPLACE;
	if ((flags & RENAME_EXCHANGE) != 0)
		how |= EMDB_RENAME_EXCHANGE;
	if ((flags & RENAME_WHITEOUT) != 0)
		how |= EMDB_RENAME_WHITEOUT;
	if (code == 0)
		code = emdb_err_errno(emdb_node_rename(fs->db, parent, from.bytes, from.len,
						       newparent, to.bytes, to.len, how));
	if (code == 0 && (flags & RENAME_EXCHANGE) == 0)
		recheck_deadline(fs, newparent, &to, newname);
	fs_key_release(&from);
	fs_key_release(&to);
	(void)fuse_reply_err(req, code);
}

/* ---- Symbolic links ---- */

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX];
	size_t len;
	const emdb_err err =
		emdb_node_read(fs_of(req)->db, ino, 0, target, sizeof(target) - 1, &len);

	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	target[len] = '\0';
	(void)fuse_reply_readlink(req, target);
}
