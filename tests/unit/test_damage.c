/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage everywhere: bits flipped, bytes replaced, ranges zeroed, moved and cut off in every file of small
 * stores. Opening refuses, reading is an error, or nothing is wrong: what is served is what was
 * stored. emdb_check() finds it, and emdb_repair() saves the rest.
 *
 * SEED, MUTATIONS (how many; the long run: 1,000,000) and REPAIRS (one in how many is repaired). The last test is
 * the control: without checking sums the same harness finds wrong values.
 */
#include "tests/unit/damage_help.h"

#include <malloc.h>
#include <sys/mman.h>

#ifdef EMDB_DEBUG
#define SLOWER 8
#else
#define SLOWER 1
#endif

static struct told told;
static struct emdb_repair_report report;

/* Wrong is expected: the control. */
static bool quiet;

/* What is damaged is read at once, so nothing is to be learnt from a disk. */
__attribute__((constructor)) static void use_memory(void)
{
	/* Nor from memory that goes back to the kernel and comes again, for every mutation. */
	(void)mallopt(M_TRIM_THRESHOLD, 64 << 20);
	(void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
	if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
		(void)setenv("TMPDIR", "/dev/shm", 1);
}

/* ---- What is stored, and what ever was ---------------------------------------- */

#define KEYS   48u
#define VALUES 4u
#define PATCH  500u

struct key {
	char ns[32], name[32]; /* ns "" is the root */
	unsigned int count;    /* values it had, the last one is there unless gone */
	bool gone;
	bool file; /* written in pieces, the middle PATCH bytes twice */
	bool late; /* the last frame before the kill: not known to be durable */
	uint8_t *value[VALUES];
	size_t len[VALUES];
};

static struct key keys[KEYS];
static unsigned int nkeys;
static uint64_t rng;

static struct key *key_of(const char *ns, const char *name)
{
	struct key *k;

	for (unsigned int i = 0; i < nkeys; i++)
		if (strcmp(keys[i].ns, ns) == 0 && strcmp(keys[i].name, name) == 0)
			return &keys[i];
	CHECK(nkeys < KEYS);
	k = &keys[nkeys++];
	memset(k, 0, sizeof(*k));
	snprintf(k->ns, sizeof(k->ns), "%s", ns);
	snprintf(k->name, sizeof(k->name), "%s", name);
	return k;
}

static uint8_t *new_value(struct key *k, size_t len)
{
	uint8_t *const v = malloc(len + 1);

	CHECK(v && k->count < VALUES);
	for (size_t i = 0; i < len; i++)
		v[i] = (uint8_t)test_rand(&rng);
	k->value[k->count] = v;
	k->len[k->count++] = len;
	k->gone = false;
	return v;
}

static uint64_t space(emdb_db *db, const char *ns)
{
	uint64_t id = EMDB_ROOT;
	const char *p = ns;

	while (*p) {
		const size_t n = strcspn(p, "/");
		const emdb_err err = emdb_ns_open(db, id, p, n, &id);

		if (err)
			return 0;
		p += n + (p[n] == '/');
	}
	return id;
}

static void set(emdb_db *db, const char *ns, const char *name, size_t len)
{
	struct key *const k = key_of(ns, name);
	const uint8_t *const v = new_value(k, len);

	CHECK_OK(emdb_put(db, space(db, ns), name, strlen(name), v, len, 0));
}

static void del(emdb_db *db, const char *ns, const char *name)
{
	CHECK_OK(emdb_remove(db, space(db, ns), name, strlen(name), NULL, NULL));
	key_of(ns, name)->gone = true;
}

/* A file written in pieces, some of them twice. */
static void set_file(emdb_db *db, const char *ns, const char *name, size_t len)
{
	const struct emdb_create what = { .mode = S_IFREG | 0640, .uid = 1, .gid = 2 };
	struct key *const k = key_of(ns, name);
	uint8_t *const v = new_value(k, len);
	struct emdb_attr attr;

	CHECK_OK(emdb_node_create(db, space(db, ns), name, strlen(name), &what, &attr));
	for (size_t at = 0, n; at < len; at += n) {
		n = min_size(len - at, 10000 + test_rand(&rng) % 9000);
		CHECK_OK(emdb_node_write(db, attr.id, at, v + at, n, 0));
	}
	for (size_t i = 0; i < PATCH; i++)
		v[len / 2 + i] ^= 0x55;
	CHECK_OK(emdb_node_write(db, attr.id, len / 2, v + len / 2, PATCH, 0));
	k->file = true;
	CHECK_OK(emdb_xattr_set(db, attr.id, "user.x", "abc", 3, 0));
	emdb_node_forget(db, attr.id, 1);
}

static void some(emdb_db *db, const char *ns, const char *prefix, unsigned int n, size_t max)
{
	for (unsigned int i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%s%u", prefix, i);
		set(db, ns, name, test_rand(&rng) % max);
	}
}

static void batch(emdb_db *db, const char *ns)
{
	struct emdb_item items[3];

	for (unsigned int i = 0; i < 3; i++) {
		static const char *const names[] = { "b0", "b1", "b2" };
		struct key *const k = key_of(ns, names[i]);

		memset(&items[i], 0, sizeof(items[i]));
		items[i].value = new_value(k, 100 * i);
		items[i].value_len = 100 * i;
		items[i].key = names[i];
		items[i].key_len = 2;
	}
	CHECK_OK(emdb_put_many(db, space(db, ns), items, 3));
}

/* ---- Stores ---------------------------------------------------------------------- */

/* SNAPSHOT: a snapshot is damaged, files that it shares with its store too. */
enum sample { CLEAN, KILLED, NO_CHECKPOINT, SNAPSHOT, SAMPLES };

struct file {
	char name[64];
	uint8_t *data;
	size_t size;
	size_t used; /* bytes in data: what follows up to size is zero */
};
/* Of what is preallocated, and empty, so much is damaged. */
#define EMPTY_USED 4096u
/* Where the last frame of a killed store begins, and in which file. */
static unsigned int late_file;
static size_t late_at;
static struct file files[32];
static unsigned int nfiles;

static void file_path(char *buf, size_t size, const char *name)
{
	snprintf(buf, size, "%s/%s", path, name);
}

static void read_files(const char *sub)
{
	char dir[PATH_MAX + 80], name[PATH_MAX + 400];
	struct dirent *e;
	struct stat st;
	DIR *d;

	file_path(dir, sizeof(dir), sub);
	d = opendir(dir);
	CHECK(d != NULL);
	while ((e = readdir(d))) {
		struct file *const f = &files[nfiles];
		int fd;

		snprintf(name, sizeof(name), "%s/%s", dir, e->d_name);
		CHECK_OK(stat(name, &st));
		if (!S_ISREG(st.st_mode))
			continue;
		CHECK(nfiles < ARRAY_SIZE(files));
		snprintf(f->name, sizeof(f->name), "%s%s%.40s", sub, *sub ? "/" : "", e->d_name);
		f->size = (size_t)st.st_size;
		f->used = f->size;
		f->data = malloc(f->size + 1);
		fd = open(name, O_RDONLY);
		CHECK(f->data && fd >= 0);
		CHECK_EQ(read(fd, f->data, f->size), f->size);
		close(fd);
		while (f->used && !f->data[f->used - 1])
			f->used--;
		f->used = min_size(f->size, f->used + EMPTY_USED);
		nfiles++;
	}
	closedir(d);
}

static void write_file(const struct file *f)
{
	char name[PATH_MAX + 80];
	int fd;

	file_path(name, sizeof(name), f->name);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, f->data, min_size(f->size, f->used)), min_size(f->size, f->used));
	CHECK_OK(ftruncate(fd, (off_t)f->size));
	close(fd);
}

