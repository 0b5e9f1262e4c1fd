/* SPDX-License-Identifier: Apache-2.0 */
/* Commands backup and restore. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/progress.h"
#include "tools/unlock.h"
#include "tools/text.h"

static void summary(const struct cli *cli, const struct progress *p,
		    const struct emdb_backup_report *r)
{
	struct out *const out = cli->out;
	const int64_t ms = progress_elapsed_ms(p);
	char all[TEXT_SIZE_SIZE], copied[TEXT_SIZE_SIZE], when[TEXT_TIME_SIZE],
		took[TEXT_SPAN_SIZE];
	bool first;

	(void)text_time(r->created_ns / 1000000, when);
	if (cli->json) {
		out_json_begin(out, &first, "summary");
		out_json_bool(out, &first, "incremental", r->incremental);
		out_json_str(out, &first, "created", when);
		out_json_u64(out, &first, "lsn", r->lsn);
		out_json_u64(out, &first, "segments", r->segments);
		out_json_u64(out, &first, "total_bytes", r->bytes);
		out_json_u64(out, &first, "segments_copied", r->copied);
		out_json_u64(out, &first, "copied_bytes", r->copied_bytes);
		out_json_u64(out, &first, "segments_shared", r->shared);
		out_json_i64(out, &first, "elapsed_ms", ms);
		out_json_end(out);
		return;
	}
	if (p->quiet || !p->tty)
		return;
	(void)fprintf(stderr,
		      "%s: %" PRIu64 " segments, %s; copied %" PRIu64 ", %s; shared %" PRIu64
		      "; %s\n",
		      when, r->segments, text_size(r->bytes, all), r->copied,
		      text_size(r->copied_bytes, copied), r->shared, text_span(ms, took));
}

static int fail_backup(const struct cli *cli, emdb_err err, const char *target, const char *detail)
{
	if (err == EMDB_ERR_LOCKED)
		return cli_fail(cli, CLI_LOCKED, "%s: it is in use", target);
	if (err == EMDB_ERR_NO_STORE || err == EMDB_ERR_NOT_STORE)
		return cli_fail(cli, err == EMDB_ERR_NO_STORE ? CLI_NO_STORE : CLI_FAILED, "%s",
				*detail ? detail : emdb_strerror(err));
	/* These are wholly said by the detail. */
	if (*detail &&
	    (err == EMDB_ERR_INVAL || err == EMDB_ERR_EXISTS || err == EMDB_ERR_CONFLICT))
		return cli_fail(cli, CLI_FAILED, "%s", detail);
	if (*detail)
		return cli_fail(cli, CLI_FAILED, "%s: %s", emdb_strerror(err), detail);
	return cli_fail_err(cli, err, target);
}

/* The path from the root on, for a daemon with another working directory; free with free(). */
static char *absolute(const char *path)
{
	char *cwd, *text = NULL;

	if (*path == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (cwd && asprintf(&text, "%s/%s", cwd, path) < 0)
		text = NULL;
	free(cwd);
	return text;
}

static int run_backup(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0], *const target = args->argv[1];
	struct emdb_detail detail = { .text = "" };
	struct emdb_backup_report report = { .lsn = 0 };
	struct emdb_backup_options o = { .size = sizeof(o),
					 .flags = args_has(args, 'c') ? EMDB_BACKUP_COPY : 0,
					 .progress = progress_step,
					 .detail = &detail };
	struct store *store = NULL;
	emdb_db *frozen = NULL;
	struct progress p;
	char *where;
	emdb_err err;
	int code;

	cli->json = args_has(args, 'j');
	where = absolute(target);
	if (!where)
		return cli_fail_err(cli, EMDB_ERR_NOMEM, target);
	code = cli_open_source(cli, path, &store, &frozen);
	progress_begin(&p, cli, args_has(args, 'q'));
	o.progress_ctx = &p;
	if (!code) {
		err = frozen ? emdb_backup(frozen, where, &o, &report)
			     : store_backup(store, where, &o, &report);
		progress_end(&p);
		if (err)
			code = fail_backup(cli, err, target,
					   store && *store_remark(store) ? store_remark(store)
									 : detail.text);
		else if (report.lsn)
			summary(cli, &p, &report);
	}
	free(where);
	if (frozen)
		(void)emdb_close(frozen);
	return store ? cli_close(cli, path, store, code) : code;
}

static const struct cli_opt backup_opts[] = {
	{ 'c', "copy", NULL, "share no bytes with the store on one file system" },
	{ 'j', "json", NULL, "progress and summary as JSON lines" },
	{ 'q', "quiet", NULL, "no progress, no summary" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_backup = {
	.name = "backup",
	.synopsis = "[OPTIONS] STORE TARGET",
	.summary = "write a store, in use or not, to another directory",
	.details =
		"TARGET is absent or empty, or an earlier backup of the same store, to which then\n"
		"only what is new is brought.  It is complete or as it was, whatever happens, and\n"
		"opens like a store, read-only, with the time standing still.\n",
	.opts = backup_opts,
	.args_min = 2,
	.args_max = 2,
	.run = run_backup,
};

static int run_restore(struct cli *cli, const struct cli_args *args)
{
	const char *const source = args->argv[0], *const target = args->argv[1];
	struct emdb_detail detail = { .text = "" };
	struct emdb_backup_report report = { .lsn = 0 };
	struct emdb_backup_options o = { .size = sizeof(o),
					 .flags = args_has(args, 'c') ? EMDB_BACKUP_COPY : 0,
					 .progress = progress_step,
					 .detail = &detail };
	struct progress p;
	emdb_err err;

	cli->json = args_has(args, 'j');
	progress_begin(&p, cli, args_has(args, 'q'));
	o.progress_ctx = &p;
	err = emdb_restore(source, target, &o, &report);
	progress_end(&p);
	if (err)
		return fail_backup(cli, err, target, detail.text);
	summary(cli, &p, &report);
	return CLI_OK;
}

const struct cli_command cmd_restore = {
	.name = "restore",
	.synopsis = "[OPTIONS] BACKUP STORE",
	.summary = "make a store out of a backup or a snapshot",
	.details = "STORE is absent or empty; it is complete or as it was, whatever happens.\n",
	.opts = backup_opts,
	.args_min = 2,
	.args_max = 2,
	.run = run_restore,
};
