# SPDX-License-Identifier: Apache-2.0
"""Encrypted stores from the command line and mounted: where secrets come from, and go."""

import contextlib
import ctypes
import ctypes.util
import glob
import hashlib
import json
import os
import pty
import resource
import select
import signal
import subprocess
import time

import pytest

from harness import binary, run

OK, FAILED, USAGE, NO_STORE, LOCKED, WRONG, EMPTY, CANCELLED = 0, 1, 2, 10, 11, 12, 22, 130

pytestmark = pytest.mark.emdb


class Keys:
    def __init__(self, base):
        self.base = base
        self.store = str(base / "store")
        self.program = binary("emdb")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("EMDBFS_")}

    def file(self, name, text):
        path = self.base / name
        path.write_bytes(text)
        return str(path)

    def run(self, *args, code=OK, stdin=b"", env=None, **kwargs):
        # A session of its own has no terminal: nobody can be asked.
        done = subprocess.run([self.program, *args], input=stdin, capture_output=True, timeout=120,
                              check=False, start_new_session=True,
                              env={**self.env, **(env or {})}, **kwargs)
        assert done.returncode == code, (args, done)
        return done

    def get(self, *options, code=OK, **kwargs):
        return self.run("get", *options, self.store, "k", code=code, **kwargs).stdout

    def slots(self):
        lines = self.run("key", "list", "-j", self.store).stdout.splitlines()
        return {s["slot"]: s for s in map(json.loads, lines)}


@pytest.fixture
def keys(scratch):
    if binary("emdb") is None:
        pytest.skip("no emdb: make first")
    k = Keys(scratch)
    k.pass1 = k.file("pass1", b"first passphrase\nsecond line is not read\n")
    k.pass2 = k.file("pass2", b"another\n")
    k.run("init", "--encrypt", "--passfile", k.pass1, k.store)
    k.run("put", "--passfile", k.pass1, k.store, "k", stdin=b"secret value")
    return k


def test_every_source(keys):
    """In the order of tools/secret.h; each alone opens the store."""
    value = b"secret value"
    assert keys.get("--passfile", keys.pass1) == value
    assert keys.get("--extpass", f"cat {keys.pass1}") == value
    with open(keys.pass1, "rb") as f:
        assert keys.get("--passfd", str(f.fileno()), pass_fds=[f.fileno()]) == value
    assert keys.get(env={"EMDBFS_PASSWORD_FILE": keys.pass1}) == value
    assert keys.get(env={"EMDBFS_PASSWORD_COMMAND": f"head -n 1 {keys.pass1}"}) == value
    directory = keys.base / "credentials"
    directory.mkdir()
    (directory / "emdbfs.passphrase").write_bytes(b"first passphrase")
    assert keys.get(env={"CREDENTIALS_DIRECTORY": str(directory)}) == value
    assert keys.get(stdin=b"first passphrase\n") == value
    # The command line goes before the environment.
    assert keys.get("--passfile", keys.pass1, env={"EMDBFS_PASSWORD_FILE": keys.pass2}) == value
    keys.get("--passfile", keys.pass2, code=WRONG, env={"EMDBFS_PASSWORD_FILE": keys.pass1})


