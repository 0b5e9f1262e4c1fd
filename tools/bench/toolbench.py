#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""toolbench.py: what ordinary programs take in several directories, side by side.

    toolbench.py [options] NAME=DIR [NAME=DIR ...]

Every round runs every step in every directory, in alternating order, as fsbench does. A step is a
program (tar, cp, git, grep, ls, rm, SQLite) on a tree that is the same for all and is made before,
in memory. Cold steps drop the kernel's dentries and inodes first. Everything dirty is written
between the steps, outside the time. Prints fsbench's JSON lines. Where a
step fails, its directory is left out from then on, with a message.
"""

import argparse
import json
import os
import random
import shutil
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


# ---- Running ----


def settle(cold):
    os.sync()
    if cold:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("2")


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
    targets = [t.split("=", 1) for t in b.targets]
    steps = [s for s in STEPS if not s[3] or os.geteuid() == 0]
    rates, broken = {}, set()
    prepare(b.source, b.files)
    for turn in range(b.rounds):
        for name, run, unit, cold in steps:
            for target, where in targets if turn % 2 == 0 else reversed(targets):
                if target in broken:
                    continue
                d = f"{where}/toolbench"
                os.makedirs(d, exist_ok=True)
                settle(cold)
                start = time.monotonic()
                try:
                    done = run(b, d)
                except (OSError, RuntimeError, sqlite3.Error, subprocess.CalledProcessError) as err:
                    print(f"toolbench: {name or run.__name__} in {where}: {err}", file=sys.stderr)
                    broken.add(target)
                    continue
                if unit:
                    rates.setdefault((name, unit), {}).setdefault(target, []).append(
                        done / (time.monotonic() - start))
        print(f"toolbench: round {turn + 1} of {b.rounds} done", file=sys.stderr)
    for (name, unit), of in rates.items():
        for target, values in of.items():
            if target in broken:
                continue
            print(json.dumps({"bench": "tools", "op": name, "dir": target, "threads": 1, "size": 0,
                              "unit": unit, "median": statistics.median(values), "min": min(values),
                              "max": max(values), "rates": values}))
    for _, where in targets:
        shutil.rmtree(f"{where}/toolbench", ignore_errors=True)


if __name__ == "__main__":
    main()
