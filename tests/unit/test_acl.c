/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/acl.h"
#include "tests/unit/test.h"

/* A list is spelled "u7 U1000=5 g4 G50=6 m7 o0": tags, ids of the named, permissions. */
static size_t make(const char *text, uint8_t *ret)
{
	static const char tags[] = "uUgGmo";
	size_t n = 4;

	memcpy(ret, "\2\0\0\0", 4);
	for (const char *p = text; *p; p += strcspn(p, " "), p += strspn(p, " ")) {
		const char *const eq = strpbrk(p, "= ");
		const bool named = eq && *eq == '=';
		const uint32_t id = named ? (uint32_t)strtoul(p + 1, NULL, 10) : UINT32_MAX;

		ret[n] = (uint8_t)(1u << (strchr(tags, *p) - tags));
		ret[n + 1] = ret[n + 3] = 0;
		ret[n + 2] = (uint8_t)((named ? eq[1] : p[1]) - '0');
		for (int i = 0; i < 4; i++)
			ret[n + 4 + i] = (uint8_t)(id >> 8 * i);
		n += 8;
	}
	return n;
}

static bool valid(const char *text)
{
	uint8_t list[256];

	return acl_is_valid(list, make(text, list));
}

TEST(test_acl__valid)
{
	CHECK(valid("u7 g5 o0"));
	CHECK(valid("u7 g5 m7 o0"));
	CHECK(valid("u7 U1000=5 g4 m7 o0"));
	CHECK(valid("u7 U1000=5 U1001=5 g4 G50=6 G51=0 m7 o0"));
}

TEST(test_acl__invalid)
{
	static const char *const bad[] = {
		"",
		"u7",
		"u7 g5",
		"g5 o0",
		"u7 o0",
		"u7 o0 g5",
		"g5 u7 o0",
		"u7 u7 g5 o0",
		"u7 g5 g5 o0",
		"u7 g5 o0 o0",
		"u7 g5 m7 m7 o0",
		"u7 U1000=5 g5 o0",
		"u7 g5 G50=5 o0",
		"u8 g5 o0",
		"u7 g5 o9",
		"u7 g4 U1000=5 m7 o0",
	};
	uint8_t list[64];
	const size_t n = make("u7 g5 o0", list);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (valid(bad[i]))
			FAIL("\"%s\" was accepted", bad[i]);
	CHECK(!acl_is_valid(NULL, 0));
	for (size_t i = 0; i < n; i++)
		CHECK(!acl_is_valid(list, i));
	CHECK(!acl_is_valid(list, n + 1));
	list[0] = 1;
	CHECK(!acl_is_valid(list, n));
	list[0] = 2;
	list[4] = 0x40;
	CHECK(!acl_is_valid(list, n));
	list[4] = 3;
	CHECK(!acl_is_valid(list, n));
}

TEST(test_acl__mode)
{
	uint8_t list[256];
	size_t n = make("u7 g5 o4", list);

	CHECK_EQ(acl_mode(list, n), 0754);
	CHECK(acl_is_mode(list, n));
	n = make("u6 U1000=7 g5 m3 o4", list);
	CHECK_EQ(acl_mode(list, n), 0634);
	CHECK(!acl_is_mode(list, n));
	n = make("u6 g5 m5 o4", list);
	CHECK_EQ(acl_mode(list, n), 0654);
	CHECK(!acl_is_mode(list, n));
}

static void check_same(const uint8_t *list, size_t n, const char *want)
{
	uint8_t other[256];

	CHECK_MEM(list, n, other, make(want, other));
}

TEST(test_acl__chmod)
{
	uint8_t list[256];
	size_t n = make("u7 U1000=7 g5 m7 o4", list);

	acl_chmod(list, n, 04600);
	check_same(list, n, "u6 U1000=7 g5 m0 o0");
	n = make("u7 g5 o4", list);
	acl_chmod(list, n, 0421);
	check_same(list, n, "u4 g2 o1");
}

TEST(test_acl__inherit)
{
	uint8_t list[256];
	size_t n = make("u7 U1000=7 g7 m7 o5", list);

	CHECK_EQ(acl_inherit(list, n, 0100666), 0100664);
	check_same(list, n, "u6 U1000=7 g7 m6 o4");
	n = make("u7 g5 o0", list);
	CHECK_EQ(acl_inherit(list, n, 02777), 02750);
	check_same(list, n, "u7 g5 o0");
	n = make("u0 U1=7 g7 m1 o0", list);
	CHECK_EQ(acl_inherit(list, n, 0777), 0010);
	check_same(list, n, "u0 U1=7 g7 m1 o0");
}

/* After a change the list and the mode agree, whatever both were. */
TEST(test_acl__random)
{
	const uint64_t seed = test_seed();
	uint64_t x = seed;
	uint8_t list[256];

	for (int i = 0; i < 100000; i++) {
		char text[64];
		const uint32_t r = (uint32_t)(test_rand(&x) >> 16);
		const uint32_t mode = r >> 17 & 07777;
		size_t n;

		(void)snprintf(text, sizeof(text), r & 1 ? "u%u g%u o%u" : "u%u U7=%u g3 m%u o1",
			       r >> 1 & 7, r >> 4 & 7, r >> 7 & 7);
		n = make(text, list);
		CHECK(acl_is_valid(list, n));
		if (r & 0x8000) {
			const uint32_t before = acl_mode(list, n);

			CHECK_EQ(acl_inherit(list, n, mode), (mode & 07000) | (mode & before));
		} else {
			acl_chmod(list, n, mode);
			CHECK_EQ(acl_mode(list, n), mode & 0777);
		}
		CHECK(acl_is_valid(list, n));
	}
}

TEST_MAIN()