def test_exit_codes(keys):
    keys.get("--passfile", keys.pass2, code=WRONG)
    keys.get("--passfile", keys.file("empty", b""), code=EMPTY)
    keys.get("--passfile", keys.file("line", b"\n"), code=EMPTY)
    keys.get(stdin=b"", code=EMPTY)
    keys.get("--passfile", str(keys.base / "missing"), code=FAILED)
    keys.get("--extpass", "exit 3", code=FAILED)
    keys.get("--extpass", f"cat {keys.pass1}; exit 3", code=FAILED)
    keys.get("--passfd", "x", code=USAGE)
    keys.get("--passfile", keys.pass1, "--extpass", "true", code=USAGE)
    keys.run("init", "--passfile", keys.pass1, str(keys.base / "other"), code=USAGE)
    keys.run("init", "--cipher", "aes-256-gcm", str(keys.base / "other"), code=USAGE)
    keys.run("init", "--encrypt", "--cipher", "rot13", "--passfile", keys.pass1,
             str(keys.base / "other"), code=USAGE)
    keys.run("init", "--encrypt", str(keys.base / "other"), code=EMPTY)
    assert not (keys.base / "other").exists()
    # A store that is not encrypted, where one is expected that is.
    plain = str(keys.base / "plain")
    keys.run("init", plain)
    keys.run("put", plain, "k", stdin=b"x", env={"EMDBFS_PASSWORD_FILE": keys.pass1})
    done = keys.run("get", "--passfile", keys.pass1, plain, "k", code=FAILED)
    assert b"not encrypted" in done.stderr
    keys.run("key", "list", plain, code=FAILED)


def test_slots(keys):
    assert set(keys.slots()) == {0}
    keys.run("key", "add", "--passfile", keys.pass1, "--new-passfile", keys.pass2,
             "--label", "two", keys.store)
    assert keys.slots()[1]["label"] == "two"
    keys.run("key", "add", "--passfile", keys.pass1, "--new-passfile", keys.pass2, keys.store,
             code=FAILED)
    assert keys.get("--passfile", keys.pass2) == b"secret value"
    raw = keys.file("raw", bytes(range(32)))
    hexa = keys.file("hex", bytes(range(32)).hex().encode() + b"\n")
    keys.run("key", "add", "--passfile", keys.pass2, "--new-keyfile", raw, keys.store)
    assert keys.get("--keyfile", hexa) == b"secret value"
    keys.get("--keyfile", keys.file("short", b"x" * 31), code=FAILED)
    keys.get("--keyfile", keys.file("other", b"x" * 32), code=WRONG)
    text = keys.run("key", "recovery", "--keyfile", raw, keys.store).stdout.decode().strip()
    assert keys.get("--recovery", stdin=text.lower().replace("-", " ").encode()) == b"secret value"
    keys.get("--recovery", stdin=text[:-1].encode(), code=FAILED)
    assert [s["kind"] for s in keys.slots().values()] == ["passphrase", "passphrase", "key",
                                                          "recovery"]
    keys.run("key", "change", "--passfile", keys.pass1, "--new-passfile",
             keys.file("pass3", b"third\n"), keys.store)
    keys.get("--passfile", keys.pass1, code=WRONG)
    assert keys.get("--passfile", str(keys.base / "pass3")) == b"secret value"
    for slot in (1, 2, 3):
        keys.run("key", "remove", "--passfile", str(keys.base / "pass3"), keys.store, str(slot))
    keys.run("key", "remove", "--passfile", str(keys.base / "pass3"), keys.store, "3", code=FAILED)
    keys.run("key", "remove", "--passfile", str(keys.base / "pass3"), keys.store, "0", code=FAILED)
    keys.get("--keyfile", raw, code=WRONG)
    assert set(keys.slots()) == {0}


def test_usage(keys):
    keys.run("key", code=USAGE)
    keys.run("key", "what", keys.store, code=USAGE)
    keys.run("key", "remove", keys.store, code=USAGE)
    keys.run("key", "remove", "--passfile", keys.pass1, keys.store, "99", code=USAGE)
    keys.run("key", "list", keys.store + "-no", code=NO_STORE)
    for command in ("key", "encrypt", "decrypt", "get"):
        assert b"--passfile FILE" in keys.run(command, "--help").stdout


def stored_files(store):
    for path in glob.glob(store + "/**", recursive=True):
        if os.path.isfile(path):
            with open(path, "rb") as f:
                yield path, f.read()


def leaks(store, *words):
    return [(path, word) for path, data in stored_files(store) for word in words if word in data]


