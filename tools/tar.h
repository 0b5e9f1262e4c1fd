/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores as tar archives in the pax format, and back.
 *
 * What files have travels as GNU tar and bsdtar write it: times to the ns,
 * extended attributes, hard and symbolic links, devices.  A deadline is the
 * attribute user.emdb.expires (seconds since 1970, and a fraction), a
 * namespace's default lifetime user.emdb.ttl.default.  A key that no file name
 * can be (with '/' or NUL, empty, "." or "..") has an escaped name in the archive, and the
 * attribute user.emdb.key, which is the key itself.
 */
#ifndef TOOLS_TAR_H
#define TOOLS_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/emdb.h"

struct archive;

#define TAR_XATTR_EXPIRES "user.emdb.expires"
#define TAR_XATTR_DEFAULT "user.emdb.ttl.default"
#define TAR_XATTR_KEY     "user.emdb.key"
/* Of these the store makes its own. */
#define TAR_XATTR_OWN "user.emdb."

struct tar_report {
	uint64_t entries;
	uint64_t bytes;   /* of values */
	uint64_t failed;  /* entries that did not arrive, or not whole */
	uint64_t expired; /* entries whose time is over: left out */
	char error[512];  /* what ended it */
};

/* What is said about one entry; and now and then how far it is, with what NULL. */
typedef void (*tar_tell_fn)(void *ctx, const struct tar_report *report, const char *path,
			    const char *what);

/* The locale in which libarchive leaves bytes alone.  Once, before the others. */
void tar_init(void);

/*
 * Appends what is below the namespace to the archive, which is open; the caller closes it.
 * NOT_FOUND, CORRUPT, NOMEM, IO: then report->error says more.
 */
emdb_err tar_export(emdb_db *db, uint64_t ns, struct archive *out, tar_tell_fn tell, void *ctx,
		    struct tar_report *report);
/*
 * Brings what the archive holds into the namespace, until its end.  Bytes of the
 * archive are not trusted: no entry gets out of the namespace; what is wrong with one is told, the
 * others go on.  CORRUPT: the archive itself does not go on, report->error says why.
 */
emdb_err tar_import(emdb_db *db, uint64_t ns, struct archive *in, tar_tell_fn tell, void *ctx,
		    struct tar_report *report);

#endif
