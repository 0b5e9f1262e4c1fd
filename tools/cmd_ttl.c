/* SPDX-License-Identifier: Apache-2.0 */
/* Command ttl: when keys expire. */
#include <inttypes.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/text.h"

#define OPT_NX      (OPT_LONG_ONLY + 0)
#define OPT_XX      (OPT_LONG_ONLY + 1)
#define OPT_GT      (OPT_LONG_ONLY + 2)
#define OPT_LT      (OPT_LONG_ONLY + 3)
#define OPT_DEFAULT (OPT_LONG_ONLY + 4)

/* Where the key is, found. */
struct ttl_key {
	struct store *store;
	uint64_t ns;
	const struct path_name *name;
	const char *text; /* as the user wrote the path */
};

/* ---- One key's deadline ---- */

static void print_ttl(const struct cli *cli, int64_t left_ms, int64_t expires_ms)
{
	struct out *const out = cli->out;
	char when[TEXT_TIME_SIZE];
	bool first = true;

	if (!cli->json) {
		/* Rounded up: a key that is there never shows 0. */
		if (expires_ms)
			out_printf(out, "%" PRId64 "\n", left_ms / 1000 + (left_ms % 1000 != 0));
		else
			out_str(out, "none\n");
		return;
	}
	out_str(out, "{");
	if (expires_ms) {
		out_json_i64(out, &first, "ttl_ms", left_ms);
		out_json_i64(out, &first, "expires_ms", expires_ms);
		out_json_str(out, &first, "expires", text_time(expires_ms, when));
	} else {
		out_str(out, "\"ttl_ms\":null,\"expires_ms\":null,\"expires\":null");
	}
	out_str(out, "}\n");
}

static int key_get(const struct cli *cli, const struct ttl_key *key)
{
	int64_t expires_ms = 0, left_ms;
	emdb_err err;

	err = store_ttl_get(key->store, key->ns, key->name->p, key->name->n, &expires_ms);
	if (err)
		return cli_fail_err(cli, err, key->text);
	left_ms = expires_ms - store_now_ms(key->store);
	print_ttl(cli, left_ms > 0 ? left_ms : 1, expires_ms);
	return CLI_OK;
}

/* A key without a deadline counts as one that expires after all others. */
static bool condition_holds(const struct cli_args *args, int64_t old_ms, int64_t new_ms)
{
	const int64_t old_end = old_ms ? old_ms : INT64_MAX;
	const int64_t new_end = new_ms == EMDB_TTL_NEVER ? INT64_MAX : new_ms;

	if (args_has(args, OPT_NX) && old_ms)
		return false;
	if (args_has(args, OPT_XX) && !old_ms)
		return false;
	if (args_has(args, OPT_GT) && new_end <= old_end)
		return false;
	if (args_has(args, OPT_LT) && new_end >= old_end)
		return false;
	return true;
}

static int key_set(const struct cli *cli, const struct cli_args *args, const struct ttl_key *key,
		   const char *text)
{
	int64_t old_ms = 0, new_ms = 0;
	emdb_err err;

	err = store_ttl_get(key->store, key->ns, key->name->p, key->name->n, &old_ms);
	if (err)
		return cli_fail_err(cli, err, key->text);
	if (emdb_ttl_parse(text, strlen(text), store_now_ms(key->store), old_ms, &new_ms))
		return cli_fail(cli, CLI_USAGE, "%s: not a time to live (see: emdb ttl --help)",
				text);
	if (!condition_holds(args, old_ms, new_ms))
		return cli_fail(cli, CLI_FAILED, "%s: not changed: the condition does not hold",
				key->text);
	err = store_ttl_set(key->store, key->ns, key->name->p, key->name->n, new_ms);
	return err ? cli_fail_err(cli, err, key->text) : CLI_OK;
}

static int on_key(const struct cli *cli, const struct cli_args *args, struct store *store,
		  const struct path *path)
{
	const char *const action = args->argv[0];
	struct ttl_key key = { .store = store, .name = cli_last(path), .text = args->argv[2] };
	const emdb_err err = cli_parent(store, path, false, &key.ns);

	if (err)
		return cli_fail_err(cli, err, key.text);
	if (strcmp(action, "get") == 0)
		return key_get(cli, &key);
	return key_set(cli, args, &key, strcmp(action, "set") == 0 ? args->argv[3] : "none");
}

/* ---- A namespace's default ---- */

static void print_default(const struct cli *cli, int64_t default_ms)
{
	if (cli->json && default_ms)
		out_printf(cli->out, "{\"default_ms\":%" PRId64 "}\n", default_ms);
	else if (cli->json)
		out_str(cli->out, "{\"default_ms\":null}\n");
	else if (default_ms)
		out_printf(cli->out, "%" PRId64 "\n", default_ms / 1000 + (default_ms % 1000 != 0));
	else
		out_str(cli->out, "none\n");
}

