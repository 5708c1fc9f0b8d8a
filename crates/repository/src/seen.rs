//! The blobs that a session has stored, so that it stores none twice.

use crate::ids::{BlobId, BlobRef};
use std::collections::HashMap;

/// How many blobs one generation remembers: as many as a hash table of 64 Ki places takes. Two of them, with 105 bytes per place,
/// are 14 MiB.
///
/// With blobs of 1 MiB this covers at least the last 56 GiB of a session. A blob that was forgotten and comes again is stored
/// again.
const GENERATION: usize = (1 << 16) / 8 * 7;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PackId, WriterId};

    fn blob(number: u32) -> BlobRef {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let pack = PackId { epoch: 1, writer: WriterId([0; 12]), sequence: number };
        BlobRef { id: BlobId(id), pack, offset: 40, stored_len: 17, plain_len: 0 }
    }

    #[test]
    fn what_is_asked_for_is_kept_and_the_rest_is_forgotten_in_time() {
        let mut seen = SeenBlobs::default();
        let many = u32::try_from(GENERATION).unwrap() * 3;
        for number in 0..many {
            seen.insert(blob(number));
            assert_eq!(seen.get(&blob(0).id), Some(blob(0)));
        }
        assert_eq!(seen.get(&blob(many - 1).id), Some(blob(many - 1)));
        assert_eq!(seen.get(&blob(1).id), None);
        assert!(seen.young.len() + seen.old.len() <= 2 * GENERATION);
    }
}
