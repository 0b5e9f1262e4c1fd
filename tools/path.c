/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/path.h"

#include <stdlib.h>
#include <string.h>

#include "tools/text.h"

/* Decodes n bytes of the escaped form in place. */
static enum path_err unescape(char *p, size_t n, size_t *ret_n)
{
	size_t from = 0, to = 0;

	if (n == 1 && p[0] == '%') {
		*ret_n = 0;
		return PATH_OK;
	}
	while (from < n) {
		int hi, lo;

		if (p[from] != '%') {
			p[to++] = p[from++];
			continue;
		}
		if (n - from < 3)
			return PATH_BAD_ESCAPE;
		hi = text_hex_digit(p[from + 1]);
		lo = text_hex_digit(p[from + 2]);
		if (hi < 0 || lo < 0)
			return PATH_BAD_ESCAPE;
		p[to++] = (char)(hi * 16 + lo);
		from += 3;
	}
	*ret_n = to;
	return PATH_OK;
}

static enum path_err split(struct path *path, size_t len, bool escaped)
{
	size_t at = 0;

	while (at < len) {
		const char *const slash = memchr(path->buf + at, '/', len - at);
		const size_t end = slash ? (size_t)(slash - path->buf) : len;
		struct path_name *const name = &path->names[path->count];
		enum path_err err = PATH_OK;

		if (end == at)
			return PATH_EMPTY_NAME;
		name->p = path->buf + at;
		name->n = end - at;
		if (escaped)
			err = unescape(path->buf + at, end - at, &name->n);
		if (err)
			return err;
		path->count++;
		at = end + 1;
	}
	return PATH_OK;
}

enum path_err path_parse(const char *s, bool escaped, struct path *ret_path)
{
	struct path path = PATH_INIT;
	enum path_err err = PATH_NOMEM;
	size_t len, i, names = 1;

	if (*s == '/')
		s++;
	len = strlen(s);
	for (i = 0; i < len; i++)
		names += s[i] == '/';
	path.buf = strdup(s);
	path.names = calloc(names, sizeof(*path.names));
	if (path.buf && path.names)
		err = split(&path, len, escaped);
	if (err) {
		path_release(&path);
		return err;
	}
	*ret_path = path;
	return PATH_OK;
}

void path_release(struct path *path)
{
	free(path->names);
	free(path->buf);
	path->names = NULL;
	path->buf = NULL;
	path->count = 0;
}

const char *path_strerror(enum path_err err)
{
	switch (err) {
	case PATH_OK:
		return "no error";
	case PATH_EMPTY_NAME:
		return "empty name in path (the empty key is written % with --escaped)";
	case PATH_BAD_ESCAPE:
		return "bad escape in path: % needs two hexadecimal digits behind it";
	case PATH_NOMEM:
		return "out of memory";
	}
	return "unknown error";
}

emdb_err path_walk(struct store *store, const struct path *path, size_t n, bool create,
		   uint64_t *ret_ns)
{
	uint64_t ns = EMDB_ROOT;
	emdb_err err;
	size_t i;

	for (i = 0; i < n; i++) {
		const struct path_name *const name = &path->names[i];
		uint64_t next = 0;

		err = store_ns_open(store, ns, name->p, name->n, &next);
		if (err == EMDB_ERR_NOT_FOUND && create)
			err = store_ns_create(store, ns, name->p, name->n, &next);
		if (err)
			return err;
		ns = next;
	}
	*ret_ns = ns;
	return EMDB_OK;
}

size_t path_escape(const void *name, size_t n, char *buf)
{
	static const char hex[] = "0123456789ABCDEF";
	const unsigned char *p = name;
	size_t len = 0;

	if (n == 0)
		buf[len++] = '%';
	while (n) {
		size_t step = text_utf8(p, n);

		if (step && text_is_printable(p, step) && *p != '/' && *p != '%') {
			memcpy(buf + len, p, step);
			len += step;
		} else {
			step = 1;
			buf[len++] = '%';
			buf[len++] = hex[*p >> 4];
			buf[len++] = hex[*p & 15];
		}
		p += step;
		n -= step;
	}
	buf[len] = '\0';
	return len;
}

char *path_escape_prefix(const struct path *path, size_t n)
{
	size_t i, size = 1, len = 0;
	char *prefix;

	for (i = 0; i < n; i++)
		size += path->names[i].n * PATH_ESCAPE_MAX + 2;
	prefix = malloc(size);
	if (!prefix)
		return NULL;
	for (i = 0; i < n; i++) {
		len += path_escape(path->names[i].p, path->names[i].n, prefix + len);
		prefix[len++] = '/';
	}
	prefix[len] = '\0';
	return prefix;
}
