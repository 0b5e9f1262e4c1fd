/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "core/codec.h"

/* ---- Fixed integers ---- */

TEST(test_codec__fixed_integers_are_little_endian)
{
	uint8_t b[8];

	put_u16(b, 0x1234);
	CHECK_MEM(b, 2, "\x34\x12", 2);
	CHECK_UEQ(get_u16(b), 0x1234);
	put_u32(b, 0x89abcdef);
	CHECK_MEM(b, 4, "\xef\xcd\xab\x89", 4);
	CHECK_UEQ(get_u32(b), 0x89abcdef);
	put_u64(b, UINT64_C(0x8123456789abcdef));
	CHECK_MEM(b, 8, "\xef\xcd\xab\x89\x67\x45\x23\x81", 8);
	CHECK_UEQ(get_u64(b), UINT64_C(0x8123456789abcdef));
}

/* ---- Varint ---- */

static void varint_check(uint64_t v)
{
	uint8_t b[VARINT_MAX];
	const size_t n = varint_put(b, v);
	uint64_t got = ~v;

	CHECK_UEQ(n, varint_len(v));
	CHECK_UEQ(varint_get(b, sizeof(b), &got), n);
	CHECK_UEQ(got, v);
	for (size_t i = 0; i < n; i++)
		CHECK_UEQ(varint_get(b, i, &got), 0);
}

TEST(test_codec__varint_roundtrip)
{
	uint64_t state = test_seed();

	for (unsigned int bit = 0; bit < 64; bit++) {
		varint_check(UINT64_C(1) << bit);
		varint_check((UINT64_C(1) << bit) - 1);
		varint_check((UINT64_C(1) << bit) + 1);
	}
	varint_check(UINT64_MAX);
	for (unsigned int i = 0; i < 20000; i++)
		varint_check(test_rand(&state) >> (i % 64));
	CHECK_UEQ(varint_len(0), 1);
	CHECK_UEQ(varint_len(127), 1);
	CHECK_UEQ(varint_len(128), 2);
	CHECK_UEQ(varint_len(UINT64_MAX), 10);
}

