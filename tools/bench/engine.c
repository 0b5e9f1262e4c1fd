/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine: what the library alone costs, without a mount.
 *
 *	engine [options] DIR
 *
 * Loads records of 24 random bytes of key and 150 of value into a new store
 * below DIR, then measures single puts, random gets, durable puts and what a
 * record takes on disk and in memory.  That happens in a child that ends
 * without closing the store, so the parent's open replays the journal as
 * after a crash; its second open follows a clean close.
 */
#include "bench.h"
#include "bench_store.h"

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/emdb.h"

#define KEY_SIZE    BENCH_KEY
#define VALUE_MAX   (1024u * 1024u)
#define THREADS_MAX 64

struct config {
	uint64_t records;
	uint64_t batch;
	uint64_t singles;
	uint64_t gets;    /* per thread */
	uint64_t durable; /* with one thread; as many in all with 16 */
	uint32_t value_size;
	uint32_t rounds; /* of the gets */
	bool json;
	bool keep;
	enum emdb_cipher cipher; /* of an encrypted store; DEFAULT: a plain one */
	char path[4096];         /* of the store */
};

struct worker {
	const struct config *config;
	emdb_db *db;
	pthread_barrier_t *barrier;
	void (*run)(struct worker *w);
	uint64_t first, count; /* of the records it puts */
	uint64_t random;
	uint64_t start_ns, end_ns;
	uint64_t sum; /* of bytes read: keeps the reads from being optimised away */
};

static void check(emdb_err err, const char *what)
{
	if (err != EMDB_OK)
		bench_die("%s: %s", what, emdb_strerror(err));
}

/* ---- Results ---- */

static void report(const struct config *c, const char *name, const char *unit,
		   const struct bench_series *series)
{
	const struct bench_summary s = bench_summarise(series);
	char median[16], min[16], max[16];

	if (c->json) {
		printf("{\"bench\":\"engine\",\"op\":\"%s\",\"unit\":\"%s\",\"records\":%llu,"
		       "\"median\":%.3f,\"min\":%.3f,\"max\":%.3f}\n",
		       name, unit, (unsigned long long)c->records, s.median, s.min, s.max);
	} else {
		bench_human(s.median, median, sizeof(median));
		bench_human(s.min, min, sizeof(min));
		bench_human(s.max, max, sizeof(max));
		if (series->count > 1)
			printf("%-38s %10s %-8s [%s-%s]\n", name, median, unit, min, max);
		else
			printf("%-38s %10s %s\n", name, median, unit);
	}
	(void)fflush(stdout);
}

static void report_one(const struct config *c, const char *name, const char *unit, double value)
{
	struct bench_series s = { .count = 0 };

	bench_series_add(&s, value);
	report(c, name, unit, &s);
}

/* ---- Loading ---- */

static void load(const struct config *c, emdb_db *db)
{
	const size_t step = KEY_SIZE + c->value_size;
	struct emdb_item *items = calloc(c->batch, sizeof(*items));
	uint8_t *bytes = malloc(c->batch * step);
	uint64_t done, ns = 0, start;

	if (items == NULL || bytes == NULL)
		bench_die("out of memory");
	for (done = 0; done < c->records;) {
		const uint64_t left = c->records - done, n = left < c->batch ? left : c->batch;
		uint64_t i;

		for (i = 0; i < n; i++) {
			uint8_t *p = bytes + i * step;

			bench_make_key(done + i, p);
			bench_make_value(done + i, p + KEY_SIZE, c->value_size);
			items[i].key = p;
			items[i].key_len = KEY_SIZE;
			items[i].value = p + KEY_SIZE;
			items[i].value_len = c->value_size;
		}
		start = bench_now_ns();
		check(emdb_put_many(db, EMDB_ROOT, items, n), "put_many");
		ns += bench_now_ns() - start;
		done += n;
	}
	start = bench_now_ns();
	check(emdb_flush(db), "flush");
	ns += bench_now_ns() - start;
	report_one(c, "bulk load (put_many, one flush)", "rec/s", bench_per_second(c->records, ns));
	free(items);
	free(bytes);
}

