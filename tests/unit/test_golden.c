/* SPDX-License-Identifier: Apache-2.0 */
/* The format does not drift: the files in tests/golden/ are what is written and what is understood. */
#include "tests/unit/format_gen.h"

#define TIME   INT64_C(1700000000123456789)
#define OBJECT UINT64_C(8388640)

/* ---- The file ---- */

static FILE *golden_open(const char *file)
{
	char path[PATH_MAX];
	const char *const slash = strrchr(__FILE__, '/');
	FILE *f;

	CHECK(slash);
	snprintf(path, sizeof(path), "%.*s/../golden/%s", (int)(slash - __FILE__), __FILE__, file);
	f = fopen(path, "r");
	if (!f)
		FAIL("%s: %s (tests run in the repository's root)", path, strerror(errno));
	return f;
}

/* Appends what one line spells; a comment ends it. */
static void hex_line(struct buf *b, char *line)
{
	char *save = NULL;

	line[strcspn(line, "#\n")] = 0;
	for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		char *end;
		const unsigned long n = strtoul(w, &end, strchr(w, '*') ? 10 : 16);

		if (*end == '*') {
			CHECK_OK(buf_append_zero(b, n));
		} else {
			const uint8_t byte = (uint8_t)n;

			CHECK(end == w + 2 && !*end);
			CHECK_OK(buf_append(b, &byte, 1));
		}
	}
}

/* The bytes below [name]; buf_release() them. */
static struct buf golden_of(const char *file, const char *name)
{
	FILE *const f = golden_open(file);
	struct buf b = BUF_INIT;
	char line[512], want[64];
	bool in = false;

	snprintf(want, sizeof(want), "[%s]\n", name);
	while (fgets(line, sizeof(line), f)) {
		if (*line == '[')
			in = strcmp(line, want) == 0;
		else if (in)
			hex_line(&b, line);
	}
	fclose(f);
	if (!b.len)
		FAIL("no [%s] in the golden file", name);
	return b;
}

static struct buf golden(const char *name)
{
	return golden_of("v1.hex", name);
}

/* ---- Frames ---- */

#define BYTES(field, s) .field = (const uint8_t *)(s), .field##_len = sizeof(s) - 1

