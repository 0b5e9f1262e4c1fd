/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a store: superblock, lock, recovery, threads; statistics. */
#include "core/store.h"

#include "core/compact.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/checkpoint.h"
#include "core/convert.h"
#include "core/damage.h"
#include "core/keys.h"
#include "core/keyslot.h"
#include "core/manifest.h"
#include "core/storedir.h"
#include "core/txn.h"

#define SUPER_NAME "superblock"
/* As storedir.h calls it. */
#define SUPER_BAK_NAME "superblock.bak"
#define LOCK_NAME      "lock"
#define JOURNAL_NAME   "journal"
#define MANIFEST_NAME  "manifest"
#define LOCK_BODY_MAX  1024u

/* ---- The lock ------------------------------------------------------------------ */

/* key=value lines, so that people and scripts can read it too. */
static emdb_err lock_write_body(emdb_db *db)
{
	char body[LOCK_BODY_MAX];
	struct io_host host;
	int n, ret;

	ret = io_host(db->io, &host);
	if (ret)
		return err_of_io(ret);
	n = snprintf(body, sizeof(body),
		     "pid=%" PRIu64 "\nstart=%" PRIu64 "\nboot=%s\nhost=%s\nsince_ms=%" PRId64
		     "\nversion=%s\n",
		     host.pid, host.start_ticks, host.boot_id, host.hostname,
		     (int64_t)(io_clock_real_ns(db->io) / 1000000), EMDB_VERSION_STRING);
	ret = io_ftruncate(db->io, db->lockfd, 0);
	if (!ret)
		ret = io_pwrite_full(db->io, db->lockfd, body, (size_t)n, 0);
	return err_of_io(ret);
}

/* The value of `name` in the lock's body; false: not there. */
static bool body_field(const char *body, const char *name, char *out, size_t size)
{
	const size_t n = strlen(name);

	for (const char *p = body; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		size_t len;

		if (strncmp(p, name, n) != 0 || p[n] != '=')
			continue;
		len = strcspn(p + n + 1, "\n");
		if (len >= size)
			return false;
		memcpy(out, p + n + 1, len);
		out[len] = 0;
		return true;
	}
	return false;
}

static void lock_parse(const char *body, struct emdb_lock_info *info)
{
	char number[32];

	if (body_field(body, "pid", number, sizeof(number)))
		info->pid = strtoll(number, NULL, 10);
	if (body_field(body, "since_ms", number, sizeof(number)))
		info->since_ms = strtoll(number, NULL, 10);
	(void)body_field(body, "host", info->host, sizeof(info->host));
	(void)body_field(body, "boot", info->boot_id, sizeof(info->boot_id));
	(void)body_field(body, "version", info->version, sizeof(info->version));
}

static emdb_err lock_read(struct emdb_io *io, int dirfd, struct emdb_lock_info *info)
{
	struct buf body = BUF_INIT;
	int ret;

	ret = io_read_file(io, dirfd, LOCK_NAME, LOCK_BODY_MAX, &body);
	if (ret == -ENOENT)
		ret = 0;
	if (!ret && buf_append_zero(&body, 1))
		ret = -ENOMEM;
	if (!ret && body.len > 1)
		lock_parse((const char *)body.data, info);
	buf_release(&body);
	return err_of_io(ret);
}

static emdb_err lock_take(emdb_db *db, bool shared, struct emdb_detail *detail)
{
	struct emdb_lock_info info = { .pid = 0 };
	int ret;

	ret = io_openat(db->io, db->dirfd, LOCK_NAME, O_RDWR | O_NOFOLLOW | (shared ? 0 : O_CREAT),
			0600, &db->lockfd);
	if (shared && (ret == -EROFS || ret == -EACCES))
		ret = io_openat(db->io, db->dirfd, LOCK_NAME, O_RDONLY | O_NOFOLLOW, 0,
				&db->lockfd);
	if (shared && ret == -ENOENT)
		return EMDB_OK; /* a snapshot, or a store that nobody ever opened: nobody writes */
	if (ret) {
		explain(detail, "%s: %s", LOCK_NAME, strerror(-ret));
		return err_of_io(ret);
	}
	ret = io_flock(db->io, db->lockfd, !shared, true);
	if (ret == -EWOULDBLOCK) {
		(void)!lock_read(db->io, db->dirfd, &info);
		explain(detail, "held by process %" PRId64 " on %s", info.pid,
			info.host[0] ? info.host : "an unknown host");
		return EMDB_ERR_LOCKED;
	}
	if (ret)
		return err_of_io(ret);
	return shared ? EMDB_OK : lock_write_body(db);
}

/* ---- Creating --------------------------------------------------------------------- */

struct listing {
	bool other; /* something that is not ours */
	char name[IO_NAME_MAX + 1];
};

/* What an interrupted creation can have left: the superblock comes last. */
static int list_one(void *arg, const char *name)
{
	static const char *const ours[] = { LOCK_NAME,           JOURNAL_NAME,     MANIFEST_NAME,
					    "manifest.tmp",      "superblock.tmp", "control.sock",
					    "superblock.bak.tmp" };
	struct listing *const l = arg;

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (strcmp(name, ours[i]) == 0)
			return 0;
	l->other = true;
	(void)snprintf(l->name, sizeof(l->name), "%s", name);
	return 0;
}

