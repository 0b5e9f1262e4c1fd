/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The secret of an encrypted store, for commands: from the options that every command has, or
 * from where tools/secret.h says.  It is read once a run, and only when a store needs it.
 */
#ifndef TOOLS_UNLOCK_H
#define TOOLS_UNLOCK_H

#include "tools/cli.h"
#include "tools/secret.h"

struct unlock {
	struct secret_source source; /* what the command line names */
	bool recovery;               /* it is a recovery key */
	bool have;
	struct secret held; /* what secret points into */
	struct emdb_secret secret;
};
#define UNLOCK_INIT                   \
	{                             \
		.source = {.fd = -1 } \
	}

/* The options of every command; the last one has key 0. */
extern const struct cli_opt unlock_opts[];
#define UNLOCK_OPTS 5
/* Takes one of them; CLI_OK, or a failure, told. */
int unlock_option(const struct cli *cli, int key, const char *value);
void unlock_release(struct unlock *u);

/* Does the command line name a secret?  Then a store that has none is refused. */
bool cli_secret_given(const struct cli *cli);
/* The secret for the store at path; the caller does not free it.  CLI_OK, or a failure, told. */
int cli_secret(const struct cli *cli, const char *path, const struct emdb_secret **ret);
/*
 * A new one, asked for twice on a terminal; source may name nothing.  The secret points into hold, which
 * the caller gives to secret_free().  CLI_OK, or a failure, told.
 */
int cli_new_secret(const struct cli *cli, const char *path, const struct secret_source *source,
		   bool no_env, struct secret *hold, struct emdb_secret *ret);
/* text as a descriptor's number. */
bool unlock_parse_fd(const char *text, int *ret);

#endif
