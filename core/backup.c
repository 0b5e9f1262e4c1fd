/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup and restore: a store's files from one directory to another.
 *
 * A new target is built as .NAME.partial beside it, synced, and renamed to
 * NAME: the commit point.  What a crash leaves is begun anew by the next try.
 *
 * A target that is a backup already gets, in this order: the segments and the
 * checkpoint that its manifest does not list, under their own names (nobody
 * reads what the manifest does not list), all synced; the superblock, with the new
 * time; the manifest, which is the commit point; then what the new manifest does not
 * list is removed.  Between superblock and manifest it is the old state with
 * a later clock: what expired meanwhile is gone, nothing comes back.
 *
 * A segment that both sides list under one id is the same when the headers
 * are equal: each has a random salt.  They differ when the store and its backup
 * went separate ways: that is refused, as the old state would be lost before the
 * new one is complete.
 */
#include <stdio.h>

#include "core/checkpoint.h"
#include "core/segment_i.h"
#include "core/snapshot.h"
#include "core/storedir.h"
#include "core/store.h"

#define PARTIAL_FMT     ".%.230s.partial"
#define TARGET_NAME_MAX 230u

/* ---- The job ------------------------------------------------------------------ */

struct job {
	struct emdb_io *io;
	const struct emdb_backup_options *o;
	const char *target; /* as the caller wrote it, for messages */
	int from, from_journal;
	int to, to_journal; /* the directory that is filled */
	struct superblock sb;
	struct manifest m;   /* what is to be there */
	struct manifest old; /* what an earlier backup lists */
	struct emdb_backup_report report;
	uint64_t done;
};

static emdb_err progress(struct job *j, uint64_t bytes)
{
	j->done += bytes;
	if (!j->o->progress || j->o->progress(j->o->progress_ctx, j->done, j->report.bytes))
		return EMDB_OK;
	return EMDB_ERR_CANCELLED;
}

/* Reads the source; live: what it becomes is no snapshot any more. */
static emdb_err job_read(struct job *j, bool live)
{
	emdb_err err = storedir_super_read(j->io, j->from, &j->sb);

	if (err == EMDB_ERR_NOT_FOUND || (!err && !j->sb.frozen_ms)) {
		explain(j->o->detail, "the source is not a snapshot nor a backup");
		return EMDB_ERR_NOT_STORE;
	}
	if (!err)
		err = manifest_load(j->io, j->from, &j->m);
	if (!err)
		err = storedir_open(j->io, j->from, STOREDIR_JOURNAL, &j->from_journal);
	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_CORRUPT : err;
	for (uint32_t i = 0; i < j->m.head.nsegs; i++)
		if (!(j->m.segs[i].flags & MANIFEST_SEALED))
			return EMDB_ERR_CORRUPT;
	if (memcmp(j->m.head.uuid, j->sb.uuid, 16) != 0)
		return EMDB_ERR_CORRUPT;
	j->report.created_ns = j->sb.frozen_ms * 1000000;
	j->report.lsn = j->m.head.durable_lsn;
	j->report.segments = j->m.head.nsegs;
	j->report.bytes = storedir_bytes(&j->m);
	if (live)
		j->sb.frozen_ms = 0, j->sb.snap_number = 0;
	return EMDB_OK;
}

static void job_release(struct job *j)
{
	(void)io_close(j->io, j->from_journal);
	(void)io_close(j->io, j->to_journal);
	manifest_release(&j->m);
	manifest_release(&j->old);
}

/* ---- One file ------------------------------------------------------------------- */

enum how { SHARED, LINKED, COPIED };

/* Not possible between these two places, or not with this file system. */
static bool cannot(int ret)
{
	return ret == -EXDEV || ret == -EOPNOTSUPP || ret == -ENOTTY || ret == -EINVAL ||
	       ret == -EPERM || ret == -EMLINK || ret == -ENOSYS;
}

