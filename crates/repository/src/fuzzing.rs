//! Doors for the fuzz targets in `fuzz/`, to parsers that nobody else can reach: they take bytes that would otherwise have to be sealed
//! with the right key. Only built with the feature `fuzzing`.
//!
//! Each takes any bytes, and must give an answer: no panic, and no more memory than a small multiple of the bytes.

use crate::checked_json;
use crate::crypto::{DomainKeys, Key};
use crate::ids::{PackId, RepositoryId, WriterId};
use crate::keys::KeyObject;
use crate::layout::{self, RunId};
use crate::{index, pack};

const WRITER: WriterId = WriterId([7; WriterId::LEN]);

fn keys() -> DomainKeys {
    let Ok(key) = Key::made_by(|key| {
        key.fill(1);
        Ok::<_, std::convert::Infallible>(())
    });
    DomainKeys::derive(&key)
}

/// Objects that can be read without a key. A right checksum is put after the bytes, because nobody guesses one.
pub fn checked_json(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return };
    let Ok(sealed) = checked_json::write(&value) else { return };
    let _ = crate::repository::verify_config(&sealed, RepositoryId([0; 16]));
    let _ = crate::repository::verify_epoch(&sealed, 1);
    let _ = KeyObject::from_bytes(&sealed);
    let _ = checked_json::read::<serde_json::Value>(bytes);
}

/// The names of objects. One that counts has one spelling.
pub fn name(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else { return };
    if let Some(spelled) = layout::name(&layout::parse(name)) {
        assert_eq!(spelled, name);
    }
}

/// A pack with a directory of any bytes, and one that is any bytes itself.
pub fn pack(bytes: &[u8]) {
    let id = PackId { epoch: 1, writer: WRITER, sequence: 0 };
    let keys = keys();
    let _ = pack::verify(bytes, id, &keys);
    let (blobs, directory) = bytes.split_at(bytes.len() / 2);
    let (entries, _) = pack::verify(&pack::with_directory(id, &keys.pack(&id), blobs, directory), id, &keys);
    assert!(entries.len() * 17 <= blobs.len(), "each entry has at least a codec and a tag of its own");
}

/// The inside of a blob, whose first four bytes say how long it claims to be.
pub fn blob(bytes: &[u8]) {
    let Some((len, encoded)) = bytes.split_first_chunk::<4>() else { return };
    let len = u32::from_le_bytes(*len);
    if let Ok(plain) = pack::decode_blob(encoded, len, &mut Vec::new()) {
        assert_eq!(plain.len(), len as usize);
    }
}

/// An index run of any bytes, and one with a directory and blocks of any bytes.
pub fn run(bytes: &[u8]) {
    let id = RunId { epoch: 1, writer: WRITER, sequence: 0 };
    let key = keys().run(&id);
    let _ = index::decode(bytes, &id, &key);
    let (block, directory) = bytes.split_at(bytes.len() / 2);
    if let Ok(entries) = index::decode(&index::with_parts(&id, &key, block, directory), &id, &key) {
        assert!(entries.len() * 69 <= block.len());
    }
}
