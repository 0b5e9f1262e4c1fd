/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The on-disk format: encoding and decoding of every structure in a store.
 * Pure functions over memory; no allocation, no I/O.  Every decoder takes
 * hostile bytes.
 *
 * All integers are little-endian.  "varint" is unsigned LEB128, shortest form.
 * CRC means CRC-32C.  A reserved byte is zero and must be zero on reading.
 *
 * LSN.  A position in the journal: segment_id << segment_shift | offset in the
 * segment file.  Segment ids start at 1, so no LSN of a frame is 0.
 *
 * STORE/superblock, 4096 bytes, replaced atomically:
 *   off size
 *     0    8  "EMDBSUPR"
 *     8    4  format version, 1
 *    12    4  segment_shift, 20..30: segments have 1 << shift bytes
 *    16    8  compatible feature bits: unknown ones are ignored
 *    24    8  incompatible feature bits: unknown ones refuse to open.  Bit 0: the CRCs of
 *            frames are seeded; bit 1: the store is encrypted; bit 2: the files in
 *            convert/ take the place of the others, see convert.h; bit 3: records
 *            may have up to 23 bytes of padding
 *    32   16  uuid
 *    48    4  cipher, 0: none, 1: AES-256-GCM, 2: ChaCha20-Poly1305; see crypto.h
 *    52    4  uid of the creator: owner of entries without META
 *    56    8  created, ns since 1970
 *    64   32  hash seed; of an encrypted store zeros: it is in the key slots
 *    96    4  gid of the creator
 *   100    4  reserved
 *   104    8  frozen, ms since 1970: the clock of a snapshot, whose ns fit in 63 bits; 0: not one
 *   112    8  number of the snapshot; 0 when frozen is 0
 *   120    8  reserved
 *   128   32  of an encrypted store: MAC of the superblock, see keyslot.h
 *   160  864  reserved
 *  1024 2048  8 key slots of 256 bytes, all zero when free or not encrypted:
 *              0   4  1: passphrase, 2: raw key, 3: recovery key
 *              4   4  Argon2id: memory in KiB; 0 unless a passphrase
 *              8   4  Argon2id: passes; 12: 4, lanes
 *             16   8  created, ms since 1970
 *             24   8  reserved
 *             32  32  salt
 *             64  32  label, padded with zeros, at least one
 *             96  24  nonce
 *            120  80  data key, hash seed (sealed), tag
 *            200  56  reserved
 *  3072 1020  reserved
 *  4092    4  CRC of bytes 0..4091
 *
 * STORE/journal/%016x.seg, the name is the segment id.  Bytes 0..255:
 *     0    8  "EMDBSEG\1"
 *     8    4  format version, 1
 *    12    4  segment_shift
 *    16   16  uuid of the store
 *    32    8  segment id
 *    40    8  created, ns since 1970
 *    48   16  boot id of the machine that wrote it
 *    64   32  salt: random
 *    96    8  where the tags are, 0: in the frames; see sealed.h
 *   104    4  number of tags there
 *   108  144  reserved
 *   252    4  CRC of bytes 0..251
 * Frames follow from byte 256 on, each at a multiple of 8, without gaps.
 *
 * Frame:
 *     0    4  CRC of bytes 4..length-1; where CRCs are seeded, of the segment's salt
 *             followed by these bytes, so that nobody can store a value that
 *             passes for a frame of the place where it comes to lie
 *     4    4  bits 0..23: length / 8, header and padding included
 *             bits 24..31: kind
 *     8    8  its own LSN
 *    16    4  (LSN - durable) / 8, where everything below `durable` was known
 *             to be on stable storage when this frame was reserved;
 *             0xffffffff: that or more
 *    20       kind 1..31: one record's fields, zero padding (< 8 bytes).
 *             kind 64, BATCH: u32 number of records; from byte 24 on each
 *             record, at a multiple of 8: u32 like byte 4 (length / 8 with
 *             this prefix and padding, kind 1..31), u32 distance / 8 back to
 *             the frame's start, fields, zero padding.  A batch is atomic.
 *             kind 65, SEAL: nothing; the journal goes on in the next segment.
 *             In an encrypted store each record is sealed: see sealed.h
 *
 * A ref names a record: the LSN of its frame, or of its prefix inside a batch
 * with bit 0 set.  The ref 8, of no record, stands in extents for bytes that damage took: reading
 * them is an error.  In the index bit 1 is set for entries with a deadline and bit
 * 2 for entries that are a namespace or a LINK.
 *
 * Record fields: a varint mask of the bits REC_F_* and the fields whose bit is
 * set, in ascending order of bits, but VALUE last:
 *   NS       varint: namespace of the entry
 *   KEY      varint length, bytes
 *   TIME     8 bytes, ns since 1970: when; of an object also its ctime
 *   VALUE    varint length, bytes
 *   META     varint mode, varint uid, varint gid
 *   TIMES    zigzag varints mtime, atime, btime, each minus TIME
 *   ID       varint: object id; without it a creating record's id is the
 *            record's LSN / 8
 *   EXPIRES  varint: deadline, ms since 1970
 *   XATTRS   varint length, then per attribute: u8 name length (not 0), name,
 *            varint value length, value
 *   SIZE     varint: size of the object afterwards
 *   OFF      varint: offset in the object
 *   LEN      varint: length of a range
 *   ORIGIN   varint: LSN of the first record that this one is a copy of; it
 *            changes no times
 *   RDEV     varint: device number
 *   TTLDEF   varint: default lifetime in ms of new entries, u8: basis
 *   EXTENTS  varint count, varint length of what follows, then per extent:
 *            varint offset minus the end of
 *            the one before, varint length, varint ref, varint skip: where
 *            the bytes start in that record's value
 *   FLAGS    varint of REC_FLAG_*
 *
 * Records:
 *   PUT    entry NS/KEY is an object: META, times, xattrs and value inside
 *   DEL    entry NS/KEY is gone; ID: the object that lost a name by that and
 *          lives in other records (its ctime is TIME)
 *   NS     entry NS/KEY is namespace ID; NS 0 with the empty key: the root's own
 *   LINK   entry NS/KEY is the object ID, whose INODE record stands alone
 *   INODE  metadata of object ID; EXTENTS replaces its whole map when present
 *   WRITE  object ID has VALUE at OFF
 *   TRUNC  object ID has SIZE bytes
 *   PUNCH  object ID has a hole of LEN at OFF
 *   CLONE  object ID has in LEN at OFF the EXTENTS and holes between
 *   DROP   entry NS/KEY, namespace ID, is gone with everything in it
 *   CLEAR  everything in namespace ID is gone; with ORIGIN only entries whose
 *          record is before that LSN
 *
 * STORE/manifest, replaced atomically:
 *     0    8  "EMDBMANI"
 *     8    4  format version, 1
 *    12    4  length of the file
 *    16   16  uuid
 *    32    8  generation, counts up
 *    40    8  durable: every frame below this LSN is on stable storage
 *    48    8  next segment id: no segment has it or a higher one
 *    56    8  bit 0: closed cleanly; bit 1: there is a MAC
 *    64    8  checkpoint number, 0: none; 72: 8, LSN it covers up to
 *    80    8  previous checkpoint number, 0: none; 88: 8, LSN it covers up to
 *    96    4  number of segments n; 100: 4, number of gaps g
 *   104 n*24  segments in ascending order of id: u64 id, u64 length (end of its
 *             last frame; 0 while open), u32 flags (bit 0: sealed), u32 reserved
 *       g*16  gaps in ascending order: u64 LSN, u64 length: bytes that were
 *             reserved but never written by a process that died
 *       32    MAC of an encrypted store, see manifest.h; else missing
 *       u32   CRC of all before
 *
 * STORE/scrub, 96 bytes, replaced atomically, may be missing: what the last emdb_scrub() found
 *     0    8  "EMDBSCRB"
 *     8    4  format version, 1
 *    12    4  bit 0: it came to its end
 *    16   16  uuid
 *    32    8  began, ms since 1970; 40: 8, ended
 *    48    8  bytes that were read; 56: 8, good frames in them
 *    64    8  damaged places; 72: 8, entries that suffer from them
 *    80    8  bytes that went meanwhile, unread
 *    88    4  reserved; 92: 4, CRC of bytes 0..91
 *
 * STORE/checkpoint-%016x, the name is its number: blocks, one after the other.
 *     0    4  CRC of bytes 4..length-1
 *     4    4  length of the block, 24 to 1 MiB
 *     8    4  index of the block, from 0
 *    12    4  kind of the block, in ascending order
 *    16    8  number of the checkpoint
 *    24       what the kind says:
 *   1 HEAD      "EMDBCKPT", u32 format version, u32 reserved, 16 uuid, u64 LSN,
 *               u64 created, ns since 1970; of an encrypted store 32 salt.  First, once
 *   2 INDEX     runs of entries: varint namespace, varint how many entries it has
 *               in all (about), varint n > 0, varint hash / 8 of the first, then n
 *               entries in order of hash: varint distance / 8 from the hash before
 *               (the first: 0), varint ref; with bit 2 of the ref u8 kind of the
 *               record (NS, LINK; 0: unknown, not written) and varint id of what it
 *               names (0 with kind 0).  The runs of a namespace follow each other
 *   3 OBJECTS   per object with an INODE record: varints id (not 0), as-of, size,
 *               zigzag ctime, mtime, atime, btime, varints deadline, rdev, ref of
 *               the INODE record, touch LSN, mode, uid, gid, number of extents; then
 *               extents until there are that many, as: varint 0, varint n > 0,
 *               varint length of what follows, n extents as in EXTENTS (the first
 *               minus the end of the run before)
 *   4 SPACES    per namespace: varints id, as-of, parent, u64 hash of its entry,
 *               varints ref of its NS record (0: none), touch LSN, zigzag ctime,
 *               mtime, atime, btime, varints default lifetime, mode, uid, gid, u8
 *               basis
 *   5 QUEUE     per deadline: varint ms since 1970, varint namespace, varint hash / 8
 *   6 SEGMENTS  varint segment id (ascending), varint bytes in it that still count
 *   7 GONE      varint id, u8 1: object or namespace went; 0: is back
 *   8 END       u64 settled LSN, u64 entries that are objects, u64 namespaces, u32
 *               number of blocks, u32 CRC over the first 4 bytes of all blocks
 *               before.  Last, once
 * Of an encrypted store each block is sealed and 16 bytes longer, the tag; HEAD as it
 * is, in clear, the others all behind byte 24.  Key: the sub-key of number and
 * salt (crypto.h); nonce: the index; associated data: bytes 4..23, and of HEAD what follows up to the
 * tag.
 * The image is not of one moment.  INDEX has, of the entries that were there at
 * the LSN in HEAD, all that still were when they were looked at; each object and
 * namespace is as it was before its as-of LSN; QUEUE, SEGMENTS and the counts
 * are of the settled LSN.  With the records from LSN on applied, and those before an as-of
 * LSN not to the object or namespace that has it, the state is exact from the
 * settled LSN on: see core/checkpoint.h.
 */
