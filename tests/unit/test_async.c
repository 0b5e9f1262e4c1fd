/* SPDX-License-Identifier: Apache-2.0 */
/* Operations without waiting, their completions, and streams, through the public interface. */
#include "core/emdb.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include "tests/unit/test.h"

struct world {
	emdb_db *db;
	emdb_async *async;
};

static struct world world_new(uint32_t threads, uint32_t depth)
{
	const struct emdb_async_options o = { .size = sizeof(o),
					      .threads = threads,
					      .depth = depth };
	struct world w;

	CHECK_OK(emdb_open_memory(NULL, &w.db));
	CHECK_OK(emdb_async_new(w.db, &o, &w.async));
	return w;
}

static void world_free(struct world *w)
{
	emdb_async_free(w->async);
	CHECK_OK(emdb_close(w->db));
}

static struct emdb_op op_of(enum emdb_op_kind kind, const char *key)
{
	return (struct emdb_op){ .size = sizeof(struct emdb_op),
				 .kind = kind,
				 .ns = EMDB_ROOT,
				 .key = key,
				 .key_len = key ? strlen(key) : 0 };
}

/* Submits one operation and waits for its completion. */
static struct emdb_completion done_of(struct world *w, const struct emdb_op *op)
{
	struct emdb_completion c = { 0 };
	uint64_t id = 0;
	size_t n;

	CHECK_OK(emdb_async_submit(w->async, op, &id));
	CHECK(id != 0);
	CHECK_OK(emdb_async_poll(w->async, &c, 1, -1, &n));
	CHECK_EQ(n, 1);
	CHECK_UEQ(c.id, id);
	CHECK_EQ(c.kind, op->kind);
	CHECK(c.user == op->user);
	return c;
}

static struct emdb_completion done(struct world *w, enum emdb_op_kind kind, const char *key)
{
	const struct emdb_op op = op_of(kind, key);

	return done_of(w, &op);
}

static void put(struct world *w, const char *key, const char *value)
{
	struct emdb_op op = op_of(EMDB_OP_PUT, key);

	op.value = value;
	op.value_len = strlen(value);
	CHECK_OK(done_of(w, &op).err);
}

TEST(test_async__every_operation_does_what_its_plain_form_does)
{
	struct world w = world_new(1, 0);
	struct emdb_op op;
	struct emdb_completion c;
	const struct emdb_item items[] = {
		{ .key = "m1", .key_len = 2, .value = "1", .value_len = 1 },
		{ .key = "m2", .key_len = 2, .value = "2", .value_len = 1 },
	};
	uint64_t ns;

	put(&w, "k", "value");
	c = done(&w, EMDB_OP_GET, "k");
	CHECK_OK(c.err);
	CHECK_MEM(c.value, c.value_len, "value", 5);
	emdb_free(c.value);
	CHECK_EQ(done(&w, EMDB_OP_GET, "absent").err, EMDB_ERR_NOT_FOUND);
	CHECK_UEQ(done(&w, EMDB_OP_CONTAINS, "k").number, 1);
	CHECK_UEQ(done(&w, EMDB_OP_CONTAINS, "absent").number, 0);
	op = op_of(EMDB_OP_TTL_SET, "k");
	op.expires_ms = emdb_now_ms(w.db) + 1000000;
	CHECK_OK(done_of(&w, &op).err);
	CHECK_EQ(done(&w, EMDB_OP_TTL_GET, "k").expires_ms, op.expires_ms);
	op = op_of(EMDB_OP_PUT_MANY, NULL);
	op.items = items;
	op.item_count = 2;
	CHECK_OK(done_of(&w, &op).err);
	CHECK_UEQ(done(&w, EMDB_OP_COUNT, NULL).number, 3);
	op = op_of(EMDB_OP_REMOVE, "k");
	op.flags = EMDB_OP_WANT_VALUE;
	c = done_of(&w, &op);
	CHECK_OK(c.err);
	CHECK_MEM(c.value, c.value_len, "value", 5);
	emdb_free(c.value);
	c = done(&w, EMDB_OP_REMOVE, "m1");
	CHECK_OK(c.err);
	CHECK(!c.value);
	CHECK_EQ(done(&w, EMDB_OP_REMOVE, "m1").err, EMDB_ERR_NOT_FOUND);
	c = done(&w, EMDB_OP_NS_CREATE, "dir");
	CHECK_OK(c.err);
	ns = c.number;
	CHECK_UEQ(done(&w, EMDB_OP_NS_OPEN, "dir").number, ns);
	CHECK_OK(emdb_put(w.db, ns, "in", 2, "x", 1, 0));
	CHECK_EQ(done(&w, EMDB_OP_NS_DROP, "dir").err, EMDB_ERR_NOT_EMPTY);
	op = op_of(EMDB_OP_NS_DROP, "dir");
	op.flags = EMDB_OP_RECURSIVE;
	CHECK_OK(done_of(&w, &op).err);
	CHECK_OK(done(&w, EMDB_OP_SWEEP, NULL).err);
	CHECK_OK(done(&w, EMDB_OP_FLUSH, NULL).err);
	CHECK_OK(done(&w, EMDB_OP_COMPACT, NULL).err);
	CHECK_OK(done(&w, EMDB_OP_CLEAR, NULL).err);
	CHECK_UEQ(done(&w, EMDB_OP_COUNT, NULL).number, 0);
	CHECK_EQ(done(&w, EMDB_OP_SNAPSHOT_CREATE, "s").err, EMDB_ERR_UNSUPPORTED);
	world_free(&w);
}

