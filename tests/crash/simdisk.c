/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/simdisk.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE   4096u
#define SECTOR 512u
#define ROOT   0u
#define NONE   UINT32_MAX

struct file {
	bool dir;
	uint8_t *bytes; /* cap of them; zeros from used on */
	uint64_t size, used, cap;
};

struct name {
	uint32_t dir, inode;
	char *text;
};

struct sim_image {
	unsigned int refs;
	struct file *files; /* by inode */
	size_t nfiles;
	struct name *names;
	size_t nnames;
};

struct sim {
	struct emdb_io io; /* the wrapper with another clock and host */
	struct emdb_io_ops ops;
	struct emdb_io *mem, *fault;
	struct sim_image *base;
	pthread_mutex_t lock;
	struct sim_event *events; /* guarded by lock, as all below */
	size_t count, cap;
	size_t borrowed; /* of the events, how many belong to another disk */
	uint64_t *inos;  /* the memory backend's number of each inode */
	uint32_t ninodes;
};

enum sim_flaw sim_flaw;
const char *sim_boot = "00000000-0000-0000-0000-000000000001";
_Atomic(int64_t) sim_now_ns = 1700000000000000000;
_Atomic(unsigned int) sim_delay;

static struct sim *current;
static _Thread_local size_t began;
static _Thread_local uint64_t delay_rnd;

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void must_0(int err)
{
	if (err) {
		fprintf(stderr, "simdisk: %s\n", strerror(-err));
		abort();
	}
}

/* ---- Recording ---- */

/* Directories' and files' numbers come from different counters. */
static uint64_t ino_key(const struct io_stat *st)
{
	return st->ino * 2 + S_ISDIR(st->mode);
}

static uint32_t inode_find(const struct sim *s, uint64_t key)
{
	for (uint32_t i = s->ninodes; i > 0; i--)
		if (s->inos[i - 1] == key)
			return i - 1;
	return NONE;
}

static uint32_t inode_add(struct sim *s, uint64_t key)
{
	s->inos = must(realloc(s->inos, (s->ninodes + 1) * sizeof(*s->inos)));
	s->inos[s->ninodes] = key;
	return s->ninodes++;
}

static struct sim_event *event_add(struct sim *s, enum sim_event_kind kind, uint32_t inode)
{
	struct sim_event *e;

	if (s->count == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 1024;
		s->events = must(realloc(s->events, s->cap * sizeof(*e)));
	}
	e = &s->events[s->count++];
	*e = (struct sim_event){ .kind = kind, .inode = inode, .began = began };
	return e;
}

static uint32_t inode_of_fd(struct sim *s, int fd)
{
	struct io_stat st;

	if (io_fstat(s->mem, fd, &st))
		abort();
	return inode_find(s, ino_key(&st));
}

/* The directory that holds the last component of path, which *ret_last is. */
static uint32_t inode_of_parent(struct sim *s, int dirfd, const char *path, const char **ret_last)
{
	const char *const slash = strrchr(path, '/');
	struct io_stat st;
	char dir[PATH_MAX];

	*ret_last = slash ? slash + 1 : path;
	if (!slash)
		return inode_of_fd(s, dirfd);
	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	if (!*dir)
		return ROOT;
	if (io_fstatat(s->mem, dirfd, dir, &st))
		abort();
	return inode_find(s, ino_key(&st));
}

static void note_new(struct sim *s, int dirfd, const char *name, const struct io_stat *st)
{
	const char *last;
	const uint32_t dir = inode_of_parent(s, dirfd, name, &last);
	const uint32_t inode = inode_add(s, ino_key(st));
	struct sim_event *const e = event_add(s, SIM_LINK, dir);

	e->target = inode;
	e->name = must(strdup(last));
	e->len = S_ISDIR(st->mode);
}

static void note_open(struct sim *s, const struct io_event *ev)
{
	struct io_stat st;

	if (!(ev->flags & (O_CREAT | O_TRUNC)))
		return;
	if (io_fstat(s->mem, ev->fd, &st))
		abort();
	if (inode_find(s, ino_key(&st)) == NONE)
		note_new(s, ev->dirfd, ev->name, &st);
	else if (ev->flags & O_TRUNC)
		event_add(s, SIM_SIZE, inode_find(s, ino_key(&st)));
}

