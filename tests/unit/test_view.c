/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views against pictures of the model: whatever is done to the store afterwards, renames, links,
 * writes into promoted objects, compaction of any segment, expiry, checkpoints, a view shows the
 * moment at which it was taken.
 */
#include "tests/unit/compact_help.h"

#include "core/iter.h"
#include "tests/unit/model_ops.h"

#define PICTURES 4

struct seen {
	int key;
	uint64_t ns, id;
	bool is_ns;
	int64_t expires_ms;
	uint8_t *data;
	size_t len;
};

struct picture {
	struct view *view;
	uint64_t nss[M_NSS]; /* 0: none */
	struct seen *seen;
	size_t n;
};

static struct picture pics[PICTURES];
static bool sealed; /* the store is encrypted */

static void store_open(void)
{
	static const uint8_t key[EMDB_RAW_KEY_SIZE] = { 1, 2, 3 };
	const struct emdb_secret secret = { .kind = EMDB_SECRET_KEY,
					    .data = key,
					    .len = sizeof(key) };
	struct emdb_options opts = { .size = sizeof(opts),
				     .flags = EMDB_OPEN_CREATE,
				     .segment_bytes = EMDB_SEGMENT_MIN,
				     .sweep_interval_ms = -1,
				     .commit_interval_s = -1,
				     .compact_percent = -1,
				     .secret = sealed ? &secret : NULL };

	CHECK_OK(dir ? emdb_open(dir, &opts, &db) : emdb_open_memory(&opts, &db));
}

static unsigned int run_length(unsigned int dflt)
{
	const char *const env = getenv("OPS");

	return env ? (unsigned int)strtoul(env, NULL, 0) : dflt;
}

static void begin(bool memory)
{
	static char path[PATH_MAX + 8];

	m_init(test_seed());
	dir = NULL;
	if (!memory) {
		snprintf(path, sizeof(path), "%s/store", test_dir());
		dir = path;
	}
	store_open();
}

/* ---- Pictures ---- */

static void picture_take(struct picture *p)
{
	CHECK_OK(view_new(db, &p->view));
	p->seen = calloc(M_ENTRIES, sizeof(*p->seen));
	p->n = 0;
	for (int i = 0; i < M_NSS; i++)
		p->nss[i] = m->nss[i].used ? m->nss[i].id : 0;
	for (int i = 0; i < M_ENTRIES; i++) {
		const struct m_entry *const e = &m->entries[i];
		struct seen *const s = &p->seen[p->n];

		if (!e->used)
			continue;
		p->n++;
		*s = (struct seen){ .key = e->key, .ns = m->nss[e->ns].id, .is_ns = e->obj < 0 };
		s->id = s->is_ns ? m->nss[e->child].id : m->objs[e->obj].id;
		if (s->is_ns)
			continue;
		s->expires_ms = m->objs[e->obj].expires_ms;
		s->len = m->objs[e->obj].size;
		s->data = malloc(s->len + 1);
		CHECK(s->data);
		memcpy(s->data, m->objs[e->obj].data, s->len);
	}
}

static void picture_drop(struct picture *p)
{
	view_unref(p->view);
	for (size_t i = 0; i < p->n; i++)
		free(p->seen[i].data);
	free(p->seen);
	memset(p, 0, sizeof(*p));
}

static bool visible(const struct seen *s)
{
	return !s->expires_ms || s->expires_ms > m_now_ms();
}

static const struct seen *find_seen(const struct picture *p, uint64_t ns, int key)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->seen[i].ns == ns && p->seen[i].key == key && visible(&p->seen[i]))
			return &p->seen[i];
	return NULL;
}

static void check_seen(const struct seen *s, const struct emdb_entry *got)
{
	want_u64(got->is_ns, s->is_ns, "is_ns in a view");
	want_u64(got->id, s->id, "id in a view");
	if (s->is_ns)
		return;
	want_u64((uint64_t)got->expires_ms, (uint64_t)s->expires_ms, "deadline in a view");
	want_bytes(got->value, got->value_len, s->data, s->len, "value in a view");
}

