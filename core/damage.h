/* SPDX-License-Identifier: Apache-2.0 */
/*
 * damage: what damaged bytes of a journal mean, by key. For emdb_check() and emdb_repair(), which open
 * a store so that replay goes on behind damage.
 *
 * How it finds out. Replay tells of each damaged place (damage_found). Below the checkpoint that
 * opening used, the index knows which entries and extents lie there: they are verified one by
 * one. Behind it, damaged frames whose fields still decode say whom they were about, though
 * nothing proves it: such a WRITE is applied, so that the range it maps is known as damaged; what
 * an entry record names is noted as in doubt. Bytes that do not even decode are counted as unknown.
 *
 * Names. A lost record's key is taken from its own bytes, if they hash to the place in the index that
 * it had, or from any older record in the journal that does: the hash is keyed, so both are
 * certain. That also finds every older state that a replay could bring back.
 *
 * Adrift is what nothing names: a namespace with entries but without its record, an object with metadata
 * but without a name. Without damage that is garbage, and goes; here it is kept unless a record
 * says that it was removed.
 *
 * Ownership: a struct damage belongs to who opens the store with it, and must outlive the store.
 * Thread-safety: none; the store is open for nobody else.
 */
#ifndef EMDB_DAMAGE_H
#define EMDB_DAMAGE_H

#include "core/store.h"

enum loss_kind {
	LOSS_ENTRY, /* the record of ns/hash at slot is lost; rec_kind and id say what it was */
	LOSS_DOUBT, /* a damaged record of rec_kind about ns/hash, of which no later one is known */
	LOSS_RANGE, /* object id: bytes off..off+len-1 */
	LOSS_META,  /* object id: its metadata, or with off 1 its attributes only */
	LOSS_STATE, /* object or namespace id: a damaged record of rec_kind changed it */
	LOSS_ADRIFT_NS,
	LOSS_ADRIFT_BIG,
};

struct loss {
	enum loss_kind kind;
	uint8_t rec_kind;
	bool named; /* name_at and name_len are its key, in struct damage.names */
	bool older; /* LOSS_DOUBT: an older state is there, at slot */
	uint64_t ns, hash, slot, id;
	uint64_t off, len;
	uint64_t lsn; /* of the damaged record */
	size_t name_at, name_len;
};

/* A damaged place as the journal tells of it. */
struct damage_place {
	uint64_t segment, offset, len;
	bool early; /* found before the recovery began: a segment that cannot be opened */
	char text[224];
};
/* So many are kept; all are counted. */
#define DAMAGE_PLACES_MAX 4096u

struct damage {
	emdb_db *db;
	bool replaying, quiet;
	bool unlikely;     /* the frame being decoded does not fit what is there */
	struct buf places; /* struct damage_place */
	struct buf losses; /* struct loss */
	struct buf names;
	struct buf removed;                   /* ids (u64) that a record says are gone */
	struct buf scratch;                   /* one frame */
	uint64_t place_count;                 /* all, also those not kept */
	uint64_t bytes;                       /* damaged */
	uint64_t unknown;                     /* of them behind the checkpoint and not decoded */
	uint64_t end_lsn;                     /* of the last damaged byte */
	uint64_t frames, records, good_bytes; /* read and good, before the checkpoint */
	emdb_err err;                         /* out of memory on the way */
};

void damage_init(struct damage *d);
void damage_release(struct damage *d);
/* A recovery begins anew. */
void damage_reset(struct damage *d);

/* ---- While opening: see journal_config.found ---- */

void damage_found(void *ctx, const struct emdb_detail *detail, const struct segment *s,
		  uint64_t len);
/* A file other than a segment does not check out. */
emdb_err damage_file(struct damage *d, const char *text);
/* Before a good frame is applied. */
emdb_err damage_replaying(struct damage *d, const struct frame *f);
/* Before apply_finish(): what is adrift is kept. */
emdb_err damage_keep_adrift(struct damage *d);

/* ---- Afterwards ---- */

/*
 * Reads everything that counts, and the frames before the checkpoint; fills in losses and names. The journal is
 * replayed and not started. Errors: only NOMEM, and those of a failing machine.
 */
emdb_err damage_analyse(struct damage *d);

/* Bytes of the journal that do not check out. */
struct damage_range {
	uint64_t lsn, len;
};
/*
 * The same of a store that is in use, for ranges in ascending order: what counts now and lies in them. Others
 * go on meanwhile. d->db is set; errors: NOMEM.
 */
emdb_err damage_live(struct damage *d, const struct damage_range *ranges, size_t n);

static inline size_t damage_losses(const struct damage *d)
{
	return d->losses.len / sizeof(struct loss);
}
static inline struct loss *damage_loss(const struct damage *d, size_t i)
{
	return (struct loss *)(void *)d->losses.data + i;
}
static inline const uint8_t *loss_key(const struct damage *d, const struct loss *l)
{
	return l->name_len ? d->names.data + l->name_at : (const uint8_t *)"";
}

/* The lost entry ns/hash, or NULL. */
struct loss *damage_entry(const struct damage *d, uint64_t ns, uint64_t hash);

/* For people: what a loss means, to whom. Pinned by itself. */
void damage_tell(const struct damage *d, const struct loss *l, struct emdb_detail *ret);

/*
 * The way from the root, names as `emdb -x` takes them. A namespace whose name is lost is #ID. key NULL:
 * of the namespace itself.
 */
void damage_path_pinned(const struct damage *d, uint64_t ns, const void *key, size_t len, char *buf,
			size_t size);

#endif
