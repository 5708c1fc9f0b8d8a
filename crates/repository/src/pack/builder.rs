//! Filling a pack.

use super::format::{
    ENTRY_LEN, Entry, HEADER_LEN, MAX_PACK_BLOBS, PACK_TARGET_LEN, TRAILER_LEN, encode_directory, encode_header,
    encode_trailer,
};
use super::{BlobKind, Buffers, MAX_BLOB_LEN};
use crate::crypto::{SealingKey, TAG_LEN};
use crate::ids::{BlobId, BlobRef, PackId};
use bytes::Bytes;

/// A pack that is being filled.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    id: PackId,
    id_bytes: [u8; PackId::LEN],
    key: SealingKey,
    buffers: Buffers,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A pack that is full and can be stored.
#[derive(Debug, Clone)]
pub(crate) struct FinishedPack {
    pub(crate) id: PackId,
    pub(crate) bytes: Bytes,
    pub(crate) entries: Vec<Entry>,
}

impl PackBuilder {
    pub(crate) fn new(id: PackId, key: SealingKey, buffers: &Buffers) -> Self {
        let mut bytes = buffers.take();
        bytes.extend_from_slice(&encode_header(&id));
        Self { id, id_bytes: id.encode(), key, buffers: buffers.clone(), bytes, entries: Vec::new() }
    }

    /// Whether the pack stays within its target with one more blob; an empty pack takes any blob.
    pub(crate) fn has_room(&self, encoded_len: usize) -> bool {
        let directory_len = 4 + (self.entries.len() + 1) * ENTRY_LEN + TAG_LEN;
        let len = self.bytes.len() + encoded_len + TAG_LEN + directory_len + TRAILER_LEN;
        self.entries.is_empty() || (len <= PACK_TARGET_LEN && self.entries.len() < MAX_PACK_BLOBS)
    }

    /// Seals an encoded blob at the end of the pack.
    pub(crate) fn append(&mut self, id: BlobId, kind: BlobKind, encoded: &[u8], plain_len: usize) -> BlobRef {
        assert!(plain_len <= MAX_BLOB_LEN && encoded.len() <= MAX_BLOB_LEN + 1, "the session refuses longer blobs");
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(encoded);
        self.key.seal_at(&self.id_bytes, &mut self.bytes, offset);
        let blob = BlobRef {
            id,
            pack: self.id,
            offset: narrow(offset),
            stored_len: narrow(self.bytes.len() - offset),
            plain_len: narrow(plain_len),
        };
        self.entries.push(Entry { blob, kind });
        blob
    }

    /// Writes directory and trailer.
    pub(crate) fn finish(mut self) -> FinishedPack {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&encode_directory(&self.entries));
        self.key.seal_at(&self.id_bytes, &mut self.bytes, offset);
        let len = self.bytes.len() - offset;
        self.bytes.extend_from_slice(&encode_trailer(narrow(offset), narrow(len)));
        debug_assert!(offset >= HEADER_LEN);
        FinishedPack { id: self.id, bytes: self.buffers.lend(self.bytes), entries: self.entries }
    }
}

/// A pack of any bytes between its header and a sealed directory of any bytes, for fuzzing.
#[cfg(feature = "fuzzing")]
pub(crate) fn with_directory(id: PackId, key: &SealingKey, blobs: &[u8], directory: &[u8]) -> Vec<u8> {
    let mut bytes = encode_header(&id).to_vec();
    bytes.extend_from_slice(blobs);
    let offset = bytes.len();
    bytes.extend_from_slice(directory);
    key.seal_at(&id.encode(), &mut bytes, offset);
    let len = bytes.len() - offset;
    bytes.extend_from_slice(&encode_trailer(narrow(offset), narrow(len)));
    bytes
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a pack is shorter than 64 MiB")
}
