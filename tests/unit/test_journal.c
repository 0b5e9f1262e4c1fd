/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/resource.h>

#include "tests/unit/journal_help.h"

static emdb_err nothing(void *ctx, struct segment *seg, const struct frame *f)
{
	(void)seg, (void)f;
	++*(uint64_t *)ctx;
	return EMDB_OK;
}

/* ---- Appending, reading, rolling -------------------------------------- */

TEST(test_journal__append_read_reopen)
{
	for (int posix = 0; posix < 2; posix++) {
		struct world w;
		uint64_t lsn[500];

		world_init(&w, posix ? test_dir() : NULL);
		CHECK_UEQ(world_open(&w), 0);
		for (unsigned int i = 0; i < 500; i++)
			lsn[i] = put(w.j, i, i * 37 % 9000);
		for (unsigned int i = 0; i < 500; i++)
			CHECK_UEQ(get(w.j, &w.ep, lsn[i]), i);
		CHECK_OK(journal_sync(w.j));
		CHECK_UEQ(journal_durable(w.j), journal_tail(w.j));
		world_close(&w);
		CHECK_UEQ(world_open(&w), 500);
		for (unsigned int i = 0; i < 500; i++)
			CHECK_UEQ(get(w.j, &w.ep, lsn[i]), i);
		put(w.j, 500, 10);
		world_kill(&w);
		CHECK_UEQ(world_open(&w), 501);
		world_close(&w);
		world_release(&w);
	}
}

TEST(test_journal__rolls_and_seals)
{
	struct journal_seg_info info[64];
	struct journal_stats st;
	struct journal_end end;
	struct world w;
	struct seen s = { .count = 0 };
	uint64_t seed = test_seed(), before, after, frames = 0;
	size_t n;

	world_init(&w, NULL);
	world_open(&w);
	for (unsigned int i = 0; i < 400; i++)
		put(w.j, i, test_rand(&seed) % 60000);
	CHECK_OK(journal_seal(w.j));
	n = journal_segments(w.j, info, ARRAY_SIZE(info));
	CHECK(n >= 10 && n < ARRAY_SIZE(info));
	for (size_t i = 0; i < n; i++) {
		CHECK_EQ(info[i].sealed, i + 1 < n);
		CHECK(info[i].len <= 1u << SHIFT && info[i].len > (1u << SHIFT) / 2 * (i + 1 < n));
	}
	CHECK_OK(journal_walk_segment(w.j, info[0].id, nothing, &frames));
	CHECK(frames > 10);
	CHECK_EQ(journal_walk_segment(w.j, info[n - 1].id, nothing, &frames), EMDB_ERR_INVAL);
	/* A roll by hand; a second one with nothing in between does nothing. */
	before = journal_tail(w.j);
	CHECK_OK(journal_roll(w.j, &after));
	CHECK(after > before && after == journal_tail(w.j));
	CHECK_OK(journal_roll(w.j, &before));
	CHECK_UEQ(before, after);
	put(w.j, 400, 1);
	journal_stats_get(w.j, &st);
	CHECK_UEQ(st.appends, 401);
	CHECK_UEQ(st.segments, n + 1);
	CHECK(st.preallocated_bytes > 0 && !st.low_space);
	world_kill(&w);
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 401);
	for (uint64_t i = 0; i < s.count; i++)
		CHECK_UEQ(s.n[i], i);
	CHECK_UEQ(end.reason, FRAME_END);
	CHECK_UEQ(end.torn_bytes, 0);
	CHECK_OK(journal_start(w.j));
	CHECK_UEQ(journal_oldest(w.j), UINT64_C(1) << SHIFT);
	world_close(&w);
	/* Everything is sealed and trimmed, no spare is left. */
	CHECK_UEQ(world_files(&w), n + 1);
	CHECK_UEQ(world_open(&w), 401);
	journal_stats_get(w.j, &st);
	CHECK_UEQ(st.preallocated_bytes, (1u << SHIFT) - FMT_SEG_HEADER);
	world_close(&w);
	seen_release(&s);
	world_release(&w);
}

TEST(test_journal__replay_from)
{
	struct world w;
	uint64_t lsn[300];

	world_init(&w, NULL);
	world_open(&w);
	for (unsigned int i = 0; i < 300; i++)
		lsn[i] = put(w.j, i, 20000);
	world_kill(&w);
	for (unsigned int i = 0; i < 300; i += 7 * STRIDE) {
		struct seen s = { .count = 0 };
		struct journal_end end;

		CHECK_OK(journal_open(&w.cfg, &w.j));
		CHECK_OK(journal_replay(w.j, lsn[i], seen_frame, &s, &end));
		CHECK_UEQ(s.count, 300 - i);
		CHECK_UEQ(s.n[0], i);
		CHECK_UEQ(get(w.j, &w.ep, lsn[i / 2]), i / 2);
		CHECK_OK(journal_close(w.j));
		seen_release(&s);
	}
	world_release(&w);
}

