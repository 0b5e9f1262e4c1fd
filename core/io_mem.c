/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mem backend: a tree of names of our own, over one memfd per file. Everything that takes an
 * open file is the kernel's work and goes to an inner posix backend; here live only names, links and
 * directories. A file's descriptor is a kernel one, opened anew through /proc/self/fd so that access
 * mode and flock are its own. A directory's descriptor is a number from DIR_FD_BASE up, an index
 * into a table.
 *
 * Reserving space is a no-op (it would take the memory at once), as is every sync.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "core/io.h"
#include "core/sync.h"

#define DIR_FD_BASE (1 << 30)
#define DIR_FD_MAX  65536

struct mem_node;

struct mem_entry {
	struct mem_entry *next;
	struct mem_node *node; /* counted in its nlink */
	char name[];
};

/* Alive while nlink or handles is not 0. A file has no handles: its descriptors keep the memfd. */
struct mem_node {
	struct mem_node *parent;    /* of a directory; NULL for the root and for removed ones */
	struct mem_entry *children; /* of a directory */
	int fd;                     /* memfd of a file, -1 for a directory */
	uint32_t nlink;
	uint32_t handles;
	uint64_t ino; /* of a file: the memfd's */
};

struct mem {
	struct emdb_io io;
	struct emdb_io *os; /* immutable */
	struct mutex lock;
	struct mem_node root;      /* guarded by lock, as is all that hangs off it */
	struct mem_node **handles; /* guarded by lock; NULL = free slot */
	size_t handle_count;       /* guarded by lock; slots */
	uint64_t next_ino;         /* guarded by lock; of directories */
};

static inline struct mem *mem_of(struct emdb_io *io)
{
	return io->ctx;
}

static inline bool is_dir(const struct mem_node *n)
{
	return n->fd < 0;
}

static inline bool is_dir_fd(int fd)
{
	return fd >= DIR_FD_BASE || fd == AT_FDCWD;
}

/* ---- Nodes ---- */

static void node_put(struct mem_node *n)
{
	if (n->nlink || n->handles)
		return;
	emdb_assert(!n->children);
	if (n->fd >= 0)
		(void)close(n->fd);
	base_free(n);
}

static struct mem_entry **entry_find(struct mem_node *dir, const char *name, size_t len)
{
	struct mem_entry **e = &dir->children;

	while (*e && (strncmp((*e)->name, name, len) != 0 || (*e)->name[len] != '\0'))
		e = &(*e)->next;
	return e;
}

static struct mem_entry *entry_new(const char *name)
{
	const size_t size = strlen(name) + 1;
	struct mem_entry *const e = base_malloc(sizeof(*e) + size);

	if (e)
		memcpy(e->name, name, size);
	return e;
}

static void entry_link(struct mem_node *dir, struct mem_entry *e, struct mem_node *node)
{
	e->node = node;
	e->next = dir->children;
	dir->children = e;
	node->nlink++;
	if (is_dir(node))
		node->parent = dir;
}

static int entry_add(struct mem_node *dir, const char *name, struct mem_node *node)
{
	struct mem_entry *const e = entry_new(name);

	if (!e)
		return -ENOMEM;
	entry_link(dir, e, node);
	return 0;
}

static void entry_del(struct mem_entry **slot)
{
	struct mem_entry *const e = *slot;

	*slot = e->next;
	e->node->nlink--;
	if (is_dir(e->node))
		e->node->parent = NULL;
	node_put(e->node);
	base_free(e);
}

/* A removed directory takes no new names. */
static inline bool dir_dead(const struct mem *m, const struct mem_node *dir)
{
	return dir != &m->root && dir->nlink == 0;
}

static int dir_of_fd(struct mem *m, int fd, struct mem_node **ret)
{
	size_t i;

	if (fd == AT_FDCWD) {
		*ret = &m->root;
		return 0;
	}
	if (fd < DIR_FD_BASE)
		return -ENOTDIR;
	i = (size_t)(fd - DIR_FD_BASE);
	if (i >= m->handle_count || !m->handles[i])
		return -EBADF;
	*ret = m->handles[i];
	return 0;
}

