/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/ctl.h"
#include "tools/install.h"

/* How long a daemon that is starting or closing may take to let us in, ms. */
#define PATIENCE_MS 10000
#define RETRY_MS    20

struct store {
	emdb_db *db;     /* NULL: ask ctl */
	struct ctl *ctl; /* NULL: db is open */
	char *dir;       /* of the store */
	bool changed;    /* through ctl */
	uint64_t value;  /* the open object in db, 0: none */
};

/* ---- Opening ---- */

char *store_directory(const char *path)
{
	char *const store = ctl_store_of_mount(path);

	return store ? store : strdup(path);
}

/* True if the process is a daemon of ours: it may be about to listen, or to close the store. */
static bool is_daemon(int64_t pid)
{
	char path[64], name[32] = "";
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return errno == ENOENT;
	n = read(fd, name, sizeof(name) - 1);
	(void)close(fd);
	return n > 0 && strncmp(name, "emdbfs", 6) == 0;
}

/*
 * Locked, and nobody listens: a daemon is between the two when it starts and
 * when it ends.  One that only reads never listens; it is the only one that
 * holds a store for long without.
 */
static bool is_worth_waiting(const char *dir)
{
	struct emdb_lock_info info;

	if (emdb_lock_holder(dir, &info))
		return false;
	return !info.held || (is_daemon(info.pid) && !ctl_is_mounted(dir));
}

char *store_at_rest(const char *path)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	char *const dir = store_directory(path);
	struct emdb_lock_info info;

	if (!dir)
		return NULL;
	for (int waited = 0; waited < PATIENCE_MS; waited += RETRY_MS) {
		if (emdb_lock_holder(dir, &info) || !info.held || !is_worth_waiting(dir))
			break;
		(void)nanosleep(&pause, NULL);
	}
	return dir;
}

static emdb_err open_once(const char *dir, const struct emdb_options *options, struct store *s,
			  bool *ret_again)
{
	emdb_err err = emdb_open(dir, options, &s->db), link;

	*ret_again = false;
	if (err != EMDB_ERR_LOCKED)
		return err;
	link = ctl_connect(dir, &s->ctl);
	if (link != EMDB_ERR_NOT_FOUND)
		return link;
	*ret_again = is_worth_waiting(dir);
	return err;
}

emdb_err store_open(const char *path, const struct emdb_options *options, struct store **ret)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	struct store *const s = calloc(1, sizeof(*s));
	char *const dir = store_directory(path);
	emdb_err err = EMDB_ERR_NOMEM;
	bool again = false;
	int waited;

	if (!s || !dir)
		goto out;
	err = open_once(dir, options, s, &again);
	for (waited = 0; err && again && waited < PATIENCE_MS; waited += RETRY_MS) {
		(void)nanosleep(&pause, NULL);
		err = open_once(dir, options, s, &again);
	}
out:
	if (err) {
		free(dir);
		free(s);
	} else {
		s->dir = dir;
		*ret = s;
	}
	return err;
}

emdb_err store_close(struct store *s)
{
	emdb_err err = EMDB_OK;

	if (!s)
		return EMDB_OK;
	store_value_close(s);
	if (s->db)
		err = emdb_close(s->db);
	else if (s->changed)
		err = store_flush(s);
	ctl_close(s->ctl);
	free(s->dir);
	free(s);
	return err;
}

const char *store_remark(const struct store *s)
{
	return s->ctl && s->ctl->lost ? "the daemon that serves the store went away" : "";
}

int64_t store_served_by(const struct store *s)
{
	return s->ctl ? s->ctl->pid : 0;
}

/* ---- Asking ---- */

static struct ctl_msg on_key(enum ctl_op op, uint64_t ns, const void *key, size_t n)
{
	return (struct ctl_msg){ .op = (uint8_t)op, .num = { ns }, .str = { { key, n } } };
}

/* An answer without fields that matter. */
static emdb_err ask(struct store *s, const struct ctl_msg *request)
{
	struct ctl_msg answer;

	return ctl_call(s->ctl, request, &answer);
}

static emdb_err ask_num(struct store *s, const struct ctl_msg *request, uint64_t *ret)
{
	struct ctl_msg answer;
	const emdb_err err = ctl_call(s->ctl, request, &answer);

	if (!err)
		*ret = answer.num[0];
	return err;
}

static emdb_err ask_time(struct store *s, const struct ctl_msg *request, int64_t *ret)
{
	uint64_t v;
	const emdb_err err = ask_num(s, request, &v);

	if (!err)
		*ret = (int64_t)v;
	return err;
}

