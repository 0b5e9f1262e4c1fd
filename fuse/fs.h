/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mounted store: what all request handlers share.
 *
 * A node id is the object's id, so there is no inode table here: the library
 * counts the kernel's references.  A reference is taken by every answer that
 * carries an entry, and given back by FORGET; an answer that the kernel did
 * not take (its caller was interrupted) gives it back at once.
 *
 * Every handler answers its request exactly once, as its last use of it:
 * after a fuse_reply_*() or fs_reply_*() call the request is gone, whatever
 * the call returned.
 *
 * Threads: handlers run in several; what they share is immutable or atomic.
 */
#ifndef FUSE_FS_H
#define FUSE_FS_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "core/emdb.h"
#include "fuse/compat.h"
#include "fuse/counters.h"
#include "fuse/names.h"
#include "fuse/notify.h"
#include "fuse/options.h"

/* How long the kernel may believe what nobody changes, s. */
#define FS_TIMEOUT_S 86400.0
/* Ids are never used twice, so one generation does; 0 would mean "unknown" to NFS. */
#define FS_GENERATION 1
/* Largest write in one request, bytes. */
#define FS_WRITE_MAX (1024u * 1024u)
/* Largest buffer of directory entries in one answer, bytes. */
#define FS_READDIR_MAX (1024u * 1024u)

/* The attribute that holds a label of SELinux. */
#define FS_LABEL "security.selinux"

/* How long FORGETs are collected over io_uring, ns. */
#define FS_FORGET_NS 1000000

/* A file that exists until the mount is ready, for its first open(); see fs_probe(). */
#define FS_PROBE_NAME ".emdbfs.probe"
#define FS_PROBE_ID   ((uint64_t)1 << 62)

/* Set in the ids of all nodes in and below the directory of snapshots; see snapset.h. */
#define FS_SNAP_BIT ((uint64_t)1 << 63)

struct snapset;

/*
 * There is one for the mount, and one view of it for each open snapshot, which
 * answers the requests about nodes in that snapshot: fs_of().
 */
struct fs {
	emdb_db *db;           /* immutable while requests come */
	struct fs *root;       /* immutable; the mount's own, of itself too */
	struct snapset *snaps; /* immutable while requests come; NULL: a view, or disabled */
	uint64_t node_base;    /* immutable; added to an object's id: its node's */
	uint64_t snap_number;  /* immutable; of the snapshot, 0: none */
	int64_t snap_btime_ns; /* immutable; of the snapshot, 0: the present is shown */
	_Atomic uint64_t refs; /* of a view: the kernel's references on its nodes */
	uid_t owner;           /* immutable while requests come; of the store's directory */
	gid_t group;           /* the same */
	_Atomic int64_t
		snaps_changed_ns; /* when the last snapshot was made, removed or renamed here */
	struct options opt;       /* immutable */
	_Atomic(struct notify *) notify; /* release when created, acquire by users; NULL before */
	atomic_bool probing;             /* the probe file can be looked up */
	atomic_bool over_uring;          /* the kernel uses the rings: its probe came so */
	atomic_bool ending;              /* long answers should give up */
	bool direct_create;              /* immutable after INIT: see op_create() */
	bool selinux;             /* immutable: it runs here, so that labels mean something */
	bool kernel_acl;          /* immutable after INIT: the kernel enforces access lists */
	struct counters counters; /* atomic */
	_Atomic uint64_t faults;  /* answers that a failing disk spoiled */
	_Atomic uint32_t offered; /* flags of the kernel's INIT, 0: not seen; see session.c */
	atomic_bool patched;      /* the answer to INIT was sent */

	pthread_mutex_t jobs_lock;
	pthread_cond_t jobs_idle;
	unsigned int jobs; /* guarded by jobs_lock; requests answered by other threads */
};

void fs_init(struct fs *fs, const struct options *opt);
void fs_release(struct fs *fs);
/* The table for fuse_session_new(). */
void fs_ops(const struct fs *fs, struct fuse_lowlevel_ops *ret);

/* The expiry hook for struct emdb_options; ctx is the struct fs. */
void fs_on_expire(void *ctx, uint64_t parent, const void *key, size_t key_len, uint64_t id);
/* Writes one line about the mount, for SIGUSR1. */
void fs_status(struct fs *fs, char *buf, size_t n);

