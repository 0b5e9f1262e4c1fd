/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sealed: the frames of an encrypted segment.
 *
 * A frame has the shape of a plain one; each record in it is sealed by itself, so that one can be
 * read without the others, and takes 16 bytes more, the tag:
 *
 *	kind 1..31, SEAL   header, sealed fields and padding, tag
 *	BATCH              header, u32 number of records, and per record its prefix (8 bytes, which
 *	                   says how long it is), sealed fields and padding, tag
 *
 *	key              sub-key of the segment, from its salt and id: crypto.h
 *	nonce            LSN of the frame; in a batch LSN of the record's prefix
 *	associated data  bytes 4..19 of the frame: length, kind, LSN, durable mark; in a batch
 *	                 then the number of records and the prefix
 *
 * So nothing of it can be changed, moved, exchanged or relabelled; the key binds it to the store and
 * the segment. Header, number and prefixes are in clear, the CRC is over what is on disk: frames can
 * be found, copied and checked for damage without a key.
 *
 * A segment that was encrypted after it had been written (convert.h) has its frames where they were,
 * so that every LSN goes on to say where its record is. There is no room for tags in them: they are in a
 * table behind the last frame, one row of 20 bytes per record, ascending: u32 low bits of nonce / 8,
 * tag. Where the table is stands in the segment's header, which may say anything: what is wrong
 * with it is a tag that does not fit.
 *
 * The view of a frame is the same frame with plain text in place of sealed text and zeros in place of
 * tags. A decoder takes them for padding.
 *
 * Pure; src and dst may be untrusted bytes; what lies in a mapping is read under the caller's guard.
 */
#ifndef EMDB_SEALED_H
#define EMDB_SEALED_H

#include "core/crypto.h"
#include "core/format.h"

/* Where the tags of a segment are; table NULL: in the frames. */
struct sealed_tags {
	const uint8_t *table;
	uint32_t count;
};

/* A record as it lies in a segment. */
struct sealed_rec {
	uint64_t place;     /* nonce */
	const uint8_t *src; /* sealed text */
	const uint8_t *tag;
	uint32_t n; /* bytes of it, without the tag */
	uint8_t kind, ad_len;
	uint8_t ad[FMT_FRAME_HEADER - 4 + 4 + FMT_BATCH_PREFIX];
};

/* The record of a frame that is no batch. False: too short for one. */
bool sealed_single(const struct frame *f, const struct sealed_tags *t, struct sealed_rec *ret);
/* The record whose prefix is at bytes behind the begin of a batch f. False: there is none. */
bool sealed_in_batch(const struct frame *f, const struct sealed_tags *t, uint32_t at,
		     struct sealed_rec *ret);
/* Opens it into r->n bytes at dst. False: it does not authenticate. */
bool sealed_rec_open(const struct seal_key *k, const struct sealed_rec *r, uint8_t *dst);

/* The view of f into f->len bytes at dst. False: something in it does not authenticate. */
bool sealed_view(const struct seal_key *k, const struct sealed_tags *t, const struct frame *f,
		 uint8_t *dst);
/*
 * The reverse, in place: seals a view that our own code has made. The header must be complete but
 * for the CRC.
 */
void sealed_close(const struct seal_key *k, uint8_t *p, uint32_t len);
/* The same of a frame without room for tags: their rows are appended to table. Only -ENOMEM. */
int sealed_close_apart(const struct seal_key *k, uint8_t *p, uint32_t len,
		       struct buf *table) EMDB_MUST_CHECK;

#endif