#ifndef EMDB_FORMAT_H
#define EMDB_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/codec.h"
#include "core/emdb.h"

#define FMT_VERSION       1u
#define FMT_SUPER_SIZE    4096u
#define FMT_SEG_HEADER    256u
#define FMT_SEG_SALT      64u /* where the salt is in a segment's header */
#define FMT_FRAME_HEADER  20u
#define FMT_BATCH_HEADER  24u
#define FMT_BATCH_PREFIX  8u
#define FMT_FRAME_MAX     ((uint64_t)0xffffff * 8)
#define FMT_DURABLE_FAR   UINT32_MAX
#define FMT_MANIFEST_MAX  (256u * 1024u * 1024u)
#define FMT_SEG_SHIFT_MIN 20u
#define FMT_SEG_SHIFT_MAX 30u
#define FMT_FROZEN_MAX    (INT64_MAX / 1000000)
/* Segment ids are below it, so that LSNs fit 63 bits whatever the shift. */
#define FMT_NEXT_SEGMENT_MAX (UINT64_C(1) << (63 - FMT_SEG_SHIFT_MAX))
/* Bytes at a segment's end that only a SEAL frame may take. */
#define FMT_SEAL_ROOM 24u
/* What sealing adds to a record, and to a SEAL frame. */
#define FMT_TAG 16u
/* A tag that is not in its frame, with the place it belongs to. */
#define FMT_TAG_ROW 20u
/* Largest value in one record; the longest extent. */
#define FMT_EXTENT_MAX (1024u * 1024u)
/* Room that any record's fields without KEY, XATTRS, EXTENTS and VALUE bytes need at most. */
#define FMT_FIELDS_MAX       224u
#define FMT_EXTENT_BYTES_MAX 40u