/*
 * Walks all but the last component. *ret_last points into path; "" means the directory itself. A
 * leading slash starts at the root, as AT_FDCWD does.
 */
static int walk(struct mem *m, int dirfd, const char *path, struct mem_node **ret_dir,
		const char **ret_last)
{
	struct mem_node *dir = &m->root;
	int err = *path == '/' ? 0 : dir_of_fd(m, dirfd, &dir);

	while (!err) {
		size_t len;
		const struct mem_entry *e;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len > IO_NAME_MAX)
			return -ENAMETOOLONG;
		if (len == 2 && path[0] == '.' && path[1] == '.') {
			if (dir_dead(m, dir))
				return -ENOENT;
			dir = dir->parent ? dir->parent : dir; /* the root is its own */
			path += 2;
			continue;
		}
		if (len == 1 && path[0] == '.') {
			path++;
			continue;
		}
		if (path[len] == '\0') {
			*ret_dir = dir;
			*ret_last = path;
			return 0;
		}
		e = *entry_find(dir, path, len);
		if (!e)
			return -ENOENT;
		if (!is_dir(e->node))
			return -ENOTDIR;
		dir = e->node;
		path += len;
	}
	return err;
}

static int lookup(struct mem *m, int dirfd, const char *path, struct mem_node **ret)
{
	struct mem_node *dir;
	const struct mem_entry *e;
	const char *last;
	const int err = walk(m, dirfd, path, &dir, &last);

	if (err)
		return err;
	if (*last == '\0') {
		*ret = dir;
		return 0;
	}
	e = *entry_find(dir, last, strlen(last));
	if (!e)
		return -ENOENT;
	*ret = e->node;
	return 0;
}

/* For the calls that change a name: the directory, the slot, never the directory itself. */
static int lookup_slot(struct mem *m, int dirfd, const char *path, struct mem_node **ret_dir,
		       const char **ret_last, struct mem_entry ***ret_slot)
{
	const int err = walk(m, dirfd, path, ret_dir, ret_last);

	if (err)
		return err;
	if (**ret_last == '\0')
		return -EBUSY;
	*ret_slot = entry_find(*ret_dir, *ret_last, strlen(*ret_last));
	return !**ret_slot && dir_dead(m, *ret_dir) ? -ENOENT : 0;
}

/* ---- Open and close ---- */

static int handle_new(struct mem *m, struct mem_node *dir, int *ret_fd)
{
	size_t i = 0;

	while (i < m->handle_count && m->handles[i])
		i++;
	if (i == m->handle_count) {
		const size_t n = max_size(16, m->handle_count * 2);
		struct mem_node **h;

		if (n > DIR_FD_MAX)
			return -EMFILE;
		h = base_realloc(m->handles, n * sizeof(struct mem_node *));
		if (!h)
			return -ENOMEM;
		memset(h + m->handle_count, 0, (n - m->handle_count) * sizeof(struct mem_node *));
		m->handles = h;
		m->handle_count = n;
	}
	m->handles[i] = dir;
	dir->handles++;
	*ret_fd = DIR_FD_BASE + (int)i;
	return 0;
}

static int node_new(struct mem *m, bool dir, struct mem_node **ret)
{
	struct mem_node *const n = base_calloc(1, sizeof(*n));
	struct io_stat st;
	int err;

	if (!n)
		return -ENOMEM;
	n->fd = -1;
	n->ino = m->next_ino++;
	if (dir) {
		*ret = n;
		return 0;
	}
	n->fd = memfd_create("emdb", MFD_CLOEXEC);
	err = n->fd < 0 ? -errno : io_fstat(m->os, n->fd, &st);
	if (err) {
		node_put(n);
		return err;
	}
	n->ino = st.ino;
	*ret = n;
	return 0;
}

static int file_create(struct mem *m, struct mem_node *dir, const char *name, struct mem_node **ret)
{
	struct mem_node *n;
	int err;

	if (dir_dead(m, dir))
		return -ENOENT;
	err = node_new(m, false, &n);
	if (err)
		return err;
	err = entry_add(dir, name, n);
	if (err)
		node_put(n);
	else
		*ret = n;
	return err;
}

