#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fails when an include goes against the architecture:
#   - core/ includes nothing of FUSE and nothing outside core/;
#   - fuse/ and tools/ include core/emdb.h and nothing else of core/;
#   - inside core/ includes go downwards only, in the order below;
#   - system calls stay in io*.c, allocation behind base.h, and core/ neither prints nor exits.
set -u
cd "$(dirname "$0")/.."

# Lowest first. Modules on one line may include each other's headers.
order='
emdb
base
error banned
sync guard
io
codec
format extent
crypto keyslot sealed
epoch
manifest
segment journal
index_page index_hash
index_ord
ttl
store view entry object objtab kv node file rename xattr expire namespace iter range order group stream apply
txn
recovery checkpoint
compact
storedir snapshot backup rollback keys convert
async
damage db check appdir
repair scrub
'

fail=0
complain() {
	echo "check-layers: $*" >&2
	fail=1
}

declare -A level
n=0
while read -r line; do
	for m in $line; do
		level[$m]=$n
	done
	n=$((n + 1))
done <<<"$order"

# The module that a file name without its ending belongs to: journal_sync and journal_i are journal.
module() {
	local m=$1
	while [ -z "${level[$m]:-}" ] && [ "${m%_*}" != "$m" ]; do
		m=${m%_*}
	done
	echo "$m"
}

includes() {
	sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1/p' "$1"
}

shopt -s nullglob
for f in core/*.[ch]; do
	mod=$(basename "${f%.*}")
	mod=$(module "$mod")
	[ -n "${level[$mod]:-}" ] || { complain "$f: not in the order of tests/check-layers.sh"; continue; }
	for inc in $(includes "$f"); do
		case $inc in
		fuse*.h | fuse/* | tools/* | tests/*) complain "$f includes $inc" ;;
		esac
		h=${inc#core/}
		[ -e "core/$h" ] || continue
		other=${h%.h}
		other=$(module "$other")
		[ -n "${level[$other]:-}" ] || { complain "$f includes $inc, which has no level"; continue; }
		[ "${level[$other]}" -le "${level[$mod]}" ] || complain "$f includes $inc, which lies above it"
	done
done

for f in fuse/*.[ch] tools/*.[ch] tools/bench/*.[ch]; do
	for inc in $(includes "$f"); do
		case $inc in
		core/emdb.h) ;;
		core/*) complain "$f includes $inc: only core/emdb.h is public" ;;
		esac
	done
done

# grep for calls, outside comments as far as lines that start with * or /* go.
calls() {
	local pattern=$1
	shift
	grep -nE "(^|[^_a-zA-Z0-9.>])($pattern)[[:space:]]*\(" "$@" /dev/null |
		grep -vE '^[^:]*:[0-9]+:[[:space:]]*(\*|/\*)'
}

core_c=(core/*.c)
if bad=$(calls 'printf|fprintf|puts|perror|exit|_exit|syslog' "${core_c[@]}"); then
	complain "core/ prints or exits:"$'\n'"$bad"
fi
if bad=$(calls 'malloc|calloc|realloc|free|strdup|strndup|asprintf' $(ls "${core_c[@]}" | grep -v '^core/base\.c$')); then
	complain "core/ allocates without base.h:"$'\n'"$bad"
fi
if bad=$(calls 'open|openat|pread|pwrite|fsync|fdatasync|mmap|rename|renameat|unlink|unlinkat|clock_gettime|getrandom' \
	$(ls "${core_c[@]}" | grep -v '^core/io')); then
	complain "system call outside io.c:"$'\n'"$bad"
fi

[ $fail = 0 ] && echo "check-layers: ok"
exit $fail
