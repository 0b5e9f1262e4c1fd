/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ttl: when things expire. The rule, the queue that tells which entry is due, and the text forms.
 *
 * A deadline is an absolute Unix time in ms, 1..TTL_MAX_MS; 0 means never. TTL_MAX_MS is the end of
 * the year 9999, so every deadline has an RFC 3339 form and a sum of a deadline and a duration
 * cannot overflow. Texts round up to the next ms: nothing expires earlier than it was told to.
 *
 * The queue is a 4-ary min-heap in chunks of fixed size, so that growing never copies the items:
 * the longest stall is one allocation of a chunk (48 KiB), or of the table of chunk pointers.
 * It knows nothing about entries. Deletion is lazy and the caller's business: pop what is due, look
 * at the entry's real deadline, and push again when that is later. An entry whose deadline moves
 * later therefore needs no push, its queued item will find out; one whose deadline moves earlier
 * needs one. So the queue stays near one item for each entry that has a deadline.
 *
 * Thread-safety: the queue has none (LOCK_TTL); everything else here is pure.
 */
#ifndef EMDB_TTL_H
#define EMDB_TTL_H

#include "core/base.h"

#define TTL_MAX_MS ((int64_t)253402300799999) /* 9999-12-31T23:59:59.999Z */

/* ---- The rule ---- */

static inline bool ttl_expired(int64_t expires_ms, int64_t now_ms)
{
	return expires_ms != 0 && expires_ms <= now_ms;
}

/* The deadline of something that lives ttl_ms (>= 0) from now on, within 1..TTL_MAX_MS. */
static inline int64_t ttl_deadline(int64_t now_ms, int64_t ttl_ms)
{
	int64_t t;

	if (__builtin_add_overflow(now_ms, ttl_ms, &t) || t > TTL_MAX_MS)
		return TTL_MAX_MS;
	return t < 1 ? 1 : t;
}

/* ---- The queue ---- */

struct ttl_item {
	int64_t expires_ms;
	uint64_t ns;   /* namespace of the entry */
	uint64_t hash; /* of its key */
};

/* All zero is an empty queue. The fields belong to ttl.c. */
struct ttl_heap {
	struct ttl_item **chunks;
	size_t chunk_count;
	size_t chunk_cap; /* of the pointer table */
	size_t count;
	size_t reserved;
	struct ttl_snap *snap; /* NULL: none */
};

void ttl_heap_init(struct ttl_heap *h);

/* Frees everything; the queue is empty afterwards. */
void ttl_heap_release(struct ttl_heap *h);

/* 0 or -ENOMEM (queue unchanged). Equal items are kept apart. */
int ttl_heap_push(struct ttl_heap *h, const struct ttl_item *item) EMDB_MUST_CHECK;

/*
 * A push in two steps, for callers that must not fail once they have written to the journal:
 * reserve takes the memory for one item, whatever others push meanwhile; push_reserved uses that
 * up and cannot fail; unreserve gives it back. 0 or -ENOMEM (nothing reserved).
 */
int ttl_heap_reserve(struct ttl_heap *h) EMDB_MUST_CHECK;
void ttl_heap_push_reserved(struct ttl_heap *h, const struct ttl_item *item);
void ttl_heap_unreserve(struct ttl_heap *h);

/* The item that is due first; false when there is none. pop removes it. */
bool ttl_heap_peek(const struct ttl_heap *h, struct ttl_item *ret);
bool ttl_heap_pop(struct ttl_heap *h, struct ttl_item *ret);

static inline size_t ttl_heap_count(const struct ttl_heap *h)
{
	return h->count;
}

/*
 * The items as they are now, to be read in pieces while the queue goes on changing: a chunk is
 * copied before it changes first. Whoever changes the queue excludes the calls of the reader. When
 * there is no memory for a copy the snapshot is broken and reading it says so. One at a time.
 */
struct ttl_snap {
	struct ttl_item **chunks;
	size_t chunk_count;
	size_t count;
	bool broken;
};
/* 0 or -ENOMEM. */
int ttl_heap_snap(struct ttl_heap *h, struct ttl_snap *ret) EMDB_MUST_CHECK;
/* Copies up to max items, in the queue's order, from number `from` on; 0 at the end. -ENOMEM. */
int ttl_snap_read(const struct ttl_snap *s, size_t from, struct ttl_item *out, size_t max,
		  size_t *ret_n) EMDB_MUST_CHECK;
