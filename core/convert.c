/* SPDX-License-Identifier: Apache-2.0 */
#include "core/convert.h"

#include <string.h>

#include "core/checkpoint.h"
#include "core/keyslot.h"
#include "core/segment_i.h"
#include "core/storedir.h"

#define POOL_DIR  "pool"
#define KIND_NAME "kind" /* what is being done; without it convert/ is only to be removed */
#define LAST_NAME ".last"
#define SMALL_MAX 64u

static const char *const kinds[] = {
	[CONVERT_ENCRYPT] = "encrypt", [CONVERT_DECRYPT] = "decrypt", [CONVERT_ROTATE] = "rotate"
};

/* ---- What is there ------------------------------------------------------------ */

enum convert_kind convert_pending(struct emdb_io *io, int dirfd)
{
	enum convert_kind kind = CONVERT_NONE;
	struct buf b = BUF_INIT;
	int fd;

	if (storedir_open(io, dirfd, CONVERT_DIR, &fd) != EMDB_OK)
		return CONVERT_NONE;
	if (io_read_file(io, fd, KIND_NAME, SMALL_MAX, &b) == 0)
		for (int k = CONVERT_ENCRYPT; k <= CONVERT_ROTATE; k++)
			if (b.len == strlen(kinds[k]) && memcmp(b.data, kinds[k], b.len) == 0)
				kind = (enum convert_kind)k;
	buf_release(&b);
	(void)io_close(io, fd);
	return kind;
}

void convert_tidy(struct emdb_io *io, int dirfd, const struct superblock *sb)
{
	const enum convert_kind kind = convert_pending(io, dirfd);

	if (kind == CONVERT_NONE || (kind == CONVERT_DECRYPT && sb->cipher))
		(void)!storedir_remove(io, dirfd, CONVERT_DIR);
}

/* ---- Moving in ---------------------------------------------------------------- */

/* A whole one, or one that an interrupted write left. */
static bool is_checkpoint(const char *name)
{
	return strncmp(name, "checkpoint-", 11) == 0;
}

struct move {
	struct emdb_io *io;
	int dir, convert;
	char keep[CHECKPOINT_NAME_SIZE]; /* the checkpoint that stays */
};

/* A directory of the new store in the place of the old one, unless it has been moved already. */
static emdb_err move_dir(const struct move *m, const char *name)
{
	struct io_stat st;
	int ret = io_fstatat(m->io, m->convert, name, &st);
	emdb_err err;

	if (ret)
		return ret == -ENOENT ? EMDB_OK : err_of_io(ret);
	err = storedir_remove(m->io, m->dir, name);
	if (err)
		return err;
	ret = io_renameat(m->io, m->convert, name, m->dir, name);
	return err_of_io(ret ? ret : io_fsync(m->io, m->dir));
}

static int move_checkpoint(void *arg, const char *name)
{
	const struct move *const m = arg;

	return is_checkpoint(name) ? io_renameat(m->io, m->convert, name, m->dir, name) : 0;
}

static int drop_checkpoint(void *arg, const char *name)
{
	const struct move *const m = arg;

	return is_checkpoint(name) && strcmp(name, m->keep) != 0
		       ? io_unlinkat(m->io, m->dir, name, 0)
		       : 0;
}

/* Checkpoints, then the manifest that knows which: as long as it is in convert/ they may not be done. */
static emdb_err move_files(struct move *m)
{
	struct manifest man = MANIFEST_INIT;
	emdb_err err = manifest_load(m->io, m->convert, &man);
	int ret;

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	checkpoint_name(man.head.ckpt, m->keep);
	manifest_release(&man);
	ret = io_list(m->io, m->convert, move_checkpoint, m);
	if (ret == 0)
		ret = io_list(m->io, m->dir, drop_checkpoint, m);
	if (ret == 0)
		ret = io_renameat(m->io, m->convert, MANIFEST_NAME, m->dir, MANIFEST_NAME);
	return err_of_io(ret ? ret : io_fsync(m->io, m->dir));
}

