/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/path.h"

#define PIECE       (512u * 1024u)
#define BATCH       128u
#define NAMES_START 256u

/* An entry as it was listed; a reference is held on the object. */
struct item {
	char *key;
	size_t key_len;
	struct emdb_attr attr;
	bool damaged;
};

/* A namespace that is still to be walked; path ends in '/', or is "". */
struct todo {
	uint64_t ns;
	char *path;
};

/* The first name of an object that has several. */
struct named {
	struct named *next; /* of all */
	uint64_t id;
	char path[];
};

struct export
{
	emdb_db *db;
	struct archive *out;
	tar_tell_fn tell;
	void *ctx;
	struct tar_report *r;
	struct item items[BATCH];
	size_t item_count;
	uint64_t next;
	bool nomem;
	struct todo *todo;
	size_t todo_count, todo_cap;
	struct named *named;
	struct named **by_id; /* them, by open addressing; NULL: free */
	size_t named_count, named_cap;
	char *buf;
};

/* ---- Names of objects with several ---- */

static struct named **named_slot(const struct export *x, uint64_t id)
{
	size_t i = (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (x->named_cap - 1);

	while (x->by_id[i] && x->by_id[i]->id != id)
		i = (i + 1) & (x->named_cap - 1);
	return &x->by_id[i];
}

static bool named_grow(struct export *x)
{
	const size_t cap = x->named_cap ? x->named_cap * 2 : NAMES_START;
	struct named **by_id, *n;

	if (x->named_cap && x->named_count * 2 < x->named_cap)
		return true;
	by_id = calloc(cap, sizeof(struct named *));
	if (!by_id)
		return false;
	free(x->by_id);
	x->by_id = by_id;
	x->named_cap = cap;
	for (n = x->named; n; n = n->next)
		*named_slot(x, n->id) = n;
	return true;
}

/* The name under which the object is in the archive; this one from now on if NULL comes. */
static const char *named_before(struct export *x, uint64_t id, const char *path)
{
	const size_t size = strlen(path) + 1;
	struct named **at, *n;

	if (!named_grow(x)) {
		x->nomem = true;
		return NULL;
	}
	at = named_slot(x, id);
	if (*at)
		return (*at)->path;
	n = malloc(sizeof(*n) + size);
	if (!n) {
		x->nomem = true;
		return NULL;
	}
	n->next = x->named;
	n->id = id;
	memcpy(n->path, path, size);
	x->named = *at = n;
	x->named_count++;
	return NULL;
}

static void named_release(struct export *x)
{
	struct named *n;

	while ((n = x->named)) {
		x->named = n->next;
		free(n);
	}
	free(x->by_id);
}

/* ---- Attributes ---- */

static void add_own(struct export *x, struct archive_entry *e, const struct item *it, bool escaped)
{
	char text[64];
	int64_t ms = 0;
	int n;

	if (it->attr.expires_ms) {
		n = snprintf(text, sizeof(text), "%" PRId64 ".%03d", it->attr.expires_ms / 1000,
			     (int)(it->attr.expires_ms % 1000));
		archive_entry_xattr_add_entry(e, TAR_XATTR_EXPIRES, text, (size_t)n);
	}
	if (S_ISDIR(it->attr.mode) && emdb_ns_ttl_get(x->db, it->attr.id, &ms) == EMDB_OK && ms) {
		n = snprintf(text, sizeof(text), "%" PRId64 "ms", ms);
		archive_entry_xattr_add_entry(e, TAR_XATTR_DEFAULT, text, (size_t)n);
	}
	if (escaped)
		archive_entry_xattr_add_entry(e, TAR_XATTR_KEY, it->key, it->key_len);
}

static emdb_err add_xattrs(struct export *x, struct archive_entry *e, uint64_t id)
{
	char *names = NULL, *name;
	size_t n = 0, len = 0;
	emdb_err err = emdb_xattr_list(x->db, id, NULL, 0, &n);

	if (err || !n)
		return err;
	names = malloc(n);
	if (!names)
		return EMDB_ERR_NOMEM;
	err = emdb_xattr_list(x->db, id, names, n, &n);
	for (name = names; !err && name < names + n; name += strlen(name) + 1) {
		if (strncmp(name, TAR_XATTR_OWN, sizeof(TAR_XATTR_OWN) - 1) == 0)
			continue;
		err = emdb_xattr_get(x->db, id, name, x->buf, PIECE, &len);
		if (!err)
			archive_entry_xattr_add_entry(e, name, x->buf, len);
	}
	free(names);
	return err;
}

static void set_attr(struct archive_entry *e, const struct emdb_attr *a)
{
	archive_entry_set_mode(e, a->mode);
	archive_entry_set_uid(e, a->uid);
	archive_entry_set_gid(e, a->gid);
	archive_entry_set_mtime(e, a->mtime_ns / 1000000000, (long)(a->mtime_ns % 1000000000));
	archive_entry_set_atime(e, a->atime_ns / 1000000000, (long)(a->atime_ns % 1000000000));
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode))
		archive_entry_set_rdev(e, (dev_t)a->rdev);
	archive_entry_set_size(e, S_ISREG(a->mode) ? (la_int64_t)a->size : 0);
}

