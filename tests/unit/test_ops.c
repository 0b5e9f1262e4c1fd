/* SPDX-License-Identifier: Apache-2.0 */
/* Random requests to the daemon's handlers, across reopening the store: see tests/fuzz/ops_model.h. */
#include "tests/fuzz/ops_fake.h"
#include "tests/fuzz/ops_run.h"
#include "tests/unit/test.h"

#define BYTES 60000 /* of random input a round */

static emdb_db *open_at(const char *path)
{
	const struct emdb_options o = {
		.size = sizeof(o),
		.flags = EMDB_OPEN_CREATE,
		.segment_bytes = EMDB_SEGMENT_MIN,
		.commit_interval_s = -1,
		.compact_percent = 30,
		.compact_wait_bytes = 1,
	};
	emdb_db *db;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

TEST(test_ops__random_requests_against_a_model)
{
	const char *const longer = getenv("EMDB_LONG");
	const int rounds = longer && *longer ? 400 : 6;
	const char *const path = test_dir();
	const uint64_t seed = test_seed();
	uint64_t x = seed;
	static uint8_t bytes[BYTES];
	static struct model m;
	emdb_db *db = open_at(path);

	ops_begin(&m, db);
	for (int round = 0; round < rounds; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(test_rand(&x) >> 40);
		ops_run(&m, bytes, sizeof(bytes));
		ops_forget(&m);
		CHECK_OK(emdb_close(db));
		db = open_at(path);
		m.fs.db = db;
		ops_check(&m);
	}
	printf("%llu requests\n", (unsigned long long)m.count);
	ops_forget(&m);
	CHECK_OK(emdb_close(db));
	ops_end(&m);
}

TEST_MAIN()
