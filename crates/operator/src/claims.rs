//! What runs look at in the claims of an application before they touch their data.

use std::collections::{BTreeMap, BTreeSet};

use application::{Patience, Selection, SelectionError};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::error::{During, Error};
use crate::mover_pod;
use crate::objects;
use crate::snapshots;

/// On a claim whose class waits for a pod: the node that its volume is made for. A scheduler writes it.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// What matters of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It names a volume, which it does from the moment that one is chosen for it, before its phase says so.
    pub bound: bool,
    /// The volume that it had is gone.
    pub lost: bool,
    /// Its volume is a block device without a file system.
    pub block: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its storage class.
    pub storage_class: String,
    /// The CSI driver of its volume, if that was asked for and it has one.
    pub driver: Option<String>,
    /// Its volume, by name.
    pub volume: Option<String>,
}

/// The claims that are selected, in the order of their names.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn selected(
    client: &Client,
    selection: &Selection,
) -> Result<Result<Vec<ClaimFacts>, SelectionError>, Error> {
    let catalog = application::discover(client, &Patience::default()).await;
    let catalog = catalog.map_err(|failure| Error::Application {
        doing: "discover the kinds of the cluster".into(),
        source: Box::new(failure),
    })?;
    if let Err(error) = selection.check(&catalog) {
        return Ok(Err(error));
    }
    let Some(kind) = catalog.get("", "PersistentVolumeClaim").filter(|kind| selection.wants_kind(kind)) else {
        return Ok(Ok(Vec::new()));
    };
    let mut wanted = Vec::new();
    let params = ListParams { label_selector: selection.label_selector.clone(), ..ListParams::default() };
    for namespace in &selection.namespaces {
        let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        let list = api.list(&params).await.during(|| format!("list the claims of the namespace {namespace}"))?;
        let of_runs = |claim: &PersistentVolumeClaim| claim.labels().contains_key(api::RUN_LABEL);
        let claims = list.items.into_iter().filter(|c| !of_runs(c) && !is_of_a_pod(c));
        wanted.extend(claims.filter(|c| selection.wants(kind, namespace, &c.name_any())).map(|c| claim_facts(&c)));
    }
    wanted.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(Ok(wanted))
}

/// Whether a claim is made for one pod and goes with it (a generic ephemeral volume). Its data is meant to go with it, too; the pod that
/// takes its place gets an empty one.
fn is_of_a_pod(claim: &PersistentVolumeClaim) -> bool {
    let is_pod =
        |owner: &OwnerReference| owner.controller == Some(true) && owner.kind == "Pod" && owner.api_version == "v1";
    claim.owner_references().iter().any(is_pod)
}

fn claim_facts(claim: &PersistentVolumeClaim) -> ClaimFacts {
    let spec = claim.spec.clone().unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    ClaimFacts {
        namespace: claim.namespace().unwrap_or_default(),
        name: claim.name_any(),
        bound: spec.volume_name.as_ref().is_some_and(|name| !name.is_empty()),
        lost: phase == Some("Lost"),
        block: spec.volume_mode.as_deref() == Some("Block"),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        labels: claim.labels().clone(),
        storage_class: spec.storage_class_name.unwrap_or_default(),
        driver: None,
        volume: spec.volume_name.filter(|name| !name.is_empty()),
    }
}

/// Finds out whose the volumes of claims are.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn with_drivers(client: &Client, mut claims: Vec<ClaimFacts>) -> Result<Vec<ClaimFacts>, Error> {
    let volumes = Api::<PersistentVolume>::all(client.clone());
    for claim in &mut claims {
        let Some(name) = &claim.volume else { continue };
        let volume = volumes.get_opt(name).await.during(|| format!("read the PersistentVolume {name}"))?;
        claim.driver = volume.as_ref().and_then(|volume| snapshots::driver(volume)).map(ToOwned::to_owned);
    }
    Ok(claims)
}

/// Whether a storage class makes volumes only for a node that was chosen; nothing if there is no such class.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn waits_for_a_node(client: &Client, class: &str) -> Result<Option<bool>, Error> {
    if class.is_empty() {
        return Ok(None);
    }
    let found = Api::<StorageClass>::all(client.clone()).get_opt(class).await;
    let found = found.during(|| format!("read the storage class {class}"))?;
    Ok(found.map(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")))
}

/// The node that a volume like that of a claim is made for, if its class wants to be told one: where its pod runs, or else where the scheduler once put the claim.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn place(client: &Client, namespace: &str, claim: &str) -> Result<Option<String>, Error> {
    if let Some(node) = node_of(client, namespace, claim).await? {
        return Ok(Some(node));
    }
    let claim = objects::read::<PersistentVolumeClaim>(client, namespace, claim).await?;
    let Some(name) = claim.and_then(|claim| claim.annotations().get(SELECTED_NODE).cloned()) else { return Ok(None) };
    let node = Api::<Node>::all(client.clone()).get_opt(&name).await.during(|| format!("read the node {name}"))?;
    Ok(node.filter(is_ready).map(|_| name))
}

/// A node that is ready and has a pod that uses the claim.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn node_of(client: &Client, namespace: &str, claim: &str) -> Result<Option<String>, Error> {
    let pods = objects::list::<Pod>(client, namespace).await?;
    let used = pods.iter().filter(|pod| mover_pod::uses(pod, claim));
    let names: BTreeSet<String> = used.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    for name in names {
        let node = Api::<Node>::all(client.clone()).get_opt(&name).await.during(|| format!("read the node {name}"))?;
        if node.is_some_and(|node| is_ready(&node)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_claim_that_goes_with_its_pod_is_left_out() {
        let check = |owner: Value, expected: bool| {
            let claim = json!({"metadata": {"name": "scratch", "ownerReferences": [owner.clone()]}});
            let claim: PersistentVolumeClaim = serde_json::from_value(claim).expect("the test's claim is a claim");
            assert_eq!(is_of_a_pod(&claim), expected, "{owner}");
        };
        let owner = |version: &str, kind: &str, controller: bool| json!({"apiVersion": version, "kind": kind, "name": "o", "uid": "u", "controller": controller});
        check(owner("v1", "Pod", true), true);
        check(owner("v1", "Pod", false), false);
        check(owner("apps/v1", "StatefulSet", true), false);
        check(owner("example.com/v1", "Pod", true), false);
    }
}
