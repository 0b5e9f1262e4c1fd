/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/text.h"
#include "tools/unlock.h"

bool args_has(const struct cli_args *args, int key)
{
	size_t i;

	for (i = 0; args->opts[i].key; i++)
		if (args->opts[i].key == key)
			return args->set[i];
	return false;
}

const char *args_value(const struct cli_args *args, int key)
{
	size_t i;

	for (i = 0; args->opts[i].key; i++)
		if (args->opts[i].key == key)
			return args->value[i];
	return NULL;
}

/* ---- Messages ---- */

static void message_json(const struct cli *cli, struct out *err, int code, const char *text)
{
	bool first;

	out_json_begin(err, &first, code ? "exit_error" : "error");
	out_json_str(err, &first, "command", cli->command);
	if (code)
		out_json_i64(err, &first, "code", code);
	out_json_str(err, &first, "message", text);
	out_json_end(err);
}

/* Code 0: not the last message. */
__attribute__((format(printf, 3, 0))) static void message(const struct cli *cli, int code,
							  const char *fmt, va_list ap)
{
	struct out err;
	char text[4096];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	/* What was printed so far comes first, also when both go to one place. */
	(void)out_flush(cli->out);
	out_init(&err, STDERR_FILENO);
	if (cli->json) {
		message_json(cli, &err, code, text);
	} else {
		/* Paths and texts from disk are in it: not only a terminal is steered by them. */
		err.tty = true;
		out_str(&err, *cli->command ? "emdb " : "emdb");
		out_str(&err, cli->command);
		out_str(&err, ": ");
		out_name(&err, text, strlen(text));
		out_str(&err, "\n");
	}
	(void)out_flush(&err);
}

void cli_warn(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(cli, 0, fmt, ap);
	va_end(ap);
}

int cli_fail(const struct cli *cli, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(cli, code, fmt, ap);
	va_end(ap);
	return code;
}

int cli_exit_code(emdb_err err)
{
	if (err == EMDB_ERR_NO_STORE || err == EMDB_ERR_NOT_STORE)
		return CLI_NO_STORE;
	if (err == EMDB_ERR_LOCKED || err == EMDB_ERR_HOLDER_ALIVE)
		return CLI_LOCKED;
	if (err == EMDB_ERR_WRONG_KEY || err == EMDB_ERR_KEY_REQUIRED)
		return CLI_WRONG_KEY;
	return CLI_FAILED;
}

int cli_fail_err(const struct cli *cli, emdb_err err, const char *what)
{
	return cli_fail(cli, cli_exit_code(err), "%s: %s", what, emdb_strerror(err));
}

/* ---- The store ---- */

void cli_holder_text(const struct emdb_lock_info *info, char *buf, size_t size)
{
	char since[TEXT_TIME_SIZE];
	size_t n;

	if (info->pid <= 0) {
		(void)snprintf(buf, size, "an unknown process");
		return;
	}
	n = (size_t)snprintf(buf, size, "process %" PRId64, info->pid);
	if (info->host[0] && n < size)
		n += (size_t)snprintf(buf + n, size - n, " on %s", info->host);
	if (info->since_ms && n < size)
		n += (size_t)snprintf(buf + n, size - n, " since %s",
				      text_time(info->since_ms, since));
	if (info->version[0] && n < size)
		(void)snprintf(buf + n, size - n, " (version %s)", info->version);
}

static int fail_locked(const struct cli *cli, const char *path)
{
	char *const dir = store_directory(path);
	struct emdb_lock_info info;
	char holder[512];
	emdb_err err;

	err = dir ? emdb_lock_holder(dir, &info) : EMDB_ERR_NOMEM;
	free(dir);
	if (err)
		return cli_fail_err(cli, EMDB_ERR_LOCKED, path);
	cli_holder_text(&info, holder, sizeof(holder));
	return cli_fail(cli, CLI_LOCKED, "%s: the store is in use by %s", path, holder);
}

int cli_fail_open(const struct cli *cli, const char *path, emdb_err err, const char *detail)
{
	if (err == EMDB_ERR_LOCKED)
		return fail_locked(cli, path);
	if (err == EMDB_ERR_DAMAGED)
		return cli_fail(cli, CLI_FAILED, "%s: %s: %s (see: emdb check, ls --salvage)", path,
				emdb_strerror(err), detail);
	if (*detail)
		return cli_fail(cli, cli_exit_code(err), "%s: %s: %s", path, emdb_strerror(err),
				detail);
	return cli_fail_err(cli, err, path);
}

