/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions and compare-and-set: what they show, what they change, when they conflict. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "core/emdb.h"

static emdb_db *db;

static void open_memory(const struct emdb_options *more)
{
	struct emdb_options o = { .size = sizeof(o), .sweep_interval_ms = -1 };

	if (more)
		o = *more;
	o.size = sizeof(o);
	o.segment_bytes = EMDB_SEGMENT_MIN;
	CHECK_OK(emdb_open_memory(&o, &db));
}

static void put(uint64_t ns, const char *key, const char *value)
{
	CHECK_OK(emdb_put(db, ns, key, strlen(key), value, strlen(value), 0));
}

static void check_value(uint64_t ns, const char *key, const char *want)
{
	void *p;
	size_t n;
	const emdb_err err = emdb_get(db, ns, key, strlen(key), &p, &n);

	if (!want) {
		CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
		return;
	}
	CHECK_OK(err);
	CHECK_MEM(p, n, want, strlen(want));
	emdb_free(p);
}

static emdb_txn *begin_with(unsigned int flags)
{
	const struct emdb_txn_options o = { .size = sizeof(o), .flags = flags };
	emdb_txn *t;

	CHECK_OK(emdb_txn_begin(db, &o, &t));
	return t;
}

static emdb_txn *begin(void)
{
	emdb_txn *t;

	CHECK_OK(emdb_txn_begin(db, NULL, &t));
	return t;
}

static emdb_err tput(emdb_txn *t, uint64_t ns, const char *key, const char *value)
{
	return emdb_txn_put(t, ns, key, strlen(key), value, strlen(value), 0);
}

static void check_txn(emdb_txn *t, uint64_t ns, const char *key, const char *want)
{
	bool found;
	void *p;
	size_t n;
	const emdb_err err = emdb_txn_get(t, ns, key, strlen(key), &p, &n);

	CHECK_OK(emdb_txn_contains(t, ns, key, strlen(key), &found));
	CHECK_EQ(found, want != NULL);
	if (!want) {
		CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
		return;
	}
	CHECK_OK(err);
	CHECK_MEM(p, n, want, strlen(want));
	emdb_free(p);
}

static uint64_t make_ns(const char *name)
{
	uint64_t ns;

	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, strlen(name), &ns));
	return ns;
}

/* "a=1 b=2 ", in order of keys. */
static const char *walk(emdb_txn *t, uint64_t ns, unsigned int flags)
{
	static char text[512];
	char *names[32] = { NULL };
	struct emdb_entry e;
	emdb_iter *it;
	emdb_err err;
	size_t n = 0;

	CHECK_OK(emdb_txn_iter(t, ns, flags, &it));
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
		char one[64];
		size_t i = n;

		CHECK(n < 32);
		snprintf(one, sizeof(one), "%.*s%s%.*s ", (int)e.key_len, (const char *)e.key,
			 e.is_ns ? "/" : "=", (int)e.value_len,
			 e.value ? (const char *)e.value : "");
		for (; i && strcmp(names[i - 1], one) > 0; i--)
			names[i] = names[i - 1];
		names[i] = strdup(one);
		CHECK(names[i]);
		n++;
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	text[0] = 0;
	for (size_t i = 0; i < n; i++) {
		strcat(text, names[i]);
		free(names[i]);
	}
	return text;
}

static void no_views(void)
{
	struct emdb_stats st;

	CHECK_OK(emdb_stats_get(db, &st));
	CHECK_UEQ(st.views, 0);
	CHECK_UEQ(st.view_bytes, 0);
}

/* ---- What a transaction shows ---- */

