/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal and power loss. Every change that a run makes is recorded; then, for random moments,
 * a disk is built as it may look after the power failed there: of each page that was written since
 * its file was last synced any older state, of the directory any state since it was last synced.
 * Recovery must find a prefix of what was appended, with everything that had been synced.
 */
#include "tests/unit/journal_help.h"

#include <pthread.h>

#define PAGE       4096u
#define EVENTS_MAX 20000
#define INODES_MAX 400
#define FDS_MAX    4096
#define FRAMES     240

enum what { WRITE, SIZE, SYNC, LINK, UNLINK, DIR_SYNC };

struct event {
	enum what what;
	int inode, dir; /* dir: 0 store, 1 journal */
	uint64_t off, len;
	uint8_t *data;
	char name[40], name2[40];
};

static struct event events[EVENTS_MAX];
static size_t event_count;
static int inode_of[FDS_MAX], dir_of[FDS_MAX], inode_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- Recording -------------------------------------------------------- */

static struct event *add(enum what what)
{
	struct event *const e = &events[event_count++];

	CHECK(event_count < EVENTS_MAX);
	memset(e, 0, sizeof(*e));
	e->what = what;
	return e;
}

/* The memory backend's directories have large numbers. */
static unsigned int slot(int fd)
{
	return fd >= FDS_MAX / 2 ? FDS_MAX / 2 + (unsigned int)fd % (FDS_MAX / 2)
				 : (unsigned int)fd;
}

/* Which inode a name of a directory is at the end of what is recorded; -1: none. */
static int lookup(int dir, const char *name, size_t count)
{
	int inode = -1;

	for (size_t i = 0; i < count; i++) {
		const struct event *const e = &events[i];

		if (e->what == LINK && e->dir == dir && strcmp(e->name, name) == 0)
			inode = e->inode;
		/* Unlinked, or renamed away (within its directory). */
		if (e->dir == dir && strcmp(e->what == UNLINK ? e->name : e->name2, name) == 0)
			inode = -1;
	}
	return inode;
}

static void note_name(enum what what, int dir, const char *name, int inode)
{
	struct event *const e = add(what);

	e->dir = dir;
	e->inode = inode;
	snprintf(e->name, sizeof(e->name), "%s", name);
}

static void note_open(const struct io_event *ev)
{
	int inode;

	dir_of[slot(ev->fd)] = strcmp(ev->name, JOURNAL_DIR) == 0 ? 1 : 0;
	if (dir_of[slot(ev->fd)])
		return;
	inode = lookup(dir_of[slot(ev->dirfd)], ev->name, event_count);
	if (inode < 0 && (ev->flags & O_CREAT)) {
		inode = inode_count++;
		note_name(LINK, dir_of[slot(ev->dirfd)], ev->name, inode);
	}
	inode_of[slot(ev->fd)] = inode;
	if (inode >= 0 && (ev->flags & O_TRUNC))
		add(SIZE)->inode = inode;
}

static void note_write(const struct io_event *ev)
{
	struct event *const e = add(WRITE);

	e->inode = inode_of[slot(ev->fd)];
	e->off = ev->off;
	for (int i = 0; i < ev->iov_count; i++)
		e->len += ev->iov[i].iov_len;
	e->data = malloc(e->len + 1);
	e->len = 0;
	for (int i = 0; i < ev->iov_count; i++) {
		memcpy(e->data + e->len, ev->iov[i].iov_base, ev->iov[i].iov_len);
		e->len += ev->iov[i].iov_len;
	}
}