static emdb_err move_all(struct emdb_io *io, int dirfd)
{
	struct move m = { .io = io, .dir = dirfd };
	emdb_err err = storedir_open(io, dirfd, CONVERT_DIR, &m.convert);
	int ret;

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	err = move_dir(&m, STOREDIR_JOURNAL);
	if (!err)
		err = move_dir(&m, STOREDIR_SNAPSHOTS);
	if (!err)
		err = move_files(&m);
	if (!err) {
		ret = io_unlinkat(io, m.convert, KIND_NAME, 0);
		err = err_of_io(ret == -ENOENT ? 0 : ret);
	}
	if (!err)
		err = err_of_io(io_fsync(io, m.convert));
	(void)io_close(io, m.convert);
	return err;
}

emdb_err convert_finish(struct emdb_io *io, int dirfd, struct superblock *sb, const struct vault *v)
{
	struct superblock final = *sb;
	emdb_err err = move_all(io, dirfd);

	if (err)
		return err;
	final.incompat &= ~FMT_INCOMPAT_SWITCH;
	if (v)
		keyslot_mac(&final, vault_secrets_of(v));
	err = storedir_super_write(io, dirfd, &final);
	if (err)
		return err;
	*sb = final;
	/* What stays for want of room or right is links to the new files, and goes the next time. */
	(void)!storedir_remove(io, dirfd, CONVERT_DIR);
	return EMDB_OK;
}

/* ---- One conversion -------------------------------------------------------------- */

struct conv {
	enum convert_kind kind;
	const char *path;
	const struct emdb_secret *secrets;
	size_t nsecrets;
	struct emdb_convert_options o;
	struct emdb_io *io;
	int dir, lock, convert, pool;
	struct superblock sb, target;
	struct vault *from, *to;
	uint64_t done, total;
};

static void conv_release(struct conv *c)
{
	vault_unref(c->from);
	vault_unref(c->to);
	if (!c->io)
		return;
	(void)io_close(c->io, c->pool);
	(void)io_close(c->io, c->convert);
	(void)io_close(c->io, c->lock);
	(void)io_close(c->io, c->dir);
	emdb_io_free(c->io);
}

static emdb_err progress(struct conv *c, uint64_t bytes)
{
	c->done += bytes;
	if (!c->o.progress || c->o.progress(c->o.progress_ctx, c->done, c->total))
		return EMDB_OK;
	return EMDB_ERR_CANCELLED;
}

/* ---- The new keys ---- */

static enum emdb_cipher target_cipher(const struct conv *c)
{
	if (c->o.cipher != EMDB_CIPHER_DEFAULT)
		return c->o.cipher;
	if (c->kind == CONVERT_ROTATE)
		return (enum emdb_cipher)c->sb.cipher;
	return emdb_cipher_available(EMDB_CIPHER_AES_256_GCM) ? EMDB_CIPHER_AES_256_GCM
							      : EMDB_CIPHER_CHACHA20_POLY1305;
}

/* The slots of the secrets that were given; their cost and labels stay. */
static emdb_err target_slots(struct conv *c, const struct vault_secrets *s)
{
	emdb_err err = EMDB_OK;

	memset(c->target.slots, 0, sizeof(c->target.slots));
	for (size_t i = 0; !err && i < c->nsecrets; i++) {
		struct emdb_secret secret = c->secrets[i];
		uint32_t slot = (uint32_t)i;

		if (c->kind == CONVERT_ROTATE) {
			const struct fmt_key_slot *old;

			err = keyslot_open(&c->sb, &secret, &slot, NULL);
			if (err)
				return err;
			old = &c->sb.slots[slot];
			secret.label = secret.label ? secret.label : old->label;
			if (!secret.kdf_memory_kib && !secret.kdf_passes && !secret.kdf_lanes) {
				secret.kdf_memory_kib = old->memory_kib;
				secret.kdf_passes = old->passes;
				secret.kdf_lanes = old->lanes;
			}
		}
		err = keyslot_fill(&c->target, slot, c->io, &secret, s);
	}
	return err;
}

