/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/control_ops.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/snapdir.h"
#include "tools/install.h"

static_assert(sizeof(((struct control_client *)0)->remark) ==
		      sizeof(((struct emdb_detail *)0)->text),
	      "a remark is a detail's text");

/* ---- Telling the kernel ---- */

/* A name before and after a change; both are held, so that their ids mean them. */
struct change {
	struct control_client *cl;
	uint64_t ns;
	struct ctl_str key;
	struct emdb_attr before, after;
	bool was, is;
};

static void change_begin(struct change *c, struct control_client *cl, uint64_t ns,
			 const struct ctl_str *key)
{
	*c = (struct change){ .cl = cl, .ns = ns, .key = *key };
	c->was = emdb_node_lookup(cl->fs->db, ns, key->p, key->n, &c->before) == EMDB_OK;
}

/*
 * The name first: it takes the directory's lock, so that whoever was listing or
 * looking up meanwhile has put what he got into the caches, and it can be
 * taken out of them.
 */
static void change_tell(const struct change *c, struct notify *n)
{
	const uint64_t child = c->is ? c->after.id : c->before.id;
	char name[NAMES_MAX + 1];

	(void)names_from_key(c->key.p, c->key.n, fs_reserved(c->cl->fs, c->ns), name);
	if (c->was && !c->is)
		notify_deleted(n, c->ns, c->before.id, name);
	notify_changed(n, c->ns, child, name);
	if (c->was)
		notify_content(n, c->before.id);
	if (c->is && (!c->was || c->after.id != c->before.id))
		notify_content(n, c->after.id);
	notify_content(n, c->ns);
	notify_wait(n);
}

/* Also after a failure: there may have been a change all the same. */
static void change_end(struct change *c)
{
	struct fs *fs = c->cl->fs;
	struct notify *n = atomic_load_explicit(&fs->notify, memory_order_acquire);

	c->is = emdb_node_lookup(fs->db, c->ns, c->key.p, c->key.n, &c->after) == EMDB_OK;
	if (n != NULL && (c->was || c->is))
		change_tell(c, n);
	if (c->was)
		emdb_node_forget(fs->db, c->before.id, 1);
	if (c->is)
		emdb_node_forget(fs->db, c->after.id, 1);
}

/* ---- Names and values ---- */

static emdb_err do_hello(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	(void)rq;
	emdb_uuid(cl->fs->db, cl->uuid);
	an->num[0] = (uint64_t)getpid();
	an->str[0] = (struct ctl_str){ cl->uuid, sizeof(cl->uuid) };
	an->str[1] = (struct ctl_str){ cl->mountpoint, strlen(cl->mountpoint) };
	return EMDB_OK;
}

static emdb_err do_ns_open(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	return emdb_ns_open(cl->fs->db, rq->num[0], rq->str[0].p, rq->str[0].n, &an->num[0]);
}

static emdb_err do_ns_create(struct control_client *cl, const struct ctl_msg *rq,
			     struct ctl_msg *an)
{
	struct change c;
	emdb_err err;

	change_begin(&c, cl, rq->num[0], &rq->str[0]);
	err = emdb_ns_create(cl->fs->db, c.ns, c.key.p, c.key.n, &an->num[0]);
	change_end(&c);
	return err;
}

static emdb_err do_ns_drop(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct change c;
	emdb_err err;

	(void)an;
	change_begin(&c, cl, rq->num[0], &rq->str[0]);
	err = emdb_ns_drop(cl->fs->db, c.ns, c.key.p, c.key.n, rq->num[1] != 0);
	change_end(&c);
	return err;
}

static emdb_err put_attr(struct control_client *cl, const struct emdb_attr *attr,
			 struct ctl_msg *an)
{
	ctl_put_attr(&cl->fields, attr);
	an->str[0] = (struct ctl_str){ cl->fields.data, cl->fields.len };
	return cl->fields.failed ? EMDB_ERR_NOMEM : EMDB_OK;
}

static emdb_err do_lookup(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct emdb_attr attr;
	const emdb_err err =
		emdb_node_lookup(cl->fs->db, rq->num[0], rq->str[0].p, rq->str[0].n, &attr);

	if (err != EMDB_OK)
		return err;
	emdb_node_forget(cl->fs->db, attr.id, 1);
	return put_attr(cl, &attr, an);
}

