/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb: the command line of a store.
 *
 * Here: the table of commands, taking a command line apart by that table, and
 * the help, which is printed from the same table and so cannot differ from
 * what is accepted.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"
#include "tools/unlock.h"

static const struct cli_command *const commands[] = {
	&cmd_init,     &cmd_put,     &cmd_get,     &cmd_del,        &cmd_ls,
	&cmd_mkns,     &cmd_rmns,    &cmd_ttl,     &cmd_sweep,      &cmd_stat,
	&cmd_lock,     &cmd_check,   &cmd_flush,   &cmd_checkpoint, &cmd_compact,
	&cmd_snapshot, &cmd_backup,  &cmd_export,  &cmd_import,     &cmd_restore,
	&cmd_key,      &cmd_encrypt, &cmd_decrypt, &cmd_repair,     &cmd_scrub,
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static const struct cli_command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

/* ---- Help ---- */

static const char exit_codes[] =
	"Exit status: 0 done, 1 failed, 2 usage, 3 some of several items failed,\n"
	"10 no store there, 11 the store is in use, 12 wrong passphrase or key, 22 empty\n"
	"passphrase, 26 check or scrub found errors, 130 cancelled.\n";

static void print_usage(struct out *out)
{
	size_t i;

	out_str(out, "Usage: emdb COMMAND [OPTIONS] STORE [ARGUMENTS]\n\nCommands:\n");
	for (i = 0; i < COMMANDS; i++)
		out_printf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	out_str(out,
		"\nSTORE is the directory of a store, or where it is mounted.\n"
		"emdb COMMAND --help says more.\n"
		"EMDBFS_PROGRESS_FPS=N makes long commands say how far they are, N times a second,\n"
		"in logs too; SIGUSR1 brings one line.\n");
	out_str(out, exit_codes);
}

static void print_option(struct out *out, const struct cli_opt *opt)
{
	char left[64];

	if (opt->key < OPT_LONG_ONLY)
		(void)snprintf(left, sizeof(left), "-%c, --%s", opt->key, opt->name);
	else
		(void)snprintf(left, sizeof(left), "    --%s %s", opt->name,
			       opt->arg ? opt->arg : "");
	out_printf(out, "  %-24s %s\n", left, opt->help);
}

static void print_help(struct out *out, const struct cli_command *cmd)
{
	const struct cli_opt help = { .key = 'h', .name = "help", .help = "show this text" };
	size_t i;

	out_printf(out, "Usage: emdb %s %s\n\n%c%s.\n", cmd->name, cmd->synopsis,
		   toupper((unsigned char)cmd->summary[0]), cmd->summary + 1);
	if (cmd->details)
		out_printf(out, "\n%s", cmd->details);
	out_str(out, "\nOptions:\n");
	for (i = 0; cmd->opts[i].key; i++)
		print_option(out, &cmd->opts[i]);
	print_option(out, &help);
	out_str(out, "\nFor encrypted stores, without which the passphrase is asked for:\n");
	for (i = 0; i < UNLOCK_OPTS; i++)
		print_option(out, &unlock_opts[i]);
}

/* ---- Command lines ---- */

/* The table in the form of getopt_long(3); options with a short form take no value. */
struct getopt_tables {
	struct option longs[OPT_MAX + UNLOCK_OPTS + 2];
	char shorts[2 * OPT_MAX + 4];
};

static struct option getopt_long_of(const struct cli_opt *opt)
{
	return (struct option){ opt->name, opt->arg ? required_argument : no_argument, NULL,
				opt->key };
}

static void getopt_tables_init(struct getopt_tables *t, const struct cli_opt *opts)
{
	size_t i, longs = 0, shorts = 0;

	t->shorts[shorts++] = ':'; /* a missing value is told apart from an unknown option */
	t->shorts[shorts++] = 'h';
	t->longs[longs++] = (struct option){ "help", no_argument, NULL, 'h' };
	for (i = 0; opts[i].key && i < OPT_MAX; i++) {
		t->longs[longs++] = getopt_long_of(&opts[i]);
		if (opts[i].key < OPT_LONG_ONLY)
			t->shorts[shorts++] = (char)opts[i].key;
	}
	for (i = 0; i < UNLOCK_OPTS; i++)
		t->longs[longs++] = getopt_long_of(&unlock_opts[i]);
	t->longs[longs] = (struct option){ NULL, 0, NULL, 0 };
	t->shorts[shorts] = '\0';
}

/* The option as the help calls it; NULL: not in the table. */
static const char *option_name(const struct cli_opt *opts, int key, char buf[static 32])
{
	const struct cli_opt *const tables[] = { opts, unlock_opts };
	size_t i;

	for (i = 0; i < 2; i++) {
		for (opts = tables[i]; opts->key; opts++) {
			if (opts->key != key)
				continue;
			(void)snprintf(buf, 32, "--%s", opts->name);
			return buf;
		}
	}
	return key == 'h' ? "--help" : NULL;
}

/*
 * getopt_long() leaves in optopt 0 for a long option that it does not know,
 * the letter of a short one, the key of one that was used wrongly.
 */
static int fail_option(const struct cli *cli, const struct cli_command *cmd, int c, char **argv)
{
	char buf[32], letter[] = { '-', (char)optopt, '\0' };
	const char *const known = option_name(cmd->opts, optopt, buf);

	if (known)
		return cli_fail(cli, CLI_USAGE, "option %s %s", known,
				c == ':' ? "needs a value" : "takes no value");
	return cli_fail(cli, CLI_USAGE, "unknown option %s (see: emdb %s --help)",
			optopt ? letter : argv[optind - 1], cmd->name);
}

static bool is_unlock(int key)
{
	size_t i;

	for (i = 0; i < UNLOCK_OPTS; i++)
		if (unlock_opts[i].key == key)
			return true;
	return false;
}

static void set_option(struct cli_args *args, int key)
{
	size_t i;

	for (i = 0; args->opts[i].key; i++) {
		if (args->opts[i].key == key) {
			args->set[i] = true;
			args->value[i] = optarg;
		}
	}
}

/* True: run the command; else *ret_code is what to exit with. */
static bool parse_args(struct cli *cli, const struct cli_command *cmd, int argc, char **argv,
		       struct cli_args *args, int *ret_code)
{
	struct getopt_tables tables;
	int c;

	getopt_tables_init(&tables, cmd->opts);
	*args = (struct cli_args){ .opts = cmd->opts };
	opterr = 0;
	while ((c = getopt_long(argc, argv, tables.shorts, tables.longs, NULL)) != -1) {
		if (c == 'h') {
			print_help(cli->out, cmd);
			*ret_code = CLI_OK;
			return false;
		}
		if (c == '?' || c == ':') {
			*ret_code = fail_option(cli, cmd, c, argv);
			return false;
		}
		if (is_unlock(c)) {
			*ret_code = unlock_option(cli, c, optarg);
			if (*ret_code)
				return false;
		}
		set_option(args, c);
	}
	args->argc = argc - optind;
	args->argv = argv + optind;
	if (args->argc >= cmd->args_min && args->argc <= cmd->args_max)
		return true;
	*ret_code = cli_fail(cli, CLI_USAGE, "%s arguments; usage: emdb %s %s",
			     args->argc < cmd->args_min ? "missing" : "too many", cmd->name,
			     cmd->synopsis);
	return false;
}

static int run_command(struct cli *cli, const struct cli_command *cmd, int argc, char **argv)
{
	struct cli_args args;
	int code;

	cli->command = cmd->name;
	if (!parse_args(cli, cmd, argc, argv, &args, &code))
		return code;
	return cmd->run(cli, &args);
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
	const char *const word = argc > 1 ? argv[1] : NULL;
	const struct cli_command *cmd;

	if (!word)
		return cli_fail(cli, CLI_USAGE, "no command given (see: emdb --help)");
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		out_str(cli->out, "emdb " EMDB_VERSION_STRING "\n");
		return CLI_OK;
	}
	cmd = find_command(word);
	if (cmd)
		return run_command(cli, cmd, argc - 1, argv + 1);
	if (strcmp(word, "--help") != 0 && strcmp(word, "-h") != 0 && strcmp(word, "help") != 0)
		return cli_fail(cli, CLI_USAGE, "unknown %s %s (see: emdb --help)",
				*word == '-' ? "option" : "command", word);
	cmd = argc > 2 ? find_command(argv[2]) : NULL;
	if (argc > 2 && !cmd)
		return cli_fail(cli, CLI_USAGE, "unknown command %s (see: emdb --help)", argv[2]);
	if (cmd)
		print_help(cli->out, cmd);
	else
		print_usage(cli->out);
	return CLI_OK;
}

