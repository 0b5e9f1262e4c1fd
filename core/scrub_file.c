/* SPDX-License-Identifier: Apache-2.0 */
/* One file of a store, verified as it lies on the disk. */
#include "core/checkpoint.h"
#include "core/keyslot.h"
#include "core/scrub_i.h"
#include "core/sealed.h"

/* A search checks at most this many times the segment's size, whatever hostile headers promise. */
#define SEARCH_WORK_MAX 16u
#define SEARCH_PIECE    65536u

static const char cannot_read[] = "the disk could not read it";

static void tell(struct scrub_file *f, uint64_t off, uint64_t len, const char *why)
{
	f->bad(f->ctx, off, len, window_is_bad(f->w, off, max_u64(len, 1)) ? cannot_read : why);
}

/* ---- A segment ---------------------------------------------------------------------- */

struct seg_job {
	struct scrub_file *f;
	const struct scrub_segment *s;
	uint64_t base, work;
	uint32_t crc_seed;
	struct seal_key *key;
	struct sealed_tags tags;
	struct buf table;
};

static const char *header_wrong(const struct seg_job *j, const uint8_t *p, size_t n,
				struct seg_header *h)
{
	if (!p || !fmt_seg_decode(p, n, h))
		return "the segment header does not check out";
	if (memcmp(h->uuid, j->f->uuid, sizeof(h->uuid)) != 0)
		return "the segment belongs to another store";
	if (h->id != j->s->id)
		return "the file is another segment under this name";
	return h->segment_shift == j->s->shift ? NULL : "the segment size is not that of the store";
}

/* The tags behind the frames of a segment that was encrypted later. */
static emdb_err read_tags(struct seg_job *j, const struct seg_header *h)
{
	const uint64_t end = h->tags_off + (uint64_t)h->tags * FMT_TAG_ROW;
	emdb_err err = EMDB_OK;

	window_rewind(j->f->w, end);
	for (uint64_t off = h->tags_off; !err && off < end;) {
		uint8_t *p;
		size_t n;

		err = window_get(j->f->w, off, (size_t)min_u64(end - off, SEARCH_PIECE), &p, &n);
		if (!err && n == 0) {
			tell(j->f, off, end - off, "the table of tags is cut short");
			break;
		}
		if (!err && buf_append(&j->table, p, n))
			err = EMDB_ERR_NOMEM;
		off += n;
	}
	j->tags = (struct sealed_tags){ j->table.data, (uint32_t)(j->table.len / FMT_TAG_ROW) };
	return err;
}

/* *ret_known: what frames are verified with is known. */
static emdb_err begin_segment(struct seg_job *j, bool *ret_known)
{
	struct scrub_file *const f = j->f;
	struct seg_header h = { .tags_off = 0 };
	const uint8_t *salt = j->s->salt;
	const char *why;
	uint8_t *p;
	size_t n;
	emdb_err err;

	window_rewind(f->w, j->s->len);
	err = window_get(f->w, 0, FMT_SEG_HEADER, &p, &n);
	if (err)
		return err;
	why = header_wrong(j, p, n, &h);
	if (why)
		tell(f, 0, FMT_SEG_HEADER, why);
	else
		salt = h.salt;
	*ret_known = salt != NULL;
	if (!salt)
		return EMDB_OK;
	j->crc_seed = j->s->seeded ? fmt_crc_seed(salt) : 0;
	/* Without its header nobody knows where a segment has its tags. */
	if (f->vault && !why)
		err = seal_key_new(f->vault, SEAL_SEGMENT, j->s->id, salt, &j->key);
	if (!err && h.tags_off && j->key)
		err = read_tags(j, &h);
	window_rewind(f->w, j->s->len);
	return err;
}

