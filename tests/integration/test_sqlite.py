# SPDX-License-Identifier: Apache-2.0
"""SQLite with its database on the mount: rollback journal and WAL, several processes, a kill."""

import sqlite3
import subprocess
import sys
import time

import pytest

from harness import need, run

MODES = ["delete", "truncate", "persist", "wal"]


def connect(path, mode=None, timeout=30):
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    if mode:
        assert db.execute(f"pragma journal_mode={mode}").fetchone()[0] == mode
    return db


def sound(db):
    assert db.execute("pragma integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("mode", MODES)
def test_transactions(d, mode):
    db = connect(d / "t.db", mode)
    db.execute("create table t (id integer primary key, name text unique, data blob)")
    for part in range(5):
        db.execute("begin")
        db.executemany("insert into t (name, data) values (?, randomblob(500))",
                       [(f"row {part} {i}",) for i in range(400)])
        db.execute("commit" if part != 3 else "rollback")
    db.execute("update t set data = randomblob(5000) where id % 7 = 0")
    db.execute("delete from t where id % 5 = 0")
    assert db.execute("select count(*) from t").fetchone()[0] == 1280
    sound(db)
    db.execute("vacuum")
    sound(db)
    db.close()
    db = connect(d / "t.db")
    assert db.execute("select count(*) from t").fetchone()[0] == 1280
    sound(db)
    db.close()


WORKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for i in range(int(sys.argv[3])):
    db.execute("begin immediate")
    n, = db.execute("select n from counter").fetchone()
    db.execute("update counter set n = ?", (n + 1,))
    db.execute("insert into log values (?, ?)", (sys.argv[2], n))
    db.execute("commit")
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_several_processes_lose_no_update(d, mode):
    db = connect(d / "t.db", mode)
    db.execute("pragma synchronous=off" if mode == "delete" else "pragma synchronous=normal")
    db.execute("create table counter (n integer)")
    db.execute("insert into counter values (0)")
    db.execute("create table log (who text, n integer unique)")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, d / "t.db", str(i), "100"]) for i in range(3)]
    for w in workers:
        assert w.wait(80) == 0
    assert db.execute("select n from counter").fetchone()[0] == 300
    assert db.execute("select count(*) from log").fetchone()[0] == 300
    sound(db)
    db.close()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_remount(mount, mode):
    db = connect(mount / "t.db", mode)
    db.execute("create table t (x)")
    db.executemany("insert into t values (?)", [(i,) for i in range(200)])
    db.close()
    mount.remount()
    db = connect(mount / "t.db")
    assert db.execute("select sum(x) from t").fetchone()[0] == 199 * 100
    sound(db)
    db.close()


COMMITTER = """
import sqlite3, sys, os
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
out = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
i = 0
while True:
    db.execute("insert into t values (?, randomblob(300))", (i,))
    os.write(out, b"%d\\n" % i)
    i += 1
"""


@pytest.mark.emdb
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_kill_keeps_every_commit(mount, mode):
    db = connect(mount / "t.db", mode)
    db.execute("create table t (x integer unique, y blob)")
    db.close()
    log = mount.base / "commits"
    writer = subprocess.Popen([sys.executable, "-c", COMMITTER, mount / "t.db", log], stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    mount.die()
    writer.wait(20)
    mount.kill9()
    mount.start()
    committed = [int(line) for line in open(log)]
    db = connect(mount / "t.db")
    sound(db)
    rows = [x for x, in db.execute("select x from t order by x")]
    assert len(committed) > 10 and rows[:len(committed)] == committed and len(rows) <= len(committed) + 1
    db.close()


def test_shell(d):
    need("sqlite3")
    script = ("pragma journal_mode=wal; create table t(a); "
              "with recursive c(x) as (select 1 union all select x+1 from c where x<20000) insert into t select x from c; "
              "pragma integrity_check; select count(*), sum(a) from t;")
    out = run("sqlite3", d / "t.db", script).stdout.split()
    assert out == ["wal", "ok", "20000|200010000"]
    run("sqlite3", d / "t.db", f".backup {d}/copy.db")
    assert run("sqlite3", d / "copy.db", "pragma integrity_check; select count(*) from t").stdout.split() == ["ok", "20000"]
