/* SPDX-License-Identifier: Apache-2.0 */
/* One file of a store written again: a segment, a checkpoint. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base.h"
#include "core/checkpoint.h"
#include "core/convert.h"
#include "core/format_ckpt.h"
#include "core/guard.h"
#include "core/segment_i.h"

/* Written in pieces of this size. */
#define OUT_BYTES (1024u * 1024u)

static void EMDB_PRINTF(4, 5)
	explain_at(struct emdb_detail *d, uint64_t segment, uint64_t offset, const char *fmt, ...)
{
	va_list ap;

	if (!d)
		return;
	d->segment = segment;
	d->offset = offset;
	va_start(ap, fmt);
	(void)vsnprintf(d->text, sizeof(d->text), fmt, ap);
	va_end(ap);
}

/* A file that grows. */
struct out {
	struct emdb_io *io;
	int fd;
	uint64_t off; /* of buf in the file */
	struct buf buf;
};

static emdb_err out_flush(struct out *o)
{
	const int rc = io_pwrite_full(o->io, o->fd, o->buf.data, o->buf.len, o->off);

	o->off += o->buf.len;
	buf_reset(&o->buf);
	return err_of_io(rc);
}

static emdb_err out_add(struct out *o, const void *p, size_t n)
{
	if (buf_append(&o->buf, p, n))
		return EMDB_ERR_NOMEM;
	return o->buf.len >= OUT_BYTES ? out_flush(o) : EMDB_OK;
}

static emdb_err out_zeros(struct out *o, uint64_t n)
{
	emdb_err err = EMDB_OK;

	while (!err && n) {
		const size_t k = (size_t)min_u64(n, OUT_BYTES);

		err = buf_append_zero(&o->buf, k) ? EMDB_ERR_NOMEM : out_flush(o);
		n -= k;
	}
	return err;
}

/* ---- Segments --------------------------------------------------------------- */

struct seg_job {
	const struct convert_way *w;
	struct segment *src;
	struct seg_header head; /* of the new file */
	struct seal_key *key;   /* of the new file; NULL: plain */
	uint32_t crc_seed;
	struct buf view, frame, tags;
	struct out out;
};

static emdb_err damaged_at(const struct seg_job *s, uint64_t off, const char *what)
{
	explain_at(s->w->detail, s->src->id, off, "journal/%016llx.seg offset %llu: %s",
		   (unsigned long long)s->src->id, (unsigned long long)off, what);
	return EMDB_ERR_CORRUPT;
}

/* Of a plain batch nobody has looked at the records yet; they can be sealed only if they fill it. */
static bool adds_up(const uint8_t *p, uint32_t len)
{
	const struct frame f = { .kind = p[7], .lsn = get_u64(p + 8), .len = len, .p = p };
	struct batch_iter it;

	if (f.kind != FRAME_BATCH)
		return true;
	if (!fmt_batch_begin(&f, &it))
		return false;
	while (fmt_batch_skip(&it))
		continue;
	return it.left == 0 && it.at == len;
}

/* The plain text of the frame at off, in s->frame. */
static emdb_err turn_frame(struct seg_job *s, uint64_t off, uint64_t len, uint32_t *ret_len)
{
	enum frame_status st = FRAME_END;
	struct guard g;
	struct frame f;
	emdb_err err = segment_view(s->src, off, len, &s->view, &st, &f);

	if (!err && st != FRAME_OK)
		err = damaged_at(s, off, fmt_frame_status_text(st));
	if (err)
		return err;
	buf_reset(&s->frame);
	if (buf_reserve(&s->frame, f.len))
		return EMDB_ERR_NOMEM;
	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	memcpy(s->frame.data, f.p, f.len);
	guard_end(&g);
	/* The copy: the mapping may change under us. */
	if (!adds_up(s->frame.data, f.len))
		return damaged_at(s, off, "a batch whose records do not fill it");
	*ret_len = f.len;
	return EMDB_OK;
}

static emdb_err turn_frames(struct seg_job *s, uint64_t len, const struct manifest *gaps)
{
	/* Tags stay in frames that have room for them. */
	const bool inside = s->src->key && !s->src->tags.table;
	uint64_t off = FMT_SEG_HEADER;
	emdb_err err = EMDB_OK;

	while (!err && off < len) {
		const uint64_t gap = manifest_gap_at(gaps, s->src->base + off);
		uint32_t n = 0;

		/* What a writer left there that died must not be copied as it is. */
		if (gap && gap <= len - off) {
			err = out_zeros(&s->out, gap);
			off += gap;
			continue;
		}
		err = turn_frame(s, off, len, &n);
		if (err)
			break;
		if (s->key && inside)
			sealed_close(s->key, s->frame.data, n);
		else if (s->key && sealed_close_apart(s->key, s->frame.data, n, &s->tags))
			err = EMDB_ERR_NOMEM;
		fmt_frame_finish(s->frame.data, n, s->crc_seed);
		if (!err)
			err = out_add(&s->out, s->frame.data, n);
		off += n;
	}
	return err;
}