/* ---- The process ---- */

/*
 * A store may be left at any instruction, so there is nothing to tidy up; what
 * was acknowledged so far stays.
 */
static void on_interrupt(int sig)
{
	static const char text[] = "emdb: cancelled\n";
	ssize_t n;

	(void)sig;
	n = write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)n;
	_exit(CLI_CANCELLED);
}

static void set_signals(void)
{
	struct sigaction act;

	memset(&act, 0, sizeof(act));
	act.sa_handler = on_interrupt;
	(void)sigaction(SIGINT, &act, NULL);
	/* A closed pipe is an error of write(2): the store is closed properly. */
	act.sa_handler = SIG_IGN;
	(void)sigaction(SIGPIPE, &act, NULL);
}

/* Installed under that name, too. */
static bool is_fsck(const char *name)
{
	const char *const base = strrchr(name, '/');

	return strcmp(base ? base + 1 : name, "fsck.emdbfs") == 0;
}

int main(int argc, char **argv)
{
	struct out out;
	struct unlock unlock = UNLOCK_INIT;
	struct cli cli = { .command = "", .out = &out, .unlock = &unlock };
	int code, err;

	set_signals();
	out_init(&out, STDOUT_FILENO);
	code = is_fsck(argc > 0 ? argv[0] : "") ? cmd_fsck(&cli, argc, argv)
						: dispatch(&cli, argc, argv);
	unlock_release(&unlock);
	err = out_flush(&out);
	/* Nobody reads a message about a reader that left; the status says it. */
	if (err && err != EPIPE)
		(void)cli_fail(&cli, CLI_FAILED, "standard output: %s", strerror(err));
	return err && code == CLI_OK ? CLI_FAILED : code;
}
