/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/log.h"
#include "fuse/ops.h"
#include "fuse/session.h"
#include "fuse/snapops.h"
#include "fuse/snapset.h"

/* What the kernel is told a good transfer size is: stdio buffers have this size. */
#define FS_BLKSIZE    65536
#define FS_CAPABILITY "security.capability"

/* ---- Lifecycle ---- */

void fs_init(struct fs *fs, const struct options *opt)
{
	memset(fs, 0, sizeof(*fs));
	fs->opt = *opt;
	fs->selinux = access("/sys/fs/selinux/enforce", F_OK) == 0;
	fs->root = fs;
	(void)pthread_mutex_init(&fs->jobs_lock, NULL);
	(void)pthread_cond_init(&fs->jobs_idle, NULL);
}

void fs_release(struct fs *fs)
{
	(void)pthread_mutex_destroy(&fs->jobs_lock);
	(void)pthread_cond_destroy(&fs->jobs_idle);
}

void fs_job_begin(struct fs *fs)
{
	fs = fs->root;
	(void)pthread_mutex_lock(&fs->jobs_lock);
	fs->jobs++;
	(void)pthread_mutex_unlock(&fs->jobs_lock);
}

void fs_job_end(struct fs *fs)
{
	fs = fs->root;
	(void)pthread_mutex_lock(&fs->jobs_lock);
	if (--fs->jobs == 0)
		(void)pthread_cond_broadcast(&fs->jobs_idle);
	(void)pthread_mutex_unlock(&fs->jobs_lock);
}

void fs_job_wait(struct fs *fs)
{
	fs = fs->root;
	(void)pthread_mutex_lock(&fs->jobs_lock);
	while (fs->jobs != 0)
		(void)pthread_cond_wait(&fs->jobs_idle, &fs->jobs_lock);
	(void)pthread_mutex_unlock(&fs->jobs_lock);
}

void fs_on_expire(void *ctx, uint64_t parent, const void *key, size_t key_len, uint64_t id)
{
	struct fs *fs = ctx;
	struct notify *n = atomic_load_explicit(&fs->notify, memory_order_acquire);
	char name[NAMES_MAX + 1];

	if (n == NULL)
		return;
	(void)names_from_key(key, key_len, fs_reserved(fs, parent), name);
	notify_deleted(n, parent, id, name);
}

void fs_status(struct fs *fs, char *buf, size_t n)
{
	struct emdb_stats s;
	char counts[700];

	counters_format(&fs->counters, counts, sizeof(counts));
	if (emdb_stats_get(fs->db, &s) != EMDB_OK)
		memset(&s, 0, sizeof(s));
	(void)snprintf(buf, n,
		       "files %" PRIu64 ", directories %" PRIu64 ", journal %" PRIu64
		       " KiB (%" PRIu64 " live), syncs %" PRIu64 ", expired %" PRIu64
		       "%s%s%s%s, snapshots open %u; requests %" PRIu64 ": %s",
		       s.records, s.namespaces + 1, s.journal_bytes / 1024, s.live_bytes / 1024,
		       s.syncs, s.expired, s.read_only ? ", read-only" : "",
		       s.failed ? ", FAILED" : "", s.damaged ? ", DAMAGED" : "",
		       atomic_load_explicit(&fs->over_uring, memory_order_relaxed)
			       ? ", over io_uring"
			       : "",
		       snapset_open_count(fs->snaps), counters_total(&fs->counters), counts);
}

/* ---- Answers ---- */

int64_t fs_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double fs_timeout(struct fs *fs, const struct emdb_attr *attr)
{
	double left;

	/* The clock of a snapshot stands still. */
	if (attr->expires_ms <= 0 || fs->snap_btime_ns != 0)
		return FS_TIMEOUT_S;
	left = (double)(attr->expires_ms - emdb_now_ms(fs->db)) / 1000.0;
	if (left < 0)
		return 0;
	return left < FS_TIMEOUT_S ? left : FS_TIMEOUT_S;
}