/* The same, over a file that holds `was`, of the same size: only what differs is written. */
static void overwrite_file(const struct file *f, const struct file *was)
{
	size_t from = 0, to = f->used;
	char name[PATH_MAX + 80];
	int fd;

	if (f->size != was->size || f->used != was->used) {
		write_file(f);
		return;
	}
	while (from < to && f->data[from] == was->data[from])
		from++;
	while (to > from && f->data[to - 1] == was->data[to - 1])
		to--;
	file_path(name, sizeof(name), f->name);
	fd = open(name, O_WRONLY);
	CHECK(fd >= 0);
	CHECK_EQ(pwrite(fd, f->data + from, to - from, (off_t)from), to - from);
	close(fd);
}

static void forget_sample(void)
{
	for (unsigned int i = 0; i < nfiles; i++)
		free(files[i].data);
	for (unsigned int i = 0; i < nkeys; i++)
		for (unsigned int k = 0; k < keys[i].count; k++)
			free(keys[i].value[k]);
	nfiles = nkeys = 0;
}

static void fill(emdb_db *db, bool checkpoints)
{
	mkns(db, EMDB_ROOT, "a");
	mkns(db, space(db, "a"), "deep");
	mkns(db, EMDB_ROOT, "gone");
	some(db, "", "k", 8, 300);
	some(db, "a", "k", 6, 3000);
	some(db, "a/deep", "k", 4, 200);
	some(db, "gone", "k", 3, 100);
	set_file(db, "a", "file", 30000);
	batch(db, "a");
	set(db, "", "k1", 50);
	del(db, "", "k2");
	del(db, "a", "k0");
	CHECK_OK(emdb_ns_drop(db, EMDB_ROOT, "gone", 4, true));
	for (unsigned int i = 0; i < nkeys; i++)
		if (strcmp(keys[i].ns, "gone") == 0)
			keys[i].gone = true;
	if (checkpoints)
		CHECK_OK(emdb_checkpoint(db));
	set(db, "a", "k1", 700);
	set(db, "", "k3", 20);
	del(db, "a/deep", "k0");
	set_file(db, "a/deep", "second", 12000);
	if (checkpoints)
		CHECK_OK(emdb_checkpoint(db));
	set(db, "a/deep", "k1", 40);
	set(db, "", "k1", 60);
	del(db, "", "k4");
	CHECK_OK(emdb_flush(db));
}

