/* SPDX-License-Identifier: Apache-2.0 */
/* Sorting keys, building an index of them at once, and checking one. */
#include "core/index_ord_i.h"

/* Keys and children that a built node gets: some room, or the first insertions split all of them. */
#define FILL_KEYS     (OIDX_LEAF_KEYS * 7 / 8)
#define FILL_CHILDREN (OIDX_INNER_CHILDREN * 7 / 8)
#define SORT_RUN      12 /* keys sorted by insertion */

/* ---- Sorting ------------------------------------------------------------------- */

static bool key_before(const struct oidx_key *x, const struct oidx_key *y)
{
	uint64_t a, b;
	int c;

	/* Eight bytes at once where there are: most keys differ there. */
	if (x->n >= sizeof(a) && y->n >= sizeof(b)) {
		memcpy(&a, x->p, sizeof(a));
		memcpy(&b, y->p, sizeof(b));
		if (a != b) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
			return __builtin_bswap64(a) < __builtin_bswap64(b);
#else
			return a < b;
#endif
		}
	}
	c = memcmp(x->p, y->p, min_size(x->n, y->n));
	return c ? c < 0 : x->n < y->n;
}

static void sort_run(struct oidx_key *k, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		const struct oidx_key x = k[i];
		size_t j = i;

		while (j && key_before(&x, &k[j - 1])) {
			k[j] = k[j - 1];
			j--;
		}
		k[j] = x;
	}
}

static void merge_runs(struct oidx_key *k, size_t mid, size_t n, struct oidx_key *space)
{
	size_t i = 0, j = mid, at = 0;

	if (!key_before(&k[mid], &k[mid - 1]))
		return;
	memcpy(space, k, mid * sizeof(*k));
	while (i < mid && j < n)
		k[at++] = key_before(&k[j], &space[i]) ? k[j++] : space[i++];
	memcpy(k + at, space + i, (mid - i) * sizeof(*k));
}

void oidx_sort(struct oidx_key *keys, struct oidx_key *space, size_t n)
{
	/* In halves, depth first, so that all levels but the last few work in the caches. */
	if (n <= SORT_RUN) {
		sort_run(keys, n);
		return;
	}
	oidx_sort(keys, space, n / 2);
	oidx_sort(keys + n / 2, space, n - n / 2);
	merge_runs(keys, n / 2, n, space);
}

/* ---- Building -------------------------------------------------------------------- */

/* One level of the tree, from left to right. */
struct level {
	struct oidx_node **node;
	struct okey *sep; /* sep[i] between node[i] and node[i + 1] */
	size_t n, cap;
};

static void level_release(struct level *l)
{
	base_free(l->node);
	base_free(l->sep);
	*l = (struct level){ .n = 0 };
}

/* Of what a failed build made: whole trees. */
static void level_free_nodes(struct level *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct level below = { .n = 0 };

		for (uint32_t k = 0; l->node[i]->height && k < l->node[i]->count; k++) {
			struct oidx_node *kid = node_child(l->node[i], k);

			below = (struct level){ .node = &kid, .n = 1 };
			level_free_nodes(&below);
		}
		node_free(l->node[i]);
	}
	l->n = 0;
}

/* Appends; `before` is the separator to the node in front. Takes the pieces also when it fails. */
static int level_add(struct level *l, struct pieces *p, const struct okey *before)
{
	if (l->cap - l->n < p->n) {
		const size_t cap = l->cap * 2 + OIDX_PIECES_MAX;
		struct oidx_node **const node =
			base_realloc(l->node, cap * sizeof(struct oidx_node *));
		struct okey *sep;

		if (node)
			l->node = node;
		sep = base_realloc(l->sep, cap * sizeof(*sep));
		if (sep)
			l->sep = sep;
		if (!node || !sep) {
			pieces_free(p);
			return -ENOMEM;
		}
		l->cap = cap;
	}
	if (l->n)
		l->sep[l->n - 1] = *before;
	for (uint32_t i = 0; i < p->n; i++) {
		if (i + 1 < p->n)
			l->sep[l->n] = p->sep[i];
		l->node[l->n++] = p->node[i];
	}
	return 0;
}

