/* SPDX-License-Identifier: Apache-2.0 */
/* Forms that people read and write: sizes, times, escaped names.  Pure functions. */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the valid UTF-8 sequence at p, 1..4; 0: there is none. */
size_t text_utf8(const unsigned char *p, size_t n);
bool text_is_utf8(const void *p, size_t n);
/* True if the sequence of `len` bytes at p (from text_utf8()) does not steer a terminal. */
bool text_is_printable(const unsigned char *p, size_t len);

#define TEXT_TIME_SIZE 40
/* RFC 3339 in UTC with ms, for instance 2026-11-22T09:30:00.000Z. */
const char *text_time(int64_t ms, char buf[TEXT_TIME_SIZE]);
#define TEXT_SIZE_SIZE 24
/* Bytes in units of 1024: 512, 1.5K, 64M. */
const char *text_size(uint64_t bytes, char buf[TEXT_SIZE_SIZE]);
#define TEXT_SPAN_SIZE 32
/* The two largest units of a time span: 500ms, 42s, 1h29m, 3d4h. */
const char *text_span(int64_t ms, char buf[TEXT_SPAN_SIZE]);

/* Reads 4096, 64K, 1M, 1G, 64MiB (units of 1024). */
bool text_parse_size(const char *s, uint64_t *ret);

/* Value of a hexadecimal digit, -1: none. */
int text_hex_digit(char c);

#endif
