/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about contents, attributes and listings, against the model of ops_model.h. */
#ifndef OPS_DATA_H
#define OPS_DATA_H

#include "tests/fuzz/ops_model.h"

/* ---- Contents ---- */

static void kill_suid(struct node_model *n)
{
	if (!S_ISDIR(n->mode))
		n->mode &= ~(uint32_t)(S_ISUID | ((n->mode & S_IXGRP) ? S_ISGID : 0));
}

static void do_read(struct model *m)
{
	const int node = pick(m, S_IFREG);
	const size_t size = below(&m->in, 4) ? below(&m->in, 9000) : below(&m->in, DATA_MAX);
	const off_t off =
		below(&m->in, 8) ? (off_t)below(&m->in, DATA_MAX) : (off_t)take(&m->in, 4) << 20;
	const struct node_model *n;
	struct fuse_file_info fi = { 0 };
	struct fuse_req r;
	size_t want;

	if (node < 0)
		return;
	n = &m->nodes[node];
	want = (uint64_t)off >= n->size ? 0 : n->size - (size_t)off;
	if (want > size)
		want = size;
	begin(m, &r, "read");
	op_read(&r, n->id, size, off, &fi);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_BYTES && r.len == want);
	EXPECT(m, want == 0 || memcmp(r.bytes, n->data + off, want) == 0);
	req_release(&r);
}

static void do_write(struct model *m)
{
	const int node = pick(m, S_IFREG);
	const size_t size = below(&m->in, 4) ? below(&m->in, 600) : below(&m->in, DATA_MAX);
	const off_t off = below(&m->in, DATA_MAX);
	const uint8_t fill = (uint8_t)take(&m->in, 1);
	struct fuse_file_info fi = { .writepage = below(&m->in, 8) == 0 };
	struct node_model *n;
	struct fuse_req r;
	uint8_t *buf;

	if (node < 0 || (size_t)off + size > DATA_MAX)
		return;
	n = &m->nodes[node];
	buf = malloc(size + 1);
	EXPECT(m, buf != NULL);
	for (size_t i = 0; i < size; i++)
		buf[i] = (uint8_t)(fill + i * 7);
	begin(m, &r, "write");
	op_write(&r, n->id, (const char *)buf, size, off, &fi);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_SIZE && r.size == size);
	req_release(&r);
	if (size > 0) {
		memcpy(n->data + off, buf, size);
		if (n->size < (size_t)off + size)
			n->size = (size_t)off + size;
	}
	if (!fi.writepage && m->uid != 0 && size > 0)
		kill_suid(n);
	free(buf);
}

static void do_fallocate(struct model *m)
{
	static const int modes[] = { 0,
				     FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_COLLAPSE_RANGE,
				     0x4000 };
	const int node = pick(m, S_IFREG), mode = modes[below(&m->in, 7)];
	const off_t off = below(&m->in, DATA_MAX), len = below(&m->in, DATA_MAX);
	const size_t end = (size_t)(off + len);
	struct fuse_file_info fi = { 0 };
	struct node_model *n;
	struct fuse_req r;
	int wanted = 0;

	if (node < 0 || end > DATA_MAX)
		return;
	n = &m->nodes[node];
	if (mode > FALLOC_FL_ZERO_RANGE + FALLOC_FL_KEEP_SIZE || mode == FALLOC_FL_COLLAPSE_RANGE)
		wanted = EOPNOTSUPP;
	else if (len == 0)
		wanted = EINVAL;
	begin(m, &r, "fallocate");
	op_fallocate(&r, n->id, mode, off, len, &fi);
	expect_err(m, &r, wanted);
	if (wanted != 0)
		return;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(n->data + off, 0, (size_t)len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && n->size < end)
		n->size = end;
	if (m->uid != 0)
		kill_suid(n);
}

