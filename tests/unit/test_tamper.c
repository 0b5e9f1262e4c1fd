/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody who has the disk and not the key changes a closed encrypted store, and makes the CRCs
 * right again: whatever it is, it is told, and no changed bytes are handed out. With EMDB_LONG=1 every bit
 * is tried, else some, and how many is printed.
 */
#include "core/crypto.h"
#include "core/format.h"
#include "core/manifest.h"
#include "core/segment_i.h"
#include "tests/unit/encrypted_help.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STEP 211
#else
#define STEP 41
#endif

/* From one bit that is changed to the next. */
static uint32_t step_of_bits(uint32_t step)
{
	return long_run() ? 1 : step;
}

/* Nothing here is about disks. */
static const char *tamper_dir(void)
{
	if (long_run() && access("/dev/shm", W_OK) == 0)
		CHECK_EQ(setenv("TMPDIR", "/dev/shm", 0), 0);
	return test_dir();
}

#define FRAMES_MAX 64

/* A closed store, its one segment in memory. */
struct victim {
	char path[PATH_MAX];
	char seg[PATH_MAX + 64], manifest[PATH_MAX + 64];
	uint8_t *p;
	size_t n;
	uint32_t crc_seed;
	struct {
		uint32_t off, len;
		uint8_t kind;
	} frames[FRAMES_MAX];
	size_t count;
	uint64_t base;
};

static uint8_t *slurp(const char *path, size_t *ret_n)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const off_t n = lseek(fd, 0, SEEK_END);
	uint8_t *const p = malloc((size_t)n + 1);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, p, (size_t)n, 0), n);
	(void)close(fd);
	*ret_n = (size_t)n;
	return p;
}

static void spit(const char *path, const void *p, size_t n)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, p, n), (ssize_t)n);
	(void)close(fd);
}

static void find_frames(struct victim *v)
{
	struct seg_header h;

	CHECK(fmt_seg_decode(v->p, v->n, &h));
	v->base = h.id << h.segment_shift;
	v->crc_seed = fmt_crc_seed(h.salt);
	v->count = 0;
	for (uint32_t off = FMT_SEG_HEADER; off < v->n && (!h.tags_off || off < h.tags_off);) {
		struct frame f;

		CHECK_EQ(fmt_frame_parse(v->p + off, v->n - off, v->base + off, true, v->crc_seed,
					 &f),
			 FRAME_OK);
		CHECK(v->count < FRAMES_MAX);
		v->frames[v->count].off = off;
		v->frames[v->count].len = f.len;
		v->frames[v->count++].kind = f.kind;
		off += f.len;
	}
}

static void put(emdb_db *db, const char *key, const char *value)
{
	CHECK_OK(emdb_put(db, EMDB_ROOT, key, strlen(key), value, strlen(value), 0));
}

/* Values say which key they belong to, and what came last. converted: its tags are apart. */
static void victim_new(struct victim *v, bool converted)
{
	const struct emdb_secret *const s = converted ? NULL : &secret;
	const struct emdb_item items[3] = {
		{ .key = "b1", .key_len = 2, .value = "b1 one", .value_len = 6 },
		{ .key = "b2", .key_len = 2, .value = "b2 one", .value_len = 6 },
		{ .key = "b3", .key_len = 2, .value = "b3 one", .value_len = 6 }
	};
	const char *const dir = tamper_dir();
	emdb_db *db;

	snprintf(v->path, sizeof(v->path), "%s", dir);
	db = open_store(dir, s, EMDB_CIPHER_DEFAULT);
	put(db, "k1", "k1 old");
	put(db, "k2", "k2 one");
	put(db, "k1", "k1 one");
	put(db, "k3", "k3 one");
	CHECK_OK(emdb_put_many(db, EMDB_ROOT, items, 3));
	CHECK_OK(emdb_remove(db, EMDB_ROOT, "k3", 2, NULL, NULL));
	put(db, "k4", "k4 one");
	CHECK_OK(emdb_close(db));
	if (converted)
		CHECK_OK(emdb_encrypt(dir, &secret, NULL));
	snprintf(v->seg, sizeof(v->seg), "%s/journal/0000000000000001.seg", dir);
	snprintf(v->manifest, sizeof(v->manifest), "%s/manifest", dir);
	v->p = slurp(v->seg, &v->n);
	find_frames(v);
}

