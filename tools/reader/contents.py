"""What the tables of contents hold: file trees (file-tree.md), volumes and streams (volume.md).

Whatever these functions yield has been checked. They go forward and keep one path or one extent in memory, so their
memory does not grow with the content.
"""

import dataclasses
import itertools
import struct

from primitives import Cursor, Damage, require
from store import Reference, Table

DIRECTORY, FILE, SYMLINK, FIFO, CHARACTER_DEVICE, BLOCK_DEVICE, HARD_LINK = range(1, 8)
KIND_NAMES = ["", "directory", "file", "symlink", "fifo", "character device", "block device", "hard link"]
SEGMENT = 2 ** 30


@dataclasses.dataclass(frozen=True)
class Extent:
    offset: int
    length: int
    blob_offset: int
    blob: Reference

    @staticmethod
    def parse(offset, value):
        require(len(value) == 76, "an extent has another length than it should")
        length, blob_offset = struct.unpack("<II", value[:8])
        return Extent(offset, length, blob_offset, Reference.parse(value[8:]))


@dataclasses.dataclass
class Entry:
    """The value of an entry of a tree."""
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: tuple
    ctime: tuple
    inode: int
    xattrs: list
    size: int = 0
    extents: list | Table | None = None
    target: bytes = b""
    device: tuple = ()


def parse_time(cursor):
    seconds, nanoseconds = cursor.i64(), cursor.u32()
    require(nanoseconds < 1_000_000_000, "a time has too many nanoseconds")
    return seconds, nanoseconds


def parse_entry(value):
    """file-tree.md, "Value: the entry"."""
    cursor = Cursor(value, "an entry of a tree")
    version = cursor.u8()
    require(version == 1, f"an entry has version {version}, and this reader knows version 1 only")
    kind, mode = cursor.u8(), cursor.u32()
    require(DIRECTORY <= kind <= HARD_LINK, f"an entry has the unknown kind {kind}")
    require(mode <= 0o7777, "an entry has an impossible mode")
    uid, gid, mtime, ctime = cursor.u32(), cursor.u32(), parse_time(cursor), parse_time(cursor)
    require(0xFFFFFFFF not in (uid, gid), "an entry has an impossible owner")
    inode, _, _ = cursor.u64(), cursor.u32(), cursor.u32()
    # The list grows with what is there, not with the count that is claimed.
    xattrs = [(cursor.counted(), cursor.counted()) for _ in range(cursor.u32())]
    require(all(one[0] < two[0] for one, two in itertools.pairwise(xattrs)), "the attributes are not sorted")
    entry = Entry(kind, mode, uid, gid, mtime, ctime, inode, xattrs)
    if kind in (SYMLINK, HARD_LINK):
        entry.target = cursor.counted()
        # No file system has a symlink without a target or with a zero byte in it.
        require(kind == HARD_LINK or (entry.target and b"\0" not in entry.target), "a symlink has an impossible target")
    elif kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
        entry.device = cursor.u32(), cursor.u32()
    elif kind == FILE:
        entry.size, flags, content = cursor.u64(), cursor.u8(), cursor.u8()
        require(flags <= 1 and content <= 1, "a file has unknown flags or an unknown kind of content")
        if content == 1:
            entry.extents = Table.parse(cursor.take(Table.SIZE))
        else:
            count = cursor.u32()
            require(count <= 512, "a file has more than 512 extents in its entry")
            entry.extents = [Extent.parse(cursor.u64(), cursor.take(76)) for _ in range(count)]
    cursor.end()
    return entry


def extents_of_table(repository, table, read=None):
    """file-tree.md, "table of extents"."""
    for key, value in repository.entries(table, read):
        require(len(key) == 8, "the key of an extent has not eight bytes")
        yield Extent.parse(int.from_bytes(key, "big"), value)


def checked_extents(extents, begin, end):
    """The rules for extents: they ascend, do not overlap, and lie within begin and end and within their blobs."""
    for extent in extents:
        require(extent.length > 0, "an extent is empty")
        require(extent.offset >= begin, "extents overlap, are not in order, or lie before what they belong to")
        begin = extent.offset + extent.length
        require(begin <= end, "an extent ends after what it belongs to")
        require(extent.blob_offset + extent.length <= extent.blob.plain, "an extent reaches beyond its blob")
        yield extent


def file_extents(repository, entry, read=None):
    extents = entry.extents
    if isinstance(extents, Table):
        extents = extents_of_table(repository, extents, read)
    return checked_extents(extents, 0, entry.size)


def parse_path(key):
    """file-tree.md, "Key: the path": the names of the components."""
    path = key.split(b"\0") if key else []
    for name in path:
        require(1 <= len(name) <= 255 and name not in (b".", b"..") and b"/" not in name,
                "a tree has an impossible name in it")
    return path


def tree_entries(repository, table, read=None):
    """The entries of a tree, each with its path, in the order of a walk. The top comes first, with an empty path."""
    directories = None  # The names of the directories that lead to the last entry.
    for key, value in repository.entries(table, read):
        path, entry = parse_path(key), parse_entry(value)
        if directories is None:
            require(not path and entry.kind == DIRECTORY, "the top of a tree is missing, or not a directory")
            directories = []
        else:
            parent = path[:-1]
            require(directories[:len(parent)] == parent, "a tree has an entry in what is not a directory before it")
            directories = path if entry.kind == DIRECTORY else parent
        if entry.kind == HARD_LINK:
            require(entry.target < key, "a hard link refers to an entry that is not before it")
            other = repository.lookup(table, entry.target, read)
            require(other is not None and parse_entry(other).kind not in (DIRECTORY, HARD_LINK),
                    "a hard link refers to nothing that could be linked")
        yield path, entry
    require(directories is not None, "a tree is empty")


@dataclasses.dataclass(frozen=True)
class Segment:
    """volume.md, "Volumes"."""
    number: int
    begin: int
    end: int
    table: Table
    extent_bytes: int
    blob_bytes: int


def segments(repository, root, read=None):
    for key, value in repository.entries(root.table, read):
        require(len(key) == 4 and len(value) == Table.SIZE + 16, "a segment has another length than it should")
        number = int.from_bytes(key, "big")
        begin = number * SEGMENT
        require(begin < root.bytes, "a segment lies after the end of its volume")
        table = Table.parse(value[:Table.SIZE])
        require(table.entries > 0, "a segment without extents has an entry")
        yield Segment(number, begin, min(begin + SEGMENT, root.bytes), table, *struct.unpack("<QQ", value[Table.SIZE:]))


def segment_extents(repository, segment, read=None):
    return checked_extents(extents_of_table(repository, segment.table, read), segment.begin, segment.end)


def image_extents(repository, root, read=None):
    """All extents of a volume or of a stream."""
    if root.kind == "stream":
        yield from checked_extents(extents_of_table(repository, root.table, read), 0, root.bytes)
    elif root.kind == "volume":
        for segment in segments(repository, root, read):
            yield from segment_extents(repository, segment, read)
    else:
        raise Damage(f"{root.name} is neither a volume nor a stream")
