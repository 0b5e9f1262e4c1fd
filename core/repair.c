/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb_repair: the order of things, and why nothing is lost whenever it is cut short.
 *
 *	1 superblock and manifest, or what can stand for them, in memory
 *	2 the store is opened read-only, behind damage too, and everything in it verified
 *	3 whatever will be replaced or given up goes to lost/N, complete or not at all
 *	4 segments come from the backup; headers and superblock come back; each file atomically
 *	5 the store is opened for writing. The manifest still lists what is damaged as it was, so that an open
 *	  that does not repair goes on to refuse
 *	6 records say what is lost; a checkpoint has the result
 *	7 the manifest is replaced: damaged places are gaps, missing segments are listed no more
 *	8 the store is opened as everybody opens it: only what opens is good
 * Cut short anywhere before 7, the store is as damaged as before, only its journal may have got longer by
 * records that are right. The next repair finds the same damage and comes to the same.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/checkpoint.h"
#include "core/compact.h"
#include "core/repair_i.h"
#include "core/storedir.h"

void repair_tell(struct repair *r, enum emdb_damage damage, const char *fmt, ...)
{
	struct emdb_detail d = { .segment = UINT64_MAX, .damage = damage };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(d.text, sizeof(d.text), fmt, ap);
	va_end(ap);
	if (r->o->found)
		r->o->found(r->o->ctx, &d);
	if (r->o->detail)
		*r->o->detail = d;
}

/* ---- Opening ------------------------------------------------------------------ */

static emdb_err open_dirs(struct repair *r)
{
	int rc = io_openat(r->io, AT_FDCWD, r->path, O_RDONLY | O_DIRECTORY, 0, &r->dir);
	emdb_err err;

	if (rc)
		return rc == -ENOENT    ? EMDB_ERR_NO_STORE
		       : rc == -ENOTDIR ? EMDB_ERR_NOT_STORE
					: err_of_io(rc);
	if (r->o->backup) {
		rc = io_openat(r->io, AT_FDCWD, r->o->backup, O_RDONLY | O_DIRECTORY, 0,
			       &r->backup);
		err = rc == -ENOTDIR ? EMDB_ERR_NOT_STORE : err_of_io(rc);
		if (!err)
			err = storedir_open(r->io, r->backup, STOREDIR_JOURNAL, &r->backup_journal);
		if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_NOT_STORE) {
			repair_tell(r, EMDB_DAMAGE_FILE, "%s: not a backup", r->o->backup);
			return EMDB_ERR_NOT_STORE;
		}
		if (err)
			return err;
	}
	err = storedir_open(r->io, r->dir, STOREDIR_JOURNAL, &r->journal);
	if (err == EMDB_ERR_NOT_FOUND)
		err = EMDB_OK;
	return err;
}

/* Nobody else has it, or will have. */
static emdb_err take_lock(struct repair *r, bool exclusive)
{
	const emdb_err err = storedir_lock(r->io, r->dir, exclusive, exclusive, &r->lock);

	if (err == EMDB_ERR_LOCKED)
		repair_tell(r, EMDB_DAMAGE_FILE, "%s: the store is in use", r->path);
	return err;
}

/* A directory that is no store at all must not become one. */
static emdb_err is_store(struct repair *r)
{
	struct io_stat st;
	const bool super = io_fstatat(r->io, r->dir, STOREDIR_SUPER, &st) == 0;

	if (super || r->journal != -1)
		return EMDB_OK;
	return EMDB_ERR_NOT_STORE;
}

/* ---- Looking ------------------------------------------------------------------- */

static emdb_err open_store(struct repair *r, struct damage *d, bool write, emdb_db **ret)
{
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_SALVAGE |
						    (write ? 0 : EMDB_OPEN_READ_ONLY),
					   .sweep_interval_ms = -1,
					   .commit_interval_s = -1,
					   .compact_percent = -1,
					   .secret = r->o->secret,
					   .detail = r->o->detail };
	const struct salvage s = {
		.damage = d, .repair = write, .lockfd = r->lock, .super = &r->sb, .manifest = &r->m
	};

	damage_init(d);
	return db_open_salvage(r->path, &opts, &s, ret);
}

