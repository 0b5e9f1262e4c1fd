/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay of the journal, classification of its end, and the start of a new part.
 *
 * Where a frame is expected and none is found, at LSN P, with M the highest durable mark seen
 * anywhere:
 *
 *	P < M, P is a listed gap    known, skipped
 *	P < M                       damage: what was durable does not check out
 *	P >= M, same boot           a writer was killed between reserving and writing. The page
 *	                            cache has all that was written: good frames behind P were
 *	                            acknowledged and count; the bytes up to the next one are a gap.
 *	                            With no good frame behind P the log ends here.
 *	P >= M, another boot        torn tail: pages may be lost, frames behind P may be there
 *	                            though others before them are not. The log ends here; all behind
 *	                            it is cut.
 *
 * A segment may have been made of the file of a dead one, whose bytes then follow its last frame as
 * zeros do elsewhere. They are no frames: their LSNs are those of another segment, and their CRCs
 * begin with another salt. What is told to be torn or damaged ends where this segment's own do.
 *
 * M can only be known after looking behind the first stop, so that is done once, before deciding.
 * Sealed segments must be good up to their length: their ends count for M.
 */
#include <string.h>

#include "core/journal_i.h"

#define REDIRTY_CHUNK (256u * 1024u)

struct walk {
	struct journal *j;
	journal_replay_fn fn;
	void *ctx;
	struct journal_end *end;
	const struct manifest *gaps; /* known ones */
	struct manifest *found;      /* new ones */
	bool salvage;
	bool quiet;        /* no detail: the caller of journal_open is gone */
	struct buf view;   /* of the frame at hand, when it is sealed */
	bool looked;       /* behind the first stop */
	bool alive;        /* there is a good frame behind it */
	size_t last_alive; /* last segment that holds a good frame behind it */
};

/* What stopped a walk within a segment. */
struct stop {
	enum frame_status st;
	bool unreadable; /* the disk did not deliver */
	bool senseless;  /* the frame checks out, what it says does not */
};

static const char *stop_text(const struct stop *why)
{
	if (why->unreadable)
		return "the disk could not read it";
	if (why->senseless)
		return "a frame that makes no sense";
	if (why->st == FRAME_END)
		return "zeros where durable frames were";
	if (why->st == FRAME_OK)
		return "a frame reaches beyond the end";
	return fmt_frame_status_text(why->st);
}

static bool same_boot(const struct journal *j, const struct segment *s)
{
	static const uint8_t unknown[16];

	return memcmp(s->boot_id, unknown, sizeof(unknown)) != 0 &&
	       memcmp(s->boot_id, j->env.boot_id, sizeof(s->boot_id)) == 0;
}

/* Bytes of s in which there can be frames. */
static uint64_t file_end(const struct segment *s)
{
	return min_u64(atomic_load_explicit(&s->size, memory_order_relaxed), segment_bytes(s));
}

static void mark(struct walk *w, const struct frame *f)
{
	w->end->durable_mark = max_u64(w->end->durable_mark, fmt_frame_durable(f));
}

/* Next good frame at or after off; false: none before end. Jumps over what cannot be read. */
static bool next_frame(const struct segment *s, uint64_t off, uint64_t end, bool whole,
		       struct frame *ret, uint64_t *ret_off)
{
	enum frame_status st = FRAME_END;

	while (off < end && segment_scan(s, off, end, whole, &st, ret, &off) != EMDB_OK)
		st = FRAME_END;
	if (off >= end || st != FRAME_OK)
		return false;
	*ret_off = off;
	return true;
}

/* Where to look for the next frame after a stop at off. */
static uint64_t behind(const struct segment *s, uint64_t off, const struct stop *why, bool whole)
{
	enum frame_status st = FRAME_BAD_CRC;
	struct frame f;

	/* A frame that a killed process did not write to its end: what it holds is no frame. */
	if (whole && !why->unreadable && why->st == FRAME_BAD_CRC &&
	    segment_parse(s, off, file_end(s), false, &st, &f) == EMDB_OK && st == FRAME_OK)
		return off + f.len;
	return off + 8;
}

/*
 * Looks at everything behind the first stop, in segment i at off, for marks and life. Every byte: a
 * damaged length must not hide the mark that shows the damage.
 */
