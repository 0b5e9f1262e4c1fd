# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests; see README.md beside this file."""

import contextlib
import os
import pathlib
import random
import re
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pytest

import harness
from harness import Mount, binary, build_dir, remove_tree, scratch_dir


def pytest_addoption(parser):
    parser.addoption("--native", action="store_true",
                     help="run on a plain directory instead of a mount, to check the tests")
    parser.addoption("--io-uring", action="store_true",
                     help="over io_uring, where the programs can: turns the kernel's switch on meanwhile")
    parser.addoption("--encrypted", action="store_true",
                     help="mounts make encrypted stores; the passphrase comes from the environment")
    parser.addoption("--seed", type=int, default=None,
                     help="seed of the randomised tests (they print theirs)")


def pytest_configure(config):
    if os.environ.get("EMDB_LONG") and config.option.markexpr == "not long":
        config.option.markexpr = ""
    harness.clean_dead_mounts()


def pytest_collection_modifyitems(config, items):
    native = config.getoption("--native")
    for item in items:
        if native and item.get_closest_marker("emdb"):
            item.add_marker(pytest.mark.skip(reason="about emdbfs only"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for mount in list(harness.ALIVE):
            said = mount.log.read_bytes()[getattr(mount, "log_mark", 0):]
            text = said[-6000:].decode(errors="replace")
            report.sections.append((f"emdbfs log of {mount.mnt}", text or "(says nothing)"))


@pytest.fixture(autouse=True)
def watchdog(request):
    """Kills the daemons of a test that hangs, so that its system calls return."""
    marker = request.node.get_closest_marker("timeout")
    seconds = marker.args[0] if marker else 90
    if request.node.get_closest_marker("long") and not marker:
        seconds = 1800
    for mount in harness.ALIVE:
        mount.log_mark = mount.log.stat().st_size

    def fire():
        for mount in list(harness.ALIVE):
            print(f"\n{request.node.nodeid}: no end after {seconds} s\n{mount.stacks()}",
                  file=sys.stderr)
            if mount.proc is not None:
                mount.proc.kill()

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


IO_URING_SWITCH = pathlib.Path("/sys/module/fuse/parameters/enable_uring")


@contextlib.contextmanager
def io_uring_switched():
    """Gives a function that sets the switch; as it was in the end."""
    if not os.access(IO_URING_SWITCH, os.W_OK):
        pytest.skip(f"{IO_URING_SWITCH} is not there or not ours to set")
    before = IO_URING_SWITCH.read_text().strip()
    try:
        yield IO_URING_SWITCH.write_text
    finally:
        IO_URING_SWITCH.write_text(before)


@pytest.fixture
def io_uring_switch():
    with io_uring_switched() as switch:
        yield switch


@pytest.fixture(scope="session", autouse=True)
def io_uring_all(request):
    if not request.config.getoption("--io-uring"):
        yield
        return
    with io_uring_switched() as switch:
        switch("Y")
        yield


@pytest.fixture(scope="session", autouse=True)
def encrypted_all(request, tmp_path_factory):
    if request.config.getoption("--encrypted"):
        passfile = tmp_path_factory.mktemp("secret") / "passphrase"
        passfile.write_text("of all the tests\n")
        os.environ["EMDBFS_PASSWORD_FILE"] = str(passfile)
        harness.ENCRYPTED = True
    yield


@pytest.fixture(scope="session")
def build():
    """The directory with the programs under test."""
    return build_dir()


def require_mounting(native):
    if native:
        return
    if not os.path.exists("/dev/fuse"):
        pytest.skip("/dev/fuse is missing: this kernel or container cannot mount")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as err:
        pytest.skip(f"/dev/fuse cannot be opened: {err}")
    if binary("emdbfs") is None:
        pytest.skip(f"no emdbfs in {build_dir()}: make first, or set EMDB_BUILD")


def short_name(request):
    return re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name)


@pytest.fixture
def scratch(request):
    """An empty directory outside any mount."""
    base = scratch_dir(short_name(request))
    yield base
    remove_tree(base)


@pytest.fixture
def make_mount(request):
    """make_mount(options, store=...) mounts a fresh store; all are unmounted at the end."""
    native = request.config.getoption("--native")
    require_mounting(native)
    made = []

    def make(options=(), store=None, start=True):
        mount = Mount(scratch_dir(short_name(request)), options, store, native)
        made.append(mount)
        return mount.start() if start else mount

    yield make
    errors = []
    for mount in reversed(made):
        try:
            mount.dispose()
        except BaseException as err:
            errors.append(err)
        remove_tree(mount.base)
    if errors:
        raise errors[0]


@pytest.fixture
def mount(make_mount):
    """A fresh store of its own, mounted."""
    return make_mount()


@pytest.fixture(scope="session")
def session_mount(request):
    native = request.config.getoption("--native")
    require_mounting(native)
    holder = {"mount": Mount(scratch_dir("shared"), ["allow_other"], None, native), "count": 0}
    holder["mount"].start()
    yield holder
    mount = holder["mount"]
    try:
        mount.dispose()
    finally:
        remove_tree(mount.base)


@pytest.fixture
def shared(session_mount):
    """The mount that tests of single operations share; restarted when one of them broke it."""
    mount = session_mount["mount"]
    if not mount.alive():
        mount.kill9()
        mount.start()
    yield mount
    if not mount.alive():
        pytest.fail(f"emdbfs died with {mount.proc.returncode}\n{mount.tail()}")


@pytest.fixture
def d(shared, session_mount):
    """A directory of its own on the shared mount, mode 0777."""
    session_mount["count"] += 1
    path = shared.mnt / f"t{session_mount['count']}"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
def rng(request):
    """Random numbers that a failing run can be repeated with."""
    seed = request.config.getoption("--seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed: repeat with --seed {seed}")
    made = random.Random(seed)
    made.first_seed = seed
    return made
