/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations, each done to an open store and to the model, with what can be compared at
 * once: keys and values, deadlines, namespaces. The rest of them is in model_ops.h.
 */
#ifndef EMDB_TEST_MODEL_KV_H
#define EMDB_TEST_MODEL_KV_H

#include "tests/unit/model_check.h"

static const char *dir; /* NULL: in memory */
static emdb_db *db;

#define DOING(...) (void)snprintf(m->op, sizeof(m->op), __VA_ARGS__)

/* ---- Choosing ---- */

static int any_ns(void)
{
	int i;

	do
		i = chance(40) ? 0 : (int)below(M_NSS);
	while (!m->nss[i].used);
	return i;
}

/* A key of ns, more often one that exists than chance would have it. */
static int any_key(int ns)
{
	const int start = (int)below(M_ENTRIES);

	if (chance(50))
		return (int)below(M_KEYS);
	for (int i = 0; i < M_ENTRIES; i++) {
		const struct m_entry *const e = &m->entries[(start + i) % M_ENTRIES];

		if (e->used && e->ns == ns)
			return e->key;
	}
	return (int)below(M_KEYS);
}

static uint64_t any_size(void)
{
	const unsigned int dice = (unsigned int)below(100);

	if (dice < 60)
		return below(300);
	if (dice < 85)
		return below(12000);
	if (dice < 92)
		return 8192 - 20 + below(40);
	if (dice < 96)
		return below(200000);
	return dice < 98 ? (1 << 20) - 20 + below(40) : below(M_DATA_MAX);
}

static const uint8_t *any_data(size_t n)
{
	static uint8_t buf[M_DATA_MAX + 8];

	for (size_t i = 0; i < n; i += 8) {
		const uint64_t v = test_rand(&m->rnd);

		memcpy(buf + i, &v, 8);
	}
	return buf;
}

/* ---- References ---- */

/* A named object, referenced once more; -1: there is none. */
static int grab(bool regular)
{
	const int start = (int)below(M_ENTRIES);

	/* Sometimes one that is open already, perhaps without a name. */
	for (int i = 0; chance(30) && i < M_OBJS; i++) {
		struct m_obj *const o = &m->objs[(start + i) % M_OBJS];

		if (o->used && o->refs && !o->expired && (!regular || S_ISREG(o->mode))) {
			struct emdb_attr a;

			if (!o->nlink)
				return (start + i) % M_OBJS;
			OK(emdb_node_getattr(db, o->id, &a));
			check_attr(o, &a);
			return (start + i) % M_OBJS;
		}
	}
	for (int i = 0; i < M_ENTRIES; i++) {
		const struct m_entry *const e = &m->entries[(start + i) % M_ENTRIES];
		struct emdb_attr a;
		const void *key;
		size_t n;

		if (!e->used || e->obj < 0 || (regular && !S_ISREG(m->objs[e->obj].mode)))
			continue;
		key = m_key(e->key, &n);
		OK(emdb_node_lookup(db, m->nss[e->ns].id, key, n, &a));
		m->objs[e->obj].refs++;
		check_attr(&m->objs[e->obj], &a);
		return e->obj;
	}
	return -1;
}

/* Looks at it and, mostly, gives the references back. */
static void done_with(int obj)
{
	struct m_obj *const o = &m->objs[obj];

	check_obj(db, o);
	if (chance(15))
		return;
	emdb_node_forget(db, o->id, o->refs);
	m_forgot(o, o->refs);
}

/* ---- Keys and values ---- */

static int64_t any_deadline(void)
{
	switch (below(6)) {
	case 0:
		return m_now_ms() + 1 + (int64_t)below(50);
	case 1:
		return m_now_ms() + 1000000 + (int64_t)below(1000);
	case 2:
		return EMDB_TTL_NEVER;
	default:
		return EMDB_TTL_DEFAULT;
	}
}

