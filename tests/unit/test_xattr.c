/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of new objects, and those that change together with the mode. */
#include <sys/stat.h>

#include "core/emdb.h"
#include "tests/unit/test.h"

static emdb_db *open_at(const char *path)
{
	const struct emdb_options o = {
		.size = sizeof(o),
		.flags = EMDB_OPEN_CREATE,
		.segment_bytes = EMDB_SEGMENT_MIN,
		.commit_interval_s = -1,
	};
	emdb_db *db;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

static void check_xattr(emdb_db *db, uint64_t id, const char *name, const char *want)
{
	char buf[64];
	size_t n;
	const emdb_err err = emdb_xattr_get(db, id, name, buf, sizeof(buf), &n);

	if (!want) {
		CHECK_EQ(err, EMDB_ERR_NO_XATTR);
		return;
	}
	CHECK_OK(err);
	CHECK_MEM(buf, n, want, strlen(want));
}

/* Attributes and mode by name, through a reference as the kernel has one. */
static void check_node(emdb_db *db, const char *name, const char *x, const char *y, uint32_t mode)
{
	struct emdb_attr a;

	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, name, strlen(name), &a));
	CHECK_EQ(a.mode, mode);
	check_xattr(db, a.id, "user.x", x);
	check_xattr(db, a.id, "user.y", y);
	emdb_node_forget(db, a.id, 1);
}

static const struct emdb_xattr two[] = { { "user.x", "one", 3 }, { "user.y", "", 0 } };

static void create(emdb_db *db, const char *name, uint32_t mode, size_t xattrs)
{
	const struct emdb_create what = { .mode = mode, .xattrs = two, .xattr_count = xattrs };
	struct emdb_attr a;

	CHECK_OK(emdb_node_create(db, EMDB_ROOT, name, strlen(name), &what, &a));
	CHECK_EQ(a.mode, mode);
	emdb_node_forget(db, a.id, 1);
}

TEST(test_xattr__created_with)
{
	const char *const path = test_dir();
	emdb_db *db = open_at(path);
	const struct emdb_create what = { .mode = S_IFREG | 0600, .xattrs = two, .xattr_count = 2 };
	struct emdb_attr a;

	create(db, "file", S_IFREG | 0640, 2);
	create(db, "dir", S_IFDIR | 0750, 2);
	create(db, "one", S_IFIFO | 0600, 1);
	create(db, "none", S_IFREG | 0600, 0);
	CHECK_OK(emdb_node_create_anon(db, EMDB_ROOT, &what, &a));
	check_xattr(db, a.id, "user.x", "one");
	CHECK_OK(emdb_node_link(db, a.id, EMDB_ROOT, "anon", 4, &a));
	emdb_node_forget(db, a.id, 2);
	for (int round = 0; round < 2; round++) {
		check_node(db, "file", "one", "", S_IFREG | 0640);
		check_node(db, "dir", "one", "", S_IFDIR | 0750);
		check_node(db, "one", "one", NULL, S_IFIFO | 0600);
		check_node(db, "none", NULL, NULL, S_IFREG | 0600);
		check_node(db, "anon", "one", "", S_IFREG | 0600);
		CHECK_OK(emdb_close(db));
		db = open_at(path);
	}
	CHECK_OK(emdb_close(db));
}

TEST(test_xattr__create_errors)
{
	emdb_db *const db = open_at(test_dir());
	static char big[EMDB_XATTR_VALUE_MAX + 1], name[EMDB_XATTR_NAME_MAX + 2];
	struct emdb_xattr x[20] = { { "user.x", big, sizeof(big) } };
	struct emdb_create what = { .mode = S_IFREG | 0600, .xattrs = x, .xattr_count = 1 };
	struct emdb_attr a;

	CHECK_EQ(emdb_node_create(db, EMDB_ROOT, "f", 1, &what, &a), EMDB_ERR_VALUE_TOO_LARGE);
	x[0] = (struct emdb_xattr){ "", "x", 1 };
	CHECK_EQ(emdb_node_create(db, EMDB_ROOT, "f", 1, &what, &a), EMDB_ERR_RANGE);
	memset(name, 'n', sizeof(name) - 1);
	x[0].name = name;
	CHECK_EQ(emdb_node_create_anon(db, EMDB_ROOT, &what, &a), EMDB_ERR_RANGE);
	for (int i = 0; i < 20; i++)
		x[i] = (struct emdb_xattr){ &"user.x"[i % 2], big, EMDB_XATTR_VALUE_MAX };
	what.xattr_count = 20;
	CHECK_EQ(emdb_node_create(db, EMDB_ROOT, "f", 1, &what, &a), EMDB_ERR_NO_SPACE);
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, "f", 1, &a), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_close(db));
}

static void check_set_mode(emdb_db *db, const char *name, uint32_t type)
{
	struct emdb_attr a;

	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, name, strlen(name), &a));
	a.mode = 04755;
	CHECK_OK(emdb_node_setattr(db, a.id, &a, EMDB_SET_MODE, &a));
	CHECK_OK(emdb_xattr_set(db, a.id, "user.y", "kept", 4, 0));
	CHECK_OK(emdb_xattr_set_mode(db, a.id, "user.x", "list", 4, 07640, 0777));
	check_node(db, name, "list", "kept", type | 04640);
	CHECK_OK(emdb_xattr_set_mode(db, a.id, "user.x", NULL, 0, 0600, 07777));
	check_node(db, name, NULL, "kept", type | 0600);
	/* Nothing there to remove: the mode changes all the same. */
	CHECK_OK(emdb_xattr_set_mode(db, a.id, "user.x", NULL, 0, 02711, 07777));
	check_node(db, name, NULL, "kept", type | 02711);
	CHECK_EQ(emdb_xattr_set_mode(db, a.id, "user.x", "y", 1, 0, 0), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_xattr_set_mode(db, a.id, "user.x", "y", 1, 0, S_IFREG), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_xattr_set_mode(db, a.id, "", "y", 1, 0, 0777), EMDB_ERR_RANGE);
	check_node(db, name, NULL, "kept", type | 02711);
	emdb_node_forget(db, a.id, 1);
}

TEST(test_xattr__together_with_the_mode)
{
	const char *const path = test_dir();
	emdb_db *db = open_at(path);
	static char big[200000];

	create(db, "plain", S_IFREG | 0600, 0);
	create(db, "dir", S_IFDIR | 0700, 0);
	CHECK_OK(emdb_put(db, EMDB_ROOT, "big", 3, big, sizeof(big), 0));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "put", 3, "x", 1, 0)); /* has no mode of its own yet */
	check_set_mode(db, "plain", S_IFREG);
	check_set_mode(db, "dir", S_IFDIR);
	check_set_mode(db, "big", S_IFREG);
	check_set_mode(db, "put", S_IFREG);
	CHECK_EQ(emdb_xattr_set_mode(db, 12345678, "user.x", "y", 1, 0, 0777), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_close(db));
	db = open_at(path);
	check_node(db, "plain", NULL, "kept", S_IFREG | 02711);
	check_node(db, "dir", NULL, "kept", S_IFDIR | 02711);
	check_node(db, "big", NULL, "kept", S_IFREG | 02711);
	check_node(db, "put", NULL, "kept", S_IFREG | 02711);
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
