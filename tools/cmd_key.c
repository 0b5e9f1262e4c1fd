/* SPDX-License-Identifier: Apache-2.0 */
/* Command key: who can open an encrypted store. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/progress.h"
#include "tools/text.h"
#include "tools/unlock.h"

/* Options. */
enum {
	KEY_NEW_PASSFILE = OPT_LONG_ONLY,
	KEY_NEW_EXTPASS,
	KEY_NEW_PASSFD,
	KEY_NEW_KEYFILE,
	KEY_LABEL,
	KEY_CIPHER,
	KEY_DROP_OTHERS,
};

struct key {
	struct cli *cli;
	const struct cli_args *args;
	const char *path; /* as given */
	char *dir;        /* of the store */
};

static int done(const struct key *k, emdb_err err, const char *detail)
{
	return err ? cli_fail_open(k->cli, k->path, err, detail) : CLI_OK;
}

/* ---- list ---- */

static const char *kind_text(enum emdb_secret_kind kind)
{
	switch (kind) {
	case EMDB_SECRET_PASSPHRASE:
		return "passphrase";
	case EMDB_SECRET_KEY:
		return "key";
	case EMDB_SECRET_RECOVERY:
		return "recovery";
	}
	return "unknown";
}

static void print_slot(const struct cli *cli, uint32_t slot, const struct emdb_key_slot *s)
{
	char when[TEXT_TIME_SIZE];
	bool first = true;

	(void)text_time(s->created_ms, when);
	if (!cli->json) {
		out_printf(cli->out, "%" PRIu32 "  %-10s  %s  ", slot, kind_text(s->kind), when);
		if (s->kind == EMDB_SECRET_PASSPHRASE)
			out_printf(cli->out, "argon2id %" PRIu32 "M t=%" PRIu32 " p=%" PRIu32 "  ",
				   s->kdf_memory_kib / 1024, s->kdf_passes, s->kdf_lanes);
		out_name(cli->out, s->label, strlen(s->label));
		out_str(cli->out, "\n");
		return;
	}
	out_str(cli->out, "{");
	out_json_u64(cli->out, &first, "slot", slot);
	out_json_str(cli->out, &first, "kind", kind_text(s->kind));
	out_json_str(cli->out, &first, "label", s->label);
	out_json_str(cli->out, &first, "created", when);
	out_json_u64(cli->out, &first, "kdf_memory_kib", s->kdf_memory_kib);
	out_json_u64(cli->out, &first, "kdf_passes", s->kdf_passes);
	out_json_u64(cli->out, &first, "kdf_lanes", s->kdf_lanes);
	out_str(cli->out, "}\n");
}

static int key_list(const struct key *k)
{
	struct emdb_encryption e;
	const emdb_err err = emdb_encryption_get(k->dir, &e);

	if (err)
		return done(k, err, "");
	if (e.cipher == EMDB_CIPHER_DEFAULT)
		return cli_fail_err(k->cli, EMDB_ERR_NOT_ENCRYPTED, k->path);
	for (uint32_t i = 0; i < EMDB_KEY_SLOTS; i++)
		if (e.slots[i].kind)
			print_slot(k->cli, i, &e.slots[i]);
	return CLI_OK;
}

/* ---- add, change ---- */

static int new_source(const struct key *k, struct secret_source *ret)
{
	const char *const fd = args_value(k->args, KEY_NEW_PASSFD);

	*ret = (struct secret_source){
		.passfile = args_value(k->args, KEY_NEW_PASSFILE),
		.command = args_value(k->args, KEY_NEW_EXTPASS),
		.keyfile = args_value(k->args, KEY_NEW_KEYFILE),
		.fd = -1,
	};
	if (fd && !unlock_parse_fd(fd, &ret->fd))
		return cli_fail(k->cli, CLI_USAGE, "--new-passfd %s: not a descriptor", fd);
	if (secret_source_ambiguous(ret))
		return cli_fail(k->cli, CLI_USAGE, "give one of the --new- options");
	return CLI_OK;
}

