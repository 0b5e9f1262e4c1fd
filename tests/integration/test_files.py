# SPDX-License-Identifier: Apache-2.0
"""Files: lookup, create, read, write, truncate, unlink, with their errors."""

import errno
import os
import stat

import pytest

from harness import fails, get, libc, put, run, syncfs

# ---- lookup and getattr --------------------------------------------------


def test_lookup_missing(d):
    for call in (os.stat, os.lstat, os.listdir, os.unlink, os.rmdir, os.readlink):
        with fails(errno.ENOENT):
            call(d / "no")
    with fails(errno.ENOENT):
        os.open(d / "no", os.O_RDONLY)
    with fails(errno.ENOENT):
        os.stat(d / "no" / "deeper")


def test_lookup_through_a_file(d):
    put(d / "f")
    with fails(errno.ENOTDIR):
        os.stat(d / "f" / "x")
    with fails(errno.ENOTDIR):
        os.open(d / "f" / "x", os.O_CREAT | os.O_WRONLY)
    with fails(errno.ENOTDIR):
        os.open(d / "f", os.O_DIRECTORY)


def test_negative_entries_are_forgotten_on_create(d):
    for make in (lambda p: put(p, b"x"), os.mkdir, lambda p: os.symlink("t", p), os.mkfifo,
                 lambda p: os.link(d / "first", p)):
        put(d / "first")
        with fails(errno.ENOENT):
            os.lstat(d / "n")
        make(d / "n")
        os.lstat(d / "n")
        if os.path.isdir(d / "n") and not os.path.islink(d / "n"):
            os.rmdir(d / "n")
        else:
            os.unlink(d / "n")
        with fails(errno.ENOENT):
            os.lstat(d / "n")


def test_getattr_of_a_new_file(d):
    old = os.umask(0o022)
    try:
        fd = os.open(d / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o664)
    finally:
        os.umask(old)
    st = os.fstat(fd)
    os.close(fd)
    assert stat.S_ISREG(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o644
    assert (st.st_nlink, st.st_size, st.st_blocks) == (1, 0, 0)
    assert (st.st_uid, st.st_gid) == (os.geteuid(), os.getegid())
    assert st.st_ino == os.lstat(d / "f").st_ino
    assert st.st_atime_ns == st.st_mtime_ns == st.st_ctime_ns
    assert st.st_blksize >= 512


def test_fstat_agrees_with_stat(d):
    put(d / "f", b"12345")
    fd = os.open(d / "f", os.O_RDWR)
    for _ in range(3):
        os.write(fd, b"abcdefgh")
        a, b = os.fstat(fd), os.stat(d / "f")
        assert (a.st_ino, a.st_size, a.st_mtime_ns, a.st_ctime_ns) == (
            b.st_ino, b.st_size, b.st_mtime_ns, b.st_ctime_ns)
    os.close(fd)


# ---- create --------------------------------------------------------------


def test_create_excl(d):
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(d / "f", flags))
    with fails(errno.EEXIST):
        os.open(d / "f", flags)
    os.symlink("dangling", d / "l")
    with fails(errno.EEXIST):
        os.open(d / "l", flags)
    os.mkdir(d / "dir")
    with fails(errno.EEXIST):
        os.open(d / "dir", flags)


def test_create_in_a_missing_directory(d):
    with fails(errno.ENOENT):
        os.open(d / "no" / "f", os.O_CREAT | os.O_WRONLY)


def test_create_through_a_dangling_symlink(d):
    os.symlink("target", d / "l")
    os.close(os.open(d / "l", os.O_CREAT | os.O_WRONLY))
    assert os.path.isfile(d / "target")


