/* SPDX-License-Identifier: Apache-2.0 */
/* When keys expire: asking, changing, defaults, texts. */
#include "core/kv_i.h"

emdb_err emdb_ttl_get(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
		      int64_t *ret_expires_ms)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;
	emdb_err err;

	err = kv_find_pinned(db, ns, key, key_len, &e);
	if (!err && e.rec.kind == REC_NS)
		err = EMDB_ERR_IS_NS;
	if (!err)
		*ret_expires_ms = entry_expires_pinned(db, &e);
	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err emdb_ttl_remaining(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
			    int64_t *ret_ms)
{
	int64_t expires;
	const emdb_err err = emdb_ttl_get(db, ns, key, key_len, &expires);

	if (err)
		return err;
	/* Time goes on between the two: what was there has at least an instant left. */
	*ret_ms = expires - db_now_ms(db);
	if (!expires)
		*ret_ms = EMDB_TTL_NEVER;
	else if (*ret_ms < 1)
		*ret_ms = 1;
	return EMDB_OK;
}

emdb_err emdb_expires_after(emdb_db *db, int64_t ttl_ms, int64_t *ret_expires_ms)
{
	const int64_t now_ms = db_now_ms(db);

	if (ttl_ms < 0)
		return EMDB_ERR_INVAL;
	if (ttl_ms > TTL_MAX_MS - now_ms)
		return EMDB_ERR_OVERFLOW;
	*ret_expires_ms = now_ms + ttl_ms;
	return EMDB_OK;
}

emdb_err emdb_put_ttl(emdb_db *db, uint64_t ns, const void *key, size_t key_len, const void *value,
		      size_t value_len, int64_t ttl_ms)
{
	int64_t expires;
	const emdb_err err = emdb_expires_after(db, ttl_ms, &expires);

	return err ? err : emdb_put(db, ns, key, key_len, value, value_len, expires);
}

/* What is to become of a deadline. */
struct retime {
	int64_t set;    /* the new one, 0: none */
	int64_t extend; /* when not 0: by so much later, from now when there is none */
	int64_t was;    /* out: before */
	int64_t is;     /* out: after */
};

static emdb_err retime(struct retime *rt, int64_t now_ms)
{
	const int64_t from = rt->was ? rt->was : now_ms;

	if (rt->extend == 0) {
		rt->is = rt->set;
		return EMDB_OK;
	}
	if (rt->extend > TTL_MAX_MS - from)
		return EMDB_ERR_OVERFLOW;
	rt->is = from + rt->extend;
	return EMDB_OK;
}

static emdb_err set_plain(struct op *op, int64_t expires_ms)
{
	struct rec r;
	struct iovec iov;
	emdb_err err;

	rec_of_plain(&op->entry, db_now_ns(op->db), &r);
	r.expires_ms = expires_ms;
	r.mask &= ~REC_F_EXPIRES;
	if (expires_ms)
		r.mask |= REC_F_EXPIRES;
	iov = (struct iovec){ (void *)(uintptr_t)r.value, r.value_len };
	err = mapped_there(&iov, 1);
	return err ? err
		   : commit_rec(op->db, &r, &iov, r.value_len ? 1 : 0, 0, true, &op->entry, NULL);
}

/* Structure held exclusively. */
static emdb_err set_big(struct op *op, int64_t expires_ms)
{
	emdb_db *const db = op->db;
	struct obj_view v;
	struct rec r;
	emdb_err err;

	if (!objtab_get_pinned(db, op->entry.id, &v) || !v.big)
		return EMDB_ERR_CORRUPT;
	err = rec_of_big(db, op->entry.id, v.big, db_now_ns(db), &r);
	if (err)
		return err;
	r.expires_ms = expires_ms;
	r.mask &= ~REC_F_EXPIRES;
	if (expires_ms)
		r.mask |= REC_F_EXPIRES;
	return commit_rec(db, &r, NULL, 0, 0, true, NULL, NULL);
}

/* A large value is not written again for that.  Structure held exclusively. */
static emdb_err promote_and_set(struct op *op, int64_t expires_ms)
{
	struct batch b = BATCH_INIT;
	emdb_err err;

	err = promote_batch(op->db, &op->entry, entry_expires_pinned(op->db, &op->entry), &b, true);
	if (!err)
		err = batch_commit(op->db, &b, 0);
	batch_release(&b);
	return err ? err : set_big(op, expires_ms);
}

/* BUSY: only exclusively. */
static emdb_err retime_locked(struct op *op, struct retime *rt)
{
	emdb_err err;

	if (op->lost)
		return EMDB_ERR_CORRUPT; /* not absent, for all that anybody knows */
	/* Under the lock: what has expired stays dead. */
	if (!op->live)
		return EMDB_ERR_NOT_FOUND;
	if (op->entry.rec.kind == REC_NS)
		return EMDB_ERR_IS_NS;
	rt->was = entry_expires_pinned(op->db, &op->entry);
	err = retime(rt, db_now_ms(op->db));
	if (err)
		return err;
	if (op->entry.rec.kind == REC_PUT && !must_promote(&op->entry))
		return set_plain(op, rt->is);
	if (!op->hold.exclusive)
		return EMDB_ERR_BUSY;
	return op->entry.rec.kind == REC_PUT ? promote_and_set(op, rt->is) : set_big(op, rt->is);
}

static emdb_err ttl_change(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
			   struct retime *rt)
{
	bool exclusive = false;
	struct op op;
	emdb_err err;

	do {
		err = op_begin(db, ns, key, key_len, exclusive, &op);
		if (err)
			return err;
		err = op_done(&op, retime_locked(&op, rt));
	} while (err == EMDB_ERR_BUSY && (exclusive = !exclusive));
	if (!err && ttl_expired(rt->is, db_now_ms(db))) {
		uint64_t removed;

		/* A deadline in the past deletes now. */
		err = expire_step(db, UINT64_MAX, &removed);
	}
	return err;
}

