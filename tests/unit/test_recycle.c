/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments in the files of dead ones: what recovery makes of the old frames behind the new, which
 * files are taken and which never, and a death at every step.
 */
#include "tests/unit/journal_help.h"

#include <time.h>
#include <unistd.h>

#define SEG (UINT64_C(1) << SHIFT)

/* Behind the end of segment `to` come the bytes of `from`, as if it had been made of its file. */
static void make_stale(struct world *w, uint64_t from, uint64_t to, uint64_t end)
{
	uint8_t *const b = malloc(SEG);
	const int fd = seg_fd(w, from);
	size_t n = 0;

	CHECK_OK(io_pread_full(w->inner, fd, b, SEG, 0, &n));
	(void)io_close(w->inner, fd);
	CHECK(n > end + 4096);
	seg_write(w, (to << SHIFT) + end, b + end, n - end);
	free(b);
}

/* Segment 1 full, then in segment 2, over the frames of the first, ten of which five are synced. */
static void make_ten(struct world *w, uint64_t lsn[11], size_t *ret_old)
{
	uint64_t n = 0;

	world_init(w, NULL);
	w->cfg.crc_seeded = true;
	world_open(w);
	while (put(w->j, n, 400) >> SHIFT == 1)
		n++;
	*ret_old = n;
	for (unsigned int i = 0; i < 10; i++) {
		if (i == 5)
			CHECK_OK(journal_sync(w->j));
		lsn[i] = put(w->j, n + 1 + i, 200 + 40 * i);
	}
	lsn[10] = journal_tail(w->j);
	world_kill(w);
	make_stale(w, 1, 2, lsn[10] & (SEG - 1));
}

static void check_end(struct world *w, size_t frames, uint64_t lsn, uint64_t torn)
{
	const uint32_t digest = world_digest(w);
	struct seen s = { .count = 0 };
	struct journal_end end;

	CHECK_EQ(world_replay(w, &s, &end), EMDB_OK);
	CHECK_UEQ(s.count, frames);
	CHECK_UEQ(end.lsn, lsn);
	CHECK_UEQ(end.torn_bytes, torn);
	CHECK_OK(journal_close(w->j));
	CHECK(world_digest(w) == digest);
	seen_release(&s);
}

TEST(test_recycle__old_frames_behind_the_end)
{
	struct world w;
	uint64_t lsn[11];
	uint8_t frame[1024];
	size_t old, n;

	make_ten(&w, lsn, &old);
	n = (size_t)(lsn[10] - lsn[9]);
	seg_read(&w, lsn[9], frame, n);
	for (int boot = 0; boot < 2; boot++) {
		world_boot = boot ? BOOT2 : BOOT1;
		check_end(&w, old + 11, lsn[10], 0);
		/* Only a beginning of the last frame was written, before what was there. */
		for (size_t i = 0; i < n; i += 8 * STRIDE) {
			make_stale(&w, 1, 2, (lsn[9] & (SEG - 1)));
			seg_write(&w, lsn[9], frame, i);
			check_end(&w, old + 10, lsn[9], i < 16 ? 0 : n);
		}
		seg_write(&w, lsn[9], frame, n);
		/* Or it came to the disk in part. */
		seg_flip(&w, lsn[9] + 100);
		check_end(&w, old + 10, lsn[9], n);
		seg_flip(&w, lsn[9] + 100);
	}
	/* What was cut goes; what comes then is found. */
	CHECK_UEQ(world_open(&w), old + 11);
	put(w.j, 1, 10);
	world_close(&w);
	CHECK_UEQ(world_open(&w), old + 12);
	world_close(&w);
	world_release(&w);
}

static uint32_t seed_of(struct world *w, uint64_t id)
{
	uint8_t salt[32];

	seg_read(w, (id << SHIFT) + FMT_SEG_SALT, salt, sizeof(salt));
	return fmt_crc_seed(salt);
}

