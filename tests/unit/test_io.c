/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/io.h"

/* ---- Both backends through the same checks ---- */

struct env {
	struct emdb_io *io;
	int dir; /* an empty directory of it */
	bool mem;
};

static struct env env_posix(void)
{
	struct env e = { .io = emdb_io_posix_new() };

	CHECK(e.io);
	CHECK_OK(io_openat(e.io, AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0, &e.dir));
	return e;
}

static struct env env_mem(void)
{
	struct env e = { .io = emdb_io_mem_new(), .mem = true };

	CHECK(e.io);
	CHECK_OK(io_mkdirat(e.io, AT_FDCWD, "top", 0700));
	CHECK_OK(io_openat(e.io, AT_FDCWD, "top", O_RDONLY | O_DIRECTORY, 0, &e.dir));
	return e;
}

static void env_free(struct env *e)
{
	CHECK_OK(io_close(e->io, e->dir));
	emdb_io_free(e->io);
}

static void both(void (*fn)(struct env *e))
{
	struct env e = env_posix();

	fn(&e);
	env_free(&e);
	e = env_mem();
	fn(&e);
	env_free(&e);
}

static int file_new(const struct env *e, const char *name)
{
	int fd = -1;

	CHECK_OK(io_openat(e->io, e->dir, name, O_RDWR | O_CREAT | O_EXCL, 0600, &fd));
	return fd;
}

static void content_is(const struct env *e, const char *name, const char *want)
{
	struct buf b = BUF_INIT;

	CHECK_OK(io_read_file(e->io, e->dir, name, 1 << 20, &b));
	CHECK_MEM(b.data, b.len, want, strlen(want));
	buf_release(&b);
}

static void file_is(const struct env *e, const char *name, const char *text)
{
	const int fd = file_new(e, name);

	CHECK_OK(io_pwrite_full(e->io, fd, text, strlen(text), 0));
	CHECK_OK(io_close(e->io, fd));
}

/* ---- Files ---- */

static void check_files(struct env *e)
{
	char text[] = "abcdefg";
	const struct iovec iov[] = { { text, 3 }, { NULL, 0 }, { text + 3, 4 } };
	struct io_stat st;
	const uint8_t *map;
	char b[32];
	size_t n = 0;
	int fd = file_new(e, "f"), fd2 = -1;

	CHECK_OK(io_pwritev_full(e->io, fd, iov, 3, 2));
	CHECK_OK(io_pread_full(e->io, fd, b, sizeof(b), 0, &n));
	CHECK_MEM(b, n, "\0\0abcdefg", 9);
	CHECK_OK(io_pread_full(e->io, fd, b, sizeof(b), 9, &n));
	CHECK_UEQ(n, 0);
	CHECK_EQ(io_pread_full(e->io, fd, b, 1, UINT64_MAX, &n), -EINVAL);
	CHECK_EQ(io_pwrite_full(e->io, fd, b, 1, UINT64_C(1) << 63), -EINVAL);
	CHECK_OK(io_mmap_ro(e->io, fd, 4096, &map));
	CHECK_MEM(map + 2, 7, "abcdefg", 7);
	CHECK_OK(io_pwrite_full(e->io, fd, "X", 1, 2));
	CHECK_UEQ(map[2], 'X');
	io_munmap(e->io, map, 4096);
	CHECK_EQ(io_mmap_ro(e->io, fd, 0, &map), -EINVAL);
	CHECK_OK(io_fdatasync(e->io, fd));
	CHECK_OK(io_fsync(e->io, fd));
	CHECK_OK(io_fsync(e->io, e->dir));

	CHECK_OK(io_ftruncate(e->io, fd, 5));
	CHECK_OK(io_fstat(e->io, fd, &st));
	CHECK_UEQ(st.size, 5);
	CHECK_UEQ(st.nlink, 1);
	CHECK(S_ISREG(st.mode) && st.ino);

	CHECK_EQ(io_openat(e->io, e->dir, "f", O_RDWR | O_CREAT | O_EXCL, 0600, &fd2), -EEXIST);
	CHECK_EQ(io_openat(e->io, e->dir, "g", O_RDONLY, 0, &fd2), -ENOENT);
	CHECK_EQ(io_openat(e->io, e->dir, "f", O_RDONLY | O_DIRECTORY, 0, &fd2), -ENOTDIR);
	CHECK_EQ(io_openat(e->io, e->dir, "f/x", O_RDONLY, 0, &fd2), -ENOTDIR);
	CHECK_EQ(fd2, -1);
	CHECK_OK(io_openat(e->io, e->dir, "f", O_RDONLY | O_NOFOLLOW, 0, &fd2));
	CHECK_EQ(io_pwrite_full(e->io, fd2, "x", 1, 0), -EBADF);
	CHECK(fcntl(fd2, F_GETFD) & FD_CLOEXEC);
	CHECK_OK(io_close(e->io, fd2));
	CHECK_OK(io_openat(e->io, e->dir, "f", O_RDWR | O_TRUNC, 0, &fd2));
	CHECK_OK(io_fstat(e->io, fd, &st));
	CHECK_UEQ(st.size, 0);
	CHECK_OK(io_close(e->io, fd2));
	CHECK_OK(io_close(e->io, fd));
	CHECK_OK(io_close(e->io, -1));
}

