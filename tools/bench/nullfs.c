/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nullfs: the floor of any FUSE file system, for comparison.
 *
 *	nullfs MOUNTPOINT [-o opt,...] [-a | -s FILE]
 *
 * Files live in plain memory and are gone in the end.  It shares the daemon's
 * connection to the kernel (fuse/session.c: flags, transport, threads), asks
 * for the same requests, and does next to nothing for each: what the daemon
 * takes longer is its own doing.  Only what benchmarks need is there: no hard
 * links, no extended attributes but being asked for them, no device files, nobody else's files.
 *
 * With -a another thread answers fsync(2), as the daemon's flusher does, to put
 * libfuse under that stress without a disk.  With -s that thread first writes
 * a block of FILE over and has the disk flushed, once for all who wait: nothing
 * that is durable can take less.  The block is always the same, so the
 * file system below has only data to write, and no metadata.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "core/emdb.h"
#include "fuse/fs.h"
#include "fuse/log.h"
#include "fuse/options.h"
#include "fuse/session.h"
#include "fuse/uring.h"

#include "nullfs_sync.h"

#define ROOT      1u
#define DATA_MIN  256u
#define HASH_BITS 20

struct node {
	struct stat st;
	uint64_t parent;
	char *name;        /* NULL: unlinked */
	struct node *next; /* of the same hash */
	_Atomic uint64_t nlookup;
	char *data;
	size_t data_cap;
	/* of a directory: children in order of creation, NULL where one went */
	struct node **kids;
	size_t kids_used, kids_cap, kids_live;
	size_t slot; /* in its parent's kids */
};

/* One lock for all: readers share it, and nothing waits under it. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct node **nodes; /* by number; all of these are guarded by lock */
static uint64_t node_count, node_cap;
static struct node *hashes[1u << HASH_BITS];

/* ---- Nodes ---- */

static struct node **bucket(uint64_t parent, const char *name)
{
	uint64_t h = parent * 0x9e3779b97f4a7c15u;

	for (; *name != '\0'; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3u;
	return &hashes[(h ^ (h >> 32)) >> 7 & ((1u << HASH_BITS) - 1)];
}

static struct node *find(uint64_t parent, const char *name)
{
	struct node *n = *bucket(parent, name);

	while (n != NULL && (n->parent != parent || strcmp(n->name, name) != 0))
		n = n->next;
	return n;
}

static struct node *node_of(fuse_ino_t ino)
{
	return ino > 0 && ino <= node_count ? nodes[ino] : NULL;
}

static bool add_kid(struct node *dir, struct node *n)
{
	if (dir->kids_used == dir->kids_cap) {
		const size_t cap = dir->kids_cap == 0 ? 16 : dir->kids_cap * 2;
		struct node **kids = realloc(dir->kids, cap * sizeof(kids[0]));

		if (kids == NULL)
			return false;
		dir->kids = kids;
		dir->kids_cap = cap;
	}
	n->slot = dir->kids_used;
	dir->kids[dir->kids_used++] = n;
	dir->kids_live++;
	return true;
}

/* Gives the node a name; false: out of memory. */
static bool attach(struct node *n, uint64_t parent, const char *name)
{
	struct node **b = bucket(parent, name);
	char *copy = strdup(name);

	if (copy == NULL || !add_kid(nodes[parent], n)) {
		free(copy);
		return false;
	}
	n->name = copy;
	n->parent = parent;
	n->next = *b;
	*b = n;
	return true;
}

static void detach(struct node *n)
{
	struct node *dir = nodes[n->parent];
	struct node **p = bucket(n->parent, n->name);

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	dir->kids[n->slot] = NULL;
	if (--dir->kids_live == 0)
		dir->kids_used = 0;
	free(n->name);
	n->name = NULL;
}

static void free_unused(struct node *n)
{
	if (n->name != NULL || n->st.st_ino == ROOT || atomic_load(&n->nlookup) != 0)
		return;
	nodes[n->st.st_ino] = NULL;
	free(n->data);
	free(n->kids);
	free(n);
}

static struct node *make(mode_t mode, uid_t uid, gid_t gid)
{
	struct node *n = calloc(1, sizeof(*n));

