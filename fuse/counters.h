/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often each kind of request came and how long answering took.
 *
 * All fields are atomic and only ever added to, relaxed: readers want numbers
 * that are nearly right, not a consistent moment.
 */
#ifndef FUSE_COUNTERS_H
#define FUSE_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define COUNTERS_OPS(X)    \
	X(lookup)          \
	X(forget)          \
	X(getattr)         \
	X(statx)           \
	X(setattr)         \
	X(access)          \
	X(statfs)          \
	X(create)          \
	X(tmpfile)         \
	X(mknod)           \
	X(mkdir)           \
	X(unlink)          \
	X(rmdir)           \
	X(rename)          \
	X(link)            \
	X(symlink)         \
	X(readlink)        \
	X(readdir)         \
	X(readdirplus)     \
	X(open)            \
	X(opendir)         \
	X(read)            \
	X(write)           \
	X(fsync)           \
	X(fsyncdir)        \
	X(fallocate)       \
	X(lseek)           \
	X(copy_file_range) \
	X(getxattr)        \
	X(setxattr)        \
	X(listxattr)       \
	X(removexattr)

enum counter_op {
#define COUNTER_ENUM(name) COUNT_##name,
	COUNTERS_OPS(COUNTER_ENUM)
#undef COUNTER_ENUM
		COUNT_MAX
};

/* Bucket b counts answers that took less than 2^b microseconds; the last one all others. */
#define COUNTERS_BUCKETS 22

struct counter {
	_Atomic uint64_t calls;
	_Atomic uint64_t ns_total;
	_Atomic uint64_t buckets[COUNTERS_BUCKETS];
};

struct counters {
	_Alignas(64) struct counter op[COUNT_MAX];
};

/* A monotonic clock, ns. */
uint64_t counters_now(void);
/* One more answer, which took from `start` (counters_now()) until now. */
void counters_add(struct counters *c, enum counter_op op, uint64_t start);

const char *counters_name(enum counter_op op);
/* All requests so far. */
uint64_t counters_total(const struct counters *c);
/* The time within which the given share (0..1) of the requests were answered, us; an upper bound. */
uint64_t counters_quantile_us(const struct counter *c, double share);
/* Writes "lookup 12 (3us) read 7 (9us)", calls and their mean; always ends in NUL. */
void counters_format(const struct counters *c, char *buf, size_t n);

#endif