static bool list_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		       uint64_t next_pos)
{
	struct control_client *cl = ctx;

	if (cl->fields.len > 0 && cl->fields.len + CTL_ENTRY_SIZE(key_len) > CONTROL_LIST_BYTES)
		return false;
	ctl_put_entry(&cl->fields, next_pos, key, key_len, attr);
	return !cl->fields.failed;
}

/* No entries: the end. */
static emdb_err do_list(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	const emdb_err err =
		emdb_node_readdir(cl->fs->db, rq->num[0], rq->num[1], 0, list_entry, cl);

	if (err != EMDB_OK)
		return err;
	an->num[0] = cl->fields.len > 0;
	an->str[0] = (struct ctl_str){ cl->fields.data, cl->fields.len };
	return cl->fields.failed ? EMDB_ERR_NOMEM : EMDB_OK;
}

static emdb_err do_put(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct change c;
	emdb_err err;

	(void)an;
	change_begin(&c, cl, rq->num[0], &rq->str[0]);
	err = emdb_put(cl->fs->db, c.ns, c.key.p, c.key.n, rq->str[1].p, rq->str[1].n,
		       (int64_t)rq->num[1]);
	change_end(&c);
	return err;
}

static emdb_err do_remove(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct change c;
	emdb_err err;

	(void)an;
	change_begin(&c, cl, rq->num[0], &rq->str[0]);
	err = emdb_remove(cl->fs->db, c.ns, c.key.p, c.key.n, NULL, NULL);
	change_end(&c);
	return err;
}

/* ---- Large values ---- */

static void close_value(struct control_client *cl)
{
	if (cl->open != 0)
		emdb_node_forget(cl->fs->db, cl->open, 1);
	cl->open = 0;
	cl->made = false;
}

static emdb_err do_close(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	(void)rq;
	(void)an;
	close_value(cl);
	return EMDB_OK;
}

static emdb_err do_open(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct emdb_attr attr;
	emdb_err err;

	close_value(cl);
	err = emdb_node_lookup(cl->fs->db, rq->num[0], rq->str[0].p, rq->str[0].n, &attr);
	if (err != EMDB_OK)
		return err;
	cl->open = attr.id;
	if (!S_ISDIR(attr.mode))
		return put_attr(cl, &attr, an);
	close_value(cl);
	return EMDB_ERR_IS_NS;
}

static emdb_err do_read(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	const size_t want = rq->num[1] < CTL_PIECE_MAX ? (size_t)rq->num[1] : CTL_PIECE_MAX;
	size_t len = 0;
	emdb_err err;

	if (cl->open == 0 || cl->made)
		return EMDB_ERR_INVAL;
	if (cl->piece == NULL)
		cl->piece = malloc(CTL_PIECE_MAX);
	if (cl->piece == NULL)
		return EMDB_ERR_NOMEM;
	err = emdb_node_read(cl->fs->db, cl->open, rq->num[0], cl->piece, want, &len);
	an->str[0] = (struct ctl_str){ cl->piece, len };
	return err;
}

static emdb_err do_create(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	emdb_err err;

	(void)an;
	close_value(cl);
	err = install_begin(cl->fs->db, rq->num[0], &cl->open);
	cl->made = err == EMDB_OK;
	return err;
}

static emdb_err do_write(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	(void)an;
	if (!cl->made)
		return EMDB_ERR_INVAL;
	return emdb_node_write(cl->fs->db, cl->open, rq->num[0], rq->str[0].p, rq->str[0].n, 0);
}

/* A listing may have caught the name that the object had for a moment. */
static void forget_temp(struct control_client *cl, uint64_t ns)
{
	struct notify *n = atomic_load_explicit(&cl->fs->notify, memory_order_acquire);
	char temp[INSTALL_TEMP_SIZE];

	(void)install_temp_name(cl->open, temp);
	if (n != NULL)
		notify_changed(n, ns, cl->open, temp);
}

static emdb_err do_install(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct change c;
	emdb_err err;

	(void)an;
	if (!cl->made)
		return EMDB_ERR_INVAL;
	change_begin(&c, cl, rq->num[0], &rq->str[0]);
	err = install_commit(cl->fs->db, cl->open, c.ns, c.key.p, c.key.n, (int64_t)rq->num[1]);
	if (c.was)
		forget_temp(cl, c.ns);
	change_end(&c);
	close_value(cl);
	return err;
}

/* ---- Time to live ---- */

