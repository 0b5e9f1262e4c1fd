/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot prune: from the newest on, the first snapshot of each of the last N
 * periods that have one is kept.  Periods are those of local time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/snapshot.h"
#include "tools/text.h"

enum period { LAST, HOURLY, DAILY, WEEKLY, MONTHLY, PERIODS };

static const struct {
	int opt;
	const char *name;
} periods[PERIODS] = {
	[LAST] = { SNAP_KEEP_LAST, "last" },          [HOURLY] = { SNAP_KEEP_HOURLY, "hourly" },
	[DAILY] = { SNAP_KEEP_DAILY, "daily" },       [WEEKLY] = { SNAP_KEEP_WEEKLY, "weekly" },
	[MONTHLY] = { SNAP_KEEP_MONTHLY, "monthly" },
};

struct rule {
	unsigned long left;
	long long period; /* that of the last one kept */
};

/* A number that two times share exactly when they are in the same period. */
static long long period_of(enum period p, time_t t, size_t index)
{
	struct tm tm;
	char text[32];

	memset(&tm, 0, sizeof(tm));
	(void)localtime_r(&t, &tm);
	switch (p) {
	case LAST:
	case PERIODS:
		return (long long)index;
	case HOURLY:
		return ((long long)tm.tm_year * 366 + tm.tm_yday) * 24 + tm.tm_hour;
	case DAILY:
		return (long long)tm.tm_year * 366 + tm.tm_yday;
	case WEEKLY:
		(void)strftime(text, sizeof(text), "%G%V", &tm);
		return strtoll(text, NULL, 10);
	case MONTHLY:
		return (long long)tm.tm_year * 12 + tm.tm_mon;
	}
	return 0;
}

/* Reads the rules; false: the message is printed. */
static bool read_rules(const struct cli *cli, const struct cli_args *args,
		       struct rule rules[static PERIODS])
{
	bool any = false;
	int p;

	for (p = 0; p < PERIODS; p++) {
		const char *const text = args_value(args, periods[p].opt);
		char *end = NULL;

		rules[p] = (struct rule){ .left = 0, .period = -1 };
		if (!text)
			continue;
		any = true;
		if (*text >= '0' && *text <= '9')
			rules[p].left = strtoul(text, &end, 10);
		if (!end || *end) {
			(void)cli_fail(cli, CLI_USAGE, "--keep-%s %s: not a number",
				       periods[p].name, text);
			return false;
		}
	}
	if (!any)
		(void)cli_fail(cli, CLI_USAGE, "nothing to keep: give at least one --keep option");
	return any;
}

/* Which rules keep it, as a text with blanks behind; "" for none. */
static void judge(struct rule rules[static PERIODS], const struct emdb_snapshot *s, size_t index,
		  char reasons[static 64])
{
	size_t n = 0;
	int p;

	reasons[0] = '\0';
	for (p = 0; p < PERIODS; p++) {
		const long long now =
			period_of((enum period)p, (time_t)(s->created_ns / 1000000000), index);

		if (!rules[p].left || rules[p].period == now)
			continue;
		rules[p].left--;
		rules[p].period = now;
		n += (size_t)snprintf(reasons + n, 64 - n, "%s%s", n ? " " : "", periods[p].name);
	}
}

static void tell(const struct cli *cli, const struct emdb_snapshot *s, const char *reasons)
{
	struct out *const out = cli->out;
	char when[TEXT_TIME_SIZE];
	bool first = true;

	(void)text_time(s->created_ns / 1000000, when);
	if (cli->json) {
		out_str(out, "{");
		out_json_str(out, &first, "action", *reasons ? "keep" : "remove");
		out_json_str(out, &first, "name", s->name);
		out_json_str(out, &first, "created", when);
		out_json_str(out, &first, "reasons", reasons);
		out_str(out, "}\n");
		return;
	}
	out_printf(out, "%-6s %s ", *reasons ? "keep" : "remove", when);
	out_name(out, s->name, strlen(s->name));
	if (*reasons)
		out_printf(out, " (%s)", reasons);
	out_str(out, "\n");
}

int snap_prune(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[1];
	const bool dry = args_has(args, 'n');
	struct snap_list list = { .rows = NULL };
	struct rule rules[PERIODS];
	struct store *store = NULL;
	int code, failed = 0;
	char *dir;
	emdb_err err;
	size_t i;

	if (!read_rules(cli, args, rules))
		return CLI_USAGE;
	dir = store_directory(path);
	err = dir ? snap_list_read(dir, &list) : EMDB_ERR_NOMEM;
	code = err ? cli_fail_err(cli, err, path) : CLI_OK;
	if (!code && !dry)
		code = cli_open(cli, path, 0, &store);
	for (i = list.count; !code && i-- > 0;) {
		const struct emdb_snapshot *const s = &list.rows[i];
		char reasons[64];

		/* What cannot be read has no time: a person decides about it. */
		if (s->err) {
			cli_warn(cli, "%s: %s: kept", s->name, emdb_strerror(s->err));
			continue;
		}
		judge(rules, s, i, reasons);
		tell(cli, s, reasons);
		if (*reasons || dry)
			continue;
		err = store_snapshot_delete(store, s->name);
		if (err && err != EMDB_ERR_NOT_FOUND) {
			cli_warn(cli, "%s: %s", s->name, emdb_strerror(err));
			failed++;
		}
	}
	if (!code && failed)
		code = CLI_PARTIAL;
	snap_list_release(&list);
	free(dir);
	return store ? cli_close(cli, path, store, code) : code;
}