static emdb_err target_new(struct conv *c)
{
	struct vault_secrets *s;
	emdb_err err;

	c->target = c->sb;
	c->target.incompat |= FMT_INCOMPAT_SEEDED;
	if (c->kind == CONVERT_DECRYPT) {
		c->target.incompat &= ~FMT_INCOMPAT_ENCRYPTED;
		c->target.incompat |= FMT_INCOMPAT_PADDED;
		c->target.cipher = 0;
		memcpy(c->target.hash_seed, vault_secrets_of(c->from)->hash_seed, 32);
		memset(c->target.slots, 0, sizeof(c->target.slots));
		memset(c->target.mac, 0, sizeof(c->target.mac));
		return EMDB_OK;
	}
	c->target.incompat |= FMT_INCOMPAT_ENCRYPTED;
	c->target.cipher = (uint32_t)target_cipher(c);
	s = vault_secrets_new();
	if (!s)
		return EMDB_ERR_NOMEM;
	memcpy(s->hash_seed, c->from ? vault_secrets_of(c->from)->hash_seed : c->sb.hash_seed, 32);
	memset(c->target.hash_seed, 0, sizeof(c->target.hash_seed));
	err = err_of_io(io_random(c->io, s->data_key, sizeof(s->data_key)));
	if (!err)
		err = target_slots(c, s);
	if (!err)
		err = vault_new((enum emdb_cipher)c->target.cipher, c->target.uuid, s, &c->to);
	if (!err)
		keyslot_mac(&c->target, s);
	vault_secrets_free(s);
	return err;
}

/* ---- convert/ ---- */

/* What an interrupted call left, if it was the same one. */
static bool resume(struct conv *c)
{
	struct vault_secrets *s = NULL;
	bool same;

	if (c->kind == CONVERT_DECRYPT || convert_pending(c->io, c->dir) != c->kind ||
	    storedir_open(c->io, c->dir, CONVERT_DIR, &c->convert) != EMDB_OK)
		return false;
	same = storedir_super_read(c->io, c->convert, &c->target) == EMDB_OK &&
	       memcmp(c->target.uuid, c->sb.uuid, 16) == 0 &&
	       c->target.cipher == (uint32_t)target_cipher(c);
	for (size_t i = 0; same && i < c->nsecrets; i++) {
		vault_secrets_free(s);
		s = NULL;
		same = keyslot_open(&c->target, &c->secrets[i], NULL, &s) == EMDB_OK;
	}
	same = same && s &&
	       vault_new((enum emdb_cipher)c->target.cipher, c->target.uuid, s, &c->to) == EMDB_OK;
	vault_secrets_free(s);
	same = same && storedir_open(c->io, c->convert, POOL_DIR, &c->pool) == EMDB_OK;
	if (same)
		return true;
	vault_unref(c->to);
	c->to = NULL;
	(void)io_close(c->io, c->convert);
	c->convert = -1;
	return false;
}

static emdb_err make_dir(struct emdb_io *io, int dirfd, const char *name, int *ret_fd)
{
	const int ret = io_mkdirat(io, dirfd, name, 0700);

	if (ret && ret != -EEXIST)
		return err_of_io(ret);
	return storedir_open(io, dirfd, name, ret_fd);
}

static emdb_err begin_new(struct conv *c)
{
	emdb_err err = storedir_remove(c->io, c->dir, CONVERT_DIR);

	if (!err)
		err = target_new(c);
	if (!err)
		err = make_dir(c->io, c->dir, CONVERT_DIR, &c->convert);
	if (!err)
		err = make_dir(c->io, c->convert, POOL_DIR, &c->pool);
	if (!err)
		err = storedir_super_write(c->io, c->convert, &c->target);
	if (!err)
		err = err_of_io(io_replace_durably(c->io, c->convert, KIND_NAME, kinds[c->kind],
						   strlen(kinds[c->kind])));
	return err ? err : err_of_io(io_fsync(c->io, c->dir));
}

/* ---- One store: the live one, or a snapshot ---- */

struct tree {
	int src, src_journal, dst, dst_journal;
	struct manifest m;
};

#define TREE_INIT                                                           \
	{                                                                   \
		.src = -1, .src_journal = -1, .dst = -1, .dst_journal = -1, \
		.m = {.head = { .nsegs = 0 } }                              \
	}

/* src and dst are the caller's. */
static void tree_release(const struct conv *c, struct tree *t)
{
	(void)io_close(c->io, t->src_journal);
	(void)io_close(c->io, t->dst_journal);
	manifest_release(&t->m);
}

static struct convert_way way_of(const struct conv *c)
{
	struct convert_way w = { .io = c->io,
				 .shift = c->sb.segment_shift,
				 .from_seeded = c->sb.incompat & FMT_INCOMPAT_SEEDED,
				 .from = c->from,
				 .to = c->to,
				 .detail = c->o.detail };

	memcpy(w.uuid, c->sb.uuid, sizeof(w.uuid));
	return w;
}

