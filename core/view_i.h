/* SPDX-License-Identifier: Apache-2.0 */
/* view_i: what view.c (taking, keeping, giving back) and view_read.c (reading) share. */
#ifndef EMDB_VIEW_I_H
#define EMDB_VIEW_I_H

#include "core/store.h"
#include "core/view.h"

struct view {
	emdb_db *db;
	uint64_t lsn;       /* immutable */
	uint64_t refs;      /* guarded by views.lock, as what follows */
	struct view **prev; /* newer, or head */
	struct view *older;
	struct kept *kept; /* what this is the newest view to see */
};

/* What was kept of one namespace; in views.spaces while there is anything. */
struct kept_ns {
	struct epoch_node node;
	uint64_t id;     /* immutable */
	struct hidx idx; /* entry hash -> struct kept * */
};

struct kept_extent {
	struct extent e;
	struct segment *seg; /* a reference */
};

/* A promoted object as it was. */
struct kept_big {
	uint64_t size;
	int64_t expires_ms;
	size_t count;
	struct kept_extent ext[];
};

/* Something that was, for the views that see it: since < view <= until. */
struct kept {
	struct epoch_node node;
	struct kept *next;     /* on its view's list; guarded by views.lock */
	struct hidx *in;       /* which index has it; immutable */
	struct kept_ns *space; /* of a slot; immutable */
	uint64_t hash;         /* immutable, as what follows */
	uint64_t since, until;
	uint64_t slot;        /* of a slot */
	struct segment *seg;  /* of a slot: a reference; NULL: it was gone */
	struct kept_big *big; /* of a big object */
};

static inline bool kept_seen(const struct kept *k, uint64_t lsn)
{
	return k->since < lsn && lsn <= k->until;
}

static inline struct kept *kept_of(uint64_t value)
{
	return (struct kept *)(uintptr_t)value;
}

/* What was kept of a namespace; NULL: nothing. */
struct kept_ns *kept_ns_pinned(struct views *vs, uint64_t ns);

#endif
