/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Longest piece that is written at once. */
#define PIECE (EMDB_SEGMENT_MIN / 4)
/* More names in one another, and more namespaces of unusual keys, are no honest archive's. */
#define DEPTH_MAX   4096u
#define SPECIAL_MAX 10000u
#define PATH_MAX_   (16u << 20)

/* Times of a namespace, to be set when everything is in it. */
struct dir_times {
	uint64_t id;
	struct emdb_attr attr;
};

/* A namespace whose name in the archive is not its key. */
struct special {
	struct special *next;
	uint64_t id;
	size_t len;
	char path[]; /* without '/' at its ends */
};

struct import {
	emdb_db *db;
	uint64_t root;
	struct archive *in;
	tar_tell_fn tell;
	void *ctx;
	struct tar_report *r;
	struct dir_times *dirs;
	size_t dir_count, dir_cap;
	struct special *special; /* the last one first */
	size_t special_count;
	/* The namespace that was looked up last: entries of one come together. */
	char *last_path;
	uint64_t last_ns;
};

/* What an entry is to be. */
struct target {
	uint64_t parent;
	const void *key;
	size_t key_len;
	const char *path;   /* cleaned, for messages */
	int64_t expires_ms; /* 0: as usual */
};

void tar_init(void)
{
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		(void)setlocale(LC_CTYPE, "");
}

/* ---- Paths ---- */

/*
 * The names of a path with single slashes between them and none at its ends;
 * free with free().  "." disappears; NULL with errno EINVAL: "..".
 */
static char *clean(const char *path)
{
	const size_t len = strlen(path);
	char *const out = malloc(len + 1);
	size_t n = 0;

	if (!out)
		return NULL;
	while (*path) {
		const size_t part = strcspn(path, "/");

		if (part == 2 && path[0] == '.' && path[1] == '.') {
			free(out);
			errno = EINVAL;
			return NULL;
		}
		if (part && !(part == 1 && path[0] == '.')) {
			if (n)
				out[n++] = '/';
			memcpy(out + n, path, part);
			n += part;
		}
		path += part + (path[part] == '/');
	}
	out[n] = '\0';
	return out;
}

static const struct special *find_special(const struct import *m, const char *path, size_t n)
{
	const struct special *s;

	for (s = m->special; s; s = s->next)
		if (s->len == n && memcmp(s->path, path, n) == 0)
			return s;
	return NULL;
}

static emdb_err step_into(emdb_db *db, uint64_t ns, const char *name, size_t n, uint64_t *ret_ns)
{
	emdb_err err = emdb_ns_open(db, ns, name, n, ret_ns);

	if (err == EMDB_ERR_NOT_FOUND)
		err = emdb_ns_create(db, ns, name, n, ret_ns);
	return err;
}

/* The namespace of the first n bytes of a clean path, made where it is missing. */
static emdb_err walk(struct import *m, const char *path, size_t n, uint64_t *ret_ns)
{
	uint64_t ns = m->root;
	size_t at = 0, depth = 0;

	if (m->last_path && strlen(m->last_path) == n && memcmp(m->last_path, path, n) == 0) {
		*ret_ns = m->last_ns;
		return EMDB_OK;
	}
	while (at < n) {
		const char *const slash = memchr(path + at, '/', n - at);
		const size_t end = slash ? (size_t)(slash - path) : n;
		const struct special *const s = find_special(m, path, end);
		emdb_err err = EMDB_OK;

		if (++depth > DEPTH_MAX)
			return EMDB_ERR_KEY_TOO_LONG;
		if (s)
			ns = s->id;
		else
			err = step_into(m->db, ns, path + at, end - at, &ns);
		if (err)
			return err;
		at = end + 1;
	}
	free(m->last_path);
	m->last_path = strndup(path, n);
	m->last_ns = ns;
	*ret_ns = ns;
	return EMDB_OK;
}

/* Splits a clean, not empty path; the namespace is made. */
static emdb_err find_parent(struct import *m, const char *path, struct target *ret)
{
	const char *const slash = strrchr(path, '/');

	ret->path = path;
	ret->key = slash ? slash + 1 : path;
	ret->key_len = strlen(ret->key);
	ret->parent = m->root;
	return slash ? walk(m, path, (size_t)(slash - path), &ret->parent) : EMDB_OK;
}

/* ---- Attributes ---- */

