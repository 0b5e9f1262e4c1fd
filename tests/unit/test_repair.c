/* SPDX-License-Identifier: Apache-2.0 */
/* Damage by key: what emdb_check() says, what can be done with a damaged entry, what emdb_repair() saves. */
#include "tests/unit/damage_help.h"

#include "core/format_ckpt.h"

static struct told told;
static struct emdb_repair_report report;

#define BIG (3u * 1024u * 1024u)
static uint8_t big_value[BIG];

static void fill_big(void)
{
	uint64_t state = 7;

	for (size_t i = 0; i < BIG; i += 8) {
		const uint64_t r = test_rand(&state);

		memcpy(big_value + i, &r, 8);
	}
}

static void put_big(emdb_db *db, uint64_t ns, const char *key)
{
	fill_big();
	CHECK_OK(emdb_put(db, ns, key, strlen(key), big_value, BIG, 0));
}

/* ---- Damage below the checkpoint --------------------------------------------- */

/*
 * a/one .. a/three and b, closed, so that a checkpoint has them; returns the record of a/two. *ret_older: that of
 * an older a/two, which nothing needs but a replay of everything.
 */
static uint64_t small_store_of(uint64_t *ret_ns, uint64_t *ret_older)
{
	emdb_db *db = store_new();
	uint64_t ref;

	*ret_ns = mkns(db, EMDB_ROOT, "a");
	put(db, *ret_ns, "one", "1");
	put(db, *ret_ns, "two", "old");
	*ret_older = ref_of(db, *ret_ns, "two");
	put(db, *ret_ns, "three", "3");
	put(db, EMDB_ROOT, "b", "4");
	put(db, *ret_ns, "two", "a value of some length");
	ref = ref_of(db, *ret_ns, "two");
	CHECK_OK(emdb_close(db));
	return ref;
}

static uint64_t small_store(uint64_t *ret_ns)
{
	uint64_t older;

	return small_store_of(ret_ns, &older);
}

TEST(test_repair__check_names_the_key)
{
	uint64_t ns;
	const uint64_t ref = small_store(&ns);

	CHECK_OK(check_store(&told));
	spoil(ref, 44);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_LOST, "a/two"));
	CHECK_UEQ(told.count[EMDB_DAMAGE_LOST], 1);
	CHECK_UEQ(told.count[EMDB_DAMAGE_PLACE], 1);
}

TEST(test_repair__check_names_the_key_by_an_older_record)
{
	uint64_t ns;
	const uint64_t ref = small_store(&ns);

	/* Every byte of the frame, the key too. */
	for (uint32_t i = 0; i < 56; i++)
		spoil(ref, i);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_LOST, "a/two"));
}

TEST(test_repair__a_damaged_entry_can_be_replaced)
{
	uint64_t ns;
	const uint64_t ref = small_store(&ns);
	void *value;
	size_t len;
	emdb_db *db;

	spoil(ref, 44);
	db = store_open(0);
	CHECK_EQ(emdb_get(db, ns, "two", 3, &value, &len), EMDB_ERR_CORRUPT);
	CHECK_EQ(emdb_remove(db, ns, "two", 3, &value, &len), EMDB_ERR_CORRUPT);
	put(db, ns, "two", "new");
	expect(db, ns, "two", "new");
	expect(db, ns, "one", "1");
	CHECK_OK(emdb_close(db));
	/* By the checkpoint made at closing, and by the one before with a replay. */
	db = store_open(0);
	expect(db, ns, "two", "new");
	CHECK_OK(emdb_close(db));
}

TEST(test_repair__a_damaged_entry_can_be_removed)
{
	const struct emdb_item item = { .key = "two", .key_len = 3, .remove = true };
	uint64_t ns, count;
	const uint64_t ref = small_store(&ns);
	emdb_db *db;

	spoil(ref, 44);
	db = store_open(0);
	CHECK_OK(emdb_remove(db, ns, "two", 3, NULL, NULL));
	expect(db, ns, "two", NULL);
	CHECK_OK(emdb_count(db, ns, &count));
	CHECK_UEQ(count, 2);
	CHECK_OK(emdb_close(db));
	ns = 0;
	spoil(small_store(&ns), 44);
	db = store_open(0);
	CHECK_OK(emdb_put_many(db, ns, &item, 1));
	expect(db, ns, "two", NULL);
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "a", 1, true));
	CHECK_OK(emdb_close(db));
}