static void look_behind(struct walk *w, size_t i, uint64_t off)
{
	struct journal *const j = w->j;
	uint64_t at = off + 8;

	if (w->looked)
		return;
	w->looked = true;
	w->last_alive = i;
	for (; i < j->count; i++, at = FMT_SEG_HEADER) {
		const struct segment *const s = j->list[i];
		struct frame f;

		while (next_frame(s, at, file_end(s), false, &f, &at)) {
			mark(w, &f);
			w->alive = true;
			w->last_alive = i;
			at += f.len;
		}
	}
}

/* Bytes behind the end of the log, in segment i at off, and in all later ones. */
static uint64_t torn_bytes(const struct journal *j, size_t i, uint64_t off)
{
	uint64_t n = 0;

	for (; i < j->count; i++, off = FMT_SEG_HEADER) {
		const uint64_t end = file_end(j->list[i]);

		if (off < end)
			n += segment_written(j->list[i], off, end) - off;
	}
	return n;
}

/* Something is wrong at off; the bytes up to `to` are lost. */
static emdb_err damage(struct walk *w, const struct segment *s, uint64_t off, uint64_t to,
		       const struct stop *why)
{
	char name[SEGMENT_NAME_SIZE];

	segment_name(s->id, name);
	if (!w->salvage) {
		if (w->quiet)
			return EMDB_ERR_DAMAGED;
		journal_detail(w->j, s->id, off,
			       JOURNAL_DIR "/%s offset %llu: %s, %llu bytes unreadable", name,
			       (unsigned long long)off, stop_text(why),
			       (unsigned long long)(to - off));
		return EMDB_ERR_DAMAGED;
	}
	journal_found(w->j, s, s->id, off, to - off,
		      JOURNAL_DIR "/%s offset %llu: %s, %llu bytes skipped", name,
		      (unsigned long long)off, stop_text(why), (unsigned long long)(to - off));
	w->end->damages++;
	w->end->skipped_bytes += to - off;
	return manifest_gap_add(w->found, s->base + off, to - off);
}

/* *why says what is there; an error is the machine's. */
static emdb_err read_frame(struct walk *w, const struct segment *s, uint64_t off, uint64_t end,
			   struct stop *why, struct frame *ret)
{
	const emdb_err err = segment_view(s, off, end, &w->view, &why->st, ret);

	why->unreadable = err == EMDB_ERR_IO;
	return why->unreadable ? EMDB_OK : err;
}

/* A good frame: counts it and hands it over. */
static emdb_err hand_over(struct walk *w, struct segment *s, const struct frame *f)
{
	const struct stop why = { .st = FRAME_OK, .senseless = true };
	emdb_err err;

	mark(w, f);
	w->end->frames++;
	err = f->kind == FRAME_SEAL ? EMDB_OK : w->fn(w->ctx, s, f);
	if (err != EMDB_ERR_CORRUPT || !w->salvage)
		return err;
	return damage(w, s, f->lsn - s->base, f->lsn - s->base + f->len, &why);
}

/* ---- A sealed segment ------------------------------------------------- */

static emdb_err walk_sealed(struct walk *w, struct segment *s, uint64_t off)
{
	const uint64_t len = segment_len(s), end = min_u64(len, file_end(s));
	emdb_err err = EMDB_OK;

	while (!err && off < len) {
		const uint64_t gap = manifest_gap_at(w->gaps, s->base + off);
		struct stop why = { .st = FRAME_TRUNC_HEADER };
		struct frame f;
		uint64_t next;

		if (gap && gap <= len - off) {
			off += gap;
			continue;
		}
		if (off < end)
			err = read_frame(w, s, off, end, &why, &f);
		if (err)
			break;
		if (off < end && !why.unreadable && why.st == FRAME_OK) {
			off += f.len;
			err = hand_over(w, s, &f);
			continue;
		}
		if (off >= end || !next_frame(s, off + 8, end, false, &f, &next))
			next = len;
		err = damage(w, s, off, next, &why);
		off = next;
	}
	return err;
}

/* ---- An open segment -------------------------------------------------- */

enum verdict { GO_ON, SEGMENT_DONE, LOG_ENDS };

/* Decides at a stop. GO_ON: *off is where the next frame is. */
/* What was durable, or cannot be read, is not there. */
static emdb_err judge_damage(struct walk *w, struct segment *s, uint64_t at, uint64_t next,
			     bool more, const struct stop *why, enum verdict *ret)
{
	const uint64_t end = max_u64(file_end(s), at + 8), mark = w->end->durable_mark;

	if (!more) {
		/* To the last byte that was written, as far as anybody can tell. */
		if (at < file_end(s))
			next = align_up(segment_written(s, at, file_end(s)), 8);
		next = max_u64(next, at + 8);
		if (mark > s->base)
			next = max_u64(next, mark - s->base);
		next = min_u64(next, end);
		*ret = SEGMENT_DONE;
		w->end->reason = why->st;
	}
	return damage(w, s, at, next, why);
}

