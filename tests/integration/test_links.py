# SPDX-License-Identifier: Apache-2.0
"""Hard links, symbolic links, special nodes, unnamed files."""

import errno
import os
import socket
import stat
import threading

import pytest

from harness import as_user, fails, get, libc, link_descriptor, put

# ---- hard links ----------------------------------------------------------


def test_link(d):
    put(d / "a", b"data")
    before = os.stat(d / "a")
    os.link(d / "a", d / "b")
    a, b = os.stat(d / "a"), os.stat(d / "b")
    assert a.st_ino == b.st_ino == before.st_ino
    assert a.st_nlink == b.st_nlink == 2
    assert a.st_ctime_ns >= before.st_ctime_ns and a.st_mtime_ns == before.st_mtime_ns
    put(d / "b", b"changed through b")
    assert get(d / "a") == b"changed through b"
    os.chmod(d / "a", 0o600)
    assert stat.S_IMODE(os.stat(d / "b").st_mode) == 0o600


def test_each_name_survives_the_other(d):
    for first, second in (("a", "b"), ("b", "a")):
        put(d / "a", b"data" * 5000)
        os.link(d / "a", d / "b")
        os.unlink(d / first)
        assert os.stat(d / second).st_nlink == 1 and get(d / second) == b"data" * 5000
        os.unlink(d / second)
        assert os.listdir(d) == []


def test_many_links(d):
    put(d / "f", b"x")
    os.mkdir(d / "s")
    for i in range(300):
        os.link(d / "f", d / "s" / f"l{i}")
    assert os.stat(d / "f").st_nlink == 301
    for i in range(0, 300, 2):
        os.unlink(d / "s" / f"l{i}")
    assert os.stat(d / "s" / "l1").st_nlink == 151
    os.unlink(d / "f")
    assert get(d / "s" / "l299") == b"x"


def test_link_errors(d):
    put(d / "f")
    os.mkdir(d / "dir")
    with fails(errno.EEXIST):
        os.link(d / "f", d / "dir")
    with fails(errno.EEXIST):
        os.link(d / "f", d / "f")
    with fails(errno.ENOENT):
        os.link(d / "no", d / "g")
    with fails(errno.ENOENT):
        os.link(d / "f", d / "no" / "g")
    with fails(errno.EPERM):
        os.link(d / "dir", d / "g")
    with fails(errno.ENOTDIR):
        os.link(d / "f", d / "f" / "g")
    assert os.stat(d / "f").st_nlink == 1


def test_link_of_a_symlink_and_a_fifo(d):
    os.symlink("target", d / "l")
    os.link(d / "l", d / "m", follow_symlinks=False)
    assert os.readlink(d / "m") == "target" and os.lstat(d / "m").st_nlink == 2
    os.mkfifo(d / "p")
    os.link(d / "p", d / "q")
    assert os.lstat(d / "p").st_ino == os.lstat(d / "q").st_ino


def test_link_of_an_open_file_whose_name_is_gone(d):
    """linkat by /proc: ENOENT once the link count is 0 (only O_TMPFILE files may come back)."""
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    os.unlink(d / "f")
    with fails(errno.ENOENT):
        link_descriptor(fd, d / "g")
    os.close(fd)


def test_rename_over_one_of_two_names(d):
    put(d / "a", b"1")
    os.link(d / "a", d / "b")
    put(d / "n", b"2")
    os.rename(d / "n", d / "b")
    assert os.stat(d / "a").st_nlink == 1 and get(d / "a") == b"1" and get(d / "b") == b"2"


# ---- symbolic links ------------------------------------------------------


@pytest.mark.parametrize("target", ["f", "../x", "/absolute/path", "no such", "x" * 4095, "ü"])
def test_symlink(d, target):
    os.symlink(target, d / "l")
    st = os.lstat(d / "l")
    assert os.readlink(d / "l") == target
    assert stat.S_ISLNK(st.st_mode) and st.st_size == len(target.encode()) and st.st_nlink == 1


def test_symlink_errors(d):
    put(d / "f")
    with fails(errno.EEXIST):
        os.symlink("x", d / "f")
    with fails(errno.ENOENT):
        os.symlink("x", d / "no" / "l")
    with fails(errno.ENOENT):
        os.symlink("", d / "l")
    with fails(errno.ENAMETOOLONG):
        os.symlink("x" * 4096, d / "l")
    with fails(errno.EINVAL):
        os.readlink(d / "f")
    with fails(errno.EINVAL):
        os.readlink(d)


def test_replaced_symlink_is_read_anew(d):
    """Cached targets must not outlive their link."""
    for i in range(20):
        os.symlink(f"target{i}", d / "tmp")
        os.rename(d / "tmp", d / "l")
        assert os.readlink(d / "l") == f"target{i}"
        assert os.readlink(d / "l") == f"target{i}"


# ---- special nodes -------------------------------------------------------


def test_fifo(d):
    os.mkfifo(d / "p", 0o622)
    st = os.lstat(d / "p")
    assert stat.S_ISFIFO(st.st_mode) and st.st_size == 0
    with fails(errno.EEXIST):
        os.mkfifo(d / "p")
    with fails(errno.ENXIO):
        os.open(d / "p", os.O_WRONLY | os.O_NONBLOCK)
    got = []
    reader = threading.Thread(target=lambda: got.append(get(d / "p")))
    reader.start()
    put_fd = os.open(d / "p", os.O_WRONLY)
    os.write(put_fd, b"through the pipe")
    os.close(put_fd)
    reader.join()
    assert got == [b"through the pipe"]


def test_socket(d):
    here = os.getcwd()
    os.chdir(d)
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    try:
        server.bind("s")
        assert stat.S_ISSOCK(os.lstat(d / "s").st_mode)
        server.listen()
        client.connect("s")
        peer, _ = server.accept()
        client.sendall(b"hi")
        assert peer.recv(2) == b"hi"
        peer.close()
        with pytest.raises(OSError):
            os.open(d / "s", os.O_RDONLY)
    finally:
        os.chdir(here)
        server.close()
        client.close()


def test_device_nodes(d):
    if os.getuid() != 0:
        pytest.skip("needs root")
    os.mknod(d / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(d / "blk", 0o600 | stat.S_IFBLK, os.makedev(4095, (1 << 20) - 1))
    st = os.lstat(d / "null")
    assert stat.S_ISCHR(st.st_mode) and (os.major(st.st_rdev), os.minor(st.st_rdev)) == (1, 3)
    st = os.lstat(d / "blk")
    assert stat.S_ISBLK(st.st_mode) and st.st_rdev == os.makedev(4095, (1 << 20) - 1)

    def other():
        with fails(errno.EPERM):
            os.mknod(d / "mine", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    as_user(1000, 1000, other)


# ---- unnamed files -------------------------------------------------------


def test_o_tmpfile(d):
    """A file system without it says EOPNOTSUPP and programs fall back; with it, it must be whole."""
    try:
        fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as err:
        assert err.errno == errno.EOPNOTSUPP
        return
    os.write(fd, b"unnamed")
    assert os.fstat(fd).st_nlink == 0 and os.listdir(d) == []
    link_descriptor(fd, d / "named")
    assert get(d / "named") == b"unnamed" and os.fstat(fd).st_nlink == 1
    os.close(fd)
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    with fails(errno.ENOENT):
        link_descriptor(fd, d / "never")
    os.close(fd)
    assert libc.access(os.fsencode(d / "named"), os.R_OK) == 0
