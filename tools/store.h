/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that commands work on: opened here, or served by a daemon and asked
 * through its socket.  Commands need not know which.
 *
 * The functions do what those of core/emdb.h without the prefix do, with the
 * same errors; EMDB_ERR_IO also stands for a daemon that went away
 * (store_remark()).  One thread at a time.
 */
#ifndef TOOLS_STORE_H
#define TOOLS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"

struct store;

/*
 * Opens the store in a directory, or the one mounted there, with the given
 * options; detail is options->detail.  A store that a daemon serves is asked
 * through it, whatever the options say.
 */
emdb_err store_open(const char *path, const struct emdb_options *options, struct store **ret);
/* What was changed is durable if this returns EMDB_OK.  NULL is allowed. */
emdb_err store_close(struct store *s);
/* The directory of the store that a PATH means: of a mountpoint its store's; free with free(). */
char *store_directory(const char *path);
/*
 * The same for who needs the store for itself: a daemon whose mount is gone already gets a few seconds to
 * close it, because umount(8) does not wait for that.  A holder that stays is not waited for.
 */
char *store_at_rest(const char *path);
/* Why nothing works any more: the daemon is gone; "" when it is not that. */
const char *store_remark(const struct store *s);
/* The daemon's process id; 0: opened here. */
int64_t store_served_by(const struct store *s);

emdb_err store_ns_open(struct store *s, uint64_t parent, const void *name, size_t n,
		       uint64_t *ret_ns);
emdb_err store_ns_create(struct store *s, uint64_t parent, const void *name, size_t n,
			 uint64_t *ret_ns);
emdb_err store_ns_drop(struct store *s, uint64_t parent, const void *name, size_t n,
		       bool recursive);

/* The attributes; no reference is held. */
emdb_err store_lookup(struct store *s, uint64_t ns, const void *key, size_t n,
		      struct emdb_attr *ret_attr);
emdb_err store_readdir(struct store *s, uint64_t ns, uint64_t pos, emdb_readdir_fn fn, void *ctx);
emdb_err store_put(struct store *s, uint64_t ns, const void *key, size_t n, const void *value,
		   size_t len, int64_t expires_ms);
emdb_err store_remove(struct store *s, uint64_t ns, const void *key, size_t n);

/*
 * Large values, one at a time: store_value_open() or store_value_create(),
 * then reads or writes of at most STORE_PIECE bytes, then store_value_close().
 * A new value is there, at once and whole, after store_value_install(); one
 * that was closed before that never was.
 */
#define STORE_PIECE ((size_t)EMDB_SEGMENT_MIN / 2)
emdb_err store_value_open(struct store *s, uint64_t ns, const void *key, size_t n);
emdb_err store_value_read(struct store *s, uint64_t offset, void *buf, size_t len, size_t *ret_len);
emdb_err store_value_create(struct store *s, uint64_t ns);
emdb_err store_value_write(struct store *s, uint64_t offset, const void *data, size_t len);
emdb_err store_value_install(struct store *s, uint64_t ns, const void *key, size_t n,
			     int64_t expires_ms);
void store_value_close(struct store *s);

emdb_err store_ttl_get(struct store *s, uint64_t ns, const void *key, size_t n,
		       int64_t *ret_expires_ms);
emdb_err store_ttl_set(struct store *s, uint64_t ns, const void *key, size_t n, int64_t expires_ms);
emdb_err store_ns_ttl_get(struct store *s, uint64_t ns, int64_t *ret_default_ms);
emdb_err store_ns_ttl_set(struct store *s, uint64_t ns, int64_t default_ms);
int64_t store_now_ms(const struct store *s);

emdb_err store_sweep(struct store *s, uint64_t *ret_removed);
emdb_err store_flush(struct store *s);
emdb_err store_checkpoint(struct store *s);
emdb_err store_stats(struct store *s, struct emdb_stats *ret_stats);
/* ret_done is also set on errors, but not when a daemon was asked. */
emdb_err store_compact(struct store *s, const struct emdb_compact_options *opts,
		       struct emdb_compact_progress *ret_done);
/* ret_report is also set on errors, but not when a daemon was asked; found has its own ctx. */
emdb_err store_scrub(struct store *s, const struct emdb_scrub_options *opts,
		     struct emdb_scrub_report *ret_report);
/* The database behind it; NULL: a daemon has it. */
emdb_db *store_db(struct store *s);
emdb_err store_snapshot_create(struct store *s, const char *name, struct emdb_snapshot *ret);
emdb_err store_snapshot_delete(struct store *s, const char *name);
emdb_err store_snapshot_rename(struct store *s, const char *name, const char *new_name);
/* A daemon wants the target's absolute path; what opts->progress returns does not stop it. */
emdb_err store_backup(struct store *s, const char *target, const struct emdb_backup_options *opts,
		      struct emdb_backup_report *ret);
void store_uuid(const struct store *s, uint8_t ret_uuid[16]);

/* One kind of the kernel's requests to the daemon. */
#define STORE_BUCKETS_MAX 64
struct store_counter {
	const char *name; /* valid during the call */
	size_t name_len;
	uint64_t calls, ns_total;
	uint64_t buckets[STORE_BUCKETS_MAX]; /* answered in less than 1, 2, 4 ... us */
	size_t bucket_count;
};
/*
 * Calls fn for each; of a store opened here there are none.  before() is called first, if there
 * are any, and told whether the mount uses io_uring.
 */
emdb_err store_counters(struct store *s, void (*before)(void *ctx, bool over_uring),
			void (*fn)(void *ctx, const struct store_counter *c), void *ctx);

#endif
