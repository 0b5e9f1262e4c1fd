#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""roundtrips.py: which requests the kernel sends to the daemon for each operation, and what they take.

    roundtrips.py MOUNTPOINT EMDB [-n COUNT]

Does each operation COUNT times in a fresh directory of the mount and compares the daemon's counters
(`emdb stat`) before and after. Prints a table in Markdown: requests for one operation, and the
daemon's own time for each of them, without the way to it and back. "cold" ones need root.
"""

import argparse
import json
import os
import shutil
import subprocess


class Counters:
    def __init__(self, mount, emdb):
        self.mount, self.emdb = mount, emdb

    def read(self):
        done = subprocess.run([self.emdb, "stat", "--json", self.mount], check=True, text=True,
                              stdout=subprocess.PIPE)
        requests = json.loads(done.stdout.splitlines()[0])["served"]["requests"]
        return {name: (r["calls"], r["calls"] * r["mean_ns"]) for name, r in requests.items()}

    def of(self, run, count):
        """{request: (how many of it, its mean time in us)} for each of count operations."""
        before = self.read()
        run()
        after = self.read()
        new = {name: (calls - before.get(name, (0, 0))[0], ns - before.get(name, (0, 0))[1])
               for name, (calls, ns) in after.items()}
        return {name: (calls / count, ns / calls / 1000) for name, (calls, ns) in new.items() if calls}


def drop_names():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("2")


def write(path, flags, size=200, sync=False):
    fd = os.open(path, flags, 0o644)
    os.write(fd, b"x" * size)
    if sync:
        os.fsync(fd)
    os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def operations(d, count):
    """(name, cold?, what to run) in an order in which each finds what it needs."""

    def each(function, kind):
        def run():
            for i in range(count):
                function(f"{d}/{kind}{i}")
        return run

    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    return [
        ("create, write", False, each(lambda p: write(p, new), "f")),
        ("stat", True, each(os.stat, "f")),
        ("stat again", False, each(os.stat, "f")),
        ("open, read", True, each(read, "f")),
        ("open, read again", False, each(read, "f")),
        ("overwrite", False, each(lambda p: write(p, os.O_WRONLY | os.O_TRUNC), "f")),
        ("overwrite again", False, each(lambda p: write(p, os.O_WRONLY | os.O_TRUNC), "f")),
        ("append", False, each(lambda p: write(p, os.O_WRONLY | os.O_APPEND), "f")),
        ("list", True, lambda: os.listdir(d)),
        ("list again", False, lambda: os.listdir(d)),
        ("ls -l", True, lambda: subprocess.run(["ls", "-l", d], check=True, stdout=subprocess.DEVNULL)),
        ("chmod", False, each(lambda p: os.chmod(p, 0o600), "f")),
        ("rename", False, each(lambda p: os.rename(p, p + ".new"), "f")),
        ("unlink", False, each(lambda p: os.unlink(p + ".new"), "f")),
        ("mkdir", False, each(os.mkdir, "m")),
        ("rmdir", False, each(os.rmdir, "m")),
        ("symlink", False, each(lambda p: os.symlink("target", p), "l")),
        ("readlink", False, each(os.readlink, "l")),
        ("readlink again", False, each(os.readlink, "l")),
        ("create, write, fsync", False, each(lambda p: write(p, new, sync=True), "s")),
    ]


def measure(mount, emdb, count):
    """{operation: {request: (how many, mean us)}}"""
    d = f"{mount}/roundtrips"
    counters = Counters(mount, emdb)
    result = {}
    os.mkdir(d)
    for name, cold, run in operations(d, count):
        if cold and os.geteuid() != 0:
            continue
        if cold:
            drop_names()
        result[name + (", cold" if cold else "")] = counters.of(run, count)
    shutil.rmtree(d)
    return result


def main():
    parser = argparse.ArgumentParser(description="requests to the daemon for each operation")
    parser.add_argument("mount")
    parser.add_argument("emdb")
    parser.add_argument("-n", "--count", type=int, default=500)
    args = parser.parse_args()
    print("| operation | requests (the daemon's time for each) |\n|---|---|")
    for name, requests in measure(args.mount, args.emdb, args.count).items():
        said = [f"{r} {n:.2f} ({us:.1f} us)" for r, (n, us) in requests.items() if n >= 0.005]
        print(f"| {name} | {', '.join(said) or 'none'} |")


if __name__ == "__main__":
    main()
