/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb: an embedded, append-only, log-structured key-value store.
 *
 * A store is a directory that one process at a time has open.  It holds
 * namespaces (which nest), keys and values.  Every value is also an object
 * with a never reused 64-bit id and file metadata, so that a store can be
 * shown as a file system; programs that only want keys and values can ignore
 * that half of this header.
 *
 * Durability.  An operation that returned EMDB_OK survives the death of the
 * process.  It survives power loss once emdb_flush() returned EMDB_OK after
 * it, or the commit interval passed, or at once with EMDB_FLUSH_WRITE_THROUGH.
 * After any crash the store holds the result of a prefix of the operations.
 *
 * Threads.  Every function may be called from any thread at any time, except
 * where its comment says otherwise.  emdb_close() must be the last call.
 *
 * Fork.  A child of fork(2) must not use a store its parent opened, nor close
 * it.  It disturbs nobody; but should the parent die without closing the store,
 * the child keeps its lock until it ends or calls exec(3).  All descriptors are
 * close-on-exec.
 *
 * Results.  Functions return an emdb_err; results go to the last pointers,
 * which are left untouched on failure.  Nothing here prints or exits.
 *
 * Memory that the library hands out with "free with emdb_free()" belongs to
 * the caller.
 */
#ifndef EMDB_H
#define EMDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMDB_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define EMDB_API     __attribute__((visibility("default")))
#define EMDB_CHECKED __attribute__((warn_unused_result))
#else
#define EMDB_API
#define EMDB_CHECKED
#endif

/* ---- Limits ---------------------------------------------------------- */

/* Longest key, bytes.  The empty key is a key. */
#define EMDB_KEY_MAX 65535u
/* Largest value, bytes (the largest off_t the kernel lets a file have). */
#define EMDB_VALUE_MAX ((uint64_t)INT64_MAX - 4096u)
/* Largest extended attribute value, bytes, and name without NUL (xattr(7)). */
#define EMDB_XATTR_VALUE_MAX 65536u
#define EMDB_XATTR_NAME_MAX  255u
/* All extended attributes of one object together, bytes (segments below 4 MiB: nearly half of one). */
#define EMDB_XATTRS_MAX (1024u * 1024u)
/* Hard links to one object. */
#define EMDB_LINK_MAX 1000000u
/* Segment size, bytes: a power of two in this range. */
#define EMDB_SEGMENT_MIN     (1024u * 1024u)
#define EMDB_SEGMENT_MAX     (1024u * 1024u * 1024u)
#define EMDB_SEGMENT_DEFAULT (64u * 1024u * 1024u)
/* The namespace every store has: the root directory. */
#define EMDB_ROOT ((uint64_t)1)

/* ---- Errors ---------------------------------------------------------- */

/* 0 is success; the negative numbers never change their meaning. */
typedef enum emdb_err {
	EMDB_OK = 0,
	EMDB_ERR_INVAL = -1,           /* an argument is not allowed */
	EMDB_ERR_NOMEM = -2,           /* out of memory */
	EMDB_ERR_NOT_FOUND = -3,       /* no such key, namespace or object */
	EMDB_ERR_EXISTS = -4,          /* the name is taken */
	EMDB_ERR_NOT_NS = -5,          /* the name is a key, not a namespace */
	EMDB_ERR_IS_NS = -6,           /* the name is a namespace, not a key */
	EMDB_ERR_NOT_EMPTY = -7,       /* the namespace still has entries */
	EMDB_ERR_KEY_TOO_LONG = -8,    /* key beyond EMDB_KEY_MAX */
	EMDB_ERR_VALUE_TOO_LARGE = -9, /* value beyond a limit */
	EMDB_ERR_NO_SPACE = -10,       /* disk full; nothing was changed */
	EMDB_ERR_IO = -11,             /* the system failed a read or a write */
	EMDB_ERR_CORRUPT = -12,        /* stored bytes do not check out */
	EMDB_ERR_FAILED = -13,         /* an earlier write or sync failed: reopen */
	EMDB_ERR_READ_ONLY = -14,      /* opened read-only */
	EMDB_ERR_LOCKED = -15,         /* another process has the store open */
	EMDB_ERR_NO_STORE = -16,       /* there is no store at this path */
	EMDB_ERR_NOT_STORE = -17,      /* the path is something, but no store */
	EMDB_ERR_VERSION = -18,        /* made by a newer version or feature */
	EMDB_ERR_PERM = -19,           /* not allowed to open or change it */
	EMDB_ERR_NO_XATTR = -20,       /* no such extended attribute */
	EMDB_ERR_RANGE = -21,          /* the caller's buffer is too small */
	EMDB_ERR_TOO_MANY_LINKS = -22, /* beyond EMDB_LINK_MAX */
	EMDB_ERR_LOOP = -23,           /* a namespace cannot move into itself */
	EMDB_ERR_BUSY = -24,           /* in use right now */
	EMDB_ERR_UNSUPPORTED = -25,    /* not offered for this store or object */
	EMDB_ERR_OVERFLOW = -26,       /* a time or size beyond what can be stored */
	EMDB_ERR_TOO_MANY_FILES = -27, /* the process is out of descriptors */
	EMDB_ERR_HOLDER_ALIVE = -28,   /* the lock's holder still runs */
	EMDB_ERR_TXN_TOO_BIG = -29,    /* does not fit one atomic frame */
	EMDB_ERR_CONFLICT = -30,       /* a concurrent change came first */
	EMDB_ERR_KEY_REQUIRED = -31,   /* encrypted: a key or passphrase is needed */
	EMDB_ERR_WRONG_KEY = -32,      /* the key or passphrase opens no slot */
	EMDB_ERR_CANCELLED = -33,      /* the asynchronous operation was cancelled */
	EMDB_ERR_NOT_ORDERED = -34,    /* needs EMDB_OPEN_ORDERED */
	EMDB_ERR_DAMAGED = -35,        /* the journal is damaged: read-only or repair */
	EMDB_ERR_AGAIN = -36,          /* nothing there yet, or no room right now */
	EMDB_ERR_NOT_ENCRYPTED = -37,  /* a key was given, but the store is not encrypted */
	EMDB_ERR_COUNT_ = 38
} emdb_err;

/* A sentence in English; never NULL, static storage.  Unknown: says so. */
EMDB_API const char *emdb_strerror(emdb_err err);
/* The constant's name, for instance "EMDB_ERR_LOCKED". */
EMDB_API const char *emdb_err_name(emdb_err err);
/* The nearest errno (positive; 0 for EMDB_OK; EIO for unknown numbers). */
EMDB_API int emdb_err_errno(emdb_err err);

/*
 * What exactly went wrong, for a person: names the file, the offset and the
 * reason where there are any.  Filled by the functions that take one; text is
 * always NUL-terminated, empty when there is nothing to add.
 */
enum emdb_damage {
	EMDB_DAMAGE_PLACE = 0, /* bytes of a journal file do not check out */
	EMDB_DAMAGE_FILE,      /* another file of the store is missing or does not check out */
	EMDB_DAMAGE_LOST,      /* the entry `path` is lost; "" when its name is lost too */
	EMDB_DAMAGE_RANGE,     /* bytes from..from+len-1 of `path` are lost */
	EMDB_DAMAGE_META,      /* mode, owner, times or attributes of `path` are lost */
	EMDB_DAMAGE_OLDER,     /* a change of `path` is lost: what is there is older */
	EMDB_DAMAGE_ADRIFT,    /* the name of a namespace or file is lost */
	EMDB_DAMAGE_UNKNOWN,   /* changes of len bytes are lost, nobody knows of what */
	EMDB_DAMAGE_SNAPSHOT,  /* the snapshot `path` has damaged bytes too */
};

struct emdb_detail {
	char text[512];
	uint64_t segment; /* journal segment, UINT64_MAX: none */
	uint64_t offset;  /* byte offset in that file */
	/* Of emdb_check() and emdb_repair() only: what suffers. */
	enum emdb_damage damage;
	uint64_t from, len;
	/* As `emdb -x` takes it: %HH in a name stands for a byte; cut when longer. */
	char path[1024];
};

/* ---- Ciphers and secrets ------------------------------------------------ */

/* What seals a store: its keys, values, names, attributes, times; see "Encryption" below. */
enum emdb_cipher {
	EMDB_CIPHER_DEFAULT = 0, /* of a new encrypted store: the best for this machine */
	EMDB_CIPHER_AES_256_GCM = 1,
	EMDB_CIPHER_CHACHA20_POLY1305 = 2, /* the IETF variant */
};

enum emdb_secret_kind {
	EMDB_SECRET_PASSPHRASE = 1, /* 1 to EMDB_PASSPHRASE_MAX bytes, any */
	EMDB_SECRET_KEY = 2,        /* EMDB_RAW_KEY_SIZE random bytes */
	EMDB_SECRET_RECOVERY = 3,   /* text that emdb_recovery_key_new() made */
};
#define EMDB_PASSPHRASE_MAX 65536u
#define EMDB_RAW_KEY_SIZE   32u
#define EMDB_KEY_LABEL_MAX  31u

/*
 * What opens an encrypted store.  The library copies nothing of it beyond the call that
 * takes it and wipes what it derives; the caller wipes data.  No call changes it.
 */
struct emdb_secret {
	enum emdb_secret_kind kind;
	const void *data;
	size_t len;
	/*
	 * Only where it becomes the secret of a new key slot; else ignored.  label: a name for
	 * people, UTF-8 up to EMDB_KEY_LABEL_MAX bytes without control characters, stored in clear; may
	 * be NULL.  Cost of guessing a passphrase (Argon2id); 0: 65536 KiB (64 MiB), 3, 4; at most
	 * EMDB_KDF_MEMORY_MAX_KIB, EMDB_KDF_PASSES_MAX, EMDB_KDF_LANES_MAX.
	 */
	const char *label;
	uint32_t kdf_memory_kib, kdf_passes, kdf_lanes;
};
#define EMDB_KDF_MEMORY_MAX_KIB (1024u * 1024u)
#define EMDB_KDF_PASSES_MAX     16u
#define EMDB_KDF_LANES_MAX      16u

/* ---- Opening --------------------------------------------------------- */

typedef struct emdb_db emdb_db;

enum emdb_flush_policy {
	EMDB_FLUSH_EACH = 0,      /* flush at once; concurrent callers coalesce */
	EMDB_FLUSH_GROUP,         /* the leader waits group_window_us for others */
	EMDB_FLUSH_WRITE_THROUGH, /* every operation durable before it returns */
};

enum emdb_verify {
	EMDB_VERIFY_FIRST = 0, /* check a frame's CRC at its first read */
	EMDB_VERIFY_ALWAYS,
	EMDB_VERIFY_NEVER,
};

