/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/names.h"

/* Longest "name=value" in -o. */
#define OPTION_MAX 4096

const char options_usage[] =
	"usage: emdbfs STORE MOUNTPOINT [-f] [-d] [-o opt,...]\n"
	"\n"
	"Shows the store in directory STORE, created when absent, at MOUNTPOINT.\n"
	"\n"
	"  -f                     stay in the foreground, log to stderr\n"
	"  -d                     the same, and print every request\n"
	"  -r, -w                 the same as -o ro, -o rw\n"
	"  -s                     ignore unknown options\n"
	"  -h, -V                 print this, print the version\n"
	"\n"
	"options (-o):\n"
	"  ro                     change nothing\n"
	"  allow_other            let all users in; implies default_permissions\n"
	"  allow_root             let root in\n"
	"  default_permissions    let the kernel check permission bits (always, unless root\n"
	"                         mounts for itself alone)\n"
	"  nonempty               mount over a directory that has entries\n"
	"  suid, dev, noexec      as in mount(8); nosuid and nodev are the default\n"
	"  commit=SECS            sync in the background that often (5; 0: never)\n"
	"  sync                   every operation is durable before it returns\n"
	"  ttl=DURATION           new files expire after that (90s, 1h30m, 7d)\n"
	"  ttl_on_replace=WHICH   deadline after a rename over a file: auto, keep, source\n"
	"  atime, relatime        reading sets the access time (noatime)\n"
	"  noxattr                no extended attributes at all: faster\n"
	"  noacl                  no POSIX access control lists\n"
	"  writeback              the kernel writes back later: faster, weaker after a crash\n"
	"  max_threads=N          request threads (2)\n"
	"  io_uring, no_io_uring  requests through io_uring, or never (where it can be used)\n"
	"  io_uring_q_depth=N     requests in each CPU's ring (8)\n"
	"  snapdir=WHICH          the directory of snapshots: hidden, visible (listed), disabled\n"
	"  snapdirname=NAME       what it is called (.snap)\n"
	"  snapshot=NAME          show this snapshot alone, or the latest; implies ro\n"
	"  segment_size=SIZE      of a new store's journal files (64M)\n"
	"  verify=WHEN            check what is read: first, always, never\n"
	"  encrypt                create the store encrypted; refuse one that is not\n"
	"  cipher=NAME            of a new store: aes-256-gcm, chacha20-poly1305\n"
	"  passfile=FILE          its first line is the passphrase of an encrypted store\n"
	"  extpass=CMD            the first line that this command prints is\n"
	"  passfd=N               read it from descriptor N\n"
	"  keyfile=FILE           a raw key: 32 bytes or 64 hexadecimal digits\n"
	"                         (none of these: EMDBFS_PASSWORD_FILE, EMDBFS_PASSWORD_COMMAND, the\n"
	"                         credential emdbfs.passphrase of systemd, else the terminal)\n"
	"\n"
	"exit status: 0 mounted, 1 failed, 2 usage, 10 no such store, 11 store in use,\n"
	"12 wrong passphrase or key, 22 empty passphrase;\n"
	"as mount.emdbfs: 1 usage, 2 system, 32 mount failed\n";

/* ---- Values ---- */

__attribute__((format(printf, 2, 3))) static bool fail(struct options *o, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(o->error, sizeof(o->error), format, ap);
	va_end(ap);
	return false;
}

static bool bad_value(struct options *o, const char *name, const char *value)
{
	return fail(o, "option '%s': bad value '%s'", name, value);
}

static bool parse_number(const char *s, uint64_t max, uint64_t *ret)
{
	char *end;
	unsigned long long n;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno != 0 || *end != '\0' || n > max)
		return false;
	*ret = n;
	return true;
}

