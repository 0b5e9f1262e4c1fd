/* SPDX-License-Identifier: Apache-2.0 */
/* Command snapshot: create, list, delete, rename, rollback; the rest is in snap_*.c. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/snapshot.h"
#include "tools/text.h"

/* ---- A snapshot on one line ---- */

static void print_row(const struct cli *cli, const struct emdb_snapshot *s, bool tabs)
{
	char when[TEXT_TIME_SIZE], size[TEXT_SIZE_SIZE];
	struct out *const out = cli->out;
	bool first = true;

	if (cli->json) {
		out_str(out, "{");
		out_json_str(out, &first, "name", s->name);
		out_json_u64(out, &first, "number", s->number);
		out_json_str(out, &first, "created", text_time(s->created_ns / 1000000, when));
		out_json_i64(out, &first, "created_ns", s->created_ns);
		out_json_u64(out, &first, "lsn", s->lsn);
		out_json_u64(out, &first, "bytes", s->bytes);
		if (s->err)
			out_json_str(out, &first, "error", emdb_strerror(s->err));
		out_str(out, "}\n");
		return;
	}
	(void)text_time(s->created_ns / 1000000, when);
	if (tabs)
		out_printf(out, "%" PRIu64 "\t%s\t%" PRIu64 "\t", s->number, when, s->bytes);
	else
		out_printf(out, "%6" PRIu64 "  %s  %8s  ", s->number, when,
			   text_size(s->bytes, size));
	out_name(out, s->name, strlen(s->name));
	if (s->err)
		out_printf(out, "%s(%s)", tabs ? "\t" : "  ", emdb_strerror(s->err));
	out_str(out, "\n");
}

/* ---- create ---- */

/* For who gives no name: the time, as 2026-11-22T09-30-00Z. */
static void name_of_now(char buf[static SNAP_OWN_NAME])
{
	const time_t now = time(NULL);
	struct tm tm;

	memset(&tm, 0, sizeof(tm));
	(void)gmtime_r(&now, &tm);
	(void)strftime(buf, SNAP_OWN_NAME, "%Y-%m-%dT%H-%M-%SZ", &tm);
}

static int fail_action(const struct cli *cli, struct store *store, emdb_err err, const char *what)
{
	const char *const remark = store_remark(store);

	if (*remark)
		return cli_fail(cli, CLI_FAILED, "%s: %s: %s", what, emdb_strerror(err), remark);
	if (err == EMDB_ERR_INVAL)
		return cli_fail(cli, CLI_FAILED, "%s: not a name for a snapshot", what);
	if (err == EMDB_ERR_UNSUPPORTED)
		return cli_fail(cli, CLI_FAILED, "%s: the file system has no hard links", what);
	return cli_fail_err(cli, err, what);
}

static int snap_create(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1];
	const char *name = args->argc > 2 ? args->argv[2] : NULL;
	char own[SNAP_OWN_NAME];
	struct emdb_snapshot made = { .number = 0 };
	struct store *store = NULL;
	emdb_err err;
	int code;

	name_of_now(own);
	code = cli_open(cli, path, 0, &store);
	if (code)
		return code;
	err = store_snapshot_create(store, name ? name : own, &made);
	if (err)
		code = fail_action(cli, store, err, name ? name : own);
	else if (cli->json)
		print_row(cli, &made, false);
	else if (!name)
		out_printf(cli->out, "%s\n", own);
	return cli_close(cli, path, store, code);
}

/* ---- delete, rename ---- */

static int snap_delete(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1];
	struct store *store = NULL;
	int i, failed = 0, code;

	code = cli_open(cli, path, 0, &store);
	if (code)
		return code;
	for (i = 2; i < args->argc; i++) {
		const emdb_err err = store_snapshot_delete(store, args->argv[i]);

		if (err) {
			(void)fail_action(cli, store, err, args->argv[i]);
			failed++;
		}
	}
	if (failed)
		code = failed == args->argc - 2 ? CLI_FAILED : CLI_PARTIAL;
	return cli_close(cli, path, store, code);
}

static int snap_rename(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1];
	struct store *store = NULL;
	emdb_err err;
	int code;

	code = cli_open(cli, path, 0, &store);
	if (code)
		return code;
	err = store_snapshot_rename(store, args->argv[2], args->argv[3]);
	if (err)
		code = fail_action(cli, store, err,
				   err == EMDB_ERR_EXISTS ? args->argv[3] : args->argv[2]);
	return cli_close(cli, path, store, code);
}

/* ---- list ---- */

static int snap_show(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1];
	char *const dir = store_directory(path);
	const bool tabs = args_has(args, 'H');
	struct snap_list list = { .rows = NULL };
	emdb_err err = dir ? snap_list_read(dir, &list) : EMDB_ERR_NOMEM;
	size_t i;

	for (i = 0; !err && i < list.count; i++)
		print_row(cli, &list.rows[i], tabs);
	snap_list_release(&list);
	free(dir);
	return err ? cli_fail_err(cli, err, path) : CLI_OK;
}

