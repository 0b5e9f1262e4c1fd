/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "fuse/child.h"
#include "fuse/log.h"
#include "fuse/uring.h"

/* How long users of the mount have to let go of it after session_end(), ms. */
#define GRACE_MS 1000
/* Requests that the kernel keeps in flight without anybody waiting for them. */
#define FS_BACKGROUND_MAX 64
/* Makes a thread in libfuse's loop look at the session's exit flag; its handler does nothing. */
#define WAKE_SIGNAL SIGUSR2

/* ---- What is agreed with the kernel ---- */

bool session_wants_permissions(const struct options *opt)
{
	return opt->default_permissions || geteuid() != 0;
}

/*
 * A descriptor that only writes can bypass the page cache from its creation
 * on; this spares a request for file capabilities per created file.  Before
 * 6.16 the kernel did not drop the pages that a reader had cached meanwhile,
 * and "tail -f" would have read stale bytes.
 */
static bool kernel_keeps_direct_coherent(void)
{
	struct utsname u;
	unsigned int major, minor;

	return uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 16));
}

/*
 * We are the only writer, so the kernel may cache all it wants, and nothing
 * need be compared on open.  ATOMIC_O_TRUNC must be off: with OPEN answered by
 * ENOSYS the truncation would be lost.
 */
void session_init_conn(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	compat_refuse(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	compat_refuse(conn, FUSE_CAP_AUTO_INVAL_DATA);
	compat_refuse(conn, FUSE_CAP_READDIRPLUS_AUTO);
	compat_refuse(conn, FUSE_CAP_SPLICE_READ);
	compat_refuse(conn, FUSE_CAP_SPLICE_WRITE);
	compat_refuse(conn, FUSE_CAP_SPLICE_MOVE);
	compat_refuse(conn, FUSE_CAP_HANDLE_KILLPRIV);
	(void)compat_want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
	(void)compat_want(conn, FUSE_CAP_READDIRPLUS);
	(void)compat_want(conn, FUSE_CAP_CACHE_SYMLINKS);
	(void)compat_want(conn, FUSE_CAP_PARALLEL_DIROPS);
	(void)compat_want(conn, FUSE_CAP_ASYNC_READ);
	/* Whether the umask counts depends on the directory's default access list. */
	(void)compat_want(conn, FUSE_CAP_DONT_MASK);
	fs->kernel_acl = session_wants_permissions(&fs->opt) && !fs->opt.noacl &&
			 !fs->opt.noxattr && compat_want(conn, FUSE_CAP_POSIX_ACL);
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	if (!fs->opt.noxattr)
		(void)compat_want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
#endif
	if (fs->opt.writeback && !compat_want(conn, FUSE_CAP_WRITEBACK_CACHE))
		log_warn("this kernel has no writeback cache");
	conn->max_write = FS_WRITE_MAX;
	conn->max_background = FS_BACKGROUND_MAX;
	conn->congestion_threshold = FS_BACKGROUND_MAX * 3 / 4;
	conn->time_gran = 1;
	fs->direct_create =
		!fs->opt.noxattr && !fs->opt.writeback && kernel_keeps_direct_coherent();
}

/* ---- Our own read and write on the device ---- */

/* The kernel's first message says what it can do. */
static void see_init(struct fs *fs, const void *buf, size_t n)
{
	struct fuse_in_header h;
	struct fuse_init_in in;

	if (n < sizeof(h) + offsetof(struct fuse_init_in, flags) + sizeof(in.flags))
		return;
	memcpy(&h, buf, sizeof(h));
	if (h.opcode != FUSE_INIT)
		return;
	memcpy(&in, (const char *)buf + sizeof(h),
	       offsetof(struct fuse_init_in, flags) + sizeof(in.flags));
	atomic_store_explicit(&fs->offered, in.flags, memory_order_relaxed);
}

static ssize_t device_read(int fd, void *buf, size_t size, void *userdata)
{
	struct fs *fs = userdata;
	const ssize_t n = read(fd, buf, size);

	if (n > 0 && !atomic_load_explicit(&fs->patched, memory_order_relaxed) &&
	    atomic_load_explicit(&fs->offered, memory_order_relaxed) == 0)
		see_init(fs, buf, (size_t)n);
	return n;
}

/*
 * Up to 3.16 libfuse has no way to ask for FUSE_HANDLE_KILLPRIV_V2, and forgets
 * FUSE_PARALLEL_DIROPS; so they are put into its answer to INIT, which is the
 * first thing that it writes.
 */
static void patch_init(struct fs *fs, const struct iovec *iov, int count)
{
	struct fuse_out_header h;
	struct fuse_init_out out;
	uint32_t wanted = FUSE_PARALLEL_DIROPS;

	if (count != 2 || iov[0].iov_len != sizeof(h) || iov[1].iov_len < 24 ||
	    iov[1].iov_len > sizeof(out))
		return;
	memcpy(&h, iov[0].iov_base, sizeof(h));
	memcpy(&out, iov[1].iov_base, iov[1].iov_len);
	if (h.error != 0 || out.major != FUSE_KERNEL_VERSION)
		return;
	if (!fs->opt.noxattr)
		wanted |= FUSE_HANDLE_KILLPRIV_V2;
	out.flags |= wanted & atomic_load_explicit(&fs->offered, memory_order_relaxed);
	memcpy(iov[1].iov_base, &out, iov[1].iov_len);
}

/*
 * EFAULT: a page of the journal could not be read from disk while the answer
 * was copied.  The kernel has ended the request with EIO then, so for libfuse
 * all is done.
 */
static ssize_t device_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fs *fs = userdata;
	ssize_t n;

	if (!atomic_load_explicit(&fs->patched, memory_order_relaxed)) {
		patch_init(fs, iov, count);
		atomic_store_explicit(&fs->patched, true, memory_order_relaxed);
	}
	do {
		n = writev(fd, iov, count);
	} while (n == -1 && (errno == EINTR || errno == ENOMEM));
	if (n != -1 || errno != EFAULT)
		return n;
	atomic_fetch_add_explicit(&fs->faults, 1, memory_order_relaxed);
	log_error("a read failed: the disk does not deliver a part of the journal");
	return 0;
}