TEST(test_async__operations_on_the_files_of_a_store)
{
	const char *const dir = test_dir();
	const struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	char store[PATH_MAX + 8], target[PATH_MAX + 8];
	struct world w;
	struct emdb_op op;

	snprintf(store, sizeof(store), "%s/store", dir);
	snprintf(target, sizeof(target), "%s/backup", dir);
	CHECK_OK(emdb_open(store, &o, &w.db));
	CHECK_OK(emdb_async_new(w.db, NULL, &w.async));
	op = op_of(EMDB_OP_PUT, "k");
	op.flags = EMDB_OP_DURABLE;
	op.value = "v";
	op.value_len = 1;
	CHECK_OK(done_of(&w, &op).err);
	CHECK_OK(done(&w, EMDB_OP_CHECKPOINT, NULL).err);
	CHECK_OK(done(&w, EMDB_OP_SNAPSHOT_CREATE, "one").err);
	CHECK_EQ(done(&w, EMDB_OP_SNAPSHOT_CREATE, "one").err, EMDB_ERR_EXISTS);
	CHECK_OK(done(&w, EMDB_OP_SNAPSHOT_DELETE, "one").err);
	CHECK_OK(done(&w, EMDB_OP_BACKUP, target).err);
	CHECK_EQ(access(target, F_OK), 0);
	world_free(&w);
}

/* A durable operation is on stable storage when it completes; many share a sync. */
TEST(test_async__durable_operations_share_syncs)
{
	const char *const dir = test_dir();
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.commit_interval_s = -1 };
	struct emdb_completion c[256];
	struct emdb_stats before, after;
	struct world w;
	size_t n, got = 0;

	CHECK_OK(emdb_open(dir, &o, &w.db));
	CHECK_OK(emdb_async_new(w.db, NULL, &w.async));
	CHECK_OK(emdb_stats_get(w.db, &before));
	for (int i = 0; i < 256; i++) {
		char key[16];
		struct emdb_op op;

		snprintf(key, sizeof(key), "k%d", i);
		op = op_of(EMDB_OP_PUT, key);
		op.flags = EMDB_OP_DURABLE;
		CHECK_OK(emdb_async_submit(w.async, &op, NULL));
	}
	while (got < 256) {
		CHECK_OK(emdb_async_poll(w.async, c, 256, -1, &n));
		for (size_t i = 0; i < n; i++)
			CHECK_OK(c[i].err);
		got += n;
	}
	CHECK_OK(emdb_stats_get(w.db, &after));
	CHECK_UEQ(after.durable_lsn, after.tail_lsn);
	CHECK(after.syncs > before.syncs && after.syncs - before.syncs < 256);
	world_free(&w);
}

/* ---- Callbacks, limits, cancelling --------------------------------------- */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool inside, open; /* guarded by lock */
	_Atomic(int) called;
	_Atomic(int) cancelled;
};

#define GATE                                                                         \
	{                                                                            \
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, \
	}

