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

use crate::{apply::RESTORED_BY, gitops, json, key::ObjectKey, pods, rules};

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

/// Annotations that hold the status of an autoscaler where it is read at version 1, which has no fields for it.
const STATUS: &[&str] =
    &["autoscaling.alpha.kubernetes.io/conditions", "autoscaling.alpha.kubernetes.io/current-metrics"];

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

/// How large a claim's volume is, which may be larger than what was asked for.
const CAPACITY: &[&str] = &["status", "capacity", "storage"];
/// How large a claim asks its volume to be.
const REQUEST: &[&str] = &["spec", "resources", "requests", "storage"];

/// Takes off what tells this life of the object from another. Of the status stays what a restore may want: the size of a claim's volume, since a smaller
/// volume might not hold the data; and all of it of custom kinds, whose controllers may have nowhere else what they have noted there.
pub fn for_storage(object: &mut Value) {
    let api_version = json::text(object, &["apiVersion"]);
    let wanted: &[&str] = match (api_version, json::text(object, &["kind"])) {
        ("v1", "PersistentVolumeClaim") => CAPACITY,
        _ if is_custom(api_version.split_once('/').map_or("", |(group, _)| group)) => &["status"],
        _ => &[],
    };
    let kept = json::at(object, wanted).filter(|_| !wanted.is_empty()).cloned();
    for_comparison(object);
    if let Some(kept) = kept {
        json::set(object, wanted, kept);
    }
}

/// Whether the kinds of a group are custom ones: it is a domain of somebody's, and not of Kubernetes itself.
pub fn is_custom(group: &str) -> bool {
    group.contains('.') && !group.ends_with(".k8s.io")
}

/// Takes off everything that the owner of the object has not written.
pub(crate) fn for_comparison(object: &mut Value) {
    for path in LIFE {
        json::remove(object, path);
    }
    gitops::forget_hold(object);
    json::remove_keys(object, &["metadata", "annotations"], |name| name == RESTORED_BY || STATUS.contains(&name));
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
        (group, _) if is_custom(group) => {
            json::remove(object, &["status"]);
        }
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
    }
    // Where one family would do nobody chose it, and the new cluster may have the other. Only who needs both has chosen, and a headless
    // service without a selector is of the family that its endpoints were written with.
    let selects = json::at(object, &["spec", "selector"]).and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    let has_its_addresses = if headless { !selects } else { options.keep_cluster_ips };
    if !has_its_addresses && json::text(object, &["spec", "ipFamilyPolicy"]) != "RequireDualStack" {
        json::remove(object, &["spec", "ipFamilies"]);
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
    // A class of attributes is of a driver, and of the cluster.
    json::remove(object, &["spec", "volumeAttributesClassName"]);
    if let Some(capacity) = json::at(object, CAPACITY).cloned() {
        let size = |quantity: Option<&Value>| quantity.and_then(Value::as_str).and_then(bytes);
        let asked = size(json::at(object, REQUEST));
        if size(Some(&capacity)).is_some_and(|capacity| asked.is_none_or(|asked| asked < capacity)) {
            json::set(object, REQUEST, capacity);
        }
    }
    json::remove(object, &["status"]);
    // A claim that chose its volume by label would find none, or one with other data.
    json::remove(object, &["spec", "selector"]);
}

