"""A minimal writer of repositories, for the tests only: it holds everything in memory and knows one way of each thing.

It shows the specification in the other direction: what it writes must be accepted by `orlop repo check --read-data`. It
shares no code with the reader except CRC-32C, so that a misreading is not made twice in the same lines.
"""

import json
import os
import pathlib
import struct

import argon2.low_level
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from primitives import crc32c

EPOCH = 1
# Guessing these passphrases is no danger, and so the derivation may be cheap: KiB, passes, lanes.
COST = 64, 1, 2
ZEROS = bytes(12)


def checked(fields):
    """Section 2."""
    text = json.dumps(fields, separators=(",", ":"))[:-1] + ',"checksum":"'
    return f'{text}{blake3(text.encode()).hexdigest()}"}}\n'.encode()


def derive(purpose, material):
    return blake3(material, derive_key_context="orlop.io repository v1 " + purpose).digest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class SmallWriter:
    """One repository and one writing session."""

    def __init__(self, path, passphrase):
        self.path = pathlib.Path(path)
        repository, key, salt, master = (os.urandom(n) for n in (16, 16, 16, 32))
        self.identity, self.data = derive("blob identity", master), derive("data", master)
        self.writer = os.urandom(12)
        self.begin_pack(0)
        self.listed, self.packs, self.runs = [], [], 0
        self.session = f"{EPOCH:016x}-{self.writer.hex()}"
        memory, passes, lanes = COST
        wrapping = argon2.low_level.hash_secret_raw(passphrase, salt, passes, memory, lanes, 32,
                                                    argon2.low_level.Type.ID, 0x13)
        sealed = AESGCM(wrapping).encrypt(ZEROS, master, repository + key + b"default")
        self.put(f"epochs/{EPOCH:016x}", checked({"format": "orlop-epoch", "version": 1, "epoch": EPOCH}))
        self.proof = derive("key object", master)
        self.put(f"domains/default/keys/{key.hex()}", self.proven_key({
            "format": "orlop-key", "version": 1, "repository": repository.hex(), "domain": "default", "key": key.hex(),
            "label": "of the \"small\" writer", "created": "2026-11-25T10:00:00Z",
            "method": "passphrase-argon2id", "cost": {"memoryKib": memory, "passes": passes, "lanes": lanes},
            "salt": salt.hex(), "sealed": sealed.hex()}))
        self.put("orlop-repository", checked({
            "format": "orlop-repository", "version": 1, "repository": repository.hex(), "conditionalCreate": True}))
        # The point that it names is for people; this writer may make several.
        self.put(f"domains/default/sessions/{self.session}", checked({
            "format": "orlop-session", "version": 1, "epoch": EPOCH, "writer": self.writer.hex(), "point": "one",
            "host": "somewhere", "started": "2026-01-02T03:04:05Z"}))

    def proven_key(self, fields):
        """Section 4: the proof is made of what is before it."""
        text = json.dumps(fields, separators=(",", ":"))[:-1] + ',"proof":"'
        return checked(fields | {"proof": blake3(text.encode(), key=self.proof).hexdigest()})

    def put(self, name, data):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "xb") as output:
            output.write(data)

    def seal(self, purpose, identifier, offset, text):
        place = struct.pack("<Q", offset)
        cipher = AESGCM(derive(purpose, self.data + identifier))
        return cipher.encrypt(place + bytes(4), text, identifier + place)

    # Packs, section 6

    def begin_pack(self, sequence):
        self.sequence = sequence
        self.pack = struct.pack("<Q12sI", EPOCH, self.writer, sequence)
        header = b"ORLOPPAK" + struct.pack("<I", 1) + self.pack
        self.body = bytearray(header + struct.pack("<I", crc32c(header)))
        self.entries, self.stored = [], {}

    def blob(self, plain, kind=1, codec=1):
        """Stores a blob and returns its reference."""
        id = blake3(plain, key=self.identity).digest()
        if id not in self.stored:
            offset = len(self.body)
            payload = zstandard.ZstdCompressor().compress(plain) if codec else plain
            self.body += self.seal("pack", self.pack, offset, bytes([codec]) + payload)
            length = len(self.body) - offset
            self.entries.append(struct.pack("<32sIIIB", id, offset, length, len(plain), kind))
            self.stored[id] = struct.pack("<32s24sIII", id, self.pack, offset, length, len(plain))
            self.listed.append(self.stored[id] + bytes([kind]))
        return self.stored[id]

    def end_pack(self, directory=None, gap=b""):
        """Writes the pack. What is given instead of the right thing makes it a wrong one."""
        offset = len(self.body)
        directory = directory or struct.pack("<I", len(self.entries)) + b"".join(self.entries)
        self.body += self.seal("pack", self.pack, offset, directory)
        trailer = struct.pack("<II", offset, len(self.body) - offset)
        self.body += gap
        self.body += trailer + struct.pack("<I", crc32c(trailer)) + b"ORLOPEND"
        self.put(f"domains/default/packs/{self.writer[:1].hex()}/{self.pack.hex()}", self.body)
        self.packs.append({"id": self.pack.hex(), "bytes": len(self.body)})
        self.begin_pack(self.sequence + 1)

    # Tables, section 7

    def table(self, entries):
        """Stores a table and returns its reference. `entries` maps keys to values."""
        level, pages, run = 0, self._pages(sorted(entries.items()), 0), len(entries)
        while len(pages) > 1:
            level += 1
            pages = self._pages(pages, level)
        return pages[0][1] + struct.pack("<BQ", level, run)

    def _pages(self, entries, level):
        pages, page, length = [], [], 0

        def end():
            nonlocal page, length
            data = struct.pack("<B3xI", level, len(page))
            data += b"".join(struct.pack("<II", len(key), len(value)) + key + value for key, value in page)
            pages.append((page[0][0] if page else b"", self.blob(data, kind=2)))
            page, length = [], 0

        fewest = 2 if level else 1
        for key, value in entries:
            own = 8 + len(key) + len(value)
            if length + own > 262_144 and len(page) >= fewest:
                end()
            page.append((key, value))
            length += own
            hashed = struct.unpack("<I", blake3(key).digest()[:4])[0]
            if length >= 32_768 and hashed * 32_768 < own * 2 ** 32 and len(page) >= fewest:
                end()
        if page or not pages:
            end()
        return pages

    # Index runs, section 8

    def run_entries(self):
        def order(entry):
            id, epoch, writer, sequence, offset = struct.unpack("<32sQ12sII", entry[:60])
            return id, epoch, writer, sequence, offset

        return sorted(self.listed, key=order)

    def end_run(self, entries=None, most=949, first=None, change_sections=lambda sections, end: None, more=b"",
                change_directory=lambda directory: None, magic=b"ORLOPIDX", version=1):
        """Writes the run. What is given instead of the right thing makes it a wrong one, or one of a later version."""
        entries = self.run_entries() if entries is None else entries
        self.listed = []
        identifier = struct.pack("<Q12sI", EPOCH, self.writer, self.runs)
        begin = 8 + 4 + 24 + 4 + (3 if more else 2) * 20 + 4
        blocks, directory = b"", []
        for at in range(0, len(entries), most):
            block = entries[at:at + most]
            sealed = self.seal("index run", identifier, begin + len(blocks), b"".join(block))
            id = first or block[0][:32]
            directory.append(struct.pack("<32sQII", id, begin + len(blocks), len(sealed), len(block)))
            blocks += sealed
        change_directory(directory)
        sealed = self.seal("index run", identifier, begin + len(blocks),
                           struct.pack("<I", len(directory)) + b"".join(directory))
        end = begin + len(blocks) + len(sealed)
        sections = [[1, begin, len(blocks)], [2, begin + len(blocks), len(sealed)]]
        sections += [[9, end, len(more)]] if more else []
        change_sections(sections, end)
        header = magic + struct.pack("<I", version) + identifier + struct.pack("<I", len(sections))
        header += b"".join(struct.pack("<IQQ", *section) for section in sections)
        self.put(f"domains/default/index/{EPOCH:016x}-{self.writer.hex()}-{self.runs:08x}",
                 header + struct.pack("<I", crc32c(header)) + blocks + sealed + more)
        self.runs += 1

    # Recovery points, section 9

    def root(self, name, kind, table, bytes, files=0, claim=None):
        root = {"name": name, "kind": kind, "table": table_json(table), "files": files, "bytes": bytes,
                "changedWhileRead": 0, "started": "2026-01-02T03:04:05Z", "finished": "2026-01-02T03:04:06Z"}
        return root | ({"claim": claim} if claim else {})

    def point(self, id, roots, objects=None, ledger=None, source=None):
        document = {
            "version": 1, "id": id, "created": "2026-01-02T03:04:05Z", "complete": True, "roots": roots,
            "source": source or {"kind": "paths", "host": "somewhere"},
            "sessions": [self.session], "packs": sorted(self.packs, key=lambda pack: pack["id"]),
            "stats": {"objects": 0, "files": 0, "bytes": 0, "newBytes": 0, "storedBytes": 0}}
        for name, table in ("objects", objects), ("ledger", ledger):
            if table:
                document[name] = table_json(table)
        self.put_point(id, canonical(document))

    def put_point(self, id, text, magic=b"ORLOPPNT", version=1):
        head, nonce = magic + struct.pack("<I", version), os.urandom(12)
        cipher = AESGCM(derive("recovery point", self.data + id.encode()))
        self.put(f"domains/default/points/{id}", head + nonce + cipher.encrypt(nonce, text, head + id.encode()))


    # Collections, section 10

    def put_collection(self, epoch, text):
        head, nonce, place = b"ORLOPCOL" + struct.pack("<I", 1), os.urandom(12), struct.pack("<Q", epoch)
        cipher = AESGCM(derive("collection", self.data + place))
        self.put(f"domains/default/collections/{epoch:016x}", head + nonce + cipher.encrypt(nonce, text, head + place))


