/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emdb_scrub(): reads again what a store in use has on its disk, and tells what does not check out.
 *
 *	1 what is acknowledged is synced, so that it is on the disk
 *	2 superblock and manifest of the store and of each snapshot; the manifests say what
 *	  else there is to be read: that is the plan
 *	3 checkpoints, then segments, each file once however many names it has
 *	4 what counts now and lies in damaged bytes is named
 *
 * Nobody is held up: no lock is held while anything is read. What the plan has and is not there when its turn comes
 * was compacted or removed meanwhile, if the store says so; else it is missing. A file that
 * goes while it is read stays readable, and what is wrong with it does not matter any more.
 *
 * Of the segment that is being written only what is durable is looked at: there is a frame at every
 * place of it, and nobody writes there again.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/checkpoint.h"
#include "core/scrub_i.h"
#include "core/segment_i.h"
#include "core/storedir.h"

/* The store itself, place 0, or a snapshot. */
struct place {
	char name[EMDB_SNAPSHOT_NAME_MAX + 1]; /* "": the store itself */
	uint64_t number;                       /* of the snapshot */
	struct manifest m;
	bool known; /* its manifest is good */
};

/* A name of a segment. */
struct item {
	uint64_t id, dev, ino, len;
	size_t place;
};

/* Bytes of the file at hand that do not check out. */
struct bad {
	uint64_t off, len;
	const char *why;
};

struct scrub {
	emdb_db *db;
	const struct emdb_scrub_options *o;
	struct emdb_scrub_report r;
	struct pace pace;
	struct window w;
	struct scrub_file file;
	struct buf places; /* struct place */
	struct buf items;  /* struct item */
	struct buf bads;   /* struct bad, at most DAMAGE_PLACES_MAX */
	uint64_t bad_count, bad_bytes;
	struct buf ranges; /* struct damage_range, of the store's own segments */
	emdb_err err;      /* no memory to remember something */
};

static struct place *place_at(const struct scrub *s, size_t i)
{
	return (struct place *)(void *)s->places.data + i;
}

static size_t place_count(const struct scrub *s)
{
	return s->places.len / sizeof(struct place);
}

static struct item *item_at(const struct scrub *s, size_t i)
{
	return (struct item *)(void *)s->items.data + i;
}

static size_t item_count(const struct scrub *s)
{
	return s->items.len / sizeof(struct item);
}

/* ---- Telling ---------------------------------------------------------------------- */

static void found(const struct scrub *s, const struct emdb_detail *detail)
{
	if (s->o->found)
		s->o->found(s->o->found_ctx, detail);
}

/* scrub_file.bad */
static void on_bad(void *ctx, uint64_t off, uint64_t len, const char *why)
{
	struct scrub *const s = ctx;
	const struct bad bad = { off, len, why };

	s->bad_count++;
	s->bad_bytes += len;
	if (s->bads.len / sizeof(bad) < DAMAGE_PLACES_MAX &&
	    buf_append(&s->bads, &bad, sizeof(bad)))
		s->err = EMDB_ERR_NOMEM;
}

/* "snapshots/NAME/" or "". */
static void prefix_of(const struct place *p, char buf[static 300])
{
	(void)snprintf(buf, 300, p->name[0] ? STOREDIR_SNAPSHOTS "/%s/" : "%s", p->name);
}

/* All that is wrong with a file; segment UINT64_MAX: it is none. */
static void tell_bads(struct scrub *s, const struct place *p, const char *name, uint64_t segment)
{
	struct emdb_detail d = { .segment = segment };
	char prefix[300];

	prefix_of(p, prefix);
	d.damage = segment == UINT64_MAX ? EMDB_DAMAGE_FILE : EMDB_DAMAGE_PLACE;
	for (size_t i = 0; i < s->bads.len / sizeof(struct bad); i++) {
		const struct bad *const b = (const struct bad *)(const void *)s->bads.data + i;
		const struct damage_range range = { (segment << s->db->sb.segment_shift) + b->off,
						    b->len };

		d.offset = b->off;
		d.len = b->len;
		(void)snprintf(d.text, sizeof(d.text),
			       "%s%s%s offset %" PRIu64 ": %s, %" PRIu64 " bytes", prefix,
			       segment == UINT64_MAX ? "" : STOREDIR_JOURNAL "/", name, b->off,
			       b->why, b->len);
		found(s, &d);
		if (segment != UINT64_MAX && !p->name[0] &&
		    buf_append(&s->ranges, &range, sizeof(range)))
			s->err = EMDB_ERR_NOMEM;
	}
	s->r.damaged += s->bad_count;
	s->r.damaged_bytes += s->bad_bytes;
}

