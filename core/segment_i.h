/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment_i: the inside of a segment, for segment.c, the journal and tests.
 *
 * States. SPARE -> ACTIVE (first frame may be reserved) -> ROLLED (its SEAL frame has been
 * reserved) -> SEALED (the manifest says so, nothing is ever written again). Recovered ones go from
 * ROLLED, meaning "no more frames", to SEALED.
 */
#ifndef EMDB_SEGMENT_I_H
#define EMDB_SEGMENT_I_H

#include "core/sealed.h"
#include "core/segment.h"

enum segment_state { SEGMENT_SPARE, SEGMENT_ACTIVE, SEGMENT_ROLLED, SEGMENT_SEALED };

struct segment {
	struct epoch_node node;
	struct emdb_io *io;      /* immutable */
	uint64_t id;             /* immutable */
	uint64_t base;           /* LSN of its first byte; immutable */
	uint32_t shift;          /* immutable */
	uint64_t room;           /* frames end at or before here, the file need not; immutable */
	bool own;                /* written by this open; immutable */
	const uint8_t *map;      /* map_len bytes; immutable */
	size_t map_len;          /* 1 << shift, more with tags behind the frames; immutable */
	struct sealed_tags tags; /* of a converted segment; immutable */
	bool headless;           /* opened with salvage, its header does not check out; immutable */
	_Atomic(uint64_t)
		*seen;       /* bit per 8 bytes: a frame or batch record here checked out; atomic */
	uint8_t boot_id[16]; /* of the writer; immutable */
	uint8_t salt[32];    /* immutable */
	uint32_t crc_seed;   /* of its frames; immutable */
	struct seal_key *key;   /* NULL: not encrypted, or nobody has the key; immutable */
	int fd;                 /* -1 once sealed; then nobody writes or syncs any more */
	_Atomic(uint64_t) size; /* of the file; atomic */
	_Atomic(uint64_t)
		len; /* frames end at or before here; while active: the capacity; atomic */
	_Atomic(uint64_t) ready; /* pages before it were brought in for small frames; atomic */
	_Atomic(int64_t) live;   /* atomic */
	_Atomic(uint64_t) tombs; /* atomic */
	_Atomic(uint32_t) refs;  /* atomic */
	_Atomic(uint32_t) state; /* enum segment_state; changed under the journal's segment lock */
	bool linked; /* its file got other names, through which somebody may still read it */

	/* Of retired ones; guarded by the journal's segment lock, as the flag above. */
	struct segment *next_dead;
	uint64_t died_ns;
	enum { DEAD_LISTED, DEAD_KEPT, DEAD_GONE } file; /* by its own name, by the dead one */
};

/* What every segment of a journal shares. */
struct segment_env {
	struct emdb_io *io;
	int dirfd; /* STORE/journal */
	uint32_t shift;
	uint8_t uuid[16];
	uint8_t boot_id[16]; /* zeros: unknown */
	bool crc_seeded;     /* FMT_INCOMPAT_SEEDED */
	struct vault *vault; /* NULL: not encrypted, or frames are not to be opened */
};

#define SEGMENT_NAME_SIZE 24
void segment_name(uint64_t id, char buf[static SEGMENT_NAME_SIZE]);
/* True for a name that segment_name() makes; *ret_id is set. */
bool segment_name_parse(const char *name, uint64_t *ret_id);
/* The file of a retired segment that is kept for a new one; the same for its name. */
void segment_dead_name(uint64_t id, char buf[static SEGMENT_NAME_SIZE]);
bool segment_is_dead_name(const char *name);

/*
 * A new file, preallocated, with its header and its name on stable storage, mapped; state SPARE.
 * A file in its way is debris and goes. On failure nothing stays. NO_SPACE, IO, NOMEM,
 * TOO_MANY_FILES, PERM, READ_ONLY.
 */
EMDB_CHECKED emdb_err segment_create(const struct segment_env *env, uint64_t id,
				     struct segment **ret);
/*
 * The same with disk space for its first `room` bytes only, which is all that may be written. The
 * file has the size of any other, so that nobody takes it for one that was cut.
 */
EMDB_CHECKED emdb_err segment_create_short(const struct segment_env *env, uint64_t id,
					   uint64_t room, struct segment **ret);

