/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many threads at once: transfers between accounts of which every reader must find the same sum,
 * counters by compare-and-set that lose nothing, and eight threads that do everything to keys of
 * their own in namespaces that they share, each with a model of what it did.
 */
#include "tests/unit/test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "core/emdb.h"

#define SPACES   3
#define ACCOUNTS 8
#define EACH     1000
#define TOGETHER 10

static emdb_db *db;
static uint64_t nss[SPACES];
static _Atomic(bool) stop;
static _Atomic(uint64_t) commits, conflicts, reads, counted;

static void open_all(void)
{
	const struct emdb_options opts = { .size = sizeof(opts),
					   .segment_bytes = EMDB_SEGMENT_MIN,
					   .sweep_interval_ms = 5,
					   .compact_percent = 10,
					   .compact_wait_bytes = 1 };
	char name[16];

	atomic_store(&stop, false);
	CHECK_OK(emdb_open_memory(&opts, &db));
	for (int i = 0; i < SPACES; i++) {
		snprintf(name, sizeof(name), "ns%d", i);
		CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, strlen(name), &nss[i]));
	}
}

static void run_for(pthread_t *threads, size_t n)
{
	const char *const env = getenv("EMDB_LONG");

	(void)sleep(env && *env ? 30 : 2);
	atomic_store(&stop, true);
	for (size_t i = 0; i < n; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void check_nothing_kept(void)
{
	struct emdb_stats st;

	CHECK_OK(emdb_stats_get(db, &st));
	CHECK_UEQ(st.views, 0);
	CHECK_UEQ(st.view_bytes, 0);
}

/* ---- Transfers ---- */

static int64_t balance(emdb_txn *t, int ns, unsigned int account)
{
	int64_t v;
	size_t n;
	void *p;

	CHECK_OK(emdb_txn_get(t, nss[ns], &account, sizeof(account), &p, &n));
	CHECK_UEQ(n, sizeof(v));
	memcpy(&v, p, sizeof(v));
	emdb_free(p);
	return v;
}

static void set_balance(emdb_txn *t, int ns, unsigned int account, int64_t v)
{
	CHECK_OK(emdb_txn_put(t, nss[ns], &account, sizeof(account), &v, sizeof(v), 0));
}

static void *transfer(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!atomic_load(&stop)) {
		const int a = (int)(test_rand(&rnd) % SPACES), b = (int)(test_rand(&rnd) % SPACES);
		const unsigned int x = (unsigned int)(test_rand(&rnd) % ACCOUNTS);
		const unsigned int y = (unsigned int)(test_rand(&rnd) % ACCOUNTS);
		const int64_t sum = (int64_t)(test_rand(&rnd) % 100);
		emdb_txn *t;
		emdb_err err;

		if (a == b && x == y)
			continue;
		CHECK_OK(emdb_txn_begin(db, NULL, &t));
		set_balance(t, a, x, balance(t, a, x) - sum);
		set_balance(t, b, y, balance(t, b, y) + sum);
		if (test_rand(&rnd) % 16 == 0) {
			emdb_txn_abort(t);
			continue;
		}
		err = emdb_txn_commit(t, 0);
		CHECK(err == EMDB_OK || err == EMDB_ERR_CONFLICT);
		atomic_fetch_add(err ? &conflicts : &commits, 1);
	}
	return NULL;
}

/* All accounts by iteration: in a transaction, so that the namespaces are of one moment. */
static void *audit(void *arg)
{
	const struct emdb_txn_options o = { .size = sizeof(o), .flags = EMDB_TXN_READ_ONLY };

	while (!atomic_load(&stop)) {
		unsigned int n = 0;
		int64_t sum = 0;
		emdb_txn *t;

		CHECK_OK(emdb_txn_begin(db, &o, &t));
		for (int i = 0; i < SPACES; i++) {
			struct emdb_entry e;
			emdb_iter *it;
			emdb_err err;

			CHECK_OK(emdb_txn_iter(t, nss[i], EMDB_ITER_VALUES, &it));
			while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
				int64_t v;

				CHECK_UEQ(e.value_len, sizeof(v));
				memcpy(&v, e.value, sizeof(v));
				sum += v;
				n++;
				sched_yield();
			}
			CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
			emdb_iter_free(it);
		}
		CHECK_OK(emdb_txn_commit(t, 0));
		CHECK_UEQ(n, SPACES * ACCOUNTS);
		CHECK_EQ(sum, (int64_t)SPACES * ACCOUNTS * EACH);
		atomic_fetch_add(&reads, 1);
	}
	return arg;
}

