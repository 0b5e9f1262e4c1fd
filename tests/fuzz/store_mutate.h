/* SPDX-License-Identifier: Apache-2.0 */
/* What an enemy who knows the format does to a store that is open in a mill. */
#ifndef STORE_MUTATE_H
#define STORE_MUTATE_H

#include "tests/fuzz/store_mill.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

struct mutator {
	struct mill mill;
	uint64_t rng;
};

static inline uint64_t mut_rand(struct mutator *mu)
{
	mu->rng ^= mu->rng << 13;
	mu->rng ^= mu->rng >> 7;
	mu->rng ^= mu->rng << 17;
	return mu->rng * UINT64_C(0x2545F4914F6CDD1D);
}

static inline size_t mut_below(struct mutator *mu, size_t n)
{
	return n ? (size_t)(mut_rand(mu) >> 11) % n : 0;
}

/* Numbers where programs go wrong, and numbers near one that is there. */
static inline uint64_t mut_number(struct mutator *mu, uint64_t was)
{
	static const uint64_t special[] = { 0,
					    1,
					    2,
					    7,
					    8,
					    255,
					    256,
					    UINT16_MAX,
					    65536,
					    (1u << 20),
					    (1u << 20) - 1,
					    1u << 24,
					    INT32_MAX,
					    UINT32_MAX,
					    UINT64_C(1) << 32,
					    UINT64_C(1) << 40,
					    UINT64_C(1) << 60,
					    INT64_MAX,
					    (uint64_t)INT64_MIN,
					    UINT64_MAX,
					    UINT64_MAX - 1 };

	switch (mut_below(mu, 5)) {
	case 0:
		return was + mut_below(mu, 17) - 8;
	case 1:
		return was ^ UINT64_C(1) << mut_below(mu, 64);
	case 2:
		return mut_below(mu, 64);
	case 3:
		return (UINT64_C(1) << 20) * (1 + mut_below(mu, 4)) + 8 * mut_below(mu, 2048);
	default:
		return special[mut_below(mu, ARRAY_SIZE(special))];
	}
}

/* Some of the n bytes at p change. */
static inline void mut_bytes(struct mutator *mu, uint8_t *p, size_t n)
{
	const size_t at = mut_below(mu, n), some = min_size(n - at, 1 + mut_below(mu, 24));
	uint8_t b[64] = { 0 };

	if (!n)
		return;
	switch (mut_below(mu, 4)) {
	case 0:
		p[at] ^= (uint8_t)(1u << mut_below(mu, 8));
		break;
	case 1: /* a number of some size, the rest moves */
		put_u64(b, mut_number(mu, get_u64(memcpy(b, p + at, min_size(8, n - at)))));
		memcpy(p + at, b, min_size(n - at, (size_t)1 << mut_below(mu, 4)));
		break;
	case 2:
		memcpy(p + at, b, min_size(n - at, varint_put(b, mut_number(mu, p[at]))));
		break;
	default:
		memcpy(b, p + at, some);
		(void)LLVMFuzzerMutate(b, some, some);
		memcpy(p + at, b, some);
	}
}

/* ---- Records ---- */

static inline void mut_fields(struct mutator *mu, struct rec *r)
{
	uint64_t *const numbers[] = { &r->ns,
				      &r->id,
				      &r->size,
				      &r->off,
				      &r->len,
				      &r->rdev,
				      &r->origin,
				      &r->flags,
				      (uint64_t *)&r->expires_ms,
				      (uint64_t *)&r->time_ns,
				      (uint64_t *)&r->mtime_ns,
				      (uint64_t *)&r->ttl_default_ms };
	uint64_t *const one = numbers[mut_below(mu, ARRAY_SIZE(numbers))];

	switch (mut_below(mu, 6)) {
	case 0:
		r->kind = (uint8_t)(1 + mut_below(mu, REC_KIND_MAX));
		break;
	case 1:
		r->mask ^= 1u << mut_below(mu, 17);
		break;
	case 2:
		r->mode = (uint32_t)mut_number(mu, r->mode);
		break;
	case 3:
		r->key_len = mut_below(mu, r->key_len + 1);
		break;
	default:
		*one = mut_number(mu, *one);
	}
}

/* Extents that nobody wrote: anywhere, of anything. */
static inline size_t mut_extents(struct mutator *mu, struct rec *r, uint8_t *buf, size_t size)
{
	uint64_t end = r->kind == REC_CLONE ? r->off : 0;
	size_t n = 0;

	r->extent_count = mut_below(mu, 6);
	r->mask |= REC_F_EXTENTS;
	for (uint64_t i = 0; i < r->extent_count && n + FMT_EXTENT_BYTES_MAX <= size; i++) {
		const struct rec_extent e = { .off = end + mut_below(mu, 2) * mut_number(mu, 4096),
					      .len = mut_number(mu, 4096),
					      .ref = mut_number(mu, 1u << 20),
					      .skip = mut_below(mu, 3) ? 0 : mut_number(mu, 1) };

		if (e.off < end)
			break;
		n += fmt_extent_encode(&e, end, buf + n);
		if (emdb_add_ovf(e.off, e.len, &end))
			break;
	}
	r->extents = buf;
	return n;
}

