/* SPDX-License-Identifier: Apache-2.0 */
/* Command snapshot: the store as it was. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/text.h"

#define OPT_PAST_NEWER OPT_LONG_ONLY

struct action {
	const char *name;
	int argc; /* with the action and the store */
	int (*run)(struct cli *cli, const struct cli_args *args);
};

/* ---- list ---- */

static void print_json(struct out *out, const struct emdb_snapshot *s)
{
	char when[TEXT_TIME_SIZE];
	bool first = true;

	out_str(out, "{");
	out_json_str(out, &first, "name", s->name);
	if (s->err) {
		out_json_str(out, &first, "error", emdb_strerror(s->err));
	} else {
		out_json_u64(out, &first, "number", s->number);
		out_json_str(out, &first, "created", text_time(s->created_ns / 1000000, when));
		out_json_i64(out, &first, "created_ns", s->created_ns);
		out_json_u64(out, &first, "lsn", s->lsn);
		out_json_u64(out, &first, "bytes", s->bytes);
	}
	out_str(out, "}\n");
}

static bool print_snapshot(void *ctx, const struct emdb_snapshot *s)
{
	const struct cli *const cli = ctx;
	struct out *const out = cli->out;
	char when[TEXT_TIME_SIZE], size[TEXT_SIZE_SIZE];

	if (cli->json) {
		print_json(out, s);
		return !out->err;
	}
	if (s->err)
		out_printf(out, "%-24s  %8s  ", "damaged", "-");
	else
		out_printf(out, "%24s  %8s  ", text_time(s->created_ns / 1000000, when),
			   text_size(s->bytes, size));
	out_name(out, s->name, strlen(s->name));
	out_str(out, "\n");
	return !out->err;
}

/* The store may be in use: what is there is read from its directory. */
static int run_list(struct cli *cli, const struct cli_args *args)
{
	char *const dir = store_directory(args->argv[1]);
	emdb_err err = EMDB_ERR_NOMEM;

	if (dir)
		err = emdb_snapshot_list_at(dir, print_snapshot, cli);
	free(dir);
	return err ? cli_fail_err(cli, err, args->argv[1]) : CLI_OK;
}

/* ---- create, delete, rename ---- */

static int change_open(struct cli *cli, const struct cli_args *args, struct store *store)
{
	const char *const action = args->argv[0];
	struct emdb_snapshot made = { .number = 0 };
	emdb_err err;

	if (strcmp(action, "create") == 0)
		err = store_snapshot_create(store, args->argv[2], &made);
	else if (strcmp(action, "delete") == 0)
		err = store_snapshot_delete(store, args->argv[2]);
	else
		err = store_snapshot_rename(store, args->argv[2], args->argv[3]);
	if (err)
		return cli_fail_err(cli, err,
				    err == EMDB_ERR_EXISTS ? args->argv[args->argc - 1]
							   : args->argv[2]);
	if (made.number && cli->json)
		print_json(cli->out, &made);
	return CLI_OK;
}

static int run_change(struct cli *cli, const struct cli_args *args)
{
	struct store *store = NULL;
	const int code = cli_open(cli, args->argv[1], 0, &store);

	if (code)
		return code;
	return cli_close(cli, args->argv[1], store, change_open(cli, args, store));
}

/* ---- rollback ---- */

static int run_rollback(struct cli *cli, const struct cli_args *args)
{
	const unsigned int flags = args_has(args, OPT_PAST_NEWER) ? EMDB_ROLLBACK_PAST_NEWER : 0;
	struct emdb_detail detail = { .text = "" };
	char *const dir = store_directory(args->argv[1]);
	emdb_err err = EMDB_ERR_NOMEM;

	if (dir)
		err = emdb_rollback(dir, args->argv[2], flags, &detail);
	free(dir);
	if (err == EMDB_ERR_LOCKED)
		return cli_fail(cli, CLI_LOCKED, "%s: the store is in use: unmount it first",
				args->argv[1]);
	if (err && detail.text[0])
		return cli_fail(cli, CLI_FAILED, "%s: %s: %s", args->argv[2], emdb_strerror(err),
				detail.text);
	return err ? cli_fail_err(cli, err, args->argv[2]) : CLI_OK;
}

/* ---- The command ---- */

static const struct action actions[] = {
	{ "create", 3, run_change }, { "delete", 3, run_change },     { "rename", 4, run_change },
	{ "list", 2, run_list },     { "rollback", 3, run_rollback },
};

static int run_snapshot(struct cli *cli, const struct cli_args *args)
{
	const char *const name = args->argv[0];
	size_t i;

	cli->json = args_has(args, 'j');
	for (i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (strcmp(actions[i].name, name) != 0)
			continue;
		if (args->argc != actions[i].argc)
			return cli_fail(
				cli, CLI_USAGE, "%s arguments for %s (see: emdb snapshot --help)",
				args->argc < actions[i].argc ? "missing" : "too many", name);
		return actions[i].run(cli, args);
	}
	return cli_fail(cli, CLI_USAGE,
			"unknown action %s: create, list, delete, rename or rollback", name);
}

static const struct cli_opt snapshot_opts[] = {
	{ 'j', "json", NULL, "list, create: JSON lines" },
	{ OPT_PAST_NEWER, "past-newer", NULL, "rollback: also to one that is not the newest" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_snapshot = {
	.name = "snapshot",
	.synopsis = "ACTION [OPTIONS] STORE [NAME [NEW-NAME]]",
	.summary = "make, list, remove and rename snapshots of a store",
	.details =
		"create STORE NAME, delete STORE NAME, rename STORE NAME NEW-NAME, list STORE,\n"
		"rollback STORE NAME.  A snapshot is the whole store at one moment; it takes no\n"
		"room but what changes later, and lies in STORE/snapshots/NAME, a store that opens\n"
		"read-only.  rollback makes the store what it was then; it must not be mounted.\n",
	.opts = snapshot_opts,
	.args_min = 2,
	.args_max = 4,
	.run = run_snapshot,
};
