# SPDX-License-Identifier: Apache-2.0
"""Snapshots as directories: ROOT/.snap, and mounting one alone."""

import errno
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import (Dir, as_user, binary, fails, fingerprint, get, need, put, run,
                     same_trees, wait_until)

pytestmark = pytest.mark.emdb

SNAP_INO = 1 << 61


def fill(where, mark):
    """A small tree with everything in it that a tree can have."""
    os.makedirs(where / "d/e", exist_ok=True)
    put(where / "d/file", f"file {mark}\n" * 50)
    put(where / "d/e/big", os.urandom(300_000))
    put(where / "d/empty")
    os.chmod(where / "d/file", 0o640)
    os.link(where / "d/file", where / "d/e/linked")
    os.symlink("e/big", where / "d/link")
    os.mkfifo(where / "fifo")
    os.setxattr(where / "d/file", "user.colour", b"blue")
    os.utime(where / "d/empty", ns=(10**18 + 1, 10**18 + 2))
    with open(where / "d/holes", "wb") as f:
        f.truncate(1 << 20)
        f.seek(1 << 19)
        f.write(b"middle")


def inodes(root):
    found = {}
    for where, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(where, name)
            found[os.path.relpath(path, root)] = os.lstat(path).st_ino
    return found


def without_ids(prints):
    return {path: {k: v for k, v in info.items() if k != "ino"} for path, info in prints.items()}


def status(mount):
    """The line that the daemon logs when asked."""
    before = mount.log.stat().st_size
    mount.proc.send_signal(signal.SIGUSR1)
    assert wait_until(lambda: b"requests" in mount.log.read_bytes()[before:], 10)
    return mount.log.read_bytes()[before:].decode()


def open_count(mount):
    return int(re.search(r"snapshots open (\d+)", status(mount)).group(1))


def test_a_directory_that_is_not_listed(mount):
    snap = mount / ".snap"
    assert os.listdir(mount.mnt) == []
    assert os.listdir(snap) == []
    assert os.stat(snap).st_mode & 0o7777 == 0o755
    with fails(errno.EEXIST):
        os.mkdir(snap)
    with fails(errno.EISDIR):
        put(snap)
    with fails(errno.EPERM):
        os.rmdir(snap)
    put(mount / "x")
    for action in (os.rename, os.replace):
        with fails(errno.EPERM, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR):
            action(mount / "x", snap)
    with fails(errno.EPERM):
        os.rename(snap, mount / "y")
    with fails(errno.EPERM):
        os.chmod(snap, 0o777)
    with fails(errno.EPERM):
        put(snap / "file")
    with fails(errno.EPERM):
        os.symlink("x", snap / "other")
    # Elsewhere the name is a name.
    os.makedirs(mount / "d/.snap")
    assert os.listdir(mount / "d") == [".snap"]


def test_make_rename_remove(mount):
    snap = mount / ".snap"
    fill(mount.mnt, 1)
    before = fingerprint(mount.mnt)
    os.mkdir(snap / "monday")
    assert sorted(os.listdir(snap)) == ["latest", "monday"]
    same_trees(without_ids(before), without_ids(fingerprint(snap / "monday")))
    shutil.rmtree(mount / "d")
    os.unlink(mount / "fifo")
    fill(mount.mnt, 2)
    same_trees(without_ids(before), without_ids(fingerprint(snap / "monday")))
    os.mkdir(snap / "tuesday")
    assert os.readlink(snap / "latest") == "tuesday"
    same_trees(without_ids(fingerprint(mount.mnt)), without_ids(fingerprint(snap / os.readlink(snap / "latest"))))
    os.rename(snap / "tuesday", snap / "dienstag")
    assert os.readlink(snap / "latest") == "dienstag"
    with fails(errno.EEXIST):
        os.mkdir(snap / "monday")
    with fails(errno.EEXIST, errno.ENOTEMPTY):
        os.rename(snap / "monday", snap / "dienstag")
    for name in (".hidden", "new\nline"):
        with fails(errno.EINVAL):
            os.mkdir(snap / name)
    os.rmdir(snap / "dienstag")
    assert sorted(os.listdir(snap)) == ["latest", "monday"]
    assert wait_until(lambda: os.readlink(snap / "latest") == "monday", 5)
    os.rmdir(snap / "monday")
    assert os.listdir(snap) == []
    assert not os.path.exists(snap / "monday")
    assert wait_until(lambda: not os.path.lexists(snap / "latest"), 5)
    with fails(errno.EINVAL):
        os.mkdir(snap / "latest")