/* Newer libfuse asks for the flags by itself, and some builds of it have no way in here. */
static bool take_device(struct session *s)
{
	static const struct fuse_custom_io io = { .read = device_read, .writev = device_writev };
	int err;

	if (!COMPAT_PATCH_INIT)
		return true;
	err = compat_custom_io(s->se, &io, fuse_session_fd(s->se));
	if (err != 0)
		log_error("cannot take over the device: %s", strerror(-err));
	return err == 0;
}

/* ---- Opening ---- */

/* Asks libfuse for io_uring where it can be used. */
static int transport_options(const struct options *o, char **ret)
{
	char why[160], depth[40];

	if (!uring_usable(o, why, sizeof(why))) {
		if (why[0] != '\0')
			log_message(o->transport == TRANSPORT_URING ? EMDB_LOG_WARN : EMDB_LOG_INFO,
				    "requests go through /dev/fuse: %s", why);
		return 0;
	}
	(void)snprintf(depth, sizeof(depth), "io_uring_q_depth=%u", o->uring_depth);
	return fuse_opt_add_opt(ret, "io_uring") | fuse_opt_add_opt(ret, depth);
}

static int mount_options(const struct options *o, const char *source, char **ret)
{
	int err = transport_options(o, ret);

	err |= fuse_opt_add_opt(ret, "subtype=" MOUNTS_SUBTYPE);
	err |= fuse_opt_add_opt(ret, o->read_only ? "ro" : "rw");
	err |= fuse_opt_add_opt(ret, o->suid ? "suid" : "nosuid");
	err |= fuse_opt_add_opt(ret, o->dev ? "dev" : "nodev");
	if (o->noexec)
		err |= fuse_opt_add_opt(ret, "noexec");
	if (o->atime == ATIME_OFF)
		err |= fuse_opt_add_opt(ret, "noatime");
	if (o->allow_other)
		err |= fuse_opt_add_opt(ret, "allow_other");
	if (o->allow_root)
		err |= fuse_opt_add_opt(ret, "allow_root");
	if (session_wants_permissions(o))
		err |= fuse_opt_add_opt(ret, "default_permissions");
	if (o->debug)
		err |= fuse_opt_add_opt(ret, "debug");
	if (err == 0) {
		char *fsname = NULL;

		if (asprintf(&fsname, "fsname=%s", source) == -1)
			return -1;
		err = fuse_opt_add_opt_escaped(ret, fsname);
		free(fsname);
	}
	return err;
}

