//! Which blobs of which packs are needed, and by whom.

use super::classes::{Class, Classes};
use crate::ids::{BlobRef, PackId};
use std::collections::HashMap;

/// Marks that a pack may have before they are merged for the first time.
const FIRST_MERGE: usize = 64;

/// A blob that is needed. 16 bytes: with the room for those not merged yet a blob costs up to twice that in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    offset: u32,
    /// Its bytes in the pack.
    pub(super) stored_len: u32,
    /// Its plain bytes.
    pub(super) plain_len: u32,
    /// Who needs it.
    pub(super) class: Class,
}

/// The marks of one pack.
#[derive(Debug, Default)]
struct PackMarks {
    marks: Vec<Mark>,
    /// How many there were when they were merged last.
    merged: usize,
}

/// The marks of all packs.
#[derive(Debug, Default)]
pub(super) struct Marks {
    packs: HashMap<PackId, PackMarks>,
}

impl Marks {
    /// Marks a blob as needed by these recovery points too.
    pub(super) fn add(&mut self, blob: &BlobRef, class: Class, classes: &mut Classes) {
        let pack = self.packs.entry(blob.pack).or_default();
        let (offset, stored_len, plain_len) = (blob.offset, blob.stored_len, blob.plain_len);
        pack.marks.push(Mark { offset, stored_len, plain_len, class });
        if pack.marks.len() >= FIRST_MERGE.max(pack.merged * 2) {
            pack.merge(classes);
        }
    }

    /// All packs with the blobs of them that are needed, each once.
    pub(super) fn into_packs(self, classes: &mut Classes) -> Vec<(PackId, Vec<Mark>)> {
        let merged = self.packs.into_iter().map(|(id, mut pack)| {
            pack.merge(classes);
            (id, pack.marks)
        });
        merged.collect()
    }
}

impl PackMarks {
    /// Leaves one mark for each blob.
    fn merge(&mut self, classes: &mut Classes) {
        self.marks.sort_unstable_by_key(|mark| mark.offset);
        self.marks.dedup_by(|next, first| {
            let same = next.offset == first.offset;
            if same {
                first.class = classes.union(first.class, next.class);
            }
            same
        });
        self.merged = self.marks.len();
    }
}