/* Incompatible features. */
#define FMT_INCOMPAT_SEEDED    UINT64_C(1) /* CRCs of frames begin with the salt */
#define FMT_INCOMPAT_ENCRYPTED UINT64_C(2) /* cipher is not 0 */
#define FMT_INCOMPAT_SWITCH    UINT64_C(4) /* convert/ is to be moved here */
#define FMT_INCOMPAT_PADDED    UINT64_C(8) /* there are zeros where tags were */
#define FMT_INCOMPAT_KNOWN \
	(FMT_INCOMPAT_SEEDED | FMT_INCOMPAT_ENCRYPTED | FMT_INCOMPAT_SWITCH | FMT_INCOMPAT_PADDED)

enum rec_kind {
	REC_PUT = 1,
	REC_DEL = 2,
	REC_NS = 3,
	REC_LINK = 4,
	REC_INODE = 5,
	REC_WRITE = 6,
	REC_TRUNC = 7,
	REC_PUNCH = 8,
	REC_CLONE = 9,
	REC_DROP = 10,
	REC_CLEAR = 11,
	REC_KIND_MAX = 11,
	FRAME_BATCH = 64,
	FRAME_SEAL = 65,
};

#define REC_F_NS      (1u << 0)
#define REC_F_KEY     (1u << 1)
#define REC_F_TIME    (1u << 2)
#define REC_F_VALUE   (1u << 3)
#define REC_F_META    (1u << 4)
#define REC_F_TIMES   (1u << 5)
#define REC_F_ID      (1u << 6)
#define REC_F_EXPIRES (1u << 7)
#define REC_F_XATTRS  (1u << 8)
#define REC_F_SIZE    (1u << 9)
#define REC_F_OFF     (1u << 10)
#define REC_F_LEN     (1u << 11)
#define REC_F_ORIGIN  (1u << 12)
#define REC_F_RDEV    (1u << 13)
#define REC_F_TTLDEF  (1u << 14)
#define REC_F_EXTENTS (1u << 15)
#define REC_F_FLAGS   (1u << 16)
#define REC_F_ALL     ((1u << 17) - 1)

