/* SPDX-License-Identifier: Apache-2.0 */
/* Commands check and repair, and fsck.emdbfs, which is both under the name and with the status of fsck(8). */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/faults.h"
#include "tools/unlock.h"

/* ---- check ---- */

static void check_summary(const struct faults *f, const struct emdb_check_report *r)
{
	struct out *const out = f->cli->out;
	bool first;

	if (f->quiet)
		return;
	if (!f->cli->json) {
		out_printf(out,
			   "good: %" PRIu64 " frames, %" PRIu64 " records, %" PRIu64 " bytes\n",
			   r->frames, r->records, r->bytes);
		if (r->bad_frames || r->lost_bytes || r->lost_entries || r->doubtful_entries)
			out_printf(out,
				   "bad: %" PRIu64 " places, %" PRIu64
				   " bytes; entries damaged: %" PRIu64
				   ", older than they should be: %" PRIu64 "\n",
				   r->bad_frames, r->lost_bytes, r->lost_entries,
				   r->doubtful_entries);
		return;
	}
	out_json_begin(out, &first, "summary");
	out_json_u64(out, &first, "frames", r->frames);
	out_json_u64(out, &first, "records", r->records);
	out_json_u64(out, &first, "bytes", r->bytes);
	out_json_u64(out, &first, "bad_frames", r->bad_frames);
	out_json_u64(out, &first, "lost_bytes", r->lost_bytes);
	out_json_u64(out, &first, "lost_entries", r->lost_entries);
	out_json_u64(out, &first, "doubtful_entries", r->doubtful_entries);
	out_json_u64(out, &first, "unknown_bytes", r->unknown_bytes);
	out_json_end(out);
}

static int check_store(struct cli *cli, const struct cli_args *args, const char *path)
{
	struct faults faults = { .cli = cli, .quiet = args_has(args, 'q') };
	struct emdb_check_report report = { .frames = 0 };
	const struct emdb_secret *secret;
	emdb_err err;

	cli->json = args_has(args, 'j');
	err = cli_secret_given(cli) ? EMDB_ERR_KEY_REQUIRED
				    : emdb_check(path, faults_tell, &faults, &report);
	if (err == EMDB_ERR_KEY_REQUIRED) {
		const int code = cli_secret(cli, path, &secret);

		if (code)
			return code;
		err = emdb_check_secret(path, secret, faults_tell, &faults, &report);
	}
	if (err == EMDB_ERR_LOCKED)
		return cli_fail_open(cli, path, EMDB_ERR_LOCKED, "");
	if (err && err != EMDB_ERR_CORRUPT && err != EMDB_ERR_DAMAGED)
		return cli_fail_err(cli, err, path);
	check_summary(&faults, &report);
	return err ? CLI_CHECK : CLI_OK;
}

static int run_check(struct cli *cli, const struct cli_args *args)
{
	char *const dir = store_at_rest(args->argv[0]);
	int code;

	if (!dir)
		return cli_fail_err(cli, EMDB_ERR_NOMEM, args->argv[0]);
	code = check_store(cli, args, dir);
	free(dir);
	return code;
}

