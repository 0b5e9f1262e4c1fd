#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""writer.py DIR LOG SEED: works on files until an operation fails.

For every system call that changes something the log first gets a line that
names the files concerned and every state they may be found in when the call
never returned, then, when it did, one with the state from now on.  A state of
a file is [size, sha256] or null for "not there".  Each line is one write(2).

The kernel may hand a write(2) on in pieces that end at page boundaries.  What
was there and what was to be written is therefore kept in LOG.data as well, for
whoever finds a file that has only some of them.
"""

import hashlib
import json
import os
import random
import struct
import sys


def state_of(data):
    return None if data is None else [len(data), hashlib.sha256(data).hexdigest()]


class Writer:
    def __init__(self, root, log, seed):
        self.root = root
        self.log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self.pieces = os.open(log + ".data", os.O_CREAT | os.O_WRONLY, 0o644)
        self.rng = random.Random(seed)
        self.files = {}  # name -> contents
        self.next = 0

    def say(self, **entry):
        os.write(self.log, json.dumps(entry).encode() + b"\n")

    def step(self, call, **now):
        """One system call that takes the named files from what they are to what now says."""
        before = {name: state_of(self.files.get(name)) for name in now}
        after = {name: state_of(data) for name, data in now.items()}
        self.say(event="begin", names=list(now), states=[before, after])
        result = call()
        for name, data in now.items():
            if data is None:
                self.files.pop(name, None)
            else:
                self.files[name] = data
        self.say(event="done", now=after)
        return result

    def write(self, name, fd, data, at):
        old = self.files[name]
        new = old[:at] + data + old[at + len(data):]
        os.pwrite(self.pieces, struct.pack("<QQQ", at, len(old), len(new)) + old + new, 0)

        def call():
            if os.pwrite(fd, data, at) != len(data):
                raise OSError("a short write")

        self.step(call, **{name: new})

    def path(self, name):
        return os.path.join(self.root, name)

    def data(self):
        return self.rng.randbytes(self.rng.choice([1, 200, 200, 200, 4000, 9000, 60_000]))

    def create(self):
        name = f"f{self.next}"
        self.next += 1
        fd = self.step(lambda: os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY), **{name: b""})
        data = self.data()
        self.write(name, fd, data, 0)
        os.close(fd)

    def pick(self):
        return self.rng.choice(list(self.files))

    def overwrite(self):
        name = self.pick()
        fd = self.step(lambda: os.open(self.path(name), os.O_WRONLY | os.O_TRUNC), **{name: b""})
        data = self.data()
        self.write(name, fd, data, 0)
        os.close(fd)

    def append(self):
        name, more = self.pick(), self.data()
        fd = os.open(self.path(name), os.O_WRONLY | os.O_APPEND)
        self.write(name, fd, more, len(self.files[name]))
        os.close(fd)

    def patch(self):
        name, part = self.pick(), self.data()
        at = self.rng.randrange(len(self.files[name]) + 1)
        fd = os.open(self.path(name), os.O_WRONLY)
        self.write(name, fd, part, at)
        os.close(fd)

    def truncate(self):
        name = self.pick()
        old = self.files[name]
        size = self.rng.randrange(2 * len(old) + 1)
        self.step(lambda: os.truncate(self.path(name), size), **{name: old[:size] + bytes(max(0, size - len(old)))})

    def unlink(self):
        name = self.pick()
        self.step(lambda: os.unlink(self.path(name)), **{name: None})

    def rename(self):
        old, new = self.pick(), self.rng.choice([self.pick(), f"r{self.next}"])
        self.next += 1
        if old != new:
            data = self.files[old]
            self.step(lambda: os.rename(self.path(old), self.path(new)), **{old: None, new: data})

    def work(self):
        steps = [self.create] * 6 + [self.overwrite, self.append, self.patch, self.truncate, self.unlink,
                                     self.rename]
        while True:
            step = self.rng.choice(steps)
            if step == self.create or len(self.files) > 3:
                step()


if __name__ == "__main__":
    try:
        Writer(sys.argv[1], sys.argv[2], int(sys.argv[3])).work()
    except OSError:
        pass
