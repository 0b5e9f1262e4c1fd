/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/unlock.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Above the keys of any command's own. */
enum {
	UNLOCK_PASSFILE = OPT_LONG_ONLY + 200,
	UNLOCK_EXTPASS,
	UNLOCK_PASSFD,
	UNLOCK_KEYFILE,
	UNLOCK_RECOVERY,
};

const struct cli_opt unlock_opts[UNLOCK_OPTS + 1] = {
	{ UNLOCK_PASSFILE, "passfile", "FILE", "its first line is the passphrase" },
	{ UNLOCK_EXTPASS, "extpass", "CMD", "the first line that this command prints is" },
	{ UNLOCK_PASSFD, "passfd", "N", "read it from descriptor N" },
	{ UNLOCK_KEYFILE, "keyfile", "FILE", "a raw key: 32 bytes or 64 hexadecimal digits" },
	{ UNLOCK_RECOVERY, "recovery", NULL, "what is given or typed is a recovery key" },
	{ 0, NULL, NULL, NULL },
};

bool unlock_parse_fd(const char *text, int *ret)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n > INT_MAX)
		return false;
	*ret = (int)n;
	return true;
}

int unlock_option(const struct cli *cli, int key, const char *value)
{
	struct unlock *const u = cli->unlock;

	switch (key) {
	case UNLOCK_PASSFILE:
		u->source.passfile = value;
		break;
	case UNLOCK_EXTPASS:
		u->source.command = value;
		break;
	case UNLOCK_KEYFILE:
		u->source.keyfile = value;
		break;
	case UNLOCK_PASSFD:
		if (!unlock_parse_fd(value, &u->source.fd))
			return cli_fail(cli, CLI_USAGE, "--passfd %s: not a descriptor", value);
		break;
	default:
		u->recovery = true;
		break;
	}
	if (secret_source_ambiguous(&u->source))
		return cli_fail(cli, CLI_USAGE,
				"give one of --passfile, --extpass, --passfd and --keyfile");
	return CLI_OK;
}

void unlock_release(struct unlock *u)
{
	if (u->have)
		secret_free(&u->held);
	u->have = false;
}

/* ---- Reading ---- */

static int fail_secret(const struct cli *cli, enum secret_result result, const char *why)
{
	if (result == SECRET_EMPTY)
		return cli_fail(cli, CLI_EMPTY_SECRET, "%s", why);
	if (result == SECRET_CANCELLED)
		return cli_fail(cli, CLI_CANCELLED, "%s", why);
	return cli_fail(cli, CLI_FAILED, "%s", why);
}

static struct emdb_secret secret_of(const struct secret *s, bool recovery)
{
	return (struct emdb_secret){
		.kind = s->raw     ? EMDB_SECRET_KEY
			: recovery ? EMDB_SECRET_RECOVERY
				   : EMDB_SECRET_PASSPHRASE,
		.data = s->data,
		.len = s->len,
	};
}

bool cli_secret_given(const struct cli *cli)
{
	const struct secret_source *const s = &cli->unlock->source;

	return s->keyfile || s->passfile || s->command || s->fd != -1 || cli->unlock->recovery;
}

int cli_secret(const struct cli *cli, const char *path, const struct emdb_secret **ret)
{
	struct unlock *const u = cli->unlock;
	const struct secret_ask ask = { .what = path, .recovery = u->recovery };
	enum secret_result result;
	char why[256];

	if (!u->have) {
		result = secret_read(&u->source, &ask, &u->held, why);
		if (result != SECRET_OK)
			return fail_secret(cli, result, why);
		u->secret = secret_of(&u->held, u->recovery);
		u->have = true;
	}
	*ret = &u->secret;
	return CLI_OK;
}

int cli_new_secret(const struct cli *cli, const char *path, const struct secret_source *source,
		   bool no_env, struct secret *hold, struct emdb_secret *ret)
{
	const struct secret_ask ask = { .what = path, .twice = true, .no_env = no_env };
	enum secret_result result;
	char why[256];

	result = secret_read(source, &ask, hold, why);
	if (result != SECRET_OK)
		return fail_secret(cli, result, why);
	*ret = secret_of(hold, false);
	return CLI_OK;
}
