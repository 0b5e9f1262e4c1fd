/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view: the whole store as it was at one moment, readable while others change it.
 *
 * A view is an LSN, S: it shows what the records below S made.  Taking one holds the
 * structure lock exclusively for an instant, so that no writer is between append and apply;
 * from then on all of them write at or above S.  What they replace is kept:
 *
 *   slots   before an index slot is replaced or removed, the old one goes to a table per
 *	namespace, ordered by hash, with the LSN that brought it (since) and the one that
 *	took it away (until).  The view sees what since < S <= until says.
 *   big objects   before their content or metadata changes, a copy of the map and of
 *	what else there is goes to another table
 *   namespaces   those that went are remembered
 *
 * So memory is proportional to what changes while views are open.  Each thing that is kept holds
 * a reference on the segment with its bytes: compaction retires segments as ever, their room comes
 * back when the view is closed.
 *
 * A PUT that compaction moved says in ORIGIN where it was first: that is its `since`, so that
 * moving needs nothing kept.  Likewise bytes of big objects, whose content stays the same.
 *
 * Time.  What has expired by the clock of now is not visible in a view either.
 *
 * Order.  Writers keep first and change then; readers of a view look at the index first and at
 * what was kept then.  So an old slot is found in one of the two, perhaps in both, and then is the
 * same version.  Without an open view a writer pays for one relaxed load.
 *
 * Giving back.  Everything kept hangs on the newest view that sees it.  When that one is closed it
 * goes to the next older one that sees it too, or is freed.
 *
 * Memory that cannot be had for keeping: the views that would have needed it are lost, and every
 * read of them says NOMEM.  Writers go on.
 *
 * Locks.  views.lock, rank LOCK_VIEW, for lists and insertion; lookups need a pin only.
 */
#ifndef EMDB_VIEW_H
#define EMDB_VIEW_H

#include <stdatomic.h>

#include "core/base.h"
#include "core/emdb.h"
#include "core/epoch.h"
#include "core/index_hash.h"
#include "core/sync.h"

struct big;
struct entry;
struct ns;
struct rec;
struct segment;
struct view;
struct kept;

/* What a store has of views; all zero until views_init(). */
struct views {
	struct mutex lock;        /* rank LOCK_VIEW */
	_Atomic(uint64_t) newest; /* LSN of the newest open view, 0: none; written under lock */
	_Atomic(uint64_t) lost;   /* views at or below this LSN lack something; atomic */
	struct view *head;        /* newest first; guarded by lock */
	uint64_t open;            /* how many; guarded by lock */
	uint64_t bytes;           /* kept; guarded by lock */
	struct hidx spaces;       /* mixed namespace id -> struct kept_ns * */
	struct hidx bigs;         /* mixed object id -> struct kept * */
	struct hidx gone;         /* mixed namespace id -> struct kept * */
};

void views_init(emdb_db *db);
/* Nobody is there any more; frees also what was left open. */
void views_release(emdb_db *db);
/* Open views and bytes of memory that they make the store keep. */
void views_stats(emdb_db *db, uint64_t *ret_open, uint64_t *ret_bytes);

/* ---- Taking ---------------------------------------------------------------- */

/* The store as it is now.  The caller holds no lock of the store.  Only NOMEM. */
EMDB_CHECKED emdb_err view_new(emdb_db *db, struct view **ret);
/* One more who will give it back. */
void view_ref(struct view *v);
void view_unref(struct view *v);
/* Everything below is in it. */
uint64_t view_lsn(const struct view *v);

/* ---- Reading; pinned ---------------------------------------------------------- */

/* NOMEM: something that the view needs could not be kept. */
EMDB_CHECKED emdb_err view_check(const struct view *v);
/* Was the namespace there? */
bool view_has_ns_pinned(struct view *v, uint64_t ns);
/* Where the version of slot came from; the slot counts until it is replaced. */
uint64_t view_since_pinned(emdb_db *db, uint64_t slot, const struct rec *rec);
/*
 * As entry_find_pinned(), NOT_FOUND also when there was no such namespace.  Of a LINK view_value()
 * and view_expires_pinned() know the object, nothing else does.
 */
EMDB_CHECKED emdb_err view_find_pinned(struct view *v, uint64_t ns, uint64_t hash, const void *key,
				       size_t key_len, struct entry *ret);
/* The record of one slot of a walk; NOT_FOUND: expired. */
EMDB_CHECKED emdb_err view_read_pinned(struct view *v, uint64_t hash, uint64_t slot,
				       struct segment *seg, struct entry *ret);
int64_t view_expires_pinned(struct view *v, const struct entry *e);
/* A copy; free with base_free().  A NUL follows. */
EMDB_CHECKED emdb_err view_value_pinned(struct view *v, const struct entry *e, void **ret_value,
					size_t *ret_len);
/* Has a big object changed since? */
bool view_big_changed_pinned(struct view *v, uint64_t id);

/* A slot of a walk, with a reference on its segment. */
struct view_slot {
	uint64_t hash, slot;
	struct segment *seg;
};
/*
 * Appends to ret (struct view_slot) the slots of a namespace whose hashes are *from or more, some
 * at a time, in order of hash; *from goes on, *ret_end says that these were the last.
 */
EMDB_CHECKED emdb_err view_walk_pinned(struct view *v, uint64_t ns, uint64_t *from, bool *ret_end,
				       struct buf *ret);
void view_slots_release(struct buf *slots, size_t from);

/* ---- Keeping; for apply.c and objtab.c -------------------------------------------- */

static inline bool views_any(const struct views *vs)
{
	/*
	 * Relaxed: a view is taken while no writer holds the structure lock, so who holds it sees
	 * all that matter to him.
	 */
	return unlikely(atomic_load_explicit(&vs->newest, memory_order_relaxed) != 0);
}

/* The slot is about to be replaced, or removed, by the record at lsn.  rec: its own, NULL: look. */
void view_keep_slot_pinned(emdb_db *db, uint64_t ns, uint64_t hash, uint64_t slot,
			   const struct rec *rec, uint64_t lsn);
/* The big object is about to change or go; big->lock held. */
void view_keep_big_locked(emdb_db *db, uint64_t id, struct big *big, uint64_t lsn);
/* The same by id, for one that is about to go; nothing when it has names. */
void view_keep_nameless_pinned(emdb_db *db, uint64_t id);
void view_keep_ns(emdb_db *db, uint64_t ns, uint64_t lsn);
/* An entry of ns changed. */
void view_changed(struct ns *ns, uint64_t lsn);

#endif
