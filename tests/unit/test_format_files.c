/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a store that are no journal: superblock, segment header, manifest. */
#include "tests/unit/format_gen.h"

static void fill(uint64_t *rnd, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)test_rand(rnd);
}

/* Writes the CRC that belongs behind n bytes, so that only the changed field is wrong. */
static void reseal(uint8_t *p, size_t n)
{
	put_u32(p + n, crc32c(0, p, n));
}

/* ---- Superblock ---- */

static struct superblock any_super(uint64_t *rnd)
{
	struct superblock sb = { .version = FMT_VERSION };

	sb.segment_shift = (uint32_t)(FMT_SEG_SHIFT_MIN + test_rand(rnd) % 11);
	sb.uid = (uint32_t)any(rnd);
	sb.gid = (uint32_t)any(rnd);
	sb.compat = any(rnd);
	sb.created_ns = (int64_t)any(rnd);
	sb.frozen_ms = (int64_t)(any(rnd) % (FMT_FROZEN_MAX + 1));
	sb.snap_number = sb.frozen_ms ? any(rnd) : 0;
	fill(rnd, sb.uuid, sizeof(sb.uuid));
	fill(rnd, sb.hash_seed, sizeof(sb.hash_seed));
	return sb;
}

TEST(test_format_files__superblock_round_trip)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 500; i++) {
		const struct superblock sb = any_super(&rnd);
		struct superblock got;
		uint8_t buf[FMT_SUPER_SIZE], again[FMT_SUPER_SIZE];

		fmt_super_encode(&sb, buf);
		CHECK_EQ(fmt_super_decode(buf, sizeof(buf), &got), EMDB_OK);
		CHECK_UEQ(got.version, sb.version);
		CHECK_UEQ(got.segment_shift, sb.segment_shift);
		CHECK_UEQ(got.cipher, 0);
		CHECK_UEQ(got.uid, sb.uid);
		CHECK_UEQ(got.gid, sb.gid);
		CHECK_UEQ(got.compat, sb.compat);
		CHECK_UEQ(got.incompat, 0);
		CHECK_EQ(got.created_ns, sb.created_ns);
		CHECK_EQ(got.frozen_ms, sb.frozen_ms);
		CHECK_UEQ(got.snap_number, sb.snap_number);
		CHECK_MEM(got.uuid, 16, sb.uuid, 16);
		CHECK_MEM(got.hash_seed, 32, sb.hash_seed, 32);
		fmt_super_encode(&got, again);
		CHECK_MEM(again, sizeof(again), buf, sizeof(buf));
	}
}

TEST(test_format_files__every_bit_flip_and_prefix_of_a_superblock_is_detected)
{
	uint64_t rnd = test_seed();
	const struct superblock sb = any_super(&rnd);
	struct superblock got = { .version = 77 };
	uint8_t *const buf = malloc(FMT_SUPER_SIZE + 1);

	CHECK(buf);
	buf[FMT_SUPER_SIZE] = 0;
	fmt_super_encode(&sb, buf);
	for (size_t bit = 0; bit < FMT_SUPER_SIZE * 8; bit++) {
		const emdb_err want = bit < 64                ? EMDB_ERR_NOT_STORE
				      : bit < 96 && bit != 64 ? EMDB_ERR_VERSION
							      : EMDB_ERR_CORRUPT;

		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK_EQ(fmt_super_decode(buf, FMT_SUPER_SIZE, &got), want);
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t n = 0; n < FMT_SUPER_SIZE; n++) {
		uint8_t *const cut = copy(buf, n);

		CHECK_EQ(fmt_super_decode(cut, n, &got),
			 n < 8 ? EMDB_ERR_NOT_STORE : EMDB_ERR_CORRUPT);
		free(cut);
	}
	CHECK_EQ(fmt_super_decode(buf, FMT_SUPER_SIZE + 1, &got), EMDB_ERR_CORRUPT);
	CHECK_UEQ(got.version, 77); /* untouched on failure */
	free(buf);
}

