//! Taking off an object what belongs to one life of it.
//!
//! Two steps, because a backup keeps facts and a restore makes choices. [`for_storage`] takes off what the server set to tell
//! this life from any other, so that an unchanged object has unchanged bytes. [`for_restore`] takes off what ties the object to
//! the cluster it came from, some of it only when it is not asked to be kept.
//!
//! The annotation `kubectl.kubernetes.io/last-applied-configuration` stays: without it the next `kubectl apply` of its owner
//! would no longer remove what he has removed from his manifest. (A mapping to another namespace drops it, see
//! [`crate::Mapping`].) The certificates of webhooks (`caBundle`) stay, since nobody else may have them.

use serde_json::Value;

use crate::{apply::RESTORED_BY, json, key::ObjectKey, pods, rules};

/// Fields that the server sets, and that tell one life of an object from another.
const LIFE: &[&[&str]] = &[
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "selfLink"],
    &["status"],
    // What remains of these is not the name that was asked for, but the prefix that a name was made from.
    &["metadata", "generateName"],
];

/// Annotations with which controllers note where a claim is bound, or which revision a workload is at.
const BINDINGS: &[&str] = &[
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-resizer",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.daemonset.template.generation",
];

/// Labels by which the job controller tells the pods of one job from those of a namesake.
const JOB_LABELS: &[&str] =
    &["controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"];

/// Where a node mounts the token of a pod's service account.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a restore keeps of the ties to the old cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Keep the addresses of services within the cluster.
    pub keep_cluster_ips: bool,
    /// Keep the node ports of services, and the health check port.
    pub keep_node_ports: bool,
}

/// Takes off what tells this life of the object from another.
pub fn for_storage(object: &mut Value) {
    for path in LIFE {
        json::remove(object, path);
    }
    json::remove_keys(object, &["metadata", "annotations"], |name| name == RESTORED_BY);
}

/// Takes off what ties a stored object to the cluster that it came from.
///
/// Owner references go, because they name a life (uid) of the owner that is over: the garbage collector would delete the object
/// at once. Finalizers go, because who needs one adds it; one whose controller is not there would never let the object be deleted.
pub fn for_restore(key: &ObjectKey, object: &mut Value, options: RestoreOptions) {
    for_storage(object);
    json::remove(object, &["metadata", "ownerReferences"]);
    json::remove(object, &["metadata", "finalizers"]);
    json::remove_keys(object, &["metadata", "annotations"], |name| BINDINGS.contains(&name));
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Service") => service(object, options),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "ServiceAccount") => account(object),
        ("", "Secret") => token(object),
        ("", "Namespace") => namespace(object),
        ("batch", "Job") => job(object),
        _ => {}
    }
}

fn service(object: &mut Value, options: RestoreOptions) {
    let headless = json::text(object, &["spec", "clusterIP"]) == "None";
    if !headless && !options.keep_cluster_ips {
        json::remove(object, &["spec", "clusterIP"]);
        json::remove(object, &["spec", "clusterIPs"]);
        // With one family nobody chose it, and the new cluster may have the other.
        if matches!(json::text(object, &["spec", "ipFamilyPolicy"]), "" | "SingleStack") {
            json::remove(object, &["spec", "ipFamilies"]);
        }
    }
    if !options.keep_node_ports {
        json::remove(object, &["spec", "healthCheckNodePort"]);
        for port in json::list_mut(object, &["spec", "ports"]) {
            json::remove(port, &["nodePort"]);
        }
    }
}

fn pod(object: &mut Value) {
    let Some(spec) = json::at_mut(object, &["spec"]) else {
        return;
    };
    // Priorities are computed from the class, and refused when they differ from it; the others say where and how this life ran.
    for field in ["nodeName", "priority", "preemptionPolicy", "ephemeralContainers"] {
        json::remove(spec, &[field]);
    }
    let injected: Vec<String> = json::list(spec, &["volumes"])
        .iter()
        .filter(|volume| is_injected_token(spec, volume))
        .map(|volume| json::text(volume, &["name"]).to_owned())
        .collect();
    let is_kept = |volume: &Value| !injected.iter().any(|name| name == json::text(volume, &["name"]));
    for containers in ["containers", "initContainers"] {
        for container in json::list_mut(spec, &[containers]) {
            json::retain(container, &["volumeMounts"], is_kept);
        }
    }
    json::retain(spec, &["volumes"], is_kept);
}

