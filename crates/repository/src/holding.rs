//! Keeping what a recovery point needs from being deleted, in a repository with a lock.
//!
//! What a point needs may be old: an increment refers to packs of its parents, whose locks end before its own. So before a point is
//! published, the lock of everything that it needs is made to last as long as is promised for the point. To know what that is, all
//! pages of its tables are read; only who wants a lock pays for that.

use crate::collector::Marker;
use crate::error::{Error, Result};
use crate::layout::{self, ObjectName};
use crate::point::RecoveryPoint;
use crate::repository::Repository;
use crate::store::StoreErrorKind;
use futures::{StreamExt, TryStreamExt, stream};

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
    names.extend(Marker::default().follow(repo, point).await?.iter().map(layout::pack));
    let held = stream::iter(names).map(Ok).try_for_each_concurrent(AT_ONCE, |name| async move {
        match repo.store().hold(&name).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => Err(Error::Missing { object: name }),
            other => Ok(other?),
        }
    });
    held.await
}
