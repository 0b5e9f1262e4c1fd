/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots as commands read them: lists and views. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/snapshot.h"

static bool add_row(void *ctx, const struct emdb_snapshot *s)
{
	struct snap_list *const l = ctx;

	if (l->count == l->cap) {
		const size_t cap = l->cap ? l->cap * 2 : 16;
		struct emdb_snapshot *const rows = reallocarray(l->rows, cap, sizeof(*rows));

		l->failed = !rows;
		if (!rows)
			return false;
		l->rows = rows;
		l->cap = cap;
	}
	l->rows[l->count++] = *s;
	return true;
}

emdb_err snap_list_read(const char *dir, struct snap_list *ret)
{
	emdb_err err;

	*ret = (struct snap_list){ .rows = NULL };
	err = emdb_snapshot_list_at(dir, add_row, ret);
	return !err && ret->failed ? EMDB_ERR_NOMEM : err;
}

void snap_list_release(struct snap_list *list)
{
	free(list->rows);
	list->rows = NULL;
	list->count = list->cap = 0;
}

void snap_own_name(const char *what, char buf[static SNAP_OWN_NAME])
{
	(void)snprintf(buf, SNAP_OWN_NAME, "%s-%lld-%lld", what, (long long)time(NULL),
		       (long long)getpid());
}

/* Opens STORE/snapshots/NAME; "latest" is the newest. */
static emdb_err open_named(const struct cli *cli, const char *dir, const char *name,
			   struct emdb_detail *detail, emdb_db **ret_db)
{
	struct emdb_options o = { .size = sizeof(o),
				  .flags = EMDB_OPEN_READ_ONLY,
				  .detail = detail };
	struct snap_list list;
	char *path = NULL;
	emdb_err err;

	err = snap_list_read(dir, &list);
	if (!err) {
		size_t i = list.count;

		err = EMDB_ERR_NOT_FOUND;
		while (err && i-- > 0)
			if (strcmp(name, EMDB_SNAPSHOT_LATEST) == 0 ||
			    strcmp(name, list.rows[i].name) == 0)
				err = EMDB_OK;
		if (!err && asprintf(&path, "%s/snapshots/%s", dir, list.rows[i].name) < 0) {
			path = NULL;
			err = EMDB_ERR_NOMEM;
		}
		if (!err)
			err = cli_db_open(cli, path, &o, ret_db);
	}
	free(path);
	snap_list_release(&list);
	return err;
}

/* The store as it is now: alone, or through a snapshot that the daemon makes. */
static int open_live(const struct cli *cli, const char *path, const char *dir, struct view *v)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_snapshot made;
	emdb_err err;
	int code;

	code = cli_open(cli, path, EMDB_OPEN_READ_ONLY, &v->store);
	if (code || store_db(v->store)) {
		v->db = code ? NULL : store_db(v->store);
		return code;
	}
	snap_own_name("view", v->own);
	err = store_snapshot_create(v->store, v->own, &made);
	if (!err)
		err = open_named(cli, dir, v->own, &detail, &v->db);
	return err ? cli_fail_err(cli, err, path) : CLI_OK;
}

int view_open(const struct cli *cli, const char *path, const char *name, struct view *ret)
{
	struct view v = VIEW_INIT;
	struct emdb_detail detail = { .text = "" };
	char *const dir = store_directory(path);
	int code = CLI_OK;
	emdb_err err;

	if (!dir)
		return cli_fail_err(cli, EMDB_ERR_NOMEM, path);
	if (name) {
		err = open_named(cli, dir, name, &detail, &v.db);
		if (err == EMDB_ERR_NOT_FOUND)
			code = cli_fail(cli, CLI_FAILED, "%s: no snapshot %s", path, name);
		else if (err)
			code = cli_fail_err(cli, err, *detail.text ? detail.text : path);
	} else {
		code = open_live(cli, path, dir, &v);
	}
	free(dir);
	if (code)
		return view_close(cli, &v, code);
	*ret = v;
	return CLI_OK;
}

int view_close(const struct cli *cli, struct view *view, int code)
{
	emdb_err err = EMDB_OK;

	if (view->db && !(view->store && store_db(view->store)))
		err = emdb_close(view->db);
	if (view->store && !store_db(view->store) && view->own[0]) {
		const emdb_err gone = store_snapshot_delete(view->store, view->own);

		if (gone && gone != EMDB_ERR_NOT_FOUND && !err)
			err = gone;
	}
	if (view->store) {
		const emdb_err closed = store_close(view->store);

		err = err ? err : closed;
	}
	*view = (struct view)VIEW_INIT;
	return err && code == CLI_OK ? cli_fail_err(cli, err, "closing") : code;
}