static emdb_err note_places(struct repair *r, const struct damage *d)
{
	for (size_t i = 0; i < d->places.len / sizeof(struct damage_place); i++) {
		const struct damage_place *const p =
			(const struct damage_place *)(const void *)d->places.data + i;

		if (p->segment != UINT64_MAX && !repair_has_id(&r->bad, p->segment) &&
		    buf_append(&r->bad, &p->segment, sizeof(p->segment)))
			return EMDB_ERR_NOMEM;
	}
	return EMDB_OK;
}

/* Is there anything that a repair would change? */
static bool is_wanting(const struct repair *r, const struct damage *d)
{
	if (r->super_bad || r->manifest_bad || d->place_count || r->heads.len)
		return true;
	for (size_t i = 0; i < damage_losses(d); i++)
		if (damage_loss(d, i)->kind != LOSS_RANGE || damage_loss(d, i)->lsn != REF_LOST)
			return true;
	return false;
}

/* Verifies everything; tell: says what was found. */
static emdb_err look(struct repair *r, bool tell, bool *ret_wanting)
{
	struct emdb_check_report counts = { .frames = 0 };
	struct damage d;
	emdb_db *db = NULL;
	emdb_err err = open_store(r, &d, false, &db);

	if (!err)
		err = damage_analyse(&d);
	if (!err)
		err = note_places(r, &d);
	if (!err)
		err = repair_find_heads(r);
	if (!err && tell) {
		check_tell(&d, r->o->found, r->o->ctx, &counts);
		r->report.places = counts.bad_frames;
		r->report.damaged_bytes = counts.lost_bytes;
		r->report.unknown_bytes = counts.unknown_bytes;
	}
	if (!err && ret_wanting)
		*ret_wanting = is_wanting(r, &d);
	if (db && emdb_close(db) && !err)
		err = EMDB_ERR_IO;
	damage_release(&d);
	return err;
}

/* ---- Snapshots ------------------------------------------------------------------- */

struct snapshots {
	struct repair *r;
	int fd;
};

static int snapshot_one(void *arg, const char *name)
{
	const struct snapshots *const s = arg;
	struct manifest m = MANIFEST_INIT;
	uint64_t bad = 0;
	int fd;

	if (name[0] == '.' || storedir_open(s->r->io, s->fd, name, &fd))
		return 0;
	if (manifest_load(s->r->io, fd, &m) == EMDB_OK)
		for (uint32_t i = 0; i < m.head.nsegs; i++)
			bad += repair_has_id(&s->r->bad, m.segs[i].id);
	if (bad)
		repair_tell(
			s->r, EMDB_DAMAGE_SNAPSHOT,
			"snapshot \"%.255s\" has %" PRIu64
			" of the damaged segments (emdb check STORE/snapshots/NAME says what that means)",
			name, bad);
	manifest_release(&m);
	(void)io_close(s->r->io, fd);
	return 0;
}

static void tell_snapshots(struct repair *r)
{
	struct snapshots s = { .r = r };

	if (!r->bad.len || storedir_open(r->io, r->dir, STOREDIR_SNAPSHOTS, &s.fd))
		return;
	if (io_list(r->io, s.fd, snapshot_one, &s) < 0)
		repair_tell(r, EMDB_DAMAGE_FILE, "snapshots: cannot be listed");
	(void)io_close(r->io, s.fd);
}

/* ---- Doing ------------------------------------------------------------------------- */

/*
 * Of a batch below the checkpoint that has one senseless record the others are there, by the image only: a replay
 * will skip the frame. (Behind the checkpoint none of it happened, see replay_one(). In an encrypted store only who
 * has its keys could write one.)
 */
static emdb_err rescue(const struct damage *d)
{
	const struct damage_place *const p = (const void *)d->places.data;
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < d->places.len / sizeof(*p); i++) {
		const uint64_t lsn = (p[i].segment << d->db->sb.segment_shift) + p[i].offset;

		if (!p[i].early && lsn < d->db->replay_from && !d->db->sb.cipher)
			err = compact_rescue(d->db, lsn);
	}
	return err;
}

