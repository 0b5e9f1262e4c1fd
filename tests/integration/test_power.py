# SPDX-License-Identifier: Apache-2.0
"""The disk below the store: it loses its power, turns read-only, or stands still."""

import contextlib
import errno
import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
import time

import pytest

import syncer
from harness import HERE, Mount, binary, fails, get, need, put, run, wait_until

pytestmark = [pytest.mark.emdb,
              pytest.mark.skipif(os.getuid() != 0, reason="needs root for loop devices")]

MIB = 1 << 20
FS_IOC_SHUTDOWN = 0x8004587D
SHUTDOWN_NOLOGFLUSH = 2
SYNCER = HERE / "syncer.py"


class Disk:
    """An ext4 file system of its own, in a file."""

    def __init__(self, base):
        need("mkfs.ext4", "mount", "umount")
        self.image, self.where = base / "image", base / "disk"
        with open(self.image, "wb") as f:
            f.truncate(192 * MIB)
        run("mkfs.ext4", "-q", "-m", "0", "-F", "-E", "lazy_itable_init=1", self.image)
        self.where.mkdir()

    def mount(self, options="loop"):
        done = subprocess.run(["mount", "-o", options, self.image, self.where], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            pytest.skip(f"no loop devices: {done.stderr.strip()}")

    def umount(self):
        for _ in range(200):
            if subprocess.run(["umount", self.where], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
            time.sleep(0.05)
        subprocess.run(["umount", "-l", self.where], check=False)
        pytest.fail("the disk stays busy")

    def lose_power(self):
        """Everything that was not synced is gone: the page cache is never written back."""
        fd = os.open(self.where, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NOLOGFLUSH))
        except OSError as err:
            pytest.skip(f"no FS_IOC_SHUTDOWN: {err}")
        finally:
            os.close(fd)


@pytest.fixture
def disk(scratch):
    d = Disk(scratch)
    d.mount()
    yield d
    with open("/proc/self/mounts") as f:
        if any(line.split()[1] == str(d.where) for line in f):
            subprocess.run(["umount", "-l", d.where], check=False)


@pytest.fixture
def on_disk(disk, scratch):
    m = Mount(scratch, ["segment_size=1M", "commit=1"], store=disk.where / "store")
    m.start()
    yield m
    m.dispose()


def read_log(log, failed):
    """The operations, and how many of them were synced for certain before the power failed."""
    ops, synced = [], 0
    with open(log, "rb") as f:
        for line in f:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            if isinstance(entry, dict):
                began, ended = entry["synced"]
                assert began < failed[1], "a sync succeeds without a disk"
                # While the disk goes ext4 lets some syncs succeed that it does not do.
                if ended < failed[0]:
                    synced = len(ops)
            else:
                ops.append(entry)
    return ops, synced


def check_prefix(root, log, failed):
    """What is there is what was there after one of the operations from the last synced one on."""
    ops, synced = read_log(log, failed)
    found = {}
    for name in os.listdir(root):
        found[name] = get(root / name)
    files = {}
    tried = 0
    for i in range(len(ops) + 1):
        if i >= synced and files.keys() == found.keys():
            tried += 1
            if all(found[name] == (syncer.data_of(text).ljust(4096, b"\0") if text else b"")
                   for name, text in files.items()):
                return i, synced, len(ops)
        if i < len(ops):
            syncer.apply(files, ops[i])
    pytest.fail(f"no state from operation {synced} to {len(ops)} is {sorted(found)[:20]}, {tried} had these names; the last: {ops[-20:]}")


def start_syncers(mount, round_, rng, count=3):
    work = []
    for part in range(count):
        root, log = mount / f"r{round_}-{part}", mount.base / f"log{round_}-{part}"
        root.mkdir()
        work.append((root, log, subprocess.Popen([sys.executable, SYNCER, root, log, str(rng.randrange(1 << 30))],
                                                 stderr=subprocess.DEVNULL, start_new_session=True)))
    fd = os.open(mount.mnt, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return work


def end_syncers(work):
    for _, _, proc in work:
        try:
            proc.wait(60)
        except subprocess.TimeoutExpired:
            proc.kill()
            pytest.fail("an operation neither succeeds nor fails")


def power_cycles(disk, mount, rng, rounds):
    lost = kept = 0
    for round_ in range(rounds):
        work = start_syncers(mount, round_, rng)
        time.sleep(0.1 + rng.random() * 0.6)
        failed = [time.monotonic_ns()]
        disk.lose_power()
        failed.append(time.monotonic_ns())
        # The daemon is told of errors now; whoever works gets them.
        end_syncers(work)
        mount.kill9()
        disk.umount()
        disk.mount()
        mount.start()
        for root, log, _ in work:
            found, synced, begun = check_prefix(root, log, failed)
            kept += synced
            lost += begun - found
        if round_ % 3 == 2:
            mount.stop()
            run(binary("emdb"), "check", mount.store)
            mount.start()
        for root, log, _ in work:
            log.unlink()
            subprocess.run(["rm", "-rf", root], check=True)
    print(f"{rounds} power failures, {kept} synced operations, lost: 0; {lost} of those under way or not synced")
    assert kept > rounds


@pytest.mark.timeout(300)
def test_power_failure(disk, on_disk, rng):
    """All that was synced, and of the rest a prefix."""
    power_cycles(disk, on_disk, rng, 3)


@pytest.mark.long
def test_power_failure_many_times(disk, on_disk, rng):
    power_cycles(disk, on_disk, rng, 200)


def test_disk_turns_read_only(disk, on_disk):
    """As ext4 does after an error: reading goes on, writing is an error, and reopening is all it takes."""
    for i in range(50):
        put(on_disk / f"f{i}", b"%d" % i * 100)
    fd = os.open(on_disk.mnt, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    device = os.path.basename(os.path.realpath(run("findmnt", "-no", "SOURCE", disk.where).stdout.strip()))
    trigger = f"/sys/fs/ext4/{device}/trigger_fs_error"
    if not os.path.exists(trigger):
        pytest.skip("no trigger_fs_error")
    run("mount", "-o", "remount,errors=remount-ro", disk.where)
    put(trigger, b"test")
    with fails(errno.EIO, errno.EROFS):
        for i in range(2000):
            put(on_disk / f"more{i}", b"x" * 2000)
            if i % 50 == 0:
                fd = os.open(on_disk.mnt, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
    # It stays so, and says so; nothing is tried again behind anybody's back.
    with fails(errno.EIO, errno.EROFS):
        put(on_disk / "still", b"x")
    for i in range(50):
        assert get(on_disk / f"f{i}") == b"%d" % i * 100
    assert len(os.listdir(on_disk.mnt)) >= 50
    on_disk.kill9()
    disk.umount()
    run("e2fsck", "-fy", disk.image, ok=(0, 1))
    disk.mount()
    on_disk.start()
    for i in range(50):
        assert get(on_disk / f"f{i}") == b"%d" % i * 100
    put(on_disk / "works", b"again")


@contextlib.contextmanager
def frozen(disk):
    """Writes to the disk wait; reads that are in memory do not."""
    need("fsfreeze")
    run("fsfreeze", "-f", disk.where)
    try:
        yield
    finally:
        run("fsfreeze", "-u", disk.where)


def in_thread(function):
    """Runs it beside; returns the thread and what will be its result or exception."""
    result = []

    def body():
        try:
            result.append(function())
        except OSError as err:
            result.append(err)

    t = threading.Thread(target=body, daemon=True)
    t.start()
    return t, result


@pytest.mark.timeout(180)
def test_disk_stands_still(disk, on_disk):
    """Who reads is not held up by a disk that does not write; who writes waits and then succeeds."""
    for i in range(20):
        put(on_disk / f"f{i}", b"%d" % i * 1000)
    # The kernel lets nobody list a directory while a file is made in it.
    (on_disk / "new").mkdir()
    with frozen(disk):
        waiting = [in_thread(lambda i=i: put(on_disk / "new" / f"f{i}", b"x" * 100_000)) for i in range(4)]
        fd = os.open(on_disk / "f1", os.O_RDONLY)
        waiting.append(in_thread(lambda: os.fsync(fd)))
        time.sleep(0.5)
        reader, done = in_thread(lambda: [get(on_disk / f"f{i}") for i in range(20)])
        reader.join(30)
        assert not reader.is_alive(), f"readers wait for the disk\n{on_disk.stacks()}"
        assert done == [[b"%d" % i * 1000 for i in range(20)]]
        lister, names = in_thread(lambda: sorted(os.listdir(on_disk.mnt)))
        lister.join(30)
        assert not lister.is_alive() and "f1" in names[0]
        stat, st = in_thread(lambda: os.stat(on_disk / "f2").st_size)
        stat.join(30)
        assert st == [1000]
    for t, result in waiting:
        t.join(60)
        assert not t.is_alive() and not isinstance(result[0], OSError), result
    os.close(fd)
    for i in range(4):
        assert get(on_disk / "new" / f"f{i}") == b"x" * 100_000