/* The segment is in the pool when this returns, and in the tree's journal. */
static emdb_err tree_segment(struct conv *c, struct tree *t, const struct manifest_seg *row)
{
	const struct convert_way w = way_of(c);
	char name[SEGMENT_NAME_SIZE];
	struct io_stat st;
	emdb_err err = EMDB_OK;
	int ret;

	segment_name(row->id, name);
	ret = io_fstatat(c->io, c->pool, name, &st);
	if (ret == -ENOENT) {
		err = convert_segment(&w, t->src_journal, row, &t->m, c->pool, "new.tmp");
		ret = err ? 0 : io_renameat(c->io, c->pool, "new.tmp", c->pool, name);
	}
	if (!err && !ret)
		ret = io_linkat(c->io, c->pool, name, t->dst_journal, name);
	if (!err)
		err = ret == -EEXIST ? EMDB_OK : err_of_io(ret);
	return err ? err : progress(c, row->len);
}

static emdb_err tree_begin(struct conv *c, struct tree *t)
{
	emdb_err err = manifest_load(c->io, t->src, &t->m);

	if (!err)
		err = manifest_mac_check(&t->m, c->from);
	if (!err && memcmp(t->m.head.uuid, c->sb.uuid, 16) != 0)
		err = EMDB_ERR_CORRUPT;
	for (uint32_t i = 0; !err && i < t->m.head.nsegs; i++)
		if (!(t->m.segs[i].flags & MANIFEST_SEALED))
			err = EMDB_ERR_BUSY;
	if (!err)
		err = storedir_open(c->io, t->src, STOREDIR_JOURNAL, &t->src_journal);
	return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_CORRUPT : err;
}

/* sb: that of the new store when it is a snapshot's; the live one has its own already. */
static emdb_err tree_turn(struct conv *c, struct tree *t, const struct superblock *sb)
{
	const struct convert_way w = way_of(c);
	struct manifest_head *const h = &t->m.head;
	emdb_err err = make_dir(c->io, t->dst, STOREDIR_JOURNAL, &t->dst_journal);

	for (uint32_t i = 0; !err && i < h->nsegs; i++)
		err = tree_segment(c, t, &t->m.segs[i]);
	h->ckpt_prev = h->ckpt_prev_lsn = 0;
	if (!err && h->ckpt) {
		err = convert_checkpoint(&w, t->src, h->ckpt, t->dst);
		if (err == EMDB_ERR_CORRUPT) {
			/* Opening then replays the journal, to the same end. */
			h->ckpt = h->ckpt_lsn = 0;
			err = EMDB_OK;
		}
	}
	if (!err)
		err = manifest_mac_set(&t->m, c->to);
	if (!err)
		err = manifest_store(&t->m, c->io, t->dst, NULL);
	if (!err && sb)
		err = storedir_super_write(c->io, t->dst, sb);
	if (!err)
		err = err_of_io(io_fsync(c->io, t->dst_journal));
	return err ? err : err_of_io(io_fsync(c->io, t->dst));
}

/* ---- Snapshots ---- */

struct snaps {
	struct conv *c;
	int src, dst;
	bool count; /* bytes only */
	emdb_err err;
};

/* The superblock of a snapshot with the keys of the new store. */
static emdb_err snap_super(const struct conv *c, const struct superblock *old,
			   struct superblock *ret)
{
	if (memcmp(old->uuid, c->sb.uuid, 16) != 0 || !old->frozen_ms ||
	    (c->from ? !keyslot_same(old, c->from) : old->cipher != 0))
		return EMDB_ERR_CORRUPT;
	*ret = c->target;
	ret->frozen_ms = old->frozen_ms;
	ret->snap_number = old->snap_number;
	return EMDB_OK;
}

static emdb_err snap_turn(struct snaps *s, const char *name)
{
	struct tree t = TREE_INIT;
	struct superblock old, sb;
	emdb_err err = storedir_open(s->c->io, s->src, name, &t.src);

	if (!err)
		err = storedir_super_read(s->c->io, t.src, &old);
	if (!err)
		err = snap_super(s->c, &old, &sb);
	if (!err)
		err = tree_begin(s->c, &t);
	if (!err && s->count)
		s->c->total += storedir_bytes(&t.m);
	if (!err && !s->count)
		err = make_dir(s->c->io, s->dst, name, &t.dst);
	if (!err && !s->count)
		err = tree_turn(s->c, &t, &sb);
	if (err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_NOT_STORE)
		err = EMDB_ERR_CORRUPT;
	if (err == EMDB_ERR_CORRUPT && s->c->o.detail && !s->c->o.detail->text[0])
		explain(s->c->o.detail, "snapshot %s does not check out: remove it first", name);
	(void)io_close(s->c->io, t.src);
	(void)io_close(s->c->io, t.dst);
	tree_release(s->c, &t);
	return err;
}

