/* SPDX-License-Identifier: Apache-2.0 */
/* What a store may hold after a crash, and whether it does. */
#include "tests/crash/work_i.h"

static const char *const snap_names[SNAPS] = { "one", "two", "three" };

/* One worker's part as it is found. */
struct seen {
	bool top, sub[SUBS];
	uint64_t slot[SLOTS]; /* 0: no such key */
};

/* ---- Looking ---- */

static uint64_t slot_print(uint64_t size, uint64_t print, uint64_t names, uint64_t xattr,
			   uint64_t expires)
{
	const uint64_t v[] = { size, print, names, xattr, expires };

	return print_of(v, sizeof(v)) | 1;
}

static bool observe_slot(struct work *w, emdb_db *db, int worker, uint64_t ns, int slot,
			 uint64_t *ret)
{
	uint8_t value[XATTR_ROOM];
	struct emdb_attr attr;
	char key[KEY_ROOM];
	uint64_t xattr = 0;
	size_t n, len;
	void *p;
	emdb_err err;

	*ret = 0;
	key_of(slot, key);
	err = emdb_get(db, ns, key, strlen(key), &p, &n);
	if (err == EMDB_ERR_NOT_FOUND)
		return true;
	if (err)
		return wrong(w, "worker %d slot %d: get gave %s", worker, slot, emdb_err_name(err));
	*ret = print_of(p, n);
	emdb_free(p);
	err = emdb_node_lookup(db, ns, key, strlen(key), &attr);
	if (err)
		return wrong(w, "worker %d slot %d: lookup gave %s", worker, slot,
			     emdb_err_name(err));
	err = emdb_xattr_get(db, attr.id, "user.x", value, sizeof(value), &len);
	emdb_node_forget(db, attr.id, 1);
	if (err && err != EMDB_ERR_NO_XATTR)
		return wrong(w, "worker %d slot %d: xattr gave %s", worker, slot,
			     emdb_err_name(err));
	if (!err)
		xattr = print_of(value, len);
	if (attr.size != n)
		return wrong(w, "worker %d slot %d: %zu bytes were read of %llu", worker, slot, n,
			     (unsigned long long)attr.size);
	*ret = slot_print(n, *ret, attr.nlink, xattr, (uint64_t)attr.expires_ms);
	return true;
}

static bool observe_dir(struct work *w, emdb_db *db, int worker, int dir, struct seen *seen)
{
	uint64_t ns, count = 0, want = dir ? 0 : (uint64_t)seen->sub[0] + seen->sub[1];
	emdb_err err = dir_open(db, worker, dir, &ns);

	for (int i = dir; i < SLOTS; i += DIRS)
		seen->slot[i] = 0;
	if (dir)
		seen->sub[dir - 1] = err == EMDB_OK;
	else
		seen->top = err == EMDB_OK;
	if (err == EMDB_ERR_NOT_FOUND)
		return true;
	if (err)
		return wrong(w, "worker %d directory %d gave %s", worker, dir, emdb_err_name(err));
	for (int i = dir; i < SLOTS; i += DIRS) {
		if (!observe_slot(w, db, worker, ns, i, &seen->slot[i]))
			return false;
		want += seen->slot[i] != 0;
	}
	err = emdb_count(db, ns, &count);
	if (err || count != want)
		return wrong(w, "worker %d directory %d: count gave %s, %llu for %llu", worker, dir,
			     emdb_err_name(err), (unsigned long long)count,
			     (unsigned long long)want);
	return true;
}

/* The directories in it first: their number belongs to the count. */
static bool observe(struct work *w, emdb_db *db, int worker, struct seen *seen)
{
	for (int dir = SUBS; dir >= 0; dir--)
		if (!observe_dir(w, db, worker, dir, seen))
			return false;
	return true;
}