/* ---- Threads ---- */

static void *work(void *arg)
{
	struct worker *w = arg;

	(void)pthread_barrier_wait(w->barrier);
	w->start_ns = bench_now_ns();
	w->run(w);
	w->end_ns = bench_now_ns();
	return NULL;
}

/* Runs `total` operations on that many threads; operations per second of all together. */
static double run_threads(const struct config *c, emdb_db *db, void (*run)(struct worker *w),
			  uint32_t threads, uint64_t first, uint64_t total, uint64_t seed)
{
	struct worker workers[THREADS_MAX];
	pthread_t ids[THREADS_MAX];
	pthread_barrier_t barrier;
	uint64_t start = UINT64_MAX, end = 0;
	uint32_t i;

	(void)pthread_barrier_init(&barrier, NULL, threads);
	for (i = 0; i < threads; i++) {
		const uint64_t each = total / threads;

		workers[i] =
			(struct worker){ .config = c, .db = db, .barrier = &barrier, .run = run };
		workers[i].first = first + i * each;
		workers[i].count = each;
		workers[i].random = seed + i;
		if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
			bench_die("cannot start a thread");
	}
	for (i = 0; i < threads; i++) {
		(void)pthread_join(ids[i], NULL);
		start = workers[i].start_ns < start ? workers[i].start_ns : start;
		end = workers[i].end_ns > end ? workers[i].end_ns : end;
	}
	(void)pthread_barrier_destroy(&barrier);
	return bench_per_second(total / threads * threads, end - start);
}

static void puts_from(struct worker *w, bool durable)
{
	uint8_t key[KEY_SIZE], *value = malloc(w->config->value_size + 1);
	uint64_t i;

	if (value == NULL)
		bench_die("out of memory");
	for (i = w->first; i < w->first + w->count; i++) {
		bench_make_key(i, key);
		bench_make_value(i, value, w->config->value_size);
		check(emdb_put(w->db, EMDB_ROOT, key, KEY_SIZE, value, w->config->value_size,
			       EMDB_TTL_DEFAULT),
		      "put");
		if (durable)
			check(emdb_flush(w->db), "flush");
	}
	free(value);
}

static void run_puts(struct worker *w)
{
	puts_from(w, false);
}

static void run_durable_puts(struct worker *w)
{
	puts_from(w, true);
}

static void run_removes(struct worker *w)
{
	uint8_t key[KEY_SIZE];
	uint64_t i;

	for (i = w->first; i < w->first + w->count; i++) {
		bench_make_key(i, key);
		check(emdb_remove(w->db, EMDB_ROOT, key, KEY_SIZE, NULL, NULL), "remove");
	}
}

static void run_get_refs(struct worker *w)
{
	uint8_t key[KEY_SIZE];
	struct emdb_ref ref;
	uint64_t i;

	for (i = 0; i < w->count; i++) {
		bench_make_key(bench_random(&w->random) % w->config->records, key);
		check(emdb_get_ref(w->db, EMDB_ROOT, key, KEY_SIZE, &ref), "get_ref");
		if (ref.len != w->config->value_size)
			bench_die("get_ref: wrong length");
		if (ref.len > 0)
			w->sum += ((const uint8_t *)ref.data)[ref.len - 1];
		emdb_ref_release(&ref);
	}
}

static void run_gets(struct worker *w)
{
	uint8_t key[KEY_SIZE];
	void *value;
	size_t len;
	uint64_t i;

	for (i = 0; i < w->count; i++) {
		bench_make_key(bench_random(&w->random) % w->config->records, key);
		check(emdb_get(w->db, EMDB_ROOT, key, KEY_SIZE, &value, &len), "get");
		w->sum += len;
		emdb_free(value);
	}
}

static void run_misses(struct worker *w)
{
	uint8_t key[KEY_SIZE];
	uint64_t i;
	bool found;

	for (i = 0; i < w->count; i++) {
		bench_make_key((UINT64_MAX >> 2) - bench_random(&w->random) % 1000000, key);
		check(emdb_contains(w->db, EMDB_ROOT, key, KEY_SIZE, &found), "contains");
		w->sum += found;
	}
}

