/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rollback: a store that nobody has open gets the journal of a snapshot.
 *
 *	1 the snapshot's segments and checkpoint are linked into the store: files
 *	  that its manifest does not list mean nothing
 *	2 synced, the manifest is replaced by one that lists the snapshot's: the commit point
 *	3 segments that it does not list are removed; the next open would do so too
 * The next segment id stays what it was, above all that were ever used: ids
 * and LSNs of what is rolled back are not given again, and a segment of one
 * id has one content in the store and in all its snapshots.
 */
#include <inttypes.h>

#include "core/checkpoint.h"
#include "core/segment_i.h"
#include "core/storedir.h"

struct rollback {
	struct emdb_io *io;
	struct emdb_detail *detail;
	int dir, lock, journal; /* of the store */
	int snap, snap_journal; /* of the snapshot */
	struct superblock sb, snap_sb;
	struct manifest m, snap_m;
};

static emdb_err open_store(struct rollback *r, const char *path)
{
	const int ret = io_openat(r->io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &r->dir);
	emdb_err err;

	if (ret == -ENOENT || ret == -ENOTDIR)
		return ret == -ENOENT ? EMDB_ERR_NO_STORE : EMDB_ERR_NOT_STORE;
	if (ret)
		return err_of_io(ret);
	err = storedir_super_read(r->io, r->dir, &r->sb);
	if (err == EMDB_ERR_NOT_FOUND || (!err && r->sb.frozen_ms))
		return EMDB_ERR_NOT_STORE;
	if (!err && r->sb.incompat & FMT_INCOMPAT_SWITCH) {
		explain(r->detail, "a conversion has to be finished first: open the store");
		return EMDB_ERR_BUSY;
	}
	if (!err)
		err = storedir_lock(r->io, r->dir, true, true, &r->lock);
	if (!err)
		err = manifest_load(r->io, r->dir, &r->m);
	if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_NOT_FOUND) {
		explain(r->detail, "the manifest does not check out");
		err = EMDB_ERR_DAMAGED;
	}
	return err ? err : storedir_open(r->io, r->dir, STOREDIR_JOURNAL, &r->journal);
}

static emdb_err open_snapshot(struct rollback *r, const char *name)
{
	emdb_err err = storedir_open(r->io, r->dir, STOREDIR_SNAPSHOTS, &r->snap);
	const int all = r->snap;

	if (err)
		return err;
	r->snap = -1;
	err = storedir_open(r->io, all, name, &r->snap);
	/* Who made it may have been killed before its name was synced; from now on much hangs on it. */
	if (!err)
		err = err_of_io(io_fsync(r->io, all));
	(void)io_close(r->io, all);
	if (err)
		return err;
	err = storedir_super_read(r->io, r->snap, &r->snap_sb);
	if (!err)
		err = manifest_load(r->io, r->snap, &r->snap_m);
	if (!err)
		err = storedir_open(r->io, r->snap, STOREDIR_JOURNAL, &r->snap_journal);
	if (!err && (!r->snap_sb.frozen_ms || memcmp(r->snap_sb.uuid, r->sb.uuid, 16) != 0 ||
		     memcmp(r->snap_m.head.uuid, r->sb.uuid, 16) != 0 ||
		     r->snap_sb.segment_shift != r->sb.segment_shift))
		err = EMDB_ERR_CORRUPT;
	if (err == EMDB_ERR_NOT_FOUND)
		err = EMDB_ERR_CORRUPT;
	if (err)
		explain(r->detail, "snapshot %s: %s", name, emdb_strerror(err));
	return err;
}

struct newest {
	struct emdb_snapshot s;
};

static bool take_newest(void *ctx, const struct emdb_snapshot *s)
{
	((struct newest *)ctx)->s = *s;
	return true;
}

static emdb_err is_newest(struct rollback *r, const char *path)
{
	struct newest n = { .s = { .number = 0 } };
	const emdb_err err = emdb_snapshot_list_at(path, take_newest, &n);

	if (err || n.s.number <= r->snap_sb.snap_number)
		return err;
	explain(r->detail, "there are newer snapshots: %s", n.s.name);
	return EMDB_ERR_CONFLICT;
}

