/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define CREDENTIAL "emdbfs.passphrase"

struct reader {
	char *error;
	struct secret *ret;
};

__attribute__((format(printf, 2, 3))) static enum secret_result fail(const struct reader *r,
								     const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(r->error, 256, format, ap);
	va_end(ap);
	return SECRET_FAILED;
}

/* ---- Bytes ---- */

static bool secret_alloc(struct secret *s)
{
	*s = (struct secret){ 0 };
	if (sodium_init() < 0)
		return false;
	s->data = sodium_malloc(SECRET_MAX + 2);
	return s->data != NULL;
}

void secret_free(struct secret *s)
{
	sodium_free(s->data);
	*s = (struct secret){ 0 };
}

/*
 * The first line of fd into the secret's memory, byte by byte: what comes behind it may be somebody
 * else's (a terminal, a pipe that is read on).
 */
static enum secret_result read_line(const struct reader *r, int fd, const char *what)
{
	struct secret *const s = r->ret;
	ssize_t n;

	for (s->len = 0; s->len <= SECRET_MAX; s->len++) {
		do {
			n = read(fd, s->data + s->len, 1);
		} while (n == -1 && errno == EINTR);
		if (n == -1)
			return fail(r, "%s: %s", what, strerror(errno));
		if (n == 0 || s->data[s->len] == '\n')
			break;
	}
	if (s->len > SECRET_MAX)
		return fail(r, "%s: the passphrase is longer than %u bytes", what, SECRET_MAX);
	if (s->len > 0 && s->data[s->len - 1] == '\r')
		s->len--;
	s->data[s->len] = '\0';
	if (s->len > 0)
		return SECRET_OK;
	(void)fail(r, "%s: the passphrase is empty", what);
	return SECRET_EMPTY;
}

static enum secret_result read_file(const struct reader *r, const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum secret_result result;

	if (fd == -1)
		return fail(r, "%s: %s", path, strerror(errno));
	result = read_line(r, fd, path);
	(void)close(fd);
	return result;
}

/* ---- Raw keys ---- */

static bool from_hex(struct secret *s)
{
	uint8_t key[SECRET_RAW_LEN];
	size_t n;
	bool ok;

	ok = sodium_hex2bin(key, sizeof(key), (const char *)s->data, s->len, NULL, &n, NULL) == 0 &&
	     n == sizeof(key);
	if (ok)
		memcpy(s->data, key, sizeof(key));
	sodium_memzero(key, sizeof(key));
	return ok;
}

static enum secret_result read_key(const struct reader *r, const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct secret *const s = r->ret;
	ssize_t n = 0;

	if (fd == -1)
		return fail(r, "%s: %s", path, strerror(errno));
	for (s->len = 0; s->len < SECRET_MAX; s->len += (size_t)n) {
		do {
			n = read(fd, s->data + s->len, SECRET_MAX - s->len);
		} while (n == -1 && errno == EINTR);
		if (n <= 0)
			break;
	}
	(void)close(fd);
	if (n == -1)
		return fail(r, "%s: %s", path, strerror(errno));
	s->raw = true;
	if (s->len == SECRET_RAW_LEN)
		return SECRET_OK;
	if (s->len == 2 * SECRET_RAW_LEN + 1 && s->data[s->len - 1] == '\n')
		s->len--;
	if (s->len != 2 * SECRET_RAW_LEN || !from_hex(s))
		return fail(r, "%s: a key file has 32 bytes or 64 hexadecimal digits", path);
	s->len = SECRET_RAW_LEN;
	return SECRET_OK;
}

/* ---- A command ---- */

