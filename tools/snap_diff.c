/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot diff: two states of a store, compared entry by entry.
 *
 * An entry is a key in a namespace, and a namespace keeps its id when it is
 * renamed: so what lies in a renamed directory is compared in place.
 *	both have the entry, of one object: M if the object's attributes differ
 *	    (whatever changes an object changes its ctime)
 *	else the object went (-) or came (+); an object that went under one name
 *	    and came under another: R; another object under the same name: M
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/snapshot.h"

struct row {
	uint64_t parent, id;
	char *key;
	uint32_t key_len;
	uint32_t mode, uid, gid, nlink;
	uint64_t size, rdev;
	int64_t mtime_ns, ctime_ns, expires_ms;
};

struct tree {
	struct row *rows;  /* sorted by entry once it is read */
	struct row **dirs; /* by id */
	size_t count, cap, dir_count;
	uint64_t ns;  /* being read */
	bool failed;  /* out of memory */
	bool damaged; /* an entry could not be read */
};

struct line {
	char kind;
	const struct row *row, *to; /* to: of R */
	char *path, *to_path;
};

struct diff {
	struct cli *cli;
	bool tabs;
	struct tree a, b;
	const struct row **gone, **come;
	size_t gone_count, come_count;
	struct line *lines;
	size_t line_count;
};

/* ---- Reading a tree ---- */

static bool add_row(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		    uint64_t next_pos)
{
	struct tree *const t = ctx;
	struct row *r;

	(void)next_pos;
	if (!attr) {
		t->damaged = true;
		return true;
	}
	if (t->count == t->cap) {
		const size_t cap = t->cap ? t->cap * 2 : 256;
		struct row *const rows = reallocarray(t->rows, cap, sizeof(*rows));

		if (!rows) {
			t->failed = true;
			return false;
		}
		t->rows = rows;
		t->cap = cap;
	}
	r = &t->rows[t->count];
	*r = (struct row){
		.parent = t->ns,
		.id = attr->id,
		.key = malloc(key_len ? key_len : 1),
		.key_len = (uint32_t)key_len,
		.mode = attr->mode,
		.uid = attr->uid,
		.gid = attr->gid,
		.nlink = attr->nlink,
		.size = attr->size,
		.rdev = attr->rdev,
		.mtime_ns = attr->mtime_ns,
		.ctime_ns = attr->ctime_ns,
		.expires_ms = attr->expires_ms,
	};
	t->failed = !r->key;
	if (t->failed)
		return false;
	memcpy(r->key, key, key_len);
	t->count++;
	return true;
}

static int by_entry(const void *a, const void *b)
{
	const struct row *const x = a, *const y = b;
	const size_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
	int c;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	c = n ? memcmp(x->key, y->key, n) : 0;
	if (c)
		return c;
	return x->key_len == y->key_len ? 0 : x->key_len < y->key_len ? -1 : 1;
}

static int by_id(const void *a, const void *b)
{
	const struct row *const x = *(const struct row *const *)a,
				*const y = *(const struct row *const *)b;

	return x->id == y->id ? by_entry(x, y) : x->id < y->id ? -1 : 1;
}

/* Rows are appended while they are walked: a breadth-first search without a queue. */
static emdb_err read_tree(emdb_db *db, struct tree *t)
{
	size_t at = 0;
	emdb_err err;

	t->ns = EMDB_ROOT;
	for (;;) {
		err = emdb_node_readdir(db, t->ns, 0, 0, add_row, t);
		if (!err && t->failed)
			err = EMDB_ERR_NOMEM;
		while (at < t->count && !S_ISDIR(t->rows[at].mode))
			at++;
		if (err || at == t->count)
			break;
		t->ns = t->rows[at++].id;
	}
	if (err)
		return err;
	if (t->count)
		qsort(t->rows, t->count, sizeof(*t->rows), by_entry);
	t->dirs = calloc(t->count + 1, sizeof(struct row *));
	if (!t->dirs)
		return EMDB_ERR_NOMEM;
	for (at = 0; at < t->count; at++)
		if (S_ISDIR(t->rows[at].mode))
			t->dirs[t->dir_count++] = &t->rows[at];
	if (t->dir_count)
		qsort(t->dirs, t->dir_count, sizeof(*t->dirs), by_id);
	return EMDB_OK;
}

static void tree_release(struct tree *t)
{
	size_t i;

	for (i = 0; i < t->count; i++)
		free(t->rows[i].key);
	free(t->rows);
	free(t->dirs);
}

