/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole store and every crash. A run works on a simulated disk; then, for the moments before and
 * after each sync and for many between, the disk is built as a power failure or the death of the
 * process may leave it, the store is opened there and compared with what it may be; sometimes the
 * power fails again while it opens. One of the states is where the next epoch of the run goes on.
 *
 * STATES says how many states in all, SEED where to begin; OPS, EPOCHS and THREADS shape the runs.
 * A seed that fails is run again with fewer and fewer operations, as long as it fails, and what is
 * left is printed.
 */
#include "tests/unit/test.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/crash/work.h"

/* AddressSanitizer takes its time. */
#ifdef __SANITIZE_ADDRESS__
#define STATES_SHORT 200u
#define STATES_LONG  4000u
#else
#define STATES_SHORT 2000u
#define STATES_LONG  100000u
#endif
#define OPS_MAX    100u
#define HANG_S     300u
#define SHRINK_S   180
#define STATES_MAX 4000u

struct run {
	uint64_t seed;
	unsigned int ops, threads, epochs, states;
	const uint8_t *skip;
	bool report; /* print the whole story of a failure */
};

/* What children tell. */
static struct shared {
	_Atomic(uint64_t) states, kills, again, syncs, events, snaps, offline, recycled;
	char text[2600];
	uint8_t skip[(WORKERS + 1) * OPS_MAX];
} * sh;

static const char *const boots[] = { "00000000-0000-0000-0000-000000000001",
				     "00000000-0000-0000-0000-000000000002",
				     "00000000-0000-0000-0000-000000000003",
				     "00000000-0000-0000-0000-000000000004" };

/* ---- One crash ---- */

/* What a crash was, which states are allowed afterwards, and by which clock. */
struct situation {
	struct sim *sim;
	struct sim_crash c;
	struct sim_crash root; /* the crash of the run; c is it or one while opening after it */
	struct bounds allowed;
	int64_t now_ns;
	unsigned int depth;
	unsigned int boot; /* this crash happened in */
};

static const char *loss_name(const struct sim_crash *c)
{
	static const char *const names[] = { "nothing lost", "all unsynced lost",
					     "pages lost",   "sectors lost",
					     "torn write",   "reordered writes",
					     "names lost",   "sizes without data" };

	return c->kill ? "killed" : names[c->loss];
}

static struct sim *disk_after(const struct situation *s)
{
	struct sim_image *const im = sim_image(s->sim, &s->c);

	return s->c.kill ? sim_after_kill(s->sim, &s->c, im) : sim_from_image(im);
}

static bool put_post(struct work *w, emdb_db *db)
{
	emdb_err err = emdb_put(db, EMDB_ROOT, "post", 4, "after", 5, EMDB_TTL_NEVER);

	if (!err)
		err = emdb_flush(db);
	return !err || wrong(w, "after recovery put gave %s", emdb_err_name(err));
}

/* Opened again in good order it is the same. */
static bool check_again(struct work *w, const size_t found[WORKERS])
{
	struct bounds same;
	size_t again[WORKERS];
	void *value;
	size_t n;
	emdb_db *db;
	bool ok;

	if (work_open(w, &db))
		return false;
	for (int i = 0; i < WORKERS; i++)
		same.lo[i] = same.hi[i] = found[i];
	ok = work_check(w, db, &same, again);
	if (ok && emdb_get(db, EMDB_ROOT, "post", 4, &value, &n) == EMDB_OK) {
		emdb_free(value);
	} else if (ok) {
		ok = wrong(w, "what was put after recovery is not there");
	}
	(void)emdb_close(db);
	return ok;
}

static bool try_crash(struct work *w, const struct situation *s, uint64_t *rnd);

/* Any moment, or rather one around a sync or a change of a name. */
static size_t any_moment(struct sim *sim, size_t from, uint64_t *rnd)
{
	const size_t end = sim_count(sim);

	for (int i = 0; i < 8 && end > from && sim_rand(rnd) % 8; i++) {
		const size_t at = from + sim_rand(rnd) % (end - from);
		const enum sim_event_kind kind = sim_event_at(sim, at)->kind;

		if (kind == SIM_SYNC || kind == SIM_DIRSYNC || kind == SIM_RENAME)
			return at + sim_rand(rnd) % 2;
	}
	return from + sim_rand(rnd) % (end - from + 1);
}

