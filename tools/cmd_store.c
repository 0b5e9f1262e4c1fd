/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about a whole store: init, stat, sweep, lock. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/served.h"
#include "tools/text.h"
#include "tools/unlock.h"

/* ---- init ---- */

#define OPT_SEGMENT_SIZE OPT_LONG_ONLY
#define OPT_ENCRYPT      (OPT_LONG_ONLY + 1)
#define OPT_CIPHER       (OPT_LONG_ONLY + 2)

/* True: there is a directory with something in it. */
static bool is_populated(const char *path)
{
	DIR *const dir = opendir(path);
	const struct dirent *entry;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)))
		found = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	(void)closedir(dir);
	return found;
}

static int fail_exists(const struct cli *cli, const char *path)
{
	struct emdb_lock_info info;

	if (emdb_lock_holder(path, &info) == EMDB_OK)
		return cli_fail(cli, CLI_FAILED, "%s: there is a store already", path);
	return cli_fail(cli, CLI_FAILED, "%s: not an empty directory", path);
}

/* What the options say of encryption; the secret, if any, points into hold. */
static int init_secret(const struct cli *cli, const struct cli_args *args, struct secret *hold,
		       struct emdb_secret *secret, struct emdb_options *options)
{
	const char *const cipher = args_value(args, OPT_CIPHER);
	int code;

	if (!args_has(args, OPT_ENCRYPT)) {
		if (cipher || cli_secret_given(cli))
			return cli_fail(cli, CLI_USAGE, "a cipher or secret without --encrypt");
		return CLI_OK;
	}
	if (cipher && emdb_cipher_parse(cipher, &options->cipher))
		return cli_fail(cli, CLI_USAGE, "%s: not a cipher", cipher);
	if (!emdb_cipher_available(options->cipher))
		return cli_fail(cli, CLI_FAILED, "%s: this machine cannot do it", cipher);
	code = cli_new_secret(cli, args->argv[0], &cli->unlock->source, false, hold, secret);
	if (!code)
		options->secret = secret;
	return code;
}

static int run_init(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0];
	const char *const size = args_value(args, OPT_SEGMENT_SIZE);
	struct emdb_detail detail = { .text = "" };
	struct emdb_options options = {
		.size = sizeof(options),
		.flags = EMDB_OPEN_CREATE | EMDB_OPEN_EXCLUSIVE,
		.detail = &detail,
	};
	struct secret hold = { 0 };
	struct emdb_secret secret;
	emdb_db *db = NULL;
	emdb_err err;
	int code;

	if (size &&
	    (!text_parse_size(size, &options.segment_bytes) ||
	     options.segment_bytes < EMDB_SEGMENT_MIN || options.segment_bytes > EMDB_SEGMENT_MAX ||
	     (options.segment_bytes & (options.segment_bytes - 1)) != 0))
		return cli_fail(cli, CLI_USAGE, "segment size %s: not a power of two from 1M to 1G",
				size);
	if (is_populated(path))
		return fail_exists(cli, path);
	code = init_secret(cli, args, &hold, &secret, &options);
	if (code)
		return code;
	err = emdb_open(path, &options, &db);
	secret_free(&hold);
	if (err == EMDB_ERR_EXISTS)
		return fail_exists(cli, path);
	if (err)
		return cli_fail(cli, CLI_FAILED, "%s: %s%s%s", path, emdb_strerror(err),
				detail.text[0] ? ": " : "", detail.text);
	err = emdb_close(db);
	return err ? cli_fail_err(cli, err, path) : CLI_OK;
}

