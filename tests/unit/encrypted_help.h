/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of encrypted stores share: secrets, planted words, a store as text. */
#ifndef EMDB_TEST_ENCRYPTED_HELP_H
#define EMDB_TEST_ENCRYPTED_HELP_H

#include "core/emdb.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "core/base.h"
#include "core/codec.h"
#include "tests/unit/test.h"

static const uint8_t raw_key[33] = "0123456789abcdef0123456789ABCDEF";
static const uint8_t other_key[33] = "another key of thirty-two bytes.";
static const struct emdb_secret secret = { EMDB_SECRET_KEY, raw_key, 32, NULL, 0, 0, 0 };
static const struct emdb_secret other = { EMDB_SECRET_KEY, other_key, 32, NULL, 0, 0, 0 };

/* make check-long; the Makefile exports an empty one otherwise. */
static inline bool long_run(void)
{
	const char *const env = getenv("EMDB_LONG");

	return env && *env && strcmp(env, "0") != 0;
}

/* Small segments; created when there is none. */
static inline emdb_err open_err(const char *path, const struct emdb_secret *s,
				enum emdb_cipher cipher, emdb_db **ret)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.secret = s,
					.cipher = cipher };

	return emdb_open(path, &o, ret);
}

static inline emdb_db *open_store(const char *path, const struct emdb_secret *s,
				  enum emdb_cipher cipher)
{
	emdb_db *db = NULL;

	CHECK_OK(open_err(path, s, cipher, &db));
	return db;
}

/* ---- What is planted and looked for ---- */

#define PLANT_KEY   "PlantedKeyName7b"
#define PLANT_VALUE "PlantedValueByt9"
#define PLANT_NS    "PlantedNamespac3"
#define PLANT_XATTR "user.PlantedAttr"
#define PLANT_XVAL  "PlantedAttrValu5"
#define BIG_BYTES   (5u << 18)

static const char *const plants[] = { PLANT_KEY, PLANT_VALUE, PLANT_NS, PLANT_XATTR, PLANT_XVAL };

static inline void plant(emdb_db *db)
{
	char *const big = malloc(BIG_BYTES);
	struct emdb_item items[3] = {
		{ .key = "batch1" PLANT_KEY, .key_len = 22, .value = PLANT_VALUE, .value_len = 16 },
		{ .key = "batch2", .key_len = 6, .value = PLANT_VALUE, .value_len = 16 },
		{ .key = "absent", .key_len = 6, .remove = true }
	};
	struct emdb_attr attr;
	uint64_t ns;

	for (size_t i = 0; i < BIG_BYTES; i += 16)
		memcpy(big + i, PLANT_VALUE, 16);
	CHECK_OK(emdb_put(db, EMDB_ROOT, PLANT_KEY, 16, PLANT_VALUE, 16, 0));
	CHECK_OK(
		emdb_put(db, EMDB_ROOT, "medium" PLANT_KEY, 22, big, 7000, INT64_C(4000000000000)));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "big" PLANT_KEY, 19, big, BIG_BYTES, 0));
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, PLANT_NS, 16, &ns));
	CHECK_OK(emdb_put(db, ns, PLANT_KEY, 16, PLANT_VALUE, 16, 0));
	CHECK_OK(emdb_put_many(db, ns, items, 3));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, PLANT_KEY, 16, &attr));
	CHECK_OK(emdb_xattr_set(db, attr.id, PLANT_XATTR, PLANT_XVAL, 16, 0));
	CHECK_OK(emdb_node_write(db, attr.id, 100, PLANT_VALUE, 16, 0));
	CHECK_OK(emdb_node_write(db, attr.id, 100000, PLANT_VALUE, 16, 0));
	CHECK_OK(emdb_node_link(db, attr.id, ns, "link" PLANT_KEY, 20, &attr));
	emdb_node_forget(db, attr.id, 2);
	free(big);
}

/* ---- Files ---- */

typedef void (*file_fn)(void *ctx, const char *path, uint8_t *p, size_t n);

