/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every public function with every call below it failing, one after the other: the 1st, 2nd, 3rd...
 * I/O call, allocation or thread, until it passes clean. Each time: an error that says what happened,
 * results as they were, nothing leaked, no third state now or after reopening, and the store goes on
 * working unless it said that it does not.
 *
 * FAULT_OP chooses the cases whose function and name contain it ("emdb_put ordered").
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
	{ .name = "EMFILE", .mask = IO_MASK(IO_OP_OPENAT), .err = -EMFILE, .few = true },
	{ .name = "no mapping", .mask = IO_MASK(IO_OP_MMAP), .err = -ENOMEM, .few = true },
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

static void store_open(struct store *s, bool ordered)
{
	struct emdb_options o = plain_options;

	o.flags |= ordered ? EMDB_OPEN_ORDERED : 0;
	CHECK_OK(emdb_open(STORE, &o, &s->db));
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
	if (!(op->flags & CLOSED))
		store_open(s, op->flags & ORDERED);
	if (op->prepare)
		op->prepare(s);
}

/* Opens it again without failures, with its key if it has one. */
static uint64_t print_reopened(const struct fault_op *op, const char *path)
{
	struct emdb_detail detail = { .text = "" };
	struct emdb_options o = plain_options;
	uint64_t print;
	emdb_db *db;
	emdb_err err;

	o.detail = &detail;
	o.flags = 0;
	err = emdb_open(path, &o, &db);
	if (err == EMDB_ERR_KEY_REQUIRED) {
		o.secret = &secrets[0];
		err = emdb_open(path, &o, &db);
	}
	if (err && op->flags & REPAIRS)
		return 0; /* as before, or half done */
	if (err)
		FAIL("%s %s: does not open any more: %s: %s", op->fn, op->what, emdb_err_name(err),
		     detail.text);
	print = print_store(db);
	CHECK_OK(put_str(db, EMDB_ROOT, "works", 100));
	CHECK_OK(emdb_flush(db));
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "works", 5, NULL, NULL));
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
	if (s.after)
		s.after(&s, &err);
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

/* What a walk in order shows is what there is, each once and in order. */
static void check_order(const struct fault_op *op, const struct injection *i, struct store *s,
			emdb_err err)
{
	struct emdb_entry e;
	char last[64] = "";
	uint64_t n = 0, count;
	emdb_iter *it;
	emdb_err end;

	CHECK_OK(emdb_range_new(s->db, EMDB_ROOT, NULL, &it));
	for (; (end = emdb_iter_next(it, &e)) == EMDB_OK; n++) {
		char key[sizeof(last)];

		snprintf(key, sizeof(key), "%.*s", (int)e.key_len, (const char *)e.key);
		if (strcmp(last, key) >= 0)
			COMPLAIN("%s comes behind %s", key, last);
		memcpy(last, key, sizeof(last));
	}
	CHECK_EQ(end, EMDB_ERR_NOT_FOUND);
	emdb_iter_free(it);
	CHECK_OK(emdb_count(s->db, EMDB_ROOT, &count));
	if (n != count)
		COMPLAIN("in order there are %" PRIu64 " entries of %" PRIu64, n, count);
}

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
	/* Failed, it may be half applied. */
	if (op->flags & ORDERED && !st.failed)
		check_order(op, i, s, err);
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

/*
 * A repair that failed is called again. What cannot be read at that moment is damaged, and may be
 * lost for good.
 */
static void check_repair(const struct fault_op *op, const struct injection *i, struct store *s,
			 const struct sides *sides, emdb_err err, uint64_t print)
{
	const bool loses = i->err == -EIO;
	emdb_err then = EMDB_OK;

	if (!err && print != sides->after && !loses)
		COMPLAIN("succeeded, and is another store after reopening");
	if (err)
		then = op->run(s);
	if (then)
		COMPLAIN("and then the repair gave %s", emdb_err_name(then));
	print = print_reopened(op, STORE);
	if (print == 0 || (print != sides->after && !loses))
		COMPLAIN("another repair gave another store");
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
	if (s.after)
		s.after(&s, &err);
	print = print_reopened(op, STORE);
	if (op->flags & REPAIRS)
		check_repair(op, i, &s, sides, err, print);
	else if (print != sides->before && print != sides->after)
		COMPLAIN("a third state after reopening");
	else if (!err && print != sides->after)
		COMPLAIN("succeeded, and is not there after reopening");
	check_balance(op, i, err);
	return hits != 0;
}

/* How far to the next one, about: the first ones all, then some, of long loops fewer. */
static uint64_t step_of(const struct injection *i, uint64_t nth)
{
#ifdef __SANITIZE_ADDRESS__
	const uint64_t step = 25 + nth / 4;
#else
	const uint64_t step = 12 + nth / 8;
#endif

	return getenv("EMDB_LONG") || i->few || nth < 4 ? 1 : step;
}

/* All failures of one case; how many there were. */
static unsigned int all_faults(const struct fault_op *op, uint64_t *seed)
{
	const struct sides sides = sides_of(op);
	unsigned int count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(injections); i++) {
		uint64_t nth = 1;

		while (one_case(op, &injections[i], nth, &sides)) {
			count++;
			nth += 1 + test_rand(seed) % (2 * step_of(&injections[i], nth) - 1);
		}
	}
	printf("  %-24s %-24s %5u faults\n", op->fn, op->what, count);
	return count;
}

static const struct {
	const struct fault_op *ops;
	size_t count;
} tables[] = {
	{ fault_ops, ARRAY_SIZE(fault_ops) },
	{ fault_async_ops, ARRAY_SIZE(fault_async_ops) },
	{ fault_convert_ops, ARRAY_SIZE(fault_convert_ops) },
	{ fault_key_ops, ARRAY_SIZE(fault_key_ops) },
};

static bool chosen(const struct fault_op *op, const char *only)
{
	char name[100];

	snprintf(name, sizeof(name), "%s %s", op->fn, op->what);
	return !only || strstr(name, only);
}

TEST(test_faults__every_call_of_every_function_fails)
{
	const char *const only = getenv("FAULT_OP");
	uint64_t seed = test_seed();
	unsigned int all = 0, ops = 0;

	samples_make();
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (size_t k = 0; k < tables[t].count; k++)
			if (chosen(&tables[t].ops[k], only)) {
				all += all_faults(&tables[t].ops[k], &seed);
				ops++;
			}
	host_end();
	base_set_allocator(NULL);
	sample_release(&clean);
	sample_release(&killed);
	printf("%u faults injected into %u operations, lost: 0\n", all, ops);
}

static bool listed(const char *fn)
{
	bool found = false;

	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (size_t k = 0; k < tables[t].count; k++)
			found = found || strcmp(fn, tables[t].ops[k].fn) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_exempt); i++)
		found = found || strcmp(fn, fault_exempt[i]) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(fault_covered); i++)
		found = found || strcmp(fn, fault_covered[i]) == 0;
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
	printf("%u functions\n", n);
}

TEST_MAIN()