static const struct cli_opt init_opts[] = {
	{ OPT_SEGMENT_SIZE, "segment-size", "N",
	  "bytes in one journal file: a power of two, 1M to 1G (default 64M)" },
	{ OPT_ENCRYPT, "encrypt", NULL, "encrypt everything in it; asks for a passphrase, twice" },
	{ OPT_CIPHER, "cipher", "NAME",
	  "aes-256-gcm (where the machine has it) or chacha20-poly1305" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_init = {
	.name = "init",
	.synopsis = "[OPTIONS] STORE",
	.summary = "create an empty store",
	.details = "The directory STORE is created; it may exist when it is empty.\n",
	.opts = init_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_init,
};

/* ---- stat ---- */

enum unit { UNIT_COUNT, UNIT_BYTES, UNIT_US };

struct stat_line {
	const char *name, *text;
	size_t offset; /* in struct emdb_stats */
	enum unit unit;
};

#define LINE(field, text, unit)                                        \
	{                                                              \
#field, text, offsetof(struct emdb_stats, field), unit \
	}
static const struct stat_line stat_lines[] = {
	LINE(records, "keys", UNIT_COUNT),
	LINE(namespaces, "namespaces", UNIT_COUNT),
	LINE(expiring, "keys with a deadline", UNIT_COUNT),
	LINE(segments, "segments", UNIT_COUNT),
	LINE(segment_bytes, "segment size", UNIT_BYTES),
	LINE(journal_bytes, "journal", UNIT_BYTES),
	LINE(live_bytes, "  of it live", UNIT_BYTES),
	LINE(dead_bytes, "  of it dead", UNIT_BYTES),
	LINE(preallocated_bytes, "preallocated", UNIT_BYTES),
	LINE(recycled, "segments recycled", UNIT_COUNT),
	LINE(index_bytes, "index in memory", UNIT_BYTES),
	LINE(views, "open iterators and transactions", UNIT_COUNT),
	LINE(view_bytes, "  memory kept for them", UNIT_BYTES),
	LINE(tail_lsn, "tail LSN", UNIT_COUNT),
	LINE(durable_lsn, "durable LSN", UNIT_COUNT),
	LINE(checkpoint_lsn, "checkpoint LSN", UNIT_COUNT),
	LINE(replayed, "frames replayed at open", UNIT_COUNT),
	LINE(torn_bytes, "cut from the end at open", UNIT_BYTES),
	LINE(open_us, "time to open", UNIT_US),
	LINE(fs_total_bytes, "host file system", UNIT_BYTES),
	LINE(fs_avail_bytes, "  of it available", UNIT_BYTES),
};
#undef LINE

static uint64_t stat_value(const struct emdb_stats *stats, const struct stat_line *line)
{
	uint64_t v;

	memcpy(&v, (const char *)stats + line->offset, sizeof(v));
	return v;
}

static void uuid_text(const struct store *store, char buf[37])
{
	uint8_t u[16];
	size_t i, n = 0;

	store_uuid(store, u);
	for (i = 0; i < sizeof(u); i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			buf[n++] = '-';
		n += (size_t)snprintf(buf + n, 37 - n, "%02x", u[i]);
	}
}

static void scrub_json(struct out *out, const struct emdb_stats *stats, bool *first)
{
	out_json_u64(out, first, "scrub_ended_ms", stats->scrub_ended_ms);
	out_json_u64(out, first, "scrub_bytes", stats->scrub_bytes);
	out_json_u64(out, first, "scrub_damaged", stats->scrub_damaged);
	out_json_u64(out, first, "scrub_lost_entries", stats->scrub_lost_entries);
	out_json_bool(out, first, "scrub_complete", stats->scrub_complete);
	out_json_u64(out, first, "scrub_done_bytes", stats->scrub_done_bytes);
	out_json_u64(out, first, "scrub_total_bytes", stats->scrub_total_bytes);
}

static void scrub_text(struct out *out, const struct emdb_stats *stats)
{
	char when[TEXT_TIME_SIZE], size[TEXT_SIZE_SIZE], total[TEXT_SIZE_SIZE];

	if (stats->scrub_ended_ms)
		out_printf(out,
			   "%-26s %s, %s read, damaged places: %" PRIu64
			   ", entries that suffer: %" PRIu64 "%s\n",
			   "last scrub", text_time((int64_t)stats->scrub_ended_ms, when),
			   text_size(stats->scrub_bytes, size), stats->scrub_damaged,
			   stats->scrub_lost_entries,
			   stats->scrub_complete ? "" : " (stopped before its end)");
	else
		out_printf(out, "%-26s never\n", "last scrub");
	if (stats->scrub_total_bytes)
		out_printf(out, "%-26s %s of %s\n", "scrub at work",
			   text_size(stats->scrub_done_bytes, size),
			   text_size(stats->scrub_total_bytes, total));
}

/* The object is left open. */
static void stat_json(struct out *out, const char *uuid, const struct emdb_stats *stats)
{
	bool first = true;
	size_t i;

	out_str(out, "{");
	out_json_str(out, &first, "uuid", uuid);
	for (i = 0; i < sizeof(stat_lines) / sizeof(*stat_lines); i++)
		out_json_u64(out, &first, stat_lines[i].name, stat_value(stats, &stat_lines[i]));
	scrub_json(out, stats, &first);
	out_json_bool(out, &first, "damaged", stats->damaged);
}

static void stat_text(struct out *out, const char *uuid, const struct emdb_stats *stats)
{
	char size[TEXT_SIZE_SIZE];
	size_t i;

	out_printf(out, "%-26s %s\n", "uuid", uuid);
	for (i = 0; i < sizeof(stat_lines) / sizeof(*stat_lines); i++) {
		const struct stat_line *const line = &stat_lines[i];
		const uint64_t v = stat_value(stats, line);

		if (line->unit == UNIT_BYTES && v >= 1024)
			out_printf(out, "%-26s %" PRIu64 " (%s)\n", line->text, v,
				   text_size(v, size));
		else if (line->unit == UNIT_US)
			out_printf(out, "%-26s %" PRIu64 ".%03u ms\n", line->text, v / 1000,
				   (unsigned int)(v % 1000));
		else
			out_printf(out, "%-26s %" PRIu64 "\n", line->text, v);
	}
	scrub_text(out, stats);
	if (stats->damaged)
		out_str(out, "the journal is damaged (see: emdb check)\n");
}

static int stat_open(const struct cli *cli, struct store *store, const char *path)
{
	struct emdb_stats stats;
	char uuid[37];
	emdb_err err;

	err = store_stats(store, &stats);
	if (err)
		return cli_fail_err(cli, err, path);
	uuid_text(store, uuid);
	(cli->json ? stat_json : stat_text)(cli->out, uuid, &stats);
	if (store_served_by(store)) {
		err = served_print(cli, store, &stats);
		if (err)
			return cli_fail_err(cli, err, path);
	}
	if (cli->json)
		out_str(cli->out, "}\n");
	return CLI_OK;
}

static int run_stat(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0];
	struct store *store = NULL;
	int code;

	cli->json = args_has(args, 'j');
	code = cli_open_read(cli, args, path, &store);
	if (code)
		return code;
	return cli_close(cli, path, store, stat_open(cli, store, path));
}

static const struct cli_opt stat_opts[] = {
	{ 'j', "json", NULL, "one JSON object; sizes are bytes, open_us microseconds" },
	OPT_SALVAGE_ENTRY,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_stat = {
	.name = "stat",
	.synopsis = "[OPTIONS] STORE",
	.summary = "show what a store holds and takes",
	.opts = stat_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_stat,
};

/* ---- sweep ---- */

static int run_sweep(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0];
	struct store *store = NULL;
	uint64_t removed = 0;
	emdb_err err;
	int code;

	code = cli_open(cli, path, 0, &store);
	if (code)
		return code;
	err = store_sweep(store, &removed);
	if (err)
		code = cli_fail_err(cli, err, path);
	else
		out_printf(cli->out, "%" PRIu64 "\n", removed);
	return cli_close(cli, path, store, code);
}

static const struct cli_opt sweep_opts[] = {
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_sweep = {
	.name = "sweep",
	.synopsis = "STORE",
	.summary = "remove the keys whose time is over",
	.details = "Expired keys are absent everywhere at once; this also deletes them, which a\n"
		   "mounted store does by itself.  Prints how many went.\n",
	.opts = sweep_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_sweep,
};

/* ---- lock ---- */

static void lock_json(struct out *out, const struct emdb_lock_info *info)
{
	bool first = true;

	out_str(out, "{");
	out_json_bool(out, &first, "held", info->held);
	out_json_bool(out, &first, "stale", info->stale);
	if (info->held || info->stale) {
		out_json_i64(out, &first, "pid", info->pid);
		out_json_str(out, &first, "host", info->host);
		out_json_str(out, &first, "boot_id", info->boot_id);
		out_json_str(out, &first, "version", info->version);
		out_json_i64(out, &first, "since_ms", info->since_ms);
	}
	out_str(out, "}\n");
}

static int lock_show(const struct cli *cli, const char *path)
{
	struct emdb_lock_info info;
	char holder[512];
	emdb_err err;

	err = emdb_lock_holder(path, &info);
	if (err)
		return cli_fail_err(cli, err, path);
	cli_holder_text(&info, holder, sizeof(holder));
	if (cli->json) {
		lock_json(cli->out, &info);
	} else if (info.held) {
		out_str(cli->out, "in use by ");
		out_name(cli->out, holder, strlen(holder));
		out_str(cli->out, "\n");
	} else if (info.stale) {
		out_str(cli->out, "free; not closed by ");
		out_name(cli->out, holder, strlen(holder));
		out_str(cli->out, "\n");
	} else {
		out_str(cli->out, "free\n");
	}
	return info.held ? CLI_LOCKED : CLI_OK;
}

static int lock_break(const struct cli *cli, const char *path)
{
	struct emdb_lock_info info;
	char holder[512];
	emdb_err err;

	err = emdb_break_lock(path);
	if (err == EMDB_ERR_HOLDER_ALIVE && !emdb_lock_holder(path, &info)) {
		cli_holder_text(&info, holder, sizeof(holder));
		return cli_fail(cli, CLI_LOCKED, "%s: the holder still runs: %s", path, holder);
	}
	return err ? cli_fail_err(cli, err, path) : CLI_OK;
}

static int run_lock(struct cli *cli, const struct cli_args *args)
{
	const char *const action = args->argc > 1 ? args->argv[1] : "show";
	char *dir;
	int code;

	cli->json = args_has(args, 'j');
	if (strcmp(action, "show") != 0 && strcmp(action, "break") != 0)
		return cli_fail(cli, CLI_USAGE, "unknown action %s: show or break", action);
	dir = store_directory(args->argv[0]);
	if (!dir)
		return cli_fail_err(cli, EMDB_ERR_NOMEM, args->argv[0]);
	code = (strcmp(action, "show") == 0 ? lock_show : lock_break)(cli, dir);
	free(dir);
	return code;
}

static const struct cli_opt lock_opts[] = {
	{ 'j', "json", NULL, "show: one JSON object" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_lock = {
	.name = "lock",
	.synopsis = "[OPTIONS] STORE [show|break]",
	.summary = "show who has a store open, or clear what a dead holder left",
	.details = "show (the default) exits with 0 when the store is free, 11 when it is in use.\n"
		   "break never takes a lock from a living process.\n",
	.opts = lock_opts,
	.args_min = 1,
	.args_max = 2,
	.run = run_lock,
};