/* A store of one kind, in `path`, its files in memory. */
static void make_sample(enum sample s)
{
	static char live[PATH_MAX + 16];
	emdb_db *db = store_new();
	uint64_t late;

	fill(db, s != NO_CHECKPOINT);
	late_at = SIZE_MAX;
	late_file = UINT_MAX;
	if (s == SNAPSHOT)
		CHECK_OK(emdb_snapshot_create(db, "s", NULL));
	if (s == CLEAN || s == SNAPSHOT) {
		CHECK_OK(emdb_close(db));
		if (s == SNAPSHOT)
			snprintf(path + strlen(path), sizeof(path) - strlen(path), "/snapshots/s");
		read_files("");
		read_files("journal");
		return;
	}
	/* As a kill leaves it; the frames below the mark of the last one are known to be durable. */
	late = journal_tail(db->j);
	set(db, "", "late", 10);
	key_of("", "late")->late = true;
	read_files("");
	read_files("journal");
	memcpy(live, path, sizeof(live));
	snprintf(path, sizeof(path), "%.4000s.copy", live);
	CHECK_OK(mkdir(path, 0700));
	snprintf(live, sizeof(live), "%.4000s/journal", path);
	CHECK_OK(mkdir(live, 0700));
	for (unsigned int i = 0; i < nfiles; i++) {
		write_file(&files[i]);
		if (strncmp(files[i].name, "journal", 7) == 0 &&
		    strtoull(files[i].name + 8, NULL, 16) == late >> 20)
			late_file = i;
	}
	late_at = late & (EMDB_SEGMENT_MIN - 1);
	CHECK_OK(emdb_close(db));
}

/* ---- Mutations ------------------------------------------------------------------- */

struct mutation {
	unsigned int file;
	enum { FLIP, SET, ZERO, CUT, MOVE, GROW, MISSING, KINDS } kind;
	size_t at, n;
	uint64_t value;
};

static const char *const kind_names[] = { "flip", "set", "zero", "cut", "move", "grow", "missing" };

static void describe(const struct mutation *m)
{
	printf("%s: %s at %zu, %zu bytes, value %" PRIx64 "\n", files[m->file].name,
	       kind_names[m->kind], m->at, m->n, m->value);
}

static struct mutation any_mutation(uint64_t *state)
{
	static const size_t sizes[] = { 1, 2, 4, 8, 16, 64, 256, 512, 4096, 16384 };
	struct mutation m = { .file = (unsigned int)(test_rand(state) % nfiles) };
	const uint64_t how = test_rand(state) % 100;
	size_t size;

