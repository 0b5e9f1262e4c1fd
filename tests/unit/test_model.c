/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on a store and on a model of one: the same results, the same contents after
 * every restart, orderly or by death. OPS says how many operations each run has, SEED which.
 */
#include "tests/unit/model_ops.h"
#include "tests/unit/secret.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/wait.h>

/* ---- Runs ---- */

#ifdef __SANITIZE_THREAD__
#define OPS_DEFAULT 600u /* each fork takes a while */
#else
#define OPS_DEFAULT 1800u
#endif

static unsigned int run_length(void)
{
	const char *const env = getenv("OPS");

	return env ? (unsigned int)strtoul(env, NULL, 0) : OPS_DEFAULT;
}

static void store_open(unsigned int flags)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options opts = { .size = sizeof(opts),
				     .flags = flags,
				     .segment_bytes = EMDB_SEGMENT_MIN,
				     .secret = test_secret(),
				     .sweep_interval_ms = chance(50) ? 1 : -1,
				     .commit_interval_s = -1,
				     .flush =
					     chance(2) ? EMDB_FLUSH_WRITE_THROUGH : EMDB_FLUSH_EACH,
				     .default_ttl_ms = chance(20) ? 1 + (int64_t)below(5000) : 0,
				     .compact_percent = (int32_t)below(3) * 10 - 10,
				     .compact_wait_bytes = 1,
				     .detail = &detail };
	const emdb_err err = dir ? emdb_open(dir, &opts, &db) : emdb_open_memory(&opts, &db);

	m->default_ttl_ms = opts.default_ttl_ms;
	if (err)
		M_FAIL("open: %s: %s", emdb_err_name(err), detail.text);
}

static void store_close(void)
{
	for (int i = 0; i < M_OBJS; i++)
		if (m->objs[i].used && m->objs[i].refs && chance(50)) {
			emdb_node_forget(db, m->objs[i].id, m->objs[i].refs);
			m_forgot(&m->objs[i], m->objs[i].refs);
		}
	OK(emdb_close(db));
	db = NULL;
	m_restart();
}

static void found_fault(void *ctx, const struct emdb_detail *detail)
{
	/* Checkpoints are damaged on purpose. */
	if (detail->damage != EMDB_DAMAGE_FILE)
		M_FAIL("check found: %s", detail->text);
	++*(uint64_t *)ctx;
}

/* What is on disk is sound, by the checker's word. */
static void check_disk(void)
{
	struct emdb_check_report report;
	uint64_t files = 0;
	const emdb_err err = emdb_check_secret(dir, test_secret(), found_fault, &files, &report);

	if (!files || err != EMDB_ERR_CORRUPT)
		OK(err);
	want_u64(report.bad_frames, files, "bad frames");
	want_u64(report.lost_bytes, 0, "lost bytes");
}

/* A byte of the file changed, its end cut off, or all of it gone. */
static void damage(const char *path)
{
	const int fd = open(path, O_RDWR | O_CLOEXEC);
	const off_t size = lseek(fd, 0, SEEK_END), at = (off_t)below((uint64_t)size);
	uint8_t byte;

	CHECK(fd >= 0 && size > 0);
	switch (below(3)) {
	case 0:
		CHECK_EQ(pread(fd, &byte, 1, at), 1);
		byte ^= (uint8_t)(1u << below(8));
		CHECK_EQ(pwrite(fd, &byte, 1, at), 1);
		break;
	case 1:
		CHECK_OK(ftruncate(fd, at));
		break;
	default:
		CHECK_OK(unlink(path));
	}
	(void)close(fd);
}

/* Checkpoints only save time: without them everything is as before. */
static void damage_checkpoints(void)
{
	glob_t g;
	char pattern[PATH_MAX + 32];

	snprintf(pattern, sizeof(pattern), "%s/checkpoint-*", dir);
	if (glob(pattern, 0, NULL, &g))
		return;
	DOING("restart after damage to some of %zu checkpoints", (size_t)g.gl_pathc);
	for (size_t i = 0; i < g.gl_pathc; i++)
		if (chance(60))
			damage(g.gl_pathv[i]);
	globfree(&g);
}

/* Reading alone: the same contents, and nothing goes. */
static void check_read_only(void)
{
	DOING("open read-only");
	store_open(EMDB_OPEN_READ_ONLY);
	m->frozen = true;
	check_all(db);
	m->frozen = false;
	want_err(emdb_clear(db, EMDB_ROOT), EMDB_ERR_READ_ONLY, "clear of a read-only store");
	store_close();
}

static void begin(bool memory)
{
	static char path[PATH_MAX + 8];
	const uint64_t seed = test_seed();

	m_init(seed);
	dir = NULL;
	if (!memory) {
		snprintf(path, sizeof(path), "%s/store", test_dir());
		dir = path;
	}
	DOING("first open");
	store_open(EMDB_OPEN_CREATE);
}

TEST(test_model__in_memory)
{
	const unsigned int n = run_length();

	begin(true);
	for (unsigned int i = 0; i < n; i++)
		one_op();
	DOING("end");
	check_all(db);
	store_close();
}

TEST(test_model__restarts)
{
	const unsigned int n = run_length();

	begin(false);
	for (unsigned int i = 0; i < n; i++) {
		one_op();
		if (!chance(1) && i != n - 1)
			continue;
		DOING("restart");
		store_close();
		if (chance(30))
			check_disk();
		if (chance(20))
			damage_checkpoints();
		if (chance(20))
			check_read_only();
		store_open(EMDB_OPEN_CREATE);
		check_all(db);
	}
	store_close();
	check_disk();
}

/* A child works and dies between two operations; all that it was told must be there. */
TEST(test_model__deaths)
{
	const unsigned int n = run_length();

	begin(false);
	store_close();
	while (m->ops < n) {
		const unsigned int steps = 1 + (unsigned int)below(200);
		const pid_t pid = fork();
		int status;

		CHECK(pid >= 0);
		if (pid == 0) {
			DOING("open in a child");
			store_open(EMDB_OPEN_CREATE);
			check_all(db);
			for (unsigned int i = 0; i < steps; i++)
				one_op();
			raise(SIGKILL);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			FAIL("the child ended with status %#x after: %s", status, m->op);
		m_restart();
		if (chance(30))
			check_disk();
		if (chance(20))
			damage_checkpoints();
		if (chance(20))
			check_read_only();
		if (chance(30)) {
			DOING("open after death");
			store_open(EMDB_OPEN_CREATE);
			check_all(db);
			store_close();
		}
	}
}

TEST_MAIN()
