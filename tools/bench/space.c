/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space: what giving back space, keeping states and leaving on time cost, and
 * what they do to somebody who works meanwhile.
 *
 *	space [options] DIR
 *
 * Each section has a store of its own below DIR.  The worker is one thread that
 * puts and gets small records all the time; its latencies are given alone
 * and beside what is measured.
 */
#include "bench.h"

#include <dirent.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/emdb.h"

#define KEY_SIZE    24u
#define VALUE_SIZE  150u
#define BATCH       20000u
#define WORKER_KEYS 200000u
/* The worker rests so long after so many rounds, ns. */
#define BURST    64u
#define PAUSE_NS 200000u
/* How long the worker is watched alone, ns. */
#define ALONE_NS 2000000000u

struct config {
	uint64_t records;
	uint64_t open_records;
	bool json;
	const char *dir;
	char path[4096]; /* of the section's store */
};

static void check(emdb_err err, const char *what)
{
	if (err != EMDB_OK)
		bench_die("%s: %s", what, emdb_strerror(err));
}

static void report(const struct config *c, const char *name, const char *unit, double value)
{
	char text[16];

	bench_human(value, text, sizeof(text));
	if (c->json)
		printf("{\"bench\":\"space\",\"op\":\"%s\",\"unit\":\"%s\",\"median\":%.3f}\n",
		       name, unit, value);
	else
		printf("%-52s %10s %s\n", name, text, unit);
	(void)fflush(stdout);
}

static double ms_since(uint64_t start_ns)
{
	return (double)(bench_now_ns() - start_ns) / 1e6;
}

/* ---- Latencies ---- */

/* Sixteen buckets for each power of two of ns: 6 % exact. */
struct latencies {
	uint64_t count, max_ns;
	uint32_t buckets[64 * 16];
};

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int log;

	if (ns < 16)
		return (unsigned int)ns;
	log = 63 - (unsigned int)__builtin_clzll(ns);
	return (log - 3) * 16 + (unsigned int)(ns >> (log - 4) & 15);
}

static void latency_add(struct latencies *l, uint64_t ns)
{
	l->count++;
	l->buckets[bucket_of(ns)]++;
	if (ns > l->max_ns)
		l->max_ns = ns;
}

/* Where that share of them ends, us. */
static double latency_at(const struct latencies *l, double share)
{
	const uint64_t want = (uint64_t)((double)l->count * share);
	uint64_t seen = 0;

	for (unsigned int i = 0; i < 64 * 16; i++) {
		seen += l->buckets[i];
		if (seen > want)
			return i < 16 ? i / 1e3
				      : (double)((uint64_t)(16 + i % 16) << (i / 16 - 1)) / 1e3;
	}
	return (double)l->max_ns / 1e3;
}

/* ---- Records ---- */

static size_t make_key(uint64_t i, char key[static KEY_SIZE + 1])
{
	return (size_t)snprintf(key, KEY_SIZE + 1, "record-%017llu", (unsigned long long)i);
}

static void load(emdb_db *db, uint64_t first, uint64_t count, int64_t expires_ms)
{
	struct emdb_item *items = calloc(BATCH, sizeof(*items));
	char *keys = malloc(BATCH * (KEY_SIZE + 1));
	uint8_t *values = malloc(BATCH * VALUE_SIZE);

	if (items == NULL || keys == NULL || values == NULL)
		bench_die("out of memory");
	bench_fill(values, BATCH * VALUE_SIZE, first);
	for (uint64_t done = 0; done < count;) {
		const uint64_t n = count - done < BATCH ? count - done : BATCH;

		for (uint64_t i = 0; i < n; i++) {
			char *key = keys + i * (KEY_SIZE + 1);

			items[i].key_len = make_key(first + done + i, key);
			items[i].key = key;
			items[i].value = values + i * VALUE_SIZE;
			items[i].value_len = VALUE_SIZE;
			items[i].expires_ms = expires_ms;
		}
		check(emdb_put_many(db, EMDB_ROOT, items, n), "put_many");
		done += n;
	}
	check(emdb_flush(db), "flush");
	free(items);
	free(keys);
	free(values);
}

static emdb_db *open_store(struct config *c, const char *name, bool quiet)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE, .detail = &detail };
	emdb_db *db = NULL;
	emdb_err err;

	/* Nothing of its own accord, so that what is measured is what is asked for. */
	if (quiet)
		o.compact_percent = -1;
	(void)snprintf(c->path, sizeof(c->path), "%.3900s/space.%ld.%s", c->dir, (long)getpid(),
		       name);
	err = emdb_open(c->path, &o, &db);
	if (err != EMDB_OK)
		bench_die("%s: %s %s", c->path, emdb_strerror(err), detail.text);
	return db;
}

