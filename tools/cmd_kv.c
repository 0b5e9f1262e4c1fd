/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about keys and values: put, get, del. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/value.h"

/* ---- put ---- */

#define OPT_TTL OPT_LONG_ONLY

/* Stores argv[2], or standard input, under the path. */
static emdb_err put_value(struct store *store, const struct cli_args *args, const struct path *path,
			  int64_t expires_ms, int *ret_errno)
{
	const struct path_name *const key = cli_last(path);
	const char *const value = args->argc > 2 ? args->argv[2] : "-";
	uint64_t ns = 0;
	emdb_err err;

	*ret_errno = 0;
	err = cli_parent(store, path, args_has(args, 'p'), &ns);
	if (err)
		return err;
	if (strcmp(value, "-") == 0)
		return value_put_fd(store, ns, key->p, key->n, STDIN_FILENO, expires_ms, ret_errno);
	return store_put(store, ns, key->p, key->n, value, strlen(value), expires_ms);
}

static int put_open(const struct cli *cli, struct store *store, const struct cli_args *args,
		    const struct path *path)
{
	const char *const ttl = args_value(args, OPT_TTL);
	const char *const name = args->argv[1];
	int64_t expires_ms = EMDB_TTL_DEFAULT;
	int input_errno = 0;
	emdb_err err;

	if (ttl && emdb_ttl_parse(ttl, strlen(ttl), store_now_ms(store), 0, &expires_ms))
		return cli_fail(cli, CLI_USAGE, "%s: not a time to live (see: emdb ttl --help)",
				ttl);
	err = put_value(store, args, path, expires_ms, &input_errno);
	if (input_errno)
		return cli_fail(cli, CLI_FAILED, "standard input: %s", strerror(input_errno));
	if (err == EMDB_ERR_NOT_FOUND)
		return cli_fail(cli, CLI_FAILED, "%s: no such namespace (--parents makes it)",
				name);
	return err ? cli_fail_err(cli, err, name) : CLI_OK;
}

static int run_put(struct cli *cli, const struct cli_args *args)
{
	struct path path = PATH_INIT;
	struct store *store = NULL;
	int code;

	code = cli_name_path(cli, args, args->argv[1], &path);
	if (code)
		return code;
	code = cli_open(cli, args->argv[0], 0, &store);
	if (!code)
		code = cli_close(cli, args->argv[0], store, put_open(cli, store, args, &path));
	path_release(&path);
	return code;
}

static const struct cli_opt put_opts[] = {
	{ OPT_TTL, "ttl", "TTL", "lifetime or deadline: 90s, 1h30m, 7d, @1712345678, none" },
	{ 'p', "parents", NULL, "make the namespaces that are missing" },
	OPT_ESCAPED,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_put = {
	.name = "put",
	.synopsis = "[OPTIONS] STORE PATH [VALUE|-]",
	.summary = "store a value under a key",
	.details = "Without VALUE, or with -, the value is read from standard input.  When the\n"
		   "command succeeded the value is on stable storage.  The store is not created\n"
		   "(see: emdb init).  Put -- in front of a VALUE that begins with -.\n",
	.opts = put_opts,
	.args_min = 2,
	.args_max = 3,
	.run = run_put,
};

/* ---- get ---- */

static int get_open(const struct cli *cli, struct store *store, const struct path *path,
		    const char *name)
{
	const struct path_name *const key = cli_last(path);
	uint64_t ns = 0;
	emdb_err err;

	err = cli_parent(store, path, false, &ns);
	if (!err)
		err = value_get(store, ns, key->p, key->n, cli->out);
	return err ? cli_fail_err(cli, err, name) : CLI_OK;
}

static int run_get(struct cli *cli, const struct cli_args *args)
{
	struct path path = PATH_INIT;
	struct store *store = NULL;
	int code;

	code = cli_name_path(cli, args, args->argv[1], &path);
	if (code)
		return code;
	code = cli_open_read(cli, args, args->argv[0], &store);
	if (!code)
		code = cli_close(cli, args->argv[0], store,
				 get_open(cli, store, &path, args->argv[1]));
	path_release(&path);
	return code;
}

static const struct cli_opt get_opts[] = {
	OPT_ESCAPED,
	OPT_SALVAGE_ENTRY,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_get = {
	.name = "get",
	.synopsis = "[OPTIONS] STORE PATH",
	.summary = "print a key's value",
	.details = "The bytes of the value and nothing else go to standard output.\n",
	.opts = get_opts,
	.args_min = 2,
	.args_max = 2,
	.run = run_get,
};

/* ---- del ---- */

static int del_one(const struct cli *cli, struct store *store, const struct cli_args *args,
		   const char *name)
{
	struct path path = PATH_INIT;
	uint64_t ns = 0;
	emdb_err err;
	int code;

	code = cli_name_path(cli, args, name, &path);
	if (code)
		return code;
	err = cli_parent(store, &path, false, &ns);
	if (!err)
		err = store_remove(store, ns, cli_last(&path)->p, cli_last(&path)->n);
	path_release(&path);
	if (!err || (err == EMDB_ERR_NOT_FOUND && args_has(args, 'f')))
		return CLI_OK;
	if (err == EMDB_ERR_IS_NS)
		cli_warn(cli, "%s: is a namespace (see: emdb rmns)", name);
	else
		cli_warn(cli, "%s: %s", name, emdb_strerror(err));
	return CLI_FAILED;
}

static int run_del(struct cli *cli, const struct cli_args *args)
{
	const char *const where = args->argv[0];
	int i, failed = 0, code, last = CLI_OK;
	struct store *store = NULL;

	code = cli_open(cli, where, 0, &store);
	if (code)
		return code;
	for (i = 1; i < args->argc; i++) {
		code = del_one(cli, store, args, args->argv[i]);
		if (code) {
			failed++;
			last = code;
		}
	}
	if (failed && failed < args->argc - 1)
		last = CLI_PARTIAL;
	return cli_close(cli, where, store, last);
}

static const struct cli_opt del_opts[] = {
	{ 'f', "force", NULL, "a key that is not there is no error" },
	OPT_ESCAPED,
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_del = {
	.name = "del",
	.synopsis = "[OPTIONS] STORE PATH...",
	.summary = "remove keys",
	.details = "Exits with 3 when some of several keys could not be removed.\n",
	.opts = del_opts,
	.args_min = 2,
	.args_max = INT_MAX,
	.run = run_del,
};
