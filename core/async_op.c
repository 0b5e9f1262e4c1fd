/* SPDX-License-Identifier: Apache-2.0 */
#include "core/async_i.h"

/* ---- Taking ------------------------------------------------------------- */

/* The text operations have it as a string. */
static bool key_is_text(enum emdb_op_kind kind)
{
	return kind == EMDB_OP_SNAPSHOT_CREATE || kind == EMDB_OP_SNAPSHOT_DELETE ||
	       kind == EMDB_OP_BACKUP;
}

static emdb_err op_check(const struct emdb_op *op)
{
	const unsigned int known =
		EMDB_OP_DURABLE | EMDB_OP_BORROW | EMDB_OP_WANT_VALUE | EMDB_OP_RECURSIVE;

	if (op->size != sizeof(*op) || op->kind < EMDB_OP_PUT || op->kind > EMDB_OP_CALL ||
	    (op->flags & ~known) || (op->kind == EMDB_OP_CALL && !op->call) ||
	    (op->key_len && !op->key) || (op->value_len && !op->value) ||
	    (op->item_count && !op->items))
		return EMDB_ERR_INVAL;
	if (op->key_len > EMDB_KEY_MAX)
		return EMDB_ERR_KEY_TOO_LONG;
	if (key_is_text(op->kind) && op->key_len && memchr(op->key, 0, op->key_len))
		return EMDB_ERR_INVAL;
	return EMDB_OK;
}

emdb_err async_op_take(const struct emdb_op *op, struct emdb_op *ret, uint8_t **ret_copy)
{
	const size_t value = op->flags & EMDB_OP_BORROW ? 0 : op->value_len;
	const emdb_err err = op_check(op);
	uint8_t *copy;
	size_t n;

	if (err)
		return err;
	if (emdb_add_ovf_size(op->key_len + 1, value, &n))
		return EMDB_ERR_NOMEM;
	copy = base_malloc(n);
	if (!copy)
		return EMDB_ERR_NOMEM;
	*ret = *op;
	if (op->key_len)
		memcpy(copy, op->key, op->key_len);
	copy[op->key_len] = 0;
	ret->key = copy;
	if (!(op->flags & EMDB_OP_BORROW)) {
		if (value)
			memcpy(copy + op->key_len + 1, op->value, value);
		ret->value = copy + op->key_len + 1;
	}
	*ret_copy = copy;
	return EMDB_OK;
}

/* ---- Doing -------------------------------------------------------------- */

static bool compact_goes_on(void *ctx, const struct emdb_compact_progress *p)
{
	(void)p;
	return !emdb_op_cancelled(ctx);
}

static emdb_err do_compact(emdb_db *db, struct emdb_op_run *run)
{
	const struct emdb_compact_options opts = { .size = sizeof(opts),
						   .progress = compact_goes_on,
						   .ctx = run };
	struct emdb_compact_progress done = { 0 };
	const emdb_err err = emdb_compact(db, &opts, &done);

	run->c.number = done.freed_bytes;
	return err;
}

static bool backup_goes_on(void *ctx, uint64_t done, uint64_t total)
{
	(void)done;
	(void)total;
	return !emdb_op_cancelled(ctx);
}

static emdb_err do_backup(emdb_db *db, struct emdb_op_run *run)
{
	const struct emdb_backup_options opts = { .size = sizeof(opts),
						  .progress = backup_goes_on,
						  .progress_ctx = run };
	struct emdb_backup_report report = { 0 };
	const emdb_err err = emdb_backup(db, run->op.key, &opts, &report);

	run->c.number = report.copied_bytes;
	return err;
}

static emdb_err do_contains(emdb_db *db, struct emdb_op_run *run)
{
	bool found = false;
	const emdb_err err = emdb_contains(db, run->op.ns, run->op.key, run->op.key_len, &found);

	run->c.number = found;
	return err;
}

/* Operations on one key. */
static emdb_err do_key(emdb_db *db, struct emdb_op_run *run)
{
	const struct emdb_op *const op = &run->op;
	const bool want = op->flags & EMDB_OP_WANT_VALUE;

	switch ((int)op->kind) {
	case EMDB_OP_PUT:
		return emdb_put(db, op->ns, op->key, op->key_len, op->value, op->value_len,
				op->expires_ms);
	case EMDB_OP_GET:
		return emdb_get(db, op->ns, op->key, op->key_len, &run->c.value, &run->c.value_len);
	case EMDB_OP_REMOVE:
		return emdb_remove(db, op->ns, op->key, op->key_len, want ? &run->c.value : NULL,
				   want ? &run->c.value_len : NULL);
	case EMDB_OP_CONTAINS:
		return do_contains(db, run);
	case EMDB_OP_TTL_GET:
		return emdb_ttl_get(db, op->ns, op->key, op->key_len, &run->c.expires_ms);
	case EMDB_OP_TTL_SET:
		return emdb_ttl_set(db, op->ns, op->key, op->key_len, op->expires_ms);
	case EMDB_OP_NS_CREATE:
		return emdb_ns_create(db, op->ns, op->key, op->key_len, &run->c.number);
	case EMDB_OP_NS_OPEN:
		return emdb_ns_open(db, op->ns, op->key, op->key_len, &run->c.number);
	default:
		return emdb_ns_drop(db, op->ns, op->key, op->key_len,
				    op->flags & EMDB_OP_RECURSIVE);
	}
}

static emdb_err do_op(emdb_db *db, struct emdb_op_run *run)
{
	const struct emdb_op *const op = &run->op;

	switch (op->kind) {
	case EMDB_OP_COUNT:
		return emdb_count(db, op->ns, &run->c.number);
	case EMDB_OP_CLEAR:
		return emdb_clear(db, op->ns);
	case EMDB_OP_PUT_MANY:
		return emdb_put_many(db, op->ns, op->items, op->item_count);
	case EMDB_OP_SWEEP:
		return emdb_sweep(db, &run->c.number);
	case EMDB_OP_FLUSH:
		return EMDB_OK; /* the caller's next step */
	case EMDB_OP_CHECKPOINT:
		return emdb_checkpoint(db);
	case EMDB_OP_COMPACT:
		return do_compact(db, run);
	case EMDB_OP_SNAPSHOT_CREATE:
		return emdb_snapshot_create(db, op->key, NULL);
	case EMDB_OP_SNAPSHOT_DELETE:
		return emdb_snapshot_delete(db, op->key);
	case EMDB_OP_BACKUP:
		return do_backup(db, run);
	case EMDB_OP_CALL:
		return op->call(db, op->user, run);
	case EMDB_OP_PUT:
	case EMDB_OP_GET:
	case EMDB_OP_REMOVE:
	case EMDB_OP_CONTAINS:
	case EMDB_OP_TTL_GET:
	case EMDB_OP_TTL_SET:
	case EMDB_OP_NS_CREATE:
	case EMDB_OP_NS_OPEN:
	case EMDB_OP_NS_DROP:
		return do_key(db, run);
	}
	return EMDB_ERR_INVAL;
}

void async_op_do(emdb_db *db, struct emdb_op_run *run)
{
	run->c.err = do_op(db, run);
}