/* Calls fn for every file below dir. Segments and checkpoints may come and go meanwhile. */
static inline void each_file(const char *dir, file_fn fn, void *ctx)
{
	DIR *const d = opendir(dir);
	struct dirent *e;

	CHECK(d);
	while ((e = readdir(d))) {
		char path[PATH_MAX + 300];
		struct stat st;
		uint8_t *p;
		ssize_t n;
		int fd;

		CHECK((size_t)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < sizeof(path));
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    lstat(path, &st) != 0)
			continue;
		if (S_ISDIR(st.st_mode)) {
			each_file(path, fn, ctx);
			continue;
		}
		p = malloc((size_t)st.st_size + 1);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, p, (size_t)st.st_size);
		if (n >= 0)
			fn(ctx, path, p, (size_t)n);
		(void)close(fd);
		free(p);
	}
	closedir(d);
}

struct hunt {
	size_t files, found;
};

static inline void hunt_file(void *ctx, const char *path, uint8_t *p, size_t n)
{
	struct hunt *const h = ctx;

	h->files++;
	for (size_t i = 0; i < ARRAY_SIZE(plants); i++)
		if (memmem(p, n, plants[i], 16)) {
			printf("%s holds %s\n", path, plants[i]);
			h->found++;
		}
}

/* How many files below dir hold something that was planted. */
static inline size_t hunt(const char *dir)
{
	struct hunt h = { 0, 0 };

	each_file(dir, hunt_file, &h);
	CHECK(h.files > 0);
	return h.found;
}

/* ---- A store as text ---- */

static inline void tell(struct buf *b, const void *p, size_t n)
{
	CHECK_EQ(buf_append(b, p, n), 0);
}

static inline void tell_object(emdb_db *db, const struct emdb_attr *a, struct buf *b)
{
	char names[4096], value[512], line[512];
	size_t n, len;
	uint8_t *p;

	snprintf(line, sizeof(line),
		 "id %lu size %lu mode %o n %u uid %u t %ld %ld %ld %ld x %ld\n",
		 (unsigned long)a->id, (unsigned long)(S_ISDIR(a->mode) ? 0 : a->size), a->mode,
		 a->nlink, a->uid, (long)a->atime_ns, (long)a->mtime_ns, (long)a->ctime_ns,
		 (long)a->btime_ns, (long)a->expires_ms);
	tell(b, line, strlen(line));
	CHECK_OK(emdb_xattr_list(db, a->id, names, sizeof(names), &n));
	tell(b, names, n);
	for (const char *name = names; name < names + n; name += strlen(name) + 1) {
		CHECK_OK(emdb_xattr_get(db, a->id, name, value, sizeof(value), &len));
		tell(b, value, len);
	}
	if (S_ISDIR(a->mode))
		return;
	p = malloc(a->size + 1);
	CHECK_OK(emdb_node_read(db, a->id, 0, p, a->size + 1, &len));
	CHECK_UEQ(len, a->size);
	snprintf(line, sizeof(line), "crc %08x\n", crc32c(0, p, len));
	tell(b, line, strlen(line));
	free(p);
}

static inline void tell_ns(emdb_db *db, uint64_t ns, struct buf *b)
{
	struct emdb_entry e;
	emdb_iter *it;
	emdb_err err;

	CHECK_OK(emdb_iter_new(db, ns, 0, &it));
	while ((err = emdb_iter_next(it, &e)) == EMDB_OK) {
		struct emdb_attr a;

		tell(b, e.key, e.key_len);
		tell(b, "\n", 1);
		CHECK_OK(emdb_node_lookup(db, ns, e.key, e.key_len, &a));
		tell_object(db, &a, b);
		emdb_node_forget(db, a.id, 1);
		if (e.is_ns)
			tell_ns(db, e.id, b);
	}
	CHECK_EQ(err, EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
}

/* Everything that a user of the store can see, but LSNs; free with buf_release(). */
static inline struct buf tell_store(emdb_db *db)
{
	struct buf b = BUF_INIT;
	struct emdb_attr a;

	CHECK_OK(emdb_node_getattr(db, EMDB_ROOT, &a));
	tell_object(db, &a, &b);
	tell_ns(db, EMDB_ROOT, &b);
	return b;
}

#endif
