# SPDX-License-Identifier: Apache-2.0
"""Several users on one mount (-o allow_other, which the shared mount has)."""

import errno
import os
import shutil
import stat
import subprocess
import tempfile

import pytest

from harness import as_user, binary, fails, get, put, run

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become other users")

A, B = 1000, 1001  # users; groups of the same numbers


def expect(code, action):
    def check():
        with fails(code):
            action()
    return check


def test_file_modes(d):
    put(d / "f", b"data")
    os.chown(d / "f", A, A)
    readers = {0o400: [A], 0o440: [A], 0o444: [A, B], 0o040: [], 0o004: [B], 0: []}
    for mode, who in readers.items():
        os.chmod(d / "f", mode)
        for user in (A, B):
            if user in who:
                assert as_user(user, user, lambda: get(d / "f")) == b"data"
            else:
                as_user(user, user, expect(errno.EACCES, lambda: get(d / "f")))
    os.chmod(d / "f", 0o040)
    assert as_user(B, A, lambda: get(d / "f")) == b"data"
    assert as_user(B, B, lambda: get(d / "f"), groups=[A]) == b"data", "supplementary groups count"
    os.chmod(d / "f", 0o444)
    as_user(B, B, expect(errno.EACCES, lambda: os.open(d / "f", os.O_WRONLY)))
    as_user(B, B, expect(errno.EACCES, lambda: os.truncate(d / "f", 0)))
    os.chmod(d / "f", 0)
    assert get(d / "f") == b"data", "root reads everything"


def test_search_permission_with_cached_entries(d):
    """Names that the kernel already knows are no way around a closed directory."""
    os.makedirs(d / "closed" / "in")
    put(d / "closed" / "in" / "f", b"x")
    os.chmod(d / "closed" / "in" / "f", 0o666)
    os.chmod(d / "closed" / "in", 0o777)
    get(d / "closed" / "in" / "f")
    os.chmod(d / "closed", 0o700)
    for action in (lambda: os.stat(d / "closed" / "in" / "f"), lambda: get(d / "closed" / "in" / "f"),
                   lambda: os.listdir(d / "closed"), lambda: os.stat(d / "closed" / "no")):
        as_user(A, A, expect(errno.EACCES, action))
    os.chmod(d / "closed", 0o711)
    assert as_user(A, A, lambda: get(d / "closed" / "in" / "f")) == b"x"
    as_user(A, A, expect(errno.EACCES, lambda: os.listdir(d / "closed")))
    os.chmod(d / "closed", 0o744)
    as_user(A, A, expect(errno.EACCES, lambda: os.stat(d / "closed" / "in")))
    assert as_user(A, A, lambda: os.listdir(d / "closed")) == ["in"]


def test_directory_write_permission(d):
    os.mkdir(d / "dir")
    put(d / "dir" / "f", b"x")
    os.mkdir(d / "dir" / "sub")
    os.chmod(d / "dir", 0o755)
    for action in (lambda: put(d / "dir" / "new"), lambda: os.mkdir(d / "dir" / "new"),
                   lambda: os.unlink(d / "dir" / "f"), lambda: os.rmdir(d / "dir" / "sub"),
                   lambda: os.symlink("x", d / "dir" / "new"), lambda: os.mkfifo(d / "dir" / "new"),
                   lambda: os.rename(d / "dir" / "f", d / "dir" / "g"),
                   lambda: os.rename(d / "dir" / "f", d / "g")):
        as_user(A, A, expect(errno.EACCES, action))
    assert sorted(os.listdir(d / "dir")) == ["f", "sub"]


def test_new_nodes_belong_to_their_maker(d):
    def make():
        put(d / "f")
        os.mkdir(d / "dir")
        os.symlink("x", d / "l")
        os.mkfifo(d / "p")

    as_user(A, B, make)
    for name in ("f", "dir", "l", "p"):
        st = os.lstat(d / name)
        assert (st.st_uid, st.st_gid) == (A, B), name


