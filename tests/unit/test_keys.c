/* SPDX-License-Identifier: Apache-2.0 */
/* Key slots: which secret opens what, and what a changed superblock says. */
#include "core/keyslot.h"
#include "core/storedir.h"

#include <ctype.h>
#include <sodium.h>

#include "tests/unit/test.h"

/* Cheap, so that tests are quick. */
#define PASS(s)                                                                    \
	{                                                                          \
		.kind = EMDB_SECRET_PASSPHRASE, .data = (s), .len = sizeof(s) - 1, \
		.kdf_memory_kib = 64, .kdf_passes = 1, .kdf_lanes = 2              \
	}

static const struct emdb_secret pass_a = PASS("correct horse"), pass_b = PASS("battery staple"),
				pass_wrong = PASS("correct hors");

/* A superblock with pass_a in slot 0; the io is for randomness. */
static struct superblock super_new(struct emdb_io *io, struct vault_secrets **ret)
{
	struct superblock sb = { .version = FMT_VERSION,
				 .segment_shift = 20,
				 .cipher = EMDB_CIPHER_CHACHA20_POLY1305,
				 .incompat = FMT_INCOMPAT_SEEDED | FMT_INCOMPAT_ENCRYPTED };
	struct vault_secrets *s;

	CHECK_OK(crypto_init());
	s = vault_secrets_new();
	CHECK(s);
	randombytes_buf(sb.uuid, sizeof(sb.uuid));
	randombytes_buf(s->data_key, sizeof(s->data_key));
	randombytes_buf(s->hash_seed, sizeof(s->hash_seed));
	CHECK_OK(keyslot_fill(&sb, 0, io, &pass_a, s));
	keyslot_mac(&sb, s);
	*ret = s;
	return sb;
}

TEST(test_keys__a_slot_gives_back_what_it_holds)
{
	struct emdb_io *const io = emdb_io_posix_new();
	struct vault_secrets *s, *got;
	struct superblock sb = super_new(io, &s), read;
	uint8_t raw[32], buf[FMT_SUPER_SIZE];
	char text[EMDB_RECOVERY_TEXT_SIZE];
	const struct emdb_secret key = { EMDB_SECRET_KEY, raw, sizeof(raw), "a file", 0, 0, 0 };
	struct emdb_secret recovery = { .kind = EMDB_SECRET_RECOVERY };
	uint32_t slot = 99;

	randombytes_buf(raw, sizeof(raw));
	CHECK_OK(keyslot_fill(&sb, 3, io, &key, s));
	CHECK_OK(emdb_recovery_key_new(text));
	recovery.data = text;
	recovery.len = strlen(text);
	CHECK_OK(keyslot_fill(&sb, 7, io, &recovery, s));
	keyslot_mac(&sb, s);
	fmt_super_encode(&sb, buf);
	CHECK_EQ(fmt_super_decode(buf, sizeof(buf), &read), EMDB_OK);
	CHECK_STR(read.slots[3].label, "a file");

	CHECK_OK(keyslot_open(&read, &pass_a, &slot, &got));
	CHECK_UEQ(slot, 0);
	CHECK_MEM((uint8_t *)got, sizeof(*got), (uint8_t *)s, sizeof(*s));
	vault_secrets_free(got);
	CHECK_OK(keyslot_open(&read, &key, &slot, &got));
	CHECK_UEQ(slot, 3);
	CHECK_MEM((uint8_t *)got, sizeof(*got), (uint8_t *)s, sizeof(*s));
	vault_secrets_free(got);
	CHECK_OK(keyslot_open(&read, &recovery, &slot, NULL));
	CHECK_UEQ(slot, 7);
	slot = 99;
	CHECK_EQ(keyslot_open(&read, &pass_b, &slot, NULL), EMDB_ERR_WRONG_KEY);
	CHECK_EQ(keyslot_open(&read, &pass_wrong, &slot, NULL), EMDB_ERR_WRONG_KEY);
	raw[31] ^= 1;
	CHECK_EQ(keyslot_open(&read, &key, &slot, NULL), EMDB_ERR_WRONG_KEY);
	CHECK_UEQ(slot, 99);
	vault_secrets_free(s);
	emdb_io_free(io);
}

