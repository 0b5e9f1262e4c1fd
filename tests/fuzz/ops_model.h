/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request sequences against a model of what a file system is.
 *
 * Bytes choose the requests and their arguments, hostile ones among them: ids that were never given
 * out or are gone, names that are none, sizes and offsets beyond all limits, answers that the
 * kernel did not take.  Every request must be answered once, as the model says; at the end nothing
 * may be left over.  Here is the model with names; ops_data.h has contents and attributes, ops_run.h
 * hostile requests and the runs.  Include ops_run.h after ops_fake.h, in one file of a program
 * that links the handlers.
 */
#ifndef OPS_MODEL_H
#define OPS_MODEL_H

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fuse/ops.h"

#define NODES    40
#define ENTRIES  64
#define DATA_MAX ((size_t)200 * 1024)
#define XATTRS   4
/* Of an expectation: an error, whichever. */
#define ANY (-1)

#define EXPECT(m, x) ((x) ? (void)0 : model_fail(m, #x, __LINE__))

/* ---- Input ---- */

struct input {
	const uint8_t *p, *end;
};

static uint32_t take(struct input *in, unsigned int n)
{
	uint32_t v = 0;

	for (; n > 0 && in->p < in->end; n--)
		v = v << 8 | *in->p++;
	return v;
}

static uint32_t below(struct input *in, uint32_t n)
{
	return take(in, n > 256 ? 3 : 1) % n;
}

/* ---- The model ---- */

struct xattr_model {
	bool used;
	size_t len;
	uint8_t fill;
};

struct node_model {
	bool used;
	uint64_t id;
	uint32_t mode, uid, gid;
	uint64_t rdev;
	unsigned int nlink; /* names; of a directory 1 while it has one */
	uint64_t refs;      /* that the kernel holds */
	uint8_t *data;      /* DATA_MAX bytes, zeros behind size; of a link: its target */
	size_t size;
	struct xattr_model xattrs[XATTRS];
};

struct entry_model {
	bool used;
	int dir, name, node;
};

struct model {
	struct fs fs;
	struct input in;
	struct node_model nodes[NODES]; /* 0: the root */
	struct entry_model entries[ENTRIES];
	uint64_t dead[8]; /* ids that were */
	unsigned int deads;
	uint64_t count; /* requests so far */
	const char *what;
	uid_t uid;
	mode_t umask;
	bool refuse;
};

__attribute__((noreturn)) static void model_fail(const struct model *m, const char *what, int line)
{
	fprintf(stderr, "line %d: request %llu (%s): not true: %s\n", line,
		(unsigned long long)m->count, m->what, what);
	abort();
}

/* The last ones are no names, or none in the root. */
static const char *const names[] = {
	"a",
	"b",
	"c",
	"d",
	"e",
	"\xff\x01",
	"~x",
	"%2f",
	"name with blank",
	"..a",
	"~",
	"2345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
	"8901234567890123456789012345678901234567890123456789012345678901234567890123456",
};
#define NAMES ((int)(sizeof(names) / sizeof(names[0])))
static const char *const xattr_names[XATTRS] = { "user.a", "user.b", "trusted.c", "security.d" };

static char *no_name(struct input *in)
{
	static const char *const fixed[] = { "", ".", "..", "a/b", "/", OPTIONS_SNAPDIR };
	static char buf[1200];
	const uint32_t which = below(in, 8);

	if (which < 6)
		return strcpy(buf, fixed[which]);
	memset(buf, 'n', sizeof(buf));
	buf[which == 6 ? 256 : 1199] = '\0';
	return buf;
}

static bool is_dir(const struct node_model *n)
{
	return S_ISDIR(n->mode);
}

/* Who has it still open sees its times and modes, and cannot change it; its attributes are gone. */
static bool is_removed_dir(const struct node_model *n)
{
	return is_dir(n) && n->nlink == 0;
}

static int find_entry(const struct model *m, int dir, int name)
{
	for (int i = 0; i < ENTRIES; i++)
		if (m->entries[i].used && m->entries[i].dir == dir && m->entries[i].name == name)
			return i;
	return -1;
}

