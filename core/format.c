/* SPDX-License-Identifier: Apache-2.0 */
#include "core/format.h"

#include <string.h>

#include "core/base.h"

static const uint8_t super_magic[8] = "EMDBSUPR";
static const uint8_t seg_magic[8] = { 'E', 'M', 'D', 'B', 'S', 'E', 'G', 1 };
static const uint8_t manifest_magic[8] = "EMDBMANI";
static const uint8_t scrub_magic[8] = "EMDBSCRB";

#define MANIFEST_HEAD 104u
#define MANIFEST_SEG  24u
#define MANIFEST_GAP  16u

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* ---- Frames ----------------------------------------------------------- */

const char *fmt_frame_status_text(enum frame_status st)
{
	switch (st) {
	case FRAME_OK:
		return "good frame";
	case FRAME_END:
		return "clean end";
	case FRAME_TRUNC_HEADER:
		return "frame header cut short";
	case FRAME_TRUNC_PAYLOAD:
		return "frame payload cut short";
	case FRAME_BAD_CRC:
		return "checksum mismatch";
	case FRAME_BAD_KIND:
		return "not a frame header";
	case FRAME_BAD_LENGTH:
		return "impossible frame length";
	case FRAME_STALE:
		return "frame of another place (stale)";
	case FRAME_FORGED:
		return "does not authenticate: changed by somebody without the key";
	}
	return "unknown";
}

static bool frame_kind_ok(uint8_t kind)
{
	return (kind >= 1 && kind <= REC_KIND_MAX) || kind == FRAME_BATCH || kind == FRAME_SEAL;
}

uint32_t fmt_crc_seed(const uint8_t salt[static 32])
{
	return crc32c(0, salt, 32);
}

enum frame_status fmt_frame_parse(const uint8_t *p, size_t avail, uint64_t lsn, bool check_crc,
				  uint32_t crc_seed, struct frame *ret)
{
	struct frame f;
	uint32_t word;

	if (avail < FMT_FRAME_HEADER)
		return all_zero(p, avail) ? FRAME_END : FRAME_TRUNC_HEADER;
	word = get_u32(p + 4);
	f.p = p;
	f.lsn = get_u64(p + 8);
	f.durable = get_u32(p + 16);
	f.kind = (uint8_t)(word >> 24);
	f.len = (word & 0xffffffu) * 8u;
	if (word == 0 && f.lsn == 0 && f.durable == 0 && get_u32(p) == 0)
		return FRAME_END;
	if (!frame_kind_ok(f.kind))
		return FRAME_BAD_KIND;
	if (f.lsn != lsn)
		return FRAME_STALE;
	if (f.len < FMT_FRAME_HEADER)
		return FRAME_BAD_LENGTH;
	if (f.len > avail)
		return FRAME_TRUNC_PAYLOAD;
	if (check_crc && crc32c(crc_seed, p + 4, f.len - 4) != get_u32(p))
		return FRAME_BAD_CRC;
	*ret = f;
	return FRAME_OK;
}

uint64_t fmt_frame_durable(const struct frame *f)
{
	const uint64_t back = (uint64_t)f->durable * 8;

	if (f->durable == FMT_DURABLE_FAR || back > f->lsn)
		return 0;
	return f->lsn - back;
}

void fmt_frame_header(uint8_t p[FMT_FRAME_HEADER], uint8_t kind, uint32_t len, uint64_t lsn,
		      uint64_t durable_lsn)
{
	const uint64_t back = (lsn - durable_lsn) / 8;

	emdb_dassert(len % 8 == 0 && len >= FMT_FRAME_HEADER && len <= FMT_FRAME_MAX);
	emdb_dassert(durable_lsn <= lsn && lsn % 8 == 0 && durable_lsn % 8 == 0);
	put_u32(p, 0);
	put_u32(p + 4, (len / 8) | (uint32_t)kind << 24);
	put_u64(p + 8, lsn);
	put_u32(p + 16, back >= FMT_DURABLE_FAR ? FMT_DURABLE_FAR : (uint32_t)back);
}

void fmt_frame_finish(uint8_t *p, uint32_t len, uint32_t crc_seed)
{
	put_u32(p, crc32c(crc_seed, p + 4, len - 4));
}

/* ---- Records ---------------------------------------------------------- */

