/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/mounts.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOUNTINFO "/proc/self/mountinfo"

/* One line of /proc/self/mountinfo; the strings point into it. */
struct line {
	struct mount_entry entry;
	char *path;
	char *source;
};

/* Undoes the octal escapes of mountinfo in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/*
 * Format: id parent major:minor root path options [tags...] - type source
 * options.  Cuts the line into its words.
 */
static bool parse_line(char *text, struct line *ret)
{
	char *save = NULL;
	char *word = strtok_r(text, " \n", &save);
	const char *type;

	for (int i = 0; word != NULL && i < 5; i++, word = strtok_r(NULL, " \n", &save)) {
		if (i == 0)
			ret->entry.id = (int)strtol(word, NULL, 10);
		if (i == 4)
			ret->path = word;
	}
	while (word != NULL && strcmp(word, "-") != 0)
		word = strtok_r(NULL, " \n", &save);
	type = strtok_r(NULL, " \n", &save);
	ret->source = strtok_r(NULL, " \n", &save);
	if (word == NULL || type == NULL || ret->source == NULL)
		return false;
	ret->entry.ours = strcmp(type, MOUNTS_TYPE) == 0;
	unescape(ret->path);
	unescape(ret->source);
	return true;
}

/* Hands every mount to fn, in the order of mounting, until it returns true. */
static bool each_mount(const char *file, bool (*fn)(void *ctx, const struct line *line), void *ctx)
{
	FILE *f = fopen(file, "re");
	char *text = NULL;
	size_t size = 0;
	bool found = false;

	if (f == NULL)
		return false;
	while (!found && getline(&text, &size, f) > 0) {
		struct line line = { 0 };

		if (parse_line(text, &line))
			found = fn(ctx, &line);
	}
	free(text);
	(void)fclose(f);
	return found;
}

struct at {
	const char *path;
	struct mount_entry *ret;
	bool found;
};

/* Later ones cover earlier ones, hence the last match counts. */
static bool match_path(void *ctx, const struct line *line)
{
	struct at *at = ctx;

	if (strcmp(line->path, at->path) == 0) {
		*at->ret = line->entry;
		at->found = true;
	}
	return false;
}

bool mounts_at(const char *path, struct mount_entry *ret)
{
	struct at at = { path, ret, false };

	(void)each_mount(MOUNTINFO, match_path, &at);
	return at.found;
}

static bool match_source(void *ctx, const struct line *line)
{
	return line->entry.ours && strcmp(line->source, ctx) == 0;
}

/* True also when the process is gone. */
static bool is_daemon(int64_t pid)
{
	char path[64], name[32] = "";
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%" PRId64 "/comm", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return true;
	if (fgets(name, sizeof(name), f) != NULL)
		name[strcspn(name, "\n")] = '\0';
	(void)fclose(f);
	return strcmp(name, MOUNTS_SUBTYPE) == 0 || strncmp(name, "mount.", 6) == 0;
}

bool mounts_closing(int64_t pid, const char *store)
{
	char path[64];
	char *copy;
	bool serves;

	if (!is_daemon(pid))
		return false;
	copy = strdup(store);
	if (copy == NULL)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%" PRId64 "/mountinfo", pid);
	serves = each_mount(path, match_source, copy);
	free(copy);
	return !serves;
}

/* Runs fusermount3; the child must not inherit the signals that we have blocked. */
static bool run_fusermount(const char *path, bool lazy)
{
	static char program[] = "fusermount3", quiet[] = "-q", unmount[] = "-u", detach[] = "-z";
	static char end[] = "--";
	extern char **environ;
	posix_spawnattr_t attr;
	char *copy = strdup(path);
	char *argv[] = { program, quiet, unmount, end, copy, NULL, NULL };
	sigset_t none;
	pid_t pid;
	int status = -1;

	if (copy == NULL)
		return false;
	if (lazy) {
		argv[3] = detach;
		argv[4] = end;
		argv[5] = copy;
	}
	(void)sigemptyset(&none);
	if (posix_spawnattr_init(&attr) == 0) {
		(void)posix_spawnattr_setsigmask(&attr, &none);
		(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
		if (posix_spawnp(&pid, program, NULL, &attr, argv, environ) == 0)
			while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
				;
		(void)posix_spawnattr_destroy(&attr);
	}
	free(copy);
	errno = EBUSY;
	return status == 0;
}

bool mounts_remove(const char *path, bool lazy)
{
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return true;
	return errno == EPERM && run_fusermount(path, lazy);
}
