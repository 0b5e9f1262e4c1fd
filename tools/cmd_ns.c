/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about namespaces: mkns, rmns. */
#include <limits.h>

#include "tools/cli.h"

typedef emdb_err (*ns_action)(struct store *store, const struct path *path, bool flag);

/* Does the action for each PATH; flag is the option with the letter `key`. */
static int for_each_path(struct cli *cli, const struct cli_args *args, int key, ns_action action)
{
	const char *const where = args->argv[0];
	int i, code, failed = 0, last = CLI_OK;
	struct store *store = NULL;

	code = cli_open(cli, where, 0, &store);
	if (code)
		return code;
	for (i = 1; i < args->argc; i++) {
		struct path path = PATH_INIT;
		emdb_err err;

		code = cli_name_path(cli, args, args->argv[i], &path);
		if (!code) {
			err = action(store, &path, args_has(args, key));
			path_release(&path);
			if (err) {
				cli_warn(cli, "%s: %s", args->argv[i], emdb_strerror(err));
				code = CLI_FAILED;
			}
		}
		if (code) {
			failed++;
			last = code;
		}
	}
	if (failed && failed < args->argc - 1)
		last = CLI_PARTIAL;
	return cli_close(cli, where, store, last);
}

/* ---- mkns ---- */

static emdb_err make_ns(struct store *store, const struct path *path, bool parents)
{
	uint64_t ns = 0, made;
	emdb_err err;

	if (parents)
		return path_walk(store, path, path->count, true, &made);
	err = cli_parent(store, path, false, &ns);
	if (err)
		return err;
	return store_ns_create(store, ns, cli_last(path)->p, cli_last(path)->n, &made);
}

static int run_mkns(struct cli *cli, const struct cli_args *args)
{
	return for_each_path(cli, args, 'p', make_ns);
}

static const struct cli_opt mkns_opts[] = {
	{ 'p', "parents", NULL, "make what is missing above; one that is there is no error" },
	OPT_ESCAPED,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_mkns = {
	.name = "mkns",
	.synopsis = "[OPTIONS] STORE PATH...",
	.summary = "make namespaces",
	.details = "Exits with 3 when some of several could not be made.\n",
	.opts = mkns_opts,
	.args_min = 2,
	.args_max = INT_MAX,
	.run = run_mkns,
};

/* ---- rmns ---- */

static emdb_err remove_ns(struct store *store, const struct path *path, bool recursive)
{
	uint64_t ns = 0;
	emdb_err err;

	err = cli_parent(store, path, false, &ns);
	if (err)
		return err;
	return store_ns_drop(store, ns, cli_last(path)->p, cli_last(path)->n, recursive);
}

static int run_rmns(struct cli *cli, const struct cli_args *args)
{
	return for_each_path(cli, args, 'r', remove_ns);
}

static const struct cli_opt rmns_opts[] = {
	{ 'r', "recursive", NULL, "with everything in them, in one atomic step each" },
	OPT_ESCAPED,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_rmns = {
	.name = "rmns",
	.synopsis = "[OPTIONS] STORE PATH...",
	.summary = "remove namespaces",
	.details = "Exits with 3 when some of several could not be removed.\n",
	.opts = rmns_opts,
	.args_min = 2,
	.args_max = INT_MAX,
	.run = run_rmns,
};
