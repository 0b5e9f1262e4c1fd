/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a checkpoint, and settling what it left open. */
#include "core/checkpoint.h"
#include "core/manifest.h"

struct seg_live {
	uint64_t id, live;
};

/* What waits for the settled LSN. */
struct ckpt_settle {
	uint64_t begin, lsn; /* replay starts; the settled one */
	uint64_t records, namespaces;
	uint64_t dropped; /* entries whose segment is gone */
	struct seg_live *segs;
	size_t nsegs, segs_cap;
	struct buf gone; /* ids, with GONE_BACK */
};

#define GONE_BACK (UINT64_C(1) << 63)

struct load {
	emdb_db *db;
	struct ckpt_settle *st;
	int fd; /* -1: none */
	uint8_t *block;
	uint64_t size, off; /* of the file */
	uint64_t number, lsn;
	uint32_t index, chain;
	enum ckpt_kind kind;
	bool ended;
	struct seal_key *key; /* from the head on; NULL: not encrypted */
	uint64_t as_of_max;

	/* INDEX: the namespace being built. */
	struct ns *ns;
	struct hidx_builder build;
	/* OBJECTS: the one whose extents are missing. */
	struct big *big;
	uint64_t extents_left, extents_end;
	uint64_t segment_last;
};

static emdb_err err_of(int ret)
{
	if (ret == 0)
		return EMDB_OK;
	return ret == -ENOMEM ? EMDB_ERR_NOMEM : EMDB_ERR_CORRUPT;
}

/* What a section's walk ends with: everything read, or malformed. */
static emdb_err walked(const struct cur *c, emdb_err err)
{
	return err ? err : cur_done(c) ? EMDB_OK : EMDB_ERR_CORRUPT;
}

/* ---- INDEX -------------------------------------------------------------- */

static emdb_err index_end(struct load *l)
{
	int ret = 0;

	if (l->ns)
		ret = hidx_build_end(&l->build);
	hidx_build_release(&l->build);
	l->ns = NULL;
	return err_of(ret);
}

/* The next run's namespace: the one at hand, or a new one. */
static emdb_err index_begin(struct load *l, const struct ckpt_run *r)
{
	emdb_err err;

	if (l->ns && l->ns->id == r->ns)
		return EMDB_OK;
	err = index_end(l);
	if (err)
		return err;
	l->ns = ns_any_pinned(l->db, r->ns);
	if (l->ns && l->ns->mark)
		return EMDB_ERR_CORRUPT; /* its runs do not follow each other */
	if (!l->ns)
		err = ns_new(l->db, r->ns, &l->ns);
	if (err)
		return err;
	l->ns->mark = 1;
	/* No entry takes less than two bytes. */
	return err_of(hidx_build_begin(&l->build, &l->ns->idx, min_u64(r->total, l->size / 2)));
}

static emdb_err index_slot(struct load *l, const struct ckpt_slot *s)
{
	emdb_db *const db = l->db;
	struct big *big;
	emdb_err err;

	if (ref_lsn(s->ref) >= l->lsn)
		return EMDB_ERR_CORRUPT;
	/* A segment that should be there and is not is damage: what was in it stays known as lost. */
	if (journal_retired_pinned(db->j, ref_lsn(s->ref))) {
		l->st->dropped++;
		return EMDB_OK;
	}
	err = err_of(hidx_build_add(&l->build, s->hash, s->ref));
	if (err)
		return err;
	if (s->kind == REC_NS) {
		atomic_fetch_add_explicit(&db->namespaces, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&l->ns->subdirs, 1, memory_order_relaxed);
		return EMDB_OK;
	}
	atomic_fetch_add_explicit(&db->records, 1, memory_order_relaxed);
	if (s->kind != REC_LINK)
		return EMDB_OK;
	big = objtab_big(db, s->id);
	return big ? big_link_add(big, l->ns->id, s->hash) : EMDB_ERR_NOMEM;
}

static emdb_err load_index(struct load *l, struct cur *c)
{
	emdb_err err = EMDB_OK;
	struct ckpt_run r;

	while (!err && fmt_ckpt_run_get(c, &r)) {
		uint64_t prev = r.first;

		err = index_begin(l, &r);
		for (uint64_t i = 0; !err && i < r.count; i++) {
			struct ckpt_slot s;

			if (!fmt_ckpt_slot_get(c, prev, &s))
				return EMDB_ERR_CORRUPT;
			err = index_slot(l, &s);
			prev = s.hash;
		}
	}
	return walked(c, err);
}