/* ---- Sizes ---- */

/* A line of /proc/self/status, in bytes. */
static double memory_of(const char *field)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long kb = 0;
	char line[256];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, field, strlen(field)) == 0)
			kb = strtoull(line + strlen(field) + 1, NULL, 10);
	}
	if (f != NULL)
		(void)fclose(f);
	return (double)kb * 1024;
}

static void report_sizes(const struct config *c, emdb_db *db, double anon_before)
{
	struct emdb_stats st;

	check(emdb_stats_get(db, &st), "stats");
	if (st.records == 0)
		bench_die("the store says it is empty");
	report_one(c, "records", "", (double)st.records);
	report_one(c, "payload per record", "bytes", (double)(KEY_SIZE + c->value_size));
	report_one(c, "journal per record", "bytes", (double)st.journal_bytes / (double)st.records);
	report_one(c, "disk per record, preallocation incl.", "bytes",
		   (double)bench_disk_bytes(c->path) / (double)st.records);
	report_one(c, "index per record", "bytes", (double)st.index_bytes / (double)st.records);
	report_one(c, "anonymous memory per record", "bytes",
		   (memory_of("RssAnon:") - anon_before) / (double)st.records);
	report_one(c, "RSS, mapped journal incl.", "MB", memory_of("VmRSS:") / 1e6);
}

/* ---- The run ---- */

static void open_store(const struct config *c, unsigned int flags, emdb_db **ret_db)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options options = { .size = sizeof(options),
					.flags = flags,
					.detail = &detail };
	static const struct emdb_secret secret = { .kind = EMDB_SECRET_KEY,
						   .data = "32 bytes that are no secret here.",
						   .len = EMDB_RAW_KEY_SIZE };
	emdb_err err;

	if (c->cipher != EMDB_CIPHER_DEFAULT) {
		options.secret = &secret;
		options.cipher = c->cipher;
	}
	err = emdb_open(c->path, &options, ret_db);
	if (err != EMDB_OK)
		bench_die("%s: %s %s", c->path, emdb_strerror(err), detail.text);
}

static void bench_gets(const struct config *c, emdb_db *db)
{
	static const struct {
		const char *name;
		void (*run)(struct worker *w);
		uint32_t threads;
	} kinds[] = {
		{ "random get_ref, 1 thread", run_get_refs, 1 },
		{ "random get_ref, 2 threads", run_get_refs, 2 },
		{ "random get (a copy), 1 thread", run_gets, 1 },
		{ "random get (a copy), 2 threads", run_gets, 2 },
		{ "contains, absent keys, 1 thread", run_misses, 1 },
	};
	struct bench_series series[sizeof(kinds) / sizeof(kinds[0])] = { { .count = 0 } };
	uint32_t round;
	size_t k;

	/* Interleaved, so that all kinds meet the same machine; different keys every time. */
	for (round = 0; round < c->rounds; round++) {
		for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
			bench_series_add(&series[k],
					 run_threads(c, db, kinds[k].run, kinds[k].threads, 0,
						     c->gets * kinds[k].threads,
						     (round * 8 + k) << 32));
	}
	for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
		report(c, kinds[k].name, "op/s", &series[k]);
}

static void run_child(const struct config *c)
{
	const double anon_before = memory_of("RssAnon:");
	uint64_t next = c->records, start;
	emdb_db *db = NULL;
	double rate;

	open_store(c, EMDB_OPEN_CREATE | EMDB_OPEN_EXCLUSIVE, &db);
	load(c, db);
	report_sizes(c, db, anon_before);
	rate = run_threads(c, db, run_puts, 1, next, c->singles, 0);
	next += c->singles;
	report_one(c, "single puts, 1 thread", "op/s", rate);
	rate = run_threads(c, db, run_puts, 2, next, c->singles, 0);
	next += c->singles;
	report_one(c, "single puts, 2 threads", "op/s", rate);
	start = bench_now_ns();
	check(emdb_flush(db), "flush");
	report_one(c, "their flush", "ms", (double)(bench_now_ns() - start) / 1e6);
	bench_gets(c, db);
	rate = run_threads(c, db, run_durable_puts, 1, next, c->durable, 0);
	next += c->durable;
	report_one(c, "durable puts, 1 thread", "op/s", rate);
	rate = run_threads(c, db, run_durable_puts, 16, next, c->durable * 4, 0);
	report_one(c, "durable puts, 16 threads", "op/s", rate);
	rate = run_threads(c, db, run_removes, 1, c->records, c->singles, 0);
	report_one(c, "removes, 1 thread", "op/s", rate);
	(void)fflush(stdout);
	_exit(0);
}