/* Gives the frames of segment 1 that are in segment 2 what they lack to be its own; how many. */
static size_t adopt(struct world *w, uint64_t end, bool place, bool seed)
{
	const uint32_t crc_seed = seed_of(w, seed ? 2 : 1);
	uint8_t *const b = malloc(SEG), *p = b + FMT_SEG_HEADER;
	const int fd = seg_fd(w, 1);
	size_t len, n = 0;

	CHECK_OK(io_pread_full(w->inner, fd, b, SEG, 0, &len));
	(void)io_close(w->inner, fd);
	for (uint32_t size; p[7] != FRAME_SEAL; p += size) {
		const uint64_t off = (uint64_t)(p - b);

		size = (get_u32(p + 4) & 0xffffffu) * 8;
		if (off < end)
			continue;
		n++;
		if (place)
			put_u64(p + 8, (2 << SHIFT) + off);
		fmt_frame_finish(p, size, crc_seed);
		seg_write(w, (2 << SHIFT) + off, p, size);
	}
	free(b);
	return n;
}

/* Either of the two is enough to tell an old frame. The last round shows that this test would notice. */
TEST(test_recycle__place_and_salt_tell_old_frames)
{
	struct world w;
	uint64_t lsn[11];
	size_t old, n;

	make_ten(&w, lsn, &old);
	for (int k = 0; k < 4; k++) {
		struct seen s = { .count = 0 };
		struct journal_end end;

		n = adopt(&w, lsn[10] & (SEG - 1), k & 1, k & 2);
		CHECK(n > 1000);
		CHECK_OK(world_replay(&w, &s, &end));
		CHECK_UEQ(s.count, old + 11 + (k == 3 ? n : 0));
		CHECK_OK(journal_close(w.j));
		seen_release(&s);
	}
	world_release(&w);
}

/* Frames of this boot behind a gap in which there are only old bytes were acknowledged. */
TEST(test_recycle__gap_of_a_killed_writer)
{
	struct world w;
	uint64_t lsn[11];
	uint8_t behind[2048];
	size_t old, n;

	make_ten(&w, lsn, &old);
	n = (size_t)(lsn[10] - lsn[8]);
	seg_read(&w, lsn[8], behind, n);
	make_stale(&w, 1, 2, lsn[7] & (SEG - 1));
	seg_write(&w, lsn[8], behind, n);
	check_end(&w, old + 10, lsn[10], 0);
	/* Not so those of another: all behind the gap is cut, and no more is told. */
	world_boot = BOOT2;
	check_end(&w, old + 8, lsn[7], lsn[10] - lsn[7]);
	world_boot = BOOT1;
	CHECK_UEQ(world_open(&w), old + 10);
	world_close(&w);
	CHECK_UEQ(world_open(&w), old + 10);
	world_close(&w);
	world_release(&w);
}

static uint64_t found_off, found_len;

static void on_found(void *ctx, const struct emdb_detail *detail, const struct segment *s,
		     uint64_t len)
{
	(void)s;
	++*(unsigned int *)ctx;
	found_off = detail->offset;
	found_len = len;
}

/* Damage is told, and it ends where the frame does. */
TEST(test_recycle__damage)
{
	struct world w;
	uint64_t lsn[11];
	size_t old;

	make_ten(&w, lsn, &old);
	for (unsigned int k = 0; k < 5; k++) {
		struct seen s = { .count = 0 };
		struct journal_end end;
		unsigned int found = 0;

		seg_flip(&w, lsn[k] + 60);
		CHECK_EQ(world_replay(&w, &s, &end), EMDB_ERR_DAMAGED);
		CHECK_UEQ(w.detail.segment, 2);
		CHECK_UEQ(w.detail.offset, lsn[k] & (SEG - 1));
		w.cfg.salvage = true;
		w.cfg.found = on_found;
		w.cfg.found_ctx = &found;
		CHECK_OK(world_replay(&w, &s, &end));
		w.cfg.salvage = false;
		CHECK_UEQ(s.count, old + 10);
		CHECK_UEQ(found, 1);
		CHECK_UEQ(found_off, lsn[k] & (SEG - 1));
		CHECK_UEQ(found_len, lsn[k + 1] - lsn[k]);
		CHECK_OK(journal_close(w.j));
		seg_flip(&w, lsn[k] + 60);
		seen_release(&s);
	}
	world_release(&w);
}

