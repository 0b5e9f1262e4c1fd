/* SPDX-License-Identifier: Apache-2.0 */
/* Who does what when, and the notes that are taken of it. */
#include <stdarg.h>

#include "tests/crash/work_i.h"

#define NEVER UINT64_MAX

static const char *const snap_names[SNAPS] = { "one", "two", "three" };

bool wrong(struct work *w, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&w->lock);
	if (!w->broken) {
		va_start(ap, fmt);
		(void)vsnprintf(w->text, sizeof(w->text), fmt, ap);
		va_end(ap);
	}
	w->broken = true;
	pthread_mutex_unlock(&w->lock);
	return false;
}

/* ---- Moments ---- */

static struct moment moment(struct work *w)
{
	const size_t event = sim_count(w->sim);

	return (struct moment){ atomic_fetch_add(&w->tickets, 1) + 1, event };
}

static void note_flush(struct work *w, struct moment began)
{
	const struct moment acked = moment(w);

	pthread_mutex_lock(&w->lock);
	if (w->nflushes < FLUSHES)
		w->flushes[w->nflushes++] = (struct span){ began, acked };
	pthread_mutex_unlock(&w->lock);
}

void work_flushing(struct work *w)
{
	w->flushing = moment(w);
}

void work_flushed(struct work *w)
{
	note_flush(w, w->flushing);
}

/* The next state of a worker, a copy of the last; NULL: no room. */
static struct past *past_next(struct work *w, int worker)
{
	struct past *const p = w->past[worker];
	const size_t n = w->npast[worker];

	if (n == HISTORY)
		return NULL;
	p[n].st = p[n - 1].st;
	p[n].what[0] = 0;
	p[n].durable = false;
	return &p[n];
}

/* ---- Workers ---- */

static uint64_t step_seed(const struct work *w, int who, unsigned int step)
{
	uint64_t s = w->seed + (uint64_t)who * 1000003 + step * UINT64_C(7919);

	return sim_rand(&s);
}

static bool skipped(const struct work *w, int who, unsigned int step)
{
	return w->skip && w->skip[(unsigned int)who * w->ops + step];
}

static void worker_step(struct work *w, int worker, unsigned int step)
{
	uint64_t rnd = step_seed(w, worker, step);
	struct past *next;
	struct act act;
	emdb_err err;

	if (skipped(w, worker, step) || w->broken)
		return;
	next = past_next(w, worker);
	if (!next)
		return;
	if (!plan(&next->st, &act, &rnd))
		return;
	act_describe(worker, &act, &next->st, next->what, sizeof(next->what));
	next->acked = (struct moment){ NEVER, SIZE_MAX };
	next->began = moment(w);
	w->npast[worker]++;
	err = perform(w->db, worker, &act, &next->st);
	if (err) {
		wrong(w, "%s gave %s", next->what, emdb_err_name(err));
		return;
	}
	next->acked = moment(w);
	next->durable = act.op == OP_TXN && act.durable;
	if (next->durable)
		note_flush(w, next->began);
	if (sim_rand(&rnd) % 12 == 0) {
		const struct moment began = moment(w);

		err = emdb_flush(w->db);
		if (err)
			wrong(w, "flush gave %s", emdb_err_name(err));
		else
			note_flush(w, began);
	}
}

/* ---- The administrator ---- */

static void jump(struct work *w, uint64_t *rnd)
{
	const int64_t by = (int64_t)(sim_rand(rnd) % 60) * 1000000;

	pthread_rwlock_wrlock(&w->clock_lock);
	if (w->njumps < JUMPS) {
		const size_t event = sim_count(w->sim);

		sim_now_ns += by;
		w->jumps[w->njumps++] = (struct jump){ event, sim_now_ns };
		for (int i = 0; i < WORKERS; i++) {
			struct past *const next = past_next(w, i);

			if (!next)
				continue;
			state_expire(&next->st, sim_now_ns / 1000000);
			snprintf(next->what, sizeof(next->what), "worker %d: expiry", i);
			next->began = next->acked = moment(w);
			w->npast[i]++;
		}
	}
	pthread_rwlock_unlock(&w->clock_lock);
}

/* The snapshot of a name that is there, or whose end is not known; NULL: none. */
static struct snap *snap_find(struct work *w, int name)
{
	for (size_t i = w->nsnaps; i > 0; i--)
		if (w->snaps[i - 1].name == name)
			return w->snaps[i - 1].gone.began.ticket == NEVER ? &w->snaps[i - 1] : NULL;
	return NULL;
}

static struct snap *snap_add(struct work *w, int name)
{
	struct snap *s;