static const struct {
	const char *name;
	uint64_t lsn, back;
	struct rec r;
} frames[] = {
	{ "put",
	  LSN,
	  0,
	  { .kind = REC_PUT,
	    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_VALUE,
	    .ns = EMDB_ROOT,
	    BYTES(key, "greeting"),
	    BYTES(value, "hello") } },
	{ "put_full",
	  LSN + 64,
	  64,
	  { .kind = REC_PUT,
	    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_VALUE | REC_F_META | REC_F_TIMES |
		    REC_F_ID | REC_F_EXPIRES | REC_F_XATTRS | REC_F_ORIGIN | REC_F_RDEV |
		    REC_F_FLAGS,
	    .ns = OBJECT,
	    BYTES(key, "\0/\xff"),
	    .mtime_ns = TIME + 1000,
	    .atime_ns = TIME - 5000000000,
	    .btime_ns = 0,
	    .mode = 0100644,
	    .uid = 1000,
	    .gid = 4294967294,
	    .id = 12345678901,
	    .expires_ms = 1800000000000,
	    BYTES(xattrs, "\x06user.a\1x\x06user.b\0"),
	    .origin = LSN,
	    .rdev = 0x0801,
	    .flags = REC_FLAG_ORPHAN } },
	{ "del",
	  LSN,
	  LSN,
	  { .kind = REC_DEL,
	    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_FLAGS,
	    .ns = EMDB_ROOT,
	    BYTES(key, "k"),
	    .flags = REC_FLAG_EXPIRED } },
	{ "ns",
	  LSN,
	  0,
	  { .kind = REC_NS,
	    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_META | REC_F_TTLDEF,
	    .ns = EMDB_ROOT,
	    BYTES(key, "dir"),
	    .mode = 040755,
	    .ttl_default_ms = 3600000,
	    .ttl_basis = EMDB_BASIS_MODIFY } },
	{ "link",
	  LSN,
	  0,
	  { .kind = REC_LINK,
	    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID,
	    .ns = EMDB_ROOT,
	    BYTES(key, ""),
	    .id = OBJECT } },
	{ "inode",
	  LSN,
	  0,
	  { .kind = REC_INODE,
	    .mask = REC_F_TIME | REC_F_META | REC_F_ID | REC_F_SIZE | REC_F_EXTENTS,
	    .mode = 0100600,
	    .id = OBJECT,
	    .size = 2000000,
	    .extent_count = 2,
	    BYTES(extents,
		  "\x00\x80\x80\x40\x80\x82\x80\x20\x00\x80\x20\x64\x81\xa2\x80\x20\x07") } },
	{ "write",
	  LSN,
	  0,
	  { .kind = REC_WRITE,
	    .mask = REC_F_TIME | REC_F_VALUE | REC_F_ID | REC_F_SIZE | REC_F_OFF,
	    .id = OBJECT,
	    .size = 8197,
	    .off = 8192,
	    BYTES(value, "bytes") } },
	{ "trunc",
	  LSN,
	  0,
	  { .kind = REC_TRUNC,
	    .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE,
	    .id = OBJECT,
	    .size = EMDB_VALUE_MAX } },
	{ "punch",
	  LSN,
	  0,
	  { .kind = REC_PUNCH,
	    .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN,
	    .id = OBJECT,
	    .size = 8197,
	    .off = 4096,
	    .len = 4096 } },
	{ "clone",
	  LSN,
	  0,
	  { .kind = REC_CLONE,
	    .mask = REC_F_TIME | REC_F_ID | REC_F_SIZE | REC_F_OFF | REC_F_LEN | REC_F_EXTENTS,
	    .id = OBJECT,
	    .size = 8197,
	    .off = 4096,
	    .len = 4096,
	    .extent_count = 1,
	    BYTES(extents, "\x10\x05\x80\x82\x80\x20\x03") } },
	{ "drop",
	  LSN,
	  0,
	  { .kind = REC_DROP,
	    .mask = REC_F_NS | REC_F_KEY | REC_F_TIME | REC_F_ID,
	    .ns = EMDB_ROOT,
	    BYTES(key, "dir"),
	    .id = OBJECT } },
	{ "clear", LSN, 0, { .kind = REC_CLEAR, .mask = REC_F_TIME | REC_F_ID, .id = EMDB_ROOT } },
};

/* The table's record with the times that it leaves out. */
static struct rec frame_rec(size_t i)
{
	struct rec r = frames[i].r;

	r.time_ns = r.mask & REC_F_TIME ? TIME : 0;
	if (!(r.mask & REC_F_TIMES))
		r.mtime_ns = r.atime_ns = r.btime_ns = r.time_ns;
	return r;
}

TEST(test_golden__frames)
{
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		struct buf b = golden(frames[i].name);
		const struct rec want = frame_rec(i);
		uint32_t len;
		uint8_t *const p = frame_of(&want, frames[i].lsn, &len);
		struct frame f;
		struct rec r;

		printf("%s\n", frames[i].name);
		fmt_frame_header(p, want.kind, len, frames[i].lsn, frames[i].lsn - frames[i].back);
		fmt_frame_finish(p, len, 0);
		CHECK_MEM(p, len, b.data, b.len);
		CHECK_EQ(fmt_frame_parse(b.data, b.len, frames[i].lsn, true, 0, &f), FRAME_OK);
		CHECK_UEQ(f.len, b.len);
		CHECK_UEQ(fmt_frame_durable(&f), frames[i].lsn - frames[i].back);
		CHECK(fmt_frame_rec(&f, &r));
		check_same(&want, &r);
		free(p);
		buf_release(&b);
	}
}

TEST(test_golden__every_kind_has_an_example)
{
	for (uint8_t kind = 1; kind <= REC_KIND_MAX; kind++) {
		bool found = false;

		for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
			found = found || frames[i].r.kind == kind;
		CHECK(found);
	}
}

TEST(test_golden__extents)
{
	static const struct rec_extent want[] = {
		{ 0, 1048576, LSN, 0 }, { 1048576 + 4096, 100, (LSN + 4096) | REF_BATCH, 7 }
	};
	uint8_t buf[ARRAY_SIZE(want) * FMT_EXTENT_BYTES_MAX];
	uint64_t end = 0;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		n += fmt_extent_encode(&want[i], end, buf + n);
		end = want[i].off + want[i].len;
	}
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
		if (frames[i].r.kind == REC_INODE)
			CHECK_MEM(frames[i].r.extents, frames[i].r.extents_len, buf, n);
}

