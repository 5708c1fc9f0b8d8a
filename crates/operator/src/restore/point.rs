//! Reading the recovery point that is restored.
//!
//! All of its objects are read once before anything is made, so that damage is found while nothing has been changed. What is kept of
//! them is their names.

use std::collections::BTreeSet;

use api::{ApplicationBackup, ApplicationRestore, ApplicationRestoreSpec, Missed};
use application::gitops::{self, Kept, Mark};
use application::{LedgerEntry, Mapping, Nameless, ObjectKey, Outcome};
use futures::TryStreamExt;
use kube::{Client, ResourceExt};
use repository::table::Reader;
use repository::{PointId, RecoveryPoint, RootKind};
use serde_json::Value;

use super::inventory::{Inventory, Picking};
use super::prepared;
use super::transformed::Trying;
use super::transforms::Transforms;
use super::validate::{Definitions, PointFacts, Source};
use super::volume::act::manifest;
use super::volume::view::WantedVolume;
use super::workloads::Workloads;
use crate::context::Context;
use crate::error::Error;
use crate::mover_pod::Placement;
use crate::objects;
use crate::repositories::{LocationProblem, Opened};

/// Group and kind under which the ledger has volumes.
const VOLUME_GROUP: &str = "orlop.io";
const VOLUME_KIND: &str = "Volume";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// A recovery point with what a restore wants of it.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) opened: Opened,
    pub(super) document: RecoveryPoint,
    pub(super) facts: PointFacts,
    /// In the order of their names; the status has them in the same order.
    pub(super) volumes: Vec<WantedVolume>,
    pub(super) mapping: Mapping,
    pub(super) transforms: Transforms,
}

impl Point {
    /// The key of an object at the target.
    pub(super) fn at_target(&self, key: &ObjectKey) -> ObjectKey {
        let namespace = key.namespace.as_deref().map(|namespace| self.mapping.namespace(namespace).to_owned());
        ObjectKey { namespace, ..key.clone() }
    }
}

/// What a ledger says is not there.
#[derive(Default)]
struct Holes {
    first: Vec<Missed>,
    volumes: Vec<(String, String, String)>,
}

/// Looks for the recovery point of a restore, and reads it. The outer error is to be tried again, the inner says how far it came.
///
/// # Errors
/// The API server did not answer.
pub(super) async fn find(
    context: &Context,
    restore: &ApplicationRestore,
    transforms: Transforms,
) -> Result<Result<Point, Source>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let name = match wanted(&context.client, &namespace, &restore.spec).await? {
        Ok(name) => name,
        Err(source) => return Ok(Err(source)),
    };
    let location = &restore.spec.backup_location;
    match context.repositories.open_named(&context.client, &namespace, location).await? {
        Ok(opened) => Ok(read(context, restore, transforms, opened, &name).await),
        Err(problem) => Ok(Err(unusable(problem))),
    }
}

/// The name of the recovery point.
async fn wanted(
    client: &Client,
    namespace: &str,
    spec: &ApplicationRestoreSpec,
) -> Result<Result<String, Source>, Error> {
    if let Some(name) = &spec.recovery_point {
        return Ok(Ok(name.clone()));
    }
    let name = spec.backup_name.clone().unwrap_or_default();
    let Some(backup) = objects::read::<ApplicationBackup>(client, namespace, &name).await? else {
        return Ok(Err(Source::NoBackup));
    };
    let status = backup.status.unwrap_or_default();
    Ok(match status.recovery_point {
        Some(point) => Ok(point),
        None if status.phase.is_final() => Err(Source::BackupWithoutPoint(status.message.unwrap_or_default())),
        None => Err(Source::BackupRuns),
    })
}

fn unusable(problem: LocationProblem) -> Source {
    Source::NoLocation { reason: problem.reason(), message: problem.to_string(), may_pass: problem.may_pass() }
}

