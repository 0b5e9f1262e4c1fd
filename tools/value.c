/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads until buf is full or the input ends. */
static emdb_err read_full(int fd, char *buf, size_t size, size_t *ret_len, int *ret_errno)
{
	size_t len = 0;

	while (len < size) {
		const ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			*ret_errno = errno;
			return EMDB_ERR_IO;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return EMDB_OK;
}

/* Fills the object with the piece in buf and the rest of the input. */
static emdb_err write_pieces(emdb_db *db, uint64_t id, int fd, char *buf, size_t len,
			     int *ret_errno)
{
	uint64_t off = 0;
	emdb_err err;

	do {
		err = emdb_node_write(db, id, off, buf, len, 0);
		if (err)
			return err;
		off += len;
		err = read_full(fd, buf, VALUE_PIECE, &len, ret_errno);
	} while (!err && len);
	return err;
}

/*
 * Gives the nameless object its name.  rename(2)'s rule makes the replacement
 * of an existing key atomic; the name it needs for that holds the object's id,
 * which is never reused.
 */
static emdb_err install(emdb_db *db, uint64_t id, uint64_t ns, const void *key, size_t key_len)
{
	struct emdb_attr attr;
	char temp[64];
	emdb_err err;
	int n;

	err = emdb_node_link(db, id, ns, key, key_len, &attr);
	if (!err)
		emdb_node_forget(db, id, 1);
	if (err != EMDB_ERR_EXISTS)
		return err;
	n = snprintf(temp, sizeof(temp), ".emdb-put-%016" PRIx64, id);
	err = emdb_node_link(db, id, ns, temp, (size_t)n, &attr);
	if (err)
		return err;
	emdb_node_forget(db, id, 1);
	err = emdb_node_rename(db, ns, temp, (size_t)n, ns, key, key_len, EMDB_RENAME_TTL_SOURCE);
	if (err && emdb_node_unlink(db, ns, temp, (size_t)n, NULL))
		return err; /* the first error counts */
	return err;
}

static emdb_err put_large(emdb_db *db, uint64_t ns, const void *key, size_t key_len, int fd,
			  int64_t expires_ms, char *buf, int *ret_errno)
{
	const struct emdb_create what = { .mode = S_IFREG | 0600,
					  .uid = geteuid(),
					  .gid = getegid() };
	struct emdb_attr attr;
	emdb_err err;

	err = emdb_node_create_anon(db, ns, &what, &attr);
	if (err)
		return err;
	err = write_pieces(db, attr.id, fd, buf, VALUE_PIECE, ret_errno);
	if (!err && expires_ms != EMDB_TTL_DEFAULT) {
		const struct emdb_attr want = { .expires_ms = expires_ms == EMDB_TTL_NEVER
								      ? 0
								      : expires_ms };
		struct emdb_attr now;

		err = emdb_node_setattr(db, attr.id, &want, EMDB_SET_EXPIRES, &now);
	}
	if (!err)
		err = install(db, attr.id, ns, key, key_len);
	emdb_node_forget(db, attr.id, 1);
	return err;
}

emdb_err value_put_fd(emdb_db *db, uint64_t ns, const void *key, size_t key_len, int fd,
		      int64_t expires_ms, int *ret_errno)
{
	char *const buf = malloc(VALUE_PIECE);
	size_t len = 0;
	emdb_err err;

	*ret_errno = 0;
	if (!buf)
		return EMDB_ERR_NOMEM;
	err = read_full(fd, buf, VALUE_PIECE, &len, ret_errno);
	if (!err && len < VALUE_PIECE)
		err = emdb_put(db, ns, key, key_len, buf, len, expires_ms);
	else if (!err)
		err = put_large(db, ns, key, key_len, fd, expires_ms, buf, ret_errno);
	free(buf);
	return err;
}

static emdb_err copy_out(emdb_db *db, uint64_t id, char *buf, struct out *out)
{
	uint64_t off = 0;
	size_t len = 0;
	emdb_err err;

	do {
		err = emdb_node_read(db, id, off, buf, VALUE_PIECE, &len);
		if (err)
			return err;
		out_bytes(out, buf, len);
		off += len;
	} while (len && !out->err);
	return EMDB_OK;
}

emdb_err value_get(emdb_db *db, uint64_t ns, const void *key, size_t key_len, struct out *out)
{
	struct emdb_attr attr;
	char *buf = NULL;
	emdb_err err;

	err = emdb_node_lookup(db, ns, key, key_len, &attr);
	if (err)
		return err;
	if (S_ISDIR(attr.mode))
		err = EMDB_ERR_IS_NS;
	else if (!(buf = malloc(VALUE_PIECE)))
		err = EMDB_ERR_NOMEM;
	else
		err = copy_out(db, attr.id, buf, out);
	emdb_node_forget(db, attr.id, 1);
	free(buf);
	return err;
}
