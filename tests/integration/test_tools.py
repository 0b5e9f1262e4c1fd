# SPDX-License-Identifier: Apache-2.0
"""Programs that nobody here wrote, on real files."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from harness import (TOP, fingerprint, get, need, put, run, same_trees)

INCLUDE = pathlib.Path("/usr/include")


def file_count(path):
    """Everything but directories; a link to a directory counts whether it dangles or not."""
    return int(run("find", path, "!", "-type", "d", "-printf", ".").stdout.count("."))


def without_times(tree):
    """What must be equal in a copy by cp -a or tar."""
    return {path: {k: v for k, v in info.items() if k not in ("ino", "ctime", "nlink")}
            for path, info in tree.items()}


# ---- first contact -------------------------------------------------------


def test_the_first_ten_commands(d):
    script = """set -e
        mkdir a
        touch a/b
        echo hello > a/b
        ls -la
        ls -la a
        df -h .
        du -sh .
        cp -a a c
        mv c d
        cat d/b
        echo more >> d/b
        head -c 3 d/b
        wc -l < d/b
        ln -s d/b e
        cat e
        grep -r hello .
        find . -type f -name b
        sort d/b | uniq -c
        chmod 600 d/b
        stat d/b
        rm -r a
        test ! -e a
        printf 'x%.0s' 1 2 3 | tee f g > /dev/null
        cmp f g
        dd if=/dev/zero of=h bs=1k count=100 status=none
        truncate -s 5k h
        tail -c 1 h > /dev/null
        install -m 755 f i
        split -b 1k h part-
        cat part-* | cmp - h
        gzip -k h && gunzip -c h.gz | cmp - h
        find . -newer f > /dev/null
        rm -f part-*
    """
    run("sh", "-c", script, cwd=d)


# ---- trees ---------------------------------------------------------------


@pytest.mark.timeout(240)
def test_real_tree(mount):
    """cp -a, diff -r, tar, remount, find, grep, du, rsync over tens of thousands of real files."""
    if not INCLUDE.is_dir():
        pytest.skip("no /usr/include")
    need("rsync", "diff")
    copy_and_compare(mount, [INCLUDE])


def copy_and_compare(mount, sources):
    run("cp", "-a", *sources, mount.mnt)
    for source in sources:
        copy = mount / source.name
        run("diff", "-r", "--no-dereference", source, copy)
        assert file_count(copy) == file_count(source)
    mount.remount()
    for source in sources:
        copy = mount / source.name
        run("diff", "-r", "--no-dereference", source, copy)
        same_trees(without_times(fingerprint(source)), without_times(fingerprint(copy)))
        compare_by_tar(mount, source, copy)
        compare_searches(source, copy)
        rsync_twice(mount, source, copy)
    for source in sources:
        run("rm", "-rf", mount / source.name, mount / f"{source.name}-synced")
    assert os.listdir(mount.mnt) == []


def compare_by_tar(mount, source, copy):
    """What tar reads from the mount is what it reads from the source."""
    listing = "tar -C {} --sort=name --format=posix --pax-option=delete=atime,delete=ctime -cf - {} | sha256sum"
    sums = [subprocess.run(["sh", "-c", listing.format(p.parent, p.name)], check=True,
                           capture_output=True).stdout for p in (source, copy)]
    assert sums[0] == sums[1]
    run("sh", "-c", f"mkdir {mount.base}/out && tar -C {mount.mnt} -cf - {copy.name} | tar -C {mount.base}/out -xf -")
    run("diff", "-r", "--no-dereference", source, mount.base / "out" / copy.name)
    shutil.rmtree(mount.base / "out")


def compare_searches(source, copy):
    for command in ("find . | LC_ALL=C sort", "grep -r -l -F include . | LC_ALL=C sort",
                    "find . -type f -size +100k | LC_ALL=C sort", "find . -type l -printf '%p %l\\n' | LC_ALL=C sort"):
        outputs = [subprocess.run(["sh", "-c", command], cwd=where, check=True,
                                  capture_output=True).stdout for where in (source, copy)]
        assert outputs[0] == outputs[1], command
    apparent = [sum(map(int, run("find", p, "!", "-type", "d", "-printf", "%s\n").stdout.split()))
                for p in (source, copy)]
    assert apparent[0] == apparent[1]
    used = int(run("du", "-s", "--block-size=1", copy).stdout.split()[0])
    assert apparent[1] * 0.5 < used < apparent[1] * 3 + 10_000_000


def rsync_twice(mount, source, copy):
    target = mount / f"{copy.name}-synced"
    run("rsync", "-aHAX", f"{source}/", target)
    again = run("rsync", "-aHAX", "--stats", f"{source}/", target).stdout
    assert int(re.search(r"regular files transferred: ([\d,]+)", again).group(1).replace(",", "")) == 0, again
    assert int(re.search(r"Number of created files: ([\d,]+)", again).group(1).replace(",", "")) == 0, again
    # Inside the mount, and with checksums instead of times.
    assert run("rsync", "-aHAXc", "-ni", f"{copy}/", target).stdout == ""


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_larger_real_tree(mount):
    copy_and_compare(mount, [p for p in (INCLUDE, pathlib.Path("/usr/share/doc")) if p.is_dir()])


def test_rsync_keeps_everything(d, scratch):
    """-aHAX: hard links, attributes, odd times, both into the mount and out of it."""
    need("rsync")
    source = scratch / "src"
    (source / "dir").mkdir(parents=True)
    for i in range(50):
        put(source / f"f{i}", b"%d" % i * i)
        os.utime(source / f"f{i}", ns=(i, 10**18 + i))
    os.link(source / "f1", source / "dir" / "hard")
    os.symlink("../f2", source / "dir" / "sym")
    os.setxattr(source / "f3", "user.color", b"red")
    os.mkfifo(source / "fifo")
    os.chmod(source / "f4", 0o4711)
    for path in (source / "dir" / "sym", source / "dir", source / "fifo", source):
        os.utime(path, ns=(5, 10**17 + 123_456_789), follow_symlinks=False)
    run("rsync", "-aHAX", f"{source}/", d / "in")
    run("rsync", "-aHAX", f"{d}/in/", scratch / "back")
    want = fingerprint(source, full=False)
    same_trees(want, fingerprint(d / "in", full=False))
    same_trees(want, fingerprint(scratch / "back", full=False))
    put(source / "f5", b"changed")
    os.unlink(source / "f6")
    out = run("rsync", "-aHAX", "--delete", "-i", f"{source}/", d / "in").stdout
    assert "f5" in out and "*deleting   f6" in out and "f7" not in out


def test_tar_keeps_everything(d, scratch):
    need("tar")
    source = d / "src"
    (source / "dir").mkdir(parents=True)
    for i in range(200):
        put(source / f"f{i}", b"%d" % i * i)
    os.link(source / "f1", source / "dir" / "hard")
    os.symlink("../f2", source / "dir" / "sym")
    os.setxattr(source / "f3", "user.color", b"red")
    with open(source / "sparse", "wb") as f:
        f.truncate(50 << 20)
        f.seek(30 << 20)
        f.write(b"middle")
    options = ["--xattrs", "--acls", "--sparse"]
    run("tar", "-C", d, *options, "-cf", scratch / "t.tar", "src")
    os.mkdir(d / "out")
    run("tar", "-C", d / "out", *options, "-xpf", scratch / "t.tar")
    drop = ("mtime",)  # ns are not in a GNU archive
    trees = [{p: {k: v for k, v in i.items() if k not in drop} for p, i in fingerprint(t, full=False).items()}
             for t in (source, d / "out" / "src")]
    same_trees(*trees)
    assert run("tar", "-C", d, "-df", scratch / "t.tar", ok=(0, 1)).stdout.count("\n") <= 205


# ---- git -----------------------------------------------------------------


def git(*args, cwd, **kwargs):
    environment = dict(os.environ, GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
                       GIT_COMMITTER_EMAIL="a@b", GIT_CONFIG_NOSYSTEM="1", HOME=str(cwd))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)
    return run("git", "-c", "safe.directory=*", *args, cwd=cwd, env=environment, **kwargs)


@pytest.mark.timeout(150)
def test_git(mount):
    need("git")
    if not (TOP / ".git").exists():
        pytest.skip("this tree is no git repository")
    git("clone", "-q", "--no-local", "--no-hardlinks", TOP, "clone", cwd=mount.mnt)
    clone = mount / "clone"
    git("fsck", "--full", "--strict", cwd=clone)
    assert git("status", "--porcelain", cwd=clone).stdout == ""
    for i in range(20):
        put(clone / f"new{i}", b"%d\n" % i)
        git("add", "-A", cwd=clone)
        git("commit", "-q", "-m", f"commit {i}", cwd=clone)
    git("branch", "other", "HEAD~10", cwd=clone)
    git("worktree", "add", "-q", "../tree", "other", cwd=clone)
    assert (mount / "tree" / "new9").exists() and not (mount / "tree" / "new10").exists()
    git("checkout", "-q", "--detach", "HEAD~15", cwd=clone)
    assert not (clone / "new5").exists()
    git("checkout", "-q", "-", cwd=clone)
    git("gc", "-q", "--aggressive", "--prune=now", cwd=clone)
    git("fsck", "--full", "--strict", cwd=clone)
    git("stash", cwd=clone)
    git("bisect", "start", "HEAD", "HEAD~19", cwd=clone)
    out = git("bisect", "run", "sh", "-c", "test ! -e new13", cwd=clone).stdout
    assert "is the first bad commit" in out and "commit 13" in out
    git("bisect", "reset", cwd=clone)
    mount.remount()
    git("fsck", "--full", "--strict", cwd=clone)
    assert git("status", "--porcelain", cwd=clone).stdout == ""


# ---- builds --------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.long
def test_build_this_project_inside(mount):
    need("make", "gcc", "git")
    git("clone", "-q", TOP, "src", cwd=mount.mnt)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "EMDB", "BUILD", "VARIANT"))}
    run("make", "-j2", "all", cwd=mount / "src", env=environment)
    built = mount / "src" / "build" / "emdbfs"
    assert "usage" in run(built, "-h").stdout.lower()
    assert "" == run("make", "-q", "all", cwd=mount / "src", env=environment, ok=None).stderr


def test_compile_inside(d):
    """A small program by make and cc, rebuilt only when its source changed."""
    need("make", "cc")
    put(d / "Makefile", "all: prog\nprog: a.o b.o\n\tcc -o $@ a.o b.o\n%.o: %.c h.h\n\tcc -c -o $@ $<\n")
    put(d / "h.h", "int b(void);\n")
    put(d / "a.c", '#include "h.h"\n#include <stdio.h>\nint main(void) { printf("%d\\n", b()); return 0; }\n')
    put(d / "b.c", '#include "h.h"\nint b(void) { return 42; }\n')
    run("make", "-s", cwd=d)
    assert run(d / "prog").stdout == "42\n"
    assert run("make", "-q", cwd=d, ok=None).returncode == 0
    future = os.stat(d / "prog").st_mtime_ns + 10**9
    put(d / "b.c", '#include "h.h"\nint b(void) { return 43; }\n')
    os.utime(d / "b.c", ns=(future, future))
    assert run("make", "-q", cwd=d, ok=None).returncode == 1
    run("make", "-s", cwd=d)
    assert run(d / "prog").stdout == "43\n"


# ---- editors and scripts -------------------------------------------------


def test_sed_perl_and_vim_in_place(d):
    put(d / "f", "one\n" * 1000)
    os.chmod(d / "f", 0o640)
    run("sed", "-i", "s/one/two/", d / "f")
    assert get(d / "f") == b"two\n" * 1000 and os.stat(d / "f").st_mode & 0o777 == 0o640
    run("sed", "-i.bak", "s/two/three/", d / "f")
    assert get(d / "f.bak") == b"two\n" * 1000 and get(d / "f") == b"three\n" * 1000
    if shutil.which("perl"):
        run("perl", "-pi", "-e", "s/three/four/", d / "f")
        assert get(d / "f") == b"four\n" * 1000
    if shutil.which("vim"):
        run("vim", "-u", "NONE", "-es", "-c", "%s/.*/five/ | wq", d / "f", timeout=30)
        assert get(d / "f") == b"five\n" * 1000
    assert sorted(os.listdir(d)) == ["f", "f.bak"]


def test_maildir_and_shelve(d):
    """Python's own users of link, rename and dbm."""
    import dbm
    import mailbox
    import tempfile
    box = mailbox.Maildir(d / "mail")
    keys = [box.add(f"Subject: {i}\n\nbody {i}\n") for i in range(100)]
    box.flush()
    assert len(box) == 100 and "body 7" in box.get_string(keys[7])
    box.remove(keys[3])
    assert len(mailbox.Maildir(d / "mail")) == 99
    with dbm.open(str(d / "db"), "c") as db:
        for i in range(500):
            db[str(i)] = str(i * i)
    with dbm.open(str(d / "db"), "r") as db:
        assert all(db[str(i)] == str(i * i).encode() for i in range(500))
    with tempfile.TemporaryDirectory(dir=d) as temp:
        with tempfile.NamedTemporaryFile(dir=temp) as f:
            f.write(b"x")
            f.flush()
            assert os.path.getsize(f.name) == 1
        with tempfile.TemporaryFile(dir=temp) as f:
            f.write(b"y" * 100_000)
            f.seek(0)
            assert f.read() == b"y" * 100_000


