/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/notify.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* When notify_deleted() waits for room: 20 MiB of jobs at worst. */
#define NOTIFY_QUEUE_MAX 65536u

struct job {
	struct job *next;
	uint64_t parent, child;
	bool deleted;
	size_t len;
	char name[];
};

struct notify {
	struct fuse_session *se; /* immutable */
	pthread_t thread;        /* immutable */
	pthread_mutex_t lock;
	pthread_cond_t work; /* a job came, or stop */
	pthread_cond_t room; /* the queue was emptied, or stop */
	struct job *first;   /* guarded by lock */
	struct job **last;   /* guarded by lock; end of the list */
	size_t count;        /* guarded by lock */
	bool stop;           /* guarded by lock */
	bool joined;         /* only used by the stopping thread */
};

/* A listing without the name's dentry is not dropped with it: see notify_job(). */
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
 * The kernel answers ENOENT when it does not know the name.  It may still have
 * the name in a cached listing of the directory, which it then keeps; that is
 * dropped once for a run of jobs in the same directory.
 */
static void notify_job(struct notify *n, const struct job *j, struct stale *s)
{
	int err;

	if (s->parent != j->parent)
		drop_listing(n, s);
	if (j->deleted)
		err = fuse_lowlevel_notify_delete(n->se, j->parent, j->child, j->name, j->len);
	else
		err = fuse_lowlevel_notify_inval_entry(n->se, j->parent, j->name, j->len);
	/* A directory that something is mounted on, or a file system without the call. */
	if (j->deleted && err != 0 && err != -ENOENT)
		(void)fuse_lowlevel_notify_inval_entry(n->se, j->parent, j->name, j->len);
	if (j->deleted && err != 0)
		s->parent = j->parent;
	if (!j->deleted)
		(void)fuse_lowlevel_notify_inval_inode(n->se, j->child, -1, 0);
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
		(void)pthread_cond_broadcast(&n->room);
	}
	(void)pthread_mutex_unlock(&n->lock);
	return list;
}

static bool stopping(struct notify *n)
{
	bool stop;

	(void)pthread_mutex_lock(&n->lock);
	stop = n->stop;
	(void)pthread_mutex_unlock(&n->lock);
	return stop;
}

static void *notify_main(void *arg)
{
	struct notify *n = arg;
	struct job *list;

	while ((list = take_all(n)) != NULL) {
		struct stale stale = { 0 };

		while (list != NULL) {
			struct job *next = list->next;

			if (!stopping(n))
				notify_job(n, list, &stale);
			free(list);
			list = next;
		}
		drop_listing(n, &stale);
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
	(void)pthread_cond_init(&n->room, NULL);
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
	(void)pthread_cond_broadcast(&n->room);
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
	(void)pthread_cond_destroy(&n->room);
	free(n);
}

static struct job *job_new(uint64_t parent, uint64_t child, const char *name, bool deleted)
{
	const size_t len = strlen(name);
	struct job *j = malloc(sizeof(*j) + len + 1);

	if (j == NULL)
		return NULL;
	*j = (struct job){ .parent = parent, .child = child, .deleted = deleted, .len = len };
	memcpy(j->name, name, len + 1);
	return j;
}

static void enqueue(struct notify *n, struct job *j, bool wait)
{
	bool stopped;

	if (j == NULL)
		return;
	(void)pthread_mutex_lock(&n->lock);
	while (wait && n->count >= NOTIFY_QUEUE_MAX && !n->stop)
		(void)pthread_cond_wait(&n->room, &n->lock);
	stopped = n->stop;
	if (!stopped) {
		*n->last = j;
		n->last = &j->next;
		n->count++;
		(void)pthread_cond_signal(&n->work);
	}
	(void)pthread_mutex_unlock(&n->lock);
	if (stopped)
		free(j);
}

void notify_deleted(struct notify *n, uint64_t parent, uint64_t child, const char *name, bool wait)
{
	enqueue(n, job_new(parent, child, name, true), wait);
}

void notify_changed(struct notify *n, uint64_t parent, uint64_t child, const char *name)
{
	enqueue(n, job_new(parent, child, name, false), false);
}