TEST(test_journal__sizes)
{
	struct world w;
	struct iovec big[40];
	uint8_t *const bytes = malloc(1u << SHIFT);
	uint64_t lsn;
	size_t max;

	world_init(&w, NULL);
	world_open(&w);
	max = journal_payload_max(w.j);
	CHECK(max > (1u << SHIFT) - 400 && max % 8 == 4);
	memset(bytes, 0, 1u << SHIFT);
	big[0] = (struct iovec){ bytes, max + 1 };
	CHECK_EQ(journal_append(w.j, REC_PUT, big, 1, 0, &lsn), EMDB_ERR_TXN_TOO_BIG);
	big[0].iov_len = SIZE_MAX;
	big[1] = (struct iovec){ bytes, 10 };
	CHECK_EQ(journal_append(w.j, REC_PUT, big, 2, 0, &lsn), EMDB_ERR_TXN_TOO_BIG);
	/*
	 * The largest value that still fits with its fields, and around the border of small
	 * frames.
	 */
	get(w.j, &w.ep, put(w.j, 1, max - 20));
	get(w.j, &w.ep, put(w.j, 2, max - 20));
	for (size_t n = 4000; n < 4200; n++)
		CHECK_UEQ(get(w.j, &w.ep, put(w.j, n, n)), n);
	/* Many pieces. */
	for (size_t len = 100; len < 100000; len = len * 5 + 3) {
		const size_t size = rec_make(len, len, bytes);

		for (size_t i = 0; i < 40; i++)
			big[i] = (struct iovec){ bytes + size * i / 40,
						 size * (i + 1) / 40 - size * i / 40 };
		CHECK_OK(journal_append(w.j, REC_PUT, big, 40, 0, &lsn));
		CHECK_UEQ(get(w.j, &w.ep, lsn), len);
	}
	world_close(&w);
	world_open(&w);
	world_close(&w);
	free(bytes);
	world_release(&w);
}

/* Appends count records as one batch; refs are filled in. */
static uint64_t put_batch(struct journal *j, uint64_t first, uint32_t count, uint64_t *refs)
{
	uint8_t *const b = calloc(1, 64 + count * 600u);
	size_t at = 4; /* behind the frame header */
	uint64_t lsn;
	struct iovec iov;

	put_u32(b, count);
	for (uint32_t i = 0; i < count; i++) {
		const size_t n = rec_make(first + i, i * 13 % 200, b + at + FMT_BATCH_PREFIX);
		const uint32_t len = (uint32_t)align_up(FMT_BATCH_PREFIX + n, 8);

		put_u32(b + at, len / 8 | (uint32_t)REC_PUT << 24);
		put_u32(b + at + 4, (uint32_t)(at + FMT_FRAME_HEADER) / 8);
		refs[i] = at + FMT_FRAME_HEADER;
		at += len;
	}
	iov = (struct iovec){ b, at };
	CHECK_OK(journal_append(j, FRAME_BATCH, &iov, 1, 0, &lsn));
	for (uint32_t i = 0; i < count; i++)
		refs[i] = (lsn + refs[i]) | REF_BATCH;
	free(b);
	return lsn;
}

TEST(test_journal__batches)
{
	for (int verify = EMDB_VERIFY_FIRST; verify <= EMDB_VERIFY_NEVER; verify++) {
		struct world w;
		uint64_t refs[300], lsn;
		struct frame f;
		struct rec r;
		unsigned int pin;

		world_init(&w, NULL);
		w.cfg.verify = (enum emdb_verify)verify;
		world_open(&w);
		put(w.j, 1, 100);
		lsn = put_batch(w.j, 1000, 300, refs);
		for (int turn = 0; turn < 2; turn++)
			for (unsigned int i = 0; i < 300; i++)
				CHECK_UEQ(get(w.j, &w.ep, refs[i]), 1000 + i);
		pin = epoch_pin(&w.ep);
		CHECK_OK(journal_frame_of_pinned(w.j, refs[77], &f, NULL));
		CHECK_UEQ(f.lsn, lsn);
		CHECK_EQ(f.kind, FRAME_BATCH);
		/* The batch itself is no record; a record of it needs its bit. */
		CHECK_EQ(journal_rec_pinned(w.j, lsn, &r, NULL), EMDB_ERR_CORRUPT);
		CHECK_EQ(journal_rec_pinned(w.j, refs[3] & ~REF_BATCH, &r, NULL), EMDB_ERR_CORRUPT);
		epoch_unpin(&w.ep, pin);
		lsn = put_batch(w.j, 5000, 300, refs);
		seg_flip(&w, lsn + 5000);
		pin = epoch_pin(&w.ep);
		/* Far from the damage, yet in its frame: only verification can tell. */
		CHECK_EQ(journal_rec_pinned(w.j, refs[0], &r, NULL),
			 verify == EMDB_VERIFY_NEVER ? EMDB_OK : EMDB_ERR_CORRUPT);
		epoch_unpin(&w.ep, pin);
		world_close(&w);
		world_release(&w);
	}
}

/* The sanitizers fault pages of their own in. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED (STRIDE != 1)
#endif

/* Page faults of this process that needed no disk. */
static long faults(void)
{
	struct rusage r;

	CHECK_OK(getrusage(RUSAGE_SELF, &r));
	return r.ru_minflt;
}

