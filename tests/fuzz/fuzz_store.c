/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole store made by an enemy, who knows the format and, of an encrypted one, even the key. It is
 * opened read-only, for salvage and for writing, everything in it is read, it is checked, changed,
 * compacted, snapshots of it are opened, it is repaired, converted, rolled back and backed up, and opened once
 * more. Nothing of that may crash, hang, take memory without bounds, leave a file open, or
 * touch anything beside the store; and what we put ourselves stays.
 *
 * An input is a packed store (store_pack.h) in memory. Bytes that are changed at random would only
 * test CRCs, so inputs are changed by store_mutate.h, which makes sums, seals and MACs right again.
 *
 * STORE_SEEDS=DIR makes the inputs to begin with, in DIR, and ends.
 */
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/fuzz/store_mutate.h"
#include "tests/fuzz/store_seeds.h"

#define NOW_NS     UINT64_C(1700000000000000000)
#define LATER_NS   (NOW_NS + UINT64_C(10000000000))
#define MEMORY_MAX (512u << 20)

/* ---- The host: memory, one clock, the same random bytes for the same input ---- */

static struct host {
	struct emdb_io io;
	struct emdb_io_ops ops;
	struct emdb_io *mem;
	bool making;
	_Atomic(int) open;
	_Atomic(uint64_t) rng, now, memory;
} host;

struct emdb_io *__real_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void);
struct emdb_io *__wrap_emdb_io_posix_new(void)
{
	if (host.making)
		return __real_emdb_io_posix_new();
	emdb_io_ref(&host.io);
	return &host.io;
}

static int host_openat(struct emdb_io *io, int dirfd, const char *name, int flags, mode_t mode,
		       int *ret_fd)
{
	const int rc = host.mem->ops->openat(io, dirfd, name, flags, mode, ret_fd);

	host.open += rc == 0;
	return rc;
}

static int host_close(struct emdb_io *io, int fd)
{
	host.open--;
	return host.mem->ops->close(io, fd);
}

static uint64_t host_now(struct emdb_io *io)
{
	(void)io;
	return host.now;
}

static int host_random(struct emdb_io *io, void *buf, size_t n)
{
	uint8_t *const p = buf;

	(void)io;
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(atomic_fetch_add(&host.rng, UINT64_C(0x9e3779b97f4a7c15)) >> 29);
	return 0;
}

/* Memory of the library, bounded. */
static void *counted(void *p)
{
	if (p && atomic_fetch_add(&host.memory, malloc_usable_size(p)) > MEMORY_MAX)
		abort();
	return p;
}

static void host_free(void *p)
{
	atomic_fetch_sub(&host.memory, malloc_usable_size(p));
	free(p);
}

static void *host_malloc(size_t n)
{
	return counted(malloc(n));
}

static void *host_calloc(size_t count, size_t n)
{
	return counted(calloc(count, n));
}

static void *host_realloc(void *p, size_t n)
{
	const size_t was = p ? malloc_usable_size(p) : 0;
	void *const q = realloc(p, n);

	if (q)
		atomic_fetch_sub(&host.memory, was);
	return counted(q);
}

static void host_keep(struct emdb_io *io)
{
	(void)io;
}

static void host_begin(void)
{
	host.making = true;
	host.mem = emdb_io_mem_new();
	host.making = false;
	emdb_assert(host.mem);
	host.ops = *host.mem->ops;
	host.ops.openat = host_openat;
	host.ops.close = host_close;
	host.ops.clock_real_ns = host_now;
	host.ops.random = host_random;
	host.ops.free = host_keep;
	host.io.ops = &host.ops;
	host.io.ctx = host.mem->ctx;
	host.open = 0;
	host.rng = 1;
	host.now = LATER_NS;
}

/* io_list callback: only the store and what we asked for by name. */
static int expect_ours(void *arg, const char *name)
{
	(void)arg;
	emdb_assert(strcmp(name, "s") == 0 || strcmp(name, "target") == 0 ||
		    strcmp(name, "backup") == 0 || strcmp(name, "restored") == 0);
	return 0;
}

static void host_end(void)
{
	int root;

	emdb_assert(host.open == 0);
	emdb_assert(!io_openat(host.mem, AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0, &root));
	emdb_assert(!io_list(host.mem, root, expect_ours, NULL));
	(void)io_close(host.mem, root);
	emdb_io_free(host.mem);
}

/* ---- One store ---- */

static emdb_err open_at(const char *path, unsigned int flags, const struct pack *p, emdb_db **ret)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options o = { .size = sizeof(o),
				  .flags = flags,
				  .commit_interval_s = -1,
				  .sweep_interval_ms = -1,
				  .compact_percent = -1,
				  .detail = &detail };
	emdb_err err;

	if (p->todo & PACK_DO_ORDERED)
		o.flags |= EMDB_OPEN_ORDERED;
	if (p->todo & PACK_DO_ALWAYS)
		o.verify = EMDB_VERIFY_ALWAYS;
	err = emdb_open(path, &o, ret);
	if (err == EMDB_ERR_KEY_REQUIRED) {
		o.secret = &mill_secret;
		err = emdb_open(path, &o, ret);
	}
	known_err(err);
	if (err && getenv("VERBOSE"))
		(void)fprintf(stderr, "open %s, flags %x: %s: %s\n", path, flags,
			      emdb_err_name(err), detail.text);
	return err;
}

static bool open_snapshot(void *ctx, const struct emdb_snapshot *s)
{
	emdb_db *const db = ctx;
	emdb_db *snap;

	if (emdb_snapshot_open(db, s->name, NULL, &snap))
		return true;
	walk_store(snap, false);
	(void)emdb_close(snap);
	return true;
}

