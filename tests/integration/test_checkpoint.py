# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: what the second reader of the format finds in them."""

import os
import pathlib
import subprocess

import pytest

import emdbckpt
import emdbfmt
from harness import binary


@pytest.fixture
def emdb(scratch):
    program = binary("emdb")
    if program is None:
        pytest.skip("no emdb: make first")
    store = scratch / "store"

    def run(command, *args, stdin=b""):
        return subprocess.run([program, command, os.fspath(store), *args], input=stdin,
                              capture_output=True, timeout=60, check=True)

    run("init")
    run.store = store
    return run


def newest(store):
    path = max(pathlib.Path(store).glob("checkpoint-*"))
    return path, int(path.name.split("-")[1], 16)


def fill(emdb):
    emdb("put", "-p", "users/alice", "hello")
    emdb("put", "--ttl", "1h", "users/carol", "x" * 9000)
    emdb("put", "big", stdin=os.urandom(3 << 20))
    emdb("mkns", "-p", "deep/er/still")
    emdb("put", "removed", "x")
    emdb("del", "removed")
    for i in range(20):
        emdb("put", "--ttl", f"{i + 1}d", f"users/{i}", f"value {i}")


def test_checkpoint_says_what_the_journal_says(emdb):
    fill(emdb)
    path, number = newest(emdb.store)
    store = emdbfmt.Store(emdb.store)
    ckpt = emdbckpt.Checkpoint(path, number, store.journal.sb.uuid)
    assert ckpt.lsn == ckpt.settled and not ckpt.gone
    wanted = {(ns.id, store.placed[ns.id, key]): what
              for ns in store.namespaces.values() for key, what in ns.entries.items()}
    assert {(e.ns, e.ref) for e in ckpt.entries} == set(wanted)
    assert len(ckpt.entries) == len(wanted)
    for entry in ckpt.entries:
        kind, ident = wanted[entry.ns, entry.ref]
        assert (entry.kind == "NS") == (kind == "namespace")
        if entry.kind != "PUT":
            assert entry.id == ident
        else:
            assert entry.expires == bool(store.objects[ident].expires_ms)
    assert ckpt.spaces.keys() == store.namespaces.keys()
    for ident, space in ckpt.spaces.items():
        ns = store.namespaces[ident]
        assert (space.fields["mode"], space.fields["uid"]) == (ns.mode, ns.uid)
    big = {ident: store.objects[ident] for kind, ident in wanted.values()
           if kind == "object" and not store.objects[ident].plain}
    assert ckpt.objects.keys() == big.keys() and big
    for ident, found in ckpt.objects.items():
        assert found.extents == big[ident].extents
        assert found.fields["size"] == big[ident].size
        assert found.fields["mtime_ns"] == big[ident].mtime_ns
    deadlines = sorted(o.expires_ms for o in store.objects.values() if o.expires_ms)
    assert sorted(ms for ms, _, _ in ckpt.queue) == deadlines
    assert ckpt.records == len(wanted) - ckpt.namespaces
    assert ckpt.namespaces == len(store.namespaces) - 1


def test_damaged_checkpoint_is_noticed_and_not_needed(emdb):
    fill(emdb)
    want = emdb("ls", "-R", "--json").stdout
    path, number = newest(emdb.store)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(emdbfmt.FormatError):
        emdbckpt.Checkpoint(path, number, emdbfmt.Store(emdb.store).journal.sb.uuid)
    assert emdb("ls", "-R", "--json").stdout == want
    path.unlink()
    assert emdb("ls", "-R", "--json").stdout == want