/* ---- OBJECTS ------------------------------------------------------------- */

static emdb_err load_object(struct load *l, const struct ckpt_object *o)
{
	struct big *big;

	if (l->extents_left || o->expires_ms > TTL_MAX_MS)
		return EMDB_ERR_CORRUPT;
	big = objtab_big(l->db, o->id);
	if (!big)
		return EMDB_ERR_NOMEM;
	if (big->as_of)
		return EMDB_ERR_CORRUPT;
	big->as_of = o->as_of;
	big->size = o->size;
	big->ctime = o->ctime;
	big->mtime = o->mtime;
	big->atime = o->atime;
	big->btime = o->btime;
	big->expires_ms = o->expires_ms;
	big->rdev = o->rdev;
	big->inode_ref = o->inode_ref;
	big->touch_lsn = o->touch_lsn;
	big->mode = o->mode;
	big->uid = o->uid;
	big->gid = o->gid;
	l->as_of_max = max_u64(l->as_of_max, o->as_of);
	l->big = big;
	l->extents_left = o->extents;
	l->extents_end = 0;
	return EMDB_OK;
}

static emdb_err load_extents(struct load *l, uint64_t n, struct cur *list)
{
	emdb_err err = EMDB_OK;
	struct rec_extent e;

	if (n > l->extents_left)
		return EMDB_ERR_CORRUPT;
	l->extents_left -= n;
	for (; !err && n; n--) {
		if (!fmt_extent_next(list, &l->extents_end, &e) || e.len > EXTENT_LEN_MAX ||
		    e.skip > UINT32_MAX)
			return EMDB_ERR_CORRUPT;
		/* Compacted since: a later record has these bytes, or says that they are a hole. */
		if (e.ref != REF_LOST && journal_retired_pinned(l->db->j, ref_lsn(e.ref)))
			continue;
		err = err_of(extmap_write(&l->big->map, e.off, (uint32_t)e.len, e.ref,
					  (uint32_t)e.skip, NULL, NULL));
	}
	return walked(list, err);
}

static emdb_err load_objects(struct load *l, struct cur *c)
{
	emdb_err err = EMDB_OK;
	struct ckpt_object o;
	struct cur list;
	uint64_t n;

	while (!err && fmt_ckpt_object_get(c, &o, &n, &list))
		err = o.id ? load_object(l, &o) : load_extents(l, n, &list);
	return walked(c, err);
}

/* ---- SPACES ---------------------------------------------------------------- */

static emdb_err load_space(struct load *l, const struct ckpt_space *s)
{
	struct ns *ns = ns_any_pinned(l->db, s->id);
	emdb_err err = EMDB_OK;

	if (!ns)
		err = ns_new(l->db, s->id, &ns);
	if (err)
		return err;
	if (ns->as_of || (s->id == EMDB_ROOT) != (s->parent == EMDB_ROOT && s->hash == 0))
		return EMDB_ERR_CORRUPT;
	ns->as_of = s->as_of;
	l->as_of_max = max_u64(l->as_of_max, s->as_of);
	atomic_store_explicit(&ns->parent, s->parent, memory_order_relaxed);
	atomic_store_explicit(&ns->hash, s->hash, memory_order_relaxed);
	atomic_store_explicit(&ns->ref, s->ref, memory_order_relaxed);
	atomic_store_explicit(&ns->touch_lsn, s->touch_lsn, memory_order_relaxed);
	atomic_store_explicit(&ns->ctime, s->ctime, memory_order_relaxed);
	atomic_store_explicit(&ns->mtime, s->mtime, memory_order_relaxed);
	atomic_store_explicit(&ns->atime, s->atime, memory_order_relaxed);
	atomic_store_explicit(&ns->btime, s->btime, memory_order_relaxed);
	atomic_store_explicit(&ns->ttl_default_ms, s->ttl_default_ms, memory_order_relaxed);
	atomic_store_explicit(&ns->mode, s->mode, memory_order_relaxed);
	atomic_store_explicit(&ns->uid, s->uid, memory_order_relaxed);
	atomic_store_explicit(&ns->gid, s->gid, memory_order_relaxed);
	atomic_store_explicit(&ns->ttl_basis, s->basis, memory_order_relaxed);
	atomic_store(&ns->attached, true);
	return EMDB_OK;
}

