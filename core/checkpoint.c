/* SPDX-License-Identifier: Apache-2.0 */
/* Writing checkpoints. */
#include "core/checkpoint.h"

#include <stdio.h>

#include "core/manifest.h"

/* In a noted id: it is back. */
#define NOTE_BACK (UINT64_C(1) << 63)

void checkpoint_name(uint64_t number, char buf[static CHECKPOINT_NAME_SIZE])
{
	(void)snprintf(buf, CHECKPOINT_NAME_SIZE, "checkpoint-%016llx", (unsigned long long)number);
}

void checkpoint_init(emdb_db *db)
{
	struct checkpointer *const k = &db->ckpt;

	mutex_init(&k->lock, LOCK_CKPT);
	mutex_init(&k->gone_lock, LOCK_GONE);
	mutex_init(&k->wake_lock, LOCK_LEAF);
	cond_init(&k->wake);
}

/* ---- What goes while one is written ------------------------------------ */

void checkpoint_note_locked(emdb_db *db, uint64_t id, bool gone)
{
	struct checkpointer *const k = &db->ckpt;
	const uint64_t note = gone ? id : id | NOTE_BACK;

	if (atomic_load_explicit(&k->active, memory_order_relaxed) &&
	    buf_append(&k->gone, &note, sizeof(note)))
		k->gone_failed = true;
}

void checkpoint_note(emdb_db *db, uint64_t id, bool gone)
{
	/* Set and cleared with the structure lock held exclusively: who holds it shared sees that. */
	if (likely(!atomic_load_explicit(&db->ckpt.active, memory_order_relaxed)))
		return;
	mutex_lock(&db->ckpt.gone_lock);
	checkpoint_note_locked(db, id, gone);
	mutex_unlock(&db->ckpt.gone_lock);
}

/* ---- The file ----------------------------------------------------------- */

#define OUT_BLOCK (256u * 1024u)
/* Written back this often, so that the last sync, and others meanwhile, do not wait long. */
#define OUT_SYNC (32u * 1024u * 1024u)

struct out {
	struct emdb_io *io;
	int fd; /* -1: none */
	uint8_t *block;
	struct wcur w; /* over the block's payload */
	enum ckpt_kind kind;
	uint32_t index, chain;
	uint64_t number, off, synced;
	struct seal_key *key; /* NULL: not encrypted */
};

/* What a block may hold. */
static size_t out_payload(const struct out *o)
{
	return OUT_BLOCK - CKPT_BLOCK_HEADER - (o->key ? CRYPTO_TAG : 0);
}

/* Seals what is in the block, of which the head stays in clear; returns its whole length. */
static uint32_t out_seal(struct out *o, uint32_t len)
{
	const uint32_t clear = o->kind == CKPT_HEAD ? len : CKPT_BLOCK_HEADER;

	fmt_ckpt_header(o->block, len + CRYPTO_TAG, o->kind, o->index, o->number);
	seal(o->key, o->index, o->block + 4, clear - 4, o->block + clear, len - clear,
	     o->block + clear, o->block + len);
	return len + CRYPTO_TAG;
}

static emdb_err out_flush(struct out *o)
{
	uint32_t len = CKPT_BLOCK_HEADER + (uint32_t)wcur_len(&o->w);
	int rc;

	emdb_assert(!o->w.err);
	if (len == CKPT_BLOCK_HEADER)
		return EMDB_OK;
	if (o->index == UINT32_MAX)
		return EMDB_ERR_NO_SPACE;
	if (o->key)
		len = out_seal(o, len);
	else
		fmt_ckpt_header(o->block, len, o->kind, o->index, o->number);
	o->chain = fmt_ckpt_chain(o->chain, fmt_ckpt_finish(o->block, len));
	rc = io_pwrite_full(o->io, o->fd, o->block, len, o->off);
	o->index++;
	o->off += len;
	if (!rc && o->off - o->synced >= OUT_SYNC) {
		o->synced = o->off;
		rc = io_fdatasync(o->io, o->fd);
	}
	o->w = wcur_init(o->block + CKPT_BLOCK_HEADER, out_payload(o));
	return err_of_io(rc);
}

/* Makes room for n bytes of an item of this kind. */
static emdb_err out_room(struct out *o, enum ckpt_kind kind, size_t n)
{
	emdb_err err = EMDB_OK;

	if (o->kind != kind || (size_t)(o->w.end - o->w.p) < n)
		err = out_flush(o);
	o->kind = kind;
	return err;
}