static void do_copy(struct model *m)
{
	const int a = pick(m, S_IFREG), b = pick(m, S_IFREG);
	const off_t from = below(&m->in, DATA_MAX), to = below(&m->in, DATA_MAX);
	size_t len = below(&m->in, DATA_MAX), want;
	struct fuse_file_info fi = { 0 };
	struct node_model *src, *dst;
	struct fuse_req r;

	if (a < 0 || (size_t)to + len > DATA_MAX)
		return;
	if (a == b && from < to + (off_t)len && to < from + (off_t)len)
		return; /* the kernel does not let it come to that */
	src = &m->nodes[a];
	dst = &m->nodes[b];
	want = (uint64_t)from >= src->size ? 0 : src->size - (size_t)from;
	if (want > len)
		want = len;
	begin(m, &r, "copy_file_range");
	op_copy_file_range(&r, src->id, from, &fi, dst->id, to, &fi, len, 0);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_SIZE && r.size == want);
	req_release(&r);
	if (want > 0)
		memmove(dst->data + to, src->data + from, want);
	if (want > 0 && dst->size < (size_t)to + want)
		dst->size = (size_t)to + want;
	if (m->uid != 0)
		kill_suid(dst);
}

/* Where holes are is the store's business; that they are zeros is not. */
static void do_lseek(struct model *m)
{
	const int node = pick(m, S_IFREG), whence = below(&m->in, 2) ? SEEK_HOLE : SEEK_DATA;
	const off_t off = below(&m->in, DATA_MAX);
	const struct node_model *n;
	struct fuse_file_info fi = { 0 };
	struct fuse_req r;
	size_t end;

	if (node < 0)
		return;
	n = &m->nodes[node];
	begin(m, &r, "lseek");
	op_lseek(&r, n->id, off, whence, &fi);
	req_wait(&r);
	if (r.kind == ANSWER_ERR)
		EXPECT(m, r.err == ENXIO && (whence == SEEK_DATA || (size_t)off >= n->size));
	else
		EXPECT(m, r.kind == ANSWER_SIZE && r.size >= (uint64_t)off && r.size <= n->size);
	EXPECT(m, (size_t)off < n->size || r.kind == ANSWER_ERR);
	end = r.kind == ANSWER_ERR ? n->size : (size_t)r.size;
	for (size_t i = (size_t)off; whence == SEEK_DATA && i < end; i++)
		EXPECT(m, n->data[i] == 0);
	req_release(&r);
}

/* ---- Attributes ---- */

static void do_getattr(struct model *m)
{
	const int node = pick(m, 0);
	struct fuse_req r;

	begin(m, &r, "getattr");
	op_getattr(&r, m->nodes[node].id, NULL);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_ATTR);
	check_stat(m, node, &r.st);
	req_release(&r);
}

static void do_setattr(struct model *m)
{
	const int node = pick(m, 0);
	struct node_model *n = &m->nodes[node];
	int to_set = (int)take(&m->in, 1) &
		     (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID |
		      FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW);
	struct stat st = { .st_mode = (n->mode & S_IFMT) | (take(&m->in, 2) & 07777),
			   .st_uid = take(&m->in, 1),
			   .st_gid = take(&m->in, 1),
			   .st_size = below(&m->in, DATA_MAX) };
	struct fuse_req r;

	if (!S_ISREG(n->mode))
		to_set &= ~FUSE_SET_ATTR_SIZE;
	if (S_ISLNK(n->mode))
		to_set &= ~FUSE_SET_ATTR_MODE;
	begin(m, &r, "setattr");
	op_setattr(&r, n->id, &st, to_set, NULL);
	req_wait(&r);
	if (is_removed_dir(n) && r.kind == ANSWER_ERR) {
		expect_err(m, &r, ENOENT);
		return;
	}
	EXPECT(m, r.kind == ANSWER_ATTR);
	if (to_set & FUSE_SET_ATTR_MODE)
		n->mode = st.st_mode;
	else if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) ||
		 (to_set & FUSE_SET_ATTR_SIZE && m->uid != 0))
		kill_suid(n);
	if (to_set & FUSE_SET_ATTR_UID)
		n->uid = st.st_uid;
	if (to_set & FUSE_SET_ATTR_GID)
		n->gid = st.st_gid;
	if (to_set & FUSE_SET_ATTR_SIZE) {
		n->size = (size_t)st.st_size;
		memset(n->data + n->size, 0, DATA_MAX - n->size);
	}
	check_stat(m, node, &r.st);
	req_release(&r);
}

