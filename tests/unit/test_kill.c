/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that is killed at any instruction. Three threads of a child work, each in its own
 * namespace, and note in shared memory what the namespace is before and after the operation under
 * way. Afterwards it must be one of the two, and the one after when the operation had returned.
 * KILLS says how often, SEED how.
 */
#include "tests/unit/secret.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "core/emdb.h"

#ifdef __SANITIZE_ADDRESS__
#define KILLS_LONG 200u
#else
#define KILLS_LONG 2000u
#endif
#define THREADS   3
#define KEYS      8
#define SIZE_MAX_ ((size_t)1400000)

/* What a key holds: everything follows from these numbers.  base 0: absent. */
struct value {
	uint64_t base;  /* names size and bytes */
	uint64_t patch; /* names what was written over them, 0: nothing */
	uint64_t cut;   /* and then cut to this size, 0: not */
};

struct worker {
	/* Bit 0: which state counts; bit 1: an operation towards the other one is under way. */
	_Atomic(unsigned int) phase;
	struct value states[2][KEYS];
	uint64_t rnd, ns, ops;
};

static struct shared {
	struct worker workers[THREADS];
	_Atomic(uint64_t) versions;
	char report[1024];
} * sh;

static emdb_db *db;

#define DIE(...) (snprintf(sh->report, sizeof(sh->report), __VA_ARGS__), _exit(1))

/* ---- Contents ---- */

static size_t base_size(uint64_t base)
{
	uint64_t s = base;
	const uint64_t dice = test_rand(&s) % 100;

	if (dice < 60)
		return test_rand(&s) % 400;
	if (dice < 90)
		return test_rand(&s) % 20000;
	return test_rand(&s) % SIZE_MAX_;
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i += 8) {
		const uint64_t v = test_rand(&seed);

		memcpy(p + i, &v, n - i < 8 ? n - i : 8);
	}
}

static void patch_place(uint64_t patch, size_t *ret_off, size_t *ret_len)
{
	uint64_t s = ~patch;

	*ret_off = test_rand(&s) % 9000;
	*ret_len = 1 + test_rand(&s) % 9000;
}

/* The bytes of v; p has room for the largest. */
static size_t contents(const struct value *v, uint8_t *p)
{
	size_t n = base_size(v->base), off, len;

	memset(p, 0, n + 20000);
	fill(p, n, v->base);
	if (v->patch) {
		patch_place(v->patch, &off, &len);
		fill(p + off, len, v->patch);
		n = off + len > n ? off + len : n;
	}
	if (v->cut) {
		if (v->cut > n)
			memset(p + n, 0, v->cut - n);
		n = v->cut;
	}
	return n;
}

static uint8_t *room(void)
{
	uint8_t *const p = malloc(SIZE_MAX_ + 65536);

	if (!p)
		abort();
	return p;
}

static void key_of(unsigned int k, char buf[8])
{
	snprintf(buf, 8, "key-%u", k);
}

/* ---- Work ---- */

static uint64_t version(bool small)
{
	uint64_t v;

	do
		v = atomic_fetch_add(&sh->versions, 1) + 1;
	while (small && base_size(v) > 20000);
	return v;
}

enum kind { PUT, CAS, REMOVE, MANY, TXN, RENAME, EXCHANGE, WRITE, TRUNCATE, CLEAR };

struct act {
	enum kind kind;
	unsigned int a, b;
	bool also; /* TXN: b is removed */
};