/* The old one first, in every case: it is what is asked for first. */
static int with_new(const struct key *k,
		    emdb_err (*fn)(const char *path, const struct emdb_secret *secret,
				   const struct emdb_secret *new_secret, uint32_t *ret_slot,
				   struct emdb_detail *detail))
{
	const struct emdb_secret *secret;
	struct emdb_detail detail = { .text = "" };
	struct secret_source source;
	struct emdb_secret fresh;
	struct secret hold = { 0 };
	uint32_t slot = 0;
	emdb_err err;
	int code = new_source(k, &source);

	if (!code)
		code = cli_secret(k->cli, k->path, &secret);
	/* A wrong one is told before a new one is thought of. */
	if (!code)
		code = done(k, emdb_key_check(k->dir, secret, NULL), "");
	if (!code)
		code = cli_new_secret(k->cli, k->path, &source, true, &hold, &fresh);
	if (code)
		return code;
	fresh.label = args_value(k->args, KEY_LABEL);
	err = fn(k->dir, secret, &fresh, &slot, &detail);
	secret_free(&hold);
	if (err == EMDB_ERR_EXISTS)
		return cli_fail(k->cli, CLI_FAILED, "%s: it opens the store already", k->path);
	if (err == EMDB_ERR_NO_SPACE && !*detail.text)
		return cli_fail(k->cli, CLI_FAILED,
				"%s: all %u key slots are taken, or the disk is full", k->path,
				EMDB_KEY_SLOTS);
	return done(k, err, detail.text);
}

static int key_add(const struct key *k)
{
	return with_new(k, emdb_key_add);
}

static int key_change(const struct key *k)
{
	return with_new(k, emdb_key_change);
}

/* ---- recovery ---- */

/* It is printed when it is good for something, and never again. */
static int key_recovery(const struct key *k)
{
	const char *const label = args_value(k->args, KEY_LABEL);
	const struct emdb_secret *secret;
	struct emdb_detail detail = { .text = "" };
	char text[EMDB_RECOVERY_TEXT_SIZE];
	struct emdb_secret fresh = { .kind = EMDB_SECRET_RECOVERY,
				     .data = text,
				     .label = label ? label : "recovery" };
	emdb_err err;
	int code = cli_secret(k->cli, k->path, &secret);

	if (code)
		return code;
	err = emdb_recovery_key_new(text);
	fresh.len = strlen(text);
	if (!err)
		err = emdb_key_add(k->dir, secret, &fresh, NULL, &detail);
	if (!err)
		out_printf(k->cli->out, "%s\n", text);
	explicit_bzero(text, sizeof(text));
	return done(k, err, detail.text);
}

/* ---- remove ---- */

static int key_remove(const struct key *k)
{
	const struct emdb_secret *secret;
	struct emdb_detail detail = { .text = "" };
	emdb_err err;
	int slot = 0, code;

	if (!unlock_parse_fd(k->args->argv[2], &slot) || slot >= (int)EMDB_KEY_SLOTS)
		return cli_fail(k->cli, CLI_USAGE, "%s: not a slot (see: emdb key list)",
				k->args->argv[2]);
	code = cli_secret(k->cli, k->path, &secret);
	if (code)
		return code;
	err = emdb_key_remove(k->dir, secret, (uint32_t)slot, &detail);
	if (err == EMDB_ERR_NOT_FOUND)
		return cli_fail(k->cli, CLI_FAILED, "%s: slot %d is free", k->path, slot);
	if (err == EMDB_ERR_BUSY)
		return cli_fail(k->cli, CLI_FAILED, "%s: slot %d is the last one", k->path, slot);
	return done(k, err, detail.text);
}

/* ---- rotate ---- */

