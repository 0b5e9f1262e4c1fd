/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile requests, and runs of all kinds against the model of ops_model.h. */
#ifndef OPS_RUN_H
#define OPS_RUN_H

#include "tests/fuzz/ops_data.h"
#include "tests/fuzz/ops_model.h"

/* ---- Hostile ones ---- */

/* Whatever it is answered, it is no success. */
static void expect_refused(struct model *m, struct fuse_req *r)
{
	req_wait(r);
	EXPECT(m, (r->kind == ANSWER_ERR && r->err != 0) ||
			  (r->kind == ANSWER_ENTRY && r->entry.ino == 0 && !r->created));
	req_release(r);
}

static void with_no_name(struct model *m)
{
	const char *const name = no_name(&m->in);
	const uint64_t dir = EMDB_ROOT, id = m->nodes[pick(m, 0)].id;
	struct fuse_file_info fi = { .flags = O_RDWR };
	const uint32_t which = below(&m->in, 10);
	struct fuse_req r;

	/* These two are resolved by the kernel, and below as if they were keys. */
	if ((strcmp(name, ".") == 0 || strcmp(name, "..") == 0) && which != 0)
		return;
	begin(m, &r, "a request with a bad name");
	switch (which) {
	case 0:
		op_lookup(&r, dir, name);
		break;
	case 1:
		op_create(&r, dir, name, 0600, &fi);
		break;
	case 2:
		op_mkdir(&r, dir, name, 0700);
		break;
	case 3:
		op_mknod(&r, dir, name, S_IFIFO | 0600, 0);
		break;
	case 4:
		op_symlink(&r, "t", dir, name);
		break;
	case 5:
		op_link(&r, id, dir, name);
		break;
	case 6:
		op_unlink(&r, dir, name);
		break;
	case 7:
		op_rmdir(&r, dir, name);
		break;
	case 8:
		op_rename(&r, dir, name, dir, "a", 0);
		break;
	default:
		op_rename(&r, dir, "a", dir, name, 0);
		break;
	}
	expect_refused(m, &r);
}

static void names_below_no_id(struct model *m, struct fuse_req *r, uint64_t id)
{
	struct fuse_file_info fi = { .flags = O_RDWR };

	switch (below(&m->in, 8)) {
	case 0:
		op_create(r, id, "a", 0600, &fi);
		break;
	case 1:
		op_mkdir(r, id, "a", 0700);
		break;
	case 2:
		op_symlink(r, "t", id, "a");
		break;
	case 3:
		op_link(r, id, EMDB_ROOT, "no such name yet");
		break;
	case 4:
		op_unlink(r, id, "a");
		break;
	case 5:
		op_rename(r, id, "a", EMDB_ROOT, "b", 0);
		break;
	case 6:
		op_tmpfile(r, id, 0600, &fi);
		break;
	default:
		op_lookup(r, id, "a");
		break;
	}
}

static void with_no_id(struct model *m)
{
	const uint64_t id = no_id(m);
	struct fuse_file_info fi = { .flags = O_RDWR };
	struct stat st = { .st_mode = S_IFREG | 0600 };
	struct fuse_req r;

	begin(m, &r, "a request with a bad id");
	switch (below(&m->in, 12)) {
	case 0:
		op_getattr(&r, id, NULL);
		break;
	case 1:
		op_setattr(&r, id, &st, (int)take(&m->in, 2), NULL);
		break;
	case 2:
		op_read(&r, id, 100, 0, &fi);
		break;
	case 3:
		op_write(&r, id, "x", 1, 0, &fi);
		break;
	case 4:
		op_fallocate(&r, id, 0, 0, 10, &fi);
		break;
	case 5:
		op_lseek(&r, id, 0, SEEK_DATA, &fi);
		break;
	case 6:
		op_getxattr(&r, id, below(&m->in, 2) ? "user.a" : "user.emdb.ttl", 100);
		break;
	case 7:
		op_setxattr(&r, id, below(&m->in, 2) ? "user.a" : "user.emdb.ttl", "7d", 2, 0);
		break;
	case 8:
		op_listxattr(&r, id, 100);
		break;
	case 9:
		op_readlink(&r, id);
		break;
	case 10:
		op_readdirplus(&r, id, 4096, (off_t)take(&m->in, 4), NULL);
		break;
	default:
		names_below_no_id(m, &r, id);
		break;
	}
	req_wait(&r);
	/* A removed directory that nobody holds, or one being looked at, is empty. */
	if (r.kind == ANSWER_BYTES)
		req_release(&r);
	else
		expect_refused(m, &r);
}

