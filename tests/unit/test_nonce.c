/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No pair of key and nonce is used twice (I9): stores are written, killed, cut, rolled back, restored
 * twice from one backup and both written, given new keys; after every step all sealed records on
 * disk are looked at. A pair is salt of the file and place in it, together with the data key, of
 * which this test knows only how often it was replaced. The same pair with other bytes is a nonce
 * that was used again.
 */
#include <signal.h>
#include <sys/wait.h>

#include "core/format.h"
#include "core/format_ckpt.h"
#include "core/sealed.h"
#include "tests/unit/encrypted_help.h"

#define ROUNDS 12 /* with EMDB_LONG=1 ten times as many */

/* ---- All pairs that were ever seen ---- */

struct pair {
	uint8_t salt[32];
	uint64_t place; /* UINT64_MAX: free */
	uint32_t crc;   /* of what is sealed */
};

static struct pair *pairs;
static size_t npairs, cap;

static struct pair *slot_of(const uint8_t *salt, uint64_t place)
{
	uint64_t h = place * UINT64_C(0x9e3779b97f4a7c15) ^ get_u64(salt);

	for (;; h++) {
		struct pair *const p = &pairs[h & (cap - 1)];

		if (p->place == UINT64_MAX || (p->place == place && memcmp(p->salt, salt, 32) == 0))
			return p;
	}
}

static void grow(void)
{
	struct pair *const old = pairs;
	const size_t n = cap;

	cap = n ? n * 2 : 4096;
	pairs = malloc(cap * sizeof(*pairs));
	memset(pairs, 0xff, cap * sizeof(*pairs));
	for (size_t i = 0; i < n; i++)
		if (old[i].place != UINT64_MAX)
			*slot_of(old[i].salt, old[i].place) = old[i];
	free(old);
}

static void see(const char *path, const uint8_t *salt, uint64_t place, const uint8_t *p, size_t n)
{
	const uint32_t crc = crc32c(0, p, n);
	struct pair *s;

	if (npairs * 2 >= cap)
		grow();
	s = slot_of(salt, place);
	if (s->place == UINT64_MAX) {
		memcpy(s->salt, salt, 32);
		s->place = place;
		s->crc = crc;
		npairs++;
	} else if (s->crc != crc) {
		FAIL("%s: place %lx is sealed twice under one salt", path, (unsigned long)place);
	}
}

/* ---- What is on disk ---- */

static void see_segment(const char *path, const uint8_t *p, size_t n)
{
	struct seg_header h;
	uint64_t base;

	if (!fmt_seg_decode(p, n, &h))
		return;
	base = h.id << h.segment_shift;
	/* What a killed process has written in part is passed over; it is no whole frame. */
	for (size_t off = FMT_SEG_HEADER; off + FMT_FRAME_HEADER <= n;) {
		const struct sealed_tags t = { h.tags_off ? p + h.tags_off : NULL, h.tags };
		struct sealed_rec r;
		struct frame f;

		if ((h.tags_off && off >= h.tags_off) ||
		    fmt_frame_parse(p + off, n - off, base + off, true, fmt_crc_seed(h.salt), &f) !=
			    FRAME_OK) {
			off += 8;
			continue;
		}
		off += f.len;
		if (f.kind != FRAME_BATCH) {
			CHECK(sealed_single(&f, &t, &r));
			see(path, h.salt, r.place, r.src, r.n);
			continue;
		}
		for (uint32_t at = FMT_BATCH_HEADER; at < f.len;
		     at += (get_u32(f.p + at) & 0xffffffu) * 8u) {
			CHECK(sealed_in_batch(&f, &t, at, &r));
			see(path, h.salt, r.place, r.src, r.n);
		}
	}
}

static void see_checkpoint(const char *path, const uint8_t *p, size_t n)
{
	struct ckpt_block b;
	struct ckpt_head h = { .sealed = false };

	for (size_t off = 0; off + CKPT_BLOCK_HEADER <= n;) {
		const uint32_t len = fmt_ckpt_len(p + off);

		if (!len || len > n - off || !fmt_ckpt_open(p + off, len, &b))
			return;
		off += len;
		if (b.kind == CKPT_HEAD) {
			b.n -= CRYPTO_TAG;
			CHECK(fmt_ckpt_head_get(&b, &h) && h.sealed);
		} else {
			see(path, h.salt, b.index, b.p, b.n);
		}
	}
}

static void see_file(void *ctx, const char *path, uint8_t *p, size_t n)
{
	(void)ctx;
	if (strstr(path, ".seg"))
		see_segment(path, p, n);
	else if (strstr(path, "/checkpoint-"))
		see_checkpoint(path, p, n);
}

/* ---- What happens to stores ---- */

static void put_some(emdb_db *db, uint64_t *rnd, int n)
{
	static uint8_t value[20000];

	for (int i = 0; i < n; i++) {
		const struct emdb_item items[2] = {
			{ .key = "one", .key_len = 3, .value = &i, .value_len = sizeof(i) },
			{ .key = "two", .key_len = 3, .value = &i, .value_len = sizeof(i) }
		};
		char key[16];

		snprintf(key, sizeof(key), "k%u", (unsigned int)(test_rand(rnd) % 50));
		memset(value, (int)test_rand(rnd), sizeof(value));
		CHECK_OK(emdb_put(db, EMDB_ROOT, key, strlen(key), value,
				  (size_t)(test_rand(rnd) % sizeof(value)), 0));
		if (i % 8 == 0)
			CHECK_OK(emdb_put_many(db, EMDB_ROOT, items, 2));
		if (i % 32 == 0)
			CHECK_OK(emdb_checkpoint(db));
	}
}

