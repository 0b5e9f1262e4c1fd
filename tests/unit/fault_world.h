/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host for stores on which any call and any allocation can be made to fail: the memory backend
 * behind the fault wrapper, with a clock that stands still, counting what is open and mapped. The
 * program is linked with --wrap=emdb_io_posix_new, so stores that are opened by path are on it.
 *
 * A sample store is made once; every case begins with a copy of its files.
 */
#ifndef EMDB_TEST_FAULT_WORLD_H
#define EMDB_TEST_FAULT_WORLD_H

#include "tests/unit/test.h"

#include <stdatomic.h>
#include <sys/stat.h>

#include "core/emdb.h"
#include "core/format.h"
#include "core/io.h"

#define HOST_FILES 64
#define HOST_FDS   4096
#define HOST_NOW   INT64_C(1700000000000000000)

/* ---- What fails ---- */

struct injection {
	const char *name;
	uint64_t mask;  /* of calls; 0: allocations or threads */
	int err;        /* negative errno */
	bool sticky;    /* all calls after it as well */
	bool cut;       /* of a failing write half is done */
	bool creations; /* of openat only those that create */
	bool fails;     /* the store may fail for good, though it is a shortage */
	bool threads;   /* thread_start fails */
	bool few;       /* such calls: each fails in the short run too */
	enum { ANY_WRITE, NOT_FRAMES, ONLY_FRAMES } writes;
};

static struct host {
	struct emdb_io io;
	struct emdb_io_ops ops;
	struct emdb_io *mem, *fault;
	struct emdb_io *posix, *posix_fault; /* below stores in memory */
	bool memory;                         /* the next backend is for one */
	const struct injection *inject;      /* NULL: nothing fails */
	_Atomic(uint64_t) nth, calls, hits;
	_Atomic(int) open, mapped; /* balance */
	_Atomic(int64_t) now_ns;
	_Atomic(bool) segment[HOST_FDS]; /* by descriptor: a segment of the journal */
} host;

static bool host_fails(void)
{
	const uint64_t n = atomic_fetch_add(&host.calls, 1) + 1;

	if (host.inject->sticky ? n < host.nth : n != host.nth)
		return false;
	atomic_fetch_add(&host.hits, 1);
	return true;
}

/* Half of the first piece of a write gets there. */
static void host_half(const struct io_event *ev)
{
	const struct iovec iov = { ev->iov[0].iov_base, ev->iov[0].iov_len / 2 };

	CHECK_OK(io_pwritev_full(host.memory ? host.posix : host.mem, ev->fd, &iov, 1, ev->off));
}

static int host_before(void *arg, const struct io_event *ev)
{
	const struct injection *const i = host.inject;

	(void)arg;
	if (!i || !(i->mask & IO_MASK(ev->op)))
		return 0;
	if (ev->op == IO_OP_PWRITE && i->writes != ANY_WRITE &&
	    (host.segment[ev->fd % HOST_FDS] && ev->off >= FMT_SEG_HEADER) !=
		    (i->writes == ONLY_FRAMES))
		return 0;
	if (i->creations && ev->op == IO_OP_OPENAT && !(ev->flags & O_CREAT))
		return 0;
	if (!host_fails())
		return 0;
	if (i->cut && ev->op == IO_OP_PWRITE)
		host_half(ev);
	return i->err;
}

static void host_after(void *arg, const struct io_event *ev, int err)
{
	(void)arg;
	if (ev->op == IO_OP_OPENAT && !err) {
		atomic_fetch_add(&host.open, 1);
		host.segment[ev->fd % HOST_FDS] = strstr(ev->name, ".seg") != NULL;
	}
	if (ev->op == IO_OP_CLOSE)
		atomic_fetch_sub(&host.open, 1);
	if (ev->op == IO_OP_MMAP && !err)
		atomic_fetch_add(&host.mapped, 1);
}

static int host_munmap(struct emdb_io *io, const uint8_t *p, size_t len)
{
	(void)io;
	atomic_fetch_sub(&host.mapped, 1);
	io_munmap(host.mem, p, len);
	return 0;
}

static uint64_t host_clock(struct emdb_io *io)
{
	(void)io;
	return (uint64_t)host.now_ns;
}

static void host_nothing(struct emdb_io *io)
{
	(void)io;
}

static bool no_memory(void)
{
	return host.inject && !host.inject->mask && !host.inject->threads && host_fails();
}

static void *host_malloc(size_t n)
{
	return no_memory() ? NULL : malloc(n);
}

static void *host_calloc(size_t count, size_t n)
{
	return no_memory() ? NULL : calloc(count, n);
}

static void *host_realloc(void *p, size_t n)
{
	return no_memory() ? NULL : realloc(p, n);
}

/* ---- What is wrapped ---- */

