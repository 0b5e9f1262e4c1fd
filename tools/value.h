/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values between descriptors and the store, in bounded memory whatever their
 * size.
 */
#ifndef TOOLS_VALUE_H
#define TOOLS_VALUE_H

#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"
#include "tools/out.h"
#include "tools/store.h"

/*
 * Below this a value is stored by one record, a larger one is written in
 * pieces of this size.  One piece fits into the smallest segment.
 */
#define VALUE_PIECE STORE_PIECE

/*
 * Stores what can be read from fd under the key, as emdb_put() does.  A value
 * of VALUE_PIECE and more becomes visible at once too, when it is complete; its
 * object is a new one.  *ret_errno: why reading failed (then the result is
 * EMDB_ERR_IO), else 0.
 */
emdb_err value_put_fd(struct store *store, uint64_t ns, const void *key, size_t key_len, int fd,
		      int64_t expires_ms, int *ret_errno);
/* Writes the value to out.  Errors: those of emdb_get(). */
emdb_err value_get(struct store *store, uint64_t ns, const void *key, size_t key_len,
		   struct out *out);

#endif