TEST(test_txn__reads_its_writes_and_the_beginning)
{
	emdb_txn *t;

	open_memory(NULL);
	put(EMDB_ROOT, "a", "1");
	put(EMDB_ROOT, "b", "2");
	put(EMDB_ROOT, "c", "3");
	t = begin();
	CHECK_OK(tput(t, EMDB_ROOT, "b", "two"));
	CHECK_OK(tput(t, EMDB_ROOT, "d", "four"));
	CHECK_OK(emdb_txn_remove(t, EMDB_ROOT, "c", 1));
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "", 0, "", 0, 0));
	put(EMDB_ROOT, "a", "other");
	put(EMDB_ROOT, "e", "other");
	check_txn(t, EMDB_ROOT, "a", "1");
	check_txn(t, EMDB_ROOT, "b", "two");
	check_txn(t, EMDB_ROOT, "c", NULL);
	check_txn(t, EMDB_ROOT, "d", "four");
	check_txn(t, EMDB_ROOT, "e", NULL);
	check_txn(t, EMDB_ROOT, "", "");
	CHECK_STR(walk(t, EMDB_ROOT, EMDB_ITER_VALUES), "= a=1 b=two d=four ");
	CHECK_EQ(emdb_txn_remove(t, EMDB_ROOT, "c", 1), EMDB_ERR_NOT_FOUND);
	CHECK_OK(tput(t, EMDB_ROOT, "c", "again"));
	CHECK_OK(emdb_txn_remove(t, EMDB_ROOT, "d", 1));
	CHECK_STR(walk(t, EMDB_ROOT, EMDB_ITER_VALUES), "= a=1 b=two c=again ");
	CHECK_STR(walk(t, EMDB_ROOT, EMDB_ITER_NS), "");
	/* Nobody else sees any of it. */
	check_value(EMDB_ROOT, "b", "2");
	check_value(EMDB_ROOT, "c", "3");
	check_value(EMDB_ROOT, "d", NULL);
	emdb_txn_abort(t);
	check_value(EMDB_ROOT, "b", "2");
	check_value(EMDB_ROOT, "", NULL);
	no_views();
	CHECK_OK(emdb_close(db));
}

/* A walk shows the keys written before it once, those only after it not. */
TEST(test_txn__a_walk_has_a_beginning)
{
	struct emdb_entry e;
	unsigned int n = 0;
	emdb_iter *it;
	emdb_txn *t;
	emdb_err err;

	open_memory(NULL);
	for (int i = 0; i < 200; i++)
		CHECK_OK(emdb_put(db, EMDB_ROOT, &i, sizeof(i), "x", 1, 0));
	t = begin();
	for (int i = 150; i < 250; i++)
		CHECK_OK(emdb_txn_put(t, EMDB_ROOT, &i, sizeof(i), "own", 3, 0));
	CHECK_OK(emdb_txn_iter(t, EMDB_ROOT, EMDB_ITER_VALUES, &it));
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
		int i;

		CHECK_UEQ(e.key_len, sizeof(i));
		memcpy(&i, e.key, sizeof(i));
		/* Own writes are shown as they are when the walk comes to them. */
		CHECK(i < 150 ? e.value_len == 1 : e.value_len == 3 || e.value_len == 6);
		n++;
		/* Every key again, and new ones. */
		i = (int)n;
		CHECK_OK(emdb_txn_put(t, EMDB_ROOT, &i, sizeof(i), "longer", 6, 0));
		i += 1000;
		CHECK_OK(emdb_txn_put(t, EMDB_ROOT, &i, sizeof(i), "longer", 6, 0));
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	CHECK_UEQ(n, 250);
	emdb_iter_free(it);
	CHECK_OK(emdb_txn_iter(t, EMDB_ROOT, 0, &it));
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK_OK(emdb_txn_commit(t, 0));
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_INVAL);
	emdb_iter_free(it);
	no_views();
	CHECK_OK(emdb_close(db));
}

