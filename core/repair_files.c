/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a damaged store but for its superblock: finding out, keeping, replacing. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "core/checkpoint.h"
#include "core/repair_i.h"
#include "core/storedir.h"

#define PIECE 65536u
#define PAGE  4096u
/* Segment numbers left out after the highest that is known, when the manifest that knew is gone. */
#define NUMBERS_SKIPPED 64u
/* What is found without a manifest and has a higher one is not ours: there would be no room to go on. */
#define FOUND_ID_MAX (FMT_NEXT_SEGMENT_MAX / 2)
#define TMP_NAME     "repair.tmp"

bool repair_has_id(const struct buf *ids, uint64_t id)
{
	for (size_t at = 0; at < ids->len; at += sizeof(id))
		if (memcmp(ids->data + at, &id, sizeof(id)) == 0)
			return true;
	return false;
}

/* ---- Segments as files -------------------------------------------------------- */

struct segment_env repair_env(const struct repair *r, int dirfd)
{
	struct segment_env env = { .io = r->io,
				   .dirfd = dirfd,
				   .shift = r->sb.segment_shift,
				   .crc_seeded = r->sb.incompat & FMT_INCOMPAT_SEEDED };

	memcpy(env.uuid, r->sb.uuid, sizeof(env.uuid));
	return env;
}

emdb_err repair_head(struct emdb_io *io, int dirfd, uint64_t id, struct seg_header *ret)
{
	char name[SEGMENT_NAME_SIZE];
	uint8_t b[FMT_SEG_HEADER];
	size_t n = 0;
	int fd, rc;

	segment_name(id, name);
	rc = io_openat(io, dirfd, name, O_RDONLY | O_NOFOLLOW, 0, &fd);
	if (rc)
		return err_of_io(rc);
	rc = io_pread_full(io, fd, b, sizeof(b), 0, &n);
	(void)io_close(io, fd);
	if (rc)
		return err_of_io(rc);
	return fmt_seg_decode(b, n, ret) && ret->id == id ? EMDB_OK : EMDB_ERR_CORRUPT;
}

struct listing {
	struct buf ids; /* u64 */
	bool nomem;
};

static int list_one(void *arg, const char *name)
{
	struct listing *const l = arg;
	uint64_t id;

	if (segment_name_parse(name, &id) && buf_append(&l->ids, &id, sizeof(id)))
		l->nomem = true;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return x < y ? -1 : x > y;
}

emdb_err repair_segments(struct repair *r, struct buf *ret)
{
	struct listing l = { .ids = BUF_INIT };
	int rc = 0;

	if (r->journal != -1)
		rc = io_list(r->io, r->journal, list_one, &l);
	if (rc || l.nomem) {
		buf_release(&l.ids);
		return rc ? err_of_io(rc) : EMDB_ERR_NOMEM;
	}
	if (l.ids.len)
		qsort(l.ids.data, l.ids.len / sizeof(uint64_t), sizeof(uint64_t), by_id);
	*ret = l.ids;
	return EMDB_OK;
}

uint64_t repair_id_at(const struct buf *ids, size_t i)
{
	uint64_t id;

	memcpy(&id, ids->data + i * sizeof(id), sizeof(id));
	return id;
}

/* ---- The manifest ------------------------------------------------------------------ */

/*
 * End of what is in a segment file, whether there is a frame in it at all, and whether it has the
 * size of one that is open: sealed ones are trimmed.
 */
static emdb_err measure(struct repair *r, uint64_t id, uint64_t *ret_len, bool *ret_frames,
			bool *ret_whole)
{
	const struct segment_env env = repair_env(r, r->journal);
	struct segment *s = NULL;
	const char *why = NULL;
	uint64_t off = FMT_SEG_HEADER, end, last = FMT_SEG_HEADER;
	bool sealed = false;
	emdb_err err;

	err = segment_open(&env, id, false, true, &s, &why);
	if (err)
		return err;
	end = min_u64(atomic_load(&s->size), segment_bytes(s));
	*ret_whole = end == segment_bytes(s);
	*ret_frames = false;
	while (off < end && !sealed) {
		enum frame_status st = FRAME_END;
		struct frame f;

		if (segment_scan(s, off, end, false, &st, &f, &off) != EMDB_OK)
			continue;
		if (st != FRAME_OK)
			break;
		*ret_frames = true;
		off += f.len;
		last = off;
		sealed = f.kind == FRAME_SEAL;
	}
	if (!sealed && last < end)
		last = max_u64(last, min_u64(align_up(segment_written(s, last, end), 8),
					     align_down(end, 8)));
	*ret_len = last;
	segment_unref(s);
	return EMDB_OK;
}

