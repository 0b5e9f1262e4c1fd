/* SPDX-License-Identifier: Apache-2.0 */
/* Stores are encrypted, decrypted and get new data keys: all of it stays, whenever it is killed. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/encrypted_help.h"

/* With EMDB_LONG=1 ten times as many. */
#define KILLS 6

/* Plain and sealed, live and dead, batches, big ones and links, checkpoints, two snapshots. */
static void fill(const char *path, const struct emdb_secret *s)
{
	emdb_db *db = open_store(path, s, EMDB_CIPHER_DEFAULT);
	char key[32], value[3000];

	memset(value, 'v', sizeof(value));
	plant(db);
	CHECK_OK(emdb_snapshot_create(db, "first", NULL));
	for (int i = 0; i < 450; i++) {
		snprintf(key, sizeof(key), "k%d", i % 300);
		CHECK_OK(emdb_put(db, EMDB_ROOT, key, strlen(key), value, (size_t)(i * 3), 0));
	}
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%d", i * 3);
		CHECK_OK(emdb_remove(db, EMDB_ROOT, key, strlen(key), NULL, NULL));
	}
	CHECK_OK(emdb_checkpoint(db));
	CHECK_OK(emdb_close(db));
	db = open_store(path, s, EMDB_CIPHER_DEFAULT);
	CHECK_OK(emdb_snapshot_create(db, "second", NULL));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "last", 4, "one", 3, 0));
	CHECK_OK(emdb_close(db));
}

/* What live store and snapshots hold, as text. */
static struct buf tell_all(const char *path, const struct emdb_secret *s)
{
	emdb_db *const db = open_store(path, s, EMDB_CIPHER_DEFAULT), *snap;
	static const char *const names[] = { "first", "second" };
	struct buf all = tell_store(db);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct buf b;

		CHECK_OK(emdb_snapshot_open(db, names[i], NULL, &snap));
		b = tell_store(snap);
		tell(&all, b.data, b.len);
		buf_release(&b);
		CHECK_OK(emdb_close(snap));
	}
	CHECK_OK(emdb_close(db));
	return all;
}

static void check_told(const char *path, const struct emdb_secret *s, const struct buf *want)
{
	struct buf got = tell_all(path, s);

	CHECK_MEM(got.data, got.len, want->data, want->len);
	buf_release(&got);
}

static void check_whole(const char *path, const struct emdb_secret *s)
{
	struct emdb_check_report report;

	CHECK_OK(emdb_check_secret(path, s, NULL, NULL, &report));
}

static bool is_encrypted(const char *path)
{
	struct emdb_encryption e;

	CHECK_OK(emdb_encryption_get(path, &e));
	return e.cipher != EMDB_CIPHER_DEFAULT;
}

/* Writes, compacts, backs up and restores: what is converted is a store like any other. */
static void check_lives(const char *path, const struct emdb_secret *s)
{
	const char *const dir = test_dir();
	char backup[PATH_MAX + 16], again[PATH_MAX + 16];
	emdb_db *db = open_store(path, s, EMDB_CIPHER_DEFAULT);
	const struct emdb_backup_options copy = { .size = sizeof(copy), .flags = EMDB_BACKUP_COPY };
	struct buf was, is;

	snprintf(backup, sizeof(backup), "%s/b", dir);
	snprintf(again, sizeof(again), "%s/a", dir);
	CHECK_OK(emdb_put(db, EMDB_ROOT, "new", 3, PLANT_VALUE, 16, 0));
	was = tell_store(db);
	CHECK_OK(emdb_backup(db, backup, &copy, NULL));
	CHECK_OK(emdb_compact(db, NULL, NULL));
	is = tell_store(db);
	CHECK_MEM(is.data, is.len, was.data, was.len);
	buf_release(&is);
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "new", 3, NULL, NULL));
	CHECK_OK(emdb_close(db));
	CHECK_OK(emdb_restore(backup, again, NULL, NULL));
	db = open_store(again, s, EMDB_CIPHER_DEFAULT);
	is = tell_store(db);
	CHECK_MEM(is.data, is.len, was.data, was.len);
	CHECK_OK(emdb_close(db));
	buf_release(&is);
	buf_release(&was);
}