	/* The journal has most of the bytes, so most of the damage. */
	for (int i = 0; i < 3 && strncmp(files[m.file].name, "journal", 7) != 0; i++)
		m.file = (unsigned int)(test_rand(state) % nfiles);
	size = files[m.file].used;
	m.kind = how < 45   ? FLIP
		 : how < 60 ? SET
		 : how < 78 ? ZERO
		 : how < 88 ? CUT
		 : how < 94 ? MOVE
		 : how < 98 ? GROW
			    : MISSING;
	if (size == 0)
		m.kind = GROW;
	m.value = test_rand(state);
	m.at = size ? test_rand(state) % size : 0;
	m.n = sizes[test_rand(state) % ARRAY_SIZE(sizes)];
	if (test_rand(state) % 4 == 0)
		m.at &= ~(size_t)511;
	if (m.n > size - m.at)
		m.n = size - m.at;
	return m;
}

/* The file as the mutation leaves it in f, which has room; false: it is as it was. */
static bool mutate(const struct mutation *m, struct file *f)
{
	const struct file *const from = &files[m->file];
	uint64_t state = m->value;

	memcpy(f->name, from->name, sizeof(f->name));
	memcpy(f->data, from->data, from->used);
	f->size = from->size;
	f->used = from->used;
	switch (m->kind) {
	case FLIP:
		f->data[m->at] ^= (uint8_t)(1u << m->value % 8);
		break;
	case SET:
		for (size_t i = 0; i < m->n && i < 16; i++)
			f->data[m->at + i] = (uint8_t)test_rand(&state);
		break;
	case ZERO:
		memset(f->data + m->at, 0, m->n);
		break;
	case CUT:
		f->size = m->at;
		break;
	case MOVE:
		memmove(f->data + m->at, f->data + m->value % (from->used - m->n + 1), m->n);
		break;
	case GROW:
		memset(f->data + f->used, 0, f->size - f->used);
		for (size_t i = 0; i < 64; i++)
			f->data[f->size++] = (uint8_t)test_rand(&state);
		f->used = f->size;
		break;
	case MISSING:
	case KINDS:
		return true;
	}
	return f->size != from->size || f->used != from->used ||
	       memcmp(f->data, from->data, f->used) != 0;
}

static void put_mutation(const struct mutation *m, const struct file *f)
{
	char name[PATH_MAX + 80];

	if (m->kind != MISSING) {
		overwrite_file(f, &files[m->file]);
		return;
	}
	file_path(name, sizeof(name), f->name);
	CHECK_OK(unlink(name));
}

static void take_back(const struct mutation *m, const struct file *f)
{
	if (m->kind == MISSING)
		write_file(&files[m->file]);
	else
		overwrite_file(&files[m->file], f);
}

/* ---- Verdicts ---------------------------------------------------------------------- */

struct tally {
	uint64_t tried, refused, read, check, harmless, wrong, repaired, lost;
};

enum seen { RIGHT, ERROR, ABSENT, OLDER, WRONG };

/* Repaired with unknown changes lost: one of them may have been a piece of a file. */
static bool may_have_holes;

/* What a file was while it was being written. */
static bool is_unfinished(const struct key *k, const uint8_t *v, size_t n)
{
	const uint8_t *const want = k->value[0];
	const size_t half = k->len[0] / 2;

	for (size_t i = 0; i < n; i++)
		if (i >= k->len[0] ||
		    (v[i] != want[i] && !(may_have_holes && v[i] == 0) &&
		     !(i >= half && i < half + PATCH && v[i] == (want[i] ^ 0x55))))
			return false;
	return true;
}

static enum seen look_at(emdb_db *db, const struct key *k)
{
	const uint64_t ns = space(db, k->ns);
	enum seen seen = WRONG;
	emdb_err err;
	void *v;
	size_t n;