	if (n == NULL)
		return NULL;
	if (node_count + 1 >= node_cap) {
		const uint64_t cap = node_cap == 0 ? 1024 : node_cap * 2;
		struct node **p = realloc(nodes, cap * sizeof(p[0]));

		if (p == NULL) {
			free(n);
			return NULL;
		}
		nodes = p;
		node_cap = cap;
	}
	n->st.st_ino = ++node_count;
	n->st.st_mode = mode;
	n->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
	n->st.st_uid = uid;
	n->st.st_gid = gid;
	n->st.st_blksize = 65536;
	(void)clock_gettime(CLOCK_REALTIME, &n->st.st_mtim);
	n->st.st_atim = n->st.st_ctim = n->st.st_mtim;
	nodes[n->st.st_ino] = n;
	return n;
}

/* ---- Names ---- */

/* Takes a reference for the kernel. */
static void entry_of(struct node *n, struct fuse_entry_param *ret)
{
	(void)atomic_fetch_add(&n->nlookup, 1);
	*ret = (struct fuse_entry_param){
		.ino = n->st.st_ino,
		.generation = FS_GENERATION,
		.attr = n->st,
		.attr_timeout = FS_TIMEOUT_S,
		.entry_timeout = FS_TIMEOUT_S,
	};
}

static void forget(fuse_ino_t ino, uint64_t count)
{
	struct node *n;

	(void)pthread_rwlock_wrlock(&lock);
	n = node_of(ino);
	if (n != NULL) {
		(void)atomic_fetch_sub(&n->nlookup, count);
		free_unused(n);
	}
	(void)pthread_rwlock_unlock(&lock);
}

static void null_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	struct fs *fs = fs_of(req);

	forget(ino, count);
	fuse_reply_none(req);
	fs_forgot(fs);
}

static void null_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fs *fs = fs_of(req);

	for (size_t i = 0; i < count; i++)
		forget(forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
	fs_forgot(fs);
}

static void reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	if (fuse_reply_entry(req, e) != 0 && e->ino != 0)
		forget(e->ino, 1);
}

/* As the daemon, which is asked for a file of its own while it starts: see session_probe(). */
static bool lookup_probe(fuse_req_t req, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e = { .ino = FS_PROBE_ID, .generation = FS_GENERATION };

	if (!atomic_load(&fs->probing) || strcmp(name, FS_PROBE_NAME) != 0)
		return false;
	e.attr.st_ino = FS_PROBE_ID;
	e.attr.st_mode = S_IFREG | 0444;
	e.attr.st_nlink = 1;
	atomic_store(&fs->over_uring, uring_is_request(req));
	(void)fuse_reply_entry(req, &e);
	return true;
}

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .entry_timeout = FS_TIMEOUT_S };
	struct node *n;

	if (lookup_probe(req, name))
		return;
	(void)pthread_rwlock_rdlock(&lock);
	n = find(parent, name);
	if (n != NULL)
		entry_of(n, &e);
	(void)pthread_rwlock_unlock(&lock);
	reply_entry(req, &e);
}

/* An errno. */
static int create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		  const char *target, struct fuse_entry_param *ret)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int err = ENOMEM;
	struct node *n;

	(void)pthread_rwlock_wrlock(&lock);
	if (node_of(parent) == NULL) {
		err = ENOENT;
	} else if (find(parent, name) != NULL) {
		err = EEXIST;
	} else if ((n = make(S_ISLNK(mode) ? mode : mode & ~ctx->umask, ctx->uid, ctx->gid)) !=
		   NULL) {
		if (target != NULL && (n->data = strdup(target)) != NULL)
			n->data_cap = (size_t)(n->st.st_size = (off_t)strlen(target)) + 1;
		if ((target == NULL || n->data != NULL) && attach(n, parent, name)) {
			entry_of(n, ret);
			err = 0;
		} else {
			free_unused(n);
		}
	}
	(void)pthread_rwlock_unlock(&lock);
	return err;
}

static void make_node(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      const char *target)
{
	struct fuse_entry_param e;
	const int err = create(req, parent, name, mode, target, &e);

	if (err == 0)
		reply_entry(req, &e);
	else
		(void)fuse_reply_err(req, err);
}

static void null_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_node(req, parent, name, S_IFDIR | (mode & 07777), NULL);
}

static void null_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make_node(req, parent, name, S_IFLNK | 0777, target);
}

static void null_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e;
	const int err = create(req, parent, name, S_IFREG | (mode & 07777), NULL, &e);

	if (err != 0) {
		(void)fuse_reply_err(req, err);
		return;
	}
	fi->fh = 0;
	fi->keep_cache = 1;
	fi->noflush = 1;
	fi->direct_io = fs->direct_create && (fi->flags & O_ACCMODE) == O_WRONLY;
	if (fuse_reply_create(req, &e, fi) != 0)
		forget(e.ino, 1);
}

