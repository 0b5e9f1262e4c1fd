/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/snapset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuse/log.h"

/* How often what is open is looked at, ms. */
#define REAP_MS 1000
/* A removed one that is in use is looked at that often, ms; and so many of its names at most. */
#define AGAIN_MS 5000
#define DROP_MAX 10000u

/* All guarded by the set's lock, but the view's own fields. */
struct snap {
	uint64_t number;
	int64_t btime_ns;
	char name[EMDB_SNAPSHOT_NAME_MAX + 1];
	bool gone;        /* removed: who has it open keeps it */
	bool opening;     /* by one thread; others wait */
	bool told;        /* the kernel was told to let go since it was last used */
	uint64_t told_ms; /* when, of one that is gone */
	bool have_attr;
	struct emdb_attr attr; /* of its root; the id is the inode number */
	uint64_t root_refs;    /* the kernel's references on its root */
	unsigned int users;    /* requests in work */
	struct fs *view;       /* NULL: not open */
	uint64_t used_ms;
};

struct snapset {
	struct fs *fs; /* immutable */
	pthread_mutex_t lock;
	pthread_cond_t opened;           /* an opening ended, one way or the other */
	pthread_cond_t work;             /* for the reaper */
	pthread_t reaper;                /* only used by those who start and stop it */
	bool reaping;                    /* guarded by lock; the reaper runs */
	bool stop;                       /* guarded by lock */
	unsigned int open;               /* guarded by lock */
	unsigned int count;              /* guarded by lock; slots ever used, the first is none */
	struct snap *slots[SNAPSET_MAX]; /* guarded by lock; NULL: free */
};

uint64_t snap_ino(uint64_t number, uint64_t id)
{
	uint64_t x;

	if (number < ((uint64_t)1 << 16) && id < ((uint64_t)1 << 45))
		return ((uint64_t)1 << 61) | number << 45 | id;
	/* splitmix64, twice. */
	x = number * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0xd1b54a32d192ed03);
	for (int i = 0; i < 2; i++) {
		x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
		x = (x ^ (x >> 31)) + (i == 0 ? id : 0);
	}
	return ((uint64_t)1 << 62) | (x >> 2);
}

static uint64_t now_ms(void)
{
	return counters_now() / 1000000;
}

static uint64_t node_of(unsigned int slot, uint64_t id)
{
	return FS_SNAP_BIT | (uint64_t)slot << SNAP_SLOT_SHIFT | id;
}

static struct snap *slot_locked(struct snapset *set, uint64_t node)
{
	return set->slots[snap_slot(node)];
}

/* ---- Views ---- */

static struct fs *view_new(struct snapset *set, unsigned int slot, const struct snap *s,
			   emdb_db *db)
{
	struct fs *v = calloc(1, sizeof(*v));

	if (v == NULL)
		return NULL;
	fs_init(v, &set->fs->opt);
	v->opt.read_only = true;
	v->db = db;
	v->root = set->fs;
	v->node_base = node_of(slot, 0);
	v->snap_number = s->number;
	v->snap_btime_ns = s->btime_ns;
	return v;
}

static void view_free(struct fs *v)
{
	if (v == NULL)
		return;
	if (emdb_close(v->db) != EMDB_OK)
		log_warn("snapshot %" PRIu64 ": closing failed", v->snap_number);
	fs_release(v);
	free(v);
}

static uint64_t view_refs(const struct fs *v)
{
	return v == NULL ? 0 : atomic_load_explicit(&v->refs, memory_order_acquire);
}

/* The name may have gone to another one since we learned it. */
static emdb_err open_number(struct snapset *set, const char *name, uint64_t number, emdb_db **ret)
{
	const struct emdb_options options = {
		.size = sizeof(options),
		.flags = EMDB_OPEN_READ_ONLY,
		.verify = set->fs->opt.verify,
		.log = log_from_store,
	};
	struct emdb_snapshot s;
	emdb_db *db = NULL;
	emdb_err err = emdb_snapshot_open(set->fs->db, name, &options, &db);

	if (err == EMDB_OK)
		err = emdb_snapshot_get(set->fs->db, name, &s);
	if (err == EMDB_OK && s.number != number)
		err = EMDB_ERR_NOT_FOUND;
	if (err != EMDB_OK)
		(void)emdb_close(db);
	else
		*ret = db;
	return err;
}

/* ---- Closing ---- */

/* Nothing of it is in use but, perhaps, its root, which needs nobody. */
static bool closable_locked(const struct snap *s)
{
	return s->view != NULL && s->users == 0 && view_refs(s->view) == 0;
}

