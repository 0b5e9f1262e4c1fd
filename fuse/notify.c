/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/notify.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include <linux/fuse.h>

/* Beyond this the deletions in one directory become one job. */
#define NOTIFY_QUEUE_MAX 65536u
/* Longest that notify_settle() waits, ms. */
#define NOTIFY_SETTLE_MS 50
/* The kernel's flag for "believe it no longer", which leaves the name in place. */
#define NOTIFY_EXPIRE_ONLY 1u

enum job_kind {
	JOB_CHANGED, /* ask for the name again, and for the attributes of the child */
	JOB_DELETED, /* the name is gone */
	JOB_LISTING, /* so are many in this directory */
	JOB_CONTENT, /* forget the attributes and the pages of the child */
	JOB_DROPPED, /* forget the name and all below it that nobody uses */
};

struct job {
	struct job *next;
	uint64_t parent, child;
	enum job_kind kind;
	size_t len;
	char name[];
};

struct notify {
	struct fuse_session *se; /* immutable */
	pthread_t thread;        /* immutable */
	pthread_mutex_t lock;
	pthread_cond_t work;    /* a job came, or stop */
	pthread_cond_t settled; /* a job was done, or stop */
	struct job *first;      /* guarded by lock */
	struct job **last;      /* guarded by lock; end of the list */
	uint64_t last_listing;  /* guarded by lock; the directory, if the last job is JOB_LISTING */
	size_t count;           /* guarded by lock */
	uint64_t queued, done;  /* guarded by lock; jobs ever queued, and finished */
	bool stop;              /* guarded by lock */
	bool joined;            /* only used by the stopping thread */
};

/* A listing without the name's dentry is not dropped with it: see delete_name(). */
struct stale {
	uint64_t parent; /* 0: none */
};

static void drop_listing(struct notify *n, struct stale *s)
{
	if (s->parent != 0)
		(void)fuse_lowlevel_notify_inval_inode(n->se, s->parent, 0, 0);
	s->parent = 0;
}

/*
 * Makes the kernel ask for the name at its next use.  libfuse has had this call
 * under two signatures, and the message is a simple one.  Kernels before 6.2
 * do not know the flag and forget the name, which will do.
 */
static void expire_name(struct notify *n, const struct job *j)
{
	struct {
		uint64_t parent;
		uint32_t len;
		uint32_t flags;
	} body = { j->parent, (uint32_t)j->len, NOTIFY_EXPIRE_ONLY };
	struct fuse_out_header header = { .error = FUSE_NOTIFY_INVAL_ENTRY };
	char name[256]; /* NAME_MAX and the NUL, which the kernel wants to see */
	const struct iovec iov[3] = {
		{ &header, sizeof(header) },
		{ &body, sizeof(body) },
		{ name, j->len + 1 },
	};

	if (j->len >= sizeof(name))
		return;
	memcpy(name, j->name, j->len + 1);
	header.len = (uint32_t)(sizeof(header) + sizeof(body) + j->len + 1);
	/* ENOENT: it is not cached; anything else: nobody is left to be told. */
	if (writev(fuse_session_fd(n->se), iov, 3) == -1)
		return;
}

/*
 * The kernel answers ENOENT when it does not know the name.  It may still have
 * the name in a cached listing of the directory, which it then keeps; that is
 * dropped once for a run of jobs in the same directory.
 */
static void delete_name(struct notify *n, const struct job *j, struct stale *s)
{
	const int err = fuse_lowlevel_notify_delete(n->se, j->parent, j->child, j->name, j->len);

	if (err == 0)
		return;
	/* Something is mounted on it, or another node has the name by now. */
	if (err != -ENOENT)
		expire_name(n, j);
	s->parent = j->parent;
}

static void notify_job(struct notify *n, const struct job *j, struct stale *s)
{
	switch (j->kind) {
	case JOB_CHANGED:
		expire_name(n, j);
		(void)fuse_lowlevel_notify_inval_inode(n->se, j->child, -1, 0);
		break;
	case JOB_DELETED:
		delete_name(n, j, s);
		break;
	case JOB_LISTING:
		s->parent = j->parent;
		break;
	case JOB_CONTENT:
		(void)fuse_lowlevel_notify_inval_inode(n->se, j->child, 0, 0);
		break;
	case JOB_DROPPED:
		(void)fuse_lowlevel_notify_inval_entry(n->se, j->parent, j->name, j->len);
		break;
	}
}

/* Takes the whole queue; NULL: stop.  Blocks while it is empty. */
static struct job *take_all(struct notify *n)
{
	struct job *list;

	(void)pthread_mutex_lock(&n->lock);
	while (n->first == NULL && !n->stop)
		(void)pthread_cond_wait(&n->work, &n->lock);
	list = n->stop ? NULL : n->first;
	if (list != NULL) {
		n->first = NULL;
		n->last = &n->first;
		n->count = 0;
		n->last_listing = 0;
	}
	(void)pthread_mutex_unlock(&n->lock);
	return list;
}

