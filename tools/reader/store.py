"""The store and the names in it (section 1), and the references to what is in the objects."""

import dataclasses
import errno
import os
import re
import stat
import struct

from primitives import Damage, Missing, number_of, fields_of, parse_hex, require

SMALL_LIMIT = 16 * 1024  # Checked JSON.
PACK_LIMIT = 64 * 1024 * 1024
RUN_LIMIT = 32 * 1024 * 1024
POINT_LIMIT = 128 * 1024 * 1024
COLLECTION_LIMIT = 128 * 1024 * 1024
HEIGHT_LIMIT = 24

# Section 1. A pack lies in the folder of the first byte of its writer; anywhere else it is a foreign object.
NAMES = {kind: re.compile(pattern) for kind, pattern in {
    "configuration": r"orlop-repository",
    "epoch": r"epochs/[0-9a-f]{16}",
    "key": r"domains/default/keys/[0-9a-f]{32}",
    "removal": r"domains/default/removals/[0-9a-f]{32}-[0-9a-f]{32}",
    "pack": r"domains/default/packs/([0-9a-f]{2})/[0-9a-f]{16}\1[0-9a-f]{30}",
    "run": r"domains/default/index/[0-9a-f]{16}-[0-9a-f]{24}-[0-9a-f]{8}",
    "point": r"domains/default/points/[a-z0-9-]{1,63}",
    "pin": r"domains/default/pins/[a-z0-9-]{1,63}",
    "repair": r"domains/default/repairs/[0-9a-f]{24}",
    "session": r"domains/default/sessions/[0-9a-f]{16}-[0-9a-f]{24}",
    "beat": r"domains/default/beats/[0-9a-f]{16}-[0-9a-f]{24}-[0-9a-f]{8}",
    "collection": r"domains/default/collections/[0-9a-f]{16}",
    "collected": r"domains/default/collections/[0-9a-f]{16}-done",
}.items()}


def kind_of_name(name):
    return next((kind for kind, pattern in NAMES.items() if pattern.fullmatch(name)), None)


def session_name(session):
    return f"domains/default/sessions/{session}"


def pack_name(pack):
    return f"domains/default/packs/{pack[8:9].hex()}/{pack.hex()}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """A blob reference, section 1."""
    blob: bytes
    pack: bytes
    offset: int
    stored: int
    plain: int

    SIZE = 68

    @staticmethod
    def parse(data):
        require(len(data) == Reference.SIZE, "a blob reference has not 68 bytes")
        return Reference(*struct.unpack("<32s24sIII", data))

    def order(self):
        """The order of the entries of an index run, section 8: numbers are compared as numbers."""
        epoch, writer, sequence = struct.unpack("<Q12sI", self.pack)
        return self.blob, epoch, writer, sequence, self.offset


@dataclasses.dataclass(frozen=True)
class Table:
    """A table reference, section 1."""
    root: Reference
    height: int
    entries: int

    SIZE = 77

    @staticmethod
    def parse(data):
        require(len(data) == Table.SIZE, "a table reference has not 77 bytes")
        return Table(Reference.parse(data[:68]), *struct.unpack("<BQ", data[68:]))._checked()

    @staticmethod
    def from_json(value, what):
        fields_of(value, ["root", "height", "entries"], [], what)
        root = Reference.parse(parse_hex(value["root"], Reference.SIZE, what))
        return Table(root, number_of(value["height"], what, 255), number_of(value["entries"], what))._checked()

    def _checked(self):
        require(self.height <= HEIGHT_LIMIT, f"a table is higher than {HEIGHT_LIMIT}")
        return self


class Folder:
    """The store: a folder whose files are the objects."""

    def __init__(self, path):
        self.path = path

    def names(self):
        """The names of all objects, and how many foreign ones there are."""
        found, foreign = [], 0
        for folder, _, files in os.walk(self.path):
            below = os.path.relpath(folder, self.path)
            for file in files:
                name = file if below == "." else f"{below}/{file}"
                if kind_of_name(name):
                    found.append(name)
                else:
                    foreign += 1
        return sorted(found), foreign

    def has(self, name):
        return os.path.lexists(os.path.join(self.path, name))

    def open(self, name, limit):
        return Object(self.path, name, limit)

    def read(self, name, limit):
        with self.open(name, limit) as file:
            return file.read(0, file.length)


class Object:
    """An object that is open for reading."""

    def __init__(self, path, name, limit):
        try:
            # A pipe in the place of an object must not make the reader wait for ever.
            self.fd = os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Missing(f"{name} is not there") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise Damage(f"{name} is not a file") from None
            raise
        about = os.fstat(self.fd)
        self.name, self.length = name, about.st_size
        if not stat.S_ISREG(about.st_mode) or self.length > limit:
            self.close()
            raise Damage(f"{name} is not a file of at most {limit} bytes")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        os.close(self.fd)

    def read(self, offset, length):
        require(offset <= self.length and length <= self.length - offset, f"{self.name} ends too early")
        parts, at = [], offset
        while at < offset + length:
            part = os.pread(self.fd, offset + length - at, at)
            require(part, f"{self.name} became shorter while it was read")
            parts.append(part)
            at += len(part)
        return b"".join(parts)
