# SPDX-License-Identifier: Apache-2.0
"""What is left after an orderly remount, and after kill -9 at any moment."""

import errno
import json
import os
import stat
import struct
import subprocess
import sys
import time

import pytest

from harness import (HERE, fails, fingerprint, get, kill_group, put, reads_the_files,
                     renameat2, same_trees, sha, RENAME_EXCHANGE)


def make_everything(root):
    """One of every kind, in every state that the journal has a record for."""
    os.makedirs(root / "dir" / "sub" / "deep")
    os.mkdir(root / "empty-dir")
    os.chmod(root / "empty-dir", 0o1770)
    for size in (0, 1, 200, 4096, 8192, 8193, 100_000, 1 << 20, 3_000_001):
        put(root / f"file-{size}", os.urandom(size))
    fd = os.open(root / "sparse", os.O_CREAT | os.O_RDWR, 0o640)
    os.pwrite(fd, b"far", 50 << 20)
    os.pwrite(fd, b"near", 10_000)
    os.ftruncate(fd, (50 << 20) + 1)
    os.close(fd)
    put(root / "overwritten", b"old" * 10_000)
    put(root / "overwritten", b"new")
    put(root / "patched", bytes(50_000))
    fd = os.open(root / "patched", os.O_RDWR)
    for i in range(0, 50_000, 777):
        os.pwrite(fd, b"%d" % i, i)
    os.close(fd)
    fd = os.open(root / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for i in range(500):
        os.write(fd, b"line %d\n" % i)
    os.close(fd)
    put(root / "truncated", b"x" * 100_000)
    os.truncate(root / "truncated", 12_345)
    os.truncate(root / "truncated", 20_000)
    put(root / "linked", b"two names" * 2000)
    os.link(root / "linked", root / "dir" / "other-name")
    put(root / "gone-name", b"survivor")
    os.link(root / "gone-name", root / "dir" / "survivor")
    os.unlink(root / "gone-name")
    os.symlink("../x/y", root / "dir" / "symlink")
    os.mkfifo(root / "fifo", 0o622)
    put(root / "dir" / "a", b"A")
    os.rename(root / "dir" / "a", root / "dir" / "sub" / "b")
    os.rename(root / "dir" / "sub", root / "moved-dir")
    put(root / "target", b"old")
    put(root / "source", b"replacement")
    os.rename(root / "source", root / "target")
    put(root / "x1", b"1")
    put(root / "x2", b"2")
    renameat2(root / "x1", root / "x2", RENAME_EXCHANGE)
    os.setxattr(root / "x1", "user.one", b"1" * 3000)
    os.setxattr(root / "moved-dir", "user.on-dir", b"2")
    os.setxattr(root / "log", "user.dropped", b"3")
    os.removexattr(root / "log", "user.dropped")
    put(root / "dir" / ("n" * 255), b"long name")
    put(os.fsencode(root) + b"/\xff\xfe\n", b"odd name")
    if os.getuid() == 0:
        os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(5, 1))
        os.chown(root / "x1", 1234, 4321)
        os.chmod(root / "x1", 0o4755)
    for i in range(1000):
        put(root / "dir" / f"many-{i}", b"%d" % i)
    for i in range(0, 1000, 2):
        os.unlink(root / "dir" / f"many-{i}")
    os.utime(root / "dir", ns=(123_456_789, 987_654_321_987))
    os.utime(root / "file-200", ns=(1, 2))


def with_open_leftovers(root):
    """A file without a name, open while the daemon ends: it must not come back."""
    fd = os.open(root / "unlinked", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"ghost" * 10_000)
    os.unlink(root / "unlinked")
    return fd


