"""Configuration, epochs, keys and seals: sections 3 and 4."""

import dataclasses
import struct

import argon2.low_level
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from primitives import Damage, fields_of, number_of, open_checked, parse_checked, parse_hex, require, text_of, time_of

TAG = 16
LOCK_MODES = ("governance", "compliance")


def derive(purpose, material):
    """Section 4: the keys that are made of the master key."""
    return blake3(material, derive_key_context=f"orlop.io repository v1 {purpose}").digest()


class Seal:
    """Opens the parts of one object that are sealed at their offset, section 4."""

    def __init__(self, key, identifier):
        self.cipher, self.identifier = AESGCM(key), identifier

    def open(self, sealed, offset, what):
        place = struct.pack("<Q", offset)
        require(len(sealed) >= TAG, f"{what} at {offset} is shorter than its seal")
        try:
            return self.cipher.decrypt(place + bytes(4), sealed, self.identifier + place)
        except InvalidTag:
            raise Damage(f"{what} at {offset} does not open with its key") from None


@dataclasses.dataclass
class Keys:
    master: bytes

    def __post_init__(self):
        self.identity, self.data = derive("blob identity", self.master), derive("data", self.master)
        self.proof = derive("key object", self.master)

    def check_proof(self, data):
        """Section 4: that a key is, as it is, from somebody who had the master key."""
        end = len(data) - 67 - len(',"checksum":"') - 1 - 64
        before, digits = data[:max(end, 0)], data[max(end, 0):end + 64]
        require(before.endswith(b',"proof":"'), "its last field but one is not the proof")
        require(blake3(before, key=self.proof).hexdigest().encode() == digits,
                "it is not from somebody who had the master key, or was changed")


def unwrap_master_key(data, name, repository, passphrase):
    """Section 4: the master key that an object under keys/ holds, or None if this passphrase does not open it."""
    fields = parse_key(data, name)
    if fields is None or fields["repository"] != repository.hex():
        return None  # An interrupted creation left it.
    cost = fields["cost"]
    try:
        wrapping = argon2.low_level.hash_secret_raw(
            passphrase, bytes.fromhex(fields["salt"]), time_cost=cost["passes"], memory_cost=cost["memoryKib"],
            parallelism=cost["lanes"], hash_len=32, type=argon2.low_level.Type.ID, version=0x13)
    except argon2.exceptions.HashingError as error:
        raise Damage(f"its cost cannot be paid: {error}") from error
    try:
        return AESGCM(wrapping).decrypt(bytes(12), bytes.fromhex(fields["sealed"]),
                                        repository + bytes.fromhex(fields["key"]) + b"default")
    except InvalidTag:
        return None


def parse_key(data, name):
    """The fields of a key, or None if this reader does not know its method, such as a key service, or its domain."""
    known = open_checked(data, "orlop-key")
    label = text_of(known.get("label"), "label")
    require(len(label.encode()) <= 128 and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in label),
            "label: it is not one short line")
    time_of(known.get("created"), "created")
    parse_hex(known.get("proof"), 32, "proof")
    if (known.get("method"), known.get("domain")) != ("passphrase-argon2id", "default"):
        text_of(known.get("method"), "method"), text_of(known.get("domain"), "domain")
        return None
    fields = parse_checked(data, "orlop-key", [
        "repository", "domain", "key", "label", "created", "method", "cost", "salt", "sealed", "proof"])
    parse_hex(fields["repository"], 16, "repository")
    require(parse_hex(fields["key"], 16, "key").hex() == name.rsplit("/", 1)[1], "its key id is not that of its name")
    # The limits come before any memory is spent on the derivation.
    cost = fields["cost"]
    require(isinstance(cost, dict) and list(cost) == ["memoryKib", "passes", "lanes"], "its cost has other fields")
    for field, limit in ("memoryKib", 131_072), ("passes", 16), ("lanes", 16):
        require(number_of(cost[field], field, limit) >= 1, f"{field} is zero")
    parse_hex(fields["salt"], 16, "salt")
    parse_hex(fields["sealed"], 48, "sealed")
    return fields


def parse_removal(data, name):
    fields = parse_checked(data, "orlop-key-removal", ["repository", "key"])
    parse_hex(fields["repository"], 16, "repository")
    key = parse_hex(fields["key"], 16, "key").hex()
    require(name.rsplit("/", 1)[1].startswith(f"{key}-"), "its key id is not that of its name")


def parse_configuration(data):
    """Section 3: the repository id."""
    fields = parse_checked(data, "orlop-repository", ["repository", "conditionalCreate"], ["versions", "objectLock", "lock"])
    for field in ("conditionalCreate", "versions"):
        require(isinstance(fields.get(field, False), bool), f"{field} is neither true nor false")
    if "objectLock" in fields:
        ability = fields_of(fields["objectLock"], [], ["defaultMode", "defaultDays"], "objectLock")
        require(ability.get("defaultMode", "governance") in LOCK_MODES, "objectLock: nobody knows this mode")
        number_of(ability.get("defaultDays", 0), "defaultDays", 2 ** 32 - 1)
    if "lock" in fields:
        lock = fields_of(fields["lock"], ["mode", "seconds"], [], "lock")
        require(lock["mode"] in LOCK_MODES, "lock: nobody knows this mode")
        number_of(lock["seconds"], "seconds")
    return parse_hex(fields["repository"], 16, "repository")


def parse_epoch(data, name):
    epoch = number_of(parse_checked(data, "orlop-epoch", ["epoch"])["epoch"], "epoch")
    require(epoch >= 1, "the first epoch is 1")
    require(name == f"epochs/{epoch:016x}", "its epoch is not that of its name")
    return epoch


def parse_repair(data, name):
    """Section 10: the mark of a session that repaired something."""
    writer = parse_checked(data, "orlop-repair", ["writer"])["writer"]
    require(name == f"domains/default/repairs/{writer}", "its writer is not that of its name")
