/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: reading a view, own writes, validation and commit. */
#include "core/txn.h"

#include "core/iter.h"
#include "core/kv_i.h"

#define SLOTS_MIN 64u
/* What a record takes in the frame besides key and value, about. */
#define REC_OVERHEAD 96u

/* A key that the transaction read or wrote. */
struct txn_item {
	struct txn_item *chain; /* in the table */
	struct txn_item *next;  /* in order of first use */
	uint64_t ns, hash;
	uint64_t written; /* number of its first write, 0: only read */
	bool remove;      /* the last write */
	void *value;      /* else what it wrote */
	size_t value_len;
	int64_t expires_ms; /* 0: never */
	size_t key_len;
	uint8_t key[];
};

struct txn_iter;

struct emdb_txn {
	emdb_db *db;
	struct emdb_txn *next, **prev; /* in db->txns; guarded by db->txn_lock */
	struct view *view;
	unsigned int flags;
	struct txn_item **slots; /* power of two */
	size_t nslots, count;
	struct txn_item *first, **last;
	uint64_t writes;   /* counts them */
	uint64_t bytes;    /* of the frame, about */
	struct buf walked; /* uint64_t: namespaces that were iterated */
	struct txn_iter *iters;
};

/* A walk over the view, then over the transaction's own writes. */
struct txn_iter {
	struct view_iter vi;
	struct emdb_txn *txn; /* NULL: it is over */
	struct txn_iter *next, **prev;
	uint64_t writes;      /* later ones are not shown */
	struct txn_item *own; /* the next to be looked at; NULL: the view is not through */
	bool view_done;
};

/* ---- Keys read and written ------------------------------------------------------ */

static struct txn_item *find_item(const struct emdb_txn *t, uint64_t ns, uint64_t hash,
				  const void *key, size_t key_len)
{
	struct txn_item *it = t->nslots ? t->slots[(hash >> 3) & (t->nslots - 1)] : NULL;

	while (it && !(it->hash == hash && it->ns == ns && it->key_len == key_len &&
		       (!key_len || memcmp(it->key, key, key_len) == 0)))
		it = it->chain;
	return it;
}

static emdb_err grow(struct emdb_txn *t)
{
	const size_t n = t->nslots ? t->nslots * 2 : SLOTS_MIN;
	struct txn_item **const slots = base_calloc(n, sizeof(struct txn_item *));

	if (!slots)
		return EMDB_ERR_NOMEM;
	for (struct txn_item *it = t->first; it; it = it->next) {
		struct txn_item **const to = &slots[(it->hash >> 3) & (n - 1)];

		it->chain = *to;
		*to = it;
	}
	base_free(t->slots);
	t->slots = slots;
	t->nslots = n;
	return EMDB_OK;
}

static emdb_err get_item(struct emdb_txn *t, uint64_t ns, uint64_t hash, const void *key,
			 size_t key_len, struct txn_item **ret)
{
	struct txn_item *it = find_item(t, ns, hash, key, key_len);
	struct txn_item **to;

	if (!it) {
		if (t->count >= t->nslots && grow(t))
			return EMDB_ERR_NOMEM;
		it = base_calloc(1, sizeof(*it) + key_len);
		if (!it)
			return EMDB_ERR_NOMEM;
		it->ns = ns;
		it->hash = hash;
		it->key_len = key_len;
		if (key_len)
			memcpy(it->key, key, key_len);
		to = &t->slots[(hash >> 3) & (t->nslots - 1)];
		it->chain = *to;
		*to = it;
		*t->last = it;
		t->last = &it->next;
		t->count++;
	}
	*ret = it;
	return EMDB_OK;
}

/* ---- Beginning and ending ----------------------------------------------------------- */

emdb_err emdb_txn_begin(emdb_db *db, const struct emdb_txn_options *opts, emdb_txn **ret_txn)
{
	struct emdb_txn *t;
	emdb_err err;

	if (opts && (opts->size != sizeof(*opts) ||
		     opts->flags & ~(EMDB_TXN_READ_ONLY | EMDB_TXN_SNAPSHOT)))
		return EMDB_ERR_INVAL;
	t = base_calloc(1, sizeof(*t));
	if (!t)
		return EMDB_ERR_NOMEM;
	t->db = db;
	t->flags = opts ? opts->flags : 0;
	t->last = &t->first;
	err = view_new(db, &t->view);
	if (err) {
		base_free(t);
		return err;
	}
	mutex_lock(&db->txn_lock);
	t->next = db->txns;
	t->prev = &db->txns;
	if (t->next)
		t->next->prev = &t->next;
	db->txns = t;
	mutex_unlock(&db->txn_lock);
	*ret_txn = t;
	return EMDB_OK;
}

