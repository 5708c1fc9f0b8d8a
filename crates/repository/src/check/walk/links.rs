//! Further names of files: whether the first one is there.

use super::{KEPT_PAGES, Table, Walk};
use crate::error::Result;
use crate::ids::{BlobRef, TableRef};
use crate::layout;
use crate::table::{self, Page};
use crate::tree::TreePath;
use crate::tree::entry::{Entry, Kind};
use bytes::Bytes;

impl Walk<'_> {
    /// Another name must lead to the entry that has the content, directly.
    pub(super) async fn check_link(&mut self, table: &mut Table, path: &TreePath, first: &TreePath) -> Result<()> {
        let found = match self.look_up(&table.table, first.as_key()).await {
            Ok(found) => found,
            // The page was, or will be, found to be damaged by the walk itself.
            Err(error) if error.is_damage() => return Ok(()),
            Err(error) => return Err(error),
        };
        let entry = found.map(|value| Entry::decode(&value));
        let what = match entry {
            None => format!("its first name {first} is missing"),
            Some(Ok(Entry { kind: Kind::Directory | Kind::HardLink { .. }, .. })) => {
                format!("its first name {first} holds no content")
            }
            Some(_) => return Ok(()),
        };
        let error = crate::tree::Error::Damaged { path: path.to_string(), what };
        self.break_rule(table, &error.to_string());
        Ok(())
    }

    async fn look_up(&mut self, table: &TableRef, key: &[u8]) -> Result<Option<Bytes>> {
        let (mut blob, mut level) = (table.root, table.height);
        loop {
            let known = self.recent.iter().find(|(known, _)| *known == blob).map(|(_, page)| page.clone());
            let page = match known {
                Some(page) => page,
                None => {
                    let page = table::read_page(self.repo, &blob, level).await?;
                    self.keep(blob, &page);
                    page
                }
            };
            let Some(below) = level.checked_sub(1) else {
                let index = page.count_below(key);
                return Ok((index < page.len() && page.key(index) == key).then(|| page.entry(index).1));
            };
            blob = page.child(page.child_index(key)).map_err(|what| what.in_object(layout::pack(&blob.pack)))?;
            level = below;
        }
    }

    pub(super) fn keep(&mut self, blob: BlobRef, page: &Page) {
        if self.recent.len() >= KEPT_PAGES {
            self.recent.pop_front();
        }
        self.recent.push_back((blob, page.clone()));
    }
}
