/* SPDX-License-Identifier: Apache-2.0 */
/* Command ls: what is in a namespace. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/cli.h"
#include "tools/text.h"

/* Entries held at once with -U. */
#define LS_BATCH 4096

struct ls_item {
	char *name;
	size_t len;
	struct emdb_attr attr; /* undefined when damaged */
	bool damaged;
};

/* A namespace still to be listed (-R). */
struct ls_todo {
	uint64_t id;
	char *prefix; /* escaped path with '/' behind, "" at the root */
};

/* Which entries; names as paths of one part, none: no bound. */
struct ls_range {
	struct path from, to, prefix;
	bool reverse;
	uint64_t limit; /* 0: all */
};

struct ls {
	struct cli *cli;
	struct ls_range range;
	const char *text; /* the path as the user wrote it */
	struct store *store;
	bool is_long, exact, escaped, recursive, unsorted;
	/* Entries of the namespace being listed. */
	struct ls_item *items;
	size_t count, cap;
	bool nomem;
	uint64_t next_pos;
	bool more; /* readdir stopped at a full batch */
	/* Namespaces to come, the next one last. */
	struct ls_todo *todo;
	size_t todo_count, todo_cap;
	bool damaged;
};

/* ---- Collecting ---- */

/* The array, with room for one element more than count; NULL: out of memory. */
static void *grown(void *array, size_t *cap, size_t count, size_t size)
{
	const size_t want = *cap ? *cap * 2 : 64;
	void *p;

	if (count < *cap)
		return array;
	p = reallocarray(array, want, size);
	if (p)
		*cap = want;
	return p;
}

static bool add_item(struct ls *ls, const void *name, size_t len, const struct emdb_attr *attr)
{
	struct ls_item *const items = grown(ls->items, &ls->cap, ls->count, sizeof(*items));
	struct ls_item *item;

	if (!items)
		return false;
	ls->items = items;
	item = &items[ls->count];
	memset(item, 0, sizeof(*item));
	item->name = malloc(len + 1);
	if (!item->name)
		return false;
	memcpy(item->name, name, len);
	item->name[len] = '\0';
	item->len = len;
	item->damaged = !attr;
	if (attr)
		item->attr = *attr;
	else
		ls->damaged = true;
	ls->count++;
	return true;
}

static int compare_names(const char *a, size_t an, const char *b, size_t bn)
{
	const int order = memcmp(a, b, an < bn ? an : bn);

	return order ? order : (an > bn) - (an < bn);
}

/* Bounds are meant in the direction of the list, as in emdb_range_new(3). */
static bool in_range(const struct ls_range *r, const char *name, size_t len)
{
	const int sign = r->reverse ? -1 : 1;
	const struct path_name *p;

	if (r->prefix.count) {
		p = &r->prefix.names[0];
		if (len < p->n || memcmp(name, p->p, p->n) != 0)
			return false;
	}
	if (r->from.count) {
		p = &r->from.names[0];
		if (sign * compare_names(name, len, p->p, p->n) < 0)
			return false;
	}
	if (r->to.count) {
		p = &r->to.names[0];
		if (sign * compare_names(name, len, p->p, p->n) >= 0)
			return false;
	}
	return true;
}

static bool on_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		     uint64_t next_pos)
{
	struct ls *const ls = ctx;

	if (ls->unsorted && ls->count == LS_BATCH) {
		ls->more = true;
		return false;
	}
	/* What is damaged may be any name. */
	if ((!attr || in_range(&ls->range, key, key_len)) && !add_item(ls, key, key_len, attr)) {
		ls->nomem = true;
		return false;
	}
	ls->next_pos = next_pos;
	return true;
}

static void clear_items(struct ls *ls)
{
	size_t i;

	for (i = 0; i < ls->count; i++)
		free(ls->items[i].name);
	ls->count = 0;
}

static int compare_items(const void *a, const void *b)
{
	const struct ls_item *const x = a, *const y = b;

	return compare_names(x->name, x->len, y->name, y->len);
}

/* The escaped path of an item below prefix; free with free().  NULL: out of memory. */
static char *item_path(const char *prefix, const struct ls_item *item)
{
	const size_t head = strlen(prefix);
	char *const path = malloc(head + item->len * PATH_ESCAPE_MAX + 2);

	if (!path)
		return NULL;
	memcpy(path, prefix, head);
	(void)path_escape(item->name, item->len, path + head);
	return path;
}

