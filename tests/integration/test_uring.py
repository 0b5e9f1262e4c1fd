# SPDX-License-Identifier: Apache-2.0
"""FUSE over io_uring.  Needs a libfuse that can (make libfuse) and root, for the kernel's switch."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from harness import Mount, build_dir, is_mounted, run, wait_until

pytestmark = pytest.mark.emdb

OVER_URING = "over io_uring"


@pytest.fixture
def uring(io_uring_switch, make_mount):
    """Turns the kernel's switch on; skips where the programs have no use for it."""
    io_uring_switch("Y")
    mount = make_mount()
    wait_until(lambda: "mounted at" in mount.tail(), 10)
    if OVER_URING not in mount.tail():
        pytest.skip(f"no io_uring here: {mount.tail()}")
    return mount


def test_requests_go_through_rings(uring):
    data = os.urandom(3 << 20)
    (uring / "f").write_bytes(data)
    assert (uring / "f").read_bytes() == data
    uring.remount()
    assert (uring / "f").read_bytes() == data
    rings = [t for t in os.listdir(f"/proc/{uring.proc.pid}/task")
             if open(f"/proc/{uring.proc.pid}/task/{t}/comm").read().startswith("fuse-ring-")]
    assert len(rings) == os.cpu_count()


def test_switch_off_is_hinted_at(uring, make_mount, io_uring_switch):
    io_uring_switch("N")
    for options in [], ["io_uring"]:
        mount = make_mount(options)
        (mount / "f").write_text("x")
        assert wait_until(lambda: "mounted at" in mount.tail(), 10)
        assert OVER_URING not in mount.tail()
        assert "requests go through /dev/fuse: io_uring is off in this kernel" in mount.tail()
        assert "enable_uring" in mount.tail()


def test_can_be_refused(uring, make_mount):
    mount = make_mount(["no_io_uring"])
    (mount / "f").write_text("x")
    assert wait_until(lambda: "mounted at" in mount.tail(), 10)
    assert "io_uring" not in mount.tail()


@pytest.mark.parametrize("depth", ["1", "3", "64"])
def test_any_depth(uring, make_mount, depth):
    mount = make_mount([f"io_uring_q_depth={depth}"])
    assert wait_until(lambda: OVER_URING in mount.tail(), 10)
    work(mount, 2, writers=4, syncers=4)


@pytest.mark.parametrize("depth", ["0", "-1", "257", "x", ""])
def test_bad_depth(make_mount, depth):
    mount = make_mount(start=False)
    done = run(*mount.command([f"io_uring_q_depth={depth}"]), ok=(2,))
    assert "io_uring_q_depth" in done.stderr


# Lets no process below make a ring, as containers do: a filter of system calls.
NO_RINGS = textwrap.dedent("""
    import ctypes, os, struct, sys
    # load the number; is it io_uring_setup (425)?  then EPERM, else allow
    code = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 425,
                       0x06, 0, 0, 0x00050001, 0x06, 0, 0, 0x7fff0000)
    code = ctypes.create_string_buffer(code)
    prog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, prog) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
    os.execvp(sys.argv[1], sys.argv[1:])
""")


def test_where_rings_are_forbidden(uring, make_mount):
    mount = make_mount(start=False)
    command = mount.command
    mount.command = lambda *a, **k: [sys.executable, "-c", NO_RINGS, *command(*a, **k)]
    mount.start()
    (mount / "f").write_text("x")
    assert wait_until(lambda: "mounted at" in mount.tail(), 10)
    assert "io_uring cannot be used here: Operation not permitted" in mount.tail()
    assert OVER_URING not in mount.tail()
    run("sync", "-f", mount.mnt)


# ---- Answers from the flusher's thread ----

