/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a mapped segment that are not there any more: touching them raises SIGBUS, as a page does that
 * the disk cannot deliver. Either the file was cut behind the store's back, or one page of the mapping
 * was exchanged for one of an empty file, as with a bad sector. Every public function that reads must
 * answer with an error for what lies there, read the rest rightly, and never die. All has been read,
 * and so verified, once before: nothing is hidden by the first look at a frame.
 *
 * What changes something runs in a process of its own each time, so that a death has a name.
 */
#include "tests/unit/bus_ops.h"

/* ---- Running ------------------------------------------------------------------------------- */

static void cut_at(int fd, uint64_t at)
{
	miss_from = at;
	miss_to = UINT64_MAX;
	CHECK_EQ(ftruncate(fd, (off_t)at), 0);
}

/* Exchanges the page of the mapping for one that is not there; back: for what it was. */
static void map_page(emdb_db *db, int fd, uint64_t at, bool back)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const struct segment *const s =
		journal_segment_pinned(db->j, UINT64_C(1) << db->sb.segment_shift);
	uint8_t *const p = (uint8_t *)(uintptr_t)s->map + at;
	static int empty = -1;

	if (empty == -1)
		empty = memfd_create("empty", MFD_CLOEXEC);
	CHECK(empty != -1);
	CHECK(mmap(p, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, back ? fd : empty,
		   back ? (off_t)at : 0) == p);
	miss_from = back ? UINT64_MAX : at;
	miss_to = back ? UINT64_MAX : at + PAGE;
	epoch_unpin(&db->epoch, pin);
}

/* Opens a copy and has read everything once, so that nothing is verified again. */
static emdb_db *open_warm(int *ret_fd)
{
	char *cmd = NULL;
	emdb_db *db;

	CHECK(asprintf(&cmd, "rm -rf %s.copy* && cp -a %s %s.copy", path, path, path) > 0);
	CHECK_EQ(system(cmd), 0);
	free(cmd);
	memcpy(path + strlen(path), ".copy", 6);
	db = open_flags(0);
	miss_from = miss_to = UINT64_MAX;
	read_all(db);
	*ret_fd = segment_fd();
	return db;
}

static void child_ends(pid_t child, const char *what)
{
	int status;

	CHECK_EQ(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status))
		FAIL("%s: %s died of signal %d without page %" PRIu64, what, shared->op,
		     WTERMSIG(status), shared->page);
	if (WEXITSTATUS(status))
		FAIL("%s: failed in %s", what, shared->op);
}

static uint64_t segment_size(void)
{
	struct stat st;
	const int fd = segment_fd();

	CHECK_EQ(fstat(fd, &st), 0);
	close(fd);
	return (uint64_t)st.st_size;
}

static void reads_shrinking(void)
{
	int fd;
	emdb_db *const db = open_warm(&fd);

	for (uint64_t at = segment_size() / PAGE * PAGE;; at -= PAGE) {
		shared->page = at / PAGE;
		cut_at(fd, at);
		read_all(db);
		if (at / PAGE % 16 == 0)
			read_whole(db);
		if (at == 0)
			break;
	}
	in("close");
	(void)emdb_close(db);
}

static void reads_without_a_page(void)
{
	int fd;
	emdb_db *const db = open_warm(&fd);

	for (uint64_t at = 0; at < segment_size() / PAGE * PAGE; at += PAGE) {
		shared->page = at / PAGE;
		map_page(db, fd, at, false);
		read_all(db);
		in("checkpoint");
		CHECK_OK(emdb_checkpoint(db));
		map_page(db, fd, at, true);
	}
	read_all(db);
	in("close");
	CHECK_OK(emdb_close(db));
}

static void one_change(const struct change *c, uint64_t at, bool cut, const struct key *k)
{
	int fd;
	emdb_db *const db = open_warm(&fd);

	if (cut)
		cut_at(fd, at);
	else
		map_page(db, fd, at, false);
	in(c->name);
	c->run(db, k);
	/* The store goes on. */
	in("put afterwards");
	CHECK_OK(emdb_put(db, EMDB_ROOT, "afterwards", 10, "x", 1, 0));
	CHECK_OK(emdb_flush(db));
	in("close");
	(void)emdb_close(db);
}

static unsigned int change_case(const struct change *c, uint64_t at, bool cut, const struct key *k)
{
	pid_t child;

	shared->page = at / PAGE;
	child = fork();
	if (child == 0) {
		one_change(c, at, cut, k);
		_exit(0);
	}
	child_ends(child, c->name);
	return 1;
}

/* For each key whose record has more than one page: without its last, without its first, and one between. */
static unsigned int changes_of(const struct change *c)
{
	const char *const env = getenv("EMDB_LONG");
	const bool all = env && *env;
	unsigned int count = 0;

	for (unsigned int i = 0; i < KEYS; i++) {
		const struct key *const k = &keys[i];
		const uint64_t first = k->begin / PAGE * PAGE, last = (k->end - 1) / PAGE * PAGE;

		if (first == last || (!all && i % 3))
			continue;
		count += change_case(c, last, i % 2, k);
		if (last - first > PAGE)
			count += change_case(c, first + PAGE, false, k);
		if (i % 4 == 0)
			count += change_case(c, first, false, k);
	}
	return count;
}

