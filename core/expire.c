/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing what has expired.  The queue holds, for every entry with a
 * deadline, at least one item that is due no later than the entry: when a
 * deadline moves later nothing is queued, and the old item finds that out
 * when it is due.  So refreshing a deadline costs no memory.
 */
#include "core/store.h"

#define SWEEP_STEP 256u

emdb_err expire_push(emdb_db *db, int64_t expires_ms, uint64_t ns, uint64_t hash)
{
	const struct ttl_item item = { expires_ms, ns, hash };
	int ret;

	/* Of a checkpoint: its queue has that. */
	if (unlikely(db->ckpt.settle))
		return EMDB_OK;
	mutex_lock(&db->ttl_lock);
	ret = ttl_heap_push(&db->ttl, &item);
	mutex_unlock(&db->ttl_lock);
	return ret ? EMDB_ERR_NOMEM : EMDB_OK;
}

/* Until land() a checkpoint finds the item among the flights. */
static bool pop_due(emdb_db *db, int64_t now_ms, struct expire_flight *ret)
{
	bool due;

	mutex_lock(&db->ttl_lock);
	due = ttl_heap_peek(&db->ttl, &ret->item) && ttl_expired(ret->item.expires_ms, now_ms);
	if (due)
		due = ttl_heap_pop(&db->ttl, &ret->item);
	if (due) {
		ret->number = db->flights_begun++;
		ret->working = true;
		ret->next = db->flights;
		ret->prev = &db->flights;
		if (ret->next)
			ret->next->prev = &ret->next;
		db->flights = ret;
	}
	mutex_unlock(&db->ttl_lock);
	return due;
}

static void land(emdb_db *db, struct expire_flight *f)
{
	mutex_lock(&db->ttl_lock);
	*f->prev = f->next;
	if (f->next)
		f->next->prev = f->prev;
	cond_broadcast(&db->flight_cond);
	mutex_unlock(&db->ttl_lock);
}

static void set_working(emdb_db *db, struct expire_flight *f, bool working)
{
	mutex_lock(&db->ttl_lock);
	f->working = working;
	if (!working)
		cond_broadcast(&db->flight_cond);
	mutex_unlock(&db->ttl_lock);
}

static bool any_working(const struct expire_flight *f, uint64_t below)
{
	for (; f; f = f->next)
		if (f->working && f->number < below)
			return true;
	return false;
}

/*
 * The queue is empty of what is due, but another thread may have taken an item
 * off it and not yet removed the entry.  A thread in on_expire is not waited
 * for: it may be this one.
 */
static void wait_for_flights(emdb_db *db)
{
	uint64_t begun;

	mutex_lock(&db->ttl_lock);
	begun = db->flights_begun;
	while (any_working(db->flights, begun))
		cond_wait(&db->flight_cond, &db->ttl_lock);
	mutex_unlock(&db->ttl_lock);
}

/* What to tell the caller of the store when an entry went. */
struct gone {
	struct buf key;
	uint64_t id;
};

static emdb_err remove_expired(emdb_db *db, const struct entry *e, struct gone *gone)
{
	struct rec r;

	rec_of_del(e, db_now_ns(db), &r);
	r.mask |= REC_F_FLAGS;
	r.flags = REC_FLAG_EXPIRED;
	if (db->on_expire) {
		buf_reset(&gone->key);
		if (buf_append(&gone->key, e->rec.key, e->rec.key_len))
			return EMDB_ERR_NOMEM;
		gone->id = e->id;
	}
	return commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, e, NULL);
}

/*
 * Looks at the entries of one hash.  *ret_next: the deadline of one that
 * lives on, 0 when none has any.  BUSY: a LINK needs the exclusive lock.
 * At most one entry is removed a call; *ret_removed says whether.
 */