/* Stores many at once, the same in all of them. */
static void *put_together(void *arg)
{
	for (uint64_t round = 1; !atomic_load(&stop); round++) {
		struct emdb_item items[TOGETHER];
		unsigned int keys[TOGETHER];

		for (unsigned int i = 0; i < TOGETHER; i++) {
			keys[i] = i;
			items[i] = (struct emdb_item){ .key = &keys[i],
						       .key_len = sizeof(keys[i]),
						       .value = &round,
						       .value_len = sizeof(round) };
		}
		CHECK_OK(emdb_put_many(db, EMDB_ROOT, items, TOGETHER));
	}
	return arg;
}

static void *see_together(void *arg)
{
	while (!atomic_load(&stop)) {
		uint64_t round = 0, v;
		struct emdb_entry e;
		unsigned int n = 0;
		emdb_iter *it;

		CHECK_OK(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_VALUES | EMDB_ITER_KEYS, &it));
		while (emdb_iter_next(it, &e) == EMDB_OK) {
			if (e.key_len != sizeof(unsigned int))
				continue;
			memcpy(&v, e.value, sizeof(v));
			if (n++)
				CHECK_UEQ(v, round);
			round = v;
		}
		CHECK(n == 0 || n == TOGETHER);
		emdb_iter_free(it);
		atomic_fetch_add(&reads, 1);
	}
	return arg;
}

/* Adds one to a counter that everybody adds to. */
static void *count_up(void *arg)
{
	while (!atomic_load(&stop)) {
		uint64_t v, next;
		struct emdb_value expected, desired = { &next, sizeof(next) };
		emdb_err err;
		void *p;

		CHECK_OK(emdb_get(db, EMDB_ROOT, "counter", 7, &p, &expected.len));
		expected.data = p;
		memcpy(&v, p, sizeof(v));
		next = v + 1;
		err = emdb_cas(db, EMDB_ROOT, "counter", 7, &expected, &desired, 0);
		emdb_free(p);
		CHECK(err == EMDB_OK || err == EMDB_ERR_CONFLICT);
		if (!err)
			atomic_fetch_add(&counted, 1);
	}
	return arg;
}

static void *upkeep(void *arg)
{
	while (!atomic_load(&stop)) {
		const struct timespec nap = { 0, 2000000 };

		CHECK_OK(emdb_compact(db, NULL, NULL));
		CHECK_OK(emdb_checkpoint(db));
		(void)nanosleep(&nap, NULL);
	}
	return arg;
}

TEST(test_txn__transfers_keep_the_sum)
{
	const uint64_t seed = test_seed(), zero = 0;
	pthread_t threads[9];
	uint64_t v;
	size_t n = 0, len;
	void *p;

	open_all();
	for (int i = 0; i < SPACES; i++) {
		for (unsigned int k = 0; k < ACCOUNTS; k++) {
			const int64_t each = EACH;

			CHECK_OK(emdb_put(db, nss[i], &k, sizeof(k), &each, sizeof(each), 0));
		}
	}
	CHECK_OK(emdb_put(db, EMDB_ROOT, "counter", 7, &zero, sizeof(zero), 0));
	for (uintptr_t i = 0; i < 2; i++) {
		void *const arg = (void *)((uintptr_t)seed + i + 1);

		CHECK_EQ(pthread_create(&threads[n++], NULL, transfer, arg), 0);
		CHECK_EQ(pthread_create(&threads[n++], NULL, count_up, NULL), 0);
	}
	CHECK_EQ(pthread_create(&threads[n++], NULL, audit, NULL), 0);
	CHECK_EQ(pthread_create(&threads[n++], NULL, put_together, NULL), 0);
	CHECK_EQ(pthread_create(&threads[n++], NULL, see_together, NULL), 0);
	CHECK_EQ(pthread_create(&threads[n++], NULL, upkeep, NULL), 0);
	run_for(threads, n);
	CHECK_OK(emdb_get(db, EMDB_ROOT, "counter", 7, &p, &len));
	memcpy(&v, p, sizeof(v));
	emdb_free(p);
	CHECK_UEQ(v, atomic_load(&counted));
	check_nothing_kept();
	printf("%" PRIu64 " transfers, %" PRIu64 " conflicts, %" PRIu64 " readers, %" PRIu64
	       " counted\n",
	       atomic_load(&commits), atomic_load(&conflicts), atomic_load(&reads), v);
	CHECK(atomic_load(&commits) > 0 && atomic_load(&reads) > 0);
	CHECK_OK(emdb_close(db));
}

