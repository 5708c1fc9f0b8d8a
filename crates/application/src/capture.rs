//! Capturing an application: every object that is wanted, each exactly once, each with an outcome.
//!
//! Objects come in ascending order of their keys (see [`ObjectKey::encode`]), so that tables can be written as they come: first
//! the objects in namespaces, kind by kind, then what these turned out to need from cluster scope.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use futures::{Stream, stream};
use kube::Client;
use serde_json::Value;

use crate::{
    access::Access,
    catalog::{ApiCatalog, Kind},
    clean,
    failure::Failure,
    json,
    key::ObjectKey,
    ledger::{LedgerEntry, Outcome},
    list::Pager,
    needs::{self, Needs},
    owners::Owners,
    retry::Patience,
    rules::{self, Facts, Rule},
    selection::{Selection, SelectionError},
};

/// An object that was wanted, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// The object; [`ObjectKey::ALL_NAMES`] as name stands for all of its kind.
    pub key: ObjectKey,
    /// What became of it.
    pub found: Found,
}

/// What became of an object that was wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Here it is, without what tells this life of it from another.
    Stored(Value),
    /// A rule left it out.
    Skipped(Rule),
    /// It could not be read, for this reason.
    Missed(String),
}

impl Captured {
    /// The line of the ledger.
    pub fn ledger_entry(&self) -> LedgerEntry {
        let outcome = match &self.found {
            Found::Stored(_) => Outcome::Stored,
            Found::Skipped(rule) => Outcome::Skipped { rule: rule.name().to_owned() },
            Found::Missed(reason) => Outcome::Missed { reason: reason.clone() },
        };
        LedgerEntry { key: self.key.clone(), outcome }
    }
}

/// A capture that cannot go on. What only a part of the objects suffers from is in the ledger instead.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The selection cannot be meant.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The API server does not answer.
    #[error("capturing the application: {0}")]
    Unreachable(#[from] Failure),
}

/// A step of a capture, in the order of keys.
enum Task {
    /// An outcome that is known already.
    Give(Captured),
    /// The objects of a kind in a namespace.
    List(Kind, String),
    /// One object of cluster scope, by its name.
    Read(Kind, String),
    /// The objects of a kind of cluster scope that have to do with the application.
    Search(Kind),
}

/// A list under way.
struct Listing {
    kind: Kind,
    /// None in cluster scope.
    namespace: Option<String>,
    pager: Pager,
    page: std::vec::IntoIter<Value>,
}

/// A capture under way.
pub struct Capture {
    access: Access,
    catalog: Arc<ApiCatalog>,
    selection: Selection,
    owners: Owners,
    needs: Needs,
    /// Namespaces that are selected and cannot be captured, with the reason.
    lost_namespaces: BTreeMap<String, String>,
    tasks: VecDeque<Task>,
    listing: Option<Listing>,
    cluster_scope_follows: bool,
}

impl Capture {
    /// Begins a capture; refuses a selection that names what the cluster does not have.
    pub async fn start(
        client: Client,
        catalog: Arc<ApiCatalog>,
        selection: Selection,
        patience: Patience,
    ) -> Result<Self, CaptureError> {
        selection.check(&catalog)?;
        let mut capture = Self {
            access: Access { client, patience },
            catalog,
            selection,
            owners: Owners::default(),
            needs: Needs::default(),
            lost_namespaces: BTreeMap::new(),
            tasks: VecDeque::new(),
            listing: None,
            cluster_scope_follows: true,
        };
        capture.find_namespaces().await?;
        capture.tasks = plan(&capture.catalog, &capture.selection, &capture.needs.namespaces).into();
        Ok(capture)
    }

