/* SPDX-License-Identifier: Apache-2.0 */
/* The table of objects that need a place in memory: big ones, and plain ones that are known. */
#include "core/store.h"

#define SHARD_SLOTS_MIN 8u

int objtab_init(emdb_db *db)
{
	for (size_t i = 0; i < STORE_SHARDS; i++) {
		struct objtab_shard *const s = &db->objs[i];

		mutex_init(&s->lock, LOCK_OBJTAB);
		s->slots = base_calloc(SHARD_SLOTS_MIN, sizeof(struct obj *));
		if (!s->slots)
			return -ENOMEM;
		s->nslots = SHARD_SLOTS_MIN;
		s->count = 0;
	}
	return 0;
}

static void big_free(struct big *big)
{
	if (!big)
		return;
	extmap_release(&big->map);
	base_free(big->links);
	mutex_destroy(&big->lock);
	base_free(big);
}

static void big_free_node(struct epoch_node *node)
{
	big_free(container_of(node, struct big, node));
}

void objtab_release(emdb_db *db)
{
	for (size_t i = 0; i < STORE_SHARDS; i++) {
		struct objtab_shard *const s = &db->objs[i];

		for (size_t k = 0; k < s->nslots && s->slots; k++) {
			struct obj *o = s->slots[k];

			while (o) {
				struct obj *const next = o->next;

				big_free(o->big);
				base_free(o);
				o = next;
			}
		}
		base_free(s->slots);
		s->slots = NULL;
		mutex_destroy(&s->lock);
	}
}

static struct objtab_shard *shard_of(emdb_db *db, uint64_t id, uint64_t *ret_hash)
{
	const uint64_t h = mix64(id);

	*ret_hash = h / STORE_SHARDS;
	return &db->objs[h % STORE_SHARDS];
}

static struct obj **find_slot_locked(struct objtab_shard *s, uint64_t h, uint64_t id)
{
	struct obj **p = &s->slots[h & (s->nslots - 1)];

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

/* Doubling is per shard: one of 64, so a stall is short.  Without memory the chains get longer. */
static void grow_locked(struct objtab_shard *s)
{
	struct obj **const slots = base_calloc(s->nslots * 2, sizeof(*slots));

	if (!slots)
		return;
	for (size_t k = 0; k < s->nslots; k++) {
		struct obj *o = s->slots[k];

		while (o) {
			struct obj *const next = o->next;
			struct obj **const to =
				&slots[(mix64(o->id) / STORE_SHARDS) & (s->nslots * 2 - 1)];

			o->next = *to;
			*to = o;
			o = next;
		}
	}
	base_free(s->slots);
	s->slots = slots;
	s->nslots *= 2;
}

/* NULL: no memory. */
static struct obj *get_or_add_locked(struct objtab_shard *s, uint64_t h, uint64_t id)
{
	struct obj **p = find_slot_locked(s, h, id);
	struct obj *o = *p;

	if (o)
		return o;
	o = base_calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->id = id;
	if (s->count >= s->nslots)
		grow_locked(s);
	p = &s->slots[h & (s->nslots - 1)];
	o->next = *p;
	*p = o;
	s->count++;
	return o;
}

static void remove_locked(struct objtab_shard *s, struct obj **p)
{
	struct obj *const o = *p;

	if (!o)
		return;
	*p = o->next;
	s->count--;
	base_free(o);
}

static struct obj_view view_of(const struct obj *o)
{
	return (struct obj_view){ o->ns, o->hash, o->ref, o->refs, o->big, o->orphan };
}

bool objtab_get_pinned(emdb_db *db, uint64_t id, struct obj_view *ret)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct obj *o;

	mutex_lock(&s->lock);
	o = *find_slot_locked(s, h, id);
	if (o)
		*ret = view_of(o);
	mutex_unlock(&s->lock);
	return o != NULL;
}

