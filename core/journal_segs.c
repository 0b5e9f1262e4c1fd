/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's segments as the layers above see them: sealing, retiring, counting, checkpoints. */
#include <string.h>

#include "core/journal_i.h"

/* ---- Sealing ---------------------------------------------------------- */

/* End of the last segment that waits to be sealed; 0: none. */
static uint64_t rolled_end(struct journal *j)
{
	uint64_t end = 0;

	mutex_lock(&j->segment_lock);
	for (size_t i = j->count; i > 0; i--) {
		const struct segment *const s = j->list[i - 1];

		if (segment_state(s) == SEGMENT_SEALED)
			break;
		if (segment_state(s) == SEGMENT_ROLLED && !end)
			end = s->base + segment_len(s);
	}
	mutex_unlock(&j->segment_lock);
	return end;
}

/* True for a segment that is rolled and wholly on stable storage. */
static bool may_seal(const struct segment *s, uint64_t durable)
{
	return segment_state(s) == SEGMENT_ROLLED && s->base + segment_len(s) <= durable;
}

/* Enters into *next what may be sealed. */
static emdb_err seal_rows(struct journal *j, struct manifest *next, uint64_t durable)
{
	const emdb_err err = manifest_copy(&j->manifest, next);

	if (err)
		return err;
	mutex_lock(&j->segment_lock);
	for (size_t i = 0; i < j->count; i++) {
		const struct segment *const s = j->list[i];
		struct manifest_seg *const row = manifest_find(next, s->id);

		if (row && may_seal(s, durable)) {
			row->len = segment_len(s);
			row->flags = MANIFEST_SEALED;
		}
	}
	mutex_unlock(&j->segment_lock);
	next->head.durable_lsn = durable;
	return EMDB_OK;
}

/*
 * The manifest says sealed: nobody needs the descriptors any more. The oldest first, one at a time;
 * retiring one meanwhile takes manifest_lock, which the caller holds.
 */
static void seal_done_locked(struct journal *j, uint64_t durable) EMDB_REQUIRES(&j->manifest_lock);
static void seal_done_locked(struct journal *j, uint64_t durable)
{
	struct segment *s;

	lock_assert_held(LOCK_MANIFEST);
	do {
		sync_exclude(j);
		s = NULL;
		mutex_lock(&j->segment_lock);
		for (size_t i = 0; i < j->count && !s; i++)
			if (may_seal(j->list[i], durable))
				s = j->list[i];
		if (s)
			atomic_store_explicit(&s->state, SEGMENT_SEALED, memory_order_release);
		mutex_unlock(&j->segment_lock);
		sync_admit(j);
		if (s)
			segment_trim(s);
	} while (s);
}

emdb_err journal_seal(struct journal *j)
{
	const uint64_t end = rolled_end(j);
	struct manifest next = MANIFEST_INIT;
	uint64_t durable;
	emdb_err err;

	if (!atomic_load_explicit(&j->running, memory_order_acquire))
		return EMDB_ERR_READ_ONLY;
	if (journal_has_failed(j))
		return EMDB_ERR_FAILED;
	if (!end)
		return EMDB_OK;
	err = journal_sync_to(j, end);
	if (err)
		return err;
	mutex_lock(&j->manifest_lock);
	durable = journal_durable(j);
	err = seal_rows(j, &next, durable);
	if (!err)
		err = manifest_commit_locked(j, &next, NULL);
	if (!err)
		seal_done_locked(j, durable);
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	return err;
}

/* ---- Retiring --------------------------------------------------------- */

/* INVAL unless every one is listed and sealed. */
static emdb_err retire_rows(struct journal *j, const uint64_t *ids, size_t n, struct manifest *next)
{
	const emdb_err err = manifest_copy(&j->manifest, next);

	for (size_t i = 0; !err && i < n; i++) {
		const struct manifest_seg *const row = manifest_find(next, ids[i]);

		if (!row || !(row->flags & MANIFEST_SEALED))
			return EMDB_ERR_INVAL;
		manifest_remove(next, ids[i], j->env.shift);
	}
	next->head.durable_lsn = journal_durable(j);
	return err;
}

