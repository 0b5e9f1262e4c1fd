# SPDX-License-Identifier: Apache-2.0
"""What long commands say of how far they are: EMDBFS_PROGRESS_FPS and SIGUSR1, of a store that is mounted too."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from harness import binary, wait_until

OK = 0
LINE = re.compile(rb"^ *\d+%  .* of .*/s, .* left$")
SIZE = 300_000


class Command:
    """A command on a store that takes a second or two, standard error no terminal."""

    def __init__(self, *args, fps=None):
        env = {k: v for k, v in os.environ.items() if k != "EMDBFS_PROGRESS_FPS"}
        if fps is not None:
            env["EMDBFS_PROGRESS_FPS"] = fps
        self.proc = subprocess.Popen([binary("emdb"), *args], env=env, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE)

    def ask(self):
        """SIGUSR1, once the command listens to it."""
        def listens():
            with open(f"/proc/{self.proc.pid}/status", encoding="ascii") as f:
                caught = next(line for line in f if line.startswith("SigCgt"))
            return int(caught.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1

        assert wait_until(listens, 10)
        time.sleep(0.2)
        self.proc.send_signal(signal.SIGUSR1)

    def end(self):
        out, err = self.proc.communicate(timeout=60)
        assert self.proc.returncode == OK, err
        return out, err.splitlines()


@pytest.fixture(params=["closed", "mounted"])
def where(request, make_mount):
    """A store with 12 MB in small segments, half of them dead."""
    if binary("emdb") is None:
        pytest.skip("no emdb: make first")
    mount = make_mount(["segment_size=1M"])
    for i in range(40):
        (mount / f"f{i}").write_bytes(os.urandom(SIZE))
    for i in range(0, 40, 2):
        (mount / f"f{i}").unlink()
    if request.param == "closed":
        mount.stop()
        return os.fspath(mount.store)
    return os.fspath(mount.mnt)


def slow(where, command):
    return {"scrub": ["scrub", "--rate", "8M", where],
            "compact": ["compact", "--rate", "4M", where]}[command]


COMMANDS = pytest.mark.parametrize("command", ["scrub", "compact"])


@COMMANDS
def test_lines_in_a_log(where, command):
    out, err = Command(*slow(where, command), fps="20").end()
    assert len(err) >= 3 and all(LINE.match(line) for line in err), err
    assert b"%" not in out.split(b"\n")[0]


def test_no_lines_unless_asked(where):
    for fps in None, "", "0", "-1", "nan", "inf", "61", "1x":
        out, err = Command("scrub", "--rate", "0", where, fps=fps).end()
        assert not err and out
    out, err = Command("scrub", "--rate", "8M", "-q", where, fps="20").end()
    assert not err and not out


def test_status_lines_are_json(where):
    out, err = Command("compact", "--json", "--rate", "4M", where, fps="20").end()
    lines = [json.loads(line) for line in out.splitlines()]
    assert not err and lines[-1]["message_type"] == "summary"
    assert [line["message_type"] for line in lines[:-1]] == ["status"] * (len(lines) - 1)
    assert len(lines) > 2 and 0 <= lines[0]["percent_done"] <= 1


@COMMANDS
def test_a_line_on_demand(where, command):
    proc = Command(*slow(where, command))
    proc.ask()
    _, err = proc.end()
    assert len(err) == 1 and LINE.match(err[0]), err


def test_on_demand_also_when_quiet(where):
    proc = Command("scrub", "--rate", "8M", "--quiet", where)
    proc.ask()
    out, err = proc.end()
    assert len(err) == 1 and LINE.match(err[0]) and not out, err


def test_backup(where, scratch):
    """So quick that it may say little; what it says are lines, and the copy is whole."""
    _, err = Command("backup", "--copy", where, os.fspath(scratch / "b"), fps="60").end()
    assert all(LINE.match(line) for line in err), err
    out, err = Command("check", os.fspath(scratch / "b")).end()
    assert not err and out
