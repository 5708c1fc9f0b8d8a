//! Following the tables of all recovery points at once, so that a page that many of them share is read once.
//!
//! A page is read when everything that refers to it has been read: then it is known who needs it. That order is by kinds and
//! levels: tables that lead to further ones before those, and in a table from the root downwards. A page is of one level only,
//! and tables of extents lead to no further ones, so the order exists, whatever a repository holds.

use super::classes::{Class, Classes};
use super::marks::Marks;
use crate::codec::Malformed;
use crate::error::Result;
use crate::ids::{BlobRef, PackId, TableRef};
use crate::index;
use crate::layout;
use crate::references::{self, Referred, Values};
use crate::repository::Repository;
use crate::table::{self, Page};
use futures::{StreamExt, TryStreamExt, stream};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// How many pages are read at once: of up to 256 KiB each, as a rule.
const READS: usize = 8;

/// When a page is read: the greater, the later.
type Turn = (bool, Reverse<u8>);

/// What is to be read, with those who need it as far as it is known.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    /// The packs that are there.
    packs: &'a HashMap<PackId, u64>,
    pub(super) classes: Classes,
    pub(super) marks: Marks,
    /// Pages that were read.
    pub(super) pages: u64,
    turns: BTreeMap<Turn, HashMap<(BlobRef, Values), Class>>,
    /// Blobs that are needed of packs that are not there.
    displaced: HashMap<BlobRef, Class>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(packs: &'a HashMap<PackId, u64>) -> Self {
        let (turns, displaced) = (BTreeMap::new(), HashMap::new());
        Self { packs, classes: Classes::default(), marks: Marks::default(), pages: 0, turns, displaced }
    }

    /// Adds a table that is needed by these recovery points.
    pub(super) fn add_table(&mut self, table: &TableRef, values: Values, class: Class) {
        let is_empty = table.height == 0 && table.entries == 0;
        self.add_page(table.root, table.height, values, class, is_empty);
    }

    /// A page that refers to nothing is marked, and not read.
    fn add_page(&mut self, blob: BlobRef, level: u8, values: Values, class: Class, is_empty: bool) {
        if is_empty || (level == 0 && values == Values::Plain) {
            return self.mark(&blob, class);
        }
        let turn = (values == Values::Extents, Reverse(level));
        let waiting = self.turns.entry(turn).or_default().entry((blob, values)).or_insert(class);
        *waiting = self.classes.union(*waiting, class);
    }

    fn mark(&mut self, blob: &BlobRef, class: Class) {
        if self.packs.contains_key(&blob.pack) {
            return self.marks.add(blob, class, &mut self.classes);
        }
        let displaced = self.displaced.entry(*blob).or_insert(class);
        *displaced = self.classes.union(*displaced, class);
    }

    /// Marks blobs of packs that are gone where the index has them, as whoever reads them does.
    async fn find_displaced(&mut self, repo: &Repository) -> Result<()> {
        for (blob, class) in std::mem::take(&mut self.displaced) {
            let others = index::find(repo, &blob.id).await?;
            let found = others.iter().find(|other| self.packs.contains_key(&other.pack));
            self.marks.add(found.unwrap_or(&blob), class, &mut self.classes);
        }
        Ok(())
    }

    /// Reads what there is to read.
    pub(super) async fn run(&mut self, repo: &Repository) -> Result<()> {
        while let Some(((_, Reverse(level)), pages)) = self.turns.pop_first() {
            let mut pages: Vec<_> = pages.into_iter().collect();
            // Pages that were written together lie together.
            pages.sort_unstable_by_key(|((blob, _), _)| (blob.pack, blob.offset));
            let reads = pages.into_iter().map(|((blob, values), class)| async move {
                Ok::<_, crate::Error>((blob, values, class, table::read_page(repo, &blob, level).await?))
            });
            let mut reads = stream::iter(reads).buffered(READS);
            while let Some((blob, values, class, page)) = reads.try_next().await? {
                self.pages += 1;
                self.mark(&blob, class);
                self.follow(&page, values, class).map_err(|what| what.in_object(layout::pack(&blob.pack)))?;
            }
        }
        self.find_displaced(repo).await
    }

    fn follow(&mut self, page: &Page, values: Values, class: Class) -> Result<(), Malformed> {
        references::of_page(page, values, |referred| match referred {
            Referred::Page(blob, level) => self.add_page(blob, level, values, class, false),
            Referred::Blob(blob) => self.mark(&blob, class),
            Referred::Table(table, values) => self.add_table(&table, values, class),
        })
    }
}
