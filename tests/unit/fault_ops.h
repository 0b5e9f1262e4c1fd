/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One case for every public function: what is called, on the store that make_sample() makes. A case
 * returns the function's result; when that is an error it has checked that the results are as they
 * were, when not, that they are right.
 */
#ifndef EMDB_TEST_FAULT_OPS_H
#define EMDB_TEST_FAULT_OPS_H

#include "tests/unit/fault_world.h"

#define STORE     "/store"
#define BACKUP    "/backup"
#define BIG_SIZE  300000u
#define OLD_TTL   (HOST_NOW / 1000000 + 5000) /* deadline of "due" */
#define FAR_TTL   (HOST_NOW / 1000000 + 500000000)
#define UNTOUCHED ((void *)1)

struct store {
	emdb_db *db;
	uint64_t big, small, dir;
	void *other; /* what prepare() made for the call */
	/*
	 * Set by the call: looks at what it did, once nothing fails any more and the store is closed.
	 * *err: its result, a new one when it has been called again.
	 */
	void (*after)(struct store *s, emdb_err *err);
};

static uint8_t value[BIG_SIZE];

static const struct emdb_options plain_options = { .size = sizeof(plain_options),
						   .flags = EMDB_OPEN_CREATE,
						   .segment_bytes = EMDB_SEGMENT_MIN,
						   .commit_interval_s = -1,
						   .sweep_interval_ms = -1,
						   .compact_percent = -1 };

static emdb_err put_str(emdb_db *db, uint64_t ns, const char *key, size_t len)
{
	return emdb_put(db, ns, key, strlen(key), value, len, EMDB_TTL_NEVER);
}

static uint64_t node_of(emdb_db *db, const char *key)
{
	struct emdb_attr a;

	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, key, strlen(key), &a));
	return a.id;
}

static void make_sample(void)
{
	static const struct emdb_create link = { .mode = S_IFLNK | 0777,
						 .target = "small",
						 .target_len = 5 };
	struct emdb_attr a;
	uint64_t dir, sub;
	emdb_db *db;

	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)(i * 31 + i / 256);
	CHECK_OK(emdb_open(STORE, &plain_options, &db));
	CHECK_OK(put_str(db, EMDB_ROOT, "small", 100));
	CHECK_OK(put_str(db, EMDB_ROOT, "medium", 9000));
	CHECK_OK(put_str(db, EMDB_ROOT, "big", 200000));
	CHECK_OK(emdb_node_write(db, node_of(db, "big"), BIG_SIZE - 1000, value, 1000, 0));
	CHECK_OK(put_str(db, EMDB_ROOT, "one", 50));
	CHECK_OK(emdb_node_link(db, node_of(db, "one"), EMDB_ROOT, "two", 3, &a));
	CHECK_OK(emdb_node_create(db, EMDB_ROOT, "sym", 3, &link, &a));
	CHECK_OK(emdb_xattr_set(db, node_of(db, "small"), "user.a", "text", 4, 0));
	CHECK_OK(emdb_xattr_set(db, node_of(db, "big"), "user.b", value, 2000, 0));
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "dir", 3, &dir));
	CHECK_OK(emdb_ns_create(db, dir, "sub", 3, &sub));
	CHECK_OK(emdb_ns_ttl_set(db, sub, 1000000));
	CHECK_OK(put_str(db, dir, "in", 300));
	CHECK_OK(put_str(db, sub, "deep", 300));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "due", 3, "x", 1, OLD_TTL));
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "empty", 5, &sub));
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "first", NULL));
	for (int i = 0; i < 8; i++)
		CHECK_OK(put_str(db, EMDB_ROOT, "old", 60000));
	CHECK_OK(emdb_snapshot_create(db, "second", NULL));
	CHECK_OK(emdb_backup(db, BACKUP, NULL, NULL));
	CHECK_OK(put_str(db, EMDB_ROOT, "old", 10));
	CHECK_OK(emdb_snapshot_delete(db, "second"));
	CHECK_OK(emdb_close(db));
}

/* ---- Keys and values ---- */

static emdb_err op_put(struct store *s)
{
	return put_str(s->db, EMDB_ROOT, "new", 200);
}

