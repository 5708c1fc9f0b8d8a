//! Copying recovery points to another repository, without their sources.
//!
//! The other repository has keys of its own, so every blob is opened, verified, and stored anew, and every table is built again around the
//! new references. What the other repository has already is found by content, through an earlier recovery point that both have:
//!
//! ```text
//!  here:   earlier ─── entry ──► blob ───────── the same blob, in the point that is copied
//!            │           │                                     │
//!  there:  earlier ─── entry ──► its copy ◄──── referred to ───┘
//! ```
//!
//! What a crash leaves after each step is harmless, and copying again is right:
//! 1. packs and index runs there: as of any session that was cut off;
//! 2. packs are read back, and what was taken over is looked up;
//! 3. the recovery point is published.

mod blobs;
mod pairs;
mod tables;

use crate::content::{ContentError, check_content};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{PointId, TableRef};
use crate::point::{RecoveryPoint, Root};
use crate::progress::Progress;
use crate::references::Values;
use crate::repository::Repository;
use crate::table::Reader;
use crate::tree;
use crate::volume;
use crate::writer::WriterStats;
use blobs::Blobs;
use futures::TryStreamExt;
use std::sync::Arc;
use tables::Tables;
use tokio_util::sync::CancellationToken;

/// What copying one recovery point came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySummary {
    /// Which.
    pub id: PointId,
    /// Whether the other repository had it already, so that nothing was done.
    pub was_there: bool,
    /// The earlier recovery point through which was found what the other repository has.
    pub base: Option<PointId>,
    /// Plain bytes that were read here.
    pub read_bytes: u64,
    /// Plain bytes that were new there, tables included.
    pub new_bytes: u64,
    /// Bytes that these take there.
    pub stored_bytes: u64,
}

/// Copies a recovery point from one repository to another; it has the same content, name, time and source there.
///
/// One that is there already is a success if it is a copy, and is refused if it is another one of the same name.
pub async fn copy(
    from: &Repository,
    to: &Repository,
    id: &PointId,
    progress: Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<CopySummary> {
    let point = from.point(id).await?;
    match to.point(id).await {
        Ok(there) if is_copy(&point, &there) => return Ok(summary(id, true, None, 0, WriterStats::default())),
        Ok(_) => return Err(Error::PointExists { id: id.clone() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let base = find_base(from, to, &point).await?;
    if let Some(base) = &base {
        match copy_with(from, to, &point, Some(base), &progress, cancel).await {
            // What was to be taken over is not whole there; then everything is stored again.
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, base = %base.0.id, "copying without what is there")
            }
            copied => return copied,
        }
    }
    copy_with(from, to, &point, None, &progress, cancel).await
}

/// A recovery point that both have: here, and there.
type Base = (RecoveryPoint, RecoveryPoint);

async fn copy_with(
    from: &Repository,
    to: &Repository,
    point: &RecoveryPoint,
    base: Option<&Base>,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<CopySummary> {
    let writer = to.lone_writer(&point.id).await?;
    let base = match base {
        Some(base) if writer.parent(&base.1.id).await?.is_some() => Some(base),
        _ => None,
    };
    let blobs = Blobs::new(from, &writer, progress.clone(), cancel.clone());
    let mut tables = Tables { from: from.clone(), writer: writer.clone(), blobs };
    let mut copied = point.clone();
    let plain = |table: fn(&RecoveryPoint) -> Option<TableRef>| base.and_then(|(a, b)| table(a).zip(table(b)));
    if let Some(table) = &mut copied.objects {
        *table = tables.copy(*table, Values::Plain, plain(|point| point.objects)).await?;
    }
    if let Some(table) = &mut copied.ledger {
        *table = tables.copy(*table, Values::Plain, plain(|point| point.ledger)).await?;
    }
    for root in &mut copied.roots {
        let of =
            |point: &RecoveryPoint| point.root(&root.name).filter(|other| other.kind == root.kind).map(|r| r.table);
        let pair = base.and_then(|(here, there)| of(here).zip(of(there)));
        root.table = tables.copy(root.table, Values::of_root(root.kind), pair).await?;
    }
    let read_bytes = tables.blobs.read_bytes();
    drop(tables);
    copied.sessions = vec![writer.session()];
    let written = writer.finish().await?;
    to.verify_packs(&written.packs).await?;
    copied.packs = written.packs;
    copied.stats.new_bytes = written.stats.new_bytes;
    copied.stats.stored_bytes = written.stats.stored_bytes;
    look_up(to, &copied, cancel).await?;
    to.publish(&copied).await?;
    Ok(summary(&point.id, false, base.map(|(here, _)| here.id.clone()), read_bytes, written.stats))
}

fn summary(id: &PointId, was_there: bool, base: Option<PointId>, read_bytes: u64, stats: WriterStats) -> CopySummary {
    let WriterStats { new_bytes, stored_bytes, .. } = stats;
    CopySummary { id: id.clone(), was_there, base, read_bytes, new_bytes, stored_bytes }
}

/// The newest recovery point that both have, preferably one that is not newer than what is copied.
async fn find_base(from: &Repository, to: &Repository, point: &RecoveryPoint) -> Result<Option<Base>> {
    let mut there: Vec<_> = to.points().await?.into_iter().filter_map(|entry| entry.point.ok()).collect();
    there.sort_by_key(|other| (other.created <= point.created, other.created));
    while let Some(copy) = there.pop() {
        match from.point(&copy.id).await {
            Ok(here) if is_copy(&here, &copy) => return Ok(Some((here, copy))),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged | ErrorKind::Newer) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether two recovery points of two repositories are the same but for where their tables lie.
///
/// The times of the backup have nanoseconds, so two that were made on their own do not have the same.
pub(crate) fn is_copy(one: &RecoveryPoint, other: &RecoveryPoint) -> bool {
    let root = |root: &Root| (root.table.entries, Root { table: TableRef::NOWHERE, ..root.clone() });
    let entries = |table: Option<TableRef>| table.map(|table| table.entries);
    (&one.id, one.created, &one.source, one.complete) == (&other.id, other.created, &other.source, other.complete)
        && (entries(one.objects), entries(one.ledger)) == (entries(other.objects), entries(other.ledger))
        && one.roots.iter().map(root).eq(other.roots.iter().map(root))
}

/// Looks that everything that the copy refers to is in the directories of its packs.
async fn look_up(to: &Repository, point: &RecoveryPoint, cancel: &CancellationToken) -> Result<()> {
    for table in [point.objects, point.ledger].into_iter().flatten() {
        Reader::new(to, table).scan(&[]).try_for_each(|_| std::future::ready(Ok(()))).await?;
    }
    for root in &point.roots {
        check_content(to, root, cancel).await.map_err(|error| match error {
            ContentError::Tree(tree::Error::Repository(error))
            | ContentError::Volume(volume::Error::Repository(error)) => error,
            error if error.is_damage() => Error::Damaged { object: root.name.clone(), what: error.to_string() },
            error => Error::Interrupted(error.to_string()),
        })?;
    }
    Ok(())
}
