# SPDX-License-Identifier: Apache-2.0
"""Large and sparse files: random operations against a model, holes, fallocate, shared extents."""

import errno
import hashlib
import json
import os
import random
import subprocess
import time

import pytest

import harness
from harness import (FALLOC_COLLAPSE, FALLOC_INSERT, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE,
                     FALLOC_ZERO_RANGE, binary, compile_c, fails, fallocate, get, put, run, scratch_dir,
                     remove_tree)

MIB = 1 << 20


@pytest.fixture(scope="module")
def fsx():
    base = scratch_dir("fsx")
    yield compile_c("fsx.c", base / "fsx")
    remove_tree(base)


def run_fsx(fsx, path, seed, count, *args):
    done = run(fsx, "-s", str(seed), "-n", str(count), *args, path, ok=None)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return done.stdout


# ---- random operations ---------------------------------------------------


@pytest.mark.parametrize("limit", [4096, 20_000, MIB, 8 * MIB])
def test_random_operations(d, fsx, rng, limit):
    for _ in range(2):
        run_fsx(fsx, d / "f", rng.randrange(1 << 32), 2500, "-l", str(limit))
        os.unlink(d / "f")


def test_random_operations_across_remounts(mount, fsx, rng):
    for round_ in range(6):
        for name, limit in (("small", 9000), ("large", 2 * MIB)):
            run_fsx(fsx, mount / name, rng.randrange(1 << 32), 400, "-l", str(limit),
                    "-m", mount.base / f"model-{name}")
        if round_ % 2 or mount.native:
            mount.remount()
        else:
            mount.kill9()
            mount.start()


def test_random_operations_on_several_files_at_once(d, fsx, rng):
    procs = [subprocess.Popen([fsx, "-s", str(rng.randrange(1 << 32)), "-n", "1500", "-l", str(300_000),
                               d / f"f{i}"], stdout=subprocess.PIPE, text=True) for i in range(4)]
    for p in procs:
        out, _ = p.communicate()
        assert p.returncode == 0, out[-6000:]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_random_operations(mount, fsx, rng):
    for round_ in range(20):
        for name, limit in (("tiny", 5000), ("small", 100_000), ("large", 4 * MIB)):
            run_fsx(fsx, mount / name, rng.randrange(1 << 32), 17_000, "-l", str(limit),
                    "-m", mount.base / f"model-{name}")
        if round_ % 2 or mount.native:
            mount.remount()
        else:
            mount.kill9()
            mount.start()


# ---- holes ---------------------------------------------------------------


def map_of(path):
    """[(start, end)] of what is data."""
    found = []
    fd = os.open(path, os.O_RDONLY)
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as err:
            assert err.errno == errno.ENXIO
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))
    os.close(fd)
    return found


def test_seek_data_and_hole(d):
    with open(d / "f", "wb") as f:
        f.truncate(10 * MIB)
        f.seek(3 * MIB)
        f.write(b"x" * MIB)
    for start, end in map_of(d / "f"):
        assert 2 * MIB <= start and end <= 5 * MIB
    assert sum(e - s for s, e in map_of(d / "f")) >= MIB
    fd = os.open(d / "f", os.O_RDONLY)
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    assert os.lseek(fd, 3 * MIB + 5, os.SEEK_DATA) == 3 * MIB + 5
    assert os.lseek(fd, 5 * MIB, os.SEEK_HOLE) == 5 * MIB
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with fails(errno.ENXIO):
            os.lseek(fd, 10 * MIB, whence)
        with fails(errno.ENXIO):
            os.lseek(fd, 11 * MIB, whence)
    with fails(errno.ENXIO):
        os.lseek(fd, 6 * MIB, os.SEEK_DATA)
    os.close(fd)


def test_seek_in_small_files(d):
    put(d / "f", b"12345")
    assert map_of(d / "f") == [(0, 5)]
    put(d / "empty")
    fd = os.open(d / "empty", os.O_RDONLY)
    with fails(errno.ENXIO):
        os.lseek(fd, 0, os.SEEK_DATA)
    os.close(fd)


