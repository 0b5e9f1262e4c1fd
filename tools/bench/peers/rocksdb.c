/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB: write-ahead log on, synced by rocksdb_flush_wal() where durability is asked for; no
 * compression (the values are random), bloom filters, a block cache that holds everything.
 */
#include "peer.h"

#include "../bench.h"

#ifdef HAVE_ROCKSDB
#include <rocksdb/c.h>

#define CACHE_BYTES    ((size_t)3 << 30)
#define MEMTABLE_BYTES ((size_t)128 << 20)

struct store {
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *write;
	size_t value_len;
};

struct read {
	struct store *s;
	rocksdb_readoptions_t *options;
	rocksdb_iterator_t *it; /* made at the first range */
};

static void check(char *err, const char *what)
{
	if (err != NULL)
		bench_die("rocksdb: %s: %s", what, err);
}

static void *store_open(const char *dir, size_t value_len)
{
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
	struct store *s = calloc(1, sizeof(*s));
	char *err = NULL;

	if (s == NULL)
		bench_die("out of memory");
	s->value_len = value_len;
	s->options = rocksdb_options_create();
	rocksdb_options_set_create_if_missing(s->options, 1);
	rocksdb_options_increase_parallelism(s->options, 4);
	rocksdb_options_set_write_buffer_size(s->options, MEMTABLE_BYTES);
	rocksdb_options_set_compression(s->options, rocksdb_no_compression);
	rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom(10));
	rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(CACHE_BYTES));
	rocksdb_options_set_block_based_table_factory(s->options, table);
	s->write = rocksdb_writeoptions_create();
	s->db = rocksdb_open(s->options, dir, &err);
	check(err, "open");
	return s;
}

static void store_close(void *db)
{
	struct store *s = db;

	rocksdb_close(s->db);
	rocksdb_writeoptions_destroy(s->write);
	rocksdb_options_destroy(s->options);
	free(s);
}

static void put(void *db, const uint8_t *key, const uint8_t *value)
{
	struct store *s = db;
	char *err = NULL;

	rocksdb_put(s->db, s->write, (const char *)key, PEER_KEY, (const char *)value, s->value_len,
		    &err);
	check(err, "put");
}

static void batch(void *db, const struct peer_pair *pairs, size_t n)
{
	rocksdb_writebatch_t *b = rocksdb_writebatch_create();
	struct store *s = db;
	char *err = NULL;
	size_t i;

	for (i = 0; i < n; i++) {
		if (pairs[i].value)
			rocksdb_writebatch_put(b, (const char *)pairs[i].key, PEER_KEY,
					       (const char *)pairs[i].value, s->value_len);
		else
			rocksdb_writebatch_delete(b, (const char *)pairs[i].key, PEER_KEY);
	}
	rocksdb_write(s->db, s->write, b, &err);
	check(err, "write");
	rocksdb_writebatch_destroy(b);
}

static void flush(void *db)
{
	char *err = NULL;

	rocksdb_flush_wal(((struct store *)db)->db, 1, &err);
	check(err, "flush_wal");
}

static void *reader(void *db)
{
	struct read *r = calloc(1, sizeof(*r));

	if (r == NULL)
		bench_die("out of memory");
	r->s = db;
	r->options = rocksdb_readoptions_create();
	return r;
}

static void reader_free(void *reader_)
{
	struct read *r = reader_;

	if (r->it != NULL)
		rocksdb_iter_destroy(r->it);
	rocksdb_readoptions_destroy(r->options);
	free(r);
}

static uint64_t get(void *reader_, const uint8_t *key)
{
	struct read *r = reader_;
	rocksdb_pinnableslice_t *slice;
	const char *value;
	char *err = NULL;
	uint64_t sum;
	size_t len;

	slice = rocksdb_get_pinned(r->s->db, r->options, (const char *)key, PEER_KEY, &err);
	check(err, "get");
	if (slice == NULL)
		bench_die("rocksdb: a key is missing");
	value = rocksdb_pinnableslice_value(slice, &len);
	sum = peer_touch(value, len);
	rocksdb_pinnableslice_destroy(slice);
	return sum;
}

static uint64_t range(void *reader_, const uint8_t *key, uint32_t n)
{
	struct read *r = reader_;
	uint64_t sum = 0;
	uint32_t i;

	if (r->it == NULL)
		r->it = rocksdb_create_iterator(r->s->db, r->options);
	rocksdb_iter_seek(r->it, (const char *)key, PEER_KEY);
	for (i = 0; i < n && rocksdb_iter_valid(r->it); i++) {
		size_t key_len, len;
		const char *k = rocksdb_iter_key(r->it, &key_len);
		const char *v = rocksdb_iter_value(r->it, &len);

		sum += *(const uint8_t *)k + peer_touch(v, len);
		rocksdb_iter_next(r->it);
	}
	return sum;
}

static void compact(void *db)
{
	struct store *s = db;

	rocksdb_compact_range(s->db, NULL, 0, NULL, 0);
	flush(db);
}

const struct peer peer_rocksdb = {
	.name = "rocksdb",
	.settings = "log on, 128 MiB memtables, bloom filters, 3 GiB cache, no compression",
	.open = store_open,
	.close = store_close,
	.put = put,
	.batch = batch,
	.flush = flush,
	.reader = reader,
	.reader_free = reader_free,
	.get = get,
	.range = range,
	.compact = compact
};
#endif
