//! The keys of a dedup domain, all derived from its master key.
//!
//! ```text
//! master key (random, wrapped per recipient)
//!  ├─ identity key: keyed BLAKE3 of plain bytes is the identity of a blob
//!  ├─ proof key: keyed BLAKE3 of a key object proves that its maker had the master key
//!  └─ data key
//!      ├─ key of each pack           (data key ‖ pack id)
//!      ├─ key of each index run      (data key ‖ epoch ‖ writer ‖ sequence)
//!      ├─ key of each recovery point (data key ‖ id)
//!      └─ key of each collection     (data key ‖ epoch)
//! ```
//! No key seals two different texts under one nonce: a pack and a run are written once, each part at its own offset, and the
//! offset is the nonce; a recovery point and a collection draw their nonces.

use crate::codec::Malformed;
use crate::ids::{BlobId, PackId, PointId};
use crate::layout::RunId;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How many bytes sealing adds.
pub(crate) const TAG_LEN: usize = 16;

const IDENTITY_CONTEXT: &str = "orlop.io repository v1 blob identity";
const PROOF_CONTEXT: &str = "orlop.io repository v1 key object";
const DATA_CONTEXT: &str = "orlop.io repository v1 data";
const PACK_CONTEXT: &str = "orlop.io repository v1 pack";
const RUN_CONTEXT: &str = "orlop.io repository v1 index run";
const POINT_CONTEXT: &str = "orlop.io repository v1 recovery point";
const COLLECTION_CONTEXT: &str = "orlop.io repository v1 collection";

/// A key; wiped from memory when it is dropped.
///
/// It lies on the heap, so that moving it does not leave copies on stacks; what makes one fills it in place.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key(Box<[u8; Key::LEN]>);

impl Key {
    pub(crate) const LEN: usize = 32;

    /// A key whose bytes `fill` writes, if it can.
    pub(crate) fn made_by<E>(fill: impl FnOnce(&mut [u8; Self::LEN]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::new([0; Self::LEN]));
        fill(&mut key.0).map(|()| key)
    }

    #[cfg(test)]
    pub(crate) fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(Box::new(bytes))
    }

    pub(crate) fn random() -> Result<Self, Malformed> {
        Self::made_by(|bytes| super::fill(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    fn derive(&self, context: &'static str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.bytes());
        for part in parts {
            hasher.update(part);
        }
        let mut key = Self(Box::new([0; Self::LEN]));
        let mut output = hasher.finalize_xof();
        output.fill(&mut key.0[..]);
        output.zeroize();
        hasher.zeroize();
        key
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
    proof: Key,
    data: Key,
}

impl DomainKeys {
    pub(crate) fn derive(master: &Key) -> Self {
        let derive = |context| master.derive(context, &[]);
        Self { identity: derive(IDENTITY_CONTEXT), proof: derive(PROOF_CONTEXT), data: derive(DATA_CONTEXT) }
    }

    /// What only somebody who has the master key can say of a key object.
    pub(crate) fn prove(&self, object: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(self.proof.bytes(), object)
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

    pub(crate) fn collection(&self, epoch: u64) -> SealingKey {
        SealingKey::new(&self.data.derive(COLLECTION_CONTEXT, &[&epoch.to_le_bytes()]))
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

    /// Opens a sealed key, in the place where it stays.
    pub(crate) fn open_key(&self, nonce: [u8; 12], bound: &[u8], sealed: &[u8]) -> Option<Key> {
        let (text, tag) = sealed.split_at_checked(Key::LEN)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        Key::made_by(|key| self.0.open_separate_gather(nonce, Aad::from(bound), text, tag, key)).ok()
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

    fn key(byte: u8) -> Key {
        Key::new([byte; 32])
    }

    #[test]
    fn what_is_sealed_opens_only_unchanged_and_in_its_place() {
        let key = SealingKey::new(&key(3));
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
        let keys = DomainKeys::derive(&key(1));
        assert_ne!(keys.identity.bytes(), keys.data.bytes());
        assert_ne!(keys.identity.bytes(), keys.proof.bytes());
        let first = keys.data.derive(PACK_CONTEXT, &[b"a"]);
        assert_ne!(first.bytes(), keys.data.derive(PACK_CONTEXT, &[b"b"]).bytes());
        assert_ne!(first.bytes(), keys.data.derive(RUN_CONTEXT, &[b"a"]).bytes());
    }

    #[test]
    fn a_key_is_opened_as_it_was_sealed() {
        let wrapping = SealingKey::new(&key(7));
        let mut sealed = key(9).bytes().to_vec();
        wrapping.seal([0; 12], b"of whom", &mut sealed, 0);
        assert_eq!(wrapping.open_key([0; 12], b"of whom", &sealed).unwrap().bytes(), key(9).bytes());
        assert!(wrapping.open_key([0; 12], b"of another", &sealed).is_none());
        assert!(wrapping.open_key([0; 12], b"of whom", &sealed[..40]).is_none());
    }

    #[test]
    fn keys_do_not_print_and_are_wiped() {
        let mut one = key(9);
        assert_eq!(
            format!("{one:?} {:?} {:?}", DomainKeys::derive(&one), SealingKey::new(&one)).matches('9').count(),
            0
        );
        one.zeroize();
        assert_eq!(one.bytes(), &[0; 32]);
    }
}
