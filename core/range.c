/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking a namespace in order.  The ordered index gives keys, a handful at a time; their entries are
 * looked up together, in steps, so that the cache misses of all of them overlap instead of following each
 * other.  What is small is copied then, so that handing it out needs nothing of the store;
 * what is large, or not simply a record, is read when its turn comes.
 */
#include "core/iter.h"

#define RANGE_FIRST       16u    /* keys taken at first: many walks are short */
#define RANGE_MORE        64u    /* and then */
#define RANGE_KEY_BYTES   65536u /* of keys, beyond which no more are taken */
#define RANGE_KEY_ROOM    512u   /* for them at first */
#define RANGE_VALUE_MAX   4096u  /* copied ahead */
#define RANGE_VALUE_BYTES 65536u /* of values copied ahead */
#define RANGE_VALUE_ROOM  8192u  /* for them at first, at most */

/* One end of what is still to come. */
struct range_end {
	struct buf key;
	bool bounded, exclusive;
};

enum range_state {
	RANGE_READY, /* all is here */
	RANGE_LATER, /* to be looked up in its turn */
	RANGE_GONE,
};

struct range_item {
	uint64_t hash, slot, id;
	int64_t expires_ms;
	uint32_t key_off, key_len;     /* in it.key */
	uint32_t value_off, value_len; /* in values */
	enum range_state state;
};

struct range_iter {
	emdb_iter it;
	struct range_end low, high;
	uint64_t left; /* entries that may still be handed out */
	bool reverse;
	bool end;  /* the index has no more */
	bool told; /* that entries are missing */
	bool nomem;
	size_t want, at, count;
	struct buf values;                   /* of what is ready */
	struct buf value;                    /* of what was not */
	struct range_item items[RANGE_MORE]; /* last, as it need not be zero */
};

/* ---- Bounds ------------------------------------------------------------------- */

static int bytes_cmp(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
	const int c = memcmp(a, b, min_size(an, bn));

	return c ? c : (an > bn) - (an < bn);
}

