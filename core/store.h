/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: the state of an open store in memory, and how records change it.
 * Private to core/.
 *
 * The journal is the truth; memory is what its records say, applied in order.
 * Every change goes the same way, live and in replay:
 *
 *	build record -> journal_append -> apply_rec
 *
 * so that memory can only hold what the journal holds.
 *
 * Locks, outermost first (ranks in sync.h)
 *   structure  shared by operations on one entry or one object; exclusive by
 *	those that touch several entries, namespaces or the kind of an object
 *	(rename, link, promote, drop, batch), which then run alone among writers
 *   stripe     of the entry's hash, or of a promoted object's id: from looking at
 *	the old state until the record is applied.  So writers of one entry
 *	append and apply in one order (I7), and a frame copied by compaction
 *	under the stripe is replayed at its new place rightly
 *   objtab shard, big->lock, hidx's own, ttl_lock: short, inside apply
 * Readers hold an epoch pin only.
 *
 * An object is plain (everything in its entry's PUT record) or big (an INODE
 * record, any number of LINK entries, an extent map in memory).  The object
 * table holds all big ones, and the plain ones that the caller references.
 */
#ifndef EMDB_STORE_H
#define EMDB_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "core/codec.h"
#include "core/crypto.h"
#include "core/emdb.h"
#include "core/epoch.h"
#include "core/extent.h"
#include "core/format_ckpt.h"
#include "core/guard.h"
#include "core/index_hash.h"
#include "core/index_ord.h"
#include "core/io.h"
#include "core/journal.h"
#include "core/sync.h"
#include "core/ttl.h"
#include "core/view.h"

/* A value beyond this is not rewritten whole by a partial write or a change of metadata. */
#define STORE_INLINE_MAX 8192u
#define STORE_STRIPES    256u
#define STORE_SHARDS     64u
/* Entries looked at in one step of a walk. */
#define STORE_WALK      64u
#define STORE_DIR_MODE  (S_IFDIR | 0755u)
#define STORE_FILE_MODE (S_IFREG | 0600u)

struct ns {
	struct epoch_node node;
	uint64_t id;      /* immutable */
	struct hidx idx;  /* entry hash -> ref with REF_* flags */
	struct oidx *ord; /* its keys in order; NULL without EMDB_OPEN_ORDERED; immutable */
	_Atomic(uint64_t) ord_missing; /* entries that could not be read for it; atomic */
	_Atomic(uint64_t) parent;      /* written under structure exclusive or its entry's stripe */
	_Atomic(uint64_t) hash;        /* of its own entry; as parent */
	_Atomic(uint64_t) ref;         /* its NS record; 0: none yet; as parent */
	_Atomic(uint64_t) subdirs;     /* atomic */
	_Atomic(uint64_t) refs;        /* caller's references; atomic */
	_Atomic(uint64_t) touch_lsn;   /* last record that stamped the times; atomic */
	_Atomic(int64_t) mtime, ctime, atime, btime; /* atomic */
	_Atomic(int64_t) ttl_default_ms;             /* atomic */
	_Atomic(uint32_t) mode, uid, gid;            /* atomic */
	_Atomic(uint8_t) ttl_basis;                  /* atomic */
	_Atomic(bool) attached;                      /* its entry exists; as parent */
	_Atomic(bool) dead;        /* dropped; waits for its references; as parent */
	_Atomic(bool) freed;       /* somebody has retired it; atomic */
	uint8_t mark;              /* opening only: see checkpoint_load.c */
	uint64_t as_of;            /* opening only: a checkpoint has what lower LSNs did to it */
	_Atomic(uint64_t) changed; /* last LSN that changed an entry with a view open; atomic */
};

/* One name of a big object. */
struct link {
	uint64_t ns, hash;
};

struct big {
	struct epoch_node node;
	struct mutex lock; /* guards everything below for readers; writers hold the stripe too */
	struct extmap map;
	uint64_t size;
	int64_t mtime, ctime, atime, btime;
	int64_t expires_ms;
	uint64_t rdev;
	uint64_t inode_ref; /* its INODE record (xattrs); 0: none yet */
	uint64_t touch_lsn; /* last record that set times or size */
	uint64_t kept_lsn;  /* views at or below it see a copy, see view.h */
	uint64_t as_of;     /* opening only: a checkpoint has what lower LSNs did to it */
	bool mark;          /* opening only: see checkpoint_load.c */
	bool named;         /* it has had a name */
	uint32_t mode, uid, gid;
	uint32_t nlinks, links_cap;
	struct link *links;
};