bool objtab_ref_plain(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref,
		      struct obj_view *ret)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct obj *o;

	mutex_lock(&s->lock);
	o = get_or_add_locked(s, h, id);
	if (o) {
		if (o->refs++ == 0 && !o->big) {
			o->ns = ns;
			o->hash = hash;
			o->ref = ref;
			o->orphan = false;
		}
		*ret = view_of(o);
	}
	mutex_unlock(&s->lock);
	return o != NULL;
}

void objtab_prefetch(emdb_db *db, uint64_t id)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);

	mutex_lock(&s->lock);
	__builtin_prefetch(&s->slots[h & (s->nslots - 1)], 1);
	mutex_unlock(&s->lock);
}

bool objtab_ref(emdb_db *db, uint64_t id, struct obj_view *ret)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct obj *o;

	mutex_lock(&s->lock);
	o = *find_slot_locked(s, h, id);
	if (o) {
		o->refs++;
		*ret = view_of(o);
	}
	mutex_unlock(&s->lock);
	return o != NULL;
}

void big_dropped(void *ctx, uint64_t ref, uint32_t len)
{
	emdb_db *const db = ctx;
	struct segment *const seg = journal_segment_pinned(db->j, ref_lsn(ref));

	if (seg)
		segment_live_add(seg, -(int64_t)len);
}

/* The big object is unreachable: its bytes no longer count. */
static void big_discard_pinned(emdb_db *db, struct big *big)
{
	mutex_lock(&big->lock);
	extmap_truncate(&big->map, 0, big_dropped, db);
	if (big->inode_ref)
		big_dropped(db, big->inode_ref, ref_size_pinned(db, big->inode_ref));
	mutex_unlock(&big->lock);
	epoch_retire(&db->epoch, &big->node, big_free_node);
}

/* A big object without name and references goes; looks again, now under the lock for that. */
static void orphan_free_pinned(emdb_db *db, uint64_t id)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct big *big = NULL;
	struct obj **p;

	if (views_any(&db->views))
		view_keep_nameless_pinned(db, id);
	mutex_lock(&db->ckpt.gone_lock);
	mutex_lock(&s->lock);
	p = find_slot_locked(s, h, id);
	if (*p && (*p)->refs == 0 && (*p)->big && (*p)->orphan) {
		big = (*p)->big;
		remove_locked(s, p);
	}
	mutex_unlock(&s->lock);
	if (big) {
		checkpoint_note_locked(db, id, true);
		big_discard_pinned(db, big);
	}
	mutex_unlock(&db->ckpt.gone_lock);
}

void objtab_unref(emdb_db *db, uint64_t id, uint64_t count)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	bool orphan = false;
	struct obj **p;

	mutex_lock(&s->lock);
	p = find_slot_locked(s, h, id);
	if (*p) {
		struct obj *const o = *p;

		o->refs -= min_u64(o->refs, count);
		orphan = o->refs == 0 && o->big && o->orphan;
		if (o->refs == 0 && !o->big)
			remove_locked(s, p);
	}
	mutex_unlock(&s->lock);
	if (orphan)
		orphan_free_pinned(db, id);
	epoch_unpin(&db->epoch, pin);
}

void objtab_moved(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct obj *o;

	mutex_lock(&s->lock);
	o = *find_slot_locked(s, h, id);
	if (o && !o->big) {
		o->ns = ns;
		o->hash = hash;
		o->ref = ref;
		o->orphan = false;
	}
	mutex_unlock(&s->lock);
}

bool objtab_correct(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	bool wrong;
	struct obj *o;

	mutex_lock(&s->lock);
	o = *find_slot_locked(s, h, id);
	wrong = o && !o->big && !o->orphan && o->ref != ref;
	if (wrong) {
		o->ns = ns;
		o->hash = hash;
		o->ref = ref;
	}
	mutex_unlock(&s->lock);
	return wrong;
}

void objtab_orphan(emdb_db *db, uint64_t id)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct obj *o;

	mutex_lock(&s->lock);
	o = *find_slot_locked(s, h, id);
	if (o && !o->big)
		o->orphan = true;
	mutex_unlock(&s->lock);
}