/* ---- What goes meanwhile -------------------------------------------------------------- */

/* Is the snapshot still the one that was there? */
static bool snapshot_gone(const struct scrub *s, const struct place *p)
{
	struct emdb_snapshot now;
	const emdb_err err = emdb_snapshot_get(s->db, p->name, &now);

	return err == EMDB_ERR_NOT_FOUND || (!err && !now.err && now.number != p->number);
}

static bool segment_gone(const struct scrub *s, uint64_t id)
{
	const unsigned int pin = epoch_pin(&s->db->epoch);
	const bool gone = journal_retired_pinned(s->db->j, id << s->db->sb.segment_shift);

	epoch_unpin(&s->db->epoch, pin);
	return gone;
}

static bool checkpoint_gone(const struct scrub *s, uint64_t number)
{
	struct journal_checkpoint c;

	journal_checkpoint_get(s->db->j, &c);
	return number != c.number && number != c.prev_number;
}

/* ---- Files ---------------------------------------------------------------------------- */

/* The directory of a place, its journal with `journal`. NOT_FOUND: there is none. */
static emdb_err place_open(const struct scrub *s, const struct place *p, bool journal, int *ret_fd)
{
	char path[300 + sizeof(STOREDIR_JOURNAL)];

	if (p->name[0])
		(void)snprintf(path, sizeof(path), STOREDIR_SNAPSHOTS "/%s%s", p->name,
			       journal ? "/" STOREDIR_JOURNAL : "");
	else
		(void)snprintf(path, sizeof(path), "%s", journal ? STOREDIR_JOURNAL : ".");
	return storedir_open(s->db->io, s->db->dirfd, path, ret_fd);
}

/* Opens it, with nothing said of it yet. */
static emdb_err file_begin(struct scrub *s, int dirfd, const char *name)
{
	buf_reset(&s->bads);
	s->bad_count = s->bad_bytes = 0;
	return window_open(&s->w, dirfd, name);
}

/* What is no shortage of the machine is damage. */
static bool is_damage(emdb_err err)
{
	return err == EMDB_ERR_NOT_FOUND || err == EMDB_ERR_IO || err == EMDB_ERR_NOT_STORE ||
	       err == EMDB_ERR_PERM;
}

static const char *open_text(emdb_err err)
{
	return err == EMDB_ERR_NOT_FOUND ? "the file is missing" : "the file cannot be opened";
}

enum small { SUPER, SUPER_BAK, MANIFEST };

/* A file that must be there, but for the copy of the superblock. */
static emdb_err small_file(struct scrub *s, struct place *p, int dirfd, enum small what)
{
	static const char *const names[] = { STOREDIR_SUPER, STOREDIR_SUPER_BAK, MANIFEST_NAME };
	struct superblock sb;
	emdb_err err = file_begin(s, dirfd, names[what]);
	bool good;

	if (is_damage(err)) {
		if (what != SUPER_BAK || err != EMDB_ERR_NOT_FOUND)
			on_bad(s, 0, 0, open_text(err));
		err = EMDB_OK;
	} else if (!err) {
		err = what == MANIFEST ? scrub_manifest(&s->file, &p->m, &p->known)
				       : scrub_super(&s->file, &sb, &good);
	}
	if (!err && s->bad_count && !(p->name[0] && snapshot_gone(s, p)))
		tell_bads(s, p, names[what], UINT64_MAX);
	return err;
}

static emdb_err look_at_place(struct scrub *s, struct place *p)
{
	int fd = -1;
	emdb_err err = place_open(s, p, false, &fd);

	if (err == EMDB_ERR_NOT_FOUND && p->name[0])
		return EMDB_OK; /* removed */
	if (!err)
		err = small_file(s, p, fd, SUPER);
	if (!err)
		err = small_file(s, p, fd, SUPER_BAK);
	if (!err)
		err = small_file(s, p, fd, MANIFEST);
	window_close(&s->w);
	(void)io_close(s->db->io, fd);
	return err;
}

/* One checkpoint that a manifest names. */
static emdb_err one_checkpoint(struct scrub *s, const struct place *p, int dirfd, uint64_t number,
			       uint64_t lsn)
{
	char name[CHECKPOINT_NAME_SIZE];
	emdb_err err;

	checkpoint_name(number, name);
	err = file_begin(s, dirfd, name);
	if (is_damage(err)) {
		on_bad(s, 0, 0, open_text(err));
		err = EMDB_OK;
	} else if (!err) {
		err = scrub_checkpoint(&s->file, number, lsn);
	}
	if (err || !s->bad_count)
		return err;
	if (!(p->name[0] ? snapshot_gone(s, p) : checkpoint_gone(s, number)))
		tell_bads(s, p, name, UINT64_MAX);
	return EMDB_OK;
}

