/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records and frames. Batches, extents and attributes have test_format_parts.c; the files of a
 * store (superblock, segment header, manifest) have test_format_files.c.
 */
#include "tests/unit/format_gen.h"

/* ---- Records ---- */

TEST(test_format__records_round_trip)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 20000; i++) {
		struct rec r = any_rec(&rnd, (uint8_t)(1 + i % REC_KIND_MAX), 300);
		struct rec got;
		size_t n;
		uint8_t *const p = encode(&r, test_rand(&rnd) % 8, &n);

		CHECK(fmt_rec_decode(r.kind, p, n, &got));
		check_same(&r, &got);
		check_canonical(&got, p, n);
		free(p);
		rec_release(&r);
	}
}

TEST(test_format__every_prefix_of_a_record_is_refused)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 300; i++) {
		struct rec r = any_rec(&rnd, (uint8_t)(1 + i % REC_KIND_MAX), 60);
		struct rec got;
		size_t n;
		uint8_t *const p = encode(&r, 0, &n);

		for (size_t k = 0; k < n; k++) {
			uint8_t *const cut = copy(p, k);

			CHECK(!fmt_rec_decode(r.kind, cut, k, &got));
			free(cut);
		}
		free(p);
		rec_release(&r);
	}
}

/* Without the frame's CRC a changed record may still be one, and then says exactly its bytes. */
TEST(test_format__every_bit_flip_of_a_record_is_refused_or_canonical)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 300; i++) {
		struct rec r = any_rec(&rnd, (uint8_t)(1 + i % REC_KIND_MAX), 60);
		struct rec got;
		size_t n;
		uint8_t *const p = encode(&r, test_rand(&rnd) % 8, &n);

		for (size_t bit = 0; bit < n * 8; bit++) {
			p[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (fmt_rec_decode(r.kind, p, n, &got))
				check_canonical(&got, p, n);
			p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		free(p);
		rec_release(&r);
	}
}

TEST(test_format__every_kind_of_random_bytes_is_refused_or_canonical)
{
	uint64_t rnd = test_seed();
	unsigned int good = 0;

	for (unsigned int i = 0; i < 200000; i++) {
		const size_t n = test_rand(&rnd) % 48;
		uint8_t *const p = any_bytes(&rnd, n);
		const uint8_t kind = (uint8_t)(1 + i % REC_KIND_MAX);
		struct rec got;
		const size_t tail = n < 8 ? n : 8;

		/* A plausible mask, small numbers and some padding let more of them through. */
		for (size_t k = 0; k < n; k++)
			p[k] &= i % 2 ? 0x7f : 0x07;
		if (n > 3)
			(void)varint_put(p, fields[kind].must |
						    (fields[kind].may & (uint32_t)test_rand(&rnd)));
		memset(p + n - tail, 0, test_rand(&rnd) % (tail + 1));
		if (fmt_rec_decode(kind, p, n, &got)) {
			check_canonical(&got, p, n);
			good++;
		}
		free(p);
	}
	printf("%u of 200000 decoded\n", good);
}

TEST(test_format__padding_is_zero_and_short)
{
	uint64_t rnd = test_seed();

	for (uint8_t kind = 1; kind <= REC_KIND_MAX; kind++) {
		struct rec r = any_rec(&rnd, kind, 20);
		struct rec got;
		size_t n;
		uint8_t *const p = encode(&r, 8 + FMT_TAG, &n);

		CHECK(!fmt_rec_decode(kind, p, n, &got));
		CHECK(fmt_rec_decode(kind, p, n - 1, &got));
		for (size_t k = n - 8 - FMT_TAG; k < n - 1; k++) {
			p[k] = 1;
			CHECK(!fmt_rec_decode(kind, p, n - 1, &got));
			p[k] = 0;
		}
		free(p);
		rec_release(&r);
	}
}

/* The fields of `mask` alone, whatever the kind wants: written here by the specification. */
static size_t write_fields(uint8_t *buf, size_t size, uint32_t mask)
{
	struct wcur w = wcur_init(buf, size);

	wcur_varint(&w, mask);
	for (uint32_t bit = REC_F_NS; bit <= REC_F_FLAGS; bit <<= 1) {
		if (!(mask & bit) || bit == REC_F_VALUE)
			continue;
		if (bit == REC_F_TIME)
			wcur_u64(&w, 1700000000);
		else if (bit == REC_F_META || bit == REC_F_TIMES)
			wcur_bytes(&w, "\1\2\3", 3);
		else if (bit == REC_F_TTLDEF)
			wcur_bytes(&w, "\5\1", 2);
		else if (bit == REC_F_EXTENTS)
			wcur_bytes(&w, "\1\4\0\1\x08\0", 6);
		else if (bit == REC_F_KEY)
			wcur_blob(&w, "key", 3);
		else if (bit == REC_F_XATTRS)
			wcur_blob(&w, "\1a\1b", 4);
		else
			wcur_varint(&w, 7);
	}
	if (mask & REC_F_VALUE)
		wcur_blob(&w, "value", 5);
	CHECK(!w.err);
	return wcur_len(&w);
}

TEST(test_format__each_kind_has_the_fields_it_must_and_may_have)
{
	struct rec got;
	uint8_t buf[256];

	for (uint8_t kind = 1; kind <= REC_KIND_MAX; kind++) {
		const uint32_t must = fields[kind].must, may = fields[kind].may;

		CHECK(fmt_rec_decode(kind, buf, write_fields(buf, sizeof(buf), must), &got));
		CHECK(fmt_rec_decode(kind, buf, write_fields(buf, sizeof(buf), must | may), &got));
		check_canonical(&got, buf, write_fields(buf, sizeof(buf), must | may));
		for (uint32_t bit = 1; bit <= REC_F_ALL + 1; bit <<= 1) {
			const size_t n = write_fields(buf, sizeof(buf), must ^ bit);
			const bool ok = (may & bit) != 0;

			CHECK_EQ(fmt_rec_decode(kind, buf, n, &got), ok);
		}
	}
	CHECK(!fmt_rec_decode(0, buf, write_fields(buf, sizeof(buf), 0), &got));
	CHECK(!fmt_rec_decode(REC_KIND_MAX + 1, buf, write_fields(buf, sizeof(buf), 0), &got));
	CHECK(!fmt_rec_decode(FRAME_BATCH, buf, write_fields(buf, sizeof(buf), 0), &got));
	CHECK(!fmt_rec_decode(255, buf, write_fields(buf, sizeof(buf), 0), &got));
}

/* ---- Limits ---- */

/* One record with everything a PUT, an NS or an INODE can have, ready to be exaggerated. */
static struct rec full(uint8_t kind)
{
	struct rec r = { .kind = kind, .mask = fields[kind].must | fields[kind].may };

	return r;
}

static void expect(const struct rec *r, bool ok)
{
	struct rec got;
	size_t n;
	uint8_t *const p = encode(r, 0, &n);

	CHECK_EQ(fmt_rec_decode(r->kind, p, n, &got), ok);
	if (ok)
		check_canonical(&got, p, n);
	free(p);
}

TEST(test_format__numbers_beyond_their_limits_are_refused)
{
	struct rec put = full(REC_PUT), inode = full(REC_INODE), ns = full(REC_NS);
	struct rec clone = full(REC_CLONE);

	put.mode = 0xffff;
	put.uid = put.gid = UINT32_MAX;
	put.expires_ms = INT64_MAX;
	expect(&put, true);
	put.mode = 0x10000;
	expect(&put, false);
	put.mode = 0;
	put.expires_ms = -1;
	expect(&put, false);

	inode.size = EMDB_VALUE_MAX;
	expect(&inode, true);
	inode.size++;
	expect(&inode, false);
	clone.off = clone.len = EMDB_VALUE_MAX;
	expect(&clone, true);
	clone.off++;
	expect(&clone, false);
	clone.off = 0;
	clone.len++;
	expect(&clone, false);

	ns.ttl_default_ms = INT64_MAX;
	ns.ttl_basis = EMDB_BASIS_MODIFY;
	expect(&ns, true);
	ns.ttl_basis++;
	expect(&ns, false);
	ns.ttl_basis = 0;
	ns.ttl_default_ms = -1;
	expect(&ns, false);
}

TEST(test_format__lengths_beyond_their_limits_are_refused)
{
	static const uint8_t zeros[EMDB_XATTRS_MAX + 1];
	struct rec put = full(REC_PUT), inode = full(REC_INODE);

	put.key = put.xattrs = zeros;
	put.key_len = EMDB_KEY_MAX;
	put.xattrs_len = EMDB_XATTRS_MAX;
	expect(&put, true);
	put.key_len++;
	expect(&put, false);
	put.key_len = 0;
	put.xattrs_len++;
	expect(&put, false);

	inode.xattrs = inode.extents = zeros;
	inode.extents_len = 4 * 100;
	inode.extent_count = 100;
	expect(&inode, true);
	inode.extent_count = 101;
	expect(&inode, false);
	inode.extent_count = UINT64_MAX;
	expect(&inode, false);
}

TEST(test_format__head_max_holds_the_largest_of_everything)
{
	static const uint8_t zeros[EMDB_KEY_MAX];

	for (uint8_t kind = 1; kind <= REC_KIND_MAX; kind++) {
		struct rec r = full(kind);
		uint8_t *buf;
		size_t n;

		memset(&r, 0xff, sizeof(r));
		r.kind = kind;
		r.mask = REC_F_ALL;
		r.mtime_ns = r.atime_ns = r.btime_ns = INT64_MAX / 2;
		r.key = r.xattrs = r.extents = zeros;
		r.key_len = r.xattrs_len = r.extents_len = EMDB_KEY_MAX;
		r.time_ns = INT64_MIN / 2;
		buf = malloc(fmt_rec_head_max(&r));
		CHECK(buf);
		n = fmt_rec_encode(&r, buf, fmt_rec_head_max(&r));
		CHECK(n <= fmt_rec_head_max(&r));
		CHECK(n - 3 * (size_t)EMDB_KEY_MAX <= FMT_FIELDS_MAX);
		free(buf);
	}
}

TEST(test_format__times_of_any_distance_survive)
{
	static const int64_t t[] = { 0, 1, -1, INT64_MAX, INT64_MIN, 1700000000123456789 };
	struct rec r = full(REC_PUT), got;
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(t) * ARRAY_SIZE(t); i++) {
		uint8_t *p;

		r.time_ns = t[i / ARRAY_SIZE(t)];
		r.mtime_ns = t[i % ARRAY_SIZE(t)];
		r.atime_ns = t[(i + 1) % ARRAY_SIZE(t)];
		r.btime_ns = t[(i + 2) % ARRAY_SIZE(t)];
		p = encode(&r, 0, &n);
		CHECK(fmt_rec_decode(REC_PUT, p, n, &got));
		check_same(&r, &got);
		free(p);
	}
}