static int build_leaves(struct level *l, const struct oidx_key *keys, size_t n)
{
	struct okey run[FILL_KEYS], last = { .an = 0 };

	for (size_t from = 0; from < n;) {
		uint32_t take = (uint32_t)min_size(n - from, FILL_KEYS);
		struct okey before;
		struct pieces p;
		int err;

		for (uint32_t i = 0; i < take; i++)
			run[i] = (struct okey){ .a = keys[from + i].p,
						.an = (uint32_t)keys[from + i].n };
		while (take > 1 && node_size_of(run, 0, take, false) > OIDX_LEAF_BYTES)
			take /= 2;
		before = okey_separator(&last, &run[0]);
		last = run[take - 1];
		err = pieces_of_keys(run, take, &p);
		if (!err)
			err = level_add(l, &p, &before);
		if (err)
			return err;
		from += take;
	}
	return 0;
}

/* The nodes above; what they took leaves `down`. */
static int build_inner(struct level *up, struct level *down)
{
	const uint8_t height = (uint8_t)(down->node[0]->height + 1);
	size_t from = 0;
	int err = 0;

	while (!err && from < down->n) {
		const struct okey *const seps = down->sep + from;
		uint32_t take = (uint32_t)min_size(down->n - from, FILL_CHILDREN);
		struct pieces p;

		while (take > OIDX_INNER_MIN &&
		       node_size_of(seps, 0, take - 1, true) > OIDX_INNER_BYTES)
			take = (uint32_t)max_size(take / 2, OIDX_INNER_MIN);
		err = pieces_of_kids(seps, down->node + from, take, height, &p);
		if (!err)
			err = level_add(up, &p, from ? &down->sep[from - 1] : NULL);
		if (!err)
			from += take;
	}
	down->n -= from;
	memmove(down->node, down->node + from, down->n * sizeof(down->node[0]));
	return err;
}

static uint64_t tree_cost(const struct oidx_node *n)
{
	uint64_t cost = node_cost(n);

	for (uint32_t i = 0; n->height && i < n->count; i++)
		cost += tree_cost(node_child(n, i));
	return cost;
}

int oidx_build(struct oidx *o, const struct oidx_key *keys, size_t n)
{
	struct level down = { .n = 0 }, up = { .n = 0 };
	int err = build_leaves(&down, keys, n);

	while (!err && down.n > 1) {
		struct level t;

		err = build_inner(&up, &down);
		t = down;
		down = up;
		up = t;
	}
	if (!err && n) {
		mutex_lock(&o->lock);
		atomic_store_explicit(&o->count, n, memory_order_relaxed);
		atomic_store_explicit(&o->bytes, tree_cost(down.node[0]), memory_order_relaxed);
		atomic_store_explicit(&o->root, down.node[0], memory_order_release);
		mutex_unlock(&o->lock);
		down.n = 0;
	}
	level_free_nodes(&down);
	level_free_nodes(&up);
	level_release(&down);
	level_release(&up);
	return err;
}

/* ---- Checking ----------------------------------------------------------------------- */

struct check {
	uint64_t keys, bytes;
	struct okey last; /* the key before; b NULL and a NULL: none yet */
	bool any;
};

/* low, high: what the separators above say of all keys here; NULL: nothing. */
static bool check_tree(struct check *c, const struct oidx_node *n, const struct okey *low,
		       const struct okey *high)
{
	c->bytes += node_cost(n);
	if (!n->count)
		return false;
	for (uint32_t i = 0; i < node_keys(n); i++) {
		const struct okey k = node_key(n, i);

		if ((low && okey_cmp(&k, low) < 0) || (high && okey_cmp(&k, high) >= 0))
			return false;
		if (n->height)
			continue;
		if (c->any && okey_cmp(&c->last, &k) >= 0)
			return false;
		c->last = k;
		c->any = true;
		c->keys++;
	}
	for (uint32_t i = 0; n->height && i < n->count; i++) {
		const struct okey before = i ? node_key(n, i - 1) : (struct okey){ .a = NULL };
		const struct okey behind =
			i + 1 < n->count ? node_key(n, i) : (struct okey){ .a = NULL };
		const struct oidx_node *const kid = node_child(n, i);

		if (kid->height + 1 != n->height ||
		    !check_tree(c, kid, i ? &before : low, i + 1 < n->count ? &behind : high))
			return false;
	}
	return true;
}

bool oidx_check(struct oidx *o)
{
	struct check c = { .keys = 0 };
	const struct oidx_node *root;
	bool good;

	mutex_lock(&o->lock);
	root = atomic_load_explicit(&o->root, memory_order_relaxed);
	good = (!root || check_tree(&c, root, NULL, NULL)) && c.keys == oidx_count(o) &&
	       c.bytes == oidx_memory(o);
	mutex_unlock(&o->lock);
	return good;
}
