/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file system still does after an operation has returned, and what it
 * costs: its daemon compacts, the kernel's threads write.  A benchmark waits
 * until that is over before it looks at something else, and counts its
 * processor time for the operation that caused it.
 */
#ifndef BENCH_SETTLE_H
#define BENCH_SETTLE_H

#include "bench.h"

#include <ctype.h>
#include <dirent.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_LOOK_MS  50u
#define SETTLE_BUSY_NS  500000u /* in SETTLE_LOOK_MS: 1 % of a processor */
#define SETTLE_MAX_MS   20000u
#define SETTLE_KTHREAD  0x00200000u /* PF_KTHREAD, of the flags in /proc/PID/stat */
#define SETTLE_MS_IN_NS 1000000u

/* A daemon, and how long it must do nothing to be taken for done: the period of its timers. */
struct bench_daemon {
	pid_t pid; /* 0: none */
	uint32_t quiet_ms;
};

/* Of all its threads; 0 when there is no such process. */
static inline uint64_t bench_cpu_ns(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (pid == 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline bool bench_is_kernel_thread(const char *pid)
{
	char path[64], line[512] = "";
	unsigned int flags = 0;
	const char *after;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	after = fgets(line, sizeof(line), f) == NULL ? NULL : strrchr(line, ')');
	(void)fclose(f);
	return after != NULL && sscanf(after, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
	       (flags & SETTLE_KTHREAD) != 0;
}

static inline uint64_t bench_run_ns(const char *pid)
{
	char path[64];
	unsigned long long ns = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%.20s/schedstat", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return 0;
	if (fscanf(f, "%llu", &ns) != 1)
		ns = 0;
	(void)fclose(f);
	return ns;
}

/* Of all threads of the kernel that there are now; what another one does is not told apart. */
static inline uint64_t bench_kernel_cpu_ns(void)
{
	const struct dirent *entry;
	uint64_t ns = 0;
	DIR *proc = opendir("/proc");

	while (proc != NULL && (entry = readdir(proc)) != NULL) {
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    bench_is_kernel_thread(entry->d_name))
			ns += bench_run_ns(entry->d_name);
	}
	if (proc != NULL)
		(void)closedir(proc);
	return ns;
}

/* What caller, daemon and kernel have used so far; looking at the kernel's threads is left out. */
struct bench_cpu {
	uint64_t before, after; /* this process, before and after it looked */
	uint64_t daemon, kernel;
};

static inline struct bench_cpu bench_cpu_now(pid_t daemon, bool with_kernel)
{
	struct bench_cpu c;

	c.before = bench_cpu_ns(getpid());
	c.daemon = bench_cpu_ns(daemon);
	c.kernel = with_kernel ? bench_kernel_cpu_ns() : 0;
	c.after = bench_cpu_ns(getpid());
	return c;
}

static inline uint64_t bench_cpu_between(const struct bench_cpu *from, const struct bench_cpu *to)
{
	/* A thread of the kernel that ended takes its time with it. */
	const uint64_t kernel = to->kernel > from->kernel ? to->kernel - from->kernel : 0;

	return to->before - from->after + to->daemon - from->daemon + kernel;
}

static inline void bench_wait_for_rest(const struct bench_daemon *d)
{
	const struct timespec look = { 0, SETTLE_LOOK_MS * SETTLE_MS_IN_NS };
	uint64_t was = bench_cpu_ns(d->pid), now;
	uint32_t waited = 0, quiet = 0;

	while (quiet < d->quiet_ms && waited < SETTLE_MAX_MS) {
		(void)nanosleep(&look, NULL);
		now = bench_cpu_ns(d->pid);
		quiet = now - was > SETTLE_BUSY_NS ? 0 : quiet + SETTLE_LOOK_MS;
		was = now;
		waited += SETTLE_LOOK_MS;
	}
}

/*
 * Writes what is dirty and waits for the daemon to be done; what all have used by then.  The kernel's
 * threads only until all is written: what they do while a daemon rests may be anybody's.
 */
static inline struct bench_cpu bench_settle(const struct bench_daemon *d, bool with_kernel)
{
	struct bench_cpu c;

	sync();
	c = bench_cpu_now(d->pid, with_kernel);
	bench_wait_for_rest(d);
	c.daemon = bench_cpu_ns(d->pid);
	return c;
}

#endif
