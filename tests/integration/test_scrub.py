# SPDX-License-Identifier: Apache-2.0
"""emdb scrub of a store that is mounted, or not, and rot that only the disk has."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

import harness
from harness import Mount, binary, get, need, put, run, wait_until

pytestmark = pytest.mark.emdb

OK, USAGE, CHECK, CANCELLED = 0, 2, 26, 130
MIB = 1 << 20


@pytest.fixture
def small(make_mount):
    """A mount with small segments."""
    return make_mount(["segment_size=1M"])


def emdb(*args, code=OK):
    program = binary("emdb")
    if program is None:
        pytest.skip("no emdb: make first")
    done = subprocess.run([program, *map(os.fspath, args)], capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done
    return done.stdout.decode()


def lines(*args, **kwargs):
    return [json.loads(line) for line in emdb(*args, **kwargs).splitlines()]


def need_plain():
    if harness.ENCRYPTED:
        pytest.skip("looks for plain bytes in the journal")


def unique(n):
    """n bytes that occur nowhere else."""
    return os.urandom(64) * (n // 64)


def flip(path, needle):
    """Flips a bit of the only place in a file that holds needle; True when there is one."""
    with open(path, "r+b") as f:
        data = f.read()
        at = data.find(needle[:64])
        if at < 0:
            return False
        f.seek(at + 32)
        f.write(bytes([data[at + 32] ^ 1]))
        f.flush()
        os.fsync(f.fileno())
    return True


def flip_segment(store, needle):
    """The name of the segment that was changed."""
    journal = os.path.join(store, "journal")
    for name in sorted(os.listdir(journal)):
        if flip(os.path.join(journal, name), needle):
            return name
    raise AssertionError("not found")


def fill(mount, count=40):
    made = {}
    for i in range(count):
        made[f"f{i}"] = data = unique(64000)
        put(mount / f"f{i}", data)
    return made


def stat(mount):
    return json.loads(emdb("stat", "-j", mount.store))


def test_clean(small):
    fill(small)
    os.mkdir(small / ".snap/one")
    text = emdb("scrub", small.store)
    assert text.startswith("good: ") and "bad" not in text
    assert emdb("scrub", "-q", small.mnt) == ""
    found = lines("scrub", "-j", "--rate", "0", small.store)
    assert found[-1]["message_type"] == "summary" and found[-1]["damaged"] == 0
    assert found[-1]["bytes"] > 40 * 64000
    st = stat(small)
    assert st["scrub_complete"] and st["scrub_damaged"] == 0
    assert abs(st["scrub_ended_ms"] / 1000 - time.time()) < 60
    assert "last scrub" in emdb("stat", small.store)
    emdb("scrub", "--rate", "fast", small.store, code=USAGE)
    # And of one that is not mounted, which remembers.
    small.stop()
    if harness.ENCRYPTED:
        return
    assert json.loads(emdb("stat", "-j", small.store))["scrub_ended_ms"] == st["scrub_ended_ms"]
    assert emdb("scrub", small.store).startswith("good: ")
    assert emdb("scrub", small.store / "snapshots/one").startswith("good: ")


def test_damage_is_named(small):
    need_plain()
    made = fill(small)
    os.mkdir(small / "dir")
    put(small / "dir/rots", victim := unique(64000))
    os.mkdir(small / ".snap/one")
    name = flip_segment(small.store, victim)
    found = lines("scrub", "-j", small.store, code=CHECK)
    places = [f for f in found if f.get("damage") == "place"]
    assert len(places) == 1 and name in places[0]["message"]
    assert {f["path"] for f in found if f.get("damage") in ("lost", "range")} == {"dir/rots"}
    assert [f["path"] for f in found if f.get("damage") == "snapshot"] == ["one"]
    assert found[-1]["damaged"] == 1 and found[-1]["lost_entries"] >= 1
    assert stat(small)["scrub_damaged"] == 1
    text = emdb("scrub", small.store, code=CHECK)
    assert '"dir/rots"' in text and name in text
    assert emdb("scrub", "-q", small.store, code=CHECK) == ""
    for f, data in made.items():
        assert get(small / f) == data, f
    put(small / "dir/new", b"goes on")


def test_beside_writers(small):
    stop = threading.Event()
    count = [0]

    def write():
        while not stop.is_set():
            put(small / f"w{count[0] % 50}", unique(32000))
            count[0] += 1

    fill(small, 20)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            assert lines("scrub", "-j", "--rate", "0", small.store)[-1]["damaged"] == 0
    finally:
        stop.set()
        writer.join()
    assert count[0] > 0


def test_interrupted(small):
    """Ctrl-C ends it in the daemon, too; there is one at a time."""
    fill(small)
    args = [binary("emdb"), "scrub", "-j", "--rate", "500K", os.fspath(small.store)]
    with subprocess.Popen(args, stdout=subprocess.PIPE) as first:
        status = json.loads(first.stdout.readline())
        assert status["message_type"] == "status" and status["total_bytes"] > 40 * 64000
        wait_until(lambda: stat(small)["scrub_done_bytes"] > 0, 5)
        emdb("scrub", small.store, code=1)
        began = time.monotonic()
        first.send_signal(signal.SIGINT)
        assert first.wait(5) == CANCELLED
    wait_until(lambda: stat(small)["scrub_total_bytes"] == 0, 2)
    assert time.monotonic() - began < 3
    assert stat(small)["scrub_ended_ms"] == 0
    emdb("scrub", small.store)


def test_rate(small):
    made = sum(len(data) for data in fill(small).values())
    began = time.monotonic()
    emdb("scrub", "--rate", "2M", small.store)
    assert time.monotonic() - began > made / (2 * MIB) - 0.3


def test_unmounting_ends_it(small):
    fill(small)
    args = [binary("emdb"), "scrub", "--rate", "100K", os.fspath(small.store)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as scrub:
        wait_until(lambda: stat(small)["scrub_total_bytes"] > 0, 5)
        began = time.monotonic()
        small.stop()
        assert time.monotonic() - began < 10
        assert scrub.wait(5) != OK


# ---- Rot behind the kernel's back ----------------------------------------------------------


@pytest.fixture
def disk(scratch):
    """A mounted ext4, and the file that is its disk."""
    if os.getuid() != 0:
        pytest.skip("needs root for loop devices")
    need("mkfs.ext4", "mount", "umount")
    image, where = scratch / "image", scratch / "disk"
    with open(image, "wb") as f:
        f.truncate(64 * MIB)
    run("mkfs.ext4", "-q", "-m", "0", "-F", "-E", "lazy_itable_init=1", image)
    where.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, where], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices: {done.stderr.strip()}")
    yield image, where
    if subprocess.run(["umount", where], check=False).returncode != 0:
        subprocess.run(["umount", "-l", where], check=False)


def test_rot_that_no_reader_sees(disk, scratch):
    """The kernel has the file in its cache and the daemon has it mapped: only a read of the disk finds it."""
    need_plain()
    image, where = disk
    mount = Mount(scratch, ["segment_size=1M"], store=where / "store")
    mount.start()
    try:
        put(mount / "rots", victim := unique(64000))
        put(mount / "other", other := unique(64000))
        os.mkdir(mount / ".snap/one")
        emdb("scrub", mount.store)
        assert flip(image, victim)
        # Still there for who reads, from memory.
        assert get(mount / "rots") == victim
        found = lines("scrub", "-j", mount.store, code=CHECK)
        assert {f["path"] for f in found if f.get("damage") in ("lost", "range")} == {"rots"}
        assert found[-1]["cached_bytes"] == 0
        assert get(mount / "rots") == victim and get(mount / "other") == other
    finally:
        mount.dispose()