#define REC_FLAG_ORPHAN  1u /* the entry is not in its namespace: an open object without a name */
#define REC_FLAG_EXPIRED 2u /* removed by expiry */
/* The name is new in its namespace; without it a record with ID replaces one of the same ID. */
#define REC_FLAG_NEW_NAME 4u

#define REF_BATCH   ((uint64_t)1)
#define REF_EXPIRES ((uint64_t)2)
#define REF_SPECIAL ((uint64_t)4)
#define REF_FLAGS   ((uint64_t)7)

/* An extent with this ref: bytes that damage took, which no record has. */
#define REF_LOST ((uint64_t)8)

static inline uint64_t ref_lsn(uint64_t ref)
{
	return ref & ~REF_FLAGS;
}

/* A record, decoded; pointers go into the bytes it was decoded from. */
struct rec {
	uint8_t kind;
	uint32_t mask; /* REC_F_*: which fields below mean something */
	uint64_t ns;
	const uint8_t *key;
	size_t key_len;
	int64_t time_ns;
	int64_t mtime_ns, atime_ns, btime_ns;
	uint32_t mode, uid, gid;
	uint64_t id;
	int64_t expires_ms;
	const uint8_t *xattrs;
	size_t xattrs_len;
	uint64_t size, off, len, origin, rdev;
	int64_t ttl_default_ms;
	uint8_t ttl_basis;
	uint64_t extent_count;
	const uint8_t *extents; /* encoded: walk with fmt_extent_next() */
	size_t extents_len;
	uint64_t flags;
	const uint8_t *value;
	size_t value_len;
};

/* One extent as records have it. */
struct rec_extent {
	uint64_t off, len, ref, skip;
};