def test_create_in_a_removed_directory(d):
    os.mkdir(d / "gone")
    fd = os.open(d / "gone", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(d / "gone")
    with fails(errno.ENOENT):
        os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    with fails(errno.ENOENT):
        os.mkdir("sub", dir_fd=fd)
    assert os.listdir(fd) == []
    os.close(fd)


def test_open_a_directory_for_writing(d):
    os.mkdir(d / "dir")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with fails(errno.EISDIR):
            os.open(d / "dir", flags)
    with fails(errno.EISDIR):
        os.open(d / "dir", os.O_CREAT | os.O_WRONLY)


def test_mknod_regular(d):
    os.mknod(d / "f", 0o640 | stat.S_IFREG)
    st = os.lstat(d / "f")
    assert stat.S_ISREG(st.st_mode) and st.st_size == 0
    with fails(errno.EEXIST):
        os.mknod(d / "f", 0o640 | stat.S_IFREG)


def test_no_follow(d):
    put(d / "f", b"x")
    os.symlink("f", d / "l")
    with fails(errno.ELOOP):
        os.open(d / "l", os.O_RDONLY | os.O_NOFOLLOW)
    os.symlink("loop", d / "loop")
    with fails(errno.ELOOP):
        os.stat(d / "loop")


# ---- read and write ------------------------------------------------------

SIZES = [0, 1, 100, 511, 512, 4095, 4096, 4097, 8191, 8192, 8193, 65535, 65536, 131072, 131073,
         1048575, 1048576, 1048577, 3 * 1048576 + 17]


def pattern(size, salt=0):
    """Bytes that differ at every place a block could be misplaced to."""
    unit = b"".join((i * 2654435761 + salt & 0xFFFFFFFF).to_bytes(4, "little") for i in range(1021))
    return (unit * (size // len(unit) + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_whole_file(d, size):
    data = pattern(size)
    put(d / "f", data)
    assert os.stat(d / "f").st_size == size
    assert get(d / "f") == data
    put(d / "f", data[::-1])
    assert get(d / "f") == data[::-1]


def test_one_write_call_writes_everything(d):
    data = pattern(5 << 20)
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    assert os.write(fd, data) == len(data)
    assert os.pread(fd, len(data) + 10, 0) == data
    os.close(fd)


def test_write_at_any_offset(d, rng):
    model = bytearray()
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    for _ in range(400):
        offset = rng.choice([0, 1, 4095, 4096, 8191, 8192, 100000, rng.randrange(300000)])
        data = rng.randbytes(rng.choice([0, 1, 3, 100, 4096, 5000, 20000]))
        assert os.pwrite(fd, data, offset) == len(data)
        if data:
            if offset > len(model):
                model.extend(bytes(offset - len(model)))
            model[offset:offset + len(data)] = data
        where, size = rng.randrange(400000), rng.randrange(30000)
        assert os.pread(fd, size, where) == model[where:where + size]
        assert os.fstat(fd).st_size == len(model)
    os.close(fd)
    assert get(d / "f") == model


def test_small_steps(d):
    """A byte at a time, as log writers without a buffer do."""
    fd = os.open(d / "f", os.O_CREAT | os.O_WRONLY)
    data = pattern(3000)
    for i in range(len(data)):
        assert os.write(fd, data[i:i + 1]) == 1
    os.close(fd)
    assert get(d / "f") == data


def test_read_at_the_end_and_beyond(d):
    put(d / "f", b"hello")
    fd = os.open(d / "f", os.O_RDONLY)
    assert os.pread(fd, 100, 3) == b"lo"
    assert os.pread(fd, 100, 5) == b""
    assert os.pread(fd, 100, 1 << 40) == b""
    assert os.pread(fd, 0, 0) == b""
    with fails(errno.EINVAL):
        os.pread(fd, 1, -1)
    os.close(fd)


def test_wrong_direction(d):
    put(d / "f", b"hello")
    fd = os.open(d / "f", os.O_RDONLY)
    with fails(errno.EBADF):
        os.write(fd, b"x")
    with fails(errno.EBADF, errno.EINVAL):
        os.ftruncate(fd, 0)
    os.close(fd)
    fd = os.open(d / "f", os.O_WRONLY)
    with fails(errno.EBADF):
        os.read(fd, 1)
    os.close(fd)
    fd = os.open(d, os.O_RDONLY)
    with fails(errno.EISDIR):
        os.read(fd, 1)
    os.close(fd)


def test_holes_read_as_zeros(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"end", 1_000_000)
    assert os.pread(fd, 1_000_000, 0) == bytes(1_000_000)
    os.pwrite(fd, b"mid", 500_000)
    assert os.pread(fd, 9, 499_997) == b"\0\0\0mid\0\0\0"
    os.close(fd)
    assert os.stat(d / "f").st_size == 1_000_003
    assert os.stat(d / "f").st_blocks * 512 < 500_000


def test_sparse_file_beyond_4_gib(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    places = [(1 << 32) - 2, (1 << 40) + 12345, (1 << 43) - 100]
    for i, place in enumerate(places):
        assert os.pwrite(fd, b"abcd%d" % i, place) == 5
    for i, place in enumerate(places):
        assert os.pread(fd, 7, place - 1)[:6] == b"\0abcd%d" % i
    assert os.fstat(fd).st_size == places[-1] + 5
    os.close(fd)
    assert os.stat(d / "f").st_blocks * 512 < 1 << 20


def test_append(d):
    put(d / "f", b"one")
    fd = os.open(d / "f", os.O_WRONLY | os.O_APPEND)
    other = os.open(d / "f", os.O_WRONLY)
    os.pwrite(other, b"ONE two", 0)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b" three")
    assert get(d / "f") == b"ONE two three"
    os.close(fd)
    os.close(other)


def test_o_trunc(d):
    put(d / "f", b"x" * 10000)
    fd = os.open(d / "f", os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(fd).st_size == 0
    os.write(fd, b"short")
    os.close(fd)
    assert get(d / "f") == b"short"
    ino = os.stat(d / "f").st_ino
    os.close(os.open(d / "f", os.O_CREAT | os.O_TRUNC | os.O_WRONLY))
    assert get(d / "f") == b"" and os.stat(d / "f").st_ino == ino


def test_vectors(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    assert os.writev(fd, [b"abc", b"", b"defg", pattern(9000)]) == 9007
    a, b = bytearray(5), bytearray(3)
    assert os.preadv(fd, [a, b], 1) == 8
    assert bytes(a) == b"bcdef" and bytes(b) == b"g" + pattern(2)
    os.close(fd)


def test_two_descriptors_see_each_other(d):
    a = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    b = os.open(d / "f", os.O_RDWR)
    for i in range(100):
        os.pwrite(a, b"%06d" % i, i * 6)
        assert os.pread(b, 6, i * 6) == b"%06d" % i
        os.pwrite(b, b"%06d" % -i, i * 6)
        assert os.pread(a, 6, i * 6) == b"%06d" % -i
    os.ftruncate(a, 3)
    assert os.pread(b, 100, 0) == b"000"
    os.close(a)
    os.close(b)


def test_fsync(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"data")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    fd = os.open(d, os.O_RDONLY)
    os.fsync(fd)
    syncfs(fd)
    os.close(fd)
    run("sync", d / "f")


def test_o_sync(d):
    for flag in (os.O_SYNC, os.O_DSYNC):
        fd = os.open(d / "f", os.O_CREAT | os.O_WRONLY | flag)
        os.write(fd, b"data")
        os.close(fd)
        assert get(d / "f") == b"data"


# ---- truncate ------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 5000, 9000, 300_000, 2_500_000])
def test_truncate_down_and_up(d, size):
    data = pattern(size)
    for target in (0, 1, size // 2, max(size - 1, 0), size, size + 1, size + 4096, 3_000_000):
        put(d / "f", data)
        os.truncate(d / "f", target)
        assert os.stat(d / "f").st_size == target
        want = data[:target] + bytes(max(target - size, 0))
        assert get(d / "f") == want


def test_truncated_bytes_never_return(d):
    put(d / "f", b"secret" * 5000)
    os.truncate(d / "f", 3)
    os.truncate(d / "f", 30000)
    assert get(d / "f") == b"sec" + bytes(29997)
    fd = os.open(d / "f", os.O_RDWR)
    os.ftruncate(fd, 2)
    os.pwrite(fd, b"x", 100)
    assert os.pread(fd, 1000, 0) == b"se" + bytes(98) + b"x"
    os.close(fd)


def test_truncate_errors(d):
    os.mkdir(d / "dir")
    with fails(errno.EISDIR):
        os.truncate(d / "dir", 0)
    with fails(errno.ENOENT):
        os.truncate(d / "no", 0)
    put(d / "f", b"x")
    with fails(errno.EINVAL):
        os.truncate(d / "f", -1)
    with fails(errno.EFBIG, errno.EINVAL):
        os.truncate(d / "f", (1 << 63) - 1)
    assert get(d / "f") == b"x"


def test_write_beyond_the_largest_size(d):
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR)
    with fails(errno.EFBIG, errno.EINVAL):
        os.pwrite(fd, b"xx", (1 << 63) - 2)
    assert os.fstat(fd).st_size == 0
    os.close(fd)


# ---- unlink --------------------------------------------------------------


def test_unlink(d):
    put(d / "f", b"x")
    os.unlink(d / "f")
    with fails(errno.ENOENT):
        os.stat(d / "f")
    with fails(errno.ENOENT):
        os.unlink(d / "f")
    assert os.listdir(d) == []


def test_unlink_errors(d):
    os.mkdir(d / "dir")
    with fails(errno.EISDIR, errno.EPERM):
        os.unlink(d / "dir")
    put(d / "f")
    with fails(errno.ENOTDIR):
        os.unlink(d / "f" / "x")
    with fails(errno.ENOTDIR):
        os.rmdir(d / "f")


def test_inode_numbers_are_not_reused(d):
    seen = set()
    for _ in range(50):
        put(d / "f", b"x")
        ino = os.stat(d / "f").st_ino
        if os.stat(d).st_dev != os.stat(d.parent.parent).st_dev:
            assert ino not in seen
        seen.add(ino)
        os.unlink(d / "f")


# ---- lseek ---------------------------------------------------------------


def test_seek(d):
    put(d / "f", b"0123456789")
    fd = os.open(d / "f", os.O_RDONLY)
    assert os.lseek(fd, 0, os.SEEK_END) == 10
    assert os.lseek(fd, -3, os.SEEK_CUR) == 7
    assert os.read(fd, 10) == b"789"
    with fails(errno.EINVAL):
        os.lseek(fd, -1, os.SEEK_SET)
    assert os.lseek(fd, 1 << 40, os.SEEK_SET) == 1 << 40
    assert os.read(fd, 1) == b""
    os.close(fd)


def test_o_direct_is_accepted(d):
    import mmap
    page = mmap.mmap(-1, 8192)
    page[:] = pattern(8192)
    fd = os.open(d / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    assert os.writev(fd, [page]) == 8192
    back = mmap.mmap(-1, 8192)
    assert os.preadv(fd, [back], 0) == 8192
    assert back[:] == page[:]
    os.close(fd)
    assert get(d / "f") == pattern(8192)


def test_file_descriptors_by_proc(d):
    """Reopening through /proc, as many tools do with unnamed or renamed files."""
    put(d / "f", b"hello")
    fd = os.open(d / "f", os.O_RDONLY)
    os.rename(d / "f", d / "g")
    assert get(f"/proc/self/fd/{fd}") == b"hello"
    assert os.readlink(f"/proc/self/fd/{fd}") == str(d / "g")
    os.close(fd)


def test_ioctl_is_refused(d):
    import fcntl
    put(d / "f")
    with open(d / "f", "rb") as f:
        with fails(errno.ENOTTY, errno.ENOSYS):
            fcntl.ioctl(f, 0x12345678, b"x" * 8)


def test_o_path_and_empty_path(d):
    put(d / "f", b"12345")
    fd = os.open(d / "f", os.O_PATH)
    assert os.fstat(fd).st_size == 5
    with fails(errno.EBADF):
        os.read(fd, 1)
    os.close(fd)
    assert libc.access(os.fsencode(d / "f"), os.R_OK) == 0
