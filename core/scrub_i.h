/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrub_i: the inside of emdb_scrub(): scrub.c says what is to be read and tells what was found,
 * scrub_read.c reads at a limited rate and past the kernel's cache, scrub_file.c verifies a file.
 */
#ifndef EMDB_SCRUB_I_H
#define EMDB_SCRUB_I_H

#include "core/damage.h"
#include "core/manifest.h"
#include "core/store.h"

/* ---- Rate and progress ---- */

/*
 * A bucket of tokens that are bytes: reading n of them costs n, and what is missing is waited for. Full
 * it holds what comes in a tenth of a second, so that a pause is not made up for.
 */
struct pace {
	struct emdb_io *io;
	uint64_t rate;   /* bytes per second; 0: no limit */
	uint64_t due_ns; /* when what was read so far is paid */
	uint64_t done, total;
	emdb_progress_fn progress; /* may be NULL */
	void *progress_ctx;
	_Atomic(uint64_t) *shown_done, *shown_total; /* for emdb_stats_get() */
};

void pace_begin(struct pace *p);
/* n more bytes; waits, and asks progress meanwhile. CANCELLED. */
EMDB_CHECKED emdb_err pace_paid(struct pace *p, uint64_t n);
/* n bytes fewer are to be read. */
void pace_skip(struct pace *p, uint64_t n);

/* ---- Reading ---- */

/*
 * A part of a file in memory, at most a frame and a chunk. The file is read with O_DIRECT, so what comes is what
 * the disk has, whatever the kernel or a mapping of the store still knows; where a file
 * system has no such way, through the cache.
 */
struct window {
	struct emdb_io *io;
	struct pace *pace;
	int dirfd, fd; /* fd -1: none */
	const char *name;
	bool direct;
	struct buf mem;
	uint8_t *p;                   /* in mem, at a multiple of WINDOW_ALIGN */
	size_t cap, len;              /* of p; how much of it is filled */
	uint64_t off;                 /* in the file, of p[0] */
	bool end;                     /* the file, or what is wanted of it, ends with it */
	uint64_t limit;               /* what lies behind is not wanted */
	uint64_t bad, bad_to;         /* bytes that the disk did not deliver: zeros */
	uint64_t bytes, cached_bytes; /* read, all in all; of them through the cache */
};

#define WINDOW_ALIGN 4096u
#define WINDOW_CHUNK (1024u * 1024u)

/* Opens dirfd/name; name stays the caller's. As err_of_io(). */
EMDB_CHECKED emdb_err window_open(struct window *w, int dirfd, const char *name);
/* Back to its beginning. */
void window_rewind(struct window *w, uint64_t limit);
void window_close(struct window *w);
void window_release(struct window *w);
/*
 * Sees to it that n bytes from off on are there, *ret_n says how many are, less only at the end of the
 * file. off never falls. *ret is valid until the next call. IO is never returned: what the disk does not deliver is
 * zeros and window_is_bad(). CANCELLED, NOMEM and what else a machine can fail with.
 */
EMDB_CHECKED emdb_err window_get(struct window *w, uint64_t off, size_t n, uint8_t **ret,
				 size_t *ret_n);
/* Something in off..off+n-1 could not be read. */
bool window_is_bad(const struct window *w, uint64_t off, uint64_t n);

/* ---- Verifying ---- */

/* A file to be verified, and where what is wrong with it is told. */
struct scrub_file {
	struct window *w;
	const uint8_t *uuid;
	struct vault *vault; /* NULL: not encrypted, or of another key */
	uint64_t frames;     /* good ones, counted up */
	/* len bytes of the file from off on do not check out. */
	void (*bad)(void *ctx, uint64_t off, uint64_t len, const char *why);
	void *ctx;
	struct buf plain; /* scratch */
};

/* What a segment must be. */
struct scrub_segment {
	uint64_t id, len;
	uint32_t shift;
	bool seeded;
	const struct manifest *gaps;
	/* Should its header be damaged: its salt; NULL: unknown. */
	const uint8_t *salt;
};

/* These read the file that f->w has open. Errors: as window_get(). */
EMDB_CHECKED emdb_err scrub_segment(struct scrub_file *f, const struct scrub_segment *s);
EMDB_CHECKED emdb_err scrub_checkpoint(struct scrub_file *f, uint64_t number, uint64_t lsn);
EMDB_CHECKED emdb_err scrub_super(struct scrub_file *f, struct superblock *ret, bool *ret_good);
/* ret may be NULL. */
EMDB_CHECKED emdb_err scrub_manifest(struct scrub_file *f, struct manifest *ret, bool *ret_good);

#endif