/* emdb_options.flags */
#define EMDB_OPEN_CREATE    0x01u /* create the store when there is none */
#define EMDB_OPEN_EXCLUSIVE 0x02u /* with CREATE: fail when there is one */
#define EMDB_OPEN_READ_ONLY 0x04u /* change nothing; nothing expires by sweep */
#define EMDB_OPEN_NO_URING  0x08u /* plain system calls only */
#define EMDB_OPEN_ORDERED   0x10u /* keep all keys in order: emdb_range_new() */
#define EMDB_OPEN_SALVAGE   0x20u /* with READ_ONLY: open a damaged store, show the rest */

enum emdb_log_level { EMDB_LOG_DEBUG, EMDB_LOG_INFO, EMDB_LOG_WARN, EMDB_LOG_ERROR };

/*
 * Every field's zero is its default.  Set size to sizeof(struct emdb_options).
 * The struct is copied by emdb_open(); strings need not outlive the call.
 */
struct emdb_options {
	size_t size;
	unsigned int flags;
	uint64_t segment_bytes; /* at creation; 0: EMDB_SEGMENT_DEFAULT */
	enum emdb_flush_policy flush;
	uint32_t group_window_us;  /* EMDB_FLUSH_GROUP; 0: 500 */
	int32_t commit_interval_s; /* background flush; 0: 5 s, negative: never */
	int32_t sweep_interval_ms; /* expiry sweeper; 0: 250 ms, negative: never */
	enum emdb_verify verify;
	int64_t default_ttl_ms; /* new values expire after; 0: never */
	/* Share of a segment that must be dead before it is compacted unasked; 0: 50, negative: never. */
	int32_t compact_percent;
	/* Unasked compaction, bytes/s while others write and garbage is within its limit; 0: 64 MiB. */
	uint64_t compact_rate;
	/*
	 * The limit: up to so many bytes of garbage wait for a quiet moment.  0: as many as are live, at least
	 * eight segments; in memory a quarter of the live ones, at least one segment.
	 */
	uint64_t compact_wait_bytes;
	struct emdb_detail *detail; /* out, when opening fails; may be NULL */
	/*
	 * The secret of an encrypted store; NULL: none.  Creating one with it makes the
	 * store encrypted with `cipher`, and it the secret of key slot 0.  Read until
	 * emdb_open() returns, not copied.  A snapshot opened through its store needs none.
	 */
	const struct emdb_secret *secret;
	enum emdb_cipher cipher; /* at creation, with secret */
	/* Called from any thread, must not call back into the library. */
	void (*log)(void *ctx, enum emdb_log_level level, const char *message);
	void *log_ctx;
	/*
	 * Called after an entry expired and was removed, from the sweeper's
	 * thread or from a call that came upon it, without locks held; may
	 * call the library, must not block.
	 */
	void (*on_expire)(void *ctx, uint64_t parent, const void *key, size_t key_len, uint64_t id);
	void *on_expire_ctx;
};

/*
 * Opens the store in directory `path`.  Takes the store's lock (also
 * read-only: then shared).  Recovers after a crash; a damaged journal is
 * EMDB_ERR_DAMAGED with detail, and nothing on disk is changed.  opts may be
 * NULL.  An encrypted store needs opts->secret; whether it is right is known before any
 * data is read.  That takes a second with a passphrase.
 * Errors: NO_STORE, NOT_STORE, EXISTS, LOCKED, VERSION, DAMAGED, PERM,
 * NO_SPACE, IO, NOMEM (also: none for the cost of the passphrase), INVAL (also:
 * an empty passphrase, a key of another length, a damaged recovery key), KEY_REQUIRED, WRONG_KEY,
 * NOT_ENCRYPTED (a secret was given: somebody may have exchanged the store),
 * CORRUPT (a superblock that was changed), UNSUPPORTED (AES on a machine without it).
 */
EMDB_API EMDB_CHECKED emdb_err emdb_open(const char *path, const struct emdb_options *opts,
					 emdb_db **ret_db);

/*
 * A store by name, in ROOT/APP/DATABASE.  Names are up to 255 bytes without slash, backslash and
 * control characters, not dots alone; blanks around them do not count; NULL or blank: "emdb" and
 * "default".  root, NULL or empty: $XDG_DATA_HOME, or ~/.local/share; these are not looked at in
 * programs with raised privileges.  size is sizeof(struct emdb_app).
 */
struct emdb_app {
	size_t size;
	const char *app, *database, *root;
};
/*
 * emdb_open() of that store; app may be NULL.  With EMDB_OPEN_CREATE the directories that lead there
 * are created too, for the owner alone.  Errors: INVAL (a name, or there is no root; detail
 * says which) and those of emdb_open().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_open_app(const struct emdb_app *app,
					     const struct emdb_options *opts, emdb_db **ret_db);
/* Its path, with a NUL, free with emdb_free(); nothing is looked at.  Errors: INVAL, NOMEM. */
EMDB_API EMDB_CHECKED emdb_err emdb_app_path(const struct emdb_app *app, char **ret_path);

/* Opens an empty store that lives in memory and vanishes at close. */
EMDB_API EMDB_CHECKED emdb_err emdb_open_memory(const struct emdb_options *opts, emdb_db **ret_db);

/*
 * Flushes, writes a checkpoint, releases the lock, frees everything.  Every
 * iterator must have been freed; references (emdb_ref) may outlive it and
 * keep their bytes.  The store is closed whatever is returned; the error
 * says that the last flush failed.  db may be NULL.
 */
EMDB_API emdb_err emdb_close(emdb_db *db);

struct emdb_lock_info {
	bool held;  /* somebody has the store open right now */
	bool stale; /* not held, but the last holder did not close it */
	int64_t pid;
	int64_t since_ms; /* Unix time the holder opened it, ms */
	char host[256];
	char boot_id[64];
	char version[64];
};

/* Who has, or last had, the store open.  Errors: NO_STORE, NOT_STORE, IO, PERM. */
EMDB_API EMDB_CHECKED emdb_err emdb_lock_holder(const char *path, struct emdb_lock_info *ret_info);
/*
 * Clears what a dead holder left behind.  HOLDER_ALIVE while it lives: a lock
 * that is held is never broken (the kernel drops a dead process's flock by itself).
 */
EMDB_API EMDB_CHECKED emdb_err emdb_break_lock(const char *path);

EMDB_API void emdb_free(void *p);

/* ---- Keys and values ------------------------------------------------- */

/* Times are ms since 1970-01-01 UTC.  For expires_ms: */
#define EMDB_TTL_DEFAULT ((int64_t)0)  /* what the namespace or store says */
#define EMDB_TTL_NEVER   ((int64_t)-1) /* keep for ever, whatever the default */

/*
 * Stores value under key, replacing what was there.  A replaced value's
 * object keeps its id; its deadline is replaced by expires_ms.
 * Errors: KEY_TOO_LONG, VALUE_TOO_LARGE, IS_NS (a namespace has the name),
 * NOT_FOUND (no such namespace), NO_SPACE, READ_ONLY, FAILED, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_put(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
					const void *value, size_t value_len, int64_t expires_ms);

/*
 * A copy of the value; free with emdb_free().  A NUL follows it that is not
 * counted.  Errors: NOT_FOUND, IS_NS, CORRUPT, IO, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_get(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
					void **ret_value, size_t *ret_len);

/*
 * A value without a copy where it lies in one piece.  The bytes stay valid
 * and unchanged until emdb_ref_release(), whatever happens to the key, also
 * beyond emdb_close().  Touching them can raise SIGBUS when the disk fails
 * to deliver a page; emdb_get() instead returns EMDB_ERR_IO then.
 */
struct emdb_ref {
	const void *data;
	size_t len;
	void *owner_; /* private */
	unsigned int kind_;
};
EMDB_API EMDB_CHECKED emdb_err emdb_get_ref(emdb_db *db, uint64_t ns, const void *key,
					    size_t key_len, struct emdb_ref *ret_ref);
EMDB_API void emdb_ref_release(struct emdb_ref *ref);

/*
 * Removes the key.  When ret_value is not NULL the removed value is handed
 * over (free with emdb_free()).  Errors: NOT_FOUND (also when it expired),
 * IS_NS, and those of emdb_put().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_remove(emdb_db *db, uint64_t ns, const void *key,
					   size_t key_len, void **ret_value, size_t *ret_len);
EMDB_API EMDB_CHECKED emdb_err emdb_contains(emdb_db *db, uint64_t ns, const void *key,
					     size_t key_len, bool *ret_found);
/* Entries of one namespace (namespaces in it included), expired ones not counted. */
EMDB_API EMDB_CHECKED emdb_err emdb_count(emdb_db *db, uint64_t ns, uint64_t *ret_count);
/* Whether emdb_count() would be 0, without counting.  Errors: NOT_FOUND. */
EMDB_API EMDB_CHECKED emdb_err emdb_is_empty(emdb_db *db, uint64_t ns, bool *ret_empty);
/* Removes every entry of a namespace, those of nested ones included; atomic. */
EMDB_API EMDB_CHECKED emdb_err emdb_clear(emdb_db *db, uint64_t ns);

struct emdb_item {
	const void *key;
	size_t key_len;
	const void *value;
	size_t value_len;
	int64_t expires_ms;
	bool remove; /* remove the key instead; value is ignored */
};
/*
 * Stores n items atomically, in order: of duplicates the last wins.  All or
 * none is there after a crash, and iterators and transactions see all or none.  Removing an absent key is no error here.  An
 * object with other names keeps its value there: this name gets an object of its own.
 * Errors: those of emdb_put(), TXN_TOO_BIG (about one segment).
 */
EMDB_API EMDB_CHECKED emdb_err emdb_put_many(emdb_db *db, uint64_t ns,
					     const struct emdb_item *items, size_t n);

struct emdb_value {
	const void *data;
	size_t len;
};
/*
 * Compare and set: if the key has the value `expected` (NULL: if it is absent), it gets the value
 * `desired` and the deadline, or is removed (NULL).  Atomic: of several that try the same at once,
 * one succeeds.  What has expired is absent.  Errors: CONFLICT (something else is there) and those
 * of emdb_put() and emdb_get().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_cas(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
					const struct emdb_value *expected,
					const struct emdb_value *desired, int64_t expires_ms);

/* ---- Iteration ------------------------------------------------------- */

typedef struct emdb_iter emdb_iter;

struct emdb_entry {
	const void *key; /* valid until the next call on the iterator */
	size_t key_len;
	const void *value; /* NULL unless EMDB_ITER_VALUES; namespaces have none */
	size_t value_len;
	uint64_t id;
	int64_t expires_ms; /* 0: never */
	bool is_ns;
};