static emdb_err seg_begin(struct seg_job *s, int src, const struct manifest_seg *row)
{
	struct segment_env env = { .io = s->w->io,
				   .dirfd = src,
				   .shift = s->w->shift,
				   .crc_seeded = s->w->from_seeded,
				   .vault = s->w->from };
	const char *why = NULL;
	emdb_err err;

	memcpy(env.uuid, s->w->uuid, sizeof(env.uuid));
	err = segment_open(&env, row->id, false, false, &s->src, &why);
	if (!err && atomic_load(&s->src->size) < row->len) {
		why = "shorter than the manifest says";
		err = EMDB_ERR_DAMAGED;
	}
	if (err == EMDB_ERR_DAMAGED) {
		explain_at(s->w->detail, row->id, 0, "journal/%016llx.seg: %s",
			   (unsigned long long)row->id, why);
		err = EMDB_ERR_CORRUPT;
	}
	if (err)
		return err;
	s->head = (struct seg_header){ .id = row->id, .segment_shift = s->w->shift };
	s->head.created_ns = (int64_t)io_clock_real_ns(s->w->io);
	memcpy(s->head.uuid, s->w->uuid, sizeof(s->head.uuid));
	memcpy(s->head.boot_id, s->src->boot_id, sizeof(s->head.boot_id));
	if (io_random(s->w->io, s->head.salt, sizeof(s->head.salt)))
		return EMDB_ERR_IO;
	s->crc_seed = fmt_crc_seed(s->head.salt);
	return s->w->to ? seal_key_new(s->w->to, SEAL_SEGMENT, row->id, s->head.salt, &s->key)
			: EMDB_OK;
}

/* The table of tags, then the header that knows where it is. */
static emdb_err seg_end(struct seg_job *s, uint64_t len)
{
	uint8_t head[FMT_SEG_HEADER];
	emdb_err err = EMDB_OK;
	int rc;

	if (s->tags.len) {
		s->head.tags_off = len;
		s->head.tags = (uint32_t)(s->tags.len / FMT_TAG_ROW);
		err = out_add(&s->out, s->tags.data, s->tags.len);
	}
	if (!err)
		err = out_flush(&s->out);
	if (err)
		return err;
	fmt_seg_encode(&s->head, head);
	rc = io_pwrite_full(s->w->io, s->out.fd, head, sizeof(head), 0);
	if (rc == 0)
		rc = io_fdatasync(s->w->io, s->out.fd);
	return err_of_io(rc);
}

emdb_err convert_segment(const struct convert_way *w, int src, const struct manifest_seg *row,
			 const struct manifest *gaps, int dst, const char *name)
{
	struct seg_job s = { .w = w, .out = { .io = w->io, .fd = -1 } };
	emdb_err err = seg_begin(&s, src, row);

	if (!err)
		err = err_of_io(io_openat(w->io, dst, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW,
					  0600, &s.out.fd));
	if (!err)
		err = out_zeros(&s.out, FMT_SEG_HEADER);
	if (!err)
		err = turn_frames(&s, row->len, gaps);
	if (!err)
		err = seg_end(&s, row->len);
	if (s.src)
		segment_unref(s.src);
	seal_key_free(s.key);
	(void)io_close(w->io, s.out.fd);
	buf_release(&s.view);
	buf_release(&s.frame);
	buf_release(&s.tags);
	buf_release(&s.out.buf);
	return err;
}

/* ---- Checkpoints -------------------------------------------------------------- */

struct ckpt_job {
	const struct convert_way *w;
	uint64_t number;
	struct seal_key *from, *to;
	struct out out;
	uint32_t chain;
};

static emdb_err head_key(struct vault *v, uint64_t number, const uint8_t *salt,
			 struct seal_key **ret)
{
	return *ret ? EMDB_OK : seal_key_new(v, SEAL_CHECKPOINT, number, salt, ret);
}

