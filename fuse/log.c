/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include <fuse_log.h>

/* Process-wide by nature, like syslog(3) itself; written before threads start, syslog_on later. */
static const char *log_program = "emdbfs";
static _Atomic int log_least = EMDB_LOG_WARN;
static atomic_bool syslog_on;

void log_init(const char *program, enum emdb_log_level least)
{
	log_program = program;
	atomic_store_explicit(&log_least, (int)least, memory_order_relaxed);
}

static bool is_wanted(enum emdb_log_level level)
{
	return (int)level >= atomic_load_explicit(&log_least, memory_order_relaxed);
}

void log_to_syslog(void)
{
	openlog(log_program, LOG_PID, LOG_DAEMON);
	if (is_wanted(EMDB_LOG_WARN) && !is_wanted(EMDB_LOG_INFO))
		atomic_store_explicit(&log_least, EMDB_LOG_INFO, memory_order_relaxed);
	atomic_store_explicit(&syslog_on, true, memory_order_release);
}

static int priority_of(enum emdb_log_level level)
{
	switch (level) {
	case EMDB_LOG_DEBUG:
		return LOG_DEBUG;
	case EMDB_LOG_INFO:
		return LOG_INFO;
	case EMDB_LOG_WARN:
		return LOG_WARNING;
	case EMDB_LOG_ERROR:
		return LOG_ERR;
	}
	return LOG_ERR;
}

static void log_text(enum emdb_log_level level, const char *text)
{
	if (atomic_load_explicit(&syslog_on, memory_order_acquire))
		syslog(priority_of(level), "%s", text);
	else
		(void)fprintf(stderr, "%s: %s\n", log_program, text);
}

void log_message(enum emdb_log_level level, const char *format, ...)
{
	char text[1024];
	va_list ap;

	if (!is_wanted(level))
		return;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	log_text(level, text);
}

void log_from_store(void *ctx, enum emdb_log_level level, const char *message)
{
	(void)ctx;
	log_message(level, "%s", message);
}

static enum emdb_log_level level_of(enum fuse_log_level level)
{
	if (level <= FUSE_LOG_ERR)
		return EMDB_LOG_ERROR;
	if (level == FUSE_LOG_WARNING)
		return EMDB_LOG_WARN;
	return level == FUSE_LOG_DEBUG ? EMDB_LOG_DEBUG : EMDB_LOG_INFO;
}

__attribute__((format(printf, 2, 0))) static void from_libfuse(enum fuse_log_level level,
							       const char *format, va_list ap)
{
	char text[1024];
	size_t n;

	/* Debug messages are asked for with -d. */
	if (level != FUSE_LOG_DEBUG && !is_wanted(level_of(level)))
		return;
	(void)vsnprintf(text, sizeof(text), format, ap);
	n = strlen(text);
	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	if (n > 0)
		log_text(level_of(level), text);
}

void log_take_libfuse(void)
{
	fuse_set_log_func(from_libfuse);
}