emdb_err journal_retire(struct journal *j, const uint64_t *ids, size_t n)
{
	struct manifest next = MANIFEST_INIT;
	emdb_err err;

	if (!atomic_load_explicit(&j->running, memory_order_acquire))
		return EMDB_ERR_READ_ONLY;
	if (journal_has_failed(j))
		return EMDB_ERR_FAILED;
	if (n == 0)
		return EMDB_OK;
	mutex_lock(&j->manifest_lock);
	while (j->retire_pins)
		cond_wait(&j->retire_free, &j->manifest_lock);
	err = retire_rows(j, ids, n, &next);
	if (!err)
		err = manifest_commit_locked(j, &next, NULL);
	/* Out of memory here: the files are debris that stays mapped until the store is closed. */
	if (!err && segments_remove(j, ids, n, true) == EMDB_OK)
		recycle_bury(j, ids, n);
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	if (!err && atomic_load(&j->low_space)) {
		mutex_lock(&j->roll_lock);
		j->spare_retry_ns = 0;
		mutex_unlock(&j->roll_lock);
	}
	keeper_kick(j);
	return err;
}

void journal_give_back(struct journal *j)
{
	(void)recycle_drop(j);
}

void journal_pin_retire(struct journal *j)
{
	mutex_lock(&j->manifest_lock);
	j->retire_pins++;
	mutex_unlock(&j->manifest_lock);
}

void journal_unpin_retire(struct journal *j)
{
	mutex_lock(&j->manifest_lock);
	emdb_assert(j->retire_pins);
	/* Who reads them by their other names may do so when those are gone again. */
	mutex_lock(&j->segment_lock);
	for (size_t i = 0; i < j->count; i++)
		if (segment_state(j->list[i]) >= SEGMENT_ROLLED)
			j->list[i]->linked = true;
	mutex_unlock(&j->segment_lock);
	if (--j->retire_pins == 0)
		cond_broadcast(&j->retire_free);
	mutex_unlock(&j->manifest_lock);
}

emdb_err journal_manifest_get(struct journal *j, struct manifest *ret)
{
	const bool add =
		!atomic_load_explicit(&j->running, memory_order_acquire) && !j->cfg.salvage;
	emdb_err err;

	mutex_lock(&j->manifest_lock);
	err = manifest_copy(&j->manifest, ret);
	for (uint32_t i = 0; !err && add && i < j->found.head.ngaps; i++)
		err = manifest_gap_add(ret, j->found.gaps[i].lsn, j->found.gaps[i].len);
	mutex_unlock(&j->manifest_lock);
	return err;
}

/* ---- Looking ---------------------------------------------------------- */

bool journal_retired_pinned(struct journal *j, uint64_t lsn)
{
	bool listed;

	if (journal_segment_pinned(j, lsn))
		return false;
	mutex_lock(&j->manifest_lock);
	listed = manifest_find(&j->manifest, lsn >> j->env.shift) != NULL;
	mutex_unlock(&j->manifest_lock);
	return !listed;
}

/* Bytes of s in use. */
static uint64_t used_len(const struct journal *j, const struct segment *s)
{
	const uint64_t tail = journal_load_tail(j);

	if (segment_state(s) == SEGMENT_SPARE)
		return FMT_SEG_HEADER;
	if (segment_state(s) == SEGMENT_ACTIVE && tail >> s->shift == s->id)
		return tail - s->base;
	return segment_len(s);
}

/* Bytes that can still be written to s. */
static uint64_t room_left(const struct journal *j, const struct segment *s)
{
	const uint64_t used = used_len(j, s);

	return segment_state(s) == SEGMENT_ACTIVE && used < s->room ? s->room - used : 0;
}

