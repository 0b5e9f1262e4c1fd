/* SPDX-License-Identifier: Apache-2.0 */
/* Segments in the files of dead ones: what recovery makes of the old frames behind the new. */
#include "tests/unit/journal_help.h"

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

TEST_MAIN()