/* Without /proc a duplicate has to do. */
static int file_open(struct mem *m, const struct mem_node *n, int flags, int *ret_fd)
{
	char path[32];
	int fd, err;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", n->fd);
	err = io_openat(m->os, AT_FDCWD, path, flags & ~(O_CREAT | O_EXCL | O_NOFOLLOW), 0, ret_fd);
	if (err != -ENOENT)
		return err;
	if (flags & O_TRUNC) {
		err = io_ftruncate(m->os, n->fd, 0);
		if (err)
			return err;
	}
	fd = fcntl(n->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int open_locked(struct mem *m, int dirfd, const char *name, int flags, int *ret_fd)
	EMDB_REQUIRES(m->lock);

static int open_locked(struct mem *m, int dirfd, const char *name, int flags, int *ret_fd)
{
	struct mem_node *n = NULL, *dir;
	const char *last;
	int err = lookup(m, dirfd, name, &n);

	if (err == -ENOENT && flags & O_CREAT) {
		err = walk(m, dirfd, name, &dir, &last);
		if (!err)
			err = file_create(m, dir, last, &n);
	} else if (!err && (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
		err = -EEXIST;
	}
	if (err)
		return err;
	if (!is_dir(n))
		return flags & O_DIRECTORY ? -ENOTDIR : file_open(m, n, flags, ret_fd);
	if ((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT)
		return -EISDIR;
	return handle_new(m, n, ret_fd);
}

static int mem_openat(struct emdb_io *io, int dirfd, const char *name, int flags, mode_t mode,
		      int *ret_fd)
{
	struct mem *const m = mem_of(io);
	int err;

	(void)mode;
	if (*name == '\0')
		return -ENOENT;
	mutex_lock(&m->lock);
	err = open_locked(m, dirfd, name, flags, ret_fd);
	mutex_unlock(&m->lock);
	return err;
}

static int mem_close(struct emdb_io *io, int fd)
{
	struct mem *const m = mem_of(io);
	struct mem_node *dir;
	int err;

	if (fd < DIR_FD_BASE)
		return io_close(m->os, fd);
	mutex_lock(&m->lock);
	err = dir_of_fd(m, fd, &dir);
	if (!err) {
		m->handles[fd - DIR_FD_BASE] = NULL;
		dir->handles--;
		if (dir != &m->root)
			node_put(dir);
	}
	mutex_unlock(&m->lock);
	return err;
}

/* ---- Names ---- */

static bool is_below(const struct mem_node *n, const struct mem_node *top)
{
	while (n && n != top)
		n = n->parent;
	return n == top;
}

/* Whether node may take the place of an existing target. */
static int may_replace(const struct mem_node *node, const struct mem_node *target)
{
	if (is_dir(target) && !is_dir(node))
		return -EISDIR;
	if (!is_dir(target) && is_dir(node))
		return -ENOTDIR;
	return target->children ? -ENOTEMPTY : 0;
}

static int rename_locked(struct mem *m, int olddir, const char *old, int newdir, const char *name)
	EMDB_REQUIRES(m->lock);

static int rename_locked(struct mem *m, int olddir, const char *old, int newdir, const char *name)
{
	struct mem_node *from_dir, *to_dir, *node;
	struct mem_entry **from, **to, *e;
	const char *old_last, *last;
	int err;

	err = lookup_slot(m, olddir, old, &from_dir, &old_last, &from);
	if (!err)
		err = lookup_slot(m, newdir, name, &to_dir, &last, &to);
	if (err)
		return err;
	if (!*from)
		return -ENOENT;
	node = (*from)->node;
	if (is_dir(node) && is_below(to_dir, node))
		return -EINVAL;
	if (*to && (*to)->node == node)
		return 0;
	if (*to) {
		err = may_replace(node, (*to)->node);
		if (err)
			return err;
	}
	e = entry_new(last);
	if (!e)
		return -ENOMEM;
	node->nlink++; /* between its two names */
	if (*to)
		entry_del(to);
	entry_del(entry_find(from_dir, old_last, strlen(old_last)));
	entry_link(to_dir, e, node);
	node->nlink--;
	return 0;
}

static int mem_renameat(struct emdb_io *io, int olddir, const char *old, int newdir,
			const char *name)
{
	struct mem *const m = mem_of(io);
	int err;

	mutex_lock(&m->lock);
	err = rename_locked(m, olddir, old, newdir, name);
	mutex_unlock(&m->lock);
	return err;
}

static int mem_linkat(struct emdb_io *io, int olddir, const char *old, int newdir, const char *name)
{
	struct mem *const m = mem_of(io);
	struct mem_node *node, *dir;
	struct mem_entry **slot;
	const char *last;
	int err;

	mutex_lock(&m->lock);
	err = lookup(m, olddir, old, &node);
	if (!err)
		err = lookup_slot(m, newdir, name, &dir, &last, &slot);
	if (!err && is_dir(node))
		err = -EPERM;
	if (!err && *slot)
		err = -EEXIST;
	if (!err)
		err = entry_add(dir, last, node);
	mutex_unlock(&m->lock);
	return err;
}

static int mem_unlinkat(struct emdb_io *io, int dirfd, const char *name, int flags)
{
	const bool rmdir = flags & AT_REMOVEDIR;
	struct mem *const m = mem_of(io);
	struct mem_entry **slot;
	struct mem_node *dir;
	const char *last;
	int err;

	mutex_lock(&m->lock);
	err = lookup_slot(m, dirfd, name, &dir, &last, &slot);
	if (!err && !*slot)
		err = -ENOENT;
	if (!err && is_dir((*slot)->node) != rmdir)
		err = rmdir ? -ENOTDIR : -EISDIR;
	if (!err && (*slot)->node->children)
		err = -ENOTEMPTY;
	if (!err)
		entry_del(slot);
	mutex_unlock(&m->lock);
	return err;
}

static int mem_mkdirat(struct emdb_io *io, int dirfd, const char *name, mode_t mode)
{
	struct mem *const m = mem_of(io);
	struct mem_entry **slot;
	struct mem_node *dir, *node;
	const char *last;
	int err;

	(void)mode;
	mutex_lock(&m->lock);
	err = lookup_slot(m, dirfd, name, &dir, &last, &slot);
	if (err == -EBUSY || (!err && *slot))
		err = -EEXIST;
	if (!err)
		err = node_new(m, true, &node);
	if (!err) {
		err = entry_add(dir, last, node);
		if (err)
			node_put(node);
	}
	mutex_unlock(&m->lock);
	return err;
}

static int mem_list(struct emdb_io *io, int dirfd, io_list_fn fn, void *arg)
{
	struct mem *const m = mem_of(io);
	struct buf names = BUF_INIT;
	struct mem_node *dir;
	int err;

	mutex_lock(&m->lock);
	err = dir_of_fd(m, dirfd, &dir);
	if (!err)
		for (const struct mem_entry *e = dir->children; e && !err; e = e->next)
			err = buf_append(&names, e->name, strlen(e->name) + 1);
	mutex_unlock(&m->lock);
	for (size_t i = 0; !err && i < names.len; i += strlen((char *)names.data + i) + 1)
		err = fn(arg, (const char *)names.data + i);
	buf_release(&names);
	return err;
}

/* ---- Status ---- */

static struct io_stat dir_stat(const struct mem_node *n)
{
	return (struct io_stat){ .ino = n->ino, .nlink = 2, .mode = S_IFDIR | 0700 };
}

/* The link count of a file, 0 when it is unlinked: the memfd knows nothing of it. */
static uint32_t nlink_of(const struct mem_node *dir, uint64_t ino)
{
	uint32_t found = 0;

	for (const struct mem_entry *e = dir->children; e && !found; e = e->next) {
		if (is_dir(e->node))
			found = nlink_of(e->node, ino);
		else if (e->node->ino == ino)
			found = e->node->nlink;
	}
	return found;
}

static int mem_fstat(struct emdb_io *io, int fd, struct io_stat *ret_st)
{
	struct mem *const m = mem_of(io);
	struct mem_node *dir;
	struct io_stat st;
	int err;

	if (!is_dir_fd(fd)) {
		err = io_fstat(m->os, fd, &st);
		if (err)
			return err;
		mutex_lock(&m->lock);
		st.nlink = nlink_of(&m->root, st.ino);
		mutex_unlock(&m->lock);
		*ret_st = st;
		return 0;
	}
	mutex_lock(&m->lock);
	err = dir_of_fd(m, fd, &dir);
	if (!err)
		*ret_st = dir_stat(dir);
	mutex_unlock(&m->lock);
	return err;
}

static int mem_fstatat(struct emdb_io *io, int dirfd, const char *name, struct io_stat *ret_st)
{
	struct mem *const m = mem_of(io);
	struct mem_node *node;
	struct io_stat st;
	int err;

	mutex_lock(&m->lock);
	err = lookup(m, dirfd, name, &node);
	if (!err && is_dir(node)) {
		*ret_st = dir_stat(node);
	} else if (!err) {
		err = io_fstat(m->os, node->fd, &st);
		if (!err) {
			st.nlink = node->nlink;
			*ret_st = st;
		}
	}
	mutex_unlock(&m->lock);
	return err;
}

/* The "file system" is the machine's memory; what the page cache holds counts as free. */
static int mem_fstatvfs(struct emdb_io *io, int fd, struct io_vfs *ret_vfs)
{
	struct mem *const m = mem_of(io);
	uint64_t avail_bytes;
	struct sysinfo si;
	char line[2048];
	size_t n = 0;
	const char *p;
	int info_fd = -1;

	(void)fd;
	if (sysinfo(&si) < 0)
		return -errno;
	avail_bytes = ((uint64_t)si.freeram + si.bufferram) * si.mem_unit;
	if (io_openat(m->os, AT_FDCWD, "/proc/meminfo", O_RDONLY, 0, &info_fd) == 0) {
		if (io_pread_full(m->os, info_fd, line, sizeof(line) - 1, 0, &n) < 0)
			n = 0;
		(void)io_close(m->os, info_fd);
	}
	line[n] = '\0';
	p = strstr(line, "MemAvailable:");
	if (p)
		avail_bytes = strtoull(p + strlen("MemAvailable:"), NULL, 10) * 1024;
	*ret_vfs = (struct io_vfs){
		.bsize = 4096,
		.blocks = (uint64_t)si.totalram * si.mem_unit / 4096,
		.bfree = avail_bytes / 4096,
		.bavail = avail_bytes / 4096,
		.files = DIR_FD_MAX,
		.ffree = DIR_FD_MAX,
		.in_place = true,
	};
	return 0;
}

/* ---- What needs no work, and what the kernel does ---- */

static int mem_sync(struct emdb_io *io, int fd)
{
	struct mem *const m = mem_of(io);
	struct io_stat st;

	return is_dir_fd(fd) ? 0 : io_fstat(m->os, fd, &st);
}

static int mem_fallocate(struct emdb_io *io, int fd, uint64_t off, uint64_t len, bool keep_size)
{
	struct mem *const m = mem_of(io);
	struct io_stat st;
	uint64_t end;
	int err;

	if (emdb_add_ovf(off, len, &end) || len == 0)
		return -EINVAL;
	err = io_fstat(m->os, fd, &st);
	if (err || keep_size || st.size >= end)
		return err;
	return io_ftruncate(m->os, fd, end);
}

static int mem_flock(struct emdb_io *io, int fd, bool exclusive, bool nonblock)
{
	return is_dir_fd(fd) ? 0 : io_flock(mem_of(io)->os, fd, exclusive, nonblock);
}

static int mem_pread_full(struct emdb_io *io, int fd, void *buf, size_t n, uint64_t off,
			  size_t *ret_n)
{
	return io_pread_full(mem_of(io)->os, fd, buf, n, off, ret_n);
}

static int mem_pwritev_full(struct emdb_io *io, int fd, const struct iovec *iov, int count,
			    uint64_t off)
{
	return io_pwritev_full(mem_of(io)->os, fd, iov, count, off);
}

static int mem_ftruncate(struct emdb_io *io, int fd, uint64_t size)
{
	return io_ftruncate(mem_of(io)->os, fd, size);
}

static int mem_mmap_ro(struct emdb_io *io, int fd, size_t len, const uint8_t **ret_p)
{
	return io_mmap_ro(mem_of(io)->os, fd, len, ret_p);
}

static int mem_munmap(struct emdb_io *io, const uint8_t *p, size_t len)
{
	io_munmap(mem_of(io)->os, p, len);
	return 0;
}

static void mem_ready(struct emdb_io *io, int fd, const uint8_t *p, uint64_t off, size_t len)
{
	/* It is memory; setting it aside early gains nothing. */
	(void)io;
	(void)fd;
	(void)p;
	(void)off;
	(void)len;
}

static int mem_clone(struct emdb_io *io, int src_fd, int dst_fd)
{
	return io_clone(mem_of(io)->os, src_fd, dst_fd);
}

static uint64_t mem_clock_real_ns(struct emdb_io *io)
{
	return io_clock_real_ns(mem_of(io)->os);
}

static uint64_t mem_clock_mono_ns(struct emdb_io *io)
{
	return io_clock_mono_ns(mem_of(io)->os);
}

static int mem_random(struct emdb_io *io, void *buf, size_t n)
{
	return io_random(mem_of(io)->os, buf, n);
}

static int mem_host(struct emdb_io *io, struct io_host *ret_host)
{
	return io_host(mem_of(io)->os, ret_host);
}

static int mem_process_start(struct emdb_io *io, uint64_t pid, uint64_t *ret_ticks)
{
	return io_process_start(mem_of(io)->os, pid, ret_ticks);
}

static bool mem_uses_uring(struct emdb_io *io)
{
	(void)io;
	return false;
}

/* ---- The backend ---- */

/* Depth is bounded by the paths that were made, a store's are three deep. */
static void tree_free(struct mem_node *dir)
{
	while (dir->children) {
		if (is_dir(dir->children->node))
			tree_free(dir->children->node);
		entry_del(&dir->children);
	}
}

static void mem_free(struct emdb_io *io)
{
	struct mem *const m = mem_of(io);

	for (size_t i = 0; i < m->handle_count; i++)
		if (m->handles[i])
			(void)mem_close(io, DIR_FD_BASE + (int)i);
	tree_free(&m->root);
	base_free(m->handles);
	mutex_destroy(&m->lock);
	emdb_io_free(m->os);
	base_free(m);
}

static const struct emdb_io_ops mem_ops = {
	.openat = mem_openat,
	.close = mem_close,
	.pread_full = mem_pread_full,
	.pwritev_full = mem_pwritev_full,
	.fdatasync = mem_sync,
	.fsync = mem_sync,
	.batch = io_batch_plain,
	.fallocate = mem_fallocate,
	.ftruncate = mem_ftruncate,
	.fstat = mem_fstat,
	.fstatat = mem_fstatat,
	.fstatvfs = mem_fstatvfs,
	.mmap_ro = mem_mmap_ro,
	.munmap = mem_munmap,
	.ready = mem_ready,
	.renameat = mem_renameat,
	.linkat = mem_linkat,
	.unlinkat = mem_unlinkat,
	.mkdirat = mem_mkdirat,
	.list = mem_list,
	.flock = mem_flock,
	.clone = mem_clone,
	.clock_real_ns = mem_clock_real_ns,
	.clock_mono_ns = mem_clock_mono_ns,
	.random = mem_random,
	.host = mem_host,
	.process_start = mem_process_start,
	.uses_uring = mem_uses_uring,
	.free = mem_free,
};

struct emdb_io *emdb_io_mem_new(void)
{
	struct mem *const m = base_calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->os = emdb_io_posix_new();
	if (!m->os) {
		base_free(m);
		return NULL;
	}
	m->io.ops = &mem_ops;
	m->io.ctx = m;
	m->root.fd = -1;
	m->root.ino = 1;
	m->next_ino = 2;
	mutex_init(&m->lock, LOCK_IO);
	return &m->io;
}
