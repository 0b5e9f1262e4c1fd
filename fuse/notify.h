/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the kernel what changed behind its back.
 *
 * The kernel caches names, attributes and directory listings for a day.  What
 * we change without its asking (an entry expires, a deadline moves) it must be
 * told.  It takes a directory's lock to do so, and somebody may hold that lock
 * while waiting for an answer of ours; hence never from a request handler,
 * always from the one thread here.
 *
 * Any thread may enqueue; without memory the message is dropped, and the
 * kernel's own timeout remains.
 */
#ifndef FUSE_NOTIFY_H
#define FUSE_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fuse/compat.h"

struct notify;

/* NULL: no memory.  The session must be mounted and live until notify_stop(). */
struct notify *notify_new(struct fuse_session *se);
/*
 * Stops the thread; what is still queued is dropped, and enqueueing does
 * nothing from now on.  Call it while requests are still answered, or when
 * the connection is gone.  NULL and twice are allowed.
 */
void notify_stop(struct notify *n);
void notify_free(struct notify *n);

/* The entry is gone: those who watch the file hear of it too.  Never blocks. */
void notify_deleted(struct notify *n, uint64_t parent, uint64_t child, const char *name);
/* What the kernel knows of the name and of the attributes behind it is out of date. */
void notify_changed(struct notify *n, uint64_t parent, uint64_t child, const char *name);
/*
 * Only of the attributes, and at once, by the calling thread: the kernel needs no lock for it that a
 * caller of ours can hold.  For handlers of requests on that very object, whose caller
 * keeps it from being freed meanwhile.
 */
void notify_attr(struct notify *n, uint64_t id);
/* Nothing changed, but the kernel shall forget the name and what it caches below it. */
void notify_dropped(struct notify *n, uint64_t parent, const char *name);
/* So is what it knows of the object: attributes and content, of a directory its listing. */
void notify_content(struct notify *n, uint64_t id);
/*
 * Waits until the kernel has been told all that was queued, or notify_stop().
 * Never from a request handler: see notify_settle().
 */
void notify_wait(struct notify *n);
/*
 * Waits until the kernel has been told all that was queued; not longer than a
 * moment, because whoever holds a directory locked may be waiting for the very
 * thread that waits here.  A handler calls it before it answers, to make it
 * likely that its caller sees the change at once; not one whose caller itself
 * holds the directory (as rename(2) does).
 */
void notify_settle(struct notify *n);

#endif
