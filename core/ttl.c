/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ttl.h"

#include <stdio.h>

/* ---- The queue ---- */

#define CHUNK_SHIFT 11
#define CHUNK_ITEMS ((size_t)1 << CHUNK_SHIFT)
#define ARITY       4

static_assert(sizeof(struct ttl_item) == 24, "a million deadlines have to stay small");

static struct ttl_item *item_at(const struct ttl_heap *h, size_t i)
{
	return &h->chunks[i >> CHUNK_SHIFT][i & (CHUNK_ITEMS - 1)];
}

/* Chunk c belongs to the snapshot too. */
static bool is_shared(const struct ttl_heap *h, size_t c)
{
	return h->snap && c < h->snap->chunk_count && h->chunks[c] == h->snap->chunks[c];
}

/* Item i, to be written. */
static struct ttl_item *item_of(struct ttl_heap *h, size_t i)
{
	const size_t c = i >> CHUNK_SHIFT;

	if (unlikely(h->snap) && is_shared(h, c) && !h->snap->broken) {
		struct ttl_item *const copy = base_malloc(CHUNK_ITEMS * sizeof(*copy));

		if (copy) {
			memcpy(copy, h->chunks[c], CHUNK_ITEMS * sizeof(*copy));
			h->chunks[c] = copy;
		} else {
			h->snap->broken = true;
		}
	}
	return item_at(h, i);
}

void ttl_heap_init(struct ttl_heap *h)
{
	memset(h, 0, sizeof(*h));
}

void ttl_heap_release(struct ttl_heap *h)
{
	emdb_assert(!h->snap);
	while (h->chunk_count)
		base_free(h->chunks[--h->chunk_count]);
	base_free(h->chunks);
	ttl_heap_init(h);
}