	if (w->nsnaps == SNAP_RECS)
		return NULL;
	s = &w->snaps[w->nsnaps];
	*s = (struct snap){ .name = name };
	s->made.began = moment(w);
	s->made.acked = s->gone.began = s->gone.acked = (struct moment){ NEVER, SIZE_MAX };
	w->nsnaps++;
	return s;
}

static emdb_err snapshot_step(struct work *w, uint64_t *rnd)
{
	const int name = (int)(sim_rand(rnd) % SNAPS), other = (int)(sim_rand(rnd) % SNAPS);
	struct snap *s = snap_find(w, name), *t;
	emdb_err err;

	if (!s) {
		s = snap_add(w, name);
		if (!s)
			return EMDB_OK;
		err = emdb_snapshot_create(w->db, snap_names[name], NULL);
		s->made.acked = moment(w);
		if (!err)
			note_flush(w, s->made.began);
		return err;
	}
	if (sim_rand(rnd) % 2 == 0 && !snap_find(w, other)) {
		/* A renamed one is one more that was made when this one was, and this one goes. */
		t = snap_add(w, other);
		if (!t)
			return EMDB_OK;
		t->fixed = s->fixed;
		t->st = s->st;
		s->gone.began = moment(w);
		t->origin = s->origin ? s->origin : s;
		err = emdb_snapshot_rename(w->db, snap_names[name], snap_names[other]);
		t->made.acked = s->gone.acked = moment(w);
		return err;
	}
	s->gone.began = moment(w);
	err = emdb_snapshot_delete(w->db, snap_names[name]);
	s->gone.acked = moment(w);
	return err;
}

static emdb_err backup_step(struct work *w)
{
	const struct emdb_backup_options opts = { .size = sizeof(opts) };
	struct snap *const s = snap_add(w, -1);
	emdb_err err;

	if (!s)
		return EMDB_OK;
	err = emdb_backup(w->db, BACKUP_PATH, &opts, NULL);
	if (!err)
		s->made.acked = moment(w);
	return err;
}

static void admin_step(struct work *w, unsigned int step)
{
	uint64_t rnd = step_seed(w, WORKERS, step), removed;
	const struct moment began = moment(w);
	const char *what = "";
	emdb_err err = EMDB_OK;

	if (skipped(w, WORKERS, step) || w->broken)
		return;
	switch (sim_rand(&rnd) % 16) {
	case 0:
	case 1:
		what = "checkpoint";
		err = emdb_checkpoint(w->db);
		break;
	case 2:
	case 3:
	case 4:
		what = "compaction";
		err = emdb_compact(w->db, NULL, NULL);
		break;
	case 5:
	case 6:
		what = "snapshot";
		err = snapshot_step(w, &rnd);
		break;
	case 7:
		what = "backup";
		err = w->parted ? EMDB_OK : backup_step(w);
		break;
	case 8:
		what = "sweep";
		err = emdb_sweep(w->db, &removed);
		break;
	case 9:
	case 10:
	case 11:
		what = "flush";
		err = emdb_flush(w->db);
		if (!err)
			note_flush(w, began);
		break;
	case 12:
	case 13:
		jump(w, &rnd);
		break;
	default:
		break;
	}
	if (err)
		wrong(w, "%s gave %s", what, emdb_err_name(err));
}

/* ---- Together ---- */

struct hand {
	struct work *w;
	int who;
};

static void *hand_main(void *arg)
{
	const struct hand *const h = arg;

	for (unsigned int i = 0; i < h->w->ops && !h->w->broken; i++) {
		if (h->who < WORKERS) {
			pthread_rwlock_rdlock(&h->w->clock_lock);
			worker_step(h->w, h->who, i);
			pthread_rwlock_unlock(&h->w->clock_lock);
		} else if (i % 2 == 0) {
			admin_step(h->w, i);
		}
	}
	return NULL;
}

static void run_threads(struct work *w)
{
	struct hand hands[WORKERS + 1];
	pthread_t threads[WORKERS + 1];

	for (int i = 0; i <= WORKERS; i++) {
		hands[i] = (struct hand){ w, i };
		if (pthread_create(&threads[i], NULL, hand_main, &hands[i]))
			abort();
	}
	for (int i = 0; i <= WORKERS; i++)
		pthread_join(threads[i], NULL);
}

static void run_alone(struct work *w)
{
	for (unsigned int i = 0; i < w->ops && !w->broken; i++) {
		for (int k = 0; k < WORKERS; k++)
			worker_step(w, k, i);
		if (i % 2 == 0)
			admin_step(w, i);
	}
}

