/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/work_i.h"

#define EMPTY (UINT64_C(1) << 63)

/* ---- Contents ---- */

static size_t base_size(uint64_t base)
{
	uint64_t s = base;
	const uint64_t dice = sim_rand(&s) % 1000;

	if (base == EMPTY)
		return 0;
	if (dice < 700)
		return sim_rand(&s) % 400;
	if (dice < 940)
		return sim_rand(&s) % 10000;
	if (dice < 992)
		return sim_rand(&s) % 60000;
	return sim_rand(&s) % BASE_MAX;
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i += 8) {
		const uint64_t v = sim_rand(&seed);

		memcpy(p + i, &v, min_size(8, n - i));
	}
}

/* Room for the content at its longest. */
uint8_t *content_room(const struct object *o)
{
	size_t n = base_size(o->base);
	uint8_t *p;

	for (uint32_t i = 0; i < o->nmods; i++)
		n = max_size(n, (size_t)o->mods[i].off + o->mods[i].len);
	p = calloc(1, n + 1);

	if (!p)
		abort();
	return p;
}

size_t content_of(const struct object *o, uint8_t *p)
{
	size_t n = base_size(o->base);

	fill(p, n, o->base);
	for (uint32_t i = 0; i < o->nmods; i++) {
		const struct mod *const m = &o->mods[i];

		if (m->kind == MOD_CUT) {
			if (m->len > n)
				memset(p + n, 0, m->len - n);
			n = m->len;
		} else if (m->kind == MOD_HOLE) {
			if (m->off < n)
				memset(p + m->off, 0, min_size(m->len, n - m->off));
		} else {
			if (m->off > n)
				memset(p + n, 0, m->off - n);
			fill(p + m->off, m->len, m->seed);
			n = max_size(n, m->off + m->len);
		}
	}
	return n;
}

uint64_t print_of(const void *data, size_t n)
{
	const uint8_t *const p = data;
	uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15) + 1, v;

	for (size_t i = 0; i < n; i += 8) {
		v = 0;
		memcpy(&v, p + i, min_size(8, n - i));
		h = (h ^ v) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 32;
	}
	return h;
}

static void object_seal(struct object *o)
{
	uint8_t *const p = content_room(o);

	o->size = content_of(o, p);
	o->print = print_of(p, o->size);
	free(p);
}

size_t xattr_of(uint64_t seed, uint8_t *p)
{
	const size_t n = 8 + seed % (seed % 8 ? 60 : 6000);

	fill(p, n, seed);
	return n;
}

/* ---- States ---- */

unsigned int names_of(const struct state *st, int obj)
{
	unsigned int n = 0;

	for (int i = 0; i < SLOTS; i++)
		n += st->slot[i] == obj;
	return n;
}

static bool dir_there(const struct state *st, int dir)
{
	return st->top && (dir == 0 || st->sub[dir - 1]);
}

static void unname(struct state *st, int slot)
{
	const int obj = st->slot[slot];

	st->slot[slot] = -1;
	if (obj >= 0 && !names_of(st, obj))
		st->objs[obj].used = false;
}

static struct object *object_new(struct state *st, int slot)
{
	for (int i = 0; i < SLOTS; i++) {
		if (st->objs[i].used)
			continue;
		st->objs[i] = (struct object){ .used = true, .base = EMPTY };
		st->slot[slot] = i;
		return &st->objs[i];
	}
	abort(); /* as many as there are names */
}

static void empty_dir(struct state *st, int dir)
{
	for (int i = dir; i < SLOTS; i += DIRS)
		unname(st, i);
}

void state_expire(struct state *st, int64_t now_ms)
{
	for (int i = 0; i < SLOTS; i++)
		if (st->slot[i] >= 0 && st->objs[st->slot[i]].expires_ms &&
		    st->objs[st->slot[i]].expires_ms <= now_ms)
			for (int k = SLOTS - 1, obj = st->slot[i]; k >= 0; k--)
				if (st->slot[k] == obj)
					unname(st, k);
}

/* ---- Planning ---- */

static int64_t deadline(uint64_t *rnd)
{
	const int64_t now = sim_now_ns / 1000000;

	switch (sim_rand(rnd) % 6) {
	case 0:
		return now + 1 + (int64_t)(sim_rand(rnd) % 100);
	case 1:
		return now + 1000000000 + (int64_t)(sim_rand(rnd) % 1000);
	default:
		return 0;
	}
}

