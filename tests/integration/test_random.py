# SPDX-License-Identifier: Apache-2.0
"""Random operations on a tree, done on the mount and on the host's file system: same answers."""

import errno
import os
import stat
import struct
import threading

import pytest

from harness import (RENAME_EXCHANGE, RENAME_NOREPLACE, fingerprint, get, put, remove_tree, renameat2,
                     scratch_dir)

NAMES = ["a", "b", "c", "d", "e"]
ACLS = ["system.posix_acl_access", "system.posix_acl_default"]
# Tag, whose, how often.
ACL_ENTRIES = [(1, 0xFFFFFFFF, 0.98), (2, 1000, 0.5), (2, 1001, 0.2), (4, 0xFFFFFFFF, 0.98), (8, 1000, 0.3),
               (16, 0xFFFFFFFF, 0.8), (32, 0xFFFFFFFF, 0.98)]
STEPS = ("create create create write append mkdir mkdir unlink rmdir rename rename rename2 link symlink truncate chmod "
         "chown xattr unxattr acl acl unacl stat list read readlink open fd close fifo utime").split()


def clean(info):
    """What both file systems must agree on."""
    return {k: v for k, v in info.items() if k in ("mode", "uid", "gid", "nlink", "size", "data", "target",
                                                   "xattrs", "rdev")}