static emdb_err create_super(emdb_db *db, const struct emdb_options *o)
{
	const uint64_t bytes = o->segment_bytes ? o->segment_bytes : EMDB_SEGMENT_DEFAULT;
	int ret;

	if (!is_pow2(bytes) || bytes < EMDB_SEGMENT_MIN || bytes > EMDB_SEGMENT_MAX) {
		explain(o->detail, "segment size: a power of two from %u to %u bytes",
			EMDB_SEGMENT_MIN, EMDB_SEGMENT_MAX);
		return EMDB_ERR_INVAL;
	}
	memset(&db->sb, 0, sizeof(db->sb));
	db->sb.version = FMT_VERSION;
	db->sb.incompat = FMT_INCOMPAT_SEEDED;
	db->sb.segment_shift = (uint32_t)__builtin_ctzll(bytes);
	db->sb.uid = geteuid();
	db->sb.gid = getegid();
	db->sb.created_ns = (int64_t)io_clock_real_ns(db->io);
	ret = io_random(db->io, db->sb.uuid, sizeof(db->sb.uuid));
	if (!ret)
		ret = io_random(db->io, db->sb.hash_seed, sizeof(db->sb.hash_seed));
	return err_of_io(ret);
}

/* ---- Encryption ---------------------------------------------------------------------- */

/* A new store with a secret: the data key is made here. */
static emdb_err create_keys(emdb_db *db, const struct emdb_options *o)
{
	struct vault_secrets *s;
	emdb_err err = keyslot_secret_check(o->secret);

	if (err)
		return err;
	db->sb.incompat |= FMT_INCOMPAT_ENCRYPTED;
	db->sb.cipher = (uint32_t)o->cipher;
	if (o->cipher == EMDB_CIPHER_DEFAULT)
		db->sb.cipher = emdb_cipher_available(EMDB_CIPHER_AES_256_GCM)
					? EMDB_CIPHER_AES_256_GCM
					: EMDB_CIPHER_CHACHA20_POLY1305;
	s = vault_secrets_new();
	if (!s)
		return EMDB_ERR_NOMEM;
	memcpy(s->hash_seed, db->sb.hash_seed, sizeof(s->hash_seed));
	memset(db->sb.hash_seed, 0, sizeof(db->sb.hash_seed));
	err = err_of_io(io_random(db->io, s->data_key, sizeof(s->data_key)));
	if (!err)
		err = keyslot_fill(&db->sb, 0, db->io, o->secret, s);
	if (!err) {
		keyslot_mac(&db->sb, s);
		err = vault_new((enum emdb_cipher)db->sb.cipher, db->sb.uuid, s, &db->vault);
	}
	vault_secrets_free(s);
	return err;
}

/* Before anything but the superblock is read.  same: the keys of the store it is a snapshot of. */
static emdb_err open_keys(emdb_db *db, const char *path, const struct emdb_options *o,
			  struct vault *same)
{
	emdb_err err;

	if (!db->sb.cipher) {
		if (!o->secret && !same)
			return EMDB_OK;
		explain(o->detail, "%s is not encrypted, but a key or passphrase was given", path);
		return EMDB_ERR_NOT_ENCRYPTED;
	}
	if (same && keyslot_same(&db->sb, same)) {
		vault_ref(same);
		db->vault = same;
		return EMDB_OK;
	}
	if (!o->secret) {
		explain(o->detail, "%s is encrypted: a passphrase or key is required", path);
		return EMDB_ERR_KEY_REQUIRED;
	}
	err = keyslot_vault(&db->sb, o->secret, &db->vault);
	if (err == EMDB_ERR_WRONG_KEY)
		explain(o->detail, "%s: wrong passphrase or key", path);
	else if (err == EMDB_ERR_CORRUPT)
		explain(o->detail, "%s/%s was changed by somebody without its keys", path,
			SUPER_NAME);
	else if (err == EMDB_ERR_UNSUPPORTED)
		explain(o->detail, "%s needs %s, which this machine does not have", path,
			emdb_cipher_name((enum emdb_cipher)db->sb.cipher));
	return err;
}

/* What a conversion left to do that was interrupted. */
static emdb_err open_converted(emdb_db *db, const char *path, const struct emdb_options *o)
{
	if (db->read_only && db->sb.incompat & FMT_INCOMPAT_SWITCH) {
		explain(o->detail, "%s: a conversion has to be finished first; open it for writing",
			path);
		return EMDB_ERR_BUSY;
	}
	if (db->read_only)
		return EMDB_OK;
	if (db->sb.incompat & FMT_INCOMPAT_SWITCH)
		return convert_finish(db->io, db->dirfd, &db->sb, db->vault);
	convert_tidy(db->io, db->dirfd, &db->sb);
	return EMDB_OK;
}

/* The commit point of a creation: with the superblock there is a store. */
static emdb_err write_super(emdb_db *db)
{
	uint8_t buf[FMT_SUPER_SIZE];

	fmt_super_encode(&db->sb, buf);
	return err_of_io(io_replace_durably(db->io, db->dirfd, SUPER_NAME, buf, sizeof(buf)));
}

/*
 * Without its name in the directory above, all that is synced in the store would be lost. Who may
 * not look at that directory cannot sync it.
 */