TEST(test_keys__recovery_text_is_forgiving_but_checked)
{
	char text[EMDB_RECOVERY_TEXT_SIZE], other[EMDB_RECOVERY_TEXT_SIZE * 2];
	struct emdb_secret s = { .kind = EMDB_SECRET_RECOVERY };
	size_t n = 0, wrong = 0;

	CHECK_OK(emdb_recovery_key_new(text));
	CHECK_UEQ(strlen(text), 14 * 4 + 13);
	for (const char *p = text; *p; p++) {
		if (*p == '-')
			continue;
		other[n++] = *p == '0' ? 'o' : *p == '1' ? 'l' : (char)tolower(*p);
		if (n % 7 == 0)
			other[n++] = ' ';
	}
	s.data = other;
	s.len = n;
	CHECK_OK(keyslot_secret_check(&s));
	s.data = text;
	/* Every single wrong character and every missing one is a typing error. */
	for (size_t i = 0; i < strlen(text); i++) {
		const char was = text[i];

		s.len = i;
		CHECK_EQ(keyslot_secret_check(&s), EMDB_ERR_INVAL);
		s.len = strlen(text);
		if (was == '-')
			continue;
		for (const char *c = "0123456789ABCDEFGHJKMNPQRSTVWXYZ!"; *c; c++) {
			text[i] = *c;
			if (*c != was && keyslot_secret_check(&s) != EMDB_OK)
				wrong++;
			else if (*c != was)
				FAIL("%s passes", text);
		}
		text[i] = was;
	}
	CHECK_UEQ(wrong, 56 * 32);
	CHECK_OK(keyslot_secret_check(&s));
}

