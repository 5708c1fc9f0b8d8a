//! The entries of a file tree: what is known of one file, and how it is written.

use super::TreePath;
use crate::{BlobRef, TableRef};

/// Most extents of a file that are kept in its entry; a file with more has a table of its own. 512 extents are 43 KB, a
/// sixth of a page, and enough for a file of 512 MiB.
pub const INLINE_EXTENTS: usize = 512;

/// One file, directory or other thing of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub attributes: Attributes,
    pub kind: Kind,
}

/// What every kind of file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The permission bits with set-user-id, set-group-id and sticky (`07777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// With inode and size, tells whether a file was touched; never restored.
    pub ctime: Time,
    pub inode: u64,
    /// The device that the file was on. Kept for diagnosis: it differs from mount to mount, so nothing is decided by it.
    pub device: Device,
    /// Extended attributes, sorted by name, POSIX access control lists among them.
    pub xattrs: Vec<Xattr>,
}

/// A point in time as file systems know it: seconds since 1970 and nanoseconds below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// The number of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// With its class: `user.`, `security.`, `system.`, `trusted.`
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

/// What differs between kinds of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(File),
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    CharacterDevice(Device),
    BlockDevice(Device),
    /// Another name of the file at `first`, which comes before this entry.
    HardLink {
        first: TreePath,
    },
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub size: u64,
    /// Whether size, times and inode prove that the content is the stored one. They do not when the file was touched so
    /// shortly before it was read that a later change could have left the same times.
    pub settled: bool,
    pub content: Content,
}

/// Where the bytes of a file are. What no extent covers is a hole and reads as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In ascending order, without overlap, at most [`INLINE_EXTENTS`].
    Extents(Vec<Extent>),
    /// A table of extents; the key is the offset in the file, as eight bytes big-endian.
    Table(TableRef),
}

/// A range of a file and the place of its bytes: `len` bytes at `file_offset` are those at `blob_offset` of `blob`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub file_offset: u64,
    pub len: u32,
    pub blob_offset: u32,
    pub blob: BlobRef,
}

impl Content {
    /// The table of extents, if there are so many.
    pub(crate) fn table(&self) -> Option<TableRef> {
        match self {
            Self::Extents(_) => None,
            Self::Table(table) => Some(*table),
        }
    }
}

impl Extent {
    /// Where the next extent may begin, if this one lies after `start`, within a file of `size` bytes, and within its blob.
    pub(crate) fn end_after(&self, start: u64, size: u64) -> Option<u64> {
        let end = self.file_offset.checked_add(u64::from(self.len))?;
        let blob_end = self.blob_offset.checked_add(self.len)?;
        let fits = self.len > 0 && self.file_offset >= start && end <= size && blob_end <= self.blob.plain_len;
        fits.then_some(end)
    }
}