static void txn_free(struct emdb_txn *t)
{
	struct txn_item *next;

	mutex_lock(&t->db->txn_lock);
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	mutex_unlock(&t->db->txn_lock);
	while (t->iters) {
		t->iters->txn = NULL;
		t->iters = t->iters->next;
	}
	for (struct txn_item *it = t->first; it; it = next) {
		next = it->next;
		base_free(it->value);
		base_free(it);
	}
	view_unref(t->view);
	buf_release(&t->walked);
	base_free(t->slots);
	base_free(t);
}

void emdb_txn_abort(emdb_txn *txn)
{
	if (txn)
		txn_free(txn);
}

void txn_abandon_all(emdb_db *db)
{
	while (db->txns)
		txn_free(db->txns);
}

/* ---- Reading --------------------------------------------------------------------------- */

/* Must what is read still be true at commit? */
static bool validates(const struct emdb_txn *t)
{
	return !(t->flags & (EMDB_TXN_READ_ONLY | EMDB_TXN_SNAPSHOT));
}

static bool own_visible(const struct emdb_txn *t, const struct txn_item *it)
{
	return !it->remove && !(it->expires_ms && ttl_expired(it->expires_ms, db_now_ms(t->db)));
}

/* *ret_own: the transaction wrote the key; else ret is the entry in the view. */
static emdb_err look_pinned(struct emdb_txn *t, uint64_t ns, const void *key, size_t key_len,
			    struct txn_item **ret_own, struct entry *ret)
{
	uint64_t hash;
	struct txn_item *it;
	emdb_err err;

	*ret_own = NULL;
	if (key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	hash = entry_hash(t->db, ns, key, key_len);
	it = find_item(t, ns, hash, key, key_len);
	if (it && it->written) {
		*ret_own = it;
		return own_visible(t, it) ? EMDB_OK : EMDB_ERR_NOT_FOUND;
	}
	if (!it && validates(t)) {
		err = get_item(t, ns, hash, key, key_len, &it);
		if (err)
			return err;
	}
	return view_find_pinned(t->view, ns, hash, key, key_len, ret);
}

static emdb_err copy_value(const struct txn_item *it, void **ret_value, size_t *ret_len)
{
	uint8_t *const p = base_malloc(it->value_len + 1);

	if (!p)
		return EMDB_ERR_NOMEM;
	if (it->value_len)
		memcpy(p, it->value, it->value_len);
	p[it->value_len] = 0;
	*ret_value = p;
	*ret_len = it->value_len;
	return EMDB_OK;
}

emdb_err emdb_txn_get(emdb_txn *txn, uint64_t ns, const void *key, size_t key_len, void **ret_value,
		      size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&txn->db->epoch);
	struct txn_item *own;
	struct entry e;
	emdb_err err;

	err = look_pinned(txn, ns, key, key_len, &own, &e);
	if (!err)
		err = own ? copy_value(own, ret_value, ret_len)
			  : view_value_pinned(txn->view, &e, ret_value, ret_len);
	epoch_unpin(&txn->db->epoch, pin);
	return err;
}

emdb_err emdb_txn_contains(emdb_txn *txn, uint64_t ns, const void *key, size_t key_len,
			   bool *ret_found)
{
	const unsigned int pin = epoch_pin(&txn->db->epoch);
	const bool there = view_has_ns_pinned(txn->view, ns);
	struct txn_item *own;
	struct entry e;
	emdb_err err;

	err = look_pinned(txn, ns, key, key_len, &own, &e);
	epoch_unpin(&txn->db->epoch, pin);
	if (err && (err != EMDB_ERR_NOT_FOUND || !there))
		return err;
	*ret_found = !err && (own || e.rec.kind != REC_NS);
	return EMDB_OK;
}

/* ---- Writing ------------------------------------------------------------------------------ */