/* What each kind must and may have. */
static const struct {
	uint32_t must, may;
} kind_fields[REC_KIND_MAX + 1] = {
	[REC_PUT] = { REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_VALUE,
		      REC_F_META | REC_F_TIMES | REC_F_ID | REC_F_EXPIRES | REC_F_XATTRS |
			      REC_F_ORIGIN | REC_F_RDEV | REC_F_FLAGS },
	[REC_DEL] = { REC_F_NS | REC_F_KEY | REC_F_TIME, REC_F_ID | REC_F_ORIGIN | REC_F_FLAGS },
	[REC_NS] = { REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_META,
		     REC_F_TIMES | REC_F_ID | REC_F_XATTRS | REC_F_ORIGIN | REC_F_TTLDEF |
			     REC_F_FLAGS },
	[REC_LINK] = { REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID, REC_F_ORIGIN },
	[REC_INODE] = { REC_F_TIME | REC_F_META | REC_F_ID | REC_F_SIZE,
			REC_F_TIMES | REC_F_EXPIRES | REC_F_XATTRS | REC_F_ORIGIN | REC_F_RDEV |
				REC_F_EXTENTS },
	[REC_WRITE] = { REC_F_TIME | REC_F_VALUE | REC_F_ID | REC_F_SIZE | REC_F_OFF,
			REC_F_ORIGIN },
	[REC_TRUNC] = { REC_F_TIME | REC_F_ID | REC_F_SIZE, REC_F_ORIGIN },
	[REC_PUNCH] = { REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN, REC_F_ORIGIN },
	[REC_CLONE] = { REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN | REC_F_EXTENTS,
			REC_F_ORIGIN },
	[REC_DROP] = { REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID, REC_F_ORIGIN },
	[REC_CLEAR] = { REC_F_TIME | REC_F_ID, REC_F_ORIGIN },
};

size_t fmt_rec_head_max(const struct rec *r)
{
	return FMT_FIELDS_MAX + r->key_len + r->xattrs_len + r->extents_len;
}

static void put_times(struct wcur *w, const struct rec *r)
{
	/* Unsigned subtraction: any pair of times has a difference modulo 2^64. */
	wcur_zigzag(w, (int64_t)((uint64_t)r->mtime_ns - (uint64_t)r->time_ns));
	wcur_zigzag(w, (int64_t)((uint64_t)r->atime_ns - (uint64_t)r->time_ns));
	wcur_zigzag(w, (int64_t)((uint64_t)r->btime_ns - (uint64_t)r->time_ns));
}

static void put_rare(struct wcur *w, const struct rec *r)
{
	if (r->mask & REC_F_XATTRS)
		wcur_blob(w, r->xattrs, r->xattrs_len);
	if (r->mask & REC_F_SIZE)
		wcur_varint(w, r->size);
	if (r->mask & REC_F_OFF)
		wcur_varint(w, r->off);
	if (r->mask & REC_F_LEN)
		wcur_varint(w, r->len);
	if (r->mask & REC_F_ORIGIN)
		wcur_varint(w, r->origin);
	if (r->mask & REC_F_RDEV)
		wcur_varint(w, r->rdev);
	if (r->mask & REC_F_TTLDEF) {
		wcur_varint(w, (uint64_t)r->ttl_default_ms);
		wcur_u8(w, r->ttl_basis);
	}
	if (r->mask & REC_F_EXTENTS) {
		wcur_varint(w, r->extent_count);
		wcur_varint(w, r->extents_len);
		wcur_bytes(w, r->extents, r->extents_len);
	}
	if (r->mask & REC_F_FLAGS)
		wcur_varint(w, r->flags);
}

size_t fmt_rec_encode(const struct rec *r, uint8_t *buf, size_t size)
{
	struct wcur w = wcur_init(buf, size);

	emdb_dassert((r->mask & kind_fields[r->kind].must) == kind_fields[r->kind].must);
	wcur_varint(&w, r->mask);
	if (r->mask & REC_F_NS)
		wcur_varint(&w, r->ns);
	if (r->mask & REC_F_KEY)
		wcur_blob(&w, r->key, r->key_len);
	if (r->mask & REC_F_TIME)
		wcur_u64(&w, (uint64_t)r->time_ns);
	if (r->mask & REC_F_META) {
		wcur_varint(&w, r->mode);
		wcur_varint(&w, r->uid);
		wcur_varint(&w, r->gid);
	}
	if (r->mask & REC_F_TIMES)
		put_times(&w, r);
	if (r->mask & REC_F_ID)
		wcur_varint(&w, r->id);
	if (r->mask & REC_F_EXPIRES)
		wcur_varint(&w, (uint64_t)r->expires_ms);
	if (r->mask & ~0xffu)
		put_rare(&w, r);
	if (r->mask & REC_F_VALUE)
		wcur_varint(&w, r->value_len);
	emdb_assert(!w.err);
	return wcur_len(&w);
}