static emdb_err op_put_over(struct store *s)
{
	return put_str(s->db, EMDB_ROOT, "big", 100);
}

static emdb_err op_put_large(struct store *s)
{
	return put_str(s->db, EMDB_ROOT, "medium", BIG_SIZE);
}

static emdb_err op_get(struct store *s)
{
	void *p = UNTOUCHED;
	size_t n = 77;
	const emdb_err err = emdb_get(s->db, EMDB_ROOT, "big", 3, &p, &n);

	if (err) {
		CHECK(p == UNTOUCHED && n == 77);
	} else {
		CHECK(n == BIG_SIZE && memcmp(p, value, 200000) == 0);
		emdb_free(p);
	}
	return err;
}

static emdb_err op_get_ref(struct store *s)
{
	struct emdb_ref ref = { .data = UNTOUCHED };
	const emdb_err err = emdb_get_ref(s->db, EMDB_ROOT, "big", 3, &ref);

	if (err) {
		CHECK(ref.data == UNTOUCHED);
	} else {
		CHECK(ref.len == BIG_SIZE && memcmp(ref.data, value, 200000) == 0);
		emdb_ref_release(&ref);
	}
	return err;
}

static emdb_err op_remove(struct store *s)
{
	void *p = UNTOUCHED;
	size_t n = 77;
	const emdb_err err = emdb_remove(s->db, EMDB_ROOT, "big", 3, &p, &n);

	if (err) {
		CHECK(p == UNTOUCHED && n == 77);
	} else {
		CHECK(n == BIG_SIZE && memcmp(p, value, 200000) == 0);
		emdb_free(p);
	}
	return err;
}

static emdb_err op_contains(struct store *s)
{
	bool found = false;
	const emdb_err err = emdb_contains(s->db, EMDB_ROOT, "small", 5, &found);

	CHECK(found == !err);
	return err;
}

static emdb_err op_count(struct store *s)
{
	uint64_t n = 77;
	const emdb_err err = emdb_count(s->db, EMDB_ROOT, &n);

	CHECK_UEQ(n, err ? 77 : 10);
	return err;
}

static emdb_err op_clear(struct store *s)
{
	return emdb_clear(s->db, EMDB_ROOT);
}

static emdb_err op_put_many(struct store *s)
{
	const struct emdb_item items[] = {
		{ .key = "many", .key_len = 4, .value = value, .value_len = 9000 },
		{ .key = "small", .key_len = 5, .remove = true },
		{ .key = "two", .key_len = 3, .value = value, .value_len = 20 },
		{ .key = "big", .key_len = 3, .value = value, .value_len = 100000 },
	};

	return emdb_put_many(s->db, EMDB_ROOT, items, 4);
}

static emdb_err op_iterate(struct store *s)
{
	emdb_iter *it = UNTOUCHED;
	struct emdb_entry e = { .key = UNTOUCHED };
	unsigned int n = 0;
	emdb_err err = emdb_iter_new(s->db, EMDB_ROOT, EMDB_ITER_VALUES, &it);

	if (err) {
		CHECK(it == UNTOUCHED);
		return err;
	}
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK)
		n++;
	emdb_iter_free(it);
	if (err != EMDB_ERR_NOT_FOUND)
		return err;
	CHECK_UEQ(n, 10);
	return EMDB_OK;
}

/* ---- Namespaces and deadlines ---- */

static emdb_err op_ns_create(struct store *s)
{
	uint64_t ns = 77;
	const emdb_err err = emdb_ns_create(s->db, EMDB_ROOT, "made", 4, &ns);

	CHECK((ns == 77) == (err != EMDB_OK));
	return err;
}

static emdb_err op_ns_open(struct store *s)
{
	uint64_t ns = 77;
	const emdb_err err = emdb_ns_open(s->db, EMDB_ROOT, "dir", 3, &ns);

	CHECK_UEQ(ns, err ? 77 : s->dir);
	return err;
}

static emdb_err op_ns_drop(struct store *s)
{
	return emdb_ns_drop(s->db, EMDB_ROOT, "dir", 3, true);
}