static emdb_err sync_above(emdb_db *db)
{
	int fd, ret;

	ret = io_openat(db->io, db->dirfd, "..", O_RDONLY | O_DIRECTORY, 0, &fd);
	if (ret)
		return ret == -EACCES ? EMDB_OK : err_of_io(ret);
	ret = io_fsync(db->io, fd);
	(void)io_close(db->io, fd);
	return err_of_io(ret);
}

/*
 * A second superblock for emdb_repair(): without its hash seed, checkpoints are of no use; without its key
 * slots, an encrypted store is lost.  Only a copy that differs is written.
 */
static void keep_super_copy(emdb_db *db)
{
	uint8_t buf[FMT_SUPER_SIZE];
	struct buf old = BUF_INIT;
	int ret;

	fmt_super_encode(&db->sb, buf);
	ret = io_read_file(db->io, db->dirfd, SUPER_BAK_NAME, FMT_SUPER_SIZE, &old);
	if (ret || old.len != sizeof(buf) || memcmp(old.data, buf, sizeof(buf)) != 0)
		ret = io_replace_durably(db->io, db->dirfd, SUPER_BAK_NAME, buf, sizeof(buf));
	buf_release(&old);
	if (ret && db->log)
		db->log(db->log_ctx, EMDB_LOG_WARN, "the copy of the superblock cannot be written");
}

static int unlink_one(void *arg, const char *name)
{
	const struct emdb_db *const db = ((void **)arg)[0];
	const int fd = *(const int *)((void **)arg)[1];

	return io_unlinkat(db->io, fd, name, 0);
}

static emdb_err remove_journal(emdb_db *db)
{
	int fd, ret;
	void *arg[2] = { db, &fd };

	ret = io_unlinkat(db->io, db->dirfd, MANIFEST_NAME, 0);
	if (ret && ret != -ENOENT)
		return err_of_io(ret);
	ret = io_openat(db->io, db->dirfd, JOURNAL_NAME, O_RDONLY | O_DIRECTORY, 0, &fd);
	if (ret)
		return ret == -ENOENT ? EMDB_OK : err_of_io(ret);
	ret = io_list(db->io, fd, unlink_one, arg);
	(void)io_close(db->io, fd);
	return err_of_io(ret);
}