/* Stays in the queue's thread until the gate opens. */
static emdb_err stay(emdb_db *db, void *user, const emdb_op_run *run)
{
	struct gate *const g = user;

	(void)db;
	pthread_mutex_lock(&g->lock);
	g->inside = true;
	pthread_cond_broadcast(&g->cond);
	while (!g->open && !emdb_op_cancelled(run)) {
		pthread_mutex_unlock(&g->lock);
		usleep(1000);
		pthread_mutex_lock(&g->lock);
	}
	pthread_mutex_unlock(&g->lock);
	return emdb_op_cancelled(run) ? EMDB_ERR_CANCELLED : EMDB_OK;
}

static void gate_wait(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	while (!g->inside)
		pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->open = true;
	pthread_mutex_unlock(&g->lock);
}

static void count_done(void *user, const struct emdb_completion *c)
{
	struct gate *const g = user;

	atomic_fetch_add(c->err == EMDB_ERR_CANCELLED ? &g->cancelled : &g->called, 1);
}

/* Occupies the only thread of w. */
static uint64_t stay_submit(struct world *w, struct gate *g)
{
	struct emdb_op op = op_of(EMDB_OP_CALL, NULL);
	uint64_t id;

	op.call = stay;
	op.user = g;
	CHECK_OK(emdb_async_submit(w->async, &op, &id));
	gate_wait(g);
	return id;
}

TEST(test_async__callbacks_come_once_and_never_to_the_poller)
{
	struct world w = world_new(2, 0);
	struct gate g = GATE;
	struct emdb_completion c;
	size_t n = 1;

	for (int i = 0; i < 100; i++) {
		struct emdb_op op = op_of(EMDB_OP_PUT, "k");

		op.done = count_done;
		op.user = &g;
		CHECK_OK(emdb_async_submit(w.async, &op, NULL));
	}
	/* Returns when nothing is in flight any more. */
	CHECK_OK(emdb_async_poll(w.async, &c, 1, -1, &n));
	CHECK_EQ(n, 0);
	CHECK_EQ(atomic_load(&g.called), 100);
	world_free(&w);
}

TEST(test_async__depth_is_the_limit)
{
	struct world w = world_new(1, 4);
	struct gate g = GATE;
	struct emdb_op op = op_of(EMDB_OP_PUT, "k");
	struct emdb_completion c[8];
	size_t n, got = 0;

	(void)stay_submit(&w, &g);
	for (int i = 0; i < 3; i++)
		CHECK_OK(emdb_async_submit(w.async, &op, NULL));
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_AGAIN);
	gate_open(&g);
	for (int i = 0; i < 100 && got < 4; i++) {
		/* A completion that nobody has taken counts. */
		CHECK_OK(emdb_async_poll(w.async, c, 8, 10000, &n));
		got += n;
	}
	CHECK_EQ(got, 4);
	CHECK_OK(done_of(&w, &op).err);
	world_free(&w);
}

TEST(test_async__one_thread_keeps_the_order)
{
	struct world w = world_new(1, 0);
	struct emdb_completion c[64];
	uint64_t ids[64];
	size_t n, got = 0;

	for (int i = 0; i < 64; i++) {
		struct emdb_op op = op_of(EMDB_OP_PUT, "k");
		const char value = (char)i;

		op.value = &value;
		op.value_len = 1;
		CHECK_OK(emdb_async_submit(w.async, &op, &ids[i]));
	}
	while (got < 64) {
		CHECK_OK(emdb_async_poll(w.async, c, 64, -1, &n));
		for (size_t i = 0; i < n; i++)
			CHECK_UEQ(c[i].id, ids[got + i]);
		got += n;
	}
	c[0] = done(&w, EMDB_OP_GET, "k");
	CHECK_EQ(*(const char *)c[0].value, 63);
	emdb_free(c[0].value);
	world_free(&w);
}

