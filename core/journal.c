/* SPDX-License-Identifier: Apache-2.0 */
#include "core/journal_i.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "core/sealed.h"

/* Frames up to this size are put together on the stack and written with one plain pwrite. */
#define SMALL_FRAME 4096u
/*
 * The pages that small frames are written to and read from soon after are brought in so many bytes at
 * a time, not with a page fault for each. Of larger frames the kernel makes fewer and larger pages.
 */
#define READY_BYTES (128u * 1024u)
#define READY_FRAME (16u * 1024u)
/* Pieces that need no memory for the vector. */
#define STACK_IOV 16

/* ---- Telling people --------------------------------------------------- */

void journal_detail(const struct journal *j, uint64_t segment, uint64_t offset, const char *fmt,
		    ...)
{
	struct emdb_detail *const d = j->cfg.detail;
	va_list ap;

	if (!d)
		return;
	d->segment = segment;
	d->offset = offset;
	va_start(ap, fmt);
	(void)vsnprintf(d->text, sizeof(d->text), fmt, ap);
	va_end(ap);
}

void journal_found(const struct journal *j, const struct segment *s, uint64_t segment,
		   uint64_t offset, uint64_t len, const char *fmt, ...)
{
	struct emdb_detail d = { .segment = segment, .offset = offset };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(d.text, sizeof(d.text), fmt, ap);
	va_end(ap);
	journal_log(j, EMDB_LOG_WARN, "%s", d.text);
	if (j->cfg.found)
		j->cfg.found(j->cfg.found_ctx, &d, s, len);
}

void journal_log(const struct journal *j, enum emdb_log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!j->cfg.log)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	j->cfg.log(j->cfg.log_ctx, level, text);
}

void journal_fail(struct journal *j, const char *what, int err)
{
	bool first;

	mutex_lock(&j->sync_lock);
	first = !atomic_exchange(&j->failed, true);
	cond_broadcast(&j->sync_done);
	cond_broadcast(&j->sync_more);
	cond_signal(&j->flusher_wake);
	mutex_unlock(&j->sync_lock);
	if (first)
		journal_log(j, EMDB_LOG_ERROR,
			    "journal: %s failed (errno %d); read-only from now on", what, -err);
}

/* ---- The table of segments -------------------------------------------- */

static struct seg_table *table_new(size_t room)
{
	size_t n = 16, bytes;
	struct seg_table *t;

	while (n < room * 4)
		n *= 2;
	if (emdb_mul_ovf_size(n, sizeof(t->slot[0]), &bytes))
		return NULL;
	t = base_calloc(1, sizeof(*t) + bytes);
	if (t)
		t->mask = n - 1;
	return t;
}

static void table_free(struct epoch_node *node)
{
	base_free(container_of(node, struct seg_table, node));
}

static void table_put(struct seg_table *t, struct segment *s)
{
	uint64_t i = s->id & t->mask;

	while (atomic_load_explicit(&t->slot[i], memory_order_relaxed))
		i = (i + 1) & t->mask;
	/* Release: who finds it finds it filled in. */
	atomic_store_explicit(&t->slot[i], s, memory_order_release);
}

/* A table with room for one more than the list has, holding what it has. */
static struct seg_table *table_of_list(struct segment *const *list, size_t count)
{
	struct seg_table *const t = table_new(count + 1);

	for (size_t i = 0; t && i < count; i++)
		table_put(t, list[i]);
	return t;
}

static void table_swap(struct journal *j, struct seg_table *t)
{
	struct seg_table *const old = atomic_load_explicit(&j->table, memory_order_relaxed);

	atomic_store_explicit(&j->table, t, memory_order_release);
	if (old)
		epoch_retire(j->cfg.epoch, &old->node, table_free);
}

emdb_err segments_reserve(struct journal *j)
{
	emdb_err err = EMDB_ERR_NOMEM;
	struct seg_table *t;

	mutex_lock(&j->segment_lock);
	t = atomic_load_explicit(&j->table, memory_order_relaxed);
	if (!t || (j->count + 1) * 2 > t->mask + 1) {
		t = table_of_list(j->list, j->count);
		if (!t)
			goto out;
		table_swap(j, t);
	}
	if (j->count == j->cap) {
		const size_t cap = j->cap ? j->cap * 2 : 16;
		struct segment **const list = base_realloc(j->list, cap * sizeof(struct segment *));

		if (!list)
			goto out;
		j->list = list;
		j->cap = cap;
	}
	err = EMDB_OK;
out:
	mutex_unlock(&j->segment_lock);
	return err;
}

void segments_add(struct journal *j, struct segment *s)
{
	mutex_lock(&j->segment_lock);
	emdb_assert(j->count < j->cap && (!j->count || j->list[j->count - 1]->id < s->id));
	j->list[j->count++] = s;
	table_put(atomic_load_explicit(&j->table, memory_order_relaxed), s);
	mutex_unlock(&j->segment_lock);
}

