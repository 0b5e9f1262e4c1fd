/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges: keys in order, forwards and backwards, by prefix, page by page.
 *
 *	cc range.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
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

/* Prints a range and leaves its last key in `last`; how many there were. */
static size_t show(emdb_db *db, const char *title, const struct emdb_range *range, char *last,
		   size_t *last_len)
{
	struct emdb_entry e;
	emdb_iter *it;
	size_t n = 0;
	emdb_err err;

	printf("%s:", title);
	check("range", emdb_range_new(db, EMDB_ROOT, range, &it));
	while (!(err = emdb_iter_next(it, &e))) {
		printf(" %.*s=%.*s", (int)e.key_len, (const char *)e.key, (int)e.value_len,
		       (const char *)e.value);
		memcpy(last, e.key, e.key_len);
		*last_len = e.key_len;
		n++;
	}
	if (err != EMDB_ERR_NOT_FOUND)
		check("next", err);
	emdb_iter_free(it);
	printf("\n");
	return n;
}

int main(int argc, char **argv)
{
	/* Without EMDB_OPEN_ORDERED there are no ranges, and no memory goes into them. */
	const struct emdb_options options = { .size = sizeof(options),
					      .flags = EMDB_OPEN_CREATE | EMDB_OPEN_ORDERED };
	const struct emdb_range march = { .size = sizeof(march),
					  .flags = EMDB_ITER_VALUES,
					  .prefix = "2026-03-",
					  .prefix_len = 8 };
	const struct emdb_range newest = { .size = sizeof(newest),
					   .flags = EMDB_ITER_VALUES | EMDB_RANGE_REVERSE,
					   .limit = 2 };
	struct emdb_range page = { .size = sizeof(page), .flags = EMDB_ITER_VALUES, .limit = 3 };
	char last[64];
	size_t len = 0;
	emdb_db *db;

	if (argc != 2)
		return 2;
	check("open", emdb_open(argv[1], &options, &db));
	for (int i = 0; i < 8; i++) {
		char key[32], value[8];
		const int key_len =
			snprintf(key, sizeof(key), "2026-%02d-%02d", 2 + i % 3, 1 + 7 * i % 28);

		check("put", emdb_put(db, EMDB_ROOT, key, (size_t)key_len, value,
				      (size_t)snprintf(value, sizeof(value), "%d", i),
				      EMDB_TTL_NEVER));
	}

	show(db, "in march", &march, last, &len);
	show(db, "the newest two", &newest, last, &len);

	/* Page by page: the next one starts behind the last key of this one. */
	while (show(db, "a page", &page, last, &len) == page.limit) {
		page.after = last;
		page.after_len = len;
	}
	check("close", emdb_close(db));
	return 0;
}
