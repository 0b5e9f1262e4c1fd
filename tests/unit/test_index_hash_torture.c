/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers against writers. Values say which hash they belong to, so that a reader sees at once what
 * was torn, lost, doubled or freed. Meant for ThreadSanitizer, and useful without.
 */
#include "core/index_hash.h"

#include <pthread.h>

#include "tests/unit/test.h"

#define STABLE    700  /* entries that stay */
#define CHURN     2000 /* entries that come and go, for each writer */
#define READERS   2
#define WRITERS   2
#define WALK_STEP 40
#define RUN_US    1500000

static struct epoch ep;
static struct hidx idx;
static _Atomic(bool) stop;
static uint64_t seed;

static uint64_t mix(uint64_t i)
{
	uint64_t state = i * 0x9e3779b97f4a7c15;

	return test_rand(&state);
}

/* The low byte is a version, the rest follows from the hash. */
static uint64_t value_of(uint64_t hash, unsigned version)
{
	return (hash * 0xff51afd7ed558ccd & ~(uint64_t)0xff) | (version & 0xff);
}

static void check_value(uint64_t hash, uint64_t value)
{
	CHECK_UEQ(value & ~(uint64_t)0xff, value_of(hash, 0));
}

static uint64_t stable_hash(uint64_t i)
{
	return mix(i);
}

static uint64_t churn_hash(unsigned writer, uint64_t i)
{
	return mix((writer + 1) * 1000000 + i);
}

static void setup(void)
{
	seed = test_seed();
	CHECK_OK(epoch_init(&ep));
	hidx_init(&idx, &ep);
	atomic_store(&stop, false);
}

static void teardown(void)
{
	CHECK(hidx_check(&idx));
	hidx_release(&idx);
	epoch_release(&ep);
}

static int hash_compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a;
	const uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void insert_stable(uint64_t sorted[static STABLE])
{
	for (uint64_t i = 0; i < STABLE; i++) {
		sorted[i] = stable_hash(i);
		CHECK_OK(hidx_insert(&idx, sorted[i], value_of(sorted[i], 0)));
	}
	qsort(sorted, STABLE, sizeof(sorted[0]), hash_compare);
}

/* ---- A walk in small steps; disturb() runs in between ---- */

static uint64_t stable[STABLE];

/* Everything in strict order, every stable entry once. */
static void check_whole_walk(void (*disturb)(void *), void *arg, uint64_t *rng)
{
	struct hidx_slot out[WALK_STEP];
	uint64_t from = 0;
	size_t next = 0; /* stable entry to come */
	bool first = true;
	size_t max;
	size_t n;

	do {
		const unsigned pin = epoch_pin(&ep);

		max = 1 + test_rand(rng) % WALK_STEP;
		n = hidx_walk_pinned(&idx, from, first ? 0 : 1, out, max);
		epoch_unpin(&ep, pin);
		for (size_t i = 0; i < n; i++) {
			CHECK(first || out[i].hash > from);
			CHECK_UEQ(out[i].tie, 0);
			check_value(out[i].hash, out[i].value);
			first = false;
			from = out[i].hash;
			if (next < STABLE && stable[next] == from)
				next++;
			CHECK(next == STABLE || stable[next] > from);
		}
		if (disturb)
			disturb(arg);
	} while (n == max);
	CHECK_UEQ(next, STABLE);
}

struct churn {
	unsigned writer;
	unsigned target; /* wave: towards how many entries */
	unsigned n;
	uint64_t rng;
	bool there[CHURN];
	uint8_t version[CHURN];
};

/* One operation on an entry that belongs to this writer alone. */
static void churn_once(struct churn *c)
{
	const unsigned i = (unsigned)(test_rand(&c->rng) % CHURN);
	const uint64_t hash = churn_hash(c->writer, i);
	const unsigned version = c->version[i];

	if (c->there[i] && test_rand(&c->rng) % 4 == 0) {
		c->version[i]++;
		CHECK_OK(hidx_replace(&idx, hash, value_of(hash, version),
				      value_of(hash, c->version[i])));
	} else if (c->there[i] && c->n > c->target) {
		CHECK_OK(hidx_remove(&idx, hash, value_of(hash, version)));
		c->there[i] = false;
		c->n--;
	} else if (!c->there[i] && c->n <= c->target) {
		CHECK_OK(hidx_insert(&idx, hash, value_of(hash, version)));
		c->there[i] = true;
		c->n++;
	}
	if (test_rand(&c->rng) % CHURN == 0)
		c->target = (unsigned)(test_rand(&c->rng) % CHURN);
}

static void churn_some(void *arg)
{
	for (int i = 0; i < 100; i++)
		churn_once(arg);
}

TEST(test_index_hash_torture__walk_between_changes)
{
	static struct churn churn;

	setup();
	insert_stable(stable);
	churn = (struct churn){ .writer = 0, .rng = seed };
	for (int i = 0; i < 60; i++) {
		churn.target = i % 2 ? CHURN : 0; /* split and merge while the walk is under way */
		check_whole_walk(churn_some, &churn, &seed);
	}
	CHECK_UEQ(hidx_count(&idx), STABLE + churn.n);
	teardown();
}

/* ---- Several at once ---- */

