# SPDX-License-Identifier: Apache-2.0
"""emdb snapshot: what it makes, lists, compares, keeps and runs."""

import json
import os
import subprocess

import pytest

from harness import binary, is_mounted, need, run

OK, FAILED, USAGE, PARTIAL, NO_STORE = 0, 1, 2, 3, 10


class Cli:
    def __init__(self, program, store):
        self.program = program
        self.store = os.fspath(store)

    def run(self, *args, code=OK, stdin=b"", **kwargs):
        done = subprocess.run([self.program, *args], input=stdin, capture_output=True,
                              timeout=60, check=False, **kwargs)
        assert done.returncode == code, (args, done)
        return done

    def put(self, path, value=b""):
        self.run("put", "--parents", self.store, path, stdin=value)

    def get(self, path, store=None, code=OK):
        return self.run("get", store or self.store, path, code=code).stdout

    def snap(self, action, *args, code=OK, **kwargs):
        return self.run("snapshot", action, self.store, *args, code=code, **kwargs).stdout.decode()

    def names(self):
        lines = self.run("snapshot", "list", "-j", self.store).stdout.splitlines()
        return [json.loads(line)["name"] for line in lines]


@pytest.fixture
def cli(scratch):
    program = binary("emdb")
    if program is None:
        pytest.skip("no emdb: make first")
    made = Cli(program, scratch / "store")
    made.run("init", made.store)
    return made


def test_create_list_rename_delete(cli):
    cli.put("k", b"1")
    assert cli.snap("create", "one") == ""
    own = cli.snap("create").strip()
    cli.put("k", b"2")
    assert cli.names() == ["one", own]
    assert cli.get("k", f"{cli.store}/snapshots/one") == b"1"
    assert cli.get("k") == b"2"
    cli.snap("create", "one", code=FAILED)
    cli.snap("rename", "one", "eins")
    cli.snap("rename", "one", "x", code=FAILED)
    assert cli.names() == ["eins", own]
    assert [line.split()[3] for line in cli.snap("list").splitlines()] == ["eins", own]
    tabs = cli.run("snapshot", "list", "-H", cli.store).stdout.decode().splitlines()
    assert [line.split("\t")[3] for line in tabs] == ["eins", own]
    cli.snap("delete", "eins", "nothing", code=PARTIAL)
    cli.snap("delete", "nothing", code=FAILED)
    assert cli.names() == [own]
    for name in (".x", "a/b", "latest", "x\ny"):
        cli.snap("create", name, code=FAILED)


def test_usage(cli):
    cli.run("snapshot", code=USAGE)
    cli.run("snapshot", "list", code=USAGE)
    cli.snap("what", code=USAGE)
    cli.snap("rename", "a", code=USAGE)
    cli.snap("prune", code=USAGE)
    cli.run("snapshot", "prune", "--keep-last", "x", cli.store, code=USAGE)
    cli.run("snapshot", "list", cli.store + "-no", code=NO_STORE)
    assert b"rollback STORE NAME" in cli.run("snapshot", "--help").stdout


def test_a_snapshot_is_not_written_to(cli):
    cli.put("k", b"1")
    cli.snap("create", "s")
    where = f"{cli.store}/snapshots/s"
    before = sorted(os.listdir(where))
    for command in (["put", where, "x"], ["del", where, "k"], ["sweep", where]):
        done = cli.run(*command, code=FAILED)
        assert b"snapshot" in done.stderr
    cli.run("check", where)
    cli.run("ls", where)
    assert sorted(os.listdir(where)) == before


def test_diff(cli):
    for name in ("same", "changed", "replaced", "gone", "old/name", "d/in/deep"):
        cli.put(name, name.encode())
    cli.snap("create", "a")
    cli.put("changed", b"other")
    cli.run("del", cli.store, "gone")
    cli.put("new", b"n")
    cli.put("dir/in/it", b"n")
    cli.snap("create", "b")
    want = ["+ dir/", "+ dir/in/", "+ dir/in/it", "+ new", "- gone", "M changed"]
    assert sorted(cli.snap("diff", "a", "b").splitlines()) == sorted(want)
    assert sorted(cli.snap("diff", "a").splitlines()) == sorted(want)
    assert cli.snap("diff", "b", "b") == ""
    assert cli.snap("diff", "latest") == ""
    back = [w.replace("+", "?").replace("-", "+").replace("?", "-") for w in want]
    assert sorted(cli.snap("diff", "b", "a").splitlines()) == sorted(back)
    lines = cli.run("snapshot", "diff", "-j", cli.store, "a", "b").stdout.splitlines()
    assert {"change": "M", "path": "changed"} in [json.loads(line) for line in lines]
    cli.snap("diff", "nothing", code=FAILED)


def test_diff_of_a_mounted_tree_sees_renames(cli, make_mount):
    mount = make_mount(store=cli.store)
    root = mount.mnt
    (root / "dir").mkdir()
    for name in ("keep", "move", "dir/f", "over", "by", "touched", "mode"):
        (root / name).write_text(name)
    mount.stop()
    cli.snap("create", "a")
    mount.start()
    (root / "move").rename(root / "moved")
    (root / "dir").rename(root / "folder")
    (root / "folder/f").write_text("changed in a renamed directory")
    (root / "by").rename(root / "over")
    os.utime(root / "touched", (1, 1))
    (root / "mode").chmod(0o400)
    mount.stop()
    got = set(cli.snap("diff", "a").splitlines())
    assert {"R move -> moved", "R dir/ -> folder/", "M folder/f", "M touched", "M mode"} <= got
    assert "R by -> over" in got and "- over" in got
    assert len(got) == 7, got


