# SPDX-License-Identifier: Apache-2.0
"""What the integration tests share: mounts, other users, system calls that
Python does not wrap, and fingerprints of trees."""

import contextlib
import ctypes
import errno
import hashlib
import os
import pathlib
import pickle
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
TEMP_PREFIX = "emdb-it-"

libc = ctypes.CDLL(None, use_errno=True)

# ---- Binaries ------------------------------------------------------------


def build_dir():
    """Where the programs under test are: EMDB_BIN or EMDB_BUILD, else build/ of this tree."""
    where = os.environ.get("EMDB_BIN") or os.environ.get("EMDB_BUILD") or "build"
    return (TOP / where).resolve()


def binary(name):
    for where in (".", "bin", "release"):
        path = build_dir() / where / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def libfuse_version(native=False):
    """(major, minor) of the libfuse that the daemon uses; a native run has everything."""
    if native:
        return (99, 0)
    found = re.search(r"libfuse (\d+)\.(\d+)", run(binary("emdbfs"), "-V").stdout)
    return int(found.group(1)), int(found.group(2))


def need(*programs):
    """Skips the test unless every program is installed."""
    for name in programs:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def run(*args, ok=(0,), **kwargs):
    """Runs a program and returns it finished; fails with its output when it did not succeed."""
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run([os.fspath(a) for a in args], text=True, errors="replace", **kwargs)
    if ok is not None and done.returncode not in ok:
        out = (done.stdout or "")[-4000:] + (done.stderr or "")[-4000:]
        pytest.fail(f"{' '.join(map(str, args))}: exit {done.returncode}\n{out}")
    return done


def reads_the_files():
    """At the top of tests that look into the files of a store themselves."""
    if ENCRYPTED:
        pytest.skip("the store is encrypted: its files tell nothing")


# ---- Mounts --------------------------------------------------------------

ENCRYPTED = False  # new stores of mounts are
ALIVE = []  # mounts with a running daemon, for the watchdog and failure reports

# A daemon that says one of these is broken, whatever its exit code.
SUSPICIOUS = re.compile(
    r"Sanitizer|runtime error:|[Aa]ssertion|double free|corrupted size|stack smashing|"
    r"Segmentation|buffer overflow detected"
)


def scratch_dir(name="x"):
    """A fresh directory that other users can walk through."""
    base = pathlib.Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-{name[:40]}-"))
    base.chmod(0o755)
    return base


def is_mounted(path):
    """True for live and dead mounts alike; looks at no file system."""
    want = os.path.realpath(os.path.dirname(path)) + "/" + os.path.basename(path)
    with open("/proc/self/mounts", "rb") as f:
        for line in f:
            point = line.split()[1].decode("unicode_escape").encode("latin-1").decode(errors="replace")
            if point == want:
                return True
    return False


def clean_dead_mounts():
    """Removes mounts that a killed earlier run left behind."""
    with open("/proc/self/mounts") as f:
        points = [line.split()[1] for line in f]
    for point in reversed(points):
        found = re.search(rf"/{TEMP_PREFIX}(\d+)-", point)
        if found and not os.path.exists(f"/proc/{found.group(1)}"):
            subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL, check=False)


def remove_tree(path):
    """Deletes a scratch directory, never through a mount."""
    path = pathlib.Path(path)
    if os.environ.get("EMDB_KEEP"):
        return
    # A daemon in the background goes on writing for a moment after its mount is gone.
    for _ in range(100):
        with open("/proc/self/mounts") as f:
            if any(line.split()[1].startswith(f"{path}/") for line in f):
                return
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)