static emdb_err op_ttl_get(struct store *s)
{
	int64_t t = 77;
	const emdb_err err = emdb_ttl_get(s->db, EMDB_ROOT, "due", 3, &t);

	CHECK_EQ(t, err ? 77 : OLD_TTL);
	return err;
}

static emdb_err op_ttl_set(struct store *s)
{
	return emdb_ttl_set(s->db, EMDB_ROOT, "big", 3, FAR_TTL);
}

static emdb_err op_ttl_past(struct store *s)
{
	return emdb_ttl_set(s->db, EMDB_ROOT, "small", 5, 5);
}

static emdb_err op_ns_ttl_set(struct store *s)
{
	return emdb_ns_ttl_set(s->db, s->dir, 5000);
}

static emdb_err op_ns_ttl_get(struct store *s)
{
	int64_t t = 77;
	const emdb_err err = emdb_ns_ttl_get(s->db, s->dir, &t);

	CHECK_EQ(t, err ? 77 : 0);
	return err;
}

static emdb_err op_basis_set(struct store *s)
{
	return emdb_ns_basis_set(s->db, s->dir, EMDB_BASIS_MODIFY);
}

static emdb_err op_basis_get(struct store *s)
{
	enum emdb_ttl_basis b = EMDB_BASIS_MODIFY;
	const emdb_err err = emdb_ns_basis_get(s->db, s->dir, &b);

	CHECK_EQ(b, err ? EMDB_BASIS_MODIFY : EMDB_BASIS_CREATE);
	return err;
}

static emdb_err op_sweep(struct store *s)
{
	uint64_t n = 77;
	emdb_err err;

	host.now_ns = (OLD_TTL + 1) * 1000000;
	err = emdb_sweep(s->db, &n);
	CHECK_UEQ(n, err ? 77 : 1);
	host.now_ns = HOST_NOW;
	return err;
}

#include "tests/unit/fault_txn.h"

/* ---- Durability and operations ---- */

static void prepare_unsynced(struct store *s)
{
	CHECK_OK(put_str(s->db, EMDB_ROOT, "unsynced", 5000));
}

static emdb_err op_flush(struct store *s)
{
	return emdb_flush(s->db);
}

static void flushed(void *ctx, emdb_err err)
{
	atomic_store((_Atomic(int) *)ctx, err ? err : 1);
}

static emdb_err op_flush_async(struct store *s)
{
	_Atomic(int) done = 0;

	emdb_flush_async(s->db, flushed, &done);
	while (!done)
		usleep(50);
	return done == 1 ? EMDB_OK : (emdb_err)done;
}

static emdb_err op_checkpoint(struct store *s)
{
	return emdb_checkpoint(s->db);
}

static emdb_err op_compact(struct store *s)
{
	return emdb_compact(s->db, NULL, NULL);
}

static emdb_err op_stats(struct store *s)
{
	struct emdb_stats st = { .records = 77 };
	const emdb_err err = emdb_stats_get(s->db, &st);

	CHECK_UEQ(st.records, err ? 77 : 10);
	return err;
}

static emdb_err op_space(struct store *s)
{
	struct emdb_space sp = { .entries = 77 };
	const emdb_err err = emdb_space_get(s->db, &sp);

	CHECK_UEQ(sp.entries, err ? 77 : 14);
	return err;
}

static emdb_err op_check(struct store *s)
{
	struct emdb_check_report r = { .frames = 77777 };
	const emdb_err err = emdb_check(STORE, NULL, NULL, &r);

	(void)s;
	CHECK(err ? true : r.frames != 77777 && r.bad_frames == 0);
	return err;
}

static emdb_err op_scrub(struct store *s)
{
	struct emdb_scrub_report r = { .frames = 77777 };
	const emdb_err err = emdb_scrub(s->db, NULL, &r);

	CHECK(r.frames != 77777 && r.complete == (!err || err == EMDB_ERR_CORRUPT));
	CHECK((r.damaged != 0) == (err == EMDB_ERR_CORRUPT) || !r.complete);
	return err;
}

/* ---- Opening ---- */