/* The same when nothing good is behind it. The manifest knows how far all was durable. */
TEST(test_recycle__durable_end_lost)
{
	for (int lost = 0; lost < 2; lost++) {
		struct world w;
		struct seen s = { .count = 0 };
		struct journal_end end;
		unsigned int found = 0;
		uint64_t lsn[11], from;

		world_init(&w, NULL);
		w.cfg.crc_seeded = true;
		world_open(&w);
		while (put(w.j, 0, 400) >> SHIFT == 1)
			;
		for (unsigned int i = 0; i < 10; i++)
			lsn[i] = put(w.j, i, 400);
		lsn[10] = journal_tail(w.j);
		CHECK_OK(journal_checkpoint_set(w.j, 1, lsn[10]));
		world_kill(&w);
		/* Half of it came to nothing, or the last frame is damaged. */
		from = lsn[lost ? 5 : 9];
		make_stale(&w, 1, 2, lsn[lost ? 5 : 10] & (SEG - 1));
		if (!lost)
			seg_flip(&w, from + 60);
		CHECK_EQ(world_replay(&w, &s, &end), EMDB_ERR_DAMAGED);
		CHECK_UEQ(w.detail.offset, from & (SEG - 1));
		w.cfg.salvage = true;
		w.cfg.found = on_found;
		w.cfg.found_ctx = &found;
		CHECK_OK(world_replay(&w, &s, &end));
		CHECK_UEQ(found, 1);
		CHECK_UEQ(found_off, from & (SEG - 1));
		CHECK_UEQ(found_len, lsn[10] - from);
		CHECK_OK(journal_close(w.j));
		seen_release(&s);
		world_release(&w);
	}
}

/* ---- Making them ------------------------------------------------------ */

#define BIG 120000u /* eight to a segment */

static uint64_t recycled(struct world *w)
{
	struct journal_stats st;

	journal_stats_get(w->j, &st);
	return st.recycled;
}

static void begin(struct world *w)
{
	world_init(w, NULL);
	w->cfg.crc_seeded = true;
	world_open(w);
}

/* Fills the segment that is written to, from number n; the next number. The last one is in the next segment. */
static uint64_t fill_one(struct world *w, uint64_t n)
{
	const uint64_t id = journal_tail(w->j) >> SHIFT;

	while (put(w->j, n++, BIG) >> SHIFT == id)
		;
	return n;
}

static void retire(struct world *w, uint64_t id)
{
	CHECK_OK(journal_seal(w->j));
	CHECK_OK(journal_retire(w->j, &id, 1));
}

static bool is_there(struct world *w, const char *name)
{
	char path[64];
	struct io_stat st;

	snprintf(path, sizeof(path), JOURNAL_DIR "/%s", name);
	return io_fstatat(w->inner, w->dirfd, path, &st) == 0;
}

static bool is_kept(struct world *w, uint64_t id)
{
	char name[SEGMENT_NAME_SIZE];

	segment_dead_name(id, name);
	return is_there(w, name);
}

TEST(test_recycle__the_next_segment)
{
	struct world w;
	struct seen s = { .count = 0 };
	struct journal_end end;
	uint64_t first[12] = { 0 }, n = 0, id;

	begin(&w);
	for (id = 1; id < 11; id++) {
		n = fill_one(&w, n);
		first[id + 1] = n - 1;
		if (id > 1)
			retire(&w, id - 1);
	}
	CHECK(recycled(&w) >= 4);
	CHECK_UEQ(get(w.j, &w.ep, (id << SHIFT) + FMT_SEG_HEADER), n - 1);
	/* A killed process leaves files that are none of the next one's. */
	world_kill(&w);
	for (int boot = 0; boot < 2; boot++) {
		world_boot = boot ? BOOT2 : BOOT1;
		CHECK_OK(world_replay(&w, &s, &end));
		CHECK_UEQ(s.count, n - first[10]);
		CHECK_UEQ(s.n[0], first[10]);
		CHECK_UEQ(end.torn_bytes, 0);
		CHECK_OK(journal_close(w.j));
	}
	(void)world_open(&w);
	n = fill_one(&w, n);
	retire(&w, 10);
	world_close(&w);
	/* At rest nothing is kept. */
	CHECK_UEQ(world_files(&w), 3);
	CHECK_UEQ(world_open(&w), n - first[11]);
	world_close(&w);
	seen_release(&s);
	world_release(&w);
}

