/* SPDX-License-Identifier: Apache-2.0 */
/* Compaction: the thread, which goes by itself, and the call. */
#include "core/compact_i.h"

#define PERCENT_DEFAULT 50u
#define RATE_DEFAULT    (UINT64_C(64) << 20)
/* So many small segments an open or close leaves: opens may be too short for the background to merge theirs. */
#define TIDY_SEGMENTS 64u
/* No more than a segment's worth makes a close wait, and this part of it an open. */
#define TIDY_AT_OPEN 16u
#define TICK_NS      UINT64_C(250000000)
/* How long emdb_compact() waits for readers before it leaves the rest to the thread, and the thread. */
#define GRACE_WAIT_NS  UINT64_C(500000000)
#define RETIRE_WAIT_NS UINT64_C(20000000)
/* Emptied segments that the thread gathers before it retires them, in full ones. */
#define EMPTIED_MAX 4u

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
static bool background_step(struct compact_job *j)
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
		compact_survey(db, list, n, c->percent, st.low_space ? journal_kept_room(db->j) : 0,
			       &s);
		if (io_clock_mono_ns(db->io) >= c->backoff_until_ns)
			victim = compact_choose(db, &s, st.low_space);
		if (!victim)
			rolled = roll_when_quiet(db, &s);
		if (!victim && !c->nemptied && !c->nleaving)
			compact_rest(j, &s);
		else if (!compact_begin(j, &s, st.low_space))
			err = EMDB_ERR_AGAIN;
	}
	/* Room is needed for one segment at most before one is given back. */
	if (!err && (!victim || c->nemptied == LEAVING_MAX || c->emptied_bytes >= size ||
		     c->emptied_len >= EMPTIED_MAX * size || st.low_space))
		err = compact_retire(db, j, RETIRE_WAIT_NS);
	if (!err && victim && c->nemptied < LEAVING_MAX && !compact_goes(c, victim->id) &&
	    c->emptied_bytes < 2 * size)
		err = compact_empty(j, victim);
	else
		victim = NULL;
	base_free(list);
	/* Somebody has an object open whose record cannot go yet. */
	if (err == EMDB_ERR_BUSY)
		c->backoff_until_ns = io_clock_mono_ns(db->io) + COMPACT_BACKOFF_NS;
	if (err == EMDB_ERR_NO_SPACE) {
		err = compact_retire(db, j, RETIRE_WAIT_NS);
		c->backoff_until_ns = io_clock_mono_ns(db->io) + COMPACT_BACKOFF_NS / 10;
	}
	return !err && (victim || rolled);
}