async fn read(
    context: &Context,
    restore: &ApplicationRestore,
    transforms: Transforms,
    opened: Opened,
    name: &str,
) -> Result<Point, Source> {
    let Ok(id) = name.parse::<PointId>() else { return Err(unknown(&opened, name).await) };
    let document = match opened.repository.point(&id).await {
        Ok(document) => document,
        Err(repository::Error::NoSuchPoint { .. }) => return Err(unknown(&opened, name).await),
        Err(error) => return Err(unusable(error.into())),
    };
    if let repository::Source::Paths { host } = &document.source {
        let message =
            format!("the recovery point {name} is of folders of {host}, and not of an application; see `orlop repo`");
        return Err(Source::NoLocation { reason: "NotAnApplication", message, may_pass: false });
    }
    let contents = contents(restore, &transforms, &opened, &document, context.limits().missed_items).await;
    let (facts, volumes, mapping) = contents.map_err(|error| unusable(error.into()))?;
    Ok(Point { opened, document, facts, volumes, mapping, transforms })
}

async fn unknown(opened: &Opened, name: &str) -> Source {
    match opened.repository.points().await {
        Ok(entries) => {
            let known = entries.iter().map(|e| e.id.to_string()).collect();
            Source::NoPoint { id: name.to_owned(), known }
        }
        Err(error) => unusable(error.into()),
    }
}

async fn contents(
    restore: &ApplicationRestore,
    transforms: &Transforms,
    opened: &Opened,
    document: &RecoveryPoint,
    missed_items: usize,
) -> Result<(PointFacts, Vec<WantedVolume>, Mapping), repository::Error> {
    let spec = &restore.spec;
    let mapping =
        Mapping { namespaces: spec.namespace_mapping.clone(), storage_classes: spec.storage_class_mapping.clone() };
    let holes = if document.complete { Holes::default() } else { holes(opened, document, missed_items).await? };
    let mut picking = Picking {
        filters: &spec.include_resources,
        filled: BTreeSet::new(),
        own_namespace_only: restore.namespace().as_deref() != Some(api::ADMIN_NAMESPACE),
    };
    let mut trying = Trying::new(transforms, &mapping, prepared::options(spec));
    let mut volumes = volumes(document, &holes, &picking, &mapping);
    for wanted in volumes.iter_mut().filter(|wanted| wanted.source.is_ok()) {
        wanted.changes = trying.claim(&mut wanted.manifest);
    }
    picking.filled = volumes.iter().map(|v| v.source_name.clone()).collect();
    for (namespace, claim) in &picking.filled {
        check_namespace(document, Some(namespace), claim)?;
        check_name(claim)?;
    }
    let mut survey = survey(opened, document, &picking, &mut trying).await?;
    survey.workloads.place(&mut volumes);
    for wanted in volumes.iter().filter(|wanted| wanted.source.is_ok()) {
        if wanted.changes.is_empty() {
            survey.classes.extend(class_of(&wanted.stored));
        } else {
            class_of(&wanted.manifest).into_iter().for_each(|class| trying.class(class));
        }
    }
    let inventory = Inventory::pick(survey.keys, &picking);
    let kept = kept(survey.marks, &inventory, &volumes, &mapping);
    let facts = PointFacts {
        id: document.id.to_string(),
        complete: document.complete,
        sources: source_namespaces(document).to_vec(),
        missed: holes.first,
        defines: survey.defines,
        classes: survey.classes,
        transformed: trying.finish(&inventory),
        kept,
        inventory,
        claims: volumes.iter().map(|v| (v.namespace.clone(), v.claim.clone())).collect(),
        misfits: volumes.iter().filter_map(misfit).collect(),
    };
    Ok((facts, volumes, mapping))
}

/// A claim that would not take what the recovery point has for it.
fn misfit(wanted: &WantedVolume) -> Option<Missed> {
    let reason = wanted.misfit()?;
    Some(Missed { item: format!("PersistentVolumeClaim {}/{}", wanted.namespace, wanted.claim), reason })
}

/// What is made, as those know it who keep it.
fn kept(marks: BTreeSet<Mark>, inventory: &Inventory, volumes: &[WantedVolume], mapping: &Mapping) -> Kept {
    let mut kept = Kept::default();
    kept.marks = marks;
    for key in inventory.keys() {
        let namespace = key.namespace.as_deref().map(|namespace| mapping.namespace(namespace).to_owned());
        kept.add(&ObjectKey { namespace, ..key.clone() });
    }
    for wanted in volumes {
        ObjectKey::of(&wanted.manifest).into_iter().for_each(|key| kept.add(&key));
        kept.marks.extend(gitops::mark(&wanted.manifest));
    }
    kept
}

