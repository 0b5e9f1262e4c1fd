/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/paths.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fuse/log.h"
#include "fuse/mounts.h"

/*
 * The real path of something whose last part need not exist or answer.
 * NULL: errno.
 */
static char *resolve_parent(const char *path)
{
	char *copy = strdup(path);
	char *dir = NULL, *ret = NULL;
	char *base;
	size_t n;

	if (copy == NULL)
		return NULL;
	n = strlen(copy);
	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = '\0';
	base = strrchr(copy, '/');
	if (base == NULL) {
		dir = realpath(".", NULL);
		base = copy;
	} else {
		*base++ = '\0';
		dir = realpath(copy[0] == '\0' ? "/" : copy, NULL);
	}
	if (strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
		errno = ENOENT;
	else if (dir != NULL && asprintf(&ret, "%s/%s", dir[1] == '\0' ? "" : dir, base) == -1)
		ret = NULL;
	free(dir);
	free(copy);
	return ret;
}

static char *resolve_store(const char *path)
{
	char *real = realpath(path, NULL);

	if (real == NULL && errno == ENOENT)
		real = resolve_parent(path);
	if (real == NULL)
		log_error("%s: %s", path, strerror(errno));
	return real;
}

/* stat(2) alone may be answered out of the kernel's caches long after the daemon died. */
static bool is_dead(const char *path)
{
	struct statvfs v;
	struct stat st;

	return (stat(path, &st) == -1 || statvfs(path, &v) == -1) &&
	       (errno == ENOTCONN || errno == ECONNABORTED);
}

/* Its daemon died; the kernel answers ENOTCONN for it until somebody takes it away. */
static char *revive(const char *path)
{
	char *real = resolve_parent(path);
	struct mount_entry mount;

	if (real == NULL) {
		log_error("%s: %s", path, strerror(errno));
		return NULL;
	}
	if (!mounts_at(real, &mount) || !mount.ours) {
		log_error("%s: a dead mount that is not ours", real);
	} else if (!mounts_remove(real, true)) {
		log_error("%s: cannot remove the dead mount: %s", real, strerror(errno));
	} else {
		log_warn("%s: removed the dead mount of an earlier daemon", real);
		return real;
	}
	free(real);
	return NULL;
}

static char *resolve_mountpoint(const char *path)
{
	struct stat st;
	char *real;

	if (is_dead(path)) {
		real = revive(path);
		if (real == NULL)
			return NULL;
	} else {
		real = realpath(path, NULL);
	}
	if (real == NULL || stat(real, &st) == -1) {
		log_error("mountpoint %s: %s", path, strerror(errno));
	} else if (!S_ISDIR(st.st_mode)) {
		log_error("mountpoint %s: %s", path, strerror(ENOTDIR));
	} else {
		return real;
	}
	free(real);
	return NULL;
}

/* True if b is a or below it. */
static bool contains(const char *a, const char *b)
{
	const size_t n = strlen(a);

	return strncmp(a, b, n) == 0 && (b[n] == '\0' || b[n] == '/' || n == 1);
}

static bool is_empty(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	bool empty = true;

	if (d == NULL) {
		log_error("mountpoint %s: %s", path, strerror(errno));
		return false;
	}
	while (empty && (e = readdir(d)) != NULL)
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	(void)closedir(d);
	if (!empty)
		log_error("mountpoint %s is not empty; -o nonempty mounts over what is there",
			  path);
	return empty;
}

static bool can_mount(void)
{
	if (access("/dev/fuse", R_OK | W_OK) == 0)
		return true;
	log_error("/dev/fuse: %s", strerror(errno));
	return false;
}

bool paths_init(struct paths *p, const struct options *o)
{
	p->mountpoint = resolve_mountpoint(o->mountpoint);
	if (p->mountpoint == NULL)
		return false;
	p->store = resolve_store(o->store);
	if (p->store == NULL)
		return false;
	if (contains(p->store, p->mountpoint) || contains(p->mountpoint, p->store)) {
		log_error("the mountpoint %s and the store %s must not contain each other",
			  p->mountpoint, p->store);
		return false;
	}
	return (o->nonempty || is_empty(p->mountpoint)) && can_mount();
}

void paths_release(struct paths *p)
{
	free(p->store);
	free(p->mountpoint);
	p->store = NULL;
	p->mountpoint = NULL;
}
