# SPDX-License-Identifier: Apache-2.0
"""Directories: mkdir, rmdir, reading, positions, names."""

import errno
import os
import stat
import subprocess

import pytest

from harness import Dir, fails, get, put, run

DT_DIR, DT_REG, DT_LNK, DT_FIFO = 4, 8, 10, 1


# ---- mkdir and rmdir -----------------------------------------------------


def test_mkdir(d):
    old = os.umask(0o027)
    try:
        os.mkdir(d / "a", 0o777)
    finally:
        os.umask(old)
    st = os.stat(d / "a")
    assert stat.S_ISDIR(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o750
    assert st.st_nlink >= 1
    assert os.listdir(d / "a") == []
    with Dir(d / "a") as handle:
        names = {handle.read()[0], handle.read()[0]}
        assert names == {b".", b".."} and handle.read() is None


def test_mkdir_errors(d):
    put(d / "f")
    os.mkdir(d / "a")
    for name in ("f", "a"):
        with fails(errno.EEXIST):
            os.mkdir(d / name)
    with fails(errno.ENOENT):
        os.mkdir(d / "no" / "b")
    with fails(errno.ENOTDIR):
        os.mkdir(d / "f" / "b")
    os.symlink("nowhere", d / "l")
    with fails(errno.EEXIST):
        os.mkdir(d / "l")


def test_rmdir(d):
    os.mkdir(d / "a")
    os.rmdir(d / "a")
    with fails(errno.ENOENT):
        os.rmdir(d / "a")
    assert os.listdir(d) == []


def test_rmdir_errors(d):
    os.mkdir(d / "a")
    put(d / "a" / "f")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(d / "a")
    with fails(errno.ENOTDIR):
        os.rmdir(d / "a" / "f")
    with fails(errno.EINVAL):
        os.rmdir(f"{d}/a/.")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(d / "a" / "..")
    assert get(d / "a" / "f") == b""
    os.unlink(d / "a" / "f")
    os.rmdir(d / "a")


def test_rmdir_of_the_mount_point(shared):
    if shared.native:
        pytest.skip("a mount point only")
    with fails(errno.EBUSY):
        os.rmdir(shared.mnt)


def test_link_counts(d):
    """Either the classical count, 2 + sub-directories, or 1 for "does not count"."""
    before = os.stat(d).st_nlink
    assert before in (1, 2)
    for i in range(3):
        os.mkdir(d / f"s{i}")
        put(d / f"f{i}")
    assert os.stat(d).st_nlink == (before + 3 if before == 2 else 1)
    os.rmdir(d / "s1")
    assert os.stat(d).st_nlink == (before + 2 if before == 2 else 1)
    os.mkdir(d / "t")
    os.rename(d / "s0", d / "t" / "s0")
    assert os.stat(d).st_nlink == (before + 2 if before == 2 else 1)
    assert os.stat(d / "t").st_nlink == (3 if before == 2 else 1)


def test_dot_dot(d):
    os.makedirs(d / "a" / "b")
    assert os.stat(d / "a" / "b" / "..").st_ino == os.stat(d / "a").st_ino
    assert os.stat(d / "a" / ".").st_ino == os.stat(d / "a").st_ino
    os.mkdir(d / "c")
    os.rename(d / "a" / "b", d / "c" / "b")
    assert os.stat(d / "c" / "b" / "..").st_ino == os.stat(d / "c").st_ino
    with Dir(d / "c" / "b") as handle:
        found = {e[0]: e[2] for e in iter(handle.read, None)}
    assert found[b"."] == os.stat(d / "c" / "b").st_ino


def test_getcwd_in_a_renamed_and_removed_directory(d):
    os.mkdir(d / "a")
    here = os.getcwd()
    try:
        os.chdir(d / "a")
        os.rename(d / "a", d / "b")
        assert os.getcwd() == str(d / "b")
        os.rmdir(d / "b")
        with fails(errno.ENOENT):
            os.getcwd()
    finally:
        os.chdir(here)


# ---- times of the directory ----------------------------------------------


def test_directory_times_change_with_entries(d):
    def changed(action):
        before = os.stat(d)
        while os.stat(d).st_mtime_ns == before.st_mtime_ns:
            action()
            after = os.stat(d)
            if after.st_mtime_ns != before.st_mtime_ns:
                return after.st_ctime_ns >= after.st_mtime_ns
            return False
        return True

    import time
    steps = [lambda: put(d / "f"), lambda: os.link(d / "f", d / "g"), lambda: os.unlink(d / "g"),
             lambda: os.rename(d / "f", d / "h"), lambda: os.mkdir(d / "s"),
             lambda: os.rmdir(d / "s"), lambda: os.symlink("x", d / "l")]
    for i, step in enumerate(steps):
        time.sleep(0.02)
        assert changed(step), i
    before = os.stat(d).st_mtime_ns
    put(d / "h", b"new content")
    assert os.stat(d).st_mtime_ns == before


# ---- reading -------------------------------------------------------------


def test_entry_types_and_inodes(d):
    put(d / "file")
    os.mkdir(d / "dir")
    os.symlink("x", d / "link")
    os.mkfifo(d / "fifo")
    with Dir(d) as handle:
        found = {name: (kind, ino) for name, kind, ino in iter(handle.read, None)}
    assert set(found) == {b".", b"..", b"file", b"dir", b"link", b"fifo"}
    for name, kind in ((b"file", DT_REG), (b"dir", DT_DIR), (b"link", DT_LNK), (b"fifo", DT_FIFO)):
        assert found[name] == (kind, os.lstat(os.fsencode(d) + b"/" + name).st_ino)


@pytest.mark.parametrize("count", [0, 1, 100, 10_000])
def test_listing(d, count):
    names = {f"entry-{i:06}-{'x' * (i % 50)}" for i in range(count)}
    for name in names:
        os.mknod(d / name)
    listed = os.listdir(d)
    assert len(listed) == count and set(listed) == names
    out = run("ls", "-f", d).stdout.split("\n")
    assert set(out) - {".", "..", ""} == names
    lines = run("ls", "-ln", d).stdout.splitlines()
    assert len(lines) == count + 1


def test_deletion_loop(d):
    """rm -r's way: read some, delete them, read on.  Nothing may be skipped."""
    count = 10_000
    for i in range(count):
        os.mknod(d / f"f{i}")
    gone = 0
    with Dir(d) as handle:
        while (entry := handle.read()) is not None:
            if entry[0] not in (b".", b".."):
                os.unlink(os.fsencode(d) + b"/" + entry[0])
                gone += 1
    assert gone == count
    assert os.listdir(d) == []
    os.rmdir(d)


def test_survivors_are_listed_once(d):
    """Entries come and go during the walk; those that stay come exactly once."""
    for i in range(3000):
        os.mknod(d / f"stay{i}")
        os.mknod(d / f"go{i}")
    seen = []
    with Dir(d) as handle:
        for step, entry in enumerate(iter(handle.read, None)):
            seen.append(entry[0])
            if step < 3000:
                os.unlink(d / f"go{step}")
                os.mknod(d / f"new{step}")
    stay = [n for n in seen if n.startswith(b"stay")]
    assert len(stay) == len(set(stay)) == 3000
    assert len(seen) == len(set(seen))


def test_telldir_seekdir_rewinddir(d):
    for i in range(2000):
        os.mknod(d / f"f{i}")
    with Dir(d) as handle:
        marks, names = [], []
        while True:
            marks.append(handle.tell())
            entry = handle.read()
            if entry is None:
                break
            names.append(entry[0])
        for i in (0, 1, 2, 500, 1999, len(names) - 1, 77):
            handle.seek(marks[i])
            assert handle.read()[0] == names[i]
        handle.rewind()
        assert [e[0] for e in iter(handle.read, None)] == names
        os.mknod(d / "later")
        handle.rewind()
        assert b"later" in [e[0] for e in iter(handle.read, None)]


def test_positions_survive_deletions(d):
    for i in range(2000):
        os.mknod(d / f"f{i}")
    with Dir(d) as handle:
        names = [handle.read()[0] for _ in range(1000)]
        mark = handle.tell()
        rest = [e[0] for e in iter(handle.read, None)]
        for name in names:
            if name not in (b".", b".."):
                os.unlink(os.fsencode(d) + b"/" + name)
        handle.seek(mark)
        assert sorted(e[0] for e in iter(handle.read, None)) == sorted(rest)


def test_listing_sees_changes_at_once(d):
    """A cached listing must not outlive a change."""
    for i in range(30):
        os.mknod(d / f"f{i}")
        assert len(os.listdir(d)) == i + 1
    for i in range(30):
        os.rename(d / f"f{i}", d / f"g{i}")
        assert f"g{i}" in os.listdir(d) and f"f{i}" not in os.listdir(d)
    for i in range(30):
        os.unlink(d / f"g{i}")
        assert len(os.listdir(d)) == 29 - i


def test_deep_tree(d):
    path = str(d)
    depth = 0
    while len(path) + 20 < 4000:
        path += f"/level-{depth:010}"
        os.mkdir(path)
        depth += 1
    put(path + "/f", b"deep")
    assert get(path + "/f") == b"deep"
    assert depth > 150
    with fails(errno.ENAMETOOLONG):
        os.mkdir(path + "/" + "x" * 200)
    assert len(run("find", d, "-name", "level-*").stdout.splitlines()) == depth
    run("rm", "-rf", d)
    assert not os.path.exists(d)


def test_path_longer_than_4096_by_steps(d):
    """Deeper than a path can say, walked by descriptors as rm and find do."""
    fd = os.open(d, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("n" * 200, dir_fd=fd)
        deeper = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    assert os.listdir(fd) == ["f"]
    os.close(fd)
    subprocess.run(["rm", "-rf", str(d / ("n" * 200))], check=True)
    assert os.listdir(d) == []


# ---- names ---------------------------------------------------------------


def test_every_byte_in_a_name(d):
    names = [bytes([c]) for c in range(1, 256) if c not in b"/."] + [
        b"...", b" ", b"\n", b"-rf", b"%", b"%2F", b"%00", b"%2E", b"~", b"a~b", b"~" * 255,
        b"\xff\xfe", b"\xc3\x28", "ünï".encode(), "日本".encode(), b"x" * 255, b"%" * 255,
        b"%" * 254 + b"2", b"\xff" * 255, b"*?[]", b"a%2Fb", b"a%2fb", b"%25", b".hidden", b"..x",
        b"lost+found", b"core", b"CON", b"user.emdb.ttl"]
    names = list(dict.fromkeys(names))
    base = os.fsencode(d)
    for i, name in enumerate(names):
        try:
            put(base + b"/" + name, b"%d" % i)
        except OSError as err:
            pytest.fail(f"{name!r}: {err}")
    assert sorted(os.listdir(base)) == sorted(names)
    for i, name in enumerate(names):
        assert get(base + b"/" + name) == b"%d" % i, name
    for name in names:
        os.rename(base + b"/" + name, base + b"/tmp-name")
        os.rename(base + b"/tmp-name", base + b"/" + name)
        os.unlink(base + b"/" + name)
    assert os.listdir(base) == []


def test_names_that_look_escaped_are_not_confused(d):
    """Names near the escape pattern stay what they are, as files and as directories."""
    tag = b"%emdb="
    candidates = [b"%2F", b"%2f", b"%252F", b"%", b"%%", b"%00", tag[:-1], tag + b"x", tag + b"a%2fb",
                  tag + b"%25", tag + b"%252F", tag + b"a%2Fb%", tag + b"%41", b"%emdb~", b"%emdb~x",
                  b"%emdb~x~" + b"0" * 39, b"%emdb~x~" + b"0" * 40, b"%EMDB=a%2Fb", b"x" + tag]
    base = os.fsencode(d)
    for kind in ("file", "dir"):
        made = {}
        for i, name in enumerate(candidates):
            path = base + b"/" + name
            try:
                if kind == "file":
                    put(path, b"%d" % i)
                else:
                    os.mkdir(path)
                made[name] = i
            except OSError as err:
                pytest.fail(f"{name!r}: {err}")
        assert sorted(os.listdir(base)) == sorted(made)
        for name, i in made.items():
            if kind == "file":
                assert get(base + b"/" + name) == b"%d" % i
                os.unlink(base + b"/" + name)
            else:
                os.rmdir(base + b"/" + name)


@pytest.mark.emdb
def test_names_of_keys_that_no_name_can_spell(d):
    """An escaped name is a file like any other; one that names its key by hash cannot be created."""
    base = os.fsencode(d)
    names = [b"%emdb=a%2Fb", b"%emdb=", b"%emdb=.", b"%emdb=..", b"%emdb=%00", b"%emdb=%25emdb=a%252Fb"]
    keys = [b"a/b", b"", b".", b"..", b"\0", b"%emdb=a%2Fb"]
    for i, (name, key) in enumerate(zip(names, keys)):
        put(base + b"/" + name, b"%d" % i)
        assert os.getxattr(base + b"/" + name, "user.emdb.key") == key
    assert sorted(os.listdir(base)) == sorted(names)
    for i, name in enumerate(names):
        assert get(base + b"/" + name) == b"%d" % i
        os.rename(base + b"/" + name, base + b"/plain")
        assert os.getxattr(base + b"/plain", "user.emdb.key") == b"plain"
        os.unlink(base + b"/plain")
    hashed = base + b"/%emdb~" + b"x" * 128 + b"~" + b"0" * 40
    with fails(errno.ENOENT):
        os.stat(hashed)
    with fails(errno.EINVAL, errno.EPERM, errno.ENOENT, errno.EACCES):
        put(hashed)
    assert os.listdir(base) == []


def test_name_too_long(d):
    long = "x" * 256
    put(d / "f")
    for call in (os.stat, os.mkdir, os.mkfifo, os.unlink, os.rmdir,
                 lambda p: os.open(p, os.O_CREAT | os.O_WRONLY),
                 lambda p: os.symlink("t", p), lambda p: os.link(d / "f", p),
                 lambda p: os.rename(d / "f", p), lambda p: os.rename(p, d / "f")):
        with fails(errno.ENAMETOOLONG):
            call(d / long)
    assert os.listdir(d) == ["f"]
    assert os.pathconf(d, "PC_NAME_MAX") == 255


def test_names_are_case_sensitive(d):
    put(d / "Name", b"1")
    put(d / "name", b"2")
    put(d / "NAME", b"3")
    assert (get(d / "Name"), get(d / "name"), get(d / "NAME")) == (b"1", b"2", b"3")


def test_unicode_forms_stay_apart(d):
    composed, decomposed = b"\xc3\xa9", b"e\xcc\x81"
    base = os.fsencode(d)
    put(base + b"/" + composed, b"c")
    put(base + b"/" + decomposed, b"d")
    assert get(base + b"/" + composed) == b"c" and get(base + b"/" + decomposed) == b"d"
