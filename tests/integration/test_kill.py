# SPDX-License-Identifier: Apache-2.0
"""
SIGKILL of the daemon at random instants under load, also while it starts: every call that returned before is there
afterwards, and the one under way is there wholly or not at all.

KILLS says how often: 25, with EMDB_LONG a thousand.
"""

import errno
import os
import pathlib
import subprocess
import tempfile
import threading
import time

import pytest

from harness import is_mounted

pytestmark = pytest.mark.emdb

KILLS = int(os.environ.get("KILLS") or (1000 if os.environ.get("EMDB_LONG") else 25))
WORKERS = 4
NAMES = 20
PAGE = 4096
# So many kills lie between two ends in peace.
ORDERLY = 20
# What a call says when its daemon has died.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECONNREFUSED)


class Worker:
    """Changes files of its own, one system call at a time, and knows what they are."""

    def __init__(self, root, rng):
        self.root = root
        self.rng = rng
        self.files = {}  # name -> (contents, value of user.a); of a directory None
        self.under_way = {}  # what the call that did not return would have changed; ... is gone
        self.done = 0
        self.error = None

    def path(self, name):
        return f"{self.root}/{name}"

    def step(self, call, changes):
        self.under_way = changes
        call()
        self.settle()

    def settle(self):
        self.files = self.after(self.files)
        self.under_way = {}
        self.done += 1

    def after(self, files):
        files = {**files, **self.under_way}
        return {name: state for name, state in files.items() if state is not ...}

    def pick(self, directories=False):
        names = [n for n, state in self.files.items() if (state is None) == directories]
        return self.rng.choice(names) if names else None

    def create(self):
        name = f"f{self.rng.randrange(NAMES)}"
        if name in self.files:
            return
        made = []

        def call():
            made.append(os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

        try:
            self.step(call, {name: (b"", None)})
            self.write_to(name, made[0], 0)
        finally:
            for fd in made:
                close(fd)

    def write_to(self, name, fd, at):
        old, xattr = self.files[name]
        data = self.rng.randbytes(self.rng.choice([1, 100, 200, 200, 3000, PAGE]))
        new = old[:at].ljust(at, b"\0") + data + old[at + len(data):]
        self.step(lambda: os.pwrite(fd, data, at), {name: (new, xattr)})

    def write(self):
        name = self.pick()
        if name is None:
            return
        fd = os.open(self.path(name), os.O_RDWR)
        try:
            # In one page, so that the kernel hands it on in one piece.
            self.write_to(name, fd, PAGE * self.rng.randrange(4))
        finally:
            close(fd)

    def truncate(self):
        name = self.pick()
        if name is None:
            return
        old, xattr = self.files[name]
        size = self.rng.randrange(9000)
        self.step(lambda: os.truncate(self.path(name), size), {name: (old[:size].ljust(size, b"\0"), xattr)})

    def unlink(self):
        name = self.pick()
        if name is not None:
            self.step(lambda: os.unlink(self.path(name)), {name: ...})

    def rename(self):
        name, to = self.pick(), f"f{self.rng.randrange(NAMES)}"
        if name is not None and name != to:
            self.step(lambda: os.rename(self.path(name), self.path(to)), {name: ..., to: self.files[name]})

    def setxattr(self):
        name = self.pick()
        if name is None:
            return
        value = self.rng.randbytes(20)
        self.step(lambda: os.setxattr(self.path(name), "user.a", value), {name: (self.files[name][0], value)})

    def mkdir(self):
        name = f"d{self.rng.randrange(8)}"
        if name not in self.files:
            self.step(lambda: os.mkdir(self.path(name)), {name: None})

    def rmdir(self):
        name = self.pick(directories=True)
        if name is not None:
            self.step(lambda: os.rmdir(self.path(name)), {name: ...})

    def work(self):
        calls = [self.create, self.create, self.write, self.write, self.write, self.truncate, self.unlink,
                 self.rename, self.setxattr, self.mkdir, self.rmdir]
        try:
            while True:
                self.rng.choice(calls)()
        except OSError as err:
            if err.errno not in DEAD:
                self.error = err
        except Exception as err:  # pylint: disable=broad-except
            self.error = err

    def found(self):
        """What is there."""
        files = {}
        for entry in os.scandir(self.root):
            if entry.is_dir():
                files[entry.name] = None
                continue
            with open(entry.path, "rb") as f:
                data = f.read()
            try:
                xattr = os.getxattr(entry.path, "user.a")
            except OSError as err:
                assert err.errno == errno.ENODATA
                xattr = None
            files[entry.name] = (data, xattr)
        return files

    def check(self):
        """How many files are neither what they were nor what the last call would have made of them."""
        found = self.found()
        lost = 0
        if found not in (self.files, self.after(self.files)):
            for name in {*found, *self.files}:
                if found.get(name, ...) != self.files.get(name, ...):
                    print(f"{self.path(name)}: differs; under way: {list(self.under_way)}")
                    lost += 1
        self.files = found
        self.under_way = {}
        return lost


def close(fd):
    try:
        os.close(fd)
    except OSError as err:
        assert err.errno in DEAD


def kill_while_starting(mount, rng):
    with open(mount.log, "ab") as log:
        proc = subprocess.Popen(mount.command(mount.options), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                start_new_session=True)
    time.sleep(rng.random() * 0.02)
    proc.kill()
    proc.wait(20)
    if is_mounted(str(mount.mnt)):
        subprocess.run(["fusermount3", "-u", "-z", str(mount.mnt)], check=False)


def one_kill(mount, workers, rng):
    threads = [threading.Thread(target=w.work) for w in workers]
    for t in threads:
        t.start()
    time.sleep(rng.random() ** 2 * 0.1)
    mount.die()
    # The dead mount stays until they have met it: below it their names mean other files.
    for t in threads:
        t.join(30)
        assert not t.is_alive(), "a call does not end"
    mount.kill9()
    assert [w.error for w in workers] == [None] * WORKERS


def sweep(mount, rng, wanted):
    """Kills that often, or until something is lost; returns how much that is."""
    workers = []
    for i in range(WORKERS):
        os.mkdir(mount / f"w{i}")
        workers.append(Worker(f"{mount.mnt}/w{i}", type(rng)(rng.random())))
    began, lost, kills = time.monotonic(), 0, 0
    while kills < wanted and lost == 0:
        one_kill(mount, workers, rng)
        kills += 1
        if kills % 8 == 0 and kills < wanted:
            kill_while_starting(mount, rng)
            kills += 1
        mount.start()
        lost += sum(w.check() for w in workers)
        if kills % ORDERLY == 0:
            # The next start finds everything sealed.
            mount.remount()
            lost += sum(w.check() for w in workers)
    took = time.monotonic() - began
    done = sum(w.done for w in workers)
    print(f"{kills} kills of the daemon, {took / kills:.3f} s a cycle, {done} acknowledged calls, lost: {lost}")
    assert done > kills
    return lost


@pytest.fixture
def store():
    """In memory, where there is room: what a dead process leaves is in the page cache, on any file system."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="emdb-kill-", dir=shm) as where:
        yield pathlib.Path(where) / "store"


@pytest.mark.timeout(120 + KILLS)
def test_daemon_killed(store, make_mount, rng):
    assert sweep(make_mount(["segment_size=1M"], store=store), rng, KILLS) == 0


def test_the_sweep_notices_loss(store, make_mount, rng):
    """With -o writeback the kernel acknowledges what the daemon has not got: that must show, or nothing would."""
    assert sweep(make_mount(["segment_size=1M", "writeback"], store=store), rng, 50) > 0