static bool id_in(uint64_t id, const uint64_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static void segment_retired(struct epoch_node *node)
{
	segment_unref(container_of(node, struct segment, node));
}

emdb_err segments_remove(struct journal *j, const uint64_t *ids, size_t n, bool dead)
{
	struct seg_table *t;
	size_t kept = 0;

	mutex_lock(&j->segment_lock);
	t = table_new(j->count + 1);
	if (!t) {
		mutex_unlock(&j->segment_lock);
		return EMDB_ERR_NOMEM;
	}
	for (size_t i = 0; i < j->count; i++)
		if (!id_in(j->list[i]->id, ids, n))
			table_put(t, j->list[i]);
	table_swap(j, t);
	for (size_t i = 0; i < j->count; i++) {
		struct segment *const s = j->list[i];

		if (!id_in(s->id, ids, n)) {
			j->list[kept++] = s;
			continue;
		}
		if (dead) {
			segment_ref(s);
			s->next_dead = j->dead;
			j->dead = s;
		}
		epoch_retire(j->cfg.epoch, &s->node, segment_retired);
	}
	j->count = kept;
	mutex_unlock(&j->segment_lock);
	return EMDB_OK;
}

/* ---- Open and close --------------------------------------------------- */

/* "01234567-89ab-..." as 16 bytes; zeros when it is something else. */
static void boot_id_parse(const char *text, uint8_t ret[static 16])
{
	unsigned int digits = 0;

	memset(ret, 0, 16);
	for (; *text; text++) {
		const char *const hex = "0123456789abcdef", *const at = strchr(hex, *text);

		if (*text == '-')
			continue;
		if (!at || digits == 32)
			break;
		ret[digits / 2] = (uint8_t)(ret[digits / 2] << 4 | (at - hex));
		digits++;
	}
	if (*text || digits != 32)
		memset(ret, 0, 16);
}

static struct journal *journal_new(const struct journal_config *cfg)
{
	struct journal *const j = base_calloc(1, sizeof(*j));
	struct io_host host;

	if (!j)
		return NULL;
	j->cfg = *cfg;
	j->env.io = cfg->io;
	j->env.dirfd = -1;
	j->env.shift = cfg->segment_shift;
	j->env.crc_seeded = cfg->crc_seeded;
	j->env.vault = cfg->vault;
	j->tag = cfg->vault ? FMT_TAG : 0;
	j->seal_len = SEAL_LEN + j->tag;
	memcpy(j->env.uuid, cfg->uuid, sizeof(j->env.uuid));
	if (io_host(cfg->io, &host) == 0)
		boot_id_parse(host.boot_id, j->env.boot_id);
	j->mask = (UINT64_C(1) << cfg->segment_shift) - 1;
	j->low_room = min_u64(max_u64((j->mask + 1) / 4, LOW_ROOM_MIN), LOW_ROOM_MAX);
	mutex_init(&j->roll_lock, LOCK_ROLL);
	mutex_init(&j->manifest_lock, LOCK_MANIFEST);
	mutex_init(&j->segment_lock, LOCK_SEGMENT);
	mutex_init(&j->sync_lock, LOCK_SYNC);
	cond_init(&j->retire_free);
	cond_init(&j->sync_done);
	cond_init(&j->sync_more);
	cond_init(&j->flusher_wake);
	cond_init(&j->keeper_wake);
	j->reqs_end = &j->reqs;
	j->manifest = (struct manifest)MANIFEST_INIT;
	j->found = (struct manifest)MANIFEST_INIT;
	return j;
}

static void journal_free(struct journal *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->count; i++)
		segment_unref(j->list[i]);
	recycle_release(j);
	for (size_t i = 0; i < PLAIN_SLOTS; i++)
		base_free(atomic_load_explicit(&j->plains[i], memory_order_relaxed));
	base_free(j->list);
	base_free(atomic_load_explicit(&j->table, memory_order_relaxed));
	(void)io_close(j->cfg.io, j->env.dirfd);
	manifest_release(&j->manifest);
	manifest_release(&j->found);
	cond_destroy(&j->retire_free);
	cond_destroy(&j->sync_done);
	cond_destroy(&j->sync_more);
	cond_destroy(&j->flusher_wake);
	cond_destroy(&j->keeper_wake);
	mutex_destroy(&j->roll_lock);
	mutex_destroy(&j->manifest_lock);
	mutex_destroy(&j->segment_lock);
	mutex_destroy(&j->sync_lock);
	base_free(j);
}

/* Is there something where the first frame of this segment file would be? */
static bool holds_frames(struct journal *j, const char *name)
{
	uint8_t b[FMT_FRAME_HEADER];
	bool any = true;
	size_t n = 0;
	int fd;

	if (io_openat(j->cfg.io, j->env.dirfd, name, O_RDONLY | O_NOFOLLOW, 0, &fd) < 0)
		return true;
	if (io_pread_full(j->cfg.io, fd, b, sizeof(b), FMT_SEG_HEADER, &n) == 0) {
		any = false;
		for (size_t k = 0; k < n; k++)
			any = any || b[k];
	}
	(void)io_close(j->cfg.io, fd);
	return any;
}

