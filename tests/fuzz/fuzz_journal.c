/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery. The input builds a manifest and up to three segments out of good frames, torn frames,
 * zeros and junk; then the journal is opened, replayed, started, written to, closed and opened
 * again. Whatever is found, it either says damage or goes on, and then what was handed over the
 * first time is handed over the second time, and nothing else. With salvage it is a repair, as in
 * the store: nobody writes to what is damaged otherwise.
 */
#include <stdio.h>

#include "core/journal_i.h"

#define SHIFT    20u
#define SEG_SIZE (1u << SHIFT)
#define SEGS     3
#define FILL_MAX (64u * 1024u) /* bytes of frames in a segment: what follows is zero anyway */

struct image {
	uint8_t *bytes;
	size_t len, size;
};

struct replayed {
	uint64_t count, sum;
};

static const char boot[] = "11111111-1111-1111-1111-111111111111";

static int fuzz_host(struct emdb_io *io, struct io_host *ret)
{
	(void)io;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->boot_id, boot, sizeof(boot));
	return 0;
}

static void put_header(struct image *im, uint64_t id, bool same_boot)
{
	struct seg_header h = { .id = id, .segment_shift = SHIFT };

	memset(h.boot_id, same_boot ? 0x11 : 0x22, sizeof(h.boot_id));
	memset(h.uuid, 7, sizeof(h.uuid));
	fmt_seg_encode(&h, im->bytes);
	im->len = FMT_SEG_HEADER;
	im->size = SEG_SIZE;
}

/* A frame of what the input says; only its beginning when torn. */
static void put_frame(struct image *im, uint64_t id, uint8_t kind, struct cur *c, bool torn)
{
	const size_t n = cur_u8(c) % 64;
	const uint32_t back = cur_u16(c);
	const uint8_t *const data = cur_bytes(c, n);
	const uint32_t len = (uint32_t)align_up(FMT_FRAME_HEADER + n, 8);
	const uint64_t lsn = (id << SHIFT) + im->len;
	uint8_t *const p = im->bytes + im->len;

	if (!data)
		return;
	fmt_frame_header(p, kind, len, lsn, lsn - (uint64_t)back * 8);
	memcpy(p + FMT_FRAME_HEADER, data, n);
	fmt_frame_finish(p, len, 0);
	if (torn)
		memset(p + len / 2, 0, len - len / 2);
	im->len += len;
}

static void build(struct image im[SEGS], struct cur *c, bool same_boot)
{
	unsigned int i = 0;

	for (unsigned int k = 0; k < SEGS; k++)
		put_header(&im[k], k + 1, same_boot);
	while (cur_left(c) && im[i].len < FILL_MAX) {
		const uint8_t op = cur_u8(c);
		size_t n;
		const uint8_t *raw;

		switch (op % 8) {
		default:
			put_frame(&im[i], i + 1, (uint8_t)(1 + op / 8 % REC_KIND_MAX), c, false);
			break;
		case 3:
			put_frame(&im[i], i + 1, REC_PUT, c, true);
			break;
		case 4:
			im[i].len += (size_t)cur_u8(c) * 8;
			break;
		case 5:
			n = cur_u8(c) & ~7u;
			raw = cur_bytes(c, n);
			if (raw)
				memcpy(im[i].bytes + im[i].len, raw, n);
			im[i].len += raw ? n : 0;
			break;
		case 6:
			put_frame(&im[i], i + 1, FRAME_SEAL, c, false);
			i += i + 1 < SEGS;
			break;
		case 7:
			if (op & 128)
				im[i].size = im[i].len + (op >> 4 & 7);
			i += i + 1 < SEGS;
		}
	}
}

