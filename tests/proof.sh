#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# proof.sh BUILD PART...: runs the tests that count, in sizes from the environment, one after the
# other, and prints their figures in one table. Fails when a test does, when anything was lost, or
# when a test gives no figure. The whole outputs stay in BUILD/proof.
#
#   crash    STATES crashes of simulated disks
#   kill     KILLS kills of processes that use the library
#   daemon   KILLS kills of the daemon under load, and while it starts
#   faults   every call and allocation below every public function fails
#   damage   MUTATIONS random ones, and every region of every file of sample stores
#   fuzz     every target for FUZZ_CPU seconds of its own CPU time
#
# SEED repeats one that failed.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1 logs=$1/proof
shift
mkdir -p "$logs"

run_part() {
	local bin=$build/release/tests
	case $1 in
	crash) "$bin/crash/crash_store" ;;
	kill) "$bin/unit/test_kill" ;;
	daemon) EMDB_BIN=$(realpath "$build") ${PYTEST:-python3 -m pytest} -q -s -p no:cacheprovider ${SEED:+--seed "$SEED"} \
		tests/integration/test_kill.py -k test_daemon_killed ;;
	faults) EMDB_LONG=1 "$bin/unit/test_faults" ;;
	damage) EMDB_LONG=1 "$bin/unit/test_damage" ;;
	fuzz) tests/fuzz/run.sh "$build/fuzz/tests/fuzz" 60 "$FUZZ_CPU" ;;
	*) echo "no such part: $1" && false ;;
	esac
}

# What was counted ends in what must be none.
figures() {
	sed -nE 's/^(\.| *ok +)//; /(lost|wrong served|crashes): [0-9]+$/p' "$1"
}

failed=0
printf '%-8s %-7s %7s  %s\n' part result 'CPU s' figures
for part in "$@"; do
	log=$logs/$part.log
	TIMEFORMAT='%U %S'
	used=$({ time run_part "$part" >"$log" 2>&1 </dev/null; } 2>&1) && result=ok || result=FAILED
	found=$(figures "$log")
	if [ -z "$found" ] || grep -qvE ': 0$' <<<"$found"; then
		result=FAILED
	fi
	[ $result = ok ] || failed=1
	seed=$(sed -nE 's/^\.?seed:? (repeat with --seed )?([0-9]+)$/\2/p' "$log" | sort -u | paste -sd,)
	[ -z "$seed" ] || found+=$'\n'"seed $seed"
	while IFS= read -r line; do
		printf '%-8s %-7s %7.0f  %s\n' "$part" $result "$(awk '{print $1 + $2}' <<<"$used")" "$line"
	done <<<"$found"
	[ $result = ok ] || tail -n 40 "$log" | sed 's/^/    | /'
done
[ $failed = 0 ] && echo "proof: nothing lost" || { echo "proof: FAILED"; false; }
