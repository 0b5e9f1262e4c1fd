/* SPDX-License-Identifier: Apache-2.0 */
/* What records are put together in, and what they are made of: batches, extents, attributes. */
#include "tests/unit/format_gen.h"

/* ---- Batches ---- */

static struct frame parsed(const uint8_t *p, uint32_t len)
{
	struct frame f;

	CHECK_EQ(fmt_frame_parse(p, len, LSN, false, 0, &f), FRAME_OK);
	return f;
}

TEST(test_format_parts__batches_round_trip)
{
	uint64_t rnd = test_seed();
	struct rec r[40];

	for (unsigned int i = 0; i < 1000; i++) {
		const uint32_t n = (uint32_t)(test_rand(&rnd) % (ARRAY_SIZE(r) + 1));
		struct batch_iter it;
		struct frame f;
		struct rec got;
		uint64_t ref;
		uint32_t len, back;
		uint8_t *p;

		for (uint32_t k = 0; k < n; k++)
			r[k] = any_rec(&rnd, (uint8_t)(1 + test_rand(&rnd) % REC_KIND_MAX), 100);
		p = batch_of(r, n, LSN, &len);
		CHECK_EQ(fmt_frame_parse(p, len, LSN, true, 0, &f), FRAME_OK);
		CHECK(fmt_batch_begin(&f, &it));
		for (uint32_t k = 0; k < n; k++) {
			CHECK_EQ(fmt_batch_next(&it, &got, &ref), 1);
			check_same(&r[k], &got);
			/* The ref leads to the prefix, the prefix to the frame. */
			CHECK_UEQ(ref & REF_FLAGS, REF_BATCH);
			CHECK(fmt_batch_rec_at(p + (ref_lsn(ref) - LSN), len - (ref_lsn(ref) - LSN),
					       &got, &back));
			check_same(&r[k], &got);
			CHECK_UEQ(back, ref_lsn(ref) - LSN);
			rec_release(&r[k]);
		}
		CHECK_EQ(fmt_batch_next(&it, &got, &ref), 0);
		CHECK_EQ(fmt_batch_next(&it, &got, &ref), 0);
		free(p);
	}
}

/* How a walk over the batch ends, whatever it has seen: 0 or -1. */
static int walk(const uint8_t *p, uint32_t len, uint32_t *ret_seen)
{
	const struct frame f = parsed(p, len);
	struct batch_iter it;
	struct rec r;
	uint64_t ref;
	int got;

	*ret_seen = 0;
	if (!fmt_batch_begin(&f, &it))
		return -1;
	while ((got = fmt_batch_next(&it, &r, &ref)) == 1)
		(*ret_seen)++;
	return got;
}

/* Three short records; offsets of their prefixes go to at[], the end to at[3]. */
static uint8_t *three(uint32_t at[4], uint32_t *ret_len)
{
	struct rec r[3] = { { .kind = REC_PUT }, { .kind = REC_DEL }, { .kind = REC_CLEAR } };
	struct batch_iter it;
	struct frame f;
	struct rec got;
	uint64_t ref;
	uint8_t *p;

	for (unsigned int i = 0; i < ARRAY_SIZE(r); i++) {
		r[i].mask = fields[r[i].kind].must;
		r[i].ns = 1;
		r[i].key = (const uint8_t *)"key";
		r[i].key_len = 3;
		r[i].value = (const uint8_t *)"value";
		r[i].value_len = r[i].kind == REC_PUT ? 5 : 0;
	}
	p = batch_of(r, 3, LSN, ret_len);
	f = parsed(p, *ret_len);
	CHECK(fmt_batch_begin(&f, &it));
	for (unsigned int i = 0; i < 3; i++) {
		CHECK_EQ(fmt_batch_next(&it, &got, &ref), 1);
		at[i] = (uint32_t)(ref_lsn(ref) - LSN);
	}
	at[3] = *ret_len;
	return p;
}

TEST(test_format_parts__batch_counts_must_be_right)
{
	static const uint32_t counts[] = { 0, 1, 2, 4, 5, 0xffffff, UINT32_MAX };
	uint32_t at[4], len, seen;
	uint8_t *const p = three(at, &len);

	CHECK_EQ(walk(p, len, &seen), 0);
	CHECK_UEQ(seen, 3);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		put_u32(p + FMT_FRAME_HEADER, counts[i]);
		CHECK_EQ(walk(p, len, &seen), -1);
		CHECK_UEQ(seen, min_u64(counts[i], 3));
	}
	free(p);
}