TEST(test_golden__seal)
{
	struct buf b = golden("seal");
	uint8_t p[FMT_SEAL_ROOM] = { 0 };
	struct frame f;

	fmt_frame_header(p, FRAME_SEAL, sizeof(p), LSN + 4096, LSN);
	fmt_frame_finish(p, sizeof(p), 0);
	CHECK_EQ(fmt_frame_parse(b.data, b.len, LSN + 4096, true, 0, &f), FRAME_OK);
	CHECK_EQ(f.kind, FRAME_SEAL);
	CHECK_MEM(p, sizeof(p), b.data, b.len);
	buf_release(&b);
}

TEST(test_golden__batch)
{
	struct buf b = golden("batch");
	struct rec r[2] = { frame_rec(0), { .kind = REC_DEL, BYTES(key, "old") } };
	uint32_t len;
	uint8_t *p;

	r[1].mask = REC_F_NS | REC_F_KEY | REC_F_TIME;
	r[1].ns = EMDB_ROOT;
	r[1].time_ns = TIME;
	p = batch_of(r, 2, LSN, &len);
	fmt_frame_header(p, FRAME_BATCH, len, LSN, LSN);
	fmt_frame_finish(p, len, 0);
	CHECK_MEM(p, len, b.data, b.len);
	free(p);
	buf_release(&b);
}

/* ---- Files ---- */

static void count_up(uint8_t *p, size_t n, uint8_t first)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(first + i);
}

TEST(test_golden__superblock)
{
	struct superblock sb = { .version = 1,
				 .segment_shift = 26,
				 .compat = 1,
				 .uid = 1000,
				 .gid = 100,
				 .created_ns = TIME,
				 .frozen_ms = 1700000000999,
				 .snap_number = 3 };
	struct buf b = golden("superblock");
	uint8_t p[FMT_SUPER_SIZE];
	struct superblock got;

	count_up(sb.uuid, 16, 0x10);
	count_up(sb.hash_seed, 32, 0x40);
	fmt_super_encode(&sb, p);
	CHECK_MEM(p, sizeof(p), b.data, b.len);
	CHECK_EQ(fmt_super_decode(b.data, b.len, &got), EMDB_OK);
	buf_release(&b);
}

TEST(test_golden__segment)
{
	struct seg_header h = { .id = 3, .segment_shift = 26, .created_ns = TIME };
	struct buf b = golden("segment");
	uint8_t p[FMT_SEG_HEADER];
	struct seg_header got;

	count_up(h.uuid, 16, 0x10);
	count_up(h.boot_id, 16, 0x20);
	count_up(h.salt, 32, 0x60);
	fmt_seg_encode(&h, p);
	CHECK_MEM(p, sizeof(p), b.data, b.len);
	CHECK(fmt_seg_decode(b.data, b.len, &got));
	buf_release(&b);
}

TEST(test_golden__manifest)
{
	struct manifest_head h = { .generation = 7,
				   .durable_lsn = LSN + 1024,
				   .next_segment = 4,
				   .flags = MANIFEST_CLEAN,
				   .ckpt = 5,
				   .ckpt_lsn = LSN + 2048,
				   .ckpt_prev = 4,
				   .ckpt_prev_lsn = LSN,
				   .nsegs = 2,
				   .ngaps = 1 };
	static const struct manifest_seg segs[] = { { 1, 67108840, MANIFEST_SEALED }, { 3, 0, 0 } };
	static const struct manifest_gap gaps[] = { { LSN + 512, 64 } };
	struct buf b = golden("manifest");
	uint8_t p[512];
	struct manifest_head got;

	count_up(h.uuid, 16, 0x10);
	fmt_manifest_encode(&h, segs, gaps, p);
	CHECK_MEM(p, fmt_manifest_size(2, 1), b.data, b.len);
	CHECK_EQ(fmt_manifest_decode(b.data, b.len, &got), EMDB_OK);
	buf_release(&b);
}

/* ---- Seeded CRCs ---- */