/* Takes len bytes at the end of a segment's frames, before a SEAL, and lists them; NULL: full. */
static inline uint8_t *mut_frame_new(struct mutator *mu, struct pack_file *f, uint32_t len)
{
	size_t last = FMT_SEG_HEADER, end = FMT_SEG_HEADER, n;
	struct pack_file *const mf = pack_find(mu->mill.p, "manifest");
	struct manifest_seg *row;
	struct manifest m;

	for (; (n = mill_frame_len(f, end)); end += n)
		last = end;
	if (end > last && f->data[last + 7] == FRAME_SEAL) {
		if (f->cap - end < len)
			return NULL;
		memmove(f->data + last + len, f->data + last, end - last);
		memset(f->data + last, 0, len);
		f->used = max_size(f->used, end + len);
		end = last;
	}
	if (f->cap - end < len)
		return NULL;
	f->used = max_size(f->used, end + len);
	if (mf && mill_manifest(mf, &m)) {
		row = manifest_find(&m, mill_number(f));
		if (row && row->flags & MANIFEST_SEALED && row->len < f->used)
			row->len += len;
		mill_put_manifest(&mu->mill, mf, &m);
		manifest_release(&m);
	}
	return f->data + end;
}

static inline void mut_put_rec(struct mutator *mu, struct pack_file *f, const struct rec *r)
{
	const size_t max = fmt_rec_head_max(r), tag = mu->mill.vault ? FMT_TAG : 0;
	uint8_t *const buf = malloc(max + r->value_len + 1);
	struct rec as = *r;
	size_t n;
	uint32_t len;
	uint8_t *p;

	/* The encoder takes no record without what its kind must have; these ask for little. */
	as.kind = r->mask & REC_F_ID ? REC_CLEAR : REC_DEL;
	as.mask |= REC_F_TIME | (as.kind == REC_DEL ? REC_F_NS | REC_F_KEY : 0);
	emdb_assert(buf);
	n = fmt_rec_encode(&as, buf, max);
	if (r->mask & REC_F_VALUE && r->value_len)
		memcpy(buf + n, r->value, r->value_len);
	n += r->mask & REC_F_VALUE ? r->value_len : 0;
	len = (uint32_t)(align_up(FMT_FRAME_HEADER + n, 8) + tag);
	p = mut_frame_new(mu, f, len);
	if (p) {
		fmt_frame_header(p, r->kind, len, 0, 0);
		put_u32(p + 16, FMT_DURABLE_FAR);
		memcpy(p + FMT_FRAME_HEADER, buf, n);
	}
	free(buf);
}

/* The record of the frame at p; its bytes copied to *ret_copy, free it. */
static inline bool mut_get_rec(const struct mutator *mu, const uint8_t *p, uint32_t len,
			       struct rec *ret, uint8_t **ret_copy)
{
	const size_t tag = mu->mill.vault ? FMT_TAG : 0;
	uint8_t *copy;

	if (p[7] > REC_KIND_MAX || len < FMT_FRAME_HEADER + tag)
		return false;
	copy = malloc(len);
	emdb_assert(copy);
	memcpy(copy, p, len);
	if (fmt_rec_decode(p[7], copy + FMT_FRAME_HEADER, len - FMT_FRAME_HEADER - tag, ret)) {
		*ret_copy = copy;
		return true;
	}
	free(copy);
	return false;
}

/* One more record, like one that is there, but for something. */
static inline void mut_record(struct mutator *mu, struct pack_file *f)
{
	const size_t at = mill_frame_at(f, mut_below(mu, mill_frames(f)));
	const uint32_t len = mill_frame_len(f, at);
	uint8_t extents[6 * FMT_EXTENT_BYTES_MAX], *copy;
	struct rec r;

	if (!len || !mut_get_rec(mu, f->data + at, len, &r, &copy))
		return;
	for (size_t i = mut_below(mu, 4); i > 0; i--)
		mut_fields(mu, &r);
	if (mut_below(mu, 4) == 0)
		r.extents_len = mut_extents(mu, &r, extents, sizeof(extents));
	mut_put_rec(mu, f, &r);
	free(copy);
}

/* ---- Segments ---- */