struct images {
	struct repair *r;
	uint64_t number[2], lsn[2]; /* the two newest */
};

static bool image_head(struct repair *r, const char *name, uint64_t *ret_number, uint64_t *ret_lsn)
{
	uint8_t b[CKPT_BLOCK_HEADER + 64];
	struct ckpt_block block;
	struct ckpt_head h;
	bool ok = false;
	size_t n = 0;
	int fd;

	if (io_openat(r->io, r->dir, name, O_RDONLY | O_NOFOLLOW, 0, &fd))
		return false;
	if (io_pread_full(r->io, fd, b, sizeof(b), 0, &n) == 0 && n >= CKPT_BLOCK_HEADER) {
		const uint32_t len = fmt_ckpt_len(b);

		ok = len && len <= n && fmt_ckpt_open(b, len, &block) && block.kind == CKPT_HEAD &&
		     fmt_ckpt_head_get(&block, &h) &&
		     memcmp(h.uuid, r->sb.uuid, sizeof(h.uuid)) == 0 &&
		     h.lsn >> r->sb.segment_shift <= FOUND_ID_MAX;
	}
	(void)io_close(r->io, fd);
	if (ok) {
		*ret_number = block.number;
		*ret_lsn = h.lsn;
	}
	return ok;
}

static int image_one(void *arg, const char *name)
{
	struct images *const im = arg;
	char want[CHECKPOINT_NAME_SIZE];
	uint64_t number, lsn;

	if (strncmp(name, "checkpoint-", 11) != 0 || !image_head(im->r, name, &number, &lsn))
		return 0;
	checkpoint_name(number, want);
	if (strcmp(name, want) != 0 || number <= im->number[1])
		return 0;
	im->number[1] = number;
	im->lsn[1] = lsn;
	if (number > im->number[0]) {
		im->number[1] = im->number[0];
		im->lsn[1] = im->lsn[0];
		im->number[0] = number;
		im->lsn[0] = lsn;
	}
	return 0;
}

/* Checkpoints by what is there; they say how far the journal went, too. */
static emdb_err manifest_images(struct repair *r)
{
	struct images im = { .r = r };
	struct manifest_head *const h = &r->m.head;
	const int rc = io_list(r->io, r->dir, image_one, &im);

	if (rc < 0)
		return err_of_io(rc);
	h->next_segment =
		max_u64(h->next_segment, (im.lsn[0] >> r->sb.segment_shift) + 1) + NUMBERS_SKIPPED;
	if (r->super_rebuilt)
		return EMDB_OK;
	h->ckpt = im.number[0];
	h->ckpt_lsn = im.lsn[0];
	h->ckpt_prev = im.number[1];
	h->ckpt_prev_lsn = im.lsn[1];
	return EMDB_OK;
}

/*
 * All segments that are there, each sealed where its last byte is. The last with frames, and what
 * comes behind, were open: what ends them is for recovery to judge.
 */
static emdb_err manifest_from_segments(struct repair *r)
{
	struct buf ids = BUF_INIT;
	emdb_err err = repair_segments(r, &ids);
	size_t open_from = 0;

	memcpy(r->m.head.uuid, r->sb.uuid, sizeof(r->sb.uuid));
	r->m.head.next_segment = 1;
	for (size_t i = 0; !err && i < ids.len / sizeof(uint64_t); i++) {
		const uint64_t id = repair_id_at(&ids, i);
		uint64_t len = 0;
		bool frames = false, whole = false;

		if (id == 0 || id > FOUND_ID_MAX)
			continue;
		r->m.head.next_segment = id + 1;
		err = measure(r, id, &len, &frames, &whole);
		if (err == EMDB_ERR_NOMEM || err == EMDB_ERR_TOO_MANY_FILES)
			break;
		if (err) {
			repair_tell(r, EMDB_DAMAGE_FILE,
				    "journal/%016" PRIx64
				    ".seg: left out, it is no segment of this store",
				    id);
			err = EMDB_OK;
			continue;
		}
		err = manifest_add(&r->m, id, len, MANIFEST_SEALED);
		if (frames)
			open_from = r->m.head.nsegs - (whole ? 1 : 0);
	}
	buf_release(&ids);
	if (!err)
		err = manifest_images(r);
	for (size_t i = open_from; !err && i < r->m.head.nsegs; i++) {
		/* Before a checkpoint everything is sealed. */
		if ((r->m.segs[i].id + 1) << r->sb.segment_shift <= r->m.head.ckpt_lsn)
			continue;
		r->m.segs[i].len = 0;
		r->m.segs[i].flags = 0;
	}
	return err;
}

