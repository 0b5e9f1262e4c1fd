/* SPDX-License-Identifier: Apache-2.0 */
/* A store and processes: who holds the lock, what a child inherits, what an exec'ed program does not. */
#include "core/emdb.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/test.h"

static char path[PATH_MAX + 16];

static emdb_err open_path(emdb_db **ret)
{
	const struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };

	return emdb_open(path, &o, ret);
}

static emdb_db *store_new(void)
{
	emdb_db *db = NULL;

	snprintf(path, sizeof(path), "%s/store", test_dir());
	CHECK_OK(open_path(&db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "value", 5, 0));
	return db;
}

static void still_works(void)
{
	emdb_db *db;
	size_t n;
	void *p;

	CHECK_OK(open_path(&db));
	CHECK_OK(emdb_get(db, EMDB_ROOT, "k", 1, &p, &n));
	CHECK_MEM(p, n, "value", 5);
	emdb_free(p);
	CHECK_OK(emdb_close(db));
}

/* ---- Children ---- */

struct child {
	pid_t pid;
	int say, hear; /* a byte each: go on; it is so far */
};

/* True in the child, which has said that it is there by the time the parent goes on. */
static bool fork_child(struct child *c)
{
	int to[2], from[2];

	CHECK_OK(pipe2(to, O_CLOEXEC));
	CHECK_OK(pipe2(from, O_CLOEXEC));
	fflush(stdout);
	c->pid = fork();
	CHECK(c->pid >= 0);
	c->say = c->pid ? to[1] : from[1];
	c->hear = c->pid ? from[0] : to[0];
	close(c->pid ? to[0] : to[1]);
	close(c->pid ? from[1] : from[0]);
	return c->pid == 0;
}

static void say(const struct child *c)
{
	CHECK_EQ(write(c->say, "x", 1), 1);
}

static void hear(const struct child *c)
{
	char b;

	CHECK_EQ(read(c->hear, &b, 1), 1);
}

static int child_end(struct child *c, int sig)
{
	int status;

	if (sig)
		CHECK_OK(kill(c->pid, sig));
	CHECK_EQ(waitpid(c->pid, &status, 0), c->pid);
	close(c->say);
	close(c->hear);
	return status;
}

/* ---- The lock ---- */

static struct emdb_lock_info holder(void)
{
	struct emdb_lock_info info;

	CHECK_OK(emdb_lock_holder(path, &info));
	return info;
}

TEST(test_process__the_holder_of_the_lock)
{
	const int64_t begun = time(NULL) * 1000 - 1000;
	emdb_db *db = store_new(), *second;
	struct emdb_lock_info info = holder();
	char host[256];

	CHECK_OK(gethostname(host, sizeof(host)));
	CHECK(info.held && !info.stale);
	CHECK_EQ(info.pid, getpid());
	CHECK(info.since_ms >= begun && info.since_ms <= begun + 60000);
	CHECK_STR(info.host, host);
	CHECK_STR(info.version, EMDB_VERSION_STRING);
	CHECK(strlen(info.boot_id) >= 32);
	CHECK_EQ(open_path(&second), EMDB_ERR_LOCKED);
	CHECK_EQ(emdb_break_lock(path), EMDB_ERR_HOLDER_ALIVE);
	/* Refused, and nothing of it gone. */
	info = holder();
	CHECK(info.held && info.pid == getpid());
	CHECK_OK(emdb_put(db, EMDB_ROOT, "after", 5, "", 0, 0));
	CHECK_OK(emdb_close(db));
	info = holder();
	CHECK(!info.held && !info.stale);
	CHECK_OK(emdb_break_lock(path));
	still_works();
	snprintf(path, sizeof(path), "%s/absent", test_dir());
	CHECK_EQ(emdb_lock_holder(path, &info), EMDB_ERR_NO_STORE);
	CHECK_EQ(emdb_break_lock(path), EMDB_ERR_NO_STORE);
}

/* Another process: alive it keeps the lock, killed it leaves a trace that can be removed, or opened over. */
TEST(test_process__a_killed_holder)
{
	for (int cleared = 0; cleared < 2; cleared++) {
		struct emdb_lock_info info;
		struct child c;
		emdb_db *db;

		CHECK_OK(emdb_close(store_new()));
		if (fork_child(&c)) {
			if (open_path(&db))
				_exit(1);
			say(&c);
			pause();
		}
		hear(&c);
		info = holder();
		CHECK(info.held && !info.stale);
		CHECK_EQ(info.pid, c.pid);
		CHECK_EQ(emdb_break_lock(path), EMDB_ERR_HOLDER_ALIVE);
		CHECK_EQ(open_path(&db), EMDB_ERR_LOCKED);
		CHECK(WIFSIGNALED(child_end(&c, SIGKILL)));
		info = holder();
		CHECK(!info.held && info.stale);
		CHECK_EQ(info.pid, c.pid);
		if (cleared) {
			CHECK_OK(emdb_break_lock(path));
			info = holder();
			CHECK(!info.held && !info.stale);
		}
		still_works();
	}
}

/* ---- Children of who has it open ---- */

/* A child that only lives on and ends disturbs nothing: not the lock's owner, not what is written. */
TEST(test_process__a_child_that_does_nothing)
{
	emdb_db *db = store_new();
	struct child c;

	if (fork_child(&c)) {
		say(&c);
		hear(&c);
		_exit(0);
	}
	hear(&c);
	for (int i = 0; i < 1000; i++)
		CHECK_OK(emdb_put(db, EMDB_ROOT, &i, sizeof(i), "x", 1, 0));
	CHECK_OK(emdb_flush(db));
	/* Closed here it is free, though the child has the descriptors still. */
	CHECK_OK(emdb_close(db));
	CHECK(!holder().held);
	still_works();
	say(&c);
	CHECK_EQ(child_end(&c, 0), 0);
	still_works();
}

