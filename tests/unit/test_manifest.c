/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/journal_help.h"

static void fill(struct manifest *m, uint32_t segs)
{
	memset(m->head.uuid, 5, sizeof(m->head.uuid));
	m->head.next_segment = segs + 100;
	for (uint32_t i = 0; i < segs; i++)
		CHECK_OK(manifest_add(m, i * 2 + 1, 4096 + i * 8, i % 2 ? MANIFEST_SEALED : 0));
}

static void check_same(const struct manifest *a, const struct manifest *b)
{
	CHECK_UEQ(a->head.nsegs, b->head.nsegs);
	CHECK_UEQ(a->head.ngaps, b->head.ngaps);
	CHECK_UEQ(a->head.generation, b->head.generation);
	for (uint32_t i = 0; i < a->head.nsegs; i++) {
		CHECK_UEQ(a->segs[i].id, b->segs[i].id);
		CHECK_UEQ(a->segs[i].len, b->segs[i].len);
		CHECK_UEQ(a->segs[i].flags, b->segs[i].flags);
	}
	for (uint32_t i = 0; i < a->head.ngaps; i++) {
		CHECK_UEQ(a->gaps[i].lsn, b->gaps[i].lsn);
		CHECK_UEQ(a->gaps[i].len, b->gaps[i].len);
	}
}

TEST(test_manifest__rows)
{
	struct manifest m = MANIFEST_INIT, c = MANIFEST_INIT;

	for (uint64_t id = 200; id > 0; id--)
		CHECK_OK(manifest_add(&m, id * 7 % 211, id * 8, 0));
	CHECK_UEQ(m.head.nsegs, 200);
	for (uint32_t i = 1; i < 200; i++)
		CHECK(m.segs[i - 1].id < m.segs[i].id);
	CHECK_UEQ(manifest_find(&m, 3 * 7)->len, 24);
	CHECK(!manifest_find(&m, 1000));
	CHECK_OK(manifest_gap_add(&m, (UINT64_C(21) << SHIFT) + 512, 8));
	CHECK_OK(manifest_gap_add(&m, (UINT64_C(28) << SHIFT) + 512, 8));
	CHECK_OK(manifest_copy(&m, &c));
	check_same(&m, &c);
	manifest_remove(&m, 21, SHIFT);
	manifest_remove(&m, 21, SHIFT);
	CHECK_UEQ(m.head.nsegs, 199);
	CHECK(!manifest_find(&m, 21));
	CHECK_UEQ(m.head.ngaps, 1);
	CHECK_UEQ(c.head.ngaps, 2);
	manifest_release(&m);
	manifest_release(&c);
}

TEST(test_manifest__gaps)
{
	struct manifest m = MANIFEST_INIT;
	uint64_t seed = test_seed();

	CHECK_OK(manifest_gap_add(&m, 800, 80));
	CHECK_OK(manifest_gap_add(&m, 160, 80));
	CHECK_OK(manifest_gap_add(&m, 240, 8)); /* next to it: another one */
	CHECK_UEQ(m.head.ngaps, 3);
	CHECK_UEQ(manifest_gap_at(&m, 160), 80);
	CHECK_UEQ(manifest_gap_at(&m, 240), 8);
	CHECK_UEQ(manifest_gap_at(&m, 800), 80);
	CHECK_UEQ(manifest_gap_at(&m, 808), 0);
	CHECK_OK(manifest_gap_add(&m, 200, 640));
	CHECK_UEQ(m.head.ngaps, 1);
	CHECK_UEQ(manifest_gap_at(&m, 200), 640);
	for (int i = 0; i < 1000; i++) {
		const uint64_t lsn = test_rand(&seed) % 5000 * 8,
			       len = 8 + test_rand(&seed) % 20 * 8;

		CHECK_OK(manifest_gap_add(&m, lsn, len));
		CHECK_UEQ(manifest_gap_at(&m, lsn), len);
		for (uint32_t g = 0; g + 1 < m.head.ngaps; g++)
			CHECK(m.gaps[g].lsn + m.gaps[g].len <= m.gaps[g + 1].lsn);
	}
	manifest_release(&m);
}

TEST(test_manifest__store_and_load)
{
	struct world w;
	struct manifest m = MANIFEST_INIT, got = MANIFEST_INIT;
	struct buf b = BUF_INIT;

	world_init(&w, NULL);
	CHECK_EQ(manifest_load(&w.io, w.dirfd, &got), EMDB_ERR_NOT_FOUND);
	fill(&m, 50);
	CHECK_OK(manifest_gap_add(&m, (UINT64_C(1) << SHIFT) + 512, 64));
	CHECK_OK(manifest_store(&m, &w.io, w.dirfd, NULL));
	CHECK_UEQ(m.head.generation, 1);
	CHECK_OK(manifest_load(&w.io, w.dirfd, &got));
	check_same(&m, &got);
	CHECK_OK(manifest_store(&m, &w.io, w.dirfd, NULL));
	CHECK_OK(manifest_load(&w.io, w.dirfd, &got));
	check_same(&m, &got);
	/* Cut anywhere, one byte wrong anywhere. */
	CHECK_OK(io_read_file(&w.io, w.dirfd, MANIFEST_NAME, 65536, &b));
	for (size_t n = 0; n < b.len; n++) {
		CHECK_OK(io_replace_durably(&w.io, w.dirfd, MANIFEST_NAME, b.data, n));
		CHECK_EQ(manifest_load(&w.io, w.dirfd, &got), EMDB_ERR_CORRUPT);
		b.data[n] ^= 0x80;
		CHECK_OK(io_replace_durably(&w.io, w.dirfd, MANIFEST_NAME, b.data, b.len));
		CHECK(manifest_load(&w.io, w.dirfd, &got) == EMDB_ERR_CORRUPT ||
		      (n >= 8 && n < 12)); /* a newer version */
		b.data[n] ^= 0x80;
	}
	check_same(&m, &got);
	buf_release(&b);
	manifest_release(&m);
	manifest_release(&got);
	world_release(&w);
}

/* After each failing call either the old or the new content is there, and it is known which. */
TEST(test_manifest__failing_store)
{
	for (uint64_t nth = 1, hits = 1; hits; nth++) {
		struct world w;
		struct manifest m = MANIFEST_INIT, got = MANIFEST_INIT;
		bool applied = false;
		emdb_err err;

		world_init(&w, NULL);
		fill(&m, 3);
		CHECK_OK(manifest_store(&m, &w.io, w.dirfd, NULL));
		world_fault(&w, IO_MASK_CHANGE | IO_MASK(IO_OP_OPENAT), nth, false, -EIO);
		m.head.durable_lsn = 88;
		err = manifest_store(&m, &w.io, w.dirfd, &applied);
		hits = w.hits;
		CHECK_EQ(err, hits ? EMDB_ERR_IO : EMDB_OK);
		world_fault(&w, 0, 0, false, 0);
		CHECK_OK(manifest_load(&w.io, w.dirfd, &got));
		if (err && !applied)
			CHECK_UEQ(got.head.durable_lsn, 0);
		if (!err)
			CHECK_UEQ(got.head.durable_lsn, 88);
		manifest_release(&m);
		manifest_release(&got);
		world_release(&w);
	}
}

TEST_MAIN()