/* The same for a request that changes something. */
static emdb_err change(struct store *s, const struct ctl_msg *request)
{
	s->changed = true;
	return ask(s, request);
}

/* ---- Namespaces ---- */

emdb_err store_ns_open(struct store *s, uint64_t parent, const void *name, size_t n,
		       uint64_t *ret_ns)
{
	const struct ctl_msg m = on_key(CTL_NS_OPEN, parent, name, n);

	if (s->db)
		return emdb_ns_open(s->db, parent, name, n, ret_ns);
	return ask_num(s, &m, ret_ns);
}

emdb_err store_ns_create(struct store *s, uint64_t parent, const void *name, size_t n,
			 uint64_t *ret_ns)
{
	const struct ctl_msg m = on_key(CTL_NS_CREATE, parent, name, n);

	if (s->db)
		return emdb_ns_create(s->db, parent, name, n, ret_ns);
	s->changed = true;
	return ask_num(s, &m, ret_ns);
}

emdb_err store_ns_drop(struct store *s, uint64_t parent, const void *name, size_t n, bool recursive)
{
	struct ctl_msg m = on_key(CTL_NS_DROP, parent, name, n);

	if (s->db)
		return emdb_ns_drop(s->db, parent, name, n, recursive);
	m.num[1] = recursive;
	return change(s, &m);
}

/* ---- Keys ---- */

emdb_err store_lookup(struct store *s, uint64_t ns, const void *key, size_t n,
		      struct emdb_attr *ret_attr)
{
	const struct ctl_msg m = on_key(CTL_LOOKUP, ns, key, n);
	struct ctl_msg answer;
	emdb_err err;

	if (s->db) {
		err = emdb_node_lookup(s->db, ns, key, n, ret_attr);
		if (!err)
			emdb_node_forget(s->db, ret_attr->id, 1);
		return err;
	}
	err = ctl_call(s->ctl, &m, &answer);
	if (!err && !ctl_get_attr(&answer.str[0], ret_attr))
		err = EMDB_ERR_IO;
	return err;
}

/* Hands one answer's entries on; *ret_more: fn wants more, from *pos on. */
static emdb_err hand_on(const struct ctl_msg *answer, uint64_t *pos, bool *ret_more,
			emdb_readdir_fn fn, void *ctx)
{
	struct ctl_cursor c = ctl_cursor_of(&answer->str[0]);
	struct ctl_entry e;

	*ret_more = answer->num[0] != 0 && answer->str[0].n > 0;
	while (c.p != c.end) {
		if (!ctl_get_entry(&c, &e))
			return EMDB_ERR_IO;
		if (!fn(ctx, e.key.p, e.key.n, e.damaged ? NULL : &e.attr, e.next_pos)) {
			*ret_more = false;
			return EMDB_OK;
		}
		*pos = e.next_pos;
	}
	return EMDB_OK;
}

emdb_err store_readdir(struct store *s, uint64_t ns, uint64_t pos, emdb_readdir_fn fn, void *ctx)
{
	bool more = true;
	emdb_err err;

	if (s->db)
		return emdb_node_readdir(s->db, ns, pos, 0, fn, ctx);
	do {
		const struct ctl_msg m = { .op = CTL_LIST, .num = { ns, pos } };
		struct ctl_msg answer;

		err = ctl_call(s->ctl, &m, &answer);
		if (!err)
			err = hand_on(&answer, &pos, &more, fn, ctx);
	} while (!err && more);
	return err;
}