/* Counts a job as done; true: go on with the next one. */
static bool finish(struct notify *n)
{
	bool stop;

	(void)pthread_mutex_lock(&n->lock);
	n->done++;
	stop = n->stop;
	(void)pthread_cond_broadcast(&n->settled);
	(void)pthread_mutex_unlock(&n->lock);
	return !stop;
}

static void *notify_main(void *arg)
{
	struct notify *n = arg;
	struct job *list;

	while ((list = take_all(n)) != NULL) {
		struct stale stale = { 0 };
		bool go_on = true;

		while (list != NULL) {
			struct job *next = list->next;

			if (go_on)
				notify_job(n, list, &stale);
			if (next == NULL || next->parent != list->parent)
				drop_listing(n, &stale);
			free(list);
			list = next;
			go_on = finish(n);
		}
	}
	return NULL;
}

struct notify *notify_new(struct fuse_session *se)
{
	struct notify *n = calloc(1, sizeof(*n));

	if (n == NULL)
		return NULL;
	n->se = se;
	n->last = &n->first;
	(void)pthread_mutex_init(&n->lock, NULL);
	(void)pthread_cond_init(&n->work, NULL);
	(void)pthread_cond_init(&n->settled, NULL);
	if (pthread_create(&n->thread, NULL, notify_main, n) != 0) {
		n->joined = true;
		notify_free(n);
		return NULL;
	}
	return n;
}

void notify_stop(struct notify *n)
{
	if (n == NULL || n->joined)
		return;
	(void)pthread_mutex_lock(&n->lock);
	n->stop = true;
	(void)pthread_cond_broadcast(&n->work);
	(void)pthread_cond_broadcast(&n->settled);
	(void)pthread_mutex_unlock(&n->lock);
	(void)pthread_join(n->thread, NULL);
	n->joined = true;
}

void notify_free(struct notify *n)
{
	if (n == NULL)
		return;
	notify_stop(n);
	while (n->first != NULL) {
		struct job *next = n->first->next;

		free(n->first);
		n->first = next;
	}
	(void)pthread_mutex_destroy(&n->lock);
	(void)pthread_cond_destroy(&n->work);
	(void)pthread_cond_destroy(&n->settled);
	free(n);
}

static void push_locked(struct notify *n, struct job *j)
{
	*n->last = j;
	n->last = &j->next;
	n->last_listing = j->kind == JOB_LISTING ? j->parent : 0;
	n->count++;
	n->queued++;
	(void)pthread_cond_signal(&n->work);
}

/*
 * Too many deletions to tell one by one: that the listing is out of date must
 * do.  The names themselves go from the caches by their own timeouts.
 */
static bool merge_locked(struct notify *n, struct job *j)
{
	if (j->kind != JOB_DELETED || n->count < NOTIFY_QUEUE_MAX)
		return false;
	if (n->last_listing == j->parent)
		return true;
	j->kind = JOB_LISTING;
	return false;
}

static void enqueue(struct notify *n, enum job_kind kind, uint64_t parent, uint64_t child,
		    const char *name)
{
	const size_t len = strlen(name);
	struct job *j = malloc(sizeof(*j) + len + 1);

	if (j == NULL)
		return;
	*j = (struct job){ .kind = kind, .parent = parent, .child = child, .len = len };
	memcpy(j->name, name, len + 1);
	(void)pthread_mutex_lock(&n->lock);
	if (!n->stop && !merge_locked(n, j)) {
		push_locked(n, j);
		j = NULL;
	}
	(void)pthread_mutex_unlock(&n->lock);
	free(j);
}

void notify_deleted(struct notify *n, uint64_t parent, uint64_t child, const char *name)
{
	enqueue(n, JOB_DELETED, parent, child, name);
}

void notify_changed(struct notify *n, uint64_t parent, uint64_t child, const char *name)
{
	enqueue(n, JOB_CHANGED, parent, child, name);
}

void notify_attr(struct notify *n, uint64_t id)
{
	(void)fuse_lowlevel_notify_inval_inode(n->se, id, -1, 0);
}

void notify_dropped(struct notify *n, uint64_t parent, const char *name)
{
	enqueue(n, JOB_DROPPED, parent, 0, name);
}

void notify_content(struct notify *n, uint64_t id)
{
	enqueue(n, JOB_CONTENT, 0, id, "");
}

void notify_wait(struct notify *n)
{
	uint64_t queued;

	(void)pthread_mutex_lock(&n->lock);
	queued = n->queued;
	while (n->done < queued && !n->stop)
		(void)pthread_cond_wait(&n->settled, &n->lock);
	(void)pthread_mutex_unlock(&n->lock);
}

void notify_settle(struct notify *n)
{
	struct timespec until;
	uint64_t queued;
	int err = 0;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += NOTIFY_SETTLE_MS * 1000000L;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	(void)pthread_mutex_lock(&n->lock);
	queued = n->queued;
	while (n->done < queued && !n->stop && err == 0)
		err = pthread_cond_timedwait(&n->settled, &n->lock, &until);
	(void)pthread_mutex_unlock(&n->lock);
}
