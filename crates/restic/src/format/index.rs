//! Indexes: which pack has which blobs.

use serde::{Deserialize, Serialize};

use super::Id;
use super::pack::Packed;

/// An index is written when it has so many blobs; restic's are as long.
const MOST_BLOBS: usize = 50_000;
/// An index is written when it names so many packs, 4 GiB, so that a crash does not lose more work than that.
const MOST_PACKS: usize = 256;

/// A file below `index/`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// Indexes that this one stands for; restic has merged them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    supersedes: Vec<Id>,
    pub(super) packs: Vec<IndexedPack>,
}

/// What an index says of one pack.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IndexedPack {
    pub(super) id: Id,
    pub(super) blobs: Vec<Packed>,
}

impl Index {
    pub(super) fn is_full(&self) -> bool {
        self.packs.len() >= MOST_PACKS || self.packs.iter().map(|pack| pack.blobs.len()).sum::<usize>() >= MOST_BLOBS
    }
}
