/* SPDX-License-Identifier: Apache-2.0 */
#include "core/manifest.h"

#include <string.h>

#include "core/base.h"

emdb_err err_of_io(int err)
{
	switch (err) {
	case 0:
		return EMDB_OK;
	case -ENOMEM:
		return EMDB_ERR_NOMEM;
	case -ENOSPC:
	case -EDQUOT:
		return EMDB_ERR_NO_SPACE;
	case -EMFILE:
	case -ENFILE:
		return EMDB_ERR_TOO_MANY_FILES;
	case -EACCES:
	case -EPERM:
		return EMDB_ERR_PERM;
	case -EROFS:
		return EMDB_ERR_READ_ONLY;
	case -ENOENT:
		return EMDB_ERR_NOT_FOUND;
	default:
		return EMDB_ERR_IO;
	}
}

void manifest_release(struct manifest *m)
{
	base_free(m->segs);
	base_free(m->gaps);
	*m = (struct manifest)MANIFEST_INIT;
}

/* Room for one more element; doubles. */
static void *grow(void *p, size_t *cap, size_t count, size_t size)
{
	const size_t want = *cap ? *cap * 2 : 16;
	void *q;
	size_t bytes;

	if (count < *cap)
		return p;
	if (emdb_mul_ovf_size(want, size, &bytes))
		return NULL;
	q = base_realloc(p, bytes);
	if (q)
		*cap = want;
	return q;
}

/* An empty manifest with room for the rows that head counts. */
static emdb_err with_rows(const struct manifest_head *head, struct manifest *ret)
{
	struct manifest m = MANIFEST_INIT;

	m.head = *head;
	m.segs_cap = head->nsegs + 2u;
	m.gaps_cap = head->ngaps + 2u;
	m.segs = base_calloc(m.segs_cap, sizeof(*m.segs));
	m.gaps = base_calloc(m.gaps_cap, sizeof(*m.gaps));
	if (!m.segs || !m.gaps) {
		manifest_release(&m);
		return EMDB_ERR_NOMEM;
	}
	*ret = m;
	return EMDB_OK;
}

emdb_err manifest_copy(const struct manifest *m, struct manifest *ret)
{
	emdb_err err;

	manifest_release(ret);
	err = with_rows(&m->head, ret);
	if (err)
		return err;
	if (m->head.nsegs)
		memcpy(ret->segs, m->segs, m->head.nsegs * sizeof(*m->segs));
	if (m->head.ngaps)
		memcpy(ret->gaps, m->gaps, m->head.ngaps * sizeof(*m->gaps));
	return EMDB_OK;
}

emdb_err manifest_decode(const uint8_t *p, size_t n, struct manifest *m)
{
	struct manifest got = MANIFEST_INIT;
	struct manifest_head head;
	emdb_err err = fmt_manifest_decode(p, n, &head);

	if (!err)
		err = with_rows(&head, &got);
	if (err)
		return err;
	for (uint32_t i = 0; i < head.nsegs; i++)
		fmt_manifest_seg(p, i, &got.segs[i]);
	for (uint32_t i = 0; i < head.ngaps; i++)
		fmt_manifest_gap(p, head.nsegs, i, &got.gaps[i]);
	manifest_release(m);
	*m = got;
	return EMDB_OK;
}

emdb_err manifest_load(struct emdb_io *io, int dirfd, struct manifest *m)
{
	struct buf b = BUF_INIT;
	emdb_err err;
	const int rc = io_read_file(io, dirfd, MANIFEST_NAME, FMT_MANIFEST_MAX, &b);

	if (rc < 0)
		err = rc == -EFBIG ? EMDB_ERR_CORRUPT : err_of_io(rc);
	else
		err = manifest_decode(b.data, b.len, m);
	buf_release(&b);
	return err;
}

/* After a failed replacement: is the old content certainly still there? */
static bool old_is_there(struct emdb_io *io, int dirfd, uint64_t generation)
{
	struct manifest seen = MANIFEST_INIT;
	const emdb_err err = manifest_load(io, dirfd, &seen);
	const bool old = err == EMDB_ERR_NOT_FOUND || (!err && seen.head.generation < generation);

	manifest_release(&seen);
	return old;
}

emdb_err manifest_store(struct manifest *m, struct emdb_io *io, int dirfd, bool *ret_applied)
{
	const size_t n = fmt_manifest_len(&m->head);
	uint8_t *buf;
	int rc;

	if (ret_applied)
		*ret_applied = false;
	/* Nothing that would not be read again. */
	if (n > FMT_MANIFEST_MAX || m->head.next_segment > FMT_NEXT_SEGMENT_MAX)
		return EMDB_ERR_NO_SPACE;
	buf = base_malloc(n);
	if (!buf)
		return EMDB_ERR_NOMEM;
	m->head.generation++;
	fmt_manifest_encode(&m->head, m->segs, m->gaps, buf);
	rc = io_replace_durably(io, dirfd, MANIFEST_NAME, buf, n);
	base_free(buf);
	if (rc < 0 && ret_applied)
		*ret_applied = !old_is_there(io, dirfd, m->head.generation);
	return err_of_io(rc);
}

