/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large values become visible at once: they are written into an object without
 * a name, which then takes the key's place.  Shared with the daemon; prints
 * nothing.
 *
 * Calling sequence: install_begin(), emdb_node_write() as often as it takes,
 * install_commit(), and in any case emdb_node_forget() of one reference, which
 * is what removes an object that was not installed.
 */
#ifndef TOOLS_INSTALL_H
#define TOOLS_INSTALL_H

#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"

/* Makes a nameless object that is to belong into the namespace. */
emdb_err install_begin(emdb_db *db, uint64_t ns, uint64_t *ret_id);
/* Names it, in place of what has the key; expires_ms as in emdb_put(). */
emdb_err install_commit(emdb_db *db, uint64_t id, uint64_t ns, const void *key, size_t key_len,
			int64_t expires_ms);

#define INSTALL_TEMP_SIZE 64
/* The name that it may have for a moment when it replaces another; returns its length. */
size_t install_temp_name(uint64_t id, char buf[INSTALL_TEMP_SIZE]);

#endif
