/* SPDX-License-Identifier: Apache-2.0 */
#include "core/codec.h"

#include <isa-l/crc.h>
#include <sodium.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ISA-L takes the length as an int. */
#define CRC_STEP_MAX ((size_t)1 << 30)

static_assert(sizeof(((struct hash_seed *)0)->secret) >= XXH3_SECRET_SIZE_MIN,
	      "XXH3 wants a secret of at least this size");
static_assert(crypto_stream_chacha20_ietf_KEYBYTES == 32, "the seed is a ChaCha20 key");

uint32_t crc32c(uint32_t seed, const void *p, size_t n)
{
	/* ISA-L reads only; its prototype lacks the const. */
	unsigned char *b = (unsigned char *)(uintptr_t)p;
	unsigned int crc = ~seed;

	while (unlikely(n > CRC_STEP_MAX)) {
		crc = crc32_iscsi(b, (int)CRC_STEP_MAX, crc);
		b += CRC_STEP_MAX;
		n -= CRC_STEP_MAX;
	}
	if (likely(n))
		crc = crc32_iscsi(b, (int)n, crc);
	return ~crc;
}

/* One step of the reflected CRC for each value of a byte, and which value has which top byte. */
static void crc_tables(uint32_t step[static 256], uint8_t of_top[static 256])
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
		step[i] = c;
		of_top[c >> 24] = (uint8_t)i;
	}
}

uint32_t crc32c_before(uint32_t crc, const void *p, size_t n)
{
	const uint8_t *const b = p;
	uint32_t step[256], c = ~crc;
	uint8_t of_top[256];

	crc_tables(step, of_top);
	/* Forward: c = step[(c ^ byte) & 0xff] ^ c >> 8. */
	for (size_t i = n; i > 0; i--) {
		const uint8_t at = of_top[c >> 24];

		c = (c ^ step[at]) << 8 | (uint32_t)(at ^ b[i - 1]);
	}
	return ~c;
}

void crc32c_forge(uint32_t crc, uint8_t *p, size_t n)
{
	static const uint8_t zeros[4];

	/* Four bytes are the same as zeros after a register that they were added to. */
	put_u32(p + n - 4, ~crc32c_before(crc, zeros, 4) ^ ~crc32c(0, p, n - 4));
}

void hash_seed_init(struct hash_seed *s, const uint8_t seed[static 32])
{
	static const uint8_t nonce[crypto_stream_chacha20_ietf_NONCEBYTES] = "emdb.hash.1";
	uint8_t stream[sizeof(s->secret) + 8];

	(void)crypto_stream_chacha20_ietf(stream, sizeof(stream), nonce, seed);
	memcpy(s->secret, stream, sizeof(s->secret));
	s->mix = get_u64(stream + sizeof(s->secret));
	sodium_memzero(stream, sizeof(stream));
}

/*
 * XXH3's own seed argument is no use for the namespace: together with a custom secret it is ignored
 * for long keys, or the secret for short ones. So the namespace is folded in behind, by a bijection
 * of the key's hash.
 */
uint64_t key_hash(const struct hash_seed *s, uint64_t ns, const void *key, size_t n)
{
	uint64_t h = XXH3_64bits_withSecret(key, n, s->secret, sizeof(s->secret));

	h ^= (ns ^ s->mix) * UINT64_C(0x9e3779b97f4a7c15);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ (h >> 32);
}
