/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypted stores through the public interface. */
#include "core/emdb.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/base.h"
#include "core/codec.h"
#include "tests/unit/test.h"

static const uint8_t raw_key[32] = "0123456789abcdef0123456789ABCDE";
static const struct emdb_secret secret = { EMDB_SECRET_KEY, raw_key, 32, NULL, 0, 0, 0 };
static const enum emdb_cipher ciphers[] = { EMDB_CIPHER_AES_256_GCM,
					    EMDB_CIPHER_CHACHA20_POLY1305 };

static emdb_db *open_with(const char *path, enum emdb_cipher cipher)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.secret = &secret,
					.cipher = cipher };
	emdb_db *db = NULL;

	CHECK_OK(emdb_open(path, &o, &db));
	return db;
}

static void check_value(emdb_db *db, uint64_t ns, const char *key, const void *want,
			size_t want_len)
{
	struct emdb_ref ref;
	void *value;
	size_t len;

	CHECK_OK(emdb_get(db, ns, key, strlen(key), &value, &len));
	CHECK_MEM(value, len, want, want_len);
	emdb_free(value);
	CHECK_OK(emdb_get_ref(db, ns, key, strlen(key), &ref));
	CHECK_MEM(ref.data, ref.len, want, want_len);
	emdb_ref_release(&ref);
}

/* ---- What is planted and looked for ---- */

#define PLANT_KEY   "PlantedKeyName7b"
#define PLANT_VALUE "PlantedValueByt9"
#define PLANT_NS    "PlantedNamespac3"
#define PLANT_XATTR "user.PlantedAttr"
#define PLANT_XVAL  "PlantedAttrValu5"

static const char *const plants[] = { PLANT_KEY, PLANT_VALUE, PLANT_NS, PLANT_XATTR, PLANT_XVAL };

static void plant(emdb_db *db)
{
	char *const big = malloc(3u << 20);
	struct emdb_item items[3] = {
		{ .key = "batch1" PLANT_KEY, .key_len = 22, .value = PLANT_VALUE, .value_len = 16 },
		{ .key = "batch2",
		  .key_len = 6,
		  .value = PLANT_VALUE,
		  .value_len = 16,
		  .expires_ms = EMDB_TTL_NEVER },
		{ .key = "absent", .key_len = 6, .remove = true }
	};
	struct emdb_attr attr;
	uint64_t ns;

	for (size_t i = 0; i < 3u << 20; i += 16)
		memcpy(big + i, PLANT_VALUE, 16);
	CHECK_OK(emdb_put(db, EMDB_ROOT, PLANT_KEY, 16, PLANT_VALUE, 16, 0));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "medium" PLANT_KEY, 22, big, 7000, 0));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "big" PLANT_KEY, 19, big, 3u << 20, 0));
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, PLANT_NS, 16, &ns));
	CHECK_OK(emdb_put(db, ns, PLANT_KEY, 16, PLANT_VALUE, 16, 0));
	CHECK_OK(emdb_put_many(db, ns, items, 3));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, PLANT_KEY, 16, &attr));
	CHECK_OK(emdb_xattr_set(db, attr.id, PLANT_XATTR, PLANT_XVAL, 16, 0));
	CHECK_OK(emdb_node_write(db, attr.id, 100, PLANT_VALUE, 16, 0));
	CHECK_OK(emdb_node_write(db, attr.id, 100000, PLANT_VALUE, 16, 0));
	emdb_node_forget(db, attr.id, 1);
	free(big);
}

