//! Writing a table from the bottom up, with one open page per level in memory.

use super::page::PageBuilder;
use super::parent::ParentPages;
use super::{MAX_HEIGHT, MAX_KEY_LEN, MAX_VALUE_LEN};
use crate::error::{Error, Result};
use crate::ids::{BlobRef, TableRef};
use crate::pack::BlobKind;
use crate::writer::Writer;
use bytes::Bytes;
use std::collections::VecDeque;

/// Builds a table from entries in strictly ascending order of their keys.
#[derive(Debug)]
pub struct Builder {
    writer: Writer,
    parent: Option<ParentPages>,
    levels: Vec<Level>,
    last_key: Option<Bytes>,
    entries: u64,
}

/// One level of the tree: its open page, how many pages of it are stored, and the last of these.
#[derive(Debug)]
struct Level {
    page: PageBuilder,
    stored: u64,
    last: Option<BlobRef>,
}

impl Level {
    fn new(level: u8) -> Self {
        Self { page: PageBuilder::new(level), stored: 0, last: None }
    }
}

/// An entry on its way into a level.
type Pending = (usize, Bytes, Bytes);

impl Builder {
    /// Begins a table.
    pub fn new(writer: &Writer) -> Self {
        Self { writer: writer.clone(), parent: None, levels: vec![Level::new(0)], last_key: None, entries: 0 }
    }

    /// Begins a table that resembles `parent`: pages that are equal are referred to and not stored again.
    pub fn with_parent(writer: &Writer, parent: &TableRef) -> Self {
        let parent = ParentPages::new(writer.repository().clone(), *parent);
        Self { parent: Some(parent), ..Self::new(writer) }
    }

    /// Adds an entry; its key must be greater than the last one's.
    pub async fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() > MAX_VALUE_LEN {
            let (key, value) = (key.len(), value.len());
            return Err(Error::invalid(format!(
                "an entry has a key of {key} and a value of {value} bytes; a table takes {MAX_KEY_LEN} and {MAX_VALUE_LEN}"
            )));
        }
        if self.last_key.as_ref().is_some_and(|last| last.as_ref() >= key) {
            return Err(Error::invalid(format!(
                "key {:?} does not follow the one before",
                key.escape_ascii().to_string()
            )));
        }
        let key = Bytes::copy_from_slice(key);
        self.last_key = Some(key.clone());
        self.entries += 1;
        self.settle(VecDeque::from([(0, key, Bytes::copy_from_slice(value))])).await
    }

    /// Puts entries into their levels; a page that ends becomes an entry of the level above.
    async fn settle(&mut self, mut pending: VecDeque<Pending>) -> Result<()> {
        while let Some((level, key, value)) = pending.pop_front() {
            if self.levels.len() == level {
                self.levels.push(Level::new(narrow_level(level)?));
            }
            if self.levels[level].page.ends_before(&key, &value) {
                pending.push_back(self.store_page(level).await?.1);
            }
            self.levels[level].page.push(&key, &value);
            if self.levels[level].page.ends_here() {
                pending.push_back(self.store_page(level).await?.1);
            }
        }
        Ok(())
    }

    /// Stores the open page of a level; gives where it is, and the entry for the level above.
    async fn store_page(&mut self, level: usize) -> Result<(BlobRef, Pending)> {
        let (first_key, bytes) = self.levels[level].page.take();
        self.levels[level].stored += 1;
        let known = match &mut self.parent {
            Some(parent) => parent.find(narrow_level(level)?, &first_key).await,
            None => None,
        };
        let same = move |id: &_| known.filter(|blob: &BlobRef| blob.id == *id);
        let blob = self.writer.put_blob_unless(BlobKind::Page, bytes, same).await?;
        self.levels[level].last = Some(blob);
        Ok((blob, (level + 1, first_key, Bytes::copy_from_slice(&blob.encode()))))
    }

    /// Stores the open pages; the table is durable when its writer is finished.
    pub async fn finish(mut self) -> Result<TableRef> {
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let stored_one = self.levels[level].stored == 1 && self.levels[level].page.count() == 0;
            if is_top || (level + 2 == self.levels.len() && stored_one) {
                let root = match self.levels[level].last.take_if(|_| stored_one) {
                    Some(root) => root,
                    None => self.store_page(level).await?.0,
                };
                return Ok(TableRef { root, height: narrow_level(level)?, entries: self.entries });
            }
            if self.levels[level].page.count() > 0 {
                let (_, pending) = self.store_page(level).await?;
                self.settle(VecDeque::from([pending])).await?;
            }
            level += 1;
        }
    }
}

fn narrow_level(level: usize) -> Result<u8> {
    u8::try_from(level)
        .ok()
        .filter(|level| *level <= MAX_HEIGHT)
        .ok_or_else(|| Error::invalid(format!("a table has more than {MAX_HEIGHT} levels")))
}
