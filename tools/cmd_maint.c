/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that look after a store: flush, checkpoint, compact. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/progress.h"
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

static bool compact_step(void *ctx, const struct emdb_compact_progress *p)
{
	return progress_step(ctx, p->done_bytes, p->total_bytes);
}

static int compact_open(const struct cli *cli, struct store *store, const char *path,
			struct emdb_compact_options *opts)
{
	struct emdb_compact_progress done = { .segments = 0 };
	char copied[TEXT_SIZE_SIZE], freed[TEXT_SIZE_SIZE];
	struct progress p;
	bool first;
	emdb_err err;

	progress_begin(&p, cli, false);
	opts->progress = compact_step;
	opts->ctx = &p;
	err = store_compact(store, opts, &done);
	progress_end(&p);
	if (err)
		return cli_fail_err(cli, err, path);
	if (!cli->json) {
		out_printf(cli->out,
			   "%" PRIu64 " of %" PRIu64 " segments, %s copied, %s given back\n",
			   done.segments_done, done.segments, text_size(done.copied_bytes, copied),
			   text_size(done.freed_bytes, freed));
		return CLI_OK;
	}
	out_json_begin(cli->out, &first, "summary");
	out_json_u64(cli->out, &first, "segments", done.segments);
	out_json_u64(cli->out, &first, "segments_done", done.segments_done);
	out_json_u64(cli->out, &first, "copied_bytes", done.copied_bytes);
	out_json_u64(cli->out, &first, "freed_bytes", done.freed_bytes);
	out_json_end(cli->out);
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
	{ 'j', "json", NULL, "progress and summary as JSON lines" },
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
