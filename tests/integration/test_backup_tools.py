# SPDX-License-Identifier: Apache-2.0
"""Backup programs on snapshots: in the mount at .snap/latest, and mounted alone at a fixed path, where what has not
changed is recognised as unchanged the next day."""

import json
import os

import pytest

from harness import binary, fingerprint, need, put, run, same_trees

pytestmark = pytest.mark.emdb

FILES = 40


def tree(mount):
    os.makedirs(mount / "data/deep/er")
    for n in range(FILES - 2):
        put(mount / f"data/{n}", b"%d\n" % n * 100)
    put(mount / "data/deep/er/big", os.urandom(2_000_000))
    put(mount / "data/deep/mode", b"x")
    os.chmod(mount / "data/deep/mode", 0o4711)
    os.symlink("0", mount / "data/link")
    os.setxattr(mount / "data/1", "user.a", b"b")
    # Within the second of the backup programs cannot know what is unchanged, and say so.
    for where, dirs, files in os.walk(mount.mnt):
        for name in dirs + files:
            os.utime(os.path.join(where, name), ns=(10**18, 10**18 + 5), follow_symlinks=False)


def old(prints):
    """Without what a copy cannot have: the root is the program's, ctime the host's."""
    return {path: info for path, info in prints.items() if path != b"."}


class Day:
    """A new snapshot every day, seen at one path."""

    def __init__(self, mount, make_mount):
        self.mount = mount
        self.fixed = make_mount(["snapshot=latest"], store=mount.store, start=False)
        self.n = 0

    def __enter__(self):
        self.n += 1
        os.mkdir(self.mount / f".snap/day-{self.n}")
        self.fixed.start()
        return self.fixed.mnt

    def __exit__(self, *_):
        self.fixed.stop()
        if self.n > 1:
            os.rmdir(self.mount / f".snap/day-{self.n - 1}")


@pytest.fixture
def day(mount, make_mount):
    tree(mount)
    return Day(mount, make_mount)


@pytest.fixture
def restic(scratch):
    need("restic")
    env = dict(os.environ, RESTIC_PASSWORD="x", XDG_CACHE_HOME=os.fspath(scratch / "cache"),
               RESTIC_REPOSITORY=os.fspath(scratch / "repo"))
    run("restic", "init", env=env)

    def backup(where):
        done = run("restic", "backup", "--json", "--host", "h", ".", env=env, cwd=where)
        last = json.loads(done.stdout.splitlines()[-1])
        return tuple(last[f"files_{what}"] for what in ("new", "changed", "unmodified"))

    def restore(where):
        run("restic", "restore", "latest", "--target", where, env=env)

    backup.restore = restore
    return backup


@pytest.fixture
def borg(scratch):
    need("borg")
    env = dict(os.environ, BORG_BASE_DIR=os.fspath(scratch / "borg"), BORG_RELOCATED_REPO_ACCESS_IS_OK="yes",
               BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes", BORG_REPO=os.fspath(scratch / "brepo"))
    run("borg", "init", "-e", "none", env=env)

    def backup(name, where, path="."):
        """The files that were read."""
        done = run("borg", "create", "--list", "--filter", "AM", f"::{name}", path, env=env, cwd=where)
        return {os.path.basename(line.split(" ", 1)[1]) for line in done.stderr.splitlines()}

    def restore(name, where):
        run("borg", "extract", f"::{name}", env=env, cwd=where)

    backup.restore = restore
    return backup


def test_restic_at_a_fixed_path(mount, day, restic, scratch):
    with day as where:
        assert restic(where) == (FILES, 0, 0)
    put(mount / "elsewhere", b"new")
    with day as where:
        assert restic(where) == (1, 0, FILES)
    mount.remount()
    put(mount / "data/7", b"changed")
    os.unlink(mount / "data/8")
    run(binary("emdb"), "compact", mount.store)
    with day as where:
        assert restic(where) == (0, 1, FILES - 1)
        want = old(fingerprint(where, full=False))
    restic.restore(scratch / "out")
    same_trees(want, old(fingerprint(scratch / "out", full=False)))


def test_borg_at_a_fixed_path(mount, day, borg, scratch):
    # Borg does not remember the files with the newest time of change: that is this one.
    put(mount / "newest", b"n")
    with day as where:
        assert len(borg("one", where)) == FILES + 1
    mount.remount()
    with day as where:
        assert borg("two", where) <= {"newest"}
    put(mount / "data/7", b"changed")
    with day as where:
        assert borg("three", where) - {"newest"} == {"7"}
        want = old(fingerprint(where, full=False))
    os.mkdir(scratch / "out")
    borg.restore("three", scratch / "out")
    same_trees(want, old(fingerprint(scratch / "out", full=False)))


def test_rsync_and_tar_at_a_fixed_path(mount, day, scratch):
    need("rsync", "tar")
    listed = ["--listed-incremental", scratch / "list"]
    with day as where:
        run("rsync", "-aHX", f"{where}/", scratch / "copy/")
        run("tar", *listed, "-cf", scratch / "0.tar", "-C", where, ".")
    put(mount / "data/7", b"changed")
    mount.remount()
    with day as where:
        done = run("rsync", "-aHXi", f"{where}/", scratch / "copy/")
        assert [line.split()[1] for line in done.stdout.splitlines() if line[1] == "f"] == ["data/7"]
        done = run("tar", *listed, "-vcf", scratch / "1.tar", "-C", where, ".")
        assert [name for name in done.stdout.split() if not name.endswith("/")] == ["./data/7"]
        same_trees(old(fingerprint(where, full=False)), old(fingerprint(scratch / "copy", full=False)))


def test_all_of_them_in_the_mount(mount, day, restic, borg, scratch):
    need("rsync", "tar")
    os.mkdir(mount / ".snap/first")
    latest = mount / ".snap" / "latest"
    want = old(fingerprint(mount.mnt, full=False))
    put(mount / "data/7", b"not in the backup")
    assert restic(f"{latest}/") == (FILES, 0, 0)
    assert len(borg("one", f"{latest}/")) == FILES
    run("rsync", "-aHX", f"{latest}/", scratch / "rsync/")
    os.makedirs(scratch / "tar")
    os.makedirs(scratch / "borg-out")
    run("sh", "-c", 'tar -C "$0" --xattrs -cf - . | tar -C "$1" --xattrs -xpf -', f"{latest}/", scratch / "tar")
    restic.restore(scratch / "restic-out")
    borg.restore("one", scratch / "borg-out")
    for copy in ("rsync", "tar", "restic-out", "borg-out"):
        print(copy)
        same_trees(want, old(fingerprint(scratch / copy, full=False)))
    # One file back out of it, by hand.
    run("cp", "-a", latest / "data/7", mount / "data/7")
    same_trees(want, old(fingerprint(mount.mnt, full=False)))