/* A request that another thread answers: begin before handing it over, end after the answer. */
void fs_job_begin(struct fs *fs);
void fs_job_end(struct fs *fs);
void fs_job_wait(struct fs *fs);

/* ---- For handlers ---- */

/* The view that the thread's current request is about; NULL: the mount's own.  See snapops.c. */
extern _Thread_local struct fs *fs_view;

static inline struct fs *fs_of(fuse_req_t req)
{
	return fs_view != NULL ? fs_view : fuse_req_userdata(req);
}

static inline bool fs_in_snapdir(fuse_ino_t ino)
{
	return (ino & FS_SNAP_BIT) != 0;
}

/*
 * After a FORGET was carried out, at the end of its handler.  Over io_uring little else comes through
 * the device: a short sleep there lets the kernel collect more, instead of waking this
 * thread for each file that is removed.
 */
static inline void fs_forgot(const struct fs *fs)
{
	const struct timespec pause = { .tv_nsec = FS_FORGET_NS };

	if (atomic_load_explicit(&fs->over_uring, memory_order_relaxed) &&
	    !atomic_load_explicit(&fs->ending, memory_order_relaxed))
		(void)nanosleep(&pause, NULL);
}

/* The present, ns since 1970. */
int64_t fs_now_ns(void);
struct timespec fs_timespec(int64_t ns);
/* For how long the kernel may cache the object's name and attributes, s. */
double fs_timeout(struct fs *fs, const struct emdb_attr *attr);
/* The inode number of an object, for people; and the kernel's node, 0: it cannot have one. */
uint64_t fs_ino(const struct fs *fs, uint64_t id);
uint64_t fs_node(const struct fs *fs, uint64_t id);
void fs_stat(const struct fs *fs, const struct emdb_attr *attr, struct stat *ret);
/* Everything but the name. */
void fs_entry(struct fs *fs, const struct emdb_attr *attr, struct fuse_entry_param *ret);

/* An answer to the kernel takes a reference with it; it comes back. */
static inline void fs_ref(struct fs *fs)
{
	if (fs->node_base != 0)
		atomic_fetch_add_explicit(&fs->refs, 1, memory_order_relaxed);
}
static inline void fs_forget(struct fs *fs, uint64_t id, uint64_t count)
{
	emdb_node_forget(fs->db, id, count);
	if (fs->node_base != 0)
		atomic_fetch_sub_explicit(&fs->refs, count, memory_order_release);
}

void fs_reply_err(fuse_req_t req, emdb_err err);
/* The attr's reference becomes the kernel's. */
void fs_reply_entry(fuse_req_t req, const struct emdb_attr *attr);
void fs_reply_attr(fuse_req_t req, const struct emdb_attr *attr);
#if COMPAT_STATX
void fs_reply_statx(fuse_req_t req, const struct emdb_attr *attr); /* node.c */
#endif

/*
 * A write, truncation or change of owner by somebody else than root takes
 * set-uid, set-gid and file capabilities away, as the kernel left it to us
 * (FUSE_HANDLE_KILLPRIV_V2).  True: it is for this caller.
 */
bool fs_kills_suid(fuse_req_t req);
/*
 * File capabilities: any change of content removes them.  Ask before it, when what is known of the object
 * is at hand: the kernel lets nobody set them meanwhile.
 */
bool fs_has_capability(struct fs *fs, uint64_t id);
void fs_kill_capability(struct fs *fs, uint64_t id);
/* Both, for changes that have no flag for it. */
void fs_kill_privileges(fuse_req_t req, uint64_t id);

/* ---- Names ---- */

/* The name that is no key in this directory; NULL: all are. */
static inline const char *fs_reserved(const struct fs *fs, uint64_t parent)
{
	return parent == EMDB_ROOT ? fs->opt.snapdirname : NULL;
}

struct fs_key {
	const void *bytes;
	size_t len;
	void *owned; /* longer than a name: free() */
	struct name_key name;
};

/*
 * The key that a name in a directory stands for.  0, or an errno: ENOENT for
 * a shortened name without its key, EPERM for the reserved name and no other.
 */
int fs_key_init(struct fs *fs, uint64_t parent, const char *name, struct fs_key *ret);
/* The same for a name that is to be created: EINVAL, EPERM in those two cases. */
int fs_key_init_new(struct fs *fs, uint64_t parent, const char *name, struct fs_key *ret);
void fs_key_release(struct fs_key *key);

#endif