static emdb_err load_spaces(struct load *l, struct cur *c)
{
	emdb_err err = EMDB_OK;
	struct ckpt_space s;

	while (!err && fmt_ckpt_space_get(c, &s))
		err = load_space(l, &s);
	return walked(c, err);
}

/* ---- The rest ----------------------------------------------------------------- */

static emdb_err load_queue(struct load *l, struct cur *c)
{
	emdb_err err = EMDB_OK;
	struct ttl_item item;

	while (!err && fmt_ckpt_queue_get(c, &item.expires_ms, &item.ns, &item.hash)) {
		if (item.expires_ms > TTL_MAX_MS)
			return EMDB_ERR_CORRUPT;
		err = err_of(ttl_heap_push(&l->db->ttl, &item));
	}
	return walked(c, err);
}

static emdb_err load_segments(struct load *l, struct cur *c)
{
	struct ckpt_settle *const st = l->st;
	struct seg_live s;

	while (fmt_ckpt_segment_get(c, &s.id, &s.live)) {
		if (s.id <= l->segment_last)
			return EMDB_ERR_CORRUPT;
		l->segment_last = s.id;
		if (st->nsegs == st->segs_cap) {
			const size_t cap = st->segs_cap ? st->segs_cap * 2 : 64;
			void *const p = base_realloc(st->segs, cap * sizeof(*st->segs));

			if (!p)
				return EMDB_ERR_NOMEM;
			st->segs = p;
			st->segs_cap = cap;
		}
		st->segs[st->nsegs++] = s;
	}
	return walked(c, EMDB_OK);
}

static emdb_err load_gone(struct load *l, struct cur *c)
{
	emdb_err err = EMDB_OK;
	uint64_t id;
	bool gone;

	while (!err && fmt_ckpt_gone_get(c, &id, &gone)) {
		if (id >= GONE_BACK)
			return EMDB_ERR_CORRUPT;
		if (!gone)
			id |= GONE_BACK;
		if (buf_append(&l->st->gone, &id, sizeof(id)))
			err = EMDB_ERR_NOMEM;
	}
	return walked(c, err);
}

static emdb_err load_end(struct load *l, const struct ckpt_block *b)
{
	struct ckpt_settle *const st = l->st;
	struct ckpt_end e;

	if (!fmt_ckpt_end_get(b, &e) || e.blocks != l->index + 1 || e.chain != l->chain ||
	    e.settled < l->lsn || e.settled < l->as_of_max || l->off != l->size)
		return EMDB_ERR_CORRUPT;
	st->begin = l->lsn;
	st->lsn = e.settled;
	st->records = e.records;
	st->namespaces = e.namespaces;
	l->ended = true;
	return EMDB_OK;
}

/* ---- Blocks ------------------------------------------------------------------------ */

static emdb_err load_head(struct load *l, const struct ckpt_block *b)
{
	struct ckpt_head h;

	if (!fmt_ckpt_head_get(b, &h) || h.lsn != l->lsn || h.sealed != (l->db->vault != NULL) ||
	    memcmp(h.uuid, l->db->sb.uuid, sizeof(h.uuid)) != 0)
		return EMDB_ERR_CORRUPT;
	return EMDB_OK;
}

emdb_err checkpoint_open_block(struct vault *v, uint64_t number, uint8_t *p, struct ckpt_block *b,
			       struct seal_key **key)
{
	const size_t clear = b->kind == CKPT_HEAD ? CKPT_BLOCK_HEADER + b->n : CKPT_BLOCK_HEADER;
	emdb_err err = EMDB_OK;
	struct ckpt_head h;
	size_t at;

	if (!v)
		return EMDB_OK;
	if (b->n < CRYPTO_TAG)
		return EMDB_ERR_CORRUPT;
	b->n -= CRYPTO_TAG;
	at = b->kind == CKPT_HEAD ? clear - CRYPTO_TAG : clear;
	if (!*key) {
		if (!fmt_ckpt_head_get(b, &h) || !h.sealed)
			return EMDB_ERR_CORRUPT;
		err = seal_key_new(v, SEAL_CHECKPOINT, number, h.salt, key);
	}
	if (!err && !seal_open(*key, b->index, p + 4, at - 4, p + at, CKPT_BLOCK_HEADER + b->n - at,
			       p + CKPT_BLOCK_HEADER + b->n, p + at))
		err = EMDB_ERR_CORRUPT;
	return err;
}