WRITER = """
import os, random, sys, time
path, end, sync = sys.argv[1], time.monotonic() + float(sys.argv[2]), sys.argv[3] == "sync"
fd, n = os.open(path, os.O_RDWR | os.O_CREAT, 0o644), 0
while time.monotonic() < end:
    block = n.to_bytes(8, "little") * 64
    at = n % 64 * 512
    assert os.pwrite(fd, block, at) == 512
    if sync:
        os.fsync(fd)
    elif n % 4 == 0:
        assert os.pread(fd, 512, at) == block
    n += 1
print(n)
"""


def work(mount, seconds, writers, syncers):
    """Everybody must get on; returns how often each did."""
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(mount / f"{kind}{i}"), str(seconds), kind],
                         stdout=subprocess.PIPE, text=True)
        for kind, count in (("write", writers), ("sync", syncers)) for i in range(count)]
    counts = []
    for process in started:
        try:
            out, _ = process.communicate(timeout=seconds + 60)
        except subprocess.TimeoutExpired:
            stacks = mount.stacks()
            mount.kill9()
            pytest.fail(f"a request was never answered\n{mount.tail()}\n{stacks}")
        assert process.returncode == 0, out
        counts.append(int(out))
    assert all(counts), counts
    assert "SQE" not in mount.tail() and "commit_id" not in mount.tail(), mount.tail()
    return counts


def test_answers_from_another_thread(uring):
    print(work(uring, 4, writers=3, syncers=5))


@pytest.mark.long
def test_answers_from_another_thread_for_minutes(uring, make_mount):
    print(work(uring, 120, writers=4, syncers=8))
    mount = make_mount(["io_uring_q_depth=1", "sync"])
    print(work(mount, 60, writers=4, syncers=8))


@pytest.fixture
def bare(uring, scratch):
    """The benchmarks' file system in memory, whose fsync another thread answers at once."""
    program = build_dir() / "bench" / "nullfs"
    if not program.is_file():
        pytest.skip("no bench/nullfs: make bench-build")
    mount = Mount(scratch)
    mount.command = lambda options, foreground=True: [
        str(program), str(mount.mnt), *(["-o", ",".join(options)] if options else []), "-a"]
    mount.start(["allow_other"])
    yield mount
    mount.dispose()


SYNCER = """
import os, sys, time
fd, end, n = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644), time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    for _ in range(64):
        os.fsync(fd)
    n += 64
    if sys.argv[3] == "write":
        assert os.pwrite(fd, b"x" * 512, n * 8) == 512
print(n)
"""


def stress(mount, seconds):
    """Only syncing, from more processes than a ring has places: a request lost hangs one of them."""
    started = [subprocess.Popen([sys.executable, "-c", SYNCER, str(mount / f"f{i}"), str(seconds),
                                 "write" if i % 4 == 0 else "sync"], stdout=subprocess.PIPE, text=True)
               for i in range(24)]
    for process in started:
        try:
            out, _ = process.communicate(timeout=seconds + 60)
        except subprocess.TimeoutExpired:
            stacks = mount.stacks()
            mount.kill9()
            pytest.fail(f"a request was never answered\n{mount.tail()}\n{stacks}")
        assert process.returncode == 0 and int(out) > 0
    assert "SQE" not in mount.tail() and "commit_id" not in mount.tail(), mount.tail()


def test_all_answers_from_another_thread(bare):
    stress(bare, 3)


@pytest.mark.long
def test_all_answers_from_another_thread_for_minutes(bare):
    stress(bare, 150)


@pytest.mark.parametrize("how", ["lazy", "signal"])
def test_ends_while_answers_are_due(uring, how):
    """Nobody may answer into rings that are gone."""
    command = [sys.executable, "-c", WRITER, str(uring / "f"), "30", "sync"]
    busy = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(6)]
    try:
        time.sleep(0.5)
        if how == "lazy":
            run("umount", "-l", uring.mnt)
        else:
            uring.proc.terminate()
            assert uring.proc.wait(30) == 0, uring.tail()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert uring.proc.wait(30) == 0, uring.tail()
    assert not is_mounted(str(uring.mnt))
    uring._forget()