static void expected(const struct state *from, int64_t now_ms, struct seen *seen)
{
	struct state st = *from;

	state_expire(&st, now_ms);
	memset(seen, 0, sizeof(*seen));
	seen->top = st.top;
	memcpy(seen->sub, st.sub, sizeof(st.sub));
	for (int i = 0; i < SLOTS; i++) {
		const struct object *const o = st.slot[i] >= 0 ? &st.objs[st.slot[i]] : NULL;
		uint8_t value[XATTR_ROOM];
		uint64_t xattr = 0;

		if (!o)
			continue;
		if (o->xattr)
			xattr = print_of(value, xattr_of(o->xattr, value));
		seen->slot[i] = slot_print(o->size, o->print, names_of(&st, st.slot[i]), xattr,
					   (uint64_t)o->expires_ms);
	}
}

static bool same(const struct seen *a, const struct seen *b)
{
	return a->top == b->top && memcmp(a->sub, b->sub, sizeof(a->sub)) == 0 &&
	       memcmp(a->slot, b->slot, sizeof(a->slot)) == 0;
}

/* ---- Judging ---- */

static bool no_state(struct work *w, int worker, const struct seen *seen, const struct bounds *b,
		     int64_t now_ms)
{
	char text[1600] = "";
	size_t n = 0;

	for (size_t k = 0; k < w->npast[worker]; k++) {
		struct seen want;
		unsigned int differ = 0;

		expected(&w->past[worker][k].st, now_ms, &want);
		for (int i = 0; i < SLOTS; i++)
			differ += want.slot[i] != seen->slot[i];
		if (same(seen, &want) || (differ <= 1 && n < sizeof(text) - 100))
			n += (size_t)snprintf(
				text + n, sizeof(text) - n,
				same(seen, &want) ? "; is state %zu" : "; 1 key from state %zu", k);
		if (n > sizeof(text) - 100)
			break;
	}
	return wrong(w, "worker %d is in none of its states %zu to %zu (%s to %s)%s", worker,
		     b->lo[worker], b->hi[worker], w->past[worker][b->lo[worker]].what,
		     w->past[worker][b->hi[worker]].what, text);
}

/* The latest state up to `from` that it can be; SIZE_MAX: none. */
static size_t latest(const struct work *w, int worker, const struct seen *seen, size_t lo,
		     size_t from, int64_t now_ms)
{
	for (size_t k = from + 1; k > lo; k--) {
		struct seen want;

		expected(&w->past[worker][k - 1].st, now_ms, &want);
		if (same(seen, &want))
			return k - 1;
	}
	return SIZE_MAX;
}

/* How many of a worker's operations had returned before that ticket. */
static size_t returned(const struct work *w, int worker, uint64_t ticket)
{
	size_t k = 0;

	while (k + 1 < w->npast[worker] && w->past[worker][k + 1].acked.ticket < ticket)
		k++;
	return k;
}

/*
 * The parts must fit together. States can be alike, so each starts as late as it can be and goes
 * back when it needs what is not there; where that ends is the latest that there is.
 */
static bool fit(struct work *w, const struct seen *seen, const struct bounds *b, int64_t now_ms,
		size_t found[WORKERS])
{
	bool again = true;

	while (again) {
		again = false;
		for (int i = 0; i < WORKERS; i++) {
			const uint64_t began = w->past[i][found[i]].began.ticket;

			for (int k = 0; k < WORKERS; k++) {
				if (found[k] >= returned(w, k, began))
					continue;
				again = true;
				if (found[i] > b->lo[i])
					found[i] = latest(w, i, &seen[i], b->lo[i], found[i] - 1,
							  now_ms);
				else
					found[i] = SIZE_MAX;
				if (found[i] == SIZE_MAX)
					return wrong(w,
						     "no prefix: worker %d has what began after "
						     "worker %d's operation %zu (%s) returned",
						     i, k, found[k] + 1,
						     w->past[k][found[k] + 1].what);
				break;
			}
		}
	}
	return true;
}

bool work_check(struct work *w, emdb_db *db, const struct bounds *b, size_t found[WORKERS])
{
	const int64_t now_ms = emdb_now_ms(db);
	struct seen seen[WORKERS];

	for (int i = 0; i < WORKERS; i++) {
		if (!observe(w, db, i, &seen[i]))
			return false;
		found[i] = latest(w, i, &seen[i], b->lo[i], b->hi[i], now_ms);
		if (found[i] == SIZE_MAX)
			return no_state(w, i, &seen[i], b, now_ms);
	}
	return fit(w, seen, b, now_ms, found);
}

