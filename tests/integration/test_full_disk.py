# SPDX-License-Identifier: Apache-2.0
"""A host file system that fills up: ENOSPC, nothing torn, reading and deleting go on."""

import errno
import os
import subprocess
import time

import pytest

from harness import Mount, get, need, put, run, wait_until

pytestmark = [pytest.mark.emdb,
              pytest.mark.skipif(os.getuid() != 0, reason="needs root for loop devices")]

MIB = 1 << 20


@pytest.fixture
def small_disk(scratch):
    """A mounted ext4 of 16 MiB."""
    need("mkfs.ext4", "mount", "umount")
    image, where = scratch / "image", scratch / "disk"
    with open(image, "wb") as f:
        f.truncate(16 * MIB)
    run("mkfs.ext4", "-q", "-m", "0", "-F", "-O", "^has_journal", image)
    where.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, where], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices: {done.stderr.strip()}")
    yield where
    if subprocess.run(["umount", where], check=False).returncode != 0:
        subprocess.run(["umount", "-l", where], check=False)


@pytest.fixture
def full(small_disk, scratch):
    m = Mount(scratch, ["segment_size=1M"], store=small_disk / "store")
    m.start()
    yield m
    m.dispose()


def fill(mount, size, prefix="f", limit=100_000):
    """Files until ENOSPC: name -> contents of those that were acknowledged."""
    made = {}
    for i in range(limit):
        name, data = f"{prefix}{i}", os.urandom(16) * (size // 16)
        try:
            put(mount / name, data)
        except OSError as err:
            assert err.errno == errno.ENOSPC, err
            return made
        made[name] = data
    pytest.fail("the disk does not fill")


def check(mount, made):
    for name, data in made.items():
        assert get(mount / name) == data, name


@pytest.mark.parametrize("size", [1008, 4096, 100_000])
def test_enospc(full, size):
    made = fill(full, size)
    assert sum(map(len, made.values())) > 4 * MIB
    check(full, made)
    for action in (lambda: os.mkdir(full / "d"), lambda: put(full / "more", b"x" * size)):
        try:
            action()
        except OSError as err:
            assert err.errno == errno.ENOSPC
    st = os.statvfs(full.mnt)
    assert st.f_bavail * st.f_frsize < 4 * MIB
    # What failed left nothing behind but perhaps an empty or partial file of the last name.
    extra = set(os.listdir(full.mnt)) - set(made) - {"d", "more"}
    assert len(extra) <= 1
    # Deleting works on a full disk, and so does everything that only reads.
    names = list(made)
    for name in names[::2]:
        os.unlink(full / name)
        del made[name]
    check(full, made)
    assert not set(names[::2]) & set(os.listdir(full.mnt))
    full.remount()
    check(full, made)
    assert not set(names[::2]) & set(os.listdir(full.mnt))
    full.kill9()
    full.start()
    check(full, made)
    assert not set(names[::2]) & set(os.listdir(full.mnt))


def test_room_that_others_give_back_is_used(full, small_disk):
    put(small_disk / "other", bytes(6 * MIB))
    made = fill(full, 4096)
    os.unlink(small_disk / "other")
    os.sync()

    def writable():
        try:
            put(full / "try", b"x" * 4096)
        except OSError as err:
            assert err.errno == errno.ENOSPC
            return False
        return True

    assert wait_until(writable, 5, 0.1), "writes work again when there is room"
    more = fill(full, 4096, "g")
    assert len(more) * 4096 > 3 * MIB
    check(full, {**made, **more})
    full.remount()
    check(full, {**made, **more})


def test_room_from_deleting_is_used(full):
    """The space of what was deleted comes back without a remount."""
    made = fill(full, 4096)
    for name in made:
        os.unlink(full / name)
    again = {}
    for attempt in range(100):
        again = fill(full, 4096, f"again{attempt}-")
        if len(again) > len(made) / 2:
            break
        for name in again:
            os.unlink(full / name)
        time.sleep(0.2)
    assert len(again) > len(made) / 2
    check(full, again)
    full.remount()
    check(full, again)


@pytest.mark.parametrize("size", [4096, 60_000])
def test_room_from_deleting_a_part_comes_back(full, size):
    """Of each segment something stays, more than fits into what is left of the one that is written."""
    made = fill(full, size)
    for name in list(made)[::2]:
        os.unlink(full / name)
        del made[name]
    more = {}

    def half_of_it_is_back():
        more.update(fill(full, size, f"more{len(more)}-"))
        return len(more) > len(made) / 2

    assert wait_until(half_of_it_is_back, 30, 0.2)
    check(full, {**made, **more})
    full.remount()
    check(full, {**made, **more})


def test_one_large_file(full):
    fd = os.open(full / "f", os.O_CREAT | os.O_RDWR)
    block, written = os.urandom(MIB), 0
    try:
        while True:
            written += os.write(fd, block)
    except OSError as err:
        assert err.errno == errno.ENOSPC
    assert written > 4 * MIB
    size = os.fstat(fd).st_size
    assert written <= size < written + MIB + 1
    for at in range(0, written - MIB + 1, MIB):
        assert os.pread(fd, MIB, at) == block
    os.fsync(fd)
    os.close(fd)
    full.remount()
    assert os.stat(full / "f").st_size == size
    os.unlink(full / "f")
    assert os.listdir(full.mnt) == []


def test_no_room_for_a_store(small_disk, scratch):
    """Creating a store on a full disk: a message, a non-zero exit, nothing left behind."""
    filler = small_disk / "filler"
    with open(filler, "wb") as f:
        try:
            while True:
                f.write(bytes(MIB))
                f.flush()
        except OSError as err:
            assert err.errno == errno.ENOSPC
            try:
                f.close()
            except OSError:
                pass
    m = Mount(scratch, ["segment_size=1M"], store=small_disk / "store")
    done = subprocess.run(m.command(m.options), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode > 0 and "full" in done.stderr.lower()
    assert not m.store.exists() or os.listdir(m.store) == []