/* Who ends without closing leaves the lock to a child that has not exec'ed: as emdb.h says. */
TEST(test_process__a_child_keeps_the_lock_of_the_dead)
{
	struct child c, grand = { .pid = 0 };
	char b;
	emdb_db *db;

	CHECK_OK(emdb_close(store_new()));
	if (fork_child(&c)) {
		if (open_path(&db))
			_exit(1);
		grand.pid = fork();
		if (grand.pid == 0) {
			say(&c); /* and stays until the pipe is closed */
			_exit(read(c.hear, &b, 1) == 0 ? 0 : 1);
		}
		pause();
	}
	hear(&c);
	CHECK_OK(kill(c.pid, SIGKILL));
	CHECK_EQ(waitpid(c.pid, NULL, 0), c.pid);
	CHECK(holder().held);
	CHECK_EQ(open_path(&db), EMDB_ERR_LOCKED);
	CHECK_EQ(emdb_break_lock(path), EMDB_ERR_HOLDER_ALIVE);
	close(c.say);
	/* Its end closes the other pipe. */
	CHECK_EQ(read(c.hear, &b, 1), 0);
	close(c.hear);
	for (int i = 0; holder().held && i < 1000; i++)
		usleep(1000);
	still_works();
}

/* ---- Descriptors ---- */

static bool is_open[4096];

/* fn for every descriptor that was not there before. */
static unsigned int new_fds(void (*fn)(int fd))
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;
	struct dirent *e;

	CHECK(d);
	while ((e = readdir(d))) {
		const int fd = atoi(e->d_name);

		if (e->d_name[0] == '.' || fd == dirfd(d) || fd >= 4096 || is_open[fd])
			continue;
		fn(fd);
		n++;
	}
	closedir(d);
	return n;
}

static void note(int fd)
{
	is_open[fd] = true;
}

static void check_cloexec(int fd)
{
	const int flags = fcntl(fd, F_GETFD);

	if (!(flags & FD_CLOEXEC)) {
		char link[64], to[300] = "";

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		(void)!readlink(link, to, sizeof(to) - 1);
		FAIL("descriptor %d (%s) is not close-on-exec", fd, to);
	}
}

static void check_all_cloexec(unsigned int at_least)
{
	const unsigned int n = new_fds(check_cloexec);

	if (n < at_least)
		FAIL("only %u descriptors: is what was to be looked at there?", n);
}

static void everything(emdb_db *db, bool files)
{
	static const struct emdb_range all = { .size = sizeof(all) };
	emdb_stream *a, *b;
	emdb_async *async;
	emdb_db *snap;

	CHECK_OK(emdb_async_new(db, NULL, &async));
	CHECK_OK(emdb_stream_iter(async, EMDB_ROOT, 0, NULL, &a));
	CHECK_OK(emdb_stream_range(async, EMDB_ROOT, &all, NULL, &b));
	check_all_cloexec(4);
	emdb_stream_free(a);
	emdb_stream_free(b);
	emdb_async_free(async);
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_compact(db, NULL, NULL));
	if (!files)
		return;
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	CHECK_OK(emdb_snapshot_open(db, "s", NULL, &snap));
	check_all_cloexec(6);
	CHECK_OK(emdb_close(snap));
}

TEST(test_process__descriptors_are_close_on_exec_and_all_closed)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE | EMDB_OPEN_ORDERED };
	static char big[100000];
	emdb_db *db;

	snprintf(path, sizeof(path), "%s/store", test_dir());
	memset(is_open, 0, sizeof(is_open));
	(void)new_fds(note);
	for (int files = 0; files < 2; files++) {
		CHECK_OK(files ? emdb_open(path, &o, &db) : emdb_open_memory(&o, &db));
		CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, big, sizeof(big), 0));
		everything(db, files);
		CHECK_OK(emdb_close(db));
		CHECK_UEQ(new_fds(check_cloexec), 0);
	}
}

/* ---- In memory ---- */

/* Nothing of it is on disk: the working directory stays empty, and a second one knows nothing. */
TEST(test_process__in_memory_leaves_nothing)
{
	const char *const dir = test_dir();
	static char big[3000000];
	char was[PATH_MAX];
	emdb_db *a, *b;
	uint64_t count;
	DIR *d;

	CHECK(getcwd(was, sizeof(was)));
	CHECK_OK(chdir(dir));
	CHECK_OK(emdb_open_memory(NULL, &a));
	CHECK_OK(emdb_open_memory(NULL, &b));
	CHECK_OK(emdb_put(a, EMDB_ROOT, "k", 1, big, sizeof(big), 0));
	CHECK_OK(emdb_checkpoint(a));
	CHECK_OK(emdb_flush(a));
	CHECK_OK(emdb_count(b, EMDB_ROOT, &count));
	CHECK_UEQ(count, 0);
	CHECK_EQ(emdb_snapshot_create(a, "s", NULL), EMDB_ERR_UNSUPPORTED);
	CHECK_OK(emdb_close(a));
	CHECK_OK(emdb_close(b));
	d = opendir(".");
	count = 0;
	while (readdir(d))
		count++;
	closedir(d);
	CHECK_UEQ(count, 2);
	CHECK_OK(chdir(was));
	CHECK_OK(emdb_open_memory(NULL, &a));
	CHECK_OK(emdb_count(a, EMDB_ROOT, &count));
	CHECK_UEQ(count, 0);
	CHECK_OK(emdb_close(a));
}

TEST_MAIN()
