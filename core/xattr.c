/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes: a blob in the record that holds an object's metadata. */
#include "core/store.h"

/* The blob of a locked or pinned object; points into the journal. */
static emdb_err blob_pinned(emdb_db *db, uint64_t id, struct cur *ret)
{
	const struct ns *const ns = ns_any_pinned(db, id);
	struct obj_view v;
	struct rec r = { .kind = 0 };
	uint64_t ref;
	emdb_err err;

	if (ns) {
		/* Compaction does not keep the record of a dropped one that somebody still has open. */
		ref = atomic_load(&ns->dead) ? 0 : atomic_load(&ns->ref);
	} else if (!objtab_get_pinned(db, id, &v)) {
		return EMDB_ERR_NOT_FOUND;
	} else if (v.big) {
		mutex_lock(&v.big->lock);
		ref = v.big->inode_ref;
		mutex_unlock(&v.big->lock);
	} else {
		ref = v.ref;
	}
	if (ref) {
		err = journal_rec_pinned(db->j, ref, &r, NULL);
		if (err)
			return err;
	}
	*ret = cur_init(r.xattrs, r.xattrs_len);
	return EMDB_OK;
}

/* Where an attribute is in a blob: bytes [at, end), its value among them. */
struct place {
	size_t at, end;
	const uint8_t *value;
	size_t len;
};

static emdb_err walk_blob(struct cur c, const char *name, struct place *ret)
{
	const size_t want = strlen(name), size = cur_left(&c);
	const char *n;
	size_t nlen;

	*ret = (struct place){ 0 };
	while (fmt_xattr_next(&c, &n, &nlen, &ret->value, &ret->len)) {
		ret->end = size - cur_left(&c);
		if (nlen == want && memcmp(n, name, want) == 0)
			return EMDB_OK;
		ret->at = ret->end;
	}
	return c.err ? EMDB_ERR_CORRUPT : EMDB_ERR_NO_XATTR;
}

/* NO_XATTR: there is none of that name, and *ret is the blob's end. It lies in the journal, so IO too. */
static emdb_err blob_find(struct cur c, const char *name, struct place *ret)
{
	struct guard g;
	emdb_err err;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	err = walk_blob(c, name, ret);
	guard_end(&g);
	return err;
}

emdb_err emdb_xattr_get(emdb_db *db, uint64_t id, const char *name, void *buf, size_t len,
			size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct place p;
	struct cur c;
	emdb_err err;

	err = blob_pinned(db, id, &c);
	if (!err)
		err = blob_find(c, name, &p);
	if (!err && len && len < p.len)
		err = EMDB_ERR_RANGE;
	if (!err && len)
		err = copy_mapped(buf, p.value, p.len);
	if (!err)
		*ret_len = p.len;
	epoch_unpin(&db->epoch, pin);
	return err;
}

static emdb_err walk_names(struct cur c, char *buf, size_t len, size_t *ret_len)
{
	const uint8_t *value;
	size_t at = 0, nlen, vlen;
	const char *name;

	while (fmt_xattr_next(&c, &name, &nlen, &value, &vlen)) {
		if (len && at + nlen + 1 > len)
			return EMDB_ERR_RANGE;
		if (len) {
			memcpy(buf + at, name, nlen);
			buf[at + nlen] = 0;
		}
		at += nlen + 1;
	}
	if (c.err)
		return EMDB_ERR_CORRUPT;
	*ret_len = at;
	return EMDB_OK;
}

static emdb_err blob_names(struct cur c, char *buf, size_t len, size_t *ret_len)
{
	struct guard g;
	emdb_err err;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	err = walk_names(c, buf, len, ret_len);
	guard_end(&g);
	return err;
}

emdb_err emdb_xattr_list(emdb_db *db, uint64_t id, char *buf, size_t len, size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct cur c;
	emdb_err err;

	err = blob_pinned(db, id, &c);
	if (!err)
		err = blob_names(c, buf, len, ret_len);
	epoch_unpin(&db->epoch, pin);
	return err;
}

/* ---- Changing ------------------------------------------------------------------- */

static emdb_err blob_put(struct buf *b, const char *name, size_t name_len, const void *value,
			 size_t len)
{
	uint8_t head[1 + VARINT_MAX];
	size_t n = 1;

	head[0] = (uint8_t)name_len;
	if (buf_append(b, head, 1) || buf_append(b, name, name_len))
		return EMDB_ERR_NOMEM;
	n = varint_put(head, len);
	return buf_append(b, head, n) || buf_append(b, value, len) ? EMDB_ERR_NOMEM : EMDB_OK;
}

/* The blob without the place p and, when value is not NULL, with its new value behind. */
static emdb_err blob_change(struct cur c, const struct place *p, const char *name,
			    const void *value, size_t len, struct buf *out)
{
	const size_t size = cur_left(&c), name_len = strlen(name);
	const uint8_t *const old = cur_bytes(&c, size);

	if (buf_reserve(out, size + 1 + name_len + VARINT_MAX + len))
		return EMDB_ERR_NOMEM;
	if (size && (copy_mapped(out->data, old, p->at) ||
		     copy_mapped(out->data + p->at, old + p->end, size - p->end)))
		return EMDB_ERR_IO;
	out->len = p->at + size - p->end;
	return value ? blob_put(out, name, name_len, value, len) : EMDB_OK;
}