static emdb_err checkpoints_of(struct scrub *s, const struct place *p)
{
	const struct manifest_head *const h = &p->m.head;
	int fd = -1;
	emdb_err err;

	if (!p->known || !h->ckpt)
		return EMDB_OK;
	err = place_open(s, p, false, &fd);
	if (err)
		return err == EMDB_ERR_NOT_FOUND && p->name[0] ? EMDB_OK : err;
	err = one_checkpoint(s, p, fd, h->ckpt, h->ckpt_lsn);
	if (!err && h->ckpt_prev)
		err = one_checkpoint(s, p, fd, h->ckpt_prev, h->ckpt_prev_lsn);
	window_close(&s->w);
	(void)io_close(s->db->io, fd);
	return err;
}

/* ---- The plan ------------------------------------------------------------------------- */

static bool add_snapshot(void *ctx, const struct emdb_snapshot *snapshot)
{
	struct scrub *const s = ctx;
	struct place p = { .number = snapshot->number, .m = MANIFEST_INIT };

	memcpy(p.name, snapshot->name, sizeof(p.name));
	if (buf_append(&s->places, &p, sizeof(p)))
		s->err = EMDB_ERR_NOMEM;
	return !s->err;
}

static emdb_err add_item(struct scrub *s, int journal, size_t place, uint64_t id, uint64_t len)
{
	struct item item = { .id = id, .len = len, .place = place };
	char name[SEGMENT_NAME_SIZE];
	struct io_stat st;

	segment_name(id, name);
	/* When it is not there its turn will show what that means. */
	if (io_fstatat(s->db->io, journal, name, &st) == 0) {
		item.dev = st.dev;
		item.ino = st.ino;
	}
	return buf_append(&s->items, &item, sizeof(item)) ? EMDB_ERR_NOMEM : EMDB_OK;
}

/* Bytes of a segment that are on the disk and stay as they are. */
static uint64_t settled_len(const emdb_db *db, const struct journal_seg_info *info)
{
	const uint64_t base = info->id << db->sb.segment_shift, durable = journal_durable(db->j);

	if (info->sealed)
		return info->len;
	return max_u64(min_u64(info->len, durable > base ? durable - base : 0), FMT_SEG_HEADER);
}

static emdb_err plan_live(struct scrub *s, int journal)
{
	emdb_db *const db = s->db;
	size_t n = journal_segments(db->j, NULL, 0) + 2;
	struct journal_seg_info *const list = base_calloc(n, sizeof(*list));
	emdb_err err = list ? journal_manifest_get(db->j, &place_at(s, 0)->m) : EMDB_ERR_NOMEM;

	if (!err)
		n = min_size(journal_segments(db->j, list, n), n);
	for (size_t i = 0; !err && i < n; i++)
		err = add_item(s, journal, 0, list[i].id, settled_len(db, &list[i]));
	place_at(s, 0)->known = !err;
	base_free(list);
	return err;
}

static emdb_err plan_place(struct scrub *s, size_t i)
{
	struct place *const p = place_at(s, i);
	int fd = -1;
	emdb_err err;

	if (i && !p->known)
		return EMDB_OK;
	err = place_open(s, p, true, &fd);
	if (err == EMDB_ERR_NOT_FOUND && i)
		return EMDB_OK;
	if (!err && i == 0)
		err = plan_live(s, fd);
	for (uint32_t k = 0; !err && i && k < p->m.head.nsegs; k++)
		err = add_item(s, fd, i, p->m.segs[k].id, p->m.segs[k].len);
	(void)io_close(s->db->io, fd);
	return err;
}

static int by_file(const void *a, const void *b)
{
	const struct item *const x = a, *const y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->place < y->place ? -1 : x->place > y->place;
}

/* Names of one file follow each other; one past the last of those that begin at i. */
static size_t names_end(const struct scrub *s, size_t i)
{
	const struct item *const a = item_at(s, i);
	size_t k = i + 1;

	while (a->ino && k < item_count(s) && item_at(s, k)->id == a->id &&
	       item_at(s, k)->dev == a->dev && item_at(s, k)->ino == a->ino)
		k++;
	return k;
}