/* ---- MAC --------------------------------------------------------------- */

static emdb_err mac_of(const struct manifest *m, const struct vault *v, uint8_t mac[static 32])
{
	struct manifest_head h = m->head;
	const size_t n = fmt_manifest_len(&h);
	uint8_t *const buf = base_malloc(n);

	if (!buf)
		return EMDB_ERR_NOMEM;
	h.generation = h.next_segment = 0;
	h.ckpt = h.ckpt_lsn = h.ckpt_prev = h.ckpt_prev_lsn = 0;
	memset(h.mac, 0, sizeof(h.mac));
	fmt_manifest_encode(&h, m->segs, m->gaps, buf);
	memset(buf + n - 4, 0, 4);
	vault_mac(vault_secrets_of(v), "emdbmani", buf, n, mac);
	base_free(buf);
	return EMDB_OK;
}

emdb_err manifest_mac_set(struct manifest *m, const struct vault *v)
{
	memset(m->head.mac, 0, sizeof(m->head.mac));
	m->head.flags &= ~(uint64_t)MANIFEST_MAC;
	if (!v)
		return EMDB_OK;
	m->head.flags |= MANIFEST_MAC;
	return mac_of(m, v, m->head.mac);
}

emdb_err manifest_mac_check(const struct manifest *m, const struct vault *v)
{
	uint8_t mac[32];
	emdb_err err;

	if (!v || !(m->head.flags & MANIFEST_MAC))
		return v || (m->head.flags & MANIFEST_MAC) ? EMDB_ERR_CORRUPT : EMDB_OK;
	err = mac_of(m, v, mac);
	if (!err && !vault_mac_equal(mac, m->head.mac))
		err = EMDB_ERR_CORRUPT;
	return err;
}

/* Index of the first row whose id is at least id. */
static uint32_t lower(const struct manifest *m, uint64_t id)
{
	uint32_t lo = 0, hi = m->head.nsegs;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (m->segs[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct manifest_seg *manifest_find(const struct manifest *m, uint64_t id)
{
	const uint32_t i = lower(m, id);

	return i < m->head.nsegs && m->segs[i].id == id ? &m->segs[i] : NULL;
}

emdb_err manifest_add(struct manifest *m, uint64_t id, uint64_t len, uint32_t flags)
{
	const uint32_t i = lower(m, id);
	struct manifest_seg *const segs =
		grow(m->segs, &m->segs_cap, m->head.nsegs, sizeof(*m->segs));

	if (!segs)
		return EMDB_ERR_NOMEM;
	emdb_assert(i == m->head.nsegs || segs[i].id != id);
	memmove(segs + i + 1, segs + i, (m->head.nsegs - i) * sizeof(*segs));
	segs[i] = (struct manifest_seg){ .id = id, .len = len, .flags = flags };
	m->segs = segs;
	m->head.nsegs++;
	return EMDB_OK;
}

void manifest_gaps_remove(struct manifest *m, uint64_t id, uint32_t segment_shift)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->head.ngaps; i++)
		if (m->gaps[i].lsn >> segment_shift != id)
			m->gaps[kept++] = m->gaps[i];
	m->head.ngaps = kept;
}

void manifest_remove(struct manifest *m, uint64_t id, uint32_t segment_shift)
{
	const uint32_t i = lower(m, id);

	if (i == m->head.nsegs || m->segs[i].id != id)
		return;
	memmove(m->segs + i, m->segs + i + 1, (m->head.nsegs - i - 1) * sizeof(*m->segs));
	m->head.nsegs--;
	manifest_gaps_remove(m, id, segment_shift);
}

emdb_err manifest_gap_add(struct manifest *m, uint64_t lsn, uint64_t len)
{
	struct manifest_gap *const gaps =
		grow(m->gaps, &m->gaps_cap, m->head.ngaps, sizeof(*m->gaps));
	uint32_t i = 0, last;

	if (!gaps)
		return EMDB_ERR_NOMEM;
	m->gaps = gaps;
	while (i < m->head.ngaps && gaps[i].lsn + gaps[i].len <= lsn)
		i++;
	last = i;
	while (last < m->head.ngaps && gaps[last].lsn < lsn + len)
		last++;
	/* In place of rows i to last - 1. */
	memmove(gaps + i + 1, gaps + last, (m->head.ngaps - last) * sizeof(*gaps));
	gaps[i] = (struct manifest_gap){ .lsn = lsn, .len = len };
	m->head.ngaps = m->head.ngaps - (last - i) + 1;
	return EMDB_OK;
}

uint64_t manifest_gap_at(const struct manifest *m, uint64_t lsn)
{
	uint32_t lo = 0, hi = m->head.ngaps;

	while (lo < hi) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (m->gaps[mid].lsn < lsn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < m->head.ngaps && m->gaps[lo].lsn == lsn ? m->gaps[lo].len : 0;
}
