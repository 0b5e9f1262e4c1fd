/* SPDX-License-Identifier: Apache-2.0 */
#include "core/guard.h"
#include "tests/unit/journal_help.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct segment_env env_of(struct world *w)
{
	struct segment_env env = { .io = &w->io, .shift = SHIFT };

	CHECK_OK(io_mkdirat(&w->io, w->dirfd, JOURNAL_DIR, 0700));
	CHECK_OK(io_openat(&w->io, w->dirfd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY, 0, &env.dirfd));
	memset(env.uuid, 3, sizeof(env.uuid));
	memset(env.boot_id, 4, sizeof(env.boot_id));
	return env;
}

/* One frame with record n at off; returns what is behind it. */
static uint64_t put_frame(struct segment *s, uint64_t off, uint64_t n, size_t len)
{
	uint8_t b[4096];
	const size_t size = FMT_FRAME_HEADER + rec_make(n, len, b + FMT_FRAME_HEADER);
	const uint32_t whole = (uint32_t)align_up(size, 8);

	memset(b + size, 0, whole - size);
	fmt_frame_header(b, REC_PUT, whole, s->base + off, s->base);
	fmt_frame_finish(b, whole, 0);
	CHECK_OK(io_pwrite_full(s->io, s->fd, b, whole, off));
	return off + whole;
}

TEST(test_segment__names)
{
	char name[SEGMENT_NAME_SIZE];
	uint64_t id = 0;

	segment_name(0x123abc, name);
	CHECK_STR(name, "0000000000123abc.seg");
	CHECK(segment_name_parse(name, &id));
	CHECK_UEQ(id, 0x123abc);
	segment_name(FMT_NEXT_SEGMENT_MAX - 1, name);
	CHECK(segment_name_parse(name, &id));
	CHECK_UEQ(id, FMT_NEXT_SEGMENT_MAX - 1);
	id = 5;
	segment_name(FMT_NEXT_SEGMENT_MAX, name);
	CHECK(!segment_name_parse(name, &id));
	segment_name(UINT64_MAX, name);
	CHECK(!segment_name_parse(name, &id));
	CHECK(!segment_name_parse("0000000000000000.seg", &id));
	CHECK(!segment_name_parse("", &id));
	CHECK(!segment_name_parse("0000000000123abc", &id));
	CHECK(!segment_name_parse("0000000000123ABC.seg", &id));
	CHECK(!segment_name_parse("0000000000123abc.seg.tmp", &id));
	CHECK(!segment_name_parse("000000000123abc.seg", &id));
	CHECK_UEQ(id, 5);
}

