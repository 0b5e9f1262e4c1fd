# SPDX-License-Identifier: Apache-2.0
"""Very many files, very many directories, memory, and file systems stacked on the mount."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from harness import get, need, put, run

MIB = 1 << 20


def memory(mount):
    """Anonymous memory of the daemon, bytes."""
    if mount.native:
        return 0
    with open(f"/proc/{mount.proc.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))


class Clock:
    """Prints what took how long."""

    def __init__(self, count):
        self.count = count
        self.at = time.monotonic()

    def lap(self, what):
        now = time.monotonic()
        print(f"{what}: {now - self.at:.1f} s, {self.count / (now - self.at):.0f}/s")
        self.at = time.monotonic()


MAKER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    f = os.open(f"file-{i:07}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=fd)
    os.write(f, b"%d" % i)
    os.close(f)
"""


def one_directory(mount, count):
    where = mount / "many"
    where.mkdir()
    base = memory(mount)
    clock = Clock(count)
    half = count // 2
    makers = [subprocess.Popen([sys.executable, "-c", MAKER, where, str(a), str(b)])
              for a, b in ((0, half), (half, count))]
    assert [m.wait() for m in makers] == [0, 0]
    clock.lap(f"create {count}")
    print(f"memory per file: {(memory(mount) - base) / count:.0f} bytes")
    listed = subprocess.run("ls -f | wc -l", shell=True, cwd=where, check=True, capture_output=True).stdout
    assert int(listed) == count + 2
    clock.lap("ls -f | wc -l")
    assert int(subprocess.run("find . -type f | sort -u | wc -l", shell=True, cwd=where, check=True,
                              capture_output=True).stdout) == count
    clock.lap("find . -type f | sort -u")
    for i in range(0, count, max(1, count // 1000)):
        assert get(where / f"file-{i:07}") == b"%d" % i
    mount.remount()
    clock.lap("remount")
    assert get(where / f"file-{count - 1:07}") == b"%d" % (count - 1)
    assert int(subprocess.run("ls -f | wc -l", shell=True, cwd=where, check=True,
                              capture_output=True).stdout) == count + 2
    clock.lap("ls -f | wc -l")
    os.rename(where, mount / "renamed")
    run("rm", "-rf", mount / "renamed")
    clock.lap("rm -rf")
    assert os.listdir(mount.mnt) == []


def test_20000_files_in_one_directory(mount):
    one_directory(mount, 20_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_files_in_one_directory(mount):
    one_directory(mount, 1_000_000)


def entries(where):
    return int(subprocess.run("ls -f | wc -l", shell=True, cwd=where, check=True, capture_output=True).stdout) - 2


PROBER = """
import os, sys, time
longest = count = 0
while not os.path.exists(sys.argv[1] + "/stop"):
    start = time.monotonic()
    with open(sys.argv[1] + "/probe", "wb") as f:
        f.write(b"x" * 300)
    os.stat(sys.argv[1] + "/probe")
    os.unlink(sys.argv[1] + "/probe")
    longest = max(longest, time.monotonic() - start)
    count += 1
print(count, longest)
"""


@pytest.mark.emdb
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [int(os.environ.get("EMDB_FILES", 1_000_000))])
def test_a_million_files_expire_on_time(mount, count):
    """Due within 20 s, after being known to the kernel, while somebody goes on making and removing files."""
    clock = Clock(count)
    half = count // 2
    wheres = [mount / name for name in ("one", "two")]
    created = time.time()
    for where in wheres:
        where.mkdir()
    # Their deadlines are 20 s apart, whenever each was made.
    maker = MAKER.replace("    os.close(f)", "    os.setxattr(f, 'user.emdb.ttl', b'@%.3f' % (float(sys.argv[4]) + i % 1000 / 50))\n"
                          "    os.close(f)")
    due = created + count / 1_500 + 60
    makers = [subprocess.Popen([sys.executable, "-c", maker, where, "0", str(half), str(due)]) for where in wheres]
    assert [m.wait() for m in makers] == [0, 0]
    clock.lap(f"create {count} with deadlines")
    assert time.time() < due, "this machine is too slow for the deadlines of this test"
    assert [entries(where) for where in wheres] == [half, half]
    with subprocess.Popen([sys.executable, "-c", PROBER, mount.mnt], stdout=subprocess.PIPE, text=True) as prober:
        time.sleep(max(0, due - 1 - time.time()))
        assert os.path.exists(wheres[0] / "file-0000999")
        while time.time() < due + 21:
            for i in (0, 500, 999):
                before = time.time()
                there = os.path.exists(wheres[0] / f"file-{i:07}")
                when = due + i / 50
                assert there or time.time() > when, f"{i} left early"
                # Names that the kernel caches live as long as it was told, to the tick of its clock.
                assert not there or before < when + 0.1, f"{i} is still there {before - when:.3f} s late"
            time.sleep(0.02)
        left = {where: entries(where) for where in wheres}
        print(f"one second after the last deadline {sum(left.values())} of {count} are listed")
        while any(entries(where) for where in wheres):
            assert time.time() < due + 20 + 120
            time.sleep(0.2)
        print(f"the last was removed {time.time() - due - 19.98:.1f} s after its deadline")
        put(mount / "stop")
        done, longest = prober.communicate()[0].split()
    print(f"meanwhile {done} rounds of create, write, stat, unlink; the longest took {float(longest) * 1e3:.0f} ms")
    assert float(longest) < 5
    os.rmdir(wheres[0])
    journal = mount.store / "journal"
    for _ in range(600):
        held = sum(f.stat().st_size for f in journal.iterdir())
        if held < 5 * 64 * MIB:
            break
        time.sleep(0.2)
    print(f"journal: {held / MIB:.0f} MiB")
    assert held < 5 * 64 * MIB


@pytest.mark.emdb
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [int(os.environ.get("EMDB_FILES", 1_000_000))])
def test_a_million_files_in_a_snapshot(mount, count):
    where = mount / "many"
    where.mkdir()
    clock = Clock(count)
    half = count // 2
    makers = [subprocess.Popen([sys.executable, "-c", MAKER, where, str(a), str(b)])
              for a, b in ((0, half), (half, count))]
    assert [m.wait() for m in makers] == [0, 0]
    clock.lap(f"create {count}")
    with subprocess.Popen([sys.executable, "-c", PROBER, mount.mnt], stdout=subprocess.PIPE, text=True) as prober:
        for n in range(5):
            time.sleep(0.5)
            start = time.monotonic()
            os.mkdir(mount / f".snap/{n}")
            print(f"snapshot: {(time.monotonic() - start) * 1e3:.1f} ms")
        put(mount / "stop")
        done, longest = prober.communicate()[0].split()
    print(f"meanwhile {done} rounds of create, write, stat, unlink; the longest took {float(longest) * 1e3:.0f} ms")
    assert float(longest) < 5
    start = time.monotonic()
    assert get(mount / ".snap/4/many/file-0000001") == b"1"
    print(f"first look into it: {(time.monotonic() - start) * 1e3:.0f} ms")
    clock.lap("snapshots")
    run("rm", "-rf", where)
    clock.lap("rm -rf")
    assert entries(mount / ".snap/4/many") == count
    clock.lap("ls -f | wc -l in the snapshot")
    for i in range(0, count, count // 1000):
        assert get(mount / f".snap/4/many/file-{i:07}") == b"%d" % i


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.long)])
def test_many_directories(mount, count):
    """Each with a file: directories must not cost much memory."""
    base = memory(mount)
    for i in range(count):
        os.mkdir(mount / f"d{i}")
        put(mount / f"d{i}" / "f", b"x")
    grown = memory(mount) - base
    print(f"memory per directory with a file: {grown / count:.0f} bytes")
    assert grown < count * 4096 + 16 * MIB
    assert len(os.listdir(mount.mnt)) == count
    mount.remount()
    assert get(mount / f"d{count - 1}" / "f") == b"x"
    assert sum(len(files) for _, _, files in os.walk(mount.mnt)) == count


