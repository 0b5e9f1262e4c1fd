/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsx: random operations on one file, compared with a model after each.
 *
 *	fsx [-s SEED] [-n OPERATIONS] [-l MAX_LENGTH] [-m MODEL] [-q] FILE
 *
 * The model is the contents that the file must have, kept in memory and, with
 * -m, saved in another file at the end.  When MODEL exists at the start the
 * file must agree with it and is worked on further, so a driver can remount
 * in between.  Exit 0: all agreed, 1: a difference or an error, with the last
 * operations, 2: usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HISTORY 40

static const char *path;
static int fd = -1;
static unsigned char *model, *scratch;
static size_t size, limit = 1u << 20;
static uint64_t rng, step_number;
static char history[HISTORY][128];
/* What this file system turned out not to have; the file must be unchanged then. */
static bool no_copy, no_seek, no_falloc[64];

static uint64_t next_random(void)
{
	uint64_t z = (rng += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t below(uint64_t n)
{
	return n == 0 ? 0 : next_random() % n;
}

static void note(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(history[step_number % HISTORY], sizeof(history[0]), format, ap);
	va_end(ap);
}

static void fail(const char *format, ...)
{
	const int saved = errno;
	va_list ap;
	uint64_t i;

	printf("FAILED at operation %" PRIu64 ": ", step_number);
	va_start(ap, format);
	(void)vprintf(format, ap);
	va_end(ap);
	printf(" (errno %d: %s), size %zu; the last operations:\n", saved, strerror(saved), size);
	for (i = step_number < HISTORY ? 0 : step_number - HISTORY + 1; i <= step_number; i++)
		printf("  %" PRIu64 " %s\n", i, history[i % HISTORY]);
	exit(1);
}

static void compare(const unsigned char *got, size_t at, size_t n, const char *how)
{
	size_t i;

	if (memcmp(got, model + at, n) == 0)
		return;
	for (i = 0; got[i] == model[at + i]; i++)
		;
	errno = 0;
	fail("%s: byte %zu is 0x%02x, should be 0x%02x (range %zu+%zu)", how, at + i, got[i],
	     model[at + i], at, n);
}

static void check_size(void)
{
	struct stat a, b;

	if (fstat(fd, &a) != 0 || stat(path, &b) != 0)
		fail("stat");
	if ((size_t)a.st_size != size || (size_t)b.st_size != size)
		fail("size %lld by fstat, %lld by stat", (long long)a.st_size,
		     (long long)b.st_size);
	if (a.st_blocks * 512 > (long long)size * 2 + (1 << 20))
		fail("%lld blocks", (long long)a.st_blocks);
}

/* Near a boundary more often than anywhere. */
static size_t place(size_t max)
{
	static const size_t units[] = { 512, 4096, 8192, 65536, 131072, 1u << 20 };
	size_t at = below(max + 1);

	if (below(3) == 0) {
		const size_t unit = units[below(sizeof(units) / sizeof(units[0]))];

		at = at / unit * unit + below(5) - 2;
		if (at > max)
			at = max;
	}
	return at;
}

static size_t length(size_t max)
{
	static const size_t sizes[] = { 1, 16, 200, 4096, 5000, 65536, 262144 };
	const size_t n = 1 + below(sizes[below(sizeof(sizes) / sizeof(sizes[0]))]);

	return n < max ? n : max;
}

static void fill(unsigned char *p, size_t n)
{
	const unsigned char tag = (unsigned char)(step_number % 255 + 1);
	size_t i;

	for (i = 0; i < n; i++)
		p[i] = (unsigned char)(i % 13 == 0 ? tag : tag + i);
}

/* The model grows to `end`, with zeros. */
static void grow(size_t end)
{
	if (end > size) {
		memset(model + size, 0, end - size);
		size = end;
	}
}

/* ---- Operations ---- */

static void do_read(bool mapped)
{
	const size_t at = place(size), n = length(limit), want = at + n > size ? size - at : n;
	const size_t start = at / 4096 * 4096;
	unsigned char *m;

	note("%s %zu+%zu", mapped ? "mapread" : "read", at, n);
	if (!mapped) {
		const ssize_t got = pread(fd, scratch, n, (off_t)at);

		if (got != (ssize_t)want)
			fail("read gave %zd, not %zu", got, want);
		compare(scratch, at, want, "read");
		return;
	}
	if (want == 0)
		return;
	m = mmap(NULL, at - start + want, PROT_READ, MAP_SHARED, fd, (off_t)start);
	if (m == MAP_FAILED)
		fail("mmap");
	compare(m + (at - start), at, want, "mapread");
	(void)munmap(m, at - start + want);
}

static void do_write(void)
{
	size_t at = place(size + (below(4) == 0 ? 100000 : 0));
	size_t n;

	if (at >= limit)
		at = limit - 1;
	n = length(limit - at);
	note("write %zu+%zu", at, n);
	fill(scratch, n);
	if (pwrite(fd, scratch, n, (off_t)at) != (ssize_t)n)
		fail("write");
	grow(at);
	grow(at + n);
	memcpy(model + at, scratch, n);
}

static void do_append(void)
{
	const size_t n = length(limit - size);
	int other;

	note("append %zu+%zu", size, n);
	if (n == 0)
		return;
	other = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	fill(scratch, n);
	if (other < 0 || write(other, scratch, n) != (ssize_t)n)
		fail("append");
	(void)close(other);
	memcpy(model + size, scratch, n);
	size += n;
}

static void do_mapwrite(void)
{
	const size_t at = place(size == 0 ? 0 : size - 1), n = length(size - at),
		     start = at / 4096 * 4096;
	unsigned char *m;

	note("mapwrite %zu+%zu", at, n);
	if (n == 0)
		return;
	m = mmap(NULL, at - start + n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
	if (m == MAP_FAILED)
		fail("mmap");
	fill(m + (at - start), n);
	fill(model + at, n);
	if (msync(m, at - start + n, MS_SYNC) != 0)
		fail("msync");
	(void)munmap(m, at - start + n);
}

static void do_truncate(void)
{
	const size_t to = place(below(3) == 0 ? limit : size);

	note("truncate %zu -> %zu", size, to);
	if ((below(2) == 0 ? ftruncate(fd, (off_t)to) : truncate(path, (off_t)to)) != 0)
		fail("truncate");
	if (to < size)
		size = to;
	grow(to);
}

/* 0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE */
static void do_fallocate(void)
{
	static const int modes[] = { 0, 1, 3, 16, 17 };
	const int mode = modes[below(5)];
	const size_t at = place(limit - 1), n = length(limit - at);

	note("fallocate mode %d %zu+%zu", mode, at, n);
	if (no_falloc[mode])
		return;
	if (fallocate(fd, mode, (off_t)at, (off_t)n) != 0) {
		if (errno != EOPNOTSUPP)
			fail("fallocate");
		no_falloc[mode] = true;
		return;
	}
	if ((mode & 1) == 0)
		grow(at + n);
	if ((mode & ~1) != 0 && at < size)
		memset(model + at, 0, at + n > size ? size - at : n);
}

static void do_copy(void)
{
	const size_t from = place(size), to = place(limit - 1);
	size_t n = length(limit - to), left;
	off_t in = (off_t)from, out = (off_t)to;

	note("copy_file_range %zu+%zu -> %zu", from, n, to);
	if (no_copy || from >= size)
		return;
	if (from + n > size)
		n = size - from;
	if (from < to + n && to < from + n)
		return;
	for (left = n; left > 0;) {
		const ssize_t done = copy_file_range(fd, &in, fd, &out, left, 0);

		if (done <= 0 && left == n && (errno == EOPNOTSUPP || errno == EXDEV)) {
			no_copy = true;
			return;
		}
		if (done <= 0)
			fail("copy_file_range gave %zd, %zu left", done, left);
		left -= (size_t)done;
	}
	grow(to);
	grow(to + n);
	memmove(model + to, model + from, n);
}

/* Whatever is called a hole must be zeros; the walk must end at the size. */
static void do_seek(void)
{
	size_t at = 0;

	note("seek data and hole");
	while (!no_seek && at < size) {
		const off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		off_t hole;

		if (data < 0 && errno == EINVAL) {
			no_seek = true;
			return;
		}
		if (data < 0 && errno != ENXIO)
			fail("SEEK_DATA from %zu", at);
		for (; at < (data < 0 ? size : (size_t)data); at++) {
			if (model[at] != 0)
				fail("data at %zu is called a hole", at);
		}
		if (data < 0)
			return;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data || (size_t)hole > size)
			fail("SEEK_HOLE from %lld gave %lld", (long long)data, (long long)hole);
		at = (size_t)hole;
	}
}

static void reopen(void)
{
	note("close and open");
	if (fd >= 0 && close(fd) != 0)
		fail("close");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		fail("open");
}

static void do_sync(void)
{
	note("fsync");
	if (fsync(fd) != 0)
		fail("fsync");
}

static void do_rewrite(void)
{
	const size_t n = below(3000);

	note("rewrite %zu", n);
	if (close(fd) != 0)
		fail("close");
	fd = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
	fill(scratch, n);
	if (fd < 0 || write(fd, scratch, n) != (ssize_t)n)
		fail("rewrite");
	memcpy(model, scratch, n);
	size = n;
}

static void check_all(const char *when)
{
	size_t at = 0;
	ssize_t n;

	check_size();
	while (at < size) {
		n = pread(fd, scratch, limit, (off_t)at);
		if (n <= 0)
			fail("%s: read at %zu gave %zd", when, at, n);
		compare(scratch, at, (size_t)n, when);
		at += (size_t)n;
	}
}

static void one_step(void)
{
	switch (below(40)) {
	case 0 ... 8:
		do_read(false);
		break;
	case 9 ... 10:
		do_read(true);
		break;
	case 11 ... 21:
		do_write();
		break;
	case 22 ... 24:
		do_append();
		break;
	case 25 ... 26:
		do_mapwrite();
		break;
	case 27 ... 29:
		do_truncate();
		break;
	case 30 ... 32:
		do_fallocate();
		break;
	case 33 ... 34:
		do_copy();
		break;
	case 35:
		do_seek();
		break;
	case 36 ... 37:
		reopen();
		break;
	case 38:
		do_sync();
		break;
	default:
		if (below(20) == 0)
			do_rewrite();
		else
			do_read(false);
		break;
	}
	check_size();
}

/* ---- The model in its file ---- */

static void load_model(const char *name)
{
	const int m = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (m < 0)
		return;
	while ((n = read(m, model + size, limit - size)) > 0)
		size += (size_t)n;
	(void)close(m);
	reopen();
	note("start with the model of an earlier run");
	check_all("what an earlier run left");
}

static void save_model(const char *name)
{
	const int m = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (m < 0 || write(m, model, size) != (ssize_t)size)
		fail("saving the model");
	(void)close(m);
}

int main(int argc, char **argv)
{
	const char *model_name = NULL;
	uint64_t operations = 10000;
	bool quiet = false;
	int option;

	while ((option = getopt(argc, argv, "s:n:l:m:q")) != -1) {
		if (option == 's')
			rng = strtoull(optarg, NULL, 0);
		else if (option == 'n')
			operations = strtoull(optarg, NULL, 0);
		else if (option == 'l')
			limit = strtoull(optarg, NULL, 0);
		else if (option == 'm')
			model_name = optarg;
		else if (option == 'q')
			quiet = true;
		else
			return 2;
	}
	if (optind + 1 != argc || limit < 4096)
		return 2;
	path = argv[optind];
	/* A shared mapping may touch the rest of its last page. */
	model = calloc(1, limit + 4096);
	scratch = calloc(1, limit + 4096);
	if (model == NULL || scratch == NULL)
		return 2;
	printf("fsx: seed %" PRIu64 ", %" PRIu64 " operations, up to %zu bytes\n", rng, operations,
	       limit);
	if (model_name != NULL)
		load_model(model_name);
	reopen();
	check_all("at the start");
	for (step_number = 1; step_number <= operations; step_number++) {
		one_step();
		if (step_number % 1000 == 0)
			check_all("the whole file");
	}
	step_number = operations;
	reopen();
	check_all("at the end");
	if (model_name != NULL)
		save_model(model_name);
	if (!quiet)
		printf("fsx: good%s%s\n", no_copy ? ", no copy_file_range" : "",
		       no_seek ? ", no SEEK_DATA" : "");
	return 0;
}
