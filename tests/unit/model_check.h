/* SPDX-License-Identifier: Apache-2.0 */
/* Compares an open store with the model. */
#ifndef EMDB_TEST_MODEL_CHECK_H
#define EMDB_TEST_MODEL_CHECK_H

#include "tests/unit/model.h"

#define M_FAIL(...)                                                                             \
	(printf("op %" PRIu64 ": %s; last seen: object %" PRIu64 "\n", m->ops, m->op, m->seen), \
	 FAIL(__VA_ARGS__))

static const char *const m_xattr_names[M_XATTRS] = { "user.a", "user.emdb.expires", "security.x",
						     "user.a-longer-name.with.dots" };

static void want_err(emdb_err got, emdb_err want, const char *what)
{
	if (got != want)
		M_FAIL("%s gave %s, wanted %s", what, emdb_err_name(got), emdb_err_name(want));
}

static void want_u64(uint64_t got, uint64_t want, const char *what)
{
	if (got != want)
		M_FAIL("%s is %" PRIu64 ", wanted %" PRIu64, what, got, want);
}

static void want_bytes(const void *got, size_t got_len, const void *want, size_t len,
		       const char *what)
{
	const uint8_t *const a = got, *const b = want;
	size_t i = 0;

	if (got_len != len)
		M_FAIL("%s has %zu bytes, wanted %zu", what, got_len, len);
	if (len == 0 || memcmp(got, want, len) == 0)
		return;
	while (a[i] == b[i])
		i++;
	M_FAIL("%s, %zu bytes, differs from byte %zu on: %02x for %02x", what, len, i, a[i], b[i]);
}

#define OK(x) want_err(x, EMDB_OK, #x)

/* ---- One object ---- */

static void check_attr(const struct m_obj *o, const struct emdb_attr *a)
{
	m->seen = o->id;
	want_u64(a->id, o->id, "id");
	want_u64(a->size, o->size, "size");
	want_u64(a->mode, o->mode, "mode");
	want_u64(a->uid, o->uid, "uid");
	want_u64(a->gid, o->gid, "gid");
	want_u64((uint64_t)a->btime_ns, (uint64_t)o->btime, "btime");
	if (o->expired)
		return;
	want_u64(a->nlink, o->nlink, "nlink");
	want_u64((uint64_t)a->mtime_ns, (uint64_t)o->mtime, "mtime");
	want_u64((uint64_t)a->atime_ns, (uint64_t)o->atime, "atime");
	if (!o->nlink)
		return;
	want_u64((uint64_t)a->ctime_ns, (uint64_t)o->ctime, "ctime");
	want_u64((uint64_t)a->expires_ms, (uint64_t)o->expires_ms, "expires_ms");
}

static void check_xattrs(emdb_db *db, uint64_t id, const struct m_xattr x[M_XATTRS])
{
	static uint8_t buf[M_XATTR];
	char list[512];
	size_t n, want = 0;

	for (int i = 0; i < M_XATTRS; i++) {
		if (!x[i].set) {
			want_err(emdb_xattr_get(db, id, m_xattr_names[i], buf, sizeof(buf), &n),
				 EMDB_ERR_NO_XATTR, "absent attribute");
			continue;
		}
		want += strlen(m_xattr_names[i]) + 1;
		OK(emdb_xattr_get(db, id, m_xattr_names[i], NULL, 0, &n));
		want_u64(n, x[i].len, "attribute's length");
		OK(emdb_xattr_get(db, id, m_xattr_names[i], buf, sizeof(buf), &n));
		want_bytes(buf, n, x[i].value, x[i].len, m_xattr_names[i]);
	}
	OK(emdb_xattr_list(db, id, list, sizeof(list), &n));
	want_u64(n, want, "length of the attributes' names");
	for (const char *p = list; p < list + n; p += strlen(p) + 1) {
		int i = 0;

		while (i < M_XATTRS && strcmp(p, m_xattr_names[i]) != 0)
			i++;
		if (i == M_XATTRS || !x[i].set)
			M_FAIL("attribute %s is listed", p);
	}
}

/* Pieces of the content through both ways of reading by id; o is referenced. */
static void check_pieces(emdb_db *db, const struct m_obj *o, unsigned int n)
{
	static uint8_t buf[M_DATA_MAX];

	for (unsigned int i = 0; i < n; i++) {
		const uint64_t off = i ? below(o->size + 100) : 0;
		const size_t len = i ? below(chance(80) ? 10000 : M_DATA_MAX) : M_DATA_MAX;
		const size_t want =
			off < o->size ? (size_t)(o->size - off < len ? o->size - off : len) : 0;
		struct emdb_slices s;
		size_t got = 0;

		OK(emdb_node_read(db, o->id, off, buf, len, &got));
		want_bytes(buf, got, o->data + (want ? off : 0), want, "content read");
		if (i == 0)
			continue;
		OK(emdb_node_slices(db, o->id, off, len, &s));
		want_u64(s.len, want, "length of the slices");
		got = 0;
		for (int k = 0; k < s.count; k++) {
			memcpy(buf + got, s.iov[k].iov_base, s.iov[k].iov_len);
			got += s.iov[k].iov_len;
		}
		emdb_slices_release(db, &s);
		want_bytes(buf, got, o->data + (want ? off : 0), want, "content in slices");
	}
}

