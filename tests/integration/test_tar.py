# SPDX-License-Identifier: Apache-2.0
"""emdb export and import: archives that tar reads and writes."""

import io
import os
import subprocess
import tarfile
import time

import pytest

from harness import binary, fingerprint, need, run, same_trees

OK, FAILED, USAGE, PARTIAL, LOCKED = 0, 1, 2, 3, 11


@pytest.fixture(scope="session")
def emdb():
    program = binary("emdb")
    if program is None:
        pytest.skip("no emdb: make first")

    def call(*args, code=OK, stdin=b""):
        done = subprocess.run([program, *map(os.fspath, args)], input=stdin, capture_output=True,
                              timeout=120, check=False)
        assert done.returncode == code, (args, done)
        return done

    return call


@pytest.fixture
def store(emdb, scratch):
    path = scratch / "store"
    emdb("init", path)
    return path


def names(emdb, store, *path):
    return emdb("ls", store, *path).stdout.decode().split()


def archive(*members):
    """A tar archive of (name or TarInfo, bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def build_tree(root):
    (root / "dir" / "deep").mkdir(parents=True)
    (root / "dir" / "f").write_bytes(os.urandom(2_000_000))
    (root / "empty").touch()
    (root / "n\nasty \xe4").write_text("n")
    os.link(root / "dir" / "f", root / "dir" / "deep" / "linked")
    (root / "link").symlink_to("dir/f")
    (root / "dangling").symlink_to("/no/where")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "dir" / "f", "user.colour", bytes(range(256)))
    os.setxattr(root / "dir", "user.on", b"dir")
    os.chmod(root / "dir" / "deep", 0o710)
    with open(root / "sparse", "wb") as f:
        f.truncate(500_000)
    os.utime(root / "empty", ns=(1234567890123456789, 1234567890987654321))
    os.utime(root / "dir", ns=(1111111111000000001, 1111111111000000002))


def without_times_of_change(found):
    return {path: {k: v for k, v in info.items() if k not in ("ctime", "ino", "atime", "btime")}
            for path, info in found.items()}


def test_a_tree_goes_through(emdb, scratch, make_mount):
    one = make_mount()
    build_tree(one.mnt)
    before = fingerprint(one.mnt)
    one.stop()
    emdb("export", "--tar", "--output", scratch / "x.tar", one.store)
    emdb("init", scratch / "two")
    emdb("import", "--tar", "--input", scratch / "x.tar", scratch / "two")
    two = make_mount(store=scratch / "two")
    after = fingerprint(two.mnt)
    before.pop(b".")
    after.pop(b".")
    same_trees(without_times_of_change(before), without_times_of_change(after))
    assert os.path.samefile(two.mnt / "dir/f", two.mnt / "dir/deep/linked")


def test_gnu_tar_reads_and_writes_the_same(emdb, scratch, make_mount):
    need("tar")
    one = make_mount()
    build_tree(one.mnt)
    run("tar", "--xattrs", "-cf", scratch / "gnu.tar", "-C", one.mnt, ".")
    before = fingerprint(one.mnt)
    before.pop(b".")
    one.stop()
    (scratch / "out").mkdir()
    emdb("export", "--tar", "--output", scratch / "x.tar", one.store)
    run("tar", "--xattrs", "-xf", scratch / "x.tar", "-C", scratch / "out")
    assert (scratch / "out/dir/f").read_bytes() == (scratch / "out/dir/deep/linked").read_bytes()
    assert os.getxattr(scratch / "out/dir/f", "user.colour") == bytes(range(256))
    assert os.stat(scratch / "out/empty").st_mtime_ns == 1234567890987654321
    emdb("init", scratch / "two")
    emdb("import", "--tar", "--input", scratch / "gnu.tar", scratch / "two")
    two = make_mount(store=scratch / "two")
    after = fingerprint(two.mnt)
    after.pop(b".")
    same_trees(without_times_of_change(before), without_times_of_change(after))


def test_keys_that_no_file_can_have(emdb, store, scratch):
    keys = ["a%2Fb", "%00", "%", "%2E%2E", "%25", "plain", "%FFbytes"]
    for key in keys:
        emdb("put", "-x", store, key, stdin=key.encode())
    emdb("mkns", "-x", store, "n%2Fs")
    emdb("put", "-x", store, "n%2Fs/in", stdin=b"in")
    tar = emdb("export", "--tar", store).stdout
    emdb("init", scratch / "two")
    emdb("import", "--tar", scratch / "two", stdin=tar)
    assert emdb("ls", "-x", store).stdout == emdb("ls", "-x", scratch / "two").stdout
    for key in keys:
        assert emdb("get", "-x", scratch / "two", key).stdout == key.encode()
    assert emdb("get", "-x", scratch / "two", "n%2Fs/in").stdout == b"in"


def test_deadlines_travel(emdb, store, scratch):
    emdb("put", "--ttl", "1h", store, "hour", stdin=b"h")
    emdb("put", "--ttl", "1s", store, "brief", stdin=b"b")
    tar = emdb("export", "--tar", store).stdout
    time.sleep(1.1)
    emdb("init", scratch / "two")
    done = emdb("import", "--tar", scratch / "two", stdin=tar)
    assert b"1 entries had expired" in done.stderr
    assert names(emdb, scratch / "two") == ["hour"]
    assert 3500 < int(emdb("ttl", "get", scratch / "two", "hour").stdout) <= 3600


def test_part_of_a_store(emdb, store, scratch):
    emdb("put", "-p", store, "a/b/k", stdin=b"k")
    emdb("put", "-p", store, "other", stdin=b"o")
    tar = emdb("export", "--tar", store, "a").stdout
    assert sorted(tarfile.open(fileobj=io.BytesIO(tar)).getnames()) == ["b", "b/k"]
    emdb("import", "--tar", store, "new/place", stdin=tar)
    assert emdb("get", store, "new/place/b/k").stdout == b"k"
    emdb("export", "--tar", store, "nothing", code=FAILED)


def test_a_snapshot_and_a_served_store(emdb, store, make_mount):
    emdb("put", store, "k", stdin=b"then")
    emdb("snapshot", "create", store, "s")
    mount = make_mount(store=store)
    (mount.mnt / "k").write_text("now")
    for args, want in ((["--snapshot", "s"], b"then"), ([], b"now")):
        tar = emdb("export", "--tar", *args, store).stdout
        assert tarfile.open(fileobj=io.BytesIO(tar)).extractfile("k").read() == want
    assert [n for n in os.listdir(store / "snapshots") if n[0] != "."] == ["s"]
    emdb("import", "--tar", store, stdin=tar, code=LOCKED)
    emdb("export", "--tar", "--snapshot", "none", store, code=FAILED)


def test_hostile_archives(emdb, store):
    huge = tarfile.TarInfo("huge")
    tar = archive(
        ("../up", b"1"), ("/abs", b"2"), ("a/../../b", b"3"), ("./ok", b"4"), ("dir//x/", b"5"),
        (link("hard", "nothing", tarfile.LNKTYPE), b""), (link("self", "self", tarfile.LNKTYPE), b""),
        (link("out", "../../ok", tarfile.LNKTYPE), b""), (link("sym", "../../..", tarfile.SYMTYPE), b""),
        ("ok/below-a-file", b"6"), ("last", b"7"))
    done = emdb("import", "--tar", store, stdin=tar, code=PARTIAL)
    assert done.stderr.count(b"..") >= 2
    assert sorted(names(emdb, store)) == ["abs", "dir/", "last", "ok", "sym"]
    assert emdb("get", store, "ok").stdout == b"4"
    huge.size = 1 << 60
    out = io.BytesIO()
    out.write(huge.tobuf(tarfile.GNU_FORMAT) + bytes(5000))
    emdb("import", "--tar", store, stdin=out.getvalue(), code=FAILED)
    assert "huge" not in names(emdb, store)
    for cut in (100, 600, 1100, 3000):
        emdb("import", "--tar", store, "t", stdin=archive(("f", bytes(100000)))[:cut], code=FAILED)
        assert names(emdb, store, "t") == []
    emdb("import", "--tar", store, stdin=os.urandom(5000), code=FAILED)
    emdb("check", store)


def with_mode(info, mode):
    """Its header with a mode that tarfile would not write."""
    head = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    head[100:108] = b"%07o\0" % mode
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_modes_that_no_file_has(emdb, store, scratch):
    directory = tarfile.TarInfo("dir")
    directory.type = tarfile.DIRTYPE
    tar = b"".join(with_mode(info, 0o7513246) for info in (
        tarfile.TarInfo("file"), directory, link("sym", "file", tarfile.SYMTYPE), link("hard", "file", tarfile.LNKTYPE)))
    emdb("import", "--tar", store, stdin=tar + bytes(1024))
    assert sorted(names(emdb, store)) == ["dir/", "file", "hard", "sym"]
    back = tarfile.open(fileobj=io.BytesIO(emdb("export", "--tar", store).stdout))
    assert {m.name: m.mode for m in back.getmembers() if not m.islnk()}.items() >= {"dir": 0o3246, "sym": 0o3246}.items()
    emdb("check", store)


def test_what_is_there_is_replaced(emdb, store):
    emdb("put", "-p", store, "dir/k", stdin=b"old")
    emdb("put", store, "file", stdin=b"old")
    directory = tarfile.TarInfo("file")
    directory.type = tarfile.DIRTYPE
    done = emdb("import", "--tar", store, code=PARTIAL,
                stdin=archive(("dir/k", b"new"), ("dir/l", b"new"), ("dir", b"file"), (directory, b"")))
    assert done.stderr.count(b"\n") == 2
    assert emdb("get", store, "dir/k").stdout == b"new"
    assert sorted(names(emdb, store, "dir")) == ["k", "l"]
    assert emdb("get", store, "file").stdout == b"old"


def test_usage(emdb, store, scratch):
    emdb("export", store, code=USAGE)
    emdb("import", store, code=USAGE)
    emdb("import", "--tar", "--input", scratch / "none", store, code=FAILED)
    emdb("export", "--tar", "--output", scratch / "no" / "where", store, code=FAILED)
