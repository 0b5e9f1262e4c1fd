#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""toolbench.py: what ordinary programs take in several directories, side by side.

    toolbench.py [options] NAME[@PID:MS]=DIR ...

Every round runs every step in every directory, in alternating order, as fsbench does. A step is a
program (tar, cp, git, grep, ls, rm, SQLite) on a tree that is the same for all and is made before,
in memory. Cold steps drop the kernel's dentries and inodes first. After each step everything dirty
is written and the daemon, PID, waited for until it has done nothing for MS, outside the time; what
that takes of the processor counts for the step. Prints fsbench's JSON lines. Where a step fails, its
directory is left out from then on, with a message.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time

WORDS = ("file name block tree journal extent page cache flush commit order write read lookup create "
         "segment frame record key value space index hash store mount kernel thread ring queue").split()


def call(*args, **kwargs):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, **kwargs)


# ---- What the steps work on ----


def make_tree(where, files, rng):
    """A tree like one of sources: directories of 20, most files small, a few large."""
    for i in range(files):
        folder = f"{where}/{i // 400:03}/{i // 20 % 20:02}"
        if i % 20 == 0:
            os.makedirs(folder)
        size = int(min(rng.lognormvariate(7.3, 1.3), 200_000))
        text = " ".join(rng.choice(WORDS) for _ in range(size // 6 + 1))
        with open(f"{folder}/f{i}.c", "w", encoding="ascii") as f:
            f.write(text[:size])


def prepare(where, files):
    """tree/, tree.tar and a bare repository of it, repo.git, below where."""
    tree = f"{where}/tree"
    make_tree(tree, files, random.Random(1))
    call("tar", "cf", f"{where}/tree.tar", "-C", where, "tree")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "gc.auto=0", "-c", "core.fsync=none",
           f"--git-dir={where}/repo.git", f"--work-tree={tree}"]
    call(*git, "init", "-q")
    call(*git, "commit", "-q", "--allow-empty", "-m", "nothing")
    call(*git, "tag", "nothing")
    call(*git, "add", ".", cwd=tree)
    call(*git, "commit", "-q", "-m", "all", cwd=tree)
    call(*git, "tag", "all")
    call(*git, "repack", "-a", "-d", "-q")


# ---- Steps: each returns how much it did, of its unit ----


def do_tar(b, d):
    call("tar", "xf", f"{b.source}/tree.tar", "-C", d)
    return b.files


def do_cp(b, d):
    call("cp", "-a", f"{d}/tree", f"{d}/copy")
    return b.files


def do_grep(b, d):
    if subprocess.run(["grep", "-rc", "no such words", f"{d}/tree"], stdout=subprocess.DEVNULL,
                      check=False).returncode != 1:
        raise RuntimeError(f"grep in {d} found what is not there")
    return b.files


def do_find(b, d):
    call("find", f"{d}/tree", "-size", "+1000000k")
    return b.files


def do_clone(b, d):
    call("git", "clone", "-q", "-n", f"{b.source}/repo.git", f"{d}/clone")
    call("git", "-C", f"{d}/clone", "checkout", "-q", "nothing")


def do_checkout(b, d):
    call("git", "-C", f"{d}/clone", "checkout", "-q", "all")
    return b.files


def do_refresh(b, d):
    """
    git reads every file again whose time is not older, in whole seconds, than its index: as many as the
    checkout wrote in its last second, which says nothing of the file system. With an index that is younger
    than all of them only attributes are looked at.
    """
    time.sleep(1.1)
    call("git", "-C", f"{d}/clone", "update-index", "--refresh")


def do_status(b, d):
    call("git", "-C", f"{d}/clone", "status", "--porcelain")
    return b.files


def do_status_again(b, d):
    """It is short: often enough for the clock to tell something."""
    return sum(do_status(b, d) for _ in range(5))


def do_remove(b, d):
    call("rm", "-rf", f"{d}/tree", f"{d}/copy", f"{d}/clone")


def do_many(b, d):
    """Many small files in few directories, by one process."""
    for k in range(5):
        folder = f"{d}/many/{k}"
        os.makedirs(folder)
        for i in range(b.many // 5):
            fd = os.open(f"{folder}/file{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, b"x" * 200)
            os.close(fd)
    return b.many // 5 * 5


def do_ls(b, d):
    call("ls", "-l", f"{d}/many/0")
    return b.many // 5


def do_rm_many(b, d):
    call("rm", "-rf", f"{d}/many")
    return b.many // 5 * 5


def sqlite(d, synchronous):
    db = sqlite3.connect(f"{d}/db", isolation_level=None)
    db.execute(f"pragma synchronous={synchronous}")
    db.execute("create table if not exists t (id integer primary key, a text, b integer)")
    return db


def do_sqlite_commits(b, d):
    """A row, a transaction, durable."""
    db = sqlite(d, "full")
    for i in range(b.commits):
        db.execute("insert into t (a, b) values (?, ?)", (f"row {i}", i))
    db.close()
    return b.commits


def do_sqlite_bulk(b, d):
    db = sqlite(d, "full")
    db.execute("begin")
    db.executemany("insert into t (a, b) values (?, ?)",
                   ((f"row {i} " + "x" * 80, i) for i in range(b.rows)))
    db.execute("commit")
    db.close()
    return b.rows


def do_sqlite_remove(b, d):
    os.unlink(f"{d}/db")


# name, function, unit (none: not measured), cold?
STEPS = [
    ("tar x", do_tar, "files/s", False),
    ("cp -a", do_cp, "files/s", False),
    ("find, cold", do_find, "files/s", True),
    ("grep -r, cold", do_grep, "files/s", True),
    ("grep -r, again", do_grep, "files/s", False),
    ("", do_clone, "", False),
    ("git checkout", do_checkout, "files/s", False),
    ("", do_refresh, "", False),
    ("git status, cold", do_status, "files/s", True),
    ("git status", do_status_again, "files/s", False),
    ("", do_remove, "", False),
    ("SQLite, durable inserts", do_sqlite_commits, "rows/s", False),
    ("SQLite, one transaction", do_sqlite_bulk, "rows/s", False),
    ("", do_sqlite_remove, "", False),
    ("create many", do_many, "files/s", False),
    ("ls -l, cold", do_ls, "files/s", True),
    ("rm -rf", do_rm_many, "files/s", False),
]


# ---- What it costs, and when it is over: see bench_settle.h ----


class Target:
    def __init__(self, text):
        name, _, self.where = text.partition("=")
        self.name, _, daemon = name.partition("@")
        pid, _, ms = daemon.partition(":")
        self.pid, self.quiet_s = int(pid or 0), int(ms or 0) / 1000

    def daemon_cpu(self):
        """ns of all its threads; the kernel's number of a process' CPU clock."""
        try:
            return time.clock_gettime_ns((~self.pid << 3) | 2) if self.pid else 0
        except OSError:
            return 0

    def rest(self):
        look, busy, quiet, end = 0.05, 500_000, 0.0, time.monotonic() + 20
        was = self.daemon_cpu()
        while quiet < self.quiet_s and time.monotonic() < end:
            time.sleep(look)
            now = self.daemon_cpu()
            quiet = 0.0 if now - was > busy else quiet + look
            was = now


def kernel_cpu():
    total = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            flags = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[6])
            if flags & 0x200000:  # PF_KTHREAD
                total += int((process / "schedstat").read_text().split()[0])
        except (OSError, IndexError):
            pass
    return total


def usage():
    """CPU time, ns, and context switches of this process and of what it ran."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return (sum(int((r.ru_utime + r.ru_stime) * 1e9) for r in both), sum(r.ru_nvcsw + r.ru_nivcsw for r in both))


# ---- Running ----


def settle(cold):
    os.sync()
    if cold:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("2")


class Measured:
    """One step in one directory: how much it did, in what time, and the processor time for one of it, us."""

    def __init__(self, b, run, cold, target):
        d = f"{target.where}/toolbench"
        os.makedirs(d, exist_ok=True)
        settle(cold)
        kernel, daemon, own, start = kernel_cpu(), target.daemon_cpu(), usage()[0], time.monotonic()
        self.done = run(b, d)
        self.seconds = time.monotonic() - start
        own, daemon_end, kernel_end = usage()[0] - own, target.daemon_cpu(), kernel_cpu()
        os.sync()
        kernel_written = kernel_cpu()
        target.rest()
        later = target.daemon_cpu() - daemon_end + max(kernel_written - kernel_end, 0)
        # A thread of the kernel that ended takes its time with it.
        used = own + daemon_end - daemon + max(kernel_end - kernel, 0) + later
        self.cpu_us, self.later_us = (ns / 1000 / (self.done or 1) for ns in (used, later))


def main():
    parser = argparse.ArgumentParser(description="programs in several directories; JSON lines")
    parser.add_argument("-n", "--files", type=int, default=10000, help="of the tree (10000)")
    parser.add_argument("-m", "--many", type=int, default=100000, help="files for ls -l and rm -rf (100000)")
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--commits", type=int, default=300, help="durable transactions (300)")
    parser.add_argument("--rows", type=int, default=200000, help="in one transaction (200000)")
    parser.add_argument("--source", required=True, help="an empty directory for the tree, in memory")
    parser.add_argument("targets", nargs="+", metavar="NAME=DIR")
    b = parser.parse_args()
    targets = [Target(t) for t in b.targets]
    # So that what runs is ended as well, and does not keep the mounts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    steps = [s for s in STEPS if not s[3] or os.geteuid() == 0]
    measured, broken = {}, set()
    prepare(b.source, b.files)
    for turn in range(b.rounds):
        for name, run, unit, cold in steps:
            for target in targets if turn % 2 == 0 else reversed(targets):
                if target.name in broken:
                    continue
                try:
                    m = Measured(b, run, cold, target)
                except (OSError, RuntimeError, sqlite3.Error, subprocess.CalledProcessError) as err:
                    print(f"toolbench: {name or run.__name__} in {target.where}: {err}", file=sys.stderr)
                    broken.add(target.name)
                    continue
                if unit:
                    measured.setdefault((name, unit), {}).setdefault(target.name, []).append(m)
        print(f"toolbench: round {turn + 1} of {b.rounds} done", file=sys.stderr)
    for (name, unit), of in measured.items():
        for target, each in of.items():
            if target in broken:
                continue
            rates = [m.done / m.seconds for m in each]
            print(json.dumps({"bench": "tools", "op": name, "dir": target, "threads": 1, "size": 0,
                              "unit": unit, "median": statistics.median(rates), "min": min(rates),
                              "max": max(rates), "rates": rates, "cpu_us": [round(m.cpu_us, 3) for m in each],
                              "later_us": [round(m.later_us, 3) for m in each]}))
    for target in targets:
        shutil.rmtree(f"{target.where}/toolbench", ignore_errors=True)


if __name__ == "__main__":
    main()