bool work_is(struct work *w, emdb_db *db, const struct state st[WORKERS])
{
	const int64_t now_ms = emdb_now_ms(db);

	for (int i = 0; i < WORKERS; i++) {
		struct seen seen, want;

		if (!observe(w, db, i, &seen))
			return false;
		expected(&st[i], now_ms, &want);
		if (!same(&seen, &want))
			return wrong(w, "worker %d's part is not what it was", i);
	}
	return true;
}

void work_found(const struct work *w, const size_t found[WORKERS], struct state st[WORKERS])
{
	for (int i = 0; i < WORKERS; i++)
		st[i] = w->past[i][found[i]].st;
}

/* ---- Bounds ---- */

static size_t begun_by(const struct work *w, int worker, size_t event)
{
	size_t k = 0;

	while (k + 1 < w->npast[worker] && w->past[worker][k + 1].began.event <= event)
		k++;
	return k;
}

static size_t acked_by(const struct work *w, int worker, size_t event)
{
	size_t k = 0;

	while (k + 1 < w->npast[worker] && w->past[worker][k + 1].acked.event <= event)
		k++;
	return k;
}

struct bounds work_bounds(const struct work *w, const struct sim_crash *c)
{
	struct bounds b;
	uint64_t synced = 0;

	for (size_t i = 0; i < w->nflushes; i++)
		if (w->flushes[i].acked.event <= c->at)
			synced = max_u64(synced, w->flushes[i].began.ticket);
	for (int i = 0; i < WORKERS; i++) {
		b.hi[i] = begun_by(w, i, c->at);
		b.lo[i] = c->kill || w->through ? acked_by(w, i, c->at) : returned(w, i, synced);
		for (size_t k = b.lo[i] + 1; k <= b.hi[i]; k++)
			if (w->past[i][k].durable && w->past[i][k].acked.event <= c->at)
				b.lo[i] = k;
	}
	return b;
}

int64_t work_clock(const struct work *w, const struct sim_crash *c)
{
	int64_t now = w->jumps[0].now_ns;

	for (size_t i = 0; i < w->njumps; i++)
		if (w->jumps[i].event <= c->at)
			now = w->jumps[i].now_ns;
	return now;
}

/* ---- Snapshots and backups ---- */

/* Is db what s says? */
static bool snap_matches(struct work *w, emdb_db *db, struct snap *s, size_t found[WORKERS])
{
	const struct snap *const from = s->origin ? s->origin : s;
	struct bounds b;

	if (!s->fixed) {
		for (int i = 0; i < WORKERS; i++) {
			b.lo[i] = returned(w, i, from->made.began.ticket);
			b.hi[i] = b.lo[i];
			while (b.hi[i] + 1 < w->npast[i] &&
			       w->past[i][b.hi[i] + 1].began.ticket < from->made.acked.ticket)
				b.hi[i]++;
		}
		return work_check(w, db, &b, found);
	}
	for (int i = 0; i < WORKERS; i++)
		found[i] = SIZE_MAX;
	return work_is(w, db, s->st);
}

void pardon(struct work *w)
{
	w->broken = false;
	w->text[0] = 0;
}

/* What a snapshot or backup of this name may be, all of which have begun: the latest that fits. */
static struct snap *snap_which(struct work *w, emdb_db *db, int name, const struct sim_crash *c,
			       size_t found[WORKERS])
{
	bool tried = false;

	for (size_t i = w->nsnaps; i > 0; i--) {
		struct snap *const s = &w->snaps[i - 1];

		if (s->name != name || s->made.began.event > c->at)
			continue;
		/* One that was deleted, or replaced by a later backup, for certain. */
		if (s->gone.acked.event <= c->at)
			continue;
		pardon(w);
		tried = true;
		if (snap_matches(w, db, s, found))
			return s;
		if (name < 0 && s->made.acked.event <= c->at)
			return NULL;
	}
	if (!tried)
		wrong(w, "there should be none");
	return NULL;
}