/* What is written and read at once, as by who creates a file and writes to it, faults no page in for each. */
TEST(test_journal__no_fault_for_every_frame)
{
	enum { FRAMES = 180 }; /* in one segment, with the first ones */
	struct world w;
	uint64_t lsn;
	long before;

	world_init(&w, test_dir());
	world_open(&w);
	for (unsigned int i = 0; i < 20; i++) /* what is only needed once */
		CHECK_UEQ(get(w.j, &w.ep, put(w.j, i, 5000)), i);
	before = faults();
	for (unsigned int i = 0; i < FRAMES; i++) {
		lsn = put(w.j, i, 5000);
		CHECK_UEQ(get(w.j, &w.ep, lsn), i);
	}
	CHECK(SANITIZED || faults() - before <= FRAMES / 2);
	world_close(&w);
	world_release(&w);
}

TEST(test_journal__hostile_refs)
{
	struct world w;
	uint64_t seed = test_seed(), lsn[50];
	struct frame f;
	struct rec r;
	unsigned int pin;

	world_init(&w, NULL);
	world_open(&w);
	for (unsigned int i = 0; i < 50; i++)
		lsn[i] = put(w.j, i, 300);
	pin = epoch_pin(&w.ep);
	for (int i = 0; i < 20000; i++) {
		uint64_t ref = lsn[test_rand(&seed) % 50] + test_rand(&seed) % 64 * 8;
		emdb_err err;

		if (i % 3 == 0)
			ref = test_rand(&seed) >> (test_rand(&seed) % 64);
		if (i % 2)
			ref |= REF_BATCH;
		err = journal_rec_pinned(w.j, ref, &r, NULL);
		CHECK(err == EMDB_ERR_CORRUPT || !err);
		err = journal_frame_of_pinned(w.j, ref, &f, NULL);
		CHECK(err == EMDB_ERR_CORRUPT || !err);
	}
	epoch_unpin(&w.ep, pin);
	world_close(&w);
	world_release(&w);
}

TEST(test_journal__verify)
{
	static const struct {
		enum emdb_verify verify;
		emdb_err before, after; /* damaged before the first read, after it */
	} rows[] = {
		{ EMDB_VERIFY_FIRST, EMDB_ERR_CORRUPT, EMDB_OK },
		{ EMDB_VERIFY_ALWAYS, EMDB_ERR_CORRUPT, EMDB_ERR_CORRUPT },
		{ EMDB_VERIFY_NEVER, EMDB_OK, EMDB_OK },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct world w;
		uint64_t a, b;
		unsigned int pin;
		struct rec r;

		world_init(&w, NULL);
		w.cfg.verify = rows[i].verify;
		world_open(&w);
		a = put(w.j, 1, 500);
		b = put(w.j, 2, 500);
		get(w.j, &w.ep, b);
		seg_flip(&w, a + 300);
		seg_flip(&w, b + 300);
		pin = epoch_pin(&w.ep);
		CHECK_EQ(journal_rec_pinned(w.j, a, &r, NULL), rows[i].before);
		CHECK_EQ(journal_rec_pinned(w.j, b, &r, NULL), rows[i].after);
		epoch_unpin(&w.ep, pin);
		world_close(&w);
		world_release(&w);
	}
}

TEST(test_journal__file_cut_under_readers)
{
	struct world w;
	uint64_t lsn;
	unsigned int pin;
	struct rec r;
	struct iovec iov;

	world_init(&w, test_dir());
	world_open(&w);
	for (uint64_t i = 0; i < 40; i++)
		put(w.j, i, 9000);
	lsn = put(w.j, 40, 9000);
	seg_cut(&w, lsn >> SHIFT, 8192);
	pin = epoch_pin(&w.ep);
	CHECK_EQ(journal_rec_pinned(w.j, lsn, &r, NULL), EMDB_ERR_IO);
	CHECK_EQ(journal_rec_pinned(w.j, lsn, &r, NULL), EMDB_ERR_IO);
	/* Bytes to append that cannot be read: refused before anything is reserved. */
	for (size_t n = 100; n < 100000; n *= 10) {
		const uint64_t tail = journal_tail(w.j);
		const struct segment *const s = journal_segment_pinned(w.j, lsn);
		uintptr_t at = (uintptr_t)s->map + 65536;

		memcpy(&iov.iov_base, &at, sizeof(at));
		iov.iov_len = n;
		CHECK_EQ(journal_append(w.j, REC_PUT, &iov, 1, 0, &lsn), EMDB_ERR_IO);
		CHECK_UEQ(journal_tail(w.j), tail);
		CHECK(!journal_failed(w.j));
		lsn = journal_tail(w.j) - 8;
	}
	epoch_unpin(&w.ep, pin);
	world_close(&w);
	world_release(&w);
}

/* ---- The end of the log ----------------------------------------------- */