/* io_list callback: ends the listing at the first segment that is not empty. */
static int look_for_frames(void *arg, const char *name)
{
	uint64_t id;

	return segment_name_parse(name, &id) && holds_frames(arg, name) ? -EEXIST : 0;
}

/* A new store. What a creation that got no further left behind may be there: no frames. */
static emdb_err begin_new(struct journal *j)
{
	struct manifest old = MANIFEST_INIT;
	emdb_err err = manifest_load(j->cfg.io, j->cfg.dirfd, &old);
	int rc = io_mkdirat(j->cfg.io, j->cfg.dirfd, JOURNAL_DIR, 0700);

	if (err == EMDB_ERR_NOT_FOUND)
		err = EMDB_OK;
	else if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_VERSION)
		err = EMDB_ERR_EXISTS;
	if (rc == -EEXIST)
		rc = 0;
	if (rc == 0)
		rc = io_openat(j->cfg.io, j->cfg.dirfd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY, 0,
			       &j->env.dirfd);
	if (rc == 0 && !err)
		rc = io_list(j->cfg.io, j->env.dirfd, look_for_frames, j);
	if (rc == -EEXIST) {
		journal_detail(j, UINT64_MAX, 0, "there is a journal with data already");
		err = EMDB_ERR_EXISTS;
	} else if (rc < 0) {
		err = err_of_io(rc);
	}
	if (!err) {
		memcpy(j->manifest.head.uuid, j->cfg.uuid, sizeof(j->cfg.uuid));
		j->manifest.head.generation = old.head.generation;
		j->manifest.head.next_segment = max_u64(old.head.next_segment, 1);
		j->manifest.head.flags = MANIFEST_CLEAN;
	}
	manifest_release(&old);
	return err;
}

static emdb_err damaged_manifest(struct journal *j, const char *why)
{
	journal_detail(j, UINT64_MAX, 0, "manifest: %s", why);
	return EMDB_ERR_DAMAGED;
}

static emdb_err begin_existing(struct journal *j)
{
	emdb_err err = j->cfg.repair && j->cfg.manifest
			       ? manifest_copy(j->cfg.manifest, &j->manifest)
			       : manifest_load(j->cfg.io, j->cfg.dirfd, &j->manifest);
	int rc;

	if (err == EMDB_ERR_NOT_FOUND)
		return damaged_manifest(j, "the file is missing");
	/* The superblock has said that the version is one that we know. */
	if (err == EMDB_ERR_CORRUPT || err == EMDB_ERR_VERSION)
		return damaged_manifest(j, "the file does not check out");
	if (err) {
		journal_detail(j, UINT64_MAX, 0, "manifest: %s", emdb_strerror(err));
		return err;
	}
	if (memcmp(j->manifest.head.uuid, j->cfg.uuid, sizeof(j->cfg.uuid)) != 0)
		return damaged_manifest(j, "the file belongs to another store");
	/* One that a repair made has none. */
	if (!j->cfg.repair || !j->cfg.manifest)
		err = manifest_mac_check(&j->manifest, j->cfg.vault);
	if (err == EMDB_ERR_CORRUPT)
		return damaged_manifest(j, "changed by somebody without the key");
	if (err)
		return err;
	rc = io_openat(j->cfg.io, j->cfg.dirfd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY, 0,
		       &j->env.dirfd);
	if (rc == -ENOENT)
		return damaged_manifest(j, "the directory journal/ is missing");
	return err_of_io(rc);
}

/* An open segment ends before what the manifest knows to be durable in it. */
static bool is_cut(const struct journal *j, const struct segment *s, bool sealed)
{
	return !sealed && s->size < segment_bytes(s) && s->base + s->size < journal_known_lsn(j);
}