static void note_mkdir(struct sim *s, const struct io_event *ev)
{
	struct io_stat st;

	if (io_fstatat(s->mem, ev->dirfd, ev->name, &st))
		abort();
	note_new(s, ev->dirfd, ev->name, &st);
}

static void note_write(struct sim *s, const struct io_event *ev)
{
	struct sim_event *const e = event_add(s, SIM_WRITE, inode_of_fd(s, ev->fd));

	e->off = ev->off;
	e->data = must(malloc(ev->len + 1));
	for (int i = 0; i < ev->iov_count; i++) {
		memcpy(e->data + e->len, ev->iov[i].iov_base, ev->iov[i].iov_len);
		e->len += ev->iov[i].iov_len;
	}
}

static void note_size(struct sim *s, const struct io_event *ev)
{
	struct io_stat st;

	/* What the file is now: fallocate only ever makes it longer. */
	if (io_fstat(s->mem, ev->fd, &st))
		abort();
	event_add(s, SIM_SIZE, inode_of_fd(s, ev->fd))->len =
		ev->op == IO_OP_FTRUNCATE ? ev->len : st.size;
}

static void note_sync(struct sim *s, const struct io_event *ev)
{
	struct io_stat st;

	if (io_fstat(s->mem, ev->fd, &st))
		abort();
	if (S_ISDIR(st.mode) ? sim_flaw == SIM_NO_DIRSYNC : sim_flaw == SIM_NO_FSYNC)
		return;
	event_add(s, S_ISDIR(st.mode) ? SIM_DIRSYNC : SIM_SYNC, inode_find(s, ino_key(&st)));
}

static void note_names(struct sim *s, const struct io_event *ev)
{
	const char *last, *last2;
	const uint32_t dir = inode_of_parent(s, ev->dirfd, ev->name, &last);
	struct sim_event *e;
	struct io_stat st;

	if (ev->op == IO_OP_UNLINKAT) {
		event_add(s, SIM_UNLINK, dir)->name = must(strdup(last));
		return;
	}
	if (io_fstatat(s->mem, ev->dirfd2, ev->name2, &st))
		abort();
	if (ev->op == IO_OP_LINKAT) {
		const uint32_t dir2 = inode_of_parent(s, ev->dirfd2, ev->name2, &last2);

		e = event_add(s, SIM_LINK, dir2);
		e->name = must(strdup(last2));
		e->len = 0;
	} else {
		e = event_add(s, SIM_RENAME, dir);
		e->inode2 = inode_of_parent(s, ev->dirfd2, ev->name2, &last2);
		e->name = must(strdup(last));
		e->name2 = must(strdup(last2));
	}
	e->target = inode_find(s, ino_key(&st));
}

static int before(void *arg, const struct io_event *ev)
{
	struct sim *const s = arg;
	const unsigned int delay = sim_delay;

	pthread_mutex_lock(&s->lock);
	began = s->count;
	pthread_mutex_unlock(&s->lock);
	if (delay && IO_MASK_CHANGE & IO_MASK(ev->op)) {
		const uint64_t dice = sim_rand(&delay_rnd) % (delay * 8);

		if (dice == 0)
			usleep(100);
		else if (dice < 8)
			sched_yield();
	}
	return 0;
}