static bool parse_size(const char *s, uint64_t *ret)
{
	static const char units[] = "KMG";
	const size_t digits = strspn(s, "0123456789");
	char number[24];
	const char *unit;
	unsigned int shift = 0;
	uint64_t n;

	if (digits == 0 || digits >= sizeof(number))
		return false;
	memcpy(number, s, digits);
	number[digits] = '\0';
	s += digits;
	if (*s != '\0') {
		unit = strchr(units, *s & ~0x20);
		if (unit == NULL || (s[1] != '\0' && strcmp(s + 1, "iB") != 0))
			return false;
		shift = 10 * (unsigned int)(unit - units + 1);
	}
	if (!parse_number(number, UINT64_MAX >> shift, &n))
		return false;
	*ret = n << shift;
	return true;
}

static bool set_commit(struct options *o, const char *name, const char *value)
{
	uint64_t n;

	if (!parse_number(value, INT32_MAX, &n))
		return bad_value(o, name, value);
	o->commit_s = n == 0 ? -1 : (int32_t)n;
	return true;
}

static bool set_threads(struct options *o, const char *name, const char *value)
{
	uint64_t n;

	if (!parse_number(value, OPTIONS_THREADS_MAX, &n) || n == 0)
		return bad_value(o, name, value);
	o->max_threads = (unsigned int)n;
	return true;
}

static bool set_depth(struct options *o, const char *name, const char *value)
{
	uint64_t n;

	if (!parse_number(value, OPTIONS_URING_DEPTH_MAX, &n) || n == 0)
		return bad_value(o, name, value);
	o->uring_depth = (unsigned int)n;
	return true;
}

static bool set_transport(struct options *o, const char *name, const char *value)
{
	(void)value;
	o->transport = strcmp(name, "io_uring") == 0 ? TRANSPORT_URING : TRANSPORT_DEVICE;
	return true;
}

static bool set_segment(struct options *o, const char *name, const char *value)
{
	uint64_t n;

	if (!parse_size(value, &n) || n < EMDB_SEGMENT_MIN || n > EMDB_SEGMENT_MAX ||
	    (n & (n - 1)) != 0)
		return fail(o, "option '%s': '%s' is not a power of two from 1M to 1G", name,
			    value);
	o->segment_bytes = n;
	return true;
}

static bool set_ttl(struct options *o, const char *name, const char *value)
{
	int64_t ms;

	if (emdb_duration_parse(value, strlen(value), &ms) != EMDB_OK || ms <= 0)
		return bad_value(o, name, value);
	o->ttl_ms = ms;
	return true;
}

static bool set_ttl_on_replace(struct options *o, const char *name, const char *value)
{
	if (strcmp(value, "auto") == 0)
		o->ttl_on_replace = 0;
	else if (strcmp(value, "keep") == 0)
		o->ttl_on_replace = EMDB_RENAME_TTL_KEEP;
	else if (strcmp(value, "source") == 0)
		o->ttl_on_replace = EMDB_RENAME_TTL_SOURCE;
	else
		return bad_value(o, name, value);
	return true;
}

static bool set_verify(struct options *o, const char *name, const char *value)
{
	if (strcmp(value, "first") == 0)
		o->verify = EMDB_VERIFY_FIRST;
	else if (strcmp(value, "always") == 0)
		o->verify = EMDB_VERIFY_ALWAYS;
	else if (strcmp(value, "never") == 0)
		o->verify = EMDB_VERIFY_NEVER;
	else
		return bad_value(o, name, value);
	return true;
}

/* A copy: an option list is read from a buffer.  Given twice, the last one counts. */
static bool set_text(struct options *o, const char *name, const char *value, const char **ret)
{
	if (*value == '\0')
		return bad_value(o, name, value);
	free((char *)(uintptr_t)*ret);
	*ret = strdup(value);
	return *ret != NULL || fail(o, "out of memory");
}

static bool set_passfile(struct options *o, const char *name, const char *value)
{
	return set_text(o, name, value, &o->secret.passfile);
}

static bool set_extpass(struct options *o, const char *name, const char *value)
{
	return set_text(o, name, value, &o->secret.command);
}

static bool set_keyfile(struct options *o, const char *name, const char *value)
{
	return set_text(o, name, value, &o->secret.keyfile);
}