static double timed_open(const struct config *c, emdb_db **ret_db)
{
	const uint64_t start = bench_now_ns();

	open_store(c, 0, ret_db);
	return (double)(bench_now_ns() - start) / 1e6;
}

static void run_reopens(const struct config *c)
{
	emdb_db *db = NULL;
	uint64_t start;

	report_one(c, "open after a kill (replay)", "ms", timed_open(c, &db));
	start = bench_now_ns();
	check(emdb_close(db), "close");
	report_one(c, "close (checkpoint)", "ms", (double)(bench_now_ns() - start) / 1e6);
	report_one(c, "open after a clean close", "ms", timed_open(c, &db));
	check(emdb_close(db), "close");
}

static const char usage[] =
	"usage: engine [options] [DIR]\n"
	"\n"
	"  -n RECORDS  to load (5000000)\n"
	"  -b RECORDS  per put_many (50000)\n"
	"  -v BYTES    of a value (150)\n"
	"  -p PUTS     single ones (50000)\n"
	"  -g GETS     random ones, per thread and round (1000000)\n"
	"  -d PUTS     durable ones with one thread, four times that with 16 (2000)\n"
	"  -r ROUNDS   of the gets (3)\n"
	"  -e CIPHER   encrypted: aes-256-gcm or chacha20-poly1305\n"
	"  -k          keep the store\n"
	"  -j          JSON lines (--json)\n";

static void parse_options(struct config *c, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "n:b:v:p:g:d:r:e:kjh", longs, NULL)) != -1) {
		switch (option) {
		case 'n':
			c->records = bench_number(optarg, "-n", 1, 1000000000);
			break;
		case 'b':
			c->batch = bench_number(optarg, "-b", 1, 10000000);
			break;
		case 'v':
			c->value_size = (uint32_t)bench_number(optarg, "-v", 0, VALUE_MAX);
			break;
		case 'p':
			c->singles = bench_number(optarg, "-p", 2, 1000000000);
			break;
		case 'g':
			c->gets = bench_number(optarg, "-g", 1, 1000000000);
			break;
		case 'd':
			c->durable = bench_number(optarg, "-d", 4, 1000000000);
			break;
		case 'r':
			c->rounds = (uint32_t)bench_number(optarg, "-r", 1, BENCH_ROUNDS_MAX);
			break;
		case 'e':
			check(emdb_cipher_parse(optarg, &c->cipher), "-e");
			break;
		case 'k':
			c->keep = true;
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
}

int main(int argc, char **argv)
{
	struct config c = { .records = 5000000,
			    .batch = 50000,
			    .singles = 50000,
			    .gets = 1000000,
			    .durable = 2000,
			    .value_size = 150,
			    .rounds = 3 };
	int status = 0;
	pid_t child;

	parse_options(&c, argc, argv);
	(void)snprintf(c.path, sizeof(c.path), "%.4000s/engine.%ld",
		       optind < argc ? argv[optind] : "/tmp", (long)getpid());
	if (!c.json)
		printf("%llu records of %u + %u bytes in %s\n", (unsigned long long)c.records,
		       KEY_SIZE, c.value_size, c.path);
	(void)fflush(stdout);
	child = fork();
	if (child == 0)
		run_child(&c);
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		bench_die("the loading process failed; its store is %s", c.path);
	run_reopens(&c);
	if (!c.keep)
		bench_remove_store(c.path);
	return 0;
}