/* Takes the view out, to be freed without the lock. */
static struct fs *take_view_locked(struct snapset *set, struct snap *s)
{
	struct fs *v = s->view;

	s->view = NULL;
	if (v != NULL)
		set->open--;
	return v;
}

/* The one that has waited longest, of those that have waited so long. */
static struct snap *oldest_locked(struct snapset *set, uint64_t idle_ms,
				  bool (*fn)(const struct snap *s))
{
	const uint64_t now = now_ms();
	struct snap *found = NULL;

	for (unsigned int i = 1; i < set->count; i++) {
		struct snap *s = set->slots[i];

		if (s != NULL && fn(s) && s->used_ms + idle_ms <= now &&
		    (found == NULL || s->used_ms < found->used_ms))
			found = s;
	}
	return found;
}

static bool is_gone(const struct snap *s)
{
	return s->gone && closable_locked(s);
}

/* Cached by the kernel, and that is all. */
static bool is_cached(const struct snap *s)
{
	return s->view != NULL && s->users == 0 && !s->told && !s->gone && view_refs(s->view) > 0;
}

static struct snap *to_close_locked(struct snapset *set)
{
	struct snap *s = oldest_locked(set, 0, is_gone);

	if (s == NULL && set->open > SNAPSET_OPEN_WISH)
		s = oldest_locked(set, REAP_MS, closable_locked);
	return s != NULL ? s : oldest_locked(set, SNAPSET_IDLE_MS, closable_locked);
}

static void free_slots_locked(struct snapset *set)
{
	for (unsigned int i = 1; i < set->count; i++) {
		struct snap *s = set->slots[i];

		if (s != NULL && s->view == NULL && s->root_refs == 0 && s->users == 0 &&
		    !s->opening) {
			free(s);
			set->slots[i] = NULL;
		}
	}
}

struct dropping {
	struct notify *notify;
	const char *reserved;
	uint64_t root;
	unsigned int count;
};

static bool drop_entry(void *ctx, const void *key, size_t key_len, const struct emdb_attr *attr,
		       uint64_t next_pos)
{
	struct dropping *d = ctx;
	char name[NAMES_MAX + 1];

	(void)attr;
	(void)next_pos;
	(void)names_from_key(key, key_len, d->reserved, name);
	notify_dropped(d->notify, d->root, name);
	return ++d->count < DROP_MAX;
}

/* Cached below a root that has no name any more: its entries still have theirs. */
static bool is_gone_cached(const struct snap *s)
{
	return s->view != NULL && s->users == 0 && s->gone && view_refs(s->view) > 0 &&
	       s->told_ms + AGAIN_MS <= now_ms();
}

/*
 * Dropping a name from the kernel's caches drops all below it that nobody uses.
 * What is in use stays: of a removed snapshot it is tried again.
 */
static void let_go_locked(struct snapset *set)
{
	struct notify *n = atomic_load_explicit(&set->fs->notify, memory_order_acquire);
	struct snap *s = oldest_locked(set, SNAPSET_FORGET_MS, is_cached);
	struct dropping d = { .notify = n, .reserved = set->fs->opt.snapdirname };

	if (s != NULL && n != NULL) {
		s->told = true;
		notify_dropped(n, SNAPDIR_NODE, s->name);
	}
	s = oldest_locked(set, REAP_MS, is_gone_cached);
	if (s == NULL || n == NULL)
		return;
	s->told_ms = now_ms();
	s->users++;
	d.root = s->view->node_base | EMDB_ROOT;
	(void)pthread_mutex_unlock(&set->lock);
	if (emdb_node_readdir(s->view->db, EMDB_ROOT, 0, 0, drop_entry, &d) != EMDB_OK)
		log_debug("snapshot %" PRIu64 ": not listed", s->number);
	(void)pthread_mutex_lock(&set->lock);
	s->users--;
}

static void *reaper_main(void *arg)
{
	struct snapset *set = arg;
	struct timespec until;

	(void)pthread_mutex_lock(&set->lock);
	while (!set->stop) {
		struct snap *s = to_close_locked(set);

		if (s != NULL) {
			struct fs *v = take_view_locked(set, s);

			(void)pthread_mutex_unlock(&set->lock);
			view_free(v);
			(void)pthread_mutex_lock(&set->lock);
			continue;
		}
		free_slots_locked(set);
		let_go_locked(set);
		if (set->open == 0) {
			(void)pthread_cond_wait(&set->work, &set->lock);
			continue;
		}
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += REAP_MS / 1000;
		(void)pthread_cond_timedwait(&set->work, &set->lock, &until);
	}
	(void)pthread_mutex_unlock(&set->lock);
	return NULL;
}

