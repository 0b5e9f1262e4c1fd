/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/names.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#define MARK_LEN      6
#define HASH_HEX_LEN  ((size_t)NAMES_HASH_SIZE * 2)
#define CODE_BYTE_MAX 3 /* longest code of one byte */
#define UTF8_TAIL_MAX 3 /* continuation bytes of the longest UTF-8 sequence */

static const char mark_short[] = "%emdb=";
static const char mark_hashed[] = "%emdb~";
static const char hex_digits[] = "0123456789abcdef";

/* The cut loses at most all but one byte of a code, then the start of one UTF-8 sequence. */
#define HEAD_MIN (NAMES_HEAD_MAX - (CODE_BYTE_MAX - 1) - UTF8_TAIL_MAX)

static_assert(sizeof(mark_short) - 1 == MARK_LEN, "the marks have one length");
static_assert(sizeof(mark_hashed) - 1 == MARK_LEN, "the marks have one length");
static_assert(MARK_LEN + NAMES_HEAD_MAX + 1 + HASH_HEX_LEN <= NAMES_MAX, "a hashed name fits");
static_assert(NAMES_HASHED_KEY_MIN == (NAMES_MAX - MARK_LEN) / CODE_BYTE_MAX + 1,
	      "the shortest key whose code does not fit");
static_assert(NAMES_MAX - MARK_LEN > NAMES_HEAD_MAX, "a head never is a key's whole code");

static bool has_mark(const uint8_t *s, size_t n, const char *mark)
{
	return n >= MARK_LEN && memcmp(s, mark, MARK_LEN) == 0;
}

static bool is_dots(const uint8_t *s, size_t n)
{
	return (n == 1 || n == 2) && s[0] == '.' && s[n - 1] == '.';
}

static bool is_reserved(const uint8_t *s, size_t n, const char *reserved)
{
	return reserved && n == strlen(reserved) && memcmp(s, reserved, n) == 0;
}

/* True if no name at all spells the key. */
static bool unspellable(const uint8_t *key, size_t n, const char *reserved)
{
	if (n == 0 || n > NAMES_MAX || is_dots(key, n) || is_reserved(key, n, reserved))
		return true;
	return memchr(key, '/', n) || memchr(key, '\0', n);
}

static size_t code_byte(uint8_t c, char out[CODE_BYTE_MAX])
{
	switch (c) {
	case '/':
		memcpy(out, "%2F", CODE_BYTE_MAX);
		return CODE_BYTE_MAX;
	case '\0':
		memcpy(out, "%00", CODE_BYTE_MAX);
		return CODE_BYTE_MAX;
	case '%':
		memcpy(out, "%25", CODE_BYTE_MAX);
		return CODE_BYTE_MAX;
	default:
		out[0] = (char)c;
		return 1;
	}
}

/*
 * Writes the code of the key's leading bytes, as many as fit into max. Returns
 * how many bytes of the key that were; *ret_len is the length of the code.
 */
static size_t encode(const uint8_t *key, size_t n, char *out, size_t max, size_t *ret_len)
{
	size_t len = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		char code[CODE_BYTE_MAX];
		const size_t code_len = code_byte(key[i], code);

		if (code_len > max - len)
			break;
		memcpy(out + len, code, code_len);
		len += code_len;
	}
	*ret_len = len;
	return i;
}

/*
 * Decodes what encode() wrote. out may be in itself. Returns false for anything
 * that encode() never writes.
 */
static bool decode(const uint8_t *in, size_t n, uint8_t *out, size_t *ret_len)
{
	size_t len = 0;
	size_t i = 0;

	while (i < n) {
		uint8_t c = in[i++];

		if (c == '/' || c == '\0')
			return false;
		if (c == '%') {
			if (n - i < CODE_BYTE_MAX - 1)
				return false;
			if (memcmp(in + i, "2F", 2) == 0)
				c = '/';
			else if (memcmp(in + i, "00", 2) == 0)
				c = '\0';
			else if (memcmp(in + i, "25", 2) != 0)
				return false;
			i += CODE_BYTE_MAX - 1;
		}
		out[len++] = c;
	}
	*ret_len = len;
	return true;
}

static bool parse_hex(const uint8_t *s, uint8_t hash[NAMES_HASH_SIZE])
{
	for (size_t i = 0; i < HASH_HEX_LEN; i++) {
		const char *digit = s[i] ? strchr(hex_digits, s[i]) : NULL;
		uint8_t value;

		if (!digit)
			return false;
		value = (uint8_t)(digit - hex_digits);
		hash[i / 2] = (uint8_t)(i % 2 ? hash[i / 2] | value : value << 4);
	}
	return true;
}

/* Takes a name of the hashed form apart; false if it is not of that form. */
static bool parse_hashed(const uint8_t *s, size_t n, struct name_key *ret)
{
	size_t head_len;

	if (!has_mark(s, n, mark_hashed) || n < MARK_LEN + HEAD_MIN + 1 + HASH_HEX_LEN)
		return false;
	head_len = n - MARK_LEN - 1 - HASH_HEX_LEN;
	if (head_len > NAMES_HEAD_MAX || s[MARK_LEN + head_len] != '~')
		return false;
	return parse_hex(s + n - HASH_HEX_LEN, ret->hash) &&
	       decode(s + MARK_LEN, head_len, ret->bytes, &ret->len);
}

