/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: bytes and numbers. Little-endian fixed integers, LEB128 varints, bounded cursors for
 * reading and writing, CRC-32C and the keyed hash of a key. Pure: no memory is taken, no state kept.
 *
 * Cursor rule (both directions): the first access that does not fit sets err and moves nothing;
 * every later access is refused as well, reads give 0 or NULL. So a decoder reads all its fields
 * and looks at err once, before it believes any of them.
 *
 * Varint: 7 bits a byte, least significant first, at most 10 bytes. Only the shortest form is
 * accepted (no trailing zero byte, nothing above bit 63), so equal numbers have equal bytes.
 */
#ifndef EMDB_CODEC_H
#define EMDB_CODEC_H

#include "core/base.h"

#define VARINT_MAX 10 /* bytes of the longest varint */

/* ---- Fixed-size little-endian ---- */

static inline uint16_t get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t get_u64(const uint8_t *p)
{
	return (uint64_t)get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

static inline void put_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

static inline void put_u64(uint8_t *p, uint64_t v)
{
	put_u32(p, (uint32_t)v);
	put_u32(p + 4, (uint32_t)(v >> 32));
}

/* ---- Varint ---- */

/* Bytes that v takes, 1 to VARINT_MAX. */
static inline size_t varint_len(uint64_t v)
{
	return (size_t)(63 - __builtin_clzll(v | 1)) / 7 + 1;
}

/* Writes v at p, which has room for varint_len(v); returns the bytes written. */
static inline size_t varint_put(uint8_t *p, uint64_t v)
{
	size_t n = 0;

	while (v >= 0x80) {
		p[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	p[n++] = (uint8_t)v;
	return n;
}

/* Reads from n bytes at p; returns the bytes used, or 0 when cut short or not canonical. */
static inline EMDB_MUST_CHECK size_t varint_get(const uint8_t *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;

	if (likely(n && p[0] < 0x80)) {
		*ret = p[0];
		return 1;
	}
	for (size_t i = 0; i < n && i < VARINT_MAX; i++) {
		if (i == VARINT_MAX - 1 && p[i] > 1)
			return 0;
		v |= (uint64_t)(p[i] & 0x7f) << (7 * i);
		if (p[i] < 0x80) {
			if (p[i] == 0) /* i > 0 here: a longer form than needed */
				return 0;
			*ret = v;
			return i + 1;
		}
	}
	return 0;
}

/* Signed numbers near zero become small unsigned ones: 0, -1, 1, -2 ... -> 0, 1, 2, 3 ... */
static inline uint64_t zigzag_encode(int64_t v)
{
	return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t zigzag_decode(uint64_t v)
{
	return (int64_t)((v >> 1) ^ (v & 1 ? UINT64_MAX : 0));
}

/* ---- Reading cursor ---- */

struct cur {
	const uint8_t *p;   /* next byte */
	const uint8_t *end; /* one past the last byte */
	bool err;
};

static inline struct cur cur_init(const void *p, size_t n)
{
	const uint8_t *const b = p;

	return (struct cur){ b, n ? b + n : b, false };
}

/* Bytes not read yet; 0 after an error. */
static inline size_t cur_left(const struct cur *c)
{
	return c->err ? 0 : (size_t)(c->end - c->p);
}

/* True when everything was read without an error. */
static inline bool cur_done(const struct cur *c)
{
	return !c->err && c->p == c->end;
}

/* n bytes in place, NULL on error. With n == 0 the pointer may not be read. */
static inline const uint8_t *cur_bytes(struct cur *c, uint64_t n)
{
	const uint8_t *const p = c->p;

	if (unlikely(c->err || n > (size_t)(c->end - p))) {
		c->err = true;
		return NULL;
	}
	c->p = n ? p + n : p;
	return p;
}

static inline uint8_t cur_u8(struct cur *c)
{
	const uint8_t *const p = cur_bytes(c, 1);

	return p ? *p : 0;
}

static inline uint16_t cur_u16(struct cur *c)
{
	const uint8_t *const p = cur_bytes(c, 2);

	return p ? get_u16(p) : 0;
}

static inline uint32_t cur_u32(struct cur *c)
{
	const uint8_t *const p = cur_bytes(c, 4);

	return p ? get_u32(p) : 0;
}

static inline uint64_t cur_u64(struct cur *c)
{
	const uint8_t *const p = cur_bytes(c, 8);

	return p ? get_u64(p) : 0;
}

static inline uint64_t cur_varint(struct cur *c)
{
	uint64_t v = 0;
	size_t n = 0;

	if (likely(!c->err))
		n = varint_get(c->p, (size_t)(c->end - c->p), &v);
	if (unlikely(n == 0)) {
		c->err = true;
		return 0;
	}
	c->p += n;
	return v;
}

static inline int64_t cur_zigzag(struct cur *c)
{
	return zigzag_decode(cur_varint(c));
}

/* A varint that must be at most max; a larger one is an error. */
static inline uint64_t cur_varint_max(struct cur *c, uint64_t max)
{
	const uint8_t *const p = c->p;
	const uint64_t v = cur_varint(c);

	if (unlikely(v > max)) {
		c->p = p;
		c->err = true;
		return 0;
	}
	return v;
}

/* A varint length of at most max, then that many bytes. NULL and *ret_n = 0 on error. */
static inline const uint8_t *cur_blob(struct cur *c, uint64_t max, size_t *ret_n)
{
	const uint64_t n = cur_varint_max(c, max);
	const uint8_t *const p = cur_bytes(c, n);

	*ret_n = p ? (size_t)n : 0;
	return p;
}

/* ---- Writing cursor over a fixed buffer ---- */

struct wcur {
	uint8_t *p; /* next byte */
	uint8_t *start;
	uint8_t *end; /* one past the last byte */
	bool err;
};

static inline struct wcur wcur_init(void *p, size_t n)
{
	uint8_t *const b = p;

	return (struct wcur){ b, b, n ? b + n : b, false };
}

/* Bytes written so far. */
static inline size_t wcur_len(const struct wcur *w)
{
	return (size_t)(w->p - w->start);
}

/* Room for n bytes, to be filled by the caller; NULL on error. */
static inline uint8_t *wcur_space(struct wcur *w, size_t n)
{
	uint8_t *const p = w->p;

	if (unlikely(w->err || n > (size_t)(w->end - p))) {
		w->err = true;
		return NULL;
	}
	w->p = n ? p + n : p;
	return p;
}

static inline void wcur_u8(struct wcur *w, uint8_t v)
{
	uint8_t *const p = wcur_space(w, 1);

	if (likely(p))
		*p = v;
}

static inline void wcur_u16(struct wcur *w, uint16_t v)
{
	uint8_t *const p = wcur_space(w, 2);

	if (likely(p))
		put_u16(p, v);
}

static inline void wcur_u32(struct wcur *w, uint32_t v)
{
	uint8_t *const p = wcur_space(w, 4);

	if (likely(p))
		put_u32(p, v);
}

static inline void wcur_u64(struct wcur *w, uint64_t v)
{
	uint8_t *const p = wcur_space(w, 8);

	if (likely(p))
		put_u64(p, v);
}

static inline void wcur_varint(struct wcur *w, uint64_t v)
{
	uint8_t *const p = wcur_space(w, varint_len(v));

	if (likely(p))
		(void)varint_put(p, v);
}

static inline void wcur_zigzag(struct wcur *w, int64_t v)
{
	wcur_varint(w, zigzag_encode(v));
}

static inline void wcur_bytes(struct wcur *w, const void *src, size_t n)
{
	uint8_t *const p = wcur_space(w, n);

	if (likely(p && n))
		memcpy(p, src, n);
}

static inline void wcur_zero(struct wcur *w, size_t n)
{
	uint8_t *const p = wcur_space(w, n);

	if (likely(p && n))
		memset(p, 0, n);
}

/* The twin of cur_blob: varint length, then the bytes. */
static inline void wcur_blob(struct wcur *w, const void *src, size_t n)
{
	wcur_varint(w, n);
	wcur_bytes(w, src, n);
}

/* ---- Checksum ---- */

/*
 * CRC-32C (Castagnoli). Start with seed 0; crc32c(crc32c(0, a, n), b, m) is the checksum of a and b
 * in one piece. crc32c(0, "123456789", 9) == 0xE3069283. p may be NULL when n is 0.
 */
uint32_t crc32c(uint32_t seed, const void *p, size_t n);
/* The seed with which crc32c(seed, p, n) gives crc. A byte at a time: for repair. */
uint32_t crc32c_before(uint32_t crc, const void *p, size_t n);
/* Fills in the last 4 of n bytes so that crc32c(0, p, n) is crc. n >= 4. */
void crc32c_forge(uint32_t crc, uint8_t *p, size_t n);

/* ---- Key hash ---- */

/*
 * A 64-bit hash keyed by the store's secret seed, so that nobody outside can choose keys that
 * collide. Expanded once from the 32 bytes kept in the superblock. The function is part of the
 * on-disk format (hash order is saved in checkpoints): XXH3 with a secret, whose output is fixed
 * since xxHash 0.8.0, over a ChaCha20 key stream. Immutable after init; treat it as key material.
 */
struct hash_seed {
	uint8_t secret[192];
	uint64_t mix; /* folded into every hash together with the namespace */
};

void hash_seed_init(struct hash_seed *s, const uint8_t seed[static 32]);

/* ns is the namespace id, so that equal keys of two namespaces do not share a hash. */
uint64_t key_hash(const struct hash_seed *s, uint64_t ns, const void *key, size_t n);

#endif