/* Ready for a write of this key?  *ret_there: the key is. */
static emdb_err may_write(struct emdb_txn *t, uint64_t ns, const void *key, size_t key_len,
			  bool *ret_there)
{
	struct txn_item *own;
	struct entry e;
	unsigned int pin;
	emdb_err err = t->flags & EMDB_TXN_READ_ONLY ? EMDB_ERR_READ_ONLY : db_writable(t->db);

	if (err)
		return err;
	pin = epoch_pin(&t->db->epoch);
	err = look_pinned(t, ns, key, key_len, &own, &e);
	if (!err && !own && e.rec.kind == REC_NS)
		err = EMDB_ERR_IS_NS;
	*ret_there = !err;
	if (err == EMDB_ERR_NOT_FOUND && view_has_ns_pinned(t->view, ns))
		err = EMDB_OK;
	epoch_unpin(&t->db->epoch, pin);
	return err;
}

/* Bytes that it takes in the frame: large values have frames of their own. */
static uint64_t frame_bytes(const struct emdb_txn *t, size_t key_len, size_t value_len)
{
	return REC_OVERHEAD + key_len + (value_len > db_extent_max(t->db) ? 0 : value_len);
}

static emdb_err fits(const struct emdb_txn *t, const struct txn_item *it, size_t value_len)
{
	uint64_t bytes = t->bytes + frame_bytes(t, it->key_len, value_len);

	if (it->written)
		bytes -= frame_bytes(t, it->key_len, it->value_len);
	return bytes > min_u64(journal_payload_max(t->db->j), FMT_FRAME_MAX / 2)
		       ? EMDB_ERR_TXN_TOO_BIG
		       : EMDB_OK;
}

/* value is taken over on success; NULL with remove. */
static emdb_err write_item(struct emdb_txn *t, uint64_t ns, const void *key, size_t key_len,
			   bool removes, void *value, size_t value_len, int64_t expires_ms)
{
	struct txn_item *it;
	emdb_err err;

	err = get_item(t, ns, entry_hash(t->db, ns, key, key_len), key, key_len, &it);
	if (!err)
		err = fits(t, it, value_len);
	if (err)
		return err;
	if (it->written)
		t->bytes -= frame_bytes(t, key_len, it->value_len);
	t->bytes += frame_bytes(t, key_len, value_len);
	t->writes++;
	if (!it->written)
		it->written = t->writes;
	base_free(it->value);
	it->remove = removes;
	it->value = value;
	it->value_len = value_len;
	it->expires_ms = expires_ms;
	return EMDB_OK;
}

/* The deadline as it will be stored; 0: none. */
static emdb_err deadline(struct emdb_txn *t, uint64_t ns_id, int64_t expires_ms, int64_t *ret)
{
	const unsigned int pin = epoch_pin(&t->db->epoch);
	const struct ns *const ns = ns_find_pinned(t->db, ns_id);
	/* It was there when we began. */
	const emdb_err err = ns ? expiry_for(t->db, ns, expires_ms, ret) : EMDB_ERR_CONFLICT;

	epoch_unpin(&t->db->epoch, pin);
	return err;
}