def test_convert_there_and_back(keys):
    """Contents, times, deadlines and snapshots stay; nothing in clear is left while encrypted."""
    store = str(keys.base / "plain")
    words = [b"planted-value", b"planted-key", b"planted-ns", b"second planted"]
    keys.run("init", store)
    keys.run("put", "--parents", store, "planted-ns/planted-key", stdin=b"planted-value")
    keys.run("put", "--ttl", "7d", store, "planted-key2", stdin=b"second planted")
    keys.run("snapshot", "create", store, "before")
    before = keys.run("ls", "-lR", "-j", store).stdout
    assert leaks(store, *words)
    keys.run("encrypt", "--passfile", keys.pass1, store)
    assert leaks(store, *words) == []
    assert keys.run("ls", "-lR", "-j", "--passfile", keys.pass1, store).stdout == before
    snap = f"{store}/snapshots/before"
    assert keys.run("get", "--passfile", keys.pass1, snap, "planted-ns/planted-key").stdout == \
        b"planted-value"
    keys.run("encrypt", "--passfile", keys.pass1, store, code=FAILED)
    keys.run("key", "rotate", "--passfile", keys.pass1, store)
    assert keys.run("ls", "-lR", "-j", "--passfile", keys.pass1, store).stdout == before
    assert leaks(store, *words) == []
    keys.run("key", "add", "--passfile", keys.pass1, "--new-passfile", keys.pass2, store)
    done = keys.run("key", "rotate", "--passfile", keys.pass1, store, code=FAILED)
    assert b"--drop-others" in done.stderr
    keys.run("key", "rotate", "--drop-others", "--cipher", "chacha20-poly1305", "--passfile",
             keys.pass1, store)
    keys.run("get", "--passfile", keys.pass2, store, "planted-key2", code=WRONG)
    keys.run("decrypt", "--passfile", keys.pass2, store, code=WRONG)
    keys.run("decrypt", "--passfile", keys.pass1, store)
    assert keys.run("ls", "-lR", "-j", store).stdout == before
    keys.run("decrypt", "--passfile", keys.pass1, store, code=FAILED)
    keys.run("check", store)


def test_check_backup_restore(keys):
    keys.run("check", "--passfile", keys.pass1, keys.store)
    keys.run("check", "--passfile", keys.pass2, keys.store, code=WRONG)
    target, again = str(keys.base / "backup"), str(keys.base / "again")
    env = {"EMDBFS_PASSWORD_FILE": keys.pass1}
    keys.run("backup", "-q", keys.store, target, env=env)
    assert leaks(target, b"secret value") == []
    keys.run("restore", "-q", target, again, env=env)
    assert keys.run("get", again, "k", env=env).stdout == b"secret value"
    keys.run("get", "--passfile", keys.pass2, again, "k", code=WRONG)


def test_snapshot_run(keys):
    """The daemon that mounts the snapshot gets what opened the store."""
    command = ["cat", "{}/k"]
    done = keys.run("snapshot", "run", "--passfile", keys.pass1, keys.store, "--", *command)
    assert done.stdout == b"secret value"
    raw = keys.file("r,a\\w", os.urandom(32))
    keys.run("key", "add", "--passfile", keys.pass1, "--new-keyfile", raw, keys.store)
    done = keys.run("snapshot", "run", "--keyfile", raw, keys.store, "--", *command)
    assert done.stdout == b"secret value"
    done = keys.run("snapshot", "run", keys.store, "--", *command,
                    env={"EMDBFS_PASSWORD_FILE": keys.pass1})
    assert done.stdout == b"secret value"


# ---- A terminal ------------------------------------------------------------