/* Five durable frames and a sixth that says so; lsn[6] is the tail. */
static void make_six(struct world *w, uint64_t lsn[7])
{
	world_init(w, NULL);
	world_open(w);
	for (unsigned int i = 0; i < 5; i++)
		lsn[i] = put(w->j, i, 60 + i);
	CHECK_OK(journal_sync(w->j));
	lsn[5] = put(w->j, 5, 70);
	lsn[6] = journal_tail(w->j);
	world_kill(w);
}

/* A digest of all files in one call of sixteen, else 0: it takes most of the time. */
static uint32_t now_and_then(struct world *w)
{
	static unsigned int calls;

	return calls++ % 16 ? 0 : world_digest(w);
}

/* What a replay finds that must end quietly, without a change on disk. */
static void check_cut(struct world *w, uint64_t frames, uint64_t lsn)
{
	const uint32_t digest = now_and_then(w);
	struct seen s = { .count = 0 };
	struct journal_end end;

	CHECK_EQ(world_replay(w, &s, &end), EMDB_OK);
	CHECK_UEQ(s.count, frames);
	CHECK_UEQ(end.frames, frames);
	CHECK_UEQ(end.lsn, lsn);
	CHECK_OK(journal_close(w->j));
	CHECK(!digest || world_digest(w) == digest);
	seen_release(&s);
}

static void check_damaged(struct world *w, uint64_t lsn)
{
	const uint32_t digest = now_and_then(w);
	struct seen s = { .count = 0 };
	struct journal_end end;

	CHECK_EQ(world_replay(w, &s, &end), EMDB_ERR_DAMAGED);
	CHECK_UEQ(w->detail.segment, lsn >> SHIFT);
	CHECK_UEQ(w->detail.offset, lsn & ((1u << SHIFT) - 1));
	CHECK(strstr(w->detail.text, "journal/0000000000000001.seg"));
	CHECK(!digest || world_digest(w) == digest);
	seen_release(&s);
}

TEST(test_journal__torn_tail_at_every_byte)
{
	struct world w;
	uint64_t lsn[7];
	uint8_t frame[512];
	struct journal_end end;
	struct seen s = { .count = 0 };
	size_t n;

	make_six(&w, lsn);
	n = (size_t)(lsn[6] - lsn[5]);
	seg_read(&w, lsn[5], frame, n);
	for (int boot = 0; boot < 2; boot++) {
		world_boot = boot ? BOOT2 : BOOT1;
		for (size_t i = 0; i < n; i += STRIDE) {
			seg_flip(&w, lsn[5] + i);
			/*
			 * A flipped length field can make it a different kind of stop, never a
			 * frame.
			 */
			check_cut(&w, 5, lsn[5]);
			seg_flip(&w, lsn[5] + i);
			/* Only a beginning was written. */
			seg_zero(&w, lsn[5] + i, n - i);
			if (i < n - 8) /* what is zero anyway does not count */
				check_cut(&w, 5, lsn[5]);
			seg_write(&w, lsn[5], frame, n);
			/* Only the end. */
			seg_zero(&w, lsn[5], i + 1);
			check_cut(&w, 5, lsn[5]);
			seg_write(&w, lsn[5], frame, n);
			/* The file is shorter. */
			seg_cut(&w, 1, (lsn[5] & ((1u << SHIFT) - 1)) + i);
			check_cut(&w, 5, lsn[5]);
			seg_cut(&w, 1, 1u << SHIFT);
			seg_write(&w, lsn[5], frame, n);
		}
		check_cut(&w, 6, lsn[6]);
	}
	/* What is cut stays cut, and the LSNs go on in a new segment. */
	seg_flip(&w, lsn[5] + 30);
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_EQ(end.reason, FRAME_BAD_CRC);
	CHECK(end.torn_bytes > n - 8 && end.torn_bytes <= n);
	CHECK_OK(journal_start(w.j));
	CHECK(put(w.j, 6, 10) >> SHIFT > 1);
	world_kill(&w);
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 6);
	CHECK_UEQ(s.n[4], 4);
	CHECK_UEQ(s.n[5], 6);
	CHECK_OK(journal_close(w.j));
	seen_release(&s);
	world_release(&w);
}

TEST(test_journal__stop_reasons)
{
	static const uint8_t junk[24] = "this is no frame header";
	struct world w;
	uint64_t lsn[7];
	uint8_t frame[512];
	struct journal_end end;
	struct seen s = { .count = 0 };
	size_t n;

	make_six(&w, lsn);
	n = (size_t)(lsn[6] - lsn[5]);
	seg_read(&w, lsn[5], frame, n);
	for (int i = 0; i < 5; i++) {
		static const enum frame_status want[] = { FRAME_END, FRAME_BAD_CRC, FRAME_BAD_KIND,
							  FRAME_BAD_LENGTH, FRAME_STALE };
		uint8_t b[512];

		memcpy(b, frame, n);
		if (i == 0)
			memset(b, 0, n);
		if (i == 1)
			b[50] ^= 1;
		if (i == 2)
			memcpy(b, junk, sizeof(junk));
		if (i == 3)
			put_u32(b + 4, 1u | (uint32_t)REC_PUT << 24);
		if (i == 4)
			put_u64(b + 8, lsn[4]);
		seg_write(&w, lsn[5], b, n);
		CHECK_OK(world_replay(&w, &s, &end));
		CHECK_EQ(end.reason, want[i]);
		CHECK_UEQ(s.count, 5);
		CHECK_OK(journal_close(w.j));
		seg_write(&w, lsn[5], frame, n);
	}
	seen_release(&s);
	world_release(&w);
}

