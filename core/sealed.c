/* SPDX-License-Identifier: Apache-2.0 */
#include "core/sealed.h"

static void ad_begin(struct sealed_rec *r, const uint8_t *frame, size_t n)
{
	memcpy(r->ad, frame + 4, n - 4);
	r->ad_len = (uint8_t)(n - 4);
}

/* NULL: the table has no such row. */
static const uint8_t *tag_find(const struct sealed_tags *t, uint64_t place)
{
	const uint32_t want = (uint32_t)(place / 8);
	uint32_t lo = 0, hi = t->count;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;
		const uint8_t *const row = t->table + (size_t)mid * FMT_TAG_ROW;
		const uint32_t got = get_u32(row);

		if (got == want)
			return row + 4;
		if (got < want)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* Of n bytes at src the last are the tag, unless it is elsewhere. */
static bool find_tag(const struct sealed_tags *t, uint32_t n, struct sealed_rec *r)
{
	r->n = n;
	if (!t->table) {
		if (n < CRYPTO_TAG)
			return false;
		r->n = n - CRYPTO_TAG;
		r->tag = r->src + r->n;
		return true;
	}
	r->tag = tag_find(t, r->place);
	return r->tag != NULL;
}

bool sealed_single(const struct frame *f, const struct sealed_tags *t, struct sealed_rec *ret)
{
	if (f->len < FMT_FRAME_HEADER)
		return false;
	ad_begin(ret, f->p, FMT_FRAME_HEADER);
	ret->kind = f->kind;
	ret->place = f->lsn;
	ret->src = f->p + FMT_FRAME_HEADER;
	return find_tag(t, f->len - FMT_FRAME_HEADER, ret);
}

bool sealed_in_batch(const struct frame *f, const struct sealed_tags *t, uint32_t at,
		     struct sealed_rec *ret)
{
	const uint8_t *p;
	uint32_t len;

	if (at < FMT_BATCH_HEADER || at > f->len || f->len - at < FMT_BATCH_PREFIX)
		return false;
	ad_begin(ret, f->p, FMT_BATCH_HEADER);
	memcpy(ret->ad + ret->ad_len, f->p + at, FMT_BATCH_PREFIX);
	/* From here on only what was copied: the mapping may change under us. */
	p = ret->ad + ret->ad_len;
	len = (get_u32(p) & 0xffffffu) * 8u;
	if (len < FMT_BATCH_PREFIX || len > f->len - at || get_u32(p + 4) != at / 8)
		return false;
	ret->kind = p[3];
	ret->ad_len += FMT_BATCH_PREFIX;
	ret->place = f->lsn + at;
	ret->src = f->p + at + FMT_BATCH_PREFIX;
	return find_tag(t, len - FMT_BATCH_PREFIX, ret);
}

bool sealed_rec_open(const struct seal_key *k, const struct sealed_rec *r, uint8_t *dst)
{
	return seal_open(k, r->place, r->ad, r->ad_len, r->src, r->n, r->tag, dst);
}

/* Opens r to dst, zeros where its tag was; returns what is behind both. */
static uint8_t *view_rec(const struct seal_key *k, const struct sealed_tags *t,
			 const struct sealed_rec *r, uint8_t *dst)
{
	if (!sealed_rec_open(k, r, dst))
		return NULL;
	dst += r->n;
	if (t->table)
		return dst;
	memset(dst, 0, CRYPTO_TAG);
	return dst + CRYPTO_TAG;
}

static bool view_batch(const struct seal_key *k, const struct sealed_tags *t, const struct frame *f,
		       uint8_t *dst)
{
	uint8_t *p = dst + FMT_BATCH_HEADER;
	uint32_t left;

	if (f->len < FMT_BATCH_HEADER)
		return false;
	memcpy(dst, f->p, FMT_BATCH_HEADER);
	for (left = get_u32(dst + FMT_FRAME_HEADER); left; left--) {
		struct sealed_rec r;

		if (!sealed_in_batch(f, t, (uint32_t)(p - dst), &r))
			return false;
		memcpy(p, r.ad + r.ad_len - FMT_BATCH_PREFIX, FMT_BATCH_PREFIX);
		p = view_rec(k, t, &r, p + FMT_BATCH_PREFIX);
		if (!p)
			return false;
	}
	return p == dst + f->len;
}

bool sealed_view(const struct seal_key *k, const struct sealed_tags *t, const struct frame *f,
		 uint8_t *dst)
{
	struct sealed_rec r;

	if (f->kind == FRAME_BATCH)
		return view_batch(k, t, f, dst);
	if (!sealed_single(f, t, &r))
		return false;
	memcpy(dst, f->p, FMT_FRAME_HEADER);
	return view_rec(k, t, &r, dst + FMT_FRAME_HEADER) != NULL;
}

/* ---- Sealing ------------------------------------------------------------ */

/* A record that lies in memory of ours: src is where it is sealed in place. */
static void close_rec(const struct seal_key *k, const struct sealed_rec *r, uint8_t *p,
		      uint8_t *tag)
{
	seal(k, r->place, r->ad, r->ad_len, p, r->n, p, tag);
}

void sealed_close(const struct seal_key *k, uint8_t *p, uint32_t len)
{
	static const struct sealed_tags inside = { NULL, 0 };
	const struct frame f = { .kind = p[7], .lsn = get_u64(p + 8), .len = len, .p = p };
	uint32_t at = FMT_BATCH_HEADER;
	struct sealed_rec r;
	bool whole;

	if (f.kind != FRAME_BATCH) {
		whole = sealed_single(&f, &inside, &r);
		emdb_assert(whole);
		close_rec(k, &r, p + FMT_FRAME_HEADER, p + FMT_FRAME_HEADER + r.n);
		return;
	}
	while (at < len) {
		whole = sealed_in_batch(&f, &inside, at, &r);
		emdb_assert(whole);
		at += FMT_BATCH_PREFIX;
		close_rec(k, &r, p + at, p + at + r.n);
		at += r.n + CRYPTO_TAG;
	}
}

/* A table of one row, for a tag that is still to come, at its end; NULL: no memory. */
static uint8_t *row_new(struct buf *table, uint64_t place)
{
	uint8_t row[FMT_TAG_ROW] = { 0 };

	put_u32(row, (uint32_t)(place / 8));
	if (buf_append(table, row, sizeof(row)))
		return NULL;
	return table->data + table->len - sizeof(row);
}

int sealed_close_apart(const struct seal_key *k, uint8_t *p, uint32_t len, struct buf *table)
{
	const struct frame f = { .kind = p[7], .lsn = get_u64(p + 8), .len = len, .p = p };
	uint32_t at = FMT_BATCH_HEADER;
	struct sealed_tags one = { NULL, 1 };
	struct sealed_rec r;
	uint8_t *row;
	bool whole;

	if (f.kind != FRAME_BATCH) {
		one.table = row = row_new(table, f.lsn);
		if (!row)
			return -ENOMEM;
		whole = sealed_single(&f, &one, &r);
		emdb_assert(whole);
		close_rec(k, &r, p + FMT_FRAME_HEADER, row + 4);
		return 0;
	}
	while (at < len) {
		one.table = row = row_new(table, f.lsn + at);
		if (!row)
			return -ENOMEM;
		whole = sealed_in_batch(&f, &one, at, &r);
		emdb_assert(whole);
		at += FMT_BATCH_PREFIX;
		close_rec(k, &r, p + at, row + 4);
		at += r.n;
	}
	return 0;
}
