/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations on objects and names, snapshots, and the choice among all of them. */
#ifndef EMDB_TEST_MODEL_OPS_H
#define EMDB_TEST_MODEL_OPS_H

#include "tests/unit/model_kv.h"

/* ---- Objects ---- */

static void op_create(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFLNK, S_IFIFO };
	const int ns = any_ns(), key = any_key(ns);
	const emdb_err want = m_find(ns, key) ? EMDB_ERR_EXISTS : EMDB_OK;
	const bool anon = chance(10);
	struct emdb_create what = { .uid = (uint32_t)below(2000), .gid = UINT32_MAX - 1 };
	struct emdb_attr a;
	struct m_obj *o;
	size_t n;
	const void *const k = m_key(key, &n);
	int obj;

	if (m_free_obj() < 0)
		return;
	what.mode = (anon ? S_IFREG : types[below(5)]) | (uint32_t)below(010000);
	if (S_ISLNK(what.mode)) {
		what.target = "../some/where";
		what.target_len = 13;
	}
	DOING("create ns %d key %d mode %o%s", ns, key, what.mode, anon ? ", no name" : "");
	if (anon)
		OK(emdb_node_create_anon(db, m->nss[ns].id, &what, &a));
	else
		want_err(emdb_node_create(db, m->nss[ns].id, k, n, &what, &a), want, "create");
	if (want && !anon)
		return;
	m_new_id(a.id);
	obj = m_new_obj(what.mode);
	o = &m->objs[obj];
	o->id = a.id;
	o->uid = what.uid;
	o->gid = what.gid;
	o->refs = 1;
	o->expires_ms = S_ISREG(what.mode) ? deadline_in(ns, EMDB_TTL_DEFAULT) : 0;
	m_resize(o, what.target_len);
	if (what.target_len)
		memcpy(o->data, what.target, what.target_len);
	if (!anon) {
		o->nlink = 1;
		m_add(ns, key, obj, 0);
	}
	check_attr(o, &a);
	done_with(obj);
}

static void op_write(void)
{
	const int obj = grab(true);
	struct m_obj *const o = &m->objs[obj < 0 ? 0 : obj];
	const bool append = chance(15);
	size_t len = any_size();
	uint64_t off = append       ? o->size
		       : chance(30) ? 0
		       : chance(50) ? below(o->size + 1)
				    : any_size();
	const uint8_t *data;

	if (obj < 0)
		return;
	if (off > M_DATA_MAX)
		off = M_DATA_MAX;
	if (len > M_DATA_MAX - off)
		len = M_DATA_MAX - off;
	data = any_data(len);
	DOING("write object %" PRIu64 " of %" PRIu64 " bytes: %zu at %" PRIu64 "%s", o->id, o->size,
	      len, off, append ? ", append" : "");
	OK(emdb_node_write(db, o->id, append ? below(100) : off, data, len,
			   append ? EMDB_WRITE_APPEND : 0));
	if (len) {
		if (off + len > o->size)
			m_resize(o, off + len);
		memcpy(o->data + off, data, len);
		o->mtime = o->ctime = m->now_ns;
		rearm(o, obj);
	}
	done_with(obj);
}

static uint32_t without_suid(uint32_t mode)
{
	mode &= ~(uint32_t)S_ISUID;
	return (mode & 02010) == 02010 ? mode & ~(uint32_t)S_ISGID : mode;
}

