/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshots that the kernel knows, and those of them that are open.
 *
 * A snapshot is known (has a slot) while the kernel references its root
 * directory or a node in it, or a request is about it.  It is opened when a
 * request needs it, and closed when nothing below its root is referenced and it
 * has not been asked for SNAPSET_IDLE_MS, or sooner when too many are open.  The
 * kernel caches nodes for as long as it likes; of those that nobody has asked
 * for in a long time it is told to let go.
 *
 * Node ids.  The kernel's id of a node is
 *
 *	63                 62..49   48..0
 *	FS_SNAP_BIT        slot     the object's id in the snapshot
 *
 * with slot 0 for the directory of snapshots and what is no snapshot in it.  A
 * slot is used again when the kernel has forgotten all its nodes.
 *
 * Inode numbers must not be those of the live store, nor of another snapshot
 * (tools take equal ones for the same file), and be the same after a remount.
 * So they are made of the snapshot's number, which is never given twice:
 *
 *	below 2^61   the live store's: an object's id
 *	from 2^61    number * 2^45 + id, while number < 2^16 and id < 2^45
 *	from 2^62    a hash of both: the 65,536th snapshot, or after 256 TiB of journal
 *
 * Threads: any.  A set that is NULL, in a mount without the directory, knows no snapshot.
 */
#ifndef FUSE_SNAPSET_H
#define FUSE_SNAPSET_H

#include "fuse/fs.h"

#define SNAP_SLOT_SHIFT 49
#define SNAP_ID_MAX     (((uint64_t)1 << SNAP_SLOT_SHIFT) - 1)
/* Slots, with the one that is none. */
#define SNAPSET_MAX 16384u
/* More open ones than this are closed as soon as nobody uses them; and most that are open. */
#define SNAPSET_OPEN_WISH 4u
#define SNAPSET_OPEN_MAX  64u
/* Closed when nothing has asked for it so long, ms. */
#define SNAPSET_IDLE_MS 30000
/* The kernel is told to let go of the nodes when nothing has asked for one so long, ms. */
#define SNAPSET_FORGET_MS 600000

/* The nodes that belong to no snapshot: the directory of them, and "latest". */
#define SNAPDIR_NODE    (FS_SNAP_BIT | 1)
#define SNAPDIR_INO     (((uint64_t)1 << 61) | 1)
#define SNAPLATEST_NODE (FS_SNAP_BIT | 2)
#define SNAPLATEST_INO  (((uint64_t)1 << 61) | 2)

/* The inode number of an object in a snapshot. */
uint64_t snap_ino(uint64_t number, uint64_t id);

static inline unsigned int snap_slot(uint64_t node)
{
	return (unsigned int)(node >> SNAP_SLOT_SHIFT) & (SNAPSET_MAX - 1);
}

static inline uint64_t snap_id(uint64_t node)
{
	return node & SNAP_ID_MAX;
}

struct snapset;

/* NULL: no memory.  fs is the mount's own and open. */
struct snapset *snapset_new(struct fs *fs);
/* Closes all; no request is in work and the kernel is gone.  NULL is allowed. */
void snapset_free(struct snapset *set);

/*
 * The node of the snapshot's root directory, with a reference for the kernel
 * and, when it is known without opening the snapshot, its attributes.  0, or
 * ENOMEM, ENFILE.
 */
int snapset_root(struct snapset *set, const struct emdb_snapshot *s, uint64_t *ret_node,
		 struct emdb_attr *ret_attr, bool *ret_known);
void snapset_forget(struct snapset *set, uint64_t node, uint64_t count);

/*
 * The view of an open snapshot, which stays open until snapset_leave().  0, or
 * an errno: EAGAIN when it has to be opened first and `open` is false, ESTALE
 * when it has been removed, and those of emdb_snapshot_open().
 */
int snapset_enter(struct snapset *set, uint64_t node, bool open, struct fs **ret_view);
void snapset_leave(struct snapset *set, uint64_t node);

/*
 * The attributes of a snapshot's root without opening it, with the inode number
 * for the id; false: not known yet.
 */
bool snapset_root_attr(struct snapset *set, uint64_t node, struct emdb_attr *ret);

/* It was renamed; it was removed.  Returns the node of its root, 0 when the kernel knows none. */
uint64_t snapset_renamed(struct snapset *set, const char *name, const char *new_name);
uint64_t snapset_removed(struct snapset *set, const char *name);

/* How many snapshots are open, for the status line. */
unsigned int snapset_open_count(struct snapset *set);

#endif
