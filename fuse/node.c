/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about one node: looking it up, forgetting it, its attributes. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fuse/access.h"
#include "fuse/fs.h"
#include "fuse/ops.h"
#include "fuse/uring.h"
#include "fuse/snapdir.h"
#include "fuse/snapset.h"

/* ---- Lookup ---- */

/*
 * While starting, a file that only we know of: opening it lets the kernel
 * learn from our ENOSYS that opens need no request (see op_open()).
 */
static bool lookup_probe(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e = { .ino = FS_PROBE_ID, .generation = FS_GENERATION };

	if (!atomic_load_explicit(&fs->probing, memory_order_relaxed) || parent != EMDB_ROOT ||
	    strcmp(name, FS_PROBE_NAME) != 0)
		return false;
	e.attr.st_ino = FS_PROBE_ID;
	e.attr.st_mode = S_IFREG | 0444;
	e.attr.st_nlink = 1;
	atomic_store_explicit(&fs->over_uring, uring_is_request(req), memory_order_relaxed);
	(void)fuse_reply_entry(req, &e);
	return true;
}

/* An entry without a node says: there is none, and remember that. */
static void reply_absent(fuse_req_t req)
{
	const struct fuse_entry_param e = { .entry_timeout = FS_TIMEOUT_S };

	(void)fuse_reply_entry(req, &e);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct emdb_attr attr;
	struct fs_key key;
	emdb_err err = EMDB_OK;
	int code;

	if (lookup_probe(req, parent, name))
		return;
	code = fs_key_init(fs, parent, name, &key);
	if (code == EPERM && fs->snaps != NULL) {
		snapdir_reply(req);
		return;
	}
	if (code == 0) {
		err = emdb_node_lookup(fs->db, parent, key.bytes, key.len, &attr);
		code = emdb_err_errno(err);
		fs_key_release(&key);
	}
	if (code == 0)
		fs_reply_entry(req, &attr);
	else if (code == ENOENT || code == EPERM)
		reply_absent(req);
	else
		(void)fuse_reply_err(req, code);
}

static void forget(struct fs *fs, fuse_ino_t ino, uint64_t count)
{
	if (fs_in_snapdir(ino))
		snapset_forget(fs->snaps, ino, count);
	else if (ino != EMDB_ROOT && ino != FS_PROBE_ID)
		emdb_node_forget(fs->db, ino, count);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct fs *fs = fs_of(req);
	const uint64_t start = counters_now();

	forget(fs, ino, nlookup);
	counters_add(&fs->counters, COUNT_forget, start);
	fuse_reply_none(req);
	fs_forgot(fs);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fs *fs = fs_of(req);

	for (size_t i = 0; i < count; i++) {
		const uint64_t start = counters_now();

		forget(fs, forgets[i].ino, forgets[i].nlookup);
		counters_add(&fs->counters, COUNT_forget, start);
	}
	fuse_reply_none(req);
	fs_forgot(fs);
}

/* ---- Attributes ---- */

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct emdb_attr attr;
	emdb_err err;

	(void)fi;
	err = emdb_node_getattr(fs_of(req)->db, ino, &attr);
	if (err == EMDB_OK)
		fs_reply_attr(req, &attr);
	else
		fs_reply_err(req, err);
}

/*
 * access(2) and chdir(2) when the kernel does not check permissions: everything is allowed but
 * what execve(2) would refuse even then, a file that nobody may execute.
 */
void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct emdb_attr attr;
	emdb_err err;

	if (!(mask & X_OK)) {
		(void)fuse_reply_err(req, 0);
		return;
	}
	err = emdb_node_getattr(fs_of(req)->db, ino, &attr);
	if (err != EMDB_OK)
		fs_reply_err(req, err);
	else
		(void)fuse_reply_err(req, S_ISREG(attr.mode) && !(attr.mode & 0111) ? EACCES : 0);
}

#if COMPAT_STATX
static struct statx_timestamp timestamp_of(const struct timespec *t)
{
	return (struct statx_timestamp){ .tv_sec = t->tv_sec, .tv_nsec = (uint32_t)t->tv_nsec };
}

/* What getattr tells, and the time of birth. */
void fs_reply_statx(fuse_req_t req, const struct emdb_attr *attr)
{
	struct fs *fs = fs_of(req);
	const struct timespec birth = fs_timespec(attr->btime_ns);
	struct statx stx = { 0 };
	struct stat st;

	fs_stat(fs, attr, &st);
	stx.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
	stx.stx_blksize = (uint32_t)st.st_blksize;
	stx.stx_nlink = (uint32_t)st.st_nlink;
	stx.stx_uid = st.st_uid;
	stx.stx_gid = st.st_gid;
	stx.stx_mode = (uint16_t)st.st_mode;
	stx.stx_ino = st.st_ino;
	stx.stx_size = (uint64_t)st.st_size;
	stx.stx_blocks = (uint64_t)st.st_blocks;
	stx.stx_rdev_major = major(st.st_rdev);
	stx.stx_rdev_minor = minor(st.st_rdev);
	stx.stx_atime = timestamp_of(&st.st_atim);
	stx.stx_mtime = timestamp_of(&st.st_mtim);
	stx.stx_ctime = timestamp_of(&st.st_ctim);
	stx.stx_btime = timestamp_of(&birth);
	(void)fuse_reply_statx(req, 0, &stx, fs_timeout(fs, attr));
}

