/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store with keys, values and attributes of all sizes, every way to read it and to change it, and what may come of
 * that when pages of its segment are not there.
 */
#ifndef EMDB_TEST_BUS_OPS_H
#define EMDB_TEST_BUS_OPS_H

#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/segment_i.h"
#include "core/store.h"

#define PAGE   4096u
#define KEYS   24u
#define XATTR  3000u
#define LINKED "linked"

static char path[PATH_MAX + 16];
static const uint8_t raw[32] = "thirty-two bytes that are no key";
static const struct emdb_secret secret = { EMDB_SECRET_KEY, raw, 32, NULL, 0, 0, 0 };
static bool sealed; /* the store is encrypted */
static bool
	window; /* pages go only when what lies there has been verified: it may be too late to matter */

/* Which operation is at work, for who finds the body. */
static struct shared {
	char op[64];
	uint64_t page;
} * shared;

static emdb_db *open_flags(unsigned int flags)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags | EMDB_OPEN_ORDERED,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1,
					.commit_interval_s = -1,
					.compact_percent = -1,
					.secret = sealed ? &secret : NULL };
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

/* ---- The store ---------------------------------------------------------------------- */

struct key {
	char name[21000];
	size_t name_len, size;
	uint64_t begin, end; /* of its record in the segment */
};
static struct key keys[KEYS];
static uint8_t value[200000];

/* Keys that are short and long, values of all sizes: pages end in each of their parts. */
static void plan_keys(void)
{
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)(i * 7 + i / 251);
	for (unsigned int i = 0; i < KEYS; i++) {
		struct key *const k = &keys[i];
		const int n = snprintf(k->name, sizeof(k->name), "key%u-", i);

		k->name_len = i == 8 ? 20000 : i % 3 == 2 ? 1000 + i * 7 : (size_t)n;
		memset(k->name + n, 'k', sizeof(k->name) - (size_t)n);
		k->size = i % 4 == 3 ? 7000 : 100 + i * 37;
	}
}

static uint64_t ref_of(emdb_db *db, const struct key *k)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;

	CHECK_OK(entry_find_pinned(db, db->root, entry_hash(db, EMDB_ROOT, k->name, k->name_len),
				   k->name, k->name_len, true, &e));
	k = NULL;
	epoch_unpin(&db->epoch, pin);
	return e.ref;
}

static void make_store(void)
{
	struct emdb_attr a;
	uint64_t ns, lsn;
	emdb_db *db;

	plan_keys();
	snprintf(path, sizeof(path), "%s/store", test_dir());
	db = open_flags(EMDB_OPEN_CREATE);
	/* Before the keys, so that they are cut off before it: names must be there to be asked for. */
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "dir", 3, &ns));
	for (unsigned int i = 0; i < KEYS; i++) {
		CHECK_OK(emdb_put(db, EMDB_ROOT, keys[i].name, keys[i].name_len, value,
				  keys[i].size, 0));
		if (i % 5)
			continue;
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, keys[i].name, keys[i].name_len, &a));
		CHECK_OK(emdb_xattr_set(db, a.id, "user.large", value, i == 10 ? 30000 : XATTR, 0));
		emdb_node_forget(db, a.id, 1);
	}
	CHECK_OK(emdb_put(db, ns, "inner", 5, value, 5000, 0));
	CHECK_OK(emdb_put_many(db, ns,
			       (struct emdb_item[]){ { "m1", 2, value, 3000, 0, false },
						     { "m2", 2, value, 3000, 0, false } },
			       2));
	CHECK_OK(emdb_put(db, ns, "big", 3, value, sizeof(value), 0));
	CHECK_OK(emdb_node_lookup(db, ns, "big", 3, &a));
	CHECK_OK(emdb_xattr_set(db, a.id, "user.large", value, 6000, 0));
	CHECK_OK(emdb_node_link(db, a.id, EMDB_ROOT, LINKED, strlen(LINKED), &a));
	CHECK_OK(emdb_node_create(db, EMDB_ROOT, "sym", 3,
				  &(struct emdb_create){ .mode = S_IFLNK | 0777,
							 .target = value,
							 .target_len = 4000 },
				  &a));
	CHECK_OK(journal_roll(db->j, &lsn));
	CHECK_OK(journal_seal(db->j));
	for (unsigned int i = 0; i < KEYS; i++) {
		const uint64_t ref = ref_of(db, &keys[i]);
		const unsigned int pin = epoch_pin(&db->epoch);

		keys[i].begin = ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1);
		keys[i].end = keys[i].begin + journal_size_pinned(db->j, ref);
		epoch_unpin(&db->epoch, pin);
	}
	CHECK_OK(emdb_close(db));
}

