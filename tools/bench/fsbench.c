/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsbench: what operations on small files cost in several directories, side by side.
 *
 *	fsbench [options] NAME=DIR [NAME=DIR ...]
 *
 * Every round runs the same phases in every directory, in alternating order,
 * so that what the machine does meanwhile hits all of them.  The first
 * directory is the one of interest: the table shows its rate relative to each
 * other's.  Cold phases drop the kernel's dentries and inodes first, as root;
 * otherwise they are left out.  Between the phases, outside the measured
 * time, everything dirty is written, so that no phase pays for another.
 */
#include "bench.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TARGETS_MAX       8
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

struct target {
	const char *name;
	const char *dir;
	int fd; /* of the working directory below dir */
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
	bool warm; /* as the phase wants it */
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
	{ "read cold", do_read, NEEDS_COLD | NEEDS_EMPTY | ASKED },
	{ "stat cold", do_stat, NEEDS_COLD },
	{ "stat warm", do_stat, WARM },
	{ "read first", do_read, NEEDS_COLD },
	{ "read warm", do_read, WARM },
	{ "overwrite", do_overwrite, 0 },
	{ "append", do_append, 0 },
	{ "readdir", do_readdir, PER_DIR | NEEDS_COLD },
	{ "readdir+stat", do_readdir_stat, PER_DIR | NEEDS_COLD },
	{ "rename", do_rename, KNOWN },
	{ "unlink", do_unlink, 0 },
	{ "mkdir", do_mkdir, 0 },
	{ "rmdir", do_rmdir, 0 },
	{ "create+fsync", do_create_sync, SYNCED },
	{ "(unlink)", do_unlink_synced, SYNCED | SETUP },
	{ "seq write", do_seq_write, LARGE | IN_BYTES },
	{ "seq read cold", do_seq_read, LARGE | IN_BYTES | NEEDS_COLD | NEEDS_EMPTY },
	{ "seq read warm", do_seq_read, LARGE | IN_BYTES | WARM },
	{ "4K read", do_random_read, LARGE | IN_BYTES },
	{ "4K write", do_random_write, LARGE | IN_BYTES },
	{ "(large)", remove_large, LARGE | SETUP },
	{ "(rmdir)", remove_dir, PER_DIR | SETUP },
};
#define PHASES (sizeof(phases) / sizeof(phases[0]))
static_assert(PHASES <= PHASES_MAX, "raise PHASES_MAX");

/* ---- Running ---- */

static bool listed(const char *list, const char *name)
{
	const size_t n = strlen(name);
	const char *p = list;

	while (p != NULL) {
		if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0'))
			return true;
		p = strchr(p, ',');
		p = p == NULL ? NULL : p + 1;
	}
	return false;
}

/* Leaving a phase out that others build on would fail them: only pure ones can be left out. */
static bool wanted(const struct config *c, const struct phase *p)
{
	static const char pure[] =
		"stat cold,stat warm,read first,read warm,overwrite,append,"
		"readdir,readdir+stat,seq read cold,seq read warm,4K read,4K write";

	if ((p->flags & LARGE) != 0 ? c->large_mb == 0 : c->files == 0)
		return false;
	if ((p->flags & NEEDS_COLD) != 0 && geteuid() != 0)
		return false;
	if ((p->flags & ASKED) != 0)
		return listed(c->only, p->name);
	return c->only == NULL || !listed(pure, p->name) || listed(c->only, p->name);
}

static void settle(const struct phase *p)
{
	static const char what[] = "2", all[] = "3";
	int fd;

	sync();
	if ((p->flags & NEEDS_COLD) == 0)
		return;
	fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, (p->flags & NEEDS_EMPTY) != 0 ? all : what, 1) != 1)
		bench_die("/proc/sys/vm/drop_caches: %s", strerror(errno));
	(void)close(fd);
}

static void work_once(struct worker *w)
{
	const uint32_t step = (w->phase->flags & PER_DIR) != 0 ? w->config->files_per_dir : 1;
	uint32_t i;

	w->bytes = 0;
	if ((w->phase->flags & LARGE) != 0) {
		w->phase->run(w, 0);
	} else {
		for (i = 0; i < w->count; i += step)
			w->phase->run(w, i);
	}
}

