//! Keeping what a recovery point needs from being deleted, in a repository with a lock.
//!
//! What a point needs may be old: an increment refers to packs of its parents, whose locks end before its own. So before a point is
//! published, the lock of everything that it needs is made to last as long as is promised for the point. To know what that is, all
//! pages of its tables are read; only who wants a lock pays for that.
//!
//! A pack that it refers to may be damaged, or gone, since a repair has stored elsewhere what was needed of it. So what repairs have stored is held, with
//! the index that leads there; and of a pack that is gone it must be found.

use crate::collector::Marker;
use crate::error::{Error, Result};
use crate::ids::{BlobRef, PackId};
use crate::index;
use crate::layout::{self, ObjectName};
use crate::point::RecoveryPoint;
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};

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
    names.extend(point.sessions.iter().map(layout::session));
    let held = stream::iter(names).map(Ok).try_for_each_concurrent(AT_ONCE, |name| async move {
        if hold(repo, &name).await? { Ok(()) } else { Err(Error::Missing { object: name }) }
    });
    held.await?;
    hold_repairs(repo).await?;
    let packs = Marker::default().follow(repo, point).await?;
    let held =
        packs.into_iter().map(|pack| async move { Ok::<_, Error>((pack, hold(repo, &layout::pack(&pack)).await?)) });
    let held: Vec<_> = stream::iter(held.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await?;
    let gone = held.into_iter().filter(|(_, is_held)| !is_held).map(|(pack, _)| pack).collect();
    hold_elsewhere(repo, point, &gone).await
}

/// Holds all that repairs have stored: blobs of packs that are damaged, or gone, are read there, and are found by its index alone. Repairs are few, and
/// small beside what they repair.
async fn hold_repairs(repo: &Repository) -> Result<()> {
    let names = async |folder| {
        let objects = repo.store().list(&layout::domain_folder(folder)).await?;
        Ok::<_, Error>(objects.into_iter().map(|object| object.name))
    };
    let is_mark =
        |name: String| if let ObjectName::Repair(writer) = layout::parse(&name) { Some(writer) } else { None };
    let repairs: BTreeSet<_> = names("repairs").await?.filter_map(is_mark).collect();
    if repairs.is_empty() {
        return Ok(());
    }
    let is_theirs = |name: &String| match layout::parse(name) {
        ObjectName::Pack(id) => repairs.contains(&id.writer),
        ObjectName::Run(id) => repairs.contains(&id.writer),
        _ => false,
    };
    let theirs: Vec<_> = names("packs").await?.chain(names("index").await?).filter(is_theirs).collect();
    let held = theirs.into_iter().map(|name| async move { hold(repo, &name).await.map(drop) });
    stream::iter(held.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).try_collect().await
}

/// Holds an object; tells whether it is there.
async fn hold(repo: &Repository, name: &str) -> Result<bool> {
    match repo.store().hold(name).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
        held => Ok(held.map(|()| true)?),
    }
}

/// Holds the packs in which the index knows what a recovery point needs of packs that are gone.
async fn hold_elsewhere(repo: &Repository, point: &RecoveryPoint, gone: &BTreeSet<PackId>) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut blobs = BTreeMap::new();
    let mut take_from = |blob: BlobRef| {
        if gone.contains(&blob.pack) {
            blobs.insert(blob.id, blob.pack);
        }
    };
    Marker::default().follow_blobs(repo, point, &mut take_from).await?;
    let mut held = BTreeSet::new();
    'blobs: for (id, pack) in blobs {
        let found = index::find(repo, &id).await?;
        if found.iter().any(|blob| held.contains(&blob.pack)) {
            continue;
        }
        for other in found.iter().filter(|blob| !gone.contains(&blob.pack)) {
            if hold(repo, &layout::pack(&other.pack)).await? {
                held.insert(other.pack);
                continue 'blobs;
            }
        }
        return Err(Error::Missing { object: layout::pack(&pack) });
    }
    Ok(())
}
