/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB.  MDB_NOSYNC with mdb_env_sync() where durability is asked for: a commit then costs what a put
 * without flush costs elsewhere, and survives the process all the same.
 */
#include "peer.h"

#include "../bench.h"

#ifdef HAVE_LMDB
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_BYTES ((size_t)64 << 30)

struct store {
	char dir[4096];
	MDB_env *env;
	MDB_dbi dbi;
	size_t value_len;
};

struct read {
	struct store *s;
	MDB_txn *txn;
	MDB_cursor *cursor;
};

static void check(int err, const char *what)
{
	if (err != 0)
		bench_die("lmdb: %s: %s", what, mdb_strerror(err));
}

static void env_open(struct store *s)
{
	MDB_txn *txn;

	check(mdb_env_create(&s->env), "env_create");
	check(mdb_env_set_mapsize(s->env, MAP_BYTES), "set_mapsize");
	check(mdb_env_open(s->env, s->dir, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600), "open");
	check(mdb_txn_begin(s->env, NULL, 0, &txn), "begin");
	check(mdb_dbi_open(txn, NULL, 0, &s->dbi), "dbi_open");
	check(mdb_txn_commit(txn), "commit");
}

static void *store_open(const char *dir, size_t value_len)
{
	struct store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		bench_die("out of memory");
	(void)snprintf(s->dir, sizeof(s->dir), "%.4000s", dir);
	s->value_len = value_len;
	env_open(s);
	return s;
}

static void store_close(void *db)
{
	struct store *s = db;

	mdb_env_close(s->env);
	free(s);
}

static void batch(void *db, const struct peer_pair *pairs, size_t n)
{
	struct store *s = db;
	MDB_txn *txn;
	size_t i;

	check(mdb_txn_begin(s->env, NULL, 0, &txn), "begin");
	for (i = 0; i < n; i++) {
		MDB_val k = { PEER_KEY, (void *)(uintptr_t)pairs[i].key };
		MDB_val v = { s->value_len, (void *)(uintptr_t)pairs[i].value };

		check(pairs[i].value ? mdb_put(txn, s->dbi, &k, &v, 0)
				     : mdb_del(txn, s->dbi, &k, NULL),
		      "put or del");
	}
	check(mdb_txn_commit(txn), "commit");
}

static void put(void *db, const uint8_t *key, const uint8_t *value)
{
	const struct peer_pair pair = { key, value };

	batch(db, &pair, 1);
}

static void flush(void *db)
{
	check(mdb_env_sync(((struct store *)db)->env, 1), "sync");
}

static void *reader(void *db)
{
	struct read *r = calloc(1, sizeof(*r));

	if (r == NULL)
		bench_die("out of memory");
	r->s = db;
	check(mdb_txn_begin(r->s->env, NULL, MDB_RDONLY, &r->txn), "begin");
	check(mdb_cursor_open(r->txn, r->s->dbi, &r->cursor), "cursor_open");
	return r;
}

static void reader_free(void *reader_)
{
	struct read *r = reader_;

	mdb_cursor_close(r->cursor);
	mdb_txn_abort(r->txn);
	free(r);
}

static uint64_t get(void *reader_, const uint8_t *key)
{
	struct read *r = reader_;
	MDB_val k = { PEER_KEY, (void *)(uintptr_t)key }, v;

	check(mdb_get(r->txn, r->s->dbi, &k, &v), "get");
	return peer_touch(v.mv_data, v.mv_size);
}

static uint64_t range(void *reader_, const uint8_t *key, uint32_t n)
{
	struct read *r = reader_;
	MDB_val k = { PEER_KEY, (void *)(uintptr_t)key }, v;
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < n && mdb_cursor_get(r->cursor, &k, &v, i ? MDB_NEXT : MDB_SET_RANGE) == 0;
	     i++)
		sum += *(const uint8_t *)k.mv_data + peer_touch(v.mv_data, v.mv_size);
	return sum;
}

/* The way that LMDB has: a compacting copy, which takes the place of the file. */
static void compact(void *db)
{
	struct store *s = db;
	char copy[4096 + 64], data[4096 + 64];

	(void)snprintf(copy, sizeof(copy), "%s/copy", s->dir);
	if (mkdir(copy, 0700) != 0)
		bench_die("cannot make %s", copy);
	check(mdb_env_copy2(s->env, copy, MDB_CP_COMPACT), "copy");
	mdb_env_close(s->env);
	(void)snprintf(copy, sizeof(copy), "%s/copy/data.mdb", s->dir);
	(void)snprintf(data, sizeof(data), "%s/data.mdb", s->dir);
	if (rename(copy, data) != 0)
		bench_die("cannot rename %s", copy);
	env_open(s);
	flush(s);
}

const struct peer peer_lmdb = {
	.name = "lmdb",
	.settings = "MDB_NOSYNC, mdb_env_sync to flush; one read transaction a row",
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