static bool push_todo(struct ls *ls, const char *prefix, const struct ls_item *item)
{
	struct ls_todo *const todo = grown(ls->todo, &ls->todo_cap, ls->todo_count, sizeof(*todo));
	char *const path = item_path(prefix, item);
	char *dir = NULL;

	if (todo)
		ls->todo = todo;
	if (!todo || !path || asprintf(&dir, "%s/", path) < 0) {
		free(path);
		return false;
	}
	free(path);
	todo[ls->todo_count++] = (struct ls_todo){ .id = item->attr.id, .prefix = dir };
	return true;
}

/* ---- Printing ---- */

static const char *type_name(const struct ls_item *item)
{
	if (item->damaged)
		return "damaged";
	switch (item->attr.mode & S_IFMT) {
	case S_IFDIR:
		return "namespace";
	case S_IFREG:
		return "key";
	case S_IFLNK:
		return "symlink";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	case S_IFCHR:
		return "char";
	case S_IFBLK:
		return "block";
	default:
		return "unknown";
	}
}

static void json_hex(struct out *out, bool *first, const struct ls_item *item)
{
	size_t i;

	out_json_name(out, first, "key_hex");
	out_str(out, "\"");
	for (i = 0; i < item->len; i++)
		out_printf(out, "%02x", (unsigned char)item->name[i]);
	out_str(out, "\"");
}

static void json_time(struct out *out, bool *first, const char *name, int64_t ns)
{
	out_json_name(out, first, name);
	out_printf(out, "%" PRId64 ".%09d", ns / 1000000000 - (ns % 1000000000 < 0),
		   (int)((ns % 1000000000 + 1000000000) % 1000000000));
}

static void json_attr(struct out *out, bool *first, const struct emdb_attr *attr)
{
	out_json_u64(out, first, "size", attr->size);
	out_json_u64(out, first, "id", attr->id);
	out_json_name(out, first, "mode");
	out_printf(out, "\"%04o\"", attr->mode & 07777);
	out_json_u64(out, first, "uid", attr->uid);
	out_json_u64(out, first, "gid", attr->gid);
	out_json_u64(out, first, "nlink", attr->nlink);
	json_time(out, first, "mtime", attr->mtime_ns);
	json_time(out, first, "ctime", attr->ctime_ns);
	json_time(out, first, "btime", attr->btime_ns);
	if (attr->expires_ms)
		out_json_i64(out, first, "expires_ms", attr->expires_ms);
	else
		out_str(out, ",\"expires_ms\":null");
}

static void print_json(const struct ls *ls, const struct ls_item *item, const char *path)
{
	struct out *const out = ls->cli->out;
	bool first = true;

	out_str(out, "{");
	out_json_str(out, &first, "path", path);
	out_json_name(out, &first, "key");
	out_json_string(out, item->name, item->len);
	if (!text_is_utf8(item->name, item->len))
		json_hex(out, &first, item);
	out_json_str(out, &first, "type", type_name(item));
	if (!item->damaged)
		json_attr(out, &first, &item->attr);
	out_str(out, "}\n");
}

#define COLUMNS "%-9s %9s  %8s  %24s  "

static void print_columns(const struct ls *ls, const struct ls_item *item)
{
	char size[TEXT_SIZE_SIZE] = "-", when[TEXT_TIME_SIZE] = "-";
	char expires[TEXT_SPAN_SIZE] = "-";
	const struct emdb_attr *const attr = &item->attr;

	if (!item->damaged) {
		(void)text_time(attr->mtime_ns / 1000000, when);
		if (ls->exact)
			(void)snprintf(size, sizeof(size), "%" PRIu64, attr->size);
		else
			(void)text_size(attr->size, size);
	}
	if (!item->damaged && attr->expires_ms && ls->exact)
		(void)snprintf(expires, sizeof(expires), "@%" PRId64 ".%03d",
			       attr->expires_ms / 1000, (int)(attr->expires_ms % 1000));
	else if (!item->damaged && attr->expires_ms)
		(void)text_span(attr->expires_ms - store_now_ms(ls->store), expires);
	if (ls->exact)
		out_printf(ls->cli->out, "%s\t%s\t%s\t%s\t", type_name(item), size, expires, when);
	else
		out_printf(ls->cli->out, COLUMNS, type_name(item), size, expires, when);
}