/*
 * True if the spellable name s matches the escape pattern. The pattern is
 * recursive: "%emdb=" K' is a match when K is unspellable or a match in turn,
 * so peel one level after the other; each is shorter than the last.
 */
static bool is_escaped(const uint8_t *s, size_t n, const char *reserved)
{
	struct name_key hashed;
	uint8_t buf[NAMES_MAX];

	if (n < MARK_LEN || s[0] != '%' || n > NAMES_MAX)
		return false;
	memcpy(buf, s, n);
	while (!parse_hashed(buf, n, &hashed)) {
		if (!has_mark(buf, n, mark_short) || !decode(buf + MARK_LEN, n - MARK_LEN, buf, &n))
			return false;
		if (unspellable(buf, n, reserved))
			return true;
	}
	return true;
}

static bool needs_escape(const uint8_t *key, size_t n, const char *reserved)
{
	return unspellable(key, n, reserved) || is_escaped(key, n, reserved);
}

enum name_kind names_to_key(const char *name, size_t n, const char *reserved, struct name_key *ret)
{
	const uint8_t *s = (const uint8_t *)name;
	struct name_key key;

	if (n > NAMES_MAX)
		return NAME_TOO_LONG;
	if (is_reserved(s, n, reserved))
		return NAME_RESERVED;
	if (unspellable(s, n, NULL))
		return NAME_INVALID;
	if (parse_hashed(s, n, &key)) {
		*ret = key;
		return NAME_HASHED;
	}
	if (has_mark(s, n, mark_short) && decode(s + MARK_LEN, n - MARK_LEN, key.bytes, &key.len) &&
	    needs_escape(key.bytes, key.len, reserved)) {
		ret->len = key.len;
		memcpy(ret->bytes, key.bytes, key.len);
		return NAME_KEY;
	}
	ret->len = n;
	memcpy(ret->bytes, s, n);
	return NAME_KEY;
}

void names_hash(const void *key, size_t n, uint8_t ret[NAMES_HASH_SIZE])
{
	static_assert(NAMES_HASH_SIZE >= crypto_generichash_BYTES_MIN, "libsodium's shortest");
	/* With a size in range and no hash key this cannot fail. */
	(void)crypto_generichash(ret, NAMES_HASH_SIZE, key, n, NULL, 0);
}

/* Length of the unfinished UTF-8 sequence that a cut behind key[n - 1] would leave. */
static size_t utf8_overhang(const uint8_t *key, size_t n)
{
	if ((key[n] & 0xc0) != 0x80)
		return 0;
	for (size_t back = 1; back <= UTF8_TAIL_MAX && back <= n; back++) {
		if ((key[n - back] & 0xc0) == 0xc0)
			return back;
		if ((key[n - back] & 0xc0) != 0x80)
			break;
	}
	return 0;
}

static size_t hashed_name(const uint8_t *key, size_t n, char buf[NAMES_MAX + 1])
{
	uint8_t hash[NAMES_HASH_SIZE];
	char *p = buf + MARK_LEN;
	size_t head_len;
	size_t taken;

	memcpy(buf, mark_hashed, MARK_LEN);
	taken = encode(key, n, p, NAMES_HEAD_MAX, &head_len);
	/* Bytes of UTF-8 sequences are their own code. */
	p += head_len - utf8_overhang(key, taken);
	*p++ = '~';
	names_hash(key, n, hash);
	for (size_t i = 0; i < NAMES_HASH_SIZE; i++) {
		*p++ = hex_digits[hash[i] >> 4];
		*p++ = hex_digits[hash[i] & 15];
	}
	*p = '\0';
	return (size_t)(p - buf);
}

size_t names_from_key(const void *key, size_t n, const char *reserved, char buf[NAMES_MAX + 1])
{
	const uint8_t *k = (const uint8_t *)key;
	size_t len;

	if (!needs_escape(k, n, reserved)) {
		memcpy(buf, k, n);
		buf[n] = '\0';
		return n;
	}
	memcpy(buf, mark_short, MARK_LEN);
	if (encode(k, n, buf + MARK_LEN, NAMES_MAX - MARK_LEN, &len) < n)
		return hashed_name(k, n, buf);
	buf[MARK_LEN + len] = '\0';
	return MARK_LEN + len;
}

bool names_is(const char *name, size_t n, const void *key, size_t key_len, const char *reserved)
{
	char buf[NAMES_MAX + 1];

	return names_from_key(key, key_len, reserved, buf) == n && memcmp(buf, name, n) == 0;
}

bool names_reservable(const char *name)
{
	const size_t n = strlen(name);

	return n <= NAMES_MAX - MARK_LEN && !unspellable((const uint8_t *)name, n, NULL) &&
	       !strchr(name, '%');
}
