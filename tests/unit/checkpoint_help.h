/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of checkpoints share: a store, all that it holds as text, and damage. */
#ifndef EMDB_TEST_CHECKPOINT_HELP_H
#define EMDB_TEST_CHECKPOINT_HELP_H

#include "tests/unit/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "core/checkpoint.h"
#include "core/compact.h"
#include "core/store.h"

/* ---- A store ---- */

static char path[PATH_MAX + 8];
static _Atomic(unsigned int) warnings;

static void on_log(void *ctx, enum emdb_log_level level, const char *message)
{
	(void)ctx;
	if (getenv("VERBOSE"))
		printf("%s\n", message);
	if (level >= EMDB_LOG_WARN)
		warnings++;
}

static emdb_err store_try(unsigned int flags, emdb_db **ret)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options opts = { .size = sizeof(opts),
					   .flags = flags,
					   .segment_bytes = EMDB_SEGMENT_MIN,
					   .sweep_interval_ms = flags & EMDB_OPEN_CREATE ? 5 : -1,
					   .commit_interval_s = -1,
					   .log = on_log,
					   .detail = &detail };
	const emdb_err err = emdb_open(path, &opts, ret);

	if (err && err != EMDB_ERR_NOMEM)
		printf("open: %s: %s\n", emdb_err_name(err), detail.text);
	return err;
}

static emdb_db *store_open(unsigned int flags)
{
	emdb_db *db = NULL;

	CHECK_OK(store_try(flags, &db));
	return db;
}

static emdb_db *store_new(const char *dir)
{
	snprintf(path, sizeof(path), "%s/store", dir);
	return store_open(EMDB_OPEN_CREATE);
}

/* What the manifest names. */
static struct journal_checkpoint current(void)
{
	emdb_db *const db = store_open(EMDB_OPEN_READ_ONLY);
	struct journal_checkpoint c;

	journal_checkpoint_get(db->j, &c);
	CHECK_OK(emdb_close(db));
	return c;
}

static void file_name(uint64_t number, char buf[PATH_MAX + 72])
{
	char name[CHECKPOINT_NAME_SIZE];

	checkpoint_name(number, name);
	snprintf(buf, PATH_MAX + 72, "%s/%s", path, name);
}

/* ---- Everything there is, as text ---- */

/* Bytes per segment that everything in memory refers to, by segment id. */
#define SEGS 4096u
static uint64_t counted[SEGS];

static void count_bytes(emdb_db *db, uint64_t ref, uint64_t n)
{
	const uint64_t id = ref_lsn(ref) >> db->sb.segment_shift;

	CHECK(id < SEGS);
	counted[id] += n;
}

static void dump_segments(emdb_db *db, FILE *f)
{
	static struct journal_seg_info segs[SEGS];
	const size_t n = journal_segments(db->j, segs, ARRAY_SIZE(segs));

	CHECK(n <= ARRAY_SIZE(segs));
	for (size_t i = 0; i < n; i++)
		fprintf(f, "segment %" PRIu64 " live %" PRIu64 " counted %" PRIu64 "\n", segs[i].id,
			segs[i].live, counted[segs[i].id]);
}

static void dump_ns(emdb_db *db, const struct ns *ns, FILE *f)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	if (!ns->attached || ns->dead)
		return;
	fprintf(f,
		"ns %" PRIu64 " parent %" PRIu64 " hash %" PRIx64 " ref %" PRIx64 " touch %" PRIx64
		" subdirs %" PRIu64 " times %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
		" ttl %" PRId64 " %u mode %o %u %u count %" PRIu64 "\n",
		ns->id, ns->parent, ns->hash, ns->ref, ns->touch_lsn, ns->subdirs, ns->mtime,
		ns->ctime, ns->atime, ns->btime, ns->ttl_default_ms, ns->ttl_basis, ns->mode,
		ns->uid, ns->gid, hidx_count(&ns->idx));
	CHECK(hidx_check(&ns->idx));
	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++) {
			struct entry e;

			fprintf(f, "  %" PRIx64 " %" PRIx64 "\n", slots[i].hash, slots[i].value);
			CHECK_OK(entry_read_pinned(db, slots[i].hash, slots[i].value, true, &e));
			CHECK_UEQ(e.rec.ns, ns->id);
			count_bytes(db, e.ref, ref_size_pinned(db, e.ref));
			CHECK_UEQ(entry_hash(db, ns->id, e.rec.key, e.rec.key_len), slots[i].hash);
		}
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
}

