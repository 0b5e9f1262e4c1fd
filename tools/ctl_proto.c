/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl_proto.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(CTL_PIECE_MAX == EMDB_SEGMENT_MIN / 2, "a piece fits into the smallest segment");
static_assert(CTL_BODY_MAX < UINT32_MAX, "a length has 32 bits");

struct op_form {
	const char *name, *fields[2]; /* of requests, of answers */
};

static const struct op_form forms[CTL_OP_END] = {
#define CTL_FORM(name, number, request, answer) [number] = { #name, { request, answer } },
	CTL_OPS(CTL_FORM)
#undef CTL_FORM
};

/* Answers that are errors. */
static const char error_fields[] = "s";

const char *ctl_op_name(unsigned int op)
{
	return op < CTL_OP_END ? forms[op].name : NULL;
}

/* NULL: there is no such operation. */
static const char *fields_of(enum ctl_side side, unsigned int op, emdb_err err)
{
	if (op >= CTL_OP_END || !forms[op].name)
		return NULL;
	return err ? error_fields : forms[op].fields[side];
}

/* ---- Little-endian ---- */

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	while (n-- > 0)
		v = v << 8 | p[n];
	return v;
}

/* ---- Buffers ---- */

void ctl_buf_release(struct ctl_buf *b)
{
	free(b->data);
	*b = (struct ctl_buf)CTL_BUF_INIT;
}

/* Room for n bytes more, which count as written; NULL: failed. */
static uint8_t *extend(struct ctl_buf *b, size_t n)
{
	const size_t limit = CTL_BODY_MAX + 4;
	size_t cap = b->cap ? b->cap : 1024;
	uint8_t *p;

	if (b->failed || n > limit - b->len) {
		b->failed = true;
		return NULL;
	}
	while (cap < b->len + n)
		cap *= 2;
	if (cap != b->cap) {
		p = realloc(b->data, cap);
		if (!p) {
			b->failed = true;
			return NULL;
		}
		b->data = p;
		b->cap = cap;
	}
	p = b->data + b->len;
	b->len += n;
	return p;
}

void ctl_put_num(struct ctl_buf *b, uint64_t v)
{
	uint8_t *const p = extend(b, 8);

	if (p)
		put_le(p, v, 8);
}

void ctl_put_str(struct ctl_buf *b, const void *s, size_t n)
{
	uint8_t *const p = n <= CTL_BODY_MAX ? extend(b, 4 + n) : NULL;

	if (!p) {
		b->failed = true;
		return;
	}
	put_le(p, n, 4);
	if (n)
		memcpy(p + 4, s, n);
}

void ctl_put_attr(struct ctl_buf *b, const struct emdb_attr *a)
{
	const uint64_t fields[CTL_ATTR_FIELDS] = {
		a->id,
		a->parent,
		a->size,
		a->blocks,
		a->mode,
		a->nlink,
		a->uid,
		a->gid,
		a->rdev,
		(uint64_t)a->atime_ns,
		(uint64_t)a->mtime_ns,
		(uint64_t)a->ctime_ns,
		(uint64_t)a->btime_ns,
		(uint64_t)a->expires_ms,
		a->lsn,
		0,
	};
	size_t i;

	for (i = 0; i < CTL_ATTR_FIELDS; i++)
		ctl_put_num(b, fields[i]);
}

/* ---- Messages ---- */

bool ctl_encode(struct ctl_buf *b, enum ctl_side side, const struct ctl_msg *m)
{
	const char *f = fields_of(side, m->op, m->err);
	size_t nums = 0, strs = 0;
	uint8_t *header;

	b->len = 0;
	b->failed = !f;
	header = extend(b, CTL_HEADER);
	for (; f && *f; f++) {
		if (*f == 'n')
			ctl_put_num(b, m->num[nums++]);
		else
			ctl_put_str(b, m->str[strs].p, m->str[strs].n), strs++;
	}
	if (!header || b->failed)
		return false;
	header = b->data; /* it may have moved */
	memset(header, 0, CTL_HEADER);
	put_le(header, b->len - 4, 4);
	header[4] = CTL_VERSION;
	header[5] = m->op;
	put_le(header + 8, (uint32_t)m->err, 4);
	return true;
}

bool ctl_parse_header(const uint8_t header[CTL_HEADER], size_t *ret_rest, unsigned int *ret_version)
{
	const uint64_t body = get_le(header, 4);

	*ret_version = header[4];
	if (header[4] != CTL_VERSION || body < CTL_BODY_MIN || body > CTL_BODY_MAX)
		return false;
	*ret_rest = (size_t)body - CTL_BODY_MIN;
	return true;
}

