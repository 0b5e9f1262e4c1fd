#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""peers.py: this library beside other key-value stores, in one run.

    tools/bench/peers.py [-n RECORDS] [-r ROUNDS] [-e ENGINE,...] [-o DIR] [--json] [-- OPTIONS] [DIR]

Runs build/bench/peers for each of its engines and, where cargo is there, the program in
tools/bench/peers/ for the stores in Rust; every engine once in each round, each time in a new
directory below DIR. Prints a table of medians and of how many times as good the best of emdb is
as the best peer; writes peers.jsonl (every figure) and peers.svg below the directory of -o
(default build/bench). OPTIONS go to the engines (see build/bench/peers -h). Never fails because
of a number.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
OURS = ("emdb", "emdb-ordered")
LESS_IS_BETTER = ("B/rec", "s")


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def rust_program(build):
    """The engines in Rust; None, with the reason told, when they cannot be had."""
    cargo = shutil.which("cargo")
    if cargo is None:
        say("peers.py: no cargo: the stores in Rust are left out")
        return None
    done = subprocess.run([cargo, "build", "-q", "--release", "--locked", "--manifest-path",
                           TOP / "tools/bench/peers/Cargo.toml", "--target-dir", build / "peers"],
                          stdout=sys.stderr, check=False)
    if done.returncode:
        say("peers.py: cargo could not build them: the stores in Rust are left out")
        return None
    return build / "peers/release/peers"


def engines(build):
    """[(name, settings, program)], ours first."""
    found = []
    for program in (build / "bench/peers", rust_program(build)):
        if program is None:
            continue
        listed = subprocess.run([program, "-L"], stdout=subprocess.PIPE, text=True, check=True).stdout
        found += [(*line.split("\t"), program) for line in listed.splitlines()]
    for missing, package in (("lmdb", "liblmdb-dev"), ("rocksdb", "librocksdb-dev")):
        if missing not in [e[0] for e in found]:
            say(f"peers.py: {missing} is left out: it takes the package {package} and make bench-build")
    return found


def measure(name, program, options, where):
    """The figures of one run; fewer when the engine failed."""
    with subprocess.Popen([program, *options, name, where], stdout=subprocess.PIPE, text=True) as run:
        rows = [json.loads(line) for line in run.stdout]
    if run.returncode:
        say(f"peers.py: {name} ended with status {run.returncode}")
        for left in pathlib.Path(where).glob(f"peers.{name}.{run.pid}"):
            shutil.rmtree(left, ignore_errors=True)
    return rows


def human(v):
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if v >= limit:
            return f"{v / (1e6 if unit == 'M' else 1e3):.2f}{unit}"
    return f"{v:.0f}" if v >= 100 else f"{v:.2f}"


class Table:
    def __init__(self, figures):
        self.rows = list(dict.fromkeys((f["row"], f["unit"]) for f in figures))
        self.engines = list(dict.fromkeys(f["engine"] for f in figures))
        self.values = {}
        for f in figures:
            self.values.setdefault((f["row"], f["engine"]), []).append(f["value"])

    def median(self, row, engine):
        values = self.values.get((row, engine))
        return statistics.median(values) if values else None

    def best(self, row, unit, among):
        """(value, engine) of the best of some engines, or None."""
        have = [(self.median(row, e), e) for e in among if self.median(row, e) is not None]
        return None if not have else min(have) if unit in LESS_IS_BETTER else max(have)

    def ratio(self, row, unit):
        """How many times as good the best of ours is as the best peer, and that peer."""
        ours = self.best(row, unit, [e for e in self.engines if e in OURS])
        peer = self.best(row, unit, [e for e in self.engines if e not in OURS])
        if not ours or not peer or not ours[0] or not peer[0]:
            return None
        return (peer[0] / ours[0] if unit in LESS_IS_BETTER else ours[0] / peer[0]), peer[1]

    def print(self):
        width = max(len(r) + len(u) for r, u in self.rows) + 3
        print(" " * width + "".join(f"{e:>15}" for e in self.engines) + "   ours / best peer")
        for row, unit in self.rows:
            cells = [self.median(row, e) for e in self.engines]
            ratio = self.ratio(row, unit)
            print(f"{row + ', ' + unit:<{width}}" +
                  "".join(f"{'-' if c is None else human(c):>15}" for c in cells) +
                  (f"   {ratio[0]:.2f} ({ratio[1]})" if ratio else ""))

    def plot(self, out, note):
        """Each engine in each row as times as good as emdb (ordered, where that is all there is)."""
        lines = []
        for row, unit in self.rows:
            base = self.median(row, "emdb") or self.median(row, "emdb-ordered")
            for engine in self.engines:
                values = self.values.get((row, engine))
                if not values or not base or not all(values):
                    continue
                times = [base / v if unit in LESS_IS_BETTER else v / base for v in values]
                lines.append(json.dumps({"row": row, "series": engine, "value": statistics.median(times),
                                         "min": min(times), "max": max(times)}))
        plot = TOP / "tools/bench/plot.py"
        subprocess.run([sys.executable, plot, out, "--title", "Key-value stores beside emdb", "--note", note,
                        "--unit", "times as good as emdb (longer is better)", "--log", "--line", "1"],
                       input="\n".join(lines), text=True, check=True)


def main():
    parser = argparse.ArgumentParser(description="this library beside other key-value stores")
    parser.add_argument("-n", type=int, default=5000000, help="records (5000000)")
    parser.add_argument("-r", type=int, default=3, help="rounds (3)")
    parser.add_argument("-e", help="only these engines, with commas between")
    parser.add_argument("-o", type=pathlib.Path, help="where peers.jsonl and peers.svg go")
    parser.add_argument("--json", action="store_true", help="the figures on stdout instead of a table")
    parser.add_argument("dir", nargs="?", default=None, help="where the stores are made (build/)")
    argv, options = sys.argv[1:], []
    if "--" in argv:
        argv, options = argv[:argv.index("--")], argv[argv.index("--") + 1:]
    args = parser.parse_args(argv)
    build = pathlib.Path(os.environ.get("EMDB_BIN", TOP / "build"))
    out = args.o or build / "bench"
    chosen = [e for e in engines(build) if not args.e or e[0] in args.e.split(",")]
    figures = []
    with open(out / "peers.jsonl", "w", encoding="utf-8") as f:
        for round_ in range(args.r):
            for name, _, program in chosen:
                say(f"round {round_ + 1} of {args.r}: {name}")
                for figure in measure(name, program, ["-n", str(args.n), *options], args.dir or build):
                    figure["round"] = round_
                    figures.append(figure)
                    f.write(json.dumps(figure) + "\n")
                    if args.json:
                        print(json.dumps(figure), flush=True)
    if not figures:
        sys.exit("peers.py: nothing was measured")
    table = Table(figures)
    note = f"{args.n:,} records of 24 + 150 bytes, medians of {args.r} rounds, whiskers from worst to best"
    if not args.json:
        print(note)
        for name, settings, _ in chosen:
            print(f"  {name:<15} {settings}")
        print()
        table.print()
    table.plot(out / "peers.svg", note)
    say(f"peers.py: every figure is in {out / 'peers.jsonl'}, the plot in {out / 'peers.svg'}")


if __name__ == "__main__":
    main()
