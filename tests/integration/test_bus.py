# SPDX-License-Identifier: Apache-2.0
"""Pages of the journal that the disk does not deliver: EIO for who asks for them, and the daemon lives."""

import errno
import mmap
import os
import subprocess
import sys

import pytest

import harness
from harness import binary, fails, get, put

pytestmark = pytest.mark.emdb

COUNT, SIZE = 24, 60_000
CUT = 5 * 4096


@pytest.fixture
def cut(make_mount):
    """
    A mount of which most of a segment is gone, and what was in its files. The daemon has read and
    verified all of it before; the kernel has not, so that it asks.
    """
    program = binary("emdb")
    if program is None:
        pytest.skip("no emdb: make first")
    m = make_mount(["segment_size=1M"])
    files = {}
    os.mkdir(m / "dir")
    for i in range(COUNT):
        put(m / f"dir/large{i}", data := os.urandom(SIZE))
        files[f"dir/large{i}"] = data
        put(m / f"small{i}", data := os.urandom(200 + 150 * i))
        files[f"small{i}"] = data
        os.setxattr(m / f"small{i}", "user.note", b"n" * 3000)
        os.symlink("x" * 3000, m / f"link{i}")
    os.mkdir(m / ".snap/one")
    # Only in what is written later.
    put(m / "late", data := os.urandom(SIZE))
    files["late"] = data
    os.mkdir(m / ".snap/two")
    m.remount()
    for name, data in files.items():
        done = subprocess.run([program, "get", m.store, name], capture_output=True, check=True)
        assert done.stdout == data
    subprocess.run([program, "ls", "-lR", m.store], capture_output=True, check=False)
    first = min(os.listdir(m.store / "journal"))
    assert os.stat(m.store / "journal" / first).st_size > 10 * CUT
    os.truncate(m.store / "journal" / first, CUT)
    m.files = files
    yield m
    assert m.alive()


def outcome(function, *args):
    """What it gave; None when it failed as it should."""
    try:
        return function(*args)
    except OSError as err:
        assert err.errno == errno.EIO, (function, args, err)
        return None


def read_mapped(path):
    """Reads a mapping of it in a process of its own: of a page that is not there, the signal is the reader's."""
    code = ("import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDONLY); "
            "sys.stdout.buffer.write(mmap.mmap(f, 0, prot=mmap.PROT_READ)[:])")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def survey(m, read, names):
    """How many were right and how many failed; nothing else may come out."""
    good = bad = 0
    for name in names:
        got = outcome(read, name)
        assert m.alive(), name
        if got is None:
            bad += 1
        else:
            assert got == m.files.get(name, got), name
            good += 1
    return good, bad


def most(bad):
    """Of an encrypted store what was opened last is kept, and can be served."""
    return bad > (0 if harness.ENCRYPTED else COUNT / 2)


def test_cat(cut):
    good, bad = survey(cut, lambda name: get(cut / name), cut.files)
    assert good > 0 and most(bad)
    assert get(cut / "late") == cut.files["late"]
    put(cut / "new", b"goes on")
    assert get(cut / "new") == b"goes on"


def test_mapped(cut):
    good, bad = survey(cut, lambda name: read_mapped(cut / name), cut.files)
    assert good > 0 and most(bad)
    assert read_mapped(cut / "late") == cut.files["late"]


def test_pieces(cut):
    """pread() somewhere inside, and with O_DIRECT."""

    def piece(name):
        fd = os.open(cut / name, os.O_RDONLY | os.O_DIRECT)
        try:
            block = mmap.mmap(-1, 4096)
            n = os.preadv(fd, [block], 4096)
            assert block[:n] == cut.files[name][4096:4096 + n]
            return cut.files[name]
        finally:
            os.close(fd)

    good, bad = survey(cut, piece, [n for n in cut.files if "large" in n or n == "late"])
    assert good > 0 and most(bad)