struct obj {
	struct obj *next;  /* guarded by the shard */
	uint64_t id;       /* immutable */
	uint64_t refs;     /* caller's references; guarded by the shard */
	uint64_t ns, hash; /* plain: its entry; guarded by the shard */
	uint64_t ref;      /* plain: its record; guarded by the shard */
	struct big *big;   /* guarded by the shard; freed through the epoch */
	bool orphan;       /* has no name; guarded by the shard */
};

struct objtab_shard {
	struct mutex lock;
	struct obj **slots;   /* power of two; guarded by lock */
	size_t nslots, count; /* guarded by lock */
};

/* A deadline that is taken off the queue and being looked at. */
struct expire_flight {
	struct expire_flight *next, **prev; /* guarded by ttl_lock */
	struct ttl_item item;
	uint64_t number; /* counts up */
	bool working;    /* not while on_expire runs; guarded by ttl_lock */
};

struct ckpt_settle;

/* What checkpoint.c keeps; see checkpoint.h. */
struct checkpointer {
	struct mutex lock;          /* one at a time */
	struct mutex gone_lock;     /* rank LOCK_GONE */
	_Atomic(bool) active;       /* one is being written; written under gone_lock */
	bool gone_failed;           /* no memory for gone; guarded by gone_lock */
	struct buf gone;            /* what went and came back meanwhile; guarded by gone_lock */
	struct ckpt_settle *settle; /* opening only: what the settled LSN brings */
	uint64_t dropped;           /* opening only: entries of the image without a segment */
	bool inexact;               /* opening only: records between its LSNs are gone */
	bool loaded;                /* opening only: from an image */
	bool lenient;               /* opening only: damage excuses that the image does not fit */
	uint64_t bytes;             /* size of the current image; 0: none; guarded by lock */
	_Atomic(uint64_t) backlog;  /* bytes that opening had to replay; atomic */
	_Atomic(uint64_t) base;     /* journal_tail() that is not in backlog; atomic */
	pthread_t thread;
	bool runs;              /* set at open, cleared at close */
	struct mutex wake_lock; /* rank LOCK_LEAF */
	struct cond wake;
	bool stop; /* guarded by wake_lock */
};

struct emdb_db {
	struct emdb_io *io;
	int dirfd, lockfd;     /* -1 in memory */
	struct superblock sb;  /* immutable after open */
	struct vault *vault;   /* keys; NULL: not encrypted; immutable after open */
	struct hash_seed seed; /* immutable after open */
	struct epoch epoch;
	struct journal *j;
	struct mutex snap_lock; /* one snapshot is made, removed or renamed at a time */
	unsigned int backups;   /* that run; guarded by snap_lock */
	struct rwlock structure;
	struct mutex stripes[STORE_STRIPES];
	struct hidx nstab;         /* mixed id -> struct ns * */
	struct ns *root;           /* immutable after open */
	struct compactor *compact; /* immutable after open; NULL: read-only */
	_Atomic(uint64_t) victim;  /* segment being emptied, 0: none; atomic */
	struct objtab_shard objs[STORE_SHARDS];
	struct mutex ttl_lock;
	struct ttl_heap ttl;           /* guarded by ttl_lock */
	struct expire_flight *flights; /* guarded by ttl_lock */
	uint64_t flights_begun;        /* guarded by ttl_lock */
	struct cond flight_cond;       /* with ttl_lock: one has landed or stopped working */
	struct checkpointer ckpt;
	struct {
		_Atomic(bool) active;          /* one at a time; atomic */
		_Atomic(uint64_t) done, total; /* bytes, of the one that runs; atomic */
	} scrub;
	struct views views;
	struct mutex txn_lock; /* rank LOCK_LEAF */
	struct emdb_txn *txns; /* open ones; guarded by txn_lock */

