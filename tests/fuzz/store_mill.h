/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packed store opened so that it can be changed and closed again: records and blocks of an encrypted one are
 * plain text in between. Closing makes right what says whether bytes are good: CRCs, seals and MACs,
 * and, unless told not to, what says where they belong: LSNs, indexes, numbers.
 */
#ifndef STORE_MILL_H
#define STORE_MILL_H

#include "core/format_ckpt.h"
#include "core/keyslot.h"
#include "core/manifest.h"
#include "core/sealed.h"
#include "tests/fuzz/store_pack.h"

/* What every encrypted sample is opened with. */
static const uint8_t mill_key[32] = "the key of every encrypted seed";
static const struct emdb_secret mill_secret = { EMDB_SECRET_KEY, mill_key, 32, NULL, 0, 0, 0 };

struct mill {
	struct pack *p;
	struct vault *vault; /* NULL: not encrypted, or nothing opens it */
	struct superblock sb;
	bool super; /* sb is good */
	bool place; /* closing says where things belong */
};

enum mill_kind { MILL_OTHER, MILL_SUPER, MILL_MANIFEST, MILL_SEGMENT, MILL_IMAGE };

static inline enum mill_kind mill_kind_of(const struct pack_file *f)
{
	const char *const slash = strrchr(f->name, '/'), *const base = slash ? slash + 1 : f->name;

	if (f->same != -1)
		return MILL_OTHER;
	if (strncmp(base, "superblock", 10) == 0)
		return MILL_SUPER;
	if (strcmp(base, "manifest") == 0)
		return MILL_MANIFEST;
	if (strncmp(base, "checkpoint-", 11) == 0)
		return MILL_IMAGE;
	return strstr(base, ".seg") ? MILL_SEGMENT : MILL_OTHER;
}

/* The number in a name: of a segment or a checkpoint. */
static inline uint64_t mill_number(const struct pack_file *f)
{
	const char *const slash = strrchr(f->name, '/'), *const base = slash ? slash + 1 : f->name;

	return strtoull(strncmp(base, "checkpoint-", 11) == 0 ? base + 11 : base, NULL, 16);
}

/* ---- Segments ---- */

/* Length of what can be taken for a frame; 0: nothing can. */
static inline uint32_t mill_frame_len(const struct pack_file *f, size_t off)
{
	uint32_t len;

	if (off >= f->used || f->used - off < FMT_FRAME_HEADER)
		return 0;
	len = (get_u32(f->data + off + 4) & 0xffffff) * 8;
	return len >= FMT_FRAME_HEADER && len <= f->used - off ? len : 0;
}

static inline size_t mill_frames(const struct pack_file *f)
{
	size_t n = 0;

	for (size_t off = FMT_SEG_HEADER, len; (len = mill_frame_len(f, off)); off += len)
		n++;
	return n;
}

/* Where the i-th frame is, or the end of all. */
static inline size_t mill_frame_at(const struct pack_file *f, size_t i)
{
	size_t off = FMT_SEG_HEADER, len;

	while (i-- && (len = mill_frame_len(f, off)))
		off += len;
	return off;
}

/* r lies in f, which is ours to change. */
static inline void mill_rec(const struct seal_key *k, struct pack_file *f,
			    const struct sealed_rec *r, bool open)
{
	uint8_t *const at = f->data + (r->src - f->data), *plain;

	if (!open) {
		seal(k, r->place, r->ad, r->ad_len, at, r->n, at, at + r->n);
		return;
	}
	plain = malloc(r->n + 1);
	emdb_assert(plain);
	if (seal_open(k, r->place, r->ad, r->ad_len, at, r->n, r->tag, plain))
		memcpy(at, plain, r->n);
	free(plain);
}

/* Where tags are apart, what was sealed stays as it is. */
static inline void mill_seals(struct mill *m, struct pack_file *f, bool open)
{
	static const struct sealed_tags inside = { NULL, 0 };
	struct seal_key *k;
	struct sealed_rec r;

	if (!m->vault || f->used < FMT_SEG_HEADER || get_u64(f->data + 96))
		return;
	emdb_assert(
		!seal_key_new(m->vault, SEAL_SEGMENT, mill_number(f), f->data + FMT_SEG_SALT, &k));
	for (size_t off = FMT_SEG_HEADER, len; (len = mill_frame_len(f, off)); off += len) {
		const uint8_t *const p = f->data + off;
		const struct frame fr = {
			.kind = p[7], .lsn = get_u64(p + 8), .len = (uint32_t)len, .p = p
		};

		if (fr.kind != FRAME_BATCH) {
			if (sealed_single(&fr, &inside, &r))
				mill_rec(k, f, &r, open);
			continue;
		}
		for (uint32_t at = FMT_BATCH_HEADER; sealed_in_batch(&fr, &inside, at, &r);
		     at += FMT_BATCH_PREFIX + r.n + CRYPTO_TAG)
			mill_rec(k, f, &r, open);
	}
	seal_key_free(k);
}

