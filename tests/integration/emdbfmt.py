# SPDX-License-Identifier: Apache-2.0
"""A second reader of the on-disk format, written from emdb-format(5) alone.

It shares nothing with the engine: it reads a store's files, replays the
journal from its first frame and says what the store holds. When the two
disagree, one of them or the manual page is wrong.

    python3 emdbfmt.py STORE            what the store holds, as JSON lines
    python3 emdbfmt.py --frames STORE   every record of the journal

Of an encrypted store it sees the frames, not what is in them.

It reads undamaged stores, closed or left open by a process of this boot that
was killed; anything else is a FormatError.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import stat
import struct
import sys

# ---- Bytes ---------------------------------------------------------------


class FormatError(Exception):
    """The bytes are not what the format says."""


def expect(condition, what):
    if not condition:
        raise FormatError(what)


def crc32c_table():
    table = []
    for i in range(256):
        crc = i
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data, seed=0):
    """CRC-32C (Castagnoli): reflected, initial value and final xor all ones.

    seed is the CRC of what comes before data."""
    crc = seed ^ 0xFFFFFFFF
    table = CRC_TABLE
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Cursor:
    """Reads numbers and strings from a piece of memory, never beyond it."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def left(self):
        return len(self.data) - self.at

    def bytes(self, n):
        expect(n <= self.left(), "a field goes beyond its record")
        self.at += n
        return bytes(self.data[self.at - n:self.at])

    def u8(self):
        return self.bytes(1)[0]

    def u64(self):
        return struct.unpack("<Q", self.bytes(8))[0]

    def varint(self):
        value = 0
        for i in range(10):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                expect(i == 0 or byte != 0, "a varint is longer than needed")
                expect(value < 1 << 64, "a varint is beyond 64 bits")
                return value
        raise FormatError("a varint has more than 10 bytes")

    def zigzag(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def blob(self):
        return self.bytes(self.varint())


def signed64(value):
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


# ---- Superblock, manifest, segment header --------------------------------

SUPER = struct.Struct("<8s I I Q Q 16s I I q 32s I I q Q")
SEGMENT = struct.Struct("<8s I I 16s Q q 16s 32s")
MANIFEST = struct.Struct("<8s I I 16s Q Q Q Q Q Q Q Q I I")
MANIFEST_SEGMENT = struct.Struct("<Q Q I I")
MANIFEST_GAP = struct.Struct("<Q Q")
SEGMENT_HEADER = 256
SEALED = 1
SEEDED = 1  # feature bit: the CRCs of frames begin with their segment's salt
ENCRYPTED = 2
PADDED = 8  # there may be zeros where tags were
TAG = 16
CLEAN, MAC = 1, 2  # flags of the manifest


@dataclasses.dataclass
class Superblock:
    segment_shift: int
    uuid: bytes
    uid: int
    gid: int
    created_ns: int
    frozen_ms: int
    seeded: bool
    encrypted: bool


def read_superblock(data):
    expect(len(data) == 4096, "superblock: size")
    (magic, version, shift, _, incompat, uuid, cipher, uid, created, _seed, gid, reserved,
     frozen, number) = SUPER.unpack_from(data)
    expect(magic == b"EMDBSUPR", "superblock: magic")
    expect(version == 1, "superblock: version")
    expect(crc32c(data[:4092]) == struct.unpack_from("<I", data, 4092)[0], "superblock: CRC")
    expect(20 <= shift <= 30, "superblock: segment_shift")
    expect(incompat & ~(SEEDED | ENCRYPTED | PADDED) == 0 and cipher <= 2,
           "superblock: features this reader does not know")
    expect(bool(cipher) == bool(incompat & ENCRYPTED), "superblock: cipher")
    expect(reserved == 0 and not any(data[120:128]) and not any(data[160:1024]) and
           not any(data[3072:4092]), "superblock: reserved bytes")
    slots = [data[at:at + 256] for at in range(1024, 3072, 256)]
    expect(any(slot[0] for slot in slots) == bool(cipher) and
           all(slot[0] or not any(slot) for slot in slots), "superblock: key slots")
    expect(frozen or not number, "superblock: a snapshot's number, but no snapshot")
    expect(0 <= frozen <= (2 ** 63 - 1) // 1000000, "superblock: a clock beyond its range")
    return Superblock(shift, uuid, uid, gid, created, frozen, bool(incompat & SEEDED),
                      bool(cipher))


@dataclasses.dataclass
class Manifest:
    durable_lsn: int
    next_segment: int
    clean: bool
    segments: list  # (id, length, flags)
    gaps: dict  # LSN -> length


def read_manifest(data, uuid):
    expect(len(data) >= MANIFEST.size + 4, "manifest: size")
    (magic, version, length, own, _, durable, next_segment, flags, _, _, _, _, count,
     gap_count) = MANIFEST.unpack_from(data)
    expect(magic == b"EMDBMANI" and version == 1 and own == uuid, "manifest: header")
    want = MANIFEST.size + count * MANIFEST_SEGMENT.size + gap_count * MANIFEST_GAP.size + 4
    want += 32 if flags & MAC else 0
    expect(length == len(data) == want, "manifest: length")
    expect(crc32c(data[:-4]) == struct.unpack("<I", data[-4:])[0], "manifest: CRC")
    at = MANIFEST.size
    segments, gaps = [], {}
    for _ in range(count):
        ident, size, seg_flags, reserved = MANIFEST_SEGMENT.unpack_from(data, at)
        expect(reserved == 0 and ident < next_segment, "manifest: segment")
        expect(not segments or segments[-1][0] < ident, "manifest: order of segments")
        segments.append((ident, size, seg_flags))
        at += MANIFEST_SEGMENT.size
    for _ in range(gap_count):
        lsn, size = MANIFEST_GAP.unpack_from(data, at)
        gaps[lsn] = size
        at += MANIFEST_GAP.size
    return Manifest(durable, next_segment, bool(flags & 1), segments, gaps)


def check_segment_header(data, ident, sb):
    """The boot that wrote the segment, and what the CRCs of its frames begin with."""
    expect(len(data) >= SEGMENT_HEADER, f"segment {ident}: size")
    magic, version, shift, uuid, own, _, boot, salt = SEGMENT.unpack_from(data)
    expect(magic == b"EMDBSEG\x01" and version == 1, f"segment {ident}: magic")
    expect(crc32c(data[:252]) == struct.unpack_from("<I", data, 252)[0], f"segment {ident}: CRC")
    expect(uuid == sb.uuid and own == ident and shift == sb.segment_shift,
           f"segment {ident}: of another store or place")
    tags, count = struct.unpack_from("<QI", data, 96)
    expect(not any(data[108:252]), f"segment {ident}: reserved bytes")
    expect(tags + 20 * count <= len(data) if tags else not count, f"segment {ident}: tags")
    return boot, crc32c(salt) if sb.seeded else 0


def this_boot():
    text = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
    return bytes.fromhex(text.strip().replace("-", ""))


# ---- Records -------------------------------------------------------------

KINDS = {1: "PUT", 2: "DEL", 3: "NS", 4: "LINK", 5: "INODE", 6: "WRITE", 7: "TRUNC", 8: "PUNCH",
         9: "CLONE", 10: "DROP", 11: "CLEAR"}
BATCH, SEAL = 64, 65

F_NS, F_KEY, F_TIME, F_VALUE, F_META, F_TIMES, F_ID, F_EXPIRES, F_XATTRS, F_SIZE, F_OFF, F_LEN, \
    F_ORIGIN, F_RDEV, F_TTLDEF, F_EXTENTS, F_FLAGS = (1 << i for i in range(17))
FLAG_ORPHAN = 1
REF_BATCH = 1


@dataclasses.dataclass
class Record:
    kind: str
    ref: int
    mask: int = 0
    ns: int = 0
    key: bytes = b""
    time_ns: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    btime_ns: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    id: int = 0
    expires_ms: int = 0
    xattrs: dict = dataclasses.field(default_factory=dict)
    size: int = 0
    off: int = 0
    len: int = 0
    origin: int = 0
    rdev: int = 0
    ttl_default_ms: int = 0
    ttl_basis: int = 0
    extents: list = dataclasses.field(default_factory=list)
    flags: int = 0
    value: bytes = b""

    def has(self, bit):
        return bool(self.mask & bit)


def read_xattrs(data):
    cursor, found = Cursor(data), {}
    while cursor.left():
        name = cursor.bytes(cursor.u8())
        expect(name, "an attribute without a name")
        found[name] = cursor.blob()
    return found


def read_extents(cursor, start):
    """The extents as (offset, length, ref, skip)."""
    count = cursor.varint()
    inner = Cursor(cursor.blob())
    extents, end = [], start
    for _ in range(count):
        off = end + inner.varint()
        length, ref, skip = inner.varint(), inner.varint(), inner.varint()
        extents.append((off, length, ref, skip))
        end = off + length
    expect(inner.left() == 0, "extents: more than counted")
    return extents


def read_record(kind, ref, data):
    expect(kind in KINDS, f"record kind {kind}")
    c = Cursor(data)
    r = Record(KINDS[kind], ref, c.varint())
    expect(r.mask < 1 << 17, "record: unknown fields")
    if r.has(F_NS):
        r.ns = c.varint()
    if r.has(F_KEY):
        r.key = c.blob()
    if r.has(F_TIME):
        r.time_ns = signed64(c.u64())
    r.mtime_ns = r.atime_ns = r.btime_ns = r.time_ns
    if r.has(F_META):
        r.mode, r.uid, r.gid = c.varint(), c.varint(), c.varint()
    if r.has(F_TIMES):
        r.mtime_ns, r.atime_ns, r.btime_ns = (signed64(r.time_ns + c.zigzag()) for _ in range(3))
    r.id = c.varint() if r.has(F_ID) else (ref & ~7) // 8
    if r.has(F_EXPIRES):
        r.expires_ms = c.varint()
    if r.has(F_XATTRS):
        r.xattrs = read_xattrs(c.blob())
    if r.has(F_SIZE):
        r.size = c.varint()
    if r.has(F_OFF):
        r.off = c.varint()
    if r.has(F_LEN):
        r.len = c.varint()
    if r.has(F_ORIGIN):
        r.origin = c.varint()
    if r.has(F_RDEV):
        r.rdev = c.varint()
    if r.has(F_TTLDEF):
        r.ttl_default_ms, r.ttl_basis = c.varint(), c.u8()
    if r.has(F_EXTENTS):
        r.extents = read_extents(c, r.off if r.kind == "CLONE" else 0)
    if r.has(F_FLAGS):
        r.flags = c.varint()
    if r.has(F_VALUE):
        r.value = c.blob()
    expect(c.left() < 8 + TAG and not any(c.bytes(c.left())), "record: padding")
    return r


# ---- The journal ---------------------------------------------------------


def parse_frame(data, at, lsn, seed):
    """(kind, length) of a frame at `at`, or why there is none; and the length that it claims."""
    if len(data) - at < 20 or not any(data[at:at + 20]):
        return None, "nothing was written there", 0
    crc, word, own, _durable = struct.unpack_from("<IIQI", data, at)
    kind, length = word >> 24, (word & 0xFFFFFF) * 8
    if own != lsn:
        return None, f"its own LSN is {own:#x}", 0
    if kind not in KINDS and kind not in (BATCH, SEAL):
        return None, f"kind {kind}", 0
    if not 20 <= length <= len(data) - at:
        return None, f"length {length}", 0
    if crc32c(data[at + 4:at + length], seed) != crc:
        return None, "CRC", length
    return (kind, length), None, length


def frame_records(data, at, lsn, kind, length):
    if kind == SEAL:
        return
    if kind != BATCH:
        yield read_record(kind, lsn, data[at + 20:at + length])
        return
    left, pos = struct.unpack_from("<I", data, at + 20)[0], 24
    while left:
        expect(pos + 8 <= length, f"batch at LSN {lsn:#x}: length")
        word, back = struct.unpack_from("<II", data, at + pos)
        size = (word & 0xFFFFFF) * 8
        expect(8 <= size <= length - pos and back * 8 == pos, f"batch at LSN {lsn:#x}: prefix")
        yield read_record(word >> 24, (lsn + pos) | REF_BATCH,
                          data[at + pos + 8:at + pos + size])
        pos += size
        left -= 1
    expect(pos == length, f"batch at LSN {lsn:#x}: end")


class Journal:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.sb = read_superblock((self.path / "superblock").read_bytes())
        self.manifest = read_manifest((self.path / "manifest").read_bytes(), self.sb.uuid)
        self.frames = 0

    def next_frame(self, data, at, base, seed):
        """Where the next frame is behind bytes that are none; the end when there is none."""
        _, _, length = parse_frame(data, at, base + at, seed)
        at += max(length, 8)
        while at < len(data) and parse_frame(data, at, base + at, seed)[0] is None:
            at += 8
        return min(at, len(data))

    def segment_records(self, ident, length):
        data = (self.path / "journal" / f"{ident:016x}.seg").read_bytes()
        boot, seed = check_segment_header(data, ident, self.sb)
        if length:
            expect(length <= len(data), f"segment {ident}: shorter than the manifest says")
            data = data[:length]
        data = memoryview(data)
        base, at = ident << self.sb.segment_shift, SEGMENT_HEADER
        while at < len(data):
            if base + at in self.manifest.gaps:
                at += self.manifest.gaps[base + at]
                continue
            frame, why, _ = parse_frame(data, at, base + at, seed)
            if frame is None:
                expect(not length, f"segment {ident}: no frame at {at}: {why}")
                expect(boot == this_boot(), f"segment {ident}: left open by another boot")
                at = self.next_frame(data, at, base, seed)
                continue
            kind, size = frame
            self.frames += 1
            if not self.sb.encrypted:
                yield from frame_records(data, at, base + at, kind, size)
            at += size
            if kind == SEAL:
                return

    def records(self):
        for ident, length, _flags in self.manifest.segments:
            yield from self.segment_records(ident, length)


# ---- What the records say ------------------------------------------------

ROOT = 1


@dataclasses.dataclass
class Object:
    id: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    btime_ns: int
    expires_ms: int
    rdev: int
    xattrs: dict
    extents: list  # (offset, length, record, skip), in order, apart
    plain: bool


@dataclasses.dataclass
class Namespace:
    id: int
    mode: int
    uid: int
    gid: int
    xattrs: dict
    ttl_default_ms: int
    entries: dict


def cut(extents, start, end):
    """The extents without what lies in start..end."""
    kept = []
    for off, length, ref, skip in extents:
        if off < start:
            kept.append((off, min(length, start - off), ref, skip))
        if off + length > end:
            drop = max(0, end - off)
            kept.append((off + drop, length - drop, ref, skip + drop))
    return kept


class Store:
    """What a store holds: namespaces by id, objects by id."""

    def __init__(self, path):
        self.journal = Journal(path)
        sb = self.journal.sb
        root = Namespace(ROOT, stat.S_IFDIR | 0o755, sb.uid, sb.gid, {}, 0, {})
        self.namespaces = {ROOT: root}
        self.objects = {}
        self.values = {}  # ref -> bytes of the record
        self.placed = {}  # (namespace, key) -> ref of the record that made the entry
        for record in self.journal.records():
            if record.has(F_VALUE):
                self.values[record.ref] = record.value
            if record.kind in ("PUT", "NS", "LINK"):
                self.placed[record.ns, record.key] = record.ref
            getattr(self, "apply_" + record.kind.lower())(record)

    def entries(self, ns):
        """A namespace's own record can come after those of its entries."""
        if ns not in self.namespaces:
            self.namespaces[ns] = Namespace(ns, 0, 0, 0, {}, 0, {})
        return self.namespaces[ns].entries

    def apply_put(self, r):
        sb = self.journal.sb
        mode, uid, gid = stat.S_IFREG | 0o600, sb.uid, sb.gid
        if r.has(F_META):
            mode, uid, gid = r.mode, r.uid, r.gid
        extents = [(0, len(r.value), r.ref, 0)] if r.value else []
        self.objects[r.id] = Object(r.id, mode, uid, gid, len(r.value), r.mtime_ns, r.btime_ns,
                                    r.expires_ms, r.rdev, r.xattrs, extents, True)
        if not r.flags & FLAG_ORPHAN:
            self.entries(r.ns)[r.key] = ("object", r.id)

    def apply_del(self, r):
        self.entries(r.ns).pop(r.key, None)

    def apply_ns(self, r):
        known = self.namespaces.get(r.id)
        entries = known.entries if known else {}
        self.namespaces[r.id] = Namespace(r.id, r.mode, r.uid, r.gid, r.xattrs, r.ttl_default_ms,
                                          entries)
        if r.ns:
            self.entries(r.ns)[r.key] = ("namespace", r.id)

    def apply_link(self, r):
        self.entries(r.ns)[r.key] = ("object", r.id)

    def apply_inode(self, r):
        known = self.objects.get(r.id)
        extents = known.extents if known else []
        if r.has(F_EXTENTS):
            extents = r.extents
        self.objects[r.id] = Object(r.id, r.mode, r.uid, r.gid, r.size, r.mtime_ns, r.btime_ns,
                                    r.expires_ms, r.rdev, r.xattrs, extents, False)

    def changed(self, r):
        """What is said of an object can come before the record that describes it."""
        obj = self.objects.setdefault(r.id, Object(r.id, 0, 0, 0, 0, 0, 0, 0, 0, {}, [], False))
        if not r.has(F_ORIGIN):
            obj.mtime_ns = r.time_ns
        obj.size = r.size
        return obj

    def apply_write(self, r):
        obj = self.changed(r)
        extents = cut(obj.extents, r.off, r.off + len(r.value))
        if r.value:
            extents.append((r.off, len(r.value), r.ref, 0))
        obj.extents = sorted(extents)

    def apply_trunc(self, r):
        obj = self.changed(r)
        obj.extents = cut(obj.extents, r.size, 1 << 64)

    def apply_punch(self, r):
        obj = self.changed(r)
        obj.extents = cut(obj.extents, r.off, r.off + r.len)

    def apply_clone(self, r):
        obj = self.changed(r)
        obj.extents = sorted(cut(obj.extents, r.off, r.off + r.len) + r.extents)

    def apply_drop(self, r):
        """What was in it is not reachable, unless a later record says that it moved."""
        self.entries(r.ns).pop(r.key, None)
        self.entries(r.id).clear()

    def apply_clear(self, r):
        entries = self.entries(r.id)
        for key in list(entries):
            if not r.has(F_ORIGIN) or self.placed[r.id, key] < r.origin:
                del entries[key]

    def content(self, obj):
        data = bytearray(obj.size)
        for off, length, ref, skip in obj.extents:
            value = self.values[ref]
            expect(skip + length <= len(value), f"object {obj.id}: an extent beyond its record")
            expect(off + length <= obj.size, f"object {obj.id}: an extent beyond its size")
            data[off:off + length] = value[skip:skip + length]
        return bytes(data)

    def walk(self, now_ms=None, ns=ROOT, prefix=()):
        """Yields (path as a tuple of keys, Object or Namespace), nothing that has expired."""
        for key, (kind, ident) in sorted(self.namespaces[ns].entries.items()):
            path = prefix + (key,)
            if kind == "namespace":
                yield path, self.namespaces[ident]
                yield from self.walk(now_ms, ident, path)
                continue
            obj = self.objects[ident]
            if now_ms is None or not obj.expires_ms or obj.expires_ms > now_ms:
                yield path, obj


# ---- Command line --------------------------------------------------------


def describe(store, path, what):
    names = [key.decode("utf-8", "backslashreplace") for key in path]
    line = {"path": names, "id": what.id, "mode": f"{what.mode:o}", "uid": what.uid,
            "gid": what.gid}
    if isinstance(what, Namespace):
        line["entries"] = len(what.entries)
    else:
        digest = hashlib.sha256(store.content(what)).hexdigest()
        line.update(size=what.size, mtime_ns=what.mtime_ns, expires_ms=what.expires_ms or None,
                    sha256=digest)
    return line


def main():
    parser = argparse.ArgumentParser(description="Reads an emdb store without the library.")
    parser.add_argument("--frames", action="store_true", help="show every record")
    parser.add_argument("store")
    args = parser.parse_args()
    try:
        if args.frames:
            for record in Journal(args.store).records():
                print(record)
            return 0
        store = Store(args.store)
        for path, what in store.walk():
            print(json.dumps(describe(store, path, what)))
    except FormatError as err:
        print(f"emdbfmt: {args.store}: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
