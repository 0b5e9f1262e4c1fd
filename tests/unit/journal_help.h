/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of segments, manifest and journal share: a journal over the memory or POSIX
 * backend behind a fault wrapper, a boot id to be chosen, ends like those of a killed process, and
 * records whose content follows from their number.
 */
#ifndef EMDB_TEST_JOURNAL_HELP_H
#define EMDB_TEST_JOURNAL_HELP_H

#include "core/journal_i.h"
#include "tests/unit/test.h"

#define SHIFT 20u

/* ThreadSanitizer takes twenty times as long: exhaustive loops take every so manieth step. */
#if defined(__SANITIZE_THREAD__)
#define STRIDE 23u
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STRIDE 23u
#endif
#endif
#ifndef STRIDE
#define STRIDE 1u
#endif
#define BOOT1 "11111111-1111-1111-1111-111111111111"
#define BOOT2 "22222222-2222-2222-2222-222222222222"

struct world {
	struct emdb_io *inner, *fault;
	struct emdb_io io; /* the fault wrapper with another host */
	struct emdb_io_ops ops;
	struct epoch ep;
	struct journal_config cfg;
	struct emdb_detail detail;
	struct journal *j;
	int dirfd;
	/* What world_before() fails; all atomic, the journal's threads look at them. */
	_Atomic(bool) dead;     /* every change */
	_Atomic(bool) no_room;  /* every fallocate, -ENOSPC */
	_Atomic(uint64_t) most; /* the same, of more bytes than these; 0: none */
	_Atomic(uint64_t) mask, nth, calls, hits;
	_Atomic(bool) sticky;
	_Atomic(int) err;
};

static inline int world_before(void *arg, const struct io_event *ev)
{
	struct world *const w = arg;
	uint64_t n;

	if (w->dead && ((IO_MASK_CHANGE & IO_MASK(ev->op)) || (ev->flags & O_CREAT)))
		return -EIO;
	if (ev->op == IO_OP_FALLOCATE && (w->no_room || (w->most && ev->len > w->most)))
		return -ENOSPC;
	if (!(w->mask & IO_MASK(ev->op)))
		return 0;
	n = atomic_fetch_add(&w->calls, 1) + 1;
	if (w->nth == 0 || (w->sticky ? n < w->nth : n != w->nth))
		return 0;
	atomic_fetch_add(&w->hits, 1);
	return w->err;
}

/* Call number nth of those in mask fails with err, and with sticky all later ones; 0: none. */
static inline void world_fault(struct world *w, uint64_t mask, uint64_t nth, bool sticky, int err)
{
	w->mask = 0;
	w->calls = w->hits = 0;
	w->nth = nth;
	w->sticky = sticky;
	w->err = err;
	w->mask = mask;
}

/* What world_host() answers; empty: no boot id. */
static const char *world_boot = BOOT1;

static inline int world_host(struct emdb_io *io, struct io_host *ret)
{
	(void)io;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->boot_id, world_boot, strlen(world_boot));
	return 0;
}

/* dir: NULL for the memory backend. */
static inline void world_init(struct world *w, const char *dir)
{
	struct io_fault plan = { .before = world_before, .hook_arg = w };

	memset(w, 0, sizeof(*w));
	world_boot = BOOT1;
	w->inner = dir ? emdb_io_posix_new() : emdb_io_mem_new();
	CHECK(w->inner);
	w->fault = emdb_io_fault_new(w->inner);
	CHECK(w->fault);
	emdb_io_fault_set(w->fault, &plan);
	w->ops = *w->fault->ops;
	w->ops.host = world_host;
	w->io.ops = &w->ops;
	w->io.ctx = w->fault->ctx;
	if (!dir) {
		CHECK_OK(io_mkdirat(&w->io, AT_FDCWD, "store", 0700));
		dir = "store";
	}
	CHECK_OK(io_openat(&w->io, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0, &w->dirfd));
	CHECK_OK(epoch_init(&w->ep));
	w->cfg = (struct journal_config){ .io = &w->io,
					  .epoch = &w->ep,
					  .dirfd = w->dirfd,
					  .segment_shift = SHIFT,
					  .create = true,
					  .detail = &w->detail };
	memset(w->cfg.uuid, 7, sizeof(w->cfg.uuid));
}

static inline void world_release(struct world *w)
{
	epoch_release(&w->ep);
	(void)io_close(&w->io, w->dirfd);
	emdb_io_free(w->fault);
	emdb_io_free(w->inner);
}

