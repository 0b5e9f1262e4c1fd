/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/unlock.h"

#include <sys/resource.h>

#include "fuse/log.h"

bool unlock_wanted(const struct options *o)
{
	const struct secret_source *const s = &o->secret;

	return o->encrypt || s->passfile != NULL || s->command != NULL || s->keyfile != NULL ||
	       s->fd != -1;
}

/* secret_read() does the same by other means; this one shows in /proc, and nothing takes it back. */
static void no_dumps(void)
{
	const struct rlimit none = { 0, 0 };

	(void)setrlimit(RLIMIT_CORE, &none);
}

enum unlock_result unlock_read(struct unlock *u, const struct options *o, const char *path,
			       bool fresh, struct emdb_options *options)
{
	const struct secret_ask ask = { .what = path, .twice = fresh };
	enum secret_result result;
	char why[256];

	no_dumps();
	result = secret_read(&o->secret, &ask, &u->held, why);
	if (result != SECRET_OK) {
		log_error("%s: %s", path, why);
		return result == SECRET_EMPTY ? UNLOCK_EMPTY : UNLOCK_FAILED;
	}
	u->secret = (struct emdb_secret){
		.kind = u->held.raw ? EMDB_SECRET_KEY : EMDB_SECRET_PASSPHRASE,
		.data = u->held.data,
		.len = u->held.len,
	};
	options->secret = &u->secret;
	options->cipher = o->cipher;
	return UNLOCK_OK;
}

void unlock_release(struct unlock *u)
{
	secret_free(&u->held);
}
