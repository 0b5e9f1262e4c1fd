/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_sealed: sealed frames, tables of tags and key slots made of the input. Opening never reads
 * beyond what is there; what was sealed here opens to what it was; anything else never opens.
 */
#include "core/keyslot.h"
#include "core/sealed.h"

#define LSN UINT64_C(0x4000100)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct seal_key *key;

static void begin(void)
{
	const uint8_t zero[32] = { 0 };
	struct vault_secrets *s;
	struct vault *v;

	emdb_assert(!crypto_init());
	s = vault_secrets_new();
	emdb_assert(s && vault_new(EMDB_CIPHER_CHACHA20_POLY1305, zero, s, &v) == EMDB_OK);
	emdb_assert(seal_key_new(v, SEAL_SEGMENT, 1, zero, &key) == EMDB_OK);
	vault_secrets_free(s);
	vault_unref(v);
}

/* A frame that the header says it is, in memory of just its size; hostile from there on. */
static void hostile_frame(const uint8_t *p, size_t n, const struct sealed_tags *t)
{
	uint8_t *const b = base_malloc(n), *const view = base_malloc(n);
	struct sealed_rec r;
	struct frame f;

	emdb_assert(b && view);
	memcpy(b, p, n);
	put_u64(b + 8, LSN);
	if (fmt_frame_parse(b, n, LSN, false, 0, &f) == FRAME_OK) {
		/* Without records there is nothing to be sealed. */
		const bool empty = f.kind == FRAME_BATCH && f.len >= FMT_BATCH_HEADER &&
				   get_u32(b + FMT_FRAME_HEADER) == 0;

		emdb_assert(!sealed_view(key, t, &f, view) || empty);
		for (uint32_t at = 0; at <= f.len; at += 8)
			if (sealed_in_batch(&f, t, at, &r))
				emdb_assert(!sealed_rec_open(key, &r, view));
	}
	base_free(b);
	base_free(view);
}

/* A record of these bytes, sealed and opened; one bit more and it does not open. */
static void round_trip(const uint8_t *p, size_t n, bool apart)
{
	const size_t len = align_up(FMT_FRAME_HEADER + n + (apart ? 0 : FMT_TAG), 8);
	uint8_t *const was = base_calloc(1, len), *const b = base_malloc(len),
		       *const view = base_malloc(len);
	struct sealed_tags t = { NULL, 0 };
	struct buf table = BUF_INIT;
	struct frame f;

	emdb_assert(was && b && view);
	fmt_frame_header(was, REC_PUT, (uint32_t)len, LSN, LSN);
	memcpy(was + FMT_FRAME_HEADER, p, n);
	memcpy(b, was, len);
	if (apart) {
		emdb_assert(!sealed_close_apart(key, b, (uint32_t)len, &table));
		t = (struct sealed_tags){ table.data, 1 };
	} else {
		sealed_close(key, b, (uint32_t)len);
	}
	emdb_assert(fmt_frame_parse(b, len, LSN, false, 0, &f) == FRAME_OK);
	emdb_assert(sealed_view(key, &t, &f, view) && memcmp(view, was, len) == 0);
	if (len > FMT_FRAME_HEADER) {
		const size_t at = FMT_FRAME_HEADER + (n ? p[0] : 0) % (len - FMT_FRAME_HEADER);

		b[at] ^= 1;
		emdb_assert(!sealed_view(key, &t, &f, view));
	}
	buf_release(&table);
	base_free(was);
	base_free(b);
	base_free(view);
}

/* No slot of these bytes opens with a key; a passphrase would take its time. */
static void hostile_slots(const uint8_t *p, size_t n)
{
	static const struct emdb_secret secret = {
		EMDB_SECRET_KEY, "0123456789abcdef0123456789abcdef", 32, NULL, 0, 0, 0
	};
	struct emdb_secret text = { .kind = EMDB_SECRET_RECOVERY, .data = p, .len = n };
	uint8_t b[FMT_SUPER_SIZE] = { 0 };
	struct superblock sb;

	memcpy(b, "EMDBSUPR\1\0\0\0\x14", 13);
	b[24] = FMT_INCOMPAT_ENCRYPTED;
	b[48] = EMDB_CIPHER_CHACHA20_POLY1305;
	memcpy(b + 1024, p, min_size(n, EMDB_KEY_SLOTS * FMT_SLOT_SIZE));
	put_u32(b + 4092, crc32c(0, b, 4092));
	if (fmt_super_decode(b, sizeof(b), &sb) == EMDB_OK)
		emdb_assert(keyslot_open(&sb, &secret, NULL, NULL) == EMDB_ERR_WRONG_KEY);
	(void)!keyslot_secret_check(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct sealed_tags t = { NULL, 0 };
	uint8_t how;

	if (!key)
		begin();
	if (n < 2)
		return 0;
	how = p[0];
	p++;
	n--;
	switch (how % 4) {
	case 0:
		if (n >= FMT_FRAME_HEADER)
			hostile_frame(p, n, &t);
		break;
	case 1:
		/* The input's end is the table. */
		t.count = (uint32_t)(n / 2 / FMT_TAG_ROW);
		t.table = p + n - (size_t)t.count * FMT_TAG_ROW;
		n -= (size_t)t.count * FMT_TAG_ROW;
		if (n >= FMT_FRAME_HEADER)
			hostile_frame(p, n, &t);
		break;
	case 2:
		round_trip(p, n, how & 4);
		break;
	default:
		hostile_slots(p, n);
	}
	return 0;
}