class Pair:
    """The same relative operation on both; they must succeed or fail alike."""

    def __init__(self, one, two, rng, steps=STEPS):
        self.roots = (one, two)
        self.rng = rng
        self.count = 0
        self.fds = []  # pairs of open descriptors
        self.history = []
        self.steps = steps

    def both(self, what, action):
        self.count += 1
        results = []
        for side, root in enumerate(self.roots):
            try:
                results.append(("ok", action(root, side)))
            except OSError as err:
                results.append(("errno", errno.errorcode.get(err.errno, err.errno)))
        self.history = self.history[-30:] + [f"{self.count} {what}: {results[0]}"]
        assert results[0] == results[1], (
            f"{what}: mount {results[0]}, native {results[1]}; before:\n" + "\n".join(self.history))
        return results[0]

    def path(self):
        return "/".join(self.rng.choice(NAMES) for _ in range(self.rng.choice([1, 1, 2, 2, 3])))

    def data(self):
        return self.rng.randbytes(self.rng.choice([0, 1, 100, 4096, 9000, 70_000]))

    def step(self):
        choice = self.rng.choice(self.steps)
        getattr(self, "do_" + choice)()

    def do_create(self):
        p, data = self.path(), self.data()
        self.both(f"create {p} {len(data)}", lambda r, _: put(r / p, data) and None)

    def do_write(self):
        p, data, at = self.path(), self.data(), self.rng.randrange(50_000)

        def write(root, _):
            fd = os.open(root / p, os.O_WRONLY)
            try:
                return os.pwrite(fd, data, at)
            finally:
                os.close(fd)

        self.both(f"write {p} {at}+{len(data)}", write)

    def do_append(self):
        p, data = self.path(), self.data()

        def append(root, _):
            fd = os.open(root / p, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                return os.write(fd, data)
            finally:
                os.close(fd)

        self.both(f"append {p} {len(data)}", append)

    def do_mkdir(self):
        p = self.path()
        self.both(f"mkdir {p}", lambda r, _: os.mkdir(r / p))

    def do_fifo(self):
        p = self.path()
        if not any(os.path.lexists(r / p) for r in self.roots):
            self.both(f"mkfifo {p}", lambda r, _: os.mkfifo(r / (p + ".fifo")))

    def do_unlink(self):
        p = self.path()
        self.both(f"unlink {p}", lambda r, _: os.unlink(r / p))

    def do_rmdir(self):
        p = self.path()
        self.both(f"rmdir {p}", lambda r, _: os.rmdir(r / p))

    def do_rename(self):
        p, q = self.path(), self.path()
        self.both(f"rename {p} {q}", lambda r, _: os.rename(r / p, r / q))

    def do_rename2(self):
        p, q = self.path(), self.path()
        flag = self.rng.choice([RENAME_NOREPLACE, RENAME_EXCHANGE])
        self.both(f"renameat2 {p} {q} {flag}", lambda r, _: renameat2(r / p, r / q, flag))

    def do_link(self):
        p, q = self.path(), self.path()
        self.both(f"link {p} {q}", lambda r, _: os.link(r / p, r / q, follow_symlinks=False))

    def do_symlink(self):
        p, q = self.rng.choice(NAMES + ["nowhere", "x" * 300]), self.path()
        self.both(f"symlink {p} {q}", lambda r, _: os.symlink(p, r / q))

    def do_truncate(self):
        p, size = self.path(), self.rng.choice([0, 1, 5000, 20_000, 200_000])
        self.both(f"truncate {p} {size}", lambda r, _: os.truncate(r / p, size))

    def do_chmod(self):
        p, mode = self.path(), self.rng.choice([0o600, 0o644, 0o755, 0o700, 0o1777, 0o2755])
        self.both(f"chmod {p} {mode:o}", lambda r, _: os.chmod(r / p, mode))

    def do_utime(self):
        p, when = self.path(), self.rng.randrange(10**18)

        def utime(root, _):
            os.utime(root / p, ns=(when, when), follow_symlinks=False)
            return os.lstat(root / p).st_mtime_ns

        self.both(f"utime {p}", utime)

    def do_xattr(self):
        p, name, value = self.path(), self.rng.choice("xyz"), self.rng.randbytes(self.rng.randrange(200))
        flags = self.rng.choice([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
        self.both(f"setxattr {p} {name}", lambda r, _: os.setxattr(r / p, f"user.{name}", value, flags))

    def do_unxattr(self):
        p, name = self.path(), self.rng.choice("xyz")
        self.both(f"removexattr {p} {name}", lambda r, _: os.removexattr(r / p, f"user.{name}"))

    def do_chown(self):
        p, uid, gid = self.path(), self.rng.choice([-1, 0, 1000]), self.rng.choice([-1, 0, 1000])
        self.both(f"chown {p} {uid} {gid}", lambda r, _: os.chown(r / p, uid, gid))

    def do_acl(self):
        """A list of any kind, with or without names, now and then an invalid one."""
        p, name = self.path(), self.rng.choice(ACLS)
        entries = [(tag, self.rng.randrange(8), who) for tag, who, likely in ACL_ENTRIES
                   if self.rng.random() < likely]
        value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        self.both(f"setxattr {p} {name} {entries}", lambda r, _: os.setxattr(r / p, name, value))

    def do_unacl(self):
        p, name = self.path(), self.rng.choice(ACLS)
        self.both(f"removexattr {p} {name}", lambda r, _: os.removexattr(r / p, name))

    def do_stat(self):
        p = self.path()

        def look(root, _):
            st = os.lstat(root / p)
            kind = stat.S_IFMT(st.st_mode)
            return (st.st_mode, st.st_uid, st.st_nlink if kind != stat.S_IFDIR else 0,
                    st.st_size if kind != stat.S_IFDIR else 0)

        self.both(f"lstat {p}", look)

    def do_list(self):
        p = self.path()
        self.both(f"listdir {p}", lambda r, _: sorted(os.listdir(r / p)))

    def do_read(self):
        p = self.path()
        self.both(f"read {p}", lambda r, _: get(r / p))

    def do_readlink(self):
        p = self.path()
        self.both(f"readlink {p}", lambda r, _: os.readlink(r / p))

    def do_open(self):
        if len(self.fds) > 8:
            return
        p, flags = self.path(), self.rng.choice([os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL,
                                                 os.O_RDWR | os.O_TRUNC])
        opened = [None, None]

        def do(root, side):
            opened[side] = os.open(root / p, flags, 0o644)

        self.both(f"open {p} {flags:o}", do)
        if opened[0] is not None:
            self.fds.append(opened)

    def do_fd(self):
        """On open files, whose names may be gone: everything again."""
        if not self.fds:
            return
        fds, data, at = self.rng.choice(self.fds), self.data(), self.rng.randrange(50_000)
        kind = self.rng.choice(["write", "read", "truncate", "stat", "chmod", "fsync"])
        actions = {
            "write": lambda fd: os.pwrite(fd, data, at),
            "read": lambda fd: os.pread(fd, 70_000, at),
            "truncate": lambda fd: os.ftruncate(fd, at),
            "stat": lambda fd: (os.fstat(fd).st_size, os.fstat(fd).st_nlink, os.fstat(fd).st_mode),
            "chmod": lambda fd: os.fchmod(fd, 0o640),
            "fsync": os.fsync,
        }
        self.both(f"f{kind} {at}", lambda r, side: actions[kind](fds[side]))

    def do_close(self):
        if self.fds:
            for fd in self.fds.pop(self.rng.randrange(len(self.fds))):
                os.close(fd)

    def close_all(self):
        while self.fds:
            self.do_close()

    def compare(self):
        trees = [{p: clean(i) for p, i in fingerprint(root, full=False).items() if p != b"."} for root in self.roots]
        for name in sorted(trees[0].keys() | trees[1].keys()):
            assert trees[0].get(name) == trees[1].get(name), (
                f"{name}: mount {trees[0].get(name)}, native {trees[1].get(name)}; before:\n" + "\n".join(self.history))


@pytest.fixture
def native_twin(request):
    base = scratch_dir("twin")
    (base / "n").mkdir()
    yield base / "n"
    remove_tree(base)


def compare_for(mount, twin, rng, rounds, steps):
    root = mount / "tree"
    root.mkdir()
    pair = Pair(root, twin, rng)
    for round_ in range(rounds):
        for _ in range(steps):
            pair.step()
        pair.compare()
        pair.close_all()
        if round_ % 2 or mount.native:
            mount.remount()
        else:
            mount.kill9()
            mount.start()
        pair.compare()
    print(f"{pair.count} operations")


def test_same_answers_as_the_host(mount, native_twin, rng):
    compare_for(mount, native_twin, rng, 4, 1500)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_same_answers_as_the_host_for_long(mount, native_twin, rng):
    compare_for(mount, native_twin, rng, 60, 10_000)


def test_many_threads_at_once(mount, rng):
    """No answers to compare with, but it must stay alive, consistent, and the same after a kill."""
    seeds = [rng.randrange(1 << 30) for _ in range(6)]
    errors = []
    allowed = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.ELOOP,
               errno.EPERM, errno.EACCES, errno.ENODATA, errno.ENXIO, errno.ETXTBSY, errno.EBUSY, errno.ENAMETOOLONG}

    def work(seed):
        import random
        mine = random.Random(seed)
        pair = Pair(mount.mnt, mount.mnt, mine, [s for s in STEPS if s not in ("open", "fd", "close")])

        def one(what, action):
            try:
                action(mount.mnt, 0)
            except OSError as err:
                if err.errno not in allowed:
                    errors.append((what, err))

        pair.both = one
        for _ in range(500):
            pair.step()
            p = mount / pair.path()
            if not stat.S_ISFIFO(getattr(_lstat(p), "st_mode", 0)):
                one("put", lambda r, _, p=p: put(p, mine.randbytes(5000)))

    threads = [threading.Thread(target=work, args=(s,)) for s in seeds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
    before = fingerprint(mount.mnt)
    if mount.native:
        return
    mount.kill9()
    mount.start()
    after = fingerprint(mount.mnt)
    for name in before.keys() | after.keys():
        assert before.get(name) == after.get(name), name


def _lstat(path):
    try:
        return os.lstat(path)
    except OSError:
        return None
