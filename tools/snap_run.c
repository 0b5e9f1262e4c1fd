/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot run: a snapshot for the time of one command, mounted at a path that
 * is the same every time, as backup programs want it.
 *
 * The store is not held open meanwhile.  A signal that ends the command does
 * not end us: what was made is removed first.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/snapshot.h"
#include "tools/unlock.h"

#define CLI_CANNOT_RUN  126
#define CLI_NO_COMMAND  127
#define UNMOUNT_TRIES   50
#define UNMOUNT_WAIT_MS 100

struct run {
	struct cli *cli;
	const char *path; /* the store, as given */
	char *dir, *snapshot, *mountpoint, *daemon;
	char name[SNAP_OWN_NAME];
	bool made_dir;
};

/* ---- Programs ---- */

/* Runs it and waits: its exit code, as a shell gives it. */
static int spawn(char *const argv[], bool quiet)
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid == -1)
		return CLI_CANNOT_RUN;
	if (pid == 0) {
		(void)signal(SIGINT, SIG_DFL);
		(void)signal(SIGTERM, SIG_DFL);
		(void)signal(SIGPIPE, SIG_DFL);
		if (quiet &&
		    (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)))
			_exit(CLI_CANNOT_RUN);
		(void)execvp(argv[0], argv);
		_exit(errno == ENOENT ? CLI_NO_COMMAND : CLI_CANNOT_RUN);
	}
	while (waitpid(pid, &status, 0) == -1)
		if (errno != EINTR)
			return CLI_CANNOT_RUN;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The daemon beside this program, else the one in PATH. */
static char *find_daemon(void)
{
	char self[4096], *path = NULL;
	const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash) {
			*slash = '\0';
			if (asprintf(&path, "%s/emdbfs", self) < 0)
				return NULL;
			if (access(path, X_OK) == 0)
				return path;
			free(path);
		}
	}
	return strdup("emdbfs");
}

/* ---- The steps ---- */

static int take(struct run *r)
{
	struct emdb_snapshot made;
	struct store *store = NULL;
	emdb_err err;
	int code;

	code = cli_open(r->cli, r->path, 0, &store);
	if (code)
		return code;
	err = store_snapshot_create(store, r->name, &made);
	if (err)
		code = cli_fail_err(r->cli, err, r->path);
	return cli_close(r->cli, r->path, store, code);
}

static int drop(struct run *r, int code)
{
	struct store *store = NULL;
	emdb_err err;
	int failed;

	failed = cli_open(r->cli, r->path, 0, &store);
	if (failed)
		return code ? code : failed;
	err = store_snapshot_delete(store, r->name);
	if (err) {
		cli_warn(r->cli, "%s: %s", r->name, emdb_strerror(err));
		code = code ? code : CLI_FAILED;
	}
	return cli_close(r->cli, r->path, store, code);
}

/* In an option a comma ends the value unless a backslash is in front. */
static char *keyfile_option(const char *file)
{
	char *const text = malloc(2 * strlen(file) + sizeof("ro,keyfile="));
	char *to = text ? stpcpy(text, "ro,keyfile=") : NULL;

	for (; to && *file; file++) {
		if (*file == ',' || *file == '\\')
			*to++ = '\\';
		*to++ = *file;
	}
	if (to)
		*to = '\0';
	return text;
}

/*
 * How the daemon gets the secret that opened the store, if one was needed: by a descriptor, *ret_fd,
 * with the passphrase in it, or by the name of the key's file.  Free with free(); NULL: failed, told.
 */
static char *mount_options(const struct run *r, int *ret_fd)
{
	const struct unlock *const u = r->cli->unlock;
	char *text = NULL;
	int fds[2], n;

	if (!u->have)
		return strdup("ro"); /* it asks by itself, should it need to */
	if (u->recovery) {
		(void)cli_fail(r->cli, CLI_USAGE, "a snapshot is not mounted with a recovery key");
		return NULL;
	}
	if (u->held.raw)
		return keyfile_option(u->source.keyfile);
	if (pipe(fds) == -1)
		return NULL;
	/* It fits a pipe's buffer: nobody is waited for. */
	n = (int)write(fds[1], u->held.data, u->held.len);
	(void)close(fds[1]);
	*ret_fd = fds[0];
	return n != (int)u->held.len || asprintf(&text, "ro,passfd=%d", fds[0]) < 0 ? NULL : text;
}

static int spawn_mount(struct run *r)
{
	int fd = -1, code = CLI_FAILED;
	char *const options = mount_options(r, &fd);
	char o[] = "-o";
	char *const argv[] = { r->daemon, o, options, r->snapshot, r->mountpoint, NULL };

	if (options)
		code = spawn(argv, false);
	free(options);
	if (fd != -1)
		(void)close(fd);
	return code;
}