/* Crashes between the events of an opening, and shortly after it. */
static bool try_again(struct work *w, const struct situation *s, struct sim *sim, size_t from,
		      size_t opened, const size_t found[WORKERS], uint64_t *rnd)
{
	for (int i = 0; i < 3; i++) {
		struct situation next = *s;

		next.sim = sim;
		next.depth++;
		next.boot = s->c.kill ? s->boot : s->boot + 1;
		next.c = (struct sim_crash){ .at = any_moment(sim, from, rnd),
					     .kill = sim_rand(rnd) % 3 == 0,
					     .loss = sim_rand(rnd) % SIM_LOSSES,
					     .seed = sim_rand(rnd) };
		if (s->c.kill && !next.c.kill && next.c.at < opened) {
			/* What was acknowledged and not synced can be lost after all. */
			struct sim_crash power = s->root;

			power.kill = false;
			next.allowed = work_bounds(w, &power);
		} else if (!s->c.kill || next.c.at >= opened) {
			for (int k = 0; k < WORKERS; k++)
				next.allowed.lo[k] = next.allowed.hi[k] = found[k];
		}
		if (!try_crash(w, &next, rnd))
			return false;
		atomic_fetch_add(&sh->again, 1);
	}
	return true;
}

/* ---- What is done to a store that is closed ---- */

enum job { ROLL_BACK, CHANGE_KEY, ENCRYPT, DECRYPT, ROTATE, JOBS };

struct offline {
	enum job job;
	const char *snapshot; /* to roll back to */
	int key_before, key_after;
	struct state before[WORKERS], after[WORKERS];
};

static emdb_err do_job(const struct offline *o)
{
	const struct emdb_secret *const before = work_secret(o->key_before);
	const struct emdb_secret *const after = work_secret(o->key_after);

	switch (o->job) {
	case ROLL_BACK:
		return emdb_rollback(STORE_PATH, o->snapshot, EMDB_ROLLBACK_PAST_NEWER, NULL);
	case CHANGE_KEY:
		return emdb_key_change(STORE_PATH, before, after, NULL, NULL);
	case ENCRYPT:
		return emdb_encrypt(STORE_PATH, after, NULL);
	case DECRYPT:
		return emdb_decrypt(STORE_PATH, before, NULL);
	case ROTATE:
		return emdb_rotate(STORE_PATH, before, 1, NULL);
	case JOBS:
		break;
	}
	return EMDB_ERR_INVAL;
}

/* What can be done to this store now; false: nothing of that kind. */
static bool plan_job(struct work *w, const struct state found[WORKERS], struct offline *o,
		     uint64_t *rnd)
{
	static const char *const names[SNAPS] = { "one", "two", "three" };

	memset(o, 0, sizeof(*o));
	o->job = sim_rand(rnd) % JOBS;
	o->key_before = o->key_after = w->key;
	memcpy(o->before, found, sizeof(o->before));
	memcpy(o->after, found, sizeof(o->after));
	if (o->job == ROLL_BACK) {
		for (size_t i = 0; i < w->nkept; i++) {
			if (w->kept[i].name < 0)
				continue;
			o->snapshot = names[w->kept[i].name];
			memcpy(o->after, w->kept[i].st, sizeof(o->after));
		}
		return o->snapshot != NULL;
	}
	if (o->job == CHANGE_KEY)
		o->key_after = 1 - w->key;
	if (o->job == ENCRYPT)
		o->key_after = 0;
	if (o->job == DECRYPT)
		o->key_after = -1;
	return (w->key < 0) == (o->job == ENCRYPT);
}

/* Old or new, with the old or the new key; *ret_new when it can only be new. */
static bool check_job(struct work *w, const struct offline *o, bool done)
{
	int key = done ? o->key_after : o->key_before;
	emdb_db *db;
	bool ok;
	emdb_err err = work_open_with(w, key, &db);

	if (err && !done && !w->broken) {
		key = o->key_after;
		err = work_open_with(w, key, &db);
	}
	if (err)
		return wrong(w, "job %d %s: key %d gave %s", o->job, done ? "done" : "interrupted",
			     key, emdb_err_name(err));
	ok = !done && work_is(w, db, o->before);
	if (!ok) {
		pardon(w);
		ok = work_is(w, db, o->after);
	}
	(void)emdb_close(db);
	return ok;
}