/* A section is over. */
static emdb_err section_end(struct load *l)
{
	emdb_err err = EMDB_OK;

	if (l->kind == CKPT_INDEX)
		err = index_end(l);
	if (l->kind == CKPT_OBJECTS && l->extents_left)
		err = EMDB_ERR_CORRUPT;
	return err;
}

static emdb_err load_block(struct load *l, const struct ckpt_block *b)
{
	struct cur c = cur_init(b->p, b->n);
	emdb_err err = EMDB_OK;

	if (b->number != l->number || b->index != l->index || l->ended || b->kind < l->kind ||
	    (b->index == 0) != (b->kind == CKPT_HEAD))
		return EMDB_ERR_CORRUPT;
	if (b->kind != l->kind)
		err = section_end(l);
	l->kind = b->kind;
	if (err)
		return err;
	switch (b->kind) {
	case CKPT_HEAD:
		return load_head(l, b);
	case CKPT_INDEX:
		return load_index(l, &c);
	case CKPT_OBJECTS:
		return load_objects(l, &c);
	case CKPT_SPACES:
		return load_spaces(l, &c);
	case CKPT_QUEUE:
		return load_queue(l, &c);
	case CKPT_SEGMENTS:
		return load_segments(l, &c);
	case CKPT_GONE:
		return load_gone(l, &c);
	case CKPT_END:
		return load_end(l, b);
	}
	return EMDB_ERR_CORRUPT;
}

static emdb_err read_bytes(struct load *l, size_t at, size_t n)
{
	size_t got = 0;
	const int ret = io_pread_full(l->db->io, l->fd, l->block + at, n, l->off, &got);

	l->off += got;
	return ret ? err_of_io(ret) : got == n ? EMDB_OK : EMDB_ERR_CORRUPT;
}

static emdb_err load_blocks(struct load *l)
{
	emdb_err err = EMDB_OK;

	while (!err && l->off < l->size) {
		struct ckpt_block b;
		unsigned int pin;
		uint32_t len;

		err = read_bytes(l, 0, CKPT_BLOCK_HEADER);
		if (err)
			return err;
		len = fmt_ckpt_len(l->block);
		if (!len)
			return EMDB_ERR_CORRUPT;
		err = read_bytes(l, CKPT_BLOCK_HEADER, len - CKPT_BLOCK_HEADER);
		if (err)
			return err;
		if (!fmt_ckpt_open(l->block, len, &b))
			return EMDB_ERR_CORRUPT;
		err = checkpoint_open_block(l->db->vault, l->number, l->block, &b, &l->key);
		if (err)
			return err;
		pin = epoch_pin(&l->db->epoch);
		err = load_block(l, &b);
		epoch_unpin(&l->db->epoch, pin);
		l->chain = fmt_ckpt_chain(l->chain, b.crc);
		l->index++;
	}
	return err ? err : l->ended ? EMDB_OK : EMDB_ERR_CORRUPT;
}

static void settle_free(struct ckpt_settle *st)
{
	if (!st)
		return;
	base_free(st->segs);
	buf_release(&st->gone);
	base_free(st);
}

void checkpoint_release(emdb_db *db)
{
	settle_free(db->ckpt.settle);
	db->ckpt.settle = NULL;
	buf_release(&db->ckpt.gone);
}

emdb_err checkpoint_load(emdb_db *db, int dirfd, uint64_t number, uint64_t lsn)
{
	struct load l = { .db = db, .fd = -1, .number = number, .lsn = lsn };
	char name[CHECKPOINT_NAME_SIZE];
	struct io_stat st = { .size = 0 };
	emdb_err err;

	checkpoint_name(number, name);
	l.st = base_calloc(1, sizeof(*l.st));
	l.block = base_malloc(CKPT_BLOCK_MAX);
	/* From now on nothing is queued until the settled LSN. */
	db->ckpt.settle = l.st;
	err = l.st && l.block ? EMDB_OK : EMDB_ERR_NOMEM;
	if (!err)
		err = err_of_io(io_openat(db->io, dirfd, name, O_RDONLY | O_NOFOLLOW, 0, &l.fd));
	if (!err)
		err = err_of_io(io_fstat(db->io, l.fd, &st));
	l.size = st.size;
	if (!err)
		err = load_blocks(&l);
	hidx_build_release(&l.build);
	seal_key_free(l.key);
	(void)io_close(db->io, l.fd);
	base_free(l.block);
	db->ckpt.bytes = l.size;
	db->ckpt.loaded = !err;
	db->ckpt.dropped = 0;
	return err;
}