TEST(test_async__cancelling)
{
	struct world w = world_new(1, 0);
	struct gate g = GATE;
	struct emdb_op op = op_of(EMDB_OP_PUT, "k");
	struct emdb_completion c[2];
	uint64_t running, queued;
	size_t n;
	bool found = true;

	running = stay_submit(&w, &g);
	CHECK_OK(emdb_async_submit(w.async, &op, &queued));
	CHECK_OK(emdb_async_cancel(w.async, queued));
	CHECK_EQ(emdb_async_cancel(w.async, queued), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_async_cancel(w.async, queued + 1000), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_async_poll(w.async, c, 2, -1, &n));
	CHECK_EQ(n, 1);
	CHECK_UEQ(c[0].id, queued);
	CHECK_EQ(c[0].err, EMDB_ERR_CANCELLED);
	/* What runs is told. */
	CHECK_OK(emdb_async_cancel(w.async, running));
	CHECK_OK(emdb_async_poll(w.async, c, 2, -1, &n));
	CHECK_EQ(n, 1);
	CHECK_EQ(c[0].err, EMDB_ERR_CANCELLED);
	CHECK_OK(emdb_contains(w.db, EMDB_ROOT, "k", 1, &found));
	CHECK(!found);
	/* A slot that is used again has another id. */
	CHECK_OK(emdb_async_submit(w.async, &op, &queued));
	CHECK(queued != running);
	world_free(&w);
}

TEST(test_async__freeing_cancels_what_has_not_begun)
{
	struct world w = world_new(1, 0);
	struct gate g = GATE;
	struct emdb_op op = op_of(EMDB_OP_PUT, "k");

	(void)stay_submit(&w, &g);
	op.done = count_done;
	op.user = &g;
	for (int i = 0; i < 10; i++)
		CHECK_OK(emdb_async_submit(w.async, &op, NULL));
	world_free(&w);
	CHECK_EQ(atomic_load(&g.cancelled), 10);
	CHECK_EQ(atomic_load(&g.called), 0);
}

TEST(test_async__wrong_arguments)
{
	struct world w = world_new(1, 0);
	struct emdb_async_options o = { .size = sizeof(o) };
	struct emdb_stream_options so = { .size = sizeof(so) };
	struct emdb_op op = op_of(EMDB_OP_PUT, "k");
	struct emdb_completion c;
	emdb_async *async;
	emdb_stream *s;
	size_t n;

	o.threads = EMDB_ASYNC_THREADS_MAX + 1;
	CHECK_EQ(emdb_async_new(w.db, &o, &async), EMDB_ERR_INVAL);
	o.threads = 0;
	o.depth = EMDB_ASYNC_DEPTH_MAX + 1;
	CHECK_EQ(emdb_async_new(w.db, &o, &async), EMDB_ERR_INVAL);
	o.size = 1;
	CHECK_EQ(emdb_async_new(w.db, &o, &async), EMDB_ERR_INVAL);
	so.items = EMDB_STREAM_ITEMS_MAX + 1;
	CHECK_EQ(emdb_stream_iter(w.async, EMDB_ROOT, 0, &so, &s), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_async_poll(w.async, &c, 0, 0, &n), EMDB_ERR_INVAL);
	op.key_len = EMDB_KEY_MAX + 1;
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_KEY_TOO_LONG);
	op = op_of(EMDB_OP_CALL, NULL);
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_INVAL);
	op = op_of((enum emdb_op_kind)99, NULL);
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_INVAL);
	op = op_of(EMDB_OP_PUT, "k");
	op.flags = 0x1000;
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_INVAL);
	op = op_of(EMDB_OP_PUT, "k");
	op.size--;
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_INVAL);
	op = op_of(EMDB_OP_SNAPSHOT_CREATE, NULL);
	op.key = "a\0b";
	op.key_len = 3;
	CHECK_EQ(emdb_async_submit(w.async, &op, NULL), EMDB_ERR_INVAL);
	world_free(&w);
}

/* ---- The descriptor ------------------------------------------------------ */

static bool readable(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1;
}

TEST(test_async__descriptor_fits_an_event_loop)
{
	struct world w = world_new(1, 0);
	const int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN };
	struct emdb_op op = op_of(EMDB_OP_PUT, "k");
	struct emdb_completion c;
	size_t n, got = 0;

	CHECK(ep >= 0);
	CHECK_OK(epoll_ctl(ep, EPOLL_CTL_ADD, emdb_async_fd(w.async), &ev));
	CHECK(!readable(emdb_async_fd(w.async), 0));
	for (int i = 0; i < 3; i++)
		CHECK_OK(emdb_async_submit(w.async, &op, NULL));
	while (got < 3) {
		CHECK_EQ(epoll_wait(ep, &ev, 1, 60000), 1);
		/* One at a time: it stays readable while there are more. */
		CHECK_OK(emdb_async_poll(w.async, &c, 1, 0, &n));
		CHECK_EQ(n, 1);
		got++;
	}
	CHECK(!readable(emdb_async_fd(w.async), 0));
	CHECK_OK(close(ep));
	world_free(&w);
}