/* With salvage, a segment that is not there is counted and left out. */
static emdb_err open_one(struct journal *j, const struct manifest_seg *row)
{
	const bool sealed = row->flags & MANIFEST_SEALED;
	struct segment *s = NULL;
	const char *why = NULL;
	char name[SEGMENT_NAME_SIZE];
	emdb_err err = segments_reserve(j);

	if (err)
		return err;
	err = segment_open(&j->env, row->id, !j->cfg.read_only && !sealed, j->cfg.salvage, &s,
			   &why);
	if (!err && sealed && !j->cfg.salvage &&
	    (row->len > segment_bytes(s) || s->size < row->len)) {
		why = "the segment is shorter than the manifest says";
		err = EMDB_ERR_DAMAGED;
	}
	/* A replay that begins behind the cut would not see that it is one. */
	if (!err && is_cut(j, s, sealed) && !j->cfg.salvage) {
		why = "the file was cut";
		err = EMDB_ERR_DAMAGED;
	}
	segment_name(row->id, name);
	if (err == EMDB_ERR_DAMAGED)
		journal_detail(j, row->id, s ? s->size : 0, JOURNAL_DIR "/%s: %s", name, why);
	if (err) {
		if (s)
			segment_unref(s);
		if (!j->cfg.salvage || err == EMDB_ERR_NOMEM || err == EMDB_ERR_TOO_MANY_FILES ||
		    err == EMDB_ERR_PERM)
			return err;
		journal_found(j, NULL, row->id, 0, sealed ? row->len : UINT64_C(1) << j->env.shift,
			      JOURNAL_DIR "/%s: %s", name, why ? why : emdb_strerror(err));
		j->missing++;
		j->missing_bytes += row->len;
		return EMDB_OK;
	}
	if (is_cut(j, s, sealed)) { /* with salvage */
		journal_found(j, NULL, row->id, s->size, segment_bytes(s) - s->size,
			      JOURNAL_DIR "/%s: the file was cut", name);
		j->missing++;
	}
	if (s->headless) {
		journal_found(j, NULL, row->id, 0, FMT_SEG_HEADER,
			      JOURNAL_DIR "/%s: the segment header does not check out", name);
		j->missing++;
	}
	if (sealed) {
		const uint64_t room = align_down(min_u64(s->size, segment_bytes(s)), 8);
		const uint64_t len = max_u64(min_u64(row->len, room), FMT_SEG_HEADER);

		if (len < row->len) { /* with salvage; else it has been refused above */
			journal_found(j, NULL, row->id, len, row->len - len,
				      JOURNAL_DIR "/%s: cut short, %llu bytes missing", name,
				      (unsigned long long)(row->len - len));
			j->missing++;
			j->missing_bytes += row->len - len;
		}
		atomic_store_explicit(&s->len, len, memory_order_relaxed);
		atomic_store_explicit(&s->state, SEGMENT_SEALED, memory_order_relaxed);
	}
	segments_add(j, s);
	return EMDB_OK;
}

static emdb_err open_segments(struct journal *j)
{
	emdb_err err = segments_reserve(j);

	for (uint32_t i = 0; !err && i < j->manifest.head.nsegs; i++) {
		if (j->manifest.segs[i].id >= UINT64_C(1) << (63 - j->cfg.segment_shift))
			return damaged_manifest(j, "a segment number is out of range");
		err = open_one(j, &j->manifest.segs[i]);
	}
	return err;
}

emdb_err journal_open(const struct journal_config *cfg, struct journal **ret)
{
	struct journal *j;
	emdb_err err;

	if (cfg->segment_shift < FMT_SEG_SHIFT_MIN || cfg->segment_shift > FMT_SEG_SHIFT_MAX ||
	    (cfg->create && cfg->read_only))
		return EMDB_ERR_INVAL;
	err = err_of_io(guard_install());
	if (err)
		return err;
	j = journal_new(cfg);
	if (!j)
		return EMDB_ERR_NOMEM;
	err = cfg->create ? begin_new(j) : begin_existing(j);
	if (!err)
		err = open_segments(j);
	if (err) {
		journal_free(j);
		return err;
	}
	*ret = j;
	return EMDB_OK;
}

/* What the next open finds: everything sealed, what holds no frame gone. */
static emdb_err close_manifest(struct journal *j, struct manifest *next)
{
	for (size_t i = 0; i < j->count; i++) {
		struct segment *const s = j->list[i];
		struct manifest_seg *const row = manifest_find(next, s->id);

		if (segment_state(s) == SEGMENT_SEALED || !row)
			continue;
		if (segment_state(s) == SEGMENT_ACTIVE)
			atomic_store_explicit(&s->len, journal_load_tail(j) - s->base,
					      memory_order_release);
		if (segment_state(s) == SEGMENT_SPARE || segment_len(s) == FMT_SEG_HEADER) {
			manifest_remove(next, s->id, s->shift);
			continue;
		}
		row->len = segment_len(s);
		row->flags = MANIFEST_SEALED;
	}
	next->head.flags = MANIFEST_CLEAN;
	next->head.durable_lsn = journal_durable(j);
	return EMDB_OK;
}

static emdb_err close_clean(struct journal *j)
{
	struct manifest next = MANIFEST_INIT;
	emdb_err err = journal_sync_to(j, journal_load_tail(j));

	mutex_lock(&j->manifest_lock);
	if (!err)
		err = manifest_copy(&j->manifest, &next);
	if (!err)
		err = close_manifest(j, &next);
	if (!err)
		err = manifest_commit_locked(j, &next, NULL);
	for (size_t i = 0; !err && i < j->count; i++) {
		struct segment *const s = j->list[i];
		char name[SEGMENT_NAME_SIZE];

		segment_name(s->id, name);
		if (manifest_find(&j->manifest, s->id))
			segment_trim(s);
		else
			(void)io_unlinkat(j->cfg.io, j->env.dirfd, name, 0);
	}
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	return err;
}

