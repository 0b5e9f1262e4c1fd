/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/virtual.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/tree.h"

/* Longest text of a deadline, a lifetime or a number. */
#define TEXT_MAX 64

struct value {
	char *data; /* malloc'd */
	size_t len;
};

/* attr is the object's; get returns ENODATA where it has none. */
struct virtual
{
	const char *name; /* after VIRTUAL_PREFIX */
	bool files, dirs; /* what has it */
	bool listed;
	bool slow;
	int (*get)(struct fs * fs, const struct emdb_attr *attr, struct value *ret);
	/* NULL: read-only.  value NULL: remove. */
	int (*set)(struct fs * fs, const struct emdb_attr *attr, const char *value, size_t len);
};

__attribute__((format(printf, 2, 3))) static int text(struct value *ret, const char *format, ...)
{
	va_list ap;
	int n;

	ret->data = malloc(TEXT_MAX);
	if (ret->data == NULL)
		return ENOMEM;
	va_start(ap, format);
	n = vsnprintf(ret->data, TEXT_MAX, format, ap);
	va_end(ap);
	ret->len = (size_t)n;
	return 0;
}

/* ---- Deadlines ---- */

/* Where the object is, to tell the kernel; "" when nowhere. */
struct place {
	uint64_t parent;
	char name[NAMES_MAX + 1];
};

static void find_place(struct fs *fs, uint64_t id, struct place *ret)
{
	void *key = malloc(EMDB_KEY_MAX);
	size_t len;

	ret->name[0] = '\0';
	if (key != NULL &&
	    emdb_node_key(fs->db, id, key, EMDB_KEY_MAX, &len, &ret->parent) == EMDB_OK)
		(void)names_from_key(key, len, fs_reserved(fs, ret->parent), ret->name);
	free(key);
}

/* Makes the kernel ask for the name again. */
static void forget_place(struct fs *fs, uint64_t id, const struct place *place)
{
	struct notify *n = atomic_load_explicit(&fs->notify, memory_order_acquire);

	if (n == NULL || place->name[0] == '\0')
		return;
	notify_changed(n, place->parent, id, place->name);
	notify_settle(n);
}

/*
 * The kernel keeps the name for as long as it was told when it looked it up;
 * now that is too long, or the name is gone.  When it goes at once, the store
 * has the deletion told too, which waits for our caller's lock on the file;
 * so the name is dealt with before.
 */
static int set_deadline(struct fs *fs, const struct emdb_attr *attr, int64_t expires_ms)
{
	const bool gone = expires_ms != 0 && expires_ms <= emdb_now_ms(fs->db);
	struct emdb_attr change = *attr;
	struct place place;
	emdb_err err;

	find_place(fs, attr->id, &place);
	if (gone)
		forget_place(fs, attr->id, &place);
	change.expires_ms = expires_ms;
	err = emdb_node_setattr(fs->db, attr->id, &change, EMDB_SET_EXPIRES, &change);
	if (err == EMDB_OK && !gone)
		forget_place(fs, attr->id, &place);
	return emdb_err_errno(err);
}

static int get_ttl(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	const int64_t left = attr->expires_ms - emdb_now_ms(fs->db);

	if (attr->expires_ms == 0)
		return ENODATA;
	return text(ret, "%" PRId64, left > 0 ? (left + 999) / 1000 : 0);
}

static int set_ttl(struct fs *fs, const struct emdb_attr *attr, const char *value, size_t len)
{
	int64_t at = EMDB_TTL_NEVER;

	if (value != NULL &&
	    emdb_ttl_parse(value, len, emdb_now_ms(fs->db), attr->expires_ms, &at) != EMDB_OK)
		return EINVAL;
	if (at == EMDB_TTL_NEVER)
		return set_deadline(fs, attr, 0);
	return set_deadline(fs, attr, at > 0 ? at : 1); /* 0 would mean never */
}

