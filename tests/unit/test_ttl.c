/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ttl.h"
#include "tests/unit/test.h"

#include <time.h>

#define NOW  ((int64_t)1700000000123)
#define SEC  ((int64_t)1000)
#define MIN  (60 * SEC)
#define HOUR (60 * MIN)
#define DAY  (24 * HOUR)

/* ---- Queue ---- */

static int by_time(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a;
	const int64_t y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

TEST(test_ttl__heap_gives_items_in_order)
{
	enum { N = 200000 };
	uint64_t seed = test_seed();
	int64_t *const want = calloc(N, sizeof(*want));
	struct ttl_heap h;
	struct ttl_item it;
	uint64_t sum = 0;

	CHECK(want);
	ttl_heap_init(&h);
	CHECK(!ttl_heap_peek(&h, &it) && !ttl_heap_pop(&h, &it));
	for (size_t i = 0; i < N; i++) {
		/* Few different times, so that duplicates are common. */
		it = (struct ttl_item){ (int64_t)(test_rand(&seed) % (N / 4)) - 1000, i, i * 3 };
		want[i] = it.expires_ms;
		CHECK_OK(ttl_heap_push(&h, &it));
	}
	CHECK(ttl_heap_check(&h));
	CHECK_UEQ(ttl_heap_count(&h), N);
	qsort(want, N, sizeof(*want), by_time);
	for (size_t i = 0; i < N; i++) {
		struct ttl_item top;

		CHECK(ttl_heap_peek(&h, &top) && ttl_heap_pop(&h, &it));
		CHECK_MEM(&top, sizeof(top), &it, sizeof(it));
		CHECK_EQ(it.expires_ms, want[i]);
		CHECK_UEQ(it.hash, it.ns * 3);
		sum += it.ns;
	}
	CHECK_UEQ(sum, (uint64_t)N * (N - 1) / 2);
	CHECK(ttl_heap_memory(&h) < 200000);
	ttl_heap_release(&h);
	free(want);
}

TEST(test_ttl__heap_random_push_and_pop)
{
	uint64_t seed = test_seed();
	struct ttl_heap h;
	struct ttl_item it;
	int64_t least = INT64_MIN;
	size_t count = 0;

	ttl_heap_init(&h);
	for (int i = 0; i < 300000; i++) {
		const bool grow = i / 30000 % 2 == 0;

		if (test_rand(&seed) % 8 < (grow ? 7 : 1)) {
			it.expires_ms = (int64_t)(test_rand(&seed) % 1000000);
			it.ns = it.hash = 0;
			if (count++ == 0 || it.expires_ms < least)
				least = it.expires_ms;
			CHECK_OK(ttl_heap_push(&h, &it));
		} else if (ttl_heap_pop(&h, &it)) {
			CHECK_EQ(it.expires_ms, least);
			count--;
			least = ttl_heap_peek(&h, &it) ? it.expires_ms : INT64_MIN;
		}
		CHECK_UEQ(ttl_heap_count(&h), count);
		if (i % 10000 == 0)
			CHECK(ttl_heap_check(&h));
	}
	ttl_heap_release(&h);
}

static long fail_after;

static void *fail_malloc(size_t n)
{
	return fail_after-- <= 0 ? NULL : malloc(n);
}

static void *fail_realloc(void *p, size_t n)
{
	return fail_after-- <= 0 ? NULL : realloc(p, n);
}

static const struct base_allocator failing = { fail_malloc, calloc, fail_realloc, free };

TEST(test_ttl__heap_failed_push_changes_nothing)
{
	struct ttl_heap h;
	struct ttl_item it = { 0, 1, 2 };
	size_t failures = 0;

	base_set_allocator(&failing);
	ttl_heap_init(&h);
	for (int i = 0; i < 40000; i++) {
		it.expires_ms = i * 7919 % 40000;
		fail_after = 0;
		while (ttl_heap_push(&h, &it) < 0) {
			CHECK_UEQ(ttl_heap_count(&h), i);
			fail_after = (long)(++failures % 3);
		}
	}
	CHECK(failures > 20 && ttl_heap_check(&h));
	for (int i = 0; i < 40000; i++) {
		CHECK(ttl_heap_pop(&h, &it));
		CHECK_EQ(it.expires_ms, i);
	}
	base_set_allocator(NULL);
	ttl_heap_release(&h);
}

TEST(test_ttl__heap_reserved_push_cannot_fail)
{
	struct ttl_item it = { 5, 1, 2 };
	struct ttl_heap h;

	base_set_allocator(&failing);
	ttl_heap_init(&h);
	fail_after = 1000;
	for (int i = 0; i < 10000; i++)
		CHECK_OK(ttl_heap_reserve(&h));
	/* Others push and pop meanwhile and must not eat what is reserved. */
	for (int i = 0; i < 5000; i++)
		CHECK_OK(ttl_heap_push(&h, &it));
	for (int i = 0; i < 5000; i++)
		CHECK(ttl_heap_pop(&h, &it));
	fail_after = 0;
	for (int i = 0; i < 9999; i++)
		ttl_heap_push_reserved(&h, &it);
	ttl_heap_unreserve(&h);
	CHECK(ttl_heap_check(&h));
	CHECK_UEQ(ttl_heap_count(&h), 9999);
	base_set_allocator(NULL);
	ttl_heap_release(&h);
}

TEST(test_ttl__heap_of_a_million_is_small)
{
	uint64_t seed = test_seed();
	struct ttl_heap h;

	ttl_heap_init(&h);
	for (uint64_t i = 0; i < 1000000; i++) {
		const struct ttl_item it = { (int64_t)(test_rand(&seed) >> 1), i, i };

		CHECK_OK(ttl_heap_push(&h, &it));
	}
	CHECK(ttl_heap_check(&h));
	CHECK(ttl_heap_memory(&h) < 25000000);
	ttl_heap_release(&h);
	CHECK_UEQ(ttl_heap_memory(&h), 0);
}

/* ---- Rule ---- */

TEST(test_ttl__rule)
{
	CHECK(!ttl_expired(0, NOW));
	CHECK(ttl_expired(NOW, NOW));
	CHECK(!ttl_expired(NOW + 1, NOW));
	CHECK(ttl_expired(1, NOW));
	CHECK_EQ(ttl_deadline(NOW, 500), NOW + 500);
	CHECK_EQ(ttl_deadline(NOW, INT64_MAX), TTL_MAX_MS);
	CHECK_EQ(ttl_deadline(NOW, TTL_MAX_MS), TTL_MAX_MS);
	CHECK_EQ(ttl_deadline(0, 0), 1);
}

/* ---- Parsing ---- */

/* Calls with a buffer of exactly n bytes, so that a read behind it is caught by ASan. */
static int parse_n(const char *s, size_t n, int64_t current, int64_t *ret)
{
	char *const copy = malloc(n ? n : 1);
	int err;

	CHECK(copy);
	memcpy(copy, s, n);
	err = ttl_parse(copy, n, NOW, current, ret);
	free(copy);
	return err;
}

static int64_t parse_with(const char *s, int64_t current)
{
	int64_t ret = -77;
	const int err = parse_n(s, strlen(s), current, &ret);

	if (err < 0) {
		CHECK_EQ(ret, -77);
		return err;
	}
	CHECK(ret >= 0 && ret <= TTL_MAX_MS);
	return ret;
}

/* The deadline, or the error if negative. */
static int64_t parse(const char *s)
{
	return parse_with(s, 0);
}

TEST(test_ttl__durations)
{
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {
		{ "90", 90 * SEC },
		{ "90s", 90 * SEC },
		{ "0", 0 },
		{ "0s", 0 },
		{ "00090", 90 * SEC },
		{ "1h30m", 90 * MIN },
		{ "10d12h", 10 * DAY + 12 * HOUR },
		{ "7d", 7 * DAY },
		{ "2w", 14 * DAY },
		{ "500ms", 500 },
		{ "1.5h", 90 * MIN },
		{ "1.5", 1500 },
		{ "0.25d", 6 * HOUR },
		{ "0.001s", 1 },
		{ "0.1ms", 1 },
		{ "0.0000000000000000000000000000001us", 1 },
		{ "1us", 1 },
		{ "1000us", 1 },
		{ "1001us", 2 },
		{ "999us 1us", 1 },
		{ "0.3333333333333333333333333333333333333333m", 20 * SEC },
		{ "1h1h", 2 * HOUR },
		{ "30m 1h", 90 * MIN },
		{ " \t1 h  30 min \r\n", 90 * MIN },
		{ "1w2d3h4m5s6ms", 9 * DAY + 3 * HOUR + 4 * MIN + 5 * SEC + 6 },
		{ "1sec2second3seconds", 6 * SEC },
		{ "1min2minute3minutes", 6 * MIN },
		{ "1hr2hour3hours", 6 * HOUR },
		{ "1day2days", 3 * DAY },
		{ "1week2weeks", 21 * DAY },
		{ "1month", 2629800 * SEC },
		{ "12months", 31557600 * SEC },
		{ "1y2year3years", 6 * 31557600 * SEC },
		{ "1usec1msec", 2 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const int64_t got = parse(cases[i].text);

		if (got != NOW + cases[i].ms)
			FAIL("%s: %" PRId64 ", wanted %" PRId64, cases[i].text, got - NOW,
			     cases[i].ms);
	}
}

TEST(test_ttl__refused_texts)
{
	static const char *const bad[] = {
		"",       " ",        "\n",       "-1",
		"-1h",    "1h-30m",   "h",        "s90",
		"1x",     "1h30",     "1 2",      "1h 30",
		"90 s x", "1.h",      ".5h",      "1..5h",
		"1,5h",   "1e3",      "0x10",     "1H",
		"1M",     "1D",       "1hourss",  "+",
		"+0",     "+0s",      "+-1h",     "-+1h",
		"++1h",   "+ 1h",     "+none",    "@",
		"@-1",    "@1.",      "@.5",      "@1s",
		"@ 1",    "@1 1",     "@@1",      "none!",
		"None",   "NEVER",    "nonenone", "no",
		"1\x80h", "\xff",     "1h,2m",    "1h;",
		"@0x1",   "infinity", "1s\v",     "99999999999999999999999999x",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse(bad[i]) != -EINVAL)
			FAIL("'%s' gave %" PRId64, bad[i], parse(bad[i]));
	}
}

TEST(test_ttl__too_large)
{
	static const char *const huge[] = {
		"18446744073709551616",
		"99999999999999999999999999999999",
		"9223372036854775807us9223372036854775807us9223372036854775807us",
		"8000y",
		"1000000w",
		"+8000y",
		"@253402300800",
		"@253402300799.9991",
		"@18446744073709551615",
		"9999-12-31T23:59:59.9991Z",
		"9999-12-31T23:59:60Z",
		"9999-12-31T23:59:59-00:01",
		"18446744073709551615y",
		"18446744073709551616us",
		"253402300800000ms",
	};

	for (size_t i = 0; i < ARRAY_SIZE(huge); i++) {
		if (parse(huge[i]) != -ERANGE)
			FAIL("'%s' gave %" PRId64, huge[i], parse(huge[i]));
	}
	CHECK_EQ(parse("@253402300799.999"), TTL_MAX_MS);
	CHECK_EQ(parse("9999-12-31T23:59:59.999Z"), TTL_MAX_MS);
}

TEST(test_ttl__never_extend_and_unix_time)
{
	CHECK_EQ(parse("none"), 0);
	CHECK_EQ(parse("never\n"), 0);
	CHECK_EQ(parse_with("+1h", 0), NOW + HOUR);
	CHECK_EQ(parse_with("+1h", NOW + DAY), NOW + DAY + HOUR);
	CHECK_EQ(parse_with("+0.1ms", NOW + DAY), NOW + DAY + 1);
	CHECK_EQ(parse_with("1h", NOW + DAY), NOW + HOUR);
	CHECK_EQ(parse_with("+1ms", TTL_MAX_MS - 1), TTL_MAX_MS);
	CHECK_EQ(parse_with("+1ms", TTL_MAX_MS), -ERANGE);
	CHECK_EQ(parse_with("+1ms", INT64_MAX), -ERANGE);
	CHECK_EQ(parse("@1712345678"), 1712345678000);
	CHECK_EQ(parse("@1712345678.5"), 1712345678500);
	CHECK_EQ(parse("@1712345678.0001"), 1712345678001);
	CHECK_EQ(parse("@1712345678.999999999"), 1712345679000);
	CHECK_EQ(parse(" @1712345678\n"), 1712345678000);
	CHECK_EQ(parse("@0"), 1);
	CHECK_EQ(parse("@0.0"), 1);
}

TEST(test_ttl__one_nul_behind_is_ignored)
{
	int64_t ms = 0;

	CHECK_OK(parse_n("90s\0", 4, 0, &ms));
	CHECK_EQ(ms, NOW + 90 * SEC);
	CHECK_OK(parse_n("90s\n\0", 5, 0, &ms));
	CHECK_EQ(parse_n("90s\0\0", 5, 0, &ms), -EINVAL);
	CHECK_EQ(parse_n("9\0s", 3, 0, &ms), -EINVAL);
	CHECK_EQ(parse_n("\0", 1, 0, &ms), -EINVAL);
	CHECK_EQ(ttl_parse(NULL, 0, NOW, 0, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_expires(NULL, 0, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_duration(NULL, 0, &ms), -EINVAL);
}

TEST(test_ttl__rfc3339)
{
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {
		{ "2026-11-22T10:00:00Z", 1795341600000 },
		{ "2026-11-22t10:00:00z", 1795341600000 },
		{ "2026-11-22 10:00:00Z", 1795341600000 },
		{ "2026-11-22T10:00:00.5Z", 1795341600500 },
		{ "2026-11-22T10:00:00.0000000000001Z", 1795341600001 },
		{ "2026-11-22T10:00:00+00:00", 1795341600000 },
		{ "2026-11-22T10:00:00-00:00", 1795341600000 },
		{ "2026-11-22T15:30:00+05:30", 1795341600000 },
		{ "2026-11-21T10:01:00-23:59", 1795341600000 },
		{ "\t2026-11-22T10:00:00Z\n", 1795341600000 },
		{ "2024-02-29T00:00:00Z", 1709164800000 },
		{ "2000-02-29T00:00:00Z", 951782400000 },
		{ "2016-12-31T23:59:60Z", 1483228800000 },
		{ "2017-01-01T05:29:60+05:30", 1483228800000 },
		{ "2016-12-31T23:59:60.25Z", 1483228800250 },
		{ "1970-01-01T00:00:00Z", 1 },
		{ "1970-01-01T00:00:00.002Z", 2 },
		{ "1969-12-31T23:59:59Z", 1 },
		{ "0000-01-01T00:00:00Z", 1 },
		{ "0000-02-29T00:00:00Z", 1 },
		{ "2026-11-22T10:00:0", -EINVAL },
		{ "2026-11-22T10:00:00", -EINVAL },
		{ "2026-11-22", -EINVAL },
		{ "2026-11-22T10:00Z", -EINVAL },
		{ "2026-13-22T10:00:00Z", -EINVAL },
		{ "2026-00-22T10:00:00Z", -EINVAL },
		{ "2026-11-31T10:00:00Z", -EINVAL },
		{ "2026-11-00T10:00:00Z", -EINVAL },
		{ "2026-02-29T10:00:00Z", -EINVAL },
		{ "1900-02-29T10:00:00Z", -EINVAL },
		{ "2026-11-22T24:00:00Z", -EINVAL },
		{ "2026-11-22T10:60:00Z", -EINVAL },
		{ "2026-11-22T10:00:61Z", -EINVAL },
		{ "2026-11-22T10:00:60Z", -EINVAL },
		{ "2016-12-31T23:59:60+01:00", -EINVAL },
		{ "2026-11-22T10:00:00.Z", -EINVAL },
		{ "2026-11-22T10:00:00,5Z", -EINVAL },
		{ "2026-11-22T10:00:00+0530", -EINVAL },
		{ "2026-11-22T10:00:00+24:00", -EINVAL },
		{ "2026-11-22T10:00:00+05:60", -EINVAL },
		{ "2026-11-22T10:00:00ZZ", -EINVAL },
		{ "2026-11-22T10:00:00 Z", -EINVAL },
		{ "2026-11-22X10:00:00Z", -EINVAL },
		{ "2026-1-22T10:00:00Z", -EINVAL },
		{ "+2026-11-22T10:00:00Z", -EINVAL },
		{ "-2026-11-22T10:00:00Z", -EINVAL },
		{ "12026-11-22T10:00:00Z", -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const int64_t got = parse(cases[i].text);

		if (got != cases[i].ms)
			FAIL("%s: %" PRId64 ", wanted %" PRId64, cases[i].text, got, cases[i].ms);
	}
}

TEST(test_ttl__parse_expires)
{
	int64_t ms = 5;

	CHECK_OK(ttl_parse_expires("1712345678.123000000", 20, &ms));
	CHECK_EQ(ms, 1712345678123);
	CHECK_OK(ttl_parse_expires("1712345678\n", 11, &ms));
	CHECK_EQ(ms, 1712345678000);
	CHECK_OK(ttl_parse_expires("0", 1, &ms));
	CHECK_EQ(ms, 1);
	CHECK_EQ(ttl_parse_expires("@1", 2, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_expires("none", 4, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_expires("1h", 2, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_expires("-5", 2, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_expires("999999999999", 12, &ms), -ERANGE);
	CHECK_EQ(ms, 1);
}

TEST(test_ttl__parse_duration)
{
	int64_t ms = 5;

	CHECK_OK(ttl_parse_duration("7d", 2, &ms));
	CHECK_EQ(ms, 7 * DAY);
	CHECK_OK(ttl_parse_duration("0", 1, &ms));
	CHECK_EQ(ms, 0);
	CHECK_OK(ttl_parse_duration("never", 5, &ms));
	CHECK_EQ(ms, 0);
	CHECK_OK(ttl_parse_duration("253402300799999ms", 17, &ms));
	CHECK_EQ(ms, TTL_MAX_MS);
	CHECK_EQ(ttl_parse_duration("253402300800000ms", 17, &ms), -ERANGE);
	CHECK_EQ(ttl_parse_duration("+1h", 3, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_duration("@5", 2, &ms), -EINVAL);
	CHECK_EQ(ttl_parse_duration("2026-11-22T10:00:00Z", 20, &ms), -EINVAL);
	CHECK_EQ(ms, TTL_MAX_MS);
}

/* ---- Formatting ---- */

#define CHECK_TEXT(call, want)                 \
	do {                                   \
		CHECK_UEQ(call, strlen(want)); \
		CHECK_STR(buf, want);          \
	} while (0)

TEST(test_ttl__format)
{
	char buf[TTL_TEXT_MAX];

	CHECK_TEXT(ttl_format_remaining(NOW + 90000, NOW, buf), "90");
	CHECK_TEXT(ttl_format_remaining(NOW + 89001, NOW, buf), "90");
	CHECK_TEXT(ttl_format_remaining(NOW + 1, NOW, buf), "1");
	CHECK_TEXT(ttl_format_remaining(NOW, NOW, buf), "0");
	CHECK_TEXT(ttl_format_remaining(NOW - 5, NOW, buf), "0");
	CHECK_TEXT(ttl_format_remaining(0, NOW, buf), "none");
	CHECK_TEXT(ttl_format_remaining(INT64_MAX, INT64_MIN, buf), "18446744073709552");
	CHECK_TEXT(ttl_format_expires(1712345678123, buf), "1712345678.123000000");
	CHECK_TEXT(ttl_format_expires(1, buf), "0.001000000");
	CHECK_TEXT(ttl_format_expires(0, buf), "none");
	CHECK_TEXT(ttl_format_expires(INT64_MAX, buf), "9223372036854775.807000000");
	CHECK_TEXT(ttl_format_rfc3339(1795341600000, buf), "2026-11-22T10:00:00Z");
	CHECK_TEXT(ttl_format_rfc3339(1795341600042, buf), "2026-11-22T10:00:00.042Z");
	CHECK_TEXT(ttl_format_rfc3339(1, buf), "1970-01-01T00:00:00.001Z");
	CHECK_TEXT(ttl_format_rfc3339(INT64_MAX, buf), "9999-12-31T23:59:59.999Z");
	CHECK_TEXT(ttl_format_rfc3339(0, buf), "none");
	CHECK_TEXT(ttl_format_rfc3339(INT64_MIN, buf), "none");
	CHECK_TEXT(ttl_format_duration(7 * DAY, buf), "7d");
	CHECK_TEXT(ttl_format_duration(90 * MIN, buf), "1h30m");
	CHECK_TEXT(ttl_format_duration(500, buf), "500ms");
	CHECK_TEXT(ttl_format_duration(61001, buf), "1m1s1ms");
	CHECK_TEXT(ttl_format_duration(0, buf), "none");
	CHECK_TEXT(ttl_format_duration(-1, buf), "none");
	CHECK_TEXT(ttl_format_duration(INT64_MAX, buf), "106751991167d7h12m55s807ms");
}

TEST(test_ttl__round_trips)
{
	uint64_t seed = test_seed();

	for (int i = 0; i < 50000; i++) {
		const int64_t t = (int64_t)(test_rand(&seed) % (uint64_t)TTL_MAX_MS) >> (i % 40);
		const int64_t ms = t < 1 ? 1 : t;
		char buf[TTL_TEXT_MAX];
		int64_t back = -1;

		CHECK_OK(ttl_parse_expires(buf, ttl_format_expires(ms, buf), &back));
		CHECK_EQ(back, ms);
		CHECK_OK(ttl_parse_duration(buf, ttl_format_duration(ms, buf), &back));
		CHECK_EQ(back, ms);
		CHECK_OK(ttl_parse(buf, ttl_format_rfc3339(ms, buf), NOW, 0, &back));
		CHECK_EQ(back, ms);
		CHECK_OK(ttl_parse(buf, ttl_format_remaining(ms, 0, buf), 0, 0, &back));
		CHECK(back >= ms && back < ms + 1000);
	}
}

/* Every day of the calendar against the C library. */
TEST(test_ttl__calendar_is_right)
{
	for (int64_t day = 0; day <= TTL_MAX_MS / DAY; day++) {
		const time_t secs = (time_t)(day * 86400 + day % 86400);
		char want[64];
		char buf[TTL_TEXT_MAX];
		struct tm tm;

		CHECK(gmtime_r(&secs, &tm));
		CHECK(strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%SZ", &tm) > 0);
		if (secs > 0)
			CHECK_TEXT(ttl_format_rfc3339(secs * 1000, buf), want);
		if (secs > 0 && day % 7 == 0)
			CHECK_EQ(parse(want), secs * 1000);
	}
}

/* Texts of the alphabet at random: no crash, nothing out of range, and the errors are the two. */
TEST(test_ttl__random_texts)
{
	static const char alphabet[] = "0123456789.:+-@TZtz hmswdyun\n";
	uint64_t seed = test_seed();

	for (int i = 0; i < 100000; i++) {
		char s[40];
		const size_t n = test_rand(&seed) % sizeof(s);
		int64_t ret = -77;
		int err;

		for (size_t j = 0; j < n; j++)
			s[j] = alphabet[test_rand(&seed) % (sizeof(alphabet) - 1)];
		err = parse_n(s, n, 0, &ret);
		CHECK(err == 0 ? ret >= 0 && ret <= TTL_MAX_MS
			       : (err == -EINVAL || err == -ERANGE) && ret == -77);
	}
}

TEST_MAIN()
