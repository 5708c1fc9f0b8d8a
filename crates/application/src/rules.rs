//! The rules by which an object is left out of a backup, or of a restore, each with a name that the ledger or the restore shows.
//!
//! A rule leaves out only what comes back by itself, or means nothing in another life of the application. What a rule cannot
//! decide is stored: a superfluous object is found at the restore, an absent one is not.

use serde_json::Value;

use crate::{json, key::ObjectKey};

/// Label of objects that Orlop made for a run of its own.
pub const RUN_LABEL: &str = "orlop.io/run";

/// Why an object is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Events.
    Events,
    /// Leases, and the annotated objects that were their forerunners.
    Leases,
    /// Measurements, which a metrics server computes when asked.
    Metrics,
    /// Kinds that can be read and not made.
    Views,
    /// Revision histories of workloads.
    Revisions,
    /// What a driver or an agent reports about the state of the cluster.
    ClusterState,
    /// Snapshots of volumes.
    Snapshots,
    /// Endpoints and endpoint slices that a controller makes.
    ControllerEndpoints,
    /// Objects that another captured object owns and makes again.
    OwnedAndRecreated,
    /// Claims that a pod's own template makes, and that end with the pod.
    EphemeralClaims,
    /// Pods that a node runs from its own files.
    MirrorPods,
    /// Pods and jobs that have ended.
    Finished,
    /// Tokens that were made for a service account.
    ServiceAccountTokens,
    /// The cluster's root certificate, published into every namespace.
    RootCertificate,
    /// The default service account, when nobody changed it.
    DefaultServiceAccount,
    /// Objects that are being deleted.
    BeingDeleted,
    /// Objects of Orlop's own runs.
    OrlopRuns,
    /// Cluster-scoped objects that every cluster has.
    BuiltIn,
    /// Cluster-scoped objects that an object names, and that do not exist.
    Absent,
    /// Of a restore: what calls a service that goes to another namespace.
    MovedService,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 20] = [
        Self::Events,
        Self::Leases,
        Self::Metrics,
        Self::Views,
        Self::Revisions,
        Self::ClusterState,
        Self::Snapshots,
        Self::ControllerEndpoints,
        Self::OwnedAndRecreated,
        Self::EphemeralClaims,
        Self::MirrorPods,
        Self::Finished,
        Self::ServiceAccountTokens,
        Self::RootCertificate,
        Self::DefaultServiceAccount,
        Self::BeingDeleted,
        Self::OrlopRuns,
        Self::BuiltIn,
        Self::Absent,
        Self::MovedService,
    ];

    /// The name in ledgers. It never changes: ledgers are kept.
    pub const fn name(self) -> &'static str {
        self.entry().0
    }

    /// The reason, for people.
    pub const fn why(self) -> &'static str {
        self.entry().1
    }

    const fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Events => ("events", "events tell what happened in this cluster, and expire within the hour"),
            Self::Leases => ("leases", "a lease is held by a process of this cluster"),
            Self::Metrics => ("metrics", "measurements are computed when they are asked for"),
            Self::Views => ("views", "the server computes it from something else, and takes none from a client"),
            Self::Revisions => ("revisions", "the history of a workload's templates starts anew with the workload"),
            Self::ClusterState => ("cluster-state", "a driver or agent of this cluster reports it"),
            Self::Snapshots => (
                "snapshots",
                "it is of a volume of this cluster; restored, it would be taken anew, of what is restored",
            ),
            Self::ControllerEndpoints => {
                ("controller-endpoints", "a controller makes them from the service and its pods")
            }
            Self::OwnedAndRecreated => ("owned-and-recreated", "its owner is in the backup and makes it again"),
            Self::EphemeralClaims => {
                ("ephemeral-claims", "a pod makes it, empty, and it ends with the pod, which takes no other")
            }
            Self::MirrorPods => ("mirror-pods", "a node runs it from its own files"),
            Self::Finished => ("finished", "it has ended; restored, it would run again"),
            Self::ServiceAccountTokens => {
                ("service-account-tokens", "the token is valid in this cluster only; a new one is made")
            }
            Self::RootCertificate => ("root-certificate", "every cluster publishes its own root certificate"),
            Self::DefaultServiceAccount => {
                ("default-service-account", "every namespace gets it, and nobody has changed it")
            }
            Self::BeingDeleted => ("being-deleted", "it is being deleted"),
            Self::OrlopRuns => ("orlop-runs", "Orlop made it for a run; restored, the run would start again"),
            Self::BuiltIn => ("built-in", "every cluster has it"),
            Self::Absent => ("absent", "an object names it, but the cluster has none of that name"),
            Self::MovedService => (
                "moved-service",
                "the service that it calls goes to another namespace, and the certificate that it has is for the old name: make it \
                 as the application's manifests do",
            ),
        }
    }
}

