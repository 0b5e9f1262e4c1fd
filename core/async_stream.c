/* SPDX-License-Identifier: Apache-2.0 */
#include "core/async_i.h"

#include "core/store.h"

#define ITEMS_DEFAULT 64u
#define BYTES_DEFAULT ((size_t)1 << 20)
/* Entries read before other jobs of the queue get their turn. */
#define BURST 64u

struct item {
	struct item *next;
	emdb_err err; /* CORRUPT: there is no entry */
	struct emdb_entry entry;
	uint8_t bytes[];
};

struct emdb_stream {
	struct async_job job;
	emdb_async *async;  /* immutable */
	uint32_t items_max; /* immutable */
	size_t bytes_max;   /* immutable */
	int fd;             /* immutable */
	emdb_iter *iter;    /* the job's */
	struct item *out;   /* the consumer's */
	/* Everything below is guarded by async->lock. */
	struct cond changed;
	struct item *items, **items_end;
	uint32_t count;
	size_t bytes;
	bool busy; /* the job is in the list or with a thread */
	bool stop;
	emdb_err end; /* OK: there is more; else what comes after the items */
};

/* ---- Reading ahead ------------------------------------------------------ */

static size_t item_bytes(const struct item *it)
{
	return it->entry.key_len + it->entry.value_len;
}

static bool room_locked(const struct emdb_stream *s, uint32_t share) EMDB_REQUIRES(&s->async->lock);
static bool room_locked(const struct emdb_stream *s, uint32_t share)
{
	return s->end == EMDB_OK && s->count < max_size(s->items_max / share, 1) &&
	       (s->bytes < s->bytes_max / share || s->count == 0);
}

/* The next entry, copied.  NOT_FOUND or an error that ends the stream: no item. */
static emdb_err item_read(struct emdb_stream *s, struct item **ret)
{
	struct emdb_entry e = { 0 };
	const emdb_err err = emdb_iter_next(s->iter, &e);
	struct item *it;
	size_t n;

	if (err && err != EMDB_ERR_CORRUPT)
		return err;
	if (emdb_add_ovf_size(e.key_len, e.value_len, &n) || emdb_add_ovf_size(n, sizeof(*it), &n))
		return EMDB_ERR_NOMEM;
	it = base_malloc(n);
	if (!it)
		return EMDB_ERR_NOMEM;
	it->next = NULL;
	it->err = err;
	it->entry = e;
	if (e.key_len)
		memcpy(it->bytes, e.key, e.key_len);
	it->entry.key = it->bytes;
	if (e.value_len)
		memcpy(it->bytes + e.key_len, e.value, e.value_len);
	if (e.value)
		it->entry.value = it->bytes + e.key_len;
	*ret = it;
	return EMDB_OK;
}

static void push_locked(struct emdb_stream *s, struct item *it) EMDB_REQUIRES(&s->async->lock);
static void push_locked(struct emdb_stream *s, struct item *it)
{
	*s->items_end = it;
	s->items_end = &it->next;
	s->count++;
	s->bytes += item_bytes(it);
}

static void stream_main(struct async_job *job)
{
	struct emdb_stream *const s = container_of(job, struct emdb_stream, job);
	unsigned int burst = 0;

	mutex_lock(&s->async->lock);
	while (!s->stop && room_locked(s, 1) && burst++ < BURST) {
		struct item *it = NULL;
		emdb_err err;

		mutex_unlock(&s->async->lock);
		err = item_read(s, &it);
		mutex_lock(&s->async->lock);
		if (err)
			s->end = err;
		else
			push_locked(s, it);
		if (err || s->count == 1)
			io_event_set(s->fd);
		cond_broadcast(&s->changed);
	}
	s->busy = !s->stop && room_locked(s, 1);
	if (s->busy)
		async_job_put_locked(s->async, job);
	else
		cond_broadcast(&s->changed); /* for emdb_stream_free(): the last access */
	mutex_unlock(&s->async->lock);
}

/* ---- Taking ------------------------------------------------------------- */

static struct item *pop_locked(struct emdb_stream *s) EMDB_REQUIRES(&s->async->lock);
static struct item *pop_locked(struct emdb_stream *s)
{
	struct item *const it = s->items;

