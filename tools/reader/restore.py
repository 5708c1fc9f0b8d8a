"""Writes contents to a file system.

Whoever made the repository is not trusted. Every name is one component, and is used relative to a directory that is
held open, without following symlinks; so nothing is written outside of the target, whatever is in the repository and
whatever others do in the target meanwhile.
"""

import os
import stat

import contents
from primitives import Damage, Unsupported

O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
O_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What can go wrong with one entry: its content, the file system, or a number that the system has no place for.
FAILURES = (Damage, Unsupported, OSError, OverflowError, ValueError)


def shown(name):
    """Bytes for people: no control characters, and different text for different bytes."""
    text = name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_set(name):
    """file-tree.md, "Rules for a restore": some attributes belong to the machine or to its file system."""
    if name in (b"security.selinux", b"security.ima", b"security.evm") or name.startswith(b"btrfs."):
        return False
    return name.startswith(b"system.posix_acl_") or not name.startswith(b"system.")


def write_extents(repository, fd, size, extents):
    """What no extent covers is never written, and so stays a hole."""
    os.ftruncate(fd, size)
    for extent in extents:
        data = memoryview(repository.blob(extent.blob))[extent.blob_offset:extent.blob_offset + extent.length]
        at = extent.offset
        while data:
            written = os.pwrite(fd, data, at)
            data, at = data[written:], at + written


def restore_image(repository, root, target):
    """A volume or a stream becomes a file, which must not be there yet."""
    # volume.md: all of it is checked before a byte is used. This reads pages only, not the data.
    for _ in contents.image_extents(repository, root):
        pass
    fd = os.open(target, O_CREATE, 0o600)
    try:
        write_extents(repository, fd, root.bytes, contents.image_extents(repository, root))
    except BaseException:
        os.unlink(target)  # What is incomplete must not be taken for complete.
        raise
    finally:
        os.close(fd)


def restore_tree(repository, root, target, report):
    """A tree becomes a directory, which must be empty if it is there. Returns how many entries failed."""
    # file-tree.md, "Key: the path": the rules are checked before anything is created.
    for _, entry in contents.tree_entries(repository, root.table):
        if entry.kind == contents.FILE:
            for _ in contents.file_extents(repository, entry):
                pass
    try:
        os.mkdir(target, 0o700)
    except FileExistsError:
        pass
    top = os.open(target, O_DIRECTORY)
    try:
        if os.listdir(top):
            raise Damage(f"{target} is not empty")
        return _Tree(repository, root, top, report).restore()
    finally:
        os.close(top)