emdb_err emdb_ttl_set(emdb_db *db, uint64_t ns, const void *key, size_t key_len, int64_t expires_ms)
{
	struct retime rt = { .set = expires_ms == EMDB_TTL_NEVER ? 0 : expires_ms };

	if (expires_ms != EMDB_TTL_NEVER && expires_ms <= 0)
		return EMDB_ERR_INVAL;
	if (expires_ms > TTL_MAX_MS)
		return EMDB_ERR_OVERFLOW;
	return ttl_change(db, ns, key, key_len, &rt);
}

emdb_err emdb_ttl_persist(emdb_db *db, uint64_t ns, const void *key, size_t key_len,
			  bool *ret_had_deadline)
{
	struct retime rt = { .set = 0 };
	const emdb_err err = ttl_change(db, ns, key, key_len, &rt);

	if (!err && ret_had_deadline)
		*ret_had_deadline = rt.was != 0;
	return err;
}

emdb_err emdb_ttl_extend(emdb_db *db, uint64_t ns, const void *key, size_t key_len, int64_t by_ms,
			 int64_t *ret_expires_ms)
{
	struct retime rt = { .extend = by_ms };
	emdb_err err;

	if (by_ms <= 0)
		return EMDB_ERR_INVAL;
	err = ttl_change(db, ns, key, key_len, &rt);
	if (!err && ret_expires_ms)
		*ret_expires_ms = rt.is;
	return err;
}

/* Commits the namespace's record with other defaults. */
static emdb_err ns_set_ttl(emdb_db *db, uint64_t id, const int64_t *ttl, const uint8_t *basis)
{
	struct node n;
	struct rec r;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	err = node_lock(db, id, false, &n);
	if (err)
		return err;
	if (!n.ns || atomic_load(&n.ns->dead)) {
		err = n.ns ? EMDB_ERR_NOT_FOUND : EMDB_ERR_NOT_NS;
	} else {
		err = rec_of_ns(db, n.ns, db_now_ns(db), &r);
		if (ttl)
			r.ttl_default_ms = *ttl;
		if (basis)
			r.ttl_basis = *basis;
		r.mask |= REC_F_TTLDEF;
		if (!err)
			err = commit_rec(db, &r, NULL, 0, 0, false, NULL, NULL);
	}
	node_unlock(&n);
	return err ? err : db_written(db);
}

emdb_err emdb_ns_ttl_set(emdb_db *db, uint64_t ns, int64_t default_ms)
{
	if (default_ms < 0)
		return EMDB_ERR_INVAL;
	if (default_ms > TTL_MAX_MS - db_now_ms(db))
		return EMDB_ERR_OVERFLOW;
	return ns_set_ttl(db, ns, &default_ms, NULL);
}

emdb_err emdb_ns_basis_set(emdb_db *db, uint64_t ns, enum emdb_ttl_basis basis)
{
	const uint8_t b = (uint8_t)basis;

	if (basis != EMDB_BASIS_CREATE && basis != EMDB_BASIS_MODIFY)
		return EMDB_ERR_INVAL;
	return ns_set_ttl(db, ns, NULL, &b);
}

static emdb_err ns_ttl(emdb_db *db, uint64_t id, int64_t *ret_ttl, uint8_t *ret_basis)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const struct ns *const ns = ns_find_pinned(db, id);

	if (ns) {
		*ret_ttl = atomic_load_explicit(&ns->ttl_default_ms, memory_order_relaxed);
		*ret_basis = atomic_load_explicit(&ns->ttl_basis, memory_order_relaxed);
	}
	epoch_unpin(&db->epoch, pin);
	return ns ? EMDB_OK : EMDB_ERR_NOT_FOUND;
}

emdb_err emdb_ns_ttl_get(emdb_db *db, uint64_t ns, int64_t *ret_default_ms)
{
	uint8_t basis;

	return ns_ttl(db, ns, ret_default_ms, &basis);
}

emdb_err emdb_ns_basis_get(emdb_db *db, uint64_t ns, enum emdb_ttl_basis *ret_basis)
{
	uint8_t basis;
	int64_t ttl;
	const emdb_err err = ns_ttl(db, ns, &ttl, &basis);

	if (!err)
		*ret_basis = (enum emdb_ttl_basis)basis;
	return err;
}

emdb_err emdb_sweep(emdb_db *db, uint64_t *ret_removed)
{
	uint64_t removed;
	emdb_err err = db_writable(db);

	if (!err)
		err = expire_step(db, UINT64_MAX, &removed);
	if (!err)
		*ret_removed = removed;
	return err;
}

emdb_err emdb_ttl_parse(const char *s, size_t n, int64_t now_ms, int64_t current_ms,
			int64_t *ret_expires_ms)
{
	int64_t expires;
	const int ret = ttl_parse(s, n, now_ms, current_ms, &expires);

	if (ret)
		return ret == -ERANGE ? EMDB_ERR_OVERFLOW : EMDB_ERR_INVAL;
	*ret_expires_ms = expires ? expires : EMDB_TTL_NEVER;
	return EMDB_OK;
}

emdb_err emdb_duration_parse(const char *s, size_t n, int64_t *ret_ms)
{
	const int ret = ttl_parse_duration(s, n, ret_ms);

	if (ret)
		return ret == -ERANGE ? EMDB_ERR_OVERFLOW : EMDB_ERR_INVAL;
	return EMDB_OK;
}

int64_t emdb_now_ms(emdb_db *db)
{
	return db_now_ms(db);
}