/// Whether admission added this volume for the token of the pod's service account: it has the name of such a volume, and is
/// mounted where tokens are. (A volume of the user's own in that place has a name of his own.)
fn is_injected_token(spec: &Value, volume: &Value) -> bool {
    let name = json::text(volume, &["name"]);
    let account = match json::text(spec, &["serviceAccountName"]) {
        "" => "default",
        account => account,
    };
    let has_its_name = rules::is_generated_token_name(account, name)
        || (name.starts_with("kube-api-access-") && json::at(volume, &["projected"]).is_some());
    let is_mounted_there = ["containers", "initContainers"]
        .iter()
        .flat_map(|containers| json::list(spec, &[containers]))
        .flat_map(|container| json::list(container, &["volumeMounts"]))
        .any(|mount| json::text(mount, &["name"]) == name && json::text(mount, &["mountPath"]) == TOKEN_MOUNT);
    has_its_name && is_mounted_there
}

/// The new claim is empty and bound to a volume of its own; its data comes from the backup, not from where the old one had it.
fn claim(object: &mut Value) {
    for field in ["volumeName", "dataSource", "dataSourceRef"] {
        json::remove(object, &["spec", field]);
    }
    // A claim that chose its volume by label would find none, or one with other data.
    json::remove(object, &["spec", "selector"]);
}

fn account(object: &mut Value) {
    let name = json::text(object, &["metadata", "name"]).to_owned();
    for field in ["secrets", "imagePullSecrets"] {
        json::retain(object, &[field], |secret| !rules::is_generated_token_name(&name, json::text(secret, &["name"])));
    }
}

/// A token that was asked for is asked for again: the token controller fills it with one that is valid in the new cluster.
fn token(object: &mut Value) {
    if json::text(object, &["type"]) == "kubernetes.io/service-account-token" {
        json::remove_keys(object, &["data"], |key| matches!(key, "token" | "ca.crt" | "namespace"));
        json::remove_keys(object, &["metadata", "annotations"], |name| name == "kubernetes.io/service-account.uid");
    }
}

fn namespace(object: &mut Value) {
    json::remove(object, &["spec"]); // the finalizers of namespaces are there
    // Ranges of ids that OpenShift allots to each namespace of a cluster.
    json::remove_keys(object, &["metadata", "annotations"], |name| name.starts_with("openshift.io/sa.scc."));
}

