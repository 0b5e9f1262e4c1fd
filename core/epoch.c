/* SPDX-License-Identifier: Apache-2.0 */
#include "core/epoch.h"

#include <sched.h>
#include <time.h>

#define HOME_MISSES_MAX 16 /* failed claims before a thread moves to another slot */
#define WAIT_YIELDS     64
#define WAIT_SLEEP_NS   50000

static_assert((EPOCH_SLOTS & (EPOCH_SLOTS - 1)) == 0, "slot numbers wrap by mask");
static_assert(sizeof(struct epoch_slot) == EPOCH_CACHE_LINE, "one slot, one cache line");

/*
 * Where this thread looks for a free slot first. Only a hint, shared by all epochs, hence no state
 * of any of them: a wrong value costs time, nothing else.
 */
static _Thread_local struct {
	unsigned slot; /* number + 1, 0 = not chosen yet */
	unsigned misses;
} home;

/*
 * gcc says that its ThreadSanitizer does not model fences. It need not here: every field that the
 * fences order is atomic, and what is freed is ordered by release and acquire as well.
 */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

static inline void full_fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

/* The same right behind a read-modify-write, which on x86 is a full fence already. */
static inline void full_fence_after_rmw(void)
{
#if defined(__x86_64__) || defined(__i386__)
	atomic_signal_fence(memory_order_seq_cst);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Rounds count from 0; yields at first, then sleeps, so that a long wait costs no processor. */
static void wait_round(unsigned round)
{
	const struct timespec ts = { .tv_sec = 0, .tv_nsec = WAIT_SLEEP_NS };

	if (round < WAIT_YIELDS)
		(void)sched_yield();
	else
		(void)nanosleep(&ts, NULL);
}

int epoch_init(struct epoch *ep)
{
	void *const memory =
		base_malloc(sizeof(struct epoch_slot) * EPOCH_SLOTS + EPOCH_CACHE_LINE);

	*ep = (struct epoch){ .memory = memory };
	if (!memory)
		return -ENOMEM;
	ep->slots = (struct epoch_slot *)align_up((uintptr_t)memory, EPOCH_CACHE_LINE);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++) {
		atomic_init(&ep->slots[i].pinned, 0);
		atomic_init(&ep->slots[i].count, 0);
	}
	atomic_init(&ep->now, 1);
	ep->backlog_try = EPOCH_BACKLOG_MAX;
	mutex_init(&ep->lock, LOCK_EPOCH);
	return 0;
}

void epoch_release(struct epoch *ep)
{
	if (!ep || !ep->memory)
		return;
	epoch_drain(ep);
	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		emdb_assert(atomic_load(&ep->slots[i].pinned) == 0);
	mutex_destroy(&ep->lock);
	base_free(ep->memory);
	*ep = (struct epoch){ .memory = NULL };
}

/* ---- Pins ---- */

/*
 * The address of a thread-local variable tells threads apart; stacks and TLS blocks lie at multiples
 * of large powers of two, so the multiplication moves the bits that differ to the top.
 */
static unsigned home_choose(void)
{
	const uint64_t mixed = (uint64_t)(uintptr_t)&home * 0x9e3779b97f4a7c15u;

	return (unsigned)(mixed >> 32) & (EPOCH_SLOTS - 1);
}