/* ---- One entry ---- */

static emdb_err fail_archive(struct export *x)
{
	const char *const why = archive_error_string(x->out);

	(void)snprintf(x->r->error, sizeof(x->r->error), "%s", why ? why : "cannot write");
	return EMDB_ERR_IO;
}

static emdb_err write_value(struct export *x, const struct item *it)
{
	uint64_t off = 0;
	size_t n = 0;

	while (off < it->attr.size) {
		const emdb_err err = emdb_node_read(x->db, it->attr.id, off, x->buf, PIECE, &n);

		if (err || !n)
			return err ? err : EMDB_ERR_CORRUPT;
		if (n > it->attr.size - off)
			n = (size_t)(it->attr.size - off);
		if (archive_write_data(x->out, x->buf, n) != (la_ssize_t)n)
			return fail_archive(x);
		off += n;
		x->r->bytes += n;
		x->tell(x->ctx, x->r, NULL, NULL);
	}
	return EMDB_OK;
}

static emdb_err set_target(struct export *x, struct archive_entry *e, const struct item *it)
{
	size_t n = 0;
	emdb_err err;

	if (it->attr.size >= PIECE)
		return EMDB_ERR_VALUE_TOO_LARGE;
	err = emdb_node_read(x->db, it->attr.id, 0, x->buf, PIECE - 1, &n);
	if (err)
		return err;
	x->buf[n] = '\0';
	archive_entry_copy_symlink(e, x->buf);
	return EMDB_OK;
}

/*
 * Writes the entry under the path.  An error is of this entry unless
 * r->error is set: the archive is then of no use any more.
 */
static emdb_err write_entry(struct export *x, const struct item *it, const char *path, bool escaped)
{
	struct archive_entry *const e = archive_entry_new();
	const char *before = NULL;
	emdb_err err = e ? EMDB_OK : EMDB_ERR_NOMEM;

	if (!err && !S_ISDIR(it->attr.mode) && it->attr.nlink > 1)
		before = named_before(x, it->attr.id, path);
	if (!err && x->nomem)
		err = EMDB_ERR_NOMEM;
	if (err)
		goto out;
	archive_entry_copy_pathname(e, path);
	set_attr(e, &it->attr);
	if (before) {
		archive_entry_copy_hardlink(e, before);
		archive_entry_set_size(e, 0);
		if (escaped)
			archive_entry_xattr_add_entry(e, TAR_XATTR_KEY, it->key, it->key_len);
	} else {
		if (S_ISLNK(it->attr.mode))
			err = set_target(x, e, it);
		if (!err)
			err = add_xattrs(x, e, it->attr.id);
		if (err)
			goto out;
		add_own(x, e, it, escaped);
	}
	if (archive_write_header(x->out, e) < ARCHIVE_WARN) {
		err = fail_archive(x);
		goto out;
	}
	if (!before && S_ISREG(it->attr.mode))
		err = write_value(x, it);
	/* The header promised more: what follows would be taken for it. */
	if (err && !x->r->error[0])
		(void)snprintf(x->r->error, sizeof(x->r->error), "%s: %s", path,
			       emdb_strerror(err));
	x->r->entries++;
out:
	archive_entry_free(e);
	return err;
}

/* ---- The walk ---- */

static bool take_item(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		      uint64_t next_pos)
{
	struct export *const x = ctx;
	struct item *const it = &x->items[x->item_count];

	if (x->item_count == BATCH)
		return false;
	*it = (struct item){ .key = malloc(key_len + 1), .key_len = key_len, .damaged = !attr };
	if (!it->key) {
		x->nomem = true;
		return false;
	}
	memcpy(it->key, key, key_len);
	it->key[key_len] = '\0';
	if (attr)
		it->attr = *attr;
	x->item_count++;
	x->next = next_pos;
	return true;
}