const struct emdb_secret *work_secret(int key)
{
	static const uint8_t keys[2][EMDB_RAW_KEY_SIZE] = { { 1, 2, 3 }, { 4, 5, 6 } };
	static const struct emdb_secret secrets[2] = {
		{ .kind = EMDB_SECRET_KEY, .data = keys[0], .len = sizeof(keys[0]) },
		{ .kind = EMDB_SECRET_KEY, .data = keys[1], .len = sizeof(keys[1]) },
	};

	return key < 0 ? NULL : &secrets[key];
}

emdb_err work_open_with(struct work *w, int key, emdb_db **ret_db)
{
	struct emdb_detail detail = { .text = "" };
	uint64_t rnd = w->seed;
	const struct emdb_options opts = {
		.size = sizeof(opts),
		.flags = EMDB_OPEN_CREATE,
		.segment_bytes = EMDB_SEGMENT_MIN,
		.flush = w->through ? EMDB_FLUSH_WRITE_THROUGH : EMDB_FLUSH_EACH,
		.commit_interval_s = -1,
		.sweep_interval_ms = sim_rand(&rnd) % 2 ? 1 : -1,
		.compact_percent = (int32_t)(sim_rand(&rnd) % 3) * 10 - 10,
		.compact_wait_bytes = 1,
		.secret = work_secret(key),
		.detail = &detail,
	};
	const emdb_err err = emdb_open(STORE_PATH, &opts, ret_db);

	if (err && err != EMDB_ERR_WRONG_KEY && err != EMDB_ERR_KEY_REQUIRED &&
	    err != EMDB_ERR_NOT_ENCRYPTED)
		wrong(w, "open gave %s: %s", emdb_err_name(err), detail.text);
	return err;
}

emdb_err work_open(struct work *w, emdb_db **ret_db)
{
	const emdb_err err = work_open_with(w, w->key, ret_db);

	if (err)
		wrong(w, "open with key %d gave %s", w->key, emdb_err_name(err));
	return err;
}

bool work_run(struct work *w)
{
	if (!w->db && work_open(w, &w->db))
		return false;
	if (w->threads)
		run_threads(w);
	else
		run_alone(w);
	return !w->broken;
}

/* ---- Life ---- */

void work_init(struct work *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	pthread_mutex_init(&w->lock, NULL);
	pthread_rwlock_init(&w->clock_lock, NULL);
	for (int i = 0; i < WORKERS; i++) {
		struct state *st;

		w->past[i] = calloc(HISTORY, sizeof(*w->past[i]));
		if (!w->past[i])
			abort();
		st = &w->past[i][0].st;
		for (int k = 0; k < SLOTS; k++)
			st->slot[k] = -1;
		w->npast[i] = 1;
	}
	w->jumps[w->njumps++] = (struct jump){ 0, sim_now_ns };
}

static void snaps_free(struct work *w)
{
	for (size_t i = 0; i < w->nsnaps; i++)
		if (!w->snaps[i].origin)
			free(w->snaps[i].st);
}

void work_release(struct work *w)
{
	for (int i = 0; i < WORKERS; i++)
		free(w->past[i]);
	snaps_free(w);
	work_forget_snaps(w);
	pthread_mutex_destroy(&w->lock);
	pthread_rwlock_destroy(&w->clock_lock);
}

void work_go_on(struct work *w, struct sim *sim, const struct state st[WORKERS], uint64_t seed)
{
	w->seed = seed;
	w->sim = sim;
	w->db = NULL;
	for (int i = 0; i < WORKERS; i++) {
		struct past *const p = w->past[i];

		p[0].st = st[i];
		state_expire(&p[0].st, sim_now_ns / 1000000);
		p[0].began = p[0].acked = (struct moment){ 0, 0 };
		w->npast[i] = 1;
	}
	snaps_free(w);
	memcpy(w->snaps, w->kept, w->nkept * sizeof(*w->kept));
	w->nsnaps = w->nkept;
	w->nkept = 0;
	w->nflushes = 0;
	w->jumps[0] = (struct jump){ 0, sim_now_ns };
	w->njumps = 1;
	atomic_store(&w->tickets, 0);
}

/* ---- For people ---- */

void work_print(const struct work *w, size_t upto_event)
{
	size_t at[WORKERS];

	for (int i = 0; i < WORKERS; i++)
		at[i] = 1;
	for (;;) {
		const struct past *best = NULL;
		int who = 0;

		for (int i = 0; i < WORKERS; i++) {
			const struct past *const p = &w->past[i][at[i]];

			if (at[i] < w->npast[i] &&
			    (!best || p->began.ticket < best->began.ticket)) {
				best = p;
				who = i;
			}
		}
		if (!best || best->began.event > upto_event)
			return;
		printf("  event %zu to %zu: %s\n", best->began.event, best->acked.event,
		       best->what);
		at[who]++;
	}
}