class Mount:
    """One store and where it is mounted.

    native=True stands in a plain directory instead, which is how the tests
    themselves are checked: what they assert must hold on the host's own file
    system too.
    """

    def __init__(self, base, options=(), store=None, native=False):
        self.base = pathlib.Path(base)
        self.store = pathlib.Path(store) if store else self.base / "store"
        self.mnt = self.base / "mnt"
        self.log = self.base / "log"
        self.options = list(options)
        self.native = native
        self.proc = None
        self.mnt.mkdir(exist_ok=True)
        self.log.touch()

    def __truediv__(self, name):
        return self.mnt / name

    def command(self, options, foreground=True):
        program = binary("emdbfs")
        if program is None:
            pytest.skip(f"no emdbfs in {build_dir()}")
        args = [program, str(self.store), str(self.mnt)]
        if ENCRYPTED and not (self.store / "superblock").exists() and "ro" not in options:
            options = [*options, "encrypt"]
        if foreground:
            args.append("-f")
        if options:
            args += ["-o", ",".join(options)]
        # exec keeps the pid; the daemon ends with us even when we are killed.
        if foreground and shutil.which("setpriv"):
            args = ["setpriv", "--pdeathsig", "TERM", *args]
        return args

    def start(self, options=None, timeout=30):
        """Mounts; returns when the mount answers."""
        if options is not None:
            self.options = list(options)
        if self.native:
            return self
        assert self.proc is None, "already mounted"
        outside = os.stat(self.mnt).st_dev
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(
                self.command(self.options), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        ALIVE.append(self)
        end = time.monotonic() + timeout
        while os.stat(self.mnt).st_dev == outside:
            if self.proc.poll() is not None:
                code = self.proc.returncode
                self._forget()
                pytest.fail(f"emdbfs ended with {code} before it was ready\n{self.tail()}")
            if time.monotonic() > end:
                self.kill9()
                pytest.fail(f"not mounted after {timeout} s\n{self.tail()}")
            time.sleep(0.005)
        return self

    def _forget(self):
        self.proc = None
        if self in ALIVE:
            ALIVE.remove(self)

    def alive(self):
        return self.native or (self.proc is not None and self.proc.poll() is None)

    def stop(self, lazy=False, timeout=60):
        """Unmounts and waits for the daemon; it must end well."""
        if self.native or self.proc is None:
            return
        for attempt in range(40):
            done = subprocess.run(["fusermount3", "-u", str(self.mnt)], text=True,
                                  stderr=subprocess.PIPE, check=False)
            if done.returncode == 0 or not is_mounted(str(self.mnt)):
                break
            if lazy and attempt >= 5:
                subprocess.run(["fusermount3", "-u", "-z", str(self.mnt)], check=False)
                break
            time.sleep(0.05)
        else:
            why = done.stderr
            self.kill9()
            pytest.fail(f"cannot unmount: {why}")
        try:
            code = self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            stacks = self.stacks()
            self.kill9()
            pytest.fail(f"emdbfs did not end {timeout} s after unmounting\n{stacks}\n{self.tail()}")
        self._forget()
        said = self.tail(1 << 20)
        if code != 0 or SUSPICIOUS.search(said):
            pytest.fail(f"emdbfs ended with {code}\n{said[-8000:]}")

    def die(self):
        """The daemon dies at once and leaves its mount dead."""
        if self.native:
            pytest.skip("there is no daemon to kill")
        self.proc.kill()
        try:
            self.proc.wait(20)
        except subprocess.TimeoutExpired:
            # A thread in it waits for its own file system; this ends the connection.
            subprocess.run(["umount", "-f", str(self.mnt)], check=False)
            self.proc.wait(20)
            self._forget()
            pytest.fail("emdbfs cannot be killed")
        self._forget()

    def kill9(self):
        """The daemon dies at once; the dead mount is cleaned."""
        if self.native:
            pytest.skip("there is no daemon to kill")
        if self.proc is not None:
            self.die()
        if is_mounted(str(self.mnt)):
            subprocess.run(["fusermount3", "-u", "-z", str(self.mnt)], check=False)
            if is_mounted(str(self.mnt)):
                subprocess.run(["umount", "-l", str(self.mnt)], check=False)

    def remount(self, options=None):
        self.stop()
        return self.start(options)

    def let_go(self):
        """Redirects what a failed test left open here, so that unmounting need not wait for it."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(f"{self.mnt}/"):
                    os.dup2(null, int(name), inheritable=False)
        os.close(null)

    def dispose(self):
        """At the end of a test, whatever happened in it."""
        try:
            self.let_go()
            if self.proc is not None and self.proc.poll() is not None:
                code = self.proc.returncode
                self.kill9()
                pytest.fail(f"emdbfs died with {code}\n{self.tail()}")
            self.stop(lazy=True)
        finally:
            if not self.native and (self.proc is not None or is_mounted(str(self.mnt))):
                self.kill9()

    def tail(self, size=8000):
        data = self.log.read_bytes()
        return data[-size:].decode(errors="replace")

    def stacks(self):
        """Where the daemon's threads are, for a report about a hang."""
        if self.proc is None or shutil.which("gdb") is None:
            return "(no stacks)"
        try:
            return subprocess.run(
                ["gdb", "-p", str(self.proc.pid), "-batch", "-ex", "thread apply all bt"],
                text=True, capture_output=True, timeout=30, check=False).stdout[-12000:]
        except subprocess.TimeoutExpired:
            return "(gdb hangs)"


# ---- Expectations --------------------------------------------------------


@contextlib.contextmanager
def fails(*codes):
    """The block must fail with one of these errno values."""
    names = "/".join(errno.errorcode[c] for c in codes)
    try:
        yield
    except OSError as err:
        got = errno.errorcode.get(err.errno, err.errno)
        assert err.errno in codes, f"errno {got}, not {names}: {err}"
        return
    pytest.fail(f"succeeded, not {names}")


def wait_until(check, timeout, step=0.01):
    end = time.monotonic() + timeout
    while True:
        if check():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(step)


def as_user(uid, gid, function, groups=(), umask=None):
    """Calls function in a child that runs as that user; its result or exception comes back."""
    if os.getuid() != 0:
        pytest.skip("needs root to become other users")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            if umask is not None:
                os.umask(umask)
            answer = (True, function())
        except BaseException as err:  # the parent raises it
            answer = (False, err)
        try:
            data = pickle.dumps(answer)
        except Exception as err:
            data = pickle.dumps((False, RuntimeError(f"{answer!r}: {err}")))
        with os.fdopen(writer, "wb") as f:
            f.write(data)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as f:
        data = f.read()
    os.waitpid(pid, 0)
    good, value = pickle.loads(data)
    if good:
        return value
    if isinstance(value, OSError) or not isinstance(value, BaseException):
        raise value
    raise AssertionError(f"in the child: {value!r}")


# ---- System calls --------------------------------------------------------

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2
FALLOC_COLLAPSE, FALLOC_ZERO_RANGE, FALLOC_INSERT = 8, 16, 32


def _check(result, *names):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *names)
    return result


