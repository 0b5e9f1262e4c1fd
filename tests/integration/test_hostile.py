# SPDX-License-Identifier: Apache-2.0
"""What a local user cannot do through somebody else's mount, and what nobody can make the daemon spend."""

import contextlib
import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from harness import as_user, binary, fails, get, put, run, wait_until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become other users")

A, B = 1000, 1001  # users; groups of the same numbers
MIB = 1 << 20


def refused(uid, action, *codes):
    def check():
        with fails(*(codes or (errno.EACCES, errno.EPERM))):
            action()
    as_user(uid, uid, check)


def memory(mount):
    """Anonymous memory of the daemon, bytes."""
    with open(f"/proc/{mount.proc.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))


def sanitized(mount):
    with open(f"/proc/{mount.proc.pid}/maps") as f:
        maps = f.read()
    return "asan" in maps or "tsan" in maps


# ---- The store ------------------------------------------------------------


@pytest.mark.emdb
def test_the_store_is_its_owners_alone(make_mount):
    mount = make_mount(["allow_other"])
    put(mount / "f", b"secret")
    run(binary("emdb"), "snapshot", "create", mount.store, "s")
    found = 0
    for where, dirs, files in os.walk(mount.store):
        assert stat.S_IMODE(os.stat(where).st_mode) == 0o700, where
        refused(A, lambda where=where: os.listdir(where))
        for name in files:
            path = os.path.join(where, name)
            assert stat.S_IMODE(os.lstat(path).st_mode) & 0o077 == 0, path
            refused(A, lambda path=path: os.open(path, os.O_RDONLY))
            refused(A, lambda path=path: os.open(path, os.O_WRONLY))
            found += 1
    assert found > 3


@pytest.mark.emdb
def test_the_control_socket_is_its_owners_alone(make_mount):
    mount = make_mount(["allow_other"])
    path = str(mount.store / "control.sock")
    assert stat.S_ISSOCK(os.stat(path).st_mode)

    def connect():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(path)

    refused(A, connect)
    # Where everybody could walk to it, it still lets only its owner in.
    for directory in (mount.store, mount.base):
        os.chmod(directory, 0o755)
    refused(A, connect)
    emdb = [binary("emdb"), "snapshot", "create"]
    user = ["setpriv", f"--reuid={A}", f"--regid={A}", "--clear-groups"]
    for where in (mount.store, mount.mnt):
        done = subprocess.run([*user, *emdb, where, "x"], capture_output=True, text=True, check=False)
        assert done.returncode not in (0, 3) and done.stderr, done
    assert run(binary("emdb"), "snapshot", "list", mount.store).stdout.strip() == ""


# ---- Other users' files ------------------------------------------------------


def test_open_files_of_others(d):
    """Neither by name nor by the descriptor of who has it open, named or not."""
    for unlink in (False, True):
        put(d / "f", b"secret")
        os.chown(d / "f", A, A)
        os.chmod(d / "f", 0o600)
        code = (f"import os, sys; fd = os.open({str(d / 'f')!r}, os.O_RDWR); {'os.unlink' if unlink else 'os.stat'}"
                f"({str(d / 'f')!r}); print(fd, flush=True); sys.stdin.read()")
        holder = subprocess.Popen(["setpriv", f"--reuid={A}", f"--regid={A}", "--clear-groups", "/usr/bin/python3", "-c",
                                   code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            fd = int(holder.stdout.readline())
            path = f"/proc/{holder.pid}/fd/{fd}"
            assert get(path) == b"secret"
            refused(B, lambda: get(path))
            refused(B, lambda: os.truncate(path, 0))
            assert get(path) == b"secret"
            if not unlink:
                refused(B, lambda: get(d / "f"))
        finally:
            holder.stdin.close()
            holder.wait()


@pytest.mark.emdb
def test_the_daemons_descriptors(mount):
    refused(A, lambda: os.listdir(f"/proc/{mount.proc.pid}/fd"))
    refused(A, lambda: get(f"/proc/{mount.proc.pid}/mem"))


def test_metadata_of_others(d):
    """Deadlines, keys and stored attributes are as well guarded as the file."""
    put(d / "f", b"x")
    os.chown(d / "f", A, A)
    os.chmod(d / "f", 0o600)
    os.chmod(d, 0o777)
    as_user(A, A, lambda: os.setxattr(d / "f", "user.note", b"x"))
    for name in ("user.emdb.ttl", "user.emdb.expires", "user.note"):
        refused(B, lambda name=name: os.setxattr(d / "f", name, b"1"))
    refused(B, lambda: os.removexattr(d / "f", "user.note"))
    for name in ("user.note", "user.emdb.key", "user.emdb.lsn"):
        refused(B, lambda name=name: os.getxattr(d / "f", name))
    (d / "dir").mkdir(mode=0o755)
    refused(B, lambda: os.setxattr(d / "dir", "user.emdb.ttl.default", b"1"))
    refused(B, lambda: os.setxattr(d / "dir", "user.emdb.ttl.basis", b"modify"))
    refused(B, lambda: os.setxattr(d / "f", "trusted.x", b"x"))
    refused(B, lambda: os.getxattr(d / "f", "trusted.x"), errno.ENODATA, errno.EPERM, errno.EACCES)
    refused(B, lambda: os.chmod(d / "f", 0o777))
    refused(B, lambda: os.utime(d / "f", (0, 0)))
    assert get(d / "f") == b"x" and os.getxattr(d / "f", "user.note") == b"x"


def test_names_in_closed_directories(d):
    """What the kernel has cached for one user it does not tell another."""
    (d / "home").mkdir()
    os.chown(d / "home", A, A)
    os.chmod(d / "home", 0o700)
    as_user(A, A, lambda: put(d / "home" / "f", b"x"))
    assert as_user(A, A, lambda: get(d / "home" / "f")) == b"x"
    refused(B, lambda: os.stat(d / "home" / "f"))
    refused(B, lambda: os.stat(d / "home" / "absent"))
    refused(B, lambda: os.listdir(d / "home"))
    refused(B, lambda: os.rename(d / "home" / "f", d / "g"))
    refused(B, lambda: os.link(d / "home" / "f", d / "g"))
    assert os.listdir(d) == ["home"]


# ---- Links and paths ------------------------------------------------------------


def test_symlinks_lead_nobody_further(shared, d, scratch):
    """The daemon follows none: the kernel does, with the rights of whoever asks."""
    put(scratch / "outside", b"root's")
    os.chmod(scratch / "outside", 0o600)
    for target in (scratch / "outside", shared.store, "/etc/shadow", "../" * 40 + "etc/shadow"):
        as_user(A, A, lambda target=target: os.symlink(target, d / "link"))
        refused(A, lambda: os.listdir(d / "link") if os.path.isdir(target) else get(d / "link"))
        as_user(A, A, lambda: os.rename(d / "link", d / "renamed"))
        as_user(A, A, lambda: os.unlink(d / "renamed"))
        assert os.path.exists(target) or "shadow" in str(target)
    assert get(scratch / "outside") == b"root's"
    os.symlink("loop", d / "loop")
    with fails(errno.ELOOP):
        get(d / "loop")


@pytest.mark.emdb
@pytest.mark.parametrize("key", ["../../../../tmp/escaped", "/etc/passwd", "..", ".", "a/../../b", ".snap/x"])
def test_keys_that_look_like_paths(mount, key):
    """They are names like others: nothing outside is read, written or removed by them."""
    run(binary("emdb"), "put", "--escaped", mount.store, "".join(f"%{c:02X}" for c in key.encode()), "value")
    name, = os.listdir(mount.mnt)
    assert "/" not in name and name not in (".", "..") and get(mount / name) == b"value"
    put(mount / name, b"changed")
    os.rename(mount / name, mount / "plain")
    assert get(mount / "plain") == b"changed" and os.listdir(mount.mnt) == ["plain"]


def test_devices_and_set_id_programs(shared, d):
    """An ordinary user cannot make a device, and none here is one; no program here raises rights."""
    refused(A, lambda: os.mknod(d / "dev", stat.S_IFCHR | 0o666, os.makedev(1, 3)), errno.EPERM)
    if not shared.native:
        with open("/proc/self/mounts") as f:
            options = next(line.split()[3] for line in f if line.split()[1] == str(shared.mnt)).split(",")
        assert "nosuid" in options and "nodev" in options
        os.mknod(d / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with fails(errno.EACCES):
            os.open(d / "null", os.O_RDWR)
        run("cp", "/usr/bin/id", d / "id")
        os.chmod(d / "id", 0o4755)
        assert as_user(A, A, lambda: subprocess.check_output([d / "id", "-u"])).strip() == str(A).encode()


# ---- Means -------------------------------------------------------------------


@pytest.mark.emdb
def test_memory_with_thousands_of_open_files(mount):
    """Open, some of them unlinked: the daemon keeps little for each, and nothing afterwards."""
    if sanitized(mount):
        pytest.skip("a sanitizer keeps freed memory")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(20_000, hard - 200) // 2 * 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 200, hard))
    fds = []
    try:
        before = memory(mount)
        for i in range(count):
            fds.append(os.open(mount / f"f{i}", os.O_CREAT | os.O_RDWR))
            os.write(fds[-1], b"%d" % i)
        for i in range(0, count, 2):
            os.unlink(mount / f"f{i}")
        grown = memory(mount) - before
        print(f"{count} open files, half of them unlinked: {grown / count:.0f} bytes each")
        assert grown < 64 * MIB
        for i in (0, 1, count // 2, count - 1):
            assert os.pread(fds[i], 10, 0) == b"%d" % i
    finally:
        for fd in fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir(mount.mnt)) == count // 2


LISTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
dirs = [libc.opendir(os.fsencode(sys.argv[1])) for _ in range(50)]
for handle in dirs:
    assert libc.readdir(ctypes.c_void_p(handle))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.emdb
def test_slow_clients_hold_nobody_up(mount):
    """Stopped in the middle of listing, reading and waiting, they cost no memory and block no one."""
    (mount / "dir").mkdir()
    for i in range(3000):
        os.close(os.open(mount / "dir" / f"a-rather-long-name-of-a-file-{i}", os.O_CREAT | os.O_WRONLY))
    os.mkfifo(mount / "fifo")
    put(mount / "big", b"x" * (8 * MIB))
    before = memory(mount)
    slow = [subprocess.Popen([sys.executable, "-c", LISTER, mount / "dir"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE) for _ in range(8)]
    slow += [subprocess.Popen(["cat", mount / "fifo"], stdout=subprocess.DEVNULL)]
    slow += [subprocess.Popen(["cat", mount / "big"], stdout=subprocess.PIPE) for _ in range(8)]
    try:
        for p in slow[:8]:
            assert p.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        for p in slow:
            p.send_signal(signal.SIGSTOP)
        for i in range(300):
            put(mount / f"f{i}", b"x")
            os.rename(mount / f"f{i}", mount / "dir" / f"f{i}")
            os.unlink(mount / "dir" / f"f{i}")
        assert len(os.listdir(mount / "dir")) == 3000
        if not sanitized(mount):
            assert memory(mount) - before < 32 * MIB
    finally:
        for p in slow:
            with contextlib.suppress(ProcessLookupError):
                p.kill()
            p.wait()
    assert wait_until(lambda: get(mount / "big") == b"x" * (8 * MIB), 10)


@pytest.mark.emdb
@pytest.mark.long
def test_memory_with_a_million_files_looked_up(mount):
    """The kernel decides how many the daemon has to know; each costs little."""
    count = 1_000_000
    (mount / "dir").mkdir()
    fd = os.open(mount / "dir", os.O_RDONLY)
    for i in range(count):
        os.mknod(f"f{i}", dir_fd=fd)
    os.close(fd)
    mount.remount()
    before = memory(mount)
    assert int(run("sh", "-c", f"find {mount.mnt}/dir -type f -links 1 -size -1 | wc -l").stdout) == count
    grown = memory(mount) - before
    print(f"{count} files looked up: {grown / count:.0f} bytes each")
    assert grown < 256 * MIB