static void get_times(struct cur *c, struct rec *r)
{
	r->mtime_ns = (int64_t)((uint64_t)cur_zigzag(c) + (uint64_t)r->time_ns);
	r->atime_ns = (int64_t)((uint64_t)cur_zigzag(c) + (uint64_t)r->time_ns);
	r->btime_ns = (int64_t)((uint64_t)cur_zigzag(c) + (uint64_t)r->time_ns);
}

static void get_rare(struct cur *c, struct rec *r)
{
	if (r->mask & REC_F_XATTRS)
		r->xattrs = cur_blob(c, EMDB_XATTRS_MAX, &r->xattrs_len);
	if (r->mask & REC_F_SIZE)
		r->size = cur_varint_max(c, EMDB_VALUE_MAX);
	if (r->mask & REC_F_OFF)
		r->off = cur_varint_max(c, EMDB_VALUE_MAX);
	if (r->mask & REC_F_LEN)
		r->len = cur_varint_max(c, EMDB_VALUE_MAX);
	if (r->mask & REC_F_ORIGIN)
		r->origin = cur_varint(c);
	if (r->mask & REC_F_RDEV)
		r->rdev = cur_varint(c);
	if (r->mask & REC_F_TTLDEF) {
		r->ttl_default_ms = (int64_t)cur_varint_max(c, INT64_MAX);
		r->ttl_basis = cur_u8(c);
		if (r->ttl_basis > EMDB_BASIS_MODIFY)
			c->err = true;
	}
	if (r->mask & REC_F_EXTENTS) {
		r->extent_count = cur_varint(c);
		r->extents = cur_blob(c, FMT_FRAME_MAX, &r->extents_len);
		/* An extent takes at least four bytes. */
		if (r->extent_count > r->extents_len / 4)
			c->err = true;
	}
	if (r->mask & REC_F_FLAGS)
		r->flags = cur_varint(c);
}

bool fmt_rec_decode(uint8_t kind, const uint8_t *p, size_t n, struct rec *ret)
{
	struct cur c = cur_init(p, n);
	struct rec r;

	if (kind < 1 || kind > REC_KIND_MAX)
		return false;
	memset(&r, 0, sizeof(r));
	r.kind = kind;
	r.mask = (uint32_t)cur_varint_max(&c, REC_F_ALL);
	if ((r.mask & kind_fields[kind].must) != kind_fields[kind].must ||
	    (r.mask & ~(kind_fields[kind].must | kind_fields[kind].may)))
		return false;
	if (r.mask & REC_F_NS)
		r.ns = cur_varint(&c);
	if (r.mask & REC_F_KEY)
		r.key = cur_blob(&c, EMDB_KEY_MAX, &r.key_len);
	if (r.mask & REC_F_TIME)
		r.time_ns = (int64_t)cur_u64(&c);
	r.mtime_ns = r.atime_ns = r.btime_ns = r.time_ns;
	if (r.mask & REC_F_META) {
		r.mode = (uint32_t)cur_varint_max(&c, 0xffff);
		r.uid = (uint32_t)cur_varint_max(&c, UINT32_MAX);
		r.gid = (uint32_t)cur_varint_max(&c, UINT32_MAX);
	}
	if (r.mask & REC_F_TIMES)
		get_times(&c, &r);
	if (r.mask & REC_F_ID)
		r.id = cur_varint(&c);
	if (r.mask & REC_F_EXPIRES)
		r.expires_ms = (int64_t)cur_varint_max(&c, INT64_MAX);
	if (r.mask & ~0xffu)
		get_rare(&c, &r);
	if (r.mask & REC_F_VALUE)
		r.value = cur_blob(&c, FMT_FRAME_MAX, &r.value_len);
	if (c.err || cur_left(&c) >= 8 + FMT_TAG || !all_zero(c.p, cur_left(&c)))
		return false;
	*ret = r;
	return true;
}

bool fmt_frame_rec(const struct frame *f, struct rec *ret)
{
	return fmt_rec_decode(f->kind, f->p + FMT_FRAME_HEADER, f->len - FMT_FRAME_HEADER, ret);
}

