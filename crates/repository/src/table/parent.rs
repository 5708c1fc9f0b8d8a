//! The pages of a parent table, looked up in the order in which a builder makes its own.

use super::{Page, child_of, read_page};
use crate::error::Result;
use crate::ids::{BlobRef, TableRef};
use crate::repository::Repository;
use std::sync::Arc;

/// Finds the pages of a parent by level and first key, reading only inner pages, and keeping one of each level.
#[derive(Debug)]
pub(super) struct ParentPages {
    repo: Repository,
    table: TableRef,
    /// The page last read of each level; leaves are never read.
    path: Vec<Option<(BlobRef, Arc<Page>)>>,
}

impl ParentPages {
    pub(super) fn new(repo: Repository, table: TableRef) -> Self {
        let path = vec![None; usize::from(table.height) + 1];
        Self { repo, table, path }
    }

    /// The page of the parent at `level` that begins with `first_key`.
    ///
    /// A parent that cannot be read only costs space, because its pages are then stored again.
    pub(super) async fn find(&mut self, level: u8, first_key: &[u8]) -> Option<BlobRef> {
        match self.try_find(level, first_key).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a page of the parent cannot be read; what it holds is stored again");
                None
            }
        }
    }

    async fn try_find(&mut self, level: u8, first_key: &[u8]) -> Result<Option<BlobRef>> {
        let mut current = self.table.root;
        let mut height = self.table.height;
        while height > level {
            let page = self.page(height, current).await?;
            let index = page.child_index(first_key);
            if height == level + 1 && page.key(index) != first_key {
                return Ok(None);
            }
            current = child_of(&page, index, &current)?;
            height -= 1;
        }
        Ok((height == level).then_some(current))
    }

    async fn page(&mut self, level: u8, blob: BlobRef) -> Result<Arc<Page>> {
        let slot = usize::from(level);
        match self.path.get(slot) {
            Some(Some((known, page))) if *known == blob => return Ok(Arc::clone(page)),
            _ => {}
        }
        let page = Arc::new(read_page(&self.repo, &blob, level).await?);
        if let Some(place) = self.path.get_mut(slot) {
            *place = Some((blob, Arc::clone(&page)));
        }
        Ok(page)
    }
}