def test_nothing_inside_can_be_changed(mount):
    fill(mount.mnt, 1)
    os.mkdir(mount / ".snap/s")
    s = mount / ".snap/s"
    before = fingerprint(s)
    attempts = [
        lambda: put(s / "new"), lambda: os.mkdir(s / "new"), lambda: os.symlink("x", s / "new"),
        lambda: os.mkfifo(s / "new"), lambda: os.link(s / "d/file", s / "new"),
        lambda: os.unlink(s / "d/file"), lambda: os.rmdir(s / "d/e"), lambda: put(s / "d/file", b"x"),
        lambda: os.rename(s / "d", s / "n"), lambda: os.rename(s / "d", mount / "n"),
        lambda: os.rename(mount / "d", s / "n"), lambda: os.chmod(s / "d", 0o777),
        lambda: os.chown(s / "d/file", 1, 1), lambda: os.utime(s / "d/file"),
        lambda: os.truncate(s / "d/file", 0), lambda: os.setxattr(s / "d/file", "user.x", b""),
        lambda: os.removexattr(s / "d/file", "user.colour"),
        lambda: os.setxattr(s / "d/file", "user.emdb.ttl", b"1s"), lambda: os.chmod(s, 0o777),
    ]
    for attempt in attempts:
        with fails(errno.EROFS):
            attempt()
    with fails(errno.EXDEV):
        os.link(s / "d/file", mount / "outside")
    with fails(errno.EPERM):
        os.rename(s, mount / "outside")
    # A descriptor for writing is given out by the kernel alone; nothing comes through it.
    fd = os.open(s / "d/file", os.O_WRONLY)
    with fails(errno.EROFS):
        os.write(fd, b"overwritten")
    with fails(errno.EROFS):
        os.ftruncate(fd, 3)
    os.close(fd)
    same_trees(before, fingerprint(s))


def test_inode_numbers(mount):
    fill(mount.mnt, 1)
    os.mkdir(mount / ".snap/a")
    os.mkdir(mount / ".snap/b")
    live, a, b = (inodes(p) for p in (mount.mnt, mount / ".snap/a", mount / ".snap/b"))
    assert live.keys() == a.keys() == b.keys()
    sets = [set(x.values()) for x in (live, a, b)]
    assert all(not x & y for x, y in ((sets[0], sets[1]), (sets[0], sets[2]), (sets[1], sets[2])))
    assert [len(x) for x in sets] == [len(live) - 1] * 3  # one is linked
    assert all(i < SNAP_INO for i in sets[0]) and all(i >= SNAP_INO for i in sets[1] | sets[2])
    # d_ino is st_ino.
    with Dir(mount / ".snap/a/d") as d:
        listed = {}
        while entry := d.read():
            listed[entry[0].decode()] = entry[2]
    assert listed["file"] == a["d/file"] and listed["."] == a["d"]
    assert listed[".."] == os.stat(mount / ".snap/a").st_ino
    roots = [os.stat(mount / f".snap/{n}").st_ino for n in "ab"]
    os.rename(mount / ".snap/a", mount / ".snap/c")
    mount.remount()
    assert inodes(mount / ".snap/c") == a and inodes(mount / ".snap/b") == b
    assert [os.stat(mount / f".snap/{n}").st_ino for n in "cb"] == roots
    os.rmdir(mount / ".snap/b")
    os.mkdir(mount / ".snap/b")
    assert not set(inodes(mount / ".snap/b").values()) & sets[2]


