#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures the mount, the host's own file system on the same disk, tmpfs, a bare FUSE file system and
# gocryptfs, side by side in one run of about half an hour.
#
#	make bench                      everything; tables and pictures in build/bench/
#	make bench BENCH_ARGS=--quick   the same in three minutes, for a look
#
# Writes results.jsonl, results.md, results.svg, results.roundtrips.md (requests for each operation) and
# mount.stat.json (the daemon's counters) to OUT and prints the tables; make bench-publish puts them into
# README. As root it lets the kernel do io_uring meanwhile, drops caches before what is called cold, and
# mounts its own tmpfs; otherwise those parts are left out. Never fails because of a number; what cannot be
# measured is said and left out.
#
# From the environment, defaults in parentheses: FILES (8000), SIZES (200 4096), THREADS (1,4,16), ROUNDS (3),
# FSYNC_FILES (400), LARGE_MB (1024; 0: none), LARGE_ROUNDS (5), TREE (10000 files for tar, cp, git; 0: none of
# the programs), MANY (100000 files for ls -l and rm -rf), TREE_ROUNDS (2), TARGETS (mount mount-dev bare bare-dev
# native ext4 tmpfs gocryptfs; ext4 is one with a journal, of EXT4_GB (8), where the native one has none; also
# emdbfs-aes and emdbfs-chacha, the mount of an encrypted store), PHASES (of fsbench, its -p; all), MOUNT_OPTIONS
# (of the mount), REST_MS (1000: for how long its daemon must do nothing to be taken for done), OTHERS ("NAME=DIR ..."
# to measure as well), BENCH_DIR (where stores and directories are made: one disk for all; build/), OUT, RAW (1: only
# results.jsonl, no tables), EMDB_BIN (the programs).
set -u

