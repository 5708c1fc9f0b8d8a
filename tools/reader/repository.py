"""A repository that is open: what the reference of a blob, a table or a recovery point stands for."""

from keys import Keys, parse_configuration, unwrap_master_key
from packs import BLOB_LIMIT, Pack, Run
from points import parse_point
from primitives import Cache, Cursor, Damage, Missing, Unsupported, require
from sessions import is_tombstone, parse_tombstone
from store import POINT_LIMIT, SMALL_LIMIT, Folder, Reference, kind_of_name, pack_name, session_name

KEY_LIMIT = 64 * 1024
VALUE_LIMIT = 8 * 1024 * 1024
# Each costs as much as it says. Who may write to the store must not keep a reader busy for ever.
KEYS_LIMIT = 64


class Repository:
    """A repository that its passphrase has opened."""

    def __init__(self, path, passphrase):
        self.folder = Folder(path)
        self.names, self.foreign = self.folder.names()
        if "orlop-repository" not in self.names:
            raise Missing(f"there is no repository in {path}")
        self.id = parse_configuration(self.folder.read("orlop-repository", SMALL_LIMIT))
        self.keys = Keys(self._master_key(passphrase))
        self.packs = Cache(32, drop=Pack.close)
        self.blobs = Cache(2 * BLOB_LIMIT, weigh=len)
        self.runs = Cache(64, drop=Run.close)
        # Where moved blobs are, or that no index run knows: a table or volume may ask for many in one pack.
        self.places = Cache(100_000)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.packs.clear()
        self.runs.clear()

    def of_kind(self, kind):
        return [name for name in self.names if kind_of_name(name) == kind]

    def _master_key(self, passphrase):
        problems = []
        for name in self.of_kind("key")[:KEYS_LIMIT]:
            # One damaged key must not keep another one from opening the repository.
            try:
                master = unwrap_master_key(self.folder.read(name, SMALL_LIMIT), name, self.id, passphrase)
            except (Damage, Unsupported) as error:
                problems.append(f"{name}: {error}")
                continue
            if master is not None:
                require(len(master) == 32, f"{name}: the master key has not 32 bytes")
                return master
        raise Damage("; ".join(["the passphrase opens no key of the repository", *problems]))

    def pack(self, pack):
        return self.packs.get(pack, lambda: Pack(self.folder, self.keys, pack))

    def blob(self, reference):
        """The plain bytes of a blob, section 5, wherever it is."""
        return self.blobs.get(reference, lambda: self._read_blob(reference))

    def _read_blob(self, reference):
        try:
            return self._read_at(reference)
        except (Missing, Damage) as error:
            place = self.moved(reference)
            if place is not None:
                return self._read_at(place)
            if isinstance(error, Missing):
                raise Missing(f"{error}, and no index run knows another place of its blob") from None
            raise

    def _read_at(self, reference):
        pack = self.pack(reference.pack)
        try:
            return pack.blob(reference)
        except Damage as error:
            raise Damage(f"{pack_name(reference.pack)}: {error}") from None

    def moved(self, reference):
        """Where a blob is that cannot be read where a reference says: a place that the index runs know, and where it is whole. Or None."""
        return self.places.get((reference.blob, reference.plain), lambda: self._look_up(reference))

    def _look_up(self, reference):
        for name in self.of_kind("run"):
            try:
                others = list(self.run(name).find(reference.blob))
            except (Damage, Unsupported):
                continue  # Damage to one run does not keep the others from being used.
            for other in others:
                if other.plain != reference.plain or other.pack == reference.pack:
                    continue
                try:
                    self._read_at(other)
                    return other
                except (Missing, Damage):
                    continue  # It may be whole in yet another place.
        return None

    def run(self, name):
        return self.runs.get(name, lambda: Run(self.folder, self.keys, name))

    def point(self, id):
        name = f"domains/default/points/{id}"
        if kind_of_name(name) != "point":
            raise Missing(f"{id} cannot be the id of a recovery point")
        data = self.folder.read(name, POINT_LIMIT)
        if is_tombstone(data):
            parse_tombstone(data, id)
            raise Missing(f"{name} was revoked before it was published")
        point = parse_point(data, id, self.keys)
        for session in point.sessions:
            if not self.folder.has(session_name(session)):
                raise Missing(f"{name} does not count: {session_name(session)} is not there")
        return point

    def points(self):
        """The ids of the recovery points that count, and of those that cannot be read."""
        return [id for id in (name.rsplit("/", 1)[1] for name in self.of_kind("point")) if self._may_count(id)]

    def _may_count(self, id):
        try:
            self.point(id)
        except Missing:
            return False
        except (Damage, Unsupported, OSError):
            pass  # Whoever reads it finds that.
        return True

    # Tables, section 7

    def entries(self, table, read=None):
        """All keys and values of a table, in order, checked. `read` may stand for reading a page."""
        count = 0
        for entry in self._page_entries(read or self.blob, table.root, table.height, None, None):
            count += 1
            yield entry
        require(count == table.entries, f"a table has {count} entries instead of {table.entries}")

    def _page_entries(self, read, reference, level, first, limit):
        """The entries below a page whose first key must be `first`, and whose keys must be less than `limit`."""
        entries = page_entries(read(reference), level)
        entry = next(entries, None)
        if first is not None:
            require(entry is not None and entry[0] == first, "a page begins with another key than its parent says")
        require(entry is not None or level == 0, "an inner page has no entry")
        while entry is not None:
            key, value = entry
            entry = next(entries, None)
            require(limit is None or key < limit, "a key lies beyond the range of its page")
            if level == 0:
                yield key, value
            else:
                following = limit if entry is None else entry[0]
                yield from self._page_entries(read, Reference.parse(value), level - 1, key, following)

    def lookup(self, table, key, read=None):
        """The value of one key, or None."""
        reference = table.root
        for level in range(table.height, -1, -1):
            found = None
            for other, value in page_entries((read or self.blob)(reference), level):
                if other > key:
                    break
                found = (other, value)
            if found is None:
                return None
            if level > 0:
                reference = Reference.parse(found[1])
        return found[1] if found[0] == key else None


def page_entries(data, level):
    """The entries of one page. It yields one after the other, since a hostile page may have very many small ones."""
    cursor = Cursor(data, "a page of a table")
    require(cursor.u8() == level, "a page has another level than its place")
    require(cursor.take(3) == bytes(3), "a page has bytes that are not zero where they should be")
    previous = None
    for _ in range(cursor.u32()):
        key_length, value_length = cursor.u32(), cursor.u32()
        require(key_length <= KEY_LIMIT and value_length <= VALUE_LIMIT, "a key or value of a table is too long")
        key, value = cursor.take(key_length), cursor.take(value_length)
        require(previous is None or previous < key, "the keys of a page do not ascend")
        previous = key
        yield key, value
    cursor.end()
