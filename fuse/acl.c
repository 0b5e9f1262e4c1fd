/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/acl.h"

#include <endian.h>
#include <string.h>

#define ACL_VERSION 2u
#define HEADER_SIZE 4u
#define ENTRY_SIZE  8u
#define PERM_ALL    7u

enum tag {
	TAG_USER_OBJ = 0x01,
	TAG_USER = 0x02,
	TAG_GROUP_OBJ = 0x04,
	TAG_GROUP = 0x08,
	TAG_MASK = 0x10,
	TAG_OTHER = 0x20,
};

static unsigned int get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static unsigned int tag_of(const uint8_t *entry)
{
	return get16(entry);
}

static uint32_t perm_of(const uint8_t *entry)
{
	return get16(entry + 2);
}

static void set_perm(uint8_t *entry, uint32_t perm)
{
	const uint16_t v = htole16((uint16_t)perm);

	memcpy(entry + 2, &v, sizeof(v));
}

static size_t entries(size_t len)
{
	return (len - HEADER_SIZE) / ENTRY_SIZE;
}

static const uint8_t *entry_at(const void *list, size_t i)
{
	return (const uint8_t *)list + HEADER_SIZE + i * ENTRY_SIZE;
}

/* Where the first entry with that tag is, bytes; 0: nowhere. */
static size_t find(const void *list, size_t len, unsigned int tag)
{
	for (size_t i = 0; i < entries(len); i++)
		if (tag_of(entry_at(list, i)) == tag)
			return HEADER_SIZE + i * ENTRY_SIZE;
	return 0;
}

/* The entry that the group's bits of the mode stand for. */
static size_t group_class(const void *list, size_t len)
{
	const size_t mask = find(list, len, TAG_MASK);

	return mask != 0 ? mask : find(list, len, TAG_GROUP_OBJ);
}

static bool is_tag(unsigned int tag)
{
	return tag != 0 && tag <= TAG_OTHER && (tag & (tag - 1)) == 0;
}

bool acl_is_valid(const void *list, size_t len)
{
	const unsigned int needed = TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER;
	unsigned int seen = 0, last = 0;
	uint32_t version;

	if (list == NULL || len < HEADER_SIZE || (len - HEADER_SIZE) % ENTRY_SIZE != 0)
		return false;
	memcpy(&version, list, sizeof(version));
	if (le32toh(version) != ACL_VERSION)
		return false;
	for (size_t i = 0; i < entries(len); i++) {
		const unsigned int tag = tag_of(entry_at(list, i));
		const bool named = tag == TAG_USER || tag == TAG_GROUP;

		/* The order is that of the tags' numbers; only names repeat. */
		if (!is_tag(tag) || tag < last || (tag == last && !named) ||
		    perm_of(entry_at(list, i)) > PERM_ALL)
			return false;
		seen |= tag;
		last = tag;
	}
	if ((seen & needed) != needed)
		return false;
	return !(seen & (TAG_USER | TAG_GROUP)) || (seen & TAG_MASK);
}

uint32_t acl_mode(const void *list, size_t len)
{
	const uint8_t *const p = list;

	return perm_of(p + find(list, len, TAG_USER_OBJ)) << 6 |
	       perm_of(p + group_class(list, len)) << 3 | perm_of(p + find(list, len, TAG_OTHER));
}

bool acl_is_mode(const void *list, size_t len)
{
	(void)list;
	/* A mask makes a fourth entry, a name a mask. */
	return entries(len) == 3;
}

void acl_chmod(void *list, size_t len, uint32_t mode)
{
	uint8_t *const p = list;

	set_perm(p + find(list, len, TAG_USER_OBJ), mode >> 6 & PERM_ALL);
	set_perm(p + group_class(list, len), mode >> 3 & PERM_ALL);
	set_perm(p + find(list, len, TAG_OTHER), mode & PERM_ALL);
}

uint32_t acl_inherit(void *list, size_t len, uint32_t mode)
{
	const uint32_t bits = mode & acl_mode(list, len);

	acl_chmod(list, len, bits);
	return (mode & ~0777u) | bits;
}