/* A session store's typical entry: what the store adds to the caller's bytes. */
TEST(test_format__a_small_put_costs_at_most_40_bytes)
{
	static const uint8_t bytes[150];
	struct rec r = { .kind = REC_PUT, .mask = fields[REC_PUT].must };
	uint32_t len;
	size_t n;

	r.ns = EMDB_ROOT;
	r.time_ns = 1700000000123456789;
	r.key = r.value = bytes;
	r.key_len = 24;
	r.value_len = 150;
	free(frame_of(&r, LSN, &len));
	printf("in the root: %u bytes\n", len - 174);
	CHECK(len <= 174 + 40);
	/* The namespace of a journal that has seen 8 TiB, without the padding. */
	r.ns = UINT64_C(1) << 40;
	free(encode(&r, 0, &n));
	printf("elsewhere: %zu bytes and padding\n", FMT_FRAME_HEADER + n - 174);
	CHECK(FMT_FRAME_HEADER + n <= 174 + 40);
}

/* ---- Frames ---- */

TEST(test_format__frames_round_trip)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 5000; i++) {
		struct rec r = any_rec(&rnd, (uint8_t)(1 + i % REC_KIND_MAX), 500);
		const uint64_t lsn = (any(&rnd) | 1024) & ~UINT64_C(7);
		uint32_t len;
		uint8_t *const p = frame_of(&r, lsn, &len);
		struct frame f;
		struct rec got;

		CHECK_EQ(fmt_frame_parse(p, len, lsn, true, 0, &f), FRAME_OK);
		CHECK_UEQ(f.kind, r.kind);
		CHECK_UEQ(f.lsn, lsn);
		CHECK_UEQ(f.len, len);
		CHECK(f.p == p);
		CHECK_UEQ(fmt_frame_durable(&f), lsn - 64);
		CHECK(fmt_frame_rec(&f, &got));
		check_same(&r, &got);
		free(p);
		rec_release(&r);
	}
}