static int mount_it(struct run *r)
{
	int code;

	r->made_dir = mkdir(r->mountpoint, 0700) == 0;
	if (!r->made_dir && errno != EEXIST)
		return cli_fail(r->cli, CLI_FAILED, "%s: %s", r->mountpoint, strerror(errno));
	code = spawn_mount(r);
	if (code == CLI_NO_COMMAND)
		return cli_fail(r->cli, CLI_FAILED, "no emdbfs beside emdb nor in PATH");
	return code ? cli_fail(r->cli, CLI_FAILED, "%s: cannot mount the snapshot", r->mountpoint)
		    : CLI_OK;
}

/* Somebody may still look at it for a moment; who stays longer keeps it, unnamed. */
static int unmount_it(struct run *r, int code)
{
	char program[] = "fusermount3", u[] = "-u", uz[] = "-uz";
	char *const argv[] = { program, u, r->mountpoint, NULL };
	char *const lazy[] = { program, uz, r->mountpoint, NULL };
	const struct timespec pause = { .tv_nsec = UNMOUNT_WAIT_MS * 1000000L };
	int tries, failed = 1;

	for (tries = 0; failed && tries < UNMOUNT_TRIES; tries++) {
		if (tries)
			(void)nanosleep(&pause, NULL);
		failed = spawn(argv, true);
	}
	if (failed)
		failed = spawn(lazy, false);
	if (failed) {
		cli_warn(r->cli, "%s: cannot unmount", r->mountpoint);
		return code ? code : CLI_FAILED;
	}
	return code;
}

/* The word with each {} replaced; NULL: out of memory. */
static char *replaced(const char *word, const char *path)
{
	const size_t path_len = strlen(path);
	size_t n = strlen(word) + 1;
	const char *at;
	char *out, *to;

	for (at = strstr(word, "{}"); at; at = strstr(at + 2, "{}"))
		n += path_len;
	out = to = malloc(n);
	while (out && (at = strstr(word, "{}"))) {
		memcpy(to, word, (size_t)(at - word));
		to += at - word;
		memcpy(to, path, path_len);
		to += path_len;
		word = at + 2;
	}
	if (out)
		memcpy(to, word, strlen(word) + 1);
	return out;
}

static void words_free(char **words)
{
	int i;

	for (i = 0; words && words[i]; i++)
		free(words[i]);
	free(words);
}

static char **command_of(const struct cli_args *args, const char *path)
{
	const int n = args->argc - 2;
	char **const argv = calloc((size_t)n + 1, sizeof(char *));
	int i;

	for (i = 0; argv && i < n; i++) {
		argv[i] = replaced(args->argv[i + 2], path);
		if (!argv[i]) {
			words_free(argv);
			return NULL;
		}
	}
	return argv;
}

static int run_command(struct run *r, const struct cli_args *args)
{
	char **const argv = command_of(args, r->mountpoint);
	int code;

	if (!argv || setenv("EMDB_SNAPSHOT_PATH", r->mountpoint, 1)) {
		code = cli_fail_err(r->cli, EMDB_ERR_NOMEM, r->path);
	} else {
		code = spawn(argv, false);
		if (code == CLI_NO_COMMAND || code == CLI_CANNOT_RUN)
			cli_warn(r->cli, "%s: cannot run it", argv[0]);
	}
	words_free(argv);
	return code;
}

static bool prepare(struct run *r, const char *mountpoint)
{
	char *const dir = store_directory(r->path);
	size_t n;

	snap_own_name("run", r->name);
	r->dir = dir ? realpath(dir, NULL) : NULL;
	free(dir);
	if (!r->dir)
		return false;
	n = strlen(r->dir);
	r->daemon = find_daemon();
	if (mountpoint)
		r->mountpoint = strdup(mountpoint);
	else if (asprintf(&r->mountpoint, "%.*s.snapshot", (int)n, r->dir) < 0)
		r->mountpoint = NULL;
	if (asprintf(&r->snapshot, "%s/snapshots/%s", r->dir, r->name) < 0)
		r->snapshot = NULL;
	return r->daemon && r->mountpoint && r->snapshot;
}

int snap_run(struct cli *cli, const struct cli_args *args)
{
	struct run r = { .cli = cli, .path = args->argv[1] };
	int code;

	/* From the terminal they go to the command as well, and it is waited for. */
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	if (prepare(&r, args_value(args, SNAP_PATH)))
		code = take(&r);
	else
		code = cli_fail(cli, CLI_NO_STORE, "%s: %s", r.path, strerror(errno));
	if (!code) {
		code = mount_it(&r);
		if (!code) {
			(void)out_flush(cli->out);
			code = run_command(&r, args);
			code = unmount_it(&r, code);
		}
		if (r.made_dir)
			(void)rmdir(r.mountpoint);
		code = drop(&r, code);
	}
	free(r.dir);
	free(r.snapshot);
	free(r.mountpoint);
	free(r.daemon);
	return code;
}
