//! Whether a restore may begin: everything that can be known before anything is made.
//!
//! Invariant: what is refused here has changed nothing in the cluster. That is why kinds, storage classes and claims in use are looked
//! at now, and not when their turn comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{ApplicationRestore, ApplicationRestoreSpec, FieldError, Missed, Phase, ReplacePolicy, RestoreStage};
use jiff::Timestamp;

use super::inventory::Inventory;

/// What is to be done about a restore that has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may begin.
    Go,
    /// Not yet; why.
    Wait(String),
    /// Never; nothing was changed.
    Refuse(Refusal),
}

/// Why a restore ends without having begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// One word for conditions.
    pub(crate) reason: &'static str,
    /// Sentences for people.
    pub(crate) message: String,
}

/// Makes the verdict that ends a restore.
pub(crate) fn refuse(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict::Refuse(Refusal { reason, message: message.into() })
}

/// What is known of the recovery point.
#[derive(Clone, Debug)]
pub(crate) struct PointFacts {
    pub(crate) id: String,
    pub(crate) complete: bool,
    /// Namespaces that it has.
    pub(crate) sources: Vec<String>,
    /// What it lacks; the first of it.
    pub(crate) missed: Vec<Missed>,
    /// Groups and kinds that definitions in it, among the picked ones, define.
    pub(crate) defines: BTreeSet<(String, String)>,
    /// Storage classes that picked claims and templates name, at the source.
    pub(crate) classes: BTreeSet<String>,
    pub(crate) inventory: Inventory,
    /// Claims with data, as they are called at the target.
    pub(crate) claims: Vec<(String, String)>,
}

/// Where the recovery point comes from, as far as it could be found.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The location cannot be used; whether that may pass, and one word for it.
    NoLocation { reason: &'static str, message: String, may_pass: bool },
    /// The backup that is named does not exist.
    NoBackup,
    /// The backup that is named is under way.
    BackupRuns,
    /// The backup that is named has no recovery point; what it says.
    BackupWithoutPoint(String),
    /// There is no such recovery point; there are these.
    NoPoint { id: String, known: Vec<String> },
    /// It is there.
    Found(Box<PointFacts>),
}

/// A namespace at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamespaceState {
    Absent,
    Active,
    Terminating,
}

/// Another restore that is not over.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    /// Its namespace and name.
    pub(crate) name: String,
    /// Since when it exists, and its uid: their order is the order of restores.
    pub(crate) age: (Timestamp, String),
    /// It is past its preparation.
    pub(crate) begun: bool,
    /// Namespaces it restores into, as far as it knows.
    pub(crate) namespaces: BTreeSet<String>,
}

/// What is known of the target.
#[derive(Clone, Debug, Default)]
pub(crate) struct TargetFacts {
    pub(crate) namespaces: BTreeMap<String, NamespaceState>,
    /// Groups and kinds that it serves.
    pub(crate) kinds: BTreeSet<(String, String)>,
    /// Groups whose kinds cannot be told, with the reason.
    pub(crate) broken_groups: BTreeMap<String, String>,
    pub(crate) classes: BTreeSet<String>,
    /// Pods that are not over, by the claims they use.
    pub(crate) users: BTreeMap<(String, String), Vec<String>>,
    pub(crate) others: Vec<Other>,
}

/// What is wrong with a restore by itself.
pub(crate) fn spec(restore: &ApplicationRestore) -> Verdict {
    let errors = restore.spec.validate();
    if !errors.is_empty() {
        return refuse("InvalidSpec", join(&errors));
    }
    let begun = restore.status.as_ref().and_then(|s| s.observed_generation);
    if begun.is_some_and(|generation| Some(generation) != restore.metadata.generation) {
        return refuse("SpecChanged", "the spec was changed after the run began; a restore is one run: create another");
    }
    Verdict::Go
}