/* Without it everything works, and nothing is closed: not worth failing for. */
static void start_reaper_locked(struct snapset *set)
{
	if (set->reaping)
		return;
	set->reaping = pthread_create(&set->reaper, NULL, reaper_main, set) == 0;
	if (!set->reaping)
		log_warn("snapshots stay open: cannot start a thread");
}

/* ---- Opening ---- */

/* Room for one more. */
static int make_room_locked(struct snapset *set)
{
	while (set->open >= SNAPSET_OPEN_MAX) {
		struct snap *s = oldest_locked(set, 0, closable_locked);
		struct fs *v = s != NULL ? take_view_locked(set, s) : NULL;

		if (v == NULL)
			return ENFILE;
		(void)pthread_mutex_unlock(&set->lock);
		view_free(v);
		(void)pthread_mutex_lock(&set->lock);
	}
	return 0;
}

static int open_locked(struct snapset *set, unsigned int slot, struct snap *s)
{
	char name[sizeof(s->name)];
	emdb_db *db = NULL;
	struct fs *v = NULL;
	emdb_err err;
	int code;

	s->opening = true;
	code = make_room_locked(set);
	if (code == 0) {
		memcpy(name, s->name, sizeof(name));
		(void)pthread_mutex_unlock(&set->lock);
		err = open_number(set, name, s->number, &db);
		code = err == EMDB_ERR_NOT_FOUND ? ESTALE : emdb_err_errno(err);
		if (code == 0) {
			v = view_new(set, slot, s, db);
			if (v == NULL)
				(void)emdb_close(db);
			code = v == NULL ? ENOMEM : 0;
		}
		if (code != 0 && code != ESTALE)
			log_error("snapshot %s: cannot be opened: %s", name,
				  err != EMDB_OK ? emdb_strerror(err) : strerror(code));
		(void)pthread_mutex_lock(&set->lock);
	}
	s->opening = false;
	(void)pthread_cond_broadcast(&set->opened);
	if (code != 0)
		return code;
	s->view = v;
	set->open++;
	s->have_attr = emdb_node_getattr(db, EMDB_ROOT, &s->attr) == EMDB_OK;
	s->attr.id = snap_ino(s->number, EMDB_ROOT);
	start_reaper_locked(set);
	(void)pthread_cond_signal(&set->work);
	return 0;
}

int snapset_enter(struct snapset *set, uint64_t node, bool open, struct fs **ret_view)
{
	struct snap *s;
	int code = 0;

	if (set == NULL)
		return ESTALE;
	(void)pthread_mutex_lock(&set->lock);
	s = slot_locked(set, node);
	if (s == NULL) {
		(void)pthread_mutex_unlock(&set->lock);
		return ESTALE;
	}
	s->users++;
	while (s->opening && open)
		(void)pthread_cond_wait(&set->opened, &set->lock);
	if (s->view == NULL)
		code = !open ? EAGAIN : s->gone ? ESTALE : open_locked(set, snap_slot(node), s);
	s->used_ms = now_ms();
	s->told = false;
	if (code == 0)
		*ret_view = s->view;
	else
		s->users--;
	(void)pthread_mutex_unlock(&set->lock);
	return code;
}

void snapset_leave(struct snapset *set, uint64_t node)
{
	struct snap *s;

	(void)pthread_mutex_lock(&set->lock);
	s = slot_locked(set, node);
	s->users--;
	if (is_gone(s))
		(void)pthread_cond_signal(&set->work);
	(void)pthread_mutex_unlock(&set->lock);
}

/* ---- What the kernel knows ---- */

