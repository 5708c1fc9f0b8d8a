"""Reads every byte of every object and follows every reference, like `orlop repo check --read-data`."""

import bisect

import applications
import contents
from keys import parse_configuration, parse_epoch, parse_key, parse_removal, parse_repair
from packs import Pack, Run
from points import parse_pin
from primitives import Cache, Damage, Missing, Unsupported, open_checked, require
from sessions import parse_collected, parse_collection, parse_session
from store import COLLECTION_LIMIT, PACK_LIMIT, SMALL_LIMIT, pack_name

# What can be wrong with one thing, so that the others are looked at all the same.
WRONG = (Damage, Unsupported, OSError)
# Entries of directories of packs that are kept in memory. Others are read again when they are needed.
DIRECTORY_ENTRIES = 200_000


class Checker:
    def __init__(self, repository):
        self.repository = repository
        self.findings = []  # (object, what is wrong)
        self.hit = set()  # The recovery points that are hit.
        self.point = None  # The one that is being looked at.
        self.bad_packs = set()  # Those with a damaged header, directory or trailer.
        self.bad_blobs = set()  # (pack, offset)
        self.directories = Cache(DIRECTORY_ENTRIES, weigh=lambda directory: len(directory or ()) + 1)
        self.last = None  # The reference that was followed last: extents in a row often have the same.

    def found(self, name, error):
        text = f"{error.strerror}" if isinstance(error, OSError) else str(error)
        if (name, text) not in self.findings[-1:]:
            self.findings.append((name, text))
        if self.point is not None:
            self.hit.add(self.point)

    def guarded(self, name, action, *arguments):
        try:
            action(*arguments)
        except WRONG as error:
            self.found(name, error)

    def run(self):
        keys = self.repository.keys
        small = {
            "configuration": (lambda data, _: parse_configuration(data), SMALL_LIMIT),
            "epoch": (parse_epoch, SMALL_LIMIT), "key": (self.check_key, SMALL_LIMIT), "removal": (parse_removal, SMALL_LIMIT),
            "pin": (parse_pin, SMALL_LIMIT), "repair": (parse_repair, SMALL_LIMIT), "session": (parse_session, SMALL_LIMIT),
            "collected": (parse_collected, SMALL_LIMIT), "beat": (lambda *_: None, 0),
            "collection": (lambda data, name: parse_collection(data, name, keys), COLLECTION_LIMIT)}
        for kind, (parse, limit) in small.items():
            for name in self.repository.of_kind(kind):
                self.guarded(name, lambda: parse(self.repository.folder.read(name, limit), name))
        if not self.repository.of_kind("epoch"):
            self.found("epochs/", Missing("there is no epoch"))
        for name in self.repository.of_kind("pack"):
            self.guarded(name, self.check_pack, name)
        for name in self.repository.of_kind("run"):
            self.guarded(name, self.check_run, name)
        for id in self.repository.points():
            self.point = id
            self.guarded(f"domains/default/points/{id}", self.check_point, id)

    def check_key(self, data, name):
        parse_key(data, name)
        fields = open_checked(data, "orlop-key")
        if fields.get("repository") == self.repository.id.hex() and fields.get("domain") == "default":
            self.repository.keys.check_proof(data)

    def check_epoch(self, epoch):
        # A damaged epoch is a finding of its own, so here its name is enough.
        require(f"epochs/{epoch:016x}" in self.repository.names, f"it belongs to epoch {epoch}, which was never opened")

    # Packs and index runs

    def check_pack(self, name):
        id = bytes.fromhex(name.rsplit("/", 1)[1])
        self.guarded(name, self.check_epoch, int.from_bytes(id[:8], "little"))
        try:
            pack = Pack(self.repository.folder, self.repository.keys, id)
        except WRONG:
            self.bad_packs.add(id)
            raise
        try:
            try:
                pack.check_header()
            except WRONG as error:
                self.bad_packs.add(id)
                self.found(name, error)
            try:
                directory = pack.directory()
            except WRONG:
                self.bad_packs.add(id)
                raise
            for reference, _ in directory:
                try:
                    pack.blob(reference)
                except WRONG as error:
                    self.bad_blobs.add((id, reference.offset))
                    self.found(name, error)
        finally:
            pack.close()

    def directory(self, pack):
        """The directory of a pack, or None if it is damaged. Missing is raised if the pack is not there."""
        def read():
            try:
                return self.repository.pack(pack).directory()
            except Missing:
                raise
            except WRONG:
                return None  # That was found when the pack was checked.
        return self.directories.get(pack, read)

    def listed(self, reference):
        """The entry of the directory of its pack for a reference, with the kind; None if the directory is damaged."""
        directory = self.directory(reference.pack)
        if directory is None:
            return None
        at = bisect.bisect_left(directory, reference.offset, key=lambda entry: entry[0].offset)
        require(at < len(directory) and directory[at][0] == reference,
                f"a reference differs from what {pack_name(reference.pack)} has at {reference.offset}")
        return directory[at]

    def check_run(self, name):
        run = Run(self.repository.folder, self.repository.keys, name)
        try:
            self.guarded(name, self.check_epoch, run.epoch)
            for reference, kind in run.entries():
                if not self.repository.folder.has(pack_name(reference.pack)):
                    continue  # What is needed of it is elsewhere, or is missed by a recovery point.
                try:
                    listed = self.listed(reference)
                    require(listed is None or listed[1] == kind,
                            f"it says another kind of a blob than {pack_name(reference.pack)}")
                except Missing:
                    pass  # A collector has deleted the pack, and the run goes with the last one.
                except WRONG as error:
                    self.found(name, error)
        finally:
            run.close()

    # Recovery points

    def follow(self, reference):
        """Looks whether what a reference stands for is there and sound. The bytes were read with the pack."""
        if reference == self.last:
            return
        try:
            listed = self.listed(reference)
            if listed is None:
                self.repository.blob(reference)  # It can still be read, and nobody has read it yet.
            broken = reference.pack in self.bad_packs or (reference.pack, reference.offset) in self.bad_blobs
        except (Missing, Damage):
            if self.elsewhere(reference):
                self.last = reference
                return
            raise
        if broken and not self.elsewhere(reference):
            self.hit.add(self.point)
        self.last = reference

    def elsewhere(self, reference):
        """Whether a blob is whole in another pack than the one that a reference names."""
        return self.repository.moved(reference) is not None

    def page(self, reference):
        self.follow(reference)
        return self.repository.blob(reference)

    def check_point(self, id):
        name = f"domains/default/points/{id}"
        self.last = None
        point = self.repository.point(id)
        for pack, length in point.packs:
            self.guarded(name, self.check_pack_of_point, pack, length)
        self.guarded(name, applications.check, self.repository, point, self.page)
        for root in point.roots:
            self.guarded(f"{name}: {root.name}", self.check_tree if root.kind == "tree" else self.check_image, root)

    def check_pack_of_point(self, pack, length):
        if not self.repository.folder.has(pack_name(pack)):
            return  # Whoever needs a blob of it that is nowhere else misses it when references are followed.
        with self.repository.folder.open(pack_name(pack), PACK_LIMIT) as file:
            require(file.length == length, f"{pack_name(pack)} has {file.length} bytes instead of {length}")

    def check_tree(self, root):
        files, size = 0, 0
        for _, entry in contents.tree_entries(self.repository, root.table, self.page):
            if entry.kind == contents.FILE:
                files, size = files + 1, size + entry.size
                for extent in contents.file_extents(self.repository, entry, self.page):
                    self.follow(extent.blob)
        require((files, size) == (root.files, root.bytes),
                f"it has {files} files of {size} bytes, and {root.files} of {root.bytes} are announced")

    def check_image(self, root):
        if root.kind == "stream":
            for extent in contents.image_extents(self.repository, root, self.page):
                self.follow(extent.blob)
            return
        for segment in contents.segments(self.repository, root, self.page):
            length, blobs = 0, {}
            for extent in contents.segment_extents(self.repository, segment, self.page):
                self.follow(extent.blob)
                length += extent.length
                blobs[extent.blob.blob] = extent.blob.plain
            require((length, sum(blobs.values())) == (segment.extent_bytes, segment.blob_bytes),
                    f"segment {segment.number} has other sums")
