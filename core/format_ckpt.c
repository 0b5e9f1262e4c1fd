/* SPDX-License-Identifier: Apache-2.0 */
#include "core/format_ckpt.h"

static const uint8_t head_magic[8] = { 'E', 'M', 'D', 'B', 'C', 'K', 'P', 'T' };

/* ---- Blocks ----------------------------------------------------------- */

void fmt_ckpt_header(uint8_t *block, uint32_t len, enum ckpt_kind kind, uint32_t index,
		     uint64_t number)
{
	emdb_assert(len >= CKPT_BLOCK_HEADER && len <= CKPT_BLOCK_MAX);
	put_u32(block + 4, len);
	put_u32(block + 8, index);
	put_u32(block + 12, (uint32_t)kind);
	put_u64(block + 16, number);
}

uint32_t fmt_ckpt_finish(uint8_t *block, uint32_t len)
{
	const uint32_t crc = crc32c(0, block + 4, len - 4);

	put_u32(block, crc);
	return crc;
}

uint32_t fmt_ckpt_seal(uint8_t *block, uint32_t len, enum ckpt_kind kind, uint32_t index,
		       uint64_t number)
{
	fmt_ckpt_header(block, len, kind, index, number);
	return fmt_ckpt_finish(block, len);
}

uint32_t fmt_ckpt_len(const uint8_t header[CKPT_BLOCK_HEADER])
{
	const uint32_t len = get_u32(header + 4);

	return len >= CKPT_BLOCK_HEADER && len <= CKPT_BLOCK_MAX ? len : 0;
}

bool fmt_ckpt_open(const uint8_t *block, uint32_t len, struct ckpt_block *ret)
{
	const uint32_t kind = get_u32(block + 12);

	if (len < CKPT_BLOCK_HEADER || len != get_u32(block + 4) || kind < CKPT_HEAD ||
	    kind > CKPT_END || crc32c(0, block + 4, len - 4) != get_u32(block))
		return false;
	ret->kind = (enum ckpt_kind)kind;
	ret->crc = get_u32(block);
	ret->index = get_u32(block + 8);
	ret->number = get_u64(block + 16);
	ret->p = block + CKPT_BLOCK_HEADER;
	ret->n = len - CKPT_BLOCK_HEADER;
	return true;
}

uint32_t fmt_ckpt_chain(uint32_t chain, uint32_t block_crc)
{
	uint8_t b[4];

	put_u32(b, block_crc);
	return crc32c(chain, b, sizeof(b));
}

/* ---- First and last --------------------------------------------------- */

void fmt_ckpt_head_put(struct wcur *w, const struct ckpt_head *h)
{
	wcur_bytes(w, head_magic, sizeof(head_magic));
	wcur_u32(w, FMT_VERSION);
	wcur_u32(w, 0);
	wcur_bytes(w, h->uuid, sizeof(h->uuid));
	wcur_u64(w, h->lsn);
	wcur_u64(w, (uint64_t)h->created_ns);
	if (h->sealed)
		wcur_bytes(w, h->salt, sizeof(h->salt));
}

bool fmt_ckpt_head_get(const struct ckpt_block *b, struct ckpt_head *ret)
{
	const bool sealed = b->n == CKPT_HEAD_SIZE + sizeof(ret->salt);

	if (b->kind != CKPT_HEAD || (b->n != CKPT_HEAD_SIZE && !sealed) ||
	    memcmp(b->p, head_magic, sizeof(head_magic)) != 0 || get_u32(b->p + 8) != FMT_VERSION ||
	    get_u32(b->p + 12) != 0)
		return false;
	memcpy(ret->uuid, b->p + 16, sizeof(ret->uuid));
	ret->lsn = get_u64(b->p + 32);
	ret->created_ns = (int64_t)get_u64(b->p + 40);
	ret->sealed = sealed;
	if (sealed)
		memcpy(ret->salt, b->p + CKPT_HEAD_SIZE, sizeof(ret->salt));
	return true;
}

void fmt_ckpt_end_put(struct wcur *w, const struct ckpt_end *e)
{
	wcur_u64(w, e->settled);
	wcur_u64(w, e->records);
	wcur_u64(w, e->namespaces);
	wcur_u32(w, e->blocks);
	wcur_u32(w, e->chain);
}

