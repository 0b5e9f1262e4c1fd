/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmarks share: the clock, random bytes, and what several rounds
 * of one measurement amount to.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BENCH_ROUNDS_MAX 32

static inline uint64_t bench_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Ends the program: a benchmark that failed somewhere has nothing to say. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void bench_die(const char *format,
									     ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	exit(1);
}

/* splitmix64: good enough to defeat compression and caches, and cheap. */
static inline uint64_t bench_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static inline void bench_fill(void *buf, size_t n, uint64_t seed)
{
	uint8_t *p = buf;

	while (n > 0) {
		const uint64_t r = bench_random(&seed);
		const size_t take = n < sizeof(r) ? n : sizeof(r);

		memcpy(p, &r, take);
		p += take;
		n -= take;
	}
}

/* A whole number from min to max, or the end of the program. */
static inline uint64_t bench_number(const char *s, const char *what, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno != 0 || end == s || *end != '\0' || *s == '-' || n < min || n > max)
		bench_die("%s: '%s' is not a number from %llu to %llu", what, s,
			  (unsigned long long)min, (unsigned long long)max);
	return n;
}

/* The rates of several rounds. */
struct bench_series {
	double value[BENCH_ROUNDS_MAX];
	unsigned int count;
};

static inline void bench_series_add(struct bench_series *s, double value)
{
	if (s->count < BENCH_ROUNDS_MAX)
		s->value[s->count++] = value;
}

static inline int bench_compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct bench_summary {
	double median, min, max;
};

static inline struct bench_summary bench_summarise(const struct bench_series *s)
{
	struct bench_summary r = { 0, 0, 0 };
	double v[BENCH_ROUNDS_MAX];
	const unsigned int n = s->count;

	if (n == 0)
		return r;
	memcpy(v, s->value, n * sizeof(v[0]));
	qsort(v, n, sizeof(v[0]), bench_compare);
	r.min = v[0];
	r.max = v[n - 1];
	r.median = n % 2 != 0 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	return r;
}

/* 1234567 as "1.23M": five columns for any rate. */
static inline void bench_human(double v, char *buf, size_t size)
{
	if (v >= 1e6)
		(void)snprintf(buf, size, "%.2fM", v / 1e6);
	else if (v >= 1e4)
		(void)snprintf(buf, size, "%.1fk", v / 1e3);
	else if (v >= 100)
		(void)snprintf(buf, size, "%.0f", v);
	else
		(void)snprintf(buf, size, "%.2f", v);
}

#endif
