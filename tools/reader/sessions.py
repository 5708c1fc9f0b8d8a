"""What sessions and collectors leave, sections 9 and 10."""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys import TAG, derive
from primitives import (Damage, check_version, fields_of, number_of, parse_canonical, parse_checked, parse_hex, require,
                        text_of)
from store import PACK_LIMIT


def parse_session(data, name):
    """The recovery point that a session works for."""
    fields = parse_checked(data, "orlop-session", ["epoch", "writer", "point", "host", "started"])
    epoch, writer = number_of(fields["epoch"], "epoch"), parse_hex(fields["writer"], 12, "writer")
    require(name.endswith(f"/{epoch:016x}-{writer.hex()}"), "its session is not that of its name")
    text_of(fields["host"], "host"), text_of(fields["started"], "started")
    return text_of(fields["point"], "point")


def is_tombstone(data):
    return data[:1] == b"{"


def parse_tombstone(data, id):
    fields = parse_checked(data, "orlop-revoked", ["point", "revoked"])
    require(fields["point"] == id, "its id is not that of its name")
    text_of(fields["revoked"], "revoked")


def parse_collected(data, name):
    epoch = number_of(parse_checked(data, "orlop-collected", ["epoch"])["epoch"], "epoch")
    require(name.endswith(f"/{epoch:016x}-done"), "its epoch is not that of its name")


def parse_collection(data, name, keys):
    """The points and the candidates that a collection names."""
    epoch = int(name.rsplit("/", 1)[1], 16)
    place = struct.pack("<Q", epoch)
    require(data[:8] == b"ORLOPCOL" and len(data) >= 24 + TAG, "it is no collection")
    try:
        text = AESGCM(derive("collection", keys.data + place)).decrypt(data[12:24], data[24:], data[:12] + place)
    except InvalidTag:
        raise Damage("it does not open with its key") from None
    check_version(struct.unpack("<I", data[8:12])[0], "the collection")
    value = parse_canonical(text)
    require(isinstance(value, dict), "its document is not an object")
    check_version(value.get("version"), "the document")
    fields_of(value, ["version", "epoch", "points", "candidates"], [], "the document")
    require(value["epoch"] == epoch, "its epoch is not that of its name")
    require(isinstance(value["points"], list) and isinstance(value["candidates"], list), "it has no lists")
    points = [text_of(point, "points") for point in value["points"]]
    for pack in value["candidates"]:
        fields_of(pack, ["id", "bytes"], [], "candidates")
        parse_hex(pack["id"], 24, "candidates"), number_of(pack["bytes"], "candidates", PACK_LIMIT)
    return points, value["candidates"]
