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
		ref = atomic_load(&ns->ref);
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

/* The value of `name` in a blob; NO_XATTR when it is not there. */
static emdb_err blob_find(struct cur c, const char *name, const uint8_t **value, size_t *len)
{
	const size_t want = strlen(name);
	const char *n;
	size_t nlen;

	while (fmt_xattr_next(&c, &n, &nlen, value, len))
		if (nlen == want && memcmp(n, name, want) == 0)
			return EMDB_OK;
	return c.err ? EMDB_ERR_CORRUPT : EMDB_ERR_NO_XATTR;
}

emdb_err emdb_xattr_get(emdb_db *db, uint64_t id, const char *name, void *buf, size_t len,
			size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const uint8_t *value;
	size_t n = 0;
	struct cur c;
	emdb_err err;

	err = blob_pinned(db, id, &c);
	if (!err)
		err = blob_find(c, name, &value, &n);
	if (!err && len && len < n)
		err = EMDB_ERR_RANGE;
	if (!err && len)
		err = copy_mapped(buf, value, n);
	if (!err)
		*ret_len = n;
	epoch_unpin(&db->epoch, pin);
	return err;
}

emdb_err emdb_xattr_list(emdb_db *db, uint64_t id, char *buf, size_t len, size_t *ret_len)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const uint8_t *value;
	size_t at = 0, nlen, vlen;
	const char *name;
	struct cur c;
	emdb_err err;

	err = blob_pinned(db, id, &c);
	while (!err && fmt_xattr_next(&c, &name, &nlen, &value, &vlen)) {
		if (len && at + nlen + 1 > len) {
			err = EMDB_ERR_RANGE;
			break;
		}
		if (len) {
			memcpy(buf + at, name, nlen);
			buf[at + nlen] = 0;
		}
		at += nlen + 1;
	}
	if (!err && c.err)
		err = EMDB_ERR_CORRUPT;
	if (!err)
		*ret_len = at;
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

/* The blob without `name` and, when value is not NULL, with its new value behind. */
static emdb_err blob_change(struct cur c, const char *name, const void *value, size_t len,
			    struct buf *out)
{
	const size_t want = strlen(name);
	const uint8_t *v;
	const char *n;
	size_t nlen, vlen;
	emdb_err err = EMDB_OK;

	while (!err && fmt_xattr_next(&c, &n, &nlen, &v, &vlen))
		if (nlen != want || memcmp(n, name, want) != 0)
			err = blob_put(out, n, nlen, v, vlen);
	if (!err && c.err)
		err = EMDB_ERR_CORRUPT;
	if (!err && value)
		err = blob_put(out, name, want, value, len);
	return err;
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
};

/* With the longest key and the longest piece of a value they fit one record. */
static size_t xattrs_max(const emdb_db *db)
{
	return min_size(EMDB_XATTRS_MAX, journal_payload_max(db->j) - db_extent_max(db) -
						 EMDB_KEY_MAX - FMT_FIELDS_MAX);
}

static emdb_err change_locked(struct node *n, const struct change *ch)
{
	struct buf blob = BUF_INIT;
	const uint8_t *old;
	size_t old_len;
	struct rec r;
	struct cur c;
	emdb_err err;

	err = record_locked(n, &r);
	if (err)
		return err;
	c = r.mask & REC_F_XATTRS ? cur_init(r.xattrs, r.xattrs_len) : cur_init(NULL, 0);
	err = blob_find(c, ch->name, &old, &old_len);
	if (err && err != EMDB_ERR_NO_XATTR)
		return err;
	if (!err && ch->flags & EMDB_XATTR_CREATE)
		return EMDB_ERR_EXISTS;
	if (err && (ch->flags & EMDB_XATTR_REPLACE || !ch->value))
		return err;
	err = blob_change(c, ch->name, ch->value, ch->len, &blob);
	/* setxattr(2): ENOSPC when there is no room for it. */
	if (!err && blob.len > xattrs_max(n->db))
		err = EMDB_ERR_NO_SPACE;
	if (!err) {
		r.mask &= ~REC_F_XATTRS;
		if (blob.len)
			r.mask |= REC_F_XATTRS;
		r.xattrs = blob.data;
		r.xattrs_len = blob.len;
		if (n->ns || n->view.big)
			err = commit_rec(n->db, &r, NULL, 0, 0, n->view.big != NULL, NULL, NULL);
		else
			err = commit_plain(n, &r);
	}
	buf_release(&blob);
	return err;
}

static emdb_err change(emdb_db *db, uint64_t id, const struct change *ch)
{
	const size_t n = strlen(ch->name);
	emdb_err err = db_writable(db);

	if (err)
		return err;
	if (n == 0 || n > EMDB_XATTR_NAME_MAX)
		return EMDB_ERR_RANGE;
	if (ch->len > EMDB_XATTR_VALUE_MAX)
		return EMDB_ERR_VALUE_TOO_LARGE;
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
	const struct change ch = { name, value ? value : "", len, flags };

	if (flags & EMDB_XATTR_CREATE && flags & EMDB_XATTR_REPLACE)
		return EMDB_ERR_INVAL;
	return change(db, id, &ch);
}

emdb_err emdb_xattr_remove(emdb_db *db, uint64_t id, const char *name)
{
	const struct change ch = { name, NULL, 0, 0 };

	return change(db, id, &ch);
}
