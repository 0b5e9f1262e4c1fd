#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""report.py: what run.sh measured, as tables for a README and as pictures.

    report.py RESULTS.jsonl [--markdown OUT.md] [--svg OUT.svg] [--readme README.md] [--missed]

RESULTS are the JSON lines of fsbench and toolbench. A ratio is the median of the ratios of each
round, in which all directories took their turns one after the other, with the smallest and the
largest beside it. --readme replaces what stands between the two marks in that file. --missed lists
the rows below their aims and ends with 1 when there are any.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

# What is wanted of the mount relative to the host's file system: operation -> {threads: ratio}.
AIMS = {
    "create": {1: 1.0, 4: 3.0},
    "create+fsync": {1: 4.0, 16: 8.0},
    "overwrite": {1: 4.0, 4: 3.5},
    "unlink": {1: 4.0, 4: 3.0},
    "mkdir": {1: 2.5},
    "rmdir": {1: 6.0},
    "rename": {1: 0.8},
    "stat warm": {1: 1.0},
    "read warm": {1: 0.95},
    "stat cold": {1: 0.35},
    "read first": {1: 0.4},
    "seq write": {1: 0.8},
    "seq read cold": {1: 0.8},
    "rm -rf": {1: 3.0},
    "ls -l, cold": {1: 1.5},
}
# Around the tables in a README.
BEGIN, END = "<!-- make bench-publish: begin -->\n", "<!-- make bench-publish: end -->\n"
BARE_AIM = 1 / 1.3  # of a file system that does nothing, on the same transport
PAIRS = (("mount", "bare"), ("mount-dev", "bare-dev"))


class Results:
    def __init__(self, lines):
        self.machine = {}
        self.rates = {}  # (op, size, threads) -> {directory: rates}
        self.units = {}
        self.cpu = {}  # (op, size, threads) -> {directory: (us for one until all is settled, what of it came later)}
        for line in lines:
            r = json.loads(line)
            if r["bench"] == "machine":
                self.machine.update(r)
                continue
            key = (r["op"], r["size"], r["threads"])
            self.rates.setdefault(key, {})[r["dir"]] = r["rates"]
            self.units[r["op"]] = r["unit"]
            if "cpu_us" in r:
                self.cpu.setdefault(key, {})[r["dir"]] = tuple(statistics.median(r[k]) for k in ("cpu_us", "later_us"))

    def ratio(self, key, one, other):
        """(median, min, max) of one directory's rate relative to another's; None: not measured."""
        of = self.rates.get(key, {})
        if one not in of or other not in of:
            return None
        each = [a / b for a, b in zip(of[one], of[other])]
        return statistics.median(each), min(each), max(each)

    def rate(self, key, directory):
        rates = self.rates.get(key, {}).get(directory)
        return statistics.median(rates) if rates else None

    def has(self, directory):
        return any(directory in of for of in self.rates.values())

    def sizes(self):
        return sorted({size for _, size, _ in self.rates if size})

    def ops(self, size):
        return list(dict.fromkeys(op for op, s, _ in self.rates if s == size))

    def threads(self, size):
        return sorted({t for op, s, t in self.rates if s == size})


# ---- Text ----


def short(v):
    return f"{v:.2f}" if v < 1 else f"{v:.1f}" if v < 10 else f"{v:.0f}"


def cell(ratio, aim=None, floor=None):
    """floor: the ratio of a file system that does nothing, told where it misses the aim as well."""
    if ratio is None:
        return ""
    text = short(ratio[0])
    if aim is not None:
        text = f"**{text}**" if ratio[0] >= aim else f"_{text}_"
    text += f" ({short(ratio[1])}-{short(ratio[2])})"
    return text if ratio[0] >= (aim or 0) or not below(floor, aim) else f"{text}, floor {short(floor[0])}"


def below(ratio, aim):
    return ratio is not None and aim is not None and ratio[0] < aim


def of_native(r, key):
    """The mount beside the native file system, with its aim."""
    aim = AIMS.get(key[0], {}).get(key[2])
    return cell(r.ratio(key, "mount", "native"), aim, r.ratio(key, "bare", "native"))


