//! What the values of tables refer to; a checker, and later a collector, follows these to everything a recovery point needs.

use crate::codec::Malformed;
use crate::ids::{BlobRef, TableRef};
use crate::point::{RecoveryPoint, RootKind};
use crate::table::Page;
use crate::tree::entry::{Content, Entry, Extent, Kind};
use crate::volume::Segment;

/// How the values of a table are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Values {
    /// They refer to nothing: objects, the ledger.
    Plain,
    /// They are entries of a file tree.
    TreeEntries,
    /// They are extents of one file, segment or stream.
    Extents,
    /// They are segments of a volume.
    Segments,
}

impl Values {
    /// How the values of the table of a content are to be read.
    pub(crate) fn of_root(kind: RootKind) -> Self {
        match kind {
            RootKind::Tree => Self::TreeEntries,
            RootKind::Volume => Self::Segments,
            RootKind::Stream => Self::Extents,
        }
    }
}

/// What one entry refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct References {
    /// Blobs of content.
    pub(crate) blobs: Vec<BlobRef>,
    /// Further tables, and how their values are to be read.
    pub(crate) tables: Vec<(TableRef, Values)>,
}

/// What an entry of a table refers to.
pub(crate) fn of(values: Values, key: &[u8], value: &[u8]) -> Result<References, Malformed> {
    match values {
        Values::Plain => Ok(References::default()),
        Values::TreeEntries => Ok(of_entry(&Entry::decode(value)?)),
        Values::Extents => Ok(References { blobs: vec![Extent::decode(key, value)?.blob], tables: Vec::new() }),
        Values::Segments => {
            let segment = Segment::decode(key, value)?;
            Ok(References { blobs: Vec::new(), tables: vec![(segment.extents, Values::Extents)] })
        }
    }
}

fn of_entry(entry: &Entry) -> References {
    let Kind::File(file) = &entry.kind else {
        return References::default();
    };
    match &file.content {
        Content::Extents(extents) => {
            References { blobs: extents.iter().map(|extent| extent.blob).collect(), tables: Vec::new() }
        }
        Content::Table(table) => References { blobs: Vec::new(), tables: vec![(*table, Values::Extents)] },
    }
}

/// What a page refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Referred {
    /// A page of the same table, of the next lower level.
    Page(BlobRef, u8),
    /// A blob of content.
    Blob(BlobRef),
    /// A further table, and how its values are to be read.
    Table(TableRef, Values),
}

/// Gives everything that a page refers to, in the order of its entries.
pub(crate) fn of_page(page: &Page, values: Values, mut take: impl FnMut(Referred)) -> Result<(), Malformed> {
    for index in 0..page.len() {
        if let Some(level) = page.level().checked_sub(1) {
            take(Referred::Page(page.child(index)?, level));
            continue;
        }
        let found = of(values, page.key(index), page.value(index))?;
        found.blobs.into_iter().map(Referred::Blob).for_each(&mut take);
        found.tables.into_iter().map(|(table, values)| Referred::Table(table, values)).for_each(&mut take);
    }
    Ok(())
}

/// Writes an entry again with other references in the places of its own, in the order in which [`of`] gives them.
pub(crate) fn replace(
    values: Values,
    key: &[u8],
    value: &[u8],
    mut blobs: impl Iterator<Item = BlobRef>,
    mut tables: impl Iterator<Item = TableRef>,
) -> Result<Vec<u8>, Malformed> {
    let missing = || Malformed::new("an entry has more references than there are others for");
    match values {
        Values::Plain => Ok(value.to_vec()),
        Values::Extents => {
            let mut extent = Extent::decode(key, value)?;
            extent.blob = blobs.next().ok_or_else(missing)?;
            Ok(extent.encode_value())
        }
        Values::Segments => {
            let mut segment = Segment::decode(key, value)?;
            segment.extents = tables.next().ok_or_else(missing)?;
            Ok(segment.encode_value().to_vec())
        }
        Values::TreeEntries => {
            let mut entry = Entry::decode(value)?;
            if let Kind::File(file) = &mut entry.kind {
                match &mut file.content {
                    Content::Extents(extents) => {
                        for extent in extents {
                            extent.blob = blobs.next().ok_or_else(missing)?;
                        }
                    }
                    Content::Table(table) => *table = tables.next().ok_or_else(missing)?,
                }
            }
            Ok(entry.encode())
        }
    }
}

/// The tables that a recovery point itself names.
pub(crate) fn tables_of(point: &RecoveryPoint) -> Vec<(TableRef, Values)> {
    let plain = [point.objects, point.ledger].into_iter().flatten().map(|table| (table, Values::Plain));
    let roots = point.roots.iter().map(|root| (root.table, Values::of_root(root.kind)));
    plain.chain(roots).collect()
}