/* ---- Records ---------------------------------------------------------- */

static inline uint8_t value_byte(uint64_t n, size_t i)
{
	return (uint8_t)(n * 31 + i * 7 + 1);
}

/* Record number n with a value of len bytes; buf has room for len + 300. */
static inline size_t rec_make(uint64_t n, size_t len, uint8_t *buf)
{
	char key[24];
	const int key_len = snprintf(key, sizeof(key), "k%" PRIu64, n);
	const struct rec r = { .kind = REC_PUT,
			       .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_VALUE,
			       .ns = 1,
			       .key = (const uint8_t *)key,
			       .key_len = (size_t)key_len,
			       .value_len = len };
	const size_t head = fmt_rec_encode(&r, buf, fmt_rec_head_max(&r));

	for (size_t i = 0; i < len; i++)
		buf[head + i] = value_byte(n, i);
	return head + len;
}

static inline emdb_err put_flags(struct journal *j, uint64_t n, size_t len, unsigned int flags,
				 uint64_t *ret_lsn)
{
	uint8_t *const buf = malloc(len + 300);
	const size_t size = rec_make(n, len, buf);
	const size_t half = size / 2;
	/* In pieces, so that putting them together is tested. */
	const struct iovec iov[3] = { { buf, half }, { buf, 0 }, { buf + half, size - half } };
	const emdb_err err = journal_append(j, REC_PUT, iov, 3, flags, ret_lsn);

	free(buf);
	return err;
}

static inline uint64_t put(struct journal *j, uint64_t n, size_t len)
{
	uint64_t lsn = 0;

	CHECK_EQ(put_flags(j, n, len, 0, &lsn), EMDB_OK);
	return lsn;
}

/* The number of a record, which must be as rec_make() made it. */
static inline uint64_t rec_number(const struct rec *r)
{
	char key[24] = "";
	uint64_t n;

	CHECK(r->kind == REC_PUT && r->key_len > 1 && r->key_len < sizeof(key));
	memcpy(key, r->key, r->key_len);
	n = strtoull(key + 1, NULL, 10);
	for (size_t i = 0; i < r->value_len; i++)
		CHECK_UEQ(r->value[i], value_byte(n, i));
	return n;
}

static inline uint64_t get(struct journal *j, struct epoch *ep, uint64_t ref)
{
	const unsigned pin = epoch_pin(ep);
	struct segment *seg = NULL;
	struct rec r;
	uint64_t n;

	CHECK_EQ(journal_rec_pinned(j, ref, &r, &seg), EMDB_OK);
	CHECK(seg && segment_id(seg) == ref >> SHIFT);
	n = rec_number(&r);
	epoch_unpin(ep, pin);
	return n;
}

/* ---- Replay ----------------------------------------------------------- */

struct seen {
	uint64_t *n, *lsn;
	size_t count, cap;
};

static inline emdb_err seen_frame(void *ctx, struct segment *seg, const struct frame *f)
{
	struct seen *const s = ctx;
	struct rec r;

	CHECK_UEQ(segment_id(seg), f->lsn >> SHIFT);
	CHECK(s->count == 0 || f->lsn > s->lsn[s->count - 1]);
	if (s->count == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 64;
		s->n = realloc(s->n, s->cap * sizeof(*s->n));
		s->lsn = realloc(s->lsn, s->cap * sizeof(*s->lsn));
	}
	CHECK(f->kind == REC_PUT && fmt_frame_rec(f, &r));
	s->n[s->count] = rec_number(&r);
	s->lsn[s->count++] = f->lsn;
	return EMDB_OK;
}

static inline void seen_release(struct seen *s)
{
	free(s->n);
	free(s->lsn);
	memset(s, 0, sizeof(*s));
}

/* Opens and replays; on failure nothing stays open. */
static inline emdb_err world_replay(struct world *w, struct seen *s, struct journal_end *end)
{
	emdb_err err;

	s->count = 0;
	memset(&w->detail, 0, sizeof(w->detail));
	w->j = NULL;
	err = journal_open(&w->cfg, &w->j);
	if (!err)
		err = journal_replay(w->j, 0, seen_frame, s, end);
	if (err) {
		CHECK_EQ(journal_close(w->j), EMDB_OK);
		w->j = NULL;
	}
	return err;
}

