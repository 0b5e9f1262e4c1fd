/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iter: what every iterator has in common.  Each kind is a struct that begins with one and
 * says in ops how it goes on: iter.c walks a namespace in order of hash, range.c in order of keys.
 *
 * One thread at a time per iterator.
 */
#ifndef EMDB_ITER_H
#define EMDB_ITER_H

#include "core/store.h"

struct iter_ops {
	/* As emdb_iter_next(), called without a pin. */
	emdb_err (*next)(emdb_iter *it, struct emdb_entry *ret);
	/* Frees what the kind has, not the iterator itself. */
	void (*release)(emdb_iter *it);
};

struct emdb_iter {
	const struct iter_ops *ops;
	emdb_db *db;
	uint64_t ns;
	unsigned int flags; /* EMDB_ITER_* */
	struct buf key;     /* what the entry handed out last points to */
	void *value;
};

/* Is an entry of this kind asked for? */
static inline bool iter_wants(const emdb_iter *it, bool is_ns)
{
	return !(it->flags & (is_ns ? EMDB_ITER_KEYS : EMDB_ITER_NS));
}

#endif