/* ---- Streams ------------------------------------------------------------- */

#define MANY 10000

static void fill(emdb_db *db, int count, size_t value_len)
{
	char *const value = calloc(1, value_len ? value_len : 1);

	for (int i = 0; i < count; i++) {
		char key[16];
		const int n = snprintf(key, sizeof(key), "key%05d", i);

		CHECK_OK(emdb_put(db, EMDB_ROOT, key, (size_t)n, value, value_len, 0));
	}
	free(value);
}

TEST(test_async__stream_hands_out_everything_once)
{
	struct world w = world_new(2, 0);
	bool *const seen = calloc(MANY, 1);
	struct emdb_entry e;
	emdb_stream *s;
	emdb_err err;
	int count = 0;

	fill(w.db, MANY, 10);
	CHECK_OK(emdb_stream_iter(w.async, EMDB_ROOT, EMDB_ITER_VALUES, NULL, &s));
	while ((err = emdb_stream_next(s, -1, &e)) == EMDB_OK) {
		char key[16] = "";
		int i;

		CHECK_EQ(e.key_len, 8);
		memcpy(key, e.key, 8);
		i = atoi(key + 3);
		CHECK(i >= 0 && i < MANY && !seen[i]);
		seen[i] = true;
		CHECK_EQ(e.value_len, 10);
		count++;
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_stream_next(s, -1, &e), EMDB_ERR_NOT_FOUND);
	CHECK(readable(emdb_stream_fd(s), 0));
	CHECK_EQ(count, MANY);
	emdb_stream_free(s);
	free(seen);
	world_free(&w);
}

TEST(test_async__stream_of_a_range_is_in_order)
{
	const struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_ORDERED };
	const struct emdb_range range = { .size = sizeof(range),
					  .flags = EMDB_RANGE_REVERSE,
					  .from = "key00299",
					  .from_len = 8,
					  .limit = 250 };
	struct emdb_entry e;
	struct world w;
	emdb_stream *s;

	CHECK_OK(emdb_open_memory(&o, &w.db));
	CHECK_OK(emdb_async_new(w.db, NULL, &w.async));
	fill(w.db, 500, 1);
	CHECK_OK(emdb_stream_range(w.async, EMDB_ROOT, &range, NULL, &s));
	for (int i = 299; i >= 50; i--) {
		char key[16];

		snprintf(key, sizeof(key), "key%05d", i);
		CHECK_OK(emdb_stream_next(s, -1, &e));
		CHECK_MEM(e.key, e.key_len, key, 8);
	}
	CHECK_EQ(emdb_stream_next(s, -1, &e), EMDB_ERR_NOT_FOUND);
	emdb_stream_free(s);
	world_free(&w);
}

/* Values are large, so what lies ready shows in the bytes; nobody reads beyond them. */
TEST(test_async__stream_waits_for_a_slow_consumer_and_takes_no_thread)
{
	struct world w = world_new(1, 0);
	const struct emdb_stream_options o = { .size = sizeof(o), .items = 1000, .bytes = 100000 };
	struct emdb_entry e;
	emdb_stream *s;
	int count = 0;

	fill(w.db, 200, 20000);
	CHECK_OK(emdb_stream_iter(w.async, EMDB_ROOT, EMDB_ITER_VALUES, &o, &s));
	CHECK(readable(emdb_stream_fd(s), 60000));
	/* The only thread is free for others although the stream is not at its end. */
	put(&w, "other", "x");
	while (emdb_stream_next(s, -1, &e) == EMDB_OK) {
		count++;
		if (count % 20 == 0)
			put(&w, "other", "y");
	}
	CHECK(count >= 200 && count <= 201);
	emdb_stream_free(s);
	world_free(&w);
}