TEST(test_txn__commits_across_namespaces)
{
	uint64_t a, b, count, one;
	emdb_txn *t;
	emdb_iter *it;
	struct emdb_entry e;

	open_memory(NULL);
	a = make_ns("a");
	CHECK_OK(emdb_ns_create(db, a, "b", 1, &b));
	put(a, "old", "x");
	t = begin();
	CHECK_OK(tput(t, a, "k", "in a"));
	CHECK_OK(tput(t, b, "k", "in b"));
	CHECK_OK(tput(t, EMDB_ROOT, "k", "in root"));
	CHECK_OK(emdb_txn_remove(t, a, "old", 3));
	CHECK_STR(walk(t, a, EMDB_ITER_VALUES), "b/ k=in a ");
	CHECK_OK(emdb_iter_new(db, a, EMDB_ITER_KEYS, &it));
	CHECK_OK(emdb_txn_commit(t, EMDB_COMMIT_DURABLE));
	check_value(a, "k", "in a");
	check_value(b, "k", "in b");
	check_value(EMDB_ROOT, "k", "in root");
	check_value(a, "old", NULL);
	/* An iterator from before sees none of it. */
	CHECK_OK(emdb_iter_next(it, &e));
	CHECK_MEM(e.key, e.key_len, "old", 3);
	CHECK_EQ(emdb_iter_next(it, &e), EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	CHECK_OK(emdb_count(db, a, &count));
	CHECK_UEQ(count, 2);
	CHECK_OK(emdb_count(db, b, &one));
	CHECK_UEQ(one, 1);
	no_views();
	CHECK_OK(emdb_close(db));
}

TEST(test_txn__deadlines)
{
	struct emdb_options o = { .default_ttl_ms = 3600000, .sweep_interval_ms = -1 };
	emdb_txn *t;
	int64_t at, now;

	open_memory(&o);
	now = emdb_now_ms(db);
	t = begin();
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "d", 1, "x", 1, EMDB_TTL_DEFAULT));
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "n", 1, "x", 1, EMDB_TTL_NEVER));
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "t", 1, "x", 1, now + 7200000));
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "p", 1, "x", 1, 1));
	check_txn(t, EMDB_ROOT, "p", NULL);
	CHECK_STR(walk(t, EMDB_ROOT, EMDB_ITER_VALUES), "d=x n=x t=x ");
	CHECK_EQ(emdb_txn_put(t, EMDB_ROOT, "o", 1, "x", 1, INT64_MAX), EMDB_ERR_OVERFLOW);
	CHECK_EQ(emdb_txn_put(t, EMDB_ROOT, "o", 1, "x", 1, -5), EMDB_ERR_INVAL);
	CHECK_OK(emdb_txn_commit(t, 0));
	CHECK_OK(emdb_ttl_get(db, EMDB_ROOT, "d", 1, &at));
	CHECK(at >= now + 3600000 && at < now + 3700000);
	CHECK_OK(emdb_ttl_get(db, EMDB_ROOT, "n", 1, &at));
	CHECK_EQ(at, 0);
	CHECK_OK(emdb_ttl_get(db, EMDB_ROOT, "t", 1, &at));
	CHECK_EQ(at, now + 7200000);
	check_value(EMDB_ROOT, "p", NULL);
	CHECK_OK(emdb_close(db));
}

/* Values beyond one record, new ones and over all kinds of old ones, and an object with two names. */
TEST(test_txn__large_values)
{
	static char big[3 << 20];
	struct emdb_attr at;
	emdb_txn *t;
	void *p;
	size_t n;

	open_memory(NULL);
	memset(big, 'b', sizeof(big));
	put(EMDB_ROOT, "plain", "p");
	CHECK_OK(emdb_put(db, EMDB_ROOT, "big", 3, big, sizeof(big), 0));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "two", 3, big, sizeof(big), 0));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "two", 3, &at));
	CHECK_OK(emdb_node_link(db, at.id, EMDB_ROOT, "names", 5, &at));
	emdb_node_forget(db, at.id, 2);
	t = begin();
	big[0] = 'n';
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "new", 3, big, sizeof(big), 0));
	CHECK_OK(emdb_txn_put(t, EMDB_ROOT, "plain", 5, big, sizeof(big), 0));
	CHECK_OK(tput(t, EMDB_ROOT, "big", "small"));
	CHECK_OK(tput(t, EMDB_ROOT, "two", "both"));
	CHECK_OK(emdb_txn_get(t, EMDB_ROOT, "names", 5, &p, &n));
	big[0] = 'b';
	CHECK_MEM(p, n, big, sizeof(big));
	emdb_free(p);
	CHECK_OK(emdb_txn_commit(t, 0));
	big[0] = 'n';
	for (int i = 0; i < 2; i++) {
		CHECK_OK(emdb_get(db, EMDB_ROOT, i ? "new" : "plain", i ? 3 : 5, &p, &n));
		CHECK_MEM(p, n, big, sizeof(big));
		emdb_free(p);
	}
	check_value(EMDB_ROOT, "big", "small");
	check_value(EMDB_ROOT, "two", "both");
	check_value(EMDB_ROOT, "names", "both");
	CHECK_OK(emdb_close(db));
}