/// The bytes of a quantity as Kubernetes writes it; none if it is none. Exact up to some pebibytes, and close above.
fn bytes(quantity: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let split = SUFFIXES.iter().find_map(|(suffix, factor)| Some((quantity.strip_suffix(suffix)?, *factor)));
    let exa = || quantity.strip_suffix('E').map(|number| (number, 1e18));
    let (number, factor) = split.or_else(exa).unwrap_or((quantity, 1.0));
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    number.parse::<f64>().ok().filter(|_| is_number).map(|number| number * factor)
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
                "annotations": {"orlop.io/restored-by": "r", "autoscaling.alpha.kubernetes.io/conditions": "[]", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
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
    fn the_status_of_custom_kinds_is_stored_and_not_made() {
        let check = |api_version: &str, stays: bool| {
            let widget =
                json!({"apiVersion": api_version, "kind": "Widget", "metadata": {"name": "x"}, "status": {"a": 1}});
            let mut stored = widget.clone();
            for_storage(&mut stored);
            assert_eq!(stored.get("status").is_some(), stays, "{api_version}");
            let key = ObjectKey::of(&stored).expect("test object has a name");
            for_restore(&key, &mut stored, RestoreOptions::default());
            assert_eq!(stored.get("status"), None, "{api_version}");
        };
        check("example.com/v1", true);
        check("cluster.x-k8s.io/v1", true);
        check("networking.k8s.io/v1", false);
        check("apps/v1", false);
        check("v1", false);
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
        let all = RestoreOptions { keep_cluster_ips: true, keep_node_ports: true };
        check_with(all, service(full.clone()), service(full));
    }

    #[test]
    fn families_stay_only_where_they_were_chosen() {
        let check = |headless: bool, selects: bool, policy: &str, stays: bool| {
            let service = |families: Option<Value>| {
                let mut service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}});
                if headless {
                    json::set(&mut service, &["spec", "clusterIP"], "None".into());
                }
                if selects {
                    json::set(&mut service, &["spec", "selector"], json!({"app": "web"}));
                }
                if !policy.is_empty() {
                    json::set(&mut service, &["spec", "ipFamilyPolicy"], policy.into());
                }
                if let Some(families) = families {
                    json::set(&mut service, &["spec", "ipFamilies"], families);
                }
                service
            };
            let families = json!(["IPv4"]);
            check(service(Some(families.clone())), service(stays.then_some(families)));
        };
        for policy in ["", "SingleStack", "PreferDualStack", "RequireDualStack"] {
            let required = policy == "RequireDualStack";
            check(false, true, policy, required);
            check(false, false, policy, required);
            check(true, true, policy, required);
            check(true, false, policy, true);
        }
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
                    "volumeAttributesClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
            }),
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"annotations": {"mine": "1"}},
                "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
            }),
        );
    }

    #[test]
    fn claims_ask_for_what_their_volume_had() {
        let claim = |asked: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "x"},
                "spec": {"resources": {"requests": {"storage": asked}}}})
        };
        let check = |asked: &str, had: &str, expected: &str| {
            let mut stored = claim(asked);
            json::set(&mut stored, &["status"], json!({"phase": "Bound", "capacity": {"storage": had}}));
            for_storage(&mut stored);
            assert_eq!(stored["status"], json!({"capacity": {"storage": had}}), "a backup keeps the size");
            check(stored, claim(expected));
        };
        check("1Gi", "1Gi", "1Gi");
        check("1Gi", "1073741824", "1Gi");
        check("1Gi", "10Gi", "10Gi");
        check("10Gi", "1Gi", "10Gi");
        check("1G", "1Gi", "1Gi");
        check("1Gi", "1G", "1Gi");
        check("500M", "1e9", "1e9");
        check("1.5Gi", "1536Mi", "1.5Gi");
        check("1Gi", "?", "1Gi");
        let mut unbound = claim("1Gi");
        json::set(&mut unbound, &["status"], json!({"phase": "Pending"}));
        for_storage(&mut unbound);
        assert_eq!(unbound, claim("1Gi"));
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("1Ki", Some(1024.0)),
            ("1.5k", Some(1500.0)),
            ("2E", Some(2e18)),
            ("2Ei", Some(2.0 * 1_152_921_504_606_846_976.0)),
            ("2e3", Some(2000.0)),
            ("2E3", Some(2000.0)),
            ("1000m", Some(1.0)),
            ("", None),
            ("Gi", None),
            ("inf", None),
            ("1 Gi", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
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

    #[test]
    fn a_hold_is_neither_stored_nor_restored() {
        let held = || {
            serde_json::json!({"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": "a", "namespace": "shop", "annotations": {gitops::HELD_BY: "u"}}, "spec": {"suspend": true}})
        };
        let key = ObjectKey::of(&held()).expect("it has a name");
        let (mut stored, mut restored) = (held(), held());
        for_storage(&mut stored);
        for_restore(&key, &mut restored, RestoreOptions::default());
        for object in [stored, restored] {
            assert!(
                object["spec"].get("suspend").is_none() && object["metadata"].get("annotations").is_none(),
                "{object}"
            );
        }
    }
}