fn source_namespaces(document: &RecoveryPoint) -> &[String] {
    match &document.source {
        repository::Source::Application { namespaces, .. } => namespaces,
        repository::Source::Paths { .. } => &[],
    }
}

/// What the ledger has as missed.
async fn holes(opened: &Opened, document: &RecoveryPoint, most: usize) -> Result<Holes, repository::Error> {
    let mut holes = Holes::default();
    let Some(ledger) = document.ledger else { return Ok(holes) };
    let mut entries = std::pin::pin!(Reader::new(&opened.repository, ledger).scan(&[]));
    while let Some((key, value)) = entries.try_next().await? {
        let entry = LedgerEntry::decode(&key, &value).map_err(|error| damaged("ledger", &error))?;
        let Outcome::Missed { reason } = entry.outcome else { continue };
        if holes.first.len() < most {
            holes.first.push(Missed { item: entry.key.to_string(), reason: reason.clone() });
        }
        if entry.key.is(VOLUME_GROUP, VOLUME_KIND) {
            holes.volumes.push((entry.key.namespace.unwrap_or_default(), entry.key.name, reason));
        }
    }
    Ok(holes)
}

fn damaged(part: &str, error: &dyn std::error::Error) -> repository::Error {
    wrong(part, error.to_string())
}

fn wrong(part: &str, what: String) -> repository::Error {
    repository::Error::Damaged { object: format!("the {part} of the recovery point"), what }
}

/// The picked volumes: those that are there, and those that should be.
fn volumes(document: &RecoveryPoint, holes: &Holes, picking: &Picking<'_>, mapping: &Mapping) -> Vec<WantedVolume> {
    let there = document.roots.iter().filter_map(|root| {
        let claim = root.claim.as_ref()?;
        let source = match root.kind {
            RootKind::Tree | RootKind::Volume => Ok(root.clone()),
            RootKind::Stream => {
                let why = "it is stored as a stream, and neither as files nor as an image: orlop repo restore writes it into a file";
                Err(why.to_owned())
            }
        };
        Some((claim.namespace.clone(), claim.name.clone(), claim.object.clone(), source))
    });
    let missed = holes.volumes.iter().map(|(namespace, claim, reason)| {
        let why = format!(
            "the recovery point does not have its data: {reason}; make the claim yourself and restore again with replacePolicy Retain"
        );
        (namespace.clone(), claim.clone(), Value::Null, Err(why))
    });
    let mut all: Vec<_> = there.chain(missed).filter(|(ns, claim, ..)| picking.takes_volume(ns, claim)).collect();
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    all.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    let wanted = all.into_iter().map(|(namespace, claim, stored, source)| {
        let made = made_of(&stored, &namespace, &claim, mapping);
        let (manifest, source) = match (made, source) {
            (Ok(manifest), source) => (manifest, source),
            (Err(_), Err(why)) | (Err(why), Ok(_)) => (Value::Null, Err(why)),
        };
        WantedVolume {
            namespace: mapping.namespace(&namespace).to_owned(),
            claim: claim.clone(),
            source_name: (namespace, claim),
            manifest,
            changes: Vec::new(),
            stored,
            source,
            placement: Placement::default(),
            beside: Vec::new(),
        }
    });
    wanted.collect()
}

/// A claim as it is to be made. One that does not say what it is, or is another than its data is said to be of, cannot be made, and is missed by that: by the
/// latter it was decided whether the restore may make it.
fn made_of(stored: &Value, namespace: &str, claim: &str, mapping: &Mapping) -> Result<Value, String> {
    let bad = |error: Nameless| format!("the recovery point's claim: {error}");
    let made = manifest(stored, mapping).map_err(bad)?;
    let key = ObjectKey::of(&made).map_err(bad)?;
    if key.namespace.as_deref() == Some(mapping.namespace(namespace)) && key.name == claim {
        return Ok(made);
    }
    let is = format!("{}/{}", stored["metadata"]["namespace"].as_str().unwrap_or_default(), key.name);
    Err(format!(
        "the recovery point has the claim {is} where that of {namespace}/{claim} should be; it was not made by Orlop, or is damaged"
    ))
}

