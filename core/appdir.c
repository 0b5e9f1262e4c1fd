/* SPDX-License-Identifier: Apache-2.0 */
/* Stores by name: where a program's data lies without its having to know. */
#include "core/emdb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/io.h"
#include "core/manifest.h"

#define APP_DEFAULT      "emdb"
#define DATABASE_DEFAULT "default"
#define BELOW_HOME       "/.local/share"
#define NAME_BYTES_MAX   255u

/* A piece of the caller's string. */
struct text {
	const char *p;
	size_t n;
};

static void tell(const struct emdb_options *o, const char *what)
{
	if (!o || !o->detail)
		return;
	*o->detail = (struct emdb_detail){ .segment = UINT64_MAX };
	memcpy(o->detail->text, what, min_size(strlen(what), sizeof(o->detail->text) - 1));
}

/* ---- Names -------------------------------------------------------------------- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct text trimmed(const char *s, const char *fallback)
{
	struct text t = { s ? s : "", s ? strlen(s) : 0 };

	while (t.n && is_blank(t.p[0])) {
		t.p++;
		t.n--;
	}
	while (t.n && is_blank(t.p[t.n - 1]))
		t.n--;
	return t.n ? t : (struct text){ fallback, strlen(fallback) };
}

/* One component of a path, on any system: nothing that leads elsewhere. */
static bool is_name(struct text t)
{
	bool dots = true;

	if (t.n > NAME_BYTES_MAX)
		return false;
	for (size_t i = 0; i < t.n; i++) {
		const unsigned char c = (unsigned char)t.p[i];

		if (c < 0x20 || c == 0x7f || c == '/' || c == '\\')
			return false;
		dots = dots && c == '.';
	}
	return !dots;
}

/* ---- The path ------------------------------------------------------------------ */

/* Where data lies: *ret_below is to follow. */
static emdb_err data_root(const struct emdb_app *app, const char **ret_root, const char **ret_below)
{
	const char *const xdg = secure_getenv("XDG_DATA_HOME");
	const char *const home = secure_getenv("HOME");

	*ret_below = "";
	if (app->root && app->root[0]) {
		*ret_root = app->root;
	} else if (xdg && xdg[0] == '/') {
		/* A relative one is to be ignored, says the specification. */
		*ret_root = xdg;
	} else if (home && home[0] == '/') {
		*ret_root = home;
		*ret_below = BELOW_HOME;
	} else {
		return EMDB_ERR_INVAL;
	}
	return EMDB_OK;
}

static emdb_err compose(const struct emdb_app *app, const struct emdb_options *o, struct buf *path)
{
	const struct text name = trimmed(app->app, APP_DEFAULT);
	const struct text database = trimmed(app->database, DATABASE_DEFAULT);
	const char *root, *below;
	emdb_err err;

	if (app->size != sizeof(*app))
		return EMDB_ERR_INVAL;
	if (!is_name(name) || !is_name(database)) {
		tell(o,
		     "the names of application and database: up to 255 bytes, no slash, backslash or "
		     "control character, not only dots");
		return EMDB_ERR_INVAL;
	}
	err = data_root(app, &root, &below);
	if (err) {
		tell(o, "neither XDG_DATA_HOME nor HOME is an absolute path: say where data lies");
		return err;
	}
	if (buf_append(path, root, strlen(root)) || buf_append(path, below, strlen(below)) ||
	    buf_append(path, "/", 1) || buf_append(path, name.p, name.n) ||
	    buf_append(path, "/", 1) || buf_append(path, database.p, database.n) ||
	    buf_append_zero(path, 1))
		return EMDB_ERR_NOMEM;
	return EMDB_OK;
}

emdb_err emdb_app_path(const struct emdb_app *app, char **ret_path)
{
	static const struct emdb_app defaults = { .size = sizeof(defaults) };
	struct buf path = BUF_INIT;
	const emdb_err err = compose(app ? app : &defaults, NULL, &path);

	if (err)
		buf_release(&path);
	else
		*ret_path = (char *)path.data;
	return err;
}

/* ---- Creating what leads there ----------------------------------------------------- */

/* What was created is there after a power cut, too. */
static int sync_dir(struct emdb_io *io, const char *path)
{
	int fd, ret;

	ret = io_openat(io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &fd);
	if (ret)
		return ret;
	ret = io_fsync(io, fd);
	(void)io_close(io, fd);
	return ret;
}

/* The directory at path[0..end-1], whose parent ends at `parent`; the bytes there are put back. */
static int make_dir(struct emdb_io *io, char *path, size_t parent, size_t end)
{
	const char cut = path[end];
	int ret;

	path[end] = 0;
	ret = io_mkdirat(io, AT_FDCWD, path, 0700);
	path[end] = cut;
	if (ret == 0) {
		const char slash = path[parent];

		path[parent] = 0;
		ret = sync_dir(io, parent ? path : slash == '/' ? "/" : ".");
		path[parent] = slash;
	}
	/* Not allowed, or no room, but there: what matters is what comes next. */
	return ret == -EEXIST || ret == -EROFS || ret == -EACCES ? 0 : ret;
}

/* All directories above the store, for the owner alone. */
static emdb_err make_chain(char *path)
{
	struct emdb_io *const io = emdb_io_posix_new();
	size_t parent = 0;
	int ret = 0;

	if (!io)
		return EMDB_ERR_NOMEM;
	for (size_t i = 1; !ret && path[i]; i++) {
		if (path[i] != '/' || path[i - 1] == '/')
			continue;
		ret = make_dir(io, path, parent, i);
		parent = i;
	}
	emdb_io_free(io);
	return ret == -ENOTDIR ? EMDB_ERR_NOT_STORE : err_of_io(ret);
}

emdb_err emdb_open_app(const struct emdb_app *app, const struct emdb_options *opts,
		       emdb_db **ret_db)
{
	static const struct emdb_app defaults = { .size = sizeof(defaults) };
	struct buf path = BUF_INIT;
	emdb_err err;

	err = compose(app ? app : &defaults, opts, &path);
	if (!err && opts && opts->flags & EMDB_OPEN_CREATE &&
	    !(opts->flags & EMDB_OPEN_READ_ONLY)) {
		err = make_chain((char *)path.data);
		if (err)
			tell(opts, "cannot create the directories that lead to the store");
	}
	if (!err)
		err = emdb_open((const char *)path.data, opts, ret_db);
	buf_release(&path);
	return err;
}
