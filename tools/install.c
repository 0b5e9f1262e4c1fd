/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/install.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

emdb_err install_begin(emdb_db *db, uint64_t ns, uint64_t *ret_id)
{
	const struct emdb_create what = { .mode = S_IFREG | 0600,
					  .uid = geteuid(),
					  .gid = getegid() };
	struct emdb_attr attr;
	const emdb_err err = emdb_node_create_anon(db, ns, &what, &attr);

	if (!err)
		*ret_id = attr.id;
	return err;
}

size_t install_temp_name(uint64_t id, char buf[INSTALL_TEMP_SIZE])
{
	return (size_t)snprintf(buf, INSTALL_TEMP_SIZE, ".emdb-put-%016" PRIx64, id);
}

static emdb_err set_deadline(emdb_db *db, uint64_t id, int64_t expires_ms)
{
	const struct emdb_attr want = { .expires_ms =
						expires_ms == EMDB_TTL_NEVER ? 0 : expires_ms };
	struct emdb_attr now;

	if (expires_ms == EMDB_TTL_DEFAULT)
		return EMDB_OK;
	return emdb_node_setattr(db, id, &want, EMDB_SET_EXPIRES, &now);
}

static emdb_err link_name(emdb_db *db, uint64_t id, uint64_t ns, const void *key, size_t key_len)
{
	struct emdb_attr attr;
	const emdb_err err = emdb_node_link(db, id, ns, key, key_len, &attr);

	if (!err)
		emdb_node_forget(db, id, 1);
	return err;
}

/*
 * rename(2)'s rule makes the replacement of an existing key atomic; the name
 * it needs for that holds the object's id, which is never reused.
 */
emdb_err install_commit(emdb_db *db, uint64_t id, uint64_t ns, const void *key, size_t key_len,
			int64_t expires_ms)
{
	char temp[INSTALL_TEMP_SIZE];
	const size_t n = install_temp_name(id, temp);
	emdb_err err;

	err = set_deadline(db, id, expires_ms);
	if (!err)
		err = link_name(db, id, ns, key, key_len);
	if (err != EMDB_ERR_EXISTS)
		return err;
	err = link_name(db, id, ns, temp, n);
	if (err)
		return err;
	err = emdb_node_rename(db, ns, temp, n, ns, key, key_len, EMDB_RENAME_TTL_SOURCE);
	if (err && emdb_node_unlink(db, ns, temp, n, NULL))
		return err; /* the first error counts */
	return err;
}
