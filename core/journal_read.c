/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of single records, by reference. */
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "core/journal_i.h"

/* ---- Reading ---------------------------------------------------------- */

struct segment *journal_segment_pinned(struct journal *j, uint64_t lsn)
{
	return table_find(j, lsn >> j->env.shift);
}

/* An error code cannot say where; the log does. */
static EMDB_NOINLINE EMDB_COLD void tell_unreadable(struct journal *j, uint64_t ref, emdb_err err)
{
	char name[SEGMENT_NAME_SIZE];

	segment_name(ref >> j->env.shift, name);
	journal_log(j, EMDB_LOG_ERROR, JOURNAL_DIR "/%s offset %llu: %s", name,
		    (unsigned long long)(ref_lsn(ref) & j->mask), emdb_strerror(err));
}

/* ---- Reading what is sealed ---- */

static void plain_free(struct epoch_node *node)
{
	base_free(container_of(node, struct plain, node));
}

static inline _Atomic(struct plain *) *plain_slot(struct journal *j, uint64_t ref)
{
	return &j->plains[(ref / 8 * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (PLAIN_SLOTS - 1)];
}

/* An earlier reader's; NULL: none. Valid while the pin lasts. */
static const struct plain *plain_find(struct journal *j, uint64_t ref)
{
	const struct plain *const p =
		atomic_load_explicit(plain_slot(j, ref), memory_order_acquire);

	return p && p->ref == ref ? p : NULL;
}

/* For later readers, in the place of another. */
static void plain_keep(struct journal *j, struct plain *p)
{
	struct plain *const old =
		atomic_exchange_explicit(plain_slot(j, p->ref), p, memory_order_acq_rel);

	if (old)
		epoch_retire(j->cfg.epoch, &old->node, plain_free);
}

static emdb_err rec_sealed(struct journal *j, const struct segment *s, uint64_t ref,
			   struct rec *ret)
{
	const struct plain *const kept = plain_find(j, ref);
	struct plain *p;
	emdb_err err;

	if (kept) {
		*ret = kept->rec;
		return EMDB_OK;
	}
	err = segment_open_rec(s, ref, &p);
	if (err)
		return err;
	*ret = p->rec;
	if (p->n >= PLAIN_MIN)
		plain_keep(j, p);
	else
		epoch_retire(j->cfg.epoch, &p->node, plain_free); /* the caller's pin keeps it */
	return EMDB_OK;
}

static emdb_err copy_piece(const struct rec *r, uint64_t skip, uint64_t len, void *dst)
{
	struct guard g;

	if (skip > r->value_len || len > r->value_len - skip)
		return EMDB_ERR_CORRUPT;
	if (!dst || !len)
		return EMDB_OK;
	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	memcpy(dst, r->value + skip, len);
	guard_end(&g);
	return EMDB_OK;
}

emdb_err journal_copy_pinned(struct journal *j, uint64_t ref, uint64_t skip, uint64_t len,
			     void *dst)
{
	const struct segment *const s = table_find(j, ref >> j->env.shift);
	struct plain *p = NULL;
	struct rec r;
	emdb_err err;

	if (!s || !s->key || plain_find(j, ref)) {
		err = journal_rec_pinned(j, ref, &r, NULL);
		return err ? err : copy_piece(&r, skip, len, dst);
	}
	err = segment_open_rec(s, ref, &p);
	if (err)
		tell_unreadable(j, ref, err);
	else
		err = copy_piece(&p->rec, skip, len, dst);
	if (!err && p->n >= PLAIN_MIN && len < p->rec.value_len)
		plain_keep(j, p);
	else
		base_free(p);
	return err;
}

emdb_err journal_rec_pinned(struct journal *j, uint64_t ref, struct rec *ret_rec,
			    struct segment **ret_seg)
{
	struct segment *const s = table_find(j, ref >> j->env.shift);
	emdb_err err;

	if (unlikely(!s))
		return EMDB_ERR_CORRUPT;
	err = unlikely(s->key) ? rec_sealed(j, s, ref, ret_rec)
			       : segment_rec(s, ref, j->cfg.verify, ret_rec);
	if (unlikely(err))
		tell_unreadable(j, ref, err);
	else if (ret_seg)
		*ret_seg = s;
	return err;
}

emdb_err journal_rec_in_pinned(struct journal *j, struct segment *seg, uint64_t ref,
			       struct rec *ret_rec)
{
	const emdb_err err = unlikely(seg->key) ? rec_sealed(j, seg, ref, ret_rec)
						: segment_rec(seg, ref, j->cfg.verify, ret_rec);

	if (unlikely(err))
		tell_unreadable(j, ref, err);
	return err;
}

emdb_err journal_frame_of_pinned(struct journal *j, uint64_t ref, struct frame *ret_frame,
				 struct segment **ret_seg)
{
	struct segment *const s = table_find(j, ref >> j->env.shift);
	emdb_err err;

	if (unlikely(!s))
		return EMDB_ERR_CORRUPT;
	err = segment_frame_of(s, ref, j->cfg.verify, ret_frame);
	if (!err && ret_seg)
		*ret_seg = s;
	return err;
}

void journal_prefetch_pinned(struct journal *j, uint64_t ref)
{
	struct segment *const s = table_find(j, ref >> j->env.shift);

	if (s)
		segment_prefetch(s, ref_lsn(ref) & j->mask);
}

uint32_t journal_size_pinned(struct journal *j, uint64_t ref)
{
	const struct segment *const s = table_find(j, ref >> j->env.shift);

	return s ? segment_size_of(s, ref) : 0;
}
