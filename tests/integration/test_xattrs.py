# SPDX-License-Identifier: Apache-2.0
"""Extended attributes that are nobody's business but the user's."""

import errno
import os

import pytest

from harness import as_user, fails, get, libc, put, run, need

CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE


@pytest.fixture(params=["file", "dir"])
def node(request, d):
    path = d / "n"
    put(path, b"content") if request.param == "file" else os.mkdir(path)
    return path


def test_set_get_list_remove(node):
    os.setxattr(node, "user.a", b"1")
    os.setxattr(node, "user.b", b"\0\xff two")
    assert os.getxattr(node, "user.a") == b"1" and os.getxattr(node, "user.b") == b"\0\xff two"
    assert sorted(os.listxattr(node)) == ["user.a", "user.b"]
    os.setxattr(node, "user.a", b"replaced with something longer")
    assert os.getxattr(node, "user.a") == b"replaced with something longer"
    os.removexattr(node, "user.a")
    assert os.listxattr(node) == ["user.b"]
    with fails(errno.ENODATA):
        os.getxattr(node, "user.a")
    with fails(errno.ENODATA):
        os.removexattr(node, "user.a")


def test_empty_value(node):
    os.setxattr(node, "user.empty", b"")
    assert os.getxattr(node, "user.empty") == b"" and os.listxattr(node) == ["user.empty"]


def test_create_and_replace(node):
    with fails(errno.ENODATA):
        os.setxattr(node, "user.a", b"1", REPLACE)
    os.setxattr(node, "user.a", b"1", CREATE)
    with fails(errno.EEXIST):
        os.setxattr(node, "user.a", b"2", CREATE)
    assert os.getxattr(node, "user.a") == b"1"
    os.setxattr(node, "user.a", b"3", REPLACE)
    assert os.getxattr(node, "user.a") == b"3"


def test_sizes_and_erange(node):
    import ctypes
    os.setxattr(node, "user.a", b"0123456789")
    path = os.fsencode(node)
    buf = ctypes.create_string_buffer(100)
    assert libc.getxattr(path, b"user.a", None, 0) == 10
    assert libc.getxattr(path, b"user.a", buf, 9) == -1 and ctypes.get_errno() == errno.ERANGE
    assert libc.getxattr(path, b"user.a", buf, 10) == 10
    assert libc.listxattr(path, None, 0) == len(b"user.a\0")
    assert libc.listxattr(path, buf, 3) == -1 and ctypes.get_errno() == errno.ERANGE


def test_largest(shared, node):
    if shared.native:
        pytest.skip("ext4 holds less")
    value = bytes(range(256)) * 256
    assert len(value) == 65536
    os.setxattr(node, "user.big", value)
    assert os.getxattr(node, "user.big") == value
    with fails(errno.E2BIG):
        os.setxattr(node, "user.bigger", value + b"x")
    os.setxattr(node, "user.big2", value[::-1])
    assert os.getxattr(node, "user.big") == value
    name = "user." + "n" * 250
    os.setxattr(node, name, b"x")
    assert name in os.listxattr(node)
    with fails(errno.ERANGE):
        os.setxattr(node, name + "n", b"x")


def test_many(shared, node):
    count = 30 if shared.native else 500
    want = {f"user.attribute-{i}": b"%d" % i for i in range(count)}
    for name, value in want.items():
        os.setxattr(node, name, value)
    assert sorted(os.listxattr(node)) == sorted(want)
    for name in list(want)[::2]:
        os.removexattr(node, name)
        del want[name]
    assert {n: os.getxattr(node, n) for n in os.listxattr(node)} == want


def test_namespaces(d):
    put(d / "f")
    for name in ("nonsense", "foo.bar", "USER.x"):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(d / "f", name, b"x")
        with fails(errno.EOPNOTSUPP):
            os.getxattr(d / "f", name)
    with fails(errno.EINVAL, errno.EOPNOTSUPP):
        os.setxattr(d / "f", "user.", b"x")
    os.symlink("f", d / "l")
    with fails(errno.EPERM):
        os.setxattr(d / "l", "user.x", b"x", follow_symlinks=False)
    os.mkfifo(d / "p")
    with fails(errno.EPERM):
        os.setxattr(d / "p", "user.x", b"x")


def test_trusted_is_roots(d):
    if os.getuid() != 0:
        pytest.skip("needs root")
    put(d / "f")
    os.chmod(d / "f", 0o666)
    os.setxattr(d / "f", "trusted.t", b"1")
    os.symlink("f", d / "l")
    os.setxattr(d / "l", "trusted.t", b"2", follow_symlinks=False)
    assert os.getxattr(d / "f", "trusted.t") == b"1"
    assert os.getxattr(d / "l", "trusted.t", follow_symlinks=False) == b"2"
    assert "trusted.t" in os.listxattr(d / "f")

    def other():
        with fails(errno.ENODATA):
            os.getxattr(d / "f", "trusted.t")
        with fails(errno.EPERM):
            os.setxattr(d / "f", "trusted.t", b"2")

    as_user(1000, 1000, other)