/* Arguments beyond all limits, for nodes that are there. */
static void with_bad_arguments(struct model *m)
{
	const int file = pick(m, S_IFREG), dir = pick_dir(m);
	struct fuse_file_info fi = { 0 };
	struct stat st = { .st_size = below(&m->in, 2) ? -1 : INT64_MAX };
	struct fuse_req r;

	if (file < 0)
		return;
	begin(m, &r, "a request with bad arguments");
	switch (below(&m->in, 12)) {
	case 0:
		op_write(&r, m->nodes[file].id, "x", 1, below(&m->in, 2) ? -1 : INT64_MAX - 1, &fi);
		break;
	case 1:
		op_read(&r, m->nodes[file].id, 100, -5, &fi);
		break;
	case 2:
		op_setattr(&r, m->nodes[file].id, &st, FUSE_SET_ATTR_SIZE, NULL);
		break;
	case 3:
		op_fallocate(&r, m->nodes[file].id, 0, INT64_MAX - 10, 100, &fi);
		break;
	case 4:
		op_lseek(&r, m->nodes[file].id, -1, SEEK_DATA, &fi);
		break;
	case 5:
		op_copy_file_range(&r, m->nodes[file].id, 0, &fi, m->nodes[file].id, INT64_MAX - 5,
				   &fi, 100, below(&m->in, 2) ? 0 : 7);
		break;
	case 6:
		op_setxattr(&r, m->nodes[file].id,
			    below(&m->in, 2) ? "system.posix_acl_access" : "x.y", "\1\2\3\4\5", 5,
			    0);
		break;
	case 7:
		op_setxattr(&r, m->nodes[file].id, "user.emdb.ttl", "soon", 4, 0);
		break;
	case 8:
		op_setxattr(&r, m->nodes[file].id, "user.emdb.key", "a", 1, 0);
		break;
	case 9:
		op_write(&r, m->nodes[dir].id, "x", 1, 0, &fi);
		break;
	case 10:
		op_setattr(&r, m->nodes[dir].id, &(struct stat){ 0 }, FUSE_SET_ATTR_SIZE, NULL);
		break;
	default:
		op_lookup(&r, m->nodes[file].id, "a");
		break;
	}
	req_wait(&r);
	/* Copying nothing is no error. */
	if (r.kind == ANSWER_SIZE && r.size == 0)
		req_release(&r);
	else
		expect_refused(m, &r);
}

/* A position that nobody got: what comes is up to the store, but what it refers to counts. */
static void with_bad_position(struct model *m)
{
	const int dir = pick_dir(m);
	const off_t at = (off_t)((uint64_t)take(&m->in, 4) << 32 | take(&m->in, 4));
	bool seen[ENTRIES] = { false };
	struct fuse_req r;

	begin(m, &r, "readdirplus from anywhere");
	op_readdirplus(&r, m->nodes[dir].id, below(&m->in, 5000), at, NULL);
	req_wait(&r);
	if (r.kind == ANSWER_BYTES)
		(void)listed(m, &r, dir, true, seen);
	req_release(&r);
}

/* ---- Runs ---- */

