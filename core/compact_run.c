/* SPDX-License-Identifier: Apache-2.0 */
/* Compaction at work: waiting, emptying segments, retiring them. */
#include "core/compact_i.h"

#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>

#define GRACE_STEP_NS UINT64_C(1000000)
/* COMPACT_BACKOFF_NS doubles with each attempt in a row, so often. */
#define BACKOFF_MAX 8u
/* The caller's progress function is called at most once for so many bytes. */
#define PROGRESS_STEP UINT64_C(1048576)

enum grace_state { GRACE_PENDING, GRACE_OVER, GRACE_ABANDONED };

/* Over when every pin that was there at its beginning is gone. */
struct grace {
	struct epoch_node node;
	_Atomic(int) state; /* enum grace_state */
};

static void EMDB_PRINTF(3, 4) say(emdb_db *db, enum emdb_log_level level, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (!db->log)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	db->log(db->log_ctx, level, text);
}

/* ---- Objects that get bytes meanwhile ------------------------------------------- */

void compact_note_extent(emdb_db *db, uint64_t id)
{
	struct compactor *const c = db->compact;

	if (!c)
		return;
	mutex_lock(&c->note_lock);
	if (buf_append(&c->noted, &id, sizeof(id)))
		c->note_failed = true;
	mutex_unlock(&c->note_lock);
}

emdb_err compact_take_noted(emdb_db *db, struct buf *ret)
{
	struct compactor *const c = db->compact;
	emdb_err err = EMDB_OK;

	mutex_lock(&c->note_lock);
	if (c->note_failed)
		err = EMDB_ERR_NOMEM;
	c->note_failed = false;
	*ret = c->noted;
	c->noted = (struct buf)BUF_INIT;
	mutex_unlock(&c->note_lock);
	if (err)
		buf_release(ret);
	return err;
}

/* ---- Waiting ---------------------------------------------------------------------- */

bool compact_wait(emdb_db *db, uint64_t ns)
{
	struct compactor *const c = db->compact;
	const uint64_t until = io_clock_mono_ns(db->io) + ns;

	mutex_lock(&c->wake_lock);
	while (!compact_stopped(c) && cond_wait_until(&c->wake, &c->wake_lock, until))
		;
	mutex_unlock(&c->wake_lock);
	return !compact_stopped(c);
}

/* Of the thread; somebody who asked does not wait behind it.  False: stop. */
static bool nap(struct compact_job *j, uint64_t ns)
{
	struct compactor *const c = j->c;
	const uint64_t until = io_clock_mono_ns(j->db->io) + ns;

	mutex_lock(&c->wake_lock);
	while (!compact_stopped(c) && !atomic_load(&c->callers) &&
	       cond_wait_until(&c->wake, &c->wake_lock, until))
		;
	mutex_unlock(&c->wake_lock);
	return !compact_stopped(c) && !atomic_load(&c->callers);
}

/* Frames that others appended since the last look. */
static uint64_t others(const struct compact_job *j, struct compact_look *look)
{
	const struct compact_look before = *look;
	struct journal_stats st;

	journal_stats_get(j->db->j, &st);
	*look = (struct compact_look){ st.appends, j->own };
	return (st.appends - before.appends) - (j->own - before.own);
}

static bool throttle(struct compact_job *j, uint64_t bytes)
{
	uint64_t owed;

	j->debt += bytes;
	/* Ten milliseconds' worth at a time. */
	if (!j->rate || j->debt < j->rate / 100)
		return true;
	owed = j->debt * 1000000 / max_u64(j->rate / 1000, 1);
	j->debt = 0;
	if (j->background && !others(j, &j->wrote))
		return true;
	(void)sched_yield();
	return j->background ? nap(j, owed) : compact_wait(j->db, owed);
}

static struct compact_sight sight_of(emdb_db *db, const struct survey *s, bool low_space)
{
	struct compact_sight sight = { .now_ns = io_clock_mono_ns(db->io),
				       .ops = epoch_pins(&db->epoch),
				       .garbage = s->dead + s->going,
				       .live = s->total - s->dead,
				       .segment = UINT64_C(1) << db->sb.segment_shift,
				       .avail = UINT64_MAX,
				       .low_space = low_space,
				       .memory = db->memory };
	struct io_vfs vfs;

	if (!db->memory && io_fstatvfs(db->io, db->dirfd, &vfs) == 0)
		sight.avail = vfs.bavail * vfs.bsize;
	return sight;
}

