/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about nodes in and below the directory of snapshots.
 *
 * Those about a node in a snapshot are answered by the handlers of ops.h, with
 * the view of the snapshot as fs_of() and the object's id in it as the node.
 * Where the snapshot must be opened first, or made or removed, that
 * happens in a thread of the request's own.  Whatever would change something
 * below a snapshot is EROFS.
 */
#ifndef FUSE_SNAPOPS_H
#define FUSE_SNAPOPS_H

#include "fuse/compat.h"

void snap_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void snap_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void snap_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		  struct fuse_file_info *fi);
void snap_access(fuse_req_t req, fuse_ino_t ino, int mask);
void snap_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
void snap_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		 struct fuse_file_info *fi);
void snap_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
void snap_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void snap_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void snap_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void snap_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void snap_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void snap_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void snap_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		 const char *newname, unsigned int flags);
void snap_readlink(fuse_req_t req, fuse_ino_t ino);
void snap_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		  struct fuse_file_info *fi);
void snap_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi);
void snap_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void snap_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		struct fuse_file_info *fi);
void snap_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		    struct fuse_file_info *fi);
void snap_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void snap_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			  struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			  struct fuse_file_info *fi_out, size_t len, int flags);
void snap_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void snap_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		   int flags);
void snap_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void snap_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/*
 * For a handler that goes on in another thread: the view of its request (NULL:
 * the mount's own), which the thread makes its fs_view and gives back in the end.
 */
struct fs *snap_hold(void);
void snap_release(struct fs *view);

#endif
