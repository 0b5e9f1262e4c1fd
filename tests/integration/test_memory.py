# SPDX-License-Identifier: Apache-2.0
"""What a file costs in the daemon's memory."""

import json

import pytest

from harness import binary, put, run

pytestmark = pytest.mark.emdb

DIRS, FILES = 12, 1000


def anonymous(mount):
    with open(f"/proc/{mount.proc.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))


def stats(mount):
    return json.loads(run(binary("emdb"), "stat", "--json", mount.mnt).stdout.splitlines()[0])


def test_bytes_per_file(mount):
    """Below 200 for a file that the kernel knows, below 24 for one that it does not."""
    count = DIRS * FILES
    base = anonymous(mount)
    for d in range(DIRS):
        (mount / f"d{d}").mkdir()
        for i in range(FILES):
            put(mount / f"d{d}" / f"file{i}", b"x")
    known = (anonymous(mount) - base) / count
    mount.remount()
    s = stats(mount)
    assert s["records"] == count
    unknown = s["index_bytes"] / count
    print(f"bytes per file: {known:.0f} known, {unknown:.1f} not")
    assert known < 200
    assert unknown < 24
