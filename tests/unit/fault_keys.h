/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of the keys of encrypted stores; and the functions that are in the case of another. */
#ifndef EMDB_TEST_FAULT_KEYS_H
#define EMDB_TEST_FAULT_KEYS_H

#include "tests/unit/fault_async.h"
#include "tests/unit/fault_convert.h"

/* ---- Keys of an encrypted store ---- */

static emdb_err open_sealed(void)
{
	struct emdb_options o = plain_options;
	emdb_db *db = UNTOUCHED;
	emdb_err err;

	o.secret = &secrets[0];
	err = emdb_open("/sealed", &o, &db);
	if (err)
		CHECK(db == UNTOUCHED);
	else
		(void)emdb_close(db);
	return err;
}

static void prepare_sealed(struct store *s)
{
	(void)s;
	CHECK_OK(open_sealed());
}

static emdb_err op_open_sealed(struct store *s)
{
	(void)s;
	return open_sealed();
}

static emdb_err op_key_add(struct store *s)
{
	(void)s;
	return emdb_key_add("/sealed", &secrets[0], &secrets[1], NULL, NULL);
}

static emdb_err op_key_check(struct store *s)
{
	(void)s;
	return emdb_key_check("/sealed", &secrets[0], NULL);
}

static emdb_err op_key_change(struct store *s)
{
	(void)s;
	return emdb_key_change("/sealed", &secrets[0], &secrets[1], NULL, NULL);
}

static emdb_err op_encryption_get(struct store *s)
{
	struct emdb_encryption e = { .used = 77 };
	const emdb_err err = emdb_encryption_get("/sealed", &e);

	(void)s;
	CHECK_UEQ(e.used, err ? 77 : 1);
	return err;
}

static const struct fault_op fault_key_ops[] = {
	{ "emdb_open", "encrypted, new", op_open_sealed, NULL, 0 },
	{ "emdb_open", "encrypted", op_open_sealed, prepare_sealed, 0 },
	{ "emdb_key_add", "", op_key_add, prepare_sealed, 0 },
	{ "emdb_key_check", "", op_key_check, prepare_sealed, 0 },
	{ "emdb_key_change", "", op_key_change, prepare_sealed, 0 },
	{ "emdb_encryption_get", "", op_encryption_get, prepare_sealed, 0 },
};

/*
 * Part of a case above, or a thin layer over functions that have one: nothing of their own can fail
 * that is not in another case.
 */
static const char *const fault_covered[] = {
	"emdb_txn_begin",        "emdb_txn_put",        "emdb_txn_remove",
	"emdb_txn_get",          "emdb_txn_contains",   "emdb_txn_abort",
	"emdb_focus_new",        "emdb_focus_sub",      "emdb_focus_free",
	"emdb_focus_prefix",     "emdb_focus_set_ttl",  "emdb_focus_get",
	"emdb_focus_remove",     "emdb_focus_contains", "emdb_focus_iter",
	"emdb_focus_delete_all", "emdb_app_path",       "emdb_check_secret",
	"emdb_key_remove",       "emdb_xattr_set_mode", "emdb_expires_after",
	"emdb_cipher_name",      "emdb_cipher_parse",   "emdb_cipher_available",
	"emdb_recovery_key_new", "emdb_op_cancelled",   "emdb_async_fd",
	"emdb_async_poll",       "emdb_async_cancel",   "emdb_stream_fd",
	"emdb_stream_next",
};

#endif
