/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The superblock of a damaged store. An encrypted one has the key slots, so that it can come from a copy only,
 * and nothing that is encrypted may be taken for a plain store, whose records would then all be lost: whatever
 * superblock is used, the first good frames must make sense with it.
 */
#include <unistd.h>

#include "core/keyslot.h"
#include "core/repair_i.h"
#include "core/storedir.h"

/* Do the CRCs in this segment begin with its salt?  New stores' do. */
static bool is_seeded(struct repair *r, uint64_t id)
{
	struct segment_env env = repair_env(r, r->journal);
	enum frame_status st = FRAME_END;
	struct segment *s = NULL;
	const char *why = NULL;
	struct frame f;
	uint64_t off;

	env.crc_seeded = false;
	if (segment_open(&env, id, false, true, &s, &why))
		return true;
	if (segment_scan(s, FMT_SEG_HEADER, min_u64(s->size, segment_bytes(s)), false, &st, &f,
			 &off))
		st = FRAME_END;
	segment_unref(s);
	return st != FRAME_OK;
}

/*
 * From the headers of the segments. The seed of the hashes is gone, so checkpoints are of no use
 * any more; the journal needs none.
 */
static emdb_err super_from_segments(struct repair *r)
{
	struct buf ids = BUF_INIT;
	emdb_err err = repair_segments(r, &ids);
	bool found = false;

	for (size_t i = 0; !err && !found && i < ids.len / sizeof(uint64_t); i++) {
		struct seg_header h;

		if (repair_head(r->io, r->journal, repair_id_at(&ids, i), &h))
			continue;
		found = true;
		memset(&r->sb, 0, sizeof(r->sb));
		r->sb.version = FMT_VERSION;
		r->sb.segment_shift = h.segment_shift;
		memcpy(r->sb.uuid, h.uuid, sizeof(r->sb.uuid));
		r->sb.created_ns = h.created_ns;
		r->sb.incompat = is_seeded(r, repair_id_at(&ids, i)) ? FMT_INCOMPAT_SEEDED : 0;
		r->sb.uid = geteuid();
		r->sb.gid = getegid();
		err = err_of_io(io_random(r->io, r->sb.hash_seed, sizeof(r->sb.hash_seed)));
	}
	buf_release(&ids);
	if (!err && !found)
		err = EMDB_ERR_NOT_STORE;
	return err;
}

/* ---- Does it belong to what is there? -------------------------------------------- */

enum fit { FIT_UNKNOWN, FIT_YES, FIT_NO };

/* f as records that are not sealed. */
static bool is_plain(const struct frame *f)
{
	struct batch_iter it;
	struct rec rec;
	uint64_t ref;

	if (f->kind == FRAME_SEAL)
		return f->len < FMT_FRAME_HEADER + FMT_TAG;
	if (f->kind != FRAME_BATCH)
		return fmt_frame_rec(f, &rec);
	return fmt_batch_begin(f, &it) && fmt_batch_next(&it, &rec, &ref) >= 0;
}

/* The first good frame of s, read as sb says it is. */
static enum fit frame_fits(const struct superblock *sb, struct segment *s)
{
	const uint64_t end = min_u64(atomic_load(&s->size), segment_bytes(s));
	enum frame_status st = FRAME_END;
	struct buf view = BUF_INIT;
	enum fit fit = FIT_UNKNOWN;
	struct frame f;
	uint64_t off;

	if (segment_scan(s, FMT_SEG_HEADER, end, false, &st, &f, &off) || st != FRAME_OK)
		return FIT_UNKNOWN;
	if (s->tags.table && !sb->cipher)
		return FIT_NO;
	if (!s->key) /* the tags of converted segments are elsewhere, and what is sealed is noise */
		return is_plain(&f) == !sb->cipher ? FIT_YES : FIT_NO;
	if (segment_view(s, off, end, &view, &st, &f) == EMDB_OK)
		fit = st == FRAME_OK ? FIT_YES : FIT_NO;
	buf_release(&view);
	/* With another salt nothing opens, whoever has the key. */
	return fit == FIT_NO && s->headless ? FIT_UNKNOWN : fit;
}