# Read whole before anything runs: it may be edited meanwhile.
{
top=$(cd "$(dirname "$0")/../.." && pwd)
bench=$top/tools/bench
bin=${EMDB_BIN:-$top/build}
out=${OUT:-$bin/bench}
switch=/sys/module/fuse/parameters/enable_uring
targets=${TARGETS:-mount mount-dev bare bare-dev native ext4 tmpfs gocryptfs}

if [ "${1:-}" = --quick ]; then
	: "${FILES:=2000}" "${SIZES:=200}" "${THREADS:=1,4}" "${ROUNDS:=2}" "${FSYNC_FILES:=100}"
	: "${REST_MS:=300}" "${LARGE_MB:=128}" "${LARGE_ROUNDS:=1}" "${TREE:=1000}" "${MANY:=5000}" "${TREE_ROUNDS:=1}"
elif [ $# -gt 0 ]; then
	echo "usage: run.sh [--quick]; see the head of $0" >&2
	exit 2
fi

for program in emdbfs bench/fsbench bench/nullfs; do
	[ -x "$bin/$program" ] || { echo "run.sh: no $bin/$program: make bench builds it" >&2; exit 1; }
done
mkdir -p "$out"
work=$(mktemp -d "${BENCH_DIR:-$bin}/bench.XXXXXX") || exit 1
ram=$(mktemp -d /dev/shm/bench.XXXXXX) || exit 1
switched= child= loop= mounts=() pids=() dirs=()

finish() {
	trap - EXIT
	local m
	# What still works in the mounts would keep them.
	[ -z "$child" ] || { kill "$child" && wait "$child"; } 2>/dev/null
	for m in "${mounts[@]}"; do
		umount "$m" 2>/dev/null || fusermount3 -u "$m" 2>/dev/null || fusermount3 -u -z "$m" 2>/dev/null || umount -l "$m"
	done
	[ ${#pids[@]} -eq 0 ] || wait "${pids[@]}" || echo "run.sh: a daemon ended with an error" >&2
	[ -z "$loop" ] || losetup -d "$loop"
	[ -z "$switched" ] || echo "$switched" >"$switch"
	rm -rf --one-file-system "$work" "$ram"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# run COMMAND...: bash looks at signals only when what it waits for in the foreground has ended.
run() {
	"$@" &
	child=$!
	wait "$child"
	local status=$?
	child=
	return $status
}

wanted() {
	case " $targets " in *" $1 "*) return 0 ;; esac
	return 1
}

# start NAME MS COMMAND...: a daemon that says when it is mounted; with nothing to do for MS it rests.
start() {
	local name=$1 ms=$2 tries=0
	shift 2
	"$@" >"$work/$name.log" 2>&1 &
	pids+=($!)
	until grep -q "mounted at\|mounted and ready" "$work/$name.log"; do
		tries=$((tries + 1))
		if [ $tries -gt 600 ] || ! kill -0 "${pids[-1]}" 2>/dev/null; then
			echo "run.sh: $name did not start: $(tail -n 3 "$work/$name.log")" >&2
			return 1
		fi
		sleep 0.05
	done
	mounts+=("$work/$name")
	dirs+=("$name@${pids[-1]}:$ms=$work/$name")
}

# emdbfs_at NAME OPTIONS, bare_at NAME OPTIONS
# The store looks for dead segments four times a second, and once a second whether a checkpoint is due;
# the others do nothing by themselves.
emdbfs_at() {
	mkdir "$work/$1"
	start "$1" "${REST_MS:-1000}" "$bin/emdbfs" "$work/$1.store" "$work/$1" -f ${2:+-o "$2"}
}
bare_at() {
	mkdir "$work/$1"
	start "$1" 0 "$bin/bench/nullfs" "$work/$1" ${2:+-o "$2"} -s "$work/$1.disk"
}

# encrypted_at NAME CIPHER
encrypted_at() {
	echo password >"$work/$1.pass"
	emdbfs_at "$1" "${MOUNT_OPTIONS:+$MOUNT_OPTIONS,}encrypt,cipher=$2,passfile=$work/$1.pass"
}

gocryptfs_at() {
	command -v gocryptfs >/dev/null || { echo "run.sh: no gocryptfs: left out (apt-get install gocryptfs)" >&2; return 1; }
	mkdir "$work/$1" "$work/$1.store"
	echo password >"$work/$1.pass"
	gocryptfs -q -init -scryptn 10 -passfile "$work/$1.pass" "$work/$1.store" >&2 &&
		start "$1" 0 gocryptfs -fg -passfile "$work/$1.pass" "$work/$1.store" "$work/$1"
}

# Whether the native file system is ext4 without a journal.
no_journal() {
	local type device
	read -r type device < <(df -T "$work" | awk 'NR == 2 { print $2, $1 }')
	[ "$type" = ext4 ] && ! ls -d "/proc/fs/jbd2/$(basename "$(readlink -f "$device")")"-* >/dev/null 2>&1
}

# An ext4 as it is everywhere else, in a file on the same disk: one without a journal looks, for every
# inode it makes, through those that were deleted in the last minutes.
ext4_at() {
	no_journal || return 0
	[ "$(id -u)" = 0 ] || { echo "run.sh: no root: no ext4 with a journal" >&2; return 1; }
	mkdir "$work/$1"
	fallocate -l "${EXT4_GB:-8}G" "$work/$1.image" && loop=$(losetup -f --show --direct-io=on "$work/$1.image") &&
		mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$loop" && mount "$loop" "$work/$1" ||
		{ echo "run.sh: no ext4 with a journal: left out" >&2; return 1; }
	mounts+=("$work/$1")
	dirs+=("$1=$work/$1")
}

tmpfs_at() {
	mkdir "$work/$1"
	mount -t tmpfs tmpfs "$work/$1" 2>/dev/null || { mkdir "$ram/$1"; dirs+=("$1=$ram/$1"); return 0; }
	mounts+=("$work/$1")
	dirs+=("$1=$work/$1")
}

if [ -w "$switch" ] && [ "$(cat "$switch")" = N ]; then
	switched=N
	echo Y >"$switch"
fi
if [ -r /dev/fuse ] && [ -w /dev/fuse ]; then
	wanted mount && emdbfs_at mount "${MOUNT_OPTIONS:-}"
	transport=$(grep -q "over io_uring" "$work/mount.log" 2>/dev/null && echo io_uring || echo /dev/fuse)
	if [ "$transport" = io_uring ]; then
		wanted mount-dev && emdbfs_at mount-dev "${MOUNT_OPTIONS:+$MOUNT_OPTIONS,}no_io_uring"
		wanted bare && bare_at bare ""
		wanted bare-dev && bare_at bare-dev no_io_uring
	else
		echo "run.sh: no io_uring: $(grep -o "requests go through.*" "$work/mount.log")" >&2
		wanted bare && bare_at bare ""
	fi
	wanted emdbfs-aes && encrypted_at emdbfs-aes aes-256-gcm
	wanted emdbfs-chacha && encrypted_at emdbfs-chacha chacha20-poly1305
	wanted gocryptfs && gocryptfs_at gocryptfs
else
	transport=none
	echo "run.sh: no /dev/fuse: without any mount" >&2
fi
wanted native && mkdir "$work/native" && dirs+=("native=$work/native")
wanted ext4 && ext4_at ext4
wanted tmpfs && tmpfs_at tmpfs
for other in ${OTHERS:-}; do
	dirs+=("$other")
done

results=$out/results.jsonl
printf '{"bench":"machine","cpu":"%s","cpus":%d,"kernel":"%s","disk":"%s","version":"%s","transport":"%s","gocryptfs":"%s","date":"%s","load":"%s"}\n' \
	"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)" \
	"$(df -T "$work" | awk -v journal="$(no_journal && echo " without a journal")" 'NR == 2 { print $2 journal " on " $1 }')" "$("$bin/emdbfs" -V)" "$transport" \
	"$(gocryptfs -version 2>/dev/null | cut -d';' -f1)" "$(date +%F)" "$(cut -d' ' -f1-3 /proc/loadavg)" >"$results"

fsbench() {
	echo "run.sh: $(date +%T) fsbench $*" >&2
	run "$bin/bench/fsbench" -j ${PHASES:+-p "$PHASES"} "$@" "${dirs[@]}" >>"$results" || echo "run.sh: fsbench $* failed" >&2
}

if [ "${FILES:=8000}" != 0 ]; then
	for size in ${SIZES:-200 4096}; do
		fsbench -n "$FILES" -s "$size" -t "${THREADS:-1,4,16}" -r "${ROUNDS:-3}" -f "${FSYNC_FILES:-400}"
	done
fi
if [ "${LARGE_MB:=1024}" != 0 ]; then
	fsbench -n 0 -l "$LARGE_MB" -t 1 -r "${LARGE_ROUNDS:-5}"
fi
if [ "${TREE:=10000}" != 0 ]; then
	echo "run.sh: $(date +%T) programs" >&2
	mkdir "$ram/source"
	run "$bench/toolbench.py" -n "$TREE" -m "${MANY:-100000}" -r "${TREE_ROUNDS:-2}" --source "$ram/source" "${dirs[@]}" \
		>>"$results" || echo "run.sh: toolbench failed" >&2
fi
printf '{"bench":"machine","minutes":%d}\n' $(((SECONDS + 30) / 60)) >>"$results"
[ -z "${RAW:-}" ] || exit 0
for m in "${!mounts[@]}"; do
	[ "${mounts[$m]}" = "$work/mount" ] || continue
	"$bin/emdb" stat --json "$work/mount" >"$out/mount.stat.json"
	"$bench/roundtrips.py" "$work/mount" "$bin/emdb" >"$out/results.roundtrips.md"
done
echo "run.sh: $(date +%T) done" >&2
"$bench/report.py" "$results" --markdown "$out/results.md" --svg "$out/results.svg" && cat "$out/results.md"
echo
echo "Results: $out/results.jsonl, .md, .svg; below their aims:"
"$bench/report.py" "$results" --missed
exit 0
}