/* Decides at a stop. GO_ON: *off is where the next frame is. */
static emdb_err judge(struct walk *w, size_t i, uint64_t *off, const struct stop *why,
		      enum verdict *ret)
{
	struct segment *const s = w->j->list[i];
	const bool whole = same_boot(w->j, s);
	const uint64_t at = *off;
	struct frame f;
	uint64_t next = at;
	bool more;

	look_behind(w, i, at);
	more = w->alive && w->last_alive >= i &&
	       next_frame(s, behind(s, at, why, whole), file_end(s), whole, &f, &next);
	*ret = GO_ON;
	*off = next;
	/* What does not authenticate was written by nobody who crashed. */
	if (s->base + at < w->end->durable_mark || why->unreadable || why->st == FRAME_FORGED)
		return judge_damage(w, s, at, next, more, why, ret);
	if (whole && more) {
		journal_log(w->j, EMDB_LOG_INFO,
			    "journal: a killed writer left a gap of %llu bytes",
			    (unsigned long long)(next - at));
		return manifest_gap_add(w->found, s->base + at, next - at);
	}
	/* The frame that was lost, or the SEAL, was the last here: the next segment goes on. */
	*ret = whole && w->last_alive > i ? SEGMENT_DONE : LOG_ENDS;
	w->end->reason = why->st;
	return EMDB_OK;
}

static emdb_err walk_open(struct walk *w, size_t i, uint64_t off, enum verdict *ret)
{
	struct segment *const s = w->j->list[i];
	const uint64_t end = file_end(s);
	emdb_err err = EMDB_OK;

	*ret = GO_ON;
	while (!err && *ret == GO_ON) {
		struct stop why = { .st = FRAME_END };
		struct frame f;

		if (off < end)
			err = read_frame(w, s, off, end, &why, &f);
		if (err)
			break;
		if (off >= end || why.unreadable || why.st != FRAME_OK) {
			w->end->lsn = s->base + off;
			err = judge(w, i, &off, &why, ret);
			continue;
		}
		off += f.len;
		w->end->lsn = s->base + off;
		/* What is handed over can be read. */
		atomic_store_explicit(&s->len, off, memory_order_release);
		err = hand_over(w, s, &f);
		if (f.kind == FRAME_SEAL)
			*ret = SEGMENT_DONE;
	}
	/*
	 * Zeros and no frame behind them: the common end, not worth reading all that follows
	 * again.
	 */
	if (!err && *ret == LOG_ENDS && (w->alive || w->end->reason != FRAME_END))
		w->end->torn_bytes = torn_bytes(w->j, i, w->end->lsn - s->base);
	return err;
}

/* ---- Replay ----------------------------------------------------------- */

/* Ends of sealed segments are durable by definition. */
static uint64_t known_durable(const struct journal *j)
{
	uint64_t lsn = j->manifest.head.durable_lsn;

	for (size_t i = 0; i < j->count; i++)
		if (segment_state(j->list[i]) == SEGMENT_SEALED)
			lsn = max_u64(lsn, j->list[i]->base + segment_len(j->list[i]));
	return lsn;
}

static emdb_err walk_all(struct walk *w, uint64_t from_lsn)
{
	struct journal *const j = w->j;
	enum verdict verdict = SEGMENT_DONE;
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && verdict != LOG_ENDS && i < j->count; i++) {
		struct segment *const s = j->list[i];
		const bool sealed = segment_state(s) == SEGMENT_SEALED;
		uint64_t off = FMT_SEG_HEADER;

		if (s->base + segment_bytes(s) <= from_lsn && sealed)
			continue;
		if (from_lsn > s->base + off) {
			/* What is before can be read. */
			off = align_up(min_u64(from_lsn - s->base, segment_bytes(s)), 8);
			if (!sealed)
				atomic_store_explicit(
					&s->len,
					max_u64(min_u64(off, align_down(file_end(s), 8)),
						FMT_SEG_HEADER),
					memory_order_release);
		}
		if (sealed)
			err = walk_sealed(w, s, off);
		else
			err = walk_open(w, i, off, &verdict);
		if (sealed)
			w->end->lsn = s->base + segment_len(s);
	}
	return err;
}

