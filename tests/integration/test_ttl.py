# SPDX-License-Identifier: Apache-2.0
"""Time to live, by plain tools and system calls."""

import errno
import os
import time

import pytest

from harness import (IN_CREATE, IN_DELETE, IN_DELETE_SELF, Inotify, fails, get, need, put, run,
                     wait_until)

pytestmark = pytest.mark.emdb

TTL, EXPIRES = "user.emdb.ttl", "user.emdb.expires"
DEFAULT, BASIS = "user.emdb.ttl.default", "user.emdb.ttl.basis"

# How late a deadline may be noticed by a system call: none but scheduling.
SLACK = 0.15


def deadline(path):
    """When the file expires, seconds since 1970; None: never."""
    try:
        return float(os.getxattr(path, EXPIRES))
    except OSError as err:
        assert err.errno == errno.ENODATA
        return None


def remaining(path):
    try:
        value = os.getxattr(path, TTL)
    except OSError as err:
        assert err.errno == errno.ENODATA
        return None
    return None if value == b"none" else float(value)


def set_ttl(path, text):
    os.setxattr(path, TTL, text.encode() if isinstance(text, str) else text)


def sleep_until(when):
    time.sleep(max(0, when - time.time()))


# ---- setting and reading -------------------------------------------------


def test_no_ttl(d):
    put(d / "f", b"x")
    assert deadline(d / "f") is None and remaining(d / "f") is None
    assert os.listxattr(d / "f") == []


@pytest.mark.parametrize("text,seconds", [
    ("90", 90), ("90s", 90), ("1h30m", 5400), ("7d", 604800), ("1500ms", 1.5), ("2w", 1209600),
    ("10m\n", 600), ("90s\0", 90)])
def test_set_relative(d, text, seconds):
    put(d / "f", b"x")
    before = time.time()
    set_ttl(d / "f", text)
    after = time.time()
    assert before + seconds - 0.01 <= deadline(d / "f") <= after + seconds + 0.01
    assert seconds - 1 <= remaining(d / "f") <= seconds + 1


def test_set_absolute(d):
    put(d / "f", b"x")
    set_ttl(d / "f", "@4102444800")
    assert deadline(d / "f") == 4102444800
    set_ttl(d / "f", "2100-01-02T03:04:05Z")
    assert deadline(d / "f") == 4102542245
    set_ttl(d / "f", "2100-01-02T03:04:05.250+01:00")
    assert deadline(d / "f") == 4102538645.25
    os.setxattr(d / "f", EXPIRES, b"4102444800.5")
    assert deadline(d / "f") == 4102444800.5
    os.setxattr(d / "f", EXPIRES, b"4102444801")
    assert deadline(d / "f") == 4102444801


def test_extend(d):
    put(d / "f", b"x")
    set_ttl(d / "f", "@4102444800")
    set_ttl(d / "f", "+1h")
    assert deadline(d / "f") == 4102444800 + 3600
    put(d / "g", b"x")
    before = time.time()
    set_ttl(d / "g", "+1h")
    assert before + 3599 < deadline(d / "g") < before + 3610


def test_remove(d):
    put(d / "f", b"x")
    for drop in (lambda: set_ttl(d / "f", "none"), lambda: os.removexattr(d / "f", TTL),
                 lambda: os.removexattr(d / "f", EXPIRES)):
        set_ttl(d / "f", "1h")
        assert deadline(d / "f") is not None
        drop()
        assert deadline(d / "f") is None


def test_bad_values_change_nothing(d):
    put(d / "f", b"x")
    set_ttl(d / "f", "@4102444800")
    for bad in (b"", b"soon", b"-5s", b"1h30", b"5 parsecs", b"@", b"2100-13-01T00:00:00Z", b"1" * 500,
                b"99999999999999999999d", b"\xff", b"1s\0002s"):
        with fails(errno.EINVAL, errno.ERANGE, errno.EOVERFLOW):
            set_ttl(d / "f", bad)
        assert deadline(d / "f") == 4102444800, bad
    for bad in (b"", b"x", b"1h", b"none", b"2100-01-01T00:00:00Z"):
        with fails(errno.EINVAL):
            os.setxattr(d / "f", EXPIRES, bad)
    assert deadline(d / "f") == 4102444800 and get(d / "f") == b"x"


