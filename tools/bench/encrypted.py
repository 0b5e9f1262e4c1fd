#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""encrypted.py: what encryption costs, in the mount and in the engine, beside gocryptfs.

    encrypted.py measure [--quick] [--out DIR]           # as make bench-encrypted does
    encrypted.py report RESULTS.jsonl [--markdown FILE] [--readme README.md]

One run of run.sh has the mount of a plain store, of one encrypted with each cipher, gocryptfs and the
native file system take turns; then the engine alone runs once with each store in every round, in
alternating order. Both write encrypted.jsonl in DIR (build/bench), of which report makes the tables: median
of the ratios of each round, with the smallest and the largest beside it.

From the environment as for run.sh: FILES, SIZES, THREADS, ROUNDS, LARGE_MB, LARGE_ROUNDS, BENCH_DIR,
EMDB_BIN; RECORDS (1000000) and ENGINE_ROUNDS (5) of the engine.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from report import Results, cell, human, put_into, table

TOP = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("EMDB_BIN") or TOP / "build")
BEGIN, END = "<!-- make bench-encrypted-publish: begin -->\n", "<!-- make bench-encrypted-publish: end -->\n"
CIPHERS = {"emdbfs-aes": ("AES", "aes-256-gcm"), "emdbfs-chacha": ("ChaCha", "chacha20-poly1305")}
PHASES = "read cold,read warm,overwrite,seq read cold,seq read warm"
SHOWN = ("create", *PHASES.split(",")[:3], "seq write", *PHASES.split(",")[3:])
DEFAULTS = {"FILES": 8000, "SIZES": "200 4096", "THREADS": "1,4", "ROUNDS": 5, "LARGE_MB": 1024, "LARGE_ROUNDS": 3,
            "RECORDS": 1000000, "ENGINE_ROUNDS": 5}
QUICK = {"FILES": 1000, "SIZES": "200", "THREADS": "1", "ROUNDS": 2, "LARGE_MB": 64, "LARGE_ROUNDS": 2,
         "RECORDS": 50000, "ENGINE_ROUNDS": 2}


# ---- Measuring ----


def measure_mounts(out, env):
    """run.sh's results.jsonl in out, as text."""
    env = {**env, "TARGETS": "mount gocryptfs native " + " ".join(CIPHERS), "PHASES": PHASES, "TREE": "0",
           "FSYNC_FILES": "1", "RAW": "1", "OUT": str(out)}
    subprocess.run([TOP / "tools/bench/run.sh"], env=env, check=True)
    return (out / "results.jsonl").read_text(encoding="utf-8")