static bool set_passfd(struct options *o, const char *name, const char *value)
{
	uint64_t n;

	if (!parse_number(value, INT32_MAX, &n))
		return bad_value(o, name, value);
	o->secret.fd = (int)n;
	return true;
}

static bool set_cipher(struct options *o, const char *name, const char *value)
{
	return emdb_cipher_parse(value, &o->cipher) == EMDB_OK || bad_value(o, name, value);
}

/* Secrets are seen by everybody in the list of processes. */
static bool refuse_secret(struct options *o, const char *name, const char *value)
{
	(void)value;
	return fail(o, "option '%s': no secrets on a command line (see passfile, extpass, passfd)",
		    name);
}

static bool set_snapdir(struct options *o, const char *name, const char *value)
{
	if (strcmp(value, "hidden") == 0)
		o->snapdir = SNAPDIR_HIDDEN;
	else if (strcmp(value, "visible") == 0)
		o->snapdir = SNAPDIR_VISIBLE;
	else if (strcmp(value, "disabled") == 0)
		o->snapdir = SNAPDIR_DISABLED;
	else
		return bad_value(o, name, value);
	o->snapdir_given = true;
	return true;
}

static bool set_snapdirname(struct options *o, const char *name, const char *value)
{
	if (!names_reservable(value))
		return bad_value(o, name, value);
	(void)snprintf(o->snapdirname, sizeof(o->snapdirname), "%s", value);
	return true;
}

static bool set_snapshot(struct options *o, const char *name, const char *value)
{
	if (value[0] == '\0' || strlen(value) > EMDB_SNAPSHOT_NAME_MAX)
		return bad_value(o, name, value);
	(void)snprintf(o->snapshot, sizeof(o->snapshot), "%s", value);
	return true;
}

/* Not offered (yet), but known by name: a better answer than "unknown". */
static bool refuse(struct options *o, const char *name, const char *value)
{
	(void)value;
	return fail(o, "option '%s' is not supported by this version", name);
}

static bool set_atime(struct options *o, const char *name, const char *value)
{
	(void)value;
	if (strcmp(name, "noatime") == 0)
		o->atime = ATIME_OFF;
	else if (strcmp(name, "relatime") == 0)
		o->atime = ATIME_RELATIVE;
	else
		o->atime = ATIME_STRICT;
	return true;
}

/* ---- The table ---- */

enum option_kind {
	SWALLOW, /* for mount(8), systemd or fstab: nothing to do */
	SET,     /* *flag = true */
	CLEAR,   /* *flag = false */
	WORD,    /* apply(), no value */
	VALUE,   /* apply(), with a value */
};

struct option_entry {
	const char *name; /* with '_' */
	enum option_kind kind;
	size_t flag; /* offset of a bool in struct options */
	bool (*apply)(struct options *o, const char *name, const char *value);
};

#define FLAG(field) offsetof(struct options, field), NULL