/* The frame at off. A status, or what the machine fails with. */
static emdb_err look(struct seg_job *j, uint64_t off, enum frame_status *ret_st, struct frame *ret)
{
	const uint64_t left = j->s->len - off, lsn = j->base + off;
	struct scrub_file *const f = j->f;
	uint8_t *p;
	size_t n;
	emdb_err err = window_get(f->w, off, FMT_FRAME_HEADER, &p, &n);

	*ret_st = FRAME_TRUNC_HEADER;
	if (err || n < FMT_FRAME_HEADER)
		return err;
	*ret_st = fmt_frame_parse(p, left, lsn, false, 0, ret);
	if (*ret_st != FRAME_OK)
		return EMDB_OK;
	err = window_get(f->w, off, ret->len, &p, &n);
	if (err)
		return err;
	*ret_st = fmt_frame_parse(p, n, lsn, true, j->crc_seed, ret);
	if (*ret_st != FRAME_OK || !j->key)
		return EMDB_OK;
	buf_reset(&f->plain);
	if (buf_reserve(&f->plain, ret->len))
		return EMDB_ERR_NOMEM;
	if (!sealed_view(j->key, &j->tags, ret, f->plain.data))
		*ret_st = FRAME_FORGED;
	return EMDB_OK;
}

/* Can a good frame begin at off, of which n bytes are at p? */
static bool is_candidate(struct seg_job *j, const uint8_t *p, uint64_t off)
{
	const uint64_t len = (get_u32(p + 4) & 0xffffffu) * UINT64_C(8);

	if (likely(get_u64(p + 8) != j->base + off) || len > j->s->len - off || len > j->work)
		return false;
	j->work -= len;
	return true;
}

/* The first good frame at or behind off; the segment's end when there is none. */
static emdb_err search(struct seg_job *j, uint64_t off, uint64_t *ret)
{
	enum frame_status st = FRAME_END;
	struct frame f;

	while (off + FMT_FRAME_HEADER <= j->s->len) {
		uint8_t *p;
		size_t n, i = 0;
		emdb_err err = window_get(j->f->w, off,
					  (size_t)min_u64(SEARCH_PIECE, j->s->len - off), &p, &n);

		if (err)
			return err;
		if (n < FMT_FRAME_HEADER)
			break;
		while (i + FMT_FRAME_HEADER <= n && !is_candidate(j, p + i, off + i))
			i += 8;
		off += i;
		if (i + FMT_FRAME_HEADER > n)
			continue;
		err = look(j, off, &st, &f);
		if (err)
			return err;
		if (st == FRAME_OK)
			break;
		off += 8;
	}
	*ret = st == FRAME_OK ? off : j->s->len;
	return EMDB_OK;
}

static const char *stop_text(enum frame_status st)
{
	return st == FRAME_END ? "zeros where durable frames were" : fmt_frame_status_text(st);
}

static emdb_err walk(struct seg_job *j)
{
	uint64_t off = FMT_SEG_HEADER;
	emdb_err err = EMDB_OK;

	while (!err && off < j->s->len) {
		const uint64_t gap = manifest_gap_at(j->s->gaps, j->base + off);
		enum frame_status st;
		struct frame frame;
		uint64_t next;

		if (gap && gap <= j->s->len - off) {
			off += gap;
			continue;
		}
		err = look(j, off, &st, &frame);
		if (err)
			break;
		if (st == FRAME_OK) {
			j->f->frames++;
			off += frame.len;
			continue;
		}
		err = search(j, off + 8, &next);
		if (!err)
			tell(j->f, off, next - off, stop_text(st));
		off = next;
	}
	return err;
}

emdb_err scrub_segment(struct scrub_file *f, const struct scrub_segment *s)
{
	struct seg_job j = { .f = f,
			     .s = s,
			     .base = s->id << s->shift,
			     .work = SEARCH_WORK_MAX << s->shift,
			     .table = BUF_INIT };
	bool known = false;
	emdb_err err = begin_segment(&j, &known);

	if (!err && known)
		err = walk(&j);
	else if (!err)
		tell(f, FMT_SEG_HEADER, s->len - FMT_SEG_HEADER,
		     "without the header nothing else can be verified");
	seal_key_free(j.key);
	buf_release(&j.table);
	return err;
}

/* ---- A checkpoint --------------------------------------------------------------------- */

struct ckpt_job {
	struct scrub_file *f;
	uint64_t number, lsn;
	uint32_t index, chain;
	enum ckpt_kind kind;
	struct seal_key *key;
	bool ended;
};

