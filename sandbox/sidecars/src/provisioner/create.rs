//! A claim becomes a request to the driver, and the answer a volume.

use super::{Context, source, volume};
use crate::events::Kind;
use crate::failure::{Failure, Result, unless};
use crate::objects::{PREFIX, for_driver, secret};
use crate::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};
use crate::proto::{CapacityRange, CreateVolumeRequest, Topology, TopologyRequirement, VolumeCapability};
use crate::quantity::storage;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, SecretReference};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use tonic::Code;

/// Which provisioner is asked: releases from 1.23 on write the first, older ones the second.
const ASKED: [&str; 2] = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// What the scheduler has chosen.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

pub(super) async fn provision(claim: Arc<PersistentVolumeClaim>, context: Arc<Context>) -> Result<Action> {
    let spec = claim.spec.clone().unwrap_or_default();
    if is_for(&claim, &context.driver.name, &context.node) {
        let class = spec.storage_class_name.clone().unwrap_or_default();
        if let Err(failure) = make(&claim, &class, &context).await {
            let note = format!("failed to provision volume with StorageClass {class:?}: {failure}");
            context.events.tell(&*claim, Kind::Warning, "ProvisioningFailed", note).await;
            if matches!(failure, Failure::Driver { code: Code::ResourceExhausted, .. }) {
                give_back(&claim, &context).await?;
                return Ok(Action::await_change());
            }
            return Err(failure);
        }
    } else if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound") {
        source::release(&claim, &context).await?;
    }
    Ok(Action::await_change())
}

/// The claim waits for a volume of this driver on this node.
fn is_for(claim: &PersistentVolumeClaim, driver: &str, node: &str) -> bool {
    let note = |key: &str| claim.annotations().get(key).map(String::as_str);
    let is_asked = ASKED.iter().any(|key| note(key) == Some(driver));
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    is_asked && volume.is_empty() && claim.metadata.deletion_timestamp.is_none() && note(SELECTED_NODE) == Some(node)
}

async fn make(claim: &PersistentVolumeClaim, class: &str, context: &Context) -> Result<()> {
    let note = format!("External provisioner is provisioning volume for claim {:?}", full_name(claim));
    context.events.tell(claim, Kind::Normal, "Provisioning", note).await;
    let class = Api::<StorageClass>::all(context.client.clone()).get(class).await;
    let class = class.map_err(Failure::kubernetes("get the storage class"))?;
    let mut request = request(claim, &class, context)?;
    request.volume_content_source = source::of(claim, context).await?;
    if let Some(reference) = secret_of(&class, "provisioner", claim, &request.name) {
        let (namespace, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        request.secrets = secret(&context.client, &namespace, &name).await?;
    }
    let wants_source = request.volume_content_source.is_some();
    let made = context.driver.create_volume(request).await?;
    if wants_source && made.content_source.is_none() {
        context.driver.delete_volume(&made.volume_id, std::collections::HashMap::new()).await?;
        return Err(Failure::NotYet("volume content source missing".to_owned()));
    }
    let object = volume::object(claim, &class, &made, context);
    let created = Api::<PersistentVolume>::all(context.client.clone()).create(&PostParams::default(), &object).await;
    unless(409, created.map(drop)).map_err(Failure::kubernetes("create the persistent volume"))?;
    let note = format!("Successfully provisioned volume {}", object.name_any());
    context.events.tell(claim, Kind::Normal, "ProvisioningSucceeded", note).await;
    Ok(())
}

/// Has the scheduler choose another node.
async fn give_back(claim: &PersistentVolumeClaim, context: &Context) -> Result<()> {
    let mut claim = claim.clone();
    claim.annotations_mut().remove(SELECTED_NODE);
    let api = Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &claim.namespace().unwrap_or_default());
    let replaced = api.replace(&claim.name_any(), &PostParams::default(), &claim).await;
    replaced.map(drop).map_err(Failure::kubernetes("give the selected node back"))
}