/* The key by id is one of its names. */
static void check_name(emdb_db *db, const struct m_obj *o)
{
	static char buf[EMDB_KEY_MAX];
	uint64_t parent;
	size_t n;
	const emdb_err err = emdb_node_key(db, o->id, buf, sizeof(buf), &n, &parent);
	int key;

	if (!o->nlink) {
		want_err(err, EMDB_ERR_NOT_FOUND, "name of what has none");
		return;
	}
	OK(err);
	key = m_key_index(buf, n);
	for (int i = 0; i < M_ENTRIES; i++) {
		const struct m_entry *const e = &m->entries[i];

		if (e->used && e->key == key && m->nss[e->ns].id == parent && e->obj >= 0 &&
		    &m->objs[e->obj] == o)
			return;
	}
	M_FAIL("key %d in %" PRIu64 " is no name of object %" PRIu64, key, parent, o->id);
}

/* Everything about an object that is referenced. */
static void check_obj(emdb_db *db, const struct m_obj *o)
{
	struct emdb_attr a;

	OK(emdb_node_getattr(db, o->id, &a));
	check_attr(o, &a);
	check_pieces(db, o, 3);
	if (o->expired)
		return;
	check_xattrs(db, o->id, o->x);
	check_name(db, o);
}

/* ---- One entry ---- */

static void check_file(emdb_db *db, const struct m_entry *e)
{
	const struct m_obj *const o = &m->objs[e->obj];
	const uint64_t ns = m->nss[e->ns].id;
	struct emdb_attr a;
	void *value;
	size_t n, len;
	const void *const key = m_key(e->key, &n);
	int64_t expires = -1;

	OK(emdb_get(db, ns, key, n, &value, &len));
	want_bytes(value, len, o->data, o->size, "value");
	want_u64(((uint8_t *)value)[len], 0, "byte behind the value");
	emdb_free(value);
	OK(emdb_ttl_get(db, ns, key, n, &expires));
	want_u64((uint64_t)expires, (uint64_t)o->expires_ms, "deadline");
	OK(emdb_node_lookup(db, ns, key, n, &a));
	check_attr(o, &a);
	check_xattrs(db, o->id, o->x);
	emdb_node_forget(db, a.id, 1);
}

static void check_absent(emdb_db *db, int ns, int key)
{
	bool found = true;
	size_t n, len;
	const void *const k = m_key(key, &n);
	void *value;

	want_err(emdb_get(db, m->nss[ns].id, k, n, &value, &len), EMDB_ERR_NOT_FOUND, "absent get");
	OK(emdb_contains(db, m->nss[ns].id, k, n, &found));
	want_u64(found, false, "contains");
}

static void check_key(emdb_db *db, int ns, int key)
{
	const struct m_entry *const e = m_find(ns, key);
	size_t n;
	const void *const k = m_key(key, &n);
	uint64_t id = 0;

	if (!e) {
		check_absent(db, ns, key);
	} else if (e->obj >= 0) {
		check_file(db, e);
	} else {
		OK(emdb_ns_open(db, m->nss[ns].id, k, n, &id));
		want_u64(id, m->nss[e->child].id, "namespace's id");
	}
}

/* ---- One namespace ---- */

struct listing {
	int ns;
	unsigned int limit, taken;
	uint64_t pos;
	bool seen[M_KEYS];
};

static bool check_dirent(void *ctx, const void *key, size_t n, const struct emdb_attr *a,
			 uint64_t next)
{
	struct listing *const l = ctx;
	const int k = m_key_index(key, n);
	const struct m_entry *const e = m_find(l->ns, k);

	if (l->taken == l->limit)
		return false;
	if (!a)
		M_FAIL("key %d is listed as damaged", k);
	if (!e || l->seen[k])
		M_FAIL("key %d is listed %s", k, e ? "twice" : "but gone");
	l->seen[k] = true;
	l->taken++;
	l->pos = next;
	if (e->obj >= 0)
		check_attr(&m->objs[e->obj], a);
	else
		want_u64(a->id, m->nss[e->child].id, "listed namespace's id");
	return true;
}

/* In pieces of a few entries, as a kernel reads. */
static void check_listing(emdb_db *db, int ns)
{
	const unsigned int step = 1 + (unsigned int)below(M_KEYS + 2);
	struct listing l = { .ns = ns, .limit = step };
	unsigned int seen = 0;

	for (;;) {
		OK(emdb_node_readdir(db, m->nss[ns].id, l.pos, 0, check_dirent, &l));
		seen += l.taken;
		if (l.taken < step)
			break;
		l.taken = 0;
	}
	want_u64(seen, m_count(ns), "number of listed entries");
}