TEST(test_convert__there_and_back_again)
{
	const char *const path = test_dir();
	const struct emdb_convert_options chacha = { .size = sizeof(chacha),
						     .cipher = EMDB_CIPHER_CHACHA20_POLY1305 };
	struct emdb_encryption e;
	struct buf want;
	emdb_db *db;

	fill(path, NULL);
	CHECK(hunt(path) > 0);
	want = tell_all(path, NULL);
	CHECK_OK(emdb_encrypt(path, &secret, NULL));
	CHECK_UEQ(hunt(path), 0);
	CHECK_EQ(open_err(path, NULL, EMDB_CIPHER_DEFAULT, &db), EMDB_ERR_KEY_REQUIRED);
	CHECK_EQ(open_err(path, &other, EMDB_CIPHER_DEFAULT, &db), EMDB_ERR_WRONG_KEY);
	check_told(path, &secret, &want);
	check_whole(path, &secret);
	CHECK_EQ(emdb_encrypt(path, &secret, NULL), EMDB_ERR_EXISTS);

	CHECK_OK(emdb_rotate(path, &secret, 1, &chacha));
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK_EQ(e.cipher, EMDB_CIPHER_CHACHA20_POLY1305);
	check_told(path, &secret, &want);
	check_whole(path, &secret);

	CHECK_OK(emdb_decrypt(path, &secret, NULL));
	CHECK(!is_encrypted(path));
	check_told(path, NULL, &want);
	check_whole(path, NULL);
	CHECK_EQ(emdb_decrypt(path, &secret, NULL), EMDB_ERR_NOT_ENCRYPTED);
	check_lives(path, NULL);
	buf_release(&want);
}

/* From a store that was encrypted when it was created: its tags are in its frames. */
TEST(test_convert__back_and_there_again)
{
	const char *const path = test_dir();
	struct buf want;

	fill(path, &secret);
	want = tell_all(path, &secret);
	CHECK_OK(emdb_rotate(path, &secret, 1, NULL));
	CHECK_UEQ(hunt(path), 0);
	check_told(path, &secret, &want);
	check_whole(path, &secret);
	CHECK_OK(emdb_decrypt(path, &secret, NULL));
	check_told(path, NULL, &want);
	check_whole(path, NULL);
	CHECK(hunt(path) > 0);
	CHECK_OK(emdb_encrypt(path, &other, NULL));
	CHECK_UEQ(hunt(path), 0);
	check_told(path, &other, &want);
	check_whole(path, &other);
	check_lives(path, &other);
	buf_release(&want);
}

TEST(test_convert__rotating_keeps_the_slots_of_the_secrets_given)
{
	const char *const path = test_dir();
	const struct emdb_secret both[2] = { secret, other };
	struct emdb_secret third = { EMDB_SECRET_PASSPHRASE, "a phrase", 8, "phone", 64, 1, 1 };
	struct emdb_encryption e;
	uint32_t slot;

	fill(path, &secret);
	CHECK_OK(emdb_key_add(path, &secret, &third, &slot, NULL));
	CHECK_OK(emdb_key_add(path, &secret, &other, &slot, NULL));
	CHECK_EQ(emdb_rotate(path,
			     (struct emdb_secret[]){ secret,
						     { EMDB_SECRET_KEY,
						       "wrong key, wrong key, wrong key.", 32, NULL,
						       0, 0, 0 } },
			     2, NULL),
		 EMDB_ERR_WRONG_KEY);
	CHECK_OK(emdb_rotate(path, both, 2, NULL));
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK_UEQ(e.used, 2);
	CHECK_OK(emdb_key_check(path, &secret, NULL));
	CHECK_OK(emdb_key_check(path, &other, &slot));
	CHECK_UEQ(slot, 2);
	CHECK_EQ(emdb_key_check(path, &third, NULL), EMDB_ERR_WRONG_KEY);
	CHECK_OK(emdb_key_add(path, &secret, &third, NULL, NULL));
	/* Cost and label of a slot stay. */
	third.label = NULL;
	third.kdf_memory_kib = third.kdf_passes = third.kdf_lanes = 0;
	CHECK_OK(emdb_rotate(path, &third, 1, NULL));
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK_UEQ(e.used, 1);
	CHECK_STR(e.slots[1].label, "phone");
	CHECK_UEQ(e.slots[1].kdf_memory_kib, 64);
}