/* ---- Settling ------------------------------------------------------------------------- */

static emdb_err settle_gone(emdb_db *db, const struct ckpt_settle *st)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < st->gone.len; i += sizeof(uint64_t)) {
		struct obj_view v;
		struct ns *ns;
		uint64_t id;

		memcpy(&id, st->gone.data + i, sizeof(id));
		ns = ns_any_pinned(db, id & ~GONE_BACK);
		/* The last word on an object counts; a namespace never comes back. */
		if (ns && ns != db->root)
			err = apply_gone_ns(db, ns);
		else if (!ns && objtab_get_pinned(db, id & ~GONE_BACK, &v) && v.big)
			v.big->mark = !(id & GONE_BACK);
	}
	return err;
}

static void count_again(emdb_db *db, uint64_t ref, uint64_t len)
{
	struct segment *const seg = journal_segment_pinned(db->j, ref_lsn(ref));

	if (seg)
		segment_live_add(seg, (int64_t)len);
}

static void count_big_locked(emdb_db *db, const struct big *big)
{
	struct extent_cursor at;
	struct extent e;

	extmap_seek(&big->map, 0, &at);
	while (extmap_next(&big->map, &at, &e))
		count_again(db, e.ref, e.len);
	if (big->inode_ref)
		count_again(db, big->inode_ref, ref_size_pinned(db, big->inode_ref));
}

/* objtab_sweep_big() callbacks, which free nothing. */
static bool count_big(void *ctx, uint64_t id, struct big *big)
{
	(void)id;
	mutex_lock(&big->lock);
	count_big_locked(ctx, big);
	mutex_unlock(&big->lock);
	return false;
}

/* What apply_finish() will take off the live bytes, but the settled ones do not have. */
static bool count_garbage(void *ctx, uint64_t id, struct big *big)
{
	(void)id;
	mutex_lock(&big->lock);
	if (big->nlinks == 0 && big->mark)
		count_big_locked(ctx, big);
	mutex_unlock(&big->lock);
	return false;
}

static emdb_err settle_live(emdb_db *db, const struct ckpt_settle *st)
{
	struct journal_seg_info *segs;
	size_t max, k = 0;

	max = journal_segments(db->j, NULL, 0);
	segs = base_calloc(max + 1, sizeof(*segs));
	if (!segs)
		return EMDB_ERR_NOMEM;
	max = min_size(journal_segments(db->j, segs, max), max);
	/* Both ascend. */
	for (size_t i = 0; i < max; i++) {
		struct segment *const seg =
			journal_segment_pinned(db->j, segs[i].id << db->sb.segment_shift);

		while (k < st->nsegs && st->segs[k].id < segs[i].id)
			k++;
		if (seg)
			segment_live_set(seg, k < st->nsegs && st->segs[k].id == segs[i].id
						      ? st->segs[k].live
						      : 0);
	}
	base_free(segs);
	return EMDB_OK;
}

/* Are all records from the image's LSN to the settled one still where they were written? */
static bool is_complete_pinned(emdb_db *db, const struct ckpt_settle *st)
{
	const uint32_t shift = db->sb.segment_shift;

	/* A segment that holds nothing of it need not be there. */
	for (uint64_t id = st->begin >> shift; (id << shift) + FMT_SEG_HEADER < st->lsn; id++)
		if (!journal_segment_pinned(db->j, id << shift))
			return st->begin == st->lsn;
	return true;
}

/*
 * The index is that of the settled LSN now; so must the numbers be that follow
 * from it.  Unless compaction took records away, so that the right ones only come with the end.
 */
static emdb_err settle(emdb_db *db)
{
	struct ckpt_settle *const st = db->ckpt.settle;
	const unsigned int pin = epoch_pin(&db->epoch);
	emdb_err err = settle_gone(db, st);

	db->ckpt.inexact = !is_complete_pinned(db, st);
	if (!err && !st->dropped && !db->ckpt.inexact && !db->ckpt.lenient &&
	    (atomic_load(&db->records) != st->records ||
	     atomic_load(&db->namespaces) != st->namespaces))
		err = EMDB_ERR_CORRUPT;
	if (!err)
		err = settle_live(db, st);
	if (!err)
		objtab_sweep_big(db, count_garbage, db);
	epoch_unpin(&db->epoch, pin);
	db->ckpt.dropped = st->dropped;
	db->ckpt.settle = NULL;
	settle_free(st);
	return err;
}