/// Whether there is a recovery point that can be restored. `waited` is how long the restore has been looking for it.
pub(crate) fn source(
    restore: &ApplicationRestoreSpec,
    source: &Source,
    waited: Duration,
    patience: Duration,
) -> Verdict {
    let patient = waited < patience;
    match source {
        Source::NoLocation { message, may_pass: true, .. } if patient => Verdict::Wait(message.clone()),
        Source::NoLocation { reason, message, .. } => refuse(reason, message),
        Source::NoBackup if patient => Verdict::Wait(no_backup(restore)),
        Source::NoBackup => refuse("BackupNotFound", no_backup(restore)),
        Source::BackupRuns => Verdict::Wait(format!("waits for the backup {} to end", backup(restore))),
        Source::BackupWithoutPoint(message) => refuse(
            "NoRecoveryPoint",
            format!("the backup {} made no recovery point: {message}; restore another", backup(restore)),
        ),
        Source::NoPoint { id, known } => refuse("NoRecoveryPoint", no_point(id, known)),
        Source::Found(point) if !point.complete && !restore.accept_incomplete => {
            refuse("Incomplete", incomplete(point))
        }
        Source::Found(_) => Verdict::Go,
    }
}

fn backup(restore: &ApplicationRestoreSpec) -> &str {
    restore.backup_name.as_deref().unwrap_or_default()
}

fn no_backup(restore: &ApplicationRestoreSpec) -> String {
    format!(
        "there is no ApplicationBackup {} in this namespace; for a recovery point of another cluster give spec.recoveryPoint",
        backup(restore)
    )
}

fn no_point(id: &str, known: &[String]) -> String {
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    format!("the location has no recovery point {id:?}; {known}")
}

fn incomplete(point: &PointFacts) -> String {
    let missed: Vec<String> = point.missed.iter().map(|m| format!("{} ({})", m.item, m.reason)).collect();
    format!(
        "the recovery point {} is not complete, it lacks: {}; set acceptIncomplete in another restore to take what is there",
        point.id,
        missed.join(", ")
    )
}

/// Whether what is found can be restored into the target that is found.
pub(crate) fn target(
    restore: &ApplicationRestore,
    age: &(Timestamp, String),
    point: &PointFacts,
    target: &TargetFacts,
) -> Verdict {
    let own = restore.metadata.namespace.as_deref().unwrap_or_default();
    let wrong = restore.spec.validate_targets(own, &point.sources);
    if !wrong.is_empty() {
        return refuse("InvalidSpec", join(&wrong));
    }
    if let Some(why) = waits(&restore.spec, age, point, target) {
        return Verdict::Wait(why);
    }
    let findings = [
        missing_namespaces(&restore.spec, point, target),
        missing_kinds(point, target),
        missing_classes(&restore.spec, point, target),
        claims_in_use(&restore.spec, point, target),
    ];
    match findings
        .into_iter()
        .flatten()
        .reduce(|a, b| Refusal { reason: a.reason, message: format!("{}; {}", a.message, b.message) })
    {
        Some(refusal) => Verdict::Refuse(refusal),
        None => Verdict::Go,
    }
}

/// Namespaces that a restore goes to.
pub(crate) fn namespaces(restore: &ApplicationRestoreSpec, sources: &[String]) -> BTreeSet<String> {
    sources.iter().map(|source| restore.target(source).to_owned()).collect()
}

/// What a restore has to wait for.
pub(crate) fn waits(
    restore: &ApplicationRestoreSpec,
    age: &(Timestamp, String),
    point: &PointFacts,
    target: &TargetFacts,
) -> Option<String> {
    let ours = namespaces(restore, &point.sources);
    let ending = ours.iter().find(|n| target.namespaces.get(*n) == Some(&NamespaceState::Terminating));
    if let Some(namespace) = ending {
        return Some(format!("waits for the namespace {namespace} to be gone: it is being deleted"));
    }
    let first = target.others.iter().find(|o| (o.begun || o.age < *age) && !o.namespaces.is_disjoint(&ours))?;
    let shared: Vec<&str> = first.namespaces.intersection(&ours).map(String::as_str).collect();
    Some(format!("waits for the restore {}, which goes to {} too, to end", first.name, shared.join(", ")))
}

