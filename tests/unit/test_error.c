/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "core/emdb.h"

/* Codes are numbers on other people's disks and in their logs: these never change. */
TEST(test_error__codes_are_fixed)
{
	CHECK_EQ(EMDB_OK, 0);
	CHECK_EQ(EMDB_ERR_INVAL, -1);
	CHECK_EQ(EMDB_ERR_NOT_FOUND, -3);
	CHECK_EQ(EMDB_ERR_KEY_TOO_LONG, -8);
	CHECK_EQ(EMDB_ERR_CORRUPT, -12);
	CHECK_EQ(EMDB_ERR_FAILED, -13);
	CHECK_EQ(EMDB_ERR_LOCKED, -15);
	CHECK_EQ(EMDB_ERR_NO_XATTR, -20);
	CHECK_EQ(EMDB_ERR_TXN_TOO_BIG, -29);
	CHECK_EQ(EMDB_ERR_DAMAGED, -35);
	CHECK_EQ(EMDB_ERR_AGAIN, -36);
	CHECK_EQ(EMDB_ERR_NOT_ENCRYPTED, -37);
}

TEST(test_error__every_code_has_name_text_and_errno)
{
	for (int i = 0; i < EMDB_ERR_COUNT_; i++) {
		const emdb_err err = (emdb_err)-i;
		const char *const name = emdb_err_name(err);
		const char *const text = emdb_strerror(err);

		CHECK(name && strncmp(name, i ? "EMDB_ERR_" : "EMDB_OK", i ? 9 : 8) == 0);
		CHECK(strcmp(name, "EMDB_ERR_UNKNOWN") != 0);
		CHECK(text && *text);
		CHECK(strcmp(text, emdb_strerror((emdb_err)-EMDB_ERR_COUNT_)) != 0);
		CHECK_EQ(emdb_err_errno(err) > 0, i != 0);
		/* Constants of the kernel only, and never its internal ones from 512 on. */
		CHECK(emdb_err_errno(err) < 512);
	}
}

TEST(test_error__names_and_texts_are_unique)
{
	for (int i = 0; i < EMDB_ERR_COUNT_; i++) {
		for (int j = 0; j < i; j++) {
			const emdb_err a = (emdb_err)-i, b = (emdb_err)-j;

			CHECK(strcmp(emdb_err_name(a), emdb_err_name(b)) != 0);
			CHECK(strcmp(emdb_strerror(a), emdb_strerror(b)) != 0);
		}
	}
}

TEST(test_error__unknown_numbers_are_answered)
{
	static const int unknown[] = { 1, 2, 1000, INT_MAX, -EMDB_ERR_COUNT_, -1000, INT_MIN + 1 };

	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		const emdb_err err = (emdb_err)unknown[i];

		CHECK_STR(emdb_err_name(err), "EMDB_ERR_UNKNOWN");
		CHECK(*emdb_strerror(err));
		CHECK_EQ(emdb_err_errno(err), EIO);
	}
}

/* What a file system says for the errors that every program knows. */
TEST(test_error__errnos_that_programs_rely_on)
{
	static const struct {
		emdb_err err;
		int sys;
	} rows[] = {
		{ EMDB_OK, 0 },
		{ EMDB_ERR_NOT_FOUND, ENOENT },
		{ EMDB_ERR_EXISTS, EEXIST },
		{ EMDB_ERR_NOT_NS, ENOTDIR },
		{ EMDB_ERR_IS_NS, EISDIR },
		{ EMDB_ERR_NOT_EMPTY, ENOTEMPTY },
		{ EMDB_ERR_KEY_TOO_LONG, ENAMETOOLONG },
		{ EMDB_ERR_VALUE_TOO_LARGE, EFBIG },
		{ EMDB_ERR_NO_SPACE, ENOSPC },
		{ EMDB_ERR_IO, EIO },
		{ EMDB_ERR_CORRUPT, EIO },
		{ EMDB_ERR_READ_ONLY, EROFS },
		{ EMDB_ERR_NO_XATTR, ENODATA },
		{ EMDB_ERR_RANGE, ERANGE },
		{ EMDB_ERR_TOO_MANY_LINKS, EMLINK },
		{ EMDB_ERR_LOOP, EINVAL },
		{ EMDB_ERR_UNSUPPORTED, EOPNOTSUPP },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CHECK_EQ(emdb_err_errno(rows[i].err), rows[i].sys);
}

TEST_MAIN()
