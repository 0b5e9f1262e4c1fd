/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/log.h"

/* The waiting side: the child's one byte, or its death, decides our exit code. */
static __attribute__((noreturn)) void wait_for(int fd, pid_t child)
{
	uint8_t code = 1;
	ssize_t n;
	int status;

	do {
		n = read(fd, &code, 1);
	} while (n == -1 && errno == EINTR);
	if (n != 1) {
		code = 1;
		if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
			log_error("the daemon was killed by signal %d while starting",
				  WTERMSIG(status));
		else
			log_error("the daemon ended while starting");
	}
	_exit(code);
}

bool daemon_fork(struct daemon *d, bool foreground)
{
	int fds[2];
	pid_t pid;

	d->pipe = -1;
	if (foreground)
		return true;
	if (pipe2(fds, O_CLOEXEC) == -1)
		return false;
	pid = fork();
	if (pid > 0) {
		(void)close(fds[1]);
		wait_for(fds[0], pid);
	}
	(void)close(fds[0]);
	if (pid == -1) {
		(void)close(fds[1]);
		return false;
	}
	d->pipe = fds[1];
	return true;
}

static void report(struct daemon *d, int code)
{
	const uint8_t byte = (uint8_t)code;
	ssize_t n;

	do {
		n = write(d->pipe, &byte, 1);
	} while (n == -1 && errno == EINTR);
	(void)close(d->pipe);
	d->pipe = -1;
}

/* The session leader is new, so that a hang-up of the terminal does not reach us. */
static void leave_terminal(void)
{
	const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)setsid();
	if (chdir("/") == -1)
		log_warn("cannot change to /: %s", strerror(errno));
	log_to_syslog();
	if (fd == -1)
		return;
	for (int i = 0; i < 3; i++)
		(void)dup2(fd, i);
	if (fd > 2)
		(void)close(fd);
}

static void notify_manager(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t n;
	int fd;

	if (path == NULL || (path[0] != '/' && path[0] != '@'))
		return;
	n = strlen(path);
	if (n >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, n);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return;
	(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&addr,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	(void)close(fd);
}

void daemon_ready(struct daemon *d)
{
	char state[64];

	(void)snprintf(state, sizeof(state), "READY=1\nMAINPID=%ld", (long)getpid());
	notify_manager(state);
	if (d->pipe == -1)
		return;
	leave_terminal();
	report(d, 0);
}

void daemon_failed(struct daemon *d, int code)
{
	if (d->pipe != -1)
		report(d, code);
}

void daemon_stopping(void)
{
	notify_manager("STOPPING=1");
}
