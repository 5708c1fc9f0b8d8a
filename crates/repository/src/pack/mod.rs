//! Packs: files of sealed blobs with their directory at the end.
//!
//! ```text
//! header │ sealed blob │ sealed blob │ … │ sealed directory │ trailer
//! ```
//! Nothing lies between the parts, so every byte belongs to a part that is compared, summed or sealed.

mod blob;
mod buffers;
mod builder;
mod format;
mod reader;

pub(crate) use blob::{decode as decode_blob, encode as encode_blob};
pub(crate) use buffers::Buffers;
#[cfg(feature = "fuzzing")]
pub(crate) use builder::with_directory;
pub(crate) use builder::{FinishedPack, PackBuilder};
pub(crate) use format::{Entry, MAX_PACK_LEN, check_lengths, len_with};
pub(crate) use reader::{Opener, PackDamage, open_blob, read_directory, verify};

use serde::{Deserialize, Serialize};

/// The longest blob, in plain bytes.
pub const MAX_BLOB_LEN: usize = 16 << 20;

/// What a blob holds; kept in the directory, so that tools can tell data from structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlobKind {
    /// Content: of files, volumes, objects.
    Data,
    /// A page of a table.
    Page,
}

impl BlobKind {
    pub(crate) fn encode(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Page => 2,
        }
    }

    pub(crate) fn decode(byte: u8) -> Result<Self, crate::codec::Malformed> {
        match byte {
            1 => Ok(Self::Data),
            2 => Ok(Self::Page),
            other => Err(crate::codec::Malformed::new(format!("{other} is no kind of blob"))),
        }
    }
}