struct timespec fs_timespec(int64_t ns)
{
	struct timespec t = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	if (t.tv_nsec < 0) {
		t.tv_nsec += 1000000000;
		t.tv_sec--;
	}
	return t;
}

uint64_t fs_ino(const struct fs *fs, uint64_t id)
{
	return fs->node_base == 0 ? id : snap_ino(fs->snap_number, id);
}

uint64_t fs_node(const struct fs *fs, uint64_t id)
{
	if (fs->node_base == 0)
		return id;
	return id <= SNAP_ID_MAX ? fs->node_base | id : 0;
}

void fs_stat(const struct fs *fs, const struct emdb_attr *attr, struct stat *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->st_ino = fs_ino(fs, attr->id);
	ret->st_mode = attr->mode;
	ret->st_nlink = attr->nlink;
	ret->st_uid = attr->uid;
	ret->st_gid = attr->gid;
	ret->st_rdev = attr->rdev;
	ret->st_size = (off_t)attr->size;
	ret->st_blocks = (blkcnt_t)attr->blocks;
	ret->st_blksize = FS_BLKSIZE;
	ret->st_atim = fs_timespec(attr->atime_ns);
	ret->st_mtim = fs_timespec(attr->mtime_ns);
	ret->st_ctim = fs_timespec(attr->ctime_ns);
}

void fs_entry(struct fs *fs, const struct emdb_attr *attr, struct fuse_entry_param *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->ino = fs_node(fs, attr->id);
	ret->generation = FS_GENERATION + fs->snap_number;
	fs_stat(fs, attr, &ret->attr);
	ret->attr_timeout = fs_timeout(fs, attr);
	ret->entry_timeout = ret->attr_timeout;
}

void fs_reply_err(fuse_req_t req, emdb_err err)
{
	(void)fuse_reply_err(req, emdb_err_errno(err));
}

void fs_reply_entry(fuse_req_t req, const struct emdb_attr *attr)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e;

	fs_entry(fs, attr, &e);
	if (e.ino == 0) {
		emdb_node_forget(fs->db, attr->id, 1);
		(void)fuse_reply_err(req, EOVERFLOW);
		return;
	}
	fs_ref(fs);
	if (fuse_reply_entry(req, &e) != 0)
		fs_forget(fs, attr->id, 1);
}

void fs_reply_attr(fuse_req_t req, const struct emdb_attr *attr)
{
	struct fs *fs = fs_of(req);
	struct stat st;

	fs_stat(fs, attr, &st);
	(void)fuse_reply_attr(req, &st, fs_timeout(fs, attr));
}

/* ---- Privileges ---- */

bool fs_kills_suid(fuse_req_t req)
{
	return fuse_req_ctx(req)->uid != 0;
}

bool fs_has_capability(struct fs *fs, uint64_t id)
{
	size_t len;

	return !fs->opt.noxattr &&
	       emdb_xattr_get(fs->db, id, FS_CAPABILITY, NULL, 0, &len) == EMDB_OK;
}

void fs_kill_capability(struct fs *fs, uint64_t id)
{
	if (emdb_xattr_remove(fs->db, id, FS_CAPABILITY) != EMDB_OK)
		log_warn("object %" PRIu64 " keeps its file capabilities", id);
}

void fs_kill_privileges(fuse_req_t req, uint64_t id)
{
	struct fs *fs = fs_of(req);
	struct emdb_attr attr;

	if (fs_has_capability(fs, id))
		fs_kill_capability(fs, id);
	if (!fs_kills_suid(req) || emdb_node_getattr(fs->db, id, &attr) != EMDB_OK ||
	    (attr.mode & (S_ISUID | S_ISGID)) == 0)
		return;
	if (emdb_node_setattr(fs->db, id, &attr, EMDB_SET_KILL_SUID, &attr) != EMDB_OK)
		log_warn("object %" PRIu64 " keeps its set-uid bits", id);
}

