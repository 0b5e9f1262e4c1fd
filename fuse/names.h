/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapping between keys and file names.
 *
 * A key is any string of 0 to 65,535 bytes. A directory can only show names
 * of 1 to 255 bytes without '/' and NUL, other than "." and "..", and the
 * root may have one more name taken (the snapshot directory). Every name is
 * exactly the key that it spells, except names that match the escape pattern
 * below, which stand for the keys that no name can spell.
 *
 * Grammar of the escape pattern:
 *
 *	escaped = short / hashed
 *	short   = "%emdb=" body          body is code(K), K needs an escape
 *	hashed  = "%emdb~" head "~" hash head is 123..128 bytes of code,
 *	                                 hash is 40 lower-case hex digits
 *	code(K) = K with '/' as "%2F", NUL as "%00", '%' as "%25",
 *	          and every other byte as itself
 *
 * K needs an escape if and only if it is empty, ".", "..", equal to the
 * reserved name of the directory, longer than 255 bytes, contains '/' or NUL,
 * or (as a name) matches the escape pattern itself.
 *
 * A key that needs an escape is shown in the short form when that has at most
 * 255 bytes, else in the hashed form: head is code() of as many leading bytes
 * of the key as fit into 128, not ending inside a UTF-8 sequence, hash is
 * BLAKE2b-160 of the key.
 *
 * What only looks like the pattern is not the pattern: "%emdb=" followed by
 * something that decodes to a key that needs no escape, by an escape other
 * than the three above, or by lower-case hex, is an ordinary name and spells
 * itself. So names and keys correspond one to one:
 *
 *	key                name
 *	report.txt         report.txt
 *	100%               100%
 *	users/42           %emdb=users%2F42
 *	50%/day            %emdb=50%25%2Fday
 *	(empty)            %emdb=
 *	.                  %emdb=.
 *	.snap              %emdb=.snap  where .snap is reserved, else .snap
 *	%emdb=hello        %emdb=hello  (hello needs no escape: not the pattern)
 *	%emdb=a%2Fb        %emdb=%25emdb=a%252Fb   (the name is taken by a/b)
 *	%emdb=a%2fb        %emdb=a%2fb  (lower case: not the pattern)
 *	300 times x        %emdb~ + 128 times x + ~ + 40 hex digits
 *
 * A hashed name does not contain its key. names_to_key() says NAME_HASHED and
 * the caller looks through the keys of the directory: those of at least
 * NAMES_HASHED_KEY_MIN bytes that begin with ret->bytes; names_is() on each
 * candidate decides. When there is none the name does not exist, and it cannot
 * be created, because no key is known for it.
 *
 * All functions are pure: no allocation, no state, any thread.
 */
#ifndef FUSE_NAMES_H
#define FUSE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAMES_MAX            255 /* longest file name, bytes */
#define NAMES_HASH_SIZE      20  /* bytes of hash in a hashed name */
#define NAMES_HEAD_MAX       128 /* longest head of a hashed name */
#define NAMES_HASHED_KEY_MIN 84  /* a shorter key never has a hashed name */

enum name_kind {
	NAME_KEY,      /* ret->bytes is the key */
	NAME_HASHED,   /* ret->hash is the key's hash, ret->bytes how the key begins */
	NAME_RESERVED, /* the directory's reserved name, no key */
	NAME_INVALID,  /* not a file name: empty, ".", "..", or contains '/' or NUL */
	NAME_TOO_LONG, /* not a file name: more than NAMES_MAX bytes */
};

struct name_key {
	size_t len;
	uint8_t bytes[NAMES_MAX];
	uint8_t hash[NAMES_HASH_SIZE];
};

/*
 * Says what the name stands for in a directory whose reserved name is
 * `reserved` (NULL: none). *ret is written for NAME_KEY and NAME_HASHED only.
 */
enum name_kind names_to_key(const char *name, size_t n, const char *reserved, struct name_key *ret);

/*
 * Writes the name of a key into buf, followed by a NUL, and returns its length,
 * 1..NAMES_MAX. Cannot fail; takes keys of any length.
 */
size_t names_from_key(const void *key, size_t n, const char *reserved, char buf[NAMES_MAX + 1]);

/* True if `name` is the name of `key` in a directory with that reserved name. */
bool names_is(const char *name, size_t n, const void *key, size_t key_len, const char *reserved);

/* The hash that stands in a hashed name. */
void names_hash(const void *key, size_t n, uint8_t ret[NAMES_HASH_SIZE]);

/*
 * True if the name may be reserved: a file name of at most NAMES_MAX - 6 bytes
 * without '%', so that its escaped form exists and is short.
 */
bool names_reservable(const char *name);

#endif
