/* SPDX-License-Identifier: Apache-2.0 */
/* Known answers of the libraries, and that what is built on them is what its description says. */
#include "core/crypto.h"

#include <argon2.h>
#include <sodium.h>

#include "core/codec.h"
#include "core/sealed.h"
#include "tests/unit/test.h"

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;

	CHECK_EQ(sodium_hex2bin(out, strlen(hex) / 2, hex, strlen(hex), NULL, &n, NULL), 0);
	return n;
}

static void check_hex(const uint8_t *p, size_t n, const char *want)
{
	uint8_t b[256];

	CHECK(strlen(want) / 2 <= sizeof(b));
	CHECK_MEM(p, n, b, unhex(want, b));
}

/* RFC 8439, 2.8.2 */
TEST(test_crypto__chacha20_poly1305_of_rfc_8439)
{
	static const char text[] =
		"Ladies and Gentlemen of the class of '99: If I could offer you only one "
		"tip for the future, sunscreen would be it.";
	uint8_t key[32], nonce[12], ad[12], ct[sizeof(text) - 1], tag[16], back[sizeof(ct)];

	CHECK_OK(crypto_init());
	for (size_t i = 0; i < 32; i++)
		key[i] = (uint8_t)(0x80 + i);
	unhex("070000004041424344454647", nonce);
	unhex("50515253c0c1c2c3c4c5c6c7", ad);
	crypto_aead_chacha20poly1305_ietf_encrypt_detached(
		ct, tag, NULL, (const uint8_t *)text, sizeof(ct), ad, sizeof(ad), NULL, nonce, key);
	check_hex(ct, sizeof(ct),
		  "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
		  "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
		  "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
		  "3ff4def08e4b7a9de576d26586cec64b6116");
	check_hex(tag, sizeof(tag), "1ae10b594f09e26a7e902ecbd0600691");
	CHECK_EQ(crypto_aead_chacha20poly1305_ietf_decrypt_detached(back, NULL, ct, sizeof(ct), tag,
								    ad, sizeof(ad), nonce, key),
		 0);
	CHECK_MEM(back, sizeof(back), text, sizeof(text) - 1);
}

/* The Galois/Counter Mode of Operation, McGrew and Viega, as in NIST's submission: cases 13 to 16. */
TEST(test_crypto__aes_256_gcm_of_nist)
{
	static const struct {
		const char *key, *nonce, *ad, *text, *ct, *tag;
	} rows[] = {
		{ "0000000000000000000000000000000000000000000000000000000000000000",
		  "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b" },
		{ "0000000000000000000000000000000000000000000000000000000000000000",
		  "000000000000000000000000", "", "00000000000000000000000000000000",
		  "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919" },
		{ "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
		  "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		  "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
		  "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		  "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
		  "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
		  "76fc6ece0f4e1768cddf8853bb2d551b" },
	};

	if (!emdb_cipher_available(EMDB_CIPHER_AES_256_GCM)) {
		printf("no AES here\n");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint8_t key[32], nonce[12], ad[64], text[64], ct[64], tag[16];
		const size_t nad = unhex(rows[i].ad, ad), n = unhex(rows[i].text, text);

		unhex(rows[i].key, key);
		unhex(rows[i].nonce, nonce);
		crypto_aead_aes256gcm_encrypt_detached(ct, tag, NULL, text, n, ad, nad, NULL, nonce,
						       key);
		check_hex(ct, n, rows[i].ct);
		check_hex(tag, 16, rows[i].tag);
	}
}