TEST(test_format_parts__batch_back_pointers_must_be_right)
{
	uint32_t at[4], len, seen;
	uint8_t *const p = three(at, &len);

	for (uint32_t k = 0; k < 3; k++) {
		const uint32_t right = get_u32(p + at[k] + 4);
		const uint32_t wrong[] = { 0,        right - 1,          right + 1,
					   0xffffff, right + 0x20000000, UINT32_MAX };

		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
			put_u32(p + at[k] + 4, wrong[i]);
			CHECK_EQ(walk(p, len, &seen), -1);
			CHECK_UEQ(seen, k);
		}
		put_u32(p + at[k] + 4, right);
	}
	CHECK_EQ(walk(p, len, &seen), 0);
	free(p);
}

TEST(test_format_parts__batch_record_lengths_must_be_right)
{
	uint32_t at[4], len, seen;
	uint8_t *const p = three(at, &len);

	for (uint32_t k = 0; k < 3; k++) {
		const uint32_t word = get_u32(p + at[k]);
		const uint32_t right = word & 0xffffff;
		const uint32_t wrong[] = { 0,       1, right - 1, right + 1, (len - at[k]) / 8 + 1,
					   0xffffff };

		CHECK_UEQ(right * 8, at[k + 1] - at[k]);
		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
			put_u32(p + at[k], (word & 0xff000000) | wrong[i]);
			CHECK_EQ(walk(p, len, &seen), -1);
			CHECK(seen <= k);
		}
		put_u32(p + at[k], word);
	}
	CHECK_EQ(walk(p, len, &seen), 0);
	free(p);
}

TEST(test_format_parts__batches_do_not_nest)
{
	static const uint8_t kinds[] = { 0, REC_KIND_MAX + 1, 63, FRAME_BATCH, FRAME_SEAL, 255 };
	uint32_t at[4], len, seen;
	uint8_t *const p = three(at, &len);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		put_u32(p + at[1], (get_u32(p + at[1]) & 0xffffff) | (uint32_t)kinds[i] << 24);
		CHECK_EQ(walk(p, len, &seen), -1);
		CHECK_UEQ(seen, 1);
	}
	free(p);
}