static void opens_cut(void)
{
	struct emdb_check_report r;
	emdb_db *db;
	emdb_err err;
	int fd = segment_fd();

	for (uint64_t at = segment_size() / PAGE * PAGE; at > 0; at -= 3 * (uint64_t)PAGE) {
		shared->page = at / PAGE;
		cut_at(fd, at);
		in("check");
		err = emdb_check_secret(path, sealed ? &secret : NULL, NULL, NULL, &r);
		CHECK(err == EMDB_ERR_CORRUPT || err == EMDB_ERR_DAMAGED || err == EMDB_ERR_IO);
		in("open");
		const struct emdb_options o = { .size = sizeof(o),
						.flags = EMDB_OPEN_READ_ONLY | EMDB_OPEN_SALVAGE |
							 EMDB_OPEN_ORDERED,
						.secret = sealed ? &secret : NULL };
		err = emdb_open(path, &o, &db);
		if (err == EMDB_ERR_DAMAGED)
			continue;
		expect_good_or_lost(err);
		if (err)
			continue;
		read_iterators(db);
		in("close");
		(void)emdb_close(db);
		if (at < 4 * (uint64_t)PAGE)
			break;
	}
	close(fd);
}

static void in_child(void (*fn)(void), const char *what)
{
	const pid_t child = fork();

	if (child == 0) {
		fn();
		_exit(0);
	}
	child_ends(child, what);
}

static void begin(bool encrypted)
{
	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	sealed = encrypted;
	make_store();
}

TEST(test_bus__every_read_of_a_cut_file)
{
	begin(false);
	in_child(reads_shrinking, "reading");
}

TEST(test_bus__every_read_without_a_page)
{
	begin(false);
	in_child(reads_without_a_page, "reading");
}

TEST(test_bus__every_read_encrypted)
{
	begin(true);
	in_child(reads_shrinking, "reading");
	in_child(reads_without_a_page, "reading");
}

TEST(test_bus__every_change)
{
	unsigned int n = 0;

	begin(false);
	for (size_t c = 0; c < ARRAY_SIZE(changes); c++)
		n += changes_of(&changes[c]);
	printf("%u changes\n", n);
	CHECK(n > ARRAY_SIZE(changes));
}

/* ---- Between verifying and using -------------------------------------------------------------- */

static int window_fd, nothing_fd;

static void map_segment(const struct segment *s, int fd)
{
	CHECK(mmap((uint8_t *)(uintptr_t)s->map, EMDB_SEGMENT_MIN, PROT_READ,
		   MAP_SHARED | MAP_FIXED, fd, 0) == s->map);
}

emdb_err __real_segment_rec(struct segment *s, uint64_t ref, enum emdb_verify verify,
			    struct rec *ret);
emdb_err __wrap_segment_rec(struct segment *s, uint64_t ref, enum emdb_verify verify,
			    struct rec *ret);

/* The disk works while a record is verified, and fails as soon as that is done: nothing of the segment is there. */
emdb_err __wrap_segment_rec(struct segment *s, uint64_t ref, enum emdb_verify verify,
			    struct rec *ret)
{
	const bool here = window && s->id == 1;
	emdb_err err;

	if (here)
		map_segment(s, window_fd);
	err = __real_segment_rec(s, ref, verify, ret);
	if (here && !err)
		map_segment(s, nothing_fd);
	return err;
}

static emdb_db *open_window(void)
{
	emdb_db *const db = open_warm(&window_fd);

	nothing_fd = memfd_create("nothing", MFD_CLOEXEC);
	CHECK(nothing_fd != -1);
	miss_from = 0;
	miss_to = UINT64_MAX - 1;
	window = true;
	return db;
}

static void reads_too_late(void)
{
	emdb_db *const db = open_window();

	read_all(db);
	in("close");
	window = false;
	CHECK_OK(emdb_close(db));
}

static void change_too_late(const struct change *c, const struct key *k)
{
	emdb_db *const db = open_window();

	in(c->name);
	c->run(db, k);
	in("close");
	window = false;
	(void)emdb_close(db);
}

TEST(test_bus__reads_when_a_page_goes_after_it_was_verified)
{
	begin(false);
	in_child(reads_too_late, "reading");
}

TEST(test_bus__changes_when_a_page_goes_after_it_was_verified)
{
	begin(false);
	for (size_t c = 0; c < ARRAY_SIZE(changes); c++)
		for (unsigned int i = 0; i < KEYS; i += 5) {
			const pid_t child = fork();

			if (child == 0) {
				change_too_late(&changes[c], &keys[i]);
				_exit(0);
			}
			child_ends(child, changes[c].name);
		}
}

TEST(test_bus__open_and_check)
{
	begin(false);
	in_child(opens_cut, "opening");
	begin(true);
	in_child(opens_cut, "opening");
}

TEST_MAIN()
