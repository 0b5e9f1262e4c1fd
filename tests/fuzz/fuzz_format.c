/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every decoder of the on-disk format. The first byte chooses one; all that is reachable from what
 * decodes is walked, and encoded again it must give the same bytes: nothing in the format can be
 * said in two ways. Checksums are set right first where they would stop everything.
 */
#include "core/base.h"
#include "core/format.h"

#define LSN UINT64_C(0x4000100)

/* ---- Records ---- */

static void walk_xattrs(const uint8_t *p, size_t n)
{
	struct cur c = cur_init(p, n);
	uint8_t *const buf = malloc(n ? n : 1);
	struct wcur w = wcur_init(buf, n);
	const uint8_t *value;
	const char *name;
	size_t name_len, value_len, used;

	emdb_assert(buf);
	while (fmt_xattr_next(&c, &name, &name_len, &value, &value_len)) {
		emdb_assert(name_len >= 1 && name_len <= EMDB_XATTR_NAME_MAX);
		emdb_assert(value_len <= EMDB_XATTR_VALUE_MAX);
		wcur_u8(&w, (uint8_t)name_len);
		wcur_bytes(&w, name, name_len);
		wcur_blob(&w, value, value_len);
		used = wcur_len(&w);
		emdb_assert(!w.err && used == (size_t)(c.p - p) && memcmp(buf, p, used) == 0);
	}
	emdb_assert(c.err || wcur_len(&w) == n);
	free(buf);
}

static void walk_extents(const uint8_t *p, size_t n, uint64_t start)
{
	struct cur c = cur_init(p, n);
	uint8_t buf[FMT_EXTENT_BYTES_MAX];
	uint64_t end = start, before = start;
	const uint8_t *at = p;
	struct rec_extent e;
	size_t used;

	while (fmt_extent_next(&c, &end, &e)) {
		emdb_assert(e.len > 0 && e.len <= FMT_FRAME_MAX && e.skip <= FMT_FRAME_MAX);
		emdb_assert(e.off >= before && e.off + e.len == end && end <= EMDB_VALUE_MAX);
		used = fmt_extent_encode(&e, before, buf);
		emdb_assert(used == (size_t)(c.p - at) && memcmp(buf, at, used) == 0);
		at = c.p;
		before = end;
	}
	emdb_assert(c.err || at == c.end);
}

/* r was decoded from n bytes at p. */
static void walk_rec(const struct rec *r, const uint8_t *p, size_t n)
{
	const size_t max = fmt_rec_head_max(r);
	uint8_t *const buf = malloc(max);
	size_t used;

	emdb_assert(buf);
	used = fmt_rec_encode(r, buf, max);
	emdb_assert(used <= n && memcmp(buf, p, used) == 0);
	emdb_assert(r->value_len <= n - used && n - used - r->value_len < 8 + FMT_TAG);
	emdb_assert(!r->value_len || r->value == p + used);
	free(buf);
	emdb_assert(r->key_len <= EMDB_KEY_MAX && r->xattrs_len <= EMDB_XATTRS_MAX);
	emdb_assert(r->size <= EMDB_VALUE_MAX && r->off <= EMDB_VALUE_MAX &&
		    r->len <= EMDB_VALUE_MAX);
	emdb_assert(r->expires_ms >= 0 && r->ttl_default_ms >= 0);
	walk_xattrs(r->xattrs, r->xattrs_len);
	walk_extents(r->extents, r->extents_len, r->kind == REC_CLONE ? r->off : 0);
}

static void one_rec(const uint8_t *p, size_t n)
{
	struct rec r;

	if (n && fmt_rec_decode(p[0], p + 1, n - 1, &r))
		walk_rec(&r, p + 1, n - 1);
}