static emdb_err execute(struct repair *r)
{
	struct damage d;
	emdb_db *db = NULL;
	emdb_err err = open_store(r, &d, true, &db), end;

	if (!err)
		err = repair_fix(&d, &r->report);
	if (!err)
		err = rescue(&d);
	if (!err)
		checkpoint_recount(db);
	if (!err)
		err = emdb_checkpoint(db);
	if (!err)
		err = journal_repaired(db->j);
	end = emdb_close(db);
	damage_release(&d);
	return err ? err : end;
}

/*
 * Opens the store as everybody opens it: nothing else is good. After a refusal the next repair comes further: what was
 * damaged behind the image is a known gap then, and excuses no longer that the image does not fit.
 */
static emdb_err confirm(struct repair *r)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_READ_ONLY,
					   .sweep_interval_ms = -1,
					   .secret = r->o->secret,
					   .detail = &detail };
	const struct salvage s = { .lockfd = r->lock };
	emdb_db *db = NULL;
	emdb_err err = db_open_salvage(r->path, &opts, &s, &db);

	if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_DAMAGED)
		repair_tell(r, EMDB_DAMAGE_FILE, "%s: it still does not open: %s", r->path,
			    detail.text[0] ? detail.text : emdb_strerror(err));
	return err ? err : emdb_close(db);
}

/* What is known of the store, and whether a repair would do anything. */
static emdb_err diagnose(struct repair *r, bool *ret_wanting)
{
	const bool dry = r->o->flags & EMDB_REPAIR_DRY_RUN;
	emdb_err err = repair_find_super(r);

	if (!err)
		err = repair_find_manifest(r);
	if (err)
		return err;
	if (r->sb.frozen_ms && !dry) {
		repair_tell(r, EMDB_DAMAGE_FILE,
			    "%s: a snapshot or a backup is not changed: repair it to another place",
			    r->path);
		return EMDB_ERR_READ_ONLY;
	}
	if (r->journal != -1)
		return look(r, false, ret_wanting);
	*ret_wanting = true;
	repair_tell(r, EMDB_DAMAGE_FILE, "the directory " STOREDIR_JOURNAL " is missing");
	for (uint32_t i = 0; i < r->m.head.nsegs; i++)
		if (buf_append(&r->bad, &r->m.segs[i].id, sizeof(uint64_t)))
			return EMDB_ERR_NOMEM;
	r->report.places = r->m.head.nsegs;
	return EMDB_OK;
}

static emdb_err repair_here(struct repair *r)
{
	const bool dry = r->o->flags & EMDB_REPAIR_DRY_RUN;
	bool wanting = false;
	emdb_err err = take_lock(r, !dry);

	if (!err)
		err = diagnose(r, &wanting);
	r->report.super_rebuilt = r->super_rebuilt;
	r->report.manifest_rebuilt = r->manifest_bad;
	if (!err && !wanting && !dry)
		err = confirm(r);
	r->report.intact = !err && !wanting;
	if (err || !wanting)
		return err;
	if (!dry)
		err = repair_keep(r);
	if (!err && r->backup != -1)
		err = repair_from_backup(r);
	/* What came from the backup has a good header. */
	buf_reset(&r->heads);
	if (!err && r->journal != -1)
		err = repair_find_heads(r);
	if (!err && !dry)
		err = repair_put_back(r);
	if (!err && r->journal != -1)
		err = look(r, true, NULL);
	if (!err && !dry)
		err = execute(r);
	if (!err && !dry)
		err = confirm(r);
	if (!err)
		tell_snapshots(r);
	return err;
}

static void repair_release(struct repair *r)
{
	if (!r->io)
		return;
	vault_unref(r->vault);
	manifest_release(&r->m);
	buf_release(&r->bad);
	buf_release(&r->heads);
	(void)io_close(r->io, r->backup_journal);
	(void)io_close(r->io, r->backup);
	(void)io_close(r->io, r->journal);
	(void)io_close(r->io, r->lock);
	(void)io_close(r->io, r->dir);
	emdb_io_free(r->io);
}