static int segment_fd(void)
{
	char file[PATH_MAX + 80];
	int fd;

	snprintf(file, sizeof(file), "%s/journal/0000000000000001.seg", path);
	fd = open(file, O_RDWR);
	CHECK(fd >= 0);
	return fd;
}

/* ---- What may come back -------------------------------------------------------------- */

/* Bytes of the segment that are not there. */
static uint64_t miss_from, miss_to;

static bool is_whole(const struct key *k)
{
	return k->end <= miss_from || k->begin >= miss_to;
}

static bool is_lost(emdb_err err)
{
	return err == EMDB_ERR_IO || err == EMDB_ERR_CORRUPT;
}

static void expect_good_or_lost(emdb_err err)
{
	if (err && !is_lost(err))
		FAIL("%s without %" PRIu64 "..%" PRIu64 ": %s", shared->op, miss_from, miss_to,
		     emdb_err_name(err));
}

/*
 * What is whole must be there; what is not must be an error, unless it has been opened and
 * is kept: the caller looks at its bytes.
 */
static void expect_key(const struct key *k, emdb_err err)
{
	if ((sealed || window) && !err)
		return;
	if (is_whole(k) ? err != EMDB_OK : !is_lost(err))
		FAIL("%s of %.10s at %" PRIu64 "..%" PRIu64 " without %" PRIu64 "..%" PRIu64 ": %s",
		     shared->op, k->name, k->begin, k->end, miss_from, miss_to, emdb_err_name(err));
}

static void in(const char *op)
{
	snprintf(shared->op, sizeof(shared->op), "%s", op);
}

/* ---- Reading --------------------------------------------------------------------------- */

static void read_keys(emdb_db *db)
{
	for (unsigned int i = 0; i < KEYS; i++) {
		const struct key *const k = &keys[i];
		struct emdb_ref ref;
		void *p = NULL;
		bool there;
		size_t n;
		emdb_err err;

		in("get");
		err = emdb_get(db, EMDB_ROOT, k->name, k->name_len, &p, &n);
		expect_key(k, err);
		if (!err) {
			CHECK_MEM(p, n, value, k->size);
			emdb_free(p);
		}
		in("get_ref");
		err = emdb_get_ref(db, EMDB_ROOT, k->name, k->name_len, &ref);
		expect_good_or_lost(err);
		if (!err && is_whole(k))
			CHECK_MEM(ref.data, ref.len, value, k->size);
		if (!err)
			emdb_ref_release(&ref);
		in("contains");
		expect_good_or_lost(emdb_contains(db, EMDB_ROOT, k->name, k->name_len, &there));
	}
}

static void read_ttl(emdb_db *db)
{
	int64_t ms;

	in("ttl_get");
	for (unsigned int i = 0; i < KEYS; i++) {
		const emdb_err err =
			emdb_ttl_get(db, EMDB_ROOT, keys[i].name, keys[i].name_len, &ms);

		expect_good_or_lost(err);
		if (is_whole(&keys[i]))
			CHECK_OK(err);
	}
}

/* Walks to the end, whatever comes on the way; returns how many entries were whole. */
static unsigned int walk(emdb_iter *it)
{
	unsigned int good = 0, errors = 0;
	struct emdb_entry e;
	emdb_err err;

	while ((err = emdb_iter_next(it, &e)) != EMDB_ERR_NOT_FOUND) {
		expect_good_or_lost(err);
		good += err == EMDB_OK;
		errors += err != EMDB_OK;
		CHECK(errors < 1000);
	}
	emdb_iter_free(it);
	return good;
}

