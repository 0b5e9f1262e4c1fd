/* SPDX-License-Identifier: Apache-2.0 */
/* Commands export and import. */
#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/progress.h"
#include "tools/snapshot.h"
#include "tools/tar.h"

#define OPT_TAR      (OPT_LONG_ONLY + 0)
#define OPT_SNAPSHOT (OPT_LONG_ONLY + 1)
#define OPT_OUTPUT   (OPT_LONG_ONLY + 2)
#define OPT_INPUT    (OPT_LONG_ONLY + 3)
#define BLOCK        (256u * 1024u)
#define LAST_BLOCK   10240u

struct teller {
	const struct cli *cli;
	struct progress progress;
};

static void tell(void *ctx, const struct tar_report *r, const char *path, const char *what)
{
	struct teller *const t = ctx;

	if (what) {
		progress_clear(&t->progress);
		cli_warn(t->cli, "%s: %s", path, what);
	}
	(void)progress_step(&t->progress, r->bytes, 0);
}

/* True if the format was named; there is one. */
static bool has_format(const struct cli *cli, const struct cli_args *args)
{
	if (args_has(args, OPT_TAR))
		return true;
	(void)cli_fail(cli, CLI_USAGE, "say --tar: the only format so far");
	return false;
}

/* The summary goes to standard error: the archive may be on standard output. */
static int end(struct teller *t, emdb_err err, const struct tar_report *r, const char *path)
{
	char text[512];

	progress_end(&t->progress);
	if (err && r->error[0])
		return cli_fail(t->cli, CLI_FAILED, "%s", r->error);
	if (err)
		return cli_fail_err(t->cli, err, path);
	if (t->progress.tty && !t->progress.quiet)
		(void)fprintf(stderr, "%" PRIu64 " entries, %" PRIu64 " bytes in values\n",
			      r->entries, r->bytes);
	if (r->expired) {
		(void)snprintf(text, sizeof(text), "%" PRIu64 " entries had expired", r->expired);
		cli_warn(t->cli, "%s", text);
	}
	return r->failed ? CLI_PARTIAL : CLI_OK;
}

/* The namespace of the argument PATH, the root without one. */
static int find_ns(const struct cli *cli, const struct cli_args *args, emdb_db *db, bool make,
		   uint64_t *ret_ns)
{
	const char *const text = args->argc > 1 ? args->argv[1] : "/";
	struct path path = PATH_INIT;
	uint64_t ns = EMDB_ROOT;
	emdb_err err = EMDB_OK;
	size_t i;
	int code = cli_path(cli, args, text, &path);

	if (code)
		return code;
	for (i = 0; !err && i < path.count; i++) {
		const struct path_name *const n = &path.names[i];
		uint64_t next = 0;

		err = emdb_ns_open(db, ns, n->p, n->n, &next);
		if (err == EMDB_ERR_NOT_FOUND && make)
			err = emdb_ns_create(db, ns, n->p, n->n, &next);
		ns = next;
	}
	path_release(&path);
	*ret_ns = ns;
	return err ? cli_fail_err(cli, err, text) : CLI_OK;
}

/* ---- export ---- */

static int write_archive(const struct cli *cli, const struct cli_args *args, emdb_db *db,
			 uint64_t ns, int fd)
{
	struct archive *const out = archive_write_new();
	struct teller t = { .cli = cli };
	struct tar_report r = { .entries = 0 };
	emdb_err err = EMDB_ERR_NOMEM;

	progress_begin(&t.progress, cli, args_has(args, 'q'));
	tar_init();
	if (out && archive_write_set_format_pax(out) == ARCHIVE_OK &&
	    archive_write_set_format_option(out, "pax", "xattrheader", "SCHILY") == ARCHIVE_OK &&
	    archive_write_set_bytes_per_block(out, BLOCK) == ARCHIVE_OK &&
	    archive_write_set_bytes_in_last_block(out, LAST_BLOCK) == ARCHIVE_OK &&
	    archive_write_open_fd(out, fd) == ARCHIVE_OK)
		err = tar_export(db, ns, out, tell, &t, &r);
	if (!err && archive_write_close(out) != ARCHIVE_OK) {
		(void)snprintf(r.error, sizeof(r.error), "%s", archive_error_string(out));
		err = EMDB_ERR_IO;
	}
	(void)archive_write_free(out);
	return end(&t, err, &r, args->argv[0]);
}

