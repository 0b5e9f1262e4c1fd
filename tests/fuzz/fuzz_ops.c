/* SPDX-License-Identifier: Apache-2.0 */
/* The request handlers of the daemon, on a store in memory, against a model: see ops_model.h. */
#include "tests/fuzz/ops_fake.h"
#include "tests/fuzz/ops_run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct emdb_options o = {
		.size = sizeof(o),
		.segment_bytes = EMDB_SEGMENT_MIN,
		.commit_interval_s = -1,
		.sweep_interval_ms = -1,
		.compact_percent = -1,
	};
	static struct model m;
	emdb_db *db;

	if (emdb_open_memory(&o, &db) != EMDB_OK)
		abort();
	ops_begin(&m, db);
	ops_run(&m, data, size < 20000 ? size : 20000);
	ops_forget(&m);
	ops_check(&m);
	ops_forget(&m);
	ops_end(&m);
	if (emdb_close(db) != EMDB_OK)
		abort();
	return 0;
}