/* First and last say what changes with the others. */
static emdb_err block_change(struct ckpt_job *c, uint8_t *p, struct ckpt_block *b)
{
	struct wcur w = wcur_init(p + CKPT_BLOCK_HEADER, CKPT_HEAD_SIZE + CRYPTO_SALT);
	struct ckpt_head h;
	struct ckpt_end e;

	if (b->kind == CKPT_HEAD) {
		if (!fmt_ckpt_head_get(b, &h))
			return EMDB_ERR_CORRUPT;
		h.sealed = c->w->to != NULL;
		if (h.sealed && io_random(c->w->io, h.salt, sizeof(h.salt)))
			return EMDB_ERR_IO;
		fmt_ckpt_head_put(&w, &h);
		b->n = wcur_len(&w);
		return h.sealed ? head_key(c->w->to, c->number, h.salt, &c->to) : EMDB_OK;
	}
	if (b->kind == CKPT_END) {
		if (!fmt_ckpt_end_get(b, &e))
			return EMDB_ERR_CORRUPT;
		e.chain = c->chain;
		fmt_ckpt_end_put(&w, &e);
	}
	return EMDB_OK;
}

/* p has room for a salt and a tag more than the block had. */
static emdb_err block_turn(struct ckpt_job *c, uint8_t *p, uint32_t len)
{
	struct ckpt_block b;
	size_t clear;
	uint32_t n;
	emdb_err err;

	if (!fmt_ckpt_open(p, len, &b))
		return EMDB_ERR_CORRUPT;
	err = checkpoint_open_block(c->w->from, c->number, p, &b, &c->from);
	if (!err)
		err = block_change(c, p, &b);
	n = CKPT_BLOCK_HEADER + (uint32_t)b.n;
	if (!err && c->w->to && (!c->to || n + CRYPTO_TAG > CKPT_BLOCK_MAX))
		err = EMDB_ERR_CORRUPT;
	if (err)
		return err;
	clear = b.kind == CKPT_HEAD ? n : CKPT_BLOCK_HEADER;
	fmt_ckpt_header(p, n + (c->to ? CRYPTO_TAG : 0), b.kind, b.index, c->number);
	if (c->to) {
		seal(c->to, b.index, p + 4, clear - 4, p + clear, n - clear, p + clear, p + n);
		n += CRYPTO_TAG;
	}
	c->chain = fmt_ckpt_chain(c->chain, fmt_ckpt_finish(p, n));
	return out_add(&c->out, p, n);
}

static emdb_err blocks_turn(struct ckpt_job *c, uint64_t size, int fd, uint8_t *p)
{
	emdb_err err = EMDB_OK;
	uint64_t off = 0;

	while (!err && off < size) {
		size_t got = 0;
		uint32_t len;

		err = err_of_io(io_pread_full(c->w->io, fd, p, CKPT_BLOCK_HEADER, off, &got));
		len = !err && got == CKPT_BLOCK_HEADER ? fmt_ckpt_len(p) : 0;
		if (!err && !len)
			err = EMDB_ERR_CORRUPT;
		if (!err)
			err = err_of_io(io_pread_full(c->w->io, fd, p, len, off, &got));
		if (!err)
			err = got == len ? block_turn(c, p, len) : EMDB_ERR_CORRUPT;
		off += len;
	}
	return err;
}

emdb_err convert_checkpoint(const struct convert_way *w, int src, uint64_t number, int dst)
{
	struct ckpt_job c = { .w = w, .number = number, .out = { .io = w->io, .fd = -1 } };
	uint8_t *const p = base_malloc(CKPT_BLOCK_MAX + CRYPTO_SALT + CRYPTO_TAG);
	struct io_stat st = { .size = 0 };
	char name[CHECKPOINT_NAME_SIZE];
	int fd = -1, rc = p ? 0 : -ENOMEM;
	emdb_err err;

	checkpoint_name(number, name);
	if (rc == 0)
		rc = io_openat(w->io, src, name, O_RDONLY | O_NOFOLLOW, 0, &fd);
	if (rc == 0)
		rc = io_fstat(w->io, fd, &st);
	if (rc == 0)
		rc = io_openat(w->io, dst, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600,
			       &c.out.fd);
	err = err_of_io(rc);
	if (!err)
		err = blocks_turn(&c, st.size, fd, p);
	if (!err)
		err = out_flush(&c.out);
	if (!err)
		err = err_of_io(io_fdatasync(w->io, c.out.fd));
	if (err && c.out.fd != -1)
		(void)io_unlinkat(w->io, dst, name, 0);
	seal_key_free(c.from);
	seal_key_free(c.to);
	(void)io_close(w->io, fd);
	(void)io_close(w->io, c.out.fd);
	buf_release(&c.out.buf);
	base_free(p);
	return err == EMDB_ERR_NOT_FOUND ? EMDB_ERR_CORRUPT : err;
}