def human(v):
    return "" if v is None else f"{v:.0f}" if v < 1e4 else f"{v / 1e3:.0f}k" if v < 1e6 else f"{v / 1e6:.2f}M"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def aims(op):
    return ", ".join(short(a) + (f" ({t} thr.)" if t != 1 else "") for t, a in AIMS.get(op, {}).items())


def small_table(r, size):
    threads = r.threads(size)
    ext4 = [t for t in (1, 4) if t in threads and r.has("ext4")]
    head = ["", "op/s, 1 thr."] + [f"/ native, {t} thr." for t in threads] + ["aim"] + \
        [f"/ ext4, {t} thr." for t in ext4] + [f"/ bare, {t} thr." for t in threads] + \
        ["/dev/fuse / native, 1 thr.", "4 thr.", "gocryptfs / native"]
    rows = []
    for op in r.ops(size):
        rows.append(
            [op, human(r.rate((op, size, 1), "mount"))]
            + [of_native(r, (op, size, t)) for t in threads]
            + [aims(op)]
            + [cell(r.ratio((op, size, t), "mount", "ext4")) for t in ext4]
            + [cell(r.ratio((op, size, t), "mount", "bare"), BARE_AIM) for t in threads]
            + [cell(r.ratio((op, size, t), "mount-dev", "native")) for t in (1, 4)]
            + [cell(r.ratio((op, size, 1), "gocryptfs", "native"))])
    return f"Files of {size} bytes:\n\n" + table(head, rows)


def other_table(r):
    keys = [k for k in r.rates if k[1] == 0]
    ext4 = ["ext4"] if r.has("ext4") else []
    head = ["", "mount", "unit", "/ native", "aim", *(f"/ {e}" for e in ext4), "/ bare", "/dev/fuse / native",
            "tmpfs / native", "gocryptfs / native"]
    rows = []
    for key in keys:
        rows.append([key[0], human(r.rate(key, "mount")), r.units[key[0]], of_native(r, key), aims(key[0]),
                     *(cell(r.ratio(key, "mount", e)) for e in ext4),
                     cell(r.ratio(key, "mount", "bare"), BARE_AIM)]
                    + [cell(r.ratio(key, other, "native")) for other in ("mount-dev", "tmpfs", "gocryptfs")])
    return "Programs and large files:\n\n" + table(head, rows)


def cpu_table(r):
    names = [n for n in ("mount", "bare", "native", "ext4", "gocryptfs") if any(n in of for of in r.cpu.values())]
    rows = []
    for (op, size, threads), of in r.cpu.items():
        if threads == 1:
            ratios = [short(of["mount"][0] / of[n][0]) if n in of and "mount" in of else "" for n in names[1:]]
            rows.append([op + (f", {size} bytes" if size else "")]
                        + ["{:.1f} ({:.1f})".format(*of[n]) if n in of else "" for n in names] + ratios)
    return ("Processor time for one (MB of `seq` and `4K` rows), 1 thread, us: caller, daemon and kernel's threads, until "
            "all is written and the daemon rests; in parentheses what of it came after the operation had returned; the "
            "mount's relative to others' (less is better). What else runs on the machine adds to the kernel's threads:\n\n"
            + table([""] + names + [f"mount / {n}" for n in names[1:]], rows)) if rows else ""


def missed(r):
    out = []
    for (op, size, threads), _ in r.rates.items():
        what = f"{op}, {threads} thread{'s' if threads > 1 else ''}" + (f", {size} bytes" if size else "")
        ratio, aim = r.ratio((op, size, threads), "mount", "native"), AIMS.get(op, {}).get(threads)
        if below(ratio, aim):
            out.append(f"{what}: {cell(ratio)} of native, aim {short(aim)}")
            floor = r.ratio((op, size, threads), "bare", "native")
            if below(floor, aim):
                out[-1] += f"; the floor itself, bare, is at {cell(floor)}"
        for one, bare in PAIRS:
            ratio = r.ratio((op, size, threads), one, bare)
            if below(ratio, BARE_AIM):
                out.append(f"{what}: {one} {cell(ratio)} of {bare}, aim {short(BARE_AIM)}")
    return out


