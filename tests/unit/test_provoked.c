/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every error code, provoked through the public interface. The host fails where a row asks for it:
 * the program is linked with --wrap=emdb_io_posix_new.
 */
#include "core/emdb.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/format.h"
#include "core/io.h"
#include "core/store.h"
#include "tests/unit/test.h"

/* ---- A host that fails ---- */

static struct emdb_io *posix, *fault;

struct emdb_io *__real_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void)
{
	if (!fault)
		return __real_emdb_io_posix_new();
	emdb_io_ref(fault);
	return fault;
}

/* From now on every call of these fails, and so on until host_calm(). */
static void host_fails(uint64_t mask, int err)
{
	const struct io_fault plan = { .mask = mask, .nth = 1, .err = err, .sticky = true };

	emdb_io_fault_set(fault, &plan);
}

static void host_calm(void)
{
	emdb_io_fault_set(fault, NULL);
}

static void *no_malloc(size_t n)
{
	(void)n;
	return NULL;
}

static void *no_calloc(size_t count, size_t n)
{
	(void)count, (void)n;
	return NULL;
}

static void *no_realloc(void *p, size_t n)
{
	(void)p, (void)n;
	return NULL;
}

/* ---- Stores ---- */

static char path[PATH_MAX + 16];

static const uint8_t raw_keys[2][EMDB_RAW_KEY_SIZE] = { { 1 }, { 2 } };
static const struct emdb_secret secrets[2] = {
	{ .kind = EMDB_SECRET_KEY, .data = raw_keys[0], .len = EMDB_RAW_KEY_SIZE },
	{ .kind = EMDB_SECRET_KEY, .data = raw_keys[1], .len = EMDB_RAW_KEY_SIZE },
};

static emdb_err open_as(unsigned int flags, const struct emdb_secret *secret, emdb_db **ret)
{
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.commit_interval_s = -1,
					.sweep_interval_ms = -1,
					.compact_percent = -1,
					.secret = secret };

	return emdb_open(path, &o, ret);
}

/* A new one with the key "key", the namespace "ns" and the attribute "user.a" of the key. */
static emdb_db *store_of(const struct emdb_secret *secret)
{
	struct emdb_attr a;
	emdb_db *db = NULL;
	uint64_t ns;

	snprintf(path, sizeof(path), "%s/store", test_dir());
	CHECK_OK(open_as(EMDB_OPEN_CREATE, secret, &db));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "key", 3, "value", 5, 0));
	CHECK_OK(emdb_ns_create(db, EMDB_ROOT, "ns", 2, &ns));
	CHECK_OK(emdb_put(db, ns, "in", 2, "x", 1, 0));
	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, "key", 3, &a));
	CHECK_OK(emdb_xattr_set(db, a.id, "user.a", "text", 4, 0));
	return db;
}

static emdb_db *store_new(void)
{
	return store_of(NULL);
}

static emdb_err closed(emdb_db *db, emdb_err err)
{
	CHECK_OK(emdb_close(db));
	return err;
}

static emdb_err reopened(unsigned int flags, const struct emdb_secret *secret)
{
	emdb_db *db = NULL;
	const emdb_err err = open_as(flags, secret, &db);

	if (err)
		CHECK(!db);
	else
		CHECK_OK(emdb_close(db));
	return err;
}

static emdb_err put(emdb_db *db, const char *key)
{
	return emdb_put(db, EMDB_ROOT, key, strlen(key), "v", 1, 0);
}

static uint64_t id_of(emdb_db *db, const char *key)
{
	struct emdb_attr a;

	CHECK_OK(emdb_node_lookup(db, EMDB_ROOT, key, strlen(key), &a));
	emdb_node_forget(db, a.id, 1);
	return a.id;
}

/* Flips a bit of the first byte of `text` where it stands last in the first segment. */
static void spoil(const char *text)
{
	static char b[EMDB_SEGMENT_MIN];
	const size_t n = strlen(text);
	char file[PATH_MAX + 64];
	ssize_t at;
	int fd;

	snprintf(file, sizeof(file), "%s/journal/0000000000000001.seg", path);
	fd = open(file, O_RDWR);
	CHECK(fd >= 0);
	at = pread(fd, b, sizeof(b), 0) - (ssize_t)n;
	while (at >= 0 && memcmp(b + at, text, n) != 0)
		at--;
	CHECK(at >= 0);
	b[at] ^= 0x10;
	CHECK_EQ(pwrite(fd, b + at, 1, at), 1);
	close(fd);
}

/* ---- One function for each code ---- */

static emdb_err p_ok(void)
{
	return closed(store_new(), EMDB_OK);
}

static emdb_err p_inval(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_ttl_set(db, EMDB_ROOT, "key", 3, -5));
}