static emdb_err do_ttl_get(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	int64_t expires_ms = 0;
	const emdb_err err =
		emdb_ttl_get(cl->fs->db, rq->num[0], rq->str[0].p, rq->str[0].n, &expires_ms);

	an->num[0] = (uint64_t)expires_ms;
	return err;
}

static emdb_err do_ttl_set(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct change c;
	emdb_err err;

	(void)an;
	change_begin(&c, cl, rq->num[0], &rq->str[0]);
	err = emdb_ttl_set(cl->fs->db, c.ns, c.key.p, c.key.n, (int64_t)rq->num[1]);
	change_end(&c);
	return err;
}

static emdb_err do_ns_ttl_get(struct control_client *cl, const struct ctl_msg *rq,
			      struct ctl_msg *an)
{
	int64_t default_ms = 0;
	const emdb_err err = emdb_ns_ttl_get(cl->fs->db, rq->num[0], &default_ms);

	an->num[0] = (uint64_t)default_ms;
	return err;
}

static emdb_err do_ns_ttl_set(struct control_client *cl, const struct ctl_msg *rq,
			      struct ctl_msg *an)
{
	struct notify *n = atomic_load_explicit(&cl->fs->notify, memory_order_acquire);
	const emdb_err err = emdb_ns_ttl_set(cl->fs->db, rq->num[0], (int64_t)rq->num[1]);

	(void)an;
	if (err != EMDB_OK || n == NULL)
		return err;
	notify_content(n, rq->num[0]);
	notify_wait(n);
	return err;
}

/* ---- The store ---- */

/* Those who went are told of by the hook that the sweeper has. */
static emdb_err do_sweep(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct notify *n = atomic_load_explicit(&cl->fs->notify, memory_order_acquire);
	const emdb_err err = emdb_sweep(cl->fs->db, &an->num[0]);

	(void)rq;
	if (n != NULL)
		notify_wait(n);
	return err;
}

static emdb_err do_stats(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct emdb_stats stats;
	const emdb_err err = emdb_stats_get(cl->fs->db, &stats);

	(void)rq;
	if (err != EMDB_OK)
		return err;
	ctl_put_stats(&cl->fields, &stats);
	an->str[0] = (struct ctl_str){ cl->fields.data, cl->fields.len };
	return cl->fields.failed ? EMDB_ERR_NOMEM : EMDB_OK;
}