static void tmp_name(const char *name, char buf[static CHECKPOINT_NAME_SIZE + 4])
{
	(void)snprintf(buf, CHECKPOINT_NAME_SIZE + 4, "%s.tmp", name);
}

static emdb_err out_open(struct out *o, int dirfd, const char *name)
{
	char tmp[CHECKPOINT_NAME_SIZE + 4];

	o->block = base_malloc(OUT_BLOCK);
	if (!o->block)
		return EMDB_ERR_NOMEM;
	o->w = wcur_init(o->block + CKPT_BLOCK_HEADER, OUT_BLOCK - CKPT_BLOCK_HEADER);
	tmp_name(name, tmp);
	return err_of_io(io_openat(o->io, dirfd, tmp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600,
				   &o->fd));
}

/* On stable storage under its name, unless there was an error before; closes in any case. */
static emdb_err out_close(struct out *o, int dirfd, const char *name, emdb_err err)
{
	char tmp[CHECKPOINT_NAME_SIZE + 4];
	int rc;

	tmp_name(name, tmp);
	if (!err)
		err = err_of_io(io_fdatasync(o->io, o->fd));
	rc = io_close(o->io, o->fd);
	if (!err)
		err = err_of_io(rc);
	if (!err)
		err = err_of_io(io_renameat(o->io, dirfd, tmp, dirfd, name));
	if (!err)
		err = err_of_io(io_fsync(o->io, dirfd));
	else if (o->fd != -1)
		(void)io_unlinkat(o->io, dirfd, tmp, 0);
	seal_key_free(o->key);
	base_free(o->block);
	return err;
}

/* ---- Step 2: the index --------------------------------------------------- */

/* Entries of one look; a run has at most that many. */
#define RUN_MAX 256u

struct image {
	emdb_db *db;
	struct out out;
	uint64_t lsn;
	struct hidx_slot *slots; /* cap of them */
	struct ckpt_slot *run;
	size_t cap;
	struct buf scratch;
	struct ttl_snap snap;
	struct ckpt_end end;
};

static emdb_err slots_reserve(struct image *im, size_t cap)
{
	void *p;

	if (cap <= im->cap)
		return EMDB_OK;
	p = base_realloc(im->slots, cap * sizeof(*im->slots));
	if (!p)
		return EMDB_ERR_NOMEM;
	im->slots = p;
	p = base_realloc(im->run, cap * sizeof(*im->run));
	if (!p)
		return EMDB_ERR_NOMEM;
	im->run = p;
	im->cap = cap;
	return EMDB_OK;
}

/*
 * What the slots of namespaces and LINKs name, as their records say, or the index when a record
 * cannot be read: an image that says neither would be refused. A slot that is gone since it was looked at
 * counts as one that was gone before, and leaves the list. CORRUPT: nothing names one.
 */
static emdb_err name_specials_pinned(emdb_db *db, const struct ns *ns, struct ckpt_slot *s,
				     size_t *n)
{
	bool lost = false;
	size_t k = 0;

	for (size_t i = 0; i < *n; i++) {
		struct entry e;

		if (!(s[i].ref & REF_SPECIAL))
			continue;
		if (!entry_read_pinned(db, s[i].hash, s[i].ref, true, &e) && e.id) {
			s[i].kind = e.rec.kind;
			s[i].id = e.id;
		} else {
			lost = true;
		}
	}
	if (likely(!lost) || slots_name_pinned(db, ns, s, *n) == 0)
		return EMDB_OK;
	for (size_t i = 0; i < *n; i++) {
		const bool named = !(s[i].ref & REF_SPECIAL) || s[i].id;

		if (!named && slot_stands_pinned(ns, s[i].hash, s[i].ref))
			return EMDB_ERR_CORRUPT;
		if (named)
			s[k++] = s[i];
	}
	*n = k;
	return EMDB_OK;
}

