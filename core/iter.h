/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iter: what every iterator has in common.  Each kind is a struct that begins with one and
 * says in ops how it goes on: iter.c walks a namespace, in a view or as it is, range.c in order of keys,
 * txn.c a view with a transaction's own writes.
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

/*
 * Takes key and value of e over into the iterator and fills ret; view NULL: as the store is now.
 * NOT_FOUND: not asked for, or gone meanwhile.  Pinned.
 */
EMDB_CHECKED emdb_err iter_take_pinned(emdb_iter *it, struct view *view, const struct entry *e,
				       struct emdb_entry *ret);

/* A walk over a namespace in a view; begins a struct of its own kind. */
struct view_iter {
	emdb_iter it;
	struct view *view; /* a reference */
	uint64_t from;     /* hash to go on at */
	bool end;
	struct buf slots; /* struct view_slot */
	size_t at;
	/* Not NULL: false for keys that are not to be shown.  Pinned. */
	bool (*shows)(struct view_iter *it, const struct entry *e);
};

/* Takes the reference on the view over. */
void view_iter_init(struct view_iter *it, const struct iter_ops *ops, struct view *view,
		    uint64_t ns, unsigned int flags);
EMDB_CHECKED emdb_err view_iter_next(emdb_iter *it, struct emdb_entry *ret);
void view_iter_release(emdb_iter *it);

#endif
