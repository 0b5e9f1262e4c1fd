/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdbfs: shows a store as a directory.
 *
 * Order of things: arguments, paths (nothing is created for a mountpoint that
 * will not do), background, store, mount, requests; and back in reverse.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/emdb.h"
#include "fuse/control.h"
#include "fuse/daemon.h"
#include "fuse/fs.h"
#include "fuse/log.h"
#include "fuse/mounts.h"
#include "fuse/options.h"
#include "fuse/paths.h"
#include "fuse/session.h"
#include "fuse/signals.h"
#include "fuse/snapset.h"
#include "fuse/unlock.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NO_STORE = 10,
	EXIT_LOCKED = 11,
	EXIT_WRONG_KEY = 12,
	EXIT_EMPTY_SECRET = 22,
	/* of mount(8) */
	EXIT_MOUNT_USAGE = 1,
	EXIT_MOUNT_SYSTEM = 2,
	EXIT_MOUNT_FAILED = 32,
};

/* How long a daemon whose mount is gone may take to close its store, ms. */
#define CLOSING_MS 10000
#define RETRY_MS   20
/* What expired leaves cached listings that fast. */
#define SWEEP_MS 50

struct mount {
	const struct options *options;
	struct paths *paths;
	struct daemon daemon;
	struct fs fs;
	struct session session;
	struct signals signals;
	struct control *control; /* NULL: nobody can talk to us */
};

/* mount(8) knows fewer reasons. */
static int exit_code(const struct options *o, int code)
{
	if (!o->helper)
		return code;
	switch (code) {
	case EXIT_DONE:
		return EXIT_DONE;
	case EXIT_USAGE:
		return EXIT_MOUNT_USAGE;
	default:
		return EXIT_MOUNT_FAILED;
	}
}

/* ---- The store ---- */

static int code_of(emdb_err err)
{
	if (err == EMDB_ERR_NO_STORE)
		return EXIT_NO_STORE;
	if (err == EMDB_ERR_LOCKED)
		return EXIT_LOCKED;
	if (err == EMDB_ERR_WRONG_KEY || err == EMDB_ERR_KEY_REQUIRED)
		return EXIT_WRONG_KEY;
	return EXIT_FAILED;
}

static void explain_lock(const char *path)
{
	struct emdb_lock_info info;
	char since[40] = "";
	time_t at;
	struct tm tm;

	if (emdb_lock_holder(path, &info) != EMDB_OK || info.pid == 0) {
		log_error("%s: the store is in use", path);
		return;
	}
	at = (time_t)(info.since_ms / 1000);
	if (localtime_r(&at, &tm) != NULL)
		(void)strftime(since, sizeof(since), " since %F %T", &tm);
	log_error("%s: the store is in use by process %lld on %s%s", path, (long long)info.pid,
		  info.host[0] != '\0' ? info.host : "this host", since);
}

static void explain(const char *path, emdb_err err, const struct emdb_detail *detail)
{
	if (err == EMDB_ERR_LOCKED)
		explain_lock(path);
	else if (detail->text[0] != '\0')
		log_error("%s: %s (%s)", path, emdb_strerror(err), detail->text);
	else
		log_error("%s: %s", path, emdb_strerror(err));
}

/*
 * After an unmount the daemon still flushes and closes: its lock is held, its
 * mount is gone.  Mounting again at once waits for that.
 */
static emdb_err open_patiently(const char *path, const struct emdb_options *options, emdb_db **ret)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	struct emdb_lock_info info;
	emdb_err err = emdb_open(path, options, ret);

	for (int waited = 0; err == EMDB_ERR_LOCKED && waited < CLOSING_MS; waited += RETRY_MS) {
		if (emdb_lock_holder(path, &info) != EMDB_OK ||
		    (info.held && !mounts_closing(info.pid, path)))
			break;
		(void)nanosleep(&pause, NULL);
		err = emdb_open(path, options, ret);
	}
	return err;
}