def test_compressed_archives(d):
    import zipfile
    with zipfile.ZipFile(d / "z.zip", "w", zipfile.ZIP_DEFLATED) as z:
        for i in range(300):
            z.writestr(f"dir{i % 7}/f{i}", os.urandom(500))
    with zipfile.ZipFile(d / "z.zip") as z:
        assert z.testzip() is None
        z.extractall(d / "out")
    assert file_count(d / "out") == 300


@pytest.mark.long
def test_npm(mount):
    """Installs a package that is made here, so without the network: links, bins, nested trees."""
    need("npm")
    (mount / "pkg" / "lib").mkdir(parents=True)
    for i in range(500):
        put(mount / "pkg" / "lib" / f"m{i}.js", f"module.exports = {i};\n")
    put(mount / "pkg" / "cli.js", "#!/usr/bin/env node\nconsole.log(require('./lib/m7.js'));\n")
    put(mount / "pkg" / "package.json", '{"name":"pkg","version":"1.0.0","bin":{"pkg":"cli.js"}}')
    environment = dict(os.environ, HOME=str(mount.mnt), npm_config_cache=str(mount / ".npm"),
                       npm_config_offline="true", npm_config_audit="false", npm_config_fund="false")
    run("npm", "pack", "--silent", cwd=mount / "pkg", env=environment)
    (mount / "app").mkdir()
    put(mount / "app" / "package.json", '{"name":"app","version":"1.0.0"}')
    run("npm", "install", "../pkg/pkg-1.0.0.tgz", cwd=mount / "app", env=environment, timeout=120)
    assert run(mount / "app" / "node_modules" / ".bin" / "pkg").stdout == "7\n"


