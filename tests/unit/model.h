/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store as plain arrays: what emdb.h promises, with none of its machinery. It lives in memory that
 * a forked child shares with its parent, so that what a killed child was told is known afterwards.
 *
 * Time is the model's: clock_gettime() of this program answers with model->now_ns, which moves only
 * between operations. So deadlines and time stamps are exact.
 */
#ifndef EMDB_TEST_MODEL_H
#define EMDB_TEST_MODEL_H

#include "tests/unit/test.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "core/emdb.h"

#define M_KEYS     28
#define M_NSS      12
#define M_OBJS     40
#define M_ENTRIES  (M_NSS * M_KEYS)
#define M_XATTRS   4
#define M_XATTR    6000u
#define M_DATA_MAX (9u * 256u * 1024u)
#define M_IDS      (1u << 16)

struct m_xattr {
	bool set;
	uint32_t len;
	uint8_t value[M_XATTR];
};

struct m_obj {
	bool used;
	bool expired; /* has no name because its time came: an open file reads on */
	uint64_t id;
	uint32_t mode, uid, gid, nlink, refs;
	uint64_t size;
	int64_t expires_ms, mtime, ctime, atime, btime;
	struct m_xattr x[M_XATTRS];
	uint8_t data[M_DATA_MAX]; /* zero from size on */
};

struct m_ns {
	bool used;
	bool stale; /* something in it expired: when the directory's times follow is open */
	uint64_t id;
	int parent;
	int64_t ttl_ms;
	enum emdb_ttl_basis basis;
	struct emdb_attr seen; /* as the store said after the last operation */
	struct m_xattr x[M_XATTRS];
};

struct m_entry {
	bool used;
	int ns, key;
	int obj;   /* -1: a namespace */
	int child; /* that namespace */
};

struct model {
	_Atomic(int64_t) now_ns;
	uint64_t rnd, ops;
	uint64_t seen; /* the object looked at last */
	uint32_t uid, gid;
	int64_t default_ttl_ms; /* of the store, while this open lasts */
	struct m_ns nss[M_NSS]; /* 0: the root */
	struct m_entry entries[M_ENTRIES];
	struct m_obj objs[M_OBJS];
	uint32_t nids;
	uint64_t ids[M_IDS]; /* every id there ever was */
	char op[128];        /* what is being done, for the report */
	bool frozen;         /* a snapshot, or open read-only: nothing is swept */
	bool trace;
	bool twice; /* put_many: a key comes more than once, or its object has several names */
};

static struct model *m;
static struct model *m_live; /* m, unless a snapshot is being looked at */

/* What the store was when a snapshot was made. */
#define M_SNAPS 2
static struct model *m_snaps[M_SNAPS];

/* ---- Time ---- */

int clock_gettime(clockid_t id, struct timespec *ts)
{
	if (id != CLOCK_REALTIME || !m_live)
		return (int)syscall(SYS_clock_gettime, id, ts);
	*ts = (struct timespec){ m_live->now_ns / 1000000000, m_live->now_ns % 1000000000 };
	return 0;
}

static int64_t m_now_ms(void)
{
	return m->now_ns / 1000000;
}

/* ---- Randomness ---- */

static uint64_t below(uint64_t n)
{
	return test_rand(&m->rnd) % n;
}

static bool chance(unsigned int percent)
{
	return below(100) < percent;
}

/* ---- Keys ---- */

struct m_key {
	char bytes[EMDB_KEY_MAX];
	size_t len;
};

/* Names of files, keys that no file can have, the empty one and the longest. */
static const void *m_key(int i, size_t *ret_len)
{
	static struct m_key keys[M_KEYS];
	struct m_key *const k = &keys[i];

	if (!k->len && i) {
		static const char *const odd[] = {
			"a/b", ".", "..", "nul\0nul", "\xff\xfe", "=%&"
		};

		if (i < 7) {
			k->len = i == 4 ? 7 : strlen(odd[i - 1]);
			memcpy(k->bytes, odd[i - 1], k->len);
		} else if (i < 10) {
			k->len = i == 7 ? EMDB_KEY_MAX : i == 8 ? 256 : 1000;
			memset(k->bytes, 'A' + i, k->len);
		} else {
			k->len = (size_t)snprintf(k->bytes, sizeof(k->bytes), "file-%d", i);
		}
	}
	*ret_len = k->len;
	return k->bytes;
}

static int m_key_index(const void *p, size_t n)
{
	for (int i = 0; i < M_KEYS; i++) {
		size_t len;
		const void *const key = m_key(i, &len);

		if (len == n && (!n || memcmp(p, key, n) == 0))
			return i;
	}
	FAIL("%s: a key that nobody stored, %zu bytes", m->op, n);
}

/* ---- Entries and objects ---- */

static struct m_entry *m_find(int ns, int key)
{
	for (int i = 0; i < M_ENTRIES; i++)
		if (m->entries[i].used && m->entries[i].ns == ns && m->entries[i].key == key)
			return &m->entries[i];
	return NULL;
}

static unsigned int m_count(int ns)
{
	unsigned int n = 0;

	for (int i = 0; i < M_ENTRIES; i++)
		n += m->entries[i].used && m->entries[i].ns == ns;
	return n;
}

static struct m_entry *m_add(int ns, int key, int obj, int child)
{
	for (int i = 0; i < M_ENTRIES; i++) {
		if (m->entries[i].used)
			continue;
		m->entries[i] = (struct m_entry){ true, ns, key, obj, child };
		return &m->entries[i];
	}
	FAIL("more entries than keys");
}