static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		char below[4096 + 256];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		if (lstat(below, &st) == 0 && S_ISDIR(st.st_mode))
			remove_tree(below);
		else
			(void)unlink(below);
	}
	if (dir != NULL)
		(void)closedir(dir);
	(void)rmdir(path);
}

/* ---- The worker ---- */

struct worker {
	emdb_db *db;
	uint64_t ns; /* its namespace */
	pthread_t thread;
	atomic_bool stop;
	struct latencies puts, gets;
};

static void pause_ns(uint64_t ns)
{
	const struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	(void)nanosleep(&t, NULL);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint8_t value[VALUE_SIZE];
	char key[KEY_SIZE + 1];
	uint64_t random = 1;

	bench_fill(value, sizeof(value), 7);
	while (!atomic_load(&w->stop)) {
		size_t len = make_key(bench_random(&random) % WORKER_KEYS, key);
		uint64_t start = bench_now_ns();
		struct emdb_ref ref;
		emdb_err err;

		check(emdb_put(w->db, w->ns, key, len, value, sizeof(value), EMDB_TTL_DEFAULT),
		      "put");
		latency_add(&w->puts, bench_now_ns() - start);
		len = make_key(bench_random(&random) % WORKER_KEYS, key);
		start = bench_now_ns();
		err = emdb_get_ref(w->db, w->ns, key, len, &ref);
		if (err == EMDB_OK)
			emdb_ref_release(&ref);
		else if (err != EMDB_ERR_NOT_FOUND)
			check(err, "get_ref");
		latency_add(&w->gets, bench_now_ns() - start);
		/* Busy, not greedy. */
		if (w->gets.count % BURST == 0)
			pause_ns(PAUSE_NS);
	}
	return NULL;
}

static struct worker *worker_begin(emdb_db *db)
{
	struct worker *w = calloc(1, sizeof(*w));
	emdb_err err;

	if (w == NULL)
		bench_die("out of memory");
	w->db = db;
	err = emdb_ns_create(db, EMDB_ROOT, "worker", 6, &w->ns);
	if (err == EMDB_ERR_EXISTS)
		err = emdb_ns_open(db, EMDB_ROOT, "worker", 6, &w->ns);
	check(err, "ns_create");
	if (pthread_create(&w->thread, NULL, worker_main, w) != 0)
		bench_die("cannot start a thread");
	return w;
}

static void report_latencies(const struct config *c, const char *what, const char *op,
			     const struct latencies *l)
{
	static const struct {
		const char *name;
		double share;
	} at[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p99.9", 0.999 } };
	char name[128];

	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		(void)snprintf(name, sizeof(name), "  %s %s, %s", op, what, at[i].name);
		report(c, name, "us", latency_at(l, at[i].share));
	}
	(void)snprintf(name, sizeof(name), "  %s %s, longest", op, what);
	report(c, name, "us", (double)l->max_ns / 1e3);
}

static void worker_end(const struct config *c, struct worker *w, const char *what)
{
	atomic_store(&w->stop, true);
	(void)pthread_join(w->thread, NULL);
	report_latencies(c, what, "put", &w->puts);
	report_latencies(c, what, "get", &w->gets);
	free(w);
}

static void worker_alone(const struct config *c, emdb_db *db)
{
	struct worker *w = worker_begin(db);

	pause_ns(ALONE_NS);
	worker_end(c, w, "alone");
}

/* ---- Snapshots ---- */

static void bench_snapshots(struct config *c)
{
	emdb_db *db = open_store(c, "snapshots", true);
	uint64_t have = 0;

	worker_alone(c, db);
	for (uint64_t n = c->records / 100; n <= c->records; n *= 10) {
		struct bench_series series = { .count = 0 };
		struct worker *w;
		char name[64];

		load(db, have, n - have, EMDB_TTL_DEFAULT);
		have = n;
		w = worker_begin(db);
		for (int i = 0; i < 5; i++) {
			uint64_t start;

			pause_ns(200000000);
			(void)snprintf(name, sizeof(name), "s-%llu-%d", (unsigned long long)n, i);
			start = bench_now_ns();
			check(emdb_snapshot_create(db, name, NULL), "snapshot_create");
			bench_series_add(&series, ms_since(start));
		}
		(void)snprintf(name, sizeof(name), "snapshot of %llu records, median of 5",
			       (unsigned long long)n);
		report(c, name, "ms", bench_summarise(&series).median);
		(void)snprintf(name, sizeof(name), "snapshot of %llu records, longest",
			       (unsigned long long)n);
		report(c, name, "ms", bench_summarise(&series).max);
		worker_end(c, w, "beside snapshots");
	}
	check(emdb_close(db), "close");
	remove_tree(c->path);
}

