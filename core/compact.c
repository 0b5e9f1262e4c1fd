/* SPDX-License-Identifier: Apache-2.0 */
/* Compaction: emptying segments, waiting, retiring them; the thread and the call. */
#include "core/compact_i.h"

#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>

#define PERCENT_DEFAULT 50u
#define RATE_DEFAULT    (UINT64_C(64) << 20)
/* How many of them a close leaves: opens may be too short for the background to merge theirs. */
#define TIDY_SEGMENTS 64u
#define TICK_NS       UINT64_C(250000000)
/* How long emdb_compact() waits for readers before it leaves the rest to the thread. */
#define GRACE_WAIT_NS UINT64_C(500000000)
#define GRACE_STEP_NS UINT64_C(1000000)
/* Pause after an attempt that gained nothing, doubled each time up to BACKOFF_MAX doublings. */
#define BACKOFF_NS  UINT64_C(10000000000)
#define BACKOFF_MAX 8u
/* The caller's progress function is called at most once for so many bytes. */
#define PROGRESS_STEP UINT64_C(1048576)

enum grace_state { GRACE_PENDING, GRACE_OVER, GRACE_ABANDONED };

/* Over when every pin that was there at its beginning is gone. */
struct grace {
	struct epoch_node node;
	_Atomic(int) state; /* enum grace_state */
};

