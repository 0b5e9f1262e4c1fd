/* SPDX-License-Identifier: Apache-2.0 */
#include "core/segment_i.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base.h"
#include "core/guard.h"
#include "core/manifest.h"

#define SUFFIX      ".seg"
#define DEAD_SUFFIX ".dead"

/* What a small record takes without its value. */
#define PREFETCH_BYTES 192u

/* A scan checks at most this many times the segment's size, whatever hostile headers promise. */
#define SCAN_WORK_MAX 16u
/* Frames that are looked at for the seed of a segment without a header. */
#define SEED_TRIES 256u
/* The smallest there are: touching more than is needed does no harm. */
#define PAGE 4096u
/* How far a scan jumps over bytes that the disk does not deliver. */
#define SCAN_SKIP 4096u

/* ---- Names ------------------------------------------------------------ */

void segment_name(uint64_t id, char buf[static SEGMENT_NAME_SIZE])
{
	(void)snprintf(buf, SEGMENT_NAME_SIZE, "%016llx" SUFFIX, (unsigned long long)id);
}

void segment_dead_name(uint64_t id, char buf[static SEGMENT_NAME_SIZE])
{
	(void)snprintf(buf, SEGMENT_NAME_SIZE, "%016llx" DEAD_SUFFIX, (unsigned long long)id);
}