static unsigned int whole_keys(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < KEYS; i++)
		n += is_whole(&keys[i]);
	return n;
}

static void read_iterators(emdb_db *db)
{
	const struct emdb_range back = { .size = sizeof(back),
					 .flags = EMDB_RANGE_REVERSE | EMDB_ITER_VALUES,
					 .prefix = "key",
					 .prefix_len = 3 };
	emdb_iter *it;
	emdb_err err;

	in("iter");
	CHECK_OK(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_VALUES, &it));
	CHECK(walk(it) >= whole_keys());
	in("iter live");
	CHECK_OK(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_VALUES | EMDB_ITER_LIVE, &it));
	CHECK(walk(it) >= whole_keys());
	in("iter keys");
	CHECK_OK(emdb_iter_new(db, EMDB_ROOT, EMDB_ITER_KEYS, &it));
	CHECK(walk(it) >= whole_keys());
	in("range");
	err = emdb_range_new(db, EMDB_ROOT, &back, &it);
	CHECK_OK(err);
	CHECK(walk(it) >= whole_keys());
	in("group");
	CHECK_OK(emdb_group_iter(db, EMDB_ROOT, "key1", 4, EMDB_ITER_VALUES, &it));
	(void)walk(it);
}

static void read_stream(emdb_db *db)
{
	struct emdb_entry e;
	unsigned int good = 0;
	emdb_stream *st;
	emdb_async *q;
	emdb_err err;

	in("stream");
	CHECK_OK(emdb_async_new(db, NULL, &q));
	CHECK_OK(emdb_stream_iter(q, EMDB_ROOT, EMDB_ITER_VALUES, NULL, &st));
	while ((err = emdb_stream_next(st, 5000, &e)) != EMDB_ERR_NOT_FOUND) {
		expect_good_or_lost(err);
		good += err == EMDB_OK;
		if (err == EMDB_ERR_IO)
			break;
	}
	emdb_stream_free(st);
	emdb_async_free(q);
	CHECK(err == EMDB_ERR_IO || good >= whole_keys());
}

static void read_txn(emdb_db *db)
{
	emdb_iter *it;
	emdb_txn *t;
	bool there;

	in("txn");
	CHECK_OK(emdb_txn_begin(db, NULL, &t));
	for (unsigned int i = 0; i < KEYS; i++) {
		void *p = NULL;
		size_t n;
		const emdb_err err =
			emdb_txn_get(t, EMDB_ROOT, keys[i].name, keys[i].name_len, &p, &n);

		expect_key(&keys[i], err);
		if (!err) {
			CHECK_MEM(p, n, value, keys[i].size);
			emdb_free(p);
		}
		expect_good_or_lost(
			emdb_txn_contains(t, EMDB_ROOT, keys[i].name, keys[i].name_len, &there));
	}
	in("txn iter");
	CHECK_OK(emdb_txn_iter(t, EMDB_ROOT, EMDB_ITER_VALUES, &it));
	(void)walk(it);
	emdb_txn_abort(t);
}

static bool take_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		       uint64_t next)
{
	unsigned int *const sum = ctx;

	(void)attr, (void)next;
	for (size_t i = 0; i < key_len; i++)
		*sum += ((const uint8_t *)key)[i];
	return true;
}