static int key_rotate(const struct key *k)
{
	const char *const cipher = args_value(k->args, KEY_CIPHER);
	struct emdb_detail detail = { .text = "" };
	struct emdb_convert_options o = { .size = sizeof(o),
					  .progress = progress_step,
					  .detail = &detail };
	const struct emdb_secret *secret;
	struct emdb_encryption e;
	struct progress p;
	emdb_err err;
	int code;

	if (cipher && emdb_cipher_parse(cipher, &o.cipher))
		return cli_fail(k->cli, CLI_USAGE, "%s: not a cipher", cipher);
	err = emdb_encryption_get(k->dir, &e);
	if (err)
		return done(k, err, "");
	if (e.used > 1 && !args_has(k->args, KEY_DROP_OTHERS))
		return cli_fail(k->cli, CLI_FAILED,
				"%s: the other key slots would be gone (--drop-others; add them "
				"again afterwards)",
				k->path);
	code = cli_secret(k->cli, k->path, &secret);
	if (code)
		return code;
	progress_begin(&p, k->cli, false);
	o.progress_ctx = &p;
	err = emdb_rotate(k->dir, secret, 1, &o);
	progress_end(&p);
	return done(k, err, detail.text);
}

/* ---- The actions ---- */

static const struct action {
	const char *name, *synopsis;
	int args; /* with action and store */
	int (*run)(const struct key *k);
} actions[] = {
	{ "list", "[-j] STORE", 2, key_list },
	{ "add", "[--new-...] [--label TEXT] STORE", 2, key_add },
	{ "change", "[--new-...] [--label TEXT] STORE", 2, key_change },
	{ "remove", "STORE SLOT", 3, key_remove },
	{ "recovery", "[--label TEXT] STORE", 2, key_recovery },
	{ "rotate", "[--drop-others] [--cipher NAME] STORE", 2, key_rotate },
};

static int run_key(struct cli *cli, const struct cli_args *args)
{
	struct key k = { .cli = cli, .args = args, .path = args->argv[1] };
	int code;

	cli->json = args_has(args, 'j');
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		const struct action *const a = &actions[i];

		if (strcmp(args->argv[0], a->name) != 0)
			continue;
		if (args->argc != a->args)
			return cli_fail(cli, CLI_USAGE, "%s arguments; usage: emdb key %s %s",
					args->argc < a->args ? "missing" : "too many", a->name,
					a->synopsis);
		k.dir = store_at_rest(k.path);
		code = k.dir ? a->run(&k) : cli_fail_err(cli, EMDB_ERR_NOMEM, k.path);
		free(k.dir);
		return code;
	}
	return cli_fail(cli, CLI_USAGE, "unknown action %s (see: emdb key --help)", args->argv[0]);
}

static const struct cli_opt key_opts[] = {
	{ 'j', "json", NULL, "list: JSON lines; rotate: progress as JSON lines" },
	{ KEY_NEW_PASSFILE, "new-passfile", "FILE", "add, change: the new secret, as the options" },
	{ KEY_NEW_EXTPASS, "new-extpass", "CMD", "below say it of the one that opens the store;" },
	{ KEY_NEW_PASSFD, "new-passfd", "N", "without one it is asked for, twice, on the" },
	{ KEY_NEW_KEYFILE, "new-keyfile", "FILE", "terminal" },
	{ KEY_LABEL, "label", "TEXT", "add, change, recovery: a name for people, not secret" },
	{ KEY_CIPHER, "cipher", "NAME", "rotate: aes-256-gcm or chacha20-poly1305" },
	{ KEY_DROP_OTHERS, "drop-others", NULL, "rotate: give up all slots but the one used" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_key = {
	.name = "key",
	.synopsis = "ACTION [OPTIONS] STORE [ARGUMENTS]",
	.summary = "say who can open an encrypted store",
	.details =
		"  list STORE             the key slots\n"
		"  add STORE              lets one more passphrase or key open the store\n"
		"  change STORE           puts a new one in the place of the one that is given\n"
		"  remove STORE SLOT      not the last one\n"
		"  recovery STORE         makes a recovery key for paper and prints it, once\n"
		"  rotate STORE           writes the store again under a new data key; goes on\n"
		"                         where it stopped when it is interrupted\n"
		"\n"
		"All but list want a store that is not in use.  Who had a secret that was removed, and\n"
		"a copy of the store from before, can read what was written until rotate.\n",
	.opts = key_opts,
	.args_min = 2,
	.args_max = 3,
	.run = run_key,
};