static uint64_t longest(const struct scrub *s, size_t i, size_t end)
{
	uint64_t len = 0;

	for (; i < end; i++)
		len = max_u64(len, item_at(s, i)->len);
	return len;
}

static emdb_err plan(struct scrub *s)
{
	emdb_err err = emdb_snapshot_list(s->db, add_snapshot, s);

	if (!err)
		err = s->err;
	for (size_t i = 0; !err && i < place_count(s); i++) {
		err = look_at_place(s, place_at(s, i));
		if (!err)
			err = plan_place(s, i);
	}
	if (err || !item_count(s))
		return err;
	qsort(s->items.data, item_count(s), sizeof(struct item), by_file);
	s->pace.total = s->pace.done;
	for (size_t i = 0, end; i < item_count(s); i = end) {
		end = names_end(s, i);
		s->pace.total += longest(s, i, end);
	}
	return EMDB_OK;
}

/* ---- Segments -------------------------------------------------------------------------- */

static bool item_gone(const struct scrub *s, const struct item *item)
{
	return item->place ? snapshot_gone(s, place_at(s, item->place)) : segment_gone(s, item->id);
}

/* The salt by which the store reads the segment; false: it does not have it, or not surely. */
static bool salt_of(const struct scrub *s, uint64_t id, uint8_t salt[static 32])
{
	const unsigned int pin = epoch_pin(&s->db->epoch);
	const struct segment *const seg =
		journal_segment_pinned(s->db->j, id << s->db->sb.segment_shift);
	const bool known = seg && !seg->headless;

	if (known)
		memcpy(salt, seg->salt, 32);
	epoch_unpin(&s->db->epoch, pin);
	return known;
}

/* By one of its names. *ret_gone: it has it no more. */
static emdb_err read_item(struct scrub *s, const struct item *item, uint64_t len, bool *ret_gone)
{
	const struct place *const p = place_at(s, item->place);
	uint8_t salt[32];
	const struct scrub_segment seg = {
		.id = item->id,
		.len = len,
		.shift = s->db->sb.segment_shift,
		.seeded = s->db->sb.incompat & FMT_INCOMPAT_SEEDED,
		.gaps = &p->m,
		.salt = item->place == 0 && salt_of(s, item->id, salt) ? salt : NULL,
	};
	char name[SEGMENT_NAME_SIZE];
	int fd = -1;
	emdb_err err = place_open(s, p, true, &fd);

	segment_name(item->id, name);
	if (!err)
		err = file_begin(s, fd, name);
	if (is_damage(err)) {
		buf_reset(&s->bads);
		s->bad_count = s->bad_bytes = 0;
		on_bad(s, 0, len, open_text(err));
		err = EMDB_OK;
	} else if (!err) {
		err = scrub_segment(&s->file, &seg);
	}
	window_close(&s->w);
	(void)io_close(s->db->io, fd);
	*ret_gone = !err && s->bad_count && item_gone(s, item);
	if (!err && s->bad_count && !*ret_gone)
		tell_bads(s, p, name, item->id);
	return err;
}

/* Whose file it is, too. */
static void tell_sharers(const struct scrub *s, size_t i, size_t end)
{
	for (; i < end; i++) {
		const struct place *const p = place_at(s, item_at(s, i)->place);
		struct emdb_detail d = { .segment = item_at(s, i)->id,
					 .damage = EMDB_DAMAGE_SNAPSHOT };

		if (!p->name[0])
			continue;
		(void)snprintf(d.path, sizeof(d.path), "%s", p->name);
		(void)snprintf(d.text, sizeof(d.text),
			       "snapshot \"%.255s\" has this segment (emdb check "
			       "STORE/snapshots/NAME says what that means)",
			       p->name);
		found(s, &d);
	}
}

static emdb_err read_segments(struct scrub *s)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0, end; !err && i < item_count(s); i = end) {
		bool gone = true;
		uint64_t len;

		end = names_end(s, i);
		len = longest(s, i, end);
		for (size_t k = i; !err && gone && k < end; k++)
			err = read_item(s, item_at(s, k), len, &gone);
		if (err)
			break;
		if (!gone && s->bad_count)
			tell_sharers(s, i, end);
		if (!gone)
			continue;
		s->r.skipped_bytes += len;
		pace_skip(&s->pace, len);
	}
	return err;
}

/* ---- Who suffers ------------------------------------------------------------------------- */

