//! What the values of tables refer to; a checker, and later a collector, follows these to everything a recovery point needs.

use crate::codec::{Fields, Malformed};
use crate::ids::{BlobRef, TableRef};
use crate::point::{RecoveryPoint, RootKind};

/// How the values of a table are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Values {
    /// They refer to nothing: objects, the ledger.
    Plain,
    /// They are entries of a file tree.
    TreeEntries,
    /// They are extents of one file.
    Extents,
}

/// What one value refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Blobs of content.
    pub blobs: Vec<BlobRef>,
    /// Further tables, and how their values are to be read.
    pub tables: Vec<(TableRef, Values)>,
}

/// What a value refers to.
pub(crate) fn of(values: Values, value: &[u8]) -> Result<References, Malformed> {
    match values {
        Values::Plain => Ok(References::default()),
        Values::TreeEntries | Values::Extents => {
            let mut fields = Fields::new(value);
            let mut blobs = Vec::new();
            while fields.remaining() > 0 {
                blobs.push(BlobRef::decode(&mut fields)?);
            }
            Ok(References { blobs, tables: Vec::new() })
        }
    }
}

/// The tables that a recovery point itself names.
pub(crate) fn tables_of(point: &RecoveryPoint) -> Vec<(TableRef, Values)> {
    let plain = [point.objects, point.ledger].into_iter().flatten().map(|table| (table, Values::Plain));
    let roots = point.roots.iter().map(|root| match root.kind {
        RootKind::Tree => (root.table, Values::TreeEntries),
    });
    plain.chain(roots).collect()
}