/* What an interrupted job left can be brought to its end, or is that already. */
static bool end_job(struct work *w, const struct offline *o)
{
	const emdb_err err = do_job(o);

	if (err && !(o->job == ENCRYPT && err == EMDB_ERR_EXISTS) &&
	    !(o->job == DECRYPT && err == EMDB_ERR_NOT_ENCRYPTED) &&
	    !(o->job == CHANGE_KEY && err == EMDB_ERR_WRONG_KEY))
		return wrong(w, "job %d cannot be brought to an end: %s", o->job,
			     emdb_err_name(err));
	return check_job(w, o, true);
}

static bool crash_in_job(struct work *w, const struct situation *s, struct sim *sim, size_t from,
			 const struct offline *o, uint64_t *rnd)
{
	struct situation cut = *s;
	struct sim *left;
	bool ok;

	cut.sim = sim;
	cut.c = (struct sim_crash){ .at = any_moment(sim, from, rnd),
				    .kill = sim_rand(rnd) % 3 == 0,
				    .loss = sim_rand(rnd) % SIM_LOSSES,
				    .seed = sim_rand(rnd) };
	left = disk_after(&cut);
	sim_use(left);
	ok = check_job(w, o, false) && end_job(w, o);
	if (!ok)
		snprintf(w->text + strlen(w->text), sizeof(w->text) - strlen(w->text),
			 "\n  crash at event %zu of %zu in job %d, %s, seed %" PRIu64, cut.c.at,
			 sim_count(sim), o->job, loss_name(&cut.c), cut.c.seed);
	sim_use(sim);
	sim_free(left);
	atomic_fetch_add(&sh->states, 1);
	atomic_fetch_add(&sh->offline, 1);
	return ok;
}

/* The store on the disk in use is closed: rolls it back or changes its keys, with crashes meanwhile. */
static bool try_job(struct work *w, const struct situation *s, struct sim *sim,
		    const struct offline *o, uint64_t *rnd)
{
	const size_t from = sim_count(sim);
	const emdb_err err = do_job(o);

	if (err == EMDB_ERR_UNSUPPORTED)
		return true;
	if (err)
		return wrong(w, "job %d gave %s", o->job, emdb_err_name(err));
	for (int i = 0; i < 4; i++)
		if (!crash_in_job(w, s, sim, from, o, rnd))
			return false;
	return check_job(w, o, true);
}

/* Opens the store on what a crash left, and looks. */
static bool try_crash(struct work *w, const struct situation *s, uint64_t *rnd)
{
	struct sim *const sim = disk_after(s);
	const size_t from = sim_count(sim);
	const unsigned int boot = s->c.kill ? s->boot : s->boot + 1;
	size_t found[WORKERS], opened;
	struct state st[WORKERS];
	struct offline job;
	bool jobs = false, ok;
	emdb_db *db;

	sim_now_ns = s->now_ns;
	sim_boot = boots[boot % ARRAY_SIZE(boots)];
	sim_use(sim);
	ok = work_open(w, &db) == EMDB_OK;
	opened = sim_count(sim);
	if (ok) {
		ok = work_check(w, db, &s->allowed, found);
		if (ok && sim_rand(rnd) % 4 == 0) {
			ok = work_check_snaps(w, db, &s->root) && work_check_backup(w, &s->root);
			work_found(w, found, st);
			jobs = ok && s->depth == 0 && sim_rand(rnd) % 4 == 0 &&
			       plan_job(w, st, &job, rnd);
			work_forget_snaps(w);
			atomic_fetch_add(&sh->snaps, 1);
		}
		ok = ok && put_post(w, db);
		(void)emdb_close(db);
	}
	if (ok && jobs)
		ok = try_job(w, s, sim, &job, rnd);
	else if (ok && sim_rand(rnd) % 2)
		ok = check_again(w, found);
	atomic_fetch_add(&sh->states, 1);
	if (s->c.kill)
		atomic_fetch_add(&sh->kills, 1);
	if (ok && !jobs && s->depth < 2 && sim_rand(rnd) % 6 == 0)
		ok = try_again(w, s, sim, from, opened, found, rnd);
	if (!ok && !strstr(w->text, "crash at"))
		snprintf(w->text + strlen(w->text), sizeof(w->text) - strlen(w->text),
			 "\n  crash at event %zu of %zu, %s, seed %" PRIu64 "%s", s->c.at,
			 sim_count(s->sim), loss_name(&s->c), s->c.seed,
			 s->depth ? ", while opening after another crash" : "");
	sim_use(NULL);
	sim_free(sim);
	return ok;
}

