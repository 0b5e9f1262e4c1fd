// SPDX-License-Identifier: Apache-2.0
// The library from C++.
//
//	c++ cxx.cc $(pkg-config --cflags --libs emdb) && ./a.out /tmp/store
#include <cstdio>
#include <emdb.h>
#include <memory>
#include <string>

namespace
{
struct closer {
	void operator()(emdb_db *db) const
	{
		(void)emdb_close(db);
	}
};
using database = std::unique_ptr<emdb_db, closer>;

database open_or_exit(const char *path)
{
	emdb_options options = {};
	emdb_db *db = nullptr;

	options.size = sizeof(options);
	options.flags = EMDB_OPEN_CREATE;
	if (const emdb_err err = emdb_open(path, &options, &db)) {
		std::fprintf(stderr, "%s: %s\n", path, emdb_strerror(err));
		std::exit(1);
	}
	return database(db);
}
} // namespace

int main(int argc, char **argv)
{
	const std::string key = "greeting", value = "hello";
	void *got = nullptr;
	std::size_t len = 0;

	if (argc != 2)
		return 2;
	const database db = open_or_exit(argv[1]);
	if (emdb_put(db.get(), EMDB_ROOT, key.data(), key.size(), value.data(), value.size(),
		     EMDB_TTL_DEFAULT) ||
	    emdb_get(db.get(), EMDB_ROOT, key.data(), key.size(), &got, &len))
		return 1;
	std::printf("%s\n", std::string(static_cast<char *>(got), len).c_str());
	emdb_free(got);
	return 0;
}