/* One run of the thread or of emdb_compact(). */
struct job {
	emdb_db *db;
	struct compactor *c;
	bool background;
	uint64_t rate;      /* bytes per second, 0: no limit */
	uint64_t debt;      /* bytes not yet waited for */
	uint64_t tail, own; /* journal_tail() at the last look, and what we wrote since */
	uint64_t told;      /* bytes walked when progress was told last */
	bool (*progress)(void *ctx, const struct emdb_compact_progress *p);
	void *progress_ctx;
	struct emdb_compact_progress p;
	uint64_t before; /* done_bytes of the segments before this one */
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

static bool stopped(const struct compactor *c)
{
	return atomic_load_explicit(&c->stopping, memory_order_relaxed);
}

/* False: the store is being closed. */
static bool wait_ns(emdb_db *db, uint64_t ns)
{
	struct compactor *const c = db->compact;
	const uint64_t until = io_clock_mono_ns(db->io) + ns;

	mutex_lock(&c->wake_lock);
	while (!stopped(c) && cond_wait_until(&c->wake, &c->wake_lock, until))
		;
	mutex_unlock(&c->wake_lock);
	return !stopped(c);
}

/* Did anybody else write since the last look? */
static bool others_write(struct job *j)
{
	const uint64_t tail = journal_tail(j->db->j);
	const bool busy = tail - j->tail > j->own;

	j->tail = tail;
	j->own = 0;
	return busy;
}

static bool throttle(struct job *j, uint64_t bytes)
{
	uint64_t owed;

	j->own += bytes;
	j->debt += bytes;
	/* Ten milliseconds' worth at a time. */
	if (!j->rate || j->debt < j->rate / 100)
		return true;
	owed = j->debt;
	j->debt = 0;
	if (j->background && !others_write(j))
		return true;
	(void)sched_yield();
	return wait_ns(j->db, owed * 1000000 / max_u64(j->rate / 1000, 1));
}

static bool job_pause(void *ctx, struct mover *m, uint64_t bytes)
{
	struct job *const j = ctx;

	atomic_fetch_add_explicit(&j->c->copied, bytes, memory_order_relaxed);
	atomic_store_explicit(&j->c->done, m->walked, memory_order_relaxed);
	j->p.copied_bytes += bytes;
	if (stopped(j->c) || (j->background && atomic_load(&j->c->callers)))
		return false;
	if (j->progress && m->walked - j->told >= PROGRESS_STEP) {
		j->told = m->walked;
		j->p.done_bytes = j->before + m->walked;
		if (!j->progress(j->progress_ctx, &j->p))
			return false;
	}
	return throttle(j, bytes);
}

/* ---- Retiring ----------------------------------------------------------------------- */

static void grace_over(struct epoch_node *node)
{
	struct grace *const g = container_of(node, struct grace, node);

	if (atomic_exchange(&g->state, GRACE_OVER) == GRACE_ABANDONED)
		base_free(g);
}

static void grace_end(struct grace *g)
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

static bool never_pause(void *ctx, struct mover *m, uint64_t bytes)
{
	(void)m, (void)bytes;
	return !stopped(ctx);
}

/* Looks once more: what is retired is gone. */
static emdb_err verify_leaving(emdb_db *db)
{
	struct compactor *const c = db->compact;
	emdb_err err = repair_rows(db);

	for (size_t i = 0; !err && i < c->nleaving; i++) {
		struct mover m = mover_of(db, c->leaving[i]);

		m.pause = never_pause;
		m.ctx = c;
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

static emdb_err retire_leaving(emdb_db *db, struct job *j)
{
	struct compactor *const c = db->compact;
	struct journal_stats before, after;
	emdb_err err;

	grace_end(c->grace);
	c->grace = NULL;
	/* All copies, and all that the decisions were based on. */
	err = journal_sync(db->j);
	if (!err)
		err = verify_leaving(db);
	if (!err) {
		journal_stats_get(db->j, &before);
		err = journal_retire(db->j, c->leaving, c->nleaving);
		journal_stats_get(db->j, &after);
	}
	if (!err) {
		atomic_fetch_add_explicit(&c->retired, c->nleaving, memory_order_relaxed);
		if (j && before.written_bytes > after.written_bytes)
			j->p.freed_bytes += before.written_bytes - after.written_bytes;
	}
	/* Else they are found again: nothing counts in them. */
	c->nleaving = 0;
	return err;
}

/* Retires what is ready; waits up to wait_ns_max for readers. */
static emdb_err retire_step(emdb_db *db, struct job *j, uint64_t wait_ns_max)
{
	struct compactor *const c = db->compact;
	emdb_err err = EMDB_OK;

	while (!err) {
		const uint64_t until = io_clock_mono_ns(db->io) + wait_ns_max;

		err = leave(db);
		if (err || !c->nleaving)
			return err;
		while (!grace_is_over(db))
			if (io_clock_mono_ns(db->io) >= until || !wait_ns(db, GRACE_STEP_NS))
				return EMDB_OK;
		err = retire_leaving(db, j);
	}
	return err;
}

/* ---- Emptying one segment ---------------------------------------------------------------- */

/* What emptying seg depends on in the others: which will be the oldest, and whether it may use the reserve. */
static emdb_err look_around(emdb_db *db, const struct journal_seg_info *seg, struct mover *m)
{
	const struct compactor *const c = db->compact;
	struct journal_seg_info *list;
	size_t n;
	const emdb_err err = compact_list(db, &list, &n);

	if (err)
		return err;
	m->oldest = UINT64_MAX;
	for (size_t i = 0; i < n && m->oldest == UINT64_MAX; i++)
		if (list[i].id != seg->id && !compact_id_in(c->emptied, c->nemptied, list[i].id))
			m->oldest = list[i].id;
	if (n && !list[n - 1].sealed &&
	    compact_fits_reserve(db, seg, m->oldest < seg->id, &list[n - 1]))
		m->flags = JOURNAL_RESERVE;
	base_free(list);
	return EMDB_OK;
}

/*
 * What counts is an estimate: the headers of very many very small writes, for
 * instance, do not.  So that nothing is copied round and round, what gained
 * nothing is not tried again soon.
 */
static void weigh(struct job *j, const struct journal_seg_info *seg, uint64_t copied)
{
	struct compactor *const c = j->c;

	if (seg->len < (UINT64_C(1) << j->db->sb.segment_shift) / 4 || seg->id <= c->rewrite_upto)
		return;
	if (copied < seg->len - seg->len / 10) {
		c->useless = 0;
		return;
	}
	c->backoff_until_ns =
		io_clock_mono_ns(j->db->io) +
		(BACKOFF_NS << (c->useless < BACKOFF_MAX ? c->useless++ : BACKOFF_MAX));
}

/* c->lock held.  As compact_move(). */
static emdb_err empty_segment(struct job *j, const struct journal_seg_info *seg)
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
	weigh(j, seg, m.copied);
	return EMDB_OK;
}

/* ---- The thread ---------------------------------------------------------------------------- */

/* Nobody has written for a while and most of the active segment is dead: it ends here. */
static bool roll_when_quiet(emdb_db *db, const struct survey *s)
{
	struct compactor *const c = db->compact;
	const uint64_t tail = journal_tail(db->j), now = io_clock_mono_ns(db->io);
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	uint64_t lsn;

	if (tail != c->quiet_tail) {
		c->quiet_tail = tail;
		c->quiet_since_ns = now;
		return false;
	}
	if (!s->active || now - c->quiet_since_ns < 2 * TICK_NS || s->active->len < size / 16 ||
	    !compact_share(compact_dead(s->active, s->active_older), s->active->len, c->percent))
		return false;
	return journal_roll(db->j, &lsn) == EMDB_OK && journal_seal(db->j) == EMDB_OK;
}

/* Does one thing; false: there is nothing to do. */
static bool background_step(struct job *j)
{
	emdb_db *const db = j->db;
	struct compactor *const c = j->c;
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	const struct journal_seg_info *victim = NULL;
	struct journal_seg_info *list = NULL;
	struct journal_stats st;
	struct survey s;
	emdb_err err;
	bool rolled = false;
	size_t n;

	if (db_writable(db) || journal_failed(db->j))
		return false;
	err = compact_list(db, &list, &n);
	if (!err) {
		journal_stats_get(db->j, &st);
		compact_survey(db, list, n, c->percent, &s);
		if (io_clock_mono_ns(db->io) >= c->backoff_until_ns)
			victim = compact_choose(db, &s, st.low_space);
		if (!victim)
			rolled = roll_when_quiet(db, &s);
	}
	/* Room is needed for one segment at most before one is given back. */
	if (!err &&
	    (!victim || c->nemptied == LEAVING_MAX || c->emptied_bytes >= size || st.low_space))
		err = retire_step(db, j, GRACE_STEP_NS * 20);
	if (!err && victim && c->nemptied < LEAVING_MAX && !compact_goes(c, victim->id) &&
	    c->emptied_bytes < 2 * size)
		err = empty_segment(j, victim);
	else
		victim = NULL;
	base_free(list);
	/* Somebody has an object open whose record cannot go yet. */
	if (err == EMDB_ERR_BUSY)
		c->backoff_until_ns = io_clock_mono_ns(db->io) + BACKOFF_NS;
	if (err == EMDB_ERR_NO_SPACE) {
		err = retire_step(db, j, GRACE_STEP_NS * 20);
		c->backoff_until_ns = io_clock_mono_ns(db->io) + BACKOFF_NS / 10;
	}
	return !err && (victim || rolled);
}

static void *compactor_main(void *arg)
{
	emdb_db *const db = arg;
	struct compactor *const c = db->compact;

	while (wait_ns(db, TICK_NS)) {
		struct job j = { .db = db, .c = c, .background = true, .rate = c->rate };
		bool more = true;

		if (atomic_load(&c->callers))
			continue;
		mutex_lock(&c->lock);
		j.tail = journal_tail(db->j);
		while (more && !stopped(c) && !atomic_load(&c->callers))
			more = background_step(&j);
		mutex_unlock(&c->lock);
	}
	return NULL;
}

int compact_start(emdb_db *db, const struct emdb_options *o)
{
	struct compactor *c;
	int ret;

	if (db->read_only)
		return 0;
	c = base_calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	mutex_init(&c->lock, LOCK_ADMIN);
	mutex_init(&c->note_lock, LOCK_LEAF);
	mutex_init(&c->wake_lock, LOCK_LEAF);
	cond_init(&c->wake);
	c->percent = o->compact_percent > 0 ? (unsigned int)o->compact_percent : PERCENT_DEFAULT;
	c->rate = o->compact_rate ? o->compact_rate : RATE_DEFAULT;
	db->compact = c;
	if (o->compact_percent < 0)
		return 0;
	ret = thread_start(&c->thread, compactor_main, db);
	c->runs = ret == 0;
	return ret;
}

void compact_stop(emdb_db *db)
{
	struct compactor *const c = db->compact;

	if (!c)
		return;
	mutex_lock(&c->wake_lock);
	atomic_store(&c->stopping, true);
	cond_broadcast(&c->wake);
	mutex_unlock(&c->wake_lock);
	if (c->runs)
		(void)pthread_join(c->thread, NULL);
	c->runs = false;
}

void compact_free(emdb_db *db)
{
	struct compactor *const c = db->compact;

	if (!c)
		return;
	grace_end(c->grace);
	buf_release(&c->bad);
	buf_release(&c->noted);
	mutex_destroy(&c->lock);
	mutex_destroy(&c->note_lock);
	mutex_destroy(&c->wake_lock);
	cond_destroy(&c->wake);
	base_free(c);
	db->compact = NULL;
}

/* ---- The call ------------------------------------------------------------------------------- */

/* Empties one segment; when the disk is full, what was emptied before makes room. */
static emdb_err asked_step(struct job *j, const struct journal_seg_info *seg)
{
	const uint64_t size = UINT64_C(1) << j->db->sb.segment_shift;
	emdb_err err;

	for (unsigned int tries = 0;; tries++) {
		if (j->c->nemptied == LEAVING_MAX || j->c->emptied_bytes >= size || tries) {
			err = retire_step(j->db, j, GRACE_WAIT_NS);
			if (err)
				return err;
		}
		if (j->c->nemptied == LEAVING_MAX)
			return EMDB_ERR_BUSY; /* somebody holds on to what should go first */
		err = empty_segment(j, seg);
		if (err != EMDB_ERR_NO_SPACE || tries)
			return err;
	}
}

/*
 * Those that do not go already: they may be gone, and no longer among those that go, by the time that
 * their turn comes.
 */
static size_t keep_staying(const struct compactor *c, struct journal_seg_info *list, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if (!compact_goes(c, list[i].id))
			list[kept++] = list[i];
	return kept;
}

/* Empties what is worth it, oldest first.  *ret_full: there was no room for some of it. */
static emdb_err asked_pass(struct job *j, uint32_t percent, bool *ret_full)
{
	struct journal_seg_info *list;
	emdb_err err, bad = EMDB_OK;
	size_t n;

	*ret_full = false;
	err = compact_list(j->db, &list, &n);
	if (err)
		return err;
	n = keep_staying(j->c, list, n);
	for (size_t i = 0; i < n; i++) {
		if (!compact_asked_for(j->db, list, n, i, percent))
			continue;
		j->p.segments++;
		j->p.total_bytes += list[i].len;
	}
	for (size_t i = 0; !err && i < n; i++) {
		if (!compact_asked_for(j->db, list, n, i, percent))
			continue;
		err = asked_step(j, &list[i]);
		*ret_full = *ret_full || err == EMDB_ERR_NO_SPACE;
		if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_IO)
			bad = err;
		if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_IO || err == EMDB_ERR_NO_SPACE)
			err = EMDB_OK;
		j->before += list[i].len;
		j->p.done_bytes = j->before;
		j->p.segments_done++;
		if (!err && j->progress && !j->progress(j->progress_ctx, &j->p))
			err = EMDB_ERR_CANCELLED;
	}
	base_free(list);
	if (!err || err == EMDB_ERR_CANCELLED) {
		const emdb_err end = retire_step(j->db, j, GRACE_WAIT_NS);

		err = err ? err : end;
	}
	return err ? err : bad;
}

