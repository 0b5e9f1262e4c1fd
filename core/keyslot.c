/* SPDX-License-Identifier: Apache-2.0 */
#include "core/keyslot.h"

#include <argon2.h>
#include <sodium.h>

static_assert(sizeof(struct vault_secrets) == FMT_SLOT_SECRET, "what a slot seals");
static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES + FMT_SLOT_SECRET == FMT_SLOT_SEALED,
	      "what sealing makes of it");
static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES ==
		      sizeof(((struct fmt_key_slot *)0)->nonce),
	      "a nonce fills its field");

#define KDF_MEMORY_KIB 65536u
#define KDF_PASSES     3u
#define KDF_LANES      4u

/* ---- Recovery keys ------------------------------------------------------ */

/* Crockford's base32: no I, L, O, U. */
static const char recovery_digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#define RECOVERY_SUM   3u
#define RECOVERY_BYTES (EMDB_RAW_KEY_SIZE + RECOVERY_SUM)
#define RECOVERY_CHARS (RECOVERY_BYTES * 8 / 5)
#define RECOVERY_GROUP 4u
static_assert(RECOVERY_BYTES * 8 % 5 == 0 && RECOVERY_CHARS % RECOVERY_GROUP == 0,
	      "whole digits in whole groups");
static_assert(RECOVERY_CHARS + RECOVERY_CHARS / RECOVERY_GROUP <= EMDB_RECOVERY_TEXT_SIZE,
	      "digits, hyphens and a NUL");

static void recovery_sum(const uint8_t key[static EMDB_RAW_KEY_SIZE],
			 uint8_t sum[static RECOVERY_SUM])
{
	static const uint8_t context[] = "emdb recovery key";
	uint8_t h[32];

	(void)crypto_generichash(h, sizeof(h), key, EMDB_RAW_KEY_SIZE, context,
				 sizeof(context) - 1);
	memcpy(sum, h, RECOVERY_SUM);
	sodium_memzero(h, sizeof(h));
}

emdb_err emdb_recovery_key_new(char ret_text[EMDB_RECOVERY_TEXT_SIZE])
{
	uint8_t b[RECOVERY_BYTES];
	char *p = ret_text;

	if (crypto_init())
		return EMDB_ERR_IO;
	randombytes_buf(b, EMDB_RAW_KEY_SIZE);
	recovery_sum(b, b + EMDB_RAW_KEY_SIZE);
	for (unsigned int i = 0; i < RECOVERY_CHARS; i++) {
		unsigned int digit = 0;

		for (unsigned int bit = i * 5; bit < i * 5 + 5; bit++)
			digit = digit << 1 | (b[bit / 8] >> (7 - bit % 8) & 1);
		if (i && i % RECOVERY_GROUP == 0)
			*p++ = '-';
		*p++ = recovery_digits[digit];
	}
	*p = 0;
	sodium_memzero(b, sizeof(b));
	return EMDB_OK;
}

/* -1: no digit. */
static int recovery_digit(char c)
{
	const char *at;

	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	if (c == 'O')
		c = '0';
	if (c == 'I' || c == 'L')
		c = '1';
	at = c ? strchr(recovery_digits, c) : NULL;
	return at ? (int)(at - recovery_digits) : -1;
}

static bool recovery_read(const char *s, size_t n, uint8_t key[static EMDB_RAW_KEY_SIZE])
{
	uint8_t b[RECOVERY_BYTES] = { 0 }, sum[RECOVERY_SUM];
	unsigned int count = 0;
	bool ok = true;

	for (size_t i = 0; ok && i < n; i++) {
		int digit;

		if (strchr(" -\t\r\n", s[i]) && s[i])
			continue;
		digit = recovery_digit(s[i]);
		ok = digit >= 0 && count < RECOVERY_CHARS;
		for (unsigned int k = 0; ok && k < 5; k++)
			if (digit >> (4 - k) & 1)
				b[(count * 5 + k) / 8] |= (uint8_t)(0x80 >> (count * 5 + k) % 8);
		count++;
	}
	ok = ok && count == RECOVERY_CHARS;
	if (ok) {
		recovery_sum(b, sum);
		ok = sodium_memcmp(sum, b + EMDB_RAW_KEY_SIZE, RECOVERY_SUM) == 0;
	}
	if (ok)
		memcpy(key, b, EMDB_RAW_KEY_SIZE);
	sodium_memzero(b, sizeof(b));
	sodium_memzero(sum, sizeof(sum));
	return ok;
}

/* ---- Secrets ------------------------------------------------------------- */

static bool label_ok(const char *label)
{
	if (!label)
		return true;
	for (const char *p = label; *p; p++)
		if ((uint8_t)*p < 0x20 || *p == 0x7f)
			return false;
	return strlen(label) <= EMDB_KEY_LABEL_MAX;
}

