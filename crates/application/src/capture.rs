//! Capturing an application: every object that is wanted, each exactly once, each with an outcome.
//!
//! Objects come in ascending order of their keys (see [`ObjectKey::encode`]), so that tables can be written as they come: first
//! the objects in namespaces, kind by kind, then what these turned out to need from cluster scope.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use futures::{Stream, stream};
use kube::{Client, api::ListParams};
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
    roles::Roles,
    rules::{self, Facts, Rule},
    selection::{Selection, SelectionError},
    tasks::{self, Task},
};

const RBAC: &str = "rbac.authorization.k8s.io";

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
        capture.check_labels().await?;
        capture.find_namespaces().await?;
        capture.tasks = tasks::in_namespaces(&capture.catalog, &capture.selection, &capture.needs.namespaces);
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
                    self.find_bound_roles().await?;
                    self.find_parts_of_roles().await?;
                    self.tasks = tasks::in_cluster(&self.catalog, &self.needs, &self.lost_namespaces);
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

    /// Has the server check the label selector, whose syntax is its own; else every single list would be missed.
    async fn check_labels(&self) -> Result<(), CaptureError> {
        let Some(value) = self.selection.label_selector.clone() else { return Ok(()) };
        let params = ListParams { label_selector: Some(value.clone()), limit: Some(1), ..ListParams::default() };
        match self.access.page("/api/v1/namespaces", &params).await {
            Err(failure) if failure.code == Some(400) => {
                Err(SelectionError::BadLabels { value, reason: failure.reason }.into())
            }
            Err(failure) if !failure.was_answered() => Err(failure.into()),
            _ => Ok(()), // Whether namespaces may be listed does not matter here.
        }
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
            match rule {
                Rule::DefaultServiceAccount => self.needs.note_account(&key),
                // It will be there again, and needs then what it needs now.
                Rule::OwnedAndRecreated => self.needs.note(&key, &object),
                _ => {}
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

    /// Adds the roles that are bound to captured accounts across the cluster. (What the search cannot see, the task that stores
    /// the bindings reports.)
    async fn find_bound_roles(&mut self) -> Result<(), Failure> {
        let Some(kind) = self.catalog.get(RBAC, "ClusterRoleBinding") else {
            return Ok(());
        };
        let mut bound = Vec::new();
        let note = |binding| {
            let binding = self.needs.reduce_binding(binding);
            bound.extend(binding.map(|binding| json::text(&binding, &["roleRef", "name"]).to_owned()));
        };
        self.access.each(kind, note).await?;
        self.needs.cluster_roles.extend(bound);
        Ok(())
    }

    /// Adds the roles that bound roles are put together from: without them a bound role would have no rules in another cluster.
    async fn find_parts_of_roles(&mut self) -> Result<(), Failure> {
        let Some(kind) = self.catalog.get(RBAC, "ClusterRole").filter(|_| !self.needs.cluster_roles.is_empty()) else {
            return Ok(());
        };
        let mut roles = Roles::default();
        let note = |role: Value| roles.add(&kind.key(None, json::text(&role, &["metadata", "name"])), &role);
        self.needs.unseen_roles = self.access.each(kind, note).await?.map(|failure| failure.reason);
        let parts = roles.parts_of(&self.needs.cluster_roles);
        self.needs.cluster_roles.extend(parts);
        Ok(())
    }
}

fn stored(key: ObjectKey, mut object: Value) -> Captured {
    clean::for_storage(&mut object);
    Captured { key, found: Found::Stored(object) }
}

fn stored_of_cluster(key: ObjectKey, object: Value) -> Captured {
    if needs::is_built_in(&key, &object) {
        return Captured { key, found: Found::Skipped(Rule::BuiltIn) };
    }
    stored(key, object)
}