emdb_err journal_replay(struct journal *j, uint64_t from_lsn, journal_replay_fn fn, void *ctx,
			struct journal_end *ret_end)
{
	struct journal_end end = {
		.lsn = (j->manifest.head.next_segment << j->env.shift) + FMT_SEG_HEADER,
		.reason = FRAME_END,
		.durable_mark = known_durable(j),
		.skipped_bytes = j->missing_bytes,
		.damages = j->missing,
	};
	struct walk w = { .j = j,
			  .fn = fn,
			  .ctx = ctx,
			  .end = &end,
			  .gaps = &j->manifest,
			  .found = &j->found,
			  .salvage = j->cfg.salvage,
			  .view = BUF_INIT };
	emdb_err err = walk_all(&w, from_lsn);

	buf_release(&w.view);
	if (err)
		return err;
	atomic_store(&j->tail, end.lsn);
	atomic_store(&j->durable, end.lsn);
	j->end = end;
	j->replayed = true;
	j->cfg.detail = NULL; /* the caller's, and only until here */
	*ret_end = end;
	return EMDB_OK;
}

static emdb_err walk_one(struct journal *j, uint64_t id, bool check, journal_replay_fn fn,
			 void *ctx)
{
	const unsigned pin = epoch_pin(j->cfg.epoch);
	struct segment *const s = journal_segment_pinned(j, id << j->env.shift);
	struct manifest gaps = MANIFEST_INIT, found = MANIFEST_INIT;
	struct journal_end end = { .lsn = 0 };
	struct walk w = { .j = j,
			  .fn = fn,
			  .ctx = ctx,
			  .end = &end,
			  .gaps = &gaps,
			  /* Known as a gap once it is repaired. */
			  .found = check && j->cfg.repair ? &j->found : &found,
			  .salvage = check,
			  .quiet = true,
			  .view = BUF_INIT };
	emdb_err err = EMDB_ERR_INVAL;

	if (s)
		segment_ref(s);
	epoch_unpin(j->cfg.epoch, pin);
	if (s && (check || segment_state(s) == SEGMENT_SEALED)) {
		mutex_lock(&j->manifest_lock);
		err = manifest_copy(&j->manifest, &gaps);
		mutex_unlock(&j->manifest_lock);
		if (!err)
			err = walk_sealed(&w, s, FMT_SEG_HEADER);
		if (err == EMDB_ERR_DAMAGED)
			err = EMDB_ERR_CORRUPT;
	}
	if (s)
		segment_unref(s);
	manifest_release(&gaps);
	manifest_release(&found);
	buf_release(&w.view);
	return err;
}

emdb_err journal_walk_segment(struct journal *j, uint64_t id, journal_replay_fn fn, void *ctx)
{
	return walk_one(j, id, false, fn, ctx);
}

emdb_err journal_check_segment(struct journal *j, uint64_t id, journal_replay_fn fn, void *ctx)
{
	if (atomic_load(&j->running))
		return EMDB_ERR_INVAL;
	return walk_one(j, id, true, fn, ctx);
}

/* ---- Start ------------------------------------------------------------ */

/*
 * Writes back what may not have reached the disk. A sync that failed leaves pages behind that look
 * clean, so that the next sync would succeed without writing them; only dirtying them again makes
 * its success mean something. The same bytes at the same place: a crash here changes nothing.
 */
static int redirty(struct journal *j, const struct segment *s)
{
	const uint64_t end = segment_len(s), mark = j->end.durable_mark;
	uint64_t off = mark > s->base ? min_u64(mark - s->base, end) : 0;
	uint8_t *buf;
	int rc = 0;

	if (!same_boot(j, s) || off >= end)
		return 0;
	buf = base_malloc(REDIRTY_CHUNK);
	if (!buf)
		return -ENOMEM;
	for (size_t n; rc == 0 && off < end; off += n) {
		n = (size_t)min_u64(REDIRTY_CHUNK, end - off);
		rc = io_pread_full(j->cfg.io, s->fd, buf, n, off, &n);
		if (rc == 0 && n == 0)
			rc = -EIO;
		if (rc == 0)
			rc = io_pwrite_full(j->cfg.io, s->fd, buf, n, off);
	}
	base_free(buf);
	return rc;
}