emdb_err keyslot_secret_check(const struct emdb_secret *s)
{
	uint8_t key[EMDB_RAW_KEY_SIZE];
	bool ok = false;

	if (crypto_init())
		return EMDB_ERR_IO;
	if (!s->data || !s->len || !label_ok(s->label) ||
	    s->kdf_memory_kib > EMDB_KDF_MEMORY_MAX_KIB || s->kdf_passes > EMDB_KDF_PASSES_MAX ||
	    s->kdf_lanes > EMDB_KDF_LANES_MAX ||
	    (s->kdf_memory_kib &&
	     s->kdf_memory_kib < 8 * (s->kdf_lanes ? s->kdf_lanes : KDF_LANES)))
		return EMDB_ERR_INVAL;
	if (s->kind == EMDB_SECRET_PASSPHRASE)
		ok = s->len <= EMDB_PASSPHRASE_MAX;
	else if (s->kind == EMDB_SECRET_KEY)
		ok = s->len == EMDB_RAW_KEY_SIZE;
	else if (s->kind == EMDB_SECRET_RECOVERY)
		ok = recovery_read(s->data, s->len, key);
	sodium_memzero(key, sizeof(key));
	return ok ? EMDB_OK : EMDB_ERR_INVAL;
}

/* ---- Wrapping ------------------------------------------------------------ */

/* What lies in sodium_malloc()'s memory while a slot is worked on. */
struct wrap {
	uint8_t secret[32]; /* s of keyslot.h */
	uint8_t key[32];
};

/* Argon2's memory: locked if the limits allow, not dumped, wiped. */
static int kdf_allocate(uint8_t **memory, size_t n)
{
	*memory = sodium_malloc(n);
	return *memory ? ARGON2_OK : ARGON2_MEMORY_ALLOCATION_ERROR;
}

static void kdf_free(uint8_t *memory, size_t n)
{
	(void)n;
	sodium_free(memory);
}

static emdb_err kdf(const struct fmt_key_slot *slot, const struct emdb_secret *secret,
		    uint8_t out[static 32])
{
	uint8_t salt[sizeof(slot->salt)];
	argon2_context c = {
		.out = out,
		.outlen = 32,
		/* Not changed: ARGON2_FLAG_CLEAR_PASSWORD is not set. */
		.pwd = (uint8_t *)(uintptr_t)secret->data,
		.pwdlen = (uint32_t)secret->len,
		.salt = salt,
		.saltlen = sizeof(salt),
		.t_cost = slot->passes,
		.m_cost = slot->memory_kib,
		.lanes = slot->lanes,
		.threads = slot->lanes,
		.version = ARGON2_VERSION_13,
		.allocate_cbk = kdf_allocate,
		.free_cbk = kdf_free,
		.flags = ARGON2_DEFAULT_FLAGS,
	};
	int rc;

	memcpy(salt, slot->salt, sizeof(salt));
	rc = argon2id_ctx(&c);
	if (rc == ARGON2_OK)
		return EMDB_OK;
	return rc == ARGON2_MEMORY_ALLOCATION_ERROR || rc == ARGON2_THREAD_FAIL ? EMDB_ERR_NOMEM
										: EMDB_ERR_INVAL;
}

static emdb_err wrap_key(struct wrap *w, const struct fmt_key_slot *slot,
			 const struct emdb_secret *secret)
{
	uint8_t m[8 + 4 + sizeof(slot->salt)] = "emdbslot";
	emdb_err err = EMDB_OK;

	if (slot->kind == EMDB_SECRET_PASSPHRASE)
		err = kdf(slot, secret, w->secret);
	else if (secret->kind == EMDB_SECRET_KEY)
		memcpy(w->secret, secret->data, EMDB_RAW_KEY_SIZE);
	else if (!recovery_read(secret->data, secret->len, w->secret))
		err = EMDB_ERR_INVAL;
	if (err)
		return err;
	put_u32(m + 8, slot->kind);
	memcpy(m + 12, slot->salt, sizeof(slot->salt));
	(void)crypto_generichash(w->key, sizeof(w->key), m, sizeof(m), w->secret,
				 sizeof(w->secret));
	return EMDB_OK;
}

#define SLOT_AD (8u + 16u + 4u + FMT_SLOT_HEAD)

static void slot_ad(const struct superblock *sb, const struct fmt_key_slot *slot,
		    uint8_t ad[static SLOT_AD])
{
	memcpy(ad, "emdbslot", 8);
	memcpy(ad + 8, sb->uuid, 16);
	put_u32(ad + 24, sb->cipher);
	fmt_slot_head(slot, ad + 28);
}

/* A raw key in bytes opens a recovery slot as well: it is the same key without its spelling. */
static bool kinds_match(uint32_t slot, enum emdb_secret_kind secret)
{
	return slot == (uint32_t)secret ||
	       (slot == EMDB_SECRET_RECOVERY && secret == EMDB_SECRET_KEY);
}