static void read_all(const char *path, unsigned int flags, const struct pack *p, bool kept)
{
	emdb_db *db;

	if (open_at(path, flags | EMDB_OPEN_READ_ONLY, p, &db)) {
		emdb_assert(!kept);
		return;
	}
	if (kept)
		expect_kept(db);
	walk_store(db, p->todo & PACK_DO_ORDERED);
	known_err(emdb_snapshot_list(db, open_snapshot, db));
	known_err(emdb_close(db));
}

static void write_all(const char *path, const struct pack *p)
{
	bool kept = false;
	emdb_db *db;
	emdb_err err = open_at(path, 0, p, &db);

	if (err)
		return;
	change_store(db, &kept);
	if (kept)
		expect_kept(db);
	walk_store(db, p->todo & PACK_DO_ORDERED);
	known_err(emdb_snapshot_list(db, open_snapshot, db));
	if (p->todo & PACK_DO_TARGET)
		known_err(emdb_backup(db, "backup", NULL, NULL));
	err = emdb_close(db);
	known_err(err);
	read_all(path, 0, p, kept && !err);
	if (!err)
		known_err(emdb_restore("backup", "restored", NULL, NULL));
}

static void found(void *ctx, const struct emdb_detail *d)
{
	emdb_assert(memchr(d->text, 0, sizeof(d->text)) && memchr(d->path, 0, sizeof(d->path)));
	++*(uint64_t *)ctx;
}

static const struct emdb_secret *secret_of(const char *path)
{
	struct emdb_encryption e;
	const emdb_err err = emdb_encryption_get(path, &e);

	known_err(err);
	return !err && e.cipher ? &mill_secret : NULL;
}

static void check_all(const char *path)
{
	struct emdb_check_report report;
	struct emdb_lock_info info;
	uint64_t n = 0;

	known_err(emdb_check_secret(path, secret_of(path), found, &n, &report));
	known_err(emdb_lock_holder(path, &info));
}

static void repair_all(const char *path, const char *target, unsigned int flags,
		       const struct pack *p)
{
	uint64_t n = 0;
	const struct emdb_repair_options o = { .size = sizeof(o),
					       .flags = flags,
					       .target = target,
					       .secret = secret_of(path),
					       .found = found,
					       .ctx = &n };
	struct emdb_repair_report report;
	emdb_db *db;
	const emdb_err err = emdb_repair(path, &o, &report);

	known_err(err);
	if (err || flags)
		return;
	/* That is what it is for. */
	emdb_assert(open_at(target ? target : path, 0, p, &db) == EMDB_OK);
	walk_store(db, p->todo & PACK_DO_ORDERED);
	known_err(emdb_close(db));
}

static void convert_all(const char *path)
{
	static const struct emdb_convert_options how = { .size = sizeof(how),
							 .cipher = EMDB_CIPHER_CHACHA20_POLY1305 };

	if (!secret_of(path)) {
		known_err(emdb_encrypt(path, &mill_secret, &how));
		return;
	}
	known_err(emdb_rotate(path, &mill_secret, 1, &how));
	known_err(emdb_decrypt(path, &mill_secret, &how));
}

static void change_keys(const char *path)
{
	static const uint8_t other[32] = "another key for another key slot";
	static const struct emdb_secret new = { EMDB_SECRET_KEY, other, 32, "other", 0, 0, 0 };
	uint32_t slot;

	if (emdb_key_add(path, &mill_secret, &new, &slot, NULL) == EMDB_OK)
		known_err(emdb_key_remove(path, &mill_secret, slot, NULL));
}

static void do_all(const struct pack *p)
{
	read_all("s", 0, p, false);
	read_all("s", EMDB_OPEN_SALVAGE, p, false);
	check_all("s");
	if (p->todo & PACK_DO_KEYS)
		change_keys("s");
	if (p->todo & PACK_DO_ROLL)
		known_err(emdb_rollback("s", EMDB_SNAPSHOT_LATEST, 0, NULL));
	if (p->todo & PACK_DO_CONVERT)
		convert_all("s");
	if (p->todo & PACK_DO_REPAIR)
		repair_all("s", p->todo & PACK_DO_TARGET ? "target" : NULL, 0, p);
	else
		repair_all("s", NULL, EMDB_REPAIR_DRY_RUN, p);
	if (p->todo & PACK_DO_WRITE)
		write_all("s", p);
	else
		read_all("s", 0, p, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct pack p;

	pack_take(&p, data, n);
	host_begin();
	(void)!io_mkdirat(host.mem, AT_FDCWD, "s", 0700);
	pack_write(&p, host.mem, "s");
	do_all(&p);
	host_end();
	pack_release(&p);
	return 0;
}

/* ---- Inputs ---- */

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned int seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned int seed)
{
	return mutate_store(data, n, max, seed);
}

static void make_seeds(const char *dir)
{
	static uint8_t out[PACK_SIZE];
	char path[4096];

	for (size_t i = 0; i < ARRAY_SIZE(seeds); i++) {
		struct pack p;
		size_t n;
		int fd;

		host_begin();
		host.now = NOW_NS;
		seed_make(&seeds[i], host.mem, "s", &p);
		host_end();
		n = pack_put(&p, out, sizeof(out));
		pack_release(&p);
		(void)snprintf(path, sizeof(path), "%s/%s", dir, seeds[i].name);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		emdb_assert(fd >= 0 && n && write(fd, out, n) == (ssize_t)n);
		(void)close(fd);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct base_allocator table = { host_malloc, host_calloc, host_realloc,
						     host_free };

	(void)argc, (void)argv;
	base_set_allocator(&table);
	(void)setenv("EMDB_NO_URING", "1", 1);
	if (getenv("STORE_SEEDS")) {
		make_seeds(getenv("STORE_SEEDS"));
		exit(0);
	}
	return 0;
}
