"""Tests of the reader: python -m unittest, in this folder, with the packages of requirements.txt.

ORLOP names the program. Without it only the tests run that need no other implementation than the small writer.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import argon2.low_level
import zstandard

import keys
import orlop_reader
import packs
import primitives
import repository
import small_writer
import store
from primitives import Damage
from small_writer import (SmallWriter, counted, entry, extent, extents_table, file_of_extents, file_of_table,
                          segment_value)

ORLOP = os.environ.get("ORLOP")
# With ORLOP_TOO=1, `orlop repo check` must refuse what the reader refuses.
ORLOP_TOO = ORLOP and os.environ.get("ORLOP_TOO") == "1"
ROOT = os.geteuid() == 0
PASSPHRASE = b"correct horse \xc3\xa4 battery"
needs_orlop = unittest.skipUnless(ORLOP, "ORLOP does not name the program")
HERE = pathlib.Path(__file__).parent


def needs_root(test):
    """A skip is counted with those of the other tests; ORLOP_NO_SKIP=1 makes it a failure."""
    if ROOT:
        return test
    reason = "only root can become somebody else"
    if os.environ.get("ORLOP_NO_SKIP") == "1":
        raise RuntimeError(f"{test.__name__} must run, but {reason}")
    if os.environ.get("ORLOP_SKIPS"):
        with open(os.environ["ORLOP_SKIPS"], "a") as skips:
            skips.write(f"SKIP: {test.__name__}: {reason}\n")
    return unittest.skip(reason)(test)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="reader-"))
        self.addCleanup(self.remove)
        self.repository = self.folder / "repository"
        self.password = self.folder / "passphrase"
        self.password.write_bytes(PASSPHRASE + b"\n")
        # The same derivation over and over is most of the time of these tests.
        derivation = functools.cache(argon2.low_level.hash_secret_raw)
        patch = mock.patch("argon2.low_level.hash_secret_raw", derivation)
        patch.start()
        self.addCleanup(patch.stop)

    def remove(self):
        for folder, _, _ in os.walk(self.folder):
            os.chmod(folder, 0o700)
        shutil.rmtree(self.folder)

    def read(self, *arguments):
        """Runs the reader in this process. Returns exit code, output and errors."""
        output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        command = ["--repository", str(self.repository), "--password-file", str(self.password), *map(str, arguments)]
        umask = os.umask(0o022)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                status = orlop_reader.main(command)
        finally:
            os.umask(umask)
        output.flush()
        return status, output.buffer.getvalue().decode(), errors.getvalue()

    def succeed(self, *arguments):
        status, output, errors = self.read(*arguments)
        self.assertEqual((status, errors), (0, ""), output)
        return output

    def refuse(self, what, *arguments):
        """The reader must fail, and say what is wrong."""
        status, output, errors = self.read(*arguments)
        self.assertEqual(status, 1, output)
        self.assertIn(what, output + errors)
        if ORLOP_TOO and arguments == ("check",):
            done = self.orlop("check", "--read-data")
            self.assertEqual(done.returncode, 1, f"orlop accepts it, but: {what}")

    def orlop(self, *arguments):
        command = [ORLOP, "repo", *map(str, arguments), "--location", f"file://{self.repository}",
                   "--password-file", str(self.password)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def orlop_succeeds(self, *arguments):
        done = self.orlop(*arguments)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def kind(self, path):
        return store.kind_of_name(str(path.relative_to(self.repository)))

    def objects(self):
        return sorted(path for path in self.repository.rglob("*") if path.is_file())


# Comparing directories


def data_ranges(fd, size):
    """Where a file has data; the rest are holes."""
    ranges, at = [], 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        ranges.append((begin, at))
    return ranges


def describe(path, links):
    about = os.lstat(path)
    found = {
        "mode": oct(about.st_mode), "owner": (about.st_uid, about.st_gid), "modified": about.st_mtime_ns,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False)
                   for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux"}}
    if stat.S_ISREG(about.st_mode):
        fd = os.open(path, os.O_RDONLY)
        try:
            found["size"], found["ranges"] = about.st_size, data_ranges(fd, about.st_size)
            digest = hashlib.sha256()
            for begin, end in found["ranges"]:
                digest.update(os.pread(fd, end - begin, begin))
            found["content"] = digest.hexdigest()
        finally:
            os.close(fd)
    elif stat.S_ISLNK(about.st_mode):
        found["target"] = os.readlink(path)
    elif stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
        found["device"] = about.st_rdev
    if not stat.S_ISDIR(about.st_mode):
        # The first path of a set of hard links stands for it.
        found["same as"] = links.setdefault((about.st_dev, about.st_ino), os.path.basename(path))
    return found


def snapshot(top):
    """All that there is to know about a directory."""
    top, found, links = os.fsencode(top), {}, {}
    for folder, folders, files in os.walk(top):
        folders.sort()
        found[os.path.relpath(folder, top)] = describe(folder, links)
        for name in sorted(files) + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = describe(path, links)
    return found


def image_hash(path):
    """Of the whole content; holes read as zeros."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(one, two):
    lines = []
    for path in sorted(one.keys() | two.keys()):
        first, second = one.get(path, {}), two.get(path, {})
        for field in sorted(first.keys() | second.keys()):
            if first.get(field) != second.get(field):
                lines.append(f"{path}: {field}: {first.get(field)} / {second.get(field)}")
    return lines