/* Brings name from one directory to another, len bytes, durable but for its name. */
static emdb_err transfer(const struct job *j, int from, int to, const char *name, uint64_t len,
			 enum how *ret_how)
{
	const bool may_share = !(j->o->flags & EMDB_BACKUP_COPY);
	int src = -1, dst = -1, ret;

	*ret_how = COPIED;
	ret = io_unlinkat(j->io, to, name, 0);
	if (ret == 0 || ret == -ENOENT)
		ret = io_openat(j->io, from, name, O_RDONLY | O_NOFOLLOW, 0, &src);
	if (ret == 0)
		ret = io_openat(j->io, to, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600,
				&dst);
	if (ret)
		goto out;
	if (may_share) {
		ret = io_clone(j->io, src, dst);
		if (ret == 0)
			*ret_how = SHARED;
		else if (cannot(ret))
			ret = io_unlinkat(j->io, to, name, 0);
		if (ret == 0 && *ret_how == COPIED) {
			ret = io_linkat(j->io, from, name, to, name);
			if (ret == 0)
				*ret_how = LINKED;
		}
		if (ret && cannot(ret)) {
			(void)io_close(j->io, dst);
			dst = -1;
			ret = io_openat(j->io, to, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW,
					0600, &dst);
		}
	}
	if (ret == 0 && *ret_how == COPIED)
		ret = io_copy(j->io, src, dst, len);
	if (ret == 0 && *ret_how != LINKED)
		ret = io_fdatasync(j->io, dst);
out:
	(void)io_close(j->io, src);
	(void)io_close(j->io, dst);
	return err_of_io(ret);
}

/* ---- Segments --------------------------------------------------------------------- */

static emdb_err read_header(struct emdb_io *io, int dirfd, const char *name,
			    uint8_t b[static FMT_SEG_HEADER], uint64_t *ret_size)
{
	struct io_stat st = { .size = 0 };
	size_t n = 0;
	int fd, ret;

	ret = io_openat(io, dirfd, name, O_RDONLY | O_NOFOLLOW, 0, &fd);
	if (ret)
		return err_of_io(ret);
	ret = io_fstat(io, fd, &st);
	if (ret == 0)
		ret = io_pread_full(io, fd, b, FMT_SEG_HEADER, 0, &n);
	(void)io_close(io, fd);
	if (ret == 0 && n < FMT_SEG_HEADER)
		return EMDB_ERR_CORRUPT;
	*ret_size = st.size;
	return err_of_io(ret);
}

/* Of the file with this header: frames, and tags behind them. */
static uint64_t bytes_that_count(const uint8_t b[static FMT_SEG_HEADER],
				 const struct manifest_seg *row)
{
	struct seg_header h;

	if (!fmt_seg_decode(b, FMT_SEG_HEADER, &h) || !h.tags_off)
		return row->len;
	return h.tags_off + (uint64_t)h.tags * FMT_TAG_ROW;
}

/* Is the segment in the target?  CONFLICT: another one of this id is. */
static emdb_err have_segment(const struct job *j, const struct manifest_seg *row, const char *name,
			     bool *ret_have)
{
	uint8_t a[FMT_SEG_HEADER], b[FMT_SEG_HEADER];
	uint64_t size_a, size_b;
	emdb_err err;

	*ret_have = false;
	if (!manifest_find(&j->old, row->id))
		return EMDB_OK;
	err = read_header(j->io, j->from_journal, name, a, &size_a);
	if (err)
		return err;
	err = read_header(j->io, j->to_journal, name, b, &size_b);
	if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_CORRUPT)
		return EMDB_OK; /* the backup is damaged: it gets it again */
	if (err)
		return err;
	if (memcmp(a, b, sizeof(a)) != 0) {
		explain(j->o->detail, "%s is a backup of another history of the store", j->target);
		return EMDB_ERR_CONFLICT;
	}
	*ret_have = size_b >= bytes_that_count(a, row);
	return EMDB_OK;
}