static void tell(struct compactor *c)
{
	atomic_store_explicit(&c->limit, c->pace.limit, memory_order_relaxed);
	atomic_store_explicit(&c->state, (int)c->pace.state, memory_order_relaxed);
}

bool compact_begin(struct compact_job *j, const struct survey *s, bool low_space)
{
	struct compactor *const c = j->c;
	struct compact_sight sight;

	if (j->at_work)
		return true;
	sight = sight_of(j->db, s, low_space);
	j->at_work = compact_pace_begin(&c->pace, &sight);
	tell(c);
	/* Beyond the limit it is the pace alone that counts. */
	j->rate = c->pace.state == EMDB_COMPACT_LIMIT || c->pace.state == EMDB_COMPACT_TIGHT
			  ? 0
			  : c->rate;
	(void)others(j, &j->worked);
	return j->at_work;
}

/* How long to rest. */
static uint64_t piece_end(struct compact_job *j)
{
	j->at_work = false;
	return compact_pace_end(&j->c->pace, io_clock_mono_ns(j->db->io), epoch_pins(&j->db->epoch),
				others(j, &j->worked));
}

void compact_end(struct compact_job *j)
{
	if (j->at_work)
		(void)piece_end(j);
}

void compact_rest(struct compact_job *j, const struct survey *s)
{
	const struct compact_sight sight = sight_of(j->db, s, false);

	compact_end(j);
	compact_pace_nothing(&j->c->pace, &sight);
	tell(j->c);
}

static bool begin_again(struct compact_job *j)
{
	struct journal_seg_info *list;
	struct journal_stats st;
	struct survey s;
	size_t n;

	/* Without memory nothing is known, so it goes on. */
	if (compact_list(j->db, &list, &n))
		return true;
	journal_stats_get(j->db->j, &st);
	compact_survey(j->db, list, n, j->c->percent, 0, &s);
	base_free(list);
	return compact_begin(j, &s, st.low_space);
}

bool compact_turn(struct compact_job *j)
{
	uint64_t rest;

	if (!j->at_work ||
	    io_clock_mono_ns(j->db->io) - j->c->pace.work_ns < compact_pace_piece(&j->c->pace))
		return true;
	rest = piece_end(j);
	for (;; rest = PACE_QUIET_NS) {
		if (!nap(j, rest))
			return false;
		if (begin_again(j))
			return true;
		j->waited = true;
	}
}

static bool job_pause(void *ctx, struct mover *m, uint64_t bytes)
{
	struct compact_job *const j = ctx;

	atomic_fetch_add_explicit(&j->c->copied, bytes, memory_order_relaxed);
	atomic_store_explicit(&j->c->done, m->walked, memory_order_relaxed);
	j->p.copied_bytes += bytes;
	j->own += m->frames;
	m->frames = 0;
	if (compact_stopped(j->c) || (j->background && atomic_load(&j->c->callers)))
		return false;
	if (j->progress && m->walked - j->told >= PROGRESS_STEP) {
		j->told = m->walked;
		j->p.done_bytes = j->before + m->walked;
		if (!j->progress(j->progress_ctx, &j->p))
			return false;
	}
	if (!throttle(j, bytes) || !compact_turn(j))
		return false;
	/* What was to fit may not any more. */
	if (j->waited)
		m->flags = 0;
	return true;
}

/* ---- Retiring ----------------------------------------------------------------------- */

static void grace_over(struct epoch_node *node)
{
	struct grace *const g = container_of(node, struct grace, node);

	if (atomic_exchange(&g->state, GRACE_OVER) == GRACE_ABANDONED)
		base_free(g);
}

void compact_grace_end(struct grace *g)
{
	if (g && atomic_exchange(&g->state, GRACE_ABANDONED) == GRACE_OVER)
		base_free(g);
}

static void mark_bad(struct compactor *c, uint64_t id)
{
	/* Without memory it is tried again, to the same end. */
	if (!compact_is_bad(c, id) && buf_append(&c->bad, &id, sizeof(id)))
		return;
}

static bool want_leaving(void *ctx, const struct obj_view *v)
{
	const emdb_db *const db = ctx;
	const struct compactor *const c = db->compact;

	return !v->big &&
	       compact_id_in(c->leaving, c->nleaving, ref_lsn(v->ref) >> db->sb.segment_shift);
}

/*
 * The table can name a record that is not the object's any more: somebody
 * read the index, then the record moved, then he entered the object into the
 * table, and another one who found it there kept it.
 */