def test_sparse_copies_stay_sparse(d):
    with open(d / "f", "wb") as f:
        f.truncate(200 * MIB)
        f.seek(100 * MIB)
        f.write(b"data" * 1000)
    run("cp", "--sparse=auto", d / "f", d / "cp")
    run("rsync", "-aS", d / "f", d / "rsync")
    run("tar", "-C", d, "-Scf", d / "t.tar", "f")
    os.mkdir(d / "out")
    run("tar", "-C", d / "out", "-Sxf", d / "t.tar")
    assert os.stat(d / "t.tar").st_size < MIB
    for copy in (d / "cp", d / "rsync", d / "out" / "f"):
        assert os.stat(copy).st_size == 200 * MIB
        assert os.stat(copy).st_blocks * 512 < 20 * MIB, copy
        with open(copy, "rb") as f:
            f.seek(100 * MIB)
            assert f.read(4000) == b"data" * 1000
    run("cmp", d / "f", d / "cp")


def test_blocks_are_honest(shared, d):
    """st_blocks follows data, not size; what is punched or overwritten is not counted twice."""
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * 4 * MIB, 100 * MIB)
    os.fsync(fd)
    assert 4 * MIB <= os.fstat(fd).st_blocks * 512 <= 6 * MIB
    for _ in range(3):
        os.pwrite(fd, b"y" * 4 * MIB, 100 * MIB)
    os.fsync(fd)
    assert 4 * MIB <= os.fstat(fd).st_blocks * 512 <= 6 * MIB
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 100 * MIB, 3 * MIB)
    os.fsync(fd)
    assert MIB <= os.fstat(fd).st_blocks * 512 <= 2 * MIB
    os.ftruncate(fd, 0)
    os.fsync(fd)
    assert os.fstat(fd).st_blocks == 0
    os.close(fd)


# ---- fallocate -----------------------------------------------------------


@pytest.mark.parametrize("size", [5000, 300_000, 3 * MIB])
def test_fallocate(d, size):
    data = random.Random(size).randbytes(size)
    put(d / "f", data)
    fd = os.open(d / "f", os.O_RDWR)
    fallocate(fd, FALLOC_KEEP_SIZE, 0, size * 2)
    assert os.fstat(fd).st_size == size and os.pread(fd, size * 2, 0) == data
    fallocate(fd, 0, size // 2, size)
    end = size // 2 + size
    assert os.fstat(fd).st_size == end
    want = bytearray(data + bytes(end - size))
    assert os.pread(fd, 2 * end, 0) == want
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 1000, 3000)
    want[1000:4000] = bytes(3000)
    assert os.pread(fd, 2 * end, 0) == want
    fallocate(fd, FALLOC_ZERO_RANGE, 100, 50)
    want[100:150] = bytes(50)
    fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, end - 10, 1000)
    want[end - 10:] = bytes(10)
    assert os.pread(fd, 2 * end, 0) == want and os.fstat(fd).st_size == end
    fallocate(fd, FALLOC_ZERO_RANGE, end - 10, 1010)
    want += bytes(1000)
    assert os.pread(fd, 2 * end, 0) == want and os.fstat(fd).st_size == end + 1000
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, end + 5000, 1000)
    assert os.fstat(fd).st_size == end + 1000
    os.close(fd)


def test_fallocate_errors(d):
    put(d / "f", b"x" * 10_000)
    fd = os.open(d / "f", os.O_RDWR)
    with fails(errno.EINVAL):
        fallocate(fd, 0, 0, 0)
    with fails(errno.EINVAL):
        fallocate(fd, 0, -1, 10)
    with fails(errno.EOPNOTSUPP, errno.EINVAL):
        fallocate(fd, FALLOC_PUNCH_HOLE, 0, 10)
    for mode in (FALLOC_COLLAPSE, FALLOC_INSERT):
        try:
            fallocate(fd, mode, 0, 4096)
        except OSError as err:
            assert err.errno in (errno.EOPNOTSUPP, errno.EINVAL)
            assert os.fstat(fd).st_size == 10_000
    with fails(errno.EFBIG):
        fallocate(fd, 0, (1 << 63) - 1000, 1000)
    os.close(fd)
    fd = os.open(d / "f", os.O_RDONLY)
    with fails(errno.EBADF):
        fallocate(fd, 0, 0, 10)
    os.close(fd)