struct emdb_io *__real_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void)
{
	if (!host.fault)
		return __real_emdb_io_posix_new();
	if (no_memory()) /* as the real one takes some */
		return NULL;
	if (host.memory) {
		emdb_io_ref(host.posix_fault);
		return host.posix_fault;
	}
	emdb_io_ref(&host.io);
	return &host.io;
}

/* The descriptors of queues and streams, which no backend makes. */
int __real_io_event_new(int *ret_fd);
int __wrap_io_event_new(int *ret_fd);
int __wrap_io_event_new(int *ret_fd)
{
	int ret;

	if (host.inject && host.inject->err == -EMFILE && host_fails())
		return -EMFILE;
	ret = __real_io_event_new(ret_fd);
	if (ret == 0)
		atomic_fetch_add(&host.open, 1);
	return ret;
}

void __real_io_event_close(int fd);
void __wrap_io_event_close(int fd);
void __wrap_io_event_close(int fd)
{
	if (fd >= 0)
		atomic_fetch_sub(&host.open, 1);
	__real_io_event_close(fd);
}

int __real_thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg);
int __wrap_thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg);
int __wrap_thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg)
{
	if (host.inject && host.inject->threads && host_fails())
		return -EAGAIN;
	return __real_thread_start(ret, name, fn, arg);
}

/* ---- The sample ---- */

struct host_file {
	char path[300];
	uint8_t *bytes;
	uint64_t size, used; /* zeros from used on */
	int same;            /* index of another name of the file; -1: none */
	bool dir;
};

struct sample {
	struct host_file files[HOST_FILES];
	int count;
	uint64_t inos[HOST_FILES];
};

struct sampling {
	struct sample *s;
	const char *path;
};

static void sample_dir(struct sample *s, const char *path);

static int sample_one(void *arg, const char *name)
{
	const struct sampling *const a = arg;
	struct host_file *const f = &a->s->files[a->s->count];
	struct io_stat st;
	size_t n;
	int fd;

	CHECK(a->s->count < HOST_FILES);
	snprintf(f->path, sizeof(f->path), "%s/%s", a->path, name);
	CHECK_OK(io_fstatat(host.mem, AT_FDCWD, f->path, &st));
	f->dir = S_ISDIR(st.mode);
	f->same = -1;
	for (int i = 0; i < a->s->count && !f->dir; i++)
		if (!a->s->files[i].dir && a->s->inos[i] == st.ino)
			f->same = i;
	a->s->inos[a->s->count] = st.ino;
	a->s->count++;
	if (f->dir) {
		sample_dir(a->s, f->path);
	} else if (f->same < 0) {
		f->size = st.size;
		f->bytes = malloc(st.size + 1);
		CHECK_OK(io_openat(host.mem, AT_FDCWD, f->path, O_RDONLY, 0, &fd));
		CHECK_OK(io_pread_full(host.mem, fd, f->bytes, st.size, 0, &n));
		(void)io_close(host.mem, fd);
		for (f->used = n; f->used && !f->bytes[f->used - 1]; f->used--)
			;
	}
	return 0;
}

static void sample_dir(struct sample *s, const char *path)
{
	struct sampling a = { s, path };
	int fd;

	CHECK_OK(io_openat(host.mem, AT_FDCWD, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0, &fd));
	CHECK_OK(io_list(host.mem, fd, sample_one, &a));
	(void)io_close(host.mem, fd);
}

static void sample_release(struct sample *s)
{
	for (int i = 0; i < s->count; i++)
		free(s->files[i].bytes);
	s->count = 0;
}

static void host_end(void)
{
	if (!host.mem)
		return;
	emdb_io_free(host.fault);
	emdb_io_free(host.mem);
	emdb_io_free(host.posix_fault);
	emdb_io_free(host.posix);
	host.mem = host.fault = NULL;
}

/* A host with the sample's files; NULL: an empty one. */
static void host_begin(const struct sample *s)
{
	static const struct base_allocator failing = { host_malloc, host_calloc, host_realloc,
						       free };
	const struct io_fault plan = { .before = host_before, .after = host_after };
	int fd;

	host_end();
	base_set_allocator(&failing);
	memset(&host, 0, sizeof(host));
	host.now_ns = HOST_NOW;
	host.mem = emdb_io_mem_new();
	host.posix = emdb_io_posix_new();
	host.fault = emdb_io_fault_new(host.mem);
	host.posix_fault = emdb_io_fault_new(host.posix);
	CHECK(host.mem && host.fault && host.posix_fault);
	emdb_io_fault_set(host.fault, &plan);
	emdb_io_fault_set(host.posix_fault, &plan);
	host.ops = *host.fault->ops;
	host.ops.munmap = host_munmap;
	host.ops.clock_real_ns = host_clock;
	host.ops.free = host_nothing;
	host.io.ops = &host.ops;
	host.io.ctx = host.fault->ctx;
	for (int i = 0; s && i < s->count; i++) {
		const struct host_file *const f = &s->files[i];

		if (f->dir) {
			CHECK_OK(io_mkdirat(host.mem, AT_FDCWD, f->path, 0700));
		} else if (f->same >= 0) {
			CHECK_OK(io_linkat(host.mem, AT_FDCWD, s->files[f->same].path, AT_FDCWD,
					   f->path));
		} else {
			CHECK_OK(io_openat(host.mem, AT_FDCWD, f->path, O_RDWR | O_CREAT, 0600,
					   &fd));
			CHECK_OK(io_ftruncate(host.mem, fd, f->size));
			CHECK_OK(io_pwrite_full(host.mem, fd, f->bytes, f->used, 0));
			(void)io_close(host.mem, fd);
		}
	}
}

