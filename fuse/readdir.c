/* SPDX-License-Identifier: Apache-2.0 */
/* Listing a directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fuse.h>

#include "fuse/atime.h"
#include "fuse/fs.h"
#include "fuse/ops.h"
#include "fuse/snapset.h"

/* Positions of a listing: after ".", "..", the directory of snapshots; the store's own are larger. */
#define POS_DOT     1
#define POS_DOTDOT  2
#define POS_SNAPDIR 3
/* What the kernel calls an inode number that it should ask for. */
#define INO_UNKNOWN 0xffffffffu

struct listing {
	fuse_req_t req;
	uint64_t dir;
	bool plus;
	char *buf;
	size_t size, used;
};

/* Answered by ENOSYS the kernel caches listings by itself, and asks no more. */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	(void)fuse_reply_err(req, ENOSYS);
}

/*
 * Adds an entry; false: it does not fit.  e->ino is 0 where the kernel shall
 * not take a node from the listing, the number shown is the attributes'.
 */
static bool add(struct listing *l, const char *name, const struct fuse_entry_param *e,
		uint64_t next)
{
	const size_t room = l->size - l->used;
	char *to = l->buf + l->used;
	size_t n;

	if (l->plus)
		n = fuse_add_direntry_plus(l->req, to, room, name, e, (off_t)next);
	else
		n = fuse_add_direntry(l->req, to, room, name, &e->attr, (off_t)next);
	if (n > room)
		return false;
	l->used += n;
	return true;
}

static bool add_dots(struct listing *l, uint64_t pos)
{
	const struct fs *fs = fs_of(l->req);
	struct fuse_entry_param e = { .attr.st_mode = S_IFDIR };
	struct emdb_attr attr;

	e.attr.st_ino = fs_ino(fs, l->dir);
	if (pos < POS_DOT && !add(l, ".", &e, POS_DOT))
		return false;
	if (l->dir == EMDB_ROOT && fs->node_base != 0)
		e.attr.st_ino = SNAPDIR_INO;
	else if (l->dir != EMDB_ROOT && emdb_node_getattr(fs->db, l->dir, &attr) == EMDB_OK &&
		 attr.parent != 0)
		e.attr.st_ino = fs_ino(fs, attr.parent);
	if (pos < POS_DOTDOT && !add(l, "..", &e, POS_DOTDOT))
		return false;
	if (pos >= POS_SNAPDIR || l->dir != EMDB_ROOT || fs->snaps == NULL ||
	    fs->opt.snapdir != SNAPDIR_VISIBLE)
		return true;
	e.attr.st_ino = SNAPDIR_INO;
	return add(l, fs->opt.snapdirname, &e, POS_SNAPDIR);
}

/* A damaged entry is listed by its name; asking for it tells the error. */
static bool add_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		      uint64_t next_pos)
{
	struct listing *l = ctx;
	struct fs *fs = fs_of(l->req);
	struct fuse_entry_param e = { .attr.st_ino = INO_UNKNOWN };
	char name[NAMES_MAX + 1];

	(void)names_from_key(key, key_len, fs_reserved(fs, l->dir), name);
	if (attr != NULL)
		fs_entry(fs, attr, &e);
	if (!add(l, name, &e, next_pos))
		return false;
	if (l->plus && e.ino != 0)
		fs_ref(fs);
	return true;
}

/* The kernel did not get the answer: give back what it would have owned. */
static void give_back(struct fs *fs, const char *buf, size_t used)
{
	struct fuse_direntplus d;
	size_t at = 0;

	while (used - at >= FUSE_NAME_OFFSET_DIRENTPLUS) {
		memcpy(&d, buf + at, FUSE_NAME_OFFSET_DIRENTPLUS);
		if (d.entry_out.nodeid != 0)
			fs_forget(fs, d.entry_out.nodeid - fs->node_base, 1);
		at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + d.dirent.namelen);
	}
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct fs *fs = fs_of(req);
	struct listing l = { .req = req, .dir = ino, .plus = plus };
	const uint64_t pos = off > POS_SNAPDIR ? (uint64_t)off : 0;
	emdb_err err = EMDB_OK;

	l.size = size < FS_READDIR_MAX ? size : FS_READDIR_MAX;
	l.buf = malloc(l.size);
	if (l.buf == NULL) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	if (off > POS_SNAPDIR || add_dots(&l, (uint64_t)off))
		err = emdb_node_readdir(fs->db, ino, pos, plus ? EMDB_READDIR_REF : 0, add_entry,
					&l);
	atime_touch(fs, ino);
	/* What was listed before an error is told first: asking on from there meets it again. */
	if (err != EMDB_OK && l.used == 0)
		fs_reply_err(req, err);
	else if (fuse_reply_buf(req, l.buf, l.used) != 0 && plus)
		give_back(fs, l.buf, l.used);
	free(l.buf);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}