/* ---- The story of a failure ---- */

static bool fails_quietly(struct work *w, struct situation s)
{
	uint64_t rnd = 1;
	bool ok;

	s.depth = 9;
	w->broken = false;
	w->text[0] = 0;
	ok = try_crash(w, &s, &rnd);
	w->broken = false;
	w->text[0] = 0;
	return !ok;
}

/* Which losses matter: every other is given back. */
static void tell(struct work *w, struct situation s)
{
	const size_t n = sim_count(s.sim);
	uint8_t *const keep = calloc(1, n + 1), *const lost = calloc(1, n + 1);
	char text[sizeof(w->text)], line[300];
	unsigned int left = 0;

	memcpy(text, w->text, sizeof(text));
	if (!keep || !lost)
		abort();
	printf("operations until the crash:\n");
	work_print(w, s.c.at);
	if (!s.c.kill && fails_quietly(w, s)) {
		s.c.lost = lost;
		sim_image_free(sim_image(s.sim, &s.c));
		s.c.lost = NULL;
		s.c.keep = keep;
		for (size_t i = 0; i < s.c.at; i++) {
			keep[i] = lost[i];
			if (lost[i] && !fails_quietly(w, s))
				keep[i] = 0;
			left += lost[i] && !keep[i];
		}
		printf("what has to be lost for it, %u changes:\n", left);
		for (size_t i = 0; i < s.c.at; i++) {
			sim_describe(s.sim, i, line, sizeof(line));
			if (lost[i] && !keep[i])
				printf("  event %zu: %s\n", i, line);
		}
	}
	for (size_t i = s.c.at > 25 ? s.c.at - 25 : 0; i < s.c.at; i++) {
		sim_describe(s.sim, i, line, sizeof(line));
		printf("  last events: %zu: %s\n", i, line);
	}
	memcpy(w->text, text, sizeof(text));
	free(keep);
	free(lost);
}

/* ---- A run ---- */

/* Moments worth a crash: around every sync first, then any. */
static size_t pick_moments(struct sim *sim, size_t from, size_t want, size_t *at, uint64_t *rnd)
{
	const size_t end = sim_count(sim);
	size_t n = 0;

	for (size_t i = from; i < end; i++) {
		const enum sim_event_kind kind = sim_event_at(sim, i)->kind;

		if (kind != SIM_SYNC && kind != SIM_DIRSYNC)
			continue;
		atomic_fetch_add(&sh->syncs, 1);
		for (size_t k = 0; k < 2 && n < STATES_MAX; k++)
			at[n++] = i + k;
	}
	while (n > want * 3 / 4)
		at[sim_rand(rnd) % n] = at[n - 1], n--;
	while (n < want)
		at[n++] = from + sim_rand(rnd) % (end - from + 1);
	return n;
}

static struct situation situation_at(struct work *w, size_t at, unsigned int boot, uint64_t *rnd)
{
	struct situation s = { .sim = w->sim, .boot = boot };

	s.c = (struct sim_crash){ .at = at,
				  .kill = sim_rand(rnd) % 4 == 0,
				  .loss = sim_rand(rnd) % SIM_LOSSES,
				  .seed = sim_rand(rnd) };
	s.root = s.c;
	s.allowed = work_bounds(w, &s.c);
	s.now_ns = work_clock(w, &s.c);
	return s;
}

