/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `emdb` and the daemon say to each other on STORE/control.sock.
 *
 * Pure encoding and decoding, shared by both ends; nothing here does I/O.
 * Bytes from the other end are never trusted: a message is taken apart by the
 * table of operations below, and whatever does not fit it is refused.
 *
 * The client sends a request and waits for the answer (of SCRUB: the last of several), on one
 * connection as often as it likes; the first request is HELLO.  After PROGRESS, which is answered once as any
 * other, any number of answers to PROGRESS may come before that to COMPACT or BACKUP, and say how far it is.
 * (A daemon that does not know it hangs up, as on anything that makes no sense.)  A connection has at most one
 * open value at a time (OPEN or CREATE), which CLOSE, INSTALL and the end of
 * the connection let go; one that was made by CREATE and not installed is
 * gone then.
 *
 * Frame, little-endian:
 *
 *	OFFSET	SIZE
 *	0	4	length of all that follows, CTL_BODY_MIN..CTL_BODY_MAX
 *	4	1	version of the protocol, CTL_VERSION
 *	5	1	operation; an answer repeats it
 *	6	2	zero
 *	8	4	of an answer: emdb_err, as int32; of a request: zero
 *	12	-	fields, one after the other
 *
 * Field: a number is 8 bytes; a string is its length in 4 bytes, then the
 * bytes.  Which there are, in which order, is fixed for each operation; an
 * answer that is an error has one string, a remark for a person (often empty).
 *
 * Lists inside a string are the same fields again: LIST gives for each entry
 * its next position, key and attributes (an empty string: damaged); STATS
 * pairs of a name and a number; COUNTERS 1 if the mount uses io_uring, and for each request its name, calls,
 * ns in all, and a string of numbers, calls that took less than 1, 2, 4 ... us.
 * Readers ignore names they do not know.
 */
#ifndef TOOLS_CTL_PROTO_H
#define TOOLS_CTL_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"

#define CTL_SOCKET    "control.sock" /* in the store's directory */
#define CTL_VERSION   1
#define CTL_HEADER    12u
#define CTL_BODY_MIN  (CTL_HEADER - 4u)
#define CTL_PIECE_MAX (512u * 1024u) /* of a value, in one message */
#define CTL_BODY_MAX  (CTL_PIECE_MAX + EMDB_KEY_MAX + 1024u)
#define CTL_NUMS      8
#define CTL_STRS      2

/*
 * X(name, number, fields of the request, fields of the answer); n is a
 * number, k a key or name (at most EMDB_KEY_MAX bytes), s any other string.
 */
#define CTL_OPS(X)                                                                                \
	X(HELLO, 1, "", "nss")     /* -> pid, uuid, mountpoint */                                 \
	X(NS_OPEN, 2, "nk", "n")   /* parent, name -> id */                                       \
	X(NS_CREATE, 3, "nk", "n") /* parent, name -> id */                                       \
	X(NS_DROP, 4, "nkn", "")   /* parent, name, recursive */                                  \
	X(LOOKUP, 5, "nk", "s")    /* ns, key -> attributes */                                    \
	X(LIST, 6, "nn", "ns")     /* ns, from -> more?, entries */                               \
	X(PUT, 7, "nkns", "")      /* ns, key, expires, value */                                  \
	X(REMOVE, 8, "nk", "")     /* ns, key */                                                  \
	X(OPEN, 9, "nk", "s")      /* ns, key -> attributes */                                    \
	X(READ, 10, "nn", "s")     /* offset, length -> bytes */                                  \
	X(CREATE, 11, "n", "")     /* ns: makes a nameless value */                               \
	X(WRITE, 12, "ns", "")     /* offset, bytes */                                            \
	X(INSTALL, 13, "nkn", "")  /* ns, key, expires: names it */                               \
	X(CLOSE, 14, "", "")                                                                      \
	X(TTL_GET, 15, "nk", "n")   /* ns, key -> expires */                                      \
	X(TTL_SET, 16, "nkn", "")   /* ns, key, expires */                                        \
	X(NS_TTL_GET, 17, "n", "n") /* ns -> default ms */                                        \
	X(NS_TTL_SET, 18, "nn", "") /* ns, default ms */                                          \
	X(SWEEP, 19, "", "n")       /* -> removed */                                              \
	X(STATS, 20, "", "s")                                                                     \
	X(COUNTERS, 21, "", "ns")                                                                 \
	X(FLUSH, 22, "", "")                                                                      \
	X(CHECKPOINT, 23, "", "")                                                                 \
	X(COMPACT, 24, "nn", "nnnn") /* least % dead, bytes/s -> segments, done, copied, freed */ \
	X(SCRUB, 25, "nn", "nnnnnnnnss") /* bytes/s, 0 -> see enum ctl_scrub */                   \
	X(SNAP_CREATE, 32, "k", "nnnn")  /* name -> number, when (ns), bytes, LSN */              \
	X(SNAP_DELETE, 33, "k", "")      /* name */                                               \
	X(SNAP_RENAME, 34, "kk", "")     /* name, new name */                                     \
	X(BACKUP, 36, "sn", "nnnnnnnn")  /* absolute path, flags -> as emdb_backup_report */      \
	X(PROGRESS, 37, "", "nn")        /* see below -> done, total */