def on_terminal(keys, args, typed, env=None):
    """Runs emdb with a terminal of its own, types each line at its prompt; (status, what it showed)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(keys.program, [keys.program, *args], {**keys.env, **(env or {})})
    shown = b""
    typed = list(typed)
    prompts = 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
        if shown.count(b": ") > prompts and typed and shown.endswith(b": "):
            prompts += 1
            os.write(fd, typed.pop(0))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    return status, shown


def test_prompts(keys):
    status, shown = on_terminal(keys, ["get", keys.store, "k"], [b"first passphrase\n"])
    assert status == OK and b"secret value" in shown
    assert b"first passphrase" not in shown
    assert shown.startswith(b"Passphrase for ")
    # Corrected while typing: erase and kill.
    status, shown = on_terminal(keys, ["get", keys.store, "k"],
                                [b"nonsense\x15first passphraseX\x7f\n"])
    assert status == OK
    assert on_terminal(keys, ["get", keys.store, "k"], [b"wrong\n"])[0] == WRONG
    assert on_terminal(keys, ["get", keys.store, "k"], [b"\n"])[0] == EMPTY
    assert on_terminal(keys, ["get", keys.store, "k"], [b"fir\x03"])[0] == CANCELLED
    fresh = str(keys.base / "fresh")
    status, shown = on_terminal(keys, ["init", "--encrypt", fresh], [b"one\n", b"two\n"])
    assert status == FAILED and b"differ" in shown
    assert not os.path.exists(fresh)
    status, shown = on_terminal(keys, ["init", "--encrypt", fresh], [b"one\n", b"one\n"])
    assert status == OK and b"New passphrase" in shown and b"one" not in shown
    status, shown = on_terminal(keys, ["key", "change", fresh], [b"one\n", b"two\n", b"two\n"])
    assert status == OK
    assert on_terminal(keys, ["ls", fresh], [b"two\n"])[0] == OK


# ---- Mounted -------------------------------------------------------------


def mount_code(keys, *options, mnt="mnt"):
    """The exit status of emdbfs, which must not have mounted anything when it is not 0."""
    (keys.base / mnt).mkdir(exist_ok=True)
    done = subprocess.run([binary("emdbfs"), keys.store, str(keys.base / mnt), "-o", *options],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
                          start_new_session=True, env=keys.env)
    if done.returncode == 0:
        run("fusermount3", "-u", keys.base / mnt)
    return done.returncode


def test_mount_exit_codes(keys):
    assert mount_code(keys, f"passfile={keys.pass1}") == OK
    assert mount_code(keys, f"passfile={keys.pass2}") == WRONG
    assert mount_code(keys, f"passfile={keys.file('empty', b'')}") == EMPTY
    assert mount_code(keys, "ro") == EMPTY
    assert mount_code(keys, "password=x") == USAGE
    assert mount_code(keys, f"passfile={keys.pass1},extpass=true") == USAGE
    assert mount_code(keys, f"extpass=cat {keys.pass1}") == OK
    plain = Keys(keys.base)
    plain.store = str(keys.base / "plain")
    plain.run("init", plain.store)
    assert mount_code(plain, f"passfile={keys.pass1}") == FAILED
    fresh = Keys(keys.base)
    fresh.store = str(keys.base / "fresh")
    assert mount_code(fresh, f"encrypt,cipher=chacha20-poly1305,passfile={keys.pass1}") == OK
    assert set(fresh.slots()) == {0}


@pytest.fixture
def served(keys, make_mount):
    return make_mount(store=keys.store, options=[f"passfile={keys.pass1}"])


def test_served_store_asks_for_nothing(keys, served):
    """Who may use the socket need not know the passphrase; keys cannot be changed meanwhile."""
    assert (served / "k").read_bytes() == b"secret value"
    assert keys.get() == b"secret value"
    done = keys.run("key", "add", "--passfile", keys.pass1, "--new-passfile", keys.pass2,
                    keys.store, code=LOCKED)
    assert str(served.proc.pid).encode() in done.stderr
    keys.run("decrypt", "--passfile", keys.pass1, keys.store, code=LOCKED)
    assert set(keys.slots()) == {0}


def memory_and_ps(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        yield "cmdline", f.read()
    with open(f"/proc/{pid}/environ", "rb") as f:
        yield "environ", f.read()


def test_secrets_are_nowhere_to_be_seen(keys, served):
    """Not in ps, the environment, the log; no core dump, no page that swaps out."""
    (served / "f").write_bytes(b"more that is secret")
    pid = served.proc.pid
    for where, data in memory_and_ps(pid):
        assert b"first passphrase" not in data, where
    assert "first passphrase" not in served.tail(1 << 20)
    with open(f"/proc/{pid}/limits") as f:
        core = next(line for line in f if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    with open(f"/proc/{pid}/status") as f:
        locked = next(line for line in f if line.startswith("VmLck"))
    assert int(locked.split()[1]) > 0
    # The passphrase itself was wiped once it had opened the store.
    assert not in_memory(pid, b"first passphrase")
    served.stop()
    assert leaks(keys.store, b"more that is secret", b"secret value", b"first passphrase") == []


def maps(pid):
    """(first, last, is it locked and not dumped?) of all memory of a process that can hold a secret."""
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                span, mode = line.split()[:2]
            elif first == "VmFlags:" and "r" in mode and ("w" in mode or "p" in mode):
                flags = line.split()[1:]
                start, end = (int(x, 16) for x in span.split("-"))
                if end < 1 << 47:
                    yield start, end, "lo" in flags and "dd" in flags


def where_in_memory(pid, word):
    """{True, False}: is it in memory that is locked and not dumped; in other memory?"""
    found = set()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for start, end, safe in maps(pid):
            while start < end:
                try:
                    mem.seek(start)
                    data = mem.read(min(end - start, 1 << 24))
                except (OSError, ValueError, OverflowError):
                    break
                if word in data:
                    found.add(safe)
                start += max(len(data) - len(word), 4096)
    return found


def in_memory(pid, word):
    return bool(where_in_memory(pid, word))


def data_key(store, raw):
    """The data key of a store that has a key slot for this raw key, by the words of core/keyslot.h."""
    name = ctypes.util.find_library("sodium")
    if name is None:
        pytest.skip("no libsodium for Python")
    sodium = ctypes.CDLL(name)
    with open(f"{store}/superblock", "rb") as f:
        data = f.read()
    uuid, cipher = data[32:48], data[48:52]
    for at in range(1024, 3072, 256):
        head, nonce, sealed = data[at:at + 96], data[at + 96:at + 120], data[at + 120:at + 200]
        if head[0] != 2:
            continue
        key = hashlib.blake2b(b"emdbslot" + head[:4] + head[32:64], key=raw, digest_size=32).digest()
        ad = b"emdbslot" + uuid + cipher + head
        out = ctypes.create_string_buffer(64)
        if sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
                out, None, None, sealed, ctypes.c_ulonglong(80), ad, ctypes.c_ulonglong(len(ad)), nonce, key) == 0:
            return out.raw[:32]
    raise AssertionError("no slot is opened by this key")


def segment_keys(store, key):
    """Sub-keys of the segments of a store, by the words of core/crypto.h."""
    with open(f"{store}/superblock", "rb") as f:
        uuid = f.read(48)[32:]
    for path in glob.glob(f"{store}/journal/*.seg"):
        with open(path, "rb") as f:
            head = f.read(256)
        yield hashlib.blake2b(b"emdbsegm" + uuid + head[32:40] + head[64:96], key=key, digest_size=32).digest()


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "chacha20-poly1305"])
def test_keys_are_in_locked_memory_only(keys, make_mount, cipher):
    """Neither the raw key, the data key nor a segment's key is where it can be swapped out or dumped."""
    keys.store = str(keys.base / "other")
    raw = os.urandom(32)
    path = keys.file("raw", raw)
    keys.run("init", "--encrypt", "--cipher", cipher, "--keyfile", path, keys.store)
    m = make_mount(store=keys.store, options=[f"keyfile={path}"])
    for i in range(200):
        (m / f"f{i}").write_bytes(b"some text %d" % i)
    assert (m / "f7").read_bytes() == b"some text 7"
    pid = m.proc.pid
    key = data_key(keys.store, raw)
    # The same search finds what is there: the data key where it belongs.
    assert where_in_memory(pid, key) == {True}
    assert where_in_memory(pid, raw) == set()
    of_segments = list(segment_keys(keys.store, key))
    assert of_segments
    found = [where_in_memory(pid, k) for k in of_segments]
    assert {True} in found and all(False not in f for f in found)
    # It is also what seals: the command that opens the store has the same key in the same kind of place.
    m.stop()
    with waiting(keys, "--keyfile", path) as proc:
        assert where_in_memory(proc.pid, key) == {True}
        assert False not in where_in_memory(proc.pid, raw)