static void write_store(struct emdb_io *io, int dirfd, struct image im[SEGS], struct cur *c)
{
	struct manifest m = MANIFEST_INIT;
	const uint8_t flags = cur_u8(c);

	emdb_assert(io_mkdirat(io, dirfd, JOURNAL_DIR, 0700) == 0);
	memset(m.head.uuid, 7, sizeof(m.head.uuid));
	m.head.next_segment = SEGS + 1;
	m.head.durable_lsn = (UINT64_C(1) << SHIFT) + (uint64_t)cur_u16(c) * 8;
	for (unsigned int i = 0; i < SEGS; i++) {
		const bool sealed = flags >> i & 1;
		char path[64], name[SEGMENT_NAME_SIZE];
		int fd;

		if (flags >> (i + 3) & 1)
			continue;
		emdb_assert(!manifest_add(&m, i + 1, sealed ? im[i].len : 0, sealed));
		segment_name(i + 1, name);
		(void)snprintf(path, sizeof(path), JOURNAL_DIR "/%s", name);
		emdb_assert(io_openat(io, dirfd, path, O_RDWR | O_CREAT, 0600, &fd) == 0);
		emdb_assert(io_pwrite_full(io, fd, im[i].bytes, im[i].len, 0) == 0);
		emdb_assert(io_ftruncate(io, fd, im[i].size) == 0);
		(void)io_close(io, fd);
	}
	if (flags >> 7)
		emdb_assert(!manifest_gap_add(
			&m, (UINT64_C(1) << SHIFT) + FMT_SEG_HEADER + cur_u8(c) * 8u,
			8 + cur_u8(c) * 8u));
	emdb_assert(!manifest_store(&m, io, dirfd, NULL));
	manifest_release(&m);
}

static emdb_err on_frame(void *ctx, struct segment *seg, const struct frame *f)
{
	struct replayed *const r = ctx;
	struct rec rec;

	(void)fmt_frame_rec(f, &rec);
	emdb_assert(segment_id(seg) == f->lsn >> SHIFT);
	r->count++;
	r->sum += f->lsn * 31 + crc32c(0, f->p, f->len);
	return EMDB_OK;
}

static emdb_err open_replay(const struct journal_config *cfg, struct journal **ret,
			    struct replayed *r)
{
	struct journal_end end;
	struct journal *j = NULL;
	emdb_err err = journal_open(cfg, &j);

	memset(r, 0, sizeof(*r));
	if (!err)
		err = journal_replay(j, 0, on_frame, r, &end);
	if (err) {
		emdb_assert(err == EMDB_ERR_DAMAGED && !cfg->salvage);
		emdb_assert(journal_close(j) == EMDB_OK);
		return err;
	}
	*ret = j;
	return EMDB_OK;
}

static void check(const struct journal_config *first, struct epoch *ep)
{
	struct journal_config cfg = *first;
	struct emdb_detail detail = { .text = "" };
	struct replayed a, b;
	struct journal *j;
	uint64_t lsn;

	if (open_replay(&cfg, &j, &a))
		return;
	emdb_assert(journal_start(j) == EMDB_OK);
	emdb_assert(journal_append(j, REC_PUT, &(struct iovec){ (char[]){ 1 }, 1 }, 1, 0, &lsn) ==
		    EMDB_OK);
	emdb_assert(!cfg.repair || journal_repaired(j) == EMDB_OK);
	emdb_assert(journal_close(j) == EMDB_OK);
	epoch_drain(ep);
	cfg.salvage = cfg.repair = false;
	cfg.detail = &detail;
	if (open_replay(&cfg, &j, &b)) {
		(void)fprintf(stderr, "opened once, then: %s\n", detail.text);
		abort();
	}
	emdb_assert(b.count == a.count + 1);
	emdb_assert(journal_close(j) == EMDB_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct cur c = cur_init(data, n), m;
	const uint8_t flags = cur_u8(&c);
	struct emdb_io *const mem = emdb_io_mem_new();
	struct emdb_io_ops ops;
	struct emdb_io io = { .ops = &ops };
	struct image im[SEGS];
	struct epoch ep;
	int dirfd;

	emdb_assert(mem && epoch_init(&ep) == 0);
	ops = *mem->ops;
	ops.host = fuzz_host;
	io.ctx = mem->ctx;
	emdb_assert(io_mkdirat(mem, AT_FDCWD, "s", 0700) == 0);
	emdb_assert(io_openat(mem, AT_FDCWD, "s", O_RDONLY | O_DIRECTORY, 0, &dirfd) == 0);
	for (unsigned int i = 0; i < SEGS; i++) {
		im[i].bytes = calloc(1, FILL_MAX + 8192);
		emdb_assert(im[i].bytes);
	}
	m = c;
	(void)cur_bytes(&c, 5);
	build(im, &c, flags & 1);
	write_store(mem, dirfd, im, &m);
	check(&(struct journal_config){ .io = &io,
					.epoch = &ep,
					.dirfd = dirfd,
					.segment_shift = SHIFT,
					.uuid = { 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7 },
					.salvage = flags & 2,
					.repair = flags & 2 },
	      &ep);
	for (unsigned int i = 0; i < SEGS; i++)
		free(im[i].bytes);
	(void)io_close(mem, dirfd);
	epoch_release(&ep);
	emdb_io_free(mem);
	return 0;
}