	/* Immutable after open. */
	enum emdb_flush_policy flush;
	bool read_only, memory, damaged, ordered;
	int64_t default_ttl_ms;
	enum emdb_verify verify;
	uint32_t group_window_us;
	uint32_t commit_interval_s, sweep_interval_ms; /* 0: never */
	void (*on_expire)(void *ctx, uint64_t parent, const void *key, size_t key_len, uint64_t id);
	void *on_expire_ctx;
	void (*log)(void *ctx, enum emdb_log_level level, const char *message);
	void *log_ctx;
	struct damage *damage; /* emdb_check() and emdb_repair(): see damage.h; else NULL */
	uint64_t replayed, open_us, torn_bytes;
	uint64_t replayed_records, replayed_bytes, skipped_bytes;
	uint64_t replay_from; /* LSN of the checkpoint that opening used; 0: none */
	const uint8_t *zeros; /* FMT_EXTENT_MAX zero bytes, for holes */

	_Atomic(bool) failed; /* memory and journal may differ: nothing is written any more */
	_Atomic(uint64_t) records, namespaces, expired; /* atomic */

	pthread_t sweeper;
	bool sweeper_runs; /* set at open, cleared at close */
	struct mutex sweep_lock;
	struct cond sweep_cond;
	bool stop; /* guarded by sweep_lock */
};

/* ---- Small things ------------------------------------------------------ */

static inline uint64_t mix64(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/*
 * The hash that orders a namespace.  The low three bits are free for the tie
 * in a directory position, and a position is never 0 to 7.
 */
static inline uint64_t entry_hash(const emdb_db *db, uint64_t ns, const void *key, size_t len)
{
	const uint64_t h = key_hash(&db->seed, ns, key, len) & ~UINT64_C(7);

	return h < 64 ? h + 64 : h;
}

static inline struct mutex *stripe_of(emdb_db *db, uint64_t hash)
{
	return &db->stripes[(hash >> 16) % STORE_STRIPES];
}

static inline uint64_t rec_id(const struct rec *r, uint64_t ref)
{
	return r->mask & REC_F_ID ? r->id : ref_lsn(ref) / 8;
}

/* The mode after somebody without the privilege wrote: set-uid goes, and a set-gid that counts. */
static inline uint32_t mode_without_suid(uint32_t mode)
{
	mode &= ~(uint32_t)S_ISUID;
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

static inline int64_t db_now_ns(emdb_db *db)
{
	return db->sb.frozen_ms ? db->sb.frozen_ms * 1000000 : (int64_t)io_clock_real_ns(db->io);
}

static inline int64_t db_now_ms(emdb_db *db)
{
	return db_now_ns(db) / 1000000;
}

/*
 * The longest piece of a value that goes into one record.  Half a frame at
 * most: keys, attributes and what compaction adds must fit beside it also
 * when segments are small.
 */
static inline size_t db_extent_max(const emdb_db *db)
{
	return min_size(FMT_EXTENT_MAX, (size_t)align_down(journal_payload_max(db->j) / 2, 4096));
}

/* memcpy out of mapped memory; IO when the disk does not deliver. */
emdb_err copy_mapped(void *dst, const void *src, size_t n);
/* memcmp() with mapped memory: IO when the disk does not deliver, else *ret_same. */
emdb_err same_mapped(const void *mapped, const void *p, size_t n, bool *ret_same);
/* Before mapped memory is written: a page that is not there must not be met half way.  IO. */
emdb_err mapped_there(const struct iovec *iov, int n);

struct damage;
/* How emdb_check() and emdb_repair() open a store. */
struct salvage {
	struct damage *damage;           /* learns of what is damaged */
	bool repair;                     /* for writing: see journal_config.repair */
	int lockfd;                      /* the store's lock, held already: borrowed; -1: take it */
	const struct superblock *super;  /* instead of the one on disk; may be NULL */
	const struct manifest *manifest; /* the same */
	struct emdb_io *io;              /* instead of the host's; may be NULL; borrowed */
};
/* emdb_open() of what is damaged, or was.  With damage opts->flags has EMDB_OPEN_SALVAGE. */
emdb_err db_open_salvage(const char *path, const struct emdb_options *opts, const struct salvage *s,
			 emdb_db **ret_db);

/*
 * emdb_open() of a snapshot of db, path being relative to db's directory.  Of an encrypted store it
 * needs no secret, when it has the same keys.
 */
emdb_err db_open_snapshot(const emdb_db *db, const char *path, const struct emdb_options *opts,
			  emdb_db **ret_db);

/* Ready for a change?  READ_ONLY or FAILED when not. */
emdb_err db_writable(emdb_db *db);

/* After journal_append succeeded and apply did not: memory lags behind the journal. */
emdb_err db_fail(emdb_db *db, emdb_err err);

/* The end of a write operation: durable at once under WRITE_THROUGH. */
emdb_err db_written(emdb_db *db);

/* ---- Entries (entry.c) -------------------------------------------------- */

/* An entry found; valid while the pin lasts. */
struct entry {
	uint64_t hash;
	uint64_t slot; /* as in the index, with flags */
	uint64_t ref;  /* for the journal: no index flags */
	uint64_t id;
	struct rec rec;
	struct segment *seg;
	bool lost; /* from entry_find_lost_pinned() */
};

static inline uint64_t slot_ref(uint64_t slot)
{
	return slot & ~(REF_EXPIRES | REF_SPECIAL);
}

/* NULL: no such namespace.  With dead ones, which only answer questions about themselves. */
struct ns *ns_any_pinned(emdb_db *db, uint64_t id);
/* Alive and attached. */
struct ns *ns_find_pinned(emdb_db *db, uint64_t id);

/*
 * The entry of key in ns.  raw: also one that has expired.  NOT_FOUND when
 * there is none; CORRUPT or IO when a record that may be it cannot be read.
 */
emdb_err entry_find_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, const void *key,
			   size_t key_len, bool raw, struct entry *ret);
/*
 * After entry_find_pinned() could not read a record: the entry that it was the record of.  The hash being a
 * secret of the store, no other key has it.  rec has its kind, NS and KEY; seg may be NULL; id is 0
 * unless it is a LINK or a namespace.  It may be read after all: then it is not lost.  NOT_FOUND: all records of
 * that hash can be read, and none has the key.
 */
emdb_err entry_find_lost_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, const void *key,
				size_t key_len, struct entry *ret);
