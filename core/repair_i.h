/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repair_i: the inside of emdb_repair(), for repair.c (the order of things), repair_super.c
 * (the superblock), repair_files.c (other files: what can be known of a store without its manifest, keeping
 * the old, bringing the new) and
 * repair_fix.c (records: what is lost is said so in the journal).
 */
#ifndef EMDB_REPAIR_I_H
#define EMDB_REPAIR_I_H

#include "core/check.h"
#include "core/manifest.h"
#include "core/segment_i.h"

#define REPAIR_LOST "lost"

struct repair {
	struct emdb_io *io;
	const struct emdb_repair_options *o;
	const char *path;
	int dir, lock, journal; /* -1: not open */
	int backup, backup_journal;
	struct superblock sb;
	struct vault *vault; /* of sb; NULL: it is plain */
	struct manifest m;
	bool super_bad, super_rebuilt, manifest_bad;
	struct buf bad;   /* ids (u64) of listed segments that do not check out, ascending */
	struct buf heads; /* of them: those whose header does not */
	struct emdb_repair_report report;
};

/* Tells o->found and o->detail of something that is no place in the journal. */
void repair_tell(struct repair *r, enum emdb_damage damage, const char *fmt, ...) EMDB_PRINTF(3, 4);

/* ---- repair_super.c ---- */

/*
 * Fills in sb and vault, from whatever holds them still. NOT_STORE: nothing does. Also KEY_REQUIRED,
 * WRONG_KEY, NOT_ENCRYPTED.
 */
emdb_err repair_find_super(struct repair *r);

/* ---- repair_files.c ---- */

struct segment_env repair_env(const struct repair *r, int dirfd);
/* NOT_FOUND, IO; CORRUPT: no header. */
emdb_err repair_head(struct emdb_io *io, int dirfd, uint64_t id, struct seg_header *ret);
/* The numbers (u64) of the segment files that are there, ascending; released by the caller. */
emdb_err repair_segments(struct repair *r, struct buf *ret);
uint64_t repair_id_at(const struct buf *ids, size_t i);
/* Fills in m, from the file or from the segments. */
emdb_err repair_find_manifest(struct repair *r);
/* Fills in heads. */
emdb_err repair_find_heads(struct repair *r);
/* Links or copies everything that will be replaced or given up into STORE/lost/N; durable. */
emdb_err repair_keep(struct repair *r);
/* Segments whose header is damaged get a good one; a superblock that is not there comes back. */
emdb_err repair_put_back(struct repair *r);
/* Damaged segments that the backup has intact are replaced; in a dry run they are only counted. */
emdb_err repair_from_backup(struct repair *r);
/*
 * The directory `to` is empty, or has what a call left that did not come to its end, and which goes;
 * it will have that until repair_place_end().  EXISTS: it has something else.  INVAL: it
 * lies in a store.
 */
emdb_err repair_place_begin(struct repair *r, int to);
emdb_err repair_place_end(struct repair *r, int to);
/* Copies the store in r->dir into the empty directory `to`, zeros for what cannot be read. */
emdb_err repair_copy_store(struct repair *r, int to);

bool repair_has_id(const struct buf *ids, uint64_t id);

/* ---- repair_fix.c ---- */

/* Writes the records that make what is lost lost for good. d is analysed, its store started. */
emdb_err repair_fix(struct damage *d, struct emdb_repair_report *report);

#endif