emdb_err journal_close(struct journal *j)
{
	emdb_err err = EMDB_OK;

	if (!j)
		return EMDB_OK;
	if (atomic_load(&j->running)) {
		threads_stop(j);
		(void)recycle_drop(j);
		err = journal_has_failed(j) ? EMDB_ERR_FAILED : close_clean(j);
	}
	journal_free(j);
	return err;
}

/* ---- The next segment ------------------------------------------------- */

emdb_err manifest_commit_locked(struct journal *j, struct manifest *next, bool *ret_applied)
{
	bool applied = false;
	emdb_err err = manifest_mac_set(next, j->cfg.vault);

	if (!err)
		err = manifest_store(next, j->cfg.io, j->cfg.dirfd, &applied);

	if (ret_applied)
		*ret_applied = applied;
	if (!err) {
		manifest_release(&j->manifest);
		j->manifest = *next;
		*next = (struct manifest)MANIFEST_INIT;
	} else if (applied || (err != EMDB_ERR_NO_SPACE && err != EMDB_ERR_NOMEM &&
			       err != EMDB_ERR_TOO_MANY_FILES)) {
		journal_fail(j, "replacing the manifest", -emdb_err_errno(err));
	}
	return err;
}

/* Lists s durably. *ret_applied: the file must stay, whatever is returned. */
static emdb_err spare_list(struct journal *j, const struct segment *s, bool *ret_applied)
{
	struct manifest next = MANIFEST_INIT;
	emdb_err err;

	*ret_applied = false;
	mutex_lock(&j->manifest_lock);
	err = manifest_copy(&j->manifest, &next);
	if (!err)
		err = manifest_add(&next, s->id, 0, 0);
	next.head.durable_lsn = journal_durable(j);
	if (!err)
		err = manifest_commit_locked(j, &next, ret_applied);
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	return err;
}

static emdb_err spare_create(struct journal *j, struct segment **ret)
{
	char name[SEGMENT_NAME_SIZE];
	struct segment *s = NULL;
	bool applied;
	uint64_t id;
	emdb_err err = segments_reserve(j);

	if (err)
		return err;
	mutex_lock(&j->manifest_lock);
	id = j->manifest.head.next_segment++;
	mutex_unlock(&j->manifest_lock);
	err = recycle_or_create(j, id, &s);
	if (err)
		return err;
	err = spare_list(j, s, &applied);
	if (err) {
		segment_name(id, name);
		if (!applied)
			(void)io_unlinkat(j->cfg.io, j->env.dirfd, name, 0);
		segment_unref(s);
		return err;
	}
	segments_add(j, s);
	*ret = s;
	return EMDB_OK;
}

/* The spare, unless it takes the room that the next open needs. */
static emdb_err spare_within(struct journal *j) EMDB_REQUIRES(&j->roll_lock);
static emdb_err spare_within(struct journal *j)
{
	return room_stays(j, j->mask + 1) ? spare_create(j, &j->spare) : EMDB_ERR_NO_SPACE;
}

/* With the reserve kept there is room again for everybody. */
static emdb_err spare_make_kept_locked(struct journal *j) EMDB_REQUIRES(&j->roll_lock);
static emdb_err spare_make_kept_locked(struct journal *j)
{
	emdb_err err;

	if (io_clock_mono_ns(j->cfg.io) < j->spare_retry_ns)
		return EMDB_ERR_NO_SPACE;
	err = reserve_keep_locked(j);
	if (!err && !j->spare)
		err = spare_within(j);
	if (err == EMDB_ERR_NO_SPACE)
		j->spare_retry_ns = io_clock_mono_ns(j->cfg.io) + SPARE_RETRY_NS;
	if (!err) {
		j->spare_retry_ns = 0;
		atomic_store(&j->spent, false);
		atomic_store(&j->low_space, false);
	}
	return err;
}

/* Whatever there is, for what makes room; others wait until the reserve is back. */
static emdb_err spare_make_spending_locked(struct journal *j) EMDB_REQUIRES(&j->roll_lock);
static emdb_err spare_make_spending_locked(struct journal *j)
{
	emdb_err err = spare_within(j);

	if (err == EMDB_ERR_NO_SPACE && reserve_spend_locked(j))
		err = spare_create(j, &j->spare);
	return err;
}

emdb_err spare_make_locked(struct journal *j, bool spend)
{
	emdb_err err;

	lock_assert_held(LOCK_ROLL);
	if (j->spare && (spend || !atomic_load(&j->spent)))
		return EMDB_OK;
	if (journal_has_failed(j))
		return EMDB_ERR_FAILED;
	err = spare_make_kept_locked(j);
	if (err == EMDB_ERR_NO_SPACE && spend)
		err = spare_make_spending_locked(j);
	else if (err == EMDB_ERR_NO_SPACE && !atomic_exchange(&j->low_space, true))
		journal_log(j, EMDB_LOG_WARN, "journal: no space for another segment");
	atomic_store(&j->spare_ready, j->spare && !atomic_load(&j->spent));
	return err;
}

