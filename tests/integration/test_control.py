# SPDX-License-Identifier: Apache-2.0
"""The command line on a store that is mounted: the daemon's socket."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import threading
import time

import pytest

from harness import Dir, Inotify, IN_DELETE_SELF, as_user, binary, get, is_mounted, put, wait_until

pytestmark = pytest.mark.emdb

OK, FAILED, USAGE, PARTIAL, LOCKED = 0, 1, 2, 3, 11
HELLO = struct.pack("<IBBHi", 8, 1, 1, 0, 0)
CONNECTIONS_MAX = 16


class Cli:
    def __init__(self, where):
        self.program = binary("emdb")
        if self.program is None:
            pytest.skip("no emdb: make first")
        self.where = os.fspath(where)

    def run(self, *args, stdin=b"", code=OK, **kwargs):
        done = subprocess.run([self.program, *args], input=stdin, capture_output=True, timeout=60,
                              check=False, **kwargs)
        assert done.returncode == code, (args, done)
        return done

    def __call__(self, command, *args, **kwargs):
        return self.run(command, self.where, *args, **kwargs).stdout

    def ttl(self, action, *args, **kwargs):
        return self.run("ttl", action, self.where, *args, **kwargs).stdout

    def json(self, command, *args):
        return [json.loads(line) for line in self(command, "--json", *args).splitlines()]


@pytest.fixture(params=["store", "mountpoint"])
def cli(mount, request):
    """Commands on the mounted store, by either of its names."""
    return Cli(mount.store if request.param == "store" else mount.mnt)


def connect(mount):
    here = os.open(mount.store, os.O_RDONLY | os.O_DIRECTORY)
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(f"/proc/self/fd/{here}/control.sock")
        return s
    finally:
        os.close(here)


def receive(s):
    """(operation, error, fields) of an answer; None at the end."""
    head = b""
    while len(head) < 12:
        more = s.recv(12 - len(head))
        if not more:
            assert not head
            return None
        head += more
    length, version, op, zero, err = struct.unpack("<IBBHi", head)
    assert version == 1 and zero == 0
    body = b""
    while len(body) < length - 8:
        more = s.recv(length - 8 - len(body))
        assert more
        body += more
    return op, err, body


def hangs_up(s):
    """Reads what is still said, until the other end is gone."""
    with contextlib.suppress(ConnectionError):
        while s.recv(65536):
            pass
    return True


# ---- Commands ------------------------------------------------------------


def test_socket_is_the_owners(mount):
    st = os.stat(mount.store / "control.sock")
    assert stat.S_ISSOCK(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o600


def test_put_get_del(mount, cli):
    cli("put", "a", "one")
    assert get(mount / "a") == b"one" and cli("get", "a") == b"one"
    put(mount / "a", b"two")
    assert cli("get", "a") == b"two"
    cli("put", "--parents", "x/y/z", stdin=b"deep")
    assert get(mount / "x/y/z") == b"deep"
    cli("del", "a", "x/y/z")
    assert sorted(os.listdir(mount.mnt)) == ["x"] and os.listdir(mount / "x/y") == []


def test_errors_are_those_of_an_unserved_store(cli):
    cli("mkns", "n")
    for args, code, text in [
        (("get", "nope"), FAILED, "nope: no such key or namespace"),
        (("get", "n"), FAILED, "n: "),
        (("put", "no/where", "x"), FAILED, "no such namespace (--parents makes it)"),
        (("put", "n", "x"), FAILED, "n: "),
        (("del", "n"), FAILED, "is a namespace (see: emdb rmns)"),
        (("mkns", "n"), FAILED, "n: "),
        (("put", "k", "v", "--ttl", "soon"), USAGE, "not a time to live"),
        (("rmns", "n", "m"), PARTIAL, "m: "),
        (("get", "k" * 70000), FAILED, "k"),
    ]:
        done = cli.run(args[0], cli.where, *args[1:], code=code)
        assert text in done.stderr.decode() and done.stderr.startswith(b"emdb "), done


def test_namespaces(mount, cli):
    cli("mkns", "a", "b")
    cli("mkns", "--parents", "c/d/e")
    put(mount / "c/d/f", b"x")
    assert (mount / "c/d/e").is_dir()
    cli("rmns", "a")
    cli("rmns", "c", code=FAILED)
    cli("rmns", "-r", "c")
    assert os.listdir(mount.mnt) == ["b"]
    with pytest.raises(FileNotFoundError):
        os.stat(mount / "c/d/f")


def test_ttl(mount, cli):
    cli("put", "--ttl", "1h", "a", "x")
    left = int(os.getxattr(mount / "a", "user.emdb.ttl"))
    assert 3595 <= left <= 3600 and 3595 <= int(cli.ttl("get", "a")) <= 3600
    cli.ttl("set", "a", "2h")
    assert 7195 <= int(os.getxattr(mount / "a", "user.emdb.ttl")) <= 7200
    cli.ttl("persist", "a")
    assert cli.ttl("get", "a") == b"none\n"
    cli.ttl("set", "--xx", "a", "1h", code=FAILED)
    cli("mkns", "n")
    cli.ttl("set", "--default", "n", "7d")
    assert os.getxattr(mount / "n", "user.emdb.ttl.default") in (b"7d", b"604800")
    put(mount / "n/x")
    assert 604000 < int(cli.ttl("get", "n/x")) <= 604800
    cli.ttl("set", "a", "@1000000000")
    assert not os.path.lexists(mount / "a")


def test_expired_name_leaves_the_cache_in_time(mount, cli):
    put(mount / "a", b"x")
    os.stat(mount / "a")
    cli.ttl("set", "a", "300ms")
    assert wait_until(lambda: not os.path.lexists(mount / "a"), 3)
    assert os.listdir(mount.mnt) == []


def test_sweep(mount, cli):
    cli("put", "--ttl", "1h", "a", "x")
    assert cli("sweep") == b"0\n"


def test_same_output_as_unserved(mount):
    """Everything that prints, once through the daemon, once without it."""
    served, alone = Cli(mount.mnt), Cli(mount.store)
    served("put", "--parents", "n/m/k", "value")
    served("put", "--ttl", "@4000000000", "t", "x")
    served("put", "empty", stdin=b"")
    served("put", "-x", "sl%2Fash%00%ff", "x")
    os.symlink("nowhere", mount / "link")
    os.mkfifo(mount / "fifo")
    lines = [("ls",), ("ls", "-R"), ("ls", "-RU"), ("ls", "-lH"), ("ls", "-x"), ("ls", "--json"),
             ("ls", "-R", "--json"), ("ls", "n/m/k"), ("get", "n/m/k"), ("get", "empty")]
    before = [sorted(served(*line).splitlines()) for line in lines]
    before.append(served.ttl("get", "--json", "empty"))
    (stats,) = served.json("stat")
    mount.stop()
    after = [sorted(alone(*line).splitlines()) for line in lines]
    after.append(alone.ttl("get", "--json", "empty"))
    assert before == after
    (plain,) = alone.json("stat")
    assert set(stats) - {"served"} == set(plain)
    for name in ("uuid", "records", "namespaces", "expiring", "segment_bytes"):
        assert stats[name] == plain[name], name
    mount.start()


def test_stat_of_a_served_store(mount, cli):
    put(mount / "a", b"x" * 1000)
    fd = os.open(mount / "a", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    (stats,) = cli.json("stat")
    assert stats["records"] == 1
    served = stats["served"]
    assert served["pid"] == mount.proc.pid and served["syncs"] >= 1
    assert sum(served["sync_groups"]) >= 1
    write = served["requests"]["write"]
    assert write["calls"] == 1 and sum(write["histogram"]) == 1 and write["p50_us"] >= 1
    text = cli("stat").decode()
    assert re.search(rf"served by process +{mount.proc.pid}\n", text) and "  write " in text


def test_lock_and_check_name_the_daemon(mount, cli):
    assert str(mount.proc.pid) in cli("lock", code=LOCKED).decode()
    done = cli.run("check", cli.where, code=LOCKED)
    assert str(mount.proc.pid).encode() in done.stderr


def test_changes_survive_the_daemons_death(mount):
    cli = Cli(mount.mnt)
    cli("put", "a", "x")
    cli("put", "big", stdin=b"y" * 3_000_000)
    cli("mkns", "n")
    mount.kill9()
    assert (mount.store / "control.sock").exists()
    alone = Cli(mount.store)
    assert alone("get", "a") == b"x" and alone("get", "big") == b"y" * 3_000_000
    assert alone("ls") == b"a\nbig\nn/\n"
    mount.start()
    assert cli("get", "a") == b"x"
    mount.stop()
    assert not (mount.store / "control.sock").exists()
    mount.start()


def test_store_deep_in_the_tree(scratch, make_mount):
    """A socket's path has 108 bytes; a store's may have more."""
    deep = scratch / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    mount = make_mount(store=deep / "store with blanks")
    for where in (mount.store, mount.mnt):
        cli = Cli(where)
        cli("put", "a", "x")
        assert cli("get", "a") == b"x"
    assert Cli(".").run("get", ".", "a", cwd=mount.mnt).stdout == b"x"


def test_read_only_mount_shares(scratch, make_mount):
    cli = Cli(scratch / "store")
    cli("init")
    cli("put", "a", "x")
    mount = make_mount(["ro"], store=scratch / "store")
    assert not (mount.store / "control.sock").exists()
    for where in (mount.store, mount.mnt):
        assert Cli(where)("get", "a") == b"x"
        done = Cli(where).run("put", os.fspath(where), "b", "x", code=LOCKED)
        assert b"in use" in done.stderr


def test_right_after_unmounting(mount):
    cli = Cli(mount.store)
    for i in range(5):
        cli("put", f"k{i}", "x" * 1000)
        assert wait_until(lambda: subprocess.run(["fusermount3", "-u", str(mount.mnt)],
                                                 check=False).returncode == 0, 5)
        assert len(cli("ls").splitlines()) == i + 1
        mount.stop()
        mount.start()


# ---- The kernel's caches -------------------------------------------------


def test_cached_things_change_at_once(mount, cli):
    """Negative names, contents, attributes, listings: each cached before, right after."""
    def listing():
        return sorted(os.listdir(mount.mnt))

    for i in range(20):
        name = f"f{i}"
        path = mount / name
        for _ in range(2):
            assert not os.path.lexists(path)
            assert name not in listing()
        cli("put", name, f"first {i}")
        assert get(path) == f"first {i}".encode() and name in listing()
        cli("put", name, f"second, longer {i}")
        assert os.stat(path).st_size == len(f"second, longer {i}")
        assert get(path) == f"second, longer {i}".encode()
        cli("put", name, "3")
        assert get(path) == b"3" and os.stat(path).st_size == 1
        cli("del", name)
        assert not os.path.lexists(path) and name not in listing()


def test_content_of_every_size_changes_at_once(mount):
    cli = Cli(mount.mnt)
    sizes = [0, 1, 4095, 4096, 8192, 70_000, 524_287, 524_288, 1_000_000, 5_000_000, 3, 600_000]
    for i, size in enumerate(sizes):
        data = bytes([65 + i]) * size
        cli("put", "f", stdin=data)
        assert os.stat(mount / "f").st_size == size
        assert get(mount / "f") == data
        assert cli("get", "f") == data
        assert os.listdir(mount.mnt) == ["f"]


def test_open_file(mount):
    """Who has a file open sees a new value, or goes on with the old one whole; never a mixture."""
    cli = Cli(mount.mnt)
    put(mount / "f", b"a" * 100_000)
    with open(mount / "f", "rb", buffering=0) as f:
        assert f.read() == b"a" * 100_000
        cli("put", "f", stdin=b"b" * 100_000)
        assert os.pread(f.fileno(), 100_000, 0) == b"b" * 100_000
        cli("put", "f", stdin=b"c" * 2_000_000)
        assert os.pread(f.fileno(), 100_000, 0) == b"b" * 100_000
        cli("del", "f")
        assert os.pread(f.fileno(), 100_000, 0) == b"b" * 100_000


def test_hard_links_follow(mount):
    cli = Cli(mount.mnt)
    put(mount / "a", b"old")
    os.link(mount / "a", mount / "b")
    assert get(mount / "b") == b"old"
    cli("put", "a", "newer")
    assert get(mount / "b") == b"newer" and os.stat(mount / "b").st_size == 5
    cli("del", "a")
    assert os.stat(mount / "b").st_nlink == 1


def test_mapped_file(mount):
    import mmap
    cli = Cli(mount.mnt)
    put(mount / "f", b"a" * 8192)
    with open(mount / "f", "rb") as f, mmap.mmap(f.fileno(), 8192, prot=mmap.PROT_READ) as m:
        assert m[:] == b"a" * 8192
        cli("put", "f", stdin=b"b" * 8192)
        assert m[:] == b"b" * 8192


def test_directories_change_at_once(mount):
    cli = Cli(mount.mnt)
    for i in range(10):
        assert not os.path.lexists(mount / "d/e")
        cli("mkns", "--parents", "d/e")
        assert os.listdir(mount / "d") == ["e"] and os.stat(mount / "d").st_nlink >= 2
        before = os.stat(mount / "d").st_mtime_ns
        cli("put", "d/e/f", "x")
        cli("put", "d/g", "x")
        assert os.stat(mount / "d").st_mtime_ns > before
        assert sorted(os.listdir(mount / "d")) == ["e", "g"]
        assert get(mount / "d/e/f") == b"x"
        cli("rmns", "-r", "d")
        assert os.listdir(mount.mnt) == []
        assert not os.path.lexists(mount / "d/e/f")


def test_removed_while_somebody_is_in_it(mount):
    cli = Cli(mount.mnt)
    (mount / "d").mkdir()
    put(mount / "d/f", b"x")
    fd = os.open(mount / "d", os.O_RDONLY)
    try:
        cli("rmns", "-r", "d")
        assert os.listdir(mount.mnt) == []
        with pytest.raises(FileNotFoundError):
            os.stat(mount / "d")
        cli("mkns", "d")
        assert os.listdir(mount / "d") == []
    finally:
        os.close(fd)


def test_names_that_are_escaped(mount):
    cli = Cli(mount.mnt)
    name = mount / "%emdb=a%2Fb"
    assert not os.path.lexists(name)
    cli("put", "-x", "a%2Fb", "x")
    assert get(name) == b"x"
    cli("put", "l" * 1000, "long")
    (long,) = [n for n in os.listdir(mount.mnt) if n.startswith("%emdb~")]
    assert get(mount / long) == b"long"
    cli("del", "-x", "a%2Fb", "l" * 1000)
    assert os.listdir(mount.mnt) == []


def test_watchers_hear_of_removal(mount):
    cli = Cli(mount.mnt)
    put(mount / "f", b"x")
    with Inotify() as watch:
        watch.watch(mount / "f", IN_DELETE_SELF)
        cli("del", "f")
        assert (IN_DELETE_SELF, b"") in watch.events(5)


def test_while_a_listing_is_open(mount):
    cli = Cli(mount.mnt)
    for i in range(300):
        put(mount / f"f{i:03}")
    with Dir(mount.mnt) as d:
        for _ in range(5):
            assert d.read()
        cli("put", "later", "x")
        cli("del", "f007")
        while d.read():
            pass
    now = os.listdir(mount.mnt)
    assert "later" in now and "f007" not in now and len(now) == 300


# ---- Many at once --------------------------------------------------------


def test_two_clients_and_the_mount(mount):
    """Nobody waits for anybody for ever, and nothing is lost."""
    cli = Cli(mount.mnt)
    stop = threading.Event()
    errors = []

    def churn():
        i = 0
        try:
            while not stop.is_set():
                i += 1
                path = mount / f"own{i % 10}"
                put(path, b"x" * (i % 5000))
                os.listdir(mount.mnt)
                os.rename(path, mount / "moved")
                os.unlink(mount / "moved")
        except OSError as err:
            errors.append(err)

    def commands(name):
        try:
            for i in range(40):
                cli("put", f"{name}{i}", stdin=bytes([i]) * (i * 30_000 % 900_000))
                assert os.stat(mount / f"{name}{i}").st_size == i * 30_000 % 900_000
                if i % 3 == 0:
                    cli("del", f"{name}{i}")
                    assert not os.path.lexists(mount / f"{name}{i}")
        except BaseException as err:
            errors.append(err)

    churner = threading.Thread(target=churn)
    clients = [threading.Thread(target=commands, args=(n,)) for n in "ab"]
    churner.start()
    for t in clients:
        t.start()
    for t in clients:
        t.join()
    stop.set()
    churner.join()
    assert not errors
    names = [n for n in os.listdir(mount.mnt) if n[0] in "ab"]
    assert len(names) == 2 * 26
    assert all(get(mount / n) == bytes([int(n[1:])]) * (int(n[1:]) * 30_000 % 900_000)
               for n in names)


def test_large_put_is_atomic(mount):
    """Readers see the old value or the new one; a client that dies leaves the old one."""
    cli = Cli(mount.mnt)
    cli("put", "f", stdin=b"a" * 2_000_000)
    proc = subprocess.Popen([cli.program, "put", cli.where, "f", "-"], stdin=subprocess.PIPE)
    proc.stdin.write(b"b" * 1_500_000)
    proc.stdin.flush()
    time.sleep(0.2)
    assert get(mount / "f") == b"a" * 2_000_000 and os.listdir(mount.mnt) == ["f"]
    proc.kill()
    proc.wait()
    with contextlib.suppress(BrokenPipeError):
        proc.stdin.close()
    assert get(mount / "f") == b"a" * 2_000_000 and os.listdir(mount.mnt) == ["f"]
    for letter in b"cd":
        cli("put", "f", stdin=bytes([letter]) * 3_000_000)
        assert get(mount / "f") == bytes([letter]) * 3_000_000


def test_get_of_a_large_value_that_is_replaced(mount):
    cli = Cli(mount.mnt)
    cli("put", "f", stdin=b"a" * 8_000_000)
    read = subprocess.Popen([cli.program, "get", cli.where, "f"], stdout=subprocess.PIPE)
    data = read.stdout.read(100_000)
    cli("put", "f", stdin=b"b" * 8_000_000)
    data += read.stdout.read()
    assert read.wait() == 0 and data == b"a" * 8_000_000


def test_many_entries(mount):
    cli = Cli(mount.mnt)
    (mount / "d").mkdir()
    for i in range(5000):
        put(mount / f"d/{i:05}-{'n' * 100}")
    names = cli("ls", "d").decode().splitlines()
    assert names == sorted(os.listdir(mount / "d")) and len(names) == 5000
    assert sorted(cli("ls", "-U", "d").decode().splitlines()) == names


# ---- Clients that misbehave ----------------------------------------------


def test_garbage(mount):
    cli = Cli(mount.mnt)
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(100), HELLO[:4] + b"\x07" + HELLO[5:],
                 struct.pack("<IBBHi", 9, 1, 1, 0, 0) + b"x", struct.pack("<IBBHi", 8, 1, 99, 0, 0),
                 struct.pack("<IBBHi", 16, 1, 2, 0, 0) + bytes(8),
                 struct.pack("<IBBHiQI", 30, 1, 2, 0, 0, 1, 0xffffffff) + bytes(10)):
        with connect(mount) as s:
            s.sendall(data)
            assert hangs_up(s)
        cli("put", "a", "x")
    assert get(mount / "a") == b"x"


def test_requests_out_of_order(mount):
    """READ, WRITE and INSTALL without a value; unknown namespaces; operations of the future."""
    with connect(mount) as s:
        for op, body in ((10, struct.pack("<QQ", 0, 10)), (12, struct.pack("<QI", 0, 1) + b"x"),
                         (13, struct.pack("<QI", 1, 1) + b"x" + bytes(8)), (14, b""),
                         (2, struct.pack("<QI", 12345, 1) + b"x"), (6, struct.pack("<QQ", 99, 0)),
                         (11, struct.pack("<Q", 4242)), (14, b"")):
            s.sendall(struct.pack("<IBBHi", 8 + len(body), 1, op, 0, 0) + body)
            answer = receive(s)
            assert answer and answer[0] == op and (answer[1] == 0) == (op == 14), answer
    assert os.listdir(mount.mnt) == []


def test_slow_clients_make_room(mount):
    """Silent connections and half messages do not keep others out."""
    cli = Cli(mount.mnt)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(mount)) for _ in range(CONNECTIONS_MAX - 2)]
        half = [stack.enter_context(connect(mount)) for _ in range(2)]
        for s in half:
            s.sendall(HELLO[:5])
        silent[0].sendall(HELLO)
        assert receive(silent[0])[1] == 0
        time.sleep(1.5)
        for i in range(5):
            cli("put", f"f{i}", "x")
            assert get(mount / f"f{i}") == b"x"
    assert len(cli("ls").splitlines()) == 5


def test_answers_that_nobody_reads(mount):
    cli = Cli(mount.mnt)
    cli("put", "f", stdin=b"x" * 4_000_000)
    body = struct.pack("<QI", 1, 1) + b"f"
    read = struct.pack("<QQ", 0, 524288)
    with connect(mount) as s:
        s.sendall(struct.pack("<IBBHi", 8 + len(body), 1, 9, 0, 0) + body)
        s.settimeout(1)
        with contextlib.suppress(TimeoutError):
            for _ in range(20):
                s.sendall(struct.pack("<IBBHi", 24, 1, 10, 0, 0) + read)
        start = time.monotonic()
        cli("put", "g", "x")
        assert get(mount / "g") == b"x"
        assert time.monotonic() - start < 5


def test_others_are_refused(mount):
    """Also when the permissions of the directory and the socket were opened for them."""
    put(mount / "a", b"secret")
    mount.store.chmod(0o755)
    (mount.store / "control.sock").chmod(0o666)

    def attempt():
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(os.fspath(mount.store / "control.sock"))
            with contextlib.suppress(ConnectionError):
                s.sendall(HELLO)
            return receive(s), hangs_up(s)

    answer, _ = as_user(12345, 12345, attempt)
    assert answer[:2] == (1, -19) and b"owner" in answer[2]
    assert Cli(mount.store)("get", "a") == b"secret"


def test_unmount_while_clients_are_connected(make_mount):
    for sudden in (False, True):
        mount = make_mount()
        cli = Cli(mount.mnt)
        proc = subprocess.Popen([cli.program, "put", cli.where, "f", "-"], stdin=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        proc.stdin.write(b"b" * 1_500_000)
        proc.stdin.flush()
        with connect(mount) as s:
            s.sendall(HELLO)
            assert receive(s)[1] == 0
            if sudden:
                mount.proc.send_signal(signal.SIGTERM)
                assert wait_until(lambda: mount.proc.poll() is not None, 10)
                assert mount.proc.poll() == 0 and not is_mounted(str(mount.mnt))
                mount._forget()
            else:
                mount.stop(timeout=10)
            assert hangs_up(s)
        _, said = proc.communicate(b"c" * 1_500_000, timeout=20)
        assert proc.returncode == FAILED and b"went away" in said, said
        assert not (mount.store / "control.sock").exists()
        assert Cli(mount.store)("ls") == b""


def test_kill9_while_a_client_waits(mount):
    cli = Cli(mount.mnt)
    cli("put", "f", "x")
    with connect(mount) as s:
        s.sendall(HELLO)
        assert receive(s)[1] == 0
        mount.kill9()
        assert hangs_up(s)
    assert stat.S_ISSOCK(os.stat(mount.store / "control.sock").st_mode)
    mount.start()
    assert cli("get", "f") == b"x"


# ---- Looking after a store -----------------------------------------------


def everything(where):
    cli = Cli(where)
    return {n: cli("get", n) for n in cli("ls").decode().split()}


def test_snapshots_of_a_served_store(mount, cli):
    put(mount / "a", b"one")
    cli.run("snapshot", "create", cli.where, "monday")
    cli("put", "a", "two")
    made = cli.run("snapshot", "create", "--json", cli.where, "tuesday").stdout
    assert json.loads(made)["name"] == "tuesday" and json.loads(made)["number"] == 2
    put(mount / "a", b"three")
    cli.run("snapshot", "create", cli.where, "monday", code=FAILED)
    cli.run("snapshot", "create", cli.where, "a/b", code=FAILED)
    cli.run("snapshot", "rename", cli.where, "tuesday", "later")
    listed = cli.run("snapshot", "list", "--json", cli.where).stdout.splitlines()
    assert [json.loads(line)["name"] for line in listed] == ["monday", "later"]
    assert everything(mount.store / "snapshots/monday") == {"a": b"one"}
    assert everything(mount.store / "snapshots/later") == {"a": b"two"}
    cli.run("snapshot", "delete", cli.where, "monday")
    cli.run("snapshot", "delete", cli.where, "monday", code=FAILED)
    assert cli.run("snapshot", "list", cli.where).stdout.count(b"\n") == 1
    cli.run("snapshot", "rollback", cli.where, "later", code=LOCKED)
    mount.stop()
    cli.run("snapshot", "rollback", os.fspath(mount.store), "later")
    mount.start()
    assert get(mount / "a") == b"two"


def test_backup_of_a_served_store(mount, cli, scratch):
    put(mount / "a", b"one")
    cli("put", "big", stdin=b"y" * 2_000_000)
    first = json.loads(cli("backup", "--json", os.fspath(scratch / "b")).splitlines()[-1])
    assert not first["incremental"] and first["segments"] >= 1
    put(mount / "a", b"two")
    assert everything(scratch / "b") == {"a": b"one", "big": b"y" * 2_000_000}
    cli.run("backup", cli.where, "b", cwd=scratch)
    assert everything(scratch / "b") == {"a": b"two", "big": b"y" * 2_000_000}
    (scratch / "foreign").mkdir()
    (scratch / "foreign/file").write_text("x")
    done = cli.run("backup", cli.where, os.fspath(scratch / "foreign"), code=FAILED)
    assert done.stderr.count(b"\n") == 1 and os.listdir(scratch / "foreign") == ["file"]
    cli.run("restore", os.fspath(scratch / "b"), os.fspath(scratch / "again"))
    assert everything(scratch / "again") == {"a": b"two", "big": b"y" * 2_000_000}
    Cli(scratch / "again")("put", "c", "x")


def test_compaction_of_a_served_store(make_mount):
    mount = make_mount(["segment_size=1M"])
    cli = Cli(mount.mnt)
    for i in range(40):
        cli("put", f"f{i}", stdin=bytes([i]) * 300_000)
    cli("del", *(f"f{i}" for i in range(40) if i % 4))
    done = json.loads(cli("compact", "--json").splitlines()[-1])
    assert done["segments_done"] == done["segments"]
    assert {n: get(mount / n) for n in os.listdir(mount.mnt)} == \
        {f"f{i}": bytes([i]) * 300_000 for i in range(0, 40, 4)}
    assert wait_until(lambda: cli.json("stat")[0]["journal_bytes"] < 6_000_000, 10)
    assert b"segments" in cli("compact", "--min-dead", "50", "--rate", "10M")
    cli("compact", "--min-dead", "101", code=USAGE)


def test_checkpoint_and_flush_of_a_served_store(mount, cli):
    put(mount / "a", b"x" * 100)
    cli("flush")
    (stats,) = cli.json("stat")
    assert stats["durable_lsn"] == stats["tail_lsn"]
    cli("checkpoint")
    (after,) = cli.json("stat")
    assert after["checkpoint_lsn"] > stats["checkpoint_lsn"]
    mount.kill9()
    mount.start()
    assert get(mount / "a") == b"x" * 100
