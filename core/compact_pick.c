/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which segments are worth compacting.  Unasked, the first of these that finds one:
 *	- the disk is full: of those that fit into what is kept back, the one with the largest dead share
 *	- of those whose dead share is that of the options or more, the one with the largest
 *	- a quarter of the whole store is dead: the one with the largest share
 *	- there are many small ones of about one size: those, oldest first, so that they merge
 *	- much of the store only says that things are gone: all of it from the oldest on
 * Dead is what does not count, but for what must go on saying that something is
 * gone because older segments are there.
 */
#include "core/compact_i.h"

/* The whole store: with that share dead, segments are worth it from this share on. */
#define STORE_PERCENT     25u
#define STORE_SEG_PERCENT 20u
/* Small segments of one tier that are not worth merging, and how long those of the first are. */
#define SMALL_MAX 8u
#define TIER_LEN  4096u
/* What a copy can have beyond its record: ORIGIN, ID, TIMES, the header of a frame instead of a prefix. */
#define COPY_GROWTH 64u

/* Segment header and SEAL frame: what every segment has besides records. */
#define SEGMENT_OVERHEAD (FMT_SEG_HEADER + FMT_SEAL_ROOM)

bool compact_is_bad(const struct compactor *c, uint64_t id)
{
	return compact_id_in((const uint64_t *)(void *)c->bad.data, c->bad.len / sizeof(id), id);
}

bool compact_goes(const struct compactor *c, uint64_t id)
{
	return compact_id_in(c->emptied, c->nemptied, id) ||
	       compact_id_in(c->leaving, c->nleaving, id);
}

/* All segments; *ret_n of them, to be freed. */
emdb_err compact_list(emdb_db *db, struct journal_seg_info **ret, size_t *ret_n)
{
	size_t n = journal_segments(db->j, NULL, 0), got;
	struct journal_seg_info *list;

	for (;;) {
		const size_t room = n + 4;

		list = base_calloc(room, sizeof(*list));
		if (!list)
			return EMDB_ERR_NOMEM;
		got = journal_segments(db->j, list, room);
		if (got <= room)
			break;
		base_free(list);
		n = got;
	}
	*ret = list;
	*ret_n = got;
	return EMDB_OK;
}

/* Bytes that emptying the segment would free; older: there are older segments that stay. */
uint64_t compact_dead(const struct journal_seg_info *s, bool older)
{
	const uint64_t used = s->live + (older ? s->tombs : 0) + SEGMENT_OVERHEAD;

	return s->len > used ? s->len - used : 0;
}

/* Bytes for frames of up to `longest` on a full disk, with what is kept back behind the active segment. */
static uint64_t room_of(const struct journal_seg_info *active, uint64_t kept, uint64_t longest)
{
	const uint64_t rest = active ? active->room : 0;
	/* The frame that does not fit there any more leaves the rest. */
	const uint64_t left = kept ? longest + FMT_SEAL_ROOM : FMT_SEAL_ROOM;

	return kept + (rest > left ? rest - left : 0);
}

bool compact_fits(const emdb_db *db, const struct journal_seg_info *s, bool older,
		  const struct journal_seg_info *active, uint64_t kept)
{
	const uint64_t need = s->len - compact_dead(s, older);

	return need <= room_of(active, 0, 0) / 4 * 3 ||
	       (kept && need <= room_of(active, kept, db_extent_max(db)) / 4 * 3);
}

struct count {
	uint64_t records, longest;
	bool writes;
};

static emdb_err count_frame(void *ctx, struct segment *seg, const struct frame *f)
{
	struct count *const n = ctx;
	struct batch_iter it;

	(void)seg;
	if (f->kind != FRAME_BATCH)
		n->records++;
	else if (fmt_batch_begin(f, &it))
		n->records += it.left;
	n->longest = max_u64(n->longest, f->len);
	n->writes = n->writes || f->kind == REC_WRITE || f->kind == FRAME_BATCH;
	return EMDB_OK;
}

uint64_t compact_budget(emdb_db *db, const struct journal_seg_info *s, bool older,
			const struct journal_seg_info *active, uint64_t kept)
{
	const uint64_t need = s->len - compact_dead(s, older);
	const uint64_t back = (UINT64_C(1) << db->sb.segment_shift) / 64;
	struct count n = { 0 };
	uint64_t room;

	if (need > room_of(active, kept, 0) || journal_walk_segment(db->j, s->id, count_frame, &n))
		return 0;
	/* Neighbours are joined. */
	room = room_of(active, kept, n.writes ? db_extent_max(db) : n.longest + COPY_GROWTH);
	return room > back && need + n.records * COPY_GROWTH <= room - back ? room - back : 0;
}

bool compact_share(uint64_t dead, uint64_t len, unsigned int percent)
{
	return dead * 100 >= len * percent;
}

static void note_small(struct survey *s, const struct journal_seg_info *g)
{
	unsigned int tier = 0;

	for (uint64_t len = TIER_LEN; len < g->len && tier + 1 < COMPACT_TIERS; len *= 4)
		tier++;
	s->smalls++;
	s->small[tier].count++;
	s->small[tier].last = g;
	if (!s->small[tier].first)
		s->small[tier].first = g;
}