emdb_err repair_find_manifest(struct repair *r)
{
	emdb_err err = manifest_load(r->io, r->dir, &r->m);

	if (!err && memcmp(r->m.head.uuid, r->sb.uuid, sizeof(r->sb.uuid)) != 0)
		err = EMDB_ERR_CORRUPT;
	/* Changed by somebody without the key: segments could have been left out of it. */
	if (!err)
		err = manifest_mac_check(&r->m, r->vault);
	/* A seed of our own: no image knows its hashes. */
	if (!err && r->super_rebuilt)
		r->m.head.ckpt = r->m.head.ckpt_prev = 0;
	if (!err || err == EMDB_ERR_NOMEM || err == EMDB_ERR_PERM)
		return err;
	r->manifest_bad = true;
	repair_tell(r, EMDB_DAMAGE_FILE, MANIFEST_NAME ": %s",
		    err == EMDB_ERR_NOT_FOUND ? "the file is missing" : emdb_strerror(err));
	manifest_release(&r->m);
	r->m = (struct manifest)MANIFEST_INIT;
	return manifest_from_segments(r);
}

emdb_err repair_find_heads(struct repair *r)
{
	for (uint32_t i = 0; i < r->m.head.nsegs; i++) {
		const uint64_t id = r->m.segs[i].id;
		struct seg_header h;
		const emdb_err err = repair_head(r->io, r->journal, id, &h);

		if (err != EMDB_ERR_CORRUPT && err != EMDB_ERR_IO)
			continue;
		if (buf_append(&r->heads, &id, sizeof(id)) ||
		    (!repair_has_id(&r->bad, id) && buf_append(&r->bad, &id, sizeof(id))))
			return EMDB_ERR_NOMEM;
	}
	return EMDB_OK;
}

/* ---- Copying ------------------------------------------------------------------------- */

/* n bytes at off, in pages where it does not go in one: zeros for what cannot be read. */
static int read_around(struct emdb_io *io, int fd, uint8_t *buf, size_t n, uint64_t off)
{
	size_t got = 0;
	int rc = io_pread_full(io, fd, buf, n, off, &got);

	if (rc != -EIO)
		return rc;
	memset(buf, 0, n);
	for (size_t at = 0; at < n; at += PAGE) {
		rc = io_pread_full(io, fd, buf + at, min_size(PAGE, n - at), off + at, &got);
		if (rc && rc != -EIO)
			return rc;
	}
	return 0;
}

/* A copy of from/name as to/as, durable but for its name; head: other first bytes, or NULL. */
static emdb_err copy_file(struct emdb_io *io, int from, const char *name, int to, const char *as,
			  const uint8_t *head)
{
	struct io_stat st = { .size = 0 };
	int src = -1, dst = -1, rc;
	uint8_t *buf = base_malloc(PIECE);

	if (!buf)
		return EMDB_ERR_NOMEM;
	rc = io_unlinkat(io, to, as, 0);
	if (rc == 0 || rc == -ENOENT)
		rc = io_openat(io, from, name, O_RDONLY | O_NOFOLLOW, 0, &src);
	if (rc == 0)
		rc = io_openat(io, to, as, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, &dst);
	if (rc == 0)
		rc = io_fstat(io, src, &st);
	for (uint64_t off = 0; rc == 0 && off < st.size; off += PIECE) {
		const size_t n = (size_t)min_u64(PIECE, st.size - off);

		rc = read_around(io, src, buf, n, off);
		if (rc == 0)
			rc = io_pwrite_full(io, dst, buf, n, off);
	}
	if (rc == 0 && head)
		rc = io_pwrite_full(io, dst, head, FMT_SEG_HEADER, 0);
	if (rc == 0)
		rc = io_fdatasync(io, dst);
	(void)io_close(io, src);
	(void)io_close(io, dst);
	base_free(buf);
	return err_of_io(rc);
}