TEST(test_format__every_prefix_of_a_frame_is_cut_short)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 100; i++) {
		struct rec r = any_rec(&rnd, (uint8_t)(1 + i % REC_KIND_MAX), 60);
		uint32_t len;
		uint8_t *const p = frame_of(&r, LSN, &len);
		struct frame f;

		CHECK_EQ(fmt_frame_parse(p, 0, LSN, true, 0, &f), FRAME_END);
		/* The CRC comes first: from its first byte that is not zero on there is something. */
		for (uint32_t k = 4; k < len; k++) {
			uint8_t *const cut = copy(p, k);

			CHECK_EQ(fmt_frame_parse(cut, k, LSN, true, 0, &f),
				 k < FMT_FRAME_HEADER ? FRAME_TRUNC_HEADER : FRAME_TRUNC_PAYLOAD);
			free(cut);
		}
		free(p);
		rec_release(&r);
	}
}

static void check_flips(uint8_t *p, uint32_t len)
{
	struct frame f;

	CHECK_EQ(fmt_frame_parse(p, len, LSN, true, 0, &f), FRAME_OK);
	for (uint32_t bit = 0; bit < len * 8; bit++) {
		enum frame_status st;

		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		st = fmt_frame_parse(p, len, LSN, true, 0, &f);
		CHECK(st != FRAME_OK && st != FRAME_END);
		/* Length and kind, LSN, the rest: each is caught by its own rule first. */
		if (bit / 8 >= 8 && bit / 8 < 16)
			CHECK_EQ(st, FRAME_STALE);
		else if (bit / 8 < 4 || bit / 8 >= 16)
			CHECK_EQ(st, FRAME_BAD_CRC);
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

TEST(test_format__every_bit_flip_of_a_frame_is_detected)
{
	uint64_t rnd = test_seed();
	struct rec r[3];
	uint8_t *p;
	uint32_t len;

	for (unsigned int i = 0; i < 60; i++) {
		struct rec one = any_rec(&rnd, (uint8_t)(1 + i % REC_KIND_MAX), 200);

		p = frame_of(&one, LSN, &len);
		check_flips(p, len);
		free(p);
		rec_release(&one);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(r); i++)
		r[i] = any_rec(&rnd, REC_PUT, 200);
	p = batch_of(r, ARRAY_SIZE(r), LSN, &len);
	check_flips(p, len);
	free(p);
	for (unsigned int i = 0; i < ARRAY_SIZE(r); i++)
		rec_release(&r[i]);
}

TEST(test_format__frame_status)
{
	static const struct {
		uint32_t word, avail;
		uint64_t lsn;
		uint32_t at20; /* one byte of the payload, 0: as it was */
		enum frame_status want;
	} rows[] = {
		{ 4 | REC_CLEAR << 24, 32, LSN, 0, FRAME_OK },
		{ 4 | REC_CLEAR << 24, 40, LSN, 0, FRAME_OK },
		{ 4 | REC_CLEAR << 24, 32, LSN, 9, FRAME_BAD_CRC },
		{ 4 | REC_CLEAR << 24, 31, LSN, 0, FRAME_TRUNC_PAYLOAD },
		{ 4 | REC_CLEAR << 24, 20, LSN, 0, FRAME_TRUNC_PAYLOAD },
		{ 4 | REC_CLEAR << 24, 19, LSN, 0, FRAME_TRUNC_HEADER },
		{ 4 | REC_CLEAR << 24, 1, LSN, 0, FRAME_TRUNC_HEADER },
		{ 4 | REC_CLEAR << 24, 32, LSN + 8, 0, FRAME_STALE },
		{ 4 | REC_CLEAR << 24, 32, 0, 0, FRAME_STALE },
		{ 4, 32, LSN, 0, FRAME_BAD_KIND },
		{ 4 | (REC_KIND_MAX + 1u) << 24, 32, LSN, 0, FRAME_BAD_KIND },
		{ 4 | 63u << 24, 32, LSN, 0, FRAME_BAD_KIND },
		{ 4 | 66u << 24, 32, LSN, 0, FRAME_BAD_KIND },
		{ 4 | 255u << 24, 32, LSN, 0, FRAME_BAD_KIND },
		{ 0 | REC_CLEAR << 24, 32, LSN, 0, FRAME_BAD_LENGTH },
		{ 1 | REC_CLEAR << 24, 32, LSN, 0, FRAME_BAD_LENGTH },
		{ 2 | REC_CLEAR << 24, 32, LSN, 0, FRAME_BAD_LENGTH },
		{ 3 | REC_CLEAR << 24, 32, LSN, 0, FRAME_BAD_CRC },
		{ 5 | REC_CLEAR << 24, 32, LSN, 0, FRAME_TRUNC_PAYLOAD },
		{ 0xffffff | REC_CLEAR << 24, 32, LSN, 0, FRAME_TRUNC_PAYLOAD },
		{ 4 | (uint32_t)FRAME_BATCH << 24, 32, LSN, 0, FRAME_BAD_CRC },
		{ 4 | (uint32_t)FRAME_SEAL << 24, 32, LSN, 0, FRAME_BAD_CRC },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct frame f = { .len = 7 };
		uint8_t frame[40] = { 0 };
		uint8_t *p;

		fmt_frame_header(frame, REC_CLEAR, 32, LSN, 0);
		fmt_frame_finish(frame, 32, 0);
		put_u32(frame + 4, rows[i].word);
		put_u64(frame + 8, rows[i].lsn);
		frame[20] = (uint8_t)rows[i].at20;
		p = copy(frame, rows[i].avail);
		printf("row %zu\n", i);
		CHECK_EQ(fmt_frame_parse(p, rows[i].avail, LSN, true, 0, &f), rows[i].want);
		CHECK_UEQ(f.len, rows[i].want == FRAME_OK ? 32 : 7);
		free(p);
	}
}

TEST(test_format__zeros_are_the_end)
{
	static const uint8_t zeros[64];
	struct frame f;

	for (size_t n = 0; n <= sizeof(zeros); n++) {
		uint8_t *const p = copy(zeros, n);

		CHECK_EQ(fmt_frame_parse(p, n, LSN, true, 0, &f), FRAME_END);
		CHECK_EQ(fmt_frame_parse(p, n, LSN, false, 0, &f), FRAME_END);
		free(p);
	}
}

TEST(test_format__without_check_the_crc_is_believed)
{
	uint8_t p[32] = { 0 };
	struct frame f;

	fmt_frame_header(p, REC_CLEAR, sizeof(p), LSN, 0);
	CHECK_EQ(fmt_frame_parse(p, sizeof(p), LSN, false, 0, &f), FRAME_OK);
	CHECK_EQ(fmt_frame_parse(p, sizeof(p), LSN, true, 0, &f), FRAME_BAD_CRC);
	CHECK_EQ(fmt_frame_parse(p, sizeof(p), LSN + 8, false, 0, &f), FRAME_STALE);
}

TEST(test_format__statuses_have_distinct_texts)
{
	for (int i = FRAME_OK; i <= FRAME_STALE; i++) {
		const char *const a = fmt_frame_status_text((enum frame_status)i);

		CHECK(a && *a);
		for (int j = 0; j < i; j++)
			CHECK(strcmp(a, fmt_frame_status_text((enum frame_status)j)) != 0);
	}
}

TEST(test_format__durable_mark)
{
	const uint64_t lsn = UINT64_C(1) << 40;
	static const struct {
		uint64_t back, want_back;
	} rows[] = {
		{ 0, 0 },
		{ 8, 8 },
		{ UINT64_C(0xfffffffe) * 8, UINT64_C(0xfffffffe) * 8 },
		{ UINT64_C(0xffffffff) * 8, UINT64_C(1) << 40 }, /* far: unknown */
		{ UINT64_C(0x100000000) * 8, UINT64_C(1) << 40 },
		{ UINT64_C(1) << 40, UINT64_C(1) << 40 },
	};
	uint8_t p[24] = { 0 };
	struct frame f;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		fmt_frame_header(p, FRAME_SEAL, sizeof(p), lsn, lsn - rows[i].back);
		fmt_frame_finish(p, sizeof(p), 0);
		CHECK_EQ(fmt_frame_parse(p, sizeof(p), lsn, true, 0, &f), FRAME_OK);
		CHECK_UEQ(fmt_frame_durable(&f), lsn - rows[i].want_back);
	}
	/* More than there is before the frame: nobody writes that, nobody may believe it. */
	fmt_frame_header(p, FRAME_SEAL, sizeof(p), 4096, 0);
	put_u32(p + 16, 4096 / 8 + 1);
	fmt_frame_finish(p, sizeof(p), 0);
	CHECK_EQ(fmt_frame_parse(p, sizeof(p), 4096, true, 0, &f), FRAME_OK);
	CHECK_UEQ(fmt_frame_durable(&f), 0);
}

TEST(test_format__seal_and_batch_are_no_records)
{
	uint8_t p[24] = { 0 };
	struct frame f;
	struct batch_iter it;
	struct rec r;

	CHECK_UEQ(sizeof(p), FMT_SEAL_ROOM);
	fmt_frame_header(p, FRAME_SEAL, sizeof(p), LSN, LSN);
	fmt_frame_finish(p, sizeof(p), 0);
	CHECK_EQ(fmt_frame_parse(p, sizeof(p), LSN, true, 0, &f), FRAME_OK);
	CHECK(!fmt_frame_rec(&f, &r));
	CHECK(!fmt_batch_begin(&f, &it));
	fmt_frame_header(p, FRAME_BATCH, sizeof(p), LSN, LSN);
	fmt_frame_finish(p, sizeof(p), 0);
	CHECK_EQ(fmt_frame_parse(p, sizeof(p), LSN, true, 0, &f), FRAME_OK);
	CHECK(!fmt_frame_rec(&f, &r));
}

TEST_MAIN()