/* From a crash of this epoch into the next one. */
static bool next_epoch(struct work *w, struct situation *s, uint64_t seed)
{
	size_t found[WORKERS];
	struct state st[WORKERS];
	struct sim *const sim = disk_after(s);
	uint64_t rnd = seed;
	struct offline job;
	emdb_db *db;

	sim_now_ns = s->now_ns;
	if (!s->c.kill)
		s->boot++;
	sim_boot = boots[s->boot % ARRAY_SIZE(boots)];
	sim_use(sim);
	if (work_open(w, &db))
		return false;
	if (!work_check(w, db, &s->allowed, found) || !work_check_snaps(w, db, &s->root) ||
	    !work_check_backup(w, &s->root))
		return false;
	work_found(w, found, st);
	if (sim_rand(&rnd) % 2 && plan_job(w, st, &job, &rnd)) {
		const emdb_err err = emdb_close(db) ? EMDB_ERR_FAILED : do_job(&job);

		if (err && err != EMDB_ERR_UNSUPPORTED)
			return wrong(w, "job %d gave %s", job.job, emdb_err_name(err));
		w->key = err ? w->key : job.key_after;
		memcpy(st, err ? job.before : job.after, sizeof(st));
		w->parted = w->parted || (!err && job.job != CHANGE_KEY);
		if (work_open(w, &db))
			return false;
	}
	work_go_on(w, sim, st, seed);
	w->db = db;
	return true;
}

static bool run_epoch(struct work *w, const struct run *r, size_t from, unsigned int boot,
		      uint64_t *rnd)
{
	static size_t at[STATES_MAX + 2];
	struct emdb_stats stats;
	size_t n;

	if (!work_run(w))
		return false;
	sim_delay = 0;
	work_flushing(w);
	if (emdb_stats_get(w->db, &stats) == EMDB_OK)
		atomic_fetch_add(&sh->recycled, stats.recycled);
	if (emdb_close(w->db))
		return wrong(w, "close failed");
	work_flushed(w);
	w->db = NULL;
	atomic_fetch_add(&sh->events, sim_count(w->sim) - from);
	n = pick_moments(w->sim, from, r->states / r->epochs + 1, at, rnd);
	for (size_t i = 0; i < n; i++) {
		const struct situation s = situation_at(w, at[i], boot, rnd);

		if (try_crash(w, &s, rnd))
			continue;
		if (r->report)
			tell(w, s);
		return false;
	}
	return true;
}

static bool run_all(const struct run *r, char *text, size_t text_size)
{
	struct sim *sims[8] = { sim_new() };
	uint64_t rnd = r->seed;
	unsigned int boot = 0, e;
	struct work w;
	bool ok = true;

	sim_now_ns = 1700000000000000000;
	work_init(&w, sim_rand(&rnd));
	w.sim = sims[0];
	w.ops = r->ops;
	w.threads = r->threads;
	w.through = sim_rand(&rnd) % 8 == 0;
	w.key = (int)(sim_rand(&rnd) % 3) - 1;
	w.skip = r->skip;
	sim_boot = boots[0];
	sim_use(sims[0]);
	for (e = 0; ok && e < r->epochs; e++) {
		const size_t from = e ? sim_count(w.sim) : 0;

		sim_delay = r->threads ? 16 : 0;
		ok = run_epoch(&w, r, from, boot, &rnd);
		if (ok && e + 1 < r->epochs) {
			struct situation s =
				situation_at(&w, any_moment(w.sim, from, &rnd), boot, &rnd);

			ok = next_epoch(&w, &s, sim_rand(&rnd));
			boot = s.boot;
			sims[e + 1] = w.sim;
		}
	}
	if (!ok)
		snprintf(text, text_size, "epoch %u of %u: %s", e, r->epochs, w.text);
	sim_use(NULL);
	work_release(&w);
	/* A later disk borrows from the one before. */
	for (int i = 7; i >= 0; i--)
		sim_free(sims[i]);
	return ok;
}

/* In a child, which may also crash or hang. False: it failed; see sh->text. */
static bool run_apart(const struct run *r)
{
	const pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		alarm(HANG_S);
		exit(run_all(r, sh->text, sizeof(sh->text)) ? 0 : 3);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
		snprintf(sh->text, sizeof(sh->text),
			 WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "hangs (status %#x)"
									    : "dies (status %#x)",
			 (unsigned int)status);
	return false;
}

/* ---- Shrinking ---- */

