//! What an application needs from cluster scope, noted while its own objects pass by.
//!
//! Only names are kept, so that memory follows the number of distinct needs, not the number or size of objects.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{json, key::ObjectKey, pods};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The cluster-scoped things that captured objects name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Namespaces that are captured.
    pub(crate) namespaces: BTreeSet<String>,
    /// Groups and kinds of which something is stored, or made again by what is stored, and that a custom resource definition may define.
    pub(crate) custom_kinds: BTreeSet<(String, String)>,
    /// Service accounts, each as namespace and name.
    pub(crate) accounts: BTreeSet<(String, String)>,
    /// Cluster roles.
    pub(crate) cluster_roles: BTreeSet<String>,
    /// Why the cluster roles could not be listed, if they could not, so that parts of those may be unknown.
    pub(crate) unseen_roles: Option<String>,
    /// Priority classes.
    pub(crate) priority_classes: BTreeSet<String>,
    /// Runtime classes.
    pub(crate) runtime_classes: BTreeSet<String>,
    /// Ingress classes.
    pub(crate) ingress_classes: BTreeSet<String>,
    /// Storage classes.
    pub(crate) storage_classes: BTreeSet<String>,
    /// Persistent volumes.
    pub(crate) volumes: BTreeSet<String>,
}

impl Needs {
    /// Notes what an object needs that is stored, or made again by its owner. Wants it as the server gave it: cleaning takes off the name of a claim's volume.
    pub(crate) fn note(&mut self, key: &ObjectKey, object: &Value) {
        // The groups of custom kinds are domains of somebody's; built-in groups have no dot, or no definition.
        if key.group.contains('.') {
            self.custom_kinds.insert((key.group.clone(), key.kind.clone()));
        }
        match (key.group.as_str(), key.kind.as_str()) {
            ("", "ServiceAccount") => self.note_account(key),
            ("", "PersistentVolumeClaim") => self.note_claim(object),
            ("rbac.authorization.k8s.io", "RoleBinding")
                if json::text(object, &["roleRef", "kind"]) == "ClusterRole" =>
            {
                insert(&mut self.cluster_roles, json::text(object, &["roleRef", "name"]));
            }
            (_, "Ingress") => insert(&mut self.ingress_classes, json::text(object, &["spec", "ingressClassName"])),
            _ => {}
        }
        for template in json::list(object, &["spec", "volumeClaimTemplates"]) {
            self.note_claim(template);
        }
        if let Some(spec) = pods::spec(object) {
            insert(&mut self.priority_classes, json::text(spec, &["priorityClassName"]));
            insert(&mut self.runtime_classes, json::text(spec, &["runtimeClassName"]));
            for volume in json::list(spec, &["volumes"]) {
                if let Some(template) = json::at(volume, &["ephemeral", "volumeClaimTemplate"]) {
                    self.note_claim(template);
                }
            }
        }
    }

    /// Notes a service account; also one that is not stored because every namespace has it, since rights may be bound to it.
    pub(crate) fn note_account(&mut self, key: &ObjectKey) {
        if let Some(namespace) = &key.namespace {
            self.accounts.insert((namespace.clone(), key.name.clone()));
        }
    }

    fn note_claim(&mut self, claim: &Value) {
        insert(&mut self.storage_classes, json::text(claim, &["spec", "storageClassName"]));
        insert(&mut self.storage_classes, json::text(claim, &["metadata", "annotations", CLASS_ANNOTATION]));
        insert(&mut self.volumes, json::text(claim, &["spec", "volumeName"]));
    }

    /// The part of a cluster role binding that is about captured service accounts; none when there is no such part.
    pub(crate) fn reduce_binding(&self, mut binding: Value) -> Option<Value> {
        json::retain(&mut binding, &["subjects"], |subject| self.is_captured(subject));
        (!json::list(&binding, &["subjects"]).is_empty()).then_some(binding)
    }

    fn is_captured(&self, subject: &Value) -> bool {
        let name = json::text(subject, &["name"]);
        let has = |namespace: &str, name: &str| self.accounts.contains(&(namespace.to_owned(), name.to_owned()));
        match json::text(subject, &["kind"]) {
            "ServiceAccount" => has(json::text(subject, &["namespace"]), name),
            "User" => name
                .strip_prefix("system:serviceaccount:")
                .and_then(|account| account.split_once(':'))
                .is_some_and(|(namespace, name)| has(namespace, name)),
            "Group" => name
                .strip_prefix("system:serviceaccounts:")
                .is_some_and(|namespace| self.accounts.iter().any(|(captured, _)| captured == namespace)),
            _ => false,
        }
    }

    /// The part of a webhook configuration that calls services of captured namespaces; none when there is no such part.
    pub(crate) fn reduce_webhooks(&self, mut configuration: Value) -> Option<Value> {
        json::retain(&mut configuration, &["webhooks"], |webhook| {
            self.namespaces.contains(json::text(webhook, &["clientConfig", "service", "namespace"]))
        });
        (!json::list(&configuration, &["webhooks"]).is_empty()).then_some(configuration)
    }