/* ---- Conflicts ---- */

enum { READS = 1, WRITES = 2, WALKS = 4, SNAPSHOT = 8 };

/* A transaction does something with "k" of ns, then fn(), then it commits with a write elsewhere. */
static emdb_err meanwhile(uint64_t ns, unsigned int does, void (*fn)(uint64_t ns))
{
	emdb_txn *const t = begin_with(does & SNAPSHOT ? EMDB_TXN_SNAPSHOT : 0);
	void *p = NULL;
	size_t n;

	if (does & READS && emdb_txn_get(t, ns, "k", 1, &p, &n) == EMDB_OK)
		emdb_free(p);
	if (does & WRITES)
		CHECK_OK(tput(t, ns, "k", "mine"));
	if (does & WALKS)
		(void)walk(t, ns, 0);
	CHECK_OK(tput(t, EMDB_ROOT, "elsewhere", "x"));
	fn(ns);
	return emdb_txn_commit(t, 0);
}

static void change(uint64_t ns)
{
	put(ns, "k", "theirs");
}

static void change_big(uint64_t ns)
{
	struct emdb_attr a;

	CHECK_OK(emdb_node_lookup(db, ns, "k", 1, &a));
	CHECK_OK(emdb_node_write(db, a.id, 5, "x", 1, 0));
	emdb_node_forget(db, a.id, 1);
}

static void remove_it(uint64_t ns)
{
	CHECK_OK(emdb_remove(db, ns, "k", 1, NULL, NULL));
}

static void clear(uint64_t ns)
{
	CHECK_OK(emdb_clear(db, ns));
}

static void change_other(uint64_t ns)
{
	put(ns, "other", "theirs");
}

static void come_and_go(uint64_t ns)
{
	put(ns, "k", "theirs");
	CHECK_OK(emdb_remove(db, ns, "k", 1, NULL, NULL));
}

static void drop(uint64_t ns)
{
	(void)ns;
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "ns", 2, true));
}

static void compact(uint64_t ns)
{
	struct emdb_compact_progress done;

	/* Something dies in every segment. */
	for (int i = 0; i < 300; i++) {
		char value[8000] = { 0 };

		CHECK_OK(emdb_put(db, EMDB_ROOT, "filler", 6, value, sizeof(value), 0));
	}
	CHECK_OK(emdb_compact(db, NULL, &done));
	CHECK(done.copied_bytes > 0);
	(void)ns;
}

static void nothing(uint64_t ns)
{
	(void)ns;
}

TEST(test_txn__conflicts)
{
	static char big[100000];
	uint64_t ns;

	open_memory(NULL);
	ns = make_ns("ns");
	put(ns, "k", "old");
	CHECK_OK(meanwhile(ns, READS | WRITES | WALKS, nothing));
	CHECK_EQ(meanwhile(ns, READS, change), EMDB_ERR_CONFLICT);
	CHECK_EQ(meanwhile(ns, WRITES, change), EMDB_ERR_CONFLICT);
	CHECK_EQ(meanwhile(ns, WALKS, change), EMDB_ERR_CONFLICT);
	CHECK_EQ(meanwhile(ns, SNAPSHOT | WRITES, change), EMDB_ERR_CONFLICT);
	CHECK_OK(meanwhile(ns, SNAPSHOT | READS | WALKS, change));
	CHECK_OK(meanwhile(ns, READS | WRITES, change_other));
	CHECK_EQ(meanwhile(ns, WALKS, change_other), EMDB_ERR_CONFLICT);
	/* Wherever a record lies it is the same. */
	CHECK_OK(meanwhile(ns, READS | WRITES | WALKS, compact));
	CHECK_EQ(meanwhile(ns, READS, remove_it), EMDB_ERR_CONFLICT);
	CHECK_EQ(meanwhile(ns, READS, change), EMDB_ERR_CONFLICT);
	remove_it(ns);
	CHECK_OK(meanwhile(ns, READS | WRITES, come_and_go));
	check_value(ns, "k", "mine");
	CHECK_EQ(meanwhile(ns, READS, clear), EMDB_ERR_CONFLICT);
	/* A promoted object changes without its entry. */
	put(ns, "k", "x");
	change_big(ns);
	CHECK_OK(emdb_put(db, ns, "k", 1, big, sizeof(big), 0));
	change_big(ns);
	for (int does = READS; does <= WALKS; does *= 2) {
		CHECK_EQ(meanwhile(ns, (unsigned int)does, change_big), EMDB_ERR_CONFLICT);
		CHECK_OK(meanwhile(ns, (unsigned int)does, compact));
		CHECK_OK(emdb_put(db, ns, "k", 1, big, sizeof(big), 0));
		change_big(ns);
	}
	CHECK_EQ(meanwhile(ns, WRITES, drop), EMDB_ERR_CONFLICT);
	CHECK_EQ(meanwhile(make_ns("ns"), READS, drop), EMDB_ERR_CONFLICT);
	CHECK_EQ(meanwhile(make_ns("ns"), WALKS, drop), EMDB_ERR_CONFLICT);
	no_views();
	CHECK_OK(emdb_close(db));
}

