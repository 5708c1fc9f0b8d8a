//! What is believed of what a run says of itself. Pure.
//!
//! A run goes on from its status, so that an operator that is new can take it up. But whoever may make runs in a namespace may be allowed to write their statuses
//! too, and the operator acts with rights that he does not have. So a run in an ordinary namespace is believed about its own namespace, and about no other.

use api::{ApplicationBackup, ApplicationRestore, Failure, HookStatus, VolumeRestore};
use kube::Resource;

use crate::objects::{self, Object};

/// The word for a status that Orlop has not written.
const NOT_OWN: &str = "StatusNotOwn";

/// Whether the status of a backup may be acted upon.
pub(crate) fn of_backup(run: &ApplicationBackup) -> Result<(), Failure> {
    let Some(status) = &run.status else { return Ok(()) };
    own(run, status.volumes.iter().map(|volume| &volume.namespace).chain(pods(&status.hooks)))
}

/// Whether the status of a restore may be acted upon.
pub(crate) fn of_restore(run: &ApplicationRestore) -> Result<(), Failure> {
    let Some(status) = &run.status else { return Ok(()) };
    let volumes = status.volumes.iter().map(|volume| &volume.namespace);
    own(run, status.namespaces.iter().chain(volumes).chain(pods(&status.hooks)))
}

/// Whether the volumes in the status of a restore that has begun are those of its recovery point, by namespaces and names of their claims at the target: each is
/// filled from the one at its place.
pub(crate) fn of_volumes<'a>(
    status: &'a [VolumeRestore],
    point: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), Failure> {
    let named = status.iter().map(|volume| (volume.namespace.as_str(), volume.claim.as_str()));
    if named.eq(point) {
        return Ok(());
    }
    Err(not_own::<ApplicationRestore>("has other volumes than its recovery point, or in another order"))
}

/// Namespaces of the pods that commands run in; that no pod matched is noted without one.
fn pods(hooks: &[HookStatus]) -> impl Iterator<Item = &String> {
    hooks.iter().map(|hook| &hook.namespace).filter(|namespace| !namespace.is_empty())
}

fn own<'a, K: Object>(run: &K, named: impl Iterator<Item = &'a String>) -> Result<(), Failure> {
    let Some(own) = objects::scope(run) else { return Ok(()) };
    let Some(stray) = named.into_iter().find(|namespace| *namespace != own) else { return Ok(()) };
    Err(not_own::<K>(&format!("names the namespace {stray}, and one in {own} acts on {own} only")))
}

fn not_own<K: Resource<DynamicType = ()>>(what: &str) -> Failure {
    let kind = K::kind(&());
    let message = format!(
        "the status of this {kind} {what}: somebody else than Orlop has written it; delete the {kind} and make another"
    );
    Failure { reason: NOT_OWN.into(), message }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
