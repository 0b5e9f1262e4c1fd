/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of the public interface, and everything at its largest at once, with every segment size. */
#include "tests/unit/test.h"

#include <sys/stat.h>

#include "core/base.h"
#include "core/emdb.h"

static emdb_db *open_with(uint64_t segment_bytes)
{
	const struct emdb_options opts = { .size = sizeof(opts), .segment_bytes = segment_bytes };
	emdb_db *db;

	CHECK_OK(emdb_open_memory(&opts, &db));
	return db;
}

static uint8_t *bytes(size_t n)
{
	uint8_t *const p = malloc(n);

	CHECK(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 31 + (i >> 8));
	return p;
}

static void check_value(emdb_db *db, const void *key, size_t key_len, const uint8_t *want, size_t n)
{
	void *got;
	size_t len;

	CHECK_OK(emdb_get(db, EMDB_ROOT, key, key_len, &got, &len));
	CHECK_MEM(got, len, want, n);
	emdb_free(got);
}

/* As many attributes as the object takes; at least min bytes of them. */
static unsigned int fill_xattrs(emdb_db *db, uint64_t id, const uint8_t *p, size_t min)
{
	unsigned int n = 0;
	char name[32];
	emdb_err err;

	do {
		snprintf(name, sizeof(name), "user.%u", n++);
		err = emdb_xattr_set(db, id, name, p, 60000, 0);
	} while (err == EMDB_OK);
	CHECK_EQ(err, EMDB_ERR_NO_SPACE);
	CHECK((n - 1) * (size_t)60000 >= min);
	return n - 1;
}

static void check_xattrs(emdb_db *db, uint64_t id, const uint8_t *p, unsigned int n)
{
	static uint8_t buf[60000];
	char name[32];
	size_t len;

	for (unsigned int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		CHECK_OK(emdb_xattr_get(db, id, name, buf, sizeof(buf), &len));
		CHECK_MEM(buf, len, p, 60000);
	}
}

TEST(test_limits__the_longest_key_with_full_attributes_takes_any_value)
{
	static const size_t sizes[] = {
		0, 1, 8192, 8193, 400000, 524288, 1048576, 1048577, 3000000
	};
	uint8_t *const p = bytes(3000000), *const key = bytes(EMDB_KEY_MAX);

	for (uint64_t seg = EMDB_SEGMENT_MIN; seg <= 4 * EMDB_SEGMENT_MIN; seg *= 2) {
		emdb_db *const db = open_with(seg);
		struct emdb_attr a, linked;
		unsigned int n;

		CHECK_OK(emdb_put(db, EMDB_ROOT, key, EMDB_KEY_MAX, "x", 1, 0));
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, key, EMDB_KEY_MAX, &a));
		n = fill_xattrs(db, a.id, p, seg < 4 * EMDB_SEGMENT_MIN ? seg / 3 : 900000);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			CHECK_OK(emdb_put(db, EMDB_ROOT, key, EMDB_KEY_MAX, p, sizes[i], 0));
			check_value(db, key, EMDB_KEY_MAX, p, sizes[i]);
			CHECK_OK(emdb_node_write(db, a.id, sizes[i] / 2, p, sizes[i] / 2, 0));
			check_xattrs(db, a.id, p, n);
			CHECK_OK(emdb_node_setattr(db, a.id, &(struct emdb_attr){ 0 },
						   EMDB_SET_SIZE, &a));
			check_xattrs(db, a.id, p, n);
		}
		CHECK_OK(emdb_node_link(db, a.id, EMDB_ROOT, key, EMDB_KEY_MAX - 1, &linked));
		CHECK_OK(emdb_node_rename(db, EMDB_ROOT, key, EMDB_KEY_MAX, EMDB_ROOT, key,
					  EMDB_KEY_MAX - 2, 0));
		CHECK_OK(emdb_compact(db, NULL, NULL));
		check_xattrs(db, a.id, p, n);
		CHECK_OK(emdb_close(db));
	}
	free(p);
	free(key);
}