static const struct row *find_dir(const struct tree *t, uint64_t id)
{
	size_t lo = 0, hi = t->dir_count;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (t->dirs[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < t->dir_count && t->dirs[lo]->id == id ? t->dirs[lo] : NULL;
}

/* Deeper than any tree: a loop in damaged data must end too. */
#define PATH_DEPTH_MAX 100000

/* The row's path in the escaped form, a '/' behind directories; NULL: out of memory. */
static char *path_of(const struct tree *t, const struct row *r)
{
	const struct row *up;
	size_t size = 2, depth = 0, len;
	char *path;

	for (up = r; up && depth++ < PATH_DEPTH_MAX; up = find_dir(t, up->parent))
		size += (size_t)up->key_len * PATH_ESCAPE_MAX + 3;
	path = malloc(size);
	if (!path)
		return NULL;
	/* From behind, each name written in front of what is there. */
	len = size - 1;
	path[len] = '\0';
	depth = 0;
	for (up = r; up && depth++ < PATH_DEPTH_MAX; up = find_dir(t, up->parent)) {
		char *const name = malloc((size_t)up->key_len * PATH_ESCAPE_MAX + 2);
		size_t n;

		if (!name) {
			free(path);
			return NULL;
		}
		n = path_escape(up->key, up->key_len, name);
		if (S_ISDIR(up->mode))
			name[n++] = '/';
		len -= n;
		memcpy(path + len, name, n);
		free(name);
	}
	memmove(path, path + len, size - len);
	return path;
}

/* ---- Comparing ---- */

static bool is_same(const struct row *x, const struct row *y)
{
	return x->mode == y->mode && x->uid == y->uid && x->gid == y->gid && x->nlink == y->nlink &&
	       x->rdev == y->rdev && x->mtime_ns == y->mtime_ns && x->ctime_ns == y->ctime_ns &&
	       x->expires_ms == y->expires_ms && (x->size == y->size || S_ISDIR(x->mode));
}

static void add_line(struct diff *d, char kind, const struct row *row, const struct row *to)
{
	d->lines[d->line_count++] = (struct line){ .kind = kind, .row = row, .to = to };
}

static void merge(struct diff *d)
{
	size_t i = 0, k = 0;

	while (i < d->a.count || k < d->b.count) {
		const struct row *const x = &d->a.rows[i], *const y = &d->b.rows[k];
		const int c = i == d->a.count ? 1 : k == d->b.count ? -1 : by_entry(x, y);

		if (c == 0 && x->id == y->id && !is_same(x, y))
			add_line(d, 'M', y, NULL);
		if (c < 0 || (c == 0 && x->id != y->id))
			d->gone[d->gone_count++] = x;
		if (c > 0 || (c == 0 && x->id != y->id))
			d->come[d->come_count++] = y;
		i += c <= 0;
		k += c >= 0;
	}
}

/* The row of the same entry in a list in order of entries; NULL: none. */
static const struct row *find_entry(const struct row *const *list, size_t n, const struct row *r)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (by_entry(list[mid], r) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && by_entry(list[lo], r) == 0 ? list[lo] : NULL;
}

/* A file in the place of a file: replaced. */
static bool is_replaced(const struct row *x, const struct row *y)
{
	return x && y && !S_ISDIR(x->mode) && !S_ISDIR(y->mode);
}

/* Takes the pairs of one object out of both lists, which are sorted by id for it. */
static void pair_renames(struct diff *d)
{
	size_t i = 0, k = 0, gone = 0, come = 0;

	while (i < d->gone_count && k < d->come_count) {
		const uint64_t x = d->gone[i]->id, y = d->come[k]->id;

		if (x == y)
			add_line(d, 'R', d->gone[i++], d->come[k++]);
		else if (x < y)
			d->gone[gone++] = d->gone[i++];
		else
			d->come[come++] = d->come[k++];
	}
	while (i < d->gone_count)
		d->gone[gone++] = d->gone[i++];
	while (k < d->come_count)
		d->come[come++] = d->come[k++];
	d->gone_count = gone;
	d->come_count = come;
}

static int rows_by_entry(const void *a, const void *b)
{
	return by_entry(*(const struct row *const *)a, *(const struct row *const *)b);
}

static void sort_lists(struct diff *d, int (*cmp)(const void *, const void *))
{
	if (d->gone_count)
		qsort(d->gone, d->gone_count, sizeof(*d->gone), cmp);
	if (d->come_count)
		qsort(d->come, d->come_count, sizeof(*d->come), cmp);
}

static void compare(struct diff *d)
{
	size_t i;

	merge(d);
	sort_lists(d, by_id);
	pair_renames(d);
	sort_lists(d, rows_by_entry);
	for (i = 0; i < d->gone_count; i++) {
		const struct row *const x = d->gone[i];
		const struct row *const y = find_entry(d->come, d->come_count, x);

		if (is_replaced(x, y))
			add_line(d, 'M', y, NULL);
		else
			add_line(d, '-', x, NULL);
	}
	for (i = 0; i < d->come_count; i++)
		if (!is_replaced(find_entry(d->gone, d->gone_count, d->come[i]), d->come[i]))
			add_line(d, '+', d->come[i], NULL);
}

/* ---- Printing ---- */

static int by_path(const void *a, const void *b)
{
	const struct line *const x = a, *const y = b;
	const int c = strcmp(x->path, y->path);

	/* What went from a place before what came there. */
	return c ? c : (x->kind == '-' ? 0 : 1) - (y->kind == '-' ? 0 : 1);
}

static void print_line(const struct diff *d, const struct line *l)
{
	struct out *const out = d->cli->out;
	const char gap = d->tabs ? '\t' : ' ';
	bool first = true;

	if (d->cli->json) {
		const char kind[2] = { l->kind, '\0' };

		out_str(out, "{");
		out_json_str(out, &first, "change", kind);
		out_json_str(out, &first, "path", l->path);
		if (l->to_path)
			out_json_str(out, &first, "to", l->to_path);
		out_str(out, "}\n");
		return;
	}
	out_printf(out, "%c%c", l->kind, gap);
	out_str(out, l->path);
	if (l->to_path) {
		out_str(out, d->tabs ? "\t" : " -> ");
		out_str(out, l->to_path);
	}
	out_str(out, "\n");
}

static emdb_err print_all(struct diff *d)
{
	size_t i;

	for (i = 0; i < d->line_count; i++) {
		struct line *const l = &d->lines[i];

		l->path = path_of(l->kind == '-' || l->kind == 'R' ? &d->a : &d->b, l->row);
		l->to_path = l->to ? path_of(&d->b, l->to) : NULL;
		if (!l->path || (l->to && !l->to_path))
			return EMDB_ERR_NOMEM;
	}
	if (d->line_count)
		qsort(d->lines, d->line_count, sizeof(*d->lines), by_path);
	for (i = 0; i < d->line_count; i++)
		print_line(d, &d->lines[i]);
	return EMDB_OK;
}

static emdb_err run_diff(struct diff *d, emdb_db *a, emdb_db *b)
{
	emdb_err err = read_tree(a, &d->a);

	if (!err)
		err = read_tree(b, &d->b);
	if (err)
		return err;
	d->gone = calloc(d->a.count + 1, sizeof(struct row *));
	d->come = calloc(d->b.count + 1, sizeof(struct row *));
	d->lines = calloc(d->a.count + d->b.count + 1, sizeof(*d->lines));
	if (!d->gone || !d->come || !d->lines)
		return EMDB_ERR_NOMEM;
	compare(d);
	return print_all(d);
}

static void diff_release(struct diff *d)
{
	size_t i;

	for (i = 0; i < d->line_count; i++) {
		free(d->lines[i].path);
		free(d->lines[i].to_path);
	}
	free(d->lines);
	free(d->gone);
	free(d->come);
	tree_release(&d->a);
	tree_release(&d->b);
}

int snap_diff(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1];
	struct diff d = { .cli = cli, .tabs = args_has(args, 'H') };
	struct view a = VIEW_INIT, b = VIEW_INIT;
	emdb_err err;
	int code;

	code = view_open(cli, path, args->argv[2], &a);
	if (!code)
		code = view_open(cli, path, args->argc > 3 ? args->argv[3] : NULL, &b);
	if (!code) {
		err = run_diff(&d, a.db, b.db);
		if (err)
			code = cli_fail_err(cli, err, path);
		else if (d.a.damaged || d.b.damaged)
			code = cli_fail(cli, CLI_PARTIAL, "damaged entries were left out");
	}
	diff_release(&d);
	code = view_close(cli, &b, code);
	return view_close(cli, &a, code);
}