static void each_found(void *ctx, const struct emdb_detail *detail)
{
	char *const text = ctx;

	if (!*text)
		snprintf(text, 512, "%s", detail->text);
}

#define SERVED_ALL 6u /* k3 was removed */

/* Every value that is handed out is one that was put, for that key; how many were. */
static unsigned int check_served(const char *path)
{
	static const char *const keys[] = { "k1", "k2", "k3", "k4", "b1", "b2", "b3" };
	unsigned int served = 0;
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_READ_ONLY | EMDB_OPEN_SALVAGE,
					.secret = &secret };
	emdb_db *db;

	if (emdb_open(path, &o, &db))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		char want[8];
		void *value;
		size_t len;

		snprintf(want, sizeof(want), "%s one", keys[i]);
		if (emdb_get(db, EMDB_ROOT, keys[i], 2, &value, &len))
			continue;
		/* What was lost can uncover what it had replaced; salvage says that it was. */
		if (len != 6 || (memcmp(value, want, 6) != 0 && memcmp(value, "k1 old", 6) != 0))
			FAIL("%s is %.*s", keys[i], (int)len, (char *)value);
		served++;
		emdb_free(value);
	}
	CHECK_OK(emdb_close(db));
	return served;
}

/* The store must not pass. without: the checkpoint is not there, so that all is replayed. */
static void check_told_at(struct victim *v, const char *what, const char *want_text, int line)
{
	const struct emdb_options ro = { .size = sizeof(ro),
					 .flags = EMDB_OPEN_READ_ONLY,
					 .secret = &secret };
	struct emdb_check_report report;
	char text[512] = "";
	emdb_err err;
	emdb_db *db;

	err = emdb_check_secret(v->path, &secret, each_found, text, &report);
	if (err != EMDB_ERR_CORRUPT && err != EMDB_ERR_DAMAGED)
		FAIL("line %d: %s: check says %s", line, what, emdb_err_name(err));
	if (want_text && !strstr(text, want_text))
		FAIL("line %d: %s: \"%s\" does not say \"%s\"", line, what, text, want_text);
	err = emdb_open(v->path, &ro, &db);
	if (err == EMDB_OK)
		CHECK_OK(emdb_close(db)); /* by its checkpoint: then the record is not read */
	else if (err != EMDB_ERR_DAMAGED && err != EMDB_ERR_CORRUPT)
		FAIL("line %d: %s: open says %s", line, what, emdb_err_name(err));
	(void)check_served(v->path);
}

#define check_told(v, what, text) check_told_at(v, what, text, __LINE__)

/* Writes a changed copy of the segment, checks, and puts the good one back. */
static void with_segment(struct victim *v, const uint8_t *p, size_t n, const char *what,
			 const char *text, int line)
{
	spit(v->seg, p, n);
	check_told_at(v, what, text, line);
	spit(v->seg, v->p, v->n);
}

static uint8_t *copy(const struct victim *v)
{
	uint8_t *const p = malloc(v->n);

	memcpy(p, v->p, v->n);
	return p;
}