static void warm_up(struct worker *w)
{
	uint32_t i;

	if ((w->phase->flags & WARM) != 0)
		work_once(w);
	for (i = 0; i < w->count && (w->phase->flags & KNOWN) != 0; i++)
		do_stat(w, i);
	w->warm = true;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	if (!w->warm)
		warm_up(w);
	(void)pthread_barrier_wait(w->barrier);
	w->start_ns = bench_now_ns();
	work_once(w);
	w->end_ns = bench_now_ns();
	return NULL;
}

static void prepare_worker(struct worker *w, const struct config *c, const struct phase *p, int dir,
			   uint32_t index, uint32_t threads)
{
	const uint32_t total = (p->flags & SYNCED) != 0 ? c->synced_files : c->files;
	char name[NAME_SIZE];

	*w = (struct worker){ .config = c, .phase = p, .dir = dir, .index = index };
	w->count = total / threads;
	w->random = index + 1;
	w->buf = malloc(CHUNK_SIZE + BLOCK_SIZE);
	if (w->buf == NULL)
		bench_die("out of memory");
	bench_fill(w->buf, CHUNK_SIZE, index);
	(void)snprintf(name, sizeof(name), "t%u", index);
	if (mkdirat(dir, name, 0755) != 0 && errno != EEXIST)
		failed(w, name);
}

/* What this process has used so far. */
struct usage {
	uint64_t cpu_ns;
	uint64_t switches;
};

static struct usage usage_now(void)
{
	struct rusage r;
	struct timespec t;

	if (getrusage(RUSAGE_SELF, &r) != 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
		bench_die("what was used: %s", strerror(errno));
	return (struct usage){ (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec,
			       (uint64_t)r.ru_nvcsw + (uint64_t)r.ru_nivcsw };
}

/*
 * With -m a JSON line says that a phase begins, or has ended and what it used; then a line on
 * standard input is waited for, so that others can look at the daemon between two phases.
 */
static void mark(const struct phase *p, const struct target *t, uint64_t ops,
		 const struct usage *used)
{
	int c;

	printf("{\"mark\":\"%s\",\"op\":\"%s\",\"dir\":\"%s\"", used == NULL ? "begin" : "end",
	       p->name, t->name);
	if (used != NULL)
		printf(",\"ops\":%llu,\"cpu_ns\":%llu,\"switches\":%llu", (unsigned long long)ops,
		       (unsigned long long)used->cpu_ns, (unsigned long long)used->switches);
	printf("}\n");
	(void)fflush(stdout);
	while ((c = getchar()) != '\n')
		if (c == EOF)
			bench_die("nobody answers the marks");
}

/* Warming up is no part of what the marks enclose. */
static void begin_mark(const struct phase *p, const struct target *t, struct worker *workers,
		       uint32_t threads)
{
	uint32_t i;

	for (i = 0; i < threads; i++)
		warm_up(&workers[i]);
	mark(p, t, 0, NULL);
}

/* Operations, or MB, per second of all threads together, from the first start to the last end. */
static double run_phase(const struct config *c, const struct phase *p, const struct target *t,
			uint32_t threads)
{
	static struct worker workers[THREADS_MAX];
	pthread_t ids[THREADS_MAX];
	pthread_barrier_t barrier;
	const bool marks = c->marks && (p->flags & SETUP) == 0;
	uint64_t start = UINT64_MAX, end = 0, bytes = 0, count = 0;
	struct usage before, used;
	uint32_t i;

	(void)pthread_barrier_init(&barrier, NULL, threads);
	for (i = 0; i < threads; i++)
		prepare_worker(&workers[i], c, p, t->fd, i, threads);
	settle(p);
	if (marks)
		begin_mark(p, t, workers, threads);
	before = usage_now();
	for (i = 0; i < threads; i++) {
		workers[i].barrier = &barrier;
		if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
			bench_die("cannot start a thread");
	}
	for (i = 0; i < threads; i++) {
		(void)pthread_join(ids[i], NULL);
		start = workers[i].start_ns < start ? workers[i].start_ns : start;
		end = workers[i].end_ns > end ? workers[i].end_ns : end;
		bytes += workers[i].bytes;
		count += workers[i].count;
		free(workers[i].buf);
	}
	(void)pthread_barrier_destroy(&barrier);
	used = usage_now();
	used.cpu_ns -= before.cpu_ns;
	used.switches -= before.switches;
	if (marks)
		mark(p, t, (p->flags & IN_BYTES) != 0 ? bytes / 1000000 : count, &used);
	return ((p->flags & IN_BYTES) != 0 ? (double)bytes / 1e6 : (double)count) /
	       ((double)(end - start) / 1e9);
}

static void open_target(struct target *t)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fsbench.%ld", t->dir, (long)getpid());
	if (mkdir(path, 0755) != 0)
		bench_die("%s: %s", path, strerror(errno));
	t->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->fd < 0)
		bench_die("%s: %s", path, strerror(errno));
}