TEST(test_io__files)
{
	both(check_files);
}

static void check_many_iov(struct env *e)
{
	struct iovec iov[200];
	char text[200 * 3], got[sizeof(text)];
	const int fd = file_new(e, "f");
	size_t n = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 26);
	for (size_t i = 0; i < ARRAY_SIZE(iov); i++)
		iov[i] = (struct iovec){ text + 3 * i, 3 };
	CHECK_OK(io_pwritev_full(e->io, fd, iov, (int)ARRAY_SIZE(iov), 7));
	CHECK_OK(io_pread_full(e->io, fd, got, sizeof(got), 7, &n));
	CHECK_MEM(got, n, text, sizeof(text));
	CHECK_UEQ((uintptr_t)iov[0].iov_base, (uintptr_t)text);
	CHECK_OK(io_pwritev_full(e->io, fd, iov, 0, 0));
	CHECK_OK(io_close(e->io, fd));
}

TEST(test_io__more_pieces_than_one_call_takes)
{
	both(check_many_iov);
}

static void check_fallocate(struct env *e)
{
	const int fd = file_new(e, "f");
	struct io_stat st;
	int err;

	err = io_fallocate(e->io, fd, 0, 65536, true);
	if (err == -EOPNOTSUPP)
		goto out;
	CHECK_OK(err);
	CHECK_OK(io_fstat(e->io, fd, &st));
	CHECK_UEQ(st.size, 0);
	CHECK_OK(io_fallocate(e->io, fd, 0, 65536, false));
	CHECK_OK(io_fstat(e->io, fd, &st));
	CHECK_UEQ(st.size, 65536);
	CHECK_EQ(io_fallocate(e->io, fd, UINT64_MAX, 2, true), -EINVAL);
out:
	CHECK_OK(io_close(e->io, fd));
}

TEST(test_io__fallocate)
{
	both(check_fallocate);
}

static void check_flock(struct env *e)
{
	int a = file_new(e, "lock"), b = -1;

	CHECK_OK(io_openat(e->io, e->dir, "lock", O_RDWR, 0, &b));
	CHECK_OK(io_flock(e->io, a, true, true));
	CHECK_EQ(io_flock(e->io, b, true, true), -EWOULDBLOCK);
	CHECK_EQ(io_flock(e->io, b, false, true), -EWOULDBLOCK);
	CHECK_OK(io_close(e->io, a));
	CHECK_OK(io_flock(e->io, b, false, true));
	CHECK_OK(io_close(e->io, b));
}

TEST(test_io__flock)
{
	both(check_flock);
}

/* ---- Names ---- */

static int count_name(void *arg, const char *name)
{
	struct buf *const b = arg;

	CHECK_OK(buf_append(b, name, strlen(name)));
	return 0;
}

static int stop_listing(void *arg, const char *name)
{
	(void)arg, (void)name;
	return 42;
}

struct remover {
	struct env *e;
	unsigned int count;
};

static int remove_name(void *arg, const char *name)
{
	struct remover *const r = arg;

	CHECK_OK(io_unlinkat(r->e->io, r->e->dir, name, 0));
	r->count++;
	return 0;
}