TEST(test_format_files__superblock_fields_are_checked)
{
	static const struct {
		size_t off;
		uint64_t value;
		unsigned int size;
		emdb_err want;
	} rows[] = {
		{ 8, 0, 4, EMDB_ERR_CORRUPT },
		{ 8, 2, 4, EMDB_ERR_VERSION },
		{ 8, UINT32_MAX, 4, EMDB_ERR_VERSION },
		{ 12, 19, 4, EMDB_ERR_CORRUPT },
		{ 12, 20, 4, EMDB_OK },
		{ 12, 30, 4, EMDB_OK },
		{ 12, 31, 4, EMDB_ERR_CORRUPT },
		{ 12, UINT32_MAX, 4, EMDB_ERR_CORRUPT },
		{ 16, UINT64_MAX, 8, EMDB_OK }, /* compatible features are ignored */
		{ 24, 1, 8, EMDB_OK },          /* CRCs are seeded */
		{ 24, UINT64_C(1) << 62, 8, EMDB_ERR_VERSION },
		{ 24, UINT64_C(1) << 63, 8, EMDB_ERR_VERSION },
		{ 48, 1, 4, EMDB_ERR_CORRUPT },
		{ 100, 1, 4, EMDB_ERR_CORRUPT },
		{ 104, 0, 8, EMDB_ERR_CORRUPT }, /* a number, but no snapshot */
		{ 104, FMT_FROZEN_MAX, 8, EMDB_OK },
		{ 104, FMT_FROZEN_MAX + 1, 8, EMDB_ERR_CORRUPT }, /* no such time in ns */
		{ 104, INT64_MAX, 8, EMDB_ERR_CORRUPT },
		{ 104, UINT64_MAX, 8, EMDB_ERR_CORRUPT },
		{ 112, UINT64_MAX, 8, EMDB_OK },
		{ 120, 1, 4, EMDB_ERR_CORRUPT },
		{ 4084, UINT64_C(1) << 63, 8, EMDB_ERR_CORRUPT },
	};
	uint64_t rnd = test_seed();
	struct superblock sb = any_super(&rnd);

	sb.frozen_ms = 1;
	sb.snap_number = 1;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint8_t buf[FMT_SUPER_SIZE];
		struct superblock got;

		printf("row %zu\n", i);
		fmt_super_encode(&sb, buf);
		if (rows[i].size == 4)
			put_u32(buf + rows[i].off, (uint32_t)rows[i].value);
		else
			put_u64(buf + rows[i].off, rows[i].value);
		reseal(buf, FMT_SUPER_SIZE - 4);
		CHECK_EQ(fmt_super_decode(buf, sizeof(buf), &got), rows[i].want);
	}
}

/* Another size and another checksum: still known as ours and as too new. */
TEST(test_format_files__a_newer_superblock_is_recognised)
{
	struct superblock got;

	CHECK_EQ(fmt_super_decode((const uint8_t *)"EMDBSUPR\2\0\0\0", 12, &got), EMDB_ERR_VERSION);
	CHECK_EQ(fmt_super_decode((const uint8_t *)"EMDBSUPR\1\0\0\0", 12, &got), EMDB_ERR_CORRUPT);
	CHECK_EQ(fmt_super_decode((const uint8_t *)"SQLite format 3", 15, &got),
		 EMDB_ERR_NOT_STORE);
}

/* ---- Segment header ---- */

static struct seg_header any_seg(uint64_t *rnd)
{
	struct seg_header h = { .id = any(rnd), .created_ns = (int64_t)any(rnd) };

	h.segment_shift = (uint32_t)(FMT_SEG_SHIFT_MIN + test_rand(rnd) % 11);
	fill(rnd, h.uuid, sizeof(h.uuid));
	fill(rnd, h.boot_id, sizeof(h.boot_id));
	fill(rnd, h.salt, sizeof(h.salt));
	return h;
}

TEST(test_format_files__segment_header_round_trip)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 2000; i++) {
		struct seg_header h = any_seg(&rnd), got;
		uint8_t buf[FMT_SEG_HEADER];

		if (i % 2) {
			h.tags_off = FMT_SEG_HEADER + test_rand(&rnd) % 100000 * 8;
			h.tags = (uint32_t)(test_rand(&rnd) % 100000);
		}
		fmt_seg_encode(&h, buf);
		CHECK(fmt_seg_decode(buf, sizeof(buf), &got));
		CHECK_UEQ(got.tags_off, h.tags_off);
		CHECK_UEQ(got.tags, h.tags);
		CHECK_UEQ(got.id, h.id);
		CHECK_UEQ(got.segment_shift, h.segment_shift);
		CHECK_EQ(got.created_ns, h.created_ns);
		CHECK_MEM(got.uuid, 16, h.uuid, 16);
		CHECK_MEM(got.boot_id, 16, h.boot_id, 16);
		CHECK_MEM(got.salt, 32, h.salt, 32);
	}
}