static void close_target(struct target *t)
{
	char name[NAME_SIZE], path[4096];
	uint32_t i;

	for (i = 0; i < THREADS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "t%u", i);
		(void)unlinkat(t->fd, name, AT_REMOVEDIR);
	}
	(void)close(t->fd);
	(void)snprintf(path, sizeof(path), "%s/fsbench.%ld", t->dir, (long)getpid());
	if (rmdir(path) != 0)
		bench_die("%s: %s", path, strerror(errno));
}

/* ---- Results ---- */

struct results {
	struct bench_series rate[PHASES_MAX][TARGETS_MAX];
};

static void print_header(const struct config *c, uint32_t threads, const struct target *targets,
			 uint32_t n)
{
	uint32_t i;

	printf("\n%u files of %u bytes, %u thread%s, %u rounds; op/s or MB/s, median [min-max]\n",
	       c->files, c->size, threads, threads == 1 ? "" : "s", c->rounds);
	printf("%-14s", "");
	for (i = 0; i < n; i++)
		printf(" %-22s", targets[i].name);
	for (i = 1; i < n; i++)
		printf(" %s/%s", targets[0].name, targets[i].name);
	printf("\n");
}

static void print_row(const struct phase *p, const struct bench_series *series, uint32_t n)
{
	const struct bench_summary first = bench_summarise(&series[0]);
	uint32_t i;

	printf("%-14s", p->name);
	for (i = 0; i < n; i++) {
		const struct bench_summary s = bench_summarise(&series[i]);
		char median[16], min[16], max[16], cell[64];

		bench_human(s.median, median, sizeof(median));
		bench_human(s.min, min, sizeof(min));
		bench_human(s.max, max, sizeof(max));
		(void)snprintf(cell, sizeof(cell), "%s [%s-%s]", median, min, max);
		printf(" %-22s", cell);
	}
	for (i = 1; i < n; i++) {
		const struct bench_summary s = bench_summarise(&series[i]);

		printf(" %.2f [%.2f-%.2f]", first.median / s.median, first.min / s.max,
		       first.max / s.min);
	}
	printf("\n");
}

static void print_json(const struct config *c, uint32_t threads, const struct phase *p,
		       const struct target *targets, const struct bench_series *series, uint32_t n)
{
	uint32_t i, k;

	for (i = 0; i < n; i++) {
		const struct bench_summary s = bench_summarise(&series[i]);

		printf("{\"bench\":\"fs\",\"op\":\"%s\",\"dir\":\"%s\",\"threads\":%u,\"size\":%u,"
		       "\"unit\":\"%s\",\"median\":%.3f,\"min\":%.3f,\"max\":%.3f,\"rates\":[",
		       p->name, targets[i].name, threads, (p->flags & LARGE) != 0 ? 0 : c->size,
		       (p->flags & IN_BYTES) != 0 ? "MB/s" : "op/s", s.median, s.min, s.max);
		for (k = 0; k < series[i].count; k++)
			printf("%s%.3f", k == 0 ? "" : ",", series[i].value[k]);
		printf("]}\n");
	}
}

static void print_results(const struct config *c, uint32_t threads, const struct target *targets,
			  uint32_t n, const struct results *r)
{
	size_t p;

	if (!c->json)
		print_header(c, threads, targets, n);
	for (p = 0; p < PHASES; p++) {
		if ((phases[p].flags & SETUP) != 0 || r->rate[p][0].count == 0)
			continue;
		if (c->json)
			print_json(c, threads, &phases[p], targets, r->rate[p], n);
		else
			print_row(&phases[p], r->rate[p], n);
	}
	(void)fflush(stdout);
}

/* Phase by phase, not directory by directory: a quiet time of the machine favours nobody. */
static void run_round(const struct config *c, uint32_t threads, const struct target *targets,
		      uint32_t n, uint32_t round, struct results *r)
{
	size_t p;
	uint32_t k;

	for (p = 0; p < PHASES; p++) {
		if (!wanted(c, &phases[p]))
			continue;
		for (k = 0; k < n; k++) {
			const uint32_t i = round % 2 == 0 ? k : n - 1 - k;
			const double rate = run_phase(c, &phases[p], &targets[i], threads);

			bench_series_add(&r->rate[p][i], rate);
		}
	}
}

