#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""peers.py: this library beside other key-value stores, in one run.

    tools/bench/peers.py [-n RECORDS] [-r ROUNDS] [-e ENGINE,...] [-o DIR] [--json] [-- OPTIONS] [DIR]
    tools/bench/peers.py --publish DIR

Runs build/bench/peers for each of its engines and, where cargo is there, the program in
tools/bench/peers/ for the stores in Rust; every engine once in each round, each time in a new
directory below DIR. Prints a table of medians and of how many times as good emdb is as each peer;
writes peers.jsonl (every figure) and peers.svg below the directory of -o (default build/bench).
--publish puts what is in such a directory into README.md and tools/bench/peers.{jsonl,md,svg}.
OPTIONS go to the engines (see build/bench/peers -h). What cargo builds is kept in PEERS_CACHE
(default ~/.cache/emdbfs-peers), for all clones, as it takes minutes. Never fails because
of a number.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import report

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
OURS = ("emdb", "emdb-ordered")
UNORDERED = ("emdb", "emdb-rs")  # compared with each other; the others have ranges, as emdb-ordered
LESS_IS_BETTER = ("B/rec", "s")
BEGIN = "<!-- make bench-peers-publish: begin -->\n"
END = "<!-- make bench-peers-publish: end -->\n"


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def rust_program():
    """The engines in Rust; None, with the reason told, when they cannot be had."""
    cargo = shutil.which("cargo")
    if cargo is None:
        say("peers.py: no cargo: the stores in Rust are left out")
        return None
    cache = pathlib.Path(os.environ.get("PEERS_CACHE") or
                         pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "emdbfs-peers").expanduser()
    done = subprocess.run([cargo, "build", "-q", "--release", "--locked", "--manifest-path",
                           TOP / "tools/bench/peers/Cargo.toml", "--target-dir", cache],
                          stdout=sys.stderr, check=False)
    if done.returncode:
        say("peers.py: cargo could not build them: the stores in Rust are left out")
        return None
    return cache / "release/peers"


def engines(build):
    """[(name, settings, program)], ours first."""
    found = []
    for program in (build / "bench/peers", rust_program()):
        if program is None:
            continue
        listed = subprocess.run([program, "-L"], stdout=subprocess.PIPE, text=True, check=True).stdout
        found += [(*line.split("\t"), program) for line in listed.splitlines()]
    for missing, package in (("lmdb", "liblmdb-dev"), ("rocksdb", "librocksdb-dev")):
        if missing not in [e[0] for e in found]:
            say(f"peers.py: {missing} is left out: it takes the package {package} and make bench-build")
    return found


