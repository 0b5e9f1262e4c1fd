/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking a namespace in order.  The ordered index gives keys, some at a time; each is looked up when
 * it is handed out, so that what is read is current and moving records is nobody's concern.
 * Looking ahead is for the caches only: the lookups of one handful miss them together, not
 * one after the other.
 */
#include "core/iter.h"

#define RANGE_FIRST     16u /* keys taken at first: many walks are short */
#define RANGE_MORE      64u /* and then */
#define RANGE_KEY_BYTES 65536u

/* One end of what is still to come. */
struct range_end {
	struct buf key;
	bool bounded, exclusive;
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
	struct {
		uint64_t hash;
		uint32_t off, len; /* in it.key */
	} keys[RANGE_MORE];
	struct buf value;
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
	buf_reset(&e->key);
	/* One byte more, so that data is never NULL. */
	if (buf_reserve(&e->key, len + 1) || buf_append(&e->key, p, len))
		return EMDB_ERR_NOMEM;
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
	it->keys[it->count].off = (uint32_t)off;
	it->keys[it->count++].len = (uint32_t)(b->len - off);
	return it->count < it->want && b->len < RANGE_KEY_BYTES;
}

static struct oidx_bound bound_of(const struct range_end *e)
{
	return (struct oidx_bound){ e->bounded ? e->key.data : NULL, e->key.len, e->exclusive };
}

/* The next handful of keys.  NOT_FOUND: none. */
static emdb_err range_fill_pinned(struct range_iter *it, const struct ns *ns)
{
	const struct oidx_bound low = bound_of(&it->low), high = bound_of(&it->high);
	struct range_end *const start = it->reverse ? &it->high : &it->low;
	uint8_t *key;

	it->at = it->count = 0;
	if (it->end || !it->left)
		return EMDB_ERR_NOT_FOUND;
	buf_reset(&it->it.key);
	if (buf_reserve(&it->it.key, 1))
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
	if (it->count < it->want && it->it.key.len < RANGE_KEY_BYTES)
		it->end = true;
	for (size_t i = 0; i < it->count; i++)
		it->keys[i].hash = entry_hash(it->it.db, ns->id, it->it.key.data + it->keys[i].off,
					      it->keys[i].len);
	key = it->it.key.data + it->keys[it->count - 1].off;
	return tighten(start, !it->reverse, key, it->keys[it->count - 1].len, true);
}

/* ---- Handing out ------------------------------------------------------------------- */

/* NOT_FOUND: to be skipped. */
static emdb_err range_take_pinned(struct range_iter *it, const struct ns *ns, size_t i,
				  struct emdb_entry *ret)
{
	const uint8_t *const key = it->it.key.data + it->keys[i].off;
	struct emdb_entry r = { .key = key, .key_len = it->keys[i].len };
	struct entry e;
	emdb_err err;

	err = entry_find_pinned(it->it.db, ns, it->keys[i].hash, key, r.key_len, false, &e);
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

static emdb_err range_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct range_iter *const it = container_of(base, struct range_iter, it);
	const unsigned int pin = epoch_pin(&base->db->epoch);
	const struct ns *const ns = ns_find_pinned(base->db, base->ns);
	emdb_err err = ns ? EMDB_OK : EMDB_ERR_NOT_FOUND;

	if (ns && !it->told && atomic_load(&ns->ord_missing)) {
		it->told = true;
		err = EMDB_ERR_CORRUPT;
	}
	while (!err) {
		if (it->at == it->count)
			err = range_fill_pinned(it, ns);
		if (err)
			break;
		err = range_take_pinned(it, ns, it->at++, ret);
		if (!err) {
			it->left--;
			break;
		}
		if (err == EMDB_ERR_NOT_FOUND)
			err = EMDB_OK;
	}
	epoch_unpin(&base->db->epoch, pin);
	return err;
}

static void range_release(emdb_iter *base)
{
	struct range_iter *const it = container_of(base, struct range_iter, it);

	buf_release(&it->low.key);
	buf_release(&it->high.key);
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
	it = base_calloc(1, sizeof(*it));
	if (!it)
		return EMDB_ERR_NOMEM;
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
