/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/tree.h"

#include <errno.h>
#include <stdlib.h>

struct walk {
	struct fs *fs;
	struct tree_total total;
	uint64_t *dirs; /* still to be visited */
	size_t count, room;
	int err;
};

static bool push(struct walk *w, uint64_t dir)
{
	if (w->count == w->room) {
		const size_t room = w->room == 0 ? 64 : w->room * 2;
		uint64_t *dirs = reallocarray(w->dirs, room, sizeof(*dirs));

		if (dirs == NULL) {
			w->err = ENOMEM;
			return false;
		}
		w->dirs = dirs;
		w->room = room;
	}
	w->dirs[w->count++] = dir;
	return true;
}

static bool visit(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		  uint64_t next_pos)
{
	struct walk *w = ctx;

	(void)key;
	(void)key_len;
	(void)next_pos;
	if (attr != NULL && S_ISDIR(attr->mode))
		return push(w, attr->id);
	w->total.files++;
	if (attr != NULL && S_ISREG(attr->mode))
		w->total.bytes += attr->size;
	if (atomic_load_explicit(&w->fs->root->ending, memory_order_relaxed))
		w->err = EINTR;
	return w->err == 0;
}

int tree_total(struct fs *fs, uint64_t dir, struct tree_total *ret)
{
	struct walk w = { .fs = fs };

	if (!push(&w, dir))
		return w.err;
	while (w.err == 0 && w.count > 0) {
		const uint64_t id = w.dirs[--w.count];
		const emdb_err err = emdb_node_readdir(fs->db, id, 0, 0, visit, &w);

		/* Removed meanwhile: not there is nothing to count. */
		if (err != EMDB_OK && (err != EMDB_ERR_NOT_FOUND || id == dir) && w.err == 0)
			w.err = emdb_err_errno(err);
	}
	free(w.dirs);
	if (w.err == 0)
		*ret = w.total;
	return w.err;
}
