/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/snapdir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/log.h"
#include "fuse/snapset.h"

/*
 * Positions of the listing: after ".", "..", "latest"; then those that cannot be
 * read, in their order; then the others by their number, which is for ever.
 */
#define POS_DOT     1
#define POS_DOTDOT  2
#define POS_LATEST  3
#define POS_NUMBERS ((uint64_t)1 << 20)

#define DIR_MODE  (S_IFDIR | 0755u)
#define LINK_MODE (S_IFLNK | 0777u)

/* ---- What is there ---- */

static void made_up(struct fs *fs, uint64_t ino, uint32_t mode, int64_t time_ns,
		    struct emdb_attr *ret)
{
	*ret = (struct emdb_attr){
		.id = ino,
		.mode = mode,
		.nlink = 1,
		.uid = fs->owner,
		.gid = fs->group,
		.atime_ns = time_ns,
		.mtime_ns = time_ns,
		.ctime_ns = time_ns,
		.btime_ns = time_ns,
	};
}

struct summary {
	uint32_t count;
	int64_t newest_ns;
};

static bool sum_up(void *ctx, const struct emdb_snapshot *s)
{
	struct summary *sum = ctx;

	sum->count++;
	if (s->created_ns > sum->newest_ns)
		sum->newest_ns = s->created_ns;
	return true;
}

static void dir_attr(struct fs *fs, struct emdb_attr *ret)
{
	struct summary sum = { 0, 0 };
	int64_t changed_ns = atomic_load_explicit(&fs->snaps_changed_ns, memory_order_relaxed);

	if (emdb_snapshot_list(fs->db, sum_up, &sum) != EMDB_OK)
		log_warn("the snapshots cannot be listed");
	if (sum.newest_ns > changed_ns)
		changed_ns = sum.newest_ns;
	made_up(fs, SNAPDIR_INO, DIR_MODE, changed_ns, ret);
	ret->nlink = 2 + sum.count;
}

static emdb_err link_attr(struct fs *fs, struct emdb_attr *ret)
{
	struct emdb_snapshot s;
	const emdb_err err = emdb_snapshot_get(fs->db, EMDB_SNAPSHOT_LATEST, &s);

	if (err != EMDB_OK)
		return err;
	made_up(fs, SNAPLATEST_INO, LINK_MODE, s.created_ns, ret);
	ret->size = strlen(s.name);
	return EMDB_OK;
}

bool snapdir_attr(struct fs *fs, uint64_t node, struct emdb_attr *ret)
{
	if (node == SNAPDIR_NODE) {
		dir_attr(fs, ret);
		return true;
	}
	return node == SNAPLATEST_NODE && link_attr(fs, ret) == EMDB_OK;
}

/* ---- Looking up ---- */

static void reply_entry(fuse_req_t req, uint64_t node, const struct emdb_attr *attr)
{
	struct fuse_entry_param e;

	fs_entry(fs_of(req), attr, &e);
	e.ino = node;
	(void)fuse_reply_entry(req, &e);
}

void snapdir_reply(fuse_req_t req)
{
	struct emdb_attr attr;

	dir_attr(fs_of(req), &attr);
	reply_entry(req, SNAPDIR_NODE, &attr);
}

/*
 * The directory of a snapshot.  Its attributes are in the snapshot, which is
 * not opened for its name: until somebody wants them, the kernel is told that
 * they are out of date.
 */
static void reply_root(fuse_req_t req, const struct emdb_snapshot *s)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e;
	struct emdb_attr attr;
	bool known = false;
	uint64_t node;
	int code;

	code = s->err != EMDB_OK ? emdb_err_errno(s->err)
				 : snapset_root(fs->snaps, s, &node, &attr, &known);
	if (code != 0) {
		log_error("snapshot %s: %s", s->name, strerror(code));
		(void)fuse_reply_err(req, code);
		return;
	}
	if (!known)
		made_up(fs, snap_ino(s->number, EMDB_ROOT), DIR_MODE, s->created_ns, &attr);
	fs_entry(fs, &attr, &e);
	e.ino = node;
	e.generation += s->number;
	e.attr_timeout = known ? FS_TIMEOUT_S : 0;
	e.entry_timeout = FS_TIMEOUT_S;
	if (fuse_reply_entry(req, &e) != 0)
		snapset_forget(fs->snaps, node, 1);
}