/* Keeps what was found for the next epoch. */
static void snap_remember(struct work *w, const struct snap *s, const struct sim_crash *c,
			  const size_t found[WORKERS])
{
	struct state *const st = calloc(WORKERS, sizeof(*st));
	struct snap *const to = &w->kept[w->nkept];

	if (!st || w->nkept == SNAPS + 1)
		abort();
	for (int i = 0; i < WORKERS; i++)
		st[i] = s->fixed ? s->st[i] : w->past[i][found[i]].st;
	*to = (struct snap){ .name = s->name, .fixed = true, .st = st };
	/* Opening syncs the names of snapshots, not that of a backup somewhere. */
	to->doubtful = s->name < 0 && c->kill && (s->doubtful || s->made.acked.event > c->at);
	to->gone.began = to->gone.acked = (struct moment){ UINT64_MAX, SIZE_MAX };
	w->nkept++;
}

/* Must it be there? */
static bool snap_due(const struct work *w, int name, const struct sim_crash *c)
{
	for (size_t i = 0; i < w->nsnaps; i++)
		if (w->snaps[i].name == name && w->snaps[i].made.acked.event <= c->at &&
		    !(w->snaps[i].doubtful && !c->kill) && w->snaps[i].gone.began.event > c->at)
			return true;
	return false;
}

static bool check_snap(struct work *w, emdb_db *db, int name, const struct sim_crash *c)
{
	size_t found[WORKERS];
	struct snap *s;
	emdb_db *snap;
	emdb_err err = emdb_snapshot_open(db, snap_names[name], NULL, &snap);
	char text[sizeof(w->text)];

	if (err == EMDB_ERR_NOT_FOUND)
		return !snap_due(w, name, c) ||
		       wrong(w, "snapshot %s is not there", snap_names[name]);
	if (err)
		return wrong(w, "snapshot %s does not open: %s", snap_names[name],
			     emdb_err_name(err));
	s = snap_which(w, snap, name, c, found);
	(void)emdb_close(snap);
	if (!s) {
		memcpy(text, w->text, sizeof(text));
		pardon(w);
		return wrong(w, "snapshot %s: %.1000s", snap_names[name], text);
	}
	snap_remember(w, s, c, found);
	return true;
}

bool work_check_snaps(struct work *w, emdb_db *db, const struct sim_crash *c)
{
	for (int i = 0; i < SNAPS; i++)
		if (!check_snap(w, db, i, c))
			return false;
	return true;
}

bool work_check_backup(struct work *w, const struct sim_crash *c)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options opts = { .size = sizeof(opts),
				     .flags = EMDB_OPEN_READ_ONLY,
				     .secret = work_secret(w->key),
				     .detail = &detail };
	char text[sizeof(w->text)];
	size_t found[WORKERS];
	struct snap *s;
	emdb_db *db;
	emdb_err err;

	if (w->parted)
		return true;
	err = emdb_open(BACKUP_PATH, &opts, &db);
	if (err == EMDB_ERR_WRONG_KEY) { /* of before the key was changed */
		opts.secret = work_secret(1 - w->key);
		err = emdb_open(BACKUP_PATH, &opts, &db);
	}
	if (err == EMDB_ERR_NO_STORE && !snap_due(w, -1, c))
		return true;
	if (err)
		return wrong(w, "backup does not open: %s: %s", emdb_err_name(err), detail.text);
	s = snap_which(w, db, -1, c, found);
	(void)emdb_close(db);
	if (!s) {
		memcpy(text, w->text, sizeof(text));
		pardon(w);
		return wrong(w, "backup: %.1000s", text);
	}
	snap_remember(w, s, c, found);
	return true;
}

void work_forget_snaps(struct work *w)
{
	for (size_t i = 0; i < w->nkept; i++)
		free(w->kept[i].st);
	w->nkept = 0;
}
