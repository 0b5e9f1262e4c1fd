/* SPDX-License-Identifier: Apache-2.0 */
/* This library, with the ordered index and without. */
#include "peer.h"

#include "../bench.h"
#include "core/emdb.h"

struct store {
	emdb_db *db;
	struct emdb_item *items;
	size_t cap, value_len;
};

static void check(emdb_err err, const char *what)
{
	if (err != EMDB_OK)
		bench_die("emdb: %s: %s", what, emdb_strerror(err));
}

static void *open_with(const char *dir, size_t value_len, unsigned int flags)
{
	const struct emdb_options options = { .size = sizeof(options),
					      .flags = EMDB_OPEN_CREATE | flags };
	struct store *s = calloc(1, sizeof(*s));
	char path[4096];

	if (s == NULL)
		bench_die("out of memory");
	s->value_len = value_len;
	(void)snprintf(path, sizeof(path), "%.4000s/store", dir);
	check(emdb_open(path, &options, &s->db), "open");
	return s;
}

static void *store_open(const char *dir, size_t value_len)
{
	return open_with(dir, value_len, 0);
}

static void *store_open_ordered(const char *dir, size_t value_len)
{
	return open_with(dir, value_len, EMDB_OPEN_ORDERED);
}

static void store_close(void *db)
{
	struct store *s = db;

	check(emdb_close(s->db), "close");
	free(s->items);
	free(s);
}

static void put(void *db, const uint8_t *key, const uint8_t *value)
{
	struct store *s = db;

	check(emdb_put(s->db, EMDB_ROOT, key, PEER_KEY, value, s->value_len, EMDB_TTL_DEFAULT),
	      "put");
}

static void batch(void *db, const struct peer_pair *pairs, size_t n)
{
	struct store *s = db;
	size_t i;

	if (s->cap < n) {
		free(s->items);
		s->items = calloc(n, sizeof(*s->items));
		if (s->items == NULL)
			bench_die("out of memory");
		s->cap = n;
	}
	for (i = 0; i < n; i++)
		s->items[i] = (struct emdb_item){ .key = pairs[i].key,
						  .key_len = PEER_KEY,
						  .value = pairs[i].value,
						  .value_len = pairs[i].value ? s->value_len : 0,
						  .remove = pairs[i].value == NULL };
	check(emdb_put_many(s->db, EMDB_ROOT, s->items, n), "put_many");
}

static void flush(void *db)
{
	check(emdb_flush(((struct store *)db)->db), "flush");
}

static void *reader(void *db)
{
	return db;
}

static void reader_free(void *r)
{
	(void)r;
}

static uint64_t get(void *r, const uint8_t *key)
{
	struct store *s = r;
	struct emdb_ref ref;
	uint64_t sum;

	check(emdb_get_ref(s->db, EMDB_ROOT, key, PEER_KEY, &ref), "get");
	sum = peer_touch(ref.data, ref.len);
	emdb_ref_release(&ref);
	return sum;
}

static uint64_t range(void *r, const uint8_t *key, uint32_t n)
{
	struct store *s = r;
	const struct emdb_range what = { .size = sizeof(what),
					 .flags = EMDB_ITER_VALUES,
					 .from = key,
					 .from_len = PEER_KEY,
					 .limit = n };
	struct emdb_entry e;
	emdb_iter *it;
	uint64_t sum = 0;

	check(emdb_range_new(s->db, EMDB_ROOT, &what, &it), "range");
	while (emdb_iter_next(it, &e) == EMDB_OK)
		sum += *(const uint8_t *)e.key + peer_touch(e.value, e.value_len);
	emdb_iter_free(it);
	return sum;
}

static void compact(void *db)
{
	struct store *s = db;

	check(emdb_compact(s->db, NULL, NULL), "compact");
	check(emdb_flush(s->db), "flush");
}

const struct peer peer_emdb = { .name = "emdb",
				.settings = "defaults, values by reference",
				.open = store_open,
				.close = store_close,
				.put = put,
				.batch = batch,
				.flush = flush,
				.reader = reader,
				.reader_free = reader_free,
				.get = get,
				.compact = compact };

const struct peer peer_emdb_ordered = { .name = "emdb-ordered",
					.settings = "the same with the ordered index",
					.open = store_open_ordered,
					.close = store_close,
					.put = put,
					.batch = batch,
					.flush = flush,
					.reader = reader,
					.reader_free = reader_free,
					.get = get,
					.range = range,
					.compact = compact };
