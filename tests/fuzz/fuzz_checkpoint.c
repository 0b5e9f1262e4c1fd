/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a checkpoint. The input says which blocks a file has; headers, sums and the first and last
 * block are set right, so that what is inside counts. Whatever it says, it is refused or gives a
 * state whose structures hold, which can be settled, finished and walked, and emptied again.
 */
#include "core/checkpoint.h"

#define NUMBER UINT64_C(7)
/* Far behind the records there are: entries may name them, and segments that are gone. */
#define LSN (UINT64_C(1) << 40)

static emdb_db *db;

static void open_once(void)
{
	const struct emdb_options opts = { .size = sizeof(opts),
					   .segment_bytes = EMDB_SEGMENT_MIN,
					   .sweep_interval_ms = -1,
					   .commit_interval_s = -1 };
	uint64_t ns;

	if (db)
		return;
	emdb_assert(emdb_open_memory(&opts, &db) == EMDB_OK);
	/* Records that entries can name. */
	emdb_assert(emdb_ns_create(db, EMDB_ROOT, "dir", 3, &ns) == EMDB_OK);
	for (unsigned int i = 0; i < 20; i++)
		emdb_assert(emdb_put(db, i % 2 ? ns : EMDB_ROOT, &i, sizeof(i), "value", 5,
				     EMDB_TTL_NEVER) == EMDB_OK);
}

/* ---- The file ---- */

struct file {
	struct buf bytes;
	uint32_t index, chain;
};

static void put_block(struct file *f, enum ckpt_kind kind, const void *p, size_t n)
{
	const size_t at = f->bytes.len;
	const uint32_t len = (uint32_t)(CKPT_BLOCK_HEADER + n);

	emdb_assert(buf_append_zero(&f->bytes, CKPT_BLOCK_HEADER) == 0);
	emdb_assert(buf_append(&f->bytes, p, n) == 0);
	f->chain = fmt_ckpt_chain(f->chain,
				  fmt_ckpt_seal(f->bytes.data + at, len, kind, f->index++, NUMBER));
}

static void build(struct file *f, struct cur *c)
{
	struct ckpt_head head = { .lsn = LSN };
	struct ckpt_end end = { .settled = LSN + (uint64_t)cur_u8(c) * 8 };
	uint8_t buf[64];
	struct wcur w = wcur_init(buf, sizeof(buf));

	end.records = cur_u8(c);
	end.namespaces = cur_u8(c);
	memcpy(head.uuid, db->sb.uuid, sizeof(head.uuid));
	fmt_ckpt_head_put(&w, &head);
	put_block(f, CKPT_HEAD, buf, wcur_len(&w));
	while (cur_left(c) >= 3) {
		const enum ckpt_kind kind = CKPT_HEAD + cur_u8(c) % 8;
		const size_t n = min_size(cur_u16(c), cur_left(c));

		put_block(f, kind, cur_bytes(c, n), n);
	}
	end.blocks = f->index + 1;
	end.chain = f->chain;
	w = wcur_init(buf, sizeof(buf));
	fmt_ckpt_end_put(&w, &end);
	put_block(f, CKPT_END, buf, wcur_len(&w));
}

static void write_file(const struct file *f, const char *name)
{
	int fd = -1;

	emdb_assert(io_openat(db->io, db->dirfd, name, O_RDWR | O_CREAT | O_TRUNC, 0600, &fd) == 0);
	emdb_assert(io_pwrite_full(db->io, fd, f->bytes.data, f->bytes.len, 0) == 0);
	(void)io_close(db->io, fd);
}

/* ---- The state ---- */

static void clear(void)
{
	checkpoint_release(db);
	ns_free_all(db);
	objtab_release(db);
	epoch_drain(&db->epoch);
	ttl_heap_release(&db->ttl);
	emdb_assert(objtab_init(db) == 0);
	emdb_assert(ns_new(db, EMDB_ROOT, &db->root) == EMDB_OK);
	atomic_store(&db->root->attached, true);
	atomic_store(&db->root->parent, EMDB_ROOT);
	atomic_store(&db->records, 0);
	atomic_store(&db->namespaces, 0);
}

static void check_ns(const struct ns *ns)
{
	emdb_assert(hidx_check(&ns->idx));
	for (unsigned int i = 0; ns != db->root; i++) {
		emdb_assert(atomic_load(&ns->attached) && i < 100000);
		ns = ns_any_pinned(db, atomic_load(&ns->parent));
		emdb_assert(ns);
	}
}

static bool check_big(void *ctx, uint64_t id, struct big *big)
{
	(void)ctx, (void)id;
	emdb_assert(extmap_check(&big->map) && big->nlinks > 0 && big->nlinks <= big->links_cap);
	return false;
}

static void check_all(void)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct hidx_slot slots[STORE_WALK];
	uint64_t from = 0;
	size_t n;

	check_ns(db->root);
	emdb_assert(hidx_check(&db->nstab) && ttl_heap_check(&db->ttl));
	while ((n = hidx_walk_pinned(&db->nstab, from, 0, slots, STORE_WALK)) != 0) {
		for (size_t i = 0; i < n; i++)
			check_ns((const struct ns *)(uintptr_t)slots[i].value);
		if (slots[n - 1].hash == UINT64_MAX)
			break;
		from = slots[n - 1].hash + 1;
	}
	objtab_sweep_big(db, check_big, NULL);
	epoch_unpin(&db->epoch, pin);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file f = { .bytes = BUF_INIT };
	struct cur c = cur_init(data, size);
	char name[CHECKPOINT_NAME_SIZE];
	emdb_err err;

	open_once();
	clear();
	db->ckpt.lenient = cur_u8(&c) & 1;
	build(&f, &c);
	checkpoint_name(NUMBER, name);
	write_file(&f, name);
	buf_release(&f.bytes);
	err = checkpoint_load(db, db->dirfd, NUMBER, LSN);
	emdb_assert(err == EMDB_OK || err == EMDB_ERR_CORRUPT);
	if (!err)
		err = checkpoint_replayed(db);
	if (!err)
		err = apply_finish(db);
	if (!err)
		err = checkpoint_finished(db);
	db->ckpt.inexact = false;
	emdb_assert(err == EMDB_OK || err == EMDB_ERR_CORRUPT);
	if (!err)
		check_all();
	clear();
	return 0;
}
