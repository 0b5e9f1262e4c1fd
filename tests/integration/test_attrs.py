# SPDX-License-Identifier: Apache-2.0
"""setattr: mode, owner, times; statfs."""

import errno
import os
import stat
import subprocess
import time

import pytest

from harness import as_user, birth_time, fails, libfuse_version, get, put, run

NS = 10**9


def root_only():
    if os.getuid() != 0:
        pytest.skip("needs root")


# ---- mode ----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 0o400, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o7777])
def test_chmod(d, mode):
    put(d / "f", b"data")
    before = os.stat(d / "f")
    os.chmod(d / "f", mode)
    st = os.stat(d / "f")
    assert stat.S_IMODE(st.st_mode) == mode and stat.S_ISREG(st.st_mode)
    assert st.st_mtime_ns == before.st_mtime_ns and st.st_ctime_ns >= before.st_ctime_ns
    os.mkdir(d / "s")
    os.chmod(d / "s", mode)
    assert stat.S_IMODE(os.stat(d / "s").st_mode) == mode


def test_chmod_through_a_descriptor(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR, 0o600)
    os.fchmod(fd, 0o640)
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o640
    os.unlink(d / "f")
    os.fchmod(fd, 0o604)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o604
    os.close(fd)


def test_chmod_missing(d):
    with fails(errno.ENOENT):
        os.chmod(d / "no", 0o600)
    with fails(errno.ENOENT):
        os.chown(d / "no", 0, 0)
    with fails(errno.ENOENT):
        os.utime(d / "no")


# ---- owner ---------------------------------------------------------------


def test_chown(d):
    root_only()
    put(d / "f")
    for uid, gid in ((1, 2), (0, 0), (65534, 100), (2**32 - 2, 2**32 - 2)):
        os.chown(d / "f", uid, gid)
        st = os.stat(d / "f")
        assert (st.st_uid, st.st_gid) == (uid, gid)
    os.chown(d / "f", 5, -1)
    assert (os.stat(d / "f").st_uid, os.stat(d / "f").st_gid) == (5, 2**32 - 2)
    os.chown(d / "f", -1, 6)
    assert (os.stat(d / "f").st_uid, os.stat(d / "f").st_gid) == (5, 6)
    os.symlink("f", d / "l")
    os.lchown(d / "l", 7, 8)
    assert (os.lstat(d / "l").st_uid, os.stat(d / "f").st_uid) == (7, 5)


def test_chown_clears_set_id_bits(d):
    root_only()
    put(d / "f")
    os.chown(d / "f", 1000, 1000)
    os.chmod(d / "f", 0o6755)
    as_user(1000, 1000, lambda: os.chown(d / "f", -1, 1000))
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o755
    os.chmod(d / "f", 0o6755)
    os.chown(d / "f", 1001, -1)
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o755
    (d / "dir").mkdir()
    os.chmod(d / "dir", 0o6775)
    os.chown(d / "dir", 1000, 1000)
    assert stat.S_IMODE(os.stat(d / "dir").st_mode) == 0o6775, "of a directory they mean something else"


def test_writing_clears_set_id_bits(d):
    """By anyone but root; set-gid without group execute means locking and stays."""
    root_only()
    for mode, want in ((0o6777, 0o777), (0o4666, 0o666), (0o2666, 0o2666)):
        put(d / "f", b"x")
        os.chmod(d / "f", mode)
        os.chown(d / "f", 1000, 1000)
        os.chmod(d / "f", mode)

        def write():
            fd = os.open(d / "f", os.O_WRONLY)
            os.write(fd, b"y")
            os.close(fd)

        as_user(1000, 1000, write)
        assert stat.S_IMODE(os.stat(d / "f").st_mode) == want, oct(mode)
        os.chmod(d / "f", mode)
        as_user(1000, 1000, lambda: os.truncate(d / "f", 0))
        assert stat.S_IMODE(os.stat(d / "f").st_mode) == want, oct(mode)
        os.unlink(d / "f")


def test_writing_as_root_keeps_set_id_bits(d):
    root_only()
    put(d / "f", b"x")
    os.chmod(d / "f", 0o4755)
    fd = os.open(d / "f", os.O_WRONLY)
    os.write(fd, b"y")
    os.close(fd)
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o4755


# ---- times ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "dir", "link", "fifo"])
def test_utimes_ns(d, kind):
    path = d / "x"
    {"file": lambda: put(path), "dir": lambda: os.mkdir(path),
     "link": lambda: os.symlink("nowhere", path), "fifo": lambda: os.mkfifo(path)}[kind]()
    for atime, mtime in ((1, 2), (1_234_567_890_123_456_789, 987_654_321_987_654_321),
                         (0, 0), (4_102_444_800 * NS + 999_999_999, 17)):
        os.utime(path, ns=(atime, mtime), follow_symlinks=False)
        st = os.lstat(path)
        assert (st.st_atime_ns, st.st_mtime_ns) == (atime, mtime)


def test_times_before_1970_and_after_2038(d):
    put(d / "f")
    for when in (-1, -NS, -1_000_000_000 * NS + 5, 2**31 * NS, 2**33 * NS + 7):
        os.utime(d / "f", ns=(when, when))
        assert os.stat(d / "f").st_mtime_ns == when