/* Moves an end inwards; a wider bound changes nothing. */
static emdb_err tighten(struct range_end *e, bool is_low, const void *key, size_t len,
			bool exclusive)
{
	const uint8_t *const p = len ? key : (const uint8_t *)"";

	if (len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	if (e->bounded) {
		const int c = bytes_cmp(p, len, e->key.data, e->key.len);

		if (c == 0)
			e->exclusive |= exclusive;
		if (c == 0 || (c < 0) == is_low)
			return EMDB_OK;
	}
	/* One byte more, so that data is never NULL; before anything is changed. */
	if (buf_reserve(&e->key, len + 1))
		return EMDB_ERR_NOMEM;
	buf_reset(&e->key);
	(void)!buf_append(&e->key, p, len);
	e->bounded = true;
	e->exclusive = exclusive;
	return EMDB_OK;
}

/* All keys with a prefix: from itself to before the next byte string that does not have it. */
static emdb_err tighten_prefix(struct range_iter *it, const uint8_t *prefix, size_t len)
{
	size_t n = len;
	uint8_t *next;
	emdb_err err;

	err = tighten(&it->low, true, prefix, len, false);
	while (n && prefix[n - 1] == 0xff)
		n--;
	if (err || !n)
		return err;
	next = base_malloc(n);
	if (!next)
		return EMDB_ERR_NOMEM;
	memcpy(next, prefix, n);
	next[n - 1]++;
	err = tighten(&it->high, false, next, n, true);
	base_free(next);
	return err;
}

static emdb_err set_bounds(struct range_iter *it, const struct emdb_range *r)
{
	struct range_end *const start = it->reverse ? &it->high : &it->low;
	struct range_end *const stop = it->reverse ? &it->low : &it->high;
	emdb_err err = EMDB_OK;

	if (r->from)
		err = tighten(start, !it->reverse, r->from, r->from_len, false);
	if (!err && r->after)
		err = tighten(start, !it->reverse, r->after, r->after_len, true);
	if (!err && r->to)
		err = tighten(stop, it->reverse, r->to, r->to_len,
			      !(r->flags & EMDB_RANGE_TO_INCLUSIVE));
	if (!err && r->prefix && r->prefix_len)
		err = tighten_prefix(it, r->prefix, r->prefix_len);
	return err;
}

/* ---- Reading ahead ---------------------------------------------------------------- */

static bool take_key(void *ctx, const uint8_t *prefix, size_t prefix_len, const uint8_t *rest,
		     size_t rest_len)
{
	struct range_iter *const it = ctx;
	struct buf *const b = &it->it.key;
	const size_t off = b->len;

	if (buf_append(b, prefix, prefix_len) || buf_append(b, rest, rest_len)) {
		it->nomem = true;
		return false;
	}
	it->items[it->count].key_off = (uint32_t)off;
	it->items[it->count++].key_len = (uint32_t)(b->len - off);
	return it->count < it->want && b->len < RANGE_KEY_BYTES;
}

static struct oidx_bound bound_of(const struct range_end *e)
{
	return (struct oidx_bound){ e->bounded ? e->key.data : NULL, e->key.len, e->exclusive };
}

/* Copies what is simple. */
static enum range_state read_ahead_pinned(struct range_iter *it, const struct ns *ns,
					  struct range_item *i)
{
	emdb_db *const db = it->it.db;
	struct entry e;
	bool same;
	const emdb_err err = entry_read_pinned(db, i->hash, i->slot, false, &e);

	if (err)
		return err == EMDB_ERR_NOT_FOUND ? RANGE_GONE : RANGE_LATER;
	/* Another key of the same hash, or not a plain value. */
	if (e.rec.kind != REC_PUT || e.rec.ns != ns->id || e.rec.key_len != i->key_len ||
	    same_mapped(e.rec.key, it->it.key.data + i->key_off, i->key_len, &same) || !same)
		return RANGE_LATER;
	if (!iter_wants(&it->it, false))
		return RANGE_GONE;
	i->id = e.id;
	i->expires_ms = e.rec.mask & REC_F_EXPIRES ? e.rec.expires_ms : 0;
	i->value_len = 0;
	i->value_off = (uint32_t)it->values.len;
	if (!(it->it.flags & EMDB_ITER_VALUES))
		return RANGE_READY;
	/* Values are mostly alike: room for all at once, rather than for one after the other. */
	if (!it->values.cap && e.rec.value_len <= RANGE_VALUE_MAX &&
	    buf_reserve(&it->values, min_size(it->count * (e.rec.value_len + 1), RANGE_VALUE_ROOM)))
		return RANGE_LATER;
	if (e.rec.value_len > RANGE_VALUE_MAX || it->values.len > RANGE_VALUE_BYTES ||
	    buf_reserve(&it->values, e.rec.value_len + 1) ||
	    copy_mapped(it->values.data + it->values.len, e.rec.value, e.rec.value_len))
		return RANGE_LATER;
	it->values.len += e.rec.value_len;
	i->value_len = (uint32_t)e.rec.value_len;
	return RANGE_READY;
}

/* Each entry's slot and record are in some place of memory of their own: first all are asked for. */
static void look_ahead_pinned(struct range_iter *it, const struct ns *ns)
{
	struct range_item *const items = it->items;

	buf_reset(&it->values);
	for (size_t i = 0; i < it->count; i++) {
		items[i].hash = entry_hash(it->it.db, ns->id, it->it.key.data + items[i].key_off,
					   items[i].key_len);
		hidx_prefetch_pinned(&ns->idx, items[i].hash);
	}
	for (size_t i = 0; i < it->count; i++) {
		const size_t n = hidx_find_pinned(&ns->idx, items[i].hash, &items[i].slot, 1);

		items[i].state = n == 0 ? RANGE_GONE : n == 1 ? RANGE_READY : RANGE_LATER;
		if (n == 1)
			journal_prefetch_pinned(it->it.db->j, slot_ref(items[i].slot));
	}
	for (size_t i = 0; i < it->count; i++)
		if (items[i].state == RANGE_READY)
			items[i].state = read_ahead_pinned(it, ns, &items[i]);
}

/* The next handful of keys, of which the last is where the walk goes on.  NOT_FOUND: none. */
static emdb_err range_scan_pinned(struct range_iter *it, const struct ns *ns)
{
	const struct oidx_bound low = bound_of(&it->low), high = bound_of(&it->high);
	struct range_end *const start = it->reverse ? &it->high : &it->low;
	uint8_t *key;
	emdb_err err;

	if (it->end || !it->left)
		return EMDB_ERR_NOT_FOUND;
	buf_reset(&it->it.key);
	if (buf_reserve(&it->it.key, RANGE_KEY_ROOM))
		return EMDB_ERR_NOMEM;
	it->want = min_u64(it->want ? RANGE_MORE : RANGE_FIRST, it->left);
	it->nomem = false;
	oidx_scan_pinned(ns->ord, &low, &high, it->reverse, take_key, it);
	if (it->nomem)
		return EMDB_ERR_NOMEM;
	if (!it->count) {
		it->end = true;
		return EMDB_ERR_NOT_FOUND;
	}
	key = it->it.key.data + it->items[it->count - 1].key_off;
	err = tighten(start, !it->reverse, key, it->items[it->count - 1].key_len, true);
	if (!err && it->count < it->want && it->it.key.len < RANGE_KEY_BYTES)
		it->end = true;
	return err;
}

/* The next call goes on as if one that failed had not been. */
static emdb_err range_fill_pinned(struct range_iter *it, const struct ns *ns)
{
	emdb_err err;

	it->at = it->count = 0;
	err = range_scan_pinned(it, ns);
	if (err)
		it->count = 0;
	else
		look_ahead_pinned(it, ns);
	return err;
}

/* ---- Handing out ------------------------------------------------------------------- */

/* What is not ready, as it is now.  NOT_FOUND: to be skipped. */
static emdb_err range_take_pinned(struct range_iter *it, const struct ns *ns,
				  const struct range_item *i, struct emdb_entry *ret)
{
	const uint8_t *const key = it->it.key.data + i->key_off;
	struct emdb_entry r = { .key = key, .key_len = i->key_len };
	struct entry e;
	emdb_err err;

	err = entry_find_pinned(it->it.db, ns, i->hash, key, r.key_len, false, &e);
	if (err)
		return err;
	r.is_ns = e.rec.kind == REC_NS;
	r.id = e.id;
	if (!iter_wants(&it->it, r.is_ns))
		return EMDB_ERR_NOT_FOUND;
	base_free(it->it.value);
	it->it.value = NULL;
	if (!r.is_ns && it->it.flags & EMDB_ITER_VALUES) {
		if (e.rec.kind == REC_PUT) {
			r.value_len = e.rec.value_len;
			buf_reset(&it->value);
			if (buf_reserve(&it->value, r.value_len + 1))
				return EMDB_ERR_NOMEM;
			r.value = it->value.data;
			err = copy_mapped(it->value.data, e.rec.value, r.value_len);
		} else {
			err = entry_value_pinned(it->it.db, &e, &it->it.value, &r.value_len);
			r.value = it->it.value;
		}
	}
	if (err)
		return err;
	if (e.slot & (REF_EXPIRES | REF_SPECIAL))
		r.expires_ms = entry_expires_pinned(it->it.db, &e);
	*ret = r;
	return EMDB_OK;
}

/* An item that is ready.  NOT_FOUND: it has expired since. */
static emdb_err range_hand_out(const struct range_iter *it, const struct range_item *i,
			       struct emdb_entry *ret)
{
	if (i->expires_ms && ttl_expired(i->expires_ms, db_now_ms(it->it.db)))
		return EMDB_ERR_NOT_FOUND;
	*ret = (struct emdb_entry){ .key = it->it.key.data + i->key_off,
				    .key_len = i->key_len,
				    .value = it->it.flags & EMDB_ITER_VALUES
						     ? it->values.data + i->value_off
						     : NULL,
				    .value_len = i->value_len,
				    .id = i->id,
				    .expires_ms = i->expires_ms };
	return EMDB_OK;
}

/* More keys, or the one item that needs the store. */
static emdb_err range_work(struct range_iter *it, const struct range_item *item,
			   struct emdb_entry *ret)
{
	emdb_db *const db = it->it.db;
	const unsigned int pin = epoch_pin(&db->epoch);
	const struct ns *const ns = ns_find_pinned(db, it->it.ns);
	emdb_err err = EMDB_ERR_NOT_FOUND;

	if (ns && !it->told && atomic_load(&ns->ord_missing))
		err = EMDB_ERR_CORRUPT;
	else if (ns)
		err = item ? range_take_pinned(it, ns, item, ret) : range_fill_pinned(it, ns);
	it->told = true;
	epoch_unpin(&db->epoch, pin);
	return err;
}

static emdb_err range_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct range_iter *const it = container_of(base, struct range_iter, it);

	for (;;) {
		const struct range_item *item;
		emdb_err err = EMDB_ERR_NOT_FOUND;

		if (it->at == it->count) {
			err = range_work(it, NULL, NULL);
			if (err)
				return err;
		}
		item = &it->items[it->at++];
		if (item->state == RANGE_READY)
			err = range_hand_out(it, item, ret);
		else if (item->state == RANGE_LATER)
			err = range_work(it, item, ret);
		else
			err = EMDB_ERR_NOT_FOUND;
		if (!err)
			it->left--;
		/* The entry comes when there is memory again. */
		if (err == EMDB_ERR_NOMEM)
			it->at--;
		if (err != EMDB_ERR_NOT_FOUND)
			return err;
	}
}

