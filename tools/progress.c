/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/text.h"

#define EVERY_MS 200
/* Of a line that stays. */
#define LINE_EVERY_MS 10000
#define FPS_VARIABLE  "EMDBFS_PROGRESS_FPS"
#define FPS_MAX       60.0

/* A signal finds nothing else. */
static volatile sig_atomic_t asked;

static void on_asked(int number)
{
	(void)number;
	asked = 1;
}

static int64_t now_ms(void)
{
	struct timespec ts = { .tv_sec = 0 };

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* As the environment wants it; 0: it says nothing, or nothing that makes sense. */
static int64_t wanted_ms(void)
{
	const char *const text = getenv(FPS_VARIABLE);
	char *end = NULL;
	double fps;

	if (!text || !*text)
		return 0;
	fps = strtod(text, &end);
	/* Once in a day is the least; a NaN is none of both. */
	if (*end || !(fps >= 1.0 / 86400 && fps <= FPS_MAX))
		return 0;
	return (int64_t)(1000.0 / fps);
}

void progress_begin(struct progress *p, const struct cli *cli, bool quiet)
{
	const struct sigaction ask = { .sa_handler = on_asked, .sa_flags = SA_RESTART };

	*p = (struct progress){
		.cli = cli,
		.quiet = quiet,
		.tty = !cli->json && isatty(STDERR_FILENO),
		.began_ms = now_ms(),
	};
	p->last_ms = p->began_ms;
	p->every_ms = wanted_ms();
	if (!p->every_ms && (p->tty || cli->json))
		p->every_ms = EVERY_MS;
	if (quiet)
		p->every_ms = 0;
	asked = 0;
	(void)sigaction(SIGUSR1, &ask, &p->was);
}

void progress_lines(struct progress *p)
{
	if (!p->every_ms && !p->quiet)
		p->every_ms = LINE_EVERY_MS;
}

int64_t progress_elapsed_ms(const struct progress *p)
{
	return now_ms() - p->began_ms;
}

/* What is left at the rate so far, ms; -1: not known yet. */
static int64_t remaining_ms(const struct progress *p, int64_t elapsed)
{
	if (!p->total || !p->done || p->done > p->total)
		return -1;
	return (int64_t)((double)elapsed * (double)(p->total - p->done) / (double)p->done);
}

static void line_json(const struct progress *p, int64_t elapsed)
{
	struct out *const out = p->cli->out;
	const int64_t left = remaining_ms(p, elapsed);
	bool first;

	out_json_begin(out, &first, "status");
	out_json_i64(out, &first, "seconds_elapsed", elapsed / 1000);
	if (left >= 0)
		out_json_i64(out, &first, "seconds_remaining", left / 1000);
	if (p->total) {
		out_json_name(out, &first, "percent_done");
		out_printf(out, "%.4f", (double)p->done / (double)p->total);
		out_json_u64(out, &first, "total_bytes", p->total);
	}
	out_json_u64(out, &first, "bytes_done", p->done);
	out_json_end(out);
	(void)out_flush(out);
}

/* The same line, written over on a terminal and ended elsewhere. */
static void line_text(const struct progress *p, int64_t elapsed)
{
	const char *const begin = p->tty ? "\r\033[K" : "", *const end = p->tty ? "" : "\n";
	char done[TEXT_SIZE_SIZE], total[TEXT_SIZE_SIZE], rate[TEXT_SIZE_SIZE];
	char left[TEXT_SPAN_SIZE], line[256];
	const int64_t left_ms = remaining_ms(p, elapsed);
	int n;
	ssize_t written;

	(void)text_size(p->done, done);
	(void)text_size(p->total, total);
	(void)text_size(elapsed > 0 ? p->done * 1000 / (uint64_t)elapsed : 0, rate);
	if (p->total)
		n = snprintf(line, sizeof(line), "%s%3u%%  %s of %s, %s/s, %s left%s", begin,
			     (unsigned int)(p->done * 100 / p->total), done, total, rate,
			     left_ms < 0 ? "?" : text_span(left_ms, left), end);
	else
		n = snprintf(line, sizeof(line), "%s%s, %s/s%s", begin, done, rate, end);
	written = write(STDERR_FILENO, line, (size_t)n);
	(void)written;
}

bool progress_step(void *ctx, uint64_t done, uint64_t total)
{
	struct progress *const p = ctx;
	const int64_t now = now_ms();

	p->done = done;
	p->total = total;
	if (!asked && (!p->every_ms || now - p->last_ms < p->every_ms))
		return true;
	asked = 0;
	p->last_ms = now;
	p->shown = true;
	if (p->cli->json)
		line_json(p, now - p->began_ms);
	else
		line_text(p, now - p->began_ms);
	return true;
}

void progress_clear(struct progress *p)
{
	static const char clear[] = "\r\033[K";
	ssize_t written;

	if (!p->shown || !p->tty)
		return;
	written = write(STDERR_FILENO, clear, sizeof(clear) - 1);
	(void)written;
}

void progress_end(struct progress *p)
{
	(void)sigaction(SIGUSR1, &p->was, NULL);
	progress_clear(p);
}