/* Adds the entries of ns to the counts. */
static void recount_ns_pinned(emdb_db *db, struct ns *ns)
{
	struct hidx_slot slots[STORE_WALK];
	struct ckpt_slot named[STORE_WALK];
	uint64_t hash = 0, records = 0, dirs = 0;
	uint32_t tie = 0;
	size_t n;

	while ((n = hidx_walk_pinned(&ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		size_t k = n;

		for (size_t i = 0; i < n; i++)
			named[i] =
				(struct ckpt_slot){ .hash = slots[i].hash, .ref = slots[i].value };
		/* What nothing names is no namespace. */
		(void)name_specials_pinned(db, ns, named, &k);
		for (size_t i = 0; i < k; i++)
			if (named[i].kind == REC_NS)
				dirs++;
			else
				records++;
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
	atomic_store(&ns->subdirs, dirs);
	atomic_fetch_add(&db->namespaces, dirs);
	atomic_fetch_add(&db->records, records);
}

void checkpoint_recount(emdb_db *db)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	size_t n;

	atomic_store(&db->records, 0);
	atomic_store(&db->namespaces, 0);
	recount_ns_pinned(db, db->root);
	while ((n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			recount_ns_pinned(db, (struct ns *)(uintptr_t)slots[i].value);
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	epoch_unpin(&db->epoch, pin);
}

/*
 * Looks at the next entries of ns from *hash on.  Entries of one hash are
 * looked at together, in one page, so none can slip through while others of its hash go.
 * *ret_more: the walk goes on at *hash. BUSY: the page is too small for them.
 */
static emdb_err look_pinned(struct image *im, const struct ns *ns, uint64_t *hash, size_t *ret_n,
			    bool *ret_more)
{
	const size_t got = hidx_walk_pinned(&ns->idx, *hash, 0, im->slots, im->cap);
	size_t n = got;

	*ret_n = 0;
	*ret_more = got == im->cap;
	if (*ret_more)
		while (n > 0 && im->slots[n - 1].hash == im->slots[got - 1].hash)
			n--;
	if (n == 0)
		return *ret_more ? EMDB_ERR_BUSY : EMDB_OK;
	*hash = im->slots[n - 1].hash + 1;
	for (size_t i = 0; i < n; i++)
		if (ref_lsn(im->slots[i].value) < im->lsn)
			im->run[(*ret_n)++] = (struct ckpt_slot){ .hash = im->slots[i].hash,
								  .ref = im->slots[i].value };
	return name_specials_pinned(im->db, ns, im->run, ret_n);
}

static void put_run(struct image *im, uint64_t ns, uint64_t total, const struct ckpt_slot *s,
		    size_t n)
{
	const struct ckpt_run r = { ns, total, n, s[0].hash };
	uint64_t prev = s[0].hash;

	fmt_ckpt_run_put(&im->out.w, &r);
	for (size_t i = 0; i < n; i++) {
		fmt_ckpt_slot_put(&im->out.w, &s[i], prev);
		prev = s[i].hash;
	}
}

static emdb_err write_index_of(struct image *im, uint64_t id)
{
	emdb_db *const db = im->db;
	uint64_t hash = 0;
	bool again = true;
	emdb_err err = EMDB_OK;

	while (!err && again) {
		unsigned int pin = epoch_pin(&db->epoch);
		const struct ns *const ns = ns_find_pinned(db, id);
		const uint64_t total = ns ? hidx_count(&ns->idx) : 0;
		size_t n = 0;

		if (ns)
			err = look_pinned(im, ns, &hash, &n, &again);
		epoch_unpin(&db->epoch, pin);
		if (!ns)
			break; /* gone since: GONE will say so */
		if (err == EMDB_ERR_BUSY)
			err = slots_reserve(im, im->cap * 2);
		for (size_t i = 0; !err && i < n; i += RUN_MAX) {
			const size_t k = min_size(n - i, RUN_MAX);

			err = out_room(&im->out, CKPT_INDEX, CKPT_RUN_MAX + k * CKPT_SLOT_MAX);
			if (!err)
				put_run(im, id, total, im->run + i, k);
		}
	}
	return err;
}

/* The ids of the next namespaces from *from on in the order of their table. */
static size_t next_spaces(emdb_db *db, uint64_t *from, uint64_t *ids, size_t max, bool *ret_more)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct hidx_slot slots[STORE_WALK];
	const size_t n = hidx_walk_pinned(&db->nstab, *from, 0, slots, min_size(max, STORE_WALK));

	for (size_t i = 0; i < n; i++)
		ids[i] = ((const struct ns *)(uintptr_t)slots[i].value)->id;
	epoch_unpin(&db->epoch, pin);
	/* mix64 gives each id a hash of its own. */
	*ret_more = n == min_size(max, STORE_WALK) && slots[n - 1].hash != UINT64_MAX;
	if (n)
		*from = slots[n - 1].hash + 1;
	return n;
}

static emdb_err write_index(struct image *im)
{
	emdb_err err = write_index_of(im, EMDB_ROOT);
	uint64_t ids[STORE_WALK], from = 0;
	bool again = true;

	while (!err && again) {
		const size_t n = next_spaces(im->db, &from, ids, STORE_WALK, &again);

		for (size_t i = 0; !err && i < n; i++)
			err = write_index_of(im, ids[i]);
	}
	return err;
}

/* ---- Step 3: objects and namespaces --------------------------------------- */

/* Copies a big object as it is; its extents, which may be many, to scratch. */
static emdb_err look_big(struct image *im, uint64_t id, struct ckpt_object *ret, bool *ret_there)
{
	emdb_db *const db = im->db;
	struct buf *const list = &im->scratch;
	struct extent_cursor at;
	struct node n;
	struct extent e;
	emdb_err err;

	*ret_there = false;
	buf_reset(list);
	err = node_lock(db, id, false, &n);
	if (err || !n.view.big) {
		if (!err)
			node_unlock(&n);
		/* No big object any more, or none that can be read. */
		return EMDB_OK;
	}
	mutex_lock(&n.view.big->lock);
	*ret = (struct ckpt_object){
		.id = id,
		.as_of = journal_tail(db->j),
		.size = n.view.big->size,
		.ctime = n.view.big->ctime,
		.mtime = n.view.big->mtime,
		.atime = n.view.big->atime,
		.btime = n.view.big->btime,
		.expires_ms = n.view.big->expires_ms,
		.rdev = n.view.big->rdev,
		.inode_ref = n.view.big->inode_ref,
		.touch_lsn = n.view.big->touch_lsn,
		.mode = n.view.big->mode,
		.uid = n.view.big->uid,
		.gid = n.view.big->gid,
		.extents = extmap_count(&n.view.big->map),
	};
	if (list->cap < ret->extents * sizeof(e)) {
		err = EMDB_ERR_BUSY;
	} else {
		extmap_seek(&n.view.big->map, 0, &at);
		while (extmap_next(&n.view.big->map, &at, &e))
			err = buf_append(list, &e, sizeof(e)) ? EMDB_ERR_NOMEM : err;
		*ret_there = true;
	}
	mutex_unlock(&n.view.big->lock);
	node_unlock(&n);
	return err;
}

/* Extents in one run. */
#define EXTENTS_MAX 2048u

static emdb_err put_extents(struct image *im, uint64_t count)
{
	uint8_t list[EXTENTS_MAX / 8 * FMT_EXTENT_BYTES_MAX];
	uint64_t end = 0, i = 0;
	emdb_err err = EMDB_OK;

	while (!err && i < count) {
		size_t len = 0;
		uint64_t n = 0;

		for (; i < count && n < EXTENTS_MAX && len + FMT_EXTENT_BYTES_MAX <= sizeof(list);
		     i++, n++) {
			struct extent e;
			struct rec_extent x;

			memcpy(&e, im->scratch.data + i * sizeof(e), sizeof(e));
			x = (struct rec_extent){ e.off, e.len, e.ref, e.skip };
			len += fmt_extent_encode(&x, end, list + len);
			end = e.off + e.len;
		}
		err = out_room(&im->out, CKPT_OBJECTS, CKPT_RUN_MAX + len);
		if (!err)
			fmt_ckpt_extents_put(&im->out.w, n, list, len);
	}
	return err;
}

static emdb_err write_object(struct image *im, uint64_t id)
{
	struct ckpt_object o;
	bool there = false;
	emdb_err err;

	/* No memory is taken under its locks. */
	while ((err = look_big(im, id, &o, &there)) == EMDB_ERR_BUSY)
		if (buf_reserve(&im->scratch,
				(size_t)(o.extents + o.extents / 8) * sizeof(struct extent)))
			return EMDB_ERR_NOMEM;
	if (!err && there)
		err = out_room(&im->out, CKPT_OBJECTS, CKPT_OBJECT_MAX);
	if (err || !there)
		return err;
	fmt_ckpt_object_put(&im->out.w, &o);
	return put_extents(im, o.extents);
}

static emdb_err write_objects(struct image *im)
{
	struct buf ids = BUF_INIT;
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < STORE_SHARDS; i++) {
		buf_reset(&ids);
		err = objtab_big_ids(im->db, i, &ids);
		for (size_t k = 0; !err && k < ids.len; k += sizeof(uint64_t)) {
			uint64_t id;

			memcpy(&id, ids.data + k, sizeof(id));
			err = write_object(im, id);
		}
	}
	buf_release(&ids);
	return err;
}

static void copy_space(const struct ns *ns, uint64_t as_of, struct ckpt_space *ret)
{
	*ret = (struct ckpt_space){
		.id = ns->id,
		.as_of = as_of,
		.parent = atomic_load(&ns->parent),
		.hash = atomic_load(&ns->hash),
		.ref = atomic_load(&ns->ref),
		.touch_lsn = atomic_load(&ns->touch_lsn),
		.ctime = atomic_load(&ns->ctime),
		.mtime = atomic_load(&ns->mtime),
		.atime = atomic_load(&ns->atime),
		.btime = atomic_load(&ns->btime),
		.ttl_default_ms = atomic_load(&ns->ttl_default_ms),
		.mode = atomic_load(&ns->mode),
		.uid = atomic_load(&ns->uid),
		.gid = atomic_load(&ns->gid),
		.basis = atomic_load(&ns->ttl_basis),
	};
}

/* Some namespaces at once, under one cut. */
static emdb_err put_spaces(struct image *im, const uint64_t *ids, size_t n)
{
	emdb_db *const db = im->db;
	struct ckpt_space spaces[STORE_WALK];
	unsigned int pin;
	size_t k = 0;
	emdb_err err;

	rwlock_wrlock(&db->structure);
	pin = epoch_pin(&db->epoch);
	for (size_t i = 0; i < n; i++) {
		const struct ns *const ns = ns_find_pinned(db, ids[i]);

		if (ns)
			copy_space(ns, journal_tail(db->j), &spaces[k++]);
	}
	epoch_unpin(&db->epoch, pin);
	rwlock_wrunlock(&db->structure);
	err = out_room(&im->out, CKPT_SPACES, k * CKPT_SPACE_MAX);
	for (size_t i = 0; !err && i < k; i++)
		fmt_ckpt_space_put(&im->out.w, &spaces[i]);
	return err;
}

static emdb_err write_spaces(struct image *im)
{
	const uint64_t root = EMDB_ROOT;
	emdb_err err = put_spaces(im, &root, 1);
	uint64_t ids[STORE_WALK], from = 0;
	bool again = true;

	while (!err && again) {
		const size_t n = next_spaces(im->db, &from, ids, STORE_WALK, &again);

		if (n)
			err = put_spaces(im, ids, n);
	}
	return err;
}

/* ---- The cuts --------------------------------------------------------------- */

/* Step 1. */
static void cut_begin(struct image *im)
{
	emdb_db *const db = im->db;

	rwlock_wrlock(&db->structure);
	mutex_lock(&db->ckpt.gone_lock);
	buf_reset(&db->ckpt.gone);
	db->ckpt.gone_failed = false;
	atomic_store(&db->ckpt.active, true);
	im->lsn = journal_tail(db->j);
	mutex_unlock(&db->ckpt.gone_lock);
	rwlock_wrunlock(&db->structure);
}

/* What is popped and not pushed again yet counts as queued; at most a few. */
static int snap_queue(struct image *im, struct buf *flights)
{
	emdb_db *const db = im->db;
	int ret;

	mutex_lock(&db->ttl_lock);
	ret = ttl_heap_snap(&db->ttl, &im->snap);
	for (const struct expire_flight *f = db->flights; !ret && f; f = f->next)
		ret = buf_append(flights, &f->item, sizeof(f->item));
	mutex_unlock(&db->ttl_lock);
	return ret;
}

/* Step 4.  segs has room for max segments; BUSY: there are more. */
static emdb_err cut_end(struct image *im, struct journal_seg_info *segs, size_t *n,
			struct buf *flights, struct buf *gone)
{
	emdb_db *const db = im->db;
	const size_t max = *n;
	emdb_err err = EMDB_OK;

	rwlock_wrlock(&db->structure);
	mutex_lock(&db->ckpt.gone_lock);
	im->end.settled = journal_tail(db->j);
	im->end.records = atomic_load(&db->records);
	im->end.namespaces = atomic_load(&db->namespaces);
	*n = journal_segments(db->j, segs, max);
	if (*n > max)
		err = EMDB_ERR_BUSY;
	else if (db->ckpt.gone_failed || snap_queue(im, flights))
		err = EMDB_ERR_NOMEM;
	if (err != EMDB_ERR_BUSY) {
		atomic_store(&db->ckpt.active, false);
		*gone = db->ckpt.gone;
		db->ckpt.gone = (struct buf)BUF_INIT;
	}
	mutex_unlock(&db->ckpt.gone_lock);
	rwlock_wrunlock(&db->structure);
	return err;
}

static void cut_abort(emdb_db *db)
{
	struct checkpointer *const k = &db->ckpt;

	if (!atomic_load(&k->active))
		return;
	rwlock_wrlock(&db->structure);
	mutex_lock(&k->gone_lock);
	atomic_store(&k->active, false);
	buf_release(&k->gone);
	mutex_unlock(&k->gone_lock);
	rwlock_wrunlock(&db->structure);
}

static emdb_err put_queue(struct image *im, const struct ttl_item *items, size_t n)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < n; i++) {
		err = out_room(&im->out, CKPT_QUEUE, CKPT_PAIR_MAX);
		if (!err)
			fmt_ckpt_queue_put(&im->out.w, items[i].expires_ms, items[i].ns,
					   items[i].hash);
	}
	return err;
}

