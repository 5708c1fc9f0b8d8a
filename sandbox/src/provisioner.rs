//! Volumes for claims: a StorageClass whose volumes are directories of nodes.
//!
//! The class is called `standard` and is the default. A claim waits for its first pod; the scheduler then writes down
//! the node that it has chosen, and the provisioner makes a directory there and a volume of type `local` that only this
//! node can mount. With the claim its volume goes, directory and all, unless the volume's reclaim policy is Retain.
//!
//! A step that is interrupted is done again: the directory is made before the volume that names it and removed before
//! the volume is deleted, and both are named after the claim's identity.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};

use crate::error::{self, Error, Result};
use crate::files;
use crate::process_one::READY;

/// The provisioner's name, in the class and in the annotations by which it knows what is its own.
pub const PROVISIONER: &str = "sandbox.orlop.io/directory";
/// The name of the class.
pub const STORAGE_CLASS: &str = "standard";

/// Which provisioner is asked: releases from 1.23 on write the first, older ones the second.
const ASKED: [&str; 2] = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// By this the controller manager knows that the deletion of a volume is not its own business.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Where the directories are on a node.
const DIRECTORY: &str = "/var/lib/sandbox/volumes";
/// Pods run as any user, and a claim does not say as which.
const MODE: u32 = 0o777;
/// How soon something that failed, as when the API server is away, is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The provisioner's own command line.
#[derive(Debug, clap::Args)]
pub struct Provisioner {
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The directory in which the nodes' root directories are.
    #[arg(long)]
    nodes: PathBuf,
}

struct Context {
    client: Client,
    nodes: PathBuf,
    recorder: Recorder,
}

impl Provisioner {
    /// Serves claims until it is killed.
    pub async fn run(&self) -> Result<()> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let failed = |source| Error::Kubeconfig { path: self.kubeconfig.clone(), source: Box::new(source) };
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).map_err(failed)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?;
        let client = Client::try_from(config).map_err(Error::kubernetes("make a client"))?;
        create_class(&client).await?;
        let reporter = Reporter { controller: PROVISIONER.into(), instance: None };
        let context = Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client: client.clone(),
            nodes: self.nodes.clone(),
        });
        let claims = Controller::new(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default())
            .run(provision, |claim, error, _| again(&claim.name_any(), error), context.clone());
        let volumes = Controller::new(Api::<PersistentVolume>::all(client), watcher::Config::default()).run(
            reclaim,
            |volume, error, _| again(&volume.name_any(), error),
            context,
        );
        println!("{READY}");
        // Errors have been reported where they happened, and what failed is tried again.
        tokio::join!(claims.for_each(async |_| ()), volumes.for_each(async |_| ()));
        Ok(())
    }
}

fn again(name: &str, error: &Error) -> Action {
    eprintln!("{name}: {}", error::line(error));
    Action::requeue(RETRY)
}

async fn create_class(client: &Client) -> Result<()> {
    let class = StorageClass {
        metadata: ObjectMeta {
            name: Some(STORAGE_CLASS.into()),
            annotations: Some([("storageclass.kubernetes.io/is-default-class".into(), "true".into())].into()),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.into(),
        reclaim_policy: Some("Delete".into()),
        volume_binding_mode: Some("WaitForFirstConsumer".into()),
        ..StorageClass::default()
    };
    let api: Api<StorageClass> = Api::all(client.clone());
    let parameters = PatchParams::apply(PROVISIONER).force();
    api.patch(STORAGE_CLASS, &parameters, &Patch::Apply(&class))
        .await
        .map_err(Error::kubernetes(format!("apply the storage class {STORAGE_CLASS}")))?;
    Ok(())
}

/// What a claim needs done.
#[derive(Debug, PartialEq, Eq)]
enum Need<'a> {
    Nothing,
    Volume { node: &'a str },
    Refusal(&'static str),
}

fn need(claim: &PersistentVolumeClaim) -> Need<'_> {
    let ours = ASKED.iter().any(|key| claim.annotations().get(*key).is_some_and(|name| name == PROVISIONER));
    let spec = claim.spec.as_ref();
    let bound = spec.and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty());
    if !ours || bound || claim.metadata.deletion_timestamp.is_some() {
        return Need::Nothing;
    }
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Need::Refusal("its volumes are directories: volumeMode Block cannot be had, use Filesystem");
    }
    let shared = |mode: &String| mode == "ReadWriteMany" || mode == "ReadOnlyMany";
    if spec.and_then(|spec| spec.access_modes.as_ref()).is_some_and(|modes| modes.iter().any(shared)) {
        return Need::Refusal("its volumes belong to one node: use the access mode ReadWriteOnce");
    }
    match claim.annotations().get(SELECTED_NODE) {
        Some(node) => Need::Volume { node },
        None => Need::Nothing,
    }
}

