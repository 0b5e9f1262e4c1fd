/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/names.h"
#include "tests/unit/test.h"

#define KEY_MAX 65535

static const char *const reserved_names[] = { NULL, ".snap", "snap", "~" };
#define RESERVED_COUNT (sizeof(reserved_names) / sizeof(reserved_names[0]))

static bool is_file_name(const char *s, size_t n)
{
	return n >= 1 && n <= NAMES_MAX && !memchr(s, '/', n) && !memchr(s, '\0', n) &&
	       !(n == 1 && s[0] == '.') && !(n == 2 && s[0] == '.' && s[1] == '.');
}

/* key -> name -> key. */
static void check_key(const void *key, size_t n, const char *reserved)
{
	char name[NAMES_MAX + 1];
	const size_t len = names_from_key(key, n, reserved, name);
	uint8_t hash[NAMES_HASH_SIZE];
	struct name_key back;

	CHECK(is_file_name(name, len));
	CHECK_EQ(name[len], '\0');
	CHECK(!reserved || strcmp(name, reserved) != 0);
	CHECK(names_is(name, len, key, n, reserved));
	switch (names_to_key(name, len, reserved, &back)) {
	case NAME_KEY:
		CHECK_MEM(back.bytes, back.len, key, n);
		break;
	case NAME_HASHED:
		names_hash(key, n, hash);
		CHECK_MEM(back.hash, sizeof(back.hash), hash, sizeof(hash));
		CHECK(n >= NAMES_HASHED_KEY_MIN && back.len < n);
		CHECK_MEM(back.bytes, back.len, key, back.len);
		break;
	case NAME_RESERVED:
	case NAME_INVALID:
	case NAME_TOO_LONG:
	default:
		FAIL("the name %s of a key is no name", name);
	}
}

/* name -> key -> name, for any bytes. */
static void check_name(const char *name, size_t n, const char *reserved)
{
	char again[NAMES_MAX + 1];
	struct name_key key;

	switch (names_to_key(name, n, reserved, &key)) {
	case NAME_KEY:
		CHECK(is_file_name(name, n));
		CHECK_MEM(again, names_from_key(key.bytes, key.len, reserved, again), name, n);
		break;
	case NAME_HASHED:
		/* Nobody but the caller knows the key; what is spelled here is a key as well. */
		CHECK(is_file_name(name, n));
		check_key(name, n, reserved);
		CHECK(!names_is(name, n, name, n, reserved));
		break;
	case NAME_RESERVED:
		CHECK(reserved && strlen(reserved) == n && memcmp(name, reserved, n) == 0);
		break;
	case NAME_INVALID:
		CHECK(n <= NAMES_MAX && !is_file_name(name, n));
		break;
	case NAME_TOO_LONG:
		CHECK(n > NAMES_MAX);
		break;
	default:
		FAIL("no such kind");
	}
}

static void check_both(const char *s, size_t n)
{
	for (size_t i = 0; i < RESERVED_COUNT; i++) {
		check_key(s, n, reserved_names[i]);
		check_name(s, n, reserved_names[i]);
	}
}

/* ---- The table of the header ---- */

static void expect_in(const char *key, size_t n, const char *reserved, const char *want)
{
	char name[NAMES_MAX + 1];
	const size_t len = names_from_key(key, n, reserved, name);
	struct name_key back;

	CHECK_MEM(name, len, want, strlen(want));
	CHECK_EQ(names_to_key(want, len, reserved, &back), NAME_KEY);
	CHECK_MEM(back.bytes, back.len, key, n);
}

static void expect(const char *key, size_t n, const char *want)
{
	expect_in(key, n, ".snap", want);
}

TEST(test_names__worked_examples)
{
	expect("report.txt", 10, "report.txt");
	expect("100%", 4, "100%");
	expect("users/42", 8, "%emdb=users%2F42");
	expect("50%/day", 7, "%emdb=50%25%2Fday");
	expect("", 0, "%emdb=");
	expect(".", 1, "%emdb=.");
	expect("..", 2, "%emdb=..");
	expect("...", 3, "...");
	expect(".snap", 5, "%emdb=.snap");
	expect_in(".snap", 5, NULL, ".snap");
	expect_in("%emdb=.snap", 11, NULL, "%emdb=.snap");
	expect("%emdb=.snap", 11, "%emdb=%25emdb=.snap");
	expect("%emdb=hello", 11, "%emdb=hello");
	expect("%emdb=a%2Fb", 11, "%emdb=%25emdb=a%252Fb");
	expect("%emdb=a%2fb", 11, "%emdb=a%2fb");
	expect("%emdb=a%", 8, "%emdb=a%");
	expect("%emdb=", 6, "%emdb=%25emdb=");
	expect("%emdb=%25emdb=", 14, "%emdb=%25emdb=%2525emdb=");
	expect("%emdb=%25", 9, "%emdb=%25");
	expect("%emdb~", 6, "%emdb~");
	expect("%emdb", 5, "%emdb");
	expect("\0", 1, "%emdb=%00");
	expect("/", 1, "%emdb=%2F");
	expect("a\nb\xff", 4, "a\nb\xff");
}

