//! Whether a restore may begin: everything that can be known before anything is made.
//!
//! Invariant: what is refused here has changed nothing in the cluster. That is why kinds, storage classes and claims in use are looked
//! at now, and not when their turn comes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{ApplicationRestore, ApplicationRestoreSpec, Failure, FieldError, Missed, ReplacePolicy};
use application::gitops::Kept;
use application::{ApiCatalog, ObjectKey};

use super::inventory::Inventory;
use super::transformed::TransformFacts;
use crate::admission::{self, Age, Other};

/// Troubles with transformations that are named; the others are counted.
const TROUBLES_NAMED: usize = 5;

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
    pub(crate) reason: Cow<'static, str>,
    /// Sentences for people.
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(failure.reason, failure.message)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason.into_owned(), message: refusal.message }
    }
}

/// Makes the verdict that ends a restore.
pub(crate) fn refuse(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict::Refuse(Refusal::new(reason, message))
}

/// Groups and kinds, with versions.
pub(crate) type Definitions = BTreeMap<(String, String), BTreeSet<String>>;

/// What is known of the recovery point.
#[derive(Clone, Debug)]
pub(crate) struct PointFacts {
    pub(crate) id: String,
    pub(crate) complete: bool,
    /// Namespaces that it has.
    pub(crate) sources: Vec<String>,
    /// What it lacks; the first of it.
    pub(crate) missed: Vec<Missed>,
    /// Groups and kinds that definitions in it, among the picked ones, define, with the versions in which they serve them.
    pub(crate) defines: Definitions,
    /// Storage classes that picked claims and templates name, at the source.
    pub(crate) classes: BTreeSet<String>,
    pub(crate) inventory: Inventory,
    /// What transformations make of it.
    pub(crate) transformed: TransformFacts,
    /// By what it is known who else writes its objects.
    pub(crate) kept: Kept,
    /// Claims with data, as they are called at the target.
    pub(crate) claims: Vec<(String, String)>,
    /// Claims among them that would not take what it has for them.
    pub(crate) misfits: Vec<Missed>,
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

/// What is known of the target.
#[derive(Clone, Debug, Default)]
pub(crate) struct TargetFacts {
    pub(crate) namespaces: BTreeMap<String, NamespaceState>,
    /// What it serves.
    pub(crate) catalog: ApiCatalog,
    pub(crate) classes: BTreeSet<String>,
    /// Pods that are not over, by the claims they use.
    pub(crate) users: BTreeMap<(String, String), Vec<String>>,
    /// Claims that are there, and not being deleted.
    pub(crate) claims: BTreeSet<(String, String)>,
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
pub(crate) fn target(restore: &ApplicationRestore, age: &Age, point: &PointFacts, target: &TargetFacts) -> Verdict {
    if let Some(wrong) = off_limits(restore, point) {
        return Verdict::Refuse(wrong);
    }
    if let Some(stray) = stray_claim(&restore.spec, point) {
        return Verdict::Refuse(stray);
    }
    if let Some(why) = waits(&restore.spec, age, point, target) {
        return Verdict::Wait(why);
    }
    let findings = [
        nothing_picked(&restore.spec, point),
        missing_namespaces(&restore.spec, point, target),
        missing_kinds(point, target),
        missing_classes(&restore.spec, point, target),
        claims_in_use(&restore.spec, point, target),
        untransformed(point),
        misfits(point),
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

/// A namespace that the restore would go to and may not.
pub(crate) fn off_limits(restore: &ApplicationRestore, point: &PointFacts) -> Option<Refusal> {
    let own = restore.metadata.namespace.as_deref().unwrap_or_default();
    let wrong = restore.spec.validate_targets(own, &point.sources);
    (!wrong.is_empty()).then(|| Refusal::new("InvalidSpec", join(&wrong)))
}

/// A claim that would be filled in a namespace that the restore does not go to. It cannot be, unless the recovery point was read for
/// another spec; then nothing is begun.
fn stray_claim(restore: &ApplicationRestoreSpec, point: &PointFacts) -> Option<Refusal> {
    let goes = namespaces(restore, &point.sources);
    let (namespace, claim) = point.claims.iter().find(|(namespace, _)| !goes.contains(namespace))?;
    let goes: Vec<&str> = goes.iter().map(String::as_str).collect();
    let message =
        format!("the claim {claim} would be made in {namespace}, and the restore goes to {}", goes.join(", "));
    Some(Refusal::new("InvalidSpec", message))
}

/// Namespaces that a restore goes to.
pub(crate) fn namespaces(restore: &ApplicationRestoreSpec, sources: &[String]) -> BTreeSet<String> {
    sources.iter().map(|source| restore.target(source).to_owned()).collect()
}

/// What a restore has to wait for.
pub(crate) fn waits(
    restore: &ApplicationRestoreSpec,
    age: &Age,
    point: &PointFacts,
    target: &TargetFacts,
) -> Option<String> {
    let ours = namespaces(restore, &point.sources);
    let ending = ours.iter().find(|n| target.namespaces.get(*n) == Some(&NamespaceState::Terminating));
    if let Some(namespace) = ending {
        return Some(format!("waits for the namespace {namespace} to be gone: it is being deleted"));
    }
    admission::first_of(&target.others, age, &ours)
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
    (!missing.is_empty()).then_some(Refusal::new("NamespaceMissing", message))
}

/// Filters that pick nothing: a restore that does nothing must not look like one that did what was wanted.
fn nothing_picked(restore: &ApplicationRestoreSpec, point: &PointFacts) -> Option<Refusal> {
    let nothing = point.inventory.keys().next().is_none() && point.claims.is_empty();
    if restore.include_resources.is_empty() || !nothing {
        return None;
    }
    let message = match point.inventory.left_alone {
        0 => format!(
            "includeResources picks nothing of the recovery point {}; give kinds, names and namespaces as they were where the backup was made",
            point.id
        ),
        count => format!(
            "includeResources picks only objects of cluster scope of the recovery point {} ({count}), which a restore outside of {} leaves \
             alone",
            point.id,
            api::ADMIN_NAMESPACE
        ),
    };
    Some(Refusal::new("NothingPicked", message))
}

fn missing_kinds(point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    let kinds: BTreeMap<(&str, &str, &str), &ObjectKey> =
        point.inventory.keys().map(|key| ((&*key.group, &*key.kind, &*key.version), key)).collect();
    let missing: Vec<String> = kinds.values().filter_map(|key| lacks(key, point, &target.catalog)).collect();
    (!missing.is_empty()).then(|| Refusal::new("KindMissing", missing.join("; ")))
}

/// What the cluster lacks to take an object of that kind at that version, or rewritten to another; nothing if it takes it. A definition that
/// comes along helps only where there is none: one that is there is never changed.
fn lacks(key: &ObjectKey, point: &PointFacts, catalog: &ApiCatalog) -> Option<String> {
    if application::versions::check(catalog, key).is_ok() {
        return None;
    }
    let ObjectKey { group, kind, version, .. } = key;
    if let Some(served) = catalog.get(group, kind) {
        let versions = served.versions.join(", ");
        return (!served.versions.contains(version)).then(|| {
            format!(
                "this cluster serves the kind {kind} of {group} in {versions} only, and the recovery point has it in {version}; install a \
                 release that serves both, or leave it out with includeResources"
            )
        });
    }
    if point.defines.get(&(group.clone(), kind.clone())).is_some_and(|versions| versions.contains(version)) {
        return None;
    }
    Some(match catalog.broken().iter().find(|broken| broken.group == *group) {
        Some(broken) => format!(
            "the kind {kind} of {group} cannot be restored: its API does not answer ({}); repair it",
            broken.reason
        ),
        None => format!(
            "this cluster does not know the kind {kind} of {group} in {version}, and no definition of it is restored; install what defines it, or leave it out with includeResources"
        ),
    })
}

fn missing_classes(restore: &ApplicationRestoreSpec, point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    let mapped = |class: &String| restore.storage_class_mapping.get(class).unwrap_or(class).clone();
    let named = point.classes.iter().map(mapped).chain(point.transformed.classes.iter().cloned());
    let missing: Vec<String> = named.filter(|class| !class.is_empty() && !target.classes.contains(class)).collect();
    let known: Vec<&str> = target.classes.iter().map(String::as_str).collect();
    let message = format!(
        "this cluster has no storage class {}; map it by storageClassMapping to one of: {}",
        missing.join(", "),
        known.join(", ")
    );
    (!missing.is_empty()).then_some(Refusal::new("StorageClassMissing", message))
}

/// Objects that a transformation cannot change.
fn untransformed(point: &PointFacts) -> Option<Refusal> {
    transform_refusal("TransformFailed", "cannot be changed as transformations say", &point.transformed.errors)
}

/// Claims that are for files where the recovery point has an image, or the other way round; a transformation may make them so.
fn misfits(point: &PointFacts) -> Option<Refusal> {
    transform_refusal("VolumeModeDiffers", "cannot take the data that the recovery point has of them", &point.misfits)
}

/// Why a restore does not begin that has these troubles with transformations.
pub(crate) fn transform_refusal(reason: &'static str, what: &str, troubles: &[Missed]) -> Option<Refusal> {
    let named: Vec<String> =
        troubles.iter().take(TROUBLES_NAMED).map(|one| format!("{}: {}", one.item, one.reason)).collect();
    let more = troubles.len().saturating_sub(TROUBLES_NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = || format!("{} objects {what}: {}{more}", troubles.len(), named.join("; "));
    (!troubles.is_empty()).then(|| Refusal::new(reason, message()))
}

fn claims_in_use(restore: &ApplicationRestoreSpec, point: &PointFacts, target: &TargetFacts) -> Option<Refusal> {
    if restore.replace_policy != ReplacePolicy::Delete {
        return None;
    }
    let used = point.claims.iter().filter_map(|claim| target.users.get(claim).map(|pods| (claim, pods)));
    let used: Vec<String> = used.map(|((ns, name), pods)| format!("{ns}/{name} by {}", pods.join(", "))).collect();
    let message = format!("claims that are to be replaced are in use: {}; end these pods first", used.join("; "));
    (!used.is_empty()).then_some(Refusal::new("ClaimInUse", message))
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
