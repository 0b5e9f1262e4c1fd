#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""syncer.py DIR LOG SEED: changes files, one system call each, and syncs now and then.

LOG, which is elsewhere, gets a line before each operation, with what it is, and one after each sync
that succeeded, with when it began and ended.  Whoever reads it can say what DIR was after each operation, and which operation has
to be there after a power failure.  Ends with the first operation that fails.
"""

import json
import os
import random
import sys
import time


def apply(files, op):
    """What an operation makes of name -> contents (as seed and length)."""
    kind, name, arg = op
    if kind == "create":
        files[name] = ""
    elif kind == "write":
        files[name] = arg
    elif kind == "rename":
        files[arg] = files.pop(name)
    elif kind == "unlink":
        del files[name]


def data_of(text):
    """All of it in one page, so that the kernel hands it on in one piece."""
    return random.Random(text).randbytes(int(text.split(":")[1])) if text else b""


def plan(rng, files, number):
    dice = rng.random()
    if len(files) < 4 or dice < 0.25:
        return ("create", f"f{number}", "")
    name = rng.choice(sorted(files))
    if dice < 0.7:
        return ("write", name, f"{number}:{rng.choice([1, 100, 200, 1000, 4000])}")
    if dice < 0.85:
        return ("rename", name, rng.choice([f"r{number}", *(set(files) - {name})]))
    return ("unlink", name, "")


def perform(root, op):
    kind, name, arg = op
    path = os.path.join(root, name)
    if kind == "create":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    elif kind == "write":
        # The old contents and the new length in one call each would be two operations.
        fd = os.open(path, os.O_WRONLY)
        data = data_of(arg).ljust(4096, b"\0")
        try:
            if os.pwrite(fd, data, 0) != len(data):
                raise OSError("a short write")
        finally:
            os.close(fd)
    elif kind == "rename":
        os.rename(path, os.path.join(root, arg))
    elif kind == "unlink":
        os.unlink(path)


def main():
    root, log, seed = sys.argv[1:]
    rng = random.Random(seed)
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    where = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    files = {}
    for number in range(1_000_000):
        op = plan(rng, files, number)
        os.write(out, json.dumps(op).encode() + b"\n")
        perform(root, op)
        apply(files, op)
        if rng.random() < 0.1:
            began = time.monotonic_ns()
            os.fsync(where)
            os.write(out, b'{"synced": [%d, %d]}\n' % (began, time.monotonic_ns()))


if __name__ == "__main__":
    try:
        main()
    except OSError as err:
        sys.exit(f"{err}")
