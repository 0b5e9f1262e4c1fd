/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol of the control socket. */
#include "tools/ctl_proto.h"
#include "tests/unit/test.h"

/* How many numbers and strings each operation has, from the table in the header. */
static const struct {
	int op;
	const char *fields[2];
} ops[] = {
#define OP(name, number, request, answer) { number, { request, answer } },
	CTL_OPS(OP)
};
#define OP_COUNT (sizeof(ops) / sizeof(ops[0]))

static struct ctl_msg sample(int op, const char *fields)
{
	static const char *const texts[CTL_STRS] = { "first", "and the second one" };
	struct ctl_msg m = { .op = (uint8_t)op };
	size_t nums = 0, strs = 0;

	for (; *fields; fields++) {
		if (*fields == 'n') {
			m.num[nums] = UINT64_C(0x0123456789abcdef) * (nums + 1);
			nums++;
		} else {
			m.str[strs] = (struct ctl_str){ texts[strs], strlen(texts[strs]) };
			strs++;
		}
	}
	CHECK(nums <= CTL_NUMS && strs <= CTL_STRS);
	return m;
}

static void check_same(const struct ctl_msg *a, const struct ctl_msg *b)
{
	CHECK_EQ(a->op, b->op);
	CHECK_EQ(a->err, b->err);
	for (size_t i = 0; i < CTL_NUMS; i++)
		CHECK_UEQ(a->num[i], b->num[i]);
	for (size_t i = 0; i < CTL_STRS; i++)
		CHECK_MEM(a->str[i].n ? a->str[i].p : "", a->str[i].n,
			  b->str[i].n ? b->str[i].p : "", b->str[i].n);
}

TEST(test_control__every_message_comes_back)
{
	struct ctl_buf b = CTL_BUF_INIT;
	struct ctl_msg back;

	for (size_t i = 0; i < OP_COUNT; i++) {
		CHECK(ctl_op_name((unsigned int)ops[i].op) != NULL);
		for (int side = 0; side < 2; side++) {
			const struct ctl_msg m = sample(ops[i].op, ops[i].fields[side]);

			CHECK(ctl_encode(&b, (enum ctl_side)side, &m));
			CHECK(ctl_decode(b.data, b.len, (enum ctl_side)side, &back));
			check_same(&back, &m);
		}
	}
	ctl_buf_release(&b);
}

TEST(test_control__known_bytes)
{
	static const uint8_t want[] = { 0x18, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0,   0,   1,   0,
					0,    0, 0, 0, 0, 0, 4, 0, 0, 0, 'd', 'i', 'r', 's' };
	const struct ctl_msg m = { .op = CTL_NS_OPEN, .num = { 1 }, .str = { { "dirs", 4 } } };
	struct ctl_buf b = CTL_BUF_INIT;

	CHECK(ctl_encode(&b, CTL_REQUEST, &m));
	CHECK_MEM(b.data, b.len, want, sizeof(want));
	ctl_buf_release(&b);
}

TEST(test_control__errors_have_a_remark_only)
{
	const struct ctl_msg m = { .op = CTL_NS_OPEN,
				   .err = EMDB_ERR_NOT_FOUND,
				   .str = { { "why", 3 } } };
	struct ctl_buf b = CTL_BUF_INIT;
	struct ctl_msg back;

	CHECK(ctl_encode(&b, CTL_ANSWER, &m));
	CHECK(ctl_decode(b.data, b.len, CTL_ANSWER, &back));
	check_same(&back, &m);
	/* A request carries no error. */
	CHECK(!ctl_decode(b.data, b.len, CTL_REQUEST, &back));
	/* A code from the future. */
	b.data[8] = 0;
	b.data[9] = 0;
	CHECK(ctl_decode(b.data, b.len, CTL_ANSWER, &back));
	CHECK_EQ(back.err, EMDB_ERR_UNSUPPORTED);
	b.data[11] = 0x7f; /* positive */
	CHECK(!ctl_decode(b.data, b.len, CTL_ANSWER, &back));
	ctl_buf_release(&b);
}

TEST(test_control__every_cut_is_refused)
{
	const struct ctl_msg m = sample(CTL_PUT, "nkns");
	struct ctl_buf b = CTL_BUF_INIT;
	struct ctl_msg back;
	uint8_t *copy;

	CHECK(ctl_encode(&b, CTL_REQUEST, &m));
	for (size_t n = 0; n < b.len; n++) {
		/* As it is, and with a length that says so. */
		copy = malloc(n + 1);
		memcpy(copy, b.data, n);
		CHECK(!ctl_decode(copy, n, CTL_REQUEST, &back));
		if (n >= CTL_HEADER) {
			copy[0] = (uint8_t)(n - 4);
			CHECK(!ctl_decode(copy, n, CTL_REQUEST, &back));
		}
		free(copy);
	}
	/* One byte too many. */
	copy = calloc(1, b.len + 1);
	memcpy(copy, b.data, b.len);
	copy[0]++;
	CHECK(!ctl_decode(copy, b.len + 1, CTL_REQUEST, &back));
	free(copy);
	ctl_buf_release(&b);
}