static emdb_err op_open(struct store *s)
{
	struct emdb_options o = plain_options;
	emdb_db *db = UNTOUCHED;
	emdb_err err;

	(void)s;
	o.flags = 0;
	err = emdb_open(STORE, &o, &db);
	if (err)
		CHECK(db == UNTOUCHED);
	else
		(void)emdb_close(db);
	return err;
}

static emdb_err op_open_read_only(struct store *s)
{
	struct emdb_options o = plain_options;
	emdb_db *db = UNTOUCHED;
	emdb_err err;

	(void)s;
	o.flags = EMDB_OPEN_READ_ONLY;
	err = emdb_open(STORE, &o, &db);
	if (err)
		CHECK(db == UNTOUCHED);
	else
		CHECK_OK(emdb_close(db));
	return err;
}

static emdb_err op_create(struct store *s)
{
	emdb_db *db = UNTOUCHED;
	const emdb_err err = emdb_open("/another", &plain_options, &db);

	(void)s;
	if (err)
		CHECK(db == UNTOUCHED);
	else
		(void)emdb_close(db);
	return err;
}

static emdb_err op_close(struct store *s)
{
	const emdb_err err = emdb_close(s->db);

	s->db = NULL;
	return err;
}

static emdb_err op_lock_holder(struct store *s)
{
	struct emdb_lock_info info = { .pid = 77 };
	const emdb_err err = emdb_lock_holder(STORE, &info);

	CHECK(err ? info.pid == 77 : info.held == (s->db != NULL));
	return err;
}

static emdb_err op_break_lock(struct store *s)
{
	(void)s;
	return emdb_break_lock(STORE);
}

/* ---- Snapshots and backups ---- */

static emdb_err op_snapshot_create(struct store *s)
{
	struct emdb_snapshot snap = { .number = 77 };
	const emdb_err err = emdb_snapshot_create(s->db, "third", &snap);

	CHECK_UEQ(snap.number, err ? 77 : 3);
	return err;
}

static emdb_err op_snapshot_delete(struct store *s)
{
	return emdb_snapshot_delete(s->db, "first");
}

static emdb_err op_snapshot_rename(struct store *s)
{
	return emdb_snapshot_rename(s->db, "first", "other");
}

static bool count_snapshot(void *ctx, const struct emdb_snapshot *s)
{
	*(unsigned int *)ctx += s->err == EMDB_OK;
	return true;
}

/* One that cannot be read just now is listed with that error. */
static emdb_err op_snapshot_list(struct store *s)
{
	unsigned int n = 0;

	return emdb_snapshot_list(s->db, count_snapshot, &n);
}

static emdb_err op_snapshot_list_at(struct store *s)
{
	unsigned int n = 0;

	(void)s;
	return emdb_snapshot_list_at(STORE, count_snapshot, &n);
}

static emdb_err op_snapshot_get(struct store *s)
{
	struct emdb_snapshot snap = { .number = 77 };
	const emdb_err err = emdb_snapshot_get(s->db, "first", &snap);

	if (err)
		CHECK_UEQ(snap.number, 77);
	return err ? err : snap.err;
}

static emdb_err op_snapshot_open(struct store *s)
{
	emdb_db *db = UNTOUCHED;
	const emdb_err err = emdb_snapshot_open(s->db, "first", NULL, &db);

	if (err)
		CHECK(db == UNTOUCHED);
	else
		CHECK_OK(emdb_close(db));
	return err;
}

static emdb_err op_backup(struct store *s)
{
	struct emdb_backup_report r = { .segments = 77 };
	const emdb_err err = emdb_backup(s->db, "/backup2", NULL, &r);

	CHECK((r.segments == 77) == (err != EMDB_OK));
	return err;
}

static emdb_err op_backup_again(struct store *s)
{
	return emdb_backup(s->db, BACKUP, NULL, NULL);
}

static emdb_err op_restore(struct store *s)
{
	struct emdb_backup_report r = { .segments = 77 };
	const emdb_err err = emdb_restore(BACKUP, "/restored", NULL, &r);

	(void)s;
	CHECK((r.segments == 77) == (err != EMDB_OK));
	return err;
}

static emdb_err op_rollback(struct store *s)
{
	(void)s;
	return emdb_rollback(STORE, "first", EMDB_ROLLBACK_PAST_NEWER, NULL);
}