static void one_batch_rec(const uint8_t *p, size_t n)
{
	struct rec r;
	uint32_t back;

	if (!fmt_batch_rec_at(p, n, &r, &back))
		return;
	emdb_assert(back % 8 == 0 && back <= FMT_FRAME_MAX);
	walk_rec(&r, p + FMT_BATCH_PREFIX, (get_u32(p) & 0xffffffu) * (size_t)8 - FMT_BATCH_PREFIX);
}

/* ---- Frames ---- */

static void walk_batch(const struct frame *f)
{
	uint64_t ref = 0, last = f->lsn;
	struct batch_iter it;
	struct rec r, again;
	uint32_t back, at;
	int got;

	if (!fmt_batch_begin(f, &it))
		return;
	while ((got = fmt_batch_next(&it, &r, &ref)) == 1) {
		emdb_assert((ref & REF_FLAGS) == REF_BATCH && ref_lsn(ref) > last);
		last = ref_lsn(ref);
		at = (uint32_t)(last - f->lsn);
		emdb_assert(fmt_batch_rec_at(f->p + at, f->len - at, &again, &back) && back == at);
		walk_rec(&r, f->p + at + FMT_BATCH_PREFIX,
			 (get_u32(f->p + at) & 0xffffffu) * (size_t)8 - FMT_BATCH_PREFIX);
	}
	emdb_assert(got != 0 || it.at == f->len);
	at = it.at;
	if (got < 0 && fmt_batch_skip(&it)) {
		emdb_assert(it.at >= at + FMT_BATCH_PREFIX && it.at <= f->len);
		(void)fmt_batch_next(&it, &r, &ref);
	}
}

static void walk_frame(const struct frame *f)
{
	struct rec r;

	emdb_assert(f->len >= FMT_FRAME_HEADER && f->len % 8 == 0);
	emdb_assert(fmt_frame_durable(f) <= f->lsn);
	if (fmt_frame_rec(f, &r))
		walk_rec(&r, f->p + FMT_FRAME_HEADER, f->len - FMT_FRAME_HEADER);
	walk_batch(f);
}

/* A journal's bytes, one frame after the other as recovery reads them. */
static void many_frames(const uint8_t *data, size_t n)
{
	uint8_t *const p = malloc(n ? n : 1);
	struct frame f, again;
	size_t at = 0;

	emdb_assert(p);
	if (n)
		memcpy(p, data, n);
	for (;;) {
		/* Where the frame says it is, if that is a place: the rule has a test of its own. */
		const uint64_t said = n - at >= FMT_FRAME_HEADER ? get_u64(p + at + 8) : LSN;
		const uint64_t lsn = said % 8 == 0 && said >> 62 == 0 ? said : LSN;

		if (fmt_frame_parse(p + at, n - at, lsn, false, 0, &f) != FRAME_OK)
			break;
		emdb_assert(f.len <= n - at && f.lsn == lsn);
		emdb_assert(fmt_frame_parse(p + at, n - at, lsn + 8, false, 0, &again) ==
			    FRAME_STALE);
		fmt_frame_finish(p + at, f.len, 0);
		emdb_assert(fmt_frame_parse(p + at, n - at, lsn, true, 0, &again) == FRAME_OK);
		walk_frame(&f);
		at += f.len;
	}
	free(p);
}

static void raw_frame(const uint8_t *p, size_t n)
{
	struct frame f;
	const enum frame_status st = fmt_frame_parse(p, n, LSN, true, 0, &f);

	emdb_assert(*fmt_frame_status_text(st));
	if (st == FRAME_OK)
		walk_frame(&f);
}

/* ---- Files ---- */

static void one_super(const uint8_t *p, size_t n)
{
	uint8_t buf[FMT_SUPER_SIZE] = { 0 }, again[FMT_SUPER_SIZE];
	struct superblock sb;

	(void)!fmt_super_decode(p, n, &sb);
	if (n)
		memcpy(buf, p, min_size(n, sizeof(buf) - 4));
	put_u32(buf + sizeof(buf) - 4, crc32c(0, buf, sizeof(buf) - 4));
	if (fmt_super_decode(buf, sizeof(buf), &sb) != EMDB_OK)
		return;
	fmt_super_encode(&sb, again);
	emdb_assert(memcmp(buf, again, sizeof(buf)) == 0);
}