static void after(void *arg, const struct io_event *ev, int err)
{
	struct sim *const s = arg;

	if (err)
		return;
	pthread_mutex_lock(&s->lock);
	switch (ev->op) {
	case IO_OP_OPENAT:
		note_open(s, ev);
		break;
	case IO_OP_MKDIRAT:
		note_mkdir(s, ev);
		break;
	case IO_OP_PWRITE:
		note_write(s, ev);
		break;
	case IO_OP_FALLOCATE:
		if (ev->flags) /* keep_size */
			break;
		note_size(s, ev);
		break;
	case IO_OP_FTRUNCATE:
		note_size(s, ev);
		break;
	case IO_OP_FDATASYNC:
	case IO_OP_FSYNC:
		note_sync(s, ev);
		break;
	case IO_OP_RENAMEAT:
	case IO_OP_LINKAT:
	case IO_OP_UNLINKAT:
		note_names(s, ev);
		break;
	case IO_OP_CLONE: /* the memory backend cannot */
		abort();
	case IO_OP_CLOSE:
	case IO_OP_PREAD:
	case IO_OP_FSTAT:
	case IO_OP_MMAP:
	case IO_OP_LIST:
	case IO_OP_FLOCK:
	case IO_OP_RANDOM:
	case IO_OP_COUNT:
		break;
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- The disk ---- */

static uint64_t now_ns(struct emdb_io *io)
{
	(void)io;
	return (uint64_t)sim_now_ns;
}

static int host(struct emdb_io *io, struct io_host *ret)
{
	(void)io;
	*ret = (struct io_host){ .pid = (uint64_t)getpid() };
	memcpy(ret->boot_id, sim_boot, strlen(sim_boot));
	memcpy(ret->hostname, "sim", 4);
	return 0;
}

static void nothing(struct emdb_io *io)
{
	(void)io;
}

static struct sim_image *image_new(size_t nfiles)
{
	struct sim_image *const im = must(calloc(1, sizeof(*im)));

	im->refs = 1;
	im->files = must(calloc(nfiles, sizeof(*im->files)));
	im->nfiles = nfiles;
	im->files[ROOT].dir = true;
	return im;
}

static struct sim *disk_new(struct sim_image *base)
{
	struct sim *const s = must(calloc(1, sizeof(*s)));
	const struct io_fault plan = { .before = before, .after = after, .hook_arg = s };
	struct io_stat st;

	current = NULL;
	s->mem = must(emdb_io_mem_new());
	s->fault = must(emdb_io_fault_new(s->mem));
	emdb_io_fault_set(s->fault, &plan);
	s->ops = *s->fault->ops;
	s->ops.clock_real_ns = now_ns;
	s->ops.host = host;
	s->ops.free = nothing;
	s->io.ops = &s->ops;
	s->io.ctx = s->fault->ctx;
	s->base = base;
	pthread_mutex_init(&s->lock, NULL);
	must_0(io_fstatat(s->mem, AT_FDCWD, ".", &st));
	inode_add(s, ino_key(&st));
	return s;
}

/* Puts the non-zero pages of an image's file into place. */
static void fill(struct sim *s, int fd, const struct file *f)
{
	static const uint8_t zeros[PAGE];
	const uint64_t used = min_u64(f->used, f->size);

	must_0(io_ftruncate(s->mem, fd, f->size));
	for (uint64_t at = 0; at < used;) {
		uint64_t end = at;

		while (end < used && memcmp(f->bytes + end, zeros, min_u64(PAGE, used - end)) != 0)
			end += min_u64(PAGE, used - end);
		if (end > at)
			must_0(io_pwrite_full(s->mem, fd, f->bytes + at, end - at, at));
		at = end + PAGE;
	}
}

/* paths: of each inode that is there already. */
static void populate(struct sim *s, const struct sim_image *im, uint32_t dir, const char *path,
		     char **paths)
{
	for (size_t i = 0; i < im->nnames; i++) {
		const struct name *const n = &im->names[i];
		struct io_stat st;
		char *where;
		int fd;

		if (n->dir != dir)
			continue;
		if (asprintf(&where, "%s/%s", path, n->text) < 0)
			abort();
		if (im->files[n->inode].dir) {
			must_0(io_mkdirat(s->mem, AT_FDCWD, where, 0700));
		} else if (paths[n->inode]) {
			must_0(io_linkat(s->mem, AT_FDCWD, paths[n->inode], AT_FDCWD, where));
		} else {
			must_0(io_openat(s->mem, AT_FDCWD, where, O_RDWR | O_CREAT, 0600, &fd));
			fill(s, fd, &im->files[n->inode]);
			(void)io_close(s->mem, fd);
		}
		must_0(io_fstatat(s->mem, AT_FDCWD, where, &st));
		s->inos[n->inode] = ino_key(&st);
		if (im->files[n->inode].dir)
			populate(s, im, n->inode, where, paths);
		free(paths[n->inode]);
		paths[n->inode] = where;
	}
}

static void mount_image(struct sim *s, const struct sim_image *im)
{
	char **const paths = must(calloc(im->nfiles, sizeof(*paths)));

	s->inos = must(realloc(s->inos, im->nfiles * sizeof(*s->inos)));
	memset(s->inos + 1, 0, (im->nfiles - 1) * sizeof(*s->inos));
	s->ninodes = (uint32_t)im->nfiles;
	populate(s, im, ROOT, "", paths);
	for (size_t i = 0; i < im->nfiles; i++)
		free(paths[i]);
	free(paths);
}

struct sim *sim_new(void)
{
	return disk_new(image_new(1));
}

struct sim *sim_from_image(struct sim_image *image)
{
	struct sim *const s = disk_new(image);

	mount_image(s, image);
	return s;
}

void sim_image_free(struct sim_image *im)
{
	if (!im || --im->refs)
		return;
	for (size_t i = 0; i < im->nfiles; i++)
		free(im->files[i].bytes);
	for (size_t i = 0; i < im->nnames; i++)
		free(im->names[i].text);
	free(im->files);
	free(im->names);
	free(im);
}

void sim_free(struct sim *s)
{
	if (!s)
		return;
	if (current == s)
		current = NULL;
	for (size_t i = s->borrowed; i < s->count; i++) {
		free(s->events[i].data);
		free(s->events[i].name);
		free(s->events[i].name2);
	}
	free(s->events);
	free(s->inos);
	sim_image_free(s->base);
	emdb_io_free(s->fault);
	emdb_io_free(s->mem);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void sim_use(struct sim *s)
{
	current = s;
}

size_t sim_count(struct sim *s)
{
	size_t n;

	pthread_mutex_lock(&s->lock);
	n = s->count;
	pthread_mutex_unlock(&s->lock);
	return n;
}

const struct sim_event *sim_event_at(struct sim *s, size_t i)
{
	return &s->events[i];
}

/* The name that an inode was given last, for people. */
static const char *name_of(const struct sim *s, uint32_t inode)
{
	const char *name = inode == ROOT ? "/" : "?";

	for (size_t i = 0; i < s->base->nnames; i++)
		if (s->base->names[i].inode == inode)
			name = s->base->names[i].text;
	for (size_t i = 0; i < s->count; i++)
		if (s->events[i].name && s->events[i].target == inode &&
		    s->events[i].kind != SIM_UNLINK)
			name = s->events[i].name2 ? s->events[i].name2 : s->events[i].name;
	return name;
}

void sim_describe(struct sim *s, size_t i, char *buf, size_t n)
{
	static const char *const kinds[] = { "write",  "size",   "sync",   "link",
					     "unlink", "rename", "dirsync" };
	const struct sim_event *const e = &s->events[i];
	const char *const what = kinds[e->kind];

	switch (e->kind) {
	case SIM_WRITE:
		snprintf(buf, n, "%s %s, %llu bytes at %llu", what, name_of(s, e->inode),
			 (unsigned long long)e->len, (unsigned long long)e->off);
		break;
	case SIM_SIZE:
		snprintf(buf, n, "%s of %s: %llu", what, name_of(s, e->inode),
			 (unsigned long long)e->len);
		break;
	case SIM_SYNC:
	case SIM_DIRSYNC:
		snprintf(buf, n, "%s %s, all before event %llu", what, name_of(s, e->inode),
			 (unsigned long long)e->began);
		break;
	case SIM_LINK:
	case SIM_UNLINK:
	case SIM_RENAME:
		snprintf(buf, n, "%s %s/%s%s%s", what, name_of(s, e->inode), e->name,
			 e->name2 ? " to " : "", e->name2 ? e->name2 : "");
		break;
	}
}

/* ---- What opens stores ---- */

struct emdb_io *__real_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void)
{
	if (!current)
		return __real_emdb_io_posix_new();
	emdb_io_ref(&current->io);
	return &current->io;
}

uint32_t __real_crc32c(uint32_t seed, const void *p, size_t n);
uint32_t __wrap_crc32c(uint32_t seed, const void *p, size_t n);
uint32_t __wrap_crc32c(uint32_t seed, const void *p, size_t n)
{
	return sim_flaw == SIM_NO_CRC ? 1 : __real_crc32c(seed, p, n);
}

struct journal;
void __real_journal_give_back(struct journal *j);
void __wrap_journal_give_back(struct journal *j);
void __wrap_journal_give_back(struct journal *j)
{
	if (!current || sim_rand(&delay_rnd) % 4 == 0)
		__real_journal_give_back(j);
}

/* ---- After a crash: chance ---- */

/* The same question about the same crash has the same answer, whoever asks when. */
static uint64_t dice(const struct sim_crash *c, uint64_t what, uint64_t which, uint64_t n)
{
	uint64_t s = c->seed ^ what * UINT64_C(0x9e3779b97f4a7c15) ^
		     which * UINT64_C(0xc2b2ae3d27d4eb4f);

	(void)sim_rand(&s);
	return sim_rand(&s) % n;
}

enum { ASK_TORN, ASK_CUT, ASK_FLIGHT, ASK_EVENT, ASK_SIZE, ASK_DIR, ASK_NAME, ASK_PAGE };

static bool kept(const struct sim_crash *c, size_t i)
{
	return c->keep && c->keep[i];
}

static void lose(const struct sim_crash *c, size_t i)
{
	if (c->lost)
		c->lost[i] = 1;
}

/* With SIM_TORN: the event that is cut. */
static size_t torn_at(const struct sim_crash *c)
{
	const size_t back = (size_t)dice(c, ASK_TORN, 0, 40) + 1;

	return c->at > back ? c->at - back : 0;
}

/* How much of a write under way was done when the process died. */
static uint64_t flight_len(const struct sim_crash *c, size_t i, const struct sim_event *e)
{
	switch (dice(c, ASK_FLIGHT, i, 4)) {
	case 0:
		return 0;
	case 1:
		return e->len;
	case 2:
		return dice(c, ASK_CUT, i, e->len + 1);
	default:
		return align_down(dice(c, ASK_CUT, i, e->len + 1), PAGE);
	}
}

/* Events that were under way at the crash are not far behind it. */
static size_t flight_end(const struct sim *s, const struct sim_crash *c)
{
	return (size_t)min_u64(s->count, c->at + 64);
}

/* ---- After a crash: names ---- */

static void names_set(struct sim_image *im, uint32_t dir, const char *text, uint32_t inode)
{
	for (size_t i = 0; i < im->nnames; i++) {
		struct name *const n = &im->names[i];

		if (n->dir != dir || strcmp(n->text, text) != 0)
			continue;
		if (inode == NONE) {
			free(n->text);
			*n = im->names[--im->nnames];
		} else {
			n->inode = inode;
		}
		return;
	}
	if (inode == NONE)
		return;
	im->names = must(realloc(im->names, (im->nnames + 1) * sizeof(*im->names)));
	im->names[im->nnames++] = (struct name){ dir, inode, must(strdup(text)) };
}

/* Whether a change of a name that was not synced got through. */
static bool name_through(const struct sim_crash *c, size_t i, const struct sim_event *e,
			 const uint64_t *synced)
{
	const uint64_t upto = synced[e->inode];

	if (c->kill || kept(c, i))
		return true;
	switch (c->loss) {
	case SIM_KEEP:
	case SIM_SIZES:
		return true;
	case SIM_DROP:
		return false;
	case SIM_TORN:
		return i < torn_at(c);
	case SIM_PAGES:
	case SIM_SECTORS:
	case SIM_REORDER:
	case SIM_NAMES:
	case SIM_LOSSES:
		break;
	}
	/* Half of the directories in order, half in any. */
	if (dice(c, ASK_DIR, e->inode, 2))
		return dice(c, ASK_NAME, i, 2);
	return i < upto + dice(c, ASK_DIR, e->inode + (UINT64_C(1) << 32), c->at - upto + 1);
}

static void build_names(const struct sim *s, const struct sim_crash *c, const uint64_t *synced,
			struct sim_image *im)
{
	for (size_t i = 0; i < s->base->nnames; i++)
		names_set(im, s->base->names[i].dir, s->base->names[i].text,
			  s->base->names[i].inode);
	for (size_t i = 0; i < c->at; i++) {
		const struct sim_event *const e = &s->events[i];
		const bool rename = e->kind == SIM_RENAME;

		if (e->kind != SIM_LINK && e->kind != SIM_UNLINK && !rename)
			continue;
		if (e->kind == SIM_LINK && e->len)
			im->files[e->target].dir = true;
		if (i >= synced[e->inode] && !(rename && i < synced[e->inode2]) &&
		    !name_through(c, i, e, synced)) {
			lose(c, i);
			continue;
		}
		if (e->kind != SIM_LINK)
			names_set(im, e->inode, e->name, NONE);
		if (e->kind != SIM_UNLINK)
			names_set(im, rename ? e->inode2 : e->inode, rename ? e->name2 : e->name,
				  e->target);
	}
}

/* ---- After a crash: content ---- */

static void file_room(struct file *f, uint64_t size)
{
	uint64_t cap = f->cap ? f->cap : PAGE;

	if (size <= f->cap)
		return;
	while (cap < size)
		cap *= 2;
	f->bytes = must(realloc(f->bytes, cap));
	memset(f->bytes + f->cap, 0, cap - f->cap);
	f->cap = cap;
}

/* What a write or a new size does to the bytes from `from` to `to`. */
static void apply(struct file *f, const struct sim_event *e, uint64_t len, uint64_t from,
		  uint64_t to)
{
	uint64_t a = max_u64(e->off, from), b = min_u64(e->off + len, to);

	if (e->kind == SIM_WRITE && a < b) {
		file_room(f, b);
		memcpy(f->bytes + a, e->data + (a - e->off), b - a);
		f->used = max_u64(f->used, b);
	} else if (e->kind == SIM_SIZE) {
		a = max_u64(e->len, from);
		b = min_u64(f->used, to);
		if (a < b)
			memset(f->bytes + a, 0, b - a);
	}
}

static uint64_t size_after(uint64_t size, const struct sim_event *e, uint64_t len)
{
	return e->kind == SIM_SIZE ? e->len : len ? max_u64(size, e->off + len) : size;
}

/* The changes of one file that a crash may take back, in order. */
struct pending {
	const struct sim_event *e;
	size_t index;
	uint64_t len; /* of a write; less than the event's when it was under way */
	bool whole;   /* by decision */
};

static bool touches(const struct sim_event *e, uint64_t from, uint64_t to)
{
	return e->kind == SIM_SIZE ? e->len < to : e->off < to && e->off + e->len > from;
}

/* How many of the pending changes the bytes from `from` to `to` have seen. */
static size_t seen_by(const struct sim_crash *c, const struct pending *u, size_t n, uint32_t inode,
		      uint64_t from, uint64_t to)
{
	size_t seen = 0;

	switch (c->loss) {
	case SIM_KEEP:
	case SIM_NAMES:
		return n;
	case SIM_DROP:
	case SIM_SIZES:
	case SIM_TORN: /* see below */
	case SIM_REORDER:
	case SIM_LOSSES:
		break;
	case SIM_PAGES:
	case SIM_SECTORS:
		if (dice(c, ASK_PAGE + inode, from * 2, 4) == 0)
			return n;
		seen = (size_t)dice(c, ASK_PAGE + inode, from * 2 + 1, n + 1);
		break;
	}
	for (size_t i = seen; i < n; i++)
		if (u[i].whole && touches(u[i].e, from, to))
			seen = i + 1;
	return seen;
}

static void decide(const struct sim_crash *c, struct pending *u, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		u[i].whole = kept(c, u[i].index);
		if (c->loss == SIM_REORDER)
			u[i].whole |= dice(c, ASK_EVENT, u[i].index, 2);
		if (c->loss == SIM_TORN)
			u[i].whole |= u[i].index < torn_at(c);
	}
}

static void build_unsynced(const struct sim_crash *c, struct file *f, uint32_t inode,
			   struct pending *u, size_t n)
{
	const uint64_t step = c->loss == SIM_SECTORS || c->loss == SIM_TORN ? SECTOR : PAGE;
	const uint64_t base_used = f->used;
	uint64_t from = UINT64_MAX, to = 0, size = f->size;
	size_t sizes;

	decide(c, u, n);
	for (size_t i = 0; i < n; i++) {
		const struct sim_event *const e = u[i].e;

		from = min_u64(from, e->kind == SIM_SIZE ? e->len : e->off);
		to = max_u64(to, e->kind == SIM_SIZE ? base_used : e->off + u[i].len);
	}
	for (uint64_t at = align_down(from, step); at < to; at += step) {
		const size_t seen = seen_by(c, u, n, inode, at, at + step);

		for (size_t i = 0; i < n; i++) {
			const bool torn = c->loss == SIM_TORN && u[i].index == torn_at(c) &&
					  at < u[i].e->off + dice(c, ASK_CUT, 1, u[i].e->len + 1);

			if (i < seen || torn)
				apply(f, u[i].e, u[i].len, at, at + step);
			else if (touches(u[i].e, at, at + step))
				lose(c, u[i].index);
		}
	}
	/* Any size that the file had. */
	sizes = c->loss == SIM_KEEP || c->loss == SIM_NAMES || c->loss == SIM_SIZES ? n
		: c->loss == SIM_DROP                                               ? 0
				      : (size_t)dice(c, ASK_SIZE, inode, n + 1);
	for (size_t i = sizes; i < n; i++)
		if (u[i].whole)
			sizes = i + 1;
	for (size_t i = 0; i < n; i++) {
		const uint64_t next = size_after(size, u[i].e, u[i].len);

		if (i < sizes)
			size = next;
		else if (next != size)
			lose(c, u[i].index);
	}
	f->size = size;
}

static void build_file(const struct sim *s, const struct sim_crash *c, uint32_t inode,
		       uint64_t synced, struct file *f)
{
	const size_t end = flight_end(s, c);
	struct pending *u = NULL;
	size_t n = 0;

	if (inode < s->base->nfiles) {
		const struct file *const b = &s->base->files[inode];

		file_room(f, b->used);
		if (b->used)
			memcpy(f->bytes, b->bytes, b->used);
		f->used = b->used;
		f->size = b->size;
	}
	for (size_t i = 0; i < end; i++) {
		const struct sim_event *const e = &s->events[i];
		const bool flight = i >= c->at;
		uint64_t len = e->len;

		if (e->inode != inode || (e->kind != SIM_WRITE && e->kind != SIM_SIZE) ||
		    (flight && (e->began >= c->at || e->kind == SIM_SIZE)))
			continue;
		if (flight)
			len = flight_len(c, i, e);
		if (flight && !len)
			continue;
		if (c->kill || (!flight && i < synced)) {
			apply(f, e, len, 0, UINT64_MAX);
			f->size = size_after(f->size, e, len);
			continue;
		}
		u = must(realloc(u, (n + 1) * sizeof(*u)));
		u[n++] = (struct pending){ e, i, len, false };
	}
	if (n)
		build_unsynced(c, f, inode, u, n);
	free(u);
	/* What is beyond the end is gone, whatever was written there. */
	if (f->used > f->size) {
		memset(f->bytes + f->size, 0, f->used - f->size);
		f->used = f->size;
	}
}

struct sim_image *sim_image(const struct sim *s, const struct sim_crash *c)
{
	struct sim_image *const im = image_new(s->ninodes);
	uint64_t *const synced = must(calloc(s->ninodes, sizeof(*synced)));
	bool *const built = must(calloc(s->ninodes, sizeof(*built)));

	for (size_t i = 0; i < c->at; i++) {
		const struct sim_event *const e = &s->events[i];

		if (e->kind == SIM_SYNC || e->kind == SIM_DIRSYNC)
			synced[e->inode] = max_u64(synced[e->inode], e->began);
	}
	for (size_t i = 0; i < s->base->nfiles; i++)
		im->files[i].dir = s->base->files[i].dir;
	build_names(s, c, synced, im);
	for (size_t i = 0; i < im->nnames; i++) {
		const uint32_t inode = im->names[i].inode;

		if (!im->files[inode].dir && !built[inode])
			build_file(s, c, inode, synced[inode], &im->files[inode]);
		built[inode] = true;
	}
	free(synced);
	free(built);
	return im;
}

struct sim *sim_after_kill(const struct sim *from, const struct sim_crash *kill,
			   struct sim_image *image)
{
	struct sim *const s = disk_new(from->base);

	from->base->refs++;
	mount_image(s, image);
	sim_image_free(image);
	s->count = s->borrowed = kill->at;
	s->cap = kill->at + 1024;
	s->events = must(malloc(s->cap * sizeof(*s->events)));
	memcpy(s->events, from->events, kill->at * sizeof(*s->events));
	began = kill->at;
	for (size_t i = kill->at; i < flight_end(from, kill); i++) {
		const struct sim_event *const e = &from->events[i];
		const uint64_t len = flight_len(kill, i, e);
		struct sim_event *copy;

		if (e->began >= kill->at || e->kind != SIM_WRITE || !len)
			continue;
		copy = event_add(s, SIM_WRITE, e->inode);
		copy->off = e->off;
		copy->len = len;
		copy->data = must(malloc(len));
		memcpy(copy->data, e->data, len);
	}
	return s;
}
