//! Objects of any kind: whether the server takes them, applying them, taking them away.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, Status};
use kube::discovery::{self, Scope};
use kube::{Api, ResourceExt};

use super::manifests::kind;
use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// By this name the server knows what is ours in an object.
const MANAGER: &str = "orlop-install";
/// What every object of ours has.
const LABEL: &str = "app.kubernetes.io/name";

/// What the server says to an object before it is applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It would be applied.
    Taken,
    /// Nothing: the namespace is not there yet.
    Unchecked,
    /// Somebody else has set its fields to something else.
    Conflicts(String),
}

/// Objects of any kind of a cluster.
pub(crate) struct Objects<'a> {
    cluster: &'a Cluster,
    kinds: BTreeMap<String, Option<(kube::core::ApiResource, Scope)>>,
}

impl<'a> Objects<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Self {
        Self { cluster, kinds: BTreeMap::new() }
    }

    /// Where an object goes; nowhere if the server does not know its kind.
    async fn place(&mut self, object: &DynamicObject) -> Result<Option<Api<DynamicObject>>> {
        let types = object.types.clone().ok_or_else(|| Error::new("read a manifest: it has no kind"))?;
        let key = format!("{} {}", types.api_version, types.kind);
        if !self.kinds.contains_key(&key) {
            let found = self.look_up(&types).await?;
            self.kinds.insert(key.clone(), found);
        }
        let client = self.cluster.client();
        let found = self.kinds.get(&key).and_then(Option::as_ref);
        Ok(found.map(|(resource, scope)| match (scope, object.namespace()) {
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client, &namespace, resource),
            _ => Api::all_with(client, resource),
        }))
    }

    async fn look_up(&self, types: &kube::core::TypeMeta) -> Result<Option<(kube::core::ApiResource, Scope)>> {
        let what = || format!("look for the kind {}", types.kind);
        let gvk = GroupVersionKind::try_from(types).map_err(|e| Error::new(what()).because(e))?;
        match discovery::pinned_kind(&self.cluster.client(), &gvk).await {
            Ok((resource, capabilities)) => Ok(Some((resource, capabilities.scope))),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.cluster.explain(what(), error)),
        }
    }

    /// Has the server say what it would do, and do nothing.
    pub(crate) async fn attempt(&mut self, object: &DynamicObject, force: bool) -> Result<Attempt> {
        match self.send(object, &PatchParams { dry_run: true, force, ..PatchParams::apply(MANAGER) }).await? {
            Ok(()) => Ok(Attempt::Taken),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Attempt::Conflicts(format!("{}: {}", name(object), status.message)))
            }
            // Its namespace is applied before it, which a dry run does not make.
            Err(kube::Error::Api(status)) if lacks_namespace(&status) => Ok(Attempt::Unchecked),
            Err(error) => Err(self.cluster.explain(format!("try {}", name(object)), error)),
        }
    }

    /// Applies one.
    pub(crate) async fn apply(&mut self, object: &DynamicObject, force: bool) -> Result<()> {
        let params = PatchParams { force, ..PatchParams::apply(MANAGER) };
        let sent = self.send(object, &params).await?;
        sent.map_err(|e| self.cluster.explain(format!("apply {}", name(object)), e))
    }

    async fn send(&mut self, object: &DynamicObject, params: &PatchParams) -> Result<kube::Result<()>> {
        let Some(api) = self.place(object).await? else {
            let says = format!("apply {}: the cluster does not know the kind {}", name(object), kind(object));
            return Err(Error::new(says).next("for --monitoring, install the operator of Prometheus first"));
        };
        Ok(api.patch(&object.name_any(), params, &Patch::Apply(object)).await.map(drop))
    }

    /// What there is of an object, if it is one of ours.
    pub(crate) async fn find(&mut self, object: &DynamicObject) -> Result<Option<DynamicObject>> {
        let Some(api) = self.place(object).await? else { return Ok(None) };
        let found = api.get_opt(&object.name_any()).await;
        let found = found.map_err(|e| self.cluster.explain(format!("read {}", name(object)), e))?;
        Ok(found.filter(|found| found.labels().contains_key(LABEL)))
    }

    /// Has one deleted; what it owns goes after it.
    pub(crate) async fn delete(&mut self, object: &DynamicObject) -> Result<()> {
        let Some(api) = self.place(object).await? else { return Ok(()) };
        match api.delete(&object.name_any(), &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).map_err(|e| self.cluster.explain(format!("delete {}", name(object)), e)),
        }
    }
}

fn lacks_namespace(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

/// As `kubectl` names an object.
pub(crate) fn name(object: &DynamicObject) -> String {
    let group = object.types.as_ref().and_then(|types| Some(types.api_version.split_once('/')?.0.to_owned()));
    let kind = kind(object).to_lowercase();
    match group {
        Some(group) => format!("{kind}.{group}/{}", object.name_any()),
        None => format!("{kind}/{}", object.name_any()),
    }
}
