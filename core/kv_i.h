/* SPDX-License-Identifier: Apache-2.0 */
/* kv_i: changing one key, for kv.c, kv_put.c and txn.c. */
#ifndef EMDB_KV_I_H
#define EMDB_KV_I_H

#include "core/store.h"

/* What one operation on one key holds. */
struct op {
	struct hold hold;
	emdb_db *db;
	struct ns *ns;
	uint64_t hash;
	bool found;         /* the entry exists, expired or not */
	bool live;          /* and has not expired */
	bool lost;          /* its record is damaged: it can be replaced and removed, not kept */
	struct entry entry; /* when found */
};

/* Locks for a change of one key and looks at what is there. */
EMDB_CHECKED emdb_err op_begin(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
			       bool exclusive, struct op *op);
EMDB_CHECKED emdb_err op_done(struct op *op, emdb_err err);
/* The look alone, for who holds what it takes; op->db, ns and hash are set. */
EMDB_CHECKED emdb_err op_look_pinned(struct op *op, const void *key, size_t key_len);

/* The entry of a key that has not expired. */
EMDB_CHECKED emdb_err kv_find_pinned(emdb_db *db, uint64_t ns_id, const void *key, size_t key_len,
				     struct entry *e);

/* An id that put_batch() took for the extents of a large value. */
struct own_id {
	uint64_t id;
	bool used; /* the object has it */
};
/*
 * Adds to b what storing the item takes, of any size; structure held exclusively.  own: struct
 * own_id; with the outcome of batch_commit() it goes to put_batch_end().  No key twice in one batch.
 */
EMDB_CHECKED emdb_err put_batch(struct op *op, const struct emdb_item *it, struct batch *b,
				struct buf *own);
void put_batch_end(emdb_db *db, struct buf *own, bool failed);

#endif