TEST(test_format_files__every_bit_flip_and_prefix_of_a_segment_header_is_detected)
{
	uint64_t rnd = test_seed();
	const struct seg_header h = any_seg(&rnd);
	struct seg_header got = { .id = 77 };
	uint8_t buf[FMT_SEG_HEADER];

	fmt_seg_encode(&h, buf);
	for (size_t bit = 0; bit < sizeof(buf) * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(!fmt_seg_decode(buf, sizeof(buf), &got));
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t n = 0; n < sizeof(buf); n++) {
		uint8_t *const cut = copy(buf, n);

		CHECK(!fmt_seg_decode(cut, n, &got));
		free(cut);
	}
	/* A number of tags without a place, and what is reserved. */
	for (size_t at = 104; at < 252; at++) {
		buf[at] = 1;
		reseal(buf, sizeof(buf) - 4);
		CHECK(!fmt_seg_decode(buf, sizeof(buf), &got));
		buf[at] = 0;
	}
	put_u64(buf + 96, 12); /* tags among the frames, or not aligned, or far too many */
	reseal(buf, sizeof(buf) - 4);
	CHECK(!fmt_seg_decode(buf, sizeof(buf), &got));
	put_u64(buf + 96, UINT64_MAX - 7);
	reseal(buf, sizeof(buf) - 4);
	CHECK(!fmt_seg_decode(buf, sizeof(buf), &got));
	put_u64(buf + 96, 0);
	put_u32(buf + 8, FMT_VERSION + 1);
	reseal(buf, sizeof(buf) - 4);
	CHECK(!fmt_seg_decode(buf, sizeof(buf), &got));
	CHECK_UEQ(got.id, 77);
}

/* ---- Manifest ---- */

#define SEGS_MAX 20u
#define GAPS_MAX 10u

struct manifest {
	struct manifest_head h;
	struct manifest_seg segs[SEGS_MAX];
	struct manifest_gap gaps[GAPS_MAX];
};

static struct manifest any_manifest(uint64_t *rnd)
{
	struct manifest m = { .h = { .generation = any(rnd), .durable_lsn = any(rnd) } };
	uint64_t at = 0;

	fill(rnd, m.h.uuid, sizeof(m.h.uuid));
	m.h.flags = test_rand(rnd) % 2;
	m.h.ckpt = any(rnd);
	m.h.ckpt_lsn = any(rnd);
	m.h.ckpt_prev = any(rnd);
	m.h.ckpt_prev_lsn = any(rnd);
	m.h.nsegs = (uint32_t)(test_rand(rnd) % (SEGS_MAX + 1));
	m.h.ngaps = (uint32_t)(test_rand(rnd) % (GAPS_MAX + 1));
	for (uint32_t i = 0; i < m.h.nsegs; i++) {
		m.segs[i].id = at += 1 + any(rnd) % (1 << 20);
		m.segs[i].flags = test_rand(rnd) % 2;
		m.segs[i].len = m.segs[i].flags ? 256 + test_rand(rnd) % (1 << 20) * 8 : 0;
	}
	m.h.next_segment = at + 1 + any(rnd) % (1 << 20);
	at = 0;
	for (uint32_t i = 0; i < m.h.ngaps; i++) {
		m.gaps[i].lsn = at += test_rand(rnd) % (1 << 30) * 8;
		m.gaps[i].len = 8 + test_rand(rnd) % (1 << 20) * 8;
		at += m.gaps[i].len;
	}
	return m;
}

static uint8_t *manifest_of(const struct manifest *m, size_t *ret_n)
{
	uint8_t *p;

	*ret_n = fmt_manifest_size(m->h.nsegs, m->h.ngaps);
	p = malloc(*ret_n);
	CHECK(p);
	fmt_manifest_encode(&m->h, m->segs, m->gaps, p);
	return p;
}

