/* SPDX-License-Identifier: Apache-2.0 */
/* Objects by id: what a file system asks of names and metadata. */
#include "core/store.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- Lookup and references -------------------------------------------------- */

static emdb_err ref_ns_pinned(emdb_db *db, struct ns *ns, struct emdb_attr *ret)
{
	atomic_fetch_add(&ns->refs, 1);
	if (atomic_load(&ns->dead)) { /* see ns_maybe_free_pinned() */
		atomic_fetch_sub(&ns->refs, 1);
		ns_maybe_free_pinned(db, ns);
		return EMDB_ERR_NOT_FOUND;
	}
	ns_attr(ns, ret);
	return EMDB_OK;
}

/* Takes a reference on what an entry names and says what it is; *ret_row of what is no namespace. */
static emdb_err ref_entry_pinned(emdb_db *db, const struct ns *ns, const struct entry *e,
				 struct emdb_attr *ret, struct obj_view *ret_row)
{
	struct ns *child;

	switch (e->rec.kind) {
	case REC_NS:
		child = ns_any_pinned(db, e->id);
		return child ? ref_ns_pinned(db, child, ret) : EMDB_ERR_NOT_FOUND;
	case REC_LINK:
		if (!objtab_ref(db, e->id, ret_row))
			return EMDB_ERR_NOT_FOUND;
		break;
	default:
		if (!objtab_ref_plain(db, e->id, ns->id, e->hash, e->ref, ret_row))
			return EMDB_ERR_NOMEM;
	}
	if (ret_row->big)
		big_attr(e->id, ret_row->big, ret);
	else
		rec_attr(db, &e->rec, e->ref, ret);
	return EMDB_OK;
}

/* False: the reference just taken, on the object of a row that said this, is to be given back. */
static bool ref_stands_pinned(emdb_db *db, const struct ns *ns, const struct entry *e,
			      const struct obj_view *row)
{
	if (!entry_stands_pinned(db, ns, e))
		return false;
	/* Another who looked it up may have left a row that the writer knew nothing of. */
	return e->rec.kind != REC_PUT || row->ref == e->ref ||
	       !objtab_correct(db, e->id, ns->id, e->hash, e->ref);
}

/*
 * No lock: between reading the index and entering the object in the table a
 * writer can have changed the entry without knowing that somebody would care.
 *   A reads entry -> record r of object o
 *   B overwrites or unlinks the entry; o is not in the table, nothing to tell
 *   A enters o with r
 * So look again: when the index still says r, then from now on every writer
 * finds o in the table.  When not, give back and start over.
 */
static emdb_err lookup_pinned(emdb_db *db, const struct ns *ns, const void *key, size_t key_len,
			      struct emdb_attr *ret)
{
	const uint64_t hash = entry_hash(db, ns->id, key, key_len);

	for (;;) {
		struct obj_view row;
		struct entry e;
		emdb_err err;

		err = entry_find_pinned(db, ns, hash, key, key_len, false, &e);
		if (err)
			return err;
		err = ref_entry_pinned(db, ns, &e, ret, &row);
		if (err || e.rec.kind == REC_NS)
			return err;
		if (ref_stands_pinned(db, ns, &e, &row))
			return EMDB_OK;
		emdb_node_forget(db, e.id, 1);
	}
}

emdb_err emdb_node_lookup(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			  struct emdb_attr *ret_attr)
{
	unsigned int pin;
	struct ns *ns;
	emdb_err err;

	if (key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	pin = epoch_pin(&db->epoch);
	ns = ns_find_pinned(db, parent);
	err = ns ? lookup_pinned(db, ns, key, key_len, ret_attr) : EMDB_ERR_NOT_FOUND;
	epoch_unpin(&db->epoch, pin);
	return err;
}

void emdb_node_forget(emdb_db *db, uint64_t id, uint64_t count)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct ns *const ns = ns_any_pinned(db, id);

	if (ns) {
		atomic_fetch_sub(&ns->refs, count);
		ns_maybe_free_pinned(db, ns);
	} else {
		objtab_unref(db, id, count);
	}
	epoch_unpin(&db->epoch, pin);
}