static emdb_err name_losses(struct scrub *s)
{
	const size_t n = s->ranges.len / sizeof(struct damage_range);
	struct emdb_detail detail;
	struct damage d;
	emdb_err err;

	if (!n)
		return EMDB_OK;
	damage_init(&d);
	d.db = s->db;
	err = damage_live(&d, (const struct damage_range *)(const void *)s->ranges.data, n);
	for (size_t i = 0; !err && i < damage_losses(&d); i++) {
		damage_tell(&d, damage_loss(&d, i), &detail);
		s->r.lost_entries++;
		found(s, &detail);
	}
	damage_release(&d);
	return err;
}

/* ---- The call ------------------------------------------------------------------------------ */

static emdb_err scrub_all(struct scrub *s)
{
	const struct place store = { .name = "", .m = MANIFEST_INIT };
	emdb_err err = EMDB_OK, named;

	/* A store that cannot write has what it has. */
	if (!s->db->read_only && journal_sync(s->db->j) == EMDB_ERR_NOMEM)
		return EMDB_ERR_NOMEM;
	if (buf_append(&s->places, &store, sizeof(store)))
		return EMDB_ERR_NOMEM;
	pace_begin(&s->pace);
	err = plan(s);
	for (size_t i = 0; !err && i < place_count(s); i++)
		err = checkpoints_of(s, place_at(s, i));
	if (!err)
		err = read_segments(s);
	/* Also when it was stopped half way: what was found is told. */
	named = name_losses(s);
	if (!err)
		err = named ? named : s->err;
	return err;
}

static void scrub_release(struct scrub *s)
{
	for (size_t i = 0; i < place_count(s); i++)
		manifest_release(&place_at(s, i)->m);
	window_release(&s->w);
	buf_release(&s->file.plain);
	buf_release(&s->places);
	buf_release(&s->items);
	buf_release(&s->bads);
	buf_release(&s->ranges);
}

/* One that was stopped and found nothing says less than the one before. */
static void keep_status(const struct scrub *s)
{
	struct scrub_status st = {
		.complete = s->r.complete,
		.began_ms = s->r.began_ms,
		.ended_ms = s->r.ended_ms,
		.bytes = s->r.bytes,
		.frames = s->r.frames,
		.damaged = s->r.damaged,
		.lost_entries = s->r.lost_entries,
		.skipped_bytes = s->r.skipped_bytes,
	};

	if (s->db->read_only || (!st.complete && !st.damaged))
		return;
	memcpy(st.uuid, s->db->sb.uuid, sizeof(st.uuid));
	if (storedir_scrub_write(s->db->io, s->db->dirfd, &st) && s->db->log)
		s->db->log(s->db->log_ctx, EMDB_LOG_WARN,
			   "scrub: what was found cannot be written to STORE/scrub");
}

static int64_t real_ms(const emdb_db *db)
{
	return (int64_t)(io_clock_real_ns(db->io) / 1000000);
}

emdb_err emdb_scrub(emdb_db *db, const struct emdb_scrub_options *opts,
		    struct emdb_scrub_report *ret_report)
{
	static const struct emdb_scrub_options plain = { .size = sizeof(plain) };
	struct scrub s = { .db = db, .o = opts ? opts : &plain, .places = BUF_INIT };
	emdb_err err;

	if (s.o->size != sizeof(*s.o))
		return EMDB_ERR_INVAL;
	if (db->memory)
		return EMDB_ERR_UNSUPPORTED;
	if (atomic_exchange(&db->scrub.active, true))
		return EMDB_ERR_BUSY;
	s.pace = (struct pace){ .io = db->io,
				.rate = s.o->bytes_per_second,
				.progress = s.o->progress,
				.progress_ctx = s.o->progress_ctx,
				.shown_done = &db->scrub.done,
				.shown_total = &db->scrub.total };
	s.w = (struct window){ .io = db->io, .pace = &s.pace, .fd = -1 };
	s.file = (struct scrub_file){
		.w = &s.w, .uuid = db->sb.uuid, .vault = db->vault, .bad = on_bad, .ctx = &s
	};
	s.r.began_ms = real_ms(db);
	err = scrub_all(&s);
	s.r.ended_ms = real_ms(db);
	s.r.complete = err == EMDB_OK;
	s.r.frames = s.file.frames;
	s.r.bytes = s.w.bytes;
	s.r.cached_bytes = s.w.cached_bytes;
	keep_status(&s);
	scrub_release(&s);
	atomic_store(&db->scrub.total, 0);
	atomic_store(&db->scrub.active, false);
	if (ret_report)
		*ret_report = s.r;
	return err ? err : s.r.damaged ? EMDB_ERR_CORRUPT : EMDB_OK;
}
