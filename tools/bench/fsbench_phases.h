/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fsbench measures: each operation, and the order in which they run.
 */
#ifndef FSBENCH_PHASES_H
#define FSBENCH_PHASES_H

#include "bench.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_COUNTS_MAX 8
#define THREADS_MAX       256
#define PHASES_MAX        32
#define NAME_SIZE         64
#define BLOCK_SIZE        4096u
#define CHUNK_SIZE        (1024u * 1024u)

struct config {
	uint32_t files;        /* per phase, all threads together */
	uint32_t synced_files; /* of create+fsync */
	uint32_t files_per_dir;
	uint32_t size; /* bytes of a file */
	uint32_t rounds;
	uint32_t large_mb; /* size of the large file, 0: none */
	uint32_t threads[THREAD_COUNTS_MAX];
	uint32_t thread_counts;
	const char *only; /* comma separated phases, NULL: all */
	bool json;
	bool marks; /* around each measured phase, see mark() */
};

/* One thread of one phase; its files are first .. first + count - 1. */
struct worker {
	const struct config *config;
	const struct phase *phase;
	pthread_barrier_t *barrier;
	int dir;
	uint32_t index, first, count;
	uint64_t random;
	uint64_t bytes; /* moved, for phases that count bytes */
	uint64_t start_ns, end_ns;
	char *buf; /* CHUNK_SIZE */
};

enum {
	NEEDS_COLD = 1,  /* dentries and inodes are dropped before */
	NEEDS_EMPTY = 2, /* page cache is dropped too */
	PER_DIR = 4,     /* once per directory; counts files */
	SYNCED = 8,      /* over synced_files */
	LARGE = 16,      /* one large file per thread; the loop is in run() */
	IN_BYTES = 32,   /* the rate is MB/s */
	SETUP = 64,      /* not measured */
	WARM = 128,      /* runs twice, only the second time is measured */
	ASKED = 256,     /* only when -p names it */
	READS = 1024,    /* leaves nothing to write */
	KNOWN = 512,     /* names are looked up before: what ran elsewhere may have dropped them */
};

struct phase {
	const char *name;
	void (*run)(struct worker *w, uint32_t i);
	unsigned int flags;
};

static void file_name(const struct worker *w, uint32_t i, char kind, char name[NAME_SIZE])
{
	(void)snprintf(name, NAME_SIZE, "t%u/d%u/%c%u", w->index, i / w->config->files_per_dir,
		       kind, i);
}

static void failed(const struct worker *w, const char *name)
{
	bench_die("%s: %s: %s", w->phase->name, name, strerror(errno));
}

/* ---- Phases over small files ---- */

static void write_file(struct worker *w, uint32_t i, char kind, int flags, bool sync)
{
	char name[NAME_SIZE];
	int fd;

	file_name(w, i, kind, name);
	fd = openat(w->dir, name, flags, 0644);
	if (fd < 0)
		failed(w, name);
	/* Every file its own bytes: nothing along the way gets to share or compress. */
	memcpy(w->buf, &i, sizeof(i));
	if (write(fd, w->buf, w->config->size) != (ssize_t)w->config->size)
		failed(w, name);
	if (sync && fsync(fd) != 0)
		failed(w, name);
	(void)close(fd);
}

static void do_create(struct worker *w, uint32_t i)
{
	write_file(w, i, 'f', O_WRONLY | O_CREAT | O_EXCL, false);
}

static void do_create_sync(struct worker *w, uint32_t i)
{
	write_file(w, i, 's', O_WRONLY | O_CREAT | O_EXCL, true);
}

static void do_overwrite(struct worker *w, uint32_t i)
{
	write_file(w, i, 'f', O_WRONLY | O_TRUNC, false);
}

static void do_append(struct worker *w, uint32_t i)
{
	write_file(w, i, 'f', O_WRONLY | O_APPEND, false);
}

static void do_stat(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];
	struct stat st;

	file_name(w, i, 'f', name);
	if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		failed(w, name);
}

static void do_read(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];
	int fd;

	file_name(w, i, 'f', name);
	fd = openat(w->dir, name, O_RDONLY);
	if (fd < 0 || read(fd, w->buf + BLOCK_SIZE, w->config->size) != (ssize_t)w->config->size)
		failed(w, name);
	(void)close(fd);
}

static void do_rename(struct worker *w, uint32_t i)
{
	char from[NAME_SIZE], to[NAME_SIZE];

	file_name(w, i, 'f', from);
	file_name(w, i, 'r', to);
	if (renameat(w->dir, from, w->dir, to) != 0)
		failed(w, from);
}

static void do_unlink_kind(struct worker *w, uint32_t i, char kind)
{
	char name[NAME_SIZE];

	file_name(w, i, kind, name);
	if (unlinkat(w->dir, name, 0) != 0)
		failed(w, name);
}

static void do_unlink(struct worker *w, uint32_t i)
{
	do_unlink_kind(w, i, 'r');
}

static void do_unlink_synced(struct worker *w, uint32_t i)
{
	do_unlink_kind(w, i, 's');
}

static void do_mkdir(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];

	file_name(w, i, 'm', name);
	if (mkdirat(w->dir, name, 0755) != 0)
		failed(w, name);
}

static void do_rmdir(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];

	file_name(w, i, 'm', name);
	if (unlinkat(w->dir, name, AT_REMOVEDIR) != 0)
		failed(w, name);
}