#define EMDB_ITER_VALUES 0x1u /* also hand out values */
#define EMDB_ITER_KEYS   0x2u /* skip namespaces */
#define EMDB_ITER_NS     0x4u /* only namespaces */
#define EMDB_ITER_LIVE   0x8u /* not of one moment, see below */

/*
 * Walks one namespace in no particular order, as it was at the moment of this call: what others
 * change meanwhile is not seen, what they remove still is.  What has expired, by the clock at each
 * step, is skipped.  Others are held up for an instant only.  Until the iterator is freed, memory and
 * the room of segments that are compacted grow with what others replace or remove, not with what
 * there is.  The first change of a large value after that copies the list of its pieces, 32 bytes for
 * each, while it is locked: 1 GiB in pieces of 4 KiB has 8 MiB of them, for which its readers and
 * this writer wait.  One thread at a time per iterator.
 * Errors: NOT_FOUND (no such namespace), INVAL, NOMEM.
 *
 * EMDB_ITER_LIVE: cheaper, no moment: entries present during the whole walk come exactly once,
 * those that come or go meanwhile may or may not.  Nobody is held up, nothing is kept for it.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_iter_new(emdb_db *db, uint64_t ns, unsigned int flags,
					     emdb_iter **ret_iter);
/*
 * EMDB_ERR_NOT_FOUND at the end.  CORRUPT, IO: this entry is damaged, call again to go on.  NOMEM:
 * also when memory was short for what others replaced; then the walk cannot go on.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_iter_next(emdb_iter *iter, struct emdb_entry *ret_entry);
EMDB_API void emdb_iter_free(emdb_iter *iter);

/* ---- Ranges -------------------------------------------------------------- */

/* emdb_range.flags, beside EMDB_ITER_* */
#define EMDB_RANGE_REVERSE      0x100u /* from the last key to the first */
#define EMDB_RANGE_TO_INCLUSIVE 0x200u /* the key `to` itself is in the range */

/*
 * Which keys of a namespace, and in which direction.  Keys are ordered as memcmp(3) does, a key
 * before those that it is the start of.  from, after and to are meant in walking direction: in
 * reverse, from is the highest key and to the lowest.  NULL pointers are no bounds; a pointer with
 * length 0 is the empty key.  All that is given applies together.  Every field's zero is its default;
 * set size to sizeof(struct emdb_range).
 */
struct emdb_range {
	size_t size;
	unsigned int flags;
	const void *from; /* starts with this key, or the next */
	size_t from_len;
	const void *after; /* starts behind this key: for paging, the last one of the page before */
	size_t after_len;
	const void *to; /* ends before this key, or with it: EMDB_RANGE_TO_INCLUSIVE */
	size_t to_len;
	const void *prefix; /* only keys that start with this */
	size_t prefix_len;
	uint64_t limit; /* at most so many entries; 0: all */
};

/*
 * Walks a range of one namespace in order.  range may be NULL: everything; what it points to is
 * copied.  Go on with emdb_iter_next() and emdb_iter_free().  Not of one moment, unlike emdb_iter_new():
 * others may change the store meanwhile:
 * entries present during the whole walk come exactly once and in order; those that come or
 * go may or may not.  A handful of entries is read at once, so that what is handed out may have
 * been replaced or removed an instant ago; what has expired by then is skipped.
 * Keys and values stay valid until the next call on the iterator.  Memory use is bounded:
 * some dozens of keys and small values, and one large value.
 *
 * The store must have been opened with EMDB_OPEN_ORDERED, which keeps all keys in memory, in
 * order: a key of n bytes takes about n + 3, less where keys start alike.
 * When entries were damaged as the store was opened, nobody knows their keys: a walk over their namespace
 * begins with CORRUPT, and goes on with the others.
 *
 * Errors: NOT_ORDERED, NOT_FOUND (no such namespace), KEY_TOO_LONG, INVAL, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_range_new(emdb_db *db, uint64_t ns,
					      const struct emdb_range *range, emdb_iter **ret_iter);

/* ---- Transactions ----------------------------------------------------- */

/*
 * Several changes, in any namespaces, as one: after a crash all of them are there or none, and no
 * other transaction or iterator ever sees a part of them.
 *
 * A transaction reads the store as it was when it began, and its own writes.  Nothing is locked;
 * its writes stay in memory until the commit.  The commit fails with CONFLICT, and changes
 * nothing, if since the beginning anybody else changed a key that the transaction read or wrote
 * (present or absent), or anything in a namespace that it iterated (so there are no phantoms
 * there).  Those that commit are therefore serialisable: the same as if each had run alone at the
 * moment of its commit.  One that wrote nothing never conflicts; it is as if it had run when
 * it began.  That a key expires is no conflict: time passes for everybody.  A change of an
 * entry's metadata counts as a change.  Whether a namespace exists is known as of the beginning;
 * one that is dropped meanwhile is a conflict.
 *
 * Limits: the writes fit one segment, else TXN_TOO_BIG.  Values beyond 1 MiB (nearly half a segment
 * where segments are smaller) do not count: they are written ahead, at the beginning of the commit,
 * which holds other writers up meanwhile.
 * Keys that were read take memory (about 100 bytes and the key) until the end.
 *
 * One thread at a time per transaction and its iterators.  Others go on meanwhile, of the same
 * thread too: what they change is not seen, and may be a conflict.  What is left open at
 * emdb_close() is aborted.
 */
typedef struct emdb_txn emdb_txn;

/* emdb_txn_options.flags */
#define EMDB_TXN_READ_ONLY 0x1u /* a consistent reader: writes fail with READ_ONLY */
/*
 * Only writes are compared at commit, not reads: snapshot isolation.  Reading takes no memory, and two
 * that each write what the other reads may both commit.
 */
#define EMDB_TXN_SNAPSHOT 0x2u

/* Every field's zero is its default; size is sizeof(struct emdb_txn_options). */
struct emdb_txn_options {
	size_t size;
	unsigned int flags;
};

/* opts may be NULL.  Errors: INVAL, NOMEM. */
EMDB_API EMDB_CHECKED emdb_err emdb_txn_begin(emdb_db *db, const struct emdb_txn_options *opts,
					      emdb_txn **ret_txn);
/*
 * As emdb_put(), to take effect at commit; a default lifetime counts from now.  Errors: KEY_TOO_LONG,
 * VALUE_TOO_LARGE, IS_NS, NOT_FOUND (no such namespace), TXN_TOO_BIG (what was written before
 * stays), OVERFLOW, INVAL (the deadline), CONFLICT (the namespace is gone), READ_ONLY, FAILED, NOMEM,
 * CORRUPT, IO.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_txn_put(emdb_txn *txn, uint64_t ns, const void *key,
					    size_t key_len, const void *value, size_t value_len,
					    int64_t expires_ms);
/* Errors: NOT_FOUND (the transaction does not see the key) and those of emdb_txn_put(). */
EMDB_API EMDB_CHECKED emdb_err emdb_txn_remove(emdb_txn *txn, uint64_t ns, const void *key,
					       size_t key_len);
/* As emdb_get() and emdb_contains(), as the transaction sees it. */
EMDB_API EMDB_CHECKED emdb_err emdb_txn_get(emdb_txn *txn, uint64_t ns, const void *key,
					    size_t key_len, void **ret_value, size_t *ret_len);
EMDB_API EMDB_CHECKED emdb_err emdb_txn_contains(emdb_txn *txn, uint64_t ns, const void *key,
						 size_t key_len, bool *ret_found);
/*
 * As emdb_iter_new(), own writes merged: keys written before this call, with what they have when
 * the walk comes to them; of keys that are only written later what they had.  Ids of what the
 * transaction wrote are 0.  To be freed as any iterator; once the transaction is over it gives INVAL.
 * EMDB_ITER_LIVE is INVAL.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_txn_iter(emdb_txn *txn, uint64_t ns, unsigned int flags,
					     emdb_iter **ret_iter);
#define EMDB_COMMIT_DURABLE 0x1u /* on stable storage before the call returns, as emdb_flush() */
/*
 * The transaction is over and freed, whatever is returned.  Errors: CONFLICT, TXN_TOO_BIG, NO_SPACE,
 * READ_ONLY, FAILED, IO, CORRUPT, NOMEM, INVAL: nothing was changed; but with DURABLE, or under
 * EMDB_FLUSH_WRITE_THROUGH, FAILED and IO can also mean that all was changed and may not be durable.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_txn_commit(emdb_txn *txn, unsigned int flags);
/* Rolls back: nothing happened.  txn may be NULL. */
EMDB_API void emdb_txn_abort(emdb_txn *txn);

/* ---- Namespaces ------------------------------------------------------ */

/* Creates `name` in namespace `parent`.  Errors: EXISTS, NOT_FOUND and those of emdb_put(). */
EMDB_API EMDB_CHECKED emdb_err emdb_ns_create(emdb_db *db, uint64_t parent, const void *name,
					      size_t name_len, uint64_t *ret_ns);
/* Finds it.  Errors: NOT_FOUND, NOT_NS. */
EMDB_API EMDB_CHECKED emdb_err emdb_ns_open(emdb_db *db, uint64_t parent, const void *name,
					    size_t name_len, uint64_t *ret_ns);
/* Finds it or creates it.  Errors: NOT_NS (a key has the name), NOT_FOUND (no such parent), as above. */
EMDB_API EMDB_CHECKED emdb_err emdb_ns_ensure(emdb_db *db, uint64_t parent, const void *name,
					      size_t name_len, uint64_t *ret_ns);
/*
 * Removes the namespace.  With entries in it: NOT_EMPTY, unless recursive,
 * which removes everything below in one atomic step.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_ns_drop(emdb_db *db, uint64_t parent, const void *name,
					    size_t name_len, bool recursive);

/* ---- Groups ------------------------------------------------------------ */

/*
 * Keys of one namespace that begin with the same words, with dots between: "user.7.name" and
 * "user.7.mail" are in the groups "user.7" and "user"; "user.7" itself and "user.71.name" are not
 * in "user.7".  A group is nothing that is stored.  In a store with an ordered index walking and
 * removing one takes time with its size, elsewhere with that of the namespace.
 */

/*
 * Walks the keys of a group, whole keys, as an iterator: in order, as emdb_range_new(), where the
 * store has an ordered index, else as emdb_iter_new().  flags: EMDB_ITER_VALUES, EMDB_ITER_LIVE.
 * Errors: INVAL (the prefix is empty, or a flag), KEY_TOO_LONG and those of emdb_iter_new().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_group_iter(emdb_db *db, uint64_t ns, const void *prefix,
					       size_t prefix_len, unsigned int flags,
					       emdb_iter **ret_iter);
/*
 * Removes the keys of a group, namespaces not, some hundred at a time as one.  What others put into
 * it meanwhile may stay.  *ret_removed (may be NULL) is also set when it fails half way.  Errors: as
 * emdb_group_iter() and emdb_remove().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_group_delete(emdb_db *db, uint64_t ns, const void *prefix,
						 size_t prefix_len, uint64_t *ret_removed);

/*
 * A handle that puts a prefix and a dot in front of keys.  With an empty prefix keys are as they are,
 * and there is no group: emdb_focus_iter() and _delete_all() say INVAL.  It has no state but the
 * prefix: any number of threads may use it at once; the store must outlive it.
 */
