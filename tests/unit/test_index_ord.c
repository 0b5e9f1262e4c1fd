/* SPDX-License-Identifier: Apache-2.0 */
/* The ordered index alone: against a sorted array, what it takes, and without memory. */
#include "core/index_ord.h"

#include "tests/unit/test.h"

static struct epoch ep;
static struct oidx idx;

static void setup(void)
{
	CHECK_OK(epoch_init(&ep));
	oidx_init(&idx, &ep);
}

static void teardown(void)
{
	oidx_release(&idx);
	epoch_release(&ep);
}

/* ---- The model: a sorted array ---- */

struct model {
	struct oidx_key *keys;
	size_t n;
};

static int cmp(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
	const int c = memcmp(a, b, an < bn ? an : bn);

	return c ? c : (an > bn) - (an < bn);
}

/* The first key not before this one. */
static size_t model_find(const struct model *m, const uint8_t *p, size_t n, bool *ret_there)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		const size_t mid = (lo + hi) / 2;

		if (cmp(m->keys[mid].p, m->keys[mid].n, p, n) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_there = lo < m->n && cmp(m->keys[lo].p, m->keys[lo].n, p, n) == 0;
	return lo;
}

static void model_insert(struct model *m, const uint8_t *p, size_t n)
{
	bool there;
	const size_t at = model_find(m, p, n, &there);
	uint8_t *copy;

	if (there)
		return;
	copy = malloc(n + 1);
	memcpy(copy, p, n);
	m->keys = realloc(m->keys, (m->n + 1) * sizeof(*m->keys));
	memmove(m->keys + at + 1, m->keys + at, (m->n - at) * sizeof(*m->keys));
	m->keys[at] = (struct oidx_key){ copy, n };
	m->n++;
}

static void model_remove(struct model *m, const uint8_t *p, size_t n)
{
	bool there;
	const size_t at = model_find(m, p, n, &there);

	if (!there)
		return;
	free((void *)(uintptr_t)m->keys[at].p);
	memmove(m->keys + at, m->keys + at + 1, (m->n - at - 1) * sizeof(*m->keys));
	m->n--;
}

static void model_free(struct model *m)
{
	for (size_t i = 0; i < m->n; i++)
		free((void *)(uintptr_t)m->keys[i].p);
	free(m->keys);
}

struct seen {
	const struct model *m;
	size_t at, end; /* indexes of the model, in walking order */
	bool reverse;
	size_t left;
};

static bool see(void *ctx, const uint8_t *prefix, size_t prefix_len, const uint8_t *rest,
		size_t rest_len)
{
	struct seen *const s = ctx;
	const struct oidx_key *k;

	CHECK(s->at != s->end);
	k = &s->m->keys[s->reverse ? --s->at : s->at++];
	CHECK_UEQ(prefix_len + rest_len, k->n);
	CHECK(memcmp(prefix, k->p, prefix_len) == 0);
	CHECK(memcmp(rest, k->p + prefix_len, rest_len) == 0);
	return --s->left != 0;
}

static void check_scan(const struct model *m, const struct oidx_bound *low,
		       const struct oidx_bound *high, bool reverse, size_t max)
{
	struct seen s = { .m = m, .reverse = reverse, .left = max };
	const unsigned int pin = epoch_pin(&ep);
	size_t from = 0, to = m->n;
	bool there;

	if (low->p) {
		from = model_find(m, low->p, low->n, &there);
		from += there && low->exclusive;
	}
	if (high->p) {
		to = model_find(m, high->p, high->n, &there);
		to += there && !high->exclusive;
	}
	if (from > to)
		from = to;
	s.at = reverse ? to : from;
	s.end = reverse ? from : to;
	oidx_scan_pinned(&idx, low, high, reverse, see, &s);
	CHECK(s.left == 0 || s.at == s.end);
	epoch_unpin(&ep, pin);
}

/* ---- Random keys of several kinds ---- */

enum kind { SHORT, NUMBERS, LONG, NESTED, KINDS };

