/* SPDX-License-Identifier: Apache-2.0 */
/* What rots on the disk of a store that is open: what it writes afterwards is right all the same. */
#include "tests/unit/damage_help.h"

static struct told told;
static struct emdb_repair_report report;

/* ---- A checkpoint of what cannot be read ---------------------------------------- */

/* More than one look of the checkpoint's has, in one namespace. */
#define DIRS 400u

struct world {
	uint64_t dir, many, first; /* first: of the spaces in many */
	uint64_t dir_ref, link3_ref, many_ref[DIRS], link_ref[DIRS];
	uint64_t big;
};

static void name_of(char *buf, char kind, unsigned int i)
{
	(void)snprintf(buf, 16, "%c%u", kind, i);
}

/* "dir" with a key; a file of three names; many namespaces beside many names of another file, and keys. */
static void make_world(struct world *w)
{
	emdb_db *const db = store_new();
	struct emdb_attr attr;
	char name[16];

	w->dir = mkns(db, EMDB_ROOT, "dir");
	put(db, w->dir, "x", "in dir");
	put(db, EMDB_ROOT, "one", "linked");
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "one", 3, &attr));
	w->big = attr.id;
	CHECK_OK(emdb_node_link(db, attr.id, EMDB_ROOT, "two", 3, &attr));
	/* Of a frame of its own. */
	CHECK_OK(emdb_node_link(db, attr.id, EMDB_ROOT, "three", 5, &attr));
	w->dir_ref = ref_of(db, EMDB_ROOT, "dir");
	w->link3_ref = ref_of(db, EMDB_ROOT, "three");
	w->many = mkns(db, EMDB_ROOT, "many");
	for (unsigned int i = 0; i < DIRS; i++) {
		uint64_t id;

		name_of(name, 'd', i);
		id = mkns(db, w->many, name);
		if (i == 0)
			w->first = id;
		put(db, id, "x", name);
		w->many_ref[i] = ref_of(db, w->many, name);
		name_of(name, 'l', i);
		CHECK_OK(emdb_node_link(db, w->big, w->many, name, strlen(name), &attr));
		w->link_ref[i] = ref_of(db, w->many, name);
		name_of(name, 'k', i);
		put(db, w->many, name, "value");
	}
	CHECK_OK(emdb_close(db));
}

static void counts_of(emdb_db *db, struct emdb_stats *st)
{
	memset(st, 0, sizeof(*st));
	CHECK_OK(emdb_stats_get(db, st));
}

/* The newest checkpoint is there and is what opens the store, which no replay needs to: nothing is behind it. */
static emdb_db *open_by_checkpoint(unsigned int flags, const struct emdb_stats *want)
{
	emdb_db *const db = store_open(flags);
	struct emdb_stats st;

	CHECK_UEQ(db->replayed_records, 0);
	CHECK(!db->damaged);
	counts_of(db, &st);
	CHECK_UEQ(st.records, want->records);
	CHECK_UEQ(st.namespaces, want->namespaces);
	CHECK_UEQ(st.objects, want->objects);
	return db;
}

static void expect_lost(emdb_db *db, uint64_t ns, const char *key)
{
	struct emdb_attr attr;

	CHECK_EQ(emdb_node_lookup(db, ns, key, strlen(key), &attr), EMDB_ERR_CORRUPT);
}

/* Writes a checkpoint beside what was spoiled, and opens the store by it; *st is what it had before. */
static emdb_db *checkpointed(emdb_db *db, const struct world *w, struct emdb_stats *st)
{
	put(db, w->dir, "y", "later");
	st->records++;
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_close(db));
	return open_by_checkpoint(0, st);
}

TEST(test_rot__checkpoint_of_a_namespace_without_its_record)
{
	struct emdb_stats st;
	struct world w;
	emdb_db *db;

	make_world(&w);
	db = store_open(0);
	counts_of(db, &st);
	spoil(w.dir_ref, 0);
	db = checkpointed(db, &w, &st);
	expect(db, w.dir, "x", "in dir");
	expect(db, w.dir, "y", "later");
	expect(db, EMDB_ROOT, "one", "linked");
	expect_lost(db, EMDB_ROOT, "dir");
	CHECK_OK(emdb_close(db));
	/* Told by name, and by repair put right. */
	CHECK_EQ(check_store(&told), EMDB_ERR_CORRUPT);
	CHECK(told_of(&told, EMDB_DAMAGE_META, "dir"));
	CHECK_OK(repair_with(NULL, &told, &report));
	CHECK_UEQ(report.renamed, 1);
	db = store_open(0);
	expect(db, w.dir, "y", "later");
	CHECK_OK(emdb_close(db));
}

TEST(test_rot__checkpoint_of_a_link_without_its_record)
{
	struct emdb_stats st;
	struct emdb_attr attr;
	struct world w;
	emdb_db *db;

	make_world(&w);
	db = store_open(0);
	counts_of(db, &st);
	spoil(w.link3_ref, 0);
	db = checkpointed(db, &w, &st);
	expect_lost(db, EMDB_ROOT, "three");
	expect(db, EMDB_ROOT, "two", "linked");
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "two", 3, &attr));
	CHECK_UEQ(attr.id, w.big);
	CHECK_UEQ(attr.nlink, DIRS + 3);
	expect(db, w.dir, "y", "later");
	/* It can still go, and its object keeps the other names. */
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "three", 5, NULL, NULL));
	CHECK_OK(emdb_node_getattr(db, w.big, &attr));
	CHECK_UEQ(attr.nlink, DIRS + 2);
	CHECK_OK(emdb_close(db));
}

TEST(test_rot__checkpoint_of_many_without_their_records)
{
	struct emdb_stats st;
	struct emdb_attr attr;
	struct world w;
	emdb_db *db;

	make_world(&w);
	db = store_open(0);
	counts_of(db, &st);
	for (unsigned int i = 0; i < DIRS; i++) {
		spoil(w.many_ref[i], 0);
		spoil(w.link_ref[i], 0);
	}
	db = checkpointed(db, &w, &st);
	expect(db, w.first, "x", "d0");
	expect_lost(db, w.many, "d7");
	expect_lost(db, w.many, "l7");
	expect(db, w.many, "k7", "value");
	CHECK_OK(emdb_node_getattr(db, w.big, &attr));
	CHECK_UEQ(attr.nlink, DIRS + 3);
	CHECK_OK(emdb_close(db));
}

/* A snapshot has an image of its own. */
TEST(test_rot__snapshot_of_what_rotted)
{
	char store[sizeof(path)];
	struct emdb_stats st;
	struct world w;
	emdb_db *db;

	make_world(&w);
	db = store_open(0);
	counts_of(db, &st);
	spoil(w.dir_ref, 0);
	spoil(w.link3_ref, 0);
	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	CHECK_OK(emdb_close(db));
	memcpy(store, path, sizeof(store));
	(void)snprintf(path, sizeof(path), "%.*s/snapshots/s", (int)sizeof(path) - 32, store);
	db = open_by_checkpoint(EMDB_OPEN_READ_ONLY, &st);
	expect(db, w.dir, "x", "in dir");
	expect(db, EMDB_ROOT, "two", "linked");
	expect_lost(db, EMDB_ROOT, "three");
	CHECK_OK(emdb_close(db));
	memcpy(path, store, sizeof(store));
}

TEST_MAIN()
