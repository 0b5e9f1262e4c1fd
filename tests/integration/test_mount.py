# SPDX-License-Identifier: Apache-2.0
"""Mounting, unmounting, options, and what must be refused without changing anything."""

import errno
import os
import signal
import stat
import subprocess
import time

import pytest

from harness import Mount, binary, fails, fingerprint, get, is_mounted, put, run, wait_until

pytestmark = pytest.mark.emdb


@pytest.fixture
def places(scratch):
    """(store, mountpoint) that do not exist yet and an empty directory."""
    (scratch / "mnt").mkdir()
    yield scratch / "store", scratch / "mnt"
    if is_mounted(str(scratch / "mnt")):
        subprocess.run(["fusermount3", "-uz", scratch / "mnt"], check=False)


def emdbfs(*args, timeout=20):
    program = binary("emdbfs")
    if program is None:
        pytest.skip("no emdbfs")
    return subprocess.run([program, *map(str, args)], text=True, capture_output=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, check=False)


def refused(done, *words, code=None):
    """A non-zero exit and one clear message on stderr; nothing on stdout."""
    assert done.returncode > 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    if code is not None:
        assert done.returncode in (code if isinstance(code, tuple) else (code,)), done.stderr
    assert done.stdout == ""
    assert 0 < len(done.stderr) < 2000
    for word in words:
        assert str(word).lower() in done.stderr.lower(), done.stderr


def disk(path):
    """Everything below a directory on the host, with times: to see that nothing was touched."""
    return fingerprint(path)


# ---- starting and ending -------------------------------------------------


def test_background(places):
    """Without -f: silent, returns when the mount is ready, and the daemon ends on unmount."""
    store, mnt = places
    done = emdbfs(store, mnt)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert is_mounted(str(mnt))
    put(mnt / "f", b"at once")
    assert get(mnt / "f") == b"at once"
    run("fusermount3", "-u", mnt)
    # The store can be opened again as soon as the daemon has ended.
    assert wait_until(lambda: emdbfs(store, mnt).returncode == 0, 20, 0.1)
    assert get(mnt / "f") == b"at once"
    run("umount" if os.getuid() == 0 else "fusermount3", *([] if os.getuid() == 0 else ["-u"]), mnt)
    assert wait_until(lambda: emdbfs(store, mnt, "-o", "ro").returncode == 0, 20, 0.1)
    run("fusermount3", "-u", mnt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(mount, number):
    put(mount / "f", b"kept")
    os.kill(mount.proc.pid, number)
    assert mount.proc.wait(20) == 0
    mount._forget()
    assert not is_mounted(str(mount.mnt))
    mount.start()
    assert get(mount / "f") == b"kept"


def test_store_files_are_private(mount):
    put(mount / "f", b"x")
    assert stat.S_IMODE(os.stat(mount.store).st_mode) == 0o700
    for where, dirs, files in os.walk(mount.store):
        for name in dirs:
            assert stat.S_IMODE(os.stat(os.path.join(where, name)).st_mode) == 0o700, name
        for name in files:
            assert stat.S_IMODE(os.lstat(os.path.join(where, name)).st_mode) & 0o077 == 0, name


def test_unmounting_a_busy_mount(mount):
    put(mount / "f", b"x")
    with open(mount / "f", "rb") as f:
        assert subprocess.run(["fusermount3", "-u", mount.mnt], capture_output=True,
                              check=False).returncode != 0
        assert f.read() == b"x"
    mount.stop()


@pytest.mark.parametrize("command", [["check"], ["repair", "--dry-run"], ["ls"]], ids=lambda c: c[0])
def test_commands_right_after_an_unmount(mount, command):
    """umount(8) does not wait for the daemon to close the store: whoever needs the store for himself does."""
    with open(mount / "large", "wb") as f:
        for _ in range(64):
            f.write(os.urandom(1 << 20))
    run("fusermount3", "-u", mount.mnt)
    run(binary("emdb"), *command, mount.store)
    assert mount.proc.wait(20) == 0
    mount._forget()
    mount.start()
    assert os.stat(mount / "large").st_size == 64 << 20


def test_lazy_unmount_keeps_open_files_working(mount):
    fd = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"before ")
    run("fusermount3", "-u", "-z", mount.mnt)
    os.write(fd, b"after")
    assert os.pread(fd, 100, 0) == b"before after"
    os.close(fd)
    assert mount.proc.wait(20) == 0
    mount._forget()
    mount.start()
    assert get(mount / "f") == b"before after"