/* False: out of memory. */
static bool print_item(const struct ls *ls, const char *prefix, const struct ls_item *item)
{
	char *const path = item_path(prefix, item);
	struct out *const out = ls->cli->out;

	if (!path)
		return false;
	if (ls->cli->json) {
		print_json(ls, item, path);
	} else {
		if (ls->is_long)
			print_columns(ls, item);
		if (ls->recursive)
			out_str(out, path);
		else if (ls->escaped)
			out_str(out, path + strlen(prefix));
		else
			out_name(out, item->name, item->len);
		if (!item->damaged && S_ISDIR(item->attr.mode))
			out_str(out, "/");
		out_str(out, "\n");
	}
	free(path);
	return true;
}

/* ---- Walking ---- */

static int print_items(struct ls *ls, const char *prefix)
{
	const uint64_t limit = ls->range.limit;
	size_t i;

	if (!ls->unsorted && ls->count)
		qsort(ls->items, ls->count, sizeof(*ls->items), compare_items);
	for (i = 0; i < ls->count && (!limit || i < limit); i++)
		if (!print_item(ls, prefix, &ls->items[ls->range.reverse ? ls->count - 1 - i : i]))
			return cli_fail_err(ls->cli, EMDB_ERR_NOMEM, *prefix ? prefix : "/");
	/* Backwards, so that the first is taken first. */
	for (i = ls->count; ls->recursive && i-- > 0;) {
		const struct ls_item *const item = &ls->items[i];

		if (!item->damaged && S_ISDIR(item->attr.mode) && !push_todo(ls, prefix, item))
			return cli_fail_err(ls->cli, EMDB_ERR_NOMEM, *prefix ? prefix : "/");
	}
	return CLI_OK;
}

static int list_namespace(struct ls *ls, uint64_t id, const char *prefix)
{
	emdb_err err;
	int code;

	ls->next_pos = 0;
	do {
		ls->more = false;
		err = store_readdir(ls->store, id, ls->next_pos, on_entry, ls);
		if (!err && ls->nomem)
			err = EMDB_ERR_NOMEM;
		if (err)
			return cli_fail_err(ls->cli, err, *prefix ? prefix : "/");
		code = print_items(ls, prefix);
		clear_items(ls);
	} while (!code && ls->more && !ls->cli->out->err);
	return code;
}

static int list_all(struct ls *ls, uint64_t id, const char *prefix)
{
	int code = list_namespace(ls, id, prefix);

	while (!code && ls->todo_count && !ls->cli->out->err) {
		const struct ls_todo next = ls->todo[--ls->todo_count];

		code = list_namespace(ls, next.id, next.prefix);
		free(next.prefix);
	}
	return code;
}

/* The path is a key: that one alone. */
static int list_key(struct ls *ls, const struct path *path, const char *prefix)
{
	const struct path_name *const name = cli_last(path);
	struct emdb_attr attr;
	uint64_t ns = 0;
	emdb_err err;
	int code;

	err = cli_parent(ls->store, path, false, &ns);
	if (!err)
		err = store_lookup(ls->store, ns, name->p, name->n, &attr);
	if (err)
		return cli_fail_err(ls->cli, err, ls->text);
	if (add_item(ls, name->p, name->n, &attr))
		code = print_items(ls, prefix);
	else
		code = cli_fail_err(ls->cli, EMDB_ERR_NOMEM, ls->text);
	clear_items(ls);
	return code;
}

static int ls_open(struct ls *ls, const struct path *path)
{
	char *prefix;
	uint64_t ns = 0;
	emdb_err err;
	int code;

	err = path_walk(ls->store, path, path->count, false, &ns);
	if (err && err != EMDB_ERR_NOT_NS)
		return cli_fail_err(ls->cli, err, ls->text);
	prefix = path_escape_prefix(path, path->count - (err ? 1 : 0));
	if (!prefix)
		return cli_fail_err(ls->cli, EMDB_ERR_NOMEM, ls->text);
	if (ls->is_long && !ls->cli->json && !ls->exact)
		out_printf(ls->cli->out, COLUMNS "%s\n", "TYPE", "SIZE", "EXPIRES", "MODIFIED",
			   "NAME");
	code = err ? list_key(ls, path, prefix) : list_all(ls, ns, prefix);
	free(prefix);
	return code;
}

static void ls_release(struct ls *ls)
{
	clear_items(ls);
	free(ls->items);
	while (ls->todo_count)
		free(ls->todo[--ls->todo_count].prefix);
	free(ls->todo);
	path_release(&ls->range.from);
	path_release(&ls->range.to);
	path_release(&ls->range.prefix);
}

