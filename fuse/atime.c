/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/atime.h"

#include "fuse/log.h"

/* Older than this, relatime sets the access time anyway. */
#define RELATIME_NS ((int64_t)86400 * 1000000000)

/* Naming ctime keeps the store from stamping it: reading does not change the object. */
void atime_update(struct fs *fs, uint64_t id)
{
	const int64_t now = fs_now_ns();
	struct emdb_attr attr;

	if (emdb_node_getattr(fs->db, id, &attr) != EMDB_OK)
		return;
	if (fs->opt.atime == ATIME_RELATIVE && attr.atime_ns > attr.mtime_ns &&
	    attr.atime_ns > attr.ctime_ns && now - attr.atime_ns < RELATIME_NS)
		return;
	attr.atime_ns = now;
	if (emdb_node_setattr(fs->db, id, &attr, EMDB_SET_ATIME | EMDB_SET_CTIME, &attr) != EMDB_OK)
		log_debug("access time not recorded");
}