/* b holds everything but the header. */
static int write_whole(struct journal *j, const struct segment *s, uint8_t kind, uint8_t *b,
		       uint32_t len, uint64_t lsn)
{
	fmt_frame_header(b, kind, len, lsn, journal_durable(j));
	if (s->key)
		sealed_close(s->key, b, len);
	fmt_frame_finish(b, len, s->crc_seed);
	return io_pwrite_full(j->cfg.io, s->fd, b, len, lsn & j->mask);
}

static emdb_err write_seal(struct journal *j, const struct segment *s, uint64_t lsn)
{
	uint8_t b[SEAL_LEN + FMT_TAG] = { 0 };
	const int rc = write_whole(j, s, FRAME_SEAL, b, j->seal_len, lsn);

	if (rc < 0) {
		journal_fail(j, "sealing a segment", rc);
		return EMDB_ERR_IO;
	}
	return EMDB_OK;
}

/* Moves the tail to the spare. */
static emdb_err roll_locked(struct journal *j, bool spend) EMDB_REQUIRES(&j->roll_lock);
static emdb_err roll_locked(struct journal *j, bool spend)
{
	struct segment *const old = atomic_load_explicit(&j->active, memory_order_relaxed);
	struct segment *next;
	struct inflight *slot;
	uint64_t tail;
	emdb_err err = spare_make_locked(j, spend);

	if (err)
		return err;
	next = j->spare;
	j->spare = NULL;
	atomic_store(&j->spare_ready, false);
	atomic_store_explicit(&next->len, segment_bytes(next), memory_order_release);
	atomic_store_explicit(&next->state, SEGMENT_ACTIVE, memory_order_release);
	/* Before the tail: a writer that reserved in the new one finds it here. */
	atomic_store_explicit(&j->active, next, memory_order_release);
	slot = inflight_enter(j, &tail);
	while (!atomic_compare_exchange_weak(&j->tail, &tail, next->base + FMT_SEG_HEADER))
		;
	/* Nobody but us moves between segments, so this is in the old one, with seal_len left. */
	emdb_assert(tail >> j->env.shift == old->id);
	err = write_seal(j, old, tail);
	atomic_store_explicit(&old->len, (tail & j->mask) + j->seal_len, memory_order_release);
	atomic_store_explicit(&old->state, SEGMENT_ROLLED, memory_order_release);
	inflight_leave(slot);
	atomic_store(&j->spare_asked, false);
	keeper_kick(j);
	return err;
}

/* ---- Appending -------------------------------------------------------- */

size_t journal_payload_max(const struct journal *j)
{
	const uint64_t room = j->mask + 1 - FMT_SEG_HEADER - j->seal_len;

	return (size_t)(align_down(min_u64(room, FMT_FRAME_MAX), 8) - FMT_FRAME_HEADER - j->tag);
}

size_t journal_tag_size(const struct journal *j)
{
	return j->tag;
}

uint64_t journal_frame_size(const struct journal *j, size_t n)
{
	return align_up(FMT_FRAME_HEADER + n + j->tag, 8);
}

/* Where the frames of the segment that holds the tail must end. */
static inline uint64_t frames_end(const struct journal *j, uint64_t tail)
{
	const uint64_t end = (tail | j->mask) + 1 - j->seal_len;

	return likely(tail >= j->short_until) ? end : end - j->short_by;
}

static inline uint64_t room_end(const struct journal *j, uint64_t tail, unsigned int flags)
{
	const uint64_t end = frames_end(j, tail);

	if ((flags & JOURNAL_RESERVE) ||
	    likely(atomic_load_explicit(&j->spare_ready, memory_order_relaxed)))
		return end;
	/* Without a next segment at hand the last room is kept back, full disk or slow keeper. */
	return atomic_load_explicit(&j->spent, memory_order_relaxed) ? 0 : end - j->low_room;
}

/* There was no room for len bytes at tail. OK: try again. */
static EMDB_NOINLINE emdb_err make_room(struct journal *j, uint64_t tail, uint64_t len,
					unsigned int flags)
{
	emdb_err err = EMDB_OK;
	uint64_t now;

	mutex_lock(&j->roll_lock);
	now = journal_load_tail(j);
	if (journal_has_failed(j))
		err = EMDB_ERR_FAILED;
	else if (now >> j->env.shift != tail >> j->env.shift)
		; /* somebody rolled meanwhile */
	else if (now + len > frames_end(j, now))
		err = roll_locked(j, flags & JOURNAL_RESERVE);
	else if (now + len > room_end(j, now, flags))
		err = spare_make_locked(j, false); /* room is only kept back */
	mutex_unlock(&j->roll_lock);
	return err;
}