static emdb_err p_nomem(void)
{
	static const struct base_allocator none = { no_malloc, no_calloc, no_realloc, free };
	emdb_db *db = store_new();
	emdb_err err;
	size_t n;
	void *p;

	base_set_allocator(&none);
	err = emdb_get(db, EMDB_ROOT, "key", 3, &p, &n);
	base_set_allocator(NULL);
	return closed(db, err);
}

static emdb_err p_not_found(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_remove(db, EMDB_ROOT, "absent", 6, NULL, NULL));
}

static emdb_err p_exists(void)
{
	emdb_db *db = store_new();
	uint64_t ns;

	return closed(db, emdb_ns_create(db, EMDB_ROOT, "ns", 2, &ns));
}

static emdb_err p_not_ns(void)
{
	emdb_db *db = store_new();
	uint64_t ns;

	return closed(db, emdb_ns_open(db, EMDB_ROOT, "key", 3, &ns));
}

static emdb_err p_is_ns(void)
{
	emdb_db *db = store_new();

	return closed(db, put(db, "ns"));
}

static emdb_err p_not_empty(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_ns_drop(db, EMDB_ROOT, "ns", 2, false));
}

static emdb_err p_key_too_long(void)
{
	static char key[EMDB_KEY_MAX + 1];
	emdb_db *db = store_new();

	return closed(db, emdb_put(db, EMDB_ROOT, key, sizeof(key), "", 0, 0));
}

static emdb_err p_value_too_large(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_put(db, EMDB_ROOT, "key", 3, "", (size_t)EMDB_VALUE_MAX + 1, 0));
}

/* All segments are full, and there is no room for another one; nothing else has happened. */
static emdb_err p_no_space(void)
{
	static uint8_t value[100000];
	emdb_db *db = store_new();
	emdb_err err = EMDB_OK;

	host_fails(IO_MASK(IO_OP_FALLOCATE) | IO_MASK(IO_OP_OPENAT), -ENOSPC);
	for (int i = 0; i < 50 && !err; i++)
		err = emdb_put(db, EMDB_ROOT, "big", 3, value, sizeof(value), 0);
	host_calm();
	CHECK_OK(put(db, "small"));
	return closed(db, err);
}

static emdb_err p_io(void)
{
	emdb_db *db = store_new();
	emdb_err err;

	host_fails(IO_MASK_SYNC, -EIO);
	err = emdb_flush(db);
	host_calm();
	(void)emdb_close(db);
	return err;
}

static emdb_err p_corrupt(void)
{
	emdb_err err;
	emdb_db *db;
	size_t n;
	void *p;

	CHECK_OK(emdb_close(store_new()));
	spoil("value");
	CHECK_OK(open_as(0, NULL, &db));
	err = emdb_get(db, EMDB_ROOT, "key", 3, &p, &n);
	return closed(db, err);
}

static emdb_err p_failed(void)
{
	emdb_db *db = store_new();
	emdb_err err;

	host_fails(IO_MASK_SYNC, -EIO);
	CHECK_EQ(emdb_flush(db), EMDB_ERR_IO);
	host_calm();
	err = put(db, "new");
	(void)emdb_close(db);
	CHECK_OK(reopened(0, NULL));
	return err;
}

static emdb_err p_read_only(void)
{
	emdb_db *db;

	CHECK_OK(emdb_close(store_new()));
	CHECK_OK(open_as(EMDB_OPEN_READ_ONLY, NULL, &db));
	return closed(db, put(db, "new"));
}

static emdb_err p_locked(void)
{
	emdb_db *db = store_new();

	return closed(db, reopened(0, NULL));
}

static emdb_err p_no_store(void)
{
	snprintf(path, sizeof(path), "%s/absent", test_dir());
	return reopened(0, NULL);
}

static emdb_err p_not_store(void)
{
	const char *const dir = test_dir();

	snprintf(path, sizeof(path), "%s/file", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	snprintf(path, sizeof(path), "%s", dir);
	return reopened(EMDB_OPEN_CREATE, NULL);
}

static emdb_err p_version(void)
{
	struct superblock sb;
	uint8_t b[FMT_SUPER_SIZE];
	char file[PATH_MAX + 64];
	int fd;

	CHECK_OK(emdb_close(store_new()));
	snprintf(file, sizeof(file), "%s/superblock", path);
	fd = open(file, O_RDWR);
	CHECK_EQ(read(fd, b, sizeof(b)), sizeof(b));
	CHECK_OK(fmt_super_decode(b, sizeof(b), &sb));
	sb.incompat |= UINT64_C(1) << 40;
	fmt_super_encode(&sb, b);
	CHECK_EQ(pwrite(fd, b, sizeof(b), 0), sizeof(b));
	close(fd);
	return reopened(0, NULL);
}

/* Nobody is told no who is root: another user asks. */
static emdb_err p_perm(void)
{
	int status;
	pid_t pid;

	CHECK_OK(emdb_close(store_new()));
	CHECK_OK(chmod(path, 0));
	pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && setuid(65534))
			_exit(0);
		_exit(-(int)reopened(0, NULL));
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_OK(chmod(path, 0700));
	CHECK(WIFEXITED(status));
	return (emdb_err)-WEXITSTATUS(status);
}