static emdb_err record_locked(struct node *n, struct rec *r)
{
	emdb_db *const db = n->db;

	if (n->ns)
		return atomic_load(&n->ns->dead) ? EMDB_ERR_NOT_FOUND
						 : rec_of_ns(db, n->ns, db_now_ns(db), r);
	if (n->view.big)
		return rec_of_big(db, n->id, n->view.big, db_now_ns(db), r);
	if (n->view.orphan || must_promote(&n->entry))
		return EMDB_ERR_BUSY;
	rec_of_plain(&n->entry, db_now_ns(db), r);
	return EMDB_OK;
}

struct change {
	const char *name;
	const void *value; /* NULL: remove */
	size_t len;
	unsigned int flags;
	uint32_t mode, mask; /* these bits of the mode change with it */
};

/* With the longest key and the longest piece of a value they fit one record. */
static size_t xattrs_max(const emdb_db *db)
{
	return min_size(EMDB_XATTRS_MAX, journal_payload_max(db->j) - db_extent_max(db) -
						 EMDB_KEY_MAX - FMT_FIELDS_MAX);
}

static emdb_err name_check(const char *name, size_t value_len)
{
	const size_t n = strlen(name);

	if (n == 0 || n > EMDB_XATTR_NAME_MAX)
		return EMDB_ERR_RANGE;
	return value_len > EMDB_XATTR_VALUE_MAX ? EMDB_ERR_VALUE_TOO_LARGE : EMDB_OK;
}

emdb_err xattr_blob(const emdb_db *db, const struct emdb_xattr *xattrs, size_t n, struct buf *ret)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; i < n && !err; i++) {
		err = name_check(xattrs[i].name, xattrs[i].len);
		if (!err)
			err = blob_put(ret, xattrs[i].name, strlen(xattrs[i].name), xattrs[i].value,
				       xattrs[i].len);
	}
	return !err && ret->len > xattrs_max(db) ? EMDB_ERR_NO_SPACE : err;
}

static void set_mode(struct node *n, const struct change *ch, struct rec *r)
{
	const uint32_t old = r->mask & REC_F_META ? r->mode : STORE_FILE_MODE;
	const struct emdb_attr attr = { .mode = (old & ~ch->mask) | (ch->mode & ch->mask) };

	if (ch->mask)
		rec_set_attr(n->db, r, &attr, EMDB_SET_MODE);
}

static emdb_err change_locked(struct node *n, const struct change *ch)
{
	struct buf blob = BUF_INIT;
	struct place old;
	struct rec r;
	struct cur c;
	emdb_err err;

	err = record_locked(n, &r);
	if (err)
		return err;
	c = r.mask & REC_F_XATTRS ? cur_init(r.xattrs, r.xattrs_len) : cur_init(NULL, 0);
	err = blob_find(c, ch->name, &old);
	if (err && err != EMDB_ERR_NO_XATTR)
		return err;
	if (!err && ch->flags & EMDB_XATTR_CREATE)
		return EMDB_ERR_EXISTS;
	if (err && (ch->flags & EMDB_XATTR_REPLACE || (!ch->value && !ch->mask)))
		return err;
	err = blob_change(c, &old, ch->name, ch->value, ch->len, &blob);
	/* setxattr(2): ENOSPC when there is no room for it. */
	if (!err && blob.len > xattrs_max(n->db))
		err = EMDB_ERR_NO_SPACE;
	if (!err) {
		r.mask &= ~REC_F_XATTRS;
		if (blob.len)
			r.mask |= REC_F_XATTRS;
		r.xattrs = blob.data;
		r.xattrs_len = blob.len;
		set_mode(n, ch, &r);
		if (n->ns || n->view.big)
			err = commit_rec(n->db, &r, NULL, 0, 0, n->view.big != NULL, NULL, NULL);
		else
			err = commit_plain(n, &r, NULL);
	}
	buf_release(&blob);
	return err;
}

static emdb_err change(emdb_db *db, uint64_t id, const struct change *ch)
{
	emdb_err err = db_writable(db);

	if (!err)
		err = name_check(ch->name, ch->len);
	if (err)
		return err;
	for (;;) {
		struct node node;

		err = node_lock(db, id, false, &node);
		if (err)
			return err;
		err = change_locked(&node, ch);
		node_unlock(&node);
		if (err != EMDB_ERR_BUSY)
			return err ? err : db_written(db);
		err = promote(db, id);
		if (err)
			return err;
	}
}

emdb_err emdb_xattr_set(emdb_db *db, uint64_t id, const char *name, const void *value, size_t len,
			unsigned int flags)
{
	const struct change ch = { name, value ? value : "", len, flags, 0, 0 };

	if (flags & EMDB_XATTR_CREATE && flags & EMDB_XATTR_REPLACE)
		return EMDB_ERR_INVAL;
	return change(db, id, &ch);
}

emdb_err emdb_xattr_remove(emdb_db *db, uint64_t id, const char *name)
{
	const struct change ch = { name, NULL, 0, 0, 0, 0 };

	return change(db, id, &ch);
}

emdb_err emdb_xattr_set_mode(emdb_db *db, uint64_t id, const char *name, const void *value,
			     size_t len, uint32_t mode, uint32_t mask)
{
	const struct change ch = { name, value, value ? len : 0, 0, mode, mask };

	if (mask == 0 || mask & ~07777u)
		return EMDB_ERR_INVAL;
	return change(db, id, &ch);
}
