#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Measures the mount against the host's file system, and the engine alone, side by side in one run.
#
#	make bench                      everything, a table on stdout
#	tools/bench/run.sh --json       JSON lines
#
# From the environment: FILES (100000), SIZE (200), THREADS (1,4), ROUNDS (3), LARGE_MB (256, 0: none),
# FSYNC_FILES, RECORDS (5000000, 0: no engine), ENGINE_ARGS, BENCH_DIR (where store, mount and the native
# directory are made: one disk for all; default build/), EMDB_BIN (the programs), MOUNT_OPTIONS,
# OTHERS ("NAME=DIR ..." to measure as well, such as tmpfs=/dev/shm). Never fails because of a number.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${EMDB_BIN:-$top/build}
where=${BENCH_DIR:-$bin}
json=
[ "${1:-}" = "--json" ] && json=-j

for program in emdbfs bench/fsbench bench/engine; do
	[ -x "$bin/$program" ] || { echo "run.sh: no $bin/$program: make bench builds it" >&2; exit 1; }
done

work=$(mktemp -d "$where/bench.XXXXXX")
daemon=
finish() {
	trap - EXIT
	if [ -n "$daemon" ]; then
		fusermount3 -u "$work/mnt" 2>/dev/null || fusermount3 -u -z "$work/mnt" 2>/dev/null || :
		wait "$daemon" || echo "run.sh: emdbfs ended with an error" >&2
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
	[ -n "$json" ] || echo "$@"
}

say "machine: $(nproc) CPUs, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
say "disk:    $(df -T "$work" | awk 'NR == 2 { print $2, "on", $1 }'), load $(cut -d' ' -f1-3 /proc/loadavg)"
say "fuse:    $("$bin/emdbfs" -V 2>/dev/null | tr '\n' ' ')"

if [ "${FILES:-100000}" != 0 ]; then
	if [ -c /dev/fuse ] && [ -r /dev/fuse ]; then
		mkdir "$work/store.parent" "$work/mnt" "$work/native"
		outside=$(stat -c %d "$work/mnt")
		"$bin/emdbfs" "$work/store.parent/store" "$work/mnt" -f ${MOUNT_OPTIONS:+-o "$MOUNT_OPTIONS"} &
		daemon=$!
		tries=0
		while [ "$(stat -c %d "$work/mnt")" = "$outside" ]; do
			kill -0 "$daemon" 2>/dev/null || { daemon=; echo "run.sh: emdbfs did not start" >&2; exit 1; }
			tries=$((tries + 1))
			[ $tries -lt 600 ] || { echo "run.sh: not mounted after a minute" >&2; exit 1; }
			sleep 0.1
		done
		# shellcheck disable=SC2086
		"$bin/bench/fsbench" $json -n "${FILES:-100000}" -s "${SIZE:-200}" -t "${THREADS:-1,4}" \
			-r "${ROUNDS:-3}" -l "${LARGE_MB:-256}" ${FSYNC_FILES:+-f "$FSYNC_FILES"} \
			mount="$work/mnt" native="$work/native" ${OTHERS:-}
		say
		say "daemon:  $(awk '/^(VmHWM|RssAnon)/ { printf "%s %d MB  ", $1, $2 / 1024 }' "/proc/$daemon/status")"
	else
		say "no /dev/fuse: the mount is left out"
	fi
fi

if [ "${RECORDS:-5000000}" != 0 ]; then
	say
	# shellcheck disable=SC2086
	"$bin/bench/engine" $json -n "${RECORDS:-5000000}" ${ENGINE_ARGS:-} "$work"
fi
