# SPDX-License-Identifier: Apache-2.0
"""The emdb command: what it prints, what it exits with, and what it leaves alone."""

import collections
import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import time

import pytest

import emdbfmt
from harness import binary, fallocate, reads_the_files

OK, FAILED, USAGE, PARTIAL, NO_STORE, LOCKED, CHECK, CANCELLED = 0, 1, 2, 3, 10, 11, 26, 130
COMMANDS = ["init", "put", "get", "del", "ls", "mkns", "rmns", "ttl", "sweep", "stat", "lock", "check",
            "flush", "checkpoint", "compact", "snapshot", "backup", "restore",
            "key", "encrypt", "decrypt", "repair"]


@pytest.fixture(scope="session")
def emdb():
    path = binary("emdb")
    if path is None:
        pytest.skip("no emdb: make first")
    return path


class Cli:
    def __init__(self, program, store):
        self.program = program
        self.store = os.fspath(store)

    def __call__(self, command, *args, code=OK, stdin=b"", **kwargs):
        """emdb COMMAND STORE ARGS; returns standard output as bytes."""
        return self.raw(command, self.store, *args, code=code, stdin=stdin, **kwargs).stdout

    def raw(self, *args, code=OK, stdin=b"", **kwargs):
        done = subprocess.run([self.program, *args], input=stdin, capture_output=True,
                              timeout=60, check=False, **kwargs)
        assert done.returncode == code, (args, done)
        if code not in (OK, CHECK, LOCKED):
            assert done.stderr, "a failure says why"
        return done

    def json(self, command, *args, code=OK):
        lines = self(command, "--json", *args, code=code).splitlines()
        return [json.loads(line) for line in lines]

    def names(self, *args):
        return [line["path"] for line in self.json("ls", *args)]


@pytest.fixture
def cli(emdb, scratch):
    made = Cli(emdb, scratch / "store")
    made("init")
    return made


def message(done):
    """Standard error of a failure: one line that begins with the program's name."""
    text = done.stderr.decode()
    assert text.startswith("emdb") and text.endswith("\n") and text.count("\n") == 1, text
    return text


# ---- Values ----------------------------------------------------------------


def test_put_and_get_round_trip(cli):
    cli("put", "greeting", "hello")
    assert cli("get", "greeting") == b"hello"
    cli("put", "greeting", "again")
    assert cli("get", "greeting") == b"again"


def test_put_reads_standard_input(cli):
    cli("put", "a", "-", stdin=b"from\0stdin\n")
    assert cli("get", "a") == b"from\0stdin\n"
    cli("put", "b", stdin=b"")
    assert cli("get", "b") == b""