/* The default of a namespace, of the store when it has none. */
static int64_t lifetime(const struct m_ns *n)
{
	return n->ttl_ms ? n->ttl_ms : m->default_ttl_ms;
}

static int64_t deadline_in(int ns, int64_t asked)
{
	if (asked == EMDB_TTL_NEVER)
		return 0;
	if (asked != EMDB_TTL_DEFAULT)
		return asked;
	return lifetime(&m->nss[ns]) ? m_now_ms() + lifetime(&m->nss[ns]) : 0;
}

/* The id that the store gave a new entry. */
static uint64_t id_of(int ns, int key)
{
	struct emdb_attr a;
	size_t n;
	const void *const k = m_key(key, &n);

	OK(emdb_node_lookup(db, m->nss[ns].id, k, n, &a));
	emdb_node_forget(db, a.id, 1);
	return a.id;
}

/* What a successful put means. */
static void model_put(int ns, int key, const uint8_t *data, size_t len, int64_t asked, bool many)
{
	struct m_entry *e = m_find(ns, key);
	const uint64_t id = id_of(ns, key);
	struct m_obj *o;

	/* put_many gives one of several names a new object where put changes the shared one. */
	if (e && many && m->objs[e->obj].id != id) {
		if (m->objs[e->obj].nlink == 1 && !m->twice)
			M_FAIL("key %d has a new object", key);
		m_remove(e);
		e = NULL;
	}
	if (!e) {
		e = m_add(ns, key, m_new_obj(S_IFREG | 0600), 0);
		o = &m->objs[e->obj];
		o->id = id;
		o->nlink = 1;
		m_new_id(id);
	}
	o = &m->objs[e->obj];
	m_resize(o, 0);
	m_resize(o, len);
	if (len)
		memcpy(o->data, data, len);
	o->mtime = o->ctime = m->now_ns;
	o->expires_ms = deadline_in(ns, asked);
}

static void op_put(void)
{
	const int ns = any_ns(), key = any_key(ns);
	const struct m_entry *const e = m_find(ns, key);
	const size_t len = any_size();
	const uint8_t *const data = any_data(len);
	const int64_t deadline = any_deadline();
	const emdb_err want = e && e->obj < 0 ? EMDB_ERR_IS_NS : EMDB_OK;
	size_t n;
	const void *const k = m_key(key, &n);

	if (!e && m_free_obj() < 0)
		return;
	DOING("put ns %d key %d, %zu bytes, deadline %" PRId64, ns, key, len, deadline);
	want_err(emdb_put(db, m->nss[ns].id, k, n, data, len, deadline), want, "put");
	if (!want)
		model_put(ns, key, data, len, deadline, false);
	check_key(db, ns, key);
}

static void op_get(void)
{
	const int ns = any_ns(), key = any_key(ns);
	const struct m_entry *const e = m_find(ns, key);
	struct emdb_ref ref;
	size_t n;
	const void *const k = m_key(key, &n);
	emdb_err err;

	DOING("get ns %d key %d", ns, key);
	check_key(db, ns, key);
	err = emdb_get_ref(db, m->nss[ns].id, k, n, &ref);
	want_err(err, !e ? EMDB_ERR_NOT_FOUND : e->obj < 0 ? EMDB_ERR_IS_NS : EMDB_OK, "get_ref");
	if (err)
		return;
	want_bytes(ref.data, ref.len, m->objs[e->obj].data, m->objs[e->obj].size, "reference");
	emdb_ref_release(&ref);
}

static void op_remove(void)
{
	const int ns = any_ns(), key = any_key(ns);
	struct m_entry *const e = m_find(ns, key);
	const emdb_err want = !e ? EMDB_ERR_NOT_FOUND : e->obj < 0 ? EMDB_ERR_IS_NS : EMDB_OK;
	const bool hand_over = chance(50);
	void *value = NULL;
	size_t n, len = 0;
	const void *const k = m_key(key, &n);

	DOING("remove ns %d key %d", ns, key);
	want_err(emdb_remove(db, m->nss[ns].id, k, n, hand_over ? &value : NULL, &len), want,
		 "remove");
	if (!want && hand_over)
		want_bytes(value, len, m->objs[e->obj].data, m->objs[e->obj].size, "removed value");
	emdb_free(value);
	if (!want)
		m_remove(e);
	check_key(db, ns, key);
}

