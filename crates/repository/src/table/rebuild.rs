//! Making a page again from the entries below it, when the page itself is lost.
//!
//! Where pages end depends only on the entries, so the pages below one begin and end where they did. What is made is that page only if its
//! identity says so; the caller compares it.

use super::page::PageBuilder;
use bytes::Bytes;

/// A page below the one that is being made: it is complete, and its place is to be pushed one level up.
#[derive(Debug)]
pub(crate) struct Below {
    /// Its level.
    pub(crate) level: usize,
    pub(crate) first_key: Bytes,
    pub(crate) bytes: Bytes,
}

/// A page that is being made, with the open pages below it.
#[derive(Debug)]
pub(crate) struct Rebuild {
    levels: Vec<PageBuilder>,
}

impl Rebuild {
    /// Begins a page of this level.
    pub(crate) fn new(level: u8) -> Self {
        Self { levels: (0..=level).map(PageBuilder::new).collect() }
    }

    /// Adds an entry to the open page of a level; gives the pages that end before and after it.
    pub(crate) fn push(&mut self, level: usize, key: &Bytes, value: &[u8]) -> Vec<Below> {
        let is_top = level + 1 == self.levels.len();
        let mut ended = Vec::new();
        let Some(page) = self.levels.get_mut(level) else { return ended };
        if !is_top && page.ends_before(key, value) {
            ended.push(take(page, level));
        }
        page.push(key, value);
        if !is_top && page.ends_here() {
            ended.push(take(page, level));
        }
        ended
    }

    /// Ends the open page of a level below the top; none if nothing is in it.
    pub(crate) fn end(&mut self, level: usize) -> Option<Below> {
        let page = self.levels.get_mut(level).filter(|page| page.count() > 0)?;
        Some(take(page, level))
    }

    /// How many levels there are, the top included.
    pub(crate) fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The page.
    pub(crate) fn finish(mut self) -> Bytes {
        self.levels.pop().map(|mut page| page.take().1).unwrap_or_default()
    }
}

fn take(page: &mut PageBuilder, level: usize) -> Below {
    let (first_key, bytes) = page.take();
    Below { level, first_key, bytes }
}
