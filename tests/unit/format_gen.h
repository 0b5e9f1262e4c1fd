/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records, frames and batches with random content, for the tests of the format. What the caller
 * gets is allocated in exactly its size, so that AddressSanitizer sees a byte read too many.
 */
#ifndef EMDB_FORMAT_GEN_H
#define EMDB_FORMAT_GEN_H

#include "tests/unit/test.h"

#include "core/base.h"
#include "core/format.h"

#define LSN UINT64_C(0x4000100)

/* What the format says each kind must and may have, once more and by hand. */
static const struct {
	uint32_t must, may;
} fields[REC_KIND_MAX + 1] = {
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

/* ---- Making things ---- */

static inline void *copy(const void *p, size_t n)
{
	void *const q = malloc(n ? n : 1);

	CHECK(q);
	if (n)
		memcpy(q, p, n);
	return q;
}

/* Any number of bits equally often: small numbers and huge ones. */
static inline uint64_t any(uint64_t *rnd)
{
	return test_rand(rnd) >> (test_rand(rnd) % 64);
}

static inline uint8_t *any_bytes(uint64_t *rnd, size_t n)
{
	uint8_t *const p = malloc(n ? n : 1);

	CHECK(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)test_rand(rnd);
	return p;
}

static inline size_t make_extents(uint64_t *rnd, uint64_t at, size_t n, uint8_t *buf)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		const struct rec_extent e = { at + any(rnd) % (1 << 20), 1 + any(rnd) % (1 << 20),
					      test_rand(rnd), any(rnd) % (1 << 20) };

		len += fmt_extent_encode(&e, at, buf + len);
		at = e.off + e.len;
	}
	return len;
}

static inline size_t make_xattrs(uint64_t *rnd, size_t n, uint8_t *buf)
{
	struct wcur w = wcur_init(buf, n * 64);

	for (size_t i = 0; i < n; i++) {
		const size_t name = 1 + test_rand(rnd) % 20;
		const size_t value = test_rand(rnd) % 40;

		wcur_u8(&w, (uint8_t)name);
		for (size_t j = 0; j < name; j++)
			wcur_u8(&w, (uint8_t)(1 + test_rand(rnd) % 255));
		wcur_varint(&w, value);
		for (size_t j = 0; j < value; j++)
			wcur_u8(&w, (uint8_t)test_rand(rnd));
	}
	CHECK(!w.err);
	return wcur_len(&w);
}

/* A record whose variable parts belong to the caller: rec_release(). */
static inline struct rec any_rec(uint64_t *rnd, uint8_t kind, size_t value_max)
{
	struct rec r = { .kind = kind };
	uint8_t tmp[8 * 64];

	r.mask = fields[kind].must | (fields[kind].may & (uint32_t)test_rand(rnd));
	r.ns = any(rnd);
	r.key_len = r.mask & REC_F_KEY ? test_rand(rnd) % 40 : 0;
	r.key = any_bytes(rnd, r.key_len);
	r.time_ns = r.mask & REC_F_TIME ? (int64_t)any(rnd) : 0;
	r.mtime_ns = r.mask & REC_F_TIMES ? (int64_t)any(rnd) : r.time_ns;
	r.atime_ns = r.mask & REC_F_TIMES ? -(int64_t)any(rnd) : r.time_ns;
	r.btime_ns = r.mask & REC_F_TIMES ? (int64_t)test_rand(rnd) : r.time_ns;
	r.mode = (uint32_t)any(rnd) & 0xffff;
	r.uid = (uint32_t)any(rnd);
	r.gid = (uint32_t)any(rnd);
	r.id = any(rnd);
	r.expires_ms = (int64_t)(any(rnd) >> 1);
	r.size = any(rnd) % (EMDB_VALUE_MAX + 1);
	r.off = any(rnd) % (UINT64_C(1) << 62);
	r.len = any(rnd) % (EMDB_VALUE_MAX + 1);
	r.origin = any(rnd);
	r.rdev = any(rnd);
	r.ttl_default_ms = (int64_t)(any(rnd) >> 1);
	r.ttl_basis = test_rand(rnd) % 2;
	r.flags = any(rnd);
	r.xattrs_len = r.mask & REC_F_XATTRS ? make_xattrs(rnd, test_rand(rnd) % 5, tmp) : 0;
	r.xattrs = copy(tmp, r.xattrs_len);
	r.extent_count = r.mask & REC_F_EXTENTS ? test_rand(rnd) % 8 : 0;
	r.extents_len = make_extents(rnd, kind == REC_CLONE ? r.off : 0, r.extent_count, tmp);
	r.extents = copy(tmp, r.extents_len);
	r.value_len = r.mask & REC_F_VALUE ? test_rand(rnd) % (value_max + 1) : 0;
	r.value = any_bytes(rnd, r.value_len);
	return r;
}

static inline void rec_release(struct rec *r)
{
	free((void *)(uintptr_t)r->key);
	free((void *)(uintptr_t)r->xattrs);
	free((void *)(uintptr_t)r->extents);
	free((void *)(uintptr_t)r->value);
}