class _Tree:
    """One restore. Of the directories that lead to an entry only the last is open: depth costs no descriptors."""

    def __init__(self, repository, root, top, report):
        self.repository, self.root, self.report = repository, root, report
        self.top, self.fd = top, os.dup(top)
        self.stack = []  # Of the open directories: path, entry, and which one it is.
        self.lost = None  # A directory that could not be made, and so cannot be filled.
        self.failures = 0
        self.privileged = os.geteuid() == 0

    def fail(self, path, error):
        self.failures += 1
        text = error.strerror if isinstance(error, OSError) else str(error)
        self.report(f"{shown(b'/'.join(path)) or '.'}: {text}")

    def restore(self):
        try:
            for path, entry in contents.tree_entries(self.repository, self.root.table):
                if not path:
                    self._begin_top(entry)
                    continue
                while len(self.stack) > len(path):
                    self._leave()
                if self.lost is not None and path[:len(self.lost)] == self.lost:
                    self.fail(path, Damage("its directory could not be made"))
                    continue
                try:
                    self._create(path, entry)
                except FAILURES as error:
                    self.fail(path, error)
                    if entry.kind == contents.DIRECTORY:
                        self.lost = path
            while self.stack:
                self._leave()
        finally:
            os.close(self.fd)
        return self.failures

    def _begin_top(self, entry):
        # Until it is complete, others must not get in; and a default ACL on it must not reach what is made in it.
        os.fchmod(self.fd, 0o700)
        for name in "system.posix_acl_default", "system.posix_acl_access":
            try:
                os.removexattr(self.fd, name)
            except OSError:
                pass  # There is none.
        self.stack.append(([], entry, _identity(self.fd)))

    def _enter(self, path, entry):
        os.mkdir(path[-1], 0o700, dir_fd=self.fd)
        fd = os.open(path[-1], O_DIRECTORY, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = fd
        self.stack.append((path, entry, _identity(fd)))

    def _leave(self):
        """A directory gets its attributes after its last entry: those before would have changed its times."""
        path, entry, _ = self.stack.pop()
        if self.stack:
            # Its mode may forbid to go up, so this comes first.
            parent = os.open("..", O_DIRECTORY, dir_fd=self.fd)
            if _identity(parent) != self.stack[-1][2]:
                os.close(parent)
                raise Damage("somebody moves directories in the target")
            self._attributes(path, entry, self.fd)
            os.close(self.fd)
            self.fd = parent
        else:
            self._attributes(path, entry, self.fd)

    def _create(self, path, entry):
        name = path[-1]
        if entry.kind == contents.DIRECTORY:
            self._enter(path, entry)
        elif entry.kind == contents.FILE:
            self._create_file(path, entry)
        elif entry.kind == contents.SYMLINK:
            os.symlink(entry.target, name, dir_fd=self.fd)
            # The way to the directory is a descriptor, and the symlink itself is not followed.
            self._attributes(path, entry, b"/proc/self/fd/%d/%s" % (self.fd, name), follow=False)
        elif entry.kind == contents.HARD_LINK:
            self._create_link(path, entry)
        else:
            if entry.kind == contents.FIFO:
                os.mkfifo(name, 0o600, dir_fd=self.fd)
            else:
                kind = stat.S_IFCHR if entry.kind == contents.CHARACTER_DEVICE else stat.S_IFBLK
                os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=self.fd)
            # It must not be opened, since that would wait, or wake a device; its place can be held all the same.
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                self._attributes(path, entry, f"/proc/self/fd/{fd}")
            finally:
                os.close(fd)

    def _create_file(self, path, entry):
        fd = os.open(path[-1], O_CREATE, 0o600, dir_fd=self.fd)
        try:
            write_extents(self.repository, fd, entry.size, contents.file_extents(self.repository, entry))
            self._attributes(path, entry, fd)
        except BaseException:
            os.unlink(path[-1], dir_fd=self.fd)  # A file whose content is incomplete must not stay.
            raise
        finally:
            os.close(fd)

    def _create_link(self, path, entry):
        *parents, name = contents.parse_path(entry.target)
        fd = os.dup(self.top)
        try:
            for parent in parents:
                below = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = below
            os.link(name, path[-1], src_dir_fd=fd, dst_dir_fd=self.fd, follow_symlinks=False)
        finally:
            os.close(fd)

    def _attributes(self, path, entry, where, follow=True):
        """Owner, attributes, mode, times, in this order (file-tree.md). What cannot be set is reported and counted."""
        options = {} if follow else {"follow_symlinks": False}
        mode = entry.mode
        steps = []
        if self.privileged:
            steps.append(lambda: os.chown(where, entry.uid, entry.gid, **options))
        else:
            # Without its owner, a program must not get the right to act as whoever restores it.
            about = os.stat(where, **options)
            if about.st_uid != entry.uid:
                mode &= ~stat.S_ISUID
            if about.st_gid != entry.gid:
                mode &= ~stat.S_ISGID
        for name, value in entry.xattrs:
            if is_set(name):
                steps.append(lambda name=name, value=value: os.setxattr(where, name, value, **options))
        if follow:  # A symlink has no mode of its own.
            steps.append(lambda: os.chmod(where, mode))
        seconds, nanoseconds = entry.mtime
        modified = seconds * 1_000_000_000 + nanoseconds
        # The access time is not stored, and that of the restore would tell nothing.
        steps.append(lambda: os.utime(where, ns=(modified, modified), **options))
        for step in steps:
            try:
                step()
            except FAILURES as error:
                self.fail(path, error)


def _identity(fd):
    about = os.fstat(fd)
    return about.st_dev, about.st_ino