static bool decode_err(const uint8_t *p, enum ctl_side side, emdb_err *ret)
{
	const int32_t err = (int32_t)(uint32_t)get_le(p, 4);

	if (err > 0 || (side == CTL_REQUEST && err != 0))
		return false;
	/* A code that only a newer version has. */
	*ret = err > -(int32_t)EMDB_ERR_COUNT_ ? (emdb_err)err : EMDB_ERR_UNSUPPORTED;
	return true;
}

bool ctl_decode(const uint8_t *frame, size_t n, enum ctl_side side, struct ctl_msg *ret)
{
	struct ctl_msg m = { .op = 0 };
	size_t rest, nums = 0, strs = 0;
	struct ctl_cursor c;
	unsigned int version;
	const char *f;

	if (n < CTL_HEADER || !ctl_parse_header(frame, &rest, &version) || rest != n - CTL_HEADER ||
	    frame[6] != 0 || frame[7] != 0 || !decode_err(frame + 8, side, &m.err))
		return false;
	m.op = frame[5];
	f = fields_of(side, m.op, m.err);
	c = (struct ctl_cursor){ frame + CTL_HEADER, frame + n };
	for (; f && *f; f++) {
		if (*f == 'n') {
			if (!ctl_get_num(&c, &m.num[nums++]))
				return false;
			continue;
		}
		if (!ctl_get_str(&c, &m.str[strs]) || (*f == 'k' && m.str[strs].n > EMDB_KEY_MAX))
			return false;
		strs++;
	}
	if (!f || c.p != c.end)
		return false;
	*ret = m;
	return true;
}

/* ---- Fields inside a string ---- */

struct ctl_cursor ctl_cursor_of(const struct ctl_str *s)
{
	const uint8_t *const p = s->p;

	return (struct ctl_cursor){ p, p ? p + s->n : NULL };
}

bool ctl_get_num(struct ctl_cursor *c, uint64_t *ret)
{
	if ((size_t)(c->end - c->p) < 8)
		return false;
	*ret = get_le(c->p, 8);
	c->p += 8;
	return true;
}

bool ctl_get_str(struct ctl_cursor *c, struct ctl_str *ret)
{
	const size_t left = (size_t)(c->end - c->p);
	size_t n;

	if (left < 4)
		return false;
	n = (size_t)get_le(c->p, 4);
	if (n > left - 4)
		return false;
	*ret = (struct ctl_str){ c->p + 4, n };
	c->p += 4 + n;
	return true;
}

bool ctl_get_attr(const struct ctl_str *s, struct emdb_attr *ret)
{
	struct ctl_cursor c = ctl_cursor_of(s);
	uint64_t f[CTL_ATTR_FIELDS];
	size_t i;

	if (s->n != CTL_ATTR_SIZE)
		return false;
	for (i = 0; i < CTL_ATTR_FIELDS; i++)
		if (!ctl_get_num(&c, &f[i]))
			return false;
	*ret = (struct emdb_attr){
		.id = f[0],
		.parent = f[1],
		.size = f[2],
		.blocks = f[3],
		.mode = (uint32_t)f[4],
		.nlink = (uint32_t)f[5],
		.uid = (uint32_t)f[6],
		.gid = (uint32_t)f[7],
		.rdev = f[8],
		.atime_ns = (int64_t)f[9],
		.mtime_ns = (int64_t)f[10],
		.ctime_ns = (int64_t)f[11],
		.btime_ns = (int64_t)f[12],
		.expires_ms = (int64_t)f[13],
		.lsn = f[14],
	};
	return true;
}

void ctl_put_entry(struct ctl_buf *b, uint64_t next_pos, const void *key, size_t key_len,
		   const struct emdb_attr *attr)
{
	uint8_t *p;

	ctl_put_num(b, next_pos);
	ctl_put_str(b, key, key_len);
	p = extend(b, 4);
	if (!p)
		return;
	put_le(p, attr ? CTL_ATTR_SIZE : 0, 4);
	if (attr)
		ctl_put_attr(b, attr);
}

bool ctl_get_entry(struct ctl_cursor *c, struct ctl_entry *ret)
{
	struct ctl_str attr;

	if (!ctl_get_num(c, &ret->next_pos) || !ctl_get_str(c, &ret->key) || !ctl_get_str(c, &attr))
		return false;
	ret->damaged = attr.n == 0;
	return ret->damaged || ctl_get_attr(&attr, &ret->attr);
}

/* ---- STATS ---- */