TEST(test_golden__seeded_superblock)
{
	struct buf old = golden("superblock"), b = golden_of("v1-seeded.hex", "superblock");
	uint8_t p[FMT_SUPER_SIZE];
	struct superblock sb;

	CHECK_EQ(fmt_super_decode(old.data, old.len, &sb), EMDB_OK);
	CHECK_UEQ(sb.incompat, 0);
	sb.incompat = FMT_INCOMPAT_SEEDED;
	fmt_super_encode(&sb, p);
	CHECK_MEM(p, sizeof(p), b.data, b.len);
	CHECK_EQ(fmt_super_decode(b.data, b.len, &sb), EMDB_OK);
	CHECK_UEQ(sb.incompat, FMT_INCOMPAT_SEEDED);
	buf_release(&old);
	buf_release(&b);
}

TEST(test_golden__seeded_frames)
{
	static const char *const names[] = { "put", "seal", "batch" };
	uint8_t salt[32];
	uint32_t seed;

	count_up(salt, sizeof(salt), 0x60);
	seed = fmt_crc_seed(salt);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct buf old = golden(names[i]), b = golden_of("v1-seeded.hex", names[i]);
		const uint64_t lsn = get_u64(old.data + 8);
		struct frame f;

		/* Each is a frame with its own seed only. */
		CHECK_EQ(fmt_frame_parse(b.data, b.len, lsn, true, seed, &f), FRAME_OK);
		CHECK_EQ(fmt_frame_parse(b.data, b.len, lsn, true, 0, &f), FRAME_BAD_CRC);
		CHECK_EQ(fmt_frame_parse(old.data, old.len, lsn, true, seed, &f), FRAME_BAD_CRC);
		fmt_frame_finish(old.data, (uint32_t)old.len, seed);
		CHECK_MEM(old.data, old.len, b.data, b.len);
		buf_release(&old);
		buf_release(&b);
	}
}

/* ---- A store of before ---- */

/* Writes each file of v1-store.hex below dir. */
static void unpack_store(const char *dir)
{
	FILE *const f = golden_open("v1-store.hex");
	char line[512], path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/journal", dir);
	CHECK_EQ(mkdir(path, 0700), 0);
	while (fgets(line, sizeof(line), f)) {
		struct buf b;
		FILE *out;

		if (*line != '[')
			continue;
		line[strcspn(line, "]")] = 0;
		b = golden_of("v1-store.hex", line + 1);
		snprintf(path, sizeof(path), "%s/%s", dir, line + 1);
		out = fopen(path, "w");
		CHECK(out);
		CHECK_UEQ(fwrite(b.data, 1, b.len, out), b.len);
		CHECK_EQ(fclose(out), 0);
		buf_release(&b);
	}
	fclose(f);
}

static void check_value(emdb_db *db, uint64_t ns, const char *key, const void *want,
			size_t want_len)
{
	void *value;
	size_t len;

	CHECK_OK(emdb_get(db, ns, key, strlen(key), &value, &len));
	CHECK_MEM(value, len, want, want_len);
	emdb_free(value);
}

TEST(test_golden__store_without_feature_bits)
{
	const char *const dir = test_dir();
	void *const zeros = calloc(1, 20000);
	struct emdb_check_report report;
	uint64_t ns;
	emdb_db *db;

	unpack_store(dir);
	CHECK_OK(emdb_check(dir, NULL, NULL, &report));
	for (int i = 0; i < 2; i++) {
		CHECK_OK(emdb_open(dir, NULL, &db));
		check_value(db, EMDB_ROOT, "hello", "again", 5);
		check_value(db, EMDB_ROOT, "gone", "x", 1);
		check_value(db, EMDB_ROOT, "big", zeros, 20000);
		CHECK_OK(emdb_ns_open(db, EMDB_ROOT, "dir", 3, &ns));
		check_value(db, ns, "inner", "value", 5);
		/* What is added is of the old kind as well. */
		if (i == 1)
			check_value(db, ns, "added", "later", 5);
		CHECK_OK(emdb_put(db, ns, "added", 5, "later", 5, 0));
		CHECK_OK(emdb_close(db));
	}
	CHECK_OK(emdb_check(dir, NULL, NULL, &report));
	free(zeros);
}

TEST_MAIN()