@pytest.mark.emdb
def test_no_labels_without_selinux(d):
    """Heard once, ls asks for no other file's label; one that is set is there all the same."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("SELinux runs here")
    put(d / "f", b"x")
    with fails(errno.EOPNOTSUPP):
        os.getxattr(d / "f", "security.selinux")
    os.setxattr(d / "f", "security.selinux", b"label")
    assert os.getxattr(d / "f", "security.selinux") == b"label"
    os.removexattr(d / "f", "security.selinux")
    with fails(errno.EOPNOTSUPP):
        os.getxattr(d / "f", "security.selinux")


def test_security(d):
    if os.getuid() != 0:
        pytest.skip("needs root")
    put(d / "f")
    os.setxattr(d / "f", "security.emdbtest", b"label")
    assert os.getxattr(d / "f", "security.emdbtest") == b"label"
    assert "security.emdbtest" in os.listxattr(d / "f")


def test_file_capabilities_go_with_a_write(d):
    """security.capability survives reading and is dropped by a write, as on every file system."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    put(d / "f", b"#!/bin/true\n")
    os.chmod(d / "f", 0o777)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(d / "f", "security.capability", capability)
    assert os.getxattr(d / "f", "security.capability") == capability
    get(d / "f")
    assert os.getxattr(d / "f", "security.capability") == capability
    put(d / "g", b"x")

    def write():
        fd = os.open(d / "f", os.O_WRONLY)
        os.write(fd, b"#")
        os.close(fd)

    as_user(1000, 1000, write)
    with fails(errno.ENODATA):
        os.getxattr(d / "f", "security.capability")


def test_permissions(d):
    if os.getuid() != 0:
        pytest.skip("needs root")
    put(d / "f")
    os.setxattr(d / "f", "user.a", b"1")
    os.chmod(d / "f", 0o644)
    assert as_user(1000, 1000, lambda: os.getxattr(d / "f", "user.a")) == b"1"

    def denied():
        with fails(errno.EACCES):
            os.setxattr(d / "f", "user.a", b"2")
        with fails(errno.EACCES):
            os.removexattr(d / "f", "user.a")

    as_user(1000, 1000, denied)
    os.chmod(d / "f", 0o600)

    def hidden():
        with fails(errno.EACCES):
            os.getxattr(d / "f", "user.a")

    as_user(1000, 1000, hidden)


def test_they_belong_to_the_file(d):
    put(d / "f", b"x")
    os.setxattr(d / "f", "user.a", b"1")
    os.rename(d / "f", d / "g")
    assert os.getxattr(d / "g", "user.a") == b"1"
    os.link(d / "g", d / "h")
    os.setxattr(d / "h", "user.b", b"2")
    assert os.getxattr(d / "g", "user.b") == b"2"
    put(d / "g", b"rewritten" * 10000)
    os.truncate(d / "g", 5)
    assert os.getxattr(d / "g", "user.a") == b"1"
    os.unlink(d / "g")
    os.unlink(d / "h")
    put(d / "f", b"x")
    assert os.listxattr(d / "f") == []


def test_on_an_unlinked_open_file(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    os.setxattr(fd, "user.a", b"1")
    os.unlink(d / "f")
    assert os.getxattr(fd, "user.a") == b"1"
    os.setxattr(fd, "user.b", b"2")
    assert sorted(os.listxattr(fd)) == ["user.a", "user.b"]
    os.close(fd)


def test_through_tools(d):
    need("setfattr", "getfattr", "rsync", "tar")
    put(d / "f", b"x")
    run("setfattr", "-n", "user.color", "-v", "blue", d / "f")
    assert 'user.color="blue"' in run("getfattr", "-d", d / "f").stdout
    run("cp", "-a", d / "f", d / "copy")
    assert os.getxattr(d / "copy", "user.color") == b"blue"
    run("rsync", "-aX", d / "f", d / "synced")
    assert os.getxattr(d / "synced", "user.color") == b"blue"
    run("tar", "--xattrs", "-cf", d / "t.tar", "-C", d, "f")
    os.mkdir(d / "out")
    run("tar", "--xattrs", "-xf", d / "t.tar", "-C", d / "out")
    assert os.getxattr(d / "out" / "f", "user.color") == b"blue"
    run("setfattr", "-x", "user.color", d / "f")
    assert os.listxattr(d / "f") == []