TEST(test_repair__namespaces_with_damaged_entries_can_be_dropped)
{
	emdb_db *db = store_new();
	const uint64_t a = mkns(db, EMDB_ROOT, "a"), b = mkns(db, a, "b");
	uint64_t ref, space, link;
	struct emdb_stats stats;

	put(db, b, "x", "1");
	put_big(db, b, "big");
	space = ref_of(db, a, "b");
	ref = ref_of(db, b, "x");
	link = ref_of(db, b, "big");
	CHECK_OK(emdb_close(db));
	spoil(space, 30);
	spoil(ref, 40);
	spoil(link, 12);
	db = store_open(0);
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "a", 1, true));
	CHECK_OK(emdb_stats_get(db, &stats));
	CHECK_UEQ(stats.records, 0);
	CHECK_UEQ(stats.namespaces, 0);
	CHECK_UEQ(stats.objects, 0);
	CHECK_OK(emdb_close(db));
	db = store_open(0);
	CHECK_OK(emdb_stats_get(db, &stats));
	CHECK_UEQ(stats.records + stats.namespaces + stats.objects, 0);
	CHECK_OK(emdb_close(db));
}

/* Without checkpoints, so that the whole journal is replayed. */
static void drop_checkpoints(void)
{
	struct dirent *e;
	DIR *d = opendir(path);
	char file[PATH_MAX + 340];

	CHECK(d != NULL);
	while ((e = readdir(d)))
		if (strncmp(e->d_name, "checkpoint-", 11) == 0) {
			snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
			CHECK_OK(unlink(file));
		}
	closedir(d);
}

TEST(test_repair__older_values_do_not_come_back)
{
	uint64_t ns;
	const uint64_t ref = small_store(&ns);
	emdb_db *db;

	spoil(ref, 44);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(!report.intact);
	CHECK_UEQ(report.lost_entries, 1);
	CHECK_UEQ(report.places, 1);
	CHECK_STR(report.kept, "lost/1");
	CHECK(told_of(&told, EMDB_DAMAGE_LOST, "a/two"));
	for (int i = 0; i < 2; i++) {
		/* The second time the checkpoint is missing, which is damage of its own. */
		CHECK_EQ(check_store(&told), i ? EMDB_ERR_CORRUPT : EMDB_OK);
		CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], i);
		db = store_open(0);
		expect(db, ns, "one", "1");
		expect(db, ns, "three", "3");
		expect(db, EMDB_ROOT, "b", "4");
		expect(db, ns, "two", NULL);
		expect(db, EMDB_ROOT, "lost+found", NULL);
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
	CHECK_OK(repair_with(NULL, &told, &report));
	/* Only the checkpoint that we have removed: the store has a new one since. */
	CHECK(!report.super_rebuilt && !report.manifest_rebuilt);
}

TEST(test_repair__a_good_store_is_left_alone)
{
	uint64_t ns;
	struct stat before, after;
	char file[PATH_MAX + 340];

	small_store(&ns);
	snprintf(file, sizeof(file), "%s/manifest", path);
	CHECK_OK(stat(file, &before));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.intact);
	CHECK_OK(stat(file, &after));
	CHECK_UEQ(before.st_ino, after.st_ino);
	snprintf(file, sizeof(file), "%s/lost", path);
	CHECK_EQ(stat(file, &after), -1);
}

TEST(test_repair__a_dry_run_changes_nothing)
{
	const struct emdb_repair_options dry = { .size = sizeof(dry),
						 .flags = EMDB_REPAIR_DRY_RUN };
	uint64_t ns;
	const uint64_t ref = small_store(&ns);
	char file[PATH_MAX + 340];
	struct stat st;

	spoil(ref, 44);
	CHECK_OK(repair_with(&dry, &told, &report));
	CHECK(!report.intact);
	CHECK(told_of(&told, EMDB_DAMAGE_LOST, "a/two"));
	snprintf(file, sizeof(file), "%s/lost", path);
	CHECK_EQ(stat(file, &st), -1);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
}

/* ---- Namespaces and names ------------------------------------------------------------ */