fn job(object: &mut Value) {
    if json::is_true(object, &["spec", "manualSelector"]) {
        return;
    }
    json::remove(object, &["spec", "selector"]);
    let labels: [&[&str]; 2] = [&["metadata", "labels"], &["spec", "template", "metadata", "labels"]];
    for path in labels {
        json::remove_keys(object, path, |name| JOB_LABELS.contains(&name));
    }
    if let Some(spec) = pods::spec_mut(object) {
        json::remove(spec, &["nodeName"]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_with(options: RestoreOptions, mut object: Value, expected: Value) {
        let mut expected = expected;
        for value in [&mut object, &mut expected] {
            json::set(value, &["metadata", "name"], "x".into());
        }
        let key = ObjectKey::of(&object).expect("test object has a name");
        for_restore(&key, &mut object, options);
        assert_eq!(object, expected);
        for_restore(&key, &mut object, options);
        assert_eq!(object, expected, "cleaning twice is cleaning once");
    }

    fn check(object: Value, expected: Value) {
        check_with(RestoreOptions::default(), object, expected);
    }

    #[test]
    fn storage_takes_off_what_the_server_set_and_nothing_else() {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "x", "uid": "u", "resourceVersion": "7", "creationTimestamp": "t", "generation": 2, "managedFields": [],
                "selfLink": "/x", "generateName": "x-", "labels": {"a": "b"}, "finalizers": ["f"], "ownerReferences": [{"uid": "o"}],
                "annotations": {"orlop.io/restored-by": "r", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            "spec": {"clusterIP": "10.0.0.1"}, "status": {"loadBalancer": {}},
        });
        for_storage(&mut object);
        let expected = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "x", "labels": {"a": "b"}, "finalizers": ["f"], "ownerReferences": [{"uid": "o"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            "spec": {"clusterIP": "10.0.0.1"},
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn owners_and_finalizers_do_not_come_back() {
        check(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"ownerReferences": [{"uid": "o"}], "finalizers": ["f"]}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
        );
    }

    #[test]
    fn services_lose_their_addresses_unless_headless_or_asked() {
        let service = |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "spec": spec});
        let full = json!({
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "healthCheckNodePort": 31000, "ports": [{"port": 80, "nodePort": 30080}],
        });
        check(service(full.clone()), service(json!({"ipFamilyPolicy": "SingleStack", "ports": [{"port": 80}]})));
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]});
        check(service(headless.clone()), service(headless));
        let dual =
            json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        check(service(dual), service(json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"})));
        let all = RestoreOptions { keep_cluster_ips: true, keep_node_ports: true };
        check_with(all, service(full.clone()), service(full));
    }

    #[test]
    fn pods_lose_their_node_and_the_injected_token() {
        let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "spec": spec});
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
        check(
            pod(json!({
                "nodeName": "n1", "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "serviceAccountName": "web",
                "containers": [{"name": "c", "volumeMounts": [mount("data", "/data"), mount("kube-api-access-x7k2p", TOKEN_MOUNT)]}],
                "initContainers": [{"name": "i", "volumeMounts": [mount("kube-api-access-x7k2p", TOKEN_MOUNT)]}],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "kube-api-access-x7k2p", "projected": {}}],
            })),
            pod(json!({
                "serviceAccountName": "web",
                "containers": [{"name": "c", "volumeMounts": [mount("data", "/data")]}],
                "initContainers": [{"name": "i"}],
                "volumes": [{"name": "data", "emptyDir": {}}],
            })),
        );
        let old = json!({
            "containers": [{"name": "c", "volumeMounts": [mount("default-token-x7k2p", TOKEN_MOUNT)]}],
            "volumes": [{"name": "default-token-x7k2p", "secret": {"secretName": "default-token-x7k2p"}}],
        });
        check(pod(old), pod(json!({"containers": [{"name": "c"}]})));
        let own = json!({
            "containers": [{"name": "c", "volumeMounts": [mount("my-token", TOKEN_MOUNT)]}],
            "volumes": [{"name": "my-token", "projected": {}}],
        });
        check(pod(own.clone()), pod(own));
    }

    #[test]
    fn claims_lose_their_volume_and_keep_their_request() {
        check(
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n1", "mine": "1"}},
                "spec": {"volumeName": "pv-1", "storageClassName": "fast", "dataSource": {"name": "s"}, "dataSourceRef": {"name": "s"},
                    "resources": {"requests": {"storage": "1Gi"}}},
            }),
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"annotations": {"mine": "1"}},
                "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
            }),
        );
    }

    #[test]
    fn jobs_lose_the_selector_that_was_made_for_them() {
        let job = |manual: bool| {
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {"controller-uid": "u", "job-name": "x", "app": "a"}},
                "spec": {
                    "manualSelector": manual, "selector": {"matchLabels": {"controller-uid": "u"}},
                    "template": {"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "u", "job-name": "x"}}, "spec": {"containers": []}},
                },
            })
        };
        check(
            job(false),
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {"app": "a"}},
                "spec": {"manualSelector": false, "template": {"metadata": {}, "spec": {"containers": []}}},
            }),
        );
        check(job(true), job(true));
    }

    #[test]
    fn accounts_and_tokens_are_made_anew() {
        check(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "x-token-abcde"}, {"name": "mine"}],
                "imagePullSecrets": [{"name": "x-dockercfg-abcde"}]}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "mine"}], "metadata": {}}),
        );
        check(
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                "metadata": {"annotations": {"kubernetes.io/service-account.name": "web", "kubernetes.io/service-account.uid": "u"}},
                "data": {"token": "t", "ca.crt": "c", "namespace": "n"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                "metadata": {"annotations": {"kubernetes.io/service-account.name": "web"}}}),
        );
    }
}