typedef struct emdb_focus emdb_focus;
/* Errors: KEY_TOO_LONG, NOMEM.  Whether the namespace is there is found out when it is used. */
EMDB_API EMDB_CHECKED emdb_err emdb_focus_new(emdb_db *db, uint64_t ns, const void *prefix,
					      size_t prefix_len, emdb_focus **ret_focus);
/* One below another: "a" and then "b" is "a.b".  The first may be freed before the second. */
EMDB_API EMDB_CHECKED emdb_err emdb_focus_sub(const emdb_focus *focus, const void *sub,
					      size_t sub_len, emdb_focus **ret_focus);
EMDB_API void emdb_focus_free(emdb_focus *focus);
/* Its whole prefix, without the last dot; valid as long as the handle. */
EMDB_API const void *emdb_focus_prefix(const emdb_focus *focus, size_t *ret_len);
/* As emdb_put(), emdb_put_ttl(), emdb_get(), emdb_remove() and emdb_contains() with the whole key. */
EMDB_API EMDB_CHECKED emdb_err emdb_focus_set(const emdb_focus *focus, const void *key,
					      size_t key_len, const void *value, size_t value_len,
					      int64_t expires_ms);
EMDB_API EMDB_CHECKED emdb_err emdb_focus_set_ttl(const emdb_focus *focus, const void *key,
						  size_t key_len, const void *value,
						  size_t value_len, int64_t ttl_ms);
EMDB_API EMDB_CHECKED emdb_err emdb_focus_get(const emdb_focus *focus, const void *key,
					      size_t key_len, void **ret_value, size_t *ret_len);
EMDB_API EMDB_CHECKED emdb_err emdb_focus_remove(const emdb_focus *focus, const void *key,
						 size_t key_len, void **ret_value, size_t *ret_len);
EMDB_API EMDB_CHECKED emdb_err emdb_focus_contains(const emdb_focus *focus, const void *key,
						   size_t key_len, bool *ret_found);
/* As emdb_group_iter() and emdb_group_delete() of its prefix. */
EMDB_API EMDB_CHECKED emdb_err emdb_focus_iter(const emdb_focus *focus, unsigned int flags,
					       emdb_iter **ret_iter);
EMDB_API EMDB_CHECKED emdb_err emdb_focus_delete_all(const emdb_focus *focus,
						     uint64_t *ret_removed);

/* ---- Time to live ---------------------------------------------------- */

/* The deadline, 0: none.  Errors: NOT_FOUND (also expired), IS_NS. */
EMDB_API EMDB_CHECKED emdb_err emdb_ttl_get(emdb_db *db, uint64_t ns, const void *key,
					    size_t key_len, int64_t *ret_expires_ms);
/* How long it will live, ms, at least 1; EMDB_TTL_NEVER.  Errors as above. */
EMDB_API EMDB_CHECKED emdb_err emdb_ttl_remaining(emdb_db *db, uint64_t ns, const void *key,
						  size_t key_len, int64_t *ret_ms);
/* The deadline of what lives ttl_ms from now on.  Errors: INVAL (negative), OVERFLOW (after 9999). */
EMDB_API EMDB_CHECKED emdb_err emdb_expires_after(emdb_db *db, int64_t ttl_ms,
						  int64_t *ret_expires_ms);
/* emdb_put() with a lifetime, ms; 0: it has expired already.  Errors: also INVAL, OVERFLOW. */
EMDB_API EMDB_CHECKED emdb_err emdb_put_ttl(emdb_db *db, uint64_t ns, const void *key,
					    size_t key_len, const void *value, size_t value_len,
					    int64_t ttl_ms);
/*
 * EMDB_TTL_NEVER: persist.  A time in the past removes the key now.  What has expired is never
 * brought back.  Errors, of the next two also: NOT_FOUND (also expired), IS_NS, INVAL, OVERFLOW
 * (beyond the year 9999), KEY_TOO_LONG, NO_SPACE, READ_ONLY, FAILED, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_ttl_set(emdb_db *db, uint64_t ns, const void *key,
					    size_t key_len, int64_t expires_ms);
/* Keeps it for ever; ret_had_deadline may be NULL. */
EMDB_API EMDB_CHECKED emdb_err emdb_ttl_persist(emdb_db *db, uint64_t ns, const void *key,
						size_t key_len, bool *ret_had_deadline);
/* by_ms (> 0) later than its deadline, than now when it has none; ret_expires_ms may be NULL. */
EMDB_API EMDB_CHECKED emdb_err emdb_ttl_extend(emdb_db *db, uint64_t ns, const void *key,
					       size_t key_len, int64_t by_ms,
					       int64_t *ret_expires_ms);
/*
 * Default lifetime in ms of new values in a namespace (new namespaces in it inherit it); 0: none.
 * Errors: NOT_FOUND, INVAL (negative), OVERFLOW (would end after 9999), and those of emdb_put().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_ns_ttl_set(emdb_db *db, uint64_t ns, int64_t default_ms);
EMDB_API EMDB_CHECKED emdb_err emdb_ns_ttl_get(emdb_db *db, uint64_t ns, int64_t *ret_default_ms);
/* Removes what has expired, at once; says how many entries went. */
EMDB_API EMDB_CHECKED emdb_err emdb_sweep(emdb_db *db, uint64_t *ret_removed);
/* The store's clock, ms; stands still in a read-only snapshot. */
EMDB_API int64_t emdb_now_ms(emdb_db *db);
/*
 * Reads a lifetime or deadline as people write it: 90, 90s, 1h30m, 7d, 500ms,
 * +1h (extends current_ms), @1712345678, RFC 3339, none.  now_ms and
 * current_ms (0: none) are what relative forms refer to.  *ret_expires_ms is
 * EMDB_TTL_NEVER for none.  Errors: INVAL, OVERFLOW; s need not end in NUL.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_ttl_parse(const char *s, size_t n, int64_t now_ms,
					      int64_t current_ms, int64_t *ret_expires_ms);
/* Reads a plain duration (1h30m) into ms. */
EMDB_API EMDB_CHECKED emdb_err emdb_duration_parse(const char *s, size_t n, int64_t *ret_ms);

/* ---- Durability and operations --------------------------------------- */

/* Everything acknowledged before the call is durable when it returns EMDB_OK. */
EMDB_API EMDB_CHECKED emdb_err emdb_flush(emdb_db *db);
/*
 * The same without waiting: done(ctx, err) is called from the flusher's
 * thread, or before return when nothing is to be done.  One sync serves all
 * that wait.  done must not block.
 */
EMDB_API void emdb_flush_async(emdb_db *db, void (*done)(void *ctx, emdb_err err), void *ctx);
/* Saves the index, so that the next open need not replay the journal. */
EMDB_API EMDB_CHECKED emdb_err emdb_checkpoint(emdb_db *db);

/*
 * Compaction.  Deleted and overwritten data take room in the journal until
 * the segment they are in is compacted: what still counts in it is copied to
 * the journal's end, then the segment goes.  That happens by itself in the
 * background (option compact_percent), the segments with the largest share of garbage first; emdb_compact()
 * does it now, all that is worth it, without waiting for anything.
 *
 * In the background it waits until nobody works: 100 ms with hardly an operation, and it stops within 10 ms
 * once somebody works again.  It does not wait for ever.  Garbage that has waited for a minute is
 * compacted in a sixteenth of the time.  Garbage beyond the limit (option compact_wait_bytes, but never
 * more than a quarter of the disk's free space) is compacted in a share of the time that grows with it; a
 * quarter above the limit that is all of it, as it is at once on a tight disk: less than four segments free.
 */