static void check_walk(const struct picture *p, uint64_t ns)
{
	static const struct iter_ops iter_ops = { view_iter_next, view_iter_release };
	struct view_iter *const it = base_calloc(1, sizeof(*it));
	bool seen[M_KEYS] = { false };
	struct emdb_entry got;
	emdb_err err;

	CHECK(it);
	view_ref(p->view);
	it->it.db = db;
	view_iter_init(it, &iter_ops, p->view, ns, EMDB_ITER_VALUES);
	while ((err = emdb_iter_next(&it->it, &got)) == EMDB_OK) {
		const int k = m_key_index(got.key, got.key_len);
		const struct seen *const s = find_seen(p, ns, k);

		if (!s || seen[k])
			M_FAIL("a view of %" PRIu64 " shows key %d of %" PRIu64 " %s",
			       view_lsn(p->view), k, ns, s ? "twice" : "that was not there");
		seen[k] = true;
		check_seen(s, &got);
	}
	emdb_iter_free(&it->it);
	want_err(err, EMDB_ERR_NOT_FOUND, "walk of a view");
	for (int k = 0; k < M_KEYS; k++)
		if (!seen[k] && find_seen(p, ns, k))
			M_FAIL("a view of %" PRIu64 " lacks key %d of %" PRIu64, view_lsn(p->view),
			       k, ns);
}

static void check_key_of(const struct picture *p, uint64_t ns, int k)
{
	const unsigned int pin = epoch_pin(&db->epoch);
	const struct seen *const s = find_seen(p, ns, k);
	struct emdb_entry got = { .key = NULL };
	void *value = NULL;
	struct entry e;
	const void *key;
	emdb_err err;
	size_t n;

	key = m_key(k, &n);
	err = view_find_pinned(p->view, ns, entry_hash(db, ns, key, n), key, n, &e);
	want_err(err, s ? EMDB_OK : EMDB_ERR_NOT_FOUND, "look into a view");
	if (s && !s->is_ns)
		want_err(view_value_pinned(p->view, &e, &value, &got.value_len), EMDB_OK, "value");
	if (s) {
		got.value = value;
		got.id = e.id;
		got.is_ns = e.rec.kind == REC_NS;
		got.expires_ms = view_expires_pinned(p->view, &e);
		check_seen(s, &got);
	}
	base_free(value);
	epoch_unpin(&db->epoch, pin);
}

static bool was_there(const struct picture *p, uint64_t ns)
{
	for (int i = 0; i < M_NSS; i++)
		if (p->nss[i] == ns)
			return true;
	return false;
}

static void picture_check(const struct picture *p)
{
	const unsigned int pin = epoch_pin(&db->epoch);

	for (int i = 0; i < M_NSS; i++)
		if (m->nss[i].used)
			want_u64(view_has_ns_pinned(p->view, m->nss[i].id),
				 was_there(p, m->nss[i].id), "whether a namespace was there");
	epoch_unpin(&db->epoch, pin);
	for (int i = 0; i < M_NSS; i++) {
		if (!p->nss[i])
			continue;
		check_walk(p, p->nss[i]);
		for (int k = 0; k < M_KEYS; k++)
			check_key_of(p, p->nss[i], k);
	}
}

static void nothing_is_kept(void)
{
	struct emdb_stats st;

	OK(emdb_stats_get(db, &st));
	want_u64(st.views, 0, "number of views");
	want_u64(st.view_bytes, 0, "bytes kept for views");
}

static void drop_any_segment(void)
{
	uint64_t ids[256];
	size_t n;

	if (chance(70))
		(void)seal_all(db);
	n = sealed_segments(db, ids, 256);
	if (!n)
		return;
	n = (size_t)below(n);
	DOING("compact segment %" PRIu64, ids[n]);
	(void)drop_segment(db, ids[n]);
}