static void plan_item(struct state *st, struct act *act, int slot, uint64_t *rnd)
{
	const size_t max = act->op == OP_TXN ? 20000 : 60000;
	struct object *o;

	act->many[slot] = SKIP_IT;
	if (sim_rand(rnd) % 4 == 0 || (st->slot[slot] >= 0 && names_of(st, st->slot[slot]) > 1))
		return;
	if (sim_rand(rnd) % 4 == 0) {
		/* A transaction removes only what is there. */
		if (act->op == OP_TXN && st->slot[slot] < 0)
			return;
		act->many[slot] = REMOVE_IT;
		unname(st, slot);
		return;
	}
	act->many[slot] = PUT_IT;
	o = st->slot[slot] >= 0 ? &st->objs[st->slot[slot]] : object_new(st, slot);
	do
		o->base = sim_rand(rnd) >> 1;
	while (base_size(o->base) > max);
	o->nmods = 0;
	o->expires_ms = deadline(rnd);
	object_seal(o);
}

static bool plan_many(struct state *st, struct act *act, uint64_t *rnd)
{
	const int dir = (int)(sim_rand(rnd) % DIRS);

	act->a = dir;
	act->durable = act->op == OP_TXN && sim_rand(rnd) % 4 == 0;
	if (!dir_there(st, dir))
		return false;
	for (int i = 0; i < SLOTS; i++) {
		act->many[i] = SKIP_IT;
		if (dir_there(st, i % DIRS) && (act->op == OP_TXN || i % DIRS == dir))
			plan_item(st, act, i, rnd);
	}
	return true;
}

static bool plan_mod(struct object *o, enum op op, uint64_t *rnd)
{
	struct mod *const m = &o->mods[o->nmods];

	if (o->nmods == MODS)
		return false;
	m->seed = sim_rand(rnd);
	m->off = (uint32_t)(sim_rand(rnd) % (sim_rand(rnd) % 8 ? 9000 : 300000));
	m->len = 1 + (uint32_t)(sim_rand(rnd) % (sim_rand(rnd) % 8 ? 5000 : 100000));
	m->kind = op == OP_WRITE ? MOD_WRITE : op == OP_CUT ? MOD_CUT : MOD_HOLE;
	if (sim_rand(rnd) % 4 == 0)
		m->off = (uint32_t)min_u64(o->size, 400000); /* append */
	o->nmods++;
	object_seal(o);
	return true;
}

static void swap_subs(struct state *st)
{
	for (int i = 0; i < DIR_KEYS; i++) {
		const int t = st->slot[i * DIRS + 1];

		st->slot[i * DIRS + 1] = st->slot[i * DIRS + 2];
		st->slot[i * DIRS + 2] = t;
	}
}

static bool plan_dirs(struct state *st, struct act *act, uint64_t *rnd)
{
	const int dir = (int)(sim_rand(rnd) % DIRS), sub = dir ? dir - 1 : 0;

	act->a = act->op == OP_CLEAR ? dir : sub + 1;
	switch ((int)act->op) {
	case OP_MAKE:
		if (st->sub[sub])
			return false;
		st->sub[sub] = true;
		return true;
	case OP_DROP:
		if (!st->sub[sub])
			return false;
		empty_dir(st, sub + 1);
		st->sub[sub] = false;
		return true;
	case OP_SWAP:
		if (!st->sub[0] || !st->sub[1])
			return false;
		swap_subs(st);
		return true;
	default: /* OP_CLEAR */
		if (!dir_there(st, dir) || sim_rand(rnd) % 3)
			return false;
		for (int d = dir; d < (dir ? dir + 1 : DIRS); d++)
			empty_dir(st, d);
		if (!dir)
			st->sub[0] = st->sub[1] = false;
		return true;
	}
}

/* What needs nothing to be there. */
static bool plan_new(struct state *st, struct act *act, uint64_t *rnd)
{
	struct object *o;

	if (act->op == OP_CREATE && st->slot[act->a] >= 0)
		return false;
	o = st->slot[act->a] >= 0 ? &st->objs[st->slot[act->a]] : object_new(st, act->a);
	o->base = act->op == OP_CREATE ? EMPTY : sim_rand(rnd) >> 1;
	o->nmods = 0;
	o->expires_ms = act->op == OP_CREATE ? 0 : deadline(rnd);
	object_seal(o);
	return true;
}

