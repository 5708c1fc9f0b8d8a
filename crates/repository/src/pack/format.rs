//! The parts of a pack, byte by byte; `docs/formats/repository.md` is the specification.

use super::{BlobKind, MAX_BLOB_LEN};
use crate::codec::{Fields, Malformed};
use crate::crypto::TAG_LEN;
use crate::ids::{BlobId, BlobRef, PackId};

pub(super) const MAGIC: &[u8; 8] = b"ORLOPPAK";
pub(super) const END_MAGIC: &[u8; 8] = b"ORLOPEND";
pub(super) const VERSION: u32 = 1;

/// Magic, version, pack id, checksum.
pub(super) const HEADER_LEN: usize = 8 + 4 + PackId::LEN + 4;
/// Offset and length of the directory, checksum, magic.
pub(super) const TRAILER_LEN: usize = 4 + 4 + 4 + 8;
/// Identity, offset, stored length, plain length, kind.
pub(super) const ENTRY_LEN: usize = BlobId::LEN + 4 + 4 + 4 + 1;
/// The least that a sealed blob has: the codec byte and the tag.
pub(super) const MIN_STORED_LEN: usize = 1 + TAG_LEN;
/// The most that a sealed blob has.
pub(super) const MAX_STORED_LEN: usize = MAX_BLOB_LEN + MIN_STORED_LEN;

/// A pack is closed before it grows beyond this many bytes: large enough for the latency of an object store not to matter, and
/// small enough for one to be filled and one to be uploaded in 64 MiB.
pub(crate) const PACK_TARGET_LEN: usize = 32 << 20;
/// How many blobs a pack has at most, so that its directory stays below 3 MiB.
pub(crate) const MAX_PACK_BLOBS: usize = 1 << 16;
/// No pack is longer, in bytes; one that is, is not read.
pub(crate) const MAX_PACK_LEN: u64 = 64 << 20;

/// A blob as the directory has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) blob: BlobRef,
    pub(crate) kind: BlobKind,
}

/// How long a pack of so many blobs is, which have so many sealed bytes together.
pub(crate) fn len_with(blobs: u64, stored: u64) -> u64 {
    (HEADER_LEN + 4 + TAG_LEN + TRAILER_LEN) as u64 + blobs * ENTRY_LEN as u64 + stored
}

