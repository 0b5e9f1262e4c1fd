/* SPDX-License-Identifier: Apache-2.0 */
/* What damage means, in words. */
#include "core/damage.h"

#include <inttypes.h>
#include <stdio.h>

/* Namespaces on the way up that a path shows. */
#define PATH_DEPTH_MAX 128

/* ---- Telling ----------------------------------------------------------------------------- */

/* Prepends text; what does not fit is left out at the front. */
struct back {
	char *at, *begin;
};

static void put_back(struct back *b, const char *text, size_t n)
{
	if ((size_t)(b->at - b->begin) < n) {
		b->begin = b->at; /* full */
		return;
	}
	b->at -= n;
	memcpy(b->at, text, n);
}

static void put_name(struct back *b, const uint8_t *key, size_t len)
{
	for (size_t i = len; i > 0; i--) {
		const uint8_t c = key[i - 1];
		char text[4];

		if (c > 0x20 && c != 0x7f && c != '/' && c != '%' && c != '"') {
			text[0] = (char)c;
			put_back(b, text, 1);
		} else {
			(void)snprintf(text, sizeof(text), "%%%02X", c);
			put_back(b, text, 3);
		}
	}
	if (len == 0)
		put_back(b, "%", 1);
}

static void put_ns_name(const struct damage *d, struct back *b, const struct ns *ns)
{
	const uint64_t ref = atomic_load(&ns->ref);
	const struct loss *const l =
		damage_entry(d, atomic_load(&ns->parent), atomic_load(&ns->hash));
	char text[24];
	struct rec r;

	if (ref && journal_rec_pinned(d->db->j, ref, &r, NULL) == EMDB_OK && r.mask & REC_F_KEY) {
		put_name(b, r.key, r.key_len);
	} else if (l && l->named && l->id == ns->id) {
		put_name(b, loss_key(d, l), l->name_len);
	} else {
		(void)snprintf(text, sizeof(text), "#%" PRIu64, ns->id);
		put_back(b, text, strlen(text));
	}
}

void damage_path_pinned(const struct damage *d, uint64_t ns_id, const void *key, size_t len,
			char *buf, size_t size)
{
	struct back b = { buf + size - 1, buf };
	const struct ns *ns = ns_any_pinned(d->db, ns_id);

	*b.at = 0;
	if (key)
		put_name(&b, key, len);
	for (int i = 0; ns && ns != d->db->root && i < PATH_DEPTH_MAX; i++) {
		if (*b.at)
			put_back(&b, "/", 1);
		put_ns_name(d, &b, ns);
		ns = ns_any_pinned(d->db, atomic_load(&ns->parent));
	}
	memmove(buf, b.at, strlen(b.at) + 1);
}

/* One of the names of an object. */
static void path_of_big(const struct damage *d, uint64_t id, char *buf, size_t size)
{
	struct obj_view v;
	struct entry e;

	(void)snprintf(buf, size, "#%" PRIu64, id);
	if (!objtab_get_pinned(d->db, id, &v) || !v.big)
		return;
	for (uint32_t i = 0; i < 16; i++) {
		const emdb_err err = big_entry_pinned(d->db, id, v.big, i, &e);
		const struct loss *l;
		struct link link = { 0, 0 };

		if (!err) {
			damage_path_pinned(d, e.rec.ns, e.rec.key, e.rec.key_len, buf, size);
			return;
		}
		mutex_lock(&v.big->lock);
		if (i < v.big->nlinks)
			link = v.big->links[i];
		mutex_unlock(&v.big->lock);
		l = link.ns ? damage_entry(d, link.ns, link.hash) : NULL;
		if (l && l->named) {
			damage_path_pinned(d, l->ns, loss_key(d, l), l->name_len, buf, size);
			return;
		}
	}
}

static const char *what_of(uint8_t kind)
{
	return kind == REC_NS || kind == REC_DROP || kind == REC_CLEAR ? "namespace" : "entry";
}

