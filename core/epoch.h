/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoch: readers pin, writers defer their frees until nobody who could still look is pinned.
 *
 * A reader takes no lock and writes one cache line that no other thread touches. A writer that has
 * unlinked an object hands it to epoch_retire() and goes on; the object's function runs later, in
 * whichever thread happens to reclaim. Retiring cannot fail: the list node lies in the object.
 *
 * Why it is safe. There is one counter, `now`, that starts at 1. A pin copies it into a slot, then
 * executes a full fence, then reads shared pointers. A retire executes a full fence after the
 * unlinking store, takes the lock, and files the node under the value r that `now` has. A scan, always
 * under the lock, executes a full fence, looks at every slot, and steps `now` from g to g + 1 only
 * when each slot is free or holds g.
 *
 *  1. A pin that can still reach the object fenced before the unlinker did: the fences have one
 *     total order, and a reader whose fence comes later reads the new pointer, not the old.
 *  2. Every scan that steps `now` beyond r fences after the unlinker, because it takes the lock
 *     after the retire that saw r. By 1 it sees the slot of such a pin taken, as long as it is.
 *  3. The value e in that slot is at most r. Had the reader read r + 1 or more, it would have read
 *     what a scan of 2 stored, hence fenced after that scan, hence after the unlinker: not 1.
 *  4. So the scan that would step from r + 1 to r + 2 finds e <= r and refuses, until the pin ends.
 *     The end is a release store that the scan acquires, so the reader's last access happens before
 *     whatever follows the scan.
 *
 * Hence (numbered facts to rely on):
 *  F1. What was filed under r may be freed as soon as `now` is r + 2.
 *  F2. `now` steps at most once while any one pin lasts; a pin that stays stops reclamation, and
 *      nothing but reclamation: neither pins nor retires ever wait for it.
 *  F3. Nodes lie under now - 2, now - 1 and now only: three lists are enough, and the list that a
 *      step makes freeable is the one that the next value of `now` needs empty.
 *
 * Thread-safety: every function may be called by any thread at any time, except init and release.
 * A pin may be released by another thread than the one that took it: the token is all there is.
 *
 * Limits: EPOCH_SLOTS pins at once for one epoch. A thread may hold several. When all are taken
 * epoch_pin() waits, so pins are for short uses; what lives long holds a reference count instead.
 *
 * Calling sequence: epoch_init; any of pin/unpin/retire/reclaim; epoch_drain; epoch_release.
 */
#ifndef EMDB_EPOCH_H
#define EMDB_EPOCH_H

#include <stdatomic.h>

#include "core/base.h"
#include "core/sync.h"

#define EPOCH_SLOTS       256
#define EPOCH_CACHE_LINE  64
#define EPOCH_LISTS       3
#define EPOCH_BACKLOG_MAX 64 /* nodes waiting before a retire tries to reclaim by itself */

/* Embedded in every object that is ever retired. Idle until then: the object may overlay it. */
struct epoch_node {
	struct epoch_node *next;
	void (*fn)(struct epoch_node *);
};

struct epoch_slot {
	_Alignas(EPOCH_CACHE_LINE) _Atomic(uint64_t) pinned; /* 0 = free; atomic, see the proof */
	_Atomic(uint64_t) count; /* pins so far, written by who holds it; atomic: relaxed */
};

struct epoch {
	struct epoch_slot *slots; /* immutable after init */
	void *memory;             /* what the slots lie in; immutable after init */
	_Atomic(uint64_t) now;    /* atomic: release by the scan, acquire by pins */
	struct mutex lock;
	struct epoch_node *limbo[EPOCH_LISTS]; /* by value of now, modulo; guarded by lock */
	size_t backlog;                        /* retired, function not finished; guarded by lock */
	size_t backlog_try;                    /* a retire reclaims from here on; guarded by lock */
	bool reclaiming;                       /* somebody runs functions; guarded by lock */
};

/* 0 or -ENOMEM; after an error epoch_release is allowed and does nothing. */
int epoch_init(struct epoch *ep) EMDB_MUST_CHECK;

/* No pin may be held. Drains first. */
void epoch_release(struct epoch *ep);

/*
 * Until the matching unpin, whatever is reachable now or becomes reachable stays allocated. Returns
 * the token for epoch_unpin. Waits while EPOCH_SLOTS pins are held.
 */
unsigned epoch_pin(struct epoch *ep) EMDB_MUST_CHECK;
void epoch_unpin(struct epoch *ep, unsigned token);

/*
 * Runs fn(node) once no pin that began before this call is held. The object must be unreachable
 * for new pins already. Never fails, never waits for readers; may run functions of nodes retired
 * earlier, so: an fn must be short, may call epoch_retire, and may neither pin nor take a lock that
 * any caller of epoch_retire or epoch_reclaim can hold.
 */
void epoch_retire(struct epoch *ep, struct epoch_node *node, void (*fn)(struct epoch_node *));

/*
 * Frees what can be freed now. Returns how many nodes still wait. Two calls with no pin in between
 * free everything retired before the first, unless another thread is at it already.
 */
size_t epoch_reclaim(struct epoch *ep);

/* Pins taken so far, more or less: tells whether anybody is at work. */
uint64_t epoch_pins(struct epoch *ep);

/* Waits until nothing is left. The caller holds no pin and no lock that an unpin may wait for. */
void epoch_drain(struct epoch *ep);

#endif