static emdb_err slot_open(const struct superblock *sb, const struct fmt_key_slot *slot,
			  const struct emdb_secret *secret, struct wrap *w,
			  struct vault_secrets *out)
{
	uint8_t ad[SLOT_AD];
	unsigned long long n;
	const emdb_err err = wrap_key(w, slot, secret);

	if (err)
		return err;
	slot_ad(sb, slot, ad);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt((uint8_t *)out, &n, NULL, slot->sealed,
						       sizeof(slot->sealed), ad, sizeof(ad),
						       slot->nonce, w->key))
		return EMDB_ERR_WRONG_KEY;
	return EMDB_OK;
}

/* ---- The superblock's MAC ------------------------------------------------- */

static void super_mac(const struct superblock *sb, const struct vault_secrets *secrets,
		      uint8_t mac[static 32])
{
	struct superblock bare = *sb;
	uint8_t m[FMT_SUPER_SIZE];

	bare.frozen_ms = 0;
	bare.snap_number = 0;
	memset(bare.mac, 0, sizeof(bare.mac));
	fmt_super_encode(&bare, m);
	memset(m + FMT_SUPER_SIZE - 4, 0, 4);
	vault_mac(secrets, "emdbsupr", m, sizeof(m), mac);
}

void keyslot_mac(struct superblock *sb, const struct vault_secrets *secrets)
{
	super_mac(sb, secrets, sb->mac);
}

bool keyslot_same(const struct superblock *sb, const struct vault *v)
{
	uint8_t mac[32];

	super_mac(sb, vault_secrets_of(v), mac);
	return sb->cipher == (uint32_t)vault_cipher(v) && vault_mac_equal(mac, sb->mac);
}

/* ---- Slots ----------------------------------------------------------------- */

emdb_err keyslot_open(const struct superblock *sb, const struct emdb_secret *secret,
		      uint32_t *ret_slot, struct vault_secrets **ret)
{
	struct vault_secrets *out;
	struct wrap *w;
	uint8_t mac[32];
	uint32_t i;
	emdb_err err = keyslot_secret_check(secret);

	if (err)
		return err;
	out = vault_secrets_new();
	w = sodium_malloc(sizeof(*w));
	err = out && w ? EMDB_ERR_WRONG_KEY : EMDB_ERR_NOMEM;
	for (i = 0; err == EMDB_ERR_WRONG_KEY && i < EMDB_KEY_SLOTS; i++)
		if (sb->slots[i].kind && kinds_match(sb->slots[i].kind, secret->kind))
			err = slot_open(sb, &sb->slots[i], secret, w, out);
	sodium_free(w);
	if (!err) {
		super_mac(sb, out, mac);
		if (!vault_mac_equal(mac, sb->mac))
			err = EMDB_ERR_CORRUPT;
	}
	if (!err && ret_slot)
		*ret_slot = i - 1;
	if (!err && ret)
		*ret = out;
	else
		vault_secrets_free(out);
	return err;
}

emdb_err keyslot_vault(const struct superblock *sb, const struct emdb_secret *secret,
		       struct vault **ret)
{
	struct vault_secrets *s;
	emdb_err err = keyslot_open(sb, secret, NULL, &s);

	if (err)
		return err;
	err = vault_new((enum emdb_cipher)sb->cipher, sb->uuid, s, ret);
	vault_secrets_free(s);
	return err;
}

emdb_err keyslot_fill(struct superblock *sb, uint32_t slot, struct emdb_io *io,
		      const struct emdb_secret *secret, const struct vault_secrets *secrets)
{
	struct fmt_key_slot s = { .kind = secret->kind };
	struct wrap *w;
	uint8_t ad[SLOT_AD];
	unsigned long long n;
	emdb_err err = keyslot_secret_check(secret);

	if (err)
		return err;
	if (s.kind == EMDB_SECRET_PASSPHRASE) {
		s.memory_kib = secret->kdf_memory_kib ? secret->kdf_memory_kib : KDF_MEMORY_KIB;
		s.passes = secret->kdf_passes ? secret->kdf_passes : KDF_PASSES;
		s.lanes = secret->kdf_lanes ? secret->kdf_lanes : KDF_LANES;
	}
	s.created_ms = (int64_t)(io_clock_real_ns(io) / 1000000);
	if (secret->label)
		memcpy(s.label, secret->label, strlen(secret->label));
	if (io_random(io, s.salt, sizeof(s.salt)) || io_random(io, s.nonce, sizeof(s.nonce)))
		return EMDB_ERR_IO;
	w = sodium_malloc(sizeof(*w));
	if (!w)
		return EMDB_ERR_NOMEM;
	err = wrap_key(w, &s, secret);
	if (!err) {
		slot_ad(sb, &s, ad);
		(void)crypto_aead_xchacha20poly1305_ietf_encrypt(
			s.sealed, &n, (const uint8_t *)secrets, sizeof(*secrets), ad, sizeof(ad),
			NULL, s.nonce, w->key);
		sb->slots[slot] = s;
	}
	sodium_free(w);
	return err;
}
