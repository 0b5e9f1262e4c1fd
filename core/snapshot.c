/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: STORE/snapshots/NAME is a store made of hard links.
 *
 * Making one
 *	1 retiring is pinned: what compaction moves from now on stays where it was
 *	2 cut: with the structure lock held exclusively, that is between two
 *	  operations, the journal rolls to a new segment, which begins at LSN S
 *	3 everything below S is synced and sealed
 *	4 snapshots/.tmp gets links to all segments below S, a manifest that lists
 *	  just them, a superblock with the time of the cut
 *	5 all of that is synced, then renamed to snapshots/NAME: the commit point
 * The newest checkpoint that was complete before the cut goes along: its image
 * has nothing of S or later.  Without one the snapshot opens by replay.
 * Why step 1 comes before step 2: compaction copies a record of a segment
 * below S to behind S and retires the segment.  Without the pin the snapshot
 * would have neither.
 *
 * Removing one renames it to snapshots/.del first.  A crash leaves .tmp or
 * .del, which nobody looks at and which the next open or the next snapshot
 * removes.  Both happen under snap_lock, one at a time.
 *
 * Numbers: one more than the highest there is and than snapshots/.last says,
 * which is written before the highest one is removed.
 */
#include "core/store.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/checkpoint.h"
#include "core/segment_i.h"
#include "core/snapshot.h"
#include "core/storedir.h"

#define TMP_NAME    ".tmp"
#define BACKUP_NAME ".backup-"
#define DEL_NAME    ".del"
#define LAST_NAME   ".last"
#define LAST_MAX    32u

/* ---- Names ------------------------------------------------------------------ */

static bool name_ok(const char *name)
{
	const size_t n = name ? strnlen(name, EMDB_SNAPSHOT_NAME_MAX + 1) : 0;

	if (n == 0 || n > EMDB_SNAPSHOT_NAME_MAX || name[0] == '.' ||
	    strcmp(name, EMDB_SNAPSHOT_LATEST) == 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || name[i] == '/')
			return false;
	return true;
}

/* Is there anything with this name? */
static emdb_err look(struct emdb_io *io, int dirfd, const char *name, bool *ret_there)
{
	struct io_stat st;
	const int ret = io_fstatat(io, dirfd, name, &st);

	if (ret && ret != -ENOENT)
		return err_of_io(ret);
	*ret_there = ret == 0;
	return EMDB_OK;
}

/* STORE/snapshots.  NOT_FOUND when there is none, unless it is to be made. */
static emdb_err snapshots_open(struct emdb_io *io, int dirfd, bool make, int *ret_fd)
{
	int fd = -1;
	emdb_err err = storedir_open(io, dirfd, STOREDIR_SNAPSHOTS, &fd);

	if (err == EMDB_ERR_NOT_FOUND && make) {
		err = err_of_io(io_mkdirat(io, dirfd, STOREDIR_SNAPSHOTS, 0700));
		if (!err)
			err = storedir_open(io, dirfd, STOREDIR_SNAPSHOTS, &fd);
	}
	/* Also when it was there: who made it may have been killed before its sync. */
	if (!err && make)
		err = err_of_io(io_fsync(io, dirfd));
	if (err)
		(void)io_close(io, fd);
	else
		*ret_fd = fd;
	return err;
}

/*
 * What was killed between renaming a snapshot away and syncing that goes on here: were its files gone
 * first, a power failure could bring its name back without them.
 */
static emdb_err tidy_deleted(struct emdb_io *io, int fd)
{
	bool there = false;
	emdb_err err = look(io, fd, DEL_NAME, &there);

	if (!err && there)
		err = err_of_io(io_fsync(io, fd));
	return err ? err : storedir_remove(io, fd, DEL_NAME);
}

static emdb_err tidy_in(struct emdb_io *io, int fd)
{
	const emdb_err err = storedir_remove(io, fd, TMP_NAME);
	const emdb_err err2 = tidy_deleted(io, fd);

	return err ? err : err2;
}