static void check_names(struct env *e)
{
	struct remover r = { e, 0 };
	struct buf b = BUF_INIT;
	struct io_stat st;
	char name[16];
	int sub = -1, fd = -1;

	file_is(e, "a", "one");
	file_is(e, "b", "two");
	CHECK_OK(io_renameat(e->io, e->dir, "a", e->dir, "b"));
	content_is(e, "b", "one");
	CHECK_EQ(io_renameat(e->io, e->dir, "a", e->dir, "c"), -ENOENT);
	CHECK_OK(io_linkat(e->io, e->dir, "b", e->dir, "c"));
	CHECK_EQ(io_linkat(e->io, e->dir, "b", e->dir, "c"), -EEXIST);
	CHECK_OK(io_fstatat(e->io, e->dir, "c", &st));
	CHECK_UEQ(st.nlink, 2);
	CHECK_OK(io_renameat(e->io, e->dir, "b", e->dir, "c")); /* one file: both names stay */
	CHECK_OK(io_fstatat(e->io, e->dir, "b", &st));
	CHECK_OK(io_openat(e->io, e->dir, "b", O_RDWR, 0, &fd));
	CHECK_OK(io_unlinkat(e->io, e->dir, "b", 0));
	CHECK_EQ(io_unlinkat(e->io, e->dir, "b", 0), -ENOENT);
	CHECK_OK(io_fstat(e->io, fd, &st));
	CHECK_UEQ(st.nlink, 1);
	CHECK_OK(io_unlinkat(e->io, e->dir, "c", 0));
	CHECK_OK(io_fstat(e->io, fd, &st));
	CHECK_UEQ(st.nlink, 0);
	CHECK_OK(io_pwrite_full(e->io, fd, "still", 5, 0));
	CHECK_OK(io_close(e->io, fd));

	CHECK_OK(io_mkdirat(e->io, e->dir, "sub", 0700));
	CHECK_EQ(io_mkdirat(e->io, e->dir, "sub", 0700), -EEXIST);
	CHECK_OK(io_openat(e->io, e->dir, "sub", O_RDONLY | O_DIRECTORY, 0, &sub));
	file_is(e, "sub/x", "deep");
	CHECK_EQ(io_unlinkat(e->io, e->dir, "sub", 0), -EISDIR);
	CHECK_EQ(io_unlinkat(e->io, e->dir, "sub", AT_REMOVEDIR), -ENOTEMPTY);
	CHECK_OK(io_list(e->io, sub, count_name, &b));
	CHECK_MEM(b.data, b.len, "x", 1);
	CHECK_EQ(io_list(e->io, sub, stop_listing, NULL), 42);
	CHECK_OK(io_renameat(e->io, sub, "x", e->dir, "y"));
	CHECK_OK(io_fstat(e->io, sub, &st));
	CHECK(S_ISDIR(st.mode));
	CHECK_EQ(io_renameat(e->io, e->dir, "y", e->dir, "sub"), -EISDIR);
	CHECK_EQ(io_renameat(e->io, e->dir, "sub", e->dir, "y"), -ENOTDIR);
	CHECK_EQ(io_renameat(e->io, e->dir, "sub", e->dir, "sub/in"), -EINVAL);
	CHECK_OK(io_unlinkat(e->io, e->dir, "sub", AT_REMOVEDIR));
	CHECK_EQ(io_openat(e->io, sub, "new", O_RDWR | O_CREAT, 0600, &fd), -ENOENT);
	CHECK_OK(io_close(e->io, sub));

	for (unsigned int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		file_is(e, name, name);
	}
	CHECK_OK(io_list(e->io, e->dir, remove_name, &r));
	CHECK_UEQ(r.count, 101);
	buf_release(&b);
}

TEST(test_io__names)
{
	both(check_names);
}

static void check_rename_dirs(struct env *e)
{
	struct io_stat st;

	CHECK_OK(io_mkdirat(e->io, e->dir, "a", 0700));
	CHECK_OK(io_mkdirat(e->io, e->dir, "b", 0700));
	file_is(e, "a/f", "x");
	CHECK_EQ(io_renameat(e->io, e->dir, "b", e->dir, "a"), -ENOTEMPTY);
	CHECK_OK(io_renameat(e->io, e->dir, "a", e->dir, "b"));
	content_is(e, "b/f", "x");
	CHECK_EQ(io_fstatat(e->io, e->dir, "a", &st), -ENOENT);
	CHECK_OK(io_mkdirat(e->io, e->dir, "c", 0700));
	CHECK_OK(io_renameat(e->io, e->dir, "b", e->dir, "c/b"));
	content_is(e, "c/b/f", "x");
	CHECK_OK(io_renameat(e->io, e->dir, "c/b/f", e->dir, "c/b/g"));
	content_is(e, "c/b/g", "x");
}

TEST(test_io__rename_of_directories)
{
	both(check_rename_dirs);
}