static void range_release(emdb_iter *base)
{
	struct range_iter *const it = container_of(base, struct range_iter, it);

	buf_release(&it->low.key);
	buf_release(&it->high.key);
	buf_release(&it->values);
	buf_release(&it->value);
}

static const struct iter_ops range_ops = { range_next, range_release };

emdb_err emdb_range_new(emdb_db *db, uint64_t ns, const struct emdb_range *range,
			emdb_iter **ret_iter)
{
	static const struct emdb_range all = { .size = sizeof(all) };
	const struct emdb_range *const r = range ? range : &all;
	struct range_iter *it;
	unsigned int pin;
	emdb_err err;
	bool there;

	if (r->size != sizeof(*r) || r->flags & ~(EMDB_ITER_VALUES | EMDB_ITER_KEYS | EMDB_ITER_NS |
						  EMDB_RANGE_REVERSE | EMDB_RANGE_TO_INCLUSIVE))
		return EMDB_ERR_INVAL;
	if (!db->ordered)
		return EMDB_ERR_NOT_ORDERED;
	pin = epoch_pin(&db->epoch);
	there = ns_find_pinned(db, ns) != NULL;
	epoch_unpin(&db->epoch, pin);
	if (!there)
		return EMDB_ERR_NOT_FOUND;
	it = base_malloc(sizeof(*it));
	if (!it)
		return EMDB_ERR_NOMEM;
	memset(it, 0, offsetof(struct range_iter, items));
	it->it.ops = &range_ops;
	it->it.db = db;
	it->it.ns = ns;
	it->it.flags = r->flags;
	it->reverse = r->flags & EMDB_RANGE_REVERSE;
	it->left = r->limit ? r->limit : UINT64_MAX;
	err = set_bounds(it, r);
	if (err) {
		emdb_iter_free(&it->it);
		return err;
	}
	*ret_iter = &it->it;
	return EMDB_OK;
}