/* What is known of the entry at a slot whose record cannot be read; its key is not. */
void entry_lost_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, uint64_t slot,
		       struct entry *ret);
/* Is it not absence what the error says, but a record that cannot be read? */
static inline bool is_loss(emdb_err err)
{
	return err == EMDB_ERR_CORRUPT || err == EMDB_ERR_IO;
}
/*
 * Sets kind and id of those slots with REF_SPECIAL that have no id, to what the index knows without their records:
 * the namespace or big object whose entry each is. They are of one namespace, in the order of their hashes.
 * Returns for how many there is neither. Costs a walk through all namespaces and big objects.
 */
size_t slots_name_pinned(emdb_db *db, const struct ns *ns, struct ckpt_slot *slots, size_t n);
/* The same of one; *ret_id 0: neither. */
void slot_names_pinned(emdb_db *db, const struct ns *ns, uint64_t hash, uint64_t slot,
		       uint8_t *ret_kind, uint64_t *ret_id);
/* Reads the record of one index slot.  NOT_FOUND: expired (unless raw). */
emdb_err entry_read_pinned(emdb_db *db, uint64_t hash, uint64_t slot, bool raw, struct entry *ret);
/* The deadline of an entry, of a LINK its object's; 0: never. */
int64_t entry_expires_pinned(emdb_db *db, const struct entry *e);
/* The attributes of what an entry names. */
emdb_err entry_attr_pinned(emdb_db *db, const struct entry *e, struct emdb_attr *ret);
/* A copy of its value, free with base_free(); a NUL follows.  IS_NS. */
emdb_err entry_value_pinned(emdb_db *db, const struct entry *e, void **ret_value, size_t *ret_len);
/* A copy of the value in a record; free with base_free().  A NUL follows that is not counted. */
emdb_err rec_value_copy(const struct rec *r, void **ret_value, size_t *ret_len);
/* Is the slot in the index? No two records have the same. -1: more have its hash than are looked at. */
int slot_stands_pinned(const struct ns *ns, uint64_t hash, uint64_t slot);
/* Does the index still say what it said when the entry was found? */
bool entry_stands_pinned(emdb_db *db, const struct ns *ns, const struct entry *e);
void rec_attr(emdb_db *db, const struct rec *r, uint64_t ref, struct emdb_attr *ret);
void ns_attr(const struct ns *ns, struct emdb_attr *ret);
/* Bytes that the record at ref takes in the journal. */
uint32_t ref_size_pinned(emdb_db *db, uint64_t ref);

