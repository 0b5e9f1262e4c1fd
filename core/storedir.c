/* SPDX-License-Identifier: Apache-2.0 */
#include "core/storedir.h"

#include <stdarg.h>
#include <stdio.h>

/* A store, its journal/, its snapshots/, their stores and journals. */
#define DEPTH_MAX 4
/* More directories in one another than a path can name. */
#define PARENTS_MAX 4096

emdb_err storedir_open(struct emdb_io *io, int dirfd, const char *name, int *ret_fd)
{
	const int ret = io_openat(io, dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, ret_fd);

	return ret == -ENOTDIR || ret == -ELOOP ? EMDB_ERR_NOT_STORE : err_of_io(ret);
}

emdb_err storedir_super_read(struct emdb_io *io, int dirfd, struct superblock *ret)
{
	return storedir_super_read_as(io, dirfd, STOREDIR_SUPER, ret);
}

emdb_err storedir_super_read_as(struct emdb_io *io, int dirfd, const char *name,
				struct superblock *ret)
{
	struct buf b = BUF_INIT;
	emdb_err err;
	const int rc = io_read_file(io, dirfd, name, FMT_SUPER_SIZE + 1, &b);

	if (rc == -EFBIG)
		err = EMDB_ERR_NOT_STORE;
	else
		err = rc ? err_of_io(rc) : fmt_super_decode(b.data, b.len, ret);
	buf_release(&b);
	return err;
}

emdb_err storedir_super_write(struct emdb_io *io, int dirfd, const struct superblock *sb)
{
	uint8_t b[FMT_SUPER_SIZE];
	struct io_stat st;
	int ret;

	fmt_super_encode(sb, b);
	ret = io_replace_durably(io, dirfd, STOREDIR_SUPER, b, sizeof(b));
	/* No old key slot lives on in the copy. */
	if (ret == 0 && io_fstatat(io, dirfd, STOREDIR_SUPER_BAK, &st) == 0)
		ret = io_replace_durably(io, dirfd, STOREDIR_SUPER_BAK, b, sizeof(b));
	return err_of_io(ret);
}

bool storedir_scrub_read(struct emdb_io *io, int dirfd, const uint8_t uuid[static 16],
			 struct scrub_status *ret)
{
	struct buf b = BUF_INIT;
	struct scrub_status st;
	const bool good = io_read_file(io, dirfd, STOREDIR_SCRUB, FMT_SCRUB_SIZE, &b) == 0 &&
			  fmt_scrub_decode(b.data, b.len, &st) &&
			  memcmp(st.uuid, uuid, sizeof(st.uuid)) == 0;

	buf_release(&b);
	if (good)
		*ret = st;
	return good;
}

emdb_err storedir_scrub_write(struct emdb_io *io, int dirfd, const struct scrub_status *s)
{
	uint8_t b[FMT_SCRUB_SIZE];

	fmt_scrub_encode(s, b);
	return err_of_io(io_replace_durably(io, dirfd, STOREDIR_SCRUB, b, sizeof(b)));
}

struct removal {
	struct emdb_io *io;
	int fd;
	unsigned int depth;
	emdb_err err; /* of a directory in it */
};

static emdb_err remove_dir(struct emdb_io *io, int dirfd, const char *name, unsigned int depth);

static int remove_one(void *arg, const char *name)
{
	struct removal *const r = arg;
	int ret = io_unlinkat(r->io, r->fd, name, 0);

	if ((ret == -EISDIR || ret == -EPERM) && r->depth < DEPTH_MAX) {
		r->err = remove_dir(r->io, r->fd, name, r->depth + 1);
		ret = r->err ? -EIO : 0;
	}
	return ret == -ENOENT ? 0 : ret;
}

static emdb_err remove_dir(struct emdb_io *io, int dirfd, const char *name, unsigned int depth)
{
	struct removal r = { io, -1, depth, EMDB_OK };
	emdb_err err = storedir_open(io, dirfd, name, &r.fd);

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	err = err_of_io(io_list(io, r.fd, remove_one, &r));
	if (r.err)
		err = r.err;
	(void)io_close(io, r.fd);
	if (!err)
		err = err_of_io(io_unlinkat(io, dirfd, name, AT_REMOVEDIR));
	return err;
}

emdb_err storedir_remove(struct emdb_io *io, int dirfd, const char *name)
{
	return remove_dir(io, dirfd, name, 0);
}

emdb_err storedir_lock(struct emdb_io *io, int dirfd, bool exclusive, bool make, int *ret_fd)
{
	int fd, ret;

	ret = io_openat(io, dirfd, STOREDIR_LOCK, (make ? O_RDWR | O_CREAT : O_RDONLY) | O_NOFOLLOW,
			0600, &fd);
	if (ret == -ENOENT && !make) {
		*ret_fd = -1;
		return EMDB_OK;
	}
	if (ret)
		return err_of_io(ret);
	ret = io_flock(io, fd, exclusive, true);
	if (ret) {
		(void)io_close(io, fd);
		return ret == -EWOULDBLOCK ? EMDB_ERR_LOCKED : err_of_io(ret);
	}
	*ret_fd = fd;
	return EMDB_OK;
}

emdb_err storedir_outside(struct emdb_io *io, int fd)
{
	struct io_stat here, above;
	emdb_err err = EMDB_OK;
	int at = -1, up, ret;

	for (unsigned int i = 0; i < PARENTS_MAX; i++) {
		const int dir = at == -1 ? fd : at;
		struct superblock sb;

		err = storedir_super_read(io, dir, &sb);
		/* Damaged or newer, it is one. */
		if (err == EMDB_OK || err == EMDB_ERR_CORRUPT || err == EMDB_ERR_VERSION) {
			err = EMDB_ERR_INVAL;
			break;
		}
		err = EMDB_OK;
		ret = io_fstat(io, dir, &here);
		if (ret == 0)
			ret = io_openat(io, dir, "..", O_RDONLY | O_DIRECTORY, 0, &up);
		if (ret) {
			/* What may not be looked at is not ours. */
			err = ret == -EACCES ? EMDB_OK : err_of_io(ret);
			break;
		}
		(void)io_close(io, at);
		at = up;
		ret = io_fstat(io, at, &above);
		if (ret || (above.ino == here.ino && above.dev == here.dev)) {
			err = err_of_io(ret);
			break;
		}
	}
	(void)io_close(io, at);
	return err;
}

uint64_t storedir_bytes(const struct manifest *m)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < m->head.nsegs; i++)
		n += m->segs[i].len;
	return n;
}

void explain(struct emdb_detail *d, const char *fmt, ...)
{
	va_list ap;

	if (!d)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(d->text, sizeof(d->text), fmt, ap);
	va_end(ap);
}