/* ---- Arguments ---- */

static const char usage[] =
	"usage: fsbench [options] NAME=DIR [NAME=DIR ...]\n"
	"\n"
	"  -n FILES    files per phase, all threads together (100000; 0: large files only)\n"
	"  -f FILES    files of create+fsync (a twentieth of -n)\n"
	"  -d FILES    files per directory (1000)\n"
	"  -s BYTES    size of a file, up to 1 MiB (200)\n"
	"  -t LIST     numbers of threads (1,4,16)\n"
	"  -r ROUNDS   how often everything runs (3)\n"
	"  -l MB       also read and write a file of this size per thread (0: no)\n"
	"  -p LIST     of the phases that no other needs, run these only; and those that must be asked\n"
	"              for (read cold: nothing is in the page cache)\n"
	"  -m          say when each phase begins and ends, and wait for a line each time\n"
	"  -j          JSON lines instead of tables (--json)\n";

static void parse_threads(struct config *c, char *list)
{
	char *save = NULL, *item;

	c->thread_counts = 0;
	for (item = strtok_r(list, ",", &save); item != NULL; item = strtok_r(NULL, ",", &save)) {
		if (c->thread_counts == THREAD_COUNTS_MAX)
			bench_die("-t: more than %d numbers", THREAD_COUNTS_MAX);
		c->threads[c->thread_counts++] = (uint32_t)bench_number(item, "-t", 1, THREADS_MAX);
	}
	if (c->thread_counts == 0)
		bench_die("-t: no number");
}

static void parse_option(struct config *c, int option)
{
	switch (option) {
	case 'n':
		c->files = (uint32_t)bench_number(optarg, "-n", 0, 100000000);
		break;
	case 'f':
		c->synced_files = (uint32_t)bench_number(optarg, "-f", 1, 100000000);
		break;
	case 'd':
		c->files_per_dir = (uint32_t)bench_number(optarg, "-d", 1, 100000000);
		break;
	case 's':
		c->size = (uint32_t)bench_number(optarg, "-s", 4, CHUNK_SIZE);
		break;
	case 't':
		parse_threads(c, optarg);
		break;
	case 'r':
		c->rounds = (uint32_t)bench_number(optarg, "-r", 1, BENCH_ROUNDS_MAX);
		break;
	case 'l':
		c->large_mb = (uint32_t)bench_number(optarg, "-l", 0, 1u << 20);
		break;
	case 'p':
		c->only = optarg;
		break;
	case 'm':
		c->marks = true;
		break;
	case 'j':
		c->json = true;
		break;
	case 'h':
		(void)fputs(usage, stdout);
		exit(0);
	default:
		(void)fputs(usage, stderr);
		exit(2);
	}
}

static void parse_options(struct config *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "n:f:d:s:t:r:l:p:mjh", longs, NULL)) != -1)
		parse_option(c, option);
	if (c->synced_files == 0)
		c->synced_files = c->files < 20 ? 1 : c->files / 20;
}

static uint32_t parse_targets(struct target *targets, int argc, char **argv)
{
	uint32_t n = 0;
	int i;

	for (i = optind; i < argc; i++) {
		char *equals = strchr(argv[i], '=');

		if (equals == NULL || n == TARGETS_MAX) {
			(void)fputs(usage, stderr);
			exit(2);
		}
		*equals = '\0';
		targets[n++] = (struct target){ .name = argv[i], .dir = equals + 1, .fd = -1 };
	}
	if (n == 0) {
		(void)fputs(usage, stderr);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv)
{
	static struct results results;
	struct config c = { .files = 100000,
			    .files_per_dir = 1000,
			    .size = 200,
			    .rounds = 3,
			    .threads = { 1, 4, 16 },
			    .thread_counts = 3 };
	struct target targets[TARGETS_MAX];
	uint32_t n, i, k, round;

	parse_options(&c, argc, argv);
	n = parse_targets(targets, argc, argv);
	for (k = 0; k < c.thread_counts; k++) {
		memset(&results, 0, sizeof(results));
		for (i = 0; i < n; i++)
			open_target(&targets[i]);
		for (round = 0; round < c.rounds; round++)
			run_round(&c, c.threads[k], targets, n, round, &results);
		for (i = 0; i < n; i++)
			close_target(&targets[i]);
		print_results(&c, c.threads[k], targets, n, &results);
	}
	return 0;
}