/* ---- The ordered index (order.c) ----------------------------------------- */

/*
 * Every namespace has the keys of its entries in order, when the store is opened so.  It is built when
 * opening has recovered everything, and kept by apply.c from then on: not in a replay.
 */
emdb_err order_build(emdb_db *db);
static inline emdb_err order_add(struct ns *ns, const void *key, size_t key_len)
{
	return oidx_insert(ns->ord, key, key_len) ? EMDB_ERR_NOMEM : EMDB_OK;
}
static inline emdb_err order_remove(struct ns *ns, const void *key, size_t key_len)
{
	return oidx_remove(ns->ord, key, key_len) ? EMDB_ERR_NOMEM : EMDB_OK;
}

/* ---- Objects (objtab.c) -------------------------------------------------- */

/* What the table says of an object, copied; big stays allocated while the pin lasts. */
struct obj_view {
	uint64_t ns, hash, ref, refs;
	struct big *big;
	bool orphan;
};

int objtab_init(emdb_db *db);
void objtab_release(emdb_db *db);
bool objtab_get_pinned(emdb_db *db, uint64_t id, struct obj_view *ret);
/*
 * Takes a reference on a plain object found at ns/hash/ref; creates its row, and says what it has.
 * False: no memory.
 */
bool objtab_ref_plain(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref,
		      struct obj_view *ret);
/* The object is going to be looked for. */
void objtab_prefetch(emdb_db *db, uint64_t id);
/* Takes a reference on an object in the table, and says what that has.  False: not there. */
bool objtab_ref(emdb_db *db, uint64_t id, struct obj_view *ret);
/* Gives back references; the row and what only it kept alive go with the last. */
void objtab_unref(emdb_db *db, uint64_t id, uint64_t count);
/* A known plain object's record is elsewhere now. */
void objtab_moved(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref);
/* The same, unless it has lost its name; true when the row said something else. */
bool objtab_correct(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref);
/* A known plain object has lost its name. */
void objtab_orphan(emdb_db *db, uint64_t id);
/* The record of an orphan is elsewhere now (compaction). */
void objtab_orphan_moved(emdb_db *db, uint64_t id, uint64_t ref);
/* All known plain objects of a namespace have. */
void objtab_orphan_ns(emdb_db *db, uint64_t ns);
/* The big object, created when absent (a plain row turns big).  NULL: no memory. */
struct big *objtab_big(emdb_db *db, uint64_t id);
/* The object is plain again (the row stays while referenced). */
void objtab_unbig(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref);
/* A big object has no name left: freed, or kept for its references. */
void objtab_nameless(emdb_db *db, uint64_t id);
/* Appends to ret the ids of the rows of one shard that want() wants; NOMEM. */
emdb_err objtab_list(emdb_db *db, size_t shard, bool (*want)(void *ctx, const struct obj_view *v),
		     void *ctx, struct buf *ret);
/* Calls fn for each row that has a big; fn returns true to have it freed. */
void objtab_sweep_big(emdb_db *db, bool (*fn)(void *ctx, uint64_t id, struct big *big), void *ctx);
/* Appends the ids of the big objects of one shard. */
emdb_err objtab_big_ids(emdb_db *db, size_t shard, struct buf *ret);
void objtab_counts(emdb_db *db, uint64_t *ret_big, uint64_t *ret_known, uint64_t *ret_memory);

void big_attr(uint64_t id, struct big *big, struct emdb_attr *ret);
emdb_err big_link_add(struct big *big, uint64_t ns, uint64_t hash);
void big_link_remove(struct big *big, uint64_t ns, uint64_t hash);
/* extent_drop_fn: takes the bytes off the segment's live count; ctx is the db. */
void big_dropped(void *ctx, uint64_t ref, uint32_t len);