static bool plan_pair(struct state *st, struct act *act)
{
	const int a = st->slot[act->a], b = st->slot[act->b];

	if (a == b || !dir_there(st, act->b % DIRS) || (act->op == OP_LINK && b >= 0) ||
	    ((act->op == OP_EXCHANGE || act->op == OP_COPY) && b < 0))
		return false;
	if (act->op == OP_COPY) {
		struct object *const to = &st->objs[b];
		const struct object *const from = &st->objs[a];

		if (!from->size || from->size < to->size)
			return false;
		to->base = from->base;
		to->nmods = from->nmods;
		memcpy(to->mods, from->mods, sizeof(to->mods));
		object_seal(to);
		return true;
	}
	if (act->op == OP_EXCHANGE) {
		st->slot[act->a] = b;
		st->slot[act->b] = a;
		return true;
	}
	if (b >= 0)
		unname(st, act->b);
	st->slot[act->b] = a;
	if (act->op == OP_RENAME)
		st->slot[act->a] = -1;
	return true;
}

bool plan(struct state *st, struct act *act, uint64_t *rnd)
{
	static const enum op ops[] = {
		OP_PUT,    OP_PUT,    OP_PUT,      OP_PUT,   OP_REMOVE, OP_MANY,  OP_MANY,
		OP_RENAME, OP_RENAME, OP_LINK,     OP_WRITE, OP_WRITE,  OP_WRITE, OP_CUT,
		OP_HOLE,   OP_CREATE, OP_EXCHANGE, OP_COPY,  OP_XATTR,  OP_TTL,   OP_CLEAR,
		OP_DROP,   OP_MAKE,   OP_MAKE,     OP_SWAP,
	};
	struct object *o;

	if (!st->top) {
		act->op = OP_TOP;
		st->top = true;
		return true;
	}
	act->op = ops[sim_rand(rnd) % ARRAY_SIZE(ops)];
	act->a = (int)(sim_rand(rnd) % SLOTS);
	act->b = (act->a + 1 + (int)(sim_rand(rnd) % (SLOTS - 1))) % SLOTS;
	if (act->op >= OP_CLEAR)
		return plan_dirs(st, act, rnd);
	if (act->op == OP_MANY || act->op == OP_TXN)
		return plan_many(st, act, rnd);
	if (!dir_there(st, act->a % DIRS))
		return false;
	if (act->op == OP_PUT || act->op == OP_CREATE)
		return plan_new(st, act, rnd);
	if (st->slot[act->a] < 0)
		return false;
	o = &st->objs[st->slot[act->a]];
	switch ((int)act->op) {
	case OP_REMOVE:
		unname(st, act->a);
		return true;
	case OP_WRITE:
	case OP_CUT:
	case OP_HOLE:
		return plan_mod(o, act->op, rnd);
	case OP_XATTR:
		o->xattr = o->xattr && sim_rand(rnd) % 3 == 0 ? 0 : 1 + (sim_rand(rnd) >> 1);
		return true;
	case OP_TTL:
		o->expires_ms = deadline(rnd);
		return true;
	default:
		return plan_pair(st, act);
	}
}

/* ---- Performing ---- */

void key_of(int slot, char buf[KEY_ROOM])
{
	if (slot / DIRS == 2) /* a long one */
		snprintf(buf, KEY_ROOM, "k%0300d", slot / DIRS);
	else
		snprintf(buf, KEY_ROOM, "k%d", slot / DIRS);
}

static const char *const dir_names[DIRS] = { "", "s0", "s1" };

emdb_err dir_open(emdb_db *db, int worker, int dir, uint64_t *ret_ns)
{
	const char top[2] = { 'w', (char)('0' + worker) };
	emdb_err err = emdb_ns_open(db, EMDB_ROOT, top, sizeof(top), ret_ns);

	if (!err && dir)
		err = emdb_ns_open(db, *ret_ns, dir_names[dir], 2, ret_ns);
	return err;
}

/* Key of a slot with its namespace. */
struct place {
	uint64_t ns;
	char key[KEY_ROOM];
	size_t len;
};

static emdb_err place_of(emdb_db *db, int worker, int slot, struct place *p)
{
	key_of(slot, p->key);
	p->len = strlen(p->key);
	return dir_open(db, worker, slot % DIRS, &p->ns);
}

static emdb_err do_many(emdb_db *db, int worker, const struct act *act, const struct state *st)
{
	struct emdb_item items[DIR_KEYS];
	char keys[DIR_KEYS][KEY_ROOM];
	uint8_t *values[DIR_KEYS] = { NULL };
	uint64_t ns;
	size_t n = 0;
	emdb_err err = dir_open(db, worker, act->a, &ns);

	for (int i = act->a; !err && i < SLOTS; i += DIRS) {
		struct emdb_item *const it = &items[n];

		if (act->many[i] == SKIP_IT)
			continue;
		key_of(i, keys[n]);
		*it = (struct emdb_item){ .key = keys[n], .key_len = strlen(keys[n]) };
		it->remove = act->many[i] == REMOVE_IT;
		if (!it->remove) {
			const struct object *const o = &st->objs[st->slot[i]];

			it->value = values[n] = content_room(o);
			it->value_len = content_of(o, values[n]);
			it->expires_ms = o->expires_ms ? o->expires_ms : EMDB_TTL_NEVER;
		}
		n++;
	}
	if (!err)
		err = emdb_put_many(db, ns, items, n);
	for (int i = 0; i < DIR_KEYS; i++)
		free(values[i]);
	return err;
}