/* ---- Names ---- */

struct search {
	const char *name;
	size_t len;
	const char *reserved; /* in the directory */
	const struct name_key *wanted;
	struct fs_key *key;
	bool no_memory;
};

/* Stops (false) at the key that the shortened name stands for. */
static bool search_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
			 uint64_t next_pos)
{
	struct search *s = ctx;

	(void)attr;
	(void)next_pos;
	if (key_len < NAMES_HASHED_KEY_MIN || key_len < s->wanted->len ||
	    memcmp(key, s->wanted->bytes, s->wanted->len) != 0 ||
	    !names_is(s->name, s->len, key, key_len, s->reserved))
		return true;
	s->key->owned = malloc(key_len);
	if (s->key->owned == NULL) {
		s->no_memory = true;
		return false;
	}
	memcpy(s->key->owned, key, key_len);
	s->key->bytes = s->key->owned;
	s->key->len = key_len;
	return false;
}

static int search_hashed(struct fs *fs, uint64_t parent, const char *name, struct fs_key *key)
{
	struct search s = { name, strlen(name), fs_reserved(fs, parent), &key->name, key, false };
	const emdb_err err = emdb_node_readdir(fs->db, parent, 0, 0, search_entry, &s);

	if (key->owned != NULL)
		return 0;
	if (s.no_memory)
		return ENOMEM;
	return err == EMDB_OK ? ENOENT : emdb_err_errno(err);
}

/* unknown: the key of a shortened name is not there. */
static int key_init(struct fs *fs, uint64_t parent, const char *name, struct fs_key *ret,
		    int unknown)
{
	int err;

	ret->owned = NULL;
	switch (names_to_key(name, strlen(name), fs_reserved(fs, parent), &ret->name)) {
	case NAME_KEY:
		ret->bytes = ret->name.bytes;
		ret->len = ret->name.len;
		return 0;
	case NAME_HASHED:
		err = search_hashed(fs, parent, name, ret);
		return err == ENOENT ? unknown : err;
	case NAME_RESERVED:
		return EPERM;
	case NAME_TOO_LONG:
		return ENAMETOOLONG;
	case NAME_INVALID:
		break;
	}
	return EINVAL;
}

int fs_key_init(struct fs *fs, uint64_t parent, const char *name, struct fs_key *ret)
{
	return key_init(fs, parent, name, ret, ENOENT);
}

int fs_key_init_new(struct fs *fs, uint64_t parent, const char *name, struct fs_key *ret)
{
	return key_init(fs, parent, name, ret, EINVAL);
}

void fs_key_release(struct fs_key *key)
{
	free(key->owned);
	key->owned = NULL;
}

/* ---- The table ---- */

/* For each handler, one that counts it; the request is gone when the handler returns. */
#define TIMED(name, params, call)                                 \
	static void timed_##name params                           \
	{                                                         \
		struct fs *fs = fuse_req_userdata(req);           \
		const uint64_t start = counters_now();            \
		call;                                             \
		counters_add(&fs->counters, COUNT_##name, start); \
	}
/* Wherever it is; and at a node, in a directory, of two nodes, which may be a snapshot's: snapops.c. */
#define ALL(name, params, args) TIMED(name, params, op_##name args)
#define OF(name, params, args, ino) \
	TIMED(name, params, fs_in_snapdir(ino) ? snap_##name args : op_##name args)
#define AT(name, params, args) OF(name, params, args, ino)
#define IN(name, params, args) OF(name, params, args, parent)

/* clang-format off */
IN(lookup, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))
AT(getattr, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
#if COMPAT_STATX
AT(statx, (fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi),
   (req, ino, flags, mask, fi))
#endif
AT(setattr, (fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
	     struct fuse_file_info *fi), (req, ino, attr, to_set, fi))
AT(access, (fuse_req_t req, fuse_ino_t ino, int mask), (req, ino, mask))
ALL(statfs, (fuse_req_t req, fuse_ino_t ino), (req, ino))
IN(create, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	    struct fuse_file_info *fi), (req, parent, name, mode, fi))
#if COMPAT_TMPFILE
IN(tmpfile, (fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi),
   (req, parent, mode, fi))
#endif
IN(mknod, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev),
   (req, parent, name, mode, rdev))