static int free_entry(const struct model *m)
{
	for (int i = 0; i < ENTRIES; i++)
		if (!m->entries[i].used)
			return i;
	return -1;
}

static int free_node(const struct model *m)
{
	for (int i = 1; i < NODES; i++)
		if (!m->nodes[i].used)
			return i;
	return -1;
}

static bool is_empty(const struct model *m, int dir)
{
	for (int i = 0; i < ENTRIES; i++)
		if (m->entries[i].used && m->entries[i].dir == dir)
			return false;
	return true;
}

static int parent_of(const struct model *m, int node)
{
	for (int i = 0; i < ENTRIES; i++)
		if (m->entries[i].used && m->entries[i].node == node)
			return m->entries[i].dir;
	return -1;
}

/* True if dir is node, or in it. */
static bool is_below(const struct model *m, int dir, int node)
{
	for (; dir > 0; dir = parent_of(m, dir))
		if (dir == node)
			return true;
	return dir == node;
}

static void maybe_free(struct model *m, int node)
{
	struct node_model *n = &m->nodes[node];

	if (node == 0 || n->nlink > 0 || n->refs > 0)
		return;
	m->dead[m->deads++ % 8] = n->id;
	free(n->data);
	memset(n, 0, sizeof(*n));
}

static void remove_entry(struct model *m, int entry)
{
	const int node = m->entries[entry].node;

	m->entries[entry].used = false;
	m->nodes[node].nlink--;
	if (is_removed_dir(&m->nodes[node]))
		memset(m->nodes[node].xattrs, 0, sizeof(m->nodes[node].xattrs));
	maybe_free(m, node);
}

/* ---- Requests ---- */

static void begin(struct model *m, struct fuse_req *r, const char *what)
{
	m->what = what;
	m->count++;
	req_init(r, &m->fs, m->uid, m->umask);
	r->refuse = m->refuse;
	r->ring = m->count % 2;
}

/* A request that answers with an error or success only. */
static int result(struct model *m, struct fuse_req *r)
{
	int err;

	req_wait(r);
	EXPECT(m, r->kind == ANSWER_ERR);
	err = r->err;
	req_release(r);
	return err;
}

static bool as_wanted(int err, int wanted)
{
	return wanted == ANY ? err != 0 : err == wanted;
}

static void expect_err(struct model *m, struct fuse_req *r, int wanted)
{
	const int err = result(m, r);

	if (!as_wanted(err, wanted))
		fprintf(stderr, "got %d, wanted %d\n", err, wanted);
	EXPECT(m, as_wanted(err, wanted));
}

static unsigned int nlink_of(const struct model *m, int node)
{
	unsigned int n = 2;

	if (!is_dir(&m->nodes[node]))
		return m->nodes[node].nlink;
	for (int i = 0; i < ENTRIES; i++)
		if (m->entries[i].used && m->entries[i].dir == node &&
		    is_dir(&m->nodes[m->entries[i].node]))
			n++;
	return m->nodes[node].nlink == 0 ? 0 : n;
}

static void check_stat(struct model *m, int node, const struct stat *st)
{
	const struct node_model *n = &m->nodes[node];

	EXPECT(m, st->st_ino == n->id);
	EXPECT(m, st->st_mode == n->mode);
	EXPECT(m, st->st_uid == n->uid && st->st_gid == n->gid);
	EXPECT(m, is_dir(n) || st->st_size == (off_t)n->size);
	EXPECT(m, st->st_nlink == nlink_of(m, node));
	EXPECT(m, st->st_rdev == n->rdev);
}

static void lookup(struct model *m, int dir, int name)
{
	const int entry = find_entry(m, dir, name);
	struct fuse_req r;

	begin(m, &r, "lookup");
	op_lookup(&r, m->nodes[dir].id, names[name]);
	req_wait(&r);
	EXPECT(m, r.kind == ANSWER_ENTRY);
	EXPECT(m, (r.entry.ino != 0) == (entry >= 0));
	if (entry >= 0) {
		check_stat(m, m->entries[entry].node, &r.entry.attr);
		if (!r.refuse)
			m->nodes[m->entries[entry].node].refs++;
	}
	req_release(&r);
}