static emdb_err txn_item(emdb_db *db, emdb_txn *txn, int worker, int slot, const struct act *act,
			 const struct state *st)
{
	const struct object *o;
	struct place p;
	uint8_t *value;
	emdb_err err = place_of(db, worker, slot, &p);

	if (err)
		return err;
	if (act->many[slot] == REMOVE_IT)
		return emdb_txn_remove(txn, p.ns, p.key, p.len);
	o = &st->objs[st->slot[slot]];
	value = content_room(o);
	err = emdb_txn_put(txn, p.ns, p.key, p.len, value, content_of(o, value),
			   o->expires_ms ? o->expires_ms : EMDB_TTL_NEVER);
	free(value);
	return err;
}

/* The sweeper may come first to a key that has expired. */
static emdb_err do_txn(emdb_db *db, int worker, const struct act *act, const struct state *st)
{
	emdb_err err = EMDB_ERR_CONFLICT;

	for (int tries = 0; err == EMDB_ERR_CONFLICT && tries < 100; tries++) {
		emdb_txn *txn;

		err = emdb_txn_begin(db, NULL, &txn);
		if (err)
			return err;
		for (int i = 0; !err && i < SLOTS; i++)
			if (act->many[i] != SKIP_IT)
				err = txn_item(db, txn, worker, i, act, st);
		if (err)
			emdb_txn_abort(txn);
		else
			err = emdb_txn_commit(txn, act->durable ? EMDB_COMMIT_DURABLE : 0);
	}
	return err;
}

static emdb_err do_mod(emdb_db *db, uint64_t id, const struct mod *m)
{
	struct emdb_attr attr = { .size = m->len };
	uint8_t *p;
	emdb_err err;

	if (m->kind == MOD_CUT)
		return emdb_node_setattr(db, id, &attr, EMDB_SET_SIZE, &attr);
	if (m->kind == MOD_HOLE)
		return emdb_node_fallocate(db, id, m->off, m->len, EMDB_FALLOC_PUNCH_HOLE);
	p = malloc(m->len);
	if (!p)
		abort();
	fill(p, m->len, m->seed);
	err = emdb_node_write(db, id, m->off, p, m->len, 0);
	free(p);
	return err;
}

static emdb_err do_copy(emdb_db *db, uint64_t id, const struct place *to, uint64_t size)
{
	struct emdb_attr attr;
	uint64_t done = 0;
	emdb_err err = emdb_node_lookup(db, to->ns, to->key, to->len, &attr);

	if (err)
		return err;
	err = emdb_node_copy_range(db, id, 0, attr.id, 0, size, &done);
	emdb_node_forget(db, attr.id, 1);
	return !err && done != size ? EMDB_ERR_RANGE : err;
}

/* What is done to an object by its id. */
static emdb_err do_node(emdb_db *db, const struct act *act, const struct state *st,
			const struct place *a, const struct place *b)
{
	const struct object *const o = &st->objs[st->slot[act->op == OP_COPY ? act->b : act->a]];
	uint8_t value[XATTR_ROOM];
	struct emdb_attr attr;
	emdb_err err = emdb_node_lookup(db, a->ns, a->key, a->len, &attr);

	if (err)
		return err;
	if (act->op == OP_COPY) {
		err = do_copy(db, attr.id, b, o->size);
	} else if (act->op == OP_LINK) {
		struct emdb_attr linked;

		err = emdb_node_link(db, attr.id, b->ns, b->key, b->len, &linked);
		if (!err)
			emdb_node_forget(db, linked.id, 1);
	} else if (act->op == OP_XATTR && o->xattr) {
		err = emdb_xattr_set(db, attr.id, "user.x", value, xattr_of(o->xattr, value), 0);
	} else if (act->op == OP_XATTR) {
		err = emdb_xattr_remove(db, attr.id, "user.x");
	} else {
		err = do_mod(db, attr.id, &o->mods[o->nmods - 1]);
	}
	emdb_node_forget(db, attr.id, 1);
	return err;
}

