/* SPDX-License-Identifier: Apache-2.0 */
/* Command scrub. */
#include <inttypes.h>
#include <stdio.h>

#include "tools/cli.h"
#include "tools/faults.h"
#include "tools/progress.h"
#include "tools/text.h"

#define OPT_RATE OPT_LONG_ONLY

static void summary_json(struct out *out, const struct emdb_scrub_report *r, int64_t ms)
{
	bool first;

	out_json_begin(out, &first, "summary");
	out_json_u64(out, &first, "bytes", r->bytes);
	out_json_u64(out, &first, "cached_bytes", r->cached_bytes);
	out_json_u64(out, &first, "skipped_bytes", r->skipped_bytes);
	out_json_u64(out, &first, "frames", r->frames);
	out_json_u64(out, &first, "damaged", r->damaged);
	out_json_u64(out, &first, "damaged_bytes", r->damaged_bytes);
	out_json_u64(out, &first, "lost_entries", r->lost_entries);
	out_json_i64(out, &first, "elapsed_ms", ms);
	out_json_end(out);
}

static void summary_text(struct out *out, const struct emdb_scrub_report *r, int64_t ms)
{
	char size[TEXT_SIZE_SIZE], took[TEXT_SPAN_SIZE];

	out_printf(out, "good: %" PRIu64 " frames; %s read in %s\n", r->frames,
		   text_size(r->bytes, size), text_span(ms, took));
	if (r->cached_bytes)
		out_printf(out, "through the cache, as the file system has no other way: %s\n",
			   text_size(r->cached_bytes, size));
	if (r->skipped_bytes)
		out_printf(out, "compacted or removed meanwhile: %s\n",
			   text_size(r->skipped_bytes, size));
	if (r->damaged)
		out_printf(out,
			   "bad: %" PRIu64 " places, %" PRIu64 " bytes; entries damaged: %" PRIu64
			   "\n",
			   r->damaged, r->damaged_bytes, r->lost_entries);
}

static int fail_scrub(const struct cli *cli, const char *path, struct store *store, emdb_err err)
{
	if (err == EMDB_ERR_BUSY)
		return cli_fail(cli, CLI_FAILED, "%s: a scrub of it runs already", path);
	if (err == EMDB_ERR_CANCELLED)
		return cli_fail(cli, CLI_CANCELLED, "%s: the mount ends, and so does the scrub",
				path);
	if (store && *store_remark(store))
		return cli_fail(cli, CLI_FAILED, "%s: %s", path, store_remark(store));
	return cli_fail_err(cli, err, path);
}

/* The store, or what is frozen. */
static int scrub_open(struct cli *cli, const struct cli_args *args, struct store *store,
		      emdb_db *frozen, uint64_t rate)
{
	struct faults faults = { .cli = cli, .quiet = args_has(args, 'q') };
	struct emdb_scrub_report report = { .frames = 0 };
	struct progress p;
	const struct emdb_scrub_options o = {
		.size = sizeof(o),
		.bytes_per_second = rate,
		.progress = progress_step,
		.progress_ctx = &p,
		.found = faults_tell,
		.found_ctx = &faults,
	};
	emdb_err err;

	progress_begin(&p, cli, faults.quiet);
	if (args_has(args, 'p'))
		progress_lines(&p);
	err = frozen ? emdb_scrub(frozen, &o, &report) : store_scrub(store, &o, &report);
	progress_end(&p);
	if (err && err != EMDB_ERR_CORRUPT)
		return fail_scrub(cli, args->argv[0], store, err);
	if (!faults.quiet)
		(cli->json ? summary_json : summary_text)(cli->out, &report,
							  progress_elapsed_ms(&p));
	return err ? CLI_CHECK : CLI_OK;
}

static int run_scrub(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0], *const text = args_value(args, OPT_RATE);
	uint64_t rate = EMDB_SCRUB_RATE;
	struct store *store = NULL;
	emdb_db *frozen = NULL;
	int code;

	cli->json = args_has(args, 'j');
	if (text && !text_parse_size(text, &rate))
		return cli_fail(cli, CLI_USAGE, "rate %s: not a number of bytes", text);
	code = cli_open_source(cli, path, &store, &frozen);
	if (code)
		return code;
	code = scrub_open(cli, args, store, frozen, rate);
	if (frozen)
		(void)emdb_close(frozen);
	return store ? cli_close(cli, path, store, code) : code;
}

static const struct cli_opt scrub_opts[] = {
	{ OPT_RATE, "rate", "N",
	  "read at most that many bytes a second (default 50M; 0: no limit)" },
	{ 'p', "progress", NULL, "say how far it is also where that is no terminal" },
	{ 'j', "json", NULL, "JSON lines: progress, one per fault, then a summary" },
	{ 'q', "quiet", NULL, "print nothing, only exit with 0 or 26" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_scrub = {
	.name = "scrub",
	.synopsis = "[OPTIONS] STORE",
	.summary = "verify a store in use, as its disk has it",
	.details =
		"Reads every file of the store and its snapshots past the kernel's cache and verifies\n"
		"it.  A mounted store goes on working meanwhile; interrupting the command ends it.\n"
		"Prints each damaged place, then each entry that suffers from it.  Exits with 26 when\n"
		"something does not check out.  emdb stat shows when it was done last.\n",
	.opts = scrub_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_scrub,
};