def test_time_stands_still_inside(mount):
    put(mount / "f", b"for a moment")
    os.setxattr(mount / "f", "user.emdb.ttl", b"1500ms")
    os.mkdir(mount / ".snap/s")
    made = float(os.getxattr(mount / ".snap/s", "user.emdb.snap.btime"))
    assert abs(made - time.time()) < 60
    assert os.getxattr(mount / ".snap/s/f", "user.emdb.snap.btime") == \
        os.getxattr(mount / ".snap/s", "user.emdb.snap.btime")
    with fails(errno.ENODATA):
        os.getxattr(mount / "f", "user.emdb.snap.btime")
    left = os.getxattr(mount / ".snap/s/f", "user.emdb.ttl")
    assert wait_until(lambda: not os.path.exists(mount / "f"), 10)
    time.sleep(0.3)
    assert get(mount / ".snap/s/f") == b"for a moment"
    assert os.getxattr(mount / ".snap/s/f", "user.emdb.ttl") == left
    mount.remount()
    assert get(mount / ".snap/latest/f") == b"for a moment"


def test_the_command_line_is_seen_at_once(mount):
    snap = mount / ".snap"

    def emdb(*args):
        run(binary("emdb"), "snapshot", args[0], mount.store, *args[1:])

    put(mount / "f", b"1")
    for n in range(5):
        assert not os.path.exists(snap / f"s{n}")
        emdb("create", f"s{n}")
        assert os.readlink(snap / "latest") == f"s{n}"
        assert sorted(os.listdir(snap)) == ["latest"] + [f"s{i}" for i in range(n + 1)]
        assert get(snap / f"latest/f") == b"1"
    emdb("rename", "s4", "new")
    assert os.readlink(snap / "latest") == "new" and not os.path.exists(snap / "s4")
    assert get(snap / "new/f") == b"1"
    emdb("delete", "new")
    assert not os.path.exists(snap / "new") and os.readlink(snap / "latest") == "s3"
    os.rmdir(snap / "s3")
    os.mkdir(snap / "by-hand")
    assert "by-hand" in run(binary("emdb"), "snapshot", "list", mount.mnt).stdout
    made = run(binary("emdb"), "snapshot", "create", "--json", mount.mnt, "said").stdout
    assert made in run(binary("emdb"), "snapshot", "list", "--json", mount.mnt).stdout
    emdb("delete", "s0", "s1", "s2", "by-hand", "said")
    assert os.listdir(snap) == [] and not os.path.lexists(snap / "latest")


def test_removed_while_in_use(mount):
    put(mount / "top", b"top" * 100_000)
    os.mkdir(mount / "d")
    put(mount / "d/f", b"below" * 100_000)
    for n in ("a", "b"):
        os.mkdir(mount / f".snap/{n}")
    with open(mount / ".snap/a/top", "rb") as top, open(mount / ".snap/b/d/f", "rb") as below:
        assert top.read(3) == b"top"
        os.rmdir(mount / ".snap/a")
        run(binary("emdb"), "snapshot", "delete", mount.store, "b")
        put(mount / "top", b"")
        put(mount / "d/f", b"")
        assert os.listdir(mount / ".snap") == []
        for fd in (top.fileno(), below.fileno()):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert top.read() == (b"top" * 100_000)[3:]
        assert below.read() == b"below" * 100_000
        assert open_count(mount) == 2
    # Who was the last to use it has let go, whatever the kernel keeps in its caches.
    assert wait_until(lambda: open_count(mount) == 0, 60, 0.3), status(mount)
    os.mkdir(mount / ".snap/a")
    assert get(mount / ".snap/a/top") == b""


def test_few_are_open_at_once(mount):
    for n in range(12):
        put(mount / "f", f"{n}".encode())
        os.mkdir(mount / f".snap/{n:02}")
    assert open_count(mount) == 0
    names = sorted(os.listdir(mount / ".snap"))[:-1]
    assert open_count(mount) == 0
    for name in names:
        os.stat(mount / f".snap/{name}")
    assert wait_until(lambda: open_count(mount) <= 4, 30, 0.3)
    for n, name in enumerate(names):
        assert get(mount / f".snap/{name}/f") == f"{n}".encode()
    # Files of all were read, and the kernel remembers those.
    assert open_count(mount) == 12
    for name in names:
        os.rmdir(mount / f".snap/{name}")
    assert wait_until(lambda: open_count(mount) == 0, 60, 0.3)