/* In the queue's order, so that it can be built by appending; what was in the air comes last. */
static emdb_err write_queue(struct image *im, const struct buf *flights)
{
	emdb_db *const db = im->db;
	struct ttl_item items[STORE_WALK];
	emdb_err err = EMDB_OK;
	size_t at = 0, n = 1;

	while (!err && n) {
		int ret;

		mutex_lock(&db->ttl_lock);
		ret = ttl_snap_read(&im->snap, at, items, STORE_WALK, &n);
		mutex_unlock(&db->ttl_lock);
		if (ret)
			return EMDB_ERR_NOMEM;
		err = put_queue(im, items, n);
		at += n;
	}
	for (size_t i = 0; !err && i < flights->len; i += sizeof(items[0])) {
		memcpy(items, flights->data + i, sizeof(items[0]));
		err = put_queue(im, items, 1);
	}
	return err;
}

static emdb_err write_segments(struct image *im, const struct journal_seg_info *segs, size_t n)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < n; i++) {
		err = out_room(&im->out, CKPT_SEGMENTS, CKPT_PAIR_MAX);
		if (!err)
			fmt_ckpt_segment_put(&im->out.w, segs[i].id, segs[i].live);
	}
	return err;
}

static emdb_err write_gone(struct image *im, const struct buf *gone)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < gone->len; i += sizeof(uint64_t)) {
		uint64_t note;

		memcpy(&note, gone->data + i, sizeof(note));
		err = out_room(&im->out, CKPT_GONE, CKPT_PAIR_MAX);
		if (!err)
			fmt_ckpt_gone_put(&im->out.w, note & ~NOTE_BACK, !(note & NOTE_BACK));
	}
	return err;
}