/* RFC 9106, 5.3 */
TEST(test_crypto__argon2id_of_rfc_9106)
{
	uint8_t out[32], pwd[32], salt[16], key[8], ad[12];
	argon2_context c = { .out = out,
			     .outlen = sizeof(out),
			     .pwd = pwd,
			     .pwdlen = sizeof(pwd),
			     .salt = salt,
			     .saltlen = sizeof(salt),
			     .secret = key,
			     .secretlen = sizeof(key),
			     .ad = ad,
			     .adlen = sizeof(ad),
			     .t_cost = 3,
			     .m_cost = 32,
			     .lanes = 4,
			     .threads = 4,
			     .version = ARGON2_VERSION_13,
			     .flags = ARGON2_DEFAULT_FLAGS };

	memset(pwd, 1, sizeof(pwd));
	memset(salt, 2, sizeof(salt));
	memset(key, 3, sizeof(key));
	memset(ad, 4, sizeof(ad));
	CHECK_EQ(argon2id_ctx(&c), ARGON2_OK);
	check_hex(out, sizeof(out),
		  "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

/* The first of blake2b-kat.txt. */
TEST(test_crypto__blake2b_keyed)
{
	uint8_t key[64], out[64];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	CHECK_EQ(crypto_generichash(out, sizeof(out), NULL, 0, key, sizeof(key)), 0);
	check_hex(out, sizeof(out),
		  "10ebb67700b1868efb4417987acf4690ae9d972fb7a590c2f02871799aaa4786"
		  "b5e996e8f0f4eb981fc214b005f42d2ff4233499391653df7aefcbc13fc51568");
}

/* ---- What is built on them ---------------------------------------------------- */

static struct vault *vault_of(enum emdb_cipher cipher)
{
	uint8_t uuid[16];
	struct vault_secrets *s;
	struct vault *v = NULL;

	CHECK_OK(crypto_init());
	s = vault_secrets_new();
	memset(uuid, 0x11, sizeof(uuid));
	memset(s->data_key, 0x22, sizeof(s->data_key));
	CHECK_OK(vault_new(cipher, uuid, s, &v));
	vault_secrets_free(s);
	return v;
}

static const enum emdb_cipher ciphers[] = { EMDB_CIPHER_AES_256_GCM,
					    EMDB_CIPHER_CHACHA20_POLY1305 };

/* Key and nonce are what crypto.h says they are. */
TEST(test_crypto__sub_keys_and_nonces)
{
	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++) {
		uint8_t salt[32], m[64], data_key[32], sub[32], nonce[12] = { 0 };
		uint8_t a[50], b[50], ta[16], tb[16];
		struct seal_key *k;
		struct vault *v;

		if (!emdb_cipher_available(ciphers[i]))
			continue;
		v = vault_of(ciphers[i]);
		memset(salt, 0x33, sizeof(salt));
		memset(data_key, 0x22, sizeof(data_key));
		memcpy(m, "emdbsegm", 8);
		memset(m + 8, 0x11, 16);
		put_u64(m + 24, 77);
		memcpy(m + 32, salt, 32);
		CHECK_EQ(crypto_generichash(sub, 32, m, sizeof(m), data_key, 32), 0);
		put_u64(nonce, 0x123456789abcdef0);
		memset(a, 7, sizeof(a));
		CHECK_OK(seal_key_new(v, SEAL_SEGMENT, 77, salt, &k));
		seal(k, 0x123456789abcdef0, "ad", 2, a, sizeof(a), b, tb);
		if (ciphers[i] == EMDB_CIPHER_AES_256_GCM)
			crypto_aead_aes256gcm_encrypt_detached(a, ta, NULL, a, sizeof(a),
							       (const uint8_t *)"ad", 2, NULL,
							       nonce, sub);
		else
			crypto_aead_chacha20poly1305_ietf_encrypt_detached(
				a, ta, NULL, a, sizeof(a), (const uint8_t *)"ad", 2, NULL, nonce,
				sub);
		CHECK_MEM(a, sizeof(a), b, sizeof(b));
		CHECK_MEM(ta, 16, tb, 16);
		seal_key_free(k);
		vault_unref(v);
	}
}

/* In place, of every size around the blocks that the ciphers work in. */
TEST(test_crypto__sealed_in_place_and_opened)
{
	uint64_t rnd = test_seed();

	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++) {
		static uint8_t text[5000], buf[sizeof(text)], other[sizeof(text)];
		const uint8_t salt[32] = { 1 };
		struct seal_key *k;
		struct vault *v;

		if (!emdb_cipher_available(ciphers[i]))
			continue;
		v = vault_of(ciphers[i]);
		CHECK_OK(seal_key_new(v, SEAL_CHECKPOINT, 1, salt, &k));
		for (size_t n = 0; n < sizeof(text); n += n < 600 ? 1 : 97) {
			uint8_t tag[16], same[16], ad[28];
			const uint64_t place = test_rand(&rnd);

			for (size_t b = 0; b < n; b++)
				text[b] = (uint8_t)test_rand(&rnd);
			memset(ad, (int)n, sizeof(ad));
			memcpy(buf, text, n);
			seal(k, place, ad, sizeof(ad), buf, n, buf, tag);
			seal(k, place, ad, sizeof(ad), text, n, other, same);
			CHECK_MEM(buf, n, other, n);
			CHECK_MEM(tag, 16, same, 16);
			CHECK(seal_open(k, place, ad, sizeof(ad), buf, n, tag, buf));
			CHECK_MEM(buf, n, text, n);
			/* What does not authenticate is not handed out. */
			tag[n % 16] ^= 1;
			CHECK(!seal_open(k, place, ad, sizeof(ad), other, n, tag, buf));
			for (size_t b = 0; b < n; b++)
				CHECK_EQ(buf[b], 0);
			tag[n % 16] ^= 1;
			CHECK(!seal_open(k, place + 1, ad, sizeof(ad), other, n, tag, buf));
			ad[n % 28] ^= 1;
			CHECK(!seal_open(k, place, ad, sizeof(ad), other, n, tag, buf));
		}
		seal_key_free(k);
		vault_unref(v);
	}
}

/* Store, number, salt and purpose each make another key. */
TEST(test_crypto__no_two_files_share_a_key)
{
	struct vault *const v = vault_of(EMDB_CIPHER_CHACHA20_POLY1305);
	uint8_t salt[32] = { 0 }, zero[32] = { 0 }, seen[200][32], tag[16];
	struct seal_key *keys[200];
	size_t n = 0;

	for (; n < ARRAY_SIZE(keys); n++) {
		salt[n % 32] ^= (uint8_t)(1 + n / 32);
		CHECK_OK(seal_key_new(v, n % 2 ? SEAL_SEGMENT : SEAL_CHECKPOINT, n / 50, salt,
				      &keys[n]));
		seal(keys[n], 8, NULL, 0, zero, sizeof(zero), seen[n], tag);
		for (size_t i = 0; i < n; i++)
			CHECK(memcmp(seen[i], seen[n], 32) != 0);
	}
	/* They lie in memory that goes when the last of it does. */
	for (size_t i = 0; i < n; i++)
		seal_key_free(keys[(i * 7) % n]);
	vault_unref(v);
}

TEST_MAIN()
