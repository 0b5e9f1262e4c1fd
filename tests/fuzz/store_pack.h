/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store as one input of fuzz_store: its files one behind the other, and what is to be done with
 * them. Taking one apart never fails: what is malformed ends the list.
 *
 *	u16 PACK_DO_*
 *	per file: u8 length of the name, name, u8 kind
 *		kind 0: varint size, varint n, n bytes; zeros from there to size
 *		kind 1: u8 index of the file that this is another name of
 */
#ifndef STORE_PACK_H
#define STORE_PACK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/codec.h"
#include "core/io.h"

#define PACK_FILES 48
#define PACK_NAME  120
#define PACK_SIZE  (2u << 20) /* of one file */

#define PACK_DO_ORDERED 0x01u
#define PACK_DO_ALWAYS  0x02u /* verify=always */
#define PACK_DO_WRITE   0x04u /* open for writing, change, compact, snapshot, open again */
#define PACK_DO_REPAIR  0x08u
#define PACK_DO_TARGET  0x10u /* repair, restore or back up to another place */
#define PACK_DO_CONVERT 0x20u /* encrypt, decrypt, rotate */
#define PACK_DO_ROLL    0x40u /* roll back to the newest snapshot */
#define PACK_DO_KEYS    0x80u

struct pack_file {
	char name[PACK_NAME + 1];
	uint8_t *data; /* used bytes, with room for as many as cap: zeros */
	size_t used, size, cap;
	int same; /* index of an earlier file; -1: none */
};

#define PACK_ROOM 8192u

struct pack {
	unsigned int todo, count;
	struct pack_file files[PACK_FILES];
};

static inline void pack_release(struct pack *p)
{
	for (unsigned int i = 0; i < p->count; i++)
		free(p->files[i].data);
	p->count = 0;
}

/* Below the store, made of what the library calls its files. */
static inline bool pack_name_ok(const uint8_t *s, size_t n)
{
	if (!n || n > PACK_NAME || s[0] == '/' || s[n - 1] == '/')
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] >= 0x7f ||
		    (s[i] == '.' && (i == 0 || s[i - 1] == '/' || s[i - 1] == '.')) ||
		    (s[i] == '/' && s[i - 1] == '/'))
			return false;
	return true;
}

static inline struct pack_file *pack_find(struct pack *p, const char *name)
{
	for (unsigned int i = 0; i < p->count; i++)
		if (strcmp(p->files[i].name, name) == 0)
			return &p->files[i];
	return NULL;
}

/* NULL: there is no room, or there is one of this name. */
static inline struct pack_file *pack_add(struct pack *p, const char *name, const void *data,
					 size_t used, size_t size)
{
	struct pack_file *const f = &p->files[p->count];

	if (p->count == PACK_FILES || pack_find(p, name))
		return NULL;
	memset(f, 0, sizeof(*f));
	f->cap = used + PACK_ROOM;
	f->data = calloc(1, f->cap);
	emdb_assert(f->data);
	(void)snprintf(f->name, sizeof(f->name), "%s", name);
	if (used)
		memcpy(f->data, data, used);
	f->used = used;
	f->size = max_size(size, used);
	f->same = -1;
	p->count++;
	return f;
}

static inline bool pack_take_file(struct pack *p, struct cur *c)
{
	const size_t n = cur_u8(c);
	const uint8_t *const name = cur_bytes(c, n), *data;
	char text[PACK_NAME + 1];
	struct pack_file *f;
	uint64_t size, used;
	uint8_t kind;

	if (!name || !pack_name_ok(name, n))
		return false;
	memcpy(text, name, n);
	text[n] = '\0';
	kind = cur_u8(c);
	if (kind == 1) {
		const uint8_t same = cur_u8(c);

		if (c->err || same >= p->count || p->files[same].same != -1)
			return false;
		f = pack_add(p, text, NULL, 0, 0);
		if (f)
			f->same = same;
		return f != NULL;
	}
	size = cur_varint_max(c, PACK_SIZE);
	used = cur_varint_max(c, PACK_SIZE);
	data = cur_bytes(c, used);
	return kind == 0 && data && pack_add(p, text, data, used, size);
}

static inline void pack_take(struct pack *p, const uint8_t *data, size_t n)
{
	struct cur c = cur_init(data, n);

	p->count = 0;
	p->todo = cur_u16(&c);
	while (cur_left(&c) && p->count < PACK_FILES && pack_take_file(p, &c))
		;
}

