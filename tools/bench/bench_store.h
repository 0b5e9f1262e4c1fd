/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks of stores share: their records, and the directories that stores are in. */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include "bench.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define BENCH_KEY 24u /* bytes */

/* Key and value of record i are what its number makes them: nothing has to be remembered. */
static inline void bench_make_key(uint64_t i, uint8_t key[BENCH_KEY])
{
	bench_fill(key, BENCH_KEY, i * 2 + 1);
}

static inline void bench_make_value(uint64_t i, uint8_t *value, size_t size)
{
	bench_fill(value, size, i * 2);
}

static inline double bench_per_second(uint64_t count, uint64_t ns)
{
	return (double)count / ((double)(ns == 0 ? 1 : ns) / 1e9);
}

static inline uint64_t bench_disk_bytes(const char *path)
{
	struct dirent *entry;
	uint64_t sum = 0;
	struct stat st;
	DIR *dir = opendir(path);

	if (dir == NULL)
		return 0;
	while ((entry = readdir(dir)) != NULL) {
		char below[4096 + 256 + 2];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(below, sizeof(below), "%.4096s/%.255s", path, entry->d_name);
		if (lstat(below, &st) != 0)
			continue;
		sum += S_ISDIR(st.st_mode) ? bench_disk_bytes(below) : (uint64_t)st.st_blocks * 512;
	}
	(void)closedir(dir);
	return sum;
}

static inline void bench_remove_store(const char *path)
{
	struct dirent *entry;
	DIR *dir = opendir(path);

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		char below[4096 + 256 + 2];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(below, sizeof(below), "%.4096s/%.255s", path, entry->d_name);
		if (lstat(below, &st) == 0 && S_ISDIR(st.st_mode))
			bench_remove_store(below);
		else
			(void)unlink(below);
	}
	if (dir != NULL)
		(void)closedir(dir);
	(void)rmdir(path);
}

#endif
