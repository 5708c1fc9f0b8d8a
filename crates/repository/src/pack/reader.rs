//! Reading packs as a whole, to see whether they are what was written.

use super::decode_blob;
use super::format::{Entry, HEADER_LEN, TRAILER_LEN, check_header, decode_directory, decode_trailer};
use crate::codec::Malformed;
use crate::crypto::{DomainKeys, SealingKey};
use crate::error::{Error, Result};
use crate::ids::{BlobRef, PackId};
use crate::layout;
use crate::store::Store;

/// Damage found in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackDamage {
    pub(crate) what: Malformed,
    /// The blob that is lost; none if the damage is in the pack's own structure.
    pub(crate) blob: Option<BlobRef>,
}

/// Reads every byte of a pack: header, each blob down to its identity, directory, trailer.
///
/// Damage in one blob does not end the reading; without a directory the blobs cannot be told apart, and that is said.
pub(crate) fn verify(bytes: &[u8], id: PackId, keys: &DomainKeys) -> (Vec<Entry>, Vec<PackDamage>) {
    let mut damage = Vec::new();
    let mut structural = |what| damage.push(PackDamage { what, blob: None });
    if let Err(what) = check_header(bytes, &id) {
        structural(what);
    }
    let key = keys.pack(&id);
    let entries = open_directory(bytes, id, &key).unwrap_or_else(|what| {
        structural(what);
        Vec::new()
    });
    let mut opener = Opener::new(&key, keys);
    for Entry { blob, .. } in &entries {
        let start = blob.offset as usize;
        let sealed = bytes.get(start..start + blob.stored_len as usize).unwrap_or_default();
        if let Err(what) = opener.open(blob, sealed) {
            damage.push(PackDamage { what, blob: Some(*blob) });
        }
    }
    (entries, damage)
}

fn open_directory(bytes: &[u8], id: PackId, key: &SealingKey) -> Result<Vec<Entry>, Malformed> {
    let cut = || Malformed::new("the pack is cut off");
    let trailer_start = bytes.len().checked_sub(TRAILER_LEN).filter(|start| *start >= HEADER_LEN).ok_or_else(cut)?;
    let (offset, len) = decode_trailer(&bytes[trailer_start..], bytes.len() as u64)?;
    let sealed = bytes.get(offset as usize..(offset + len) as usize).ok_or_else(cut)?;
    decode_sealed_directory(sealed, offset, id, key)
}

fn decode_sealed_directory(sealed: &[u8], offset: u32, id: PackId, key: &SealingKey) -> Result<Vec<Entry>, Malformed> {
    let plain = key
        .open_at(&id.encode(), sealed, u64::from(offset))
        .ok_or_else(|| Malformed::new("the directory does not open with its key"))?;
    decode_directory(&plain, id, offset)
}

/// Opens one sealed blob and checks it down to its identity.
pub(crate) fn open_blob(
    blob: &BlobRef,
    sealed: &[u8],
    key: &SealingKey,
    keys: &DomainKeys,
) -> Result<Vec<u8>, Malformed> {
    Opener::new(key, keys).open(blob, sealed).map(<[u8]>::to_vec)
}

/// Opens many blobs of one pack, one after the other, in the same memory.
pub(crate) struct Opener<'a> {
    key: &'a SealingKey,
    keys: &'a DomainKeys,
    encoded: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(key: &'a SealingKey, keys: &'a DomainKeys) -> Self {
        Self { key, keys, encoded: Vec::new(), plain: Vec::new() }
    }

    /// The plain bytes of a blob, checked down to its identity.
    pub(crate) fn open(&mut self, blob: &BlobRef, sealed: &[u8]) -> Result<&[u8], Malformed> {
        self.key
            .open_at_into(&blob.pack.encode(), sealed, u64::from(blob.offset), &mut self.encoded)
            .ok_or_else(|| Malformed::new(format!("the blob at {} does not open with its key", blob.offset)))?;
        let plain = decode_blob(&self.encoded, blob.plain_len, &mut self.plain)?;
        if self.keys.identify(plain) == blob.id {
            Ok(plain)
        } else {
            Err(Malformed::new(format!("the blob at {} is not the one it should be", blob.offset)))
        }
    }
}

/// Reads only header, directory and trailer of a pack in a store.
pub(crate) async fn read_directory(store: &Store, id: PackId, pack_len: u64, keys: &DomainKeys) -> Result<Vec<Entry>> {
    let name = layout::pack(&id);
    let damaged = |what: Malformed| what.in_object(&name);
    if pack_len < (HEADER_LEN + TRAILER_LEN) as u64 || pack_len > super::MAX_PACK_LEN {
        return Err(damaged(Malformed::new(format!("no pack has {pack_len} bytes"))));
    }
    let header = store.get_range(&name, 0..HEADER_LEN as u64).await.map_err(Error::from)?;
    check_header(&header, &id).map_err(damaged)?;
    let trailer = store.get_range(&name, pack_len - TRAILER_LEN as u64..pack_len).await?;
    let (offset, len) = decode_trailer(&trailer, pack_len).map_err(damaged)?;
    let sealed = store.get_range(&name, u64::from(offset)..u64::from(offset) + u64::from(len)).await?;
    decode_sealed_directory(&sealed, offset, id, &keys.pack(&id)).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Key;
    use crate::ids::WriterId;
    use crate::pack::{BlobKind, Buffers, PackBuilder, encode_blob, len_with};
    use proptest::prelude::*;

    const ID: PackId = PackId { epoch: 1, writer: WriterId([2; 12]), sequence: 3 };

    fn pack_of(blobs: &[Vec<u8>]) -> (DomainKeys, Vec<u8>, Vec<Entry>) {
        let keys = DomainKeys::derive(&Key::new([5; 32]));
        let mut builder = PackBuilder::new(ID, keys.pack(&ID), &Buffers::default());
        for plain in blobs {
            builder.append(keys.identify(plain), BlobKind::Data, &encode_blob(plain), plain.len());
        }
        let pack = builder.finish();
        (keys, pack.bytes.to_vec(), pack.entries)
    }

    #[test]
    fn every_changed_byte_is_noticed_and_a_blob_is_named_when_it_is_hit() {
        let (keys, bytes, entries) = pack_of(&[b"first".repeat(20), b"second".to_vec(), vec![]]);
        let stored = entries.iter().map(|entry| u64::from(entry.blob.stored_len)).sum();
        assert_eq!(len_with(entries.len() as u64, stored), bytes.len() as u64);
        assert_eq!(verify(&bytes, ID, &keys), (entries.clone(), vec![]));
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x20;
            let (_, damage) = verify(&flipped, ID, &keys);
            let hit = entries.iter().map(|entry| entry.blob).find(|blob| {
                let start = blob.offset as usize;
                (start..start + blob.stored_len as usize).contains(&position)
            });
            assert_eq!(damage.iter().map(|damage| damage.blob).collect::<Vec<_>>(), [hit], "byte {position}");
        }
        for cut in 0..bytes.len() {
            assert!(!verify(&bytes[..cut], ID, &keys).1.is_empty(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn packs_survive(blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let (keys, bytes, entries) = pack_of(&blobs);
            prop_assert_eq!(verify(&bytes, ID, &keys), (entries, vec![]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let keys = DomainKeys::derive(&Key::new([5; 32]));
            prop_assert!(!verify(&bytes, ID, &keys).1.is_empty());
        }
    }
}
