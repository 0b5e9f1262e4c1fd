/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format_ckpt: encoding and decoding of a checkpoint's blocks and of what is
 * in them.  Layout in format.h.  Pure; every decoder takes hostile bytes.
 *
 * The _put functions write to a cursor that has the room (CKPT_*_MAX); the
 * _get functions return false at the end of the bytes, or when they are not
 * what the format allows, and then set c->err.
 */
#ifndef EMDB_FORMAT_CKPT_H
#define EMDB_FORMAT_CKPT_H

#include "core/format.h"

#define CKPT_BLOCK_MAX    (1024u * 1024u)
#define CKPT_BLOCK_HEADER 24u
#define CKPT_HEAD_SIZE    48u /* without the salt */
#define CKPT_END_SIZE     32u
/* Bytes that one item may need at most; of a run and of extents the part before the list. */
#define CKPT_RUN_MAX    40u
#define CKPT_SLOT_MAX   31u
#define CKPT_OBJECT_MAX 160u
#define CKPT_SPACE_MAX  160u
#define CKPT_PAIR_MAX   30u

enum ckpt_kind {
	CKPT_HEAD = 1,
	CKPT_INDEX = 2,
	CKPT_OBJECTS = 3,
	CKPT_SPACES = 4,
	CKPT_QUEUE = 5,
	CKPT_SEGMENTS = 6,
	CKPT_GONE = 7,
	CKPT_END = 8,
};

struct ckpt_block {
	enum ckpt_kind kind;
	uint32_t index, crc;
	uint64_t number;
	const uint8_t *p; /* its payload */
	size_t n;
};

/* Fills the header of a block, but for the CRC. */
void fmt_ckpt_header(uint8_t *block, uint32_t len, enum ckpt_kind kind, uint32_t index,
		     uint64_t number);
/* Sets the CRC of a block that is complete otherwise, and returns it. */
uint32_t fmt_ckpt_finish(uint8_t *block, uint32_t len);
/* Both. */
uint32_t fmt_ckpt_seal(uint8_t *block, uint32_t len, enum ckpt_kind kind, uint32_t index,
		       uint64_t number);
/* The length that a block's header promises; 0: none that may be. */
uint32_t fmt_ckpt_len(const uint8_t header[CKPT_BLOCK_HEADER]);
/* A whole block of len bytes.  False: CRC or header are off. */
bool fmt_ckpt_open(const uint8_t *block, uint32_t len, struct ckpt_block *ret);
/* The next value of END's CRC over all blocks. */
uint32_t fmt_ckpt_chain(uint32_t chain, uint32_t block_crc);

struct ckpt_head {
	uint8_t uuid[16];
	uint64_t lsn;
	int64_t created_ns;
	bool sealed; /* then there is a salt */
	uint8_t salt[32];
};
void fmt_ckpt_head_put(struct wcur *w, const struct ckpt_head *h);
bool fmt_ckpt_head_get(const struct ckpt_block *b, struct ckpt_head *ret);

struct ckpt_end {
	uint64_t settled, records, namespaces;
	uint32_t blocks, chain;
};
void fmt_ckpt_end_put(struct wcur *w, const struct ckpt_end *e);
bool fmt_ckpt_end_get(const struct ckpt_block *b, struct ckpt_end *ret);

struct ckpt_run {
	uint64_t ns, total, count, first; /* first: hash */
};
void fmt_ckpt_run_put(struct wcur *w, const struct ckpt_run *r);
bool fmt_ckpt_run_get(struct cur *c, struct ckpt_run *ret);

struct ckpt_slot {
	uint64_t hash, ref, id; /* ref with the index's flags */
	uint8_t kind;
};
void fmt_ckpt_slot_put(struct wcur *w, const struct ckpt_slot *s, uint64_t prev_hash);
bool fmt_ckpt_slot_get(struct cur *c, uint64_t prev_hash, struct ckpt_slot *ret);

struct ckpt_object {
	uint64_t id, as_of, size;
	int64_t ctime, mtime, atime, btime, expires_ms;
	uint64_t rdev, inode_ref, touch_lsn;
	uint32_t mode, uid, gid;
	uint64_t extents;
};
void fmt_ckpt_object_put(struct wcur *w, const struct ckpt_object *o);
/* An object, or (id 0) a run of extents of the one before: *ret_n of them in *ret_list. */
bool fmt_ckpt_object_get(struct cur *c, struct ckpt_object *ret, uint64_t *ret_n,
			 struct cur *ret_list);
void fmt_ckpt_extents_put(struct wcur *w, uint64_t n, const void *list, size_t len);

struct ckpt_space {
	uint64_t id, as_of, parent, hash, ref, touch_lsn;
	int64_t ctime, mtime, atime, btime, ttl_default_ms;
	uint32_t mode, uid, gid;
	uint8_t basis;
};
void fmt_ckpt_space_put(struct wcur *w, const struct ckpt_space *s);
bool fmt_ckpt_space_get(struct cur *c, struct ckpt_space *ret);

void fmt_ckpt_queue_put(struct wcur *w, int64_t expires_ms, uint64_t ns, uint64_t hash);
bool fmt_ckpt_queue_get(struct cur *c, int64_t *ret_ms, uint64_t *ret_ns, uint64_t *ret_hash);

void fmt_ckpt_segment_put(struct wcur *w, uint64_t id, uint64_t live);
bool fmt_ckpt_segment_get(struct cur *c, uint64_t *ret_id, uint64_t *ret_live);

void fmt_ckpt_gone_put(struct wcur *w, uint64_t id, bool gone);
bool fmt_ckpt_gone_get(struct cur *c, uint64_t *ret_id, bool *ret_gone);

#endif