def output(*command):
    """What a command prints, on one line; "" when there is none."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False).stdout.strip()
    except OSError:
        return ""


def machine(build, where):
    """The first line of peers.jsonl: what the figures were taken on."""
    cpus = [line.partition(": ")[2] for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")]
    disk = output("df", "--output=fstype,source", where).split()[-2:]
    packages = [output("dpkg-query", "-W", "-f", "${Package} ${Version}", p) for p in ("liblmdb-dev", "librocksdb-dev")]
    return {"bench": "machine", "cpu": cpus[0] if cpus else os.uname().machine, "cpus": os.cpu_count(),
            "memory_gib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30,
            "kernel": os.uname().release, "disk": " on ".join(disk), "version": output(build / "emdb", "--version"),
            "packages": ", ".join(p for p in packages if p), "date": datetime.date.today().isoformat(),
            "load": " ".join(f"{v:.2f}" for v in os.getloadavg())}


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

    def ratio(self, row, unit, peer):
        """How many times as good the emdb that offers the same is as a peer; None: cannot be said."""
        ours = self.median(row, "emdb" if peer in UNORDERED else "emdb-ordered")
        theirs = self.median(row, peer)
        if not ours or not theirs:
            return None
        return theirs / ours if unit in LESS_IS_BETTER else ours / theirs

    def worst(self, row, unit):
        """(ratio, peer) where emdb does worst, or None."""
        have = [(self.ratio(row, unit, e), e) for e in self.engines if e not in OURS]
        return min(((r, e) for r, e in have if r), default=None)

    def print(self):
        width = max(len(r) + len(u) for r, u in self.rows) + 3
        print(" " * width + "".join(f"{e:>15}" for e in self.engines) + "   least: ours / peer")
        for row, unit in self.rows:
            cells = [self.median(row, e) for e in self.engines]
            worst = self.worst(row, unit)
            print(f"{row + ', ' + unit:<{width}}" +
                  "".join(f"{'-' if c is None else human(c):>15}" for c in cells) +
                  (f"   {worst[0]:.2f} ({worst[1]})" if worst else ""))

    def markdown_cell(self, row, unit, engine):
        value = self.median(row, engine)
        if value is None:
            return ""
        ratio = None if engine in OURS else self.ratio(row, unit, engine)
        if ratio is None:
            return human(value)
        return f"{human(value)} " + (f"**{ratio:.2f}**" if ratio >= 1 else f"_{ratio:.2f}_")

    def markdown(self):
        lines = ["| | unit | " + " | ".join(self.engines) + " |", "|---" * (len(self.engines) + 2) + "|"]
        lines += [f"| {row} | {unit} | " + " | ".join(self.markdown_cell(row, unit, e) for e in self.engines) + " |"
                  for row, unit in self.rows]
        return "\n".join(lines)

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


def note_of(figures):
    rounds = max(f["round"] for f in figures) + 1
    return f"{figures[0]['asked']:,} records of 24 + 150 bytes, medians of {rounds} rounds"


def publish(where):
    """What one run left in a directory, for everybody to read."""
    lines = [json.loads(line) for line in (where / "peers.jsonl").read_text(encoding="utf-8").splitlines()]
    figures = [f for f in lines if f["bench"] == "peers"]
    m = next(f for f in lines if f["bench"] == "machine")
    text = (f"{m['cpu']}, {m['cpus']} CPUs, {m['memory_gib']} GiB, Linux {m['kernel']}, {m['disk']}, {m['version']}, "
            f"{m['packages']}; {m['date']}, load before {m['load']}. {note_of(figures)}. Behind the figure of a peer: "
            "how many times as good emdb is in this row (emdb-ordered beside stores that have ranges, emdb beside "
            "emdb-rs, the crate, without them); **bold** is ahead, _italic_ is not.\n\n" + Table(figures).markdown() +
            "\n\n" + "\n".join(f"- {f['engine']}: {f['settings']}" for f in lines if f["bench"] == "engine") + "\n")
    here = TOP / "tools/bench"
    shutil.copy(where / "peers.jsonl", here / "peers.jsonl")
    shutil.copy(where / "peers.svg", here / "peers.svg")
    (here / "peers.md").write_text(text, encoding="utf-8")
    report.put_into(TOP / "README.md", text + "\n![key-value stores beside emdb](tools/bench/peers.svg)\n", BEGIN, END)


def run(args, chosen, build, out, options):
    """All rounds; what peers.jsonl has."""
    where = args.dir or build
    lines = [machine(build, where)]
    lines += [{"bench": "engine", "engine": name, "settings": settings} for name, settings, _ in chosen]
    for round_ in range(args.r):
        for name, _, program in chosen if round_ % 2 == 0 else chosen[::-1]:
            say(f"round {round_ + 1} of {args.r}: {name}")
            for figure in measure(name, program, ["-n", str(args.n), *options], where):
                figure["round"] = round_
                figure["asked"] = args.n
                lines.append(figure)
                if args.json:
                    print(json.dumps(figure), flush=True)
    with open(out / "peers.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    return [line for line in lines if line["bench"] == "peers"]


def main():
    parser = argparse.ArgumentParser(description="this library beside other key-value stores")
    parser.add_argument("-n", type=int, default=5000000, help="records (5000000)")
    parser.add_argument("-r", type=int, default=3, help="rounds (3)")
    parser.add_argument("-e", help="only these engines, with commas between")
    parser.add_argument("-o", type=pathlib.Path, help="where peers.jsonl and peers.svg go")
    parser.add_argument("--json", action="store_true", help="the figures on stdout instead of a table")
    parser.add_argument("--publish", type=pathlib.Path, metavar="DIR", help="what a run left there")
    parser.add_argument("dir", nargs="?", default=None, help="where the stores are made (build/)")
    argv, options = sys.argv[1:], []
    if "--" in argv:
        argv, options = argv[:argv.index("--")], argv[argv.index("--") + 1:]
    args = parser.parse_args(argv)
    if args.publish:
        publish(args.publish)
        return
    build = pathlib.Path(os.environ.get("EMDB_BIN", TOP / "build"))
    out = args.o or build / "bench"
    chosen = [e for e in engines(build) if not args.e or e[0] in args.e.split(",")]
    figures = run(args, chosen, build, out, options)
    if not figures:
        sys.exit("peers.py: nothing was measured")
    table = Table(figures)
    note = note_of(figures)
    if not args.json:
        print(note)
        for name, settings, _ in chosen:
            print(f"  {name:<15} {settings}")
        print()
        table.print()
    table.plot(out / "peers.svg", note + ", whiskers from worst to best")
    say(f"peers.py: every figure is in {out / 'peers.jsonl'}, the plot in {out / 'peers.svg'}")


if __name__ == "__main__":
    main()