/* What the shell did; its own words have gone to standard error. */
static enum secret_result reap(const struct reader *r, pid_t pid, enum secret_result result)
{
	int status = 0;

	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return result;
	/* It may have been killed by the pipe that was closed after its first line. */
	if (result == SECRET_OK && WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE)
		return result;
	return fail(r, "the passphrase command failed with %s %d",
		    WIFSIGNALED(status) ? "signal" : "status",
		    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static enum secret_result read_command(const struct reader *r, const char *command)
{
	enum secret_result result;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) == -1)
		return fail(r, "pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		sigset_t none;

		(void)sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		(void)signal(SIGPIPE, SIG_DFL);
		if (dup2(fds[1], STDOUT_FILENO) != -1)
			(void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	(void)close(fds[1]);
	if (pid == -1)
		result = fail(r, "fork: %s", strerror(errno));
	else
		result = read_line(r, fds[0], "the passphrase command");
	(void)close(fds[0]);
	return pid == -1 ? result : reap(r, pid, result);
}

/* ---- The terminal ---- */

/* One key at the prompt; true when the line is complete. */
static bool key(struct secret *s, const struct termios *t, uint8_t c, bool *ret_cancelled)
{
	*ret_cancelled = c == t->c_cc[VINTR] || c == t->c_cc[VQUIT];
	if (*ret_cancelled || c == '\n' || c == '\r' || c == t->c_cc[VEOF])
		return true;
	if (c == t->c_cc[VKILL])
		s->len = 0;
	else if (c == t->c_cc[VERASE])
		s->len -= s->len > 0;
	else if (s->len < SECRET_MAX)
		s->data[s->len++] = c;
	return false;
}

/*
 * Nothing is shown of what is typed.  Keys that send signals are read as keys, so that
 * nothing ends the process with the terminal left silent.
 */
static enum secret_result prompt(const struct reader *r, int tty, const char *text)
{
	struct termios old, quiet;
	bool cancelled = false;
	uint8_t c = 0;
	ssize_t n;

	if (tcgetattr(tty, &old) == -1)
		return fail(r, "the terminal: %s", strerror(errno));
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ISIG | ICANON);
	quiet.c_cc[VMIN] = 1;
	quiet.c_cc[VTIME] = 0;
	/* What was typed before goes; so the prompt comes after. */
	(void)tcsetattr(tty, TCSAFLUSH, &quiet);
	(void)!write(tty, text, strlen(text));
	r->ret->len = 0;
	do {
		n = read(tty, &c, 1);
	} while ((n == -1 && errno == EINTR) || (n == 1 && !key(r->ret, &old, c, &cancelled)));
	(void)tcsetattr(tty, TCSAFLUSH, &old);
	(void)!write(tty, "\n", 1);
	r->ret->data[r->ret->len] = '\0';
	if (cancelled) {
		(void)fail(r, "cancelled");
		return SECRET_CANCELLED;
	}
	if (n == -1)
		return fail(r, "the terminal: %s", strerror(errno));
	if (r->ret->len > 0)
		return SECRET_OK;
	(void)fail(r, "the passphrase is empty");
	return SECRET_EMPTY;
}

static enum secret_result ask_terminal(const struct reader *r, int tty,
				       const struct secret_ask *ask)
{
	struct secret again = { 0 };
	const struct reader second = { .error = r->error, .ret = &again };
	enum secret_result result;
	char text[512];

	const char *const kind = ask->twice      ? "New passphrase"
				 : ask->recovery ? "Recovery key"
						 : "Passphrase";
	(void)snprintf(text, sizeof(text), "%s for %s: ", kind, ask->what);
	result = prompt(r, tty, text);
	if (result != SECRET_OK || !ask->twice)
		return result;
	if (!secret_alloc(&again))
		return fail(r, "out of memory that can be locked");
	result = prompt(&second, tty, "The same again: ");
	if (result == SECRET_OK &&
	    (again.len != r->ret->len || sodium_memcmp(again.data, r->ret->data, again.len) != 0))
		result = fail(r, "the two passphrases differ");
	secret_free(&again);
	return result;
}

/* ---- Choosing ---- */

bool secret_source_ambiguous(const struct secret_source *source)
{
	return (source->keyfile != NULL) + (source->passfile != NULL) + (source->command != NULL) +
		       (source->fd != -1) >
	       1;
}

static const char *from_env(const char *name)
{
	const char *const value = getenv(name);

	return value != NULL && *value != '\0' ? value : NULL;
}

/* The file of systemd's credential; NULL: there is none. */
static const char *credential(char *buf, size_t size)
{
	const char *const dir = from_env("CREDENTIALS_DIRECTORY");

	if (dir == NULL || (size_t)snprintf(buf, size, "%s/" CREDENTIAL, dir) >= size)
		return NULL;
	return access(buf, F_OK) == 0 ? buf : NULL;
}

static enum secret_result choose(const struct reader *r, const struct secret_source *source,
				 const struct secret_ask *ask)
{
	const char *file = NULL, *command = NULL;
	char path[4096];
	enum secret_result result;
	int tty;

	if (source->keyfile != NULL)
		return read_key(r, source->keyfile);
	if (source->passfile != NULL)
		return read_file(r, source->passfile);
	if (source->command != NULL)
		return read_command(r, source->command);
	if (source->fd != -1)
		return read_line(r, source->fd, "the passphrase descriptor");
	if (!ask->no_env) {
		file = from_env("EMDBFS_PASSWORD_FILE");
		command = from_env("EMDBFS_PASSWORD_COMMAND");
		if (file == NULL && command == NULL)
			file = credential(path, sizeof(path));
	}
	if (file != NULL)
		return read_file(r, file);
	if (command != NULL)
		return read_command(r, command);
	tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (tty == -1)
		return read_line(r, STDIN_FILENO, "standard input");
	result = ask_terminal(r, tty, ask);
	(void)close(tty);
	return result;
}

/* Secrets and keys are in memory that is not dumped, but what they open is anywhere. */
static void no_dumps(void)
{
	(void)prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L);
}

enum secret_result secret_read(const struct secret_source *source, const struct secret_ask *ask,
			       struct secret *ret, char error[static 256])
{
	struct secret s;
	const struct reader r = { .error = error, .ret = &s };
	enum secret_result result;

	error[0] = '\0';
	no_dumps();
	if (!secret_alloc(&s))
		return fail(&r, "out of memory that can be locked (see ulimit -l)");
	result = choose(&r, source, ask);
	if (result == SECRET_OK)
		*ret = s;
	else
		secret_free(&s);
	return result;
}
