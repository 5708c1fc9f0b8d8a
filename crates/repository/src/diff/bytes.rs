//! Comparing what two lists of extents stand for.

use crate::error::Result;
use crate::extents;
use crate::ids::TableRef;
use crate::repository::Repository;
use crate::table::{self, Difference};
use crate::tree::entry::{Content, Extent};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes that are compared at once; both sides of it are in memory.
const WINDOW_LEN: u64 = 8 << 20;
/// The grain in which differences are told: the least that changes in a volume.
const BLOCK_LEN: usize = 4 << 10;

/// An extent that one side has at its place and the other side has not.
#[derive(Debug, Clone)]
pub(super) enum Side {
    Old(Extent),
    New(Extent),
}

/// Extents in the order of their offsets.
pub(super) type Sides = BoxStream<'static, Result<Side>>;

/// The extents that only one of two tables has.
pub(super) fn of_tables(repo: &Repository, old: TableRef, new: TableRef) -> Sides {
    let decode = move |Difference { key, old: one, new: other }: Difference| {
        let one = one.map(|value| extents::decode(&old, &key, &value).map(Side::Old));
        let other = other.map(|value| extents::decode(&new, &key, &value).map(Side::New));
        stream::iter(one.into_iter().chain(other).collect::<Vec<_>>())
    };
    table::differences(repo, old, new).map_ok(decode).try_flatten().boxed()
}

/// The extents of one table, which the other side does not have.
pub(super) fn of_one(repo: &Repository, table: TableRef, side: fn(Extent) -> Side) -> Sides {
    extents::scan(repo, table).map_ok(side).boxed()
}

/// The extents that only one of two files has.
pub(super) async fn of_files(repo: &Repository, old: &Content, new: &Content) -> Result<Sides> {
    match (old, new) {
        (Content::Table(old), Content::Table(new)) => Ok(of_tables(repo, *old, *new)),
        _ => {
            let (mut old, mut new) = (all(repo, old), all(repo, new));
            let (one, other) = (old.try_next().await?, new.try_next().await?);
            let merged = stream::try_unfold((old, new, one, other), |(mut old, mut new, one, other)| async move {
                Ok(match (one, other) {
                    (None, None) => None,
                    (Some(one), other) if other.as_ref().is_none_or(|other| one.file_offset <= other.file_offset) => {
                        let next = old.try_next().await?;
                        Some((Side::Old(one), (old, new, next, other)))
                    }
                    (one, Some(other)) => {
                        let next = new.try_next().await?;
                        Some((Side::New(other), (old, new, one, next)))
                    }
                    (Some(one), None) => Some((Side::Old(one), (old, new, None, None))),
                })
            });
            Ok(merged.boxed())
        }
    }
}

fn all(repo: &Repository, content: &Content) -> BoxStream<'static, Result<Extent>> {
    match content {
        Content::Extents(extents) => stream::iter(extents.clone().into_iter().map(Ok)).boxed(),
        Content::Table(table) => extents::scan(repo, *table),
    }
}

/// The pieces of both sides that lie in one window.
#[derive(Debug, Default)]
struct Window {
    old: Vec<Extent>,
    new: Vec<Extent>,
}

/// Tells the ranges of blocks in which the two sides differ, in order; ends early when `tell` gives false.
pub(super) async fn compare(
    repo: &Repository,
    mut sides: Sides,
    mut tell: impl FnMut(Range<u64>) -> bool,
) -> Result<()> {
    let mut windows: BTreeMap<u64, Window> = BTreeMap::new();
    while let Some(side) = sides.try_next().await? {
        let (Side::Old(extent) | Side::New(extent)) = &side;
        let first = extent.file_offset / WINDOW_LEN * WINDOW_LEN;
        while let Some(entry) = windows.first_entry().filter(|entry| *entry.key() < first) {
            let (start, window) = entry.remove_entry();
            if !differ(repo, start, window, &mut tell).await? {
                return Ok(());
            }
        }
        // An extent is shorter than 4 GiB, so it lies in 513 windows at most.
        let mut start = first;
        while let Some(piece) = extents::clip(extent, &(start..start.saturating_add(WINDOW_LEN))) {
            let window = windows.entry(start).or_default();
            match side {
                Side::Old(_) => window.old.push(piece),
                Side::New(_) => window.new.push(piece),
            }
            start = start.saturating_add(WINDOW_LEN);
        }
    }
    for (start, window) in windows {
        if !differ(repo, start, window, &mut tell).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Compares one window; gives whether to go on.
async fn differ(
    repo: &Repository,
    start: u64,
    window: Window,
    tell: &mut impl FnMut(Range<u64>) -> bool,
) -> Result<bool> {
    let same = |one: &Extent, other: &Extent| {
        (one.file_offset, one.len, one.blob_offset, one.blob.id)
            == (other.file_offset, other.len, other.blob_offset, other.blob.id)
    };
    let only = |of: &[Extent], others: &[Extent]| -> Vec<Extent> {
        let has = |extent: &Extent| {
            let at = others.binary_search_by_key(&extent.file_offset, |other| other.file_offset);
            at.is_ok_and(|at| same(&others[at], extent))
        };
        of.iter().filter(|extent| !has(extent)).cloned().collect()
    };
    let (old, new) = (only(&window.old, &window.new), only(&window.new, &window.old));
    let end = old.iter().chain(&new).map(|extent| extent.file_offset + u64::from(extent.len)).max().unwrap_or(start);
    let span = start..end;
    let (old, new) = (extents::read(repo, &span, &old).await?, extents::read(repo, &span, &new).await?);
    let mut range: Option<Range<u64>> = None;
    let mut at = start;
    for (one, other) in old.chunks(BLOCK_LEN).zip(new.chunks(BLOCK_LEN)) {
        let block = at..at + one.len() as u64;
        at = block.end;
        match &mut range {
            Some(range) if one != other => range.end = block.end,
            None if one != other => range = Some(block),
            _ => {
                if range.take().is_some_and(|range| !tell(range)) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(range.is_none_or(tell))
}
