/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keyslot: the key slots in a superblock: one more, one less, and finding the one that a secret
 * opens.
 *
 *	wrapping key = BLAKE2b-256(key: s, message: "emdbslot", u32 kind, salt of the slot)
 *	s = Argon2id(passphrase, salt, cost in the slot), or the raw or recovery key itself
 *	sealed = XChaCha20-Poly1305(wrapping key, nonce of the slot, data key and hash seed;
 *		associated data: "emdbslot", uuid, u32 cipher, bytes 0..95 of the slot)
 *
 * The tag tells a wrong secret before anything else is read. Changing a slot's cost or label, or
 * moving it to another store, makes it one that nothing opens.
 *
 * The superblock has a MAC, so that nobody without a key can change it, take slots away or bring
 * old ones back one by one (an old superblock as a whole is not recognised):
 *
 *	MAC = BLAKE2b-256(key: data key, message: "emdbsupr", the 4096 bytes with MAC, CRC, frozen
 *		and number of the snapshot zero)
 *
 * Frozen and number are left out because restoring changes them, which needs no key.
 *
 * Pure but for randomness and time of Argon2id; thread-safe.
 */
#ifndef EMDB_KEYSLOT_H
#define EMDB_KEYSLOT_H

#include "core/crypto.h"
#include "core/format.h"
#include "core/io.h"

/* INVAL: not a secret: empty, too long, a recovery key with a typing error, a bad label or cost. */
EMDB_CHECKED emdb_err keyslot_secret_check(const struct emdb_secret *secret);

/*
 * Finds the slot that the secret opens, checks the MAC. *ret_slot and *ret may be NULL; *ret is
 * freed with vault_secrets_free(). INVAL, WRONG_KEY, NOMEM; CORRUPT: the MAC is wrong.
 */
EMDB_CHECKED emdb_err keyslot_open(const struct superblock *sb, const struct emdb_secret *secret,
				   uint32_t *ret_slot, struct vault_secrets **ret);
/* The same as a vault. Also UNSUPPORTED. */
EMDB_CHECKED emdb_err keyslot_vault(const struct superblock *sb, const struct emdb_secret *secret,
				    struct vault **ret);

/* Is this the superblock of a store with these keys, and nobody has changed it? */
bool keyslot_same(const struct superblock *sb, const struct vault *v) EMDB_MUST_CHECK;

/* Fills slot `slot` of sb (its uuid and cipher must be set). INVAL, NOMEM, IO: no randomness. */
EMDB_CHECKED emdb_err keyslot_fill(struct superblock *sb, uint32_t slot, struct emdb_io *io,
				   const struct emdb_secret *secret,
				   const struct vault_secrets *secrets);
/* The last thing before a superblock is written. */
void keyslot_mac(struct superblock *sb, const struct vault_secrets *secrets);

#endif
