/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands of `emdb` share: their table entries, exit codes, parsed
 * arguments and messages.
 *
 * Data goes to cli->out (standard output) only, messages to standard error
 * only.  main() flushes cli->out; a command need not.
 */
#ifndef TOOLS_CLI_H
#define TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "core/emdb.h"
#include "tools/out.h"
#include "tools/path.h"
#include "tools/store.h"

/* Fixed for ever; any other number is a failure too. */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_PARTIAL = 3, /* some of several items failed */
	CLI_NO_STORE = 10,
	CLI_LOCKED = 11,
	CLI_WRONG_KEY = 12,    /* wrong passphrase or key */
	CLI_EMPTY_SECRET = 22, /* an empty passphrase */
	CLI_CHECK = 26,        /* check found errors */
	CLI_CANCELLED = 130,
};

/* ---- The table of commands ---- */

/* Options without a short form have keys from here on. */
#define OPT_LONG_ONLY 256
#define OPT_MAX       12 /* options of one command */

struct cli_opt {
	int key; /* the short form's letter (of an option without value), or OPT_LONG_ONLY + n */
	const char *name; /* the long form */
	const char *arg;  /* the value's name in the help, NULL: takes none */
	const char *help;
};

/* A command line taken apart by the command's table. */
struct cli_args {
	const struct cli_opt *opts;
	bool set[OPT_MAX];
	const char *value[OPT_MAX];
	int argc; /* what is left besides options: argv[0] is the store */
	char **argv;
};

struct unlock;

struct cli {
	const char *command; /* for messages; "" before one is known */
	struct out *out;
	struct unlock *unlock; /* see tools/unlock.h */
	bool json;             /* messages as JSON lines too */
};

struct cli_command {
	const char *name;
	const char *synopsis; /* behind "emdb NAME" */
	const char *summary;
	const char *details; /* more paragraphs for --help, or NULL */
	const struct cli_opt *opts;
	int args_min, args_max;
	int (*run)(struct cli *cli, const struct cli_args *args);
};

/* fsck.emdbfs; returns what to exit with: bits as fsck(8) has them. */
int cmd_fsck(struct cli *cli, int argc, char **argv);

extern const struct cli_command cmd_init, cmd_put, cmd_get, cmd_del, cmd_ls, cmd_mkns, cmd_rmns,
	cmd_ttl, cmd_sweep, cmd_stat, cmd_lock, cmd_check, cmd_flush, cmd_checkpoint, cmd_compact,
	cmd_snapshot, cmd_backup, cmd_export, cmd_import, cmd_restore, cmd_key, cmd_encrypt,
	cmd_decrypt, cmd_repair, cmd_scrub;

bool args_has(const struct cli_args *args, int key);
/* NULL when the option was not given. */
const char *args_value(const struct cli_args *args, int key);

/* ---- Messages ---- */

/* One line on standard error; control bytes in it are escaped. */
void cli_warn(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, last before leaving; returns code. */
int cli_fail(const struct cli *cli, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The exit code that belongs to an error. */
int cli_exit_code(emdb_err err);
/* "what: the error's text"; returns the exit code that belongs to it. */
int cli_fail_err(const struct cli *cli, emdb_err err, const char *what);

/* The message for a store at path that could not be opened; detail may be "". */
int cli_fail_open(const struct cli *cli, const char *path, emdb_err err, const char *detail);

/* ---- The store ---- */

/*
 * Opens the store at path, or asks the daemon that serves it; path may also be
 * where it is mounted.  flags as emdb_options.flags.  Returns CLI_OK or, with
 * the message printed, the exit code.  A store in use names its holder.
 */
int cli_open(const struct cli *cli, const char *path, unsigned int flags, struct store **ret_store);
/* emdb_open(), with the secret when one is needed; nothing is printed of what the result says. */
emdb_err cli_db_open(const struct cli *cli, const char *path, struct emdb_options *options,
		     emdb_db **ret_db);
/*
 * Opens what is to be read while it changes, a store, or a snapshot or backup, which does not: *ret_frozen,
 * and no store.  Returns CLI_OK or, with the message printed, the exit code.
 */
int cli_open_source(const struct cli *cli, const char *path, struct store **ret_store,
		    emdb_db **ret_frozen);
/* Opens it for reading, as the option OPT_SALVAGE says. */
int cli_open_read(const struct cli *cli, const struct cli_args *args, const char *path,
		  struct store **ret_store);
/* Closes it; returns code, or a failure when code was CLI_OK and closing failed. */
int cli_close(const struct cli *cli, const char *path, struct store *store, int code);
/* "process 12 on host since when", what is known of it. */
void cli_holder_text(const struct emdb_lock_info *info, char *buf, size_t size);

/* ---- PATH arguments ---- */

/* The option that every command with a PATH has. */
#define OPT_ESCAPED                                                                         \
	{                                                                                   \
		'x', "escaped", NULL, "%HH in PATH stands for a byte: %2F is a / in a name" \
	}

/* The option of commands that only read: what is left of a damaged store. */
#define OPT_SALVAGE (OPT_LONG_ONLY + 100)
#define OPT_SALVAGE_ENTRY                                                            \
	{                                                                            \
		OPT_SALVAGE, "salvage", NULL, "read what is left of a damaged store" \
	}

/* Reads text as a path, escaped if option -x says so; CLI_OK or a failure, told. */
int cli_path(const struct cli *cli, const struct cli_args *args, const char *text,
	     struct path *ret_path);
/* The same for a path that names something: not the root. */
int cli_name_path(const struct cli *cli, const struct cli_args *args, const char *text,
		  struct path *ret_path);
/* The namespace of the path's last name; with create, missing ones are made. */
emdb_err cli_parent(struct store *store, const struct path *path, bool create, uint64_t *ret_ns);
/* The last name of a path that is not the root. */
const struct path_name *cli_last(const struct path *path);

#endif
