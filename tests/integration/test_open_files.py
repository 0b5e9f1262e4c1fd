# SPDX-License-Identifier: Apache-2.0
"""Open files: without a name, shared, mapped, locked, appended to by many."""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from harness import fails, get, put, wait_until

# ---- without a name ------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 5000, 20000, 1_500_000])
def test_unlinked_file_lives_until_closed(d, size):
    data = os.urandom(size)
    put(d / "f", data)
    fd = os.open(d / "f", os.O_RDWR)
    os.unlink(d / "f")
    assert os.listdir(d) == []
    st = os.fstat(fd)
    assert st.st_nlink == 0 and st.st_size == size
    assert os.pread(fd, size + 1, 0) == data
    os.pwrite(fd, b"more", size)
    os.pwrite(fd, b"!", 0)
    want = b"!" + (data + b"more")[1:] if size else b"!ore"
    assert os.pread(fd, size + 10, 0) == want
    os.ftruncate(fd, 3)
    assert os.pread(fd, 100, 0) == want[:3]
    os.fchmod(fd, 0o611)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o611
    os.fsync(fd)
    os.close(fd)


def test_a_new_file_of_the_same_name_is_another(d):
    put(d / "f", b"old")
    fd = os.open(d / "f", os.O_RDWR)
    os.unlink(d / "f")
    put(d / "f", b"new file")
    assert os.pread(fd, 100, 0) == b"old"
    os.pwrite(fd, b"OLD AND LONGER THAN IT WAS", 0)
    assert get(d / "f") == b"new file"
    assert os.fstat(fd).st_ino != os.stat(d / "f").st_ino
    os.close(fd)
    assert get(d / "f") == b"new file"


def test_replaced_by_rename_while_open(d):
    put(d / "f", b"old" * 3000)
    fd = os.open(d / "f", os.O_RDWR)
    put(d / "n", b"new")
    os.rename(d / "n", d / "f")
    assert os.pread(fd, 10000, 0) == b"old" * 3000
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"OLD", 0)
    assert os.pread(fd, 6, 0) == b"OLDold"
    assert get(d / "f") == b"new"
    os.close(fd)


def test_many_unlinked_files_at_once(d):
    fds = []
    for i in range(200):
        fd = os.open(d / "f", os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.write(fd, b"%d" % i * 50)
        os.unlink(d / "f")
        fds.append(fd)
    for i, fd in enumerate(fds):
        assert os.pread(fd, 1000, 0) == b"%d" % i * 50
        os.close(fd)


def test_open_across_a_rename_of_the_directory(d):
    os.makedirs(d / "a" / "b")
    fd = os.open(d / "a" / "b" / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"one")
    os.rename(d / "a", d / "z")
    os.write(fd, b" two")
    assert get(d / "z" / "b" / "f") == b"one two"
    os.close(fd)


def test_removed_directory_stays_open(d):
    os.mkdir(d / "a")
    fd = os.open(d / "a", os.O_RDONLY)
    os.rmdir(d / "a")
    assert os.listdir(fd) == []
    assert os.fstat(fd).st_nlink == 0
    with fails(errno.ENOENT):
        os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)


# ---- mmap ----------------------------------------------------------------


def test_mmap_shared(d):
    size = 50_000
    put(d / "f", bytes(size))
    with open(d / "f", "r+b") as f:
        m = mmap.mmap(f.fileno(), size)
        m[10:15] = b"hello"
        m[49_000:49_005] = b"world"
        m.flush()
        assert os.pread(f.fileno(), 5, 10) == b"hello"
        os.pwrite(f.fileno(), b"HELLO", 10)
        assert m[10:15] == b"HELLO"
        m.close()
    data = get(d / "f")
    assert data[10:15] == b"HELLO" and data[49_000:49_005] == b"world" and len(data) == size


def test_mmap_private(d):
    put(d / "f", b"x" * 10_000)
    with open(d / "f", "r+b") as f:
        m = mmap.mmap(f.fileno(), 10_000, flags=mmap.MAP_PRIVATE)
        m[0:3] = b"abc"
        assert m[0:4] == b"abcx"
        m.close()
    assert get(d / "f") == b"x" * 10_000