/* Models names as a map from slot to content and compares after each step. */
TEST(test_io__mem_goes_up)
{
	struct emdb_io *const io = emdb_io_mem_new();
	struct io_stat root, st;
	int dir = -1;

	CHECK_OK(io_fstatat(io, AT_FDCWD, ".", &root));
	CHECK_OK(io_mkdirat(io, AT_FDCWD, "a", 0700));
	CHECK_OK(io_mkdirat(io, AT_FDCWD, "a/b", 0700));
	CHECK_OK(io_openat(io, AT_FDCWD, "a/b", O_RDONLY | O_DIRECTORY, 0, &dir));
	CHECK_OK(io_fstatat(io, dir, "../..", &st));
	CHECK_UEQ(st.ino, root.ino);
	CHECK_OK(io_fstatat(io, dir, "../../../a/..", &st));
	CHECK_UEQ(st.ino, root.ino);
	CHECK_OK(io_unlinkat(io, dir, "../b", AT_REMOVEDIR));
	CHECK_EQ(io_fstatat(io, dir, "..", &st), -ENOENT);
	(void)io_close(io, dir);
	emdb_io_free(io);
}

TEST(test_io__mem_names_against_a_model)
{
	struct env e = env_mem();
	uint64_t state = test_seed();
	char model[8] = { 0 }, name[2] = "a", to[2] = "a", text[2] = "x";

	for (unsigned int i = 0; i < 5000; i++) {
		const size_t a = test_rand(&state) % 8, b = test_rand(&state) % 8;
		struct io_stat st;

		name[0] = (char)('a' + a);
		to[0] = (char)('a' + b);
		switch (test_rand(&state) % 3) {
		case 0:
			if (!model[a]) {
				text[0] = (char)('A' + i % 26);
				file_is(&e, name, text);
				model[a] = text[0];
			}
			break;
		case 1:
			CHECK_EQ(io_renameat(e.io, e.dir, name, e.dir, to), model[a] ? 0 : -ENOENT);
			if (model[a] && a != b) {
				model[b] = model[a];
				model[a] = 0;
			}
			break;
		default:
			CHECK_EQ(io_unlinkat(e.io, e.dir, name, 0), model[a] ? 0 : -ENOENT);
			model[a] = 0;
			break;
		}
		for (size_t k = 0; k < 8; k++) {
			name[0] = (char)('a' + k);
			text[0] = model[k];
			if (model[k])
				content_is(&e, name, text);
			else
				CHECK_EQ(io_fstatat(e.io, e.dir, name, &st), -ENOENT);
		}
	}
	env_free(&e);
}

/* ---- Helpers ---- */

static void check_replace(struct env *e)
{
	struct buf b = BUF_INIT;
	char name[IO_NAME_MAX + 1];
	struct io_stat st;

	CHECK_OK(io_replace_durably(e->io, e->dir, "m", "first", 5));
	content_is(e, "m", "first");
	CHECK_OK(io_replace_durably(e->io, e->dir, "m", "second one", 10));
	content_is(e, "m", "second one");
	CHECK_OK(io_replace_durably(e->io, e->dir, "m", NULL, 0));
	content_is(e, "m", "");
	CHECK_EQ(io_fstatat(e->io, e->dir, "m.tmp", &st), -ENOENT);
	memset(name, 'n', IO_NAME_MAX);
	name[IO_NAME_MAX] = '\0';
	CHECK_EQ(io_replace_durably(e->io, e->dir, name, "x", 1), -ENAMETOOLONG);
	CHECK_EQ(io_replace_durably(e->io, e->dir, "a/b", "x", 1), -EINVAL);

	file_is(e, "big", "0123456789");
	CHECK_OK(buf_append(&b, "<", 1));
	CHECK_EQ(io_read_file(e->io, e->dir, "big", 9, &b), -EFBIG);
	CHECK_OK(io_read_file(e->io, e->dir, "big", 10, &b));
	CHECK_MEM(b.data, b.len, "<0123456789", 11);
	CHECK_EQ(io_read_file(e->io, e->dir, "none", 10, &b), -ENOENT);
	buf_release(&b);
}

TEST(test_io__replace_durably_and_read_file)
{
	both(check_replace);
}