static emdb_err repair_row(emdb_db *db, uint64_t id)
{
	struct node n;
	emdb_err err;

	err = node_lock(db, id, false, &n);
	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_BUSY : err;
	if (!n.ns && !n.view.big) {
		if (n.view.orphan)
			err = want_leaving(db, &n.view) ? EMDB_ERR_BUSY : EMDB_OK;
		else if (n.entry.ref != n.view.ref)
			objtab_moved(db, id, n.view.ns, n.view.hash, n.entry.ref);
	}
	node_unlock(&n);
	return err;
}

static emdb_err repair_rows(emdb_db *db)
{
	struct buf ids = BUF_INIT;
	emdb_err err = EMDB_OK;

	for (size_t shard = 0; !err && shard < STORE_SHARDS; shard++)
		err = objtab_list(db, shard, want_leaving, db, &ids);
	for (size_t i = 0; !err && i < ids.len; i += sizeof(uint64_t)) {
		uint64_t id;

		memcpy(&id, ids.data + i, sizeof(id));
		err = repair_row(db, id);
	}
	buf_release(&ids);
	return err;
}

static struct mover mover_of(emdb_db *db, uint64_t seg)
{
	const uint64_t lo = seg << db->sb.segment_shift;

	return (struct mover){
		.db = db, .seg = seg, .lo = lo, .hi = lo + (UINT64_C(1) << db->sb.segment_shift)
	};
}

/* Of the last look: who asked waits for its end. */
static bool verify_pause(void *ctx, struct mover *m, uint64_t bytes)
{
	struct compact_job *const j = ctx;

	(void)m, (void)bytes;
	return compact_turn(j) || !compact_stopped(j->c);
}

/* Looks once more: what is retired is gone. */
static emdb_err verify_leaving(emdb_db *db, struct compact_job *j)
{
	struct compactor *const c = db->compact;
	emdb_err err = repair_rows(db);

	for (size_t i = 0; !err && i < c->nleaving; i++) {
		struct mover m = mover_of(db, c->leaving[i]);

		m.pause = verify_pause;
		m.ctx = j;
		err = compact_verify(&m);
		mover_release(&m);
		if (err == EMDB_ERR_BUSY)
			say(db, EMDB_LOG_ERROR,
			    "compaction: segment %" PRIu64 " is still referred to and stays",
			    c->leaving[i]);
		if (err && err != EMDB_ERR_CANCELLED)
			mark_bad(c, c->leaving[i]);
	}
	return err;
}

/* The emptied segments begin to wait for those who may still look at them. */
static emdb_err leave(emdb_db *db)
{
	struct compactor *const c = db->compact;
	struct grace *g;

	if (c->nleaving || !c->nemptied)
		return EMDB_OK;
	g = base_calloc(1, sizeof(*g));
	if (!g)
		return EMDB_ERR_NOMEM;
	memcpy(c->leaving, c->emptied, sizeof(c->leaving));
	c->nleaving = c->nemptied;
	c->nemptied = 0;
	c->emptied_bytes = 0;
	c->emptied_len = 0;
	c->grace = g;
	epoch_retire(&db->epoch, &g->node, grace_over);
	return EMDB_OK;
}

static bool grace_is_over(emdb_db *db)
{
	struct compactor *const c = db->compact;

	/* Nobody may be retiring anything: then only this steps the epoch on. */
	(void)epoch_reclaim(&db->epoch);
	return !c->grace || atomic_load(&c->grace->state) == GRACE_OVER;
}

static emdb_err retire_leaving(emdb_db *db, struct compact_job *j)
{
	struct compactor *const c = db->compact;
	struct journal_stats before, after;
	emdb_err err;

	compact_grace_end(c->grace);
	c->grace = NULL;
	/* All copies, and all that the decisions were based on. */
	err = journal_sync(db->j);
	if (!err)
		err = verify_leaving(db, j);
	if (!err) {
		journal_stats_get(db->j, &before);
		err = journal_retire(db->j, c->leaving, c->nleaving);
		journal_stats_get(db->j, &after);
	}
	if (!err) {
		atomic_fetch_add_explicit(&c->retired, c->nleaving, memory_order_relaxed);
		if (before.written_bytes > after.written_bytes)
			j->p.freed_bytes += before.written_bytes - after.written_bytes;
	}
	/* Else they are found again: nothing counts in them. */
	c->nleaving = 0;
	return err;
}