/* Claims slot i; false when it is taken. Step 1 of the proof is the fence at the end. */
static inline bool slot_claim(struct epoch *ep, unsigned i)
{
	const uint64_t e = atomic_load_explicit(&ep->now, memory_order_acquire);
	uint64_t idle = 0;

	if (!atomic_compare_exchange_strong_explicit(&ep->slots[i].pinned, &idle, e,
						     memory_order_seq_cst, memory_order_relaxed))
		return false;
	full_fence_after_rmw();
	/* Nobody else writes it while the slot is ours. */
	atomic_store_explicit(&ep->slots[i].count,
			      atomic_load_explicit(&ep->slots[i].count, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	return true;
}

/*
 * The home slot is taken: by an outer pin of this very thread, or by another thread with the same
 * home. Only the second is worth moving for, and it goes on; so move after a number of misses.
 */
static EMDB_NOINLINE unsigned pin_elsewhere(struct epoch *ep, unsigned from)
{
	unsigned round = 0;
	unsigned i = from;

	for (;;) {
		i = (i + 1) & (EPOCH_SLOTS - 1);
		if (i == from)
			wait_round(round++);
		if (atomic_load_explicit(&ep->slots[i].pinned, memory_order_relaxed) == 0 &&
		    slot_claim(ep, i))
			break;
	}
	if (++home.misses >= HOME_MISSES_MAX) {
		home.misses = 0;
		home.slot = i + 1;
	}
	return i;
}

unsigned epoch_pin(struct epoch *ep)
{
	unsigned i;

	if (unlikely(home.slot == 0))
		home.slot = home_choose() + 1;
	i = home.slot - 1;
	if (likely(slot_claim(ep, i)))
		return i;
	return pin_elsewhere(ep, i);
}

void epoch_unpin(struct epoch *ep, unsigned token)
{
	emdb_dassert(token < EPOCH_SLOTS);
	emdb_dassert(atomic_load_explicit(&ep->slots[token].pinned, memory_order_relaxed) != 0);
	/* Release: pairs with the acquire in scan_locked, step 4 of the proof. */
	atomic_store_explicit(&ep->slots[token].pinned, 0, memory_order_release);
}

uint64_t epoch_pins(struct epoch *ep)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < EPOCH_SLOTS; i++)
		n += atomic_load_explicit(&ep->slots[i].count, memory_order_relaxed);
	return n;
}

/* ---- Deferred frees ---- */

void epoch_retire(struct epoch *ep, struct epoch_node *node, void (*fn)(struct epoch_node *))
{
	bool reclaim;
	uint64_t now;

	full_fence(); /* step 1 of the proof: after the unlinking store */
	node->fn = fn;
	mutex_lock(&ep->lock);
	now = atomic_load_explicit(&ep->now, memory_order_relaxed);
	node->next = ep->limbo[now % EPOCH_LISTS];
	ep->limbo[now % EPOCH_LISTS] = node;
	ep->backlog++;
	reclaim = ep->backlog >= ep->backlog_try && !ep->reclaiming;
	mutex_unlock(&ep->lock);
	if (reclaim)
		(void)epoch_reclaim(ep);
}

/* Steps `now` when every pin has its value. */
static bool scan_locked(struct epoch *ep) EMDB_REQUIRES(ep->lock)
{
	const uint64_t now = atomic_load_explicit(&ep->now, memory_order_relaxed);

	full_fence(); /* step 2 of the proof: before the slots are looked at */
	for (unsigned i = 0; i < EPOCH_SLOTS; i++) {
		const uint64_t e = atomic_load_explicit(&ep->slots[i].pinned, memory_order_acquire);

		if (e != 0 && e != now)
			return false;
	}
	atomic_store_explicit(&ep->now, now + 1, memory_order_release);
	return true;
}

/* Prepends what the last step made freeable, the list of now - 2, to *batch. */
static void collect_locked(struct epoch *ep, struct epoch_node **batch) EMDB_REQUIRES(ep->lock)
{
	const uint64_t now = atomic_load_explicit(&ep->now, memory_order_relaxed);
	struct epoch_node **const list = &ep->limbo[(now + 1) % EPOCH_LISTS];

	while (*list) {
		struct epoch_node *const node = *list;

		*list = node->next;
		node->next = *batch;
		*batch = node;
	}
}

static size_t run_all(struct epoch_node *batch)
{
	size_t n = 0;

	while (batch) {
		struct epoch_node *const node = batch;

		batch = node->next; /* the node is gone after the call */
		node->fn(node);
		n++;
	}
	return n;
}

size_t epoch_reclaim(struct epoch *ep)
{
	struct epoch_node *batch = NULL;
	size_t left;
	size_t done;

	mutex_lock(&ep->lock);
	left = ep->backlog;
	if (left == 0 || ep->reclaiming) {
		mutex_unlock(&ep->lock);
		return left;
	}
	/* Functions may retire, and then must not come back here and recurse. */
	ep->reclaiming = true;
	for (int step = 0; step < EPOCH_LISTS && scan_locked(ep); step++)
		collect_locked(ep, &batch);
	mutex_unlock(&ep->lock);

	done = run_all(batch);

	mutex_lock(&ep->lock);
	ep->reclaiming = false;
	ep->backlog -= done;
	left = ep->backlog;
	ep->backlog_try =
		left + EPOCH_BACKLOG_MAX; /* a stuck pin must not make every retire scan */
	mutex_unlock(&ep->lock);
	return left;
}

void epoch_drain(struct epoch *ep)
{
	for (unsigned round = 0; epoch_reclaim(ep) > 0; round++)
		wait_round(round);
}
