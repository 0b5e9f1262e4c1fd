/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer.h: what peers.c asks of a key-value store to measure it.
 *
 * Durability is the same for all: put and batch return when the change is visible and survives the
 * death of the process, flush when it survives power loss.  batch is atomic where the store can do
 * that.  Every function ends the program when something fails.
 *
 * Where a store has a choice it gets what is best for it: readers of LMDB keep one read
 * transaction (and a cursor) for a whole row, the iterator of RocksDB is made once and moved,
 * although both then see an old state; emdb reads the newest state with every call.
 */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_KEY 24u

/* A record of a batch; value NULL: remove the key. */
struct peer_pair {
	const uint8_t *key, *value;
};

struct peer {
	const char *name;
	const char *settings; /* for people */
	/* Opens a new store in an empty directory; value_len holds for all values. */
	void *(*open)(const char *dir, size_t value_len);
	void (*close)(void *db);
	void (*put)(void *db, const uint8_t *key, const uint8_t *value);
	void (*batch)(void *db, const struct peer_pair *pairs, size_t n);
	void (*flush)(void *db);
	/* What one thread reads with. */
	void *(*reader)(void *db);
	void (*reader_free)(void *reader);
	/* The value's first and last byte added up, so that it is touched; without a copy if possible. */
	uint64_t (*get)(void *reader, const uint8_t *key);
	/* The same for n entries from this key on, their keys' first bytes too; NULL: no ranges. */
	uint64_t (*range)(void *reader, const uint8_t *key, uint32_t n);
	/* Gives room back; NULL: cannot. */
	void (*compact)(void *db);
};

extern const struct peer peer_emdb, peer_emdb_ordered;
#ifdef HAVE_LMDB
extern const struct peer peer_lmdb;
#endif
#ifdef HAVE_ROCKSDB
extern const struct peer peer_rocksdb;
#endif

static inline uint64_t peer_touch(const void *value, size_t len)
{
	const uint8_t *const p = value;

	return len ? (uint64_t)p[0] + p[len - 1] : 0;
}

#endif