enum ctl_op {
#define CTL_ENUM(name, number, request, answer) CTL_##name = (number),
	CTL_OPS(CTL_ENUM)
#undef CTL_ENUM
		CTL_OP_END = 64
};

/*
 * SCRUB is answered more than once. The first number says what an answer is; after PROGRESS and
 * FOUND others follow.
 */
enum ctl_scrub {
	CTL_SCRUB_PROGRESS = 0, /* done, total */
	CTL_SCRUB_FOUND = 1,    /* segment, offset, damage, from, length; text, path */
	CTL_SCRUB_DONE =
		2, /* bytes, frames, cached, places, bytes in them, entries, skipped bytes */
};

/* The operation's name; NULL: there is none of that number. */
const char *ctl_op_name(unsigned int op);

struct ctl_str {
	const void *p; /* in the buffer that was taken apart */
	size_t n;
};

struct ctl_msg {
	uint8_t op;
	emdb_err err; /* of answers */
	uint64_t num[CTL_NUMS];
	struct ctl_str str[CTL_STRS];
};

enum ctl_side { CTL_REQUEST, CTL_ANSWER };

/* ---- Buffers ---- */

/* What is being encoded.  Failure sticks: it ran out of memory or of CTL_BODY_MAX. */
struct ctl_buf {
	uint8_t *data;
	size_t len, cap;
	bool failed;
};
#define CTL_BUF_INIT          \
	{                     \
		NULL, 0, 0, 0 \
	}

void ctl_buf_release(struct ctl_buf *b);
void ctl_put_num(struct ctl_buf *b, uint64_t v);
void ctl_put_str(struct ctl_buf *b, const void *p, size_t n);
/* Appends the fields of the attributes, CTL_ATTR_SIZE bytes. */
#define CTL_ATTR_FIELDS 16u
#define CTL_ATTR_SIZE   (CTL_ATTR_FIELDS * 8u)
void ctl_put_attr(struct ctl_buf *b, const struct emdb_attr *attr);

/* ---- Messages ---- */

/*
 * Replaces what is in b by the message.  False: out of memory, or it does not
 * fit into a frame.
 */
bool ctl_encode(struct ctl_buf *b, enum ctl_side side, const struct ctl_msg *m);
/*
 * How many bytes follow the first CTL_HEADER ones of a frame; false: this is
 * none of ours.  *ret_version is set also then.
 */
bool ctl_parse_header(const uint8_t header[CTL_HEADER], size_t *ret_rest,
		      unsigned int *ret_version);
/* Takes a whole frame apart; strings point into it.  False: it does not fit the table. */
bool ctl_decode(const uint8_t *frame, size_t n, enum ctl_side side, struct ctl_msg *ret);

/* ---- Fields inside a string ---- */

struct ctl_cursor {
	const uint8_t *p, *end;
};

struct ctl_cursor ctl_cursor_of(const struct ctl_str *s);
/* False, with nothing changed: it does not go on like that. */
bool ctl_get_num(struct ctl_cursor *c, uint64_t *ret);
bool ctl_get_str(struct ctl_cursor *c, struct ctl_str *ret);
bool ctl_get_attr(const struct ctl_str *s, struct emdb_attr *ret);

/* An entry of LIST. */
struct ctl_entry {
	uint64_t next_pos;
	struct ctl_str key;
	struct emdb_attr attr;
	bool damaged; /* attr is undefined */
};
/* Bytes that an entry takes. */
#define CTL_ENTRY_SIZE(key_len) (8u + 4u + (key_len) + 4u + CTL_ATTR_SIZE)
void ctl_put_entry(struct ctl_buf *b, uint64_t next_pos, const void *key, size_t key_len,
		   const struct emdb_attr *attr);
bool ctl_get_entry(struct ctl_cursor *c, struct ctl_entry *ret);

/* The numbers of the store, STATS. */
void ctl_put_stats(struct ctl_buf *b, const struct emdb_stats *stats);
/* Fields that the other end does not know stay 0. */
bool ctl_get_stats(const struct ctl_str *s, struct emdb_stats *ret);

#endif
