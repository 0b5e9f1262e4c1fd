/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simdisk: a disk that remembers everything that happened to it, and can say what may be left of it
 * when the power fails or the process dies at any moment.
 *
 * A disk is the memory backend behind the fault wrapper: every write, size, name and sync becomes an
 * event. sim_image() builds, from the image that the disk began with and the first `at` events, one
 * of the states that a crash there can leave. It knows inodes, not names: a file with several names
 * has one content, and a name says nothing about the content.
 *
 * What a sync promises: everything about that file, or about the names in that directory, whose call
 * had returned when the sync began. All else is open, each page (or sector) by itself, each size that
 * the file had, each change of a name.
 *
 * While a disk is current, stores that are opened by path are on it: the programs are linked with
 * --wrap=emdb_io_posix_new and --wrap=crc32c, and with --wrap=journal_give_back, so that compaction which
 * was asked for leaves files to be recycled, as the background's does.
 */
#ifndef EMDB_CRASH_SIMDISK_H
#define EMDB_CRASH_SIMDISK_H

#include "core/io.h"

/* splitmix64: the next number of the sequence that *state names. */
static inline uint64_t sim_rand(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

enum sim_event_kind {
	SIM_WRITE,
	SIM_SIZE,
	SIM_SYNC, /* of a file */
	SIM_LINK,
	SIM_UNLINK,
	SIM_RENAME,
	SIM_DIRSYNC
};

struct sim_event {
	enum sim_event_kind kind;
	uint32_t inode;  /* the file; the directory of a name */
	uint32_t inode2; /* the directory of name2 */
	uint32_t target; /* what a link or rename names */
	uint64_t began;  /* events when the call began */
	uint64_t off, len;
	uint8_t *data;
	char *name, *name2;
};

/* What is left of what was not synced. */
enum sim_loss {
	SIM_KEEP,    /* all of it */
	SIM_DROP,    /* nothing */
	SIM_PAGES,   /* of each page any state since the sync */
	SIM_SECTORS, /* of each 512 bytes */
	SIM_TORN,    /* all in order up to some write, which is cut in the middle */
	SIM_REORDER, /* each write whole or not at all */
	SIM_NAMES,   /* all data, some names */
	SIM_SIZES,   /* all names and sizes, no data */
	SIM_LOSSES
};

struct sim_crash {
	size_t at; /* the events before happened */
	bool kill; /* the process died: all is there but calls under way */
	enum sim_loss loss;
	uint64_t seed;
	const uint8_t *keep; /* per event, for shrinking: nothing of it is lost; NULL: none */
	uint8_t *lost;       /* out, per event: something of it is missing; may be NULL */
};

enum sim_flaw { SIM_SOUND, SIM_NO_FSYNC, SIM_NO_DIRSYNC, SIM_NO_CRC };

struct sim_image;
struct sim;

extern enum sim_flaw sim_flaw;
extern const char *sim_boot;            /* id of this boot */
extern _Atomic(int64_t) sim_now_ns;     /* what the real-time clock says */
extern _Atomic(unsigned int) sim_delay; /* one call in so many waits a little; 0: none */

/* An empty disk; one that begins as an image (which is consumed). */
struct sim *sim_new(void);
struct sim *sim_from_image(struct sim_image *image);
/*
 * One on which everything up to a kill happened and is remembered, so that what was not synced
 * before the kill can still be lost by a power failure after it. image is sim_image() of that kill.
 */
struct sim *sim_after_kill(const struct sim *from, const struct sim_crash *kill,
			   struct sim_image *image);
void sim_free(struct sim *sim);

/* The disk that stores are opened on from now on; NULL: the host's. */
void sim_use(struct sim *sim);

size_t sim_count(struct sim *sim);
const struct sim_event *sim_event_at(struct sim *sim, size_t i);
/* One line about an event. */
void sim_describe(struct sim *sim, size_t i, char *buf, size_t n);

struct sim_image *sim_image(const struct sim *sim, const struct sim_crash *crash);
void sim_image_free(struct sim_image *image);

#endif
