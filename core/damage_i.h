/* SPDX-License-Identifier: Apache-2.0 */
/* damage_i: the inside of damage: damage.c for a store that nobody else has, damage_live.c for others. */
#ifndef EMDB_DAMAGE_I_H
#define EMDB_DAMAGE_I_H

#include "core/damage.h"

/* NULL: out of memory, which d->err then says. */
struct loss *damage_add(struct damage *d, enum loss_kind kind);
/* A LOSS_ENTRY without its key: that of an index's slot.  NULL as above. */
struct loss *damage_add_slot_pinned(struct damage *d, const struct ns *ns,
				    const struct hidx_slot *slot);
/* A LOSS_RANGE; neighbours are one. */
void damage_add_range(struct damage *d, uint64_t id, const struct extent *x);
void damage_name(struct damage *d, struct loss *l, const uint8_t *key, size_t len);
/* The key that the damaged record at l->slot has, if it is that of ns/hash.  Pinned. */
void damage_name_by_record(struct damage *d, struct loss *l);
/* After the last; before damage_entry(). */
void damage_sort(struct damage *d);

#endif
