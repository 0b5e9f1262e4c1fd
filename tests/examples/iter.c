/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Iteration: a namespace as it was at one moment, while it is being changed.
 *
 *	cc iter.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
 */
#include <emdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *what, emdb_err err)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", what, emdb_strerror(err));
	exit(1);
}

int main(int argc, char **argv)
{
	const struct emdb_options opts = { .size = sizeof(opts), .flags = EMDB_OPEN_CREATE };
	unsigned long sum = 0, seen = 0, spaces = 0;
	struct emdb_entry e;
	emdb_iter *it;
	uint64_t ns;
	emdb_db *db;
	emdb_err err;

	if (argc != 2)
		return 2;
	check("open", emdb_open(argv[1], &opts, &db));
	check("namespace", emdb_ns_ensure(db, EMDB_ROOT, "inner", 5, &ns));
	for (unsigned int i = 1; i <= 1000; i++) {
		char key[16], value[16];
		const int k = snprintf(key, sizeof(key), "key-%u", i);
		const int v = snprintf(value, sizeof(value), "%u", i);

		check("put", emdb_put(db, EMDB_ROOT, key, (size_t)k, value, (size_t)v,
				      EMDB_TTL_DEFAULT));
	}

	check("iter", emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_VALUES | EMDB_ITER_KEYS, &it));
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
		sum += strtoul(e.value, NULL, 10);
		seen++;
		/* Not seen: it did not exist at that moment. */
		if (seen == 1)
			check("put", emdb_put(db, EMDB_ROOT, "late", 4, "1000000", 7,
					      EMDB_TTL_DEFAULT));
		/* Still seen: it did. */
		if (seen == 500)
			check("clear", emdb_clear(db, EMDB_ROOT));
	}
	emdb_iter_free(it);
	/* Anything else is an entry that cannot be read; emdb_iter_next() may be called again. */
	if (err != EMDB_ERR_NOT_FOUND)
		check("next", err);
	printf("%lu entries, sum %lu\n", seen, sum);

	check("namespace", emdb_ns_ensure(db, EMDB_ROOT, "again", 5, &ns));
	check("iter", emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_NS, &it));
	while (emdb_iter_next(it, &e) == EMDB_OK)
		spaces++;
	emdb_iter_free(it);
	printf("%lu namespace\n", spaces);
	check("close", emdb_close(db));
	return 0;
}