/* Opens it, with the secret if the options name one or the store needs one. */
static int open_unlocked(struct mount *m, struct emdb_options *options, emdb_err *ret_err)
{
	const char *const path = m->paths->store;
	struct unlock unlock = { .held = { .data = NULL } };
	bool ask = unlock_wanted(m->options);
	struct emdb_encryption found;

	*ret_err = EMDB_ERR_KEY_REQUIRED;
	if (!ask) {
		*ret_err = open_patiently(path, options, &m->fs.db);
		ask = *ret_err == EMDB_ERR_KEY_REQUIRED;
	}
	if (ask) {
		const bool fresh = emdb_encryption_get(path, &found) == EMDB_ERR_NO_STORE;
		const enum unlock_result got =
			unlock_read(&unlock, m->options, path, fresh, options);

		if (got != UNLOCK_OK)
			return got == UNLOCK_EMPTY ? EXIT_EMPTY_SECRET : EXIT_FAILED;
		*ret_err = open_patiently(path, options, &m->fs.db);
		unlock_release(&unlock);
	}
	return EXIT_DONE;
}

struct wanted {
	const char *name;
	struct emdb_snapshot found;
};

/* The last of them is the newest. */
static bool find_snapshot(void *ctx, const struct emdb_snapshot *s)
{
	struct wanted *w = ctx;

	if (strcmp(w->name, EMDB_SNAPSHOT_LATEST) == 0 || strcmp(w->name, s->name) == 0)
		w->found = *s;
	return true;
}

/* Goes on with the snapshot in place of the store, which somebody may have in use. */
static int choose_snapshot(struct mount *m)
{
	struct wanted w = { .name = m->options->snapshot };
	const emdb_err err = emdb_snapshot_list_at(m->paths->store, find_snapshot, &w);
	char *path;

	if (err != EMDB_OK) {
		log_error("%s: %s", m->paths->store, emdb_strerror(err));
		return code_of(err);
	}
	if (w.found.name[0] == '\0') {
		log_error("%s: there is no snapshot '%s'", m->paths->store, w.name);
		return EXIT_FAILED;
	}
	if (asprintf(&path, "%s/snapshots/%s", m->paths->store, w.found.name) == -1) {
		log_error("out of memory");
		return EXIT_FAILED;
	}
	free(m->paths->store);
	m->paths->store = path;
	m->fs.snap_btime_ns = w.found.created_ns;
	return EXIT_DONE;
}

/* For .snap; without it the mount would be another one than was asked for. */
static int open_snapshots(struct mount *m)
{
	struct stat st;

	if (stat(m->paths->store, &st) == -1) {
		log_error("%s: %s", m->paths->store, strerror(errno));
		return EXIT_FAILED;
	}
	m->fs.owner = st.st_uid;
	m->fs.group = st.st_gid;
	if (m->options->snapdir == SNAPDIR_DISABLED || m->options->snapshot[0] != '\0')
		return EXIT_DONE;
	m->fs.snaps = snapset_new(&m->fs);
	if (m->fs.snaps != NULL)
		return EXIT_DONE;
	log_error("out of memory");
	return EXIT_FAILED;
}

static int open_store(struct mount *m)
{
	const struct options *o = m->options;
	struct emdb_detail detail = { .text = "" };
	struct emdb_options options = {
		.size = sizeof(options),
		.flags = o->read_only ? EMDB_OPEN_READ_ONLY : EMDB_OPEN_CREATE,
		.segment_bytes = o->segment_bytes,
		.flush = o->write_through ? EMDB_FLUSH_WRITE_THROUGH : EMDB_FLUSH_EACH,
		.commit_interval_s = o->commit_s,
		.sweep_interval_ms = SWEEP_MS,
		.verify = o->verify,
		.default_ttl_ms = o->ttl_ms,
		.detail = &detail,
		.log = log_from_store,
		.on_expire = fs_on_expire,
		.on_expire_ctx = &m->fs,
	};
	emdb_err err;
	int code;

	if (o->snapshot[0] != '\0') {
		code = choose_snapshot(m);
		if (code != EXIT_DONE)
			return code;
	}
	code = open_unlocked(m, &options, &err);
	if (code != EXIT_DONE)
		return code;
	if (err == EMDB_OK)
		return EXIT_DONE;
	explain(m->paths->store, err, &detail);
	return code_of(err);
}

/* What was acknowledged and not flushed is flushed here: a failure must be heard. */
static int close_store(struct mount *m, int code)
{
	emdb_err err;

	snapset_free(m->fs.snaps);
	m->fs.snaps = NULL;
	err = emdb_close(m->fs.db);
	m->fs.db = NULL;
	if (err == EMDB_OK)
		return code;
	log_error("%s: closing failed: %s", m->paths->store, emdb_strerror(err));
	return code == EXIT_DONE ? EXIT_FAILED : code;
}