/* Step 4 and what it brought. */
static emdb_err write_rest(struct image *im)
{
	size_t max = journal_segments(im->db->j, NULL, 0), n;
	struct buf flights = BUF_INIT, gone = BUF_INIT;
	struct journal_seg_info *segs = NULL;
	emdb_err err;

	do {
		max += 16;
		base_free(segs);
		segs = base_calloc(max, sizeof(*segs));
		n = max;
		err = segs ? cut_end(im, segs, &n, &flights, &gone) : EMDB_ERR_NOMEM;
	} while (err == EMDB_ERR_BUSY);
	if (!err)
		err = write_queue(im, &flights);
	if (!err)
		err = write_segments(im, segs, n);
	if (!err)
		err = write_gone(im, &gone);
	base_free(segs);
	buf_release(&flights);
	buf_release(&gone);
	return err;
}

/* ---- All of it ---------------------------------------------------------------- */

static emdb_err write_head(struct image *im)
{
	struct ckpt_head h = { .lsn = im->lsn,
			       .created_ns = (int64_t)io_clock_real_ns(im->db->io) };
	emdb_err err = out_room(&im->out, CKPT_HEAD, CKPT_HEAD_SIZE + sizeof(h.salt));

	if (!err && im->db->vault) {
		h.sealed = true;
		err = err_of_io(io_random(im->db->io, h.salt, sizeof(h.salt)));
		if (!err)
			err = seal_key_new(im->db->vault, SEAL_CHECKPOINT, im->out.number, h.salt,
					   &im->out.key);
	}
	memcpy(h.uuid, im->db->sb.uuid, sizeof(h.uuid));
	if (!err)
		fmt_ckpt_head_put(&im->out.w, &h);
	return err;
}