static void check_manifest(const struct manifest *m, const uint8_t *p, size_t n)
{
	struct manifest_head h;
	struct manifest_seg s;
	struct manifest_gap g;

	CHECK_EQ(fmt_manifest_decode(p, n, &h), EMDB_OK);
	CHECK_MEM(h.uuid, 16, m->h.uuid, 16);
	CHECK_UEQ(h.generation, m->h.generation);
	CHECK_UEQ(h.durable_lsn, m->h.durable_lsn);
	CHECK_UEQ(h.next_segment, m->h.next_segment);
	CHECK_UEQ(h.flags, m->h.flags);
	CHECK_UEQ(h.ckpt, m->h.ckpt);
	CHECK_UEQ(h.ckpt_lsn, m->h.ckpt_lsn);
	CHECK_UEQ(h.ckpt_prev, m->h.ckpt_prev);
	CHECK_UEQ(h.ckpt_prev_lsn, m->h.ckpt_prev_lsn);
	CHECK_UEQ(h.nsegs, m->h.nsegs);
	CHECK_UEQ(h.ngaps, m->h.ngaps);
	for (uint32_t i = 0; i < h.nsegs; i++) {
		fmt_manifest_seg(p, i, &s);
		CHECK_UEQ(s.id, m->segs[i].id);
		CHECK_UEQ(s.len, m->segs[i].len);
		CHECK_UEQ(s.flags, m->segs[i].flags);
	}
	for (uint32_t i = 0; i < h.ngaps; i++) {
		fmt_manifest_gap(p, h.nsegs, i, &g);
		CHECK_UEQ(g.lsn, m->gaps[i].lsn);
		CHECK_UEQ(g.len, m->gaps[i].len);
	}
}

TEST(test_format_files__manifest_round_trip)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 2000; i++) {
		const struct manifest m = any_manifest(&rnd);
		size_t n;
		uint8_t *const p = manifest_of(&m, &n);

		check_manifest(&m, p, n);
		free(p);
	}
}

TEST(test_format_files__every_bit_flip_and_prefix_of_a_manifest_is_detected)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 20; i++) {
		const struct manifest m = any_manifest(&rnd);
		struct manifest_head got = { .generation = 77 };
		size_t n;
		uint8_t *p = manifest_of(&m, &n);

		for (size_t bit = 0; bit < n * 8; bit++) {
			p[bit / 8] ^= (uint8_t)(1u << bit % 8);
			CHECK(fmt_manifest_decode(p, n, &got) != EMDB_OK);
			p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		for (size_t k = 0; k < n; k++) {
			uint8_t *const cut = copy(p, k);

			CHECK_EQ(fmt_manifest_decode(cut, k, &got), EMDB_ERR_CORRUPT);
			free(cut);
		}
		p = realloc(p, n + 4);
		CHECK(p);
		CHECK_EQ(fmt_manifest_decode(p, n + 4, &got), EMDB_ERR_CORRUPT);
		CHECK_UEQ(got.generation, 77);
		free(p);
	}
}

/* Two segments and two gaps, one field changed, with a good CRC. */
static emdb_err with(size_t off, uint64_t value, unsigned int size)
{
	const struct manifest m = {
		.h = { .next_segment = 10, .nsegs = 2, .ngaps = 2 },
		.segs = { { 3, 4096, MANIFEST_SEALED }, { 5, 0, 0 } },
		.gaps = { { 800, 80 }, { 1600, 8 } },
	};
	struct manifest_head h;
	emdb_err err;
	size_t n;
	uint8_t *const p = manifest_of(&m, &n);

	CHECK_EQ(fmt_manifest_decode(p, n, &h), EMDB_OK);
	if (size == 4)
		put_u32(p + off, (uint32_t)value);
	else
		put_u64(p + off, value);
	reseal(p, n - 4);
	err = fmt_manifest_decode(p, n, &h);
	free(p);
	return err;
}