/*
 * The same as segment_create() out of the file of a dead segment of this open, which is there under its dead name, which
 * its store lists no more, durably, and to which the caller has the only reference; *old loses its
 * mapping. What deleted data it holds stays in the file until something is written there, as it does
 * in the free blocks of a disk. On failure the file is gone; EXISTS: somebody gave it another name,
 * or changed it.
 */
EMDB_CHECKED emdb_err segment_recycle(const struct segment_env *env, struct segment *old,
				      uint64_t id, struct segment **ret);

/*
 * Opens an existing one; writable keeps a descriptor for syncing. The state is ROLLED, len is the
 * header's size: the journal sets both. DAMAGED: missing, foreign or not a segment, *ret_why then
 * says so; with `salvage` a header that does not check out is let pass. Otherwise IO, NOMEM,
 * TOO_MANY_FILES, PERM.
 */
EMDB_CHECKED emdb_err segment_open(const struct segment_env *env, uint64_t id, bool writable,
				   bool salvage, struct segment **ret, const char **ret_why);

/*
 * Cuts what was preallocated and not written, and closes. Errors do not matter: only room is
 * lost.
 */
void segment_trim(struct segment *s);

/*
 * Parses the frame at off, of which nothing reaches beyond end. IO: the disk did not deliver; else
 * *ret_st says what is there, *ret is set for FRAME_OK.
 */
EMDB_CHECKED emdb_err segment_parse(const struct segment *s, uint64_t off, uint64_t end,
				    bool check_crc, enum frame_status *ret_st, struct frame *ret);

/*
 * The first good frame at or after off, CRC checked. *ret_st is FRAME_OK or, when there is none
 * before end, FRAME_END. IO: a page could not be read; *ret_off is then where to go on. With
 * `whole` the bytes are what a process wrote, though perhaps not to its end: what follows a good
 * header is then never taken for frames of its own, so that a stored value cannot pretend to be
 * one.
 */
EMDB_CHECKED emdb_err segment_scan(const struct segment *s, uint64_t off, uint64_t end, bool whole,
				   enum frame_status *ret_st, struct frame *ret, uint64_t *ret_off);

/*
 * One past the last byte of off..end-1 that was written to this segment, as far as its bytes tell;
 * off when none was. Zeros were not; neither were, where there are frames of an earlier segment
 * whose file this one took over, the bytes behind the last frame of its own. Unreadable counts as
 * written.
 */
uint64_t segment_written(const struct segment *s, uint64_t off, uint64_t end);

/* Hints that the frame or record at this offset is read soon. */
void segment_prefetch(const struct segment *s, uint64_t off);

/*
 * The frame at off, CRC checked; of an encrypted segment its view, in `view`, which is overwritten.
 * *ret_st and errors as segment_parse(), also NOMEM.
 */
EMDB_CHECKED emdb_err segment_view(const struct segment *s, uint64_t off, uint64_t end,
				   struct buf *view, enum frame_status *ret_st, struct frame *ret);

/* A record of an encrypted segment, opened. */
struct plain {
	struct epoch_node node;
	uint64_t ref;
	struct rec rec;
	size_t n;
	uint8_t bytes[]; /* its fields */
};
/* To be freed with base_free(). CORRUPT, IO or NOMEM. */
EMDB_CHECKED emdb_err segment_open_rec(const struct segment *s, uint64_t ref, struct plain **ret);

/* The record of ref, which lies in s, not encrypted. CORRUPT or IO. */
EMDB_CHECKED emdb_err segment_rec(struct segment *s, uint64_t ref, enum emdb_verify verify,
				  struct rec *ret);
/* The frame that holds it. */
EMDB_CHECKED emdb_err segment_frame_of(struct segment *s, uint64_t ref, enum emdb_verify verify,
				       struct frame *ret);

/* Its length as its header says, unverified; 0: outside of the frames or unreadable. */
uint32_t segment_size_of(const struct segment *s, uint64_t ref);

static inline uint64_t segment_bytes(const struct segment *s)
{
	return UINT64_C(1) << s->shift;
}

static inline uint64_t segment_len(const struct segment *s)
{
	return atomic_load_explicit(&s->len, memory_order_acquire);
}

static inline enum segment_state segment_state(const struct segment *s)
{
	return (enum segment_state)atomic_load_explicit(&s->state, memory_order_acquire);
}

#endif