TEST(test_limits__keys)
{
	emdb_db *const db = open_with(EMDB_SEGMENT_MIN);
	uint8_t *const key = bytes(EMDB_KEY_MAX + 1);
	const size_t n = EMDB_KEY_MAX + 1;
	struct emdb_attr a;
	uint64_t id;
	void *value;
	bool found;
	size_t len;

	CHECK_OK(emdb_put(db, EMDB_ROOT, key, n - 1, "v", 1, 0));
	CHECK_OK(emdb_put(db, EMDB_ROOT, NULL, 0, "empty", 5, 0));
	check_value(db, "", 0, (const uint8_t *)"empty", 5);
	CHECK_EQ(emdb_put(db, EMDB_ROOT, key, n, "v", 1, 0), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_get(db, EMDB_ROOT, key, n, &value, &len), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_remove(db, EMDB_ROOT, key, n, NULL, NULL), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_contains(db, EMDB_ROOT, key, n, &found), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_ns_create(db, EMDB_ROOT, key, n, &id), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, key, n, &a), EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_node_rename(db, EMDB_ROOT, NULL, 0, EMDB_ROOT, key, n, 0),
		 EMDB_ERR_KEY_TOO_LONG);
	CHECK_EQ(emdb_node_unlink(db, EMDB_ROOT, key, n, NULL), EMDB_ERR_KEY_TOO_LONG);
	CHECK_OK(emdb_close(db));
	free(key);
}