static void check_planted(emdb_db *db)
{
	char *const big = malloc(3u << 20);
	char value[100016] = PLANT_VALUE, buf[64];
	struct emdb_attr attr;
	uint64_t ns;
	size_t len;

	for (size_t i = 0; i < 3u << 20; i += 16)
		memcpy(big + i, PLANT_VALUE, 16);
	memcpy(value + 100, PLANT_VALUE, 16);
	memcpy(value + 100000, PLANT_VALUE, 16);
	check_value(db, EMDB_ROOT, PLANT_KEY, value, sizeof(value));
	check_value(db, EMDB_ROOT, "medium" PLANT_KEY, big, 7000);
	check_value(db, EMDB_ROOT, "big" PLANT_KEY, big, 3u << 20);
	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, PLANT_NS, 16, &ns));
	check_value(db, ns, PLANT_KEY, PLANT_VALUE, 16);
	check_value(db, ns, "batch1" PLANT_KEY, PLANT_VALUE, 16);
	check_value(db, ns, "batch2", PLANT_VALUE, 16);
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, PLANT_KEY, 16, &attr));
	CHECK_OK(emdb_xattr_get(db, attr.id, PLANT_XATTR, buf, sizeof(buf), &len));
	CHECK_MEM(buf, len, PLANT_XVAL, 16);
	emdb_node_forget(db, attr.id, 1);
	free(big);
}

TEST(test_encrypted__what_is_written_is_read)
{
	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++) {
		const char *const path = test_dir();
		struct emdb_check_report report;
		struct emdb_stats st;
		emdb_db *db;

		if (!emdb_cipher_available(ciphers[i])) {
			printf("no %s here\n", emdb_cipher_name(ciphers[i]));
			continue;
		}
		db = open_with(path, ciphers[i]);
		CHECK_OK(emdb_stats_get(db, &st));
		CHECK(st.encrypted);
		plant(db);
		check_planted(db);
		CHECK_OK(emdb_close(db));
		db = open_with(path, EMDB_CIPHER_DEFAULT);
		check_planted(db);
		CHECK_OK(emdb_compact(db, NULL, NULL));
		check_planted(db);
		CHECK_OK(emdb_close(db));
		CHECK_OK(emdb_check_secret(path, &secret, NULL, NULL, &report));
		CHECK_EQ(emdb_check(path, NULL, NULL, &report), EMDB_ERR_KEY_REQUIRED);
		db = open_with(path, EMDB_CIPHER_DEFAULT);
		check_planted(db);
		CHECK_OK(emdb_close(db));
	}
}

/* ---- What lies on disk ------------------------------------------------------- */

/* Calls fn for every file below dir. */
static void each_file(const char *dir,
		      void (*fn)(void *ctx, const char *path, uint8_t *p, size_t n), void *ctx)
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

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		/* Segments and checkpoints come and go meanwhile. */
		if (lstat(path, &st) != 0)
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

static void hunt_file(void *ctx, const char *path, uint8_t *p, size_t n)
{
	struct hunt *const h = ctx;

	h->files++;
	for (size_t i = 0; i < ARRAY_SIZE(plants); i++)
		if (memmem(p, n, plants[i], 16)) {
			printf("%s holds %s\n", path, plants[i]);
			h->found++;
		}
}

/* The store, its snapshot and its backup, while it is open, killed and closed. */
TEST(test_encrypted__nothing_planted_is_found_on_disk)
{
	static const struct emdb_options create = { .size = sizeof(create),
						    .flags = EMDB_OPEN_CREATE };
	const char *const path = test_dir(), *const copy = test_dir(), *const plain = test_dir();
	char backup[PATH_MAX + 8];
	struct hunt h = { 0, 0 };
	emdb_db *db = open_with(path, EMDB_CIPHER_DEFAULT);

	snprintf(backup, sizeof(backup), "%s/b", copy);
	plant(db);
	CHECK_OK(emdb_flush(db));
	each_file(path, hunt_file, &h);
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_snapshot_create(db, "one", NULL));
	CHECK_OK(emdb_compact(db, NULL, NULL));
	CHECK_OK(emdb_backup(db, backup, NULL, NULL));
	each_file(path, hunt_file, &h);
	each_file(copy, hunt_file, &h);
	CHECK_OK(emdb_close(db));
	each_file(path, hunt_file, &h);
	CHECK_UEQ(h.found, 0);
	CHECK(h.files > 20);
	/* The hunter finds what is there. */
	CHECK_OK(emdb_open(plain, &create, &db));
	plant(db);
	CHECK_OK(emdb_close(db));
	each_file(plain, hunt_file, &h);
	CHECK(h.found >= ARRAY_SIZE(plants));
}

TEST_MAIN()
