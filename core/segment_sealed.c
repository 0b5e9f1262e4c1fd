/* SPDX-License-Identifier: Apache-2.0 */
/* Frames and records of encrypted segments, opened. */
#include "core/guard.h"
#include "core/sealed.h"
#include "core/segment_i.h"

emdb_err segment_view(const struct segment *s, uint64_t off, uint64_t end, struct buf *view,
		      enum frame_status *ret_st, struct frame *ret)
{
	const emdb_err err = segment_parse(s, off, end, true, ret_st, ret);
	struct guard g;
	bool ok;

	if (err || !s->key || *ret_st != FRAME_OK)
		return err;
	buf_reset(view);
	if (buf_reserve(view, ret->len))
		return EMDB_ERR_NOMEM;
	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	ok = sealed_view(s->key, &s->tags, ret, view->data);
	guard_end(&g);
	if (!ok)
		*ret_st = FRAME_FORGED;
	ret->p = view->data;
	return EMDB_OK;
}

/* Finds the record of ref. The CRC is not looked at: the tag says more, and costs what it costs. */
static EMDB_NOINLINE bool find_rec(const struct segment *s, uint64_t ref, struct sealed_rec *ret)
{
	const uint64_t end = segment_len(s), lsn = ref_lsn(ref);
	uint64_t off = lsn & (segment_bytes(s) - 1);
	uint32_t back = 0;
	struct frame f;

	if (off < FMT_SEG_HEADER || off + FMT_BATCH_PREFIX > end)
		return false;
	if (ref & REF_BATCH) {
		back = get_u32(s->map + off + 4);
		if (back > FMT_FRAME_MAX / 8 || back * 8 > off - FMT_SEG_HEADER)
			return false;
		back *= 8;
		off -= back;
	}
	if (fmt_frame_parse(s->map + off, end - off, s->base + off, false, 0, &f) != FRAME_OK)
		return false;
	if (ref & REF_BATCH)
		return f.kind == FRAME_BATCH && sealed_in_batch(&f, &s->tags, back, ret);
	return f.kind < FRAME_BATCH && sealed_single(&f, &s->tags, ret);
}

emdb_err segment_open_rec(const struct segment *s, uint64_t ref, struct plain **ret)
{
	struct sealed_rec r = { .n = 0 };
	struct plain *p;
	struct guard g;
	bool ok;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	ok = find_rec(s, ref, &r);
	guard_end(&g);
	if (!ok)
		return EMDB_ERR_CORRUPT;
	p = base_malloc(sizeof(*p) + r.n);
	if (!p)
		return EMDB_ERR_NOMEM;
	if (!guard_begin(&g)) {
		base_free(p);
		return EMDB_ERR_IO;
	}
	ok = sealed_rec_open(s->key, &r, p->bytes);
	guard_end(&g);
	p->ref = ref;
	p->n = r.n;
	if (!ok || !fmt_rec_decode(r.kind, p->bytes, p->n, &p->rec)) {
		base_free(p);
		return EMDB_ERR_CORRUPT;
	}
	*ret = p;
	return EMDB_OK;
}