def test_remount_keeps_everything(mount):
    make_everything(mount.mnt)
    before = fingerprint(mount.mnt)
    for _ in range(2):
        mount.remount()
        same_trees(before, fingerprint(mount.mnt))
    # And goes on being usable: nothing above was only readable.
    put(mount / "after", b"x")
    os.rename(mount / "moved-dir", mount / "dir" / "back")
    with open(mount / "log", "ab") as f:
        f.write(b"more\n")
    before = fingerprint(mount.mnt)
    mount.remount()
    same_trees(before, fingerprint(mount.mnt))


@pytest.mark.emdb
def test_kill_keeps_everything_acknowledged(mount):
    make_everything(mount.mnt)
    fd = with_open_leftovers(mount.mnt)
    before = fingerprint(mount.mnt)
    mount.kill9()
    with fails(errno.ENOTCONN, errno.ECONNABORTED):
        os.fstat(fd)
    os.close(fd)
    for _ in range(2):
        mount.start()
        same_trees(before, fingerprint(mount.mnt))
        mount.kill9()
    mount.start()
    os.mkdir(mount / "works")


def test_forgotten_by_the_kernel_after_a_remount(mount):
    """Files that the kernel learns of, forgets, and asks for again."""
    if os.getuid() != 0:
        pytest.skip("needs root to make the kernel forget")
    want = {}
    for i, size in enumerate([200, 9000, 20_000, 300_000] * 50):
        want[f"f{i}"] = os.urandom(size)
        put(mount / f"f{i}", want[f"f{i}"])
    for i in range(0, 200, 3):
        want[f"r{i}"] = want.pop(f"f{i}")
        os.rename(mount / f"f{i}", mount / f"r{i}")
    mount.remount()
    for _ in range(3):
        assert sorted(os.listdir(mount.mnt)) == sorted(want)
        for name, data in want.items():
            assert get(mount / name) == data
        put("/proc/sys/vm/drop_caches", b"2")


@pytest.mark.emdb
def test_unlinked_open_files_are_gone_after_remount(mount):
    fd = with_open_leftovers(mount.mnt)
    mount.kill9()
    os.close(fd)
    mount.start()
    assert os.listdir(mount.mnt) == []
    st = os.statvfs(mount.mnt)
    assert st.f_files - st.f_ffree <= 1


@pytest.mark.emdb
def test_ids_are_not_reused_after_remount(mount):
    seen = set()
    for round_ in range(4):
        for i in range(20):
            put(mount / f"f{i}", b"x")
            ino = os.stat(mount / f"f{i}").st_ino
            assert ino not in seen
            seen.add(ino)
            os.unlink(mount / f"f{i}")
        if round_ % 2:
            mount.remount()
        else:
            mount.kill9()
            mount.start()


@pytest.mark.emdb
def test_times_stay_over_a_remount(mount):
    """Neither mtime nor ctime of anything moves by being remounted: backup programs compare both."""
    put(mount / "f", b"x" * 20_000)
    os.mkdir(mount / "d")
    before = [(s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_atime_ns)
              for s in (os.stat(mount / "f"), os.stat(mount / "d"), os.stat(mount.mnt))]
    for again in (mount.remount, lambda: (mount.kill9(), mount.start())):
        again()
        assert before == [(s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_atime_ns)
                          for s in (os.stat(mount / "f"), os.stat(mount / "d"), os.stat(mount.mnt))]


# ---- kill -9 in the middle -----------------------------------------------

# Writes files in one directory in every way and says after each operation that returned what must
# hold from now on, in a log on the host that a kill of the daemon does not touch.  One line before
# the operation names it, so that the one in flight is known.
WRITER = HERE / "writer.py"


def start_writer(mount, log, part, seed):
    return subprocess.Popen([sys.executable, WRITER, mount / f"part{part}", log, str(seed)],
                            start_new_session=True)


def read_log(log):
    """The state that was acknowledged, and the names that the operation in flight concerns."""
    state, pending = {}, None
    for line in get(log).decode().splitlines():
        entry = json.loads(line)
        if entry["event"] == "begin":
            pending = entry
        else:
            for name, value in entry["now"].items():
                if value is None:
                    state.pop(name, None)
                else:
                    state[name] = value
            pending = None
    return state, pending