static void do_setxattr(struct model *m)
{
	static const size_t lengths[] = { 0, 1, 30, 300, 3000, 65536, 65537 };
	const int node = pick(m, 0), which = (int)below(&m->in, XATTRS);
	const size_t len = lengths[below(&m->in, 7)];
	const int flags = (int)below(&m->in, 4); /* none, CREATE, REPLACE, both */
	struct xattr_model *x = &m->nodes[node].xattrs[which];
	const uint8_t fill = (uint8_t)take(&m->in, 1);
	char *value = malloc(len + 1);
	struct fuse_req r;
	int wanted = 0;

	EXPECT(m, value != NULL);
	memset(value, fill, len);
	if (flags == 3 || len > 65536)
		wanted = ANY;
	else if (is_removed_dir(&m->nodes[node]))
		wanted = ENOENT;
	else if ((flags & XATTR_CREATE) && x->used)
		wanted = EEXIST;
	else if ((flags & XATTR_REPLACE) && !x->used)
		wanted = ENODATA;
	begin(m, &r, "setxattr");
	op_setxattr(&r, m->nodes[node].id, xattr_names[which], value, len, flags);
	expect_err(m, &r, wanted);
	if (wanted == 0)
		*x = (struct xattr_model){ true, len, fill };
	free(value);
}

static void do_getxattr(struct model *m)
{
	const int node = pick(m, 0), which = (int)below(&m->in, XATTRS);
	const struct xattr_model *x = &m->nodes[node].xattrs[which];
	const size_t size = below(&m->in, 3) ? 1u << 17 : below(&m->in, 400);
	struct fuse_req r;

	begin(m, &r, "getxattr");
	op_getxattr(&r, m->nodes[node].id, xattr_names[which], size);
	req_wait(&r);
	if (!x->used) {
		EXPECT(m, r.kind == ANSWER_ERR && r.err == ENODATA);
	} else if (size == 0) {
		EXPECT(m, r.kind == ANSWER_SIZE && r.size == x->len);
	} else if (size < x->len) {
		EXPECT(m, r.kind == ANSWER_ERR && r.err == ERANGE);
	} else {
		EXPECT(m, r.kind == ANSWER_BYTES && r.len == x->len);
		for (size_t i = 0; i < r.len; i++)
			EXPECT(m, r.bytes[i] == x->fill);
	}
	req_release(&r);
}

static void do_removexattr(struct model *m)
{
	const int node = pick(m, 0), which = (int)below(&m->in, XATTRS);
	struct xattr_model *x = &m->nodes[node].xattrs[which];
	struct fuse_req r;

	begin(m, &r, "removexattr");
	op_removexattr(&r, m->nodes[node].id, xattr_names[which]);
	if (is_removed_dir(&m->nodes[node])) {
		expect_err(m, &r, ENOENT);
		return;
	}
	expect_err(m, &r, x->used ? 0 : ENODATA);
	x->used = false;
}

static void do_listxattr(struct model *m)
{
	const int node = pick(m, 0);
	struct fuse_req r;
	unsigned int found = 0, wanted = 0;

	begin(m, &r, "listxattr");
	op_listxattr(&r, m->nodes[node].id, 1u << 17);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_BYTES);
	for (size_t at = 0; at < r.len; at += strlen((char *)r.bytes + at) + 1)
		for (int i = 0; i < XATTRS; i++)
			if (strcmp((char *)r.bytes + at, xattr_names[i]) == 0)
				found |= 1u << i;
	for (int i = 0; i < XATTRS; i++)
		if (m->nodes[node].xattrs[i].used && !(i == 2 && m->uid != 0))
			wanted |= 1u << i;
	EXPECT(m, found == wanted);
	req_release(&r);
}