static emdb_err p_no_xattr(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_xattr_remove(db, id_of(db, "key"), "user.absent"));
}

static emdb_err p_range(void)
{
	emdb_db *db = store_new();
	char buf[2];
	size_t n;

	return closed(db, emdb_xattr_get(db, id_of(db, "key"), "user.a", buf, sizeof(buf), &n));
}

/* A million links take seconds: here the object only says that it has them. */
static emdb_err p_too_many_links(void)
{
	emdb_db *db = store_new();
	struct emdb_attr a;
	struct big *big;
	unsigned int pin;
	uint32_t was;
	emdb_err err;

	CHECK_OK(emdb_node_link(db, id_of(db, "key"), EMDB_ROOT, "link", 4, &a));
	emdb_node_forget(db, a.id, 1);
	pin = epoch_pin(&db->epoch);
	big = objtab_big(db, a.id);
	CHECK(big && big->nlinks == 2);
	was = big->nlinks;
	big->nlinks = EMDB_LINK_MAX;
	err = emdb_node_link(db, a.id, EMDB_ROOT, "more", 4, &a);
	big->nlinks = was;
	epoch_unpin(&db->epoch, pin);
	return closed(db, err);
}

static emdb_err p_loop(void)
{
	emdb_db *db = store_new();
	uint64_t ns;

	CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "ns", 2, &ns));
	return closed(db, emdb_node_rename(db, EMDB_ROOT, "ns", 2, ns, "self", 4, 0));
}

static emdb_err p_busy(void)
{
	uint32_t slot;

	CHECK_OK(emdb_close(store_of(&secrets[0])));
	CHECK_OK(emdb_key_check(path, &secrets[0], &slot));
	return emdb_key_remove(path, &secrets[0], slot, NULL);
}

static emdb_err p_unsupported(void)
{
	emdb_db *db;

	CHECK_OK(emdb_open_memory(NULL, &db));
	return closed(db, emdb_snapshot_create(db, "s", NULL));
}

static emdb_err p_overflow(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_put_ttl(db, EMDB_ROOT, "key", 3, "", 0, INT64_MAX));
}

static emdb_err p_too_many_files(void)
{
	struct rlimit was, none;
	emdb_err err;

	CHECK_OK(emdb_close(store_new()));
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &was));
	none = was;
	none.rlim_cur = 3;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
	err = reopened(0, NULL);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &was));
	return err;
}

static emdb_err p_holder_alive(void)
{
	emdb_db *db = store_new();

	return closed(db, emdb_break_lock(path));
}

static emdb_err p_txn_too_big(void)
{
	static uint8_t value[900000];
	const struct emdb_item items[] = {
		{ .key = "a", .key_len = 1, .value = value, .value_len = 400000 },
		{ .key = "b", .key_len = 1, .value = value, .value_len = 400000 },
		{ .key = "c", .key_len = 1, .value = value, .value_len = 400000 },
	};
	emdb_db *db = store_new();

	return closed(db, emdb_put_many(db, EMDB_ROOT, items, 3));
}

static emdb_err p_conflict(void)
{
	const struct emdb_value expected = { "other", 5 };
	emdb_db *db = store_new();

	return closed(db, emdb_cas(db, EMDB_ROOT, "key", 3, &expected, &expected, 0));
}

static emdb_err p_key_required(void)
{
	CHECK_OK(emdb_close(store_of(&secrets[0])));
	return reopened(0, NULL);
}

static emdb_err p_wrong_key(void)
{
	CHECK_OK(emdb_close(store_of(&secrets[0])));
	return reopened(0, &secrets[1]);
}

static bool no(void *ctx, uint64_t done, uint64_t total)
{
	(void)ctx, (void)done, (void)total;
	return false;
}

static emdb_err p_cancelled(void)
{
	const struct emdb_convert_options o = { .size = sizeof(o), .progress = no };
	emdb_err err;

	CHECK_OK(emdb_close(store_new()));
	err = emdb_encrypt(path, &secrets[0], &o);
	CHECK_OK(reopened(0, NULL));
	return err;
}