TEST(test_journal__damage_below_durable_at_every_byte)
{
	struct world w;
	uint64_t lsn[7];

	make_six(&w, lsn);
	for (int boot = 0; boot < 2; boot++) {
		world_boot = boot ? BOOT2 : BOOT1;
		for (unsigned int k = 0; k < 5; k += 2) {
			for (uint64_t at = lsn[k]; at < lsn[k + 1]; at += STRIDE) {
				seg_flip(&w, at);
				check_damaged(&w, lsn[k]);
				seg_flip(&w, at);
			}
		}
		check_cut(&w, 6, lsn[6]);
		seg_cut(&w, 1, lsn[3] & ((1u << SHIFT) - 1));
		seg_cut(&w, 1, 1u << SHIFT);
		/* All marks in frames are gone as well: only a torn tail can be seen. */
		check_cut(&w, 3, lsn[3]);
		world_release(&w);
		make_six(&w, lsn);
	}
	world_release(&w);
}

TEST(test_journal__damage_in_sealed_segments)
{
	struct world w;
	uint64_t lsn[7];
	struct buf manifest = BUF_INIT;

	make_six(&w, lsn);
	world_open(&w);
	world_close(&w);
	for (uint64_t at = lsn[0]; at < lsn[6]; at += 2 + STRIDE) {
		unsigned int k = 0;

		while (lsn[k + 1] <= at)
			k++;
		seg_flip(&w, at);
		check_damaged(&w, lsn[k]);
		seg_flip(&w, at);
	}
	/* The header: the whole segment is foreign. */
	for (uint64_t at = 0; at < FMT_SEG_HEADER; at++) {
		const uint64_t first = UINT64_C(1) << SHIFT;

		seg_flip(&w, first + at);
		CHECK_EQ(journal_open(&w.cfg, &w.j), EMDB_ERR_DAMAGED);
		CHECK_UEQ(w.detail.segment, 1);
		seg_flip(&w, first + at);
	}
	/* Every byte of the manifest. */
	CHECK_OK(io_read_file(w.inner, w.dirfd, MANIFEST_NAME, 4096, &manifest));
	for (size_t i = 0; i < manifest.len; i++) {
		emdb_err err;

		manifest.data[i] ^= 0x40;
		CHECK_OK(io_replace_durably(w.inner, w.dirfd, MANIFEST_NAME, manifest.data,
					    manifest.len));
		err = journal_open(&w.cfg, &w.j);
		CHECK(err == EMDB_ERR_DAMAGED || err == EMDB_ERR_VERSION);
		manifest.data[i] ^= 0x40;
	}
	CHECK_OK(io_replace_durably(w.inner, w.dirfd, MANIFEST_NAME, manifest.data, manifest.len));
	check_cut(&w, 6, lsn[6]);
	/* Shorter, missing, no manifest at all. */
	seg_cut(&w, 1, (lsn[6] & ((1u << SHIFT) - 1)) - 1);
	CHECK_EQ(journal_open(&w.cfg, &w.j), EMDB_ERR_DAMAGED);
	CHECK(strstr(w.detail.text, "shorter"));
	CHECK_OK(io_unlinkat(w.inner, w.dirfd, JOURNAL_DIR "/0000000000000001.seg", 0));
	CHECK_EQ(journal_open(&w.cfg, &w.j), EMDB_ERR_DAMAGED);
	CHECK(strstr(w.detail.text, "missing"));
	CHECK_OK(io_unlinkat(w.inner, w.dirfd, MANIFEST_NAME, 0));
	CHECK_EQ(journal_open(&w.cfg, &w.j), EMDB_ERR_DAMAGED);
	CHECK(strstr(w.detail.text, "manifest"));
	buf_release(&manifest);
	world_release(&w);
}

