/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/access.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/acl.h"

/* Most groups that a process can be in (NGROUPS_MAX of the kernel). */
#define GROUPS_MAX 65536

bool access_is_list(const char *name)
{
	return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

/* A node's list, to free(); NO_XATTR: it has none.  CORRUPT: what is stored there is no list. */
static emdb_err get(struct fs *fs, uint64_t id, const char *name, void **ret, size_t *ret_len)
{
	char *list;
	size_t len;
	emdb_err err = emdb_xattr_get(fs->db, id, name, NULL, 0, &len);

	if (err != EMDB_OK)
		return err;
	/* It may have grown since. */
	list = malloc(EMDB_XATTR_VALUE_MAX);
	if (list == NULL)
		return EMDB_ERR_NOMEM;
	err = emdb_xattr_get(fs->db, id, name, list, EMDB_XATTR_VALUE_MAX, &len);
	if (err == EMDB_OK && !acl_is_valid(list, len))
		err = EMDB_ERR_CORRUPT;
	if (err != EMDB_OK) {
		free(list);
		return err;
	}
	*ret = list;
	*ret_len = len;
	return EMDB_OK;
}

/* ---- Setting and removing ---- */

static bool is_member(fuse_req_t req, gid_t group)
{
	gid_t *list;
	bool found = fuse_req_ctx(req)->gid == group;
	int n = fuse_req_getgroups(req, 0, NULL);

	if (found || n <= 0 || n > GROUPS_MAX)
		return found;
	list = calloc((size_t)n, sizeof(*list));
	if (list == NULL)
		return false;
	n = fuse_req_getgroups(req, n, list);
	for (int i = 0; i < n && !found; i++)
		found = list[i] == group;
	free(list);
	return found;
}

/* As with chmod(2): who is not in the file's group cannot keep its set-gid bit. */
static uint32_t lost_bits(fuse_req_t req, const struct emdb_attr *attr)
{
	if (!(attr->mode & S_ISGID) || fuse_req_ctx(req)->uid == 0 || is_member(req, attr->gid))
		return 0;
	return S_ISGID;
}

/*
 * The kernel asks for the mode again by itself, unless it leaves the lists to
 * us alone: then it must be told that the mode changed.
 */
static void tell_mode(struct fs *fs, uint64_t id)
{
	struct notify *n = atomic_load_explicit(&fs->notify, memory_order_acquire);

	if (fs->kernel_acl || n == NULL)
		return;
	notify_attr(n, id);
}

static emdb_err set_access(fuse_req_t req, const struct emdb_attr *attr, const char *list,
			   size_t len)
{
	struct fs *fs = fs_of(req);
	const bool plain = acl_is_mode(list, len);
	const emdb_err err =
		emdb_xattr_set_mode(fs->db, attr->id, ACL_ACCESS, plain ? NULL : list, len,
				    acl_mode(list, len), 0777 | lost_bits(req, attr));

	if (err == EMDB_OK)
		tell_mode(fs, attr->id);
	return err;
}

static int set_list(fuse_req_t req, fuse_ino_t ino, const char *name, const char *list, size_t len)
{
	struct fs *fs = fs_of(req);
	struct emdb_attr attr;
	emdb_err err;

	if (fs->opt.noacl)
		return EOPNOTSUPP;
	if (!acl_is_valid(list, len))
		return EINVAL;
	err = emdb_node_getattr(fs->db, ino, &attr);
	if (err != EMDB_OK)
		return emdb_err_errno(err);
	if (S_ISLNK(attr.mode))
		return EOPNOTSUPP;
	if (strcmp(name, ACL_ACCESS) == 0)
		return emdb_err_errno(set_access(req, &attr, list, len));
	if (!S_ISDIR(attr.mode))
		return EACCES;
	return emdb_err_errno(emdb_xattr_set(fs->db, ino, name, list, len, 0));
}

void access_set(fuse_req_t req, fuse_ino_t ino, const char *name, const char *list, size_t len)
{
	(void)fuse_reply_err(req, set_list(req, ino, name, list, len));
}

/* Who had rights by name loses them; the mode stays, its group bits now being the group's. */
void access_remove(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fs *fs = fs_of(req);
	emdb_err err;

	if (fs->opt.noacl) {
		(void)fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	err = emdb_xattr_remove(fs->db, ino, name);
	fs_reply_err(req, err == EMDB_ERR_NO_XATTR ? EMDB_OK : err);
}

/* ---- Modes ---- */

emdb_err access_chmod(struct fs *fs, uint64_t id, uint32_t mode)
{
	void *list;
	size_t len;
	emdb_err err = fs->opt.noacl ? EMDB_ERR_NO_XATTR : get(fs, id, ACL_ACCESS, &list, &len);

	if (err != EMDB_OK)
		return err;
	acl_chmod(list, len, mode);
	err = emdb_xattr_set_mode(fs->db, id, ACL_ACCESS, list, len, mode & 07777, 07777);
	free(list);
	return err;
}

/* ---- Creating ---- */

static void add(struct access_new *n, struct emdb_create *what, const char *name, void *list,
		size_t len)
{
	const size_t i = what->xattr_count++;

	n->lists[i] = list;
	n->xattrs[i] = (struct emdb_xattr){ name, list, len };
	what->xattrs = n->xattrs;
}

emdb_err access_inherit(fuse_req_t req, uint64_t parent, struct emdb_create *what,
			struct access_new *ret)
{
	struct fs *fs = fs_of(req);
	emdb_err err = EMDB_ERR_NO_XATTR;
	void *list, *copy;
	size_t len;

	*ret = (struct access_new){ 0 };
	if (S_ISLNK(what->mode))
		return EMDB_OK;
	if (!fs->opt.noacl && !fs->opt.noxattr)
		err = get(fs, parent, ACL_DEFAULT, &list, &len);
	if (err == EMDB_ERR_NO_XATTR) {
		what->mode &= ~(uint32_t)(fuse_req_ctx(req)->umask & 0777);
		return EMDB_OK;
	}
	if (err != EMDB_OK)
		return err;
	if (S_ISDIR(what->mode)) {
		copy = malloc(len);
		if (copy == NULL) {
			free(list);
			return EMDB_ERR_NOMEM;
		}
		memcpy(copy, list, len);
		add(ret, what, ACL_DEFAULT, copy, len);
	}
	what->mode = acl_inherit(list, len, what->mode);
	if (acl_is_mode(list, len))
		free(list);
	else
		add(ret, what, ACL_ACCESS, list, len);
	return EMDB_OK;
}

void access_new_release(struct access_new *n)
{
	free(n->lists[0]);
	free(n->lists[1]);
}