enum emdb_compact_state {
	EMDB_COMPACT_RESTS = 0, /* nothing is worth it */
	EMDB_COMPACT_WAITS,     /* until nobody works */
	EMDB_COMPACT_QUIET,     /* goes on: nobody works */
	EMDB_COMPACT_AGED,      /* a sixteenth of the time: it has waited for long */
	EMDB_COMPACT_LIMIT,     /* more garbage than may wait */
	EMDB_COMPACT_TIGHT,     /* hardly any room on the disk */
};
struct emdb_compact_progress {
	uint64_t segments, segments_done; /* those to be compacted */
	uint64_t total_bytes, done_bytes; /* their length, and how much of it has been looked at */
	uint64_t copied_bytes;            /* what had to be written again */
	uint64_t freed_bytes;             /* given back to the host */
};
struct emdb_compact_options {
	size_t size;               /* sizeof(struct emdb_compact_options) */
	uint32_t min_dead_percent; /* leave segments of which less is dead; 0: a few percent */
	uint64_t bytes_per_second; /* of copying; 0: no limit */
	/* Called now and then from the calling thread, without locks; false: stop. */
	bool (*progress)(void *ctx, const struct emdb_compact_progress *p);
	void *ctx;
};
/*
 * Compacts what is worth it, oldest segments first.  Others read and write
 * meanwhile.  Room for one segment must be there, or less if less of each counts.
 * A segment whose bytes somebody is reading right now goes a little later,
 * after return.  opts and ret_done may be NULL; ret_done is also set on errors.
 * Errors: CANCELLED (progress said so), CORRUPT or IO (a damaged segment stays;
 * the others were done), NO_SPACE, READ_ONLY, FAILED, NOMEM, INVAL.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_compact(emdb_db *db, const struct emdb_compact_options *opts,
					    struct emdb_compact_progress *ret_done);

#define EMDB_GROUP_BUCKETS 12
struct emdb_stats {
	uint64_t records;    /* keys, all namespaces */
	uint64_t namespaces; /* without the root */
	uint64_t objects;    /* promoted objects in memory */
	uint64_t known;      /* objects the caller holds a reference on */
	uint64_t expiring;   /* entries with a deadline */
	uint64_t segments;
	uint64_t segment_bytes;      /* size of one segment */
	uint64_t journal_bytes;      /* written frames */
	uint64_t preallocated_bytes; /* on disk for what will be written */
	uint64_t live_bytes;         /* frames that still count */
	uint64_t dead_bytes;         /* the others */
	uint64_t reclaimable_bytes;  /* what compaction would free now */
	uint64_t index_bytes;        /* memory of the indexes */
	uint64_t tail_lsn;
	uint64_t durable_lsn;
	uint64_t appends;                        /* frames since open */
	uint64_t flushes;                        /* flush calls since open */
	uint64_t syncs;                          /* fdatasync calls since open */
	uint64_t group_size[EMDB_GROUP_BUCKETS]; /* flushes served by one sync: 1,2,3-4,5-8,... */
	uint64_t expired;                        /* entries removed by expiry since open */
	uint64_t replayed;                       /* frames replayed at open */
	uint64_t open_us;                        /* how long opening took */
	uint64_t torn_bytes;                     /* cut from the end at open */
	uint64_t compactions;                    /* segments reclaimed since open */
	uint64_t compacted_bytes;                /* frames copied by compaction since open */
	uint64_t recycled;                       /* segments made of the files of reclaimed ones */
	uint64_t compact_done_bytes,
		compact_total_bytes; /* of the segment being compacted; 0: none */
	uint64_t checkpoint_lsn;     /* replay would start here */
	uint64_t fs_total_bytes, fs_free_bytes, fs_avail_bytes; /* the host's file system */
	uint64_t views;      /* open iterators and transactions */
	uint64_t view_bytes; /* memory that keeps for them what others replaced */
	uint64_t scrub_done_bytes, scrub_total_bytes; /* of the scrub that runs; 0: none does */
	uint64_t scrub_ended_ms;                      /* Unix time of the last one; 0: never */
	uint64_t scrub_bytes;                         /* that it read */
	uint64_t scrub_damaged;                       /* places that it found */
	uint64_t scrub_lost_entries;                  /* and entries that suffer from them */
	/* The options in force.  0 of an interval, a lifetime or a share: never. */
	uint64_t flush_policy; /* enum emdb_flush_policy */
	uint64_t verify;       /* enum emdb_verify */
	uint64_t group_window_us, commit_interval_s, sweep_interval_ms, default_ttl_ms;
	uint64_t compact_percent, compact_rate;
	uint64_t compact_limit_bytes; /* reclaimable bytes that may wait, as things are now */
	uint64_t compact_state;       /* enum emdb_compact_state */
	bool ordered;
	bool scrub_complete; /* it came to its end */
	bool io_uring;
	bool read_only;
	bool failed; /* sticky: a write or sync failed */
	bool encrypted;
	bool low_space; /* no room for another segment: only removal works */
	bool damaged;
};
/* Looks at every namespace and known object: for people, not for every request. */
EMDB_API EMDB_CHECKED emdb_err emdb_stats_get(emdb_db *db, struct emdb_stats *ret_stats);
struct emdb_space {
	uint64_t total_bytes, free_bytes, avail_bytes; /* the host's file system; 0 in memory */
	uint64_t entries;                              /* keys and namespaces, the root included */
};
/* What statvfs(3) wants to know, in constant time. */
EMDB_API EMDB_CHECKED emdb_err emdb_space_get(emdb_db *db, struct emdb_space *ret_space);
/* 16 bytes that identify the store. */
EMDB_API void emdb_uuid(emdb_db *db, uint8_t ret_uuid[16]);

struct emdb_check_report {
	uint64_t frames, records, bytes; /* checked and good */
	uint64_t bad_frames;             /* damaged places in the journal */
	uint64_t lost_bytes;             /* in them */
	uint64_t lost_entries;           /* entries of which all or something is lost */
	uint64_t doubtful_entries;       /* of which a later change is lost */
	uint64_t unknown_bytes;          /* of lost_bytes: changes, nobody knows of what */
};
/*
 * Reads and verifies every frame, the files that opening reads, and the copy of the superblock; found(ctx, detail)
 * is called for each damaged place, then for each entry that suffers from it, by path: detail->damage says how.
 * CORRUPT when there was one.  Changes nothing.  path must not be open for writing.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_check(const char *path,
					  void (*found)(void *ctx,
							const struct emdb_detail *detail),
					  void *ctx, struct emdb_check_report *ret_report);

/* The same of an encrypted store; errors also as emdb_open(). */
EMDB_API EMDB_CHECKED emdb_err emdb_check_secret(const char *path, const struct emdb_secret *secret,
						 void (*found)(void *ctx,
							       const struct emdb_detail *detail),
						 void *ctx, struct emdb_check_report *ret_report);

/* Bytes done and in all; returns false to stop: CANCELLED.  Called from the caller's thread. */
typedef bool (*emdb_progress_fn)(void *ctx, uint64_t done, uint64_t total);

/*
 * A scrub reads again all that the store has on its disk, snapshots included, while it is in use, and verifies
 * it.  Bytes come from the disk itself, past the kernel's cache, where the file system offers that
 * (O_DIRECT), so that rot is found which no reader has met yet.
 */
#define EMDB_SCRUB_RATE (UINT64_C(50) * 1024 * 1024) /* bytes/s that most disks can spare */

/* Every field's zero is its default. */
struct emdb_scrub_options {
	size_t size;               /* sizeof(struct emdb_scrub_options) */
	uint64_t bytes_per_second; /* 0: no limit; see EMDB_SCRUB_RATE */
	emdb_progress_fn progress; /* every 50 ms at least; may be NULL */
	void *progress_ctx;
	/*
	 * Called for each damaged place (PLACE, FILE), for each snapshot that has it too (SNAPSHOT), and at
	 * the end, by path, for what counts now in the store and suffers from it.  May be NULL.
	 */
	void (*found)(void *ctx, const struct emdb_detail *detail);
	void *found_ctx;
};
struct emdb_scrub_report {
	bool complete;              /* neither stopped nor ended by an error */
	int64_t began_ms, ended_ms; /* Unix time */
	uint64_t bytes, frames;     /* read; good */
	uint64_t cached_bytes;      /* of bytes: not past the cache, the file system cannot */
	uint64_t damaged;           /* places, in all files */
	uint64_t damaged_bytes;     /* in them */
	uint64_t lost_entries;      /* of the store as it is now */
	uint64_t skipped_bytes;     /* of segments that were compacted or removed meanwhile */
};
/*
 * Verifies what was acknowledged before the call.  Nobody is held up: others read, write, compact, make
 * and remove snapshots meanwhile.  Holds in memory at most the largest frame there is, and 1 MiB.
 * What it found is kept in the store for emdb_stats_get(), unless it opened read-only.  opts and
 * ret_report may be NULL; ret_report is also set on errors but INVAL, UNSUPPORTED and BUSY.
 * Errors: CORRUPT (something is damaged), CANCELLED, BUSY (one runs already), UNSUPPORTED (in memory),
 * INVAL, NOMEM, TOO_MANY_FILES, IO.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_scrub(emdb_db *db, const struct emdb_scrub_options *opts,
					  struct emdb_scrub_report *ret_report);

/* ---- Encryption ---------------------------------------------------------- */

/*
 * An encrypted store seals every record and checkpoint under a random data key.  In clear
 * are how many frames there are, their lengths and kinds, when segments were made, and key slots' labels.
 * Each key slot holds the data key, sealed with what is derived from one
 * passphrase or key; any one of them opens the store.  Adding, removing and changing them takes the
 * same time whatever the store's size, and leaves the data key as it is: who
 * has an old copy of the superblock and the secret that was removed can read what that
 * data key seals.  emdb_rotate() puts an end to that.
 *
 * These functions take the path of a store that nobody has open (else LOCKED; detail names the
 * holder), unless their comment says otherwise.  A snapshot or backup has slots of its own;
 * those of snapshots in the store follow it.  detail may be NULL.
 */
#define EMDB_KEY_SLOTS 8u

struct emdb_key_slot {
	enum emdb_secret_kind kind; /* 0: the slot is free */
	char label[EMDB_KEY_LABEL_MAX + 1];
	int64_t created_ms;                             /* Unix time */
	uint32_t kdf_memory_kib, kdf_passes, kdf_lanes; /* of a passphrase */
};
struct emdb_encryption {
	enum emdb_cipher cipher; /* EMDB_CIPHER_DEFAULT: the store is not encrypted */
	uint32_t used;           /* slots that are not free */
	struct emdb_key_slot slots[EMDB_KEY_SLOTS];
	/* A conversion (encrypt, decrypt, rotate) was interrupted; the same call goes on with it. */
	bool encrypting, decrypting, rotating;
};

/* "aes-256-gcm", "chacha20-poly1305"; "none" for EMDB_CIPHER_DEFAULT and unknown numbers. */
EMDB_API const char *emdb_cipher_name(enum emdb_cipher cipher);
/* The reverse, in small letters only ("none" is not one).  INVAL. */
EMDB_API EMDB_CHECKED emdb_err emdb_cipher_parse(const char *name, enum emdb_cipher *ret_cipher);
/* Can this machine do it?  EMDB_CIPHER_DEFAULT: always. */
EMDB_API bool emdb_cipher_available(enum emdb_cipher cipher);

/*
 * Cipher and slots of the store at path; needs no secret, and the store may be in use.  Not
 * verified: only a secret can tell whether somebody changed them.
 * Errors: NO_STORE, NOT_STORE, VERSION, CORRUPT, IO, PERM, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_encryption_get(const char *path,
						   struct emdb_encryption *ret_encryption);
/*
 * Does the secret open the store?  It may be in use.  ret_slot may be NULL.
 * Errors: WRONG_KEY, NOT_ENCRYPTED, INVAL, CORRUPT (superblock changed) and those of emdb_encryption_get().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_key_check(const char *path, const struct emdb_secret *secret,
					      uint32_t *ret_slot);
/*
 * Lets new_secret open the store as well.  Durable on return, old or new at any moment.
 * Errors: WRONG_KEY (secret), NO_SPACE (no free slot, or no room), EXISTS (new_secret opens it
 * already), INVAL, NOT_ENCRYPTED, LOCKED, CORRUPT, READ_ONLY (a snapshot or a backup), IO, PERM, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_key_add(const char *path, const struct emdb_secret *secret,
					    const struct emdb_secret *new_secret,
					    uint32_t *ret_slot, struct emdb_detail *detail);
/* Puts new_secret in the place of secret.  Errors as emdb_key_add(). */
EMDB_API EMDB_CHECKED emdb_err emdb_key_change(const char *path, const struct emdb_secret *secret,
					       const struct emdb_secret *new_secret,
					       uint32_t *ret_slot, struct emdb_detail *detail);
/*
 * Frees a slot; secret opens the store by this or another one.
 * Errors: NOT_FOUND (no such slot, or free), BUSY (it is the last one) and those of emdb_key_add().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_key_remove(const char *path, const struct emdb_secret *secret,
					       uint32_t slot, struct emdb_detail *detail);

/*
 * A new random recovery key, as text for paper: 14 groups of 4 letters and digits (base32 without
 * the ones that look alike) with a checksum, and a NUL.  It opens nothing until emdb_key_add() has it as
 * a secret of kind EMDB_SECRET_RECOVERY.  Reading it back, case, spaces and hyphens do not
 * matter; a typing error is INVAL, not WRONG_KEY.  Errors: IO (no randomness).
 */
