/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name mapping: any input is a key that has a name that means that key, and if it is a name, a
 * name of what it means. The first byte chooses whether ".snap" is reserved.
 */
#include "core/base.h"
#include "fuse/names.h"

static void check_key(const char *key, size_t n, const char *reserved)
{
	char name[NAMES_MAX + 1];
	const size_t len = names_from_key(key, n, reserved, name);
	uint8_t hash[NAMES_HASH_SIZE];
	struct name_key back;
	const enum name_kind kind = names_to_key(name, len, reserved, &back);

	emdb_assert(len >= 1 && len <= NAMES_MAX && strlen(name) == len && !strchr(name, '/'));
	emdb_assert(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
	emdb_assert(!reserved || strcmp(name, reserved) != 0);
	if (kind == NAME_KEY) {
		emdb_assert(back.len == n && memcmp(back.bytes, key, n) == 0);
		return;
	}
	names_hash(key, n, hash);
	emdb_assert(kind == NAME_HASHED && n >= NAMES_HASHED_KEY_MIN && back.len < n);
	emdb_assert(memcmp(back.hash, hash, sizeof(hash)) == 0 &&
		    memcmp(back.bytes, key, back.len) == 0);
}

static void check_name(const char *name, size_t n, const char *reserved)
{
	char again[NAMES_MAX + 1];
	struct name_key key;

	if (names_to_key(name, n, reserved, &key) != NAME_KEY)
		return;
	emdb_assert(names_from_key(key.bytes, key.len, reserved, again) == n &&
		    memcmp(again, name, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *const s = (const char *)data + 1;
	const char *reserved;

	if (size == 0)
		return 0;
	reserved = data[0] & 1 ? ".snap" : NULL;
	check_key(s, size - 1, reserved);
	check_name(s, size - 1, reserved);
	return 0;
}
