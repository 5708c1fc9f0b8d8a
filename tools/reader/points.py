"""Recovery points: section 9."""

import dataclasses
import re
import struct
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys import TAG, derive
from primitives import (Damage, check_version, fields_of, number_of, parse_canonical, parse_checked, parse_hex, require,
                        text_of, time_of)
from store import PACK_LIMIT, Table


@dataclasses.dataclass
class Root:
    """One content of a recovery point, section 9."""
    name: str
    kind: str
    table: Table
    files: int
    bytes: int
    fields: dict


@dataclasses.dataclass
class Point:
    """A recovery point, section 9."""
    id: str
    fields: dict
    objects: Table | None
    ledger: Table | None
    roots: list
    sessions: list
    packs: list


SESSION = re.compile(r"[0-9a-f]{16}-[0-9a-f]{24}")


def parse_point(data, id, keys):
    require(data[:8] == b"ORLOPPNT", "its magic differs")
    require(len(data) >= 24 + TAG, "it is too short for a recovery point")
    cipher = AESGCM(derive("recovery point", keys.data + id.encode()))
    try:
        text = cipher.decrypt(data[12:24], data[24:], data[:12] + id.encode())
    except InvalidTag:
        raise Damage("it does not open with its key") from None
    # The seal covers the version, so here a changed one is not taken for a later one.
    check_version(struct.unpack("<I", data[8:12])[0], "the recovery point")
    value = parse_canonical(text)
    require(isinstance(value, dict), "its document is not an object")
    check_version(value.get("version"), "the document")
    fields_of(value, ["version", "id", "created", "source", "complete", "roots", "sessions", "packs", "stats"],
              ["objects", "ledger", "tags"], "the document")
    require(value["id"] == id, "its id is not that of its name")
    time_of(value["created"], "created")
    require(isinstance(value["complete"], bool), "complete is neither true nor false")
    _check_source(value["source"])
    if "tags" in value:
        _check_tags(value["tags"])
    stats = ["objects", "files", "bytes", "newBytes", "storedBytes"]
    fields_of(value["stats"], stats, [], "stats")
    for field in stats:
        number_of(value["stats"][field], field)
    require(isinstance(value["roots"], list) and isinstance(value["packs"], list), "roots or packs are not lists")
    roots = [_parse_root(root) for root in value["roots"]]
    require(len({root.name for root in roots}) == len(roots), "two contents have one name")
    sessions = _parse_sessions(value["sessions"])
    packs = []
    for pack in value["packs"]:
        fields_of(pack, ["id", "bytes"], [], "packs")
        packs.append((parse_hex(pack["id"], 24, "packs"), number_of(pack["bytes"], "packs", PACK_LIMIT)))
    require(len({pack for pack, _ in packs}) == len(packs), "it names a pack twice")
    # A pack id holds the epoch and the writer of its session.
    writers = {f"{int.from_bytes(pack[:8], 'little'):016x}-{pack[8:20].hex()}" for pack, _ in packs}
    require(writers <= set(sessions), "a pack is of none of its sessions")
    tables = {name: Table.from_json(value[name], name) if name in value else None for name in ("objects", "ledger")}
    return Point(id, value, tables["objects"], tables["ledger"], roots, sessions, packs)


def _parse_sessions(value):
    require(isinstance(value, list) and value, "sessions: there are none")
    for session in value:
        require(isinstance(session, str) and SESSION.fullmatch(session), "sessions: it is not the name of one")
    require(len(set(value)) == len(value), "it names a session twice")
    return value


TAG_TEXT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/=-]{0,62}")


def _check_tags(tags):
    require(isinstance(tags, list) and 1 <= len(tags) <= 32, "tags: it is not a list of 1 to 32")
    for tag in tags:
        require(isinstance(tag, str) and TAG_TEXT.fullmatch(tag), "tags: one has characters that no tag has")
    require(all(a < b for a, b in zip(tags, tags[1:])), "tags: they are not in order, each once")


def parse_pin(data, name):
    """Why a recovery point is pinned, section 9. That the object is there pins it, whatever this says."""
    fields = parse_checked(data, "orlop-pin", ["point", "reason", "created"])
    require(fields["point"] == name.rsplit("/", 1)[1], "it is the pin of another recovery point")
    reason = text_of(fields["reason"], "reason")
    require(1 <= len(reason.encode()) <= 512 and reason.strip() and not any(map(_is_control, reason)),
            "reason: it is not one line of 1 to 512 bytes")
    time_of(fields["created"], "created")
    return reason


def _is_control(character):
    return unicodedata.category(character) == "Cc"


def _check_source(source):
    require(isinstance(source, dict), "source: it is not an object")
    if source.get("kind") == "application":
        fields_of(source, ["kind", "clusterId", "backup", "namespaces"], ["clusterName"], "source")
        require(isinstance(source["namespaces"], list), "namespaces: it is not a list")
        texts = [source["clusterId"], source["backup"], source.get("clusterName", ""), *source["namespaces"]]
    elif source.get("kind") == "paths":
        texts = [fields_of(source, ["kind", "host"], [], "source")["host"]]
    else:
        raise Damage("source: its kind is not known")
    for text in texts:
        text_of(text, "source")


def _parse_root(value):
    names = ["name", "kind", "table", "files", "bytes", "changedWhileRead", "started", "finished"]
    fields_of(value, names, ["claim"], "root")
    name = text_of(value["name"], "the name of a content")
    require(value["kind"] in ("tree", "volume", "stream"), f"{name}: its kind is not known")
    for field in "files", "bytes", "changedWhileRead":
        number_of(value[field], field)
    for field in "started", "finished":
        time_of(value[field], field)
    if "claim" in value:
        claim = fields_of(value["claim"], ["namespace", "name", "object"], [], "claim")
        text_of(claim["namespace"], "claim"), text_of(claim["name"], "claim")
        require(isinstance(claim["object"], dict), "claim: its object is not an object")
    return Root(name, value["kind"], Table.from_json(value["table"], name), value["files"], value["bytes"], value)
