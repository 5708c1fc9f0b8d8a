//! Reading a table: one key, or a range in order.

use super::{MAX_HEIGHT, Page};
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::{BlobRef, TableRef};
use crate::layout;
use crate::repository::Repository;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};

/// How many leaves a scan reads ahead: at up to 256 KiB each they hide the latency of an object store in 1 MiB of memory.
const PREFETCH: usize = 4;

/// Reads a table.
#[derive(Debug, Clone)]
pub struct Reader {
    repo: Repository,
    table: TableRef,
}

impl Reader {
    /// Nothing is read yet.
    pub fn new(repo: &Repository, table: TableRef) -> Self {
        Self { repo: repo.clone(), table }
    }

    /// The table that is read.
    pub fn table(&self) -> TableRef {
        self.table
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let mut blob = self.table.root;
        let mut page = read_root(&self.repo, &self.table).await?;
        while page.level() > 0 {
            let child = child_of(&page, page.child_index(key), &blob)?;
            page = read_page(&self.repo, &child, page.level() - 1).await?;
            blob = child;
        }
        let index = page.count_below(key);
        Ok((index < page.len() && page.key(index) == key).then(|| page.entry(index).1))
    }

    /// All entries from the first key that is not below `from`, in order; empty for all.
    pub fn scan(&self, from: &[u8]) -> impl Stream<Item = Result<(Bytes, Bytes)>> + Send + use<> {
        self.scan_from(from, |page, from| page.count_below(from))
    }

    /// As [`Reader::scan`], and begins with the last key that is not above `from`: where keys are offsets, with what may cover it.
    pub(crate) fn scan_covering(&self, from: &[u8]) -> impl Stream<Item = Result<(Bytes, Bytes)>> + Send + use<> {
        self.scan_from(from, |page, from| {
            let below = page.count_below(from);
            if below < page.len() && page.key(below) == from { below } else { below.saturating_sub(1) }
        })
    }

    fn scan_from(
        &self,
        from: &[u8],
        first: fn(&Page, &[u8]) -> usize,
    ) -> impl Stream<Item = Result<(Bytes, Bytes)>> + Send + use<> {
        let from = Bytes::copy_from_slice(from);
        let leaves = leaves(self.repo.clone(), self.table, from.clone());
        let repo = self.repo.clone();
        let pages = leaves
            .map_ok(move |leaf| {
                let repo = repo.clone();
                async move {
                    let page = read_page(&repo, &leaf.blob, 0).await?;
                    leaf.bounds.check(&page, &leaf.blob)?;
                    Ok(page)
                }
            })
            .try_buffered(PREFETCH);
        pages
            .map_ok(move |page| stream::iter(first(&page, &from)..page.len()).map(move |i| Ok(page.entry(i))))
            .try_flatten()
    }
}

/// The keys that a page may hold, by what the page above says.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// The key the page must begin with; none for a root, which may be empty.
    first_key: Option<Bytes>,
    /// The key that the page must end before; none for the last one.
    end_key: Option<Bytes>,
}

impl Bounds {
    /// A root may hold any keys.
    pub(crate) fn of_root() -> Self {
        Self { first_key: None, end_key: None }
    }

    /// The key the page must begin with; none for a root.
    pub(crate) fn first_key(&self) -> Option<&[u8]> {
        self.first_key.as_deref()
    }

    /// The key that the page must end before; none for the last one.
    pub(crate) fn end_key(&self) -> Option<&[u8]> {
        self.end_key.as_deref()
    }

    /// The bounds of a child of a page that has these bounds.
    pub(crate) fn of_child(&self, page: &Page, index: usize) -> Self {
        let next = index + 1;
        let end_key = if next < page.len() { Some(page.entry(next).0) } else { self.end_key.clone() };
        Self { first_key: Some(page.entry(index).0), end_key }
    }

    /// Checks that the page at `blob` keeps within them, so that a scan is in order over all leaves, and no page comes twice.
    pub(crate) fn check(&self, page: &Page, blob: &BlobRef) -> Result<()> {
        let begins = self.first_key.as_ref().is_none_or(|first| page.len() > 0 && page.key(0) == first.as_ref());
        let ends = self.end_key.as_ref().is_none_or(|end| page.count_below(end) == page.len());
        if begins && ends {
            return Ok(());
        }
        let what = format!("the page at {} does not hold the keys that the page above says", blob.offset);
        Err(Malformed::new(what).in_object(layout::pack(&blob.pack)))
    }
}

/// A leaf as the page above has it.
struct Leaf {
    blob: BlobRef,
    bounds: Bounds,
}

/// An inner page on the way down, the next child of it to visit, and the keys it may hold.
struct Step {
    blob: BlobRef,
    page: Page,
    next: usize,
    bounds: Bounds,
}

struct Descent {
    repo: Repository,
    from: Bytes,
    root: Option<TableRef>,
    path: Vec<Step>,
}

/// The leaves that can hold keys from `from` on, in order.
fn leaves(repo: Repository, table: TableRef, from: Bytes) -> impl Stream<Item = Result<Leaf>> + Send {
    let start = Descent { repo, from, root: Some(table), path: Vec::new() };
    stream::try_unfold(start, |mut descent| async move { Ok(descent.next().await?.map(|leaf| (leaf, descent))) })
}

impl Descent {
    async fn next(&mut self) -> Result<Option<Leaf>> {
        if let Some(table) = self.root.take() {
            if table.height == 0 {
                return Ok(Some(Leaf { blob: table.root, bounds: Bounds::of_root() }));
            }
            let page = read_root(&self.repo, &table).await?;
            self.enter(table.root, page, Bounds::of_root());
        }
        while let Some(step) = self.path.last_mut() {
            let index = step.next;
            if index >= step.page.len() {
                self.path.pop();
                continue;
            }
            step.next += 1;
            let child = child_of(&step.page, index, &step.blob)?;
            let bounds = step.bounds.of_child(&step.page, index);
            if step.page.level() == 1 {
                return Ok(Some(Leaf { blob: child, bounds }));
            }
            let level = step.page.level() - 1;
            let page = read_page(&self.repo, &child, level).await?;
            bounds.check(&page, &child)?;
            self.enter(child, page, bounds);
        }
        Ok(None)
    }

    fn enter(&mut self, blob: BlobRef, page: Page, bounds: Bounds) {
        let next = page.child_index(&self.from);
        self.path.push(Step { blob, page, next, bounds });
    }
}

/// Reads the root page of a table.
pub(crate) async fn read_root(repo: &Repository, table: &TableRef) -> Result<Page> {
    if table.height > MAX_HEIGHT {
        return Err(Error::invalid(format!("no table has a height of {}", table.height)));
    }
    read_page(repo, &table.root, table.height).await
}

/// Reads a page, which must be of this level: so no page can be its own descendant.
pub(crate) async fn read_page(repo: &Repository, blob: &BlobRef, level: u8) -> Result<Page> {
    let damaged = |what: Malformed| what.in_object(layout::pack(&blob.pack));
    let page = Page::decode(repo.read_blob(blob).await?).map_err(damaged)?;
    if page.level() == level {
        Ok(page)
    } else {
        let what = format!("the page at {} has level {} instead of {level}", blob.offset, page.level());
        Err(damaged(Malformed::new(what)))
    }
}

/// The reference to a child; `blob` is where the page is.
pub(crate) fn child_of(page: &Page, index: usize, blob: &BlobRef) -> Result<BlobRef> {
    page.child(index).map_err(|what| what.in_object(layout::pack(&blob.pack)))
}
