/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest: the root of truth of a store's journal, in memory and as the file STORE/manifest.
 * Which segments exist, how long the sealed ones are, which gaps they have, up to where everything
 * is durable, which checkpoint counts. Layout in format.h.
 *
 * The manifest of an encrypted store has a MAC, so that nobody without a key can shorten or drop
 * segments or list frames as gaps:
 *
 *	MAC = BLAKE2b-256(key: data key, message: "emdbmani", the file with generation, next segment
 *		id, checkpoints, MAC and CRC zero)
 *
 * What is left out is what restoring and rolling back change, which need no key; none of it can
 * make anything disappear.
 *
 * Ownership: plain values, no I/O state; a struct manifest owns its two arrays.
 * Thread-safety: none; the journal changes a copy and swaps it in under its manifest lock.
 *
 * Calling sequence: MANIFEST_INIT; manifest_load or fill in head; changes; manifest_store;
 * manifest_release.
 */
#ifndef EMDB_MANIFEST_H
#define EMDB_MANIFEST_H

#include "core/crypto.h"
#include "core/emdb.h"
#include "core/format.h"
#include "core/io.h"

#define MANIFEST_NAME "manifest"

struct manifest {
	struct manifest_head head; /* nsegs and ngaps count the arrays below */
	struct manifest_seg *segs; /* ascending by id */
	struct manifest_gap *gaps; /* ascending by LSN */
	size_t segs_cap, gaps_cap;
};

#define MANIFEST_INIT                 \
	{                             \
		.head = {.nsegs = 0 } \
	}

void manifest_release(struct manifest *m);

/* *ret is released first. Only NOMEM. */
EMDB_CHECKED emdb_err manifest_copy(const struct manifest *m, struct manifest *ret);

/*
 * Reads DIRFD/manifest. NOT_FOUND: there is none. CORRUPT, VERSION: it does not check out. Also IO,
 * NOMEM, PERM. *m must be released or fresh; untouched on failure.
 */
EMDB_CHECKED emdb_err manifest_load(struct emdb_io *io, int dirfd, struct manifest *m);

/* The same of its n bytes. CORRUPT, VERSION, NOMEM. */
EMDB_CHECKED emdb_err manifest_decode(const uint8_t *p, size_t n, struct manifest *m);

/*
 * Counts the generation up and replaces DIRFD/manifest durably. On failure *ret_applied (may be
 * NULL) says whether the new content may be what a later open finds: false means that the old one
 * is there for certain, true that nobody knows which of the two.
 */
EMDB_CHECKED emdb_err manifest_store(struct manifest *m, struct emdb_io *io, int dirfd,
				     bool *ret_applied);

/* The last thing before it is stored: sets the MAC. v NULL: not encrypted, no MAC. Only NOMEM. */
EMDB_CHECKED emdb_err manifest_mac_set(struct manifest *m, const struct vault *v);
/* CORRUPT: the MAC is missing or wrong, or there is one without v. NOMEM. */
EMDB_CHECKED emdb_err manifest_mac_check(const struct manifest *m, const struct vault *v);

/* NULL when not listed. The pointer dies with the next change. */
struct manifest_seg *manifest_find(const struct manifest *m, uint64_t id);
/* id must not be listed yet. Only NOMEM. */
EMDB_CHECKED emdb_err manifest_add(struct manifest *m, uint64_t id, uint64_t len, uint32_t flags);
/* Out of the list, with the gaps that lie in it; nothing when not listed. */
void manifest_remove(struct manifest *m, uint64_t id, uint32_t segment_shift);

/* Forgets the gaps that begin in a segment. */
void manifest_gaps_remove(struct manifest *m, uint64_t id, uint32_t segment_shift);
/*
 * Lists a gap in place of those that it overlaps: a walk has found where it begins and ends, so
 * they are wrong. Only NOMEM.
 */
EMDB_CHECKED emdb_err manifest_gap_add(struct manifest *m, uint64_t lsn, uint64_t len);
/* Length of the gap that begins at lsn; 0: none. */
uint64_t manifest_gap_at(const struct manifest *m, uint64_t lsn);

/* The error code for a negative errno of io_*(). */
emdb_err err_of_io(int err);

#endif