struct tidying {
	struct emdb_io *io;
	int fd;
	emdb_err err;
};

/* io_list callback: what a backup that was interrupted left. */
static int tidy_one(void *arg, const char *name)
{
	struct tidying *const t = arg;

	if (strncmp(name, BACKUP_NAME, sizeof(BACKUP_NAME) - 1) == 0)
		t->err = storedir_remove(t->io, t->fd, name);
	return t->err ? -EIO : 0;
}

static emdb_err tidy_backups(struct emdb_io *io, int fd)
{
	struct tidying t = { io, fd, EMDB_OK };
	const emdb_err err = err_of_io(io_list(io, fd, tidy_one, &t));

	return t.err ? t.err : err;
}

void snapshot_tidy(emdb_db *db)
{
	emdb_err err;
	int fd;

	if (snapshots_open(db->io, db->dirfd, false, &fd) != EMDB_OK)
		return;
	/* What is shown from now on stays, whoever was killed before syncing it. */
	err = err_of_io(io_fsync(db->io, fd));
	if (!err)
		err = tidy_in(db->io, fd);
	if (!err)
		err = tidy_backups(db->io, fd);
	if (err && db->log)
		db->log(db->log_ctx, EMDB_LOG_WARN,
			"snapshots: cannot remove what is left of an interrupted one");
	(void)io_close(db->io, fd);
}

/* ---- Looking ---------------------------------------------------------------- */

static emdb_err read_parts(struct emdb_io *io, int fd, struct emdb_snapshot *s)
{
	struct manifest m = MANIFEST_INIT;
	struct superblock sb;
	emdb_err err = storedir_super_read(io, fd, &sb);

	if (!err && !sb.frozen_ms)
		err = EMDB_ERR_NOT_STORE;
	if (!err)
		err = manifest_load(io, fd, &m);
	if (!err) {
		s->number = sb.snap_number;
		s->created_ns = sb.frozen_ms * 1000000;
		s->lsn = m.head.durable_lsn;
		s->bytes = storedir_bytes(&m);
	}
	manifest_release(&m);
	return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_NOT_STORE : err;
}

/* NOT_FOUND: none of that name; what is wrong with one that is there goes to ret->err. */
static emdb_err read_one(struct emdb_io *io, int dirfd, const char *name, struct emdb_snapshot *ret)
{
	struct emdb_snapshot s;
	emdb_err err;
	int fd = -1;

	memset(&s, 0, sizeof(s));
	(void)snprintf(s.name, sizeof(s.name), "%s", name);
	err = storedir_open(io, dirfd, name, &fd);
	if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_NOMEM || err == EMDB_ERR_TOO_MANY_FILES)
		return err;
	s.err = err ? err : read_parts(io, fd, &s);
	(void)io_close(io, fd);
	*ret = s;
	return EMDB_OK;
}

struct listing {
	struct emdb_io *io;
	int fd;
	struct buf rows; /* of struct emdb_snapshot */
};

static int list_one(void *arg, const char *name)
{
	struct listing *const l = arg;
	struct emdb_snapshot s;
	emdb_err err;

	if (!name_ok(name))
		return 0;
	err = read_one(l->io, l->fd, name, &s);
	if (err == EMDB_ERR_NOT_FOUND)
		return 0; /* removed meanwhile */
	if (err)
		return err == EMDB_ERR_NOMEM ? -ENOMEM : -EMFILE;
	return buf_append(&l->rows, &s, sizeof(s));
}