static int run_export(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0], *const file = args_value(args, OPT_OUTPUT);
	const bool to_file = file && strcmp(file, "-") != 0;
	struct view view = VIEW_INIT;
	uint64_t ns = EMDB_ROOT;
	int fd = STDOUT_FILENO, code;

	if (!has_format(cli, args))
		return CLI_USAGE;
	if (!to_file && isatty(STDOUT_FILENO))
		return cli_fail(cli, CLI_USAGE, "not to a terminal: redirect it, or use --output");
	code = view_open(cli, path, args_value(args, OPT_SNAPSHOT), &view);
	if (code)
		return code;
	code = find_ns(cli, args, view.db, false, &ns);
	if (!code && to_file) {
		fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (fd == -1)
			code = cli_fail(cli, CLI_FAILED, "%s: %s", file, strerror(errno));
	}
	if (!code)
		code = write_archive(cli, args, view.db, ns, fd);
	if (to_file && fd != -1) {
		if (code == CLI_OK && fsync(fd) && errno != EINVAL)
			code = cli_fail(cli, CLI_FAILED, "%s: %s", file, strerror(errno));
		(void)close(fd);
		/* Half an archive is not left lying about. */
		if (code == CLI_FAILED)
			(void)unlink(file);
	}
	return view_close(cli, &view, code);
}

static const struct cli_opt export_opts[] = {
	{ OPT_TAR, "tar", NULL, "as a tar archive" },
	{ OPT_OUTPUT, "output", "FILE", "write to a file, not to standard output" },
	{ OPT_SNAPSHOT, "snapshot", "NAME", "what a snapshot holds, not what is there now" },
	OPT_ESCAPED,
	{ 'q', "quiet", NULL, "no progress, no summary" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_export = {
	.name = "export",
	.synopsis = "--tar [OPTIONS] STORE [PATH]",
	.summary = "write keys and values as an archive",
	.details = "Everything below the namespace PATH, with times, owners, extended attributes,\n"
		   "links and deadlines (as user.emdb.expires), at one moment.\n",
	.opts = export_opts,
	.args_min = 1,
	.args_max = 2,
	.run = run_export,
};

/* ---- import ---- */

static bool open_archive(struct archive *in, int fd)
{
	static int (*const filters[])(struct archive *) = {
		archive_read_support_filter_gzip, archive_read_support_filter_bzip2,
		archive_read_support_filter_xz,   archive_read_support_filter_zstd,
		archive_read_support_filter_lz4,
	};
	size_t i;

	/* Those that would run another program say so by a warning. */
	for (i = 0; i < sizeof(filters) / sizeof(*filters); i++)
		if (filters[i](in) < ARCHIVE_WARN)
			return false;
	return archive_read_support_format_tar(in) >= ARCHIVE_WARN &&
	       archive_read_open_fd(in, fd, BLOCK) == ARCHIVE_OK;
}

static int read_archive(const struct cli *cli, const struct cli_args *args, emdb_db *db,
			uint64_t ns, int fd)
{
	struct archive *const in = archive_read_new();
	struct teller t = { .cli = cli };
	struct tar_report r = { .entries = 0 };
	emdb_err err = EMDB_ERR_NOMEM;

	progress_begin(&t.progress, cli, args_has(args, 'q'));
	tar_init();
	if (in && open_archive(in, fd)) {
		err = tar_import(db, ns, in, tell, &t, &r);
	} else if (in) {
		(void)snprintf(r.error, sizeof(r.error), "%s",
			       archive_error_string(in) ? archive_error_string(in)
							: "cannot read it");
		err = EMDB_ERR_CORRUPT;
	}
	(void)archive_read_free(in);
	return end(&t, err, &r, args->argv[0]);
}

static int run_import(struct cli *cli, const struct cli_args *args)
{
	const char *const path = args->argv[0], *const file = args_value(args, OPT_INPUT);
	const bool from_file = file && strcmp(file, "-") != 0;
	struct store *store = NULL;
	uint64_t ns = EMDB_ROOT;
	int fd = STDIN_FILENO, code;

	if (!has_format(cli, args))
		return CLI_USAGE;
	if (from_file) {
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd == -1)
			return cli_fail(cli, CLI_FAILED, "%s: %s", file, strerror(errno));
	}
	code = cli_open(cli, path, 0, &store);
	if (!code && !store_db(store))
		code = cli_fail(cli, CLI_LOCKED,
				"%s: the store is mounted: let tar extract into the mount", path);
	if (!code)
		code = find_ns(cli, args, store_db(store), true, &ns);
	if (!code)
		code = read_archive(cli, args, store_db(store), ns, fd);
	if (from_file)
		(void)close(fd);
	return store ? cli_close(cli, path, store, code) : code;
}

static const struct cli_opt import_opts[] = {
	{ OPT_TAR, "tar", NULL, "from a tar archive (compressed or not)" },
	{ OPT_INPUT, "input", "FILE", "read from a file, not from standard input" },
	OPT_ESCAPED,
	{ 'q', "quiet", NULL, "no progress, no summary" },
	{ 0, NULL, NULL, NULL },
};

const struct cli_command cmd_import = {
	.name = "import",
	.synopsis = "--tar [OPTIONS] STORE [PATH]",
	.summary = "read keys and values from an archive",
	.details =
		"Into the namespace PATH, which is made.  What is there under the same names is\n"
		"replaced.  Entries with \"..\" in their path are left out; those whose deadline\n"
		"is over are not made.  Exits with 3 when some entries could not be made.\n",
	.opts = import_opts,
	.args_min = 1,
	.args_max = 2,
	.run = run_import,
};
