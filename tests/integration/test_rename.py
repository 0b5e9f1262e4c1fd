# SPDX-License-Identifier: Apache-2.0
"""rename(2) and renameat2(2)."""

import errno
import os
import stat
import threading

import pytest

from harness import (RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, fails, fingerprint, get,
                     put, renameat2, same_trees)


def names(d):
    return sorted(os.listdir(d))


def test_file(d):
    put(d / "a", b"data")
    before = os.stat(d / "a")
    os.rename(d / "a", d / "b")
    after = os.stat(d / "b")
    assert names(d) == ["b"] and get(d / "b") == b"data"
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
        before.st_ino, before.st_mtime_ns, before.st_mode)
    assert after.st_ctime_ns >= before.st_ctime_ns


def test_over_an_existing_file(d):
    put(d / "a", b"new")
    put(d / "b", b"old" * 10000)
    ino = os.stat(d / "a").st_ino
    os.rename(d / "a", d / "b")
    assert names(d) == ["b"] and get(d / "b") == b"new" and os.stat(d / "b").st_ino == ino


def test_between_directories(d):
    os.mkdir(d / "x")
    os.mkdir(d / "y")
    put(d / "x" / "f", b"1")
    os.rename(d / "x" / "f", d / "y" / "g")
    assert names(d / "x") == [] and get(d / "y" / "g") == b"1"
    put(d / "x" / "f", b"2")
    os.rename(d / "x" / "f", d / "y" / "g")
    assert names(d / "x") == [] and get(d / "y" / "g") == b"2"


def test_to_itself(d):
    put(d / "a", b"1")
    os.rename(d / "a", d / "a")
    assert get(d / "a") == b"1"
    os.mkdir(d / "dir")
    os.rename(d / "dir", d / "dir")
    assert names(d) == ["a", "dir"]


def test_hard_links_of_one_file(d):
    """POSIX: when both names are links to one file, nothing happens."""
    put(d / "a", b"1")
    os.link(d / "a", d / "b")
    os.rename(d / "a", d / "b")
    assert names(d) == ["a", "b"] and os.stat(d / "a").st_nlink == 2


def test_directory(d):
    os.makedirs(d / "a" / "deep" / "er")
    put(d / "a" / "deep" / "er" / "f", b"1")
    before = fingerprint(d / "a")
    os.rename(d / "a", d / "b")
    assert names(d) == ["b"]
    after = fingerprint(d / "b")
    before.pop(b"."), after.pop(b".")
    same_trees(before, after)
    with fails(errno.ENOENT):
        os.stat(d / "a" / "deep")


def test_directory_over_an_empty_one(d):
    os.makedirs(d / "a" / "sub")
    os.mkdir(d / "b")
    os.rename(d / "a", d / "b")
    assert names(d) == ["b"] and names(d / "b") == ["sub"]


def test_directory_over_a_full_one(d):
    os.mkdir(d / "a")
    os.makedirs(d / "b" / "sub")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(d / "a", d / "b")
    assert names(d) == ["a", "b"] and names(d / "b") == ["sub"]


def test_kinds_do_not_mix(d):
    os.mkdir(d / "dir")
    put(d / "f", b"1")
    os.symlink("f", d / "l")
    with fails(errno.EISDIR):
        os.rename(d / "f", d / "dir")
    with fails(errno.EISDIR):
        os.rename(d / "l", d / "dir")
    with fails(errno.ENOTDIR):
        os.rename(d / "dir", d / "f")
    with fails(errno.ENOTDIR):
        os.rename(d / "dir", d / "l")
    os.rename(d / "l", d / "f")
    assert os.readlink(d / "f") == "f" and names(d) == ["dir", "f"]


def test_into_itself(d):
    os.makedirs(d / "a" / "b" / "c")
    for target in (d / "a" / "x", d / "a" / "b" / "x", d / "a" / "b" / "c" / "x"):
        with fails(errno.EINVAL):
            os.rename(d / "a", target)
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(d / "a" / "b" / "c", d / "a")
    assert names(d / "a" / "b") == ["c"]


def test_missing(d):
    put(d / "f", b"1")
    with fails(errno.ENOENT):
        os.rename(d / "no", d / "f")
    with fails(errno.ENOENT):
        os.rename(d / "f", d / "no" / "f")
    with fails(errno.ENOENT):
        os.rename(d / "no" / "f", d / "g")
    with fails(errno.ENOTDIR):
        os.rename(d / "f", d / "f" / "g")
    with fails(errno.EINVAL, errno.EBUSY):
        os.rename(f"{d}/.", d / "x")
    assert get(d / "f") == b"1"


def test_symlinks_are_renamed_themselves(d):
    put(d / "t", b"1")
    os.symlink("t", d / "l")
    os.rename(d / "l", d / "m")
    assert os.readlink(d / "m") == "t" and get(d / "m") == b"1"
    put(d / "n", b"2")
    os.rename(d / "n", d / "m")
    assert not os.path.islink(d / "m") and get(d / "t") == b"1"


def test_out_of_the_mount(shared, d):
    if shared.native:
        pytest.skip("needs a second file system")
    put(d / "f", b"1")
    with fails(errno.EXDEV):
        os.rename(d / "f", shared.base / "f")
    with fails(errno.EXDEV):
        os.link(d / "f", shared.base / "f")


# ---- renameat2 -----------------------------------------------------------


def test_noreplace(d):
    put(d / "a", b"1")
    put(d / "b", b"2")
    os.mkdir(d / "dir")
    with fails(errno.EEXIST):
        renameat2(d / "a", d / "b", RENAME_NOREPLACE)
    with fails(errno.EEXIST):
        renameat2(d / "a", d / "dir", RENAME_NOREPLACE)
    with fails(errno.EEXIST):
        renameat2(d / "a", d / "a", RENAME_NOREPLACE)
    assert get(d / "a") == b"1" and get(d / "b") == b"2"
    renameat2(d / "a", d / "c", RENAME_NOREPLACE)
    assert names(d) == ["b", "c", "dir"]


