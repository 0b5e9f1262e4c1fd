/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lifetimes: of one key, as a default of a namespace, prolonged, taken away.
 *
 *	cc ttl.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
 */
#include <emdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MINUTE ((int64_t)60000)

static void check(const char *what, emdb_err err)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", what, emdb_strerror(err));
	exit(1);
}

/* Minutes left, rounded up; 0: for ever. */
static int minutes(emdb_db *db, uint64_t ns, const char *key)
{
	int64_t left;

	check("remaining", emdb_ttl_remaining(db, ns, key, 1, &left));
	return left == EMDB_TTL_NEVER ? 0 : (int)((left + MINUTE - 1) / MINUTE);
}

int main(int argc, char **argv)
{
	const struct emdb_options opts = { .size = sizeof(opts), .flags = EMDB_OPEN_CREATE };
	const struct timespec moment = { 0, 30 * 1000 * 1000 };
	uint64_t cache, removed;
	int64_t expires;
	bool there;
	emdb_db *db;

	if (argc != 2)
		return 2;
	check("open", emdb_open(argv[1], &opts, &db));
	check("namespace", emdb_ns_ensure(db, EMDB_ROOT, "cache", 5, &cache));
	check("default", emdb_ns_ttl_set(db, cache, 10 * MINUTE));

	check("put", emdb_put(db, cache, "a", 1, "by default", 10, EMDB_TTL_DEFAULT));
	check("put", emdb_put(db, cache, "b", 1, "for ever", 8, EMDB_TTL_NEVER));
	check("put", emdb_put_ttl(db, cache, "c", 1, "an hour", 7, 60 * MINUTE));
	check("put", emdb_put_ttl(db, cache, "d", 1, "an instant", 10, 20));
	printf("a %d, b %d, c %d\n", minutes(db, cache, "a"), minutes(db, cache, "b"),
	       minutes(db, cache, "c"));

	check("extend", emdb_ttl_extend(db, cache, "a", 1, 5 * MINUTE, NULL));
	check("persist", emdb_ttl_persist(db, cache, "c", 1, NULL));
	printf("a %d, c %d\n", minutes(db, cache, "a"), minutes(db, cache, "c"));

	/* As people write it. */
	check("parse", emdb_ttl_parse("1h30m", 5, emdb_now_ms(db), 0, &expires));
	check("set", emdb_ttl_set(db, cache, "b", 1, expires));
	printf("b %d\n", minutes(db, cache, "b"));

	/* Gone for every call, swept or not. */
	(void)nanosleep(&moment, NULL);
	check("contains", emdb_contains(db, cache, "d", 1, &there));
	printf("d is %s\n", there ? "there" : "gone");
	check("sweep", emdb_sweep(db, &removed));
	check("close", emdb_close(db));
	return 0;
}
