/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of the daemon and of the mount helper: pure, prints nothing.
 *
 *	emdbfs STORE MOUNTPOINT [-f] [-d] [-o opt,...]
 *
 * The helper's name, mount.emdbfs (or mount.fuse.emdbfs), is how mount(8)
 * calls us; it changes the exit codes and nothing else.  Option names may be
 * written with '_' or '-'.  A comma inside a value is written "\,".
 */
#ifndef FUSE_OPTIONS_H
#define FUSE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"
#include "tools/secret.h"

/* Most request threads that make sense to ask for. */
#define OPTIONS_THREADS_MAX 64u
/* Most requests in one ring; each takes 1 MiB of address space for each CPU. */
#define OPTIONS_URING_DEPTH_MAX 256u

enum options_atime {
	ATIME_OFF,      /* only utimensat() and creation set it */
	ATIME_RELATIVE, /* reading sets it when it is older than mtime or a day */
	ATIME_STRICT,   /* reading sets it */
};

enum options_transport {
	TRANSPORT_BEST,   /* io_uring where it can be used */
	TRANSPORT_URING,  /* the same, and say so where it cannot */
	TRANSPORT_DEVICE, /* reads and writes of /dev/fuse */
};

/* The name in the root that is no key, where snapshots are shown, unless snapdirname= says another. */
#define OPTIONS_SNAPDIR ".snap"

enum options_snapdir {
	SNAPDIR_HIDDEN, /* there, and not listed */
	SNAPDIR_VISIBLE,
	SNAPDIR_DISABLED,
};

struct options {
	const char *store;      /* as given; points into argv */
	const char *mountpoint; /* the same */
	bool help, version;     /* print that and nothing else */
	bool helper;            /* called by mount(8) */
	bool foreground;
	bool debug;  /* every request, by libfuse; implies foreground */
	bool sloppy; /* -s: unknown options are no error */

	bool read_only;
	bool allow_other, allow_root;
	bool default_permissions;
	bool nonempty;
	bool suid, dev, noexec; /* of the mount; nosuid and nodev are the default */

	enum options_snapdir snapdir;
	bool snapdir_given;
	char snapdirname[256]; /* reserved in the root, also when disabled */
	char snapshot[256];    /* the one to mount alone; "": the present */

	bool noxattr, noacl;
	bool writeback;
	enum options_atime atime;
	unsigned int max_threads; /* 0: the default, OPTIONS_THREADS */
	enum options_transport transport;
	unsigned int uring_depth;    /* requests per CPU; 0: the default, OPTIONS_URING_DEPTH */
	unsigned int ttl_on_replace; /* EMDB_RENAME_TTL_KEEP, _SOURCE; 0: auto */

	bool write_through;
	int64_t ttl_ms;         /* 0: none */
	int32_t commit_s;       /* as emdb_options.commit_interval_s */
	uint64_t segment_bytes; /* 0: the default */
	enum emdb_verify verify;

	bool encrypt;                /* a store that is not encrypted is refused, a new one is */
	enum emdb_cipher cipher;     /* of a new store */
	struct secret_source secret; /* its strings are copies that stay */

	char error[256]; /* why options_parse() failed */
};
#define OPTIONS_THREADS     2u
#define OPTIONS_URING_DEPTH 8u

/*
 * Reads the arguments.  With help or version set nothing else need be there.
 * False: *ret->error says why, naming the argument.
 */
bool options_parse(int argc, char **argv, struct options *ret);
/* Frees what options_parse() copied, also after it failed. */
void options_release(struct options *o);

/* The text for -h. */
extern const char options_usage[];

#endif