static struct fuse_session *new_session(struct fs *fs, const struct fuse_lowlevel_ops *ops,
					const char *source)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *se = NULL;
	char *opts = NULL;

	if (mount_options(&fs->opt, source, &opts) == 0 && fuse_opt_add_arg(&args, "emdbfs") == 0 &&
	    fuse_opt_add_arg(&args, "-o") == 0 && fuse_opt_add_arg(&args, opts) == 0)
		se = fuse_session_new(&args, ops, sizeof(*ops), fs);
	free(opts);
	fuse_opt_free_args(&args);
	return se;
}

bool session_open(struct session *s, struct fs *fs, const struct fuse_lowlevel_ops *ops,
		  const char *source, const char *mountpoint)
{
	memset(s, 0, sizeof(*s));
	s->fs = fs;
	s->mountpoint = mountpoint;
	s->mount.id = -1;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->loop_changed, NULL);
	s->se = new_session(fs, ops, source);
	if (s->se == NULL) {
		log_error("cannot set up the file system");
		return false;
	}
	if (fuse_session_mount(s->se, mountpoint) != 0) {
		log_error("cannot mount at %s", mountpoint);
		return false;
	}
	if (!mounts_at(mountpoint, &s->mount))
		log_warn("%s: mounted, but not in /proc/self/mountinfo", mountpoint);
	if (!take_device(s))
		return false;
	s->notify = notify_new(s->se);
	if (s->notify == NULL) {
		log_error("cannot start the notifier: %s", strerror(errno));
		return false;
	}
	atomic_store_explicit(&fs->notify, s->notify, memory_order_release);
	return true;
}

static int open_once(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		return errno;
	(void)close(fd);
	return 0;
}

static int sync_all(const char *path)
{
	const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd == -1 || syncfs(fd) == -1 ? errno : 0;
}

bool session_probe(struct session *s)
{
	char *path = NULL;
	int err;

	if (asprintf(&path, "%s/%s", s->mountpoint, FS_PROBE_NAME) == -1)
		return false;
	atomic_store_explicit(&s->fs->probing, true, memory_order_relaxed);
	err = in_child(open_once, path);
	atomic_store_explicit(&s->fs->probing, false, memory_order_relaxed);
	if (err != 0)
		log_debug("%s: %s", path, strerror(err));
	free(path);
	/* Whatever the error, an answer it was, unless there is nobody to give one. */
	return err != ENOTCONN && err != ECONNABORTED;
}

/* ---- Serving ---- */

static void set_loop(struct session *s, bool looping, bool ended)
{
	(void)pthread_mutex_lock(&s->lock);
	s->looping = looping;
	s->ended = s->ended || ended;
	(void)pthread_cond_broadcast(&s->loop_changed);
	(void)pthread_mutex_unlock(&s->lock);
}

static void on_wake(int sig)
{
	(void)sig;
}