/* ---- rollback ---- */

static int snap_rollback(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1], *const name = args->argv[2];
	const unsigned int flags = args_has(args, 'f') ? EMDB_ROLLBACK_PAST_NEWER : 0;
	struct emdb_detail detail = { .text = "" };
	char *const dir = store_at_rest(path);
	const emdb_err err = dir ? emdb_rollback(dir, name, flags, &detail) : EMDB_ERR_NOMEM;
	int code = CLI_OK;

	if (err == EMDB_ERR_LOCKED) {
		code = cli_fail_open(cli, path, err, "");
	} else if (err == EMDB_ERR_CONFLICT) {
		code = cli_fail(cli, CLI_FAILED, "%s (--past-newer goes past them; they stay)",
				detail.text);
	} else if (err == EMDB_ERR_NOT_FOUND) {
		code = cli_fail(cli, CLI_FAILED, "%s: no snapshot %s", path, name);
	} else if (err) {
		code = cli_fail_err(cli, err, *detail.text ? detail.text : path);
	}
	free(dir);
	return code;
}

/* ---- The actions ---- */

static const struct action {
	const char *name, *synopsis;
	int args_min, args_max; /* with action and store */
	int (*run)(struct cli *cli, const struct cli_args *args);
} actions[] = {
	{ "create", "STORE [NAME]", 2, 3, snap_create },
	{ "list", "[-Hj] STORE", 2, 2, snap_show },
	{ "delete", "STORE NAME...", 3, INT_MAX, snap_delete },
	{ "rename", "STORE OLD NEW", 4, 4, snap_rename },
	{ "diff", "[-Hj] STORE A [B]", 3, 4, snap_diff },
	{ "prune", "[-nj] --keep-...=N STORE", 2, 2, snap_prune },
	{ "run", "[--path DIR] STORE -- COMMAND...", 3, INT_MAX, snap_run },
	{ "rollback", "[-f] STORE NAME", 3, 3, snap_rollback },
};

static int run_snapshot(struct cli *cli, const struct cli_args *args)
{
	size_t i;

	cli->json = args_has(args, 'j');
	for (i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		const struct action *const a = &actions[i];

		if (strcmp(args->argv[0], a->name) != 0)
			continue;
		if (args->argc < a->args_min || args->argc > a->args_max)
			return cli_fail(cli, CLI_USAGE, "%s arguments; usage: emdb snapshot %s %s",
					args->argc < a->args_min ? "missing" : "too many", a->name,
					a->synopsis);
		return a->run(cli, args);
	}
	return cli_fail(cli, CLI_USAGE, "unknown action %s (see: emdb snapshot --help)",
			args->argv[0]);
}

static const struct cli_opt snapshot_opts[] = {
	{ 'H', "tabs", NULL, "list, diff: tabs between columns, sizes in bytes" },
	{ 'j', "json", NULL, "create, list, diff, prune: JSON lines" },
	{ 'n', "dry-run", NULL, "prune: only say what would be removed" },
	{ 'f', "past-newer", NULL, "rollback: also to one that is not the newest" },
	{ SNAP_KEEP_LAST, "keep-last", "N", "prune: keep the N newest" },
	{ SNAP_KEEP_HOURLY, "keep-hourly", "N", "the newest of each of N hours" },
	{ SNAP_KEEP_DAILY, "keep-daily", "N", "of each of N days" },
	{ SNAP_KEEP_WEEKLY, "keep-weekly", "N", "of each of N weeks" },
	{ SNAP_KEEP_MONTHLY, "keep-monthly", "N", "of each of N months" },
	{ SNAP_PATH, "path", "DIR", "run: mount there (default: STORE.snapshot)" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_snapshot = {
	.name = "snapshot",
	.synopsis = "ACTION [OPTIONS] STORE [ARGUMENTS]",
	.summary = "make, list, compare and remove snapshots",
	.details =
		"  create STORE [NAME]        of everything, at one moment; prints the name if none\n"
		"                             is given\n"
		"  list STORE                 the oldest first\n"
		"  delete STORE NAME...\n"
		"  rename STORE OLD NEW\n"
		"  diff STORE A [B]           what is different in B (without it: now): + new,\n"
		"                             - gone, M changed, R renamed\n"
		"  prune STORE                removes all but what a --keep option says\n"
		"  run STORE -- COMMAND...    makes one, mounts it, runs the command with {} in its\n"
		"                             words, and EMDB_SNAPSHOT_PATH, being the path; then\n"
		"                             removes it and exits as the command did\n"
		"  rollback STORE NAME        takes the store, not in use, back to a snapshot\n"
		"\n"
		"A snapshot is in STORE/snapshots/NAME and opens like a store, read-only.\n"
		"\"latest\" names the newest one where one is read.\n",
	.opts = snapshot_opts,
	.args_min = 2,
	.args_max = INT_MAX,
	.run = run_snapshot,
};