/* ---- Everything at once ---- */

#define WORKERS 8
#define KEYS    16

struct mine {
	bool there;
	uint32_t version;
	size_t len;
};

struct worker {
	unsigned int who;
	uint64_t rnd, ops;
	struct mine mine[SPACES][KEYS];
};

static size_t name_of(const struct worker *w, unsigned int key, char buf[static 32])
{
	return (size_t)snprintf(buf, 32, "w%u-k%u", w->who, key);
}

static const char *content(char *buf, const struct worker *w, unsigned int key,
			   const struct mine *m)
{
	for (size_t i = 0; i < m->len; i++)
		buf[i] = (char)(m->version * 31 + key * 7 + w->who + i);
	return buf;
}

static void check_mine(struct worker *w, int ns, unsigned int key)
{
	const struct mine *const m = &w->mine[ns][key];
	char name[32], buf[4096];
	const size_t n = name_of(w, key, name);
	bool found;
	size_t len;
	void *p;
	const emdb_err err = emdb_get(db, nss[ns], name, n, &p, &len);

	CHECK_EQ(err, m->there ? EMDB_OK : EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_contains(db, nss[ns], name, n, &found));
	CHECK_EQ(found, m->there);
	if (err)
		return;
	CHECK_MEM(p, len, content(buf, w, key, m), m->len);
	emdb_free(p);
}

static void renew(struct worker *w, struct mine *m)
{
	m->there = true;
	m->version++;
	m->len = test_rand(&w->rnd) % (test_rand(&w->rnd) % 8 ? 200 : 4096);
}

/* One key in each namespace, all at once, or not at all because somebody changes one of them. */
static void transact(struct worker *w, unsigned int key)
{
	const bool removes = test_rand(&w->rnd) % 3 == 0, conflict = test_rand(&w->rnd) % 4 == 0;
	struct mine next[SPACES];
	char name[32], buf[4096];
	const size_t n = name_of(w, key, name);
	emdb_txn *t;

	CHECK_OK(emdb_txn_begin(db, NULL, &t));
	for (int i = 0; i < SPACES; i++) {
		next[i] = w->mine[i][key];
		if (removes) {
			CHECK_EQ(emdb_txn_remove(t, nss[i], name, n),
				 next[i].there ? EMDB_OK : EMDB_ERR_NOT_FOUND);
			next[i].there = false;
			continue;
		}
		renew(w, &next[i]);
		CHECK_OK(emdb_txn_put(t, nss[i], name, n, content(buf, w, key, &next[i]),
				      next[i].len, 0));
	}
	if (conflict && !removes) {
		struct mine *const m = &w->mine[1][key];

		renew(w, m);
		CHECK_OK(emdb_put(db, nss[1], name, n, content(buf, w, key, m), m->len, 0));
		CHECK_EQ(emdb_txn_commit(t, 0), EMDB_ERR_CONFLICT);
		return;
	}
	/* Others write other keys: that is no conflict. */
	CHECK_OK(emdb_txn_commit(t, 0));
	for (int i = 0; i < SPACES; i++)
		w->mine[i][key] = next[i];
}

static void one_op(struct worker *w)
{
	const int ns = (int)(test_rand(&w->rnd) % SPACES);
	const unsigned int key = (unsigned int)(test_rand(&w->rnd) % KEYS);
	struct mine *const m = &w->mine[ns][key];
	struct emdb_value was, will;
	char name[32], buf[4096], old[4096];
	const size_t n = name_of(w, key, name);
	struct emdb_item item = { .key = name, .key_len = n };
	uint64_t removed;
	emdb_err err;

	switch (test_rand(&w->rnd) % 8) {
	case 0:
	case 1:
		renew(w, m);
		CHECK_OK(emdb_put(db, nss[ns], name, n, content(buf, w, key, m), m->len, 0));
		break;
	case 2:
		err = emdb_remove(db, nss[ns], name, n, NULL, NULL);
		CHECK_EQ(err, m->there ? EMDB_OK : EMDB_ERR_NOT_FOUND);
		m->there = false;
		break;
	case 3:
		transact(w, key);
		break;
	case 4:
		was = (struct emdb_value){ content(old, w, key, m), m->len };
		err = m->there;
		renew(w, m);
		will = (struct emdb_value){ content(buf, w, key, m), m->len };
		CHECK_OK(emdb_cas(db, nss[ns], name, n, err ? &was : NULL, &will, 0));
		break;
	case 5:
		renew(w, m);
		item.value = content(buf, w, key, m);
		item.value_len = m->len;
		CHECK_OK(emdb_put_many(db, nss[ns], &item, 1));
		break;
	case 6:
		/* In the past: it is gone at once. */
		if (m->there)
			CHECK_OK(emdb_ttl_set(db, nss[ns], name, n, 1));
		m->there = false;
		break;
	default:
		if (test_rand(&w->rnd) % 64 == 0)
			CHECK_OK(emdb_sweep(db, &removed));
		if (test_rand(&w->rnd) % 64 == 0)
			CHECK_OK(emdb_flush(db));
	}
	check_mine(w, ns, key);
}