static void op_setattr(void)
{
	const int obj = grab(true);
	struct m_obj *const o = &m->objs[obj < 0 ? 0 : obj];
	const unsigned int set = (unsigned int)below(0x200) & (chance(50) ? EMDB_SET_SIZE : 0x1ffu);
	struct emdb_attr attr = { .uid = 7, .gid = (uint32_t)below(9), .mtime_ns = -5 }, got;

	if (obj < 0 || !set)
		return;
	attr.mode = (uint32_t)below(010000);
	attr.size = chance(40) ? 0 : any_size();
	attr.atime_ns = (int64_t)test_rand(&m->rnd);
	attr.ctime_ns = 12345;
	attr.expires_ms = chance(50) ? 0 : m_now_ms() + 1 + (int64_t)below(1000);
	DOING("setattr object %" PRIu64 " of %" PRIu64 " bytes: %#x, size %" PRIu64, o->id, o->size,
	      set, attr.size);
	OK(emdb_node_setattr(db, o->id, &attr, set, &got));
	o->ctime = m->now_ns;
	if (set & EMDB_SET_SIZE) {
		m_resize(o, attr.size);
		o->mtime = m->now_ns;
		rearm(o, obj);
	}
	if (set & EMDB_SET_MODE)
		o->mode = (o->mode & S_IFMT) | attr.mode;
	if (set & EMDB_SET_KILL_SUID)
		o->mode = without_suid(o->mode);
	if (set & EMDB_SET_UID)
		o->uid = attr.uid;
	if (set & EMDB_SET_GID)
		o->gid = attr.gid;
	if (set & EMDB_SET_ATIME)
		o->atime = attr.atime_ns;
	if (set & EMDB_SET_MTIME)
		o->mtime = attr.mtime_ns;
	if (set & EMDB_SET_CTIME)
		o->ctime = attr.ctime_ns;
	if (set & EMDB_SET_EXPIRES)
		o->expires_ms = attr.expires_ms;
	check_attr(o, &got);
	done_with(obj);
}

static void op_fallocate(void)
{
	static const unsigned int modes[] = { 0,
					      EMDB_FALLOC_KEEP_SIZE,
					      EMDB_FALLOC_PUNCH_HOLE,
					      EMDB_FALLOC_PUNCH_HOLE | EMDB_FALLOC_KEEP_SIZE,
					      EMDB_FALLOC_ZERO_RANGE,
					      EMDB_FALLOC_ZERO_RANGE | EMDB_FALLOC_KEEP_SIZE };
	const int obj = grab(true);
	struct m_obj *const o = &m->objs[obj < 0 ? 0 : obj];
	const unsigned int mode = modes[below(6)];
	const uint64_t off = below(o->size + 1000), len = 1 + any_size();
	const uint64_t end = off + len < M_DATA_MAX ? off + len : M_DATA_MAX;
	const bool zero = mode & (EMDB_FALLOC_PUNCH_HOLE | EMDB_FALLOC_ZERO_RANGE);
	const bool grow = !(mode & (EMDB_FALLOC_KEEP_SIZE | EMDB_FALLOC_PUNCH_HOLE));

	if (obj < 0 || off >= end)
		return;
	DOING("fallocate object %" PRIu64 " of %" PRIu64 " bytes: mode %u, %" PRIu64 " at %" PRIu64,
	      o->id, o->size, mode, end - off, off);
	OK(emdb_node_fallocate(db, o->id, off, end - off, mode));
	if (zero || (grow && end > o->size))
		o->mtime = o->ctime = m->now_ns;
	if (grow && end > o->size)
		m_resize(o, end);
	if (zero && off < o->size)
		memset(o->data + off, 0, (end < o->size ? end : o->size) - off);
	done_with(obj);
}

/* Data and holes: what is said to be a hole reads zeros, and both walks cover the file. */
static void op_seek(void)
{
	const int obj = grab(true);
	struct m_obj *const o = &m->objs[obj < 0 ? 0 : obj];
	uint64_t at = 0, data, hole;

	if (obj < 0)
		return;
	DOING("seek object %" PRIu64 " of %" PRIu64 " bytes", o->id, o->size);
	while (at < o->size) {
		const emdb_err err = emdb_node_seek(db, o->id, at, false, &data);

		if (err == EMDB_ERR_RANGE)
			data = o->size;
		else
			OK(err);
		if (data < at || data > o->size)
			M_FAIL("data at %" PRIu64 " after %" PRIu64, data, at);
		for (uint64_t i = at; i < data; i++)
			if (o->data[i])
				M_FAIL("byte %" PRIu64 " is in a hole", i);
		if (data == o->size)
			break;
		OK(emdb_node_seek(db, o->id, data, true, &hole));
		if (hole <= data || hole > o->size)
			M_FAIL("hole at %" PRIu64 " after %" PRIu64, hole, data);
		at = hole;
	}
	want_err(emdb_node_seek(db, o->id, o->size, chance(50), &data), EMDB_ERR_RANGE,
		 "seek at the end");
	done_with(obj);
}