static inline void mut_frames(struct mutator *mu, struct pack_file *f)
{
	const size_t n = mill_frames(f), from = mill_frame_at(f, mut_below(mu, n));
	const size_t to = mill_frame_at(f, mut_below(mu, n));
	const uint32_t len = mill_frame_len(f, from);
	uint8_t *const copy = malloc(len + 1), *p;

	emdb_assert(copy);
	memcpy(copy, f->data + from, len);
	switch (len ? mut_below(mu, 5) : 9) {
	case 0: /* once more */
		p = mut_frame_new(mu, f, len);
		if (p)
			memcpy(p, copy, len);
		break;
	case 1: /* away, what follows moves */
		memmove(f->data + from, f->data + from + len, f->used - from - len);
		memset(f->data + f->used - len, 0, len);
		break;
	case 2: /* over another one */
		if (to + len <= f->used)
			memcpy(f->data + to, copy, len);
		break;
	case 3:
		f->data[from + 7] = (uint8_t)mut_number(mu, f->data[from + 7]);
		break;
	case 4:
		mut_bytes(mu, f->data + from + 4, 16);
		break;
	default:
		break;
	}
	free(copy);
}

static inline void mut_segment(struct mutator *mu, struct pack_file *f)
{
	const size_t at = mill_frame_at(f, mut_below(mu, mill_frames(f)));
	const uint32_t len = mill_frame_len(f, at);

	switch (mut_below(mu, 8)) {
	case 0:
		mut_bytes(mu, f->data, min_size(f->used, FMT_SEG_HEADER));
		break;
	case 1:
	case 2:
		mut_frames(mu, f);
		break;
	case 3:
	case 4:
		if (len > FMT_FRAME_HEADER)
			mut_bytes(mu, f->data + at + FMT_FRAME_HEADER, len - FMT_FRAME_HEADER);
		break;
	default:
		mut_record(mu, f);
	}
}

/* ---- The other files ---- */

static inline void mut_super(struct mutator *mu, struct pack_file *f)
{
	struct superblock sb;
	uint64_t *const numbers[] = { &sb.compat, &sb.incompat, &sb.snap_number,
				      (uint64_t *)&sb.frozen_ms, (uint64_t *)&sb.created_ns };
	uint32_t *const small[] = { &sb.version, &sb.segment_shift, &sb.cipher, &sb.uid, &sb.gid };

	if (fmt_super_decode(f->data, f->used, &sb) || mut_below(mu, 3) == 0) {
		mut_bytes(mu, f->data, f->used);
		return;
	}
	if (mut_below(mu, 2)) {
		uint64_t *const n = numbers[mut_below(mu, ARRAY_SIZE(numbers))];

		*n = mut_number(mu, *n);
	} else {
		uint32_t *const n = small[mut_below(mu, ARRAY_SIZE(small))];

		*n = (uint32_t)mut_number(mu, *n);
	}
	fmt_super_encode(&sb, f->data);
}

static inline void mut_manifest_row(struct mutator *mu, struct manifest *m)
{
	struct manifest_seg *const s =
		m->head.nsegs ? &m->segs[mut_below(mu, m->head.nsegs)] : NULL;

	switch (mut_below(mu, 6)) {
	case 0:
		if (s)
			s->len = mut_number(mu, s->len);
		break;
	case 1:
		if (s)
			s->flags ^= MANIFEST_SEALED;
		break;
	case 2:
		if (s)
			s->len = s->flags & MANIFEST_SEALED ? 0 : s->len;
		if (s)
			s->flags = 0;
		break;
	case 3:
		if (s)
			manifest_remove(m, s->id, FMT_SEG_SHIFT_MIN);
		break;
	case 4:
		(void)!manifest_gap_add(
			m, (UINT64_C(1) << 20) * (1 + mut_below(mu, 3)) + 8 * mut_below(mu, 600),
			8 * (1 + mut_below(mu, 200)));
		break;
	default: {
		const uint64_t id = mut_number(mu, 3);

		if (!manifest_find(m, id))
			emdb_assert(!manifest_add(m, id, mut_number(mu, 400),
						  mut_below(mu, 2) ? MANIFEST_SEALED : 0));
	}
	}
}

static inline void mut_manifest(struct mutator *mu, struct pack_file *f)
{
	struct manifest m;
	struct manifest_head *const h = &m.head;
	uint64_t *const numbers[] = { &h->generation, &h->durable_lsn,  &h->next_segment,
				      &h->flags,      &h->ckpt,         &h->ckpt_lsn,
				      &h->ckpt_prev,  &h->ckpt_prev_lsn };
	uint64_t *const one = numbers[mut_below(mu, ARRAY_SIZE(numbers))];

	if (mut_below(mu, 3) == 0 || !mill_manifest(f, &m)) {
		mut_bytes(mu, f->data, f->used);
		return;
	}
	if (mut_below(mu, 2))
		mut_manifest_row(mu, &m);
	else
		*one = mut_number(mu, *one);
	mill_put_manifest(&mu->mill, f, &m);
	manifest_release(&m);
}

