/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of damage share: a store, finding a record's bytes, spoiling them, what is told. */
#ifndef EMDB_TEST_DAMAGE_HELP_H
#define EMDB_TEST_DAMAGE_HELP_H

#include "tests/unit/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "core/segment_i.h"
#include "core/store.h"

static char path[PATH_MAX + 16];

static inline emdb_err store_try(unsigned int flags, emdb_db **ret)
{
	struct emdb_detail detail = { .text = "" };
	const struct emdb_options o = { .size = sizeof(o),
					.flags = flags,
					.segment_bytes = EMDB_SEGMENT_MIN,
					.sweep_interval_ms = -1,
					.compact_percent = -1,
					.detail = &detail };
	const emdb_err err = emdb_open(path, &o, ret);

	if (err && getenv("VERBOSE"))
		printf("open: %s: %s\n", emdb_err_name(err), detail.text);
	return err;
}

static inline emdb_db *store_open(unsigned int flags)
{
	emdb_db *db = NULL;

	CHECK_OK(store_try(flags, &db));
	return db;
}

static inline emdb_db *store_new(void)
{
	snprintf(path, sizeof(path), "%s/store", test_dir());
	return store_open(EMDB_OPEN_CREATE);
}

static inline uint64_t mkns(emdb_db *db, uint64_t parent, const char *name)
{
	uint64_t id = 0;

	CHECK_OK(emdb_ns_create(db, parent, name, strlen(name), &id));
	return id;
}

static inline void put(emdb_db *db, uint64_t ns, const char *key, const char *value)
{
	CHECK_OK(emdb_put(db, ns, key, strlen(key), value, strlen(value), 0));
}

/* value NULL: must not be there. */
static inline void expect(emdb_db *db, uint64_t ns, const char *key, const char *value)
{
	void *got;
	size_t len;
	const emdb_err err = emdb_get(db, ns, key, strlen(key), &got, &len);

	if (err != (value ? EMDB_OK : EMDB_ERR_NOT_FOUND))
		FAIL("get %s: %s", key, emdb_err_name(err));
	if (!value)
		return;
	CHECK_MEM(got, len, value, strlen(value));
	emdb_free(got);
}

/* ---- Spoiling ---- */

/* Where the record of an entry is. */
static inline uint64_t ref_of(emdb_db *db, uint64_t ns_id, const char *key)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	struct entry e;

	CHECK_OK(entry_find_pinned(db, ns_any_pinned(db, ns_id),
				   entry_hash(db, ns_id, key, strlen(key)), key, strlen(key), true,
				   &e));
	epoch_unpin(&db->epoch, pin);
	return e.ref;
}

static inline int open_segment(uint64_t lsn)
{
	char name[SEGMENT_NAME_SIZE], file[PATH_MAX + 64];
	int fd;

	segment_name(lsn >> 20, name);
	snprintf(file, sizeof(file), "%s/journal/%s", path, name);
	fd = open(file, O_RDWR);
	CHECK(fd >= 0);
	return fd;
}

/* Flips a bit of the byte `at` bytes behind the record's beginning. */
static inline void spoil(uint64_t ref, uint32_t at)
{
	const uint64_t off = (ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1)) + at;
	const int fd = open_segment(ref_lsn(ref));
	uint8_t b;

	CHECK_EQ(pread(fd, &b, 1, (off_t)off), 1);
	b ^= 0x10;
	CHECK_EQ(pwrite(fd, &b, 1, (off_t)off), 1);
	close(fd);
}

/*
 * Changes the byte `at` bytes behind a frame's beginning and sets the frame's CRC right, as somebody without
 * the key could.
 */
static inline void forge(uint64_t ref, uint32_t at, uint8_t flip)
{
	const off_t off = (off_t)(ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1));
	const int fd = open_segment(ref_lsn(ref));
	static uint8_t frame[EMDB_SEGMENT_MIN];
	uint8_t head[FMT_SEG_HEADER];
	struct seg_header h;
	uint32_t len;

	CHECK_EQ(pread(fd, head, sizeof(head), 0), sizeof(head));
	CHECK(fmt_seg_decode(head, sizeof(head), &h));
	CHECK(pread(fd, frame, sizeof(frame), off) > FMT_FRAME_HEADER);
	len = (get_u32(frame + 4) & 0xffffffu) * 8;
	CHECK(at < len && len < sizeof(frame));
	frame[at] ^= flip;
	fmt_frame_finish(frame, len, fmt_crc_seed(h.salt));
	CHECK_EQ(pwrite(fd, frame, len, off), len);
	close(fd);
}

/* Zeros over n bytes, beginning `at` bytes behind the record's beginning. */
static inline void spoil_range(uint64_t ref, int64_t at, size_t n)
{
	static const uint8_t zeros[65536];
	const int64_t off = (int64_t)(ref_lsn(ref) & (EMDB_SEGMENT_MIN - 1)) + at;
	const int fd = open_segment(ref_lsn(ref));

	CHECK_EQ(pwrite(fd, zeros, n, (off_t)off), n);
	close(fd);
}

static inline void spoil_file(const char *name, off_t at)
{
	char file[PATH_MAX + 80];
	uint8_t b;
	int fd;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	fd = open(file, O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, &b, 1, at), 1);
	b ^= 0x10;
	CHECK_EQ(pwrite(fd, &b, 1, at), 1);
	close(fd);
}

/* ---- What is told ---- */

struct told {
	unsigned int count[EMDB_DAMAGE_SNAPSHOT + 1];
	char all[65536];
};

static inline void on_found(void *ctx, const struct emdb_detail *d)
{
	struct told *const t = ctx;
	const size_t n = strlen(t->all);

	t->count[d->damage]++;
	CHECK(d->text[0]);
	snprintf(t->all + n, sizeof(t->all) - n, "%d [%s] %s\n", d->damage, d->path, d->text);
}

/* The damage `kind` of this path was told. */
static inline bool told_of(const struct told *t, enum emdb_damage kind, const char *of)
{
	char want[256];

	snprintf(want, sizeof(want), "%d [%s] ", kind, of);
	return strstr(t->all, want) != NULL;
}

static inline emdb_err check_store(struct told *t)
{
	struct emdb_check_report report;
	emdb_err err;

	memset(t->count, 0, sizeof(t->count));
	t->all[0] = '\0';
	err = emdb_check(path, on_found, t, &report);
	if (getenv("VERBOSE"))
		printf("check %s:\n%s", emdb_err_name(err), t->all);
	return err;
}

static inline emdb_err repair_with(const struct emdb_repair_options *with, struct told *t,
				   struct emdb_repair_report *report)
{
	struct emdb_repair_options o = { .size = sizeof(o) };
	struct emdb_detail detail = { .text = "" };
	emdb_err err;

	if (with)
		o = *with;
	memset(t, 0, sizeof(*t));
	memset(report, 0, sizeof(*report));
	o.found = on_found;
	o.ctx = t;
	o.detail = &detail;
	err = emdb_repair(path, &o, report);
	if (getenv("VERBOSE"))
		printf("repair %s: %s\n%s", emdb_err_name(err), detail.text, t->all);
	return err;
}

#endif