enum frame_status {
	FRAME_OK = 0,
	FRAME_END,           /* zeros: nothing was written here */
	FRAME_TRUNC_HEADER,  /* the file ends within the header */
	FRAME_TRUNC_PAYLOAD, /* the file ends within the frame */
	FRAME_BAD_CRC,
	FRAME_BAD_KIND,   /* bytes that are no frame header */
	FRAME_BAD_LENGTH, /* shorter than a header or beyond the segment */
	FRAME_STALE,      /* a frame of another place or time */
	FRAME_FORGED,     /* sealed, and does not authenticate; see sealed.h */
};

struct frame {
	uint8_t kind;
	uint64_t lsn;
	uint32_t len;     /* bytes, padding included */
	uint32_t durable; /* as stored */
	const uint8_t *p; /* its first byte */
};

/* A sentence for each status. */
const char *fmt_frame_status_text(enum frame_status st);

/*
 * Parses the frame at p of which `avail` bytes exist (to the end of the
 * segment) and which should be at `lsn`.  Without check_crc the CRC is trusted; else it begins
 * with crc_seed: fmt_crc_seed() of the segment, 0 in a store without FMT_INCOMPAT_SEEDED.
 */
enum frame_status fmt_frame_parse(const uint8_t *p, size_t avail, uint64_t lsn, bool check_crc,
				  uint32_t crc_seed, struct frame *ret);
/* What the CRC of a frame begins with: that of its segment's salt. */
uint32_t fmt_crc_seed(const uint8_t salt[static 32]);
/* The LSN below which the writer knew everything to be durable; 0: unknown. */
uint64_t fmt_frame_durable(const struct frame *f);

/* Writes a frame's header with a CRC of 0; the CRC is set when the rest is known. */
void fmt_frame_header(uint8_t p[FMT_FRAME_HEADER], uint8_t kind, uint32_t len, uint64_t lsn,
		      uint64_t durable_lsn);
/* Sets the CRC over a complete frame in memory. */
void fmt_frame_finish(uint8_t *p, uint32_t len, uint32_t crc_seed);

/* Bytes that fmt_rec_encode() may need for the fields without the value bytes. */
size_t fmt_rec_head_max(const struct rec *r);
/*
 * Encodes the fields of r up to and including the value's length, not the
 * value's bytes, which the caller puts right behind.  Returns the bytes used;
 * the buffer must have fmt_rec_head_max() bytes.  r->extents must be encoded.
 */
size_t fmt_rec_encode(const struct rec *r, uint8_t *buf, size_t size);
/*
 * Decodes the fields of a record of `kind` from exactly n bytes: fields and
 * fewer than 8 bytes of zero padding, or fewer than 24 where a tag was.  False:
 * not a valid record.
 */
bool fmt_rec_decode(uint8_t kind, const uint8_t *p, size_t n, struct rec *ret);
/* The record of a frame that is no batch. */
bool fmt_frame_rec(const struct frame *f, struct rec *ret);

/* Walks the records of a BATCH frame. */
struct batch_iter {
	const struct frame *f;
	uint32_t at, left;
};
bool fmt_batch_begin(const struct frame *f, struct batch_iter *ret);
/* 1: a record with its ref; 0: the end; -1: malformed. */
int fmt_batch_next(struct batch_iter *it, struct rec *ret, uint64_t *ret_ref);
/* After -1: goes on behind the record, if its prefix says where that is. For people who ask what is lost. */
bool fmt_batch_skip(struct batch_iter *it);
/*
 * The record at a batch prefix p of which avail bytes exist; *ret_back is how
 * far back the frame starts, bytes.
 */
bool fmt_batch_rec_at(const uint8_t *p, size_t avail, struct rec *ret, uint32_t *ret_back);

/* Appends one encoded extent; returns the bytes used (<= FMT_EXTENT_BYTES_MAX). */
size_t fmt_extent_encode(const struct rec_extent *e, uint64_t prev_end, uint8_t *buf);
/* Walks r->extents; c starts as {r->extents, +extents_len}; *prev_end as 0 (r->off for CLONE). */
bool fmt_extent_next(struct cur *c, uint64_t *prev_end, struct rec_extent *ret);