static void *compactor_main(void *arg)
{
	emdb_db *const db = arg;
	struct compactor *const c = db->compact;
	uint64_t tick = TICK_NS;

	while (compact_wait(db, tick)) {
		struct compact_job j = { .db = db, .c = c, .background = true, .rate = c->rate };
		bool more = true;

		if (atomic_load(&c->callers))
			continue;
		mutex_lock(&c->lock);
		while (more && !compact_stopped(c) && !atomic_load(&c->callers))
			more = background_step(&j) && compact_turn(&j);
		compact_end(&j);
		tick = c->pace.state == EMDB_COMPACT_WAITS ? PACE_QUIET_NS : TICK_NS;
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
	c->pace.option = o->compact_wait_bytes;
	c->pace.window_ns = io_clock_mono_ns(db->io);
	db->compact = c;
	if (o->compact_percent < 0)
		return 0;
	ret = thread_start(&c->thread, "emdb-compact", compactor_main, db);
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
	compact_grace_end(c->grace);
	buf_release(&c->bad);
	buf_release(&c->noted);
	mutex_destroy(&c->lock);
	mutex_destroy(&c->note_lock);
	mutex_destroy(&c->wake_lock);
	cond_destroy(&c->wake);
	base_free(c);
	db->compact = NULL;
}

/* Takes the place of the thread, which makes way as soon as it can. The end is mutex_unlock(&c->lock). */
static void turn_begin(struct compactor *c) EMDB_ACQUIRE(&c->lock)
{
	mutex_lock(&c->wake_lock);
	atomic_fetch_add(&c->callers, 1);
	cond_broadcast(&c->wake);
	mutex_unlock(&c->wake_lock);
	mutex_lock(&c->lock);
	atomic_fetch_sub(&c->callers, 1);
}

/* ---- The call ------------------------------------------------------------------------------- */

/* Empties one segment; when the disk is full, what was emptied before makes room. */
static emdb_err asked_step(struct compact_job *j, const struct journal_seg_info *seg)
{
	const uint64_t size = UINT64_C(1) << j->db->sb.segment_shift;
	emdb_err err;

	for (unsigned int tries = 0;; tries++) {
		if (j->c->nemptied == LEAVING_MAX || j->c->emptied_bytes >= size || tries) {
			err = compact_retire(j->db, j, GRACE_WAIT_NS);
			if (err)
				return err;
		}
		if (j->c->nemptied == LEAVING_MAX)
			return EMDB_ERR_BUSY; /* somebody holds on to what should go first */
		err = compact_empty(j, seg);
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
static emdb_err asked_pass(struct compact_job *j, uint32_t percent, bool *ret_full)
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
		const emdb_err end = compact_retire(j->db, j, GRACE_WAIT_NS);

		err = err ? err : end;
	}
	return err ? err : bad;
}

static emdb_err compact_asked(struct compact_job *j, uint32_t percent)
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
	struct compact_job j = { .db = db,
				 .c = c,
				 .rate = o->bytes_per_second,
				 .progress = o->progress,
				 .progress_ctx = o->ctx };
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (o->size != sizeof(*o) || o->min_dead_percent > 100)
		return EMDB_ERR_INVAL;
	turn_begin(c);
	err = compact_asked(&j, o->min_dead_percent);
	/* Who asks wants the room now, not for the next segments. */
	journal_give_back(db->j);
	mutex_unlock(&c->lock);
	if (ret_done)
		*ret_done = j.p;
	return err;
}

/* Merges small segments, until so much has been copied. */
static emdb_err merge_small(struct compact_job *j, uint64_t bytes)
{
	const struct journal_seg_info *seg;
	struct journal_seg_info *list;
	struct survey s;
	emdb_err err;
	bool more;
	size_t n;

	do {
		err = compact_list(j->db, &list, &n);
		if (err)
			return err;
		compact_survey(j->db, list, n, j->c->percent, 0, &s);
		seg = compact_choose_small(j->c, &s);
		more = seg && j->p.copied_bytes < bytes;
		if (more)
			err = asked_step(j, seg);
		base_free(list);
	} while (!err && more);
	return err ? err : compact_retire(j->db, j, GRACE_WAIT_NS);
}

void compact_tidy(emdb_db *db, bool at_open)
{
	const uint64_t size = UINT64_C(1) << db->sb.segment_shift;
	struct compactor *const c = db->compact;
	struct compact_job j = { .db = db, .c = c };
	struct journal_seg_info *list;
	struct journal_stats st;
	struct survey s;
	size_t n;

	if (db->memory || !c || !c->runs || db_writable(db))
		return;
	/* It frees nothing to speak of: not on a full disk. */
	journal_stats_get(db->j, &st);
	if (st.low_space || journal_segments(db->j, NULL, 0) <= TIDY_SEGMENTS)
		return;
	turn_begin(c);
	/* What fails is tried again by the thread, or the next time. */
	if (!compact_list(db, &list, &n)) {
		compact_survey(db, list, n, c->percent, 0, &s);
		base_free(list);
		if (s.smalls > TIDY_SEGMENTS)
			(void)!merge_small(&j, at_open ? size / TIDY_AT_OPEN : size);
	}
	mutex_unlock(&c->lock);
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
	s->compact_limit_bytes = atomic_load_explicit(&c->limit, memory_order_relaxed);
	s->compact_state = (uint64_t)atomic_load_explicit(&c->state, memory_order_relaxed);
	s->compactions = atomic_load_explicit(&c->retired, memory_order_relaxed);
	s->compacted_bytes = atomic_load_explicit(&c->copied, memory_order_relaxed);
	s->compact_done_bytes = atomic_load_explicit(&c->done, memory_order_relaxed);
	s->compact_total_bytes = atomic_load_explicit(&c->total, memory_order_relaxed);
}