emdb_err emdb_txn_put(emdb_txn *txn, uint64_t ns, const void *key, size_t key_len,
		      const void *value, size_t value_len, int64_t expires_ms)
{
	int64_t expires = 0;
	void *copy;
	emdb_err err;
	bool there;

	if (value_len > EMDB_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
	err = may_write(txn, ns, key, key_len, &there);
	if (!err)
		err = deadline(txn, ns, expires_ms, &expires);
	if (err)
		return err;
	copy = base_malloc(value_len + 1);
	if (!copy)
		return EMDB_ERR_NOMEM;
	if (value_len)
		memcpy(copy, value, value_len);
	err = write_item(txn, ns, key, key_len, false, copy, value_len, expires);
	if (err)
		base_free(copy);
	return err;
}

emdb_err emdb_txn_remove(emdb_txn *txn, uint64_t ns, const void *key, size_t key_len)
{
	emdb_err err;
	bool there;

	err = may_write(txn, ns, key, key_len, &there);
	if (err)
		return err;
	return there ? write_item(txn, ns, key, key_len, true, NULL, 0, 0) : EMDB_ERR_NOT_FOUND;
}

/* ---- Iterating -------------------------------------------------------------------------------- */

/* What was written before the walk began is shown from there. */
static bool shows(struct view_iter *vi, const struct entry *e)
{
	const struct txn_iter *const it = container_of(vi, struct txn_iter, vi);
	const struct txn_item *own;
	struct guard g;

	/* Its key lies in the journal: who takes the entry finds out. */
	if (!guard_begin(&g))
		return true;
	own = find_item(it->txn, vi->it.ns, e->hash, e->rec.key, e->rec.key_len);
	guard_end(&g);
	return !own || !own->written || own->written > it->writes;
}

static bool own_shown(const struct txn_iter *it, const struct txn_item *own)
{
	return own->ns == it->vi.it.ns && own->written && own->written <= it->writes &&
	       own_visible(it->txn, own) && iter_wants(&it->vi.it, false);
}

static emdb_err own_take(struct txn_iter *it, const struct txn_item *own, struct emdb_entry *ret)
{
	emdb_iter *const base = &it->vi.it;
	struct emdb_entry r = { .expires_ms = own->expires_ms };

	buf_reset(&base->key);
	base_free(base->value);
	base->value = NULL;
	if (buf_reserve(&base->key, own->key_len + 1) ||
	    buf_append(&base->key, own->key, own->key_len))
		return EMDB_ERR_NOMEM;
	if (base->flags & EMDB_ITER_VALUES && copy_value(own, &base->value, &r.value_len))
		return EMDB_ERR_NOMEM;
	r.key = base->key.data;
	r.key_len = base->key.len;
	r.value = base->value;
	*ret = r;
	return EMDB_OK;
}

static emdb_err txn_iter_next(emdb_iter *base, struct emdb_entry *ret)
{
	struct txn_iter *const it =
		container_of(container_of(base, struct view_iter, it), struct txn_iter, vi);
	emdb_err err;

	if (!it->txn)
		return EMDB_ERR_INVAL;
	if (!it->view_done) {
		err = view_iter_next(base, ret);
		if (err != EMDB_ERR_NOT_FOUND)
			return err;
		it->view_done = true;
		it->own = it->txn->first;
	}
	while (it->own) {
		const struct txn_item *const own = it->own;

		it->own = own->next;
		if (own_shown(it, own))
			return own_take(it, own, ret);
	}
	return EMDB_ERR_NOT_FOUND;
}

static void txn_iter_release(emdb_iter *base)
{
	struct txn_iter *const it =
		container_of(container_of(base, struct view_iter, it), struct txn_iter, vi);

	if (it->txn) {
		*it->prev = it->next;
		if (it->next)
			it->next->prev = it->prev;
	}
	view_iter_release(base);
}

static const struct iter_ops txn_iter_ops = { txn_iter_next, txn_iter_release };

static emdb_err note_walk(struct emdb_txn *t, uint64_t ns)
{
	const uint64_t *const ids = (const uint64_t *)(void *)t->walked.data;

	if (!validates(t))
		return EMDB_OK;
	for (size_t i = 0; i < t->walked.len / sizeof(ns); i++)
		if (ids[i] == ns)
			return EMDB_OK;
	return buf_append(&t->walked, &ns, sizeof(ns)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

emdb_err emdb_txn_iter(emdb_txn *txn, uint64_t ns, unsigned int flags, emdb_iter **ret_iter)
{
	struct txn_iter *it;
	unsigned int pin;
	bool there;

	if (flags & ~(EMDB_ITER_VALUES | EMDB_ITER_KEYS | EMDB_ITER_NS))
		return EMDB_ERR_INVAL;
	pin = epoch_pin(&txn->db->epoch);
	there = view_has_ns_pinned(txn->view, ns);
	epoch_unpin(&txn->db->epoch, pin);
	if (!there)
		return EMDB_ERR_NOT_FOUND;
	it = base_calloc(1, sizeof(*it));
	if (!it || note_walk(txn, ns)) {
		base_free(it);
		return EMDB_ERR_NOMEM;
	}
	view_ref(txn->view);
	it->vi.it.db = txn->db;
	it->vi.shows = shows;
	view_iter_init(&it->vi, &txn_iter_ops, txn->view, ns, flags);
	it->txn = txn;
	it->writes = txn->writes;
	it->next = txn->iters;
	it->prev = &txn->iters;
	if (it->next)
		it->next->prev = &it->next;
	txn->iters = it;
	*ret_iter = &it->vi.it;
	return EMDB_OK;
}

/* ---- Committing ---------------------------------------------------------------------------------- */

/* Is what the view has of the key what is there now?  CONFLICT: no. */
static emdb_err check_item_pinned(struct emdb_txn *t, const struct txn_item *it)
{
	const struct ns *const ns = ns_find_pinned(t->db, it->ns);
	struct entry was, now;
	emdb_err a, b = EMDB_ERR_NOT_FOUND;

	a = view_find_pinned(t->view, it->ns, it->hash, it->key, it->key_len, &was);
	if (a && a != EMDB_ERR_NOT_FOUND)
		return a;
	if (ns)
		b = entry_find_pinned(t->db, ns, it->hash, it->key, it->key_len, false, &now);
	if (b && b != EMDB_ERR_NOT_FOUND)
		return b;
	if (!ns && view_has_ns_pinned(t->view, it->ns))
		return EMDB_ERR_CONFLICT;
	if (a || b)
		return a == b ? EMDB_OK : EMDB_ERR_CONFLICT;
	if (was.rec.kind != now.rec.kind || was.id != now.id)
		return EMDB_ERR_CONFLICT;
	/* Wherever compaction put it: a PUT has its version, a LINK its object. */
	if (was.rec.kind == REC_PUT && view_since_pinned(t->db, was.slot, &was.rec) !=
					       view_since_pinned(t->db, now.slot, &now.rec))
		return EMDB_ERR_CONFLICT;
	if (was.rec.kind == REC_LINK && view_big_changed_pinned(t->view, was.id))
		return EMDB_ERR_CONFLICT;
	return EMDB_OK;
}

static emdb_err check_walks_pinned(struct emdb_txn *t)
{
	const uint64_t *const ids = (const uint64_t *)(void *)t->walked.data;

	for (size_t i = 0; i < t->walked.len / sizeof(*ids); i++) {
		const struct ns *const ns = ns_find_pinned(t->db, ids[i]);

		if (!ns || atomic_load(&ns->changed) >= view_lsn(t->view))
			return EMDB_ERR_CONFLICT;
	}
	return EMDB_OK;
}

static emdb_err validate_pinned(struct emdb_txn *t)
{
	emdb_err err;

	/* Nobody wrote anything since. */
	if (journal_tail(t->db->j) == view_lsn(t->view))
		return EMDB_OK;
	err = check_walks_pinned(t);
	for (const struct txn_item *it = t->first; !err && it; it = it->next)
		if (it->written || validates(t))
			err = check_item_pinned(t, it);
	return err;
}

static emdb_err add_item_pinned(struct emdb_txn *t, const struct txn_item *it, struct batch *b,
				struct buf *own)
{
	const struct emdb_item item = { .key = it->key,
					.key_len = it->key_len,
					.value = it->value,
					.value_len = it->value_len,
					.expires_ms =
						it->expires_ms ? it->expires_ms : EMDB_TTL_NEVER };
	struct op op = { .db = t->db, .ns = ns_find_pinned(t->db, it->ns), .hash = it->hash };
	struct rec r;
	emdb_err err;

	if (!op.ns)
		return EMDB_ERR_CONFLICT;
	err = op_look_pinned(&op, it->key, it->key_len);
	if (err)
		return err;
	if (!it->remove)
		return put_batch(&op, &item, b, own);
	/* It expired meanwhile: the sweeper removes it, and says so. */
	if (!op.live)
		return EMDB_OK;
	rec_of_del(&op.entry, db_now_ns(t->db), &r);
	return batch_add(b, &r);
}

static emdb_err commit_locked(struct emdb_txn *t)
{
	unsigned int flags = JOURNAL_RESERVE;
	struct batch b = BATCH_INIT;
	struct buf own = BUF_INIT;
	emdb_err err;

	err = validate_pinned(t);
	for (const struct txn_item *it = t->first; !err && it; it = it->next) {
		if (!it->written)
			continue;
		err = add_item_pinned(t, it, &b, &own);
		if (!it->remove)
			flags = 0;
	}
	if (!err)
		err = batch_commit(t->db, &b, flags);
	put_batch_end(t->db, &own, err);
	batch_release(&b);
	return err;
}

emdb_err emdb_txn_commit(emdb_txn *txn, unsigned int flags)
{
	emdb_db *const db = txn->db;
	emdb_err err = EMDB_OK;
	struct hold h;

	if (flags & ~EMDB_COMMIT_DURABLE)
		err = EMDB_ERR_INVAL;
	if (!err && txn->writes) {
		err = db_writable(db);
		if (!err) {
			hold_begin(&h, db, true);
			err = commit_locked(txn);
			hold_end(&h);
		}
		if (!err)
			err = flags & EMDB_COMMIT_DURABLE ? journal_sync(db->j) : db_written(db);
	}
	txn_free(txn);
	return err;
}