void objtab_orphan_moved(emdb_db *db, uint64_t id, uint64_t ref)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct obj *o;

	mutex_lock(&s->lock);
	o = *find_slot_locked(s, h, id);
	if (o && !o->big && o->orphan)
		o->ref = ref;
	mutex_unlock(&s->lock);
}

void objtab_orphan_ns(emdb_db *db, uint64_t ns)
{
	for (size_t i = 0; i < STORE_SHARDS; i++) {
		struct objtab_shard *const s = &db->objs[i];

		mutex_lock(&s->lock);
		for (size_t k = 0; k < s->nslots; k++)
			for (struct obj *o = s->slots[k]; o; o = o->next)
				if (!o->big && o->ns == ns)
					o->orphan = true;
		mutex_unlock(&s->lock);
	}
}

static struct big *big_new(void)
{
	struct big *const big = base_calloc(1, sizeof(*big));

	if (!big)
		return NULL;
	mutex_init(&big->lock, LOCK_OBJ);
	extmap_init(&big->map);
	return big;
}

struct big *objtab_big(emdb_db *db, uint64_t id)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct big *big = NULL;
	bool made = false;
	struct obj *o;

	mutex_lock(&s->lock);
	o = get_or_add_locked(s, h, id);
	if (o && !o->big) {
		made = true;
		o->big = big_new();
		/* Open views saw it plain, or not at all. */
		if (o->big)
			o->big->kept_lsn = atomic_load(&db->views.newest);
		o->orphan = true; /* until a LINK names it */
		if (!o->big && o->refs == 0)
			remove_locked(s, find_slot_locked(s, h, id));
		else
			big = o->big;
	} else if (o) {
		big = o->big;
	}
	mutex_unlock(&s->lock);
	if (made)
		checkpoint_note(db, id, false);
	return big;
}

void objtab_unbig(emdb_db *db, uint64_t id, uint64_t ns, uint64_t hash, uint64_t ref)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct big *big = NULL;
	struct obj **p;

	if (views_any(&db->views))
		view_keep_nameless_pinned(db, id);
	mutex_lock(&s->lock);
	p = find_slot_locked(s, h, id);
	if (*p) {
		struct obj *const o = *p;

		big = o->big;
		o->big = NULL;
		o->ns = ns;
		o->hash = hash;
		o->ref = ref;
		o->orphan = false;
		if (o->refs == 0)
			remove_locked(s, p);
	}
	mutex_unlock(&s->lock);
	if (big) {
		checkpoint_note(db, id, true);
		big_discard_pinned(db, big);
	}
}

void objtab_nameless(emdb_db *db, uint64_t id)
{
	uint64_t h;
	struct objtab_shard *const s = shard_of(db, id, &h);
	struct big *big = NULL;
	struct obj **p;

	if (views_any(&db->views))
		view_keep_nameless_pinned(db, id);
	mutex_lock(&s->lock);
	p = find_slot_locked(s, h, id);
	if (*p && (*p)->big) {
		bool named;

		mutex_lock(&(*p)->big->lock);
		named = (*p)->big->nlinks != 0;
		mutex_unlock(&(*p)->big->lock);
		(*p)->orphan = !named;
		if (!named && (*p)->refs == 0) {
			big = (*p)->big;
			remove_locked(s, p);
		}
	}
	mutex_unlock(&s->lock);
	if (big) {
		checkpoint_note(db, id, true);
		big_discard_pinned(db, big);
	}
}

static void sweep_shard(emdb_db *db, struct objtab_shard *s,
			bool (*fn)(void *ctx, uint64_t id, struct big *big), void *ctx)
{
	mutex_lock(&s->lock);
	for (size_t k = 0; k < s->nslots; k++) {
		struct obj **p = &s->slots[k];

		while (*p) {
			struct big *const big = (*p)->big;

			if (big && fn(ctx, (*p)->id, big)) {
				remove_locked(s, p);
				big_discard_pinned(db, big);
				continue;
			}
			/* Replay left that open, because a LINK may come after its object. */
			if (big)
				(*p)->orphan = false;
			p = &(*p)->next;
		}
	}
	mutex_unlock(&s->lock);
}