static emdb_err copy_small(struct emdb_io *io, int from, int to, const char *name)
{
	struct buf b = BUF_INIT;
	int ret = io_read_file(io, from, name, SMALL_MAX, &b);

	if (ret == 0)
		ret = io_replace_durably(io, to, name, b.data, b.len);
	buf_release(&b);
	return ret == -ENOENT ? EMDB_OK : err_of_io(ret);
}

/* io_list callback; a name with a dot is no snapshot, or not one yet or any more. */
static int snaps_one(void *arg, const char *name)
{
	struct snaps *const s = arg;

	if (*name != '.' && !s->err)
		s->err = snap_turn(s, name);
	return 0;
}

static emdb_err snaps_turn(struct conv *c, bool count)
{
	struct snaps s = { .c = c, .src = -1, .dst = -1, .count = count };
	emdb_err err = storedir_open(c->io, c->dir, STOREDIR_SNAPSHOTS, &s.src);

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	if (!count) {
		/* From the beginning: the snapshots of an interrupted call may be gone. */
		err = storedir_remove(c->io, c->convert, STOREDIR_SNAPSHOTS);
		if (!err)
			err = make_dir(c->io, c->convert, STOREDIR_SNAPSHOTS, &s.dst);
		if (!err)
			err = copy_small(c->io, s.src, s.dst, LAST_NAME);
	}
	if (!err)
		err = err_of_io(io_list(c->io, s.src, snaps_one, &s));
	if (!err)
		err = s.err;
	if (!err && !count)
		err = err_of_io(io_fsync(c->io, s.dst));
	(void)io_close(c->io, s.src);
	(void)io_close(c->io, s.dst);
	return err;
}

/* ---- All of it ---- */

/* The live store's part of convert/, without what an interrupted call linked there. */
static emdb_err live_turn(struct conv *c, struct tree *t)
{
	emdb_err err = storedir_remove(c->io, c->convert, STOREDIR_JOURNAL);

	t->dst = c->convert;
	return err ? err : tree_turn(c, t, NULL);
}

static emdb_err commit(struct conv *c)
{
	struct superblock sb = c->target;
	emdb_err err;

	sb.incompat |= FMT_INCOMPAT_SWITCH;
	if (c->to)
		keyslot_mac(&sb, vault_secrets_of(c->to));
	err = storedir_super_write(c->io, c->dir, &sb);
	return err ? err : convert_finish(c->io, c->dir, &sb, c->to);
}

static emdb_err run_locked(struct conv *c)
{
	struct tree live = TREE_INIT;
	emdb_err err;

	live.src = c->dir;
	err = tree_begin(c, &live);
	if (err == EMDB_ERR_BUSY)
		explain(c->o.detail, "%s was not closed in good order", c->path);
	c->total = storedir_bytes(&live.m);
	if (!err)
		err = snaps_turn(c, true);
	if (!err && !resume(c))
		err = begin_new(c);
	if (!err)
		err = progress(c, 0);
	if (!err)
		err = live_turn(c, &live);
	if (!err)
		err = snaps_turn(c, false);
	if (!err)
		err = err_of_io(io_fsync(c->io, c->pool));
	if (!err)
		err = err_of_io(io_fsync(c->io, c->convert));
	if (!err)
		err = commit(c);
	else if (c->kind == CONVERT_DECRYPT)
		(void)!storedir_remove(c->io, c->dir, CONVERT_DIR);
	tree_release(c, &live);
	return err;
}

/* Opens the store and closes it: recovered, sealed, and no conversion half done. */
static emdb_err settle(const struct conv *c, const struct emdb_secret *secret)
{
	const struct emdb_options o = { .size = sizeof(o),
					.sweep_interval_ms = -1,
					.compact_percent = -1,
					.secret = secret,
					.detail = c->o.detail };
	emdb_db *db;
	const emdb_err err = emdb_open(c->path, &o, &db);

	return err ? err : emdb_close(db);
}

