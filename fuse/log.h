/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages for people: to stderr while starting and with -f, else to syslog.
 *
 * Any thread.
 */
#ifndef FUSE_LOG_H
#define FUSE_LOG_H

#include "core/emdb.h"

/* To stderr, what is at least that important: a mount that succeeds prints nothing. */
void log_init(const char *program, enum emdb_log_level least);
/* From now on syslog, facility daemon, with LOG_INFO too. */
void log_to_syslog(void);

void log_message(enum emdb_log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define log_debug(...) log_message(EMDB_LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_message(EMDB_LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_message(EMDB_LOG_WARN, __VA_ARGS__)
#define log_error(...) log_message(EMDB_LOG_ERROR, __VA_ARGS__)

/* The hook for struct emdb_options. */
void log_from_store(void *ctx, enum emdb_log_level level, const char *message);
/* Routes what libfuse has to say through log_message(). */
void log_take_libfuse(void);

#endif
