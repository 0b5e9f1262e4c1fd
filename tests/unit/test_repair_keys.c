/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb_repair() of encrypted stores: with the key it saves what it saves of plain ones, without it nothing
 * is touched, and what was encrypted never becomes a plain store.
 */
#include "tests/unit/damage_help.h"

#include "core/manifest.h"

static const uint8_t raw_key[33] = "0123456789abcdef0123456789ABCDEF";
static const uint8_t other_key[33] = "another key of thirty-two bytes.";
static const struct emdb_secret secret = { EMDB_SECRET_KEY, raw_key, 32, NULL, 0, 0, 0 };
static const struct emdb_secret other = { EMDB_SECRET_KEY, other_key, 32, NULL, 0, 0, 0 };

static struct told told;
static struct emdb_repair_report report;
static char text[512];

static emdb_err open_with(const char *at, const struct emdb_secret *s, emdb_db **ret)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1,
					.compact_percent = -1,
					.secret = s };

	return emdb_open(at, &o, ret);
}

static emdb_db *open_store(void)
{
	emdb_db *db = NULL;

	CHECK_OK(open_with(path, &secret, &db));
	return db;
}

static emdb_err repair_as(const struct emdb_secret *s, const char *backup)
{
	struct emdb_repair_options o = { .size = sizeof(o), .secret = s, .backup = backup };
	struct emdb_detail detail = { .text = "" };
	emdb_err err;

	memset(&told, 0, sizeof(told));
	o.found = on_found;
	o.ctx = &told;
	o.detail = &detail;
	err = emdb_repair(path, &o, &report);
	memcpy(text, detail.text, sizeof(text));
	if (getenv("VERBOSE"))
		printf("repair %s: %s\n%s", emdb_err_name(err), text, told.all);
	return err;
}

static emdb_err check_it(void)
{
	struct emdb_check_report counts;

	memset(&told, 0, sizeof(told));
	return emdb_check_secret(path, &secret, on_found, &told, &counts);
}

/* ---- Files ---- */

static char *file_of(const char *name)
{
	static char file[PATH_MAX + 340];

	snprintf(file, sizeof(file), "%s/%s", path, name);
	return file;
}

static size_t slurp(const char *name, uint8_t *buf, size_t size)
{
	const int fd = open(file_of(name), O_RDONLY);
	const ssize_t n = read(fd, buf, size);

	CHECK(fd >= 0 && n >= 0);
	close(fd);
	return (size_t)n;
}

static void spit(const char *name, const void *p, size_t n)
{
	const int fd = open(file_of(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, p, n), n);
	close(fd);
}

static bool is_there(const char *name)
{
	return access(file_of(name), F_OK) == 0;
}

static void supers_away(void)
{
	(void)unlink(file_of("superblock"));
	(void)unlink(file_of("superblock.bak"));
}

static void images_away(void)
{
	DIR *const d = opendir(path);
	struct dirent *e;

	CHECK(d != NULL);
	while ((e = readdir(d)))
		if (strncmp(e->d_name, "checkpoint-", 11) == 0)
			CHECK_OK(unlink(file_of(e->d_name)));
	closedir(d);
}

/* ---- Stores ---- */

static uint64_t ns_a;

/* Encrypted from the beginning, or afterwards: then tags are apart. Returns the record of a/two. */
static uint64_t new_store(bool converted)
{
	emdb_db *db = NULL;
	uint64_t ref;

	snprintf(path, sizeof(path), "%s/store", test_dir());
	CHECK_OK(open_with(path, converted ? NULL : &secret, &db));
	ns_a = mkns(db, EMDB_ROOT, "a");
	put(db, ns_a, "one", "1");
	put(db, ns_a, "two", "a value of some length");
	put(db, ns_a, "three", "3");
	put(db, EMDB_ROOT, "b", "4");
	ref = ref_of(db, ns_a, "two");
	CHECK_OK(emdb_snapshot_create(db, "monday", NULL));
	CHECK_OK(emdb_close(db));
	if (converted)
		CHECK_OK(emdb_encrypt(path, &secret, NULL));
	return ref;
}

