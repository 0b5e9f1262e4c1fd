/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sealed.h"

static void ad_begin(struct sealed_rec *r, const uint8_t *frame, size_t n)
{
	memcpy(r->ad, frame + 4, n - 4);
	r->ad_len = (uint8_t)(n - 4);
}

bool sealed_single(const struct frame *f, struct sealed_rec *ret)
{
	if (f->len < FMT_FRAME_HEADER + CRYPTO_TAG)
		return false;
	ad_begin(ret, f->p, FMT_FRAME_HEADER);
	ret->kind = f->kind;
	ret->place = f->lsn;
	ret->src = f->p + FMT_FRAME_HEADER;
	ret->n = f->len - FMT_FRAME_HEADER - CRYPTO_TAG;
	return true;
}

bool sealed_in_batch(const struct frame *f, uint32_t at, struct sealed_rec *ret)
{
	const uint8_t *p = f->p + at;
	uint32_t len;

	if (at < FMT_BATCH_HEADER || at > f->len || f->len - at < FMT_BATCH_PREFIX + CRYPTO_TAG)
		return false;
	ad_begin(ret, f->p, FMT_BATCH_HEADER);
	memcpy(ret->ad + ret->ad_len, p, FMT_BATCH_PREFIX);
	/* From here on only what was copied: the mapping may change under us. */
	p = ret->ad + ret->ad_len;
	len = (get_u32(p) & 0xffffffu) * 8u;
	if (len < FMT_BATCH_PREFIX + CRYPTO_TAG || len > f->len - at || get_u32(p + 4) != at / 8)
		return false;
	ret->kind = p[3];
	ret->ad_len += FMT_BATCH_PREFIX;
	ret->place = f->lsn + at;
	ret->src = f->p + at + FMT_BATCH_PREFIX;
	ret->n = len - FMT_BATCH_PREFIX - CRYPTO_TAG;
	return true;
}

bool sealed_rec_open(const struct seal_key *k, const struct sealed_rec *r, uint8_t *dst)
{
	return seal_open(k, r->place, r->ad, r->ad_len, r->src, r->n, r->src + r->n, dst);
}

static bool view_batch(const struct seal_key *k, const struct frame *f, uint8_t *dst)
{
	uint32_t at = FMT_BATCH_HEADER, left;

	if (f->len < FMT_BATCH_HEADER)
		return false;
	memcpy(dst, f->p, FMT_BATCH_HEADER);
	for (left = get_u32(dst + FMT_FRAME_HEADER); left; left--) {
		struct sealed_rec r;

		if (!sealed_in_batch(f, at, &r))
			return false;
		memcpy(dst + at, r.ad + r.ad_len - FMT_BATCH_PREFIX, FMT_BATCH_PREFIX);
		at += FMT_BATCH_PREFIX;
		if (!sealed_rec_open(k, &r, dst + at))
			return false;
		at += r.n;
		memset(dst + at, 0, CRYPTO_TAG);
		at += CRYPTO_TAG;
	}
	return at == f->len;
}

bool sealed_view(const struct seal_key *k, const struct frame *f, uint8_t *dst)
{
	struct sealed_rec r;

	if (f->kind == FRAME_BATCH)
		return view_batch(k, f, dst);
	if (!sealed_single(f, &r))
		return false;
	memcpy(dst, f->p, FMT_FRAME_HEADER);
	if (!sealed_rec_open(k, &r, dst + FMT_FRAME_HEADER))
		return false;
	memset(dst + FMT_FRAME_HEADER + r.n, 0, CRYPTO_TAG);
	return true;
}

static void close_rec(const struct seal_key *k, const struct sealed_rec *r, uint8_t *p)
{
	seal(k, r->place, r->ad, r->ad_len, p, r->n, p, p + r->n);
}

void sealed_close(const struct seal_key *k, uint8_t *p, uint32_t len)
{
	const struct frame f = { .kind = p[7], .lsn = get_u64(p + 8), .len = len, .p = p };
	uint32_t at = FMT_BATCH_HEADER;
	struct sealed_rec r;

	if (f.kind != FRAME_BATCH) {
		emdb_assert(sealed_single(&f, &r));
		close_rec(k, &r, p + FMT_FRAME_HEADER);
		return;
	}
	while (at < len) {
		emdb_assert(sealed_in_batch(&f, at, &r));
		close_rec(k, &r, p + at + FMT_BATCH_PREFIX);
		at += FMT_BATCH_PREFIX + r.n + CRYPTO_TAG;
	}
}
