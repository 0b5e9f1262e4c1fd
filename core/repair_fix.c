/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is lost, said in the journal, so that every later open comes to the same:
 *
 *	lost value, key known         DEL: no older state can come back
 *	lost value, key unknown       nothing in the journal hashes to it, so nothing can come back: it
 *	                              leaves the index
 *	lost name, object known       the same name again when it is known, else one in lost+found
 *	older state                   moves to lost+found: nothing wrong stands under its name
 *	lost range of a large value   CLONE of REF_LOST: reading it stays an error
 *	lost metadata                 INODE with what memory has of it
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/repair_i.h"

#define LOST_FOUND "lost+found"
/* Bytes of a key that its name in lost+found keeps. */
#define NAME_KEEP 120u

struct fix {
	struct damage *d;
	emdb_db *db;
	uint64_t found; /* namespace lost+found; 0: not made yet */
	struct emdb_repair_report *report;
};

/* Makes lost+found, beside a file of that name if need be. */
static emdb_err found_open(struct fix *f)
{
	emdb_err err = EMDB_OK;

	for (unsigned int i = 0; !f->found && !err && i < 100; i++) {
		char name[sizeof(LOST_FOUND) + 8];
		const int n = i ? snprintf(name, sizeof(name), LOST_FOUND ".%u", i)
				: snprintf(name, sizeof(name), LOST_FOUND);

		err = emdb_ns_open(f->db, EMDB_ROOT, name, (size_t)n, &f->found);
		if (err == EMDB_ERR_NOT_FOUND)
			err = emdb_ns_create(f->db, EMDB_ROOT, name, (size_t)n, &f->found);
		if (err == EMDB_ERR_NOT_NS || is_loss(err))
			err = EMDB_OK;
	}
	return !err && !f->found ? EMDB_ERR_EXISTS : err;
}

static size_t found_name(const struct fix *f, const char *what, uint64_t number, const uint8_t *key,
			 size_t key_len, char buf[static NAME_KEEP + 64])
{
	size_t n = min_size(key_len, NAME_KEEP);

	(void)f;
	for (size_t i = 0; i < n; i++)
		buf[i] = key[i] < 0x20 || key[i] == '/' || key[i] == 0x7f ? '_' : (char)key[i];
	return n + (size_t)snprintf(buf + n, 64, "%s%s%" PRIu64, n ? "." : "", what, number);
}

/* The slot leaves the index; nothing is written. structure is held exclusively. */
static emdb_err forget(struct fix *f, const struct loss *l)
{
	struct ns *const ns = ns_any_pinned(f->db, l->ns);
	struct entry e;

	if (!ns)
		return EMDB_OK;
	entry_lost_pinned(f->db, ns, l->hash, l->slot, &e);
	return apply_forget(f->db, ns, &e);
}

/* ---- Lost entries ------------------------------------------------------------ */

static emdb_err fix_value(struct fix *f, const struct loss *l)
{
	const struct rec r = { .kind = REC_DEL,
			       .mask = REC_F_NS | REC_F_KEY | REC_F_TIME,
			       .ns = l->ns,
			       .key = loss_key(f->d, l),
			       .key_len = l->name_len,
			       .time_ns = db_now_ns(f->db) };
	struct rec del = r;

	if (!l->named)
		return forget(f, l);
	return commit_rec(f->db, &del, NULL, 0, JOURNAL_RESERVE, false, NULL, NULL);
}

/* Its own place in what names it, or one in lost+found. */
static emdb_err choose_name(struct fix *f, const struct loss *l, char buf[static NAME_KEEP + 64],
			    struct rec *r)
{
	emdb_err err = EMDB_OK;

	r->mask |= REC_F_NS | REC_F_KEY | REC_F_ID;
	r->id = l->id;
	if (l->kind == LOSS_ENTRY && l->named) {
		r->ns = l->ns;
		r->key = loss_key(f->d, l);
		r->key_len = l->name_len;
		f->report->renamed++;
		return EMDB_OK;
	}
	if (l->kind == LOSS_ENTRY)
		err = forget(f, l);
	r->ns = f->found;
	r->key = (const uint8_t *)buf;
	r->key_len =
		found_name(f, l->rec_kind == REC_NS ? "namespace-" : "file-", l->id, NULL, 0, buf);
	f->report->adrift++;
	return err;
}