#define EMDB_RECOVERY_TEXT_SIZE 72u
EMDB_API EMDB_CHECKED emdb_err emdb_recovery_key_new(char ret_text[EMDB_RECOVERY_TEXT_SIZE]);

/* Every field's zero is its default; size is sizeof(struct emdb_convert_options). */
struct emdb_convert_options {
	size_t size;
	enum emdb_cipher cipher; /* emdb_encrypt: DEFAULT the best; emdb_rotate: DEFAULT the same */
	emdb_progress_fn progress; /* may be NULL */
	void *progress_ctx;
	struct emdb_detail *detail; /* out, when it fails; may be NULL */
};
/*
 * Three ways to write a store again: encrypted, decrypted, under a new data key.  Ids, times,
 * deadlines, attributes, links, LSNs and snapshots stay what they are (snapshots are converted with
 * the store; backups elsewhere are not).  Needs room for a second copy until it is through.  What a
 * crash, a kill or CANCELLED leaves is the old store, whole, or the new one, whole; the same
 * call then goes on where it stopped, and a call of another kind begins anew.  On success none of the old files
 * is left.  (Their blocks may still be read from the raw device until it writes over or trims them.)
 * Errors, the store being as it was: LOCKED, CANCELLED, NO_SPACE, CORRUPT or DAMAGED (what is
 * not whole cannot be converted), KEY_REQUIRED, WRONG_KEY, INVAL, READ_ONLY (path is a snapshot or a
 * backup), UNSUPPORTED (not offered yet, or the cipher is not on this machine), IO, PERM, NOMEM.
 */
/* secret becomes that of slot 0.  EXISTS: the store is encrypted already. */
EMDB_API EMDB_CHECKED emdb_err emdb_encrypt(const char *path, const struct emdb_secret *secret,
					    const struct emdb_convert_options *opts);
/* NOT_ENCRYPTED: it is not. */
EMDB_API EMDB_CHECKED emdb_err emdb_decrypt(const char *path, const struct emdb_secret *secret,
					    const struct emdb_convert_options *opts);
/*
 * The new data key goes into the slots of the n secrets (n > 0), all of which must open the store; the other
 * slots are gone afterwards, for only their secrets could be used to seal it for them.
 * Cost and label of a slot stay unless its secret here says otherwise.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_rotate(const char *path, const struct emdb_secret *secrets,
					   size_t n, const struct emdb_convert_options *opts);
/*
 * Repair: makes a damaged store one that opens for writing again, with everything readable in it, and says
 * what was lost.
 */
#define EMDB_REPAIR_DRY_RUN 0x1u /* change nothing, only say what would be lost */
/* Every field's zero is its default. */
struct emdb_repair_options {
	size_t size; /* sizeof(struct emdb_repair_options) */
	unsigned int flags;
	const char *target;               /* repair a copy there, absent or empty; NULL: in place */
	const struct emdb_secret *secret; /* of an encrypted store */
	const char *backup; /* take segments from this backup or snapshot that it has intact */
	/* Called for everything that emdb_check() would tell, what was done last. */
	void (*found)(void *ctx, const struct emdb_detail *detail);
	void *ctx;
	struct emdb_detail *detail; /* out, when it fails; may be NULL */
};
struct emdb_repair_report {
	bool intact;            /* there was nothing to do, and nothing was done */
	bool super_rebuilt;     /* the superblock was made anew: see emdb_repair() */
	bool manifest_rebuilt;  /* the list of segments was, from the segments */
	uint64_t places;        /* damaged places of the journal */
	uint64_t damaged_bytes; /* in them */
	uint64_t
		unknown_bytes; /* of them changes since the last checkpoint, of nobody knows what */
	uint64_t restored_segments; /* that the backup had intact: nothing of them is lost */
	uint64_t lost_entries;      /* entries that are gone */
	uint64_t lost_ranges;       /* pieces of values that are gone: reading them is an error */
	uint64_t lost_meta;         /* files whose metadata or attributes are gone */
	uint64_t older;             /* entries in lost+found since a later change of them is gone */
	uint64_t adrift;  /* files and namespaces in lost+found since their name is gone */
	uint64_t renamed; /* that have their old name again */
	char kept[64];    /* where the old files are, in the store; "": nothing was replaced */
};
/*
 * The store at path must not be open.  What it does:
 *  - a superblock that is damaged comes from STORE/superblock.bak, a snapshot or the backup, or is made
 *    from the segments.  Not when the store is encrypted, for its key slots are there and nowhere else: then it is
 *    NOT_STORE, nothing is changed, and detail says what helps.  No superblock is taken that what is in
 *    the segments does not fit, so that an encrypted store never becomes a plain one;
 *  - a manifest that is damaged is made from the segments that are there;
 *  - entries whose value is damaged are removed, for good: older versions do not come back;
 *  - what is damaged in large values stays an error to read, the rest of them is there;
 *  - what lost its name, and what is there in a state that a damaged record changed later, moves to the namespace
 *    `lost+found`, so that nothing wrong stands under any name;
 *  - damaged records since the last checkpoint that do not even say whose they were are counted
 *    (unknown_bytes): what they changed is as it was before.  This is the one way in which something
 *    deleted can come back.
 * Every file that is replaced or given up is kept in STORE/lost/N.  Until the last step,
 * which is atomic, the store refuses to open as before; interrupted, emdb_repair() is called again
 * (what it left at target is then removed first).
 * Snapshots share damaged segments: found is told which of them.
 * opts may be NULL; ret_report too.  Errors: NO_STORE, NOT_STORE, LOCKED, READ_ONLY (a backup or snapshot: use
 * target), EXISTS (target), VERSION, NO_SPACE, IO, PERM, NOMEM, INVAL; KEY_REQUIRED, WRONG_KEY,
 * NOT_ENCRYPTED, before anything is changed; CORRUPT or DAMAGED: the result does not open, as detail says.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_repair(const char *path, const struct emdb_repair_options *opts,
					   struct emdb_repair_report *ret_report);

/* ---- Snapshots --------------------------------------------------------- */

/*
 * A snapshot is the whole store, all namespaces, as it was between two
 * operations.  It lies in STORE/snapshots/NAME, shares the files of the journal
 * with the store, and is a store itself that opens read-only: with
 * emdb_open(), which needs nothing from the live store, or with
 * emdb_snapshot_open().  Ids, times and bytes are those of that moment.  Its
 * clock stands still there: what had expired is not in it, nothing expires in it
 * any more.  Names are 1 to 255 bytes without '/' and control bytes that do not begin
 * with a dot.  Creating, removing and renaming are atomic, whatever happens.
 */
#define EMDB_SNAPSHOT_NAME_MAX 255u
/* No snapshot has this name; emdb_snapshot_get() and _open() take it for the newest. */
#define EMDB_SNAPSHOT_LATEST "latest"
struct emdb_snapshot {
	char name[EMDB_SNAPSHOT_NAME_MAX + 1];
	uint64_t number;    /* from 1 on, in order of creation, never reused */
	int64_t created_ns; /* when, to the ms; where its clock stands */
	uint64_t lsn;       /* holds every record below */
	uint64_t bytes;     /* of journal, most of them shared with the store */
	emdb_err err;       /* why it cannot be opened: the fields above are then 0 */
};

/*
 * Makes a snapshot of everything acknowledged before the call, and makes it
 * durable.  Takes a time that depends on the number of segments; writers wait
 * for microseconds of it.  ret may be NULL.
 * Errors: INVAL (the name), EXISTS, READ_ONLY, NO_SPACE, FAILED, IO, NOMEM,
 * UNSUPPORTED (in memory, or the host's file system has no hard links).
 */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_create(emdb_db *db, const char *name,
						    struct emdb_snapshot *ret);
/* Who has it open keeps it.  Errors: NOT_FOUND, INVAL, READ_ONLY, IO, NOMEM. */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_delete(emdb_db *db, const char *name);
/* Errors: NOT_FOUND, EXISTS, INVAL, READ_ONLY, IO. */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_rename(emdb_db *db, const char *name,
						    const char *new_name);
/* Returns false to stop. */
typedef bool (*emdb_snapshot_fn)(void *ctx, const struct emdb_snapshot *snapshot);
/* Calls fn for each, the oldest first; no lock is held meanwhile.  Errors: IO, NOMEM. */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_list(emdb_db *db, emdb_snapshot_fn fn, void *ctx);
/* The same for the store at path, which may be in use.  Errors: also NO_STORE, NOT_STORE, PERM. */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_list_at(const char *path, emdb_snapshot_fn fn,
						     void *ctx);
/* What is known of one.  Errors: NOT_FOUND, INVAL, IO, NOMEM. */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_get(emdb_db *db, const char *name,
						 struct emdb_snapshot *ret);
/*
 * Opens it: a store of its own, for all that does not change anything, to be
 * closed with emdb_close() before or after the live one.  opts as for emdb_open(), NULL too;
 * EMDB_OPEN_READ_ONLY goes without saying.  Errors: NOT_FOUND, INVAL and those of emdb_open().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_snapshot_open(emdb_db *db, const char *name,
						  const struct emdb_options *opts,
						  emdb_db **ret_snapshot);

/* ---- Backup, restore, rollback ------------------------------------------ */

/* emdb_backup_options.flags */
#define EMDB_BACKUP_COPY 0x1u /* share nothing with the source: neither reflinks nor links */

/* Every field's zero is its default; size is sizeof(struct emdb_backup_options). */
struct emdb_backup_options {
	size_t size;
	unsigned int flags;
	emdb_progress_fn progress; /* may be NULL */
	void *progress_ctx;
	struct emdb_detail *detail; /* out, when it fails; may be NULL */
};

struct emdb_backup_report {
	bool incremental;   /* the target was an earlier backup */
	int64_t created_ns; /* the moment that the backup holds */
	uint64_t lsn;       /* it holds every record below */
	uint64_t segments;  /* in the backup */
	uint64_t bytes;     /* in them */
	uint64_t copied;    /* segments that were copied, each frame checked */
	uint64_t shared;    /* that share their bytes with the source */
	uint64_t copied_bytes;
};