/* Nothing of a transaction that conflicts is there, nothing of others is lost. */
TEST(test_txn__a_conflict_changes_nothing)
{
	emdb_txn *a, *b;

	open_memory(NULL);
	put(EMDB_ROOT, "n", "0");
	a = begin();
	b = begin();
	check_txn(a, EMDB_ROOT, "n", "0");
	check_txn(b, EMDB_ROOT, "n", "0");
	CHECK_OK(tput(a, EMDB_ROOT, "n", "1"));
	CHECK_OK(tput(b, EMDB_ROOT, "n", "1"));
	CHECK_OK(tput(b, EMDB_ROOT, "b", "there"));
	CHECK_OK(emdb_txn_commit(a, 0));
	CHECK_EQ(emdb_txn_commit(b, 0), EMDB_ERR_CONFLICT);
	check_value(EMDB_ROOT, "n", "1");
	check_value(EMDB_ROOT, "b", NULL);
	CHECK_OK(emdb_close(db));
}

/* Two that each write what the other read: one only, unless they said that they do not care. */
TEST(test_txn__write_skew)
{
	for (int snapshot = 0; snapshot < 2; snapshot++) {
		emdb_txn *a, *b;

		open_memory(NULL);
		put(EMDB_ROOT, "x", "on");
		put(EMDB_ROOT, "y", "on");
		a = begin_with(snapshot ? EMDB_TXN_SNAPSHOT : 0);
		b = begin_with(snapshot ? EMDB_TXN_SNAPSHOT : 0);
		check_txn(a, EMDB_ROOT, "y", "on");
		check_txn(b, EMDB_ROOT, "x", "on");
		CHECK_OK(tput(a, EMDB_ROOT, "x", "off"));
		CHECK_OK(tput(b, EMDB_ROOT, "y", "off"));
		CHECK_OK(emdb_txn_commit(a, 0));
		CHECK_EQ(emdb_txn_commit(b, 0), snapshot ? EMDB_OK : EMDB_ERR_CONFLICT);
		CHECK_OK(emdb_close(db));
	}
}

/* That a key expires, and is swept, is nobody's doing. */
TEST(test_txn__expiry_is_no_conflict)
{
	uint64_t removed;
	emdb_txn *t;
	int64_t at;

	open_memory(NULL);
	at = emdb_now_ms(db) + 30;
	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "x", 1, at));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "r", 1, "x", 1, at));
	t = begin();
	CHECK_OK(tput(t, EMDB_ROOT, "k", "mine"));
	(void)walk(t, EMDB_ROOT, 0);
	check_txn(t, EMDB_ROOT, "r", emdb_now_ms(db) < at ? "x" : NULL);
	while (emdb_now_ms(db) < at)
		usleep(2000);
	check_txn(t, EMDB_ROOT, "r", NULL);
	CHECK_OK(emdb_sweep(db, &removed));
	CHECK_UEQ(removed, 2);
	CHECK_OK(emdb_txn_commit(t, 0));
	check_value(EMDB_ROOT, "k", "mine");
	check_value(EMDB_ROOT, "r", NULL);
	CHECK_OK(emdb_close(db));
}