/* All that a file system asks of one entry. */
static void read_node(emdb_db *db, uint64_t parent, const char *name, size_t len)
{
	static uint8_t buf[sizeof(value) + PAGE];
	char text[1024];
	struct emdb_slices slices;
	struct emdb_attr a;
	uint64_t off;
	size_t n;
	emdb_err err;

	in("lookup");
	err = emdb_node_lookup(db, parent, name, len, &a);
	expect_good_or_lost(err);
	if (err)
		return;
	in("getattr");
	expect_good_or_lost(emdb_node_getattr(db, a.id, &a));
	in("node_read");
	err = emdb_node_read(db, a.id, 0, buf, sizeof(buf), &n);
	expect_good_or_lost(err);
	if (!err)
		CHECK_MEM(buf, n, value, a.size);
	in("slices");
	err = emdb_node_slices(db, a.id, 0, sizeof(buf), &slices);
	expect_good_or_lost(err);
	if (!err)
		emdb_slices_release(db, &slices);
	in("seek");
	err = emdb_node_seek(db, a.id, 0, true, &off);
	if (err != EMDB_ERR_RANGE && err != EMDB_ERR_INVAL)
		expect_good_or_lost(err);
	in("xattr_get");
	err = emdb_xattr_get(db, a.id, "user.large", buf, sizeof(buf), &n);
	if (err != EMDB_ERR_NO_XATTR)
		expect_good_or_lost(err);
	if (!err)
		CHECK_MEM(buf, n, value, n);
	in("xattr_list");
	expect_good_or_lost(emdb_xattr_list(db, a.id, text, sizeof(text), &n));
	in("node_key");
	err = emdb_node_key(db, a.id, buf, sizeof(buf), &n, NULL);
	expect_good_or_lost(err);
	in("forget");
	emdb_node_forget(db, a.id, 1);
}

static void read_nodes(emdb_db *db)
{
	unsigned int sum = 0;
	uint64_t ns;

	for (unsigned int i = 0; i < KEYS; i++)
		read_node(db, EMDB_ROOT, keys[i].name, keys[i].name_len);
	read_node(db, EMDB_ROOT, LINKED, strlen(LINKED));
	read_node(db, EMDB_ROOT, "sym", 3);
	in("ns_open");
	if (emdb_ns_open(db, EMDB_ROOT, "dir", 3, &ns) == EMDB_OK) {
		read_node(db, ns, "inner", 5);
		read_node(db, ns, "m1", 2);
		read_node(db, ns, "m2", 2);
		read_node(db, ns, "big", 3);
	}
	in("readdir");
	expect_good_or_lost(emdb_node_readdir(db, EMDB_ROOT, 0, 0, take_entry, &sum));
	CHECK(sum > 0);
}

static void read_whole(emdb_db *db)
{
	struct emdb_scrub_report r;
	struct emdb_stats st;
	uint64_t n;
	bool empty;

	in("count");
	CHECK_OK(emdb_count(db, EMDB_ROOT, &n));
	in("is_empty");
	expect_good_or_lost(emdb_is_empty(db, EMDB_ROOT, &empty));
	in("stats");
	CHECK_OK(emdb_stats_get(db, &st));
	in("scrub");
	CHECK_EQ(emdb_scrub(db, NULL, &r), EMDB_ERR_CORRUPT);
}

static void read_all(emdb_db *db)
{
	read_keys(db);
	read_ttl(db);
	read_iterators(db);
	read_stream(db);
	read_txn(db);
	read_nodes(db);
}

/* ---- Changing ---------------------------------------------------------------------------- */

struct change {
	const char *name;
	void (*run)(emdb_db *db, const struct key *k);
};

static uint64_t id_of(emdb_db *db, const char *name, size_t len)
{
	struct emdb_attr a;

	return emdb_node_lookup(db, EMDB_ROOT, name, len, &a) ? 0 : a.id;
}

static void do_put(emdb_db *db, const struct key *k)
{
	expect_good_or_lost(emdb_put(db, EMDB_ROOT, k->name, k->name_len, "new", 3, 0));
}

static void do_remove(emdb_db *db, const struct key *k)
{
	void *p = NULL;
	size_t n;
	const emdb_err err = emdb_remove(db, EMDB_ROOT, k->name, k->name_len, &p, &n);

	expect_good_or_lost(err);
	if (!err)
		emdb_free(p);
}

static void do_cas(emdb_db *db, const struct key *k)
{
	const struct emdb_value old = { value, k->size }, new = { "x", 1 };

	expect_good_or_lost(emdb_cas(db, EMDB_ROOT, k->name, k->name_len, &old, &new, 0));
}

