#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh STAGE CC CXX: compiles every example the way README says, against
# what `make install DESTDIR=STAGE` put there, runs each with a store of its own and compares what it prints
# with its .exp file.
set -u
cd "$(dirname "$0")"
stage=$1 cc=$2 cxx=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PKG_CONFIG_SYSROOT_DIR=$stage LD_LIBRARY_PATH
pc=$(find "$stage" -name emdb.pc)
flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs emdb)
LD_LIBRARY_PATH=$(dirname "$(dirname "$pc")")

one() {
	local src=$1 name=${1%.*} compile="$cc -std=c11 -D_POSIX_C_SOURCE=200809L"
	[ "${src##*.}" = c ] || compile="$cxx -std=c++14"
	$compile -Wall -Wextra -Wpedantic -Werror -O1 "$src" $flags -o "$tmp/$name" || return 1
	timeout 120 "$tmp/$name" "$tmp/$name.store" >"$tmp/$name.out" || return 1
	diff -u "$name.exp" "$tmp/$name.out"
}

passed=0 failed=0
for src in *.c *.cc; do
	if one "$src"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "  FAILED  $src"
	fi
done
echo "examples: $passed passed, $failed failed"
[ $failed = 0 ]