bool fmt_batch_begin(const struct frame *f, struct batch_iter *ret)
{
	if (f->kind != FRAME_BATCH || f->len < FMT_BATCH_HEADER)
		return false;
	ret->f = f;
	ret->at = FMT_BATCH_HEADER;
	ret->left = get_u32(f->p + FMT_FRAME_HEADER);
	return true;
}

int fmt_batch_next(struct batch_iter *it, struct rec *ret, uint64_t *ret_ref)
{
	uint32_t back;

	if (it->left == 0)
		return it->at == it->f->len ? 0 : -1;
	if (!fmt_batch_rec_at(it->f->p + it->at, it->f->len - it->at, ret, &back) || back != it->at)
		return -1;
	*ret_ref = (it->f->lsn + it->at) | REF_BATCH;
	it->at += (get_u32(it->f->p + it->at) & 0xffffffu) * 8u;
	it->left--;
	return 1;
}

/* Length of a batch's record; 0: none that can be. */
static uint32_t batch_rec_len(const uint8_t *p, size_t avail)
{
	const uint32_t len = avail < FMT_BATCH_PREFIX ? 0 : (get_u32(p) & 0xffffffu) * 8u;

	return len < FMT_BATCH_PREFIX || len > avail ? 0 : len;
}

bool fmt_batch_skip(struct batch_iter *it)
{
	const uint8_t *const p = it->f->p + it->at;
	const uint32_t len = batch_rec_len(p, it->f->len - it->at);

	if (it->left == 0 || len == 0 || get_u32(p + 4) != it->at / 8u)
		return false;
	it->at += len;
	it->left--;
	return true;
}

bool fmt_batch_rec_at(const uint8_t *p, size_t avail, struct rec *ret, uint32_t *ret_back)
{
	const uint32_t len = batch_rec_len(p, avail);

	if (len == 0 || !fmt_rec_decode((uint8_t)(get_u32(p) >> 24), p + FMT_BATCH_PREFIX,
					len - FMT_BATCH_PREFIX, ret))
		return false;
	if (get_u32(p + 4) > FMT_FRAME_MAX / 8)
		return false;
	*ret_back = get_u32(p + 4) * 8u;
	return true;
}

size_t fmt_extent_encode(const struct rec_extent *e, uint64_t prev_end, uint8_t *buf)
{
	struct wcur w = wcur_init(buf, FMT_EXTENT_BYTES_MAX);

	emdb_dassert(e->off >= prev_end);
	wcur_varint(&w, e->off - prev_end);
	wcur_varint(&w, e->len);
	wcur_varint(&w, e->ref);
	wcur_varint(&w, e->skip);
	emdb_assert(!w.err);
	return wcur_len(&w);
}

bool fmt_extent_next(struct cur *c, uint64_t *prev_end, struct rec_extent *ret)
{
	struct rec_extent e;

	if (cur_left(c) == 0)
		return false;
	e.off = cur_varint_max(c, EMDB_VALUE_MAX);
	e.len = cur_varint_max(c, FMT_FRAME_MAX);
	e.ref = cur_varint(c);
	e.skip = cur_varint_max(c, FMT_FRAME_MAX);
	if (c->err || e.len == 0 || emdb_add_ovf(e.off, *prev_end, &e.off) ||
	    e.off > EMDB_VALUE_MAX - e.len) {
		c->err = true;
		return false;
	}
	*prev_end = e.off + e.len;
	*ret = e;
	return true;
}

bool fmt_xattr_next(struct cur *c, const char **name, size_t *name_len, const uint8_t **value,
		    size_t *value_len)
{
	const uint8_t *n;
	uint8_t len;

	if (cur_left(c) == 0)
		return false;
	len = cur_u8(c);
	n = cur_bytes(c, len);
	*value = cur_blob(c, EMDB_XATTR_VALUE_MAX, value_len);
	if (c->err || !n || len == 0 || memchr(n, 0, len)) {
		c->err = true;
		return false;
	}
	*name = (const char *)n;
	*name_len = len;
	return true;
}

/* ---- Superblock -------------------------------------------------------- */

#define SUPER_MAC   128u
#define SUPER_SLOTS 1024u
#define SUPER_REST  (SUPER_SLOTS + EMDB_KEY_SLOTS * FMT_SLOT_SIZE)