def test_options(make_mount):
    mount = make_mount(["snapdir=visible", "snapdirname=.zfs"])
    put(mount / ".snap", b"an ordinary name")
    os.mkdir(mount / ".zfs/s")
    assert sorted(os.listdir(mount.mnt)) == [".snap", ".zfs"]
    assert get(mount / ".zfs/s/.snap") == b"an ordinary name"
    assert not os.path.exists(mount / ".zfs/s/.zfs")
    with os.scandir(mount.mnt) as entries:
        kinds = {e.name: (e.is_dir(follow_symlinks=False), e.inode()) for e in entries}
    assert kinds[".zfs"] == (True, os.stat(mount / ".zfs").st_ino)
    mount.remount(["snapdir=disabled"])
    assert os.listdir(mount.mnt) == ["%emdb=.snap"]
    assert not os.path.exists(mount / ".snap")
    with fails(errno.EPERM):
        os.mkdir(mount / ".snap")
    mount.remount(["snapdir=hidden"])
    assert get(mount / ".snap/s/%emdb=.snap") == b"an ordinary name"
    mount.remount(["writeback"])
    assert not os.path.exists(mount / ".snap")
    mount.remount(["ro"])
    assert os.listdir(mount / ".snap/s") == ["%emdb=.snap"]
    with fails(errno.EROFS):
        os.mkdir(mount / ".snap/t")
    mount.stop()
    for bad in ("snapdir=maybe", "snapdirname=a/b", "snapdirname=", "snapdirname=..", "snapdir",
                "snapdir=hidden,writeback", "snapshot="):
        done = subprocess.run(mount.command([bad]), text=True, capture_output=True)
        assert done.returncode == 2 and bad.split("=")[0].split(",")[0] in done.stderr, bad


def test_only_owner_and_root(make_mount):
    mount = make_mount(["allow_other"])
    put(mount / "secret", b"x")
    os.chmod(mount / "secret", 0o600)
    put(mount / "open", b"y")
    os.mkdir(mount / ".snap/s")

    def other():
        with fails(errno.EACCES, errno.EPERM):
            os.mkdir(mount / ".snap/mine")
        with fails(errno.EACCES, errno.EPERM):
            os.rmdir(mount / ".snap/s")
        with fails(errno.EACCES, errno.EPERM):
            os.rename(mount / ".snap/s", mount / ".snap/t")
        with fails(errno.EACCES):
            get(mount / ".snap/s/secret")
        return get(mount / ".snap/s/open"), sorted(os.listdir(mount / ".snap"))

    assert as_user(12345, 12345, other) == (b"y", ["latest", "s"])
    os.chown(mount.store, 12345, 12345)
    mount.remount()
    as_user(12345, 12345, lambda: os.mkdir(mount / ".snap/mine"))
    assert sorted(os.listdir(mount / ".snap")) == ["latest", "mine", "s"]


def test_one_mounted_alone(mount, make_mount):
    fill(mount.mnt, 1)
    want = fingerprint(mount.mnt)
    os.mkdir(mount / ".snap/old")
    os.mkdir(mount / "later")
    os.mkdir(mount / ".snap/new")
    alone = make_mount(["snapshot=old"], store=mount.store)
    same_trees(want, fingerprint(alone.mnt))  # the numbers are those of the store
    assert not os.path.exists(alone / ".snap")
    with fails(errno.EROFS):
        put(alone / "x")
    assert os.getxattr(alone / "d", "user.emdb.snap.btime") == \
        os.getxattr(mount / ".snap/old", "user.emdb.snap.btime")
    latest = make_mount(["snapshot=latest"], store=mount.store)
    assert os.path.isdir(latest / "later")
    # It needs nothing of the live store, nor its own name.
    shutil.rmtree(mount / "d")
    os.rmdir(mount / ".snap/old")
    mount.stop()
    same_trees(want, fingerprint(alone.mnt))
    alone.stop()
    for name in ("nothing", "../x", ".tmp"):
        done = subprocess.run(alone.command([f"snapshot={name}"]), text=True, capture_output=True)
        assert done.returncode == 1 and name in done.stderr


