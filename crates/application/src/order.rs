//! The order of a restore: what others depend on comes first.
//!
//! ```text
//! definitions → namespaces → cluster settings → identities → configuration → claims → services → custom resources
//!     → workloads → exposure → webhooks
//! ```
//!
//! Webhooks are last because one that points at a service of the application refuses everything until that service runs.
//! Volumes are filled between claims and workloads.

use std::collections::BTreeMap;

use crate::key::ObjectKey;

/// A step of a restore. Objects of one wave do not depend on each other, or do so in a way that Kubernetes puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wave {
    /// Custom resource definitions; the next wave waits until they are established.
    Definitions,
    /// Namespaces.
    Namespaces,
    /// Priority classes, runtime classes, ingress classes.
    ClusterSettings,
    /// Service accounts, roles, bindings: within the wave in this order.
    Identities,
    /// Config maps, secrets, limits, quotas, network policies.
    Configuration,
    /// Persistent volume claims.
    Claims,
    /// Services and endpoints, before the pods that find them by environment variables.
    Services,
    /// Objects of all kinds that this table does not know.
    CustomResources,
    /// What runs pods.
    Workloads,
    /// Autoscalers, disruption budgets, ingresses.
    Exposure,
    /// Admission webhooks and aggregated APIs.
    Webhooks,
}

impl Wave {
    /// All waves, in order.
    pub const ALL: [Self; 11] = [
        Self::Definitions,
        Self::Namespaces,
        Self::ClusterSettings,
        Self::Identities,
        Self::Configuration,
        Self::Claims,
        Self::Services,
        Self::CustomResources,
        Self::Workloads,
        Self::Exposure,
        Self::Webhooks,
    ];

    /// The wave in which an object is restored; none for what a backup keeps for reference only.
    ///
    /// Volumes and storage classes are such: the volume of the old cluster is not in the new one, and a class whose provisioner
    /// is not there would leave claims pending without a word. The new cluster's classes are used, by mapping if need be.
    pub fn of(key: &ObjectKey) -> Option<Self> {
        Some(match (key.group.as_str(), key.kind.as_str()) {
            ("", "PersistentVolume") | ("storage.k8s.io", "StorageClass") => return None,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => Self::Definitions,
            ("", "Namespace") => Self::Namespaces,
            ("scheduling.k8s.io", "PriorityClass")
            | ("node.k8s.io", "RuntimeClass")
            | ("networking.k8s.io", "IngressClass") => Self::ClusterSettings,
            ("", "ServiceAccount") | ("rbac.authorization.k8s.io", _) => Self::Identities,
            ("", "ConfigMap" | "Secret" | "LimitRange" | "ResourceQuota" | "PodTemplate")
            | ("networking.k8s.io", "NetworkPolicy") => Self::Configuration,
            ("", "PersistentVolumeClaim") => Self::Claims,
            ("", "Service" | "Endpoints") | ("discovery.k8s.io", "EndpointSlice") => Self::Services,
            ("", "Pod" | "ReplicationController") | ("apps" | "batch", _) => Self::Workloads,
            ("autoscaling" | "policy", _) | ("networking.k8s.io" | "extensions", "Ingress") => Self::Exposure,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Self::Webhooks,
            _ => Self::CustomResources,
        })
    }
}

/// The place of a kind within its wave, where it matters.
fn rank(key: &ObjectKey) -> u8 {
    match key.kind.as_str() {
        "ServiceAccount" | "LimitRange" => 0,
        "ClusterRole" | "Role" | "ConfigMap" | "Secret" => 1,
        "ClusterRoleBinding" | "RoleBinding" => 2,
        // Bare pods and replica sets come after what might adopt them.
        "ReplicaSet" => 3,
        "Pod" => 4,
        _ => 2,
    }
}

/// Sorts objects into waves. The same keys give the same order, whatever order they come in.
pub fn order(keys: impl IntoIterator<Item = ObjectKey>) -> Vec<(Wave, Vec<ObjectKey>)> {
    let mut waves: BTreeMap<Wave, Vec<ObjectKey>> = BTreeMap::new();
    for key in keys {
        if let Some(wave) = Wave::of(&key) {
            waves.entry(wave).or_default().push(key);
        }
    }
    for keys in waves.values_mut() {
        keys.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    }
    waves.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        let (group, kind) = text.rsplit_once('/').unwrap_or(("", text));
        ObjectKey { group: group.into(), version: "v1".into(), kind: kind.into(), namespace: None, name: "x".into() }
    }

    #[test]
    fn what_others_depend_on_comes_first() {
        let expected = [
            "apiextensions.k8s.io/CustomResourceDefinition",
            "Namespace",
            "scheduling.k8s.io/PriorityClass",
            "ServiceAccount",
            "rbac.authorization.k8s.io/ClusterRole",
            "rbac.authorization.k8s.io/Role",
            "rbac.authorization.k8s.io/RoleBinding",
            "LimitRange",
            "ConfigMap",
            "Secret",
            "networking.k8s.io/NetworkPolicy",
            "PersistentVolumeClaim",
            "Service",
            "postgresql.example.com/Cluster",
            "apps/Deployment",
            "apps/StatefulSet",
            "batch/CronJob",
            "apps/ReplicaSet",
            "Pod",
            "autoscaling/HorizontalPodAutoscaler",
            "networking.k8s.io/Ingress",
            "admissionregistration.k8s.io/ValidatingWebhookConfiguration",
        ];
        let flat =
            |keys: Vec<ObjectKey>| -> Vec<ObjectKey> { order(keys).into_iter().flat_map(|(_, keys)| keys).collect() };
        let forward: Vec<_> = expected.iter().map(|text| key(text)).collect();
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        assert_eq!(flat(backward), forward);
        assert_eq!(flat(forward.clone()), forward);
    }

    #[test]
    fn what_is_kept_for_reference_is_not_restored() {
        assert!(order([key("PersistentVolume"), key("storage.k8s.io/StorageClass")]).is_empty());
    }

    #[test]
    fn every_wave_is_listed_once_and_in_order() {
        assert!(Wave::ALL.is_sorted_by(|a, b| a < b));
    }
}