void fmt_slot_head(const struct fmt_key_slot *s, uint8_t buf[FMT_SLOT_HEAD])
{
	memset(buf, 0, FMT_SLOT_HEAD);
	put_u32(buf, s->kind);
	put_u32(buf + 4, s->memory_kib);
	put_u32(buf + 8, s->passes);
	put_u32(buf + 12, s->lanes);
	put_u64(buf + 16, (uint64_t)s->created_ms);
	memcpy(buf + 32, s->salt, 32);
	memcpy(buf + 64, s->label, 32);
}

static void slot_encode(const struct fmt_key_slot *s, uint8_t buf[FMT_SLOT_SIZE])
{
	fmt_slot_head(s, buf);
	memcpy(buf + 96, s->nonce, sizeof(s->nonce));
	memcpy(buf + 120, s->sealed, sizeof(s->sealed));
}

/* Cost that can be paid: hostile slots must not take all memory or for ever. */
static bool slot_cost_ok(const struct fmt_key_slot *s)
{
	if (s->kind != EMDB_SECRET_PASSPHRASE)
		return s->memory_kib == 0 && s->passes == 0 && s->lanes == 0;
	return s->lanes >= 1 && s->lanes <= EMDB_KDF_LANES_MAX && s->passes >= 1 &&
	       s->passes <= EMDB_KDF_PASSES_MAX && s->memory_kib >= 8 * s->lanes &&
	       s->memory_kib <= EMDB_KDF_MEMORY_MAX_KIB;
}

static bool slot_decode(const uint8_t *p, struct fmt_key_slot *s)
{
	size_t n;

	memset(s, 0, sizeof(*s));
	s->kind = get_u32(p);
	if (s->kind == 0)
		return all_zero(p, FMT_SLOT_SIZE);
	s->memory_kib = get_u32(p + 4);
	s->passes = get_u32(p + 8);
	s->lanes = get_u32(p + 12);
	s->created_ms = (int64_t)get_u64(p + 16);
	memcpy(s->salt, p + 32, sizeof(s->salt));
	memcpy(s->label, p + 64, sizeof(s->label));
	memcpy(s->nonce, p + 96, sizeof(s->nonce));
	memcpy(s->sealed, p + 120, sizeof(s->sealed));
	for (n = 0; n < sizeof(s->label) && s->label[n]; n++)
		if ((uint8_t)s->label[n] < 0x20 || s->label[n] == 0x7f)
			return false;
	return s->kind <= EMDB_SECRET_RECOVERY && slot_cost_ok(s) && n < sizeof(s->label) &&
	       all_zero((const uint8_t *)s->label + n, sizeof(s->label) - n) &&
	       all_zero(p + 24, 8) && all_zero(p + 200, FMT_SLOT_SIZE - 200);
}

/* An encrypted store has a slot in use, and its hash seed nowhere else; another has nothing. */
static bool super_keys_ok(const uint8_t *p, struct superblock *sb)
{
	bool any = false;

	for (uint32_t i = 0; i < EMDB_KEY_SLOTS; i++) {
		if (!slot_decode(p + SUPER_SLOTS + i * FMT_SLOT_SIZE, &sb->slots[i]))
			return false;
		any = any || sb->slots[i].kind;
	}
	memcpy(sb->mac, p + SUPER_MAC, sizeof(sb->mac));
	if (sb->cipher > EMDB_CIPHER_CHACHA20_POLY1305 ||
	    (sb->cipher != 0) != ((sb->incompat & FMT_INCOMPAT_ENCRYPTED) != 0))
		return false;
	if (sb->cipher)
		return any && all_zero(sb->hash_seed, sizeof(sb->hash_seed));
	return !any && all_zero(sb->mac, sizeof(sb->mac));
}

void fmt_super_encode(const struct superblock *sb, uint8_t buf[FMT_SUPER_SIZE])
{
	memset(buf, 0, FMT_SUPER_SIZE);
	memcpy(buf, super_magic, 8);
	put_u32(buf + 8, sb->version);
	put_u32(buf + 12, sb->segment_shift);
	put_u64(buf + 16, sb->compat);
	put_u64(buf + 24, sb->incompat);
	memcpy(buf + 32, sb->uuid, 16);
	put_u32(buf + 48, sb->cipher);
	put_u32(buf + 52, sb->uid);
	put_u64(buf + 56, (uint64_t)sb->created_ns);
	memcpy(buf + 64, sb->hash_seed, 32);
	put_u32(buf + 96, sb->gid);
	put_u64(buf + 104, (uint64_t)sb->frozen_ms);
	put_u64(buf + 112, sb->snap_number);
	memcpy(buf + SUPER_MAC, sb->mac, sizeof(sb->mac));
	for (uint32_t i = 0; i < EMDB_KEY_SLOTS; i++)
		slot_encode(&sb->slots[i], buf + SUPER_SLOTS + i * FMT_SLOT_SIZE);
	put_u32(buf + 4092, crc32c(0, buf, 4092));
}