@contextlib.contextmanager
def waiting(keys, *options, **kwargs):
    """A command that has opened the store and waits for its input."""
    with subprocess.Popen([keys.program, "put", *options, keys.store, "waits"], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, env=keys.env, start_new_session=True, **kwargs) as proc:
        end = time.monotonic() + 60
        while not os.path.exists(f"/proc/{proc.pid}/fd/0") or not opened(proc.pid, keys.store):
            assert time.monotonic() < end and proc.poll() is None
            time.sleep(0.02)
        try:
            yield proc
        finally:
            proc.kill()


def opened(pid, store):
    """Does the process sleep in a read of its input, with the journal open?"""
    with open(f"/proc/{pid}/wchan") as f:
        reads = "pipe_read" in f.read()
    names = []
    for fd in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(fd))
    return reads and any(name.startswith(f"{store}/journal/") for name in names)


def dumps_core(proc):
    """Kills it as a bug would; did the kernel dump it?"""
    os.kill(proc.pid, signal.SIGABRT)
    status = os.waitpid(proc.pid, 0)[1]
    proc.returncode = os.waitstatus_to_exitcode(status)
    assert proc.returncode == -signal.SIGABRT
    return os.WCOREDUMP(status)


def test_no_core_dump(keys, make_mount):
    """Whatever the limit of core dumps says. A program without secrets is dumped with the same limit."""
    def unlimited():
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    how = {"preexec_fn": unlimited, "cwd": keys.base}
    with subprocess.Popen(["sleep", "60"], **how) as proc:
        time.sleep(0.1)
        control = dumps_core(proc)
    with waiting(keys, "--passfile", keys.pass1, **how) as proc:
        # Whom nobody but root may look at is not dumpable, and none of its files in /proc is its user's.
        assert not dumps_core(proc)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    unlimited()
    try:
        m = make_mount(store=keys.store, options=[f"passfile={keys.pass1}"])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert not dumps_core(m.proc)
    m._forget()
    m.kill9()
    if not control:
        pytest.skip("the kernel, or its limit, dumps nothing here")


def test_a_command_is_not_in_ps(keys):
    with waiting(keys, "--passfile", keys.pass1) as proc:
        for where, data in memory_and_ps(proc.pid):
            assert b"first passphrase" not in data, where
        with open(f"/proc/{proc.pid}/status") as f:
            locked = next(line for line in f if line.startswith("VmLck"))
        assert int(locked.split()[1]) > 0
        # What was typed stays until the command ends, where nothing gets it.
        assert False not in where_in_memory(proc.pid, b"first passphrase")


def test_key_file_and_remount(keys, make_mount):
    raw = keys.file("raw", os.urandom(32))
    keys.run("key", "add", "--passfile", keys.pass1, "--new-keyfile", raw, keys.store)
    m = make_mount(store=keys.store, options=[f"keyfile={raw}"])
    (m / "d").mkdir()
    (m / "d" / "f").write_bytes(b"x" * 100000)
    m.die()
    m.kill9()
    m.start()
    assert (m / "d" / "f").read_bytes() == b"x" * 100000