static void write_store(const char *path, uint64_t *rnd, int n)
{
	emdb_db *const db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

	put_some(db, rnd, n);
	CHECK_OK(emdb_close(db));
}

static void write_killed(const char *path, uint64_t *rnd)
{
	const useconds_t us = (useconds_t)(test_rand(rnd) % 30000);
	pid_t pid;

	(void)test_rand(rnd);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		emdb_db *const db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

		for (;;)
			put_some(db, rnd, 100);
	}
	usleep(us);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

struct newest {
	char path[PATH_MAX + 300];
};

static void find_newest(void *ctx, const char *path, uint8_t *p, size_t n)
{
	struct newest *const w = ctx;

	(void)p;
	(void)n;
	if (strstr(path, ".seg") && !strstr(path, "/snapshots/") && strcmp(path, w->path) > 0)
		snprintf(w->path, sizeof(w->path), "%s", path);
}

/* As after a power failure: the end of what was written last is not there. */
static void cut_tail(const char *path, uint64_t *rnd)
{
	struct newest w = { "" };
	struct stat st;

	each_file(path, find_newest, &w);
	if (!w.path[0] || stat(w.path, &st) != 0 || st.st_size <= FMT_SEG_HEADER)
		return;
	CHECK_EQ(truncate(w.path,
			  FMT_SEG_HEADER + (off_t)(test_rand(rnd) % (uint64_t)(st.st_size - 255))),
		 0);
}

/* A copy from before: what came after is written once more, differently. */
static void copy_store(const char *from, const char *to)
{
	char cmd[2 * PATH_MAX + 64];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
	CHECK_EQ(system(cmd), 0);
}

/* Two stores out of one backup, both written; and one of them goes on. */
static void restore_twice(const char *path, const char *dir, uint64_t *rnd)
{
	char backup[PATH_MAX + 16], a[PATH_MAX + 16], b[PATH_MAX + 16], cmd[3 * PATH_MAX + 64];
	emdb_db *const db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

	snprintf(backup, sizeof(backup), "%s/backup", dir);
	snprintf(a, sizeof(a), "%s/a", dir);
	snprintf(b, sizeof(b), "%s/b", dir);
	CHECK_OK(emdb_backup(db, backup, NULL, NULL));
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_restore(backup, a, NULL, NULL));
	CHECK_OK(emdb_restore(backup, b, NULL, NULL));
	write_store(a, rnd, 20);
	each_file(a, see_file, NULL);
	write_store(b, rnd, 20);
	each_file(b, see_file, NULL);
	write_store(path, rnd, 20);
	each_file(path, see_file, NULL);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s' '%s' '%s'", backup, a, b);
	CHECK_EQ(system(cmd), 0);
}

static void roll_back(const char *path, uint64_t *rnd)
{
	emdb_db *db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	put_some(db, rnd, 30);
	CHECK_OK(emdb_close(db));
	each_file(path, see_file, NULL);
	CHECK_OK(emdb_rollback(path, "s", 0, NULL));
	write_store(path, rnd, 30);
	each_file(path, see_file, NULL);
	db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);
	CHECK_OK(emdb_snapshot_delete(db, "s"));
	CHECK_OK(emdb_close(db));
}

TEST(test_nonce__none_is_used_twice)
{
	const int rounds = long_run() ? ROUNDS * 10 : ROUNDS;
	const char *const dir = test_dir();
	char path[PATH_MAX + 16], old[PATH_MAX + 16];
	uint64_t rnd = test_seed();

	snprintf(path, sizeof(path), "%s/store", dir);
	snprintf(old, sizeof(old), "%s/old", dir);
	write_store(path, &rnd, 50);
	copy_store(path, old);
	for (int i = 0; i < rounds; i++) {
		const unsigned int r =
			i < 8 ? (unsigned int)i * 12 : (unsigned int)(test_rand(&rnd) % 100);

		if (r < 12)
			copy_store(path, old);
		else if (r < 24)
			copy_store(old, path);
		else if (r < 36)
			cut_tail(path, &rnd);
		else if (r < 44)
			roll_back(path, &rnd);
		else if (r < 52)
			restore_twice(path, dir, &rnd);
		else if (r < 60)
			CHECK_OK(emdb_rotate(path, &secret, 1, NULL));
		else
			write_killed(path, &rnd);
		each_file(path, see_file, NULL);
		/* The cut may have taken what was durable: then the store is the old one. */
		if (r >= 24 && r < 36) {
			emdb_db *db;

			if (open_err(path, &secret, EMDB_CIPHER_DEFAULT, &db) == EMDB_OK)
				CHECK_OK(emdb_close(db));
			else
				copy_store(old, path);
		}
		write_store(path, &rnd, 10);
		each_file(path, see_file, NULL);
	}
	printf("%zu pairs\n", npairs);
	CHECK(npairs > 500);
	free(pairs);
	pairs = NULL;
	npairs = cap = 0;
}

TEST_MAIN()
