/* SPDX-License-Identifier: Apache-2.0 */
#include "core/index_ord_i.h"

#define MALLOC_HEADER 8
#define MALLOC_ALIGN  16

static_assert(OIDX_LEAF_KEYS + 1 <= OIDX_WORK_MAX, "a leaf and one more key");
static_assert(OIDX_INNER_MIN >= 4, "halves of what is too big have two children");

/* ---- Keys in two pieces ---------------------------------------------------- */

uint32_t okey_common(const struct okey *x, const struct okey *y)
{
	const uint32_t max = (uint32_t)min_size(okey_len(x), okey_len(y));
	uint32_t i = 0;

	if (x->a == y->a)
		i = (uint32_t)min_size(min_size(x->an, y->an), max);
	while (i < max && okey_byte(x, i) == okey_byte(y, i))
		i++;
	return i;
}

int okey_cmp(const struct okey *x, const struct okey *y)
{
	const uint32_t i = okey_common(x, y), xn = okey_len(x), yn = okey_len(y);

	if (i < xn && i < yn)
		return okey_byte(x, i) < okey_byte(y, i) ? -1 : 1;
	return (xn > yn) - (xn < yn);
}

static struct okey okey_cut(struct okey k, uint32_t len)
{
	k.an = (uint32_t)min_size(k.an, len);
	k.bn = len - k.an;
	return k;
}

struct okey okey_separator(const struct okey *left, const struct okey *right)
{
	return okey_cut(*right, okey_common(left, right) + 1);
}

/* Without its first `skip` bytes, to dst; returns the end. */
static uint8_t *okey_copy(uint8_t *dst, const struct okey *k, uint32_t skip)
{
	const uint32_t a = (uint32_t)min_size(skip, k->an), b = skip - a;

	if (k->an > a) {
		memcpy(dst, k->a + a, k->an - a);
		dst += k->an - a;
	}
	if (k->bn > b) {
		memcpy(dst, k->b + b, k->bn - b);
		dst += k->bn - b;
	}
	return dst;
}

/* ---- Nodes -------------------------------------------------------------------- */

struct shape {
	uint32_t prefix;
	size_t rests; /* bytes */
	bool wide;
	size_t size;
};

static struct shape shape_of(const struct okey *keys, uint32_t from, uint32_t to, bool inner)
{
	struct shape s = { .size = sizeof(struct oidx_node) };

	if (to > from)
		s.prefix = to - from == 1 ? okey_len(&keys[from])
					  : okey_common(&keys[from], &keys[to - 1]);
	for (uint32_t i = from; i < to; i++)
		s.rests += okey_len(&keys[i]) - s.prefix;
	s.wide = s.rests > UINT16_MAX;
	if (inner)
		s.size += (to - from + 1) * sizeof(struct oidx_node *);
	s.size += (size_t)(to - from + 1) * (s.wide ? 4 : 2) + s.prefix + s.rests;
	return s;
}

size_t node_size_of(const struct okey *keys, uint32_t from, uint32_t to, bool inner)
{
	return shape_of(keys, from, to, inner).size;
}

uint64_t node_cost(const struct oidx_node *n)
{
	return align_up((uint64_t)n->size + MALLOC_HEADER, MALLOC_ALIGN);
}

static void off_set(struct oidx_node *n, uint32_t i, size_t v)
{
	if (n->wide)
		((uint32_t *)(void *)node_offsets(n))[i] = (uint32_t)v;
	else
		((uint16_t *)(void *)node_offsets(n))[i] = (uint16_t)v;
}

struct oidx_node *node_new(const struct okey *keys, uint32_t n, struct oidx_node *const *kids,
			   uint8_t height)
{
	const struct shape s = shape_of(keys, 0, n, height != 0);
	struct oidx_node *const node = base_malloc(s.size);
	uint8_t *start, *at;

	if (!node)
		return NULL;
	*node = (struct oidx_node){ .count = height ? n + 1 : n,
				    .size = (uint32_t)s.size,
				    .prefix_len = (uint16_t)s.prefix,
				    .height = height,
				    .wide = s.wide };
	for (uint32_t i = 0; height && i <= n; i++)
		atomic_init(&node_children(node)[i], kids[i]);
	at = (uint8_t *)(uintptr_t)node_prefix(node);
	if (n) {
		const struct okey prefix = okey_cut(keys[0], s.prefix);

		at = okey_copy(at, &prefix, 0);
	}
	start = at;
	for (uint32_t i = 0; i < n; i++) {
		off_set(node, i, (size_t)(at - start));
		at = okey_copy(at, &keys[i], s.prefix);
	}
	off_set(node, n, (size_t)(at - start));
	return node;
}