/* What the operation makes of `next`; false: there is nothing to do it to. */
static bool plan(struct worker *w, struct act *act, struct value next[KEYS])
{
	static const enum kind kinds[] = {
		PUT,    PUT,    CAS,      REMOVE, MANY,  TXN,      TXN,
		RENAME, RENAME, EXCHANGE, WRITE,  WRITE, TRUNCATE, CLEAR
	};
	struct value *a, *b;

	act->also = false;
	act->kind = kinds[test_rand(&w->rnd) % (sizeof(kinds) / sizeof(kinds[0]))];
	act->a = (unsigned int)(test_rand(&w->rnd) % KEYS);
	act->b = (act->a + 1 + (unsigned int)(test_rand(&w->rnd) % (KEYS - 1))) % KEYS;
	a = &next[act->a];
	b = &next[act->b];
	if (act->kind == CLEAR && test_rand(&w->rnd) % 4 == 0) {
		memset(next, 0, KEYS * sizeof(*next));
		return true;
	}
	if (act->kind == PUT || act->kind == MANY || act->kind == CAS || act->kind == TXN) {
		/* A transaction leaves one of two, the other goes; or it puts both, of any size. */
		act->also = act->kind == TXN && b->base && test_rand(&w->rnd) % 2;
		*a = (struct value){ .base = version(act->kind == MANY) };
		if (act->also)
			*b = (struct value){ 0 };
		else if (act->kind == MANY || act->kind == TXN)
			*b = (struct value){ .base = version(act->kind == MANY) };
		return true;
	}
	if (act->kind == CLEAR || !a->base || (act->kind == EXCHANGE && !b->base) ||
	    (act->kind == WRITE && a->patch) || (act->kind >= WRITE && a->cut))
		return false;
	if (act->kind == REMOVE) {
		a->base = a->patch = a->cut = 0;
	} else if (act->kind == WRITE) {
		a->patch = version(false);
	} else if (act->kind == TRUNCATE) {
		a->cut = 1 + test_rand(&w->rnd) % 30000;
	} else {
		const struct value old = *b;

		*b = *a;
		*a = act->kind == EXCHANGE ? old : (struct value){ 0 };
	}
	return true;
}

static emdb_err put_both(struct worker *w, const struct act *act, const struct value next[KEYS])
{
	struct emdb_item items[2] = { { 0 } };
	uint8_t *p[2] = { room(), room() };
	char key[2][8];
	emdb_err err;

	for (int i = 0; i < 2; i++) {
		const unsigned int k = i ? act->b : act->a;

		key_of(k, key[i]);
		items[i].key = key[i];
		items[i].key_len = strlen(key[i]);
		items[i].value = p[i];
		items[i].value_len = contents(&next[k], p[i]);
	}
	err = emdb_put_many(db, w->ns, items, 2);
	free(p[0]);
	free(p[1]);
	return err;
}

static emdb_err transact(struct worker *w, const struct act *act, const struct value next[KEYS],
			 uint8_t *p)
{
	char a[8], b[8];
	emdb_txn *t;
	emdb_err err;

	key_of(act->a, a);
	key_of(act->b, b);
	err = emdb_txn_begin(db, NULL, &t);
	if (err)
		return err;
	err = emdb_txn_put(t, w->ns, a, strlen(a), p, contents(&next[act->a], p), EMDB_TTL_NEVER);
	if (!err && act->also)
		err = emdb_txn_remove(t, w->ns, b, strlen(b));
	else if (!err)
		err = emdb_txn_put(t, w->ns, b, strlen(b), p, contents(&next[act->b], p),
				   EMDB_TTL_NEVER);
	if (err) {
		emdb_txn_abort(t);
		return err;
	}
	return emdb_txn_commit(t, 0);
}

/* What is there for something else. */
static emdb_err swap(struct worker *w, const char *key, const struct value *v, uint8_t *p)
{
	const struct emdb_value desired = { p, contents(v, p) };
	struct emdb_value expected;
	void *was;
	emdb_err err;

	err = emdb_get(db, w->ns, key, strlen(key), &was, &expected.len);
	if (err == EMDB_ERR_NOT_FOUND)
		return emdb_cas(db, w->ns, key, strlen(key), NULL, &desired, EMDB_TTL_NEVER);
	if (err)
		return err;
	expected.data = was;
	err = emdb_cas(db, w->ns, key, strlen(key), &expected, &desired, EMDB_TTL_NEVER);
	free(was);
	return err;
}

