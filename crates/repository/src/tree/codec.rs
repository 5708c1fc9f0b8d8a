//! The bytes of an entry, as docs/formats/file-tree.md gives them. All numbers are little-endian and of fixed width.
//!
//! A decoder of this module takes any bytes without a panic, and reserves no more memory than the bytes it was given.

use std::fmt::Display;

use super::TreePath;
use super::entry::{Attributes, Content, Device, Entry, Extent, File, INLINE_EXTENTS, Kind, Time, Xattr};
use crate::codec::{Fields, Malformed};
use crate::{BlobRef, TableRef};

/// The version of the entries that this program writes, and the only one that it reads.
const VERSION: u8 = 1;

/// Set in a file's flags when its times prove its content.
const FLAG_SETTLED: u8 = 1;

/// No file has this owner: to the calls that change an owner, it means to leave it as it is.
const NOBODY_AT_ALL: u32 = u32::MAX;

/// The least bytes of an extended attribute: the lengths of its name and its value.
const XATTR_MIN_BYTES: usize = 8;

/// The bytes of an extent in an entry.
const EXTENT_BYTES: usize = 16 + BlobRef::LEN;

mod kind {
    pub(super) const DIRECTORY: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const SYMLINK: u8 = 3;
    pub(super) const FIFO: u8 = 4;
    pub(super) const CHARACTER_DEVICE: u8 = 5;
    pub(super) const BLOCK_DEVICE: u8 = 6;
    pub(super) const HARD_LINK: u8 = 7;
}

mod content {
    pub(super) const EXTENTS: u8 = 0;
    pub(super) const TABLE: u8 = 1;
}

type Result<T> = std::result::Result<T, Malformed>;

impl Entry {
    /// The entry as the value in the table of its tree.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.kind.code()];
        self.attributes.encode(&mut out);
        match &self.kind {
            Kind::Directory | Kind::Fifo => {}
            Kind::File(file) => file.encode(&mut out),
            Kind::Symlink { target } => put_bytes(&mut out, target),
            Kind::CharacterDevice(device) | Kind::BlockDevice(device) => device.encode(&mut out),
            Kind::HardLink { first } => put_bytes(&mut out, first.as_key()),
        }
        out
    }

    /// Reads the value of an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = Fields::new(bytes);
        match input.u8()? {
            VERSION => {}
            other => {
                return Err(Malformed::new(format!("its version {other} is not known; a newer program may read it")));
            }
        }
        let code = input.u8()?;
        let attributes = Attributes::decode(&mut input)?;
        let kind = match code {
            kind::DIRECTORY => Kind::Directory,
            kind::FILE => Kind::File(File::decode(&mut input)?),
            kind::SYMLINK => Kind::Symlink { target: take_bytes(&mut input)?.to_vec() },
            kind::FIFO => Kind::Fifo,
            kind::CHARACTER_DEVICE => Kind::CharacterDevice(Device::decode(&mut input)?),
            kind::BLOCK_DEVICE => Kind::BlockDevice(Device::decode(&mut input)?),
            kind::HARD_LINK => Kind::HardLink { first: decode_path(&mut input)? },
            other => return Err(refused("kind", other)),
        };
        input.finish()?;
        Ok(Self { attributes, kind })
    }
}

impl Kind {
    fn code(&self) -> u8 {
        match self {
            Self::Directory => kind::DIRECTORY,
            Self::File(_) => kind::FILE,
            Self::Symlink { .. } => kind::SYMLINK,
            Self::Fifo => kind::FIFO,
            Self::CharacterDevice(_) => kind::CHARACTER_DEVICE,
            Self::BlockDevice(_) => kind::BLOCK_DEVICE,
            Self::HardLink { .. } => kind::HARD_LINK,
        }
    }
}

impl Attributes {
    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.mode, self.uid, self.gid] {
            out.extend(number.to_le_bytes());
        }
        for time in [self.mtime, self.ctime] {
            out.extend(time.seconds.to_le_bytes());
            out.extend(time.nanoseconds.to_le_bytes());
        }
        out.extend(self.inode.to_le_bytes());
        self.device.encode(out);
        put_len(out, self.xattrs.len());
        for xattr in &self.xattrs {
            put_bytes(out, &xattr.name);
            put_bytes(out, &xattr.value);
        }
    }

    fn decode(input: &mut Fields<'_>) -> Result<Self> {
        let (mode, uid, gid) = (input.u32()?, input.u32()?, input.u32()?);
        if mode & !0o7777 != 0 {
            return Err(refused("mode", mode));
        }
        if uid == NOBODY_AT_ALL || gid == NOBODY_AT_ALL {
            return Err(refused("owner", NOBODY_AT_ALL));
        }
        let (mtime, ctime) = (Time::decode(input)?, Time::decode(input)?);
        let (inode, device) = (input.u64()?, Device::decode(input)?);
        let count = input.count(XATTR_MIN_BYTES)?;
        let mut xattrs = Vec::new();
        for _ in 0..count {
            xattrs.push(Xattr { name: take_bytes(input)?.to_vec(), value: take_bytes(input)?.to_vec() });
        }
        Ok(Self { mode, uid, gid, mtime, ctime, inode, device, xattrs })
    }
}