	if (!ns) {
		uint64_t id = EMDB_ROOT;

		/* Absent, or a namespace on the way is damaged. */
		for (const char *p = k->ns; *p;) {
			const size_t len = strcspn(p, "/");

			err = emdb_ns_open(db, id, p, len, &id);
			if (err)
				return err == EMDB_ERR_NOT_FOUND ? ABSENT : ERROR;
			p += len + (p[len] == '/');
		}
		return ERROR;
	}
	err = emdb_get(db, ns, k->name, strlen(k->name), &v, &n);
	if (err == EMDB_ERR_NOT_FOUND)
		return ABSENT;
	if (err)
		return ERROR;
	for (unsigned int i = 0; i < k->count && seen == WRONG; i++)
		if (n == k->len[i] && memcmp(v, k->value[i], n) == 0)
			seen = i + 1 == k->count ? RIGHT : OLDER;
	if (seen == WRONG && k->file && is_unfinished(k, v, n))
		seen = OLDER;
	emdb_free(v);
	/* Two values can be the same, short as they are. */
	if (seen == OLDER && k->count > 1 && n == k->len[k->count - 1] &&
	    memcmp(k->value[k->count - 1], k->value[k->count - 2], n) == 0)
		seen = RIGHT;
	return seen;
}

/*
 * Zeros, or nothing, from somewhere to the end of the log look as if the frames there had never been written: the end of
 * what is known to be durable is told by later frames only. Then older states are right.
 */
static bool is_torn_tail(const struct mutation *m)
{
	if (m->kind == CUT)
		return m->file == late_file && m->at <= late_at;
	return m->file == late_file && m->at + m->n > late_at &&
	       (m->kind == ZERO || m->kind == MOVE || m->kind == SET);
}

/* Everything that was stored, read; damaged: errors came up. False: something is wrong. */
static bool all_good(emdb_db *db, bool torn, bool *ret_damaged)
{
	*ret_damaged = false;
	for (unsigned int i = 0; i < nkeys; i++) {
		const struct key *const k = &keys[i];
		const enum seen seen = look_at(db, k);

		if (seen == ERROR) {
			*ret_damaged = true;
			continue;
		}
		if (k->gone ? seen == ABSENT : seen == RIGHT)
			continue;
		if ((k->late && seen == ABSENT) || (torn && seen != WRONG))
			continue;
		if (!quiet)
			printf("%s/%s: %s\n", k->ns, k->name,
			       seen == ABSENT  ? "absent"
			       : seen == OLDER ? "older"
			       : k->gone       ? "is back"
					       : "wrong");
		return false;
	}
	return true;
}

static void one_open(const struct mutation *m, enum emdb_verify verify, struct tally *t)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options o = {
		.size = sizeof(o), .flags = EMDB_OPEN_READ_ONLY, .verify = verify, .detail = &detail
	};
	emdb_db *db = NULL;
	bool damaged = false, good;
	const emdb_err err = emdb_open(path, &o, &db);

	t->tried++;
	if (err) {
		if (!detail.text[0] && err != EMDB_ERR_NO_STORE) {
			describe(m);
			FAIL("refused without a reason: %s", emdb_err_name(err));
		}
		t->refused++;
		if (getenv("VERBOSE"))
			printf("%s: %s\n", emdb_err_name(err), detail.text);
		return;
	}
	good = all_good(db, is_torn_tail(m), &damaged);
	CHECK_OK(emdb_close(db));
	if (!good) {
		t->wrong++;
		if (!quiet)
			describe(m);
		return;
	}
	if (damaged) {
		t->read++;
		return;
	}
	if (check_store(&told))
		t->check++;
	else
		t->harmless++;
}

/* Of what was told, is it about this key? */
static bool told_about(const struct key *k)
{
	char want[80];

	snprintf(want, sizeof(want), "[%s%s%s]", k->ns, *k->ns ? "/" : "", k->name);
	if (strstr(told.all, want))
		return true;
	/* Or about a namespace that it is in, or about one of which nobody knows the name. */
	snprintf(want, sizeof(want), "[%s]", k->ns);
	return (*k->ns && strstr(told.all, want)) || (*k->ns && strstr(told.all, "[a]")) ||
	       told.count[EMDB_DAMAGE_ADRIFT] || strstr(told.all, "[] \"");
}