def check_part(root, log):
    state, pending = read_log(log)
    names = set(os.listdir(root)) if root.exists() else set()
    loose = set(pending["names"]) if pending else set()
    missing, extra = set(state) - names - loose, names - set(state) - loose
    assert not missing, f"acknowledged and gone: {sorted(missing)[:5]} (in flight: {pending})"
    assert not extra, f"never made or removed before: {sorted(extra)[:5]} (in flight: {pending})"
    for name, want in state.items():
        if name in loose:
            continue
        data = get(root / name)
        assert [len(data), sha(data)] == want, f"{name}: {len(data)} bytes, not {want} ({pending})"
    if not pending:
        return len(state)
    # All or nothing for what was in flight: one of the states that the writer said are possible.
    found, data = {}, None
    for name in loose:
        found[name] = None
        if name in names:
            data = get(root / name)
            found[name] = [len(data), sha(data)]
    if found not in pending["states"]:
        assert len(loose) == 1 and is_piece(f"{log}.data", pending["states"], data), (
            f"half done: {found} of {pending}")
    return len(state)


def is_piece(kept, states, data):
    """True for the first pieces, in pages, of the write that was in flight."""
    at, old_size, new_size = struct.unpack_from("<QQQ", get(kept))
    old, new = get(kept)[24:24 + old_size], get(kept)[24 + old_size:24 + old_size + new_size]
    if data is None or [[len(old), sha(old)], [len(new), sha(new)]] != [next(iter(s.values())) for s in states]:
        return False
    return any(data == new[:cut] + old[cut:] for cut in range(at // 4096 * 4096 + 4096, new_size, 4096))


@pytest.mark.emdb
@pytest.mark.timeout(150)
def test_kill_in_the_middle(mount, rng):
    """Rounds of writers, kill, remount, check, on one growing store."""
    writers = 3
    for round_ in range(4):
        logs = [mount.base / f"log{round_}-{part}" for part in range(writers)]
        procs = []
        for part, log in enumerate(logs):
            (mount / f"part{round_}-{part}").mkdir()
            procs.append(start_writer(mount, log, f"{round_}-{part}", rng.randrange(1 << 30)))
        time.sleep(0.8 + rng.random() * 1.2)
        mount.die()
        for p in procs:
            p.wait(20)
        mount.kill9()
        mount.start()
        counts = [check_part(mount / f"part{round_}-{part}", log) for part, log in enumerate(logs)]
        print(f"round {round_}: {counts} files acknowledged")
        assert min(counts) > 0
        for earlier in range(round_):
            for part in range(writers):
                log = mount.base / f"log{earlier}-{part}"
                check_part(mount / f"part{earlier}-{part}", log)


@pytest.mark.emdb
def test_kill_in_the_middle_of_cp(mount, rng):
    """cp is sequential: but for the file it was at, everything there is whole."""
    source = "/usr/include"
    for _ in range(2):
        with subprocess.Popen(["cp", "-r", source, mount.mnt], stderr=subprocess.DEVNULL,
                              start_new_session=True) as cp:
            time.sleep(0.2 + rng.random())
            mount.die()
            mount.kill9()
            kill_group(cp)
        mount.start()
        partial = []
        count = 0
        for where, _, files in os.walk(mount.mnt):
            for name in files:
                path = os.path.join(where, name)
                if os.path.islink(path):
                    continue
                count += 1
                data = get(path)
                want = get(os.path.join(source, os.path.relpath(path, mount / "include")))
                if data != want:
                    assert want.startswith(data), path
                    partial.append(path)
        assert count > 0 and len(partial) <= 1, partial
        subprocess.run(["rm", "-rf", mount / "include"], check=True)
        assert os.listdir(mount.mnt) == []


@pytest.mark.emdb
def test_rename_is_never_half_done(mount, rng):
    """Of two names that swap a file between them, exactly one is there after any kill."""
    for round_ in range(4):
        root = mount / f"r{round_}"
        os.makedirs(root / "a")
        os.makedirs(root / "b")
        for i in range(20):
            put(root / "a" / f"f{i}", b"%d" % i)
        script = (f"import os\nr = {str(root)!r}\n"
                  "while True:\n"
                  "    for x, y in (('a', 'b'), ('b', 'a')):\n"
                  "        for i in range(20):\n"
                  "            os.rename(f'{r}/{x}/f{i}', f'{r}/{y}/f{i}')\n")
        mover = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        time.sleep(0.2 + rng.random() * 0.3)
        mount.die()
        mover.wait(20)
        mount.kill9()
        mount.start()
        a, b = os.listdir(root / "a"), os.listdir(root / "b")
        assert sorted(a + b) == sorted(f"f{i}" for i in range(20))
        for where, names in (("a", a), ("b", b)):
            for name in names:
                assert get(root / where / name) == name[1:].encode()


@pytest.mark.emdb
def test_torn_tail_is_cut(mount):
    """Rubbish or nothing behind the last frame, as after a crash of the machine: cut quietly."""
    for i in range(100):
        put(mount / f"f{i}", b"%d" % i * 100)
    mount.kill9()
    before = None
    for tail in (b"", b"\0" * 8, os.urandom(24), os.urandom(5000)):
        mount.start()
        now = {n: get(mount / n) for n in sorted(os.listdir(mount.mnt))}
        before = before or now
        assert now == before and len(now) == 100
        mount.kill9()
        last = sorted((mount.store / "journal").iterdir())[-1]
        data = get(last)
        end = len(data.rstrip(b"\0"))
        end = (end + 7) // 8 * 8
        with open(last, "r+b") as f:
            f.seek(end)
            f.write(tail)
    mount.start()
    assert {n: get(mount / n) for n in sorted(os.listdir(mount.mnt))} == before


@pytest.mark.emdb
def test_damage_is_reported_not_served(mount):
    """A flipped bit in stored data gives EIO for that file or a refusal to mount; never other bytes."""
    reads_the_files()
    want = {}
    for i in range(50):
        want[f"f{i}"] = b"needle-%04d-" % i * 200
        put(mount / f"f{i}", want[f"f{i}"])
    fd = os.open(mount / "f0", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    mount.stop()
    hit = None
    for segment in sorted((mount.store / "journal").iterdir()):
        data = bytearray(get(segment))
        at = data.find(b"needle-0020-needle")
        if at >= 0:
            data[at + 500] ^= 4
            with open(segment, "r+b") as f:
                f.seek(at + 500)
                f.write(data[at + 500:at + 501])
            hit = segment
    assert hit is not None
    mount.proc = None
    done = subprocess.run(mount.command([], foreground=False), capture_output=True, text=True,
                          timeout=30, check=False)
    if done.returncode != 0:
        assert hit.name.split(".")[0].lstrip("0") in done.stderr or "segment" in done.stderr.lower()
        return
    try:
        for name, data in want.items():
            if name == "f20":
                with fails(errno.EIO):
                    get(mount / name)
            else:
                assert get(mount / name) == data
    finally:
        subprocess.run(["fusermount3", "-u", mount.mnt], check=True)


@pytest.mark.emdb
@pytest.mark.long
def test_kill_many_times(mount, rng):
    """The same as test_kill_in_the_middle, for long enough to meet every place."""
    for round_ in range(60):
        log = mount.base / f"log{round_}"
        (mount / f"part{round_}").mkdir()
        writer = start_writer(mount, log, str(round_), rng.randrange(1 << 30))
        time.sleep(0.1 + rng.random())
        mount.die()
        writer.wait(20)
        mount.kill9()
        mount.start()
        check_part(mount / f"part{round_}", log)
    for round_ in range(60):
        check_part(mount / f"part{round_}", mount.base / f"log{round_}")