static void check_copy(struct env *e)
{
	static uint8_t data[(3 << 20) + 4711], got[sizeof(data)];
	static const size_t sizes[] = { 0, 1, 1 << 20, (1 << 20) + 1, sizeof(data) };
	uint64_t state = 1;
	size_t n = 0;
	int src = file_new(e, "src"), dst;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)test_rand(&state);
	CHECK_OK(io_pwrite_full(e->io, src, data, sizeof(data), 0));
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		dst = file_new(e, "dst");
		CHECK_OK(io_copy(e->io, src, dst, sizes[i]));
		CHECK_OK(io_pread_full(e->io, dst, got, sizeof(got), 0, &n));
		CHECK_MEM(got, n, data, sizes[i]);
		if (i == 1)
			CHECK_EQ(io_copy(e->io, src, dst, sizeof(data) + 1), -EIO);
		CHECK_OK(io_close(e->io, dst));
		CHECK_OK(io_unlinkat(e->io, e->dir, "dst", 0));
	}
	CHECK_OK(io_close(e->io, src));
}

TEST(test_io__copy)
{
	both(check_copy);
}

static void check_host(struct env *e)
{
	struct io_host h;
	struct io_vfs v;
	uint64_t ticks = 0;
	uint8_t a[16] = { 0 }, b[16] = { 0 };
	const uint64_t t = io_clock_mono_ns(e->io);

	CHECK(io_clock_mono_ns(e->io) >= t);
	CHECK(io_clock_real_ns(e->io) > UINT64_C(1600000000000000000));
	CHECK_OK(io_random(e->io, a, sizeof(a)));
	CHECK_OK(io_random(e->io, b, sizeof(b)));
	CHECK(memcmp(a, b, sizeof(a)) != 0);
	CHECK_OK(io_host(e->io, &h));
	CHECK_UEQ(h.pid, getpid());
	CHECK_OK(io_process_start(e->io, h.pid, &ticks));
	CHECK_UEQ(ticks, h.start_ticks);
	CHECK_UEQ(strlen(h.boot_id), 36);
	CHECK_EQ(io_process_start(e->io, UINT64_C(1) << 40, &ticks), -ESRCH);
	CHECK_OK(io_fstatvfs(e->io, e->dir, &v));
	CHECK(v.bsize >= 512 && v.blocks && v.bavail <= v.blocks);
}

TEST(test_io__clock_random_host)
{
	both(check_host);
}

static void check_clone(struct env *e)
{
	int src, dst, err;

	file_is(e, "src", "cloned");
	CHECK_OK(io_openat(e->io, e->dir, "src", O_RDONLY, 0, &src));
	dst = file_new(e, "dst");
	err = io_clone(e->io, src, dst);
	CHECK(err == 0 || err == -EOPNOTSUPP || err == -EXDEV);
	if (!err)
		content_is(e, "dst", "cloned");
	CHECK_OK(io_close(e->io, src));
	CHECK_OK(io_close(e->io, dst));
}

TEST(test_io__clone_works_or_says_that_it_cannot)
{
	both(check_clone);
}

/* ---- Batches ---- */

#define BATCH 150

