/* SPDX-License-Identifier: Apache-2.0 */
/* Listing a directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fuse.h>

#include "fuse/atime.h"
#include "fuse/fs.h"
#include "fuse/ops.h"

/* Positions of a listing: after ".", after ".."; the store's own are larger. */
#define POS_DOT    1
#define POS_DOTDOT 2
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
	struct fuse_entry_param e = { .attr.st_mode = S_IFDIR };
	struct emdb_attr attr;

	e.attr.st_ino = l->dir;
	if (pos < POS_DOT && !add(l, ".", &e, POS_DOT))
		return false;
	if (pos >= POS_DOTDOT)
		return true;
	if (l->dir != EMDB_ROOT && emdb_node_getattr(fs_of(l->req)->db, l->dir, &attr) == EMDB_OK &&
	    attr.parent != 0)
		e.attr.st_ino = attr.parent;
	return add(l, "..", &e, POS_DOTDOT);
}

/* A damaged entry is listed by its name; asking for it tells the error. */
static bool add_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		      uint64_t next_pos)
{
	struct listing *l = ctx;
	struct fuse_entry_param e = { .attr.st_ino = INO_UNKNOWN };
	char name[NAMES_MAX + 1];

	(void)names_from_key(key, key_len, fs_reserved(l->dir), name);
	if (attr != NULL)
		fs_entry(fs_of(l->req), attr, &e);
	return add(l, name, &e, next_pos);
}

/* The kernel did not get the answer: give back what it would have owned. */
static void give_back(struct fs *fs, const char *buf, size_t used)
{
	struct fuse_direntplus d;
	size_t at = 0;

	while (used - at >= FUSE_NAME_OFFSET_DIRENTPLUS) {
		memcpy(&d, buf + at, FUSE_NAME_OFFSET_DIRENTPLUS);
		if (d.entry_out.nodeid != 0)
			emdb_node_forget(fs->db, d.entry_out.nodeid, 1);
		at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + d.dirent.namelen);
	}
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct fs *fs = fs_of(req);
	struct listing l = { .req = req, .dir = ino, .plus = plus };
	const uint64_t pos = off > POS_DOTDOT ? (uint64_t)off : 0;
	emdb_err err = EMDB_OK;

	l.size = size < FS_READDIR_MAX ? size : FS_READDIR_MAX;
	l.buf = malloc(l.size);
	if (l.buf == NULL) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	if (off > POS_DOTDOT || add_dots(&l, (uint64_t)off))
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
