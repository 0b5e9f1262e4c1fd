# SPDX-License-Identifier: Apache-2.0
"""emdb backup and restore."""

import json
import os
import pty
import re
import subprocess

import pytest

from harness import binary, fingerprint, same_trees

OK, FAILED, USAGE, NO_STORE, LOCKED = 0, 1, 2, 10, 11


@pytest.fixture(scope="session")
def emdb():
    program = binary("emdb")
    if program is None:
        pytest.skip("no emdb: make first")

    def call(*args, code=OK, stdin=b"", **kwargs):
        done = subprocess.run([program, *map(os.fspath, args)], input=stdin, capture_output=True,
                              timeout=120, check=False, **kwargs)
        assert done.returncode == code, (args, done)
        return done

    call.program = program
    return call


@pytest.fixture
def store(emdb, scratch):
    path = scratch / "store"
    emdb("init", "--segment-size", "1M", path)
    emdb("put", path, "k", stdin=b"v")
    return path


def test_backup_is_an_openable_store(emdb, store, scratch):
    target = scratch / "backup"
    done = emdb("backup", store, target)
    assert done.stdout == b"" and done.stderr == b"", "silent when nobody watches"
    emdb("put", store, "k", stdin=b"w")
    assert emdb("get", target, "k").stdout == b"v"
    assert emdb("put", target, "k", code=FAILED).stderr
    emdb("check", target)
    emdb("backup", store, target)
    assert emdb("get", target, "k").stdout == b"w"
    assert sorted(p.name for p in scratch.iterdir()) == ["backup", "store"]


def test_a_second_backup_copies_only_what_is_new(emdb, store, scratch):
    target = scratch / "backup"
    emdb("put", store, "big", stdin=os.urandom(4 << 20))
    lines = emdb("backup", "--json", "--copy", store, target).stdout.splitlines()
    first = json.loads(lines[-1])
    assert first["message_type"] == "summary" and not first["incremental"]
    assert first["segments_copied"] == first["segments"] >= 4
    emdb("put", store, "small", stdin=b"s")
    second = json.loads(emdb("backup", "--json", "--copy", store, target).stdout.splitlines()[-1])
    assert second["incremental"]
    assert second["copied_bytes"] < 10000 and second["total_bytes"] > 4 << 20


def test_progress_on_a_terminal(emdb, store, scratch):
    emdb("put", store, "big", stdin=bytes(3 << 20))
    master, slave = pty.openpty()
    with subprocess.Popen([emdb.program, "backup", "--copy", store, scratch / "b"],
                          stderr=slave, stdout=subprocess.PIPE) as proc:
        os.close(slave)
        seen = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
        assert proc.wait(timeout=60) == OK
    os.close(master)
    assert re.search(rb"\d+ segments, .*copied", seen), seen


def test_refused_targets(emdb, store, scratch):
    (scratch / "full").mkdir()
    (scratch / "full" / "file").write_text("precious")
    emdb("init", scratch / "other")
    emdb("backup", scratch / "other", scratch / "otherbackup")
    for target in (store, store / "x", store / "journal", scratch / "full", scratch / "other",
                   scratch / "otherbackup", scratch / "no" / "where"):
        done = emdb("backup", store, target, code=FAILED)
        assert done.stderr, target
    assert (scratch / "full" / "file").read_text() == "precious"
    emdb("check", store)
    emdb("check", scratch / "otherbackup")
    emdb("backup", scratch / "none", scratch / "b", code=NO_STORE)
    emdb("backup", store, code=USAGE)


def test_restore(emdb, store, scratch):
    emdb("backup", store, scratch / "b")
    emdb("put", store, "k", stdin=b"later")
    emdb("restore", scratch / "b", scratch / "live")
    assert emdb("get", scratch / "live", "k").stdout == b"v"
    emdb("put", scratch / "live", "k", stdin=b"goes on")
    assert emdb("get", scratch / "b", "k").stdout == b"v"
    emdb("restore", scratch / "b", scratch / "live", code=FAILED)
    emdb("restore", scratch / "live", scratch / "x", code=FAILED)
    emdb("restore", scratch / "none", scratch / "x", code=NO_STORE)
    emdb("snapshot", "create", store, "s")
    emdb("restore", store / "snapshots" / "s", scratch / "two")
    assert emdb("get", scratch / "two", "k").stdout == b"later"
    emdb("backup", store / "snapshots" / "s", scratch / "three")
    assert emdb("get", scratch / "three", "k").stdout == b"later"
    for name in ("live", "two", "three"):
        emdb("check", scratch / name)


def test_damage_in_the_source_is_not_copied_in_silence(emdb, store, scratch):
    emdb("put", store, "big", stdin=os.urandom(1 << 20))
    segment = sorted((store / "journal").iterdir())[0]
    with open(segment, "r+b") as f:
        f.seek(262)
        f.write(b"\xff\xff")
    done = emdb("backup", "--copy", store, scratch / "b", code=FAILED)
    assert done.stderr
    assert not (scratch / "b").exists()


def test_a_tree_comes_back(emdb, scratch, make_mount):
    mount = make_mount()
    root = mount.mnt
    (root / "dir" / "deep").mkdir(parents=True)
    (root / "dir" / "f").write_bytes(os.urandom(300000))
    os.link(root / "dir" / "f", root / "dir" / "deep" / "linked")
    (root / "link").symlink_to("dir/f")
    os.setxattr(root / "dir" / "f", "user.colour", b"blue")
    os.chmod(root / "dir", 0o750)
    before = fingerprint(root)
    mount.stop()
    emdb("backup", mount.store, scratch / "b")
    emdb("restore", scratch / "b", scratch / "live")
    again = make_mount(store=scratch / "live")
    same_trees(before, fingerprint(again.mnt))