/* Opens and starts what must be good; the number of frames. */
static inline size_t world_open(struct world *w)
{
	struct seen s = { .count = 0 };
	struct journal_end end;
	size_t n;

	CHECK_EQ(world_replay(w, &s, &end), EMDB_OK);
	n = s.count;
	seen_release(&s);
	CHECK_EQ(journal_start(w->j), EMDB_OK);
	w->cfg.create = false;
	return n;
}

/* The same up to where writing would begin. */
static inline emdb_err world_try(struct world *w)
{
	struct seen s = { .count = 0 };
	struct journal_end end;
	const emdb_err err = world_replay(w, &s, &end);

	seen_release(&s);
	return err;
}

static inline void world_close(struct world *w)
{
	CHECK_EQ(journal_close(w->j), EMDB_OK);
	w->j = NULL;
}

/* Ends the journal as SIGKILL would: nothing is changed on disk any more. */
static inline void world_kill(struct world *w)
{
	w->dead = true;
	(void)!journal_close(w->j);
	w->j = NULL;
	w->dead = false;
}

/* ---- Files ------------------------------------------------------------ */

static inline int seg_fd(struct world *w, uint64_t id)
{
	char name[64], seg[SEGMENT_NAME_SIZE];
	int fd = -1;

	segment_name(id, seg);
	snprintf(name, sizeof(name), JOURNAL_DIR "/%s", seg);
	CHECK_OK(io_openat(w->inner, w->dirfd, name, O_RDWR, 0, &fd));
	return fd;
}

static inline void seg_write(struct world *w, uint64_t lsn, const void *p, size_t n)
{
	const int fd = seg_fd(w, lsn >> SHIFT);

	CHECK_OK(io_pwrite_full(w->inner, fd, p, n, lsn & ((1u << SHIFT) - 1)));
	(void)io_close(w->inner, fd);
}

static inline void seg_read(struct world *w, uint64_t lsn, void *p, size_t n)
{
	const int fd = seg_fd(w, lsn >> SHIFT);
	size_t got = 0;

	CHECK_OK(io_pread_full(w->inner, fd, p, n, lsn & ((1u << SHIFT) - 1), &got));
	CHECK_UEQ(got, n);
	(void)io_close(w->inner, fd);
}

/* CRC over the names, lengths and bytes of manifest and segments. */
static inline int digest_one(void *arg, const char *name)
{
	struct world *const w = ((void **)arg)[0];
	uint32_t *const crc = ((void **)arg)[1];
	struct buf b = BUF_INIT;
	char path[300];

	snprintf(path, sizeof(path), JOURNAL_DIR "/%s", name);
	CHECK_OK(io_read_file(w->inner, w->dirfd, path, 1u << 30, &b));
	/* Names come in any order. */
	*crc += crc32c(crc32c(0, name, strlen(name)), b.data, b.len) + (uint32_t)b.len;
	buf_release(&b);
	return 0;
}

static inline uint32_t world_digest(struct world *w)
{
	struct buf b = BUF_INIT;
	uint32_t crc = 0;
	int fd;

	CHECK_OK(io_read_file(w->inner, w->dirfd, MANIFEST_NAME, 1u << 30, &b));
	crc = crc32c(0, b.data, b.len);
	buf_release(&b);
	CHECK_OK(io_openat(w->inner, w->dirfd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY, 0, &fd));
	CHECK_OK(io_list(w->inner, fd, digest_one, (void *[]){ w, &crc }));
	(void)io_close(w->inner, fd);
	return crc;
}

static inline int count_one(void *arg, const char *name)
{
	(void)name;
	++*(size_t *)arg;
	return 0;
}

static inline size_t world_files(struct world *w)
{
	size_t n = 0;
	int fd;

	CHECK_OK(io_openat(w->inner, w->dirfd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY, 0, &fd));
	CHECK_OK(io_list(w->inner, fd, count_one, &n));
	(void)io_close(w->inner, fd);
	return n;
}

static inline void seg_cut(struct world *w, uint64_t id, uint64_t size)
{
	const int fd = seg_fd(w, id);

	CHECK_OK(io_ftruncate(w->inner, fd, size));
	(void)io_close(w->inner, fd);
}

static inline void seg_flip(struct world *w, uint64_t lsn)
{
	uint8_t b;

	seg_read(w, lsn, &b, 1);
	b ^= 0x10;
	seg_write(w, lsn, &b, 1);
}

static inline void seg_zero(struct world *w, uint64_t lsn, size_t n)
{
	uint8_t *const zeros = calloc(1, n);

	seg_write(w, lsn, zeros, n);
	free(zeros);
}

#endif