/* seconds[.fraction] since 1970 as ms. */
static bool parse_expires(const void *value, size_t n, int64_t *ret_ms)
{
	char text[64], *end;
	long long secs;
	int64_t ms = 0, unit = 100;

	if (n == 0 || n >= sizeof(text))
		return false;
	memcpy(text, value, n);
	text[n] = '\0';
	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	secs = strtoll(text, &end, 10);
	if (errno || secs > INT64_MAX / 1000 - 1)
		return false;
	if (*end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++, unit /= 10)
			ms += unit * (*end - '0');
	if (*end)
		return false;
	*ret_ms = secs * 1000 + ms;
	return true;
}

/* The attribute of this name; false: it has none. */
static bool find_xattr(struct archive_entry *e, const char *want, const void **value, size_t *n)
{
	const char *name;

	(void)archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, value, n) == ARCHIVE_OK)
		if (name && *value && strcmp(name, want) == 0)
			return true;
	return false;
}

static void complain(struct import *m, const char *path, const char *what)
{
	m->r->failed++;
	m->tell(m->ctx, m->r, path, what);
}

static emdb_err set_xattrs(struct import *m, struct archive_entry *e, uint64_t id)
{
	const char *name;
	const void *value;
	size_t n;
	emdb_err err = EMDB_OK;

	(void)archive_entry_xattr_reset(e);
	while (!err && archive_entry_xattr_next(e, &name, &value, &n) == ARCHIVE_OK)
		if (name && strncmp(name, TAR_XATTR_OWN, sizeof(TAR_XATTR_OWN) - 1) != 0)
			err = emdb_xattr_set(m->db, id, name, value ? value : "", n, 0);
	return err;
}

static int64_t time_ns(bool set, time_t secs, long ns)
{
	if (!set || secs > INT64_MAX / 1000000000 - 1 || secs < INT64_MIN / 1000000000 + 1 ||
	    ns < 0 || ns > 999999999)
		return 0;
	return (int64_t)secs * 1000000000 + ns;
}

static unsigned int wanted(struct archive_entry *e, struct emdb_attr *a)
{
	unsigned int set = EMDB_SET_MODE | EMDB_SET_UID | EMDB_SET_GID;
	const int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);

	memset(a, 0, sizeof(*a));
	a->mode = archive_entry_perm(e) & 07777; /* an archive's may have bits that no mode has */
	a->uid = uid >= 0 && uid < UINT32_MAX ? (uint32_t)uid : 0;
	a->gid = gid >= 0 && gid < UINT32_MAX ? (uint32_t)gid : 0;
	a->mtime_ns = time_ns(archive_entry_mtime_is_set(e), archive_entry_mtime(e),
			      archive_entry_mtime_nsec(e));
	a->atime_ns = time_ns(archive_entry_atime_is_set(e), archive_entry_atime(e),
			      archive_entry_atime_nsec(e));
	if (archive_entry_mtime_is_set(e))
		set |= EMDB_SET_MTIME;
	if (archive_entry_atime_is_set(e))
		set |= EMDB_SET_ATIME;
	return set;
}

/* ---- Namespaces ---- */

static emdb_err remember_times(struct import *m, uint64_t id, const struct emdb_attr *a)
{
	if (m->dir_count == m->dir_cap) {
		const size_t cap = m->dir_cap ? m->dir_cap * 2 : 64;
		struct dir_times *const dirs = reallocarray(m->dirs, cap, sizeof(*dirs));

		if (!dirs)
			return EMDB_ERR_NOMEM;
		m->dirs = dirs;
		m->dir_cap = cap;
	}
	m->dirs[m->dir_count++] = (struct dir_times){ id, *a };
	return EMDB_OK;
}

static emdb_err remember_special(struct import *m, const char *path, uint64_t id)
{
	const size_t len = strlen(path);
	struct special *s;

	if (m->special_count == SPECIAL_MAX)
		return EMDB_ERR_UNSUPPORTED;
	s = malloc(sizeof(*s) + len);
	if (!s)
		return EMDB_ERR_NOMEM;
	s->next = m->special;
	s->id = id;
	s->len = len;
	memcpy(s->path, path, len);
	m->special = s;
	m->special_count++;
	return EMDB_OK;
}

static emdb_err import_dir(struct import *m, struct archive_entry *e, const struct target *t,
			   bool special)
{
	struct emdb_attr a, got;
	const unsigned int set = wanted(e, &a);
	const void *value;
	int64_t ms;
	uint64_t ns;
	size_t n;
	emdb_err err = step_into(m->db, t->parent, t->key, t->key_len, &ns);

	if (!err && special)
		err = remember_special(m, t->path, ns);
	if (!err)
		err = emdb_node_setattr(m->db, ns, &a, set & ~(EMDB_SET_MTIME | EMDB_SET_ATIME),
					&got);
	if (!err)
		err = set_xattrs(m, e, ns);
	if (!err && find_xattr(e, TAR_XATTR_DEFAULT, &value, &n) &&
	    emdb_duration_parse(value, n, &ms) == EMDB_OK)
		err = emdb_ns_ttl_set(m->db, ns, ms);
	if (!err && set & EMDB_SET_MTIME)
		err = remember_times(m, ns, &a);
	return err;
}