/* Every frame of the copy. */
static emdb_err verify(const struct job *j, const struct manifest_seg *row, const char *name)
{
	struct segment_env env = { .io = j->io,
				   .dirfd = j->to_journal,
				   .shift = j->sb.segment_shift,
				   .crc_seeded = j->sb.incompat & FMT_INCOMPAT_SEEDED };
	struct segment *s = NULL;
	const char *why = "a frame does not check out";
	uint64_t off = FMT_SEG_HEADER;
	emdb_err err;

	memcpy(env.uuid, j->sb.uuid, sizeof(env.uuid));
	err = segment_open(&env, row->id, false, false, &s, &why);
	while (!err && off < row->len) {
		const uint64_t gap = manifest_gap_at(&j->m, s->base + off);
		enum frame_status st = FRAME_END;
		struct frame f;

		if (gap) {
			off += gap;
			continue;
		}
		err = segment_parse(s, off, row->len, true, &st, &f);
		if (!err && st != FRAME_OK)
			err = EMDB_ERR_CORRUPT;
		if (!err)
			off += f.len;
	}
	if (s)
		segment_unref(s);
	if (err == EMDB_ERR_DAMAGED)
		err = EMDB_ERR_CORRUPT;
	if (err)
		explain(j->o->detail, "journal/%s offset %llu: %s", name, (unsigned long long)off,
			why ? why : "a frame does not check out");
	return err;
}

static emdb_err bring_segment(struct job *j, const struct manifest_seg *row)
{
	char name[SEGMENT_NAME_SIZE];
	uint8_t head[FMT_SEG_HEADER];
	uint64_t size;
	enum how how;
	bool have;
	emdb_err err;

	segment_name(row->id, name);
	err = have_segment(j, row, name, &have);
	if (err || have)
		return err ? err : progress(j, row->len);
	err = read_header(j->io, j->from_journal, name, head, &size);
	if (!err)
		err = transfer(j, j->from_journal, j->to_journal, name, bytes_that_count(head, row),
			       &how);
	if (err == EMDB_ERR_NOT_FOUND) {
		explain(j->o->detail, "journal/%s is missing", name);
		return EMDB_ERR_CORRUPT;
	}
	if (!err && how == COPIED)
		err = verify(j, row, name);
	if (err)
		return err;
	if (how == COPIED) {
		j->report.copied++;
		j->report.copied_bytes += row->len;
	} else {
		j->report.shared++;
	}
	return progress(j, row->len);
}

/* The checkpoint goes along; without it the result opens by replay. */
static emdb_err bring_checkpoint(struct job *j)
{
	struct manifest_head *const h = &j->m.head;
	char name[CHECKPOINT_NAME_SIZE];
	struct io_stat st;
	enum how how;
	emdb_err err;

	h->ckpt_prev = h->ckpt_prev_lsn = 0;
	if (!h->ckpt)
		return EMDB_OK;
	checkpoint_name(h->ckpt, name);
	if (io_fstatat(j->io, j->from, name, &st)) {
		h->ckpt = h->ckpt_lsn = 0;
		return EMDB_OK;
	}
	/* Number and LSN name an image for ever. */
	if (j->old.head.ckpt == h->ckpt && j->old.head.ckpt_lsn == h->ckpt_lsn)
		return EMDB_OK;
	err = transfer(j, j->from, j->to, name, st.size, &how);
	return err ? err : progress(j, 0);
}

static emdb_err fill(struct job *j)
{
	emdb_err err = progress(j, 0);

	for (uint32_t i = 0; !err && i < j->m.head.nsegs; i++)
		err = bring_segment(j, &j->m.segs[i]);
	if (!err)
		err = err_of_io(io_fsync(j->io, j->to_journal));
	if (!err)
		err = bring_checkpoint(j);
	if (!err)
		err = err_of_io(io_fsync(j->io, j->to));
	if (err)
		return err;
	j->m.head.generation = max_u64(j->old.head.generation, j->m.head.generation);
	err = storedir_super_write(j->io, j->to, &j->sb);
	return err ? err : manifest_store(&j->m, j->io, j->to, NULL);
}

