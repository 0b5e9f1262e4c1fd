/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_room: one segment's worth of head-room on a disk that runs full.
 *
 * A log must grow to remove something, and an open must write a segment of its
 * own.  So while the disk is tight a file `reserve` beside the segments holds
 * the space of one.  It is given up for a segment only by removals,
 * compaction and opening; ordinary writes wait until it is back.  With plenty
 * of space there is no such file.
 *
 * Nor does the journal take the last bytes for a segment or the reserve: whoever
 * is killed when all is used, compaction having copied and not yet retired what
 * it copied from, must find room to open, so that what is dead can go.  The
 * first segment of an open on such a disk has less room than others, and leaves
 * some to the open after it.
 */
#include "core/journal_i.h"

#define RESERVE_NAME "reserve"
/* Free segments below which the reserve is kept, and twice of which it is given back. */
#define TIGHT_SEGMENTS 16u

/* Left for opening: a sixteenth of a segment, between these. */
#define START_ROOM_MIN UINT64_C(65536)
#define START_ROOM_MAX UINT64_C(1048576)

static uint64_t free_bytes(struct journal *j)
{
	struct io_vfs vfs;

	if (io_fstatvfs(j->cfg.io, j->env.dirfd, &vfs) < 0)
		return UINT64_MAX;
	return vfs.bavail * vfs.bsize;
}

static uint64_t free_segments(struct journal *j)
{
	return free_bytes(j) >> j->env.shift;
}

bool room_stays(struct journal *j, uint64_t bytes)
{
	const uint64_t start = min_u64(max_u64((j->mask + 1) / 16, START_ROOM_MIN), START_ROOM_MAX);

	return j->cfg.memory || free_bytes(j) >= bytes + start;
}

bool room_to_recycle(struct journal *j)
{
	struct io_vfs vfs;

	return io_fstatvfs(j->cfg.io, j->env.dirfd, &vfs) == 0 && vfs.in_place &&
	       vfs.bavail * vfs.bsize >> j->env.shift >= 2 * TIGHT_SEGMENTS;
}

static int reserve_create(struct journal *j)
{
	int fd, rc, rc2;

	rc = io_openat(j->cfg.io, j->env.dirfd, RESERVE_NAME, O_RDWR | O_CREAT | O_NOFOLLOW, 0600,
		       &fd);
	if (rc < 0)
		return rc;
	rc = io_fallocate(j->cfg.io, fd, 0, j->mask + 1, false);
	rc2 = io_close(j->cfg.io, fd);
	if (rc == 0)
		rc = rc2;
	if (rc < 0)
		(void)io_unlinkat(j->cfg.io, j->env.dirfd, RESERVE_NAME, 0);
	/* Where space cannot be reserved there is nothing to keep. */
	return rc == -EOPNOTSUPP ? 0 : rc;
}

emdb_err reserve_keep_locked(struct journal *j)
{
	int rc;

	lock_assert_held(LOCK_ROLL);
	if (j->cfg.memory || j->reserve_there || free_segments(j) >= TIGHT_SEGMENTS)
		return EMDB_OK;
	(void)recycle_drop(j);
	if (!room_stays(j, j->mask + 1))
		return EMDB_ERR_NO_SPACE;
	rc = reserve_create(j);
	if (rc < 0)
		return err_of_io(rc);
	j->reserve_there = true;
	return EMDB_OK;
}

bool reserve_spend_locked(struct journal *j)
{
	if (!j->reserve_there || io_unlinkat(j->cfg.io, j->env.dirfd, RESERVE_NAME, 0) < 0)
		return false;
	j->reserve_there = false;
	atomic_store(&j->spent, true);
	return true;
}

uint64_t journal_kept_room(struct journal *j)
{
	uint64_t n;

	mutex_lock(&j->roll_lock);
	n = (j->spare != NULL) + (uint64_t)j->reserve_there;
	mutex_unlock(&j->roll_lock);
	return n * (j->mask + 1 - FMT_SEG_HEADER - j->seal_len);
}

/* An earlier open may have left it; with plenty of space it is given back. */
static void reserve_find(struct journal *j)
{
	struct io_stat st;

	j->reserve_there = io_fstatat(j->cfg.io, j->env.dirfd, RESERVE_NAME, &st) == 0;
	if (j->reserve_there && free_segments(j) >= 2 * TIGHT_SEGMENTS) {
		(void)io_unlinkat(j->cfg.io, j->env.dirfd, RESERVE_NAME, 0);
		j->reserve_there = false;
	}
}

/*
 * Recovered segments give back what they did not use; their files stay open. Not those that the next
 * open would take for cut, should this one get no further.
 */
static void cut_recovered(struct journal *j)
{
	for (size_t i = 0; i < j->count; i++) {
		struct segment *const s = j->list[i];
		const uint64_t len = segment_len(s);

		if (s->fd != -1 && s->base + len >= journal_known_lsn(j) &&
		    atomic_load_explicit(&s->size, memory_order_relaxed) > len &&
		    io_ftruncate(j->cfg.io, s->fd, len) == 0)
			atomic_store_explicit(&s->size, len, memory_order_relaxed);
	}
}

/* With room for less when there is not half as much again, of which the next open gets its own. */
static emdb_err create_within(struct journal *j, uint64_t id, uint64_t room, struct segment **ret)
{
	if (room / 2 >= ROOM_LEAST && free_bytes(j) < room + room / 2)
		return EMDB_ERR_NO_SPACE;
	return segment_create_short(&j->env, id, room, ret);
}

emdb_err reserve_start(struct journal *j, uint64_t id, uint64_t most, struct segment **ret)
{
	const uint64_t whole = j->mask + 1;
	emdb_err err = EMDB_ERR_NO_SPACE;

	reserve_find(j);
	if (most == whole && (j->cfg.create || j->reserve_there || room_stays(j, whole)))
		err = segment_create(&j->env, id, ret);
	if (err != EMDB_ERR_NO_SPACE || j->cfg.create)
		return err;
	/* What a repair lists is not on disk yet. */
	if (!j->cfg.repair)
		journal_drop_debris(j);
	cut_recovered(j);
	while ((err = create_within(j, id, most, ret)) == EMDB_ERR_NO_SPACE) {
		if (reserve_spend_locked(j))
			most = whole;
		else if (most / 2 < ROOM_LEAST)
			break;
		else
			most /= 2;
	}
	if (err)
		return err;
	/* Until there is a spare again only what makes room may write. */
	atomic_store(&j->spent, true);
	atomic_store(&j->low_space, true);
	journal_log(j, EMDB_LOG_WARN, "journal: no space for another segment");
	return EMDB_OK;
}
