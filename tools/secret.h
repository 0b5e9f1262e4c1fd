/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secret: where a passphrase or key comes from.  Shared by `emdb` and the daemon; prints
 * nothing but the prompt, which goes to the terminal itself.
 *
 * The first of these that is there decides, and none is tried after it:
 *
 *	what the command line names: a raw key file, a passfile, a command, a descriptor
 *	EMDBFS_PASSWORD_FILE, EMDBFS_PASSWORD_COMMAND
 *	the credential emdbfs.passphrase of systemd, in $CREDENTIALS_DIRECTORY
 *	the terminal of the process (asked twice for a new one), or standard input when it has none
 *
 * A passphrase is one line; what follows the first newline is not read as part of it.  A
 * raw key is a file of exactly 32 bytes, or of 64 hexadecimal digits and perhaps a newline.
 *
 * Secrets lie in locked memory that is not dumped (sodium_malloc) and are wiped when freed.  From
 * the first one on the process leaves no core dump at all and only root can look into it; programs that
 * it runs can again.
 */
#ifndef TOOLS_SECRET_H
#define TOOLS_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest passphrase, bytes. */
#define SECRET_MAX     1024u
#define SECRET_RAW_LEN 32u

/* What a command line says; nothing is {0} but for fd, which is then -1. */
struct secret_source {
	const char *keyfile; /* NULL: not given; the same below */
	const char *passfile;
	const char *command; /* for sh -c; its first line of output */
	int fd;
};
#define SECRET_SOURCE_NONE \
	{                  \
		.fd = -1   \
	}

struct secret {
	uint8_t *data; /* sodium_malloc'd; a NUL follows a passphrase */
	size_t len;
	bool raw;
};

enum secret_result {
	SECRET_OK,        /* with all others *error says why */
	SECRET_EMPTY,     /* an empty passphrase */
	SECRET_CANCELLED, /* the interrupt key, at the prompt */
	SECRET_FAILED,
};

struct secret_ask {
	const char *what; /* behind "Passphrase for " */
	bool twice;       /* a new one */
	bool recovery;    /* the prompt asks for a recovery key */
	bool no_env;      /* a second secret: only what source names, or the terminal */
};

/*
 * Reads it.  On SECRET_OK *ret is to be given to secret_free(); otherwise error holds a
 * sentence.  Blocks for as long as the person or program takes.
 */
enum secret_result secret_read(const struct secret_source *source, const struct secret_ask *ask,
			       struct secret *ret, char error[static 256]);
/* Wipes and frees. */
void secret_free(struct secret *s);
/* True when source names more than one place. */
bool secret_source_ambiguous(const struct secret_source *source);

#endif