/* A node that the kernel knows; -1: none of that kind. */
static int pick(struct model *m, uint32_t type)
{
	const int from = (int)below(&m->in, NODES);

	for (int i = 0; i < NODES; i++) {
		const int k = (from + i) % NODES;
		const struct node_model *n = &m->nodes[k];

		if (n->used && n->refs > 0 && (type == 0 || (n->mode & S_IFMT) == type))
			return k;
	}
	return -1;
}

static int pick_dir(struct model *m)
{
	return pick(m, S_IFDIR); /* the root is always there */
}

/* An id that means nothing. */
static uint64_t no_id(struct model *m)
{
	switch (below(&m->in, 4)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX - below(&m->in, 3);
	case 2:
		return m->deads > 0 ? m->dead[below(&m->in, m->deads < 8 ? m->deads : 8)] : 7;
	default:
		return (uint64_t)take(&m->in, 4) << 40 | 3;
	}
}

/* ---- Making ---- */

static int add_node(struct model *m, uint32_t mode, int dir)
{
	const int k = free_node(m);
	const struct node_model *parent = &m->nodes[dir];
	struct node_model *n = &m->nodes[k];

	if (!S_ISLNK(mode))
		mode &= ~m->umask;
	*n = (struct node_model){ .used = true, .mode = mode, .uid = m->uid, .gid = m->uid };
	if ((parent->mode & S_ISGID) != 0) {
		n->gid = parent->gid;
		if (S_ISDIR(mode))
			n->mode |= S_ISGID;
	}
	if (!S_ISDIR(mode)) {
		n->data = calloc(1, DATA_MAX);
		EXPECT(m, n->data != NULL);
	}
	return k;
}

static void add_entry_model(struct model *m, int dir, int name, int node)
{
	const int i = free_entry(m);

	m->entries[i] = (struct entry_model){ true, dir, name, node };
	m->nodes[node].nlink++;
}

static bool has_room(const struct model *m)
{
	return free_node(m) >= 0 && free_entry(m) >= 0;
}

/* What making a new name must say; 0: it works. */
static int new_name(const struct model *m, int dir, int name)
{
	if (m->nodes[dir].nlink == 0)
		return ENOENT;
	return find_entry(m, dir, name) >= 0 ? EEXIST : 0;
}

/* The answer to a request that made a node: the new one's number. */
static void made(struct model *m, struct fuse_req *r, int wanted, int dir, int name, uint32_t mode,
		 uint64_t rdev, const char *target)
{
	int k;

	req_wait(r);
	if (wanted != 0) {
		expect_err(m, r, wanted);
		return;
	}
	EXPECT(m, r->kind == ANSWER_ENTRY && r->entry.ino != 0);
	k = add_node(m, mode, dir);
	m->nodes[k].id = r->entry.ino;
	m->nodes[k].rdev = rdev;
	if (target != NULL) {
		m->nodes[k].size = strlen(target);
		memcpy(m->nodes[k].data, target, strlen(target));
	}
	if (name >= 0)
		add_entry_model(m, dir, name, k);
	check_stat(m, k, &r->entry.attr);
	if (!r->refuse)
		m->nodes[k].refs = 1;
	maybe_free(m, k);
	req_release(r);
}

static void do_mknod(struct model *m)
{
	static const uint32_t types[] = {
		0, S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFDIR
	};
	const int dir = pick_dir(m), name = (int)below(&m->in, NAMES);
	const uint32_t type = types[below(&m->in, 7)], mode = take(&m->in, 2) & 07777;
	const uint64_t rdev = type == S_IFCHR || type == S_IFBLK ? take(&m->in, 2) : 0;
	int wanted = new_name(m, dir, name);
	struct fuse_req r;

	if (!has_room(m))
		return;
	if (type == S_IFDIR)
		wanted = EINVAL;
	begin(m, &r, "mknod");
	op_mknod(&r, m->nodes[dir].id, names[name], type | mode, rdev);
	made(m, &r, wanted, dir, name, (type ? type : S_IFREG) | mode, rdev, NULL);
}

