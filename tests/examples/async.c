/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations without waiting: many durable writes that share syncs, an event loop that is
 * woken by a descriptor, a stream that reads ahead no more than it is told.
 *
 *	cc async.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
 */
#include <emdb.h>
#include <poll.h>
#include <stdio.h>

#define ORDERS 1000

static void die(const char *what, emdb_err err)
{
	fprintf(stderr, "%s: %s\n", what, emdb_strerror(err));
	_Exit(1);
}

/* Waits in poll(2), as an event loop would, and takes what has completed. */
static size_t reap(emdb_async *queue)
{
	struct pollfd fd = { .fd = emdb_async_fd(queue), .events = POLLIN };
	struct emdb_completion done[64];
	size_t n;
	emdb_err err;

	(void)poll(&fd, 1, -1);
	err = emdb_async_poll(queue, done, 64, 0, &n);
	if (err)
		die("poll", err);
	for (size_t i = 0; i < n; i++) {
		if (done[i].err)
			die("put", done[i].err);
		emdb_free(done[i].value);
	}
	return n;
}

static void store_orders(emdb_async *queue)
{
	size_t in_flight = 0;

	for (int i = 0; i < ORDERS; i++) {
		char key[32], value[32];
		struct emdb_op op = { .size = sizeof(op),
				      .kind = EMDB_OP_PUT,
				      .flags = EMDB_OP_DURABLE,
				      .ns = EMDB_ROOT };
		emdb_err err;

		op.key = key;
		op.key_len = (size_t)snprintf(key, sizeof(key), "order-%04d", i);
		op.value = value;
		op.value_len = (size_t)snprintf(value, sizeof(value), "%d pieces", i % 7);
		while ((err = emdb_async_submit(queue, &op, NULL)) == EMDB_ERR_AGAIN)
			in_flight -= reap(queue);
		if (err)
			die("submit", err);
		in_flight++;
	}
	while (in_flight > 0)
		in_flight -= reap(queue);
	printf("%d orders are on stable storage\n", ORDERS);
}

static void look_at_some(emdb_async *queue)
{
	const struct emdb_stream_options options = { .size = sizeof(options), .items = 16 };
	struct emdb_entry entry;
	emdb_stream *stream;
	emdb_err err;

	err = emdb_stream_iter(queue, EMDB_ROOT, EMDB_ITER_VALUES, &options, &stream);
	for (int i = 0; !err && i < 2; i++)
		err = emdb_stream_next(stream, -1, &entry);
	if (err)
		die("stream", err);
	/* Nobody reads on: at most 16 entries were read in vain. */
	emdb_stream_free(stream);
	printf("two of them were enough\n");
}

int main(int argc, char **argv)
{
	const struct emdb_options options = { .size = sizeof(options), .flags = EMDB_OPEN_CREATE };
	const struct emdb_async_options queue_options = { .size = sizeof(queue_options),
							  .depth = 256 };
	emdb_async *queue;
	emdb_db *db;
	emdb_err err;

	if (argc != 2) {
		fprintf(stderr, "usage: async STORE\n");
		return 2;
	}
	err = emdb_open(argv[1], &options, &db);
	if (err)
		die(argv[1], err);
	err = emdb_async_new(db, &queue_options, &queue);
	if (err)
		die("queue", err);
	store_orders(queue);
	look_at_some(queue);
	emdb_async_free(queue);
	err = emdb_close(db);
	if (err)
		die("close", err);
	return 0;
}