static int on_namespace(const struct cli *cli, const struct cli_args *args, struct store *store,
			const struct path *path)
{
	const char *const action = args->argv[0];
	const char *const value = strcmp(action, "set") == 0 ? args->argv[3] : "none";
	int64_t default_ms = 0;
	uint64_t ns = 0;
	emdb_err err;

	err = path_walk(store, path, path->count, false, &ns);
	if (err)
		return cli_fail_err(cli, err, args->argv[2]);
	if (strcmp(action, "get") == 0) {
		err = store_ns_ttl_get(store, ns, &default_ms);
		if (!err)
			print_default(cli, default_ms);
	} else {
		if (emdb_duration_parse(value, strlen(value), &default_ms))
			return cli_fail(cli, CLI_USAGE,
					"%s: not a duration, for instance 7d or none", value);
		err = store_ns_ttl_set(store, ns, default_ms);
	}
	return err ? cli_fail_err(cli, err, args->argv[2]) : CLI_OK;
}

/* ---- The command ---- */

static int check_usage(const struct cli *cli, const struct cli_args *args, bool is_set)
{
	static const int conditions[] = { OPT_NX, OPT_XX, OPT_GT, OPT_LT };
	const char *const action = args->argv[0];
	bool conditional = false;
	size_t i;

	if (!is_set && strcmp(action, "get") != 0 && strcmp(action, "persist") != 0)
		return cli_fail(cli, CLI_USAGE, "unknown action %s: get, set or persist", action);
	if (args->argc != (is_set ? 4 : 3))
		return cli_fail(cli, CLI_USAGE, "%s arguments; usage: emdb ttl %s STORE PATH%s",
				args->argc < (is_set ? 4 : 3) ? "missing" : "too many", action,
				is_set ? " TTL" : "");
	for (i = 0; i < sizeof(conditions) / sizeof(*conditions); i++)
		conditional |= args_has(args, conditions[i]);
	if (conditional && (!is_set || args_has(args, OPT_DEFAULT)))
		return cli_fail(cli, CLI_USAGE,
				"--nx, --xx, --gt and --lt go with setting a key's deadline only");
	if (args_has(args, OPT_NX) &&
	    (args_has(args, OPT_XX) || args_has(args, OPT_GT) || args_has(args, OPT_LT)))
		return cli_fail(cli, CLI_USAGE, "--nx goes with no other condition");
	if (args_has(args, OPT_GT) && args_has(args, OPT_LT))
		return cli_fail(cli, CLI_USAGE, "--gt and --lt exclude each other");
	return CLI_OK;
}

static int run_ttl(struct cli *cli, const struct cli_args *args)
{
	const bool is_set = strcmp(args->argv[0], "set") == 0;
	const bool is_get = strcmp(args->argv[0], "get") == 0;
	const bool is_default = args_has(args, OPT_DEFAULT);
	struct path path = PATH_INIT;
	struct store *store = NULL;
	int code;

	cli->json = args_has(args, 'j');
	code = check_usage(cli, args, is_set);
	if (!code)
		code = (is_default ? cli_path : cli_name_path)(cli, args, args->argv[2], &path);
	if (!code)
		code = cli_open(cli, args->argv[1], is_get ? EMDB_OPEN_READ_ONLY : 0, &store);
	if (store)
		code = cli_close(cli, args->argv[1], store,
				 (is_default ? on_namespace : on_key)(cli, args, store, &path));
	path_release(&path);
	return code;
}

static const struct cli_opt ttl_opts[] = {
	{ OPT_NX, "nx", NULL, "set only when the key has no deadline" },
	{ OPT_XX, "xx", NULL, "set only when it has one" },
	{ OPT_GT, "gt", NULL, "set only when the new deadline is later (none: the latest)" },
	{ OPT_LT, "lt", NULL, "set only when the new deadline is earlier" },
	{ OPT_DEFAULT, "default", NULL, "PATH is a namespace: what new keys in it get" },
	{ 'j', "json", NULL, "get: one JSON object" },
	OPT_ESCAPED,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_ttl = {
	.name = "ttl",
	.synopsis = "get|set|persist [OPTIONS] STORE PATH [TTL]",
	.summary = "show or change when a key expires",
	.details =
		"get prints the seconds left, or none.  persist is set with none.\n"
		"TTL: 90 (seconds), 500ms, 90s, 1h30m, 7d, +1h (later by), @1712345678 (Unix time),\n"
		"2026-12-31T23:59:59Z, none.  A time in the past removes the key now.\n"
		"When a condition does not hold nothing changes and the status is 1.\n",
	.opts = ttl_opts,
	.args_min = 3,
	.args_max = 4,
	.run = run_ttl,
};
