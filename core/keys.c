/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Administration of key slots, on the superblock of a store that nobody has open. One change is one
 * durable replacement of that file. The superblocks of the store's snapshots follow: slots that
 * open a snapshot open the store's data as well. What a crash leaves undone there is done when the
 * store is opened for writing next.
 */
#include <string.h>

#include "core/convert.h"
#include "core/keyslot.h"
#include "core/keys.h"
#include "core/storedir.h"

/* ---- Reading --------------------------------------------------------------- */

/* Opens the directory and reads its superblock. */
static emdb_err read_at(struct emdb_io *io, const char *path, int *ret_dir, struct superblock *sb)
{
	const int ret = io_openat(io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, ret_dir);
	emdb_err err;

	if (ret)
		return ret == -ENOENT    ? EMDB_ERR_NO_STORE
		       : ret == -ENOTDIR ? EMDB_ERR_NOT_STORE
					 : err_of_io(ret);
	err = storedir_super_read(io, *ret_dir, sb);
	return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_NOT_STORE : err;
}

/* *ret_kind: the conversion that was interrupted; may be NULL. */
static emdb_err super_of(const char *path, struct superblock *ret, enum convert_kind *ret_kind)
{
	struct emdb_io *io;
	int dir = -1;
	emdb_err err;

	if (!path || !*path)
		return EMDB_ERR_INVAL;
	io = emdb_io_posix_new();
	if (!io)
		return EMDB_ERR_NOMEM;
	err = read_at(io, path, &dir, ret);
	if (!err && ret_kind)
		*ret_kind = convert_pending(io, dir);
	(void)io_close(io, dir);
	emdb_io_free(io);
	return err;
}

emdb_err emdb_encryption_get(const char *path, struct emdb_encryption *ret_encryption)
{
	struct emdb_encryption e = { .cipher = EMDB_CIPHER_DEFAULT };
	enum convert_kind kind = CONVERT_NONE;
	struct superblock sb;
	const emdb_err err = super_of(path, &sb, &kind);

	if (err)
		return err;
	e.cipher = (enum emdb_cipher)sb.cipher;
	e.encrypting = kind == CONVERT_ENCRYPT;
	e.decrypting = kind == CONVERT_DECRYPT;
	e.rotating = kind == CONVERT_ROTATE;
	for (uint32_t i = 0; i < EMDB_KEY_SLOTS; i++) {
		const struct fmt_key_slot *const from = &sb.slots[i];
		struct emdb_key_slot *const to = &e.slots[i];

		e.used += from->kind != 0;
		to->kind = (enum emdb_secret_kind)from->kind;
		to->created_ms = from->created_ms;
		to->kdf_memory_kib = from->memory_kib;
		to->kdf_passes = from->passes;
		to->kdf_lanes = from->lanes;
		memcpy(to->label, from->label, sizeof(to->label));
	}
	*ret_encryption = e;
	return EMDB_OK;
}

emdb_err emdb_key_check(const char *path, const struct emdb_secret *secret, uint32_t *ret_slot)
{
	struct superblock sb;
	emdb_err err;

	if (!secret)
		return EMDB_ERR_INVAL;
	err = super_of(path, &sb, NULL);
	if (!err && !sb.cipher)
		err = EMDB_ERR_NOT_ENCRYPTED;
	return err ? err : keyslot_open(&sb, secret, ret_slot, NULL);
}

/* ---- Changing -------------------------------------------------------------- */

struct change {
	struct emdb_io *io;
	int dir, lock;
	struct superblock sb;
	struct vault_secrets *secrets;
	uint32_t slot; /* that the caller's secret opened */
	struct emdb_detail *detail;
};

static void change_release(struct change *c)
{
	vault_secrets_free(c->secrets);
	if (!c->io)
		return;
	(void)io_close(c->io, c->lock);
	(void)io_close(c->io, c->dir);
	emdb_io_free(c->io);
}

static void explain_lock(struct change *c, const char *path)
{
	struct emdb_lock_info info;

	if (emdb_lock_holder(path, &info) == EMDB_OK && info.pid)
		explain(c->detail, "held by process %lld on %s", (long long)info.pid,
			info.host[0] ? info.host : "an unknown host");
}

/* Locks the store, reads its superblock and opens it with the secret. */
static emdb_err change_begin(struct change *c, const char *path, const struct emdb_secret *secret,
			     struct emdb_detail *detail)
{
	emdb_err err;

	*c = (struct change){ .dir = -1, .lock = -1, .detail = detail };
	if (detail)
		*detail = (struct emdb_detail){ .segment = UINT64_MAX };
	if (!path || !*path || !secret)
		return EMDB_ERR_INVAL;
	c->io = emdb_io_posix_new();
	if (!c->io)
		return EMDB_ERR_NOMEM;
	err = read_at(c->io, path, &c->dir, &c->sb);
	if (!err && c->sb.frozen_ms) {
		explain(detail, "%s is a snapshot or a backup", path);
		return EMDB_ERR_READ_ONLY;
	}
	if (!err)
		err = storedir_lock(c->io, c->dir, true, true, &c->lock);
	if (err == EMDB_ERR_LOCKED)
		explain_lock(c, path);
	/* Again: somebody may have changed it before we had the lock. */
	if (!err)
		err = storedir_super_read(c->io, c->dir, &c->sb);
	if (!err && c->sb.incompat & FMT_INCOMPAT_SWITCH) {
		explain(detail, "a conversion of %s has to be finished first", path);
		err = EMDB_ERR_BUSY;
	}
	if (!err && !c->sb.cipher)
		err = EMDB_ERR_NOT_ENCRYPTED;
	if (!err)
		err = keyslot_open(&c->sb, secret, &c->slot, &c->secrets);
	if (err == EMDB_ERR_CORRUPT)
		explain(detail, "the superblock was changed by somebody without its keys");
	return err;
}

