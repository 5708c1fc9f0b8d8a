"""Blobs, packs and index runs: sections 5, 6 and 8."""

import bisect
import struct

import zstandard
from blake3 import blake3

from keys import TAG, Seal, derive
from primitives import Cursor, Damage, check_version, crc32c, require
from store import PACK_LIMIT, RUN_LIMIT, Reference, pack_name

BLOB_LIMIT = 16 * 1024 * 1024
PACK_BLOBS_LIMIT = 65_536


def decode_blob(encoded, plain_length):
    """Section 5: the plain bytes of an encoded blob, at most as many as are said to be there."""
    require(encoded, "it has no codec")
    codec, payload = encoded[0], encoded[1:]
    if codec == 0:
        plain = payload
    elif codec == 1:
        try:
            # The library reserves what the frame claims, so the claim is compared first.
            claim = zstandard.get_frame_parameters(payload).content_size
            require(claim in (plain_length, zstandard.CONTENTSIZE_UNKNOWN), "the frame has another length")
            # The library takes zero for no limit. A frame that claims no length gets one byte too many, and is found
            # out below.
            decoder = zstandard.ZstdDecompressor(max_window_size=2 ** 27)
            plain = decoder.decompress(payload, max_output_size=plain_length or 1, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Damage(f"it does not decompress: {error}") from error
    else:
        raise Damage(f"its codec {codec} is not known")
    require(len(plain) == plain_length, f"it has {len(plain)} bytes instead of {plain_length}")
    return plain


class Pack:
    """An open pack, section 6."""

    HEADER, ENTRY, TRAILER = 40, 45, 20

    def __init__(self, folder, keys, pack):
        self.id, self.keys = pack, keys
        self.file = folder.open(pack_name(pack), PACK_LIMIT)
        self.seal = Seal(derive("pack", keys.data + pack), pack)

    def close(self):
        self.file.close()

    def blob(self, reference):
        """The plain bytes of a blob, verified. Needs neither header nor directory, so they may be damaged."""
        require(reference.plain <= BLOB_LIMIT, "a blob is longer than 16 MiB")
        sealed = self.file.read(reference.offset, reference.stored)
        what = f"the blob at {reference.offset}"
        encoded = self.seal.open(sealed, reference.offset, "the blob")
        try:
            plain = decode_blob(encoded, reference.plain)
        except Damage as error:
            raise Damage(f"{what}: {error}") from None
        require(blake3(plain, key=self.keys.identity).digest() == reference.blob, f"{what} has another id")
        return plain

    def check_header(self):
        header = self.file.read(0, self.HEADER)
        require(header[:8] == b"ORLOPPAK", "the magic of the header differs")
        require(crc32c(header[:36]) == struct.unpack("<I", header[36:])[0], "the checksum of the header differs")
        check_version(struct.unpack("<I", header[8:12])[0], "the pack")
        require(header[12:36] == self.id, "the header has another pack id than the name")

    def directory(self):
        """The entries of the directory, checked: each a reference and a kind."""
        end = self.file.length - self.TRAILER
        require(end >= self.HEADER, "it is too short for a pack")
        trailer = self.file.read(end, self.TRAILER)
        require(trailer[12:] == b"ORLOPEND", "the magic of the trailer differs")
        begin, length, checksum = struct.unpack("<III", trailer[:12])
        require(crc32c(trailer[:8]) == checksum, "the checksum of the trailer differs")
        require(begin >= self.HEADER and begin + length == end, "the directory does not reach up to the trailer")
        require(length <= 4 + PACK_BLOBS_LIMIT * self.ENTRY + TAG, f"it has more than {PACK_BLOBS_LIMIT} blobs")
        plain = self.seal.open(self.file.read(begin, length), begin, "the directory")
        require(len(plain) >= 4, "the directory is too short")
        count = struct.unpack("<I", plain[:4])[0]
        require(len(plain) == 4 + count * self.ENTRY, "the directory has another length than its entries")
        entries, at = [], self.HEADER
        for blob, offset, stored, length, kind in struct.iter_unpack("<32sIIIB", plain[4:]):
            require(offset == at, f"there is a gap or an overlap at {at}")
            require(kind in (1, 2), f"the blob at {offset} has the unknown kind {kind}")
            require(stored >= 1 + TAG and length <= BLOB_LIMIT, f"the blob at {offset} has an impossible length")
            entries.append((Reference(blob, self.id, offset, stored, length), kind))
            at += stored
        require(at == begin, "the blobs do not reach up to the directory")
        return entries


class Run:
    """An open index run, section 8. Only its directory is in memory."""

    HEADER = 8 + 4 + 24 + 4
    SECTIONS_LIMIT = 16

    def __init__(self, folder, keys, name):
        self.file = folder.open(name, RUN_LIMIT)
        try:
            self._open(keys, name)
        except BaseException:
            self.close()
            raise

    def close(self):
        self.file.close()

    def _open(self, keys, name):
        data = self.file.read(0, min(self.file.length, self.HEADER + self.SECTIONS_LIMIT * 20 + 4))
        cursor = Cursor(data, "the header")
        require(cursor.take(8) == b"ORLOPIDX", "the magic of the header differs")
        version = cursor.u32()
        identifier = cursor.take(24)
        epoch, writer, sequence = struct.unpack("<Q12sI", identifier)
        count = cursor.u32()
        require(count <= self.SECTIONS_LIMIT, f"it has more than {self.SECTIONS_LIMIT} sections")
        sections = [(cursor.u32(), cursor.u64(), cursor.u64()) for _ in range(count)]
        checksum = crc32c(data[:cursor.at])
        require(cursor.u32() == checksum, "the checksum of the header differs")
        # Version and name are compared after the checksum, so that damage is called damage.
        check_version(version, "the index run")
        own_name = f"{epoch:016x}-{writer.hex()}-{sequence:08x}"
        require(name.rsplit("/", 1)[1] == own_name, "its name is that of another run")
        self.epoch = epoch
        at, known = cursor.at, {}
        for kind, offset, length in sections:
            require(offset == at and length <= self.file.length - at, "its sections do not lie back to back")
            if kind in (1, 2):  # Others are ignored: later versions may add some.
                require(kind not in known, f"it has two sections of kind {kind}")
                known[kind] = (offset, length)
            at += length
        require(at == self.file.length, "something follows its sections")
        require(1 in known and 2 in known, "it lacks its blocks or its directory")
        self.seal = Seal(derive("index run", keys.data + identifier), identifier)
        self.blocks = self._directory(*known[2], *known[1])

    def _directory(self, offset, length, at, blocks_length):
        end = at + blocks_length
        plain = self.seal.open(self.file.read(offset, length), offset, "the directory")
        require(len(plain) >= 4 and len(plain) == 4 + 48 * struct.unpack("<I", plain[:4])[0],
                "the directory has another length than its blocks")
        blocks = []
        for first, offset, sealed, count in struct.iter_unpack("<32sQII", plain[4:]):
            require(1 <= count <= 949 and sealed == 69 * count + TAG, "a block has an impossible length")
            require(offset == at and sealed <= end - at, "its blocks do not lie back to back")
            require(not blocks or blocks[-1][0] <= first, "its blocks are not in order")
            blocks.append((first, offset, sealed))
            at += sealed
        require(at == end, "its blocks do not fill their section")
        return blocks

    def block(self, index):
        first, offset, length = self.blocks[index]
        plain = self.seal.open(self.file.read(offset, length), offset, "the block")
        entries = [(Reference.parse(plain[at:at + 68]), plain[at + 68]) for at in range(0, len(plain), 69)]
        require(entries[0][0].blob == first, f"the block at {offset} begins with another blob")
        return entries

    def entries(self):
        """All entries, and a check of their order."""
        previous = None
        for index in range(len(self.blocks)):
            for reference, kind in self.block(index):
                require(kind in (1, 2), f"an entry has the unknown kind {kind}")
                # They ascend, but not strictly: the same place may be named twice.
                require(previous is None or previous <= reference.order(), "its entries are not in order")
                previous = reference.order()
                yield reference, kind

    def find(self, blob):
        """References to a blob. The same one may be there more than once, and so reach over several blocks."""
        firsts = [first for first, _, _ in self.blocks]
        begin = max(bisect.bisect_left(firsts, blob) - 1, 0)
        for index in range(begin, bisect.bisect_right(firsts, blob)):
            yield from (reference for reference, _ in self.block(index) if reference.blob == blob)