def test_utime_now_and_omit(d):
    put(d / "f")
    os.utime(d / "f", ns=(5 * NS, 6 * NS))
    run("touch", "-m", d / "f")
    st = os.stat(d / "f")
    assert st.st_atime_ns == 5 * NS and abs(st.st_mtime - time.time()) < 5
    os.utime(d / "f", ns=(5 * NS, 6 * NS))
    run("touch", "-a", d / "f")
    st = os.stat(d / "f")
    assert st.st_mtime_ns == 6 * NS and abs(st.st_atime - time.time()) < 5
    os.utime(d / "f")
    st = os.stat(d / "f")
    assert abs(st.st_mtime - time.time()) < 5 and st.st_mtime_ns == st.st_atime_ns


def test_what_changes_which_time(d):
    def times():
        st = os.stat(d / "f")
        return st.st_mtime_ns, st.st_ctime_ns

    put(d / "f", b"x")
    fd = os.open(d / "f", os.O_RDWR)
    both = {"write": lambda: os.write(fd, b"y"), "truncate": lambda: os.ftruncate(fd, 10),
            "grow": lambda: os.ftruncate(fd, 20),
            "o_trunc": lambda: os.close(os.open(d / "f", os.O_WRONLY | os.O_TRUNC))}
    change = {"chmod": lambda: os.chmod(d / "f", 0o600), "link": lambda: os.link(d / "f", d / "g"),
              "unlink": lambda: os.unlink(d / "g"),
              "setxattr": lambda: os.setxattr(d / "f", "user.x", b"1"),
              "chown": lambda: os.chown(d / "f", os.getuid(), os.getgid())}
    for name, action in both.items():
        before = times()
        time.sleep(0.012)
        action()
        after = times()
        assert after[0] > before[0] and after[1] > before[1], name
    for name, action in change.items():
        before = times()
        time.sleep(0.012)
        action()
        after = times()
        assert after[0] == before[0] and after[1] > before[1], name
    before = times()
    os.read(fd, 1)
    get(d / "f")
    assert times() == before
    os.close(fd)


def test_mtime_set_while_open_for_writing(d):
    """cp -p and tar set the times before closing; close must not change them."""
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"data" * 5000)
    os.utime(fd, ns=(11 * NS + 1, 12 * NS + 2))
    os.close(fd)
    st = os.stat(d / "f")
    assert (st.st_atime_ns, st.st_mtime_ns) == (11 * NS + 1, 12 * NS + 2)
    assert get(d / "f") == b"data" * 5000
    assert os.stat(d / "f").st_mtime_ns == 12 * NS + 2


def test_empty_write_and_same_size_truncate(d):
    put(d / "f", b"x")
    os.utime(d / "f", ns=(NS, NS))
    fd = os.open(d / "f", os.O_WRONLY)
    os.write(fd, b"")
    assert os.stat(d / "f").st_mtime_ns == NS
    os.close(fd)
    os.truncate(d / "f", 1)
    assert get(d / "f") == b"x"


def test_birth_time(shared, d):
    """Where the kernel can ask (statx through libfuse 3.18), it must be right; else none."""
    before = time.time_ns()
    put(d / "f")
    born = birth_time(d / "f")
    if born is None:
        assert libfuse_version(shared.native) < (3, 18)
        return
    assert abs(born - before) < 5 * NS
    os.utime(d / "f", ns=(1, 1))
    put(d / "f", b"more")
    assert birth_time(d / "f") == born


# ---- statfs --------------------------------------------------------------


def test_statvfs(shared, d):
    st = os.statvfs(d)
    assert st.f_namemax == 255
    assert st.f_bsize > 0 and st.f_frsize > 0
    assert 0 < st.f_bavail <= st.f_bfree <= st.f_blocks
    if not shared.native:
        host = os.statvfs(shared.store)
        assert st.f_blocks * st.f_frsize == pytest.approx(host.f_blocks * host.f_frsize, rel=0.5)
        assert st.f_bavail * st.f_frsize == pytest.approx(host.f_bavail * host.f_frsize, rel=0.2)


@pytest.mark.emdb
def test_df_names_type_and_store(shared):
    line = run("df", "-T", shared.mnt).stdout.splitlines()[1].split()
    assert line[0] == str(shared.store) and line[1] == "fuse.emdbfs"
    assert line[-1] == str(shared.mnt)


@pytest.mark.emdb
def test_inodes_in_df(mount):
    before = os.statvfs(mount.mnt)
    for i in range(100):
        put(mount / f"f{i}")
    after = os.statvfs(mount.mnt)
    assert (after.f_files - after.f_ffree) - (before.f_files - before.f_ffree) == 100


def test_du(d):
    put(d / "f", b"x" * 1_000_000)
    with open(d / "sparse", "wb") as f:
        f.truncate(100_000_000)
    used = int(run("du", "-s", "--block-size=1", d / "f").stdout.split()[0])
    assert 1_000_000 <= used < 1_300_000
    assert int(run("du", "-s", "--block-size=1", d / "sparse").stdout.split()[0]) < 100_000
    assert int(run("du", "-b", d / "sparse").stdout.split()[0]) == 100_000_000


def test_stat_programs(d):
    put(d / "f", b"hello")
    out = run("stat", "-c", "%s %F %h", d / "f").stdout.strip()
    assert out == "5 regular file 1"
    for command in (["ls", "-la", d], ["touch", d / "f"], ["file", d / "f"]):
        subprocess.run([str(c) for c in command], check=False, capture_output=True)
    assert run("test", "-w", d / "f").returncode == 0
