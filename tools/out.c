/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/out.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/text.h"

void out_init(struct out *out, int fd)
{
	out->fd = fd;
	out->err = 0;
	out->len = 0;
	out->tty = isatty(fd) == 1;
}

/* Writes all of it, or sets out->err. */
static void write_all(struct out *out, const char *p, size_t n)
{
	while (n && !out->err) {
		const ssize_t done = write(out->fd, p, n);

		if (done < 0) {
			if (errno != EINTR)
				out->err = errno;
			continue;
		}
		p += done;
		n -= (size_t)done;
	}
}

int out_flush(struct out *out)
{
	write_all(out, out->buf, out->len);
	out->len = 0;
	return out->err;
}

void out_bytes(struct out *out, const void *p, size_t n)
{
	if (n >= OUT_BUFFER) {
		(void)out_flush(out);
		write_all(out, p, n);
		return;
	}
	if (n > OUT_BUFFER - out->len)
		(void)out_flush(out);
	memcpy(out->buf + out->len, p, n);
	out->len += n;
}

void out_str(struct out *out, const char *s)
{
	out_bytes(out, s, strlen(s));
}

void out_printf(struct out *out, const char *fmt, ...)
{
	char buf[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	if (n > 0)
		out_bytes(out, buf, (size_t)n < sizeof(buf) ? (size_t)n : sizeof(buf) - 1);
}

static void escape_byte(struct out *out, unsigned char c)
{
	switch (c) {
	case '\n':
		out_str(out, "\\n");
		break;
	case '\t':
		out_str(out, "\\t");
		break;
	case '\\':
		out_str(out, "\\\\");
		break;
	default:
		out_printf(out, "\\x%02x", c);
	}
}

void out_name(struct out *out, const void *p, size_t n)
{
	const unsigned char *s = p;

	if (!out->tty) {
		out_bytes(out, p, n);
		return;
	}
	while (n) {
		size_t len = text_utf8(s, n);

		if (len && text_is_printable(s, len) && *s != '\\') {
			out_bytes(out, s, len);
		} else {
			len = 1;
			escape_byte(out, *s);
		}
		s += len;
		n -= len;
	}
}

/* ---- JSON ---- */

static void json_ascii(struct out *out, unsigned char c)
{
	switch (c) {
	case '"':
		out_str(out, "\\\"");
		break;
	case '\\':
		out_str(out, "\\\\");
		break;
	case '\n':
		out_str(out, "\\n");
		break;
	case '\t':
		out_str(out, "\\t");
		break;
	default:
		if (c < 0x20 || c == 0x7f)
			out_printf(out, "\\u%04x", c);
		else
			out_bytes(out, &c, 1);
	}
}

void out_json_string(struct out *out, const void *p, size_t n)
{
	const unsigned char *s = p;

	out_str(out, "\"");
	while (n) {
		size_t len = text_utf8(s, n);

		if (len == 1) {
			json_ascii(out, *s);
		} else if (len) {
			out_bytes(out, s, len);
		} else {
			out_str(out, "\\ufffd");
			len = 1;
		}
		s += len;
		n -= len;
	}
	out_str(out, "\"");
}

void out_json_name(struct out *out, bool *first, const char *name)
{
	if (!*first)
		out_str(out, ",");
	*first = false;
	out_printf(out, "\"%s\":", name);
}

void out_json_u64(struct out *out, bool *first, const char *name, uint64_t v)
{
	out_json_name(out, first, name);
	out_printf(out, "%" PRIu64, v);
}

void out_json_i64(struct out *out, bool *first, const char *name, int64_t v)
{
	out_json_name(out, first, name);
	out_printf(out, "%" PRId64, v);
}

void out_json_bool(struct out *out, bool *first, const char *name, bool v)
{
	out_json_name(out, first, name);
	out_str(out, v ? "true" : "false");
}

void out_json_str(struct out *out, bool *first, const char *name, const char *s)
{
	out_json_name(out, first, name);
	out_json_string(out, s, strlen(s));
}

void out_json_begin(struct out *out, bool *first, const char *type)
{
	*first = true;
	out_str(out, "{");
	out_json_str(out, first, "message_type", type);
}

void out_json_end(struct out *out)
{
	out_str(out, "}\n");
}