static int remove_name(fuse_ino_t parent, const char *name, bool dir)
{
	struct node *n;
	int err = 0;

	(void)pthread_rwlock_wrlock(&lock);
	n = find(parent, name);
	if (n == NULL)
		err = ENOENT;
	else if (dir && !S_ISDIR(n->st.st_mode))
		err = ENOTDIR;
	else if (!dir && S_ISDIR(n->st.st_mode))
		err = EISDIR;
	else if (n->kids_live != 0)
		err = ENOTEMPTY;
	if (err == 0) {
		detach(n);
		n->st.st_nlink = 0;
		free_unused(n);
	}
	(void)pthread_rwlock_unlock(&lock);
	return err;
}

static void null_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)fuse_reply_err(req, remove_name(parent, name, false));
}

static void null_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)fuse_reply_err(req, remove_name(parent, name, true));
}

/* What is replaced goes; an errno. */
static int move(uint64_t parent, const char *name, uint64_t to_parent, const char *to_name)
{
	struct node *n = find(parent, name), *old = find(to_parent, to_name);

	if (n == NULL || node_of(to_parent) == NULL)
		return ENOENT;
	if (old == n)
		return 0;
	if (old != NULL && old->kids_live != 0)
		return ENOTEMPTY;
	if (old != NULL) {
		detach(old);
		old->st.st_nlink = 0;
		free_unused(old);
	}
	detach(n);
	return attach(n, to_parent, to_name) ? 0 : ENOMEM;
}

static void null_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
			const char *newname, unsigned int flags)
{
	int err = EINVAL;

	(void)pthread_rwlock_wrlock(&lock);
	if (flags == 0)
		err = move(parent, name, newparent, newname);
	(void)pthread_rwlock_unlock(&lock);
	(void)fuse_reply_err(req, err);
}

static void null_readlink(fuse_req_t req, fuse_ino_t ino)
{
	const struct node *n;

	(void)pthread_rwlock_rdlock(&lock);
	n = node_of(ino);
	if (n != NULL && S_ISLNK(n->st.st_mode))
		(void)fuse_reply_readlink(req, n->data);
	else
		(void)fuse_reply_err(req, EINVAL);
	(void)pthread_rwlock_unlock(&lock);
}

/* ---- Listing ---- */

static void not_needed(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	(void)fuse_reply_err(req, ENOSYS);
}

/* Positions are places among the children, plus one. */
static size_t list_kids(fuse_req_t req, const struct node *dir, bool plus, off_t off, char *buf,
			size_t size)
{
	size_t used = 0, n;

	for (size_t i = (size_t)off; i < dir->kids_used; i++) {
		struct node *kid = dir->kids[i];
		struct fuse_entry_param e;

		if (kid == NULL)
			continue;
		entry_of(kid, &e);
		n = plus ? fuse_add_direntry_plus(req, buf + used, size - used, kid->name, &e,
						  (off_t)i + 1)
			 : fuse_add_direntry(req, buf + used, size - used, kid->name, &e.attr,
					     (off_t)i + 1);
		if (!plus || n > size - used)
			(void)atomic_fetch_sub(&kid->nlookup, 1);
		if (n > size - used)
			break;
		used += n;
	}
	return used;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	char *buf = malloc(size);
	const struct node *dir;
	size_t used = 0;

	if (buf == NULL) {
		(void)fuse_reply_err(req, ENOMEM);
		return;
	}
	(void)pthread_rwlock_rdlock(&lock);
	dir = node_of(ino);
	if (dir != NULL)
		used = list_kids(req, dir, plus, off, buf, size);
	(void)pthread_rwlock_unlock(&lock);
	(void)fuse_reply_buf(req, buf, used);
	free(buf);
}

static void null_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			 struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

static void null_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			     struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

/* ---- Content ---- */

static bool resize(struct node *n, size_t size)
{
	if (size > n->data_cap) {
		size_t cap = n->data_cap < DATA_MIN ? DATA_MIN : n->data_cap;
		char *data;

		while (cap < size)
			cap *= 2;
		data = realloc(n->data, cap);
		if (data == NULL)
			return false;
		n->data = data;
		n->data_cap = cap;
	}
	if (size > (size_t)n->st.st_size)
		memset(n->data + n->st.st_size, 0, size - (size_t)n->st.st_size);
	n->st.st_size = (off_t)size;
	n->st.st_blocks = (blkcnt_t)((size + 511) / 512);
	return true;
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	const struct node *n;
	char *payload;
	size_t room;

	(void)fi;
	(void)pthread_rwlock_rdlock(&lock);
	n = node_of(ino);
	if (n == NULL || off >= n->st.st_size)
		size = 0;
	else if (size > (size_t)(n->st.st_size - off))
		size = (size_t)(n->st.st_size - off);
	payload = uring_payload(req, &room);
	if (payload == NULL || size == 0) {
		(void)fuse_reply_buf(req, size == 0 ? NULL : n->data + off, size);
	} else {
		memcpy(payload, n->data + off, size);
		(void)fuse_reply_buf(req, payload, size);
	}
	(void)pthread_rwlock_unlock(&lock);
}