/*
 * Writes the store as it is now to the directory `target`: a store of its own
 * that opens read-only, its clock standing still, like a snapshot.  db is open
 * for writing (others go on working meanwhile), or is a snapshot or a backup
 * itself.  The target is absent or empty, and then appears complete or not at
 * all; or it is an earlier backup of the same store: then only segments that it does not have
 * are brought there, and at every moment it is the one or the other
 * state.  Bytes are shared (reflinks, else hard links) when both are on one file system.
 * opts and ret_report may be NULL.  Errors, the target being left as it was: INVAL (the
 * target lies in a store), NOT_STORE (the target is something else), EXISTS (another store's
 * backup, or a live store), CONFLICT (the backup is of another history of the
 * store: one of them was rolled back or restored), LOCKED (the target is in use), CANCELLED,
 * CORRUPT (a source segment does not check out), READ_ONLY, NO_SPACE, IO, PERM, NOMEM, UNSUPPORTED.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_backup(emdb_db *db, const char *target,
					   const struct emdb_backup_options *opts,
					   struct emdb_backup_report *ret_report);
/*
 * Makes a live store at `target`, absent or empty, out of a backup or a
 * snapshot; all at once or not at all.  Time goes on in it.  Errors: NO_STORE, NOT_STORE
 * (source: not a backup nor a snapshot) and those of emdb_backup().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_restore(const char *source, const char *target,
					    const struct emdb_backup_options *opts,
					    struct emdb_backup_report *ret_report);

#define EMDB_ROLLBACK_PAST_NEWER 0x1u /* also to one that is not the newest */
/*
 * Takes the store at path, which nobody has open, back to one of its
 * snapshots; atomic.  What was written since is gone, unless a snapshot has it; snapshots
 * stay as they are.  Ids are not given twice.  Errors: NOT_FOUND (no such
 * snapshot), CONFLICT (newer snapshots exist and the flag is not set), LOCKED, NO_STORE, NOT_STORE,
 * CORRUPT, DAMAGED (of the snapshot), NO_SPACE, IO, PERM, NOMEM.  detail may be NULL.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_rollback(const char *path, const char *name, unsigned int flags,
					     struct emdb_detail *detail);

/* ---- Asynchronous operations ------------------------------------------- */

/*
 * A queue takes operations without blocking, does them in threads of its own and hands
 * out their completions: by a callback, or to whoever polls.  Its descriptor is readable
 * while completions wait, so that it fits select, poll, epoll and io_uring loops.  What is in
 * flight is bounded, and so is its memory: from submission until its completion
 * was taken an operation counts towards options.depth, and beyond that
 * emdb_async_submit() answers EMDB_ERR_AGAIN.
 *
 * Order.  With one thread operations are done in the order of their submission.  With
 * more, those in flight together may be done in any order, also on one key.
 *
 * Threads.  Every function may be called from any thread, also from a completion's
 * callback, except emdb_async_free().  Free every stream and then the queue before emdb_close().
 */
typedef struct emdb_async emdb_async;

#define EMDB_ASYNC_THREADS_MAX 64u
#define EMDB_ASYNC_DEPTH_MAX   (1024u * 1024u)

/* Every field's zero is its default; size is sizeof(struct emdb_async_options). */
struct emdb_async_options {
	size_t size;
	uint32_t threads; /* 0: 2; at most EMDB_ASYNC_THREADS_MAX */
	uint32_t depth;   /* operations in flight; 0: 1024; at most EMDB_ASYNC_DEPTH_MAX */
};

/* opts may be NULL.  Errors: INVAL, NOMEM (also: no threads to be had), TOO_MANY_FILES. */
EMDB_API EMDB_CHECKED emdb_err emdb_async_new(emdb_db *db, const struct emdb_async_options *opts,
					      emdb_async **ret_async);
/*
 * Cancels what has not begun (callbacks are told), waits for what has, drops completions
 * that nobody took, and frees everything.  async may be NULL.
 */
EMDB_API void emdb_async_free(emdb_async *async);
/* For waiting only; never read it or close it. */
EMDB_API int emdb_async_fd(const emdb_async *async);

enum emdb_op_kind {
	EMDB_OP_PUT = 1,              /* ns key value expires_ms */
	EMDB_OP_GET = 2,              /* ns key -> value */
	EMDB_OP_REMOVE = 3,           /* ns key -> value with EMDB_OP_WANT_VALUE */
	EMDB_OP_CONTAINS = 4,         /* ns key -> number: 0 or 1 */
	EMDB_OP_COUNT = 5,            /* ns -> number */
	EMDB_OP_CLEAR = 6,            /* ns */
	EMDB_OP_PUT_MANY = 7,         /* ns items */
	EMDB_OP_TTL_GET = 8,          /* ns key -> expires_ms */
	EMDB_OP_TTL_SET = 9,          /* ns key expires_ms */
	EMDB_OP_SWEEP = 10,           /* -> number: how many went */
	EMDB_OP_NS_CREATE = 11,       /* ns (the parent) key -> number: the namespace */
	EMDB_OP_NS_OPEN = 12,         /* ns (the parent) key -> number: the namespace */
	EMDB_OP_NS_DROP = 13,         /* ns (the parent) key; EMDB_OP_RECURSIVE */
	EMDB_OP_FLUSH = 14,           /* takes no thread while it waits for the disk */
	EMDB_OP_CHECKPOINT = 15,      /* */
	EMDB_OP_COMPACT = 16,         /* -> number: bytes freed; can be cancelled while it runs */
	EMDB_OP_SNAPSHOT_CREATE = 17, /* key: the name */
	EMDB_OP_SNAPSHOT_DELETE = 18, /* key: the name */
	EMDB_OP_BACKUP = 19, /* key: the target's path -> number: bytes copied; can be cancelled */
	EMDB_OP_CALL = 20,   /* call: anything else, in one of the queue's threads */
};

/* emdb_op.flags */
#define EMDB_OP_DURABLE    0x1u /* complete when it survives power loss: one sync serves many */
#define EMDB_OP_BORROW     0x2u /* value is not copied: it stays as it is until completion */
#define EMDB_OP_WANT_VALUE 0x4u /* EMDB_OP_REMOVE: hand over what was removed */
#define EMDB_OP_RECURSIVE  0x8u /* EMDB_OP_NS_DROP */

/* How an operation ended. */
struct emdb_completion {
	uint64_t id; /* what emdb_async_submit() gave */
	void *user;
	enum emdb_op_kind kind;
	emdb_err err;       /* what the plain function would have returned, or CANCELLED */
	void *value;        /* not NULL: free with emdb_free(); a NUL follows that is not counted */
	size_t value_len;   /* bytes */
	uint64_t number;    /* see enum emdb_op_kind */
	int64_t expires_ms; /* EMDB_OP_TTL_GET; 0: never */
};

/* Inside EMDB_OP_CALL: has somebody cancelled it? */
typedef struct emdb_op_run emdb_op_run;
EMDB_API bool emdb_op_cancelled(const emdb_op_run *run);

/* What to do.  Fields that the kind does not name are ignored; zero is fine. */
struct emdb_op {
	size_t size; /* sizeof(struct emdb_op) */
	enum emdb_op_kind kind;
	unsigned int flags;
	uint64_t ns;
	const void *key; /* copied */
	size_t key_len;
	const void *value; /* copied, unless EMDB_OP_BORROW */
	size_t value_len;
	int64_t expires_ms;
	/* EMDB_OP_PUT_MANY: they and what they point to stay as they are until completion. */
	const struct emdb_item *items;
	size_t item_count;
	emdb_err (*call)(emdb_db *db, void *user, const emdb_op_run *run);
	/*
	 * Called once from a thread of the library, without locks.  May call the library, must not
	 * block nor free the queue.  The value is the callee's.  NULL: the completion waits for
	 * emdb_async_poll().
	 */
	void (*done)(void *user, const struct emdb_completion *completion);
	void *user;
};

/*
 * Takes the operation; never waits for the disk or for other operations.  ret_id may be NULL.
 * Errors, the operation then not being taken: AGAIN (depth is reached: take completions
 * first), INVAL, KEY_TOO_LONG, NOMEM.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_async_submit(emdb_async *async, const struct emdb_op *op,
						 uint64_t *ret_id);
/*
 * Takes up to max completions that have no callback, oldest first, and says how many.  With none
 * there waits up to timeout_ms (0: not at all; negative: until there is one), but not when
 * nothing is in flight.  Errors: INVAL.  None in time is EMDB_OK and *ret_count 0.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_async_poll(emdb_async *async, struct emdb_completion *ret,
					       size_t max, int timeout_ms, size_t *ret_count);
/*
 * Asks that an operation not be done.  EMDB_OK: it completes with CANCELLED, having done nothing
 * (one that can be cancelled while it runs: at its next step).  BUSY: it is being done and
 * completes as usual.  NOT_FOUND: it has completed, or never was.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_async_cancel(emdb_async *async, uint64_t id);

/*
 * A stream reads entries ahead in the queue's threads and hands them out one by one.  At most
 * options.items entries and about options.bytes of keys and values lie ready; a consumer that is
 * slower than the store stops it from reading on, and takes no thread meanwhile.  A stream
 * does not count towards the queue's depth.  One thread at a time per stream.
 */
typedef struct emdb_stream emdb_stream;

#define EMDB_STREAM_ITEMS_MAX 65536u

/* Every field's zero is its default; size is sizeof(struct emdb_stream_options). */
struct emdb_stream_options {
	size_t size;
	uint32_t items; /* entries ready or being read; 0: 64; at most EMDB_STREAM_ITEMS_MAX */
	size_t bytes;   /* of them, beyond one entry; 0: 1 MiB */
};

/*
 * Entries as emdb_iter_new() hands them out: of the moment of this call, and a stream that waits for
 * its consumer makes the store keep what others replace, unless EMDB_ITER_LIVE is given.  Its
 * errors, INVAL, NOMEM, TOO_MANY_FILES.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_stream_iter(emdb_async *async, uint64_t ns, unsigned int flags,
						const struct emdb_stream_options *opts,
						emdb_stream **ret_stream);
/* Entries as emdb_range_new() hands them out.  Its errors, INVAL, NOMEM, TOO_MANY_FILES. */
EMDB_API EMDB_CHECKED emdb_err emdb_stream_range(emdb_async *async, uint64_t ns,
						 const struct emdb_range *range,
						 const struct emdb_stream_options *opts,
						 emdb_stream **ret_stream);
/* Readable while an entry, an error or the end can be taken; for waiting only. */
EMDB_API int emdb_stream_fd(const emdb_stream *stream);
/*
 * The next entry, valid until the next call on the stream.  AGAIN: none is there after timeout_ms
 * (0: at once; negative: waits for as long as it takes).  NOT_FOUND: the end.  CORRUPT: this
 * entry is damaged, call again to go on.  Other errors end the stream and come again.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_stream_next(emdb_stream *stream, int timeout_ms,
						struct emdb_entry *ret_entry);
/* Stops at once: waits for the one entry that is being read, if any.  stream may be NULL. */
EMDB_API void emdb_stream_free(emdb_stream *stream);

/* ---- Objects: the store as a file system ------------------------------ */