static void one_seg(const uint8_t *p, size_t n)
{
	uint8_t buf[FMT_SEG_HEADER] = { 0 }, again[FMT_SEG_HEADER];
	struct seg_header h;

	(void)fmt_seg_decode(p, n, &h);
	if (n)
		memcpy(buf, p, min_size(n, sizeof(buf) - 4));
	put_u32(buf + sizeof(buf) - 4, crc32c(0, buf, sizeof(buf) - 4));
	if (!fmt_seg_decode(buf, sizeof(buf), &h))
		return;
	fmt_seg_encode(&h, again);
	emdb_assert(memcmp(buf, again, sizeof(buf)) == 0);
}

static void one_scrub(const uint8_t *p, size_t n)
{
	uint8_t buf[FMT_SCRUB_SIZE] = { 0 }, again[FMT_SCRUB_SIZE];
	struct scrub_status s;

	(void)fmt_scrub_decode(p, n, &s);
	if (n)
		memcpy(buf, p, min_size(n, sizeof(buf) - 4));
	put_u32(buf + sizeof(buf) - 4, crc32c(0, buf, sizeof(buf) - 4));
	if (!fmt_scrub_decode(buf, sizeof(buf), &s))
		return;
	fmt_scrub_encode(&s, again);
	emdb_assert(memcmp(buf, again, sizeof(buf)) == 0);
}

static void manifest_again(const struct manifest_head *h, const uint8_t *p, size_t n)
{
	struct manifest_seg *const segs = calloc(h->nsegs + 1u, sizeof(*segs));
	struct manifest_gap *const gaps = calloc(h->ngaps + 1u, sizeof(*gaps));
	uint8_t *const again = malloc(n);

	emdb_assert(segs && gaps && again);
	for (uint32_t i = 0; i < h->nsegs; i++) {
		fmt_manifest_seg(p, i, &segs[i]);
		emdb_assert(segs[i].id < h->next_segment && (!i || segs[i].id > segs[i - 1].id));
	}
	for (uint32_t i = 0; i < h->ngaps; i++)
		fmt_manifest_gap(p, h->nsegs, i, &gaps[i]);
	fmt_manifest_encode(h, segs, gaps, again);
	emdb_assert(memcmp(again, p, n) == 0);
	free(again);
	free(gaps);
	free(segs);
}

/* The length and the checksum are set right, the numbers of rows are the fuzzer's. */
static void one_manifest(const uint8_t *p, size_t n)
{
	uint8_t *const buf = malloc(n + 4);
	struct manifest_head h;

	(void)!fmt_manifest_decode(p, n, &h);
	emdb_assert(buf);
	if (n)
		memcpy(buf, p, n);
	if (n >= 16)
		put_u32(buf + 12, (uint32_t)n + 4);
	put_u32(buf + n, crc32c(0, buf, n));
	if (fmt_manifest_decode(buf, n + 4, &h) == EMDB_OK)
		manifest_again(&h, buf, n + 4);
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t choice;

	if (size == 0)
		return 0;
	choice = *data++;
	size--;
	/* The corpus knows the others by their remainder. */
	switch (choice == UINT8_MAX ? 9 : choice % 9) {
	case 0:
		many_frames(data, size);
		break;
	case 1:
		one_rec(data, size);
		break;
	case 2:
		one_batch_rec(data, size);
		break;
	case 3:
		walk_extents(data, size, 0);
		break;
	case 4:
		walk_xattrs(data, size);
		break;
	case 5:
		one_super(data, size);
		break;
	case 6:
		one_seg(data, size);
		break;
	case 7:
		one_manifest(data, size);
		break;
	case 9:
		one_scrub(data, size);
		break;
	default:
		raw_frame(data, size);
	}
	return 0;
}