static emdb_err compact_asked(struct job *j, uint32_t percent)
{
	emdb_db *const db = j->db;
	uint64_t lsn, freed;
	emdb_err err;
	bool full;

	err = journal_roll(db->j, &lsn);
	/* Without room for another segment what is sealed can still be done. */
	if (!err || err == EMDB_ERR_NO_SPACE)
		err = journal_seal(db->j);
	if (err && err != EMDB_ERR_NO_SPACE)
		return err;
	do {
		freed = j->p.freed_bytes;
		err = asked_pass(j, percent, &full);
	} while (!err && full && j->p.freed_bytes > freed);
	return !err && full ? EMDB_ERR_NO_SPACE : err;
}

emdb_err emdb_compact(emdb_db *db, const struct emdb_compact_options *opts,
		      struct emdb_compact_progress *ret_done)
{
	static const struct emdb_compact_options defaults = { .size = sizeof(defaults) };
	const struct emdb_compact_options *const o = opts ? opts : &defaults;
	struct compactor *const c = db->compact;
	struct job j = { .db = db,
			 .c = c,
			 .rate = o->bytes_per_second,
			 .progress = o->progress,
			 .progress_ctx = o->ctx };
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (o->size != sizeof(*o) || o->min_dead_percent > 100)
		return EMDB_ERR_INVAL;
	atomic_fetch_add(&c->callers, 1);
	mutex_lock(&c->lock);
	atomic_fetch_sub(&c->callers, 1);
	j.tail = journal_tail(db->j);
	err = compact_asked(&j, o->min_dead_percent);
	mutex_unlock(&c->lock);
	if (ret_done)
		*ret_done = j.p;
	return err;
}

