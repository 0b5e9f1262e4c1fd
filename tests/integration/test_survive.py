# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to the daemon, nobody waits for ever: dead, suspended, told to end, failing below."""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import syncer
from harness import HERE, Mount, binary, get, is_mounted, need, put, syncfs, wait_until

pytestmark = pytest.mark.emdb

SYNCER = HERE / "syncer.py"
# What a call that lost its daemon may say.
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EINTR}

# ---- Every call in flight ------------------------------------------------


def prepare(mount):
    """Files for calls(), opened before the daemon stops, and nothing of them in the kernel's memory."""
    root = mount.mnt
    os.mkdir(root / "dir")
    for name in ("read", "write", "sync", "cut", "gone", "old", "xattr", "mode", "lock", "from", "to", "map", "seek"):
        put(root / name, b"x" * 100_000)
    os.symlink("target", root / "link")
    os.setxattr(root / "xattr", "user.a", b"1")
    mount.remount()
    fds = {name: os.open(root / name, os.O_RDWR) for name in
           ("read", "write", "sync", "cut", "lock", "from", "to", "map", "seek")}
    fds["root"] = os.open(root, os.O_RDONLY)
    return root, fds


def map_and_read(fd):
    with mmap.mmap(fd, 100_000, prot=mmap.PROT_READ) as m:
        return m[50_000]


def calls(root, fds):
    return {
        "create": lambda: os.open(root / "new", os.O_CREAT | os.O_WRONLY),
        "open": lambda: os.open(root / "old", os.O_RDONLY),
        "lookup": lambda: os.stat(root / "nobody"),
        "read": lambda: os.pread(fds["read"], 5000, 0),
        "write": lambda: os.pwrite(fds["write"], b"y" * 5000, 0),
        "fsync": lambda: os.fsync(fds["sync"]),
        "fsyncdir": lambda: os.fsync(fds["root"]),
        "syncfs": lambda: syncfs(fds["root"]),
        "truncate": lambda: os.ftruncate(fds["cut"], 10),
        "fallocate": lambda: os.posix_fallocate(fds["cut"], 0, 500_000),
        "unlink": lambda: os.unlink(root / "gone"),
        "mkdir": lambda: os.mkdir(root / "made"),
        "rmdir": lambda: os.rmdir(root / "dir"),
        "rename": lambda: os.rename(root / "mode", root / "renamed"),
        "link": lambda: os.link(root / "old", root / "linked"),
        "symlink": lambda: os.symlink("x", root / "sym"),
        "readlink": lambda: os.readlink(root / "link"),
        "getxattr": lambda: os.getxattr(root / "xattr", "user.a"),
        "setxattr": lambda: os.setxattr(root / "xattr", "user.b", b"2"),
        "listdir": lambda: os.listdir(root),
        "statfs": lambda: os.statvfs(root),
        "flock": lambda: fcntl.flock(fds["lock"], fcntl.LOCK_EX),
        "lockf": lambda: fcntl.lockf(fds["lock"], fcntl.LOCK_EX),
        "copy": lambda: os.copy_file_range(fds["from"], fds["to"], 50_000, 0, 0),
        "map": lambda: map_and_read(fds["map"]),
        "seek": lambda: os.lseek(fds["seek"], 0, os.SEEK_HOLE),
    }


def suspend(mount):
    """All of its threads, so that none has a request in hand that it will not answer."""
    os.kill(mount.proc.pid, signal.SIGSTOP)
    tasks = f"/proc/{mount.proc.pid}/task"

    def stopped():
        return all(get(f"{tasks}/{t}/stat").rsplit(b")")[-1].split()[0] == b"T" for t in os.listdir(tasks))

    assert wait_until(stopped, 20)