/* Walks an attribute blob: false at its end or when malformed (c->err). */
bool fmt_xattr_next(struct cur *c, const char **name, size_t *name_len, const uint8_t **value,
		    size_t *value_len);

#define FMT_SLOT_SIZE   256u
#define FMT_SLOT_HEAD   96u /* what comes before the nonce */
#define FMT_SLOT_SECRET 64u
#define FMT_SLOT_SEALED (FMT_SLOT_SECRET + 16u)
struct fmt_key_slot {
	uint32_t kind; /* enum emdb_secret_kind; 0: free, and then all is 0 */
	uint32_t memory_kib, passes, lanes;
	int64_t created_ms;
	uint8_t salt[32];
	char label[EMDB_KEY_LABEL_MAX + 1];
	uint8_t nonce[24], sealed[FMT_SLOT_SEALED];
};
/* The first FMT_SLOT_HEAD bytes of it. */
void fmt_slot_head(const struct fmt_key_slot *s, uint8_t buf[FMT_SLOT_HEAD]);

struct superblock {
	uint32_t version, segment_shift, cipher, uid, gid;
	uint64_t compat, incompat;
	uint8_t uuid[16], hash_seed[32];
	int64_t created_ns, frozen_ms;
	uint64_t snap_number; /* of what is frozen */
	uint8_t mac[32];
	struct fmt_key_slot slots[EMDB_KEY_SLOTS];
};
void fmt_super_encode(const struct superblock *sb, uint8_t buf[FMT_SUPER_SIZE]);
/* OK; NOT_STORE: no superblock; VERSION: too new; CORRUPT: CRC or fields are off. */
emdb_err fmt_super_decode(const uint8_t *p, size_t n, struct superblock *ret);

struct seg_header {
	uint64_t id;
	uint32_t segment_shift;
	uint8_t uuid[16], boot_id[16], salt[32];
	int64_t created_ns;
	uint64_t tags_off; /* 0: tags, if any, are in the frames */
	uint32_t tags;
};
void fmt_seg_encode(const struct seg_header *h, uint8_t buf[FMT_SEG_HEADER]);
bool fmt_seg_decode(const uint8_t *p, size_t n, struct seg_header *ret);
/* Only where the tags are, of a header that does not check out. False: it cannot be there. */
bool fmt_seg_tags(const uint8_t p[FMT_SEG_HEADER], struct seg_header *ret);

#define MANIFEST_SEALED 1u
#define MANIFEST_CLEAN  1u
#define MANIFEST_MAC    2u
struct manifest_seg {
	uint64_t id, len;
	uint32_t flags;
};
struct manifest_gap {
	uint64_t lsn, len;
};
struct manifest_head {
	uint8_t uuid[16];
	uint64_t generation, durable_lsn, next_segment, flags;
	uint64_t ckpt, ckpt_lsn, ckpt_prev, ckpt_prev_lsn;
	uint32_t nsegs, ngaps;
	uint8_t mac[32]; /* with MANIFEST_MAC */
};
/* Without a MAC. */
size_t fmt_manifest_size(uint32_t nsegs, uint32_t ngaps);
size_t fmt_manifest_len(const struct manifest_head *h);
void fmt_manifest_encode(const struct manifest_head *h, const struct manifest_seg *segs,
			 const struct manifest_gap *gaps, uint8_t *buf);
/* Checks everything; then segment i and gap i can be read. */
emdb_err fmt_manifest_decode(const uint8_t *p, size_t n, struct manifest_head *ret);
void fmt_manifest_seg(const uint8_t *p, uint32_t i, struct manifest_seg *ret);
void fmt_manifest_gap(const uint8_t *p, uint32_t nsegs, uint32_t i, struct manifest_gap *ret);

#define FMT_SCRUB_SIZE 96u
struct scrub_status {
	bool complete;
	uint8_t uuid[16];
	int64_t began_ms, ended_ms;
	uint64_t bytes, frames, damaged, lost_entries, skipped_bytes;
};
void fmt_scrub_encode(const struct scrub_status *s, uint8_t buf[FMT_SCRUB_SIZE]);
bool fmt_scrub_decode(const uint8_t *p, size_t n, struct scrub_status *ret);

#endif
