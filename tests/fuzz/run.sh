#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh DIR SECONDS [CPU]: runs every fuzz target of DIR that long, starting from its corpus; again
# and again until it had CPU seconds of CPU time, if they are given. What a run finds new stays in
# DIR; a crash leaves its input there and fails.
set -u
dir=$1 seconds=$2 want=${3:-0} passed=0 failed=0
corpus=$(cd "$(dirname "$0")" && pwd)/corpus
TIMEFORMAT='%U %S'

# Adds to runs and cpu.
run_once() {
	local t=$1 name=$2 used ok=true
	local args=("$dir/corpus-$name")
	mkdir -p "${args[0]}"
	[ -d "$corpus/$name" ] && args+=("$corpus/$name")
	used=$({ time "$t" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="$dir/$name-" "${args[@]}" >"$t.log" 2>&1; } 2>&1) || ok=false
	cpu=$(awk -v sum="$cpu" '{print sum + $1 + $2}' <<<"$used")
	runs=$((runs + $(sed -n 's/^stat::number_of_executed_units: *//p' "$t.log") + 0))
	$ok
}

for t in "$dir"/fuzz_*; do
	[ -x "$t" ] && [ -f "$t" ] || continue
	case $t in *.[od]) continue ;; esac
	name=$(basename "$t")
	name=${name#fuzz_}
	runs=0 cpu=0 ok=true
	while run_once "$t" "$name" || { ok=false; false; }; do
		[ "${cpu%.*}" -lt "$want" ] || break
	done
	if $ok; then
		passed=$((passed + 1))
		printf '  ok      %-12s %11s executions, %5.0f s CPU, crashes: 0\n' "$name" "$runs" "$cpu"
	else
		failed=$((failed + 1))
		printf '  FAILED  %s\n' "$name"
		tail -n 60 "$t.log" | sed 's/^/    | /'
	fi
done
echo "fuzz: $passed passed, $failed failed"
[ $failed = 0 ]