/// What the objects of a recovery point amount to.
#[derive(Default)]
struct Survey {
    keys: Vec<ObjectKey>,
    defines: Definitions,
    classes: BTreeSet<String>,
    workloads: Workloads,
    /// What tools have written on the picked objects.
    marks: BTreeSet<Mark>,
}

/// Reads every object once.
async fn survey(
    opened: &Opened,
    document: &RecoveryPoint,
    picking: &Picking<'_>,
    trying: &mut Trying<'_>,
) -> Result<Survey, repository::Error> {
    let mut survey = Survey::default();
    let Some(objects) = document.objects else { return Ok(survey) };
    let mut entries = std::pin::pin!(Reader::new(&opened.repository, objects).scan(&[]));
    while let Some((key, value)) = entries.try_next().await? {
        let (key, object) = decode(&key, &value)?;
        check_namespace(document, key.namespace.as_deref(), &key)?;
        let changed = trying.object(&key, &object);
        let classes = survey.note(key, changed.as_ref().unwrap_or(&object), picking);
        match changed {
            Some(_) => classes.into_iter().for_each(|class| trying.class(class)),
            None => survey.classes.extend(classes),
        }
    }
    Ok(survey)
}

/// An object of the table of objects. It must be what its key says: by the key it was decided whether it may be made.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(ObjectKey, Value), repository::Error> {
    let object: Value = serde_json::from_slice(value).map_err(|error| damaged("table of objects", &error))?;
    let named = named(ObjectKey::of(&object))?;
    check_name(&named.name)?;
    if named.encode() == key {
        return Ok((named, object));
    }
    let key = String::from_utf8_lossy(key).replace('\0', " ");
    Err(wrong("table of objects", format!("{named} stands under the key {key:?}")))
}

/// What an object says that it is.
pub(super) fn named(key: Result<ObjectKey, Nameless>) -> Result<ObjectKey, repository::Error> {
    key.map_err(|error| damaged("table of objects", &error))
}

/// Refuses a name that would be more than one part of the path of a request. No API server lets an object have one, so nothing that has one was backed up.
fn check_name(name: &str) -> Result<(), repository::Error> {
    if matches!(name, "." | "..") || name.contains(['/', '%', '?', '#']) {
        return Err(wrong("document", format!("{name:?} cannot be the name of an object")));
    }
    Ok(())
}

/// Refuses what is of a namespace that the recovery point does not say it is of: where a restore goes was checked by what it says, so
/// anything else would be made where its creator may not.
fn check_namespace(
    document: &RecoveryPoint,
    namespace: Option<&str>,
    what: &dyn std::fmt::Display,
) -> Result<(), repository::Error> {
    let sources = source_namespaces(document);
    match namespace.filter(|namespace| !sources.iter().any(|source| source == namespace)) {
        None => Ok(()),
        Some(namespace) => {
            let sources = sources.join(", ");
            Err(wrong("document", format!("it is of {sources}, and has {what} of the namespace {namespace}")))
        }
    }
}

/// Refuses an object that would be made in a namespace, or as one, that the restore does not go to. Nothing should come this far: whoever
/// may restore into a namespace was decided by the spec, so what does not follow from it must not be made.
pub(super) fn check_target(namespaces: &BTreeSet<String>, key: &ObjectKey) -> Result<(), repository::Error> {
    let namespace = if key.is("", "Namespace") { Some(&key.name) } else { key.namespace.as_ref() };
    match namespace.filter(|namespace| !namespaces.contains(*namespace)) {
        None => Ok(()),
        Some(namespace) => {
            let goes: Vec<&str> = namespaces.iter().map(String::as_str).collect();
            let goes = goes.join(", ");
            Err(wrong(
                "table of objects",
                format!("{key} would be made in {namespace}, and the restore goes to {goes}"),
            ))
        }
    }
}

