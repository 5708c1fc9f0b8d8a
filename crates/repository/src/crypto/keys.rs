//! The keys of a dedup domain, all derived from its master key.
//!
//! ```text
//! master key (random, wrapped per recipient)
//!  ├─ identity key: keyed BLAKE3 of plain bytes is the identity of a blob
//!  └─ data key
//!      ├─ key of each pack           (data key ‖ pack id)
//!      ├─ key of each index run      (data key ‖ epoch ‖ writer ‖ sequence)
//!      └─ key of each recovery point (data key ‖ id)
//! ```
//! No key seals two different texts under one nonce: a pack and a run are written once, each part at its own offset, and the
//! offset is the nonce; a recovery point draws its nonce.

use crate::codec::Malformed;
use crate::ids::{BlobId, PackId, PointId};
use crate::layout::RunId;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How many bytes sealing adds.
pub(crate) const TAG_LEN: usize = 16;

const IDENTITY_CONTEXT: &str = "orlop.io repository v1 blob identity";
const DATA_CONTEXT: &str = "orlop.io repository v1 data";
const PACK_CONTEXT: &str = "orlop.io repository v1 pack";
const RUN_CONTEXT: &str = "orlop.io repository v1 index run";
const POINT_CONTEXT: &str = "orlop.io repository v1 recovery point";

/// A key; wiped from memory when it is dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn random() -> Result<Self, Malformed> {
        super::random().map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, context: &'static str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// The keys of one dedup domain.
#[derive(Debug)]
pub(crate) struct DomainKeys {
    identity: Key,
    data: Key,
}

impl DomainKeys {
    pub(crate) fn derive(master: &Key) -> Self {
        Self { identity: master.derive(IDENTITY_CONTEXT, &[]), data: master.derive(DATA_CONTEXT, &[]) }
    }

    pub(crate) fn identify(&self, plain: &[u8]) -> BlobId {
        BlobId(*blake3::keyed_hash(self.identity.bytes(), plain).as_bytes())
    }

    pub(crate) fn pack(&self, id: &PackId) -> SealingKey {
        SealingKey::new(&self.data.derive(PACK_CONTEXT, &[&id.encode()]))
    }

    pub(crate) fn run(&self, id: &RunId) -> SealingKey {
        let parts = [&id.epoch.to_le_bytes()[..], &id.writer.0, &id.sequence.to_le_bytes()];
        SealingKey::new(&self.data.derive(RUN_CONTEXT, &parts))
    }

    pub(crate) fn point(&self, id: &PointId) -> SealingKey {
        SealingKey::new(&self.data.derive(POINT_CONTEXT, &[id.as_str().as_bytes()]))
    }
}

/// A key of AES-256-GCM, ready for use.
pub(crate) struct SealingKey(LessSafeKey);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

impl SealingKey {
    pub(crate) fn new(key: &Key) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.bytes()).expect("a key of AES-256 has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Seals what `buffer` holds from `start` on, and appends the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], bound: &[u8], buffer: &mut Vec<u8>, start: usize) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(bound), &mut buffer[start..])
            .expect("AES-GCM seals whatever is shorter than 64 GiB");
        buffer.extend_from_slice(tag.as_ref());
    }

    /// Opens what [`Self::seal`] made; `None` when it is not that.
    pub(crate) fn open(&self, nonce: [u8; 12], bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        self.open_into(nonce, bound, sealed, &mut plain)?;
        Some(plain)
    }

    /// The same into a buffer, whose content it replaces and whose memory it uses again.
    fn open_into(&self, nonce: [u8; 12], bound: &[u8], sealed: &[u8], plain: &mut Vec<u8>) -> Option<()> {
        let (text, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG_LEN)?)?;
        // What it had stays until it is written over: filling it with zeros first would cost as much as opening.
        plain.resize(text.len(), 0);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_separate_gather(nonce, Aad::from(bound), text, tag, plain).ok()
    }

    /// Seals a part of an object at its offset, which is the nonce and is bound together with the object's name.
    pub(crate) fn seal_at(&self, object: &[u8], buffer: &mut Vec<u8>, offset: usize) {
        let (nonce, bound) = at_offset(object, offset as u64);
        self.seal(nonce, &bound, buffer, offset);
    }

    /// Opens what [`Self::seal_at`] made.
    pub(crate) fn open_at(&self, object: &[u8], sealed: &[u8], offset: u64) -> Option<Vec<u8>> {
        let (nonce, bound) = at_offset(object, offset);
        self.open(nonce, &bound, sealed)
    }

    /// The same into a buffer, whose content it replaces and whose memory it uses again.
    pub(crate) fn open_at_into(&self, object: &[u8], sealed: &[u8], offset: u64, plain: &mut Vec<u8>) -> Option<()> {
        let (nonce, bound) = at_offset(object, offset);
        self.open_into(nonce, &bound, sealed, plain)
    }
}

fn at_offset(object: &[u8], offset: u64) -> ([u8; 12], Vec<u8>) {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&offset.to_le_bytes());
    (nonce, [object, &offset.to_le_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_unchanged_and_in_its_place() {
        let key = SealingKey::new(&Key::new([3; 32]));
        let mut buffer = b"headwind".to_vec();
        key.seal_at(b"pack", &mut buffer, 4);
        let sealed = &buffer[4..];
        assert_eq!(sealed.len(), 4 + TAG_LEN);
        assert_eq!(key.open_at(b"pack", sealed, 4).unwrap(), b"wind");
        assert!(key.open_at(b"pack", sealed, 5).is_none());
        assert!(key.open_at(b"kcap", sealed, 4).is_none());
        for position in 0..sealed.len() {
            let mut flipped = sealed.to_vec();
            flipped[position] ^= 1;
            assert!(key.open_at(b"pack", &flipped, 4).is_none(), "byte {position}");
        }
        assert!(key.open_at(b"pack", &sealed[..3], 4).is_none());
    }

    #[test]
    fn keys_differ_by_purpose_and_by_object() {
        let keys = DomainKeys::derive(&Key::new([1; 32]));
        assert_ne!(keys.identity.bytes(), keys.data.bytes());
        let first = keys.data.derive(PACK_CONTEXT, &[b"a"]);
        assert_ne!(first.bytes(), keys.data.derive(PACK_CONTEXT, &[b"b"]).bytes());
        assert_ne!(first.bytes(), keys.data.derive(RUN_CONTEXT, &[b"a"]).bytes());
    }
}