/* From here on call number nth fails, until host_calm(), which says whether one did. */
static void host_inject(const struct injection *i, uint64_t nth)
{
	host.nth = nth;
	host.calls = host.hits = 0;
	host.inject = i;
}

static uint64_t host_calm(void)
{
	host.inject = NULL;
	return host.hits;
}

/* ---- What a store holds, in one number ---- */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
	const uint8_t *const b = p;
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		uint64_t w;

		memcpy(&w, b + i, 8);
		h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 32;
	}
	for (; i < n; i++)
		h = (h ^ b[i]) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t mix_u64(uint64_t h, uint64_t v)
{
	return mix(h, &v, sizeof(v));
}

static uint64_t print_xattrs(emdb_db *db, uint64_t id, uint64_t h)
{
	char names[1000], value[3000];
	size_t n, len;

	CHECK_OK(emdb_xattr_list(db, id, names, sizeof(names), &n));
	for (const char *p = names; p < names + n; p += strlen(p) + 1) {
		CHECK_OK(emdb_xattr_get(db, id, p, value, sizeof(value), &len));
		h = mix(mix(h, p, strlen(p)), value, len);
	}
	return h;
}

static uint64_t print_attr(const struct emdb_attr *a, uint64_t h)
{
	h = mix_u64(mix_u64(h, a->size), a->mode | (uint64_t)a->nlink << 32);
	h = mix_u64(mix_u64(h, a->uid | (uint64_t)a->gid << 32), a->rdev);
	h = mix_u64(mix_u64(h, (uint64_t)a->atime_ns), (uint64_t)a->mtime_ns);
	h = mix_u64(mix_u64(h, (uint64_t)a->ctime_ns), (uint64_t)a->btime_ns);
	return mix_u64(h, (uint64_t)a->expires_ms);
}

/* Ids are not in it: an operation that is done a second time may give others. */
static uint64_t print_ns(emdb_db *db, uint64_t ns)
{
	static uint8_t data[1 << 20];
	enum emdb_ttl_basis basis;
	struct emdb_attr a;
	struct emdb_entry e;
	uint64_t sum = 0;
	emdb_iter *it;
	int64_t ttl;
	emdb_err err;

	/* Its entry was applied, for lack of memory it was not: as below. */
	if (emdb_ns_ttl_get(db, ns, &ttl) == EMDB_ERR_NOT_FOUND)
		return 2;
	CHECK_OK(emdb_ns_basis_get(db, ns, &basis));
	sum += mix_u64(mix_u64(1, (uint64_t)ttl), basis);
	CHECK_OK(emdb_iter_new(db, ns, 0, &it));
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK || err == EMDB_ERR_CORRUPT) {
		uint64_t h = err ? 3 : mix(7, e.key, e.key_len);
		size_t n = 0;

		/* A state too, of stores that are to be repaired. */
		if (err) {
			sum += mix_u64(h, 1);
			continue;
		}
		/* Half applied, for lack of memory: a state that only a failed store may be in. */
		if (emdb_node_lookup(db, ns, e.key, e.key_len, &a) == EMDB_ERR_NOT_FOUND) {
			sum += mix_u64(h, 1);
			continue;
		}
		h = print_xattrs(db, a.id, print_attr(&a, h));
		if (e.is_ns) {
			h = mix_u64(h, print_ns(db, a.id));
		} else if (S_ISREG(a.mode)) {
			err = emdb_node_read(db, a.id, 0, data, sizeof(data), &n);
			CHECK(err == EMDB_OK ? n == a.size : err == EMDB_ERR_CORRUPT);
			h = mix_u64(h, (uint64_t)err);
		}
		sum += mix(h, data, n);
		emdb_node_forget(db, a.id, 1);
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	return sum;
}

static bool print_snapshot(void *ctx, const struct emdb_snapshot *s)
{
	uint64_t *const h = ctx;

	CHECK_OK(s->err);
	*h = mix_u64(mix(*h, s->name, strlen(s->name)), s->number);
	return true;
}

static uint64_t print_store(emdb_db *db)
{
	uint64_t h = print_ns(db, EMDB_ROOT);

	CHECK_OK(emdb_snapshot_list(db, print_snapshot, &h));
	return h;
}

#endif