/* ---- Compaction ---- */

static void remove_half(emdb_db *db, uint64_t records)
{
	char key[KEY_SIZE + 1];

	for (uint64_t i = 0; i < records; i += 2) {
		const size_t len = make_key(i, key);

		check(emdb_remove(db, EMDB_ROOT, key, len, NULL, NULL), "remove");
	}
}

static void compact(const struct config *c, emdb_db *db, uint64_t rate, const char *what)
{
	const struct emdb_compact_options o = { .size = sizeof(o), .bytes_per_second = rate };
	struct emdb_compact_progress done = { .segments = 0 };
	struct worker *w = worker_begin(db);
	const uint64_t start = bench_now_ns();
	char name[96];
	double s;

	check(emdb_compact(db, &o, &done), "compact");
	s = ms_since(start) / 1e3;
	(void)snprintf(name, sizeof(name), "compaction %s, looked at", what);
	report(c, name, "MB/s", (double)done.done_bytes / 1e6 / s);
	(void)snprintf(name, sizeof(name), "compaction %s, copied", what);
	report(c, name, "MB/s", (double)done.copied_bytes / 1e6 / s);
	(void)snprintf(name, sizeof(name), "compaction %s, freed", what);
	report(c, name, "MB/s", (double)done.freed_bytes / 1e6 / s);
	(void)snprintf(name, sizeof(name), "beside compaction %s", what);
	worker_end(c, w, name);
}

static void bench_compaction(struct config *c)
{
	emdb_db *db = open_store(c, "compaction", true);

	load(db, 0, c->records, EMDB_TTL_DEFAULT);
	remove_half(db, c->records);
	worker_alone(c, db);
	compact(c, db, 64 * 1024 * 1024, "at 64 MiB/s");
	load(db, 0, c->records, EMDB_TTL_DEFAULT);
	remove_half(db, c->records);
	compact(c, db, 0, "unlimited");
	check(emdb_close(db), "close");
	remove_tree(c->path);
}

/* ---- Opening ---- */

static void remove_checkpoints(const struct config *c)
{
	DIR *dir = opendir(c->path);
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (strncmp(entry->d_name, "checkpoint", 10) == 0)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	}
	if (dir != NULL)
		(void)closedir(dir);
}

static double timed_open(struct config *c, emdb_db **ret)
{
	const uint64_t start = bench_now_ns();

	*ret = open_store(c, "open", true);
	return ms_since(start);
}

static void bench_open(struct config *c)
{
	emdb_db *db = open_store(c, "open", true);
	uint64_t have = 0;

	for (uint64_t n = c->open_records / 100; n <= c->open_records; n *= 10) {
		struct emdb_stats st;
		char name[96];
		double ms;

		load(db, have, n - have, EMDB_TTL_DEFAULT);
		have = n;
		check(emdb_close(db), "close");
		ms = timed_open(c, &db);
		(void)snprintf(name, sizeof(name), "open %llu records from a checkpoint",
			       (unsigned long long)n);
		report(c, name, "ms", ms);
		check(emdb_close(db), "close");
		remove_checkpoints(c);
		ms = timed_open(c, &db);
		check(emdb_stats_get(db, &st), "stats");
		if (st.records != n)
			bench_die("%llu records, not %llu", (unsigned long long)st.records,
				  (unsigned long long)n);
		(void)snprintf(name, sizeof(name), "open %llu records by replay",
			       (unsigned long long)n);
		report(c, name, "ms", ms);
		report(c, "  that is", "records/s", (double)n / ms * 1e3);
		report(c, "  or", "MB/s", (double)st.journal_bytes / 1e3 / ms);
	}
	check(emdb_close(db), "close");
	remove_tree(c->path);
}

/* ---- Backups ---- */

static void backup(const struct config *c, emdb_db *db, unsigned int flags, const char *target,
		   const char *what)
{
	struct emdb_backup_options o = { .size = sizeof(o), .flags = flags };
	struct emdb_backup_report r = { .lsn = 0 };
	const uint64_t start = bench_now_ns();
	char name[96];
	double ms;

	check(emdb_backup(db, target, &o, &r), "backup");
	ms = ms_since(start);
	(void)snprintf(name, sizeof(name), "backup %s", what);
	report(c, name, "ms", ms);
	report(c, "  of a store of", "MB", (double)r.bytes / 1e6);
	report(c, "  which is", "MB/s", (double)r.bytes / 1e3 / ms);
	report(c, "  copied", "MB", (double)r.copied_bytes / 1e6);
}