TEST(test_names__kinds)
{
	char name[NAMES_MAX + 1];
	struct name_key key;

	CHECK_EQ(names_to_key(".snap", 5, ".snap", &key), NAME_RESERVED);
	CHECK_EQ(names_to_key(".snap", 5, NULL, &key), NAME_KEY);
	CHECK_EQ(names_to_key("", 0, NULL, &key), NAME_INVALID);
	CHECK_EQ(names_to_key(".", 1, NULL, &key), NAME_INVALID);
	CHECK_EQ(names_to_key("..", 2, NULL, &key), NAME_INVALID);
	CHECK_EQ(names_to_key("a/b", 3, NULL, &key), NAME_INVALID);
	CHECK_EQ(names_to_key("a\0b", 3, NULL, &key), NAME_INVALID);
	memset(name, 'x', sizeof(name));
	CHECK_EQ(names_to_key(name, NAMES_MAX, NULL, &key), NAME_KEY);
	CHECK_EQ(names_to_key(name, NAMES_MAX + 1, NULL, &key), NAME_TOO_LONG);
	memcpy(name, "%emdb=", 6);
	CHECK_EQ(names_to_key(name, NAMES_MAX + 1, NULL, &key), NAME_TOO_LONG);
}

TEST(test_names__which_names_can_be_reserved)
{
	char name[NAMES_MAX + 1] = { 0 };

	CHECK(names_reservable(".snap"));
	CHECK(!names_reservable("") && !names_reservable(".") && !names_reservable(".."));
	CHECK(!names_reservable("a/b") && !names_reservable("%emdb=") && !names_reservable("a%"));
	memset(name, 'x', NAMES_MAX - 6);
	CHECK(names_reservable(name));
	expect_in(name, NAMES_MAX - 6, NULL, name);
	check_key(name, NAMES_MAX - 6, name);
	name[NAMES_MAX - 6] = 'x';
	CHECK(!names_reservable(name));
}

/* ---- Long keys ---- */

TEST(test_names__long_key_is_head_and_hash)
{
	char key[300];
	char name[NAMES_MAX + 1];
	char other[NAMES_MAX + 1];
	struct name_key back;

	memset(key, 'x', sizeof(key));
	CHECK_UEQ(names_from_key(key, 300, NULL, name), 6 + 128 + 1 + 40);
	/* BLAKE2b-160 of 300 times x. */
	CHECK_STR(name + 6 + 128, "~5cdff8b6d7145ae42f4dabf69e299160b8ce7a30");
	CHECK_EQ(names_to_key(name, strlen(name), NULL, &back), NAME_HASHED);
	CHECK_MEM(back.bytes, back.len, key, 128);

	/* Keys with a common beginning do not share a name. */
	key[299] = 'y';
	(void)names_from_key(key, 300, NULL, other);
	CHECK(strcmp(name, other) != 0);
	CHECK(!names_is(name, strlen(name), key, 300, NULL));

	/* The form has to be exact: the separator, the length of the head. */
	name[6 + 128] = '-';
	CHECK_EQ(names_to_key(name, strlen(name), NULL, &back), NAME_KEY);
	name[6 + 128] = '~';
	memcpy(other, "%emdb~", 6);
	memcpy(other + 6, name + 6 + 6, strlen(name) - 12);
	CHECK_EQ(names_to_key(other, strlen(name) - 6, NULL, &back), NAME_KEY);
	CHECK_EQ(names_to_key(other + 1, strlen(name) - 7, NULL, &back), NAME_KEY);

	/* Another head or upper-case digits: that is not the name of this key. */
	key[299] = 'x';
	name[6] = 'y';
	CHECK_EQ(names_to_key(name, strlen(name), NULL, &back), NAME_HASHED);
	CHECK(!names_is(name, strlen(name), key, 300, NULL));
	name[strlen(name) - 1] = 'A';
	CHECK_EQ(names_to_key(name, strlen(name), NULL, &back), NAME_KEY);
}

TEST(test_names__short_form_as_long_as_it_fits)
{
	char key[300];
	char name[NAMES_MAX + 1];

	memset(key, 'x', sizeof(key));
	key[0] = '/';
	CHECK_UEQ(names_from_key(key, 247, NULL, name), NAMES_MAX);
	CHECK_MEM(name, 6, "%emdb=", 6);
	check_both(key, 247);
	CHECK_UEQ(names_from_key(key, 248, NULL, name), 175);
	CHECK_MEM(name, 6, "%emdb~", 6);
	check_both(key, 248);

	memset(key, '/', sizeof(key));
	(void)names_from_key(key, NAMES_HASHED_KEY_MIN - 1, NULL, name);
	CHECK_MEM(name, 6, "%emdb=", 6);
	(void)names_from_key(key, NAMES_HASHED_KEY_MIN, NULL, name);
	CHECK_MEM(name, 6, "%emdb~", 6);
}