static void dump_spaces(emdb_db *db, FILE *f)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	size_t n;

	dump_ns(db, db->root, f);
	while ((n = hidx_walk_pinned(&db->nstab, hash, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			dump_ns(db, (const struct ns *)(uintptr_t)slots[i].value, f);
		hash = slots[n - 1].hash + 1;
	}
}

static int link_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct link));
}

static int id_cmp(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void dump_big(emdb_db *db, uint64_t id, struct big *b, FILE *f)
{
	struct extent_cursor at;
	struct extent e;

	fprintf(f,
		"object %" PRIu64 " size %" PRIu64 " times %" PRId64 " %" PRId64 " %" PRId64
		" %" PRId64 " expires %" PRId64 " rdev %" PRIu64 " inode %" PRIx64 " touch %" PRIx64
		" mode %o %u %u\n",
		id, b->size, b->mtime, b->ctime, b->atime, b->btime, b->expires_ms, b->rdev,
		b->inode_ref, b->touch_lsn, b->mode, b->uid, b->gid);
	if (b->nlinks)
		qsort(b->links, b->nlinks, sizeof(*b->links), link_cmp);
	for (uint32_t i = 0; i < b->nlinks; i++)
		fprintf(f, "  link %" PRIu64 " %" PRIx64 "\n", b->links[i].ns, b->links[i].hash);
	CHECK(extmap_check(&b->map));
	extmap_seek(&b->map, 0, &at);
	if (b->inode_ref)
		count_bytes(db, b->inode_ref, ref_size_pinned(db, b->inode_ref));
	while (extmap_next(&b->map, &at, &e)) {
		count_bytes(db, e.ref, e.len);
		fprintf(f, "  extent %" PRIu64 " %u %" PRIx64 " %u\n", e.off, e.len, e.ref, e.skip);
	}
}

static void dump_objects(emdb_db *db, FILE *f)
{
	struct buf ids = BUF_INIT;

	for (size_t i = 0; i < STORE_SHARDS; i++)
		CHECK_OK(objtab_big_ids(db, i, &ids));
	if (ids.len)
		qsort(ids.data, ids.len / 8, 8, id_cmp);
	for (size_t i = 0; i < ids.len; i += 8) {
		struct obj_view v;
		uint64_t id;

		memcpy(&id, ids.data + i, 8);
		CHECK(objtab_get_pinned(db, id, &v) && v.big);
		dump_big(db, id, v.big, f);
	}
	buf_release(&ids);
}

/* Every entry with a deadline has an item in the queue that is due no later. */
struct deadline {
	uint64_t ns, hash;
	int64_t ms;
};

static int deadline_cmp(const void *a, const void *b)
{
	const struct deadline *const x = a, *const y = b;

	if (x->ns != y->ns)
		return x->ns < y->ns ? -1 : 1;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->ms < y->ms ? -1 : x->ms > y->ms;
}

static void check_queue_of(emdb_db *db, const struct ns *ns, const struct deadline *d, size_t count)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	size_t n;

	while (ns->attached && (n = hidx_walk_pinned(&ns->idx, hash, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++) {
			size_t lo = 0, hi = count;
			struct entry e;
			int64_t ms;

			CHECK_OK(entry_read_pinned(db, slots[i].hash, slots[i].value, true, &e));
			ms = entry_expires_pinned(db, &e);
			if (!ms)
				continue;
			while (lo < hi) {
				const size_t mid = lo + (hi - lo) / 2;

				if (d[mid].ns < ns->id ||
				    (d[mid].ns == ns->id && d[mid].hash < slots[i].hash))
					lo = mid + 1;
				else
					hi = mid;
			}
			CHECK(lo < count && d[lo].ns == ns->id && d[lo].hash == slots[i].hash &&
			      d[lo].ms <= ms);
		}
		hash = slots[n - 1].hash + 1;
	}
}

/* Takes the queue apart: the store is closed afterwards. */
static void check_queue(emdb_db *db)
{
	struct hidx_slot slots[STORE_WALK];
	const size_t count = db->ttl.count;
	struct deadline *const d = calloc(count + 1, sizeof(*d));
	struct ttl_item item;
	uint64_t hash = 0;
	size_t n = 0;

	CHECK(d && ttl_heap_check(&db->ttl));
	while (ttl_heap_pop(&db->ttl, &item))
		d[n++] = (struct deadline){ item.ns, item.hash, item.expires_ms };
	CHECK_UEQ(n, count);
	qsort(d, count, sizeof(*d), deadline_cmp);
	check_queue_of(db, db->root, d, count);
	while ((n = hidx_walk_pinned(&db->nstab, hash, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			check_queue_of(db, (const struct ns *)(uintptr_t)slots[i].value, d, count);
		hash = slots[n - 1].hash + 1;
	}
	free(d);
}

static char *dump_of(emdb_db *db)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	char *text = NULL;
	size_t n = 0;
	FILE *const f = open_memstream(&text, &n);

	CHECK(f);
	memset(counted, 0, sizeof(counted));
	if (db->root->ref)
		count_bytes(db, db->root->ref, ref_size_pinned(db, db->root->ref));
	fprintf(f, "records %" PRIu64 " namespaces %" PRIu64 "\n", db->records, db->namespaces);
	dump_spaces(db, f);
	dump_objects(db, f);
	dump_segments(db, f);
	fclose(f);
	epoch_unpin(&db->epoch, pin);
	return text;
}

/* Opens read-only, which changes nothing on disk, and says what is there. */
static char *dump(bool whole)
{
	emdb_db *const db = store_open(EMDB_OPEN_READ_ONLY);
	char *const text = dump_of(db);

	CHECK(!db->ckpt.settle);
	if (whole) {
		const unsigned int pin = epoch_pin(&db->epoch);

		check_queue(db);
		epoch_unpin(&db->epoch, pin);
	}
	CHECK_OK(emdb_close(db));
	return text;
}

static void same(const char *a, const char *b, const char *what)
{
	const char *at = a;
	size_t i = 0;

	while (a[i] && a[i] == b[i]) {
		if (a[i] == '\n')
			at = a + i + 1;
		i++;
	}
	if (a[i] == b[i])
		return;
	printf("%s: wanted\n%.*s\n", what, (int)strcspn(at, "\n"), at);
	FAIL("got\n%.*s", (int)strcspn(b + (at - a), "\n"), b + (at - a));
}

/* ---- Damage ---- */

static uint64_t file_size(const char *name)
{
	struct stat st;

	CHECK_OK(stat(name, &st));
	return (uint64_t)st.st_size;
}

static void flip(const char *name, uint64_t at, uint8_t bits)
{
	const int fd = open(name, O_RDWR | O_CLOEXEC);
	uint8_t b;

	CHECK(fd >= 0 && pread(fd, &b, 1, (off_t)at) == 1);
	b ^= bits;
	CHECK(pwrite(fd, &b, 1, (off_t)at) == 1);
	close(fd);
}

static void hide(uint64_t number, bool back)
{
	char name[PATH_MAX + 72], away[PATH_MAX + 80];

	file_name(number, name);
	snprintf(away, sizeof(away), "%s.away", name);
	CHECK_OK(back ? rename(away, name) : rename(name, away));
}

/* The three ways to the state give one state. */
static void check_ways(uint64_t *rnd)
{
	const struct journal_checkpoint c = current();
	char *full, *text;
	char name[PATH_MAX + 72];
	uint64_t at;

	if (!c.number)
		return; /* dead before the first */
	hide(c.number, false);
	if (c.prev_number)
		hide(c.prev_number, false);
	warnings = 0;
	full = dump(true);
	CHECK_UEQ(warnings, c.prev_number ? 2 : 1);
	hide(c.number, true);
	if (c.prev_number)
		hide(c.prev_number, true);

	warnings = 0;
	text = dump(true);
	CHECK_UEQ(warnings, 0);
	same(full, text, "from the checkpoint");
	free(text);

	file_name(c.number, name);
	at = test_rand(rnd) % file_size(name);
	flip(name, at, 0x10);
	warnings = 0;
	text = dump(true);
	CHECK_UEQ(warnings, 1);
	flip(name, at, 0x10);
	same(full, text, "from the one before");
	free(text);
	free(full);
}

#endif