def test_prune(cli):
    for n in range(5):
        cli.snap("create", f"s{n}")
    shown = cli.run("snapshot", "prune", "-n", "--keep-last", "2", cli.store).stdout.decode()
    assert shown.count("remove ") == 3 and shown.count("keep ") == 2
    assert len(cli.names()) == 5
    cli.run("snapshot", "prune", "--keep-last=2", "--keep-daily=1", cli.store)
    assert cli.names() == ["s3", "s4"]
    cli.run("snapshot", "prune", "--keep-monthly=3", cli.store)
    assert cli.names() == ["s4"]
    cli.run("snapshot", "prune", "--keep-last=0", cli.store)
    assert cli.names() == []


def test_rollback(cli):
    cli.put("k", b"1")
    cli.snap("create", "one")
    cli.put("k", b"2")
    cli.snap("create", "two")
    cli.put("k", b"3")
    done = cli.run("snapshot", "rollback", cli.store, "one", code=FAILED)
    assert b"two" in done.stderr
    cli.snap("rollback", "two")
    assert cli.get("k") == b"2"
    cli.run("snapshot", "rollback", "-f", cli.store, "one")
    assert cli.get("k") == b"1"
    assert cli.names() == ["one", "two"]
    cli.snap("rollback", "none", code=FAILED)
    cli.run("check", cli.store)


def test_run(cli, scratch, make_mount):
    cli.put("dir/k", b"value")
    script = 'cat "$1/dir/k"; echo " $EMDB_SNAPSHOT_PATH"; touch "$1/x" 2>/dev/null && exit 1; exit 7'
    done = cli.run("snapshot", "run", cli.store, "--", "sh", "-c", script, "sh", "{}", code=7)
    assert done.stdout.decode() == f"value {cli.store}.snapshot\n"
    assert not os.path.exists(f"{cli.store}.snapshot")
    assert cli.names() == []
    done = cli.run("snapshot", "run", cli.store, "--", "echo", "{}={}", "x{", "{}")
    where = f"{cli.store}.snapshot"
    assert done.stdout.decode() == f"{where}={where} x{{ {where}\n"
    at = scratch / "fixed"
    at.mkdir()
    done = cli.run("snapshot", "run", "--path", os.fspath(at), cli.store, "--", "ls", "{}/dir")
    assert done.stdout == b"k\n"
    assert at.is_dir() and not is_mounted(os.fspath(at))
    cli.run("snapshot", "run", cli.store, "--", "/no/such/program", code=127)
    cli.run("snapshot", "run", cli.store, "--", "sh", "-c", "kill -9 $$", code=137)
    assert cli.names() == []


def test_the_same_numbers_the_next_day(cli, make_mount):
    """What backup programs compare: inode numbers and times do not change."""
    cli.put("a/k", b"value")
    look = "cd {}; stat -c '%n %i %s %Y %Z' . a a/k"
    first = cli.run("snapshot", "run", cli.store, "--", "sh", "-c", look).stdout
    cli.put("other", b"x")
    cli.run("del", cli.store, "other")
    second = cli.run("snapshot", "run", cli.store, "--", "sh", "-c", look).stdout
    assert first.splitlines()[1:] == second.splitlines()[1:]


def tree_for_backup(cli):
    cli.put("a/big", os.urandom(1_500_000))
    for n in range(20):
        cli.put(f"d/{n}", b"%d" % n)


def test_restic_finds_nothing_changed_the_next_day(cli, scratch, make_mount):
    need("restic")
    env = dict(os.environ, RESTIC_PASSWORD="x", XDG_CACHE_HOME=os.fspath(scratch / "cache"))
    repo = os.fspath(scratch / "repo")
    tree_for_backup(cli)
    run("restic", "init", "-r", repo, env=env)

    def backup():
        done = cli.run("snapshot", "run", cli.store, "--", "restic", "-r", repo, "backup", "--json",
                       "{}", env=env)
        return json.loads(done.stdout.splitlines()[-1])

    first = backup()
    assert first["files_new"] == 21
    second = backup()
    assert second["files_new"] == second["files_changed"] == 0
    assert second["files_unmodified"] == 21
    cli.put("d/3", b"changed")
    third = backup()
    assert (third["files_changed"], third["files_unmodified"]) == (1, 20)


def test_borg_reads_nothing_again(cli, scratch, make_mount):
    need("borg")
    env = dict(os.environ, BORG_BASE_DIR=os.fspath(scratch / "borg"), BORG_RELOCATED_REPO_ACCESS_IS_OK="yes",
               BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes")
    repo = os.fspath(scratch / "repo")
    tree_for_backup(cli)
    # Borg does not remember the files with the newest time of change: that is this one.
    cli.put("newest", b"n")
    run("borg", "init", "-e", "none", repo, env=env)

    def backup(name):
        done = cli.run("snapshot", "run", cli.store, "--", "borg", "create", "--list", "--filter", "AM",
                       f"{repo}::{name}", "{}", env=env)
        return [os.path.basename(line.split(b" ", 1)[1]).decode() for line in done.stderr.splitlines()]

    assert len(backup("one")) == 22
    assert set(backup("two")) <= {"newest"}