TEST(test_async__stream_dropped_after_two)
{
	struct world w = world_new(2, 0);
	struct emdb_entry e;

	fill(w.db, MANY, 100);
	for (int round = 0; round < 50; round++) {
		emdb_stream *s;

		CHECK_OK(emdb_stream_iter(w.async, EMDB_ROOT, EMDB_ITER_VALUES, NULL, &s));
		if (round % 3) {
			CHECK_OK(emdb_stream_next(s, -1, &e));
			CHECK_OK(emdb_stream_next(s, -1, &e));
		}
		emdb_stream_free(s);
	}
	world_free(&w);
}

TEST(test_async__stream_of_nothing_and_of_no_namespace)
{
	struct world w = world_new(1, 0);
	struct gate g = GATE;
	struct emdb_entry e;
	emdb_stream *s;

	CHECK_OK(emdb_stream_iter(w.async, EMDB_ROOT, 0, NULL, &s));
	CHECK_EQ(emdb_stream_next(s, -1, &e), EMDB_ERR_NOT_FOUND);
	emdb_stream_free(s);
	CHECK_EQ(emdb_stream_iter(w.async, 424242, 0, NULL, &s), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_stream_range(w.async, EMDB_ROOT, NULL, NULL, &s), EMDB_ERR_NOT_ORDERED);
	/* Nobody reads while the thread is taken; nor does freeing wait for it. */
	(void)stay_submit(&w, &g);
	CHECK_OK(emdb_stream_iter(w.async, EMDB_ROOT, 0, NULL, &s));
	CHECK_EQ(emdb_stream_next(s, 0, &e), EMDB_ERR_AGAIN);
	CHECK_EQ(emdb_stream_next(s, 10, &e), EMDB_ERR_AGAIN);
	emdb_stream_free(s);
	gate_open(&g);
	world_free(&w);
}

/* ---- All at once --------------------------------------------------------- */

#define THREADS 4
#define ROUNDS  400

struct crowd {
	struct world *w;
	struct gate *g;
	uint64_t seed;
	int submitted;
};

static void *crowd_main(void *arg)
{
	struct crowd *const c = arg;

	for (int i = 0; i < ROUNDS; i++) {
		struct emdb_op op =
			op_of(test_rand(&c->seed) % 2 ? EMDB_OP_PUT : EMDB_OP_CONTAINS, "key");
		struct emdb_completion got;
		struct emdb_entry e;
		emdb_stream *s;
		uint64_t id;
		size_t n;

		op.done = count_done;
		op.user = c->g;
		op.key_len = 1 + test_rand(&c->seed) % 3;
		if (emdb_async_submit(c->w->async, &op, &id) == EMDB_OK) {
			c->submitted++;
			if (test_rand(&c->seed) % 8 == 0)
				(void)!emdb_async_cancel(c->w->async, id);
		}
		op.done = NULL;
		(void)!emdb_async_submit(c->w->async, &op, NULL);
		if (emdb_async_poll(c->w->async, &got, 1, 0, &n) == EMDB_OK && n)
			emdb_free(got.value);
		if (i % 16 == 0) {
			CHECK_OK(emdb_stream_iter(c->w->async, EMDB_ROOT, 0, NULL, &s));
			(void)!emdb_stream_next(s, 1, &e);
			emdb_stream_free(s);
		}
	}
	return NULL;
}

/* ThreadSanitizer looks on; every callback comes exactly once. */
TEST(test_async__many_threads_on_one_queue)
{
	struct world w = world_new(3, 64);
	struct gate g = GATE;
	struct crowd crowd[THREADS];
	pthread_t threads[THREADS];
	uint64_t seed = test_seed();
	int submitted = 0;

	for (int i = 0; i < THREADS; i++) {
		crowd[i] = (struct crowd){ .w = &w, .g = &g, .seed = test_rand(&seed) };
		CHECK_OK(pthread_create(&threads[i], NULL, crowd_main, &crowd[i]));
	}
	for (int i = 0; i < THREADS; i++) {
		CHECK_OK(pthread_join(threads[i], NULL));
		submitted += crowd[i].submitted;
	}
	world_free(&w);
	CHECK_EQ(atomic_load(&g.called) + atomic_load(&g.cancelled), submitted);
}

TEST_MAIN()
