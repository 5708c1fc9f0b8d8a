//! Restores: a recovery point is brought back, here or in another cluster.
//!
//! ```text
//!   Preparing ──► Foundations ──► Volumes ──► Resources ──► Ready ──► Done
//!   everything      what the        filled in     everything    what runs
//!   is checked,     rest stands     claims that   else, if all  is waited
//!   nothing made    on is made      nobody has    volumes came  for
//! ```
//! `preExecRule` runs before Foundations, `postExecRule` after Ready, each in a stage of its own that is left out where no rule is named. A run with `planOnly`
//! ends in Preparing: its status says what would be done, by the same code that decides what is.
//!
//! Invariants: nothing is made before everything that can be known was checked; a claim has its wanted name only when its volume was
//! filled and compared; no workload is made when a volume is missing; nothing with the label of the run is left when it is over.

mod apply;
mod begin;
mod foresee;
mod gather;
mod inventory;
mod make;
mod plan;
mod point;
mod prepared;
mod ready;
mod status;
mod transformed;
mod transforms;
mod trial;
mod validate;
mod volume;
mod workloads;

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{ApplicationRestore, RUN_LABEL, RestoreTransform};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};

use crate::context::{Context, try_again};
use crate::error::Error;
use crate::mover_pod;
use point::Point;

pub(crate) use gather::namespace_state;
pub(crate) use inventory::stands_on_volumes;
pub(crate) use make::HELD_BACK;
pub(crate) use status::CLAIM_EXISTS;
pub(crate) use validate::NamespaceState;
pub(crate) use volume::act::manifest as claim_manifest;
pub(crate) use volume::observe::claim_users;

/// What reconciles of restores share. All of it can be lost: it is read again, or waited for again.
struct Restores {
    context: Arc<Context>,
    /// Recovery points of restores that are under way.
    points: Kept<ReadFor, Arc<Point>>,
    /// Since when a restore meets trouble that may pass.
    troubled: Mutex<HashMap<(String, Trouble), Timestamp>>,
}

/// What may pass, and is waited for in patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Trouble {
    /// The recovery point is not found, or its location cannot be reached.
    Point,
    /// Objects of the recovery point cannot be read or made for the moment.
    Objects,
    /// What a volume needs, by its index, cannot be made for the moment.
    Making(usize),
    /// The control plane has something to do for a volume, by its index.
    ControlPlane(usize),
}

/// What a recovery point is read for: the generation of the spec, and the transformations.
type ReadFor = (Option<i64>, Vec<RestoreTransform>);

/// What was read for restores, by their uids; each with what it was read for. What is picked of a recovery point, what becomes of it, and where that
/// goes, follow from that: what was read for an older spec must not be used for a newer one.
#[derive(Debug)]
struct Kept<F, T>(Mutex<HashMap<String, (F, T)>>);

impl<F, T> Default for Kept<F, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<F: PartialEq, T: Clone> Kept<F, T> {
    fn get(&self, uid: &str, read_for: &F) -> Option<T> {
        lock(&self.0).get(uid).filter(|(of, _)| of == read_for).map(|(_, kept)| kept.clone())
    }

    fn keep(&self, uid: &str, read_for: F, what: T) {
        lock(&self.0).insert(uid.to_owned(), (read_for, what));
    }

    fn drop(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

impl Restores {
    /// For how long a restore has met this trouble, this time included.
    fn troubled_for(&self, uid: &str, trouble: Trouble, now: Timestamp) -> Duration {
        let since = *lock(&self.troubled).entry((uid.to_owned(), trouble)).or_insert(now);
        Duration::try_from(now.duration_since(since)).unwrap_or_default()
    }

    /// The trouble passed.
    fn recovered(&self, uid: &str, trouble: Trouble) {
        lock(&self.troubled).remove(&(uid.to_owned(), trouble));
    }

    /// Drops the recovery point of a restore, so that it is looked for anew.
    fn drop_point(&self, uid: &str) {
        self.points.drop(uid);
    }

    /// Drops what is kept for a restore.
    fn forget(&self, uid: &str) {
        self.drop_point(uid);
        lock(&self.troubled).retain(|(of, _), _| of != uid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs for ever.
pub(crate) async fn controller(context: Arc<Context>) {
    let client = context.client.clone();
    let movers = watcher::Config::default().labels(RUN_LABEL);
    let config = context.controller_config();
    let woken = context.clone();
    let restores = Arc::new(Restores { context, points: Kept::default(), troubled: Mutex::default() });
    Controller::new(Api::<ApplicationRestore>::all(client.clone()), watcher::Config::default())
        .with_config(config)
        .watches(Api::<Pod>::all(client), movers, move |pod| {
            mover_pod::run_of::<ApplicationRestore>(&pod).into_iter().chain(woken.turns.next())
        })
        .run(
            reconcile,
            |restore, error, restores: Arc<Restores>| try_again(restore, error, restores.context.clone()),
            restores,
        )
        .for_each(|_| ready(()))
        .await;
}

async fn reconcile(cached: Arc<ApplicationRestore>, restores: Arc<Restores>) -> Result<Action, Error> {
    let Some(mut gathered) = gather::gather(&restores, &cached).await? else {
        restores.forget(&cached.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    let plan = plan::plan(&gathered, restores.context.limits());
    let uid = gathered.uid.clone();
    let applied = apply::apply(&restores, &mut gathered, plan).await?;
    if matches!(applied, apply::Applied::Rested | apply::Applied::Undone) {
        restores.forget(&uid);
    }
    status::write(&restores, gathered, applied).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_for_an_older_spec_is_read_again() {
        let kept = Kept::default();
        kept.keep("a", Some(1), "into shop");
        assert_eq!(kept.get("a", &Some(1)), Some("into shop"));
        assert_eq!(kept.get("a", &Some(2)), None);
        kept.keep("a", Some(2), "into bank");
        assert_eq!((kept.get("a", &Some(1)), kept.get("a", &Some(2))), (None, Some("into bank")));
        kept.drop("a");
        assert_eq!(kept.get("a", &Some(2)), None);
    }
}