/* A change of one object by its id. */
static emdb_err change(struct worker *w, const struct act *act, const struct value *v, uint8_t *p)
{
	struct emdb_attr attr;
	size_t off, len;
	char key[8];
	emdb_err err;

	key_of(act->a, key);
	err = emdb_node_lookup(db, w->ns, key, strlen(key), &attr);
	if (err)
		return err;
	if (act->kind == WRITE) {
		patch_place(v->patch, &off, &len);
		fill(p, len, v->patch);
		err = emdb_node_write(db, attr.id, off, p, len, 0);
	} else {
		attr.size = v->cut;
		err = emdb_node_setattr(db, attr.id, &attr, EMDB_SET_SIZE, &attr);
	}
	emdb_node_forget(db, attr.id, 1);
	return err;
}

static emdb_err perform(struct worker *w, const struct act *act, const struct value next[KEYS],
			uint8_t *p)
{
	const struct value *const v = &next[act->a];
	char a[8], b[8];

	key_of(act->a, a);
	key_of(act->b, b);
	switch (act->kind) {
	case PUT:
		return emdb_put(db, w->ns, a, strlen(a), p, contents(v, p), EMDB_TTL_NEVER);
	case CAS:
		return swap(w, a, v, p);
	case TXN:
		return transact(w, act, next, p);
	case REMOVE:
		return emdb_remove(db, w->ns, a, strlen(a), NULL, NULL);
	case MANY:
		return put_both(w, act, next);
	case RENAME:
		return emdb_node_rename(db, w->ns, a, strlen(a), w->ns, b, strlen(b), 0);
	case EXCHANGE:
		return emdb_node_rename(db, w->ns, a, strlen(a), w->ns, b, strlen(b),
					EMDB_RENAME_EXCHANGE);
	case CLEAR:
		return emdb_clear(db, w->ns);
	case WRITE:
	case TRUNCATE:
		break;
	}
	return change(w, act, v, p);
}

static void *work(void *arg)
{
	struct worker *const w = arg;
	uint8_t *const p = room();

	for (;;) {
		const unsigned int cur = w->phase & 1;
		struct value *const next = w->states[1 - cur];
		struct act act;
		emdb_err err;

		memcpy(next, w->states[cur], sizeof(w->states[cur]));
		if (!plan(w, &act, next))
			continue;
		atomic_store(&w->phase, cur | 2);
		err = perform(w, &act, next, p);
		if (err)
			DIE("operation %d on key %u: %s", act.kind, act.a, emdb_err_name(err));
		atomic_store(&w->phase, 1 - cur);
		w->ops++;
		if (test_rand(&w->rnd) % 50 == 0 && emdb_flush(db))
			DIE("flush failed");
		if (test_rand(&w->rnd) % 100 == 0 && emdb_checkpoint(db))
			DIE("checkpoint failed");
		if (test_rand(&w->rnd) % 100 == 0 && emdb_compact(db, NULL, NULL))
			DIE("compaction failed");
	}
	return NULL;
}

/* ---- Afterwards ---- */

/* Does the store hold v under key k? */
static bool holds(const struct worker *w, unsigned int k, const struct value *v, uint8_t *p)
{
	size_t n, want;
	void *value;
	char key[8];
	emdb_err err;
	bool same;

	key_of(k, key);
	err = emdb_get(db, w->ns, key, strlen(key), &value, &n);
	if (err == EMDB_ERR_NOT_FOUND)
		return v->base == 0;
	CHECK_EQ(err, EMDB_OK);
	want = v->base ? contents(v, p) : 0;
	same = v->base && want == n && memcmp(p, value, n) == 0;
	emdb_free(value);
	return same;
}

static bool is_state(const struct worker *w, const struct value state[KEYS], uint8_t *p)
{
	for (unsigned int k = 0; k < KEYS; k++)
		if (!holds(w, k, &state[k], p))
			return false;
	return true;
}