static void op_copy_range(void)
{
	const int from = grab(true), to = from < 0 ? -1 : grab(true);
	struct m_obj *const a = &m->objs[from < 0 ? 0 : from], *const b = &m->objs[to < 0 ? 0 : to];
	static uint8_t buf[M_DATA_MAX];
	uint64_t from_off, to_off, len, got, want;

	if (to < 0)
		return;
	from_off = below(a->size + 10);
	to_off = chance(50) ? 0 : below(b->size + 10);
	len = chance(50) ? a->size : any_size();
	if (len > M_DATA_MAX - to_off)
		len = M_DATA_MAX - to_off;
	DOING("copy_range object %" PRIu64 " of %" PRIu64 " bytes from %" PRIu64 " to %" PRIu64
	      " of %" PRIu64 " at %" PRIu64 ", %" PRIu64 " bytes",
	      a->id, a->size, from_off, b->id, b->size, to_off, len);
	if (a == b && from_off < to_off + len && to_off < from_off + len) {
		want_err(emdb_node_copy_range(db, a->id, from_off, b->id, to_off, len, &got),
			 EMDB_ERR_INVAL, "overlapping copy_range");
		done_with(to);
		return;
	}
	want = from_off >= a->size ? 0 : a->size - from_off < len ? a->size - from_off : len;
	OK(emdb_node_copy_range(db, a->id, from_off, b->id, to_off, len, &got));
	want_u64(got, want, "copied length");
	if (want) {
		memcpy(buf, a->data + from_off, want);
		if (to_off + want > b->size)
			m_resize(b, to_off + want);
		memcpy(b->data + to_off, buf, want);
		b->mtime = b->ctime = m->now_ns;
	}
	check_obj(db, a);
	done_with(to);
}

static void op_xattr(void)
{
	const bool of_ns = chance(25);
	const int obj = of_ns ? any_ns() : grab(false);
	const int i = (int)below(M_XATTRS);
	const unsigned int flags = chance(70) ? 0 : 1 + (unsigned int)below(2);
	const size_t len = below(chance(80) ? 100 : M_XATTR);
	const uint64_t id = of_ns ? m->nss[obj].id : obj < 0 ? 0 : m->objs[obj].id;
	struct m_xattr *const x = of_ns ? &m->nss[obj].x[i] : &m->objs[obj < 0 ? 0 : obj].x[i];
	emdb_err want = EMDB_OK;

	if (obj < 0)
		return;
	if (chance(30)) {
		DOING("xattr_remove %s of %" PRIu64, m_xattr_names[i], id);
		want = x->set ? EMDB_OK : EMDB_ERR_NO_XATTR;
		want_err(emdb_xattr_remove(db, id, m_xattr_names[i]), want, "xattr_remove");
		x->set = false;
	} else {
		const uint8_t *const value = any_data(len);

		DOING("xattr_set %s of %" PRIu64 ", %zu bytes, flags %u", m_xattr_names[i], id, len,
		      flags);
		if (flags == EMDB_XATTR_CREATE && x->set)
			want = EMDB_ERR_EXISTS;
		if (flags == EMDB_XATTR_REPLACE && !x->set)
			want = EMDB_ERR_NO_XATTR;
		want_err(emdb_xattr_set(db, id, m_xattr_names[i], value, len, flags), want,
			 "xattr_set");
		if (!want) {
			x->set = true;
			x->len = (uint32_t)len;
			memcpy(x->value, value, len);
		}
	}
	if (of_ns) {
		check_xattrs(db, id, m->nss[obj].x);
		return;
	}
	if (!want)
		m->objs[obj].ctime = m->now_ns;
	done_with(obj);
}

