# SPDX-License-Identifier: Apache-2.0
"""POSIX access control lists, acl(5): enforced by the kernel for several users, kept in step with modes by the daemon."""

import errno
import os
import shutil
import stat
import struct

import pytest

from harness import as_user, fails, get, need, put, run

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become other users")

A, B, C = 1000, 1001, 1002  # users; groups of the same numbers
GROUP = 1500

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
TAGS = {"u": 1, "U": 2, "g": 4, "G": 8, "m": 16, "o": 32}


@pytest.fixture(autouse=True)
def tools():
    need("setfacl", "getfacl")


def acl(text):
    """The attribute of "u:7 U1000:5 g:4 m:7 o:0"."""
    value = struct.pack("<I", 2)
    for word in text.split():
        who, perm = word.split(":")
        value += struct.pack("<HHI", TAGS[who[0]], int(perm), int(who[1:]) if who[1:] else 0xFFFFFFFF)
    return value


def spelled(path, *options):
    """getfacl's lines, without comments, as one set."""
    out = run("getfacl", "-n", "-c", "-E", *options, path).stdout
    return {line for line in out.splitlines() if line}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def allowed(uid, path, want, groups=()):
    """What access(2) says to that user, as "rwx" letters."""
    def ask():
        return "".join(c for c, bit in zip("rwx", (os.R_OK, os.W_OK, os.X_OK)) if os.access(path, bit))
    assert as_user(uid, uid, ask, groups=groups) == want


def refused(code, action):
    def check():
        with fails(code):
            action()
    return check


# ---- Access lists ---------------------------------------------------------


def test_named_users_and_groups(d):
    put(d / "f", b"x")
    os.chmod(d / "f", 0o600)
    allowed(A, d / "f", "")
    run("setfacl", "-m", f"u:{A}:rw,g:{GROUP}:r", d / "f")
    allowed(A, d / "f", "rw")
    allowed(B, d / "f", "")
    allowed(B, d / "f", "r", groups=[GROUP])
    assert spelled(d / "f") == {"user::rw-", f"user:{A}:rw-", "group::---", f"group:{GROUP}:r--", "mask::rw-",
                                "other::---"}
    assert as_user(A, A, lambda: get(d / "f")) == b"x"
    as_user(A, A, lambda: put(d / "f", b"y"))
    assert as_user(B, B, lambda: get(d / "f"), groups=[GROUP]) == b"y"
    as_user(B, B, refused(errno.EACCES, lambda: put(d / "f", b"z")), groups=[GROUP])
    run("setfacl", "-m", f"u:{A}:-", d / "f")
    allowed(A, d / "f", "")
    run("setfacl", "-x", f"g:{GROUP}", d / "f")
    allowed(B, d / "f", "", groups=[GROUP])
    run("setfacl", "-b", d / "f")
    assert ACCESS not in os.listxattr(d / "f") and mode(d / "f") == 0o600


def test_search_permission_by_name(d):
    (d / "dir").mkdir(mode=0o700)
    put(d / "dir" / "f", b"x")
    as_user(A, A, refused(errno.EACCES, lambda: os.stat(d / "dir" / "f")))
    run("setfacl", "-m", f"u:{A}:x", d / "dir")
    assert as_user(A, A, lambda: os.stat(d / "dir" / "f").st_size) == 1
    as_user(A, A, refused(errno.EACCES, lambda: os.listdir(d / "dir")))
    run("setfacl", "-m", f"u:{A}:rx", d / "dir")
    assert as_user(A, A, lambda: os.listdir(d / "dir")) == ["f"]
    as_user(A, A, refused(errno.EACCES, lambda: os.unlink(d / "dir" / "f")))
    run("setfacl", "-m", f"u:{A}:rwx", d / "dir")
    as_user(A, A, lambda: os.unlink(d / "dir" / "f"))
    run("setfacl", "-b", d / "dir")
    as_user(A, A, refused(errno.EACCES, lambda: os.listdir(d / "dir")))