/* The fields of r with `pad` zeros behind; free() it. */
static inline uint8_t *encode(const struct rec *r, size_t pad, size_t *ret_n)
{
	const size_t max = fmt_rec_head_max(r);
	uint8_t *const head = malloc(max);
	uint8_t *p;
	size_t n;

	CHECK(head);
	n = fmt_rec_encode(r, head, max);
	p = calloc(1, n + r->value_len + pad);
	CHECK(p);
	memcpy(p, head, n);
	if (r->value_len)
		memcpy(p + n, r->value, r->value_len);
	free(head);
	*ret_n = n + r->value_len + pad;
	return p;
}

/* r alone in a frame, free() it. */
static inline uint8_t *frame_of(const struct rec *r, uint64_t lsn, uint32_t *ret_len)
{
	size_t n;
	uint8_t *const body = encode(r, 0, &n);
	const uint32_t len = (uint32_t)align_up(FMT_FRAME_HEADER + n, 8);
	uint8_t *const p = calloc(1, len);

	CHECK(p);
	fmt_frame_header(p, r->kind, len, lsn, lsn - 64);
	memcpy(p + FMT_FRAME_HEADER, body, n);
	fmt_frame_finish(p, len, 0);
	free(body);
	*ret_len = len;
	return p;
}

/* n records in one BATCH frame, free() it. */
static inline uint8_t *batch_of(const struct rec *r, uint32_t n, uint64_t lsn, uint32_t *ret_len)
{
	uint32_t len = FMT_BATCH_HEADER;
	uint8_t *p = calloc(1, len);

	for (uint32_t i = 0; i < n; i++) {
		size_t body_len;
		uint8_t *const body = encode(&r[i], 0, &body_len);
		const uint32_t size = (uint32_t)align_up(FMT_BATCH_PREFIX + body_len, 8);

		p = realloc(p, len + size);
		CHECK(p);
		memset(p + len, 0, size);
		put_u32(p + len, size / 8 | (uint32_t)r[i].kind << 24);
		put_u32(p + len + 4, len / 8);
		memcpy(p + len + FMT_BATCH_PREFIX, body, body_len);
		len += size;
		free(body);
	}
	fmt_frame_header(p, FRAME_BATCH, len, lsn, 0);
	put_u32(p + FMT_FRAME_HEADER, n);
	fmt_frame_finish(p, len, 0);
	*ret_len = len;
	return p;
}

/* ---- Comparing ---- */

static inline uint64_t masked(const struct rec *r, uint32_t bit, uint64_t v)
{
	return r->mask & bit ? v : 0;
}

#define SAME(bit, field) CHECK_UEQ(b->field, masked(a, bit, (uint64_t)a->field))

/* b, decoded, is a, as it was made: absent fields are zero and absent times are TIME. */
static inline void check_same(const struct rec *a, const struct rec *b)
{
	CHECK_UEQ(b->kind, a->kind);
	CHECK_UEQ(b->mask, a->mask);
	SAME(REC_F_NS, ns);
	SAME(REC_F_ID, id);
	SAME(REC_F_SIZE, size);
	SAME(REC_F_OFF, off);
	SAME(REC_F_LEN, len);
	SAME(REC_F_ORIGIN, origin);
	SAME(REC_F_RDEV, rdev);
	SAME(REC_F_FLAGS, flags);
	SAME(REC_F_META, mode);
	SAME(REC_F_META, uid);
	SAME(REC_F_META, gid);
	SAME(REC_F_TTLDEF, ttl_basis);
	SAME(REC_F_EXTENTS, extent_count);
	CHECK_EQ(b->ttl_default_ms, masked(a, REC_F_TTLDEF, (uint64_t)a->ttl_default_ms));
	CHECK_EQ(b->expires_ms, masked(a, REC_F_EXPIRES, (uint64_t)a->expires_ms));
	CHECK_EQ(b->time_ns, a->time_ns);
	CHECK_EQ(b->mtime_ns, a->mtime_ns);
	CHECK_EQ(b->atime_ns, a->atime_ns);
	CHECK_EQ(b->btime_ns, a->btime_ns);
	CHECK_MEM(b->key, b->key_len, a->key, a->key_len);
	CHECK_MEM(b->xattrs, b->xattrs_len, a->xattrs, a->xattrs_len);
	CHECK_MEM(b->extents, b->extents_len, a->extents, a->extents_len);
	CHECK_MEM(b->value, b->value_len, a->value, a->value_len);
}

/* What decodes is the only form of what it says: it encodes to the same bytes, padding apart. */
static inline void check_canonical(const struct rec *r, const uint8_t *p, size_t n)
{
	size_t m;
	uint8_t *const again = encode(r, 0, &m);

	CHECK(m <= n && n - m < 8 + FMT_TAG);
	CHECK_MEM(again, m, p, m);
	free(again);
}

#undef SAME

#endif