@pytest.mark.emdb
def test_memory_stays_when_files_come_and_go(mount):
    with open(f"/proc/{mount.proc.pid}/maps") as f:
        if "asan" in (maps := f.read()) or "tsan" in maps:
            pytest.skip("a sanitizer keeps freed memory")
    def churn(rounds):
        for _ in range(rounds):
            for i in range(300):
                put(mount / f"f{i}", b"x" * 300)
                put(mount / f"g{i}", b"y" * 20_000)
            for i in range(300):
                os.rename(mount / f"f{i}", mount / f"g{i}")
                os.unlink(mount / f"g{i}")

    churn(3)
    before = memory(mount)
    churn(10)
    assert memory(mount) - before < 8 * MIB


def test_a_deep_and_wide_tree_is_removed(mount):
    for i in range(10):
        for j in range(10):
            os.makedirs(mount / "t" / str(i) / str(j))
            for k in range(10):
                put(mount / "t" / str(i) / str(j) / str(k), b"x")
    run("cp", "-a", mount / "t", mount / "u")
    assert int(run("sh", "-c", f"find {mount.mnt} -type f | wc -l").stdout) == 2000
    run("rm", "-rf", mount / "t", mount / "u")
    assert os.listdir(mount.mnt) == []


def test_overlay_with_the_mount_below(mount, scratch):
    """As the lower layer of an overlay file system: read, copied up, hidden."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    os.makedirs(mount / "lower" / "dir")
    put(mount / "lower" / "a", b"from below")
    put(mount / "lower" / "dir" / "b", b"b" * 50_000)
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir()
    merged = scratch / "merged"
    layers = f"lowerdir={mount.mnt}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, merged], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        pytest.skip(f"no overlayfs here: {done.stderr.strip()}")
    try:
        assert get(merged / "a") == b"from below" and get(merged / "dir" / "b") == b"b" * 50_000
        put(merged / "a", b"changed above")
        os.unlink(merged / "dir" / "b")
        put(merged / "dir" / "c", b"new")
        assert sorted(os.listdir(merged / "dir")) == ["c"]
        assert get(mount / "lower" / "a") == b"from below" and get(mount / "lower" / "dir" / "b") == b"b" * 50_000
    finally:
        subprocess.run(["umount", merged], check=True)


def test_overlay_with_the_mount_above(mount, scratch):
    """As the upper layer: copied up, whited out, opaque, renamed, the same after a remount."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    for name in ("lower", "lower/dir", "lower/gone", "merged"):
        (scratch / name).mkdir()
    for name in ("a", "b", "dir/c", "gone/d"):
        put(scratch / "lower" / name, name.encode() * 10_000)
    merged = scratch / "merged"
    layers = f"lowerdir={scratch}/lower,upperdir={mount.mnt}/upper,workdir={mount.mnt}/work"
    os.mkdir(mount / "upper")
    os.mkdir(mount / "work")

    def overlay(*options):
        return subprocess.run(["mount", "-t", "overlay", "overlay", "-o", ",".join([layers, *options]), merged],
                              capture_output=True, text=True, check=False)

    done = overlay()
    if done.returncode != 0:
        with open("/proc/filesystems") as f:
            if "overlay" in f.read():
                pytest.fail(done.stderr)
        pytest.skip(f"no overlayfs here: {done.stderr.strip()}")
    try:
        with open(merged / "a", "ab") as f:
            f.write(b"appended")
        os.unlink(merged / "b")
        os.rename(merged / "dir" / "c", merged / "dir" / "moved")
        shutil.rmtree(merged / "gone")
        (merged / "gone").mkdir()
        put(merged / "gone" / "new", b"n")
        os.mkdir(merged / "x")
        os.link(merged / "a", merged / "x" / "hard")
        os.chmod(merged / "a", 0o640)
        os.setxattr(merged / "a", "user.x", b"y")

        def check():
            assert sorted(os.listdir(merged)) == ["a", "dir", "gone", "x"]
            assert get(merged / "a") == b"a" * 10_000 + b"appended" == get(merged / "x" / "hard")
            assert os.stat(merged / "a").st_mode & 0o777 == 0o640 and os.getxattr(merged / "a", "user.x") == b"y"
            assert os.listdir(merged / "dir") == ["moved"] and os.listdir(merged / "gone") == ["new"]
            assert get(merged / "dir" / "moved") == b"dir/c" * 10_000
            assert get(scratch / "lower" / "b") == b"b" * 10_000

        check()
        subprocess.run(["umount", merged], check=True)
        mount.remount()
        assert overlay().returncode == 0
        check()
        run("cp", "-a", "/usr/share/common-licenses", merged / "cp")
        run("diff", "-r", "--no-dereference", "/usr/share/common-licenses", merged / "cp")
        run("rm", "-rf", merged / "cp")
        check()
    finally:
        subprocess.run(["umount", merged], check=False)


def test_bind_mount_and_loop_image(mount, scratch):
    """An ext4 image on the mount through a loop device, and a bind mount of a directory."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    need("mkfs.ext4")
    with open(mount / "image", "wb") as f:
        f.truncate(8 * MIB)
    run("mkfs.ext4", "-q", "-F", mount / "image")
    (scratch / "loop").mkdir()
    done = subprocess.run(["mount", "-o", "loop", mount / "image", scratch / "loop"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    try:
        for i in range(100):
            put(scratch / "loop" / f"f{i}", b"%d" % i * 1000)
    finally:
        run("umount", scratch / "loop")
    run("e2fsck", "-fn", mount / "image")
    mount.remount()
    run("e2fsck", "-fn", mount / "image")
    os.mkdir(mount / "dir")
    run("mount", "--bind", mount / "dir", scratch / "loop")
    try:
        put(scratch / "loop" / "f", b"x")
        assert get(mount / "dir" / "f") == b"x"
    finally:
        run("umount", scratch / "loop")
