# SPDX-License-Identifier: Apache-2.0
"""What operations say when they cannot: the errno of the manual pages (checked on the host's file system: --native)."""

import errno
import fcntl
import mmap
import os
import socket
import stat
import subprocess

import pytest

from harness import (Dir, FALLOC_COLLAPSE, FALLOC_INSERT, as_user, fails, fallocate, get, link_descriptor, put,
                     renameat2, run)


@pytest.fixture
def tree(d):
    """One of each kind."""
    put(d / "file", b"content")
    (d / "dir").mkdir()
    put(d / "dir" / "inner", b"x")
    (d / "empty").mkdir()
    os.symlink("file", d / "link")
    os.symlink("nowhere", d / "dangling")
    os.symlink("loop", d / "loop")
    os.mkfifo(d / "fifo")
    return d


LONG = "n" * 256

# name -> (errno, operation); t is the tree.
CASES = {
    "open: missing": (errno.ENOENT, lambda t: os.open(t / "no", os.O_RDONLY)),
    "open: below a file": (errno.ENOTDIR, lambda t: os.open(t / "file" / "x", os.O_RDONLY)),
    "open: create in a missing directory": (errno.ENOENT, lambda t: os.open(t / "no" / "x", os.O_CREAT | os.O_WRONLY)),
    "open: O_EXCL": (errno.EEXIST, lambda t: os.open(t / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "open: O_EXCL on a dangling link": (errno.EEXIST, lambda t: os.open(t / "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "open: a directory for writing": (errno.EISDIR, lambda t: os.open(t / "dir", os.O_WRONLY)),
    "open: O_CREAT on a directory": (errno.EISDIR, lambda t: os.open(t / "dir", os.O_CREAT | os.O_RDONLY)),
    "open: O_DIRECTORY on a file": (errno.ENOTDIR, lambda t: os.open(t / "file", os.O_DIRECTORY)),
    "open: O_NOFOLLOW on a link": (errno.ELOOP, lambda t: os.open(t / "link", os.O_NOFOLLOW)),
    "open: a loop": (errno.ELOOP, lambda t: os.open(t / "loop", os.O_RDONLY)),
    "open: a name too long": (errno.ENAMETOOLONG, lambda t: os.open(t / LONG, os.O_CREAT | os.O_WRONLY)),
    "open: a path too long": (errno.ENAMETOOLONG, lambda t: os.open(str(t) + "/x" * 2100, os.O_RDONLY)),
    "open: a FIFO nobody reads": (errno.ENXIO, lambda t: os.open(t / "fifo", os.O_WRONLY | os.O_NONBLOCK)),
    "mkdir: there": (errno.EEXIST, lambda t: os.mkdir(t / "file")),
    "mkdir: a link is there": (errno.EEXIST, lambda t: os.mkdir(t / "dangling")),
    "mkdir: no parent": (errno.ENOENT, lambda t: os.mkdir(t / "no" / "x")),
    "mkdir: parent is a file": (errno.ENOTDIR, lambda t: os.mkdir(t / "file" / "x")),
    "mkdir: a name too long": (errno.ENAMETOOLONG, lambda t: os.mkdir(t / LONG)),
    "mknod: there": (errno.EEXIST, lambda t: os.mknod(t / "fifo", stat.S_IFREG | 0o600)),
    "mkfifo: no parent": (errno.ENOENT, lambda t: os.mkfifo(t / "no" / "x")),
    "rmdir: not empty": (errno.ENOTEMPTY, lambda t: os.rmdir(t / "dir")),
    "rmdir: a file": (errno.ENOTDIR, lambda t: os.rmdir(t / "file")),
    "rmdir: a link to a directory": (errno.ENOTDIR, lambda t: os.rmdir(t / "link")),
    "rmdir: missing": (errno.ENOENT, lambda t: os.rmdir(t / "no")),
    "rmdir: dot": (errno.EINVAL, lambda t: os.rmdir(str(t / "empty") + "/.")),
    "rmdir: dot dot": (errno.ENOTEMPTY, lambda t: os.rmdir(str(t / "empty") + "/..")),
    "unlink: a directory": (errno.EISDIR, lambda t: os.unlink(t / "empty")),
    "unlink: missing": (errno.ENOENT, lambda t: os.unlink(t / "no")),
    "unlink: below a file": (errno.ENOTDIR, lambda t: os.unlink(t / "file" / "x")),
    "unlink: a file with a slash behind": (errno.ENOTDIR, lambda t: os.unlink(str(t / "file") + "/")),
    "link: a directory": (errno.EPERM, lambda t: os.link(t / "dir", t / "x")),
    "link: there": (errno.EEXIST, lambda t: os.link(t / "file", t / "dir")),
    "link: missing": (errno.ENOENT, lambda t: os.link(t / "no", t / "x")),
    "link: to elsewhere": (errno.EXDEV, lambda t: os.link(t / "file", "/dev/shm/x")),
    "symlink: there": (errno.EEXIST, lambda t: os.symlink("x", t / "link")),
    "symlink: empty": (errno.ENOENT, lambda t: os.symlink("", t / "x")),
    "symlink: too long": (errno.ENAMETOOLONG, lambda t: os.symlink("x" * 4096, t / "x")),
    "readlink: a file": (errno.EINVAL, lambda t: os.readlink(t / "file")),
    "readlink: a directory": (errno.EINVAL, lambda t: os.readlink(t / "dir")),
    "readlink: missing": (errno.ENOENT, lambda t: os.readlink(t / "no")),
    "rename: missing": (errno.ENOENT, lambda t: os.rename(t / "no", t / "x")),
    "rename: directory over file": (errno.ENOTDIR, lambda t: os.rename(t / "dir", t / "file")),
    "rename: file over directory": (errno.EISDIR, lambda t: os.rename(t / "file", t / "empty")),
    "rename: over a full directory": (errno.ENOTEMPTY, lambda t: os.rename(t / "empty", t / "dir")),
    "rename: into itself": (errno.EINVAL, lambda t: os.rename(t / "dir", t / "dir" / "x")),
    "rename: over a parent": (errno.ENOTEMPTY, lambda t: os.rename(t / "dir" / "inner", t / "dir")),
    "rename: dot": (errno.EBUSY, lambda t: os.rename(str(t / "dir") + "/.", t / "x")),
    "rename: a name too long": (errno.ENAMETOOLONG, lambda t: os.rename(t / "file", t / LONG)),
    "rename: to elsewhere": (errno.EXDEV, lambda t: os.rename(t / "file", "/dev/shm/x")),
    "rename: NOREPLACE": (errno.EEXIST, lambda t: renameat2(t / "file", t / "dir", 1)),
    "rename: EXCHANGE with nothing": (errno.ENOENT, lambda t: renameat2(t / "file", t / "x", 2)),
    "rename: both flags": (errno.EINVAL, lambda t: renameat2(t / "file", t / "x", 3)),
    "rename: unknown flag": (errno.EINVAL, lambda t: renameat2(t / "file", t / "x", 64)),
    "truncate: a directory": (errno.EISDIR, lambda t: os.truncate(t / "dir", 0)),
    "truncate: missing": (errno.ENOENT, lambda t: os.truncate(t / "no", 0)),
    "truncate: negative": (errno.EINVAL, lambda t: os.truncate(t / "file", -1)),
    "truncate: a FIFO": (errno.EINVAL, lambda t: os.truncate(t / "fifo", 0)),
    "chmod: missing": (errno.ENOENT, lambda t: os.chmod(t / "no", 0o600)),
    "chmod: through a dangling link": (errno.ENOENT, lambda t: os.chmod(t / "dangling", 0o600)),
    "chown: below a file": (errno.ENOTDIR, lambda t: os.chown(t / "file" / "x", 0, 0)),
    "utimens: missing": (errno.ENOENT, lambda t: os.utime(t / "no")),
    "stat: a loop": (errno.ELOOP, lambda t: os.stat(t / "loop")),
    "stat: a name too long": (errno.ENAMETOOLONG, lambda t: os.stat(t / LONG)),
    "listing: a file": (errno.ENOTDIR, lambda t: os.listdir(t / "file")),
    "listing: missing": (errno.ENOENT, lambda t: os.listdir(t / "no")),
    "chdir: a file": (errno.ENOTDIR, lambda t: os.chdir(t / "file")),
    "exec: not executable": (errno.EACCES, lambda t: os.execv(t / "file", ["x"])),
    "exec: a directory": (errno.EACCES, lambda t: os.execv(t / "dir", ["x"])),
    "connect: no socket": (errno.ECONNREFUSED, lambda t: socket.socket(socket.AF_UNIX).connect(str(t / "file"))),
    "getxattr: missing attribute": (errno.ENODATA, lambda t: os.getxattr(t / "file", "user.no")),
    "setxattr: on a FIFO": (errno.EPERM, lambda t: os.setxattr(t / "fifo", "user.x", b"")),
    "setxattr: on a link itself": (errno.EPERM, lambda t: os.setxattr(t / "link", "user.x", b"", follow_symlinks=False)),
    "setxattr: no namespace": (errno.EOPNOTSUPP, lambda t: os.setxattr(t / "file", "x", b"")),
}


@pytest.mark.parametrize("case", CASES)
def test_by_path(tree, case):
    code, operation = CASES[case]
    before = sorted(os.listdir(tree))
    os.chdir("/")
    with fails(code):
        operation(tree)
    assert sorted(os.listdir(tree)) == before and get(tree / "file") == b"content"


def on(name, flags, operation):
    def do(t):
        fd = os.open(t / name, flags)
        try:
            operation(fd, t)
        finally:
            os.close(fd)
    return do


RO, WO, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR

DESCRIPTORS = {
    "read: write only": (errno.EBADF, on("file", WO, lambda fd, t: os.read(fd, 1))),
    "read: a directory": (errno.EISDIR, on("dir", RO, lambda fd, t: os.read(fd, 1))),
    "read: O_PATH": (errno.EBADF, on("file", os.O_PATH, lambda fd, t: os.read(fd, 1))),
    "write: read only": (errno.EBADF, on("file", RO, lambda fd, t: os.write(fd, b"x"))),
    "pread: negative": (errno.EINVAL, on("file", RO, lambda fd, t: os.pread(fd, 1, -1))),
    "pwrite: negative": (errno.EINVAL, on("file", WO, lambda fd, t: os.pwrite(fd, b"x", -1))),
    "lseek: negative": (errno.EINVAL, on("file", RO, lambda fd, t: os.lseek(fd, -1, os.SEEK_SET))),
    "lseek: unknown": (errno.EINVAL, on("file", RO, lambda fd, t: os.lseek(fd, 0, 99))),
    "lseek: data beyond the end": (errno.ENXIO, on("file", RO, lambda fd, t: os.lseek(fd, 7, os.SEEK_DATA))),
    "lseek: hole beyond the end": (errno.ENXIO, on("file", RO, lambda fd, t: os.lseek(fd, 8, os.SEEK_HOLE))),
    "ftruncate: read only": (errno.EINVAL, on("file", RO, lambda fd, t: os.ftruncate(fd, 0))),
    "fallocate: read only": (errno.EBADF, on("file", RO, lambda fd, t: fallocate(fd, 0, 0, 10))),
    "fallocate: nothing": (errno.EINVAL, on("file", RW, lambda fd, t: fallocate(fd, 0, 0, 0))),
    "fallocate: negative": (errno.EINVAL, on("file", RW, lambda fd, t: fallocate(fd, 0, -1, 10))),
    "fallocate: punch without keep": (errno.EOPNOTSUPP, on("file", RW, lambda fd, t: fallocate(fd, 2, 0, 10))),
    "fallocate: beyond all sizes": (errno.EFBIG, on("file", RW, lambda fd, t: fallocate(fd, 0, 2**63 - 10, 9))),
    "fallocate: a directory": (errno.EBADF, on("dir", RO, lambda fd, t: fallocate(fd, 0, 0, 10))),
    "mmap: write on read only": (errno.EACCES, on("file", RO, lambda fd, t: mmap.mmap(fd, 7, access=mmap.ACCESS_WRITE))),
    "mmap: write only": (errno.EACCES, on("file", WO, lambda fd, t: mmap.mmap(fd, 7, prot=mmap.PROT_READ))),
    "mmap: a directory": (errno.ENODEV, on("dir", RO, lambda fd, t: mmap.mmap(fd, 4096, prot=mmap.PROT_READ))),
    "copy_file_range: overlapping": (errno.EINVAL, on("file", RW, lambda fd, t: os.copy_file_range(fd, fd, 5, 0, 2))),
    "copy_file_range: from a directory": (errno.EISDIR, on("file", RW, lambda fd, t: copy(t / "dir", RO, fd))),
    "copy_file_range: to a read only": (errno.EBADF, on("file", RO, lambda fd, t: os.copy_file_range(fd, fd, 1, 0, 10))),
    "copy_file_range: to O_APPEND": (errno.EBADF, on("file", RW | os.O_APPEND, lambda fd, t: os.copy_file_range(fd, fd, 1, 0, 9))),
    "openat: below a file": (errno.ENOTDIR, on("file", RO, lambda fd, t: os.open("x", RO, dir_fd=fd))),
    "fchdir: a file": (errno.ENOTDIR, on("file", RO, lambda fd, t: os.fchdir(fd))),
    "getdents: a file": (errno.ENOTDIR, on("file", RO, lambda fd, t: os.listdir(fd))),
    "linkat: there": (errno.EEXIST, on("file", RO, lambda fd, t: link_descriptor(fd, t / "link"))),
    "ioctl: no terminal": (errno.ENOTTY, on("file", RO, lambda fd, t: fcntl.ioctl(fd, 0x5401, b"\0" * 64))),
    "lock: exclusive on read only": (errno.EBADF, on("file", RO, lambda fd, t: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))),
}


def copy(path, flags, to):
    fd = os.open(path, flags)
    try:
        os.copy_file_range(fd, to, 1)
    finally:
        os.close(fd)


@pytest.mark.parametrize("case", DESCRIPTORS)
def test_by_descriptor(tree, case):
    code, operation = DESCRIPTORS[case]
    with fails(code):
        operation(tree)
    assert get(tree / "file") == b"content"


@pytest.mark.parametrize("mode", [FALLOC_COLLAPSE, FALLOC_INSERT, 0x1000])
def test_unknown_ways_of_fallocate(tree, mode):
    """The first two exist elsewhere; here they are refused and change nothing."""
    put(tree / "big", b"x" * 20000)
    fd = os.open(tree / "big", os.O_RDWR)
    with fails(errno.EOPNOTSUPP, errno.EINVAL):
        fallocate(fd, mode, 4096, 4095)
    os.close(fd)
    assert get(tree / "big") == b"x" * 20000


def test_removed_directory(tree):
    """Nothing can be made in it, and it has nothing."""
    fd = os.open(tree / "empty", os.O_RDONLY)
    with Dir(tree / "empty") as listing:
        os.rmdir(tree / "empty")
        entry = listing.read()
        assert entry is None or entry[0] in (b".", b"..")
    with fails(errno.ENOENT):
        os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    for make in (lambda: os.mkdir("x", dir_fd=fd), lambda: os.symlink("y", "x", dir_fd=fd),
                 lambda: os.mkfifo("x", dir_fd=fd), lambda: os.link(tree / "file", "x", dst_dir_fd=fd),
                 lambda: os.rename(tree / "file", "x", dst_dir_fd=fd)):
        with fails(errno.ENOENT):
            make()
    assert os.fstat(fd).st_nlink == 0 and os.listdir(fd) == []
    os.close(fd)


def test_writing_to_a_running_program(tree):
    run("cp", "/bin/sleep", tree / "program")
    proc = subprocess.Popen([tree / "program", "30"])
    try:
        with fails(errno.ETXTBSY):
            os.open(tree / "program", os.O_WRONLY)
        with fails(errno.ETXTBSY):
            os.truncate(tree / "program", 0)
        os.unlink(tree / "program")
        assert proc.poll() is None
    finally:
        proc.kill()
        proc.wait()
    fd = os.open(tree / "p2", os.O_CREAT | os.O_WRONLY, 0o755)
    with fails(errno.ETXTBSY):
        subprocess.run([tree / "p2"], check=False)
    os.close(fd)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become other users")
def test_without_permission(tree):
    os.chmod(tree, 0o755)

    def refused(code, *operations):
        for operation in operations:
            with fails(code):
                operation()

    def other():
        refused(errno.EACCES, lambda: os.mkdir(tree / "x"), lambda: put(tree / "x"), lambda: os.mkfifo(tree / "x"),
                lambda: os.symlink("y", tree / "x"), lambda: os.unlink(tree / "file"), lambda: os.rmdir(tree / "empty"),
                lambda: os.rename(tree / "file", tree / "x"), lambda: os.truncate(tree / "file", 0),
                lambda: os.utime(tree / "file"), lambda: os.setxattr(tree / "file", "user.x", b""),
                lambda: os.open(tree / "file", os.O_RDWR))
        refused(errno.EPERM, lambda: os.chmod(tree / "file", 0o600), lambda: os.chown(tree / "file", 1000, 1000),
                lambda: os.utime(tree / "file", (0, 0)))

    as_user(1000, 1000, other)
    assert get(tree / "file") == b"content"
