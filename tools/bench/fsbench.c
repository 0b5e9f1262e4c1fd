/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsbench: what operations on small files cost in several directories, side by side.
 *
 *	fsbench [options] NAME[@PID:MS]=DIR ...
 *
 * Every round runs the same phases in every directory, in alternating order,
 * so that what the machine does meanwhile hits all of them.  The first
 * directory is the one of interest: the table shows its rate relative to each
 * other's.  Cold phases drop the kernel's dentries and inodes first, as root;
 * otherwise they are left out.  After a phase that writes, outside the measured
 * time, everything dirty is written, and the directory's daemon, where one was
 * named, waited for until it rests; so no phase pays for another.  What that
 * took of the processor is counted for the phase that caused it.
 */
#include "bench_settle.h"
#include "fsbench_phases.h"

#include <getopt.h>
#include <sys/resource.h>

#define TARGETS_MAX 12

struct target {
	const char *name;
	const char *dir;
	int fd; /* of the working directory below dir */
	struct bench_daemon daemon;
};

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

static void drop_caches(const struct phase *p)
{
	static const char what[] = "2", all[] = "3";
	int fd;

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
}

static void *work(void *arg)
{
	struct worker *w = arg;

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

static uint64_t switches_now(void)
{
	struct rusage r;

	if (getrusage(RUSAGE_SELF, &r) != 0)
		bench_die("what was used: %s", strerror(errno));
	return (uint64_t)r.ru_nvcsw + (uint64_t)r.ru_nivcsw;
}

/* What one phase in one directory came to. */
struct outcome {
	uint64_t start_ns, end_ns; /* of all threads together */
	uint64_t done;             /* operations, or MB */
	uint64_t cpu_ns, switches; /* of this process */
	uint64_t all_ns, later_ns; /* processor time of all; what of it came after the end */
};

/*
 * With -m a JSON line says that a phase begins, has ended and what it used, or has settled; then
 * a line on standard input is waited for, so that others can look at the daemon between two.
 */
static void mark(const struct config *c, const struct phase *p, const struct target *t,
		 const char *what, const struct outcome *o)
{
	int ch;

	if (!c->marks || (p->flags & SETUP) != 0)
		return;
	printf("{\"mark\":\"%s\",\"op\":\"%s\",\"dir\":\"%s\"", what, p->name, t->name);
	if (o != NULL)
		printf(",\"ops\":%llu,\"cpu_ns\":%llu,\"switches\":%llu",
		       (unsigned long long)o->done, (unsigned long long)o->cpu_ns,
		       (unsigned long long)o->switches);
	printf("}\n");
	(void)fflush(stdout);
	while ((ch = getchar()) != '\n')
		if (ch == EOF)
			bench_die("nobody answers the marks");
}

static void run_workers(struct worker *workers, uint32_t threads, struct outcome *o)
{
	pthread_t ids[THREADS_MAX];
	pthread_barrier_t barrier;
	uint64_t bytes = 0;
	uint32_t i;

	(void)pthread_barrier_init(&barrier, NULL, threads);
	for (i = 0; i < threads; i++) {
		workers[i].barrier = &barrier;
		if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
			bench_die("cannot start a thread");
	}
	o->start_ns = UINT64_MAX;
	for (i = 0; i < threads; i++) {
		(void)pthread_join(ids[i], NULL);
		if (workers[i].start_ns < o->start_ns)
			o->start_ns = workers[i].start_ns;
		if (workers[i].end_ns > o->end_ns)
			o->end_ns = workers[i].end_ns;
		bytes += workers[i].bytes;
		o->done += workers[i].count;
	}
	if ((workers[0].phase->flags & IN_BYTES) != 0)
		o->done = bytes / 1000000;
	(void)pthread_barrier_destroy(&barrier);
}

/*
 * Warming up is no part of what is measured, nor are caches that are dropped.  Who looks between
 * the marks should not see this look at the kernel's threads.
 */
static void run_phase(const struct config *c, const struct phase *p, const struct target *t,
		      uint32_t threads, struct outcome *o)
{
	static struct worker workers[THREADS_MAX];
	struct bench_cpu begin, end, settled;
	uint32_t i;

	*o = (struct outcome){ 0 };
	for (i = 0; i < threads; i++)
		prepare_worker(&workers[i], c, p, t->fd, i, threads);
	sync();
	drop_caches(p);
	for (i = 0; i < threads; i++)
		warm_up(&workers[i]);
	mark(c, p, t, "begin", NULL);
	begin = bench_cpu_now(t->daemon.pid, !c->marks);
	o->switches = switches_now();
	run_workers(workers, threads, o);
	o->switches = switches_now() - o->switches;
	end = bench_cpu_now(t->daemon.pid, !c->marks);
	o->cpu_ns = end.before - begin.after;
	mark(c, p, t, "end", o);
	settled = (p->flags & READS) == 0 ? bench_settle(&t->daemon, !c->marks)
					  : bench_cpu_now(t->daemon.pid, !c->marks);
	mark(c, p, t, "settled", NULL);
	o->later_ns = bench_cpu_between(&end, &settled);
	o->all_ns = bench_cpu_between(&begin, &end) + o->later_ns;
	for (i = 0; i < threads; i++)
		free(workers[i].buf);
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
	/* Processor time for an operation, us: all of it, and what came after the end. */
	struct bench_series all[PHASES_MAX][TARGETS_MAX], later[PHASES_MAX][TARGETS_MAX];
};

static void add_outcome(struct results *r, size_t phase, uint32_t target, const struct outcome *o)
{
	const double done = (double)o->done;

	bench_series_add(&r->rate[phase][target], done / ((double)(o->end_ns - o->start_ns) / 1e9));
	bench_series_add(&r->all[phase][target], (double)o->all_ns / 1e3 / done);
	bench_series_add(&r->later[phase][target], (double)o->later_ns / 1e3 / done);
}

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

static void print_list(const char *name, const struct bench_series *series)
{
	uint32_t k;

	printf(",\"%s\":[", name);
	for (k = 0; k < series->count; k++)
		printf("%s%.3f", k == 0 ? "" : ",", series->value[k]);
	printf("]");
}

static void print_json(const struct config *c, uint32_t threads, size_t phase,
		       const struct target *targets, uint32_t n, const struct results *r)
{
	const struct phase *const p = &phases[phase];
	uint32_t i;

	for (i = 0; i < n; i++) {
		const struct bench_summary s = bench_summarise(&r->rate[phase][i]);

		printf("{\"bench\":\"fs\",\"op\":\"%s\",\"dir\":\"%s\",\"threads\":%u,\"size\":%u,"
		       "\"unit\":\"%s\",\"median\":%.3f,\"min\":%.3f,\"max\":%.3f",
		       p->name, targets[i].name, threads, (p->flags & LARGE) != 0 ? 0 : c->size,
		       (p->flags & IN_BYTES) != 0 ? "MB/s" : "op/s", s.median, s.min, s.max);
		print_list("rates", &r->rate[phase][i]);
		print_list("cpu_us", &r->all[phase][i]);
		print_list("later_us", &r->later[phase][i]);
		printf("}\n");
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
			print_json(c, threads, p, targets, n, r);
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
			struct outcome o;

			run_phase(c, &phases[p], &targets[i], threads, &o);
			add_outcome(r, p, i, &o);
		}
	}
}