def test_cp(cut, scratch):
    failed = 0
    for name in cut.files:
        to = scratch / "copy"
        done = subprocess.run(["cp", "-a", cut / name, to], capture_output=True, check=False)
        if done.returncode == 0:
            assert get(to) == cut.files[name]
        else:
            assert b"nput/output error" in done.stderr, done
            failed += 1
        to.unlink(missing_ok=True)
    assert most(failed) and cut.alive()
    # Inside the mount, too, where the daemon shares the bytes.
    for name in cut.files:
        done = subprocess.run(["cp", cut / name, cut / "copied"], capture_output=True, check=False)
        assert done.returncode == 0 or b"nput/output error" in done.stderr, done
        assert cut.alive()


def test_metadata(cut):
    for name in [*cut.files, *(f"link{i}" for i in range(COUNT))]:
        outcome(os.lstat, cut / name)
        outcome(lambda path: os.listxattr(path, follow_symlinks=False), cut / name)
        if name.startswith("small"):
            assert outcome(os.getxattr, cut / name, "user.note") in (None, b"n" * 3000)
        assert cut.alive()
    assert os.lstat(cut / "late").st_size == SIZE


def test_readlink(cut):
    good = bad = 0
    for i in range(COUNT):
        target = outcome(os.readlink, cut / f"link{i}")
        assert target in (None, "x" * 3000) and cut.alive()
        good += target is not None
        bad += target is None
    assert good > 0 and bad > 0


def test_listing(cut):
    """What names are left comes; ls -l may complain."""
    done = subprocess.run(["ls", "-l", cut.mnt, cut / "dir"], capture_output=True, check=False, timeout=30)
    assert b"late" in done.stdout and cut.alive()
    done = subprocess.run(["find", cut.mnt, "-type", "f"], capture_output=True, check=False, timeout=30)
    assert b"late" in done.stdout and cut.alive()


def test_snapshots(cut):
    """Snapshots share the segment."""
    for name in (".snap/one", ".snap/two"):
        try:
            listed = os.listdir(cut / name)
        except OSError as err:
            assert err.errno == errno.EIO
            continue
        for entry in listed:
            if not entry.startswith(("small", "late")):
                continue
            got = outcome(get, cut / name / entry)
            assert got in (None, cut.files[entry])
        assert cut.alive()
    assert get(cut / "late") == cut.files["late"]


def test_changes(cut):
    """Over, away, elsewhere: done, or EIO and not done."""
    for i in range(COUNT):
        outcome(os.rename, cut / f"small{i}", cut / f"moved{i}")
        outcome(os.chmod, cut / f"dir/large{i}", 0o600)
        outcome(os.setxattr, cut / f"dir/large{i}", "user.b", b"b")
        outcome(os.truncate, cut / f"dir/large{i}", 100)
        outcome(os.link, cut / f"dir/large{i}", cut / f"linked{i}")
        assert cut.alive()
    for i in range(COUNT):
        outcome(put, cut / f"dir/large{i}", b"new")
        outcome(os.unlink, cut / f"dir/large{i}")
        assert cut.alive()
    put(cut / "new", b"goes on")
    assert get(cut / "new") == b"goes on" and get(cut / "late") == cut.files["late"]


def test_commands(cut, scratch):
    """Everything that reads the whole store says so and ends."""
    program = binary("emdb")
    for args in (["scrub"], ["compact"], ["export"], ["checkpoint"], ["stat"], ["ls", "-R"], ["snapshot", "create"]):
        command = [program, *args, cut.store]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        assert done.returncode >= 0, done
        if args[0] in ("scrub", "export"):
            assert done.returncode > 0, done
        assert cut.alive(), args
    done = subprocess.run([program, "backup", "--copy", cut.store, scratch / "backup"], capture_output=True,
                          check=False, timeout=60)
    assert done.returncode > 0 and not (scratch / "backup").exists() and cut.alive()
    with fails(errno.ENOENT):
        os.stat(cut / "absent")
    assert get(cut / "late") == cut.files["late"]
