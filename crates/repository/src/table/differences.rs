//! Two tables side by side: the entries in which they differ, without reading the pages that they share.

use super::reader::{child_of, read_root};
use super::{Bounds, Page, read_page};
use crate::error::Result;
use crate::ids::{BlobRef, TableRef};
use crate::repository::Repository;
use bytes::Bytes;
use futures::{Stream, stream};
use std::cmp::Ordering;

/// A key whose values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// What the first table has; none if it has no such key.
    pub old: Option<Bytes>,
    /// What the second table has.
    pub new: Option<Bytes>,
}

/// The keys in which two tables of one repository differ, in order. Of pages that both have, none is read.
pub fn differences(
    repo: &Repository,
    old: TableRef,
    new: TableRef,
) -> impl Stream<Item = Result<Difference>> + Send + use<> {
    let pair = (Cursor::new(repo, old), Cursor::new(repo, new));
    stream::try_unfold(pair, |(mut old, mut new)| async move {
        Ok(next(&mut old, &mut new).await?.map(|difference| (difference, (old, new))))
    })
}

async fn next(old: &mut Cursor, new: &mut Cursor) -> Result<Option<Difference>> {
    loop {
        let heads = (old.head()?, new.head()?);
        match heads {
            (None, None) => return Ok(None),
            (Some(Head::Page(one)), Some(Head::Page(other))) => {
                let (levels, keys) = (one.level.cmp(&other.level), one.key.cmp(&other.key));
                if one.blob.id == other.blob.id && levels == Ordering::Equal {
                    old.skip();
                    new.skip();
                } else if levels.then(keys.reverse()) != Ordering::Less {
                    old.open(one).await?;
                } else {
                    new.open(other).await?;
                }
            }
            (Some(Head::Page(page)), None) => old.open(page).await?,
            (None, Some(Head::Page(page))) => new.open(page).await?,
            (Some(Head::Page(page)), Some(Head::Entry(key, value))) => {
                if page.key <= key {
                    old.open(page).await?;
                } else {
                    new.skip();
                    return Ok(Some(Difference { key, old: None, new: Some(value) }));
                }
            }
            (Some(Head::Entry(key, value)), Some(Head::Page(page))) => {
                if page.key <= key {
                    new.open(page).await?;
                } else {
                    old.skip();
                    return Ok(Some(Difference { key, old: Some(value), new: None }));
                }
            }
            (one, other) => {
                if let Some(difference) = compare(old, new, one, other) {
                    return Ok(Some(difference));
                }
            }
        }
    }
}

/// Compares two entries, or one with nothing, and goes past what it has compared.
fn compare(old: &mut Cursor, new: &mut Cursor, one: Option<Head>, other: Option<Head>) -> Option<Difference> {
    let (one, other) = (one.and_then(Head::entry), other.and_then(Head::entry));
    let order = match (&one, &other) {
        (Some((key, _)), Some((other, _))) => key.cmp(other),
        (Some(_), None) => Ordering::Less,
        _ => Ordering::Greater,
    };
    if order != Ordering::Greater {
        old.skip();
    }
    if order != Ordering::Less {
        new.skip();
    }
    let (old, new) = (one.filter(|_| order != Ordering::Greater), other.filter(|_| order != Ordering::Less));
    let key = old.as_ref().or(new.as_ref()).map(|(key, _)| key.clone())?;
    let (old, new) = (old.map(|(_, value)| value), new.map(|(_, value)| value));
    (old != new).then_some(Difference { key, old, new })
}

/// What comes next in a table.
#[derive(Debug)]
enum Head {
    /// A page that nobody has looked into.
    Page(Closed),
    Entry(Bytes, Bytes),
}

#[derive(Debug)]
struct Closed {
    key: Bytes,
    blob: BlobRef,
    level: u8,
    bounds: Bounds,
}

impl Head {
    fn entry(self) -> Option<(Bytes, Bytes)> {
        match self {
            Self::Entry(key, value) => Some((key, value)),
            Self::Page(_) => None,
        }
    }
}

/// A page on the way down, and the next of its entries.
#[derive(Debug)]
struct Step {
    blob: BlobRef,
    page: Page,
    next: usize,
    bounds: Bounds,
}

/// A place in a table.
#[derive(Debug)]
struct Cursor {
    repo: Repository,
    table: TableRef,
    /// Whether the root was opened or skipped.
    begun: bool,
    path: Vec<Step>,
}

impl Cursor {
    fn new(repo: &Repository, table: TableRef) -> Self {
        Self { repo: repo.clone(), table, begun: false, path: Vec::new() }
    }

    fn head(&mut self) -> Result<Option<Head>> {
        if !self.begun {
            let TableRef { root, height, .. } = self.table;
            let closed = Closed { key: Bytes::new(), blob: root, level: height, bounds: Bounds::of_root() };
            return Ok(Some(Head::Page(closed)));
        }
        while self.path.pop_if(|step| step.next >= step.page.len()).is_some() {}
        let Some(step) = self.path.last() else { return Ok(None) };
        let (key, value) = step.page.entry(step.next);
        let Some(level) = step.page.level().checked_sub(1) else { return Ok(Some(Head::Entry(key, value))) };
        let blob = child_of(&step.page, step.next, &step.blob)?;
        Ok(Some(Head::Page(Closed { key, blob, level, bounds: step.bounds.of_child(&step.page, step.next) })))
    }

    /// Goes past the head.
    fn skip(&mut self) {
        match self.path.last_mut() {
            Some(step) => step.next += 1,
            None => self.begun = true,
        }
    }

    /// Goes into the page that is the head.
    async fn open(&mut self, closed: Closed) -> Result<()> {
        let page = match self.begun {
            true => read_page(&self.repo, &closed.blob, closed.level).await?,
            false => read_root(&self.repo, &self.table).await?,
        };
        closed.bounds.check(&page, &closed.blob)?;
        self.skip();
        self.path.push(Step { blob: closed.blob, page, next: 0, bounds: closed.bounds });
        Ok(())
    }
}