/* Takes a snapshot that is all zero. */
void ttl_heap_unsnap(struct ttl_heap *h, struct ttl_snap *s);

/* Heap memory held, without the allocator's own overhead. */
size_t ttl_heap_memory(const struct ttl_heap *h);

/* True if the invariants hold: no item is due before its parent, chunks are enough. O(count). */
bool ttl_heap_check(const struct ttl_heap *h);

/* ---- Text ---- */

/*
 * All parsers take (s, n) without a NUL behind; one NUL, and spaces, tabs and line ends on both
 * sides are ignored, so that the output of echo and xattrs set with their NUL are good. -EINVAL for
 * everything the grammar does not have, -ERANGE for what is beyond TTL_MAX_MS; *ret_* is untouched
 * then.
 *
 *	duration = number | number unit *( number unit )     spaces allowed around each part
 *	number   = digits [ "." digits ]                     1.5h is 1h30m
 *	unit     = us usec | ms msec | s sec second seconds | m min minute minutes |
 *	           h hr hour hours | d day days | w week weeks |
 *	           month months (30.4375 d) | y year years (365.25 d)
 *
 * Units are case-sensitive. A number without a unit is seconds, and then the only part: 1h30 is
 * refused, because it may mean two things. Parts are summed, in any order. A duration above zero
 * never rounds to zero. Negative numbers are refused.
 */

/*
 * `user.emdb.ttl`. Gives the deadline, 0 for never.
 *
 *	none | never          no deadline
 *	duration              that long from now; 0 is now, which deletes
 *	"+" duration          extends: counts from the current deadline, from now when there is none
 *	                      (current_expires_ms 0); +0 is refused
 *	"@" digits[.digits]   Unix time in seconds
 *	RFC 3339              2026-11-22T10:00:00Z, with any fraction, offsets as +05:30, t and z, or
 *	                      a space for T; 23:59:60 UTC is the second after 23:59:59. No date alone
 *	                      and no time without an offset: both would have to guess the zone
 *
 * A time in the past is not an error: it means delete now. Times at or before 1970 give 1.
 */
int ttl_parse(const char *s, size_t n, int64_t now_ms, int64_t current_expires_ms,
	      int64_t *ret_expires_ms) EMDB_MUST_CHECK;

/* `user.emdb.expires`: Unix time as secs[.fraction]. Gives 1..TTL_MAX_MS. */
int ttl_parse_expires(const char *s, size_t n, int64_t *ret_expires_ms) EMDB_MUST_CHECK;

/*
 * A duration of an option or a directory's default; `none`, `never` and 0 give 0, which means no
 * expiry there (not: at once).
 */
int ttl_parse_duration(const char *s, size_t n, int64_t *ret_ms) EMDB_MUST_CHECK;

/*
 * The formatters write a NUL-terminated text and return its length. A deadline of 0 gives "none".
 * What they write the parser of the same name reads back: expires and duration exactly, remaining
 * to the second, rfc3339 exactly by ttl_parse.
 */
#define TTL_TEXT_MAX 48 /* bytes of any of these texts, NUL included */

/* Whole seconds that remain, rounded up: what is alive never shows 0. */
size_t ttl_format_remaining(int64_t expires_ms, int64_t now_ms, char buf[TTL_TEXT_MAX]);
/* secs.nsecs with nine digits. */
size_t ttl_format_expires(int64_t expires_ms, char buf[TTL_TEXT_MAX]);
/* 2026-11-22T10:00:00Z, or with .mmm when there are ms. Later than TTL_MAX_MS shows TTL_MAX_MS. */
size_t ttl_format_rfc3339(int64_t expires_ms, char buf[TTL_TEXT_MAX]);
/* 7d, 1h30m, 500ms; 0 and below is "none". */
size_t ttl_format_duration(int64_t ms, char buf[TTL_TEXT_MAX]);

#endif