static void batch_check(struct emdb_io *io, int dir)
{
	static uint64_t data[BATCH];
	static struct io_req reqs[2 * BATCH + 1];
	int fd = -1, bad = -1;

	CHECK_OK(io_openat(io, dir, "batch", O_RDWR | O_CREAT | O_TRUNC, 0600, &fd));
	for (size_t i = 0; i < BATCH; i++) {
		data[i] = i * 3;
		reqs[2 * i] = (struct io_req){ .op = IO_REQ_WRITE,
					       .link = true,
					       .fd = fd,
					       .buf = &data[i],
					       .n = 8,
					       .off = 8 * i };
		reqs[2 * i + 1] = (struct io_req){ .op = IO_REQ_FDATASYNC, .fd = fd };
	}
	CHECK_OK(io_batch(io, reqs, 2 * BATCH));
	memset(data, 0xff, sizeof(data));
	for (size_t i = 0; i < BATCH; i++)
		reqs[i] = (struct io_req){
			.op = IO_REQ_READ, .fd = fd, .buf = &data[i], .n = 8, .off = 8 * i
		};
	CHECK_OK(io_batch(io, reqs, BATCH));
	for (size_t i = 0; i < BATCH; i++)
		CHECK_UEQ(data[i], i * 3);

	/* A chain breaks where it fails; what runs beside it does not care. */
	CHECK_OK(io_openat(io, dir, "batch", O_RDONLY, 0, &bad));
	reqs[0] = (struct io_req){ .op = IO_REQ_FDATASYNC, .fd = fd };
	reqs[1] =
		(struct io_req){ .op = IO_REQ_WRITE, .link = true, .fd = bad, .buf = data, .n = 8 };
	reqs[2] = (struct io_req){ .op = IO_REQ_FDATASYNC, .link = true, .fd = fd };
	reqs[3] = (struct io_req){ .op = IO_REQ_WRITE, .fd = fd, .buf = data, .n = 8 };
	reqs[4] = (struct io_req){
		.op = IO_REQ_READ, .link = true, .fd = fd, .buf = data, .n = 8, .off = 8 * BATCH - 4
	};
	reqs[5] = (struct io_req){ .op = IO_REQ_FDATASYNC, .fd = fd };
	CHECK_EQ(io_batch(io, reqs, 6), -EBADF);
	CHECK_EQ(reqs[0].err, 0);
	CHECK_EQ(reqs[1].err, -EBADF);
	CHECK_EQ(reqs[2].err, -ECANCELED);
	CHECK_EQ(reqs[3].err, -ECANCELED);
	CHECK_EQ(reqs[4].err, -EIO);
	CHECK_EQ(reqs[5].err, -ECANCELED);

	/* Limits. */
	for (size_t i = 0; i <= IO_BATCH_LINK_MAX; i++)
		reqs[i] = (struct io_req){ .op = IO_REQ_FDATASYNC, .link = true, .fd = fd };
	CHECK_EQ(io_batch(io, reqs, IO_BATCH_LINK_MAX + 1), -EINVAL);
	CHECK_OK(io_batch(io, reqs, IO_BATCH_LINK_MAX));
	CHECK_OK(io_batch(io, reqs, 0));
	CHECK_OK(io_close(io, bad));
	CHECK_OK(io_close(io, fd));
}

static void sync_batch_check(struct emdb_io *io, int dir)
{
	int fds[40];
	char name[16];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		snprintf(name, sizeof(name), "s%zu", i);
		CHECK_OK(io_openat(io, dir, name, O_RDWR | O_CREAT, 0600, &fds[i]));
		CHECK_OK(io_pwrite_full(io, fds[i], name, 2, 0));
	}
	CHECK_OK(io_sync_batch(io, fds, ARRAY_SIZE(fds)));
	CHECK_OK(io_sync_batch(io, fds, 1));
	CHECK_OK(io_sync_batch(io, fds, 0));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		CHECK_OK(io_close(io, fds[i]));
}

static void check_batch(struct env *e)
{
	batch_check(e->io, e->dir);
	sync_batch_check(e->io, e->dir);
}

TEST(test_io__batch)
{
	both(check_batch);
}

/* Whether this kernel and this sandbox let anyone have a ring. */
static bool uring_possible(void)
{
	uint8_t params[256] = { 0 };
	const long fd = syscall(SYS_io_uring_setup, 4, params);

	if (fd >= 0)
		close((int)fd);
	return fd >= 0;
}

TEST(test_io__batch_uses_uring_where_there_is_one)
{
	struct env e = env_posix();
	const char *const env = getenv("EMDB_NO_URING");

	CHECK(!io_uses_uring(e.io));
	check_batch(&e);
	CHECK_EQ(io_uses_uring(e.io), uring_possible() && !env);
	env_free(&e);
}

TEST(test_io__batch_without_uring_by_environment)
{
	struct env e;

	CHECK_OK(setenv("EMDB_NO_URING", "1", 1));
	e = env_posix();
	CHECK_OK(unsetenv("EMDB_NO_URING"));
	check_batch(&e);
	CHECK(!io_uses_uring(e.io));
	env_free(&e);
}