impl Survey {
    /// Notes an object, changed by transformations or not. The storage classes that it names, if it is picked.
    fn note(&mut self, key: ObjectKey, object: &Value, picking: &Picking<'_>) -> Vec<String> {
        let mut classes = Vec::new();
        if key.is("apiextensions.k8s.io", "CustomResourceDefinition") && !picking.own_namespace_only {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let kind = (text(&object["spec"]["group"]), text(&object["spec"]["names"]["kind"]));
            self.defines.entry(kind).or_default().extend(served_versions(object));
        }
        // Whether it is picked or not: what is restored today may be mounted by what is restored tomorrow.
        self.workloads.note(&key, object);
        if picking.takes(&key) {
            self.marks.extend(gitops::mark(object));
            let templates = object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
            classes.extend(templates.filter_map(class_of));
            if key.is("", "PersistentVolumeClaim") {
                classes.extend(class_of(object));
            }
        }
        self.keys.push(key);
        classes
    }
}

/// The versions that a definition serves. Old ones may name a single version, in a field of its own.
fn served_versions(definition: &Value) -> Vec<String> {
    let spec = &definition["spec"];
    let listed = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] != false);
    let listed = listed.filter_map(|version| version["name"].as_str());
    listed.chain(spec["version"].as_str()).map(Into::into).collect()
}