/* ---- Names ---- */

static void op_unlink(void)
{
	const int ns = any_ns(), key = any_key(ns);
	struct m_entry *const e = m_find(ns, key);
	const bool rmdir = chance(25);
	uint64_t id = 0;
	size_t n;
	const void *const k = m_key(key, &n);
	emdb_err want = EMDB_OK;

	if (!e)
		want = EMDB_ERR_NOT_FOUND;
	else if (rmdir != (e->obj < 0))
		want = rmdir ? EMDB_ERR_NOT_NS : EMDB_ERR_IS_NS;
	else if (rmdir && m_count(e->child))
		want = EMDB_ERR_NOT_EMPTY;
	DOING("%s ns %d key %d", rmdir ? "rmdir" : "unlink", ns, key);
	want_err(rmdir ? emdb_node_rmdir(db, m->nss[ns].id, k, n, &id)
		       : emdb_node_unlink(db, m->nss[ns].id, k, n, &id),
		 want, "unlink or rmdir");
	if (!want) {
		want_u64(id, rmdir ? m->nss[e->child].id : m->objs[e->obj].id, "removed id");
		m_remove(e);
	}
	check_key(db, ns, key);
}

static void op_link(void)
{
	const int obj = grab(false), ns = any_ns(), key = any_key(ns);
	const emdb_err want = m_find(ns, key) ? EMDB_ERR_EXISTS : EMDB_OK;
	struct m_obj *const o = &m->objs[obj < 0 ? 0 : obj];
	struct emdb_attr a;
	size_t n;
	const void *const k = m_key(key, &n);

	if (obj < 0)
		return;
	DOING("link object %" PRIu64 " as ns %d key %d", o->id, ns, key);
	want_err(emdb_node_link(db, o->id, m->nss[ns].id, k, n, &a), want, "link");
	if (!want) {
		m_add(ns, key, obj, 0);
		o->nlink++;
		o->refs++;
		o->ctime = m->now_ns;
		check_attr(o, &a);
	}
	done_with(obj);
	m_expire();
	check_key(db, ns, key);
}

struct rename {
	int ns, key, new_ns, new_key;
	unsigned int flags;
	struct m_entry *src, *dst;
};

static emdb_err rename_wants(const struct rename *r)
{
	const struct m_entry *const s = r->src, *const d = r->dst;
	const bool src_dir = s && s->obj < 0, dst_dir = d && d->obj < 0;

	if (!s)
		return EMDB_ERR_NOT_FOUND;
	if (d && (s == d || (!src_dir && s->obj == d->obj)))
		return r->flags & EMDB_RENAME_NOREPLACE ? EMDB_ERR_EXISTS : EMDB_OK;
	if (src_dir && m_is_below(r->new_ns, s->child))
		return EMDB_ERR_LOOP;
	if (r->flags & EMDB_RENAME_EXCHANGE) {
		if (!d)
			return EMDB_ERR_NOT_FOUND;
		return dst_dir && m_is_below(r->ns, d->child) ? EMDB_ERR_LOOP : EMDB_OK;
	}
	if (!d)
		return EMDB_OK;
	if (r->flags & EMDB_RENAME_NOREPLACE)
		return EMDB_ERR_EXISTS;
	if (dst_dir && m_is_below(r->ns, d->child))
		return EMDB_ERR_NOT_EMPTY;
	if (src_dir != dst_dir)
		return src_dir ? EMDB_ERR_NOT_NS : EMDB_ERR_IS_NS;
	return dst_dir && m_count(d->child) ? EMDB_ERR_NOT_EMPTY : EMDB_OK;
}