TEST(test_convert__a_store_in_use_is_left_alone)
{
	const char *const path = test_dir();
	struct emdb_detail detail;
	const struct emdb_convert_options o = { .size = sizeof(o), .detail = &detail };
	emdb_db *db;

	fill(path, NULL);
	db = open_store(path, NULL, EMDB_CIPHER_DEFAULT);
	CHECK_EQ(emdb_encrypt(path, &secret, &o), EMDB_ERR_LOCKED);
	CHECK(strstr(detail.text, "held by process"));
	CHECK_OK(emdb_close(db));
	CHECK(!is_encrypted(path));
}

/* ---- Interrupted ---- */

static bool stop_at(void *ctx, uint64_t done, uint64_t total)
{
	CHECK(done <= total);
	return done <= total * *(unsigned int *)ctx / 100;
}

TEST(test_convert__cancelled_it_goes_on_later)
{
	const char *const path = test_dir();
	unsigned int percent = 40;
	const struct emdb_convert_options o = { .size = sizeof(o),
						.progress = stop_at,
						.progress_ctx = &percent };
	struct emdb_encryption e;
	struct buf want;

	fill(path, NULL);
	want = tell_all(path, NULL);
	CHECK_EQ(emdb_encrypt(path, &secret, &o), EMDB_ERR_CANCELLED);
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK(e.encrypting && !e.decrypting && !e.rotating && e.cipher == EMDB_CIPHER_DEFAULT);
	check_told(path, NULL, &want);
	CHECK_OK(emdb_encryption_get(path, &e));
	CHECK(e.encrypting);
	CHECK_OK(emdb_encrypt(path, &secret, NULL));
	check_told(path, &secret, &want);
	CHECK_UEQ(hunt(path), 0);
	/* Of another call nothing is taken over. */
	CHECK_EQ(emdb_rotate(path, &secret, 1, &o), EMDB_ERR_CANCELLED);
	/* A decryption leaves no plain text. */
	CHECK_EQ(emdb_decrypt(path, &secret, &o), EMDB_ERR_CANCELLED);
	CHECK_UEQ(hunt(path), 0);
	CHECK_OK(emdb_rotate(path, &secret, 1, NULL));
	check_told(path, &secret, &want);
	buf_release(&want);
}

enum { ENCRYPT, DECRYPT, ROTATE };

static emdb_err call(int what, const char *path)
{
	return what == ENCRYPT   ? emdb_encrypt(path, &secret, NULL)
	       : what == DECRYPT ? emdb_decrypt(path, &secret, NULL)
				 : emdb_rotate(path, &secret, 1, NULL);
}

/* Runs it in a child that is killed after some microseconds; true: it came to its end. */
static bool call_killed(int what, const char *path, useconds_t us)
{
	const pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0)
		_exit(call(what, path) == EMDB_OK ? 0 : 1);
	usleep(us);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFEXITED(status);
}

/* At any instant: the old or the new store, whole, and nothing plain beside a sealed one. */
TEST(test_convert__killed_it_is_the_old_or_the_new)
{
	const char *const path = test_dir();
	uint64_t rnd = test_seed();
	struct buf want;
	const int kills = long_run() ? KILLS * 10 : KILLS;
	int what = ENCRYPT, ended = 0;

	fill(path, NULL);
	want = tell_all(path, NULL);
	for (int i = 0; i < kills; i++) {
		const bool end = call_killed(what, path, (useconds_t)(test_rand(&rnd) % 200000));
		const bool sealed = is_encrypted(path);

		printf("%d: %d %s, %s\n", i, what, end ? "ended" : "killed",
		       sealed ? "sealed" : "plain");
		if (what == ROTATE)
			CHECK(sealed);
		check_told(path, sealed ? &secret : NULL, &want);
		if (sealed)
			CHECK_UEQ(hunt(path), 0);
		ended += end;
		if (what != ROTATE && sealed != (what == ENCRYPT) && test_rand(&rnd) % 2) {
			CHECK(!end);
			CHECK_OK(call(what, path)); /* it goes on */
		}
		what = is_encrypted(path) ? test_rand(&rnd) % 2 ? DECRYPT : ROTATE : ENCRYPT;
	}
	printf("%d of %d came to their end\n", ended, kills);
	check_whole(path, is_encrypted(path) ? &secret : NULL);
	check_lives(path, is_encrypted(path) ? &secret : NULL);
	buf_release(&want);
}

TEST_MAIN()
