/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and changing the tree; see index_ord.h. */
#include "core/index_ord_i.h"

#define PREFETCH_LINES 18u /* of a node: two thirds of the keys of a leaf, 24 bytes each */

/* The inner nodes that lead to a leaf, from the root down, and the child taken in each. */
struct path {
	struct oidx_node *node[OIDX_DEPTH_MAX];
	uint32_t idx[OIDX_DEPTH_MAX];
	uint32_t depth;
};

/* ---- Searching a node ---------------------------------------------------------- */

static int bytes_cmp(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
	const int c = memcmp(a, b, min_size(an, bn));

	return c ? c : (an > bn) - (an < bn);
}

/*
 * Nodes lie anywhere, and a search touches a cache line of the next one for each of its steps: all
 * lines at once are hardly slower to get than one.
 */
static inline void node_prefetch(const struct oidx_node *n)
{
	for (uintptr_t line = 0; line < PREFETCH_LINES; line++)
		__builtin_prefetch((const void *)((uintptr_t)n + line * EPOCH_CACHE_LINE));
}

/* How many keys of the node are before this one; upper: or equal to it. */
static uint32_t node_bound(const struct oidx_node *n, const uint8_t *key, size_t len, bool upper)
{
	const uint32_t plen = n->prefix_len;
	uint32_t lo = 0, hi = node_keys(n);
	const int c = memcmp(key, node_prefix(n), min_size(len, plen));

	if (c)
		return c < 0 ? 0 : hi;
	/* A piece of the prefix is before all that has the prefix. */
	if (len < plen)
		return 0;
	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;
		uint32_t rest_len;
		const uint8_t *const rest = node_rest(n, mid, &rest_len);
		const int order = bytes_cmp(rest, rest_len, key + plen, len - plen);

		if (order < 0 || (upper && order == 0))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool node_has(const struct oidx_node *n, uint32_t i, const uint8_t *key, size_t len)
{
	uint32_t rest_len;
	const uint8_t *const rest = node_rest(n, i, &rest_len);

	return len == (size_t)n->prefix_len + rest_len &&
	       memcmp(key, node_prefix(n), n->prefix_len) == 0 &&
	       memcmp(key + n->prefix_len, rest, rest_len) == 0;
}

/* The leaf for a key; NULL: the first (or, last, the last) of all.  NULL when there is none. */
static struct oidx_node *descend(const struct oidx *o, const uint8_t *key, size_t len, bool last,
				 struct path *p)
{
	struct oidx_node *n = atomic_load_explicit(&o->root, memory_order_acquire);

	p->depth = 0;
	while (n && n->height) {
		uint32_t i = last ? n->count - 1 : 0;

		if (key)
			i = node_bound(n, key, len, true);
		emdb_assert(p->depth < OIDX_DEPTH_MAX);
		p->node[p->depth] = n;
		p->idx[p->depth++] = i;
		n = node_child(n, i);
		node_prefetch(n);
	}
	return n;
}

/* ---- Walking ------------------------------------------------------------------------ */

/* The leaf beside the one that the path leads to; NULL: there is none. */
static const struct oidx_node *neighbour(struct path *p, bool before)
{
	struct oidx_node *n;

	while (p->depth && p->idx[p->depth - 1] == (before ? 0 : p->node[p->depth - 1]->count - 1))
		p->depth--;
	if (!p->depth)
		return NULL;
	p->idx[p->depth - 1] += before ? UINT32_MAX : 1;
	n = node_child(p->node[p->depth - 1], p->idx[p->depth - 1]);
	while (n->height) {
		p->node[p->depth] = n;
		p->idx[p->depth++] = before ? n->count - 1 : 0;
		n = node_child(n, before ? n->count - 1 : 0);
	}
	return n;
}

static bool visit_leaf(const struct oidx_node *leaf, uint32_t from, uint32_t to, bool reverse,
		       oidx_visit_fn fn, void *ctx)
{
	const uint8_t *const prefix = node_prefix(leaf);

	for (uint32_t k = from; k < to; k++) {
		uint32_t len;
		const uint8_t *const rest =
			node_rest(leaf, reverse ? to - 1 - (k - from) : k, &len);

		if (!fn(ctx, prefix, leaf->prefix_len, rest, len))
			return false;
	}
	return true;
}

void oidx_scan_pinned(const struct oidx *o, const struct oidx_bound *low,
		      const struct oidx_bound *high, bool reverse, oidx_visit_fn fn, void *ctx)
{
	const struct oidx_bound *const start = reverse ? high : low;
	const struct oidx_node *leaf;
	struct path p;

	leaf = descend(o, start->p, start->n, reverse, &p);
	while (leaf) {
		uint32_t from = 0, to = leaf->count;

		if (low->p)
			from = node_bound(leaf, low->p, low->n, low->exclusive);
		if (high->p)
			to = node_bound(leaf, high->p, high->n, !high->exclusive);
		if (from < to && !visit_leaf(leaf, from, to, reverse, fn, ctx))
			return;
		/* The other end lies in this leaf. */
		if (reverse ? from > 0 : to < leaf->count)
			return;
		leaf = neighbour(&p, reverse);
	}
}

/* ---- Changing ------------------------------------------------------------------------- */

/* What one change made and what it replaces, chained through the epoch nodes, which readers never look at. */
struct change {
	struct oidx *o;
	struct path *path;
	struct epoch_node *made, *dead;
	struct pieces now; /* takes the place of `drop` children of the next node up */
	uint32_t drop;
};

static void made_add(struct change *c)
{
	for (uint32_t i = 0; i < c->now.n; i++) {
		c->now.node[i]->node.next = c->made;
		c->made = &c->now.node[i]->node;
	}
}

static void dead_add(struct change *c, struct oidx_node *n)
{
	n->node.next = c->dead;
	c->dead = &n->node;
}

static void node_retired(struct epoch_node *n)
{
	node_free(container_of(n, struct oidx_node, node));
}

static void bytes_add(struct oidx *o, uint64_t n)
{
	atomic_store_explicit(&o->bytes, atomic_load_explicit(&o->bytes, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static void count_add(struct oidx *o, uint64_t n)
{
	atomic_store_explicit(&o->count, atomic_load_explicit(&o->count, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* Published: the nodes made count, the others are dead. */
static void change_account(struct oidx *o, struct change *c) EMDB_REQUIRES(o->lock)
{
	for (struct epoch_node *n = c->made; n; n = n->next)
		bytes_add(o, node_cost(container_of(n, struct oidx_node, node)));
	for (struct epoch_node *n = c->dead; n; n = n->next)
		bytes_add(o, -node_cost(container_of(n, struct oidx_node, node)));
}

/* Without the lock: retiring may run functions of others. */
static void change_retire(struct change *c)
{
	while (c->dead) {
		struct epoch_node *const n = c->dead;

		c->dead = n->next;
		epoch_retire(c->o->epoch, n, node_retired);
	}
}

static void change_undo(struct change *c)
{
	while (c->made) {
		struct epoch_node *const n = c->made;

		c->made = n->next;
		node_free(container_of(n, struct oidx_node, node));
	}
	c->dead = NULL;
}

/* The children and separators that an inner node has after a change. */
struct work {
	struct okey seps[OIDX_WORK_MAX];
	struct oidx_node *kids[OIDX_WORK_MAX];
	uint32_t n, nseps;
};

static void work_take(struct work *w, const struct oidx_node *node)
{
	for (uint32_t i = 0; i < node->count; i++)
		w->kids[w->n++] = node_child(node, i);
	for (uint32_t i = 0; i + 1 < node->count; i++)
		w->seps[w->nseps++] = node_key(node, i);
}

/* Children [idx, idx + drop) of parent become c->now. */
static void work_replace(struct work *w, const struct oidx_node *parent, uint32_t idx,
			 const struct change *c)
{
	const uint32_t end = idx + c->drop;
	uint32_t seps_before = idx, seps_behind = end - 1;

	/* Nothing in its place: the gap goes to the neighbour before, or else to the one behind. */
	if (!c->now.n && idx)
		seps_before--;
	else if (!c->now.n)
		seps_behind++;
	w->n = w->nseps = 0;
	for (uint32_t i = 0; i < idx; i++)
		w->kids[w->n++] = node_child(parent, i);
	for (uint32_t i = 0; i < c->now.n; i++)
		w->kids[w->n++] = c->now.node[i];
	for (uint32_t i = end; i < parent->count; i++)
		w->kids[w->n++] = node_child(parent, i);
	for (uint32_t i = 0; i < seps_before; i++)
		w->seps[w->nseps++] = node_key(parent, i);
	for (uint32_t i = 0; i + 1 < c->now.n; i++)
		w->seps[w->nseps++] = c->now.sep[i];
	for (uint32_t i = seps_behind; i < node_keys(parent); i++)
		w->seps[w->nseps++] = node_key(parent, i);
	emdb_dassert(w->n == 0 || w->nseps == w->n - 1);
}

/*
 * A node with few children takes in a neighbour, if both are small.  above: the node that holds
 * both, *idx the place of the small one there.
 */
static void work_merge(struct work *w, const struct oidx_node *above, uint32_t *idx,
		       struct change *c)
{
	const bool right = *idx + 1 < above->count;
	struct oidx_node *other;
	struct work both;

	if (w->n >= OIDX_INNER_CHILDREN / 4 || above->count < 2)
		return;
	other = node_child(above, right ? *idx + 1 : *idx - 1);
	if (other->count + w->n > OIDX_INNER_CHILDREN * 3 / 4 || other->size > OIDX_INNER_BYTES / 2)
		return;
	dead_add(c, other);
	c->drop = 2;
	if (right) {
		w->seps[w->nseps++] = node_key(above, *idx);
		work_take(w, other);
		return;
	}
	(*idx)--;
	both.n = both.nseps = 0;
	work_take(&both, other);
	both.seps[both.nseps++] = node_key(above, *idx);
	memcpy(both.kids + both.n, w->kids, w->n * sizeof(w->kids[0]));
	memcpy(both.seps + both.nseps, w->seps, w->nseps * sizeof(w->seps[0]));
	both.n += w->n;
	both.nseps += w->nseps;
	*w = both;
}

/* Release: pairs with descend() and node_child(); what is below is complete. */
static void root_set(struct oidx *o, struct oidx_node *n)
{
	atomic_store_explicit(&o->root, n, memory_order_release);
}

/* The root was replaced. */
static int change_root(struct change *c)
{
	while (c->now.n > 1) {
		const struct pieces below = c->now;
		const int err = pieces_of_kids(below.sep, below.node, below.n,
					       (uint8_t)(below.node[0]->height + 1), &c->now);

		if (err)
			return err;
		made_add(c);
	}
	root_set(c->o, c->now.n ? c->now.node[0] : NULL);
	return 0;
}

/* Puts c->now where the path leads to. */
static int change_publish(struct change *c)
{
	struct path *const p = c->path;
	struct work w;

	while (p->depth) {
		struct oidx_node *const parent = p->node[--p->depth];
		const uint32_t idx = p->idx[p->depth];
		int err;

		if (c->now.n == 1 && c->drop == 1) {
			atomic_store_explicit(&node_children(parent)[idx], c->now.node[0],
					      memory_order_release);
			return 0;
		}
		work_replace(&w, parent, idx, c);
		dead_add(c, parent);
		c->drop = 1;
		c->now.n = 0;
		if (w.n == 0)
			continue;
		if (w.n == 1 && !p->depth) {
			root_set(c->o, w.kids[0]);
			return 0;
		}
		if (p->depth)
			work_merge(&w, p->node[p->depth - 1], &p->idx[p->depth - 1], c);
		err = pieces_of_kids(w.seps, w.kids, w.n, parent->height, &c->now);
		if (err)
			return err;
		made_add(c);
	}
	return change_root(c);
}

/* Publishes what c->now starts with and says how it went. */
static int change_do(struct oidx *o, struct change *c, uint64_t count) EMDB_REQUIRES(o->lock)
{
	int err;

	made_add(c);
	err = change_publish(c);
	if (err) {
		change_undo(c);
		return err;
	}
	change_account(o, c);
	count_add(o, count);
	return 0;
}

/* ---- Inserting --------------------------------------------------------------------------- */

static bool fits(const struct oidx_node *leaf, const uint8_t *key, size_t len)
{
	return !leaf->wide && leaf->count < OIDX_LEAF_KEYS && len >= leaf->prefix_len &&
	       leaf->size + 2 + len - leaf->prefix_len <= OIDX_LEAF_BYTES &&
	       memcmp(key, node_prefix(leaf), leaf->prefix_len) == 0;
}

/* The leaves that take the place of this one. */
static int leaf_insert(const struct oidx_node *leaf, uint32_t pos, const uint8_t *key, size_t len,
		       struct pieces *ret)
{
	struct okey keys[OIDX_WORK_MAX];
	uint32_t n = 0;

	if (leaf && fits(leaf, key, len)) {
		ret->n = 1;
		ret->node[0] = leaf_with(leaf, pos, key + leaf->prefix_len,
					 (uint32_t)len - leaf->prefix_len);
		return ret->node[0] ? 0 : -ENOMEM;
	}
	while (n < pos) {
		keys[n] = node_key(leaf, n);
		n++;
	}
	keys[n++] = (struct okey){ .a = key, .an = (uint32_t)len };
	for (uint32_t i = pos; leaf && i < leaf->count; i++)
		keys[n++] = node_key(leaf, i);
	return pieces_of_keys(keys, n, ret);
}

static int insert_locked(struct oidx *o, struct change *c, const uint8_t *key, size_t len)
	EMDB_REQUIRES(o->lock)
{
	struct oidx_node *const leaf = descend(o, key, len, false, c->path);
	uint32_t pos = 0;
	int err;

	if (leaf) {
		pos = node_bound(leaf, key, len, false);
		if (pos < leaf->count && node_has(leaf, pos, key, len))
			return 0;
	}
	err = leaf_insert(leaf, pos, key, len, &c->now);
	if (err)
		return err;
	if (leaf)
		dead_add(c, leaf);
	return change_do(o, c, 1);
}

/* What NULL stands for here is no key at all. */
static const uint8_t *some(const void *key)
{
	return key ? key : (const uint8_t *)"";
}

int oidx_insert(struct oidx *o, const void *key, size_t len)
{
	struct path path;
	struct change c = { .o = o, .path = &path, .drop = 1 };
	int err;

	emdb_assert(len <= OIDX_KEY_MAX);
	mutex_lock(&o->lock);
	err = insert_locked(o, &c, some(key), len);
	mutex_unlock(&o->lock);
	change_retire(&c);
	return err;
}

/* ---- Removing ----------------------------------------------------------------------------- */

/* A leaf that gets small takes in a neighbour, if both are; false: it does not. */
static bool leaf_merge(struct change *c, const struct oidx_node *leaf, uint32_t pos, int *ret_err)
{
	struct path *const p = c->path;
	struct okey keys[OIDX_WORK_MAX];
	struct oidx_node *other;
	uint32_t *idx, n = 0;
	bool right;

	if (!p->depth || leaf->count > OIDX_LEAF_KEYS / 4 || leaf->size > OIDX_LEAF_BYTES / 4)
		return false;
	idx = &p->idx[p->depth - 1];
	if (p->node[p->depth - 1]->count < 2)
		return false;
	right = *idx + 1 < p->node[p->depth - 1]->count;
	other = node_child(p->node[p->depth - 1], right ? *idx + 1 : *idx - 1);
	if (other->count > OIDX_LEAF_KEYS / 2)
		return false;
	for (uint32_t i = 0; !right && i < other->count; i++)
		keys[n++] = node_key(other, i);
	for (uint32_t i = 0; i < leaf->count; i++)
		if (i != pos)
			keys[n++] = node_key(leaf, i);
	for (uint32_t i = 0; right && i < other->count; i++)
		keys[n++] = node_key(other, i);
	if (node_size_of(keys, 0, n, false) > OIDX_LEAF_BYTES / 2)
		return false;
	*ret_err = pieces_of_keys(keys, n, &c->now);
	if (*ret_err)
		return true;
	dead_add(c, other);
	c->drop = 2;
	*idx -= !right;
	return true;
}

static int leaf_remove(struct change *c, const struct oidx_node *leaf, uint32_t pos)
{
	struct okey keys[OIDX_WORK_MAX];
	uint32_t n = 0;
	int err;

	c->now.n = 0;
	if (leaf->count == 1)
		return 0;
	if (leaf_merge(c, leaf, pos, &err))
		return err;
	if (!leaf->wide) {
		c->now.node[0] = leaf_without(leaf, pos);
		c->now.n = c->now.node[0] != NULL;
		return c->now.n ? 0 : -ENOMEM;
	}
	for (uint32_t i = 0; i < leaf->count; i++)
		if (i != pos)
			keys[n++] = node_key(leaf, i);
	return pieces_of_keys(keys, n, &c->now);
}

static int remove_locked(struct oidx *o, struct change *c, const uint8_t *key, size_t len)
	EMDB_REQUIRES(o->lock)
{
	struct oidx_node *const leaf = descend(o, key, len, false, c->path);
	uint32_t pos;
	int err;

	if (!leaf)
		return 0;
	pos = node_bound(leaf, key, len, false);
	if (pos == leaf->count || !node_has(leaf, pos, key, len))
		return 0;
	err = leaf_remove(c, leaf, pos);
	if (err) {
		c->dead = NULL;
		return err;
	}
	dead_add(c, leaf);
	return change_do(o, c, (uint64_t)-1);
}

int oidx_remove(struct oidx *o, const void *key, size_t len)
{
	struct path path;
	struct change c = { .o = o, .path = &path, .drop = 1 };
	int err;

	emdb_assert(len <= OIDX_KEY_MAX);
	mutex_lock(&o->lock);
	err = remove_locked(o, &c, some(key), len);
	mutex_unlock(&o->lock);
	change_retire(&c);
	return err;
}

/* ---- The whole ------------------------------------------------------------------------------ */

void oidx_init(struct oidx *o, struct epoch *ep)
{
	*o = (struct oidx){ .epoch = ep };
	mutex_init(&o->lock, LOCK_OIDX);
}

/* Depth first; retire: through the epoch. */
static void drop_tree(struct oidx *o, struct oidx_node *n, bool retire)
{
	for (uint32_t i = 0; n->height && i < n->count; i++)
		drop_tree(o, node_child(n, i), retire);
	if (retire)
		epoch_retire(o->epoch, &n->node, node_retired);
	else
		node_free(n);
}

void oidx_release(struct oidx *o)
{
	struct oidx_node *const root = atomic_load_explicit(&o->root, memory_order_acquire);

	if (root)
		drop_tree(o, root, false);
	if (o->epoch)
		mutex_destroy(&o->lock);
	memset(o, 0, sizeof(*o));
}

void oidx_clear(struct oidx *o)
{
	struct oidx_node *root;

	mutex_lock(&o->lock);
	root = atomic_load_explicit(&o->root, memory_order_relaxed);
	root_set(o, NULL);
	atomic_store_explicit(&o->count, 0, memory_order_relaxed);
	atomic_store_explicit(&o->bytes, 0, memory_order_relaxed);
	mutex_unlock(&o->lock);
	if (root)
		drop_tree(o, root, true);
}

uint64_t oidx_count(const struct oidx *o)
{
	return atomic_load_explicit(&o->count, memory_order_relaxed);
}

uint64_t oidx_memory(const struct oidx *o)
{
	return atomic_load_explicit(&o->bytes, memory_order_relaxed);
}