void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct emdb_attr attr;
	emdb_err err;

	(void)flags;
	(void)mask;
	(void)fi;
	err = emdb_node_getattr(fs_of(req)->db, ino, &attr);
	if (err == EMDB_OK)
		fs_reply_statx(req, &attr);
	else
		fs_reply_err(req, err);
}
#endif

/* False: a time beyond what 64 bits of ns can hold. */
static bool to_ns(const struct timespec *t, int64_t *ret)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)t->tv_sec, (int64_t)1000000000, &ns))
		return false;
	return !__builtin_add_overflow(ns, (int64_t)t->tv_nsec, ret);
}

static bool take_times(const struct stat *st, int to_set, struct emdb_attr *attr, unsigned int *set)
{
	const int64_t now = fs_now_ns();

	if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0)
		attr->atime_ns = now;
	else if ((to_set & FUSE_SET_ATTR_ATIME) != 0 && !to_ns(&st->st_atim, &attr->atime_ns))
		return false;
	if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0)
		attr->mtime_ns = now;
	else if ((to_set & FUSE_SET_ATTR_MTIME) != 0 && !to_ns(&st->st_mtim, &attr->mtime_ns))
		return false;
	if ((to_set & FUSE_SET_ATTR_CTIME) != 0 && !to_ns(&st->st_ctim, &attr->ctime_ns))
		return false;
	if ((to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0)
		*set |= EMDB_SET_ATIME;
	if ((to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0)
		*set |= EMDB_SET_MTIME;
	if ((to_set & FUSE_SET_ATTR_CTIME) != 0)
		*set |= EMDB_SET_CTIME;
	return true;
}

/*
 * A change of owner takes the set-uid and set-gid bits away from everybody's
 * files, root's too; a truncation those of other users' when the kernel says so.
 */
static unsigned int take_kill(fuse_req_t req, int to_set)
{
	const bool owner = (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0;
	const bool asked = (to_set & (FUSE_SET_ATTR_KILL_SUID | FUSE_SET_ATTR_KILL_SGID)) != 0;
	const bool size = (to_set & FUSE_SET_ATTR_SIZE) != 0 && fs_kills_suid(req);

	if ((to_set & FUSE_SET_ATTR_MODE) != 0)
		return 0;
	return owner || asked || size ? EMDB_SET_KILL_SUID : 0;
}

static bool take(fuse_req_t req, const struct stat *st, int to_set, struct emdb_attr *attr,
		 unsigned int *set)
{
	*set = take_kill(req, to_set);
	if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
		attr->mode = st->st_mode;
		*set |= EMDB_SET_MODE;
	}
	if ((to_set & FUSE_SET_ATTR_UID) != 0) {
		attr->uid = st->st_uid;
		*set |= EMDB_SET_UID;
	}
	if ((to_set & FUSE_SET_ATTR_GID) != 0) {
		attr->gid = st->st_gid;
		*set |= EMDB_SET_GID;
	}
	if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
		if (st->st_size < 0)
			return false;
		attr->size = (uint64_t)st->st_size;
		*set |= EMDB_SET_SIZE;
	}
	return take_times(st, to_set, attr, set);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
		struct fuse_file_info *fi)
{
	const int content = FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
	struct fs *fs = fs_of(req);
	struct emdb_attr attr = { 0 };
	unsigned int set;
	bool capable;
	emdb_err err;

	(void)fi;
	if (!take(req, st, to_set, &attr, &set)) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	if ((set & EMDB_SET_MODE) != 0) {
		err = access_chmod(fs, ino, attr.mode);
		if (err == EMDB_OK)
			set &= ~EMDB_SET_MODE;
		else if (err != EMDB_ERR_NO_XATTR) {
			fs_reply_err(req, err);
			return;
		}
	}
	capable = (to_set & content) != 0 && fs_has_capability(fs, ino);
	err = emdb_node_setattr(fs->db, ino, &attr, set, &attr);
	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	if (capable)
		fs_kill_capability(fs, ino);
	fs_reply_attr(req, &attr);
}

/* ---- The whole ---- */

/* Roughly what one more small file takes on disk, for the number of free ones. */
#define STATFS_FILE_BYTES 256u

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const uint64_t block = 4096;
	struct emdb_space space;
	struct statvfs v;
	emdb_err err;

	(void)ino;
	err = emdb_space_get(fs_of(req)->db, &space);
	if (err != EMDB_OK) {
		fs_reply_err(req, err);
		return;
	}
	memset(&v, 0, sizeof(v));
	v.f_bsize = block;
	v.f_frsize = block;
	v.f_blocks = space.total_bytes / block;
	v.f_bfree = space.free_bytes / block;
	v.f_bavail = space.avail_bytes / block;
	v.f_ffree = space.avail_bytes / STATFS_FILE_BYTES;
	v.f_favail = v.f_ffree;
	v.f_files = space.entries + v.f_ffree;
	v.f_namemax = NAMES_MAX;
	(void)fuse_reply_statfs(req, &v);
}