size_t journal_segments(struct journal *j, struct journal_seg_info *ret, size_t max)
{
	size_t n = 0;

	mutex_lock(&j->segment_lock);
	for (size_t i = 0; i < j->count; i++) {
		const struct segment *const s = j->list[i];

		if (segment_state(s) == SEGMENT_SPARE)
			continue;
		if (n < max)
			ret[n] = (struct journal_seg_info){
				.id = s->id,
				.len = used_len(j, s),
				.live = segment_live(s),
				.tombs = atomic_load_explicit(&s->tombs, memory_order_relaxed),
				.room = room_left(j, s),
				.sealed = segment_state(s) == SEGMENT_SEALED,
			};
		n++;
	}
	mutex_unlock(&j->segment_lock);
	return n;
}

uint64_t journal_oldest(struct journal *j)
{
	uint64_t lsn;

	mutex_lock(&j->segment_lock);
	lsn = j->count ? j->list[0]->base : journal_load_tail(j);
	mutex_unlock(&j->segment_lock);
	return lsn;
}

void journal_stats_get(struct journal *j, struct journal_stats *ret)
{
	struct journal_stats st = { .segments = 0 };

	mutex_lock(&j->segment_lock);
	for (size_t i = 0; i < j->count; i++) {
		const struct segment *const s = j->list[i];
		const uint64_t len = used_len(j, s);
		const uint64_t size = atomic_load_explicit(&s->size, memory_order_relaxed);

		st.segments += segment_state(s) != SEGMENT_SPARE;
		st.written_bytes += len;
		st.preallocated_bytes += size > len ? size - len : 0;
		st.live_bytes += segment_live(s);
	}
	for (const struct segment *s = j->dead; s; s = s->next_dead)
		if (s->file == DEAD_KEPT)
			st.preallocated_bytes +=
				atomic_load_explicit(&s->size, memory_order_relaxed);
	mutex_unlock(&j->segment_lock);
	mutex_lock(&j->sync_lock);
	st.flushes = j->flushes;
	st.syncs = j->syncs;
	memcpy(st.group_size, j->group_size, sizeof(st.group_size));
	mutex_unlock(&j->sync_lock);
	st.appends = atomic_load_explicit(&j->appends, memory_order_relaxed);
	st.recycled = atomic_load_explicit(&j->recycled, memory_order_relaxed);
	st.low_space = atomic_load(&j->low_space);
	*ret = st;
}

/* ---- Checkpoints ------------------------------------------------------ */

void journal_checkpoint_get(struct journal *j, struct journal_checkpoint *ret)
{
	mutex_lock(&j->manifest_lock);
	ret->number = j->manifest.head.ckpt;
	ret->lsn = j->manifest.head.ckpt_lsn;
	ret->prev_number = j->manifest.head.ckpt_prev;
	ret->prev_lsn = j->manifest.head.ckpt_prev_lsn;
	mutex_unlock(&j->manifest_lock);
}

emdb_err journal_checkpoint_set(struct journal *j, uint64_t number, uint64_t lsn)
{
	struct manifest next = MANIFEST_INIT;
	emdb_err err = EMDB_OK;

	if (!atomic_load_explicit(&j->running, memory_order_acquire))
		return EMDB_ERR_READ_ONLY;
	if (journal_has_failed(j))
		return EMDB_ERR_FAILED;
	if (lsn > journal_load_tail(j))
		return EMDB_ERR_INVAL;
	/* A replay that starts at lsn never looks at what is before: that must not get lost. */
	if (journal_durable(j) < lsn)
		err = journal_sync_to(j, lsn);
	if (err)
		return err;
	mutex_lock(&j->manifest_lock);
	err = manifest_copy(&j->manifest, &next);
	if (!err) {
		next.head.ckpt_prev = next.head.ckpt;
		next.head.ckpt_prev_lsn = next.head.ckpt_lsn;
		next.head.ckpt = number;
		next.head.ckpt_lsn = lsn;
		next.head.durable_lsn = journal_durable(j);
		err = manifest_commit_locked(j, &next, NULL);
	}
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	return err;
}