/* A block of len bytes at p; CORRUPT: something is wrong with it. */
static emdb_err verify_block(struct ckpt_job *c, uint8_t *p, uint32_t len)
{
	struct ckpt_block b;
	struct ckpt_head h;
	struct ckpt_end e;
	emdb_err err;

	if (!fmt_ckpt_open(p, len, &b) || b.number != c->number || b.index != c->index ||
	    c->ended || b.kind < c->kind || (b.index == 0) != (b.kind == CKPT_HEAD))
		return EMDB_ERR_CORRUPT;
	err = checkpoint_open_block(c->f->vault, c->number, p, &b, &c->key);
	if (err)
		return err;
	if (b.kind == CKPT_HEAD && (!fmt_ckpt_head_get(&b, &h) || h.lsn != c->lsn ||
				    memcmp(h.uuid, c->f->uuid, sizeof(h.uuid)) != 0))
		return EMDB_ERR_CORRUPT;
	if (b.kind == CKPT_END &&
	    (!fmt_ckpt_end_get(&b, &e) || e.blocks != c->index + 1 || e.chain != c->chain))
		return EMDB_ERR_CORRUPT;
	c->ended = b.kind == CKPT_END;
	c->kind = b.kind;
	c->chain = fmt_ckpt_chain(c->chain, b.crc);
	c->index++;
	return EMDB_OK;
}

emdb_err scrub_checkpoint(struct scrub_file *f, uint64_t number, uint64_t lsn)
{
	struct ckpt_job c = { .f = f, .number = number, .lsn = lsn };
	emdb_err err = EMDB_OK;
	uint64_t off = 0;
	uint32_t len = 0;

	while (!err) {
		uint8_t *p;
		size_t n;

		err = window_get(f->w, off, CKPT_BLOCK_HEADER, &p, &n);
		if (err || n == 0)
			break;
		len = n == CKPT_BLOCK_HEADER ? fmt_ckpt_len(p) : 0;
		if (len)
			err = window_get(f->w, off, len, &p, &n);
		if (!err)
			err = len && n == len ? verify_block(&c, p, len) : EMDB_ERR_CORRUPT;
		off += err ? 0 : len;
	}
	seal_key_free(c.key);
	if (err && err != EMDB_ERR_CORRUPT)
		return err;
	if (err || !c.ended)
		tell(f, off, err ? max_u64(len, 1) : 0,
		     err ? "a block of the checkpoint does not check out"
			 : "the checkpoint is cut short");
	return EMDB_OK;
}

/* ---- Superblock and manifest --------------------------------------------------------------- */

emdb_err scrub_super(struct scrub_file *f, struct superblock *ret, bool *ret_good)
{
	const char *why = NULL;
	uint8_t *p;
	size_t n;
	emdb_err err = window_get(f->w, 0, FMT_SUPER_SIZE + 1, &p, &n);

	if (err)
		return err;
	err = p ? fmt_super_decode(p, n, ret) : EMDB_ERR_NOT_STORE;
	if (err)
		why = "the superblock does not check out";
	else if (memcmp(ret->uuid, f->uuid, sizeof(ret->uuid)) != 0)
		why = "the superblock belongs to another store";
	else if (f->vault && !keyslot_same(ret, f->vault))
		why = "the superblock does not authenticate";
	if (why)
		tell(f, 0, n, why);
	*ret_good = !why;
	return EMDB_OK;
}

emdb_err scrub_manifest(struct scrub_file *f, struct manifest *ret, bool *ret_good)
{
	struct manifest m = MANIFEST_INIT;
	struct io_stat st = { .size = 0 };
	const char *why = NULL;
	uint8_t *p;
	size_t n;
	emdb_err err = err_of_io(io_fstat(f->w->io, f->w->fd, &st));

	if (!err)
		err = window_get(f->w, 0, (size_t)min_u64(st.size, FMT_MANIFEST_MAX) + 1, &p, &n);
	if (err)
		return err;
	err = p ? manifest_decode(p, n, &m) : EMDB_ERR_CORRUPT;
	if (!err && memcmp(m.head.uuid, f->uuid, sizeof(m.head.uuid)) != 0)
		why = "the manifest belongs to another store";
	if (!err && f->vault)
		err = manifest_mac_check(&m, f->vault);
	if (err == EMDB_ERR_NOMEM)
		goto out;
	if (err)
		why = "the manifest does not check out";
	err = EMDB_OK;
	if (why)
		tell(f, 0, n, why);
	*ret_good = !why;
	if (!why && ret) {
		manifest_release(ret);
		*ret = m;
		return EMDB_OK;
	}
out:
	manifest_release(&m);
	return err;
}
