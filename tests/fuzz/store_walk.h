/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that a store can be asked, and the changes that can be made, whatever the answers are. */
#ifndef STORE_WALK_H
#define STORE_WALK_H

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base.h"
#include "core/emdb.h"

#define WALK_PIECE   65536u
#define WALK_STEPS   64u
#define WALK_SPACES  256u
#define WALK_ENTRIES 20000u /* more than an input can hold, but for entries of entries */

struct walk {
	emdb_db *db;
	bool ordered;
	uint64_t seen[WALK_SPACES]; /* a namespace can lie in itself, for all we know */
	unsigned int spaces, entries;
	uint8_t *buf;
};

static inline void known_err(emdb_err err)
{
	emdb_assert(err <= 0 && err > -(int)EMDB_ERR_COUNT_);
}

/* Where there are data, the first, the last and some in between. */
static inline void walk_value(struct walk *w, uint64_t id, uint64_t size)
{
	struct emdb_slices slices;
	uint64_t at = 0, hole;
	size_t got;
	emdb_err err;

	for (unsigned int i = 0; i < WALK_STEPS && at < size; i++) {
		err = emdb_node_seek(w->db, id, at, false, &at);
		known_err(err);
		if (err)
			break;
		got = 0;
		err = emdb_node_read(w->db, id, at, w->buf, WALK_PIECE, &got);
		known_err(err);
		emdb_assert(got <= WALK_PIECE);
		err = emdb_node_seek(w->db, id, at, true, &hole);
		known_err(err);
		if (err)
			break;
		emdb_assert(hole > at);
		at = hole;
	}
	known_err(emdb_node_read(w->db, id, size > 100 ? size - 100 : 0, w->buf, 200, &got));
	err = emdb_node_slices(w->db, id, size / 2, WALK_PIECE, &slices);
	known_err(err);
	if (err)
		return;
	for (int i = 0; i < slices.count; i++)
		memcpy(w->buf, slices.iov[i].iov_base, min_size(slices.iov[i].iov_len, WALK_PIECE));
	emdb_slices_release(w->db, &slices);
}

static inline void walk_object(struct walk *w, uint64_t id)
{
	char names[2048];
	struct emdb_attr a;
	uint64_t parent;
	size_t n = 0, len;
	emdb_err err = emdb_node_getattr(w->db, id, &a);

	known_err(err);
	if (err)
		return;
	if (emdb_xattr_list(w->db, id, names, sizeof(names), &n) == EMDB_OK)
		for (const char *s = names; s < names + n; s += strlen(s) + 1)
			known_err(emdb_xattr_get(w->db, id, s, w->buf, WALK_PIECE, &len));
	known_err(emdb_node_key(w->db, id, w->buf, WALK_PIECE, &len, &parent));
	if (!S_ISDIR(a.mode))
		walk_value(w, id, a.size);
}

static inline void walk_entry(struct walk *w, uint64_t ns, const struct emdb_entry *e)
{
	struct emdb_attr a;
	struct emdb_ref ref;
	int64_t expires;
	size_t len;
	void *value;
	bool there;

	if (emdb_node_lookup(w->db, ns, e->key, e->key_len, &a) == EMDB_OK) {
		walk_object(w, a.id);
		/* A sparse file is as long as it likes. */
		if (!e->is_ns && a.size < 4 * WALK_PIECE) {
			if (emdb_get(w->db, ns, e->key, e->key_len, &value, &len) == EMDB_OK)
				emdb_free(value);
			if (emdb_get_ref(w->db, ns, e->key, e->key_len, &ref) == EMDB_OK)
				emdb_ref_release(&ref);
		}
		emdb_node_forget(w->db, a.id, 1);
	}
	known_err(emdb_ttl_get(w->db, ns, e->key, e->key_len, &expires));
	known_err(emdb_contains(w->db, ns, e->key, e->key_len, &there));
}

static inline bool walk_readdir_one(void *ctx, const void *key, size_t key_len,
				    const struct emdb_attr *attr, uint64_t next_pos)
{
	unsigned int *const left = ctx;

	(void)attr, (void)next_pos;
	emdb_assert(key_len <= EMDB_KEY_MAX && (key || !key_len));
	return (*left)-- > 0;
}

static inline void walk_space(struct walk *w, uint64_t ns);

static inline void walk_iter(struct walk *w, uint64_t ns, emdb_iter *it, bool down)
{
	struct emdb_entry e;
	unsigned int bad = 0;
	emdb_err err;

	while ((err = emdb_iter_next(it, &e)) != EMDB_ERR_NOT_FOUND && w->entries < WALK_ENTRIES) {
		known_err(err);
		if (err && err != EMDB_ERR_CORRUPT && err != EMDB_ERR_IO)
			break;
		if (err) {
			emdb_assert(bad++ < WALK_ENTRIES);
			continue;
		}
		w->entries++;
		if (!down)
			continue;
		walk_entry(w, ns, &e);
		if (e.is_ns)
			walk_space(w, e.id);
	}
	emdb_iter_free(it);
}

