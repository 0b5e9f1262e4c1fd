/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of which one record makes no sense, though the frame's sum is right: an operation is whole or not at all. */
#include "tests/unit/damage_help.h"

static struct told told;
static struct emdb_repair_report report;

static void put_three(emdb_db *db, uint64_t ns, const char *value)
{
	const struct emdb_item items[] = {
		{ .key = "a", .key_len = 1, .value = value, .value_len = strlen(value) },
		{ .key = "b", .key_len = 1, .value = value, .value_len = strlen(value) },
		{ .key = "c", .key_len = 1, .value = value, .value_len = strlen(value) },
	};

	CHECK_OK(emdb_put_many(db, ns, items, ARRAY_SIZE(items)));
}

/* Takes from a batch's record the fields that its kind must have, and sets the sum of the frame right. */
static void make_senseless(uint64_t ref)
{
	uint8_t head[FMT_BATCH_PREFIX + 1];
	const off_t off = (off_t)(ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1));
	const int fd = open_segment(ref_lsn(ref));
	uint32_t back;

	CHECK(ref & REF_BATCH);
	CHECK_EQ(pread(fd, head, sizeof(head), off), sizeof(head));
	close(fd);
	back = get_u32(head + 4) * 8;
	CHECK(head[FMT_BATCH_PREFIX] && !(head[FMT_BATCH_PREFIX] & 0x80));
	forge(ref_lsn(ref) - back, back + FMT_BATCH_PREFIX, head[FMT_BATCH_PREFIX]);
}

static void drop_checkpoints(void)
{
	char file[PATH_MAX + 80];

	for (unsigned int i = 1; i < 9; i++) {
		snprintf(file, sizeof(file), "%s/checkpoint-%016x", path, i);
		(void)unlink(file);
	}
}

/* Two batches of the same keys and something after them. */
static void make_store(uint64_t *ret_ns, uint64_t refs[3])
{
	static const char *const keys[] = { "a", "b", "c" };
	emdb_db *const db = store_new();

	*ret_ns = mkns(db, EMDB_ROOT, "n");
	put_three(db, *ret_ns, "old");
	put_three(db, *ret_ns, "new");
	for (size_t i = 0; i < 3; i++)
		refs[i] = ref_of(db, *ret_ns, keys[i]);
	put(db, *ret_ns, "d", "later");
	CHECK_OK(emdb_flush(db));
	CHECK_OK(emdb_close(db));
}

/* Nothing of the batch is there, and nothing from before it under its name; every one of its keys is told. */
static void replayed(size_t bad)
{
	static const char *const paths[] = { "n/a", "n/b", "n/c" };
	uint64_t ns, refs[3], found, count;
	emdb_db *db;

	make_store(&ns, refs);
	drop_checkpoints();
	make_senseless(refs[bad]);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_CORRUPT);
	db = store_open(EMDB_OPEN_READ_ONLY | EMDB_OPEN_SALVAGE);
	for (size_t i = 0; i < 3; i++)
		expect(db, ns, paths[i] + 2, "old");
	expect(db, ns, "d", "later");
	CHECK_OK(emdb_close(db));
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	for (size_t i = 0; i < 3; i++)
		if (i != bad)
			CHECK(told_of(&told, EMDB_DAMAGE_OLDER, paths[i]));
	/* The key in the senseless one is not known. */
	CHECK_UEQ(told.count[EMDB_DAMAGE_UNKNOWN], 1);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.older, 2);
	for (int i = 0; i < 2; i++) {
		db = store_open(0);
		for (size_t k = 0; k < 3; k++)
			expect(db, ns, paths[k] + 2, k == bad ? "old" : NULL);
		expect(db, ns, "d", "later");
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "lost+found", 10, &found));
		CHECK_OK(emdb_count(db, found, &count));
		CHECK_UEQ(count, 2);
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
}

TEST(test_repair_batch__first_is_senseless)
{
	replayed(0);
}

TEST(test_repair_batch__middle_is_senseless)
{
	replayed(1);
}

TEST(test_repair_batch__last_is_senseless)
{
	replayed(2);
}

/* Below a checkpoint it was applied: what can be read stays, however it is opened afterwards. */
TEST(test_repair_batch__below_the_checkpoint)
{
	uint64_t ns, refs[3];
	emdb_db *db;

	make_store(&ns, refs);
	make_senseless(refs[1]);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_LOST, "n/b"));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.lost_entries, 1);
	for (int i = 0; i < 2; i++) {
		db = store_open(0);
		expect(db, ns, "a", "new");
		expect(db, ns, "b", NULL);
		expect(db, ns, "c", "new");
		expect(db, ns, "d", "later");
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
}

/* Neither opening from a checkpoint nor a snapshot looks at a batch; sealed, its records could never be opened. */
TEST(test_repair_batch__that_does_not_add_up_is_not_encrypted)
{
	static const struct {
		uint32_t at; /* in the frame */
		uint8_t flip;
	} ways[] = {
		{ FMT_FRAME_HEADER, 1 },     /* two of three records */
		{ FMT_FRAME_HEADER, 3 },     /* none */
		{ FMT_FRAME_HEADER, 4 },     /* seven */
		{ FMT_BATCH_HEADER, 0x40 },  /* the first one is longer than the frame */
		{ FMT_BATCH_HEADER, 1 },     /* or ends in the middle of another */
		{ FMT_BATCH_HEADER + 4, 1 }, /* it is elsewhere */
	};
	static const uint8_t raw[32] = "a key of thirty-two bytes, no mo";
	static const struct emdb_secret secret = { EMDB_SECRET_KEY, raw, 32, NULL, 0, 0, 0 };
	struct emdb_detail detail = { .text = "" };
	const struct emdb_convert_options o = { .size = sizeof(o), .detail = &detail };

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		uint64_t ns, refs[3];
		struct emdb_check_report whole;
		struct emdb_encryption e;
		emdb_db *db;

		make_store(&ns, refs);
		/* The first record follows the header. */
		forge(ref_lsn(refs[0]) - FMT_BATCH_HEADER, ways[i].at, ways[i].flip);
		CHECK_EQ(emdb_encrypt(path, &secret, &o), EMDB_ERR_CORRUPT);
		CHECK_UEQ(detail.segment, ref_lsn(refs[0]) >> 20);
		CHECK_UEQ(detail.offset,
			  (ref_lsn(refs[0]) & (EMDB_SEGMENT_MIN - 1)) - FMT_BATCH_HEADER);
		CHECK(strstr(detail.text, "do not fill it"));
		CHECK_OK(emdb_encryption_get(path, &e));
		CHECK_EQ(e.cipher, EMDB_CIPHER_DEFAULT);
		db = store_open(0);
		expect(db, ns, "d", "later");
		CHECK_OK(emdb_close(db));
		CHECK_OK(repair_with(NULL, &told, &report));
		/* What could be read of it has left the frame, which is a gap now and not copied. */
		CHECK_OK(emdb_encrypt(path, &secret, &o));
		CHECK_OK(emdb_check_secret(path, &secret, NULL, NULL, &whole));
	}
}

TEST_MAIN()