impl Time {
    fn decode(input: &mut Fields<'_>) -> Result<Self> {
        let time = Self { seconds: i64::from_le_bytes(input.array()?), nanoseconds: input.u32()? };
        match time.nanoseconds {
            0..1_000_000_000 => Ok(time),
            value => Err(refused("nanoseconds", value)),
        }
    }
}

impl Device {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend(self.major.to_le_bytes());
        out.extend(self.minor.to_le_bytes());
    }

    fn decode(input: &mut Fields<'_>) -> Result<Self> {
        Ok(Self { major: input.u32()?, minor: input.u32()? })
    }
}

impl File {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.size.to_le_bytes());
        out.push(if self.settled { FLAG_SETTLED } else { 0 });
        match &self.content {
            Content::Extents(extents) => {
                out.push(content::EXTENTS);
                put_len(out, extents.len());
                for extent in extents {
                    out.extend(extent.file_offset.to_le_bytes());
                    out.extend(extent.encode_value());
                }
            }
            Content::Table(table) => {
                out.push(content::TABLE);
                out.extend(table.encode());
            }
        }
    }

    fn decode(input: &mut Fields<'_>) -> Result<Self> {
        let (size, flags) = (input.u64()?, input.u8()?);
        if flags & !FLAG_SETTLED != 0 {
            return Err(refused("flags", flags));
        }
        let content = match input.u8()? {
            content::EXTENTS => Content::Extents(decode_extents(input, size)?),
            content::TABLE => Content::Table(TableRef::decode(input)?),
            other => return Err(refused("content", other)),
        };
        Ok(Self { size, settled: flags == FLAG_SETTLED, content })
    }
}

fn decode_extents(input: &mut Fields<'_>, size: u64) -> Result<Vec<Extent>> {
    let count = input.count(EXTENT_BYTES)?;
    if count > INLINE_EXTENTS {
        return Err(refused("number of extents", count));
    }
    let mut extents = Vec::with_capacity(count);
    let mut end = 0;
    for _ in 0..count {
        let file_offset = input.u64()?;
        let extent = Extent::decode_fields(file_offset, input)?;
        end = extent.end_after(end, size).ok_or_else(|| refused("offset of an extent", file_offset))?;
        extents.push(extent);
    }
    Ok(extents)
}

impl Extent {
    /// The key of this extent in a table of extents.
    #[must_use]
    pub fn encode_key(&self) -> [u8; 8] {
        self.file_offset.to_be_bytes()
    }

    /// The value of this extent in a table of extents.
    #[must_use]
    pub fn encode_value(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + BlobRef::LEN);
        out.extend(self.len.to_le_bytes());
        out.extend(self.blob_offset.to_le_bytes());
        out.extend(self.blob.encode());
        out
    }

    /// Reads an entry of a table of extents.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let mut input = Fields::new(key);
        let file_offset = u64::from_be_bytes(input.array()?);
        input.finish()?;
        let mut input = Fields::new(value);
        let extent = Self::decode_fields(file_offset, &mut input)?;
        input.finish()?;
        Ok(extent)
    }

    fn decode_fields(file_offset: u64, input: &mut Fields<'_>) -> Result<Self> {
        let (len, blob_offset) = (input.u32()?, input.u32()?);
        let blob = BlobRef::decode(input)?;
        Ok(Self { file_offset, len, blob_offset, blob })
    }
}

fn decode_path(input: &mut Fields<'_>) -> Result<TreePath> {
    let key = take_bytes(input)?;
    TreePath::from_key(key).map_err(|_| refused("path of a hard link", key.escape_ascii()))
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("attributes, targets and extents are bounded far below 4 GiB");
    out.extend(len.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A field whose value the format does not allow.
fn refused(field: &str, value: impl Display) -> Malformed {
    Malformed::new(format!("{field} has the value {value}"))
}

/// Bytes that follow their length.
fn take_bytes<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8]> {
    let len = fields.count(1)?;
    fields.bytes(len)
}