static void check_worker(struct worker *w, uint8_t *p)
{
	const unsigned int cur = w->phase & 1;

	if (is_state(w, w->states[cur], p)) {
		w->phase = cur;
		return;
	}
	if (w->phase & 2 && is_state(w, w->states[1 - cur], p)) {
		w->phase = 1 - cur;
		return;
	}
	for (unsigned int k = 0; k < KEYS; k++) {
		const struct value *const a = &w->states[cur][k], *const b = &w->states[1 - cur][k];

		printf("key %u: %s%s; before %" PRIu64 "/%" PRIu64 "/%" PRIu64 ", after %" PRIu64
		       "/%" PRIu64 "/%" PRIu64 "\n",
		       k, holds(w, k, a, p) ? "as before " : "",
		       holds(w, k, b, p) ? "as after" : "", a->base, a->patch, a->cut, b->base,
		       b->patch, b->cut);
	}
	FAIL("worker %d, %" PRIu64 " operations: the store is in no state it ever was in (%s)",
	     (int)(w - sh->workers), w->ops, w->phase & 2 ? "one under way" : "all returned");
}

static void store_open(const char *path)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_CREATE,
					   .segment_bytes = EMDB_SEGMENT_MIN,
					   .secret = test_secret(),
					   .detail = &detail };
	const emdb_err err = emdb_open(path, &opts, &db);

	if (err) {
		(void)snprintf(sh->report, sizeof(sh->report), "open: %s: %s", emdb_err_name(err),
			       detail.text);
		FAIL("%s", sh->report);
	}
}

static void child(const char *path)
{
	pthread_t t;

	store_open(path);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&t, NULL, work, &sh->workers[i]))
			DIE("no thread");
	for (;;)
		pause();
}

static void kill_once(const char *path, uint64_t *rnd)
{
	const struct timespec some = { 0, (long)(test_rand(rnd) % 25000000) };
	const pid_t pid = fork();
	uint64_t ops = 0;
	int status;

	CHECK(pid >= 0);
	if (pid == 0)
		child(path);
	/* Sometimes while it still opens. */
	for (int i = 0; i < 2000 && test_rand(rnd) % 16; i++) {
		ops = 0;
		for (int t = 0; t < THREADS; t++)
			ops += sh->workers[t].phase & 2;
		if (ops)
			break;
		nanosleep(&(struct timespec){ 0, 100000 }, NULL);
	}
	nanosleep(&some, NULL);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status))
		FAIL("the child ended with status %#x: %s", status, sh->report);
}

TEST(test_kill__the_state_is_before_or_after)
{
	const char *const env = getenv("KILLS");
	const unsigned int n = env                   ? (unsigned int)strtoul(env, NULL, 0)
			       : getenv("EMDB_LONG") ? KILLS_LONG
						     : 25;
	uint8_t *const p = room();
	uint64_t rnd = test_seed();
	char path[PATH_MAX + 8];

	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(sh != MAP_FAILED);
	snprintf(path, sizeof(path), "%s/store", test_dir());
	store_open(path);
	for (int i = 0; i < THREADS; i++) {
		const char name[2] = { (char)('a' + i), 0 };

		CHECK_OK(emdb_ns_create(db, EMDB_ROOT, name, 1, &sh->workers[i].ns));
		sh->workers[i].rnd = test_rand(&rnd);
	}
	CHECK_OK(emdb_close(db));
	for (unsigned int i = 0; i < n; i++) {
		struct emdb_check_report report;

		kill_once(path, &rnd);
		if (test_rand(&rnd) % 2)
			CHECK_OK(emdb_check_secret(path, test_secret(), NULL, NULL, &report));
		store_open(path);
		for (int t = 0; t < THREADS; t++)
			check_worker(&sh->workers[t], p);
		CHECK_OK(emdb_close(db));
	}
	for (int t = 0; t < THREADS; t++)
		printf("worker %d: %" PRIu64 " operations\n", t, sh->workers[t].ops);
	printf("%u kills, lost: 0\n", n);
	free(p);
}

TEST_MAIN()
