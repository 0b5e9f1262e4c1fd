/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/counters.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static const char *const names[] = {
#define COUNTER_NAME(name) #name,
	COUNTERS_OPS(COUNTER_NAME)
#undef COUNTER_NAME
};

uint64_t counters_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned int bucket_of(uint64_t ns)
{
	const uint64_t us = ns / 1000;
	const unsigned int b = us == 0 ? 0 : 64 - (unsigned int)__builtin_clzll(us);

	return b < COUNTERS_BUCKETS ? b : COUNTERS_BUCKETS - 1;
}

void counters_add(struct counters *c, enum counter_op op, uint64_t start)
{
	const uint64_t ns = counters_now() - start;
	struct counter *o = &c->op[op];

	atomic_fetch_add_explicit(&o->calls, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&o->ns_total, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&o->buckets[bucket_of(ns)], 1, memory_order_relaxed);
}

const char *counters_name(enum counter_op op)
{
	return names[op];
}

uint64_t counters_total(const struct counters *c)
{
	uint64_t sum = 0;

	for (int i = 0; i < COUNT_MAX; i++)
		sum += atomic_load_explicit(&c->op[i].calls, memory_order_relaxed);
	return sum;
}

uint64_t counters_quantile_us(const struct counter *c, double share)
{
	const uint64_t calls = atomic_load_explicit(&c->calls, memory_order_relaxed);
	const uint64_t wanted = (uint64_t)((double)calls * share);
	uint64_t seen = 0;

	for (unsigned int b = 0; b < COUNTERS_BUCKETS; b++) {
		seen += atomic_load_explicit(&c->buckets[b], memory_order_relaxed);
		if (seen >= wanted)
			return UINT64_C(1) << b;
	}
	return UINT64_C(1) << COUNTERS_BUCKETS;
}

void counters_format(const struct counters *c, char *buf, size_t n)
{
	size_t used = 0;

	if (n == 0)
		return;
	buf[0] = '\0';
	for (int i = 0; i < COUNT_MAX; i++) {
		const struct counter *o = &c->op[i];
		const uint64_t calls = atomic_load_explicit(&o->calls, memory_order_relaxed);
		const uint64_t ns = atomic_load_explicit(&o->ns_total, memory_order_relaxed);
		int len;

		if (calls == 0)
			continue;
		len = snprintf(buf + used, n - used, "%s%s %" PRIu64 " (%.1fus)", used ? " " : "",
			       names[i], calls, (double)ns / 1000.0 / (double)calls);
		if (len < 0 || (size_t)len >= n - used)
			return;
		used += (size_t)len;
	}
}