@pytest.mark.parametrize("size", [1, 8191, 8193, 1048575, 1048576, 1048577, 5 * 1048576 + 3])
def test_values_of_any_size_come_back(cli, size):
    value = os.urandom(4096) * (size // 4096 + 1)
    value = value[:size]
    cli("put", "big", stdin=value)
    assert cli("get", "big") == value
    cli("put", "big", stdin=value[::-1])
    assert cli("get", "big") == value[::-1]
    assert cli.names() == ["big"], "no temporary name stays"
    (line,) = cli.json("ls")
    assert (line["size"], line["mode"], line["nlink"]) == (size, "0600", 1)


def test_large_value_takes_its_time_to_live(cli):
    value = bytes(2 << 20)
    cli("put", "--ttl", "1h", "a", stdin=value)
    assert 3500 < int(cli("ttl", code=USAGE) or cli.raw("ttl", "get", cli.store, "a").stdout) <= 3600
    cli("put", "a", stdin=value)
    assert cli.raw("ttl", "get", cli.store, "a").stdout == b"none\n"


def test_value_that_begins_with_a_dash(cli):
    cli.raw("put", cli.store, "a", "--", "-5")
    assert cli("get", "a") == b"-5"


def test_get_of_what_is_not_there(cli):
    done = cli.raw("get", cli.store, "nothing", code=FAILED)
    assert "nothing" in message(done) and done.stdout == b""
    cli("mkns", "ns")
    assert "namespace" in message(cli.raw("get", cli.store, "ns", code=FAILED))
    assert "namespace" in message(cli.raw("put", cli.store, "ns", "x", code=FAILED))


def test_put_makes_no_namespaces_unless_told(cli):
    done = cli.raw("put", cli.store, "a/b/c", "x", code=FAILED)
    assert "--parents" in message(done)
    assert cli.names() == []
    cli("put", "--parents", "a/b/c", "x")
    assert cli("get", "a/b/c") == b"x"


def test_del(cli):
    for key in "abc":
        cli("put", key, key)
    cli("del", "a")
    assert cli.names() == ["b", "c"]
    cli("del", "a", code=FAILED)
    cli("del", "-f", "a")
    cli("del", "a", "b", code=PARTIAL)
    assert cli.names() == ["c"]
    cli("mkns", "ns")
    assert "rmns" in message(cli.raw("del", cli.store, "ns", code=FAILED))


# ---- Names -----------------------------------------------------------------


def test_escaped_names(cli):
    for text in ["a%2Fb", "%", "%00", "100%25", "%FF%FE", ".", "..", "%0A", "%1B[2J", "é"]:
        cli("put", "-x", text, "value of " + text)
    for line in cli.json("ls"):
        assert cli("get", "-x", line["path"]) == ("value of " + line["path"]).encode()
    paths = cli.names()
    assert sorted(paths) == sorted(
        ["a%2Fb", "%", "%00", "100%25", "%FF%FE", ".", "..", "%0A", "%1B[2J", "é"])
    keys = {line["path"]: line for line in cli.json("ls")}
    assert keys["%FF%FE"]["key"] == "\ufffd\ufffd" and keys["%FF%FE"]["key_hex"] == "fffe"
    assert "key_hex" not in keys["é"] and keys["é"]["key"] == "é"
    assert keys["a%2Fb"]["key"] == "a/b" and keys["%"]["key"] == ""


def test_plain_names_are_not_unescaped(cli):
    cli("put", "a%2Fb", "x")
    assert cli("get", "a%2Fb") == b"x"
    assert cli.names() == ["a%252Fb"]
    assert cli("ls") == b"a%2Fb\n"


def test_bad_paths_are_usage(cli):
    for bad in ["", "/", "a//b", "//a"]:
        cli("put", bad, "x", code=USAGE)
    for bad in ["%", "a%2", "a%zz", "%2"]:
        if bad != "%":
            assert bad in message(cli.raw("put", "-x", cli.store, bad, "x", code=USAGE))
    assert cli.names() == []
    cli("put", "/a", "x")
    assert cli("get", "a") == b"x"


def test_longest_key(cli):
    cli("put", "k" * 65535, "x")
    assert cli("get", "k" * 65535) == b"x"
    cli("put", "k" * 65536, "x", code=FAILED)


def test_terminal_output_is_escaped(cli):
    cli("put", "-x", "%1B]0;title%07%0A\\%FF%C2%9B", "x")
    master, slave = pty.openpty()
    subprocess.run([cli.program, "ls", cli.store], stdout=slave, check=True)
    os.close(slave)
    seen = os.read(master, 4096)
    os.close(master)
    assert seen == b"\\x1b]0;title\\x07\\n\\\\\\xff\\xc2\\x9b\r\n"
    assert cli("ls") == b"\x1b]0;title\x07\n\\\xff\xc2\x9b\n"
    done = cli.raw("get", cli.store, "\x1b[2J", code=FAILED)
    assert b"\x1b" not in done.stderr and b"\\x1b[2J" in done.stderr


# ---- Namespaces --------------------------------------------------------------


def test_namespaces(cli):
    cli("mkns", "a")
    cli("mkns", "a", code=FAILED)
    cli("mkns", "-p", "a")
    cli("mkns", "x/y/z", code=FAILED)
    cli("mkns", "-p", "x/y/z", "x/w")
    assert cli("ls", "x") == b"w/\ny/\n"
    cli("put", "x/k", "v")
    cli("mkns", "x/k/below", code=FAILED)
    cli("rmns", "x", code=FAILED)
    cli("rmns", "a")
    cli("rmns", "-r", "x")
    cli("rmns", "x", code=FAILED)
    assert cli.names() == []
    cli("put", "k", "v")
    cli("rmns", "k", code=FAILED)
    cli("mkns", "k", code=FAILED)
    cli("mkns", "n", "k", code=PARTIAL)


def test_deeply_nested(cli):
    path = "/".join("d%d" % i for i in range(60))
    cli("put", "-p", path + "/leaf", "deep")
    assert cli("get", path + "/leaf") == b"deep"
    assert cli.names("-R")[-1] == path + "/leaf"
    cli("rmns", "-r", "d0")
    assert cli.names("-R") == []


def test_ls_forms(cli):
    cli("put", "users/bob", "12345", "-p")
    cli("put", "--ttl", "90m", "users/alice", "x" * 3000)
    cli("mkns", "users/ns")
    assert cli("ls") == b"users/\n"
    assert cli("ls", "users") == cli("ls", "/users/") == b"alice\nbob\nns/\n"
    assert cli("ls", "users/bob") == b"bob\n"
    assert cli("ls", "-R") == b"users/\nusers/alice\nusers/bob\nusers/ns/\n"
    assert cli("ls", "-R", "users") == b"users/alice\nusers/bob\nusers/ns/\n"
    assert sorted(cli("ls", "-U", "users").split()) == [b"alice", b"bob", b"ns/"]
    cli("ls", "nothing", code=FAILED)
    cli("ls", "users/bob/x", code=FAILED)
    lines = cli("ls", "-l", "users").decode().splitlines()
    assert lines[0].split() == ["TYPE", "SIZE", "EXPIRES", "MODIFIED", "NAME"]
    assert re.fullmatch(r"key +2\.9K +1h(29|30)m +20\d\d-\S+Z +alice", lines[1])
    assert re.fullmatch(r"key +5 +- +20\d\d-\S+Z +bob", lines[2])
    assert re.fullmatch(r"namespace +0 +- +20\d\d-\S+Z +ns/", lines[3])
    exact = [line.split("\t") for line in cli("ls", "-lH", "users").decode().splitlines()]
    assert [row[1] for row in exact] == ["3000", "5", "0"]
    assert re.fullmatch(r"@\d+\.\d{3}", exact[0][2]) and exact[1][2] == "-"


def test_ls_ranges(cli):
    names = ["a", "b", "ba", "bb", "c", "d/x", "é"]
    for name in names:
        cli("put", "-p", name, "v")
    def ls(*args):
        return cli("ls", *args).decode().split()
    assert ls() == ["a", "b", "ba", "bb", "c", "d/", "é"]
    assert ls("--from", "b") == ["b", "ba", "bb", "c", "d/", "é"]
    assert ls("--from", "b", "--to", "c") == ["b", "ba", "bb"]
    assert ls("--from=aa", "--limit", "2") == ["b", "ba"]
    assert ls("--prefix", "b") == ["b", "ba", "bb"]
    assert ls("--prefix", "b", "--reverse", "--limit=2") == ["bb", "ba"]
    assert ls("--reverse", "--from", "c", "--to", "ba") == ["c", "bb"]
    assert ls("-x", "--from", "%62a", "--to", "%c3") == ["ba", "bb", "c", "d/"]
    assert ls("--prefix", "zz") == []
    assert [e["key"] for e in cli.json("ls", "-j", "--prefix", "b")] == ["b", "ba", "bb"]
    for bad in (["--limit", "0"], ["--limit", "2x"], ["--limit", "-1"], ["--from", "a/b"],
                ["-R", "--prefix", "b"], ["-U", "--reverse"]):
        cli("ls", *bad, code=USAGE)


def test_ls_json(cli):
    cli("put", "--ttl", "1h", "users/alice", "abc", "-p")
    users, alice = cli.json("ls", "-R")
    assert users["type"] == "namespace" and users["size"] == 1 and users["expires_ms"] is None
    assert alice["path"] == "users/alice" and alice["key"] == "alice" and alice["type"] == "key"
    assert alice["size"] == 3 and alice["nlink"] == 1 and alice["uid"] == os.getuid()
    assert abs(alice["expires_ms"] / 1000 - time.time() - 3600) < 60
    for name in "mtime", "ctime", "btime":
        assert abs(alice[name] - time.time()) < 60
    assert users["id"] != alice["id"]


def test_many_entries(cli, scratch):
    """More than one batch of an unsorted listing; keys put through the library's text tools."""
    for i in range(0, 60):
        cli("put", f"k{i:04d}", str(i))
    assert cli.names() == [f"k{i:04d}" for i in range(60)]
    assert sorted(cli.names("-U")) == cli.names()


# ---- Time to live --------------------------------------------------------------


def ttl(cli, action, *args, code=OK):
    return cli.raw("ttl", action, cli.store, *args, code=code).stdout.decode().strip()


def test_ttl(cli):
    cli("put", "a", "x")
    assert ttl(cli, "get", "a") == "none"
    ttl(cli, "set", "a", "1h")
    assert 3590 < int(ttl(cli, "get", "a")) <= 3600
    ttl(cli, "set", "a", "+1h")
    assert 7190 < int(ttl(cli, "get", "a")) <= 7200
    ttl(cli, "persist", "a")
    ttl(cli, "persist", "a")
    assert ttl(cli, "get", "a") == "none"
    ttl(cli, "set", "a", "2099-01-01T00:00:00Z")
    got = json.loads(cli.raw("ttl", "get", "--json", cli.store, "a").stdout)
    assert got["expires_ms"] == 4070908800000 and got["expires"] == "2099-01-01T00:00:00.000Z"
    ttl(cli, "set", "a", "@1")
    ttl(cli, "get", "a", code=FAILED)
    cli("get", "a", code=FAILED)
    ttl(cli, "set", "a", "1h", code=FAILED)


def test_ttl_conditions(cli):
    cli("put", "a", "x")
    ttl(cli, "set", "a", "1h", "--xx", code=FAILED)
    ttl(cli, "set", "a", "1h", "--gt", code=FAILED)
    ttl(cli, "set", "a", "1h", "--lt")
    ttl(cli, "set", "a", "2h", "--nx", code=FAILED)
    ttl(cli, "set", "a", "2h", "--lt", code=FAILED)
    assert int(ttl(cli, "get", "a")) <= 3600
    ttl(cli, "set", "a", "2h", "--gt", "--xx")
    assert int(ttl(cli, "get", "a")) > 3600
    ttl(cli, "set", "a", "none", "--gt")
    ttl(cli, "set", "a", "10m", "--nx")
    for bad in (["--nx", "--xx"], ["--gt", "--lt"], ["--nx", "--gt"]):
        ttl(cli, "set", "a", "1h", *bad, code=USAGE)
    ttl(cli, "get", "a", "--nx", code=USAGE)


def test_ttl_usage(cli):
    cli("put", "a", "x")
    for bad in ["", "soon", "1x", "-1", "12:30", "1h30"]:
        ttl(cli, "set", "--", "a", bad, code=USAGE)
        cli.raw("put", "--ttl", bad, cli.store, "a", "y", code=USAGE)
    assert cli("get", "a") == b"x" and ttl(cli, "get", "a") == "none"
    ttl(cli, "set", "a", code=USAGE)
    ttl(cli, "get", "a", "1h", code=USAGE)
    ttl(cli, "forget", "a", code=USAGE)


def test_ttl_default_of_a_namespace(cli):
    cli("mkns", "cache")
    assert ttl(cli, "get", "--default", "cache") == "none"
    ttl(cli, "set", "--default", "cache", "7d")
    assert ttl(cli, "get", "--default", "cache") == "604800"
    cli("put", "cache/a", "x")
    cli("put", "--ttl", "none", "cache/b", "x")
    cli("put", "--ttl", "1h", "cache/c", "x")
    assert int(ttl(cli, "get", "cache/a")) > 604000
    assert ttl(cli, "get", "cache/b") == "none"
    assert int(ttl(cli, "get", "cache/c")) <= 3600
    ttl(cli, "persist", "--default", "cache")
    cli("put", "cache/d", "x")
    assert ttl(cli, "get", "cache/d") == "none"
    ttl(cli, "set", "--default", "/", "1d")
    assert ttl(cli, "get", "--default", "/") == "86400"


def test_expired_keys_are_absent_and_swept(cli):
    cli("put", "--ttl", "300ms", "a", "x")
    cli("put", "b", "x")
    assert cli("get", "a") == b"x"
    time.sleep(0.4)
    cli("get", "a", code=FAILED)
    cli("del", "a", code=FAILED)
    assert cli.names() == ["b"]
    cli("sweep")
    assert cli("sweep") == b"0\n"
    assert cli.names() == ["b"]


# ---- Stores ----------------------------------------------------------------------


def test_init_refuses_what_is_there(emdb, scratch):
    cli = Cli(emdb, scratch / "store")
    cli("init", "--segment-size", "4M")
    assert cli.json("stat")[0]["segment_bytes"] == 4 << 20
    assert "already" in message(cli.raw("init", cli.store, code=FAILED))
    full = scratch / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    assert "not an empty directory" in message(cli.raw("init", str(full), code=FAILED))
    assert os.listdir(full) == ["file"]
    (scratch / "empty").mkdir()
    cli.raw("init", str(scratch / "empty"))
    cli.raw("init", str(scratch / "no" / "such" / "parent"), code=FAILED)
    (scratch / "plain").write_text("")
    cli.raw("init", str(scratch / "plain"), code=FAILED)


@pytest.mark.parametrize("size", ["0", "1", "3M", "2G", "512K", "x", "", "-1M", "1MB", "99999999999999999999"])
def test_init_bad_segment_size(emdb, scratch, size):
    cli = Cli(emdb, scratch / "store")
    cli.raw("init", f"--segment-size={size}", cli.store, code=USAGE)
    assert not (scratch / "store").exists()


def test_store_is_private(cli):
    for path, _, files in os.walk(cli.store):
        assert os.stat(path).st_mode & 0o777 == 0o700
        for name in files:
            assert os.stat(os.path.join(path, name)).st_mode & 0o777 == 0o600, name


COMMAND_LINES = [
    ["put", "S", "a", "x"], ["get", "S", "a"], ["del", "S", "a"], ["ls", "S"], ["mkns", "S", "a"],
    ["rmns", "S", "a"], ["ttl", "get", "S", "a"], ["ttl", "set", "S", "a", "1h"], ["sweep", "S"],
    ["stat", "S"], ["lock", "S"], ["lock", "S", "break"], ["check", "S"], ["flush", "S"],
    ["checkpoint", "S"], ["compact", "S"], ["snapshot", "create", "S", "x"],
    ["snapshot", "delete", "S", "x"], ["snapshot", "rename", "S", "x", "y"],
    ["backup", "S", "/nonexistent/target"],
]


@pytest.mark.parametrize("line", COMMAND_LINES, ids=" ".join)
def test_no_store(emdb, scratch, line):
    cli = Cli(emdb, scratch / "none")
    args = [cli.store if word == "S" else word for word in line]
    assert cli.store in message(cli.raw(*args, code=NO_STORE))
    assert not os.path.exists(cli.store), "nothing is created"
    os.mkdir(cli.store)
    message(cli.raw(*args, code=NO_STORE))
    assert os.listdir(cli.store) == []


def test_stat(cli):
    cli("put", "-p", "ns/a", "x" * 1000)
    cli("put", "--ttl", "1h", "b", "x")
    (stat,) = cli.json("stat")
    assert (stat["records"], stat["namespaces"], stat["expiring"]) == (2, 1, 1)
    assert stat["segment_bytes"] == 64 << 20 and stat["damaged"] is False
    assert stat["live_bytes"] >= 1000
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", stat["uuid"])
    text = cli("stat").decode()
    assert stat["uuid"] in text and "keys" in text


def test_reading_changes_nothing(cli):
    cli("put", "-p", "ns/a", "x")

    def state():
        found = {}
        for path, _, files in os.walk(cli.store):
            for name in files:
                if name != "lock":
                    with open(os.path.join(path, name), "rb") as f:
                        found[os.path.join(path, name)] = hash(f.read())
        return found

    before = state()
    cli("get", "ns/a")
    cli("ls", "-R")
    cli("stat")
    cli("check")
    ttl(cli, "get", "ns/a")
    cli("lock")
    assert state() == before


# ---- A store in use ----------------------------------------------------------------


@pytest.fixture
def holder(cli):
    """A process that has the store open: a put that waits for its input."""
    proc = subprocess.Popen([cli.program, "put", cli.store, "pending"], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 10
    while cli.raw_lock()["held"] is not True:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield proc
    if proc.poll() is None:
        proc.kill()
    proc.wait()
    proc.stdin.close()


def raw_lock(self):
    done = subprocess.run([self.program, "lock", "--json", self.store], capture_output=True,
                          check=False)
    return json.loads(done.stdout)


Cli.raw_lock = raw_lock


def test_store_in_use_names_the_holder(cli, holder):
    for line in COMMAND_LINES:
        if line[0] == "lock":
            continue
        args = [cli.store if word == "S" else word for word in line]
        text = message(cli.raw(*args, code=LOCKED))
        assert str(holder.pid) in text and os.uname().nodename in text, text
        assert re.search(r"since 20\d\d-\d\d-\d\dT", text), text
    text = cli("lock", code=LOCKED).decode()
    assert str(holder.pid) in text and os.uname().nodename in text
    state = cli.raw_lock()
    assert state["held"] and state["pid"] == holder.pid and state["host"] == os.uname().nodename
    assert str(holder.pid) in message(cli.raw("lock", cli.store, "break", code=LOCKED))
    holder.stdin.write(b"value")
    holder.stdin.close()
    assert holder.wait() == 0
    assert cli("lock") == b"free\n"
    assert cli("get", "pending") == b"value"


def test_killed_holder_leaves_a_free_store(cli, holder):
    cli.raw("put", cli.store, "x", "y", code=LOCKED)
    holder.kill()
    holder.wait()
    state = cli.raw_lock()
    assert not state["held"] and state["stale"] and state["pid"] == holder.pid
    cli("lock", "break")
    assert cli("lock") == b"free\n"
    cli("put", "x", "y")
    assert cli("get", "x") == b"y"


def test_interrupt(cli, holder):
    holder.send_signal(signal.SIGINT)
    assert holder.wait() == CANCELLED
    cli("put", "x", "y")
    assert cli.names() == ["x"]


def test_readers_share(cli):
    cli("put", "a", stdin=bytes(4 << 20))
    read = subprocess.Popen([cli.program, "get", cli.store, "a"], stdout=subprocess.PIPE)
    read.stdout.read(1)
    assert cli.names() == ["a"]
    cli("put", "b", "x", code=LOCKED)
    read.stdout.read()
    assert read.wait() == 0


# ---- Damage ------------------------------------------------------------------------


def damage(cli, needle):
    """Flips a bit of the only place in the journal that holds needle; returns (file, offset)."""
    journal = os.path.join(cli.store, "journal")
    for name in sorted(os.listdir(journal)):
        path = os.path.join(journal, name)
        with open(path, "r+b") as f:
            data = f.read()
            at = data.find(needle)
            if at >= 0:
                f.seek(at)
                f.write(bytes([data[at] ^ 1]))
                return name, at
    raise AssertionError("not found")


def test_check_of_a_good_store(cli):
    cli("put", "a", "x")
    text = cli("check").decode()
    assert re.match(r"good: \d+ frames, \d+ records, \d+ bytes\n$", text), text
    assert cli("check", "-q") == b""
    (summary,) = cli.json("check")
    assert summary["message_type"] == "summary" and summary["bad_frames"] == 0
    assert summary["records"] >= 1


def test_check_names_the_entry(cli):
    cli("mkns", "dir")
    cli("put", "dir/b", "the value that rots")
    cli("put", "dir/c", "x")
    damage(cli, b"the value that rots")
    lost = [f for f in cli.json("check", code=CHECK) if f.get("damage") == "lost"]
    assert [f["path"] for f in lost] == ["dir/b"]
    # There is a way out for who does not want the rest checked.
    cli("put", "dir/b", "new")
    assert cli("get", "dir/b") == b"new"
    damage(cli, b"new")
    cli("get", "dir/b", code=FAILED)
    cli("del", "dir/b")
    assert cli.names("dir") == ["dir/c"]


def test_repair(cli):
    cli("mkns", "dir")
    cli("put", "dir/a", "1")
    cli("put", "dir/b", "the value that rots")
    damage(cli, b"the value that rots")
    assert cli.json("repair", "-n", code=CHECK)[-1]["places"] == 1
    lines = cli.json("repair")
    assert [f["path"] for f in lines if f.get("damage") == "lost"] == ["dir/b"]
    assert lines[-1]["lost_entries"] == 1 and lines[-1]["kept"] == "lost/1"
    assert cli("get", "dir/a") == b"1"
    cli("get", "dir/b", code=1)
    cli("check")
    assert cli("repair") == b"nothing to repair\n"


def test_check_finds_damage(cli):
    cli("put", "a", "x")
    cli("put", "b", "the value that rots")
    cli("put", "c", "x")
    name, _ = damage(cli, b"the value that rots")
    lines = cli.json("check", code=CHECK)
    assert lines[-1]["message_type"] == "summary" and lines[-1]["bad_frames"] >= 1
    assert lines[0]["message_type"] == "error" and f"{lines[0]['segment']:016x}.seg" == name
    assert cli("check", "-q", code=CHECK) == b""
    assert "bad:" in cli("check", code=CHECK).decode()


def test_damage_is_never_silence(cli):
    cli("put", "a", "x")
    cli("put", "b", "the value that rots")
    cli("put", "c", "x")
    damage(cli, b"the value that rots")
    done = subprocess.run([cli.program, "get", cli.store, "b"], capture_output=True, check=False)
    assert done.returncode == FAILED and done.stdout == b"" and b".seg offset" in done.stderr
    # Opened by a checkpoint, the rest works on; what is listed does not hide the damage.
    assert cli("get", "c") == b"x"
    cli("put", "d", "x")
    cli("ls", code=FAILED)
    cli("check", code=CHECK)
    # Without checkpoints everything is read: a store that is damaged does not open for writing.
    for name in os.listdir(cli.store):
        if name.startswith("checkpoint-"):
            os.unlink(os.path.join(cli.store, name))
    cli("put", "e", "x", code=FAILED)
    cli("ls", code=FAILED)
    assert cli.names("--salvage") == ["a", "c", "d"]
    assert cli("get", "--salvage", "c") == b"x"
    cli("get", "--salvage", "b", code=FAILED)
    assert cli.json("stat", "--salvage")[0]["damaged"] is True


# ---- Command lines -----------------------------------------------------------------


def test_usage(emdb):
    cli = Cli(emdb, "/nonexistent")
    assert "no command" in message(cli.raw(code=USAGE))
    assert "frobnicate" in message(cli.raw("frobnicate", code=USAGE))
    assert "--frob" in message(cli.raw("--frob", code=USAGE))
    for command in COMMANDS:
        args = ["get"] if command == "ttl" else []
        assert "--frob" in message(cli.raw(command, *args, "--frob", "/nonexistent", "x", code=USAGE))
        assert "-Z" in message(cli.raw(command, *args, "-Z", "/nonexistent", "x", code=USAGE))
        assert "missing" in message(cli.raw(command, code=USAGE))
    assert "needs a value" in message(cli.raw("put", "S", "a", "b", "--ttl", code=USAGE))
    assert "too many" in message(cli.raw("get", "S", "a", "b", code=USAGE))
    assert "takes no value" in message(cli.raw("ls", "--json=1", "S", code=USAGE))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_the_truth(emdb, command):
    """Every option that the help names is taken; both forms of asking for help agree."""
    cli = Cli(emdb, "/nonexistent/store")
    text = cli.raw(command, "--help").stdout.decode()
    assert text == cli.raw("help", command).stdout.decode() == cli.raw(command, "-h").stdout.decode()
    assert text.startswith(f"Usage: emdb {command} ")
    for line in text.partition("Options:\n")[2].partition("\n\n")[0].splitlines():
        short, name, value = re.fullmatch(r"  (-\w)?,? *(--[a-z-]+)? ?([A-Z]+)? +.*", line).groups()
        for option in filter(None, (short, name)):
            if option in ("-h", "--help"):
                continue
            values = {"--segment-size": "1M", "--rate": "1M", "--min-dead": "50",
                      "--cipher": "chacha20-poly1305", "--limit": "5"}
            given = [option, values.get(name, "1h")] if value else [option]
            words = {"ttl": ["set", cli.store, "a", "1h"], "init": [cli.store], "lock": [cli.store],
                     "stat": [cli.store], "check": [cli.store], "repair": [cli.store], "ls": [cli.store],
                     "sweep": [cli.store], "flush": [cli.store], "checkpoint": [cli.store],
                     "compact": [cli.store], "snapshot": ["list", cli.store],
                     "key": ["list", cli.store], "encrypt": [cli.store],
                     "decrypt": [cli.store]}.get(command, [cli.store, "a"])
            if name == "--past-newer":
                words = ["rollback", cli.store, "x"]
            if command == "init" and name == "--cipher":
                given.append("--encrypt")
            code = FAILED if command == "init" else NO_STORE
            done = cli.raw(command, *given, *words, code=code, stdin=b"a passphrase\n",
                           start_new_session=True)
            assert b"option" not in done.stderr


def test_overview_and_version(emdb):
    cli = Cli(emdb, "/nonexistent")
    text = cli.raw("--help").stdout.decode()
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.M)
    assert re.fullmatch(rb"emdb \d+\.\d+\.\d+\n", cli.raw("--version").stdout)


def test_json_messages(cli):
    done = cli.raw("ls", "--json", cli.store, "nothing", code=FAILED)
    said = json.loads(done.stderr)
    assert said["message_type"] == "exit_error" and said["code"] == FAILED
    assert said["command"] == "ls" and "nothing" in said["message"]


def test_full_output(cli):
    cli("put", "a", stdin=bytes(200000))
    with open("/dev/full", "wb") as full:
        for args in (["get", cli.store, "a"], ["ls", cli.store], ["stat", cli.store], ["--help"]):
            done = subprocess.run([cli.program, *args], stdout=full, stderr=subprocess.PIPE, check=False)
            assert done.returncode == FAILED and b"No space left" in done.stderr


def test_reader_that_leaves(cli):
    cli("put", "a", stdin=bytes(4 << 20))
    proc = subprocess.Popen([cli.program, "get", cli.store, "a"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    proc.stdout.read(1)
    proc.stdout.close()
    assert proc.wait() == FAILED and proc.stderr.read() == b""
    proc.stderr.close()
    assert cli("lock") == b"free\n"


def test_unreadable_input(cli, scratch):
    fd = os.open(scratch, os.O_RDONLY)
    done = subprocess.run([cli.program, "put", cli.store, "a"], stdin=fd, capture_output=True,
                          check=False)
    os.close(fd)
    assert done.returncode == FAILED and b"standard input" in done.stderr
    assert cli.names() == []


# ---- The format ----------------------------------------------------------------------


def unescape(path):
    return tuple(b"" if part == "%" else
                 re.sub(rb"%([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), part.encode())
                 for part in path.split("/"))


def compare(cli):
    """The second reader of the format and the engine agree on everything."""
    store = emdbfmt.Store(cli.store)
    found = dict(store.walk(now_ms=int(time.time() * 1000)))
    names = collections.Counter(what.id for what in found.values())
    listed = {unescape(line["path"]): line for line in cli.json("ls", "-R")}
    assert found.keys() == listed.keys()
    files = [path for path, what in found.items() if isinstance(what, emdbfmt.Object)]
    fetched = set(random.sample(files, min(len(files), 100)))
    for path, what in found.items():
        line = listed[path]
        assert (what.id, what.uid, what.gid) == (line["id"], line["uid"], line["gid"]), path
        assert f"{what.mode & 0o7777:04o}" == line["mode"], path
        if isinstance(what, emdbfmt.Namespace):
            assert line["type"] == "namespace"
            continue
        assert line["size"] == what.size and (line["expires_ms"] or 0) == what.expires_ms, path
        assert line["nlink"] == names[what.id], path
        assert abs(what.mtime_ns / 1e9 - line["mtime"]) < 1e-5
        if path in fetched:
            assert cli("get", "-x", line["path"]) == store.content(what), path
    return store


def test_second_reader_agrees_on_what_emdb_wrote(cli):
    reads_the_files()
    cli("put", "-p", "users/alice", "hello")
    cli("put", "users/bob", "")
    cli("put", "--ttl", "1h", "users/carol", "x" * 9000)
    cli("put", "users/alice", "changed")
    cli("put", "big", stdin=os.urandom(3 << 20))
    cli("put", "big", stdin=os.urandom(2500000))
    cli("put", "-x", "a%2Fb%00%FF", "odd")
    cli("put", "-x", "%", "empty key")
    cli("mkns", "-p", "gone/deep/down", "empty")
    cli("put", "gone/deep/x", "x")
    cli("rmns", "-r", "gone")
    cli("put", "-p", "gone/new", "y")
    cli("put", "removed", "x")
    cli("del", "removed")
    cli("put", "--ttl", "@1", "past", "x")
    ttl(cli, "set", "--default", "users", "7d")
    cli("put", "users/dave", "x")
    ttl(cli, "set", "users/dave", "9d")
    ttl(cli, "persist", "users/carol")
    store = compare(cli)
    assert store.namespaces[emdbfmt.ROOT].entries and store.journal.frames > 15


def test_second_reader_over_many_segments(emdb, scratch):
    reads_the_files()
    cli = Cli(emdb, scratch / "store")
    cli("init", "--segment-size", "1M")
    for i in range(12):
        cli("put", f"k{i % 5}", stdin=os.urandom(300000 + i))
    cli("put", "large", stdin=os.urandom(3 << 20))
    store = compare(cli)
    assert len(store.journal.manifest.segments) > 4


@pytest.mark.emdb
def test_second_reader_agrees_on_what_a_mount_wrote(emdb, make_mount):
    reads_the_files()
    mount = make_mount()
    root = mount.mnt
    (root / "dir").mkdir()
    (root / "dir" / "file").write_bytes(b"one")
    os.link(root / "dir" / "file", root / "hard")
    os.symlink("dir/file", root / "soft")
    big = os.urandom(100000)
    with open(root / "big", "wb") as f:
        f.write(big)
        f.seek(300000)
        f.write(big)
        f.seek(50000)
        f.write(b"in the middle")
        f.truncate(390000)
    (root / "was").write_bytes(b"x" * 20000)
    os.rename(root / "was", root / "dir" / "is")
    os.rename(root / "dir", root / "moved")
    os.chmod(root / "hard", 0o640)
    os.setxattr(root / "hard", "user.test", b"value")
    (root / "short-lived").write_bytes(b"x")
    os.setxattr(root / "short-lived", "user.emdb.ttl", b"1h")
    (root / "dropped").write_bytes(b"x" * 100000)
    os.unlink(root / "dropped")
    mount.stop()
    store = compare(Cli(emdb, mount.store))
    entries = store.namespaces[emdbfmt.ROOT].entries
    hard = store.objects[entries[b"hard"][1]]
    assert hard.xattrs == {b"user.test": b"value"}
    assert store.namespaces[entries[b"moved"][1]].entries[b"file"] == entries[b"hard"]


def scramble(root, rng, steps):
    """Random changes through a mount, of every kind that has a record of its own."""
    files, dirs = [], [root]

    def fresh():
        return rng.choice(dirs) / f"n{rng.randrange(1 << 40):x}"

    def create():
        files.append(fresh())
        files[-1].write_bytes(rng.randbytes(rng.choice([0, 10, 5000, 20000, 200000])))

    def write():
        with open(rng.choice(files), "r+b") as f:
            f.seek(rng.randrange(300000))
            f.write(rng.randbytes(rng.randrange(1, 70000)))

    def truncate():
        os.truncate(rng.choice(files), rng.randrange(400000))

    def punch():
        with open(rng.choice(files), "r+b") as f:
            fallocate(f.fileno(), 0x3, rng.randrange(200000), rng.randrange(1, 100000))

    def clone():
        with open(rng.choice(files), "rb") as src, open(rng.choice(files), "r+b") as dst:
            if not os.path.samestat(os.fstat(src.fileno()), os.fstat(dst.fileno())):
                os.copy_file_range(src.fileno(), dst.fileno(), rng.randrange(1, 250000),
                                   rng.randrange(50000), rng.randrange(100000))

    def link():
        files.append(fresh())
        os.link(rng.choice(files[:-1]), files[-1])

    def rename():
        at = rng.randrange(len(files))
        to = rng.choice([fresh(), rng.choice(files)])
        if os.path.samefile(files[at], to) if to.exists() else False:
            return
        os.rename(files[at], to)
        was = files[at]
        files[:] = [f for f in files if f not in (was, to)] + [to]
        assert os.stat(to).st_nlink >= 1

    def unlink():
        if len(files) > 5:
            os.unlink(files.pop(rng.randrange(len(files))))

    def mkdir():
        if len(dirs) < 20:
            dirs.append(fresh())
            dirs[-1].mkdir()

    def metadata():
        name = rng.choice(files)
        os.chmod(name, rng.choice([0o600, 0o644, 0o4755]))
        os.utime(name, ns=(rng.randrange(1 << 61), rng.randrange(1 << 61)))
        os.setxattr(name, "user.x", rng.randbytes(rng.randrange(100)))

    def deadline():
        os.setxattr(rng.choice(files), "user.emdb.ttl", rng.choice([b"1h", b"30d", b"none"]))

    for _ in range(6):
        create()
    actions = [create, write, write, truncate, punch, clone, link, rename, unlink, mkdir, metadata,
               deadline]
    for _ in range(steps):
        rng.choice(actions)()


def live_files(root):
    """What the mount shows of each regular file, by path."""
    found = {}
    for path, _, names in os.walk(root):
        for name in names:
            full = os.path.join(path, name)
            st = os.stat(full)
            with open(full, "rb") as f:
                data = f.read()
            key = tuple(os.fsencode(part) for part in os.path.relpath(full, root).split("/"))
            found[key] = (st.st_ino, st.st_mode, st.st_nlink, st.st_mtime_ns, data)
    return found


@pytest.mark.emdb
@pytest.mark.parametrize("end", ["unmounted", "killed"])
def test_second_reader_agrees_after_random_changes(emdb, make_mount, rng, end):
    reads_the_files()
    mount = make_mount(["segment_size=2M"])
    scramble(mount.mnt, rng, 300)
    live = live_files(mount.mnt)
    if end == "killed":
        mount.kill9()
    else:
        mount.stop()
    store = compare(Cli(emdb, mount.store))
    found = {path: what for path, what in store.walk() if isinstance(what, emdbfmt.Object)}
    names = collections.Counter(what.id for what in found.values())
    assert found.keys() == live.keys()
    for path, what in found.items():
        said = (what.id, what.mode, names[what.id], what.mtime_ns, store.content(what))
        assert said == live[path], path


@pytest.mark.emdb
def test_second_reader_agrees_after_a_kill_under_load(emdb, make_mount, rng):
    """Frames of several writers side by side, some cut short; the state is the same to both."""
    reads_the_files()
    mount = make_mount(["segment_size=2M", "max_threads=4"])
    seeds = [rng.randrange(1 << 32) for _ in range(4)]
    writers = []
    for i, seed in enumerate(seeds):
        (mount.mnt / f"w{i}").mkdir()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(OSError):
                scramble(mount.mnt / f"w{i}", random.Random(seed), 100000)
            os._exit(0)
        writers.append(pid)
    time.sleep(rng.uniform(0.01, 0.15))
    mount.kill9()
    for pid in writers:
        os.waitpid(pid, 0)
    before = compare(Cli(emdb, mount.store))
    cli = Cli(emdb, mount.store)
    cli("put", "after", "recovery")
    after = compare(cli)
    assert len(after.objects) >= 1 and before.journal.frames > 0