/* ---- Objects ---- */

static emdb_err op_lookup(struct store *s)
{
	struct emdb_attr a = { .id = 77 };
	const emdb_err err = emdb_node_lookup(s->db, EMDB_ROOT, "big", 3, &a);

	CHECK_UEQ(a.id, err ? 77 : s->big);
	if (!err)
		emdb_node_forget(s->db, a.id, 1);
	return err;
}

static emdb_err op_getattr(struct store *s)
{
	struct emdb_attr a = { .id = 77 };
	const emdb_err err = emdb_node_getattr(s->db, s->big, &a);

	CHECK_UEQ(a.id, err ? 77 : s->big);
	return err;
}

static emdb_err op_setattr(struct store *s)
{
	struct emdb_attr a = { .mode = 0640, .mtime_ns = 5 }, got = { .id = 77 };
	const emdb_err err =
		emdb_node_setattr(s->db, s->small, &a, EMDB_SET_MODE | EMDB_SET_MTIME, &got);

	CHECK_UEQ(got.id, err ? 77 : s->small);
	return err;
}

static emdb_err op_truncate(struct store *s)
{
	struct emdb_attr a = { .size = 1234 }, got = { .id = 77 };
	const emdb_err err = emdb_node_setattr(s->db, s->big, &a, EMDB_SET_SIZE, &got);

	CHECK_UEQ(got.id, err ? 77 : s->big);
	return err;
}

static emdb_err op_node_create(struct store *s)
{
	static const struct emdb_create what = { .mode = S_IFREG | 0600 };
	struct emdb_attr a = { .id = 77 };
	const emdb_err err = emdb_node_create(s->db, s->dir, "file", 4, &what, &a);

	if (err)
		CHECK_UEQ(a.id, 77);
	else
		emdb_node_forget(s->db, a.id, 1);
	return err;
}

static emdb_err op_create_anon(struct store *s)
{
	static const struct emdb_create what = { .mode = S_IFREG | 0600 };
	struct emdb_attr a = { .id = 77 };
	const emdb_err err = emdb_node_create_anon(s->db, s->dir, &what, &a);

	if (err)
		CHECK_UEQ(a.id, 77);
	else
		emdb_node_forget(s->db, a.id, 1);
	return err;
}

static emdb_err op_link(struct store *s)
{
	struct emdb_attr a = { .id = 77 };
	const emdb_err err = emdb_node_link(s->db, s->small, s->dir, "linked", 6, &a);

	CHECK_UEQ(a.id, err ? 77 : s->small);
	if (!err)
		emdb_node_forget(s->db, a.id, 1);
	return err;
}

static emdb_err op_unlink(struct store *s)
{
	uint64_t id = 77;
	const emdb_err err = emdb_node_unlink(s->db, EMDB_ROOT, "big", 3, &id);

	CHECK_UEQ(id, err ? 77 : s->big);
	return err;
}

static emdb_err op_rmdir(struct store *s)
{
	uint64_t id = 77;
	const emdb_err err = emdb_node_rmdir(s->db, EMDB_ROOT, "empty", 5, &id);

	CHECK((id == 77) == (err != EMDB_OK));
	return err;
}

static emdb_err op_rename(struct store *s)
{
	return emdb_node_rename(s->db, EMDB_ROOT, "small", 5, s->dir, "in", 2, 0);
}

static emdb_err op_rename_dir(struct store *s)
{
	return emdb_node_rename(s->db, EMDB_ROOT, "dir", 3, EMDB_ROOT, "empty", 5, 0);
}

static emdb_err op_exchange(struct store *s)
{
	return emdb_node_rename(s->db, EMDB_ROOT, "small", 5, EMDB_ROOT, "big", 3,
				EMDB_RENAME_EXCHANGE);
}

static emdb_err op_slices(struct store *s)
{
	struct emdb_slices sl = { .len = 77 };
	const emdb_err err = emdb_node_slices(s->db, s->big, 0, BIG_SIZE, &sl);

	CHECK_UEQ(sl.len, err ? 77 : BIG_SIZE);
	if (!err)
		emdb_slices_release(s->db, &sl);
	return err;
}