/* The directory and its superblock. */
static emdb_err look(struct conv *c)
{
	const int ret = io_openat(c->io, AT_FDCWD, c->path, O_RDONLY | O_DIRECTORY, 0, &c->dir);
	emdb_err err;

	if (ret == -ENOENT || ret == -ENOTDIR)
		return ret == -ENOENT ? EMDB_ERR_NO_STORE : EMDB_ERR_NOT_STORE;
	if (ret)
		return err_of_io(ret);
	err = storedir_super_read(c->io, c->dir, &c->sb);
	if (!err && c->sb.frozen_ms) {
		explain(c->o.detail, "%s is a snapshot or a backup", c->path);
		err = EMDB_ERR_READ_ONLY;
	}
	return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_NOT_STORE : err;
}

/* Something the same call has committed, but not moved in: that is all there is to do. */
static bool is_committed(const struct conv *c)
{
	return c->sb.incompat & FMT_INCOMPAT_SWITCH && convert_pending(c->io, c->dir) == c->kind &&
	       (c->sb.cipher != 0) == (c->kind != CONVERT_DECRYPT);
}

static emdb_err run(struct conv *c)
{
	const struct emdb_secret *const old = c->kind == CONVERT_ENCRYPT ? NULL : c->secrets;
	emdb_err err = look(c);

	if (err)
		return err;
	if (is_committed(c))
		return settle(c, c->sb.cipher ? c->secrets : NULL);
	if (c->kind == CONVERT_ENCRYPT && c->sb.cipher) {
		explain(c->o.detail, "%s is encrypted already", c->path);
		return EMDB_ERR_EXISTS;
	}
	if (c->kind != CONVERT_DECRYPT && !emdb_cipher_available(target_cipher(c)))
		return EMDB_ERR_UNSUPPORTED;
	err = settle(c, old);
	if (!err)
		err = storedir_lock(c->io, c->dir, true, true, &c->lock);
	if (!err)
		err = storedir_super_read(c->io, c->dir, &c->sb);
	if (!err && (c->sb.incompat & FMT_INCOMPAT_SWITCH || (c->sb.cipher != 0) != (old != NULL)))
		err = EMDB_ERR_LOCKED; /* somebody else converted it in this moment */
	if (!err && old)
		err = keyslot_vault(&c->sb, old, &c->from);
	return err ? err : run_locked(c);
}

static emdb_err convert(enum convert_kind kind, const char *path, const struct emdb_secret *secrets,
			size_t n, const struct emdb_convert_options *opts)
{
	struct conv c = { .kind = kind,
			  .path = path,
			  .secrets = secrets,
			  .nsecrets = n,
			  .dir = -1,
			  .lock = -1,
			  .convert = -1,
			  .pool = -1 };
	emdb_err err = EMDB_OK;

	if (!path || !*path || !secrets || !n || n > EMDB_KEY_SLOTS ||
	    (opts && (opts->size != sizeof(*opts) || opts->cipher > EMDB_CIPHER_CHACHA20_POLY1305)))
		return EMDB_ERR_INVAL;
	if (opts)
		c.o = *opts;
	if (c.o.detail)
		*c.o.detail = (struct emdb_detail){ .segment = UINT64_MAX };
	for (size_t i = 0; !err && i < n; i++)
		err = keyslot_secret_check(&secrets[i]);
	if (err)
		return err;
	c.io = emdb_io_posix_new();
	err = c.io ? run(&c) : EMDB_ERR_NOMEM;
	conv_release(&c);
	return err;
}

emdb_err emdb_encrypt(const char *path, const struct emdb_secret *secret,
		      const struct emdb_convert_options *opts)
{
	return convert(CONVERT_ENCRYPT, path, secret, 1, opts);
}

emdb_err emdb_decrypt(const char *path, const struct emdb_secret *secret,
		      const struct emdb_convert_options *opts)
{
	return convert(CONVERT_DECRYPT, path, secret, 1, opts);
}

emdb_err emdb_rotate(const char *path, const struct emdb_secret *secrets, size_t n,
		     const struct emdb_convert_options *opts)
{
	return convert(CONVERT_ROTATE, path, secrets, n, opts);
}
