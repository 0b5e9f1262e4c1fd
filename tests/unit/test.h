/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole unit test harness. One binary per module:
 *
 *	#include "tests/unit/test.h"
 *	TEST(test_codec__varint_roundtrip) { CHECK_EQ(1 + 1, 2); }
 *	TEST_MAIN()
 *
 * Tests run in order of definition; arguments select those whose name contains one of them. The
 * first failed check prints both values and ends the binary with 1; SKIP ends it with 77. The last
 * line of a good run is "PASS n". Checks may be used in threads and helper functions.
 */
#ifndef EMDB_TEST_H
#define EMDB_TEST_H

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct test_case {
	const char *name;
	void (*fn)(void);
	struct test_case *next;
};

static struct test_case *test_head, **test_tail = &test_head;
static struct test_tmp {
	struct test_tmp *next;
	char path[PATH_MAX];
} * test_dirs;
static pid_t test_pid; /* who made the directories: a forked child leaves them alone */

#define TEST(id)                                                \
	static void id(void);                                   \
	__attribute__((constructor)) static void id##_add(void) \
	{                                                       \
		static struct test_case tc = { #id, id, NULL }; \
		*test_tail = &tc;                               \
		test_tail = &tc.next;                           \
	}                                                       \
	static void id(void)

#define FAIL(...) \
	(printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), putchar('\n'), exit(1))
#define SKIP(...) (printf("SKIP "), printf(__VA_ARGS__), putchar('\n'), exit(77))

#define CHECK(x)                ((x) ? (void)0 : FAIL("not true: %s", #x))
#define CHECK_EQ(a, b)          test_eq((intmax_t)(a), (intmax_t)(b), #a, #b, __FILE__, __LINE__)
#define CHECK_UEQ(a, b)         test_ueq((uintmax_t)(a), (uintmax_t)(b), #a, #b, __FILE__, __LINE__)
#define CHECK_OK(x)             test_eq((intmax_t)(x), 0, #x, "success", __FILE__, __LINE__)
#define CHECK_STR(a, b)         test_mem(a, strlen(a), b, strlen(b), #a, __FILE__, __LINE__)
#define CHECK_MEM(a, an, b, bn) test_mem(a, an, b, bn, #a, __FILE__, __LINE__)

static inline void test_eq(intmax_t a, intmax_t b, const char *as, const char *bs, const char *file,
			   int line)
{
	if (a == b)
		return;
	printf("%s:%d: %s is %jd, wanted %s = %jd\n", file, line, as, a, bs, b);
	exit(1);
}

static inline void test_ueq(uintmax_t a, uintmax_t b, const char *as, const char *bs,
			    const char *file, int line)
{
	if (a == b)
		return;
	printf("%s:%d: %s is %ju (%#jx), wanted %s = %ju (%#jx)\n", file, line, as, a, a, bs, b, b);
	exit(1);
}

static inline void test_mem(const void *a, size_t an, const void *b, size_t bn, const char *as,
			    const char *file, int line)
{
	const unsigned char *const pa = a, *const pb = b;
	size_t i = 0;

	if (an == bn && (an == 0 || memcmp(a, b, an) == 0))
		return;
	while (i < an && i < bn && pa[i] == pb[i])
		i++;
	printf("%s:%d: %s has %zu bytes, wanted %zu; first difference at %zu:", file, line, as, an,
	       bn, i);
	printf(i < an ? " %02x" : " end", i < an ? pa[i] : 0U);
	printf(i < bn ? " for %02x\n" : " for end\n", i < bn ? pb[i] : 0U);
	exit(1);
}

static inline int test_rm_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st, (void)type, (void)f;
	return remove(path);
}

static inline void test_rm_all(void)
{
	while (getpid() == test_pid && test_dirs) {
		struct test_tmp *const t = test_dirs;

		test_dirs = t->next;
		(void)nftw(t->path, test_rm_one, 16, FTW_DEPTH | FTW_PHYS);
		free(t);
	}
}

/* A new empty directory, named after the line that asks, removed when the test ends. */
#define test_dir() test_dir_at(__LINE__)
static inline const char *test_dir_at(int line)
{
	const char *const tmp = getenv("TMPDIR");
	struct test_tmp *const t = malloc(sizeof(*t));

	if (!t)
		FAIL("out of memory");
	snprintf(t->path, sizeof(t->path), "%s/%s-%d-XXXXXX", tmp ? tmp : "/tmp",
		 program_invocation_short_name, line);
	if (!mkdtemp(t->path))
		FAIL("mkdtemp %s: %s", t->path, strerror(errno));
	if (!test_pid)
		atexit(test_rm_all);
	test_pid = getpid();
	t->next = test_dirs;
	test_dirs = t;
	return t->path;
}

/* The seed of this run: $SEED or a new one; printed so that a failure can be repeated. */
static inline uint64_t test_seed(void)
{
	const char *const env = getenv("SEED");
	const uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)getpid() * 2654435761U;

	printf("seed %" PRIu64 "\n", seed);
	return seed;
}

/* splitmix64: the next number of the sequence that *state names. */
static inline uint64_t test_rand(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

#define TEST_MAIN()                                                           \
	int main(int argc, char **argv)                                       \
	{                                                                     \
		unsigned int n = 0;                                           \
		setvbuf(stdout, NULL, _IOLBF, 0);                             \
		for (const struct test_case *t = test_head; t; t = t->next) { \
			bool run = argc < 2;                                  \
			for (int i = 1; i < argc; i++)                        \
				run = run || strstr(t->name, argv[i]);        \
			if (!run)                                             \
				continue;                                     \
			printf("%s\n", t->name);                              \
			t->fn();                                              \
			n++;                                                  \
		}                                                             \
		printf("PASS %u\n", n);                                       \
		return 0;                                                     \
	}

#endif