/* two: "a value of some length", or NULL when it is lost. */
static void expect_rest(const char *two)
{
	struct emdb_encryption e;
	struct manifest_head h;
	uint8_t m[4096];
	emdb_db *db;

	CHECK_EQ(open_with(path, NULL, &db), EMDB_ERR_KEY_REQUIRED);
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK(e.cipher != 0 && e.used == 1);
	CHECK_OK(emdb_key_check(path, &secret, NULL));
	db = open_store();
	expect(db, ns_a, "one", "1");
	expect(db, ns_a, "two", two);
	expect(db, ns_a, "three", "3");
	expect(db, EMDB_ROOT, "b", "4");
	put(db, EMDB_ROOT, "new", "5");
	CHECK_OK(emdb_close(db));
	CHECK_OK(check_it());
	CHECK_OK(fmt_manifest_decode(m, slurp("manifest", m, sizeof(m)), &h));
	CHECK(h.flags & MANIFEST_MAC);
}

#define TWO "a value of some length"

TEST(test_repair_keys__nothing_without_the_key)
{
	for (int converted = 0; converted < 2; converted++) {
		spoil(new_store(converted), 44);
		CHECK_EQ(repair_as(NULL, NULL), EMDB_ERR_KEY_REQUIRED);
		CHECK(strstr(text, "its key is needed") != NULL);
		CHECK_EQ(repair_as(&other, NULL), EMDB_ERR_WRONG_KEY);
		CHECK(strstr(text, "does not open the store") != NULL);
		CHECK(!is_there("lost"));
		/* Nor from a copy of the superblock, nor without the directory journal/. */
		CHECK_OK(unlink(file_of("superblock")));
		CHECK_EQ(repair_as(NULL, NULL), EMDB_ERR_KEY_REQUIRED);
		CHECK_EQ(repair_as(&other, NULL), EMDB_ERR_WRONG_KEY);
		CHECK(!is_there("superblock") && !is_there("lost"));
	}
}

TEST(test_repair_keys__an_entry_is_lost)
{
	for (int converted = 0; converted < 2; converted++) {
		spoil(new_store(converted), 30);
		CHECK_EQ(check_it(), EMDB_ERR_CORRUPT);
		/* Its name is sealed, too. */
		if (told.count[EMDB_DAMAGE_LOST] != 1)
			FAIL("%s", told.all);
		CHECK_OK(repair_as(&secret, NULL));
		CHECK_UEQ(report.lost_entries, 1);
		CHECK_UEQ(told.count[EMDB_DAMAGE_LOST], 1);
		expect_rest(NULL);
		CHECK_OK(repair_as(&secret, NULL));
		CHECK(report.intact);
	}
}

TEST(test_repair_keys__to_another_place)
{
	char target[PATH_MAX + 16];
	struct emdb_repair_options o = { .size = sizeof(o), .target = target };

	spoil(new_store(false), 30);
	snprintf(target, sizeof(target), "%s/target", test_dir());
	/* The place is still free afterwards, for who comes back with the key. */
	CHECK_EQ(emdb_repair(path, &o, &report), EMDB_ERR_KEY_REQUIRED);
	CHECK_EQ(access(target, F_OK), -1);
	o.secret = &secret;
	CHECK_OK(emdb_repair(path, &o, &report));
	CHECK_UEQ(report.lost_entries, 1);
	CHECK_EQ(check_it(), EMDB_ERR_CORRUPT);
	memcpy(path, target, sizeof(target));
	expect_rest(NULL);
}

