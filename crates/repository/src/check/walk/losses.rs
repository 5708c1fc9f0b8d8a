//! Taking down what is lost, and where it comes.

use super::super::lost::{PageUse, Place, Use};
use super::{Table, Visit, Walk};
use crate::ids::BlobRef;
use crate::pack::BlobKind;
use crate::references::Values;
use crate::table::Page;
use crate::tree::entry::{Content, Entry, Extent, Kind};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

impl Walk<'_> {
    pub(super) fn lose_page(&mut self, table: &Table, visit: &Visit) {
        if let Some(lost) = &mut self.lost {
            let (level, bounds) = (visit.level, visit.bounds.clone());
            let (place, values) = (table.place.clone(), table.values);
            let page = PageUse { place, table: table.table, values, level, bounds };
            lost.add(visit.blob, BlobKind::Page, Use::Page(Box::new(page)));
        }
    }

    pub(super) fn lose_extents(&mut self, table: &Table, page: &Page, hit: &HashSet<BlobRef>) {
        let Some(lost) = &mut self.lost else { return };
        // Keys are copied, because one that was read has its whole page with it.
        let copied = |key: &[u8]| Some(Bytes::copy_from_slice(key));
        let within = table.place.within.as_deref().and_then(copied);
        let of_table = Arc::new(Place { within, ..table.place.clone() });
        for index in 0..page.len() {
            let (key, value) = page.entry(index);
            let (extents, place) = match table.values {
                Values::Extents => (Extent::decode(&key, &value).ok().into_iter().collect(), of_table.clone()),
                Values::TreeEntries => match Entry::decode(&value).map(|entry| entry.kind) {
                    Ok(Kind::File(file)) => match file.content {
                        Content::Extents(extents) => {
                            (extents, Arc::new(Place { within: copied(&key), ..table.place.clone() }))
                        }
                        Content::Table(_) => continue,
                    },
                    _ => continue,
                },
                Values::Plain | Values::Segments => continue,
            };
            for Extent { file_offset: offset, len, blob_offset, blob } in extents {
                if hit.contains(&blob) {
                    let place = place.clone();
                    lost.add(blob, BlobKind::Data, Use::Bytes { place, offset, len, blob_offset });
                }
            }
        }
    }
}
