/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_recycle: what becomes of retired segments, and new ones made of their files.
 *
 * Writing over a dead segment's file costs a third of what writing to a fresh one does: its pages
 * are in memory and need no zeroing, its blocks are no room that was only set aside, which each sync
 * would have to record as written, and nothing has to be freed first.
 *
 * Whose bytes may be overwritten. A retired segment leaves manifest, table and list, in this order.
 * The table's reference goes through the epoch, readers that want to keep it have their own; the
 * list of the dead has one more. So when that is the only one, nobody has the segment and nobody can
 * get it. Other processes read the files of snapshots and backups, which are names of the same
 * files: a segment that ever got such a name is not recycled, be the name gone or not.
 *
 * Crashes. A kept file is called ID.dead, which no manifest lists and no repair takes for a segment;
 * the next open removes it. It becomes a segment as any other does: header durable, then name
 * durable, then listed. What of its old bytes shows behind the new ones is no frame: see
 * journal_recover.c.
 */
#include "core/journal_i.h"

/* Files that are kept at most. */
#define KEPT_MAX 4u
/* So long nothing is written before they go, and so long readers are waited for. */
#define QUIET_NS UINT64_C(10000000000)

static bool is_ours_alone(const struct segment *s)
{
	/* Acquire: what others did with it comes before what becomes of it. */
	return atomic_load_explicit(&s->refs, memory_order_acquire) == 1;
}

static void unlink_dead(struct journal *j, const struct segment *s)
{
	char name[SEGMENT_NAME_SIZE];

	segment_dead_name(s->id, name);
	(void)io_unlinkat(j->cfg.io, j->env.dirfd, name, 0);
}

/* ---- Burying ---------------------------------------------------------- */

static bool may_keep_locked(const struct journal *j, const struct segment *s)
	EMDB_REQUIRES(&j->segment_lock);
static bool may_keep_locked(const struct journal *j, const struct segment *s)
{
	size_t kept = 0;

	for (const struct segment *d = j->dead; d; d = d->next_dead)
		kept += d->file == DEAD_KEPT;
	return s->own && !s->linked && kept < KEPT_MAX && kept < j->count;
}

/* s NULL: one that could not be opened. */
static void bury(struct journal *j, uint64_t id, struct segment *s, bool keep)
{
	char name[SEGMENT_NAME_SIZE], dead[SEGMENT_NAME_SIZE];

	segment_name(id, name);
	segment_dead_name(id, dead);
	if (keep && io_renameat(j->cfg.io, j->env.dirfd, name, j->env.dirfd, dead) < 0)
		keep = false;
	if (!keep && io_unlinkat(j->cfg.io, j->env.dirfd, name, 0) < 0)
		journal_log(j, EMDB_LOG_WARN, JOURNAL_DIR "/%s: cannot unlink", name);
	if (!s)
		return;
	mutex_lock(&j->segment_lock);
	s->file = keep ? DEAD_KEPT : DEAD_GONE;
	s->died_ns = io_clock_mono_ns(j->cfg.io);
	mutex_unlock(&j->segment_lock);
}

void recycle_bury(struct journal *j, const uint64_t *ids, size_t n)
{
	/* Without a seed of their own nothing but their LSNs would tell old frames. */
	const bool may =
		!j->cfg.memory && !j->cfg.salvage && j->cfg.crc_seeded && room_to_recycle(j);

	for (size_t i = 0; i < n; i++) {
		struct segment *s;
		bool keep;

		/* As long as it is DEAD_LISTED nobody else takes it out. */
		mutex_lock(&j->segment_lock);
		for (s = j->dead; s && s->id != ids[i];)
			s = s->next_dead;
		keep = may && s && may_keep_locked(j, s);
		mutex_unlock(&j->segment_lock);
		bury(j, ids[i], s, keep);
	}
}

/* ---- Taking out ------------------------------------------------------- */

typedef bool (*wanted_fn)(const struct segment *s, uint64_t since_ns);

/* Takes the first one that is wanted out of the list; NULL: none is. */
static struct segment *take(struct journal *j, wanted_fn wanted, uint64_t since_ns)
{
	struct segment *s = NULL;

	mutex_lock(&j->segment_lock);
	for (struct segment **at = &j->dead; *at && !s; at = &(*at)->next_dead) {
		if ((*at)->file == DEAD_LISTED || !wanted(*at, since_ns))
			continue;
		s = *at;
		*at = s->next_dead;
		break;
	}
	mutex_unlock(&j->segment_lock);
	return s;
}

static bool can_recycle(const struct segment *s, uint64_t since_ns)
{
	(void)since_ns;
	return s->file == DEAD_KEPT && is_ours_alone(s);
}

/* Nobody waits for it: who has the last reference frees it. */
static bool can_free(const struct segment *s, uint64_t since_ns)
{
	return s->file == DEAD_GONE && (is_ours_alone(s) || s->died_ns < since_ns);
}

static bool is_kept(const struct segment *s, uint64_t since_ns)
{
	(void)since_ns;
	return s->file == DEAD_KEPT;
}

emdb_err recycle_or_create(struct journal *j, uint64_t id, struct segment **ret)
{
	struct segment *old;
	emdb_err err;

	/* Twice: what was retired just now. */
	(void)epoch_reclaim(j->cfg.epoch);
	(void)epoch_reclaim(j->cfg.epoch);
	old = take(j, can_recycle, 0);
	if (old) {
		err = segment_recycle(&j->env, old, id, ret);
		segment_unref(old);
		if (!err) {
			atomic_fetch_add_explicit(&j->recycled, 1, memory_order_relaxed);
			return EMDB_OK;
		}
	}
	err = segment_create(&j->env, id, ret);
	if (err == EMDB_ERR_NO_SPACE && recycle_drop(j))
		err = segment_create(&j->env, id, ret);
	return err;
}

bool recycle_drop(struct journal *j)
{
	struct segment *s;
	bool any = false;

	(void)epoch_reclaim(j->cfg.epoch);
	while ((s = take(j, is_kept, 0)) != NULL) {
		unlink_dead(j, s);
		segment_unref(s);
		any = true;
	}
	return any;
}

bool recycle_sweep(struct journal *j)
{
	const uint64_t now = io_clock_mono_ns(j->cfg.io), tail = journal_load_tail(j);
	const uint64_t since = now > QUIET_NS ? now - QUIET_NS : 0;
	struct segment *s;
	bool left;

	if (tail != j->quiet_tail) {
		j->quiet_tail = tail;
		j->quiet_since_ns = now;
	}
	if (j->quiet_since_ns < since)
		(void)recycle_drop(j);
	(void)epoch_reclaim(j->cfg.epoch);
	while ((s = take(j, can_free, since)) != NULL)
		segment_unref(s);
	mutex_lock(&j->segment_lock);
	left = j->dead != NULL;
	mutex_unlock(&j->segment_lock);
	return left;
}

void recycle_release(struct journal *j)
{
	while (j->dead) {
		struct segment *const s = j->dead;

		j->dead = s->next_dead;
		segment_unref(s);
	}
}