static void maybe_picture(void)
{
	struct picture *const p = &pics[below(PICTURES)];

	if (!chance(6))
		return;
	if (p->view)
		picture_check(p);
	if (p->view && chance(50))
		picture_drop(p);
	else if (!p->view)
		picture_take(p);
}

static void run(unsigned int n, bool restarts)
{
	for (unsigned int i = 0; i < n; i++) {
		one_op();
		if (chance(2))
			drop_any_segment();
		maybe_picture();
		if (i != n - 1 && !(restarts && chance(1) && chance(40)))
			continue;
		DOING("look at all views");
		for (int k = 0; k < PICTURES; k++) {
			if (pics[k].view)
				picture_check(&pics[k]);
			picture_drop(&pics[k]);
		}
		nothing_is_kept();
		DOING("restart");
		CHECK_OK(emdb_close(db));
		m_restart();
		if (restarts) {
			store_open();
			check_all(db);
		}
	}
}

TEST(test_view__shows_its_moment)
{
	begin(true);
	run(run_length(3000 / SLOWER), false);
}

TEST(test_view__shows_its_moment_on_disk)
{
	begin(false);
	run(run_length(1200 / SLOWER), true);
	CHECK_OK(emdb_close(db));
}

/* What is read is opened anew then, also out of segments that are retired. */
TEST(test_view__shows_its_moment_encrypted)
{
	sealed = true;
	begin(false);
	run(run_length(600 / SLOWER), true);
	CHECK_OK(emdb_close(db));
	sealed = false;
}

/* ---- What it costs ---- */

TEST(test_view__those_of_one_moment_are_one)
{
	struct view *a, *b, *c;

	m_live = NULL;
	dir = NULL;
	store_open();
	CHECK_OK(emdb_put(db, EMDB_ROOT, "a", 1, "1", 1, 0));
	CHECK_OK(view_new(db, &a));
	CHECK_OK(view_new(db, &b));
	CHECK(a == b);
	CHECK_OK(emdb_put(db, EMDB_ROOT, "a", 1, "2", 1, 0));
	CHECK_OK(view_new(db, &c));
	CHECK(c != a);
	CHECK(view_lsn(c) > view_lsn(a));
	view_unref(a);
	view_unref(b);
	view_unref(c);
	view_unref(NULL);
	CHECK_OK(emdb_close(db));
}

/* Overwriting the same keys again and again keeps one version a view, not one a change. */
TEST(test_view__keeps_what_views_see_and_no_more)
{
	struct emdb_stats st;
	struct view *old, *v;
	uint64_t most = 0;

	m_live = NULL;
	dir = NULL;
	store_open();
	for (int i = 0; i < 100; i++)
		CHECK_OK(emdb_put(db, EMDB_ROOT, &i, sizeof(i), "x", 1, 0));
	CHECK_OK(view_new(db, &old));
	for (int round = 0; round < 200; round++) {
		CHECK_OK(view_new(db, &v));
		for (int i = 0; i < 100; i++)
			CHECK_OK(emdb_put(db, EMDB_ROOT, &i, sizeof(i), &round, sizeof(round), 0));
		CHECK_OK(emdb_stats_get(db, &st));
		CHECK_UEQ(st.views, 2);
		most = most > st.view_bytes ? most : st.view_bytes;
		view_unref(v);
	}
	CHECK_OK(emdb_stats_get(db, &st));
	CHECK(st.view_bytes * 2 <= most + 200);
	CHECK(most < 100 * 2 * 512);
	view_unref(old);
	nothing_is_kept();
	CHECK_OK(emdb_close(db));
}

/* A view that is left open is the program's mistake, but no leak. */
TEST(test_view__close_frees_what_is_left)
{
	struct view *v;

	m_live = NULL;
	dir = NULL;
	store_open();
	CHECK_OK(emdb_put(db, EMDB_ROOT, "a", 1, "1", 1, 0));
	CHECK_OK(view_new(db, &v));
	CHECK_OK(emdb_put(db, EMDB_ROOT, "a", 1, "2", 1, 0));
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