    /// Whether an aggregated API is served from a captured namespace.
    pub(crate) fn serves_api(&self, api_service: &Value) -> bool {
        self.namespaces.contains(json::text(api_service, &["spec", "service", "namespace"]))
    }
}

/// Whether a cluster role, binding or priority class is one that every cluster has. The built-in roles bear a label; the built-in
/// classes bear none, and a prefix that nobody else's may have.
pub(crate) fn is_built_in(key: &ObjectKey, object: &Value) -> bool {
    match key.kind.as_str() {
        "PriorityClass" => key.name.starts_with("system-"),
        "ClusterRole" | "ClusterRoleBinding" => {
            json::text(object, &["metadata", "labels", "kubernetes.io/bootstrapping"]) == "rbac-defaults"
        }
        _ => false,
    }
}

fn insert(set: &mut BTreeSet<String>, name: &str) {
    if !name.is_empty() && !set.contains(name) {
        set.insert(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note(objects: &[Value]) -> Needs {
        let mut needs = Needs::default();
        for object in objects {
            let mut object = object.clone();
            json::set(&mut object, &["metadata", "namespace"], "shop".into());
            if json::text(&object, &["metadata", "name"]).is_empty() {
                json::set(&mut object, &["metadata", "name"], "x".into());
            }
            needs.note(&ObjectKey::of(&object).expect("named"), &object);
        }
        needs
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_of_cluster_scope_are_noted_wherever_they_stand() {
        let template = json!({"spec": {"containers": [], "priorityClassName": "high", "runtimeClassName": "gvisor"}});
        let needs = note(&[
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
                "spec": {"template": template, "volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]}}),
            json!({"apiVersion": "batch/v1", "kind": "CronJob",
                "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [], "priorityClassName": "low"}}}}}}),
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [],
                "volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "scratch"}}}}]}}),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"storageClassName": "", "volumeName": "pv-1"},
                "metadata": {"annotations": {CLASS_ANNOTATION: "old"}}}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": {"kind": "ClusterRole", "name": "view"}}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "mine"}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": {"ingressClassName": "nginx"}}),
            json!({"apiVersion": "example.com/v1", "kind": "Widget"}),
        ]);
        assert_eq!(needs.priority_classes, set(&["high", "low"]));
        assert_eq!(needs.runtime_classes, set(&["gvisor"]));
        assert_eq!(needs.storage_classes, set(&["fast", "old", "scratch"]));
        assert_eq!(needs.volumes, set(&["pv-1"]));
        assert_eq!(needs.cluster_roles, set(&["view"]));
        assert_eq!(needs.ingress_classes, set(&["nginx"]));
        assert!(needs.custom_kinds.contains(&("example.com".into(), "Widget".into())));
        assert!(!needs.custom_kinds.iter().any(|(group, _)| group == "apps"));
    }

    #[test]
    fn bindings_are_reduced_to_captured_accounts() {
        let mut needs = note(&[json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}})]);
        needs.namespaces.insert("shop".into());
        let captured = json!([
            {"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
            {"kind": "User", "name": "system:serviceaccount:shop:web"},
            {"kind": "Group", "name": "system:serviceaccounts:shop"},
        ]);
        let mut subjects = captured.as_array().expect("a list").clone();
        subjects.push(json!({"kind": "ServiceAccount", "name": "web", "namespace": "other"}));
        subjects.push(json!({"kind": "ServiceAccount", "name": "db", "namespace": "shop"}));
        subjects.push(json!({"kind": "Group", "name": "system:serviceaccounts"}));
        assert_eq!(needs.reduce_binding(json!({"subjects": subjects})), Some(json!({"subjects": captured})));
        assert_eq!(needs.reduce_binding(json!({"subjects": [{"kind": "User", "name": "jane"}]})), None);
        assert_eq!(needs.reduce_binding(json!({"roleRef": {}})), None);
    }

    #[test]
    fn webhooks_are_reduced_to_those_that_call_captured_services() {
        let needs = Needs { namespaces: set(&["shop"]), ..Needs::default() };
        let webhook = |ns: &str| json!({"name": ns, "clientConfig": {"service": {"namespace": ns}}});
        let by_url = json!({"name": "u", "clientConfig": {"url": "https://x"}});
        let both = json!({"webhooks": [webhook("shop"), webhook("other"), by_url]});
        assert_eq!(needs.reduce_webhooks(both), Some(json!({"webhooks": [webhook("shop")]})));
        assert_eq!(needs.reduce_webhooks(json!({"webhooks": [webhook("other")]})), None);
    }

    #[test]
    fn what_every_cluster_has_is_recognised() {
        let check = |kind: &str, name: &str, labels: Value, expected: bool| {
            let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}});
            let key = ObjectKey::of(&object).expect("named");
            assert_eq!(is_built_in(&key, &object), expected, "{object}");
        };
        let default = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        check("ClusterRole", "view", default.clone(), true);
        check("ClusterRoleBinding", "system:basic-user", default, true);
        check("PriorityClass", "system-cluster-critical", json!({}), true);
        check("PriorityClass", "high", json!({}), false);
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            check(kind, "system-monitor", json!({}), false);
        }
    }
}