fn request(claim: &PersistentVolumeClaim, class: &StorageClass, context: &Context) -> Result<CreateVolumeRequest> {
    let spec = claim.spec.clone().unwrap_or_default();
    let wanted = storage(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let wanted = wanted.ok_or_else(|| Failure::NotYet("the claim has no size that can be understood".to_owned()))?;
    let name = volume_name(claim);
    let mut parameters = for_driver(class.parameters.iter().flatten());
    if context.extra_create_metadata {
        for (key, value) in [
            ("pvc/name", claim.name_any()),
            ("pvc/namespace", claim.namespace().unwrap_or_default()),
            ("pv/name", name.clone()),
        ] {
            parameters.insert(format!("{PREFIX}{key}"), value);
        }
    }
    let here = Topology { segments: context.topology.clone() };
    Ok(CreateVolumeRequest {
        name,
        capacity_range: Some(CapacityRange {
            required_bytes: i64::try_from(wanted).unwrap_or(i64::MAX),
            limit_bytes: 0,
        }),
        volume_capabilities: capabilities(&spec, class, context.tells_writers_apart)?,
        parameters,
        accessibility_requirements: Some(TopologyRequirement { requisite: vec![here.clone()], preferred: vec![here] }),
        ..CreateVolumeRequest::default()
    })
}

/// One for each access mode. A driver that does not tell one writer from several pods of a node is not asked for either.
fn capabilities(
    spec: &PersistentVolumeClaimSpec,
    class: &StorageClass,
    tells_writers_apart: bool,
) -> Result<Vec<VolumeCapability>> {
    let access = match spec.volume_mode.as_deref() {
        Some("Block") => AccessType::Block(BlockVolume {}),
        _ => AccessType::Mount(MountVolume {
            fs_type: file_system(class).unwrap_or_default(),
            mount_flags: class.mount_options.clone().unwrap_or_default(),
            ..MountVolume::default()
        }),
    };
    let mode = |mode: &String| match mode.as_str() {
        "ReadWriteOnce" | "ReadWriteOncePod" if !tells_writers_apart => Ok(Mode::SingleNodeWriter),
        "ReadWriteOnce" => Ok(Mode::SingleNodeMultiWriter),
        "ReadWriteOncePod" => Ok(Mode::SingleNodeSingleWriter),
        "ReadOnlyMany" => Ok(Mode::MultiNodeReaderOnly),
        "ReadWriteMany" => Ok(Mode::MultiNodeMultiWriter),
        other => Err(Failure::NotYet(format!("there is no access mode {other}"))),
    };
    let capability = |mode: Mode| VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(access.clone()),
    };
    spec.access_modes.iter().flatten().map(|text| mode(text).map(capability)).collect()
}

/// The file system that a class names.
pub(super) fn file_system(class: &StorageClass) -> Option<String> {
    class.parameters.as_ref()?.get(&format!("{PREFIX}fstype")).cloned()
}

/// What the volume is called, by the claim's identity.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

fn full_name(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any())
}

/// The Secret that a class names for a purpose, with the claim's names in place of the templates.
pub(super) fn secret_of(
    class: &StorageClass,
    purpose: &str,
    claim: &PersistentVolumeClaim,
    volume: &str,
) -> Option<SecretReference> {
    let parameters = class.parameters.as_ref()?;
    let value = |part: &str| {
        let template = parameters.get(&format!("{PREFIX}{purpose}-secret-{part}"))?;
        let namespace = claim.namespace().unwrap_or_default();
        let filled = template.replace("${pv.name}", volume).replace("${pvc.namespace}", &namespace);
        Some(filled.replace("${pvc.name}", &claim.name_any()))
    };
    Some(SecretReference { name: Some(value("name")?), namespace: Some(value("namespace")?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
        let mut value = json!({
            "metadata": {"name": "data", "namespace": "shop", "uid": "42", "annotations": {ASKED[0]: "d", SELECTED_NODE: "east1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
        });
        change(&mut value);
        serde_json::from_value(value).expect("a claim")
    }

    #[test]
    fn a_claim_is_for_the_driver_and_the_node_that_were_chosen() {
        for (change, expected) in [
            ((|_| {}) as fn(&mut Value), true),
            (|c| c["metadata"]["annotations"][ASKED[0]] = json!("other"), false),
            (|c| c["metadata"]["annotations"][SELECTED_NODE] = json!("east2"), false),
            (|c| c["spec"]["volumeName"] = json!("pv"), false),
            (|c| c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"), false),
        ] {
            assert_eq!(is_for(&claim(change), "d", "east1"), expected);
        }
    }

    #[test]
    fn templates_of_secrets_are_filled() {
        let class: StorageClass = serde_json::from_value(json!({"provisioner": "d", "parameters": {
            "csi.storage.k8s.io/provisioner-secret-name": "key-${pvc.name}",
            "csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.namespace}",
        }}))
        .expect("a class");
        let found = secret_of(&class, "provisioner", &claim(|_| {}), "pvc-42").expect("it is named");
        assert_eq!((found.name.as_deref(), found.namespace.as_deref()), (Some("key-data"), Some("shop")));
        assert!(secret_of(&class, "node-stage", &claim(|_| {}), "pvc-42").is_none());
        assert!(for_driver(class.parameters.iter().flatten()).is_empty());
    }

    #[test]
    fn capabilities_follow_the_claim() {
        let class = StorageClass::default();
        let asked = |change: fn(&mut Value), apart| capabilities(&claim(change).spec.expect("a spec"), &class, apart);
        let of = |change: fn(&mut Value)| asked(change, true);
        let block = of(|c| c["spec"]["volumeMode"] = json!("Block")).expect("good");
        assert!(matches!(block[0].access_type, Some(AccessType::Block(_))));
        assert_eq!(
            of(|_| {}).expect("good")[0].access_mode.as_ref().expect("a mode").mode(),
            Mode::SingleNodeMultiWriter
        );
        assert_eq!(
            asked(|_| {}, false).expect("good")[0].access_mode.as_ref().expect("a mode").mode(),
            Mode::SingleNodeWriter
        );
        assert!(of(|c| c["spec"]["accessModes"] = json!(["Many"])).is_err());
    }
}