static bool is_file_name(const char *key, size_t n)
{
	return n && !memchr(key, '/', n) && !memchr(key, '\0', n) && strcmp(key, ".") != 0 &&
	       strcmp(key, "..") != 0;
}

/* base, the key, and a '/' behind a namespace; NULL: out of memory. */
static char *join(const char *base, const struct item *it, bool *ret_escaped)
{
	const size_t base_len = strlen(base);
	char *const path = malloc(base_len + it->key_len * PATH_ESCAPE_MAX + 8);
	size_t n = it->key_len;

	if (!path)
		return NULL;
	memcpy(path, base, base_len);
	*ret_escaped = !is_file_name(it->key, it->key_len);
	if (!*ret_escaped) {
		memcpy(path + base_len, it->key, n);
	} else if (it->key[0] == '.' && n <= 2) {
		/* path_escape() leaves dots alone. */
		memcpy(path + base_len, "%2E%2E", 6);
		n *= 3;
	} else {
		n = path_escape(it->key, n, path + base_len);
	}
	n += base_len;
	if (S_ISDIR(it->attr.mode))
		path[n++] = '/';
	path[n] = '\0';
	return path;
}

static bool push(struct export *x, uint64_t ns, char *path)
{
	if (x->todo_count == x->todo_cap) {
		const size_t cap = x->todo_cap ? x->todo_cap * 2 : 64;
		struct todo *const todo = reallocarray(x->todo, cap, sizeof(*todo));

		if (!todo)
			return false;
		x->todo = todo;
		x->todo_cap = cap;
	}
	x->todo[x->todo_count++] = (struct todo){ ns, path };
	return true;
}

static emdb_err export_item(struct export *x, const char *base, const struct item *it)
{
	bool escaped = false;
	char *const path = join(base, it, &escaped);
	emdb_err err = EMDB_OK;

	if (!path)
		return EMDB_ERR_NOMEM;
	if (it->damaged || S_ISSOCK(it->attr.mode)) {
		x->r->failed++;
		x->tell(x->ctx, x->r, path, it->damaged ? "damaged" : "a socket: left out");
		free(path);
		return EMDB_OK;
	}
	err = write_entry(x, it, path, escaped);
	if (err && !x->r->error[0] && err != EMDB_ERR_NOMEM) {
		x->r->failed++;
		x->tell(x->ctx, x->r, path, emdb_strerror(err));
		err = EMDB_OK;
	} else if (!err && S_ISDIR(it->attr.mode)) {
		if (push(x, it->attr.id, path))
			return EMDB_OK;
		err = EMDB_ERR_NOMEM;
	}
	free(path);
	return err;
}

static void drop_items(struct export *x)
{
	size_t i;

	for (i = 0; i < x->item_count; i++) {
		if (!x->items[i].damaged)
			emdb_node_forget(x->db, x->items[i].attr.id, 1);
		free(x->items[i].key);
	}
	x->item_count = 0;
}

static emdb_err export_ns(struct export *x, uint64_t ns, const char *base)
{
	uint64_t pos = 0;
	emdb_err err;

	do {
		size_t i;

		err = emdb_node_readdir(x->db, ns, pos, EMDB_READDIR_REF, take_item, x);
		if (!err && x->nomem)
			err = EMDB_ERR_NOMEM;
		for (i = 0; !err && i < x->item_count; i++)
			err = export_item(x, base, &x->items[i]);
		i = x->item_count;
		pos = x->next;
		drop_items(x);
		if (i < BATCH)
			break;
	} while (!err);
	return err;
}

emdb_err tar_export(emdb_db *db, uint64_t ns, struct archive *out, tar_tell_fn tell, void *ctx,
		    struct tar_report *report)
{
	struct export *const x = calloc(1, sizeof(*x));
	char *root = strdup("");
	emdb_err err = EMDB_ERR_NOMEM;
	size_t i;

	memset(report, 0, sizeof(*report));
	if (!x || !root)
		goto out;
	x->db = db;
	x->out = out;
	x->tell = tell;
	x->ctx = ctx;
	x->r = report;
	x->buf = malloc(PIECE);
	if (!x->buf || !push(x, ns, root))
		goto out;
	root = NULL;
	err = EMDB_OK;
	while (!err && x->todo_count) {
		const struct todo t = x->todo[--x->todo_count];

		err = export_ns(x, t.ns, t.path);
		free(t.path);
	}
out:
	for (i = 0; x && i < x->todo_count; i++)
		free(x->todo[i].path);
	if (x) {
		free(x->todo);
		named_release(x);
		free(x->buf);
	}
	free(root);
	free(x);
	return err;
}
