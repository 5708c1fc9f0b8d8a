//! Whether a clone may begin or go on: everything that can be known before anything is made. Pure.

use std::collections::BTreeSet;

use api::{ApplicationClone, Failure, ReplacePolicy, VolumeClone, VolumeStage};
use application::{Mapping, Selection};
use kube::ResourceExt;

use super::facts::{Claim, Preparing};
use crate::admission::{self, age};
use crate::restore::{CLAIM_EXISTS, NamespaceState};
use crate::snapshots;

/// What is to be done about a clone that has not begun.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It may begin; these are its volumes.
    Go(Vec<VolumeClone>),
    /// Not yet; why.
    Wait(String),
    /// Never; nothing was changed.
    Refuse(Failure),
}

pub(super) fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), message: message.into() }
}

/// Why a run must not go on from where its status says that it is, if it must not. That it has begun is something that its status says, and a status may come from somebody else: so what is
/// refused before a run begins is refused at every look. A clone outside of the administrators' namespace is never begun, whatever it says.
pub(super) fn barred(run: &ApplicationClone) -> Option<Failure> {
    let wrong = run.spec.validate(&run.namespace().unwrap_or_default());
    if !wrong.is_empty() {
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        return Some(failure("InvalidSpec", wrong.join("; ")));
    }
    let begun = run.status.as_ref().and_then(|status| status.observed_generation);
    begun
        .filter(|generation| Some(*generation) != run.metadata.generation)
        .map(|_| failure("SpecChanged", "the spec was changed after the run began; a clone is one run: create another"))
}

/// What the spec selects.
pub(super) fn selection(run: &ApplicationClone) -> Selection {
    let labels: Vec<String> = run.spec.selectors.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Selection {
        namespaces: vec![run.spec.source_namespace.clone()],
        label_selector: Some(labels.join(",")).filter(|text| !text.is_empty()),
        ..Selection::default()
    }
}

/// What is called otherwise in the destination.
pub(super) fn mapping(run: &ApplicationClone) -> Mapping {
    let names = (run.spec.source_namespace.clone(), run.spec.destination_namespace.clone());
    Mapping { namespaces: [names].into(), ..Mapping::default() }
}

/// Whether a clone may begin.
pub(super) fn judge(run: &ApplicationClone, facts: &Preparing) -> Verdict {
    let spec = &run.spec;
    if let Some(why) = &facts.waits {
        return Verdict::Wait(why.clone());
    }
    match facts.source {
        Some(NamespaceState::Active) => {}
        Some(NamespaceState::Terminating) => {
            let message = format!("the namespace {} is being deleted; clone another one", spec.source_namespace);
            return Verdict::Refuse(failure("NamespaceNotFound", message));
        }
        _ => {
            let message =
                format!("there is no namespace {}; see the name in spec.sourceNamespace", spec.source_namespace);
            return Verdict::Refuse(failure("NamespaceNotFound", message));
        }
    }
    if facts.destination == Some(NamespaceState::Terminating) {
        let namespace = &spec.destination_namespace;
        return Verdict::Wait(format!("waits for the namespace {namespace} to be gone: it is being deleted"));
    }
    let goes = BTreeSet::from([spec.destination_namespace.clone()]);
    if let Some(why) = admission::first_of(&facts.others, &age(run), &goes) {
        return Verdict::Wait(why);
    }
    match &facts.claims {
        Ok(claims) => list(run, facts, claims),
        Err(why) => Verdict::Refuse(failure("InvalidSpec", format!("spec.selectors: {why}"))),
    }
}

fn list(run: &ApplicationClone, facts: &Preparing, claims: &[Claim]) -> Verdict {
    let (mut volumes, mut wrong) = (Vec::new(), Vec::new());
    for claim in claims {
        let name = &claim.facts.name;
        if run.spec.replace_policy != ReplacePolicy::Delete && facts.existing.contains(name) {
            let (stage, reason) = (VolumeStage::Skipped, Some(CLAIM_EXISTS.to_owned()));
            volumes.push(VolumeClone { claim: name.clone(), stage, reason, ..VolumeClone::default() });
            continue;
        }
        match class(run, facts, claim) {
            Ok(class) => {
                volumes.push(VolumeClone { claim: name.clone(), snapshot_class: Some(class), ..VolumeClone::default() })
            }
            Err(failure) => wrong.push(failure),
        }
    }
    match wrong.into_iter().reduce(|a, b| failure(&a.reason, format!("{}; {}", a.message, b.message))) {
        Some(failure) => Verdict::Refuse(failure),
        None => Verdict::Go(volumes),
    }
}

/// The class of the snapshot that a volume is cloned by; why it cannot be, if it cannot.
fn class(run: &ApplicationClone, facts: &Preparing, claim: &Claim) -> Result<String, Failure> {
    let (of, spec) = (&claim.facts, &run.spec);
    let title = format!("the claim {}/{}", of.namespace, of.name);
    if of.deleting || of.lost {
        let state = if of.deleting { "is being deleted" } else { "has lost its volume" };
        return Err(failure("ClaimUnusable", format!("{title} {state}; clone again when it is gone or mended")));
    }
    if let Some(pods) = facts.users.get(&of.name).filter(|_| facts.existing.contains(&of.name)) {
        let namespace = &spec.destination_namespace;
        let message = format!(
            "the claim {namespace}/{} is to be replaced and is in use by {}; end these pods first",
            of.name,
            pods.join(", ")
        );
        return Err(failure("ClaimInUse", message));
    }
    let chosen = of.driver.as_deref().map_or(Ok(None), |driver| {
        snapshots::choose(&facts.classes, driver, &Default::default())
            .map(|class| class.map(|class| class.name.clone()))
    });
    let Some(class) = chosen.ok().flatten() else {
        let driver = of.driver.as_deref().map_or("no CSI driver".to_owned(), |driver| format!("the driver {driver}"));
        let message = format!(
            "the volume of {title} is of {driver}, for which there is no VolumeSnapshotClass that could be meant (the default one of the driver, or its only one, with deletionPolicy Delete); \
             make one, or back {} up and restore it with the namespaceMapping {}: {}",
            spec.source_namespace, spec.source_namespace, spec.destination_namespace
        );
        return Err(failure("NoSnapshots", message));
    };
    match (claim.waits_for_a_node, &claim.node) {
        (None, _) => {
            let message = format!(
                "the storage class {:?} of {title} does not exist, so no volume is made like it; make the class",
                of.storage_class
            );
            Err(failure("StorageClassMissing", message))
        }
        (Some(true), None) => {
            let message = format!(
                "the storage class {} of {title} makes volumes only for a node, and no pod that runs tells which; start a pod that uses the claim, and clone again",
                of.storage_class
            );
            Err(failure("NoNode", message))
        }
        _ => Ok(class),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