TEST(test_segment__create_open_trim)
{
	for (int posix = 0; posix < 2; posix++) {
		struct world w;
		struct segment_env env, other;
		struct segment *s = NULL;
		const char *why = NULL;
		struct io_stat st;
		uint64_t end;
		struct rec r;

		world_init(&w, posix ? test_dir() : NULL);
		env = env_of(&w);
		CHECK_OK(segment_create(&env, 7, &s));
		CHECK_UEQ(segment_id(s), 7);
		CHECK_UEQ(s->base, UINT64_C(7) << SHIFT);
		CHECK_EQ(segment_state(s), SEGMENT_SPARE);
		end = put_frame(s, FMT_SEG_HEADER, 1, 1000);
		atomic_store(&s->len, end);
		CHECK_OK(segment_rec(s, s->base + FMT_SEG_HEADER, EMDB_VERIFY_FIRST, &r));
		CHECK_UEQ(rec_number(&r), 1);
		segment_trim(s);
		CHECK_EQ(s->fd, -1);
		/* Still mapped, still readable. */
		CHECK_OK(segment_rec(s, s->base + FMT_SEG_HEADER, EMDB_VERIFY_ALWAYS, &r));
		segment_live_add(s, 100);
		segment_live_add(s, -300);
		CHECK_UEQ(segment_live(s), 0);
		segment_ref(s);
		segment_unref(s);
		segment_unref(s);
		CHECK_OK(io_fstatat(&w.io, env.dirfd, "0000000000000007.seg", &st));
		CHECK_UEQ(st.size, end);
		CHECK_OK(segment_open(&env, 7, true, false, &s, &why));
		CHECK_UEQ(s->size, end);
		CHECK(memcmp(s->boot_id, env.boot_id, 16) == 0);
		segment_unref(s);
		/* Foreign ones. */
		CHECK_EQ(segment_open(&env, 8, true, false, &s, &why), EMDB_ERR_DAMAGED);
		CHECK(strstr(why, "missing"));
		other = env;
		other.uuid[0]++;
		CHECK_EQ(segment_open(&other, 7, true, true, &s, &why), EMDB_ERR_DAMAGED);
		CHECK(strstr(why, "another store"));
		other = env;
		other.shift++;
		CHECK_EQ(segment_open(&other, 7, true, true, &s, &why), EMDB_ERR_DAMAGED);
		CHECK(strstr(why, "size"));
		CHECK_OK(io_renameat(&w.io, env.dirfd, "0000000000000007.seg", env.dirfd,
				     "0000000000000009.seg"));
		CHECK_EQ(segment_open(&env, 9, true, true, &s, &why), EMDB_ERR_DAMAGED);
		CHECK(strstr(why, "another segment"));
		/* In the way of a new one: debris. */
		CHECK_OK(segment_create(&env, 9, &s));
		segment_unref(s);
		(void)io_close(&w.io, env.dirfd);
		world_release(&w);
	}
}

TEST(test_segment__create_fails_clean)
{
	for (uint64_t nth = 1, hits = 1; hits; nth++) {
		struct world w;
		struct segment_env env;
		struct segment *s = NULL;
		emdb_err err;

		world_init(&w, NULL);
		env = env_of(&w);
		world_fault(&w, IO_MASK_ALL, nth, false, -EIO);
		err = segment_create(&env, 1, &s);
		hits = w.hits;
		CHECK(hits ? err == EMDB_ERR_IO && !s : err == EMDB_OK && s);
		world_fault(&w, 0, 0, false, 0);
		if (s)
			segment_unref(s);
		CHECK_UEQ(world_files(&w), s ? 1 : 0);
		(void)io_close(&w.io, env.dirfd);
		world_release(&w);
	}
}

/* A file system that cannot preallocate. */
static int no_fallocate(void *arg, const struct io_event *ev)
{
	(void)arg;
	return ev->op == IO_OP_FALLOCATE ? -EOPNOTSUPP : 0;
}

TEST(test_segment__without_fallocate)
{
	struct io_fault plan = { .before = no_fallocate };
	struct world w;
	uint64_t lsn;

	world_init(&w, NULL);
	emdb_io_fault_set(w.fault, &plan);
	world_open(&w);
	lsn = put(w.j, 1, 100000);
	CHECK_UEQ(get(w.j, &w.ep, lsn), 1);
	world_close(&w);
	CHECK_UEQ(world_open(&w), 1);
	world_close(&w);
	world_release(&w);
}

TEST(test_segment__scan)
{
	struct world w;
	struct segment_env env;
	struct segment *s = NULL;
	uint64_t off = FMT_SEG_HEADER, at[20], got, n = 0;
	enum frame_status st;
	struct frame f;

	world_init(&w, NULL);
	env = env_of(&w);
	CHECK_OK(segment_create(&env, 3, &s));
	for (unsigned int i = 0; i < 20; i++) {
		at[i] = off;
		off = put_frame(s, off, i, i * 17) + (i % 3) * 8;
	}
	CHECK_UEQ(segment_written(s, off, 1u << SHIFT), off);
	CHECK(segment_written(s, FMT_SEG_HEADER, 1u << SHIFT) > at[19]);
	for (got = FMT_SEG_HEADER;; got += f.len) {
		CHECK_OK(segment_scan(s, got, 1u << SHIFT, false, &st, &f, &got));
		if (st != FRAME_OK)
			break;
		CHECK_UEQ(got, at[n++]);
	}
	CHECK_UEQ(n, 20);
	CHECK_UEQ(got, 1u << SHIFT);
	segment_unref(s);
	(void)io_close(&w.io, env.dirfd);
	world_release(&w);
}

