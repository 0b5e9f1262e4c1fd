/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb_check: opens a store read-only, skipping what is damaged, and tells of
 * every damaged place, then of every entry that suffers from it.
 */
#include "core/store.h"

#include <inttypes.h>
#include <stdio.h>

struct check {
	emdb_db *db;
	uint64_t upto; /* walking what a checkpoint kept from being replayed: its end; else 0 */
	void (*found)(void *ctx, const struct emdb_detail *detail);
	void *ctx;
	struct emdb_check_report report;
};

static void count_place(void *ctx, const struct emdb_detail *detail)
{
	struct check *const c = ctx;

	/* Replay has told of what lies behind the checkpoint. */
	if (c->upto && (detail->segment << c->db->sb.segment_shift) + detail->offset >= c->upto)
		return;
	c->report.bad_frames++;
	if (c->found)
		c->found(c->ctx, detail);
}

/* A name for people: control bytes and quotes escaped, long ones cut. */
static void printable(const uint8_t *key, size_t len, char *out, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < len && at + 8 < size; i++) {
		if (key[i] < 0x20 || key[i] == 0x7f || key[i] == '"' || key[i] == '\\')
			at += (size_t)snprintf(out + at, size - at, "\\x%02x", key[i]);
		else
			out[at++] = (char)key[i];
	}
	out[at] = 0;
}

static void complain(struct check *c, uint64_t lsn, const struct rec *r, const char *what)
{
	struct emdb_detail d;
	char name[300] = "";

	d.segment = lsn >> c->db->sb.segment_shift;
	d.offset = lsn & ((UINT64_C(1) << c->db->sb.segment_shift) - 1);
	if (r)
		printable(r->key, r->key_len, name, sizeof(name));
	(void)snprintf(d.text, sizeof(d.text),
		       "journal/%016" PRIx64 ".seg offset %" PRIu64 ": %s%s%s%s", d.segment,
		       d.offset, what, r ? " \"" : "", name, r ? "\"" : "");
	c->report.bad_frames++;
	if (c->found)
		c->found(c->ctx, &d);
}

/* Every piece of a big object must be there. */
static void check_big(struct check *c, const struct entry *e)
{
	struct extent_cursor cur = { 0, 0 };
	struct obj_view v;
	struct extent x;

	if (!objtab_get_pinned(c->db, e->id, &v) || !v.big) {
		complain(c, e->ref, &e->rec, "metadata lost of entry");
		return;
	}
	mutex_lock(&v.big->lock);
	while (extmap_next(&v.big->map, &cur, &x)) {
		if (journal_copy_pinned(c->db->j, x.ref, x.skip, x.len, NULL)) {
			complain(c, ref_lsn(x.ref), &e->rec, "contents lost of entry");
			c->report.lost_bytes += x.len;
		}
	}
	mutex_unlock(&v.big->lock);
}

static void check_ns(struct check *c, const struct ns *ns)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		/* Of an encrypted store what is read stays in memory as long as the pin. */
		const unsigned int pin = epoch_pin(&c->db->epoch);

		for (size_t i = 0; i < n; i++) {
			struct entry e;

			if (entry_read_pinned(c->db, slots[i].hash, slots[i].value, true, &e))
				complain(c, ref_lsn(slots[i].value), NULL, "entry unreadable");
			else if (e.rec.kind == REC_LINK)
				check_big(c, &e);
		}
		epoch_unpin(&c->db->epoch, pin);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
}

/* Nobody else has this store, and nothing in it changes: namespaces need no pin. */
static void check_entries(struct check *c)
{
	emdb_db *const db = c->db;
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	check_ns(c, db->root);
	while ((n = hidx_walk_pinned(&db->nstab, hash, tie, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			check_ns(c, (const struct ns *)(uintptr_t)slots[i].value);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
}

static emdb_err count_frame(void *ctx, struct segment *seg, const struct frame *f)
{
	struct check *const c = ctx;

	(void)seg;
	if (f->lsn >= c->upto)
		return EMDB_OK;
	c->report.frames++;
	c->report.records += f->kind == FRAME_BATCH ? get_u32(f->p + FMT_FRAME_HEADER) : 1;
	c->report.bytes += f->len;
	return EMDB_OK;
}

/* Opening by a checkpoint leaves unread what the checkpoint stands for. */
static emdb_err check_frames(struct check *c)
{
	emdb_db *const db = c->db;
	struct journal_seg_info *segs;
	emdb_err err = EMDB_OK;
	size_t n;

	c->upto = db->replay_from;
	if (!c->upto)
		return EMDB_OK;
	n = journal_segments(db->j, NULL, 0);
	segs = base_calloc(n, sizeof(*segs));
	if (!segs)
		return EMDB_ERR_NOMEM;
	n = min_size(journal_segments(db->j, segs, n), n);
	for (size_t i = 0; !err && i < n; i++)
		if (segs[i].id << db->sb.segment_shift < c->upto)
			err = journal_check_segment(db->j, segs[i].id, count_frame, c);
	base_free(segs);
	c->upto = 0;
	return err;
}

emdb_err emdb_check_secret(const char *path, const struct emdb_secret *secret,
			   void (*found)(void *ctx, const struct emdb_detail *detail), void *ctx,
			   struct emdb_check_report *ret_report)
{
	struct check c = { .found = found, .ctx = ctx };
	struct emdb_detail detail;
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_READ_ONLY | EMDB_OPEN_SALVAGE,
					   .verify = EMDB_VERIFY_ALWAYS,
					   .sweep_interval_ms = -1,
					   .secret = secret,
					   .detail = &detail };
	emdb_err err;

	err = db_open_found(path, &opts, count_place, &c, &c.db);
	if (err) {
		if (found && detail.text[0])
			found(ctx, &detail);
		return err;
	}
	c.report.frames = c.db->replayed;
	c.report.records = c.db->replayed_records;
	c.report.bytes = c.db->replayed_bytes;
	c.report.lost_bytes += c.db->skipped_bytes;
	err = check_frames(&c);
	check_entries(&c);
	if (err) {
		(void)emdb_close(c.db);
		return err;
	}
	err = emdb_close(c.db);
	if (err)
		return err;
	*ret_report = c.report;
	return c.report.bad_frames ? EMDB_ERR_CORRUPT : EMDB_OK;
}

emdb_err emdb_check(const char *path, void (*found)(void *ctx, const struct emdb_detail *detail),
		    void *ctx, struct emdb_check_report *ret_report)
{
	return emdb_check_secret(path, NULL, found, ctx, ret_report);
}