static void do_mkdir(struct model *m)
{
	const int dir = pick_dir(m), name = (int)below(&m->in, NAMES);
	const uint32_t mode = take(&m->in, 2) & 01777;
	struct fuse_req r;

	if (!has_room(m))
		return;
	begin(m, &r, "mkdir");
	op_mkdir(&r, m->nodes[dir].id, names[name], mode);
	made(m, &r, new_name(m, dir, name), dir, name, S_IFDIR | mode, 0, NULL);
}

static void do_symlink(struct model *m)
{
	static const uint32_t lengths[] = { 0, 1, 5, 200, 4095, 4096, 9000 };
	const int dir = pick_dir(m), name = (int)below(&m->in, NAMES);
	const uint32_t len = lengths[below(&m->in, 7)];
	char target[9001];
	int wanted = new_name(m, dir, name);
	struct fuse_req r;

	if (!has_room(m))
		return;
	memset(target, 't', len);
	target[len] = '\0';
	if (len == 0 || len > 4095)
		wanted = ANY;
	begin(m, &r, "symlink");
	op_symlink(&r, target, m->nodes[dir].id, names[name]);
	made(m, &r, wanted, dir, name, S_IFLNK | 0777, 0, target);
}

static void do_tmpfile(struct model *m)
{
	const int dir = pick_dir(m);
	const uint32_t mode = take(&m->in, 2) & 0777;
	struct fuse_file_info fi = { .flags = O_RDWR };
	struct fuse_req r;

	if (!has_room(m))
		return;
	begin(m, &r, "tmpfile");
	op_tmpfile(&r, m->nodes[dir].id, mode, &fi);
	made(m, &r, m->nodes[dir].nlink == 0 ? ENOENT : 0, dir, -1, S_IFREG | mode, 0, NULL);
}

/* The kernel thought the name free. */
static void created_existing(struct model *m, struct fuse_req *r, int node, int flags)
{
	struct node_model *n = &m->nodes[node];

	if ((flags & O_EXCL) != 0 || !S_ISREG(n->mode)) {
		expect_err(m, r, ANY);
		return;
	}
	req_wait(r);
	EXPECT(m, r->kind == ANSWER_ENTRY && r->created);
	if ((flags & O_TRUNC) != 0) {
		memset(n->data, 0, DATA_MAX);
		n->size = 0;
	}
	check_stat(m, node, &r->entry.attr);
	if (!r->refuse)
		n->refs++;
	req_release(r);
}

static void do_create(struct model *m)
{
	const int dir = pick_dir(m), name = (int)below(&m->in, NAMES);
	const uint32_t mode = take(&m->in, 2) & 07777, bits = take(&m->in, 1);
	const int entry = find_entry(m, dir, name);
	struct fuse_file_info fi = { .flags = O_CREAT | (int)(bits & 3) };
	struct fuse_req r;

	if (!has_room(m))
		return;
	fi.flags |= (bits & 4 ? O_EXCL : 0) | (bits & 8 ? O_TRUNC : 0);
	begin(m, &r, "create");
	op_create(&r, m->nodes[dir].id, names[name], mode, &fi);
	if (entry >= 0)
		created_existing(m, &r, m->entries[entry].node, fi.flags);
	else
		made(m, &r, new_name(m, dir, name), dir, name, S_IFREG | mode, 0, NULL);
}

static void do_link(struct model *m)
{
	const int node = pick(m, 0), dir = pick_dir(m), name = (int)below(&m->in, NAMES);
	int wanted = new_name(m, dir, name);
	struct fuse_req r;

	if (!has_room(m))
		return;
	if (is_dir(&m->nodes[node]))
		wanted = ANY;
	begin(m, &r, "link");
	op_link(&r, m->nodes[node].id, m->nodes[dir].id, names[name]);
	req_wait(&r);
	/* Only what O_TMPFILE made comes back from having no name: both answers are right. */
	if (wanted == 0 && m->nodes[node].nlink == 0 && r.kind == ANSWER_ERR)
		wanted = ENOENT;
	if (wanted != 0) {
		expect_err(m, &r, wanted);
		return;
	}
	EXPECT(m, r.kind == ANSWER_ENTRY);
	add_entry_model(m, dir, name, node);
	check_stat(m, node, &r.entry.attr);
	if (!r.refuse)
		m->nodes[node].refs++;
	req_release(&r);
}