async fn provision(claim: Arc<PersistentVolumeClaim>, context: Arc<Context>) -> Result<Action> {
    match need(&claim) {
        Need::Nothing => {}
        Need::Refusal(reason) => {
            let event = Event {
                type_: EventType::Warning,
                reason: "ProvisioningFailed".into(),
                note: Some(reason.into()),
                action: "Provisioning".into(),
                secondary: None,
            };
            context
                .recorder
                .publish(&event, &claim.object_ref(&()))
                .await
                .map_err(Error::kubernetes(format!("report to claim {}", claim.name_any())))?;
        }
        Need::Volume { node } => {
            let nodes: Api<Node> = Api::all(context.client.clone());
            let hostname = nodes.get(node).await.map_err(Error::kubernetes(format!("get node {node}")))?;
            let hostname = hostname.labels().get(HOSTNAME).cloned().unwrap_or_else(|| node.to_owned());
            let classes: Api<StorageClass> = Api::all(context.client.clone());
            let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
            let class = classes.get(&class).await.map_err(Error::kubernetes(format!("get storage class {class}")))?;
            let volume = volume(&claim, &class, &hostname)?;
            make_directory(&place(&context.nodes, node, &volume.name_any()))?;
            let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
            match volumes.create(&PostParams::default(), &volume).await {
                Ok(_) => eprintln!("{}: made {} on {node}", claim.name_any(), volume.name_any()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    return Err(Error::kubernetes(format!("create volume {}", volume.name_any()))(error));
                }
            }
        }
    }
    Ok(Action::await_change())
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, hostname: &str) -> Result<PersistentVolume> {
    let uid = claim.uid().ok_or_else(|| Error::input("a claim from the API server has an identity"))?;
    let name = format!("pvc-{uid}");
    let spec = claim.spec.clone().unwrap_or_default();
    let storage = spec.resources.and_then(|resources| resources.requests).and_then(|r| r.get("storage").cloned());
    let on_node = NodeSelectorRequirement {
        key: HOSTNAME.into(),
        operator: "In".into(),
        values: Some(vec![hostname.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![on_node]), ..NodeSelectorTerm::default() };
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: storage.map(|size| BTreeMap::from([("storage".to_owned(), size)])),
            claim_ref: Some(ObjectReference { resource_version: claim.resource_version(), ..claim.object_ref(&()) }),
            local: Some(LocalVolumeSource { path: format!("{DIRECTORY}/{name}"), fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// The node whose directory goes with this volume, if it is to go.
fn node_to_reclaim(volume: &PersistentVolume) -> Option<&str> {
    let ours = volume.annotations().get(PROVISIONED_BY).is_some_and(|name| name == PROVISIONER);
    let spec = volume.spec.as_ref()?;
    let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
    let deletes = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    if !ours || !released || !deletes || volume.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let terms = &spec.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let expressions = terms.first()?.match_expressions.as_ref()?;
    expressions.iter().find(|e| e.key == HOSTNAME)?.values.as_ref()?.first().map(String::as_str)
}

async fn reclaim(volume: Arc<PersistentVolume>, context: Arc<Context>) -> Result<Action> {
    let Some(node) = node_to_reclaim(&volume) else {
        return Ok(Action::await_change());
    };
    let name = volume.name_any();
    files::remove_dir(&place(&context.nodes, node, &name))?;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    match volumes.delete(&name, &DeleteParams::default()).await {
        Ok(_) => eprintln!("{name}: removed from {node}"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(Error::kubernetes(format!("delete volume {name}"))(error)),
    }
    Ok(Action::await_change())
}

/// The directory of a volume, as the machine sees it. It is made of names alone, never of a path that an object gives.
fn place(nodes: &Path, node: &str, volume: &str) -> PathBuf {
    nodes.join(node).join(&DIRECTORY[1..]).join(volume)
}

fn make_directory(path: &Path) -> Result<()> {
    files::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(Error::file("open to all", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(change: impl FnOnce(&mut serde_json::Value)) -> PersistentVolumeClaim {
        let mut value = json!({
            "metadata": {"name": "data", "namespace": "shop", "uid": "42", "resourceVersion": "7", "annotations": {
                "volume.beta.kubernetes.io/storage-provisioner": PROVISIONER,
                SELECTED_NODE: "east2",
            }},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": STORAGE_CLASS,
            },
        });
        change(&mut value);
        serde_json::from_value(value).expect("a claim")
    }

    fn check(change: impl FnOnce(&mut serde_json::Value), expected: &str) {
        let needed = format!("{:?}", need(&claim(change)));
        assert!(needed.starts_with(expected), "{needed}, not {expected}");
    }

    #[test]
    fn claims_get_what_they_need() {
        check(|_| {}, "Volume { node: \"east2\" }");
        check(
            |c| c["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-provisioner"] = json!("other"),
            "Nothing",
        );
        check(|c| c["metadata"]["annotations"] = json!({ASKED[0]: PROVISIONER}), "Nothing");
        check(|c| c["spec"]["volumeName"] = json!("pv"), "Nothing");
        check(|c| c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"), "Nothing");
        check(|c| c["spec"]["volumeMode"] = json!("Block"), "Refusal");
        check(|c| c["spec"]["accessModes"] = json!(["ReadWriteMany"]), "Refusal");
    }

    #[test]
    fn a_volume_is_bound_to_its_claim_and_node() {
        let class = StorageClass {
            metadata: ObjectMeta { name: Some(STORAGE_CLASS.into()), ..ObjectMeta::default() },
            reclaim_policy: Some("Delete".into()),
            ..StorageClass::default()
        };
        let mut volume = volume(&claim(|_| {}), &class, "east2").expect("a volume");
        let spec = serde_json::to_value(&volume.spec).expect("JSON");
        assert_eq!(spec["claimRef"]["name"], "data");
        assert_eq!(spec["claimRef"]["uid"], "42");
        assert_eq!(spec["capacity"]["storage"], "1Gi");
        assert_eq!(spec["local"]["path"], "/var/lib/sandbox/volumes/pvc-42");
        assert_eq!(node_to_reclaim(&volume), None, "it is not released");
        volume.status = serde_json::from_value(json!({"phase": "Released"})).expect("a status");
        assert_eq!(node_to_reclaim(&volume), Some("east2"));
        let keep = |spec: &mut PersistentVolumeSpec| spec.persistent_volume_reclaim_policy = Some("Retain".into());
        volume.spec.as_mut().map(keep);
        assert_eq!(node_to_reclaim(&volume), None, "it is to be retained");
    }
}
