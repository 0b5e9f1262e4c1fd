/* SPDX-License-Identifier: Apache-2.0 */
/* What stat says of a mounted store beyond what it says of any. */
#ifndef TOOLS_SERVED_H
#define TOOLS_SERVED_H

#include "tools/cli.h"

/* Prints it; as JSON it is one more member of an open object. */
emdb_err served_print(const struct cli *cli, struct store *store, const struct emdb_stats *stats);

#endif
