#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fails when something that people use has no place in the manual: a function of core/emdb.h in section 3, a
# command of emdb in emdb(1), an option of emdbfs in emdbfs(8); and when a page refers to one that is not ours to
# refer to. The tests that emdb-guarantees(7) names must exist and be run by the targets that it names, and each
# guarantee must name one.
set -u
cd "$(dirname "$0")/.."
man=packaging/man
fail=0
complain() {
	echo "check-docs: $*" >&2
	fail=1
}

# Names directly before an opening parenthesis, in declarations that begin with EMDB_API.
for f in $(sed -n '/^EMDB_API/,/;/p' core/emdb.h | grep -oE '\bemdb_[a-z0-9_]+\(' | tr -d '(' | sort -u); do
	grep -qE "^\.(Fo|Fn) $f\b" $man/*.3 || complain "$f() is in no page of section 3"
done
for c in $(grep -v "^int" tools/cli.h | grep -oE "\bcmd_[a-z]+" | sort -u); do
	grep -qE "^\.It Cm ${c#cmd_}\b" $man/emdb.1 || complain "emdb ${c#cmd_} is not in emdb.1"
done
for o in $(sed -n 's/^\t{ "\([a-z_]*\)", \(SET\|CLEAR\|WORD\|VALUE\), 0, set_.*/\1/p; s/^\t{ "\([a-z_]*\)", \(SET\|CLEAR\), FLAG.*/\1/p' \
	fuse/options.c | sort -u); do
	grep -qE "^\.(It|Cm|Fl).*\b$o\b" $man/emdbfs.8 || complain "emdbfs -o $o is not in emdbfs.8"
done
for r in $(grep -hoE '^\.Xr emdb[a-z-]* [0-9]' $man/* | awk '{print $2 "." $3}' | sort -u); do
	[ -e "$man/$r" ] || complain "a page refers to $r, which does not exist"
done
guarantees=$man/emdb-guarantees.7
for t in $(grep -oE '^\.Pa [^ ]+\.(c|py)\b' $guarantees | awk '{print $2}' | sort -u); do
	case $t in
	unit/test_*.c) grep -qE '^TEST\(' "tests/$t" 2>/dev/null || complain "$guarantees: $t is no unit test" ;;
	integration/test_*.py) grep -qE '^def test_' "tests/$t" 2>/dev/null || complain "$guarantees: $t has no test" ;;
	crash/crash_*.c | fuzz/fuzz_*.c) [ -e "tests/$t" ] || complain "$guarantees: $t does not exist" ;;
	*) complain "$guarantees: $t is nothing that a target runs" ;;
	esac
done
for n in 1 2 3 4 5 6 7 8 9 10; do
	sed -n "/^\.It Sy I$n /,/^\.\(It Sy I\|Ss\)/p" $guarantees | grep -qE '^\.Pa (unit|crash|integration)/' ||
		complain "$guarantees: no test is named for I$n"
done
for m in $(grep -oE '^\.Cm make [a-z-]+' $guarantees | awk '{print $3}' | sort -u); do
	grep -qE "^$m:|^[a-z -]*\b$m:" Makefile || complain "$guarantees: there is no make $m"
done
[ $fail = 0 ] && echo "check-docs: ok"
exit $fail