struct copying {
	struct repair *r;
	int from, to;
	emdb_err err;
};

static int copy_one(void *arg, const char *name)
{
	struct copying *const c = arg;
	struct io_stat st;
	uint64_t id;

	if (io_fstatat(c->r->io, c->from, name, &st) || !S_ISREG(st.mode))
		return 0;
	if (c->from == c->r->journal
		    ? !segment_name_parse(name, &id)
		    : strcmp(name, STOREDIR_SUPER) != 0 && strcmp(name, STOREDIR_SUPER_BAK) != 0 &&
			      strcmp(name, MANIFEST_NAME) != 0 &&
			      strncmp(name, "checkpoint-", 11) != 0)
		return 0;
	c->err = copy_file(c->r->io, c->from, name, c->to, name, NULL);
	return c->err ? 1 : 0;
}

/* ---- The place of a copy ---- */

/* As long as it is there, what else is there is a copy that did not come to its end. */
#define UNFINISHED "repair-unfinished"

struct place {
	struct repair *r;
	int fd;
	bool clear; /* remove the others */
	unsigned int marks, others;
	emdb_err err;
};

/* io_list callback. */
static int place_one(void *arg, const char *name)
{
	struct place *const p = arg;
	int rc = 0;

	if (strcmp(name, UNFINISHED) == 0) {
		p->marks++;
		return 0;
	}
	p->others++;
	if (p->clear)
		rc = io_unlinkat(p->r->io, p->fd, name, 0);
	if (rc == -EISDIR || rc == -EPERM) {
		p->err = storedir_remove(p->r->io, p->fd, name);
		rc = p->err ? -EIO : 0;
	}
	return rc;
}

emdb_err repair_place_begin(struct repair *r, int to)
{
	struct place p = { .r = r, .fd = to };
	int fd, rc = io_list(r->io, to, place_one, &p);
	emdb_err err;

	if (rc)
		return err_of_io(rc);
	if (p.others && !p.marks)
		return EMDB_ERR_EXISTS;
	p.clear = true;
	rc = p.others ? io_list(r->io, to, place_one, &p) : 0;
	if (rc)
		return p.err ? p.err : err_of_io(rc);
	err = storedir_outside(r->io, to);
	if (err || p.marks)
		return err;
	rc = io_openat(r->io, to, UNFINISHED, O_RDWR | O_CREAT, 0600, &fd);
	if (rc == 0)
		rc = io_close(r->io, fd);
	return err_of_io(rc ? rc : io_fsync(r->io, to));
}

emdb_err repair_place_end(struct repair *r, int to)
{
	const int rc = io_unlinkat(r->io, to, UNFINISHED, 0);

	return err_of_io(rc ? rc : io_fsync(r->io, to));
}

emdb_err repair_copy_store(struct repair *r, int to)
{
	struct copying c = { .r = r, .from = r->dir, .to = to };
	int rc = io_mkdirat(r->io, to, STOREDIR_JOURNAL, 0700);

	if (rc == 0)
		rc = io_list(r->io, r->dir, copy_one, &c);
	if (rc == 0 && r->journal != -1) {
		c.from = r->journal;
		c.err = storedir_open(r->io, to, STOREDIR_JOURNAL, &c.to);
		if (!c.err) {
			rc = io_list(r->io, r->journal, copy_one, &c);
			if (rc == 0)
				rc = io_fsync(r->io, c.to);
			(void)io_close(r->io, c.to);
		}
	}
	if (rc == 0)
		rc = io_fsync(r->io, to);
	return c.err ? c.err : err_of_io(rc);
}

/* ---- Keeping ---------------------------------------------------------------------------- */

struct keeping {
	struct repair *r;
	int to;
	uint64_t last;
	emdb_err err;
};

static int number_one(void *arg, const char *name)
{
	struct keeping *const k = arg;
	uint64_t n = 0;

	for (const char *p = name; *p >= '0' && *p <= '9' && n < 1000000; p++)
		n = n * 10 + (uint64_t)(*p - '0');
	k->last = max_u64(k->last, n);
	return 0;
}

