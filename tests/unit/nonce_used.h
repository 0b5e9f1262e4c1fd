/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call of seal() by the test and all its children, in shared memory that outlives those that
 * are killed. The program is linked with --wrap=seal,--wrap=getrandom.
 *
 * A key is known by what it makes of zeros under a nonce that no file has, so not by what the code
 * believes of it. A call is in the table before anything is sealed.
 */
#ifndef EMDB_TEST_NONCE_USED_H
#define EMDB_TEST_NONCE_USED_H

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "core/codec.h"
#include "core/crypto.h"
#include "tests/unit/test.h"

struct used_row {
	_Atomic(uint64_t) pair; /* of key and nonce, hashed; 0: free */
	_Atomic(uint64_t) text; /* what was sealed, hashed; 0: its process died before */
};

struct used {
	_Atomic(uint64_t) seals, pairs, repeats, same; /* same: once more, the same bytes */
	_Atomic(int64_t) die_after;                    /* seals; 0: never */
	_Atomic(bool) no_random;                       /* getrandom() gives the same bytes always */
	uint64_t rows;                                 /* a power of two */
	struct used_row row[];
};

static struct used *used;

static inline void used_new(uint64_t rows)
{
	const size_t n = sizeof(*used) + rows * sizeof(struct used_row);

	used = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	CHECK(used != MAP_FAILED);
	used->rows = rows;
}

static inline void used_free(void)
{
	(void)munmap(used, sizeof(*used) + used->rows * sizeof(struct used_row));
	used = NULL;
}

/* Two numbers into one that looks random; never 0. */
static inline uint64_t used_hash(uint64_t a, uint64_t b)
{
	uint64_t state = a ^ (b * UINT64_C(0xff51afd7ed558ccd));

	return test_rand(&state) | 1;
}

static inline void used_add(uint64_t pair, uint64_t text)
{
	uint64_t i, was;

	for (i = pair >> 1;; i++) {
		struct used_row *const row = &used->row[i & (used->rows - 1)];

		was = 0;
		if (atomic_compare_exchange_strong(&row->pair, &was, pair)) {
			if (atomic_fetch_add(&used->pairs, 1) * 4 > used->rows * 3)
				FAIL("more pairs than the table has room for");
		} else if (was != pair) {
			continue;
		}
		was = atomic_exchange(&row->text, text);
		if (was == text)
			atomic_fetch_add(&used->same, 1);
		else if (was)
			atomic_fetch_add(&used->repeats, 1);
		return;
	}
}

/* This process ends at its nth seal from now. */
static inline void used_die_after(int64_t n)
{
	atomic_store(&used->die_after, n);
}

void __real_seal(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len,
		 const void *src, size_t n, void *dst, uint8_t tag[static CRYPTO_TAG]);
void __wrap_seal(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len,
		 const void *src, size_t n, void *dst, uint8_t tag[static CRYPTO_TAG]);
void __wrap_seal(const struct seal_key *k, uint64_t place, const void *ad, size_t ad_len,
		 const void *src, size_t n, void *dst, uint8_t tag[static CRYPTO_TAG])
{
	static const uint8_t zeros[16];
	uint8_t who[16], unused[CRYPTO_TAG];

	if (used) {
		__real_seal(k, UINT64_MAX, NULL, 0, zeros, sizeof(zeros), who, unused);
		atomic_fetch_add(&used->seals, 1);
		used_add(used_hash(used_hash(get_u64(who), get_u64(who + 8)), place),
			 used_hash(crc32c(crc32c(0, ad, ad_len), src, n), n));
		if (atomic_load(&used->die_after) && atomic_fetch_sub(&used->die_after, 1) == 1)
			(void)kill(getpid(), SIGKILL);
	}
	__real_seal(k, place, ad, ad_len, src, n, dst, tag);
}

ssize_t __real_getrandom(void *p, size_t n, unsigned int flags);
ssize_t __wrap_getrandom(void *p, size_t n, unsigned int flags);
ssize_t __wrap_getrandom(void *p, size_t n, unsigned int flags)
{
	if (!used || !atomic_load(&used->no_random))
		return __real_getrandom(p, n, flags);
	memset(p, 0x5a, n);
	return (ssize_t)n;
}

#endif
