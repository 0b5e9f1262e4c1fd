/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol of the control socket: any input is refused, or is a message that encodes to the
 * same bytes; what is inside its strings is read to the end.
 */
#include "core/base.h"
#include "tools/ctl_proto.h"

static void read_strings(const struct ctl_msg *m)
{
	struct emdb_stats stats;
	struct emdb_attr attr;
	struct ctl_entry e;
	struct ctl_str s;
	struct ctl_cursor c;
	uint64_t v;

	for (size_t i = 0; i < CTL_STRS; i++) {
		if (!m->str[i].p)
			continue;
		(void)ctl_get_attr(&m->str[i], &attr);
		(void)ctl_get_stats(&m->str[i], &stats);
		c = ctl_cursor_of(&m->str[i]);
		while (ctl_get_entry(&c, &e))
			emdb_assert(e.key.n <= m->str[i].n);
		c = ctl_cursor_of(&m->str[i]);
		while (ctl_get_str(&c, &s) && ctl_get_num(&c, &v))
			emdb_assert(s.n <= m->str[i].n);
		emdb_assert(c.p <= c.end);
	}
}

static void check_side(const uint8_t *data, size_t size, enum ctl_side side)
{
	struct ctl_buf b = CTL_BUF_INIT;
	struct ctl_msg m;

	if (!ctl_decode(data, size, side, &m))
		return;
	read_strings(&m);
	emdb_assert(ctl_encode(&b, side, &m) && b.len == size);
	/* An error code that we do not know is the only thing that is not kept. */
	emdb_assert(m.err == EMDB_ERR_UNSUPPORTED || memcmp(b.data, data, size) == 0);
	ctl_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ctl_msg whole = { .str = { { data, size } } };

	read_strings(&whole);
	check_side(data, size, CTL_REQUEST);
	check_side(data, size, CTL_ANSWER);
	return 0;
}