TEST(test_repair__a_namespace_gets_its_name_back)
{
	emdb_db *db = store_new();
	const uint64_t a = mkns(db, EMDB_ROOT, "a"), b = mkns(db, a, "b");
	uint64_t ref, id;

	put(db, b, "x", "1");
	ref = ref_of(db, a, "b");
	CHECK_OK(emdb_close(db));
	/* The checksum itself. */
	spoil(ref, 0);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_META, "a/b"));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.renamed, 1);
	for (int i = 0; i < 2; i++) {
		/* The second time the checkpoint is missing, which is damage of its own. */
		CHECK_EQ(check_store(&told), i ? EMDB_ERR_CORRUPT : EMDB_OK);
		CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], i);
		db = store_open(0);
		CHECK_OK(emdb_ns_open(db, a, "b", 1, &id));
		CHECK_UEQ(id, b);
		expect(db, b, "x", "1");
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
}

TEST(test_repair__a_namespace_without_a_name_goes_to_lost_found)
{
	emdb_db *db = store_new();
	const uint64_t a = mkns(db, EMDB_ROOT, "a"), b = mkns(db, a, "b");
	uint64_t ref, id, found;
	char name[64];

	put(db, b, "x", "1");
	ref = ref_of(db, a, "b");
	CHECK_OK(emdb_close(db));
	for (uint32_t i = 0; i < 40; i++)
		spoil(ref, i);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.adrift, 1);
	snprintf(name, sizeof(name), "namespace-%" PRIu64, b);
	for (int i = 0; i < 2; i++) {
		/* The second time the checkpoint is missing, which is damage of its own. */
		CHECK_EQ(check_store(&told), i ? EMDB_ERR_CORRUPT : EMDB_OK);
		CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], i);
		db = store_open(0);
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "lost+found", 10, &found));
		CHECK_OK(emdb_ns_open(db, found, name, strlen(name), &id));
		CHECK_UEQ(id, b);
		expect(db, b, "x", "1");
		expect(db, a, "b", NULL);
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
}

/* The same without a checkpoint: nothing but its entries knows of the namespace. */
TEST(test_repair__a_namespace_adrift_is_kept)
{
	emdb_db *db = store_new();
	const uint64_t a = mkns(db, EMDB_ROOT, "a"), gone = mkns(db, EMDB_ROOT, "gone");
	const uint64_t b = mkns(db, a, "b");
	uint64_t ref, found, count;

	put(db, b, "x", "1");
	put(db, gone, "y", "2");
	ref = ref_of(db, a, "b");
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "gone", 4, true));
	CHECK_OK(emdb_close(db));
	drop_checkpoints();
	for (uint32_t i = 0; i < 40; i++)
		spoil(ref, i);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_DAMAGED);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_UEQ(told.count[EMDB_DAMAGE_ADRIFT], 1);
	CHECK_UEQ(told.count[EMDB_DAMAGE_UNKNOWN], 1);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.adrift, 1);
	CHECK(report.unknown_bytes > 0);
	for (int i = 0; i < 2; i++) {
		db = store_open(0);
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "lost+found", 10, &found));
		CHECK_OK(emdb_count(db, found, &count));
		CHECK_UEQ(count, 1);
		expect(db, b, "x", "1");
		expect(db, EMDB_ROOT, "gone", NULL);
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
}

/* ---- Large values ----------------------------------------------------------------------- */

/* The record of the extent at off. */
static uint64_t extent_ref(emdb_db *db, uint64_t id, uint64_t off)
{
	struct obj_view v;
	struct extent e;

	CHECK(objtab_get_pinned(db, id, &v) && v.big);
	CHECK(extmap_find(&v.big->map, off, &e));
	return e.ref;
}

static void expect_big(emdb_db *db, uint64_t id, uint64_t bad_from, uint64_t bad_to)
{
	static uint8_t got[65536];
	size_t n;

	for (uint64_t off = 0; off < BIG; off += sizeof(got)) {
		const emdb_err err = emdb_node_read(db, id, off, got, sizeof(got), &n);

		if (off + sizeof(got) > bad_from && off < bad_to) {
			CHECK_EQ(err, EMDB_ERR_CORRUPT);
			continue;
		}
		CHECK_OK(err);
		CHECK_MEM(got, n, big_value + off, sizeof(got));
	}
}