void compact_tidy(emdb_db *db)
{
	const struct emdb_compact_options only_small = { .size = sizeof(only_small),
							 .min_dead_percent = 100 };
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	struct journal_seg_info *list;
	uint64_t bytes = 0;
	size_t n, small = 0;

	if (db->memory || !db->compact || !db->compact->runs || db_writable(db) ||
	    compact_list(db, &list, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		if (!list[i].sealed || list[i].len >= size / 4)
			continue;
		small++;
		bytes += list[i].len;
	}
	base_free(list);
	/* As much as one segment holds is no wait; what fails is tried at the next close. */
	if (small > TIDY_SEGMENTS && bytes <= size)
		(void)!emdb_compact(db, &only_small, NULL);
}

void compact_stats(emdb_db *db, struct emdb_stats *s)
{
	struct compactor *const c = db->compact;
	struct journal_seg_info *list;
	bool older = false;
	size_t n;

	if (!c || compact_list(db, &list, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		s->reclaimable_bytes += compact_dead(&list[i], older);
		older = true;
	}
	base_free(list);
	s->compact_percent = c->runs ? c->percent : 0;
	s->compact_rate = c->rate;
	s->compactions = atomic_load_explicit(&c->retired, memory_order_relaxed);
	s->compacted_bytes = atomic_load_explicit(&c->copied, memory_order_relaxed);
	s->compact_done_bytes = atomic_load_explicit(&c->done, memory_order_relaxed);
	s->compact_total_bytes = atomic_load_explicit(&c->total, memory_order_relaxed);
}