/* An id is new, for ever. */
static void m_new_id(uint64_t id)
{
	for (uint32_t i = 0; i < m->nids; i++)
		if (m->ids[i] == id)
			FAIL("%s: id %" PRIu64 " was used before", m->op, id);
	CHECK(m->nids < M_IDS);
	m->ids[m->nids++] = id;
}

static int m_free_obj(void)
{
	for (int i = 0; i < M_OBJS; i++)
		if (!m->objs[i].used)
			return i;
	return -1;
}

static int m_free_ns(void)
{
	for (int i = 1; i < M_NSS; i++)
		if (!m->nss[i].used)
			return i;
	return -1;
}

static int m_new_obj(uint32_t mode)
{
	const int i = m_free_obj();
	struct m_obj *const o = &m->objs[i];

	CHECK(i >= 0);
	o->used = true;
	o->expired = false;
	o->id = 0;
	o->mode = mode;
	o->uid = m->uid;
	o->gid = m->gid;
	o->nlink = o->refs = 0;
	o->size = 0;
	o->expires_ms = 0;
	o->mtime = o->ctime = o->atime = o->btime = m->now_ns;
	for (int x = 0; x < M_XATTRS; x++)
		o->x[x].set = false;
	return i;
}

static void m_resize(struct m_obj *o, uint64_t size)
{
	CHECK(size <= M_DATA_MAX);
	if (size < o->size)
		memset(o->data + size, 0, o->size - size);
	o->size = size;
}

/* Nothing leads to it any more. */
static void m_obj_gone(struct m_obj *o)
{
	if (o->nlink || o->refs)
		return;
	m_resize(o, 0);
	o->used = false;
}

static void m_forgot(struct m_obj *o, uint32_t n)
{
	CHECK(o->refs >= n);
	o->refs -= n;
	m_obj_gone(o);
}

static void m_drop_ns(int ns);

/* The entry goes, with what only it named. */
static void m_unname(struct m_entry *e)
{
	e->used = false;
	if (e->obj < 0) {
		m_drop_ns(e->child);
		return;
	}
	m->objs[e->obj].nlink--;
	m_obj_gone(&m->objs[e->obj]);
}

static void m_remove(struct m_entry *e)
{
	if (e->obj >= 0)
		m->objs[e->obj].ctime = m->now_ns;
	m_unname(e);
}

/* An object that has other names elsewhere is not stamped: nobody looks at each one. */
static void m_empty_ns(int ns)
{
	for (int i = 0; i < M_ENTRIES; i++)
		if (m->entries[i].used && m->entries[i].ns == ns)
			m_unname(&m->entries[i]);
}

static void m_drop_ns(int ns)
{
	m_empty_ns(ns);
	m->nss[ns].used = false;
}

/* What is due at the present time disappears. */
static void m_expire(void)
{
	for (int i = 0; i < M_ENTRIES; i++) {
		struct m_entry *const e = &m->entries[i];
		struct m_obj *const o = e->obj >= 0 ? &m->objs[e->obj] : NULL;

		if (!e->used || !o || !o->expires_ms || o->expires_ms > m_now_ms())
			continue;
		o->expired = true;
		m->nss[e->ns].stale = true;
		m_remove(e);
	}
}

/* A process died or the store was closed: nobody holds anything. */
static void m_restart(void)
{
	for (int i = 0; i < M_OBJS; i++) {
		if (!m->objs[i].used)
			continue;
		m->objs[i].refs = 0;
		m_obj_gone(&m->objs[i]);
	}
}

/* Everything but the ids that were used and what of the objects nobody can see. */
static void m_copy(struct model *to, const struct model *from)
{
	to->now_ns = from->now_ns;
	to->ops = from->ops;
	to->rnd = from->rnd;
	memcpy(to->nss, from->nss, sizeof(to->nss));
	memcpy(to->entries, from->entries, sizeof(to->entries));
	memcpy(to->op, from->op, sizeof(to->op));
	for (int i = 0; i < M_OBJS; i++) {
		const struct m_obj *const o = &from->objs[i];
		struct m_obj *const p = &to->objs[i];

		m_resize(p, 0);
		memcpy(p, o, offsetof(struct m_obj, data));
		memcpy(p->data, o->data, o->size);
	}
}

/* Is `ns` the namespace `above` or somewhere in it? */
static bool m_is_below(int ns, int above)
{
	while (ns != above && ns != 0)
		ns = m->nss[ns].parent;
	return ns == above;
}

static void m_map(struct model **p)
{
	if (*p) {
		CHECK_OK(madvise(*p, sizeof(**p), MADV_REMOVE));
		return;
	}
	*p = mmap(NULL, sizeof(**p), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(*p != MAP_FAILED);
}

static void m_init(uint64_t seed)
{
	m_map(&m);
	for (int i = 0; i < M_SNAPS; i++)
		m_map(&m_snaps[i]);
	m_live = m;
	m->now_ns = 1700000000000000000;
	m->rnd = seed;
	m->trace = getenv("TRACE") != NULL;
	m->uid = getuid();
	m->gid = getgid();
	m->nss[0] = (struct m_ns){ .used = true, .id = EMDB_ROOT };
	m->ids[m->nids++] = EMDB_ROOT;
}

#endif