TEST(test_journal__salvage)
{
	struct world w;
	uint64_t lsn[7];
	struct journal_end end;
	struct seen s = { .count = 0 };

	make_six(&w, lsn);
	world_open(&w);
	put(w.j, 6, 10);
	CHECK_OK(journal_sync(w.j));
	put(w.j, 7, 10);
	world_kill(&w);
	seg_flip(&w, lsn[2] + 25);
	seg_flip(&w, lsn[3] + 4); /* a length */
	w.cfg.salvage = w.cfg.read_only = true;
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 6);
	CHECK_UEQ(end.damages, 1);
	CHECK_UEQ(end.skipped_bytes, lsn[4] - lsn[2]);
	CHECK_EQ(journal_start(w.j), EMDB_ERR_READ_ONLY);
	CHECK_OK(journal_close(w.j));
	/* Repaired, what is lost becomes gaps, and the next open is an ordinary one; not before. */
	w.cfg.read_only = false;
	w.cfg.repair = true;
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_OK(journal_start(w.j));
	world_close(&w);
	w.cfg.salvage = w.cfg.repair = false;
	CHECK_EQ(world_replay(&w, &s, &end), EMDB_ERR_DAMAGED);
	CHECK_OK(journal_close(w.j));
	w.cfg.salvage = w.cfg.repair = true;
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_OK(journal_start(w.j));
	CHECK_OK(journal_repaired(w.j));
	world_close(&w);
	w.cfg.salvage = w.cfg.repair = false;
	CHECK_UEQ(world_open(&w), 6);
	world_close(&w);
	/* A whole segment is lost. */
	CHECK_OK(io_unlinkat(w.inner, w.dirfd, JOURNAL_DIR "/0000000000000001.seg", 0));
	w.cfg.salvage = w.cfg.repair = true;
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 2);
	CHECK_UEQ(s.n[0], 6);
	CHECK_UEQ(end.damages, 1);
	CHECK_OK(journal_start(w.j));
	CHECK_OK(journal_repaired(w.j));
	world_close(&w);
	w.cfg.salvage = w.cfg.repair = false;
	CHECK_UEQ(world_open(&w), 2);
	world_close(&w);
	seen_release(&s);
	world_release(&w);
}

/* ---- Gaps ------------------------------------------------------------- */

TEST(test_journal__gap_of_a_killed_writer)
{
	for (int how = 0; how < 4; how++) {
		struct world w;
		uint64_t lsn[8];
		struct journal_end end;
		struct seen s = { .count = 0 };

		world_init(&w, NULL);
		world_open(&w);
		for (unsigned int i = 0; i < 8; i++)
			lsn[i] = put(w.j, i, 100);
		world_kill(&w);
		/* Two gaps: never written at all, written up to some byte. */
		seg_zero(&w, lsn[2], (size_t)(lsn[3] - lsn[2]));
		seg_zero(&w, lsn[5] + 7 * (unsigned int)how,
			 (size_t)(lsn[6] - lsn[5]) - 7 * (unsigned int)how);
		world_boot = BOOT2;
		check_cut(&w, 2, lsn[2]);
		world_boot = "";
		check_cut(&w, 2, lsn[2]);
		world_boot = BOOT1;
		CHECK_OK(world_replay(&w, &s, &end));
		CHECK_UEQ(s.count, 6);
		CHECK_UEQ(s.n[2], 3);
		CHECK_UEQ(s.n[4], 6);
		CHECK_OK(journal_start(w.j));
		world_close(&w);
		/* Sealed now, with two gaps: good in any boot. */
		world_boot = BOOT2;
		CHECK_UEQ(world_open(&w), 6);
		{
			uint64_t frames = 0;

			CHECK_OK(journal_walk_segment(w.j, 1, nothing, &frames));
			CHECK_UEQ(frames, 6);
		}
		CHECK_UEQ(get(w.j, &w.ep, lsn[7]), 7);
		world_close(&w);
		seen_release(&s);
		world_release(&w);
	}
}

TEST(test_journal__gap_below_durable_is_damage)
{
	struct world w;
	uint64_t lsn[7];

	make_six(&w, lsn);
	seg_zero(&w, lsn[2], (size_t)(lsn[3] - lsn[2]));
	check_damaged(&w, lsn[2]);
	world_release(&w);
}

TEST(test_journal__gap_at_a_segments_end)
{
	struct world w;
	uint64_t lsn[4], next;
	struct journal_end end;
	struct seen s = { .count = 0 };

	world_init(&w, NULL);
	world_open(&w);
	lsn[0] = put(w.j, 0, 100);
	lsn[1] = put(w.j, 1, 100);
	sync_exclude(w.j); /* keeps the keeper from sealing it */
	CHECK_OK(journal_roll(w.j, &next));
	lsn[2] = put(w.j, 2, 100);
	lsn[3] = put(w.j, 3, 100);
	w.dead = true;
	sync_admit(w.j);
	world_kill(&w);
	/* The last frame before the roll and the SEAL. */
	seg_zero(&w, lsn[1], 300);
	world_boot = BOOT2;
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 1);
	CHECK_UEQ(end.lsn, lsn[1]);
	CHECK(end.torn_bytes > 200);
	CHECK_OK(journal_close(w.j));
	world_boot = BOOT1;
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 3);
	CHECK_UEQ(s.n[1], 2);
	CHECK_UEQ(end.lsn, lsn[3] + (lsn[3] - lsn[2]));
	CHECK_OK(journal_start(w.j));
	world_close(&w);
	CHECK_UEQ(world_open(&w), 3);
	world_close(&w);
	seen_release(&s);
	world_release(&w);
}