static void one_request(struct model *m)
{
	const uint32_t op = take(&m->in, 1) % 64;

	m->uid = below(&m->in, 4) ? 0 : 1000;
	m->umask = below(&m->in, 4) ? 022 : take(&m->in, 1) & 0777;
	m->refuse = below(&m->in, 16) == 0;
	if (op < 6)
		do_create(m);
	else if (op < 9)
		do_mkdir(m);
	else if (op < 11)
		do_mknod(m);
	else if (op < 13)
		do_symlink(m);
	else if (op < 15)
		do_link(m);
	else if (op < 16)
		do_tmpfile(m);
	else if (op < 19)
		do_remove(m, false);
	else if (op < 21)
		do_remove(m, true);
	else if (op < 26)
		do_rename(m);
	else if (op < 31)
		do_write(m);
	else if (op < 34)
		do_read(m);
	else if (op < 36)
		do_fallocate(m);
	else if (op < 38)
		do_copy(m);
	else if (op < 40)
		do_lseek(m);
	else if (op < 42)
		do_getattr(m);
	else if (op < 46)
		do_setattr(m);
	else if (op < 48)
		do_setxattr(m);
	else if (op < 50)
		do_getxattr(m);
	else if (op < 51)
		do_removexattr(m);
	else if (op < 52)
		do_listxattr(m);
	else if (op < 53)
		do_readlink(m);
	else if (op < 55)
		do_list(m);
	else if (op < 57)
		do_forget(m);
	else if (op < 58)
		do_whole(m);
	else if (op < 59)
		lookup(m, pick_dir(m), (int)below(&m->in, NAMES));
	else if (op < 60)
		with_no_name(m);
	else if (op < 62)
		with_no_id(m);
	else if (op < 63)
		with_bad_arguments(m);
	else
		with_bad_position(m);
}

static void ops_begin(struct model *m, emdb_db *db)
{
	static const struct options opt = { .snapdirname = OPTIONS_SNAPDIR };
	struct emdb_attr root;

	memset(m, 0, sizeof(*m));
	fs_init(&m->fs, &opt);
	m->fs.db = db;
	m->what = "nothing yet";
	EXPECT(m, emdb_node_getattr(db, EMDB_ROOT, &root) == EMDB_OK);
	m->nodes[0] = (struct node_model){ .used = true,
					   .id = EMDB_ROOT,
					   .mode = root.mode,
					   .uid = root.uid,
					   .gid = root.gid,
					   .nlink = 1,
					   .refs = 1 };
}

static void ops_run(struct model *m, const uint8_t *data, size_t size)
{
	m->in = (struct input){ data, data + size };
	while (m->in.p < m->in.end)
		one_request(m);
}

/* The kernel lets go of everything: what has no name is gone. */
static void ops_forget(struct model *m)
{
	for (int i = 1; i < NODES; i++) {
		struct node_model *n = &m->nodes[i];

		if (!n->used || n->refs == 0)
			continue;
		emdb_node_forget(m->fs.db, n->id, n->refs);
		n->refs = 0;
		maybe_free(m, i);
	}
}

/* Everything that has a name, from the root down, as after a remount. */
static void ops_check(struct model *m)
{
	static const uint8_t zeros[64];

	m->refuse = false;
	for (int round = 0; round < NODES; round++)
		for (int i = 0; i < ENTRIES; i++)
			if (m->entries[i].used && m->nodes[m->entries[i].dir].refs > 0 &&
			    m->nodes[m->entries[i].node].refs == 0)
				lookup(m, m->entries[i].dir, m->entries[i].name);
	for (int i = 0; i < NODES; i++) {
		struct node_model *n = &m->nodes[i];
		struct fuse_req r;

		if (!n->used)
			continue;
		EXPECT(m, n->refs > 0);
		if (S_ISREG(n->mode)) {
			begin(m, &r, "read of everything");
			op_read(&r, n->id, DATA_MAX + 1, 0, NULL);
			req_wait(&r);
			EXPECT(m, r.kind == ANSWER_BYTES && r.len == n->size);
			EXPECT(m, memcmp(r.bytes, n->data, n->size) == 0);
			req_release(&r);
		}
	}
	m->in = (struct input){ zeros, zeros + sizeof(zeros) };
	do_list(m);
}

static void ops_end(struct model *m)
{
	for (int i = 0; i < ENTRIES; i++)
		m->entries[i].used = false;
	for (int i = 1; i < NODES; i++)
		free(m->nodes[i].data);
	fs_release(&m->fs);
}

#endif