/* ---- Applying records (apply.c) ------------------------------------------ */

/* One frame's worth of applying. */
struct apply {
	emdb_db *db;
	bool replay;
	struct buf pending; /* ids (u64) of objects and namespaces that lost a name */
	uint64_t lsn;       /* of the record being applied */
};

#define APPLY_INIT(db_, replay_)              \
	{                                     \
		(db_), (replay_), BUF_INIT, 0 \
	}

/*
 * Changes memory as the record at ref says.  old: the entry it replaces as
 * already found (old_known; NULL: there is none), or looked up here.
 * size: bytes of the record in the journal.  Pinned.  After an error memory may be half
 * changed: the caller fails the store.
 */
emdb_err apply_rec(struct apply *a, const struct rec *r, uint64_t ref, uint32_t size,
		   bool old_known, const struct entry *old);
/* After the last record of a frame. */
emdb_err apply_end(struct apply *a);
/* Will apply_frame() find sense in every record of a batch? For a replay that goes on when it does not. */
bool apply_can(const struct frame *f);
/* A whole frame, batch or not. */
emdb_err apply_frame(struct apply *a, const struct frame *f);
/* After a replay: what nothing names goes. */
emdb_err apply_finish(emdb_db *db);
/* In a replay: the namespace went; those below it are told of by themselves.  Pinned. */
emdb_err apply_gone_ns(emdb_db *db, struct ns *ns);
/* Repair: an entry whose record is lost goes, without a record that says so.  Pinned. */
emdb_err apply_forget(emdb_db *db, struct ns *ns, const struct entry *e);
emdb_err ns_new(emdb_db *db, uint64_t id, struct ns **ret);
/* Frees a dead namespace that nobody references. */
void ns_maybe_free_pinned(emdb_db *db, struct ns *ns);
void ns_free_all(emdb_db *db);

/* ---- Holding what a writer needs ------------------------------------------- */

/* The structure lock one way or the other, a stripe when shared, and a pin. */
struct hold {
	emdb_db *db;
	bool exclusive;
	struct mutex *stripe;
	unsigned int pin;
};

void hold_begin(struct hold *h, emdb_db *db, bool exclusive);
/* The stripe of hash; nothing when the hold is exclusive.  One at a time. */
void hold_stripe(struct hold *h, uint64_t hash);
void hold_end(struct hold *h);

/* ---- Committing ------------------------------------------------------------ */

/*
 * Appends one record (value may be in pieces: value_iov, summing up to
 * r->value_len) and applies it.  The locks that the record needs are held.
 * reserve: JOURNAL_RESERVE.  On success *ret_ref (may be NULL) is the record's.
 */
emdb_err commit_rec(emdb_db *db, struct rec *r, const struct iovec *value_iov, int value_pieces,
		    unsigned int flags, bool old_known, const struct entry *old, uint64_t *ret_ref);

/* An id for an object that is made in several frames. */
emdb_err reserve_id(emdb_db *db, uint64_t *ret_id);

/* Several records as one atomic frame. */
struct batch {
	struct buf buf;
	uint32_t count;
};
#define BATCH_INIT          \
	{                   \
		BUF_INIT, 0 \
	}
emdb_err batch_add(struct batch *b, const struct rec *r);
/* Appends and applies; structure held exclusively.  Empty: does nothing. */
emdb_err batch_commit(emdb_db *db, struct batch *b, unsigned int flags);
/* The same, of a batch whose records are at hand, with the entry that each replaces (NULL: none). */
struct batch_known {
	struct rec rec;
	const struct entry *old;
};
emdb_err batch_commit_known(emdb_db *db, struct batch *b, struct batch_known *known);
void batch_release(struct batch *b);

/* ---- Records of an object as it is now (object.c) -------------------------- */

