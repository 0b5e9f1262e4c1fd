# SPDX-License-Identifier: Apache-2.0
"""A second reader of checkpoints, written from emdb-format(5) alone; see emdbfmt.py."""

import dataclasses
import struct

from emdbfmt import Cursor, crc32c, expect

BLOCK = struct.Struct("<I I I I Q")
HEAD = struct.Struct("<8s I I 16s Q q")
END = struct.Struct("<Q Q Q I I")
HEAD_KIND, INDEX, OBJECTS, SPACES, QUEUE, SEGMENTS, GONE, END_KIND = range(1, 9)
BLOCK_MAX = 1 << 20
EXPIRES, SPECIAL = 2, 4
KINDS = {0: None, 3: "NS", 4: "LINK"}


@dataclasses.dataclass
class Entry:
    ns: int
    hash: int
    ref: int  # without the two flags
    expires: bool
    kind: str  # "PUT", "NS", "LINK", None: could not be read
    id: int  # of what NS and LINK name


@dataclasses.dataclass
class Described:
    """An object or a namespace, as records below as_of made it."""
    id: int
    as_of: int
    fields: dict
    extents: list = None


TIMES = ("ctime_ns", "mtime_ns", "atime_ns", "btime_ns")


class Checkpoint:
    def __init__(self, path, number, uuid):
        self.number = number
        self.entries, self.objects, self.spaces = [], {}, {}
        self.queue, self.live, self.gone = [], {}, []
        self.missing = 0  # extents still to come
        blocks = list(self.blocks(path.read_bytes()))
        kinds = [kind for kind, _ in blocks]
        expect(kinds == sorted(kinds), "checkpoint: order of blocks")
        expect(kinds.count(HEAD_KIND) == kinds.count(END_KIND) == 1, "checkpoint: first and last")
        magic, version, reserved, own, self.lsn, _ = HEAD.unpack(blocks[0][1])
        expect(magic == b"EMDBCKPT" and version == 1 and reserved == 0, "checkpoint: head")
        expect(own == uuid, "checkpoint: of another store")
        readers = {INDEX: self.read_index, OBJECTS: self.read_objects, SPACES: self.read_spaces,
                   QUEUE: self.read_queue, SEGMENTS: self.read_segments, GONE: self.read_gone}
        for kind, data in blocks[1:-1]:
            cursor = Cursor(data)
            while cursor.left():
                readers[kind](cursor)
        expect(self.missing == 0, "checkpoint: extents are missing")
        self.settled, self.records, self.namespaces, count, chain = END.unpack(blocks[-1][1])
        expect(count == len(blocks) and chain == crc32c(self.sums), "checkpoint: end")
        expect(self.lsn <= self.settled, "checkpoint: LSNs")

    def blocks(self, data):
        at, index, sums = 0, 0, b""
        while at < len(data):
            crc, length, own_index, kind, number = BLOCK.unpack_from(data, at)
            expect(BLOCK.size <= length <= BLOCK_MAX and at + length <= len(data), "block: length")
            expect(crc32c(data[at + 4:at + length]) == crc, "block: CRC")
            expect(own_index == index and number == self.number, "block: index, number")
            self.sums = sums
            sums += data[at:at + 4]
            yield kind, data[at + BLOCK.size:at + length]
            at += length
            index += 1

    def read_index(self, c):
        ns, _, count, place = c.varint(), c.varint(), c.varint(), c.varint() * 8
        expect(ns and count, "index: run")
        for _ in range(count):
            place += c.varint() * 8
            ref = c.varint()
            kind, ident = "PUT", 0
            if ref & SPECIAL:
                kind, ident = KINDS[c.u8()], c.varint()
            self.entries.append(Entry(ns, place, ref & ~(EXPIRES | SPECIAL), bool(ref & EXPIRES),
                                      kind, ident))

    def read_objects(self, c):
        ident = c.varint()
        if ident == 0:
            count, list_ = c.varint(), Cursor(c.blob())
            expect(0 < count <= self.missing, "objects: extents")
            for _ in range(count):
                self.end += list_.varint()
                length, ref, skip = list_.varint(), list_.varint(), list_.varint()
                self.extents.append((self.end, length, ref, skip))
                self.end += length
            expect(list_.left() == 0, "objects: extents")
            self.missing -= count
            return
        expect(self.missing == 0 and ident not in self.objects, "objects: order")
        as_of, fields = c.varint(), {"size": c.varint()}
        fields.update((name, c.zigzag()) for name in TIMES)
        for name in ("expires_ms", "rdev", "inode", "touched", "mode", "uid", "gid"):
            fields[name] = c.varint()
        self.missing, self.extents, self.end = c.varint(), [], 0
        self.objects[ident] = Described(ident, as_of, fields, self.extents)

    def read_spaces(self, c):
        ident, as_of = c.varint(), c.varint()
        fields = {"parent": c.varint(), "hash": c.u64(), "ref": c.varint(), "touched": c.varint()}
        fields.update((name, c.zigzag()) for name in TIMES)
        for name in ("ttl_default_ms", "mode", "uid", "gid"):
            fields[name] = c.varint()
        fields["basis"] = c.u8()
        expect(ident not in self.spaces, "spaces: twice")
        self.spaces[ident] = Described(ident, as_of, fields)

    def read_queue(self, c):
        self.queue.append((c.varint(), c.varint(), c.varint() * 8))

    def read_segments(self, c):
        ident = c.varint()
        expect(all(ident > other for other in self.live), "segments: order")
        self.live[ident] = c.varint()

    def read_gone(self, c):
        self.gone.append((c.varint(), bool(c.u8())))