TEST(test_repair__a_damaged_range_stays_an_error)
{
	emdb_db *db = store_new();
	const uint64_t ns = mkns(db, EMDB_ROOT, "a");
	struct emdb_attr attr;
	uint64_t ref, from, to;
	struct obj_view v;
	struct extent e;

	put_big(db, ns, "big");
	CHECK_OK(emdb_node_lookup(db, ns, "big", 3, &attr));
	ref = extent_ref(db, attr.id, BIG / 2);
	CHECK(objtab_get_pinned(db, attr.id, &v) && extmap_find(&v.big->map, BIG / 2, &e));
	from = e.off;
	to = e.off + e.len;
	CHECK_OK(emdb_close(db));
	spoil(ref, 1000);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_RANGE, "a/big"));
	for (int i = 0; i < 3; i++) {
		if (i == 1) {
			CHECK_OK(repair_with(NULL, &told, &report));
			CHECK_UEQ(report.lost_ranges, 1);
			CHECK_UEQ(report.lost_entries, 0);
		}
		if (i == 2)
			drop_checkpoints();
		db = store_open(0);
		CHECK_OK(emdb_node_lookup(db, ns, "big", 3, &attr));
		CHECK_UEQ(attr.size, BIG);
		expect_big(db, attr.id, from, to);
		CHECK_OK(emdb_close(db));
	}
	/* Nothing new to repair, but the file is still not whole. */
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.intact);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_UEQ(told.count[EMDB_DAMAGE_PLACE], 0);
	CHECK(told_of(&told, EMDB_DAMAGE_RANGE, "a/big"));
	db = store_open(0);
	CHECK_OK(emdb_node_lookup(db, ns, "big", 3, &attr));
	CHECK_OK(emdb_node_write(db, attr.id, from, big_value + from, to - from, 0));
	expect_big(db, attr.id, 0, 0);
	CHECK_OK(emdb_close(db));
	CHECK_OK(check_store(&told));
}

TEST(test_repair__a_missing_segment)
{
	emdb_db *db = store_new();
	const uint64_t ns = mkns(db, EMDB_ROOT, "a");
	char name[SEGMENT_NAME_SIZE], file[PATH_MAX + 340];
	struct emdb_attr attr;
	uint64_t ref;

	put(db, ns, "one", "1");
	put_big(db, ns, "big");
	put(db, ns, "two", "2");
	CHECK_OK(emdb_node_lookup(db, ns, "big", 3, &attr));
	ref = extent_ref(db, attr.id, BIG / 2);
	CHECK_OK(emdb_close(db));
	segment_name(ref_lsn(ref) >> 20, name);
	snprintf(file, sizeof(file), "%s/journal/%s", path, name);
	CHECK_OK(unlink(file));
	CHECK_EQ(store_try(0, &db), EMDB_ERR_DAMAGED);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_RANGE, "a/big"));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.lost_ranges >= 1);
	db = store_open(0);
	expect(db, ns, "one", "1");
	expect(db, ns, "two", "2");
	CHECK_EQ(emdb_node_read(db, attr.id, BIG / 2, file, 1, &(size_t){ 0 }), EMDB_ERR_CORRUPT);
	CHECK_OK(emdb_close(db));
}

/* ---- Files other than segments ------------------------------------------------------------- */

static void expect_all(uint64_t ns)
{
	emdb_db *db = store_open(0);

	expect(db, ns, "one", "1");
	expect(db, ns, "two", "a value of some length");
	expect(db, ns, "three", "3");
	expect(db, EMDB_ROOT, "b", "4");
	CHECK_OK(emdb_close(db));
	CHECK_OK(check_store(&told));
}

TEST(test_repair__the_manifest_is_made_anew)
{
	char file[PATH_MAX + 340];
	uint64_t ns;
	emdb_db *db;

	small_store(&ns);
	spoil_file("manifest", 50);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_DAMAGED);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.manifest_rebuilt);
	CHECK_UEQ(report.places, 0);
	expect_all(ns);
	snprintf(file, sizeof(file), "%s/manifest", path);
	CHECK_OK(unlink(file));
	CHECK_OK(repair_with(NULL, &told, &report));
	expect_all(ns);
}