/* Fills r with a PUT that says what e says, key and all, at time now (ctime). */
void rec_of_plain(const struct entry *e, int64_t now_ns, struct rec *r);
/* Fills r with a DEL of e at time now. */
void rec_of_del(const struct entry *e, int64_t now_ns, struct rec *r);
/* Fills r with an INODE record of big; xattrs point into the journal (pinned). */
emdb_err rec_of_big(emdb_db *db, uint64_t id, struct big *big, int64_t now_ns, struct rec *r);
/* Fills r with an NS record; key and xattrs point into the journal (pinned). */
emdb_err rec_of_ns(emdb_db *db, const struct ns *ns, int64_t now_ns, struct rec *r);
/* Lays the wanted attributes (EMDB_SET_*, but the size) over a record of the present ones. */
void rec_set_attr(emdb_db *db, struct rec *r, const struct emdb_attr *attr, unsigned int set);
/* The blob of a record for attributes that an object is created with. */
emdb_err xattr_blob(const emdb_db *db, const struct emdb_xattr *xattrs, size_t n, struct buf *ret);
/*
 * Turns the plain object of entry e big, with this deadline; structure held
 * exclusively.  As records for a batch (link: keeping its name), and at once.
 */
emdb_err promote_batch(emdb_db *db, const struct entry *e, int64_t expires_ms, struct batch *b,
		       bool link);
emdb_err promote(emdb_db *db, uint64_t id);
/*
 * The deadline a new entry of ns gets; expires_ms as in emdb_put().  *ret 0:
 * none.  OVERFLOW: beyond what can be stored.
 */
emdb_err expiry_for(emdb_db *db, const struct ns *ns, int64_t expires_ms, int64_t *ret);

/*
 * Locks what a change of object id needs and finds it.  On success the
 * structure lock is held as `exclusive` asks, exclusively for a namespace, and when shared a stripe;
 * entry is filled for a plain object, view.big set for a big one, ns set for a
 * namespace.  Release with node_unlock().
 */
struct node {
	struct hold hold;
	emdb_db *db;
	uint64_t id;
	struct ns *ns;
	struct obj_view view;
	struct entry entry; /* plain */
};
emdb_err node_lock(emdb_db *db, uint64_t id, bool exclusive, struct node *ret);
/* The entry of a big object's i-th name; pinned, its stripe or structure held exclusively. */
emdb_err big_entry_pinned(emdb_db *db, uint64_t id, struct big *big, uint32_t i, struct entry *ret);
/* A plain object too large to be rewritten for a change of metadata. */
bool must_promote(const struct entry *e);
/* Commits `r` for a plain object with its value as it is; ret_ref as for commit_rec(). */
emdb_err commit_plain(struct node *n, struct rec *r, uint64_t *ret_ref);
void node_unlock(struct node *n);

/* Writes to an object that node_lock found (file.c). */
emdb_err node_write_locked(struct node *n, uint64_t offset, const void *data, size_t len,
			   unsigned int flags);
emdb_err node_truncate_locked(struct node *n, uint64_t size);
/* The deadline after a change of the content, by the basis of a namespace it is in. */
int64_t node_rearmed(emdb_db *db, uint64_t ns_id, int64_t expires_ms);

/* ---- Snapshots (snapshot.c) --------------------------------------------------- */

/* Removes what a crash left of snapshots that were being made or removed. */
void snapshot_tidy(emdb_db *db);

/* ---- Compaction (compact.c) ---------------------------------------------------- */

/* An object has got bytes that lie in db->victim. */
void compact_note_extent(emdb_db *db, uint64_t id);

/* ---- Expiry (expire.c) ------------------------------------------------------ */

emdb_err expire_push(emdb_db *db, int64_t expires_ms, uint64_t ns, uint64_t hash);
/*
 * Removes what is due, at most max entries; *ret_removed counts.  With
 * UINT64_MAX nothing of it is left on return, not even what others were just
 * removing.  Called without locks.
 */
emdb_err expire_step(emdb_db *db, uint64_t max, uint64_t *ret_removed);
int expire_start(emdb_db *db);
void expire_stop(emdb_db *db);

/* ---- Checkpoints (checkpoint.c) ---------------------------------------------- */

/*
 * A big object or a namespace went, or a big object is (back) there.  A big
 * object that goes without the structure lock goes under ckpt.gone_lock,
 * bytes and all: then call the second.
 */
void checkpoint_note(emdb_db *db, uint64_t id, bool gone);
void checkpoint_note_locked(emdb_db *db, uint64_t id, bool gone);

#endif
