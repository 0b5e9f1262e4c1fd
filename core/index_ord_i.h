/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_ord_i: nodes (index_ord_node.c), which index_ord.c (reading, changing) and
 * index_ord_build.c (sorting, building, checking) share.
 *
 * A node is complete before anybody else sees it; from then on only child pointers are written, by
 * writers, under the lock, as long as the node is in the tree.
 */
#ifndef EMDB_INDEX_ORD_I_H
#define EMDB_INDEX_ORD_I_H

#include "core/index_ord.h"

/* A leaf splits beyond either; one key may always be alone. */
#define OIDX_LEAF_KEYS  64u
#define OIDX_LEAF_BYTES 4096u
/* An inner node splits beyond either; it may always have INNER_MIN children. */
#define OIDX_INNER_CHILDREN 96u
#define OIDX_INNER_BYTES    4096u
#define OIDX_INNER_MIN      8u
/* Every level has at least a few times the nodes of the one above: never reached. */
#define OIDX_DEPTH_MAX 40u
/*
 * Nodes that one change makes of one node. Usually one or two. More when something long comes
 * between short keys, or something that ends a long common prefix: halves are halved until they
 * fit, and all but those with the new keys in them do at once.
 */
#define OIDX_PIECES_MAX 24
/* Keys, or children, in hand while one node is changed. */
#define OIDX_WORK_MAX (OIDX_INNER_CHILDREN + OIDX_PIECES_MAX + 8)

struct oidx_node {
	struct epoch_node node; /* used once retired */
	uint32_t count;         /* of keys, or of children; immutable, as all below */
	uint32_t size;          /* bytes of this allocation */
	uint16_t prefix_len;
	uint8_t height; /* 0: a leaf */
	bool wide;      /* offsets have 32 bits */
	/*
	 * Inner: _Atomic(struct oidx_node *) child[count], release by writers, acquire by readers.
	 * Then off[keys + 1], the prefix, what is left of each key one after the other.
	 */
	_Alignas(8) uint8_t body[];
};

/* A key in two pieces, somewhere. */
struct okey {
	const uint8_t *a, *b;
	uint32_t an, bn;
};

static inline uint32_t node_keys(const struct oidx_node *n)
{
	return n->height ? n->count - 1 : n->count;
}

static inline _Atomic(struct oidx_node *) *node_children(const struct oidx_node *n)
{
	return (_Atomic(struct oidx_node *) *)(uintptr_t)n->body;
}

static inline struct oidx_node *node_child(const struct oidx_node *n, uint32_t i)
{
	return atomic_load_explicit(&node_children(n)[i], memory_order_acquire);
}

static inline uint8_t *node_offsets(const struct oidx_node *n)
{
	return (uint8_t *)(uintptr_t)n->body +
	       (n->height ? n->count * sizeof(struct oidx_node *) : 0);
}

static inline uint32_t node_off(const struct oidx_node *n, uint32_t i)
{
	const uint8_t *const p = node_offsets(n);

	return n->wide ? ((const uint32_t *)(const void *)p)[i]
		       : ((const uint16_t *)(const void *)p)[i];
}

static inline const uint8_t *node_prefix(const struct oidx_node *n)
{
	return node_offsets(n) + (size_t)(node_keys(n) + 1) * (n->wide ? 4 : 2);
}

/* What is left of key i behind the prefix. */
static inline const uint8_t *node_rest(const struct oidx_node *n, uint32_t i, uint32_t *ret_len)
{
	const uint32_t at = node_off(n, i);

	*ret_len = node_off(n, i + 1) - at;
	return node_prefix(n) + n->prefix_len + at;
}

static inline struct okey node_key(const struct oidx_node *n, uint32_t i)
{
	struct okey k = { .a = node_prefix(n), .an = n->prefix_len };

	k.b = node_rest(n, i, &k.bn);
	return k;
}

static inline uint32_t okey_len(const struct okey *k)
{
	return k->an + k->bn;
}

static inline uint8_t okey_byte(const struct okey *k, uint32_t i)
{
	return i < k->an ? k->a[i] : k->b[i - k->an];
}

/* How many bytes two keys share at their start. */
uint32_t okey_common(const struct okey *x, const struct okey *y);
int okey_cmp(const struct okey *x, const struct okey *y);
/* The shortest key behind `left` that is not behind `right`: a piece of right. */
struct okey okey_separator(const struct okey *left, const struct okey *right);

/*
 * A node of these keys, in order; kids NULL: a leaf of n keys, else n + 1 children. height is its
 * own. NULL: no memory.
 */
struct oidx_node *node_new(const struct okey *keys, uint32_t n, struct oidx_node *const *kids,
			   uint8_t height);
/* The leaf with one more key, as its prefix and this rest, before the one at pos; not for wide ones. */
struct oidx_node *leaf_with(const struct oidx_node *old, uint32_t pos, const uint8_t *rest,
			    uint32_t len);
/* The leaf without key pos; not for wide ones, nor the last key. */
struct oidx_node *leaf_without(const struct oidx_node *old, uint32_t pos);
/* At once: nobody else has seen it. */
void node_free(struct oidx_node *n);
/* The bytes that a node of keys [from, to) would have. */
size_t node_size_of(const struct okey *keys, uint32_t from, uint32_t to, bool inner);
/* What malloc takes for a node. */
uint64_t node_cost(const struct oidx_node *n);

/* The nodes that take the place of one or more neighbours; sep[i] is between node[i] and node[i + 1]. */
struct pieces {
	struct oidx_node *node[OIDX_PIECES_MAX];
	struct okey sep[OIDX_PIECES_MAX];
	uint32_t n;
};

/* Makes leaves of n keys, as few as the limits allow. -ENOMEM: what it made is freed again. */
int pieces_of_keys(const struct okey *keys, uint32_t n, struct pieces *ret);
/* Makes inner nodes of n children and the n - 1 separators between them. */
int pieces_of_kids(const struct okey *seps, struct oidx_node *const *kids, uint32_t n,
		   uint8_t height, struct pieces *ret);
void pieces_free(struct pieces *p);

#endif