static emdb_err expire_hash(emdb_db *db, const struct ttl_item *item, bool exclusive,
			    int64_t *ret_next, bool *ret_removed, struct gone *gone)
{
	const struct ns *const ns = ns_any_pinned(db, item->ns);
	const int64_t now_ms = db_now_ms(db);
	uint64_t slots[16];
	size_t n;

	*ret_removed = false;
	*ret_next = 0;
	n = ns ? min_size(hidx_find_pinned(&ns->idx, item->hash, slots, ARRAY_SIZE(slots)),
			  ARRAY_SIZE(slots))
	       : 0;
	for (size_t i = 0; i < n; i++) {
		struct entry e;
		int64_t expires;
		emdb_err err;

		err = entry_read_pinned(db, item->hash, slots[i], true, &e);
		if (err)
			continue; /* unreadable: reading it says so, expiry cannot know */
		expires = entry_expires_pinned(db, &e);
		if (ttl_expired(expires, now_ms)) {
			if (e.rec.kind != REC_PUT && !exclusive)
				return EMDB_ERR_BUSY;
			err = remove_expired(db, &e, gone);
			*ret_removed = !err;
			return err;
		}
		if (expires && (*ret_next == 0 || expires < *ret_next))
			*ret_next = expires;
	}
	return EMDB_OK;
}

static emdb_err expire_locked(emdb_db *db, const struct ttl_item *item, int64_t *ret_next,
			      bool *ret_removed, struct gone *gone)
{
	emdb_err err = EMDB_ERR_BUSY;

	for (int exclusive = 0; err == EMDB_ERR_BUSY && exclusive <= 1; exclusive++) {
		struct hold h;

		hold_begin(&h, db, exclusive);
		hold_stripe(&h, item->hash);
		err = expire_hash(db, item, exclusive, ret_next, ret_removed, gone);
		hold_end(&h);
	}
	return err;
}

emdb_err expire_step(emdb_db *db, uint64_t max, uint64_t *ret_removed)
{
	struct gone gone = { BUF_INIT, 0 };
	uint64_t removed = 0, looked = 0;
	struct expire_flight flight;
	emdb_err err = EMDB_OK;

	while (!err && looked++ < max && pop_due(db, db_now_ms(db), &flight)) {
		const struct ttl_item item = flight.item;
		bool again = true;
		int64_t next = 0;

		while (!err && again) {
			err = expire_locked(db, &item, &next, &again, &gone);
			if (err || !again)
				break;
			removed++;
			atomic_fetch_add_explicit(&db->expired, 1, memory_order_relaxed);
			if (!db->on_expire)
				continue;
			set_working(db, &flight, false);
			db->on_expire(db->on_expire_ctx, item.ns, gone.key.data, gone.key.len,
				      gone.id);
			set_working(db, &flight, true);
		}
		if (err)
			next = item.expires_ms; /* still there: try again later */
		if (next && expire_push(db, next, item.ns, item.hash) && !err)
			err = EMDB_ERR_NOMEM;
		land(db, &flight);
	}
	buf_release(&gone.key);
	if (!err && max == UINT64_MAX)
		wait_for_flights(db);
	*ret_removed = removed;
	return err;
}

/* ---- The sweeper ----------------------------------------------------------------- */

static bool is_due(emdb_db *db)
{
	struct ttl_item item;
	bool due;

	mutex_lock(&db->ttl_lock);
	due = ttl_heap_peek(&db->ttl, &item) && ttl_expired(item.expires_ms, db_now_ms(db));
	mutex_unlock(&db->ttl_lock);
	return due;
}

/* What was removed says nothing about what is due: entries whose deadline moved are looked at too. */
static void *sweeper_main(void *arg)
{
	emdb_db *const db = arg;

	mutex_lock(&db->sweep_lock);
	while (!db->stop) {
		uint64_t removed = 0;
		emdb_err err;
		bool more;

		mutex_unlock(&db->sweep_lock);
		err = expire_step(db, SWEEP_STEP, &removed);
		more = !err && is_due(db);
		mutex_lock(&db->sweep_lock);
		if (more)
			continue;
		if (!db->stop)
			(void)cond_wait_until(&db->sweep_cond, &db->sweep_lock,
					      io_clock_mono_ns(db->io) +
						      (uint64_t)db->sweep_interval_ms * 1000000);
	}
	mutex_unlock(&db->sweep_lock);
	return NULL;
}

int expire_start(emdb_db *db)
{
	int ret;

	if (db->read_only || db->sweep_interval_ms == 0)
		return 0;
	ret = thread_start(&db->sweeper, "emdb-sweep", sweeper_main, db);
	db->sweeper_runs = ret == 0;
	return ret;
}

void expire_stop(emdb_db *db)
{
	if (!db->sweeper_runs)
		return;
	mutex_lock(&db->sweep_lock);
	db->stop = true;
	cond_broadcast(&db->sweep_cond);
	mutex_unlock(&db->sweep_lock);
	(void)pthread_join(db->sweeper, NULL);
	db->sweeper_runs = false;
}