TEST(test_keys__what_is_no_secret_is_refused)
{
	static const char long_label[] = "12345678901234567890123456789012";
	static char huge[EMDB_PASSPHRASE_MAX + 1];
	const struct emdb_secret bad[] = {
		{ EMDB_SECRET_PASSPHRASE, "", 0, NULL, 0, 0, 0 },
		{ EMDB_SECRET_PASSPHRASE, NULL, 4, NULL, 0, 0, 0 },
		{ EMDB_SECRET_PASSPHRASE, huge, sizeof(huge), NULL, 0, 0, 0 },
		{ EMDB_SECRET_PASSPHRASE, "p", 1, long_label, 0, 0, 0 },
		{ EMDB_SECRET_PASSPHRASE, "p", 1, "a\nb", 0, 0, 0 },
		{ EMDB_SECRET_PASSPHRASE, "p", 1, NULL, EMDB_KDF_MEMORY_MAX_KIB + 1, 0, 0 },
		{ EMDB_SECRET_PASSPHRASE, "p", 1, NULL, 0, EMDB_KDF_PASSES_MAX + 1, 0 },
		{ EMDB_SECRET_PASSPHRASE, "p", 1, NULL, 0, 0, EMDB_KDF_LANES_MAX + 1 },
		{ EMDB_SECRET_PASSPHRASE, "p", 1, NULL, 31, 0, 4 },
		{ EMDB_SECRET_KEY, huge, 31, NULL, 0, 0, 0 },
		{ EMDB_SECRET_KEY, huge, 33, NULL, 0, 0, 0 },
		{ EMDB_SECRET_RECOVERY, huge, 32, NULL, 0, 0, 0 },
		{ (enum emdb_secret_kind)0, huge, 32, NULL, 0, 0, 0 },
		{ (enum emdb_secret_kind)4, huge, 32, NULL, 0, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		printf("row %zu\n", i);
		CHECK_EQ(keyslot_secret_check(&bad[i]), EMDB_ERR_INVAL);
	}
}

/* Whoever cannot open it cannot change it unseen: every bit, as far as it is not what restoring changes. */
TEST(test_keys__every_changed_bit_of_a_superblock_is_told)
{
	struct emdb_io *const io = emdb_io_posix_new();
	struct vault_secrets *s;
	const struct emdb_secret raw = {
		EMDB_SECRET_KEY, "0123456789abcdef0123456789abcdef", 32, NULL, 0, 0, 0
	};
	struct superblock sb = super_new(io, &s), got;
	uint8_t good[FMT_SUPER_SIZE], buf[FMT_SUPER_SIZE];
	size_t wrong = 0, corrupt = 0;

	CHECK_OK(keyslot_fill(&sb, 1, io, &raw, s));
	keyslot_mac(&sb, s);
	fmt_super_encode(&sb, good);
	for (size_t bit = 8 * 8; bit < (FMT_SUPER_SIZE - 4) * 8; bit++) {
		const size_t at = bit / 8;
		emdb_err err;

		if (at >= 104 && at < 120)
			continue;
		memcpy(buf, good, sizeof(buf));
		buf[at] ^= (uint8_t)(1 << bit % 8);
		put_u32(buf + 4092, crc32c(0, buf, 4092));
		err = fmt_super_decode(buf, sizeof(buf), &got);
		if (!err)
			err = keyslot_open(&got, &raw, NULL, NULL);
		else if (err != EMDB_ERR_VERSION)
			CHECK_EQ(err, EMDB_ERR_CORRUPT);
		if (!err)
			FAIL("bit %zu of byte %zu changes nothing", bit % 8, at);
		wrong += err == EMDB_ERR_WRONG_KEY;
		corrupt += err == EMDB_ERR_CORRUPT;
	}
	CHECK(wrong > 0 && corrupt > 0);
	/* Taking a slot away, or putting one in the place of another. */
	got = sb;
	memset(&got.slots[0], 0, sizeof(got.slots[0]));
	CHECK_EQ(keyslot_open(&got, &raw, NULL, NULL), EMDB_ERR_CORRUPT);
	got = sb;
	got.slots[0] = got.slots[1];
	CHECK_EQ(keyslot_open(&got, &raw, NULL, NULL), EMDB_ERR_CORRUPT);
	/* What restoring changes. */
	got = sb;
	got.frozen_ms = 1;
	got.snap_number = 7;
	CHECK_OK(keyslot_open(&got, &raw, NULL, NULL));
	vault_secrets_free(s);
	emdb_io_free(io);
}

/* A slot that asks for all memory or all time is not read, let alone tried. */
TEST(test_keys__hostile_cost_is_refused)
{
	static const uint32_t rows[][3] = { { UINT32_MAX, 1, 1 },    { 1024, UINT32_MAX, 1 },
					    { 1024, 1, UINT32_MAX }, { 1024, 0, 1 },
					    { 1024, 1, 0 },          { 7, 1, 1 } };
	struct emdb_io *const io = emdb_io_posix_new();
	struct vault_secrets *s;
	struct superblock sb = super_new(io, &s), got;
	uint8_t buf[FMT_SUPER_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		sb.slots[0].memory_kib = rows[i][0];
		sb.slots[0].passes = rows[i][1];
		sb.slots[0].lanes = rows[i][2];
		fmt_super_encode(&sb, buf);
		CHECK_EQ(fmt_super_decode(buf, sizeof(buf), &got), EMDB_ERR_CORRUPT);
	}
	vault_secrets_free(s);
	emdb_io_free(io);
}

/* ---- Stores ------------------------------------------------------------------ */

/* A directory with an encrypted superblock, which is all that key slots need. */
static const char *store_dir(struct emdb_io *io)
{
	const char *const path = test_dir();
	struct vault_secrets *s;
	const struct superblock sb = super_new(io, &s);
	int fd;

	CHECK_OK(io_openat(io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &fd));
	CHECK_OK(storedir_super_write(io, fd, &sb));
	CHECK_OK(io_close(io, fd));
	vault_secrets_free(s);
	return path;
}

TEST(test_keys__slots_come_and_go)
{
	struct emdb_io *const io = emdb_io_posix_new();
	const char *const path = store_dir(io);
	struct emdb_secret labelled = pass_b;
	struct emdb_encryption e;
	struct emdb_detail detail;
	uint32_t slot;

	labelled.label = "laptop";
	CHECK_OK(emdb_key_check(path, &pass_a, &slot));
	CHECK_UEQ(slot, 0);
	CHECK_EQ(emdb_key_check(path, &pass_b, &slot), EMDB_ERR_WRONG_KEY);
	CHECK_EQ(emdb_key_add(path, &pass_b, &pass_b, &slot, NULL), EMDB_ERR_WRONG_KEY);
	CHECK_EQ(emdb_key_remove(path, &pass_a, 0, &detail), EMDB_ERR_BUSY);
	CHECK(strstr(detail.text, "only one"));
	CHECK_OK(emdb_key_add(path, &pass_a, &labelled, &slot, NULL));
	CHECK_UEQ(slot, 1);
	CHECK_EQ(emdb_key_add(path, &pass_a, &labelled, &slot, NULL), EMDB_ERR_EXISTS);
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK_UEQ(e.used, 2);
	CHECK_EQ(e.cipher, EMDB_CIPHER_CHACHA20_POLY1305);
	CHECK_STR(e.slots[1].label, "laptop");
	CHECK_EQ(e.slots[1].kind, EMDB_SECRET_PASSPHRASE);
	CHECK_UEQ(e.slots[1].kdf_memory_kib, 64);
	CHECK(e.slots[1].created_ms > INT64_C(1700000000000));
	CHECK_EQ(emdb_key_remove(path, &pass_b, 2, &detail), EMDB_ERR_NOT_FOUND);
	CHECK_EQ(emdb_key_remove(path, &pass_b, 1000, &detail), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_key_remove(path, &pass_b, 0, NULL));
	CHECK_EQ(emdb_key_check(path, &pass_a, NULL), EMDB_ERR_WRONG_KEY);
	CHECK_OK(emdb_key_change(path, &pass_b, &pass_a, &slot, NULL));
	CHECK_UEQ(slot, 1);
	CHECK_EQ(emdb_key_check(path, &pass_b, NULL), EMDB_ERR_WRONG_KEY);
	CHECK_OK(emdb_key_check(path, &pass_a, NULL));
	emdb_io_free(io);
}

TEST(test_keys__eight_slots_and_no_more)
{
	struct emdb_io *const io = emdb_io_posix_new();
	const char *const path = store_dir(io);
	struct emdb_encryption e;
	uint8_t raw[32] = { 0 };
	const struct emdb_secret key = { EMDB_SECRET_KEY, raw, sizeof(raw), NULL, 0, 0, 0 };
	uint32_t slot;

	for (uint32_t i = 1; i < EMDB_KEY_SLOTS; i++) {
		raw[0] = (uint8_t)i;
		CHECK_OK(emdb_key_add(path, &pass_a, &key, &slot, NULL));
		CHECK_UEQ(slot, i);
	}
	raw[0] = 77;
	CHECK_EQ(emdb_key_add(path, &pass_a, &key, &slot, NULL), EMDB_ERR_NO_SPACE);
	CHECK_OK(emdb_key_remove(path, &pass_a, 4, NULL));
	CHECK_OK(emdb_key_add(path, &pass_a, &key, &slot, NULL));
	CHECK_UEQ(slot, 4);
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK_UEQ(e.used, EMDB_KEY_SLOTS);
	emdb_io_free(io);
}

TEST(test_keys__a_plain_store_and_its_secrets)
{
	const char *const path = test_dir();
	struct emdb_options o = { .size = sizeof(o), .flags = EMDB_OPEN_CREATE };
	struct emdb_encryption e;
	emdb_db *db;

	CHECK_OK(emdb_open(path, &o, &db));
	CHECK_EQ(emdb_key_check(path, &pass_a, NULL), EMDB_ERR_NOT_ENCRYPTED);
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK_UEQ(e.used, 0);
	CHECK_EQ(e.cipher, EMDB_CIPHER_DEFAULT);
	CHECK_EQ(emdb_key_add(path, &pass_a, &pass_b, NULL, NULL), EMDB_ERR_NOT_ENCRYPTED);
	/* Somebody may have put it in the place of an encrypted one. */
	o.secret = &pass_a;
	CHECK_EQ(emdb_open(path, &o, &db), EMDB_ERR_NOT_ENCRYPTED);
}

TEST(test_keys__locked_while_in_use)
{
	struct emdb_io *const io = emdb_io_posix_new();
	const char *const path = store_dir(io);
	struct emdb_detail detail;
	int dir, lock;

	CHECK_OK(io_openat(io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &dir));
	CHECK_OK(storedir_lock(io, dir, true, true, &lock));
	CHECK_EQ(emdb_key_add(path, &pass_a, &pass_b, NULL, &detail), EMDB_ERR_LOCKED);
	CHECK_EQ(emdb_key_change(path, &pass_a, &pass_b, NULL, &detail), EMDB_ERR_LOCKED);
	CHECK_EQ(emdb_key_remove(path, &pass_a, 0, &detail), EMDB_ERR_LOCKED);
	/* Looking is allowed. */
	CHECK_OK(emdb_key_check(path, &pass_a, NULL));
	CHECK_OK(io_close(io, lock));
	CHECK_OK(io_close(io, dir));
	emdb_io_free(io);
}

TEST_MAIN()