def test_umask(d):
    def make():
        os.close(os.open(d / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(d / "dir", 0o777)
        os.mkfifo(d / "p", 0o666)

    as_user(A, A, make, umask=0o037)
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(d / "dir").st_mode) == 0o740
    assert stat.S_IMODE(os.stat(d / "p").st_mode) == 0o640


def test_sticky_directory(d):
    os.chmod(d, 0o1777)
    as_user(A, A, lambda: put(d / "f", b"a"))
    os.chmod(d / "f", 0o666)
    for action in (lambda: os.unlink(d / "f"), lambda: os.rename(d / "f", d / "g")):
        as_user(B, B, expect(errno.EPERM, action))
    as_user(B, B, lambda: put(d / "mine"))
    as_user(B, B, expect(errno.EPERM, lambda: os.rename(d / "mine", d / "f")))
    as_user(A, A, lambda: os.unlink(d / "f"))


def test_setgid_directory(d):
    os.mkdir(d / "team")
    os.chown(d / "team", 0, B)
    os.chmod(d / "team", 0o2777)
    as_user(A, A, lambda: (put(d / "team" / "f"), os.mkdir(d / "team" / "sub")))
    assert os.stat(d / "team" / "f").st_gid == B
    st = os.stat(d / "team" / "sub")
    assert st.st_gid == B and st.st_mode & stat.S_ISGID
    assert not os.stat(d / "team" / "f").st_mode & stat.S_ISGID


def test_only_the_owner_changes_mode_owner_times(d):
    put(d / "f", b"x")
    os.chown(d / "f", A, A)
    os.chmod(d / "f", 0o666)
    as_user(B, B, expect(errno.EPERM, lambda: os.chmod(d / "f", 0o777)))
    as_user(B, B, expect(errno.EPERM, lambda: os.chown(d / "f", B, -1)))
    as_user(A, A, expect(errno.EPERM, lambda: os.chown(d / "f", B, -1)))
    as_user(A, A, expect(errno.EPERM, lambda: os.chown(d / "f", -1, B)))
    as_user(A, A, lambda: os.chown(d / "f", -1, B), groups=[B])
    assert os.stat(d / "f").st_gid == B
    as_user(B, B, expect(errno.EPERM, lambda: os.utime(d / "f", (1, 1))))
    as_user(B, B, lambda: os.utime(d / "f"))  # who may write may say "now"
    os.chmod(d / "f", 0o644)
    as_user(B, 4242, expect(errno.EACCES, lambda: os.utime(d / "f")))
    as_user(A, A, lambda: os.utime(d / "f", (1, 1)))
    assert os.stat(d / "f").st_mtime == 1


def test_setgid_needs_the_group(d):
    put(d / "f")
    os.chown(d / "f", A, B)
    as_user(A, A, lambda: os.chmod(d / "f", 0o2755))
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o755


def test_access(d):
    put(d / "f")
    os.chown(d / "f", A, A)
    os.chmod(d / "f", 0o640)
    assert as_user(A, A, lambda: os.access(d / "f", os.R_OK | os.W_OK))
    assert not as_user(A, A, lambda: os.access(d / "f", os.X_OK))
    assert not as_user(B, B, lambda: os.access(d / "f", os.R_OK))
    assert os.access(d / "f", os.R_OK | os.W_OK)
    assert not os.access(d / "f", os.X_OK)


def test_access_on_a_mount_of_ones_own(mount):
    """Without allow_other nothing is checked but what execve refuses too: which, git's hooks and test -x ask."""
    put(mount / "f", b"#!/bin/sh\n")
    for mode, runs in ((0o600, False), (0o700, True), (0o644, False), (0o100, True), (0, False)):
        os.chmod(mount / "f", mode)
        assert os.access(mount / "f", os.X_OK) == runs
        assert os.access(mount / "f", os.R_OK | os.W_OK)
        if not runs:
            with fails(errno.EACCES):
                os.execv(mount / "f", ["f"])
    assert os.access(mount.mnt, os.X_OK) and not os.access(mount / "none", os.F_OK)
    run("pwd", cwd=mount.mnt)


def test_write_after_open_survives_chmod(d):
    """Rights are checked at open, not at every write."""
    def work():
        fd = os.open(d / "f", os.O_CREAT | os.O_RDWR, 0o600)
        os.fchmod(fd, 0)
        os.write(fd, b"still mine")
        return os.pread(fd, 100, 0)

    assert as_user(A, A, work) == b"still mine"


def test_creating_read_only(d):
    """open(O_CREAT|O_WRONLY, 0400) gives a writable descriptor on a file that is not."""
    def work():
        fd = os.open(d / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
        os.write(fd, b"once")
        os.close(fd)
        with fails(errno.EACCES):
            os.open(d / "f", os.O_WRONLY)

    as_user(A, A, work)
    assert get(d / "f") == b"once"


@pytest.mark.emdb
def test_without_allow_other_nobody_else_gets_in(make_mount):
    mount = make_mount()
    os.chmod(mount.mnt, 0o777)
    put(mount / "f", b"x")
    os.chmod(mount / "f", 0o666)
    as_user(A, A, expect(errno.EACCES, lambda: os.stat(mount / "f")))
    as_user(A, A, expect(errno.EACCES, lambda: os.listdir(mount.mnt)))


OTHERS_MOUNT = """
import errno, os, sys
os.chdir(sys.argv[1])
def refused(code, fn, *args):
    try:
        fn(*args)
    except OSError as err:
        assert err.errno == code, err
    else:
        raise AssertionError(f"{fn.__name__}{args} was allowed")
open("f", "w").write("x")
os.chmod("f", 0o444)
refused(errno.EACCES, open, "f", "w")
refused(errno.EPERM, os.chown, "f", 0, 0)
assert not os.access("f", os.W_OK) and not os.access("f", os.X_OK)
os.mkdir("d", 0o000)
refused(errno.EACCES, open, "d/new", "w")
refused(errno.EACCES, os.listdir, "d")
os.chmod("d", 0o700)
open("d/new", "w").close()
"""


def test_a_users_own_mount_checks_permissions():
    """Permission bits count for an ordinary user, also where nobody else can enter."""
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("/dev/fuse is not for everybody here")
    place = tempfile.mkdtemp()
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    try:
        os.chown(place, 65534, 65534)
        mnt = os.path.join(place, "mnt")
        subprocess.run([*user, "mkdir", mnt], check=True)
        subprocess.run([*user, binary("emdbfs"), os.path.join(place, "store"), mnt], check=True, timeout=30)
        try:
            subprocess.run([*user, "/usr/bin/python3", "-c", OTHERS_MOUNT, mnt], check=True)
        finally:
            subprocess.run([*user, "fusermount3", "-u", mnt], check=True, timeout=30)
    finally:
        shutil.rmtree(place, ignore_errors=True)