bool fmt_ckpt_end_get(const struct ckpt_block *b, struct ckpt_end *ret)
{
	if (b->kind != CKPT_END || b->n != CKPT_END_SIZE)
		return false;
	ret->settled = get_u64(b->p);
	ret->records = get_u64(b->p + 8);
	ret->namespaces = get_u64(b->p + 16);
	ret->blocks = get_u32(b->p + 24);
	ret->chain = get_u32(b->p + 28);
	return true;
}

/* ---- Items ------------------------------------------------------------ */

/* True: another item follows, as far as anybody can tell. */
static bool more(const struct cur *c)
{
	return cur_left(c) != 0;
}

/* The end of an item's decoding: right is what else must hold. */
static bool good(struct cur *c, bool right)
{
	if (!right)
		c->err = true;
	return !c->err;
}

static uint64_t get_hash8(struct cur *c)
{
	return cur_varint_max(c, UINT64_MAX / 8) * 8;
}

void fmt_ckpt_run_put(struct wcur *w, const struct ckpt_run *r)
{
	wcur_varint(w, r->ns);
	wcur_varint(w, r->total);
	wcur_varint(w, r->count);
	wcur_varint(w, r->first / 8);
}

bool fmt_ckpt_run_get(struct cur *c, struct ckpt_run *ret)
{
	if (!more(c))
		return false;
	ret->ns = cur_varint(c);
	ret->total = cur_varint(c);
	ret->count = cur_varint(c);
	ret->first = get_hash8(c);
	return good(c, ret->ns != 0 && ret->count != 0);
}

void fmt_ckpt_slot_put(struct wcur *w, const struct ckpt_slot *s, uint64_t prev_hash)
{
	wcur_varint(w, (s->hash - prev_hash) / 8);
	wcur_varint(w, s->ref);
	if (s->ref & REF_SPECIAL) {
		wcur_u8(w, s->kind);
		wcur_varint(w, s->id);
	}
}

bool fmt_ckpt_slot_get(struct cur *c, uint64_t prev_hash, struct ckpt_slot *ret)
{
	const uint64_t step = get_hash8(c);

	ret->ref = cur_varint(c);
	ret->kind = REC_PUT;
	ret->id = 0;
	if (ret->ref & REF_SPECIAL) {
		ret->kind = cur_u8(c);
		ret->id = cur_varint(c);
		if (ret->kind != 0 && ret->kind != REC_NS && ret->kind != REC_LINK)
			c->err = true;
		if ((ret->kind == 0) != (ret->id == 0) || ret->ref & REF_EXPIRES)
			c->err = true;
	}
	return good(c, !emdb_add_ovf(prev_hash, step, &ret->hash) && ref_lsn(ret->ref) != 0);
}

static void put_times(struct wcur *w, int64_t ctime, int64_t mtime, int64_t atime, int64_t btime)
{
	wcur_zigzag(w, ctime);
	wcur_zigzag(w, mtime);
	wcur_zigzag(w, atime);
	wcur_zigzag(w, btime);
}

void fmt_ckpt_object_put(struct wcur *w, const struct ckpt_object *o)
{
	wcur_varint(w, o->id);
	wcur_varint(w, o->as_of);
	wcur_varint(w, o->size);
	put_times(w, o->ctime, o->mtime, o->atime, o->btime);
	wcur_varint(w, (uint64_t)o->expires_ms);
	wcur_varint(w, o->rdev);
	wcur_varint(w, o->inode_ref);
	wcur_varint(w, o->touch_lsn);
	wcur_varint(w, o->mode);
	wcur_varint(w, o->uid);
	wcur_varint(w, o->gid);
	wcur_varint(w, o->extents);
}

void fmt_ckpt_extents_put(struct wcur *w, uint64_t n, const void *list, size_t len)
{
	wcur_varint(w, 0);
	wcur_varint(w, n);
	wcur_blob(w, list, len);
}

bool fmt_ckpt_object_get(struct cur *c, struct ckpt_object *ret, uint64_t *ret_n,
			 struct cur *ret_list)
{
	const uint8_t *p;
	size_t n;