/*
 * v: its keys, NULL when it is plain or there are none. copy: it came from elsewhere, so that segments of
 * another store speak against it. Nothing that does is enough.
 */
static emdb_err super_fits(struct repair *r, const struct superblock *sb, struct vault *v,
			   bool copy, bool *ret_fits)
{
	const struct superblock was = r->sb;
	struct buf ids = BUF_INIT;
	enum fit fit = FIT_UNKNOWN;
	struct segment_env env;
	emdb_err err = repair_segments(r, &ids);

	r->sb = *sb;
	env = repair_env(r, r->journal);
	env.vault = v;
	for (size_t i = 0; !err && fit != FIT_YES && i < ids.len / sizeof(uint64_t); i++) {
		struct segment *s = NULL;
		const char *why = NULL;
		enum fit one = copy ? FIT_NO : FIT_UNKNOWN;

		err = segment_open(&env, repair_id_at(&ids, i), false, true, &s, &why);
		if (!err) {
			one = frame_fits(sb, s);
			segment_unref(s);
		}
		if (err == EMDB_ERR_DAMAGED || err == EMDB_ERR_IO)
			err = EMDB_OK;
		if (one != FIT_UNKNOWN)
			fit = one;
	}
	r->sb = was;
	buf_release(&ids);
	*ret_fits = fit != FIT_NO;
	return err;
}

/* The keys of sb, NULL when it is plain. KEY_REQUIRED, WRONG_KEY, CORRUPT, NOT_ENCRYPTED, ... */
static emdb_err unlock(struct repair *r, const struct superblock *sb, struct vault **ret)
{
	if (!sb->cipher)
		return r->o->secret ? EMDB_ERR_NOT_ENCRYPTED : EMDB_OK;
	return r->o->secret ? keyslot_vault(sb, r->o->secret, ret) : EMDB_ERR_KEY_REQUIRED;
}

/* ---- Copies ------------------------------------------------------------------------ */

struct supers {
	struct repair *r;
	int fd;
	emdb_err err; /* NOT_FOUND until there is something better to say */
};

/* Takes the superblock dir/name when it is one of this store. True: there is no need to look on. */
static bool take_super(struct supers *t, int dir, const char *name)
{
	struct vault *v = NULL;
	struct superblock sb;
	bool fits = false;
	emdb_err err = storedir_super_read_as(t->r->io, dir, name, &sb), fit;

	if (err)
		return false;
	err = unlock(t->r, &sb, &v);
	fit = super_fits(t->r, &sb, v, true, &fits);
	if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_NOT_ENCRYPTED)
		fits = false;
	if (!fit && !fits)
		err = EMDB_ERR_NOT_FOUND;
	if (fit)
		err = fit;
	if (err) {
		vault_unref(v);
		t->err = err == EMDB_ERR_NOT_FOUND ? t->err : err;
		return false;
	}
	t->r->sb = sb;
	t->r->vault = v;
	/* Its MAC does not cover these. */
	t->r->sb.frozen_ms = 0;
	t->r->sb.snap_number = 0;
	t->err = EMDB_OK;
	return true;
}

/* io_list callback: a snapshot's superblock is the store's, but for its clock. */
static int super_of_snapshot(void *arg, const char *name)
{
	struct supers *const t = arg;
	bool taken;
	int fd;

	if (name[0] == '.' || storedir_open(t->r->io, t->fd, name, &fd))
		return 0;
	taken = take_super(t, fd, STOREDIR_SUPER);
	(void)io_close(t->r->io, fd);
	return taken ? 1 : 0;
}

