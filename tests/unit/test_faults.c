/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every public function with every call below it failing, one after the other: the 1st, 2nd, 3rd...
 * I/O call, allocation or thread, until it passes clean. Each time: an error that says what happened,
 * results as they were, nothing leaked, no third state now or after reopening, and the store goes on
 * working unless it said that it does not.
 *
 * FAULT_OP chooses the functions whose name contains it.
 */
#include "tests/unit/fault_keys.h"

static const struct injection injections[] = {
	{ .name = "EIO", .mask = IO_MASK_ALL & ~IO_MASK(IO_OP_CLOSE), .err = -EIO },
	{ .name = "EIO for ever",
	  .mask = IO_MASK_ALL & ~IO_MASK(IO_OP_CLOSE),
	  .err = -EIO,
	  .sticky = true },
	{ .name = "short write", .mask = IO_MASK(IO_OP_PWRITE), .err = -EIO, .cut = true },
	{ .name = "ENOSPC",
	  .mask = IO_MASK(IO_OP_PWRITE) | IO_MASK(IO_OP_FALLOCATE) | IO_MASK(IO_OP_OPENAT) |
		  IO_MASK(IO_OP_MKDIRAT) | IO_MASK(IO_OP_LINKAT) | IO_MASK(IO_OP_RENAMEAT),
	  .err = -ENOSPC,
	  .cut = true,
	  .creations = true,
	  .writes = NOT_FRAMES },
	/* Not on file systems that keep the space of a preallocated file. */
	{ .name = "ENOSPC for a frame",
	  .mask = IO_MASK(IO_OP_PWRITE),
	  .err = -ENOSPC,
	  .fails = true,
	  .cut = true,
	  .writes = ONLY_FRAMES },
	{ .name = "ENOSPC for ever",
	  .mask = IO_MASK(IO_OP_FALLOCATE) | IO_MASK(IO_OP_OPENAT) | IO_MASK(IO_OP_MKDIRAT) |
		  IO_MASK(IO_OP_LINKAT),
	  .err = -ENOSPC,
	  .sticky = true,
	  .creations = true },
	{ .name = "EMFILE", .mask = IO_MASK(IO_OP_OPENAT), .err = -EMFILE },
	{ .name = "no mapping", .mask = IO_MASK(IO_OP_MMAP), .err = -ENOMEM },
	{ .name = "no memory" },
	{ .name = "no memory for ever", .sticky = true },
	{ .name = "no thread", .threads = true },
};

static struct sample clean, killed;

static void samples_make(void)
{
	emdb_db *db;

	if (clean.count)
		return;
	host_begin(NULL);
	make_sample();
	sample_dir(&clean, "");
	CHECK_OK(emdb_open(STORE, &plain_options, &db));
	prepare_unsynced(&(struct store){ .db = db });
	sample_dir(&killed, "");
	CHECK_OK(emdb_close(db));
	host_end();
}

static void store_open(struct store *s)
{
	CHECK_OK(emdb_open(STORE, &plain_options, &s->db));
	s->big = node_of(s->db, "big");
	s->small = node_of(s->db, "small");
	s->dir = node_of(s->db, "dir");
}

/* What the store is before the call, and after it when nothing fails. */
struct sides {
	uint64_t before, after;
};

static void set_up(const struct fault_op *op, struct store *s)
{
	memset(s, 0, sizeof(*s));
	host_begin(op->flags & KILLED ? &killed : &clean);
	if (op->flags & CLOSED)
		return;
	store_open(s);
	if (op->prepare)
		op->prepare(s);
}

/* Opens it again without failures. */
static uint64_t print_reopened(const struct fault_op *op, const char *path)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options o = plain_options;
	uint64_t print;
	emdb_db *db;
	emdb_err err;

	o.detail = &detail;
	err = emdb_open(path, &o, &db);
	if (err)
		FAIL("%s %s: does not open any more: %s: %s", op->fn, op->what, emdb_err_name(err),
		     detail.text);
	print = print_store(db);
	CHECK_OK(put_str(db, EMDB_ROOT, "works", 100));
	CHECK_OK(emdb_flush(db));
	CHECK_OK(emdb_close(db));
	return print;
}

