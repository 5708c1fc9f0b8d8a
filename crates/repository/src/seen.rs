//! The blobs that a session has stored, so that it stores none twice.

use crate::ids::{BlobId, BlobRef};
use std::collections::HashMap;

/// How many blobs one generation remembers; there are two, of 110 bytes or so per blob, which makes up to 56 MiB.
///
/// With blobs of 1 MiB this covers the last 256 GiB of a session. A blob that was forgotten and comes again is stored again.
const GENERATION: usize = 1 << 18;

/// A bounded memory of blobs that forgets what was not asked for longest, in two generations rather than one by one.
#[derive(Debug, Default)]
pub(crate) struct SeenBlobs {
    young: HashMap<BlobId, BlobRef>,
    old: HashMap<BlobId, BlobRef>,
}

impl SeenBlobs {
    pub(crate) fn get(&mut self, id: &BlobId) -> Option<BlobRef> {
        if let Some(blob) = self.young.get(id) {
            return Some(*blob);
        }
        let blob = self.old.remove(id)?;
        self.insert(blob);
        Some(blob)
    }

    pub(crate) fn insert(&mut self, blob: BlobRef) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(blob.id, blob);
    }
}