static int by_number(const void *a, const void *b)
{
	const struct emdb_snapshot *const x = a, *const y = b;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* All of them in order, in *rows; none when there is no directory for them. */
static emdb_err list_rows(struct emdb_io *io, int dirfd, struct buf *rows)
{
	struct listing l = { .io = io, .fd = -1, .rows = BUF_INIT };
	emdb_err err = snapshots_open(io, dirfd, false, &l.fd);

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	err = err_of_io(io_list(io, l.fd, list_one, &l));
	(void)io_close(io, l.fd);
	if (err) {
		buf_release(&l.rows);
		return err;
	}
	if (l.rows.len)
		qsort(l.rows.data, l.rows.len / sizeof(struct emdb_snapshot),
		      sizeof(struct emdb_snapshot), by_number);
	*rows = l.rows;
	return EMDB_OK;
}

static emdb_err list_in(struct emdb_io *io, int dirfd, emdb_snapshot_fn fn, void *ctx)
{
	struct buf rows = BUF_INIT;
	const emdb_err err = list_rows(io, dirfd, &rows);

	for (size_t at = 0; !err && at < rows.len; at += sizeof(struct emdb_snapshot)) {
		struct emdb_snapshot s;

		memcpy(&s, rows.data + at, sizeof(s));
		if (!fn(ctx, &s))
			break;
	}
	buf_release(&rows);
	return err;
}

emdb_err emdb_snapshot_list(emdb_db *db, emdb_snapshot_fn fn, void *ctx)
{
	return db->memory ? EMDB_OK : list_in(db->io, db->dirfd, fn, ctx);
}

emdb_err emdb_snapshot_list_at(const char *path, emdb_snapshot_fn fn, void *ctx)
{
	struct emdb_io *io;
	struct superblock sb;
	emdb_err err;
	int fd, ret;

	if (!path || !*path)
		return EMDB_ERR_INVAL;
	io = emdb_io_posix_new();
	if (!io)
		return EMDB_ERR_NOMEM;
	ret = io_openat(io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &fd);
	if (ret) {
		err = ret == -ENOENT    ? EMDB_ERR_NO_STORE
		      : ret == -ENOTDIR ? EMDB_ERR_NOT_STORE
					: err_of_io(ret);
	} else {
		err = storedir_super_read(io, fd, &sb);
		if (err == EMDB_ERR_NOT_FOUND)
			err = EMDB_ERR_NOT_STORE;
		if (!err)
			err = list_in(io, fd, fn, ctx);
		(void)io_close(io, fd);
	}
	emdb_io_free(io);
	return err;
}

static bool take_last(void *ctx, const struct emdb_snapshot *s)
{
	*(struct emdb_snapshot *)ctx = *s;
	return true;
}

static emdb_err get_latest(emdb_db *db, struct emdb_snapshot *ret)
{
	struct emdb_snapshot s = { .name = "" };
	const emdb_err err = emdb_snapshot_list(db, take_last, &s);

	if (err)
		return err;
	if (!s.name[0])
		return EMDB_ERR_NOT_FOUND;
	*ret = s;
	return EMDB_OK;
}

emdb_err emdb_snapshot_get(emdb_db *db, const char *name, struct emdb_snapshot *ret)
{
	emdb_err err;
	int fd;

	if (name && strcmp(name, EMDB_SNAPSHOT_LATEST) == 0)
		return get_latest(db, ret);
	if (!name_ok(name))
		return EMDB_ERR_INVAL;
	if (db->memory)
		return EMDB_ERR_NOT_FOUND;
	err = snapshots_open(db->io, db->dirfd, false, &fd);
	if (err)
		return err;
	err = read_one(db->io, fd, name, ret);
	(void)io_close(db->io, fd);
	return err;
}

emdb_err emdb_snapshot_open(emdb_db *db, const char *name, const struct emdb_options *opts,
			    emdb_db **ret_snapshot)
{
	struct emdb_options o = { .size = sizeof(o) };
	char path[sizeof(STOREDIR_SNAPSHOTS) + 1 + EMDB_SNAPSHOT_NAME_MAX];
	struct emdb_snapshot s;
	emdb_err err;

	if (opts && opts->size != sizeof(*opts))
		return EMDB_ERR_INVAL;
	if (opts)
		o = *opts;
	o.flags &= ~(EMDB_OPEN_CREATE | EMDB_OPEN_EXCLUSIVE);
	o.flags |= EMDB_OPEN_READ_ONLY;
	err = emdb_snapshot_get(db, name, &s);
	if (err)
		return err;
	(void)snprintf(path, sizeof(path), STOREDIR_SNAPSHOTS "/%s", s.name);
	err = db_open_snapshot(db, path, &o, ret_snapshot);
	/* One that is removed while it is being opened looks damaged. */
	if (err && emdb_snapshot_get(db, s.name, &s) == EMDB_ERR_NOT_FOUND)
		err = EMDB_ERR_NOT_FOUND;
	return err;
}

/* ---- Numbers ---------------------------------------------------------------- */

/* The highest number that was given to one that is gone now; 0: unknown. */
static emdb_err last_read(struct emdb_io *io, int fd, uint64_t *ret)
{
	struct buf b = BUF_INIT;
	const int rc = io_read_file(io, fd, LAST_NAME, LAST_MAX, &b);
	uint64_t v = 0;

	for (size_t i = 0; !rc && i < b.len && b.data[i] >= '0' && b.data[i] <= '9'; i++)
		v = v > UINT64_MAX / 10 - 1 ? 0 : v * 10 + (uint64_t)(b.data[i] - '0');
	buf_release(&b);
	if (rc && rc != -ENOENT && rc != -EFBIG)
		return err_of_io(rc);
	*ret = v;
	return EMDB_OK;
}

static emdb_err last_write(struct emdb_io *io, int fd, uint64_t number)
{
	char text[LAST_MAX];
	const int n = snprintf(text, sizeof(text), "%" PRIu64 "\n", number);

	return err_of_io(io_replace_durably(io, fd, LAST_NAME, text, (size_t)n));
}

/* The highest of those that are there.  IO: it may be one that cannot be read right now. */
static emdb_err highest(struct emdb_io *io, int dirfd, uint64_t *ret)
{
	struct buf rows = BUF_INIT;
	emdb_err err = list_rows(io, dirfd, &rows);
	uint64_t number = 0;

	for (size_t at = 0; !err && at < rows.len; at += sizeof(struct emdb_snapshot)) {
		struct emdb_snapshot s;

		memcpy(&s, rows.data + at, sizeof(s));
		number = max_u64(number, s.number);
		if (s.err == EMDB_ERR_IO)
			err = EMDB_ERR_IO;
	}
	buf_release(&rows);
	*ret = number;
	return err;
}

/* READ_ONLY or UNSUPPORTED: no snapshot can be made or changed. */
static emdb_err changeable(emdb_db *db)
{
	if (db->memory)
		return EMDB_ERR_UNSUPPORTED;
	return db->read_only ? EMDB_ERR_READ_ONLY : EMDB_OK;
}

/* ---- Creating --------------------------------------------------------------- */

/* What a snapshot is to be. */
struct cut {
	uint64_t lsn;
	int64_t now_ms;
	struct manifest m; /* what it lists */
	struct journal_checkpoint ckpt;
};

/* Takes the moment.  Everything below cut->lsn is durable and sealed afterwards. */
static emdb_err cut_take(emdb_db *db, struct cut *cut)
{
	emdb_err err = journal_roll_prepare(db->j);

	if (err)
		return err;
	journal_checkpoint_get(db->j, &cut->ckpt);
	rwlock_wrlock(&db->structure);
	err = journal_roll(db->j, &cut->lsn);
	cut->now_ms = db_now_ms(db);
	rwlock_wrunlock(&db->structure);
	if (!err)
		err = journal_seal(db->j);
	if (!err)
		err = journal_manifest_get(db->j, &cut->m);
	return err;
}

/* Leaves in the manifest what lies below the cut. */
static emdb_err cut_trim(emdb_db *db, struct cut *cut)
{
	const uint32_t shift = db->sb.segment_shift;
	const uint64_t end = cut->lsn >> shift;
	struct manifest *const m = &cut->m;

	for (uint32_t i = m->head.nsegs; i > 0; i--) {
		if (m->segs[i - 1].id >= end)
			manifest_remove(m, m->segs[i - 1].id, shift);
		else if (!(m->segs[i - 1].flags & MANIFEST_SEALED))
			return EMDB_ERR_FAILED;
	}
	m->head.generation = 0;
	m->head.durable_lsn = cut->lsn;
	m->head.next_segment = end;
	m->head.flags = MANIFEST_CLEAN;
	m->head.ckpt = m->head.ckpt_lsn = 0;
	m->head.ckpt_prev = m->head.ckpt_prev_lsn = 0;
	return EMDB_OK;
}

static emdb_err link_error(int ret)
{
	if (ret == -EPERM || ret == -EOPNOTSUPP || ret == -EMLINK || ret == -EXDEV)
		return EMDB_ERR_UNSUPPORTED;
	return err_of_io(ret);
}

/* The segments of m, from the store's journal into fd/journal, names synced. */
static emdb_err link_segments(emdb_db *db, const struct manifest *m, int fd)
{
	int from = -1, to = -1, ret;
	emdb_err err;

	ret = io_mkdirat(db->io, fd, STOREDIR_JOURNAL, 0700);
	if (ret)
		return err_of_io(ret);
	err = storedir_open(db->io, fd, STOREDIR_JOURNAL, &to);
	if (!err) {
		ret = io_openat(db->io, db->dirfd, STOREDIR_JOURNAL, O_RDONLY | O_DIRECTORY, 0,
				&from);
		err = err_of_io(ret);
	}
	for (uint32_t i = 0; !err && i < m->head.nsegs; i++) {
		char name[SEGMENT_NAME_SIZE];

		segment_name(m->segs[i].id, name);
		err = link_error(io_linkat(db->io, from, name, to, name));
	}
	if (!err)
		err = err_of_io(io_fsync(db->io, to));
	(void)io_close(db->io, from);
	(void)io_close(db->io, to);
	return err;
}

/* The checkpoint, unless it is gone: two newer ones have come since the cut. */
static emdb_err link_checkpoint(emdb_db *db, struct cut *cut, int fd)
{
	char name[CHECKPOINT_NAME_SIZE];
	int ret;

	if (!cut->ckpt.number)
		return EMDB_OK;
	checkpoint_name(cut->ckpt.number, name);
	ret = io_linkat(db->io, db->dirfd, name, fd, name);
	if (ret == 0) {
		cut->m.head.ckpt = cut->ckpt.number;
		cut->m.head.ckpt_lsn = cut->ckpt.lsn;
	}
	return ret == -ENOENT ? EMDB_OK : link_error(ret);
}

/* Everything in the directory fd of the snapshot to be, durable. */
static emdb_err fill(emdb_db *db, struct cut *cut, uint64_t number, int fd)
{
	struct superblock sb = db->sb;
	emdb_err err = link_segments(db, &cut->m, fd);

	if (!err)
		err = link_checkpoint(db, cut, fd);
	if (!err)
		err = manifest_mac_set(&cut->m, db->vault);
	if (!err)
		err = manifest_store(&cut->m, db->io, fd, NULL);
	sb.frozen_ms = cut->now_ms > 0 ? cut->now_ms : 1;
	sb.snap_number = number;
	return err ? err : storedir_super_write(db->io, fd, &sb);
}

/* Makes snapshots/.tmp; the caller removes it when it failed. */
static emdb_err build(emdb_db *db, int snapshots, uint64_t number)
{
	struct cut cut = { .m = MANIFEST_INIT };
	emdb_err err;
	int fd = -1;

	err = err_of_io(io_mkdirat(db->io, snapshots, TMP_NAME, 0700));
	if (!err)
		err = storedir_open(db->io, snapshots, TMP_NAME, &fd);
	if (err)
		return err;
	journal_pin_retire(db->j);
	err = cut_take(db, &cut);
	if (!err)
		err = cut_trim(db, &cut);
	if (!err)
		err = fill(db, &cut, number, fd);
	journal_unpin_retire(db->j);
	manifest_release(&cut.m);
	(void)io_close(db->io, fd);
	return err;
}

/* Out of the way of everybody, then away. */
static emdb_err discard(struct emdb_io *io, int snapshots, const char *name)
{
	emdb_err err = err_of_io(io_renameat(io, snapshots, name, snapshots, DEL_NAME));

	if (!err)
		err = err_of_io(io_fsync(io, snapshots));
	if (!err)
		err = storedir_remove(io, snapshots, DEL_NAME);
	return err;
}

static emdb_err create_locked(emdb_db *db, int fd, const char *name, struct emdb_snapshot *ret)
	EMDB_REQUIRES(&db->snap_lock);
static emdb_err create_locked(emdb_db *db, int fd, const char *name, struct emdb_snapshot *ret)
{
	uint64_t last = 0, number = 0;
	struct emdb_snapshot s;
	bool there = false;
	emdb_err err;

	err = look(db->io, fd, name, &there);
	if (!err && there)
		err = EMDB_ERR_EXISTS;
	if (!err)
		err = tidy_in(db->io, fd);
	if (!err)
		err = last_read(db->io, fd, &last);
	if (!err)
		err = highest(db->io, db->dirfd, &number);
	if (err)
		return err;
	err = build(db, fd, max_u64(number, last) + 1);
	if (!err)
		err = err_of_io(io_renameat(db->io, fd, TMP_NAME, fd, name));
	if (err) {
		(void)!storedir_remove(db->io, fd, TMP_NAME);
		return err;
	}
	err = err_of_io(io_fsync(db->io, fd));
	if (!err && ret)
		err = read_one(db->io, fd, name, &s);
	if (!err && ret)
		err = s.err;
	if (err)
		(void)!discard(db->io, fd, name);
	else if (ret)
		*ret = s;
	return err;
}

emdb_err emdb_snapshot_create(emdb_db *db, const char *name, struct emdb_snapshot *ret)
{
	emdb_err err;
	int fd;

	if (!name_ok(name))
		return EMDB_ERR_INVAL;
	err = changeable(db);
	if (!err)
		err = db_writable(db);
	if (err)
		return err;
	mutex_lock(&db->snap_lock);
	err = snapshots_open(db->io, db->dirfd, true, &fd);
	if (!err) {
		err = create_locked(db, fd, name, ret);
		(void)io_close(db->io, fd);
	}
	mutex_unlock(&db->snap_lock);
	return err;
}

/* ---- For a backup ------------------------------------------------------------ */

static emdb_err pin_locked(emdb_db *db, int fd, char name[static SNAPSHOT_PIN_SIZE])
	EMDB_REQUIRES(&db->snap_lock);
static emdb_err pin_locked(emdb_db *db, int fd, char name[static SNAPSHOT_PIN_SIZE])
{
	emdb_err err = tidy_in(db->io, fd);
	bool there = true;

	/* What an earlier one could not remove. */
	if (!err && !db->backups)
		err = tidy_backups(db->io, fd);
	for (unsigned int i = 1; !err && there; i++) {
		(void)snprintf(name, SNAPSHOT_PIN_SIZE, BACKUP_NAME "%u", i);
		err = look(db->io, fd, name, &there);
	}
	if (!err)
		err = build(db, fd, 0);
	if (!err)
		err = err_of_io(io_renameat(db->io, fd, TMP_NAME, fd, name));
	if (err)
		(void)!storedir_remove(db->io, fd, TMP_NAME);
	return err;
}

emdb_err snapshot_pin(emdb_db *db, char name[static SNAPSHOT_PIN_SIZE], int *ret_fd)
{
	emdb_err err = changeable(db);
	int fd = -1;

	if (!err)
		err = db_writable(db);
	if (err)
		return err;
	mutex_lock(&db->snap_lock);
	err = snapshots_open(db->io, db->dirfd, true, &fd);
	if (!err)
		err = pin_locked(db, fd, name);
	if (!err)
		err = storedir_open(db->io, fd, name, ret_fd);
	if (!err)
		db->backups++;
	mutex_unlock(&db->snap_lock);
	(void)io_close(db->io, fd);
	return err;
}

emdb_err snapshot_unpin(emdb_db *db, const char *name, int pin_fd)
{
	emdb_err err;
	int fd = -1;

	(void)io_close(db->io, pin_fd);
	err = snapshots_open(db->io, db->dirfd, false, &fd);
	if (!err)
		err = storedir_remove(db->io, fd, name);
	(void)io_close(db->io, fd);
	mutex_lock(&db->snap_lock);
	db->backups--;
	mutex_unlock(&db->snap_lock);
	return err;
}

/* ---- Removing and renaming --------------------------------------------------- */

static emdb_err delete_locked(emdb_db *db, int fd, const char *name) EMDB_REQUIRES(&db->snap_lock);
static emdb_err delete_locked(emdb_db *db, int fd, const char *name)
{
	struct emdb_snapshot s = { .number = 0 };
	uint64_t last = 0, number = 0;
	emdb_err err = read_one(db->io, fd, name, &s);

	if (!err)
		err = tidy_in(db->io, fd);
	if (!err)
		err = last_read(db->io, fd, &last);
	if (err)
		return err;
	/* Only the highest number would be forgotten; who knows which one a damaged one had? */
	err = highest(db->io, db->dirfd, &number);
	if (s.err)
		number = max_u64(number, last) + 1;
	if (err && !(err == EMDB_ERR_IO && s.err))
		return err;
	err = EMDB_OK;
	if (number > last && (s.err || s.number == number))
		err = last_write(db->io, fd, number);
	return err ? err : discard(db->io, fd, name);
}

emdb_err emdb_snapshot_delete(emdb_db *db, const char *name)
{
	emdb_err err;
	int fd;

	if (!name_ok(name))
		return EMDB_ERR_INVAL;
	err = changeable(db);
	if (err)
		return err;
	mutex_lock(&db->snap_lock);
	err = snapshots_open(db->io, db->dirfd, false, &fd);
	if (!err) {
		err = delete_locked(db, fd, name);
		(void)io_close(db->io, fd);
	}
	mutex_unlock(&db->snap_lock);
	return err;
}

static emdb_err rename_locked(emdb_db *db, int fd, const char *name, const char *new_name)
	EMDB_REQUIRES(&db->snap_lock);
static emdb_err rename_locked(emdb_db *db, int fd, const char *name, const char *new_name)
{
	bool there = false;
	emdb_err err = look(db->io, fd, name, &there);

	if (!err && !there)
		err = EMDB_ERR_NOT_FOUND;
	if (err || strcmp(name, new_name) == 0)
		return err;
	err = look(db->io, fd, new_name, &there);
	if (!err && there)
		err = EMDB_ERR_EXISTS;
	if (!err)
		err = err_of_io(io_renameat(db->io, fd, name, fd, new_name));
	return err ? err : err_of_io(io_fsync(db->io, fd));
}

emdb_err emdb_snapshot_rename(emdb_db *db, const char *name, const char *new_name)
{
	emdb_err err;
	int fd;

	if (!name_ok(name) || !name_ok(new_name))
		return EMDB_ERR_INVAL;
	err = changeable(db);
	if (err)
		return err;
	mutex_lock(&db->snap_lock);
	err = snapshots_open(db->io, db->dirfd, false, &fd);
	if (!err) {
		err = rename_locked(db, fd, name, new_name);
		(void)io_close(db->io, fd);
	}
	mutex_unlock(&db->snap_lock);
	return err;
}