TEST(test_recycle__which_files)
{
	struct world w;
	struct segment *held;
	struct rec r;
	char name[SEGMENT_NAME_SIZE];
	uint64_t n = 0, lsn;
	unsigned int pin;

	begin(&w);
	for (uint64_t id = 1; id < 9; id++)
		n = fill_one(&w, n);
	CHECK_UEQ(recycled(&w), 0);
	/* A backup may read it by another name, also when that is gone again. */
	CHECK_OK(journal_seal(w.j));
	journal_pin_retire(w.j);
	journal_unpin_retire(w.j);
	retire(&w, 1);
	CHECK(!is_kept(&w, 1));
	for (uint64_t id = 9; id < 14; id++)
		n = fill_one(&w, n);
	/* Somebody has a reference. */
	lsn = (UINT64_C(10) << SHIFT) + FMT_SEG_HEADER;
	pin = epoch_pin(&w.ep);
	CHECK_OK(journal_rec_pinned(w.j, lsn, &r, &held));
	segment_ref(held);
	epoch_unpin(&w.ep, pin);
	retire(&w, 10);
	CHECK(is_kept(&w, 10));
	n = fill_one(&w, fill_one(&w, n));
	CHECK(is_kept(&w, 10));
	CHECK_UEQ(recycled(&w), 0);
	CHECK_OK(segment_rec(held, lsn, EMDB_VERIFY_ALWAYS, &r));
	segment_unref(held);
	n = fill_one(&w, fill_one(&w, n));
	CHECK(!is_kept(&w, 10));
	CHECK_UEQ(recycled(&w), 1);
	/* Somebody gave it another name. */
	segment_name(11, name);
	CHECK_OK(io_linkat(w.inner, w.j->env.dirfd, name, w.dirfd, "mine"));
	retire(&w, 11);
	CHECK(is_kept(&w, 11));
	n = fill_one(&w, fill_one(&w, n));
	CHECK(!is_kept(&w, 11));
	CHECK_UEQ(recycled(&w), 1);
	world_close(&w);
	/* Nor one of an open before. */
	(void)world_open(&w);
	retire(&w, 12);
	CHECK(!is_kept(&w, 12));
	world_close(&w);
	/* Nor in a store whose CRCs do not tell. */
	world_release(&w);
	world_init(&w, NULL);
	world_open(&w);
	(void)fill_one(&w, fill_one(&w, 0));
	retire(&w, 1);
	CHECK(!is_kept(&w, 1));
	world_close(&w);
	world_release(&w);
}

static _Atomic(uint64_t) later_ns;

static uint64_t later(struct emdb_io *io)
{
	struct timespec ts;

	(void)io;
	CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec + later_ns;
}

TEST(test_recycle__given_back)
{
	struct world w;
	struct journal_stats before, after;
	uint64_t n = 0;

	world_init(&w, NULL);
	w.cfg.crc_seeded = true;
	w.ops.clock_mono_ns = later;
	world_open(&w);
	for (uint64_t id = 1; id < 7; id++)
		n = fill_one(&w, n);
	CHECK_OK(journal_seal(w.j));
	journal_stats_get(w.j, &before);
	retire(&w, 1);
	CHECK(is_kept(&w, 1));
	journal_stats_get(w.j, &after);
	CHECK(after.preallocated_bytes >= before.preallocated_bytes + 7 * (uint64_t)BIG);
	/* No more than there are segments. */
	for (uint64_t id = 2; id < 6; id++)
		retire(&w, id);
	CHECK(is_kept(&w, 2) && is_kept(&w, 3) && !is_kept(&w, 4) && !is_kept(&w, 5));
	journal_give_back(w.j);
	CHECK(!is_kept(&w, 1) && !is_kept(&w, 2));
	/* When nothing is written for a while. */
	retire(&w, 6);
	CHECK(is_kept(&w, 6));
	keeper_kick(w.j);
	usleep(10000);
	CHECK(is_kept(&w, 6));
	later_ns = UINT64_C(11000000000);
	for (int i = 0; i < 3000 && is_kept(&w, 6); i++) {
		keeper_kick(w.j);
		usleep(1000);
	}
	CHECK(!is_kept(&w, 6));
	world_close(&w);
	world_release(&w);
}

