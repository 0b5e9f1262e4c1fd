/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work: random operations on a store, and what the store may hold after a crash in the middle.
 *
 * Workers have keys of their own, in a namespace each with two more in it. Every worker keeps all
 * states that its part of the store went through, with the moments at which the operation that led
 * to it began and returned. After a crash each part must be in one of its states, not before what
 * was synced (or, when only the process died, acknowledged), and the parts together must be a
 * prefix: what returned before something else began is there when that is.
 *
 * One more hand makes checkpoints, compacts, moves the clock, makes snapshots and backups.
 */
#ifndef EMDB_CRASH_WORK_H
#define EMDB_CRASH_WORK_H

#include <pthread.h>

#include "core/emdb.h"
#include "tests/crash/simdisk.h"

#define WORKERS     3
#define SUBS        2
#define DIRS        (1 + SUBS)
#define DIR_KEYS    3
#define SLOTS       (DIRS * DIR_KEYS) /* slot i is key i / DIRS of directory i % DIRS */
#define MODS        5
#define HISTORY     512
#define FLUSHES     256
#define JUMPS       64
#define SNAPS       3 /* names */
#define SNAP_RECS   64
#define STORE_PATH  "/store"
#define BACKUP_PATH "/backup"

enum mod_kind { MOD_WRITE, MOD_CUT, MOD_HOLE };

/* What was done to a value after it was put. */
struct mod {
	enum mod_kind kind;
	uint32_t off, len;
	uint64_t seed;
};

/* Everything about an object follows from these numbers. */
struct object {
	bool used;
	uint64_t base; /* names size and bytes; EMPTY: none */
	uint32_t nmods;
	struct mod mods[MODS];
	uint64_t xattr; /* 0: none */
	int64_t expires_ms;
	uint64_t size, print; /* of the content */
};

struct state {
	bool top, sub[SUBS];
	int slot[SLOTS]; /* object; -1: no such key */
	struct object objs[SLOTS];
};

/* A moment: in the order of all calls, and in the order of what happened to the disk. */
struct moment {
	uint64_t ticket;
	size_t event;
};

struct past {
	struct state st;
	struct moment began, acked; /* ticket UINT64_MAX: not yet */
	bool durable;               /* once acknowledged, as after a flush */
	char what[80];
};

struct span {
	struct moment began, acked;
};

struct jump {
	size_t event;
	int64_t now_ns;
};

struct snap {
	int name; /* -1: a backup */
	struct span made, gone;
	const struct snap *origin; /* of a renamed one: what was made under another name */
	bool fixed;                /* of an earlier epoch: exactly these states */
	bool doubtful;    /* not acknowledged when the process died: power can still take it */
	struct state *st; /* WORKERS of them, with fixed; the origin's */
};

struct work {
	/* What is to be done. */
	uint64_t seed;
	unsigned int ops;     /* of each worker */
	unsigned int threads; /* 0: one after the other */
	bool through;         /* EMDB_FLUSH_WRITE_THROUGH */
	int key;              /* work_secret() that opens the store; -1: it is not encrypted */
	bool parted;          /* rolled back or converted: the backup is of another history */
	const uint8_t *skip;  /* per worker and operation, then per administrator's; NULL: none */

	/* What happened. */
	struct sim *sim;
	emdb_db *db;
	_Atomic(uint64_t) tickets;
	struct past *past[WORKERS];
	size_t npast[WORKERS];
	pthread_rwlock_t clock_lock; /* exclusive while the clock jumps */
	pthread_mutex_t lock;        /* guards the lists below */
	struct moment flushing;
	struct span flushes[FLUSHES];
	size_t nflushes;
	struct jump jumps[JUMPS];
	size_t njumps;
	struct snap snaps[SNAP_RECS];
	size_t nsnaps;
	struct snap kept[SNAPS + 1]; /* what the last check has found of them */
	size_t nkept;
	_Atomic(bool) broken;
	char text[2048]; /* what is wrong */
};

/* Which states of each worker are allowed. */
struct bounds {
	size_t lo[WORKERS], hi[WORKERS];
};

void work_init(struct work *w, uint64_t seed);
void work_release(struct work *w);

/* Opens (and creates) the store unless w->db is there, and works. False: see text. */
bool work_run(struct work *w);
/* Around a flush or an orderly end by the caller. */
void work_flushing(struct work *w);
void work_flushed(struct work *w);
/* What was found, as states. */
void work_found(const struct work *w, const size_t found[WORKERS], struct state st[WORKERS]);
/* A new epoch, from these states and the snapshots that were found, on another disk. */
void work_go_on(struct work *w, struct sim *sim, const struct state st[WORKERS], uint64_t seed);

const struct emdb_secret *work_secret(int key);
emdb_err work_open(struct work *w, emdb_db **ret_db);
/* The same without a complaint when that key is the wrong one. */
emdb_err work_open_with(struct work *w, int key, emdb_db **ret_db);

struct bounds work_bounds(const struct work *w, const struct sim_crash *c);
int64_t work_clock(const struct work *w, const struct sim_crash *c);
/* Is the store in a state that bounds allow? The latest such states go to found. */
bool work_check(struct work *w, emdb_db *db, const struct bounds *b, size_t found[WORKERS]);
/* Is it in exactly these states? Complains when not. */
bool work_is(struct work *w, emdb_db *db, const struct state st[WORKERS]);
/* Forgets a complaint. */
void pardon(struct work *w);
/* Are snapshots and backups what they should be? What they are is kept. */
void work_forget_snaps(struct work *w);
bool work_check_snaps(struct work *w, emdb_db *db, const struct sim_crash *c);
bool work_check_backup(struct work *w, const struct sim_crash *c);

/* What was skipped and done, for people. */
void work_print(const struct work *w, size_t upto_event);

/* The first complaint counts; always false. */
bool wrong(struct work *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
