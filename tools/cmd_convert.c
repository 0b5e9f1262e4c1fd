/* SPDX-License-Identifier: Apache-2.0 */
/* Commands encrypt and decrypt: a store is written again, the other way. */
#include <stdlib.h>

#include "tools/progress.h"
#include "tools/unlock.h"

#define OPT_CIPHER OPT_LONG_ONLY

struct convert {
	struct emdb_detail detail;
	struct emdb_convert_options options;
	struct progress progress;
	char *dir;
};

static int convert_begin(struct cli *cli, const struct cli_args *args, struct convert *c)
{
	*c = (struct convert){ .detail = { .text = "" } };
	cli->json = args_has(args, 'j');
	c->options.size = sizeof(c->options);
	c->options.progress = progress_step;
	c->options.progress_ctx = &c->progress;
	c->options.detail = &c->detail;
	c->dir = store_at_rest(args->argv[0]);
	if (!c->dir)
		return cli_fail_err(cli, EMDB_ERR_NOMEM, args->argv[0]);
	return CLI_OK;
}

static int convert_end(const struct cli *cli, const char *path, struct convert *c, emdb_err err)
{
	progress_end(&c->progress);
	free(c->dir);
	if (err == EMDB_ERR_EXISTS)
		return cli_fail(cli, CLI_FAILED, "%s: the store is encrypted already", path);
	return err ? cli_fail_open(cli, path, err, c->detail.text) : CLI_OK;
}

static int run_encrypt(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0], *const cipher = args_value(args, OPT_CIPHER);
	struct secret hold = { 0 };
	struct emdb_encryption now;
	struct emdb_secret secret;
	struct convert c;
	emdb_err err;
	int code = convert_begin(cli, args, &c);

	if (code)
		return code;
	if (cipher && emdb_cipher_parse(cipher, &c.options.cipher)) {
		free(c.dir);
		return cli_fail(cli, CLI_USAGE, "%s: not a cipher", cipher);
	}
	/* Before anybody thinks of a passphrase. */
	err = emdb_encryption_get(c.dir, &now);
	if (!err && now.cipher != EMDB_CIPHER_DEFAULT)
		err = EMDB_ERR_EXISTS;
	if (err)
		return convert_end(cli, path, &c, err);
	code = cli_new_secret(cli, path, &cli->unlock->source, false, &hold, &secret);
	if (code) {
		free(c.dir);
		return code;
	}
	progress_begin(&c.progress, cli, args_has(args, 'q'));
	err = emdb_encrypt(c.dir, &secret, &c.options);
	secret_free(&hold);
	return convert_end(cli, path, &c, err);
}

static int run_decrypt(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0];
	const struct emdb_secret *secret;
	struct convert c;
	int code = convert_begin(cli, args, &c);

	if (code)
		return code;
	code = cli_secret(cli, path, &secret);
	if (code) {
		free(c.dir);
		return code;
	}
	progress_begin(&c.progress, cli, args_has(args, 'q'));
	return convert_end(cli, path, &c, emdb_decrypt(c.dir, secret, &c.options));
}

static const struct cli_opt encrypt_opts[] = {
	{ OPT_CIPHER, "cipher", "NAME", "aes-256-gcm or chacha20-poly1305" },
	{ 'j', "json", NULL, "progress as JSON lines" },
	{ 'q', "quiet", NULL, "no progress" },
	{ 0, NULL, NULL, NULL },
};

static const struct cli_opt decrypt_opts[] = {
	{ 'j', "json", NULL, "progress as JSON lines" },
	{ 'q', "quiet", NULL, "no progress" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_encrypt = {
	.name = "encrypt",
	.synopsis = "[OPTIONS] STORE",
	.summary = "encrypt a store that is not",
	.details =
		"The store, not in use, is written again, its snapshots too, which takes room for a second\n"
		"copy.  Whatever happens it is the old one or the new one; when interrupted, the same\n"
		"command goes on.  Backups elsewhere stay as they are.  The new passphrase is asked for\n"
		"twice, or comes from where the options below say.\n",
	.opts = encrypt_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_encrypt,
};

const struct cli_command cmd_decrypt = {
	.name = "decrypt",
	.synopsis = "[OPTIONS] STORE",
	.summary = "undo the encryption of a store",
	.details = "As encrypt, the other way round.\n",
	.opts = decrypt_opts,
	.args_min = 1,
	.args_max = 1,
	.run = run_decrypt,
};