static void check_fake_frame(bool seeded)
{
	struct world w;
	uint8_t fake[512], b[2048];
	struct iovec iov;
	struct journal_end end;
	struct seen s = { .count = 0 };
	uint64_t lsn, tail, last;
	size_t n, len;

	world_init(&w, NULL);
	w.cfg.crc_seeded = seeded;
	world_open(&w);
	put(w.j, 0, 100);
	/* A record whose value holds a good frame for exactly the place where it lands. */
	tail = journal_tail(w.j);
	memset(b, 1, sizeof(b));
	n = rec_make(666, 100, fake + FMT_FRAME_HEADER);
	len = (size_t)align_up(FMT_FRAME_HEADER + n, 8);
	memset(fake + FMT_FRAME_HEADER + n, 0, len - FMT_FRAME_HEADER - n);
	fmt_frame_header(fake, REC_PUT, (uint32_t)len, tail + 512, tail);
	fmt_frame_finish(fake, (uint32_t)len, 0);
	(void)rec_make(1, 1500, b);
	memcpy(b + 512 - FMT_FRAME_HEADER, fake, len);
	iov = (struct iovec){ b, 1520 };
	CHECK_OK(journal_append(w.j, REC_PUT, &iov, 1, 0, &lsn));
	CHECK_UEQ(lsn, tail);
	last = put(w.j, 2, 100);
	world_kill(&w);
	/* Its writer was killed before the end: what follows counts, what is inside does not. */
	seg_zero(&w, last - 100, 100);
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 2);
	CHECK_UEQ(s.n[1], 2);
	CHECK_OK(journal_close(w.j));
	/* Another boot: everything from there on is cut. */
	world_boot = BOOT2;
	check_cut(&w, 1, tail);
	seen_release(&s);
	world_release(&w);
}

TEST(test_journal__value_that_looks_like_a_frame)
{
	check_fake_frame(false);
	check_fake_frame(true);
}

/*
 * The same where nothing says how far the frame around it reaches: its header is gone. Without the
 * salt nobody can make a value that counts for a frame then.
 */
TEST(test_journal__seed_keeps_values_from_being_frames)
{
	for (int seeded = 0; seeded < 2; seeded++) {
		struct world w;
		uint8_t b[2048] = { 0 };
		struct iovec iov = { b, 1520 };
		struct journal_end end;
		struct seen s = { .count = 0 };
		uint64_t lsn, tail;
		size_t n;

		world_init(&w, NULL);
		w.cfg.crc_seeded = seeded;
		world_open(&w);
		put(w.j, 0, 100);
		tail = journal_tail(w.j);
		(void)rec_make(1, 1500, b);
		n = rec_make(666, 100, b + 512);
		memset(b + 512 + n, 0, 8);
		fmt_frame_header(b + 492, REC_PUT, (uint32_t)align_up(20 + n, 8), tail + 512, tail);
		fmt_frame_finish(b + 492, (uint32_t)align_up(20 + n, 8), 0);
		CHECK_OK(journal_append(w.j, REC_PUT, &iov, 1, 0, &lsn));
		CHECK_UEQ(lsn, tail);
		put(w.j, 2, 100);
		world_kill(&w);
		seg_zero(&w, lsn, 20);
		CHECK_OK(world_replay(&w, &s, &end));
		CHECK_UEQ(s.count, seeded ? 2 : 3);
		CHECK_UEQ(s.n[1], seeded ? 2 : 666);
		CHECK_OK(journal_close(w.j));
		seen_release(&s);
		world_release(&w);
	}
}

/* ---- Starting --------------------------------------------------------- */

TEST(test_journal__create_is_careful)
{
	struct world w;
	struct journal_end end;
	struct seen s = { .count = 0 };

	world_init(&w, NULL);
	/* A creation that got no further than its first manifest can be done again. */
	world_open(&w);
	world_kill(&w);
	w.cfg.create = true;
	memset(w.cfg.uuid, 9, sizeof(w.cfg.uuid));
	world_open(&w);
	put(w.j, 1, 10);
	world_kill(&w);
	CHECK_UEQ(world_files(&w), 1);
	w.cfg.create = true;
	CHECK_EQ(world_replay(&w, &s, &end), EMDB_ERR_EXISTS);
	/* Nor when the manifest is lost: its segments are no debris then. */
	CHECK_OK(io_renameat(w.inner, w.dirfd, MANIFEST_NAME, w.dirfd, "elsewhere"));
	CHECK_EQ(world_replay(&w, &s, &end), EMDB_ERR_EXISTS);
	CHECK_OK(io_renameat(w.inner, w.dirfd, "elsewhere", w.dirfd, MANIFEST_NAME));
	w.cfg.create = false;
	CHECK_UEQ(world_open(&w), 1);
	world_close(&w);
	memset(w.cfg.uuid, 8, sizeof(w.cfg.uuid));
	CHECK_EQ(world_replay(&w, &s, &end), EMDB_ERR_DAMAGED);
	seen_release(&s);
	world_release(&w);
}

