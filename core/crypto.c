/* SPDX-License-Identifier: Apache-2.0 */
#include "core/crypto.h"

#include <sodium.h>
#include <stdatomic.h>

#include "core/codec.h"
#include "core/sync.h"

static_assert(CRYPTO_TAG == crypto_aead_aes256gcm_ABYTES, "both ciphers have one size of tag");
static_assert(CRYPTO_TAG == crypto_aead_chacha20poly1305_ietf_ABYTES, "as above");
static_assert(CRYPTO_NONCE == crypto_aead_aes256gcm_NPUBBYTES, "as above");
static_assert(CRYPTO_NONCE == crypto_aead_chacha20poly1305_ietf_NPUBBYTES, "as above");

int crypto_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

/* ---- Ciphers ---------------------------------------------------------- */

const char *emdb_cipher_name(enum emdb_cipher cipher)
{
	if (cipher == EMDB_CIPHER_AES_256_GCM)
		return "aes-256-gcm";
	return cipher == EMDB_CIPHER_CHACHA20_POLY1305 ? "chacha20-poly1305" : "none";
}

emdb_err emdb_cipher_parse(const char *name, enum emdb_cipher *ret_cipher)
{
	if (!name)
		return EMDB_ERR_INVAL;
	for (int c = EMDB_CIPHER_AES_256_GCM; c <= EMDB_CIPHER_CHACHA20_POLY1305; c++)
		if (strcmp(name, emdb_cipher_name((enum emdb_cipher)c)) == 0) {
			*ret_cipher = (enum emdb_cipher)c;
			return EMDB_OK;
		}
	return EMDB_ERR_INVAL;
}

bool emdb_cipher_available(enum emdb_cipher cipher)
{
	if (crypto_init())
		return false;
	if (cipher == EMDB_CIPHER_AES_256_GCM)
		return crypto_aead_aes256gcm_is_available();
	return cipher == EMDB_CIPHER_DEFAULT || cipher == EMDB_CIPHER_CHACHA20_POLY1305;
}

/* ---- The vault -------------------------------------------------------- */

/* What a cipher needs of a sub-key; expanding AES's for each frame would cost as much as sealing. */
struct seal_key {
	union {
		crypto_aead_aes256gcm_state aes; /* first: 16 bytes aligned */
		uint8_t chacha[crypto_aead_chacha20poly1305_ietf_KEYBYTES];
		struct seal_key *next_free;
	} u;
	struct vault *vault;
	struct arena *arena;
};

/* Many keys in one allocation of sodium_malloc(), which takes several mappings each. */
#define ARENA_KEYS 56u
struct arena {
	struct arena *next, **prev;
	struct seal_key *keys;
	struct seal_key *free;
	unsigned int used;
};

struct vault {
	_Atomic(uint32_t) refs;        /* atomic */
	enum emdb_cipher cipher;       /* immutable */
	uint8_t uuid[16];              /* immutable */
	struct vault_secrets *secrets; /* immutable */
	struct mutex lock;             /* rank LOCK_LEAF */
	struct arena *arenas;          /* guarded by lock */
};

struct vault_secrets *vault_secrets_new(void)
{
	struct vault_secrets *const s = sodium_malloc(sizeof(*s));

	if (s)
		memset(s, 0, sizeof(*s));
	return s;
}

void vault_secrets_free(struct vault_secrets *s)
{
	sodium_free(s);
}

emdb_err vault_new(enum emdb_cipher cipher, const uint8_t uuid[static 16],
		   const struct vault_secrets *secrets, struct vault **ret)
{
	struct vault *v;

	if (cipher == EMDB_CIPHER_DEFAULT || !emdb_cipher_available(cipher))
		return EMDB_ERR_UNSUPPORTED;
	v = base_calloc(1, sizeof(*v));
	if (!v)
		return EMDB_ERR_NOMEM;
	v->secrets = vault_secrets_new();
	if (!v->secrets) {
		base_free(v);
		return EMDB_ERR_NOMEM;
	}
	*v->secrets = *secrets;
	v->cipher = cipher;
	memcpy(v->uuid, uuid, sizeof(v->uuid));
	mutex_init(&v->lock, LOCK_LEAF);
	atomic_init(&v->refs, 1);
	*ret = v;
	return EMDB_OK;
}

void vault_ref(struct vault *v)
{
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
}

void vault_unref(struct vault *v)
{
	if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
		return;
	emdb_assert(!v->arenas); /* each key holds a reference */
	vault_secrets_free(v->secrets);
	mutex_destroy(&v->lock);
	base_free(v);
}

enum emdb_cipher vault_cipher(const struct vault *v)
{
	return v->cipher;
}

const struct vault_secrets *vault_secrets_of(const struct vault *v)
{
	return v->secrets;
}

void vault_mac(const struct vault_secrets *s, const char name[static 8], const void *p, size_t n,
	       uint8_t mac[static 32])
{
	crypto_generichash_state st;

	(void)crypto_generichash_init(&st, s->data_key, sizeof(s->data_key), 32);
	(void)crypto_generichash_update(&st, (const uint8_t *)name, 8);
	(void)crypto_generichash_update(&st, p, n);
	(void)crypto_generichash_final(&st, mac, 32);
	sodium_memzero(&st, sizeof(st));
}