/* ---- Leftovers --------------------------------------------------------------------- */

struct leftover {
	struct job *j;
	char keep[CHECKPOINT_NAME_SIZE];
};

static int leftover_segment(void *arg, const char *name)
{
	const struct leftover *const l = arg;
	uint64_t id;

	if (segment_name_parse(name, &id) && !manifest_find(&l->j->m, id))
		(void)io_unlinkat(l->j->io, l->j->to_journal, name, 0);
	return 0;
}

static int leftover_checkpoint(void *arg, const char *name)
{
	const struct leftover *const l = arg;

	if (strncmp(name, "checkpoint-", 11) == 0 && strcmp(name, l->keep) != 0)
		(void)io_unlinkat(l->j->io, l->j->to, name, 0);
	return 0;
}

/* What the manifest does not list any more; what stays goes next time. */
static void remove_leftovers(struct job *j)
{
	struct leftover l = { .j = j, .keep = "" };

	if (j->m.head.ckpt)
		checkpoint_name(j->m.head.ckpt, l.keep);
	if (io_list(j->io, j->to_journal, leftover_segment, &l) ||
	    io_list(j->io, j->to, leftover_checkpoint, &l))
		return;
}

/* ---- A new target ------------------------------------------------------------------- */

struct foreign {
	struct emdb_io *io;
	int fd;
	bool any; /* something that this module did not make */
};

static int foreign_one(void *arg, const char *name)
{
	static const char *const ours[] = { STOREDIR_SUPER, STOREDIR_SUPER ".tmp",
					    STOREDIR_LOCK,  STOREDIR_JOURNAL,
					    MANIFEST_NAME,  MANIFEST_NAME ".tmp" };
	struct foreign *const f = arg;

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (strcmp(name, ours[i]) == 0)
			return 0;
	if (strncmp(name, "checkpoint-", 11) != 0)
		f->any = true;
	return 0;
}

/* Opens parent/partial, new or what an earlier try left of it, emptied and locked. */
static emdb_err partial_open(struct job *j, int parent, const char *partial, int *ret_lock)
{
	struct foreign f = { .io = j->io };
	int ret = io_mkdirat(j->io, parent, partial, 0700);
	emdb_err err = ret == -EEXIST ? EMDB_OK : err_of_io(ret);

	if (!err)
		err = storedir_open(j->io, parent, partial, &j->to);
	if (!err && ret == -EEXIST) {
		err = err_of_io(io_list(j->io, j->to, foreign_one, &f));
		if (!err && f.any) {
			explain(j->o->detail, "%s is in the way", partial);
			err = EMDB_ERR_EXISTS;
		}
	}
	if (!err)
		err = storedir_lock(j->io, j->to, true, true, ret_lock);
	if (!err)
		err = storedir_remove(j->io, j->to, STOREDIR_JOURNAL);
	if (!err)
		err = err_of_io(io_mkdirat(j->io, j->to, STOREDIR_JOURNAL, 0700));
	return err ? err : storedir_open(j->io, j->to, STOREDIR_JOURNAL, &j->to_journal);
}

static emdb_err fill_new(struct job *j, int parent, const char *name)
{
	char partial[IO_NAME_MAX + 1];
	int lock = -1, ret;
	emdb_err err;

	(void)snprintf(partial, sizeof(partial), PARTIAL_FMT, name);
	err = partial_open(j, parent, partial, &lock);
	if (!err)
		err = fill(j);
	if (!err) {
		remove_leftovers(j);
		/* Replaces an empty directory, and nothing else. */
		ret = io_renameat(j->io, parent, partial, parent, name);
		err = ret == -ENOTEMPTY || ret == -EEXIST || ret == -ENOTDIR ? EMDB_ERR_EXISTS
									     : err_of_io(ret);
		if (!err)
			err = err_of_io(io_fsync(j->io, parent));
	}
	if (err && lock != -1)
		(void)!storedir_remove(j->io, parent, partial);
	(void)io_close(j->io, lock);
	return err;
}