def test_idle_daemon_does_not_spin(mount):
    put(mount / "f", b"x")
    time.sleep(1)

    def cpu():
        with open(f"/proc/{mount.proc.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = cpu()
    time.sleep(2)
    assert cpu() - before <= 10  # ticks of 10 ms


def test_no_descriptors_leak(mount):
    def count():
        return len(os.listdir(f"/proc/{mount.proc.pid}/fd"))

    for i in range(20):
        put(mount / f"f{i}", b"x" * 5000)
    before = count()
    for i in range(300):
        put(mount / f"f{i}", b"y" * 5000)
        get(mount / f"f{i}")
        os.listdir(mount.mnt)
        os.unlink(mount / f"f{i}")
    assert count() <= before + 3


# ---- options -------------------------------------------------------------


def test_help_and_version():
    for flag in ("-h", "--help"):
        done = emdbfs(flag)
        assert done.returncode == 0 and "usage" in done.stdout.lower() and done.stderr == ""
    for flag in ("-V", "--version"):
        done = emdbfs(flag)
        assert done.returncode == 0 and "emdbfs" in done.stdout


def test_read_only(mount):
    put(mount / "f", b"x")
    os.mkdir(mount / "dir")
    os.setxattr(mount / "f", "user.a", b"1")
    mount.remount(["ro"])
    assert get(mount / "f") == b"x" and os.getxattr(mount / "f", "user.a") == b"1"
    for action in (lambda: put(mount / "new"), lambda: put(mount / "f", b"y"),
                   lambda: os.mkdir(mount / "d2"), lambda: os.unlink(mount / "f"),
                   lambda: os.rmdir(mount / "dir"), lambda: os.rename(mount / "f", mount / "g"),
                   lambda: os.chmod(mount / "f", 0o600), lambda: os.truncate(mount / "f", 0),
                   lambda: os.setxattr(mount / "f", "user.b", b"1"),
                   lambda: os.setxattr(mount / "f", "user.emdb.ttl", b"1h"),
                   lambda: os.symlink("x", mount / "l"), lambda: os.link(mount / "f", mount / "g"),
                   lambda: os.utime(mount / "f")):
        with fails(errno.EROFS):
            action()
    mount.stop()
    before = disk(mount.store / "journal")
    mount.start(["ro"])
    assert os.listdir(mount / "dir") == []
    mount.stop()
    assert disk(mount.store / "journal") == before


def test_read_only_needs_a_store(places):
    store, mnt = places
    done = emdbfs(store, mnt, "-f", "-o", "ro")
    refused(done, code=10)
    assert not store.exists()


def test_fstab_options_are_swallowed(make_mount):
    m = make_mount(["nofail", "_netdev", "x-systemd.automount", "X-mount.mkdir", "noauto", "user", "rw"])
    put(m / "f", b"x")
    assert get(m / "f") == b"x"


def test_noxattr(make_mount):
    m = make_mount(["noxattr"])
    put(m / "f", b"x")
    with fails(errno.EOPNOTSUPP):
        os.setxattr(m / "f", "user.a", b"1")
    with fails(errno.EOPNOTSUPP):
        os.getxattr(m / "f", "user.a")
    run("cp", "-a", m / "f", m / "g")
    run("ls", "-la", m.mnt)
    # Deadlines come by the daemon's socket all the same.
    run(binary("emdb"), "ttl", "set", m.store, "f", "1h")
    assert 3590 < int(run(binary("emdb"), "ttl", "get", m.store, "f").stdout) <= 3600
    run(binary("emdb"), "ttl", "set", m.store, "g", "@1")
    assert not os.path.exists(m / "g")


@pytest.mark.parametrize("options", [["sync"], ["commit=1"], ["commit=0"], ["writeback"], ["max_threads=1"],
                                     ["max_threads=8"], ["atime"], ["relatime"], ["verify=always"],
                                     ["verify=never"], ["segment_size=1M"], ["segment-size=1M"],
                                     ["default_permissions"], ["nosuid", "nodev", "noexec"]])
def test_options_that_change_how_not_what(make_mount, options):
    m = make_mount(options)
    os.makedirs(m / "a" / "b")
    for i in range(100):
        put(m / "a" / f"f{i}", b"%d" % i * 300)
    os.rename(m / "a", m / "c")
    put(m / "big", os.urandom(3_000_000))
    fd = os.open(m / "c" / "f5", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"more")
    os.fsync(fd)
    os.close(fd)
    m.stop()
    m.start()
    before = fingerprint(m.mnt)
    assert get(m / "c" / "f5") == b"5" * 300 + b"more"
    m.remount([])
    after = fingerprint(m.mnt)
    assert before.keys() == after.keys()
    for path in before:
        assert before[path].get("data") == after[path].get("data")


def test_noexec(make_mount):
    m = make_mount(["noexec"])
    put(m / "s", b"#!/bin/sh\nexit 0\n")
    os.chmod(m / "s", 0o755)
    with fails(errno.EACCES):
        subprocess.run([m / "s"], check=False)


def test_atime_option(make_mount):
    for options, moves in ((["atime"], True), ([], False)):
        m = make_mount(options)
        put(m / "f", b"x" * 100)
        os.utime(m / "f", ns=(10**18, 10**18))
        m.remount()
        get(m / "f")
        assert wait_until(lambda m=m: os.stat(m / "f").st_atime_ns != 10**18, 0.5) == moves


# ---- refusals ------------------------------------------------------------


@pytest.mark.parametrize("option", ["nonsense", "segment_size=3M", "segment_size=x", "commit=-1", "ttl=soon",
                                    "ttl_on_replace=maybe", "max_threads=0", "verify=sometimes",
                                    "nonsense=1,ro", "commit", "password=x"])
def test_bad_option(places, option):
    store, mnt = places
    done = emdbfs(store, mnt, "-f", "-o", option)
    refused(done, option.split("=")[0].split(",")[0], code=(1, 2))
    assert not store.exists() and not is_mounted(str(mnt))


def test_usage(places):
    store, mnt = places
    for args in ([], [store], [store, mnt, "third"], ["-Z", store, mnt], [store, mnt, "-o"]):
        refused(emdbfs(*args), code=2)
    assert not store.exists()


def test_mountpoint_missing_or_a_file(places):
    store, mnt = places
    refused(emdbfs(store, mnt / "no", "-f"), mnt / "no")
    put(mnt / "file")
    refused(emdbfs(store, mnt / "file", "-f"), mnt / "file")
    assert not store.exists()


def test_mountpoint_not_empty(places):
    store, mnt = places
    put(mnt / "precious", b"x")
    refused(emdbfs(store, mnt, "-f"), "empty")
    assert not store.exists() and get(mnt / "precious") == b"x"


def test_mountpoint_and_store_overlap(scratch):
    store = scratch / "a"
    (store / "in").mkdir(parents=True)
    (scratch / "b").mkdir()
    before = disk(scratch)
    refused(emdbfs(store, store / "in", "-f"))
    refused(emdbfs(scratch / "b" / "store", scratch / "b", "-f"))
    refused(emdbfs(scratch / "b", scratch / "b", "-f"))
    os.symlink("b", scratch / "link")
    refused(emdbfs(scratch / "link" / "store", scratch / "b", "-f"))
    os.unlink(scratch / "link")
    after = disk(scratch)
    before.pop(b"."), after.pop(b".")
    assert before == after


def test_mountpoint_inside_a_real_store(mount):
    put(mount / "f", b"x")
    mount.stop()
    inside = mount.store / "journal"
    before = disk(mount.store)
    refused(emdbfs(mount.store, inside, "-f"))
    refused(emdbfs(mount.base / "other", inside, "-f"))
    assert disk(mount.store) == before


def test_not_a_store(scratch):
    """A directory with somebody's files in it, a file, a socket: nothing is created or changed."""
    (scratch / "mnt").mkdir()
    (scratch / "home").mkdir()
    put(scratch / "home" / "letter.txt", b"dear")
    put(scratch / "file", b"not a directory")
    os.mkfifo(scratch / "fifo")
    before = disk(scratch)
    for name in ("home", "file", "fifo"):
        refused(emdbfs(scratch / name, scratch / "mnt", "-f"), name)
    assert disk(scratch) == before


def test_store_below_a_missing_directory(places):
    store, mnt = places
    refused(emdbfs(store / "deeper" / "store", mnt, "-f"))
    assert not store.exists()


def test_store_in_use(mount, scratch):
    put(mount / "f", b"x")
    (scratch / "mnt").mkdir()
    done = emdbfs(mount.store, scratch / "mnt", "-f")
    refused(done, str(mount.proc.pid), code=11)
    done = emdbfs(mount.store, scratch / "mnt")
    refused(done, str(mount.proc.pid), code=11)
    assert not is_mounted(str(scratch / "mnt"))
    assert get(mount / "f") == b"x"


def test_damaged_superblock(mount):
    put(mount / "f", b"x")
    mount.stop()
    superblock = mount.store / "superblock"
    good = get(superblock)
    for damaged in (b"", good[:10], bytes(len(good)), good[:20] + bytes([good[20] ^ 1]) + good[21:],
                    os.urandom(len(good))):
        put(superblock, damaged)
        before = disk(mount.store)
        refused(emdbfs(mount.store, mount.mnt, "-f"))
        assert disk(mount.store) == before
        assert not is_mounted(str(mount.mnt))
    put(superblock, good)
    mount.start()
    assert get(mount / "f") == b"x"


def test_missing_manifest_or_segment(mount):
    for i in range(50):
        put(mount / f"f{i}", os.urandom(20_000))
    mount.stop()
    victims = [p for p in mount.store.iterdir() if p.name == "manifest"]
    victims += sorted((mount.store / "journal").iterdir())[:1]
    assert victims
    for victim in victims:
        moved = mount.base / "moved"
        os.rename(victim, moved)
        before = disk(mount.store)
        done = emdbfs(mount.store, mount.mnt, "-f")
        refused(done)
        # The lock file may say who tried; data files are as they were.
        after = disk(mount.store)
        assert {k: v for k, v in before.items() if k not in (b".", b"lock")} == {
            k: v for k, v in after.items() if k not in (b".", b"lock")}
        os.rename(moved, victim)
    mount.start()
    assert len(os.listdir(mount.mnt)) == 50


def test_dead_mount_at_the_mountpoint(mount):
    """What a killed daemon left there is taken away by the next one, instead of hanging."""
    put(mount / "f", b"x")
    mount.die()
    assert is_mounted(str(mount.mnt))
    with fails(errno.ENOTCONN, errno.ECONNABORTED):
        os.stat(mount / "f")
    done = emdbfs(mount.store, mount.mnt)
    assert (done.returncode, done.stdout) == (0, "")
    try:
        assert get(mount / "f") == b"x"
        with open("/proc/self/mounts") as f:
            assert sum(str(mount.mnt) in line for line in f) == 1, "not one over the other"
    finally:
        run("fusermount3", "-u", mount.mnt)


def test_dead_mount_that_the_kernel_remembers(mount):
    """The root's attributes are cached: stat(2) of a dead mount can succeed."""
    put(mount / "f", b"x")
    os.stat(mount.mnt)
    os.listdir(mount.mnt)
    os.stat(mount.mnt)
    mount.die()
    os.stat(mount.mnt)
    with fails(errno.ENOTCONN, errno.ECONNABORTED):
        os.statvfs(mount.mnt)
    done = emdbfs(mount.store, mount.mnt)
    assert (done.returncode, done.stdout) == (0, "")
    try:
        assert get(mount / "f") == b"x"
    finally:
        run("fusermount3", "-u", mount.mnt)


def test_live_mount_at_the_mountpoint(mount, scratch):
    """Another mount there is nobody's to take away."""
    put(mount / "f", b"x")
    refused(emdbfs(scratch / "store", mount.mnt, "-f"))
    assert get(mount / "f") == b"x" and not (scratch / "store").exists()


def test_strange_paths(scratch):
    """A store and a mountpoint with blanks, commas and quotes in their names."""
    base = scratch / "a b,c=d'\"\\ü"
    base.mkdir()
    m = Mount(base)
    try:
        m.start()
        put(m / "f", b"x")
        assert get(m / "f") == b"x"
        assert run("df", "--output=source", m.mnt).stdout.splitlines()[1].startswith(str(scratch))
    finally:
        m.dispose()


def test_relative_paths(scratch):
    """Both are found again although the daemon leaves its directory."""
    (scratch / "mnt").mkdir()
    program = binary("emdbfs")
    subprocess.run([program, "store", "mnt"], cwd=scratch, check=True)
    try:
        put(scratch / "mnt" / "f", b"x")
        for i in range(20):
            put(scratch / "mnt" / f"big{i}", os.urandom(5_000_000))
        assert (scratch / "store" / "superblock").exists()
    finally:
        run("fusermount3", "-u", scratch / "mnt")


def test_killed_while_it_starts(make_mount, rng):
    """At any moment, also while the daemon looks at its own mount, kill -9 ends it."""
    m = make_mount(start=False)
    for _ in range(15):
        m.start()
        time.sleep(rng.random() * 0.005)
        m.kill9()
