/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that look after a store: flush, checkpoint, compact, backup, restore. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/text.h"

/* ---- flush, checkpoint ---- */

static int run_simple(struct cli *cli, const struct cli_args *args,
		      emdb_err (*action)(struct store *store))
{
	const char *const path = args->argv[0];
	struct store *store = NULL;
	emdb_err err;
	int code;

	code = cli_open(cli, path, 0, &store);
	if (code)
		return code;
	err = action(store);
	if (err)
		code = cli_fail_err(cli, err, path);
	return cli_close(cli, path, store, code);
}

static int run_flush(struct cli *cli, const struct cli_args *args)
{
	return run_simple(cli, args, store_flush);
}

static int run_checkpoint(struct cli *cli, const struct cli_args *args)
{
	return run_simple(cli, args, store_checkpoint);
}

static const struct cli_opt no_opts[] = {
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_flush = {
	.name = "flush",
	.synopsis = "STORE",
	.summary = "bring everything written so far to stable storage",
	.details =
		"Commands that change something do so by themselves, and so does closing a store;\n"
		"this is for what was written through a mount.\n",
	.opts = no_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_flush,
};

const struct cli_command cmd_checkpoint = {
	.name = "checkpoint",
	.synopsis = "STORE",
	.summary = "save the index, so that the next start is quick",
	.opts = no_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_checkpoint,
};

/* ---- compact ---- */

#define OPT_RATE OPT_LONG_ONLY
#define OPT_DEAD (OPT_LONG_ONLY + 1)

static int compact_open(const struct cli *cli, struct store *store, const char *path,
			const struct emdb_compact_options *opts)
{
	struct emdb_compact_progress done = { .segments = 0 };
	char copied[TEXT_SIZE_SIZE], freed[TEXT_SIZE_SIZE];
	const emdb_err err = store_compact(store, opts, &done);
	bool first = true;

	if (err)
		return cli_fail_err(cli, err, path);
	if (!cli->json) {
		out_printf(cli->out,
			   "%" PRIu64 " of %" PRIu64 " segments, %s copied, %s given back\n",
			   done.segments_done, done.segments, text_size(done.copied_bytes, copied),
			   text_size(done.freed_bytes, freed));
		return CLI_OK;
	}
	out_str(cli->out, "{");
	out_json_str(cli->out, &first, "message_type", "summary");
	out_json_u64(cli->out, &first, "segments", done.segments);
	out_json_u64(cli->out, &first, "segments_done", done.segments_done);
	out_json_u64(cli->out, &first, "copied_bytes", done.copied_bytes);
	out_json_u64(cli->out, &first, "freed_bytes", done.freed_bytes);
	out_str(cli->out, "}\n");
	return CLI_OK;
}

static int run_compact(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0];
	const char *const rate = args_value(args, OPT_RATE);
	const char *const dead = args_value(args, OPT_DEAD);
	struct emdb_compact_options opts = { .size = sizeof(opts) };
	struct store *store = NULL;
	uint64_t percent = 0;
	int code;

	cli->json = args_has(args, 'j');
	if (rate && !text_parse_size(rate, &opts.bytes_per_second))
		return cli_fail(cli, CLI_USAGE, "rate %s: not a number of bytes", rate);
	if (dead && (!text_parse_size(dead, &percent) || percent < 1 || percent > 100))
		return cli_fail(cli, CLI_USAGE, "%s: not a percentage from 1 to 100", dead);
	opts.min_dead_percent = (uint32_t)percent;
	code = cli_open(cli, path, 0, &store);
	if (code)
		return code;
	return cli_close(cli, path, store, compact_open(cli, store, path, &opts));
}

