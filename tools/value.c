/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/value.h"

#include <errno.h>
#include <stdlib.h>
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

/* Fills the new value with the piece in buf and the rest of the input. */
static emdb_err write_pieces(struct store *store, int fd, char *buf, size_t len, int *ret_errno)
{
	uint64_t off = 0;
	emdb_err err;

	do {
		err = store_value_write(store, off, buf, len);
		if (err)
			return err;
		off += len;
		err = read_full(fd, buf, VALUE_PIECE, &len, ret_errno);
	} while (!err && len);
	return err;
}

static emdb_err put_large(struct store *store, uint64_t ns, const void *key, size_t key_len, int fd,
			  int64_t expires_ms, char *buf, int *ret_errno)
{
	emdb_err err = store_value_create(store, ns);

	if (err)
		return err;
	err = write_pieces(store, fd, buf, VALUE_PIECE, ret_errno);
	if (!err)
		err = store_value_install(store, ns, key, key_len, expires_ms);
	store_value_close(store);
	return err;
}

emdb_err value_put_fd(struct store *store, uint64_t ns, const void *key, size_t key_len, int fd,
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
		err = store_put(store, ns, key, key_len, buf, len, expires_ms);
	else if (!err)
		err = put_large(store, ns, key, key_len, fd, expires_ms, buf, ret_errno);
	free(buf);
	return err;
}

static emdb_err copy_out(struct store *store, char *buf, struct out *out)
{
	uint64_t off = 0;
	size_t len = 0;
	emdb_err err;

	do {
		err = store_value_read(store, off, buf, VALUE_PIECE, &len);
		if (err)
			return err;
		out_bytes(out, buf, len);
		off += len;
	} while (len && !out->err);
	return EMDB_OK;
}

emdb_err value_get(struct store *store, uint64_t ns, const void *key, size_t key_len,
		   struct out *out)
{
	char *const buf = malloc(VALUE_PIECE);
	emdb_err err = EMDB_ERR_NOMEM;

	if (buf) {
		err = store_value_open(store, ns, key, key_len);
		if (!err)
			err = copy_out(store, buf, out);
		store_value_close(store);
	}
	free(buf);
	return err;
}
