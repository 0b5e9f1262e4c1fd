/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PATH arguments: where a key or namespace is.
 *
 * A path is names separated by '/'; all but the last are namespaces.  One '/'
 * in front and one behind do not count; "" and "/" are the root.  "." and ".."
 * are names like any other.
 *
 * Plain form: every byte stands for itself, so a name with '/' in it, or the
 * empty name, cannot be written.  Escaped form (option -x): '%' and two
 * hexadecimal digits stand for a byte, so '/' in a name is %2F and '%' is %25;
 * a name that is a single '%' is the empty name.  Every name can be written
 * in it (but NUL and other bytes only as %00 and so on).
 */
#ifndef TOOLS_PATH_H
#define TOOLS_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"
#include "tools/out.h"
#include "tools/store.h"

struct path_name {
	const char *p; /* in path.buf */
	size_t n;
};

struct path {
	struct path_name *names;
	size_t count; /* 0: the root */
	char *buf;
};

#define PATH_INIT             \
	{                     \
		NULL, 0, NULL \
	}

enum path_err {
	PATH_OK = 0,
	PATH_EMPTY_NAME, /* "a//b" */
	PATH_BAD_ESCAPE,
	PATH_NOMEM,
};

enum path_err path_parse(const char *s, bool escaped, struct path *ret_path);
void path_release(struct path *path);
/* A sentence, what is wrong with it. */
const char *path_strerror(enum path_err err);

/*
 * Finds the namespace that the first n names lead to; with create those that
 * are missing are made.  Errors: those of emdb_ns_open() and emdb_ns_create().
 */
emdb_err path_walk(struct store *store, const struct path *path, size_t n, bool create,
		   uint64_t *ret_ns);

/* Bytes that one byte of a name can become. */
#define PATH_ESCAPE_MAX 3
/* Writes a name in the escaped form; buf has n * PATH_ESCAPE_MAX + 1 bytes.  Returns the length. */
size_t path_escape(const void *name, size_t n, char *buf);
/*
 * The first n names in the escaped form, each with a '/' behind; free with
 * free().  NULL: out of memory.
 */
char *path_escape_prefix(const struct path *path, size_t n);

#endif
