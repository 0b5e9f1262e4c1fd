/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No pair of key and nonce is used twice (I9): stores are written, killed, cut, rolled back, put back
 * as they were, restored twice from one backup and both written, given new keys, and killed in the
 * middle of that. Two look on. One sees every call of seal() in every process (nonce_used.h). The other
 * looks at all sealed records on disk after every step, and at the key slots: a pair is salt of the file
 * and place in it, together with the data key, of which it knows only how often it was replaced. The same
 * pair with other bytes is a nonce that was used again.
 *
 * With EMDB_LONG=1 thousands of each. A control takes the salts' randomness away, and both must see it.
 */
#include <signal.h>
#include <sys/wait.h>

#include "core/format.h"
#include "core/format_ckpt.h"
#include "core/sealed.h"
#include "tests/unit/encrypted_help.h"
#include "tests/unit/nonce_used.h"

#define ROUNDS 14
/* More stores, not longer lives: so that looking at all of it stays quick. */
#define ROUNDS_LONG 50
#define LIVES_LONG  160

/* What was done. */
static struct {
	unsigned int kills, cuts, restores, rollbacks, rotations, cut_rotations, put_back;
} done;

/* ---- All pairs that were ever seen ---- */

struct pair {
	uint8_t salt[32];
	uint64_t place; /* UINT64_MAX: free */
	uint32_t crc;   /* of what is sealed */
};

static struct pair *pairs;
static size_t npairs, cap, repeats;

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
		if (!repeats++)
			printf("%s: place %" PRIx64 " is sealed twice under one salt\n", path,
			       place);
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

/* A slot's nonce is random, and so is the salt of its wrapping key. */
static void see_superblock(const char *path, const uint8_t *p, size_t n)
{
	struct superblock sb;

	if (fmt_super_decode(p, n, &sb))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(sb.slots); i++) {
		const struct fmt_key_slot *const s = &sb.slots[i];

		if (s->kind)
			see(path, s->salt, get_u64(s->nonce) >> 1, s->sealed, sizeof(s->sealed));
	}
}

static void see_file(void *ctx, const char *path, uint8_t *p, size_t n)
{
	(void)ctx;
	if (strstr(path, ".seg"))
		see_segment(path, p, n);
	else if (strstr(path, "/checkpoint-"))
		see_checkpoint(path, p, n);
	else if (strstr(path, "/superblock"))
		see_superblock(path, p, n);
}

static void see_store(const char *path)
{
	each_file(path, see_file, NULL);
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
				  (size_t)(test_rand(rnd) % (i % 8 ? 300 : sizeof(value))), 0));
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

/* What a child does until it is killed: by us, or at a random one of its seals. */
static bool killed(void (*run)(const char *path, uint64_t *rnd), const char *path, uint64_t *rnd)
{
	const bool at_seal = test_rand(rnd) % 2;
	const unsigned int us = (unsigned int)(test_rand(rnd) % (long_run() ? 4000 : 30000));
	const int64_t seals = 1 + (int64_t)(test_rand(rnd) % 300);
	int status;
	pid_t pid;

	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (at_seal)
			used_die_after(seals);
		run(path, rnd);
		_exit(0);
	}
	if (!at_seal) {
		usleep(us);
		CHECK_EQ(kill(pid, SIGKILL), 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	used_die_after(0);
	CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
	(void)test_rand(rnd);
	done.kills += WIFSIGNALED(status);
	return WIFSIGNALED(status);
}

static void write_for_ever(const char *path, uint64_t *rnd)
{
	emdb_db *const db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

	for (;;)
		put_some(db, rnd, 100);
}

/* The next rotation goes on where this one ends, or the next open does. */
static void rotate_in_child(const char *path, uint64_t *rnd)
{
	(void)rnd;
	CHECK_OK(emdb_rotate(path, &secret, 1, NULL));
}

static void rotate(const char *path, uint64_t *rnd)
{
	if (test_rand(rnd) % 2) {
		if (killed(rotate_in_child, path, rnd))
			done.cut_rotations++;
		else
			done.rotations++;
		return;
	}
	CHECK_OK(emdb_rotate(path, &secret, 1, NULL));
	done.rotations++;
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
	done.cuts++;
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
	see_store(a);
	write_store(b, rnd, 20);
	see_store(b);
	write_store(path, rnd, 20);
	see_store(path);
	done.restores += 2;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s' '%s' '%s'", backup, a, b);
	CHECK_EQ(system(cmd), 0);
}

static void roll_back(const char *path, uint64_t *rnd)
{
	emdb_db *db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);

	CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	put_some(db, rnd, 30);
	CHECK_OK(emdb_close(db));
	see_store(path);
	CHECK_OK(emdb_rollback(path, "s", 0, NULL));
	done.rollbacks++;
	write_store(path, rnd, 30);
	see_store(path);
	db = open_store(path, &secret, EMDB_CIPHER_DEFAULT);
	CHECK_OK(emdb_snapshot_delete(db, "s"));
	CHECK_OK(emdb_close(db));
}