/* ---- An earlier backup ---------------------------------------------------------------- */

static emdb_err fill_again(struct job *j)
{
	int lock = -1;
	emdb_err err = storedir_lock(j->io, j->to, true, true, &lock);

	if (!err)
		err = manifest_load(j->io, j->to, &j->old);
	if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_CORRUPT) {
		explain(j->o->detail, "%s is a damaged backup: use another target", j->target);
		err = EMDB_ERR_CORRUPT;
	}
	if (!err)
		err = storedir_open(j->io, j->to, STOREDIR_JOURNAL, &j->to_journal);
	j->report.incremental = true;
	if (!err)
		err = fill(j);
	if (!err)
		remove_leftovers(j);
	(void)io_close(j->io, lock);
	return err;
}

/* ---- Which of the two ------------------------------------------------------------------- */

static int any_one(void *arg, const char *name)
{
	(void)name;
	*(bool *)arg = true;
	return 0;
}

/* What is at the target?  *ret_new: nothing, or an empty directory. */
static emdb_err look_at(struct job *j, int parent, const char *name, bool restore, bool *ret_new)
{
	struct superblock sb;
	bool any = false;
	emdb_err err;

	*ret_new = false;
	err = storedir_open(j->io, parent, name, &j->to);
	if (err == EMDB_ERR_NOT_FOUND) {
		*ret_new = true;
		return EMDB_OK;
	}
	if (!err)
		err = err_of_io(io_list(j->io, j->to, any_one, &any));
	if (err)
		return err;
	if (!any) {
		(void)io_close(j->io, j->to);
		j->to = -1;
		*ret_new = true;
		return EMDB_OK;
	}
	err = storedir_super_read(j->io, j->to, &sb);
	if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_NOT_STORE) {
		explain(j->o->detail, "%s is neither empty nor a backup", j->target);
		return EMDB_ERR_NOT_STORE;
	}
	if (err)
		return err;
	if (restore || !sb.frozen_ms || memcmp(sb.uuid, j->sb.uuid, 16) != 0) {
		explain(j->o->detail, "%s is %s", j->target,
			sb.frozen_ms ? (restore ? "a backup" : "a backup of another store")
				     : "a store");
		return EMDB_ERR_EXISTS;
	}
	return EMDB_OK;
}

/* Splits path into its last name and the opened directory before it. */
static emdb_err split(struct job *j, const char *path, char name[static IO_NAME_MAX + 1],
		      int *ret_parent)
{
	size_t end = strlen(path), at;
	struct buf dir = BUF_INIT;
	int ret;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (at = end; at > 0 && path[at - 1] != '/'; at--)
		;
	if (end - at == 0 || end - at > TARGET_NAME_MAX || path[at] == '/') {
		explain(j->o->detail, "%s: not a name that a directory can get", path);
		return EMDB_ERR_INVAL;
	}
	memcpy(name, path + at, end - at);
	name[end - at] = 0;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		explain(j->o->detail, "%s: write the directory's name", path);
		return EMDB_ERR_INVAL;
	}
	if (buf_append(&dir, at ? path : ".", at ? at : 1) || buf_append_zero(&dir, 1)) {
		buf_release(&dir);
		return EMDB_ERR_NOMEM;
	}
	ret = io_openat(j->io, AT_FDCWD, (const char *)dir.data, O_RDONLY | O_DIRECTORY, 0,
			ret_parent);
	if (ret)
		explain(j->o->detail, "%s: %s", (const char *)dir.data, strerror(-ret));
	buf_release(&dir);
	return err_of_io(ret);
}