/* A creation that failed leaves nothing behind; the lock is still held. */
static void undo_create(emdb_db *db, const char *path, bool made_dir)
{
	(void)journal_close(db->j);
	db->j = NULL;
	if (remove_journal(db) != EMDB_OK)
		return;
	(void)io_unlinkat(db->io, db->dirfd, JOURNAL_NAME, AT_REMOVEDIR);
	(void)io_unlinkat(db->io, db->dirfd, LOCK_NAME, 0);
	if (made_dir)
		(void)io_unlinkat(db->io, AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- Finding the store ---------------------------------------------------------------- */

static emdb_err open_dir(emdb_db *db, int at, const char *path, const struct emdb_options *o,
			 bool *ret_made)
{
	int ret;

	ret = io_openat(db->io, at, path, O_RDONLY | O_DIRECTORY, 0, &db->dirfd);
	if (ret == -ENOENT && o->flags & EMDB_OPEN_CREATE) {
		ret = io_mkdirat(db->io, at, path, 0700);
		if (ret && ret != -EEXIST) {
			explain(o->detail, "cannot create %s: %s", path, strerror(-ret));
			return ret == -ENOENT ? EMDB_ERR_NO_STORE : err_of_io(ret);
		}
		*ret_made = ret == 0;
		ret = io_openat(db->io, at, path, O_RDONLY | O_DIRECTORY, 0, &db->dirfd);
	}
	if (!ret)
		return EMDB_OK;
	explain(o->detail, "%s: %s", path, strerror(-ret));
	if (ret == -ENOENT)
		return EMDB_ERR_NO_STORE;
	return ret == -ENOTDIR ? EMDB_ERR_NOT_STORE : err_of_io(ret);
}

/* Reads the superblock; *ret_new says that there is none and one may be made. */
static emdb_err read_super(emdb_db *db, const char *path, const struct emdb_options *o,
			   bool *ret_new)
{
	struct listing l = { .other = false };
	struct buf buf = BUF_INIT;
	emdb_err err;
	int ret;

	*ret_new = false;
	ret = io_read_file(db->io, db->dirfd, SUPER_NAME, FMT_SUPER_SIZE + 1, &buf);
	if (ret == -ENOENT) {
		ret = io_list(db->io, db->dirfd, list_one, &l);
		if (ret)
			return err_of_io(ret);
		if (l.other) {
			explain(o->detail, "%s is not a store: it has no superblock, but holds %s",
				path, l.name);
			return EMDB_ERR_NOT_STORE;
		}
		if (!(o->flags & EMDB_OPEN_CREATE) || o->flags & EMDB_OPEN_READ_ONLY) {
			explain(o->detail, "%s: no superblock", path);
			return EMDB_ERR_NO_STORE;
		}
		*ret_new = true;
		return EMDB_OK;
	}
	if (ret == -EFBIG)
		err = EMDB_ERR_NOT_STORE;
	else
		err = ret ? err_of_io(ret) : fmt_super_decode(buf.data, buf.len, &db->sb);
	buf_release(&buf);
	if (err)
		explain(o->detail, "%s/%s: %s", path, SUPER_NAME, emdb_strerror(err));
	if (!err && o->flags & EMDB_OPEN_EXCLUSIVE) {
		explain(o->detail, "%s is a store already", path);
		return EMDB_ERR_EXISTS;
	}
	if (!err && db->sb.frozen_ms && !(o->flags & EMDB_OPEN_READ_ONLY)) {
		explain(o->detail, "%s is a snapshot or a backup: it opens read-only", path);
		return EMDB_ERR_READ_ONLY;
	}
	return err;
}

/* ---- The parts in memory ---------------------------------------------------------------- */

static emdb_err parts_init(emdb_db *db)
{
	int ret;

	rwlock_init(&db->structure, LOCK_STRUCTURE);
	for (size_t i = 0; i < STORE_STRIPES; i++)
		mutex_init(&db->stripes[i], LOCK_STRIPE);
	mutex_init(&db->snap_lock, LOCK_ADMIN);
	mutex_init(&db->ttl_lock, LOCK_TTL);
	mutex_init(&db->txn_lock, LOCK_LEAF);
	mutex_init(&db->sweep_lock, LOCK_LEAF);
	cond_init(&db->sweep_cond);
	cond_init(&db->flight_cond);
	ttl_heap_init(&db->ttl);
	checkpoint_init(db);
	ret = epoch_init(&db->epoch);
	if (!ret)
		ret = objtab_init(db);
	if (ret)
		return EMDB_ERR_NOMEM;
	hidx_init(&db->nstab, &db->epoch);
	views_init(db);
	db->zeros = base_calloc(1, FMT_EXTENT_MAX);
	return db->zeros ? EMDB_OK : EMDB_ERR_NOMEM;
}

static emdb_err root_init(emdb_db *db)
{
	emdb_err err;

	hash_seed_init(&db->seed,
		       db->vault ? vault_secrets_of(db->vault)->hash_seed : db->sb.hash_seed);
	err = ns_new(db, EMDB_ROOT, &db->root);
	if (err)
		return err;
	atomic_store(&db->root->attached, true);
	atomic_store(&db->root->parent, EMDB_ROOT);
	atomic_store(&db->root->uid, db->sb.uid);
	atomic_store(&db->root->gid, db->sb.gid);
	atomic_store(&db->root->mtime, db->sb.created_ns);
	atomic_store(&db->root->ctime, db->sb.created_ns);
	atomic_store(&db->root->atime, db->sb.created_ns);
	atomic_store(&db->root->btime, db->sb.created_ns);
	return EMDB_OK;
}

/* Takes what is half built. */
static void db_free(emdb_db *db)
{
	if (!db)
		return;
	expire_stop(db);
	compact_stop(db);
	checkpoint_stop(db);
	(void)journal_close(db->j);
	checkpoint_release(db);
	compact_free(db);
	if (db->epoch.slots) {
		views_release(db);
		ns_free_all(db);
		hidx_release(&db->nstab);
		objtab_release(db);
		epoch_drain(&db->epoch);
		epoch_release(&db->epoch);
	}
	ttl_heap_release(&db->ttl);
	base_free((void *)(uintptr_t)db->zeros);
	vault_unref(db->vault);
	if (db->io) {
		io_funlock(db->lockfd);
		(void)io_close(db->io, db->lockfd);
		(void)io_close(db->io, db->dirfd);
		emdb_io_free(db->io);
	}
	base_free(db);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static emdb_err replay_one(void *ctx, struct segment *seg, const struct frame *f)
{
	emdb_db *const db = ctx;
	struct apply a = APPLY_INIT(db, true);
	const unsigned int pin = epoch_pin(&db->epoch);
	emdb_err err = checkpoint_replaying(db, f->lsn);

	(void)seg;
	/* It is the checkpoint that makes no sense, not this frame. */
	if (err == EMDB_ERR_CORRUPT)
		err = EMDB_ERR_NOT_FOUND;
	/*
	 * A replay that goes on behind damage takes a batch whole or not at all: it is one operation, and half
	 * of it was never the state of the store. (Any other stops at the record, and the open fails.)
	 */
	if (!err && db->ckpt.lenient && !apply_can(f))
		err = EMDB_ERR_CORRUPT;
	if (!err && db->damage)
		err = damage_replaying(db->damage, f);
	if (!err)
		err = apply_frame(&a, f);
	epoch_unpin(&db->epoch, pin);
	db->replayed_records += f->kind == FRAME_BATCH ? get_u32(f->p + FMT_FRAME_HEADER) : 1;
	db->replayed_bytes += f->len;
	return err;
}

/* After a recovery that failed half way: empty again. */
static emdb_err forget_all(emdb_db *db)
{
	struct journal_seg_info *segs;
	size_t n = journal_segments(db->j, NULL, 0);

	if (db->damage)
		damage_reset(db->damage);
	checkpoint_release(db);
	db->ckpt.loaded = db->ckpt.inexact = false;
	db->ckpt.bytes = 0;
	db->replayed_records = db->replayed_bytes = 0;
	ns_free_all(db);
	objtab_release(db);
	epoch_drain(&db->epoch);
	ttl_heap_release(&db->ttl);
	atomic_store(&db->records, 0);
	atomic_store(&db->namespaces, 0);
	segs = base_calloc(n + 1, sizeof(*segs));
	if (!segs || objtab_init(db)) {
		base_free(segs);
		return EMDB_ERR_NOMEM;
	}
	n = min_size(journal_segments(db->j, segs, n), n);
	for (size_t i = 0; i < n; i++) {
		const unsigned int pin = epoch_pin(&db->epoch);
		struct segment *const seg =
			journal_segment_pinned(db->j, segs[i].id << db->sb.segment_shift);

		if (seg)
			segment_live_set(seg, 0);
		epoch_unpin(&db->epoch, pin);
	}
	base_free(segs);
	return root_init(db);
}

/* number 0: the whole journal.  CORRUPT, NOT_FOUND: the checkpoint cannot be used. */
static emdb_err recover_from(emdb_db *db, uint64_t number, uint64_t lsn, struct journal_end *end)
{
	emdb_err err = EMDB_OK;

	/* Without damage behind it an image that does not fit is as wrong as it is for everybody else. */
	if (db->damage)
		db->ckpt.lenient = db->damage->end_lsn > lsn;
	if (number) {
		err = checkpoint_load(db, db->dirfd, number, lsn);
		/* A shortage says nothing about the file. */
		if (err && err != EMDB_ERR_NOMEM && err != EMDB_ERR_TOO_MANY_FILES &&
		    err != EMDB_ERR_NOT_FOUND)
			err = EMDB_ERR_CORRUPT;
	}
	if (!err)
		err = journal_replay(db->j, number ? lsn : 0, replay_one, db, end);
	if (!err)
		err = checkpoint_replayed(db);
	if (!err && db->damage)
		err = damage_keep_adrift(db->damage);
	if (!err)
		err = apply_finish(db);
	return err ? err : checkpoint_finished(db);
}

/* The newest checkpoint that is good, or none: the state is the same, only later. */
static emdb_err recover_state(emdb_db *db, struct journal_end *end)
{
	struct journal_checkpoint c;
	emdb_err err;

	journal_checkpoint_get(db->j, &c);
	for (;;) {
		char text[160];

		err = recover_from(db, c.number, c.lsn, end);
		if (!err && c.number) {
			atomic_store(&db->ckpt.base, c.lsn);
			db->replay_from = c.lsn;
		}
		/* What is wrong with the journal or the machine is so for any checkpoint. */
		if (!c.number || (err != EMDB_ERR_CORRUPT && err != EMDB_ERR_NOT_FOUND))
			return err;
		(void)snprintf(
			text, sizeof(text), "checkpoint %" PRIu64 " cannot be used (%s): %s",
			c.number,
			err == EMDB_ERR_NOT_FOUND ? "it is missing or does not fit the journal"
						  : emdb_strerror(err),
			c.prev_number ? "trying the one before" : "replaying the whole journal");
		if (db->log)
			db->log(db->log_ctx, EMDB_LOG_WARN, text);
		err = forget_all(db);
		if (!err && db->damage)
			err = damage_file(db->damage, text);
		if (err)
			return err;
		c.number = c.prev_number;
		c.lsn = c.prev_lsn;
		c.prev_number = 0;
	}
}

static emdb_err recover(emdb_db *db, const struct emdb_options *o, bool create,
			const struct salvage *s)
{
	struct journal_config cfg = {
		.io = db->io,
		.epoch = &db->epoch,
		.dirfd = db->dirfd,
		.segment_shift = db->sb.segment_shift,
		.read_only = db->read_only,
		.salvage = o->flags & EMDB_OPEN_SALVAGE && (db->read_only || (s && s->repair)),
		.memory = db->memory,
		.create = create,
		.crc_seeded = db->sb.incompat & FMT_INCOMPAT_SEEDED,
		.vault = db->vault,
		.verify = db->verify,
		.flush = o->flush,
		.group_window_us = db->group_window_us,
		.commit_interval_s = (int32_t)db->commit_interval_s,
		.detail = o->detail,
		.log = o->log,
		.log_ctx = o->log_ctx,
		.found = db->damage ? damage_found : NULL,
		.found_ctx = db->damage,
		.repair = s && (s->repair || s->manifest),
		.manifest = s ? s->manifest : NULL,
	};
	struct journal_end end = { .lsn = 0 };
	uint64_t backlog;
	emdb_err err;

	memcpy(cfg.uuid, db->sb.uuid, sizeof(cfg.uuid));
	err = journal_open(&cfg, &db->j);
	db->ckpt.lenient = cfg.salvage;
	if (!err)
		err = recover_state(db, &end);
	backlog = end.lsn - min_u64(end.lsn, atomic_load(&db->ckpt.base));
	db->replayed = end.frames;
	db->torn_bytes = end.torn_bytes;
	db->skipped_bytes = end.skipped_bytes;
	db->damaged = end.damages != 0;
	if (!err && s && s->repair)
		err = damage_analyse(db->damage);
	/* Before it, which may need the room. */
	if (!err && !db->read_only && !db->memory && !cfg.repair)
		checkpoint_tidy(db);
	if (!err && !db->read_only)
		err = journal_start(db->j);
	/* A repair makes the checkpoint when it is done, not in between. */
	if (!err && !db->read_only && !cfg.repair)
		err = checkpoint_start(db, end.frames ? backlog : 0);
	return err;
}

/* What is said in emdb.h of zero and of negative numbers. */
static uint32_t or_default(int32_t given, uint32_t otherwise)
{
	return given == 0 ? otherwise : given < 0 ? 0 : (uint32_t)given;
}

static void take_options(emdb_db *db, const struct emdb_options *o)
{
	db->verify = o->verify;
	db->group_window_us = o->group_window_us ? o->group_window_us : 500;
	db->commit_interval_s = or_default(o->commit_interval_s, 5);
	db->read_only = o->flags & EMDB_OPEN_READ_ONLY;
	db->ordered = o->flags & EMDB_OPEN_ORDERED;
	db->flush = o->flush;
	db->default_ttl_ms = o->default_ttl_ms;
	db->sweep_interval_ms = or_default(o->sweep_interval_ms, 250);
	db->on_expire = o->on_expire;
	db->on_expire_ctx = o->on_expire_ctx;
	db->log = o->log;
	db->log_ctx = o->log_ctx;
}

static emdb_err check_options(const struct emdb_options *o)
{
	if (o->size != sizeof(*o) || o->default_ttl_ms < 0 || o->flush > EMDB_FLUSH_WRITE_THROUGH ||
	    o->verify > EMDB_VERIFY_NEVER || o->cipher > EMDB_CIPHER_CHACHA20_POLY1305)
		return EMDB_ERR_INVAL;
	if (o->default_ttl_ms > TTL_MAX_MS)
		return EMDB_ERR_OVERFLOW;
	return EMDB_OK;
}

/* Lock and superblock of the store in db->dirfd; *ret_new: there is none yet. */
static emdb_err claim(emdb_db *db, const char *path, const struct emdb_options *o,
		      const struct salvage *s, bool *ret_new)
{
	emdb_err err = EMDB_OK;

	if (s && s->super) {
		db->sb = *s->super;
		*ret_new = false;
	} else {
		err = read_super(db, path, o, ret_new);
	}
	if (!err && !(s && s->lockfd >= 0))
		err = lock_take(db, db->read_only, o->detail);
	/* Somebody may have created it between the look and the lock. */
	if (!err && *ret_new)
		err = read_super(db, path, o, ret_new);
	return err;
}

static struct emdb_io *io_of(const char *path, const struct salvage *s)
{
	if (s && s->io) {
		emdb_io_ref(s->io);
		return s->io;
	}
	return path ? emdb_io_posix_new() : emdb_io_mem_new();
}

/* path NULL: in memory; else relative to the directory `at`. */
static emdb_err open_in(emdb_db *db, int at, const char *path, const struct emdb_options *o,
			struct vault *same, const struct salvage *s)
{
	bool create = true, made_dir = false, ours = false;
	uint64_t began = 0;
	emdb_err err;

	db->dirfd = db->lockfd = -1;
	err = parts_init(db);
	if (err)
		return err;
	db->io = io_of(path, s);
	if (!db->io)
		return EMDB_ERR_NOMEM;
	began = io_clock_mono_ns(db->io);
	take_options(db, o);
	if (path) {
		err = open_dir(db, at, path, o, &made_dir);
		if (!err)
			err = claim(db, path, o, s, &create);
		ours = !err && create;
		if (ours)
			err = remove_journal(db);
	} else {
		db->memory = true;
		err = err_of_io(
			io_openat(db->io, AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0, &db->dirfd));
	}
	if (!err && create)
		err = create_super(db, o);
	if (!err && create && o->secret)
		err = create_keys(db, o);
	else if (!err && !create)
		err = open_keys(db, path, o, same);
	if (!err && !create)
		err = open_converted(db, path, o);
	if (!err)
		err = root_init(db);
	if (!err)
		err = recover(db, o, create, s);
	if (!err && db->ordered)
		err = order_build(db);
	if (!err && create && path)
		err = sync_above(db);
	if (!err && create)
		err = write_super(db);
	if (!err && path && !db->read_only) {
		keep_super_copy(db);
		snapshot_tidy(db);
	}
	/* One that is damaged says so when it is opened. */
	if (!err && path && !db->read_only && db->vault &&
	    keys_to_snapshots(db->io, db->dirfd, &db->sb, vault_secrets_of(db->vault)) && db->log)
		db->log(db->log_ctx, EMDB_LOG_WARN,
			"not every snapshot has the key slots of the store");
	if (!err && (expire_start(db) || compact_start(db, o)))
		err = EMDB_ERR_NOMEM;
	if (!err)
		compact_tidy(db, true);
	if (err && ours)
		undo_create(db, path, made_dir);
	db->open_us = (io_clock_mono_ns(db->io) - began) / 1000;
	return err;
}

static emdb_err open_at(int at, const char *path, const struct emdb_options *opts,
			struct vault *same, const struct salvage *s, emdb_db **ret_db)
{
	static const struct emdb_options defaults = { .size = sizeof(defaults) };
	const struct emdb_options *const o = opts ? opts : &defaults;
	emdb_db *db;
	emdb_err err;

	err = check_options(o);
	if (err)
		return err;
	if (o->detail)
		*o->detail = (struct emdb_detail){ .segment = UINT64_MAX };
	if (guard_install())
		return EMDB_ERR_IO;
	db = base_calloc(1, sizeof(*db));
	if (!db)
		return EMDB_ERR_NOMEM;
	db->damage = s ? s->damage : NULL;
	if (db->damage)
		db->damage->db = db;
	err = open_in(db, at, path, o, same, s);
	if (err) {
		db_free(db);
		return err;
	}
	*ret_db = db;
	return EMDB_OK;
}

emdb_err db_open_salvage(const char *path, const struct emdb_options *opts, const struct salvage *s,
			 emdb_db **ret_db)
{
	return open_at(AT_FDCWD, path, opts, NULL, s, ret_db);
}

emdb_err db_open_snapshot(const emdb_db *db, const char *path, const struct emdb_options *opts,
			  emdb_db **ret_db)
{
	return open_at(db->dirfd, path, opts, db->vault, NULL, ret_db);
}

emdb_err emdb_open(const char *path, const struct emdb_options *opts, emdb_db **ret_db)
{
	if (!path || !*path)
		return EMDB_ERR_INVAL;
	return open_at(AT_FDCWD, path, opts, NULL, NULL, ret_db);
}

emdb_err emdb_open_memory(const struct emdb_options *opts, emdb_db **ret_db)
{
	if (opts && opts->flags & EMDB_OPEN_READ_ONLY)
		return EMDB_ERR_INVAL;
	return open_at(AT_FDCWD, NULL, opts, NULL, NULL, ret_db);
}

emdb_err emdb_close(emdb_db *db)
{
	emdb_err err;

	if (!db)
		return EMDB_OK;
	txn_abandon_all(db);
	expire_stop(db);
	compact_tidy(db, false);
	compact_stop(db);
	checkpoint_close(db);
	err = journal_close(db->j);
	db->j = NULL;
	/* An empty body says that the last holder left in good order. */
	if (!err && !db->read_only && db->lockfd >= 0)
		err = err_of_io(io_ftruncate(db->io, db->lockfd, 0));
	db_free(db);
	return err;
}

/* ---- Who has it open ------------------------------------------------------------------------- */

/* Opens the directory of a store that must exist. */
static emdb_err lock_probe(const char *path, struct emdb_io **ret_io, int *ret_dirfd)
{
	struct emdb_io *const io = emdb_io_posix_new();
	struct io_stat st;
	int ret;

	if (!io)
		return EMDB_ERR_NOMEM;
	ret = io_openat(io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, ret_dirfd);
	if (ret) {
		emdb_io_free(io);
		return ret == -ENOTDIR  ? EMDB_ERR_NOT_STORE
		       : ret == -ENOENT ? EMDB_ERR_NO_STORE
					: err_of_io(ret);
	}
	ret = io_fstatat(io, *ret_dirfd, SUPER_NAME, &st);
	if (ret) {
		(void)io_close(io, *ret_dirfd);
		emdb_io_free(io);
		return ret == -ENOENT ? EMDB_ERR_NOT_STORE : err_of_io(ret);
	}
	*ret_io = io;
	return EMDB_OK;
}

/* *ret_fd: the lock file, held when nobody else has it. */
static emdb_err lock_try(struct emdb_io *io, int dirfd, int *ret_fd, bool *ret_taken)
{
	int ret;

	*ret_fd = -1;
	*ret_taken = false;
	ret = io_openat(io, dirfd, LOCK_NAME, O_RDWR | O_NOFOLLOW, 0, ret_fd);
	if (ret == -EACCES || ret == -EROFS)
		ret = io_openat(io, dirfd, LOCK_NAME, O_RDONLY | O_NOFOLLOW, 0, ret_fd);
	if (ret == -ENOENT) {
		*ret_taken = true;
		return EMDB_OK;
	}
	if (!ret) {
		ret = io_flock(io, *ret_fd, true, true);
		*ret_taken = ret == 0;
		if (ret == -EWOULDBLOCK)
			ret = 0;
	}
	return err_of_io(ret);
}

emdb_err emdb_lock_holder(const char *path, struct emdb_lock_info *ret_info)
{
	struct emdb_lock_info info;
	struct emdb_io *io;
	int dirfd, fd = -1;
	bool taken;
	emdb_err err;

	err = lock_probe(path, &io, &dirfd);
	if (err)
		return err;
	memset(&info, 0, sizeof(info));
	err = lock_try(io, dirfd, &fd, &taken);
	if (!err)
		err = lock_read(io, dirfd, &info);
	info.held = !taken;
	info.stale = taken && info.pid != 0;
	(void)io_close(io, fd);
	(void)io_close(io, dirfd);
	emdb_io_free(io);
	if (!err)
		*ret_info = info;
	return err;
}

emdb_err emdb_break_lock(const char *path)
{
	struct emdb_io *io;
	int dirfd, fd = -1;
	bool taken;
	emdb_err err;

	err = lock_probe(path, &io, &dirfd);
	if (err)
		return err;
	err = lock_try(io, dirfd, &fd, &taken);
	if (!err && !taken)
		err = EMDB_ERR_HOLDER_ALIVE;
	if (!err && fd >= 0)
		err = err_of_io(io_ftruncate(io, fd, 0));
	(void)io_close(io, fd);
	(void)io_close(io, dirfd);
	emdb_io_free(io);
	return err;
}

/* ---- Durability -------------------------------------------------------------------------------- */

emdb_err emdb_flush(emdb_db *db)
{
	if (db->read_only)
		return EMDB_OK;
	return journal_sync(db->j);
}

void emdb_flush_async(emdb_db *db, void (*done)(void *ctx, emdb_err err), void *ctx)
{
	if (db->read_only)
		done(ctx, EMDB_OK);
	else
		journal_sync_async(db->j, done, ctx);
}

/* ---- Statistics ---------------------------------------------------------------------------------- */

static uint64_t ns_memory(const struct ns *ns)
{
	return sizeof(*ns) + hidx_memory(&ns->idx) - sizeof(ns->idx) +
	       (ns->ord ? sizeof(*ns->ord) + oidx_memory(ns->ord) : 0);
}

static uint64_t index_memory(emdb_db *db)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	uint64_t n = hidx_memory(&db->nstab) + ns_memory(db->root);
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	size_t got;

	while ((got = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < got; i++) {
			n += ns_memory((const struct ns *)(uintptr_t)slots[i].value);
		}
		if (slots[got - 1].hash == UINT64_MAX)
			break;
		from = slots[got - 1].hash + 1;
	}
	epoch_unpin(&db->epoch, pin);
	return n;
}

static void stats_of_journal(emdb_db *db, struct emdb_stats *s)
{
	struct journal_checkpoint c;
	struct journal_stats j;

	journal_stats_get(db->j, &j);
	s->segments = j.segments;
	s->journal_bytes = j.written_bytes;
	s->preallocated_bytes = j.preallocated_bytes;
	s->live_bytes = j.live_bytes;
	s->dead_bytes = j.written_bytes > j.live_bytes ? j.written_bytes - j.live_bytes : 0;
	s->appends = j.appends;
	s->flushes = j.flushes;
	s->syncs = j.syncs;
	s->recycled = j.recycled;
	memcpy(s->group_size, j.group_size, sizeof(s->group_size));
	s->low_space = j.low_space;
	journal_checkpoint_get(db->j, &c);
	s->checkpoint_lsn = c.lsn;
	s->tail_lsn = journal_tail(db->j);
	s->durable_lsn = journal_durable(db->j);
	s->failed = journal_failed(db->j) || atomic_load(&db->failed);
}

static void stats_of_scrub(emdb_db *db, struct emdb_stats *s)
{
	struct scrub_status st;

	s->scrub_total_bytes = atomic_load(&db->scrub.total);
	s->scrub_done_bytes = s->scrub_total_bytes ? atomic_load(&db->scrub.done) : 0;
	if (db->memory || !storedir_scrub_read(db->io, db->dirfd, db->sb.uuid, &st))
		return;
	s->scrub_ended_ms = (uint64_t)st.ended_ms;
	s->scrub_bytes = st.bytes;
	s->scrub_damaged = st.damaged;
	s->scrub_lost_entries = st.lost_entries;
	s->scrub_complete = st.complete;
}

emdb_err emdb_space_get(emdb_db *db, struct emdb_space *ret_space)
{
	struct emdb_space s = { .entries = atomic_load(&db->records) +
					   atomic_load(&db->namespaces) + 1 };
	struct io_vfs vfs;

	if (!db->memory && io_fstatvfs(db->io, db->dirfd, &vfs) == 0) {
		s.total_bytes = vfs.blocks * vfs.bsize;
		s.free_bytes = vfs.bfree * vfs.bsize;
		s.avail_bytes = vfs.bavail * vfs.bsize;
	}
	*ret_space = s;
	return EMDB_OK;
}

static void stats_of_options(const emdb_db *db, struct emdb_stats *s)
{
	s->ordered = db->ordered;
	s->flush_policy = db->flush;
	s->verify = db->verify;
	s->group_window_us = db->group_window_us;
	s->commit_interval_s = db->commit_interval_s;
	s->sweep_interval_ms = db->sweep_interval_ms;
	s->default_ttl_ms = (uint64_t)db->default_ttl_ms;
}

emdb_err emdb_stats_get(emdb_db *db, struct emdb_stats *ret_stats)
{
	struct emdb_stats s;
	uint64_t objects_memory;
	struct emdb_space space;

	memset(&s, 0, sizeof(s));
	stats_of_journal(db, &s);
	compact_stats(db, &s);
	stats_of_options(db, &s);
	stats_of_scrub(db, &s);
	s.records = atomic_load(&db->records);
	s.namespaces = atomic_load(&db->namespaces);
	objtab_counts(db, &s.objects, &s.known, &objects_memory);
	mutex_lock(&db->ttl_lock);
	s.expiring = db->ttl.count;
	mutex_unlock(&db->ttl_lock);
	s.segment_bytes = UINT64_C(1) << db->sb.segment_shift;
	s.index_bytes = index_memory(db) + objects_memory;
	views_stats(db, &s.views, &s.view_bytes);
	s.expired = atomic_load(&db->expired);
	s.replayed = db->replayed;
	s.open_us = db->open_us;
	s.torn_bytes = db->torn_bytes;
	if (emdb_space_get(db, &space) == EMDB_OK) {
		s.fs_total_bytes = space.total_bytes;
		s.fs_free_bytes = space.free_bytes;
		s.fs_avail_bytes = space.avail_bytes;
	}
	s.io_uring = io_uses_uring(db->io);
	s.read_only = db->read_only;
	s.damaged = db->damaged;
	s.encrypted = db->vault != NULL;
	*ret_stats = s;
	return EMDB_OK;
}

void emdb_uuid(emdb_db *db, uint8_t ret_uuid[16])
{
	memcpy(ret_uuid, db->sb.uuid, 16);
}