/// The class that a claim names: the empty one where it says that it has none, which can be mapped to another.
fn class_of(claim: &Value) -> Option<String> {
    let annotated = &claim["metadata"]["annotations"][CLASS_ANNOTATION];
    claim["spec"]["storageClassName"].as_str().or(annotated.as_str()).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use repository::Stats;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_must_be_what_its_key_says() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "a"}});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "all"},
        });
        let key = |object: &Value| ObjectKey::of(object).expect("the test's object has a name").encode();
        assert!(decode(&key(&map), map.to_string().as_bytes()).is_ok());
        let error = decode(&key(&map), role.to_string().as_bytes()).expect_err("another object");
        assert!(error.to_string().contains("ClusterRole") && error.to_string().contains("ConfigMap"), "{error}");
        assert!(decode(&key(&map), b"{").is_err());
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for good in ["data", "kube-root-ca.crt", "system:node", "a.b..c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["..", ".", "a/status", "../../kube-system/secrets/a", "a?dryRun=All", "%2e%2e", "a#b"] {
            assert!(check_name(bad).is_err(), "{bad}");
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": bad}});
            let key = ObjectKey::of(&map).expect("it has a name").encode();
            assert!(decode(&key, map.to_string().as_bytes()).is_err(), "{bad}");
        }
    }

    /// A recovery point of the namespace `shop`.
    fn document(roots: Vec<repository::Root>) -> RecoveryPoint {
        RecoveryPoint {
            version: RecoveryPoint::VERSION,
            id: "p".parse().expect("a name"),
            created: jiff::Timestamp::UNIX_EPOCH,
            source: repository::Source::Application {
                cluster_id: String::new(),
                cluster_name: None,
                backup: String::new(),
                namespaces: vec!["shop".into()],
            },
            tags: repository::Tags::default(),
            complete: true,
            objects: None,
            ledger: None,
            roots,
            sessions: Vec::new(),
            packs: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// The data of the claim `shop/data`, as files.
    fn root(object: Value) -> repository::Root {
        let bytes = [1; repository::TableRef::LEN];
        repository::Root {
            name: "shop/data".into(),
            kind: RootKind::Tree,
            table: repository::TableRef::decode(&mut repository::Fields::new(&bytes)).expect("a table"),
            files: 0,
            bytes: 0,
            changed_while_read: 0,
            started: jiff::Timestamp::UNIX_EPOCH,
            finished: jiff::Timestamp::UNIX_EPOCH,
            claim: Some(repository::Claim { namespace: "shop".into(), name: "data".into(), object }),
        }
    }

    #[test]
    fn a_point_has_nothing_of_other_namespaces() {
        let document = document(Vec::new());
        assert!(check_namespace(&document, Some("shop"), &"x").is_ok());
        assert!(check_namespace(&document, None, &"x").is_ok());
        let error = check_namespace(&document, Some("kube-system"), &"x").expect_err("another namespace");
        assert!(error.to_string().contains("kube-system"), "{error}");
    }

    #[test]
    fn a_claim_is_what_its_data_is_said_to_be_of() {
        let mapping = Mapping { namespaces: [("shop".to_owned(), "team".to_owned())].into(), ..Mapping::default() };
        let check = |namespace: &str, name: &str, good: bool| {
            let object =
                json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"accessModes": ["ReadWriteOnce"]}});
            let wanted = volumes(&document(vec![root(object)]), &Holes::default(), &Picking::default(), &mapping);
            assert_eq!((wanted[0].namespace.as_str(), wanted[0].claim.as_str()), ("team", "data"));
            assert_eq!(wanted[0].source.is_ok(), good, "{namespace}/{name}: {:?}", wanted[0].source);
            assert_eq!(wanted[0].manifest.is_null(), !good, "{}", wanted[0].manifest);
        };
        check("shop", "data", true);
        check("kube-system", "data", false);
        check("shop", "other", false);
        check("", "data", false);
    }

    #[test]
    fn an_image_goes_onto_a_device_and_files_do_not() {
        let check = |kind: RootKind, mode: Option<&str>, said: &str| {
            let object = json!({"metadata": {"namespace": "shop", "name": "data"}, "spec": {"volumeMode": mode}});
            let root = repository::Root { kind, ..root(object) };
            let wanted = volumes(&document(vec![root]), &Holes::default(), &Picking::default(), &Mapping::default());
            assert_eq!(wanted[0].is_image(), kind == RootKind::Volume);
            let misfit = misfit(&wanted[0]).map(|misfit| misfit.reason).unwrap_or_default();
            assert!(misfit.contains(said) && misfit.is_empty() == said.is_empty(), "{kind:?} {mode:?}: {misfit}");
        };
        for files in [None, Some("Filesystem")] {
            check(RootKind::Tree, files, "");
            check(RootKind::Volume, files, "has an image of a block device");
        }
        check(RootKind::Volume, Some("Block"), "");
        check(RootKind::Tree, Some("Block"), "has files");
        // What cannot be filled at all is said elsewhere.
        check(RootKind::Stream, Some("Block"), "");
    }

    #[test]
    fn nothing_is_made_where_the_restore_does_not_go() {
        let goes = BTreeSet::from(["shop2".to_owned()]);
        let check = |kind: &str, namespace: Option<&str>, name: &str, good: bool| {
            let key = ObjectKey {
                group: String::new(),
                version: "v1".into(),
                kind: kind.into(),
                namespace: namespace.map(Into::into),
                name: name.into(),
            };
            assert_eq!(check_target(&goes, &key).is_ok(), good, "{key}");
        };
        check("ConfigMap", Some("shop2"), "a", true);
        check("ConfigMap", Some("kube-system"), "a", false);
        check("Namespace", None, "shop2", true);
        check("Namespace", None, "kube-system", false);
        check("PersistentVolume", None, "a", true);
    }

    #[test]
    fn the_class_of_a_claim_may_stand_in_an_annotation() {
        let check = |claim: Value, class: Option<&str>| assert_eq!(class_of(&claim).as_deref(), class, "{claim}");
        check(json!({"spec": {"storageClassName": "gold"}}), Some("gold"));
        check(json!({"metadata": {"annotations": {CLASS_ANNOTATION: "old"}}}), Some("old"));
        check(json!({"spec": {"storageClassName": ""}}), Some(""));
        check(json!({"spec": {}}), None);
    }

    #[test]
    fn a_claim_that_is_filled_is_known_to_who_keeps_it() {
        let marked = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "shop", "labels": {"argocd.argoproj.io/instance": "web"}}});
        let wanted = WantedVolume {
            source_name: ("shop".into(), "data".into()),
            namespace: "shop".into(),
            claim: "data".into(),
            stored: Value::Null,
            manifest: marked,
            changes: Vec::new(),
            source: Err(String::new()),
            placement: Placement::default(),
            beside: Vec::new(),
        };
        let kept = kept(BTreeSet::new(), &Inventory::default(), &[wanted], &Mapping::default());
        assert_eq!(kept.marks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Argo CD application web"]);
    }
}