/* ---- A death at every step -------------------------------------------- */

#define FRAMES 56

struct told {
	uint64_t acked[FRAMES]; /* LSN; 0: not acknowledged */
	uint64_t gone;          /* segments up to this one are gone, or may be */
	uint64_t recycled;
};

static void work(struct world *w, struct told *t)
{
	struct seen s = { .count = 0 };
	struct journal_end end;

	memset(t, 0, sizeof(*t));
	if (world_replay(w, &s, &end))
		return;
	seen_release(&s);
	if (journal_start(w->j)) {
		(void)!journal_close(w->j);
		return;
	}
	for (uint64_t n = 0; n < FRAMES; n++) {
		uint64_t lsn = 0, id;

		if (put_flags(w->j, n, n % 5 ? BIG : 3000, 0, &lsn))
			continue;
		t->acked[n] = lsn;
		id = lsn >> SHIFT;
		if (id < 3 || id - 2 <= t->gone)
			continue;
		(void)!journal_seal(w->j);
		id -= 2;
		/* INVAL: not sealed, nothing was done. */
		if (journal_retire(w->j, &id, 1) != EMDB_ERR_INVAL)
			t->gone = id;
	}
	t->recycled = recycled(w);
	(void)!journal_close(w->j);
}

static void check_told(struct world *w, const struct told *t)
{
	struct seen s = { .count = 0 };
	struct journal_end end;
	size_t at = 0;

	w->cfg.create = false;
	if (world_replay(w, &s, &end)) {
		w->cfg.create = true;
		CHECK_OK(world_replay(w, &s, &end));
	}
	CHECK_UEQ(end.torn_bytes, 0);
	for (uint64_t n = 0; n < FRAMES; n++) {
		while (at < s.count && s.n[at] < n)
			at++;
		if (!t->acked[n])
			continue;
		if (at == s.count || s.n[at] != n)
			CHECK(t->acked[n] >> SHIFT <= t->gone);
		else
			CHECK_UEQ(s.lsn[at], t->acked[n]);
	}
	CHECK_OK(journal_start(w->j));
	CHECK(!w->j->dead);
	for (uint64_t id = 1; id < 20; id++)
		CHECK(!is_kept(w, id));
	put(w->j, 100, 10);
	world_close(w);
	seen_release(&s);
}

static uint64_t fault_loop(uint64_t mask, bool sticky, int err)
{
	uint64_t nth, hits = 1, most = 0;

	for (nth = 1; hits; nth += STRIDE) {
		struct world w;
		struct told t;

		world_init(&w, NULL);
		w.cfg.crc_seeded = true;
		world_fault(&w, mask, nth, sticky, err);
		work(&w, &t);
		hits = w.hits;
		world_fault(&w, 0, 0, false, 0);
		most = max_u64(most, t.recycled);
		check_told(&w, &t);
		world_release(&w);
	}
	return most;
}

TEST(test_recycle__killed_at_each_change)
{
	CHECK(fault_loop(IO_MASK_CHANGE, true, -EIO) > 1);
}

TEST(test_recycle__each_call_fails_once)
{
	CHECK(fault_loop(IO_MASK_ALL & ~IO_MASK(IO_OP_CLOSE), false, -EIO) > 1);
}

TEST(test_recycle__no_room_once)
{
	CHECK(fault_loop(IO_MASK_CHANGE, false, -ENOSPC) > 1);
}

TEST_MAIN()