/* Enters what replay found to be no frames. */
static emdb_err add_gaps(const struct journal *j, struct manifest *next)
{
	emdb_err err = EMDB_OK;

	for (uint32_t i = 0; !err && i < j->found.head.ngaps; i++) {
		const struct manifest_gap *const g = &j->found.gaps[i];
		const struct manifest_seg *const row = manifest_find(next, g->lsn >> j->env.shift);

		if (row && (g->lsn & j->mask) < row->len)
			err = manifest_gap_add(next, g->lsn, g->len);
	}
	return err;
}

/* The row of a recovered segment that was open: sealed where its last frame ends; an empty one goes. */
static void seal_row(const struct journal *j, struct manifest *next, const struct segment *s)
{
	struct manifest_seg *const row = manifest_find(next, s->id);

	if (segment_len(s) <= FMT_SEG_HEADER) {
		manifest_remove(next, s->id, j->env.shift);
		return;
	}
	row->len = segment_len(s);
	row->flags = MANIFEST_SEALED;
	/* Nothing is known of an open segment but what the walk has found. */
	manifest_gaps_remove(next, s->id, j->env.shift);
}

/* Makes every recovered segment durable and says so in *next, unless a repair is to say it at its end. */
static emdb_err seal_recovered(struct journal *j, struct manifest *next)
{
	emdb_err err = EMDB_OK;

	for (size_t i = 0; !err && i < j->count; i++) {
		struct segment *const s = j->list[i];
		int rc = 0;

		if (!manifest_find(next, s->id) || segment_state(s) == SEGMENT_SEALED)
			continue;
		if (segment_len(s) > FMT_SEG_HEADER)
			rc = redirty(j, s);
		if (rc == 0)
			rc = io_fdatasync(j->cfg.io, s->fd);
		if (!j->cfg.repair)
			seal_row(j, next, s);
		err = err_of_io(rc);
	}
	return err || j->cfg.repair ? err : add_gaps(j, next);
}

/* The manifest with everything recovered sealed and s open. */
static emdb_err start_manifest(struct journal *j, struct segment *s, struct manifest *next)
{
	emdb_err err = seal_recovered(j, next);

	if (!err)
		err = manifest_add(next, s->id, 0, 0);
	next->head.next_segment = s->id + 1;
	next->head.flags = 0;
	next->head.durable_lsn = s->base + FMT_SEG_HEADER;
	return err;
}

/* Segments that the manifest does not list any more leave the memory. */
static emdb_err drop_unlisted(struct journal *j)
{
	uint64_t *const ids = base_calloc(j->count + 1, sizeof(*ids));
	emdb_err err = EMDB_OK;
	size_t n = 0;

	if (!ids)
		return EMDB_ERR_NOMEM;
	for (size_t i = 0; i < j->count; i++)
		if (!manifest_find(&j->manifest, j->list[i]->id))
			ids[n++] = j->list[i]->id;
	if (n)
		err = segments_remove(j, ids, n, false);
	base_free(ids);
	return err;
}

/* io_list callback: unlinks a segment file that the manifest does not list, and what was kept of dead ones. */
static int debris_one(void *arg, const char *name)
{
	struct journal *const j = arg;
	uint64_t id;

	if (segment_name_parse(name, &id) ? !manifest_find(&j->manifest, id)
					  : segment_is_dead_name(name))
		(void)io_unlinkat(j->cfg.io, j->env.dirfd, name, 0);
	return 0;
}

void journal_drop_debris(struct journal *j)
{
	/* With salvage everything may still be wanted by a person. */
	if (!j->cfg.salvage && io_list(j->cfg.io, j->env.dirfd, debris_one, j) < 0)
		journal_log(j, EMDB_LOG_WARN, "journal: cannot look for leftover files");
}

/* Frees what a crash between sealing and trimming left preallocated. */
static void trim_recovered(struct journal *j, struct segment *s)
{
	char name[SEGMENT_NAME_SIZE];

	if (s->fd == -1 && file_end(s) > segment_len(s)) {
		segment_name(s->id, name);
		if (io_openat(j->cfg.io, j->env.dirfd, name, O_RDWR | O_NOFOLLOW, 0, &s->fd) < 0)
			s->fd = -1;
	}
	segment_trim(s);
}

/* The manifest is durable: memory and directory follow it. */
static emdb_err start_tidy(struct journal *j)
{
	emdb_err err = drop_unlisted(j);

	for (size_t i = 0; i < j->count; i++) {
		struct segment *const s = j->list[i];

		atomic_store_explicit(&s->state, SEGMENT_SEALED, memory_order_release);
		trim_recovered(j, s);
	}
	if (!err)
		journal_drop_debris(j);
	return err;
}

