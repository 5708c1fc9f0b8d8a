//! The rules that a restore depends on, applied to entries one after the other.

use super::seen::{Clean, Exit};
use crate::ids::TableRef;
use crate::references::Values;
use crate::tree::entry::{Entry, Extent, Kind};
use crate::tree::{self, Places, TreePath};
use crate::volume::{Blobs, SEGMENT_LEN, Segment};

/// Where a walk over a table is.
pub(super) enum Rules {
    /// Any entries will do.
    None,
    Tree(Places),
    Extents(Extents),
    /// Segments of a volume of so many bytes.
    Segments {
        size: u64,
    },
}

/// Where a walk over extents is.
pub(super) struct Extents {
    /// They must lie in here.
    pub(super) span: (u64, u64),
    /// Where the next one may begin.
    pub(super) next: u64,
    /// Bytes that they have.
    pub(super) bytes: u64,
    /// Their different blobs, where these are counted.
    pub(super) blobs: Option<Blobs>,
}

/// What an entry leads to, once it has been found to keep the rules.
pub(super) enum Found {
    Nothing,
    /// A further table, with its rules.
    Table(TableRef, Values, Rules),
    /// Another name of this file.
    Link(TreePath, TreePath),
}

impl Extents {
    pub(super) fn within(span: (u64, u64), counted: bool) -> Self {
        Self { span, next: span.0, bytes: 0, blobs: counted.then(Blobs::default) }
    }
}

impl Rules {
    /// Looks at the next entry; the error says which rule it breaks.
    pub(super) fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<Found, String> {
        match self {
            Self::None => Ok(Found::Nothing),
            Self::Tree(places) => tree_entry(places, key, value).map_err(|error| error.to_string()),
            Self::Extents(extents) => {
                let extent = Extent::decode(key, value).map_err(|what| what.to_string())?;
                let end = extent.end_after(extents.next, extents.span.1);
                extents.next = end.ok_or_else(|| format!("the extent at {} lies wrongly", extent.file_offset))?;
                extents.bytes += u64::from(extent.len);
                if let Some(blobs) = &mut extents.blobs {
                    blobs.add(&extent.blob);
                }
                Ok(Found::Nothing)
            }
            Self::Segments { size } => {
                let segment = Segment::decode(key, value).map_err(|what| what.to_string())?;
                let count = size.div_ceil(SEGMENT_LEN);
                if u64::from(segment.number) >= count {
                    return Err(format!("it has {count} segments, and there is one of number {}", segment.number));
                }
                let span = (segment.start(), (segment.start() + SEGMENT_LEN).min(*size));
                Ok(Found::Table(segment.extents, Values::Extents, Self::Extents(Extents::within(span, true))))
            }
        }
    }

    /// Whether what is known of a clean page holds here too; then the walk is where the page ends. `sums` are those of a segment whose
    /// root it is.
    pub(super) fn pass(&mut self, first_key: &[u8], clean: &Clean, sums: Option<(u64, u64)>) -> bool {
        match (self, &clean.exit) {
            (Self::None, _) => true,
            (Self::Tree(places), Exit::Directory(exit)) => places.pass(first_key, exit),
            (Self::Extents(extents), Exit::Extents { first, end, bytes }) => {
                extents.pass(clean, (*first, *end, *bytes), sums)
            }
            (Self::Segments { size }, _) => clean.span == (0, *size),
            _ => false,
        }
    }

    /// What to remember of a clean page: the span it depends on, and where the walk is at its end.
    pub(super) fn exit(&self, first: u64, bytes_before: u64) -> ((u64, u64), Exit) {
        match self {
            Self::None => ((0, 0), Exit::Nowhere),
            Self::Tree(places) => {
                ((0, 0), places.directory().map_or(Exit::Nowhere, |path| Exit::Directory(path.clone())))
            }
            Self::Extents(extents) => {
                let bytes = extents.bytes - bytes_before;
                (extents.span, Exit::Extents { first, end: extents.next, bytes })
            }
            Self::Segments { size } => ((0, *size), Exit::Nowhere),
        }
    }
}

impl Extents {
    fn pass(&mut self, clean: &Clean, (first, end, bytes): (u64, u64, u64), sums: Option<(u64, u64)>) -> bool {
        if clean.span != self.span || first < self.next {
            return false;
        }
        if let Some(blobs) = &mut self.blobs {
            match (&clean.blobs, sums) {
                // The root of a segment of which all is known; nothing of it is counted again.
                (_, Some(sums)) if clean.sums == Some(sums) => {}
                (Some(known), _) => known.iter().for_each(|(begin, len)| blobs.add_known(*begin, *len)),
                (None, _) => return false,
            }
        }
        self.next = end;
        self.bytes += bytes;
        true
    }
}

fn tree_entry(places: &mut Places, key: &[u8], value: &[u8]) -> Result<Found, tree::Error> {
    let path = TreePath::from_key(key)?;
    let damaged = |what: String| tree::Error::Damaged { path: path.to_string(), what };
    let entry = Entry::decode(value).map_err(|what| damaged(what.to_string()))?;
    places.check(&path, &entry)?;
    Ok(match entry.kind {
        Kind::File(file) => match file.content.table() {
            Some(table) => Found::Table(table, Values::Extents, Rules::Extents(Extents::within((0, file.size), false))),
            None => Found::Nothing,
        },
        Kind::HardLink { first } => Found::Link(path, first),
        _ => Found::Nothing,
    })
}