emdb_err emdb_node_getattr(emdb_db *db, uint64_t id, struct emdb_attr *ret_attr)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const struct ns *const ns = ns_any_pinned(db, id);
	emdb_err err = EMDB_OK;
	struct obj_view v;
	struct rec r;

	if (ns) {
		ns_attr(ns, ret_attr);
	} else if (!objtab_get_pinned(db, id, &v)) {
		err = EMDB_ERR_NOT_FOUND;
	} else if (v.big) {
		big_attr(id, v.big, ret_attr);
	} else {
		err = journal_rec_pinned(db->j, v.ref, &r, NULL);
		if (!err) {
			rec_attr(db, &r, v.ref, ret_attr);
			if (v.orphan)
				ret_attr->nlink = 0;
		}
	}
	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err emdb_node_key(emdb_db *db, uint64_t id, void *buf, size_t len, size_t *ret_len,
		       uint64_t *ret_parent)
{
	struct node n;
	struct rec r;
	emdb_err err;

	err = node_lock(db, id, false, &n);
	if (err)
		return err;
	if (n.ns) {
		err = rec_of_ns(db, n.ns, 0, &r);
	} else if (n.view.big) {
		err = big_entry_pinned(db, id, n.view.big, 0, &n.entry);
		r = n.entry.rec;
	} else {
		err = n.view.orphan ? EMDB_ERR_NOT_FOUND : EMDB_OK;
		r = n.entry.rec;
	}
	if (!err && len && len < r.key_len)
		err = EMDB_ERR_RANGE;
	if (!err) {
		if (len)
			err = copy_mapped(buf, r.key, r.key_len);
	}
	if (!err) {
		*ret_len = r.key_len;
		if (ret_parent)
			*ret_parent = r.ns;
	}
	node_unlock(&n);
	return err;
}

/* ---- Setting attributes -------------------------------------------------------- */

void rec_set_attr(emdb_db *db, struct rec *r, const struct emdb_attr *attr, unsigned int set)
{
	if (!(r->mask & REC_F_META)) {
		r->mode = STORE_FILE_MODE;
		r->uid = db->sb.uid;
		r->gid = db->sb.gid;
		r->mask |= REC_F_META;
	}
	if (set & EMDB_SET_MODE)
		r->mode = (r->mode & S_IFMT) | (attr->mode & 07777);
	if (set & EMDB_SET_KILL_SUID && !S_ISDIR(r->mode))
		r->mode = mode_without_suid(r->mode);
	if (set & EMDB_SET_UID)
		r->uid = attr->uid;
	if (set & EMDB_SET_GID)
		r->gid = attr->gid;
	if (set & EMDB_SET_ATIME)
		r->atime_ns = attr->atime_ns;
	if (set & EMDB_SET_MTIME)
		r->mtime_ns = attr->mtime_ns;
	if (set & EMDB_SET_CTIME)
		r->time_ns = attr->ctime_ns;
	r->mask |= REC_F_TIMES;
	if (set & EMDB_SET_EXPIRES) {
		r->expires_ms = attr->expires_ms;
		r->mask &= ~REC_F_EXPIRES;
		if (r->expires_ms)
			r->mask |= REC_F_EXPIRES;
	}
}

/* Everything but the size, of a locked object, and what it has then.  BUSY: it must be promoted first. */
static emdb_err set_locked(struct node *n, const struct emdb_attr *attr, unsigned int set,
			   struct emdb_attr *ret)
{
	emdb_db *const db = n->db;
	struct rec r;
	uint64_t ref;
	emdb_err err;

