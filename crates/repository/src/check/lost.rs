//! What recovery points need and the repository cannot give, and where it comes in them: what a repair looks for.

use crate::ids::{BlobRef, PointId, TableRef};
use crate::pack::BlobKind;
use crate::references::Values;
use crate::table::Bounds;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many uses of lost blobs are kept, at some 300 bytes each: 60 MiB. Where there are more, a repair goes round again for the rest.
const MAX_USES: usize = 200_000;

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
    Bytes { place: Place, offset: u64, len: u32, blob_offset: u32 },
    /// It is a page of a table.
    Page { place: Place, table: TableRef, values: Values, level: u8, bounds: Bounds },
}

impl Use {
    pub(crate) fn place(&self) -> &Place {
        match self {
            Self::Bytes { place, .. } | Self::Page { place, .. } => place,
        }
    }
}

/// A blob that is lost, or in a pack that is damaged.
#[derive(Debug, Clone)]
pub(crate) struct LostBlob {
    pub(crate) kind: BlobKind,
    pub(crate) uses: Vec<Use>,
    pub(crate) points: BTreeSet<PointId>,
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
        let lost =
            self.blobs.entry(blob).or_insert_with(|| LostBlob { kind, uses: Vec::new(), points: BTreeSet::new() });
        lost.points.insert(found.place().point.clone());
        if self.uses < MAX_USES {
            self.uses += 1;
            lost.uses.push(found);
        }
    }

    /// Whether some were left out, so that it is worth to look again.
    pub(crate) fn is_full(&self) -> bool {
        self.uses >= MAX_USES
    }
}
