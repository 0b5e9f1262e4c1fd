/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transfer between two accounts: all of it or nothing, and again when somebody else was faster.
 *
 *	cc txn.c $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
 */
#include <emdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *what, emdb_err err)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", what, emdb_strerror(err));
	exit(1);
}

static emdb_err read_amount(emdb_txn *txn, const char *who, long *ret)
{
	void *value;
	size_t len;
	const emdb_err err = emdb_txn_get(txn, EMDB_ROOT, who, strlen(who), &value, &len);

	if (err)
		return err;
	*ret = strtol(value, NULL, 10);
	emdb_free(value);
	return EMDB_OK;
}

static emdb_err write_amount(emdb_txn *txn, const char *who, long amount)
{
	char text[32];
	const int n = snprintf(text, sizeof(text), "%ld", amount);

	return emdb_txn_put(txn, EMDB_ROOT, who, strlen(who), text, (size_t)n, EMDB_TTL_DEFAULT);
}

/* One try.  *ret_enough: there was enough to give. */
static emdb_err transfer(emdb_db *db, const char *from, const char *to, long amount, int meddle,
			 int *ret_enough)
{
	emdb_txn *txn;
	long a, b;
	emdb_err err;

	err = emdb_txn_begin(db, NULL, &txn);
	if (err)
		return err;
	err = read_amount(txn, from, &a);
	if (!err)
		err = read_amount(txn, to, &b);
	*ret_enough = !err && a >= amount;
	if (err || !*ret_enough) {
		emdb_txn_abort(txn);
		return err;
	}
	err = write_amount(txn, from, a - amount);
	if (!err)
		err = write_amount(txn, to, b + amount);
	/* Here: somebody else changes what was read. */
	if (!err && meddle)
		err = emdb_put(db, EMDB_ROOT, from, strlen(from), "70", 2, EMDB_TTL_DEFAULT);
	if (err) {
		emdb_txn_abort(txn);
		return err;
	}
	/* Over, whatever comes out. */
	return emdb_txn_commit(txn, EMDB_COMMIT_DURABLE);
}

static void show(emdb_db *db)
{
	const struct emdb_txn_options reader = { .size = sizeof(reader),
						 .flags = EMDB_TXN_READ_ONLY };
	emdb_txn *txn;
	long a, b;

	/* Both of the same moment. */
	check("begin", emdb_txn_begin(db, &reader, &txn));
	check("read", read_amount(txn, "ann", &a));
	check("read", read_amount(txn, "bob", &b));
	check("commit", emdb_txn_commit(txn, 0));
	printf("ann has %ld, bob has %ld\n", a, b);
}

int main(int argc, char **argv)
{
	const struct emdb_options opts = { .size = sizeof(opts), .flags = EMDB_OPEN_CREATE };
	emdb_db *db;
	emdb_err err;
	int enough, tries = 0;

	if (argc != 2)
		return 2;
	check("open", emdb_open(argv[1], &opts, &db));
	check("put", emdb_put(db, EMDB_ROOT, "ann", 3, "100", 3, EMDB_TTL_DEFAULT));
	check("put", emdb_put(db, EMDB_ROOT, "bob", 3, "0", 1, EMDB_TTL_DEFAULT));
	do {
		err = transfer(db, "ann", "bob", 60, tries == 0, &enough);
		printf("try %d: %s\n", ++tries, emdb_err_name(err));
	} while (err == EMDB_ERR_CONFLICT);
	check("transfer", err);
	show(db);
	check("transfer", transfer(db, "ann", "bob", 60, 0, &enough));
	printf("%s\n", enough ? "once more" : "not enough for another");
	show(db);
	check("close", emdb_close(db));
	return 0;
}