/// The rule that leaves out all objects of a kind, so that they need not even be listed.
pub fn for_kind(group: &str, kind: &str) -> Option<Rule> {
    let rule = match (group, kind) {
        ("" | "events.k8s.io", "Event") => Rule::Events,
        ("coordination.k8s.io", _) => Rule::Leases,
        ("apps", "ControllerRevision") => Rule::Revisions,
        ("storage.k8s.io", "CSIStorageCapacity") | ("cilium.io", "CiliumEndpoint") => Rule::ClusterState,
        ("snapshot.storage.k8s.io" | "groupsnapshot.storage.k8s.io", _) => Rule::Snapshots,
        ("orlop.io", "ApplicationBackup" | "ApplicationClone" | "ApplicationRestore") => Rule::OrlopRuns,
        _ => return for_group(group),
    };
    Some(rule)
}

/// The rule that leaves out a whole group, also one whose kinds are not known.
pub fn for_group(group: &str) -> Option<Rule> {
    matches!(group, "metrics.k8s.io" | "custom.metrics.k8s.io" | "external.metrics.k8s.io").then_some(Rule::Metrics)
}

/// What a rule has to know besides the object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The object's controller is there, is the one that is meant (not a namesake), and is captured itself.
    pub controller_is_captured: bool,
    /// There is a service of the object's name that selects pods.
    pub service_selects_pods: bool,
}

/// The rule that leaves an object out; none when it is to be stored. Where several apply, the most particular one is named.
pub fn for_object(key: &ObjectKey, object: &Value, facts: Facts) -> Option<Rule> {
    let rules = [
        (Rule::BeingDeleted, is_being_deleted(object)),
        (Rule::OrlopRuns, !json::text(object, &["metadata", "labels", RUN_LABEL]).is_empty()),
        (Rule::Leases, is_old_lease(key, object)),
        (Rule::EphemeralClaims, key.is("", "PersistentVolumeClaim") && is_of_pod(object)),
        (Rule::MirrorPods, key.is("", "Pod") && has_annotation(object, "kubernetes.io/config.mirror")),
        (Rule::ControllerEndpoints, is_made_by_endpoint_controller(key, object, facts)),
        (Rule::OwnedAndRecreated, facts.controller_is_captured && is_made_again(key)),
        (Rule::Finished, is_finished(key, object)),
        (Rule::ServiceAccountTokens, key.is("", "Secret") && is_generated_token(object)),
        (Rule::RootCertificate, is_root_certificate(key)),
        (Rule::DefaultServiceAccount, is_untouched_default_account(key, object)),
    ];
    rules.into_iter().find_map(|(rule, applies)| applies.then_some(rule))
}

/// Whether an owner makes such an object again as it was. Claims, secrets and config maps can be made again too, but not with
/// what is in them: data, generated passwords, certificates.
pub fn is_made_again(key: &ObjectKey) -> bool {
    !(key.group.is_empty() && matches!(key.kind.as_str(), "PersistentVolumeClaim" | "Secret" | "ConfigMap"))
}