emdb_err fmt_super_decode(const uint8_t *p, size_t n, struct superblock *ret)
{
	struct superblock sb;

	if (n < 8 || memcmp(p, super_magic, 8) != 0)
		return EMDB_ERR_NOT_STORE;
	if (n < 12)
		return EMDB_ERR_CORRUPT;
	/* The version first: a newer format may have another size and checksum. */
	if (get_u32(p + 8) > FMT_VERSION)
		return EMDB_ERR_VERSION;
	if (n != FMT_SUPER_SIZE || crc32c(0, p, 4092) != get_u32(p + 4092))
		return EMDB_ERR_CORRUPT;
	sb.version = get_u32(p + 8);
	sb.segment_shift = get_u32(p + 12);
	sb.compat = get_u64(p + 16);
	sb.incompat = get_u64(p + 24);
	memcpy(sb.uuid, p + 32, 16);
	sb.cipher = get_u32(p + 48);
	sb.uid = get_u32(p + 52);
	sb.created_ns = (int64_t)get_u64(p + 56);
	memcpy(sb.hash_seed, p + 64, 32);
	sb.gid = get_u32(p + 96);
	sb.frozen_ms = (int64_t)get_u64(p + 104);
	sb.snap_number = get_u64(p + 112);
	if (sb.incompat & ~FMT_INCOMPAT_KNOWN)
		return EMDB_ERR_VERSION;
	if (sb.version != FMT_VERSION || sb.segment_shift < FMT_SEG_SHIFT_MIN ||
	    sb.segment_shift > FMT_SEG_SHIFT_MAX || sb.frozen_ms < 0 ||
	    sb.frozen_ms > FMT_FROZEN_MAX || (sb.snap_number && !sb.frozen_ms) ||
	    get_u32(p + 100) != 0 || !all_zero(p + 120, 8) ||
	    !all_zero(p + 160, SUPER_SLOTS - 160) || !all_zero(p + SUPER_REST, 4092 - SUPER_REST) ||
	    !super_keys_ok(p, &sb))
		return EMDB_ERR_CORRUPT;
	*ret = sb;
	return EMDB_OK;
}

/* ---- Segment header ---------------------------------------------------- */

void fmt_seg_encode(const struct seg_header *h, uint8_t buf[FMT_SEG_HEADER])
{
	memset(buf, 0, FMT_SEG_HEADER);
	memcpy(buf, seg_magic, 8);
	put_u32(buf + 8, FMT_VERSION);
	put_u32(buf + 12, h->segment_shift);
	memcpy(buf + 16, h->uuid, 16);
	put_u64(buf + 32, h->id);
	put_u64(buf + 40, (uint64_t)h->created_ns);
	memcpy(buf + 48, h->boot_id, 16);
	memcpy(buf + 64, h->salt, 32);
	put_u64(buf + 96, h->tags_off);
	put_u32(buf + 104, h->tags);
	put_u32(buf + 252, crc32c(0, buf, 252));
}

/* The table lies behind the frames; nothing else may be larger than a segment can be. */
static bool seg_tags_ok(uint64_t off, uint32_t count)
{
	if (off == 0)
		return count == 0;
	return off >= FMT_SEG_HEADER && off % 8 == 0 && off <= UINT64_C(1) << FMT_SEG_SHIFT_MAX &&
	       count <= (UINT64_C(1) << FMT_SEG_SHIFT_MAX) / FMT_BATCH_PREFIX;
}

bool fmt_seg_tags(const uint8_t p[FMT_SEG_HEADER], struct seg_header *ret)
{
	if (!seg_tags_ok(get_u64(p + 96), get_u32(p + 104)))
		return false;
	ret->tags_off = get_u64(p + 96);
	ret->tags = get_u32(p + 104);
	return true;
}

