/* SPDX-License-Identifier: Apache-2.0 */
/* How check, repair and scrub print what is damaged: a line each, of text or JSON. */
#ifndef TOOLS_FAULTS_H
#define TOOLS_FAULTS_H

#include "tools/cli.h"

struct faults {
	struct cli *cli;
	bool quiet;
};

/* ctx is the struct faults. */
void faults_tell(void *ctx, const struct emdb_detail *detail);

#endif