/* As container runtimes do it: io_uring_setup gives EPERM. */
static bool forbid_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog prog = { ARRAY_SIZE(code), code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

TEST(test_io__batch_where_uring_is_forbidden)
{
	const char *const dir = test_dir();
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct env e = { .io = emdb_io_posix_new() };

		if (!forbid_uring())
			_exit(77);
		CHECK(!uring_possible());
		CHECK_OK(io_openat(e.io, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0, &e.dir));
		check_batch(&e);
		CHECK(!io_uses_uring(e.io));
		env_free(&e);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}

TEST(test_io__a_forked_child_leaves_the_ring_alone)
{
	struct env e = env_posix();
	int status = 0;
	pid_t pid;

	check_batch(&e);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		check_batch(&e);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	check_batch(&e);
	env_free(&e);
}

static void *batch_worker(void *arg)
{
	const struct env *const e = arg;
	static atomic_uint ids;
	/* Not what the kernel writes behind the back of valgrind. */
	uint64_t data[2], got[2] = { 0 };
	struct io_req reqs[2];
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "t%u", atomic_fetch_add(&ids, 1));
	fd = file_new(e, name);
	for (uint64_t i = 0; i < 300; i++) {
		data[0] = data[1] = i;
		for (size_t k = 0; k < 2; k++)
			reqs[k] = (struct io_req){ .op = IO_REQ_WRITE,
						   .fd = fd,
						   .buf = &data[k],
						   .n = 8,
						   .off = 8 * (2 * i + k) };
		CHECK_OK(io_batch(e->io, reqs, 2));
		for (size_t k = 0; k < 2; k++) {
			reqs[k].op = IO_REQ_READ;
			reqs[k].buf = &got[k];
		}
		CHECK_OK(io_batch(e->io, reqs, 2));
		CHECK(got[0] == i && got[1] == i);
	}
	CHECK_OK(io_close(e->io, fd));
	return NULL;
}

TEST(test_io__batches_of_many_threads)
{
	struct env e = env_posix();
	pthread_t threads[4];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		CHECK_OK(pthread_create(&threads[i], NULL, batch_worker, &e));
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	env_free(&e);
}

/* ---- Faults ---- */

static struct env env_fault(const struct env *inner)
{
	const struct env e = { .io = emdb_io_fault_new(inner->io), .dir = inner->dir };

	CHECK(e.io);
	return e;
}

TEST(test_io__fault_fails_the_nth_call_of_a_mask)
{
	struct env inner = env_mem(), e = env_fault(&inner);
	const struct io_fault plan = { .mask = IO_MASK_SYNC, .nth = 2, .err = -EIO };
	int fd;

	check_names(&e); /* without a plan nothing is different */
	fd = file_new(&e, "f");
	emdb_io_fault_set(e.io, &plan);
	CHECK_OK(io_fdatasync(e.io, fd));
	CHECK_OK(io_pwrite_full(e.io, fd, "x", 1, 0));
	CHECK_EQ(io_fsync(e.io, fd), -EIO);
	CHECK_OK(io_fdatasync(e.io, fd));
	CHECK_UEQ(emdb_io_fault_calls(e.io), 3);
	CHECK_UEQ(emdb_io_fault_hits(e.io), 1);
	emdb_io_fault_set(e.io, NULL);
	CHECK_UEQ(emdb_io_fault_calls(e.io), 0);
	CHECK_OK(io_fsync(e.io, fd));
	CHECK_OK(io_close(e.io, fd));
	emdb_io_free(e.io);
	env_free(&inner);
}

TEST(test_io__fault_sticky_and_cut_writes)
{
	struct env inner = env_mem(), e = env_fault(&inner);
	const struct io_fault plan = {
		.mask = IO_MASK(IO_OP_PWRITE), .nth = 2, .err = -ENOSPC, .sticky = true, .cut = true
	};
	char text[] = "abcdefghij";
	const struct iovec iov[] = { { text, 3 }, { text + 3, 7 } };
	const int fd = file_new(&e, "f");

	emdb_io_fault_set(e.io, &plan);
	CHECK_OK(io_pwrite_full(e.io, fd, "____", 4, 0));
	CHECK_EQ(io_pwritev_full(e.io, fd, iov, 2, 0), -ENOSPC);
	content_is(&e, "f", "abcde");
	CHECK_EQ(io_pwrite_full(e.io, fd, "XY", 2, 0), -ENOSPC);
	content_is(&e, "f", "Xbcde");
	CHECK_UEQ(emdb_io_fault_hits(e.io), 2);
	CHECK_OK(io_close(e.io, fd));
	emdb_io_free(e.io);
	env_free(&inner);
}

struct recorder {
	unsigned int before, after;
	int fd; /* of the last openat */
};

static int record_before(void *arg, const struct io_event *ev)
{
	struct recorder *const r = arg;

	r->before++;
	return ev->op == IO_OP_OPENAT && strcmp(ev->name, "forbidden") == 0 ? -EACCES : 0;
}

static void record_after(void *arg, const struct io_event *ev, int err)
{
	struct recorder *const r = arg;

	r->after++;
	if (ev->op == IO_OP_OPENAT && !err)
		r->fd = ev->fd;
}

