/* SPDX-License-Identifier: Apache-2.0 */
/* Access lists: what is taken for one can be changed to agree with any mode, and stays one. */
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "fuse/acl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *list;
	uint32_t mode, before;

	if (size < 2)
		return 0;
	mode = (uint32_t)(data[0] | data[1] << 8) & 07777;
	size -= 2;
	list = malloc(size ? size : 1);
	if (!list)
		return 0;
	memcpy(list, data + 2, size);
	if (acl_is_valid(list, size)) {
		before = acl_mode(list, size);
		emdb_assert(before <= 0777 && (!acl_is_mode(list, size) || size == 28));
		emdb_assert(acl_inherit(list, size, mode) == ((mode & 07000) | (mode & before)));
		emdb_assert(acl_is_valid(list, size) && acl_mode(list, size) == (mode & before));
		acl_chmod(list, size, mode);
		emdb_assert(acl_is_valid(list, size) && acl_mode(list, size) == (mode & 0777));
	}
	free(list);
	return 0;
}