/* The deadline of a file that took another's name. */
static int64_t rename_deadline(const struct rename *r)
{
	const struct m_obj *const s = &m->objs[r->src->obj], *const d = &m->objs[r->dst->obj];

	if (s->expires_ms || r->flags & EMDB_RENAME_TTL_SOURCE)
		return s->expires_ms;
	if (r->flags & EMDB_RENAME_TTL_KEEP)
		return d->expires_ms;
	return r->ns == r->new_ns && s->btime >= d->btime ? d->expires_ms : 0;
}

static void named(struct m_entry *e, int ns, int key)
{
	e->ns = ns;
	e->key = key;
	if (e->obj < 0)
		m->nss[e->child].parent = ns;
	else
		m->objs[e->obj].ctime = m->now_ns;
}

static void model_rename(struct rename *r)
{
	if (r->dst && (r->src == r->dst || (r->src->obj >= 0 && r->src->obj == r->dst->obj)))
		return;
	if (r->flags & EMDB_RENAME_EXCHANGE) {
		named(r->dst, r->ns, r->key);
	} else if (r->dst) {
		if (r->src->obj >= 0)
			m->objs[r->src->obj].expires_ms = rename_deadline(r);
		m_remove(r->dst);
	}
	named(r->src, r->new_ns, r->new_key);
}

static void op_rename(void)
{
	static const unsigned int flags[] = { 0,
					      0,
					      0,
					      EMDB_RENAME_NOREPLACE,
					      EMDB_RENAME_EXCHANGE,
					      EMDB_RENAME_TTL_KEEP,
					      EMDB_RENAME_TTL_SOURCE };
	struct rename r = { .ns = any_ns(), .new_ns = any_ns(), .flags = flags[below(7)] };
	size_t n, new_n;
	const void *k, *new_k;
	emdb_err want;

	if (chance(50))
		r.new_ns = r.ns;
	r.key = any_key(r.ns);
	r.new_key = any_key(r.new_ns);
	k = m_key(r.key, &n);
	new_k = m_key(r.new_key, &new_n);
	r.src = m_find(r.ns, r.key);
	r.dst = m_find(r.new_ns, r.new_key);
	want = rename_wants(&r);
	DOING("rename ns %d key %d to ns %d key %d, flags %#x", r.ns, r.key, r.new_ns, r.new_key,
	      r.flags);
	want_err(emdb_node_rename(db, m->nss[r.ns].id, k, n, m->nss[r.new_ns].id, new_k, new_n,
				  r.flags),
		 want, "rename");
	if (!want)
		model_rename(&r);
	check_key(db, r.ns, r.key);
	check_key(db, r.new_ns, r.new_key);
}

/* ---- The rest ---- */

static bool take_ref(void *ctx, const void *key, size_t n, const struct emdb_attr *a, uint64_t next)
{
	struct listing *const l = ctx;
	const struct m_entry *const e = m_find(l->ns, m_key_index(key, n));

	(void)next;
	if (!e || !a)
		M_FAIL("listed but gone or damaged");
	if (l->taken == l->limit)
		return false;
	l->taken++;
	if (e->obj < 0)
		m->nss[e->child].seen.lsn++; /* counted here until they are given back */
	else
		m->objs[e->obj].refs++;
	return true;
}

/* A listing that takes references, as a kernel does with readdirplus. */
static void op_readdir(void)
{
	const int ns = any_ns();
	struct listing l = { .ns = ns, .limit = (unsigned int)below(M_KEYS) };

	DOING("readdir ns %d", ns);
	for (int i = 0; i < M_NSS; i++)
		m->nss[i].seen.lsn = 0;
	OK(emdb_node_readdir(db, m->nss[ns].id, 0, EMDB_READDIR_REF, take_ref, &l));
	for (int i = 0; i < M_NSS; i++)
		if (m->nss[i].used && m->nss[i].seen.lsn)
			emdb_node_forget(db, m->nss[i].id, m->nss[i].seen.lsn);
	for (int i = 0; i < M_OBJS; i++)
		if (m->objs[i].used && m->objs[i].refs && chance(80))
			done_with(i);
}