/* To be released in any case. */
static emdb_err repair_open(struct repair *r, const char *path, const struct emdb_repair_options *o)
{
	emdb_err err;

	*r = (struct repair){ .io = emdb_io_posix_new(),
			      .o = o,
			      .path = path,
			      .dir = -1,
			      .lock = -1,
			      .journal = -1,
			      .backup = -1,
			      .backup_journal = -1,
			      .m = MANIFEST_INIT,
			      .bad = BUF_INIT,
			      .heads = BUF_INIT };
	if (!r->io)
		return EMDB_ERR_NOMEM;
	err = open_dirs(r);
	return err ? err : is_store(r);
}

static emdb_err repair_in(const char *path, const struct emdb_repair_options *o,
			  struct emdb_repair_report *ret)
{
	struct repair r;
	emdb_err err = repair_open(&r, path, o);

	if (!err)
		err = repair_here(&r);
	if (ret)
		*ret = r.report;
	repair_release(&r);
	return err;
}

/* ---- To another place ------------------------------------------------------------------ */

/* Makes a copy of the store in `to`. */
static emdb_err copy_to(struct repair *r, const char *target, int to)
{
	struct superblock sb;
	emdb_err err = repair_place_begin(r, to);

	if (err == EMDB_ERR_EXISTS || err == EMDB_ERR_INVAL)
		repair_tell(r, EMDB_DAMAGE_FILE, "%s: %s", target,
			    err == EMDB_ERR_EXISTS ? "the directory is not empty"
						   : "the place cannot be used");
	if (!err)
		err = take_lock(r, false);
	if (!err)
		err = repair_copy_store(r, to);
	/* What was a backup goes on. */
	if (!err && storedir_super_read(r->io, to, &sb) == EMDB_OK && sb.frozen_ms) {
		sb.frozen_ms = 0;
		sb.snap_number = 0;
		err = storedir_super_write(r->io, to, &sb);
	}
	return err;
}

/* Is there a superblock, and a key for it?  Else nothing is copied.  What is found will be told of the copy. */
static emdb_err may_copy(struct repair *r)
{
	const struct emdb_repair_options *const o = r->o;
	struct emdb_repair_options quiet = *o;
	emdb_err err;

	quiet.found = NULL;
	r->o = &quiet;
	err = repair_find_super(r);
	r->o = o;
	return err;
}

/* A copy of the store is made, which is then repaired in place. */
static emdb_err repair_elsewhere(const char *path, const struct emdb_repair_options *o,
				 struct emdb_repair_report *ret)
{
	struct repair r;
	emdb_err err = repair_open(&r, path, o);
	int to = -1, rc;

	if (!err)
		err = may_copy(&r);
	rc = err ? 0 : io_mkdirat(r.io, AT_FDCWD, o->target, 0700);
	if (!err && (rc == 0 || rc == -EEXIST))
		rc = io_openat(r.io, AT_FDCWD, o->target, O_RDONLY | O_DIRECTORY, 0, &to);
	if (!err)
		err = rc ? err_of_io(rc) : copy_to(&r, o->target, to);
	if (!err)
		err = repair_in(o->target, o, ret);
	if (!err)
		err = repair_place_end(&r, to);
	if (to != -1)
		(void)io_close(r.io, to);
	repair_release(&r);
	return err;
}

emdb_err emdb_repair(const char *path, const struct emdb_repair_options *opts,
		     struct emdb_repair_report *ret_report)
{
	static const struct emdb_repair_options defaults = { .size = sizeof(defaults) };
	const struct emdb_repair_options *const o = opts ? opts : &defaults;

	if (!path || !*path || o->size != sizeof(*o) || o->flags & ~EMDB_REPAIR_DRY_RUN ||
	    (o->target && (!*o->target || o->flags & EMDB_REPAIR_DRY_RUN)))
		return EMDB_ERR_INVAL;
	if (o->detail)
		*o->detail = (struct emdb_detail){ .segment = UINT64_MAX };
	return o->target ? repair_elsewhere(path, o, ret_report) : repair_in(path, o, ret_report);
}