def renameat2(old, new, flags):
    _check(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags),
           os.fsdecode(old))


def link_descriptor(fd, path):
    """Gives an open file a name, as programs do with O_TMPFILE."""
    _check(libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, os.fsencode(path), 0x400))


def fallocate(fd, mode, offset, length):
    _check(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def syncfs(fd):
    _check(libc.syncfs(fd))


class Dir:
    """opendir(3) and friends."""

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.opendir.restype = ctypes.c_void_p
    _libc.readdir64.restype = ctypes.c_void_p
    _libc.telldir.restype = ctypes.c_long

    def __init__(self, path):
        self.handle = self._libc.opendir(os.fsencode(path))
        if not self.handle:
            _check(-1, os.fsdecode(path))

    def read(self):
        """(name, d_type, d_ino), or None at the end."""
        ctypes.set_errno(0)
        entry = self._libc.readdir64(ctypes.c_void_p(self.handle))
        if not entry:
            if ctypes.get_errno():
                _check(-1)
            return None
        ino, _, length, kind = struct.unpack("=QqHB", ctypes.string_at(entry, 19))
        name = ctypes.string_at(entry + 19, length - 19).split(b"\0")[0]
        return name, kind, ino

    def tell(self):
        return self._libc.telldir(ctypes.c_void_p(self.handle))

    def seek(self, position):
        self._libc.seekdir(ctypes.c_void_p(self.handle), ctypes.c_long(position))

    def rewind(self):
        self._libc.rewinddir(ctypes.c_void_p(self.handle))

    def close(self):
        if self.handle:
            self._libc.closedir(ctypes.c_void_p(self.handle))
            self.handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE = 0x40, 0x80, 0x100
IN_DELETE, IN_DELETE_SELF = 0x200, 0x400


class Inotify:
    def __init__(self):
        self.fd = _check(libc.inotify_init1(os.O_CLOEXEC))

    def watch(self, path, mask):
        return _check(libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def events(self, timeout):
        """What came within timeout seconds, at least one if any comes: [(mask, name)]."""
        found = []
        end = time.monotonic() + timeout
        while not found:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                break
            data = os.read(self.fd, 65536)
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                found.append((mask, data[16:16 + length].rstrip(b"\0")))
                data = data[16 + length:]
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


def birth_time(path):
    """stx_btime in ns, or None where the file system has none."""
    buf = ctypes.create_string_buffer(256)
    _check(libc.statx(AT_FDCWD, os.fsencode(path), 0x100, 0x800, buf), os.fsdecode(path))
    mask, = struct.unpack_from("I", buf.raw, 0)
    if not mask & 0x800:
        return None
    seconds, nanoseconds = struct.unpack_from("qI", buf.raw, 80)
    return seconds * 10**9 + nanoseconds


# ---- Files ---------------------------------------------------------------


def sha(data):
    return hashlib.sha256(data).hexdigest()


def put(path, data=b""):
    """Creates or replaces a file; returns the path."""
    if isinstance(data, str):
        data = data.encode()
    with open(path, "wb", buffering=0) as f:
        rest = memoryview(data)
        while rest:
            rest = rest[f.write(rest):]
    return path


def get(path):
    with open(path, "rb") as f:
        return f.read()


def xattrs(path, skip=()):
    names = os.listxattr(path, follow_symlinks=False)
    return {n: os.getxattr(path, n, follow_symlinks=False) for n in names if n not in skip}


def describe(path, full=True):
    """Everything about one file that must survive; full adds identity and ctime."""
    st = os.lstat(path)
    info = {"mode": st.st_mode, "uid": st.st_uid, "gid": st.st_gid, "mtime": st.st_mtime_ns,
            "rdev": st.st_rdev}
    if not stat.S_ISDIR(st.st_mode):
        info["nlink"] = st.st_nlink
        info["size"] = st.st_size
    if stat.S_ISREG(st.st_mode):
        digest = hashlib.sha256()
        with open(path, "rb") as f:
            while chunk := f.read(1 << 20):
                digest.update(chunk)
        info["data"] = digest.hexdigest()
    elif stat.S_ISLNK(st.st_mode):
        info["target"] = os.readlink(path)
    if not stat.S_ISLNK(st.st_mode):
        info["xattrs"] = xattrs(path)
    if full:
        info["ino"] = st.st_ino
        info["ctime"] = st.st_ctime_ns
    return info


def fingerprint(root, full=True):
    """path -> describe() of everything below root, and root itself."""
    root = os.fsencode(root)
    found = {b".": describe(root, full)}
    for where, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(where, name)
            found[os.path.relpath(path, root)] = describe(path, full)
    return found


def same_trees(before, after):
    """Fails with what differs between two fingerprints."""
    missing = sorted(before.keys() - after.keys())
    extra = sorted(after.keys() - before.keys())
    assert not missing and not extra, f"missing {missing[:10]}, extra {extra[:10]}"
    for path, info in before.items():
        changed = {k: (v, after[path].get(k)) for k, v in info.items() if after[path].get(k) != v}
        assert not changed, f"{path}: {changed}"


def compile_c(source, output, *flags):
    """Builds one C file of this directory with cc."""
    need("cc")
    run("cc", "-O2", "-g", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-o", output,
        HERE / source, "-lpthread", *flags)
    return output


def kill_group(proc):
    """Ends a child started with start_new_session=True, and waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(proc.pid, signal.SIGKILL)
    proc.wait()