TEST(test_codec__varint_accepts_only_the_shortest_form)
{
	static const struct {
		const char *bytes;
		size_t n;
	} bad[] = {
		{ "", 0 },
		{ "\x80", 1 },
		{ "\x80\x00", 2 },
		{ "\xff\x00", 2 },
		{ "\x81\x80\x00", 3 },
		{ "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 10 },
		{ "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10 },
		{ "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10 },
		{ "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x80\x01", 11 },
		{ "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11 },
	};
	uint64_t v = 7;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_UEQ(varint_get((const uint8_t *)bad[i].bytes, bad[i].n, &v), 0);
		CHECK_UEQ(v, 7);
	}
	CHECK_UEQ(varint_get((const uint8_t *)"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, &v),
		  10);
	CHECK_UEQ(v, UINT64_MAX);
	CHECK_UEQ(varint_get((const uint8_t *)"\x00\x01", 2, &v), 1);
	CHECK_UEQ(v, 0);
}

/* Whatever is accepted encodes to the very bytes it was read from. */
TEST(test_codec__varint_is_canonical_for_random_bytes)
{
	uint64_t state = test_seed();

	for (unsigned int i = 0; i < 50000; i++) {
		uint8_t in[12], out[VARINT_MAX];
		uint64_t v, bits = test_rand(&state);
		size_t n;

		for (size_t k = 0; k < sizeof(in); k++) {
			in[k] = (uint8_t)test_rand(&state) & ((bits >> k) & 1 ? 0xff : 0x81);
			in[k] |= (bits >> (16 + k)) & 3 ? 0x80 : 0;
		}
		n = varint_get(in, sizeof(in), &v);
		if (n)
			CHECK_MEM(out, varint_put(out, v), in, n);
	}
}

TEST(test_codec__zigzag)
{
	static const int64_t vals[] = { 0, -1, 1, -2, 2, INT64_MAX, INT64_MIN };
	static const uint64_t want[] = { 0, 1, 2, 3, 4, UINT64_MAX - 1, UINT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(vals); i++) {
		CHECK_UEQ(zigzag_encode(vals[i]), want[i]);
		CHECK_EQ(zigzag_decode(want[i]), vals[i]);
	}
}

/* ---- Cursors ---- */

static void write_all_kinds(struct wcur *w)
{
	wcur_u8(w, 0xa5);
	wcur_u16(w, 0x1234);
	wcur_u32(w, 0xdeadbeef);
	wcur_u64(w, UINT64_C(0x0102030405060708));
	wcur_varint(w, 300);
	wcur_zigzag(w, -5);
	wcur_blob(w, "hello", 5);
	wcur_zero(w, 3);
	wcur_bytes(w, NULL, 0);
}

TEST(test_codec__cursors_read_what_was_written)
{
	uint8_t b[64];
	struct wcur w = wcur_init(b, sizeof(b));
	struct cur c;
	const uint8_t *p;
	size_t n = 0;

	write_all_kinds(&w);
	CHECK(!w.err);
	c = cur_init(b, wcur_len(&w));
	CHECK_UEQ(cur_u8(&c), 0xa5);
	CHECK_UEQ(cur_u16(&c), 0x1234);
	CHECK_UEQ(cur_u32(&c), 0xdeadbeef);
	CHECK_UEQ(cur_u64(&c), UINT64_C(0x0102030405060708));
	CHECK_UEQ(cur_varint(&c), 300);
	CHECK_EQ(cur_zigzag(&c), -5);
	p = cur_blob(&c, 5, &n);
	CHECK_MEM(p, n, "hello", 5);
	CHECK_UEQ(cur_left(&c), 3);
	CHECK(!cur_done(&c));
	p = cur_bytes(&c, 3);
	CHECK_MEM(p, 3, "\0\0\0", 3);
	CHECK(cur_done(&c));
	CHECK_UEQ(cur_u8(&c), 0);
	CHECK(c.err && !cur_done(&c));
}

TEST(test_codec__writing_cursor_stops_at_every_length)
{
	uint8_t full[64], b[64];
	struct wcur w = wcur_init(full, sizeof(full));
	size_t total;

	write_all_kinds(&w);
	total = wcur_len(&w);
	for (size_t n = 0; n < total; n++) {
		memset(b, 0xee, sizeof(b));
		w = wcur_init(b, n);
		write_all_kinds(&w);
		CHECK(w.err);
		CHECK(wcur_len(&w) <= n);
		CHECK_MEM(b, wcur_len(&w), full, wcur_len(&w));
		for (size_t i = wcur_len(&w); i < sizeof(b); i++)
			CHECK_UEQ(b[i], 0xee);
	}
}

TEST(test_codec__errors_of_a_cursor_stay)
{
	static const uint8_t b[] = { 1, 2, 3, 0x80, 0x00, 5 };
	struct cur c = cur_init(b, sizeof(b));
	size_t n = 9;

	CHECK(!cur_bytes(&c, UINT64_MAX));
	CHECK(c.err);
	CHECK_UEQ(cur_u8(&c), 0);
	CHECK_UEQ(cur_varint(&c), 0);
	CHECK_UEQ(cur_left(&c), 0);

	c = cur_init(b + 3, 3);
	CHECK_UEQ(cur_varint(&c), 0);
	CHECK(c.err);

	c = cur_init(b, sizeof(b));
	CHECK(!cur_blob(&c, 0, &n));
	CHECK_UEQ(n, 0);
	CHECK(c.err);

	c = cur_init(NULL, 0);
	CHECK(cur_done(&c));
	(void)cur_bytes(&c, 0);
	CHECK(!c.err);
	CHECK_UEQ(cur_u64(&c), 0);
	CHECK(c.err);
}

/* ---- CRC-32C ---- */

/* Bit by bit, from the definition: reflected polynomial 0x1EDC6F41. */
static uint32_t crc_slow(uint32_t crc, const uint8_t *p, size_t n)
{
	crc = ~crc;
	while (n--) {
		crc ^= *p++;
		for (unsigned int k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	}
	return ~crc;
}

TEST(test_codec__crc32c_vectors)
{
	uint8_t b[32];

	CHECK_UEQ(crc32c(0, NULL, 0), 0);
	CHECK_UEQ(crc32c(0, "123456789", 9), 0xe3069283);
	CHECK_UEQ(crc32c(0, "a", 1), 0xc1d04330);
	memset(b, 0, sizeof(b)); /* RFC 3720, B.4 */
	CHECK_UEQ(crc32c(0, b, sizeof(b)), 0x8a9136aa);
	memset(b, 0xff, sizeof(b));
	CHECK_UEQ(crc32c(0, b, sizeof(b)), 0x62a8ab43);
	for (uint8_t i = 0; i < sizeof(b); i++)
		b[i] = i;
	CHECK_UEQ(crc32c(0, b, sizeof(b)), 0x46dd794e);
	for (uint8_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(31 - i);
	CHECK_UEQ(crc32c(0, b, sizeof(b)), 0x113fdb5c);
}

TEST(test_codec__crc32c_equals_the_definition_and_continues)
{
	static uint8_t b[5000];
	uint64_t state = test_seed();

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)test_rand(&state);
	for (unsigned int i = 0; i < 500; i++) {
		const size_t off = test_rand(&state) % 64;
		const size_t n = i < 200 ? i : test_rand(&state) % (sizeof(b) - off);
		const size_t cut = n ? test_rand(&state) % n : 0;
		const uint32_t whole = crc32c(0, b + off, n);

		CHECK_UEQ(whole, crc_slow(0, b + off, n));
		CHECK_UEQ(crc32c(crc32c(0, b + off, cut), b + off + cut, n - cut), whole);
	}
}

/* ---- Key hash ---- */

/* On disk for ever: these numbers may not change. */
TEST(test_codec__key_hash_is_fixed)
{
	struct hash_seed s;
	uint8_t seed[32], key[300];

	for (uint8_t i = 0; i < sizeof(seed); i++)
		seed[i] = i;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(i * 7);
	hash_seed_init(&s, seed);
	CHECK_UEQ(key_hash(&s, 1, NULL, 0), UINT64_C(0x38fef818132a2c7c));
	CHECK_UEQ(key_hash(&s, 1, "a", 1), UINT64_C(0x853c271c31051d38));
	CHECK_UEQ(key_hash(&s, 2, "a", 1), UINT64_C(0x4b32710180e9b893));
	CHECK_UEQ(key_hash(&s, 1, key, 24), UINT64_C(0x9fdf924c7ef03492));
	CHECK_UEQ(key_hash(&s, 1, key, 300), UINT64_C(0xc85b2a5560253d3d));
}

TEST(test_codec__key_hash_depends_on_seed_namespace_and_key)
{
	struct hash_seed s, other;
	uint8_t seed[32] = { 1 };
	char key[32];
	unsigned int high[16] = { 0 };

	hash_seed_init(&s, seed);
	seed[31] = 1;
	hash_seed_init(&other, seed);
	for (size_t n = 0; n < 300; n++) {
		char text[300];

		memset(text, 'k', sizeof(text));
		CHECK(key_hash(&s, 1, text, n) != key_hash(&other, 1, text, n));
		CHECK(key_hash(&s, 1, text, n) != key_hash(&s, 2, text, n));
		CHECK_UEQ(key_hash(&s, 1, text, n), key_hash(&s, 1, text, n));
	}
	for (unsigned int i = 0; i < 16000; i++) {
		const int n = snprintf(key, sizeof(key), "key-%u", i);

		high[key_hash(&s, 1, key, (size_t)n) >> 60]++;
	}
	for (unsigned int i = 0; i < 16; i++)
		CHECK(high[i] > 800 && high[i] < 1200);
}

TEST(test_codec__crc_backwards)
{
	uint64_t state = test_seed();
	uint8_t b[64];

	for (int i = 0; i < 2000; i++) {
		const size_t n = 4 + test_rand(&state) % 60;
		const uint32_t seed = (uint32_t)test_rand(&state);

		for (size_t k = 0; k < n; k++)
			b[k] = (uint8_t)test_rand(&state);
		CHECK_UEQ(crc32c_before(crc32c(seed, b, n), b, n), seed);
		crc32c_forge(seed, b, n);
		CHECK_UEQ(crc32c(0, b, n), seed);
	}
}

TEST_MAIN()