def table_json(table):
    return {"root": table[:68].hex(), "height": table[68], "entries": struct.unpack("<Q", table[69:])[0]}


# Contents: file-tree.md and volume.md


def extent(offset, length, blob_offset, blob):
    return struct.pack("<QII", offset, length, blob_offset) + blob


def extents_table(writer, extents):
    return writer.table({value[7::-1]: value[8:] for value in extents})


def entry(kind, mode=0o644, further=b"", xattrs=(), owner=None, mtime=(1_000_000_000, 5)):
    uid, gid = owner or (os.geteuid(), os.getegid())
    head = struct.pack("<BBIII", 1, kind, mode, uid, gid) + struct.pack("<qI", *mtime) * 2
    head += struct.pack("<QII", 7, 8, 1)  # Inode and device.
    attributes = b"".join(counted(name) + counted(value) for name, value in xattrs)
    return head + struct.pack("<I", len(xattrs)) + attributes + further


def counted(data):
    return struct.pack("<I", len(data)) + data


def file_of_extents(size, extents):
    return struct.pack("<QBBI", size, 1, 0, len(extents)) + b"".join(extents)


def file_of_table(size, table):
    return struct.pack("<QBB", size, 1, 1) + table


def segment_value(table, extents):
    """The value of a segment with its two sums."""
    lengths = sum(struct.unpack("<I", value[8:12])[0] for value in extents)
    blobs = {value[16:48]: struct.unpack("<I", value[80:84])[0] for value in extents}
    return table + struct.pack("<QQ", lengths, sum(blobs.values()))