static emdb_err op_read(struct store *s)
{
	static uint8_t buf[BIG_SIZE];
	size_t n = 77;
	const emdb_err err = emdb_node_read(s->db, s->big, 0, buf, sizeof(buf), &n);

	CHECK_UEQ(n, err ? 77 : BIG_SIZE);
	return err;
}

static emdb_err op_write(struct store *s)
{
	return emdb_node_write(s->db, s->big, 5000, value, 70000, 0);
}

static emdb_err op_write_small(struct store *s)
{
	return emdb_node_write(s->db, s->small, 50, value, 100, EMDB_WRITE_APPEND);
}

static emdb_err op_write_promote(struct store *s)
{
	return emdb_node_write(s->db, s->small, 50000, value, 100, 0);
}

static emdb_err op_punch(struct store *s)
{
	return emdb_node_fallocate(s->db, s->big, 1000, 50000, EMDB_FALLOC_PUNCH_HOLE);
}

static emdb_err op_seek(struct store *s)
{
	uint64_t at = 77;
	const emdb_err err = emdb_node_seek(s->db, s->big, 0, true, &at);

	CHECK_UEQ(at, err ? 77 : 200000);
	return err;
}

static emdb_err op_copy_range(struct store *s)
{
	uint64_t n = 77;
	const emdb_err err = emdb_node_copy_range(s->db, s->big, 0, s->small, 0, BIG_SIZE, &n);

	CHECK_UEQ(n, err ? 77 : BIG_SIZE);
	return err;
}

static bool count_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
			uint64_t next)
{
	(void)key, (void)key_len, (void)next;
	*(unsigned int *)ctx += attr != NULL;
	return true;
}

static emdb_err op_readdir(struct store *s)
{
	unsigned int n = 0;
	const emdb_err err = emdb_node_readdir(s->db, EMDB_ROOT, 0, 0, count_entry, &n);

	if (!err)
		CHECK_UEQ(n, 10);
	return err;
}

static emdb_err op_xattr_get(struct store *s)
{
	char buf[3000];
	size_t n = 77;
	const emdb_err err = emdb_xattr_get(s->db, s->big, "user.b", buf, sizeof(buf), &n);

	CHECK_UEQ(n, err ? 77 : 2000);
	return err;
}

static emdb_err op_xattr_set(struct store *s)
{
	return emdb_xattr_set(s->db, s->small, "user.c", value, 3000, 0);
}

static emdb_err op_xattr_set_big(struct store *s)
{
	return emdb_xattr_set(s->db, s->big, "user.b", "new", 3, 0);
}

static emdb_err op_xattr_remove(struct store *s)
{
	return emdb_xattr_remove(s->db, s->big, "user.b");
}

static emdb_err op_xattr_list(struct store *s)
{
	char buf[300];
	size_t n = 77;
	const emdb_err err = emdb_xattr_list(s->db, s->big, buf, sizeof(buf), &n);

	CHECK_UEQ(n, err ? 77 : 7);
	return err;
}

static emdb_err op_node_key(struct store *s)
{
	char buf[300];
	size_t n = 77;
	uint64_t parent;
	const emdb_err err = emdb_node_key(s->db, s->big, buf, sizeof(buf), &n, &parent);

	CHECK_UEQ(n, err ? 77 : 3);
	return err;
}

static emdb_err op_open_memory(struct store *s)
{
	emdb_db *db = UNTOUCHED;
	emdb_err err;

	(void)s;
	host.memory = true;
	err = emdb_open_memory(NULL, &db);
	if (err)
		CHECK(db == UNTOUCHED);
	else
		(void)emdb_close(db);
	host.memory = false;
	return err;
}

/* ---- The table ---- */

#define WRITES 0x1u /* the store is another one afterwards */
#define CLOSED 0x2u /* the store is not open meanwhile */
/* What cannot be read is what it looks for: CORRUPT then. */
#define REPORTS 0x10u
#define KILLED  0x4u  /* and was not closed in good order */
#define REPAIRS 0x40u /* the store does not open before, nor when half done */
#define ORDERED 0x20u /* opened with the ordered index */
#define MEMORY  0x8u  /* opens and closes files that are not the host's */