static struct sides sides_of(const struct fault_op *op)
{
	struct sides sides;
	struct store s;
	emdb_err err;

	set_up(op, &s);
	if (s.db)
		(void)emdb_close(s.db);
	sides.before = print_reopened(op, STORE);
	set_up(op, &s);
	err = op->run(&s);
	if (err)
		FAIL("%s %s fails by itself: %s", op->fn, op->what, emdb_err_name(err));
	if (s.db)
		CHECK_OK(emdb_close(s.db));
	sides.after = print_reopened(op, STORE);
	if (!(op->flags & WRITES) != (sides.before == sides.after))
		FAIL("%s %s: the table says that it %s", op->fn, op->what,
		     op->flags & WRITES ? "changes something" : "changes nothing");
	return sides;
}

/* Is this an error that such a failure may give? */
static bool expected(const struct fault_op *op, const struct injection *i, emdb_err err)
{
	switch ((int)err) {
	case EMDB_ERR_CORRUPT:
		return op->flags & REPORTS && i->err == -EIO;
	case EMDB_OK:
		return true;
	case EMDB_ERR_IO:
		return i->err == -EIO || i->fails || i->threads;
	case EMDB_ERR_FAILED:
		return true;
	case EMDB_ERR_NO_SPACE:
		return i->err == -ENOSPC;
	case EMDB_ERR_NOMEM:
		return i->err == -ENOMEM || i->err == 0;
	case EMDB_ERR_TOO_MANY_FILES:
		return i->err == -EMFILE;
	default:
		return false;
	}
}

#define COMPLAIN(...)                                                                           \
	(printf("%s %s, %s at call %" PRIu64 " gave %s\n", op->fn, op->what, i->name, host.nth, \
		emdb_err_name(err)),                                                            \
	 FAIL(__VA_ARGS__))

/* The store that is still open: the old or the new state, and it works or says that it does not. */
static void check_open(const struct fault_op *op, const struct injection *i, struct store *s,
		       const struct sides *sides, emdb_err err)
{
	struct emdb_stats st;
	const uint64_t print = print_store(s->db);
	emdb_err put;

	CHECK_OK(emdb_stats_get(s->db, &st));
	/* Without memory a record that is written may be half applied: the store says FAILED then. */
	if (print != sides->before && print != sides->after && (i->mask || !st.failed))
		COMPLAIN("a third state in memory");
	if (!err && print != sides->after)
		COMPLAIN("succeeded, and it is not there");
	put = put_str(s->db, EMDB_ROOT, "later", 50);
	if (st.failed ? put != EMDB_ERR_FAILED : put != EMDB_OK)
		COMPLAIN("%s, and then a put gave %s", st.failed ? "failed" : "not failed",
			 emdb_err_name(put));
	if (st.failed && i->err != -EIO && i->err != 0 && !i->fails)
		COMPLAIN("a shortage made the store fail");
	if (!put)
		CHECK_OK(emdb_remove(s->db, EMDB_ROOT, "later", 5, NULL, NULL));
}

static void check_balance(const struct fault_op *op, const struct injection *i, emdb_err err)
{
	if (op->flags & MEMORY)
		return;
	if (host.open)
		COMPLAIN("%d descriptors stay open", host.open);
	if (host.mapped)
		COMPLAIN("%d mappings stay", host.mapped);
}