/* ---- Errors and limits ---- */

TEST(test_txn__errors)
{
	struct emdb_txn_options o = { .size = sizeof(o) };
	static char key[EMDB_KEY_MAX + 1], value[200000];
	emdb_txn *t;
	emdb_iter *it;
	uint64_t ns;
	bool found;
	void *p;
	size_t n;
	emdb_err err;

	open_memory(NULL);
	ns = make_ns("ns");
	o.size--;
	CHECK_EQ(emdb_txn_begin(db, &o, &t), EMDB_ERR_INVAL);
	o.size++;
	o.flags = 0x80;
	CHECK_EQ(emdb_txn_begin(db, &o, &t), EMDB_ERR_INVAL);
	t = begin();
	CHECK_EQ(emdb_txn_put(t, ns, key, sizeof(key), "", 0, 0), EMDB_ERR_KEY_TOO_LONG);
	CHECK_OK(emdb_txn_put(t, ns, key, sizeof(key) - 1, "", 0, 0));
	CHECK_EQ(emdb_txn_get(t, ns, key, sizeof(key), &p, &n), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_txn_put(t, ns, "k", 1, "", EMDB_VALUE_MAX + 1, 0), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_EQ(emdb_txn_put(t, EMDB_ROOT, "ns", 2, "", 0, 0), EMDB_ERR_IS_NS);
	CHECK_EQ(emdb_txn_remove(t, EMDB_ROOT, "ns", 2), EMDB_ERR_IS_NS);
	CHECK_EQ(emdb_txn_get(t, EMDB_ROOT, "ns", 2, &p, &n), EMDB_ERR_IS_NS);
	CHECK_OK(emdb_txn_contains(t, EMDB_ROOT, "ns", 2, &found));
	CHECK(!found);
	CHECK_EQ(emdb_txn_contains(t, 12345, "ns", 2, &found), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_txn_put(t, 12345, "k", 1, "", 0, 0), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_txn_remove(t, ns, "absent", 6), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_txn_iter(t, 12345, 0, &it), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_txn_iter(t, ns, EMDB_ITER_LIVE, &it), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_txn_commit(t, 0x80), EMDB_ERR_INVAL);
	/* A namespace that came later is not there yet. */
	t = begin();
	ns = make_ns("later");
	CHECK_EQ(tput(t, ns, "k", "v"), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_txn_commit(t, 0));
	/* As much as fits one segment; what was written before stays. */
	t = begin();
	for (n = 0, err = EMDB_OK; !err; n++)
		err = emdb_txn_put(t, ns, &n, sizeof(n), value, sizeof(value), 0);
	CHECK_EQ(err, EMDB_ERR_TXN_TOO_BIG);
	CHECK(n > 3);
	/* The same keys again take no more room. */
	for (size_t i = 0; i < n - 1; i++)
		CHECK_OK(emdb_txn_put(t, ns, &i, sizeof(i), value, sizeof(value), 0));
	CHECK_OK(emdb_txn_commit(t, 0));
	for (size_t i = 0; i < n; i++) {
		CHECK_OK(emdb_contains(db, ns, &i, sizeof(i), &found));
		CHECK_EQ(found, i < n - 1);
	}
	t = begin_with(EMDB_TXN_READ_ONLY);
	CHECK_EQ(tput(t, ns, "k", "v"), EMDB_ERR_READ_ONLY);
	CHECK_EQ(emdb_txn_remove(t, ns, "k", 1), EMDB_ERR_READ_ONLY);
	CHECK_OK(emdb_txn_commit(t, 0));
	emdb_txn_abort(NULL);
	no_views();
	/* What is left open goes with the store. */
	t = begin();
	CHECK_OK(tput(t, ns, "k", "v"));
	CHECK_OK(emdb_close(db));
}

/* On disk; a reopened store has what was committed, a read-only one takes no writes. */
TEST(test_txn__survives_a_restart)
{
	struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	const char *const path = test_dir();
	uint64_t ns;
	emdb_txn *t;

	CHECK_OK(emdb_open(path, &o, &db));
	ns = make_ns("ns");
	t = begin();
	CHECK_OK(tput(t, ns, "a", "1"));
	CHECK_OK(tput(t, EMDB_ROOT, "b", "2"));
	CHECK_OK(emdb_txn_commit(t, EMDB_COMMIT_DURABLE));
	t = begin();
	CHECK_OK(tput(t, ns, "a", "no"));
	CHECK_OK(emdb_close(db));
	o.flags = EMDB_OPEN_READ_ONLY;
	CHECK_OK(emdb_open(path, &o, &db));
	check_value(ns, "a", "1");
	t = begin();
	check_txn(t, ns, "a", "1");
	CHECK_STR(walk(t, EMDB_ROOT, EMDB_ITER_VALUES), "b=2 ns/ ");
	CHECK_EQ(tput(t, ns, "a", "3"), EMDB_ERR_READ_ONLY);
	CHECK_OK(emdb_txn_commit(t, 0));
	CHECK_OK(emdb_close(db));
}

/* ---- Compare and set ---- */

static emdb_err cas(const char *key, const char *expected, const char *desired)
{
	const struct emdb_value e = { expected, expected ? strlen(expected) : 0 };
	const struct emdb_value d = { desired, desired ? strlen(desired) : 0 };

	return emdb_cas(db, EMDB_ROOT, key, strlen(key), expected ? &e : NULL, desired ? &d : NULL,
			0);
}

TEST(test_cas__one_value_for_another)
{
	static char big[2 << 20];
	const struct emdb_value large = { big, sizeof(big) };
	struct emdb_value v = { "x", 1 };
	uint64_t ns;

	open_memory(NULL);
	ns = make_ns("ns");
	CHECK_EQ(cas("k", "1", "2"), EMDB_ERR_CONFLICT);
	CHECK_OK(cas("k", NULL, "1"));
	CHECK_EQ(cas("k", NULL, "1"), EMDB_ERR_CONFLICT);
	CHECK_EQ(cas("k", "2", "1"), EMDB_ERR_CONFLICT);
	CHECK_EQ(cas("k", "11", "1"), EMDB_ERR_CONFLICT);
	CHECK_EQ(cas("k", "", "1"), EMDB_ERR_CONFLICT);
	CHECK_OK(cas("k", "1", ""));
	check_value(EMDB_ROOT, "k", "");
	CHECK_OK(cas("k", "", "2"));
	CHECK_EQ(cas("k", "1", NULL), EMDB_ERR_CONFLICT);
	CHECK_OK(cas("k", "2", NULL));
	check_value(EMDB_ROOT, "k", NULL);
	CHECK_OK(cas("k", NULL, NULL));
	/* Large ones, and back. */
	CHECK_OK(emdb_cas(db, EMDB_ROOT, "k", 1, NULL, &large, 0));
	CHECK_EQ(cas("k", "2", "3"), EMDB_ERR_CONFLICT);
	big[7] = 1;
	CHECK_EQ(emdb_cas(db, EMDB_ROOT, "k", 1, &large, &v, 0), EMDB_ERR_CONFLICT);
	big[7] = 0;
	CHECK_OK(emdb_cas(db, EMDB_ROOT, "k", 1, &large, &v, 0));
	check_value(EMDB_ROOT, "k", "x");
	/* What has expired is absent. */
	CHECK_OK(emdb_cas(db, EMDB_ROOT, "t", 1, NULL, &v, 1));
	CHECK_EQ(cas("t", "x", "y"), EMDB_ERR_CONFLICT);
	CHECK_OK(cas("t", NULL, "y"));
	CHECK_EQ(cas("ns", NULL, "y"), EMDB_ERR_IS_NS);
	CHECK_EQ(emdb_cas(db, 4711, "k", 1, NULL, &v, 0), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_cas(db, ns, "k", EMDB_KEY_MAX + 1, NULL, &v, 0), EMDB_ERR_KEY_TOO_LONG);
	v.len = EMDB_VALUE_MAX + 1;
	CHECK_EQ(emdb_cas(db, ns, "k", 1, NULL, &v, 0), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