/* i is the first file of the directory. */
static void list_dir(struct worker *w, uint32_t i, bool plus)
{
	char name[NAME_SIZE];
	const struct dirent *entry;
	struct stat st;
	DIR *dir;
	int fd;

	(void)snprintf(name, sizeof(name), "t%u/d%u", w->index, i / w->config->files_per_dir);
	fd = openat(w->dir, name, O_RDONLY | O_DIRECTORY);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		failed(w, name);
	while ((entry = readdir(dir)) != NULL) {
		if (plus && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			failed(w, entry->d_name);
	}
	(void)closedir(dir);
}

static void do_readdir(struct worker *w, uint32_t i)
{
	list_dir(w, i, false);
}

static void do_readdir_stat(struct worker *w, uint32_t i)
{
	list_dir(w, i, true);
}

static void make_dir(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];

	(void)snprintf(name, sizeof(name), "t%u/d%u", w->index, i / w->config->files_per_dir);
	if (mkdirat(w->dir, name, 0755) != 0 && errno != EEXIST)
		failed(w, name);
}

static void remove_dir(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];

	(void)snprintf(name, sizeof(name), "t%u/d%u", w->index, i / w->config->files_per_dir);
	if (unlinkat(w->dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
		failed(w, name);
}

/* ---- Phases over one large file per thread ---- */

static uint64_t large_bytes(const struct worker *w)
{
	return (uint64_t)w->config->large_mb * 1024 * 1024;
}

static int open_large(const struct worker *w, int flags)
{
	char name[NAME_SIZE];
	int fd;

	(void)snprintf(name, sizeof(name), "t%u/large", w->index);
	fd = openat(w->dir, name, flags, 0644);
	if (fd < 0)
		failed(w, name);
	return fd;
}

static void do_seq_write(struct worker *w, uint32_t i)
{
	const int fd = open_large(w, O_WRONLY | O_CREAT | O_TRUNC);
	uint64_t at;

	(void)i;
	for (at = 0; at < large_bytes(w); at += CHUNK_SIZE) {
		memcpy(w->buf, &at, sizeof(at));
		if (write(fd, w->buf, CHUNK_SIZE) != (ssize_t)CHUNK_SIZE)
			failed(w, "large");
	}
	if (fsync(fd) != 0)
		failed(w, "large");
	(void)close(fd);
	w->bytes = large_bytes(w);
}

static void do_seq_read(struct worker *w, uint32_t i)
{
	const int fd = open_large(w, O_RDONLY);
	ssize_t n;

	(void)i;
	while ((n = read(fd, w->buf, CHUNK_SIZE)) > 0)
		w->bytes += (uint64_t)n;
	if (n < 0)
		failed(w, "large");
	(void)close(fd);
}

static void random_blocks(struct worker *w, bool writing)
{
	const uint64_t blocks = large_bytes(w) / BLOCK_SIZE;
	const int fd = open_large(w, writing ? O_WRONLY : O_RDONLY);
	uint64_t i;

	for (i = 0; i < blocks / 4; i++) {
		const off_t at = (off_t)(bench_random(&w->random) % blocks * BLOCK_SIZE);
		const ssize_t n = writing ? pwrite(fd, w->buf, BLOCK_SIZE, at)
					  : pread(fd, w->buf, BLOCK_SIZE, at);

		if (n != (ssize_t)BLOCK_SIZE)
			failed(w, "large");
		w->bytes += BLOCK_SIZE;
	}
	(void)close(fd);
}

static void do_random_read(struct worker *w, uint32_t i)
{
	(void)i;
	random_blocks(w, false);
}

static void do_random_write(struct worker *w, uint32_t i)
{
	(void)i;
	random_blocks(w, true);
}

static void remove_large(struct worker *w, uint32_t i)
{
	char name[NAME_SIZE];

	(void)i;
	(void)snprintf(name, sizeof(name), "t%u/large", w->index);
	if (unlinkat(w->dir, name, 0) != 0 && errno != ENOENT)
		failed(w, name);
}

/* In the order they run.  A measured phase that is left out must not be needed by a later one. */
static const struct phase phases[] = {
	{ "(dirs)", make_dir, PER_DIR | SETUP },
	{ "create", do_create, 0 },
	{ "read cold", do_read, READS | NEEDS_COLD | NEEDS_EMPTY | ASKED },
	{ "stat cold", do_stat, READS | NEEDS_COLD },
	{ "stat warm", do_stat, READS | WARM },
	{ "read first", do_read, READS | NEEDS_COLD },
	{ "read warm", do_read, READS | WARM },
	{ "overwrite", do_overwrite, 0 },
	{ "append", do_append, 0 },
	{ "readdir", do_readdir, READS | PER_DIR | NEEDS_COLD },
	{ "readdir+stat", do_readdir_stat, READS | PER_DIR | NEEDS_COLD },
	{ "rename", do_rename, KNOWN },
	{ "unlink", do_unlink, 0 },
	{ "mkdir", do_mkdir, 0 },
	{ "rmdir", do_rmdir, 0 },
	{ "create+fsync", do_create_sync, SYNCED },
	{ "(unlink)", do_unlink_synced, SYNCED | SETUP },
	{ "seq write", do_seq_write, LARGE | IN_BYTES },
	{ "seq read cold", do_seq_read, READS | LARGE | IN_BYTES | NEEDS_COLD | NEEDS_EMPTY },
	{ "seq read warm", do_seq_read, READS | LARGE | IN_BYTES | WARM },
	{ "4K read", do_random_read, READS | LARGE | IN_BYTES },
	{ "4K write", do_random_write, LARGE | IN_BYTES },
	{ "(large)", remove_large, LARGE | SETUP },
	{ "(rmdir)", remove_dir, PER_DIR | SETUP },
};
#define PHASES (sizeof(phases) / sizeof(phases[0]))
static_assert(PHASES <= PHASES_MAX, "raise PHASES_MAX");

#endif