static size_t make_key(enum kind kind, uint64_t *r, uint8_t *buf)
{
	const uint64_t x = test_rand(r);
	size_t n;

	switch (kind) {
	case SHORT:
		n = x % 4;
		for (size_t i = 0; i < n; i++)
			buf[i] = (uint8_t)((x >> (8 + i * 8)) % 5 * 63);
		return n;
	case NUMBERS:
		return (size_t)sprintf((char *)buf, "some/common/prefix/%06u",
				       (unsigned)(x % 20000));
	case LONG:
		n = x % 8 == 0 ? 60000 + x % 5536 : x % 8 == 1 ? x % 4000 : x % 40;
		memset(buf, 'x', n);
		for (size_t i = 0; i < 4 && i < n; i++)
			buf[(x >> (8 * i)) % n] = (uint8_t)(x >> 32 >> i * 8);
		return n;
	case KINDS:
	case NESTED: /* every key a prefix of the next */
	default:
		n = x % 1500;
		memset(buf, 'a', n);
		if (x >> 60 == 0)
			buf[0] = 'b';
		return n;
	}
}

static void random_bounds(enum kind kind, uint64_t *r, const struct model *m)
{
	static uint8_t a[OIDX_KEY_MAX + 1], b[OIDX_KEY_MAX + 1];
	const uint64_t x = test_rand(r);
	struct oidx_bound low = { a, make_key(kind, r, a), x & 1 };
	struct oidx_bound high = { b, make_key(kind, r, b), x & 2 };

	if (!(x & 0x30))
		low.p = NULL;
	if (!(x & 0xc0))
		high.p = NULL;
	check_scan(m, &low, &high, x & 4, x >> 8 & 1 ? SIZE_MAX : x >> 16 & 63);
}

static void against_model(enum kind kind, uint64_t *r, size_t steps)
{
	static uint8_t key[OIDX_KEY_MAX + 1];
	struct model m = { NULL, 0 };
	const struct oidx_bound none = { NULL, 0, false };

	setup();
	for (size_t i = 0; i < steps; i++) {
		const uint64_t x = test_rand(r);
		/* Phases of growth and of decline. */
		const bool grow = x % 100 < (i / (steps / 6) % 2 ? 15u : 85u);
		size_t n = make_key(kind, r, key);

		if (!grow && m.n && x >> 40 & 3) {
			const struct oidx_key *const k =
				&m.keys[x >> 16 & 0xffffff ? (x >> 20) % m.n : 0];

			n = k->n;
			memcpy(key, k->p, n);
		}
		if (grow) {
			CHECK_OK(oidx_insert(&idx, key, n));
			model_insert(&m, key, n);
		} else {
			CHECK_OK(oidx_remove(&idx, key, n));
			model_remove(&m, key, n);
		}
		CHECK_UEQ(oidx_count(&idx), m.n);
		if (i % 16 == 0)
			random_bounds(kind, r, &m);
		if (i % 512 == 0)
			CHECK(oidx_check(&idx));
	}
	check_scan(&m, &none, &none, false, SIZE_MAX);
	check_scan(&m, &none, &none, true, SIZE_MAX);
	while (m.n) {
		const struct oidx_key k = m.keys[test_rand(r) % m.n];

		CHECK_OK(oidx_remove(&idx, k.p, k.n));
		model_remove(&m, k.p, k.n);
	}
	CHECK(oidx_check(&idx));
	CHECK_UEQ(oidx_memory(&idx), 0);
	model_free(&m);
	teardown();
}

TEST(test_index_ord__agrees_with_a_sorted_array)
{
	uint64_t r = test_seed();

	against_model(SHORT, &r, 3000);
	against_model(NUMBERS, &r, 30000);
	against_model(LONG, &r, 1500);
	against_model(NESTED, &r, 3000);
}

TEST(test_index_ord__builds_what_insertion_makes)
{
	uint64_t r = test_seed();
	static uint8_t key[OIDX_KEY_MAX + 1];
	const struct oidx_bound none = { NULL, 0, false };

	for (enum kind kind = SHORT; kind < KINDS; kind++) {
		const size_t n = kind == NUMBERS ? 30000 : 700;
		struct model m = { NULL, 0 };
		struct oidx_key *mixed, *space;

		setup();
		for (size_t i = 0; i < n; i++)
			model_insert(&m, key, make_key(kind, &r, key));
		mixed = calloc(m.n + 1, sizeof(*mixed));
		space = calloc(m.n + 1, sizeof(*space));
		memcpy(mixed, m.keys, m.n * sizeof(*mixed));
		for (size_t i = m.n; i > 1; i--) {
			const size_t j = test_rand(&r) % i;
			const struct oidx_key t = mixed[i - 1];

			mixed[i - 1] = mixed[j];
			mixed[j] = t;
		}
		oidx_sort(mixed, space, m.n);
		for (size_t i = 0; i < m.n; i++)
			CHECK(mixed[i].p == m.keys[i].p);
		CHECK_OK(oidx_build(&idx, mixed, m.n));
		CHECK(oidx_check(&idx));
		CHECK_UEQ(oidx_count(&idx), m.n);
		check_scan(&m, &none, &none, false, SIZE_MAX);
		check_scan(&m, &none, &none, true, SIZE_MAX);
		for (int i = 0; i < 300; i++)
			random_bounds(kind, &r, &m);
		free(mixed);
		free(space);
		model_free(&m);
		teardown();
	}
}

