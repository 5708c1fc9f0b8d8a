//! Packs: sealed blobs, one after the other, then a sealed header that says what they are, then the length of the header (`u32`).
//!
//! An entry of the header is the type of the blob (0 data, 1 tree; 2 and 3 if compressed), its sealed length, for a compressed one its plain
//! length, and its name.

use serde::{Deserialize, Serialize};

use super::Id;
use super::crypto::{Key, OVERHEAD};
use super::error::{Error, Result};
use super::sealed::LEVEL;

/// A pack is closed when it has so many bytes: what restic takes if it is not told otherwise.
const PACK_LEN: usize = 16 << 20;
/// A pack is closed when it has so many blobs: the header must stay below the 16 MiB that restic reads.
const MOST_BLOBS: usize = 65_536;
/// The longest blob that is written, in plain bytes: a listing of some three million files; the lengths in a pack have 32 bits.
pub const MAX_BLOB_LEN: usize = 1 << 30;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// The listing of a folder.
    Tree,
}

/// A blob in a pack, as an index names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packed {
    pub(super) id: Id,
    #[serde(rename = "type")]
    pub(super) kind: BlobKind,
    pub(super) offset: u32,
    /// With the seal.
    pub(super) length: u32,
    /// Only of what is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uncompressed_length: Option<u32>,
}

/// A pack that is being filled, with blobs of one kind: restic keeps listings apart, so that they are read with few requests.
pub(super) struct Builder {
    kind: BlobKind,
    bytes: Vec<u8>,
    blobs: Vec<Packed>,
}

/// A pack that is closed.
pub(super) struct Pack {
    pub(super) bytes: Vec<u8>,
    pub(super) blobs: Vec<Packed>,
}

impl Builder {
    pub(super) fn new(kind: BlobKind) -> Self {
        Self { kind, bytes: Vec::new(), blobs: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_LEN || self.blobs.len() >= MOST_BLOBS
    }

    /// Compresses, unless that does not make it smaller, and seals. Gives how many bytes that took.
    pub(super) fn add(&mut self, key: &Key, id: Id, plain: &[u8]) -> Result<u64> {
        let unfit = |why: String| Error::DoesNotFit { what: format!("the blob {id}"), why };
        if plain.len() > MAX_BLOB_LEN {
            return Err(unfit(format!("it has {} bytes, more than {MAX_BLOB_LEN}", plain.len())));
        }
        let compressed = zstd::bulk::compress(plain, LEVEL).map_err(|error| unfit(error.to_string()))?;
        let smaller = compressed.len() < plain.len();
        let offset = self.bytes.len();
        key.seal(if smaller { &compressed } else { plain }, &mut self.bytes)?;
        let short = |len: usize| u32::try_from(len).map_err(|error| unfit(error.to_string()));
        let length = short(self.bytes.len() - offset)?;
        let uncompressed_length = smaller.then(|| short(plain.len())).transpose()?;
        self.blobs.push(Packed { id, kind: self.kind, offset: short(offset)?, length, uncompressed_length });
        Ok(u64::from(length))
    }

    /// Closes the pack, and begins the next one.
    pub(super) fn take(&mut self, key: &Key) -> Result<Pack> {
        let next = Self::new(self.kind);
        let Self { mut bytes, blobs, .. } = std::mem::replace(self, next);
        let mut header = Vec::with_capacity(blobs.len() * 41);
        for blob in &blobs {
            let tree = u8::from(blob.kind == BlobKind::Tree);
            header.push(tree + if blob.uncompressed_length.is_some() { 2 } else { 0 });
            header.extend_from_slice(&blob.length.to_le_bytes());
            header.extend(blob.uncompressed_length.map(u32::to_le_bytes).into_iter().flatten());
            header.extend_from_slice(blob.id.as_bytes());
        }
        key.seal(&header, &mut bytes)?;
        let length = u32::try_from(header.len() + OVERHEAD)
            .map_err(|error| Error::DoesNotFit { what: "the header of a pack".to_owned(), why: error.to_string() })?;
        bytes.extend_from_slice(&length.to_le_bytes());
        Ok(Pack { bytes, blobs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_has_the_bytes_of_the_format() {
        let key = Key::random().expect("there are random numbers");
        let mut builder = Builder::new(BlobKind::Tree);
        let (raw, even) = (b"x".to_vec(), vec![7; 1000]);
        for plain in [&raw, &even] {
            builder.add(&key, Id::of(plain), plain).expect("it fits");
        }
        let pack = builder.take(&key).expect("it fits");
        assert!(builder.is_empty());
        let (rest, length) = pack.bytes.split_last_chunk::<4>().expect("it ends with a length");
        let header_at = rest.len() - u32::from_le_bytes(*length) as usize;
        let header = key.open(&rest[header_at..]).expect("AES works").expect("it opens");
        let second = &pack.blobs[1];
        let expected = [
            &[1, 33, 0, 0, 0][..],
            Id::of(&raw).as_bytes(),
            &[3],
            &second.length.to_le_bytes(),
            &1000_u32.to_le_bytes(),
            Id::of(&even).as_bytes(),
        ]
        .concat();
        assert_eq!(header, expected);
        assert_eq!((second.offset, second.uncompressed_length), (33, Some(1000)));
        assert_eq!(header_at, (second.offset + second.length) as usize);
        let sealed = &rest[second.offset as usize..header_at];
        let compressed = key.open(sealed).expect("AES works").expect("it opens");
        assert_eq!(zstd::bulk::decompress(&compressed, 1000).expect("it is a frame"), even);
    }
}