static const struct cli_opt check_opts[] = {
	{ 'j', "json", NULL, "JSON lines: one per fault, then a summary" },
	{ 'q', "quiet", NULL, "print nothing, only exit with 0 or 26" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_check = {
	.name = "check",
	.synopsis = "[OPTIONS] STORE",
	.summary = "read and verify every frame of a store",
	.details = "Prints each damaged place, then each entry that suffers from it.  Changes\n"
		   "nothing.  Exits with 26 when something does not check out.\n",
	.opts = check_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_check,
};

/* ---- repair ---- */

#define OPT_TO   (OPT_LONG_ONLY + 1)
#define OPT_FROM (OPT_LONG_ONLY + 2)

static void repair_json(struct out *out, const struct emdb_repair_report *r)
{
	bool first;

	out_json_begin(out, &first, "summary");
	out_json_bool(out, &first, "intact", r->intact);
	out_json_bool(out, &first, "super_rebuilt", r->super_rebuilt);
	out_json_bool(out, &first, "manifest_rebuilt", r->manifest_rebuilt);
	out_json_u64(out, &first, "places", r->places);
	out_json_u64(out, &first, "damaged_bytes", r->damaged_bytes);
	out_json_u64(out, &first, "unknown_bytes", r->unknown_bytes);
	out_json_u64(out, &first, "restored_segments", r->restored_segments);
	out_json_u64(out, &first, "lost_entries", r->lost_entries);
	out_json_u64(out, &first, "lost_ranges", r->lost_ranges);
	out_json_u64(out, &first, "lost_meta", r->lost_meta);
	out_json_u64(out, &first, "older", r->older);
	out_json_u64(out, &first, "adrift", r->adrift);
	out_json_u64(out, &first, "renamed", r->renamed);
	if (r->kept[0])
		out_json_str(out, &first, "kept", r->kept);
	out_json_end(out);
}

static void repair_text(struct out *out, const struct emdb_repair_report *r, bool dry)
{
	if (r->intact) {
		out_str(out, "nothing to repair\n");
		return;
	}
	out_printf(out, "damaged: %" PRIu64 " places, %" PRIu64 " bytes\n", r->places,
		   r->damaged_bytes);
	if (r->restored_segments)
		out_printf(out, "from the backup: %" PRIu64 " segments\n", r->restored_segments);
	if (dry)
		return;
	out_printf(out,
		   "lost: %" PRIu64 " entries, %" PRIu64 " pieces of values, metadata of %" PRIu64
		   "\n",
		   r->lost_entries, r->lost_ranges, r->lost_meta);
	if (r->older || r->adrift)
		out_printf(out,
			   "in lost+found: %" PRIu64 " older versions, %" PRIu64
			   " without a name\n",
			   r->older, r->adrift);
	if (r->kept[0])
		out_printf(out, "the files as they were: %s\n", r->kept);
}

static emdb_err repair_store(struct cli *cli, const char *path, struct emdb_repair_options *o,
			     bool quiet, struct emdb_repair_report *report, int *ret_code)
{
	struct faults faults = { .cli = cli, .quiet = quiet };
	struct emdb_detail detail = { .text = "" };
	const bool dry = o->flags & EMDB_REPAIR_DRY_RUN;
	emdb_err err;

	o->found = faults_tell;
	o->ctx = &faults;
	o->detail = &detail;
	*ret_code = CLI_OK;
	err = cli_secret_given(cli) ? EMDB_ERR_KEY_REQUIRED : emdb_repair(path, o, report);
	if (err == EMDB_ERR_KEY_REQUIRED) {
		*ret_code = cli_secret(cli, path, &o->secret);
		if (*ret_code)
			return err;
		err = emdb_repair(path, o, report);
	}
	if (err == EMDB_ERR_LOCKED)
		*ret_code = cli_fail_open(cli, path, EMDB_ERR_LOCKED, "");
	else if (err && detail.text[0])
		*ret_code = cli_fail(cli, cli_exit_code(err), "%s: %s", emdb_strerror(err),
				     detail.text);
	else if (err)
		*ret_code = cli_fail_err(cli, err, path);
	if (err || quiet)
		return err;
	if (cli->json)
		repair_json(cli->out, report);
	else
		repair_text(cli->out, report, dry);
	return err;
}

static int run_repair(struct cli *cli, const struct cli_args *args)
{
	struct emdb_repair_options o = { .size = sizeof(o),
					 .flags = args_has(args, 'n') ? EMDB_REPAIR_DRY_RUN : 0,
					 .target = args_value(args, OPT_TO),
					 .backup = args_value(args, OPT_FROM) };
	struct emdb_repair_report report = { .intact = false };
	char *dir;
	int code;

	cli->json = args_has(args, 'j');
	if (o.target && o.flags)
		return cli_fail(cli, CLI_USAGE, "--dry-run and --to exclude each other");
	dir = store_at_rest(args->argv[0]);
	if (!dir)
		return cli_fail_err(cli, EMDB_ERR_NOMEM, args->argv[0]);
	if (!repair_store(cli, dir, &o, args_has(args, 'q'), &report, &code) && o.flags &&
	    !report.intact)
		code = CLI_CHECK;
	free(dir);
	return code;
}

static const struct cli_opt repair_opts[] = {
	{ 'n', "dry-run", NULL, "change nothing; exit with 26 when there is something to repair" },
	{ OPT_TO, "to", "TARGET", "leave STORE as it is and repair a copy at TARGET" },
	{ OPT_FROM, "from", "BACKUP", "take segments that BACKUP has intact from there" },
	{ 'j', "json", NULL, "JSON lines: one per fault, then a summary" },
	{ 'q', "quiet", NULL, "print nothing" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_repair = {
	.name = "repair",
	.synopsis = "[OPTIONS] STORE",
	.summary = "make a damaged store usable, and say what is lost",
	.details =
		"Everything readable is there afterwards.  What lost its name, and what shows an\n"
		"older state because a later change is lost, is in the namespace lost+found.  Files\n"
		"that are replaced or given up are kept in STORE/lost/.  A store that is good is left\n"
		"alone.\n",
	.opts = repair_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_repair,
};

/* ---- fsck.emdbfs ---- */

/* Bits of the exit status, as fsck(8) has them. */
enum { FSCK_CORRECTED = 1, FSCK_UNCORRECTED = 4, FSCK_ERROR = 8, FSCK_USAGE = 16 };

static const char fsck_usage[] =
	"Usage: fsck.emdbfs [-anpyfvV] STORE\n\n"
	"  -a, -p, -y  repair what is damaged (emdb repair)\n"
	"  -n          only check (the default)\n"
	"  -f          accepted: every frame is always checked\n"
	"  -v          also say what is good\n"
	"  -V          print the version\n\n"
	"Exit status: 0 good, 1 repaired, 4 damaged, 8 failed, 16 usage; see fsck(8).\n";

static int fsck_check(struct cli *cli, const char *path, bool verbose, emdb_err *ret_err)
{
	static const emdb_err no_damage[] = { EMDB_ERR_NO_STORE,       EMDB_ERR_LOCKED,
					      EMDB_ERR_PERM,           EMDB_ERR_NOMEM,
					      EMDB_ERR_VERSION,        EMDB_ERR_KEY_REQUIRED,
					      EMDB_ERR_TOO_MANY_FILES, EMDB_ERR_WRONG_KEY };
	struct faults faults = { .cli = cli };
	struct emdb_check_report report = { .frames = 0 };

	*ret_err = emdb_check(path, faults_tell, &faults, &report);
	if (!*ret_err && verbose)
		check_summary(&faults, &report);
	if (*ret_err == EMDB_OK)
		return 0;
	for (size_t i = 0; i < sizeof(no_damage) / sizeof(*no_damage); i++)
		if (*ret_err == no_damage[i]) {
			(void)cli_fail_err(cli, *ret_err, path);
			return FSCK_ERROR;
		}
	return FSCK_UNCORRECTED;
}

static int fsck_repair(struct cli *cli, const char *path)
{
	struct emdb_repair_options o = { .size = sizeof(o) };
	struct emdb_repair_report report = { .intact = false };
	int code;

	if (repair_store(cli, path, &o, false, &report, &code))
		return FSCK_UNCORRECTED | FSCK_ERROR;
	/* Values with pieces that are gone stay so. */
	return report.intact ? FSCK_UNCORRECTED : FSCK_CORRECTED;
}

int cmd_fsck(struct cli *cli, int argc, char **argv)
{
	bool repair = false, verbose = false;
	emdb_err err;
	int c, code;

	cli->command = "fsck";
	opterr = 0;
	while ((c = getopt(argc, argv, "anpyfvVh")) != -1) {
		switch (c) {
		case 'a':
		case 'p':
		case 'y':
			repair = true;
			break;
		case 'n':
			repair = false;
			break;
		case 'f':
			break;
		case 'v':
			verbose = true;
			break;
		case 'V':
			out_str(cli->out, "fsck.emdbfs " EMDB_VERSION_STRING "\n");
			return 0;
		case 'h':
			out_str(cli->out, fsck_usage);
			return 0;
		default:
			(void)cli_fail(cli, CLI_USAGE, "unknown option -%c (see: fsck.emdbfs -h)",
				       optopt);
			return FSCK_USAGE;
		}
	}
	if (argc - optind != 1) {
		(void)cli_fail(cli, CLI_USAGE, "one STORE (see: fsck.emdbfs -h)");
		return FSCK_USAGE;
	}
	code = fsck_check(cli, argv[optind], verbose, &err);
	return code == FSCK_UNCORRECTED && repair ? fsck_repair(cli, argv[optind]) : code;
}