/* The cut may have taken what was durable: then the store is the old one. */
static void cut(const char *path, const char *old, uint64_t *rnd)
{
	emdb_db *db;

	cut_tail(path, rnd);
	see_store(path);
	if (open_err(path, &secret, EMDB_CIPHER_DEFAULT, &db) == EMDB_OK)
		CHECK_OK(emdb_close(db));
	else
		copy_store(old, path);
}

/* One of seven things. */
static void step(unsigned int what, const char *dir, const char *path, const char *old,
		 uint64_t *rnd)
{
	switch (what) {
	case 0:
		copy_store(path, old);
		break;
	case 1:
		copy_store(old, path);
		done.put_back++;
		break;
	case 2:
		cut(path, old, rnd);
		break;
	case 3:
		roll_back(path, rnd);
		break;
	case 4:
		restore_twice(path, dir, rnd);
		break;
	case 5:
		rotate(path, rnd);
		break;
	default:
		(void)killed(write_for_ever, path, rnd);
		break;
	}
	see_store(path);
}

static void forget_all(void)
{
	free(pairs);
	pairs = NULL;
	npairs = cap = repeats = 0;
	used_free();
}

static void tell_figures(void)
{
	printf("%u kills, %u truncations, %u restores, %u rollbacks, %u old copies put back, %u rotations and "
	       "%u that were killed\n",
	       done.kills, done.cuts, done.restores, done.rollbacks, done.put_back, done.rotations,
	       done.cut_rotations);
	printf("%" PRIu64 " seals, %" PRIu64 " nonces, %" PRIu64
	       " sealed again as they were, %" PRIu64 " repeats; on disk %zu nonces, %zu repeats\n",
	       atomic_load(&used->seals), atomic_load(&used->pairs), atomic_load(&used->same),
	       atomic_load(&used->repeats), npairs, repeats);
}

/* The life of one store; of the steps the first are one of each kind, if it is the first store. */
static void one_life(const char *dir, int rounds, bool first, uint64_t *rnd)
{
	/* Of 16 steps, how many are of which kind. */
	static const uint8_t kinds[16] = { 0, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6 };
	char path[PATH_MAX + 16], old[PATH_MAX + 16], cmd[2 * PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/store", dir);
	snprintf(old, sizeof(old), "%s/old", dir);
	write_store(path, rnd, 50);
	copy_store(path, old);
	for (int i = 0; i < rounds; i++) {
		step(first && i < ROUNDS ? (unsigned int)i % 7 : kinds[test_rand(rnd) % 16], dir,
		     path, old, rnd);
		write_store(path, rnd, 10);
		see_store(path);
		if (repeats || atomic_load(&used->repeats)) {
			tell_figures();
			FAIL("a nonce was used again in round %d", i);
		}
	}
	snprintf(cmd, sizeof(cmd), "rm -rf '%s' '%s'", path, old);
	CHECK_EQ(system(cmd), 0);
}

TEST(test_nonce__none_is_used_twice)
{
	const int lives = long_run() ? LIVES_LONG : 1;
	uint64_t rnd = test_seed();
	const char *dir;

	/* Nothing here is about disks, and the long run is about numbers. */
	if (long_run() && access("/dev/shm", W_OK) == 0)
		CHECK_EQ(setenv("TMPDIR", "/dev/shm", 0), 0);
	dir = test_dir();
	used_new(long_run() ? 1u << 24 : 1u << 18);
	for (int i = 0; i < lives; i++)
		one_life(dir, long_run() ? ROUNDS_LONG : ROUNDS, i == 0, &rnd);
	tell_figures();
	CHECK(npairs > 500 && atomic_load(&used->pairs) > 500);
	if (long_run())
		CHECK(done.kills > 1000 && done.cuts > 1000 && done.restores > 1000 &&
		      done.rotations + done.cut_rotations > 1000);
	forget_all();
}

/* Without randomness in salts a copy from before is sealed like the first: both must say so. */
TEST(test_nonce__a_repeat_is_found)
{
	const char *const dir = test_dir();
	char path[PATH_MAX + 16], old[PATH_MAX + 16];
	uint64_t rnd = test_seed();

	used_new(1u << 18);
	snprintf(path, sizeof(path), "%s/store", dir);
	snprintf(old, sizeof(old), "%s/old", dir);
	write_store(path, &rnd, 50);
	copy_store(path, old);
	for (int random = 1; random >= 0; random--) {
		atomic_store(&used->no_random, !random);
		for (int i = 0; i < 2; i++) {
			write_store(path, &rnd, 20);
			see_store(path);
			copy_store(old, path);
		}
		printf("%s randomness: %" PRIu64 " repeats, on disk %zu\n",
		       random ? "with" : "without", atomic_load(&used->repeats), repeats);
		CHECK_EQ(atomic_load(&used->repeats) > 0, !random);
		CHECK_EQ(repeats > 0, !random);
	}
	atomic_store(&used->no_random, false);
	forget_all();
}

TEST_MAIN()
