/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffered output to a descriptor, in the forms that commands print: bytes,
 * names, JSON.
 *
 * Errors stick: after a failed write everything is dropped and out_flush()
 * says why, so that only the end of a command has to look.
 */
#ifndef TOOLS_OUT_H
#define TOOLS_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUT_BUFFER 65536

struct out {
	int fd;
	int err;  /* errno of the first failed write, 0: none */
	bool tty; /* names are escaped for a terminal */
	size_t len;
	char buf[OUT_BUFFER];
};

void out_init(struct out *out, int fd);
/* 0 or the errno of the first failure. */
int out_flush(struct out *out);

void out_bytes(struct out *out, const void *p, size_t n);
void out_str(struct out *out, const char *s);
/* For short pieces: cut after 1023 bytes. */
void out_printf(struct out *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A name as it is, but on a terminal with everything escaped that could steer it. */
void out_name(struct out *out, const void *p, size_t n);

/* ---- JSON, written piece by piece ---- */

/* A string; bytes that are not UTF-8 become U+FFFD. */
void out_json_string(struct out *out, const void *p, size_t n);
/* Begins an object of a line of its own: {"message_type":TYPE */
void out_json_begin(struct out *out, bool *first, const char *type);
void out_json_end(struct out *out);
/* "name":value, with a comma in front unless *first, which it clears. */
void out_json_name(struct out *out, bool *first, const char *name);
void out_json_u64(struct out *out, bool *first, const char *name, uint64_t v);
void out_json_i64(struct out *out, bool *first, const char *name, int64_t v);
void out_json_bool(struct out *out, bool *first, const char *name, bool v);
void out_json_str(struct out *out, bool *first, const char *name, const char *s);

#endif