def build_tree(top):
    """A directory with every kind of file."""
    chance = random.Random(7)
    top.mkdir()
    (top / "empty").touch()
    (top / "large").write_bytes(chance.randbytes(3 << 20))
    small = top / "small"
    small.mkdir()
    for number in range(200):
        (small / f"{number:03}").write_bytes(chance.randbytes(chance.randrange(3000)))
    deep = top / "deep"
    for number in range(60):
        deep = deep / f"level {number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("far down")
    # A directory sorts before its siblings with a character less than the slash in their names.
    for name in "order", "order!", "order.d":
        (top / name).mkdir()
        (top / name / "in it").write_text(name)
    names = top / "names"
    names.mkdir()
    for name in b"\xff\xfe\x80", b"line\nfeed", b"back\\slash", "ä → ß".encode(), b"-rf *", b"x" * 255:
        with open(os.path.join(os.fsencode(names), name), "wb") as file:
            file.write(name)
    links = top / "links"
    links.mkdir()
    (links / "first").write_text("one of three")
    os.link(links / "first", links / "second")
    os.link(links / "first", top / "zz third")
    os.symlink("nowhere/\udcff", links / "dangling")
    os.symlink("/", links / "absolute")
    os.symlink("..", links / "up")
    os.link(links / "dangling", links / "dangling too", follow_symlinks=False)
    special = top / "special"
    special.mkdir()
    os.mkfifo(special / "pipe", 0o640)
    os.link(special / "pipe", special / "pipe too")
    with open(top / "sparse", "wb") as file:
        file.truncate((1 << 30) + 1)
        for at in 1 << 20, 700 << 20, (1 << 30) - 4096:
            os.pwrite(file.fileno(), chance.randbytes(8192 if at < 1 << 29 else 4096), at)
    with open(top / "hole", "wb") as file:
        file.truncate(1 << 20)
    # More pieces than an entry has room for.
    with open(top / "pieces", "wb") as file:
        for number in range(700):
            os.pwrite(file.fileno(), chance.randbytes(4096), number * 8192)
    attributes = top / "attributes"
    attributes.mkdir()
    (attributes / "file").write_text("attributes")
    os.setxattr(attributes / "file", "user.text", b"text")
    os.setxattr(attributes / "file", "user.empty", b"")
    os.setxattr(attributes / "file", "user.bytes", bytes(range(256)))
    os.setxattr(attributes, "user.of.directory", b"\0")
    subprocess.run(["setfacl", "-m", "u:12345:r,g:54321:rw", attributes / "file"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12345:rwx", attributes], check=True)
    for name, mode in {"none": 0, "set-id": 0o6755, "read only": 0o444, "sticky": 0o1777}.items():
        (attributes / name).write_text(name)
        os.chmod(attributes / name, mode)
    if ROOT:
        os.mknod(special / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(special / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 300000))
        (special / "owned").write_text("owned")
        os.chown(special / "owned", 12345, 54321)
        os.chmod(special / "owned", 0o6711)
        os.setxattr(special / "owned", "trusted.text", b"text")
        # The capability net_raw; a change of the owner would take it away.
        os.setxattr(special / "owned", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
        os.lchown(links / "dangling", 12345, 54321)
        os.setxattr(links / "dangling", "trusted.of.symlink", b"text", follow_symlinks=False)
        os.chown(small, 12345, 54321)
    os.utime(top / "large", ns=(0, 123_456_789))
    os.utime(top / "empty", ns=(0, -1_500_000_001))
    os.utime(links / "dangling", ns=(0, 987_654_321_012_345_678), follow_symlinks=False)
    os.utime(special / "pipe", ns=(0, 1_000_000_000_000_000_007))
    shut = top / "shut"
    shut.mkdir()
    (shut / "in it").write_text("shut")
    os.chmod(shut, 0o500)
    for folder in shut, small, links, top:
        os.utime(folder, ns=(0, 1_234_567_890_123_456_789))


class Comparison(Case):
    """A comparison that finds nothing proves nothing."""

    def test_every_change_is_noticed(self):
        top = self.folder / "tree"
        build_tree(top)
        before = snapshot(top)
        self.assertEqual(differences(before, snapshot(top)), [])

        def rewrite():
            with open(top / "large", "r+b") as file:
                file.write(b"x")
            os.utime(top / "large", ns=(0, 123_456_789))

        def fill_hole():
            with open(top / "hole", "r+b") as file:
                file.write(bytes(4096))

        def unlink_and_copy():
            (top / "links/second").unlink()
            shutil.copy2(top / "links/first", top / "links/second")

        changes = {
            "content": rewrite, "ranges": fill_hole, "same as": unlink_and_copy,
            "mode": lambda: os.chmod(top / "empty", 0o755),
            "modified": lambda: os.utime(top / "empty", ns=(0, -1_500_000_002)),
            "xattrs": lambda: os.setxattr(top / "attributes", "user.of.directory", b"\1"),
            "size": lambda: os.truncate(top / "links/first", 3),
            "target": lambda: (os.unlink(top / "links/up"), os.symlink(".", top / "links/up")),
        }
        if ROOT:
            changes["owner"] = lambda: os.chown(top / "empty", 1, 1)
            changes["device"] = lambda: (os.unlink(top / "special/null"),
                                         os.mknod(top / "special/null", stat.S_IFCHR | 0o666, os.makedev(1, 5)))
        for field, change in changes.items():
            with self.subTest(field):
                change()
                after = snapshot(top)
                self.assertTrue(any(f": {field}: " in line for line in differences(before, after)), field)
                before = after


@needs_orlop
class Orlop(Case):
    """What orlop wrote, the reader reads."""

    def setUp(self):
        super().setUp()
        self.orlop_succeeds("init")

    def test_everything_comes_back(self):
        tree, back = self.folder / "tree", self.folder / "back"
        build_tree(tree)
        self.orlop_succeeds("backup", tree, "--id", "one")
        before = snapshot(tree)
        self.assertIn("0 things are wrong", self.succeed("check"))
        self.succeed("restore", "one", back)
        self.assertEqual(differences(before, snapshot(back)), [])
        listed = self.succeed("ls", "one")
        self.assertEqual(len(listed.splitlines()), len(before))
        self.assertIn("names/line\\nfeed", listed)
        self.assertIn("names/\\xff\\xfe\\x80", listed)

    def test_volumes_come_back_in_every_generation(self):
        """A sparse image over two segments, and incrementals by lists of changes, so many that it is compacted."""
        seed = random.randrange(2 ** 32)
        chance = random.Random(seed)
        image = self.folder / "image"
        with self.subTest(seed=seed), open(image, "w+b", buffering=0) as file:
            file.truncate(2 ** 30 + 5_000)
            os.pwrite(file.fileno(), chance.randbytes(8 << 20), 3 << 20)
            os.pwrite(file.fileno(), chance.randbytes(100), 2 ** 30 - 50)
            self.orlop_succeeds("backup", "--image", image, "--name", "disk", "--id", "p0")
            for generation in range(1, 12):
                with open(self.folder / "changes", "w") as changes:
                    # Besides many small ones: across the border of the segments, up to the end, and over whole parts.
                    ranges = [(2 ** 30 - 3000, 5_000), (2 ** 30 + 4_000, 1_000), (4_000_000, 150_000)]
                    for _ in range(100):
                        ranges.append(((3 << 20) + 4096 * chance.randrange(2048), chance.randrange(1, 4097)))
                    for offset, length in ranges:
                        os.pwrite(file.fileno(), chance.choice([chance.randbytes(length), bytes(length)]), offset)
                        changes.write(f"{offset} {length}\n")
                self.orlop_succeeds("backup", "--image", image, "--name", "disk", "--id", f"p{generation}",
                                    "--parent", f"p{generation - 1}", "--changed-ranges", self.folder / "changes")
                back = self.folder / "back"
                self.succeed("restore", f"p{generation}", back)
                self.assertEqual(subprocess.run(["cmp", image, back]).returncode, 0, f"generation {generation}")
                self.assertLess(back.stat().st_blocks * 512, 16 << 20, "holes stay holes")
                back.unlink()
        self.assertIn("0 things are wrong", self.succeed("check"))

    def test_a_stream_comes_back(self):
        for id, dump in ("one", random.Random(5).randbytes(7 << 20) + bytes(3 << 20) + b"the end"), ("empty", b""):
            command = [ORLOP, "repo", "backup", "--stdin", "orders.sql", "--id", id, "--location",
                       f"file://{self.repository}", "--password-file", str(self.password)]
            subprocess.run(command, input=dump, check=True, capture_output=True, timeout=300)
            self.succeed("restore", id, self.folder / id)
            self.assertEqual((self.folder / id).read_bytes(), dump)
        self.assertIn("0 things are wrong", self.succeed("check"))

    def test_later_backups_share_and_stay_apart(self):
        tree = self.folder / "tree"
        build_tree(tree)
        self.orlop_succeeds("backup", tree, "--id", "one")
        first = snapshot(tree)
        with open(tree / "large", "r+b") as file:
            file.seek(1 << 20)
            file.write(b"changed")
        (tree / "small/100").unlink()
        (tree / "small/new").write_text("new")
        (tree / "links/first").write_text("another text")
        self.orlop_succeeds("backup", tree, "--id", "two")
        second = snapshot(tree)
        self.assertNotEqual(differences(first, second), [])
        self.succeed("check")
        for id, expected in ("one", first), ("two", second):
            self.succeed("restore", id, self.folder / id)
            self.assertEqual(differences(expected, snapshot(self.folder / id)), [])
        self.orlop_succeeds("forget", "one")
        self.succeed("check")
        self.refuse("points/one is not there", "restore", "one", self.folder / "three")

    def test_large_tables(self):
        """So many entries that tables are several pages high."""
        tree = self.folder / "tree"
        tree.mkdir()
        for number in range(3000):
            (tree / (f"{number:05}" + "n" * 200)).write_bytes(b"%d" % (number % 50))
        self.orlop_succeeds("backup", tree, "--id", "one")
        with repository.Repository(self.repository, PASSPHRASE) as opened:
            self.assertGreater(opened.point("one").roots[0].table.height, 0)
        self.succeed("check")
        self.succeed("restore", "one", self.folder / "back")
        self.assertEqual(differences(snapshot(tree), snapshot(self.folder / "back")), [])

    @needs_root
    def test_without_privileges(self):
        """Somebody else gets what he may have: content, modes, times; no owners and no rights of others."""
        tree = self.folder / "tree"
        build_tree(tree)
        shutil.rmtree(tree / "special")
        os.removexattr(tree / "links/dangling", "trusted.of.symlink", follow_symlinks=False)
        self.orlop_succeeds("backup", tree, "--id", "one")
        before = snapshot(tree)
        os.chmod(self.folder, 0o755)
        subprocess.run(["chmod", "-R", "a+rX", self.repository, self.password], check=True)
        place = self.folder / "place"
        place.mkdir()
        os.chown(place, 65534, 65534)
        process = os.fork()
        if process == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                os._exit(self.read("restore", "one", place / "back")[0])
            finally:
                os._exit(99)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), 0)
        after = snapshot(place / "back")
        self.assertEqual(after[b"attributes/set-id"]["mode"], "0o100755")
        before[b"attributes/set-id"]["mode"] = "0o100755"
        for found in *before.values(), *after.values():
            del found["owner"]
        self.assertEqual(differences(before, after), [])

    def test_damaged_content_does_not_stay(self):
        tree, back = self.folder / "tree", self.folder / "back"
        tree.mkdir()
        chance = random.Random(1)
        (tree / "large").write_bytes(chance.randbytes(2 << 20))
        (tree / "small").write_text("small")
        self.orlop_succeeds("backup", tree, "--id", "one")
        # The middle of the greatest pack is in the large file.
        pack = max(self.objects(), key=lambda path: path.stat().st_size)
        flip(pack, pack.stat().st_size // 2)
        status, _, errors = self.read("restore", "one", back)
        self.assertEqual(status, 3)
        self.assertIn("large: ", errors)
        self.assertEqual(os.listdir(back), ["small"])
        self.assertEqual((back / "small").read_text(), "small")

    def test_every_flip_is_noticed(self):
        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "file").write_text("text" * 100)
        os.symlink("file", tree / "link")
        self.orlop_succeeds("backup", tree, "--id", "one")
        flip_everywhere(self, every=11)


def flip(path, offset):
    with open(path, "r+b") as file:
        byte = os.pread(file.fileno(), 1, offset)[0]
        os.pwrite(file.fileno(), bytes([byte ^ (1 << offset % 8)]), offset)


def flip_everywhere(case, every):
    """Flips single bits of all objects, one at a time: of the first and last 64 bytes all bytes, of the rest some."""
    case.assertIn("0 things are wrong", case.succeed("check"))
    kinds = set()
    for path in case.objects():
        kinds.add(case.kind(path))
        size = path.stat().st_size
        unnoticed = []
        for offset in sorted({*range(0, size, every), *range(min(size, 64)), *range(max(size - 64, 0), size)}):
            flip(path, offset)
            if case.read("check")[0] != 1:
                unnoticed.append(offset)
            flip(path, offset)
        case.assertEqual(unnoticed, [], path)
    case.assertEqual(kinds, {"configuration", "epoch", "key", "pack", "run", "point", "session"})
    case.succeed("check")


def escaped(path):
    """As the facts of fixtures name what is no printable ASCII."""
    return "".join(f"\\x{byte:02x}" if byte < 0x20 or byte >= 0x7f or byte == 0x5c else chr(byte) for byte in path)


def frozen_entry(path):
    about = os.lstat(path)
    holds, attribute = "", "-"
    if stat.S_ISREG(about.st_mode):
        kind = "file"
        with open(path, "rb") as file:
            holds = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISDIR(about.st_mode):
        kind = "directory"
    elif stat.S_ISLNK(about.st_mode):
        kind, holds = "symlink", escaped(os.readlink(path))
    elif stat.S_ISFIFO(about.st_mode):
        kind = "fifo"
    else:
        kind, holds = "character-device", str(about.st_rdev)
    with contextlib.suppress(OSError):
        attribute = os.getxattr(path, "user.orlop", follow_symlinks=False).hex()
    links, size = (0, 0) if kind == "directory" else (about.st_nlink, about.st_size)
    mode, owner = stat.S_IMODE(about.st_mode), f"{about.st_uid}:{about.st_gid}"
    return f"{kind} {mode:o} {owner} {links} {size} {about.st_mtime_ns} {attribute} {holds}"


def frozen_tree(top):
    top, found = os.fsencode(top), {}
    for folder, folders, files in os.walk(top):
        for name in [b"."] + files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.normpath(os.path.join(folder, name))
            found[escaped(b"" if path == top else os.path.relpath(path, top))] = frozen_entry(path)
    return {"kind": "tree", "entries": found}


def frozen_image(path):
    digest, number = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(64 << 10):
            if chunk != bytes(len(chunk)):
                digest.update(struct.pack("<Q", number) + chunk)
            number += 1
    return {"kind": "image", "bytes": os.stat(path).st_size, "sha256": digest.hexdigest()}


class Frozen(Case):
    """What the program wrote in its day, the reader reads for ever."""

    @needs_root
    def test_version_1(self):
        folders = sorted((HERE.parents[1] / "crates/repository/tests/fixtures/v1").iterdir())
        self.assertGreater(len(folders), 5)
        for folder in folders:
            with self.subTest(folder.name):
                self.frozen(folder)

    def frozen(self, folder):
        self.repository = self.folder / folder.name
        shutil.copytree(folder / "repository", self.repository)
        expected = json.loads((folder / "expected.json").read_bytes())
        for number, passphrase in enumerate(expected["passphrases"]):
            self.password.write_text(passphrase + "\n", "utf-8")
            self.assertIn("0 things are wrong", self.succeed("check"))
            listed = {line.split()[0] for line in self.succeed("list").splitlines() if not line.startswith(" ")}
            self.assertEqual(listed, set(expected["points"]))
            for id, point in expected["points"].items():
                for name, content in point["contents"].items():
                    target = self.folder / f"{folder.name}-{number}-{id}"
                    self.succeed("restore", id, target, "--volume", name)
                    self.assertEqual((frozen_tree if target.is_dir() else frozen_image)(target), content)
                for table, (count, _) in point["tables"].items():
                    self.assertEqual(len(self.succeed(table, id).splitlines()), count)


class Small(Case):
    """What the small writer wrote."""

    def setUp(self):
        super().setUp()
        self.writer = SmallWriter(self.repository, PASSPHRASE)

    def publish(self, *roots, **fields):
        """Ends the session with a recovery point, `one`."""
        self.writer.end_pack()
        self.writer.end_run()
        self.writer.point("one", list(roots), **fields)

    def publish_tree(self, entries, size=0):
        self.publish(self.writer.root("/tree", "tree", self.writer.table(entries), size))

    def build_all(self):
        """A repository with a tree, a volume, a stream, objects and a ledger. Returns what the images must be."""
        writer, chance = self.writer, random.Random(3)
        small, large = writer.blob(b"a small blob"), chance.randbytes(200_000)
        parts = [chance.randbytes(65536) for _ in range(5)]
        blobs = [writer.blob(part, codec=number % 2) for number, part in enumerate(parts)]
        writer.end_pack()
        # A file with its extents in a table of several pages, beside one with them in its entry.
        pieces = writer.blob(large)
        many = [extent(at * 100, 50, at * 50, pieces) for at in range(4000)]
        tree = {
            b"": entry(1, 0o755), b"d": entry(1, 0o700), b"d\0deep": entry(1, 0o755), b"d\0deep\0x": entry(4, 0o600),
            b"many": entry(2, further=file_of_table(400_000, extents_table(writer, many))),
            b"small": entry(2, 0o640, file_of_extents(1 << 20, [extent(5, 7, 2, small), extent(4096, 12, 0, small)]),
                            [(b"user.a", b"1"), (b"user.b", b"")]),
            b"soft": entry(3, 0o777, counted(b"small")), b"tied": entry(7, further=counted(b"small"))}
        gib = 1 << 30
        # Segment 0 begins with data, segment 1 has none, segment 2 shares a blob, segment 3 is cut short.
        plan = {
            0: [extent(0, 65536, 0, blobs[0]), extent(65536, 4096, 8192, blobs[1]),
                extent(gib - 65536, 65536, 0, blobs[2])],
            2: [extent(2 * gib + 4096, 8192, 4096, blobs[0]), extent(2 * gib + 12288, 65536, 0, blobs[3])],
            3: [extent(3 * gib, 65536, 0, blobs[4]), extent(3 * gib + 100_000, 12, 0, small)]}
        size = 3 * gib + 100_012
        volume = writer.table({struct.pack(">I", number): segment_value(extents_table(writer, extents), extents)
                               for number, extents in plan.items()})
        image = {0: parts[0], 65536: parts[1][8192:12288], gib - 65536: parts[2], 2 * gib + 4096: parts[0][4096:12288],
                 2 * gib + 12288: parts[3], 3 * gib: parts[4], 3 * gib + 100_000: b"a small blob"}
        stream = [extent(at * 65536, 65536, 0, blobs[at % 5]) for at in range(1000) if at % 7]
        streamed = b"".join(parts[at % 5] if at % 7 else bytes(65536) for at in range(1000)) + bytes(10)
        objects = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"n{number}", "namespace": "shop"}}
                   for number in range(3)]
        ledger = {b"a\0\0ConfigMap\0shop\0n%d" % number: {"version": "v1", "outcome": "stored"} for number in range(3)}
        ledger[b"a\0\0Event\0shop\0~"] = {"version": "v1", "outcome": "skipped", "rule": "events"}
        ledger[b"a\0orlop.io\0Volume\0shop\0data"] = {"version": "v1", "outcome": "stored"}
        claim = {"namespace": "shop", "name": "data", "object": {"kind": "PersistentVolumeClaim"}}
        self.publish(
            writer.root("shop/data", "volume", volume, size, claim=claim),
            writer.root("shop/dump", "stream", extents_table(writer, stream), len(streamed)),
            writer.root("shop/files", "tree", writer.table(tree), 1_448_576, files=2),
            objects=writer.table({key: small_writer.canonical(one) for key, one in zip(ledger, objects)}),
            ledger=writer.table({key: small_writer.canonical(one) for key, one in ledger.items()}),
            source={"kind": "application", "clusterId": "c", "backup": "shop/daily", "namespaces": ["shop"]})
        content = bytearray(400_000)
        for at in range(4000):
            content[at * 100:at * 100 + 50] = large[at * 50:at * 50 + 50]
        return size, image, streamed, bytes(content), objects

    def test_all_kinds_of_content(self):
        size, image, streamed, content, objects = self.build_all()
        self.assertIn("0 things are wrong", self.succeed("check"))
        self.assertIn("volume  0 files  3221325484 bytes  shop/data", self.succeed("list"))
        self.refuse("choose one", "restore", "one", self.folder / "x")
        self.refuse("choose one", "restore", "one", self.folder / "x", "--volume", "shop/other")

        volume = self.folder / "volume"
        self.succeed("restore", "one", volume, "--volume", "shop/data")
        with open(volume, "rb") as file:
            self.assertEqual(os.fstat(file.fileno()).st_size, size)
            ranges = data_ranges(file.fileno(), size)
            self.assertLess(sum(end - begin for begin, end in ranges), 1 << 20)
            # Every byte of the volume: the ranges with data, and the zeros about what was written.
            for begin, end in ranges:
                expected = bytearray(end - begin)
                for at, data in image.items():
                    if begin <= at < end:
                        expected[at - begin:at - begin + len(data)] = data
                self.assertEqual(os.pread(file.fileno(), end - begin, begin), bytes(expected[:min(end, size) - begin]))
            for at, data in image.items():
                self.assertTrue(any(begin <= at and at + len(data) <= end for begin, end in ranges))

        self.succeed("restore", "one", self.folder / "stream", "--volume", "shop/dump")
        self.assertEqual((self.folder / "stream").read_bytes(), streamed)
        self.succeed("restore", "one", self.folder / "tree", "--volume", "shop/files")
        self.assertEqual((self.folder / "tree/many").read_bytes(), content)
        expected = bytearray(1 << 20)
        expected[5:12], expected[4096:4108] = b"small b", b"a small blob"
        self.assertEqual((self.folder / "tree/tied").read_bytes(), bytes(expected))
        self.assertEqual(os.stat(self.folder / "tree/small").st_nlink, 2)
        self.assertEqual(list(map(json.loads, self.succeed("objects", "one").splitlines())), objects)
        ledger = self.succeed("ledger", "one").splitlines()
        self.assertEqual(len(ledger), 5)
        self.assertEqual(ledger[3], '{"group":"","kind":"Event","name":"~","namespace":"shop","outcome":"skipped",'
                                    '"rule":"events","version":"v1"}')
        # An image is never written over another file, nor through a link to one.
        os.symlink(self.folder / "elsewhere", self.folder / "symlink")
        for target in "volume", "symlink":
            self.refuse("exists", "restore", "one", self.folder / target, "--volume", "shop/data")
        self.assertFalse((self.folder / "elsewhere").exists())

    @needs_orlop
    def test_orlop_accepts_it(self):
        self.build_all()
        self.orlop_succeeds("check", "--read-data")
        self.orlop_succeeds("restore", "one", self.folder / "theirs", "--volume", "shop/files")
        self.succeed("restore", "one", self.folder / "ours", "--volume", "shop/files")
        self.assertEqual(differences(snapshot(self.folder / "theirs"), snapshot(self.folder / "ours")), [])
        for name in "shop/data", "shop/dump":
            their, our = (self.folder / f"{side} {name[5:]}" for side in ("their", "our"))
            self.orlop_succeeds("restore", "one", their, "--volume", name)
            self.succeed("restore", "one", our, "--volume", name)
            self.assertEqual(image_hash(their), image_hash(our))

    def test_every_flip_is_noticed(self):
        self.writer.begin_pack(0)
        blob = self.writer.blob(b"some text", codec=0)
        extents = [extent(4096, 9, 0, blob)]
        segments = {bytes(4): segment_value(extents_table(self.writer, extents), extents)}
        self.publish(self.writer.root("shop/data", "volume", self.writer.table(segments), 8192))
        flip_everywhere(self, every=5)

    def test_truncation_is_noticed(self):
        self.build_all()
        for path in self.objects():
            whole = path.read_bytes()
            for length in {0, 1, 20, 50, len(whole) // 2, len(whole) - 1}:
                with self.subTest(path=path.name, length=length):
                    path.write_bytes(whole[:length])
                    self.assertEqual(self.read("check")[0], 1)
            path.write_bytes(whole + b"x")
            self.assertEqual(self.read("check")[0], 1, path)
            path.write_bytes(whole)
        self.succeed("check")

    def test_missing_objects_are_noticed(self):
        self.build_all()
        for path in self.objects():
            if self.kind(path) in ("configuration", "epoch", "key", "pack"):
                with self.subTest(path.name):
                    path.rename(self.folder / "away")
                    self.assertEqual(self.read("check")[0], 1)
                    (self.folder / "away").rename(path)
        self.succeed("check")

    def test_points_count_only_with_their_sessions(self):
        """Section 10: a point is void when one of its sessions is gone; a tombstone is no point."""
        self.publish(self.writer.root("/s", "stream", extents_table(self.writer, []), 0))
        session = self.repository / store.session_name(self.writer.session)
        session.rename(self.folder / "away")
        self.assertEqual(self.succeed("list"), "")
        self.refuse("does not count", "restore", "one", self.folder / "target")
        self.succeed("check")
        (self.folder / "away").rename(session)
        self.assertIn("one", self.succeed("list"))
        tombstone = small_writer.checked({
            "format": "orlop-revoked", "version": 1, "point": "two", "revoked": "2026-01-02T03:04:05Z"})
        self.writer.put("domains/default/points/two", tombstone)
        self.assertNotIn("two", self.succeed("list"))
        self.refuse("was revoked", "restore", "two", self.folder / "target")
        self.succeed("check")
        self.writer.put("domains/default/points/three", tombstone)
        self.refuse("its id is not", "check")

    def test_what_collectors_leave(self):
        """Section 10: collections, that they are over, and signs of life."""
        session = self.writer.session
        self.publish(self.writer.root("/s", "stream", extents_table(self.writer, []), 0))
        self.writer.put(f"domains/default/beats/{session}-00000001", b"")
        self.writer.put(f"domains/default/collections/{2:016x}-done", small_writer.checked({
            "format": "orlop-collected", "version": 1, "epoch": 2}))
        document = {"version": 1, "epoch": 3, "points": ["one"], "candidates": [{"id": "0" * 48, "bytes": 5}]}
        self.writer.put_collection(3, small_writer.canonical(document))
        self.assertIn("0 foreign", self.succeed("check"))
        self.writer.put_collection(4, small_writer.canonical(document))
        self.refuse("its epoch is not", "check")
        (self.repository / f"domains/default/collections/{4:016x}").unlink()
        (self.repository / f"domains/default/beats/{session}-00000001").write_bytes(b"x")
        self.refuse("not a file of at most 0 bytes", "check")

    def test_what_damage_hits(self):
        """Section 12: a damaged blob hits those that refer to it; a damaged header all that need the pack."""
        one, two = (self.writer.blob(text, codec=0) for text in (b"text of one", b"text of two"))
        self.writer.end_pack()
        roots = [self.writer.root("/s", "stream", extents_table(self.writer, [extent(0, 11, 0, blob)]), 11)
                 for blob in (one, two)]
        self.publish(roots[0])
        self.writer.point("two", [roots[1]])
        pack = self.repository / store.pack_name(one[32:56])
        last = pack.stat().st_size - 1
        for offset, hits in (50, ["one"]), (80, ["two"]), (3, ["one", "two"]), (last, ["one", "two"]):
            flip(pack, offset)
            _, output, _ = self.read("check")
            flip(pack, offset)
            self.assertEqual([line.split()[2] for line in output.splitlines() if line.endswith("is hit")], hits, offset)
        flip(pack, 3)  # Blobs can still be read.
        self.succeed("restore", "one", self.folder / "stream")

    def test_moved_blobs_are_found(self):
        """Section 5: a pack may be gone, and its blobs elsewhere, where the index runs say."""
        old = self.writer.blob(b"the text")
        lost = self.writer.blob(b"x" * 3000)
        self.writer.begin_pack(1)  # The pack is never written; another one has the blobs.
        self.writer.listed = []
        for number in range(2000):
            self.writer.blob(b"%d" % number)
        self.writer.blob(b"the text")
        extents = [extent(0, 8, 0, old), extent(100, 10, 0, self.writer.blob(b"0"*10))]
        self.publish(self.writer.root("/s", "stream", extents_table(self.writer, extents), 110),
                     self.writer.root("/lost", "stream", extents_table(self.writer, [extent(0, 5, 0, lost)]), 5))
        self.succeed("restore", "one", self.folder / "stream", "--volume", "/s")
        self.assertEqual((self.folder / "stream").read_bytes(), b"the text" + bytes(92) + b"0" * 10)
        self.refuse("is not there, and no index run", "restore", "one", self.folder / "lost", "--volume", "/lost")
        self.assertFalse((self.folder / "lost").exists())

    def test_a_damaged_pack_stands_aside(self):
        """Section 5: what is damaged where a reference says is read from where the index runs say that it is whole."""
        old, lost = self.writer.blob(b"the text", codec=0), self.writer.blob(b"lost text", codec=0)
        self.writer.end_pack()
        self.writer.blob(b"the text")
        roots = [self.writer.root(name, "stream", extents_table(self.writer, [extent(0, length, 0, blob)]), length)
                 for name, length, blob in (("/s", 8, old), ("/lost", 9, lost))]
        self.publish(roots[0])
        self.writer.point("two", [roots[1]])
        pack = self.repository / store.pack_name(old[32:56])
        for offset in 50, 3, pack.stat().st_size - 1:
            flip(pack, offset)
            status, output, _ = self.read("check")
            hits = [line.split()[2] for line in output.splitlines() if line.endswith("is hit")]
            # The other blob of the pack is nowhere else; it is hit by damage to the pack, and not by that to the first blob.
            self.assertEqual((status, hits), (1, [] if offset == 50 else ["two"]), offset)
            self.succeed("restore", "one", self.folder / str(offset))
            self.assertEqual((self.folder / str(offset)).read_bytes(), b"the text")
            flip(pack, offset)
        flip(pack, 50 + 8 + 1 + 16)
        self.refuse("the blob", "restore", "two", self.folder / "lost")
        pack.unlink()
        self.succeed("restore", "one", self.folder / "without")
        self.assertEqual([line.split()[2] for line in self.read("check")[1].splitlines() if line.endswith("is hit")], ["two"])

    def test_a_pack_may_go_when_all_of_it_is_elsewhere(self):
        old = self.writer.blob(b"the text", codec=0)
        self.writer.end_pack()
        self.writer.blob(b"the text")
        self.publish(self.writer.root("/s", "stream", extents_table(self.writer, [extent(0, 8, 0, old)]), 8))
        (self.repository / store.pack_name(old[32:56])).unlink()
        self.succeed("check")
        if ORLOP:
            self.orlop_succeeds("check", "--read-data")

    def test_memory_does_not_grow_with_a_volume(self):
        chance = random.Random(5)
        extents = {}
        for number in range(16 * 16):  # 16 packs of 16 MiB
            blob = self.writer.blob(chance.randbytes(1 << 20), codec=0)
            extents.setdefault(number // 1024, []).append(extent(number << 20, 1 << 20, 0, blob))
            if number % 16 == 15:
                self.writer.end_pack()
        table = self.writer.table({struct.pack(">I", number): segment_value(extents_table(self.writer, list_), list_)
                                   for number, list_ in extents.items()})
        self.publish(self.writer.root("/dev/x", "volume", table, 1 << 40))
        for command in ["restore", "one", str(self.folder / "volume")], ["check"]:
            script = ("import sys, orlop_reader; status = orlop_reader.main(sys.argv[1:]);"
                      "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(status)")
            done = subprocess.run([sys.executable, "-c", script, "--repository", self.repository, "--password-file",
                                   self.password, *command], cwd=HERE, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertLess(int(done.stdout.split()[-1]), 140 * 1024, done.stdout)

    # Hostile or broken content

    def refuse_tree(self, what, entries):
        """Nothing must be created, neither in the target nor elsewhere."""
        self.publish_tree(entries)
        self.refuse(what, "check")
        self.refuse(what, "restore", "one", self.folder / "target")
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"repository", "passphrase"})

    def test_paths(self):
        top, file, folder = entry(1, 0o755), entry(2, further=file_of_extents(0, [])), entry(1, 0o755)

        def link(target):
            return entry(7, further=counted(target))

        hostile = {
            "name/..": ("impossible name", {b"": top, b"..": folder, b"..\0x": file}),
            "name/.": ("impossible name", {b"": top, b".": file}),
            "name/slash": ("impossible name", {b"": top, b"a/b": file}),
            "name/absolute": ("impossible name", {b"": top, b"/tmp/x": file}),
            "name/empty": ("impossible name", {b"": top, b"a": folder, b"a\0": file}),
            "name/long": ("impossible name", {b"": top, b"a" * 256: file}),
            "top/missing": ("the top of a tree", {b"a": file}),
            "top/file": ("the top of a tree", {b"": file}),
            "top/empty": ("a tree is empty", {}),
            "parent/missing": ("not a directory before it", {b"": top, b"a\0b": file}),
            "parent/file": ("not a directory before it", {b"": top, b"a": file, b"a\0b": file}),
            "parent/symlink": ("not a directory before it", {
                b"": top, b"a": entry(3, 0o777, counted(b"/tmp")), b"a\0b": file}),
            "parent/other": ("not a directory before it", {b"": top, b"a": folder, b"b\0c": file}),
            "parent/left": ("not a directory before it", {b"": top, b"a": folder, b"b": file, b"b\0a": file}),
            "link/forward": ("is not before it", {b"": top, b"a": link(b"b"), b"b": file}),
            "link/itself": ("is not before it", {b"": top, b"a": link(b"a")}),
            "link/missing": ("nothing that could be linked", {b"": top, b"b": link(b"a")}),
            "link/outside": ("nothing that could be linked", {b"": top, b"b": link(b"..\0passphrase")}),
            "link/directory": ("nothing that could be linked", {b"": top, b"a": folder, b"b": link(b"a")}),
            "link/link": ("nothing that could be linked", {b"": top, b"a": file, b"b": link(b"a"), b"c": link(b"b")}),
        }
        for name, (what, entries) in hostile.items():
            with self.subTest(name):
                self.again()
                self.refuse_tree(what, entries)

    def again(self):
        """Another empty repository in the same place."""
        shutil.rmtree(self.repository)
        self.writer = SmallWriter(self.repository, PASSPHRASE)

    def test_entries(self):
        good = file_of_extents(0, [])

        def with_blob(*extents):
            def make():
                blob = self.writer.blob(b"x" * 50)
                return entry(2, further=file_of_extents(100, [extent(*numbers, blob) for numbers in extents]))
            return make

        hostile = {
            "version": ("version 2", lambda: b"\2" + entry(2, further=good)[1:]),
            "kind 0": ("unknown kind", lambda: entry(0)),
            "kind 8": ("unknown kind", lambda: entry(8)),
            "mode": ("impossible mode", lambda: entry(2, 0o100644, good)),
            "user": ("impossible owner", lambda: entry(2, 0o644, good, owner=(2 ** 32 - 1, 0))),
            "group": ("impossible owner", lambda: entry(2, 0o644, good, owner=(0, 2 ** 32 - 1))),
            "nanoseconds": ("nanoseconds", lambda: entry(2, 0, good, mtime=(0, 1_000_000_000))),
            "short": ("ends too early", lambda: entry(2, further=good)[:-1]),
            "long": ("follows its end", lambda: entry(2, further=good + b"x")),
            "attributes": ("not sorted", lambda: entry(2, 0, good, [(b"user.b", b""), (b"user.a", b"")])),
            "attributes twice": ("not sorted", lambda: entry(2, 0, good, [(b"user.a", b""), (b"user.a", b"")])),
            "claimed attributes": ("ends too early", lambda: entry(2)[:-4] + b"\xff\xff\xff\xff"),
            "claimed name": ("ends too early", lambda: entry(2)[:-4] + b"\1\0\0\0\xff\xff\xff\xff"),
            "flags": ("unknown flags", lambda: entry(2, further=struct.pack("<QBBI", 0, 2, 0, 0))),
            "content": ("unknown kind of content", lambda: entry(2, further=struct.pack("<QBBI", 0, 0, 2, 0))),
            "claimed extents": ("more than 512", lambda: entry(2, further=struct.pack("<QBBI", 0, 0, 0, 513))),
            "target": ("impossible target", lambda: entry(3, 0o777, counted(b""))),
            "zero in target": ("impossible target", lambda: entry(3, 0o777, counted(b"a\0b"))),
            "overlap": ("overlap", with_blob((0, 10, 0), (9, 10, 0))),
            "order": ("not in order", with_blob((20, 10, 0), (0, 10, 0))),
            "empty extent": ("is empty", with_blob((0, 0, 0))),
            "size": ("ends after", with_blob((91, 10, 0))),
            "offset": ("ends after", with_blob((2 ** 64 - 1, 10, 0))),
            "blob": ("beyond its blob", with_blob((0, 10, 41))),
            "blob offset": ("beyond its blob", with_blob((0, 10, 2 ** 32 - 1))),
        }
        for name, (what, make) in hostile.items():
            with self.subTest(name):
                self.again()
                self.refuse_tree(what, {b"": entry(1, 0o755), b"a": make()})

    def test_tables(self):
        key, file = b"a", entry(2, further=file_of_extents(0, []))
        top = entry(1, 0o755)

        def page(level, *entries, count=None, zeros=bytes(3), more=b""):
            text = bytes([level]) + zeros + struct.pack("<I", len(entries) if count is None else count)
            text += b"".join(struct.pack("<II", len(key), len(value)) + key + value for key, value in entries)
            return self.writer.blob(text + more, kind=2)

        def reference(root, height, entries):
            return root + struct.pack("<BQ", height, entries)

        hostile = {
            "level": ("another level", lambda: reference(page(1, (b"", top)), 0, 1)),
            "height": ("higher than 24", lambda: reference(page(0, (b"", top)), 25, 1)),
            "child's level": ("another level", lambda: reference(page(2, (b"", page(0, (b"", top)))), 2, 1)),
            "count": ("ends too early", lambda: reference(page(0, (b"", top), count=2 ** 32 - 1), 0, 1)),
            "zeros": ("not zero", lambda: reference(page(0, (b"", top), zeros=b"\0\1\0"), 0, 1)),
            "more": ("follows its end", lambda: reference(page(0, (b"", top), more=b"x"), 0, 1)),
            "entries": ("instead of 3", lambda: reference(page(0, (b"", top), (key, file)), 0, 3)),
            "order": ("do not ascend", lambda: reference(page(0, (b"", top), (b"b", file), (b"a", file)), 0, 3)),
            "twice": ("do not ascend", lambda: reference(page(0, (b"", top), (b"a", file), (b"a", file)), 0, 3)),
            "empty inner page": ("has no entry", lambda: reference(page(1), 1, 0)),
            "first key": ("another key", lambda: reference(page(1, (b"", page(0, (b"a", file)))), 1, 1)),
            "beyond": ("beyond the range", lambda: reference(
                page(1, (b"", page(0, (b"", top), (b"c", file))), (b"b", page(0, (b"b", file)))), 1, 3)),
            "beyond the parent": ("beyond the range", lambda: reference(page(
                2, (b"", page(1, (b"", page(0, (b"", top))), (b"a", page(0, (b"a", file), (b"z", file))))),
                (b"b", page(1, (b"b", page(0, (b"b", file)))))), 2, 4)),
            "child's reference": ("68 bytes", lambda: reference(page(1, (b"", b"x" * 67)), 1, 1)),
            "claimed key": ("too long", lambda: reference(
                self.writer.blob(struct.pack("<B3xIII", 0, 1, 2 ** 32 - 1, 0), kind=2), 0, 1)),
        }
        for name, (what, make) in hostile.items():
            with self.subTest(name):
                self.again()
                root = self.writer.root("/tree", "tree", make(), 0)
                self.publish(root)
                self.refuse(what, "restore", "one", self.folder / "target")
                self.assertFalse((self.folder / "target").exists())
                self.refuse(what, "check")

    def test_segments(self):
        gib = 1 << 30

        def volume(size, key, extents, value=None):
            extents = [extent(*numbers, self.writer.blob(b"x" * 50)) for numbers in extents]
            return size, self.writer.table({key: value or segment_value(extents_table(self.writer, extents), extents)})

        one = struct.pack(">I", 1)
        hostile = {
            "before": ("lie before", lambda: volume(2 * gib, one, [(gib - 1, 10, 0)])),
            "after": ("ends after", lambda: volume(3 * gib, one, [(2 * gib - 5, 10, 0)])),
            "after the volume": ("ends after", lambda: volume(gib + 100, one, [(gib + 95, 10, 0)])),
            "segment": ("after the end of its volume", lambda: volume(gib, one, [(gib, 10, 0)])),
            "overlap": ("overlap", lambda: volume(2 * gib, one, [(gib, 10, 0), (gib + 9, 10, 0)])),
            "blob": ("beyond its blob", lambda: volume(2 * gib, one, [(gib, 50, 1)])),
            "key": ("another length", lambda: volume(2 * gib, bytes(3), [(0, 10, 0)])),
            "value": ("another length", lambda: volume(2 * gib, one, [], b"x" * 92)),
            "empty": ("without extents", lambda: volume(2 * gib, one, [])),
        }
        for name, (what, make) in hostile.items():
            with self.subTest(name):
                self.again()
                size, table = make()
                self.publish(self.writer.root("/v", "volume", table, size))
                self.refuse(what, "restore", "one", self.folder / "target")
                self.assertFalse((self.folder / "target").exists())
                self.refuse(what, "check")
        # A checker compares the sums; a restore must not rely on them.
        for change in 77, 85:
            self.again()
            extents = [extent(0, 10, 0, self.writer.blob(b"x" * 50))]
            value = bytearray(segment_value(extents_table(self.writer, extents), extents))
            value[change] ^= 1
            self.publish(self.writer.root("/v", "volume", self.writer.table({bytes(4): bytes(value)}), 100))
            self.refuse("other sums", "check")
            self.succeed("restore", "one", self.folder / "volume")
            (self.folder / "volume").unlink()

    def test_blobs(self):
        bomb = zstandard.ZstdCompressor().compress(bytes(1 << 20))
        endless = zstandard.ZstdCompressor().compressobj()
        unsized = endless.compress(bytes(1 << 20)) + endless.flush()
        for payload in bomb, unsized:
            self.assertEqual(packs.decode_blob(b"\1" + payload, 1 << 20), bytes(1 << 20))
            for length in 0, 1, (1 << 20) - 1, (1 << 20) + 1:
                with self.assertRaises(Damage):
                    packs.decode_blob(b"\1" + payload, length)
            with self.assertRaises(Damage):
                packs.decode_blob(b"\1" + payload + b"x", 1 << 20)
            with self.assertRaises(Damage):
                packs.decode_blob(b"\1" + payload[:-1], 1 << 20)
        # A frame that claims 2 to the power of 60 bytes.
        claim = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + b"\1\0\0"
        for encoded in b"", b"\2text", b"\1text", b"\0tex", b"\1" + claim:
            with self.assertRaises(Damage):
                packs.decode_blob(encoded, 4)
        self.assertEqual(packs.decode_blob(b"\0", 0), b"")
        self.assertEqual(packs.decode_blob(b"\1" + zstandard.ZstdCompressor().compress(b""), 0), b"")

    def test_packs(self):
        def directory(change=lambda entries: None, count=None):
            def write(writer):
                writer.blob(b"one", codec=0)
                writer.blob(b"two", codec=0)
                entries = [list(struct.unpack("<32sIIIB", entry)) for entry in writer.entries]
                change(entries)
                text = struct.pack("<I", len(entries) if count is None else count)
                writer.end_pack(text + b"".join(struct.pack("<32sIIIB", *entry) for entry in entries))
            return write

        def field(entry, number, value):
            return directory(lambda entries: entries[entry].__setitem__(number, value))

        def header(offset, data):
            def write(writer):
                writer.body[offset:offset + len(data)] = data
                writer.body[36:40] = struct.pack("<I", primitives.crc32c(writer.body[:36]))
                writer.end_pack()
            return write

        hostile = {
            "gap": ("a gap or an overlap at 40", field(0, 1, 41)),
            "overlap": ("a gap or an overlap at 60", field(1, 1, 59)),
            "left out": ("a gap or an overlap at 40", directory(lambda entries: entries.pop(0))),
            "last left out": ("do not reach up to the directory", directory(lambda entries: entries.pop())),
            "order": ("a gap or an overlap at 40", directory(lambda entries: entries.reverse())),
            "count": ("another length than its entries", directory(count=3)),
            "claimed count": ("another length than its entries", directory(count=2 ** 32 - 1)),
            "kind": ("unknown kind 3", field(0, 4, 3)),
            "id": ("has another id", field(1, 0, bytes(32))),
            "plain length": ("3 bytes instead of 4", field(1, 3, 4)),
            "great plain length": ("impossible length", field(1, 3, 2 ** 24 + 1)),
            "stored length": ("impossible length", field(0, 2, 16)),
            "between": ("does not reach up to the trailer", lambda writer: writer.end_pack(gap=b"x")),
            "magic": ("magic of the header", header(0, b"ORLOPPAX")),
            "version": ("has version 2", header(8, struct.pack("<I", 2))),
            "blobs": ("more than 65536", lambda writer: writer.end_pack(bytes(4 + 65_537 * 45))),
            "short directory": ("directory is too short", lambda writer: writer.end_pack(b"\0\0\0")),
            "pack id": ("another pack id than the name", header(35, b"\1")),
            "epoch": ("epoch 2, which was never opened", lambda writer: self.other_epoch(writer)),
        }
        for name, (what, write) in hostile.items():
            with self.subTest(name):
                self.again()
                write(self.writer)
                self.refuse(what, "check")

    def other_epoch(self, writer):
        writer.pack = struct.pack("<Q12sI", 2, writer.writer, 0)
        writer.body = bytearray(b"ORLOPPAK" + struct.pack("<I", 1) + writer.pack)
        writer.body += struct.pack("<I", primitives.crc32c(writer.body))
        writer.blob(b"text")
        writer.end_pack()

    def test_runs(self):
        def run(**how):
            return lambda entries: how

        def section(number, field, value):
            return run(change_sections=lambda sections, end: sections[number].__setitem__(field, value))

        def entry_field(offset, value):
            def change(entries):
                changed = entries[5][:offset] + value + entries[5][offset + len(value):]
                return {"entries": entries[:5] + [changed] + entries[6:]}
            return change

        hostile = {
            "order": ("entries are not in order", lambda entries: {"entries": [entries[1], entries[0], *entries[2:]]}),
            "large block": ("impossible length", run(most=950)),
            "first": ("begins with another blob", run(first=bytes(32))),
            "kind": ("unknown kind 3", entry_field(68, b"\3")),
            "other kind": ("another kind of a blob", entry_field(68, b"\2")),
            "offset": ("a reference differs", entry_field(56, b"\xff\xff")),
            "plain": ("a reference differs", entry_field(64, b"\xff\xff")),
            "section gap": ("back to back", section(1, 1, 100)),
            "section length": ("back to back", section(1, 2, 2 ** 64 - 1)),
            "section short": ("follows its sections", section(1, 2, 50)),
            "section kind": ("lacks its blocks", section(0, 0, 7)),
            "section twice": ("two sections", section(0, 0, 2)),
            "magic": ("magic of the header", run(magic=b"ORLOPIDY")),
            "version": ("has version 2", run(version=2)),
            "blocks": ("do not fill their section", run(change_directory=lambda directory: directory.pop())),
            "blocks' order": ("back to back", run(change_directory=lambda directory: directory.reverse())),
            "blocks' ids": ("blocks are not in order", run(change_directory=lambda directory: directory.__setitem__(
                0, b"\xff" * 32 + directory[0][32:]))),
            "blocks' count": ("another length than its blocks", run(
                change_directory=lambda directory: directory.append(b"x"))),
            "sections": ("more than 16", run(change_sections=lambda found, end: found.extend([[7, end, 0]] * 15))),
        }
        for name, (what, make) in hostile.items():
            with self.subTest(name):
                self.again()
                for number in range(960):
                    self.writer.blob(b"%d" % number, codec=0)
                self.writer.end_pack()
                self.writer.end_run(**make(self.writer.run_entries()))
                self.refuse(what, "check")
        # A run may name a pack that is gone.
        self.again()
        for number in range(6):
            self.writer.blob(b"%d" % number)
        self.writer.end_pack()
        self.writer.end_run(**entry_field(52, b"\7")(sorted(self.writer.run_entries())))
        self.succeed("check")
        self.again()
        self.writer.blob(b"text")
        self.writer.end_pack()
        self.writer.end_run(self.writer.run_entries() * 2, more=b"a filter of a later version")
        self.writer.end_run()
        self.assertIn("0 things are wrong", self.succeed("check"))
        run = next(path for path in self.objects() if self.kind(path) == "run")
        run.rename(run.with_name(run.name[:-1] + "5"))
        self.refuse("its name is that of another run", "check")

    def test_claimed_lengths(self):
        """What a reference claims must not make the reader take memory, or read what is not there."""
        for stored, plain, what in [
                (26, 2 ** 24 + 1, "longer than 16 MiB"), (2 ** 32 - 1, 9, "ends too early"), (15, 9, "its seal")]:
            self.again()
            blob = self.writer.blob(b"some text")
            table = extents_table(self.writer, [extent(0, 9, 0, blob[:60] + struct.pack("<II", stored, plain))])
            self.publish(self.writer.root("/s", "stream", table, 9))
            self.refuse(what, "restore", "one", self.folder / "target")
            self.refuse("a reference differs", "check")

    def test_tables_of_extents(self):
        for key, length, what in (bytes(7), 76, "has not eight bytes"), (bytes(8), 75, "another length than it should"):
            self.again()
            value = extent(0, 9, 0, self.writer.blob(b"some text"))[8:8 + length]
            self.publish(self.writer.root("/s", "stream", self.writer.table({key: value}), 9))
            self.refuse(what, "restore", "one", self.folder / "target")
            self.refuse(what, "check")

    def test_another_id(self):
        """A blob that opens and decompresses, but is not the one that is meant."""
        blob = self.writer.blob(b"some text")
        table = extents_table(self.writer, [extent(0, 9, 0, bytes(32) + blob[32:])])
        self.publish(self.writer.root("/s", "stream", table, 9))
        self.refuse("has another id", "restore", "one", self.folder / "target")
        self.refuse("a reference differs", "check")
        self.assertFalse((self.folder / "target").exists())

    def test_recovery_points(self):
        root = self.writer.root("/s", "stream", extents_table(self.writer, []), 0)
        self.publish(root)
        path = self.repository / "domains/default/points/one"
        opened = repository.Repository(self.repository, PASSPHRASE)
        good = opened.point("one").fields

        def text(**changes):
            fields = good | changes
            return small_writer.canonical({name: value for name, value in fields.items() if value is not None})

        hostile = {
            "unknown field x": text(x=1), "it lacks stats": text(stats=None), "its id is not": text(id="two"),
            "has version 2": text(version=2, x=1), "no valid version": text(version=True),
            "in UTC": text(created="yesterday"),
            "its kind is not known": text(source={"kind": "other"}), "unknown field y": text(roots=[root | {"y": 1}]),
            "two contents have one name": text(roots=[root, root]),
            "/s: its kind": text(roots=[root | {"kind": "other"}]),
            "number from 0": text(stats=good["stats"] | {"files": -1}),
            "lacks object": text(roots=[root | {"claim": {"namespace": "", "name": ""}}]),
            "names a pack twice": text(packs=good["packs"] * 2),
            "list of 1 to 32": text(tags=[]), "tags: it is not a list": text(tags="a"),
            "characters that no tag has": text(tags=["a b"]), "tags: one has": text(tags=[5]),
            "in order, each once": text(tags=["b", "a"]), "tags: they are not": text(tags=["a", "a"]),
            "tags: it is not a list of 1 to 32": text(tags=[f"t{number:02}" for number in range(33)]),
            "sessions: there are none": text(sessions=[]), "names a session twice": text(sessions=good["sessions"] * 2),
            "not the name of one": text(sessions=["x"]), "of none of its sessions": text(sessions=["0" * 16 + "-" + "0" * 24]),
            "lowercase": text(packs=[{"id": "A" * 48, "bytes": 1}]),
            "one spelling": text().replace(b":", b": ", 1),
            "twice": text().replace(b'"version":1', b'"version":1,"version":1'),
            "no valid JSON": text()[:-1], "it is not an object": text(source=[]),
            "not JSON": text().replace(b"true", b"NaN", 1),
            "unknown field z": text(objects=root["table"] | {"z": 1}), "source: it is not text": text(
                source={"kind": "paths", "host": 5}), "packs: it is not an object": text(packs=[1]),
            "higher than 24": text(objects=root["table"] | {"height": 25}),
            "no valid JSON: ": b"[" * 100_000, "document is not an object": b"[]",
        }
        app = {"kind": "application", "clusterId": "c", "backup": "a/b", "namespaces": []}
        claim = {"namespace": "", "name": "", "object": []}
        hostile |= {
            "complete is neither": text(complete=1), "stats: unknown field": text(stats=good["stats"] | {"x": 1}),
            "roots or packs are not lists": text(packs={}), "source: unknown field": text(source=app | {"x": ""}),
            "namespaces: it is not a list": text(source=app | {"namespaces": "a"}),
            "files: it is not a number": text(roots=[root | {"files": True}]),
            "started: it is not a time": text(roots=[root | {"started": 5}]),
            "claim: its object": text(roots=[root | {"claim": claim}]),
        }
        for what, document in hostile.items():
            with self.subTest(what):
                path.unlink()
                self.writer.put_point("one", document)
                self.refuse(what, "list")
                self.refuse(what, "check")
        for how, what in ({"version": 2}, "has version 2"), ({"magic": b"ORLOPPNX"}, "its magic differs"):
            path.unlink()
            self.writer.put_point("one", text(), **how)
            self.refuse(what, "list")
        path.write_bytes(path.read_bytes()[:12])
        path.write_bytes(b"ORLOPPNT" + path.read_bytes()[8:])
        self.refuse("too short for a recovery point", "list")

    def test_applications(self):
        key, other = b"a\0\0ConfigMap\0shop\0x", b"a\0\0Event\0shop\0~"
        good = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "shop"}}
        stored, skipped = {"version": "v1", "outcome": "stored"}, {"version": "v1", "outcome": "skipped", "rule": "r"}
        missed = {"version": "v1", "outcome": "missed", "reason": "gone"}
        apart = good | {"apiVersion": "apps/v1"}
        data = b"a\0orlop.io\0Volume\0shop\0x"

        def publish(objects, ledger):
            self.again()
            tables = [self.writer.table({key: small_writer.canonical(value) for key, value in table.items()})
                      for table in (objects, ledger)]
            source = {"kind": "application", "clusterId": "c", "backup": "a/b", "namespaces": ["shop"]}
            self.publish(objects=tables[0], ledger=tables[1], source=source)

        for objects, ledger in ({}, {}), ({key: good}, {key: stored}), ({key: good}, {key: stored, other: skipped}):
            publish(objects, ledger)
            self.succeed("check")
        hostile = [
            ("lacks an object", {key: good}, {}), ("lacks an object", {key: good}, {other: skipped}),
            ("against what", {key: good}, {key: skipped}), ("against what", {}, {key: stored}),
            ("complete is not", {}, {other: missed}), ("data of shop/x", {}, {data: stored}),
            ("unknown outcome", {}, {key: {"version": "v1", "outcome": "lost"}}),
            ("rule", {}, {key: stored | {"rule": "r"}}),
            ("reason", {}, {key: {"version": "v1", "outcome": "missed"}}),
            ("unknown field", {}, {key: stored | {"x": "y"}}),
            ("it is not text", {}, {key: skipped | {"rule": 5}}), ("another key", {key: apart}, {key: stored}),
            ("another key", {key: good | {"kind": "Event"}}, {key: stored}), ("no metadata", {key: {}}, {key: stored}),
            ("five texts", {}, {key[2:]: stored}), ("five texts", {}, {b"\xff" + key: stored}),
            ("lacks scope", {}, {b"b" + key[1:]: stored}), ("lacks scope", {}, {key[:-1]: stored}),
            ("against its scope", {}, {b"c" + key[1:]: stored}), ("against its scope", {}, {b"a\0\0X\0\0x": stored}),
        ]
        for what, objects, ledger in hostile:
            with self.subTest(what):
                publish(objects, ledger)
                self.refuse(what, "check")

    def test_names(self):
        """Objects in another spelling are foreign and left alone; what cannot be a name is never looked for."""
        self.build_all()
        for name in (
                "orlop-repository.bak", "epochs/000000000000000A", "probes/" + "0" * 32, "unfinished/" + "1" * 32,
                "domains/default/packs/zz/" + "0" * 48, "domains/default/packs/00/" + "1" * 48,
                "domains/default/points/One", "domains/default/points/" + "a" * 64, "domains/default/points/new\n",
                "domains/other/points/x"):
            (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
            (self.repository / name).write_bytes(b"foreign")
        self.assertIn("10 foreign", self.succeed("check"))
        for id in "../../../orlop-repository", "", "One", "a" * 64, "one\n":
            self.refuse("cannot be the id", "ls", id)
        # A pipe in the place of an object must not be waited for; nor may a link lead out of the repository.
        for make in os.mkfifo, lambda path: os.symlink("/dev/zero", path):
            make(self.repository / "domains/default/points/two")
            self.refuse("is not a file", "check")
            self.refuse("is not a file", "ls", "two")
            os.unlink(self.repository / "domains/default/points/two")

    def test_tags_and_pins(self):
        self.publish(self.writer.root("/s", "stream", extents_table(self.writer, []), 0))
        good = repository.Repository(self.repository, PASSPHRASE).point("one").fields
        self.writer.put_point("two", small_writer.canonical(good | {"id": "two", "tags": ["A", "a", "b=1.0:/_-"]}))
        self.succeed("check")
        pin = {"format": "orlop-pin", "version": 1, "point": "two", "reason": "audit", "created": good["created"]}
        path = self.repository / "domains/default/pins/two"
        self.writer.put("domains/default/pins/two", small_writer.checked(pin))
        self.succeed("check")
        for what, change in {
            "pin of another": {"point": "one"}, "has version 2": {"version": 2}, "one line": {"reason": " "},
            "reason: it is not one line": {"reason": "a\nb"}, "of 1 to 512 bytes": {"reason": "x" * 513},
            "created: it is not a time": {"created": "now"},
        }.items():
            with self.subTest(what):
                path.write_bytes(small_writer.checked(pin | change))
                self.refuse(what, "check")
        path.write_bytes(small_writer.checked(pin).replace(b"audit", b"Audit"))
        self.refuse("checksum", "check")

    def test_checked_json(self):
        fields = {"format": "orlop-epoch", "version": 1, "epoch": 5}
        good = small_writer.checked(fields)
        name = f"epochs/{5:016x}"
        self.assertEqual(keys.parse_epoch(good, name), 5)
        def signed(text):
            return text + primitives.blake3(text).hexdigest().encode() + b'"}\n'

        start = b'{"format":"orlop-epoch","version":1,"epoch":5,'
        self.assertEqual(keys.parse_epoch(signed(start + b'"checksum":"'), name), 5)
        hostile = [
            (small_writer.checked(fields | change), what) for what, change in [
                ("other fields", {"x": 1}), ("its format", {"format": "orlop-key"}), ("of its name", {"epoch": 6}),
                ("number from 0", {"epoch": "5"}), ("number from 0", {"epoch": 5.0}), ("first epoch", {"epoch": 0}),
                ("number from 0", {"epoch": 2 ** 64}), ("longer than 16 KiB", {"epoch": "x" * 20_000})]]
        hostile += [
            (small_writer.checked({"format": "orlop-epoch", "version": 1}), "other fields"),
            (good.replace(b"5", b"6", 1), "its checksum differs"),
            (signed(b" " + start + b'"checksum":"'), "not one line"),
            (signed(b"{\r" + start[1:] + b'"checksum":"'), "not one line"),
            (signed(b"{\n" + start[1:] + b'"checksum":"'), "not one line"),
            (signed(start + b'"other":"'), "last field is not the checksum"),
            (signed(start + b'"x":{"checksum":"'), "last field is not the checksum"),
            (signed(start + b'"x":{"y":1,"checksum":"'), "no valid JSON"),
            *((bad, "not one line") for bad in [b"", good[:-1], good + b"\n", b" " + good, good.replace(b"}", b" }")])]
        for bad, what in hostile:
            with self.subTest(bad[:80]), self.assertRaisesRegex(Damage, what):
                keys.parse_epoch(bad, name)
        fields = {"format": "orlop-repository", "version": 1, "repository": "0" * 32, "conditionalCreate": 1}
        with self.assertRaisesRegex(Damage, "conditionalCreate"):
            keys.parse_configuration(small_writer.checked(fields))
        fields = {"format": "orlop-repository", "version": 1, "repository": "0" * 32, "conditionalCreate": True}
        abilities = {"versions": True, "objectLock": {"defaultMode": "compliance", "defaultDays": 3}}
        for more in [{}, abilities, abilities | {"lock": {"mode": "governance", "seconds": 2592000}}, {"objectLock": {}}]:
            self.assertEqual(keys.parse_configuration(small_writer.checked(fields | more)), bytes(16))
        for more, what in [({"versions": 1}, "versions"), ({"objectLock": {"x": 1}}, "unknown field"),
                           ({"lock": {"mode": "governance"}}, "lacks seconds"), ({"lock": {"mode": "x", "seconds": 1}}, "mode"),
                           ({"lock": {"mode": "governance", "seconds": -1}}, "seconds"), ({"other": 1}, "other fields")]:
            with self.subTest(more), self.assertRaisesRegex(Damage, what):
                keys.parse_configuration(small_writer.checked(fields | more))
        fields = {"format": "orlop-epoch", "version": 1, "epoch": 5}
        with self.assertRaises(primitives.Unsupported):
            keys.parse_epoch(small_writer.checked(fields | {"version": 2, "x": 1}), name)

    def test_keys(self):
        self.publish()
        key = next(path for path in self.objects() if "keys" in path.parts)
        fields = json.loads(key.read_bytes())
        del fields["checksum"]
        derivations = []
        with mock.patch("argon2.low_level.hash_secret_raw", lambda *_, **cost: derivations.append(cost)):
            for cost in {"memoryKib": 1_048_577}, {"passes": 17}, {"lanes": 17}, {"passes": 0}, {"x": 1}:
                key.write_bytes(small_writer.checked(fields | {"cost": fields["cost"] | cost}))
                self.refuse("opens no key", "list")
        self.assertEqual(derivations, [])
        for field, value, what in [
                ("domain", "other", "opens no key"), ("method", "none", "opens no key"), ("method", 5, "method: "),
                ("key", "0" * 32, "its key id"), ("salt", "0" * 31, "salt: "), ("sealed", "0" * 97, "sealed: "),
                ("repository", 5, "repository: ")]:
            key.write_bytes(small_writer.checked(fields | {field: value}))
            self.refuse(what, "list")
        key.write_bytes(small_writer.checked(fields))
        # A key that an interrupted creation left, and a damaged one, do not keep the right one from opening it.
        for number, change in enumerate([{"repository": "0" * 32}, {"cost": {}}]):
            id = f"{number:032x}"
            (key.parent / id).write_bytes(small_writer.checked(fields | {"key": id} | change))
        self.succeed("list")
        for text in PASSPHRASE + b" ", b"\n" + PASSPHRASE, b"":
            self.password.write_bytes(text)
            self.refuse("opens no key", "list")
        for text in PASSPHRASE, PASSPHRASE + b"\n", PASSPHRASE + b"\n\r\n":
            self.password.write_bytes(text)
            self.succeed("list")

    def test_keys_of_services(self):
        """A key of a key management service is left alone, and counts as one of the repository."""
        self.publish()
        key = next(path for path in self.objects() if "keys" in path.parts)
        fields = json.loads(key.read_bytes())
        head = {name: fields[name] for name in ("format", "version", "repository", "domain", "key", "label", "created")}
        service = head | {"key": "2" * 32, "method": "kms", "provider": "aws", "kmsKey": "arn:aws:kms:r:1:key/x",
                          "wrapped": "00" * 184, "sealed": "00" * 48}
        other = key.parent / ("2" * 32)
        other.write_bytes(self.writer.proven_key(service))
        self.assertIn("0 things are wrong", self.succeed("check"))
        if ORLOP:
            self.orlop_succeeds("check", "--read-data")
        # What nobody had the master key for is found, and so is a label that was changed, under a checksum that is right.
        del fields["checksum"]
        for path, changed in (other, service | {"proof": "0" * 64}), (key, fields | {"label": "somebody else"}):
            before = path.read_bytes()
            path.write_bytes(small_writer.checked(changed))
            self.refuse("not from somebody who had the master key", "check")
            path.write_bytes(before)
        key.unlink()
        self.refuse("opens no key", "list")

    def test_removals(self):
        self.publish()
        key = next(path for path in self.objects() if "keys" in path.parts).name
        name = self.repository / f"domains/default/removals/{key}-{'3' * 32}"
        name.parent.mkdir()
        fields = {"format": "orlop-key-removal", "version": 1, "repository": "0" * 32, "key": key}
        name.write_bytes(small_writer.checked(fields))
        self.assertIn("0 things are wrong", self.succeed("check"))
        if ORLOP:
            self.orlop_succeeds("check", "--read-data")
        name.write_bytes(small_writer.checked(fields | {"key": "3" * 32}))
        self.refuse("its key id", "check")

    def test_announced_files(self):
        file, link = entry(2, further=file_of_extents(100, [])), entry(7, further=counted(b"a"))
        files = {b"": entry(1, 0o755), b"a": file, b"b": link}
        for count, size in (1, 100), (2, 100), (1, 99):
            self.again()
            self.publish(self.writer.root("/tree", "tree", self.writer.table(files), size, count))
            if (count, size) == (1, 100):
                self.succeed("check")
            else:
                self.refuse("1 files of 100 bytes", "check")

    # Hostile targets

    def test_targets(self):
        self.publish_tree({b"": entry(1, 0o755), b"a": entry(2, further=file_of_extents(0, []))})
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        (self.folder / "symlink").symlink_to(elsewhere)
        self.refuse("", "restore", "one", self.folder / "symlink")
        self.assertEqual(os.listdir(elsewhere), [])
        full = self.folder / "full"
        full.mkdir()
        (full / "a").write_text("mine")
        self.refuse("is not empty", "restore", "one", full)
        self.assertEqual((full / "a").read_text(), "mine")
        # What others may get by a default ACL of the target, they get not.
        subprocess.run(["setfacl", "-d", "-m", "u:12345:rwx", elsewhere], check=True)
        self.succeed("restore", "one", elsewhere)
        self.assertEqual(os.listxattr(elsewhere / "a"), [])
        self.assertEqual(stat.S_IMODE(os.stat(elsewhere / "a").st_mode), 0o644)

    def test_attributes(self):
        """Some attributes are not set; of others it is told that they cannot be."""
        names = [b"btrfs.compression", b"security.evm", b"security.ima", b"security.selinux", b"system.nfs4_acl"]
        file = file_of_extents(0, [])
        good = entry(2, 0o640, file, [(name, b"x") for name in names] + [(b"user.x", b"y")])
        bad = entry(2, 0o640, file, [(b"nonsense", b""), (b"user.x\0", b""), (b"user.y", b"z")])
        self.publish_tree({b"": entry(1, 0o755), b"bad": bad, b"good": good})
        status, _, errors = self.read("restore", "one", self.folder / "target")
        self.assertEqual(status, 3)
        self.assertEqual([line[:5] for line in errors.splitlines()], ["bad: ", "bad: ", "2 thi"])
        for name, expected in ("good", {"user.x": b"y"}), ("bad", {"user.y": b"z"}):
            path = self.folder / "target" / name
            about = os.stat(path)
            self.assertEqual((stat.S_IMODE(about.st_mode), about.st_mtime_ns), (0o640, 10 ** 18 + 5))
            self.assertEqual(about.st_atime_ns, about.st_mtime_ns)
            self.assertEqual({key: os.getxattr(path, key) for key in os.listxattr(path)}, expected)

    def test_very_deep(self):
        """Deeper than a process may have files open, and than a path may be long."""
        names = [b"d%d" % number for number in range(1500)]
        entries = {b"\0".join(names[:depth]): entry(1, 0o755) for depth in range(0, 1500)}
        entries[b"\0".join(names[:1499] + [b"tied"])] = entry(7, further=counted(b"d0\0a"))
        entries[b"d0\0a"] = entry(2, further=file_of_extents(0, []))
        self.publish_tree(entries)
        before = len(os.listdir("/proc/self/fd"))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 50, limits[1]))
        try:
            self.succeed("restore", "one", self.folder / "deep")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(os.stat(self.folder / "deep/d0/a").st_nlink, 2)
        subprocess.run(["rm", "-r", self.folder / "deep"], check=True)


if __name__ == "__main__":
    unittest.main()