/* Somebody without the key changed a record and made its CRC right. */
TEST(test_repair_keys__a_forged_record_is_lost)
{
	const uint64_t ref = new_store(false);
	const uint64_t off = ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1);
	static uint8_t seg[EMDB_SEGMENT_MIN];
	struct seg_header h;
	struct frame f;
	size_t n;

	n = slurp("journal/0000000000000001.seg", seg, sizeof(seg));
	CHECK(fmt_seg_decode(seg, n, &h));
	CHECK_EQ(fmt_frame_parse(seg + off, n - off, ref_lsn(ref), true, fmt_crc_seed(h.salt), &f),
		 FRAME_OK);
	seg[off + 30] ^= 1;
	fmt_frame_finish(seg + off, f.len, fmt_crc_seed(h.salt));
	spit("journal/0000000000000001.seg", seg, n);
	CHECK_OK(repair_as(&secret, NULL));
	CHECK_UEQ(report.lost_entries, 1);
	expect_rest(NULL);
}

TEST(test_repair_keys__files_come_back)
{
	static const char *const names[] = { "superblock", "manifest",
					     "checkpoint-0000000000000001", "superblock.bak" };

	for (int converted = 0; converted < 2; converted++)
		for (size_t i = 0; i < 2 * ARRAY_SIZE(names); i++) {
			const char *const name = names[i / 2];

			new_store(converted);
			if (!is_there(name))
				continue;
			if (i % 2)
				CHECK_OK(unlink(file_of(name)));
			else
				spoil_file(name, 50);
			CHECK_OK(repair_as(&secret, NULL));
			CHECK_UEQ(report.lost_entries + report.older + report.adrift, 0);
			expect_rest(TWO);
		}
}

TEST(test_repair_keys__the_superblock_of_a_snapshot)
{
	for (int converted = 0; converted < 2; converted++) {
		new_store(converted);
		supers_away();
		CHECK_EQ(repair_as(&other, NULL), EMDB_ERR_WRONG_KEY);
		CHECK(strstr(text, "any copy of the superblock") != NULL);
		CHECK_OK(repair_as(&secret, NULL));
		CHECK(!report.super_rebuilt);
		/* It is no snapshot: it can be changed. */
		expect_rest(TWO);
	}
}

static void no_snapshots(void)
{
	emdb_db *const db = open_store();

	CHECK_OK(emdb_snapshot_delete(db, "monday"));
	CHECK_OK(emdb_close(db));
}

static void backup_to(const char *to)
{
	emdb_db *const db = open_store();

	CHECK_OK(emdb_backup(db, to, NULL, NULL));
	CHECK_OK(emdb_close(db));
}

TEST(test_repair_keys__the_superblock_of_a_backup)
{
	char backup[PATH_MAX + 16];

	for (int converted = 0; converted < 2; converted++) {
		new_store(converted);
		snprintf(backup, sizeof(backup), "%s/backup", test_dir());
		backup_to(backup);
		no_snapshots();
		supers_away();
		CHECK_OK(repair_as(&secret, backup));
		expect_rest(TWO);
	}
}

/* Refused, and as it was. */
static void expect_refused(const char *backup)
{
	CHECK_EQ(repair_as(&secret, backup), EMDB_ERR_NOT_STORE);
	CHECK(strstr(text, "snapshots/NAME/superblock") != NULL);
	/* Whether a copy is the right one, only the key says. */
	CHECK_EQ(repair_as(NULL, backup), backup ? EMDB_ERR_KEY_REQUIRED : EMDB_ERR_NOT_STORE);
	CHECK(strstr(text, "encrypted") != NULL);
	CHECK(!is_there("lost") && !is_there("superblock.bak"));
}

TEST(test_repair_keys__never_a_plain_store)
{
	static uint8_t super[FMT_SUPER_SIZE];

	for (int converted = 0; converted < 2; converted++) {
		new_store(converted);
		no_snapshots();
		CHECK_UEQ(slurp("superblock", super, sizeof(super)), sizeof(super));
		supers_away();
		expect_refused(NULL);
		CHECK(!is_there("superblock"));
		/* Not even when nothing says so but the records. */
		CHECK_OK(unlink(file_of("manifest")));
		images_away();
		expect_refused(NULL);
		/* As we were told. */
		spit("superblock", super, sizeof(super));
		CHECK_OK(repair_as(&secret, NULL));
		expect_rest(TWO);
	}
}