/* ---- Removing and moving ---- */

static void do_remove(struct model *m, bool dir)
{
	const int parent = pick_dir(m), name = (int)below(&m->in, NAMES);
	const int entry = find_entry(m, parent, name);
	const int node = entry >= 0 ? m->entries[entry].node : -1;
	struct fuse_req r;
	int wanted = 0;

	if (entry < 0)
		wanted = ENOENT;
	else if (dir != is_dir(&m->nodes[node]))
		wanted = dir ? ENOTDIR : EISDIR;
	else if (dir && !is_empty(m, node))
		wanted = ENOTEMPTY;
	begin(m, &r, dir ? "rmdir" : "unlink");
	(dir ? op_rmdir : op_unlink)(&r, m->nodes[parent].id, names[name]);
	expect_err(m, &r, wanted);
	if (wanted == 0)
		remove_entry(m, entry);
}

/* What rename(2) says; the order of the checks is not prescribed. */
static int rename_wanted(const struct model *m, int from, int dir, int to, unsigned int flags)
{
	const int node = from >= 0 ? m->entries[from].node : -1;
	const int old = to >= 0 ? m->entries[to].node : -1;
	const bool exchange = (flags & 2) != 0;

	if (flags == 3 || flags > 5 || from < 0 || m->nodes[dir].nlink == 0 ||
	    (exchange && to < 0) || ((flags & 1) && to >= 0))
		return ANY;
	if (is_dir(&m->nodes[node]) && is_below(m, dir, node))
		return ANY;
	if (exchange)
		return is_dir(&m->nodes[old]) && is_below(m, m->entries[from].dir, old) ? ANY : 0;
	if (to < 0 || node == old)
		return 0;
	if (is_dir(&m->nodes[node]) != is_dir(&m->nodes[old]))
		return ANY;
	return is_dir(&m->nodes[old]) && !is_empty(m, old) ? ANY : 0;
}

/* A node that the kernel does not know yet. */
static void add_whiteout(struct model *m, int dir, int name)
{
	const uid_t uid = m->uid;
	struct emdb_attr attr;
	int k;

	EXPECT(m, emdb_node_lookup(m->fs.db, m->nodes[dir].id, names[name], strlen(names[name]),
				   &attr) == EMDB_OK);
	EXPECT(m, attr.mode == S_IFCHR && attr.rdev == 0 && attr.size == 0);
	m->uid = attr.uid;
	k = add_node(m, S_IFCHR, dir);
	m->uid = uid;
	m->nodes[k].id = attr.id;
	m->nodes[k].gid = attr.gid;
	add_entry_model(m, dir, name, k);
	m->nodes[k].refs = 1;
}

static void do_rename(struct model *m)
{
	const int dir = pick_dir(m), new_dir = pick_dir(m);
	const int name = (int)below(&m->in, NAMES), new_name = (int)below(&m->in, NAMES);
	const uint32_t bits = take(&m->in, 1);
	const unsigned int flags = bits < 170 ? 0 : bits % 8;
	const int from = find_entry(m, dir, name), to = find_entry(m, new_dir, new_name);
	const int wanted = rename_wanted(m, from, new_dir, to, flags);
	struct fuse_req r;

	if ((flags & 4) && !has_room(m))
		return;
	begin(m, &r, "rename");
	op_rename(&r, m->nodes[dir].id, names[name], m->nodes[new_dir].id, names[new_name], flags);
	expect_err(m, &r, wanted);
	if (wanted != 0)
		return;
	if (flags == 2) {
		const int node = m->entries[from].node;

		m->entries[from].node = m->entries[to].node;
		m->entries[to].node = node;
	} else if (to < 0 || m->entries[to].node != m->entries[from].node) {
		if (to >= 0)
			remove_entry(m, to);
		m->entries[from].dir = new_dir;
		m->entries[from].name = new_name;
		if (flags & 4)
			add_whiteout(m, dir, name);
	}
}

#endif