emdb_err checkpoint_replaying(emdb_db *db, uint64_t lsn)
{
	const struct ckpt_settle *const st = db->ckpt.settle;

	return likely(!st) || lsn < st->lsn ? EMDB_OK : settle(db);
}

/* ---- Afterwards ------------------------------------------------------------------------- */

/* Is there the entry that a namespace says it has? */
static bool has_entry_pinned(emdb_db *db, const struct ns *ns)
{
	const struct ns *const parent = ns_any_pinned(db, atomic_load(&ns->parent));
	uint64_t slots[16];
	size_t n;

	if (!parent)
		return false;
	n = min_size(
		hidx_find_pinned(&parent->idx, atomic_load(&ns->hash), slots, ARRAY_SIZE(slots)),
		ARRAY_SIZE(slots));
	for (size_t i = 0; i < n; i++)
		if (slots[i] & REF_SPECIAL && slot_ref(slots[i]) == atomic_load(&ns->ref))
			return true;
	return false;
}

/* The way up from ns leads to the root or to one without a name: nowhere in a circle. */
static bool leads_up_pinned(emdb_db *db, struct ns *ns)
{
	enum { GOOD = 1, HERE = 2 };
	struct ns *n = ns;

	while (n && n != db->root && n->mark == 0 && atomic_load(&n->attached)) {
		n->mark = HERE;
		n = ns_any_pinned(db, atomic_load(&n->parent));
	}
	if (n && n->mark == HERE)
		return false;
	for (n = ns; n && n->mark == HERE; n = ns_any_pinned(db, atomic_load(&n->parent)))
		n->mark = GOOD;
	return true;
}

enum look { LOOK_RESET, LOOK_ENTRY, LOOK_UP };

static emdb_err look_at_pinned(emdb_db *db, struct ns *ns, enum look look)
{
	switch (look) {
	case LOOK_RESET:
		ns->mark = 0;
		break;
	case LOOK_ENTRY:
		if (!atomic_load(&ns->attached) || has_entry_pinned(db, ns))
			break;
		/* Its record was in a segment that is gone, so the namespace is too. */
		if (!db->ckpt.dropped && !db->ckpt.inexact && !db->ckpt.lenient)
			return EMDB_ERR_CORRUPT;
		atomic_store(&ns->attached, false);
		break;
	case LOOK_UP:
		return leads_up_pinned(db, ns) ? EMDB_OK : EMDB_ERR_CORRUPT;
	}
	return EMDB_OK;
}

static emdb_err look_at_all(emdb_db *db, enum look look)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	emdb_err err = EMDB_OK;
	size_t n;

	while (!err && (n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; !err && i < n; i++)
			err = look_at_pinned(db, (struct ns *)(uintptr_t)slots[i].value, look);
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err checkpoint_replayed(emdb_db *db)
{
	emdb_err err = EMDB_OK;

	if (!db->ckpt.loaded)
		return EMDB_OK;
	if (db->ckpt.settle)
		err = settle(db);
	if (!err)
		err = look_at_all(db, LOOK_RESET);
	if (!err)
		err = look_at_all(db, LOOK_ENTRY);
	return err ? err : look_at_all(db, LOOK_UP);
}

/* ---- Counting again ----------------------------------------------------------------------- */

static void count_ns_pinned(emdb_db *db, const struct ns *ns)
{
	struct hidx_slot slots[STORE_WALK];
	uint64_t hash = 0;
	uint32_t tie = 0;
	size_t n;

	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++) {
			const uint64_t ref = slot_ref(slots[i].value);

			count_again(db, ref, ref_size_pinned(db, ref));
		}
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
}

emdb_err checkpoint_finished(emdb_db *db)
{
	const struct ckpt_settle none = { .lsn = 0 };
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	unsigned int pin;
	emdb_err err;
	size_t n;

	if (!db->ckpt.inexact)
		return EMDB_OK;
	db->ckpt.inexact = false;
	pin = epoch_pin(&db->epoch);
	err = settle_live(db, &none);
	objtab_sweep_big(db, count_big, db);
	if (!err && atomic_load(&db->root->ref))
		count_again(db, atomic_load(&db->root->ref),
			    ref_size_pinned(db, atomic_load(&db->root->ref)));
	if (!err)
		count_ns_pinned(db, db->root);
	while (!err && (n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			count_ns_pinned(db, (const struct ns *)(uintptr_t)slots[i].value);
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	epoch_unpin(&db->epoch, pin);
	return err;
}