static const struct option_entry table[] = {
	{ "defaults", SWALLOW, 0, NULL },
	{ "user", SWALLOW, 0, NULL },
	{ "nouser", SWALLOW, 0, NULL },
	{ "users", SWALLOW, 0, NULL },
	{ "nousers", SWALLOW, 0, NULL },
	{ "group", SWALLOW, 0, NULL },
	{ "owner", SWALLOW, 0, NULL },
	{ "auto", SWALLOW, 0, NULL },
	{ "noauto", SWALLOW, 0, NULL },
	{ "nofail", SWALLOW, 0, NULL },
	{ "_netdev", SWALLOW, 0, NULL },
	{ "comment", SWALLOW, 0, NULL },
	{ "nodiratime", SWALLOW, 0, NULL },
	{ "ro", SET, FLAG(read_only) },
	{ "rw", CLEAR, FLAG(read_only) },
	{ "allow_other", SET, FLAG(allow_other) },
	{ "allow_root", SET, FLAG(allow_root) },
	{ "default_permissions", SET, FLAG(default_permissions) },
	{ "nonempty", SET, FLAG(nonempty) },
	{ "suid", SET, FLAG(suid) },
	{ "nosuid", CLEAR, FLAG(suid) },
	{ "dev", SET, FLAG(dev) },
	{ "nodev", CLEAR, FLAG(dev) },
	{ "noexec", SET, FLAG(noexec) },
	{ "exec", CLEAR, FLAG(noexec) },
	{ "noxattr", SET, FLAG(noxattr) },
	{ "xattr", CLEAR, FLAG(noxattr) },
	{ "noacl", SET, FLAG(noacl) },
	{ "acl", CLEAR, FLAG(noacl) },
	{ "writeback", SET, FLAG(writeback) },
	{ "sync", SET, FLAG(write_through) },
	{ "dirsync", SET, FLAG(write_through) },
	{ "async", CLEAR, FLAG(write_through) },
	{ "debug", SET, FLAG(debug) },
	{ "atime", WORD, 0, set_atime },
	{ "strictatime", WORD, 0, set_atime },
	{ "noatime", WORD, 0, set_atime },
	{ "relatime", WORD, 0, set_atime },
	{ "commit", VALUE, 0, set_commit },
	{ "max_threads", VALUE, 0, set_threads },
	{ "io_uring", WORD, 0, set_transport },
	{ "no_io_uring", WORD, 0, set_transport },
	{ "io_uring_q_depth", VALUE, 0, set_depth },
	{ "segment_size", VALUE, 0, set_segment },
	{ "ttl", VALUE, 0, set_ttl },
	{ "ttl_on_replace", VALUE, 0, set_ttl_on_replace },
	{ "verify", VALUE, 0, set_verify },
	{ "snapdir", VALUE, 0, set_snapdir },
	{ "snapdirname", VALUE, 0, set_snapdirname },
	{ "snapshot", VALUE, 0, set_snapshot },
	{ "encrypt", SET, FLAG(encrypt) },
	{ "cipher", VALUE, 0, set_cipher },
	{ "passfile", VALUE, 0, set_passfile },
	{ "extpass", VALUE, 0, set_extpass },
	{ "passfd", VALUE, 0, set_passfd },
	{ "keyfile", VALUE, 0, set_keyfile },
	{ "password", VALUE, 0, refuse_secret },
	{ "passphrase", VALUE, 0, refuse_secret },
	{ "auto_unmount", WORD, 0, refuse },
};

static const struct option_entry *find(const char *name)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	return NULL;
}

static bool apply(struct options *o, const struct option_entry *e, const char *value)
{
	bool *flag = (bool *)(void *)((char *)o + e->flag);

	if (e->kind == VALUE && value == NULL)
		return fail(o, "option '%s' needs a value", e->name);
	if ((e->kind == SET || e->kind == CLEAR || e->kind == WORD) && value != NULL)
		return fail(o, "option '%s' takes no value", e->name);
	switch (e->kind) {
	case SWALLOW:
		break;
	case SET:
		*flag = true;
		break;
	case CLEAR:
		*flag = false;
		break;
	case WORD:
	case VALUE:
		return e->apply(o, e->name, value);
	}
	return true;
}

/* One "name" or "name=value"; the text may be changed. */
static bool option(struct options *o, char *text)
{
	const bool private = text[0] != '\0' && strchr("xX", text[0]) != NULL && text[1] == '-';
	const struct option_entry *e;
	char *value = strchr(text, '=');

	if (text[0] == '\0' || private)
		return true;
	if (value != NULL)
		*value++ = '\0';
	for (char *p = text; *p != '\0'; p++)
		if (*p == '-')
			*p = '_';
	e = find(text);
	if (e == NULL)
		return o->sloppy || fail(o, "unknown option '%s'", text);
	return apply(o, e, value);
}

/* The whole argument of one -o. */
static bool option_list(struct options *o, const char *list)
{
	char text[OPTION_MAX];
	size_t n = 0;

	for (const char *p = list;; p++) {
		if (*p == ',' || *p == '\0') {
			text[n] = '\0';
			if (!option(o, text))
				return false;
			n = 0;
			if (*p == '\0')
				return true;
			continue;
		}
		if (*p == '\\' && p[1] != '\0')
			p++;
		if (n == sizeof(text) - 1)
			return fail(o, "option '%.32s...' is too long", text);
		text[n++] = *p;
	}
}

