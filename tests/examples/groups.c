/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: keys with dots, and handles that put the first words in front.
 *
 *	cc groups.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
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

static void set(const emdb_focus *focus, const char *key, const char *value)
{
	check("set", emdb_focus_set(focus, key, strlen(key), value, strlen(value),
				    EMDB_TTL_DEFAULT));
}

static void list(const emdb_focus *focus)
{
	struct emdb_entry e;
	emdb_iter *it;

	check("iter", emdb_focus_iter(focus, EMDB_ITER_VALUES, &it));
	while (emdb_iter_next(it, &e) == EMDB_OK)
		printf("  %.*s = %.*s\n", (int)e.key_len, (const char *)e.key, (int)e.value_len,
		       (const char *)e.value);
	emdb_iter_free(it);
}

int main(int argc, char **argv)
{
	/* With an ordered index a group is found at once, and in order; it works without. */
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = EMDB_OPEN_CREATE | EMDB_OPEN_ORDERED };
	emdb_focus *users, *ann, *bob;
	uint64_t removed;
	emdb_db *db;

	if (argc != 2)
		return 2;
	check("open", emdb_open(argv[1], &opts, &db));
	check("focus", emdb_focus_new(db, EMDB_ROOT, "user", 4, &users));
	check("focus", emdb_focus_sub(users, "ann", 3, &ann));
	check("focus", emdb_focus_sub(users, "bob", 3, &bob));
	set(ann, "mail", "ann@example.org");
	set(ann, "name", "Ann");
	set(bob, "name", "Bob");
	/* The session ends in half an hour. */
	check("set", emdb_focus_set_ttl(bob, "session", 7, "secret", 6, 30 * 60 * 1000));
	printf("users:\n");
	list(users);
	check("delete", emdb_focus_delete_all(bob, &removed));
	printf("%d of bob's are gone; ann's:\n", (int)removed);
	list(ann);
	check("delete", emdb_group_delete(db, EMDB_ROOT, "user", 4, &removed));
	printf("and %d others\n", (int)removed);
	emdb_focus_free(bob);
	emdb_focus_free(ann);
	emdb_focus_free(users);
	check("close", emdb_close(db));
	return 0;
}