static void null_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	struct node *n;
	bool ok = false;

	(void)fi;
	(void)pthread_rwlock_wrlock(&lock);
	n = node_of(ino);
	if (n != NULL && (off + (off_t)size <= n->st.st_size || resize(n, (size_t)off + size))) {
		memcpy(n->data + off, buf, size);
		(void)clock_gettime(CLOCK_REALTIME, &n->st.st_mtim);
		n->st.st_ctim = n->st.st_mtim;
		ok = true;
	}
	(void)pthread_rwlock_unlock(&lock);
	if (ok)
		(void)fuse_reply_write(req, size);
	else
		(void)fuse_reply_err(req, ENOSPC);
}

/* An errno. */
static int copy(fuse_ino_t in, off_t off_in, fuse_ino_t out, off_t off_out, size_t *len)
{
	const struct node *from = node_of(in);
	struct node *to = node_of(out);

	if (from == NULL || to == NULL || in == out)
		return EINVAL;
	if (off_in >= from->st.st_size)
		*len = 0;
	else if (*len > (size_t)(from->st.st_size - off_in))
		*len = (size_t)(from->st.st_size - off_in);
	if (*len == 0)
		return 0;
	if (off_out + (off_t)*len > to->st.st_size && !resize(to, (size_t)off_out + *len))
		return ENOSPC;
	memcpy(to->data + off_out, from->data + off_in, *len);
	(void)clock_gettime(CLOCK_REALTIME, &to->st.st_mtim);
	to->st.st_ctim = to->st.st_mtim;
	return 0;
}

static void null_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in,
				 struct fuse_file_info *fi_in, fuse_ino_t out, off_t off_out,
				 struct fuse_file_info *fi_out, size_t len, int flags)
{
	int err;

	(void)fi_in;
	(void)fi_out;
	(void)flags;
	(void)pthread_rwlock_wrlock(&lock);
	err = copy(in, off_in, out, off_out, &len);
	(void)pthread_rwlock_unlock(&lock);
	if (err == 0)
		(void)fuse_reply_write(req, len);
	else
		(void)fuse_reply_err(req, err);
}

/* ---- Attributes ---- */

static void reply_attr(fuse_req_t req, fuse_ino_t ino)
{
	struct stat st;
	const struct node *n;

	(void)pthread_rwlock_rdlock(&lock);
	n = node_of(ino);
	if (n != NULL)
		st = n->st;
	(void)pthread_rwlock_unlock(&lock);
	if (n != NULL)
		(void)fuse_reply_attr(req, &st, FS_TIMEOUT_S);
	else
		(void)fuse_reply_err(req, ENOENT);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	reply_attr(req, ino);
}

static void set_times(struct node *n, const struct stat *attr, int to_set)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if ((to_set & FUSE_SET_ATTR_ATIME) != 0)
		n->st.st_atim = (to_set & FUSE_SET_ATTR_ATIME_NOW) != 0 ? now : attr->st_atim;
	if ((to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_SIZE)) != 0)
		n->st.st_mtim = (to_set & FUSE_SET_ATTR_MTIME) != 0 &&
						(to_set & FUSE_SET_ATTR_MTIME_NOW) == 0
					? attr->st_mtim
					: now;
	n->st.st_ctim = now;
}

static void null_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
			 struct fuse_file_info *fi)
{
	struct node *n;

	(void)fi;
	(void)pthread_rwlock_wrlock(&lock);
	n = node_of(ino);
	if (n != NULL) {
		if ((to_set & FUSE_SET_ATTR_MODE) != 0)
			n->st.st_mode = attr->st_mode;
		if ((to_set & FUSE_SET_ATTR_UID) != 0)
			n->st.st_uid = attr->st_uid;
		if ((to_set & FUSE_SET_ATTR_GID) != 0)
			n->st.st_gid = attr->st_gid;
		if ((to_set & FUSE_SET_ATTR_SIZE) != 0)
			(void)resize(n, (size_t)attr->st_size);
		set_times(n, attr, to_set);
	}
	(void)pthread_rwlock_unlock(&lock);
	reply_attr(req, ino);
}