static void do_readlink(struct model *m)
{
	const int node = pick(m, S_IFLNK);
	struct fuse_req r;

	if (node < 0)
		return;
	begin(m, &r, "readlink");
	op_readlink(&r, m->nodes[node].id);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_BYTES && r.len == m->nodes[node].size);
	EXPECT(m, memcmp(r.bytes, m->nodes[node].data, r.len) == 0);
	req_release(&r);
}

/* ---- Listing ---- */

static int node_by_id(const struct model *m, uint64_t id)
{
	for (int i = 0; i < NODES; i++)
		if (m->nodes[i].used && m->nodes[i].id == id)
			return i;
	return -1;
}

/* Counts what one answer holds, and takes over its references; returns the position after it. */
static off_t listed(struct model *m, const struct fuse_req *r, int dir, bool plus, bool *seen)
{
	const size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	struct fuse_direntplus d = { 0 };

	for (size_t at = 0; at < r->len;) {
		const char *name = (const char *)r->bytes + at + head;

		memcpy(plus ? (void *)&d : (void *)&d.dirent, r->bytes + at, head);
		at += FUSE_DIRENT_ALIGN(head + d.dirent.namelen);
		if (plus && d.entry_out.nodeid != 0 && !r->refuse) {
			EXPECT(m, node_by_id(m, d.entry_out.nodeid) >= 0);
			m->nodes[node_by_id(m, d.entry_out.nodeid)].refs++;
		}
		for (int i = 0; i < ENTRIES; i++) {
			const struct entry_model *e = &m->entries[i];

			if (!e->used || e->dir != dir ||
			    strlen(names[e->name]) != d.dirent.namelen ||
			    memcmp(names[e->name], name, d.dirent.namelen) != 0)
				continue;
			EXPECT(m, !seen[i] && d.dirent.ino == m->nodes[e->node].id);
			seen[i] = true;
		}
	}
	return (off_t)d.dirent.off;
}

/* Everything once, in answers of any size. */
static void do_list(struct model *m)
{
	const int dir = pick_dir(m);
	const bool plus = below(&m->in, 2);
	bool seen[ENTRIES] = { false };
	off_t at = 0;
	size_t len;

	do {
		struct fuse_req r;

		begin(m, &r, "readdir");
		(plus ? op_readdirplus : op_readdir)(&r, m->nodes[dir].id,
						     460 + below(&m->in, 2000), at, NULL);
		req_wait(&r);
		if (r.kind == ANSWER_ERR) {
			/* A removed directory may be empty, or gone. */
			EXPECT(m, r.err == ENOENT && m->nodes[dir].nlink == 0);
			req_release(&r);
			return;
		}
		EXPECT(m, r.kind == ANSWER_BYTES);
		len = r.len;
		if (len > 0)
			at = listed(m, &r, dir, plus, seen);
		req_release(&r);
	} while (len > 0);
	for (int i = 0; i < ENTRIES; i++)
		EXPECT(m, !m->entries[i].used || m->entries[i].dir != dir || seen[i]);
}

/* ---- Others ---- */

static void do_forget(struct model *m)
{
	const int node = pick(m, 0);
	struct node_model *n = &m->nodes[node];
	const uint64_t count = node == 0 ? 0 : 1 + below(&m->in, 4) % n->refs;
	struct fuse_forget_data d = { .ino = n->id, .nlookup = count };
	struct fuse_req r;

	begin(m, &r, "forget");
	if (count % 2)
		op_forget(&r, n->id, count);
	else
		op_forget_multi(&r, 1, &d);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_NONE);
	req_release(&r);
	if (node != 0)
		n->refs -= count;
	maybe_free(m, node);
}

static void do_whole(struct model *m)
{
	struct fuse_req r;

	begin(m, &r, "statfs");
	op_statfs(&r, EMDB_ROOT);
	req_wait(&r);
	req_release(&r);
	begin(m, &r, "fsync");
	op_fsync(&r, EMDB_ROOT, 0, NULL);
	expect_err(m, &r, 0);
}

#endif
