# SPDX-License-Identifier: Apache-2.0
"""Hard links, symbolic links, special nodes, unnamed files."""

import errno
import os
import socket
import stat
import threading

import pytest

from harness import as_user, binary, fails, get, libc, libfuse_version, link_descriptor, put, run

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


def needs_tmpfile(mount, directory):
    """libfuse has it since 3.17; before, programs are told EOPNOTSUPP and take another way."""
    if libfuse_version(mount.native) < (3, 17):
        with fails(errno.EOPNOTSUPP):
            os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        pytest.skip("O_TMPFILE needs libfuse 3.17")


def test_o_tmpfile(shared, d):
    needs_tmpfile(shared, d)
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
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


def test_o_tmpfile_keeps_what_was_done_to_it(mount):
    """Mode, owner, attributes and content are there as soon as the name is, and after a remount and a kill."""
    needs_tmpfile(mount, mount.mnt)
    want = {}
    for i, size in enumerate((0, 10, 5000, 300_000)):
        data = os.urandom(size)
        fd = os.open(mount.mnt, os.O_TMPFILE | os.O_WRONLY, 0o640)
        os.write(fd, data)
        os.setxattr(fd, "user.x", b"%d" % i)
        os.utime(fd, ns=(10**18, 10**18 + i))
        link_descriptor(fd, mount / f"f{i}")
        link_descriptor(fd, mount / f"g{i}")
        os.close(fd)
        want[i] = data
    fds = [os.open(mount.mnt, os.O_TMPFILE | os.O_RDWR, 0o600) for _ in range(50)]
    for fd in fds:
        os.write(fd, b"never named" * 1000)
        os.close(fd)

    def check():
        assert sorted(os.listdir(mount.mnt)) == sorted([f"f{i}" for i in want] + [f"g{i}" for i in want])
        for i, data in want.items():
            st = os.stat(mount / f"g{i}")
            assert get(mount / f"f{i}") == data and os.getxattr(mount / f"f{i}", "user.x") == b"%d" % i
            assert (st.st_nlink, st.st_mode & 0o7777, st.st_mtime_ns) == (2, 0o640, 10**18 + i)
            assert os.path.samefile(mount / f"f{i}", mount / f"g{i}")

    check()
    mount.remount()
    check()
    if not mount.native:
        mount.kill9()
        mount.start()
        check()
        run(binary("emdb"), "check", mount.store, ok=(0, 11))


def test_o_tmpfile_errors(shared, d):
    needs_tmpfile(shared, d)
    with fails(errno.ENOTDIR, errno.EINVAL):
        os.open(put(d / "f"), os.O_TMPFILE | os.O_RDWR, 0o600)
    with fails(errno.EINVAL):
        os.open(d, os.O_TMPFILE | os.O_RDONLY, 0o600)
    with fails(errno.ENOENT):
        os.open(d / "absent", os.O_TMPFILE | os.O_RDWR, 0o600)
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
    with fails(errno.EEXIST):
        link_descriptor(fd, d / "f")
    os.close(fd)
    if os.getuid() == 0:
        os.chmod(d, 0o755)
        def other():
            with fails(errno.EACCES):
                os.open(d, os.O_TMPFILE | os.O_RDWR, 0o600)
        as_user(1000, 1000, other)
