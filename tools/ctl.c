/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* What /proc/self/mountinfo calls our mounts. */
#define MOUNT_TYPE "fuse.emdbfs"
/* Longest that a daemon may take to say hello, s. */
#define HELLO_S 20

/* ---- Talking ---- */

static emdb_err lose(struct ctl *ctl)
{
	ctl->lost = true;
	return EMDB_ERR_IO;
}

static bool send_all(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		const ssize_t done = send(fd, p, n, MSG_NOSIGNAL);

		if (done == -1 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

static bool recv_all(int fd, uint8_t *p, size_t n)
{
	while (n > 0) {
		const ssize_t done = recv(fd, p, n, 0);

		if (done == -1 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

/* Room for n bytes in ctl->in. */
static bool reserve_in(struct ctl *ctl, size_t n)
{
	uint8_t *p;

	if (n <= ctl->in_cap)
		return true;
	p = realloc(ctl->in, n);
	if (!p)
		return false;
	ctl->in = p;
	ctl->in_cap = n;
	return true;
}

static emdb_err receive_one(struct ctl *ctl, struct ctl_msg *ret)
{
	unsigned int version;
	size_t rest;

	if (!reserve_in(ctl, CTL_HEADER))
		return EMDB_ERR_NOMEM;
	if (!recv_all(ctl->fd, ctl->in, CTL_HEADER))
		return lose(ctl);
	if (!ctl_parse_header(ctl->in, &rest, &version)) {
		ctl->lost = true;
		return version != CTL_VERSION ? EMDB_ERR_VERSION : EMDB_ERR_IO;
	}
	if (!reserve_in(ctl, CTL_HEADER + rest)) {
		ctl->lost = true;
		return EMDB_ERR_NOMEM;
	}
	if (!recv_all(ctl->fd, ctl->in + CTL_HEADER, rest) ||
	    !ctl_decode(ctl->in, CTL_HEADER + rest, CTL_ANSWER, ret))
		return lose(ctl);
	return EMDB_OK;
}

static emdb_err receive(struct ctl *ctl, uint8_t op, struct ctl_msg *ret)
{
	struct ctl_msg m;
	emdb_err err;

	while (!(err = receive_one(ctl, &m)) && m.op == CTL_PROGRESS && op != CTL_PROGRESS &&
	       ctl->progress && !m.err)
		(void)ctl->progress(ctl->progress_ctx, m.num[0], m.num[1]);
	if (err)
		return err;
	if (m.op != op)
		return lose(ctl);
	if (m.err)
		(void)snprintf(ctl->remark, sizeof(ctl->remark), "%.*s", (int)m.str[0].n,
			       (const char *)m.str[0].p);
	else
		*ret = m;
	return m.err;
}

emdb_err ctl_call(struct ctl *ctl, const struct ctl_msg *request, struct ctl_msg *ret_answer)
{
	ctl->remark[0] = '\0';
	if (ctl->lost)
		return EMDB_ERR_IO;
	/* All but the data of WRITE begins with a key or name. */
	if (request->op != CTL_WRITE && request->str[0].n > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	if (!ctl_encode(&ctl->out, CTL_REQUEST, request))
		return EMDB_ERR_NOMEM;
	/* A daemon that ends the connection may have said why before. */
	if (!send_all(ctl->fd, ctl->out.data, ctl->out.len) && errno != EPIPE &&
	    errno != ECONNRESET)
		return lose(ctl);
	return receive(ctl, request->op, ret_answer);
}

emdb_err ctl_watch(struct ctl *ctl, emdb_progress_fn fn, void *ctx)
{
	const struct ctl_msg m = { .op = CTL_PROGRESS };
	struct ctl_msg answer;
	const emdb_err err = ctl_call(ctl, &m, &answer);

	ctl->progress = err ? NULL : fn;
	ctl->progress_ctx = ctx;
	return err && ctl->lost ? EMDB_ERR_NOT_FOUND : err;
}

emdb_err ctl_more(struct ctl *ctl, uint8_t op, struct ctl_msg *ret_answer)
{
	return ctl->lost ? EMDB_ERR_IO : receive(ctl, op, ret_answer);
}

/* ---- Connecting ---- */

static void set_timeouts(int fd, time_t seconds)
{
	const struct timeval t = { .tv_sec = seconds };

	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
}

static emdb_err err_of_errno(int code)
{
	switch (code) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		return EMDB_ERR_NOT_FOUND;
	case EACCES:
	case EPERM:
		return EMDB_ERR_PERM;
	case EAGAIN:
		return EMDB_ERR_BUSY;
	case ENOMEM:
		return EMDB_ERR_NOMEM;
	default:
		return EMDB_ERR_IO;
	}
}

/* A socket's path has 108 bytes, so it is reached through the directory's descriptor. */
static emdb_err connect_in(int dir, int fd)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/" CTL_SOCKET, dir);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == -1)
		return err_of_errno(errno);
	return EMDB_OK;
}

static emdb_err say_hello(struct ctl *ctl)
{
	const struct ctl_msg hello = { .op = CTL_HELLO };
	struct ctl_msg answer;
	const emdb_err err = ctl_call(ctl, &hello, &answer);

	/* It hung up on us: it is about to leave. */
	if (err == EMDB_ERR_IO && ctl->lost)
		return EMDB_ERR_NOT_FOUND;
	if (err)
		return err;
	if (answer.str[0].n != sizeof(ctl->uuid))
		return lose(ctl);
	ctl->pid = (int64_t)answer.num[0];
	memcpy(ctl->uuid, answer.str[0].p, sizeof(ctl->uuid));
	return EMDB_OK;
}

emdb_err ctl_connect(const char *store, struct ctl **ret_ctl)
{
	const int dir = open(store, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct ctl *ctl = NULL;
	emdb_err err;

	if (dir == -1)
		return err_of_errno(errno);
	ctl = calloc(1, sizeof(*ctl));
	if (!ctl) {
		err = EMDB_ERR_NOMEM;
		goto out;
	}
	ctl->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ctl->fd == -1) {
		err = err_of_errno(errno);
		goto out;
	}
	set_timeouts(ctl->fd, HELLO_S);
	err = connect_in(dir, ctl->fd);
	if (!err)
		err = say_hello(ctl);
	/* What comes now may take as long as it takes. */
	set_timeouts(ctl->fd, 0);
	if (!err) {
		*ret_ctl = ctl;
		ctl = NULL;
	}
out:
	ctl_close(ctl);
	(void)close(dir);
	return err;
}

void ctl_close(struct ctl *ctl)
{
	if (!ctl)
		return;
	if (ctl->fd != -1)
		(void)close(ctl->fd);
	ctl_buf_release(&ctl->out);
	free(ctl->in);
	free(ctl);
}

/* ---- Mounts ---- */

/* Undoes the \ooo that mountinfo writes for blanks, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
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

/* A mount that is wholly one of ours: where it is, and its store. */
struct mount {
	const char *path, *source; /* source is NULL for mounts of others */
};

/*
 * A line is: id, parent, device, root, mountpoint, options, optional fields,
 * "-", type, source, super options.
 */
static bool read_mount(char *line, struct mount *ret)
{
	char *rest = NULL, *field = strtok_r(line, " \n", &rest);
	const char *type;
	bool whole = false;
	char *source;
	int i;

	for (i = 0; field && i < 4; i++) {
		whole = strcmp(field, "/") == 0;
		field = strtok_r(NULL, " \n", &rest);
	}
	if (!field)
		return false;
	unescape(field);
	ret->path = field;
	while (field && strcmp(field, "-") != 0)
		field = strtok_r(NULL, " \n", &rest);
	type = strtok_r(NULL, " \n", &rest);
	source = strtok_r(NULL, " \n", &rest);
	if (source)
		unescape(source);
	ret->source = whole && type && source && strcmp(type, MOUNT_TYPE) == 0 ? source : NULL;
	return true;
}

/* Both absolute; the last mount at a path counts. */
static char *find_store(FILE *f, const char *path)
{
	char *line = NULL, *found = NULL;
	struct mount m;
	size_t size = 0;

	while (getline(&line, &size, f) != -1) {
		if (!read_mount(line, &m) || strcmp(m.path, path) != 0)
			continue;
		free(found);
		found = m.source ? strdup(m.source) : NULL;
	}
	free(line);
	return found;
}

static bool find_mount(FILE *f, const char *store)
{
	char *line = NULL;
	bool found = false;
	struct mount m;
	size_t size = 0;

	while (!found && getline(&line, &size, f) != -1)
		found = read_mount(line, &m) && m.source && strcmp(m.source, store) == 0;
	free(line);
	return found;
}

char *ctl_store_of_mount(const char *path)
{
	FILE *const f = fopen("/proc/self/mountinfo", "re");
	char *const real = realpath(path, NULL);
	char *const found = f && real ? find_store(f, real) : NULL;

	free(real);
	if (f)
		(void)fclose(f);
	return found;
}

bool ctl_is_mounted(const char *store)
{
	FILE *const f = fopen("/proc/self/mountinfo", "re");
	char *const real = realpath(store, NULL);
	const bool found = f && real && find_mount(f, real);

	free(real);
	if (f)
		(void)fclose(f);
	return found;
}