static emdb_err fix_space(struct fix *f, const struct loss *l)
{
	struct ns *const ns = ns_any_pinned(f->db, l->id);
	char buf[NAME_KEEP + 64];
	struct rec r;
	emdb_err err;

	if (!ns)
		return forget(f, l);
	err = rec_of_ns(f->db, ns, db_now_ns(f->db), &r);
	if (!err && !atomic_load(&ns->ref)) {
		r.uid = f->db->sb.uid;
		r.gid = f->db->sb.gid;
	}
	if (!err)
		err = choose_name(f, l, buf, &r);
	return err ? err : commit_rec(f->db, &r, NULL, 0, JOURNAL_RESERVE, false, NULL, NULL);
}

static emdb_err fix_link(struct fix *f, const struct loss *l)
{
	struct rec r = { .kind = REC_LINK,
			 .mask = REC_F_TIME | REC_F_ORIGIN,
			 .time_ns = db_now_ns(f->db),
			 .origin = l->lsn };
	char buf[NAME_KEEP + 64];
	struct obj_view v;
	emdb_err err;

	if (!l->id || !objtab_get_pinned(f->db, l->id, &v) || !v.big)
		return l->kind == LOSS_ENTRY ? forget(f, l) : EMDB_OK;
	err = choose_name(f, l, buf, &r);
	if (!err)
		err = commit_rec(f->db, &r, NULL, 0, JOURNAL_RESERVE, false, NULL, NULL);
	/* The stand-in that kept it. */
	if (!err && l->kind == LOSS_ADRIFT_BIG)
		big_link_remove(v.big, 0, l->id);
	return err;
}

/* ---- Objects ------------------------------------------------------------------- */

static emdb_err fix_range(struct fix *f, const struct loss *l)
{
	uint64_t off = l->off, left = l->len;
	struct obj_view v;
	emdb_err err = EMDB_OK;

	if (l->lsn == REF_LOST || !objtab_get_pinned(f->db, l->id, &v) || !v.big)
		return EMDB_OK; /* said already */
	while (!err && left) {
		const struct rec_extent x = { off, min_u64(left, EXTENT_LEN_MAX / 2), REF_LOST, 0 };
		uint8_t enc[FMT_EXTENT_BYTES_MAX];
		struct rec r = { .kind = REC_CLONE,
				 .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF |
					 REC_F_LEN | REC_F_EXTENTS | REC_F_ORIGIN,
				 .time_ns = db_now_ns(f->db),
				 .id = l->id,
				 .off = off,
				 .len = x.len,
				 .origin = l->lsn,
				 .extent_count = 1,
				 .extents = enc };

		mutex_lock(&v.big->lock);
		r.size = v.big->size;
		mutex_unlock(&v.big->lock);
		r.extents_len = fmt_extent_encode(&x, off, enc);
		err = commit_rec(f->db, &r, NULL, 0, JOURNAL_RESERVE, true, NULL, NULL);
		off += x.len;
		left -= x.len;
	}
	f->report->lost_ranges++;
	return err;
}

static emdb_err fix_meta(struct fix *f, const struct loss *l)
{
	struct obj_view v;
	struct rec r;
	emdb_err err;

	if (!objtab_get_pinned(f->db, l->id, &v) || !v.big)
		return EMDB_OK;
	err = rec_of_big(f->db, l->id, v.big, db_now_ns(f->db), &r);
	if (err)
		return err;
	if (!r.mode) {
		r.mode = STORE_FILE_MODE;
		r.uid = f->db->sb.uid;
		r.gid = f->db->sb.gid;
		r.mtime_ns = r.atime_ns = r.btime_ns = r.time_ns;
	}
	f->report->lost_meta++;
	return commit_rec(f->db, &r, NULL, 0, JOURNAL_RESERVE, true, NULL, NULL);
}

/* ---- Older states ---------------------------------------------------------------- */

/* Moves ns/key to lost+found. */
static emdb_err set_aside(struct fix *f, uint64_t ns, const uint8_t *key, size_t len, uint64_t lsn)
{
	char buf[NAME_KEEP + 64];
	const size_t n = found_name(f, "older-", lsn, key, len, buf);
	emdb_err err;

	if (ns == f->found)
		return EMDB_OK;
	err = emdb_node_rename(f->db, ns, key, len, f->found, buf, n, EMDB_RENAME_NOREPLACE);
	if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_LOOP || err == EMDB_ERR_EXISTS)
		return EMDB_OK;
	f->report->older += !err;
	return err;
}

