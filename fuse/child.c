/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Longer than any line of /proc/self/maps that matters; of longer ones the end is not looked at. */
#define LINE_BYTES 512

/* "start-end perms offset dev inode path" */
static void unmap_ring(char *line)
{
	char *end;
	uintptr_t from, to;

	if (strstr(line, "[io_uring]") == NULL)
		return;
	from = (uintptr_t)strtoull(line, &end, 16);
	if (*end != '-')
		return;
	to = (uintptr_t)strtoull(end + 1, NULL, 16);
	if (from < to)
		(void)munmap((void *)from, to - from);
}

/* Nothing here allocates: other threads may have held the allocator's locks at the fork. */
static void leave_rings(void)
{
	const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char line[LINE_BYTES + 1], buf[4096];
	size_t len = 0;
	ssize_t n;

	while (fd != -1 && ((n = read(fd, buf, sizeof(buf))) > 0 || (n == -1 && errno == EINTR))) {
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] != '\n') {
				if (len < LINE_BYTES)
					line[len++] = buf[i];
				continue;
			}
			line[len] = '\0';
			unmap_ring(line);
			len = 0;
		}
	}
	(void)close(fd);
}

int in_child(int (*fn)(const char *path), const char *path)
{
	int status = 0;
	const pid_t pid = fork();

	if (pid == -1)
		return errno;
	if (pid == 0) {
		(void)close_range(STDERR_FILENO + 1, ~0u, 0);
		leave_rings();
		_exit(fn(path));
	}
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : ECONNABORTED;
}