NO_JOURNAL = (" The native file system has no journal: for each inode it makes it looks through those that were deleted "
              "in the last minutes, so that its creating and deleting say little; `ext4` is one with a journal, in a file "
              "on the same disk, whose fsync goes through both.")


def heading(r):
    m = r.machine
    took = f", {m['minutes']} minutes" if "minutes" in m else ""
    return (f"{m.get('cpu')}, {m.get('cpus')} CPUs, Linux {m.get('kernel')}, {m.get('disk')}, {m.get('version')}; the "
            f"mount's transport: {m.get('transport')}; gocryptfs: {m.get('gocryptfs')}; {m.get('date')}, load before "
            f"{m.get('load')}{took}. Rates relative to others', median of the rounds (smallest-largest); **bold** reaches "
            "its aim, _italic_ does not; `bare` is a FUSE file system in memory over the same transport, which "
            "flushes the disk once for an fsync, and so the floor: where it misses an aim of the mount as well, it is "
            "said beside." + (NO_JOURNAL if "without a journal" in m.get("disk", "") else ""))


def markdown(r, sizes):
    """Of all sizes with what it took of the processor; README has one size and no more."""
    tables = [small_table(r, size) for size in sizes] + [other_table(r)]
    return "\n\n".join([heading(r), *tables] + ([cpu_table(r)] if sizes == r.sizes() else []))


def put_into(readme, text, begin=BEGIN, end=END):
    path = pathlib.Path(readme)
    before, mark, rest = path.read_text(encoding="utf-8").partition(begin)
    _, close, after = rest.partition(end)
    if not mark or not close:
        sys.exit(f"{readme} lacks the lines {begin.strip()} and {end.strip()}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


# ---- Pictures ----


def picture_rows(r):
    size = r.sizes()[0] if r.sizes() else 0
    keys = [(op, size, t) for op in (r.ops(size) if size else []) for t in (1, 4)]
    keys += [k for k in r.rates if k[1] == 0]
    for key in keys:
        for directory in ("mount", "mount-dev", "bare", "gocryptfs"):
            ratio = r.ratio(key, directory, "native")
            if ratio is None:
                continue
            name = key[0] + (f", {key[2]} thr." if key[2] > 1 else "")
            yield {"row": name, "series": {"mount-dev": "mount, /dev/fuse"}.get(directory, directory),
                   "value": ratio[0], "min": ratio[1], "max": ratio[2],
                   "aim": AIMS.get(key[0], {}).get(key[2])}


def draw(r, out):
    rows = list(picture_rows(r))
    if not rows:
        print("report.py: nothing beside the native file system: no picture", file=sys.stderr)
        return
    plot = pathlib.Path(__file__).with_name("plot.py")
    m = r.machine
    subprocess.run(
        [sys.executable, plot, out, "--title", "Rates relative to the native file system", "--note",
         f"{m.get('cpus')} CPUs, Linux {m.get('kernel')}, {m.get('disk')}; median of the rounds, spread",
         "--unit", "times native (more is better)", "--log", "--line", "1"],
        input="\n".join(json.dumps(row) for row in rows), text=True, check=True)


def main():
    parser = argparse.ArgumentParser(description="tables and pictures of what run.sh measured")
    parser.add_argument("results")
    parser.add_argument("--markdown", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE")
    parser.add_argument("--readme", metavar="FILE", help="put the tables between its marks")
    parser.add_argument("--missed", action="store_true")
    args = parser.parse_args()
    with open(args.results, encoding="utf-8") as f:
        r = Results(line for line in f if line.strip())
    if not r.rates:
        sys.exit("report.py: no results")
    text = markdown(r, r.sizes())
    if args.markdown:
        pathlib.Path(args.markdown).write_text(text + "\n", encoding="utf-8")
    elif not (args.svg or args.readme or args.missed):
        print(text)
    if args.readme:
        put_into(args.readme, markdown(r, r.sizes()[:1]))
    if args.svg:
        draw(r, args.svg)
    if args.missed:
        rows = missed(r)
        print("\n".join(rows))
        sys.exit(1 if rows else 0)


if __name__ == "__main__":
    main()
