/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a store again: encrypted, decrypted, under another data key. */
#include "core/emdb.h"

emdb_err emdb_encrypt(const char *path, const struct emdb_secret *secret,
		      const struct emdb_convert_options *opts)
{
	(void)opts;
	return path && secret ? EMDB_ERR_UNSUPPORTED : EMDB_ERR_INVAL;
}

emdb_err emdb_decrypt(const char *path, const struct emdb_secret *secret,
		      const struct emdb_convert_options *opts)
{
	(void)opts;
	return path && secret ? EMDB_ERR_UNSUPPORTED : EMDB_ERR_INVAL;
}

emdb_err emdb_rotate(const char *path, const struct emdb_secret *secrets, size_t n,
		     const struct emdb_convert_options *opts)
{
	(void)opts;
	return path && secrets && n ? EMDB_ERR_UNSUPPORTED : EMDB_ERR_INVAL;
}