def test_the_mode_is_the_mask(d):
    put(d / "f")
    os.chmod(d / "f", 0o640)
    run("setfacl", "-m", f"u:{A}:rwx", d / "f")
    assert mode(d / "f") == 0o670, "the group's bits of the mode show the mask"
    assert "group::r--" in spelled(d / "f")
    os.chmod(d / "f", 0o740)
    assert spelled(d / "f") == {"user::rwx", f"user:{A}:rwx", "group::r--", "mask::r--", "other::---"}
    allowed(A, d / "f", "r")
    os.chmod(d / "f", 0o614)
    allowed(A, d / "f", "x")
    allowed(B, d / "f", "r")
    os.chmod(d / "f", 0o670)
    allowed(A, d / "f", "rwx")
    fd = os.open(d / "f", os.O_RDWR)
    os.fchmod(fd, 0o620)
    os.close(fd)
    assert "mask::-w-" in spelled(d / "f")
    run("setfacl", "-m", "m::r", d / "f")
    assert mode(d / "f") == 0o640


def test_a_list_that_is_a_mode_is_not_kept(d):
    put(d / "f")
    ctime = os.stat(d / "f").st_ctime_ns
    os.setxattr(d / "f", ACCESS, acl("u:7 g:5 o:1"))
    assert mode(d / "f") == 0o751 and os.listxattr(d / "f") == []
    assert os.stat(d / "f").st_ctime_ns > ctime
    with fails(errno.ENODATA):
        os.getxattr(d / "f", ACCESS)


def test_it_keeps_the_other_bits_of_the_mode(d):
    put(d / "f")
    os.chmod(d / "f", 0o4755)
    run("setfacl", "-m", f"u:{A}:r", d / "f")
    assert mode(d / "f") == 0o4755
    (d / "dir").mkdir()
    os.chmod(d / "dir", 0o3777)
    run("setfacl", "-m", f"u:{A}:r", d / "dir")
    assert mode(d / "dir") == 0o3777


def test_set_gid_goes_when_the_setter_is_not_in_the_group(d):
    for name, groups, want in (("in", [GROUP], 0o2755), ("out", [], 0o755)):
        path = put(d / name)
        os.chown(path, A, GROUP)
        os.chmod(path, 0o2755)
        as_user(A, A, lambda path=path: os.setxattr(path, ACCESS, acl(f"u:7 U{B}:5 g:5 m:5 o:5")), groups=groups)
        assert mode(path) == want


def test_errors(d):
    put(d / "f")
    os.symlink("f", d / "link")
    with fails(errno.EACCES):
        os.setxattr(d / "f", DEFAULT, acl("u:7 g:5 o:5"))
    for name in (ACCESS, DEFAULT):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(d / "link", name, acl("u:7 g:5 o:5"), follow_symlinks=False)
        with fails(errno.ENODATA):
            os.getxattr(d, name)
        with fails(errno.EINVAL):
            os.setxattr(d, name, b"\x02\0\0")
        with fails(errno.EOPNOTSUPP, errno.EINVAL):
            os.setxattr(d, name, struct.pack("<I", 1) + acl("u:7 g:5 o:5")[4:])
        for bad in ("u:7", "u:7 g:5", "g:5 o:5 u:7", f"u:7 U{A}:5 g:5 o:5", "u:7 g:5 m:5 m:5 o:5", "u:7 u:7 g:5 o:5"):
            with fails(errno.EINVAL):
                os.setxattr(d, name, acl(bad))
    with fails(errno.EOPNOTSUPP):
        os.setxattr(d / "f", "system.other", b"x")
    as_user(A, A, refused(errno.EPERM, lambda: os.setxattr(d / "f", ACCESS, acl("u:7 g:5 o:5"))))
    assert mode(d / "f") == 0o644 and os.listxattr(d / "f") == []
    os.removexattr(d / "f", ACCESS)  # nothing there: no error, as elsewhere


def test_many_names(d):
    put(d / "f")
    os.chmod(d / "f", 0o600)
    names = " ".join(f"U{A + 2 * i}:{i % 8}" for i in range(300))
    os.setxattr(d / "f", ACCESS, acl(f"u:6 {names} g:0 m:7 o:0"))
    for i in (0, 1, 7, 150, 299):
        allowed(A + 2 * i, d / "f", "".join(c for c, bit in zip("rwx", (4, 2, 1)) if i % 8 & bit))
    allowed(A + 1, d / "f", "")


# ---- Default lists ----------------------------------------------------------