/* 0: it does not fit. */
static inline size_t pack_put(const struct pack *p, uint8_t *out, size_t max)
{
	struct wcur w = wcur_init(out, max);

	wcur_u16(&w, (uint16_t)p->todo);
	for (unsigned int i = 0; i < p->count; i++) {
		const struct pack_file *const f = &p->files[i];
		size_t used = f->used;

		wcur_u8(&w, (uint8_t)strlen(f->name));
		wcur_bytes(&w, f->name, strlen(f->name));
		wcur_u8(&w, f->same != -1);
		if (f->same != -1) {
			wcur_u8(&w, (uint8_t)f->same);
			continue;
		}
		while (used && !f->data[used - 1])
			used--;
		/* A frame may end in zeros. */
		used = min_size(f->used, align_up(used, 8) + 32);
		wcur_varint(&w, f->size);
		wcur_varint(&w, used);
		wcur_bytes(&w, f->data, used);
	}
	return w.err ? 0 : wcur_len(&w);
}

/* ---- As files ---- */

static inline void pack_mkdirs(struct emdb_io *io, const char *path)
{
	char dir[PACK_NAME + 40];

	for (const char *s = strchr(path, '/'); s; s = strchr(s + 1, '/')) {
		(void)snprintf(dir, sizeof(dir), "%.*s", (int)(s - path), path);
		(void)!io_mkdirat(io, AT_FDCWD, dir, 0700);
	}
}

/* Below the directory `dir`. What cannot be, such as a file in a file, is left out. */
static inline void pack_write(const struct pack *p, struct emdb_io *io, const char *dir)
{
	char path[PACK_NAME + 40], from[PACK_NAME + 40];
	int fd;

	for (unsigned int i = 0; i < p->count; i++) {
		const struct pack_file *const f = &p->files[i];

		(void)snprintf(path, sizeof(path), "%s/%s", dir, f->name);
		pack_mkdirs(io, path);
		if (f->same != -1) {
			(void)snprintf(from, sizeof(from), "%s/%s", dir, p->files[f->same].name);
			(void)!io_linkat(io, AT_FDCWD, from, AT_FDCWD, path);
			continue;
		}
		if (io_openat(io, AT_FDCWD, path, O_RDWR | O_CREAT, 0600, &fd))
			continue;
		emdb_assert(!io_pwrite_full(io, fd, f->data, f->used, 0));
		emdb_assert(!io_ftruncate(io, fd, f->size));
		(void)io_close(io, fd);
	}
}

struct pack_reading {
	struct pack *p;
	struct emdb_io *io;
	const char *dir, *top;
	uint64_t inos[PACK_FILES];
};

static inline void pack_read_dir(struct pack_reading *r, const char *dir);

static inline int pack_read_one(void *arg, const char *name)
{
	struct pack_reading *const r = arg;
	char path[PACK_NAME + 40];
	struct pack_file *f;
	struct io_stat st;
	size_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", r->dir, name);
	emdb_assert(!io_fstatat(r->io, AT_FDCWD, path, &st));
	if ((st.mode & 0170000) == 0040000) {
		pack_read_dir(r, path);
		return 0;
	}
	emdb_assert(st.size <= PACK_SIZE);
	f = pack_add(r->p, path + strlen(r->top) + 1, NULL, 0, 0);
	emdb_assert(f);
	r->inos[f - r->p->files] = st.ino;
	for (int i = 0; i < f - r->p->files; i++)
		if (r->inos[i] == st.ino && r->p->files[i].same == -1)
			f->same = i;
	if (f->same != -1)
		return 0;
	free(f->data);
	f->cap = st.size + PACK_ROOM;
	f->data = calloc(1, f->cap);
	emdb_assert(f->data && !io_openat(r->io, AT_FDCWD, path, O_RDONLY, 0, &fd));
	emdb_assert(!io_pread_full(r->io, fd, f->data, st.size, 0, &n));
	(void)io_close(r->io, fd);
	f->used = f->size = n;
	return 0;
}

static inline void pack_read_dir(struct pack_reading *r, const char *dir)
{
	const char *const was = r->dir;
	int fd;

	emdb_assert(!io_openat(r->io, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0, &fd));
	r->dir = dir;
	emdb_assert(!io_list(r->io, fd, pack_read_one, r));
	r->dir = was;
	(void)io_close(r->io, fd);
}

/* The reverse. */
static inline void pack_read(struct pack *p, struct emdb_io *io, const char *dir)
{
	struct pack_reading r = { .p = p, .io = io, .dir = dir, .top = dir };

	p->count = 0;
	pack_read_dir(&r, dir);
}

#endif