/* Nobody writes to it any more: a link is as good as a copy. */
static emdb_err keep_file(struct keeping *k, int from, const char *name, bool may_link)
{
	struct emdb_io *const io = k->r->io;
	struct io_stat st;

	if (io_fstatat(io, from, name, &st))
		return EMDB_OK;
	if (may_link && io_linkat(io, from, name, k->to, name) == 0)
		return EMDB_OK;
	return copy_file(io, from, name, k->to, name, NULL);
}

static int keep_image(void *arg, const char *name)
{
	struct keeping *const k = arg;

	if (strncmp(name, "checkpoint-", 11) == 0)
		k->err = keep_file(k, k->r->dir, name, true);
	return k->err ? 1 : 0;
}

static emdb_err keep_all(struct keeping *k)
{
	struct repair *const r = k->r;
	emdb_err err = keep_file(k, r->dir, STOREDIR_SUPER, true);
	int rc;

	if (!err)
		err = keep_file(k, r->dir, MANIFEST_NAME, true);
	rc = err ? 0 : io_list(r->io, r->dir, keep_image, k);
	if (rc < 0)
		err = err_of_io(rc);
	if (!err)
		err = k->err;
	for (size_t i = 0; !err && i < r->bad.len / sizeof(uint64_t); i++) {
		const uint64_t id = repair_id_at(&r->bad, i);
		const struct manifest_seg *const row = manifest_find(&r->m, id);
		char name[SEGMENT_NAME_SIZE];

		segment_name(id, name);
		/* Opening cuts what was open. */
		if (r->journal != -1)
			err = keep_file(k, r->journal, name, row && row->flags & MANIFEST_SEALED);
	}
	return err ? err : err_of_io(io_fsync(r->io, k->to));
}

emdb_err repair_keep(struct repair *r)
{
	struct keeping k = { .r = r, .to = -1 };
	char tmp[40], name[32];
	int lost = -1, rc;
	emdb_err err;

	rc = io_mkdirat(r->io, r->dir, REPAIR_LOST, 0700);
	if (rc && rc != -EEXIST)
		return err_of_io(rc);
	err = storedir_open(r->io, r->dir, REPAIR_LOST, &lost);
	if (err)
		return err;
	rc = io_list(r->io, lost, number_one, &k);
	(void)snprintf(name, sizeof(name), "%" PRIu64, k.last + 1);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	if (rc == 0)
		err = storedir_remove(r->io, lost, tmp);
	if (rc == 0 && !err)
		rc = io_mkdirat(r->io, lost, tmp, 0700);
	if (rc == 0 && !err)
		err = storedir_open(r->io, lost, tmp, &k.to);
	if (rc == 0 && !err)
		err = keep_all(&k);
	if (rc == 0 && !err)
		rc = io_renameat(r->io, lost, tmp, lost, name);
	if (rc == 0 && !err)
		rc = io_fsync(r->io, lost);
	if (rc == 0 && !err)
		rc = io_fsync(r->io, r->dir);
	(void)io_close(r->io, k.to);
	(void)io_close(r->io, lost);
	if (rc || err)
		return err ? err : err_of_io(rc);
	(void)snprintf(r->report.kept, sizeof(r->report.kept), REPAIR_LOST "/%s", name);
	return EMDB_OK;
}

/* ---- Replacing ---------------------------------------------------------------------------- */