static int get_expires(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	const int64_t ms = attr->expires_ms;

	(void)fs;
	if (ms == 0)
		return ENODATA;
	if (ms % 1000 == 0)
		return text(ret, "%" PRId64, ms / 1000);
	return text(ret, "%" PRId64 ".%03d000000", ms / 1000, (int)(ms % 1000));
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Adds what follows the point, in ms, rounded up. */
static bool parse_fraction(const char *s, size_t len, int64_t *ms)
{
	int64_t unit = 100;
	bool rest = false;

	if (len == 0 || len > 9)
		return false;
	for (size_t i = 0; i < len; i++, unit /= 10) {
		if (s[i] < '0' || s[i] > '9' ||
		    __builtin_add_overflow(*ms, unit * (s[i] - '0'), ms))
			return false;
		rest = rest || (unit == 0 && s[i] != '0');
	}
	return !__builtin_add_overflow(*ms, rest, ms);
}

/* secs[.nsecs], with a NUL and white space around it as shells leave them. */
static bool parse_expires(const char *s, size_t len, int64_t *ret)
{
	int64_t ms = 0;
	size_t i = 0;

	if (len > 0 && s[len - 1] == '\0')
		len--;
	while (len > 0 && is_space(s[len - 1]))
		len--;
	for (; len > 0 && is_space(*s); len--)
		s++;
	for (; i < len && s[i] >= '0' && s[i] <= '9'; i++)
		if (__builtin_mul_overflow(ms, 10, &ms) ||
		    __builtin_add_overflow(ms, s[i] - '0', &ms))
			return false;
	if (i == 0 || __builtin_mul_overflow(ms, 1000, &ms))
		return false;
	if (i < len && (s[i] != '.' || !parse_fraction(s + i + 1, len - i - 1, &ms)))
		return false;
	*ret = ms;
	return true;
}

static int set_expires(struct fs *fs, const struct emdb_attr *attr, const char *value, size_t len)
{
	int64_t at = 0;

	if (value == NULL)
		return set_deadline(fs, attr, 0);
	if (!parse_expires(value, len, &at))
		return EINVAL;
	return set_deadline(fs, attr, at > 0 ? at : 1);
}

/* ---- What a directory passes on ---- */

static int get_default(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	int64_t ms;
	const emdb_err err = emdb_ns_ttl_get(fs->db, attr->id, &ms);

	if (err != EMDB_OK)
		return emdb_err_errno(err);
	if (ms == 0)
		return ENODATA;
	return text(ret, ms % 1000 == 0 ? "%" PRId64 : "%" PRId64 "ms",
		    ms % 1000 == 0 ? ms / 1000 : ms);
}

static int set_default(struct fs *fs, const struct emdb_attr *attr, const char *value, size_t len)
{
	int64_t ms = 0;

	if (value != NULL && (emdb_duration_parse(value, len, &ms) != EMDB_OK || ms < 0))
		return EINVAL;
	return emdb_err_errno(emdb_ns_ttl_set(fs->db, attr->id, ms));
}

static int get_basis(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	enum emdb_ttl_basis basis;
	const emdb_err err = emdb_ns_basis_get(fs->db, attr->id, &basis);

	if (err != EMDB_OK)
		return emdb_err_errno(err);
	return text(ret, "%s", basis == EMDB_BASIS_MODIFY ? "modify" : "create");
}

static int set_basis(struct fs *fs, const struct emdb_attr *attr, const char *value, size_t len)
{
	enum emdb_ttl_basis basis = EMDB_BASIS_CREATE;

	if (value != NULL && len == 6 && memcmp(value, "modify", 6) == 0)
		basis = EMDB_BASIS_MODIFY;
	else if (value != NULL && (len != 6 || memcmp(value, "create", 6) != 0))
		return EINVAL;
	return emdb_err_errno(emdb_ns_basis_set(fs->db, attr->id, basis));
}

/* ---- What can only be read ---- */

static int get_key(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	char *key;
	emdb_err err;

	if (attr->id == EMDB_ROOT)
		return ENODATA;
	key = malloc(EMDB_KEY_MAX);
	if (key == NULL)
		return ENOMEM;
	err = emdb_node_key(fs->db, attr->id, key, EMDB_KEY_MAX, &ret->len, NULL);
	if (err != EMDB_OK) {
		free(key);
		return err == EMDB_ERR_NOT_FOUND ? ENODATA : emdb_err_errno(err);
	}
	ret->data = key;
	return 0;
}

static int get_lsn(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	(void)fs;
	return text(ret, "%" PRIu64, attr->lsn);
}

static int get_snap_btime(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	const int64_t ns = fs->snap_btime_ns; /* none is older than 1970 */

	(void)attr;
	if (ns == 0)
		return ENODATA;
	return text(ret, "%" PRId64 ".%09d", ns / 1000000000, (int)(ns % 1000000000));
}

static int get_rfiles(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	struct tree_total total;
	const int err = tree_total(fs, attr->id, &total);

	return err != 0 ? err : text(ret, "%" PRIu64, total.files);
}

static int get_rbytes(struct fs *fs, const struct emdb_attr *attr, struct value *ret)
{
	struct tree_total total;
	const int err = tree_total(fs, attr->id, &total);

	return err != 0 ? err : text(ret, "%" PRIu64, total.bytes);
}

/* ---- The table ---- */

static const struct virtual table[] = {
	{ "ttl", true, false, false, false, get_ttl, set_ttl },
	{ "expires", true, false, true, false, get_expires, set_expires },
	{ "ttl.default", false, true, true, false, get_default, set_default },
	{ "ttl.basis", false, true, true, false, get_basis, set_basis },
	{ "key", true, true, false, false, get_key, NULL },
	{ "lsn", true, true, false, false, get_lsn, NULL },
	{ "snap.btime", true, true, false, false, get_snap_btime, NULL },
	{ "rfiles", false, true, false, true, get_rfiles, NULL },
	{ "rbytes", false, true, false, true, get_rbytes, NULL },
};
#define TABLE_SIZE (sizeof(table) / sizeof(table[0]))

bool virtual_find(const char *name, const struct virtual **ret)
{
	const size_t prefix = sizeof(VIRTUAL_PREFIX) - 1;

	if (strncmp(name, VIRTUAL_PREFIX, prefix) != 0)
		return false;
	*ret = NULL;
	for (size_t i = 0; i < TABLE_SIZE; i++)
		if (strcmp(table[i].name, name + prefix) == 0)
			*ret = &table[i];
	return true;
}

bool virtual_is_slow(const struct virtual *v)
{
	return v->slow;
}

static bool has(const struct virtual *v, const struct emdb_attr *attr)
{
	return S_ISDIR(attr->mode) ? v->dirs : v->files;
}

int virtual_get(struct fs *fs, const struct virtual *v, uint64_t id, void **ret, size_t *ret_len)
{
	struct value value = { NULL, 0 };
	struct emdb_attr attr;
	const emdb_err err = emdb_node_getattr(fs->db, id, &attr);
	int code;

	if (err != EMDB_OK)
		return emdb_err_errno(err);
	if (!has(v, &attr))
		return ENODATA;
	code = v->get(fs, &attr, &value);
	if (code == 0) {
		*ret = value.data;
		*ret_len = value.len;
	}
	return code;
}

int virtual_set(struct fs *fs, const struct virtual *v, uint64_t id, const char *value, size_t len)
{
	struct emdb_attr attr;
	emdb_err err;

	if (v->set == NULL)
		return EPERM;
	err = emdb_node_getattr(fs->db, id, &attr);
	if (err != EMDB_OK)
		return emdb_err_errno(err);
	if (!has(v, &attr))
		return S_ISDIR(attr.mode) ? EISDIR : ENOTDIR;
	return v->set(fs, &attr, value, len);
}

/* True if a copy without it would not be the same. */
static bool matters(struct fs *fs, const struct virtual *v, const struct emdb_attr *attr)
{
	struct value value = { NULL, 0 };
	bool yes;

	if (!v->listed || !has(v, attr) || v->get(fs, attr, &value) != 0)
		return false;
	yes = v->set != set_basis || memcmp(value.data, "create", 6) != 0;
	free(value.data);
	return yes;
}

size_t virtual_list(struct fs *fs, uint64_t id, char buf[VIRTUAL_LIST_MAX])
{
	struct emdb_attr attr;
	size_t used = 0;

	if (emdb_node_getattr(fs->db, id, &attr) != EMDB_OK)
		return 0;
	for (size_t i = 0; i < TABLE_SIZE; i++) {
		int n;

		if (!matters(fs, &table[i], &attr))
			continue;
		n = snprintf(buf + used, VIRTUAL_LIST_MAX - used, VIRTUAL_PREFIX "%s",
			     table[i].name);
		used += (size_t)n + 1;
	}
	return used;
}