static emdb_err change_write(struct change *c)
{
	emdb_err err;

	keyslot_mac(&c->sb, c->secrets);
	err = storedir_super_write(c->io, c->dir, &c->sb);
	return err ? err : keys_to_snapshots(c->io, c->dir, &c->sb, c->secrets);
}

/* new_secret must not open the store yet. */
static emdb_err is_new(const struct change *c, const struct emdb_secret *new_secret)
{
	const emdb_err err = keyslot_open(&c->sb, new_secret, NULL, NULL);

	if (!err)
		return EMDB_ERR_EXISTS;
	return err == EMDB_ERR_WRONG_KEY ? EMDB_OK : err;
}

emdb_err emdb_key_add(const char *path, const struct emdb_secret *secret,
		      const struct emdb_secret *new_secret, uint32_t *ret_slot,
		      struct emdb_detail *detail)
{
	struct change c;
	uint32_t slot = 0;
	emdb_err err = change_begin(&c, path, secret, detail);

	if (!err)
		err = new_secret ? is_new(&c, new_secret) : EMDB_ERR_INVAL;
	while (slot < EMDB_KEY_SLOTS && c.sb.slots[slot].kind)
		slot++;
	if (!err && slot == EMDB_KEY_SLOTS) {
		explain(detail, "all %u key slots are in use", EMDB_KEY_SLOTS);
		err = EMDB_ERR_NO_SPACE;
	}
	if (!err)
		err = keyslot_fill(&c.sb, slot, c.io, new_secret, c.secrets);
	if (!err)
		err = change_write(&c);
	change_release(&c);
	if (!err && ret_slot)
		*ret_slot = slot;
	return err;
}

emdb_err emdb_key_change(const char *path, const struct emdb_secret *secret,
			 const struct emdb_secret *new_secret, uint32_t *ret_slot,
			 struct emdb_detail *detail)
{
	struct change c;
	emdb_err err = change_begin(&c, path, secret, detail);

	if (!err)
		err = new_secret ? is_new(&c, new_secret) : EMDB_ERR_INVAL;
	if (!err)
		err = keyslot_fill(&c.sb, c.slot, c.io, new_secret, c.secrets);
	if (!err)
		err = change_write(&c);
	if (!err && ret_slot)
		*ret_slot = c.slot;
	change_release(&c);
	return err;
}

emdb_err emdb_key_remove(const char *path, const struct emdb_secret *secret, uint32_t slot,
			 struct emdb_detail *detail)
{
	struct change c;
	uint32_t used = 0;
	emdb_err err = change_begin(&c, path, secret, detail);

	for (uint32_t i = 0; !err && i < EMDB_KEY_SLOTS; i++)
		used += c.sb.slots[i].kind != 0;
	if (!err && (slot >= EMDB_KEY_SLOTS || !c.sb.slots[slot].kind)) {
		explain(detail, "key slot %u is free", slot);
		err = EMDB_ERR_NOT_FOUND;
	}
	if (!err && used == 1) {
		explain(detail, "key slot %u is the only one: nothing would open the store", slot);
		err = EMDB_ERR_BUSY;
	}
	if (!err) {
		c.sb.slots[slot] = (struct fmt_key_slot){ .kind = 0 };
		err = change_write(&c);
	}
	change_release(&c);
	return err;
}

/* ---- Snapshots ---------------------------------------------------------------- */

struct follow {
	struct emdb_io *io;
	const struct superblock *sb;
	const struct vault_secrets *secrets;
	int dir; /* snapshots/ */
	emdb_err err;
};

/* io_list callback: one snapshot gets the slots of the store. */
static int follow_one(void *arg, const char *name)
{
	struct follow *const f = arg;
	struct superblock sb;
	emdb_err err;
	int dir = -1;

	if (*name == '.') /* being made or removed */
		return 0;
	err = storedir_open(f->io, f->dir, name, &dir);
	if (!err)
		err = storedir_super_read(f->io, dir, &sb);
	if (!err && (sb.cipher != f->sb->cipher || memcmp(sb.uuid, f->sb->uuid, 16) != 0))
		err = EMDB_ERR_CORRUPT;
	if (!err && memcmp(sb.slots, f->sb->slots, sizeof(sb.slots)) != 0) {
		memcpy(sb.slots, f->sb->slots, sizeof(sb.slots));
		keyslot_mac(&sb, f->secrets);
		err = storedir_super_write(f->io, dir, &sb);
	}
	(void)io_close(f->io, dir);
	/* A damaged snapshot must not keep the others from following. */
	if (err && !f->err)
		f->err = err;
	return 0;
}

emdb_err keys_to_snapshots(struct emdb_io *io, int dirfd, const struct superblock *sb,
			   const struct vault_secrets *secrets)
{
	struct follow f = { .io = io, .sb = sb, .secrets = secrets, .dir = -1 };
	emdb_err err = storedir_open(io, dirfd, STOREDIR_SNAPSHOTS, &f.dir);

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? EMDB_OK : err;
	err = err_of_io(io_list(io, f.dir, follow_one, &f));
	(void)io_close(io, f.dir);
	return err ? err : f.err;
}