def test_exchange(d):
    put(d / "a", b"1")
    put(d / "b", b"22222" * 3000)
    ino = os.stat(d / "a").st_ino, os.stat(d / "b").st_ino
    renameat2(d / "a", d / "b", RENAME_EXCHANGE)
    assert get(d / "a") == b"22222" * 3000 and get(d / "b") == b"1"
    assert (os.stat(d / "b").st_ino, os.stat(d / "a").st_ino) == ino


def test_exchange_of_different_kinds(d):
    os.makedirs(d / "x" / "dir" / "sub")
    put(d / "f", b"1")
    os.symlink("t", d / "l")
    renameat2(d / "f", d / "x" / "dir", RENAME_EXCHANGE)
    assert names(d / "f") == ["sub"] and get(d / "x" / "dir") == b"1"
    assert os.stat(d / "f" / "..").st_ino == os.stat(d).st_ino
    renameat2(d / "f", d / "l", RENAME_EXCHANGE)
    assert os.readlink(d / "f") == "t" and names(d / "l") == ["sub"]


def test_exchange_errors(d):
    put(d / "a", b"1")
    with fails(errno.ENOENT):
        renameat2(d / "a", d / "no", RENAME_EXCHANGE)
    os.makedirs(d / "p" / "q")
    for pair in ((d / "p", d / "p" / "q"), (d / "p" / "q", d / "p")):
        with fails(errno.EINVAL, errno.ENOTEMPTY):
            renameat2(*pair, RENAME_EXCHANGE)
    with fails(errno.EINVAL):
        renameat2(d / "a", d / "p", RENAME_EXCHANGE | RENAME_NOREPLACE)
    with fails(errno.EINVAL):
        renameat2(d / "a", d / "p", 0x80)
    assert get(d / "a") == b"1" and names(d / "p") == ["q"]


def test_whiteout(d):
    """What overlayfs asks of its upper layer."""
    put(d / "a", b"1")
    os.mkdir(d / "dir")
    put(d / "dir" / "x", b"2")
    put(d / "over", b"3")
    put(d / "one", b"4")
    os.link(d / "one", d / "two")
    inode = os.stat(d / "a").st_ino

    def is_whiteout(name):
        st = os.lstat(d / name)
        return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0 and st.st_size == 0 and st.st_nlink == 1

    renameat2(d / "a", d / "b", RENAME_WHITEOUT)
    assert is_whiteout("a") and get(d / "b") == b"1"
    assert os.stat(d / "b").st_ino == inode != os.lstat(d / "a").st_ino
    renameat2(d / "dir", d / "moved", RENAME_WHITEOUT)
    assert is_whiteout("dir") and get(d / "moved" / "x") == b"2"
    renameat2(d / "b", d / "over", RENAME_WHITEOUT)
    assert is_whiteout("b") and get(d / "over") == b"1"
    renameat2(d / "two", d / "moved" / "two", RENAME_WHITEOUT | RENAME_NOREPLACE)
    assert is_whiteout("two") and os.path.samefile(d / "one", d / "moved" / "two")
    with fails(errno.EEXIST):
        renameat2(d / "one", d / "over", RENAME_WHITEOUT | RENAME_NOREPLACE)
    with fails(errno.EINVAL):
        renameat2(d / "one", d / "over", RENAME_WHITEOUT | RENAME_EXCHANGE)
    with fails(errno.EINVAL):
        renameat2(d / "moved", d / "moved" / "in", RENAME_WHITEOUT)
    assert names(d) == ["a", "b", "dir", "moved", "one", "over", "two"]
    os.unlink(d / "a")
    os.rename(d / "over", d / "two")
    assert get(d / "two") == b"1"


# ---- with others about ---------------------------------------------------


def test_replacing_is_atomic_for_readers(d):
    """A name that is always there is never seen missing nor mixed."""
    put(d / "f", b"0" * 5000)
    stop = threading.Event()
    seen = []

    def reader():
        while not stop.is_set():
            try:
                data = get(d / "f")
            except OSError as err:
                seen.append(err)
                return
            if len(data) != 5000 or len(set(data)) != 1:
                seen.append(data)
                return

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(400):
        put(d / "tmp", b"%d" % (i % 10) * 5000)
        os.rename(d / "tmp", d / "f")
    stop.set()
    for t in threads:
        t.join()
    assert not seen


def test_directories_crossing(d):
    """Renames of directories into each other's subtrees never make a loop."""
    for i in range(4):
        os.makedirs(d / f"r{i}" / "s")
    errors = []

    def mover(a, b):
        for _ in range(100):
            try:
                os.rename(d / f"r{a}" / "s", d / f"r{b}" / "s" / "in")
                os.rename(d / f"r{b}" / "s" / "in", d / f"r{a}" / "s")
            except OSError as err:
                if err.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST):
                    errors.append(err)

    threads = [threading.Thread(target=mover, args=p) for p in ((0, 1), (1, 0), (2, 3), (3, 2))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    found = [where for where, _, _ in os.walk(d)]
    assert len(found) == 9


def test_o1_for_full_directories(d):
    """A directory moves in one step whatever it holds."""
    os.mkdir(d / "a")
    for i in range(5000):
        os.mknod(d / "a" / f"f{i}")
    for i in range(100):
        os.rename(d / ("a" if i % 2 == 0 else "b"), d / ("b" if i % 2 == 0 else "a"))
    assert len(os.listdir(d / "a")) == 5000
