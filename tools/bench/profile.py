#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""profile.py: where the time of an operation goes, on the mount, on the bare FUSE file system and natively.

    profile.py [options] [OPERATION ...]

Runs the phases of fsbench and the steps of toolbench, by default those that were below their aims in
the last published results, and says for one operation of each: the kernel's requests (the daemon's
counters), CPU time of the caller and of the daemon with the kernel's part of it, context switches, and
the functions in which the samples of perf lie. What the daemon's own threads do in the background, by
their names, is told apart from what its threads for requests do, and what they still did after the
operations from what they did meanwhile. A sentence says what makes the difference. CPU time is much the same on a busy machine, unlike the
clock on the wall. Writes Markdown. Needs root and perf; without perf the functions are left out.
"""

import argparse
import bisect
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

import report
import roundtrips
import toolbench

HERE = pathlib.Path(__file__).resolve().parent
SWITCH = pathlib.Path("/sys/module/fuse/parameters/enable_uring")
FUNCTIONS = 8  # of each side of a row
# What a sample belongs to: the first function, from the innermost outwards, that one of these knows.
PARTS = [(part, re.compile(pattern)) for part, pattern in (
    ("page faults", r"exc_page_fault$|asm_exc_page_fault$"),
    ("write to the journal", r"(__x64_sys_|ksys_|do_)p?write(v|64|v64)$|__x64_sys_pwrite"),
    ("pages made ready", r"__x64_sys_(fadvise64|madvise)$"),
    ("dead segments", r"__x64_sys_(unlinkat|munmap|ftruncate)$|__fput$"),
    ("sync", r"__x64_sys_(fdatasync|fsync|syncfs)$"),
    ("waiting for the answer", r"request_wait_answer$"),
    ("locks", r"__x64_sys_futex$"),
    ("transport", r"io_uring_enter$|ksys_read$|do_writev$|do_readv$"),
    ("checksum", r"crc32"),
)]
# Of the published results; the other steps go with fsbench's phases or wait for the disk.
STEPS = ("tar x", "cp -a", "find, cold", "git status, cold", "git status", "create many", "ls -l, cold", "rm -rf")
# The daemon's threads that take requests, and what its others are for.
REQUESTS = re.compile(r"fuse|iou-|nullfs$")
BACKGROUND = {"emdb-compact": "compaction", "emdb-flush": "flusher", "emdb-keep": "keeper of segments",
              "emdb-checkpoint": "checkpoints", "emdb-sweep": "expiry"}


# ---- What is measured ----


class Target(toolbench.Target):
    def __init__(self, name, where, daemon=None, emdb=None):
        # As run.sh has it: the period in which the store looks for work.
        ms = 1000 if name == "mount" else 0
        super().__init__(f"{name}@{daemon.pid}:{ms}={where}" if daemon else f"{name}={where}")
        self.text = f"{name}@{daemon.pid}:{ms}={where}" if daemon else f"{name}={where}"
        self.daemon = daemon
        self.counters = roundtrips.Counters(where, emdb) if emdb else None

    def background(self):
        """CPU time, ns, of the daemon's threads that take no requests: {what for: ns}"""
        total = collections.Counter()
        for task in pathlib.Path(f"/proc/{self.daemon.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name = (task / "comm").read_text().strip()
                if not REQUESTS.match(name):
                    total[BACKGROUND.get(name, "others")] += int((task / "schedstat").read_text().split()[0])
        return total

    def switches(self):
        total = 0
        for task in pathlib.Path(f"/proc/{self.daemon.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += sum(int(n) for n in re.findall(r"ctxt_switches:\s*(\d+)", (task / "status").read_text()))
        return total

    def faults(self):
        stat = pathlib.Path(f"/proc/{self.daemon.pid}/stat").read_text(encoding="ascii")
        return int(stat.rpartition(")")[2].split()[7])

    def look(self):
        """What the daemon has used and been asked so far."""
        seen = {"requests": self.counters.read() if self.counters else {}, "cpu": 0, "switches": 0, "faults": 0,
                "background": collections.Counter()}
        if self.daemon:
            seen["cpu"] = self.daemon_cpu()
            seen["background"] = self.background()
            seen["switches"] = self.switches()
            seen["faults"] = self.faults()
        return seen


class Row:
    """Sums over all rounds of one operation on one target."""

    def __init__(self):
        self.ops = self.client_cpu = self.client_switches = self.daemon_cpu = self.daemon_switches = self.daemon_faults = 0
        self.requests = collections.Counter()
        self.background, self.later = collections.Counter(), collections.Counter()  # {what for: ns}
        self.spans = []  # (from, to) of the monotonic clock, s
        # Of each side: client, daemon (its threads for requests), background.
        self.samples, self.parts = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter)

    def add(self, ops, cpu, switches, before, after):
        self.ops += ops
        self.client_cpu += cpu
        self.client_switches += switches
        background = after["background"] - before["background"]
        self.background += background
        self.daemon_cpu += after["cpu"] - before["cpu"] - background.total()
        self.daemon_switches += after["switches"] - before["switches"]
        self.daemon_faults += after["faults"] - before["faults"]
        for name, (calls, _) in after["requests"].items():
            self.requests[name] += calls - before["requests"].get(name, (0, 0))[0]

    def settled(self, before, after):
        later = after["background"] - before["background"]
        rest = after["cpu"] - before["cpu"] - later.total()
        self.later += later + collections.Counter({"answering": rest} if rest > 0 else {})

    def costs(self):
        """{what for: us} of one operation, of the caller and of the daemon."""
        of, us = self.parts["daemon"], self.daemon_cpu / 1000 / self.ops
        costs = collections.Counter({"the caller": self.client_cpu / 1000 / self.ops})
        costs.update({part: n / of.total() * us for part, n in of.items()} if of else {"the daemon": us})
        costs.update({f"background: {what}": ns / 1000 / self.ops for what, ns in self.background.items()})
        return costs

    def kernel_share(self, side):
        of = self.samples[side]
        return sum(n for (_, kernel), n in of.items() if kernel) / of.total() if of.total() else None


class Profile:
    def __init__(self, targets):
        self.targets = targets
        self.rows = collections.defaultdict(Row)  # (op, size, target name)
        self.before = self.begin = self.end = None  # of the phase that runs

    def fsbench(self, program, size, args):
        """Every phase of fsbench at once; it waits at its marks."""
        by_name = {t.name: t for t in self.targets}
        command = [program, "-j", "-m", "-t", "1", "-s", str(size), *args] + [t.text for t in self.targets]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bench:
            try:
                for line in bench.stdout:
                    m = json.loads(line)
                    if "mark" in m:
                        self.at_mark(m, by_name[m["dir"]], size)
                        bench.stdin.write("\n")
                        bench.stdin.flush()
            except BaseException:
                # After a key that interrupts nobody would wait for it, and the mounts would be busy.
                bench.kill()
                bench.wait()
                raise
        if bench.returncode != 0:
            sys.exit("profile.py: fsbench failed")

    def at_mark(self, m, target, size):
        now = time.monotonic()
        row = self.rows[m["op"], 0 if m["op"].startswith(("seq ", "4K ")) else size, target.name]
        if m["mark"] == "begin":
            self.before, self.begin = target.look(), time.monotonic()
        elif m["mark"] == "end":
            row.spans.append((self.begin, now))
            self.end = target.look()
            row.add(m["ops"], m["cpu_ns"], m["switches"], self.before, self.end)
        else:
            row.settled(self.end, target.look())

    def steps(self, wanted, files, many, source):
        if not wanted:
            return
        os.mkdir(source)
        toolbench.prepare(source, files)
        b = types.SimpleNamespace(source=source, files=files, many=many)
        for name, run, _, cold in toolbench.STEPS:
            if "sqlite" in run.__name__:
                continue
            for target in self.targets:
                d = f"{target.where}/toolbench"
                os.makedirs(d, exist_ok=True)
                toolbench.settle(cold)
                before, begin, used = target.look(), time.monotonic(), toolbench.usage()
                done = run(b, d)
                cpu, switches = (a - b for a, b in zip(toolbench.usage(), used))
                span, end = (begin, time.monotonic()), target.look()
                os.sync()
                target.rest()
                if name in wanted:
                    row = self.rows[name, 0, target.name]
                    row.spans.append(span)
                    row.add(done, cpu, switches, before, end)
                    row.settled(end, target.look())

    def take_samples(self, samples):
        """samples: (time, pid, function, in the kernel?) by time; whose they are follows from the spans."""
        daemons = {t.name: t.daemon.pid for t in self.targets if t.daemon}
        times = [s[0] for s in samples]
        for (_, _, name), row in self.rows.items():
            for begin, end in row.spans:
                for s in samples[bisect.bisect(times, begin):bisect.bisect(times, end)]:
                    if s.pid not in daemons.values() or s.pid == daemons.get(name):
                        side = "client"
                        if s.pid == daemons.get(name):
                            side = "daemon" if REQUESTS.match(s.thread) else "background"
                        row.samples[side][s.function, s.kernel] += 1
                        row.parts[side][s.part] += 1


# ---- perf ----


class Perf:
    """Samples the whole machine, and afterwards takes from it what this process ran, and the daemons."""

    def __init__(self, out):
        self.out = out
        self.run = None
        if shutil.which("perf"):
            command = ["perf", "record", "-q", "-a", "-F", "4000", "-g", "-e", "cpu-clock", "-k", "CLOCK_MONOTONIC", "-o", out]
            self.run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """It would go on for ever, and fill the disk."""
        if self.run:
            self.run.terminate()
            self.run.wait()

    def samples(self, daemons):
        self.__exit__()
        if self.run is None:
            return []
        fields = "comm,pid,tid,time,event,ip,sym,dso"
        with subprocess.Popen(["perf", "script", "-i", self.out, "--show-task-events", "-F", fields], text=True,
                               errors="replace", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as script:
            return sorted(ours_of(script.stdout, {os.getpid(), *daemons}))


Sample = collections.namedtuple("Sample", "time pid thread function kernel part")


def ours_of(lines, ours):
    """The samples of these processes and of what they start, from the text of perf script."""
    fork = re.compile(r"PERF_RECORD_FORK\((\d+):\d+\):\((\d+):")
    head = re.compile(r"\s*(.*?)\s+(\d+)/\d+\s+(\d+\.\d+):")
    frame = re.compile(r"\s+([0-9a-f]+) (.*) \((\S+)\)$")
    whose, stack = None, []
    for line in lines:
        m = frame.match(line)
        if m:
            if whose:
                where = pathlib.Path(m[3].strip("()")).name
                stack.append((m[2].split("+0x")[0].split("@")[0], where, int(m[1], 16) >= 1 << 63))
            continue
        if whose and stack:
            yield sample_of(whose, stack)
        whose, stack = None, []
        m = fork.search(line)
        if m and int(m[2]) in ours:
            ours.add(int(m[1]))
        m = head.match(line)
        if m and int(m[2]) in ours and "PERF_RECORD" not in line:
            whose = (float(m[3]), int(m[2]), m[1])


def sample_of(whose, stack):
    name, where, kernel = stack[0]
    part = next((part for function, _, _ in stack for part, known in PARTS if known.search(function)), None)
    if part is None:
        part = "kernel, other" if kernel else {"emdbfs": "store and handlers"}.get(where, "libraries")
    if part == "store and handlers" and re.match(r"(do_)?fuse_|_?send_|do_|_do_", name):
        part = "libfuse"
    elif where.startswith("liburing"):
        part = "transport"
    return Sample(*whose, f"({where})" if name == "[unknown]" else name, kernel, part)


# ---- Where it is measured ----


class Mounts:
    """The daemons, and the kernel's switch, for as long as they are needed."""

    def __init__(self, programs, where):
        self.programs, self.where, self.targets = programs, where, []
        self.was = None

    def __enter__(self):
        if SWITCH.exists() and SWITCH.read_text().strip() == "N":
            self.was = "N"
            SWITCH.write_text("Y")
        try:
            for name in ("mount", "bare"):
                self.start(name)
            os.mkdir(f"{self.where}/native")
            self.targets.append(Target("native", f"{self.where}/native"))
        except BaseException:
            self.__exit__()
            raise
        return self.targets

    def start(self, name):
        d, log = f"{self.where}/{name}", f"{self.where}/{name}.log"
        os.mkdir(d)
        command = [f"{self.programs}/bench/nullfs", d, "-s", f"{d}.disk"]
        if name == "mount":
            command = [f"{self.programs}/emdbfs", f"{d}.store", d, "-f"]
        with open(log, "w", encoding="utf-8") as f:
            daemon = subprocess.Popen(command, stdout=f, stderr=subprocess.STDOUT)
        for _ in range(600):
            said = pathlib.Path(log).read_text(encoding="utf-8")
            if "mounted at" in said:
                self.targets.append(Target(name, d, daemon, f"{self.programs}/emdb" if name == "mount" else None))
                return
            if daemon.poll() is not None:
                break
            time.sleep(0.05)
        daemon.kill()
        sys.exit(f"profile.py: {name} did not start: {said}")

    def __exit__(self, *_):
        for t in self.targets:
            if t.daemon:
                if subprocess.run(["umount", t.where], check=False).returncode != 0:
                    subprocess.run(["umount", "-l", t.where], check=False)
                t.daemon.wait(60)
        if self.was:
            SWITCH.write_text(self.was)


# ---- What is said of it ----


def ratio(a, b):
    return f"{a / b:.2f}" if b else ""


def cpu_cell(row, side):
    us = (row.client_cpu if side == "client" else row.daemon_cpu) / 1000 / row.ops
    share = row.kernel_share(side)
    return f"{us:.1f}" if share is None else f"{us:.1f} ({us * share:.1f} kernel)"


def functions_cell(row, side, us):
    of = row.samples[side]
    if not of.total():
        return ""
    return "<br>".join(f"{n / of.total() * us:.2f} `{name}`" for (name, _), n in of.most_common(FUNCTIONS))


def background_cell(of, ops):
    return "<br>".join(f"{ns / 1000 / ops:.1f} {what}" for what, ns in of.most_common() if ns / 1000 / ops >= 0.05)


def difference(row, other, name):
    """What of the mount's time makes it differ from the other's, in words; from the numbers alone."""
    mine, its = row.costs(), other.costs()
    total = mine.total() - its.total()
    # Counters would drop what is less than nothing.
    parts = sorted(((mine[what] - its[what], what) for what in mine | its), key=lambda p: -abs(p[0]))
    named = [f"{us:+.1f} {what}" for us, what in parts[:4] if abs(us) >= max(0.1, abs(total) / 20)]
    if abs(total) < mine.total() / 20:
        return f"as `{name}` takes ({its.total():.1f} us)"
    return (f"{abs(total):.1f} us {'more' if total > 0 else 'less'} than `{name}` ({its.total():.1f} us): "
            f"{', '.join(named)}")


def sentence(rows):
    row = rows["mount"]
    said = "; ".join(difference(row, rows[n], n) for n in ("bare", "native"))
    later = row.later.total() / 1000 / row.ops
    after = f" Afterwards the daemon works on for {later:.1f} us ({background_cell(row.later, row.ops)})." if later >= 0.5 else ""
    return f"An operation takes caller and daemon {row.costs().total():.1f} us: {said}.{after}".replace("<br>", ", ") + "\n"


def parts_cell(row, side, us):
    of = row.parts[side]
    return "<br>".join(f"{n / of.total() * us:.1f} {part}" for part, n in of.most_common() if n / of.total() >= 0.01)


def row_table(rows, names):
    def total(n):
        return rows[n].costs().total()

    def line(what, cell):
        return [what] + [cell(rows[n], n) for n in names]

    def asked(row, name):
        return ", ".join(f"{k} {v / row.ops:.2f}" for k, v in row.requests.most_common() if v / row.ops >= 0.005) or \
            ("none" if name == "mount" else "")

    lines = [
        line("requests", asked),
        line("caller's CPU, us", lambda r, n: cpu_cell(r, "client")),
        line("daemon's CPU for requests, us", lambda r, n: cpu_cell(r, "daemon") if n != "native" else ""),
        line("background, meanwhile, us", lambda r, n: background_cell(r.background, r.ops)),
        line("daemon, afterwards, us", lambda r, n: background_cell(r.later, r.ops)),
        line("context switches, caller + daemon",
             lambda r, n: f"{r.client_switches / r.ops:.2f} + {r.daemon_switches / r.ops:.2f}"),
        line("page faults of the daemon", lambda r, n: f"{r.daemon_faults / r.ops:.2f}" if n != "native" else ""),
        line("CPU of both relative to native", lambda r, n: ratio(total(n), total("native"))),
        line("daemon, us for", lambda r, n: parts_cell(r, "daemon", r.daemon_cpu / 1000 / r.ops)),
        line("caller, us in", lambda r, n: functions_cell(r, "client", r.client_cpu / 1000 / r.ops)),
        line("daemon, us in", lambda r, n: functions_cell(r, "daemon", r.daemon_cpu / 1000 / r.ops)),
        line("background, us in", lambda r, n: functions_cell(r, "background", r.background.total() / 1000 / r.ops)),
    ]
    return report.table([""] + names, [cells for cells in lines if any(cells[1:])]) + "\n" + sentence(rows)


def missed_rows(path):
    """{(op, size)} below an aim with one thread, by the published results; of the others with size 0."""
    with open(path, encoding="utf-8") as f:
        r = report.Results(line for line in f if line.strip())
    wanted = set()
    for op, size, threads in r.rates:
        aim = report.AIMS.get(op, {}).get(threads)
        native, bare = (r.ratio((op, size, threads), "mount", other) for other in ("native", "bare"))
        if threads == 1 and ((native and aim and native[0] < aim) or (bare and bare[0] < report.BARE_AIM)):
            wanted.add((op, size))
    return wanted


def heading(args, targets):
    said = pathlib.Path(targets[0].where + ".log").read_text(encoding="utf-8")
    transport = "io_uring" if "over io_uring" in said else "/dev/fuse"
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii"))[1]
    return (f"For one operation (MB of `seq` and `4K` rows), one thread, {args.count} files, {args.rounds} rounds: {cpu}, "
            f"{os.cpu_count()} CPUs, Linux {os.uname().release}, over {transport}, {time.strftime('%F')}, load "
            f"{os.getloadavg()[0]:.1f}. Written by `make bench-profile`.\n\n"
            "`mount` is emdbfs, `bare` a FUSE file system in memory over the same transport, `native` the disk's own. "
            "The rows are those below an aim in the last published results, whether by their time or only "
            "relative to `bare`. The daemon's threads for requests are told apart from its others, the background: what those did "
            "meanwhile, and what the daemon still did afterwards until it rested. Functions are those of the samples of `perf`, each with its own time, without what it "
            "calls.\n")


def main():
    parser = argparse.ArgumentParser(description="where the time of operations goes; Markdown")
    parser.add_argument("-n", "--count", type=int, default=8000, help="files (8000)")
    parser.add_argument("-s", "--sizes", default="200,4096", help="their bytes (200,4096)")
    parser.add_argument("-r", "--rounds", type=int, default=2)
    parser.add_argument("-l", "--large", type=int, default=256, help="MB of the large file (256, 0: none)")
    parser.add_argument("-t", "--tree", type=int, default=4000, help="files for the programs (4000, 0: none)")
    parser.add_argument("--bin", default=os.environ.get("EMDB_BIN", str(HERE.parent.parent / "build")))
    parser.add_argument("-o", "--output", help="file for the Markdown (standard output)")
    parser.add_argument("operations", nargs="*", help="fsbench's and toolbench's names (what was below its aim)")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("profile.py: needs root: for what is called cold, and for perf")
    # So that the mounts go, and what runs in them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = missed_rows(HERE / "results.jsonl")
    sizes = [int(s) for s in args.sizes.split(",")]
    if args.operations:
        wanted = {(op, size) for op in args.operations for size in (0, *sizes)}
    tools = {op for op, size in wanted if size == 0 and op in STEPS} if args.tree else set()
    work = tempfile.mkdtemp(prefix="profile.", dir=os.environ.get("BENCH_DIR", args.bin))
    try:
        with Mounts(args.bin, work) as targets, Perf(f"{work}/perf.data") as perf:
            profile = Profile(targets)
            fsbench, rounds = f"{args.bin}/bench/fsbench", ["-r", str(args.rounds)]
            for size in sizes:
                if any(s == size for _, s in wanted):
                    profile.fsbench(fsbench, size, ["-n", str(args.count), *rounds])
            if args.large and any(op.startswith(("seq ", "4K ")) for op, _ in wanted):
                profile.fsbench(fsbench, 4096, ["-n", "0", "-l", str(args.large), *rounds])
            profile.steps(tools, args.tree, args.tree * 5, f"{work}/source")
            profile.take_samples(perf.samples([t.daemon.pid for t in targets if t.daemon]))
            text = [heading(args, targets)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    names = ["mount", "bare", "native"]
    for op, size in dict.fromkeys((op, size) for op, size, _ in profile.rows if (op, size) in wanted):
        text.append(f"### {op}{f', {size} bytes' if size else ''}\n\n" +
                    row_table({n: profile.rows[op, size, n] for n in names}, names))
    if args.output:
        pathlib.Path(args.output).write_text("\n".join(text), encoding="utf-8")
    else:
        print("\n".join(text))


if __name__ == "__main__":
    main()
