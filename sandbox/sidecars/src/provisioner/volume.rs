//! The persistent volume of what the driver has made.

use super::create::{file_system, secret_of, volume_name};
use super::{Context, PROVISIONED_BY, VOLUME_FINALIZER};
use crate::proto;
use crate::quantity::{STORAGE, quantity};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// What the volume is to be deleted with.
pub(super) const DELETION_SECRET: [&str; 2] = [
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
];
/// Who has made it.
const IDENTITY: &str = "storage.kubernetes.io/csiProvisionerIdentity";

pub(super) fn object(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    made: &proto::Volume,
    context: &Context,
) -> PersistentVolume {
    let name = volume_name(claim);
    let spec = claim.spec.clone().unwrap_or_default();
    let secret = |purpose| secret_of(class, purpose, claim, &name);
    let is_block = spec.volume_mode.as_deref() == Some("Block");
    let mut attributes: BTreeMap<String, String> = made.volume_context.clone().into_iter().collect();
    attributes.insert(IDENTITY.to_owned(), format!("{}-{}", context.node, context.driver.name));
    let deletion = secret("provisioner").unwrap_or_default();
    let annotations = [
        (PROVISIONED_BY, context.driver.name.clone()),
        (DELETION_SECRET[0], deletion.name.unwrap_or_default()),
        (DELETION_SECRET[1], deletion.namespace.unwrap_or_default()),
    ];
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            finalizers: Some(vec![VOLUME_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(
                [(STORAGE.to_owned(), quantity(u64::try_from(made.capacity_bytes).unwrap_or_default()))].into(),
            ),
            claim_ref: Some(ObjectReference { resource_version: claim.resource_version(), ..claim.object_ref(&()) }),
            csi: Some(CSIPersistentVolumeSource {
                driver: context.driver.name.clone(),
                volume_handle: made.volume_id.clone(),
                volume_attributes: Some(attributes),
                fs_type: file_system(class).filter(|_| !is_block),
                node_stage_secret_ref: secret("node-stage"),
                node_publish_secret_ref: secret("node-publish"),
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: affinity(&made.accessible_topology),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// Where the driver says that the volume can be used.
fn affinity(topology: &[proto::Topology]) -> Option<VolumeNodeAffinity> {
    let terms: Vec<_> = topology.iter().map(term).collect();
    (!terms.is_empty()).then_some(VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: terms }) })
}

fn term(topology: &proto::Topology) -> NodeSelectorTerm {
    let segments: BTreeMap<_, _> = topology.segments.iter().collect();
    let requirement = |(key, value): (&String, &String)| NodeSelectorRequirement {
        key: key.clone(),
        operator: "In".to_owned(),
        values: Some(vec![value.clone()]),
    };
    NodeSelectorTerm {
        match_expressions: Some(segments.into_iter().map(requirement).collect()),
        ..NodeSelectorTerm::default()
    }
}