/* From the directory `from` to the path. */
static emdb_err replicate(struct job *j, bool restore)
{
	char name[IO_NAME_MAX + 1];
	bool is_new = false;
	int parent = -1;
	emdb_err err;

	err = split(j, j->target, name, &parent);
	if (!err)
		err = storedir_outside(j->io, parent);
	if (err == EMDB_ERR_INVAL && parent != -1)
		explain(j->o->detail, "%s lies inside of a store", j->target);
	if (!err)
		err = job_read(j, restore);
	if (!err)
		err = look_at(j, parent, name, restore, &is_new);
	/* Who made it may have been killed before its name was synced. */
	if (!err && !is_new)
		err = err_of_io(io_fsync(j->io, parent));
	if (!err)
		err = is_new ? fill_new(j, parent, name) : fill_again(j);
	(void)io_close(j->io, j->to);
	(void)io_close(j->io, parent);
	job_release(j);
	return err;
}

/* ---- The calls ----------------------------------------------------------------------------- */

static const struct emdb_backup_options default_options = { .size = sizeof(default_options) };

static emdb_err take_options(const char *target, const struct emdb_backup_options **o)
{
	if (!*o)
		*o = &default_options;
	if ((*o)->size != sizeof(**o) || (*o)->flags & ~EMDB_BACKUP_COPY || !target || !*target)
		return EMDB_ERR_INVAL;
	if ((*o)->detail)
		*(*o)->detail = (struct emdb_detail){ .segment = UINT64_MAX };
	return EMDB_OK;
}

static struct job job_of(struct emdb_io *io, const struct emdb_backup_options *o,
			 const char *target)
{
	return (struct job){
		.io = io,
		.o = o,
		.target = target,
		.from = -1,
		.from_journal = -1,
		.to = -1,
		.to_journal = -1,
		.m = MANIFEST_INIT,
		.old = MANIFEST_INIT,
	};
}

emdb_err emdb_backup(emdb_db *db, const char *target, const struct emdb_backup_options *opts,
		     struct emdb_backup_report *ret_report)
{
	char pin[SNAPSHOT_PIN_SIZE];
	struct job j;
	emdb_err err;

	err = take_options(target, &opts);
	if (err)
		return err;
	if (db->memory)
		return EMDB_ERR_UNSUPPORTED;
	j = job_of(db->io, opts, target);
	if (db->sb.frozen_ms) {
		j.from = db->dirfd;
		err = replicate(&j, false);
	} else {
		err = snapshot_pin(db, pin, &j.from);
		if (!err) {
			err = replicate(&j, false);
			(void)snapshot_unpin(db, pin, j.from);
		}
	}
	if (!err && ret_report)
		*ret_report = j.report;
	return err;
}

emdb_err emdb_restore(const char *source, const char *target,
		      const struct emdb_backup_options *opts, struct emdb_backup_report *ret_report)
{
	struct emdb_io *io;
	struct job j;
	int lock = -1, ret;
	emdb_err err;

	err = take_options(target, &opts);
	if (err || !source || !*source)
		return EMDB_ERR_INVAL;
	io = emdb_io_posix_new();
	if (!io)
		return EMDB_ERR_NOMEM;
	j = job_of(io, opts, target);
	ret = io_openat(io, AT_FDCWD, source, O_RDONLY | O_DIRECTORY, 0, &j.from);
	if (ret) {
		explain(opts->detail, "%s: %s", source, strerror(-ret));
		err = ret == -ENOENT    ? EMDB_ERR_NO_STORE
		      : ret == -ENOTDIR ? EMDB_ERR_NOT_STORE
					: err_of_io(ret);
	}
	/* A backup that is just being brought up to date is no source. */
	if (!err)
		err = storedir_lock(io, j.from, false, false, &lock);
	if (!err)
		err = replicate(&j, true);
	(void)io_close(io, lock);
	(void)io_close(io, j.from);
	emdb_io_free(io);
	if (!err && ret_report)
		*ret_report = j.report;
	return err;
}