static inline emdb_err reserve(struct journal *j, uint64_t len, unsigned int flags,
			       struct inflight **ret_slot, uint64_t *ret_lsn)
{
	for (;;) {
		uint64_t tail;
		struct inflight *const slot = inflight_enter(j, &tail);
		emdb_err err;

		while (tail + len <= room_end(j, tail, flags)) {
			if (atomic_compare_exchange_weak(&j->tail, &tail, tail + len)) {
				*ret_slot = slot;
				*ret_lsn = tail;
				return EMDB_OK;
			}
		}
		/* Not while waiting for a segment: a sync would wait for us. */
		inflight_leave(slot);
		err = make_room(j, tail, len, flags);
		if (err)
			return err;
	}
}

/* Stays valid until the caller leaves its in-flight slot. */
static inline struct segment *segment_reserved(struct journal *j, uint64_t lsn)
{
	struct segment *s = atomic_load_explicit(&j->active, memory_order_acquire);

	if (unlikely(s->id != lsn >> j->env.shift)) {
		const unsigned pin = epoch_pin(j->cfg.epoch);

		s = table_find(j, lsn >> j->env.shift);
		epoch_unpin(j->cfg.epoch, pin);
	}
	return s;
}

/* Everything but the header, and the padding. */
static EMDB_NOINLINE void copy_pieces(uint8_t *b, const struct iovec *iov, int iov_count,
				      uint64_t len)
{
	uint8_t *at = b + FMT_FRAME_HEADER;

	for (int i = 0; i < iov_count; i++) {
		if (iov[i].iov_len)
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	memset(at, 0, (size_t)(b + len - at));
}

static EMDB_NOINLINE void touch_pieces(const struct iovec *iov, int iov_count)
{
	for (int i = 0; i < iov_count; i++) {
		const volatile uint8_t *const p = iov[i].iov_base;
		const size_t n = iov[i].iov_len;

		for (size_t k = 0; k < n; k += 4096)
			(void)p[k];
		if (n)
			(void)p[n - 1];
	}
}

/*
 * Brings the caller's bytes within reach before anything is reserved: into b, else, when it is NULL,
 * only by touching every page. They may lie in a mapped segment whose disk fails.
 */
static emdb_err gather(uint8_t *b, const struct iovec *iov, int iov_count, uint64_t len)
{
	struct guard g;

	if (!guard_begin(&g))
		return EMDB_ERR_IO;
	if (b)
		copy_pieces(b, iov, iov_count, len);
	else
		touch_pieces(iov, iov_count);
	guard_end(&g);
	return EMDB_OK;
}

/* CRC of a header and the pieces behind it; false when a page could not be read. */
static EMDB_NOINLINE bool crc_pieces(uint32_t seed, const uint8_t head[static FMT_FRAME_HEADER],
				     const struct iovec *v, int count, uint32_t *ret)
{
	struct guard g;
	uint32_t crc;

	if (!guard_begin(&g))
		return false;
	crc = crc32c(seed, head + 4, FMT_FRAME_HEADER - 4);
	for (int i = 0; i < count; i++)
		crc = crc32c(crc, v[i].iov_base, v[i].iov_len);
	guard_end(&g);
	*ret = crc;
	return true;
}

/* v has two more elements than iov. */
static int write_large(struct journal *j, const struct segment *s, uint8_t kind, struct iovec *v,
		       const struct iovec *iov, int iov_count, uint32_t len, uint64_t lsn)
{
	uint8_t head[FMT_FRAME_HEADER], zeros[8] = { 0 };
	size_t at = sizeof(head);
	uint32_t crc;

	fmt_frame_header(head, kind, len, lsn, journal_durable(j));
	v[0] = (struct iovec){ .iov_base = head, .iov_len = sizeof(head) };
	for (int i = 0; i < iov_count; i++) {
		v[i + 1] = iov[i];
		at += iov[i].iov_len;
	}
	v[iov_count + 1] = (struct iovec){ .iov_base = zeros, .iov_len = len - at };
	if (!crc_pieces(s->crc_seed, head, v + 1, iov_count + 1, &crc))
		return -EIO;
	put_u32(head, crc);
	return io_pwritev_full(j->cfg.io, s->fd, v, iov_count + 2, lsn & j->mask);
}

/* The frame's whole length, 0: too much. */
static uint64_t frame_len(const struct journal *j, uint8_t kind, const struct iovec *iov,
			  int iov_count)
{
	size_t sum = 0;

	for (int i = 0; i < iov_count; i++)
		if (emdb_add_ovf_size(sum, iov[i].iov_len, &sum))
			return 0;
	if (sum > journal_payload_max(j))
		return 0;
	return kind == FRAME_BATCH ? align_up(FMT_FRAME_HEADER + sum, 8)
				   : journal_frame_size(j, sum);
}

/*
 * A frame of len bytes is going to end at `end` of the segment, the next ones find their pages.  Not
 * soon after a large one, behind which there may come another.
 */
static EMDB_NOINLINE void make_ready(const struct journal *j, struct segment *s, uint64_t end,
				     uint64_t len)
{
	uint64_t from = atomic_load_explicit(&s->ready, memory_order_relaxed);
	const uint64_t to = min_u64(align_up(end + READY_BYTES, READY_BYTES), segment_bytes(s));
	const uint64_t begin = max_u64(from, align_down(end, READY_BYTES));

	/* Relaxed: it is a hint, one of the writers gives it. */
	if (from < to &&
	    atomic_compare_exchange_strong_explicit(&s->ready, &from, to, memory_order_relaxed,
						    memory_order_relaxed) &&
	    len <= READY_FRAME)
		io_ready(j->cfg.io, s->fd, s->map, begin, to - begin);
}

/* What is left once the bytes are at hand: in `whole`, or else where iov says. */
static emdb_err append_at(struct journal *j, uint8_t kind, uint8_t *whole, struct iovec *v,
			  const struct iovec *iov, int iov_count, uint64_t len, unsigned int flags,
			  uint64_t *ret_lsn)
{
	struct segment *s;
	struct inflight *slot;
	uint64_t lsn;
	emdb_err err = reserve(j, len, flags, &slot, &lsn);
	int rc;

	if (err)
		return err;
	s = segment_reserved(j, lsn);
	if (unlikely(len > READY_FRAME ||
		     (lsn & j->mask) + len >
			     atomic_load_explicit(&s->ready, memory_order_relaxed)) &&
	    !(flags & JOURNAL_COLD))
		make_ready(j, s, (lsn & j->mask) + len, len);
	if (whole)
		rc = write_whole(j, s, kind, whole, (uint32_t)len, lsn);
	else
		rc = write_large(j, s, kind, v, iov, iov_count, (uint32_t)len, lsn);
	if (unlikely(rc < 0)) {
		/*
		 * A hole that nothing can fill. Before the slot is left: a sync must not claim
		 * it.
		 */
		journal_fail(j, "writing a frame", rc);
		err = EMDB_ERR_IO;
	}
	inflight_leave(slot);
	if (err)
		return err;
	atomic_fetch_add_explicit(&j->appends, 1, memory_order_relaxed);
	if (unlikely((lsn & j->mask) + len > (j->mask + 1) / 2) &&
	    !atomic_load_explicit(&j->spare_asked, memory_order_relaxed) &&
	    !atomic_exchange(&j->spare_asked, true))
		keeper_kick(j);
	*ret_lsn = lsn;
	return EMDB_OK;
}

emdb_err journal_append(struct journal *j, uint8_t kind, const struct iovec *iov, int iov_count,
			unsigned int flags, uint64_t *ret_lsn)
{
	const uint64_t len = frame_len(j, kind, iov, iov_count);
	struct iovec stack[STACK_IOV + 2], *v = stack;
	uint8_t small[SMALL_FRAME], *whole = len <= SMALL_FRAME ? small : NULL;
	emdb_err err;

	if (unlikely(!atomic_load_explicit(&j->running, memory_order_acquire)))
		return EMDB_ERR_READ_ONLY;
	if (unlikely(journal_has_failed(j)))
		return EMDB_ERR_FAILED;
	if (unlikely(!len))
		return EMDB_ERR_TXN_TOO_BIG;
	if (!whole && j->cfg.vault)
		whole = base_malloc(len);
	else if (!whole && iov_count > STACK_IOV)
		v = base_calloc((size_t)iov_count + 2, sizeof(*v));
	if (!v || (!whole && j->cfg.vault))
		return EMDB_ERR_NOMEM;
	err = gather(whole, iov, iov_count, len);
	if (!err)
		err = append_at(j, kind, whole, v, iov, iov_count, len, flags, ret_lsn);
	if (v != stack)
		base_free(v);
	if (whole != small)
		base_free(whole);
	return err;
}

emdb_err journal_roll(struct journal *j, uint64_t *ret_lsn)
{
	emdb_err err = EMDB_OK;

	if (!atomic_load_explicit(&j->running, memory_order_acquire))
		return EMDB_ERR_READ_ONLY;
	mutex_lock(&j->roll_lock);
	if (journal_has_failed(j))
		err = EMDB_ERR_FAILED;
	else if ((journal_load_tail(j) & j->mask) != FMT_SEG_HEADER)
		err = roll_locked(j, false);
	if (!err)
		*ret_lsn = align_down(journal_load_tail(j), j->mask + 1) + FMT_SEG_HEADER;
	mutex_unlock(&j->roll_lock);
	return err;
}

emdb_err journal_roll_prepare(struct journal *j)
{
	emdb_err err;

	if (!atomic_load_explicit(&j->running, memory_order_acquire))
		return EMDB_ERR_READ_ONLY;
	mutex_lock(&j->roll_lock);
	err = spare_make_locked(j, false);
	mutex_unlock(&j->roll_lock);
	return err;
}

uint64_t journal_tail(const struct journal *j)
{
	return journal_load_tail(j);
}

uint64_t journal_durable(const struct journal *j)
{
	return atomic_load_explicit(&j->durable, memory_order_acquire);
}

bool journal_failed(const struct journal *j)
{
	return journal_has_failed(j);
}
