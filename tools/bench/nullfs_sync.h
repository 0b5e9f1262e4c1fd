/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of nullfs that answers fsync(2), where there is one, and the disk
 * that it has flushed before.
 */
#ifndef NULLFS_SYNC_H
#define NULLFS_SYNC_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuse/fs.h"
#include "fuse/log.h"

#define DISK_BLOCK 4096u

/* What the other thread is to answer. */
struct waiting {
	struct waiting *next;
	fuse_req_t req;
};

static struct {
	bool on;  /* immutable while requests come, as is disk */
	int disk; /* -1: nothing is durable */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct waiting *first; /* guarded by lock, as is stop */
	bool stop;
} other = { .disk = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* An errno. */
static int flush_disk(void)
{
	static const char block[DISK_BLOCK] = { 1 };

	if (other.disk == -1)
		return 0;
	if (pwrite(other.disk, block, sizeof(block), 0) != (ssize_t)sizeof(block))
		return EIO;
	return fdatasync(other.disk) == 0 ? 0 : errno;
}

/* The file has no name from here on, so that nothing is left of it. */
static bool open_disk(const char *path)
{
	other.disk = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (other.disk == -1) {
		log_error("%s: %s", path, strerror(errno));
		return false;
	}
	return unlink(path) == 0 && flush_disk() == 0;
}

static void *other_main(void *arg)
{
	struct waiting *w, *next;
	bool stop;
	int err;

	(void)arg;
	do {
		(void)pthread_mutex_lock(&other.lock);
		while (other.first == NULL && !other.stop)
			(void)pthread_cond_wait(&other.changed, &other.lock);
		w = other.first;
		other.first = NULL;
		stop = other.stop;
		(void)pthread_mutex_unlock(&other.lock);
		err = w == NULL ? 0 : flush_disk();
		for (; w != NULL; w = next) {
			next = w->next;
			(void)fuse_reply_err(w->req, err);
			free(w);
		}
	} while (!stop);
	return NULL;
}

static void null_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct waiting *w = other.on ? malloc(sizeof(*w)) : NULL;

	(void)ino;
	(void)datasync;
	(void)fi;
	if (w == NULL) {
		(void)fuse_reply_err(req, 0);
		return;
	}
	(void)pthread_mutex_lock(&other.lock);
	*w = (struct waiting){ other.first, req };
	other.first = w;
	(void)pthread_cond_signal(&other.changed);
	(void)pthread_mutex_unlock(&other.lock);
}

/* session_close() waits for answers of other threads, so that none comes after it. */
void fs_job_wait(struct fs *fs)
{
	(void)fs;
	if (!other.on)
		return;
	(void)pthread_mutex_lock(&other.lock);
	other.stop = true;
	(void)pthread_cond_signal(&other.changed);
	(void)pthread_mutex_unlock(&other.lock);
	(void)pthread_join(other.thread, NULL);
	other.on = false;
}

#endif