TEST(test_format_parts__flipped_bits_in_a_batch_never_lead_outside)
{
	uint32_t at[4], len, seen;
	uint8_t *const p = three(at, &len);

	for (uint32_t bit = FMT_FRAME_HEADER * 8; bit < len * 8; bit++) {
		struct rec r;
		uint32_t back;

		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		(void)walk(p, len, &seen);
		CHECK(seen <= 3);
		for (uint32_t k = 0; k <= len; k += 4) {
			uint8_t *const tail = copy(p + k, len - k);

			(void)fmt_batch_rec_at(tail, len - k, &r, &back);
			free(tail);
		}
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	free(p);
}

TEST(test_format_parts__every_prefix_of_a_batch_record_is_refused)
{
	uint32_t at[4], len, back;
	uint8_t *const p = three(at, &len);
	struct rec r;

	for (uint32_t n = 0; n < at[1] - at[0]; n++) {
		uint8_t *const cut = copy(p + at[0], n);

		CHECK(!fmt_batch_rec_at(cut, n, &r, &back));
		free(cut);
	}
	CHECK(fmt_batch_rec_at(p + at[0], at[1] - at[0], &r, &back));
	CHECK_UEQ(back, at[0]);
	free(p);
}

/* ---- Extents ---- */

TEST(test_format_parts__extents_round_trip)
{
	uint64_t rnd = test_seed();
	struct rec_extent e[50], got;

	for (unsigned int i = 0; i < 2000; i++) {
		const size_t n = test_rand(&rnd) % (ARRAY_SIZE(e) + 1);
		const uint64_t start = i % 2 ? 0 : any(&rnd) >> 1;
		uint64_t end = start, seen = start;
		uint8_t buf[ARRAY_SIZE(e) * FMT_EXTENT_BYTES_MAX], *p;
		size_t len = 0;
		struct cur c;

		for (size_t k = 0; k < n; k++) {
			e[k] = (struct rec_extent){ end + any(&rnd) % (1 << 30),
						    1 + any(&rnd) % FMT_EXTENT_MAX, test_rand(&rnd),
						    any(&rnd) % FMT_FRAME_MAX };
			len += fmt_extent_encode(&e[k], end, buf + len);
			end = e[k].off + e[k].len;
		}
		p = copy(buf, len);
		c = cur_init(p, len);
		if (end <= EMDB_VALUE_MAX) {
			for (size_t k = 0; k < n; k++) {
				CHECK(fmt_extent_next(&c, &seen, &got));
				CHECK_UEQ(got.off, e[k].off);
				CHECK_UEQ(got.len, e[k].len);
				CHECK_UEQ(got.ref, e[k].ref);
				CHECK_UEQ(got.skip, e[k].skip);
			}
			CHECK(!fmt_extent_next(&c, &seen, &got));
			CHECK(cur_done(&c));
			CHECK_UEQ(seen, end);
		}
		free(p);
	}
}

/* One extent by hand: does it decode? */
static bool extent_ok(uint64_t start, uint64_t gap, uint64_t len, uint64_t ref, uint64_t skip)
{
	uint8_t buf[4 * VARINT_MAX];
	struct wcur w = wcur_init(buf, sizeof(buf));
	struct rec_extent e;
	uint64_t end = start;
	struct cur c;
	bool ok;

	wcur_varint(&w, gap);
	wcur_varint(&w, len);
	wcur_varint(&w, ref);
	wcur_varint(&w, skip);
	c = cur_init(buf, wcur_len(&w));
	ok = fmt_extent_next(&c, &end, &e);
	CHECK_EQ(c.err, !ok);
	CHECK_UEQ(end, ok ? start + gap + len : start);
	return ok;
}

TEST(test_format_parts__extents_stay_within_their_limits)
{
	CHECK(extent_ok(0, 0, 1, 0, 0));
	CHECK(extent_ok(0, EMDB_VALUE_MAX - 1, 1, UINT64_MAX, FMT_FRAME_MAX));
	CHECK(extent_ok(EMDB_VALUE_MAX - 1, 0, 1, 0, 0));
	CHECK(extent_ok(0, 0, FMT_FRAME_MAX, 0, 0));
	CHECK(!extent_ok(0, 0, 0, 0, 0));
	CHECK(!extent_ok(0, 0, FMT_FRAME_MAX + 1, 0, 0));
	CHECK(!extent_ok(0, 0, 1, 0, FMT_FRAME_MAX + 1));
	CHECK(!extent_ok(0, EMDB_VALUE_MAX, 1, 0, 0));
	CHECK(!extent_ok(0, EMDB_VALUE_MAX + 1, 1, 0, 0));
	CHECK(!extent_ok(1, EMDB_VALUE_MAX - 1, 1, 0, 0));
	CHECK(!extent_ok(EMDB_VALUE_MAX, 0, 1, 0, 0));
	CHECK(!extent_ok(UINT64_MAX, 1, 1, 0, 0));
	CHECK(!extent_ok(UINT64_MAX - 1, 1, 1, 0, 0));
}

TEST(test_format_parts__every_prefix_of_an_extent_is_refused)
{
	static const struct rec_extent e = { UINT64_C(1) << 40, 70000, UINT64_MAX, 300 };
	uint8_t buf[FMT_EXTENT_BYTES_MAX];
	const size_t n = fmt_extent_encode(&e, 0, buf);

	for (size_t k = 1; k < n; k++) {
		uint8_t *const cut = copy(buf, k);
		struct cur c = cur_init(cut, k);
		struct rec_extent got;
		uint64_t end = 0;

		CHECK(!fmt_extent_next(&c, &end, &got));
		CHECK(c.err);
		free(cut);
	}
}

TEST(test_format_parts__the_longest_extent_fits_its_room)
{
	static const struct rec_extent e = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX };
	uint8_t buf[FMT_EXTENT_BYTES_MAX];

	CHECK_UEQ(fmt_extent_encode(&e, 0, buf), FMT_EXTENT_BYTES_MAX);
}

/* ---- Attributes ---- */