def test_mmap_read_after_unlink(d):
    data = os.urandom(300_000)
    put(d / "f", data)
    with open(d / "f", "rb") as f:
        m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    os.unlink(d / "f")
    assert m[:] == data
    m.close()


def test_mmap_written_by_two_processes(d):
    size = 1 << 16
    put(d / "f", bytes(size))
    pids = []
    for part in range(2):
        pid = os.fork()
        if pid == 0:
            with open(d / "f", "r+b") as f:
                m = mmap.mmap(f.fileno(), size)
                for i in range(part, size, 2):
                    m[i] = part + 1
                m.flush()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    assert get(d / "f") == b"\1\2" * (size // 2)


def test_mmap_beyond_the_end_is_sigbus(d):
    put(d / "f", b"x" * 100)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        import faulthandler
        faulthandler.disable()
        fd = os.open(d / "f", os.O_RDWR)
        os.ftruncate(fd, 8192)
        m = mmap.mmap(fd, 8192)
        os.ftruncate(fd, 100)
        m[5000]
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGBUS


def test_executing(d):
    put(d / "script", b"#!/bin/sh\necho ran\n")
    os.chmod(d / "script", 0o755)
    assert subprocess.run([d / "script"], capture_output=True, check=True).stdout == b"ran\n"
    put(d / "true", get("/bin/true"))
    os.chmod(d / "true", 0o755)
    subprocess.run([d / "true"], check=True)
    os.chmod(d / "true", 0o644)
    with fails(errno.EACCES):
        subprocess.run([d / "true"], check=True)


# ---- O_APPEND ------------------------------------------------------------

APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for i in range(int(sys.argv[3])):
    os.write(fd, f"{sys.argv[2]}:{i:06}:{'x' * (i % 90)}\\n".encode())
"""


def test_append_by_several_processes_loses_nothing(d):
    writers, count = 4, 500
    procs = [subprocess.Popen([sys.executable, "-c", APPENDER, d / "log", str(w), str(count)])
             for w in range(writers)]
    for p in procs:
        assert p.wait() == 0
    lines = get(d / "log").decode().splitlines()
    assert len(lines) == writers * count
    for w in range(writers):
        mine = [line for line in lines if line.startswith(f"{w}:")]
        assert mine == [f"{w}:{i:06}:{'x' * (i % 90)}" for i in range(count)]


# ---- locks ---------------------------------------------------------------

TRY_LOCK = """
import errno, fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
kind = {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH}[sys.argv[3]]
call = {"flock": fcntl.flock, "posix": fcntl.lockf}[sys.argv[2]]
try:
    call(fd, kind | fcntl.LOCK_NB, *([int(a) for a in sys.argv[4:]]))
except OSError as err:
    sys.exit(1 if err.errno in (errno.EAGAIN, errno.EACCES) else 2)
"""


def try_lock(path, *args):
    code = subprocess.run([sys.executable, "-c", TRY_LOCK, path, *args], check=False).returncode
    assert code in (0, 1)
    return code == 0


def test_flock(d):
    put(d / "f")
    fd = os.open(d / "f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert not try_lock(d / "f", "flock", "ex") and not try_lock(d / "f", "flock", "sh")
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert not try_lock(d / "f", "flock", "ex") and try_lock(d / "f", "flock", "sh")
    os.close(fd)
    assert try_lock(d / "f", "flock", "ex")


def test_posix_locks(d):
    put(d / "f", b"x" * 100)
    fd = os.open(d / "f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
    assert not try_lock(d / "f", "posix", "ex", "10", "25")
    assert try_lock(d / "f", "posix", "ex", "10", "0")
    assert try_lock(d / "f", "posix", "ex", "10", "30")
    fcntl.lockf(fd, fcntl.LOCK_UN, 5, 20)
    assert try_lock(d / "f", "posix", "ex", "5", "20")
    assert not try_lock(d / "f", "posix", "sh", "5", "25")
    other = os.open(d / "f", os.O_RDONLY)
    os.close(other)
    assert try_lock(d / "f", "posix", "ex", "10", "20"), "any close releases POSIX locks"
    os.close(fd)


def test_waiting_for_a_lock_can_be_killed(d):
    put(d / "f")
    fd = os.open(d / "f", os.O_RDWR)
    for call in ("flock", "lockf"):
        getattr(fcntl, call)(fd, fcntl.LOCK_EX)
        waiter = subprocess.Popen([sys.executable, "-c", f"import fcntl, os\n"
                                   f"fcntl.{call}(os.open({str(d / 'f')!r}, os.O_RDWR), fcntl.LOCK_EX)"])
        time.sleep(0.3)
        assert waiter.poll() is None
        waiter.kill()
        assert wait_until(lambda: waiter.poll() is not None, 5)
        getattr(fcntl, call)(fd, fcntl.LOCK_UN)
    os.close(fd)


def test_ofd_locks(d):
    put(d / "f", b"x")
    a, b = os.open(d / "f", os.O_RDWR), os.open(d / "f", os.O_RDWR)
    lock = __import__("struct").pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(a, 37, lock)
    with fails(errno.EAGAIN):
        fcntl.fcntl(b, 37, lock)
    os.close(a)
    fcntl.fcntl(b, 37, lock)
    os.close(b)


def test_leases_and_dnotify_do_not_break_anything(d):
    put(d / "f", b"x")
    fd = os.open(d / "f", os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as err:
        assert err.errno in (errno.EAGAIN, errno.EINVAL, errno.EACCES)
    os.close(fd)
    assert get(d / "f") == b"x"


# ---- sharing between processes -------------------------------------------


def test_readers_see_a_writer_at_once(d):
    """Write in one process, read in another through an own descriptor, back and forth."""
    put(d / "f", bytes(20_000))
    ask, answer = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        fd = os.open(d / "f", os.O_RDWR)
        for i in range(200):
            os.read(ask[0], 1)
            good = os.pread(fd, 4, i * 100) == b"%04d" % i
            os.pwrite(fd, b"%04d" % (9999 - i), i * 100)
            os.write(answer[1], b"y" if good else b"n")
        os._exit(0)
    fd = os.open(d / "f", os.O_RDWR)
    for i in range(200):
        os.pwrite(fd, b"%04d" % i, i * 100)
        os.write(ask[1], b".")
        assert os.read(answer[0], 1) == b"y"
        assert os.pread(fd, 4, i * 100) == b"%04d" % (9999 - i)
    os.waitpid(pid, 0)
    for end in (*ask, *answer, fd):
        os.close(end)


def test_o_direct_next_to_cached(d):
    """What O_DIRECT wrote is what cached readers and mappings see, and the other way."""
    page = mmap.mmap(-1, 4096)
    put(d / "f", b"a" * 8192)
    cached = os.open(d / "f", os.O_RDWR)
    direct = os.open(d / "f", os.O_RDWR | os.O_DIRECT)
    m = mmap.mmap(cached, 8192)
    assert m[0] == ord("a")
    page[:] = b"b" * 4096
    assert os.pwrite(direct, page, 4096) == 4096
    assert os.pread(cached, 8192, 0) == b"a" * 4096 + b"b" * 4096
    assert m[4096] == ord("b")
    os.pwrite(cached, b"c" * 4096, 0)
    assert os.preadv(direct, [page], 0) == 4096 and page[:] == b"c" * 4096
    m.close()
    os.close(cached)
    os.close(direct)


def test_zero_copy_of_files(d):
    """sendfile and splice, as cp, web servers and install use them."""
    data = os.urandom(300_000)
    put(d / "f", data)
    src = os.open(d / "f", os.O_RDONLY)
    dst = os.open(d / "g", os.O_CREAT | os.O_RDWR)
    sent = 0
    while sent < len(data):
        sent += os.sendfile(dst, src, sent, len(data) - sent)
    assert get(d / "g") == data
    r, w = os.pipe()
    assert os.splice(src, w, 5000, offset_src=100) == 5000
    assert os.splice(r, dst, 5000, offset_dst=0) == 5000
    assert get(d / "g")[:5000] == data[100:5100]
    for fd in (src, dst, r, w):
        os.close(fd)


def test_readahead_and_advice(d):
    put(d / "f", os.urandom(500_000))
    fd = os.open(d / "f", os.O_RDONLY)
    for advice in (os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM):
        os.posix_fadvise(fd, 0, 0, advice)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.readahead(fd, ctypes.c_int64(0), 500_000)
    assert os.pread(fd, 10, 499_990) == get(d / "f")[-10:]
    os.close(fd)