/* What the engine has to say that an error code cannot: where something is damaged. */
static void log_from_store(void *ctx, enum emdb_log_level level, const char *message)
{
	if (level >= EMDB_LOG_WARN)
		cli_warn(ctx, "%s", message);
}

int cli_open(const struct cli *cli, const char *path, unsigned int flags, struct store **ret_store)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options options = {
		.size = sizeof(options),
		.flags = flags,
		/* Commands are short: they leave no work to the background. */
		.commit_interval_s = -1,
		.sweep_interval_ms = -1,
		.detail = &detail,
		.log = log_from_store,
		.log_ctx = (void *)(uintptr_t)cli,
	};
	int code = cli_secret_given(cli) ? cli_secret(cli, path, &options.secret) : CLI_OK;
	emdb_err err;

	if (code)
		return code;
	err = store_open(path, &options, ret_store);
	/* Only now it is known that one is needed: a daemon that serves the store has it already. */
	if (err == EMDB_ERR_KEY_REQUIRED) {
		code = cli_secret(cli, path, &options.secret);
		if (code)
			return code;
		err = store_open(path, &options, ret_store);
	}
	return err ? cli_fail_open(cli, path, err, detail.text) : CLI_OK;
}

emdb_err cli_db_open(const struct cli *cli, const char *path, struct emdb_options *options,
		     emdb_db **ret_db)
{
	emdb_err err = emdb_open(path, options, ret_db);

	if (err == EMDB_ERR_KEY_REQUIRED && cli_secret(cli, path, &options->secret) == CLI_OK)
		err = emdb_open(path, options, ret_db);
	return err;
}

int cli_open_source(const struct cli *cli, const char *path, struct store **ret_store,
		    emdb_db **ret_frozen)
{
	struct emdb_options rw = { .size = sizeof(rw),
				   .commit_interval_s = -1,
				   .sweep_interval_ms = -1 };
	struct emdb_options ro = { .size = sizeof(ro), .flags = EMDB_OPEN_READ_ONLY };
	emdb_err err = store_open(path, &rw, ret_store);

	if (err == EMDB_ERR_KEY_REQUIRED && cli_secret(cli, path, &rw.secret) == CLI_OK)
		err = store_open(path, &rw, ret_store);
	if (err == EMDB_ERR_READ_ONLY)
		err = cli_db_open(cli, path, &ro, ret_frozen);
	/* Once more, for the message. */
	return err ? cli_open(cli, path, 0, ret_store) : CLI_OK;
}

int cli_open_read(const struct cli *cli, const struct cli_args *args, const char *path,
		  struct store **ret_store)
{
	const unsigned int salvage = args_has(args, OPT_SALVAGE) ? EMDB_OPEN_SALVAGE : 0;

	return cli_open(cli, path, EMDB_OPEN_READ_ONLY | salvage, ret_store);
}

int cli_close(const struct cli *cli, const char *path, struct store *store, int code)
{
	const char *const remark = store_remark(store);
	emdb_err err;

	/* It was printed what failed, not why. */
	if (code != CLI_OK && *remark)
		cli_warn(cli, "%s: %s", path, remark);
	err = store_close(store);
	return err && code == CLI_OK ? cli_fail_err(cli, err, path) : code;
}

/* ---- PATH arguments ---- */

int cli_path(const struct cli *cli, const struct cli_args *args, const char *text,
	     struct path *ret_path)
{
	const enum path_err err = path_parse(text, args_has(args, 'x'), ret_path);

	if (!err)
		return CLI_OK;
	return cli_fail(cli, err == PATH_NOMEM ? CLI_FAILED : CLI_USAGE, "%s: %s", text,
			path_strerror(err));
}

int cli_name_path(const struct cli *cli, const struct cli_args *args, const char *text,
		  struct path *ret_path)
{
	const int code = cli_path(cli, args, text, ret_path);

	if (code || ret_path->count)
		return code;
	path_release(ret_path);
	return cli_fail(cli, CLI_USAGE, "the path names nothing: it is the root");
}

const struct path_name *cli_last(const struct path *path)
{
	return &path->names[path->count - 1];
}

emdb_err cli_parent(struct store *store, const struct path *path, bool create, uint64_t *ret_ns)
{
	return path_walk(store, path, path->count - 1, create, ret_ns);
}