/* The file is there, or the snapshot's is linked; *ret_there: with at least len bytes. */
static emdb_err bring(const struct rollback *r, int from, int to, const char *name, uint64_t len)
{
	struct io_stat a, b;
	int ret = io_fstatat(r->io, from, name, &a);

	if (ret == 0 && a.size < len)
		ret = -ENOENT;
	if (ret) {
		explain(r->detail, "snapshot: %s is missing or too short", name);
		return ret == -ENOENT ? EMDB_ERR_DAMAGED : err_of_io(ret);
	}
	ret = io_fstatat(r->io, to, name, &b);
	if (ret == 0 && a.ino == b.ino && a.dev == b.dev)
		return EMDB_OK;
	/*
	 * Another file of this name: a copy of the same bytes.  As long as the manifest lists
	 * it, it is replaced by what is as good.
	 */
	if (ret == 0) {
		(void)io_unlinkat(r->io, to, "rollback.tmp", 0);
		ret = io_linkat(r->io, from, name, to, "rollback.tmp");
		if (ret == 0)
			ret = io_renameat(r->io, to, "rollback.tmp", to, name);
		return err_of_io(ret);
	}
	return err_of_io(ret == -ENOENT ? io_linkat(r->io, from, name, to, name) : ret);
}

static emdb_err bring_all(struct rollback *r)
{
	struct manifest *const m = &r->snap_m;
	char name[CHECKPOINT_NAME_SIZE];
	emdb_err err = EMDB_OK;

	for (uint32_t i = 0; !err && i < m->head.nsegs; i++) {
		segment_name(m->segs[i].id, name);
		err = bring(r, r->snap_journal, r->journal, name, m->segs[i].len);
	}
	if (!err)
		err = err_of_io(io_fsync(r->io, r->journal));
	if (!err && m->head.ckpt) {
		checkpoint_name(m->head.ckpt, name);
		if (bring(r, r->snap, r->dir, name, 1) != EMDB_OK)
			m->head.ckpt = m->head.ckpt_lsn = 0;
	}
	return err ? err : err_of_io(io_fsync(r->io, r->dir));
}

struct unlisted {
	const struct rollback *r;
	uint64_t max;
};

/* io_list callback: ids of files that are there count as used. */
static int used_one(void *arg, const char *name)
{
	struct unlisted *const u = arg;
	uint64_t id;

	if (segment_name_parse(name, &id))
		u->max = max_u64(u->max, id);
	return 0;
}

static int remove_one(void *arg, const char *name)
{
	const struct unlisted *const u = arg;
	uint64_t id;

	if (segment_name_parse(name, &id) && !manifest_find(&u->r->snap_m, id))
		(void)io_unlinkat(u->r->io, u->r->journal, name, 0);
	return 0;
}

static emdb_err commit(struct rollback *r)
{
	struct manifest_head *const h = &r->snap_m.head;
	struct unlisted u = { .r = r };
	emdb_err err = err_of_io(io_list(r->io, r->journal, used_one, &u));

	if (err)
		return err;
	h->next_segment = max_u64(max_u64(h->next_segment, r->m.head.next_segment), u.max + 1);
	h->generation = r->m.head.generation;
	h->ckpt_prev = h->ckpt_prev_lsn = 0;
	err = manifest_store(&r->snap_m, r->io, r->dir, NULL);
	/* What stays for want of a listing goes at the next open. */
	if (!err && io_list(r->io, r->journal, remove_one, &u))
		return EMDB_OK;
	return err;
}

emdb_err emdb_rollback(const char *path, const char *name, unsigned int flags,
		       struct emdb_detail *detail)
{
	struct rollback r = { .detail = detail,
			      .dir = -1,
			      .lock = -1,
			      .journal = -1,
			      .snap = -1,
			      .snap_journal = -1,
			      .m = MANIFEST_INIT,
			      .snap_m = MANIFEST_INIT };
	emdb_err err;

	if (detail)
		*detail = (struct emdb_detail){ .segment = UINT64_MAX };
	if (!path || !*path || !name || !*name || *name == '.' || strchr(name, '/') ||
	    strlen(name) > EMDB_SNAPSHOT_NAME_MAX || flags & ~EMDB_ROLLBACK_PAST_NEWER)
		return EMDB_ERR_INVAL;
	r.io = emdb_io_posix_new();
	if (!r.io)
		return EMDB_ERR_NOMEM;
	err = open_store(&r, path);
	if (!err)
		err = open_snapshot(&r, name);
	if (!err && !(flags & EMDB_ROLLBACK_PAST_NEWER))
		err = is_newest(&r, path);
	if (!err)
		err = bring_all(&r);
	if (!err)
		err = commit(&r);
	manifest_release(&r.m);
	manifest_release(&r.snap_m);
	(void)io_close(r.io, r.snap_journal);
	(void)io_close(r.io, r.snap);
	(void)io_close(r.io, r.journal);
	(void)io_close(r.io, r.lock);
	(void)io_close(r.io, r.dir);
	emdb_io_free(r.io);
	return err;
}