TEST(test_control__header_limits)
{
	uint8_t h[CTL_HEADER] = { 8, 0, 0, 0, CTL_VERSION, CTL_FLUSH };
	struct ctl_msg back;
	unsigned int version;
	size_t rest = 99;

	CHECK(ctl_parse_header(h, &rest, &version));
	CHECK_UEQ(rest, 0);
	CHECK(ctl_decode(h, sizeof(h), CTL_REQUEST, &back));
	h[6] = 1;
	CHECK(!ctl_decode(h, sizeof(h), CTL_REQUEST, &back));
	h[6] = 0;
	h[5] = 0;
	CHECK(!ctl_decode(h, sizeof(h), CTL_REQUEST, &back));
	h[5] = 200;
	CHECK(!ctl_decode(h, sizeof(h), CTL_REQUEST, &back));
	h[0] = 7;
	CHECK(!ctl_parse_header(h, &rest, &version));
	memset(h, 0xff, 4);
	CHECK(!ctl_parse_header(h, &rest, &version));
	h[4] = CTL_VERSION + 1;
	CHECK(!ctl_parse_header(h, &rest, &version));
	CHECK_UEQ(version, CTL_VERSION + 1);
}

TEST(test_control__sizes)
{
	struct ctl_buf b = CTL_BUF_INIT;
	char *const big = calloc(1, CTL_BODY_MAX + 1);
	struct ctl_msg m = { .op = CTL_PUT,
			     .str = { { big, EMDB_KEY_MAX }, { big, CTL_PIECE_MAX } } };
	struct ctl_msg back;

	CHECK(ctl_encode(&b, CTL_REQUEST, &m));
	CHECK(ctl_decode(b.data, b.len, CTL_REQUEST, &back));
	check_same(&back, &m);
	/* A key that is none. */
	m.str[0].n = EMDB_KEY_MAX + 1;
	CHECK(ctl_encode(&b, CTL_REQUEST, &m));
	CHECK(!ctl_decode(b.data, b.len, CTL_REQUEST, &back));
	/* Beyond the frame; the buffer can be used again. */
	m.str[1].n = CTL_BODY_MAX + 1;
	CHECK(!ctl_encode(&b, CTL_REQUEST, &m));
	m.str[1].n = 1;
	m.str[0].n = 1;
	CHECK(ctl_encode(&b, CTL_REQUEST, &m));
	m.op = 63;
	CHECK(!ctl_encode(&b, CTL_REQUEST, &m));
	ctl_buf_release(&b);
	free(big);
}

TEST(test_control__entries)
{
	const struct emdb_attr attr = { .id = 7,
					.size = UINT64_MAX,
					.mode = 0100600,
					.nlink = 2,
					.uid = UINT32_MAX,
					.mtime_ns = -1,
					.btime_ns = INT64_MIN,
					.expires_ms = INT64_MAX,
					.lsn = 5 };
	struct ctl_buf b = CTL_BUF_INIT;
	struct ctl_str all;
	struct ctl_cursor c;
	struct ctl_entry e;

	ctl_put_entry(&b, 11, "key", 3, &attr);
	CHECK_UEQ(b.len, CTL_ENTRY_SIZE(3));
	ctl_put_entry(&b, 12, "", 0, NULL);
	CHECK(!b.failed);
	all = (struct ctl_str){ b.data, b.len };
	c = ctl_cursor_of(&all);
	CHECK(ctl_get_entry(&c, &e));
	CHECK_UEQ(e.next_pos, 11);
	CHECK_MEM(e.key.p, e.key.n, "key", 3);
	CHECK(!e.damaged && memcmp(&e.attr, &attr, sizeof(attr)) == 0);
	CHECK(ctl_get_entry(&c, &e));
	CHECK(e.damaged && e.key.n == 0 && e.next_pos == 12);
	CHECK(c.p == c.end && !ctl_get_entry(&c, &e));
	for (all.n = 0; all.n < CTL_ENTRY_SIZE(3); all.n++) {
		c = ctl_cursor_of(&all);
		CHECK(!ctl_get_entry(&c, &e));
	}
	ctl_buf_release(&b);
}

TEST(test_control__stats)
{
	struct emdb_stats stats, back;
	struct ctl_buf b = CTL_BUF_INIT;
	struct ctl_str all;

	memset(&stats, 0, sizeof(stats));
	stats.records = 1;
	stats.fs_avail_bytes = UINT64_MAX;
	stats.views = 3;
	stats.view_bytes = 4711;
	stats.default_ttl_ms = 90000;
	stats.compact_done_bytes = 5;
	stats.ordered = true;
	stats.checkpoint_lsn = 77;
	stats.damaged = stats.io_uring = true;
	for (size_t i = 0; i < EMDB_GROUP_BUCKETS; i++)
		stats.group_size[i] = i + 100;
	ctl_put_stats(&b, &stats);
	/* A newer daemon says more. */
	ctl_put_str(&b, "group_size_z", 12);
	ctl_put_num(&b, 3);
	ctl_put_str(&b, "what is this", 12);
	ctl_put_num(&b, 4);
	all = (struct ctl_str){ b.data, b.len };
	CHECK(ctl_get_stats(&all, &back));
	CHECK_UEQ(back.records, 1);
	CHECK_UEQ(back.fs_avail_bytes, UINT64_MAX);
	CHECK_UEQ(back.views, 3);
	CHECK_UEQ(back.view_bytes, 4711);
	CHECK_UEQ(back.default_ttl_ms, 90000);
	CHECK_UEQ(back.compact_done_bytes, 5);
	CHECK(back.ordered);
	CHECK_UEQ(back.checkpoint_lsn, 77);
	CHECK(back.damaged && back.io_uring && !back.failed);
	for (size_t i = 0; i < EMDB_GROUP_BUCKETS; i++)
		CHECK_UEQ(back.group_size[i], i + 100);
	all.n--;
	CHECK(!ctl_get_stats(&all, &back));
	ctl_buf_release(&b);
}

TEST_MAIN()