static uint64_t load(_Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static bool put_counter(struct ctl_buf *b, enum counter_op op, struct counter *c)
{
	struct ctl_buf buckets = CTL_BUF_INIT;
	const char *name = counters_name(op);

	for (int i = 0; i < COUNTERS_BUCKETS; i++)
		ctl_put_num(&buckets, load(&c->buckets[i]));
	ctl_put_str(b, name, strlen(name));
	ctl_put_num(b, load(&c->calls));
	ctl_put_num(b, load(&c->ns_total));
	ctl_put_str(b, buckets.data, buckets.len);
	b->failed = b->failed || buckets.failed;
	ctl_buf_release(&buckets);
	return !b->failed;
}

static emdb_err do_counters(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	bool ok = true;

	(void)rq;
	for (int i = 0; ok && i < COUNT_MAX; i++)
		ok = put_counter(&cl->fields, (enum counter_op)i, &cl->fs->counters.op[i]);
	an->num[0] = atomic_load_explicit(&cl->fs->over_uring, memory_order_relaxed);
	an->str[0] = (struct ctl_str){ cl->fields.data, cl->fields.len };
	return ok ? EMDB_OK : EMDB_ERR_NOMEM;
}

static emdb_err do_flush(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	(void)rq;
	(void)an;
	return emdb_flush(cl->fs->db);
}

static emdb_err do_checkpoint(struct control_client *cl, const struct ctl_msg *rq,
			      struct ctl_msg *an)
{
	(void)rq;
	(void)an;
	return emdb_checkpoint(cl->fs->db);
}

/* ---- What takes long ---- */

/* Between two answers that say how far it is, ns. */
#define TELL_NS UINT64_C(100000000)

static emdb_err do_progress(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	(void)rq;
	(void)an;
	cl->telling = true;
	return EMDB_OK;
}

static bool go_on(struct control_client *cl, uint64_t done, uint64_t total)
{
	const struct ctl_msg m = { .op = CTL_PROGRESS, .num = { done, total } };
	const uint64_t now = cl->telling ? counters_now() : 0;

	if (cl->telling && now - cl->told_ns >= TELL_NS) {
		cl->told_ns = now;
		cl->telling = cl->tell(cl->tell_ctx, &m);
	}
	return cl->wanted(cl->wanted_ctx);
}

static bool compact_progress(void *ctx, const struct emdb_compact_progress *p)
{
	return go_on(ctx, p->done_bytes, p->total_bytes);
}

static emdb_err do_compact(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	const struct emdb_compact_options opts = {
		.size = sizeof(opts),
		.min_dead_percent = rq->num[0] < 100 ? (uint32_t)rq->num[0] : 100,
		.bytes_per_second = rq->num[1],
		.progress = compact_progress,
		.ctx = cl,
	};
	struct emdb_compact_progress done = { .segments = 0 };
	const emdb_err err = emdb_compact(cl->fs->db, &opts, &done);

	an->num[0] = done.segments;
	an->num[1] = done.segments_done;
	an->num[2] = done.copied_bytes;
	an->num[3] = done.freed_bytes;
	return err;
}

struct scrub_talk {
	struct control_client *cl;
	uint64_t told_ns;
	bool silent; /* nobody listens */
};

static void scrub_tell(struct scrub_talk *t, const struct ctl_msg *answer)
{
	t->silent = t->silent || !t->cl->tell(t->cl->tell_ctx, answer);
}

static bool scrub_progress(void *ctx, uint64_t done, uint64_t total)
{
	const struct ctl_msg m = { .op = CTL_SCRUB, .num = { CTL_SCRUB_PROGRESS, done, total } };
	struct scrub_talk *t = ctx;
	const uint64_t now = counters_now();

	if (now - t->told_ns >= TELL_NS) {
		t->told_ns = now;
		scrub_tell(t, &m);
	}
	return !t->silent && t->cl->wanted(t->cl->wanted_ctx);
}

static void scrub_found(void *ctx, const struct emdb_detail *d)
{
	const struct ctl_msg m = {
		.op = CTL_SCRUB,
		.num = { CTL_SCRUB_FOUND, d->segment, d->offset, d->damage, d->from, d->len },
		.str = { { d->text, strlen(d->text) }, { d->path, strlen(d->path) } },
	};

	scrub_tell(ctx, &m);
}

/* Damage is what it is for, not a failure: the last answer says how much there is. */
static emdb_err do_scrub(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct scrub_talk talk = { .cl = cl };
	const struct emdb_scrub_options opts = {
		.size = sizeof(opts),
		.bytes_per_second = rq->num[0],
		.progress = scrub_progress,
		.progress_ctx = &talk,
		.found = scrub_found,
		.found_ctx = &talk,
	};
	struct emdb_scrub_report r = { .complete = false };
	const emdb_err err = emdb_scrub(cl->fs->db, &opts, &r);

	an->num[0] = CTL_SCRUB_DONE;
	an->num[1] = r.bytes;
	an->num[2] = r.frames;
	an->num[3] = r.cached_bytes;
	an->num[4] = r.damaged;
	an->num[5] = r.damaged_bytes;
	an->num[6] = r.lost_entries;
	an->num[7] = r.skipped_bytes;
	return err == EMDB_ERR_CORRUPT ? EMDB_OK : err;
}

/* A string without NUL; free with free().  NULL: out of memory, or there is one in it. */
static char *text_of(const struct ctl_str *s)
{
	return s->n == 0 || memchr(s->p, '\0', s->n) == NULL ? strndup(s->n ? s->p : "", s->n)
							     : NULL;
}

static emdb_err do_snap_create(struct control_client *cl, const struct ctl_msg *rq,
			       struct ctl_msg *an)
{
	char *name = text_of(&rq->str[0]);
	struct emdb_snapshot made = { .number = 0 };
	const emdb_err err = name ? emdb_snapshot_create(cl->fs->db, name, &made) : EMDB_ERR_INVAL;

	if (err == EMDB_OK)
		snapdir_created(cl->fs);
	free(name);
	an->num[0] = made.number;
	an->num[1] = (uint64_t)made.created_ns;
	an->num[2] = made.bytes;
	an->num[3] = made.lsn;
	return err;
}

static emdb_err do_snap_delete(struct control_client *cl, const struct ctl_msg *rq,
			       struct ctl_msg *an)
{
	char *name = text_of(&rq->str[0]);
	const emdb_err err = name ? emdb_snapshot_delete(cl->fs->db, name) : EMDB_ERR_INVAL;

	if (err == EMDB_OK)
		snapdir_removed(cl->fs, name);
	(void)an;
	free(name);
	return err;
}

static emdb_err do_snap_rename(struct control_client *cl, const struct ctl_msg *rq,
			       struct ctl_msg *an)
{
	char *from = text_of(&rq->str[0]), *to = text_of(&rq->str[1]);
	const emdb_err err =
		from && to ? emdb_snapshot_rename(cl->fs->db, from, to) : EMDB_ERR_INVAL;

	if (err == EMDB_OK)
		snapdir_renamed(cl->fs, from, to);
	(void)an;
	free(from);
	free(to);
	return err;
}

static bool backup_progress(void *ctx, uint64_t done, uint64_t total)
{
	return go_on(ctx, done, total);
}

/* Written with our rights; a relative path would mean our directory. */
static emdb_err do_backup(struct control_client *cl, const struct ctl_msg *rq, struct ctl_msg *an)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_backup_options opts = {
		.size = sizeof(opts),
		.flags = (unsigned int)rq->num[0],
		.progress = backup_progress,
		.progress_ctx = cl,
		.detail = &detail,
	};
	struct emdb_backup_report r = { .lsn = 0 };
	char *target = text_of(&rq->str[0]);
	emdb_err err = EMDB_ERR_INVAL;

	if (target && target[0] == '/')
		err = emdb_backup(cl->fs->db, target, &opts, &r);
	free(target);
	memcpy(cl->remark, detail.text, sizeof(cl->remark));
	an->num[0] = r.incremental;
	an->num[1] = (uint64_t)r.created_ns;
	an->num[2] = r.lsn;
	an->num[3] = r.segments;
	an->num[4] = r.bytes;
	an->num[5] = r.copied;
	an->num[6] = r.shared;
	an->num[7] = r.copied_bytes;
	return err;
}