static void shrink(struct run r)
{
	const time_t end = time(NULL) + SHRINK_S;
	const size_t n = (size_t)(WORKERS + 1) * r.ops;
	uint8_t *const best = sh->skip;
	size_t left = n;

	r.skip = best;
	memset(best, 0, n);
	printf("shrinking\n");
	if (r.threads) {
		r.threads = 0;
		if (run_apart(&r)) {
			printf("it does not fail without threads: not shrunk\n");
			return;
		}
	}
	for (size_t chunk = n / 2; chunk > 0 && time(NULL) < end; chunk /= 2)
		for (size_t at = 0; at < n && time(NULL) < end; at += chunk) {
			uint8_t was[sizeof(sh->skip)];
			size_t gone = 0;

			memcpy(was, best, n);
			for (size_t i = at; i < at + chunk && i < n; i++) {
				gone += !best[i];
				best[i] = 1;
			}
			if (!gone)
				continue;
			if (run_apart(&r))
				memcpy(best, was, n);
			else
				left -= gone;
		}
	printf("fails still with %zu of %zu operations:\n", left, n);
	r.report = true;
	(void)!run_apart(&r);
	printf("%s\n", sh->text);
}

/* ---- Tests ---- */

static unsigned int setting(const char *name, unsigned int otherwise)
{
	const char *const env = getenv(name);

	return env ? (unsigned int)strtoul(env, NULL, 0) : otherwise;
}

static struct run run_of(uint64_t seed)
{
	uint64_t rnd = seed;
	struct run r = { .seed = seed };

	r.threads = setting("THREADS", sim_rand(&rnd) % 2);
	r.ops = setting("OPS", 20 + (unsigned int)(sim_rand(&rnd) % 60));
	r.ops = r.ops < OPS_MAX ? r.ops : OPS_MAX;
	r.epochs = setting("EPOCHS", 1 + (unsigned int)(sim_rand(&rnd) % 3));
	r.states = setting("PER_RUN", 150);
	return r;
}

static void begin(void)
{
	if (sh)
		return;
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(sh != MAP_FAILED);
}

static void figures(unsigned int runs, double seconds)
{
	printf("%" PRIu64 " crash states (%" PRIu64 " of them kills, %" PRIu64
	       " while recovering from another, %" PRIu64 " with snapshots and backup, %" PRIu64
	       " in rollbacks and key changes), %u runs, %" PRIu64 " events, %" PRIu64
	       " syncs, %" PRIu64 " segments recycled, %.0f s, lost: 0\n",
	       (uint64_t)sh->states, (uint64_t)sh->kills, (uint64_t)sh->again, (uint64_t)sh->snaps,
	       (uint64_t)sh->offline, runs, (uint64_t)sh->events, (uint64_t)sh->syncs,
	       (uint64_t)sh->recycled, seconds);
}

TEST(crash_store__a_prefix_after_every_crash)
{
	const uint64_t states = setting("STATES", getenv("EMDB_LONG") ? STATES_LONG : STATES_SHORT);
	uint64_t seed = test_seed();
	const time_t start = time(NULL);
	unsigned int runs = 0;

	begin();
	for (; sh->states < states; seed++, runs++) {
		const struct run r = run_of(seed);

		if (run_apart(&r))
			continue;
		printf("FAILED with SEED=%" PRIu64 " (%u operations each, %s, %u epochs): %s\n",
		       seed, r.ops, r.threads ? "threads" : "no threads", r.epochs, sh->text);
		shrink(r);
		FAIL("see above");
	}
	figures(runs, difftime(time(NULL), start));
	/* A run that recycles nothing says nothing about that. */
	CHECK(states < 10000 || sh->recycled > 0);
}

/* A harness that finds nothing proves nothing: these disks, and no checksums, must be noticed. */
static void must_fail(enum sim_flaw flaw, const char *what)
{
	const uint64_t states = sh ? sh->states : 0;

	begin();
	sim_flaw = flaw;
	for (uint64_t seed = 1; seed < 60; seed++) {
		const struct run r = run_of(seed);

		if (run_apart(&r))
			continue;
		printf("%s: noticed after %" PRIu64 " states: %s\n", what, sh->states - states,
		       sh->text);
		sim_flaw = SIM_SOUND;
		sh->states = states;
		return;
	}
	FAIL("%s: nothing was noticed in %" PRIu64 " states", what, sh->states - states);
}

TEST(crash_store__control_fsync_does_nothing)
{
	must_fail(SIM_NO_FSYNC, "fsync of files does nothing");
}

TEST(crash_store__control_directory_sync_does_nothing)
{
	must_fail(SIM_NO_DIRSYNC, "fsync of directories does nothing");
}

TEST(crash_store__control_no_checksums)
{
	must_fail(SIM_NO_CRC, "checksums are not checked");
}

TEST_MAIN()