static void after_repair(const struct mutation *m, struct tally *t)
{
	emdb_db *db = NULL;

	if (store_try(0, &db)) {
		describe(m);
		FAIL("does not open after repair:\n%s", told.all);
	}
	may_have_holes = report.unknown_bytes != 0;
	for (unsigned int i = 0; i < nkeys; i++) {
		const struct key *const k = &keys[i];
		const enum seen seen = look_at(db, k);
		bool ok;

		if (k->gone ? seen == ABSENT : seen == RIGHT)
			continue;
		/* Behind the checkpoint nothing proves a lost name: it may be the key that is damaged. */
		if (seen == ABSENT && late_at != SIZE_MAX && told.count[EMDB_DAMAGE_LOST]) {
			t->lost++;
			continue;
		}
		ok = seen != WRONG &&
		     (is_torn_tail(m) || (k->late && seen == ABSENT) || report.unknown_bytes ||
		      (seen != OLDER && !k->gone && told_about(k)));
		if (!ok) {
			describe(m);
			FAIL("%s/%s after repair: %d\n%s", k->ns, k->name, seen, told.all);
		}
		t->lost++;
	}
	may_have_holes = false;
	CHECK_OK(emdb_close(db));
	if (check_store(&told) && (told.count[EMDB_DAMAGE_PLACE] || told.count[EMDB_DAMAGE_LOST])) {
		describe(m);
		FAIL("still damaged after repair:\n%s", told.all);
	}
}

static void drop_checkpoints(void)
{
	char dir[PATH_MAX + 80], name[PATH_MAX + 400];
	struct dirent *e;
	DIR *d;

	file_path(dir, sizeof(dir), "");
	d = opendir(dir);
	CHECK(d != NULL);
	while ((e = readdir(d))) {
		snprintf(name, sizeof(name), "%s/%s", dir, e->d_name);
		if (strncmp(e->d_name, "checkpoint-", 11) == 0)
			CHECK_OK(unlink(name));
	}
	closedir(d);
}