TEST(test_repair__the_superblock_comes_back)
{
	char file[PATH_MAX + 340];
	uint64_t ns;
	emdb_db *db;

	small_store(&ns);
	spoil_file("superblock", 64);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_CORRUPT);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(!report.super_rebuilt);
	expect_all(ns);
	snprintf(file, sizeof(file), "%s/superblock.bak", path);
	CHECK_OK(unlink(file));
	snprintf(file, sizeof(file), "%s/superblock", path);
	CHECK_OK(truncate(file, 100));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.super_rebuilt);
	expect_all(ns);
}

TEST(test_repair__everything_but_the_segments)
{
	const char *const names[] = { "superblock", "superblock.bak", "manifest", "lock" };
	char file[PATH_MAX + 340];
	uint64_t ns;

	small_store(&ns);
	drop_checkpoints();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(file, sizeof(file), "%s/%s", path, names[i]);
		CHECK_OK(unlink(file));
	}
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.super_rebuilt && report.manifest_rebuilt);
	expect_all(ns);
}

TEST(test_repair__a_segment_header)
{
	uint64_t ns;
	const uint64_t ref = small_store(&ns);
	emdb_db *db;
	const int fd = open_segment(ref_lsn(ref));

	static const uint8_t zeros[256];

	CHECK_EQ(pwrite(fd, zeros, 8, 40), 8);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_DAMAGED);
	CHECK_OK(repair_with(NULL, &told, &report));
	expect_all(ns);
	close(fd);
	/* All of it: the salt, too. */
	spoil_range(ref, -(int64_t)(ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1)), 256);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_DAMAGED);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.lost_entries, 0);
	expect_all(ns);
}

TEST(test_repair__a_checkpoint)
{
	uint64_t ns;

	small_store(&ns);
	spoil_file("checkpoint-0000000000000001", 100);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], 1);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(!report.intact);
	expect_all(ns);
}

static void write_file(const char *name, const void *p, size_t n)
{
	char file[PATH_MAX + 340];
	int fd;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, p, n), n);
	close(fd);
}

static struct superblock read_super(const char *name)
{
	char file[PATH_MAX + 340];
	uint8_t b[FMT_SUPER_SIZE];
	struct superblock sb;
	int fd;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	fd = open(file, O_RDONLY);
	CHECK(fd >= 0);
	CHECK_EQ(read(fd, b, sizeof(b)), sizeof(b));
	close(fd);
	CHECK_OK(fmt_super_decode(b, sizeof(b), &sb));
	return sb;
}

/* While all is well nothing reads the copy: that it is none is found out before it is needed. */
TEST(test_repair__the_copy_of_the_superblock)
{
	uint8_t other[FMT_SUPER_SIZE];
	struct superblock sb;
	uint64_t ns;

	small_store(&ns);
	sb = read_super("superblock");
	sb.uuid[3] ^= 1;
	fmt_super_encode(&sb, other);
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			spoil_file("superblock.bak", 64);
		else
			write_file("superblock.bak", other, i == 1 ? sizeof(other) : 100);
		CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
		CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], 1);
		CHECK(strstr(told.all, "superblock.bak: "));
		CHECK_OK(repair_with(NULL, &told, &report));
		CHECK(!report.intact);
		CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], 1);
		CHECK_OK(check_store(&told));
		CHECK_MEM(read_super("superblock.bak").uuid, 16, read_super("superblock").uuid, 16);
		CHECK_OK(repair_with(NULL, &told, &report));
		CHECK(report.intact);
		expect_all(ns);
	}
}

/* Numbers so high that the manifest which is made anew could not go on from them, or be read. */
TEST(test_repair__hostile_numbers_do_not_count)
{
	struct ckpt_head head = { .lsn = UINT64_C(1) << 60 };
	uint8_t block[256], seg[FMT_SEG_HEADER];
	struct seg_header h = { .id = FMT_NEXT_SEGMENT_MAX - 1, .segment_shift = 20 };
	struct wcur w = wcur_init(block + CKPT_BLOCK_HEADER, sizeof(block) - CKPT_BLOCK_HEADER);
	char file[PATH_MAX + 340], name[64] = "journal/";
	struct superblock sb;
	uint64_t ns;

	small_store(&ns);
	sb = read_super("superblock");
	memcpy(head.uuid, sb.uuid, sizeof(head.uuid));
	memcpy(h.uuid, sb.uuid, sizeof(h.uuid));
	fmt_ckpt_head_put(&w, &head);
	fmt_ckpt_seal(block, (uint32_t)(CKPT_BLOCK_HEADER + wcur_len(&w)), CKPT_HEAD, 0, 9);
	write_file("checkpoint-0000000000000009", block, CKPT_BLOCK_HEADER + wcur_len(&w));
	fmt_seg_encode(&h, seg);
	segment_name(h.id, name + strlen(name));
	write_file(name, seg, sizeof(seg));
	write_file("journal/ffffffffffffffff.seg", seg, sizeof(seg));
	snprintf(file, sizeof(file), "%s/manifest", path);
	CHECK_OK(unlink(file));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(report.manifest_rebuilt);
	expect_all(ns);
}