	s->items = it->next;
	if (!s->items)
		s->items_end = &s->items;
	s->count--;
	s->bytes -= item_bytes(it);
	if (s->count == 0 && s->end == EMDB_OK)
		io_event_clear(s->fd);
	/* Half empty: so that reading goes on in runs, and never stops while there is work. */
	if (!s->busy && room_locked(s, 2)) {
		s->busy = true;
		async_job_put_locked(s->async, &s->job);
	}
	return it;
}

emdb_err emdb_stream_next(emdb_stream *s, int timeout_ms, struct emdb_entry *ret_entry)
{
	const uint64_t deadline = async_deadline(s->async->db, timeout_ms);
	emdb_err err;

	base_free(s->out);
	s->out = NULL;
	mutex_lock(&s->async->lock);
	while (s->count == 0 && s->end == EMDB_OK && timeout_ms != 0 &&
	       cond_wait_until(&s->changed, &s->async->lock, deadline))
		;
	if (s->count) {
		s->out = pop_locked(s);
		err = s->out->err;
	} else {
		err = s->end ? s->end : EMDB_ERR_AGAIN;
	}
	mutex_unlock(&s->async->lock);
	if (!err)
		*ret_entry = s->out->entry;
	return err;
}

int emdb_stream_fd(const emdb_stream *s)
{
	return s->fd;
}

/* ---- New and gone ------------------------------------------------------- */

/* The iterator becomes the stream's, and goes when there is none. */
static emdb_err stream_new(emdb_async *async, emdb_iter *iter,
			   const struct emdb_stream_options *opts, emdb_stream **ret)
{
	const struct emdb_stream_options none = { .size = sizeof(none) };
	emdb_stream *s;
	int rc;

	opts = opts ? opts : &none;
	s = base_calloc(1, sizeof(*s));
	rc = s ? io_event_new(&s->fd) : -ENOMEM;
	if (rc < 0) {
		emdb_iter_free(iter);
		base_free(s);
		return rc == -EMFILE || rc == -ENFILE ? EMDB_ERR_TOO_MANY_FILES : EMDB_ERR_NOMEM;
	}
	s->job.run = stream_main;
	s->async = async;
	s->iter = iter;
	s->items_max = opts->items ? opts->items : ITEMS_DEFAULT;
	s->bytes_max = opts->bytes ? opts->bytes : BYTES_DEFAULT;
	s->items_end = &s->items;
	cond_init(&s->changed);
	mutex_lock(&async->lock);
	s->busy = true;
	async_job_put_locked(async, &s->job);
	mutex_unlock(&async->lock);
	*ret = s;
	return EMDB_OK;
}

static bool options_ok(const struct emdb_stream_options *opts)
{
	return !opts || (opts->size == sizeof(*opts) && opts->items <= EMDB_STREAM_ITEMS_MAX);
}

emdb_err emdb_stream_iter(emdb_async *async, uint64_t ns, unsigned int flags,
			  const struct emdb_stream_options *opts, emdb_stream **ret_stream)
{
	emdb_iter *iter;
	emdb_err err;

	if (!options_ok(opts))
		return EMDB_ERR_INVAL;
	err = emdb_iter_new(async->db, ns, flags, &iter);
	return err ? err : stream_new(async, iter, opts, ret_stream);
}

emdb_err emdb_stream_range(emdb_async *async, uint64_t ns, const struct emdb_range *range,
			   const struct emdb_stream_options *opts, emdb_stream **ret_stream)
{
	emdb_iter *iter;
	emdb_err err;

	if (!options_ok(opts))
		return EMDB_ERR_INVAL;
	err = emdb_range_new(async->db, ns, range, &iter);
	return err ? err : stream_new(async, iter, opts, ret_stream);
}

void emdb_stream_free(emdb_stream *s)
{
	if (!s)
		return;
	mutex_lock(&s->async->lock);
	s->stop = true;
	if (s->job.prev) {
		async_job_take_locked(s->async, &s->job);
		s->busy = false;
	}
	while (s->busy)
		cond_wait(&s->changed, &s->async->lock);
	mutex_unlock(&s->async->lock);
	while (s->items) {
		struct item *const it = s->items;

		s->items = it->next;
		base_free(it);
	}
	base_free(s->out);
	emdb_iter_free(s->iter);
	io_event_close(s->fd);
	cond_destroy(&s->changed);
	base_free(s);
}