pub(super) fn encode_header(id: &PackId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..36].copy_from_slice(&id.encode());
    let sum = crc32c::crc32c(&header[..36]);
    header[36..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Checks the header; a newer version is told by its number.
pub(super) fn check_header(bytes: &[u8], id: &PackId) -> Result<(), Malformed> {
    let header = bytes.get(..HEADER_LEN).ok_or_else(|| Malformed::new("the header is cut off"))?;
    if *header == encode_header(id) {
        return Ok(());
    }
    let mut fields = Fields::new(header);
    fields.expect(MAGIC, "magic of the header")?;
    let version = fields.u32()?;
    if crc32c::crc32c(&header[..36]).to_le_bytes() != header[36..] {
        return Err(Malformed::new("the checksum of the header is wrong"));
    }
    if version != VERSION {
        return Err(Malformed::new(format!("it has version {version}, and this program reads version {VERSION}")));
    }
    Err(Malformed::new("the header is that of another pack"))
}

pub(super) fn encode_directory(entries: &[Entry]) -> Vec<u8> {
    let count = u32::try_from(entries.len()).expect("a pack is closed at MAX_PACK_BLOBS");
    let mut bytes = Vec::with_capacity(4 + entries.len() * ENTRY_LEN + TAG_LEN);
    bytes.extend_from_slice(&count.to_le_bytes());
    for Entry { blob, kind } in entries {
        bytes.extend_from_slice(&blob.id.0);
        bytes.extend_from_slice(&blob.offset.to_le_bytes());
        bytes.extend_from_slice(&blob.stored_len.to_le_bytes());
        bytes.extend_from_slice(&blob.plain_len.to_le_bytes());
        bytes.push(kind.encode());
    }
    bytes
}

/// Reads a directory and checks that the blobs lie back to back from the header to `end`.
pub(super) fn decode_directory(plain: &[u8], pack: PackId, end: u32) -> Result<Vec<Entry>, Malformed> {
    let mut fields = Fields::new(plain);
    let count = fields.count(ENTRY_LEN)?;
    let mut entries = Vec::with_capacity(count);
    let mut offset = HEADER_LEN as u64;
    for _ in 0..count {
        let blob = BlobRef {
            id: BlobId::decode(&mut fields)?,
            pack,
            offset: fields.u32()?,
            stored_len: fields.u32()?,
            plain_len: fields.u32()?,
        };
        check_lengths(&blob)?;
        if u64::from(blob.offset) != offset {
            return Err(Malformed::new(format!("the directory has a gap at {offset}")));
        }
        offset += u64::from(blob.stored_len);
        entries.push(Entry { blob, kind: BlobKind::decode(fields.u8()?)? });
    }
    fields.finish()?;
    if offset == u64::from(end) { Ok(entries) } else { Err(Malformed::new("the directory does not cover the pack")) }
}

/// Checks that a blob has lengths that a blob can have.
pub(crate) fn check_lengths(blob: &BlobRef) -> Result<(), Malformed> {
    let (stored, plain) = (blob.stored_len as usize, blob.plain_len as usize);
    if !(MIN_STORED_LEN..=MAX_STORED_LEN).contains(&stored) || plain > MAX_BLOB_LEN {
        return Err(Malformed::new(format!("no blob has {stored} stored and {plain} plain bytes")));
    }
    if u64::from(blob.offset) + u64::from(blob.stored_len) > MAX_PACK_LEN || (blob.offset as usize) < HEADER_LEN {
        return Err(Malformed::new(format!("no pack has a blob at {}", blob.offset)));
    }
    Ok(())
}

pub(super) fn encode_trailer(directory_offset: u32, directory_len: u32) -> [u8; TRAILER_LEN] {
    let mut trailer = [0; TRAILER_LEN];
    trailer[..4].copy_from_slice(&directory_offset.to_le_bytes());
    trailer[4..8].copy_from_slice(&directory_len.to_le_bytes());
    let sum = crc32c::crc32c(&trailer[..8]);
    trailer[8..12].copy_from_slice(&sum.to_le_bytes());
    trailer[12..].copy_from_slice(END_MAGIC);
    trailer
}

/// Reads the trailer of a pack of `pack_len` bytes; gives offset and length of the directory, which reaches up to the trailer.
pub(super) fn decode_trailer(trailer: &[u8], pack_len: u64) -> Result<(u32, u32), Malformed> {
    let mut fields = Fields::new(trailer);
    let (offset, len) = (fields.u32()?, fields.u32()?);
    let sum = fields.u32()?;
    fields.expect(END_MAGIC, "magic of the trailer")?;
    fields.finish()?;
    if crc32c::crc32c(&trailer[..8]) != sum {
        return Err(Malformed::new("the checksum of the trailer is wrong"));
    }
    let fits = u64::from(offset) + u64::from(len) + TRAILER_LEN as u64 == pack_len;
    if fits && (offset as usize) >= HEADER_LEN && len as usize <= 4 + MAX_PACK_BLOBS * ENTRY_LEN + TAG_LEN {
        Ok((offset, len))
    } else {
        Err(Malformed::new(format!("the directory of {len} bytes at {offset} does not reach up to the trailer")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriterId;
    use proptest::prelude::*;

    const ID: PackId = PackId { epoch: 1, writer: WriterId([2; 12]), sequence: 3 };

    #[test]
    fn sizes_on_disk_are_fixed() {
        assert_eq!((HEADER_LEN, TRAILER_LEN, ENTRY_LEN), (40, 20, 45));
        assert!(PACK_TARGET_LEN + MAX_STORED_LEN + MAX_PACK_BLOBS * ENTRY_LEN < usize::try_from(MAX_PACK_LEN).unwrap());
    }

    #[test]
    fn every_changed_byte_of_header_and_trailer_is_noticed() {
        let (header, trailer) = (encode_header(&ID), encode_trailer(40, 20));
        assert_eq!(check_header(&header, &ID), Ok(()));
        assert_eq!(decode_trailer(&trailer, 80), Ok((40, 20)));
        for position in 0..HEADER_LEN {
            let mut flipped = header;
            flipped[position] ^= 0x10;
            assert!(check_header(&flipped, &ID).is_err(), "byte {position}");
        }
        for position in 0..TRAILER_LEN {
            let mut flipped = trailer;
            flipped[position] ^= 0x10;
            assert!(decode_trailer(&flipped, 80).is_err(), "byte {position}");
        }
    }

    #[test]
    fn the_header_of_another_pack_is_told() {
        let other = PackId { sequence: 4, ..ID };
        assert_eq!(
            check_header(&encode_header(&other), &ID),
            Err(Malformed::new("the header is that of another pack"))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in any::<u64>()) {
            let _ = check_header(&bytes, &ID);
            let _ = decode_trailer(&bytes, len);
            let _ = decode_directory(&bytes, ID, 40);
        }
    }
}