/* Only this thread takes the signal that wakes it from waiting for its workers. */
static void accept_wake(void)
{
	const struct sigaction action = { .sa_handler = on_wake };
	sigset_t set;

	(void)sigaction(WAKE_SIGNAL, &action, NULL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, WAKE_SIGNAL);
	(void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

bool session_loop(struct session *s)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int err = -ENOMEM;

	if (config != NULL) {
		fuse_loop_cfg_set_max_threads(config, s->fs->opt.max_threads);
		fuse_loop_cfg_set_clone_fd(config, 0);
		s->loop_thread = pthread_self();
		accept_wake();
		set_loop(s, true, false);
		err = fuse_session_loop_mt(s->se, config);
		fuse_loop_cfg_destroy(config);
	}
	set_loop(s, false, true);
	if (err < 0)
		log_error("serving requests failed: %s", strerror(-err));
	return err >= 0;
}

/* ---- Ending ---- */

/* Waits until the loop is over, at most that long. */
static bool wait_ended(struct session *s, int ms)
{
	struct timespec until;
	int err = 0;
	bool ended;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	(void)pthread_mutex_lock(&s->lock);
	while (!s->ended && err == 0)
		err = pthread_cond_timedwait(&s->loop_changed, &s->lock, &until);
	ended = s->ended;
	(void)pthread_mutex_unlock(&s->lock);
	return ended;
}

/* What the kernel has not written back yet is written while we still answer. */
static void write_back(struct session *s)
{
	int err;

	if (!s->fs->opt.writeback)
		return;
	err = in_child(sync_all, s->mountpoint);
	if (err != 0)
		log_error("writing back failed: %s", strerror(err));
}

static bool is_topmost(const struct session *s)
{
	struct mount_entry top;

	return mounts_at(s->mountpoint, &top) && top.id == s->mount.id;
}

void session_end(struct session *s)
{
	bool lazy = false;

	atomic_store_explicit(&s->fs->ending, true, memory_order_relaxed);
	write_back(s);
	if (is_topmost(s) && !mounts_remove(s->mountpoint, false))
		lazy = is_topmost(s) && mounts_remove(s->mountpoint, true);
	if (wait_ended(s, GRACE_MS))
		return;
	log_warn("%s is in use%s; its users get errors from now on", s->mountpoint,
		 lazy ? ", detached it" : "");
	/*
	 * The notifier goes first: it may wait for a lock in the kernel that is
	 * held by somebody who waits for an answer of the loop.
	 */
	notify_stop(s->notify);
	fuse_session_exit(s->se);
	do {
		(void)pthread_mutex_lock(&s->lock);
		if (s->looping)
			(void)pthread_kill(s->loop_thread, WAKE_SIGNAL);
		(void)pthread_mutex_unlock(&s->lock);
	} while (!wait_ended(s, 50));
}

/* True if the kernel has let go of the connection: unmounted, or severed from outside. */
static bool is_severed(const struct session *s)
{
	struct pollfd p = { .fd = fuse_session_fd(s->se) };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) != 0;
}

/*
 * Takes the mount away where it still is, dead or alive.  Unmounting goes by
 * the path, where there may be nothing or another file system by now: then it
 * is left alone, and with it the few bytes that libfuse would free.
 */
static void unmount(struct session *s)
{
	struct mount_entry top;
	const bool mounted = mounts_at(s->mountpoint, &top);
	const bool others = mounted && s->mount.id != -1 && top.id != s->mount.id;
	const bool severed = is_severed(s);

	if (mounted && !others && severed)
		(void)mounts_remove(s->mountpoint, true);
	if (severed || s->mount.id == -1 || (mounted && !others))
		fuse_session_unmount(s->se);
}

void session_close(struct session *s)
{
	atomic_store_explicit(&s->fs->ending, true, memory_order_relaxed);
	if (s->se != NULL) {
		fs_job_wait(s->fs);
		notify_stop(s->notify);
		if (fuse_session_fd(s->se) != -1)
			unmount(s);
		fuse_session_destroy(s->se);
		s->se = NULL;
	}
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->loop_changed);
}
