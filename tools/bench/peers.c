/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers: the benchmark of the crate emdb (redb's, made after LMDB's), on one store.
 *
 *	peers [options] ENGINE DIR
 *
 * Prints a JSON line for each row.  peers.py runs all engines, in rounds, and makes a table; the
 * engines in Rust are a program of their own in peers/, with the same options and rows.
 */
#include "peers/peer.h"

#include <getopt.h>
#include <pthread.h>

#include "bench_store.h"

#define THREADS_MAX   64
#define RANGE_ENTRIES 10

struct config {
	uint64_t records, batch; /* loaded, so many at once */
	uint64_t durable;        /* single puts with a flush each */
	uint64_t groups;         /* of a thousand records, with a flush each */
	uint64_t singles;        /* puts without a flush */
	uint64_t gets, ranges;
	size_t value_len;
	const struct peer *peer;
	char dir[4096];
};

struct run {
	const struct config *c;
	void *db;
	uint64_t records; /* there are */
	uint8_t *bytes;   /* of a batch */
	struct peer_pair *pairs;
};

/* Of the clock that -C chooses. */
static clockid_t rows_clock = CLOCK_MONOTONIC;

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(rows_clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void row(const struct run *r, const char *name, const char *unit, double value)
{
	printf("{\"bench\":\"peers\",\"engine\":\"%s\",\"row\":\"%s\",\"unit\":\"%s\","
	       "\"value\":%.6g,\"records\":%llu}\n",
	       r->c->peer->name, name, unit, value, (unsigned long long)r->c->records);
	(void)fflush(stdout);
}

/* ---- Writing ---- */

/* Records [first, first + n) into r->pairs. */
static void make_pairs(struct run *r, uint64_t first, uint64_t n, bool remove)
{
	const size_t step = BENCH_KEY + r->c->value_len;
	uint64_t i;

	for (i = 0; i < n; i++) {
		uint8_t *p = r->bytes + i * step;

		bench_make_key(first + i, p);
		if (!remove)
			bench_make_value(first + i, p + BENCH_KEY, r->c->value_len);
		r->pairs[i] = (struct peer_pair){ p, remove ? NULL : p + BENCH_KEY };
	}
}

/* n records in batches; making them is not timed.  Nanoseconds. */
static uint64_t write_batches(struct run *r, uint64_t first, uint64_t n, uint64_t batch,
			      bool flush_each, bool remove)
{
	uint64_t ns = 0, start;

	while (n > 0) {
		const uint64_t take = n < batch ? n : batch;

		make_pairs(r, first, take, remove);
		start = now_ns();
		r->c->peer->batch(r->db, r->pairs, take);
		if (flush_each)
			r->c->peer->flush(r->db);
		ns += now_ns() - start;
		first += take;
		n -= take;
	}
	start = now_ns();
	r->c->peer->flush(r->db);
	return ns + now_ns() - start;
}

static uint64_t write_singles(struct run *r, uint64_t first, uint64_t n, bool flush_each)
{
	uint8_t key[BENCH_KEY], *value = r->bytes;
	uint64_t i, ns = 0;

	for (i = first; i < first + n; i++) {
		uint64_t start;

		bench_make_key(i, key);
		bench_make_value(i, value, r->c->value_len);
		start = now_ns();
		r->c->peer->put(r->db, key, value);
		if (flush_each)
			r->c->peer->flush(r->db);
		ns += now_ns() - start;
	}
	return ns;
}

static void bench_writes(struct run *r)
{
	const struct config *c = r->c;
	uint64_t ns;

	ns = write_batches(r, 0, c->records, c->batch, false, false);
	r->records = c->records;
	row(r, "bulk load", "rec/s", bench_per_second(c->records, ns));
	ns = write_singles(r, r->records, c->durable, true);
	r->records += c->durable;
	row(r, "put + flush", "op/s", bench_per_second(c->durable, ns));
	ns = write_batches(r, r->records, c->groups * 1000, 1000, true, false);
	r->records += c->groups * 1000;
	row(r, "batches of 1000 + flush", "rec/s", bench_per_second(c->groups * 1000, ns));
	ns = write_singles(r, r->records, c->singles, false);
	r->records += c->singles;
	row(r, "put, no flush", "op/s", bench_per_second(c->singles, ns));
	c->peer->flush(r->db);
}

/* ---- Reading ---- */

struct worker {
	struct run *r;
	pthread_barrier_t *barrier;
	bool range;
	uint64_t random, count, sum;
	uint64_t start_ns, end_ns;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	const struct peer *p = w->r->c->peer;
	void *reader = p->reader(w->r->db);
	uint8_t key[BENCH_KEY];
	uint64_t i;

	(void)pthread_barrier_wait(w->barrier);
	w->start_ns = now_ns();
	for (i = 0; i < w->count; i++) {
		bench_make_key(bench_random(&w->random) % w->r->records, key);
		w->sum += w->range ? p->range(reader, key, RANGE_ENTRIES) : p->get(reader, key);
	}
	w->end_ns = now_ns();
	p->reader_free(reader);
	return NULL;
}

static double read_threads(struct run *r, uint32_t threads, uint64_t total, bool range,
			   uint64_t seed)
{
	struct worker workers[THREADS_MAX];
	uint64_t start = UINT64_MAX, end = 0, longest = 0;
	pthread_t ids[THREADS_MAX];
	pthread_barrier_t barrier;
	uint32_t i;

	(void)pthread_barrier_init(&barrier, NULL, threads);
	for (i = 0; i < threads; i++) {
		workers[i] = (struct worker){ .r = r,
					      .barrier = &barrier,
					      .range = range,
					      .random = (seed * THREADS_MAX + i) << 32,
					      .count = total / threads };
		if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
			bench_die("cannot start a thread");
	}
	for (i = 0; i < threads; i++) {
		(void)pthread_join(ids[i], NULL);
		start = workers[i].start_ns < start ? workers[i].start_ns : start;
		end = workers[i].end_ns > end ? workers[i].end_ns : end;
		if (rows_clock != CLOCK_MONOTONIC &&
		    workers[i].end_ns - workers[i].start_ns > longest)
			longest = workers[i].end_ns - workers[i].start_ns;
	}
	(void)pthread_barrier_destroy(&barrier);
	/* Each thread has a clock of its own. */
	return bench_per_second(total / threads * threads, longest ? longest : end - start);
}

static void bench_reads(struct run *r)
{
	const struct config *c = r->c;

	row(r, "get", "op/s", read_threads(r, 1, c->gets, false, 1));
	row(r, "get again", "op/s", read_threads(r, 1, c->gets, false, 1));
	row(r, "get, 4 threads", "op/s", read_threads(r, 4, c->gets, false, 2));
	row(r, "get, 8 threads", "op/s", read_threads(r, 8, c->gets, false, 3));
	if (c->peer->range)
		row(r, "ranges of 10", "op/s", read_threads(r, 1, c->ranges, true, 4));
}

/* ---- Removing ---- */

static void bench_removes(struct run *r)
{
	const struct config *c = r->c;
	const uint64_t half = r->records / 2;
	uint64_t ns;

	row(r, "size", "B/rec", (double)bench_disk_bytes(c->dir) / (double)r->records);
	ns = write_batches(r, 0, half, c->batch, false, true);
	row(r, "remove half", "rec/s", bench_per_second(half, ns));
	r->records -= half;
	row(r, "size with half removed", "B/rec",
	    (double)bench_disk_bytes(c->dir) / (double)r->records);
	if (!c->peer->compact)
		return;
	ns = now_ns();
	c->peer->compact(r->db);
	row(r, "compaction", "s", (double)(now_ns() - ns) / 1e9);
	row(r, "size compacted", "B/rec", (double)bench_disk_bytes(c->dir) / (double)r->records);
}

/* ---- The run ---- */

static const struct peer *const peers[] = {
	&peer_emdb,
	&peer_emdb_ordered,
#ifdef HAVE_LMDB
	&peer_lmdb,
#endif
#ifdef HAVE_ROCKSDB
	&peer_rocksdb,
#endif
};

static const char usage[] =
	"usage: peers [options] ENGINE DIR\n"
	"       peers -L                   lists the engines, with their settings\n"
	"\n"
	"  -n RECORDS  to load (5000000)\n"
	"  -b RECORDS  in one batch (50000)\n"
	"  -v BYTES    of a value (150)\n"
	"  -d PUTS     with a flush each (1000)\n"
	"  -m BATCHES  of 1000 records with a flush each (100)\n"
	"  -p PUTS     without a flush (50000)\n"
	"  -g GETS     (1000000)\n"
	"  -r RANGES   (500000)\n"
	"  -C          measure the thread's processor time: for busy machines and for profiles, as\n"
	"              waiting, also for the disk and for threads of the store, is left out\n";

static void list(void)
{
	size_t i;

	for (i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
		printf("%s\t%s\n", peers[i]->name, peers[i]->settings);
	exit(0);
}

static void parse_options(struct config *c, int argc, char **argv)
{
	int option;
	size_t i;

	while ((option = getopt(argc, argv, "n:b:v:d:m:p:g:r:CLh")) != -1) {
		uint64_t *const to = option == 'n'   ? &c->records
				     : option == 'b' ? &c->batch
				     : option == 'd' ? &c->durable
				     : option == 'm' ? &c->groups
				     : option == 'p' ? &c->singles
				     : option == 'g' ? &c->gets
				     : option == 'r' ? &c->ranges
						     : NULL;
		const char name[] = { '-', (char)option, 0 };

		if (to != NULL) {
			*to = bench_number(optarg, name, 1, 1000000000);
		} else if (option == 'v') {
			c->value_len = bench_number(optarg, name, 1, 65536);
		} else if (option == 'C') {
			rows_clock = CLOCK_THREAD_CPUTIME_ID;
		} else if (option == 'L') {
			list();
		} else {
			(void)fputs(usage, option == 'h' ? stdout : stderr);
			exit(option == 'h' ? 0 : 2);
		}
	}
	if (argc - optind != 2) {
		(void)fputs(usage, stderr);
		exit(2);
	}
	for (i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
		if (strcmp(peers[i]->name, argv[optind]) == 0)
			c->peer = peers[i];
	if (c->peer == NULL)
		bench_die("peers: no engine '%s' in this build", argv[optind]);
	(void)snprintf(c->dir, sizeof(c->dir), "%.4000s/peers.%s.%ld", argv[optind + 1],
		       c->peer->name, (long)getpid());
}

int main(int argc, char **argv)
{
	struct config c = { .records = 5000000,
			    .batch = 50000,
			    .durable = 1000,
			    .groups = 100,
			    .singles = 50000,
			    .gets = 1000000,
			    .ranges = 500000,
			    .value_len = 150 };
	struct run r = { .c = &c };
	uint64_t room;

	parse_options(&c, argc, argv);
	if (mkdir(c.dir, 0700) != 0)
		bench_die("cannot make %s: %s", c.dir, strerror(errno));
	room = c.batch > 1000 ? c.batch : 1000;
	r.bytes = malloc(room * (BENCH_KEY + c.value_len));
	r.pairs = calloc(room, sizeof(*r.pairs));
	if (r.bytes == NULL || r.pairs == NULL)
		bench_die("out of memory");
	r.db = c.peer->open(c.dir, c.value_len);
	bench_writes(&r);
	bench_reads(&r);
	bench_removes(&r);
	c.peer->close(r.db);
	free(r.bytes);
	free(r.pairs);
	bench_remove_store(c.dir);
	return 0;
}