/* That a name is not there is not remembered: it may come at any time. */
void snapdir_lookup(fuse_req_t req, const char *name)
{
	struct fs *fs = fs_of(req);
	struct emdb_snapshot s;
	struct emdb_attr attr;
	emdb_err err;

	if (strcmp(name, EMDB_SNAPSHOT_LATEST) == 0) {
		err = link_attr(fs, &attr);
		if (err == EMDB_OK) {
			reply_entry(req, SNAPLATEST_NODE, &attr);
			return;
		}
	} else {
		err = emdb_snapshot_get(fs->db, name, &s);
		if (err == EMDB_OK) {
			reply_root(req, &s);
			return;
		}
	}
	/* INVAL: no snapshot has such a name. */
	(void)fuse_reply_err(req, err == EMDB_ERR_INVAL ? ENOENT : emdb_err_errno(err));
}

void snapdir_readlink(fuse_req_t req)
{
	struct emdb_snapshot s;
	const emdb_err err = emdb_snapshot_get(fs_of(req)->db, EMDB_SNAPSHOT_LATEST, &s);

	if (err == EMDB_OK)
		(void)fuse_reply_readlink(req, s.name);
	else
		fs_reply_err(req, err);
}

/* ---- Listing ---- */

struct listing {
	fuse_req_t req;
	bool plus;
	char *buf;
	size_t size, used;
	uint64_t pos;    /* what comes after it is wanted */
	uint64_t failed; /* of those that cannot be read, so many were seen */
	bool full;
};

/* No node goes with a name: the kernel asks for those it needs. */
static void add(struct listing *l, const char *name, uint64_t ino, uint32_t type, uint64_t next)
{
	const struct fuse_entry_param e = { .attr.st_ino = ino, .attr.st_mode = type };
	const size_t room = l->size - l->used;
	char *to = l->buf + l->used;
	size_t n;

	if (l->full || next <= l->pos)
		return;
	if (l->plus)
		n = fuse_add_direntry_plus(l->req, to, room, name, &e, (off_t)next);
	else
		n = fuse_add_direntry(l->req, to, room, name, &e.attr, (off_t)next);
	l->full = n > room;
	if (!l->full)
		l->used += n;
}

static bool add_snapshot(void *ctx, const struct emdb_snapshot *s)
{
	struct listing *l = ctx;
	uint64_t next;

	if (l->pos < POS_LATEST)
		add(l, EMDB_SNAPSHOT_LATEST, SNAPLATEST_INO, S_IFLNK, POS_LATEST);
	if (s->err == EMDB_OK)
		next = POS_NUMBERS + s->number;
	else
		next = POS_LATEST + ++l->failed;
	add(l, s->name, snap_ino(s->number, EMDB_ROOT), S_IFDIR, next);
	/* "latest" comes before all of them, and once. */
	if (l->pos < POS_LATEST)
		l->pos = POS_LATEST;
	return !l->full;
}

