"""What every part of the format is made of: integers, checksums, checked JSON, canonical JSON.

The numbers of sections in the comments of this reader are those of docs/formats/repository.md, if no other document is
named.
"""

import collections
import json
import re
import struct

from blake3 import blake3

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)")


class Damage(Exception):
    """Bytes are not as the specification says."""


class Missing(Damage):
    """An object is not there."""


class Unsupported(Exception):
    """A later version wrote this. It is no damage, and must not be called so."""


def require(condition, message):
    """Like assert, but it is never optimised away."""
    if not condition:
        raise Damage(message)


class Cursor:
    """Goes through bytes. Every length is compared with what is left before anything is taken."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, length):
        if length > len(self.data) - self.at:
            raise Damage(f"{self.what}: it ends too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def _number(self, layout, length):
        return struct.unpack(layout, self.take(length))[0]

    def u8(self):
        return self._number("<B", 1)

    def u32(self):
        return self._number("<I", 4)

    def u64(self):
        return self._number("<Q", 8)

    def i64(self):
        return self._number("<q", 8)

    def counted(self):
        """The type `bytes` of file-tree.md: a length, and as many bytes."""
        return self.take(self.u32())

    def end(self):
        require(self.at == len(self.data), f"{self.what}: something follows its end")


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data):
    """CRC-32C (Castagnoli). Only headers and trailers have one, so a slow one will do."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


class Cache:
    """Keeps what was used last, up to a total weight, so that memory does not grow with the repository."""

    def __init__(self, limit, weigh=lambda value: 1, drop=lambda value: None):
        self.entries, self.weight = collections.OrderedDict(), 0
        self.limit, self.weigh, self.drop = limit, weigh, drop

    def get(self, key, make):
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key]
        value = self.entries[key] = make()
        self.weight += self.weigh(value)
        # The newest always stays: the caller is about to use it.
        while self.weight > self.limit and len(self.entries) > 1:
            _, old = self.entries.popitem(last=False)
            self.weight -= self.weigh(old)
            self.drop(old)
        return value

    def clear(self):
        while self.entries:
            self.drop(self.entries.popitem()[1])
        self.weight = 0


# JSON


class _Literal(str):
    """A number with a fraction or an exponent, as it is spelled. Its value is of no interest to this reader."""


def _unique(pairs):
    fields = dict(pairs)
    # Readers disagree about which of two equal names counts, so there must not be any.
    require(len(fields) == len(pairs), "JSON: a field is there twice")
    return fields


def _no_constant(name):
    raise Damage(f"JSON: {name} is not JSON")


def parse_json(data):
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_float=_Literal,
                          parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Damage(f"no valid JSON: {error}") from error


def _spell(value):
    if isinstance(value, dict):
        # Python compares text by code points, which is the order of the bytes in UTF-8.
        return "{" + ",".join(f"{_spell(name)}:{_spell(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spell, value)) + "]"
    if isinstance(value, _Literal):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def parse_canonical(data):
    """JSON in the one spelling of section 9."""
    value = parse_json(data)
    require(spell_canonical(value) == data, "the JSON is not in its one spelling")
    return value


def spell_canonical(value):
    try:
        return _spell(value).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Damage(f"no valid JSON: {error}") from error


def check_version(version, what):
    require(type(version) is int and version >= 1, f"{what}: it has no valid version")
    if version > 1:
        raise Unsupported(f"{what} has version {version}, and this reader knows version 1 only")


def open_checked(data, kind):
    """Checked JSON, section 2, of which the fields are not known yet. Returns them."""
    require(len(data) <= 16 * 1024, "checked JSON is longer than 16 KiB")
    require(data[:1] == b"{" and data[-3:] == b'"}\n' and data.count(b"\n") == 1 and b"\r" not in data,
            "it is not one line of JSON with a checksum at its end")
    before, digits = data[:-67], data[-67:-3]
    require(before.endswith(b',"checksum":"'), "its last field is not the checksum")
    require(blake3(before).hexdigest().encode() == digits, "its checksum differs")
    value = parse_json(data)
    require(value.get("format") == kind, f"its format is not {kind}")
    # The version comes before the fields: a later one may have others.
    check_version(value.get("version"), kind)
    return value


def parse_checked(data, kind, fields, optional=()):
    """Checked JSON with just these fields, in this order; those that are optional come last, and may be left out."""
    value = open_checked(data, kind)
    expected = ["format", "version", *fields, *(name for name in optional if name in value), "checksum"]
    require(list(value) == expected, "it has other fields, or in another order")
    return value


def parse_hex(text, length, what):
    """Lowercase hexadecimal digits for as many bytes."""
    require(isinstance(text, str) and len(text) == 2 * length and set(text) <= set("0123456789abcdef"),
            f"{what}: these are not {2 * length} lowercase hexadecimal digits")
    return bytes.fromhex(text)


def fields_of(value, required, optional, what):
    """The fields of a JSON object; unknown ones are refused."""
    require(isinstance(value, dict), f"{what}: it is not an object")
    names = set(value)
    require(names >= set(required), f"{what}: it lacks {', '.join(sorted(set(required) - names))}")
    unknown = names - set(required) - set(optional)
    require(not unknown, f"{what}: unknown field {', '.join(sorted(unknown))}")
    return value


def number_of(value, what, limit=2 ** 64 - 1):
    """An unsigned number. True is a number in Python, but not here."""
    require(type(value) is int and 0 <= value <= limit, f"{what}: it is not a number from 0 to {limit}")
    return value


def text_of(value, what):
    require(isinstance(value, str), f"{what}: it is not text")
    return value


def time_of(value, what):
    require(isinstance(value, str) and TIME.fullmatch(value), f"{what}: it is not a time in UTC")
    return value
