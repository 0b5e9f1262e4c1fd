#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What compaction, snapshots, opening, backups and expiry cost (tools/bench/space.c), and archives: tar through a
# mount against emdb export.
#
#	make bench-space
#
# From the environment: RECORDS (1000000), OPEN_RECORDS (10000000), SECTIONS (all; see space -h), TAR_FILES (50000;
# 0: no archives), BENCH_DIR (where stores are made; build/), EMDB_BIN (the programs).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${EMDB_BIN:-$top/build}
json=
[ "${1:-}" = --json ] && json=-j

work=$(mktemp -d "${BENCH_DIR:-$bin}/space.XXXXXX")
mounted=
finish() {
	trap - EXIT
	[ -z "$mounted" ] || fusermount3 -u "$work/mnt" || fusermount3 -u -z "$work/mnt"
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck disable=SC2086
"$bin/bench/space" $json -n "${RECORDS:-1000000}" -o "${OPEN_RECORDS:-10000000}" "$work" ${SECTIONS:-}

files=${TAR_FILES:-50000}
[ "$files" != 0 ] || exit 0
[ -r /dev/fuse ] || { echo "space.sh: no /dev/fuse: no archives" >&2; exit 0; }
mkdir "$work/mnt"
"$bin/emdbfs" "$work/store" "$work/mnt"
mounted=1
mkdir "$work/mnt/tree"
awk -v n="$files" 'BEGIN { for (; n > 0; n--) printf "%0200d\n", n }' | (cd "$work/mnt/tree" && split -a 5 -l 1 -)
[ -n "$json" ] || printf '\n-- archives of %d files, files/s\n' "$files"
# The second round finds everything in the kernel's caches.
for round in 1 2; do
	start=$(date +%s%N)
	tar -C "$work/mnt" -cf - tree | cat >/dev/null
	middle=$(date +%s%N)
	"$bin/emdb" export -q --tar "$work/mnt" tree | cat >/dev/null
	end=$(date +%s%N)
	awk -v n="$files" -v a=$((middle - start)) -v b=$((end - middle)) -v r=$round -v j="$json" 'BEGIN {
		if (j)
			f = "{\"bench\":\"tar\",\"op\":\"%s\",\"unit\":\"files/s\",\"round\":%d,\"median\":%.0f}\n"
		else
			f = "%-28s round %d %10.0f\n"
		printf f, "tar through the mount", r, n / a * 1e9
		printf f, "emdb export --tar", r, n / b * 1e9
	}'
done
