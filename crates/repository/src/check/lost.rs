//! What recovery points need and the repository cannot give, and where it comes in them: what a repair looks for.

use crate::ids::{BlobRef, PointId, TableRef};
use crate::pack::BlobKind;
use crate::references::Values;
use crate::table::Bounds;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many uses of lost blobs are kept, at some 260 bytes where each is of another blob: 25 MiB. Where there are more, a repair goes round again
/// for the rest, as long as each round saves some.
const MAX_USES: usize = 100_000;

/// Which table of a recovery point something is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    Objects,
    Ledger,
    /// A content, by its name.
    Root(Arc<str>),
}

/// Where in a recovery point a table is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) point: PointId,
    pub(crate) part: Part,
    /// The entry that has the table, where it is not the table of the part itself: a file or a segment.
    pub(crate) within: Option<Bytes>,
}

/// A use of a lost blob.
#[derive(Debug, Clone)]
pub(crate) enum Use {
    /// `len` bytes of a content at `offset` are those of the blob at `blob_offset`.
    Bytes { place: Arc<Place>, offset: u64, len: u32, blob_offset: u32 },
    /// It is a page of a table; seldom, so it may be larger.
    Page(Box<PageUse>),
}

/// A use of a lost blob as a page.
#[derive(Debug, Clone)]
pub(crate) struct PageUse {
    pub(crate) place: Place,
    pub(crate) table: TableRef,
    pub(crate) values: Values,
    pub(crate) level: u8,
    pub(crate) bounds: Bounds,
}

impl Use {
    pub(crate) fn place(&self) -> &Place {
        match self {
            Self::Bytes { place, .. } => place,
            Self::Page(page) => &page.place,
        }
    }
}

/// A blob that is lost, or in a pack that is damaged.
#[derive(Debug, Clone)]
pub(crate) struct LostBlob {
    pub(crate) kind: BlobKind,
    pub(crate) uses: Vec<Use>,
    /// Recovery points with uses for which there was no room.
    others: BTreeSet<PointId>,
}

impl LostBlob {
    /// The recovery points that need it.
    pub(crate) fn points(&self) -> BTreeSet<PointId> {
        let used = self.uses.iter().map(|found| &found.place().point);
        used.chain(&self.others).cloned().collect()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) blobs: BTreeMap<BlobRef, LostBlob>,
    uses: usize,
}

impl Lost {
    pub(super) fn add(&mut self, blob: BlobRef, kind: BlobKind, found: Use) {
        if self.uses >= MAX_USES && !self.blobs.contains_key(&blob) {
            return;
        }
        let new = || LostBlob { kind, uses: Vec::new(), others: BTreeSet::new() };
        let lost = self.blobs.entry(blob).or_insert_with(new);
        if self.uses < MAX_USES {
            self.uses += 1;
            // Most blobs are used once.
            lost.uses.reserve_exact(1);
            lost.uses.push(found);
        } else {
            lost.others.insert(found.place().point.clone());
        }
    }

    /// Whether some were left out, so that it is worth to look again.
    pub(crate) fn is_full(&self) -> bool {
        self.uses >= MAX_USES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_small() {
        assert!(size_of::<Use>() <= 32 && size_of::<LostBlob>() <= 64, "MAX_USES of them would take more than it says");
    }
}