bool fmt_seg_decode(const uint8_t *p, size_t n, struct seg_header *ret)
{
	if (n < FMT_SEG_HEADER || memcmp(p, seg_magic, 8) != 0 ||
	    crc32c(0, p, 252) != get_u32(p + 252) || get_u32(p + 8) != FMT_VERSION ||
	    get_u32(p + 12) < FMT_SEG_SHIFT_MIN || get_u32(p + 12) > FMT_SEG_SHIFT_MAX ||
	    !seg_tags_ok(get_u64(p + 96), get_u32(p + 104)) || !all_zero(p + 108, 252 - 108))
		return false;
	ret->tags_off = get_u64(p + 96);
	ret->tags = get_u32(p + 104);
	ret->segment_shift = get_u32(p + 12);
	memcpy(ret->uuid, p + 16, 16);
	ret->id = get_u64(p + 32);
	ret->created_ns = (int64_t)get_u64(p + 40);
	memcpy(ret->boot_id, p + 48, 16);
	memcpy(ret->salt, p + 64, 32);
	return true;
}

/* ---- Manifest ---------------------------------------------------------- */

size_t fmt_manifest_size(uint32_t nsegs, uint32_t ngaps)
{
	return MANIFEST_HEAD + (size_t)nsegs * MANIFEST_SEG + (size_t)ngaps * MANIFEST_GAP + 4;
}

size_t fmt_manifest_len(const struct manifest_head *h)
{
	return fmt_manifest_size(h->nsegs, h->ngaps) +
	       (h->flags & MANIFEST_MAC ? sizeof(h->mac) : 0);
}

void fmt_manifest_encode(const struct manifest_head *h, const struct manifest_seg *segs,
			 const struct manifest_gap *gaps, uint8_t *buf)
{
	const size_t n = fmt_manifest_len(h);
	uint8_t *p = buf + MANIFEST_HEAD;

	memset(buf, 0, n);
	memcpy(buf, manifest_magic, 8);
	put_u32(buf + 8, FMT_VERSION);
	put_u32(buf + 12, (uint32_t)n);
	memcpy(buf + 16, h->uuid, 16);
	put_u64(buf + 32, h->generation);
	put_u64(buf + 40, h->durable_lsn);
	put_u64(buf + 48, h->next_segment);
	put_u64(buf + 56, h->flags);
	put_u64(buf + 64, h->ckpt);
	put_u64(buf + 72, h->ckpt_lsn);
	put_u64(buf + 80, h->ckpt_prev);
	put_u64(buf + 88, h->ckpt_prev_lsn);
	put_u32(buf + 96, h->nsegs);
	put_u32(buf + 100, h->ngaps);
	for (uint32_t i = 0; i < h->nsegs; i++, p += MANIFEST_SEG) {
		put_u64(p, segs[i].id);
		put_u64(p + 8, segs[i].len);
		put_u32(p + 16, segs[i].flags);
	}
	for (uint32_t i = 0; i < h->ngaps; i++, p += MANIFEST_GAP) {
		put_u64(p, gaps[i].lsn);
		put_u64(p + 8, gaps[i].len);
	}
	if (h->flags & MANIFEST_MAC)
		memcpy(p, h->mac, sizeof(h->mac));
	put_u32(buf + n - 4, crc32c(0, buf, n - 4));
}

void fmt_manifest_seg(const uint8_t *p, uint32_t i, struct manifest_seg *ret)
{
	p += MANIFEST_HEAD + (size_t)i * MANIFEST_SEG;
	ret->id = get_u64(p);
	ret->len = get_u64(p + 8);
	ret->flags = get_u32(p + 16);
}

void fmt_manifest_gap(const uint8_t *p, uint32_t nsegs, uint32_t i, struct manifest_gap *ret)
{
	p += MANIFEST_HEAD + (size_t)nsegs * MANIFEST_SEG + (size_t)i * MANIFEST_GAP;
	ret->lsn = get_u64(p);
	ret->len = get_u64(p + 8);
}

/* Segments ascend and lie below next_segment; gaps ascend and do not overlap. */
static bool manifest_rows_ok(const uint8_t *p, const struct manifest_head *h)
{
	uint64_t prev_id = 0, prev_end = 0;

	for (uint32_t i = 0; i < h->nsegs; i++) {
		struct manifest_seg s;

		fmt_manifest_seg(p, i, &s);
		if (s.id <= prev_id || s.id >= h->next_segment ||
		    s.len > (UINT64_C(1) << FMT_SEG_SHIFT_MAX) || s.len % 8 != 0 ||
		    (s.flags & ~MANIFEST_SEALED) ||
		    get_u32(p + MANIFEST_HEAD + (size_t)i * MANIFEST_SEG + 20) != 0)
			return false;
		if ((s.flags & MANIFEST_SEALED) && s.len < FMT_SEG_HEADER)
			return false;
		prev_id = s.id;
	}
	for (uint32_t i = 0; i < h->ngaps; i++) {
		struct manifest_gap g;

		fmt_manifest_gap(p, h->nsegs, i, &g);
		if (g.lsn < prev_end || g.lsn % 8 != 0 || g.len % 8 != 0 || g.len == 0 ||
		    emdb_add_ovf(g.lsn, g.len, &prev_end))
			return false;
	}
	return true;
}