static void null_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct statvfs v = { .f_bsize = 4096,
				   .f_frsize = 4096,
				   .f_blocks = 1u << 24,
				   .f_bfree = 1u << 23,
				   .f_bavail = 1u << 23,
				   .f_namemax = 255 };

	(void)ino;
	(void)fuse_reply_statfs(req, &v);
}

/* Asked for before writes, and by "ls -l", as often as the daemon is. */
static void null_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	(void)ino;
	(void)size;
	(void)fuse_reply_err(req, strcmp(name, FS_LABEL) == 0 ? EOPNOTSUPP : ENODATA);
}

static void null_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	(void)ino;
	if (size == 0)
		(void)fuse_reply_xattr(req, 0);
	else
		(void)fuse_reply_buf(req, NULL, 0);
}

/* An access list that is no more than a mode, as "cp -a" sets it for each file. */
static void null_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			  size_t size, int flags)
{
	const bool plain = strcmp(name, "system.posix_acl_access") == 0 && size == 28;
	struct node *n;

	(void)flags;
	(void)pthread_rwlock_wrlock(&lock);
	n = node_of(ino);
	if (n != NULL && plain)
		n->st.st_mode = (n->st.st_mode & ~0777u) | (value[6] & 7u) << 6 |
				(value[14] & 7u) << 3 | (value[22] & 7u);
	(void)pthread_rwlock_unlock(&lock);
	(void)fuse_reply_err(req, plain ? 0 : EOPNOTSUPP);
}

static void null_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino;
	(void)name;
	(void)fuse_reply_err(req, ENODATA);
}

/* ---- Serving ---- */

static const struct fuse_lowlevel_ops null_ops = {
	.init = session_init_conn,
	.lookup = null_lookup,
	.forget = null_forget,
	.forget_multi = null_forget_multi,
	.getattr = null_getattr,
	.setattr = null_setattr,
	.statfs = null_statfs,
	.create = null_create,
	.mkdir = null_mkdir,
	.unlink = null_unlink,
	.rmdir = null_rmdir,
	.rename = null_rename,
	.symlink = null_symlink,
	.readlink = null_readlink,
	.opendir = not_needed,
	.readdir = null_readdir,
	.readdirplus = null_readdirplus,
	.open = not_needed,
	.read = null_read,
	.write = null_write,
	.fsync = null_fsync,
	.fsyncdir = null_fsync,
	.copy_file_range = null_copy_file_range,
	.getxattr = null_getxattr,
	.setxattr = null_setxattr,
	.listxattr = null_listxattr,
	.removexattr = null_removexattr,
};

static void *starter(void *arg)
{
	struct session *s = arg;

	if (session_probe(s))
		log_info("nullfs mounted at %s%s", s->mountpoint,
			 atomic_load(&s->fs->over_uring) ? ", over io_uring" : "");
	return NULL;
}

/* The options are the daemon's, which wants a store as well. */
int main(int argc, char **argv)
{
	static struct fs fs;
	static struct session session;
	char none[] = "(none)", *args[8] = { argv[0], none };
	struct options options;
	pthread_t thread;
	int i, code = 1;

	log_init("nullfs", EMDB_LOG_INFO);
	if (argc > 2 && strcmp(argv[argc - 1], "-a") == 0) {
		other.on = true;
		argc--;
	} else if (argc > 3 && strcmp(argv[argc - 2], "-s") == 0) {
		if (!open_disk(argv[argc - 1]))
			return 1;
		other.on = true;
		argc -= 2;
	}
	if (argc < 2 || argc > 6) {
		(void)fputs("usage: nullfs MOUNTPOINT [-o opt,...] [-a | -s FILE]\n", stderr);
		return 2;
	}
	for (i = 1; i < argc; i++)
		args[i + 1] = argv[i];
	log_take_libfuse();
	if (!options_parse(argc + 1, args, &options)) {
		log_error("%s", options.error);
		return 2;
	}
	fs.opt = options;
	if (make(S_IFDIR | 0755, getuid(), getgid()) == NULL)
		return 1;
	if (other.on && pthread_create(&other.thread, NULL, other_main, NULL) != 0)
		return 1;
	if (session_open(&session, &fs, &null_ops, "nullfs", options.mountpoint) &&
	    pthread_create(&thread, NULL, starter, &session) == 0) {
		code = session_loop(&session) ? 0 : 1;
		(void)pthread_join(thread, NULL);
	}
	session_close(&session);
	notify_free(session.notify);
	return code;
}
