//! Keeping what a recovery point needs from being deleted, in a repository with a lock.
//!
//! What a point needs may be old: an increment refers to packs of its parents, whose locks end before its own. So before a point is
//! published, the lock of everything that it needs is made to last as long as is promised for the point. To know what that is, all
//! pages of its tables are read; only who wants a lock pays for that.

use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::ids::{BlobRef, PackId, TableRef};
use crate::layout::{self, ObjectName};
use crate::point::RecoveryPoint;
use crate::references::{self, References, Values};
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use crate::table::{self, Page};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;

/// How many objects are looked at, or locked, at once: enough to hide the latency of an object store, few enough for its limits.
const AT_ONCE: usize = 16;

/// Sees to it that nothing which a recovery point needs can be deleted for as long as is promised. Does nothing in a repository
/// without a lock.
pub(crate) async fn hold_all(repo: &Repository, point: &RecoveryPoint) -> Result<()> {
    if repo.store().lock().is_none() {
        return Ok(());
    }
    let mut names = vec![layout::CONFIG.to_owned()];
    let keys = repo.store().list(&layout::domain_folder("keys")).await?;
    let is_key = |name: &String| matches!(layout::parse(name), ObjectName::Key(_));
    names.extend(keys.into_iter().map(|object| object.name).filter(is_key));
    names.extend(needed_packs(repo, point).await?.iter().map(layout::pack));
    let held = stream::iter(names).map(Ok).try_for_each_concurrent(AT_ONCE, |name| async move {
        match repo.store().hold(&name).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => Err(Error::Missing { object: name }),
            other => Ok(other?),
        }
    });
    held.await
}

/// A page that is still to be looked at.
struct Visit {
    blob: BlobRef,
    level: u8,
    values: Values,
}

/// All packs that a recovery point refers to, and those that its run wrote.
async fn needed_packs(repo: &Repository, point: &RecoveryPoint) -> Result<BTreeSet<PackId>> {
    let mut packs: BTreeSet<PackId> = point.packs.iter().map(|info| info.id).collect();
    let mut visits = Vec::new();
    let begin = |(table, values): (TableRef, Values)| Visit { blob: table.root, level: table.height, values };
    visits.extend(references::tables_of(point).into_iter().map(begin));
    while !visits.is_empty() {
        let next = visits.split_off(visits.len().saturating_sub(AT_ONCE));
        packs.extend(next.iter().map(|visit| visit.blob.pack));
        // A leaf whose values refer to nothing need not be read.
        let next = next.into_iter().filter(|visit| visit.level > 0 || visit.values != Values::Plain);
        let read = next.map(|visit| async move {
            let page = table::read_page(repo, &visit.blob, visit.level).await?;
            Ok::<_, Error>((visit, page))
        });
        let mut read = stream::iter(read.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some((visit, page)) = read.try_next().await? {
            let malformed = |what: Malformed| what.in_object(layout::pack(&visit.blob.pack));
            let found = follow(&page, &visit, &mut visits).map_err(malformed)?;
            packs.extend(found.blobs.iter().map(|blob| blob.pack));
            visits.extend(found.tables.into_iter().map(begin));
        }
    }
    Ok(packs)
}

/// Tells what a page refers to; children of an inner page are to be visited.
fn follow(page: &Page, visit: &Visit, visits: &mut Vec<Visit>) -> Result<References, Malformed> {
    let mut all = References::default();
    for index in 0..page.len() {
        if let Some(level) = visit.level.checked_sub(1) {
            visits.push(Visit { blob: page.child(index)?, level, values: visit.values });
        } else {
            let found = references::of(visit.values, page.key(index), page.value(index))?;
            all.blobs.extend(found.blobs);
            all.tables.extend(found.tables);
        }
    }
    Ok(all)
}