@pytest.mark.long
@pytest.mark.parametrize("module", ["test_os", "test_shutil", "test_tempfile", "test_mailbox", "test_mmap",
                                    "test_zipfile", "test_sqlite3", "test_posix", "test_glob", "test_pathlib",
                                    "test_largefile", "test_fileio", "test_file", "test_dbm", "test_tarfile"])
def test_pythons_own_tests(mount, module):
    """With the mount as temporary and working directory; what fails natively is skipped."""
    for python in (sys.executable, shutil.which("python3")):
        if python and subprocess.run([python, "-c", f"import test.support, test.{module}"],
                                     capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip(f"no python with test.{module}")
    (mount / "tmp").mkdir()
    command = [python, "-m", "test", "--tempdir", str(mount / "tmp"), module]
    done = subprocess.run(command, cwd=mount / "tmp", env=dict(os.environ, TMPDIR=str(mount / "tmp")),
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        native = mount.base / "native"
        native.mkdir()
        command[4] = str(native)
        if subprocess.run(command, cwd=native, env=dict(os.environ, TMPDIR=str(native)), capture_output=True,
                          check=False, stdin=subprocess.DEVNULL).returncode != 0:
            pytest.skip("fails on the native file system too")
        pytest.fail(done.stdout[-6000:] + done.stderr[-3000:])
