/* SPDX-License-Identifier: Apache-2.0 */
/* Random tests run on encrypted stores every other time; TEST_ENCRYPTED=0 or 1 decides. */
#ifndef EMDB_TEST_SECRET_H
#define EMDB_TEST_SECRET_H

#include "core/emdb.h"
#include "tests/unit/test.h"

/* The same answer in one process and its children; NULL: a plain store. */
static inline const struct emdb_secret *test_secret(void)
{
	static const struct emdb_secret key = { .kind = EMDB_SECRET_KEY,
						.data = "the key of the tests, 32 bytes..",
						.len = EMDB_RAW_KEY_SIZE };
	static int encrypted = -1;
	const char *const env = getenv("TEST_ENCRYPTED");
	uint64_t state;

	if (encrypted < 0) {
		state = test_seed();
		encrypted = env ? *env == '1' : (int)(test_rand(&state) % 2);
		printf("%s store\n", encrypted ? "encrypted" : "plain");
	}
	return encrypted ? &key : NULL;
}

#endif
