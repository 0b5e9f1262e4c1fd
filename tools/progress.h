/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a long command is: on a terminal one line on standard error that is
 * written over, with rate and remaining time; with --json lines of JSON on
 * standard output; else nothing, or with progress_lines() lines on standard error now and then.
 * EMDBFS_PROGRESS_FPS says how many a second, also where there would be none. SIGUSR1 asks for one, in any case.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <signal.h>

#include "tools/cli.h"

struct progress {
	const struct cli *cli;
	bool quiet, tty, shown;
	int64_t every_ms; /* between two lines; 0: none */
	int64_t began_ms, last_ms;
	struct sigaction was; /* for SIGUSR1 */
	uint64_t done, total; /* total 0: unknown */
};

/* One at a time, until progress_end(). */
void progress_begin(struct progress *p, const struct cli *cli, bool quiet);
/* Says how far it is also where standard error is no terminal. */
void progress_lines(struct progress *p);
/* An emdb_progress_fn; ctx is the struct progress.  Returns true. */
bool progress_step(void *ctx, uint64_t done, uint64_t total);
/* Takes the line off the terminal, until the next step. */
void progress_clear(struct progress *p);
void progress_end(struct progress *p);
int64_t progress_elapsed_ms(const struct progress *p);

#endif