/* The first segment's header is all that is left to make a superblock from; it is no better for it. */
TEST(test_repair__hostile_segment_sizes_do_not_count)
{
	static const uint32_t shifts[] = { 0, 19, 31, 32788, UINT32_MAX };
	uint8_t seg[FMT_SEG_HEADER];
	char file[PATH_MAX + 340];
	uint64_t ns;

	small_store(&ns);
	drop_checkpoints();
	for (size_t i = 0; i < ARRAY_SIZE(shifts); i++) {
		const struct seg_header h = { .id = 1, .segment_shift = shifts[i] };

		fmt_seg_encode(&h, seg);
		write_file("journal/0000000000000001.seg", seg, sizeof(seg));
		snprintf(file, sizeof(file), "%s/superblock", path);
		(void)unlink(file);
		snprintf(file, sizeof(file), "%s/superblock.bak", path);
		(void)unlink(file);
		CHECK_EQ(repair_with(NULL, &told, &report), EMDB_ERR_NOT_STORE);
	}
}

/* Nothing is known of what was damaged, not even a name. */
TEST(test_repair__a_loss_without_any_name)
{
	emdb_db *db = store_new();
	uint64_t ref, found, count;

	put(db, EMDB_ROOT, "the only one", "1");
	ref = ref_of(db, EMDB_ROOT, "the only one");
	CHECK_OK(emdb_close(db));
	for (uint32_t i = 0; i < 40; i++)
		spoil(ref, i);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.lost_entries, 1);
	db = store_open(0);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, 0);
	CHECK_EQ(emdb_ns_open(db, EMDB_ROOT, "lost+found", 10, &found), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_close(db));
}

/* ---- What makes no sense, though its sums are right -------------------------------------------- */

/* Without the fields that its kind must have. */
static void make_senseless(uint64_t ref)
{
	uint8_t mask;
	const int fd = open_segment(ref_lsn(ref));
	const off_t at = (off_t)(ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1)) + FMT_FRAME_HEADER;

	CHECK_EQ(pread(fd, &mask, 1, at), 1);
	close(fd);
	CHECK(mask && !(mask & 0x80));
	forge(ref, FMT_FRAME_HEADER, mask);
}

/* The image says of itself that it has other numbers of entries. */
static void forge_image(const char *name)
{
	uint8_t b[CKPT_BLOCK_HEADER + CKPT_END_SIZE];
	char file[PATH_MAX + 340];
	struct ckpt_block block;
	struct ckpt_end end;
	struct wcur w = wcur_init(b + CKPT_BLOCK_HEADER, CKPT_END_SIZE);
	off_t at;
	int fd;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	fd = open(file, O_RDWR);
	CHECK(fd >= 0);
	at = lseek(fd, -(off_t)sizeof(b), SEEK_END);
	CHECK_EQ(pread(fd, b, sizeof(b), at), sizeof(b));
	CHECK(fmt_ckpt_open(b, sizeof(b), &block) && fmt_ckpt_end_get(&block, &end));
	end.records++;
	fmt_ckpt_end_put(&w, &end);
	(void)fmt_ckpt_finish(b, sizeof(b));
	CHECK_EQ(pwrite(fd, b, sizeof(b), at), sizeof(b));
	close(fd);
}

/* It was said to be intact, and no open could do without the image. */
TEST(test_repair__a_senseless_record_below_the_checkpoint)
{
	uint64_t ns, older;

	small_store_of(&ns, &older);
	make_senseless(older);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_UEQ(told.count[EMDB_DAMAGE_PLACE], 1);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(!report.intact);
	CHECK_OK(check_store(&told));
	drop_checkpoints();
	expect_all(ns);
}