TEST(test_journal__debris_goes_strangers_stay)
{
	struct world w;
	int fd;

	world_init(&w, NULL);
	world_open(&w);
	put(w.j, 1, 10);
	world_close(&w);
	CHECK_OK(io_openat(w.inner, w.dirfd, JOURNAL_DIR "/0000000000000099.seg", O_RDWR | O_CREAT,
			   0600, &fd));
	(void)io_close(w.inner, fd);
	/* Where the next segment will be. */
	CHECK_OK(io_openat(w.inner, w.dirfd, JOURNAL_DIR "/0000000000000002.seg", O_RDWR | O_CREAT,
			   0600, &fd));
	(void)io_close(w.inner, fd);
	CHECK_OK(io_openat(w.inner, w.dirfd, JOURNAL_DIR "/README", O_RDWR | O_CREAT, 0600, &fd));
	(void)io_close(w.inner, fd);
	CHECK_UEQ(world_open(&w), 1);
	CHECK_UEQ(world_files(&w), 3);
	world_close(&w);
	CHECK_UEQ(world_files(&w), 2);
	world_release(&w);
}

TEST(test_journal__read_only_changes_nothing)
{
	struct world w;
	struct journal_end end;
	struct seen s = { .count = 0 };
	uint64_t lsn;
	uint32_t digest;

	world_init(&w, NULL);
	world_open(&w);
	lsn = put(w.j, 1, 100);
	world_kill(&w);
	digest = world_digest(&w);
	w.cfg.read_only = true;
	w.dead = true; /* no change gets through */
	CHECK_OK(world_replay(&w, &s, &end));
	CHECK_UEQ(s.count, 1);
	CHECK_UEQ(get(w.j, &w.ep, lsn), 1);
	CHECK_EQ(put_flags(w.j, 2, 10, 0, &lsn), EMDB_ERR_READ_ONLY);
	CHECK_EQ(journal_sync(w.j), EMDB_ERR_READ_ONLY);
	CHECK_EQ(journal_roll(w.j, &lsn), EMDB_ERR_READ_ONLY);
	CHECK_OK(journal_close(w.j));
	CHECK_UEQ(world_digest(&w), digest);
	seen_release(&s);
	world_release(&w);
}

/* ---- Retiring, checkpoints -------------------------------------------- */

TEST(test_journal__retire)
{
	struct world w;
	struct journal_seg_info info[16];
	struct segment *kept;
	struct rec r;
	uint64_t lsn, lsn2, next, ids[2];
	unsigned int pin;

	world_init(&w, NULL);
	world_open(&w);
	lsn = put(w.j, 1, 100);
	CHECK_OK(journal_roll(w.j, &next));
	lsn2 = put(w.j, 2, 100);
	CHECK_OK(journal_roll(w.j, &next));
	put(w.j, 3, 100);
	CHECK_OK(journal_seal(w.j));
	CHECK_UEQ(journal_segments(w.j, info, 16), 3);
	ids[0] = info[2].id;
	CHECK_EQ(journal_retire(w.j, ids, 1), EMDB_ERR_INVAL);
	pin = epoch_pin(&w.ep);
	CHECK_OK(journal_rec_pinned(w.j, lsn, &r, &kept));
	segment_ref(kept);
	epoch_unpin(&w.ep, pin);
	ids[0] = info[0].id;
	ids[1] = info[1].id;
	CHECK_OK(journal_retire(w.j, ids, 2));
	CHECK_EQ(journal_retire(w.j, ids, 1), EMDB_ERR_INVAL);
	CHECK_UEQ(journal_oldest(w.j), info[2].id << SHIFT);
	pin = epoch_pin(&w.ep);
	CHECK_EQ(journal_rec_pinned(w.j, lsn2, &(struct rec){ 0 }, NULL), EMDB_ERR_CORRUPT);
	epoch_unpin(&w.ep, pin);
	epoch_drain(&w.ep);
	/* A reference keeps the bytes. */
	CHECK_UEQ(rec_number(&r), 1);
	segment_unref(kept);
	world_kill(&w);
	CHECK_UEQ(world_open(&w), 1);
	world_close(&w);
	world_release(&w);
}

TEST(test_journal__checkpoints)
{
	struct world w;
	struct journal_checkpoint c;
	uint64_t lsn[2];

	world_init(&w, NULL);
	world_open(&w);
	journal_checkpoint_get(w.j, &c);
	CHECK_UEQ(c.number, 0);
	put(w.j, 1, 10);
	lsn[0] = journal_tail(w.j);
	CHECK_EQ(journal_checkpoint_set(w.j, 1, lsn[0] + 8), EMDB_ERR_INVAL);
	CHECK_OK(journal_checkpoint_set(w.j, 1, lsn[0]));
	CHECK(journal_durable(w.j) >= lsn[0]);
	put(w.j, 2, 10);
	lsn[1] = journal_tail(w.j);
	CHECK_OK(journal_checkpoint_set(w.j, 2, lsn[1]));
	world_kill(&w);
	world_open(&w);
	journal_checkpoint_get(w.j, &c);
	CHECK_UEQ(c.number, 2);
	CHECK_UEQ(c.lsn, lsn[1]);
	CHECK_UEQ(c.prev_number, 1);
	CHECK_UEQ(c.prev_lsn, lsn[0]);
	world_close(&w);
	world_release(&w);
}

TEST_MAIN()
