/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and values: put, get, a reference without a copy, many at once, compare and set, namespaces.
 *
 *	cc data.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
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

static void show(emdb_db *db, uint64_t ns, const char *key)
{
	void *value;
	size_t len;
	const emdb_err err = emdb_get(db, ns, key, strlen(key), &value, &len);

	if (err == EMDB_ERR_NOT_FOUND) {
		printf("%s is not there\n", key);
		return;
	}
	check("get", err);
	/* A NUL follows every value. */
	printf("%s = %s\n", key, (char *)value);
	emdb_free(value);
}

int main(int argc, char **argv)
{
	const struct emdb_options opts = { .size = sizeof(opts), .flags = EMDB_OPEN_CREATE };
	const struct emdb_item items[] = {
		{ .key = "eu", .key_len = 2, .value = "euro", .value_len = 4 },
		{ .key = "jp", .key_len = 2, .value = "yen", .value_len = 3 },
		{ .key = "uk", .key_len = 2, .remove = true },
	};
	const struct emdb_value one = { "1", 1 }, two = { "2", 1 };
	struct emdb_ref ref;
	uint64_t ns, count;
	emdb_db *db;
	emdb_err err;

	if (argc != 2)
		return 2;
	check("open", emdb_open(argv[1], &opts, &db));

	/* EMDB_ROOT is the namespace that every store has; others nest in it. */
	check("namespace", emdb_ns_ensure(db, EMDB_ROOT, "money", 5, &ns));
	check("put", emdb_put(db, ns, "uk", 2, "pound", 5, EMDB_TTL_DEFAULT));
	show(db, ns, "uk");

	/* The bytes stay as they are until the reference is released, whatever becomes of the key. */
	check("get_ref", emdb_get_ref(db, ns, "uk", 2, &ref));
	check("put_many", emdb_put_many(db, ns, items, 3));
	show(db, ns, "uk");
	show(db, ns, "jp");
	printf("the reference: %.*s\n", (int)ref.len, (const char *)ref.data);
	emdb_ref_release(&ref);
	check("count", emdb_count(db, ns, &count));
	printf("%d keys\n", (int)count);

	/* Of several who try this at once one succeeds. */
	check("cas", emdb_cas(db, EMDB_ROOT, "turn", 4, NULL, &one, EMDB_TTL_NEVER));
	err = emdb_cas(db, EMDB_ROOT, "turn", 4, NULL, &two, EMDB_TTL_NEVER);
	printf("again: %s\n", emdb_err_name(err));
	check("cas", emdb_cas(db, EMDB_ROOT, "turn", 4, &one, &two, EMDB_TTL_NEVER));
	show(db, EMDB_ROOT, "turn");

	/* What returned success survives the program; this makes it survive the power, too. */
	check("flush", emdb_flush(db));
	check("close", emdb_close(db));
	return 0;
}