static void each_frame_bit(struct victim *v, bool fix)
{
	const uint32_t step = step_of_bits(STEP);
	uint64_t rnd = test_seed();
	size_t n = 0;

	for (size_t i = 0; i < v->count; i++) {
		const uint32_t off = v->frames[i].off, len = v->frames[i].len;

		for (uint32_t bit = (uint32_t)(test_rand(&rnd) % step); bit < len * 8;
		     bit += step, n++) {
			uint8_t *const p = copy(v);
			char what[64];

			if (fix && bit < 32) {
				free(p);
				continue;
			}
			snprintf(what, sizeof(what), "frame %zu bit %u", i, bit);
			p[off + bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (fix)
				fmt_frame_finish(p + off, len, v->crc_seed);
			with_segment(v, p, v->n, what, NULL, __LINE__);
			free(p);
		}
	}
	printf("%zu bits of %zu frames%s\n", n, v->count, fix ? ", CRC made right" : "");
	CHECK(n > 10);
}

TEST(test_tamper__bits_of_frames)
{
	struct victim v;

	victim_new(&v, false);
	each_frame_bit(&v, false);
	each_frame_bit(&v, true);
	free(v.p);
}

TEST(test_tamper__bits_of_frames_of_a_converted_store)
{
	struct victim v;

	victim_new(&v, true);
	each_frame_bit(&v, true);
	/* And of the tags behind them. */
	for (size_t at = v.frames[v.count - 1].off + v.frames[v.count - 1].len; at < v.n; at += 7) {
		uint8_t *const p = copy(&v);

		p[at] ^= 0x10;
		with_segment(&v, p, v.n, "a tag", "does not authenticate", __LINE__);
		free(p);
	}
	free(v.p);
}

static size_t frame_of_kind(const struct victim *v, uint8_t kind, size_t from)
{
	for (size_t i = from; i < v->count; i++)
		if (v->frames[i].kind == kind)
			return i;
	FAIL("no frame of kind %u", kind);
}

/* The frame at i as a copy of the bytes at p, with the LSN of its own place or not. */
static void put_frame(const struct victim *v, uint8_t *seg, size_t i, const uint8_t *p,
		      bool relabel)
{
	uint8_t *const to = seg + v->frames[i].off;

	memmove(to, p, v->frames[i].len);
	if (relabel)
		put_u64(to + 8, v->base + v->frames[i].off);
	fmt_frame_finish(to, v->frames[i].len, v->crc_seed);
}

TEST(test_tamper__frames_moved_and_relabelled)
{
	struct victim v, w;
	uint8_t *p;
	size_t a, b, batch;

	victim_new(&v, false);
	victim_new(&w, false);
	CHECK_UEQ(v.count, w.count);
	a = frame_of_kind(&v, REC_PUT, 0);
	b = frame_of_kind(&v, REC_PUT, a + 1);
	CHECK_UEQ(v.frames[a].len, v.frames[b].len);
	batch = frame_of_kind(&v, FRAME_BATCH, 0);

	/* Two exchanged, as they are. */
	p = copy(&v);
	put_frame(&v, p, a, v.p + v.frames[b].off, false);
	put_frame(&v, p, b, v.p + v.frames[a].off, false);
	with_segment(&v, p, v.n, "swapped", "another place", __LINE__);
	/* The same, each with the LSN of its new place. */
	put_frame(&v, p, a, v.p + v.frames[b].off, true);
	put_frame(&v, p, b, v.p + v.frames[a].off, true);
	with_segment(&v, p, v.n, "swapped and relabelled", "does not authenticate", __LINE__);
	free(p);
	/* An old value once more. */
	p = copy(&v);
	put_frame(&v, p, b, v.p + v.frames[a].off, true);
	with_segment(&v, p, v.n, "replayed", "does not authenticate", __LINE__);
	free(p);
	/* One of another store, of the same place. */
	for (size_t i = 0; i < v.count; i++) {
		if (v.frames[i].len != w.frames[i].len)
			continue;
		p = copy(&v);
		put_frame(&v, p, i, w.p + w.frames[i].off, true);
		with_segment(&v, p, v.n, "of another store", "does not authenticate", __LINE__);
		free(p);
	}
	/* Another kind. */
	for (uint8_t kind = 1; kind <= REC_KIND_MAX; kind++) {
		if (kind == v.frames[a].kind)
			continue;
		p = copy(&v);
		p[v.frames[a].off + 7] = kind;
		fmt_frame_finish(p + v.frames[a].off, v.frames[a].len, v.crc_seed);
		with_segment(&v, p, v.n, "another kind", "does not authenticate", __LINE__);
		free(p);
	}
	/* The end of the segment said too early. */
	p = copy(&v);
	p[v.frames[a].off + 7] = FRAME_SEAL;
	fmt_frame_finish(p + v.frames[a].off, v.frames[a].len, v.crc_seed);
	with_segment(&v, p, v.n, "a SEAL", "does not authenticate", __LINE__);
	free(p);
	/* Records of a batch exchanged, and one less of them. */
	p = copy(&v);
	{
		uint8_t *const f = p + v.frames[batch].off;
		const uint32_t len = (get_u32(f + 24) & 0xffffff) * 8;

		memcpy(f + 24 + 8, v.p + v.frames[batch].off + 24 + len + 8, len - 8);
		memcpy(f + 24 + len + 8, v.p + v.frames[batch].off + 24 + 8, len - 8);
		fmt_frame_finish(f, v.frames[batch].len, v.crc_seed);
		with_segment(&v, p, v.n, "batch", "does not authenticate", __LINE__);
		memcpy(p, v.p, v.n);
		put_u32(f + 20, get_u32(f + 20) - 1);
		fmt_frame_finish(f, v.frames[batch].len, v.crc_seed);
		with_segment(&v, p, v.n, "shorter batch", "does not authenticate", __LINE__);
	}
	free(p);
	free(v.p);
	free(w.p);
}

TEST(test_tamper__segments_and_headers)
{
	struct victim v, w;
	uint8_t *p;

	victim_new(&v, false);
	victim_new(&w, false);
	for (size_t n = 0; n < v.n; n += n < 300 ? 16 : 8)
		with_segment(&v, v.p, n, "cut", NULL, __LINE__);
	/* Another store's, and the same with the name of ours. */
	with_segment(&v, w.p, w.n, "foreign", NULL, __LINE__);
	p = malloc(w.n);
	memcpy(p, w.p, w.n);
	memcpy(p + 16, v.p + 16, 16);
	put_u32(p + 252, crc32c(0, p, 252));
	with_segment(&v, p, w.n, "foreign, relabelled", NULL, __LINE__);
	free(p);
	/* Another salt: all CRCs made right. */
	p = copy(&v);
	p[70] ^= 1;
	put_u32(p + 252, crc32c(0, p, 252));
	for (size_t i = 0; i < v.count; i++)
		fmt_frame_finish(p + v.frames[i].off, v.frames[i].len, fmt_crc_seed(p + 64));
	with_segment(&v, p, v.n, "another salt", "does not authenticate", __LINE__);
	free(p);
	CHECK_EQ(unlink(v.seg), 0);
	check_told(&v, "removed", "missing");
	free(v.p);
	free(w.p);
}

/* Rows of the manifest that would hide frames. */
TEST(test_tamper__manifest)
{
	struct victim v;
	struct manifest_head h;
	struct manifest_seg row;
	size_t n, bits = 0;
	uint8_t *m, *p;

	victim_new(&v, false);
	m = slurp(v.manifest, &n);
	CHECK_OK(fmt_manifest_decode(m, n, &h));
	CHECK(h.flags & MANIFEST_MAC);
	CHECK_UEQ(h.nsegs, 1);
	p = malloc(n + 100);
	/* What is not generation, next segment or checkpoint. */
	for (size_t bit = 16 * 8; bit < (n - 4) * 8; bit += step_of_bits(3)) {
		const size_t at = bit / 8;

		if ((at >= 32 && at < 40) || (at >= 48 && at < 56) || (at >= 64 && at < 96))
			continue;
		memcpy(p, m, n);
		p[at] ^= (uint8_t)(1u << bit % 8);
		put_u32(p + n - 4, crc32c(0, p, n - 4));
		spit(v.manifest, p, n);
		check_told(&v, "manifest", NULL);
		bits++;
	}
	printf("%zu bits of the manifest, CRC made right\n", bits);
	CHECK(bits > 100);
	/* One frame more is a gap; a segment is shorter; there is none. */
	fmt_manifest_seg(m, 0, &row);
	h.ngaps = 1;
	fmt_manifest_encode(&h, &row,
			    &(struct manifest_gap){ v.base + v.frames[2].off, v.frames[2].len }, p);
	spit(v.manifest, p, fmt_manifest_len(&h));
	check_told(&v, "gap", "somebody without the key");
	h.ngaps = 0;
	row.len = v.frames[v.count - 1].off;
	fmt_manifest_encode(&h, &row, NULL, p);
	spit(v.manifest, p, fmt_manifest_len(&h));
	check_told(&v, "shorter", "somebody without the key");
	h.nsegs = 0;
	fmt_manifest_encode(&h, NULL, NULL, p);
	spit(v.manifest, p, fmt_manifest_len(&h));
	check_told(&v, "no segment", "somebody without the key");
	h.flags &= ~(uint64_t)MANIFEST_MAC;
	fmt_manifest_encode(&h, NULL, NULL, p);
	spit(v.manifest, p, fmt_manifest_len(&h));
	check_told(&v, "no MAC", "somebody without the key");
	free(p);
	free(m);
	free(v.p);
}

struct checkpoint_file {
	char path[PATH_MAX + 300];
};

static void find_checkpoint(void *ctx, const char *path, uint8_t *p, size_t n)
{
	(void)p;
	(void)n;
	if (strstr(path, "/checkpoint-"))
		snprintf(((struct checkpoint_file *)ctx)->path,
			 sizeof(((struct checkpoint_file *)ctx)->path), "%s", path);
}

/* A changed checkpoint is not used, and everything is there all the same. */
TEST(test_tamper__checkpoint)
{
	struct checkpoint_file c = { "" };
	struct victim v;
	struct buf want;
	emdb_db *db;
	size_t n, tried = 0;
	uint8_t *m;
	const struct emdb_options ro = { .size = sizeof(ro),
					 .flags = EMDB_OPEN_READ_ONLY,
					 .secret = &secret };

	victim_new(&v, false);
	each_file(v.path, find_checkpoint, &c);
	m = slurp(c.path, &n);
	CHECK_OK(emdb_open(v.path, &ro, &db));
	want = tell_store(db);
	CHECK_OK(emdb_close(db));
	for (size_t at = 0, len; at < n; at += len) {
		len = get_u32(m + at + 4);
		for (size_t bit = 34; bit < len * 8; bit += step_of_bits(40), tried++) {
			uint8_t *const p = malloc(n);
			struct buf got;

			memcpy(p, m, n);
			p[at + bit / 8] ^= (uint8_t)(1u << bit % 8);
			put_u32(p + at, crc32c(0, p + at + 4, len - 4));
			spit(c.path, p, n);
			CHECK_OK(emdb_open(v.path, &ro, &db));
			got = tell_store(db);
			CHECK_MEM(got.data, got.len, want.data, want.len);
			buf_release(&got);
			CHECK_OK(emdb_close(db));
			free(p);
		}
	}
	printf("%zu bits of the checkpoint, CRC made right\n", tried);
	CHECK(tried > 30);
	buf_release(&want);
	free(m);
	free(v.p);
}

/* ---- Every bit of every file --------------------------------------------------- */

#define ERRORS_MAX 16

/* A file, and what its changed bits led to. */
struct tally {
	char path[PATH_MAX + 300];
	uint8_t *p;
	size_t n, bits, unused;
	struct {
		emdb_err err;
		size_t n;
	} told[ERRORS_MAX];
};

struct tallies {
	struct tally of[8];
	size_t n;
};

static void tally_file(void *ctx, const char *path, uint8_t *p, size_t n)
{
	struct tallies *const t = ctx;
	struct tally *f;

	if (n == 0) /* the lock */
		return;
	CHECK(t->n < ARRAY_SIZE(t->of));
	f = &t->of[t->n++];
	*f = (struct tally){ .n = n, .p = malloc(n) };
	snprintf(f->path, sizeof(f->path), "%s", path);
	memcpy(f->p, p, n);
}

/* What the store says of itself now; EMDB_OK: nothing. */
static emdb_err told_by(const char *path)
{
	const struct emdb_options ro = { .size = sizeof(ro),
					 .flags = EMDB_OPEN_READ_ONLY,
					 .secret = &secret };
	struct emdb_check_report report;
	char text[512] = "";
	emdb_err err, checked;
	emdb_db *db;

	checked = emdb_check_secret(path, &secret, each_found, text, &report);
	err = emdb_open(path, &ro, &db);
	if (err == EMDB_OK)
		CHECK_OK(emdb_close(db));
	return checked ? checked : err;
}

static void tally_add(struct tally *f, emdb_err err)
{
	size_t i = 0;

	while (i < ERRORS_MAX - 1 && f->told[i].n && f->told[i].err != err)
		i++;
	f->told[i].err = err;
	f->told[i].n++;
	f->bits++;
}

/* What nothing is read from as long as the rest is good, and opening for writing makes anew. */
static bool is_spare(const char *path)
{
	return strstr(path, "/checkpoint-") || strstr(path, "superblock.bak");
}

static void each_bit(struct victim *v, struct tally *f, uint64_t *rnd)
{
	const size_t step = step_of_bits((uint32_t)f->n);

	for (size_t bit = test_rand(rnd) % step; bit < f->n * 8; bit += step) {
		unsigned int served;
		emdb_err err;

		f->p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		spit(f->path, f->p, f->n);
		err = told_by(v->path);
		served = check_served(v->path);
		if (!err && (!is_spare(f->path) || served != SERVED_ALL))
			FAIL("%s bit %zu: nothing is said, %u values", f->path, bit, served);
		f->unused += !err;
		tally_add(f, err);
		f->p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	spit(f->path, f->p, f->n);
}

static void tally_print(const struct tally *f, const char *dir)
{
	printf("%s: %zu of %zu bits:", f->path + strlen(dir) + 1, f->bits, f->n * 8);
	for (size_t i = 0; i < ERRORS_MAX && f->told[i].n; i++)
		printf(" %s %zu", f->told[i].err ? emdb_err_name(f->told[i].err) : "(no effect)",
		       f->told[i].n);
	printf("\n");
}

TEST(test_tamper__every_bit_of_every_file)
{
	uint64_t rnd = test_seed();

	for (int converted = 0; converted < 2; converted++) {
		struct tallies t = { .n = 0 };
		struct victim v;

		victim_new(&v, converted);
		each_file(v.path, tally_file, &t);
		CHECK(t.n >= 4);
		CHECK_OK(told_by(v.path));
		CHECK_UEQ(check_served(v.path), SERVED_ALL);
		for (size_t i = 0; i < t.n; i++) {
			/* Superblocks are what they were in the first round. */
			if (converted && strstr(t.of[i].path, "superblock")) {
				free(t.of[i].p);
				continue;
			}
			each_bit(&v, &t.of[i], &rnd);
			CHECK(t.of[i].bits > 0);
			tally_print(&t.of[i], v.path);
			free(t.of[i].p);
		}
		CHECK_OK(told_by(v.path));
		free(v.p);
	}
}

TEST(test_tamper__another_key_is_told_before_anything_is_read)
{
	struct victim v;
	emdb_db *db;

	victim_new(&v, false);
	/* There is nothing else left that could be read. */
	CHECK_EQ(unlink(v.seg), 0);
	CHECK_EQ(unlink(v.manifest), 0);
	CHECK_EQ(open_err(v.path, &other, EMDB_CIPHER_DEFAULT, &db), EMDB_ERR_WRONG_KEY);
	CHECK_EQ(open_err(v.path, NULL, EMDB_CIPHER_DEFAULT, &db), EMDB_ERR_KEY_REQUIRED);
	CHECK_EQ(open_err(v.path, &secret, EMDB_CIPHER_DEFAULT, &db), EMDB_ERR_DAMAGED);
	free(v.p);
}

TEST_MAIN()
