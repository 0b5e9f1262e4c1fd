/* SPDX-License-Identifier: Apache-2.0 */
/* Reading for emdb_scrub(): not faster than allowed, and from the disk. */
#include "core/scrub_i.h"

/* While waiting, progress is asked so often. */
#define ASK_NS UINT64_C(50000000)
/* What a full bucket holds, as time. */
#define BURST_NS UINT64_C(100000000)

/* ---- Rate --------------------------------------------------------------------------- */

void pace_begin(struct pace *p)
{
	p->due_ns = io_clock_mono_ns(p->io);
	atomic_store(p->shown_done, 0);
	atomic_store(p->shown_total, p->total);
}

static bool goes_on(const struct pace *p)
{
	return !p->progress || p->progress(p->progress_ctx, p->done, p->total);
}

static void wait_until(uint64_t ns)
{
	struct mutex m;
	struct cond c;

	mutex_init(&m, LOCK_LEAF);
	cond_init(&c);
	mutex_lock(&m);
	while (cond_wait_until(&c, &m, ns))
		;
	mutex_unlock(&m);
	cond_destroy(&c);
	mutex_destroy(&m);
}

emdb_err pace_paid(struct pace *p, uint64_t n)
{
	uint64_t now = io_clock_mono_ns(p->io);

	p->done += n;
	p->total = max_u64(p->total, p->done);
	atomic_store_explicit(p->shown_done, p->done, memory_order_relaxed);
	atomic_store_explicit(p->shown_total, p->total, memory_order_relaxed);
	if (!goes_on(p))
		return EMDB_ERR_CANCELLED;
	if (!p->rate)
		return EMDB_OK;
	if (p->due_ns + BURST_NS < now)
		p->due_ns = now - BURST_NS;
	p->due_ns += (uint64_t)((double)n * 1e9 / (double)p->rate);
	while (now < p->due_ns) {
		wait_until(min_u64(now + ASK_NS, p->due_ns));
		if (!goes_on(p))
			return EMDB_ERR_CANCELLED;
		now = io_clock_mono_ns(p->io);
	}
	return EMDB_OK;
}

void pace_skip(struct pace *p, uint64_t n)
{
	p->total = max_u64(p->total - min_u64(p->total, n), p->done);
	atomic_store_explicit(p->shown_total, p->total, memory_order_relaxed);
}

/* ---- The window ------------------------------------------------------------------------ */

static int open_as(struct window *w, int flags)
{
	(void)io_close(w->io, w->fd);
	w->fd = -1;
	return io_openat(w->io, w->dirfd, w->name, O_RDONLY | O_NOFOLLOW | flags, 0, &w->fd);
}

emdb_err window_open(struct window *w, int dirfd, const char *name)
{
	int ret;

	w->dirfd = dirfd;
	w->name = name;
	w->direct = true;
	ret = open_as(w, O_DIRECT);
	if (ret == -EINVAL || ret == -EOPNOTSUPP) {
		w->direct = false;
		ret = open_as(w, 0);
	}
	window_rewind(w, UINT64_MAX);
	return err_of_io(ret);
}

void window_rewind(struct window *w, uint64_t limit)
{
	w->off = w->len = 0;
	w->bad = w->bad_to = 0;
	w->end = false;
	w->limit = limit;
}

void window_close(struct window *w)
{
	(void)io_close(w->io, w->fd);
	w->fd = -1;
}

void window_release(struct window *w)
{
	window_close(w);
	buf_release(&w->mem);
}

/* Room for n bytes; those that are there stay. */
static emdb_err make_room(struct window *w, size_t n)
{
	struct buf mem = BUF_INIT;
	uint8_t *p;

	if (n <= w->cap)
		return EMDB_OK;
	n = align_up(n, WINDOW_CHUNK);
	if (buf_reserve(&mem, n + WINDOW_ALIGN))
		return EMDB_ERR_NOMEM;
	p = mem.data + (WINDOW_ALIGN - (uintptr_t)mem.data % WINDOW_ALIGN) % WINDOW_ALIGN;
	if (w->len)
		memcpy(p, w->p, w->len);
	buf_release(&w->mem);
	w->mem = mem;
	w->p = p;
	w->cap = n;
	return EMDB_OK;
}

/* n bytes at the end of the window; *ret says how many there were. */
static int read_some(struct window *w, size_t at, size_t n, size_t *ret)
{
	int err = io_pread_full(w->io, w->fd, w->p + at, n, w->off + at, ret);

	if (err == -EINVAL && w->direct) {
		/* Opened so, and cannot: some file systems. */
		w->direct = false;
		err = open_as(w, 0);
		if (!err)
			err = io_pread_full(w->io, w->fd, w->p + at, n, w->off + at, ret);
	}
	return err;
}

/* A piece of which something cannot be read: the rest can. */
static int read_rest(struct window *w, size_t at, size_t n, size_t *ret)
{
	size_t got = 0;

	for (size_t done = 0; done < n; done += WINDOW_ALIGN) {
		size_t one = 0;
		const int err = read_some(w, at + done, WINDOW_ALIGN, &one);

		if (err == -EIO) {
			memset(w->p + at + done, 0, WINDOW_ALIGN);
			if (w->bad_to <= w->off)
				w->bad = w->off + at + done;
			w->bad_to = w->off + at + done + WINDOW_ALIGN;
			one = WINDOW_ALIGN;
		} else if (err) {
			return err;
		}
		got = done + one;
		if (one < WINDOW_ALIGN)
			break;
	}
	*ret = got;
	return 0;
}

/* The next piece behind what is there. */
static emdb_err read_on(struct window *w, uint64_t want)
{
	const uint64_t at = w->off + w->len;
	size_t got = 0, n;
	emdb_err err;
	int rc;

	if (at >= w->limit) {
		w->end = true;
		return EMDB_OK;
	}
	n = (size_t)align_up(min_u64(max_u64(want, WINDOW_CHUNK), w->limit - at), WINDOW_ALIGN);
	err = make_room(w, w->len + n);
	if (err)
		return err;
	rc = read_some(w, w->len, n, &got);
	if (rc == -EIO)
		rc = read_rest(w, w->len, n, &got);
	if (rc)
		return err_of_io(rc);
	w->end = got < n;
	w->len += got;
	w->bytes += got;
	w->cached_bytes += w->direct ? 0 : got;
	return pace_paid(w->pace, got);
}

emdb_err window_get(struct window *w, uint64_t off, size_t n, uint8_t **ret, size_t *ret_n)
{
	const uint64_t from = align_down(off, WINDOW_ALIGN);
	emdb_err err = EMDB_OK;

	emdb_assert(off >= w->off);
	if (from >= w->off + w->len && !w->end) {
		w->off = from;
		w->len = 0;
	}
	while (!err && off + n > w->off + w->len && !w->end) {
		if (from > w->off) {
			w->len -= from - w->off;
			memmove(w->p, w->p + (from - w->off), w->len);
			w->off = from;
		}
		err = read_on(w, off + n - w->off - w->len);
	}
	*ret = off < w->off + w->len ? w->p + (off - w->off) : NULL;
	*ret_n = *ret ? (size_t)min_u64(n, w->off + w->len - off) : 0;
	return err;
}

bool window_is_bad(const struct window *w, uint64_t off, uint64_t n)
{
	return w->bad < off + n && off < w->bad_to;
}
