/* SPDX-License-Identifier: Apache-2.0 */
#include "core/emdb.h"

#include <assert.h>
#include <errno.h>

#include "core/base.h"

struct err_row {
	const char *name;
	const char *text;
	int sys;
};

#define ROW(code, sys, text) [-(EMDB_##code)] = { "EMDB_" #code, text, sys }

/* One row per code, in the order of enum emdb_err. */
static const struct err_row rows[] = {
	ROW(OK, 0, "success"),
	ROW(ERR_INVAL, EINVAL, "an argument is not allowed"),
	ROW(ERR_NOMEM, ENOMEM, "out of memory"),
	ROW(ERR_NOT_FOUND, ENOENT, "no such key or namespace"),
	ROW(ERR_EXISTS, EEXIST, "the name is already taken"),
	ROW(ERR_NOT_NS, ENOTDIR, "the name is a key, not a namespace"),
	ROW(ERR_IS_NS, EISDIR, "the name is a namespace, not a key"),
	ROW(ERR_NOT_EMPTY, ENOTEMPTY, "the namespace is not empty"),
	ROW(ERR_KEY_TOO_LONG, ENAMETOOLONG, "the key is longer than 65535 bytes"),
	ROW(ERR_VALUE_TOO_LARGE, EFBIG, "the value is too large"),
	ROW(ERR_NO_SPACE, ENOSPC, "the disk is full; nothing was changed"),
	ROW(ERR_IO, EIO, "the system failed to read or write"),
	ROW(ERR_CORRUPT, EIO, "stored bytes do not check out"),
	ROW(ERR_FAILED, EIO,
	    "an earlier write or sync failed; the store is read-only until reopened"),
	ROW(ERR_READ_ONLY, EROFS, "the store is open read-only"),
	ROW(ERR_LOCKED, EBUSY, "another process has the store open"),
	ROW(ERR_NO_STORE, ENOENT, "there is no store at this path"),
	ROW(ERR_NOT_STORE, EINVAL, "this is not an emdb store"),
	ROW(ERR_VERSION, ENOTSUP, "the store was made by a newer version"),
	ROW(ERR_PERM, EACCES, "permission denied"),
	ROW(ERR_NO_XATTR, ENODATA, "no such extended attribute"),
	ROW(ERR_RANGE, ERANGE, "the result does not fit"),
	ROW(ERR_TOO_MANY_LINKS, EMLINK, "too many links"),
	ROW(ERR_LOOP, EINVAL, "a namespace cannot be moved into itself"),
	ROW(ERR_BUSY, EBUSY, "in use"),
	ROW(ERR_UNSUPPORTED, EOPNOTSUPP, "not supported for this store or object"),
	ROW(ERR_OVERFLOW, EOVERFLOW, "a time or size is beyond what can be stored"),
	ROW(ERR_TOO_MANY_FILES, EMFILE, "too many open files"),
	ROW(ERR_HOLDER_ALIVE, EBUSY, "the process that holds the lock is alive"),
	ROW(ERR_TXN_TOO_BIG, E2BIG, "too much for one atomic step"),
	ROW(ERR_CONFLICT, EAGAIN, "a concurrent change came first"),
	ROW(ERR_KEY_REQUIRED, ENOKEY, "the store is encrypted: a key is required"),
	ROW(ERR_WRONG_KEY, EKEYREJECTED, "wrong key or passphrase"),
	ROW(ERR_CANCELLED, ECANCELED, "cancelled"),
	ROW(ERR_NOT_ORDERED, EOPNOTSUPP, "the store was opened without the ordered index"),
	ROW(ERR_DAMAGED, EIO, "the journal is damaged"),
	ROW(ERR_AGAIN, EAGAIN, "nothing is there yet, or there is no room right now"),
	ROW(ERR_NOT_ENCRYPTED, EINVAL, "the store is not encrypted, but a key was given"),
};
static_assert(ARRAY_SIZE(rows) == EMDB_ERR_COUNT_, "every error code needs its row");

static const struct err_row *row_of(emdb_err err)
{
	const int i = -(int)err;

	if (i < 0 || (size_t)i >= ARRAY_SIZE(rows))
		return NULL;
	return &rows[i];
}

const char *emdb_strerror(emdb_err err)
{
	const struct err_row *row = row_of(err);

	return row ? row->text : "unknown error code";
}

const char *emdb_err_name(emdb_err err)
{
	const struct err_row *row = row_of(err);

	return row ? row->name : "EMDB_ERR_UNKNOWN";
}

int emdb_err_errno(emdb_err err)
{
	const struct err_row *row = row_of(err);

	return row ? row->sys : EIO;
}