static void *work(void *arg)
{
	struct worker *const w = arg;

	for (; !atomic_load(&stop); w->ops++)
		one_op(w);
	return NULL;
}

TEST(test_store__eight_threads_agree_with_their_models)
{
	const uint64_t seed = test_seed();
	static struct worker workers[WORKERS];
	uint64_t ops = 0;
	pthread_t threads[WORKERS + 1];

	open_all();
	for (unsigned int i = 0; i < WORKERS; i++) {
		workers[i].who = i;
		workers[i].rnd = seed + i + 1;
		CHECK_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	CHECK_EQ(pthread_create(&threads[WORKERS], NULL, upkeep, NULL), 0);
	run_for(threads, WORKERS + 1);
	for (int ns = 0; ns < SPACES; ns++) {
		uint64_t want = 0, count;

		for (unsigned int i = 0; i < WORKERS; i++) {
			for (unsigned int k = 0; k < KEYS; k++) {
				check_mine(&workers[i], ns, k);
				want += workers[i].mine[ns][k].there;
			}
		}
		CHECK_OK(emdb_count(db, nss[ns], &count));
		CHECK_UEQ(count, want);
	}
	for (unsigned int i = 0; i < WORKERS; i++)
		ops += workers[i].ops;
	printf("%" PRIu64 " operations\n", ops);
	check_nothing_kept();
	CHECK_OK(emdb_close(db));
}

/* ---- Whose turn it is ---- */

#define COMMITTERS 4
#define PUTS       501

static _Atomic(uint64_t) each_commits[COMMITTERS];

static void *commit_in_a_loop(void *arg)
{
	const uintptr_t me = (uintptr_t)arg;

	for (uint64_t i = 0; !atomic_load(&stop); i++) {
		emdb_txn *t;

		CHECK_OK(emdb_txn_begin(db, NULL, &t));
		for (uint64_t k = 0; k < 64; k++) {
			const uint64_t key[2] = { me, k };

			CHECK_OK(emdb_txn_put(t, nss[0], key, sizeof(key), &i, sizeof(i), 0));
		}
		CHECK_OK(emdb_txn_commit(t, 0));
		atomic_fetch_add(&each_commits[me], 1);
		atomic_fetch_add(&commits, 1);
	}
	return NULL;
}

static int cmp_u64(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/*
 * A commit excludes writers of single keys, but not for longer than one: however many commit in a
 * loop, a put comes between two of them.  Counted is what passes during one put, not how long it takes.
 */
TEST(test_txn__commits_do_not_starve_a_put)
{
	static uint64_t passed[PUTS];
	pthread_t threads[COMMITTERS];

	open_all();
	for (uintptr_t i = 0; i < COMMITTERS; i++) {
		atomic_store(&each_commits[i], 0);
		CHECK_EQ(pthread_create(&threads[i], NULL, commit_in_a_loop, (void *)i), 0);
	}
	for (int i = 0; i < COMMITTERS; i++)
		while (!atomic_load(&each_commits[i]))
			sched_yield();
	for (int i = 0; i < PUTS; i++) {
		uint64_t before = atomic_load(&commits);

		/* Into the midst of them. */
		while (atomic_load(&commits) == before)
			sched_yield();
		before = atomic_load(&commits);
		CHECK_OK(emdb_put(db, nss[1], &i, sizeof(i), "v", 1, 0));
		passed[i] = atomic_load(&commits) - before;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < COMMITTERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	qsort(passed, PUTS, sizeof(passed[0]), cmp_u64);
	printf("commits during one of %d puts: median %" PRIu64 ", 9 of 10 %" PRIu64
	       ", at most %" PRIu64 "\n",
	       PUTS, passed[PUTS / 2], passed[PUTS * 9 / 10], passed[PUTS - 1]);
	/* Those that hold the lock or come in before it, and whose return is counted late. */
	CHECK(passed[PUTS / 2] <= 2 * COMMITTERS);
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