void objtab_sweep_big(emdb_db *db, bool (*fn)(void *ctx, uint64_t id, struct big *big), void *ctx)
{
	const unsigned int pin = epoch_pin(&db->epoch);

	for (size_t i = 0; i < STORE_SHARDS; i++)
		sweep_shard(db, &db->objs[i], fn, ctx);
	epoch_unpin(&db->epoch, pin);
}

emdb_err objtab_list(emdb_db *db, size_t shard, bool (*want)(void *ctx, const struct obj_view *v),
		     void *ctx, struct buf *ret)
{
	struct objtab_shard *const s = &db->objs[shard];
	emdb_err err = EMDB_OK;
	size_t room;

	/* No memory is taken under the lock. */
	mutex_lock(&s->lock);
	while ((room = s->count * sizeof(uint64_t)) > ret->cap - ret->len) {
		mutex_unlock(&s->lock);
		if (buf_reserve(ret, room))
			return EMDB_ERR_NOMEM;
		mutex_lock(&s->lock);
	}
	for (size_t k = 0; k < s->nslots; k++) {
		for (const struct obj *o = s->slots[k]; o; o = o->next) {
			const struct obj_view v = view_of(o);

			if (want(ctx, &v) && buf_append(ret, &o->id, sizeof(o->id)))
				err = EMDB_ERR_NOMEM;
		}
	}
	mutex_unlock(&s->lock);
	return err;
}

static bool is_big(void *ctx, const struct obj_view *v)
{
	(void)ctx;
	return v->big != NULL;
}

emdb_err objtab_big_ids(emdb_db *db, size_t shard, struct buf *ret)
{
	return objtab_list(db, shard, is_big, NULL, ret);
}

static uint64_t big_memory(struct big *big)
{
	uint64_t n;

	mutex_lock(&big->lock);
	n = sizeof(*big) + extmap_memory(&big->map) + big->links_cap * sizeof(struct link);
	mutex_unlock(&big->lock);
	return n;
}

void objtab_counts(emdb_db *db, uint64_t *ret_big, uint64_t *ret_known, uint64_t *ret_memory)
{
	uint64_t big = 0, known = 0, memory = 0;

	for (size_t i = 0; i < STORE_SHARDS; i++) {
		struct objtab_shard *const s = &db->objs[i];

		mutex_lock(&s->lock);
		memory += s->nslots * sizeof(struct obj *);
		for (size_t k = 0; k < s->nslots; k++) {
			for (struct obj *o = s->slots[k]; o; o = o->next) {
				big += o->big != NULL;
				known += o->refs != 0;
				memory += sizeof(*o);
				if (o->big)
					memory += big_memory(o->big);
			}
		}
		mutex_unlock(&s->lock);
	}
	*ret_big = big;
	*ret_known = known;
	*ret_memory = memory;
}

/* ---- Names of a big object -------------------------------------------------- */

emdb_err big_link_add(struct big *big, uint64_t ns, uint64_t hash)
{
	emdb_err err = EMDB_OK;

	mutex_lock(&big->lock);
	if (big->nlinks == big->links_cap) {
		const uint32_t cap = big->links_cap ? big->links_cap * 2 : 1;
		struct link *const links = base_realloc(big->links, cap * sizeof(*links));

		if (links) {
			big->links = links;
			big->links_cap = cap;
		} else {
			err = EMDB_ERR_NOMEM;
		}
	}
	if (!err)
		big->links[big->nlinks++] = (struct link){ ns, hash };
	big->named = true;
	mutex_unlock(&big->lock);
	return err;
}

void big_link_remove(struct big *big, uint64_t ns, uint64_t hash)
{
	mutex_lock(&big->lock);
	for (uint32_t i = 0; i < big->nlinks; i++) {
		if (big->links[i].ns == ns && big->links[i].hash == hash) {
			big->links[i] = big->links[--big->nlinks];
			break;
		}
	}
	mutex_unlock(&big->lock);
}