static bool name_parse(const char *name, const char *suffix, uint64_t *ret_id)
{
	uint64_t id = 0;

	for (int i = 0; i < 16; i++) {
		const char c = name[i];

		if (c >= '0' && c <= '9')
			id = id << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			id = id << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	/* A number that no segment has is no segment's name. */
	if (strcmp(name + 16, suffix) != 0 || id == 0 || id >= FMT_NEXT_SEGMENT_MAX)
		return false;
	*ret_id = id;
	return true;
}

bool segment_name_parse(const char *name, uint64_t *ret_id)
{
	return name_parse(name, SUFFIX, ret_id);
}

bool segment_is_dead_name(const char *name)
{
	uint64_t id;

	return name_parse(name, DEAD_SUFFIX, &id);
}

/* ---- Lifetime --------------------------------------------------------- */

static void segment_free(struct segment *s)
{
	if (!s)
		return;
	io_munmap(s->io, s->map, s->map_len);
	seal_key_free(s->key);
	(void)io_close(s->io, s->fd);
	emdb_io_free(s->io);
	base_free(s->seen);
	base_free(s);
}

void segment_ref(struct segment *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void segment_unref(struct segment *s)
{
	/*
	 * Release: our reads come before the free. Acquire: the free comes after all others'
	 * reads.
	 */
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
		segment_free(s);
}

uint64_t segment_id(const struct segment *s)
{
	return s->id;
}

void segment_live_add(struct segment *s, int64_t delta)
{
	atomic_fetch_add_explicit(&s->live, delta, memory_order_relaxed);
}

uint64_t segment_live(const struct segment *s)
{
	const int64_t n = atomic_load_explicit(&s->live, memory_order_relaxed);

	return n > 0 ? (uint64_t)n : 0;
}

void segment_live_set(struct segment *s, uint64_t live)
{
	atomic_store_explicit(&s->live, (int64_t)live, memory_order_relaxed);
}

void segment_tomb_add(struct segment *s, uint32_t bytes)
{
	atomic_fetch_add_explicit(&s->tombs, bytes, memory_order_relaxed);
}

static struct segment *segment_new(const struct segment_env *env, uint64_t id)
{
	struct segment *const s = base_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->io = env->io;
	s->id = id;
	s->shift = env->shift;
	s->base = id << env->shift;
	s->map_len = segment_bytes(s);
	s->room = segment_bytes(s);
	s->fd = -1;
	/* Large and zero: costs address space until frames are verified. */
	s->seen = base_calloc(segment_bytes(s) / 8 / 64, sizeof(*s->seen));
	if (!s->seen) {
		base_free(s);
		return NULL;
	}
	emdb_io_ref(s->io); /* a reference to our bytes may outlive the store */
	atomic_init(&s->size, 0);
	atomic_init(&s->len, FMT_SEG_HEADER);
	atomic_init(&s->live, 0);
	atomic_init(&s->refs, 1);
	atomic_init(&s->state, SEGMENT_ROLLED);
	return s;
}

static int create_file(const struct segment_env *env, const char *name, int *ret_fd)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
	int rc = io_openat(env->io, env->dirfd, name, flags, 0600, ret_fd);

	if (rc == -EEXIST) {
		/* The manifest does not list it: left by an open that got no further. */
		rc = io_unlinkat(env->io, env->dirfd, name, 0);
		if (rc == 0)
			rc = io_openat(env->io, env->dirfd, name, flags, 0600, ret_fd);
	}
	return rc;
}

static int take_salt(const struct segment_env *env, struct segment *s, const uint8_t salt[32])
{
	memcpy(s->salt, salt, sizeof(s->salt));
	s->crc_seed = env->crc_seeded ? fmt_crc_seed(salt) : 0;
	if (!env->vault)
		return 0;
	return seal_key_new(env->vault, SEAL_SEGMENT, s->id, salt, &s->key) ? -ENOMEM : 0;
}

/* A new header, durable. The salt is new in every life of a file: so are key and CRCs. */
static int write_header(const struct segment_env *env, struct segment *s)
{
	struct seg_header h = { .id = s->id, .segment_shift = env->shift };
	uint8_t buf[FMT_SEG_HEADER];
	int rc = io_random(env->io, h.salt, sizeof(h.salt));

	if (rc < 0)
		return rc;
	h.created_ns = (int64_t)io_clock_real_ns(env->io);
	memcpy(h.uuid, env->uuid, sizeof(h.uuid));
	memcpy(h.boot_id, env->boot_id, sizeof(h.boot_id));
	memcpy(s->boot_id, h.boot_id, sizeof(s->boot_id));
	fmt_seg_encode(&h, buf);
	rc = take_salt(env, s, h.salt);
	if (rc == 0)
		rc = io_pwrite_full(env->io, s->fd, buf, sizeof(buf), 0);
	return rc == 0 ? io_fdatasync(env->io, s->fd) : rc;
}

static int fill_new(const struct segment_env *env, struct segment *s)
{
	int rc = io_fallocate(env->io, s->fd, 0, s->room, false);

	if (rc == -EOPNOTSUPP || (rc == 0 && s->room < segment_bytes(s)))
		rc = io_ftruncate(env->io, s->fd, segment_bytes(s));
	/* Header and name must be durable before a manifest lists the segment. */
	if (rc == 0)
		rc = write_header(env, s);
	if (rc == 0)
		rc = io_fsync(env->io, env->dirfd);
	if (rc == 0)
		rc = io_mmap_ro(env->io, s->fd, s->map_len, &s->map);
	return rc;
}

static void begin_life(struct segment *s)
{
	s->own = true;
	atomic_store_explicit(&s->size, segment_bytes(s), memory_order_relaxed);
	atomic_store_explicit(&s->state, SEGMENT_SPARE, memory_order_relaxed);
}

emdb_err segment_create(const struct segment_env *env, uint64_t id, struct segment **ret)
{
	return segment_create_short(env, id, UINT64_C(1) << env->shift, ret);
}

emdb_err segment_create_short(const struct segment_env *env, uint64_t id, uint64_t room,
			      struct segment **ret)
{
	struct segment *const s = segment_new(env, id);
	char name[SEGMENT_NAME_SIZE];
	int rc;

	if (!s)
		return EMDB_ERR_NOMEM;
	s->room = room;
	segment_name(id, name);
	rc = create_file(env, name, &s->fd);
	if (rc == 0) {
		rc = fill_new(env, s);
		if (rc < 0)
			(void)io_unlinkat(env->io, env->dirfd, name, 0);
	}
	if (rc < 0) {
		segment_free(s);
		return rc == -EFBIG ? EMDB_ERR_NO_SPACE : err_of_io(rc);
	}
	begin_life(s);
	*ret = s;
	return EMDB_OK;
}

/* The file of old becomes that of s, under its name, durably. */
static int take_over(const struct segment_env *env, const struct segment *old, struct segment *s,
		     const char *dead, const char *name)
{
	struct io_stat st;
	int rc = io_fstatat(env->io, env->dirfd, dead, &st);

	if (rc == 0 && (!S_ISREG(st.mode) || st.nlink != 1 ||
			st.size != atomic_load_explicit(&old->size, memory_order_relaxed)))
		rc = -EEXIST;
	if (rc == 0)
		rc = io_openat(env->io, env->dirfd, dead, O_RDWR | O_NOFOLLOW, 0, &s->fd);
	/* What was trimmed; nothing else, unless somebody made holes. */
	if (rc == 0)
		rc = io_fallocate(env->io, s->fd, 0, segment_bytes(s), false);
	/* Before the name: no file has the name of one segment and the header of another. */
	if (rc == 0)
		rc = write_header(env, s);
	if (rc == 0)
		rc = io_renameat(env->io, env->dirfd, dead, env->dirfd, name);
	if (rc == 0) {
		rc = io_fsync(env->io, env->dirfd);
		if (rc < 0)
			(void)io_unlinkat(env->io, env->dirfd, name, 0);
	}
	if (rc < 0)
		(void)io_unlinkat(env->io, env->dirfd, dead, 0);
	return rc;
}

emdb_err segment_recycle(const struct segment_env *env, struct segment *old, uint64_t id,
			 struct segment **ret)
{
	struct segment *const s = segment_new(env, id);
	char dead[SEGMENT_NAME_SIZE], name[SEGMENT_NAME_SIZE];
	int rc;

	emdb_assert(old->own && old->map_len == segment_bytes(old) && old->id < id);
	segment_dead_name(old->id, dead);
	segment_name(id, name);
	if (!s) {
		(void)io_unlinkat(env->io, env->dirfd, dead, 0);
		return EMDB_ERR_NOMEM;
	}
	rc = take_over(env, old, s, dead, name);
	if (rc < 0) {
		segment_free(s);
		return err_of_io(rc);
	}
	s->map = old->map;
	old->map = NULL;
	begin_life(s);
	*ret = s;
	return EMDB_OK;
}

/* Checks the header and takes what is needed of it; *ret_why is set when it is not good. */
static int header_check(const struct segment_env *env, struct segment *s, const uint8_t *buf,
			size_t n, bool salvage, struct seg_header *ret_tags, const char **ret_why)
{
	struct seg_header h;

	if (!fmt_seg_decode(buf, n, &h)) {
		s->headless = true;
		if (!salvage)
			*ret_why = "the segment header does not check out";
		/* What is damaged may be something else than the salt, or the place of the tags. */
		if (n == FMT_SEG_HEADER && env->vault)
			(void)fmt_seg_tags(buf, ret_tags);
		return n == FMT_SEG_HEADER ? take_salt(env, s, buf + FMT_SEG_SALT) : 0;
	}
	if (memcmp(h.uuid, env->uuid, sizeof(h.uuid)) != 0)
		*ret_why = "the segment belongs to another store";
	else if (h.id != s->id)
		*ret_why = "the file is another segment under this name";
	else if (h.segment_shift != env->shift)
		*ret_why = "the segment size is not that of the store";
	if (*ret_why)
		return 0;
	memcpy(s->boot_id, h.boot_id, sizeof(s->boot_id));
	*ret_tags = h;
	return take_salt(env, s, h.salt);
}

/* The mapping must reach to the end of the table; NULL or what is wrong. */
static const char *find_tags(struct segment *s, struct seg_header *h, uint64_t size)
{
	const uint64_t end = h->tags_off + (uint64_t)h->tags * FMT_TAG_ROW;

	if (end > size && s->headless) { /* so that was no place of any */
		h->tags_off = 0;
		return NULL;
	}
	if (end > size)
		return "the table of tags is cut short";
	s->map_len = (size_t)max_u64(s->map_len, end);
	s->tags.count = h->tags;
	return NULL;
}

static EMDB_NOINLINE bool seed_at(const struct segment *s, uint64_t off, uint64_t end,
				  uint32_t *ret)
{
	const uint8_t *const p = s->map + off;
	struct frame a, b;

	if (fmt_frame_parse(p, end - off, s->base + off, false, 0, &a) != FRAME_OK ||
	    fmt_frame_parse(p + a.len, end - off - a.len, s->base + off + a.len, false, 0, &b) !=
		    FRAME_OK)
		return false;
	*ret = crc32c_before(get_u32(p), p + 4, a.len - 4);
	return crc32c(*ret, b.p + 4, b.len - 4) == get_u32(b.p);
}

/* Two frames in a row at off that one seed makes good. */
static bool seed_at_guarded(const struct segment *s, uint64_t off, uint64_t end, uint32_t *ret)
{
	struct guard g;
	bool found;

	if (!guard_begin(&g))
		return false;
	found = seed_at(s, off, end, ret);
	guard_end(&g);
	return found;
}

/*
 * The salt is damaged, too: what the CRCs begin with follows from any good frame, and a second one
 * proves it. Without two such frames nothing of the segment can be proved.
 */
static void find_seed(struct segment *s)
{
	const uint64_t end = min_u64(s->size, segment_bytes(s));
	enum frame_status st = FRAME_END;
	unsigned int tries = 0;
	uint64_t off = FMT_SEG_HEADER;
	struct frame f;

	if (segment_scan(s, off, end, false, &st, &f, &off) == EMDB_OK && st == FRAME_OK)
		return; /* the salt is good */
	for (off = FMT_SEG_HEADER; off + FMT_FRAME_HEADER < end && tries < SEED_TRIES; off += 8) {
		uint32_t seed = 0;

		if (segment_parse(s, off, end, false, &st, &f) != EMDB_OK) {
			off = align_down(off + SCAN_SKIP, SCAN_SKIP) - 8;
			continue;
		}
		if (st != FRAME_OK)
			continue;
		tries++;
		if (seed_at_guarded(s, off, end, &seed)) {
			s->crc_seed = seed;
			return;
		}
	}
}

emdb_err segment_open(const struct segment_env *env, uint64_t id, bool writable, bool salvage,
		      struct segment **ret, const char **ret_why)
{
	struct segment *const s = segment_new(env, id);
	struct io_stat st = { .size = 0 };
	struct seg_header h = { .tags_off = 0 };
	char name[SEGMENT_NAME_SIZE];
	uint8_t buf[FMT_SEG_HEADER];
	const char *why = NULL;
	size_t n = 0;
	int rc;

	if (!s)
		return EMDB_ERR_NOMEM;
	segment_name(id, name);
	rc = io_openat(env->io, env->dirfd, name, (writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW, 0,
		       &s->fd);
	if (rc == -ENOENT)
		why = "the segment is missing";
	if (rc == 0)
		rc = io_fstat(env->io, s->fd, &st);
	if (rc == 0)
		rc = io_pread_full(env->io, s->fd, buf, sizeof(buf), 0, &n);
	/* The frames may be readable all the same. */
	if (rc == -EIO && salvage)
		rc = 0;
	if (rc == 0)
		rc = header_check(env, s, buf, n, salvage, &h, &why);
	if (rc == 0 && !why && h.tags_off)
		why = find_tags(s, &h, st.size);
	if (rc == 0 && !why)
		rc = io_mmap_ro(env->io, s->fd, s->map_len, &s->map);
	if (rc == 0 && !why && h.tags_off)
		s->tags.table = s->map + h.tags_off;
	if (rc < 0 || why) {
		segment_free(s);
		if (!why)
			return err_of_io(rc);
		*ret_why = why;
		return EMDB_ERR_DAMAGED;
	}
	if (!writable) {
		(void)io_close(env->io, s->fd);
		s->fd = -1;
	}
	atomic_store_explicit(&s->size, st.size, memory_order_relaxed);
	if (s->headless && env->crc_seeded)
		find_seed(s);
	*ret = s;
	return EMDB_OK;
}

void segment_trim(struct segment *s)
{
	const uint64_t len = segment_len(s);

	if (s->fd == -1)
		return;
	/* Tags behind the frames are no room that was set aside. */
	if (!s->tags.table && atomic_load_explicit(&s->size, memory_order_relaxed) > len &&
	    io_ftruncate(s->io, s->fd, len) == 0)
		atomic_store_explicit(&s->size, len, memory_order_relaxed);
	(void)io_close(s->io, s->fd);
	s->fd = -1;
}

/* ---- Frames ----------------------------------------------------------- */

emdb_err segment_parse(const struct segment *s, uint64_t off, uint64_t end, bool check_crc,
		       enum frame_status *ret_st, struct frame *ret)
{
	struct guard g;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	*ret_st = fmt_frame_parse(s->map + off, end - off, s->base + off, check_crc, s->crc_seed,
				  ret);
	guard_end(&g);
	return EMDB_OK;
}

/* As segment_scan(), unguarded; *at follows the scan so that a fault can be placed. */
static EMDB_NOINLINE enum frame_status scan(const struct segment *s, uint64_t end, bool whole,
					    struct frame *ret, volatile uint64_t *at)
{
	uint64_t work = segment_bytes(s) * SCAN_WORK_MAX;
	uint64_t off = *at;

	while (off + FMT_FRAME_HEADER <= end) {
		const uint8_t *const p = s->map + off;
		uint32_t len;

		*at = off;
		if (likely(get_u64(p + 8) != s->base + off)) {
			off += 8;
			continue;
		}
		len = (get_u32(p + 4) & 0xffffffu) * 8u;
		if (len <= end - off && len <= work) {
			const enum frame_status st = fmt_frame_parse(p, end - off, s->base + off,
								     true, s->crc_seed, ret);

			if (st == FRAME_OK)
				return FRAME_OK;
			work -= len;
			if (whole && st == FRAME_BAD_CRC) {
				off += len;
				continue;
			}
		}
		off += 8;
	}
	return FRAME_END;
}

emdb_err segment_scan(const struct segment *s, uint64_t off, uint64_t end, bool whole,
		      enum frame_status *ret_st, struct frame *ret, uint64_t *ret_off)
{
	volatile uint64_t at = off;
	struct guard g;

	*ret_off = end;
	if (!guard_begin(&g)) {
		*ret_off = align_down(at + SCAN_SKIP, SCAN_SKIP);
		return EMDB_ERR_IO;
	}
	*ret_st = scan(s, end, whole, ret, &at);
	guard_end(&g);
	if (*ret_st == FRAME_OK)
		*ret_off = at;
	return EMDB_OK;
}

static uint64_t last_byte(const struct segment *s, uint64_t off, volatile uint64_t *at)
{
	for (uint64_t end = *at; end > off; end--) {
		*at = end;
		/* Words while they are whole and aligned. */
		while (end % 8 == 0 && end >= off + 8 && get_u64(s->map + end - 8) == 0) {
			end -= 8;
			*at = end;
		}
		if (end == off || s->map[end - 1])
			return end;
	}
	return off;
}

/*
 * The end of the last frame of ours that begins in off..end-1, good or not; off: there is none.
 * *ret_stale: there are frames of an earlier segment, whose file this one took over.
 */
static uint64_t last_own(const struct segment *s, uint64_t off, uint64_t end, bool *ret_stale)
{
	const uint64_t mask = segment_bytes(s) - 1;
	uint64_t own = off;

	*ret_stale = false;
	for (uint64_t at = align_up(off, 8); at + FMT_FRAME_HEADER <= end; at += 8) {
		const uint64_t lsn = get_u64(s->map + at + 8), id = lsn >> s->shift;
		struct frame f;

		/* A frame knows its place, in whichever segment. */
		if (likely((lsn ^ at) & mask) || id == 0 || id > s->id ||
		    fmt_frame_parse(s->map + at, segment_bytes(s) - at, lsn, false, 0, &f) !=
			    FRAME_OK)
			continue;
		if (id < s->id)
			*ret_stale = true;
		else
			own = max_u64(own, min_u64(at + f.len, end));
	}
	return own;
}

static EMDB_NOINLINE uint64_t written(const struct segment *s, uint64_t off, volatile uint64_t *at)
{
	bool stale;
	const uint64_t own = last_own(s, off, *at, &stale);

	return stale ? own : last_byte(s, off, at);
}

uint64_t segment_written(const struct segment *s, uint64_t off, uint64_t end)
{
	volatile uint64_t at = end;
	struct guard g;
	uint64_t n;

	if (!guard_begin(&g))
		return at;
	n = written(s, off, &at);
	guard_end(&g);
	return n;
}

static inline bool seen(const struct segment *s, uint64_t off)
{
	const uint64_t bit = off / 8;

	/* Relaxed: who finds the frame sees its bytes; the bit only saves work. */
	return atomic_load_explicit(&s->seen[bit / 64], memory_order_relaxed) >> (bit % 64) & 1;
}

static inline void prefetch_seen(const struct segment *s, uint64_t off)
{
	__builtin_prefetch(&s->seen[off / 8 / 64]);
}

static void see(struct segment *s, uint64_t off)
{
	const uint64_t bit = off / 8;

	atomic_fetch_or_explicit(&s->seen[bit / 64], UINT64_C(1) << (bit % 64),
				 memory_order_relaxed);
}

static inline bool must_check(const struct segment *s, uint64_t off, enum emdb_verify verify)
{
	return verify == EMDB_VERIFY_FIRST ? !seen(s, off) : verify == EMDB_VERIFY_ALWAYS;
}

/* The frame at off, verified as the policy says. */
static inline bool frame_at(struct segment *s, uint64_t off, uint64_t end, enum emdb_verify verify,
			    struct frame *ret)
{
	const bool check = must_check(s, off, verify);

	if (fmt_frame_parse(s->map + off, end - off, s->base + off, check, s->crc_seed, ret) !=
	    FRAME_OK)
		return false;
	if (check)
		see(s, off);
	return true;
}

/* The batch frame that the record at off lies in, `back` bytes before it. */
static bool batch_at(struct segment *s, uint64_t off, uint32_t back, uint64_t end,
		     enum emdb_verify verify, struct frame *ret)
{
	if (back < FMT_BATCH_HEADER || back > off - FMT_SEG_HEADER)
		return false;
	if (!frame_at(s, off - back, end, verify, ret) || ret->kind != FRAME_BATCH ||
	    ret->len < back + FMT_BATCH_PREFIX)
		return false;
	if (verify == EMDB_VERIFY_FIRST)
		see(s, off);
	return true;
}

static EMDB_NOINLINE void touch_pages(const uint8_t *p, const uint8_t *end)
{
	for (p = (const uint8_t *)((uintptr_t)p | (PAGE - 1)) + 1; p < end; p += PAGE)
		(void)*(const volatile uint8_t *)p;
}

/*
 * Readers look at key, attributes and extents without a guard, also long after the frame was verified: all of their
 * pages must be there now. Only of large records there are more than the one that was just decoded.
 */
static inline void touch_fields(const uint8_t *p, const struct rec *r)
{
	const uint8_t *end = p;

	if (r->mask & REC_F_KEY)
		end = r->key + r->key_len;
	if (unlikely(r->mask & REC_F_XATTRS))
		end = r->xattrs + r->xattrs_len;
	if (unlikely(r->mask & REC_F_EXTENTS))
		end = r->extents + r->extents_len;
	if (unlikely(((uintptr_t)p ^ (uintptr_t)end) >= PAGE))
		touch_pages(p, end);
}

static inline bool rec_at(struct segment *s, uint64_t off, uint64_t end, enum emdb_verify verify,
			  struct rec *ret)
{
	struct frame f;

	if (!frame_at(s, off, end, verify, &f) || f.kind >= FRAME_BATCH || !fmt_frame_rec(&f, ret))
		return false;
	touch_fields(f.p, ret);
	return true;
}

static bool batch_rec_at(struct segment *s, uint64_t off, uint64_t end, enum emdb_verify verify,
			 struct rec *ret)
{
	struct frame f;
	uint32_t back;

	if (!fmt_batch_rec_at(s->map + off, end - off, ret, &back))
		return false;
	touch_fields(s->map + off, ret);
	/* A record that was verified with its frame needs no look at the frame again. */
	return !must_check(s, off, verify) || batch_at(s, off, back, end, verify, &f);
}

static inline bool off_ok(uint64_t off, uint64_t end)
{
	return off >= FMT_SEG_HEADER && off < end;
}

void segment_prefetch(const struct segment *s, uint64_t off)
{
	const uint8_t *const p = s->map + off;

	if (off + PREFETCH_BYTES > segment_len(s))
		return;
	for (size_t i = 0; i < PREFETCH_BYTES; i += 64)
		__builtin_prefetch(p + i);
	prefetch_seen(s, off);
}

emdb_err segment_rec(struct segment *s, uint64_t ref, enum emdb_verify verify, struct rec *ret)
{
	const uint64_t end = segment_len(s);
	const uint64_t off = ref_lsn(ref) & (segment_bytes(s) - 1);
	struct guard g;
	bool ok;

	if (unlikely(!off_ok(off, end)))
		return EMDB_ERR_CORRUPT;
	prefetch_seen(s, off);
	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	ok = unlikely(ref & REF_BATCH) ? batch_rec_at(s, off, end, verify, ret)
				       : rec_at(s, off, end, verify, ret);
	guard_end(&g);
	return ok ? EMDB_OK : EMDB_ERR_CORRUPT;
}

emdb_err segment_frame_of(struct segment *s, uint64_t ref, enum emdb_verify verify,
			  struct frame *ret)
{
	const uint64_t end = segment_len(s);
	const uint64_t off = ref_lsn(ref) & (segment_bytes(s) - 1);
	struct guard g;
	struct rec rec;
	uint32_t back;
	bool ok;

	if (!off_ok(off, end))
		return EMDB_ERR_CORRUPT;
	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	if (ref & REF_BATCH)
		ok = fmt_batch_rec_at(s->map + off, end - off, &rec, &back) &&
		     batch_at(s, off, back, end, verify, ret);
	else
		ok = frame_at(s, off, end, verify, ret);
	guard_end(&g);
	return ok ? EMDB_OK : EMDB_ERR_CORRUPT;
}

uint32_t segment_size_of(const struct segment *s, uint64_t ref)
{
	const uint64_t off = ref_lsn(ref) & (segment_bytes(s) - 1);
	struct guard g;
	uint32_t word;

	if (!off_ok(off, segment_len(s)) || !guard_begin(&g))
		return 0;
	word = get_u32(s->map + off + (ref & REF_BATCH ? 0 : 4));
	guard_end(&g);
	return (word & 0xffffffu) * 8u;
}