#define MANY 8

/*
 * What a batch of items on the same key does to one that is open or has other
 * names is left open; otherwise the last of them counts.
 */
static bool any_items(int ns, struct emdb_item items[MANY], size_t n, int keys[MANY])
{
	static uint8_t values[MANY][12000];

	m->twice = false;
	for (size_t i = 0; i < n; i++) {
		struct emdb_item *const it = &items[i];
		const struct m_entry *e;
		bool twice = false;

		keys[i] = any_key(ns);
		e = m_find(ns, keys[i]);
		*it = (struct emdb_item){ .value = values[i], .remove = chance(25) };
		it->key = m_key(keys[i], &it->key_len);
		it->value_len = below(chance(80) ? 200 : 12000);
		memcpy(values[i], any_data(it->value_len), it->value_len);
		it->expires_ms = any_deadline();
		for (size_t k = 0; k < i; k++)
			twice = twice || keys[k] == keys[i];
		/* Items before may take the object's other names away: what counts is the batch's start. */
		m->twice = m->twice || twice || (e && e->obj >= 0 && m->objs[e->obj].nlink > 1);
		if (twice && e && e->obj >= 0 &&
		    (m->objs[e->obj].refs || m->objs[e->obj].nlink > 1))
			return false;
	}
	return true;
}

static bool is_last(const int keys[MANY], size_t n, size_t i)
{
	for (size_t k = i + 1; k < n; k++)
		if (keys[k] == keys[i])
			return false;
	return true;
}

static void op_put_many(void)
{
	const int ns = any_ns();
	const size_t n = below(MANY + 1);
	struct emdb_item items[MANY];
	emdb_err want = EMDB_OK;
	int keys[MANY], room = 0;

	for (int i = 0; i < M_OBJS; i++)
		room += !m->objs[i].used;
	if (room < MANY || !any_items(ns, items, n, keys))
		return;
	for (size_t i = 0; i < n; i++)
		if (m_find(ns, keys[i]) && m_find(ns, keys[i])->obj < 0)
			want = EMDB_ERR_IS_NS;
	DOING("put_many ns %d, %zu items", ns, n);
	want_err(emdb_put_many(db, m->nss[ns].id, items, n), want, "put_many");
	for (size_t i = 0; !want && i < n; i++) {
		struct m_entry *const e = m_find(ns, keys[i]);

		if (!is_last(keys, n, i))
			continue;
		if (!items[i].remove)
			model_put(ns, keys[i], items[i].value, items[i].value_len,
				  items[i].expires_ms, true);
		else if (e)
			m_remove(e);
	}
	for (size_t i = 0; i < n; i++)
		check_key(db, ns, keys[i]);
}