def test_in_an_encrypted_store(make_mount, scratch):
    put(scratch / "pass", b"word\n")
    secret = f"passfile={scratch}/pass"
    mount = make_mount(["encrypt", secret])
    fill(mount.mnt, 1)
    want = fingerprint(mount.mnt)
    os.mkdir(mount / ".snap/s")
    shutil.rmtree(mount / "d")
    same_trees(without_ids(want), without_ids(fingerprint(mount / ".snap/s")))
    alone = make_mount(["snapshot=s", secret], store=mount.store)
    same_trees(want, fingerprint(alone.mnt))


def test_tools_inside(mount, scratch):
    need("rsync", "tar", "git", "diff")
    git = ["git", "-C", mount / "work", "-c", "user.name=x", "-c", "user.email=x@y"]
    fill(mount.mnt, 1)
    os.makedirs(mount / "work")
    run(*git, "init", "-q")
    put(mount / "work/a", b"a\n")
    run(*git, "add", ".")
    run(*git, "commit", "-qm", "one")
    # What has the same second as now rsync takes for unchanged.
    for where, dirs, files in os.walk(mount.mnt):
        for name in dirs + files + ["."]:
            os.utime(os.path.join(where, name), ns=(10**18, 10**18 + 3), follow_symlinks=False)
    os.mkdir(mount / ".snap/s")
    snap = mount / ".snap/s"
    want = fingerprint(snap, full=False)
    put(mount / "work/a", b"b\n")
    run("cp", "-a", snap, scratch / "cp")
    run("rsync", "-aHX", f"{snap}/", scratch / "rsync/")
    run("tar", "-C", snap, "--xattrs", "-cf", scratch / "t.tar", ".")
    os.mkdir(scratch / "tar")
    run("tar", "-C", scratch / "tar", "--xattrs", "-xpf", scratch / "t.tar")
    for copy in ("cp", "rsync", "tar"):
        print(copy)
        same_trees(want, fingerprint(scratch / copy, full=False))
    assert run("diff", "-r", snap / "d", mount / "d", ok=(0,)).stdout == ""
    assert "differ" in run("diff", "-rq", snap / "work", mount / "work", ok=(1,)).stdout
    inside = ["git", "-c", "safe.directory=*", "-C", snap / "work"]
    assert run(*inside, "log", "--format=%s").stdout == "one\n"
    run(*inside, "fsck", "--strict")
    assert run(*inside, "show", "HEAD:a").stdout == "a\n"
    found = run("find", mount.mnt, "-name", "big").stdout.split()
    assert found == [f"{mount.mnt}/d/e/big"]
    assert run("find", snap, "-name", "big").stdout.split() == [f"{snap}/d/e/big"]
    # Taken from a snapshot and put back, it is what it was.
    shutil.rmtree(mount / "work")
    run("cp", "-a", snap / "work", mount / "work")
    assert run(*git, "status", "--porcelain").stdout == ""


def test_while_it_is_made_others_write(mount):
    """Two descriptors, one order of writes: no snapshot has the second without the first."""
    code = ("import os,sys\n"
            "a=os.open(sys.argv[1]+'/a',os.O_CREAT|os.O_WRONLY)\n"
            "b=os.open(sys.argv[1]+'/b',os.O_CREAT|os.O_WRONLY)\n"
            "n=0\n"
            "while True:\n"
            " n+=1\n"
            " os.pwrite(a,b'%010d'%n,0); os.pwrite(b,b'%010d'%n,0)\n")
    writer = subprocess.Popen(["/usr/bin/python3", "-c", code, str(mount.mnt)])
    try:
        assert wait_until(lambda: os.path.exists(mount / "b"), 30)
        seen = []
        for n in range(10):
            os.mkdir(mount / f".snap/{n}")
            a, b = (int(get(mount / f".snap/{n}/{f}") or b"0") for f in "ab")
            assert b <= a <= b + 1
            seen.append(a)
        assert seen == sorted(seen) and seen[-1] > seen[0]
    finally:
        writer.kill()
        writer.wait()
