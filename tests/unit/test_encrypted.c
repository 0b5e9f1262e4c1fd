/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypted stores through the public interface. */
#include "tests/unit/encrypted_help.h"

static const enum emdb_cipher ciphers[] = { EMDB_CIPHER_AES_256_GCM,
					    EMDB_CIPHER_CHACHA20_POLY1305 };

static void check_value(emdb_db *db, uint64_t ns, const char *key, const void *want,
			size_t want_len)
{
	struct emdb_ref ref;
	void *value;
	size_t len;

	CHECK_OK(emdb_get(db, ns, key, strlen(key), &value, &len));
	CHECK_MEM(value, len, want, want_len);
	emdb_free(value);
	CHECK_OK(emdb_get_ref(db, ns, key, strlen(key), &ref));
	CHECK_MEM(ref.data, ref.len, want, want_len);
	emdb_ref_release(&ref);
}

static void check_planted(emdb_db *db)
{
	char *const big = malloc(BIG_BYTES);
	char value[100016] = PLANT_VALUE, buf[64];
	struct emdb_attr attr;
	uint64_t ns;
	size_t len;

	for (size_t i = 0; i < BIG_BYTES; i += 16)
		memcpy(big + i, PLANT_VALUE, 16);
	memcpy(value + 100, PLANT_VALUE, 16);
	memcpy(value + 100000, PLANT_VALUE, 16);
	check_value(db, EMDB_ROOT, PLANT_KEY, value, sizeof(value));
	check_value(db, EMDB_ROOT, "medium" PLANT_KEY, big, 7000);
	check_value(db, EMDB_ROOT, "big" PLANT_KEY, big, BIG_BYTES);
	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, PLANT_NS, 16, &ns));
	check_value(db, ns, PLANT_KEY, PLANT_VALUE, 16);
	check_value(db, ns, "batch1" PLANT_KEY, PLANT_VALUE, 16);
	check_value(db, ns, "batch2", PLANT_VALUE, 16);
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, PLANT_KEY, 16, &attr));
	CHECK_OK(emdb_xattr_get(db, attr.id, PLANT_XATTR, buf, sizeof(buf), &len));
	CHECK_MEM(buf, len, PLANT_XVAL, 16);
	emdb_node_forget(db, attr.id, 1);
	free(big);
}

TEST(test_encrypted__what_is_written_is_read)
{
	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++) {
		const char *const path = test_dir();
		struct emdb_check_report report;
		struct emdb_stats st;
		emdb_db *db;

		if (!emdb_cipher_available(ciphers[i])) {
			printf("no %s here\n", emdb_cipher_name(ciphers[i]));
			continue;
		}
		db = open_store(path, &secret, ciphers[i]);
		CHECK_OK(emdb_stats_get(db, &st));
		CHECK(st.encrypted);
		plant(db);
		check_planted(db);
		CHECK_OK(emdb_close(db));
		db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);
		check_planted(db);
		CHECK_OK(emdb_compact(db, NULL, NULL));
		check_planted(db);
		CHECK_OK(emdb_close(db));
		CHECK_OK(emdb_check_secret(path, &secret, NULL, NULL, &report));
		CHECK_EQ(emdb_check(path, NULL, NULL, &report), EMDB_ERR_KEY_REQUIRED);
		db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);
		check_planted(db);
		CHECK_OK(emdb_close(db));
	}
}

/* ---- What lies on disk ------------------------------------------------------- */

/* The store, its snapshot and its backup, while it is open, killed and closed. */
TEST(test_encrypted__nothing_planted_is_found_on_disk)
{
	const char *const path = test_dir(), *const copy = test_dir(), *const plain = test_dir();
	char backup[PATH_MAX + 8];
	struct hunt h = { 0, 0 };
	emdb_db *db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

	snprintf(backup, sizeof(backup), "%s/b", copy);
	plant(db);
	CHECK_OK(emdb_flush(db));
	each_file(path, hunt_file, &h);
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "one", NULL));
	CHECK_OK(emdb_compact(db, NULL, NULL));
	CHECK_OK(emdb_backup(db, backup, NULL, NULL));
	each_file(path, hunt_file, &h);
	each_file(copy, hunt_file, &h);
	CHECK_OK(emdb_close(db));
	each_file(path, hunt_file, &h);
	CHECK_UEQ(h.found, 0);
	CHECK(h.files > 20);
	/* The hunter finds what is there. */
	db = open_store(plain, NULL, EMDB_CIPHER_DEFAULT);
	plant(db);
	CHECK_OK(emdb_close(db));
	each_file(plain, hunt_file, &h);
	CHECK(h.found >= ARRAY_SIZE(plants));
}

/* ---- Two stores of one content --------------------------------------------------- */

struct blocks {
	struct buf all; /* 16 bytes each */
	const struct blocks *others;
	size_t shared;
};

/* What a segment has behind its header, zeros apart. */
static void take_blocks(void *ctx, const char *path, uint8_t *p, size_t n)
{
	static const uint8_t zeros[16];
	struct blocks *const b = ctx;
	/* Of checkpoints the lengths, kinds and numbers of blocks are in clear, wherever they lie. */
	const size_t from = strstr(path, ".seg") ? 256 : n;

	for (size_t at = from; at + 16 <= n; at += 16) {
		if (memcmp(p + at, zeros, 16) == 0)
			continue;
		if (b->others && b->others->all.len &&
		    memmem(b->others->all.data, b->others->all.len, p + at, 16))
			b->shared++;
		tell(&b->all, p + at, 16);
	}
}

static void same_content(const char *path, const struct emdb_secret *s)
{
	emdb_db *const db = open_store(path, s, EMDB_CIPHER_DEFAULT);

	for (char k = 'a'; k <= 'z'; k++)
		CHECK_OK(
			emdb_put(db, EMDB_ROOT, &k, 1, PLANT_VALUE PLANT_VALUE PLANT_VALUE, 48, 0));
	CHECK_OK(emdb_close(db));
}

TEST(test_encrypted__stores_of_one_content_share_no_block)
{
	for (int plain = 0; plain < 2; plain++) {
		const char *const a = test_dir(), *const b = test_dir();
		struct blocks one = { .all = BUF_INIT }, two = { .all = BUF_INIT, .others = &one };

		same_content(a, plain ? NULL : &secret);
		same_content(b, plain ? NULL : &secret);
		each_file(a, take_blocks, &one);
		each_file(b, take_blocks, &two);
		CHECK(one.all.len > 16 * 100);
		/* Of plain stores it finds them. */
		CHECK_EQ(two.shared > 0, plain);
		buf_release(&one.all);
		buf_release(&two.all);
	}
}

TEST_MAIN()