static inline void mill_close_segment(struct mill *m, struct pack_file *f)
{
	const uint64_t id = mill_number(f);
	uint32_t seed = 0;

	if (f->used < FMT_SEG_HEADER)
		return;
	if (m->place)
		put_u64(f->data + 32, id);
	put_u32(f->data + 252, crc32c(0, f->data, 252));
	if (!m->super || m->sb.incompat & FMT_INCOMPAT_SEEDED)
		seed = fmt_crc_seed(f->data + FMT_SEG_SALT);
	for (size_t off = FMT_SEG_HEADER, len; (len = mill_frame_len(f, off)); off += len)
		if (m->place)
			put_u64(f->data + off + 8, (id << m->sb.segment_shift) + off);
	mill_seals(m, f, false);
	for (size_t off = FMT_SEG_HEADER, len; (len = mill_frame_len(f, off)); off += len)
		fmt_frame_finish(f->data + off, (uint32_t)len, seed);
}

/* ---- Checkpoints ---- */

static inline uint32_t mill_block_len(const struct pack_file *f, size_t off)
{
	uint32_t len;

	if (off >= f->used || f->used - off < CKPT_BLOCK_HEADER)
		return 0;
	len = get_u32(f->data + off + 4);
	return len >= CKPT_BLOCK_HEADER && len <= f->used - off ? len : 0;
}

static inline size_t mill_blocks(const struct pack_file *f)
{
	size_t n = 0;

	for (size_t off = 0, len; (len = mill_block_len(f, off)); off += len)
		n++;
	return n;
}

static inline size_t mill_block_at(const struct pack_file *f, size_t i)
{
	size_t off = 0, len;

	while (i-- && (len = mill_block_len(f, off)))
		off += len;
	return off;
}

/* The head is in clear, and the tag behind it. NULL: there is no salt. */
static inline struct seal_key *mill_image_key(const struct mill *m, const struct pack_file *f)
{
	const uint32_t len = mill_block_len(f, 0);
	struct seal_key *k = NULL;

	if (m->vault && len >= CKPT_BLOCK_HEADER + CKPT_HEAD_SIZE + 32 + CRYPTO_TAG)
		emdb_assert(!seal_key_new(m->vault, SEAL_CHECKPOINT, mill_number(f),
					  f->data + len - CRYPTO_TAG - 32, &k));
	return k;
}

static inline void mill_open_image(const struct mill *m, struct pack_file *f)
{
	struct seal_key *const k = mill_image_key(m, f);
	size_t off = k ? mill_block_at(f, 1) : f->used, len;

	for (; (len = mill_block_len(f, off)); off += len) {
		uint8_t *const b = f->data + off, *const plain = malloc(len);
		const size_t n = len - CKPT_BLOCK_HEADER - CRYPTO_TAG;

		emdb_assert(plain);
		if (len >= CKPT_BLOCK_HEADER + CRYPTO_TAG &&
		    seal_open(k, get_u32(b + 8), b + 4, CKPT_BLOCK_HEADER - 4,
			      b + CKPT_BLOCK_HEADER, n, b + len - CRYPTO_TAG, plain))
			memcpy(b + CKPT_BLOCK_HEADER, plain, n);
		free(plain);
	}
	seal_key_free(k);
}

static inline void mill_close_image(const struct mill *m, struct pack_file *f)
{
	struct seal_key *const k = mill_image_key(m, f);
	const size_t tag = k ? CRYPTO_TAG : 0;
	uint32_t chain = 0, index = 0;

	for (size_t off = 0, len; (len = mill_block_len(f, off)); off += len, index++) {
		uint8_t *const b = f->data + off;
		size_t at = CKPT_BLOCK_HEADER;

		if (m->place) {
			put_u32(b + 8, index);
			put_u64(b + 16, mill_number(f));
		}
		if (get_u32(b + 12) == CKPT_END && m->place &&
		    len >= CKPT_BLOCK_HEADER + CKPT_END_SIZE + tag) {
			put_u32(b + at + 24, index + 1);
			put_u32(b + at + 28, chain);
		}
		if (index == 0)
			at = len - tag;
		if (k && len >= at + tag)
			seal(k, get_u32(b + 8), b + 4, at - 4, b + at, len - at - tag, b + at,
			     b + len - tag);
		chain = fmt_ckpt_chain(chain, fmt_ckpt_finish(b, (uint32_t)len));
	}
	seal_key_free(k);
}