def test_inheritance(d):
    run("setfacl", "-d", "-m", f"u:{A}:rwx,g:{GROUP}:rx,o::-", d)
    assert mode(d) == 0o777, "a default list changes nothing for the directory itself"
    with open(d / "f", "xb"):
        pass
    assert spelled(d / "f") == {"user::rw-", f"user:{A}:rwx", f"group:{GROUP}:r-x", "group::rwx", "mask::rw-", "other::---"}
    assert mode(d / "f") == 0o660
    allowed(A, d / "f", "rw")
    allowed(B, d / "f", "r", groups=[GROUP])
    (d / "sub").mkdir()
    assert spelled(d / "sub", "-d") == spelled(d, "-d") != set()
    assert spelled(d / "sub", "-a") == {"user::rwx", f"user:{A}:rwx", f"group:{GROUP}:r-x", "group::rwx", "mask::rwx",
                                        "other::---"}
    os.mkfifo(d / "sub" / "fifo", 0o600)
    assert "mask::---" in spelled(d / "sub" / "fifo") and DEFAULT not in os.listxattr(d / "sub" / "fifo")
    os.symlink("f", d / "sub" / "link")
    assert os.listxattr(d / "sub" / "link", follow_symlinks=False) == []
    os.link(d / "f", d / "sub" / "hard")
    assert spelled(d / "sub" / "hard") == spelled(d / "f")
    run("setfacl", "-k", d)
    assert os.listxattr(d) == []
    put(d / "g")
    assert os.listxattr(d / "g") == [] and mode(d / "g") == 0o644
    put(d / "sub" / "h")
    assert ACCESS in os.listxattr(d / "sub" / "h")


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_umask_counts_only_without_a_default_list(d, mask):
    def make(where):
        os.close(os.open(where / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(where / "dir", 0o777)
        os.mkfifo(where / "fifo", 0o666)
        return [mode(where / name) for name in ("f", "dir", "fifo")]

    (d / "plain").mkdir()
    (d / "acl").mkdir()
    run("setfacl", "-d", "-m", f"u::rwx,u:{A}:rwx,g::rwx,o::rx", d / "acl")
    for name in ("plain", "acl"):
        os.chmod(d / name, 0o777)
    assert as_user(B, B, lambda: make(d / "plain"), umask=mask) == [0o666 & ~mask, 0o777 & ~mask, 0o666 & ~mask]
    assert as_user(B, B, lambda: make(d / "acl"), umask=mask) == [0o664, 0o775, 0o664]


def test_a_default_list_without_names(d):
    """What it allows is all in the mode: such a file has no list."""
    os.setxattr(d, DEFAULT, acl("u:7 g:5 o:0"))
    old = os.umask(0)
    try:
        put(d / "f")
    finally:
        os.umask(old)
    assert mode(d / "f") == 0o640 and os.listxattr(d / "f") == []
    (d / "sub").mkdir()
    assert mode(d / "sub") == 0o750 and os.listxattr(d / "sub") == [DEFAULT]


def test_set_gid_directory_with_a_default_list(d):
    os.chown(d, 0, GROUP)
    os.chmod(d, 0o2777)
    run("setfacl", "-d", "-m", f"u:{A}:rwx", d)
    as_user(B, B, lambda: os.mkdir(d / "sub"))
    st = os.stat(d / "sub")
    assert st.st_gid == GROUP and st.st_mode & stat.S_ISGID and DEFAULT in os.listxattr(d / "sub")


# ---- They stay ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 300_000])
def test_across_remount_and_kill(mount, size):
    (mount / "dir").mkdir()
    run("setfacl", "-d", "-m", f"u:{A}:rwx", mount / "dir")
    put(mount / "dir" / "f", b"x" * size)
    run("setfacl", "-m", f"u:{A}:rw,g:{GROUP}:r", mount / "dir" / "f")
    want = [spelled(mount / "dir"), spelled(mount / "dir" / "f"), mode(mount / "dir" / "f")]
    for again in (mount.remount, lambda: (mount.kill9(), mount.start())):
        if mount.native:
            break
        again()
        os.rename(mount / "dir" / "f", mount / "dir" / "g")
        os.rename(mount / "dir" / "g", mount / "dir" / "f")
        with open(mount / "dir" / "f", "r+b") as f:
            f.write(b"y" * min(size, 10))
        assert want == [spelled(mount / "dir"), spelled(mount / "dir" / "f"), mode(mount / "dir" / "f")]
        put(mount / "dir" / "f", b"z" * size)  # truncated and written anew
        assert want[1:] == [spelled(mount / "dir" / "f"), mode(mount / "dir" / "f")]


def test_copies(d, scratch):
    """cp -a, rsync -A and tar --acls carry both kinds of lists, onto the mount and back."""
    need("rsync", "tar")
    native = scratch / "a"
    native.mkdir()
    put(native / "f", b"x")
    (native / "dir").mkdir()
    put(native / "dir" / "g", b"y")
    try:
        run("setfacl", "-m", f"u:{A}:rw,g:{GROUP}:r", native / "f")
    except pytest.fail.Exception:
        pytest.skip("the host's file system has no access lists")
    run("setfacl", "-d", "-m", f"u:{B}:rx", native / "dir")

    def lists(where):
        return "\n\n".join(sorted(run("getfacl", "-R", "-n", ".", cwd=where).stdout.strip().split("\n\n"))) + "\n"

    want = lists(native)
    run("cp", "-a", native, d / "cp")
    assert lists(d / "cp") == want
    run("rsync", "-aHAX", f"{native}/", f"{d}/rsync/")
    assert lists(d / "rsync") == want
    run("tar", "--acls", "-cf", d / "t.tar", "-C", d / "cp", ".")
    os.mkdir(d / "tar")
    run("tar", "--acls", "-xpf", d / "t.tar", "-C", d / "tar")
    assert lists(d / "tar") == want
    run("cp", "-a", d / "rsync", scratch / "back")
    assert lists(scratch / "back") == want
    assert run("rsync", "-aHAXni", f"{native}/", f"{d}/cp/").stdout == ""
    os.mkdir(d / "again")
    shutil.copytree(d / "cp", d / "again", dirs_exist_ok=True)
    put(d / "saved", want)
    run("setfacl", "--restore", d / "saved", cwd=d / "again")
    assert lists(d / "again") == want


# ---- Mounts that differ -------------------------------------------------------


@pytest.mark.emdb
def test_on_roots_own_mount(mount):
    """Nobody else gets in there, so the kernel does not check; the lists are kept all the same."""
    put(mount / "f")
    os.chmod(mount / "f", 0o600)
    os.stat(mount / "f")
    run("setfacl", "-m", f"u:{A}:rwx", mount / "f")
    assert mode(mount / "f") == 0o670, "the kernel was told of the new mode"
    os.chmod(mount / "f", 0o600)
    assert "mask::---" in spelled(mount / "f")
    run("setfacl", "-d", "-m", f"u:{A}:rwx", mount.mnt)
    put(mount / "g")
    assert f"user:{A}:rwx" in spelled(mount / "g") and mode(mount / "g") == 0o664
    with fails(errno.EACCES):
        os.setxattr(mount / "f", DEFAULT, acl("u:7 g:5 o:5"))
    with fails(errno.EINVAL):
        os.setxattr(mount / "f", ACCESS, acl("u:7"))
    run("setfacl", "-b", mount / "f")
    assert mode(mount / "f") == 0o600


@pytest.mark.emdb
@pytest.mark.parametrize("options", [["noacl"], ["noacl", "allow_other"]])
def test_noacl(make_mount, options):
    """Neither obeyed nor shown, and never accepted; what is stored comes back without the option."""
    mount = make_mount(["allow_other"])
    (mount / "dir").mkdir()
    run("setfacl", "-m", f"u:{A}:rwx", mount / "dir")
    run("setfacl", "-d", "-m", f"u:{A}:rwx", mount / "dir")
    want = spelled(mount / "dir")
    mount.stop()
    mount.options = options
    mount.start()
    assert os.listxattr(mount / "dir") == []
    for name in (ACCESS, DEFAULT):
        with fails(errno.EOPNOTSUPP):
            os.getxattr(mount / "dir", name)
        with fails(errno.EOPNOTSUPP):
            os.setxattr(mount / "dir", name, acl("u:7 g:5 o:5"))
        with fails(errno.EOPNOTSUPP):
            os.removexattr(mount / "dir", name)
    assert "not supported" in run("setfacl", "-m", f"u:{A}:r", mount / "dir", ok=None).stderr
    put(mount / "dir" / "f")
    assert mode(mount / "dir" / "f") == 0o644
    mount.stop()
    mount.options = ["allow_other"]
    mount.start()
    assert spelled(mount / "dir") == want and spelled(mount / "dir" / "f") == {"user::rw-", "group::r--", "other::r--"}