/* NOT_FOUND: there is none. */
static emdb_err super_elsewhere(struct repair *r)
{
	struct supers t = { .r = r, .err = EMDB_ERR_NOT_FOUND };

	if (take_super(&t, r->dir, STOREDIR_SUPER_BAK) ||
	    (r->backup != -1 && take_super(&t, r->backup, STOREDIR_SUPER)))
		return EMDB_OK;
	if (storedir_open(r->io, r->dir, STOREDIR_SNAPSHOTS, &t.fd) == EMDB_OK) {
		if (io_list(r->io, t.fd, super_of_snapshot, &t) < 0)
			repair_tell(r, EMDB_DAMAGE_FILE, STOREDIR_SNAPSHOTS ": cannot be listed");
		(void)io_close(r->io, t.fd);
	}
	return t.err;
}

/* ---- All of it ----------------------------------------------------------------------- */

static emdb_err refuse(struct repair *r, emdb_err err)
{
	if (err == EMDB_ERR_KEY_REQUIRED)
		repair_tell(r, EMDB_DAMAGE_FILE, "%s: the store is encrypted: its key is needed",
			    r->path);
	else if (err == EMDB_ERR_WRONG_KEY)
		repair_tell(r, EMDB_DAMAGE_FILE, "%s: the key does not open %s", r->path,
			    r->super_bad ? "any copy of the superblock" : "the store");
	else if (err == EMDB_ERR_NOT_ENCRYPTED)
		repair_tell(r, EMDB_DAMAGE_FILE,
			    "%s: there is a key, but the superblock is that of a plain store",
			    r->path);
	return err;
}

/* Nothing is changed: what was encrypted stays so. */
static emdb_err refuse_plain(struct repair *r)
{
	repair_tell(
		r, EMDB_DAMAGE_FILE,
		"%s: the store is encrypted, and the superblock with its key slots is gone. Copy that of "
		"a snapshot (snapshots/NAME/superblock) or of a backup into the store, or give the "
		"backup to the repair; no key opens the store without one",
		r->path);
	return EMDB_ERR_NOT_STORE;
}

/* sb is plain: is the store? Its manifest says so, too. */
static emdb_err expect_plain(struct repair *r)
{
	struct manifest m = MANIFEST_INIT;
	bool fits = true;
	emdb_err err = super_fits(r, &r->sb, NULL, false, &fits);

	if (!err && fits && manifest_load(r->io, r->dir, &m) == EMDB_OK)
		fits = !(m.head.flags & MANIFEST_MAC);
	manifest_release(&m);
	return !err && !fits ? refuse_plain(r) : err;
}

static emdb_err super_anew(struct repair *r)
{
	emdb_err err = super_from_segments(r);

	if (err == EMDB_ERR_NOT_STORE)
		repair_tell(r, EMDB_DAMAGE_FILE,
			    "%s: no superblock, no copy of one, and no segment to make one from",
			    r->path);
	if (!err)
		err = expect_plain(r);
	if (!err && r->o->secret)
		err = refuse(r, EMDB_ERR_NOT_ENCRYPTED);
	r->super_rebuilt = !err;
	return err;
}

emdb_err repair_find_super(struct repair *r)
{
	emdb_err read = storedir_super_read(r->io, r->dir, &r->sb), err = EMDB_OK;
	struct superblock bak;

	/* A newer version is not damage, unless the copy says that it is none. */
	if (read == EMDB_ERR_VERSION &&
	    storedir_super_read_as(r->io, r->dir, STOREDIR_SUPER_BAK, &bak) == EMDB_OK)
		read = EMDB_ERR_CORRUPT;
	if (read == EMDB_ERR_VERSION || read == EMDB_ERR_NOMEM || read == EMDB_ERR_PERM)
		return read;
	if (!read)
		err = unlock(r, &r->sb, &r->vault);
	if (!read && !err && !r->sb.cipher)
		err = expect_plain(r);
	/* Changed by somebody without the key. */
	if (err == EMDB_ERR_CORRUPT)
		read = err;
	if (!read)
		return refuse(r, err);
	r->super_bad = true;
	repair_tell(r, EMDB_DAMAGE_FILE, STOREDIR_SUPER ": %s",
		    read == EMDB_ERR_NOT_FOUND ? "the file is missing" : emdb_strerror(read));
	err = super_elsewhere(r);
	return err == EMDB_ERR_NOT_FOUND ? super_anew(r) : refuse(r, err);
}