/* ---- Serving ---- */

static void *starter_main(void *arg)
{
	struct mount *m = arg;

	if (session_probe(&m->session)) {
		daemon_ready(&m->daemon);
		log_info("%s mounted at %s%s", m->paths->store, m->paths->mountpoint,
			 atomic_load_explicit(&m->fs.over_uring, memory_order_relaxed)
				 ? ", over io_uring"
				 : "");
	}
	return NULL;
}

/*
 * Nobody signals us or talks to us any more; then the mount goes.  Closing the
 * device ends the starter's question, should nobody have answered it.
 */
static void leave(struct mount *m)
{
	signals_stop(&m->signals);
	control_stop(m->control);
	m->control = NULL;
	session_close(&m->session);
}

/* The mount is ready when it has answered; who asks cannot be the one who answers. */
static int serve(struct mount *m)
{
	pthread_t starter;
	const int err = pthread_create(&starter, NULL, starter_main, m);
	bool ok;

	if (err != 0) {
		log_error("cannot start a thread: %s", strerror(err));
		leave(m);
		return EXIT_FAILED;
	}
	ok = session_loop(&m->session);
	daemon_stopping();
	leave(m);
	(void)pthread_join(starter, NULL);
	return ok ? EXIT_DONE : EXIT_FAILED;
}

static int mount_store(struct mount *m)
{
	struct fuse_lowlevel_ops ops;
	bool ok;

	signals_enter(&m->signals, SIGNALS_MOUNTING);
	fs_ops(&m->fs, &ops);
	ok = session_open(&m->session, &m->fs, &ops, m->paths->store, m->paths->mountpoint);
	if (ok) {
		/* Who only reads shares the store: others can open it themselves. */
		if (!m->options->read_only)
			m->control = control_start(&m->fs, m->paths->store, m->paths->mountpoint);
		signals_enter(&m->signals, SIGNALS_SERVING);
		return serve(m);
	}
	leave(m);
	return EXIT_FAILED;
}

static int run(struct mount *m)
{
	int code = EXIT_FAILED;
	int err;

	fs_init(&m->fs, m->options);
	err = signals_start(&m->signals, &m->session);
	if (err != 0) {
		log_error("cannot start a thread: %s", strerror(err));
	} else if ((code = open_store(m)) == EXIT_DONE) {
		code = open_snapshots(m);
		if (code == EXIT_DONE)
			code = mount_store(m);
		code = close_store(m, code);
		notify_free(m->session.notify);
	}
	fs_release(&m->fs);
	code = exit_code(m->options, code);
	daemon_failed(&m->daemon, code);
	return code;
}

/* ---- Starting ---- */

static int start(const struct options *o)
{
	struct paths paths = PATHS_INIT;
	struct mount *m = calloc(1, sizeof(*m));
	int code = exit_code(o, EXIT_FAILED);

	if (m == NULL) {
		log_error("out of memory");
		goto out;
	}
	if (!paths_init(&paths, o))
		goto out;
	m->options = o;
	m->paths = &paths;
	if (!daemon_fork(&m->daemon, o->foreground)) {
		log_error("cannot fork: %s", strerror(errno));
		code = o->helper ? EXIT_MOUNT_SYSTEM : EXIT_FAILED;
		goto out;
	}
	code = run(m);
out:
	paths_release(&paths);
	free(m);
	return code;
}

static void print_version(void)
{
	(void)printf("emdbfs %s, libfuse %s\n", EMDB_VERSION_STRING, fuse_pkgversion());
}

int main(int argc, char **argv)
{
	struct options options;
	int code;

	log_init("emdbfs", EMDB_LOG_WARN);
	log_take_libfuse();
	if (!options_parse(argc, argv, &options)) {
		log_error("%s", options.error);
		(void)fprintf(stderr, "Try 'emdbfs -h'.\n");
		options_release(&options);
		return exit_code(&options, EXIT_USAGE);
	}
	if (options.help) {
		(void)fputs(options_usage, stdout);
		return EXIT_DONE;
	}
	if (options.version) {
		print_version();
		return EXIT_DONE;
	}
	if (options.foreground)
		log_init("emdbfs", options.debug ? EMDB_LOG_DEBUG : EMDB_LOG_INFO);
	code = start(&options);
	options_release(&options);
	return code;
}