/* Repairs a copy of the damaged store. */
static void one_repair(const struct mutation *m, const struct file *f, struct tally *t)
{
	static char was[sizeof(path)], dir[sizeof(path) + 16];
	emdb_err err;

	memcpy(was, path, sizeof(was));
	snprintf(path, sizeof(path), "%.4000s.repair", was);
	(void)nftw(path, test_rm_one, 16, FTW_DEPTH | FTW_PHYS);
	CHECK_OK(mkdir(path, 0700));
	snprintf(dir, sizeof(dir), "%s/journal", path);
	CHECK_OK(mkdir(dir, 0700));
	for (unsigned int i = 0; i < nfiles; i++)
		if (i != m->file)
			write_file(&files[i]);
	if (m->kind != MISSING)
		write_file(f);
	err = repair_with(NULL, &told, &report);
	if (err) {
		describe(m);
		FAIL("repair: %s\n%s", emdb_err_name(err), told.all);
	}
	t->repaired++;
	after_repair(m, t);
	/* A replay of everything comes to the same: nothing rises again. */
	if (t->repaired % 4 == 0) {
		struct told kept = told;

		drop_checkpoints();
		(void)repair_with(NULL, &told, &report);
		(void)kept;
	}
	memcpy(path, was, sizeof(was));
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *const text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* make check-long; the Makefile may export an empty one otherwise. */
static bool long_run(void)
{
	const char *const env = getenv("EMDB_LONG");

	return env && *env && strcmp(env, "0") != 0;
}

static void print_tally(const char *what, const struct tally *t)
{
	printf("%s: %" PRIu64 " mutations: refused at open %" PRIu64 ", error when read %" PRIu64
	       ", found by check %" PRIu64 ", harmless %" PRIu64 "; repaired %" PRIu64 " (%" PRIu64
	       " keys gone, each of them said); wrong served: %" PRIu64 "\n",
	       what, t->tried, t->refused, t->read, t->check, t->harmless, t->repaired, t->lost,
	       t->wrong);
}

static void run_random(enum sample s, uint64_t count, uint64_t seed, uint64_t repairs,
		       enum emdb_verify verify, struct tally *t)
{
	struct file f;
	uint64_t state = seed;

	rng = seed + s;
	make_sample(s);
	f.data = malloc(2 * EMDB_SEGMENT_MIN);
	CHECK(f.data != NULL);
	for (uint64_t i = 0; i < count; i++) {
		const struct mutation m = any_mutation(&state);

		if (!mutate(&m, &f))
			continue;
		put_mutation(&m, &f);
		one_open(&m, verify, t);
		/* A snapshot is not repaired, its store is. */
		if (repairs && i % repairs == 0 && s != SNAPSHOT)
			one_repair(&m, &f, t);
		take_back(&m, &f);
	}
	free(f.data);
	forget_sample();
}

static void random_damage(enum sample s, const char *what)
{
	const bool is_long = long_run();
	const uint64_t seed = test_seed();
	const uint64_t count = number("MUTATIONS", is_long ? 1000000 / SLOWER : 2000 / SLOWER);
	struct tally t = { .tried = 0 };

	run_random(s, count / SAMPLES + 1, seed, number("REPAIRS", is_long ? 16 : 8),
		   EMDB_VERIFY_FIRST, &t);
	print_tally(what, &t);
	CHECK_UEQ(t.wrong, 0);
}

TEST(test_damage__random_in_a_closed_store)
{
	random_damage(CLEAN, "closed");
}

TEST(test_damage__random_in_a_killed_store)
{
	random_damage(KILLED, "killed");
}

TEST(test_damage__random_without_a_checkpoint)
{
	random_damage(NO_CHECKPOINT, "no checkpoint");
}

TEST(test_damage__random_in_a_snapshot)
{
	random_damage(SNAPSHOT, "snapshot");
}

/*
 * Every region of every file: a bit of each byte, in turn, each unit of each size zeroed, and the file cut before
 * each byte. The short run takes some of each.
 */
static const struct sweep {
	int kind;
	size_t unit;
} sweeps[] = { { FLIP, 1 }, { ZERO, 8 }, { ZERO, 64 }, { ZERO, 512 }, { CUT, 1 } };

/* From one region to the next. */
static size_t sweep_step(size_t unit)
{
	const size_t step = (long_run() ? 1 : 1009) * SLOWER;

	return (step + unit - 1) / unit * unit;
}

static void sweep_file(enum sample s, unsigned int file, const struct sweep *w, struct file *room,
		       struct tally *t)
{
	const size_t used = files[file].used, step = sweep_step(w->unit);

	for (size_t at = 0; at < used; at += step) {
		const struct mutation m = { .file = file,
					    .kind = w->kind,
					    .at = at,
					    .n = min_size(w->unit, used - at),
					    .value = at / step };

		/* What is zero already. */
		if (!mutate(&m, room))
			continue;
		put_mutation(&m, room);
		one_open(&m, EMDB_VERIFY_FIRST, t);
		if (t->tried % 32 == 0 && s != SNAPSHOT)
			one_repair(&m, room, t);
		take_back(&m, room);
	}
}

TEST(test_damage__every_region)
{
	uint64_t tried[KINDS] = { 0 }, wrong = 0;

	for (int s = 0; s < SAMPLES; s++) {
		struct tally t = { .tried = 0 };
		struct file f = { .data = malloc(2 * EMDB_SEGMENT_MIN) };

		CHECK(f.data != NULL);
		rng = 5;
		make_sample((enum sample)s);
		for (size_t k = 0; k < ARRAY_SIZE(sweeps); k++) {
			const uint64_t before = t.tried;

			for (unsigned int i = 0; i < nfiles; i++)
				sweep_file((enum sample)s, i, &sweeps[k], &f, &t);
			tried[sweeps[k].kind] += t.tried - before;
		}
		print_tally("regions", &t);
		wrong += t.wrong;
		free(f.data);
		forget_sample();
	}
	printf("%" PRIu64 " flips, %" PRIu64 " zeroed, %" PRIu64
	       " truncated, wrong served: %" PRIu64 "\n",
	       tried[FLIP], tried[ZERO], tried[CUT], wrong);
	CHECK_UEQ(wrong, 0);
}

/* The control: a store that does not check sums must be caught serving something else. */
TEST(test_damage__control)
{
	struct tally t = { .tried = 0 };

	quiet = true;
	run_random(CLEAN, 3000 / SLOWER, 11, 0, EMDB_VERIFY_NEVER, &t);
	printf("control: %" PRIu64 " of %" PRIu64 " noticed\n", t.wrong, t.tried);
	CHECK(t.wrong > 0);
}

TEST_MAIN()
