/* SPDX-License-Identifier: Apache-2.0 */
/* Stores by name: where they lie, which names are allowed, what is created. */
#include "tests/unit/test.h"

#include <sys/stat.h>

#include "core/emdb.h"

static struct emdb_app by(const char *app, const char *database, const char *root)
{
	return (struct emdb_app){ sizeof(struct emdb_app), app, database, root };
}

static void check_path(const struct emdb_app *app, const char *want)
{
	char *path;

	CHECK_OK(emdb_app_path(app, &path));
	CHECK_STR(path, want);
	emdb_free(path);
}

TEST(test_appdir__where_it_lies)
{
	struct emdb_app a = by("mail", "index", NULL);

	CHECK_EQ(setenv("XDG_DATA_HOME", "/xdg", 1), 0);
	CHECK_EQ(setenv("HOME", "/home/me", 1), 0);
	check_path(&a, "/xdg/mail/index");
	check_path(NULL, "/xdg/emdb/default");
	a = by("  mail\t", " ", "");
	check_path(&a, "/xdg/mail/default");
	a = by("", "index", "/srv/data");
	check_path(&a, "/srv/data/emdb/index");
	a = by("..mail", "a..b", "rel/root");
	check_path(&a, "rel/root/..mail/a..b");
	/* A relative one does not count. */
	CHECK_EQ(setenv("XDG_DATA_HOME", "xdg", 1), 0);
	check_path(NULL, "/home/me/.local/share/emdb/default");
	CHECK_EQ(unsetenv("XDG_DATA_HOME"), 0);
	check_path(NULL, "/home/me/.local/share/emdb/default");
}

TEST(test_appdir__names)
{
	static const char *const bad[] = { ".",    "..",   "...",  "a/b",   "/a",
					   "../a", "a\\b", "a\nb", "a\x7f", "a\x01b" };
	struct emdb_detail detail;
	const struct emdb_options o = { .size = sizeof(o),
					.flags = EMDB_OPEN_CREATE,
					.detail = &detail };
	char name[300], *path;
	struct emdb_app a;
	emdb_db *db;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		a = by(bad[i], "x", "/nowhere");
		CHECK_EQ(emdb_app_path(&a, &path), EMDB_ERR_INVAL);
		a = by("x", bad[i], "/nowhere");
		CHECK_EQ(emdb_app_path(&a, &path), EMDB_ERR_INVAL);
		CHECK_EQ(emdb_open_app(&a, &o, &db), EMDB_ERR_INVAL);
		CHECK(strstr(detail.text, "names"));
	}
	memset(name, 'n', sizeof(name));
	name[255] = 0;
	a = by(name, "x", "/r");
	CHECK_OK(emdb_app_path(&a, &path));
	emdb_free(path);
	name[255] = 'n';
	name[256] = 0;
	CHECK_EQ(emdb_app_path(&a, &path), EMDB_ERR_INVAL);
	a = by("x", "y", "/r");
	a.size--;
	CHECK_EQ(emdb_app_path(&a, &path), EMDB_ERR_INVAL);
	CHECK_EQ(unsetenv("XDG_DATA_HOME"), 0);
	CHECK_EQ(setenv("HOME", "not absolute", 1), 0);
	CHECK_EQ(emdb_app_path(NULL, &path), EMDB_ERR_INVAL);
	CHECK_EQ(emdb_open_app(NULL, &o, &db), EMDB_ERR_INVAL);
	CHECK(strstr(detail.text, "HOME"));
}

static unsigned int mode_of(const char *root, const char *below)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", root, below);
	CHECK_EQ(stat(path, &st), 0);
	return st.st_mode & 07777;
}

TEST(test_appdir__the_way_is_made)
{
	struct emdb_options o = { .size = sizeof(o) };
	const char *const home = test_dir();
	struct emdb_app a = by("mail", "index", NULL);
	char root[PATH_MAX + 64];
	emdb_db *db, *second;
	void *p;
	size_t n;

	CHECK_EQ(unsetenv("XDG_DATA_HOME"), 0);
	CHECK_EQ(setenv("HOME", home, 1), 0);
	/* Nothing is made unless asked for. */
	CHECK_EQ(emdb_open_app(&a, &o, &db), EMDB_ERR_NO_STORE);
	CHECK_EQ(emdb_open_app(&a, NULL, &db), EMDB_ERR_NO_STORE);
	snprintf(root, sizeof(root), "%s/.local", home);
	CHECK_EQ(access(root, F_OK), -1);
	o.flags = EMDB_OPEN_CREATE;
	CHECK_OK(emdb_open_app(&a, &o, &db));
	CHECK_UEQ(mode_of(home, ".local"), 0700);
	CHECK_UEQ(mode_of(home, ".local/share/mail"), 0700);
	CHECK_UEQ(mode_of(home, ".local/share/mail/index"), 0700);
	CHECK_OK(emdb_put(db, EMDB_ROOT, "k", 1, "v", 1, 0));
	/* Another database of the same application. */
	a.database = "other";
	CHECK_OK(emdb_open_app(&a, &o, &second));
	CHECK_EQ(emdb_get(second, EMDB_ROOT, "k", 1, &p, &n), EMDB_ERR_NOT_FOUND);
	CHECK_OK(emdb_close(second));
	CHECK_OK(emdb_close(db));
	a.database = "index";
	CHECK_OK(emdb_open_app(&a, NULL, &db));
	CHECK_OK(emdb_get(db, EMDB_ROOT, "k", 1, &p, &n));
	emdb_free(p);
	CHECK_OK(emdb_close(db));
	/* A file in the way. */
	snprintf(root, sizeof(root), "%s/.local/share/mail/index/superblock", home);
	a = by("x", "y", root);
	CHECK_EQ(emdb_open_app(&a, &o, &db), EMDB_ERR_NOT_STORE);
	/* A root that is not there, several deep, with a slash too many. */
	snprintf(root, sizeof(root), "%s/a//b/c/", home);
	CHECK_OK(emdb_open_app(&a, &o, &db));
	CHECK_UEQ(mode_of(home, "a/b/c/x/y"), 0700);
	CHECK_OK(emdb_close(db));
}

TEST_MAIN()