/* An image that no open takes is none for a repair: it was said to be intact, and did not open. */
TEST(test_repair__an_image_that_does_not_fit)
{
	uint64_t ns, older;
	emdb_db *db;

	small_store_of(&ns, &older);
	forge_image("checkpoint-0000000000000001");
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_UEQ(told.count[EMDB_DAMAGE_FILE], 1);
	make_senseless(older);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_CORRUPT);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK(!report.intact);
	expect_all(ns);
	CHECK_OK(check_store(&told));
}

/* As an image can say it: the slot of a namespace is one of a plain value. */
static void forge_slot(emdb_db *db, const char *key)
{
	const uint64_t hash = entry_hash(db, EMDB_ROOT, key, strlen(key));
	const unsigned int pin = epoch_pin(&db->epoch);
	uint64_t slot;

	CHECK_UEQ(hidx_find_pinned(&db->root->idx, hash, &slot, 1), 1);
	epoch_unpin(&db->epoch, pin);
	CHECK_OK(hidx_replace(&db->root->idx, hash, slot, slot ^ REF_SPECIAL));
}

/* A namespace was written to as if it were a value: what that left in the journal made no sense. */
TEST(test_repair__a_slot_of_another_kind)
{
	emdb_db *db = store_new();
	struct emdb_attr attr;

	(void)mkns(db, EMDB_ROOT, "space");
	put(db, EMDB_ROOT, "plain", "1");
	forge_slot(db, "space");
	forge_slot(db, "plain");
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, "space", 5, &attr), EMDB_ERR_CORRUPT);
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, "plain", 5, &attr), EMDB_ERR_CORRUPT);
	CHECK_OK(emdb_close(db));
}

static emdb_db *open_verifying(void)
{
	const struct emdb_options o = { .size = sizeof(o),
					.verify = EMDB_VERIFY_ALWAYS,
					.sweep_interval_ms = -1,
					.compact_percent = -1 };
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

/*
 * The record of a namespace went bad before the image was written, so that the image counts it as something else,
 * and damage behind it excuses that. The image of the repair counts what there is.
 */
TEST(test_repair__counts_are_those_of_the_index)
{
	struct emdb_stats stats;
	uint64_t ns, older, later;
	char file[PATH_MAX + 340];
	emdb_db *db;

	small_store_of(&ns, &older);
	db = open_verifying();
	ns = mkns(db, EMDB_ROOT, "space");
	put(db, ns, "in it", "7");
	spoil(ref_of(db, EMDB_ROOT, "space"), 0);
	CHECK_OK(emdb_checkpoint(db));
	put(db, EMDB_ROOT, "later", "5");
	later = ref_of(db, EMDB_ROOT, "later");
	CHECK_OK(emdb_close(db));
	snprintf(file, sizeof(file), "%s/checkpoint-0000000000000003", path);
	CHECK_OK(unlink(file));
	spoil(later, 0);
	make_senseless(older);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.renamed, 1);
	db = store_open(0);
	CHECK(db->ckpt.loaded);
	CHECK_OK(emdb_stats_get(db, &stats));
	CHECK_UEQ(stats.namespaces, 2);
	CHECK_UEQ(stats.records, 5);
	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "space", 5, &ns));
	expect(db, ns, "in it", "7");
	expect(db, EMDB_ROOT, "b", "4");
	CHECK_OK(emdb_close(db));
	CHECK_OK(check_store(&told));
}

/* ---- Behind the checkpoint ------------------------------------------------------------------- */

/* As small_store(), with "two" changed behind the checkpoint; how it was left: killed. */
static uint64_t tail_store(uint64_t *ret_ns, bool remove)
{
	emdb_db *db;
	uint64_t lsn;

	small_store(ret_ns);
	db = store_open(0);
	CHECK_OK(emdb_checkpoint(db));
	lsn = journal_tail(db->j);
	if (remove)
		CHECK_OK(emdb_remove(db, *ret_ns, "two", 3, NULL, NULL));
	else
		put(db, *ret_ns, "two", "the newest value");
	put(db, EMDB_ROOT, "later", "5");
	CHECK_OK(emdb_flush(db));
	put(db, EMDB_ROOT, "last", "6");
	CHECK_OK(emdb_flush(db));
	/* So little that closing makes no checkpoint would be chance: the image is what it was. */
	CHECK_OK(emdb_close(db));
	return lsn;
}