#define OPT_FROM    OPT_LONG_ONLY
#define OPT_TO      (OPT_LONG_ONLY + 1)
#define OPT_PREFIX  (OPT_LONG_ONLY + 2)
#define OPT_REVERSE (OPT_LONG_ONLY + 3)
#define OPT_LIMIT   (OPT_LONG_ONLY + 4)

/* An option's value as a name; a path with a slash is none. */
static int range_name(struct cli *cli, const struct cli_args *args, int key, struct path *ret)
{
	const char *const text = args_value(args, key);
	int code;

	if (!text)
		return CLI_OK;
	code = cli_path(cli, args, text, ret);
	if (!code && ret->count != 1)
		code = cli_fail(cli, CLI_USAGE, "%s: not one name", text);
	return code;
}

static int range_of(struct cli *cli, const struct cli_args *args, struct ls_range *r)
{
	const char *const limit = args_value(args, OPT_LIMIT);
	int code = range_name(cli, args, OPT_FROM, &r->from);
	char *end = NULL;

	if (!code)
		code = range_name(cli, args, OPT_TO, &r->to);
	if (!code)
		code = range_name(cli, args, OPT_PREFIX, &r->prefix);
	if (code)
		return code;
	r->reverse = args_has(args, OPT_REVERSE);
	if (limit)
		r->limit = strtoull(limit, &end, 10);
	if (limit && (*limit < '1' || *limit > '9' || *end))
		return cli_fail(cli, CLI_USAGE, "--limit %s: not a number from 1 on", limit);
	if ((args_has(args, 'R') || args_has(args, 'U')) &&
	    (r->from.count || r->to.count || r->prefix.count || r->reverse || r->limit))
		return cli_fail(cli, CLI_USAGE,
				"a range is one of one namespace, sorted: not with %s",
				args_has(args, 'R') ? "-R" : "-U");
	return CLI_OK;
}

static int run_ls(struct cli *cli, const struct cli_args *args)
{
	struct ls ls = {
		.cli = cli,
		.range = { .from = PATH_INIT, .to = PATH_INIT, .prefix = PATH_INIT },
		.text = args->argc > 1 ? args->argv[1] : "/",
		.is_long = args_has(args, 'l'),
		.exact = args_has(args, 'H'),
		.escaped = args_has(args, 'x'),
		.recursive = args_has(args, 'R'),
		.unsorted = args_has(args, 'U'),
	};
	struct path path = PATH_INIT;
	int code;

	cli->json = args_has(args, 'j');
	code = range_of(cli, args, &ls.range);
	if (!code)
		code = cli_path(cli, args, ls.text, &path);
	if (code)
		goto out;
	code = cli_open_read(cli, args, args->argv[0], &ls.store);
	if (!code) {
		code = ls_open(&ls, &path);
		if (!code && ls.damaged)
			code = cli_fail(cli, CLI_FAILED, "some entries are damaged");
		code = cli_close(cli, args->argv[0], ls.store, code);
	}
out:
	ls_release(&ls);
	path_release(&path);
	return code;
}

static const struct cli_opt ls_opts[] = {
	{ 'l', "long", NULL, "type, size, time left and time of change too" },
	{ 'H', "script", NULL, "with -l: no header, tabs, exact numbers, deadlines as @SECONDS" },
	{ 'j', "json", NULL, "JSON lines, with everything known of each entry" },
	{ 'R', "recursive", NULL, "what is in nested namespaces too; whole paths, as with -x" },
	{ 'U', "unsorted", NULL, "do not sort: bounded memory for a namespace of any size" },
	{ 'x', "escaped", NULL, "%HH in PATH and in what is printed stands for a byte" },
	{ OPT_FROM, "from", "NAME", "begin with this name, or the next" },
	{ OPT_TO, "to", "NAME", "end before this name" },
	{ OPT_PREFIX, "prefix", "NAME", "only names that begin like this" },
	{ OPT_REVERSE, "reverse", NULL,
	  "from the last to the first; --from is then the higher one" },
	{ OPT_LIMIT, "limit", "N", "at most N entries" },
	OPT_SALVAGE_ENTRY,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_ls = {
	.name = "ls",
	.synopsis = "[OPTIONS] STORE [PATH]",
	.summary = "list a namespace",
	.details = "Namespaces have a / behind their name; their size is the number of entries.\n"
		   "JSON: path is escaped as with -x; key_hex is there when key is not UTF-8.\n",
	.opts = ls_opts,
	.args_min = 1,
	.args_max = 2,
	.run = run_ls,
};
