/* SPDX-License-Identifier: Apache-2.0 */
/* check: telling of damage, for emdb_check() and emdb_repair(). */
#ifndef EMDB_CHECK_H
#define EMDB_CHECK_H

#include "core/damage.h"

/* Tells of everything that was found, and counts it. found may be NULL. */
void check_tell(const struct damage *d, void (*found)(void *ctx, const struct emdb_detail *detail),
		void *ctx, struct emdb_check_report *report);

#endif
