/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening: by path, by name, in memory, read-only; and what is said when it fails.
 *
 *	cc open.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
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
	struct emdb_detail detail;
	struct emdb_options opts = { .size = sizeof(opts), .detail = &detail };
	struct emdb_app app = { .size = sizeof(app), .app = "demo", .database = "main" };
	emdb_db *db, *memory;
	char *path;
	emdb_err err;

	if (argc != 2)
		return 2;
	/* Nothing is created by accident. */
	err = emdb_open(argv[1], &opts, &db);
	printf("without CREATE: %s\n", emdb_err_name(err));

	/* By name: below $XDG_DATA_HOME or ~/.local/share, or a root of our own as here. */
	app.root = argv[1];
	opts.flags = EMDB_OPEN_CREATE;
	check("open", emdb_open_app(&app, &opts, &db));
	check("path", emdb_app_path(&app, &path));
	printf("it lies in ROOT%s\n", path + strlen(argv[1]));
	check("put", emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, EMDB_TTL_DEFAULT));
	app.app = "../escape";
	err = emdb_open_app(&app, &opts, &memory);
	printf("%s: %s\n", app.app, emdb_err_name(err));

	/* One process at a time. */
	err = emdb_open(path, &opts, &memory);
	printf("twice: %s\n", emdb_err_name(err));
	printf("detail begins: %.7s\n", detail.text);
	check("close", emdb_close(db));

	opts.flags = EMDB_OPEN_READ_ONLY;
	check("open", emdb_open(path, &opts, &db));
	err = emdb_put(db, EMDB_ROOT, "k", 1, "w", 1, EMDB_TTL_DEFAULT);
	printf("read-only: %s\n", emdb_err_name(err));
	check("close", emdb_close(db));
	emdb_free(path);

	check("memory", emdb_open_memory(NULL, &memory));
	check("put", emdb_put(memory, EMDB_ROOT, "k", 1, "v", 1, EMDB_TTL_DEFAULT));
	check("close", emdb_close(memory));
	return 0;
}
