/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives from anywhere: whatever the bytes, the import ends, touches nothing but the namespace
 * it was given, and leaves a store that can be walked.
 */
#include <archive.h>
#include <stdlib.h>
#include <string.h>

#include "tools/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void tell(void *ctx, const struct tar_report *report, const char *path, const char *what)
{
	(void)ctx, (void)report;
	if (what && (!path || !*path))
		abort();
}

static bool count(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		  uint64_t next_pos)
{
	(void)key, (void)key_len, (void)next_pos;
	if (!attr)
		abort();
	(*(unsigned int *)ctx)++;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct emdb_options o = { .size = sizeof(o),
					.segment_bytes = EMDB_SEGMENT_MIN,
					.commit_interval_s = -1,
					.sweep_interval_ms = -1 };
	struct archive *const in = archive_read_new();
	struct tar_report report;
	unsigned int n = 0;
	emdb_db *db = NULL;
	uint64_t ns;

	tar_init();
	if (!in || emdb_open_memory(&o, &db) || emdb_ns_create(db, EMDB_ROOT, "in", 2, &ns))
		abort();
	if (archive_read_support_format_tar(in) < ARCHIVE_WARN)
		abort();
	if (archive_read_open_memory(in, data, size) == ARCHIVE_OK) {
		const emdb_err err = tar_import(db, ns, in, tell, NULL, &report);

		if (err == EMDB_ERR_CORRUPT && !report.error[0])
			abort();
	}
	(void)archive_read_free(in);
	if (emdb_node_readdir(db, EMDB_ROOT, 0, 0, count, &n) || n != 1)
		abort();
	if (emdb_node_readdir(db, ns, 0, 0, count, &n))
		abort();
	if (emdb_close(db))
		abort();
	return 0;
}
