/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/journal_help.h"

TEST(test_journal__append_read_reopen)
{
	for (int posix = 0; posix < 2; posix++) {
		struct world w;
		uint64_t lsn[500];

		world_init(&w, posix ? test_dir() : NULL);
		CHECK_UEQ(world_open(&w), 0);
		for (unsigned int i = 0; i < 500; i++)
			lsn[i] = put(w.j, i, i * 37 % 9000);
		for (unsigned int i = 0; i < 500; i++)
			CHECK_UEQ(get(w.j, &w.ep, lsn[i]), i);
		CHECK_OK(journal_sync(w.j));
		CHECK_UEQ(journal_durable(w.j), journal_tail(w.j));
		world_close(&w);
		CHECK_UEQ(world_open(&w), 500);
		for (unsigned int i = 0; i < 500; i++)
			CHECK_UEQ(get(w.j, &w.ep, lsn[i]), i);
		put(w.j, 500, 10);
		world_kill(&w);
		CHECK_UEQ(world_open(&w), 501);
		world_close(&w);
		world_release(&w);
	}
}

TEST_MAIN()
