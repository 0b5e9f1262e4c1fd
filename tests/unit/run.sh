#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh LABEL BINARY...: runs test binaries, as many at once as there are processors, shows the
# output of those that fail, and ends with "LABEL: N passed, N failed". Exit 77 counts as skipped.
# With the label valgrind they run under it.
set -u
label=$1
shift
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# Older ThreadSanitizer runtimes cannot place their shadow under full address randomisation.
wrap=()
if [ "${label#*tsan}" != "$label" ] && setarch -R true 2>/dev/null; then
	wrap=(setarch -R)
elif [ "$label" = valgrind ]; then
	wrap=(valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite)
fi

run_one() {
	local name start
	name=$(basename "$1")
	start=$(date +%s%N)
	timeout "${TEST_TIMEOUT:-300}" "${wrap[@]}" "$1" >"$logs/$name.log" 2>&1 </dev/null
	echo $? $((($(date +%s%N) - start) / 1000000)) >"$logs/$name.rc"
}

for t in "$@"; do
	while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-$(nproc)}" ]; do
		wait -n
	done
	run_one "$t" &
done
wait

passed=0 failed=0 skipped=0
for t in "$@"; do
	name=$(basename "$t")
	read -r rc ms <"$logs/$name.rc"
	last=$(tail -n 1 "$logs/$name.log")
	if [ "$rc" = 0 ] && [ "${last#PASS }" != "$last" ]; then
		passed=$((passed + 1))
		printf '  ok      %-28s %4s tests %6s ms\n' "$name" "${last#PASS }" "$ms"
	elif [ "$rc" = 77 ]; then
		skipped=$((skipped + 1))
		printf '  skipped %-28s %s\n' "$name" "$last"
	else
		failed=$((failed + 1))
		printf '  FAILED  %-28s exit %s\n' "$name" "$rc"
		sed 's/^/    | /' "$logs/$name.log"
	fi
done
echo "$label: $passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ $failed = 0 ]