static void op_forget(void)
{
	DOING("forget");
	for (int i = 0; i < M_OBJS; i++)
		if (m->objs[i].used && m->objs[i].refs && chance(50))
			done_with(i);
}

static void op_time(void)
{
	DOING("time");
	m->now_ns += (int64_t)below(chance(80) ? 20 : 200) * 1000000;
}

static void op_durable(void)
{
	DOING("flush or checkpoint");
	OK(chance(50) ? emdb_flush(db) : emdb_checkpoint(db));
}

/* Whatever it copies, nothing is to be seen of it. */
static void op_compact(void)
{
	const struct emdb_compact_options opts = { .size = sizeof(opts),
						   .min_dead_percent = (uint32_t)below(30) };

	DOING("compact from %u%% on", opts.min_dead_percent);
	OK(emdb_compact(db, &opts, NULL));
	if (chance(20))
		check_all(db);
}

/* Makes one in place of an older one, or looks into one. */
static void op_snapshot(void)
{
	const int i = (int)below(M_SNAPS);
	const char name[] = { 's', (char)('0' + i), 0 };
	const bool there = m_snaps[i]->nss[0].used;
	emdb_db *snap;

	if (!dir)
		return;
	if (!there || chance(30)) {
		DOING("snapshot %s", name);
		if (there)
			OK(emdb_snapshot_delete(db, name));
		OK(emdb_snapshot_create(db, name, NULL));
		m_copy(m_snaps[i], m);
		m_snaps[i]->frozen = true;
		return;
	}
	DOING("look into snapshot %s", name);
	OK(emdb_snapshot_open(db, name, NULL, &snap));
	m = m_snaps[i];
	DOING("look into snapshot %s", name);
	m_restart();
	check_all(snap);
	want_err(emdb_put(snap, EMDB_ROOT, "x", 1, "y", 1, 0), EMDB_ERR_READ_ONLY,
		 "put into a snapshot");
	want_u64((uint64_t)emdb_now_ms(snap), (uint64_t)m_now_ms(), "the snapshot's clock");
	m = m_live;
	OK(emdb_close(snap));
}

static void op_check(void)
{
	DOING("check all");
	if (chance(10))
		check_all(db);
}

static const struct {
	void (*fn)(void);
	unsigned int weight;
} ops[] = {
	{ op_put, 20 },   { op_get, 6 },     { op_remove, 6 },     { op_put_many, 3 },
	{ op_clear, 1 },  { op_ttl_set, 5 }, { op_sweep, 2 },      { op_ns_defaults, 2 },
	{ op_write, 20 }, { op_setattr, 9 }, { op_fallocate, 4 },  { op_ns_create, 4 },
	{ op_seek, 3 },   { op_ns_drop, 2 }, { op_copy_range, 4 }, { op_create, 8 },
	{ op_xattr, 8 },  { op_unlink, 7 },  { op_link, 4 },       { op_rename, 12 },
	{ op_time, 6 },   { op_readdir, 2 }, { op_forget, 3 },     { op_durable, 1 },
	{ op_txn, 4 },    { op_check, 3 },   { op_snapshot, 1 },   { op_compact, 2 },
};

static void one_op(void)
{
	unsigned int total = 0, at;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		total += ops[i].weight;
	at = (unsigned int)below(total);
	m->now_ns += 1000 + (int64_t)below(300000);
	m_expire();
	m->ops++;
	DOING("nothing");
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (at < ops[i].weight) {
			ops[i].fn();
			break;
		}
		at -= ops[i].weight;
	}
	if (m->trace)
		printf("%" PRIu64 " %" PRId64 ": %s\n", m->ops, m->now_ns, m->op);
	m_expire();
	remember_dirs(db);
}

#endif