emdb_err fmt_manifest_decode(const uint8_t *p, size_t n, struct manifest_head *ret)
{
	struct manifest_head h;

	if (n < MANIFEST_HEAD + 4 || memcmp(p, manifest_magic, 8) != 0)
		return EMDB_ERR_CORRUPT;
	if (get_u32(p + 8) > FMT_VERSION)
		return EMDB_ERR_VERSION;
	if (get_u32(p + 8) != FMT_VERSION || get_u32(p + 12) != n ||
	    crc32c(0, p, n - 4) != get_u32(p + n - 4))
		return EMDB_ERR_CORRUPT;
	memcpy(h.uuid, p + 16, 16);
	h.generation = get_u64(p + 32);
	h.durable_lsn = get_u64(p + 40);
	h.next_segment = get_u64(p + 48);
	h.flags = get_u64(p + 56);
	h.ckpt = get_u64(p + 64);
	h.ckpt_lsn = get_u64(p + 72);
	h.ckpt_prev = get_u64(p + 80);
	h.ckpt_prev_lsn = get_u64(p + 88);
	h.nsegs = get_u32(p + 96);
	h.ngaps = get_u32(p + 100);
	if ((h.flags & ~(uint64_t)(MANIFEST_CLEAN | MANIFEST_MAC)) || h.next_segment == 0 ||
	    h.next_segment > FMT_NEXT_SEGMENT_MAX || h.nsegs > FMT_MANIFEST_MAX / MANIFEST_SEG ||
	    h.ngaps > FMT_MANIFEST_MAX / MANIFEST_GAP || fmt_manifest_len(&h) != n ||
	    !manifest_rows_ok(p, &h))
		return EMDB_ERR_CORRUPT;
	memset(h.mac, 0, sizeof(h.mac));
	if (h.flags & MANIFEST_MAC)
		memcpy(h.mac, p + n - 4 - sizeof(h.mac), sizeof(h.mac));
	*ret = h;
	return EMDB_OK;
}

/* ---- What the last scrub found ----------------------------------------------- */

void fmt_scrub_encode(const struct scrub_status *s, uint8_t buf[FMT_SCRUB_SIZE])
{
	memset(buf, 0, FMT_SCRUB_SIZE);
	memcpy(buf, scrub_magic, 8);
	put_u32(buf + 8, FMT_VERSION);
	put_u32(buf + 12, s->complete);
	memcpy(buf + 16, s->uuid, 16);
	put_u64(buf + 32, (uint64_t)s->began_ms);
	put_u64(buf + 40, (uint64_t)s->ended_ms);
	put_u64(buf + 48, s->bytes);
	put_u64(buf + 56, s->frames);
	put_u64(buf + 64, s->damaged);
	put_u64(buf + 72, s->lost_entries);
	put_u64(buf + 80, s->skipped_bytes);
	put_u32(buf + 92, crc32c(0, buf, 92));
}

bool fmt_scrub_decode(const uint8_t *p, size_t n, struct scrub_status *ret)
{
	if (n != FMT_SCRUB_SIZE || memcmp(p, scrub_magic, 8) != 0 ||
	    crc32c(0, p, 92) != get_u32(p + 92) || get_u32(p + 8) != FMT_VERSION ||
	    get_u32(p + 12) > 1 || get_u32(p + 88) != 0)
		return false;
	ret->complete = get_u32(p + 12);
	memcpy(ret->uuid, p + 16, 16);
	ret->began_ms = (int64_t)get_u64(p + 32);
	ret->ended_ms = (int64_t)get_u64(p + 40);
	ret->bytes = get_u64(p + 48);
	ret->frames = get_u64(p + 56);
	ret->damaged = get_u64(p + 64);
	ret->lost_entries = get_u64(p + 72);
	ret->skipped_bytes = get_u64(p + 80);
	return true;
}