TEST(test_limits__sizes_and_offsets)
{
	emdb_db *const db = open_with(EMDB_SEGMENT_MIN);
	struct emdb_attr a, set = { .size = EMDB_VALUE_MAX };
	uint64_t at, len;
	uint8_t byte;
	size_t n;

	CHECK_OK(emdb_put(db, EMDB_ROOT, "f", 1, "x", 1, 0));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "f", 1, &a));
	CHECK_OK(emdb_node_setattr(db, a.id, &set, EMDB_SET_SIZE, &a));
	CHECK_UEQ(a.size, EMDB_VALUE_MAX);
	CHECK_OK(emdb_node_write(db, a.id, EMDB_VALUE_MAX - 1, "y", 1, 0));
	CHECK_OK(emdb_node_read(db, a.id, EMDB_VALUE_MAX - 1, &byte, 1, &n));
	CHECK_UEQ(n, 1);
	CHECK_EQ(byte, 'y');
	CHECK_EQ(emdb_node_write(db, a.id, EMDB_VALUE_MAX, "y", 1, 0), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_EQ(emdb_node_write(db, a.id, UINT64_MAX, "y", 1, 0), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_EQ(emdb_node_write(db, a.id, 0, "y", 1, EMDB_WRITE_APPEND), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_EQ(emdb_node_fallocate(db, a.id, EMDB_VALUE_MAX, 1, 0), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_EQ(emdb_node_fallocate(db, a.id, 0, 0, 0), EMDB_ERR_INVAL);
	CHECK_OK(emdb_node_fallocate(db, a.id, 1, EMDB_VALUE_MAX - 2, EMDB_FALLOC_PUNCH_HOLE));
	CHECK_OK(emdb_node_seek(db, a.id, 1, false, &at));
	CHECK_UEQ(at, EMDB_VALUE_MAX - 1);
	CHECK_EQ(emdb_node_copy_range(db, a.id, UINT64_MAX, a.id, 0, 1, &len),
		 EMDB_ERR_VALUE_TOO_LARGE);
	set.size++;
	CHECK_EQ(emdb_node_setattr(db, a.id, &set, EMDB_SET_SIZE, &a), EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_OK(emdb_node_read(db, a.id, UINT64_MAX, &byte, 1, &n));
	CHECK_UEQ(n, 0);
	CHECK_OK(emdb_close(db));
}

TEST(test_limits__attributes)
{
	emdb_db *const db = open_with(EMDB_SEGMENT_MIN);
	uint8_t *const p = bytes(EMDB_XATTR_VALUE_MAX + 1);
	char name[EMDB_XATTR_NAME_MAX + 2];
	struct emdb_attr a;
	char small[4];
	size_t n;

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	CHECK_OK(emdb_put(db, EMDB_ROOT, "f", 1, "x", 1, 0));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "f", 1, &a));
	CHECK_EQ(emdb_xattr_set(db, a.id, name, "v", 1, 0), EMDB_ERR_RANGE);
	CHECK_EQ(emdb_xattr_set(db, a.id, "", "v", 1, 0), EMDB_ERR_RANGE);
	name[EMDB_XATTR_NAME_MAX] = 0;
	CHECK_OK(emdb_xattr_set(db, a.id, name, p, EMDB_XATTR_VALUE_MAX, 0));
	CHECK_EQ(emdb_xattr_set(db, a.id, "v", p, EMDB_XATTR_VALUE_MAX + 1, 0),
		 EMDB_ERR_VALUE_TOO_LARGE);
	CHECK_EQ(emdb_xattr_get(db, a.id, name, small, sizeof(small), &n), EMDB_ERR_RANGE);
	CHECK_EQ(emdb_xattr_list(db, a.id, small, sizeof(small), &n), EMDB_ERR_RANGE);
	CHECK_OK(emdb_xattr_get(db, a.id, name, NULL, 0, &n));
	CHECK_UEQ(n, EMDB_XATTR_VALUE_MAX);
	CHECK_EQ(emdb_xattr_set(db, a.id, name, "", 0, EMDB_XATTR_CREATE), EMDB_ERR_EXISTS);
	CHECK_EQ(emdb_xattr_set(db, a.id, "w", "", 0, EMDB_XATTR_REPLACE), EMDB_ERR_NO_XATTR);
	CHECK_EQ(emdb_xattr_set(db, a.id, "w", "", 0, EMDB_XATTR_REPLACE | EMDB_XATTR_CREATE),
		 EMDB_ERR_INVAL);
	CHECK_OK(emdb_close(db));
	free(p);
}

/* What would be written, but not read again. */
TEST(test_limits__modes)
{
	static const uint32_t types[] = { S_IFREG,  S_IFDIR, S_IFLNK, S_IFIFO,
					  S_IFSOCK, S_IFCHR, S_IFBLK };
	static const struct emdb_create anon = { .mode = S_IFREG | 0x10000 };
	emdb_db *const db = open_with(EMDB_SEGMENT_MIN);
	struct emdb_attr a;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct emdb_create what = { .mode = types[i] | 07777 | 0x10000,
					    .target = "to",
					    .target_len = 2 };
		const char key = (char)('a' + i);

		CHECK_EQ(emdb_node_create(db, EMDB_ROOT, &key, 1, &what, &a), EMDB_ERR_INVAL);
		CHECK_EQ(emdb_node_lookup(db, EMDB_ROOT, &key, 1, &a), EMDB_ERR_NOT_FOUND);
		what.mode = types[i] | 07777;
		CHECK_OK(emdb_node_create(db, EMDB_ROOT, &key, 1, &what, &a));
		CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, &key, 1, &a));
		CHECK_UEQ(a.mode, what.mode);
	}
	CHECK_EQ(emdb_node_create_anon(db, EMDB_ROOT, &anon, &a), EMDB_ERR_INVAL);
	CHECK_OK(emdb_close(db));
}

/* A batch is one frame or nothing. */
TEST(test_limits__batches)
{
	emdb_db *const db = open_with(EMDB_SEGMENT_MIN);
	uint8_t *const p = bytes(400000);
	struct emdb_item items[3];
	uint64_t count;
	char key[3] = "abc";

	for (int i = 0; i < 3; i++)
		items[i] = (struct emdb_item){
			.key = &key[i], .key_len = 1, .value = p, .value_len = 400000
		};
	CHECK_EQ(emdb_put_many(db, EMDB_ROOT, items, 3), EMDB_ERR_TXN_TOO_BIG);
	CHECK_OK(emdb_count(db, EMDB_ROOT, &count));
	CHECK_UEQ(count, 0);
	CHECK_OK(emdb_put_many(db, EMDB_ROOT, items, 2));
	CHECK_OK(emdb_put_many(db, EMDB_ROOT, items, 0));
	check_value(db, "a", 1, p, 400000);
	check_value(db, "b", 1, p, 400000);
	CHECK_OK(emdb_close(db));
	free(p);
}

TEST_MAIN()