def test_a_time_in_the_past_deletes(d):
    for i, (name, text) in enumerate([(TTL, b"0"), (TTL, b"@1000000000"), (EXPIRES, b"1000000000"),
                                      (TTL, b"1999-12-31T23:59:59Z")]):
        put(d / f"f{i}", b"x")
        os.setxattr(d / f"f{i}", name, text)
        with fails(errno.ENOENT):
            os.stat(d / f"f{i}")
    assert os.listdir(d) == []


def test_visibility(d):
    """The deadline is listed, so that copies carry it; what is virtual is not."""
    put(d / "f", b"x")
    set_ttl(d / "f", "1h")
    assert os.listxattr(d / "f") == [EXPIRES]
    os.mkdir(d / "dir")
    os.setxattr(d / "dir", DEFAULT, b"1h")
    assert TTL not in os.listxattr(d / "dir")


def test_read_only_attributes(d):
    put(d / "name", b"x" * 100)
    assert os.getxattr(d / "name", "user.emdb.key") == b"name"
    assert int(os.getxattr(d / "name", "user.emdb.lsn")) > 0
    for name in ("user.emdb.key", "user.emdb.lsn"):
        with fails(errno.EPERM, errno.EACCES, errno.EROFS, errno.EINVAL, errno.EOPNOTSUPP):
            os.setxattr(d / "name", name, b"x")
    with fails(errno.ENODATA):
        os.getxattr(d / "name", "user.emdb.nothing")
    with fails(errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
        os.setxattr(d / "name", "user.emdb.nothing", b"x")
    assert os.listxattr(d / "name") == []


def test_directories_never_expire(d):
    os.mkdir(d / "dir")
    for name, value in ((TTL, b"1s"), (EXPIRES, b"4102444800")):
        with fails(errno.EINVAL, errno.EISDIR, errno.EPERM, errno.EOPNOTSUPP):
            os.setxattr(d / "dir", name, value)
    put(d / "f")
    for name, value in ((DEFAULT, b"1h"), (BASIS, b"modify")):
        with fails(errno.EINVAL, errno.ENOTDIR, errno.EPERM, errno.EOPNOTSUPP):
            os.setxattr(d / "f", name, value)


# ---- expiry --------------------------------------------------------------


def test_absent_on_time(d):
    """Whatever the kernel has cached, a file is gone at its deadline, and not before."""
    put(d / "f", b"x")
    put(d / "stays", b"y")
    set_ttl(d / "f", "3s")
    end = deadline(d / "f")
    for _ in range(20):
        os.stat(d / "f"), get(d / "f"), os.listdir(d)
    sleep_until(end - 1.5)
    assert get(d / "f") == b"x" and sorted(os.listdir(d)) == ["f", "stays"]
    sleep_until(end + SLACK)
    for call in (os.stat, os.lstat, get, os.unlink, lambda p: os.chmod(p, 0o600),
                 lambda p: os.getxattr(p, TTL), lambda p: os.truncate(p, 0),
                 lambda p: os.rename(p, d / "g"), lambda p: os.link(p, d / "g")):
        with fails(errno.ENOENT):
            call(d / "f")
    assert os.listdir(d) == ["stays"]
    assert run("ls", d).stdout == "stays\n"
    put(d / "f", b"reborn")
    assert get(d / "f") == b"reborn" and deadline(d / "f") is None


def test_absent_on_time_without_anyone_asking_before(d):
    for i in range(20):
        put(d / f"f{i}", b"x")
        set_ttl(d / f"f{i}", "700ms")
    time.sleep(0.7 + SLACK)
    assert os.listdir(d) == []
    os.rmdir(d)


def test_deadline_set_by_creation_is_kept_by_caches(d):
    """Inherited deadlines bound the kernel's caches from the first reply on."""
    os.setxattr(d, DEFAULT, b"1s")
    put(d / "f", b"x")
    end = deadline(d / "f")
    assert get(d / "f") == b"x"
    sleep_until(end + SLACK)
    with fails(errno.ENOENT):
        os.stat(d / "f")


def test_rmdir_of_a_directory_with_expired_files(d):
    os.mkdir(d / "dir")
    for i in range(5):
        put(d / "dir" / f"f{i}", b"x")
        set_ttl(d / "dir" / f"f{i}", "500ms")
    with fails(errno.ENOTEMPTY):
        os.rmdir(d / "dir")
    time.sleep(0.5 + SLACK)
    os.rmdir(d / "dir")


def test_rename_onto_an_expired_name(d):
    os.mkdir(d / "dir")
    put(d / "f", b"x")
    set_ttl(d / "f", "400ms")
    time.sleep(0.4 + SLACK)
    os.rename(d / "dir", d / "f")
    assert os.path.isdir(d / "f")


def test_open_file_goes_on(d):
    """As an unlinked one: readable and writable until closed."""
    data = b"content" * 2000
    put(d / "f", data)
    fd = os.open(d / "f", os.O_RDWR)
    set_ttl(d / "f", "500ms")
    time.sleep(0.5 + SLACK)
    with fails(errno.ENOENT):
        os.stat(d / "f")
    time.sleep(0.6)  # the sweeper has been there
    assert os.pread(fd, len(data), 0) == data
    os.pwrite(fd, b"new", 3)
    assert os.pread(fd, 10, 0) == b"connewtcon"
    assert os.fstat(fd).st_nlink == 0
    put(d / "f", b"another")
    assert os.pread(fd, 3, 0) == b"con"
    os.close(fd)
    assert get(d / "f") == b"another"


def test_watchers_see_the_deletion(d):
    """Whoever watches the file is told.  (For a watched directory Linux makes no event of its own
    from what a FUSE daemon reports; where it ever does, it must be the right one.)"""
    put(d / "f", b"x")
    with Inotify() as on_dir, Inotify() as on_file:
        on_dir.watch(d, IN_DELETE | IN_CREATE)
        on_file.watch(d / "f", IN_DELETE_SELF)
        set_ttl(d / "f", "500ms")
        end = deadline(d / "f")
        events = on_file.events(5)
        assert any(mask & IN_DELETE_SELF for mask, _ in events), events
        assert end - 0.1 < time.time() < end + 1.5
        assert on_dir.events(0.1) in ([], [(IN_DELETE, b"f")])


def test_many_expire(mount):
    """The sweeper removes what nobody looks at, and the space is accounted as free."""
    before = os.statvfs(mount.mnt)
    os.mkdir(mount / "dir")
    os.setxattr(mount / "dir", DEFAULT, b"2s")
    for i in range(2000):
        put(mount / "dir" / f"f{i}", b"x")
    assert wait_until(lambda: os.listdir(mount / "dir") == [], 10, 0.1)
    def used(st):
        return st.f_files - st.f_ffree
    assert wait_until(lambda: used(os.statvfs(mount.mnt)) == used(before) + 1, 5, 0.1)
    os.rmdir(mount / "dir")


def test_prolonged_in_time(d):
    put(d / "f", b"x")
    set_ttl(d / "f", "600ms")
    time.sleep(0.3)
    set_ttl(d / "f", "1h")
    time.sleep(1)
    assert get(d / "f") == b"x"
    os.removexattr(d / "f", TTL)
    assert get(d / "f") == b"x"


# ---- what carries a deadline, what keeps it ------------------------------


def test_kept_by_write_truncate_chmod(d):
    put(d / "f", b"x")
    set_ttl(d / "f", "@4102444800")
    with open(d / "f", "ab") as f:
        f.write(b"more" * 5000)
    assert deadline(d / "f") == 4102444800
    os.truncate(d / "f", 2)
    put(d / "f", b"rewritten")
    os.chmod(d / "f", 0o600)
    os.utime(d / "f", (1, 1))
    os.setxattr(d / "f", "user.other", b"1")
    assert deadline(d / "f") == 4102444800 and get(d / "f") == b"rewritten"


def test_carried_by_rename(d):
    put(d / "f", b"x")
    set_ttl(d / "f", "@4102444800")
    os.rename(d / "f", d / "g")
    assert deadline(d / "g") == 4102444800
    os.mkdir(d / "dir")
    os.rename(d / "g", d / "dir" / "h")
    assert deadline(d / "dir" / "h") == 4102444800
    os.rename(d / "dir", d / "moved")
    assert deadline(d / "moved" / "h") == 4102444800


def test_shared_by_hard_links(d):
    put(d / "f", b"x")
    os.link(d / "f", d / "g")
    set_ttl(d / "f", "600ms")
    end = deadline(d / "g")
    assert end == deadline(d / "f") is not None
    sleep_until(end + SLACK)
    for name in "fg":
        with fails(errno.ENOENT):
            os.stat(d / name)
    assert os.listdir(d) == []


def test_rename_over_a_file_auto(d):
    # The source has its own: it wins.
    put(d / "t", b"old")
    set_ttl(d / "t", "@4102444800")
    put(d / "s", b"new")
    set_ttl(d / "s", "@4102444900")
    os.rename(d / "s", d / "t")
    assert deadline(d / "t") == 4102444900
    # Created here after the target, none of its own: an editor saving.  The target's stays.
    put(d / "s", b"newer")
    os.rename(d / "s", d / "t")
    assert deadline(d / "t") == 4102444900 and get(d / "t") == b"newer"
    # Older than the target: somebody moves a permanent file over a temporary name.
    put(d / "old", b"permanent")
    put(d / "t2", b"temporary")
    set_ttl(d / "t2", "@4102444800")
    os.rename(d / "old", d / "t2")
    assert deadline(d / "t2") is None and get(d / "t2") == b"permanent"
    # From another directory: the same.
    put(d / "t3", b"temporary")
    set_ttl(d / "t3", "@4102444800")
    os.mkdir(d / "dir")
    put(d / "dir" / "s", b"permanent")
    os.rename(d / "dir" / "s", d / "t3")
    assert deadline(d / "t3") is None


@pytest.mark.parametrize("which", ["keep", "source"])
def test_ttl_on_replace(make_mount, which):
    m = make_mount([f"ttl_on_replace={which}"])
    put(m / "older", b"s")
    put(m / "t", b"t")
    set_ttl(m / "t", "@4102444800")
    put(m / "newer", b"s")
    os.rename(m / ("newer" if which == "source" else "older"), m / "t")
    assert deadline(m / "t") == (None if which == "source" else 4102444800)


# ---- inheritance ---------------------------------------------------------


def test_default_of_a_directory(d):
    os.setxattr(d, DEFAULT, b"1h")
    before = time.time()
    put(d / "f", b"x")
    os.mkfifo(d / "p")
    os.mkdir(d / "sub")
    put(d / "sub" / "g", b"x")
    for path in (d / "f", d / "sub" / "g"):
        assert before + 3599 < deadline(path) < before + 3620, path
    assert os.getxattr(d / "sub", DEFAULT) == os.getxattr(d, DEFAULT)
    os.setxattr(d, DEFAULT, b"none")
    put(d / "later", b"x")
    assert deadline(d / "later") is None and deadline(d / "f") is not None
    os.removexattr(d / "sub", DEFAULT)
    put(d / "sub" / "h", b"x")
    assert deadline(d / "sub" / "h") is None
    with fails(errno.EINVAL):
        os.setxattr(d, DEFAULT, b"tomorrow")


def test_moving_in_does_not_inherit(d):
    os.mkdir(d / "dir")
    os.setxattr(d / "dir", DEFAULT, b"1h")
    put(d / "f", b"x")
    os.rename(d / "f", d / "dir" / "f")
    assert deadline(d / "dir" / "f") is None


def test_basis_modify(d):
    os.setxattr(d, DEFAULT, b"1h")
    put(d / "create", b"x")
    time.sleep(0.05)
    first = deadline(d / "create")
    with open(d / "create", "ab") as f:
        f.write(b"y")
    assert deadline(d / "create") == first
    os.setxattr(d, BASIS, b"modify")
    assert os.getxattr(d, BASIS) == b"modify"
    put(d / "f", b"x")
    for change in (lambda: put(d / "f", b"z"), lambda: os.truncate(d / "f", 0),
                   lambda: put(d / "f", b"y" * 50_000)):
        before = deadline(d / "f")
        time.sleep(0.05)
        change()
        assert deadline(d / "f") >= before + 0.04
    get(d / "f")
    before = deadline(d / "f")
    os.chmod(d / "f", 0o600)
    assert deadline(d / "f") == before
    with fails(errno.EINVAL):
        os.setxattr(d, BASIS, b"access to nothing")


def test_mount_option(make_mount):
    m = make_mount(["ttl=1h"])
    before = time.time()
    put(m / "f", b"x")
    os.mkdir(m / "dir")
    put(m / "dir" / "g", b"x")
    for path in (m / "f", m / "dir" / "g"):
        assert before + 3599 < deadline(path) < before + 3620


# ---- remount -------------------------------------------------------------


def test_across_remount_and_kill(mount):
    put(mount / "long", b"x")
    set_ttl(mount / "long", "@4102444800")
    put(mount / "short", b"x" * 10_000)
    set_ttl(mount / "short", "2s")
    os.mkdir(mount / "dir")
    os.setxattr(mount / "dir", DEFAULT, b"7d")
    os.setxattr(mount / "dir", BASIS, b"modify")
    end = deadline(mount / "short")
    mount.remount()
    assert deadline(mount / "short") == end
    mount.kill9()
    mount.start()
    assert deadline(mount / "long") == 4102444800
    assert os.getxattr(mount / "dir", BASIS) == b"modify"
    assert deadline(put(mount / "dir" / "f")) is not None
    sleep_until(end + SLACK)
    with fails(errno.ENOENT):
        os.stat(mount / "short")
    mount.kill9()
    mount.start()
    assert sorted(os.listdir(mount.mnt)) == ["dir", "long"]


def test_expired_while_unmounted(mount):
    put(mount / "f", b"x")
    set_ttl(mount / "f", "500ms")
    put(mount / "g", b"y")
    mount.stop()
    time.sleep(0.6)
    mount.start()
    assert os.listdir(mount.mnt) == ["g"]
    with fails(errno.ENOENT):
        os.stat(mount / "f")


# ---- tools ---------------------------------------------------------------


def test_setfattr_and_getfattr(d):
    need("setfattr", "getfattr")
    put(d / "f", b"x")
    run("setfattr", "-n", TTL, "-v", "90s", d / "f")
    assert 85 < float(run("getfattr", "--only-values", "-n", TTL, d / "f").stdout) <= 90
    assert EXPIRES in run("getfattr", "-d", d / "f").stdout
    assert run("setfattr", "-n", TTL, "-v", "rubbish", d / "f", ok=None).returncode != 0
    run("setfattr", "-x", TTL, d / "f")
    assert deadline(d / "f") is None


def test_copies_carry_the_deadline(d):
    need("rsync", "tar")
    os.mkdir(d / "src")
    put(d / "src" / "f", b"x")
    set_ttl(d / "src" / "f", "@4102444800")
    run("cp", "-a", d / "src", d / "cp")
    run("rsync", "-aX", f"{d}/src/", f"{d}/rsync")
    run("tar", "--xattrs", "-C", d / "src", "-cf", d / "t.tar", "f")
    os.mkdir(d / "tar")
    run("tar", "--xattrs", "-C", d / "tar", "-xf", d / "t.tar")
    for how in ("cp", "rsync", "tar"):
        assert deadline(d / how / "f") == 4102444800, how
    run("cp", d / "src" / "f", d / "plain")
    assert deadline(d / "plain") is None


def test_kept_by_programs_that_save_by_rename(d):
    need("sed", "rsync", "git")
    put(d / "f", b"one\n")
    set_ttl(d / "f", "@4102444800")
    run("sed", "-i", "s/one/two/", d / "f")
    assert get(d / "f") == b"two\n" and deadline(d / "f") == 4102444800
    os.mkdir(d / "src")
    put(d / "src" / "f", b"from elsewhere\n")
    run("rsync", "-a", d / "src" / "f", d / "f")
    assert get(d / "f") == b"from elsewhere\n" and deadline(d / "f") == 4102444800
    run("git", "init", "-q", d / "repo")
    set_ttl(d / "repo" / ".git" / "config", "@4102444800")
    run("git", "-C", d / "repo", "-c", "safe.directory=*", "config", "user.name", "Somebody")
    assert b"Somebody" in get(d / "repo" / ".git" / "config")
    assert deadline(d / "repo" / ".git" / "config") == 4102444800


def test_kept_by_vim(d):
    need("vim")
    for backup in ("", "set backupcopy=no |", "set backupcopy=yes |"):
        put(d / "f", b"one\n")
        set_ttl(d / "f", "@4102444800")
        run("vim", "-u", "NONE", "-es", "-c", f"{backup} %s/one/two/ | wq", d / "f", timeout=30)
        assert get(d / "f") == b"two\n" and deadline(d / "f") == 4102444800, backup
        os.unlink(d / "f")
