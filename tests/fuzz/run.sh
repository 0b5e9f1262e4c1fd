#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh DIR SECONDS: runs every fuzz target of DIR that long, starting from its corpus. What a
# run finds new stays in DIR; a crash leaves its input there and fails.
set -u
dir=$1 seconds=$2 passed=0 failed=0
corpus=$(cd "$(dirname "$0")" && pwd)/corpus
for t in "$dir"/fuzz_*; do
	[ -x "$t" ] && [ -f "$t" ] || continue
	case $t in *.[od]) continue ;; esac
	name=$(basename "$t")
	name=${name#fuzz_}
	new=$dir/corpus-$name
	mkdir -p "$new"
	args=("$new")
	[ -d "$corpus/$name" ] && args+=("$corpus/$name")
	if "$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="$dir/$name-" "${args[@]}" >"$t.log" 2>&1; then
		passed=$((passed + 1))
		printf '  ok      %-28s %s runs\n' "$name" \
			"$(sed -n 's/^stat::number_of_executed_units: *//p' "$t.log")"
	else
		failed=$((failed + 1))
		printf '  FAILED  %s\n' "$name"
		tail -n 60 "$t.log" | sed 's/^/    | /'
	fi
done
echo "fuzz: $passed passed, $failed failed"
[ $failed = 0 ]