static emdb_err p_not_ordered(void)
{
	emdb_db *db = store_new();
	emdb_iter *it;

	return closed(db, emdb_range_new(db, EMDB_ROOT, NULL, &it));
}

/* Durable, as what comes later says, and not in a checkpoint. */
static emdb_err p_damaged(void)
{
	emdb_db *db = store_new();

	CHECK_OK(emdb_flush(db));
	CHECK_OK(put(db, "later"));
	host_fails(IO_MASK_ALL & ~IO_MASK(IO_OP_CLOSE), -EIO); /* so that closing leaves none */
	(void)emdb_close(db);
	host_calm();
	spoil("value");
	return reopened(0, NULL);
}

static emdb_err p_again(void)
{
	const struct emdb_async_options one = { .size = sizeof(one), .threads = 1, .depth = 1 };
	const struct emdb_op op = { .size = sizeof(op), .kind = EMDB_OP_FLUSH };
	emdb_db *db = store_new();
	emdb_async *async;
	emdb_err err;

	CHECK_OK(emdb_async_new(db, &one, &async));
	CHECK_OK(emdb_async_submit(async, &op, NULL));
	err = emdb_async_submit(async, &op, NULL);
	emdb_async_free(async);
	return closed(db, err);
}

static emdb_err p_not_encrypted(void)
{
	CHECK_OK(emdb_close(store_new()));
	return reopened(0, &secrets[0]);
}

/* ---- All of them ---- */

#define ROW(code, fn) [-(EMDB_##code)] = fn

static emdb_err (*const rows[])(void) = {
	ROW(OK, p_ok),
	ROW(ERR_INVAL, p_inval),
	ROW(ERR_NOMEM, p_nomem),
	ROW(ERR_NOT_FOUND, p_not_found),
	ROW(ERR_EXISTS, p_exists),
	ROW(ERR_NOT_NS, p_not_ns),
	ROW(ERR_IS_NS, p_is_ns),
	ROW(ERR_NOT_EMPTY, p_not_empty),
	ROW(ERR_KEY_TOO_LONG, p_key_too_long),
	ROW(ERR_VALUE_TOO_LARGE, p_value_too_large),
	ROW(ERR_NO_SPACE, p_no_space),
	ROW(ERR_IO, p_io),
	ROW(ERR_CORRUPT, p_corrupt),
	ROW(ERR_FAILED, p_failed),
	ROW(ERR_READ_ONLY, p_read_only),
	ROW(ERR_LOCKED, p_locked),
	ROW(ERR_NO_STORE, p_no_store),
	ROW(ERR_NOT_STORE, p_not_store),
	ROW(ERR_VERSION, p_version),
	ROW(ERR_PERM, p_perm),
	ROW(ERR_NO_XATTR, p_no_xattr),
	ROW(ERR_RANGE, p_range),
	ROW(ERR_TOO_MANY_LINKS, p_too_many_links),
	ROW(ERR_LOOP, p_loop),
	ROW(ERR_BUSY, p_busy),
	ROW(ERR_UNSUPPORTED, p_unsupported),
	ROW(ERR_OVERFLOW, p_overflow),
	ROW(ERR_TOO_MANY_FILES, p_too_many_files),
	ROW(ERR_HOLDER_ALIVE, p_holder_alive),
	ROW(ERR_TXN_TOO_BIG, p_txn_too_big),
	ROW(ERR_CONFLICT, p_conflict),
	ROW(ERR_KEY_REQUIRED, p_key_required),
	ROW(ERR_WRONG_KEY, p_wrong_key),
	ROW(ERR_CANCELLED, p_cancelled),
	ROW(ERR_NOT_ORDERED, p_not_ordered),
	ROW(ERR_DAMAGED, p_damaged),
	ROW(ERR_AGAIN, p_again),
	ROW(ERR_NOT_ENCRYPTED, p_not_encrypted),
};
static_assert(ARRAY_SIZE(rows) == EMDB_ERR_COUNT_, "every error code is to be provoked");

TEST(test_provoked__every_code)
{
	posix = emdb_io_posix_new();
	fault = emdb_io_fault_new(posix);
	CHECK(posix && fault);
	for (int i = 0; i < EMDB_ERR_COUNT_; i++) {
		const emdb_err want = (emdb_err)-i;
		emdb_err got;

		if (!rows[i])
			FAIL("nothing provokes %s", emdb_err_name(want));
		got = rows[i]();
		if (got != want)
			FAIL("%s was to be provoked, and it is %s (%s)", emdb_err_name(want),
			     emdb_err_name(got), emdb_strerror(got));
	}
	emdb_io_free(fault);
	emdb_io_free(posix);
	fault = NULL;
}

TEST_MAIN()
