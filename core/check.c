/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb_check: opens a store read-only, going on behind what is damaged, and
 * tells of every damaged place, then of everything that suffers from it.
 */
#include "core/check.h"

#include <inttypes.h>
#include <stdio.h>

void check_tell(const struct damage *d, void (*found)(void *ctx, const struct emdb_detail *detail),
		void *ctx, struct emdb_check_report *report)
{
	struct emdb_detail detail;

	for (size_t i = 0; i < d->places.len / sizeof(struct damage_place); i++) {
		const struct damage_place *const p =
			(const struct damage_place *)(const void *)d->places.data + i;

		detail = (struct emdb_detail){ .segment = p->segment, .offset = p->offset };
		if (p->segment == UINT64_MAX)
			detail.damage = EMDB_DAMAGE_FILE;
		(void)snprintf(detail.text, sizeof(detail.text), "%s", p->text);
		if (found)
			found(ctx, &detail);
	}
	for (size_t i = 0; i < damage_losses(d); i++) {
		damage_tell(d, damage_loss(d, i), &detail);
		report->lost_entries += detail.damage != EMDB_DAMAGE_OLDER;
		report->doubtful_entries += detail.damage == EMDB_DAMAGE_OLDER;
		if (found)
			found(ctx, &detail);
	}
	if (d->unknown && found) {
		detail = (struct emdb_detail){ .segment = UINT64_MAX,
					       .damage = EMDB_DAMAGE_UNKNOWN,
					       .len = d->unknown };
		(void)snprintf(detail.text, sizeof(detail.text),
			       "%" PRIu64
			       " bytes of changes since the last checkpoint are lost: what they "
			       "changed is as it was before, what they removed may be back",
			       d->unknown);
		found(ctx, &detail);
	}
	report->bad_frames = d->place_count;
	report->lost_bytes = d->bytes;
	report->unknown_bytes = d->unknown;
}

emdb_err emdb_check_secret(const char *path, const struct emdb_secret *secret,
			   void (*found)(void *ctx, const struct emdb_detail *detail), void *ctx,
			   struct emdb_check_report *ret_report)
{
	struct emdb_detail detail;
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_READ_ONLY | EMDB_OPEN_SALVAGE,
					   .sweep_interval_ms = -1,
					   .secret = secret,
					   .detail = &detail };
	struct emdb_check_report report = { .frames = 0 };
	struct damage d;
	const struct salvage s = { .damage = &d, .lockfd = -1 };
	emdb_db *db;
	emdb_err err;

	damage_init(&d);
	err = db_open_salvage(path, &opts, &s, &db);
	if (err) {
		if (found && detail.text[0])
			found(ctx, &detail);
		damage_release(&d);
		return err;
	}
	err = damage_analyse(&d);
	report.frames = db->replayed + d.frames;
	report.records = db->replayed_records + d.records;
	report.bytes = db->replayed_bytes + d.good_bytes;
	if (!err)
		check_tell(&d, found, ctx, &report);
	if (emdb_close(db) && !err)
		err = EMDB_ERR_IO;
	damage_release(&d);
	if (err)
		return err;
	*ret_report = report;
	return report.bad_frames || report.lost_entries || report.doubtful_entries
		       ? EMDB_ERR_CORRUPT
		       : EMDB_OK;
}

emdb_err emdb_check(const char *path, void (*found)(void *ctx, const struct emdb_detail *detail),
		    void *ctx, struct emdb_check_report *ret_report)
{
	return emdb_check_secret(path, NULL, found, ctx, ret_report);
}