bool vault_mac_equal(const uint8_t a[static 32], const uint8_t b[static 32])
{
	return sodium_memcmp(a, b, 32) == 0;
}

/* ---- Sub-keys --------------------------------------------------------- */

static struct arena *arena_new_locked(struct vault *v) EMDB_REQUIRES(&v->lock);
static struct arena *arena_new_locked(struct vault *v)
{
	struct arena *const a = base_calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->keys = sodium_allocarray(ARENA_KEYS, sizeof(*a->keys));
	if (!a->keys) {
		base_free(a);
		return NULL;
	}
	for (unsigned int i = 0; i < ARENA_KEYS; i++) {
		a->keys[i].u.next_free = a->free;
		a->keys[i].arena = a;
		a->free = &a->keys[i];
	}
	a->next = v->arenas;
	a->prev = &v->arenas;
	if (a->next)
		a->next->prev = &a->next;
	v->arenas = a;
	return a;
}

static struct seal_key *key_take(struct vault *v)
{
	struct seal_key *k = NULL;
	struct arena *a;

	mutex_lock(&v->lock);
	a = v->arenas;
	while (a && !a->free)
		a = a->next;
	if (!a)
		a = arena_new_locked(v);
	if (a) {
		k = a->free;
		a->free = k->u.next_free;
		a->used++;
	}
	mutex_unlock(&v->lock);
	return k;
}

void seal_key_free(struct seal_key *k)
{
	struct vault *v;
	struct arena *a;

	if (!k)
		return;
	v = k->vault;
	a = k->arena;
	sodium_memzero(&k->u, sizeof(k->u));
	mutex_lock(&v->lock);
	k->u.next_free = a->free;
	a->free = k;
	if (--a->used == 0) {
		*a->prev = a->next;
		if (a->next)
			a->next->prev = a->prev;
		sodium_free(a->keys);
		base_free(a);
	}
	mutex_unlock(&v->lock);
	vault_unref(v);
}

static void derive(const struct vault *v, enum seal_purpose purpose, uint64_t number,
		   const uint8_t salt[static CRYPTO_SALT], uint8_t out[static 32])
{
	static const char names[][9] = {
		[SEAL_SEGMENT] = "emdbsegm", [SEAL_CHECKPOINT] = "emdbckpt"
	};
	uint8_t m[8 + 16 + 8 + CRYPTO_SALT];

	memcpy(m, names[purpose], 8);
	memcpy(m + 8, v->uuid, 16);
	put_u64(m + 24, number);
	memcpy(m + 32, salt, CRYPTO_SALT);
	(void)crypto_generichash(out, 32, m, sizeof(m), v->secrets->data_key,
				 sizeof(v->secrets->data_key));
}

emdb_err seal_key_new(struct vault *v, enum seal_purpose purpose, uint64_t number,
		      const uint8_t salt[static CRYPTO_SALT], struct seal_key **ret)
{
	struct seal_key *const k = key_take(v);
	uint8_t sub[32];

	if (!k)
		return EMDB_ERR_NOMEM;
	derive(v, purpose, number, salt, sub);
	if (v->cipher == EMDB_CIPHER_AES_256_GCM)
		(void)crypto_aead_aes256gcm_beforenm(&k->u.aes, sub);
	else
		memcpy(k->u.chacha, sub, sizeof(sub));
	sodium_memzero(sub, sizeof(sub));
	vault_ref(v);
	k->vault = v;
	*ret = k;
	return EMDB_OK;
}

/* ---- Sealing ---------------------------------------------------------- */

static void nonce_of(uint64_t place, uint8_t nonce[static CRYPTO_NONCE])
{
	put_u64(nonce, place);
	put_u32(nonce + 8, 0);
}

void seal(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len, const void *src,
	  size_t n, void *dst, uint8_t tag[static CRYPTO_TAG])
{
	uint8_t nonce[CRYPTO_NONCE];

	nonce_of(place, nonce);
	if (k->vault->cipher == EMDB_CIPHER_AES_256_GCM)
		(void)crypto_aead_aes256gcm_encrypt_detached_afternm(
			dst, tag, NULL, src, n, ad, ad_len, NULL, nonce, &k->u.aes);
	else
		(void)crypto_aead_chacha20poly1305_ietf_encrypt_detached(
			dst, tag, NULL, src, n, ad, ad_len, NULL, nonce, k->u.chacha);
}

bool seal_open(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len,
	       const void *src, size_t n, const uint8_t tag[static CRYPTO_TAG], void *dst)
{
	uint8_t nonce[CRYPTO_NONCE];
	int bad;

	nonce_of(place, nonce);
	if (k->vault->cipher == EMDB_CIPHER_AES_256_GCM)
		bad = crypto_aead_aes256gcm_decrypt_detached_afternm(dst, NULL, src, n, tag, ad,
								     ad_len, nonce, &k->u.aes);
	else
		bad = crypto_aead_chacha20poly1305_ietf_decrypt_detached(
			dst, NULL, src, n, tag, ad, ad_len, nonce, k->u.chacha);
	if (bad && n)
		memset(dst, 0, n);
	return !bad;
}