static inline void mut_image(struct mutator *mu, struct pack_file *f)
{
	const size_t n = mill_blocks(f), at = mill_block_at(f, mut_below(mu, n));
	const uint32_t len = mill_block_len(f, at);

	switch (len ? mut_below(mu, 10) : 0) {
	case 0:
		mut_bytes(mu, f->data, f->used);
		break;
	case 1: /* away */
		memmove(f->data + at, f->data + at + len, f->used - at - len);
		f->used = f->size = f->used - len;
		break;
	case 2: /* twice */
		if (len > f->cap - f->used)
			break;
		memmove(f->data + at + len, f->data + at, f->used - at);
		f->used += len;
		break;
	case 3: /* longer or shorter */
		put_u32(f->data + at + 4, (uint32_t)(len + mut_below(mu, 33) - 16));
		break;
	default:
		mut_bytes(mu, f->data + at + CKPT_BLOCK_HEADER, len - CKPT_BLOCK_HEADER);
	}
}

/* Names that mean something, for files that are something else. */
static inline void mut_name(struct mutator *mu, char name[PACK_NAME + 1])
{
	static const char *const names[] = { "superblock",
					     "superblock.bak",
					     "manifest",
					     "lock",
					     "journal",
					     "convert",
					     "convert/superblock",
					     "convert/manifest",
					     "convert/pool/%016x.seg",
					     "convert/journal/%016x.seg",
					     "journal/%016x.seg",
					     "checkpoint-%016x",
					     "snapshots/s/superblock",
					     "snapshots/s/manifest",
					     "snapshots/t/superblock",
					     "snapshots/s/checkpoint-%016x",
					     "snapshots/s/journal/%016x.seg",
					     "lost/1/manifest",
					     "reserve",
					     "snapshots/.x/lock" };
	const char *const one = names[mut_below(mu, ARRAY_SIZE(names))];

	(void)snprintf(name, PACK_NAME + 1, "%.*s", (int)strcspn(one, "%"), one);
	if (strchr(one, '%'))
		(void)snprintf(name + strlen(name), 40, "%016zx%s", 1 + mut_below(mu, 4),
			       strstr(one, ".seg") ? ".seg" : "");
}

static inline void mut_files(struct mutator *mu)
{
	struct pack *const p = mu->mill.p;
	struct pack_file *const f = &p->files[mut_below(mu, p->count)];
	char name[PACK_NAME + 1];

	mut_name(mu, name);
	switch (p->count ? mut_below(mu, 6) : 9) {
	case 0:
		f->used = mut_below(mu, f->used + 1);
		f->size = f->used;
		break;
	case 1:
		f->size = min_size(PACK_SIZE, f->used + mut_below(mu, 1u << 20));
		break;
	case 2:
		if (!pack_find(p, name))
			memcpy(f->name, name, sizeof(name));
		break;
	case 3:
		(void)pack_add(p, name, f->data, f->used, f->size);
		break;
	case 4: /* out of the way, so that others still find theirs by index */
		(void)snprintf(f->name, sizeof(f->name), "away-%zu", mut_below(mu, 1000));
		break;
	case 5:
		p->todo = (unsigned int)mut_rand(mu) & 0xff;
		break;
	default:
		break;
	}
}

static inline void mut_once(struct mutator *mu)
{
	struct pack *const p = mu->mill.p;
	struct pack_file *f;

	if (!p->count || mut_below(mu, 8) == 0) {
		mut_files(mu);
		return;
	}
	f = &p->files[mut_below(mu, p->count)];
	switch (mill_kind_of(f)) {
	case MILL_SUPER:
		mut_super(mu, f);
		break;
	case MILL_MANIFEST:
		mut_manifest(mu, f);
		break;
	case MILL_SEGMENT:
		mut_segment(mu, f);
		break;
	case MILL_IMAGE:
		mut_image(mu, f);
		break;
	case MILL_OTHER:
		mut_bytes(mu, f->data, f->used);
	}
}

static inline size_t mutate_store(uint8_t *data, size_t n, size_t max, unsigned int seed)
{
	struct mutator mu = { .rng = (uint64_t)seed * 2654435761u + 88172645463325252u };
	struct pack p;
	size_t out;

	pack_take(&p, data, n);
	mill_open(&mu.mill, &p);
	for (size_t i = 1 + mut_below(&mu, 4); i > 0; i--)
		mut_once(&mu);
	mu.mill.place = mut_below(&mu, 16) != 0;
	mill_close(&mu.mill);
	out = pack_put(&p, data, max);
	pack_release(&p);
	return out ? out : n;
}

#endif