static const struct fault_op {
	const char *fn;   /* as in emdb.h */
	const char *what; /* when there are several of one */
	emdb_err (*run)(struct store *s);
	void (*prepare)(struct store *s);
	unsigned int flags;
} fault_ops[] = {
	{ "emdb_open", "", op_open, NULL, CLOSED },
	{ "emdb_open", "after a kill", op_open, NULL, CLOSED | KILLED },
	{ "emdb_open", "read-only", op_open_read_only, NULL, CLOSED },
	{ "emdb_open", "read-only after a kill", op_open_read_only, NULL, CLOSED | KILLED },
	{ "emdb_open", "new", op_create, NULL, CLOSED },
	{ "emdb_open_memory", "", op_open_memory, NULL, CLOSED | MEMORY },
	{ "emdb_close", "", op_close, prepare_unsynced, 0 },
	{ "emdb_lock_holder", "", op_lock_holder, NULL, 0 },
	{ "emdb_break_lock", "", op_break_lock, NULL, CLOSED | KILLED },
	{ "emdb_put", "new", op_put, NULL, WRITES },
	{ "emdb_put", "over a big one", op_put_over, NULL, WRITES },
	{ "emdb_put", "large", op_put_large, NULL, WRITES },
	{ "emdb_get", "", op_get, NULL, 0 },
	{ "emdb_get_ref", "", op_get_ref, NULL, 0 },
	{ "emdb_remove", "", op_remove, NULL, WRITES },
	{ "emdb_contains", "", op_contains, NULL, 0 },
	{ "emdb_count", "", op_count, NULL, 0 },
	{ "emdb_clear", "", op_clear, NULL, WRITES },
	{ "emdb_put_many", "", op_put_many, NULL, WRITES },
	{ "emdb_iter_new", "", op_iterate, NULL, 0 },
	{ "emdb_iter_next", "", op_iterate, NULL, 0 },
	{ "emdb_iter_next", "over changes", op_iterate_over_changes, NULL, WRITES },
	{ "emdb_iter_next", "over writes", op_iterate_over_writes, NULL, WRITES },
	{ "emdb_txn_commit", "", op_txn, NULL, WRITES },
	{ "emdb_txn_iter", "", op_txn_iter, NULL, 0 },
	{ "emdb_cas", "", op_cas, NULL, WRITES },
	{ "emdb_is_empty", "", op_is_empty, NULL, 0 },
	{ "emdb_group_iter", "", op_group_iter, prepare_group, 0 },
	{ "emdb_group_delete", "", op_group_delete, prepare_group, WRITES },
	{ "emdb_focus_set", "", op_focus, NULL, WRITES },
	{ "emdb_open_app", "", op_open_app, NULL, CLOSED },
	{ "emdb_put_ttl", "", op_put_ttl, NULL, WRITES },
	{ "emdb_ttl_remaining", "", op_remaining, NULL, 0 },
	{ "emdb_ttl_persist", "", op_persist, NULL, WRITES },
	{ "emdb_ttl_extend", "", op_extend, NULL, WRITES },
	{ "emdb_ns_ensure", "", op_ns_ensure, NULL, WRITES },
	{ "emdb_ns_create", "", op_ns_create, NULL, WRITES },
	{ "emdb_ns_open", "", op_ns_open, NULL, 0 },
	{ "emdb_ns_drop", "", op_ns_drop, NULL, WRITES },
	{ "emdb_ttl_get", "", op_ttl_get, NULL, 0 },
	{ "emdb_ttl_set", "", op_ttl_set, NULL, WRITES },
	{ "emdb_ttl_set", "past", op_ttl_past, NULL, WRITES },
	{ "emdb_ns_ttl_set", "", op_ns_ttl_set, NULL, WRITES },
	{ "emdb_ns_ttl_get", "", op_ns_ttl_get, NULL, 0 },
	{ "emdb_ns_basis_set", "", op_basis_set, NULL, WRITES },
	{ "emdb_ns_basis_get", "", op_basis_get, NULL, 0 },
	{ "emdb_sweep", "", op_sweep, NULL, WRITES },
	{ "emdb_flush", "", op_flush, prepare_unsynced, 0 },
	{ "emdb_flush_async", "", op_flush_async, prepare_unsynced, 0 },
	{ "emdb_checkpoint", "", op_checkpoint, prepare_unsynced, 0 },
	{ "emdb_compact", "", op_compact, NULL, 0 },
	{ "emdb_stats_get", "", op_stats, NULL, 0 },
	{ "emdb_space_get", "", op_space, NULL, 0 },
	{ "emdb_check", "", op_check, NULL, CLOSED | REPORTS },
	{ "emdb_scrub", "", op_scrub, prepare_unsynced, REPORTS },
	{ "emdb_snapshot_create", "", op_snapshot_create, NULL, WRITES },
	{ "emdb_snapshot_delete", "", op_snapshot_delete, NULL, WRITES },
	{ "emdb_snapshot_rename", "", op_snapshot_rename, NULL, WRITES },
	{ "emdb_snapshot_list", "", op_snapshot_list, NULL, 0 },
	{ "emdb_snapshot_list_at", "", op_snapshot_list_at, NULL, 0 },
	{ "emdb_snapshot_get", "", op_snapshot_get, NULL, 0 },
	{ "emdb_snapshot_open", "", op_snapshot_open, NULL, 0 },
	{ "emdb_backup", "", op_backup, NULL, 0 },
	{ "emdb_backup", "again", op_backup_again, NULL, 0 },
	{ "emdb_restore", "", op_restore, NULL, CLOSED },
	{ "emdb_rollback", "", op_rollback, NULL, CLOSED | WRITES },
	{ "emdb_node_lookup", "", op_lookup, NULL, 0 },
	{ "emdb_node_getattr", "", op_getattr, NULL, 0 },
	{ "emdb_node_setattr", "", op_setattr, NULL, WRITES },
	{ "emdb_node_setattr", "size", op_truncate, NULL, WRITES },
	{ "emdb_node_create", "", op_node_create, NULL, WRITES },
	{ "emdb_node_create_anon", "", op_create_anon, NULL, 0 },
	{ "emdb_node_link", "", op_link, NULL, WRITES },
	{ "emdb_node_unlink", "", op_unlink, NULL, WRITES },
	{ "emdb_node_rmdir", "", op_rmdir, NULL, WRITES },
	{ "emdb_node_rename", "", op_rename, NULL, WRITES },
	{ "emdb_node_rename", "directory", op_rename_dir, NULL, WRITES },
	{ "emdb_node_rename", "exchange", op_exchange, NULL, WRITES },
	{ "emdb_node_slices", "", op_slices, NULL, 0 },
	{ "emdb_node_read", "", op_read, NULL, 0 },
	{ "emdb_node_write", "", op_write, NULL, WRITES },
	{ "emdb_node_write", "small", op_write_small, NULL, WRITES },
	{ "emdb_node_write", "promotes", op_write_promote, NULL, WRITES },
	{ "emdb_node_fallocate", "", op_punch, NULL, WRITES },
	{ "emdb_node_seek", "", op_seek, NULL, 0 },
	{ "emdb_node_copy_range", "", op_copy_range, NULL, WRITES },
	{ "emdb_node_readdir", "", op_readdir, NULL, 0 },
	{ "emdb_xattr_get", "", op_xattr_get, NULL, 0 },
	{ "emdb_xattr_set", "", op_xattr_set, NULL, WRITES },
	{ "emdb_xattr_set", "big", op_xattr_set_big, NULL, WRITES },
	{ "emdb_xattr_remove", "", op_xattr_remove, NULL, WRITES },
	{ "emdb_xattr_list", "", op_xattr_list, NULL, 0 },
	{ "emdb_node_key", "", op_node_key, NULL, 0 },
};

/* What neither does I/O nor takes memory, or gives back what others took. */
static const char *const fault_exempt[] = {
	"emdb_strerror",    "emdb_err_name",  "emdb_err_errno",      "emdb_free",
	"emdb_ref_release", "emdb_iter_free", "emdb_slices_release", "emdb_node_forget",
	"emdb_now_ms",      "emdb_uuid",      "emdb_ttl_parse",      "emdb_duration_parse",
};

#endif