/* How many attributes there are before the end; -1 when they are malformed. */
static int count_xattrs(const void *blob, size_t n)
{
	uint8_t *const p = copy(blob, n);
	struct cur c = cur_init(p, n);
	const uint8_t *value;
	const char *name;
	size_t name_len, value_len;
	int count = 0;

	while (fmt_xattr_next(&c, &name, &name_len, &value, &value_len)) {
		CHECK(name_len >= 1 && name_len <= EMDB_XATTR_NAME_MAX);
		CHECK(!memchr(name, 0, name_len));
		CHECK(value_len <= EMDB_XATTR_VALUE_MAX);
		CHECK((const uint8_t *)name > p && value + value_len <= p + n);
		count++;
	}
	free(p);
	return c.err ? -1 : count;
}

TEST(test_format_parts__xattrs_round_trip)
{
	static const char blob[] = "\x06user.a\x00\x06user.b\x02xy\x01z\x03\x00\x01\x02";
	struct cur c = cur_init(blob, sizeof(blob) - 1);
	const uint8_t *value;
	const char *name;
	size_t name_len, value_len;

	CHECK(fmt_xattr_next(&c, &name, &name_len, &value, &value_len));
	CHECK_MEM(name, name_len, "user.a", 6);
	CHECK_UEQ(value_len, 0);
	CHECK(fmt_xattr_next(&c, &name, &name_len, &value, &value_len));
	CHECK_MEM(name, name_len, "user.b", 6);
	CHECK_MEM(value, value_len, "xy", 2);
	CHECK(fmt_xattr_next(&c, &name, &name_len, &value, &value_len));
	CHECK_MEM(name, name_len, "z", 1);
	CHECK_MEM(value, value_len, "\0\1\2", 3);
	CHECK(!fmt_xattr_next(&c, &name, &name_len, &value, &value_len));
	CHECK(cur_done(&c));
}

TEST(test_format_parts__malformed_xattrs_are_refused)
{
	CHECK_EQ(count_xattrs("", 0), 0);
	CHECK_EQ(count_xattrs("\1a\0", 3), 1);
	CHECK_EQ(count_xattrs("\0", 1), -1);                  /* no name */
	CHECK_EQ(count_xattrs("\0\0", 2), -1);                /* no name */
	CHECK_EQ(count_xattrs("\1", 1), -1);                  /* name cut off */
	CHECK_EQ(count_xattrs("\2a", 2), -1);                 /* name cut off */
	CHECK_EQ(count_xattrs("\1a", 2), -1);                 /* no value */
	CHECK_EQ(count_xattrs("\1a\1", 3), -1);               /* value cut off */
	CHECK_EQ(count_xattrs("\1a\0\0", 4), -1);             /* something behind */
	CHECK_EQ(count_xattrs("\1\0\0", 3), -1);              /* NUL in the name */
	CHECK_EQ(count_xattrs("\3a\0b\0", 5), -1);            /* NUL in the name */
	CHECK_EQ(count_xattrs("\1a\x80\0", 4), -1);           /* a longer varint than needed */
	CHECK_EQ(count_xattrs("\1a\xff\xff\xff\x7f", 6), -1); /* far too long */
}

TEST(test_format_parts__xattr_values_have_a_limit)
{
	const size_t n = 5 + EMDB_XATTR_VALUE_MAX + 1;
	uint8_t *const blob = calloc(1, n);

	CHECK(blob);
	blob[0] = 1;
	blob[1] = 'a';
	CHECK_UEQ(varint_put(blob + 2, EMDB_XATTR_VALUE_MAX), 3);
	CHECK_EQ(count_xattrs(blob, n - 1), 1);
	CHECK_UEQ(varint_put(blob + 2, EMDB_XATTR_VALUE_MAX + 1), 3);
	CHECK_EQ(count_xattrs(blob, n), -1);
	free(blob);
}

TEST(test_format_parts__flipped_bits_in_xattrs_never_lead_outside)
{
	uint64_t rnd = test_seed();

	for (unsigned int i = 0; i < 300; i++) {
		uint8_t buf[8 * 64];
		const size_t n = make_xattrs(&rnd, 1 + i % 8, buf);

		CHECK_EQ(count_xattrs(buf, n), 1 + i % 8);
		for (size_t bit = 0; bit < n * 8; bit++) {
			buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
			(void)count_xattrs(buf, n);
			buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		for (size_t k = 0; k < n; k++)
			CHECK(count_xattrs(buf, k) < (int)(1 + i % 8));
	}
}

TEST_MAIN()