/// A namespace that nobody would make.
fn missing_namespaces(restore: &ApplicationRestoreSpec, point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    let made: BTreeSet<&str> =
        point.inventory.keys().filter(|k| k.is("", "Namespace")).map(|k| restore.target(&k.name)).collect();
    let of_objects = point.inventory.keys().filter_map(|k| k.namespace.as_deref()).map(|n| restore.target(n));
    let of_claims = point.claims.iter().map(|(namespace, _)| namespace.as_str());
    let needed: BTreeSet<&str> = of_objects.chain(of_claims).collect();
    let absent = |n: &&&str| target.namespaces.get(**n).is_none_or(|s| *s == NamespaceState::Absent);
    let missing: Vec<&str> = needed.difference(&made).filter(absent).copied().collect();
    let message = format!("the recovery point does not have the namespace {}; create it", missing.join(", "));
    (!missing.is_empty()).then_some(Refusal { reason: "NamespaceMissing", message })
}

fn missing_kinds(point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    let kinds: BTreeSet<(String, String)> =
        point.inventory.keys().map(|key| (key.group.clone(), key.kind.clone())).collect();
    let known = |kind: &&(String, String)| target.kinds.contains(kind) || point.defines.contains(kind);
    let missing: Vec<String> = kinds.iter().filter(|kind| !known(kind)).map(|kind| unknown(kind, target)).collect();
    (!missing.is_empty()).then(|| Refusal { reason: "KindMissing", message: missing.join("; ") })
}

fn unknown((group, kind): &(String, String), target: &TargetFacts) -> String {
    match target.broken_groups.get(group) {
        Some(reason) => {
            format!("the kind {kind} of {group} cannot be restored: its API does not answer ({reason}); repair it")
        }
        None => format!(
            "this cluster does not know the kind {kind} of {group}, and no definition of it is restored; install what defines it, or leave it out with includeResources"
        ),
    }
}

fn missing_classes(restore: &ApplicationRestoreSpec, point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    let mapped = |class: &String| restore.storage_class_mapping.get(class).unwrap_or(class).clone();
    let missing: Vec<String> =
        point.classes.iter().map(mapped).filter(|class| !class.is_empty() && !target.classes.contains(class)).collect();
    let known: Vec<&str> = target.classes.iter().map(String::as_str).collect();
    let message = format!(
        "this cluster has no storage class {}; map it by storageClassMapping to one of: {}",
        missing.join(", "),
        known.join(", ")
    );
    (!missing.is_empty()).then_some(Refusal { reason: "StorageClassMissing", message })
}

fn claims_in_use(restore: &ApplicationRestoreSpec, point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    if restore.replace_policy != ReplacePolicy::Delete {
        return None;
    }
    let used = point.claims.iter().filter_map(|claim| target.users.get(claim).map(|pods| (claim, pods)));
    let used: Vec<String> = used.map(|((ns, name), pods)| format!("{ns}/{name} by {}", pods.join(", "))).collect();
    let message = format!("claims that are to be replaced are in use: {}; end these pods first", used.join("; "));
    (!used.is_empty()).then_some(Refusal { reason: "ClaimInUse", message })
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Another restore as this one sees it; none if it is over.
pub(crate) fn other(restore: &ApplicationRestore) -> Option<Other> {
    let status = restore.status.clone().unwrap_or_default();
    let over = status.phase.is_final();
    let metadata = &restore.metadata;
    (!over).then(|| Other {
        name: format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        ),
        age: age(restore),
        begun: status.stage >= RestoreStage::Foundations && status.phase == Phase::Running,
        namespaces: status.namespaces.into_iter().collect(),
    })
}

/// What restores are ordered by: the older goes first.
pub(crate) fn age(restore: &ApplicationRestore) -> (Timestamp, String) {
    let created = restore.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    (created, restore.metadata.uid.clone().unwrap_or_default())
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