static void bench_backup(struct config *c)
{
	emdb_db *db = open_store(c, "backup", true);
	char copy[4200], shared[4200];

	(void)snprintf(copy, sizeof(copy), "%s.copy", c->path);
	(void)snprintf(shared, sizeof(shared), "%s.shared", c->path);
	load(db, 0, c->records, EMDB_TTL_DEFAULT);
	backup(c, db, EMDB_BACKUP_COPY, copy, "by copying, first time");
	load(db, c->records, c->records / 100, EMDB_TTL_DEFAULT);
	backup(c, db, EMDB_BACKUP_COPY, copy, "by copying, second time, 1 % new");
	backup(c, db, 0, shared, "on the same file system, first time");
	load(db, 0, c->records / 100, EMDB_TTL_DEFAULT);
	backup(c, db, 0, shared, "on the same file system, second time");
	check(emdb_close(db), "close");
	remove_tree(copy);
	remove_tree(shared);
	remove_tree(c->path);
}

/* ---- Expiry ---- */

/* Spread over some seconds, then all at one moment. */
static void expire(const struct config *c, emdb_db *db, uint64_t spread_ms, const char *what)
{
	const int64_t due = emdb_now_ms(db) + 20000;
	struct worker *w;
	struct emdb_stats st;
	char name[96];
	uint64_t left;

	for (uint64_t i = 0; i < 100; i++)
		load(db, i * (c->records / 100), c->records / 100,
		     due + (int64_t)(spread_ms * i / 100));
	while (emdb_now_ms(db) < due - 1000)
		pause_ns(10000000);
	w = worker_begin(db);
	do {
		pause_ns(2000000);
		check(emdb_stats_get(db, &st), "stats");
		left = st.expiring;
	} while (left > 0);
	(void)snprintf(name, sizeof(name), "%llu records gone %s, after the last deadline",
		       (unsigned long long)c->records, what);
	report(c, name, "ms", (double)(emdb_now_ms(db) - due) - (double)(spread_ms * 99 / 100));
	(void)snprintf(name, sizeof(name), "beside %s", what);
	worker_end(c, w, name);
}

static void bench_expiry(struct config *c)
{
	emdb_db *db = open_store(c, "expiry", false);
	struct emdb_stats st;

	worker_alone(c, db);
	expire(c, db, 10000, "expiring over 10 s");
	expire(c, db, 0, "expiring at one moment");
	check(emdb_stats_get(db, &st), "stats");
	report(c, "journal when all are gone", "MB", (double)st.journal_bytes / 1e6);
	for (int i = 0; i < 600 && st.dead_bytes > st.segment_bytes; i++) {
		pause_ns(100000000);
		check(emdb_stats_get(db, &st), "stats");
	}
	report(c, "journal after compaction of its own accord", "MB",
	       (double)st.journal_bytes / 1e6);
	check(emdb_close(db), "close");
	remove_tree(c->path);
}

/* ---- The run ---- */

static const struct section {
	const char *name;
	void (*run)(struct config *c);
} sections[] = {
	{ "snapshots", bench_snapshots }, { "compaction", bench_compaction },
	{ "open", bench_open },           { "backup", bench_backup },
	{ "expiry", bench_expiry },
};

static const char usage[] = "usage: space [options] DIR [SECTION...]\n"
			    "\n"
			    "  -n RECORDS  in a store (1000000)\n"
			    "  -o RECORDS  in the largest store that is opened (10000000)\n"
			    "  -j          JSON lines (--json)\n"
			    "\n"
			    "sections: snapshots compaction open backup expiry (all)\n";

static bool wanted(const struct section *s, int argc, char **argv)
{
	for (int i = optind + 1; i < argc; i++)
		if (strcmp(argv[i], s->name) == 0)
			return true;
	return optind + 1 >= argc;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	struct config c = { .records = 1000000, .open_records = 10000000 };
	int option;

	while ((option = getopt_long(argc, argv, "n:o:jh", longs, NULL)) != -1) {
		switch (option) {
		case 'n':
			c.records = bench_number(optarg, "-n", 100, 1000000000);
			break;
		case 'o':
			c.open_records = bench_number(optarg, "-o", 100, 1000000000);
			break;
		case 'j':
			c.json = true;
			break;
		case 'h':
			(void)fputs(usage, stdout);
			return 0;
		default:
			(void)fputs(usage, stderr);
			return 2;
		}
	}
	if (optind >= argc)
		bench_die("a directory is needed; see space -h");
	c.dir = argv[optind];
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		if (!wanted(&sections[i], argc, argv))
			continue;
		if (!c.json)
			printf("\n-- %s\n", sections[i].name);
		sections[i].run(&c);
	}
	return 0;
}