IN(mkdir, (fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode),
   (req, parent, name, mode))
IN(unlink, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))
IN(rmdir, (fuse_req_t req, fuse_ino_t parent, const char *name), (req, parent, name))
OF(rename, (fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	    const char *newname, unsigned int flags),
   (req, parent, name, newparent, newname, flags), parent | newparent)
OF(link, (fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name),
   (req, ino, parent, name), ino | parent)
IN(symlink, (fuse_req_t req, const char *target, fuse_ino_t parent, const char *name),
   (req, target, parent, name))
AT(readlink, (fuse_req_t req, fuse_ino_t ino), (req, ino))
ALL(opendir, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
AT(readdir, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi),
   (req, ino, size, off, fi))
AT(readdirplus, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		 struct fuse_file_info *fi), (req, ino, size, off, fi))
ALL(open, (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi), (req, ino, fi))
AT(read, (fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi),
   (req, ino, size, off, fi))
AT(write, (fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	   struct fuse_file_info *fi), (req, ino, buf, size, off, fi))
AT(fallocate, (fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
	       struct fuse_file_info *fi), (req, ino, mode, off, len, fi))
AT(lseek, (fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi),
   (req, ino, off, whence, fi))
OF(copy_file_range, (fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in,
		     fuse_ino_t out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
		     int flags), (req, in, off_in, fi_in, out, off_out, fi_out, len, flags),
   in | out)
AT(getxattr, (fuse_req_t req, fuse_ino_t ino, const char *name, size_t size),
   (req, ino, name, size))
AT(setxattr, (fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
	      int flags), (req, ino, name, value, size, flags))
AT(listxattr, (fuse_req_t req, fuse_ino_t ino, size_t size), (req, ino, size))
AT(removexattr, (fuse_req_t req, fuse_ino_t ino, const char *name), (req, ino, name))
/* clang-format on */

/*
 * Left out on purpose, each spares requests or keeps the kernel in charge:
 * flush, release, releasedir, write_buf, flock, getlk, setlk.
 */
void fs_ops(const struct fs *fs, struct fuse_lowlevel_ops *ret)
{
	*ret = (struct fuse_lowlevel_ops){
		.init = session_init_conn,
		.lookup = timed_lookup,
		.forget = op_forget, /* counts itself, without the pause after it */
		.forget_multi = op_forget_multi,
		.getattr = timed_getattr,
		.setattr = timed_setattr,
		.access = timed_access,
		.statfs = timed_statfs,
		.create = timed_create,
		.mknod = timed_mknod,
		.mkdir = timed_mkdir,
		.unlink = timed_unlink,
		.rmdir = timed_rmdir,
		.rename = timed_rename,
		.link = timed_link,
		.symlink = timed_symlink,
		.readlink = timed_readlink,
		.opendir = timed_opendir,
		.readdir = timed_readdir,
		.readdirplus = timed_readdirplus,
		.open = timed_open,
		.read = timed_read,
		.write = timed_write,
		.fsync = op_fsync,       /* counts itself when it is answered */
		.fsyncdir = op_fsyncdir, /* the same */
		.fallocate = timed_fallocate,
		.lseek = timed_lseek,
		.copy_file_range = timed_copy_file_range,
	};
#if COMPAT_TMPFILE
	ret->tmpfile = timed_tmpfile;
#endif
#if COMPAT_STATX
	ret->statx = timed_statx;
#endif
	if (fs->opt.noxattr)
		return;
	ret->getxattr = timed_getxattr;
	ret->setxattr = timed_setxattr;
	ret->listxattr = timed_listxattr;
	ret->removexattr = timed_removexattr;
}