void snapdir_list(fuse_req_t req, size_t size, off_t off, bool plus)
{
	struct fs *fs = fs_of(req);
	struct listing l = { .req = req, .plus = plus, .pos = (uint64_t)off };
	emdb_err err = EMDB_OK;

	l.size = size < FS_READDIR_MAX ? size : FS_READDIR_MAX;
	l.buf = malloc(l.size);
	if (l.buf == NULL) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	add(&l, ".", SNAPDIR_INO, S_IFDIR, POS_DOT);
	add(&l, "..", EMDB_ROOT, S_IFDIR, POS_DOTDOT);
	if (!l.full)
		err = emdb_snapshot_list(fs->db, add_snapshot, &l);
	if (err != EMDB_OK && l.used == 0)
		fs_reply_err(req, err);
	else
		(void)fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

/* ---- Telling the kernel ---- */

static struct notify *notifier(struct fs *fs)
{
	return atomic_load_explicit(&fs->notify, memory_order_acquire);
}

static void changed(struct fs *fs)
{
	atomic_store_explicit(&fs->snaps_changed_ns, fs_now_ns(), memory_order_relaxed);
}

/*
 * "latest" is another one, or is not there any more.  Whoever asked for the
 * change holds the directory: that the name is to be looked up again the
 * kernel learns after the answer, what it points to before.
 */
static void tell_latest(struct fs *fs)
{
	struct notify *n = notifier(fs);

	changed(fs);
	if (n == NULL)
		return;
	notify_content(n, SNAPLATEST_NODE);
	notify_settle(n);
	notify_changed(n, SNAPDIR_NODE, SNAPLATEST_NODE, EMDB_SNAPSHOT_LATEST);
}

static void tell_all(struct fs *fs)
{
	struct notify *n = notifier(fs);

	changed(fs);
	if (n == NULL)
		return;
	notify_changed(n, SNAPDIR_NODE, SNAPLATEST_NODE, EMDB_SNAPSHOT_LATEST);
	notify_content(n, SNAPLATEST_NODE);
	notify_content(n, SNAPDIR_NODE);
	notify_wait(n);
}

void snapdir_created(struct fs *fs)
{
	if (fs->snaps != NULL)
		tell_all(fs);
}

void snapdir_removed(struct fs *fs, const char *name)
{
	struct notify *n = notifier(fs);
	uint64_t node;

	if (fs->snaps == NULL)
		return;
	node = snapset_removed(fs->snaps, name);
	if (n != NULL && node != 0) {
		notify_deleted(n, SNAPDIR_NODE, node, name);
		notify_changed(n, SNAPDIR_NODE, node, name);
	}
	tell_all(fs);
}

void snapdir_renamed(struct fs *fs, const char *name, const char *new_name)
{
	struct notify *n = notifier(fs);
	uint64_t node;

	if (fs->snaps == NULL)
		return;
	node = snapset_renamed(fs->snaps, name, new_name);
	if (n != NULL && node != 0)
		notify_changed(n, SNAPDIR_NODE, node, name);
	tell_all(fs);
}

/* ---- Changing ---- */

static bool allowed(fuse_req_t req)
{
	const uid_t uid = fuse_req_ctx(req)->uid;

	return uid == 0 || uid == fs_of(req)->owner;
}

void snapdir_create(fuse_req_t req, const char *name)
{
	struct fs *fs = fs_of(req);
	struct emdb_snapshot s;
	emdb_err err = allowed(req) ? EMDB_OK : EMDB_ERR_PERM;

	if (err == EMDB_OK)
		err = emdb_snapshot_create(fs->db, name, &s);
	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	tell_latest(fs);
	reply_root(req, &s);
}

void snapdir_remove(fuse_req_t req, const char *name)
{
	struct fs *fs = fs_of(req);
	emdb_err err = allowed(req) ? EMDB_OK : EMDB_ERR_PERM;

	if (err == EMDB_OK)
		err = emdb_snapshot_delete(fs->db, name);
	if (err == EMDB_OK) {
		(void)snapset_removed(fs->snaps, name);
		tell_latest(fs);
	}
	fs_reply_err(req, err);
}

void snapdir_rename(fuse_req_t req, const char *name, const char *new_name)
{
	struct fs *fs = fs_of(req);
	emdb_err err = allowed(req) ? EMDB_OK : EMDB_ERR_PERM;

	if (err == EMDB_OK)
		err = emdb_snapshot_rename(fs->db, name, new_name);
	if (err == EMDB_OK) {
		(void)snapset_renamed(fs->snaps, name, new_name);
		tell_latest(fs);
	}
	fs_reply_err(req, err);
}