/// Whether a claim is of a pod's generic ephemeral volume: the pod is its controller. Its data ends with that pod, whatever becomes of
/// the rest of the application; and the next pod of that name does not start on a claim that is not its own. So neither the claim nor
/// its data is taken, also where the pod is not.
pub fn is_of_pod(claim: &Value) -> bool {
    let is_pod = |owner: &Value| json::text(owner, &["apiVersion"]) == "v1" && json::text(owner, &["kind"]) == "Pod";
    controller(claim).is_some_and(is_pod)
}

/// The object's controller: the owner that makes it again, of which there is at most one.
pub fn controller(object: &Value) -> Option<&Value> {
    json::list(object, &["metadata", "ownerReferences"]).iter().find(|owner| json::is_true(owner, &["controller"]))
}

/// Whether the object is on its way out.
pub fn is_being_deleted(object: &Value) -> bool {
    json::at(object, &["metadata", "deletionTimestamp"]).is_some_and(|time| !time.is_null())
}

/// Whether a name is one that the token controller gives to the secret of a service account: `<account>-token-<five characters>`.
pub fn is_generated_token_name(account: &str, name: &str) -> bool {
    ["-token-", "-dockercfg-"].iter().any(|infix| {
        let suffix = name.strip_prefix(account).and_then(|rest| rest.strip_prefix(infix));
        suffix.is_some_and(|suffix| {
            suffix.len() == 5 && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
    })
}

/// Whether this is a namespace's default service account as the cluster makes it.
pub fn is_untouched_default_account(key: &ObjectKey, object: &Value) -> bool {
    let is_empty =
        |path: &[&str]| json::at(object, path).is_none_or(|value| value.is_null() || *value == serde_json::json!({}));
    let generated = |field: &str| {
        let refs = json::list(object, &[field]);
        refs.iter().all(|secret| is_generated_token_name("default", json::text(secret, &["name"])))
    };
    key.is("", "ServiceAccount")
        && key.name == "default"
        && is_empty(&["metadata", "labels"])
        && is_empty(&["metadata", "annotations"])
        && json::at(object, &["automountServiceAccountToken"]).is_none()
        && generated("secrets")
        && generated("imagePullSecrets")
}

fn has_annotation(object: &Value, name: &str) -> bool {
    json::at(object, &["metadata", "annotations", name]).is_some()
}

/// Only these two kinds were ever made to be leases; provisioners of old left the annotation on claims, which hold data.
fn is_old_lease(key: &ObjectKey, object: &Value) -> bool {
    let may_be_one = key.group.is_empty() && matches!(key.kind.as_str(), "ConfigMap" | "Endpoints");
    may_be_one && has_annotation(object, "control-plane.alpha.kubernetes.io/leader")
}

fn is_generated_token(secret: &Value) -> bool {
    let account = json::text(secret, &["metadata", "annotations", "kubernetes.io/service-account.name"]);
    json::text(secret, &["type"]) == "kubernetes.io/service-account-token"
        && is_generated_token_name(account, json::text(secret, &["metadata", "name"]))
}

fn is_root_certificate(key: &ObjectKey) -> bool {
    key.is("", "ConfigMap") && matches!(key.name.as_str(), "kube-root-ca.crt" | "openshift-service-ca.crt")
}

fn is_finished(key: &ObjectKey, object: &Value) -> bool {
    if key.is("", "Pod") {
        return matches!(json::text(object, &["status", "phase"]), "Succeeded" | "Failed");
    }
    let ended = |condition: &Value| {
        matches!(json::text(condition, &["type"]), "Complete" | "Failed")
            && json::text(condition, &["status"]) == "True"
    };
    key.is("batch", "Job") && json::list(object, &["status", "conditions"]).iter().any(ended)
}

fn is_made_by_endpoint_controller(key: &ObjectKey, object: &Value, facts: Facts) -> bool {
    let label = |name| json::text(object, &["metadata", "labels", name]);
    if key.is("", "Endpoints") {
        return facts.service_selects_pods || !label("endpoints.kubernetes.io/managed-by").is_empty();
    }
    key.is("discovery.k8s.io", "EndpointSlice")
        && label("endpointslice.kubernetes.io/managed-by").ends_with("-controller.k8s.io")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_with(api_version: &str, kind: &str, mut object: Value, facts: Facts, expected: Option<Rule>) {
        json::set(&mut object, &["apiVersion"], api_version.into());
        json::set(&mut object, &["kind"], kind.into());
        if json::text(&object, &["metadata", "name"]).is_empty() {
            json::set(&mut object, &["metadata", "name"], "x".into());
        }
        json::set(&mut object, &["metadata", "namespace"], "shop".into());
        let key = ObjectKey::of(&object).expect("test object has a name");
        assert_eq!(for_object(&key, &object, facts), expected, "{object}");
    }

    fn check(api_version: &str, kind: &str, object: Value, expected: Option<Rule>) {
        check_with(api_version, kind, object, Facts::default(), expected);
    }

    #[test]
    fn names_and_reasons_are_unique() {
        for (index, rule) in Rule::ALL.iter().enumerate() {
            assert!(Rule::ALL[..index].iter().all(|other| other.name() != rule.name() && other.why() != rule.why()));
        }
    }

    #[test]
    fn whole_kinds_are_left_out() {
        for (group, kind, expected) in [
            ("", "Event", Some(Rule::Events)),
            ("events.k8s.io", "Event", Some(Rule::Events)),
            ("coordination.k8s.io", "Lease", Some(Rule::Leases)),
            ("metrics.k8s.io", "PodMetrics", Some(Rule::Metrics)),
            ("apps", "ControllerRevision", Some(Rule::Revisions)),
            ("orlop.io", "ApplicationBackup", Some(Rule::OrlopRuns)),
            ("orlop.io", "BackupLocation", None),
            ("snapshot.storage.k8s.io", "VolumeSnapshot", Some(Rule::Snapshots)),
            ("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshot", Some(Rule::Snapshots)),
            ("example.com", "Event", None),
            ("apps", "Deployment", None),
        ] {
            assert_eq!(for_kind(group, kind), expected, "{group} {kind}");
        }
    }

    #[test]
    fn what_a_captured_controller_makes_is_left_out_unless_it_holds_data() {
        let owned = json!({"metadata": {"ownerReferences": [{"kind": "ReplicaSet", "controller": true, "uid": "u"}]}});
        let captured = Facts { controller_is_captured: true, ..Facts::default() };
        check_with("v1", "Pod", owned.clone(), captured, Some(Rule::OwnedAndRecreated));
        check_with("v1", "Pod", owned.clone(), Facts::default(), None);
        for kind in ["PersistentVolumeClaim", "Secret", "ConfigMap"] {
            check_with("v1", kind, owned.clone(), captured, None);
        }
        assert_eq!(controller(&owned).map(|owner| json::text(owner, &["uid"])), Some("u"));
        assert_eq!(controller(&json!({"metadata": {"ownerReferences": [{"uid": "u"}]}})), None);
    }

    #[test]
    fn claims_of_pods_are_left_out_and_claims_of_others_are_not() {
        let owned = |api_version: &str, kind: &str| {
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "example.com/v1", "kind": "Tag", "uid": "t"},
                {"apiVersion": api_version, "kind": kind, "controller": true, "uid": "u"},
            ]}})
        };
        let claim = |owner: Value, expected| check("v1", "PersistentVolumeClaim", owner, expected);
        claim(owned("v1", "Pod"), Some(Rule::EphemeralClaims));
        claim(owned("apps/v1", "StatefulSet"), None);
        claim(owned("example.com/v1", "Pod"), None);
        let not_controller =
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "uid": "u"}]}});
        claim(not_controller, None);
        check("v1", "ConfigMap", owned("v1", "Pod"), None);
    }

    #[test]
    fn pods_and_jobs_that_ended_or_are_static_are_left_out() {
        check("v1", "Pod", json!({"status": {"phase": "Running"}}), None);
        check("v1", "Pod", json!({"status": {"phase": "Succeeded"}}), Some(Rule::Finished));
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}}});
        check("v1", "Pod", mirror, Some(Rule::MirrorPods));
        let with_condition =
            |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        check("batch/v1", "Job", with_condition("Complete", "True"), Some(Rule::Finished));
        check("batch/v1", "Job", with_condition("Failed", "True"), Some(Rule::Finished));
        check("batch/v1", "Job", with_condition("Suspended", "True"), None);
        check("example.com/v1", "Job", with_condition("Complete", "True"), None);
    }

    #[test]
    fn generated_tokens_are_left_out_and_asked_for_ones_are_not() {
        let token = |name: &str| {
            json!({
                "type": "kubernetes.io/service-account-token",
                "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "web"}},
            })
        };
        check("v1", "Secret", token("web-token-x7k2p"), Some(Rule::ServiceAccountTokens));
        check("v1", "Secret", token("web-token-for-ci"), None);
        check("v1", "Secret", token("db-token-x7k2p"), None);
        check("v1", "Secret", json!({"type": "Opaque", "metadata": {"name": "web-token-x7k2p"}}), None);
    }

    #[test]
    fn what_every_namespace_gets_is_left_out_unless_changed() {
        check("v1", "ConfigMap", json!({"metadata": {"name": "kube-root-ca.crt"}}), Some(Rule::RootCertificate));
        let default = json!({"metadata": {"name": "default"}, "secrets": [{"name": "default-token-abcde"}]});
        check("v1", "ServiceAccount", default, Some(Rule::DefaultServiceAccount));
        check("v1", "ServiceAccount", json!({"metadata": {"name": "default", "labels": {"a": "b"}}}), None);
        check(
            "v1",
            "ServiceAccount",
            json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "reg"}]}),
            None,
        );
        check("v1", "ServiceAccount", json!({"metadata": {"name": "web"}}), None);
    }

    #[test]
    fn endpoints_are_left_out_only_where_a_controller_makes_them() {
        let selects = Facts { service_selects_pods: true, ..Facts::default() };
        check_with("v1", "Endpoints", json!({}), selects, Some(Rule::ControllerEndpoints));
        check("v1", "Endpoints", json!({}), None);
        let managed = |by: &str| json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": by}}});
        let slice = "discovery.k8s.io/v1";
        check(slice, "EndpointSlice", managed("endpointslice-controller.k8s.io"), Some(Rule::ControllerEndpoints));
        check(
            slice,
            "EndpointSlice",
            managed("endpointslicemirroring-controller.k8s.io"),
            Some(Rule::ControllerEndpoints),
        );
        check(slice, "EndpointSlice", managed("staff"), None);
        let leader = json!({"metadata": {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}});
        check("v1", "Endpoints", leader.clone(), Some(Rule::Leases));
        check("v1", "ConfigMap", leader.clone(), Some(Rule::Leases));
        check("v1", "PersistentVolumeClaim", leader.clone(), None);
        check("example.com/v1", "ConfigMap", leader, None);
    }

    #[test]
    fn what_is_being_deleted_or_orlops_own_is_left_out() {
        check(
            "v1",
            "Secret",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            Some(Rule::BeingDeleted),
        );
        check("v1", "Secret", json!({"metadata": {"deletionTimestamp": null}}), None);
        check("v1", "Pod", json!({"metadata": {"labels": {"orlop.io/run": "nightly"}}}), Some(Rule::OrlopRuns));
    }
}