static int add_chunk(struct ttl_heap *h)
{
	struct ttl_item *chunk;

	if (h->chunk_count == h->chunk_cap) {
		const size_t cap = h->chunk_cap ? h->chunk_cap * 2 : 8;
		struct ttl_item **const chunks = base_realloc(h->chunks, cap * sizeof(*chunks));

		if (!chunks)
			return -ENOMEM;
		h->chunks = chunks;
		h->chunk_cap = cap;
	}
	chunk = base_malloc(CHUNK_ITEMS * sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	h->chunks[h->chunk_count++] = chunk;
	return 0;
}

int ttl_heap_reserve(struct ttl_heap *h)
{
	if (h->count + h->reserved == h->chunk_count * CHUNK_ITEMS) {
		const int err = add_chunk(h);

		if (err < 0)
			return err;
	}
	h->reserved++;
	return 0;
}

void ttl_heap_unreserve(struct ttl_heap *h)
{
	emdb_assert(h->reserved > 0);
	h->reserved--;
}

void ttl_heap_push_reserved(struct ttl_heap *h, const struct ttl_item *item)
{
	size_t i = h->count;

	ttl_heap_unreserve(h);
	h->count++;
	while (i > 0) {
		const size_t parent = (i - 1) / ARITY;
		const struct ttl_item *const p = item_at(h, parent);

		if (p->expires_ms <= item->expires_ms)
			break;
		*item_of(h, i) = *p;
		i = parent;
	}
	*item_of(h, i) = *item;
}

int ttl_heap_push(struct ttl_heap *h, const struct ttl_item *item)
{
	const int err = ttl_heap_reserve(h);

	if (err < 0)
		return err;
	ttl_heap_push_reserved(h, item);
	return 0;
}

bool ttl_heap_peek(const struct ttl_heap *h, struct ttl_item *ret)
{
	if (h->count == 0)
		return false;
	*ret = *item_at(h, 0);
	return true;
}

static size_t first_child(const struct ttl_heap *h, size_t i)
{
	const size_t begin = i * ARITY + 1;
	size_t best = begin;

	for (size_t c = begin + 1; c < begin + ARITY && c < h->count; c++) {
		if (item_at(h, c)->expires_ms < item_at(h, best)->expires_ms)
			best = c;
	}
	return best;
}

/* Frees chunks behind the last item, but one, so that push and pop at an edge do not thrash. */
static void drop_chunks(struct ttl_heap *h)
{
	const size_t used = (h->count + h->reserved + CHUNK_ITEMS - 1) / CHUNK_ITEMS;

	while (h->chunk_count > used + 1) {
		const size_t c = h->chunk_count - 1;

		if (!is_shared(h, c))
			base_free(h->chunks[c]);
		h->chunk_count = c;
	}
}

bool ttl_heap_pop(struct ttl_heap *h, struct ttl_item *ret)
{
	struct ttl_item last;
	size_t i = 0;

	if (!ttl_heap_peek(h, ret))
		return false;
	last = *item_at(h, --h->count);
	while (i * ARITY + 1 < h->count) {
		const size_t child = first_child(h, i);

		if (item_at(h, child)->expires_ms >= last.expires_ms)
			break;
		*item_of(h, i) = *item_at(h, child);
		i = child;
	}
	if (h->count > 0)
		*item_of(h, i) = last;
	drop_chunks(h);
	return true;
}

int ttl_heap_snap(struct ttl_heap *h, struct ttl_snap *ret)
{
	struct ttl_snap s = { .chunk_count = (h->count + CHUNK_ITEMS - 1) / CHUNK_ITEMS,
			      .count = h->count };

	emdb_assert(!h->snap);
	s.chunks = base_malloc(s.chunk_count * sizeof(*s.chunks));
	if (!s.chunks)
		return -ENOMEM;
	if (s.chunk_count)
		memcpy(s.chunks, h->chunks, s.chunk_count * sizeof(*s.chunks));
	*ret = s;
	h->snap = ret;
	return 0;
}

int ttl_snap_read(const struct ttl_snap *s, size_t from, struct ttl_item *out, size_t max,
		  size_t *ret_n)
{
	size_t n = 0;

	if (s->broken)
		return -ENOMEM;
	for (; n < max && from + n < s->count; n++)
		out[n] = s->chunks[(from + n) >> CHUNK_SHIFT][(from + n) & (CHUNK_ITEMS - 1)];
	*ret_n = n;
	return 0;
}

void ttl_heap_unsnap(struct ttl_heap *h, struct ttl_snap *s)
{
	if (!s->chunks)
		return;
	for (size_t c = 0; c < s->chunk_count; c++)
		if (c >= h->chunk_count || h->chunks[c] != s->chunks[c])
			base_free(s->chunks[c]);
	base_free(s->chunks);
	memset(s, 0, sizeof(*s));
	h->snap = NULL;
}

size_t ttl_heap_memory(const struct ttl_heap *h)
{
	return h->chunk_cap * sizeof(*h->chunks) +
	       h->chunk_count * CHUNK_ITEMS * sizeof(struct ttl_item);
}

bool ttl_heap_check(const struct ttl_heap *h)
{
	if (h->chunk_count > h->chunk_cap || h->count + h->reserved > h->chunk_count * CHUNK_ITEMS)
		return false;
	for (size_t i = 1; i < h->count; i++) {
		if (item_at(h, i)->expires_ms < item_at(h, (i - 1) / ARITY)->expires_ms)
			return false;
	}
	return true;
}

/* ---- Scanning ---- */

/* What is left to read. */
struct text {
	const char *p;
	const char *end;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static void skip_spaces(struct text *t)
{
	while (t->p < t->end && is_space(*t->p))
		t->p++;
}

static struct text trim(const char *s, size_t n)
{
	struct text t = { s, s };

	if (n > 0 && s[n - 1] == '\0')
		n--;
	while (n > 0 && is_space(s[n - 1]))
		n--;
	if (n > 0)
		t.end = s + n;
	skip_spaces(&t);
	return t;
}

static bool take_char(struct text *t, char c)
{
	if (t->p == t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

/* Exactly n digits and nothing said about what follows. */
static bool take_digits(struct text *t, size_t n, int64_t *ret)
{
	int64_t v = 0;

	if ((size_t)(t->end - t->p) < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_digit(t->p[i]))
			return false;
		v = v * 10 + (t->p[i] - '0');
	}
	t->p += n;
	*ret = v;
	return true;
}

static bool text_is(const struct text *t, const char *word)
{
	const size_t n = strlen(word);

	return (size_t)(t->end - t->p) == n && memcmp(t->p, word, n) == 0;
}

/* ---- Numbers ---- */

/* digits[.digits]: a whole part and the digits behind the point. */
struct decimal {
	uint64_t whole; /* what does not fit is some number beyond TTL_MAX_MS in any unit */
	const char *frac;
	const char *frac_end;
};

/* The digits behind a point, if one is there; false for a point without digits. */
static bool take_fraction(struct text *t, struct decimal *ret)
{
	ret->frac = ret->frac_end = t->p;
	if (!take_char(t, '.'))
		return true;
	ret->frac = t->p;
	while (t->p < t->end && is_digit(*t->p))
		t->p++;
	ret->frac_end = t->p;
	return ret->frac < ret->frac_end;
}

static bool take_decimal(struct text *t, struct decimal *ret)
{
	const char *const begin = t->p;

	ret->whole = 0;
	for (; t->p < t->end && is_digit(*t->p); t->p++) {
		if (emdb_mul_ovf(ret->whole, 10, &ret->whole) ||
		    emdb_add_ovf(ret->whole, (uint64_t)(*t->p - '0'), &ret->whole))
			ret->whole = UINT64_MAX / 10; /* more digits keep it that large */
	}
	return t->p > begin && take_fraction(t, ret);
}

/*
 * The fraction of unit that the digits say, rounded up. From the last digit to
 * the first, x becomes (digit * unit + x) / 10; rounding each step down (with a
 * note of what was lost) gives the same as rounding the exact result down.
 */
static uint64_t scale_fraction(const struct decimal *d, uint64_t unit)
{
	bool lost = false;
	uint64_t x = 0;

	for (const char *p = d->frac_end; p > d->frac; p--) {
		x += (uint64_t)(p[-1] - '0') * unit;
		lost = lost || x % 10;
		x /= 10;
	}
	return x + lost;
}

/* Adds d units of unit_us to *us. */
static int add_scaled(uint64_t *us, const struct decimal *d, uint64_t unit_us)
{
	uint64_t v;

	if (emdb_mul_ovf(d->whole, unit_us, &v) ||
	    emdb_add_ovf(v, scale_fraction(d, unit_us), &v) || emdb_add_ovf(v, *us, us))
		return -ERANGE;
	return 0;
}

static int us_to_ms(uint64_t us, int64_t *ret)
{
	const uint64_t ms = us / 1000 + (us % 1000 != 0);

	if (ms > (uint64_t)TTL_MAX_MS)
		return -ERANGE;
	*ret = (int64_t)ms;
	return 0;
}

/* ---- Durations ---- */

#define SECOND_US ((uint64_t)1000000)
#define MINUTE_US (60 * SECOND_US)
#define HOUR_US   (60 * MINUTE_US)
#define DAY_US    (24 * HOUR_US)
#define YEAR_US   (365 * DAY_US + 6 * HOUR_US)

static const struct unit {
	const char *name;
	uint64_t us;
} units[] = {
	{ "us", 1 },
	{ "usec", 1 },
	{ "ms", 1000 },
	{ "msec", 1000 },
	{ "s", SECOND_US },
	{ "sec", SECOND_US },
	{ "second", SECOND_US },
	{ "seconds", SECOND_US },
	{ "m", MINUTE_US },
	{ "min", MINUTE_US },
	{ "minute", MINUTE_US },
	{ "minutes", MINUTE_US },
	{ "h", HOUR_US },
	{ "hr", HOUR_US },
	{ "hour", HOUR_US },
	{ "hours", HOUR_US },
	{ "d", DAY_US },
	{ "day", DAY_US },
	{ "days", DAY_US },
	{ "w", 7 * DAY_US },
	{ "week", 7 * DAY_US },
	{ "weeks", 7 * DAY_US },
	{ "month", YEAR_US / 12 },
	{ "months", YEAR_US / 12 },
	{ "y", YEAR_US },
	{ "year", YEAR_US },
	{ "years", YEAR_US },
};

/* Takes a word of letters; 0 if it is not a unit. */
static uint64_t take_unit(struct text *t)
{
	struct text word = { t->p, t->p };

	while (t->p < t->end && *t->p >= 'a' && *t->p <= 'z')
		t->p++;
	word.end = t->p;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (text_is(&word, units[i].name))
			return units[i].us;
	}
	return 0;
}

static int parse_duration(struct text t, int64_t *ret_ms)
{
	uint64_t us = 0;
	bool alone = true;
	int err = 0;

	do {
		struct decimal d;
		uint64_t unit = SECOND_US;

		if (!take_decimal(&t, &d))
			return -EINVAL;
		skip_spaces(&t);
		if (t.p < t.end || !alone)
			unit = take_unit(&t);
		if (unit == 0)
			return -EINVAL;
		skip_spaces(&t);
		alone = false;
		/* Garbage further on is to be called that, not a large number. */
		if (err == 0)
			err = add_scaled(&us, &d, unit);
	} while (t.p < t.end);
	return err < 0 ? err : us_to_ms(us, ret_ms);
}

/* ---- Points in time ---- */

#define DAY_SECS       ((int64_t)86400)
#define CYCLE_DAYS     ((int64_t)146097)      /* 400 years */
#define DAYS_TO_1970   ((int64_t)719468)      /* from 0000-03-01 to 1970-01-01 */
#define MARCH_DAYS(mp) ((153 * (mp) + 2) / 5) /* days in the mp months from March on */

struct civil {
	int64_t year, month, day; /* month and day count from 1 */
};

/*
 * Both conversions count years from March, so that the leap day is a year's
 * last: month number mp is 0 for March, 11 for February.
 */
static int64_t days_from_civil(const struct civil *c)
{
	/* 400 years more, so that nothing is negative. */
	const int64_t y = c->year + 400 - (c->month <= 2);
	const int64_t mp = (c->month + 9) % 12;

	return 365 * y + y / 4 - y / 100 + y / 400 + MARCH_DAYS(mp) + c->day - 1 - CYCLE_DAYS -
	       DAYS_TO_1970;
}

static void civil_from_days(int64_t days, struct civil *ret)
{
	const int64_t z = days + DAYS_TO_1970;
	const int64_t in_cycle = z % CYCLE_DAYS;
	const int64_t y =
		(in_cycle - in_cycle / 1460 + in_cycle / 36524 - in_cycle / (CYCLE_DAYS - 1)) / 365;
	const int64_t in_year = in_cycle - (365 * y + y / 4 - y / 100);
	const int64_t mp = (5 * in_year + 2) / 153;

	ret->day = in_year - MARCH_DAYS(mp) + 1;
	ret->month = (mp + 2) % 12 + 1;
	ret->year = z / CYCLE_DAYS * 400 + y + (ret->month <= 2);
}

static int64_t month_days(int64_t year, int64_t month)
{
	static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return days[month - 1] + (month == 2 && leap);
}

/* A time in the past is as good as any other time in the past, except 0: that is never. */
static int set_deadline(int64_t ms, int64_t *ret_expires_ms)
{
	if (ms > TTL_MAX_MS)
		return -ERANGE;
	*ret_expires_ms = ms < 1 ? 1 : ms;
	return 0;
}

static int parse_unix(struct text t, int64_t *ret_expires_ms)
{
	struct decimal d;
	uint64_t us = 0;
	int64_t ms = 0;
	int err;

	if (!take_decimal(&t, &d) || t.p < t.end)
		return -EINVAL;
	err = add_scaled(&us, &d, SECOND_US);
	if (err == 0)
		err = us_to_ms(us, &ms);
	return err < 0 ? err : set_deadline(ms, ret_expires_ms);
}

/* Z or +hh:mm: seconds to take away for UTC. */
static bool take_offset(struct text *t, int64_t *ret_secs)
{
	int64_t hours;
	int64_t minutes;
	int64_t sign = 1;

	*ret_secs = 0;
	if (take_char(t, 'Z') || take_char(t, 'z'))
		return true;
	if (take_char(t, '-'))
		sign = -1;
	else if (!take_char(t, '+'))
		return false;
	if (!take_digits(t, 2, &hours) || !take_char(t, ':') || !take_digits(t, 2, &minutes) ||
	    hours > 23 || minutes > 59)
		return false;
	*ret_secs = sign * (hours * 3600 + minutes * 60);
	return true;
}

static bool take_date(struct text *t, struct civil *ret)
{
	return take_digits(t, 4, &ret->year) && take_char(t, '-') &&
	       take_digits(t, 2, &ret->month) && take_char(t, '-') &&
	       take_digits(t, 2, &ret->day) && ret->month >= 1 && ret->month <= 12 &&
	       ret->day >= 1 && ret->day <= month_days(ret->year, ret->month);
}

/* hh:mm:ss, ss up to 60; the caller judges a leap second. */
static bool take_time(struct text *t, int64_t *ret_secs, bool *ret_leap)
{
	int64_t h;
	int64_t m;
	int64_t s;

	if (!take_digits(t, 2, &h) || !take_char(t, ':') || !take_digits(t, 2, &m) ||
	    !take_char(t, ':') || !take_digits(t, 2, &s) || h > 23 || m > 59 || s > 60)
		return false;
	*ret_secs = h * 3600 + m * 60 + s;
	*ret_leap = s == 60;
	return true;
}

static int parse_rfc3339(struct text t, int64_t *ret_expires_ms)
{
	struct decimal frac;
	struct civil date;
	int64_t time;
	int64_t offset;
	int64_t secs;
	bool leap;

	if (!take_date(&t, &date))
		return -EINVAL;
	if (!take_char(&t, 'T') && !take_char(&t, 't') && !take_char(&t, ' '))
		return -EINVAL;
	if (!take_time(&t, &time, &leap) || !take_fraction(&t, &frac) ||
	    !take_offset(&t, &offset) || t.p < t.end)
		return -EINVAL;
	secs = days_from_civil(&date) * DAY_SECS + time - offset;
	if (leap && secs % DAY_SECS != 0)
		return -EINVAL;
	/* Rounding up from ms is the same as rounding up from the exact fraction. */
	return set_deadline(secs * 1000 + (int64_t)scale_fraction(&frac, 1000), ret_expires_ms);
}

static bool looks_like_date(struct text t)
{
	int64_t year;

	return take_digits(&t, 4, &year) && take_char(&t, '-');
}

/* ---- Parsers ---- */

static bool is_never(const struct text *t)
{
	return text_is(t, "none") || text_is(t, "never");
}

/* A duration of at least least_ms from from_ms on. */
static int parse_relative(struct text t, int64_t from_ms, int64_t least_ms, int64_t *ret_expires_ms)
{
	int64_t ms = 0;
	const int err = parse_duration(t, &ms);

	if (err < 0)
		return err;
	if (ms < least_ms)
		return -EINVAL;
	if (__builtin_add_overflow(from_ms, ms, &ms))
		return -ERANGE;
	return set_deadline(ms, ret_expires_ms);
}

int ttl_parse(const char *s, size_t n, int64_t now_ms, int64_t current_expires_ms,
	      int64_t *ret_expires_ms)
{
	struct text t = trim(s, n);

	if (is_never(&t)) {
		*ret_expires_ms = 0;
		return 0;
	}
	if (take_char(&t, '@'))
		return parse_unix(t, ret_expires_ms);
	if (take_char(&t, '+'))
		return parse_relative(t, current_expires_ms ? current_expires_ms : now_ms, 1,
				      ret_expires_ms);
	if (looks_like_date(t))
		return parse_rfc3339(t, ret_expires_ms);
	return parse_relative(t, now_ms, 0, ret_expires_ms);
}

int ttl_parse_expires(const char *s, size_t n, int64_t *ret_expires_ms)
{
	return parse_unix(trim(s, n), ret_expires_ms);
}

int ttl_parse_duration(const char *s, size_t n, int64_t *ret_ms)
{
	const struct text t = trim(s, n);

	if (is_never(&t)) {
		*ret_ms = 0;
		return 0;
	}
	return parse_duration(t, ret_ms);
}

/* ---- Formatters ---- */

static size_t put_none(char buf[TTL_TEXT_MAX])
{
	memcpy(buf, "none", sizeof("none"));
	return sizeof("none") - 1;
}

size_t ttl_format_remaining(int64_t expires_ms, int64_t now_ms, char buf[TTL_TEXT_MAX])
{
	uint64_t ms = 0;

	if (expires_ms == 0)
		return put_none(buf);
	/* In unsigned arithmetic the difference is right for every pair in this order. */
	if (expires_ms > now_ms)
		ms = (uint64_t)expires_ms - (uint64_t)now_ms;
	return (size_t)snprintf(buf, TTL_TEXT_MAX, "%llu",
				(unsigned long long)(ms / 1000 + (ms % 1000 != 0)));
}

size_t ttl_format_expires(int64_t expires_ms, char buf[TTL_TEXT_MAX])
{
	if (expires_ms <= 0)
		return put_none(buf);
	return (size_t)snprintf(buf, TTL_TEXT_MAX, "%lld.%03u000000",
				(long long)(expires_ms / 1000), (unsigned int)(expires_ms % 1000));
}

size_t ttl_format_rfc3339(int64_t expires_ms, char buf[TTL_TEXT_MAX])
{
	const int64_t at = expires_ms > TTL_MAX_MS ? TTL_MAX_MS : expires_ms;
	const int64_t secs = at / 1000;
	const unsigned int ms = (unsigned int)(at % 1000);
	const unsigned int s = (unsigned int)(secs % DAY_SECS);
	struct civil c;
	int n;

	if (expires_ms <= 0)
		return put_none(buf);
	civil_from_days(secs / DAY_SECS, &c);
	n = snprintf(buf, TTL_TEXT_MAX, "%04d-%02d-%02dT%02u:%02u:%02u", (int)c.year, (int)c.month,
		     (int)c.day, s / 3600, s / 60 % 60, s % 60);
	if (ms > 0)
		n += snprintf(buf + n, TTL_TEXT_MAX - (size_t)n, ".%03u", ms);
	buf[n] = 'Z';
	buf[n + 1] = '\0';
	return (size_t)n + 1;
}

size_t ttl_format_duration(int64_t ms, char buf[TTL_TEXT_MAX])
{
	static const struct {
		const char *name;
		int64_t ms;
	} steps[] = {
		{ "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 }
	};
	int n = 0;

	if (ms <= 0)
		return put_none(buf);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (ms >= steps[i].ms)
			n += snprintf(buf + n, TTL_TEXT_MAX - (size_t)n, "%lld%s",
				      (long long)(ms / steps[i].ms), steps[i].name);
		ms %= steps[i].ms;
	}
	return (size_t)n;
}