emdb_err store_put(struct store *s, uint64_t ns, const void *key, size_t n, const void *value,
		   size_t len, int64_t expires_ms)
{
	struct ctl_msg m = on_key(CTL_PUT, ns, key, n);

	if (s->db)
		return emdb_put(s->db, ns, key, n, value, len, expires_ms);
	if (n > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	m.num[1] = (uint64_t)expires_ms;
	m.str[1] = (struct ctl_str){ value, len };
	return change(s, &m);
}

emdb_err store_remove(struct store *s, uint64_t ns, const void *key, size_t n)
{
	const struct ctl_msg m = on_key(CTL_REMOVE, ns, key, n);

	if (s->db)
		return emdb_remove(s->db, ns, key, n, NULL, NULL);
	return change(s, &m);
}

/* ---- Large values ---- */

static emdb_err open_here(struct store *s, uint64_t ns, const void *key, size_t n)
{
	struct emdb_attr attr;
	const emdb_err err = emdb_node_lookup(s->db, ns, key, n, &attr);

	if (err)
		return err;
	s->value = attr.id;
	if (!S_ISDIR(attr.mode))
		return EMDB_OK;
	store_value_close(s);
	return EMDB_ERR_IS_NS;
}

emdb_err store_value_open(struct store *s, uint64_t ns, const void *key, size_t n)
{
	const struct ctl_msg m = on_key(CTL_OPEN, ns, key, n);

	store_value_close(s);
	return s->db ? open_here(s, ns, key, n) : ask(s, &m);
}

emdb_err store_value_read(struct store *s, uint64_t offset, void *buf, size_t len, size_t *ret_len)
{
	const struct ctl_msg m = { .op = CTL_READ, .num = { offset, len } };
	struct ctl_msg answer;
	emdb_err err;

	if (s->db)
		return emdb_node_read(s->db, s->value, offset, buf, len, ret_len);
	err = ctl_call(s->ctl, &m, &answer);
	if (err)
		return err;
	if (answer.str[0].n > len)
		return EMDB_ERR_IO;
	memcpy(buf, answer.str[0].p, answer.str[0].n);
	*ret_len = answer.str[0].n;
	return EMDB_OK;
}

emdb_err store_value_create(struct store *s, uint64_t ns)
{
	const struct ctl_msg m = { .op = CTL_CREATE, .num = { ns } };

	store_value_close(s);
	return s->db ? install_begin(s->db, ns, &s->value) : change(s, &m);
}

emdb_err store_value_write(struct store *s, uint64_t offset, const void *data, size_t len)
{
	const struct ctl_msg m = { .op = CTL_WRITE, .num = { offset }, .str = { { data, len } } };

	if (s->db)
		return emdb_node_write(s->db, s->value, offset, data, len, 0);
	return change(s, &m);
}

emdb_err store_value_install(struct store *s, uint64_t ns, const void *key, size_t n,
			     int64_t expires_ms)
{
	struct ctl_msg m = on_key(CTL_INSTALL, ns, key, n);

	if (s->db)
		return install_commit(s->db, s->value, ns, key, n, expires_ms);
	m.num[1] = (uint64_t)expires_ms;
	return change(s, &m);
}

/* The daemon lets go by itself, at the latest when we leave. */
void store_value_close(struct store *s)
{
	if (s->value)
		emdb_node_forget(s->db, s->value, 1);
	s->value = 0;
}

/* ---- Time to live ---- */

emdb_err store_ttl_get(struct store *s, uint64_t ns, const void *key, size_t n,
		       int64_t *ret_expires_ms)
{
	const struct ctl_msg m = on_key(CTL_TTL_GET, ns, key, n);

	if (s->db)
		return emdb_ttl_get(s->db, ns, key, n, ret_expires_ms);
	return ask_time(s, &m, ret_expires_ms);
}

emdb_err store_ttl_set(struct store *s, uint64_t ns, const void *key, size_t n, int64_t expires_ms)
{
	struct ctl_msg m = on_key(CTL_TTL_SET, ns, key, n);

	if (s->db)
		return emdb_ttl_set(s->db, ns, key, n, expires_ms);
	m.num[1] = (uint64_t)expires_ms;
	return change(s, &m);
}

emdb_err store_ns_ttl_get(struct store *s, uint64_t ns, int64_t *ret_default_ms)
{
	const struct ctl_msg m = { .op = CTL_NS_TTL_GET, .num = { ns } };

	if (s->db)
		return emdb_ns_ttl_get(s->db, ns, ret_default_ms);
	return ask_time(s, &m, ret_default_ms);
}

emdb_err store_ns_ttl_set(struct store *s, uint64_t ns, int64_t default_ms)
{
	const struct ctl_msg m = { .op = CTL_NS_TTL_SET, .num = { ns, (uint64_t)default_ms } };

	if (s->db)
		return emdb_ns_ttl_set(s->db, ns, default_ms);
	return change(s, &m);
}

/* A store that is served is not frozen in time: its clock is the system's. */
int64_t store_now_ms(const struct store *s)
{
	struct timespec t;

	if (s->db)
		return emdb_now_ms(s->db);
	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- The whole store ---- */

emdb_err store_sweep(struct store *s, uint64_t *ret_removed)
{
	const struct ctl_msg m = { .op = CTL_SWEEP };

	if (s->db)
		return emdb_sweep(s->db, ret_removed);
	s->changed = true;
	return ask_num(s, &m, ret_removed);
}

emdb_err store_flush(struct store *s)
{
	const struct ctl_msg m = { .op = CTL_FLUSH };

	return s->db ? emdb_flush(s->db) : ask(s, &m);
}

emdb_err store_checkpoint(struct store *s)
{
	const struct ctl_msg m = { .op = CTL_CHECKPOINT };

	return s->db ? emdb_checkpoint(s->db) : ask(s, &m);
}

emdb_err store_stats(struct store *s, struct emdb_stats *ret_stats)
{
	const struct ctl_msg m = { .op = CTL_STATS };
	struct ctl_msg answer;
	emdb_err err;

	if (s->db)
		return emdb_stats_get(s->db, ret_stats);
	err = ctl_call(s->ctl, &m, &answer);
	if (!err && !ctl_get_stats(&answer.str[0], ret_stats))
		err = EMDB_ERR_IO;
	return err;
}

/* A daemon that cannot say how far it is does without. */
static emdb_err watch(struct store *s, emdb_progress_fn fn, void *ctx)
{
	emdb_err err = fn ? ctl_watch(s->ctl, fn, ctx) : EMDB_OK;
	struct ctl *fresh = NULL;

	if (err != EMDB_ERR_NOT_FOUND)
		return err;
	err = ctl_connect(s->dir, &fresh);
	if (!err) {
		ctl_close(s->ctl);
		s->ctl = fresh;
	}
	return err;
}

static bool compact_told(void *ctx, uint64_t done, uint64_t total)
{
	const struct emdb_compact_options *const o = ctx;
	const struct emdb_compact_progress p = { .done_bytes = done, .total_bytes = total };

	return o->progress(o->ctx, &p);
}

emdb_err store_compact(struct store *s, const struct emdb_compact_options *opts,
		       struct emdb_compact_progress *ret_done)
{
	const struct ctl_msg m = { .op = CTL_COMPACT,
				   .num = { opts->min_dead_percent, opts->bytes_per_second } };
	struct emdb_compact_options o;
	struct ctl_msg answer;
	emdb_err err;

	if (s->db)
		return emdb_compact(s->db, opts, ret_done);
	o = *opts;
	err = watch(s, o.progress ? compact_told : NULL, &o);
	if (!err)
		err = ctl_call(s->ctl, &m, &answer);
	if (!err)
		*ret_done = (struct emdb_compact_progress){ .segments = answer.num[0],
							    .segments_done = answer.num[1],
							    .copied_bytes = answer.num[2],
							    .freed_bytes = answer.num[3] };
	return err;
}

static void detail_of(const struct ctl_msg *m, struct emdb_detail *ret)
{
	*ret = (struct emdb_detail){
		.segment = m->num[1], .offset = m->num[2], .from = m->num[4], .len = m->num[5]
	};
	if (m->num[3] <= EMDB_DAMAGE_SNAPSHOT)
		ret->damage = (enum emdb_damage)m->num[3];
	(void)snprintf(ret->text, sizeof(ret->text), "%.*s", (int)m->str[0].n,
		       (const char *)m->str[0].p);
	(void)snprintf(ret->path, sizeof(ret->path), "%.*s", (int)m->str[1].n,
		       (const char *)m->str[1].p);
}

static emdb_err scrub_ended(const struct ctl_msg *m, struct emdb_scrub_report *ret)
{
	*ret = (struct emdb_scrub_report){
		.complete = true,
		.bytes = m->num[1],
		.frames = m->num[2],
		.cached_bytes = m->num[3],
		.damaged = m->num[4],
		.damaged_bytes = m->num[5],
		.lost_entries = m->num[6],
		.skipped_bytes = m->num[7],
	};
	return ret->damaged ? EMDB_ERR_CORRUPT : EMDB_OK;
}

emdb_err store_scrub(struct store *s, const struct emdb_scrub_options *opts,
		     struct emdb_scrub_report *ret_report)
{
	const struct ctl_msg m = { .op = CTL_SCRUB, .num = { opts->bytes_per_second } };
	struct emdb_detail detail;
	struct ctl_msg answer;
	emdb_err err;

	if (s->db)
		return emdb_scrub(s->db, opts, ret_report);
	for (err = ctl_call(s->ctl, &m, &answer); !err; err = ctl_more(s->ctl, m.op, &answer)) {
		if (answer.num[0] == CTL_SCRUB_DONE)
			return scrub_ended(&answer, ret_report);
		if (answer.num[0] == CTL_SCRUB_PROGRESS) {
			(void)opts->progress(opts->progress_ctx, answer.num[1], answer.num[2]);
			continue;
		}
		detail_of(&answer, &detail);
		opts->found(opts->found_ctx, &detail);
	}
	return err;
}

emdb_db *store_db(struct store *s)
{
	return s->db;
}

emdb_err store_snapshot_create(struct store *s, const char *name, struct emdb_snapshot *ret)
{
	const size_t n = strlen(name);
	const struct ctl_msg m = { .op = CTL_SNAP_CREATE, .str = { { name, n } } };
	struct ctl_msg answer;
	emdb_err err;

	if (s->db)
		return emdb_snapshot_create(s->db, name, ret);
	err = ctl_call(s->ctl, &m, &answer);
	if (err)
		return err;
	*ret = (struct emdb_snapshot){ .number = answer.num[0],
				       .created_ns = (int64_t)answer.num[1],
				       .bytes = answer.num[2],
				       .lsn = answer.num[3] };
	memcpy(ret->name, name, n < EMDB_SNAPSHOT_NAME_MAX ? n : EMDB_SNAPSHOT_NAME_MAX);
	return EMDB_OK;
}

emdb_err store_snapshot_delete(struct store *s, const char *name)
{
	const struct ctl_msg m = { .op = CTL_SNAP_DELETE, .str = { { name, strlen(name) } } };

	return s->db ? emdb_snapshot_delete(s->db, name) : ask(s, &m);
}

emdb_err store_snapshot_rename(struct store *s, const char *name, const char *new_name)
{
	const struct ctl_msg m = { .op = CTL_SNAP_RENAME,
				   .str = { { name, strlen(name) },
					    { new_name, strlen(new_name) } } };

	return s->db ? emdb_snapshot_rename(s->db, name, new_name) : ask(s, &m);
}

emdb_err store_backup(struct store *s, const char *target, const struct emdb_backup_options *opts,
		      struct emdb_backup_report *ret)
{
	const struct ctl_msg m = { .op = CTL_BACKUP,
				   .num = { opts->flags },
				   .str = { { target, strlen(target) } } };
	struct ctl_msg an;
	emdb_err err;

	if (s->db)
		return emdb_backup(s->db, target, opts, ret);
	err = watch(s, opts->progress, opts->progress_ctx);
	if (!err)
		err = ctl_call(s->ctl, &m, &an);
	if (err && opts->detail)
		(void)snprintf(opts->detail->text, sizeof(opts->detail->text), "%s",
			       s->ctl->remark);
	if (err)
		return err;
	*ret = (struct emdb_backup_report){
		.incremental = an.num[0] != 0,
		.created_ns = (int64_t)an.num[1],
		.lsn = an.num[2],
		.segments = an.num[3],
		.bytes = an.num[4],
		.copied = an.num[5],
		.shared = an.num[6],
		.copied_bytes = an.num[7],
	};
	return EMDB_OK;
}

void store_uuid(const struct store *s, uint8_t ret_uuid[16])
{
	if (s->db)
		emdb_uuid(s->db, ret_uuid);
	else
		memcpy(ret_uuid, s->ctl->uuid, sizeof(s->ctl->uuid));
}

static bool get_counter(struct ctl_cursor *c, struct store_counter *ret)
{
	struct ctl_str name, buckets;
	struct ctl_cursor b;

	*ret = (struct store_counter){ .name = NULL };
	if (!ctl_get_str(c, &name) || !ctl_get_num(c, &ret->calls) ||
	    !ctl_get_num(c, &ret->ns_total) || !ctl_get_str(c, &buckets))
		return false;
	ret->name = name.p;
	ret->name_len = name.n;
	b = ctl_cursor_of(&buckets);
	while (ret->bucket_count < STORE_BUCKETS_MAX &&
	       ctl_get_num(&b, &ret->buckets[ret->bucket_count]))
		ret->bucket_count++;
	return true;
}

emdb_err store_counters(struct store *s, void (*before)(void *ctx, bool over_uring),
			void (*fn)(void *ctx, const struct store_counter *c), void *ctx)
{
	const struct ctl_msg m = { .op = CTL_COUNTERS };
	struct store_counter counter;
	struct ctl_msg answer;
	struct ctl_cursor c;
	emdb_err err;

	if (s->db)
		return EMDB_OK;
	err = ctl_call(s->ctl, &m, &answer);
	if (err)
		return err;
	before(ctx, answer.num[0] != 0);
	c = ctl_cursor_of(&answer.str[0]);
	while (c.p != c.end) {
		if (!get_counter(&c, &counter))
			return EMDB_ERR_IO;
		fn(ctx, &counter);
	}
	return EMDB_OK;
}