/* Lists s, durably, and tidies up. On failure s is gone, its file unless it may be listed. */
static emdb_err start_list(struct journal *j, struct segment *s)
{
	struct manifest next = MANIFEST_INIT;
	char name[SEGMENT_NAME_SIZE];
	bool applied = false;
	emdb_err err;

	mutex_lock(&j->manifest_lock);
	err = manifest_copy(&j->manifest, &next);
	if (!err)
		err = start_manifest(j, s, &next);
	if (!err)
		err = manifest_commit_locked(j, &next, &applied);
	if (!err)
		err = start_tidy(j);
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	if (err) {
		/* start_tidy() can fail too: then the file is listed and stays. */
		segment_name(s->id, name);
		if (!applied && !manifest_find(&j->manifest, s->id))
			(void)io_unlinkat(j->cfg.io, j->env.dirfd, name, 0);
		segment_unref(s);
	}
	return err;
}

/* Makes the first segment and lists it. What it leaves must do for the manifest. */
static emdb_err start_first(struct journal *j, struct segment **ret)
{
	uint64_t most = j->mask + 1;
	emdb_err err;

	do {
		struct segment *s = NULL;

		err = reserve_start(j, j->manifest.head.next_segment, most, &s);
		if (err)
			return err;
		most = s->room / 2;
		*ret = s;
		err = start_list(j, s);
	} while (err == EMDB_ERR_NO_SPACE && most >= ROOM_LEAST && !j->cfg.create &&
		 !journal_has_failed(j));
	return err;
}

static emdb_err start_segment(struct journal *j)
{
	struct segment *s = NULL;
	emdb_err err = segments_reserve(j);

	if (!err)
		err = start_first(j, &s);
	if (err)
		return err;
	if (s->room < segment_bytes(s)) {
		j->short_until = s->base + segment_bytes(s);
		j->short_by = segment_bytes(s) - s->room;
	}
	atomic_store_explicit(&s->len, s->room, memory_order_release);
	atomic_store_explicit(&s->state, SEGMENT_ACTIVE, memory_order_release);
	segments_add(j, s);
	atomic_store(&j->active, s);
	atomic_store(&j->durable, s->base + FMT_SEG_HEADER);
	atomic_store(&j->tail, s->base + FMT_SEG_HEADER);
	return EMDB_OK;
}

emdb_err journal_start(struct journal *j)
{
	emdb_err err;

	if (j->cfg.read_only)
		return EMDB_ERR_READ_ONLY;
	if (atomic_load(&j->running) || (j->count && !j->replayed))
		return EMDB_ERR_INVAL;
	err = start_segment(j);
	if (!err)
		err = threads_start(j);
	if (!err)
		atomic_store(&j->running, true);
	return err;
}

/* ---- Repair ----------------------------------------------------------- */

/* Rows of segments that could not be opened go, the others say what is there. */
static void correct_rows(struct journal *j, struct manifest *next)
{
	for (uint32_t i = next->head.nsegs; i > 0; i--) {
		struct manifest_seg *const row = &next->segs[i - 1];
		const struct segment *s = NULL;

		for (size_t k = 0; k < j->count && !s; k++)
			if (j->list[k]->id == row->id)
				s = j->list[k];
		if (!s)
			manifest_remove(next, row->id, j->env.shift);
		else if (segment_state(s) != SEGMENT_SEALED)
			continue;
		else if (!(row->flags & MANIFEST_SEALED))
			seal_row(j, next, s);
		else if (row->len > segment_len(s))
			row->len = segment_len(s);
	}
}

emdb_err journal_repaired(struct journal *j)
{
	struct manifest next = MANIFEST_INIT;
	emdb_err err;

	if (!j->cfg.repair || !atomic_load(&j->running))
		return EMDB_ERR_INVAL;
	mutex_lock(&j->manifest_lock);
	err = manifest_copy(&j->manifest, &next);
	if (!err) {
		mutex_lock(&j->segment_lock);
		correct_rows(j, &next);
		mutex_unlock(&j->segment_lock);
		err = add_gaps(j, &next);
	}
	next.head.ckpt_prev = next.head.ckpt_prev_lsn = 0;
	if (!err)
		err = manifest_commit_locked(j, &next, NULL);
	mutex_unlock(&j->manifest_lock);
	manifest_release(&next);
	return err;
}