static emdb_err write_end(struct image *im)
{
	emdb_err err = out_room(&im->out, CKPT_END, CKPT_END_SIZE);

	/* The room is that of a fresh block: all before it are out. */
	im->end.blocks = im->out.index + 1;
	im->end.chain = im->out.chain;
	if (!err) {
		fmt_ckpt_end_put(&im->out.w, &im->end);
		err = out_flush(&im->out);
	}
	return err;
}

static emdb_err write_image(struct image *im)
{
	emdb_err err = slots_reserve(im, RUN_MAX);

	if (err)
		return err;
	cut_begin(im);
	err = write_head(im);
	if (!err)
		err = write_index(im);
	if (!err)
		err = write_objects(im);
	if (!err)
		err = write_spaces(im);
	if (!err)
		err = write_rest(im);
	/*
	 * An operation that was not applied whole, for want of memory, said so before the last cut. A replay from
	 * im->lsn would not do it again for what the image has as of later.
	 */
	if (!err && atomic_load(&im->db->failed))
		err = EMDB_ERR_FAILED;
	if (!err)
		err = write_end(im);
	return err;
}

emdb_err checkpoint_write(emdb_db *db, int dirfd, const char *name, uint64_t number,
			  struct checkpoint_info *ret)
{
	struct image im = { .db = db,
			    .out = { .io = db->io, .fd = -1, .number = number },
			    .scratch = BUF_INIT };
	emdb_err err = out_open(&im.out, dirfd, name);