#define STATS_NUMBERS(X)       \
	X(records)             \
	X(namespaces)          \
	X(objects)             \
	X(known)               \
	X(expiring)            \
	X(segments)            \
	X(segment_bytes)       \
	X(journal_bytes)       \
	X(preallocated_bytes)  \
	X(live_bytes)          \
	X(dead_bytes)          \
	X(index_bytes)         \
	X(tail_lsn)            \
	X(durable_lsn)         \
	X(appends)             \
	X(flushes)             \
	X(syncs)               \
	X(expired)             \
	X(replayed)            \
	X(open_us)             \
	X(torn_bytes)          \
	X(compactions)         \
	X(compacted_bytes)     \
	X(recycled)            \
	X(checkpoint_lsn)      \
	X(scrub_done_bytes)    \
	X(scrub_total_bytes)   \
	X(scrub_ended_ms)      \
	X(scrub_bytes)         \
	X(scrub_damaged)       \
	X(scrub_lost_entries)  \
	X(fs_total_bytes)      \
	X(fs_free_bytes)       \
	X(fs_avail_bytes)      \
	X(views)               \
	X(view_bytes)          \
	X(reclaimable_bytes)   \
	X(compact_done_bytes)  \
	X(compact_total_bytes) \
	X(flush_policy)        \
	X(verify)              \
	X(group_window_us)     \
	X(commit_interval_s)   \
	X(sweep_interval_ms)   \
	X(default_ttl_ms)      \
	X(compact_percent)     \
	X(compact_rate)        \
	X(compact_limit_bytes) \
	X(compact_state)
#define STATS_FLAGS(X)    \
	X(ordered)        \
	X(scrub_complete) \
	X(io_uring)       \
	X(read_only)      \
	X(failed)         \
	X(encrypted)      \
	X(low_space)      \
	X(damaged)

struct stats_field {
	const char *name;
	size_t offset;
};

static const struct stats_field stats_numbers[] = {
#define STATS_FIELD(field) { #field, offsetof(struct emdb_stats, field) },
	STATS_NUMBERS(STATS_FIELD)
};
static const struct stats_field stats_flags[] = { STATS_FLAGS(STATS_FIELD) };
#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* group_size has one name for each bucket: group_size_a, _b ... */
static const char group_name[] = "group_size_";

static void put_named(struct ctl_buf *b, const char *name, uint64_t v)
{
	ctl_put_str(b, name, strlen(name));
	ctl_put_num(b, v);
}

void ctl_put_stats(struct ctl_buf *b, const struct emdb_stats *stats)
{
	const char *const base = (const char *)stats;
	char name[sizeof(group_name) + 1];
	uint64_t v;
	bool flag;
	size_t i;

	for (i = 0; i < COUNT(stats_numbers); i++) {
		memcpy(&v, base + stats_numbers[i].offset, sizeof(v));
		put_named(b, stats_numbers[i].name, v);
	}
	for (i = 0; i < COUNT(stats_flags); i++) {
		memcpy(&flag, base + stats_flags[i].offset, sizeof(flag));
		put_named(b, stats_flags[i].name, flag);
	}
	memcpy(name, group_name, sizeof(group_name));
	for (i = 0; i < EMDB_GROUP_BUCKETS; i++) {
		name[sizeof(group_name) - 1] = (char)('a' + i);
		name[sizeof(group_name)] = '\0';
		put_named(b, name, stats->group_size[i]);
	}
}

static bool is_name(const struct ctl_str *s, const char *name)
{
	return s->n == strlen(name) && memcmp(s->p, name, s->n) == 0;
}

static void set_stat(struct emdb_stats *stats, const struct ctl_str *name, uint64_t v)
{
	const size_t head = sizeof(group_name) - 1;
	char *const base = (char *)stats;
	const bool flag = v != 0;
	size_t i;

	for (i = 0; i < COUNT(stats_numbers); i++)
		if (is_name(name, stats_numbers[i].name))
			memcpy(base + stats_numbers[i].offset, &v, sizeof(v));
	for (i = 0; i < COUNT(stats_flags); i++)
		if (is_name(name, stats_flags[i].name))
			memcpy(base + stats_flags[i].offset, &flag, sizeof(flag));
	if (name->n == head + 1 && memcmp(name->p, group_name, head) == 0) {
		i = (size_t)(((const uint8_t *)name->p)[head] - 'a');
		if (i < EMDB_GROUP_BUCKETS)
			stats->group_size[i] = v;
	}
}

bool ctl_get_stats(const struct ctl_str *s, struct emdb_stats *ret)
{
	struct emdb_stats stats = { .records = 0 };
	struct ctl_cursor c = ctl_cursor_of(s);
	struct ctl_str name;
	uint64_t v;

	while (c.p != c.end) {
		if (!ctl_get_str(&c, &name) || !ctl_get_num(&c, &v))
			return false;
		set_stat(&stats, &name, v);
	}
	*ret = stats;
	return true;
}