/* A copy that has a good header takes the place of the file, atomically. */
static emdb_err new_head(struct repair *r, uint64_t id)
{
	struct seg_header h = { .id = id, .segment_shift = r->sb.segment_shift };
	struct segment_env env = repair_env(r, r->journal);
	struct segment *s = NULL;
	uint8_t b[FMT_SEG_HEADER];
	char name[SEGMENT_NAME_SIZE];
	const char *why = NULL;
	emdb_err err;
	int rc;

	env.vault = r->vault;
	err = segment_open(&env, id, false, true, &s, &why);
	if (err == EMDB_ERR_DAMAGED)
		return EMDB_OK; /* nothing to be done: it will be listed no more */
	if (err)
		return err;
	memcpy(h.uuid, r->sb.uuid, sizeof(h.uuid));
	h.created_ns = r->sb.created_ns;
	/* The salt itself is gone for good when it is damaged; the CRCs only want one like it. */
	memcpy(h.salt, s->salt, sizeof(h.salt));
	if (env.crc_seeded && fmt_crc_seed(h.salt) != s->crc_seed)
		crc32c_forge(s->crc_seed, h.salt, sizeof(h.salt));
	if (s->tags.table) {
		h.tags_off = (uint64_t)(s->tags.table - s->map);
		h.tags = s->tags.count;
	}
	segment_unref(s);
	fmt_seg_encode(&h, b);
	segment_name(id, name);
	err = copy_file(r->io, r->journal, name, r->journal, TMP_NAME, b);
	if (err)
		return err;
	rc = io_renameat(r->io, r->journal, TMP_NAME, r->journal, name);
	return err_of_io(rc ? rc : io_fsync(r->io, r->journal));
}

emdb_err repair_put_back(struct repair *r)
{
	emdb_err err = EMDB_OK;
	int rc = 0;

	if (r->super_bad)
		err = storedir_super_write(r->io, r->dir, &r->sb);
	if (!err && r->journal == -1) {
		rc = io_mkdirat(r->io, r->dir, STOREDIR_JOURNAL, 0700);
		if (rc == 0)
			rc = io_fsync(r->io, r->dir);
		err = rc ? err_of_io(rc)
			 : storedir_open(r->io, r->dir, STOREDIR_JOURNAL, &r->journal);
	}
	for (size_t i = 0; !err && i < r->heads.len / sizeof(uint64_t); i++)
		err = new_head(r, repair_id_at(&r->heads, i));
	return err;
}

/* ---- From a backup ---------------------------------------------------------------------------- */

/* Every frame of the segment in dirfd, up to len, is good. */
static bool is_good(struct repair *r, int dirfd, uint64_t id, uint64_t len)
{
	struct segment_env env = repair_env(r, dirfd);
	struct segment *s = NULL;
	const char *why = NULL;
	uint64_t off = FMT_SEG_HEADER;
	emdb_err err;

	err = segment_open(&env, id, false, false, &s, &why);
	if (!err && atomic_load(&s->size) < len)
		err = EMDB_ERR_DAMAGED;
	while (!err && off < len) {
		const uint64_t gap = manifest_gap_at(&r->m, s->base + off);
		enum frame_status st = FRAME_END;
		struct frame f;

		if (gap) {
			off += gap;
			continue;
		}
		err = segment_parse(s, off, len, true, &st, &f);
		if (!err && st != FRAME_OK)
			err = EMDB_ERR_CORRUPT;
		off += err ? 0 : f.len;
	}
	if (s)
		segment_unref(s);
	return !err && off == len;
}

/* Is it the same segment of the same history? Ours may be missing, or without a header. */
static bool is_same_segment(struct repair *r, uint64_t id)
{
	struct seg_header a, b;

	if (repair_head(r->io, r->backup_journal, id, &b) ||
	    memcmp(b.uuid, r->sb.uuid, sizeof(b.uuid)) != 0)
		return false;
	if (r->journal == -1 || repair_head(r->io, r->journal, id, &a))
		return true;
	return memcmp(&a.salt, &b.salt, sizeof(a.salt)) == 0;
}

emdb_err repair_from_backup(struct repair *r)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < r->bad.len / sizeof(uint64_t); i++) {
		const uint64_t id = repair_id_at(&r->bad, i);
		const struct manifest_seg *const row = manifest_find(&r->m, id);
		char name[SEGMENT_NAME_SIZE];
		int rc;

		if (!row || !(row->flags & MANIFEST_SEALED) || !is_same_segment(r, id) ||
		    !is_good(r, r->backup_journal, id, row->len))
			continue;
		r->report.restored_segments++;
		if (r->o->flags & EMDB_REPAIR_DRY_RUN)
			continue;
		segment_name(id, name);
		err = copy_file(r->io, r->backup_journal, name, r->journal, TMP_NAME, NULL);
		if (err)
			break;
		rc = io_renameat(r->io, r->journal, TMP_NAME, r->journal, name);
		err = err_of_io(rc ? rc : io_fsync(r->io, r->journal));
	}
	return err;
}