    /// The next object; none after the last. After an error the capture is over.
    pub async fn next(&mut self) -> Result<Option<Captured>, CaptureError> {
        loop {
            if let Some(captured) = self.next_listed().await? {
                return Ok(Some(captured));
            }
            match self.tasks.pop_front() {
                Some(Task::Give(captured)) => return Ok(Some(captured)),
                Some(Task::Read(kind, name)) => {
                    if let Some(captured) = self.read(&kind, &name).await? {
                        return Ok(Some(captured));
                    }
                }
                Some(Task::List(kind, namespace)) => {
                    let pager = Pager::new(&kind, Some(&namespace), self.selection.label_selector.as_deref());
                    self.listing =
                        Some(Listing { kind, namespace: Some(namespace), pager, page: Vec::new().into_iter() });
                }
                Some(Task::Search(kind)) => {
                    let pager = Pager::new(&kind, None, None);
                    self.listing = Some(Listing { kind, namespace: None, pager, page: Vec::new().into_iter() });
                }
                None if self.cluster_scope_follows => {
                    self.cluster_scope_follows = false;
                    self.tasks = self.cluster_tasks().await?.into();
                }
                None => return Ok(None),
            }
        }
    }

    /// The capture as a stream, which ends after the last object or the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Captured, CaptureError>> {
        stream::unfold(Some(self), |capture| async move {
            let mut capture = capture?;
            match capture.next().await {
                Ok(captured) => captured.map(|captured| (Ok(captured), Some(capture))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Tells selected namespaces that are there from those that are not.
    async fn find_namespaces(&mut self) -> Result<(), Failure> {
        let selected: BTreeSet<String> = self.selection.namespaces.iter().cloned().collect();
        for name in selected {
            let problem = match self.access.get("/api/v1/namespaces", &name).await {
                Ok(None) => Some("there is no such namespace: check its name".to_owned()),
                Ok(Some(namespace)) if rules::is_being_deleted(&namespace) => {
                    Some("the namespace is being deleted".to_owned())
                }
                Ok(Some(_)) => None,
                Err(failure) if failure.was_answered() => Some(failure.reason),
                Err(failure) => return Err(failure),
            };
            match problem {
                Some(reason) => drop(self.lost_namespaces.insert(name, reason)),
                None => drop(self.needs.namespaces.insert(name)),
            }
        }
        Ok(())
    }

    /// The next object of the list under way; none when there is no list, or it is at its end.
    async fn next_listed(&mut self) -> Result<Option<Captured>, Failure> {
        let Some(mut listing) = self.listing.take() else {
            return Ok(None);
        };
        loop {
            if let Some(object) = listing.page.next() {
                let captured = self.judge(&listing, object).await?;
                if captured.is_some() {
                    self.listing = Some(listing);
                    return Ok(captured);
                }
                continue;
            }
            match listing.pager.next(&self.access).await {
                Ok(Some(page)) => listing.page = page.into_iter(),
                Ok(None) => return Ok(None),
                Err(failure) if failure.was_answered() => {
                    let key = listing.kind.key(listing.namespace.as_deref(), ObjectKey::ALL_NAMES);
                    return Ok(Some(Captured { key, found: Found::Missed(format!("listing them: {failure}")) }));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// What becomes of a listed object; none when it is not wanted.
    async fn judge(&mut self, listing: &Listing, object: Value) -> Result<Option<Captured>, Failure> {
        let Some(namespace) = listing.namespace.as_deref() else {
            return Ok(self.judge_of_cluster(&listing.kind, object));
        };
        let key = listing.kind.key(Some(namespace), json::text(&object, &["metadata", "name"]));
        if !self.selection.wants(&listing.kind, namespace, &key.name) {
            return Ok(None);
        }
        let facts = self.facts(&key, namespace, &object).await?;
        if let Some(rule) = rules::for_object(&key, &object, facts) {
            if rule == Rule::DefaultServiceAccount {
                self.needs.note_account(&key);
            }
            return Ok(Some(Captured { key, found: Found::Skipped(rule) }));
        }
        self.needs.note(&key, &object);
        Ok(Some(stored(key, object)))
    }

    /// Finds out what rules have to know besides the object.
    async fn facts(&mut self, key: &ObjectKey, namespace: &str, object: &Value) -> Result<Facts, Failure> {
        let mut facts = Facts::default();
        if rules::is_made_again(key) {
            let Self { owners, access, catalog, selection, .. } = self;
            facts.controller_is_captured =
                owners.controller_is_captured(access, catalog, selection, namespace, object).await?;
        }
        if key.is("", "Endpoints") {
            let path = format!("/api/v1/namespaces/{namespace}/services");
            facts.service_selects_pods = match self.access.get(&path, &key.name).await {
                Ok(service) => service.is_some_and(|service| json::at(&service, &["spec", "selector"]).is_some()),
                Err(failure) if failure.was_answered() => false,
                Err(failure) => return Err(failure),
            };
        }
        Ok(facts)
    }

    /// What becomes of an object of cluster scope that was searched for; none when it has nothing to do with the application.
    fn judge_of_cluster(&self, kind: &Kind, object: Value) -> Option<Captured> {
        let key = kind.key(None, json::text(&object, &["metadata", "name"]));
        let object = match kind.kind.as_str() {
            "ClusterRoleBinding" => self.needs.reduce_binding(object),
            "APIService" => self.needs.serves_api(&object).then_some(object),
            _ => self.needs.reduce_webhooks(object),
        }?;
        Some(stored_of_cluster(key, object))
    }

    /// Reads an object of cluster scope that captured objects name.
    async fn read(&mut self, kind: &Kind, name: &str) -> Result<Option<Captured>, Failure> {
        let key = kind.key(None, name);
        let found = match self.access.get(&kind.path(&kind.version, None), name).await {
            Ok(Some(object)) => return Ok(Some(stored_of_cluster(key, object))),
            // Kinds of a group that are no custom resources are built in, or come from an aggregated API.
            Ok(None) if kind.kind == "CustomResourceDefinition" => return Ok(None),
            Ok(None) => Found::Skipped(Rule::Absent),
            Err(failure) if failure.was_answered() => Found::Missed(format!("reading it: {failure}")),
            Err(failure) => return Err(failure),
        };
        Ok(Some(Captured { key, found }))
    }

    /// The steps in cluster scope, in the order of keys.
    async fn cluster_tasks(&mut self) -> Result<Vec<Task>, Failure> {
        self.find_bound_roles().await?;
        let needs = &self.needs;
        let definitions = needs.custom_kinds.iter().filter_map(|(group, kind)| self.catalog.get(group, kind));
        let definitions: BTreeSet<String> = definitions.map(|kind| format!("{}.{}", kind.plural, kind.group)).collect();
        let read: [(&str, &str, &BTreeSet<String>); 8] = [
            ("", "Namespace", &needs.namespaces),
            ("", "PersistentVolume", &needs.volumes),
            ("apiextensions.k8s.io", "CustomResourceDefinition", &definitions),
            ("networking.k8s.io", "IngressClass", &needs.ingress_classes),
            ("node.k8s.io", "RuntimeClass", &needs.runtime_classes),
            ("rbac.authorization.k8s.io", "ClusterRole", &needs.cluster_roles),
            ("scheduling.k8s.io", "PriorityClass", &needs.priority_classes),
            ("storage.k8s.io", "StorageClass", &needs.storage_classes),
        ];
        let searched = [
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
            ("apiregistration.k8s.io", "APIService"),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ];
        let mut tasks: Vec<(ObjectKey, Task)> = Vec::new();
        for (group, kind, names) in read {
            for name in names {
                let key = cluster_key(group, kind, name);
                tasks.push(match self.catalog.get(group, kind) {
                    Some(kind) => (key, Task::Read(kind.clone(), name.clone())),
                    None => (key.clone(), missed(key, "the cluster does not serve its kind".to_owned())),
                });
            }
        }
        for kind in searched.iter().filter_map(|(group, kind)| self.catalog.get(group, kind)) {
            tasks.push((kind.key(None, ""), Task::Search(kind.clone())));
        }
        for (name, reason) in &self.lost_namespaces {
            let key = cluster_key("", "Namespace", name);
            tasks.push((key.clone(), missed(key, reason.clone())));
        }
        tasks.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(tasks.into_iter().map(|(_, task)| task).collect())
    }

    /// Adds the roles that are bound to captured accounts across the cluster. (What the search cannot see, the task that stores
    /// the bindings reports.)
    async fn find_bound_roles(&mut self) -> Result<(), Failure> {
        let Some(kind) = self.catalog.get("rbac.authorization.k8s.io", "ClusterRoleBinding") else {
            return Ok(());
        };
        let mut pager = Pager::new(kind, None, None);
        loop {
            let page = match pager.next(&self.access).await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(()),
                Err(failure) if failure.was_answered() => return Ok(()),
                Err(failure) => return Err(failure),
            };
            let bound: Vec<_> = page.into_iter().filter_map(|binding| self.needs.reduce_binding(binding)).collect();
            for binding in bound {
                self.needs.cluster_roles.insert(json::text(&binding, &["roleRef", "name"]).to_owned());
            }
        }
    }
}

/// The steps in namespaces, in the order of keys.
fn plan(catalog: &ApiCatalog, selection: &Selection, namespaces: &BTreeSet<String>) -> Vec<Task> {
    let mut tasks: Vec<(ObjectKey, Task)> = Vec::new();
    for kind in catalog.namespaced().filter(|kind| selection.wants_kind(kind)) {
        let rule = rules::for_kind(&kind.group, &kind.kind).or((!kind.creatable).then_some(Rule::Views));
        for namespace in namespaces {
            let key = kind.key(Some(namespace), ObjectKey::ALL_NAMES);
            let task = match rule {
                Some(rule) => Task::Give(Captured { key: key.clone(), found: Found::Skipped(rule) }),
                None => Task::List(kind.clone(), namespace.clone()),
            };
            tasks.push((key, task));
        }
    }
    for (group, reason) in unseen_groups(catalog, selection) {
        for namespace in namespaces {
            let key = ObjectKey {
                namespace: Some(namespace.clone()),
                ..cluster_key(&group, ObjectKey::ALL_KINDS, ObjectKey::ALL_NAMES)
            };
            let found = match rules::for_group(&group) {
                Some(rule) => Found::Skipped(rule),
                None => Found::Missed(reason.clone()),
            };
            tasks.push((key.clone(), Task::Give(Captured { key, found })));
        }
    }
    tasks.sort_by(|(a, _), (b, _)| a.cmp(b));
    tasks.into_iter().map(|(_, task)| task).collect()
}

/// Groups of which something wanted could not be seen, with the reason. Only when all kinds are wanted: kinds that are named
/// were found, or the selection was refused.
fn unseen_groups(catalog: &ApiCatalog, selection: &Selection) -> BTreeMap<String, String> {
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for broken in catalog.broken().iter().filter(|broken| selection.wants_unknown_kinds_of(&broken.group)) {
        let reason = format!("its kinds of version {} could not be discovered: {}", broken.version, broken.reason);
        let reasons = groups.entry(broken.group.clone()).or_default();
        *reasons = if reasons.is_empty() { reason } else { format!("{reasons}; {reason}") };
    }
    groups
}

fn stored(key: ObjectKey, mut object: Value) -> Captured {
    clean::for_storage(&mut object);
    Captured { key, found: Found::Stored(object) }
}

fn stored_of_cluster(key: ObjectKey, object: Value) -> Captured {
    let is_class_or_role = matches!(key.kind.as_str(), "ClusterRole" | "ClusterRoleBinding" | "PriorityClass");
    if is_class_or_role && needs::is_built_in(&object) {
        return Captured { key, found: Found::Skipped(Rule::BuiltIn) };
    }
    stored(key, object)
}

fn missed(key: ObjectKey, reason: String) -> Task {
    Task::Give(Captured { key, found: Found::Missed(reason) })
}

/// The key of something whose version does not matter or is not known.
fn cluster_key(group: &str, kind: &str, name: &str) -> ObjectKey {
    ObjectKey { group: group.into(), version: "v1".into(), kind: kind.into(), namespace: None, name: name.into() }
}