/* ---- The table ---- */

typedef emdb_err (*control_fn)(struct control_client *cl, const struct ctl_msg *rq,
			       struct ctl_msg *an);

static const control_fn functions[CTL_OP_END] = {
	[CTL_HELLO] = do_hello,
	[CTL_NS_OPEN] = do_ns_open,
	[CTL_NS_CREATE] = do_ns_create,
	[CTL_NS_DROP] = do_ns_drop,
	[CTL_LOOKUP] = do_lookup,
	[CTL_LIST] = do_list,
	[CTL_PUT] = do_put,
	[CTL_REMOVE] = do_remove,
	[CTL_OPEN] = do_open,
	[CTL_READ] = do_read,
	[CTL_CREATE] = do_create,
	[CTL_WRITE] = do_write,
	[CTL_INSTALL] = do_install,
	[CTL_CLOSE] = do_close,
	[CTL_TTL_GET] = do_ttl_get,
	[CTL_TTL_SET] = do_ttl_set,
	[CTL_NS_TTL_GET] = do_ns_ttl_get,
	[CTL_NS_TTL_SET] = do_ns_ttl_set,
	[CTL_SWEEP] = do_sweep,
	[CTL_STATS] = do_stats,
	[CTL_COUNTERS] = do_counters,
	[CTL_FLUSH] = do_flush,
	[CTL_CHECKPOINT] = do_checkpoint,
	[CTL_COMPACT] = do_compact,
	[CTL_SCRUB] = do_scrub,
	[CTL_SNAP_CREATE] = do_snap_create,
	[CTL_SNAP_DELETE] = do_snap_delete,
	[CTL_SNAP_RENAME] = do_snap_rename,
	[CTL_BACKUP] = do_backup,
	[CTL_PROGRESS] = do_progress,
};

void control_answer(struct control_client *cl, const struct ctl_msg *request, struct ctl_msg *ret)
{
	const control_fn fn = request->op < CTL_OP_END ? functions[request->op] : NULL;

	*ret = (struct ctl_msg){ .op = request->op };
	cl->remark[0] = '\0';
	cl->fields.len = 0;
	cl->fields.failed = false;
	ret->err = fn != NULL ? fn(cl, request, ret) : EMDB_ERR_UNSUPPORTED;
	if (ret->err != EMDB_OK)
		ret->str[0] = (struct ctl_str){ cl->remark, strlen(cl->remark) };
}

void control_client_release(struct control_client *cl)
{
	close_value(cl);
	ctl_buf_release(&cl->fields);
	free(cl->piece);
	cl->piece = NULL;
}