static emdb_err do_put(emdb_db *db, const struct place *a, const struct object *o)
{
	uint8_t *const p = content_room(o);
	const size_t n = content_of(o, p);
	const emdb_err err = emdb_put(db, a->ns, a->key, a->len, p, n,
				      o->expires_ms ? o->expires_ms : EMDB_TTL_NEVER);

	free(p);
	return err;
}

static emdb_err do_dirs(emdb_db *db, int worker, const struct act *act)
{
	const char top[2] = { 'w', (char)('0' + worker) };
	uint64_t ns;
	emdb_err err;

	if (act->op == OP_TOP)
		return emdb_ns_create(db, EMDB_ROOT, top, sizeof(top), &ns);
	err = dir_open(db, worker, act->op == OP_CLEAR ? act->a : 0, &ns);
	if (err)
		return err;
	if (act->op == OP_CLEAR)
		return emdb_clear(db, ns);
	if (act->op == OP_MAKE)
		return emdb_ns_create(db, ns, dir_names[act->a], 2, &ns);
	if (act->op == OP_DROP)
		return emdb_ns_drop(db, ns, dir_names[act->a], 2, true);
	return emdb_node_rename(db, ns, "s0", 2, ns, "s1", 2, EMDB_RENAME_EXCHANGE);
}

static emdb_err do_create(emdb_db *db, const struct place *a)
{
	const struct emdb_create what = { .mode = 0100600 };
	struct emdb_attr attr;
	const emdb_err err = emdb_node_create(db, a->ns, a->key, a->len, &what, &attr);

	if (!err)
		emdb_node_forget(db, attr.id, 1);
	return err;
}

emdb_err perform(emdb_db *db, int worker, const struct act *act, const struct state *st)
{
	struct place a, b;
	emdb_err err;
	int obj;

	if (act->op >= OP_CLEAR)
		return do_dirs(db, worker, act);
	if (act->op == OP_MANY)
		return do_many(db, worker, act, st);
	if (act->op == OP_TXN)
		return do_txn(db, worker, act, st);
	obj = st->slot[act->a];
	err = place_of(db, worker, act->a, &a);
	if (!err && act->op >= OP_RENAME)
		err = place_of(db, worker, act->b, &b);
	if (err)
		return err;
	switch ((int)act->op) {
	case OP_PUT:
		return do_put(db, &a, &st->objs[obj]);
	case OP_CREATE:
		return do_create(db, &a);
	case OP_REMOVE:
		return emdb_remove(db, a.ns, a.key, a.len, NULL, NULL);
	case OP_TTL:
		return emdb_ttl_set(db, a.ns, a.key, a.len,
				    st->objs[obj].expires_ms ? st->objs[obj].expires_ms
							     : EMDB_TTL_NEVER);
	case OP_RENAME:
	case OP_EXCHANGE:
		return emdb_node_rename(db, a.ns, a.key, a.len, b.ns, b.key, b.len,
					act->op == OP_EXCHANGE ? EMDB_RENAME_EXCHANGE
							       : EMDB_RENAME_TTL_SOURCE);
	default:
		return do_node(db, act, st, &a, &b);
	}
}

void act_describe(int worker, const struct act *act, const struct state *st, char *buf, size_t n)
{
	static const char *const names[] = {
		[OP_PUT] = "put",         [OP_REMOVE] = "remove",     [OP_MANY] = "put_many",
		[OP_WRITE] = "write",     [OP_CUT] = "truncate",      [OP_HOLE] = "punch hole",
		[OP_CREATE] = "create",   [OP_XATTR] = "xattr",       [OP_TTL] = "deadline",
		[OP_RENAME] = "rename",   [OP_EXCHANGE] = "exchange", [OP_LINK] = "link",
		[OP_TXN] = "transaction", [OP_COPY] = "copy",         [OP_CLEAR] = "clear",
		[OP_DROP] = "drop",       [OP_MAKE] = "mkdir",        [OP_SWAP] = "swap dirs",
		[OP_TOP] = "make top",
	};
	const bool many = act->op == OP_MANY || act->op == OP_TXN;
	const int obj = act->op < OP_CLEAR && !many ? st->slot[act->a] : -1;

	if (act->op >= OP_CLEAR || many)
		snprintf(buf, n, "worker %d: %s, directory %d", worker, names[act->op], act->a);
	else if (act->op >= OP_RENAME)
		snprintf(buf, n, "worker %d: %s %d to %d", worker, names[act->op], act->a, act->b);
	else
		snprintf(buf, n, "worker %d: %s %d, %llu bytes", worker, names[act->op], act->a,
			 obj >= 0 ? (unsigned long long)st->objs[obj].size : 0);
}
