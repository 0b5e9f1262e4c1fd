/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment: one journal file: create and preallocate, open and map, verify
 * frames once, count live bytes, go away with the last reference.
 *
 * Ownership.  The journal's table holds one reference; every zero-copy
 * reference another.  segment_ref() under an epoch pin is always safe: the
 * table's reference is dropped through the epoch.
 */
#ifndef EMDB_SEGMENT_H
#define EMDB_SEGMENT_H

#include <stdatomic.h>

#include "core/emdb.h"
#include "core/epoch.h"
#include "core/format.h"
#include "core/io.h"

struct segment;

void segment_ref(struct segment *s);
/* Unmaps, closes and frees with the last one. */
void segment_unref(struct segment *s);

uint64_t segment_id(const struct segment *s);
/* Adjusts the number of bytes of frames that still count; atomic. */
void segment_live_add(struct segment *s, int64_t delta);
uint64_t segment_live(const struct segment *s);
/* Opening only: nobody else is there. */
void segment_live_set(struct segment *s, uint64_t live);
/* Counts bytes of frames that only say what is gone; atomic. */
void segment_tomb_add(struct segment *s, uint32_t bytes);

#endif