static void note(void *arg, const struct io_event *ev, int err)
{
	struct event *e;

	(void)arg;
	if (err)
		return;
	pthread_mutex_lock(&lock);
	if (ev->op == IO_OP_OPENAT)
		note_open(ev);
	if (ev->op == IO_OP_PWRITE)
		note_write(ev);
	if (ev->op == IO_OP_FALLOCATE || ev->op == IO_OP_FTRUNCATE) {
		e = add(SIZE);
		e->inode = inode_of[slot(ev->fd)];
		e->len = ev->len;
	}
	if (ev->op == IO_OP_FDATASYNC)
		add(SYNC)->inode = inode_of[slot(ev->fd)];
	if (ev->op == IO_OP_FSYNC)
		add(DIR_SYNC)->dir = dir_of[slot(ev->fd)];
	if (ev->op == IO_OP_UNLINKAT)
		note_name(UNLINK, dir_of[slot(ev->dirfd)], ev->name, -1);
	if (ev->op == IO_OP_RENAMEAT) {
		/* One event, so that no moment lies between. */
		const int inode = lookup(dir_of[slot(ev->dirfd)], ev->name, event_count);

		note_name(LINK, dir_of[slot(ev->dirfd2)], ev->name2, inode);
		snprintf(events[event_count - 1].name2, 40, "%s", ev->name);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- A disk after the failure ----------------------------------------- */

struct file {
	uint8_t *bytes;
	uint64_t size;
};

static void apply_write(struct file *f, const struct event *e, uint64_t from, uint64_t to)
{
	const uint64_t a = max_u64(e->off, from), b = min_u64(e->off + e->len, to);

	if (a < b) {
		memcpy(f->bytes + a, e->data + (a - e->off), b - a);
		f->size = max_u64(f->size, b);
	}
}

/* The inode's content at event `count`, everything unsynced in some older state. */
static struct file build_file(int inode, size_t count, uint64_t *seed)
{
	struct file f = { calloc(1, (1u << SHIFT) + PAGE), 0 };
	size_t synced = 0;

	for (size_t i = 0; i < count; i++)
		if (events[i].what == SYNC && events[i].inode == inode)
			synced = i;
	for (size_t i = 0; i < count; i++) {
		const struct event *const e = &events[i];

		if (e->inode != inode || (e->what != WRITE && e->what != SIZE))
			continue;
		if (e->what == SIZE) {
			if (i < synced || test_rand(seed) % 2) {
				if (e->len < f.size)
					memset(f.bytes + e->len, 0, f.size - e->len);
				f.size = e->len;
			}
		} else if (i < synced) {
			apply_write(&f, e, 0, UINT64_MAX);
		}
	}
	for (uint64_t page = 0; page < 1u << SHIFT; page += PAGE) {
		size_t until = count;
		bool touched = false;

		for (size_t i = synced; i < count; i++)
			touched = touched || (events[i].what == WRITE && events[i].inode == inode &&
					      events[i].off < page + PAGE &&
					      events[i].off + events[i].len > page);
		if (touched && test_rand(seed) % 4)
			until = synced + test_rand(seed) % (count - synced + 1);
		for (size_t i = synced; touched && i < until; i++)
			if (events[i].what == WRITE && events[i].inode == inode)
				apply_write(&f, &events[i], page, page + PAGE);
	}
	return f;
}

static void put_file(struct world *w, int dir, const char *name, const struct file *f)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s%s", dir ? JOURNAL_DIR "/" : "", name);
	CHECK_OK(io_openat(w->inner, w->dirfd, path, O_RDWR | O_CREAT | O_TRUNC, 0600, &fd));
	CHECK_OK(io_pwrite_full(w->inner, fd, f->bytes, f->size, 0));
	(void)io_close(w->inner, fd);
}

/* Every name that a directory shows when the first names[dir] events got through to it. */
static void build_disk(struct world *w, size_t count, const size_t names[2], uint64_t *seed)
{
	for (int inode = 0; inode < inode_count; inode++) {
		struct file f = { NULL, 0 };

		for (size_t i = 0; i < count; i++) {
			const struct event *const e = &events[i];

			if (e->what != LINK || e->inode != inode || i >= names[e->dir] ||
			    lookup(e->dir, e->name, names[e->dir]) != inode)
				continue;
			if (!f.bytes)
				f = build_file(inode, count, seed);
			put_file(w, e->dir, e->name, &f);
		}
		free(f.bytes);
	}
}

/* ---- The run ---------------------------------------------------------- */

struct ack {
	size_t event;
	uint64_t synced, retired; /* frames below are durable; frames below are gone */
};

static struct ack acks[FRAMES * 2];
static size_t ack_count;

static void ack(uint64_t synced, uint64_t retired)
{
	pthread_mutex_lock(&lock);
	acks[ack_count++] = (struct ack){ event_count, synced, retired };
	pthread_mutex_unlock(&lock);
}

static void run(struct world *w, uint64_t *seed)
{
	uint64_t lsn[FRAMES], synced = 0, retired = 0, id, next;
	struct journal_seg_info info[40];

	ack(0, 0);
	for (uint64_t i = 0; i < FRAMES; i++) {
		lsn[i] =
			put(w->j, i,
			    test_rand(seed) % 3 ? test_rand(seed) % 3000 : test_rand(seed) % 60000);
		if (test_rand(seed) % 16 == 0) {
			CHECK_OK(journal_sync(w->j));
			ack(synced = i + 1, retired);
		}
		if (test_rand(seed) % 64 == 0)
			CHECK_OK(journal_roll(w->j, &next));
		if (i == FRAMES / 2 || test_rand(seed) % 100 == 0) {
			world_kill(w);
			world_open(w);
			ack(synced = i + 1, retired);
		}
		if (i % 50 == 49 && journal_segments(w->j, info, 40) > 4 && info[0].sealed) {
			id = info[0].id;
			while (lsn[retired] >> SHIFT == id)
				retired++;
			/* From here on they may be gone. */
			ack(synced, retired);
			CHECK_OK(journal_retire(w->j, &id, 1));
		}
	}
	world_close(w);
	ack(FRAMES, retired);
}

/* What recovery finds on the disk must be what the acknowledgements before the failure allow. */
static void check_disk(size_t count, uint64_t *seed)
{
	size_t names[2] = { 0, 0 }, k = 0;
	struct seen s = { .count = 0 };
	struct journal_end end;
	struct world w;
	emdb_err err;

	for (size_t i = 0; i < count; i++)
		if (events[i].what == DIR_SYNC)
			names[events[i].dir] = i;
	for (int dir = 0; dir < 2; dir++)
		names[dir] += test_rand(seed) % (count - names[dir] + 1);
	while (k + 1 < ack_count && acks[k + 1].event <= count)
		k++;
	world_init(&w, NULL);
	CHECK_OK(io_mkdirat(w.inner, w.dirfd, JOURNAL_DIR, 0700));
	build_disk(&w, count, names, seed);
	w.cfg.create = false;
	world_boot = BOOT2;
	err = world_replay(&w, &s, &end);
	if (err == EMDB_ERR_DAMAGED && acks[k].synced == 0 && strstr(w.detail.text, "manifest")) {
		world_release(&w); /* not even created */
		return;
	}
	if (err)
		printf("event %zu of %zu, names %zu, %zu: %s\n", count, event_count, names[0],
		       names[1], w.detail.text);
	CHECK_EQ(err, EMDB_OK);
	for (size_t i = 1; i < s.count; i++)
		CHECK_UEQ(s.n[i], s.n[i - 1] + 1);
	if (s.count)
		CHECK(s.n[0] <= acks[k + 1 < ack_count ? k + 1 : k].retired);
	if (acks[k].synced > acks[k].retired)
		CHECK(s.count && s.n[s.count - 1] + 1 >= acks[k].synced);
	CHECK_OK(journal_start(w.j));
	put(w.j, s.count ? s.n[s.count - 1] + 1 : 0, 100);
	CHECK_OK(journal_sync(w.j));
	world_close(&w);
	seen_release(&s);
	world_release(&w);
}

TEST(test_journal__power_loss)
{
	struct io_fault plan = { .before = world_before, .after = note };
	uint64_t seed = test_seed();
	struct world w;

	world_init(&w, NULL);
	memset(dir_of, 0, sizeof(dir_of));
	plan.hook_arg = &w;
	emdb_io_fault_set(w.fault, &plan);
	world_open(&w);
	run(&w, &seed);
	world_release(&w);
	printf("%zu events, %d files\n", event_count, inode_count);
	for (int i = 0; i < 200; i += (int)STRIDE)
		check_disk(1 + test_rand(&seed) % event_count, &seed);
	for (size_t i = 0; i < event_count; i++)
		free(events[i].data);
}

TEST_MAIN()