/* False: nothing was made to fail. */
static bool one_case(const struct fault_op *op, const struct injection *i, uint64_t nth,
		     const struct sides *sides)
{
	uint64_t hits, print;
	struct store s;
	emdb_err err;

	set_up(op, &s);
	host_inject(i, nth);
	err = op->run(&s);
	hits = host_calm();
	if (!expected(op, i, err))
		COMPLAIN("not an error for that");
	if (!hits && err)
		COMPLAIN("an error without a failure");
	if (s.db) {
		check_open(op, i, &s, sides, err);
		(void)emdb_close(s.db);
	}
	check_balance(op, i, err);
	print = print_reopened(op, STORE);
	if (print != sides->before && print != sides->after)
		COMPLAIN("a third state after reopening");
	if (!err && print != sides->after)
		COMPLAIN("succeeded, and is not there after reopening");
	check_balance(op, i, err);
	return hits != 0;
}

static unsigned int step_of(void)
{
#ifdef __SANITIZE_ADDRESS__
	return getenv("EMDB_LONG") ? 1 : 25;
#else
	return getenv("EMDB_LONG") ? 1 : 12;
#endif
}

/* All failures of one case; how many there were. */
static unsigned int all_faults(const struct fault_op *op, uint64_t *seed)
{
	const struct sides sides = sides_of(op);
	const unsigned int step = step_of();
	unsigned int count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(injections); i++) {
		uint64_t nth = 1;

		/* The first ones all, of long loops only some. */
		while (one_case(op, &injections[i], nth, &sides)) {
			count++;
			nth += nth < 4 ? 1 : 1 + test_rand(seed) % (2 * step - 1);
		}
	}
	printf("  %-24s %-24s %5u faults\n", op->fn, op->what, count);
	return count;
}

TEST(test_faults__every_call_of_every_function_fails)
{
	const char *const only = getenv("FAULT_OP");
	uint64_t seed = test_seed();
	unsigned int all = 0;

	samples_make();
	for (size_t k = 0; k < ARRAY_SIZE(fault_ops); k++)
		if (!only || strstr(fault_ops[k].fn, only))
			all += all_faults(&fault_ops[k], &seed);
	for (size_t k = 0; k < ARRAY_SIZE(fault_key_ops); k++)
		if (!only || strstr(fault_key_ops[k].fn, only))
			all += all_faults(&fault_key_ops[k], &seed);
	host_end();
	base_set_allocator(NULL);
	sample_release(&clean);
	sample_release(&killed);
	printf("%u faults injected\n", all);
}

static bool listed(const char *fn)
{
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(fault_ops); i++)
		found = found || strcmp(fn, fault_ops[i].fn) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_key_ops); i++)
		found = found || strcmp(fn, fault_key_ops[i].fn) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_exempt); i++)
		found = found || strcmp(fn, fault_exempt[i]) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_covered); i++)
		found = found || strcmp(fn, fault_covered[i]) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_missing); i++)
		found = found || strcmp(fn, fault_missing[i]) == 0;
	return found;
}

/* The header is read where the tests are run from, the top of the tree. */
TEST(test_faults__every_public_function_is_accounted_for)
{
	FILE *const f = fopen("core/emdb.h", "r");
	char line[400], fn[100];
	bool api = false;
	unsigned int n = 0;

	if (!f)
		SKIP("core/emdb.h is not here");
	while (fgets(line, sizeof(line), f)) {
		const char *p;

		api = (api && line[0] != '\n') || strncmp(line, "EMDB_API", 8) == 0;
		p = api ? strstr(line, "emdb_") : NULL;
		while (p && (sscanf(p, "%99[a-z_0-9]", fn) != 1 || p[strlen(fn)] != '('))
			p = strstr(p + 5, "emdb_");
		if (!p)
			continue;
		api = false;
		n++;
		if (!listed(fn))
			FAIL("%s: add a case to tests/unit/fault_ops.h, or list it in fault_keys.h with a reason",
			     fn);
	}
	fclose(f);
	CHECK(n > 80);
	printf("%u functions, %zu without a case yet\n", n, ARRAY_SIZE(fault_missing));
}

TEST_MAIN()