static void do_many(emdb_db *db, const struct key *k)
{
	const struct emdb_item items[] = { { k->name, k->name_len, value, 10, 0, false },
					   { "fresh", 5, value, 10, 0, false } };

	expect_good_or_lost(emdb_put_many(db, EMDB_ROOT, items, 2));
}

static void do_txn(emdb_db *db, const struct key *k)
{
	emdb_err err;
	emdb_txn *t;

	CHECK_OK(emdb_txn_begin(db, NULL, &t));
	err = emdb_txn_put(t, EMDB_ROOT, k->name, k->name_len, "new", 3, 0);
	expect_good_or_lost(err);
	expect_good_or_lost(emdb_txn_commit(t, 0));
}

static void do_ttl(emdb_db *db, const struct key *k)
{
	expect_good_or_lost(
		emdb_ttl_set(db, EMDB_ROOT, k->name, k->name_len, INT64_C(4000000000000)));
}

static void do_rename(emdb_db *db, const struct key *k)
{
	expect_good_or_lost(emdb_node_rename(db, EMDB_ROOT, k->name, k->name_len, EMDB_ROOT,
					     "elsewhere", 9, 0));
}

static void do_replace(emdb_db *db, const struct key *k)
{
	expect_good_or_lost(emdb_put(db, EMDB_ROOT, "source", 6, "s", 1, 0));
	expect_good_or_lost(
		emdb_node_rename(db, EMDB_ROOT, "source", 6, EMDB_ROOT, k->name, k->name_len, 0));
}

static void do_link(emdb_db *db, const struct key *k)
{
	const uint64_t id = id_of(db, k->name, k->name_len);
	struct emdb_attr a;

	if (id)
		expect_good_or_lost(emdb_node_link(db, id, EMDB_ROOT, "second", 6, &a));
}

static void do_unlink(emdb_db *db, const struct key *k)
{
	expect_good_or_lost(emdb_node_unlink(db, EMDB_ROOT, k->name, k->name_len, NULL));
}

static void do_chmod(emdb_db *db, const struct key *k)
{
	const struct emdb_attr want = { .mode = 0600 };
	const uint64_t id = id_of(db, k->name, k->name_len);
	struct emdb_attr a;

	if (id)
		expect_good_or_lost(emdb_node_setattr(db, id, &want, EMDB_SET_MODE, &a));
}

static void do_write(emdb_db *db, const struct key *k)
{
	const uint64_t id = id_of(db, k->name, k->name_len);

	if (id)
		expect_good_or_lost(emdb_node_write(db, id, 50, "inside", 6, 0));
}

static void do_truncate(emdb_db *db, const struct key *k)
{
	const struct emdb_attr want = { .size = 20 };
	const uint64_t id = id_of(db, k->name, k->name_len);
	struct emdb_attr a;

	if (id)
		expect_good_or_lost(emdb_node_setattr(db, id, &want, EMDB_SET_SIZE, &a));
}

static void do_fallocate(emdb_db *db, const struct key *k)
{
	const uint64_t id = id_of(db, k->name, k->name_len);

	if (id)
		expect_good_or_lost(emdb_node_fallocate(db, id, 10, 50, EMDB_FALLOC_PUNCH_HOLE));
}

static void do_copy_range(emdb_db *db, const struct key *k)
{
	const uint64_t id = id_of(db, k->name, k->name_len);
	uint64_t to, n;

	expect_good_or_lost(emdb_put(db, EMDB_ROOT, "target", 6, "t", 1, 0));
	to = id_of(db, "target", 6);
	if (id && to)
		expect_good_or_lost(emdb_node_copy_range(db, id, 0, to, 0, 80, &n));
}

static void do_xattr(emdb_db *db, const struct key *k)
{
	const uint64_t id = id_of(db, k->name, k->name_len);
	emdb_err err;

	if (!id)
		return;
	expect_good_or_lost(emdb_xattr_set(db, id, "user.b", "b", 1, 0));
	err = emdb_xattr_remove(db, id, "user.large");
	if (err != EMDB_ERR_NO_XATTR)
		expect_good_or_lost(err);
}

