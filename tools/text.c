/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static bool is_continuation(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

/* RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
size_t text_utf8(const unsigned char *p, size_t n)
{
	if (n == 0)
		return 0;
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		return n >= 2 && is_continuation(p[1]) ? 2 : 0;
	if ((p[0] & 0xf0) == 0xe0) {
		if (n < 3 || !is_continuation(p[1]) || !is_continuation(p[2]))
			return 0;
		if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
			return 0;
		return 3;
	}
	if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		if (n < 4 || !is_continuation(p[1]) || !is_continuation(p[2]) ||
		    !is_continuation(p[3]))
			return 0;
		if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
			return 0;
		return 4;
	}
	return 0;
}

bool text_is_utf8(const void *p, size_t n)
{
	const unsigned char *s = p;

	while (n) {
		const size_t len = text_utf8(s, n);

		if (!len)
			return false;
		s += len;
		n -= len;
	}
	return true;
}

/* Steering: the C0 and C1 controls and DEL; U+2028..202E and U+2066..2069 turn the text's direction. */
bool text_is_printable(const unsigned char *p, size_t len)
{
	if (len == 1)
		return p[0] >= 0x20 && p[0] != 0x7f;
	if (len == 2)
		return !(p[0] == 0xc2 && p[1] < 0xa0);
	if (len == 3 && p[0] == 0xe2 && p[1] == 0x80)
		return p[2] < 0xa8 || p[2] > 0xae;
	if (len == 3 && p[0] == 0xe2 && p[1] == 0x81)
		return p[2] < 0xa6 || p[2] > 0xa9;
	return true;
}

const char *text_time(int64_t ms, char buf[TEXT_TIME_SIZE])
{
	const int64_t rest = (ms % 1000 + 1000) % 1000;
	const time_t secs = (time_t)((ms - rest) / 1000);
	struct tm tm;
	size_t n;

	if (!gmtime_r(&secs, &tm) || tm.tm_year > 9999 - 1900) {
		(void)snprintf(buf, TEXT_TIME_SIZE, "@%" PRId64 ".%03d", (int64_t)secs, (int)rest);
		return buf;
	}
	n = strftime(buf, TEXT_TIME_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(buf + n, TEXT_TIME_SIZE - n, ".%03dZ", (int)rest);
	return buf;
}

const char *text_size(uint64_t bytes, char buf[TEXT_SIZE_SIZE])
{
	static const char units[] = "KMGTPE";
	uint64_t unit = 1024;
	size_t i = 0;

	if (bytes < 1024) {
		(void)snprintf(buf, TEXT_SIZE_SIZE, "%" PRIu64, bytes);
		return buf;
	}
	while (i < sizeof(units) - 2 && bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	if (bytes % unit == 0 || bytes / unit >= 100)
		(void)snprintf(buf, TEXT_SIZE_SIZE, "%" PRIu64 "%c", bytes / unit, units[i]);
	else
		(void)snprintf(buf, TEXT_SIZE_SIZE, "%" PRIu64 ".%u%c", bytes / unit,
			       (unsigned int)(bytes % unit / (unit / 1024) * 10 / 1024), units[i]);
	return buf;
}

const char *text_span(int64_t ms, char buf[TEXT_SPAN_SIZE])
{
	const int64_t s = ms / 1000;

	if (ms < 1000)
		(void)snprintf(buf, TEXT_SPAN_SIZE, "%" PRId64 "ms", ms < 0 ? 0 : ms);
	else if (s < 60)
		(void)snprintf(buf, TEXT_SPAN_SIZE, "%" PRId64 "s", s);
	else if (s < 3600)
		(void)snprintf(buf, TEXT_SPAN_SIZE, "%" PRId64 "m%" PRId64 "s", s / 60, s % 60);
	else if (s < 86400)
		(void)snprintf(buf, TEXT_SPAN_SIZE, "%" PRId64 "h%" PRId64 "m", s / 3600,
			       s % 3600 / 60);
	else
		(void)snprintf(buf, TEXT_SPAN_SIZE, "%" PRId64 "d%" PRId64 "h", s / 86400,
			       s % 86400 / 3600);
	return buf;
}

bool text_parse_size(const char *s, uint64_t *ret)
{
	static const char units[] = "kmgt";
	unsigned int shift = 0;
	const char *unit;
	char *end;
	uint64_t v;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, *end | 0x20);
		if (!unit || (strcmp(end + 1, "") != 0 && strcasecmp(end + 1, "ib") != 0))
			return false;
		shift = 10 * (unsigned int)(unit - units + 1);
	}
	if (v > UINT64_MAX >> shift)
		return false;
	*ret = v << shift;
	return true;
}

int text_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}