/* Headers that promise more and more: the work of a scan has a limit. */
TEST(test_segment__scan_is_bounded)
{
	struct world w;
	struct segment_env env;
	struct segment *s = NULL;
	uint8_t *const b = calloc(1, 1u << SHIFT);
	enum frame_status st;
	struct frame f;
	uint64_t got;

	world_init(&w, NULL);
	env = env_of(&w);
	CHECK_OK(segment_create(&env, 3, &s));
	for (size_t off = FMT_SEG_HEADER; off + 16 <= 1u << SHIFT; off += 16) {
		put_u32(b + off, 1);
		put_u32(b + off + 4, (uint32_t)((1u << SHIFT) - off) / 8 | (uint32_t)REC_PUT << 24);
		put_u64(b + off + 8, s->base + off);
	}
	CHECK_OK(io_pwrite_full(&w.io, s->fd, b + 256, (1u << SHIFT) - 256, 256));
	CHECK_OK(segment_scan(s, FMT_SEG_HEADER, 1u << SHIFT, false, &st, &f, &got));
	CHECK_EQ(st, FRAME_END);
	segment_unref(s);
	free(b);
	(void)io_close(&w.io, env.dirfd);
	world_release(&w);
}

/* ---- Guarded touching ------------------------------------------------- */

static const uint8_t *hole_at(size_t at)
{
	static uint8_t *p;
	int fd;

	if (!p) {
		fd = memfd_create("hole", MFD_CLOEXEC);
		CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
		p = mmap(NULL, 16384, PROT_READ, MAP_SHARED, fd, 0);
		CHECK(p != MAP_FAILED);
		close(fd);
	}
	return p + at;
}

static __attribute__((noinline)) int touch(const volatile uint8_t *p)
{
	struct guard g;
	int v;

	if (!guard_begin(&g))
		return -1;
	v = *p;
	guard_end(&g);
	return v;
}

/* The inner guard catches, the outer one goes on. */
static __attribute__((noinline)) int touch_nested(void)
{
	struct guard g;
	int inner;

	if (!guard_begin(&g))
		return -2;
	inner = touch(hole_at(8192));
	if (inner == -1 && *hole_at(9000) == 0)
		inner = 7; /* not reached: the outer guard catches this one */
	guard_end(&g);
	return inner;
}

static void *touch_often(void *arg)
{
	(void)arg;
	for (int i = 0; i < 200; i++) {
		CHECK_EQ(touch(hole_at(5000)), -1);
		CHECK_EQ(touch(hole_at(100)), 0);
		CHECK_EQ(touch_nested(), -2);
	}
	return NULL;
}

TEST(test_segment__guard_catches_again_and_again)
{
	pthread_t t[4];

	CHECK_OK(guard_install());
	CHECK_OK(guard_install());
	(void)hole_at(0);
	for (int i = 0; i < 4; i++)
		CHECK_OK(pthread_create(&t[i], NULL, touch_often, NULL));
	touch_often(NULL);
	for (int i = 0; i < 4; i++)
		CHECK_OK(pthread_join(t[i], NULL));
	CHECK(!guard_top);
}

TEST(test_segment__sigbus_of_others_still_kills)
{
	const pid_t pid = fork();
	int status;

	if (pid == 0) {
		signal(SIGBUS, SIG_DFL); /* what a sanitizer has put there */
		CHECK_OK(guard_install());
		if (*(const volatile uint8_t *)hole_at(6000))
			_exit(3);
		_exit(4);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

TEST_MAIN()