	if (!err)
		err = write_image(&im);
	cut_abort(db);
	mutex_lock(&db->ttl_lock);
	ttl_heap_unsnap(&db->ttl, &im.snap);
	mutex_unlock(&db->ttl_lock);
	base_free(im.slots);
	base_free(im.run);
	buf_release(&im.scratch);
	err = out_close(&im.out, dirfd, name, err);
	if (!err)
		*ret = (struct checkpoint_info){ im.lsn, im.end.settled, im.out.off };
	return err;
}

/* ---- Publishing ------------------------------------------------------------------ */

#define NAME_PREFIX "checkpoint-"

/* io_list callback: an image, or part of one, that the manifest does not name goes. */
struct debris {
	emdb_db *db;
	char keep[2][CHECKPOINT_NAME_SIZE];
};

static int debris_one(void *arg, const char *name)
{
	const struct debris *const d = arg;

	if (strncmp(name, NAME_PREFIX, sizeof(NAME_PREFIX) - 1) == 0 &&
	    strcmp(name, d->keep[0]) != 0 && strcmp(name, d->keep[1]) != 0)
		(void)io_unlinkat(d->db->io, d->db->dirfd, name, 0);
	return 0;
}

void checkpoint_tidy(emdb_db *db)
{
	struct debris d = { .db = db };
	struct journal_checkpoint c;

	journal_checkpoint_get(db->j, &c);
	checkpoint_name(c.number, d.keep[0]);
	checkpoint_name(c.prev_number, d.keep[1]);
	/* What stays for want of a listing goes next time. */
	if (io_list(db->io, db->dirfd, debris_one, &d))
		return;
}

static emdb_err checkpoint_locked(emdb_db *db)
{
	struct journal_checkpoint c;
	struct checkpoint_info info;
	char name[CHECKPOINT_NAME_SIZE];
	uint64_t number;
	emdb_err err;

	journal_checkpoint_get(db->j, &c);
	number = max_u64(c.number, c.prev_number) + 1;
	checkpoint_name(number, name);
	err = checkpoint_write(db, db->dirfd, name, number, &info);
	if (err)
		return err;
	/* A replay from info.lsn on takes for granted that what is before is sealed or there. */
	err = journal_seal(db->j);
	if (!err)
		err = journal_sync(db->j);
	if (!err)
		err = journal_checkpoint_set(db->j, number, info.lsn);
	/* A failure leaves it open whether the manifest names it: the next one tidies up. */
	if (err)
		return err;
	checkpoint_tidy(db);
	db->ckpt.bytes = info.bytes;
	atomic_store(&db->ckpt.backlog, 0);
	atomic_store(&db->ckpt.base, info.lsn);
	return EMDB_OK;
}