/* ---- The command line ---- */

static bool is_helper(const char *program)
{
	const char *base = strrchr(program, '/');

	return strncmp(base != NULL ? base + 1 : program, "mount.", 6) == 0;
}

static bool flag(struct options *o, int c, const char *word)
{
	switch (c) {
	case 'f':
		o->foreground = true;
		return true;
	case 'd':
		o->debug = true;
		return true;
	case 'r':
		o->read_only = true;
		return true;
	case 'w':
		o->read_only = false;
		return true;
	case 's':
		o->sloppy = true;
		return true;
	case 'h':
		o->help = true;
		return true;
	case 'V':
		o->version = true;
		return true;
	case 'n': /* no mtab is written anyway */
	case 'v':
	case 't':
		return true;
	case ':':
		return fail(o, "'%s' needs an argument", word);
	default:
		return fail(o, "unknown argument '%s'", word);
	}
}

static bool check_together(struct options *o)
{
	if (o->store == NULL || o->mountpoint == NULL)
		return fail(o, "a STORE and a MOUNTPOINT are needed");
	if (o->store[0] == '\0' || o->mountpoint[0] == '\0')
		return fail(o, "an empty path");
	if (o->allow_other && o->allow_root)
		return fail(o, "options 'allow_other' and 'allow_root' exclude each other");
	if (secret_source_ambiguous(&o->secret))
		return fail(o, "give one of 'passfile', 'extpass', 'passfd' and 'keyfile'");
	/* The kernel would keep in its cache what somebody wrote to a file of a snapshot. */
	if (o->writeback && o->snapdir_given && o->snapdir != SNAPDIR_DISABLED)
		return fail(o, "option 'writeback' goes with 'snapdir=disabled' only");
	if (o->writeback)
		o->snapdir = SNAPDIR_DISABLED;
	if (o->snapshot[0] != '\0')
		o->read_only = true;
	if (o->debug)
		o->foreground = true;
	if (o->max_threads == 0)
		o->max_threads = OPTIONS_THREADS;
	if (o->uring_depth == 0)
		o->uring_depth = OPTIONS_URING_DEPTH;
	/* Cached names and modes let others pass where the daemon is not asked. */
	if (o->allow_other || o->allow_root)
		o->default_permissions = true;
	return true;
}

static bool positional(struct options *o, const char *word)
{
	if (o->store == NULL)
		o->store = word;
	else if (o->mountpoint == NULL)
		o->mountpoint = word;
	else
		return fail(o, "unexpected argument '%s'", word);
	return true;
}

bool options_parse(int argc, char **argv, struct options *ret)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "foreground", no_argument, NULL, 'f' },
		{ NULL, 0, NULL, 0 },
	};
	/* -o is read last, so that -s counts wherever it stands. */
	int c;

	*ret = (struct options){ .secret = { .fd = -1 }, .snapdirname = OPTIONS_SNAPDIR };
	ret->helper = argc > 0 && is_helper(argv[0]);
	opterr = 0;
	for (int pass = 0; pass < 2; pass++) {
		optind = 0;
		while ((c = getopt_long(argc, argv, ":fdrwsnvhVt:o:", longs, NULL)) != -1) {
			if (c == 'o' ? pass == 1 && !option_list(ret, optarg)
				     : !flag(ret, c, argv[optind - 1]))
				return false;
		}
		if (ret->help || ret->version)
			return true;
	}
	for (int i = optind; i < argc; i++)
		if (!positional(ret, argv[i]))
			return false;
	return check_together(ret);
}

void options_release(struct options *o)
{
	free((char *)(uintptr_t)o->secret.passfile);
	free((char *)(uintptr_t)o->secret.command);
	free((char *)(uintptr_t)o->secret.keyfile);
	o->secret = (struct secret_source)SECRET_SOURCE_NONE;
}
