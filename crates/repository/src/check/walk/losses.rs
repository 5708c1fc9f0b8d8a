//! Taking down what is lost, and where it comes.

use super::super::lost::{Place, Use};
use super::{Table, Visit, Walk};
use crate::ids::BlobRef;
use crate::pack::BlobKind;
use crate::references::Values;
use crate::table::Page;
use crate::tree::entry::{Content, Entry, Extent, Kind};
use std::collections::HashSet;

impl Walk<'_> {
    pub(super) fn lose_page(&mut self, table: &Table, visit: &Visit) {
        if let Some(lost) = &mut self.lost {
            let (level, bounds) = (visit.level, visit.bounds.clone());
            let (place, values) = (table.place.clone(), table.values);
            lost.add(visit.blob, BlobKind::Page, Use::Page { place, table: table.table, values, level, bounds });
        }
    }

    pub(super) fn lose_extents(&mut self, table: &Table, page: &Page, hit: &HashSet<BlobRef>) {
        let Some(lost) = &mut self.lost else { return };
        for index in 0..page.len() {
            let (key, value) = page.entry(index);
            let (extents, within) = match table.values {
                Values::Extents => {
                    (Extent::decode(&key, &value).ok().into_iter().collect(), table.place.within.clone())
                }
                Values::TreeEntries => match Entry::decode(&value).map(|entry| entry.kind) {
                    Ok(Kind::File(file)) => match file.content {
                        Content::Extents(extents) => (extents, Some(key)),
                        Content::Table(_) => continue,
                    },
                    _ => continue,
                },
                Values::Plain | Values::Segments => continue,
            };
            for Extent { file_offset: offset, len, blob_offset, blob } in extents {
                if hit.contains(&blob) {
                    let place = Place { within: within.clone(), ..table.place.clone() };
                    lost.add(blob, BlobKind::Data, Use::Bytes { place, offset, len, blob_offset });
                }
            }
        }
    }
}
