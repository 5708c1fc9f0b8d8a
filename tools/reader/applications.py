"""The tables of an application: docs/formats/application.md."""

import dataclasses

from primitives import fields_of, parse_canonical, require, text_of

OUTCOMES = {"stored": None, "skipped": "rule", "missed": "reason"}
# The name of an entry of the ledger that stands for all objects of a kind.
ALL = "~"


@dataclasses.dataclass(frozen=True)
class Name:
    """What a key of both tables names."""
    scope: str
    group: str
    kind: str
    namespace: str
    name: str

    @property
    def is_data(self):
        """Whether it stands for the data of a claim, which is in a root and not in the table of objects."""
        return (self.group, self.kind) == ("orlop.io", "Volume")


def parse_name(key):
    try:
        parts = key.decode("utf-8").split("\0")
    except UnicodeDecodeError:
        parts = []
    require(len(parts) == 5, "a key of an application is not five texts")
    name = Name(*parts)
    require(name.scope in ("a", "c") and name.kind and name.name, "a key of an application lacks scope, kind or name")
    require(bool(name.namespace) == (name.scope == "a"), "a key of an application has a namespace against its scope")
    return name


def objects(repository, table, read=None):
    """The objects: key, name, and the object as it is stored."""
    for key, value in repository.entries(table, read):
        name, found = parse_name(key), parse_canonical(value)
        require(isinstance(found, dict) and isinstance(found.get("metadata"), dict), "an object has no metadata")
        version = text_of(found.get("apiVersion"), "apiVersion")
        group = version.rpartition("/")[0]
        agreed = (group, found.get("kind"), found["metadata"].get("name"), found["metadata"].get("namespace", ""))
        require(agreed == (name.group, name.kind, name.name, name.namespace), "an object has another key than its own")
        yield key, name, value


def ledger(repository, table, read=None):
    """The entries of the ledger: key, name, and fields."""
    for key, value in repository.entries(table, read):
        name, fields = parse_name(key), parse_canonical(value)
        fields_of(fields, ["version", "outcome"], ["rule", "reason"], "the ledger")
        for field in fields.values():
            text_of(field, "the ledger")
        require(fields["outcome"] in OUTCOMES, "the ledger has an unknown outcome")
        for field in "rule", "reason":
            require((field in fields) == (OUTCOMES[fields["outcome"]] == field), f"the ledger has {field} or lacks it")
        yield key, name, fields


def check(repository, point, read):
    """What the two tables say of each other and of the recovery point. Goes through both at once, in their order."""
    stored = iter(()) if point.objects is None else objects(repository, point.objects, read)
    entries = iter(()) if point.ledger is None else ledger(repository, point.ledger, read)
    roots = {root.name for root in point.roots}
    missed = False
    following = next(stored, None)
    for key, name, fields in entries:
        missed = missed or fields["outcome"] == "missed"
        if name.is_data:
            require(fields["outcome"] != "stored" or f"{name.namespace}/{name.name}" in roots,
                    f"the data of {name.namespace}/{name.name} is missing")
            continue
        require(following is None or following[0] >= key, "the ledger lacks an object that is stored")
        is_stored = following is not None and following[0] == key
        require(is_stored == (fields["outcome"] == "stored"), "an object is stored against what the ledger says")
        if is_stored:
            following = next(stored, None)
    require(following is None, "the ledger lacks an object that is stored")
    if point.ledger is not None:
        require(point.fields["complete"] != missed, "complete is not what the ledger says")
