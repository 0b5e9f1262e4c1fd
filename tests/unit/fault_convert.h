/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cases of fault_ops.h: a store is written again, encrypted, decrypted, under another key, repaired.
 * What an interrupted call leaves is looked at as it is, or the call is made again, in turns.
 */
#ifndef EMDB_TEST_FAULT_CONVERT_H
#define EMDB_TEST_FAULT_CONVERT_H

#include "tests/unit/fault_ops.h"

static const uint8_t raw_keys[2][EMDB_RAW_KEY_SIZE] = { { 1 }, { 2 } };
static const struct emdb_secret secrets[2] = {
	{ .kind = EMDB_SECRET_KEY, .data = raw_keys[0], .len = EMDB_RAW_KEY_SIZE },
	{ .kind = EMDB_SECRET_KEY, .data = raw_keys[1], .len = EMDB_RAW_KEY_SIZE },
};

static bool again(void)
{
	return host.nth % 2 == 0;
}

/* ---- Conversions ---- */

static bool is_sealed(void)
{
	struct emdb_encryption e;

	CHECK_OK(emdb_encryption_get(STORE, &e));
	CHECK(e.cipher == EMDB_CIPHER_DEFAULT || e.used >= 1);
	return e.cipher != EMDB_CIPHER_DEFAULT;
}

static void sealed_after(struct store *s, emdb_err *err)
{
	(void)s;
	if (*err && again()) {
		*err = emdb_encrypt(STORE, &secrets[0], NULL);
		/* It was through, and could not say so. */
		*err = *err == EMDB_ERR_EXISTS ? EMDB_OK : *err;
	}
	if (!*err)
		CHECK(is_sealed());
}

static emdb_err op_encrypt(struct store *s)
{
	s->after = sealed_after;
	return emdb_encrypt(STORE, &secrets[0], NULL);
}

/* Two keys open it. */
static void prepare_sealing(struct store *s)
{
	(void)s;
	CHECK_OK(emdb_encrypt(STORE, &secrets[0], NULL));
	CHECK_OK(emdb_key_add(STORE, &secrets[0], &secrets[1], NULL, NULL));
}

static void plain_after(struct store *s, emdb_err *err)
{
	(void)s;
	if (*err && again()) {
		*err = emdb_decrypt(STORE, &secrets[0], NULL);
		*err = *err == EMDB_ERR_NOT_ENCRYPTED ? EMDB_OK : *err;
	}
	if (!*err)
		CHECK(!is_sealed());
}

static emdb_err op_decrypt(struct store *s)
{
	s->after = plain_after;
	return emdb_decrypt(STORE, &secrets[0], NULL);
}

/* Only the key that was given is left. */
static void rotated_after(struct store *s, emdb_err *err)
{
	(void)s;
	if (*err && again())
		*err = emdb_rotate(STORE, &secrets[0], 1, NULL);
	CHECK_OK(emdb_key_check(STORE, &secrets[0], NULL));
	if (!*err)
		CHECK_EQ(emdb_key_check(STORE, &secrets[1], NULL), EMDB_ERR_WRONG_KEY);
}

static emdb_err op_rotate(struct store *s)
{
	s->after = rotated_after;
	return emdb_rotate(STORE, &secrets[0], 1, NULL);
}

/* ---- Repairs ---- */

/* Flips a bit of what stands behind `text` in the file, which is there. */
static void spoil_file(const char *path, const char *text, size_t behind)
{
	static uint8_t bytes[EMDB_SEGMENT_MIN];
	size_t n, at = 0;
	int fd;

	CHECK_OK(io_openat(host.mem, AT_FDCWD, path, O_RDWR, 0, &fd));
	CHECK_OK(io_pread_full(host.mem, fd, bytes, sizeof(bytes), 0, &n));
	while (at + strlen(text) <= n && memcmp(bytes + at, text, strlen(text)) != 0)
		at++;
	CHECK(at + strlen(text) <= n && at + behind < n);
	bytes[at + behind] ^= 0x10;
	CHECK_OK(io_pwrite_full(host.mem, fd, bytes + at + behind, 1, at + behind));
	(void)io_close(host.mem, fd);
}

/* The record of "deep", which snapshots have too. */
static void prepare_damage(struct store *s)
{
	(void)s;
	spoil_file(STORE "/journal/0000000000000001.seg", "deep", 1);
}

static void prepare_bad_manifest(struct store *s)
{
	(void)s;
	spoil_file(STORE "/manifest", "", 40);
}

static void prepare_bad_super(struct store *s)
{
	(void)s;
	spoil_file(STORE "/superblock", "", 40);
}

static emdb_err op_repair(struct store *s)
{
	struct emdb_repair_report r;

	(void)s;
	return emdb_repair(STORE, NULL, &r);
}

static emdb_err op_repair_dry(struct store *s)
{
	const struct emdb_repair_options dry = { .size = sizeof(dry),
						 .flags = EMDB_REPAIR_DRY_RUN };
	struct emdb_repair_report r = { .intact = true };
	const emdb_err err = emdb_repair(STORE, &dry, &r);

	(void)s;
	CHECK(err || (!r.intact && r.places));
	return err;
}

static emdb_err op_repair_from_backup(struct store *s)
{
	const struct emdb_repair_options o = { .size = sizeof(o), .backup = BACKUP };

	(void)s;
	return emdb_repair(STORE, &o, NULL);
}

#define MENDED "/mended"

static emdb_err repair_elsewhere(void)
{
	const struct emdb_repair_options o = { .size = sizeof(o), .target = MENDED };

	return emdb_repair(STORE, &o, NULL);
}

/* Once it is there it is whole; half done it is in nobody's way. */
static void mended_after(struct store *s, emdb_err *err)
{
	struct emdb_options o = plain_options;
	emdb_db *db;

	(void)s;
	if (*err)
		*err = repair_elsewhere();
	/* It was through, and could not say so. */
	*err = *err == EMDB_ERR_EXISTS ? EMDB_OK : *err;
	CHECK_OK(*err);
	o.flags = 0;
	CHECK_OK(emdb_open(MENDED, &o, &db));
	CHECK_OK(put_str(db, EMDB_ROOT, "works", 100));
	CHECK_OK(emdb_close(db));
}

static emdb_err op_repair_elsewhere(struct store *s)
{
	s->after = mended_after;
	return repair_elsewhere();
}

static const struct fault_op fault_convert_ops[] = {
	{ "emdb_encrypt", "", op_encrypt, NULL, CLOSED },
	{ "emdb_encrypt", "after a kill", op_encrypt, NULL, CLOSED | KILLED },
	{ "emdb_decrypt", "", op_decrypt, prepare_sealing, CLOSED },
	{ "emdb_rotate", "", op_rotate, prepare_sealing, CLOSED },
	{ "emdb_repair", "", op_repair, prepare_damage, CLOSED | WRITES | REPAIRS },
	{ "emdb_repair", "manifest", op_repair, prepare_bad_manifest, CLOSED | WRITES | REPAIRS },
	{ "emdb_repair", "superblock", op_repair, prepare_bad_super, CLOSED | WRITES | REPAIRS },
	{ "emdb_repair", "from a backup", op_repair_from_backup, prepare_damage,
	  CLOSED | WRITES | REPAIRS },
	{ "emdb_repair", "to another place", op_repair_elsewhere, prepare_damage, CLOSED },
	{ "emdb_repair", "dry run", op_repair_dry, prepare_damage, CLOSED },
};

#endif
