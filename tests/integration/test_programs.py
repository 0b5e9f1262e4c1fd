# SPDX-License-Identifier: Apache-2.0
"""Larger programs that nobody here wrote: PostgreSQL, fio, stress-ng, dbench, npm from its registry.

What they need is not among the packages that `make deps-test` installs; a test whose program is missing says how to get
it. Each prints its counts and rates, for `pytest -s`.
"""

import contextlib
import glob
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import fingerprint, put, run, same_trees, wait_until

pytestmark = pytest.mark.long


def need_package(package, *programs):
    """Skips the test unless every program of a Debian package is installed."""
    for name in programs:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: apt-get install {package}")


# ---- PostgreSQL ----------------------------------------------------------


class Postgres:
    """A server whose data directory and socket are in a directory on the mount."""

    def __init__(self, home):
        places = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            places = []
        if not places:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        self.bin = pathlib.Path(places[-1])
        self.home = home
        self.data = home / "data"
        self.server = None
        home.mkdir(mode=0o700)
        os.chown(home, user.pw_uid, user.pw_gid)
        self.as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self.environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C", "HOME": "/",
                            "PGHOST": str(home), "PGUSER": "postgres"}

    def command(self, *args):
        return [*self.as_user, self.bin / args[0], *args[1:]]

    def run(self, *args, **kwargs):
        return run(*self.command(*args), env=self.environment, cwd="/", **kwargs)

    def sql(self, text, database="bank"):
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text).stdout.strip()

    def start(self, log):
        with open(log, "ab") as out:
            self.server = subprocess.Popen(
                list(map(str, self.command("postgres", "-D", self.data, "-k", self.home, "-c", "listen_addresses=",
                                           "-c", "restart_after_crash=off"))),
                env=self.environment, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        said = "PostgreSQL is not ready after 60 s:\n"
        assert wait_until(lambda: self.server.poll() is not None or self.run(
            "pg_isready", "-q", ok=None).returncode == 0, 60, 0.1), said + log.read_text()[-3000:]
        assert self.server.poll() is None, log.read_text()[-3000:]

    def stop(self):
        self.server.send_signal(signal.SIGINT)  # fast: ends sessions, writes a checkpoint
        assert self.server.wait(60) == 0
        self.server = None

    def kill9(self):
        """The server and all its processes, at once."""
        if self.server is None:
            return
        pids = [self.server.pid, *children(self.server.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait()
        self.server = None
        assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 20)

    def sound(self, atleast):
        """Balanced books, every acknowledged transaction there, intact heaps and indexes."""
        sums = self.sql("select (select sum(abalance) from pgbench_accounts), "
                        "(select sum(bbalance) from pgbench_branches), "
                        "(select sum(tbalance) from pgbench_tellers), "
                        "(select coalesce(sum(delta), 0) from pgbench_history)").split("|")
        assert len(set(sums)) == 1, sums
        done = int(self.sql("select count(*) from pgbench_history"))
        assert done >= atleast, f"{atleast} transactions were acknowledged, {done} are there"
        assert int(self.sql("select count(*) from pgbench_accounts")) == 200_000
        self.run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check")
        return done

    def checksums(self):
        out = self.run("pg_checksums", "--check", "-D", self.data).stdout
        assert re.search(r"Bad checksums: *0$", out, re.M), out
        return int(re.search(r"Blocks scanned: *(\d+)", out).group(1))


def children(pid):
    found = []
    for stat in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(stat) as f:
            text = f.read()
            if int(text[text.rindex(")") + 2:].split()[1]) == pid:
                found.append(int(text.split()[0]))
    return found


def load(pg, scratch, seconds):
    """pgbench, running, and the directory with its logs of acknowledged transactions."""
    logs = scratch / f"pgbench-{time.monotonic_ns()}"
    logs.mkdir()
    logs.chmod(0o777)
    return subprocess.Popen(list(map(str, pg.command("pgbench", "-n", "-c", "4", "-j", "2", "-T", seconds, "-l",
                                                     f"--log-prefix={logs}/t", "bank"))),
                            env=pg.environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True), logs


def acknowledged(logs):
    """Whole lines only: a server that dies cuts no line, but pgbench's buffer ends anywhere."""
    return sum(path.read_bytes().count(b"\n") for path in logs.iterdir())


@pytest.mark.timeout(600)
def test_postgresql(make_mount, scratch):
    """initdb, pgbench, a kill of the server, a remount and a kill of the daemon, each under load."""
    if os.getuid() != 0:
        pytest.skip("needs root to become the user postgres")
    need_package("util-linux", "setpriv")
    mount = make_mount(["allow_other"])
    log = scratch / "server.log"
    log.touch()
    pg = Postgres(mount / "pg")
    try:
        pg.run("initdb", "-D", pg.data, "--data-checksums", "-A", "trust", "-U", "postgres")
        pg.start(log)
        pg.sql("create database bank", "postgres")
        pg.run("pgbench", "-i", "-q", "-s", "2", "bank")
        total = bench(pg, scratch, 20)
        total = crash(pg, scratch, total, pg.kill9)
        pg.start(log)
        total = report("after kill -9 of the server", pg.sound(total))
        pg.stop()
        print(f"pg_checksums: {pg.checksums()} blocks, none bad")
        mount.remount()
        print(f"pg_checksums after a remount: {pg.checksums()} blocks, none bad")
        pg.start(log)
        pg.sound(total)
        if not mount.native:
            total = crash(pg, scratch, total, mount.die)
            pg.kill9()
            mount.kill9()
            mount.start()
            pg.start(log)
            total = report("after kill -9 of the daemon", pg.sound(total))
        pg.sql("vacuum full")
        pg.sound(total)
        pg.stop()
        print(f"pg_checksums at the end: {pg.checksums()} blocks, none bad")
    finally:
        pg.kill9()


def report(what, transactions):
    print(f"{what}: {transactions} transactions, amcheck and sums good")
    return transactions


def bench(pg, scratch, seconds):
    proc, logs = load(pg, scratch, seconds)
    out = proc.communicate()[0]
    assert proc.returncode == 0, out
    rate = re.search(r"tps = ([\d.]+)", out).group(1)
    done = pg.sound(acknowledged(logs))
    print(f"pgbench -s 2 -c 4 -T {seconds}: {done} transactions, {rate}/s")
    return done


def crash(pg, scratch, total, kill):
    """Load until the kill; how many transactions must be there afterwards."""
    proc, logs = load(pg, scratch, 60)
    try:
        time.sleep(4)
        kill()
        proc.communicate(timeout=70)
    finally:
        if proc.poll() is None:
            proc.kill()
            proc.wait()
    done = acknowledged(logs)
    assert done > 0
    return total + done


# ---- fio -----------------------------------------------------------------

FIO = {
    "psync": ["--ioengine=psync", "--bs=4k"],
    "uneven": ["--ioengine=psync", "--bssplit=512/20:1k/20:4k/30:24k/20:128k/10"],
    "libaio-direct": ["--ioengine=libaio", "--iodepth=16", "--direct=1", "--bs=16k"],
    "io_uring": ["--ioengine=io_uring", "--iodepth=16", "--bs=8k"],
    "mmap": ["--ioengine=mmap", "--bs=4k"],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", FIO)
def test_fio_verify(mount, kind):
    """64 MiB of random writes in each of two files, every block with its CRC, read at once and after a remount."""
    need_package("fio", "fio")
    where = mount / "fio"
    where.mkdir()
    common = ["fio", "--name=job", f"--directory={where}", "--numjobs=2", "--size=64m", "--rw=randwrite",
              "--randrepeat=1", "--randseed=7", "--verify=crc32c", "--verify_fatal=1", "--fallocate=none",
              "--output-format=json", "--group_reporting", *FIO[kind]]
    done = run(*common, "--do_verify=1", cwd=mount.base, ok=None)
    text = done.stdout + done.stderr
    if done.returncode != 0 and re.search(r"engine .* not loadable|[Oo]peration not permitted|ENOSYS", text):
        pytest.skip(f"no {kind} here: {text[-300:]}")
    assert done.returncode == 0, text[-4000:]
    job, = json.loads(done.stdout[done.stdout.index("{"):])["jobs"]
    assert job["error"] == 0 and job["read"]["total_ios"] >= job["write"]["total_ios"] > 0
    print(f"fio {kind}: {job['write']['total_ios']} writes at {job['write']['iops']:.0f}/s and "
          f"{job['write']['bw_bytes'] / 1e6:.0f} MB/s, {job['read']['total_ios']} verified reads at "
          f"{job['read']['iops']:.0f}/s")
    mount.remount()
    run(*common, "--verify_only", cwd=mount.base)


# ---- stress-ng -----------------------------------------------------------

STRESSORS = """access chdir chmod chown copy-file dentry dir dirdeep dirmany dup fallocate fiemap filename flock fpunch
    fstat getdent hdd inotify io iomix link lockf locka lockofd metamix mknod mmap open readahead rename revio seek
    sendfile symlink sync-file touch unlink utime xattr""".split()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stressor", STRESSORS)
def test_stress_ng(mount, stressor):
    """Each file system stressor by itself; what fails natively too is skipped."""
    need_package("stress-ng", "stress-ng")
    help_text = run("stress-ng", "--help").stdout
    if not re.search(rf"--{stressor} N", help_text):
        pytest.skip(f"this stress-ng has no --{stressor}")
    (mount / "tmp").mkdir()

    def stress(where):
        size = {"hdd": ["--hdd-bytes", "64m"], "iomix": ["--iomix-bytes", "64m"], "seek": ["--seek-size", "16m"],
                "fallocate": ["--fallocate-bytes", "64m"], "readahead": ["--readahead-bytes", "64m"],
                "copy-file": ["--copy-file-bytes", "128m"], "revio": ["--revio-bytes", "16m"],
                "mmap": ["--mmap-file", "--mmap-bytes", "8m"], "sync-file": ["--sync-file-bytes", "16m"],
                "fiemap": ["--fiemap-bytes", "16m"]}.get(stressor, [])
        return run("stress-ng", f"--{stressor}", "2", *size, "-t", "5s", "--verify", "--metrics-brief", "--oomable",
                   "--temp-path", where, cwd=where, ok=None)

    done = stress(mount / "tmp")
    text = done.stdout + done.stderr
    if re.search(r"skipping stressor|stressor skipped|skipped: [1-9]", text):
        pytest.skip(f"stress-ng skips it: {text.strip()[-300:]}")
    if done.returncode != 0 or "fail:" in text:
        native = mount.base / "native"
        native.mkdir()
        other = stress(native)
        if other.returncode == done.returncode or done.returncode == 4:
            pytest.skip("the same on the native file system: " + text.strip()[-300:])
        pytest.fail(text[-4000:])
    found = re.search(rf"\s{stressor} +(\d+) +([\d.]+)", text)
    if found:
        print(f"stress-ng {stressor}: {found.group(1)} operations in {found.group(2)} s")
    assert os.listdir(mount / "tmp") == []


# ---- dbench --------------------------------------------------------------


def test_dbench(mount):
    """The recorded load of a file server, by four clients."""
    need_package("dbench", "dbench")
    load_file = "/usr/share/dbench/client.txt"
    if not os.path.exists(load_file):
        pytest.skip(f"{load_file} is missing: apt-get install dbench")
    (mount / "tmp").mkdir()
    out = run("dbench", "-c", load_file, "-D", mount / "tmp", "-t", "10", "4", timeout=120).stdout
    print(out[out.rfind(" Operation "):].strip())
    assert float(re.search(r"Throughput ([\d.]+) MB/sec", out).group(1)) > 0
    # What went otherwise than in the recording is said with its line; a semaphore is none of ours.
    assert not re.search(r"^\[\d+\]|^ERROR: child|^FAILED", out, re.M), out[-4000:]


# ---- npm -----------------------------------------------------------------


@pytest.mark.timeout(400)
def test_npm_from_the_registry(mount, scratch):
    """A real dependency tree, its cache on the mount too: the same as on the native file system."""
    need_package("npm", "npm", "node")
    if run("npm", "ping", ok=None, timeout=60).returncode != 0:
        pytest.skip("npm's registry cannot be reached")
    environment = dict(os.environ, HOME=str(mount.mnt), npm_config_cache=str(mount / "cache"),
                       npm_config_audit="false", npm_config_fund="false", npm_config_update_notifier="false")
    app = mount / "app"
    app.mkdir()
    put(app / "package.json", '{"name": "app", "version": "1.0.0"}')
    run("npm", "install", "express@4.19.2", "eslint@8.57.0", "typescript@5.4.5", cwd=app, env=environment, timeout=180)
    assert run("node", "-p", "typeof require('express')()", cwd=app).stdout == "function\n"
    put(app / "a.ts", "const n: number = 42;\nconsole.log(n);\n")
    run("node_modules/.bin/tsc", "a.ts", cwd=app)
    assert run("node", "a.js", cwd=app).stdout == "42\n"
    native = scratch / "app"
    native.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(app / name, native)
    run("npm", "ci", "--prefer-offline", cwd=native, env=environment, timeout=180)
    run("npm", "ci", "--prefer-offline", cwd=app, env=environment, timeout=180)
    run("npm", "cache", "verify", env=environment, timeout=120)
    mount.remount()
    keep = ("mode", "size", "data", "target")
    trees = [{path: {k: v for k, v in info.items() if k in keep}
              for path, info in fingerprint(where / "node_modules").items()} for where in (app, native)]
    same_trees(*trees)
    print(f"npm: {len(trees[0])} files and directories, equal to a native installation")
    assert run("npm", "ls", "--all", cwd=app, env=environment).returncode == 0
    run("npm", "uninstall", "eslint", cwd=app, env=environment, timeout=120)
    assert not (app / "node_modules" / "eslint").exists()