def in_child(call):
    """The pid of a child that makes the call and ends with its errno."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            call()
        except OSError as err:
            code = err.errno
        except BaseException:
            code = 255
        os._exit(code)
    return pid


def waits_for_answer(pid):
    """Of the daemon, and not of somebody else who waits for that."""
    return wait_until(lambda: get(f"/proc/{pid}/wchan") == b"request_wait_answer", 1)


def ends(pid, timeout):
    """Its exit status; None when it does not end."""
    status = []

    def look():
        got, value = os.waitpid(pid, os.WNOHANG)
        if got:
            status.append(value)
        return bool(got)

    return status[0] if wait_until(look, timeout, 0.02) else None


@pytest.mark.timeout(180)
def test_every_call_in_flight_ends_with_the_daemon(mount):
    root, fds = prepare(mount)
    suspend(mount)
    children = {name: in_child(call) for name, call in calls(root, fds).items()}
    time.sleep(1)
    waiting = [name for name, pid in children.items() if os.waitpid(pid, os.WNOHANG)[0] == 0]
    assert len(waiting) >= 20, f"only these wait for the daemon: {waiting}"
    mount.die()
    for name in waiting:
        status = ends(children[name], 30)
        if status is None:
            os.kill(children[name], signal.SIGKILL)
            pytest.fail(f"{name} hangs although the daemon is dead")
        if name == "map":
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
        else:
            # These the kernel answers by itself, late when the machine is busy.
            allowed = GONE | {0} if name in ("syncfs", "flock", "lockf") else GONE
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) in allowed, (name, status)
    for fd in fds.values():
        with contextlib.suppress(OSError):
            os.close(fd)
    mount.kill9()
    mount.start()
    assert get(mount / "old") == b"x" * 100_000


@pytest.mark.long
@pytest.mark.timeout(180)
def test_suspended_daemon(mount):
    """
    Who waits for it can be killed, as long as it has not read the request; all others go on when it does.

    The kernel (request_wait_answer() in fs/fuse/dev.c) takes a request back for a signal that kills only while
    it is in its own queue. One that the daemon has read, or that has to be made (FLUSH, as the files of who dies are
    closed), is waited for without end. A thread that was just reading as it was stopped has read one, so that
    a killed fsync may end only with the answer, which was seen once.
    """
    root, fds = prepare(mount)
    suspend(mount)
    try:
        children = {name: in_child(call) for name, call in calls(root, fds).items()}
        time.sleep(1)
        waiting = [name for name, pid in children.items() if os.waitpid(pid, os.WNOHANG)[0] == 0]
        # The others may wait for the lock of a directory or page in the kernel, which nobody can be killed out of.
        killed = [name for name in ("fsync", "statfs") if name in waiting and waits_for_answer(children[name])]
        assert "statfs" in killed
        for name in killed:
            os.kill(children[name], signal.SIGKILL)
        stuck = [name for name in killed if ends(children[name], 30) is None]
        assert "statfs" not in stuck, "nothing can be killed"
    finally:
        os.kill(mount.proc.pid, signal.SIGCONT)
    for name in stuck:
        assert ends(children[name], 30) is not None, f"{name} hangs though the daemon goes on\n{mount.stacks()}"
    for name in set(waiting) - set(killed):
        status = ends(children[name], 30)
        assert status is not None, f"{name} hangs\n{mount.stacks()}"
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, errno.ENOENT, errno.EEXIST), (name, status)
    for fd in fds.values():
        os.close(fd)
    put(mount / "after", b"x")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_under_load(mount, number, rng):
    """It ends in good order although files are open and being written; what was acknowledged is there."""
    root, log = mount / "work", mount.base / "operations"
    root.mkdir()
    with subprocess.Popen([sys.executable, SYNCER, root, log, str(rng.randrange(1 << 30))],
                          stderr=subprocess.DEVNULL) as work:
        assert wait_until(lambda: log.exists() and log.stat().st_size > 3000, 30)
        os.kill(mount.proc.pid, number)
        assert mount.proc.wait(40) == 0
        mount._forget()
        work.wait(40)
    assert not is_mounted(str(mount.mnt))
    mount.start()
    with open(log, "rb") as f:
        ops = [op for op in map(json.loads, f) if isinstance(op, list)]
    files, states = {}, []
    for op in ops:
        states.append(dict(files))
        syncer.apply(files, op)
    states.append(files)
    found = {name: get(root / name) for name in os.listdir(root)}
    # The last operation was under way.
    assert any({n: syncer.data_of(t).ljust(4096, b"\0") if t else b"" for n, t in s.items()} == found
               for s in states[-2:])


# ---- Every system call of the daemon fails ---------------------------------

WORKLOAD = """
import os, sys
root = sys.argv[1]
for i in range(12):
    with open(f"{root}/f{i}", "wb") as f:
        f.write(b"%d" % i * 20000)
    fd = os.open(root, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    print(i, flush=True)
    if i % 4 == 3:
        os.rename(f"{root}/f{i}", f"{root}/r{i}")
        os.unlink(f"{root}/f{i - 1}")
"""


class Traced(Mount):
    """A daemon under strace, which makes one of its calls fail or kills it there."""

    inject = None

    def command(self, options, foreground=True):
        args = super().command(options, foreground)
        if not self.inject:
            return args
        return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + self.inject.split(":")[0],
                "-e", "inject=" + self.inject, *args[args.index(binary("emdbfs")):]]


def one_injection(base, inject):
    """Mounts with it, works, and looks at what is left without it. How far the work came."""
    m = Traced(base, ["segment_size=1M", "commit=0"])
    m.inject = inject
    try:
        m.start()
    except BaseException:
        m.inject = None
        return -1 if not is_mounted(str(m.mnt)) else 0
    finally:
        daemon = m.proc
    work = subprocess.run([sys.executable, "-c", WORKLOAD, m.mnt], capture_output=True, text=True,
                          timeout=60, check=False)
    synced = len(work.stdout.split())
    said = m.tail(1 << 20)
    assert not re.search("Sanitizer|Assertion|SIGSEGV", said), said[-2000:]
    m.kill9()
    if daemon:
        subprocess.run(["pkill", "-9", "-P", str(daemon.pid)], check=False)
    m.inject = None
    m.start()
    for i in range(synced):
        for name in (f"f{i}", f"r{i}"):
            if os.path.exists(m / name):
                assert get(m / name) == b"%d" % i * 20000, f"{inject}: {name}"
                break
        else:
            # The unlinked one, whose unlink need not be synced.
            assert i % 4 == 2, f"{inject}: f{i} is gone"
    m.stop()
    return synced


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_every_system_call_fails_or_kills(scratch):
    need("strace")
    cases = failed = 0
    for call, errors in (("pwrite64", ["EIO", "ENOSPC", "EINTR"]), ("pwritev", ["EIO"]),
                         ("fdatasync", ["EIO", "EINTR"]), ("fsync", ["EIO"]), ("fallocate", ["ENOSPC", "EINTR"]),
                         ("openat", ["EMFILE", "EINTR"]), ("renameat", ["EIO"]), ("unlinkat", ["EIO"]),
                         ("mmap", ["ENOMEM"])):
        for what in [f"error={e}" for e in errors] + ["signal=KILL"]:
            for when in (1, 2, 3, 5, 8, 13, 21, 34):
                base = scratch / f"c{cases}"
                base.mkdir()
                done = one_injection(base, f"{call}:{what}:when={when}")
                cases += 1
                failed += done < 12
    print(f"{cases} injections, {failed} of them stopped the work, lost: 0")
    assert failed > 20