/* ---- Files ---- */

static emdb_err fail_archive(struct import *m)
{
	const char *const why = archive_error_string(m->in);

	(void)snprintf(m->r->error, sizeof(m->r->error), "%s",
		       why ? why : "the archive is damaged");
	return EMDB_ERR_CORRUPT;
}

static emdb_err write_block(struct import *m, uint64_t id, const void *block, size_t n,
			    la_int64_t off)
{
	const char *p = block;

	if (off < 0)
		return EMDB_ERR_VALUE_TOO_LARGE;
	while (n) {
		const size_t piece = n < PIECE ? n : PIECE;
		const emdb_err err = emdb_node_write(m->db, id, (uint64_t)off, p, piece, 0);

		if (err)
			return err;
		p += piece;
		off += (la_int64_t)piece;
		n -= piece;
		m->r->bytes += piece;
	}
	m->tell(m->ctx, m->r, NULL, NULL);
	return EMDB_OK;
}

static emdb_err write_value(struct import *m, struct archive_entry *e, uint64_t id)
{
	const la_int64_t size = archive_entry_size(e);
	struct emdb_attr a = { .size = 0 };
	const void *block;
	la_int64_t off = 0;
	uint64_t end = 0;
	emdb_err err = EMDB_OK;
	size_t n = 0;
	int ret;

	if (size < 0 || (uint64_t)size > EMDB_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
	while (!err && (ret = archive_read_data_block(m->in, &block, &n, &off)) != ARCHIVE_EOF) {
		if (ret < ARCHIVE_WARN)
			return fail_archive(m);
		err = write_block(m, id, block, n, off);
		if (!err && n)
			end = (uint64_t)off + n;
	}
	/* A hole at the end. */
	if (!err && end < (uint64_t)size) {
		a.size = (uint64_t)size;
		err = emdb_node_setattr(m->db, id, &a, EMDB_SET_SIZE, &a);
	}
	return err;
}

static emdb_err finish(struct import *m, struct archive_entry *e, const struct target *t,
		       uint64_t id)
{
	struct emdb_attr a, got;
	unsigned int set = wanted(e, &a);
	emdb_err err = set_xattrs(m, e, id);

	if (t->expires_ms) {
		a.expires_ms = t->expires_ms;
		set |= EMDB_SET_EXPIRES;
	}
	return err ? err : emdb_node_setattr(m->db, id, &a, set, &got);
}

/* What has the name makes room; a namespace does not (IS_NS). */
static emdb_err make_room(struct import *m, const struct target *t)
{
	const emdb_err err = emdb_node_unlink(m->db, t->parent, t->key, t->key_len, NULL);

	return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
}

static emdb_err import_node(struct import *m, struct archive_entry *e, const struct target *t)
{
	const char *const symlink = archive_entry_symlink(e);
	struct emdb_create what = { .mode = archive_entry_filetype(e) };
	struct emdb_attr a;
	emdb_err err = make_room(m, t);

	(void)wanted(e, &a);
	what.mode |= a.mode;
	what.uid = a.uid;
	what.gid = a.gid;
	if (S_ISCHR(what.mode) || S_ISBLK(what.mode))
		what.rdev = (uint64_t)archive_entry_rdev(e);
	if (S_ISLNK(what.mode)) {
		what.target = symlink ? symlink : "";
		what.target_len = symlink ? strlen(symlink) : 0;
	}
	if (!err)
		err = emdb_node_create(m->db, t->parent, t->key, t->key_len, &what, &a);
	if (err)
		return err;
	if (S_ISREG(what.mode))
		err = write_value(m, e, a.id);
	if (!err)
		err = finish(m, e, t, a.id);
	/* Half a file is none. */
	if (err && emdb_node_unlink(m->db, t->parent, t->key, t->key_len, NULL) != EMDB_OK)
		complain(m, t->path, "what was written of it cannot be removed");
	emdb_node_forget(m->db, a.id, 1);
	return err;
}

static emdb_err import_link(struct import *m, struct archive_entry *e, const struct target *t)
{
	char *const to = clean(archive_entry_hardlink(e));
	struct target old = { .parent = 0 };
	struct emdb_attr a, linked;
	emdb_err err;

	if (!to)
		return errno == EINVAL ? EMDB_ERR_INVAL : EMDB_ERR_NOMEM;
	if (!*to || strcmp(to, t->path) == 0) {
		free(to);
		return EMDB_ERR_INVAL;
	}
	err = find_parent(m, to, &old);
	if (!err)
		err = emdb_node_lookup(m->db, old.parent, old.key, old.key_len, &a);
	if (!err) {
		err = S_ISDIR(a.mode) ? EMDB_ERR_IS_NS : make_room(m, t);
		if (!err)
			err = emdb_node_link(m->db, a.id, t->parent, t->key, t->key_len, &linked);
		emdb_node_forget(m->db, a.id, err ? 1 : 2);
	}
	free(to);
	return err;
}

/* ---- The archive ---- */

static emdb_err import_at(struct import *m, struct archive_entry *e, const char *path)
{
	const mode_t type = archive_entry_filetype(e);
	struct target t = { .parent = 0 };
	const void *value;
	bool special;
	size_t n;
	emdb_err err = find_parent(m, path, &t);

	if (err)
		return err;
	special = find_xattr(e, TAR_XATTR_KEY, &value, &n);
	if (special) {
		t.key = value;
		t.key_len = n;
	}
	if (t.key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	if (archive_entry_hardlink(e))
		return import_link(m, e, &t);
	if (S_ISDIR(type))
		return import_dir(m, e, &t, special);
	if (find_xattr(e, TAR_XATTR_EXPIRES, &value, &n)) {
		if (!parse_expires(value, n, &t.expires_ms))
			return EMDB_ERR_INVAL;
		if (t.expires_ms <= emdb_now_ms(m->db)) {
			m->r->expired++;
			return EMDB_OK;
		}
	}
	if (!S_ISREG(type) && !S_ISLNK(type) && !S_ISCHR(type) && !S_ISBLK(type) && !S_ISFIFO(type))
		return EMDB_ERR_UNSUPPORTED;
	return import_node(m, e, &t);
}

/* Errors of one entry are told; what ends the whole import is returned. */
static emdb_err import_entry(struct import *m, struct archive_entry *e)
{
	const char *const name = archive_entry_pathname(e);
	char *path;
	emdb_err err;

	if (!name || strlen(name) > PATH_MAX_) {
		complain(m, name ? "(a path of more than 16 MiB)" : "(a path that cannot be read)",
			 "left out");
		return EMDB_OK;
	}
	path = clean(name);
	if (!path && errno == EINVAL) {
		complain(m, name, "'..' in a path: left out");
		return EMDB_OK;
	}
	if (!path)
		return EMDB_ERR_NOMEM;
	err = *path ? import_at(m, e, path) : EMDB_OK;
	m->r->entries++;
	if (err && !m->r->error[0] && err != EMDB_ERR_NOMEM && err != EMDB_ERR_NO_SPACE &&
	    err != EMDB_ERR_FAILED && err != EMDB_ERR_IO && err != EMDB_ERR_READ_ONLY) {
		complain(m, path, emdb_strerror(err));
		err = EMDB_OK;
	}
	free(path);
	return err;
}

static emdb_err set_times(struct import *m)
{
	emdb_err err = EMDB_OK;

	while (!err && m->dir_count) {
		const struct dir_times *const d = &m->dirs[--m->dir_count];
		struct emdb_attr got;

		err = emdb_node_setattr(m->db, d->id, &d->attr, EMDB_SET_MTIME, &got);
		if (err == EMDB_ERR_NOT_FOUND)
			err = EMDB_OK;
	}
	return err;
}

static void release(struct import *m)
{
	struct special *s;

	while ((s = m->special)) {
		m->special = s->next;
		free(s);
	}
	free(m->dirs);
	free(m->last_path);
}

emdb_err tar_import(emdb_db *db, uint64_t ns, struct archive *in, tar_tell_fn tell, void *ctx,
		    struct tar_report *report)
{
	struct import m = { .db = db, .root = ns, .in = in, .tell = tell, .ctx = ctx, .r = report };
	struct archive_entry *e;
	emdb_err err = EMDB_OK, times;
	int ret;

	memset(report, 0, sizeof(*report));
	while (!err && (ret = archive_read_next_header(in, &e)) != ARCHIVE_EOF) {
		if (ret < ARCHIVE_WARN)
			err = fail_archive(&m);
		else
			err = import_entry(&m, e);
	}
	times = set_times(&m);
	release(&m);
	return err ? err : times;
}