/* A good superblock of the same store, from before it was encrypted. */
TEST(test_repair_keys__a_plain_superblock_does_not_fit)
{
	static uint8_t super[FMT_SUPER_SIZE];
	emdb_db *db = NULL;

	snprintf(path, sizeof(path), "%s/store", test_dir());
	CHECK_OK(open_with(path, NULL, &db));
	ns_a = mkns(db, EMDB_ROOT, "a");
	put(db, ns_a, "one", "1");
	CHECK_OK(emdb_close(db));
	CHECK_UEQ(slurp("superblock", super, sizeof(super)), sizeof(super));
	CHECK_OK(emdb_encrypt(path, &secret, NULL));
	supers_away();
	spit("superblock", super, sizeof(super));
	CHECK_EQ(repair_as(NULL, NULL), EMDB_ERR_NOT_STORE);
	CHECK(strstr(text, "encrypted") != NULL);
	CHECK_OK(unlink(file_of("superblock")));
	spit("superblock.bak", super, sizeof(super));
	CHECK_EQ(repair_as(NULL, NULL), EMDB_ERR_NOT_STORE);
	CHECK_EQ(repair_as(&secret, NULL), EMDB_ERR_NOT_STORE);
	CHECK(!is_there("superblock") && !is_there("lost"));
}

/* A backup from before the data key was replaced, and one of another store, with the same key. */
TEST(test_repair_keys__a_superblock_with_other_keys_does_not_fit)
{
	char backup[PATH_MAX + 16], strange[PATH_MAX + 16];

	new_store(false);
	snprintf(strange, sizeof(strange), "%s/strange", test_dir());
	backup_to(strange);
	new_store(false);
	snprintf(backup, sizeof(backup), "%s/backup", test_dir());
	backup_to(backup);
	no_snapshots();
	CHECK_OK(emdb_rotate(path, &secret, 1, NULL));
	supers_away();
	expect_refused(backup);
	CHECK_EQ(repair_as(&secret, strange), EMDB_ERR_NOT_STORE);
	CHECK_EQ(repair_as(NULL, strange), EMDB_ERR_NOT_STORE);
}

TEST(test_repair_keys__what_was_changed_without_the_key)
{
	static uint8_t b[8192];
	struct superblock sb;
	struct manifest_head h;
	size_t n;

	new_store(false);
	/* A superblock with other feature bits; the copy is good. */
	CHECK_OK(fmt_super_decode(b, slurp("superblock", b, FMT_SUPER_SIZE), &sb));
	sb.uid++;
	fmt_super_encode(&sb, b);
	spit("superblock", b, FMT_SUPER_SIZE);
	CHECK_OK(repair_as(&secret, NULL));
	expect_rest(TWO);
	/* A manifest without segments. */
	n = slurp("manifest", b, sizeof(b));
	CHECK_OK(fmt_manifest_decode(b, n, &h));
	h.nsegs = h.ngaps = 0;
	fmt_manifest_encode(&h, NULL, NULL, b);
	spit("manifest", b, fmt_manifest_len(&h));
	CHECK_OK(repair_as(&secret, NULL));
	CHECK(report.manifest_rebuilt);
	expect_rest(TWO);
}

TEST(test_repair_keys__a_segment_header)
{
	for (int converted = 0; converted < 2; converted++) {
		static const uint8_t zeros[FMT_SEG_SALT];
		const uint64_t ref = new_store(converted);
		const int fd = open_segment(ref_lsn(ref));

		/* All before the salt. */
		CHECK_EQ(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
		close(fd);
		CHECK_OK(repair_as(&secret, NULL));
		expect_rest(TWO);
	}
}

TEST_MAIN()
