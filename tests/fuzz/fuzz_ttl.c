/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text forms of deadlines: every text is refused with one of two errors, or gives a deadline in
 * range that the formatters write in a form that means the same.
 */
#include "core/ttl.h"

#define NOW ((int64_t)1700000000123)

static void check_error(int err)
{
	emdb_assert(err == -EINVAL || err == -ERANGE);
}

static void check_deadline(int64_t t)
{
	char buf[TTL_TEXT_MAX];
	int64_t back = -1;

	emdb_assert(t >= 0 && t <= TTL_MAX_MS);
	if (t > 0) {
		emdb_assert(ttl_parse_expires(buf, ttl_format_expires(t, buf), &back) == 0 &&
			    back == t);
		emdb_assert(ttl_format_remaining(t, NOW, buf) < TTL_TEXT_MAX);
	}
	emdb_assert(ttl_parse(buf, ttl_format_rfc3339(t, buf), NOW, 0, &back) == 0 && back == t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *const s = (const char *)data;
	char buf[TTL_TEXT_MAX];
	int64_t t = -1;
	int64_t back = -1;
	int err;

	err = ttl_parse(s, size, NOW, size % 2 ? NOW + 5000 : 0, &t);
	if (err == 0)
		check_deadline(t);
	else
		check_error(err);

	err = ttl_parse_expires(s, size, &t);
	if (err == 0)
		check_deadline(t);
	else
		check_error(err);

	err = ttl_parse_duration(s, size, &t);
	if (err == 0)
		emdb_assert(t >= 0 && t <= TTL_MAX_MS &&
			    ttl_parse_duration(buf, ttl_format_duration(t, buf), &back) == 0 &&
			    back == t);
	else
		check_error(err);
	return 0;
}