/* On a full disk: the one with the largest share that fits for certain, and that might fit. */
static void note_fit(const emdb_db *db, struct survey *s, const struct journal_seg_info *g,
		     uint64_t dead, bool older)
{
	const bool sure = compact_fits(db, g, older, s->active, s->kept);

	if (sure && (!s->fits || dead * s->fits->len > s->fits_dead * g->len)) {
		s->fits = g;
		s->fits_dead = dead;
	}
	if (!sure && g->len - dead <= room_of(s->active, s->kept, 0) &&
	    (!s->may_fit || dead * s->may_fit->len > s->may_fit_dead * g->len)) {
		s->may_fit = g;
		s->may_fit_dead = dead;
	}
}

void compact_survey(emdb_db *db, const struct journal_seg_info *list, size_t n,
		    unsigned int percent, uint64_t kept, struct survey *s)
{
	const struct compactor *const c = db->compact;
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	bool older = false, was_older;

	memset(s, 0, sizeof(*s));
	s->kept = kept;
	if (n && !list[n - 1].sealed)
		s->active = &list[n - 1];
	for (size_t i = 0; i < n; i++) {
		const struct journal_seg_info *const g = &list[i];
		const uint64_t dead = compact_dead(g, older);

		if (compact_goes(c, g->id)) {
			s->going += g->len;
			continue;
		}
		s->total += g->len;
		s->dead += dead;
		s->tombs += older ? g->tombs : 0;
		if (g == s->active)
			s->active_older = older;
		was_older = older;
		older = true;
		if (!g->sealed || compact_is_bad(c, g->id))
			continue;
		if (!s->first)
			s->first = g;
		s->last = g;
		if (g->len < size / 4)
			note_small(s, g);
		/* Little ones only when all of it goes: the manifest is written for each. */
		if (compact_share(dead, g->len, percent) && (dead >= size / 64 || g->live == 0) &&
		    (!s->due || dead * s->due->len > s->due_dead * g->len)) {
			s->due = g;
			s->due_dead = dead;
		}
		if (g->live == 0 || dead >= size / 64)
			note_fit(db, s, g, dead, was_older);
		if (!s->best || dead * s->best->len > s->best_dead * g->len) {
			s->best = g;
			s->best_dead = dead;
		}
	}
}

/*
 * What says that things are gone goes once all that is older has been written
 * anew: from the oldest segment to the one that was the newest at the beginning.
 * If that did not help, not again until there is twice as much.
 */
static const struct journal_seg_info *rewrite(struct compactor *c, const struct survey *s,
					      uint64_t size)
{
	if (s->tombs < size / 4 || !compact_share(s->tombs, s->total, STORE_PERCENT)) {
		c->rewrite_tombs = 0;
		return NULL;
	}
	if (!s->first || s->first->id <= c->rewrite_upto)
		return s->first;
	if (s->tombs < c->rewrite_tombs * 2)
		return NULL;
	c->rewrite_upto = s->last->id;
	c->rewrite_tombs = s->tombs;
	return s->first;
}

/*
 * Each start after a crash leaves a small segment, in which nothing need be garbage.  When there are many of
 * about one size all of them are merged: what comes of it is larger, so that a record is copied once
 * for each size, not each time.
 */
const struct journal_seg_info *compact_choose_small(struct compactor *c, const struct survey *s)
{
	const struct journal_seg_info *first = s->small[c->merge_tier].first;

	if (first && first->id <= c->merge_upto)
		return first;
	c->merge_upto = 0;
	for (unsigned int i = 0; i < COMPACT_TIERS; i++) {
		if (s->small[i].count <= SMALL_MAX)
			continue;
		c->merge_tier = i;
		c->merge_upto = s->small[i].last->id;
		return s->small[i].first;
	}
	return NULL;
}

const struct journal_seg_info *compact_choose(emdb_db *db, const struct survey *s, bool low_space)
{
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	const struct journal_seg_info *small;

	if (low_space)
		return s->fits ? s->fits : s->may_fit;
	if (s->due)
		return s->due;
	if (s->best && s->best_dead >= size / 64 &&
	    compact_share(s->dead, s->total, STORE_PERCENT) &&
	    compact_share(s->best_dead, s->best->len, STORE_SEG_PERCENT))
		return s->best;
	small = compact_choose_small(db->compact, s);
	return small ? small : rewrite(db->compact, s, size);
}

/* Is the segment worth it for somebody who asked? */
bool compact_asked_for(emdb_db *db, const struct journal_seg_info *list, size_t n, size_t i,
		       uint32_t percent)
{
	const struct compactor *const c = db->compact;
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	bool older = false;
	size_t small = 0;

	if (!list[i].sealed || compact_is_bad(c, list[i].id) || compact_goes(c, list[i].id))
		return false;
	for (size_t k = 0; k < n; k++) {
		older = older || (k < i && !compact_goes(c, list[k].id));
		small += list[k].sealed && list[k].len < size / 4 && !compact_goes(c, list[k].id);
	}
	if (list[i].len < size / 4 && small > 1)
		return true;
	return compact_share(compact_dead(&list[i], older), list[i].len, max_u64(percent, 2) & 127);
}
