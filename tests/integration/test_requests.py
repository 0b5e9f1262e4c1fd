# SPDX-License-Identifier: Apache-2.0
"""How many requests the kernel needs for an operation: what makes the mount fast."""

import os
import sys

import pytest

from harness import TOP, binary

sys.path.insert(0, str(TOP / "tools" / "bench"))

import roundtrips

pytestmark = pytest.mark.emdb

# On root's private mount; more is allowed nowhere.
EXPECTED = {
    "create, write": {"lookup": 1, "create": 1, "write": 1},
    "stat, cold": {"lookup": 1},
    "stat again": {},
    "open, read, cold": {"lookup": 1, "read": 1},
    "open, read again": {},
    "overwrite again": {"setattr": 1, "getxattr": 1, "write": 1},
    "append": {"write": 1},
    "list, cold": {},
    "list again": {},
    "ls -l, cold": {"getxattr": 1},
    "chmod": {"setattr": 1},
    "rename": {"lookup": 1, "rename": 1},
    "unlink": {"unlink": 1},
    "mkdir": {"lookup": 1, "mkdir": 1},
    "rmdir": {"rmdir": 1},
    "readlink again": {},
    "create, write, fsync": {"lookup": 1, "create": 1, "write": 1, "fsync": 1},
}
# What `noxattr` spares.
WITHOUT_XATTRS = EXPECTED | {
    "overwrite": {"setattr": 1, "write": 1},
    "overwrite again": {"setattr": 1, "write": 1},
    "ls -l, cold": {},
}
# Nobody waits for it.
FREE = {"forget"}
# Of one operation: for the directory itself, and for what others drop from the caches meanwhile.
SLACK = 0.25


def check(mount, wanted):
    if os.getuid() != 0:
        pytest.skip("needs root, to drop caches and for a mount without permission checks")
    measured = roundtrips.measure(str(mount.mnt), binary("emdb"), 60)
    for operation, expected in wanted.items():
        got = {r: n for r, (n, _) in measured[operation].items() if r not in FREE}
        more = {r: n for r, n in got.items() if n > expected.get(r, 0) + SLACK}
        assert not more, f"{operation}: {got}, not {expected}"


def test_requests_per_operation(mount):
    check(mount, EXPECTED)


def test_requests_without_xattrs(make_mount):
    check(make_mount(["noxattr"]), WITHOUT_XATTRS)