/* One key a step, no key twice; *ret_n is how many are in it. */
static void txn_steps(emdb_txn *t, struct emdb_item items[MANY], int nss[MANY], int keys[MANY],
		      size_t *ret_n)
{
	const size_t n = 1 + below(MANY);

	*ret_n = 0;
	for (size_t i = 0; i < n; i++) {
		struct emdb_item *const it = &items[*ret_n];
		const int ns = any_ns(), key = any_key(ns);
		const struct m_entry *const e = m_find(ns, key);
		emdb_err want = e && e->obj < 0 ? EMDB_ERR_IS_NS : EMDB_OK;
		bool twice = false;
		size_t len;
		const void *const k = m_key(key, &len);

		for (size_t x = 0; x < *ret_n; x++)
			twice = twice || (keys[x] == key && nss[x] == ns);
		if (twice)
			continue;
		*it = (struct emdb_item){ .key = k, .key_len = len, .remove = chance(25) };
		if (it->remove) {
			want = want ? want : e ? EMDB_OK : EMDB_ERR_NOT_FOUND;
			want_err(emdb_txn_remove(t, m->nss[ns].id, k, len), want, "txn_remove");
		} else {
			it->value_len = any_size();
			it->value = memcpy(malloc(it->value_len + 1), any_data(it->value_len),
					   it->value_len);
			it->expires_ms = any_deadline();
			want_err(emdb_txn_put(t, m->nss[ns].id, k, len, it->value, it->value_len,
					      it->expires_ms),
				 want, "txn_put");
		}
		if (want) {
			free((void *)(uintptr_t)it->value);
			continue;
		}
		nss[*ret_n] = ns;
		keys[(*ret_n)++] = key;
	}
}

/* Several changes in several namespaces: done, undone, or refused because of one in between. */
static void op_txn(void)
{
	struct emdb_item items[MANY];
	int nss[MANY], keys[MANY], room = 0;
	emdb_err want = EMDB_OK;
	emdb_txn *t;
	size_t n;

	for (int i = 0; i < M_OBJS; i++)
		room += !m->objs[i].used;
	if (room < MANY + 1)
		return;
	DOING("txn");
	OK(emdb_txn_begin(db, NULL, &t));
	txn_steps(t, items, nss, keys, &n);
	if (n && chance(15)) {
		OK(emdb_put(db, m->nss[nss[0]].id, items[0].key, items[0].key_len, "x", 1, 0));
		model_put(nss[0], keys[0], (const uint8_t *)"x", 1, 0, false);
		want = EMDB_ERR_CONFLICT;
	}
	if (!want && chance(20)) {
		emdb_txn_abort(t);
		want = EMDB_ERR_CANCELLED;
	} else {
		want_err(emdb_txn_commit(t, chance(10) ? EMDB_COMMIT_DURABLE : 0), want, "commit");
	}
	for (size_t i = 0; i < n; i++) {
		if (!want && items[i].remove)
			m_remove(m_find(nss[i], keys[i]));
		else if (!want)
			model_put(nss[i], keys[i], items[i].value, items[i].value_len,
				  items[i].expires_ms, false);
		free((void *)(uintptr_t)items[i].value);
	}
	for (size_t i = 0; i < n; i++)
		check_key(db, nss[i], keys[i]);
}

static void op_clear(void)
{
	const int ns = any_ns();

	if (!chance(ns ? 20 : 4))
		return;
	DOING("clear ns %d", ns);
	OK(emdb_clear(db, m->nss[ns].id));
	m_empty_ns(ns);
	check_ns(db, ns);
}

/* ---- Deadlines ---- */

static void op_ttl_set(void)
{
	const int ns = any_ns(), key = any_key(ns);
	struct m_entry *const e = m_find(ns, key);
	const emdb_err want = !e ? EMDB_ERR_NOT_FOUND : e->obj < 0 ? EMDB_ERR_IS_NS : EMDB_OK;
	const int64_t t = chance(20)   ? EMDB_TTL_NEVER
			  : chance(10) ? m_now_ms()
				       : m_now_ms() + 1 + (int64_t)below(chance(50) ? 60 : 1000000);
	size_t n;
	const void *const k = m_key(key, &n);

	DOING("ttl_set ns %d key %d to %" PRId64, ns, key, t);
	want_err(emdb_ttl_set(db, m->nss[ns].id, k, n, t), want, "ttl_set");
	if (!want) {
		m->objs[e->obj].expires_ms = t == EMDB_TTL_NEVER ? 0 : t;
		m->objs[e->obj].ctime = m->now_ns;
	}
	m_expire();
	check_key(db, ns, key);
}