	if (n->ns) {
		if (set & EMDB_SET_EXPIRES)
			return EMDB_ERR_IS_NS;
		if (atomic_load(&n->ns->dead))
			return EMDB_ERR_NOT_FOUND;
		err = rec_of_ns(db, n->ns, db_now_ns(db), &r);
		if (err)
			return err;
		rec_set_attr(db, &r, attr, set);
		err = commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, false, NULL, NULL);
		return err ? err : emdb_node_getattr(db, n->id, ret);
	}
	if (n->view.big) {
		err = rec_of_big(db, n->id, n->view.big, db_now_ns(db), &r);
		if (err)
			return err;
		rec_set_attr(db, &r, attr, set);
		err = commit_rec(db, &r, NULL, 0, 0, true, NULL, NULL);
		if (!err)
			big_attr(n->id, n->view.big, ret);
		return err;
	}
	if (n->view.orphan || must_promote(&n->entry))
		return EMDB_ERR_BUSY;
	rec_of_plain(&n->entry, db_now_ns(db), &r);
	rec_set_attr(db, &r, attr, set);
	err = commit_plain(n, &r, &ref);
	if (!err)
		rec_attr(db, &r, ref, ret);
	return err;
}

/*
 * A promoted object cut to nothing becomes a plain one again, so that a file
 * rewritten whole is one record.  Structure held exclusively.
 */
static emdb_err demote_locked(struct node *n)
{
	emdb_db *const db = n->db;
	struct big *const big = n->view.big;
	struct rec r, inode;
	struct entry e;
	emdb_err err;

	err = rec_of_big(db, n->id, big, db_now_ns(db), &inode);
	if (!err)
		err = big_entry_pinned(db, n->id, big, 0, &e);
	if (err)
		return err;
	if (!S_ISREG(inode.mode) || inode.xattrs_len > STORE_INLINE_MAX)
		return node_truncate_locked(n, 0);
	r = inode;
	r.kind = REC_PUT;
	r.mask &= ~REC_F_SIZE;
	r.mask |= REC_F_NS | REC_F_KEY | REC_F_VALUE;
	r.ns = e.rec.ns;
	r.key = e.rec.key;
	r.key_len = e.rec.key_len;
	r.mtime_ns = r.time_ns;
	r.expires_ms = node_rearmed(db, r.ns, r.expires_ms);
	return commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, &e, NULL);
}

static bool may_demote(const struct node *n)
{
	bool one;

	if (!n->view.big)
		return false;
	mutex_lock(&n->view.big->lock);
	one = n->view.big->nlinks == 1;
	mutex_unlock(&n->view.big->lock);
	return one;
}

/* One try under one kind of lock.  BUSY: promote and try again. */
static emdb_err setattr_once(emdb_db *db, uint64_t id, const struct emdb_attr *attr,
			     unsigned int set, bool exclusive, bool *want_exclusive,
			     struct emdb_attr *ret_attr)
{
	const unsigned int rest = set & ~EMDB_SET_SIZE;
	struct node n;
	emdb_err err;

	err = node_lock(db, id, exclusive, &n);
	if (err)
		return err;
	if (set & EMDB_SET_SIZE && n.ns) {
		err = EMDB_ERR_IS_NS;
	} else if (set & EMDB_SET_SIZE && attr->size == 0 && may_demote(&n)) {
		*want_exclusive = !exclusive;
		err = exclusive ? demote_locked(&n) : EMDB_ERR_BUSY;
	} else if (set & EMDB_SET_SIZE) {
		err = node_truncate_locked(&n, attr->size);
	}
	if (!err && rest && set & EMDB_SET_SIZE) {
		/* The record changed under us: look again. */
		node_unlock(&n);
		return setattr_once(db, id, attr, rest, false, want_exclusive, ret_attr);
	}
	if (!err && rest)
		err = set_locked(&n, attr, rest, ret_attr);
	else if (!err)
		err = emdb_node_getattr(db, id, ret_attr);
	node_unlock(&n);
	return err;
}

