/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the command snapshot, and what others need of snapshots. */
#ifndef TOOLS_SNAPSHOT_H
#define TOOLS_SNAPSHOT_H

#include "tools/cli.h"

/* All of a store's snapshots, the oldest first. */
struct snap_list {
	struct emdb_snapshot *rows;
	size_t count, cap;
	bool failed; /* out of memory */
};
/* Of the store in this directory, in use or not.  Release it in any case. */
emdb_err snap_list_read(const char *dir, struct snap_list *ret);
void snap_list_release(struct snap_list *list);

/* Room for the name of a snapshot that a command makes for itself. */
#define SNAP_OWN_NAME 64
void snap_own_name(const char *what, char buf[static SNAP_OWN_NAME]);

/*
 * A store to read from: one of its snapshots, or (name NULL) as it is now, for which a
 * served one gets a snapshot that goes with the view.
 */
struct view {
	emdb_db *db;
	struct store *store; /* the snapshot is its; NULL: none was made */
	char own[SNAP_OWN_NAME];
};
#define VIEW_INIT                  \
	{                          \
		NULL, NULL, { 0 }, \
	}
/* CLI_OK or, with the message printed, the exit code. */
int view_open(const struct cli *cli, const char *path, const char *name, struct view *ret);
/* Returns code, or a failure when code was CLI_OK. */
int view_close(const struct cli *cli, struct view *view, int code);

/* The actions with files of their own; args->argv[0] is the action, [1] the store. */
int snap_diff(struct cli *cli, const struct cli_args *args);
int snap_prune(struct cli *cli, const struct cli_args *args);
int snap_run(struct cli *cli, const struct cli_args *args);

#define SNAP_KEEP_LAST    (OPT_LONG_ONLY + 1)
#define SNAP_KEEP_HOURLY  (OPT_LONG_ONLY + 2)
#define SNAP_KEEP_DAILY   (OPT_LONG_ONLY + 3)
#define SNAP_KEEP_WEEKLY  (OPT_LONG_ONLY + 4)
#define SNAP_KEEP_MONTHLY (OPT_LONG_ONLY + 5)
#define SNAP_PATH         (OPT_LONG_ONLY + 6)

#endif