static void op_sweep(void)
{
	uint64_t removed;

	DOING("sweep");
	OK(emdb_sweep(db, &removed));
	for (int i = 0; i < M_NSS; i++)
		m->nss[i].stale = false;
}

static void op_ns_defaults(void)
{
	const int ns = any_ns();
	struct m_ns *const n = &m->nss[ns];

	if (chance(60)) {
		n->ttl_ms = chance(50) ? 0 : 1 + (int64_t)below(chance(50) ? 100 : 100000);
		DOING("ns_ttl_set ns %d to %" PRId64, ns, n->ttl_ms);
		OK(emdb_ns_ttl_set(db, n->id, n->ttl_ms));
	} else {
		n->basis = chance(50) ? EMDB_BASIS_CREATE : EMDB_BASIS_MODIFY;
		DOING("ns_basis_set ns %d to %d", ns, n->basis);
		OK(emdb_ns_basis_set(db, n->id, n->basis));
	}
	check_ns(db, ns);
}

/* With basis modify a change of the content starts the clock again. */
static void rearm(struct m_obj *o, int obj)
{
	const struct m_ns *in = NULL;

	for (int i = 0; i < M_ENTRIES; i++) {
		const struct m_entry *const e = &m->entries[i];

		if (!e->used || e->obj != obj)
			continue;
		if (in && in != &m->nss[e->ns]) {
			/* Names in several namespaces: which one counts is not said. */
			struct emdb_attr a;

			OK(emdb_node_getattr(db, o->id, &a));
			o->expires_ms = a.expires_ms;
			return;
		}
		in = &m->nss[e->ns];
	}
	if (o->expires_ms && in && in->basis == EMDB_BASIS_MODIFY && lifetime(in))
		o->expires_ms = m_now_ms() + lifetime(in);
}

/* ---- Namespaces ---- */

static void op_ns_create(void)
{
	const int ns = any_ns(), key = any_key(ns), child = m_free_ns();
	const emdb_err want = m_find(ns, key) ? EMDB_ERR_EXISTS : EMDB_OK;
	size_t n;
	const void *const k = m_key(key, &n);
	uint64_t id = 0;

	if (child < 0)
		return;
	DOING("ns_create ns %d key %d", ns, key);
	want_err(emdb_ns_create(db, m->nss[ns].id, k, n, &id), want, "ns_create");
	if (want)
		return;
	m_new_id(id);
	m_add(ns, key, -1, child);
	m->nss[child] = (struct m_ns){ .used = true, .id = id, .parent = ns };
	m->nss[child].ttl_ms = m->nss[ns].ttl_ms;
	m->nss[child].basis = m->nss[ns].basis;
	check_key(db, ns, key);
	check_ns(db, child);
}

static void op_ns_drop(void)
{
	const int ns = any_ns(), key = any_key(ns);
	struct m_entry *const e = m_find(ns, key);
	const bool recursive = chance(30);
	const uint64_t id = e && e->obj < 0 ? m->nss[e->child].id : 0;
	size_t n;
	const void *const k = m_key(key, &n);
	uint64_t count;
	emdb_err want = EMDB_OK;

	if (!e)
		want = EMDB_ERR_NOT_FOUND;
	else if (e->obj >= 0)
		want = EMDB_ERR_NOT_NS;
	else if (!recursive && m_count(e->child))
		want = EMDB_ERR_NOT_EMPTY;
	DOING("ns_drop ns %d key %d%s", ns, key, recursive ? ", recursive" : "");
	want_err(emdb_ns_drop(db, m->nss[ns].id, k, n, recursive), want, "ns_drop");
	if (!want) {
		m_remove(e);
		want_err(emdb_count(db, id, &count), EMDB_ERR_NOT_FOUND, "count of a dropped one");
		want_err(emdb_put(db, id, "x", 1, "y", 1, 0), EMDB_ERR_NOT_FOUND,
			 "put into a dropped one");
	}
	check_key(db, ns, key);
}

#endif