static emdb_err fix_doubt(struct fix *f, const struct loss *l)
{
	struct emdb_attr attr;
	emdb_err err;

	if (!l->older) {
		f->report->lost_entries++;
		return EMDB_OK;
	}
	/* A namespace whose own attributes changed is no older state of what is in it. */
	err = emdb_node_lookup(f->db, l->ns, loss_key(f->d, l), l->name_len, &attr);
	if (err)
		return err == EMDB_ERR_NOT_FOUND || is_loss(err) ? EMDB_OK : err;
	emdb_node_forget(f->db, attr.id, 1);
	if (S_ISDIR(attr.mode) && l->rec_kind == REC_NS)
		return EMDB_OK;
	return set_aside(f, l->ns, loss_key(f->d, l), l->name_len, l->lsn);
}

/* The i-th name of an object; its key copied, free it. */
static emdb_err name_of(struct fix *f, uint64_t id, struct buf *key, uint64_t *ret_ns)
{
	const unsigned int pin = epoch_pin(&f->db->epoch);
	const struct ns *const ns = ns_any_pinned(f->db, id);
	struct obj_view v;
	struct entry e;
	struct rec r;
	emdb_err err = EMDB_ERR_NOT_FOUND;

	buf_reset(key);
	if (ns && ns != f->db->root) {
		err = journal_rec_pinned(f->db->j, atomic_load(&ns->ref), &r, NULL);
		*ret_ns = atomic_load(&ns->parent);
	} else if (objtab_get_pinned(f->db, id, &v) && v.big) {
		for (uint32_t i = 0; err; i++) {
			mutex_lock(&v.big->lock);
			if (i >= v.big->nlinks)
				i = UINT32_MAX;
			mutex_unlock(&v.big->lock);
			if (i == UINT32_MAX)
				break;
			err = big_entry_pinned(f->db, id, v.big, i, &e);
			if (!err && e.rec.ns == f->found)
				err = EMDB_ERR_NOT_FOUND;
			r = e.rec;
			*ret_ns = r.ns;
		}
	}
	if (!err && buf_append(key, r.key, r.key_len))
		err = EMDB_ERR_NOMEM;
	epoch_unpin(&f->db->epoch, pin);
	return err;
}

static emdb_err fix_state(struct fix *f, const struct loss *l)
{
	struct buf key = BUF_INIT;
	uint64_t ns = 0;
	emdb_err err = EMDB_OK;

	/* Each name that goes to lost+found is not found again. */
	for (uint32_t i = 0; !err && i < EMDB_LINK_MAX; i++) {
		err = name_of(f, l->id, &key, &ns);
		if (!err && ns != f->found)
			err = set_aside(f, ns, key.data, key.len, l->lsn + i);
		if (!err && l->rec_kind == REC_CLEAR)
			break;
	}
	buf_release(&key);
	return err == EMDB_ERR_NOT_FOUND || is_loss(err) ? EMDB_OK : err;
}

/* ---- All of it --------------------------------------------------------------------- */

static emdb_err fix_locked(struct fix *f, const struct loss *l)
{
	switch (l->kind) {
	case LOSS_ENTRY:
		if (l->rec_kind == REC_PUT) {
			f->report->lost_entries++;
			return fix_value(f, l);
		}
		return l->rec_kind == REC_NS ? fix_space(f, l) : fix_link(f, l);
	case LOSS_ADRIFT_NS:
		return fix_space(f, l);
	case LOSS_ADRIFT_BIG:
		return fix_link(f, l);
	case LOSS_RANGE:
		return fix_range(f, l);
	case LOSS_META:
		return fix_meta(f, l);
	case LOSS_DOUBT:
	case LOSS_STATE:
		break;
	}
	return EMDB_OK;
}

emdb_err repair_fix(struct damage *d, struct emdb_repair_report *report)
{
	struct fix f = { .d = d, .db = d->db, .report = report };
	emdb_err err = damage_losses(d) ? found_open(&f) : EMDB_OK;

	for (size_t i = 0; !err && i < damage_losses(d); i++) {
		const struct loss *const l = damage_loss(d, i);
		struct hold h;

		if (l->kind == LOSS_DOUBT || l->kind == LOSS_STATE)
			continue;
		hold_begin(&h, d->db, true);
		err = fix_locked(&f, l);
		hold_end(&h);
	}
	for (size_t i = 0; !err && i < damage_losses(d); i++) {
		const struct loss *const l = damage_loss(d, i);

		if (l->kind == LOSS_DOUBT)
			err = fix_doubt(&f, l);
		else if (l->kind == LOSS_STATE)
			err = fix_state(&f, l);
	}
	/* Nothing came of it. */
	if (!err && f.found)
		(void)!emdb_ns_drop(d->db, EMDB_ROOT, LOST_FOUND, strlen(LOST_FOUND), false);
	return err;
}