TEST(test_io__fault_hooks_see_every_call)
{
	struct env inner = env_mem(), e = env_fault(&inner);
	struct recorder r = { 0, 0, -1 };
	const struct io_fault plan = { .before = record_before,
				       .after = record_after,
				       .hook_arg = &r };
	int fd;

	emdb_io_fault_set(e.io, &plan);
	fd = file_new(&e, "f");
	CHECK_EQ(r.fd, fd);
	CHECK_EQ(io_openat(e.io, e.dir, "forbidden", O_RDWR | O_CREAT, 0600, &fd), -EACCES);
	CHECK_EQ(fd, r.fd);
	CHECK_OK(io_close(e.io, fd));
	CHECK_UEQ(r.before, 3);
	CHECK_UEQ(r.after, 3);
	emdb_io_free(e.io);
	env_free(&inner);
}

/* io_replace_durably under every single failure: old or new, no leftover, the error reported. */
static void replace_fault_loop(struct env *inner, bool cut)
{
	struct env e = env_fault(inner);
	struct io_stat st;
	uint64_t nth = 1;
	int err;

	do {
		const struct io_fault plan = {
			.mask = IO_MASK_ALL, .nth = nth, .err = -EIO, .cut = cut
		};
		struct buf b = BUF_INIT;

		CHECK_OK(io_replace_durably(inner->io, inner->dir, "m", "old", 3));
		emdb_io_fault_set(e.io, &plan);
		err = io_replace_durably(e.io, e.dir, "m", "new!", 4);
		/* The last close, behind the directory's sync, changes nothing any more. */
		if (emdb_io_fault_hits(e.io) && err)
			CHECK_EQ(err, -EIO);
		CHECK_OK(io_read_file(inner->io, inner->dir, "m", 100, &b));
		if (b.len == 3)
			CHECK(err && memcmp(b.data, "old", 3) == 0);
		else
			CHECK_MEM(b.data, b.len, "new!", 4);
		CHECK_EQ(io_fstatat(inner->io, inner->dir, "m.tmp", &st), -ENOENT);
		buf_release(&b);
		nth++;
	} while (emdb_io_fault_hits(e.io));
	CHECK_OK(err);
	CHECK(nth > 7);
	emdb_io_free(e.io);
}

TEST(test_io__replace_durably_under_every_fault)
{
	struct env e = env_posix();

	replace_fault_loop(&e, false);
	replace_fault_loop(&e, true);
	env_free(&e);
	e = env_mem();
	replace_fault_loop(&e, false);
	env_free(&e);
}

/* ---- Out of memory ---- */

static atomic_uint allocs, fail_at;

static bool fails(void)
{
	return atomic_fetch_add(&allocs, 1) + 1 == atomic_load(&fail_at);
}

static void *test_malloc(size_t n)
{
	return fails() ? NULL : malloc(n);
}

static void *test_calloc(size_t count, size_t n)
{
	return fails() ? NULL : calloc(count, n);
}

static void *test_realloc(void *p, size_t n)
{
	return fails() ? NULL : realloc(p, n);
}

static const struct base_allocator failing = { test_malloc, test_calloc, test_realloc, free };

/* 0 when everything worked. */
static int mem_story(void)
{
	struct emdb_io *const io = emdb_io_mem_new();
	struct buf b = BUF_INIT;
	int dir = -1, err;

	if (!io)
		return -ENOMEM;
	err = io_mkdirat(io, AT_FDCWD, "d", 0700);
	if (!err)
		err = io_openat(io, AT_FDCWD, "d", O_RDONLY | O_DIRECTORY, 0, &dir);
	if (!err)
		err = io_replace_durably(io, dir, "f", "text", 4);
	if (!err)
		err = io_linkat(io, dir, "f", AT_FDCWD, "g");
	if (!err)
		err = io_read_file(io, AT_FDCWD, "g", 100, &b);
	if (!err)
		err = io_list(io, AT_FDCWD, count_name, &b);
	buf_release(&b);
	(void)io_close(io, dir);
	emdb_io_free(io);
	return err;
}

TEST(test_io__mem_survives_every_failed_allocation)
{
	unsigned int n = 1;
	int err;

	base_set_allocator(&failing);
	do {
		atomic_store(&allocs, 0);
		atomic_store(&fail_at, n++);
		err = mem_story();
	} while (err == -ENOMEM && n < 100);
	base_set_allocator(NULL);
	CHECK_OK(err);
	CHECK(n > 8);
}

TEST_MAIN()