def engine_once(records, cipher, where):
    """{(operation, unit): figure} of one run; what takes long is turned into a rate."""
    options = ["-j", "-r", "1", "-n", str(records), "-b", str(min(records, 50000)), "-p", str(max(records // 20, 2)),
               "-g", str(records // 5 + 1), "-d", str(max(records // 500, 4))]
    done = subprocess.run([BIN / "bench/engine", *options, *(["-e", cipher] if cipher else []), where], check=True,
                          stdout=subprocess.PIPE, text=True)
    rates = {}
    for row in map(json.loads, done.stdout.splitlines()):
        if row["unit"] in ("op/s", "rec/s"):
            rates[row["op"], row["unit"]] = row["median"]
        elif row["unit"] == "ms" and row["op"].startswith("open"):
            rates[row["op"], "per s"] = 1000 / row["median"]
    return rates


def measure_engine(config, where):
    """Lines like fsbench's, the stores' names in the place of directories."""
    stores = [("mount", None)] + [(name, cipher) for name, (_, cipher) in CIPHERS.items()]
    rates = {}
    for turn in range(int(config["ENGINE_ROUNDS"])):
        for name, cipher in stores if turn % 2 == 0 else reversed(stores):
            for key, rate in engine_once(int(config["RECORDS"]), cipher, where).items():
                rates.setdefault(key, {}).setdefault(name, []).append(rate)
        print(f"encrypted.py: engine, round {turn + 1} of {config['ENGINE_ROUNDS']}", file=sys.stderr)
    for (op, unit), of in rates.items():
        for name, values in of.items():
            yield json.dumps({"bench": "engine", "op": op, "dir": name, "threads": 1, "size": -1, "unit": unit,
                              "median": statistics.median(values), "min": min(values), "max": max(values),
                              "rates": values})


def measure(args):
    config = {key: os.environ.get(key) or str(value) for key, value in (QUICK if args.quick else DEFAULTS).items()}
    out = pathlib.Path(args.out or BIN / "bench")
    parts = out / "encrypted.parts"
    parts.mkdir(parents=True, exist_ok=True)
    where = os.environ.get("BENCH_DIR") or str(BIN)
    text = measure_mounts(parts, {**os.environ, **config})
    lines = list(measure_engine(config, where))
    result = out / "encrypted.jsonl"
    note = json.dumps({"bench": "machine", **json.loads(text.splitlines()[0]), **config})
    result.write_text("\n".join([note, *text.splitlines()[1:], *lines]) + "\n", encoding="utf-8")
    report(result, out / "encrypted.md", None)
    print((out / "encrypted.md").read_text(encoding="utf-8"))
    print(f"Results: {result}, .md")


# ---- Tables ----


def mount_rows(r, size):
    for key in (k for op in SHOWN for k in sorted(r.rates) if k[0] == op and k[1] == size):
        ours = [cell(r.ratio(key, name, "mount")) for name in CIPHERS]
        theirs = [cell(r.ratio(key, name, "gocryptfs")) for name in CIPHERS]
        yield [key[0] + (f", {key[2]} threads" if key[2] > 1 else ""), human(r.rate(key, "mount")), r.units[key[0]],
               *ours, human(r.rate(key, "gocryptfs")), *theirs, cell(r.ratio(key, next(iter(CIPHERS)), "native"))]


def mount_table(r, size):
    names = [short for short, _ in CIPHERS.values()]
    head = ["", "plain", "unit", *(f"{n} / plain" for n in names), "gocryptfs", *(f"{n} / gocryptfs" for n in names),
            f"{names[0]} / native"]
    title = f"The mount, files of {size} bytes" if size else f"The mount, one file of {r.machine['LARGE_MB']} MiB"
    return f"{title}:\n\n" + table(head, mount_rows(r, size))


def engine_table(r):
    rows = [[key[0], human(r.rate(key, "mount")), r.units[key[0]]] + [cell(r.ratio(key, name, "mount")) for name in CIPHERS]
            for key in r.rates if key[1] == -1]
    head = ["", "plain", "unit", *(f"{n} / plain" for n, _ in CIPHERS.values())]
    return f"The engine, {r.machine['RECORDS']} records of 24 + 150 bytes:\n\n" + table(head, rows)


def heading(r):
    m = r.machine
    return (f"{m.get('cpu')}, {m.get('cpus')} CPUs, Linux {m.get('kernel')}, {m.get('disk')}, {m.get('version')}; the mounts' "
            f"transport: {m.get('transport')} (gocryptfs: /dev/fuse); {m.get('gocryptfs')}; {m.get('date')}, load before "
            f"{m.get('load')}. Rates and ratios of rates, more is better; median of {m.get('ROUNDS')} rounds "
            f"({m.get('LARGE_ROUNDS')} with the large file, {m.get('ENGINE_ROUNDS')} of the engine), smallest and largest in "
            "parentheses. AES is AES-256-GCM, as gocryptfs uses it; ChaCha is ChaCha20-Poly1305. Cold: nothing is in the "
            "page cache.")


def report(results, markdown, readme):
    with open(results, encoding="utf-8") as f:
        r = Results(line for line in f if line.strip())
    if not r.rates:
        sys.exit("encrypted.py: no results")
    sizes = [size for size in r.sizes() if size > 0]
    large = [0] if any(key[1] == 0 for key in r.rates) else []
    text = "\n\n".join([heading(r)] + [mount_table(r, size).rstrip() for size in sizes + large] + [engine_table(r).rstrip()])
    if markdown:
        pathlib.Path(markdown).write_text(text + "\n", encoding="utf-8")
    elif not readme:
        print(text)
    if readme:
        put_into(readme, text + "\n", BEGIN, END)


def main():
    parser = argparse.ArgumentParser(description="what encryption costs")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("measure", help="15 minutes; --quick: one")
    run.add_argument("--quick", action="store_true")
    run.add_argument("--out", metavar="DIR")
    tables = commands.add_parser("report")
    tables.add_argument("results")
    tables.add_argument("--markdown", metavar="FILE")
    tables.add_argument("--readme", metavar="FILE", help="put the tables between its marks")
    args = parser.parse_args()
    if args.command == "measure":
        measure(args)
    else:
        report(args.results, args.markdown, args.readme)


if __name__ == "__main__":
    main()