static void do_big(emdb_db *db, const struct key *k)
{
	const uint64_t id = id_of(db, LINKED, strlen(LINKED));

	(void)k;
	if (!id)
		return;
	expect_good_or_lost(emdb_node_write(db, id, 70000, "inside", 6, 0));
	expect_good_or_lost(emdb_xattr_set(db, id, "user.c", "c", 1, 0));
}

static void do_dir(emdb_db *db, const struct key *k)
{
	(void)k;
	expect_good_or_lost(emdb_node_rename(db, EMDB_ROOT, "dir", 3, EMDB_ROOT, "moved", 5, 0));
	expect_good_or_lost(emdb_ns_drop(db, EMDB_ROOT, "moved", 5, true) == EMDB_ERR_NOT_FOUND
				    ? EMDB_OK
				    : EMDB_ERR_IO);
}

static void do_clear(emdb_db *db, const struct key *k)
{
	(void)k;
	expect_good_or_lost(emdb_clear(db, EMDB_ROOT));
}

static void do_group(emdb_db *db, const struct key *k)
{
	(void)k;
	expect_good_or_lost(emdb_group_delete(db, EMDB_ROOT, "key1", 4, NULL));
}

static void do_compact(emdb_db *db, const struct key *k)
{
	/* Something of it must be dead. */
	for (unsigned int i = 0; i < KEYS / 2; i++)
		(void)!emdb_remove(db, EMDB_ROOT, keys[i * 2].name, keys[i * 2].name_len, NULL,
				   NULL);
	(void)k;
	expect_good_or_lost(emdb_compact(db, NULL, NULL));
}

static void do_checkpoint(emdb_db *db, const struct key *k)
{
	(void)k;
	expect_good_or_lost(emdb_checkpoint(db));
}

static void do_snapshot(emdb_db *db, const struct key *k)
{
	emdb_db *snap;
	emdb_err err;

	(void)k;
	CHECK_OK(emdb_snapshot_create(db, "snap", NULL));
	err = emdb_snapshot_open(db, "snap", NULL, &snap);
	if (err != EMDB_ERR_DAMAGED)
		expect_good_or_lost(err);
	if (!err)
		CHECK_OK(emdb_close(snap));
}

static void do_backup(emdb_db *db, const struct key *k)
{
	char target[PATH_MAX + 32];
	const struct emdb_backup_options o = { .size = sizeof(o), .flags = EMDB_BACKUP_COPY };

	(void)k;
	snprintf(target, sizeof(target), "%s.backup", path);
	/* It reads the files: only what is missing there matters. */
	CHECK(is_lost(emdb_backup(db, target, &o, NULL)) == (miss_to == UINT64_MAX));
}

static void do_sweep(emdb_db *db, const struct key *k)
{
	uint64_t n;

	expect_good_or_lost(emdb_ttl_set(db, EMDB_ROOT, k->name, k->name_len, 1));
	expect_good_or_lost(emdb_sweep(db, &n));
}

static const struct change changes[] = {
	{ "put", do_put },
	{ "remove", do_remove },
	{ "cas", do_cas },
	{ "put_many", do_many },
	{ "txn_commit", do_txn },
	{ "ttl_set", do_ttl },
	{ "rename", do_rename },
	{ "rename over", do_replace },
	{ "link", do_link },
	{ "unlink", do_unlink },
	{ "setattr", do_chmod },
	{ "write", do_write },
	{ "truncate", do_truncate },
	{ "fallocate", do_fallocate },
	{ "copy_range", do_copy_range },
	{ "xattr_set", do_xattr },
	{ "write to a big one", do_big },
	{ "a namespace", do_dir },
	{ "clear", do_clear },
	{ "group_delete", do_group },
	{ "compact", do_compact },
	{ "checkpoint", do_checkpoint },
	{ "snapshot", do_snapshot },
	{ "backup", do_backup },
	{ "sweep", do_sweep },
};

#endif