static void check_iter(emdb_db *db, int ns, unsigned int flags)
{
	bool seen[M_KEYS] = { false };
	struct emdb_entry got;
	emdb_iter *it;
	emdb_err err;

	OK(emdb_iter_new(db, m->nss[ns].id, flags, &it));
	while ((err = emdb_iter_next(it, &got)) == EMDB_OK) {
		const int k = m_key_index(got.key, got.key_len);
		const struct m_entry *const e = m_find(ns, k);

		if (!e || seen[k])
			M_FAIL("iteration gives key %d %s", k, e ? "twice" : "that is gone");
		seen[k] = true;
		want_u64(got.is_ns, e->obj < 0, "is_ns");
		want_u64(got.id, e->obj < 0 ? m->nss[e->child].id : m->objs[e->obj].id, "id");
		if (e->obj < 0)
			continue;
		want_u64((uint64_t)got.expires_ms, (uint64_t)m->objs[e->obj].expires_ms, "expires");
		if (flags & EMDB_ITER_VALUES)
			want_bytes(got.value, got.value_len, m->objs[e->obj].data,
				   m->objs[e->obj].size, "iterated value");
	}
	emdb_iter_free(it);
	want_err(err, EMDB_ERR_NOT_FOUND, "iteration");
	for (int k = 0; k < M_KEYS; k++) {
		const struct m_entry *const e = m_find(ns, k);
		const bool wanted =
			e && !(e->obj < 0 ? flags & EMDB_ITER_KEYS : flags & EMDB_ITER_NS);

		want_u64(seen[k], wanted, "whether an entry was iterated");
	}
}

static void check_ns(emdb_db *db, int ns)
{
	const struct m_ns *const n = &m->nss[ns];
	enum emdb_ttl_basis basis;
	struct emdb_attr a;
	uint64_t count;
	int64_t ttl;

	OK(emdb_count(db, n->id, &count));
	want_u64(count, m_count(ns), "count");
	check_listing(db, ns);
	check_iter(db, ns, EMDB_ITER_VALUES);
	check_iter(db, ns, EMDB_ITER_KEYS);
	check_iter(db, ns, EMDB_ITER_NS);
	OK(emdb_ns_ttl_get(db, n->id, &ttl));
	want_u64((uint64_t)ttl, (uint64_t)n->ttl_ms, "default lifetime");
	OK(emdb_ns_basis_get(db, n->id, &basis));
	want_u64(basis, n->basis, "basis");
	OK(emdb_node_getattr(db, n->id, &a));
	want_u64(a.id, n->id, "namespace's id");
	if (ns)
		want_u64(a.parent, m->nss[n->parent].id, "parent");
	if (!m->frozen)
		want_u64(a.size, count, "namespace's size");
	check_xattrs(db, n->id, n->x);
}

/* Nothing happened to the directory since remember_dirs(). */
static void check_dir_times(emdb_db *db, const struct m_ns *n)
{
	struct emdb_attr a;

	if (n->stale || !n->seen.id)
		return;
	OK(emdb_node_getattr(db, n->id, &a));
	want_u64((uint64_t)a.mtime_ns, (uint64_t)n->seen.mtime_ns, "directory's mtime");
	want_u64((uint64_t)a.ctime_ns, (uint64_t)n->seen.ctime_ns, "directory's ctime");
	want_u64((uint64_t)a.btime_ns, (uint64_t)n->seen.btime_ns, "directory's btime");
	want_u64(a.mode, n->seen.mode, "directory's mode");
	want_u64(a.nlink, n->seen.nlink, "directory's nlink");
}

/* ---- All of it ---- */

static void check_all(emdb_db *db)
{
	unsigned int files = 0, nss = 0;
	struct emdb_stats st;

	m_expire();
	for (int i = 0; i < M_NSS; i++)
		if (m->nss[i].used) {
			check_ns(db, i);
			check_dir_times(db, &m->nss[i]);
		}
	for (int i = 0; i < M_ENTRIES; i++) {
		if (!m->entries[i].used)
			continue;
		files += m->entries[i].obj >= 0;
		nss += m->entries[i].obj < 0;
		if (m->entries[i].obj >= 0)
			check_file(db, &m->entries[i]);
	}
	for (int i = 0; i < M_OBJS; i++)
		if (m->objs[i].used && m->objs[i].refs)
			check_obj(db, &m->objs[i]);
	OK(emdb_stats_get(db, &st));
	want_u64(st.failed, false, "stats.failed");
	if (m->frozen)
		return;
	want_u64(st.records, files, "stats.records");
	want_u64(st.namespaces, nss, "stats.namespaces");
}

/* What the store says of directories' times, to be found again. */
static void remember_dirs(emdb_db *db)
{
	for (int i = 0; i < M_NSS; i++)
		if (m->nss[i].used && !m->nss[i].stale)
			OK(emdb_node_getattr(db, m->nss[i].id, &m->nss[i].seen));
}

#endif