static int new_slot_locked(struct snapset *set, unsigned int *ret)
{
	struct snap *s;
	unsigned int i = 1;

	while (i < set->count && set->slots[i] != NULL)
		i++;
	if (i == SNAPSET_MAX) {
		free_slots_locked(set);
		for (i = 1; i < SNAPSET_MAX && set->slots[i] != NULL; i++)
			;
		if (i == SNAPSET_MAX)
			return ENFILE;
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return ENOMEM;
	set->slots[i] = s;
	if (i >= set->count)
		set->count = i + 1;
	*ret = i;
	return 0;
}

int snapset_root(struct snapset *set, const struct emdb_snapshot *info, uint64_t *ret_node,
		 struct emdb_attr *ret_attr, bool *ret_known)
{
	unsigned int i = 1;
	struct snap *s;
	int code = 0;

	if (set == NULL)
		return ESTALE;
	(void)pthread_mutex_lock(&set->lock);
	while (i < set->count && (set->slots[i] == NULL || set->slots[i]->number != info->number))
		i++;
	if (i == set->count)
		code = new_slot_locked(set, &i);
	if (code == 0) {
		s = set->slots[i];
		s->number = info->number;
		s->btime_ns = info->created_ns;
		memcpy(s->name, info->name, sizeof(s->name));
		s->root_refs++;
		*ret_node = node_of(i, EMDB_ROOT);
		*ret_known = s->have_attr;
		if (s->have_attr)
			*ret_attr = s->attr;
	}
	(void)pthread_mutex_unlock(&set->lock);
	return code;
}

bool snapset_root_attr(struct snapset *set, uint64_t node, struct emdb_attr *ret)
{
	struct snap *s;
	bool known;

	if (set == NULL)
		return false;
	(void)pthread_mutex_lock(&set->lock);
	s = slot_locked(set, node);
	known = s != NULL && s->have_attr;
	if (known)
		*ret = s->attr;
	(void)pthread_mutex_unlock(&set->lock);
	return known;
}

/* The slot is kept until the reaper looks, or another one needs it. */
static void forget_root(struct snapset *set, uint64_t node, uint64_t count)
{
	struct snap *s;

	(void)pthread_mutex_lock(&set->lock);
	s = slot_locked(set, node);
	if (s != NULL)
		s->root_refs -= count < s->root_refs ? count : s->root_refs;
	(void)pthread_mutex_unlock(&set->lock);
}

void snapset_forget(struct snapset *set, uint64_t node, uint64_t count)
{
	struct fs *view;

	if (set == NULL || snap_slot(node) == 0)
		return;
	if (snap_id(node) == EMDB_ROOT) {
		forget_root(set, node, count);
	} else if (snapset_enter(set, node, false, &view) == 0) {
		fs_forget(view, snap_id(node), count);
		snapset_leave(set, node);
	}
}

static unsigned int find_name_locked(struct snapset *set, const char *name)
{
	for (unsigned int i = 1; i < set->count; i++)
		if (set->slots[i] != NULL && !set->slots[i]->gone &&
		    strcmp(set->slots[i]->name, name) == 0)
			return i;
	return 0;
}

uint64_t snapset_renamed(struct snapset *set, const char *name, const char *new_name)
{
	unsigned int i;

	if (set == NULL)
		return 0;
	(void)pthread_mutex_lock(&set->lock);
	i = find_name_locked(set, name);
	if (i != 0)
		(void)snprintf(set->slots[i]->name, sizeof(set->slots[i]->name), "%s", new_name);
	(void)pthread_mutex_unlock(&set->lock);
	return i != 0 ? node_of(i, EMDB_ROOT) : 0;
}

uint64_t snapset_removed(struct snapset *set, const char *name)
{
	unsigned int i;

	if (set == NULL)
		return 0;
	(void)pthread_mutex_lock(&set->lock);
	i = find_name_locked(set, name);
	if (i != 0)
		set->slots[i]->gone = true;
	(void)pthread_cond_signal(&set->work);
	(void)pthread_mutex_unlock(&set->lock);
	return i != 0 ? node_of(i, EMDB_ROOT) : 0;
}

unsigned int snapset_open_count(struct snapset *set)
{
	unsigned int n;

	if (set == NULL)
		return 0;
	(void)pthread_mutex_lock(&set->lock);
	n = set->open;
	(void)pthread_mutex_unlock(&set->lock);
	return n;
}

/* ---- Lifecycle ---- */

struct snapset *snapset_new(struct fs *fs)
{
	struct snapset *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->fs = fs;
	set->count = 1;
	(void)pthread_mutex_init(&set->lock, NULL);
	(void)pthread_cond_init(&set->opened, NULL);
	(void)pthread_cond_init(&set->work, NULL);
	return set;
}

void snapset_free(struct snapset *set)
{
	if (set == NULL)
		return;
	(void)pthread_mutex_lock(&set->lock);
	set->stop = true;
	(void)pthread_cond_signal(&set->work);
	(void)pthread_mutex_unlock(&set->lock);
	if (set->reaping)
		(void)pthread_join(set->reaper, NULL);
	for (unsigned int i = 1; i < set->count; i++) {
		if (set->slots[i] != NULL)
			view_free(set->slots[i]->view);
		free(set->slots[i]);
	}
	(void)pthread_mutex_destroy(&set->lock);
	(void)pthread_cond_destroy(&set->opened);
	(void)pthread_cond_destroy(&set->work);
	free(set);
}