static void tell_entry(const struct loss *l, const char *where, struct emdb_detail *ret)
{
	if (!l->named) {
		ret->damage = l->rec_kind == REC_PUT ? EMDB_DAMAGE_LOST : EMDB_DAMAGE_ADRIFT;
		(void)snprintf(ret->text, sizeof(ret->text),
			       "\"%.200s\": the name of one %s is lost%s (record at %s)", ret->path,
			       what_of(l->rec_kind),
			       l->rec_kind == REC_PUT ? ", and its value" : "", where);
		if (l->rec_kind == REC_PUT)
			ret->path[0] = 0;
		return;
	}
	ret->damage = l->rec_kind == REC_PUT ? EMDB_DAMAGE_LOST : EMDB_DAMAGE_META;
	(void)snprintf(ret->text, sizeof(ret->text), "\"%.300s\": %s (record at %s)", ret->path,
		       l->rec_kind == REC_PUT  ? "lost"
		       : l->rec_kind == REC_NS ? "the namespace's own record is damaged"
					       : "the record of this name is damaged",
		       where);
}

static void tell_doubt(const struct loss *l, const char *where, struct emdb_detail *ret)
{
	ret->damage = l->older ? EMDB_DAMAGE_OLDER : EMDB_DAMAGE_LOST;
	(void)snprintf(ret->text, sizeof(ret->text),
		       l->older ? "\"%.300s\": a later change is damaged, what is there is older "
				  "(record at %s)"
				: "\"%.300s\": lost, if its name is not damaged too (record at %s)",
		       ret->path, where);
}

static void tell_object(const struct loss *l, const char *where, struct emdb_detail *ret)
{
	const size_t n = sizeof(ret->text);

	switch (l->kind) {
	case LOSS_RANGE:
		ret->damage = EMDB_DAMAGE_RANGE;
		ret->from = l->off;
		ret->len = l->len;
		(void)snprintf(ret->text, n, "\"%.300s\": bytes %" PRIu64 "-%" PRIu64 " lost%s%s%s",
			       ret->path, l->off, l->off + l->len - 1,
			       ret->segment ? " (record at " : "", ret->segment ? where : "",
			       ret->segment ? ")" : "");
		return;
	case LOSS_META:
		ret->damage = EMDB_DAMAGE_META;
		(void)snprintf(ret->text, n, "\"%.300s\": %s lost", ret->path,
			       l->off ? "extended attributes"
				      : "mode, owner, times and attributes");
		return;
	case LOSS_STATE:
		ret->damage = EMDB_DAMAGE_OLDER;
		(void)snprintf(ret->text, n,
			       "\"%.300s\": a later change of this %s is damaged (record at %s)",
			       ret->path, what_of(l->rec_kind), where);
		return;
	case LOSS_ADRIFT_NS:
	case LOSS_ADRIFT_BIG:
	case LOSS_ENTRY:
	case LOSS_DOUBT:
		break;
	}
	ret->damage = EMDB_DAMAGE_ADRIFT;
	ret->len = l->len;
	(void)snprintf(ret->text, n, "#%" PRIu64 ": %s of %" PRIu64 " %s without a name", l->id,
		       l->kind == LOSS_ADRIFT_NS ? "a namespace" : "a file", l->len,
		       l->kind == LOSS_ADRIFT_NS ? "entries" : "bytes");
}

void damage_tell(const struct damage *d, const struct loss *l, struct emdb_detail *ret)
{
	const uint32_t shift = d->db->sb.segment_shift;
	const unsigned int pin = epoch_pin(&d->db->epoch);
	char where[80];

	memset(ret, 0, sizeof(*ret));
	ret->segment = l->lsn >> shift;
	ret->offset = l->lsn & ((UINT64_C(1) << shift) - 1);
	(void)snprintf(where, sizeof(where), "journal/%016" PRIx64 ".seg offset %" PRIu64,
		       ret->segment, ret->offset);
	if (l->kind == LOSS_ENTRY || l->kind == LOSS_DOUBT)
		damage_path_pinned(d, l->ns, l->named ? loss_key(d, l) : NULL, l->name_len,
				   ret->path, sizeof(ret->path));
	else if (l->kind == LOSS_STATE && ns_any_pinned(d->db, l->id))
		damage_path_pinned(d, l->id, NULL, 0, ret->path, sizeof(ret->path));
	else if (l->kind != LOSS_ADRIFT_NS && l->kind != LOSS_ADRIFT_BIG)
		path_of_big(d, l->id, ret->path, sizeof(ret->path));
	if (l->kind == LOSS_ENTRY)
		tell_entry(l, where, ret);
	else if (l->kind == LOSS_DOUBT)
		tell_doubt(l, where, ret);
	else
		tell_object(l, where, ret);
	epoch_unpin(&d->db->epoch, pin);
}