TEST(test_format_files__manifest_fields_are_checked)
{
	static const struct {
		size_t off;
		uint64_t value;
		unsigned int size;
		emdb_err want;
	} rows[] = {
		{ 8, 0, 4, EMDB_ERR_CORRUPT },
		{ 8, 2, 4, EMDB_ERR_VERSION },
		{ 12, 100, 4, EMDB_ERR_CORRUPT },
		{ 48, 0, 8, EMDB_ERR_CORRUPT },
		{ 48, 5, 8, EMDB_ERR_CORRUPT }, /* a segment is not below it */
		{ 48, 6, 8, EMDB_OK },
		{ 48, UINT64_MAX, 8, EMDB_ERR_CORRUPT },
		{ 56, 1, 8, EMDB_OK },
		{ 56, 2, 8, EMDB_ERR_CORRUPT },
		{ 96, 1, 4, EMDB_ERR_CORRUPT },
		{ 96, UINT32_MAX, 4, EMDB_ERR_CORRUPT },
		{ 100, 3, 4, EMDB_ERR_CORRUPT },
		{ 100, UINT32_MAX, 4, EMDB_ERR_CORRUPT },
		{ 104, 0, 8, EMDB_ERR_CORRUPT }, /* segment ids start at 1 */
		{ 104, 4, 8, EMDB_OK },
		{ 104, 5, 8, EMDB_ERR_CORRUPT }, /* twice the same */
		{ 104, 6, 8, EMDB_ERR_CORRUPT }, /* descending */
		{ 112, 255, 8, EMDB_ERR_CORRUPT },
		{ 112, 248, 8, EMDB_ERR_CORRUPT }, /* sealed without a header */
		{ 112, 256, 8, EMDB_OK },
		{ 112, (UINT64_C(1) << 30) + 8, 8, EMDB_ERR_CORRUPT },
		{ 112, UINT64_MAX, 8, EMDB_ERR_CORRUPT },
		{ 120, 3, 4, EMDB_ERR_CORRUPT },
		{ 124, 1, 4, EMDB_ERR_CORRUPT },
		{ 152, 801, 8, EMDB_ERR_CORRUPT },
		{ 152, 0, 8, EMDB_OK },
		{ 152, UINT64_MAX - 7, 8, EMDB_ERR_CORRUPT },
		{ 160, 0, 8, EMDB_ERR_CORRUPT },
		{ 160, 7, 8, EMDB_ERR_CORRUPT },
		{ 160, 800, 8, EMDB_OK },
		{ 160, 808, 8, EMDB_ERR_CORRUPT }, /* overlaps the next */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		printf("row %zu\n", i);
		CHECK_EQ(with(rows[i].off, rows[i].value, rows[i].size), rows[i].want);
	}
}

/* ---- What a scrub found ---- */

TEST(test_format_files__scrub_status)
{
	uint64_t rnd = test_seed();
	struct scrub_status got;
	uint8_t buf[FMT_SCRUB_SIZE + 1], again[FMT_SCRUB_SIZE];

	for (unsigned int i = 0; i < 200; i++) {
		struct scrub_status s = { .complete = test_rand(&rnd) & 1,
					  .began_ms = (int64_t)any(&rnd),
					  .ended_ms = (int64_t)any(&rnd),
					  .bytes = any(&rnd),
					  .frames = any(&rnd),
					  .damaged = any(&rnd),
					  .lost_entries = any(&rnd),
					  .skipped_bytes = any(&rnd) };

		fill(&rnd, s.uuid, sizeof(s.uuid));
		fmt_scrub_encode(&s, buf);
		CHECK(fmt_scrub_decode(buf, FMT_SCRUB_SIZE, &got));
		CHECK(got.complete == s.complete && got.damaged == s.damaged);
		CHECK(got.bytes == s.bytes && got.skipped_bytes == s.skipped_bytes);
		fmt_scrub_encode(&got, again);
		CHECK_MEM(again, sizeof(again), buf, sizeof(again));
		CHECK(!fmt_scrub_decode(buf, FMT_SCRUB_SIZE - 1, &got));
		CHECK(!fmt_scrub_decode(buf, FMT_SCRUB_SIZE + 1, &got));
		buf[test_rand(&rnd) % FMT_SCRUB_SIZE] ^= 1;
		CHECK(!fmt_scrub_decode(buf, FMT_SCRUB_SIZE, &got));
	}
	/* What is reserved must be zero, an unknown version or flag is none of ours. */
	for (size_t at = 8; at <= 88; at = at == 8 ? 12 : at == 12 ? 88 : 99) {
		fmt_scrub_encode(&(struct scrub_status){ .complete = true }, buf);
		buf[at] = 2;
		reseal(buf, FMT_SCRUB_SIZE - 4);
		CHECK(!fmt_scrub_decode(buf, FMT_SCRUB_SIZE, &got));
	}
}

TEST_MAIN()