TEST(test_index_ord__cleared_is_empty)
{
	const struct oidx_bound none = { NULL, 0, false };
	const struct model m = { NULL, 0 };
	char key[32];

	setup();
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 10000; i++)
			CHECK_OK(oidx_insert(&idx, key, (size_t)sprintf(key, "%d", i)));
		CHECK_UEQ(oidx_count(&idx), 10000);
		oidx_clear(&idx);
		CHECK_UEQ(oidx_count(&idx), 0);
		CHECK_UEQ(oidx_memory(&idx), 0);
		check_scan(&m, &none, &none, false, SIZE_MAX);
	}
	CHECK(oidx_check(&idx));
	teardown();
}

/* ---- Memory ---- */

TEST(test_index_ord__takes_little_more_than_the_keys)
{
	enum { N = 200000 };
	uint64_t r = test_seed();
	uint8_t key[24];

	setup();
	for (int i = 0; i < N; i++) {
		for (size_t k = 0; k < sizeof(key); k += 8) {
			const uint64_t x = test_rand(&r);

			memcpy(key + k, &x, 8);
		}
		CHECK_OK(oidx_insert(&idx, key, sizeof(key)));
	}
	printf("24 random bytes: %.1f bytes a key\n", (double)oidx_memory(&idx) / N);
	CHECK(oidx_memory(&idx) < N * 28u);
	teardown();
	setup();
	for (int i = 0; i < N; i++) {
		char text[64];

		CHECK_OK(oidx_insert(&idx, text, (size_t)sprintf(text, "user:session:%08d", i)));
	}
	printf("21 bytes in sequence: %.1f bytes a key\n", (double)oidx_memory(&idx) / N);
	CHECK(oidx_memory(&idx) < N * 8u);
	teardown();
}

static int fail_after;

static void *failing_malloc(size_t n)
{
	return fail_after-- == 0 ? NULL : malloc(n);
}

static void *failing_realloc(void *p, size_t n)
{
	return fail_after-- == 0 ? NULL : realloc(p, n);
}

static const struct base_allocator failing = { failing_malloc, calloc, failing_realloc, free };

TEST(test_index_ord__without_memory_nothing_changes)
{
	uint64_t r = test_seed();
	struct model m = { NULL, 0 };
	const struct oidx_bound none = { NULL, 0, false };

	setup();
	base_set_allocator(&failing);
	for (int i = 0; i < 20000; i++) {
		const bool grow = i < 10000;
		char key[64];
		const size_t n =
			(size_t)sprintf(key, "%u%s", (unsigned)(test_rand(&r) % 9000),
					&"............................"[test_rand(&r) % 2 * 20]);
		int err = -ENOMEM;

		for (int k = 0; err; k++) {
			const uint64_t before = oidx_count(&idx), bytes = oidx_memory(&idx);

			fail_after = k;
			err = grow ? oidx_insert(&idx, key, n) : oidx_remove(&idx, key, n);
			fail_after = -1;
			if (err) {
				CHECK_EQ(err, -ENOMEM);
				CHECK_UEQ(oidx_count(&idx), before);
				CHECK_UEQ(oidx_memory(&idx), bytes);
			}
			CHECK(k < 50);
		}
		if (grow)
			model_insert(&m, (uint8_t *)key, n);
		else
			model_remove(&m, (uint8_t *)key, n);
		if (i % 500 == 0) {
			CHECK(oidx_check(&idx));
			check_scan(&m, &none, &none, i % 1000 == 0, SIZE_MAX);
		}
	}
	oidx_clear(&idx);
	for (int k = 0;; k++) {
		int err;

		fail_after = k;
		err = oidx_build(&idx, m.keys, m.n);
		fail_after = -1;
		if (!err)
			break;
		CHECK_EQ(err, -ENOMEM);
		CHECK_UEQ(oidx_count(&idx), 0);
	}
	CHECK(oidx_check(&idx));
	check_scan(&m, &none, &none, false, SIZE_MAX);
	base_set_allocator(NULL);
	model_free(&m);
	teardown();
}

TEST_MAIN()