def test_fallocate_program(d):
    run("fallocate", "-l", "1000000", d / "f")
    assert os.stat(d / "f").st_size == 1_000_000
    put(d / "g", b"x" * 100_000 + bytes(MIB) + b"y")
    run("fallocate", "-d", d / "g")
    assert get(d / "g") == b"x" * 100_000 + bytes(MIB) + b"y"
    with open(d / "h", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, 5000)
    assert os.stat(d / "h").st_size == 5000


# ---- copy_file_range -----------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 9000, 300_000, 5 * MIB])
def test_copy_file_range(d, size):
    data = random.Random(size).randbytes(size)
    put(d / "f", data)
    put(d / "g")
    src, dst = os.open(d / "f", os.O_RDONLY), os.open(d / "g", os.O_RDWR)
    done = 0
    while done < size:
        n = os.copy_file_range(src, dst, size - done, done, done)
        assert n > 0
        done += n
    assert os.copy_file_range(src, dst, 100, size, size) == 0
    assert get(d / "g") == data
    # The copy is a copy: changing one leaves the other.
    os.pwrite(dst, b"changed", 0)
    assert get(d / "f") == data
    put(d / "f", b"all new")
    assert get(d / "g")[7:] == data[7:]
    os.close(src)
    os.close(dst)
    os.unlink(d / "f")
    assert get(d / "g")[7:] == data[7:]


def test_copy_file_range_within_a_file(d):
    data = os.urandom(200_000)
    put(d / "f", data)
    fd = os.open(d / "f", os.O_RDWR)
    assert os.copy_file_range(fd, fd, 50_000, 1000, 100_000) == 50_000
    assert get(d / "f") == data[:100_000] + data[1000:51_000] + data[150_000:]
    with fails(errno.EINVAL):
        os.copy_file_range(fd, fd, 5000, 0, 1000)
    os.close(fd)


@pytest.mark.emdb
def test_cp_shares_extents(mount):
    """A copy of a large file inside the mount costs no space worth mentioning."""
    data = os.urandom(32 * MIB)
    put(mount / "f", data)
    before = sum(p.stat().st_blocks for p in (mount.store / "journal").iterdir()) * 512
    for i in range(6):
        run("cp", mount / "f", mount / f"copy{i}")
    after = sum(p.stat().st_blocks for p in (mount.store / "journal").iterdir()) * 512
    assert after - before <= 80 * MIB, "six copies of 32 MiB took a segment at most"
    os.unlink(mount / "f")
    mount.remount()
    for i in range(6):
        assert get(mount / f"copy{i}") == data


# ---- what it costs ----


@pytest.mark.emdb
def test_a_small_write_costs_its_size(mount, rng):
    """Whatever the size of the file: the journal grows by what was written, not by the file."""
    fd = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * (32 * MIB))
    os.fsync(fd)
    before = written(mount)
    for _ in range(2000):
        os.pwrite(fd, rng.randbytes(100), rng.randrange(32 * MIB))
    os.fsync(fd)
    grown = written(mount) - before
    os.close(fd)
    print(f"a write of 100 bytes into 32 MiB: {grown / 2000:.0f} bytes of journal")
    assert grown < 2000 * 400


def written(mount):
    """Bytes of the journal that hold something."""
    done = run(binary("emdb"), "stat", "--json", mount.store)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return next(o["journal_bytes"] for o in found if "journal_bytes" in o)