static void older_state(bool remove)
{
	uint64_t ns, found, count;
	emdb_db *db;
	const uint64_t lsn = tail_store(&ns, remove);

	drop_checkpoints();
	spoil(lsn, 0);
	CHECK_EQ(store_try(0, &db), EMDB_ERR_DAMAGED);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_OLDER, "a/two"));
	CHECK_UEQ(told.count[EMDB_DAMAGE_UNKNOWN], 0);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.older, 1);
	CHECK_UEQ(report.unknown_bytes, 0);
	for (int i = 0; i < 2; i++) {
		db = store_open(0);
		expect(db, ns, "two", NULL);
		expect(db, ns, "one", "1");
		expect(db, EMDB_ROOT, "later", "5");
		expect(db, EMDB_ROOT, "last", "6");
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "lost+found", 10, &found));
		CHECK_OK(emdb_count(db, found, &count));
		CHECK_UEQ(count, 1);
		CHECK_OK(emdb_close(db));
		drop_checkpoints();
	}
}

TEST(test_repair__an_older_value_is_set_aside)
{
	older_state(false);
}

TEST(test_repair__a_lost_removal_brings_nothing_back)
{
	older_state(true);
}

/* ---- Backups, copies, snapshots ---------------------------------------------------------------- */

TEST(test_repair__from_a_backup)
{
	const char *const dir = test_dir();
	char backup[PATH_MAX + 16];
	struct emdb_backup_options copy = { .size = sizeof(copy), .flags = EMDB_BACKUP_COPY };
	struct emdb_repair_options o = { .size = sizeof(o), .backup = backup };
	uint64_t ns, ref;
	emdb_db *db;

	snprintf(backup, sizeof(backup), "%s/backup", dir);
	ref = small_store(&ns);
	db = store_open(0);
	CHECK_OK(emdb_backup(db, backup, &copy, NULL));
	CHECK_OK(emdb_close(db));
	spoil(ref, 44);
	spoil(ref, 45);
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_OK(repair_with(&o, &told, &report));
	CHECK_UEQ(report.restored_segments, 1);
	CHECK_UEQ(report.lost_entries, 0);
	expect_all(ns);
}

TEST(test_repair__to_another_place)
{
	const char *const dir = test_dir();
	char target[PATH_MAX + 16];
	struct emdb_repair_options o = { .size = sizeof(o), .target = target };
	uint64_t ns;
	const uint64_t ref = small_store(&ns);
	emdb_db *db;

	snprintf(target, sizeof(target), "%s/target", dir);
	spoil(ref, 44);
	CHECK_OK(repair_with(&o, &told, &report));
	CHECK_UEQ(report.lost_entries, 1);
	/* The source is as it was. */
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK_EQ(repair_with(&o, &told, &report), EMDB_ERR_EXISTS);
	memcpy(path, target, sizeof(path));
	CHECK_OK(check_store(&told));
	db = store_open(0);
	expect(db, ns, "one", "1");
	expect(db, ns, "two", NULL);
	CHECK_OK(emdb_close(db));
}

TEST(test_repair__snapshots_that_share_the_damage_are_named)
{
	emdb_db *db = store_new();
	uint64_t ref;

	put(db, EMDB_ROOT, "a", "1");
	ref = ref_of(db, EMDB_ROOT, "a");
	CHECK_OK(emdb_snapshot_create(db, "monday", NULL));
	put(db, EMDB_ROOT, "b", "2");
	CHECK_OK(emdb_close(db));
	spoil(ref, 30);
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(told.count[EMDB_DAMAGE_SNAPSHOT], 1);
	CHECK(strstr(told.all, "monday") != NULL);
	db = store_open(0);
	expect(db, EMDB_ROOT, "a", NULL);
	expect(db, EMDB_ROOT, "b", "2");
	CHECK_OK(emdb_close(db));
}

TEST(test_repair__what_is_no_store_stays_none)
{
	snprintf(path, sizeof(path), "%s", test_dir());
	CHECK_EQ(repair_with(NULL, &told, &report), EMDB_ERR_NOT_STORE);
	snprintf(path, sizeof(path), "%s/absent", test_dir());
	CHECK_EQ(repair_with(NULL, &told, &report), EMDB_ERR_NO_STORE);
}

TEST_MAIN()
