/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crypto: the keys of an encrypted store, in memory that does not leave it, and what they seal.
 *
 * All of it is libsodium's: AES-256-GCM and ChaCha20-Poly1305 for data, XChaCha20-Poly1305 for the
 * keys in key slots, BLAKE2b for deriving. Hides where keys lie and which cipher it is.
 *
 * The vault holds the data key. Data are never sealed with it but with sub-keys, one per file:
 *
 *	sub-key = BLAKE2b-256(key: data key, message: purpose (8 bytes), uuid (16),
 *			      u64 number of the file, salt of the file (32))
 *
 * A file's salt is random and made with the file. So a nonce only has to be unique in one file
 * written by one process (I9): it is where in that file the bytes are, and no place is written
 * twice.
 *
 * Memory. Keys lie in pages of sodium_malloc(): locked if the limits allow, left out of core dumps,
 * between guard pages, wiped on free.
 *
 * Thread-safety: every function by any thread; a vault and its keys are immutable and counted.
 */
#ifndef EMDB_CRYPTO_H
#define EMDB_CRYPTO_H

#include "core/base.h"
#include "core/emdb.h"

#define CRYPTO_TAG   16u /* bytes that sealing adds */
#define CRYPTO_NONCE 12u
#define CRYPTO_SALT  32u

/* Must come before everything else here; cheap when it was called before. 0 or -EIO. */
int crypto_init(void) EMDB_MUST_CHECK;

struct vault;

/* The two secrets of a store, as key slots hold them. */
struct vault_secrets {
	uint8_t data_key[32];
	uint8_t hash_seed[32];
};
/* In memory as above, filled with zeros; NULL: none. Freed and wiped with _free(), NULL too. */
struct vault_secrets *vault_secrets_new(void) EMDB_MUST_CHECK;
void vault_secrets_free(struct vault_secrets *s);

/* One reference. UNSUPPORTED: this machine has not got the cipher; NOMEM. */
EMDB_CHECKED emdb_err vault_new(enum emdb_cipher cipher, const uint8_t uuid[static 16],
				const struct vault_secrets *secrets, struct vault **ret);
void vault_ref(struct vault *v);
/* Wiped and freed with the last; NULL is let pass. */
void vault_unref(struct vault *v);
enum emdb_cipher vault_cipher(const struct vault *v);
/* Stays with the vault. */
const struct vault_secrets *vault_secrets_of(const struct vault *v);

/* Keyed BLAKE2b-256 of a name of 8 bytes and n bytes at p, under the data key. */
void vault_mac(const struct vault_secrets *s, const char name[static 8], const void *p, size_t n,
	       uint8_t mac[static 32]);
/* In constant time. */
bool vault_mac_equal(const uint8_t a[static 32], const uint8_t b[static 32]) EMDB_MUST_CHECK;

/* ---- Sub-keys ---- */

struct seal_key;

enum seal_purpose {
	SEAL_SEGMENT,    /* number: segment id */
	SEAL_CHECKPOINT, /* number of the checkpoint */
};

/* Holds a reference on v. Only NOMEM. */
EMDB_CHECKED emdb_err seal_key_new(struct vault *v, enum seal_purpose purpose, uint64_t number,
				   const uint8_t salt[static CRYPTO_SALT], struct seal_key **ret);
void seal_key_free(struct seal_key *k);

/*
 * Seals n bytes from src to dst, which may be the same, and writes the tag. ad is bound as well. The
 * nonce is `place` and must not have been used with this key before.
 */
void seal(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len, const void *src,
	  size_t n, void *dst, uint8_t tag[static CRYPTO_TAG]);
/* The reverse. False: something of it was changed; dst then holds zeros. */
bool seal_open(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len,
	       const void *src, size_t n, const uint8_t tag[static CRYPTO_TAG],
	       void *dst) EMDB_MUST_CHECK;

#endif