struct oidx_node *leaf_with(const struct oidx_node *old, uint32_t pos, const uint8_t *rest,
			    uint32_t len)
{
	const uint32_t n = old->count, at = node_off(old, pos), end = node_off(old, n);
	const size_t size = (size_t)old->size + 2 + len;
	struct oidx_node *const node = base_malloc(size);
	const uint16_t *from = (const uint16_t *)(const void *)node_offsets(old);
	uint16_t *to;
	uint8_t *p;

	emdb_dassert(!old->wide && end + len <= UINT16_MAX && !old->height);
	if (!node)
		return NULL;
	*node = (struct oidx_node){ .count = n + 1,
				    .size = (uint32_t)size,
				    .prefix_len = old->prefix_len };
	to = (uint16_t *)(void *)node_offsets(node);
	memcpy(to, from, (pos + 1) * sizeof(*to));
	for (uint32_t i = pos; i <= n; i++)
		to[i + 1] = (uint16_t)(from[i] + len);
	p = (uint8_t *)(uintptr_t)node_prefix(node);
	memcpy(p, node_prefix(old), old->prefix_len + at);
	p += old->prefix_len + at;
	if (len)
		memcpy(p, rest, len);
	memcpy(p + len, node_prefix(old) + old->prefix_len + at, end - at);
	return node;
}

struct oidx_node *leaf_without(const struct oidx_node *old, uint32_t pos)
{
	const uint32_t n = old->count, at = node_off(old, pos), next = node_off(old, pos + 1),
		       end = node_off(old, n), len = next - at;
	const size_t size = (size_t)old->size - 2 - len;
	struct oidx_node *const node = base_malloc(size);
	const uint16_t *from = (const uint16_t *)(const void *)node_offsets(old);
	uint16_t *to;
	uint8_t *p;

	emdb_dassert(!old->wide && !old->height && n > 1);
	if (!node)
		return NULL;
	*node = (struct oidx_node){ .count = n - 1,
				    .size = (uint32_t)size,
				    .prefix_len = old->prefix_len };
	to = (uint16_t *)(void *)node_offsets(node);
	memcpy(to, from, pos * sizeof(*to));
	for (uint32_t i = pos; i < n; i++)
		to[i] = (uint16_t)(from[i + 1] - len);
	p = (uint8_t *)(uintptr_t)node_prefix(node);
	memcpy(p, node_prefix(old), old->prefix_len + at);
	memcpy(p + old->prefix_len + at, node_prefix(old) + old->prefix_len + next, end - next);
	return node;
}

void node_free(struct oidx_node *n)
{
	base_free(n);
}

/* ---- One node or several ---------------------------------------------------------- */

void pieces_free(struct pieces *p)
{
	for (uint32_t i = 0; i < p->n; i++)
		node_free(p->node[i]);
	p->n = 0;
}

static int piece_add(struct pieces *p, struct oidx_node *node)
{
	if (!node)
		return -ENOMEM;
	emdb_assert(p->n < OIDX_PIECES_MAX);
	p->node[p->n++] = node;
	return 0;
}

static int add_leaves(const struct okey *keys, uint32_t from, uint32_t to, struct pieces *ret)
{
	const uint32_t n = to - from, mid = from + n / 2;
	int err;

	if (n == 1 ||
	    (n <= OIDX_LEAF_KEYS && node_size_of(keys, from, to, false) <= OIDX_LEAF_BYTES))
		return piece_add(ret, node_new(keys + from, n, NULL, 0));
	err = add_leaves(keys, from, mid, ret);
	if (err)
		return err;
	ret->sep[ret->n - 1] = okey_separator(&keys[mid - 1], &keys[mid]);
	return add_leaves(keys, mid, to, ret);
}

int pieces_of_keys(const struct okey *keys, uint32_t n, struct pieces *ret)
{
	int err;

	ret->n = 0;
	err = add_leaves(keys, 0, n, ret);
	if (err)
		pieces_free(ret);
	return err;
}

/* Of children [from, to). */
static int add_inner(const struct okey *seps, struct oidx_node *const *kids, uint32_t from,
		     uint32_t to, uint8_t height, struct pieces *ret)
{
	const uint32_t n = to - from, mid = from + n / 2;
	int err;

	if (n <= OIDX_INNER_MIN || (n <= OIDX_INNER_CHILDREN &&
				    node_size_of(seps, from, to - 1, true) <= OIDX_INNER_BYTES))
		return piece_add(ret, node_new(seps + from, n - 1, kids + from, height));
	err = add_inner(seps, kids, from, mid, height, ret);
	if (err)
		return err;
	ret->sep[ret->n - 1] = seps[mid - 1];
	return add_inner(seps, kids, mid, to, height, ret);
}

int pieces_of_kids(const struct okey *seps, struct oidx_node *const *kids, uint32_t n,
		   uint8_t height, struct pieces *ret)
{
	int err;

	ret->n = 0;
	err = add_inner(seps, kids, 0, n, height, ret);
	if (err)
		pieces_free(ret);
	return err;
}