static void *reader(void *arg)
{
	uint64_t rng = seed + (uintptr_t)arg;
	uint64_t v[2];

	while (!atomic_load(&stop)) {
		for (int i = 0; i < 2000; i++) {
			const uint64_t r = test_rand(&rng);
			const uint64_t keep = stable_hash(r % STABLE);
			const uint64_t come = churn_hash(r >> 32 & 1, (r >> 33) % CHURN);
			const unsigned pin = epoch_pin(&ep);
			size_t n;

			CHECK_UEQ(hidx_find_pinned(&idx, keep, v, 2), 1);
			check_value(keep, v[0]);
			n = hidx_find_pinned(&idx, come, v, 2);
			CHECK(n <= 1);
			if (n == 1)
				check_value(come, v[0]);
			epoch_unpin(&ep, pin);
		}
		check_whole_walk(NULL, NULL, &rng);
	}
	return NULL;
}

static void *writer(void *arg)
{
	struct churn *const c = arg;

	while (!atomic_load(&stop))
		churn_once(c);
	return NULL;
}

TEST(test_index_hash_torture__readers_and_writers)
{
	static struct churn churn[WRITERS];
	pthread_t threads[READERS + WRITERS];
	uint64_t v[2];

	setup();
	insert_stable(stable);
	for (unsigned i = 0; i < WRITERS; i++) {
		churn[i] = (struct churn){ .writer = i, .rng = seed + i };
		CHECK_OK(pthread_create(&threads[i], NULL, writer, &churn[i]));
	}
	for (unsigned i = 0; i < READERS; i++)
		CHECK_OK(pthread_create(&threads[WRITERS + i], NULL, reader,
					(void *)(uintptr_t)(i + 100)));
	usleep(RUN_US);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < READERS + WRITERS; i++)
		CHECK_OK(pthread_join(threads[i], NULL));

	CHECK_UEQ(hidx_count(&idx), STABLE + churn[0].n + churn[1].n);
	for (unsigned w = 0; w < WRITERS; w++) {
		for (unsigned i = 0; i < CHURN; i++) {
			const uint64_t hash = churn_hash(w, i);

			CHECK_UEQ(hidx_find_pinned(&idx, hash, v, 2), churn[w].there[i]);
			if (churn[w].there[i])
				CHECK_UEQ(v[0], value_of(hash, churn[w].version[i]));
		}
	}
	teardown();
}

/* ---- Values that are pointers, freed through the same epoch ---- */

#define OBJECTS 300

struct object {
	struct epoch_node node;
	uint64_t id; /* plain on purpose: ThreadSanitizer sees what insert does not publish */
};

static void object_free(struct epoch_node *node)
{
	struct object *const o = container_of(node, struct object, node);

	o->id = UINT64_MAX;
	free(o);
}

static uint64_t object_new(uint64_t id)
{
	struct object *const o = malloc(sizeof(*o));

	CHECK(o);
	o->id = id;
	return (uint64_t)(uintptr_t)o;
}

static void *object_reader(void *arg)
{
	uint64_t rng = seed + (uintptr_t)arg;
	struct hidx_slot slots[WALK_STEP];
	uint64_t v;

	while (!atomic_load(&stop)) {
		const uint64_t id = test_rand(&rng) % OBJECTS;
		const unsigned pin = epoch_pin(&ep);
		size_t n;

		if (hidx_find_pinned(&idx, mix(id), &v, 1) > 0)
			CHECK_UEQ(((const struct object *)(uintptr_t)v)->id, id);
		n = hidx_walk_pinned(&idx, test_rand(&rng), 0, slots, WALK_STEP);
		for (size_t i = 0; i < n; i++) {
			const struct object *const o =
				(const struct object *)(uintptr_t)slots[i].value;

			CHECK_UEQ(mix(o->id), slots[i].hash);
		}
		epoch_unpin(&ep, pin);
	}
	return NULL;
}

/* Creates, replaces or removes; entry i holds what the index holds. */
static void object_change(uint64_t entries[static OBJECTS], uint64_t id, bool grow)
{
	const uint64_t old = entries[id];

	if (!old && !grow)
		return;
	entries[id] = grow ? object_new(id) : 0;
	if (!old)
		CHECK_OK(hidx_insert(&idx, mix(id), entries[id]));
	else if (grow)
		CHECK_OK(hidx_replace(&idx, mix(id), old, entries[id]));
	else
		CHECK_OK(hidx_remove(&idx, mix(id), old));
	if (old)
		epoch_retire(&ep, &((struct object *)(uintptr_t)old)->node, object_free);
}

static void *object_writer(void *arg)
{
	static uint64_t entries[OBJECTS];
	uint64_t rng = seed + (uintptr_t)arg;

	memset(entries, 0, sizeof(entries));
	for (unsigned round = 0; !atomic_load(&stop); round++)
		for (unsigned i = 0; i < OBJECTS; i++)
			object_change(entries, test_rand(&rng) % OBJECTS,
				      test_rand(&rng) % 4 < (round % 2 ? 1 : 3));
	for (unsigned i = 0; i < OBJECTS; i++)
		object_change(entries, i, false);
	return NULL;
}

TEST(test_index_hash_torture__pointers_as_values)
{
	pthread_t threads[3];

	setup();
	CHECK_OK(pthread_create(&threads[0], NULL, object_writer, (void *)(uintptr_t)1));
	CHECK_OK(pthread_create(&threads[1], NULL, object_reader, (void *)(uintptr_t)2));
	CHECK_OK(pthread_create(&threads[2], NULL, object_reader, (void *)(uintptr_t)3));
	usleep(RUN_US);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 3; i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	CHECK_UEQ(hidx_count(&idx), 0);
	CHECK_UEQ(hidx_memory(&idx), sizeof(idx));
	teardown();
}

TEST_MAIN()