emdb_err compact_retire(emdb_db *db, struct compact_job *j, uint64_t wait_ns_max)
{
	struct compactor *const c = db->compact;
	emdb_err err = EMDB_OK;

	while (!err) {
		const uint64_t until = io_clock_mono_ns(db->io) + wait_ns_max;

		err = leave(db);
		if (err || !c->nleaving)
			return err;
		while (!grace_is_over(db))
			if (io_clock_mono_ns(db->io) >= until || !compact_wait(db, GRACE_STEP_NS))
				return EMDB_OK;
		err = retire_leaving(db, j);
	}
	return err;
}

/* ---- Emptying one segment ---------------------------------------------------------------- */

/* May emptying seg use what is kept back?  NO_SPACE: the disk is full, and it would not fit there. */
static emdb_err look_for_room(emdb_db *db, const struct journal_seg_info *seg,
			      const struct journal_seg_info *active, struct mover *m)
{
	const bool older = m->oldest < seg->id;
	struct journal_stats st;
	uint64_t kept = 0;

	journal_stats_get(db->j, &st);
	m->full = st.low_space;
	if (m->full)
		kept = journal_kept_room(db->j);
	if (!compact_fits(db, seg, older, active, kept)) {
		if (!m->full)
			return EMDB_OK;
		m->budget = compact_budget(db, seg, older, active, kept);
		if (!m->budget)
			return EMDB_ERR_NO_SPACE;
	}
	m->flags = JOURNAL_RESERVE;
	return EMDB_OK;
}

/* What emptying seg depends on in the others: which will be the oldest, and what room there is. */
static emdb_err look_around(emdb_db *db, const struct journal_seg_info *seg, struct mover *m)
{
	const struct compactor *const c = db->compact;
	struct journal_seg_info *list;
	size_t n;
	emdb_err err = compact_list(db, &list, &n);

	if (err)
		return err;
	m->oldest = UINT64_MAX;
	for (size_t i = 0; i < n && m->oldest == UINT64_MAX; i++)
		if (list[i].id != seg->id && !compact_id_in(c->emptied, c->nemptied, list[i].id))
			m->oldest = list[i].id;
	err = look_for_room(db, seg, n && !list[n - 1].sealed ? &list[n - 1] : NULL, m);
	base_free(list);
	return err;
}

/*
 * What counts is an estimate: the headers of very many very small writes, for
 * instance, do not.  So that nothing is copied round and round, what gained
 * nothing is not tried again soon.
 */
static void weigh(struct compact_job *j, const struct journal_seg_info *seg, const struct mover *m)
{
	const uint64_t size = UINT64_C(1) << j->db->sb.segment_shift;
	/* On a full disk a little is something. */
	const uint64_t least = m->full ? size / 128 : seg->len / 10;
	struct compactor *const c = j->c;

	if (seg->len < size / 4 || seg->id <= c->rewrite_upto)
		return;
	if (m->copied < seg->len - least) {
		c->useless = 0;
		return;
	}
	c->backoff_until_ns =
		io_clock_mono_ns(j->db->io) +
		(COMPACT_BACKOFF_NS << (c->useless < BACKOFF_MAX ? c->useless++ : BACKOFF_MAX));
}

emdb_err compact_empty(struct compact_job *j, const struct journal_seg_info *seg)
{
	struct compactor *const c = j->c;
	struct mover m = mover_of(j->db, seg->id);
	emdb_err err;

	m.pause = job_pause;
	m.ctx = j;
	err = look_around(j->db, seg, &m);
	if (err)
		return err;
	j->told = 0;
	j->waited = false;
	atomic_store_explicit(&c->total, seg->len, memory_order_relaxed);
	err = compact_move(&m);
	mover_release(&m);
	atomic_store_explicit(&c->total, 0, memory_order_relaxed);
	atomic_store_explicit(&c->done, 0, memory_order_relaxed);
	if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_IO || err == EMDB_ERR_TXN_TOO_BIG) {
		say(j->db, EMDB_LOG_WARN, "compaction: segment %" PRIu64 " stays: %s", seg->id,
		    emdb_strerror(err));
		mark_bad(c, seg->id);
	}
	if (err)
		return err;
	emdb_assert(c->nemptied < LEAVING_MAX);
	c->emptied[c->nemptied++] = seg->id;
	c->emptied_bytes += m.copied;
	c->emptied_len += seg->len;
	weigh(j, seg, &m);
	return EMDB_OK;
}