emdb_err emdb_node_setattr(emdb_db *db, uint64_t id, const struct emdb_attr *attr, unsigned int set,
			   struct emdb_attr *ret_attr)
{
	bool exclusive = false;
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (set & EMDB_SET_SIZE && attr->size > EMDB_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
	if (set & EMDB_SET_EXPIRES && (attr->expires_ms < 0 || attr->expires_ms > TTL_MAX_MS))
		return EMDB_ERR_OVERFLOW;
	for (;;) {
		bool want_exclusive = false;

		err = setattr_once(db, id, attr, set, exclusive, &want_exclusive, ret_attr);
		if (err != EMDB_ERR_BUSY)
			break;
		exclusive = want_exclusive;
		if (!want_exclusive) {
			err = promote(db, id);
			if (err)
				return err;
		}
	}
	if (!err && set & EMDB_SET_EXPIRES && ttl_expired(attr->expires_ms, db_now_ms(db))) {
		uint64_t removed;

		/* A deadline in the past deletes now. */
		err = expire_step(db, UINT64_MAX, &removed);
	}
	return err ? err : db_written(db);
}

/* ---- Creating --------------------------------------------------------------------- */

static emdb_err create_check(const struct emdb_create *what)
{
	/* A record with other bits cannot be read again. */
	if (what->mode & ~(uint32_t)(S_IFMT | 07777))
		return EMDB_ERR_INVAL;
	switch (what->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return EMDB_OK;
	case S_IFLNK:
		return what->target_len == 0 || what->target_len > 4095 ? EMDB_ERR_INVAL : EMDB_OK;
	default:
		return EMDB_ERR_INVAL;
	}
}

static emdb_err create_record(emdb_db *db, const struct ns *ns, const struct emdb_create *what,
			      const struct buf *xattrs, struct rec *r)
{
	int64_t expires = 0;
	emdb_err err;

	memset(r, 0, sizeof(*r));
	r->mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_META;
	r->ns = ns->id;
	r->time_ns = db_now_ns(db);
	r->mode = what->mode;
	r->uid = what->uid;
	r->gid = what->gid;
	if (xattrs->len) {
		r->xattrs = xattrs->data;
		r->xattrs_len = xattrs->len;
		r->mask |= REC_F_XATTRS;
	}
	if (S_ISDIR(what->mode)) {
		r->kind = REC_NS;
		r->ttl_default_ms = atomic_load_explicit(&ns->ttl_default_ms, memory_order_relaxed);
		r->ttl_basis = atomic_load_explicit(&ns->ttl_basis, memory_order_relaxed);
		if (r->ttl_default_ms || r->ttl_basis)
			r->mask |= REC_F_TTLDEF;
		return EMDB_OK;
	}
	r->kind = REC_PUT;
	r->mask |= REC_F_VALUE;
	if (S_ISLNK(what->mode)) {
		r->value = what->target;
		r->value_len = what->target_len;
	}
	if (S_ISCHR(what->mode) || S_ISBLK(what->mode)) {
		r->rdev = what->rdev;
		r->mask |= REC_F_RDEV;
	}
	/* Only contents expire: a vanishing link or device would surprise. */
	if (!S_ISREG(what->mode))
		return EMDB_OK;
	err = expiry_for(db, ns, EMDB_TTL_DEFAULT, &expires);
	r->expires_ms = expires;
	if (expires)
		r->mask |= REC_F_EXPIRES;
	return err;
}

/* structure shared and the stripe held. */
static emdb_err create_locked(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			      uint64_t hash, const struct emdb_create *what,
			      const struct buf *xattrs, struct emdb_attr *ret_attr)
{
	struct ns *const ns = ns_find_pinned(db, parent);
	struct entry old, e;
	struct obj_view row;
	struct iovec iov;
	bool expired = false;
	struct rec r;
	uint64_t ref;
	emdb_err err;

	if (!ns)
		return EMDB_ERR_NOT_FOUND;
	err = entry_find_pinned(db, ns, hash, key, key_len, true, &old);
	if (!err) {
		if (!ttl_expired(entry_expires_pinned(db, &old), db_now_ms(db)))
			return EMDB_ERR_EXISTS;
		expired = true;
		/* A linked object's names are the sweeper's business, all at once. */
		if (old.rec.kind != REC_PUT)
			return EMDB_ERR_BUSY;
	} else if (err != EMDB_ERR_NOT_FOUND) {
		return err;
	}
	err = create_record(db, ns, what, xattrs, &r);
	if (err)
		return err;
	r.key = key;
	r.key_len = key_len;
	iov = (struct iovec){ (void *)(uintptr_t)r.value, r.value_len };
	err = commit_rec(db, &r, &iov, r.value_len ? 1 : 0, 0, true, expired ? &old : NULL, &ref);
	if (err)
		return err;
	e = (struct entry){ .hash = hash, .slot = ref, .ref = ref, .id = ref / 8, .rec = r };
	return ref_entry_pinned(db, ns, &e, ret_attr, &row);
}

emdb_err emdb_node_create(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			  const struct emdb_create *what, struct emdb_attr *ret_attr)
{
	const uint64_t hash = entry_hash(db, parent, key, key_len);
	struct buf xattrs = BUF_INIT;
	emdb_err err = db_writable(db);

	if (!err)
		err = create_check(what);
	if (!err && key_len > EMDB_KEY_MAX)
		err = EMDB_ERR_KEY_TOO_LONG;
	if (!err)
		err = xattr_blob(db, what->xattrs, what->xattr_count, &xattrs);
	while (!err) {
		uint64_t removed;
		struct hold h;

		hold_begin(&h, db, false);
		hold_stripe(&h, hash);
		err = create_locked(db, parent, key, key_len, hash, what, &xattrs, ret_attr);
		hold_end(&h);
		if (err != EMDB_ERR_BUSY)
			break;
		err = expire_step(db, UINT64_MAX, &removed);
	}
	buf_release(&xattrs);
	return err ? err : db_written(db);
}

emdb_err emdb_node_create_anon(emdb_db *db, uint64_t parent, const struct emdb_create *what,
			       struct emdb_attr *ret_attr)
{
	struct buf xattrs = BUF_INIT;
	struct rec inode, r;
	struct obj_view row;
	struct hold h;
	struct ns *ns;
	uint64_t id;
	emdb_err err = db_writable(db);