static const struct cli_opt compact_opts[] = {
	{ OPT_RATE, "rate", "N", "copy at most that many bytes a second: 1M, 50M" },
	{ OPT_DEAD, "min-dead", "PERCENT", "leave segments of which less is dead" },
	{ 'j', "json", NULL, "one JSON object" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_compact = {
	.name = "compact",
	.synopsis = "[OPTIONS] STORE",
	.summary = "give the room of deleted and overwritten values back now",
	.details = "This also happens by itself.  On a mounted store others go on working, and\n"
		   "interrupting the command ends it early; what was done stays done.\n",
	.opts = compact_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_compact,
};

/* ---- backup, restore ---- */

static char *absolute(const char *path)
{
	char *const here = path[0] == '/' ? NULL : getcwd(NULL, 0);
	char *full = NULL;

	if (path[0] == '/')
		return strdup(path);
	if (!here || asprintf(&full, "%s/%s", here, path) < 0)
		full = NULL;
	free(here);
	return full;
}

static int print_backup(const struct cli *cli, const struct emdb_backup_report *r)
{
	char size[TEXT_SIZE_SIZE], when[TEXT_TIME_SIZE], copied[TEXT_SIZE_SIZE];
	bool first = true;

	(void)text_time(r->created_ns / 1000000, when);
	if (!cli->json) {
		out_printf(cli->out,
			   "%s%s, %" PRIu64 " segments, %s; copied %" PRIu64
			   " (%s), shared %" PRIu64 "\n",
			   r->incremental ? "incremental, " : "", when, r->segments,
			   text_size(r->bytes, size), r->copied, text_size(r->copied_bytes, copied),
			   r->shared);
		return CLI_OK;
	}
	out_str(cli->out, "{");
	out_json_str(cli->out, &first, "message_type", "summary");
	out_json_bool(cli->out, &first, "incremental", r->incremental);
	out_json_str(cli->out, &first, "created", when);
	out_json_u64(cli->out, &first, "lsn", r->lsn);
	out_json_u64(cli->out, &first, "segments", r->segments);
	out_json_u64(cli->out, &first, "total_bytes", r->bytes);
	out_json_u64(cli->out, &first, "segments_copied", r->copied);
	out_json_u64(cli->out, &first, "segments_shared", r->shared);
	out_json_u64(cli->out, &first, "copied_bytes", r->copied_bytes);
	out_str(cli->out, "}\n");
	return CLI_OK;
}

static int fail_backup(const struct cli *cli, emdb_err err, int code, const char *what,
		       const char *detail)
{
	if (!*detail)
		return cli_fail(cli, code, "%s: %s", what, emdb_strerror(err));
	return cli_fail(cli, code, "%s: %s: %s", what, emdb_strerror(err), detail);
}

static bool is_no_store(emdb_err err)
{
	return err == EMDB_ERR_NO_STORE || err == EMDB_ERR_NOT_STORE;
}

static int backup_open(const struct cli *cli, const struct cli_args *args, struct store *store)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_backup_options opts = {
		.size = sizeof(opts),
		.flags = args_has(args, 'c') ? EMDB_BACKUP_COPY : 0,
		.detail = &detail,
	};
	char *const target = absolute(args->argv[1]);
	struct emdb_backup_report report = { .lsn = 0 };
	emdb_err err = EMDB_ERR_NOMEM;

	if (target)
		err = store_backup(store, target, &opts, &report);
	free(target);
	/* The store is there: it is the target that is something else. */
	if (err)
		return fail_backup(cli, err, is_no_store(err) ? CLI_FAILED : cli_exit_code(err),
				   args->argv[1], detail.text);
	return print_backup(cli, &report);
}

static int run_backup(struct cli *cli, const struct cli_args *args)
{
	struct store *store = NULL;
	int code;

	cli->json = args_has(args, 'j');
	code = cli_open(cli, args->argv[0], 0, &store);
	if (code)
		return code;
	return cli_close(cli, args->argv[0], store, backup_open(cli, args, store));
}

static const struct cli_opt backup_opts[] = {
	{ 'c', "copy", NULL, "share no bytes with the source, though both are on one file system" },
	{ 'j', "json", NULL, "one JSON object" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_backup = {
	.name = "backup",
	.synopsis = "[OPTIONS] STORE TARGET",
	.summary = "write the store as it is now to another directory",
	.details =
		"TARGET is absent, empty, or an earlier backup of the same store, to which only\n"
		"what it does not have is brought; it is complete or as it was before, at any\n"
		"moment.  It is a store that opens read-only.  For a mounted store the daemon\n"
		"writes it, with its own rights.\n",
	.opts = backup_opts,
	.args_min = 2,
	.args_max = 2,
	.run = run_backup,
};

static int run_restore(struct cli *cli, const struct cli_args *args)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_backup_options opts = {
		.size = sizeof(opts),
		.flags = args_has(args, 'c') ? EMDB_BACKUP_COPY : 0,
		.detail = &detail,
	};
	struct emdb_backup_report report = { .lsn = 0 };
	emdb_err err;

	cli->json = args_has(args, 'j');
	err = emdb_restore(args->argv[0], args->argv[1], &opts, &report);
	if (err)
		return fail_backup(cli, err, cli_exit_code(err),
				   args->argv[is_no_store(err) ? 0 : 1], detail.text);
	return print_backup(cli, &report);
}

const struct cli_command cmd_restore = {
	.name = "restore",
	.synopsis = "[OPTIONS] BACKUP TARGET",
	.summary = "make a store out of a backup or a snapshot",
	.details =
		"TARGET is absent or empty.  The new store is there at once and whole, or not.\n",
	.opts = backup_opts,
	.args_min = 2,
	.args_max = 2,
	.run = run_restore,
};
