/* SPDX-License-Identifier: Apache-2.0 */
/* The small stores that fuzz_store begins with. */
#ifndef STORE_SEEDS_H
#define STORE_SEEDS_H

#include "tests/fuzz/store_mill.h"
#include "tests/fuzz/store_walk.h"

struct seed {
	const char *name;
	bool encrypted, large, snapshot, checkpoint, killed, converted;
	unsigned int todo;
};

static const struct seed seeds[] = {
	{ .name = "plain", .todo = PACK_DO_WRITE | PACK_DO_ORDERED },
	{ .name = "killed", .killed = true, .todo = PACK_DO_WRITE | PACK_DO_ROLL },
	{ .name = "large", .large = true, .checkpoint = true, .todo = PACK_DO_WRITE },
	{ .name = "snapshot", .snapshot = true, .todo = PACK_DO_ROLL | PACK_DO_TARGET },
	{ .name = "checkpoint", .checkpoint = true, .todo = PACK_DO_REPAIR | PACK_DO_WRITE },
	{ .name = "encrypted", .encrypted = true, .checkpoint = true, .todo = PACK_DO_WRITE },
	{ .name = "encrypted-all",
	  .encrypted = true,
	  .large = true,
	  .snapshot = true,
	  .todo = PACK_DO_REPAIR | PACK_DO_KEYS },
	{ .name = "converted", .converted = true, .todo = PACK_DO_CONVERT },
};

static inline void seed_put(emdb_db *db, uint64_t ns, const char *key, size_t len, int64_t expires)
{
	uint8_t value[8192];

	for (size_t i = 0; i < len; i++)
		value[i] = (uint8_t)(i * 7 + (uint8_t)key[0]);
	emdb_assert(!emdb_put(db, ns, key, strlen(key), value, len, expires));
}

static inline void seed_fill(emdb_db *db, const struct seed *s)
{
	const struct emdb_create file = { .mode = S_IFREG | 0640, .uid = 1, .gid = 2 };
	const struct emdb_item items[2] = {
		{ .key = "b1", .key_len = 2, .value = "one", .value_len = 3 },
		{ .key = "b2", .key_len = 2, .value = "two", .value_len = 3 }
	};
	uint8_t page[6000];
	struct emdb_attr a;
	uint64_t ns, sub, n;

	memset(page, 'p', sizeof(page));
	emdb_assert(!emdb_ns_create(db, EMDB_ROOT, "a", 1, &ns));
	emdb_assert(!emdb_ns_create(db, ns, "sub", 3, &sub));
	emdb_assert(!emdb_ns_ttl_set(db, sub, 3600000));
	seed_put(db, EMDB_ROOT, "k1", 40, EMDB_TTL_NEVER);
	seed_put(db, ns, "k2", 100, emdb_now_ms(db) + 1000);
	seed_put(db, sub, "k3", 10, 0);
	emdb_assert(!emdb_put_many(db, ns, items, 2));
	emdb_assert(!emdb_node_create(db, ns, "file", 4, &file, &a));
	emdb_assert(!emdb_xattr_set(db, a.id, "user.x", "abc", 3, 0));
	emdb_assert(!emdb_node_write(db, a.id, 0, page, sizeof(page), 0));
	if (s->checkpoint)
		emdb_assert(!emdb_checkpoint(db));
	if (s->large) {
		emdb_assert(!emdb_node_write(db, a.id, 9000, page, 5000, 0));
		emdb_assert(!emdb_node_fallocate(db, a.id, 1000, 2000, EMDB_FALLOC_PUNCH_HOLE));
		emdb_assert(!emdb_node_copy_range(db, a.id, 0, a.id, 20000, 4000, &n));
		emdb_assert(!emdb_node_write(db, a.id, UINT64_C(1) << 40, "far", 3, 0));
	}
	emdb_assert(!emdb_node_link(db, a.id, sub, "link", 4, &a));
	emdb_node_forget(db, a.id, 2);
	if (s->snapshot)
		emdb_assert(!emdb_snapshot_create(db, "s", NULL));
	seed_put(db, EMDB_ROOT, "k1", 60, EMDB_TTL_NEVER);
	emdb_assert(!emdb_node_rename(db, ns, "b1", 2, sub, "b3", 2, 0));
	emdb_assert(!emdb_remove(db, ns, "b2", 2, NULL, NULL));
	emdb_assert(!emdb_ns_create(db, ns, "gone", 4, &sub));
	emdb_assert(!emdb_ns_drop(db, ns, "gone", 4, true));
	emdb_assert(!emdb_flush(db));
}

/* A store at `dir`, packed. */
static inline void seed_make(const struct seed *s, struct emdb_io *io, const char *dir,
			     struct pack *ret)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.commit_interval_s = -1,
					.sweep_interval_ms = -1,
					.compact_percent = -1,
					.cipher = EMDB_CIPHER_CHACHA20_POLY1305,
					.secret = s->encrypted ? &mill_secret : NULL };
	const struct emdb_convert_options how = { .size = sizeof(how),
						  .cipher = EMDB_CIPHER_CHACHA20_POLY1305 };
	emdb_db *db;

	emdb_assert(!emdb_open(dir, &o, &db));
	seed_fill(db, s);
	if (s->killed)
		pack_read(ret, io, dir);
	emdb_assert(!emdb_close(db));
	if (s->converted)
		emdb_assert(!emdb_encrypt(dir, &mill_secret, &how));
	if (!s->killed)
		pack_read(ret, io, dir);
	ret->todo = s->todo;
}

#endif
