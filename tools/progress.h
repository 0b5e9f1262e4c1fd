/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a long command is: on a terminal one line on standard error that is
 * written over, with rate and remaining time; with --json lines of JSON on
 * standard output; else nothing, or with progress_lines() lines on standard error now and then.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "tools/cli.h"

struct progress {
	const struct cli *cli;
	bool quiet, tty, shown;
	bool lines; /* neither: a line of text now and then */
	int64_t began_ms, last_ms;
	uint64_t done, total; /* total 0: unknown */
};

void progress_begin(struct progress *p, const struct cli *cli, bool quiet);
/* Says how far it is also where standard error is no terminal. */
void progress_lines(struct progress *p);
/* An emdb_progress_fn; ctx is the struct progress.  Returns true. */
bool progress_step(void *ctx, uint64_t done, uint64_t total);
/* Takes the line off the terminal. */
void progress_end(struct progress *p);
int64_t progress_elapsed_ms(const struct progress *p);

#endif
