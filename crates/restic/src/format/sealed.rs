//! Documents: JSON that is compressed and sealed, as indexes, snapshots and locks are.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::crypto::Key;
use super::error::{Error, Result};

/// The first byte of a document that is compressed; others begin with `{` or `[`.
const COMPRESSED: u8 = 2;
/// Level 3, Zstandard's own default, which is what restic takes.
pub(super) const LEVEL: i32 = 3;
/// The longest document that is read, in plain bytes: an index of restic's has some 10 MiB.
const MOST_LEN: usize = 256 << 20;

/// The bytes of a document's file.
pub(super) fn write<T: Serialize>(key: &Key, document: &T) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(document).map_err(|error| unfit(&error))?;
    let compressed = zstd::bulk::compress(&json, LEVEL).map_err(|error| unfit(&error))?;
    let mut sealed = Vec::new();
    key.seal(&[&[COMPRESSED], &compressed[..]].concat(), &mut sealed)?;
    Ok(sealed)
}

/// The bytes of the configuration's file, which must not be compressed.
pub(super) fn write_plainly<T: Serialize>(key: &Key, document: &T) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(document).map_err(|error| unfit(&error))?;
    let mut sealed = Vec::new();
    key.seal(&json, &mut sealed)?;
    Ok(sealed)
}

/// Reads a document; the error says what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(key: &Key, sealed: &[u8]) -> Result<T, String> {
    let plain = key.open(sealed).map_err(|error| error.to_string())?.ok_or("it does not open with its key")?;
    let json = match plain.split_first() {
        Some((&COMPRESSED, compressed)) => {
            zstd::bulk::decompress(compressed, length(compressed)?).map_err(|error| error.to_string())?
        }
        _ => plain,
    };
    serde_json::from_slice(&json).map_err(|error| format!("its fields are wrong: {error}"))
}

/// How much room a document needs; a frame that does not say it gets what a document may have.
fn length(compressed: &[u8]) -> Result<usize, String> {
    let said = zstd::zstd_safe::get_frame_content_size(compressed).map_err(|error| error.to_string())?;
    match said.map(usize::try_from) {
        None => Ok(MOST_LEN),
        Some(Ok(len)) if len <= MOST_LEN => Ok(len),
        Some(_) => Err(format!("it is longer than {MOST_LEN} bytes")),
    }
}

fn unfit(error: &dyn std::fmt::Display) -> Error {
    Error::DoesNotFit { what: "a document".to_owned(), why: error.to_string() }
}
