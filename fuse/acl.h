/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX access control lists in the form that the kernel hands over: pure.
 *
 * A list is the value of one of the two attributes below, little-endian:
 * 4 bytes version (2), then 8 bytes an entry: 2 tag, 2 permissions, 4 id of
 * the user or group.  Entries come in the order of the tags: the owner, named
 * users, the group, named groups, the mask (needed when anybody is named), others.
 *
 * The owner's and the others' permissions are those of the mode; the group's
 * bits of the mode are the mask, or without one the group's.
 */
#ifndef FUSE_ACL_H
#define FUSE_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACL_ACCESS  "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* Everything below wants a list that this holds true. */
bool acl_is_valid(const void *list, size_t len);
/* The nine permission bits that it stands for. */
uint32_t acl_mode(const void *list, size_t len);
/* True: it says no more than those nine bits do. */
bool acl_is_mode(const void *list, size_t len);
/* Brings it in step with a mode that was changed. */
void acl_chmod(void *list, size_t len, uint32_t mode);
/*
 * Makes a directory's default list the access list of a node created in it
 * with this mode: nobody gets what the creator did not ask for.  Returns the mode to
 * create it with; bits beyond the nine are kept.
 */
uint32_t acl_inherit(void *list, size_t len, uint32_t mode);

#endif