static inline void walk_space(struct walk *w, uint64_t ns)
{
	unsigned int left = 1000;
	uint64_t count;
	int64_t ms;
	enum emdb_ttl_basis basis;
	emdb_iter *it;

	for (unsigned int i = 0; i < w->spaces; i++)
		if (w->seen[i] == ns)
			return;
	if (w->spaces == WALK_SPACES)
		return;
	w->seen[w->spaces++] = ns;
	walk_object(w, ns);
	known_err(emdb_count(w->db, ns, &count));
	known_err(emdb_ns_ttl_get(w->db, ns, &ms));
	known_err(emdb_ns_basis_get(w->db, ns, &basis));
	known_err(emdb_node_readdir(w->db, ns, 0, 0, walk_readdir_one, &left));
	if (w->ordered && emdb_range_new(w->db, ns, NULL, &it) == EMDB_OK)
		walk_iter(w, ns, it, false);
	if (emdb_iter_new(w->db, ns, ns % 2 ? EMDB_ITER_LIVE : 0, &it) == EMDB_OK)
		walk_iter(w, ns, it, true);
}

static inline void walk_store(emdb_db *db, bool ordered)
{
	struct walk w = { .db = db, .ordered = ordered, .buf = malloc(WALK_PIECE) };
	struct emdb_stats stats;
	struct emdb_space space;

	emdb_assert(w.buf);
	known_err(emdb_stats_get(db, &stats));
	known_err(emdb_space_get(db, &space));
	walk_space(&w, EMDB_ROOT);
	free(w.buf);
}

/* ---- Changes ---- */

#define WALK_KEY "what fuzz_store put"

/* The first entry that is no namespace: it is written to, renamed and removed. */
static inline void change_first(emdb_db *db)
{
	struct emdb_entry e;
	struct emdb_attr a;
	emdb_iter *it;
	uint64_t len;

	if (emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_KEYS, &it))
		return;
	if (emdb_iter_next(it, &e) == EMDB_OK &&
	    emdb_node_lookup(db, EMDB_ROOT, e.key, e.key_len, &a) == EMDB_OK) {
		known_err(emdb_node_write(db, a.id, 5000, "patch", 5, 0));
		known_err(emdb_node_copy_range(db, a.id, 0, a.id, 9000, 6000, &len));
		known_err(emdb_node_fallocate(db, a.id, 100, 5000, EMDB_FALLOC_PUNCH_HOLE));
		a.size = 7000;
		known_err(emdb_node_setattr(db, a.id, &a, EMDB_SET_SIZE, &a));
		known_err(emdb_node_link(db, a.id, EMDB_ROOT, "link", 4, &a));
		known_err(emdb_node_rename(db, EMDB_ROOT, e.key, e.key_len, EMDB_ROOT, "moved", 5,
					   0));
		known_err(emdb_node_unlink(db, EMDB_ROOT, "link", 4, NULL));
		emdb_node_forget(db, a.id, 2);
	}
	emdb_iter_free(it);
}

/* What was kept is there. */
static inline void expect_kept(emdb_db *db)
{
	void *value;
	size_t len;

	emdb_assert(emdb_get(db, EMDB_ROOT, WALK_KEY, strlen(WALK_KEY), &value, &len) == EMDB_OK);
	emdb_assert(len == strlen(WALK_KEY) && memcmp(value, WALK_KEY, len) == 0);
	emdb_free(value);
}

/* *ret_kept: WALK_KEY is stored, and must be there from now on. */
static inline void change_store(emdb_db *db, bool *ret_kept)
{
	uint64_t ns, n;
	emdb_err err;

	change_first(db);
	err = emdb_put(db, EMDB_ROOT, WALK_KEY, strlen(WALK_KEY), WALK_KEY, strlen(WALK_KEY),
		       EMDB_TTL_NEVER);
	known_err(err);
	*ret_kept = !err;
	known_err(emdb_ns_ensure(db, EMDB_ROOT, "space", 5, &ns));
	known_err(emdb_sweep(db, &n));
	known_err(emdb_checkpoint(db));
	known_err(emdb_snapshot_create(db, "fuzz", NULL));
	known_err(emdb_ns_drop(db, EMDB_ROOT, "a", 1, true));
	known_err(emdb_compact(db, NULL, NULL));
	known_err(emdb_flush(db));
}

#endif