/* ---- Superblock and manifest ---- */

static inline void mill_close_super(struct mill *m, struct pack_file *f)
{
	struct superblock sb;

	if (f->used < FMT_SUPER_SIZE)
		return;
	put_u32(f->data + 4092, crc32c(0, f->data, 4092));
	if (!m->vault || fmt_super_decode(f->data, FMT_SUPER_SIZE, &sb))
		return;
	keyslot_mac(&sb, vault_secrets_of(m->vault));
	fmt_super_encode(&sb, f->data);
}

/* The rows of a manifest that is good; false: it is not. */
static inline bool mill_manifest(const struct pack_file *f, struct manifest *ret)
{
	struct manifest_head h;

	*ret = (struct manifest)MANIFEST_INIT;
	if (fmt_manifest_decode(f->data, f->used, &h))
		return false;
	for (uint32_t i = 0; i < h.nsegs; i++) {
		struct manifest_seg s;

		fmt_manifest_seg(f->data, i, &s);
		emdb_assert(!manifest_add(ret, s.id, s.len, s.flags));
	}
	for (uint32_t i = 0; i < h.ngaps; i++) {
		struct manifest_gap g;

		fmt_manifest_gap(f->data, h.nsegs, i, &g);
		emdb_assert(!manifest_gap_add(ret, g.lsn, g.len));
	}
	h.nsegs = ret->head.nsegs;
	h.ngaps = ret->head.ngaps;
	ret->head = h;
	return true;
}

static inline void mill_put_manifest(struct mill *m, struct pack_file *f, struct manifest *mf)
{
	emdb_assert(!manifest_mac_set(mf, m->vault));
	if (fmt_manifest_len(&mf->head) <= f->cap) {
		f->used = f->size = fmt_manifest_len(&mf->head);
		fmt_manifest_encode(&mf->head, mf->segs, mf->gaps, f->data);
	}
}

static inline void mill_close_manifest(struct mill *m, struct pack_file *f)
{
	struct manifest mf;

	if (f->used < 108)
		return;
	put_u32(f->data + 12, (uint32_t)f->used);
	put_u32(f->data + f->used - 4, crc32c(0, f->data, f->used - 4));
	if (m->vault && mill_manifest(f, &mf)) {
		mill_put_manifest(m, f, &mf);
		manifest_release(&mf);
	}
}

/* ---- All ---- */

static inline void mill_open(struct mill *m, struct pack *p)
{
	const struct pack_file *const super = pack_find(p, "superblock");

	*m = (struct mill){ .p = p, .place = true };
	emdb_assert(!crypto_init());
	m->super = super && super->same == -1 &&
		   fmt_super_decode(super->data, super->used, &m->sb) == EMDB_OK;
	if (m->super && m->sb.cipher && keyslot_vault(&m->sb, &mill_secret, &m->vault))
		m->vault = NULL;
	if (!m->super)
		m->sb.segment_shift = FMT_SEG_SHIFT_MIN;
	for (unsigned int i = 0; i < p->count; i++) {
		const enum mill_kind kind = mill_kind_of(&p->files[i]);

		if (kind == MILL_SEGMENT)
			mill_seals(m, &p->files[i], true);
		else if (kind == MILL_IMAGE)
			mill_open_image(m, &p->files[i]);
	}
}

static inline void mill_close(struct mill *m)
{
	const struct pack_file *super;

	for (unsigned int i = 0; i < m->p->count; i++)
		if (mill_kind_of(&m->p->files[i]) == MILL_SUPER)
			mill_close_super(m, &m->p->files[i]);
	super = pack_find(m->p, "superblock");
	m->super = super && fmt_super_decode(super->data, super->used, &m->sb) == EMDB_OK;
	for (unsigned int i = 0; i < m->p->count; i++) {
		struct pack_file *const f = &m->p->files[i];
		const enum mill_kind kind = mill_kind_of(f);

		if (kind == MILL_MANIFEST)
			mill_close_manifest(m, f);
		else if (kind == MILL_SEGMENT)
			mill_close_segment(m, f);
		else if (kind == MILL_IMAGE)
			mill_close_image(m, f);
		f->size = max_size(f->size, f->used);
	}
	vault_unref(m->vault);
	m->vault = NULL;
}

#endif