/* ---- Arguments ---- */

static const char usage[] =
	"usage: fsbench [options] NAME[@PID:MS]=DIR ...\n"
	"\n"
	"PID is the directory's daemon: its processor time counts, and after what writes it is waited for\n"
	"until it has done nothing for MS.\n"
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
	"  -m          say when each phase begins, ends and has settled, and wait for a line each time\n"
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

/* What comes after the '@' of a target. */
static struct bench_daemon parse_daemon(char *s)
{
	char *colon = strchr(s, ':');

	if (colon == NULL)
		bench_die("%s: not PID:MS", s);
	*colon = '\0';
	return (struct bench_daemon){ (pid_t)bench_number(s, "pid", 1, INT32_MAX),
				      (uint32_t)bench_number(colon + 1, "ms", 0, SETTLE_MAX_MS) };
}

static uint32_t parse_targets(struct target *targets, int argc, char **argv)
{
	uint32_t n = 0;
	int i;

	for (i = optind; i < argc; i++) {
		char *equals = strchr(argv[i], '='), *at;

		if (equals == NULL || n == TARGETS_MAX) {
			(void)fputs(usage, stderr);
			exit(2);
		}
		*equals = '\0';
		targets[n] = (struct target){ .name = argv[i], .dir = equals + 1, .fd = -1 };
		at = strchr(argv[i], '@');
		if (at != NULL) {
			*at = '\0';
			targets[n].daemon = parse_daemon(at + 1);
		}
		n++;
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