emdb_err emdb_checkpoint(emdb_db *db)
{
	emdb_err err = db_writable(db);

	if (err || db->memory)
		return err;
	mutex_lock(&db->ckpt.lock);
	err = checkpoint_locked(db);
	mutex_unlock(&db->ckpt.lock);
	return err;
}

/* ---- In the background -------------------------------------------------------------- */

/* A replay of less than this is not worth an image. */
#define DUE_MIN (64u * 1024u * 1024u)
#define LOOK_MS 1000u
/* Nor is writing images as many bytes as a quarter of what is written anyway. */
#define DUE_IMAGES 4u
/* An image that is written again for any change. */
#define SMALL (1024u * 1024u)

/* About how many bytes a replay would go through. */
static uint64_t unsaved(const emdb_db *db)
{
	return atomic_load(&db->ckpt.backlog) + (journal_tail(db->j) - atomic_load(&db->ckpt.base));
}

static void complain(emdb_db *db, emdb_err err)
{
	char text[128];

	if (!db->log)
		return;
	(void)snprintf(text, sizeof(text), "checkpoint not written: %s", emdb_strerror(err));
	db->log(db->log_ctx, EMDB_LOG_WARN, text);
}

static void *background_main(void *arg)
{
	emdb_db *const db = arg;
	struct checkpointer *const k = &db->ckpt;
	uint64_t tried = 0;

	mutex_lock(&k->wake_lock);
	while (!k->stop) {
		struct journal_stats st;
		uint64_t due;
		emdb_err err;

		(void)cond_wait_until(&k->wake, &k->wake_lock,
				      io_clock_mono_ns(db->io) + LOOK_MS * UINT64_C(1000000));
		if (k->stop)
			break;
		mutex_unlock(&k->wake_lock);
		journal_stats_get(db->j, &st);
		mutex_lock(&k->lock);
		due = max_u64(max_u64(DUE_MIN, st.live_bytes / 8), k->bytes * DUE_IMAGES);
		mutex_unlock(&k->lock);
		/* After a failure only when as much again has come. */
		if (unsaved(db) > due && journal_tail(db->j) - tried > due) {
			err = emdb_checkpoint(db);
			tried = err ? journal_tail(db->j) : 0;
			if (err)
				complain(db, err);
		}
		mutex_lock(&k->wake_lock);
	}
	mutex_unlock(&k->wake_lock);
	return NULL;
}

emdb_err checkpoint_start(emdb_db *db, uint64_t replayed)
{
	struct checkpointer *const k = &db->ckpt;

	atomic_store(&k->backlog, replayed);
	atomic_store(&k->base, journal_tail(db->j));
	if (db->memory)
		return EMDB_OK;
	if (thread_start(&k->thread, "emdb-checkpoint", background_main, db))
		return EMDB_ERR_NOMEM;
	k->runs = true;
	return EMDB_OK;
}

void checkpoint_stop(emdb_db *db)
{
	struct checkpointer *const k = &db->ckpt;

	if (!k->runs)
		return;
	mutex_lock(&k->wake_lock);
	k->stop = true;
	cond_broadcast(&k->wake);
	mutex_unlock(&k->wake_lock);
	(void)pthread_join(k->thread, NULL);
	k->runs = false;
}

/*
 * Nothing new, or so little that replaying it costs less than writing all
 * again: then the image that is there will do.
 */
void checkpoint_close(emdb_db *db)
{
	struct checkpointer *const k = &db->ckpt;
	uint64_t n;
	emdb_err err;

	checkpoint_stop(db);
	if (db->read_only || db->memory || !db->j || db_writable(db) || journal_failed(db->j))
		return;
	n = unsaved(db);
	if (n == 0 || (k->bytes > SMALL && n < k->bytes / 4))
		return;
	err = emdb_checkpoint(db);
	if (err)
		complain(db, err);
}