/* The head ends at 123..128 bytes, wherever codes and UTF-8 sequences lie. */
TEST(test_names__head_does_not_end_inside_a_character)
{
	static const char *const chars[] = { "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "/",
					     "a/" };

	for (size_t c = 0; c < sizeof(chars) / sizeof(chars[0]); c++) {
		const size_t char_len = strlen(chars[c]);

		for (size_t lead = 0; lead < 8; lead++) {
			char key[400];
			char name[NAMES_MAX + 1];
			size_t head;

			memset(key, 'x', lead);
			for (size_t i = lead; i < sizeof(key); i++)
				key[i] = chars[c][(i - lead) % char_len];
			head = names_from_key(key, sizeof(key), NULL, name) - 6 - 41;
			CHECK(head >= 123 && head <= 128);
			if (c < 3)
				CHECK_UEQ((head - lead) % char_len, 0);
			check_both(key, sizeof(key));
		}
	}
}

TEST(test_names__invalid_utf8_still_maps)
{
	uint64_t seed = test_seed();

	for (int i = 0; i < 2000; i++) {
		char key[300];

		/* Mostly continuation bytes and leads, out of order. */
		for (size_t j = 0; j < sizeof(key); j++)
			key[j] = (char)(0x80 | test_rand(&seed) % 128);
		check_both(key, sizeof(key));
	}
}

/* ---- Properties ---- */

/* All strings of up to 5 tokens of an alphabet of marks. */
TEST(test_names__exhaustive_over_a_small_alphabet)
{
	static const char *const tokens[] = { "%emdb=", "%25", "%2F", "%00", "/", ".", "~", "%" };
	enum { TOKENS = sizeof(tokens) / sizeof(tokens[0]), DEPTH = 5 };
	size_t total = 1;

	for (int depth = 0; depth <= DEPTH; depth++, total *= TOKENS) {
		for (size_t i = 0; i < total; i++) {
			char s[DEPTH * 8];
			size_t n = 0;
			size_t rest = i;

			for (int d = 0; d < depth; d++, rest /= TOKENS) {
				const char *const t = tokens[rest % TOKENS];

				memcpy(s + n, t, strlen(t));
				n += strlen(t);
			}
			check_key(s, n, NULL);
			check_name(s, n, NULL);
			check_key(s, n, ".");
			check_name(s, n, "~");
		}
	}
}

TEST(test_names__exhaustive_two_bytes)
{
	for (unsigned int i = 0; i < 65536; i++) {
		const char s[2] = { (char)(i >> 8), (char)i };

		check_both(s, 2);
		check_both(s, 1);
	}
}

/* Names of keys are keys too: go up the tower until the hashed form ends it. */
TEST(test_names__towers)
{
	static const char *const keys[] = { "", "/", ".", "..", ".snap", "a/b", "%emdb=", "%%%" };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		char key[NAMES_MAX + 1];
		size_t n = strlen(keys[i]);

		memcpy(key, keys[i], n);
		for (int level = 0; level < 60; level++) {
			check_both(key, n);
			n = names_from_key(key, n, ".snap", key);
		}
	}
}

static size_t random_string(uint64_t *seed, char *s, size_t max)
{
	static const char *const tokens[] = { "%emdb=", "%emdb~", "%25",  "%2F", "%00",
					      "/",      "~",      ".",    "%",   "\xe2\x82\xac",
					      "x",      "hello",  "%emdb" };
	static const size_t count = sizeof(tokens) / sizeof(tokens[0]);
	const size_t want = test_rand(seed) % (max + 1);
	size_t n = 0;

	while (n < want) {
		const char *const t = tokens[test_rand(seed) % count];
		const size_t len = strlen(t);

		if (test_rand(seed) % 4 == 0) {
			s[n++] = (char)test_rand(seed);
		} else if (len <= want - n) {
			memcpy(s + n, t, len);
			n += len;
		} else {
			s[n++] = 'y';
		}
	}
	return n;
}

TEST(test_names__random_strings)
{
	uint64_t seed = test_seed();
	char *const s = malloc(KEY_MAX);

	CHECK(s);
	for (int i = 0; i < 30000; i++)
		check_both(s, random_string(&seed, s, i % 2 ? 300 : 60));
	for (int i = 0; i < 100; i++)
		check_both(s, random_string(&seed, s, KEY_MAX));
	memset(s, 0, KEY_MAX);
	check_both(s, KEY_MAX);
	free(s);
}

/* One byte of a real escaped name changed: still one to one. */
TEST(test_names__damaged_escapes)
{
	uint64_t seed = test_seed();

	for (int i = 0; i < 30000; i++) {
		char key[400];
		char name[NAMES_MAX + 1];
		const size_t n = random_string(&seed, key, sizeof(key));
		const size_t len = names_from_key(key, n, ".snap", name);

		name[test_rand(&seed) % len] = "/%~=0aF\0"[test_rand(&seed) % 8];
		check_both(name, len);
		check_both(name, len - 1);
	}
}

TEST_MAIN()