	if (!err)
		err = S_ISREG(what->mode) ? create_check(what) : EMDB_ERR_INVAL;
	if (!err)
		err = xattr_blob(db, what->xattrs, what->xattr_count, &xattrs);
	if (err) {
		buf_release(&xattrs);
		return err;
	}
	hold_begin(&h, db, true);
	ns = ns_find_pinned(db, parent);
	err = ns ? create_record(db, ns, what, &xattrs, &r) : EMDB_ERR_NOT_FOUND;
	if (!err)
		err = reserve_id(db, &id);
	if (!err) {
		inode = r;
		inode.kind = REC_INODE;
		inode.mask = REC_F_TIME | REC_F_META | REC_F_ID | REC_F_SIZE |
			     (r.mask & (REC_F_EXPIRES | REC_F_XATTRS));
		inode.id = id;
		/* The reference first: an object without name and reference is freed at once. */
		if (!objtab_ref_plain(db, id, parent, 0, 0, &row))
			err = EMDB_ERR_NOMEM;
	}
	if (!err) {
		err = commit_rec(db, &inode, NULL, 0, 0, true, NULL, NULL);
		if (!err)
			err = emdb_node_getattr(db, id, ret_attr);
		else
			objtab_unref(db, id, 1);
	}
	hold_end(&h);
	buf_release(&xattrs);
	return err ? err : db_written(db);
}

/* ---- Removing ------------------------------------------------------------------------ */

static emdb_err del_entry(emdb_db *db, const struct entry *e)
{
	struct rec r;

	rec_of_del(e, db_now_ns(db), &r);
	return commit_rec(db, &r, NULL, 0, JOURNAL_RESERVE, true, e, NULL);
}

/* BUSY: needs the exclusive lock. */
static emdb_err remove_locked(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			      uint64_t hash, bool dir, bool exclusive, uint64_t *ret_id)
{
	const struct ns *const ns = ns_find_pinned(db, parent);
	struct entry e;
	emdb_err err;

	if (!ns)
		return EMDB_ERR_NOT_FOUND;
	err = entry_find_pinned(db, ns, hash, key, key_len, false, &e);
	if (err)
		return err;
	if (dir != (e.rec.kind == REC_NS))
		return dir ? EMDB_ERR_NOT_NS : EMDB_ERR_IS_NS;
	if (e.rec.kind != REC_PUT && !exclusive)
		return EMDB_ERR_BUSY;
	if (dir) {
		const struct ns *const child = ns_any_pinned(db, e.id);

		if (child && hidx_count(&child->idx) != 0)
			return EMDB_ERR_NOT_EMPTY;
	}
	*ret_id = e.id;
	return del_entry(db, &e);
}

static emdb_err remove_name(emdb_db *db, uint64_t parent, const void *key, size_t key_len, bool dir,
			    uint64_t *ret_id)
{
	const uint64_t hash = entry_hash(db, parent, key, key_len);
	bool exclusive = dir;
	uint64_t id = 0;
	emdb_err err = db_writable(db);

	if (!err && key_len > EMDB_KEY_MAX)
		err = EMDB_ERR_KEY_TOO_LONG;
	if (err)
		return err;
	for (bool swept = false;;) {
		uint64_t removed;
		struct hold h;

		hold_begin(&h, db, exclusive);
		hold_stripe(&h, hash);
		err = remove_locked(db, parent, key, key_len, hash, dir, exclusive, &id);
		hold_end(&h);
		if (err == EMDB_ERR_BUSY && !exclusive) {
			exclusive = true;
		} else if (err == EMDB_ERR_NOT_EMPTY && !swept) {
			/* What has expired does not keep a directory from being empty. */
			swept = true;
			err = expire_step(db, UINT64_MAX, &removed);
			if (err)
				break;
		} else {
			break;
		}
	}
	if (!err)
		err = db_written(db);
	if (!err && ret_id)
		*ret_id = id;
	return err;
}

emdb_err emdb_node_unlink(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			  uint64_t *ret_id)
{
	return remove_name(db, parent, key, key_len, false, ret_id);
}

emdb_err emdb_node_rmdir(emdb_db *db, uint64_t parent, const void *key, size_t key_len,
			 uint64_t *ret_id)
{
	return remove_name(db, parent, key, key_len, true, ret_id);
}

/* ---- Reading directories --------------------------------------------------------------- */

/*
 * A position is an entry's hash halved (its low three bits are zero) plus how
 * many entries of that hash come before.  Four keys with one 61-bit secret
 * hash would be needed to fill the two bits: positions then skip the rest.
 */
static uint64_t pos_after(const struct hidx_slot *s)
{
	return (s->hash >> 1) + min_u64((uint64_t)s->tie + 1, 4);
}

/*
 * Entries lie all over the journal, and their objects all over the table: the processor fetches
 * those of this many at a time while it works on the ones before.
 */
#define READDIR_AHEAD 8u

struct readdir {
	emdb_db *db;
	const struct ns *ns;
	unsigned int flags;
	emdb_readdir_fn fn;
	void *ctx;
	struct buf key; /* of the entry at hand: what fn does with it takes its time */
};

/* The reference counts only when the index still says the same; see lookup_pinned(). */
static emdb_err readdir_ref(struct readdir *rd, const struct entry *e, struct emdb_attr *ret)
{
	struct obj_view row;
	emdb_err err;

	err = ref_entry_pinned(rd->db, rd->ns, e, ret, &row);
	if (err || ref_stands_pinned(rd->db, rd->ns, e, &row))
		return err;
	emdb_node_forget(rd->db, e->id, 1);
	return lookup_pinned(rd->db, rd->ns, e->rec.key, e->rec.key_len, ret);
}

/* Whose record cannot be read has no name to show; hiding it would be silence. */
static bool readdir_damaged(struct readdir *rd, const struct hidx_slot *s)
{
	char name[64];
	const int n = snprintf(name, sizeof(name), "[damaged entry, record at LSN %" PRIu64 "]",
			       ref_lsn(s->value));

	return rd->fn(rd->ctx, name, (size_t)n, NULL, pos_after(s));
}

static emdb_err readdir_key(struct readdir *rd, const struct entry *e)
{
	buf_reset(&rd->key);
	if (buf_reserve(&rd->key, e->rec.key_len + 1))
		return EMDB_ERR_NOMEM;
	rd->key.len = e->rec.key_len;
	return copy_mapped(rd->key.data, e->rec.key, e->rec.key_len);
}

/* err: of reading e.  False: the caller wants no more. */
static bool readdir_slot(struct readdir *rd, const struct hidx_slot *s, const struct entry *e,
			 emdb_err err, emdb_err *ret_err)
{
	struct emdb_attr attr;

	if (err == EMDB_ERR_NOT_FOUND)
		return true;
	if (!err)
		err = readdir_key(rd, e);
	if (is_loss(err))
		return readdir_damaged(rd, s);
	if (!err && rd->flags & EMDB_READDIR_REF)
		err = readdir_ref(rd, e, &attr);
	else if (!err)
		err = entry_attr_pinned(rd->db, e, &attr);
	if (err == EMDB_ERR_NOT_FOUND)
		return true;
	if (err) {
		*ret_err = err;
		return false;
	}
	if (rd->fn(rd->ctx, rd->key.data, rd->key.len, &attr, pos_after(s)))
		return true;
	if (rd->flags & EMDB_READDIR_REF)
		emdb_node_forget(rd->db, attr.id, 1);
	return false;
}

/* False: the caller wants no more. */
static bool readdir_some(struct readdir *rd, const struct hidx_slot *slots, size_t from, size_t n,
			 emdb_err *ret_err)
{
	const size_t end = min_size(from + READDIR_AHEAD, n);
	struct entry e[READDIR_AHEAD];
	emdb_err err[READDIR_AHEAD];

	for (size_t i = from; i < end; i++) {
		err[i - from] = entry_read_pinned(rd->db, slots[i].hash, slots[i].value, false,
						  &e[i - from]);
		if (!err[i - from] && rd->flags & EMDB_READDIR_REF)
			objtab_prefetch(rd->db, e[i - from].id);
	}
	for (size_t i = end; i < n && i < end + READDIR_AHEAD; i++)
		journal_prefetch_pinned(rd->db->j, slot_ref(slots[i].value));
	for (size_t i = from; i < end; i++)
		if (!readdir_slot(rd, &slots[i], &e[i - from], err[i - from], ret_err))
			return false;
	return true;
}

emdb_err emdb_node_readdir(emdb_db *db, uint64_t id, uint64_t pos, unsigned int flags,
			   emdb_readdir_fn fn, void *ctx)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	uint64_t hash = (pos << 1) & ~UINT64_C(7);
	uint32_t tie = (uint32_t)(pos & 3);
	struct readdir rd = { db, ns_any_pinned(db, id), flags, fn, ctx, BUF_INIT };
	struct hidx_slot slots[STORE_WALK];
	emdb_err err = EMDB_OK;
	bool more = true;
	size_t n;

	if (!rd.ns) {
		epoch_unpin(&db->epoch, pin);
		return EMDB_ERR_NOT_NS;
	}
	while (more && (n = hidx_walk_pinned(&rd.ns->idx, hash, tie, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n && i < READDIR_AHEAD; i++)
			journal_prefetch_pinned(db->j, slot_ref(slots[i].value));
		for (size_t i = 0; more && i < n; i += READDIR_AHEAD)
			more = readdir_some(&rd, slots, i, n, &err);
		hash = slots[n - 1].hash;
		tie = slots[n - 1].tie + 1;
	}
	epoch_unpin(&db->epoch, pin);
	buf_release(&rd.key);
	return err;
}