/*
 * An object is named by its id.  The caller that keeps ids (as the kernel
 * does) holds a reference per emdb_node_lookup(), _create(), _link() and
 * referenced readdir entry, and gives it back with emdb_node_forget(); while
 * referenced, an object that lost its last name stays readable and writable.
 * Ids of namespaces are the namespaces' ids.  No permission is checked here.
 * Every change stamps the times that POSIX says.
 */
struct emdb_attr {
	uint64_t id;
	uint64_t parent; /* of a namespace: where it is; else 0 */
	uint64_t size;   /* bytes; of a namespace: its number of entries */
	uint64_t blocks; /* 512-byte units that data takes */
	uint32_t mode;   /* type and permission bits, as st_mode */
	uint32_t nlink;
	uint32_t uid, gid;
	uint64_t rdev;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns; /* since 1970 */
	int64_t expires_ms;                             /* 0: never */
	uint64_t lsn;                                   /* of the record that holds it now */
};

EMDB_API EMDB_CHECKED emdb_err emdb_node_lookup(emdb_db *db, uint64_t parent, const void *key,
						size_t key_len, struct emdb_attr *ret_attr);
EMDB_API void emdb_node_forget(emdb_db *db, uint64_t id, uint64_t count);
EMDB_API EMDB_CHECKED emdb_err emdb_node_getattr(emdb_db *db, uint64_t id,
						 struct emdb_attr *ret_attr);

/* emdb_node_setattr(): what to set. */
#define EMDB_SET_MODE    0x001u
#define EMDB_SET_UID     0x002u
#define EMDB_SET_GID     0x004u
#define EMDB_SET_SIZE    0x008u
#define EMDB_SET_ATIME   0x010u
#define EMDB_SET_MTIME   0x020u
#define EMDB_SET_CTIME   0x040u
#define EMDB_SET_EXPIRES 0x080u /* expires_ms, 0: never; files only */
#define EMDB_SET_KILL_SUID \
	0x100u /* not of a namespace: clear set-uid, and set-gid if group-executable */
EMDB_API EMDB_CHECKED emdb_err emdb_node_setattr(emdb_db *db, uint64_t id,
						 const struct emdb_attr *attr, unsigned int set,
						 struct emdb_attr *ret_attr);

struct emdb_xattr {
	const char *name;
	const void *value;
	size_t len;
};

struct emdb_create {
	uint32_t
		mode; /* with type: S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK */
	uint32_t uid, gid;
	uint64_t rdev;
	const void *target; /* S_IFLNK */
	size_t target_len;
	const struct emdb_xattr *xattrs; /* what it has from the start, each name once */
	size_t xattr_count;
};
/*
 * EXISTS when the name is taken.  INVAL: a mode with other bits than type and 07777, or a
 * symlink's target that is empty or too long.  Takes a reference.  xattrs: the errors of emdb_xattr_set().
 */
EMDB_API EMDB_CHECKED emdb_err emdb_node_create(emdb_db *db, uint64_t parent, const void *key,
						size_t key_len, const struct emdb_create *what,
						struct emdb_attr *ret_attr);
/* An object without a name (O_TMPFILE); gone with its last reference unless linked. */
EMDB_API EMDB_CHECKED emdb_err emdb_node_create_anon(emdb_db *db, uint64_t parent,
						     const struct emdb_create *what,
						     struct emdb_attr *ret_attr);
EMDB_API EMDB_CHECKED emdb_err emdb_node_link(emdb_db *db, uint64_t id, uint64_t parent,
					      const void *key, size_t key_len,
					      struct emdb_attr *ret_attr);
/* Removes a name that is not a namespace's (IS_NS).  ret_id may be NULL. */
EMDB_API EMDB_CHECKED emdb_err emdb_node_unlink(emdb_db *db, uint64_t parent, const void *key,
						size_t key_len, uint64_t *ret_id);
/* Removes an empty namespace (NOT_NS, NOT_EMPTY). */
EMDB_API EMDB_CHECKED emdb_err emdb_node_rmdir(emdb_db *db, uint64_t parent, const void *key,
					       size_t key_len, uint64_t *ret_id);

#define EMDB_RENAME_NOREPLACE 0x1u
#define EMDB_RENAME_EXCHANGE  0x2u
/* Leaves a character device 0:0 of the store's owner behind (overlayfs); not with EXCHANGE. */
#define EMDB_RENAME_WHITEOUT 0x4u
/* What decides the deadline when a rename replaces a file. */
#define EMDB_RENAME_TTL_KEEP   0x10u /* the target's stays when the source has none */
#define EMDB_RENAME_TTL_SOURCE 0x20u /* always the source's; neither flag: auto */
/*
 * rename(2), atomic.  auto: the target's deadline stays when the source has
 * none and was created in the same namespace after the target.
 * Errors: NOT_FOUND, EXISTS, NOT_EMPTY, IS_NS, NOT_NS, LOOP.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_node_rename(emdb_db *db, uint64_t parent, const void *key,
						size_t key_len, uint64_t new_parent,
						const void *new_key, size_t new_key_len,
						unsigned int flags);

/* Pieces of a value, pinned until emdb_slices_release(). */
#define EMDB_SLICES_INLINE 8
struct emdb_slices {
	struct iovec *iov; /* the bytes; holes are pieces of a page of zeros */
	int count;
	size_t len; /* sum; less than asked for only at the end of the value */
	struct iovec inline_[EMDB_SLICES_INLINE];
	void *owner_; /* private */
	uint64_t pin_;
};
/* Zero-copy read.  Release soon: it delays the freeing of memory. */
EMDB_API EMDB_CHECKED emdb_err emdb_node_slices(emdb_db *db, uint64_t id, uint64_t offset,
						size_t len, struct emdb_slices *ret_slices);
EMDB_API void emdb_slices_release(emdb_db *db, struct emdb_slices *slices);
/* pread(2) into buf. */
EMDB_API EMDB_CHECKED emdb_err emdb_node_read(emdb_db *db, uint64_t id, uint64_t offset, void *buf,
					      size_t len, size_t *ret_len);
#define EMDB_WRITE_KILL_SUID 0x1u
#define EMDB_WRITE_APPEND    0x2u /* at the end, whatever offset says */
/*
 * pwrite(2): all or nothing.  Up to 1 MiB (in stores with segments below
 * 4 MiB: nearly half a segment) is atomic; more is several frames.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_node_write(emdb_db *db, uint64_t id, uint64_t offset,
					       const void *data, size_t len, unsigned int flags);

/* fallocate(2) modes. */
#define EMDB_FALLOC_KEEP_SIZE  0x1u
#define EMDB_FALLOC_PUNCH_HOLE 0x2u /* reads zeros afterwards; implies KEEP_SIZE */
#define EMDB_FALLOC_ZERO_RANGE 0x4u
EMDB_API EMDB_CHECKED emdb_err emdb_node_fallocate(emdb_db *db, uint64_t id, uint64_t offset,
						   uint64_t len, unsigned int mode);
/* lseek(2) SEEK_DATA and SEEK_HOLE.  RANGE: beyond the end (ENXIO). */
EMDB_API EMDB_CHECKED emdb_err emdb_node_seek(emdb_db *db, uint64_t id, uint64_t offset, bool hole,
					      uint64_t *ret_offset);
/* copy_file_range(2): shares the extents.  *ret_len: how much was copied. */
EMDB_API EMDB_CHECKED emdb_err emdb_node_copy_range(emdb_db *db, uint64_t from,
						    uint64_t from_offset, uint64_t to,
						    uint64_t to_offset, uint64_t len,
						    uint64_t *ret_len);

/*
 * Calls fn for the entries of a namespace from position pos on (0: the
 * start).  Positions are stable while entries come and go, and remounts.
 * fn returns false to refuse an entry and stop; next_pos continues after
 * the entry.  attr is NULL for an entry whose record is damaged; the key is
 * then a remark in brackets that says where.  With
 * EMDB_READDIR_REF every entry taken holds a reference.  fn must not block
 * nor call the library.
 */
#define EMDB_READDIR_REF 0x1u
typedef bool (*emdb_readdir_fn)(void *ctx, const void *key, size_t key_len,
				const struct emdb_attr *attr, uint64_t next_pos);
EMDB_API EMDB_CHECKED emdb_err emdb_node_readdir(emdb_db *db, uint64_t id, uint64_t pos,
						 unsigned int flags, emdb_readdir_fn fn, void *ctx);

/*
 * Extended attributes, names as xattr(7) has them; nothing is virtual here.
 * get and list: len 0 asks for the size.  RANGE: buf is too small.
 */
#define EMDB_XATTR_CREATE  0x1u /* EXISTS when there is one */
#define EMDB_XATTR_REPLACE 0x2u /* NO_XATTR when there is none */
EMDB_API EMDB_CHECKED emdb_err emdb_xattr_get(emdb_db *db, uint64_t id, const char *name, void *buf,
					      size_t len, size_t *ret_len);
EMDB_API EMDB_CHECKED emdb_err emdb_xattr_set(emdb_db *db, uint64_t id, const char *name,
					      const void *value, size_t len, unsigned int flags);
EMDB_API EMDB_CHECKED emdb_err emdb_xattr_remove(emdb_db *db, uint64_t id, const char *name);
/*
 * Sets an attribute (value NULL: there is none afterwards) and those bits of
 * the mode that mask (within 07777) selects, in one step: so an access list and
 * the mode agree after a crash too.  Errors: those of emdb_xattr_set(), INVAL.
 */
EMDB_API EMDB_CHECKED emdb_err emdb_xattr_set_mode(emdb_db *db, uint64_t id, const char *name,
						   const void *value, size_t len, uint32_t mode,
						   uint32_t mask);
/* Names, each with its NUL, one after the other. */
EMDB_API EMDB_CHECKED emdb_err emdb_xattr_list(emdb_db *db, uint64_t id, char *buf, size_t len,
					       size_t *ret_len);
/* The raw key of an object (one of them when linked), without NUL; ret_parent may be NULL. */
EMDB_API EMDB_CHECKED emdb_err emdb_node_key(emdb_db *db, uint64_t id, void *buf, size_t len,
					     size_t *ret_len, uint64_t *ret_parent);
/* Default lifetime and what restarts a file's clock, of a namespace. */
enum emdb_ttl_basis { EMDB_BASIS_CREATE = 0, EMDB_BASIS_MODIFY = 1 };
EMDB_API EMDB_CHECKED emdb_err emdb_ns_basis_set(emdb_db *db, uint64_t ns,
						 enum emdb_ttl_basis basis);
EMDB_API EMDB_CHECKED emdb_err emdb_ns_basis_get(emdb_db *db, uint64_t ns,
						 enum emdb_ttl_basis *ret_basis);

#ifdef __cplusplus
}
#endif
#endif