@pytest.mark.emdb
def test_streaming_buffers_nothing(mount):
    """512 MiB written and read: the daemon's own memory stays what it was."""
    block = os.urandom(MIB)
    before = resident(mount)
    peak = 0
    with open(mount / "f", "wb", buffering=0) as f:
        for i in range(512):
            f.write(block)
            if i % 64 == 0:
                peak = max(peak, resident(mount))
    with open(mount / "f", "rb", buffering=0) as f:
        while f.read(MIB):
            pass
    peak = max(peak, resident(mount))
    print(f"streaming 512 MiB: {(peak - before) / MIB:.1f} MiB of memory")
    with open(f"/proc/{mount.proc.pid}/maps") as maps:
        sanitized = "asan" in (text := maps.read()) or "tsan" in text
    # Opened extents are kept for the next read, a bounded number of them.
    assert sanitized or peak - before < (160 if harness.ENCRYPTED else 32) * MIB


# ---- many extents --------------------------------------------------------


def test_many_small_extents(mount, rng):
    """Scattered writes stay readable in any order, live and after a remount."""
    size = 8 * MIB
    model = bytearray(size)
    fd = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, size)
    for _ in range(5000):
        at = rng.randrange(size - 300)
        part = rng.randbytes(rng.randrange(1, 300))
        os.pwrite(fd, part, at)
        model[at:at + len(part)] = part
    os.close(fd)
    assert get(mount / "f") == model
    mount.remount()
    assert get(mount / "f") == model
    if not mount.native:
        mount.kill9()
        mount.start()
        assert get(mount / "f") == model


def resident(mount):
    with open(f"/proc/{mount.proc.pid}/status") as f:
        for line in f:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024


@pytest.mark.emdb
@pytest.mark.long
def test_a_million_extents_cost_little_memory(mount):
    fd = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x", 4 << 30)
    before = resident(mount)
    for i in range(1_000_000):
        os.pwrite(fd, b"%08d" % i, i * 4096)
    grown = resident(mount) - before
    print(f"1,000,000 extents: {grown / 1e6:.1f} MB of memory")
    assert grown < 64 * MIB
    for i in range(0, 1_000_000, 997):
        assert os.pread(fd, 8, i * 4096) == b"%08d" % i
    os.close(fd)
    mount.remount()
    fd = os.open(mount / "f", os.O_RDONLY)
    for i in range(0, 1_000_000, 997):
        assert os.pread(fd, 8, i * 4096) == b"%08d" % i
    os.close(fd)


@pytest.mark.long
def test_4_gib_patched_at_10000_places(mount, scratch, rng):
    """The same on the native file system and on the mount: equal checksums; rates are printed."""
    size, unit = 4 << 30, 8 * MIB
    sums = {}
    places = [(rng.randrange(size - 5000), rng.randrange(1, 5000)) for _ in range(10_000)]
    for name, path in (("mount", mount / "f"), ("native", scratch / "f")):
        marks = [time.monotonic()]
        block = random.Random(1).randbytes(unit)
        with open(path, "wb", buffering=0) as f:
            for i in range(size // unit):
                f.write(i.to_bytes(8, "little") + block[8:])
            os.fsync(f.fileno())
        marks.append(time.monotonic())
        first = digest(path)
        marks.append(time.monotonic())
        fd = os.open(path, os.O_RDWR)
        for i, (at, length) in enumerate(places):
            os.pwrite(fd, i.to_bytes(4, "little") * (length // 4 + 1), at)
        os.fsync(fd)
        os.close(fd)
        marks.append(time.monotonic())
        sums[name] = (first, digest(path))
        took = [b - a for a, b in zip(marks, marks[1:])]
        print(f"{name}: write {size / took[0] / 1e6:.0f} MB/s, checksum {size / took[1] / 1e6:.0f} MB/s, "
              f"patch {len(places) / took[2]:.0f}/s")
    assert sums["mount"] == sums["native"] and sums["mount"][0] != sums["mount"][1]
    mount.remount()
    assert digest(mount / "f") == sums["native"][1]


def digest(path):
    found = hashlib.blake2b()
    with open(path, "rb", buffering=0) as f:
        while chunk := f.read(8 * MIB):
            found.update(chunk)
    return found.hexdigest()