	if (!more(c))
		return false;
	memset(ret, 0, sizeof(*ret));
	ret->id = cur_varint(c);
	if (!c->err && ret->id == 0) {
		*ret_n = cur_varint(c);
		p = cur_blob(c, CKPT_BLOCK_MAX, &n);
		*ret_list = cur_init(p, n);
		return good(c, *ret_n != 0 && n != 0);
	}
	ret->as_of = cur_varint(c);
	ret->size = cur_varint_max(c, EMDB_VALUE_MAX);
	ret->ctime = cur_zigzag(c);
	ret->mtime = cur_zigzag(c);
	ret->atime = cur_zigzag(c);
	ret->btime = cur_zigzag(c);
	ret->expires_ms = (int64_t)cur_varint_max(c, INT64_MAX);
	ret->rdev = cur_varint(c);
	ret->inode_ref = cur_varint(c);
	ret->touch_lsn = cur_varint(c);
	ret->mode = (uint32_t)cur_varint_max(c, UINT32_MAX);
	ret->uid = (uint32_t)cur_varint_max(c, UINT32_MAX);
	ret->gid = (uint32_t)cur_varint_max(c, UINT32_MAX);
	ret->extents = cur_varint(c);
	return good(c, ret->as_of != 0);
}

void fmt_ckpt_space_put(struct wcur *w, const struct ckpt_space *s)
{
	wcur_varint(w, s->id);
	wcur_varint(w, s->as_of);
	wcur_varint(w, s->parent);
	wcur_u64(w, s->hash);
	wcur_varint(w, s->ref);
	wcur_varint(w, s->touch_lsn);
	put_times(w, s->ctime, s->mtime, s->atime, s->btime);
	wcur_varint(w, (uint64_t)s->ttl_default_ms);
	wcur_varint(w, s->mode);
	wcur_varint(w, s->uid);
	wcur_varint(w, s->gid);
	wcur_u8(w, s->basis);
}

bool fmt_ckpt_space_get(struct cur *c, struct ckpt_space *ret)
{
	if (!more(c))
		return false;
	ret->id = cur_varint(c);
	ret->as_of = cur_varint(c);
	ret->parent = cur_varint(c);
	ret->hash = cur_u64(c);
	ret->ref = cur_varint(c);
	ret->touch_lsn = cur_varint(c);
	ret->ctime = cur_zigzag(c);
	ret->mtime = cur_zigzag(c);
	ret->atime = cur_zigzag(c);
	ret->btime = cur_zigzag(c);
	ret->ttl_default_ms = (int64_t)cur_varint_max(c, INT64_MAX);
	ret->mode = (uint32_t)cur_varint_max(c, UINT32_MAX);
	ret->uid = (uint32_t)cur_varint_max(c, UINT32_MAX);
	ret->gid = (uint32_t)cur_varint_max(c, UINT32_MAX);
	ret->basis = cur_u8(c);
	return good(c, ret->id != 0 && ret->as_of != 0 && ret->parent != 0 &&
			       ret->basis <= EMDB_BASIS_MODIFY);
}

void fmt_ckpt_queue_put(struct wcur *w, int64_t expires_ms, uint64_t ns, uint64_t hash)
{
	wcur_varint(w, (uint64_t)expires_ms);
	wcur_varint(w, ns);
	wcur_varint(w, hash / 8);
}

bool fmt_ckpt_queue_get(struct cur *c, int64_t *ret_ms, uint64_t *ret_ns, uint64_t *ret_hash)
{
	if (!more(c))
		return false;
	*ret_ms = (int64_t)cur_varint_max(c, INT64_MAX);
	*ret_ns = cur_varint(c);
	*ret_hash = get_hash8(c);
	return good(c, *ret_ms != 0);
}

void fmt_ckpt_segment_put(struct wcur *w, uint64_t id, uint64_t live)
{
	wcur_varint(w, id);
	wcur_varint(w, live);
}

bool fmt_ckpt_segment_get(struct cur *c, uint64_t *ret_id, uint64_t *ret_live)
{
	if (!more(c))
		return false;
	*ret_id = cur_varint(c);
	*ret_live = cur_varint_max(c, INT64_MAX);
	return good(c, *ret_id != 0);
}

void fmt_ckpt_gone_put(struct wcur *w, uint64_t id, bool gone)
{
	wcur_varint(w, id);
	wcur_u8(w, gone);
}

bool fmt_ckpt_gone_get(struct cur *c, uint64_t *ret_id, bool *ret_gone)
{
	uint8_t gone;

	if (!more(c))
		return false;
	*ret_id = cur_varint(c);
	gone = cur_u8(c);
	*ret_gone = gone != 0;
	return good(c, gone <= 1);
}
